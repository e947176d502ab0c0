/* SPDX-License-Identifier: MIT */
/*
 * The views of runs with `view: snapshot` in one sandbox: snapshots that they share, kept for the
 * next one, and what becomes of what they wrote.
 *
 *     sandbox_run_enter(sb, &mounts)
 *     sandbox_view_open(sb, run, &v)      a snapshot of the workspace as it is now, and an upper
 * layer … container_view_mount, view_attach, sandbox_view_try, a container … sandbox_view_leave(sb,
 * v, keep, run, &changes, &end)   instead of sandbox_run_leave sandbox_view_close(sb, v) when
 * nobody waits for it any more
 *
 * Runs of one generation share one snapshot. The newest is kept while nobody uses it, for 60 s and
 * as long as it and the workspace take at most half of what the sandbox may hold; it is then
 * brought up to the next generation at the cost of what changed. If it is in use, another is made
 * of it by hard links. At most SANDBOX_SNAPSHOTS_MAX exist at a time.
 *
 * What a run wrote becomes one change set, applied whole or not at all, with the snapshot as its
 * basis: where the workspace has something else by now, all of it is refused, and the end says so.
 *
 * Everything lies in staging/<id>/views, belongs to the sandbox's project, and is removed with it,
 * or at the first use after a crash.
 *
 * Thread-safe, without identity.
 */
#ifndef SERVER_SANDBOX_VIEWS_H
#define SERVER_SANDBOX_VIEWS_H

#include "server/sandbox.h"

#define SANDBOX_SNAPSHOTS_MAX 4
#define SANDBOX_SNAPSHOT_IDLE_NS (UINT64_C(60) * 1000000000)
#define SANDBOX_VIEW_CONFLICTS_MAX 100 /* listed */

struct view;

/* *ret_generation: the one it shows. Refusals: PROTO_NO_SPACE, PROTO_BUSY (as many generations as
 * there may be are in use). */
int sandbox_view_open(struct sandbox *sb, const char *run, struct view **ret,
    uint64_t *ret_generation, struct err *e) WARN_UNUSED;
/* The overlay's root: workspace_dev, workspace_ino and generation of *mounts are set. */
int sandbox_view_attach(struct sandbox *sb, struct view *v, int fd, struct sandbox_mounts *mounts,
    struct err *e) WARN_UNUSED;
/* Changes that only this view has. */
int sandbox_view_try(
    struct sandbox *sb, struct view *v, const struct changes_feed *feed, struct err *e) WARN_UNUSED;
/* As sandbox_file_open and sandbox_has_file, of what the view shows until it is left; NULL: of the
 * workspace. The same goes for: */
int sandbox_view_file_open(struct sandbox *sb, struct view *v, const char *path, int *ret_fd,
    struct sandbox_file *ret, struct err *e) WARN_UNUSED;
bool sandbox_view_has_file(struct sandbox *sb, struct view *v, const char *path);
/* Append a regular file of at most max bytes, as it lies there now, without hashing it. -ENOENT and
 * its like, -EFBIG. */
int sandbox_view_read_small(struct sandbox *sb, struct view *v, const char *path, size_t max,
    struct buf *ret) WARN_UNUSED;

struct sandbox_view_end {
    bool kept;
    char reason[ERR_MSG_BYTES]; /* why not; "" if it was kept or should not be */
    char *conflicts[SANDBOX_VIEW_CONFLICTS_MAX];
    size_t conflict_count;
};
void sandbox_view_end_release(struct sandbox_view_end *end);
/* Everything in the container is dead: what did it change, and, with `keep`, make it so. Counts the
 * run out in any case. */
int sandbox_view_leave(struct sandbox *sb, struct view *v, bool keep, const char *run,
    struct sandbox_run_changes *ret, struct sandbox_view_end *ret_end, struct err *e) WARN_UNUSED;
/* The container is gone. */
void sandbox_view_close(struct sandbox *sb, struct view *v);

/* Remove snapshots that nobody uses; returns how many. */
unsigned sandbox_views_trim(struct sandbox *sb);
/* Those that nobody used for SANDBOX_SNAPSHOT_IDLE_NS (now_ns: monotonic), of all sandboxes. */
unsigned sandbox_views_expire(struct sandboxes *all, uint64_t now_ns);

#endif
