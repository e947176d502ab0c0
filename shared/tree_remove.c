/* SPDX-License-Identifier: MIT */
#include "shared/tree_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/io.h"
#include "shared/path.h"
#include "shared/weaken.h"

#include "shared/banned.h"

/*
 * Depth first, with one descriptor for each of at most LEVELS_MAX levels. What lies deeper is
 * lifted: renamed into the topmost directory, whose next pass meets it there. So no depth needs
 * more memory or descriptors than another, and an ordinary tree is never renamed at all.
 *
 * A directory is read again when it turns out not to be empty although its pass removed something:
 * names that were added meanwhile, or lifted. Passes and entries are counted, so that a program
 * that adds names as fast as we remove them ends in -ENOTEMPTY or -EBUSY and not in a loop.
 */
#define LEVELS_MAX 32
#define LEVEL_PASSES_MAX 8
#define PASSES_MAX 65536 /* of all levels together: enough for a depth of two million */
#define ENTRIES_MAX (UINT64_C(1) << 26)
#define SWAPS_MAX 8 /* of the name itself, between a directory and something else */
#define LIFTED_BYTES 40

#define OPEN_DIR (O_RDONLY | O_NONBLOCK | O_NOCTTY)
#define MODE_DIR_MIN 0700u

struct level {
    DIR *dir;
    char name[PATH_NAME_MAX + 1]; /* in the level above */
    bool progress;                /* in this pass */
    unsigned passes;
};

struct remover {
    int dir_fd; /* holds level[0].name; borrowed */
    unsigned depth;
    unsigned passes;
    uint64_t entries;
    uint64_t lifted;
    uint64_t nonce;
    int fault; /* the first that was met, 0 or -errno */
    struct level level[LEVELS_MAX];
};

static void remover_release(struct remover *rm)
{
    while (rm->depth > 0)
        dir_closep(&rm->level[--rm->depth].dir);
}

static void remover_freep(struct remover **rm)
{
    if (*rm)
        remover_release(*rm);
    free(*rm);
    *rm = NULL;
}

static void note(struct remover *rm, int r)
{
    if (rm->fault == 0)
        rm->fault = r;
}

static int unlink_here(int dir_fd, const char *name, int flags)
{
    struct stat st;
    if (unlinkat(dir_fd, name, flags) == 0 || errno == ENOENT)
        return 0;
    int code = errno;
    /* Linux says EISDIR for a directory, POSIX and some FUSE file systems EPERM. */
    if (code == EPERM && flags == 0 && fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
        S_ISDIR(st.st_mode))
        code = EISDIR;
    return code == EEXIST ? -ENOTEMPTY : -code;
}

/* A directory's descriptor for reading, with u+rwx, even if it had mode 000. */
static int open_granted(int dir_fd, const char *name)
{
    struct stat st;
    CLEANUP(fd_closep) int fd = tree_child_dir(dir_fd, name, OPEN_DIR);
    if (fd == -EACCES && tree_grant(dir_fd, name) == 0)
        fd = tree_child_dir(dir_fd, name, OPEN_DIR);
    if (fd < 0)
        return fd;
    if (fstat(fd, &st) < 0)
        return -errno;
    if ((st.st_mode & MODE_DIR_MIN) != MODE_DIR_MIN) {
        int r = tree_set_mode(fd, (st.st_mode & 07777u) | MODE_DIR_MIN);
        if (r < 0 && r != -EPERM) /* another's directory: its entries tell what can be removed */
            return r;
    }
    return fd_take(&fd);
}

static int descend(struct remover *rm, int dir_fd, const char *name)
{
    struct level *l = &rm->level[rm->depth];
    CLEANUP(fd_closep) int fd = open_granted(dir_fd, name);
    if (fd < 0)
        return fd;
    DIR *dir = fdopendir(fd);
    if (!dir)
        return -errno;
    (void)fd_take(&fd); /* belongs to dir */
    *l = (struct level){.dir = dir};
    memcpy(l->name, name, strlen(name) + 1);
    rm->depth++;
    return 0;
}

/* Put a directory that lies too deep to descend into where the topmost level finds it. */
static int lift(struct remover *rm, int dir_fd, const char *name)
{
    char lifted[LIFTED_BYTES];
    int r = unlink_here(dir_fd, name, AT_REMOVEDIR);
    if (r != -ENOTEMPTY)
        return r;
    int n = snprintf(lifted, sizeof(lifted), ".l-%016" PRIx64 "-%" PRIx64, rm->nonce, rm->lifted++);
    if (n < 0 || (size_t)n >= sizeof(lifted))
        return -EINVAL;
    r = tree_rename_new(dir_fd, name, dirfd(rm->level[0].dir), lifted);
    if (r == -EACCES && tree_grant(dir_fd, name) == 0)
        r = tree_rename_new(dir_fd, name, dirfd(rm->level[0].dir), lifted);
    if (r == 0)
        rm->level[0].progress = true;
    return r;
}

