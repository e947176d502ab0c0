/* SPDX-License-Identifier: MIT */
/*
 * The folders of sandboxes on the server's disk, and what is known about one while it is in use:
 * the held root, the staging directory on the same file system, the manifest.
 *
 *     workspaces_open(data_dir, workspace_root, &all)   once
 *     workspace_make(all, id, identity)                 folders of a new sandbox
 *     workspace_open(all, id, identity, &ws)            hold them
 *     … stage.h, plan.h, apply.h, scan.h …
 *     workspace_free(ws)
 *     workspace_destroy(all, id)                        gone from disk
 *
 * Per sandbox there are workspace_root/<id> (mounted into containers, its inode never changes),
 * data_dir/cache/<id> (mounted too), and, never mounted, staging/<id> and displaced/<id>: in
 * data_dir, or in workspace_root/.silt if that lies on another file system, since placing is
 * renaming.
 *
 * The folders belong to the sandbox's own uid. Whoever calls a function here that takes a struct
 * workspace and a path must carry ws->identity (tree_identity_enter), except where it says
 * otherwise. The manifest is shared by threads under ws->lock; no pointer into it leaves that lock.
 */
#ifndef SERVER_WORKSPACE_H
#define SERVER_WORKSPACE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/space.h"
#include "shared/err.h"
#include "shared/manifest.h"
#include "shared/tree.h"

#define WORKSPACE_VIEWS "views" /* in the staging directory: sandbox_views.h */

struct workspaces;

struct workspace {
    struct tree *tree, *cache;
    int stage_fd;     /* directory for what is not in the workspace yet, or any more */
    int displaced_fd; /* versions of programs that could not be put back */
    struct tree_identity identity;
    char *path, *cache_path; /* absolute */
    unsigned displaced_count;
    uint64_t kept_bytes; /* of kept versions (sandbox_kept.c), which lie among the displaced ones */
    atomic_uint_fast64_t sets; /* numbers for staging names */
    pthread_mutex_t lock;      /* manifest */
    struct manifest *manifest;
    uint64_t edition; /* grows whenever the manifest changes or is another */
    uint64_t files;   /* rows that are no directories */
    struct space most;
    bool quota; /* the kernel keeps it to `most` */
    bool layered; /* the tree of a view (view.h): a folder of the layer beneath cannot be renamed */
    /* Under the lock, without quota: what it held when a run was ended for it, and whether that is
     * still to be found out. */
    struct space held;
    bool measure;
};

int workspaces_open(const char *data_dir, const char *workspace_root, struct workspaces **ret,
    struct err *e) WARN_UNUSED;
void workspaces_free(struct workspaces *all);
/* The most that a sandbox may hold: workspace, cache and what is on its way together. Before
 * the first workspace_make. */
void workspaces_limit(struct workspaces *all, const struct space *most);

/* Make the folders of `id` as far as they are missing; *ret_new (may be NULL) says whether the
 * workspace itself was. Called without identity. */
int workspace_make(const struct workspaces *all, const char *id, struct tree_identity identity,
    bool *ret_new, struct err *e) WARN_UNUSED;
/* Hold them; the manifest is empty. Called without identity. */
int workspace_open(const struct workspaces *all, const char *id, struct tree_identity identity,
    struct workspace **ret, struct err *e) WARN_UNUSED;
void workspace_free(struct workspace *ws);
/* Remove all folders of id. Missing is success. Called without identity. */
int workspace_destroy(const struct workspaces *all, const char *id, struct err *e) WARN_UNUSED;
/* Remove everything in staging but names that `keep` (may be NULL) says yes to. */
int workspace_clear_staging(
    struct workspace *ws, bool (*keep)(const char *name), struct err *e) WARN_UNUSED;
/* Does anything lie in the staging directory of a sandbox, which need not be open? */
bool workspace_has_staged(const struct workspaces *all, const char *id);
/* Was a displaced version kept there before that time of the wall clock? */
bool workspace_has_kept(const struct workspaces *all, const char *id, uint64_t before_ns);
/* Give the workspace's folder and the cache's the mode 0700 back: a program owns both and may have
 * locked everybody out, or let other users of the machine in. Called with the sandbox's identity.
 */
void workspace_unlock(struct workspace *ws);
/* Make home/, pyc/ and their like in the cache, which programs may have changed in any way. Called
 * without identity. */
int workspace_make_cache(struct workspace *ws, struct err *e) WARN_UNUSED;

/* Set ws->most and ws->quota; workspace_open does. Without identity. */
void workspace_limit(struct workspace *ws, const struct space *most);
/* Does it hold all that it may, by the kernel's count? Without quotas nobody counts: false. */
bool workspace_full(const struct workspace *ws);
/* Does it hold more than it may, and more than when it was last told so? The second, so that a
 * later run can tidy up. Walks it where nobody counts, so not for every run. Without identity. */
bool workspace_over(struct workspace *ws);
/* After the run that was told so has ended: what is there now may stay. Without identity. */
void workspace_measure(struct workspace *ws);

/* Free bytes of the file system that holds workspaces. */
int workspace_free_bytes(const struct workspace *ws, uint64_t *ret, struct err *e) WARN_UNUSED;

/* A copy of the manifest's row, its path and target left out. Takes ws->lock. */
bool workspace_known(struct workspace *ws, const char *path, struct manifest_entry *ret);
bool workspace_known_children(struct workspace *ws, const char *dir);

/* Count ws->files anew. -ENOMEM. ws->lock is held. */
int workspace_count_locked(struct workspace *ws) WARN_UNUSED;

/* tree_stat, tree_open_file, but directories and files that a program left without rights for their
 * owner get them back first. */
int workspace_stat(
    struct workspace *ws, const char *path, struct tree_stat *ret, struct err *e) WARN_UNUSED;
int workspace_open_file(struct workspace *ws, const char *path, int *ret_fd,
    struct tree_stat *ret_stat, struct err *e) WARN_UNUSED;

/* The hash of what is at path: a file's content or a symlink's target, and the stat that belongs to
 * it (a file that changes while it is read is read again, at most 3 times: -EAGAIN). Takes the
 * known row's hash where manifest_unchanged allows. ret_target (may be NULL): malloc'd, symlinks
 * only. */
int workspace_hash(struct workspace *ws, const char *path, struct hash *ret,
    struct tree_stat *ret_stat, char **ret_target, struct err *e) WARN_UNUSED;

/*
 * Fill the times of a row whose content is known for sure to be that at `st` (it was staged by us,
 * or verified), and let it be trusted at once. The usual rule distrusts a stamp that is younger
 * than a tick, because a second write within the tick would not change it. Here it would: the mtime
 * is one that we chose to the nanosecond, or one long past, and any later write replaces it.
 */
void workspace_settle(struct manifest_entry *row, const struct tree_stat *st);

#endif
