/* SPDX-License-Identifier: MIT */
/*
 * What one run with `view: snapshot` has for itself: an upper layer over a snapshot, which an
 * overlay shows as one tree (container_view in container.h mounts it).
 *
 *     view_new(ws, dir_fd, snapshot, run, &v)
 *     view_attach(v, fd)           the overlay's root is mounted: look and write through it
 *     view_apply(v, feed)          changes that are tried and not yet made
 *     …                            a program runs
 *     view_look(v, &budget)        when everything in the container is dead: what is different
 *     view_feed(v, &feed)          … as a change set for the workspace, with the snapshot as basis
 *     view_claim(v, stage, op, …)  … whose content is moved, not copied
 *     view_free(v)                 gone from disk
 *
 * Looking costs what changed: only the upper layer is walked. It is as hostile as a workspace:
 * FIFOs, sockets and devices are not part of a tree, set-id bits are dropped, what cannot be read
 * or exceeds the budget makes it `incomplete`, and then there is no feed.
 *
 * One thread. None is called with an identity, except view_claim, which is called with the
 * sandbox's.
 */
#ifndef SERVER_VIEW_H
#define SERVER_VIEW_H

#include "server/scan.h"
#include "server/snapshot.h"
#include "server/stage.h"

struct view_change {
    char *path;
    bool had;          /* the snapshot has something there, `base` */
    bool have;         /* the view has something there */
    bool same_content; /* a file or folder of which only the mode differs */
    enum tree_kind base_kind;
    struct hash base;
    uint64_t base_size;
    int64_t base_mtime_ns;
    enum tree_kind kind;
    uint32_t mode;
    uint64_t size;
    int64_t mtime_ns;
    struct hash hash;
    char *target;
};

struct view {
    struct workspace *ws;      /* the live one */
    struct snapshot *snapshot; /* NULL: not needed any more */
    int parent_fd;             /* borrowed */
    char name[64];
    int fd, upper_fd, work_fd;
    struct tree *upper;      /* what view_look saw; NULL: nothing */
    struct workspace merged; /* only tree, stage_fd, manifest, identity, lock mean something */
    bool attached;
    struct view_change *changes; /* sorted by path */
    size_t count, cap;
    bool incomplete;
    /* Of the feed: */
    size_t at;
    bool deleting;
};

int view_new(struct workspace *ws, int parent_fd, struct snapshot *snapshot, const char *run,
    struct view **ret, struct err *e) WARN_UNUSED;
/* fd: the overlay's root; borrowed for the call. */
int view_attach(struct view *v, int fd, struct err *e) WARN_UNUSED;
/* The operations of a change set, all or none. Refusals: those of a change set, and
 * PROTO_PATH_CONFLICT for moving a folder of the snapshot, which an overlay cannot. */
int view_apply(struct view *v, const struct changes_feed *feed, uint64_t max_bytes,
    uint64_t min_free_bytes, struct err *e) WARN_UNUSED;
int view_look(struct view *v, const struct scan_budget *budget, struct err *e) WARN_UNUSED;
struct changes_feed view_feed(struct view *v);
/* The content of an operation of that feed; v as ctx. */
int view_claim(void *v, struct stage *stage, const struct change_op *op, struct staged **ret,
    struct err *e) WARN_UNUSED;
void view_free(struct view *v);

#endif
