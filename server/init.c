/* SPDX-License-Identifier: MIT */
/*
 * silt-init: process 1 of a container. It waits on an inherited socket for one program, runs it,
 * reaps orphans, reports, and takes everything with it when it ends. Static and small, for many of
 * them wait at the same time; started by the OCI runtime, never by hand. See server/init.h.
 *
 * The program has the same uid and is hostile. Process 1 is out of its reach because it is not
 * dumpable (no ptrace, /proc/1/mem, /proc/1/fd, pidfd_getfd), has no signal handler (what comes
 * from inside its own pid namespace is dropped), and calls that would change another process's
 * limits, or process 1's priority, scheduling or processors, are filtered.
 */
#include "server/init.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server/init_filter.h"
#include "server/init_hold.h"

#include "shared/weaken.h"

#include "shared/banned.h"

/* ---- the order */

struct job {
    char *cwd;
    char **argv, **env; /* argv NULL: there is none */
    bool tty;
    int fds[3]; /* -1: none came with it */
};

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

/* An order's fixed part and the descriptors that came with it. */
static bool read_order(struct init_order *order, int fds[3])
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

/* The strings of an order. The memory is never given back: there is one program per container. */
static bool read_job(const struct init_order *order, struct job *job)
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

static _Noreturn void run_child(const struct job *job, int error_fd, bool held, bool around)
{
    sigset_t none;
    int error = 0;
    (void)sigemptyset(&none);
    (void)setsid();
    for (int i = 0; i < 3 && !error; i++)
        error = dup2(job->fds[i], i) < 0 ? errno : 0;
    if (!error && job->tty && ioctl(1, TIOCSCTTY, 0) < 0)
        error = errno;
    if (!error && chdir(job->cwd) < 0)
        error = errno;
    (void)umask(022);
    if (!error && ((held && hold_offer() < 0) || sigprocmask(SIG_SETMASK, &none, NULL) < 0 ||
                      (!around && !WEAK("filter") && filter_load() < 0)))
        error = errno;
    if (!error)
        error = execute(job->argv, job->env);
    (void)!write(error_fd, &error, sizeof error);
    _exit(127);
}

/* ---- process 1 */

struct state {
    pid_t program; /* 0: none yet */
    int error_fd;  /* the program's exec error, or end of file */
    bool ended;
    bool around; /* INIT_AROUND */
    struct job job;
    struct job ready; /* what was prepared; its descriptors are for whatever will run */
    struct hold hold;
    int hold_error_fd;
    bool prepared; /* the program is what was prepared */
};

static _Noreturn void end(void)
{
    (void)kill(-1, SIGKILL);
    _exit(0);
}

static void report(uint32_t kind, const struct init_report *values)
{
    struct init_report r = *values;
    r.kind = kind;
    if (send(INIT_FD, &r, sizeof r, MSG_NOSIGNAL) != (ssize_t)sizeof r)
        end();
}

static uint64_t micros(struct timeval t)
{
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_usec;
}

static void close_all(int fds[3])
{
    for (int i = 0; i < 3; i++) {
        if (fds[i] >= 0)
            (void)close(fds[i]);
        fds[i] = -1;
    }
}

/* Start a program; what is wrong is known only after it tried to execute: *ret_error. */
static pid_t launch(const struct job *job, bool held, bool around, int *ret_error)
{
    int error_fds[2];
    if (pipe2(error_fds, O_CLOEXEC) < 0)
        end();
    pid_t pid = fork();
    if (pid == 0)
        run_child(job, error_fds[1], held, around);
    (void)close(error_fds[1]);
    *ret_error = error_fds[0];
    return pid;
}

static void start_aside(struct job *job)
{
    int error_fd;
    (void)launch(job, false, true, &error_fd);
    (void)close(error_fd);
    close_all(job->fds);
}

static void start(struct state *s)
{
    s->program = launch(&s->job, false, s->around, &s->error_fd);
    if (s->program < 0) {
        report(INIT_ENDED, &(struct init_report){.exec_errno = errno});
        s->ended = true;
    }
    close_all(s->job.fds);
}

static void program_ended(struct state *s, int status, const struct rusage *usage)
{
    int error = 0;
    s->ended = true;
    if (read(s->error_fd, &error, sizeof error) != (ssize_t)sizeof error)
        error = 0;
    /* What the program left running ends with it, before anybody looks at its files. */
    if (!WEAK("end"))
        (void)kill(-1, SIGKILL);
    report(INIT_ENDED, &(struct init_report){.exec_errno = error,
                           .status = status,
                           .prepared = s->prepared,
                           .user_us = micros(usage->ru_utime),
                           .system_us = micros(usage->ru_stime),
                           .peak_bytes = (uint64_t)usage->ru_maxrss * 1024});
}

/* ---- the program that was prepared */

static const char *mark_of(const struct job *job)
{
    for (char *const *e = job->env; *e; e++) {
        if (strncmp(*e, INIT_MARK, strlen(INIT_MARK)) == 0)
            return *e + strlen(INIT_MARK);
    }
    return "";
}

