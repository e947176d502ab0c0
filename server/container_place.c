/* SPDX-License-Identifier: MIT */
#include "server/container_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>

#include "shared/io.h"
#include "shared/weaken.h"

#include "shared/banned.h"

#define INIT_BYTES_MAX (16 * 1024 * 1024)
#define COPY_BYTES_MAX (4 * 1024 * 1024)
#define MAKE_TIMEOUT_MS 10000

/* ---- the made-up root: nothing of the host but /usr and what in /etc programs need to run */

static const char *const root_dirs[] = {"bundles", "run", "images", "cpus", "root", "root/etc",
    "root/etc/ssl", "root/proc", "root/dev", "root/sys", "root/sys/devices",
    "root/sys/devices/system", "root/sys/devices/system/cpu", "root/tmp", "root/workspace",
    "root/cache", "root/usr", "root/run", "root/var", NULL};

static const struct root_text {
    const char *path, *text;
} root_texts[] = {
    {"root/etc/passwd", "root:x:0:0:root:/:/usr/sbin/nologin\n"
                        "silt:x:1000:1000:silt:/cache/home:/bin/sh\n"
                        "nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"},
    {"root/etc/group", "root:x:0:\nsilt:x:1000:\nnogroup:x:65534:\n"},
    {"root/etc/hosts", "127.0.0.1 localhost silt\n::1 localhost silt\n"},
    {"root/etc/hostname", "silt\n"},
    {"root/etc/nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n"
                               "networks: files\nprotocols: files\nservices: files\n"},
    {"root/etc/resolv.conf", ""},
    {"root/etc/shells", "/bin/sh\n/bin/bash\n"},
    {"root/sys/devices/system/cpu/online", ""},
};
#define TEXT_COUNT (sizeof root_texts / sizeof root_texts[0])

static const struct root_link {
    const char *target, *path;
} root_links[] = {
    {"../proc/self/mounts", "root/etc/mtab"},
    {"../usr/lib/os-release", "root/etc/os-release"},
    {"../tmp", "root/var/tmp"},
};
#define LINK_COUNT (sizeof root_links / sizeof root_links[0])

/* Top-level directories that are symlinks into /usr on merged systems, else bound as they are. */
static const char *const top_dirs[] = {"bin", "lib", "lib32", "lib64", "libx32", "sbin", NULL};

/* Directories of /etc that hold no secret and without which compilers, TLS clients, fonts and Java
 * are broken. A trailing '*' stands for any ending. */
static const char *const etc_dirs[] = {"alternatives", "ssl/certs", "fonts", "java-*", NULL};

/* Files of /etc that are copied, not bound: they are replaced by rename when packages change. */
static const char *const etc_copies[PLACE_COPIES] = {
    "ld.so.cache", "localtime", "mime.types", "services", "protocols", "ssl/openssl.cnf"};

/* ---- in the child: what it found, told to the parent */

struct answer {
    int error;
    char step[80];
};

static int note(struct answer *a, const char *step, const char *what)
{
    a->error = errno ? errno : EIO;
    (void)snprintf(a->step, sizeof a->step, "%.16s %.60s", step, what);
    return -1;
}

static int write_text(int dir, const char *path, const void *text, size_t len, mode_t mode)
{
    CLEANUP(fd_closep)
    int fd = openat(dir, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0)
        return -errno;
    int r = io_write_all(fd, text, len);
    return r < 0 ? r : fchmod(fd, mode) < 0 ? -errno : 0;
}

/* Bind source, with all that is mounted in it, to dir/path. */
static int bind_tree(const char *source, int dir, const char *path, uint64_t attributes)
{
    struct mount_attr attr = {.attr_set = attributes, .propagation = MS_PRIVATE};
    CLEANUP(fd_closep)
    int tree = open_tree(AT_FDCWD, source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
    if (tree < 0 || mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof attr) < 0 ||
        move_mount(tree, "", dir, path, MOVE_MOUNT_F_EMPTY_PATH) < 0)
        return -errno;
    return 0;
}

