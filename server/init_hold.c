/* SPDX-License-Identifier: MIT */
#include "server/init_hold.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shared/banned.h"

#define PATH_LOOK 512 /* a longer path is held at */
#define MAPS_BYTES (256 * 1024)
#define PIECE_BYTES (64 * 1024)
#define NO_PATH (-1)
#define NO_STREAM (-2) /* the first argument is a descriptor above 2 */
#define THREAD (-3)    /* the first argument asks for a thread, not for a process */

/* What a program may do before it is held, and which argument is a path beneath the read-only root.
 * None of these waits for anybody, and none leaves a trace outside the process. */
static const struct {
    long nr;
    int path;
} early[] = {
    {SYS_openat, 1},
    {SYS_newfstatat, 1},
    {SYS_statx, 1},
    {SYS_readlinkat, 1},
    {SYS_faccessat, 1},
#ifdef SYS_open
    {SYS_open, 0},
    {SYS_stat, 0},
    {SYS_lstat, 0},
    {SYS_readlink, 0},
    {SYS_access, 0},
    {SYS_arch_prctl, NO_PATH},
    {SYS_epoll_create, NO_PATH},
    {SYS_pipe, NO_PATH},
#endif
#ifdef SYS_faccessat2
    {SYS_faccessat2, 1},
#endif
    {SYS_read, NO_STREAM},
    {SYS_pread64, NO_STREAM},
    {SYS_lseek, NO_PATH},
    {SYS_close, NO_STREAM},
    {SYS_getdents64, NO_STREAM},
    {SYS_fstat, NO_PATH},
    {SYS_ioctl, NO_PATH},
    {SYS_fcntl, NO_PATH},
    {SYS_mmap, NO_PATH},
    {SYS_mprotect, NO_PATH},
    {SYS_munmap, NO_PATH},
    {SYS_mremap, NO_PATH},
    {SYS_madvise, NO_PATH},
    {SYS_brk, NO_PATH},
    {SYS_rt_sigaction, NO_PATH},
    {SYS_rt_sigprocmask, NO_PATH},
    {SYS_sigaltstack, NO_PATH},
    {SYS_getrandom, NO_PATH},
    {SYS_futex, NO_PATH},
    {SYS_set_tid_address, NO_PATH},
    {SYS_set_robust_list, NO_PATH},
    {SYS_rseq, NO_PATH},
    {SYS_prlimit64, NO_PATH},
    {SYS_sysinfo, NO_PATH},
    {SYS_uname, NO_PATH},
    {SYS_getuid, NO_PATH},
    {SYS_geteuid, NO_PATH},
    {SYS_getgid, NO_PATH},
    {SYS_getegid, NO_PATH},
    {SYS_getpid, NO_PATH},
    {SYS_gettid, NO_PATH},
    {SYS_sched_getaffinity, NO_PATH},
    {SYS_clone, THREAD},
    {SYS_clone3, NO_PATH},
    {SYS_epoll_create1, NO_PATH},
    {SYS_epoll_ctl, NO_PATH},
    {SYS_eventfd2, NO_PATH},
    {SYS_pipe2, NO_PATH},
    {SYS_prctl, NO_PATH},
    {SYS_capget, NO_PATH},
    {SYS_getcwd, NO_PATH},
    {SYS_write, NO_STREAM},
    {SYS_pkey_alloc, NO_PATH},
    {SYS_pkey_mprotect, NO_PATH},
    {SYS_execve, 0},
};

/* Folders of the root that no program can write to. */
static const char *const read_only[] = {
    "/usr/",
    "/lib/",
    "/lib64/",
    "/bin/",
    "/sbin/",
    "/etc/",
    "/dev/null",
    "/dev/urandom",
    "/sys/",
    "/proc/self/maps",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/cpuinfo",
    "/proc/version_signature",
};

int hold_offer(void)
{
    return ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0 || raise(SIGSTOP) != 0 ? -1 : 0;
}

void hold_begin(struct hold *h, pid_t pid, const char *mark)
{
    *h = (struct hold){.state = HOLD_STARTING, .pid = pid, .mark = mark, .mark_len = strlen(mark)};
}

void hold_forget(struct hold *h)
{
    *h = (struct hold){.state = HOLD_NONE};
}

void hold_end(struct hold *h)
{
    if (h->state != HOLD_NONE && h->pid > 0) {
        (void)kill(h->pid, SIGKILL);
        while (waitpid(h->pid, NULL, __WALL) < 0 && errno == EINTR)
            ;
    }
    hold_forget(h);
}

/* ---- the program's memory */

static ssize_t peek(pid_t pid, uint64_t at, void *data, size_t len)
{
    struct iovec here = {data, len}, there = {(void *)(uintptr_t)at, len};

    return process_vm_readv(pid, &here, 1, &there, 1, 0);
}

static bool poke(pid_t pid, uint64_t at, const void *data, size_t len)
{
    struct iovec here = {(void *)(uintptr_t)data, len}, there = {(void *)(uintptr_t)at, len};

    return process_vm_writev(pid, &here, 1, &there, 1, 0) == (ssize_t)len;
}

/* Note each copy of the mark between two addresses. False: there are too many. */
static bool search(struct hold *h, uint64_t from, uint64_t to, uint8_t *piece)
{
    while (from + h->mark_len <= to) {
        size_t want = to - from < PIECE_BYTES ? (size_t)(to - from) : PIECE_BYTES;
        ssize_t n = peek(h->pid, from, piece, want);
        if (n < (ssize_t)h->mark_len)
            return true; /* nothing is mapped there any more */
        const uint8_t *p = piece;
        while ((p = memmem(p, (size_t)(piece + n - p), h->mark, h->mark_len)) != NULL) {
            if (h->marks == HOLD_MARKS_MAX)
                return false;
            h->at[h->marks++] = from + (uint64_t)(p - piece);
            p += h->mark_len;
        }
        from += (uint64_t)n - h->mark_len + 1;
    }
    return true;
}

