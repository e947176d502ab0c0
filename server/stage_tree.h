/* SPDX-License-Identifier: MIT */
/*
 * New directories on their way into a workspace. What lies in a directory that the workspace does
 * not have yet is staged in such a tree under its final name, so that one rename of the topmost new
 * directory brings all of it, whatever it holds.
 *
 *     stage_tree_at(s, path, …)      while reading: where to make the file, if in a tree
 *     stage_tree_mkdir(s, path, …)   … a directory that an operation asks for
 *     stage_tree_find(s, path)       when planning: is this new directory staged as one?
 *     stage_tree_claim, stage_tree_lift, stage_tree_flatten
 *     stage_tree_trim(s)             before placing: directories that nobody claimed leave the
 * trees
 *
 * That a directory is new is a guess from the manifest, made early. The plan decides: it claims
 * what lies where it shall be, and takes out what does not. Nothing here fails because of a wrong
 * guess.
 *
 * At most STAGE_TREE_DIRS directories and STAGE_TREE_BYTES of their paths are kept; what goes
 * beyond is staged one by one. The caller carries the sandbox's identity.
 */
#ifndef SERVER_STAGE_TREE_H
#define SERVER_STAGE_TREE_H

#include "server/stage.h"

#define STAGE_TREE_DIRS 65536u
#define STAGE_TREE_BYTES (UINT64_C(16) << 20)

/* A descriptor of the directory that shall hold `path` (borrowed until the next call here), and the
 * directory. *ret NULL: stage it in a slot. */
int stage_tree_at(struct stage *s, const char *path, struct stage_dir **ret, int *ret_fd,
    struct err *e) WARN_UNUSED;
/* Make the directory `path` if it is in a tree; mode 0: 0755. */
int stage_tree_mkdir(struct stage *s, const char *path, uint32_t mode, struct err *e) WARN_UNUSED;
/* NULL: there is none. */
struct stage_dir *stage_tree_find(const struct stage *s, const char *path);

/* It is placed as it lies: within `parent`, which was claimed, or (NULL) as the topmost, for which
 * it gets a slot of its own if it has none. Gives it the mode. */
int stage_tree_claim(struct stage *s, struct stage_dir *dir, const struct stage_dir *parent,
    uint32_t mode, struct err *e) WARN_UNUSED;
/* Into a slot, out of the tree it was staged in; nothing if it lies in one. */
int stage_tree_flatten(struct stage *s, struct staged *staged, struct err *e) WARN_UNUSED;
/* What was not claimed leaves the trees. */
int stage_tree_trim(struct stage *s, struct err *e) WARN_UNUSED;
/* Open a file that lies in a tree. A descriptor or -errno. */
int stage_tree_open(struct stage *s, const struct staged *staged);
void stage_tree_release(struct stage *s);

/* What the plan and the manifest need to know of one. */
const struct stage_slot *stage_dir_slot(const struct stage_dir *dir);
uint64_t stage_dir_ino(const struct stage_dir *dir);
bool stage_tree_holds(const struct stage_dir *parent, const struct stage_dir *dir);

#endif
