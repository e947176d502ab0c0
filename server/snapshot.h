/* SPDX-License-Identifier: MIT */
/*
 * A frozen copy of a workspace: what runs with `view: snapshot` see beneath what they write.
 *
 *     snapshot_new(ws, dir_fd, name, from, &s)   empty, or with all that another one has
 *     snapshot_follow(s, …)                      bring it up to the manifest, as far as they differ
 *     snapshot_free(s, true)                     gone from disk
 *
 * It never changes while it is used: its files have inodes of their own, which no program and no
 * change set reaches. Not even hard links to the workspace's files would do, since a program that
 * writes in place changes all names of an inode. Where the file system can, a file is copied by
 * sharing its blocks (FICLONE), else byte by byte, once: following costs what changed, and
 * snapshots of several generations share the inodes of what did not change by hard links among
 * themselves. A file whose content, mode or time changed gets a new inode.
 *
 * A file is taken as it lies in the workspace when it is copied. Its row in `manifest` has the hash
 * of what was really copied, also where a program was writing to it.
 *
 * The caller serialises, carries no identity, and never follows with one that is used.
 */
#ifndef SERVER_SNAPSHOT_H
#define SERVER_SNAPSHOT_H

#include "server/workspace.h"

#define SNAPSHOT_NAME_BYTES 24
#define SNAPSHOT_FOLDER "w" /* what is seen as the workspace; its parent is the overlay's root */

struct snapshot {
    struct workspace *ws; /* that it is of */
    int parent_fd;        /* borrowed: the folder with all of them */
    char name[SNAPSHOT_NAME_BYTES];
    int fd; /* parent_fd/name: the overlay's root */
    struct tree *tree;
    struct manifest *manifest; /* what is in it; times are those of the files in the workspace */
    uint64_t edition;          /* of the workspace's manifest that it was brought up to */
    uint64_t generation;
    /* The owner's: */
    unsigned users;
    uint64_t used_ns;
    struct snapshot *next;
};

/* `from` (may be NULL) is not touched. On failure nothing is left. */
int snapshot_new(struct workspace *ws, int parent_fd, const char *name, const struct snapshot *from,
    struct snapshot **ret, struct err *e) WARN_UNUSED;
/* One pass: *ret_count entries were different, so many a second pass may find again. Refusal
 * PROTO_NO_SPACE when it would hold more than max_bytes or the disk ends; free it then. */
int snapshot_follow(
    struct snapshot *s, uint64_t max_bytes, size_t *ret_count, struct err *e) WARN_UNUSED;
/* Is it up to the manifest? Takes ws->lock. */
bool snapshot_current(const struct snapshot *s);
void snapshot_free(struct snapshot *s, bool remove);

#endif
