/* SPDX-License-Identifier: MIT */
#include "server/delta_worker.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "shared/delta.h"
#include "shared/io.h"
#include "shared/num.h"
#include "shared/weaken.h"

#include "shared/banned.h"

enum { SIG_FD, OUT_FD, ERROR_FD, FILE_FD, FD_END };

#define NOBODY 65534
#define MEMORY_BYTES (UINT64_C(192) << 20) /* a signature of 9 MiB takes some 40 MiB in librsync */
#define SLOWEST_BYTES_PER_S (UINT64_C(8) << 20)
#define LEAST_S 10
#define SLACK_BYTES (UINT64_C(1) << 20) /* a delta beyond the file's own size */
#define EXIT_GAVE_UP 3

/* ---- the process */

static int limit(__rlimit_resource_t what, uint64_t value)
{
    const struct rlimit l = {.rlim_cur = value, .rlim_max = value};
    return setrlimit((__rlimit_resource_t)what, &l);
}

/* As little as possible is left to whoever takes this process over. */
static int confine(uint64_t size)
{
    int r = syscall(SYS_close_range, FD_END, ~0U, 0) < 0 ? -1 : 0;
    if (r == 0 && geteuid() == 0 &&
        (setgroups(0, NULL) < 0 || setresgid(NOBODY, NOBODY, NOBODY) < 0 ||
            setresuid(NOBODY, NOBODY, NOBODY) < 0))
        r = -1;
    if (r < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0) < 0 ||
        prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || limit(RLIMIT_CORE, 0) < 0 ||
        limit(RLIMIT_NOFILE, FD_END) < 0 || limit(RLIMIT_FSIZE, size + SLACK_BYTES) < 0 ||
        limit(RLIMIT_CPU, LEAST_S + size / SLOWEST_BYTES_PER_S) < 0)
        return -1;
#ifndef __SANITIZE_ADDRESS__ /* its shadow alone is larger */
    if (limit(RLIMIT_AS, MEMORY_BYTES) < 0)
        return -1;
#endif
    return 0;
}

static int sink_out(void *ctx, const void *data, size_t len)
{
    (void)ctx;
    return io_write_all(OUT_FD, data, len);
}

int delta_worker_main(const char *text)
{
    CLEANUP(buf_release) struct buf sig;
    uint64_t size = 0;
    buf_init(&sig, DELTA_SIGNATURE_MAX);
    if (num_u64(text, DELTA_FILE_MAX, &size) < 0 || confine(size) < 0 ||
        lseek(SIG_FD, 0, SEEK_SET) < 0 || io_read_rest(SIG_FD, &sig) < 0)
        return EXIT_GAVE_UP;
    return delta_against(sig.data, sig.len, FILE_FD, size, sink_out, NULL, NULL) < 0 ? EXIT_GAVE_UP
                                                                                     : 0;
}

/* ---- the server's side */

static int spawn(int sig_fd, int file_fd, uint64_t size, int out_fd, pid_t *ret)
{
    char text[24];
    (void)snprintf(text, sizeof(text), "%llu", (unsigned long long)size);
    char *const argv[] = {(char[]){"siltd"}, (char[]){DELTA_WORKER_ARG}, text, NULL};
    char *const env[] = {WEAKEN_LIST, NULL};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t none, all;
    (void)sigemptyset(&none);
    (void)sigfillset(&all);
    int r = posix_spawn_file_actions_init(&files);
    if (r != 0)
        return -r;
    if ((r = posix_spawnattr_init(&attr)) != 0) {
        (void)posix_spawn_file_actions_destroy(&files);
        return -r;
    }
    /* Descriptors of a server are above these four, so none is overwritten before it is used. */
    if ((r = posix_spawn_file_actions_adddup2(&files, sig_fd, SIG_FD)) == 0 &&
        (r = posix_spawn_file_actions_adddup2(&files, out_fd, OUT_FD)) == 0 &&
        (r = posix_spawn_file_actions_addopen(&files, ERROR_FD, "/dev/null", O_WRONLY, 0)) == 0 &&
        (r = posix_spawn_file_actions_adddup2(&files, file_fd, FILE_FD)) == 0 &&
        (r = posix_spawnattr_setsigmask(&attr, &none)) == 0 &&
        (r = posix_spawnattr_setsigdefault(&attr, &all)) == 0 &&
        (r = posix_spawnattr_setflags(
             &attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF)) == 0)
        r = posix_spawn(ret, "/proc/self/exe", &files, &attr, argv, env);
    (void)posix_spawnattr_destroy(&attr);
    (void)posix_spawn_file_actions_destroy(&files);
    return -r;
}

/* Exit status of the process, which is over when this returns. *ret_late: it had to be ended. */
static int await(pid_t pid, uint64_t deadline_ms, bool *ret_late)
{
    CLEANUP(fd_closep) int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    struct pollfd wait = {.fd = pidfd, .events = POLLIN};
    int status = 0;
    int r = pidfd < 0 ? -1 : poll(&wait, 1, (int)deadline_ms);
    *ret_late = r <= 0;
    if (*ret_late)
        (void)kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return status;
}

int delta_worker_run(int sig_fd, int file_fd, uint64_t size, int out_fd, struct err *e)
{
    bool late = false;
    pid_t pid = 0;
    int r = spawn(sig_fd, file_fd, size, out_fd, &pid);
    if (r < 0)
        return err_set(e, -r, "start the process that makes deltas");
    int status = await(pid, 2000 * (LEAST_S + size / SLOWEST_BYTES_PER_S), &late);
    if (late)
        return err_refuse(e, PROTO_TIMEOUT,
            "the delta took too long: fetch the file instead (GET …/files/{path})");
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return err_refuse(e, PROTO_BAD_CHANGES,
            "no delta could be made against this signature: fetch the file instead (GET "
            "…/files/{path})");
    return 0;
}