static size_t read_maps(pid_t pid, char *text, size_t size)
{
    char path[32] = "/proc/", *p = path + 6;
    char digits[12];
    size_t n = 0, len = 0;
    ssize_t got;

    for (pid_t rest = pid; rest > 0; rest /= 10)
        digits[n++] = (char)('0' + rest % 10);
    while (n > 0)
        *p++ = digits[--n];
    memcpy(p, "/maps", sizeof "/maps");
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && len + 1 < size && (got = read(fd, text + len, size - 1 - len)) > 0)
        len += (size_t)got;
    if (fd >= 0)
        (void)close(fd);
    text[len] = '\0';
    return len;
}

/* Find the mark in everything that the program can write to. */
static bool find_marks(struct hold *h)
{
    static char maps[MAPS_BYTES]; /* there is one process and one thread */
    static uint8_t piece[PIECE_BYTES];
    uint64_t total = 0;

    h->marks = 0;
    if (read_maps(h->pid, maps, sizeof maps) == 0)
        return false;
    for (char *line = maps; *line;) {
        char *rest, *end = strchr(line, '\n');
        uint64_t from = strtoull(line, &rest, 16);
        uint64_t to = *rest == '-' ? strtoull(rest + 1, &rest, 16) : 0;
        if (strncmp(rest, " rw", 3) == 0 && to > from) {
            total += to - from;
            if (total > HOLD_MEMORY_MAX || !search(h, from, to, piece))
                return false;
        }
        if (!end)
            return false; /* more mappings than fit */
        line = end + 1;
    }
    return h->marks > 0;
}

/* ---- where it is held */

/* Is it a file that is the same for every run and at any time? */
static bool is_constant(pid_t pid, uint64_t at)
{
    char path[PATH_LOOK];
    ssize_t n = peek(pid, at, path, sizeof path);

    /* The text may end right before a page that is not mapped. */
    for (size_t shorter = sizeof path; n < 0 && shorter > 1; shorter /= 2)
        n = peek(pid, at, path, shorter / 2);
    if (n <= 0 || !memchr(path, '\0', (size_t)n))
        return false;
    if (!*path) /* the descriptor itself, with AT_EMPTY_PATH */
        return true;
    if (strstr(path, ".."))
        return false;
    for (size_t i = 0; i < sizeof read_only / sizeof read_only[0]; i++) {
        if (strncmp(path, read_only[i], strlen(read_only[i])) == 0)
            return true;
    }
    return false;
}

static bool may_pass(pid_t pid, const struct __ptrace_syscall_info *info)
{
    for (size_t i = 0; i < sizeof early / sizeof early[0]; i++) {
        if ((uint64_t)early[i].nr != info->entry.nr)
            continue;
        if (early[i].path == NO_STREAM)
            return info->entry.args[0] > 2;
        if (early[i].path == THREAD)
            return (info->entry.args[0] & CLONE_THREAD) != 0;
        return early[i].path == NO_PATH || is_constant(pid, info->entry.args[early[i].path]);
    }
    return false;
}

static bool let_go(struct hold *h)
{
    for (unsigned i = 0; i < h->marks; i++) {
        if (!poke(h->pid, h->at[i], h->text, h->mark_len))
            return false;
    }
    if (ptrace(PTRACE_DETACH, h->pid, NULL, NULL) < 0)
        return false;
    h->state = HOLD_NONE; /* it is not ours any more */
    return true;
}

static bool go_on(struct hold *h)
{
    return ptrace(PTRACE_SYSCALL, h->pid, NULL, NULL) == 0;
}

/* Stopped at the beginning or the end of a system call. */
static bool at_call(struct hold *h)
{
    struct __ptrace_syscall_info info = {.op = PTRACE_SYSCALL_INFO_NONE};
    long n = ptrace(PTRACE_GET_SYSCALL_INFO, h->pid, sizeof info, &info);

    if (n <= 0)
        return false;
    if (!h->executed)
        return go_on(h);
    if (h->state == HOLD_RELEASED)
        return find_marks(h) && let_go(h);
    if (info.op != PTRACE_SYSCALL_INFO_ENTRY || may_pass(h->pid, &info))
        return go_on(h);
    h->state = HOLD_HELD;
    return find_marks(h);
}

static bool step(struct hold *h, int status)
{
    int sig = WSTOPSIG(status);

    if (sig == (SIGTRAP | 0x80))
        return at_call(h);
    if (status >> 8 == (SIGTRAP | PTRACE_EVENT_EXEC << 8)) {
        h->executed = true;
        return go_on(h);
    }
    if (sig != SIGSTOP || h->executed) /* nobody sends signals that early */
        return false;
    return ptrace(PTRACE_SETOPTIONS, h->pid, NULL,
               PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL) == 0 &&
           go_on(h);
}

bool hold_step(struct hold *h, int status)
{
    if (h->state == HOLD_NONE || h->state == HOLD_HELD)
        return true;
    if (step(h, status))
        return true;
    hold_end(h);
    return false;
}

bool hold_release(struct hold *h, const char *text)
{
    h->text = text;
    if (h->state == HOLD_STARTING) {
        h->state = HOLD_RELEASED;
        return true;
    }
    if (h->state == HOLD_HELD && let_go(h))
        return true;
    hold_end(h);
    return false;
}