#define READ_ONLY (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)

static int bind_top_dirs(int dir, struct answer *a)
{
    for (const char *const *name = top_dirs; *name; name++) {
        char host[64], inside[64], target[PATH_MAX];
        struct stat st;
        (void)snprintf(host, sizeof host, "/%s", *name);
        (void)snprintf(inside, sizeof inside, "root/%s", *name);
        if (lstat(host, &st) < 0)
            continue;
        if (S_ISLNK(st.st_mode)) {
            ssize_t n = readlink(host, target, sizeof target - 1);
            target[n > 0 ? n : 0] = '\0';
            if (n <= 0 || symlinkat(target, dir, inside) < 0)
                return note(a, "link", host);
        } else if (S_ISDIR(st.st_mode) && (mkdirat(dir, inside, 0755) < 0 ||
                                              bind_tree(host, dir, inside, READ_ONLY) < 0)) {
            return note(a, "bind", host);
        }
    }
    return 0;
}

static int bind_etc_dir(int dir, const char *name, struct answer *a)
{
    char host[PATH_MAX], inside[PATH_MAX];
    struct stat st;
    if (snprintf(host, sizeof host, "/etc/%s", name) >= (int)sizeof host ||
        snprintf(inside, sizeof inside, "root/etc/%s", name) >= (int)sizeof inside ||
        stat(host, &st) < 0 || !S_ISDIR(st.st_mode))
        return 0;
    if (mkdirat(dir, inside, 0755) < 0 || bind_tree(host, dir, inside, READ_ONLY) < 0)
        return note(a, "bind", host);
    return 0;
}

static int bind_etc_dirs(int dir, struct answer *a)
{
    for (const char *const *pattern = etc_dirs; *pattern; pattern++) {
        size_t len = strlen(*pattern);
        if ((*pattern)[len - 1] != '*') {
            if (bind_etc_dir(dir, *pattern, a) < 0)
                return -1;
            continue;
        }
        CLEANUP(dir_closep) DIR *etc = opendir("/etc");
        for (struct dirent *d; etc && (d = readdir(etc));) {
            if (!strncmp(d->d_name, *pattern, len - 1) && bind_etc_dir(dir, d->d_name, a) < 0)
                return -1;
        }
    }
    return 0;
}

static int fill_place(int dir, unsigned cpu_count, const char *image_dir, struct answer *a)
{
    for (const char *const *d = root_dirs; *d; d++) {
        if (mkdirat(dir, *d, 0755) < 0)
            return note(a, "make", *d);
    }
    for (size_t i = 0; i < TEXT_COUNT; i++) {
        if (write_text(
                dir, root_texts[i].path, root_texts[i].text, strlen(root_texts[i].text), 0644) < 0)
            return note(a, "write", root_texts[i].path);
    }
    for (size_t i = 0; i < LINK_COUNT; i++) {
        if (symlinkat(root_links[i].target, dir, root_links[i].path) < 0)
            return note(a, "link", root_links[i].path);
    }
    for (unsigned n = 1; n < cpu_count && n <= CONTAINER_CPUS_MAX; n++) {
        char path[32], text[32];
        (void)snprintf(path, sizeof path, "cpus/%u", n);
        int len = n == 1 ? snprintf(text, sizeof text, "0\n")
                         : snprintf(text, sizeof text, "0-%u\n", n - 1);
        if (write_text(dir, path, text, (size_t)len, 0644) < 0)
            return note(a, "write", path);
    }
    if (bind_tree("/usr", dir, "root/usr", READ_ONLY) < 0)
        return note(a, "bind", "/usr");
    /* What an administrator configured there may hold secrets: an empty folder lies over it. */
    if (!WEAK("local-etc") && faccessat(dir, "root/usr/local/etc", F_OK, 0) == 0 &&
        bind_tree(PLACE "/root/run", dir, "root/usr/local/etc", READ_ONLY) < 0)
        return note(a, "cover", "/usr/local/etc");
    if (bind_top_dirs(dir, a) < 0 || bind_etc_dirs(dir, a) < 0)
        return -1;
    /* Read-only, so that no runtime creates a missing mount point in an image. */
    if (image_dir && bind_tree(image_dir, dir, "images", READ_ONLY) < 0)
        return note(a, "bind", image_dir);
    return 0;
}

