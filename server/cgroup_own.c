/* SPDX-License-Identifier: MIT */
#include "server/cgroup_own.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "shared/io.h"
#include "shared/text.h"

#include "shared/banned.h"

#define MOUNT "/sys/fs/cgroup"
#define TEXT_MAX (64 * 1024) /* bytes of a file of the kernel's that are looked at */

/* ---- where */

/* The kernel writes a name as it is, but no newline can be in one. */
static bool is_plain_path(const char *path, size_t len)
{
    static const char deleted[] = " (deleted)";
    size_t tail = sizeof deleted - 1;
    if (len == 0 || path[0] != '/' || !text_is_utf8(path, len))
        return false;
    if (len >= tail && !memcmp(path + len - tail, deleted, tail))
        return false;
    for (size_t at = 0; at < len;) {
        const char *name = path + at + 1;
        const char *slash = memchr(name, '/', len - at - 1);
        size_t n = slash ? (size_t)(slash - name) : len - at - 1;
        bool dots = (n == 1 && name[0] == '.') || (n == 2 && name[0] == '.' && name[1] == '.');
        if (dots || (n == 0 && len > 1)) /* ".." leads out of this cgroup namespace */
            return false;
        at += n + 1;
    }
    return true;
}

int cgroup_own_parse(const char *text, char ret[CGROUP_OWN_BYTES])
{
    ret[0] = '\0';
    for (const char *line = text; *line;) {
        size_t len = strcspn(line, "\n");
        if (len >= 3 && !memcmp(line, "0::", 3)) {
            const char *path = line + 3;
            len -= 3;
            if (line[3 + len] != '\n' || !is_plain_path(path, len))
                return -EINVAL;
            if (len >= CGROUP_OWN_BYTES)
                return -ENAMETOOLONG;
            len = len == 1 ? 0 : len;
            memcpy(ret, path, len);
            ret[len] = '\0';
            return 0;
        }
        line += len + (line[len] == '\n');
    }
    return -ENOENT;
}

/* "" where it does not fit: then nothing opens. */
static const char *file_path(const char *path, const char *file, char out[PATH_MAX])
{
    int n = snprintf(out, PATH_MAX, MOUNT "%s/%s", path, file);
    return n > 0 && n < PATH_MAX ? out : "";
}

static bool may_write(const char *path)
{
    static const char *const files[] = {"", "cgroup.procs", "cgroup.subtree_control"};
    char full[PATH_MAX];
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        if (faccessat(AT_FDCWD, file_path(path, files[i], full), W_OK, AT_EACCESS) < 0)
            return false;
    }
    return true;
}

/* Take PATH/silt-server for PATH, if that is ours as well. */
static void leave_leaf(struct cgroup_own *own)
{
    char *slash = strrchr(own->path, '/');
    if (!slash || strcmp(slash + 1, CGROUP_OWN_LEAF) != 0)
        return;
    *slash = '\0';
    own->in_leaf = may_write(own->path);
    if (!own->in_leaf)
        *slash = '/';
}

/* Who lives in it: this process, or none where that is in the leaf. */
static enum cgroup_own_state look_at_processes(const struct cgroup_own *own)
{
    char full[PATH_MAX], self[16];
    CLEANUP(buf_release) struct buf b;
    /* Of a threaded cgroup it cannot be read. */
    if (io_read_file(file_path(own->path, "cgroup.procs", full), TEXT_MAX, &b, NULL) < 0)
        return CGROUP_OWN_ODD;
    (void)snprintf(self, sizeof self, "%d\n", (int)getpid());
    const char *alone = own->in_leaf ? "" : self;
    if (!strcmp(buf_str(&b), alone))
        return CGROUP_OWN_USABLE;
    /* Not even this process: then the path is not where it lives. */
    return b.len == 0 ? CGROUP_OWN_ODD : CGROUP_OWN_SHARED;
}

static const struct controller {
    const char *name, *enable;
    size_t offset; /* in struct cgroup_own */
} controllers[] = {
    {"memory", "+memory", offsetof(struct cgroup_own, memory)},
    {"pids", "+pids", offsetof(struct cgroup_own, pids)},
    {"cpuset", "+cpuset", offsetof(struct cgroup_own, cpuset)},
    {"cpu", "+cpu", offsetof(struct cgroup_own, cpu)},
};
#define CONTROLLER_COUNT (sizeof controllers / sizeof controllers[0])

static bool *controller_of(struct cgroup_own *own, const struct controller *c)
{
    return (bool *)((char *)own + c->offset);
}

/* What `file` of the cgroup names, "cgroup.controllers" or "cgroup.subtree_control". */
static void read_controllers(struct cgroup_own *own, const char *file)
{
    char full[PATH_MAX];
    CLEANUP(buf_release) struct buf b;
    bool read = io_read_file(file_path(own->path, file, full), TEXT_MAX, &b, NULL) == 0;
    for (size_t i = 0; i < CONTROLLER_COUNT; i++)
        *controller_of(own, &controllers[i]) = read && cgroup_lists(buf_str(&b), controllers[i].name);
}

static enum cgroup_own_state look(struct cgroup_own *own)
{
    struct statfs st;
    CLEANUP(buf_release) struct buf b;
    buf_init(&b, 0);
    if (statfs(MOUNT, &st) < 0 || (unsigned long)st.f_type != CGROUP2_SUPER_MAGIC)
        return CGROUP_OWN_OTHER_VERSION;
    if (io_read_file("/proc/self/cgroup", TEXT_MAX, &b, NULL) < 0 ||
        cgroup_own_parse(buf_str(&b), own->path) < 0)
        return CGROUP_OWN_ODD;
    leave_leaf(own);
    if (!may_write(own->path))
        return CGROUP_OWN_FOREIGN;
    read_controllers(own, "cgroup.controllers");
    if (!own->memory && !own->pids)
        return CGROUP_OWN_BARE;
    return look_at_processes(own);
}

