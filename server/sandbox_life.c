/* SPDX-License-Identifier: MIT */
/* Opening all sandboxes, the first use of one, its users, its end. */
#include <errno.h>
#include <string.h>

#include "server/apply.h"
#include "server/sandbox_internal.h"
#include "shared/io.h"
#include "shared/log.h"

#include "shared/banned.h"

/* ---- users */

static int load_manifest(struct sandbox *sb, struct err *e)
{
    CLEANUP(manifest_freep) struct manifest *m = manifest_new();

    if (!m)
        return err_set(e, ENOMEM, "load a manifest");
    int r = store_files_load(sb->all->config.store, sb->num, m, e);
    if (r < 0)
        return r;
    (void)pthread_mutex_lock(&sb->ws->lock);
    struct manifest *old = sb->ws->manifest;
    sb->ws->manifest = ptr_take(&m);
    sb->ws->edition++;
    m = old;
    r = workspace_count_locked(sb->ws);
    (void)pthread_mutex_unlock(&sb->ws->lock);
    return r < 0 ? err_set(e, ENOMEM, "load a manifest") : 0;
}

/* The folder was not there although the sandbox is known: it was lost, and so were its files. */
static int open_workspace(struct sandbox *sb, struct err *e)
{
    bool fresh = false;
    int r = workspace_make(sb->all->workspaces, sb->id, sb->identity, &fresh, e);

    if (r == 0)
        r = workspace_open(sb->all->workspaces, sb->id, sb->identity, &sb->ws, e);
    if (r == 0 && fresh && sb->generation > 0) {
        struct store_sandbox row;
        (void)pthread_mutex_lock(&sb->lock);
        sandbox_new_epoch(sb);
        sandbox_row(sb, &row);
        r = store_sandbox_save(sb->all->config.store, &row, e);
        sandbox_tell_generation(sb, "recovery", NULL, "");
        (void)pthread_mutex_unlock(&sb->lock);
        sb->scan_needed = true;
        log_warn("the workspace of %s was missing and is empty now", sb->id);
    }
    return r;
}

/* Under turn. Each part is done once; a failure leaves the rest for the next who needs it. */
static int make_ready(struct sandbox *sb, struct err *e)
{
    int r = sb->ws ? 0 : open_workspace(sb, e);

    if (r == 0)
        r = sandbox_uploads_load(sb, e);
    if (r == 0)
        r = load_manifest(sb, e);
    if (r == 0 && sb->scan_needed)
        r = sandbox_scan_in_turn(sb, e);
    if (r < 0)
        return err_wrap(e, "open the workspace of %s", sb->id);
    sb->scan_needed = false;
    atomic_store(&sb->ready, true);
    return 0;
}

int sandbox_enter(struct sandbox *sb, bool ready, struct err *e)
{
    (void)pthread_mutex_lock(&sb->lock);
    bool deleting = sb->deleting;
    if (!deleting)
        sb->users++;
    (void)pthread_mutex_unlock(&sb->lock);
    if (deleting)
        return sandbox_refuse_deleted(sb, e);
    if (!ready || atomic_load(&sb->ready))
        return 0;
    (void)pthread_mutex_lock(&sb->turn);
    int r = atomic_load(&sb->ready) ? 0 : make_ready(sb, e);
    (void)pthread_mutex_unlock(&sb->turn);
    if (r < 0)
        sandbox_exit(sb);
    return r;
}

void sandbox_exit(struct sandbox *sb)
{
    (void)pthread_mutex_lock(&sb->lock);
    sb->users--;
    if (sb->deleting)
        (void)pthread_cond_broadcast(&sb->moved);
    (void)pthread_mutex_unlock(&sb->lock);
}

void sandbox_kick(struct sandbox *sb)
{
    (void)pthread_mutex_lock(&sb->lock);
    (void)pthread_cond_broadcast(&sb->moved);
    (void)pthread_mutex_unlock(&sb->lock);
}

/* ---- the end */

int sandbox_delete_begin(struct sandbox *sb, struct err *e)
{
    struct store_sandbox row;
    int r = 0;

    /* Under turn, so that the row's generation is not written over by an older one. */
    (void)pthread_mutex_lock(&sb->turn);
    (void)pthread_mutex_lock(&sb->lock);
    if (!sb->deleting) {
        sb->deleting = true;
        sandbox_row(sb, &row);
        r = store_sandbox_save(sb->all->config.store, &row, e);
        if (r < 0)
            sb->deleting = false;
        (void)pthread_cond_broadcast(&sb->moved);
    }
    (void)pthread_mutex_unlock(&sb->lock);
    (void)pthread_mutex_unlock(&sb->turn);
    return r;
}

static void forget(struct sandboxes *all, struct sandbox *sb)
{
    (void)pthread_mutex_lock(&all->lock);
    HASH_DEL(all->table, sb);
    memcpy(all->deleted[all->deleted_count++ % SANDBOX_DELETED_MAX], sb->id, SANDBOX_ID_BYTES);
    (void)pthread_mutex_unlock(&all->lock);
    sandbox_unref(sb);
}

/* The row goes last: until then the uid is not given to anybody else. */
static int remove_everything(struct sandbox *sb, struct err *e)
{
    int r = workspace_destroy(sb->all->workspaces, sb->id, e);

    return r == 0 ? store_sandbox_delete(sb->all->config.store, sb->num, e) : r;
}

