/* SPDX-License-Identifier: MIT */
#include "server/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>

#include "shared/io.h"
#include "shared/num.h"

#include "shared/banned.h"

#define MOUNT "/sys/fs/cgroup"
#define FILE_MAX 4096         /* bytes of a control file that are looked at */
#define PROCS_MAX (64 * 1024) /* bytes of cgroup.procs read at a time */

static bool fs_is(const char *path, long magic)
{
    struct statfs st;
    return statfs(path, &st) == 0 && (long)st.f_type == magic;
}

bool cgroup_lists(const char *text, const char *word)
{
    size_t len = strlen(word);
    for (const char *p = text; (p = strstr(p, word)); p += len) {
        bool starts = p == text || p[-1] == ' ';
        bool ends = p[len] == '\0' || p[len] == ' ' || p[len] == '\n';
        if (starts && ends)
            return true;
    }
    return false;
}

void cgroup_probe(struct cgroup_host *ret)
{
    *ret = (struct cgroup_host){.version = CGROUP_NONE};
    if (fs_is(MOUNT, CGROUP2_SUPER_MAGIC)) {
        CLEANUP(buf_release) struct buf b;
        if (io_read_file(MOUNT "/cgroup.controllers", FILE_MAX, &b, NULL) < 0)
            return;
        ret->version = CGROUP_V2;
        ret->memory = ret->swap = cgroup_lists(buf_str(&b), "memory");
        ret->pids = cgroup_lists(buf_str(&b), "pids");
        ret->cpuset = cgroup_lists(buf_str(&b), "cpuset");
        ret->cpu = cgroup_lists(buf_str(&b), "cpu");
        ret->cpu_usage = true; /* cpu.stat is there without any controller */
        return;
    }
    ret->memory = fs_is(MOUNT "/memory", CGROUP_SUPER_MAGIC);
    ret->pids = fs_is(MOUNT "/pids", CGROUP_SUPER_MAGIC);
    ret->cpuset = fs_is(MOUNT "/cpuset", CGROUP_SUPER_MAGIC);
    ret->cpu_usage = fs_is(MOUNT "/cpuacct", CGROUP_SUPER_MAGIC);
    ret->swap = ret->memory && access(MOUNT "/memory/memory.memsw.limit_in_bytes", F_OK) == 0;
    if (ret->memory || ret->pids)
        ret->version = CGROUP_V1;
}

const char *cgroup_version_name(enum cgroup_version version)
{
    static const char *const names[] = {"none", "v1", "v2"};
    return names[version];
}

/* The path of a cgroup's control file, in version 1 of one of the controller's. */
static const char *file_path(const struct cgroup_host *host, const char *controller,
    const char *name, const char *file, char out[PATH_MAX])
{
    bool v1 = host->version == CGROUP_V1;
    int n =
        snprintf(out, PATH_MAX, MOUNT "%s%s%s/%s", v1 ? "/" : "", v1 ? controller : "", name, file);
    return n > 0 && n < PATH_MAX ? out : "";
}

/* The number after `key ` at the beginning of a line, or the text's first number for key "". */
static bool find_number(const char *text, const char *key, uint64_t *ret)
{
    size_t len = strlen(key);
    for (const char *line = text; *line;) {
        if (len == 0 || (!strncmp(line, key, len) && line[len] == ' ')) {
            char digits[24];
            const char *from = line + len + (len > 0);
            size_t n = strspn(from, "0123456789");
            if (n == 0 || n >= sizeof digits)
                return false;
            memcpy(digits, from, n);
            digits[n] = '\0';
            return num_u64(digits, UINT64_MAX, ret) == 0;
        }
        line += strcspn(line, "\n");
        line += *line == '\n';
    }
    return false;
}

/* Where each figure stands: one row per figure, one column per version. */
struct figure {
    const char *controller, *file, *key;
    bool written; /* to count anew */
};
enum figure_kind { FIGURE_CPU, FIGURE_PEAK, FIGURE_OOM, FIGURE_PIDS };
static const struct figure figures[CGROUP_FIGURES][2] = {
    [FIGURE_CPU] = {{"cpuacct", "cpuacct.usage", "", false}, {"", "cpu.stat", "usage_usec", false}},
    [FIGURE_PEAK] = {{"memory", "memory.max_usage_in_bytes", "", true},
        {"", "memory.peak", "", false}},
    [FIGURE_OOM] = {{"memory", "memory.oom_control", "oom_kill", false},
        {"", "memory.events", "oom_kill", false}},
    [FIGURE_PIDS] = {{"pids", "pids.events", "max", false}, {"", "pids.events", "max", false}},
};

