/* SPDX-License-Identifier: MIT */
#include "server/init_job.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/init_filter.h"
#include "server/init_hold.h"

#include "shared/weaken.h"

#include "shared/banned.h"

/* ---- the order */

static bool read_all(int fd, void *data, size_t len)
{
    for (uint8_t *p = data; len > 0;) {
        ssize_t n = read(fd, p, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        p += n;
        len -= (size_t)n;
    }
    return true;
}

bool job_read_order(struct init_order *order, int fds[3])
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(3 * sizeof(int))];
    } control;
    struct iovec io = {order, sizeof *order};
    struct msghdr message = {.msg_iov = &io,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = sizeof control.bytes};
    ssize_t n;
    do
        n = recvmsg(INIT_FD, &message, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n <= 0)
        return false;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
            c->cmsg_len == CMSG_LEN(3 * sizeof(int)))
            memcpy(fds, CMSG_DATA(c), 3 * sizeof(int));
    }
    return read_all(INIT_FD, (char *)order + n, sizeof *order - (size_t)n);
}

bool job_read(const struct init_order *order, struct job *job)
{
    size_t strings = (size_t)order->argc + order->envc;
    if (order->argc < 1 || strings > INIT_STRINGS_MAX || order->body_len > INIT_BODY_MAX)
        return false;
    size_t table_bytes = (strings + 2) * sizeof(char *);
    char *memory = mmap(NULL, table_bytes + order->body_len + 1, PROT_READ | PROT_WRITE,
        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return false;
    char *text = memory + table_bytes, *end = text + order->body_len;
    if (!read_all(INIT_FD, text, order->body_len))
        return false;
    job->cwd = text;
    job->argv = (char **)(void *)memory;
    job->env = job->argv + order->argc + 1;
    for (size_t i = 0; i < strings; i++) {
        text += strlen(text) + 1;
        if (text >= end)
            return false;
        *(i < order->argc ? &job->argv[i] : &job->env[i - order->argc]) = text;
    }
    job->tty = order->tty != 0;
    return true;
}

/* ---- the program */

/* As execvpe(3), with PATH of the program's own environment and without running a file that the
 * kernel does not recognise as a shell script. Returns the errno that says most. */
static int execute(char *const argv[], char *const env[])
{
    const char *path = "/usr/local/bin:/usr/bin:/bin";
    char name[4096 + 256];
    bool denied_one = false;
    if (strchr(argv[0], '/') || !argv[0][0]) {
        execve(argv[0], argv, env);
        return errno;
    }
    for (char *const *e = env; *e; e++) {
        if (!strncmp(*e, "PATH=", 5))
            path = *e + 5;
    }
    size_t base_len = strlen(argv[0]);
    while (*path) {
        size_t len = strcspn(path, ":");
        if (len + base_len + 2 <= sizeof name) {
            memcpy(name, path, len);
            if (len > 0)
                name[len++] = '/';
            memcpy(name + len, argv[0], base_len + 1);
            execve(name, argv, env);
            if (errno == EACCES)
                denied_one = true;
            else if (errno != ENOENT && errno != ENOTDIR)
                return errno;
        }
        path += strcspn(path, ":");
        path += *path == ':';
    }
    return denied_one ? EACCES : ENOENT;
}

/* What the program has from process 1, whatever it will be. 0 or errno. */
static int make_ready(enum job_how how)
{
    (void)setsid();
    (void)umask(022);
    if (how == JOB_HELD && hold_offer() < 0)
        return errno;
    return how != JOB_AROUND && !WEAK("filter") && filter_load() < 0 ? errno : 0;
}

/* What one program asks for. Returns the errno of what failed. */
static int become(const struct job *job)
{
    sigset_t none;
    (void)sigemptyset(&none);
    for (int i = 0; i < 3; i++) {
        if (dup2(job->fds[i], i) < 0)
            return errno;
    }
    if ((job->tty && ioctl(1, TIOCSCTTY, 0) < 0) || chdir(job->cwd) < 0 ||
        sigprocmask(SIG_SETMASK, &none, NULL) < 0)
        return errno;
    return execute(job->argv, job->env);
}

static _Noreturn void give_up(int error_fd, int error)
{
    (void)!write(error_fd, &error, sizeof error);
    _exit(127);
}

/* A pipe that tells why the program could not be executed, or ends. */
static pid_t fork_with(int error_fds[2])
{
    if (pipe2(error_fds, O_CLOEXEC) < 0)
        return -1;
    pid_t pid = fork();
    if (pid != 0)
        (void)close(error_fds[1]);
    if (pid < 0)
        (void)close(error_fds[0]);
    return pid;
}

pid_t job_launch(const struct job *job, enum job_how how, int *ret_error)
{
    int error_fds[2];
    pid_t pid = fork_with(error_fds);
    if (pid == 0) {
        int error = make_ready(how);
        give_up(error_fds[1], error ? error : become(job));
    }
    *ret_error = pid > 0 ? error_fds[0] : -1;
    return pid;
}

static int read_own_order(struct standby *shared, struct job *job)
{
    struct init_order order;
    if (!job_read_order(&order, job->fds) || order.kind != INIT_RUN || !job_read(&order, job))
        return EPROTO;
    atomic_store(&shared->taken, true);
    return 0;
}

pid_t job_stand_by(struct standby **ret, int *ret_error)
{
    int error_fds[2];
    struct standby *shared =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return -1;
    atomic_store(&shared->taken, false);
    pid_t pid = fork_with(error_fds);
    if (pid == 0) {
        struct job job = {.fds = {-1, -1, -1}};
        int error = make_ready(JOB_FILTERED);
        if (!error)
            error = read_own_order(shared, &job);
        give_up(error_fds[1], error ? error : become(&job));
    }
    *ret = pid > 0 ? shared : NULL;
    *ret_error = pid > 0 ? error_fds[0] : -1;
    return pid;
}
