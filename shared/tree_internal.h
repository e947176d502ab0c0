/* SPDX-License-Identifier: MIT */
/*
 * What the parts of shared/tree share: the safe resolver, renames that never replace, modes set by
 * descriptor. Included by shared/tree*.c and their test only.
 *
 *     tree.c           hold a root, look and read
 *     tree_resolve.c   a path to a descriptor: openat2, or component by component
 *     tree_change.c    directories, symlinks, modes, unlinking
 *     tree_place.c     exchange, take out, rename
 *     tree_remove.c    remove a whole subtree
 *     tree_walk.c      visit a whole subtree
 *     tree_identity.c  the thread's fsuid and fsgid
 */
#ifndef SHARED_TREE_INTERNAL_H
#define SHARED_TREE_INTERNAL_H

#include "shared/tree.h"

struct tree {
    int fd; /* O_PATH | O_DIRECTORY */
    uint64_t dev;
    uint64_t ino;
};

/* Abort unless path is "" or passes path_check(). */
void tree_assert_path(const char *path);

/* Abort unless name is one component: not "", ".", "..", and without a slash. */
void tree_assert_name(const char *name);

/* For messages: the root has no name of its own. */
const char *tree_shown(const char *path);

/*
 * Open `path` beneath the root with the flags of open(2), none of which may create; O_CLOEXEC is
 * added. Symlinks are refused with -ELOOP wherever they stand; with O_PATH | O_NOFOLLOW one in the
 * last place is opened itself. The descriptor, or -errno.
 */
int tree_beneath(const struct tree *t, const char *path, int flags) WARN_UNUSED;

/*
 * Open the directory `name` in dir_fd with `flags` (O_PATH or O_RDONLY), refusing symlinks (-ELOOP)
 * and mount points (-EXDEV). The descriptor, or -errno.
 */
int tree_child_dir(int dir_fd, const char *name, int flags) WARN_UNUSED;

/* One step down: `name` in dir_fd as O_PATH. -ELOOP if it is a symlink, -ENOTDIR if it is another
 * thing than a directory. */
int tree_step(int dir_fd, const char *name) WARN_UNUSED;

/* The directory that holds a path's last component. CLEANUP(tree_parent_closep) releases it. */
struct tree_parent {
    int fd;           /* to use */
    int held;         /* to close, or -1 when fd is the root's */
    const char *name; /* last component, points into the path */
};
#define TREE_PARENT_INIT                                                                           \
    {                                                                                              \
        .fd = -1, .held = -1                                                                       \
    }
/* -EINVAL for "": the root has no parent here. */
int tree_parent(const struct tree *t, const char *path, struct tree_parent *ret) WARN_UNUSED;
void tree_parent_closep(struct tree_parent *p);

/* chmod what fd (O_PATH is enough) refers to; `mode` as it stands. 0 or -errno. */
int tree_set_mode(int fd, uint32_t mode) WARN_UNUSED;

/* If name in dir_fd is a directory that lacks u+rwx, give it. 0 when something changed, else
 * -errno (-EACCES: nothing to give). */
int tree_grant(int dir_fd, const char *name) WARN_UNUSED;

/* Rename that never replaces: 0, -EEXIST, or -errno. */
int tree_rename_new(int from_fd, const char *from, int to_fd, const char *to) WARN_UNUSED;

/* What a test pretends the kernel or the file system cannot do. */
#define TREE_LACKS_OPENAT2 1u
#define TREE_LACKS_RENAME_FLAGS 2u
#define TREE_LACKS_FCHMODAT2 4u
#define TREE_LACKS_LINKS 8u /* hard links, for renames without flags */
void tree_test_lacks(unsigned what);
bool tree_lacks(unsigned what);

#endif
