/* SPDX-License-Identifier: MIT */
#include "shared/tree_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "shared/path.h"
#include "shared/weaken.h"

#include "shared/banned.h"

#define NS_PER_S INT64_C(1000000000)
#define STAT_BLOCK_BYTES 512u /* the unit of st_blocks, whatever the file system */

int tree_open(const char *path, struct tree **ret, struct err *e)
{
    struct stat st;
    if (path[0] != '/')
        return err_say(e, EINVAL, "open the directory '%s': the path is not absolute", path);
    CLEANUP(fd_closep) int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_set(e, errno, "open the directory '%s'", path);
    if (fstat(fd, &st) < 0)
        return err_set(e, errno, "stat the directory '%s'", path);
    struct tree *t = malloc(sizeof(*t));
    if (!t)
        return err_set(e, ENOMEM, "open the directory '%s'", path);
    *t = (struct tree){.fd = fd_take(&fd), .dev = st.st_dev, .ino = st.st_ino};
    *ret = t;
    return 0;
}

void tree_free(struct tree *t)
{
    if (!t)
        return;
    fd_closep(&t->fd);
    free(t);
}

void tree_freep(struct tree **t)
{
    tree_free(*t);
    *t = NULL;
}

int tree_fd(const struct tree *t)
{
    return t->fd;
}

void tree_root_id(const struct tree *t, uint64_t *ret_dev, uint64_t *ret_ino)
{
    *ret_dev = t->dev;
    *ret_ino = t->ino;
}

bool tree_same(const struct tree *t, const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_dev == t->dev &&
           st.st_ino == t->ino;
}

static enum tree_kind kind_of(mode_t mode)
{
    if (S_ISREG(mode) || (WEAK("kinds") && (S_ISFIFO(mode) || S_ISCHR(mode))))
        return TREE_FILE;
    if (S_ISDIR(mode))
        return TREE_DIR;
    return S_ISLNK(mode) ? TREE_SYMLINK : TREE_OTHER;
}

static int64_t ns_of(struct timespec ts)
{
    int64_t ns;
    /* A program may set any time on its files; one outside the range is as good as the far end. */
    if (__builtin_mul_overflow((int64_t)ts.tv_sec, NS_PER_S, &ns) ||
        __builtin_add_overflow(ns, (int64_t)ts.tv_nsec, &ns))
        return ts.tv_sec < 0 ? INT64_MIN : INT64_MAX;
    return ns;
}

void tree_stat_of(const struct stat *st, struct tree_stat *ret)
{
    *ret = (struct tree_stat){
        .kind = kind_of(st->st_mode),
        .mode = st->st_mode & 07777u,
        .size = (uint64_t)st->st_size,
        .blocks_bytes = (uint64_t)st->st_blocks * STAT_BLOCK_BYTES,
        .mtime_ns = ns_of(st->st_mtim),
        .ctime_ns = ns_of(st->st_ctim),
        .ino = st->st_ino,
        .dev = st->st_dev,
        .nlink = (uint32_t)st->st_nlink,
        .uid = st->st_uid,
        .whiteout = S_ISCHR(st->st_mode) && st->st_rdev == 0,
    };
}

static int stat_at(const struct tree *t, const char *path, struct stat *ret)
{
    CLEANUP(tree_parent_closep) struct tree_parent p = TREE_PARENT_INIT;
    tree_assert_path(path);
    if (path[0] == '\0')
        return fstat(t->fd, ret) < 0 ? -errno : 0;
    int r = tree_parent(t, path, &p);
    if (r < 0)
        return r;
    return fstatat(p.fd, p.name, ret, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0 ? -errno : 0;
}

int tree_stat(const struct tree *t, const char *path, struct tree_stat *ret, struct err *e)
{
    struct stat st;
    int r = stat_at(t, path, &st);
    if (r < 0)
        return err_set(e, -r, "stat '%s'", tree_shown(path));
    tree_stat_of(&st, ret);
    return 0;
}

static int refuse_kind(enum tree_kind kind, const char *path, struct err *e)
{
    switch (kind) {
    case TREE_DIR:
        return err_set(e, EISDIR, "open '%s'", tree_shown(path));
    case TREE_SYMLINK:
        return err_set(e, ELOOP, "open '%s'", tree_shown(path));
    default:
        return err_say(e, TREE_NOT_REGULAR, "open '%s': not a regular file", tree_shown(path));
    }
}

int tree_open_file(
    const struct tree *t, const char *path, int *ret_fd, struct tree_stat *ret_stat, struct err *e)
{
    struct stat st;
    struct tree_stat found;
    CLEANUP(fd_closep)
    int fd = tree_beneath(
        t, path, O_RDONLY | O_NONBLOCK | (WEAK("nofollow") ? 0 : O_NOFOLLOW) | O_NOCTTY);
    if (fd < 0) {
        /* A socket, a device without a driver and a device on a nodev mount each refuse in their
         * own way. What they have in common is what the caller wants to hear. */
        int code = -fd;
        if ((code == ENXIO || code == ENODEV || code == EACCES) && stat_at(t, path, &st) == 0 &&
            kind_of(st.st_mode) == TREE_OTHER)
            return refuse_kind(TREE_OTHER, path, e);
        return err_set(e, code, "open '%s'", tree_shown(path));
    }
    if (fstat(fd, &st) < 0)
        return err_set(e, errno, "stat '%s'", tree_shown(path));
    tree_stat_of(&st, &found);
    if (found.kind != TREE_FILE)
        return refuse_kind(found.kind, path, e);
    if (ret_stat)
        *ret_stat = found;
    *ret_fd = fd_take(&fd);
    return 0;
}

int tree_open_dir(const struct tree *t, const char *path, int *ret_fd, struct err *e)
{
    int fd = tree_beneath(t, path, O_RDONLY | O_DIRECTORY | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return err_set(e, -fd, "open the directory '%s'", tree_shown(path));
    *ret_fd = fd;
    return 0;
}

int tree_readlink(const struct tree *t, const char *path, struct buf *b, struct err *e)
{
    char target[PATH_BYTES_MAX + 1];
    CLEANUP(tree_parent_closep) struct tree_parent p = TREE_PARENT_INIT;
    int r = tree_parent(t, path, &p);
    if (r < 0)
        return err_set(e, -r, "read the symlink '%s'", tree_shown(path));
    ssize_t len = readlinkat(p.fd, p.name, target, sizeof(target));
    if (len < 0)
        return err_set(e, errno, "read the symlink '%s'", path);
    if ((size_t)len > PATH_BYTES_MAX)
        return err_set(e, ENAMETOOLONG, "read the symlink '%s'", path);
    r = buf_add(b, target, (size_t)len);
    return r < 0 ? err_set(e, -r, "read the symlink '%s'", path) : 0;
}
