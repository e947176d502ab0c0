/* SPDX-License-Identifier: MIT */
/* Runs in a sandbox: counted in and out; what they changed is looked up and adopted. */
#include <errno.h>
#include <string.h>

#include "server/cache.h"
#include "server/sandbox_internal.h"
#include "server/sandbox_views.h"
#include "server/scan.h"
#include "shared/io.h"

#include "shared/banned.h"

#define LISTED_MAX 1000

void sandbox_mounts_release(struct sandbox_mounts *m)
{
    free(ptr_take(&m->workspace));
    free(ptr_take(&m->cache));
}

void sandbox_run_changes_release(struct sandbox_run_changes *c)
{
    for (size_t i = 0; i < c->count; i++)
        free(c->files[i].path);
    free(ptr_take(&c->files));
    c->count = 0;
}

/* The cache's folders are made once per life of the server; a program that removes them does
 * without. */
static int ensure_cache(struct sandbox *sb, struct err *e)
{
    int r = 0;

    (void)pthread_mutex_lock(&sb->turn);
    if (!sb->cache_made)
        r = workspace_make_cache(sb->ws, e);
    sb->cache_made = r == 0;
    (void)pthread_mutex_unlock(&sb->turn);
    return r;
}

static int fill_mounts(struct sandbox *sb, struct sandbox_mounts *ret, struct err *e)
{
    struct workspace *ws = sb->ws;

    *ret = (struct sandbox_mounts){.workspace = strdup(ws->path),
        .cache = strdup(ws->cache_path),
        .uid = sb->identity.uid,
        .gid = sb->identity.gid};
    if (!ret->workspace || !ret->cache) {
        sandbox_mounts_release(ret);
        return err_set(e, ENOMEM, "enter a sandbox");
    }
    tree_root_id(ws->tree, &ret->workspace_dev, &ret->workspace_ino);
    return 0;
}

/* As a user, who is counted out by sandbox_exit: a deletion waits for users as it does for runs. */
static int enter(struct sandbox *sb, struct sandbox_mounts *ret, struct err *e)
{
    *ret = (struct sandbox_mounts){.generation = 0};
    int r = sandbox_enter(sb, true, e);

    if (r < 0)
        return r;
    r = ensure_cache(sb, e);
    if (r == 0)
        r = fill_mounts(sb, ret, e);
    if (r < 0)
        sandbox_exit(sb);
    return r;
}

int sandbox_make_enter(struct sandbox *sb, struct sandbox_mounts *ret, struct err *e)
{
    return enter(sb, ret, e);
}

void sandbox_make_leave(struct sandbox *sb)
{
    sandbox_exit(sb);
}

int sandbox_run_enter(struct sandbox *sb, struct sandbox_mounts *ret, struct err *e)
{
    int r = enter(sb, ret, e);

    if (r < 0)
        return r;
    (void)pthread_mutex_lock(&sb->lock);
    if (sb->deleting) {
        sandbox_mounts_release(ret);
        r = sandbox_refuse_deleted(sb, e);
    } else {
        sb->runs++;
        sb->runs_begun++;
        sb->used_ns = io_wall_ns();
        ret->generation = sb->generation;
    }
    (void)pthread_mutex_unlock(&sb->lock);
    sandbox_exit(sb);
    return r;
}

void sandbox_run_abandon(struct sandbox *sb)
{
    (void)pthread_mutex_lock(&sb->lock);
    if (sb->runs > 0)
        sb->runs--;
    (void)pthread_cond_broadcast(&sb->moved);
    (void)pthread_mutex_unlock(&sb->lock);
}

static int look(struct sandbox *sb, struct scan *scan, struct err *e)
{
    const struct scan_budget budget = {.entries = sb->all->config.max_workspace_files,
        .hash_bytes = sb->all->config.max_workspace_bytes};
    struct tree_identity previous;
    int r = tree_identity_enter(sb->identity, &previous, e);

    if (r < 0)
        return r;
    r = scan_look(sb->ws, &budget, scan, e);
    tree_identity_leave(previous);
    return r;
}

/* What differs was written by the run that this thread looks after. */
static void name_writer(struct sandbox *sb, struct scan_result *found, char *run, size_t size)
{
    (void)pthread_mutex_lock(&sb->lock);
    (void)snprintf(run, size, "%s", sandbox_running_here(sb));
    (void)pthread_mutex_unlock(&sb->lock);
    for (size_t i = 0; i < found->edits.count; i++)
        found->edits.items[i].run = found->edits.items[i].run ? run : NULL;
}