static void remove_entry(struct remover *rm, struct level *l, const char *name, unsigned char type)
{
    int fd = dirfd(l->dir);
    int r = type == DT_DIR ? -EISDIR : unlink_here(fd, name, 0);
    if (r == -EISDIR && rm->depth < LEVELS_MAX) {
        r = descend(rm, fd, name);
        if (r == 0)
            return; /* its end is its last pass */
    } else if (r == -EISDIR && !WEAK("lift")) {
        r = lift(rm, fd, name);
    }
    if (r == -ENOTDIR || r == -ELOOP) /* swapped while we looked */
        r = unlink_here(fd, name, 0);
    /* -EISDIR: and back again; the next pass tries again. */
    if (r == 0 || r == -ENOENT || r == -EISDIR)
        l->progress = true;
    else
        note(rm, r);
}

/* A pass is over: remove the level, or read it again. Returns what the topmost level came to, 0 or
 * -errno, once rm->depth is 0. */
static int end_pass(struct remover *rm)
{
    struct level *l = &rm->level[rm->depth - 1];
    struct level *above = rm->depth > 1 ? l - 1 : NULL;
    int r = unlink_here(above ? dirfd(above->dir) : rm->dir_fd, l->name, AT_REMOVEDIR);
    bool again = l->progress && rm->passes < PASSES_MAX && (!above || l->passes < LEVEL_PASSES_MAX);
    if (r == -ENOTEMPTY && again) {
        l->progress = false;
        l->passes++;
        rm->passes++;
        rewinddir(l->dir);
        return 0;
    }
    dir_closep(&l->dir);
    rm->depth--;
    /* -ENOTDIR: the name is another thing by now, which the next pass above removes. */
    if (above && (r == 0 || r == -ENOTDIR))
        above->progress = true;
    else if (r < 0)
        note(rm, r);
    return r;
}

/* Remove the directory name. What is gone in the end was removed, whatever was met on the way. */
static int remove_dir(struct remover *rm, int dir_fd, const char *name)
{
    int r;
    rm->dir_fd = dir_fd;
    rm->fault = 0;
    rm->passes = 0;
    rm->entries = 0;
    r = descend(rm, dir_fd, name);
    if (r < 0)
        return r;
    while (rm->depth > 0) {
        struct level *l = &rm->level[rm->depth - 1];
        errno = 0;
        const struct dirent *d = readdir(l->dir);
        if (!d) {
            if (errno != 0)
                note(rm, -errno);
            r = end_pass(rm);
        } else if (strlen(d->d_name) > PATH_NAME_MAX) {
            note(rm, -ENAMETOOLONG);
        } else if (strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0) {
            if (++rm->entries > ENTRIES_MAX)
                return -EBUSY;
            remove_entry(rm, l, d->d_name, d->d_type);
        }
    }
    return r == 0 || r == -ENOTDIR ? r : rm->fault;
}

static int remove_any(int dir_fd, const char *name)
{
    CLEANUP(remover_freep) struct remover *rm = NULL;
    int r = -EBUSY;
    for (int i = 0; i < SWAPS_MAX; i++) {
        r = unlink_here(dir_fd, name, 0);
        if (r != -EISDIR)
            return r;
        if (!rm) {
            rm = calloc(1, sizeof(*rm));
            if (!rm)
                return -ENOMEM;
            io_random(&rm->nonce, sizeof(rm->nonce));
        }
        r = remove_dir(rm, dir_fd, name);
        if (r == -ENOENT)
            return 0;
        if (r != -ENOTDIR && r != -ELOOP)
            return r;
    }
    return r;
}

int tree_remove_at(int dir_fd, const char *name, struct err *e)
{
    tree_assert_name(name);
    int r = remove_any(dir_fd, name);
    return r < 0 ? err_set(e, -r, "remove '%s'", name) : 0;
}

int tree_remove(const struct tree *t, const char *path, struct err *e)
{
    CLEANUP(tree_parent_closep) struct tree_parent p = TREE_PARENT_INIT;
    int r = tree_parent(t, path, &p);
    if (r == -ENOENT)
        return 0;
    if (r == 0)
        r = remove_any(p.fd, p.name);
    return r < 0 ? err_set(e, -r, "remove '%s'", tree_shown(path)) : 0;
}
