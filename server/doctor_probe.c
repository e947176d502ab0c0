/* SPDX-License-Identifier: MIT */
/* Looking at the kernel and at what the settings name. Each probe is the call that siltd itself
 * will make, or the nearest to it that changes nothing. */
#include "server/doctor_internal.h"

#include <arpa/inet.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>

#include "shared/io.h"
#include "shared/num.h"
#include "shared/path.h"

#include "server/auth.h"

#include "shared/banned.h"

#define DESCRIPTORS_PER_RUN 8
#define DESCRIPTORS_OWN 256
#define NUMBER_MAX 64 /* bytes of a file in /proc that holds a number */

static uint64_t read_number(const char *path, uint64_t otherwise)
{
    CLEANUP(buf_release) struct buf b;
    uint64_t value = otherwise;
    if (io_read_file(path, NUMBER_MAX, &b, NULL) < 0)
        return otherwise;
    char digits[24];
    (void)snprintf(
        digits, sizeof digits, "%.*s", (int)strspn(buf_str(&b), "0123456789"), buf_str(&b));
    return num_u64(digits, UINT64_MAX, &value) < 0 ? otherwise : value;
}

/* What `child` returns (an errno), from a process of its own. */
static int ask_child(int (*child)(void))
{
    pid_t pid = fork();
    int status = 0;
    if (pid == 0)
        _exit(child());
    if (pid < 0)
        return errno;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : EIO;
}

static int make_user_namespace(void)
{
    return unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0 ? errno : 0;
}

static int be_traced(void)
{
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
        return errno;
    (void)raise(SIGSTOP);
    return 0;
}

static int try_ptrace(void)
{
    struct __ptrace_syscall_info info;
    int status = 0, error = 0;
    pid_t pid = fork();
    if (pid == 0)
        _exit(be_traced());
    if (pid < 0 || waitpid(pid, &status, 0) < 0)
        return errno;
    if (WIFEXITED(status))
        return WEXITSTATUS(status) ? WEXITSTATUS(status) : EIO;
    if (ptrace(PTRACE_GET_SYSCALL_INFO, pid, (void *)sizeof info, &info) < 0)
        error = errno;
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, &status, 0);
    return error;
}

static void probe_calls(struct doctor_facts *f)
{
    const struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_NO_SYMLINKS};
    const uint32_t action = SECCOMP_RET_ERRNO;
    CLEANUP(fd_closep) int dir = (int)syscall(SYS_openat2, AT_FDCWD, "/", &how, sizeof how);
    f->openat2 = dir < 0 ? errno : 0;
    CLEANUP(fd_closep) int self = (int)syscall(SYS_pidfd_open, getpid(), 0);
    f->pidfd = self < 0 ? errno : 0;
    CLEANUP(fd_closep) int tree = open_tree(AT_FDCWD, "/", OPEN_TREE_CLOEXEC);
    f->mounts = tree < 0 ? errno : 0;
    if (syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) < 0)
        f->seccomp = errno;
    f->ptrace_info = try_ptrace();
    f->userns = ask_child(make_user_namespace);
}

static void probe_namespaces(struct doctor_facts *f)
{
    static const char *const names[] = {"user", "mnt", "pid", "net", "ipc", "uts", "cgroup", NULL};
    for (const char *const *n = names; *n; n++) {
        char path[64];
        (void)snprintf(path, sizeof path, "/proc/self/ns/%s", *n);
        if (access(path, F_OK) < 0)
            doctor_list(f->namespaces_missing, sizeof f->namespaces_missing, *n);
    }
    f->userns_max = read_number("/proc/sys/user/max_user_namespaces", UINT64_MAX);
    f->userns_clone_off = read_number("/proc/sys/kernel/unprivileged_userns_clone", 1) == 0;
    f->userns_apparmor =
        read_number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", 0) != 0;
}

static void probe_capabilities(struct doctor_facts *f)
{
    static const struct {
        const char *name;
        unsigned bit;
    } used[] = {{"CAP_CHOWN", 0}, {"CAP_DAC_OVERRIDE", 1}, {"CAP_FOWNER", 3}, {"CAP_KILL", 5},
        {"CAP_SETGID", 6}, {"CAP_SETUID", 7}, {"CAP_SYS_ADMIN", 21}};
    CLEANUP(buf_release) struct buf b;
    unsigned long long have = 0;
    if (io_read_file("/proc/self/status", 64 * 1024, &b, NULL) < 0)
        return;
    const char *line = strstr(buf_str(&b), "\nCapEff:");
    if (!line || sscanf(line, "\nCapEff: %llx", &have) != 1)
        return;
    for (size_t i = 0; f->root && i < sizeof used / sizeof used[0]; i++) {
        if (!(have >> used[i].bit & 1))
            doctor_list(f->capabilities_missing, sizeof f->capabilities_missing, used[i].name);
    }
}