static int write_proc(const char *path, const char *text)
{
    CLEANUP(fd_closep) int fd = open(path, O_WRONLY | O_CLOEXEC);
    return fd < 0 || io_write_all(fd, text, strlen(text)) < 0 ? -1 : 0;
}

static int map_self(uid_t uid, gid_t gid, struct answer *a)
{
    char users[32], groups[32];
    (void)snprintf(users, sizeof users, "0 %u 1\n", (unsigned)uid);
    (void)snprintf(groups, sizeof groups, "0 %u 1\n", (unsigned)gid);
    if (write_proc("/proc/self/setgroups", "deny") < 0 ||
        write_proc("/proc/self/uid_map", users) < 0 || write_proc("/proc/self/gid_map", groups) < 0)
        return note(a, "map", "this user into a user namespace (they may be restricted)");
    return 0;
}

/* The controllers that limit or measure a container, or keep devices from it. */
static bool is_wanted(const char *hierarchy)
{
    static const char *const wanted[] = {"cpu", "cpuacct", "cpuset", "devices", "memory", "pids"};
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        size_t len = strlen(wanted[i]);
        for (const char *p = hierarchy; p; p = strchr(p, ','), p = p ? p + 1 : NULL) {
            if (!strncmp(p, wanted[i], len) && (p[len] == '\0' || p[len] == ','))
                return true;
        }
    }
    return false;
}

/* One entry of the host's /sys/fs/cgroup: a hierarchy, or a symlink to one that has several
 * controllers. */
static int keep_hierarchy(int host, int dir, const char *name, struct answer *a)
{
    char source[PATH_MAX], target[NAME_MAX + 1];
    ssize_t n = readlinkat(host, name, target, sizeof target - 1);
    target[n > 0 ? n : 0] = '\0';
    if (n > 0)
        return symlinkat(target, dir, name) < 0 ? note(a, "link", name) : 0;
    (void)snprintf(source, sizeof source, "/proc/self/fd/%d/%s", host, name);
    if (mkdirat(dir, name, 0755) < 0 || bind_tree(source, dir, name, 0) < 0)
        return note(a, "bind", name);
    return 0;
}

/*
 * A runtime makes, enters and removes a cgroup in every hierarchy of version 1 that it finds, and
 * crun freezes it before it removes it, for which the kernel patches its own code on every CPU. So
 * it finds those that are of use. (runc insists on all.)
 */