void cgroup_own_look(struct cgroup_own *ret)
{
    *ret = (struct cgroup_own){.state = CGROUP_OWN_ODD};
    ret->state = look(ret);
}

bool cgroup_own_is_false_root(const struct cgroup_own *own)
{
    return own->state != CGROUP_OWN_OTHER_VERSION && !*own->path &&
           access(MOUNT "/cgroup.type", F_OK) == 0;
}

const char *cgroup_own_reason(enum cgroup_own_state state)
{
    static const char *const reasons[] = {
        [CGROUP_OWN_USABLE] = "",
        [CGROUP_OWN_OTHER_VERSION] = "this machine's cgroups are not of version 2 alone",
        [CGROUP_OWN_FOREIGN] = "its cgroup was not given to this user",
        [CGROUP_OWN_SHARED] = "other processes live in its cgroup",
        [CGROUP_OWN_BARE] = "no controller for memory or processes comes with its cgroup",
        [CGROUP_OWN_ODD] = "its cgroup cannot be made out",
    };
    return reasons[state];
}

/* ---- taking it */

static int write_text(const char *path, const char *text)
{
    CLEANUP(fd_closep) int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    return io_write_all(fd, text, strlen(text));
}

/* Move this process with all its threads. */
static int move_to(const char *path, const char *leaf)
{
    char name[sizeof CGROUP_OWN_LEAF + 16], full[PATH_MAX];
    (void)snprintf(name, sizeof name, "%s%scgroup.procs", leaf, *leaf ? "/" : "");
    return write_text(file_path(path, name, full), "0");
}

/* One by one: what the kernel refuses (a CPU set without CPUs, say) must not keep the rest away. */
static void enable(const char *path)
{
    char full[PATH_MAX];
    for (size_t i = 0; i < CONTROLLER_COUNT; i++)
        (void)write_text(file_path(path, "cgroup.subtree_control", full), controllers[i].enable);
}

/* Everything that is on, since the runtime turns on whatever there is. At one stroke or not at all:
 * the kernel refuses where a child uses it on, another siltd's. */
static int disable(const struct cgroup_own *own)
{
    char full[PATH_MAX];
    CLEANUP(buf_release) struct buf on;
    CLEANUP(buf_release) struct buf off;
    buf_init(&off, TEXT_MAX);
    (void)file_path(own->path, "cgroup.subtree_control", full);
    int r = io_read_file(full, TEXT_MAX / 2, &on, NULL);
    for (const char *word = buf_str(&on); r == 0 && *word;) {
        size_t len = strcspn(word, " \n");
        if (len && (r = buf_addc(&off, '-')) == 0 && (r = buf_add(&off, word, len)) == 0)
            r = buf_addc(&off, ' ');
        word += len + (word[len] != '\0');
    }
    return r < 0 || off.len == 0 ? r : write_text(full, buf_str(&off));
}

static int enter_leaf(struct cgroup_own *own)
{
    char full[PATH_MAX];
    if (own->in_leaf)
        return 0;
    if (mkdir(file_path(own->path, CGROUP_OWN_LEAF, full), 0755) < 0 && errno != EEXIST)
        return -errno;
    int r = move_to(own->path, CGROUP_OWN_LEAF);
    own->in_leaf = r == 0;
    return r;
}

int cgroup_own_room(const struct cgroup_own *own, const char *mark)
{
    char full[PATH_MAX], parent[CGROUP_NAME_BYTES];
    if (snprintf(parent, sizeof parent, "%s/%s", own->path, mark) >= (int)sizeof parent)
        return -ENAMETOOLONG;
    if (mkdir(file_path(parent, "", full), 0755) < 0 && errno != EEXIST)
        return -errno;
    enable(parent);
    return 0;
}

int cgroup_own_take(
    struct cgroup_own *own, const char *mark, struct cgroup_host *host, struct err *e)
{
    *host = (struct cgroup_host){.version = CGROUP_NONE};
    if (own->state != CGROUP_OWN_USABLE)
        return err_say(e, ENOTSUP, "%s", cgroup_own_reason(own->state));
    int r = enter_leaf(own);
    own->taken = r == 0;
    if (r == 0) {
        enable(own->path);
        read_controllers(own, "cgroup.subtree_control");
        /* Whoever came in after the look stands in the way. */
        r = own->memory || own->pids ? cgroup_own_room(own, mark) : -EBUSY;
    }
    if (r < 0) {
        own->state = r == -EBUSY ? CGROUP_OWN_SHARED : CGROUP_OWN_FOREIGN;
        cgroup_own_release(own);
        return err_set(e, -r, "use the cgroup '%s'", own->path);
    }
    *host = (struct cgroup_host){.version = CGROUP_V2,
        .memory = own->memory,
        .swap = own->memory,
        .pids = own->pids,
        .cpuset = own->cpuset,
        .cpu = own->cpu,
        .cpu_usage = true};
    return 0;
}

void cgroup_own_release(struct cgroup_own *own)
{
    char full[PATH_MAX];
    if (!own->taken || disable(own) < 0 || move_to(own->path, "") < 0)
        return;
    own->taken = own->in_leaf = false;
    (void)rmdir(file_path(own->path, CGROUP_OWN_LEAF, full));
}