static void probe_cgroups(struct doctor_facts *f)
{
    cgroup_own_look(&f->own);
    f->cgroups_false_root = cgroup_own_is_false_root(&f->own);
    if (!f->root)
        return;
    cgroup_probe(&f->cgroups);
    bool v1 = f->cgroups.version == CGROUP_V1;
    f->cgroups_hybrid = v1 && access("/sys/fs/cgroup/unified", F_OK) == 0;
    char path[96];
    (void)snprintf(path, sizeof path, "/sys/fs/cgroup/%s/silt-doctor-%d",
        !v1                 ? ""
        : f->cgroups.memory ? "memory"
                            : "pids",
        getpid());
    f->cgroups_writable = mkdir(path, 0700) == 0 && rmdir(path) == 0;
}

void doctor_probe_host(struct doctor_facts *f)
{
    struct utsname host;
    struct timespec tick;
    struct rlimit files;
    f->root = geteuid() == 0;
    if (uname(&host) == 0)
        (void)snprintf(f->kernel, sizeof f->kernel, "%.64s", host.release);
    if (clock_getres(CLOCK_REALTIME_COARSE, &tick) == 0)
        f->tick_ns = (uint64_t)tick.tv_sec * 1000000000u + (uint64_t)tick.tv_nsec;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0)
        f->descriptors = files.rlim_max;
    probe_calls(f);
    probe_namespaces(f);
    probe_capabilities(f);
    probe_cgroups(f);
}

/* ---- what the settings name */

/* Static: an ELF file without PT_INTERP. */
static void probe_init(const char *path, struct doctor_facts *f)
{
    (void)snprintf(f->init, sizeof f->init, "%s", path);
    CLEANUP(fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    Elf64_Ehdr head;
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0) {
        f->init_error = errno;
        return;
    }
    f->init_executable = (st.st_mode & 0111) != 0;
    f->init_elf = S_ISREG(st.st_mode) &&
                  io_pread_full(fd, &head, sizeof head, 0) == (ssize_t)sizeof head &&
                  memcmp(head.e_ident, ELFMAG, SELFMAG) == 0 &&
                  head.e_ident[EI_CLASS] == ELFCLASS64 && head.e_phentsize == sizeof(Elf64_Phdr);
    f->init_static = f->init_elf;
    for (unsigned i = 0; f->init_elf && i < head.e_phnum; i++) {
        Elf64_Phdr part;
        if (io_pread_full(fd, &part, sizeof part, head.e_phoff + i * sizeof part) !=
                (ssize_t)sizeof part ||
            part.p_type == PT_INTERP)
            f->init_static = false;
    }
}

static void probe_port(const struct config *c, struct doctor_facts *f)
{
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(c->port)};
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(c->port)};
    bool is_six = inet_pton(AF_INET6, c->host, &six.sin6_addr) == 1;
    if (!is_six && inet_pton(AF_INET, c->host, &four.sin_addr) != 1) {
        f->port_error = EINVAL;
        return;
    }
    const struct sockaddr *to =
        is_six ? (const struct sockaddr *)&six : (const struct sockaddr *)&four;
    CLEANUP(fd_closep)
    int fd = socket(is_six ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int on = 1;
    /* Listening too: a port whose last connections linger is free to siltd. */
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        bind(fd, to, is_six ? sizeof six : sizeof four) < 0 || listen(fd, 1) < 0)
        f->port_error = errno;
}

static void probe_access(const struct config *c, struct doctor_facts *f)
{
    const struct auth_config config = {
        .listen_host = c->host,
        .token_file = *c->token_file ? c->token_file : NULL,
        .hosts = (const char *const *)c->allow_hosts,
        .users = (const char *const *)c->allow_users,
    };
    struct auth *auth = NULL;
    struct err e = ERR_INIT;
    if (auth_new(&config, &auth, &e) < 0)
        (void)snprintf(f->access_error, sizeof f->access_error, "%s", e.msg);
    auth_free(auth);
    f->token = config.token_file != NULL;
}

/* A siltd holds this lock as long as it lives. */
static bool is_served(const char *data_dir)
{
    CLEANUP(freep) char *path = path_join(data_dir, "lock");
    CLEANUP(fd_closep) int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    return fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;
}

void doctor_probe(const struct config *c, struct doctor_facts *f)
{
    *f = (struct doctor_facts){.min_free_bytes = c->free_bytes, .prepares = *c->prepare != NULL};
    doctor_probe_host(f);
    f->descriptors_wanted =
        c->max_connections + DESCRIPTORS_PER_RUN * (c->max_runs + c->max_warm) + DESCRIPTORS_OWN;
    (void)snprintf(f->listen, sizeof f->listen, "%.120s", c->listen);
    (void)snprintf(f->runtime, sizeof f->runtime, "%.60s", c->runtime);
    f->docker = strcmp(c->engine, "docker") == 0;
    probe_init(c->init, f);
    doctor_disk_probe(c->data_dir, &f->data);
    doctor_disk_probe(c->workspace_root, &f->work);
    probe_port(c, f);
    f->served = f->port_error == EADDRINUSE && is_served(c->data_dir);
    probe_access(c, f);
    doctor_trial_probe(c, f);
}