/* Write the edits down and count the generation, with the turn held. */
static int adopt(struct sandbox *sb, struct scan_result *found, const char *by, struct err *e)
{
    struct workspace *ws = sb->ws;
    char run[SANDBOX_ID_BYTES + 8];

    if (found->edits.count == 0)
        return 0;
    name_writer(sb, found, run, sizeof run);
    int r = apply_note(ws, &found->edits);
    (void)pthread_mutex_lock(&ws->lock);
    struct store_commit c = {.num = sb->num,
        .edits = found->edits.items,
        .edit_count = found->edits.count,
        .generation = sb->generation + (found->changed ? 1 : 0),
        .files = ws->files,
        .bytes = manifest_bytes(ws->manifest),
        .used_ns = io_wall_ns()};
    (void)pthread_mutex_unlock(&ws->lock);
    r = r < 0 ? err_set(e, -r, "note what a run changed")
              : store_commit_edits(sb->all->config.store, &c, e);
    if (r < 0) {
        atomic_store(&sb->ready, false); /* the manifest is loaded anew */
        return r;
    }
    (void)pthread_mutex_lock(&sb->lock);
    sb->generation = c.generation;
    sb->files = c.files;
    sb->bytes = c.bytes;
    sb->used_ns = c.used_ns;
    if (found->changed)
        sandbox_tell_generation(sb, by, NULL, run);
    (void)pthread_mutex_unlock(&sb->lock);
    return 0;
}

static int confirm(
    struct sandbox *sb, struct scan *scan, struct scan_result *found, const char *by, struct err *e)
{
    struct tree_identity previous;
    int r = tree_identity_enter(sb->identity, &previous, e);

    if (r < 0)
        return r;
    r = scan_confirm(sb->ws, scan, LISTED_MAX, found, e);
    for (size_t i = 0; r == 0 && i < found->edits.count; i++) {
        const struct store_edit *d = &found->edits.items[i];
        if (d->kind == STORE_REMOVE)
            cache_forget(sb->ws, d->path, d->leaf ? TREE_FILE : TREE_DIR);
    }
    tree_identity_leave(previous);
    return r == 0 ? adopt(sb, found, by, e) : r;
}

int sandbox_scan_in_turn(struct sandbox *sb, struct err *e)
{
    struct scan scan = {.count = 0};
    struct scan_result found = {.count = 0};
    int r = look(sb, &scan, e);

    if (r == 0)
        r = confirm(sb, &scan, &found, "recovery", e);
    scan_result_release(&found);
    scan_release(&scan);
    return r;
}

int sandbox_scan(struct sandbox *sb, struct sandbox_run_changes *ret, struct err *e)
{
    struct scan scan = {.count = 0};
    struct scan_result found = {.count = 0};
    int r = look(sb, &scan, e);

    if (r == 0) {
        (void)pthread_mutex_lock(&sb->turn);
        r = confirm(sb, &scan, &found, "run", e);
        ret->generation = sb->generation;
        (void)pthread_mutex_unlock(&sb->turn);
    }
    if (r == 0) {
        ret->files = ptr_take(&found.files);
        ret->count = found.count;
        ret->total = found.total;
        ret->incomplete = scan.incomplete;
        found.count = 0;
    }
    scan_result_release(&found);
    scan_release(&scan);
    return r;
}

bool sandbox_over(struct sandbox *sb)
{
    /* A snapshot that is only kept for the next run must not end this one. */
    return workspace_over(sb->ws) && (sandbox_views_trim(sb) == 0 || workspace_over(sb->ws));
}

bool sandbox_space_hard(const struct sandbox *sb)
{
    return sb->ws->quota;
}

int sandbox_run_leave(struct sandbox *sb, struct sandbox_run_changes *ret, struct err *e)
{
    *ret = (struct sandbox_run_changes){.generation = 0};
    /* Counted in by sandbox_run_enter, so the folder is there even when it is being deleted. */
    int r = sandbox_scan(sb, ret, e);
    ret->full = workspace_full(sb->ws);
    workspace_measure(sb->ws);

    sandbox_run_abandon(sb);
    return r;
}