static int keep_useful(struct answer *a)
{
    CLEANUP(dir_closep) DIR *host = opendir("/sys/fs/cgroup");
    if (!host)
        return note(a, "open", "/sys/fs/cgroup");
    if (mount("silt", "/sys/fs/cgroup", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0755") < 0)
        return note(a, "mount over", "/sys/fs/cgroup");
    CLEANUP(fd_closep) int dir = open("/sys/fs/cgroup", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return note(a, "open", "/sys/fs/cgroup");
    for (struct dirent *d; (d = readdir(host));) {
        if (is_wanted(d->d_name) && keep_hierarchy(dirfd(host), dir, d->d_name, a) < 0)
            return -1;
    }
    return 0;
}

/* What stands in the runtime's way: crun 1.8 refuses version 1 of cgroups when an (empty) version 2
 * is mounted beside it, and without rights over any cgroup it must see none. */
static int clear_cgroups(enum place_cgroups cgroups, struct answer *a)
{
    if (cgroups == PLACE_CGROUPS_NONE &&
        mount("tmpfs", "/sys/fs/cgroup", "tmpfs", MS_NOSUID | MS_NODEV, NULL) < 0)
        return note(a, "mount over", "/sys/fs/cgroup");
    /* EINVAL, ENOENT: nothing is mounted there. */
    if (cgroups == PLACE_CGROUPS_V1 && umount2("/sys/fs/cgroup/unified", MNT_DETACH) < 0 &&
        errno != EINVAL && errno != ENOENT)
        return note(a, "unmount", "/sys/fs/cgroup/unified");
    return cgroups == PLACE_CGROUPS_V1_USEFUL ? keep_useful(a) : 0;
}

struct make {
    const char *image_dir;
    bool root;
    enum place_cgroups cgroups;
    unsigned cpu_count;
};

/* Returns how many descriptors are in fds, or -1 with *a filled. */
static int make_namespaces(const struct make *m, int fds[3], struct answer *a)
{
    uid_t uid = geteuid();
    gid_t gid = getegid();
    errno = 0;
    if (unshare(m->root ? CLONE_NEWNS : CLONE_NEWUSER | CLONE_NEWNS) < 0)
        return note(a, "make",
            m->root ? "a mount namespace" : "a user namespace (unprivileged ones may be disabled)");
    if (!m->root && map_self(uid, gid, a) < 0)
        return -1;
    if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
        return note(a, "detach", "/");
    if (clear_cgroups(m->cgroups, a) < 0)
        return -1;
    if (mount("silt", PLACE, "tmpfs", 0, "mode=0755," PLACE_BYTES) < 0)
        return note(a, "mount", PLACE);
    (void)umask(0);
    if ((fds[0] = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC)) < 0 ||
        (fds[1] = open(PLACE, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        return note(a, "open", "the namespaces");
    if (!m->root && (fds[2] = open("/proc/self/ns/user", O_RDONLY | O_CLOEXEC)) < 0)
        return note(a, "open", "the namespaces");
    if (fill_place(fds[1], m->cpu_count, m->image_dir, a) < 0)
        return -1;
    return m->root ? 2 : 3;
}

union control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(3 * sizeof(int))];
};

static _Noreturn void make_child(const struct make *m, int sock)
{
    struct answer a = {.error = 0};
    int fds[3] = {-1, -1, -1};
    union control control = {.bytes = {0}};
    struct iovec io = {&a, sizeof a};
    struct msghdr message = {.msg_iov = &io, .msg_iovlen = 1};
    int n = make_namespaces(m, fds, &a);
    if (n > 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE((size_t)n * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN((size_t)n * sizeof(int));
        memcpy(CMSG_DATA(c), fds, (size_t)n * sizeof(int));
    }
    _exit(sendmsg(sock, &message, MSG_NOSIGNAL) < 0);
}

/* ---- in the parent */

static int receive_place(int sock, bool root, struct place *ret, struct err *e)
{
    struct answer a = {.error = EPIPE, .step = "no answer"};
    union control control;
    struct iovec io = {&a, sizeof a};
    struct msghdr message = {.msg_iov = &io,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = sizeof control.bytes};
    struct pollfd p = {.fd = sock, .events = POLLIN};
    if (poll(&p, 1, MAKE_TIMEOUT_MS) <= 0)
        return err_say(e, ETIMEDOUT, "the namespaces for containers are not made in time");
    ssize_t n = recvmsg(sock, &message, MSG_CMSG_CLOEXEC);
    struct cmsghdr *c = n < 0 ? NULL : CMSG_FIRSTHDR(&message);
    if (n != (ssize_t)sizeof a || a.error || !c) {
        a.step[sizeof a.step - 1] = '\0';
        return err_set(e, a.error ? a.error : EIO, "cannot make room for containers: %s", a.step);
    }
    int fds[3] = {-1, -1, -1};
    size_t len = c->cmsg_len - CMSG_LEN(0);
    memcpy(fds, CMSG_DATA(c), len < sizeof fds ? len : sizeof fds);
    ret->mount_ns = fds[0];
    ret->dir = fds[1];
    ret->user_ns = root ? -1 : fds[2];
    return 0;
}

static int copy_init(const char *path, const struct place *p, struct err *e)
{
    CLEANUP(buf_release) struct buf b;
    int r = io_read_file(path, INIT_BYTES_MAX, &b, e);
    if (r < 0)
        return err_wrap(e, "read silt-init");
    r = write_text(p->dir, "silt-init", b.data, b.len, 0755);
    return r < 0 ? err_set(e, -r, "copy silt-init") : 0;
}

int place_make(const struct container_config *config, bool root, enum place_cgroups cgroups,
    unsigned cpu_count, struct place *ret, struct err *e)
{
    int socks[2];
    *ret = (struct place){.user_ns = -1, .mount_ns = -1, .dir = -1};
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks) < 0)
        return err_set(e, errno, "make a socket pair");
    CLEANUP(fd_closep) int ours = socks[0];
    CLEANUP(fd_closep) int theirs = socks[1];
    const struct make make = {config->image_dir, root, cgroups, cpu_count};
    pid_t pid = fork();
    if (pid < 0)
        return err_set(e, errno, "fork");
    if (pid == 0)
        make_child(&make, theirs);
    fd_closep(&theirs);
    int r = receive_place(ours, root, ret, e);
    if (r < 0)
        (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
    if (r == 0)
        r = copy_init(config->init_path, ret, e);
    if (r < 0)
        place_release(ret);
    return r;
}

void place_release(struct place *p)
{
    fd_closep(&p->user_ns);
    fd_closep(&p->mount_ns);
    fd_closep(&p->dir);
}

/* Put the host's file, or the symlink into /usr that it is, at the same place in the made-up root.
 */
static int copy_etc(const struct place *p, const char *host, const char *inside, struct err *e)
{
    char target[PATH_MAX];
    ssize_t n = readlink(host, target, sizeof target - 1);
    target[n > 0 ? n : 0] = '\0';
    if (!strncmp(target, "/usr/", 5)) {
        (void)unlinkat(p->dir, inside, 0);
        return symlinkat(target, p->dir, inside) < 0 ? err_set(e, errno, "link '%s'", inside) : 0;
    }
    CLEANUP(buf_release) struct buf b;
    if (io_read_file(host, COPY_BYTES_MAX, &b, NULL) < 0)
        return 0; /* unreadable or absent: programs do without */
    /* Renamed into place, for containers may be reading the old one. */
    int r = write_text(p->dir, "fresh", b.data, b.len, 0644);
    if (r == 0 && renameat(p->dir, "fresh", p->dir, inside) < 0)
        r = -errno;
    return r < 0 ? err_set(e, -r, "copy '%s'", host) : 0;
}

int place_refresh(const struct place *p, struct place_copy copies[PLACE_COPIES], struct err *e)
{
    for (int i = 0; i < PLACE_COPIES && etc_copies[i]; i++) {
        char host[64], inside[64];
        struct stat st;
        (void)snprintf(host, sizeof host, "/etc/%s", etc_copies[i]);
        (void)snprintf(inside, sizeof inside, "root/etc/%s", etc_copies[i]);
        if (lstat(host, &st) < 0)
            continue;
        if (copies[i].ino == st.st_ino && copies[i].mtime.tv_sec == st.st_mtim.tv_sec &&
            copies[i].mtime.tv_nsec == st.st_mtim.tv_nsec)
            continue;
        int r = copy_etc(p, host, inside, e);
        if (r < 0)
            return r;
        copies[i] = (struct place_copy){.mtime = st.st_mtim, .ino = st.st_ino};
    }
    return 0;
}