void cgroup_open(const struct cgroup_host *host, const char *name, struct cgroup_meter *ret)
{
    char path[PATH_MAX];
    for (size_t i = 0; i < CGROUP_FIGURES; i++) {
        const struct figure *f = &figures[i][host->version == CGROUP_V2];
        file_path(host, f->controller, name, f->file, path);
        ret->fds[i] = host->version == CGROUP_NONE
                          ? -1
                          : open(path, (f->written ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    }
}

void cgroup_close(struct cgroup_meter *m)
{
    for (size_t i = 0; i < CGROUP_FIGURES; i++)
        fd_closep(&m->fds[i]);
}

static bool read_figure(const struct cgroup_host *host, const struct cgroup_meter *m,
    enum figure_kind kind, uint64_t *ret)
{
    char text[FILE_MAX];
    ssize_t n = m->fds[kind] < 0 ? -1 : pread(m->fds[kind], text, sizeof text - 1, 0);
    text[n > 0 ? n : 0] = '\0';
    *ret = 0;
    return find_number(text, figures[kind][host->version == CGROUP_V2].key, ret);
}

uint64_t cgroup_cpu_us(const struct cgroup_host *host, const struct cgroup_meter *m)
{
    uint64_t value;
    if (!read_figure(host, m, FIGURE_CPU, &value))
        return 0;
    return host->version == CGROUP_V1 ? value / 1000 : value; /* version 1 counts nanoseconds */
}

void cgroup_read(
    const struct cgroup_host *host, const struct cgroup_meter *m, struct cgroup_usage *ret)
{
    *ret = (struct cgroup_usage){.known = false};
    ret->known = read_figure(host, m, FIGURE_OOM, &ret->oom_kills);
    if (read_figure(host, m, FIGURE_PIDS, &ret->pids_refused))
        ret->known = true;
    (void)read_figure(host, m, FIGURE_PEAK, &ret->memory_peak_bytes);
    ret->cpu_us = cgroup_cpu_us(host, m);
}

uint64_t cgroup_reset_peak(const struct cgroup_host *host, const struct cgroup_meter *m)
{
    /* Version 2 forgets a peak only for the descriptor that asked, and only since Linux 6.12; the
     * making of the container leaves one of 2 to 3 MB there. */
    uint64_t peak = 0;
    if (host->version == CGROUP_V2)
        (void)read_figure(host, m, FIGURE_PEAK, &peak);
    else if (m->fds[FIGURE_PEAK] >= 0)
        (void)!pwrite(m->fds[FIGURE_PEAK], "0", 1, 0);
    return peak;
}

/* ---- making one */

static int write_text(const char *path, const char *text)
{
    CLEANUP(fd_closep) int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    return io_write_all(fd, text, strlen(text));
}

/* Version 2: what a cgroup's children may limit is enabled in each of its parents. */
static int enable_below(const char *dir)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/cgroup.subtree_control", dir) >= (int)sizeof path)
        return -ENAMETOOLONG;
    return write_text(path, "+memory +pids");
}

static int make_dir(const struct cgroup_host *host, const char *base, const char *name)
{
    char path[PATH_MAX];
    const char *slash = strchr(name + 1, '/');
    bool v2 = host->version == CGROUP_V2;
    int r = v2 ? enable_below(base) : 0;
    if (snprintf(path, sizeof path, "%s%.*s", base, slash ? (int)(slash - name) : 0, name) >=
        (int)sizeof path)
        return -ENAMETOOLONG;
    if (r == 0 && slash && mkdir(path, 0755) < 0 && errno != EEXIST)
        r = -errno;
    if (r == 0 && slash && v2)
        r = enable_below(path);
    if (snprintf(path, sizeof path, "%s%s", base, name) >= (int)sizeof path)
        return -ENAMETOOLONG;
    if (r == 0 && mkdir(path, 0755) < 0)
        r = -errno;
    return r;
}

/* One row per limit, one column per version; what follows the first name forbids swap, and may be
 * missing where the kernel does not count it. */
static int set_limits(
    const struct cgroup_host *host, const char *name, const struct cgroup_limits *limits)
{
    bool v2 = host->version == CGROUP_V2;
    const struct {
        const char *controller, *files[2];
        bool there, optional;
        uint64_t value;
    } rows[] = {
        {"memory", {"memory.limit_in_bytes", "memory.max"}, host->memory, false,
            limits->memory_bytes},
        {"memory", {"memory.memsw.limit_in_bytes", NULL}, host->memory && host->swap, true,
            limits->memory_bytes},
        {"pids", {"pids.max", "pids.max"}, host->pids, false, limits->tasks},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char path[PATH_MAX], text[24];
        if (!rows[i].there || !rows[i].files[v2] || rows[i].value == 0)
            continue;
        (void)snprintf(text, sizeof text, "%" PRIu64, rows[i].value);
        int r =
            write_text(file_path(host, rows[i].controller, name, rows[i].files[v2], path), text);
        if (r < 0 && !rows[i].optional)
            return r;
    }
    char path[PATH_MAX];
    if (host->memory && limits->memory_bytes > 0) {
        if (v2) {
            (void)write_text(file_path(host, "memory", name, "memory.swap.max", path), "0");
            (void)write_text(file_path(host, "memory", name, "memory.oom.group", path), "1");
        } else {
            (void)write_text(file_path(host, "memory", name, "memory.swappiness", path), "0");
        }
    }
    return 0;
}

int cgroup_make(const struct cgroup_host *host, const char *name,
    const struct cgroup_limits *limits, int join[CGROUP_JOIN_MAX], struct err *e)
{
    const struct {
        const char *controller;
        bool there;
    } hierarchies[] = {{"memory", host->version == CGROUP_V2 || host->memory},
        {"pids", host->version == CGROUP_V1 && host->pids},
        {"cpuacct", host->version == CGROUP_V1 && host->cpu_usage}};
    int count = 0, r = 0;
    for (size_t i = 0; r == 0 && i < sizeof hierarchies / sizeof hierarchies[0]; i++) {
        char base[64];
        if (!hierarchies[i].there)
            continue;
        (void)snprintf(base, sizeof base, MOUNT "%s%s", host->version == CGROUP_V1 ? "/" : "",
            host->version == CGROUP_V1 ? hierarchies[i].controller : "");
        r = make_dir(host, base, name);
    }
    if (r == 0)
        r = set_limits(host, name, limits);
    for (size_t i = 0; r == 0 && i < sizeof hierarchies / sizeof hierarchies[0]; i++) {
        char path[PATH_MAX];
        if (!hierarchies[i].there)
            continue;
        join[count] = open(file_path(host, hierarchies[i].controller, name, "cgroup.procs", path),
            O_WRONLY | O_CLOEXEC);
        r = join[count] < 0 ? -errno : 0;
        count += r == 0;
    }
    if (r == 0)
        return count;
    while (count > 0)
        (void)close(join[--count]);
    cgroup_remove(host, name);
    return err_set(e, -r, "make cgroup '%s'", name);
}

/* ---- leftovers */

/* Kill everything in one cgroup directory: at one stroke where the kernel has that (version 2, since
 * Linux 5.14), else one by one. */
static bool kill_all(const char *dir)
{
    char path[PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/cgroup.kill", dir);
    if (n > 0 && n < (int)sizeof path && write_text(path, "1") == 0)
        return true;
    n = snprintf(path, sizeof path, "%s/cgroup.procs", dir);
    CLEANUP(buf_release) struct buf b;
    buf_init(&b, 0);
    if (n < 0 || n >= (int)sizeof path || io_read_file(path, PROCS_MAX, &b, NULL) < 0)
        return false;
    for (const char *line = buf_str(&b); *line;) {
        uint64_t pid = 0;
        if (find_number(line, "", &pid) && pid > 1 && pid <= INT_MAX)
            (void)kill((pid_t)pid, SIGKILL);
        line += strcspn(line, "\n");
        line += *line == '\n';
    }
    return true;
}

/* Kill everything in one cgroup directory, and remove it. A killed process leaves its cgroup a
 * moment later, on a busy machine a long one: try for five seconds in all. */
static bool remove_dir(const char *dir)
{
    for (int tries = 0; tries < 1000; tries++) {
        if (rmdir(dir) == 0 || errno == ENOENT)
            return true;
        if (errno != EBUSY)
            return false;
        if (tries % 20 == 0 && !kill_all(dir))
            return false;
        (void)nanosleep(&(struct timespec){.tv_nsec = 5 * 1000 * 1000}, NULL);
    }
    return false;
}

/* Call visit for each directory that a cgroup path means: one per controller in version 1. */
static void each_hierarchy(const struct cgroup_host *host, const char *name,
    void (*visit)(const char *dir, void *ctx), void *ctx)
{
    char dir[PATH_MAX];
    if (host->version == CGROUP_NONE)
        return;
    if (host->version == CGROUP_V2) {
        if (snprintf(dir, sizeof dir, MOUNT "%s", name) < (int)sizeof dir)
            visit(dir, ctx);
        return;
    }
    CLEANUP(dir_closep) DIR *mounts = opendir(MOUNT);
    for (struct dirent *d; mounts && (d = readdir(mounts));) {
        if (d->d_name[0] != '.' &&
            snprintf(dir, sizeof dir, MOUNT "/%s%s", d->d_name, name) < (int)sizeof dir)
            visit(dir, ctx);
    }
}

static void visit_remove(const char *dir, void *ctx)
{
    (void)ctx;
    (void)remove_dir(dir);
}

void cgroup_remove(const struct cgroup_host *host, const char *name)
{
    each_hierarchy(host, name, visit_remove, NULL);
}

static void visit_reap(const char *dir, void *ctx)
{
    unsigned *most = ctx, here = 0;
    CLEANUP(dir_closep) DIR *children = opendir(dir);
    for (struct dirent *d; children && (d = readdir(children));) {
        char child[PATH_MAX];
        if (d->d_name[0] == '.' || d->d_type != DT_DIR ||
            snprintf(child, sizeof child, "%s/%s", dir, d->d_name) >= (int)sizeof child)
            continue;
        here += remove_dir(child);
    }
    if (children)
        (void)rmdir(dir);
    *most = here > *most ? here : *most;
}

unsigned cgroup_reap(const struct cgroup_host *host, const char *parent)
{
    unsigned most = 0;
    each_hierarchy(host, parent, visit_reap, &most);
    return most;
}