static bool same_strings(char *const *a, char *const *b)
{
    for (; *a && *b; a++, b++) {
        bool marked = strncmp(*a, INIT_MARK, strlen(INIT_MARK)) == 0 &&
                      strncmp(*b, INIT_MARK, strlen(INIT_MARK)) == 0;
        if (marked ? strlen(*a) != strlen(*b) : strcmp(*a, *b) != 0)
            return false;
    }
    return !*a && !*b;
}

static bool is_ready(const struct state *s)
{
    const struct job *a = &s->ready, *b = &s->job;
    return (s->hold.state == HOLD_STARTING || s->hold.state == HOLD_HELD) && !b->tty &&
           strcmp(a->cwd, b->cwd) == 0 && same_strings(a->argv, b->argv) &&
           same_strings(a->env, b->env);
}

static void prepare(struct state *s)
{
    pid_t pid = launch(&s->ready, true, false, &s->hold_error_fd);
    if (pid > 0)
        hold_begin(&s->hold, pid, mark_of(&s->ready));
}

/* It stopped on its way, or it could not be held after all. */
static void follow(struct state *s, int status)
{
    bool wanted = s->program == s->hold.pid;
    bool going = hold_step(&s->hold, status);
    if (wanted && !going) {
        s->prepared = false;
        start(s);
    } else if (wanted && s->hold.state == HOLD_NONE) {
        close_all(s->job.fds);
    }
}

static void run(struct state *s)
{
    bool given = s->job.fds[0] >= 0;
    if (!given) {
        memcpy(s->job.fds, s->ready.fds, sizeof s->job.fds);
        memset(s->ready.fds, -1, sizeof s->ready.fds);
    }
    if (s->job.fds[0] < 0)
        end();
    pid_t pid = s->hold.pid;
    if (!given && is_ready(s) && hold_release(&s->hold, mark_of(&s->job))) {
        s->program = pid;
        s->error_fd = s->hold_error_fd;
        s->prepared = true;
        if (s->hold.state == HOLD_NONE)
            close_all(s->job.fds);
        return;
    }
    hold_end(&s->hold);
    close_all(s->ready.fds);
    start(s);
}

/* ---- the loop */

static void reap(struct state *s)
{
    int status;
    struct rusage usage;
    for (pid_t pid; (pid = wait4(-1, &status, WNOHANG, &usage)) > 0;) {
        if (WIFSTOPPED(status)) {
            if (pid == s->hold.pid)
                follow(s, status);
            continue;
        }
        if (pid == s->hold.pid)
            hold_forget(&s->hold);
        if (pid == s->program && !s->ended)
            program_ended(s, status, &usage);
    }
}

static void obey(struct state *s)
{
    struct init_order order;
    struct job job = {.fds = {-1, -1, -1}};
    if (!read_order(&order, job.fds))
        end();
    switch (order.kind) {
    case INIT_PREPARE:
        if (s->program || s->ready.argv || s->around || job.fds[0] < 0 || !read_job(&order, &job))
            end();
        s->ready = job;
        prepare(s);
        break;
    case INIT_RUN:
        if (s->program || !read_job(&order, &job))
            end();
        s->job = job;
        run(s);
        break;
    case INIT_SIGNAL:
        if (s->program > 0 && !s->ended && kill(-s->program, (int)order.signal) < 0)
            (void)kill(s->program, (int)order.signal); /* it has no group of its own yet */
        break;
    case INIT_ASIDE:
        if (!s->around || job.fds[0] < 0 || !read_job(&order, &job))
            end();
        start_aside(&job);
        break;
    default:
        end();
    }
}

int main(int argc, char **argv)
{
    struct state s = {.error_fd = -1,
        .job.fds = {-1, -1, -1},
        .ready.fds = {-1, -1, -1},
        .around = argc > 1 && strcmp(argv[1], INIT_AROUND) == 0};
    sigset_t child;
    if (getpid() != 1) /* it kills all that it can reach */
        return 1;
    if (prctl(PR_SET_DUMPABLE, WEAK("dumpable")) < 0 ||
        (!s.around && !WEAK("privileges") && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) ||
        fcntl(INIT_FD, F_SETFD, WEAK("descriptors") ? 0 : FD_CLOEXEC) < 0)
        return 1;
    (void)syscall(SYS_close_range, INIT_FD + 1, ~0U, 0);
    for (int sig = 1; sig < NSIG; sig++) /* what the runtime ignored must not stay ignored */
        (void)signal(sig, SIG_DFL);
    (void)sigemptyset(&child);
    (void)sigaddset(&child, SIGCHLD);
    int signals = -1;
    if (sigprocmask(SIG_SETMASK, &child, NULL) == 0)
        signals = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals < 0)
        return 1;
    report(INIT_READY, &(struct init_report){.kind = INIT_READY});
    for (;;) {
        struct pollfd fds[] = {{INIT_FD, POLLIN, 0}, {signals, POLLIN, 0}};
        struct signalfd_siginfo ignored;
        if (poll(fds, 2, -1) < 0)
            continue;
        if (fds[1].revents) {
            (void)!read(signals, &ignored, sizeof ignored);
            reap(&s);
        }
        if (fds[0].revents)
            obey(&s);
    }
}