int sandbox_delete(struct sandbox *sb, struct err *e)
{
    int r = sandbox_delete_begin(sb, e);

    if (r < 0)
        return r;
    (void)pthread_mutex_lock(&sb->lock);
    while (!sb->gone && (sb->runs > 0 || sb->users > 0 || sb->removing))
        (void)pthread_cond_wait(&sb->moved, &sb->lock);
    bool mine = !sb->gone;
    sb->removing = mine;
    (void)pthread_mutex_unlock(&sb->lock);
    if (!mine)
        return 0;
    r = remove_everything(sb, e);
    (void)pthread_mutex_lock(&sb->lock);
    sb->removing = false;
    sb->gone = r == 0;
    if (sb->gone)
        sandbox_tell_deleted(sb);
    (void)pthread_cond_broadcast(&sb->moved);
    (void)pthread_mutex_unlock(&sb->lock);
    if (r == 0)
        forget(sb->all, sb);
    return r;
}

/* ---- opening and closing all */

struct loading {
    struct sandboxes *all;
    struct err *e;
    int r;
};

static int load_one(const struct store_sandbox *row, void *ctx)
{
    struct loading *in = ctx;
    struct sandbox *sb = sandbox_from_row(in->all, row, in->e);

    if (sb)
        HASH_ADD_STR(in->all->table, id, sb);
    if (sb && sb->hh.tbl)
        return 0;
    if (sb)
        sandbox_free(sb);
    in->r = err_set(in->e, ENOMEM, "load the sandboxes");
    return 1;
}

/* Finish a change set that was under way, then what still lies in staging is waste, but for uploads. */
static int recover_files(struct sandbox *sb, const struct buf *steps, struct err *e)
{
    struct tree_identity previous;
    int r = open_workspace(sb, e);

    /* An overlay leaves folders there that belong to who mounted it. */
    if (r == 0)
        r = tree_remove_at(sb->ws->stage_fd, WORKSPACE_VIEWS, e);
    if (r == 0)
        r = tree_identity_enter(sb->identity, &previous, e);
    if (r < 0)
        return r;
    if (steps->len)
        r = apply_roll_forward(sb->ws, steps->data, steps->len, e);
    if (r == 0)
        r = workspace_clear_staging(sb->ws, sandbox_upload_is_file, e);
    tree_identity_leave(previous);
    return r;
}

static int recover(struct sandbox *sb, struct err *e)
{
    struct store *store = sb->all->config.store;
    CLEANUP(buf_release) struct buf steps;
    struct store_sandbox row;

    buf_init(&steps, APPLY_BLOB_MAX);
    int r = store_intent_get(store, sb->num, &steps, e);
    bool intent = r == 0;
    if (r < 0 && r != -ENOENT)
        return r;
    r = recover_files(sb, &steps, e);
    /* Held again at the first use: a server may have more sandboxes than descriptors. */
    workspace_free(ptr_take(&sb->ws));
    if (r == 0 && intent)
        r = store_intent_finish(store, sb->num, e);
    if (r < 0)
        return r;
    sandbox_new_epoch(sb);
    sandbox_row(sb, &row);
    sb->scan_needed = true;
    return store_sandbox_save(store, &row, e);
}

static int open_each(struct sandboxes *all, struct err *e)
{
    struct sandbox *sb, *next;
    bool clean = store_was_clean(all->config.store);

    HASH_ITER(hh, all->table, sb, next) {
        int r = 0;
        if (sb->deleting) {
            (void)sandbox_ref(sb);
            r = sandbox_delete(sb, e);
            sandbox_unref(sb);
        } else {
            r = clean ? 0 : recover(sb, e);
            if (r == 0)
                r = sandbox_clients_load(sb, e);
        }
        if (r < 0)
            return err_wrap(e, "open a sandbox");
    }
    return 0;
}

int sandboxes_open(const struct sandboxes_config *config, struct sandboxes **ret, struct err *e)
{
    struct sandboxes *all = calloc(1, sizeof *all);
    struct loading in = {.all = all, .e = e};

    if (!all)
        return err_set(e, ENOMEM, "open the sandboxes");
    all->config = *config;
    (void)pthread_mutex_init(&all->lock, NULL);
    all->deleted = calloc(SANDBOX_DELETED_MAX, sizeof *all->deleted);
    int r = all->deleted ? 0 : err_set(e, ENOMEM, "open the sandboxes");
    if (r == 0)
        r = workspaces_open(config->data_dir, config->workspace_root, &all->workspaces, e);
    const struct space most = {
        .bytes = config->max_workspace_bytes, .files = config->max_workspace_files};
    if (r == 0)
        workspaces_limit(all->workspaces, &most);
    if (r == 0)
        r = store_sandbox_each(config->store, load_one, &in, e);
    if (r == 0)
        r = in.r;
    if (r == 0)
        r = open_each(all, e);
    if (r < 0) {
        sandboxes_close(all);
        return r;
    }
    all->config.data_dir = all->config.workspace_root = NULL; /* borrowed; not needed any more */
    *ret = all;
    return 0;
}

void sandboxes_close(struct sandboxes *all)
{
    struct sandbox *sb, *next;

    if (!all)
        return;
    HASH_ITER(hh, all->table, sb, next) {
        HASH_DEL(all->table, sb);
        sandbox_unref(sb);
    }
    workspaces_free(all->workspaces);
    free(all->deleted);
    (void)pthread_mutex_destroy(&all->lock);
    free(all);
}
