/* SPDX-License-Identifier: MIT */
/*
 * How much of the disk a sandbox holds. Where the file system counts by projects (ext4 and XFS with
 * `prjquota`) and siltd is root, the limit is the kernel's: a sandbox's folders are marked with a
 * project while they are empty, what is made in them inherits it, and a write beyond the limit fails
 * with EDQUOT. A program cannot leave its project: the kernel refuses that outside of the first user
 * namespace. Elsewhere the folders are walked from time to time. Any thread.
 *
 * Folders of one project that content is renamed between must all be marked or none: renaming into
 * another project fails with EXDEV.
 */
#ifndef SERVER_SPACE_H
#define SERVER_SPACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/err.h"
#include "shared/tree.h"

struct space {
    uint64_t bytes, files; /* on disk; entries of any kind */
};

/* Can and may this process limit projects on the file system of this folder? */
bool space_countable(int dir_fd);
/* -errno: the folder stays as it was. */
int space_mark(int dir_fd, uint32_t project) WARN_UNUSED;
/* Mark those that are not yet, as far as all of these are `fresh` (empty); else none. */
void space_mark_all(const int dir_fds[], const bool fresh[], size_t count, uint32_t project);
bool space_marked(int dir_fd, uint32_t project);
int space_limit(int dir_fd, uint32_t project, const struct space *most) WARN_UNUSED;
int space_used(int dir_fd, uint32_t project, struct space *ret) WARN_UNUSED;

/* Add up what lies in a tree; ends early when *sum is above `most`. The caller carries the sandbox's
 * identity. What cannot be looked at does not count. */
void space_walk(const struct tree *t, const struct space *most, struct space *sum);

/* Is the limit reached, so that nothing more can be written (by the kernel's count), or passed? */
bool space_full(const struct space *used, const struct space *most);
bool space_over(const struct space *used, const struct space *most);

#endif
