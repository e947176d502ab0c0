/* SPDX-License-Identifier: MIT */
#include "shared/tree_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "shared/io.h"
#include "shared/weaken.h"

#include "shared/banned.h"

#define PLACE_TRIES 64 /* against a program that makes and removes the name in turn */
#define ASIDE_BYTES 32

static bool flags_unknown(int code)
{
    return code == EINVAL || code == ENOSYS;
}

/* A file system without RENAME_NOREPLACE: a hard link refuses to replace just as atomically. Where
 * there are no hard links either, and for directories, look first; between the look and the rename
 * a file or empty directory that just appeared can be lost on such file systems. */
static int rename_new_plain(int from_fd, const char *from, int to_fd, const char *to)
{
    struct stat st;
    if (fstatat(from_fd, from, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    if (!S_ISDIR(st.st_mode) && !tree_lacks(TREE_LACKS_LINKS)) {
        if (linkat(from_fd, from, to_fd, to, 0) == 0)
            return unlinkat(from_fd, from, 0) < 0 ? -errno : 0;
        if (errno != EPERM && errno != EOPNOTSUPP && errno != ENOSYS && errno != EMLINK)
            return -errno;
    }
    if (fstatat(to_fd, to, &st, AT_SYMLINK_NOFOLLOW) == 0)
        return -EEXIST;
    if (errno != ENOENT)
        return -errno;
    return renameat(from_fd, from, to_fd, to) < 0 ? -errno : 0;
}

int tree_rename_new(int from_fd, const char *from, int to_fd, const char *to)
{
    if (!tree_lacks(TREE_LACKS_RENAME_FLAGS)) {
        if (renameat2(from_fd, from, to_fd, to, RENAME_NOREPLACE) == 0)
            return 0;
        /* EINVAL also means "a directory into itself": the plain way says so again. */
        if (!flags_unknown(errno))
            return -errno;
    }
    return rename_new_plain(from_fd, from, to_fd, to);
}

/*
 * RENAME_EXCHANGE by three renames that replace nothing. The name is missing for a moment, and a
 * crash in between leaves the staged entry where it was, so that placing it again finishes the
 * work. When somebody takes the name in that moment, theirs stays: -EBUSY, and what was there
 * before lies beside the staged entry.
 */
static int exchange_by_steps(int stage_fd, const char *stage_name, int dir_fd, const char *name)
{
    char aside[ASIDE_BYTES];
    uint64_t random;
    io_random(&random, sizeof(random));
    int n = snprintf(aside, sizeof(aside), "aside-%016" PRIx64, random);
    if (n < 0 || (size_t)n >= sizeof(aside))
        return -EINVAL;
    int r = tree_rename_new(dir_fd, name, stage_fd, aside);
    if (r < 0)
        return r;
    r = tree_rename_new(stage_fd, stage_name, dir_fd, name);
    if (r < 0) {
        int back = tree_rename_new(stage_fd, aside, dir_fd, name);
        return r == -EEXIST || back == -EEXIST ? -EBUSY : r;
    }
    return tree_rename_new(stage_fd, aside, stage_fd, stage_name);
}

/* What never happens: other names of the file get the new content as well. */
static int write_in_place(int stage_fd, const char *stage_name, int dir_fd, const char *name)
{
    uint8_t data[4096];
    CLEANUP(fd_closep) int from = openat(stage_fd, stage_name, O_RDONLY | O_CLOEXEC);
    CLEANUP(fd_closep) int to = openat(dir_fd, name, O_WRONLY | O_TRUNC | O_CLOEXEC);
    ssize_t n = from < 0 || to < 0 ? -errno : io_read_full(from, data, sizeof(data));
    return n < 0 ? (int)n : io_write_all(to, data, (size_t)n);
}

static int exchange(int stage_fd, const char *stage_name, int dir_fd, const char *name)
{
    if (WEAK("replace"))
        return write_in_place(stage_fd, stage_name, dir_fd, name);
    if (!tree_lacks(TREE_LACKS_RENAME_FLAGS)) {
        if (renameat2(stage_fd, stage_name, dir_fd, name, RENAME_EXCHANGE) == 0)
            return 0;
        if (!flags_unknown(errno))
            return -errno;
    }
    return exchange_by_steps(stage_fd, stage_name, dir_fd, name);
}

/* Exchange first: most changes replace a file, and then it is the only call. */
static int place(
    int stage_fd, const char *stage_name, const struct tree_parent *to, bool *ret_displaced)
{
    bool granted = false;
    for (int i = 0; i < PLACE_TRIES; i++) {
        int r = exchange(stage_fd, stage_name, to->fd, to->name);
        if (r == 0) {
            *ret_displaced = true;
            return 0;
        }
        /* A directory that changes its parent must be writable itself. */
        if (r == -EACCES && !granted && tree_grant(to->fd, to->name) == 0) {
            granted = true;
            continue;
        }
        if (r != -ENOENT)
            return r;
        r = tree_rename_new(stage_fd, stage_name, to->fd, to->name);
        if (r == 0) {
            *ret_displaced = false;
            return 0;
        }
        if (r != -EEXIST)
            return r;
    }
    return -EBUSY;
}

int tree_place(const struct tree *t, int stage_fd, const char *stage_name, const char *path,
    bool *ret_displaced, struct err *e)
{
    CLEANUP(tree_parent_closep) struct tree_parent p = TREE_PARENT_INIT;
    tree_assert_name(stage_name);
    int r = tree_parent(t, path, &p);
    if (r == 0)
        r = place(stage_fd, stage_name, &p, ret_displaced);
    return r < 0 ? err_set(e, -r, "put '%s' in its place", tree_shown(path)) : 0;
}

int tree_place_new(
    const struct tree *t, int stage_fd, const char *stage_name, const char *path, struct err *e)
{
    CLEANUP(tree_parent_closep) struct tree_parent p = TREE_PARENT_INIT;
    tree_assert_name(stage_name);
    int r = tree_parent(t, path, &p);
    if (r == 0)
        r = tree_rename_new(stage_fd, stage_name, p.fd, p.name);
    return r < 0 ? err_set(e, -r, "put '%s' in its place", tree_shown(path)) : 0;
}

int tree_take(
    const struct tree *t, const char *path, int stage_fd, const char *stage_name, struct err *e)
{
    CLEANUP(tree_parent_closep) struct tree_parent p = TREE_PARENT_INIT;
    tree_assert_name(stage_name);
    int r = tree_parent(t, path, &p);
    if (r == 0)
        r = tree_rename_new(p.fd, p.name, stage_fd, stage_name);
    if (r == -EACCES && tree_grant(p.fd, p.name) == 0)
        r = tree_rename_new(p.fd, p.name, stage_fd, stage_name);
    return r < 0 ? err_set(e, -r, "take '%s' out", tree_shown(path)) : 0;
}

/*
 * rename(2) does nothing, successfully, when both names are hard links of one file. The old name
 * has to go all the same. A single-linked file under both names is one entry (a file system that
 * folds case): nothing must go then.
 */
static int rename_over(const struct tree_parent *from, const struct tree_parent *to)
{
    struct stat a;
    struct stat b;
    bool links = fstatat(from->fd, from->name, &a, AT_SYMLINK_NOFOLLOW) == 0 &&
                 fstatat(to->fd, to->name, &b, AT_SYMLINK_NOFOLLOW) == 0 && a.st_ino == b.st_ino &&
                 a.st_dev == b.st_dev && a.st_nlink > 1 && !S_ISDIR(a.st_mode);
    if (renameat(from->fd, from->name, to->fd, to->name) < 0)
        return -errno;
    if (!links || fstatat(from->fd, from->name, &b, AT_SYMLINK_NOFOLLOW) < 0)
        return 0;
    if (a.st_ino != b.st_ino || a.st_dev != b.st_dev || b.st_nlink < 2)
        return 0;
    return unlinkat(from->fd, from->name, 0) < 0 ? -errno : 0;
}

static int move(const struct tree_parent *from, const struct tree_parent *to, bool replace)
{
    return replace ? rename_over(from, to)
                   : tree_rename_new(from->fd, from->name, to->fd, to->name);
}

int tree_move(const struct tree *t, const char *from, const char *to, bool replace, struct err *e)
{
    CLEANUP(tree_parent_closep) struct tree_parent a = TREE_PARENT_INIT;
    CLEANUP(tree_parent_closep) struct tree_parent b = TREE_PARENT_INIT;
    struct stat st;
    int r = tree_parent(t, from, &a);
    if (r == 0)
        r = tree_parent(t, to, &b);
    if (r == 0 && strcmp(from, to) == 0) {
        r = fstatat(a.fd, a.name, &st, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : replace ? 0 : -EEXIST;
    } else if (r == 0) {
        r = move(&a, &b, replace);
        if (r == -EACCES && tree_grant(a.fd, a.name) == 0)
            r = move(&a, &b, replace);
    }
    return r < 0 ? err_set(e, -r, "move '%s' to '%s'", tree_shown(from), tree_shown(to)) : 0;
}
