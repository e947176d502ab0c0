/* SPDX-License-Identifier: MIT */
#include "server/container_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "server/init.h"
#include "shared/io.h"

#include "shared/banned.h"

#define STACK_BYTES (64 * 1024)

/* Everything the child needs, prepared before: it shares our memory until it executes the runtime
 * and may only make system calls. */
struct child {
    const struct oci_engine *engine;
    const struct spawn *spawn;
    const char *const *argv;
    const char *step; /* where it failed */
    int error;
};

/* Move the descriptors to 0, 1, 2 and INIT_FD; all others close with execve. */
static int arrange_descriptors(const struct spawn *s)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int in = null < 0 ? -1 : fcntl(null, F_DUPFD_CLOEXEC, 16);
    int out = fcntl(s->output, F_DUPFD_CLOEXEC, 16);
    int sock = s->socket < 0 ? -1 : fcntl(s->socket, F_DUPFD_CLOEXEC, 16);
    if (in < 0 || out < 0 || (s->socket >= 0 && sock < 0) || dup2(in, 0) < 0 || dup2(out, 1) < 0 ||
        dup2(out, 2) < 0 || (sock >= 0 && dup2(sock, INIT_FD) < 0))
        return -1;
    unsigned first = sock >= 0 ? INIT_FD + 1 : INIT_FD;
    return (int)syscall(SYS_close_range, first, ~0U, CLOSE_RANGE_CLOEXEC);
}

static int fail(struct child *c, const char *step)
{
    c->error = errno;
    c->step = step;
    return 127;
}

/* The sanitizer's instrumentation would not understand the borrowed memory. */
#define BORROWED __attribute__((no_sanitize("address", "undefined", "thread")))

/* Process 1 of a new pid namespace needs the /proc that goes with it: the runtime looks up its own
 * processes there. */
BORROWED static int enter_own_proc(void)
{
    return unshare(CLONE_NEWNS) < 0 ||
                   mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0
               ? -1
               : 0;
}

BORROWED static int join_cgroups(const struct spawn *s)
{
    for (int i = 0; i < s->join_count; i++) {
        if (write(s->join[i], "0", 1) != 1)
            return -1;
    }
    return 0;
}

BORROWED static int run_child(void *arg)
{
    struct child *c = arg;
    const struct oci_engine *g = c->engine;
    static char *const no_environment[] = {NULL};
    sigset_t none;
    for (int sig = 1; sig < NSIG; sig++)
        (void)signal(sig, SIG_DFL);
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    if (g->place.user_ns >= 0 && setns(g->place.user_ns, CLONE_NEWUSER) < 0)
        return fail(c, "enter the user namespace");
    /* Before there is a place a runtime is only asked for its version. */
    if (g->place.mount_ns >= 0 && setns(g->place.mount_ns, CLONE_NEWNS) < 0)
        return fail(c, "enter the mount namespace");
    if (c->spawn->around && enter_own_proc() < 0)
        return fail(c, "mount /proc");
    if (join_cgroups(c->spawn) < 0)
        return fail(c, "enter the cgroup");
    (void)setsid(); /* a terminal's Ctrl-C for siltd is not for containers */
    if (c->spawn->cpus && sched_setaffinity(0, sizeof *c->spawn->cpus, c->spawn->cpus) < 0)
        return fail(c, "set the CPUs");
    if (arrange_descriptors(c->spawn) < 0)
        return fail(c, "arrange descriptors");
    if (c->spawn->around)
        (void)execve(PLACE_INIT, (char *const *)c->argv, no_environment);
    else if (g->runtime_fd >= 0)
        (void)syscall(SYS_execveat, g->runtime_fd, "", c->argv, no_environment, AT_EMPTY_PATH);
    else
        (void)execve(g->runtime_path, (char *const *)c->argv, no_environment);
    return fail(c, "execute the runtime");
}

/* argv with the program's name before it; malloc'd, the strings are borrowed. */
static const char **with_name(const struct oci_engine *g, const char *const *argv)
{
    size_t n = 0;
    while (argv[n])
        n++;
    const char **all = calloc(n + 2, sizeof *all);
    if (!all)
        return NULL;
    all[0] = g->runtime_path;
    memcpy(all + 1, argv, n * sizeof *all);
    return all;
}

int spawn_runtime(const struct oci_engine *g, const struct spawn *spawn, pid_t *ret_pid,
    int *ret_pidfd, struct err *e)
{
    CLEANUP(freep) const char **argv = with_name(g, spawn->argv);
    char *stack = mmap(
        NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (!argv || stack == MAP_FAILED)
        return err_set(e, ENOMEM, "start the container runtime");
    struct child child = {.engine = g, .spawn = spawn, .argv = argv};
    int pidfd = -1;
    sigset_t all, before;
    /* A handler of ours must not run in the child while it has our memory. */
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t pid = clone(run_child, stack + STACK_BYTES,
        CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD | (spawn->around ? CLONE_NEWPID : 0), &child,
        &pidfd);
    int error = errno;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    (void)munmap(stack, STACK_BYTES);
    if (pid < 0)
        return err_set(e, error, "start the container runtime");
    if (child.error) {
        (void)waitpid(pid, NULL, 0);
        (void)close(pidfd);
        return err_set(e, child.error, "start the container runtime: %s", child.step);
    }
    *ret_pid = pid;
    *ret_pidfd = pidfd;
    return 0;
}

int spawn_wait(pid_t pid, int pidfd, int timeout_ms, int *ret_status)
{
    uint64_t deadline = io_now_ns() + (uint64_t)timeout_ms * 1000000u;
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    for (;;) {
        uint64_t now = io_now_ns();
        int left_ms = now >= deadline ? 0 : (int)((deadline - now) / 1000000u) + 1;
        int n = poll(&p, 1, left_ms);
        if (n == 0)
            return -ETIMEDOUT;
        if (n > 0)
            break;
    }
    pid_t got;
    do
        got = waitpid(pid, ret_status, 0);
    while (got < 0 && errno == EINTR);
    return got < 0 ? -errno : 0;
}

int spawn_collect(const struct oci_engine *g, const char *const *argv, int timeout_ms, char *out,
    size_t out_size, int *ret_status, struct err *e)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) < 0)
        return err_set(e, errno, "make a pipe");
    CLEANUP(fd_closep) int from = fds[0];
    CLEANUP(fd_closep) int to = fds[1];
    CLEANUP(fd_closep) int pidfd = -1;
    pid_t pid;
    int r = spawn_runtime(
        g, &(struct spawn){.argv = argv, .socket = -1, .output = to}, &pid, &pidfd, e);
    if (r < 0)
        return r;
    fd_closep(&to);
    /* What is asked of it here prints far less than a pipe holds, so it can be read afterwards. */
    r = spawn_wait(pid, pidfd, timeout_ms, ret_status);
    if (r == -ETIMEDOUT) {
        (void)kill(pid, SIGKILL);
        (void)waitpid(pid, ret_status, 0);
        return err_say(e, ETIMEDOUT, "'%s' does not end", g->runtime_path);
    }
    ssize_t n = io_nonblock(from, 1) < 0 ? -1 : read(from, out, out_size - 1);
    out[n > 0 ? n : 0] = '\0';
    return 0;
}
