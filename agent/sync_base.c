/* SPDX-License-Identifier: MIT */
/*
 * What the server has, as far as it concerns this project. Files that only the server knows (runs
 * made them) are none of ours: they never enter the index, so they are never deleted.
 */
#include "agent/remote.h"
#include "agent/sync_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared/io.h"
#include "shared/path.h"
#include "shared/text.h"

#include "shared/banned.h"

#define LEASE_TIMEOUT_MS 60000

/* ---- everything */

struct rebase {
    struct sync *s;
    struct manifest *now; /* what the server has of ours */
    struct sync_names *contested;
    struct remote remote;
};

static void rebase_release(struct rebase *b)
{
    manifest_free(b->now);
    sync_names_free(&b->contested);
    remote_release(&b->remote);
}

/* Ours: it was in the index, or it lies here and is not ignored. */
static bool is_ours(const struct sync *s, const struct manifest_entry *entry)
{
    struct tree_stat st;
    if (manifest_get(index_manifest(s->index), entry->path) ||
        index_in_doubt(s->index, entry->path))
        return true;
    return tree_stat(s->tree, entry->path, &st, NULL) == 0 &&
           !ignore_find(s->rules, entry->path, st.kind == TREE_DIR, NULL);
}

static int take_item(struct rebase *b, const json_t *item)
{
    struct manifest_entry entry;
    if (!remote_entry(&b->remote, item, &entry))
        return 0;
    const char *path = entry.path;
    if (!is_ours(b->s, &entry))
        return 0;
    /* Unchanged there since: what is known of the file here stays true, and it is not read again.
     */
    const struct manifest_entry *old = manifest_get(index_manifest(b->s->index), path);
    bool same = old && old->kind == entry.kind && old->size == entry.size &&
                hash_equal(&old->hash, &entry.hash);
    if (same) {
        entry.mtime_ns = old->mtime_ns;
        entry.ctime_ns = old->ctime_ns;
        entry.ino = old->ino;
        entry.seen_ns = old->seen_ns;
        entry.target = old->target;
        /* Without these the next scan would not look at a mode that only the server has changed. */
        if (entry.mode != old->mode)
            entry.seen_ns = 0;
        if (index_contested(b->s->index, path)) /* as the last one learned who asked */
            (void)sync_names_add(&b->contested, path);
    } else if (entry.kind != TREE_DIR && !index_was_sent(b->s->index, &entry)) {
        /* Somebody else's: if the file here differs it wins, and that is kept. */
        (void)sync_names_add(&b->contested, path);
    }
    return manifest_put(b->now, &entry);
}

static int take_page(struct rebase *b, struct err *e)
{
    const json_t *items = json_object_get(b->remote.page, "items");
    size_t i;
    json_t *item;
    json_array_foreach(items, i, item) {
        int r = take_item(b, item);
        if (r < 0)
            return err_set(e, -r, "compare with what the server has");
    }
    return 0;
}

/* The rules decide what is ours; a scan that did not run yet has not loaded them. */
static int load_rules(struct sync *s, struct err *e)
{
    struct scan found;
    struct scan_config config = {
        .tree = s->tree, .rules = s->rules, .known = index_manifest(s->index)};
    int r = scan_all(&config, &found, e);
    scan_release(&found);
    return r;
}

/* Make the index say what `now` says, and what of it is contested. */
static int replace_index(struct rebase *b, struct err *e)
{
    struct sync *s = b->s;
    const struct manifest *now = b->now;
    CLEANUP(buf_release) struct buf unused;
    size_t count = 0, i;
    int r = 0;
    buf_init(&unused, INDEX_LOG_MAX);
    CLEANUP(freep)
    const struct manifest_entry **old = manifest_sorted(index_manifest(s->index), &count);
    for (i = 0; old && r == 0 && i < count; i++) {
        if (!manifest_get(now, old[i]->path))
            r = index_remove(s->index, old[i]->path, false, &unused);
        buf_reset(&unused);
    }
    CLEANUP(freep) const struct manifest_entry **all = manifest_sorted(now, &count);
    for (i = 0; all && r == 0 && i < count; i++) {
        r = index_put(s->index, all[i], &unused);
        buf_reset(&unused);
    }
    CLEANUP(freep) const char **contested = sync_names_list(b->contested, &count);
    for (i = 0; contested && r == 0 && i < count; i++) {
        r = index_contest(s->index, contested[i], &unused);
        buf_reset(&unused);
    }
    if (r < 0 || !old || !all || !contested)
        return err_set(e, ENOMEM, "compare with what the server has");
    s->unscanned = true;
    /* As a whole: the log of every entry would be as long as the file. */
    return index_rewrite(s->index, e);
}

/* Does the index say exactly what the server has? Then one short answer is enough. 1, 0, <0. */
static int is_same_tree(struct rebase *b, struct err *e)
{
    const struct manifest *known = index_manifest(b->s->index);
    struct hash digest;
    char text[HASH_TEXT_BYTES];
    if (manifest_count(known) == 0 || manifest_digest(known, &digest) < 0)
        return 0;
    int r = remote_page(&b->remote, 1, e);
    if (r < 0)
        return r;
    free(ptr_take(&b->remote.cursor)); /* if it is another tree, all of it is asked for */
    const char *there = json_string_value(json_object_get(b->remote.page, "tree_hash"));
    if (!there || strcmp(there, hash_text(&digest, text)) != 0)
        return 0;
    r = remote_state(&b->remote, index_state(b->s->index), e);
    return r < 0 ? r : 1;
}

int sync_rebase(struct sync *s, struct err *e)
{
    CLEANUP(rebase_release) struct rebase b = {.s = s, .now = manifest_new()};
    remote_init(&b.remote, s->config.client, s->link.sandbox);
    if (!b.now)
        return err_set(e, ENOMEM, "compare with what the server has");
    bool has_rules = false;
    int r = is_same_tree(&b, e);
    if (r < 0)
        return r;
    if (r == 1)
        return index_rewrite(s->index, e);
    do {
        r = remote_page(&b.remote, REMOTE_PAGE, e);
        if (r == 0 && !has_rules && json_array_size(json_object_get(b.remote.page, "items"))) {
            has_rules = true;
            r = load_rules(s, e);
        }
        if (r == 0)
            r = take_page(&b, e);
    } while (r == 0 && b.remote.cursor);
    if (r < 0)
        return r;
    r = remote_state(&b.remote, index_state(s->index), e);
    return r < 0 ? r : replace_index(&b, e);
}

bool sync_note_epoch(struct sync *s, const char *epoch)
{
    struct index_state *state = index_state(s->index);
    if (sync_busy(s) || strcmp(epoch, state->epoch) == 0)
        return false;
    state->epoch[0] = '\0';
    return true;
}

/* ---- parts */

/* Does a file of ours that was changed there keep this folder from being deleted? */
static bool has_ours_beneath(struct sync *s, const json_t *conflicts, const char *folder)
{
    CLEANUP(remote_release) struct remote remote;
    size_t i;
    json_t *conflict;
    remote_init(&remote, NULL, NULL);
    json_array_foreach(conflicts, i, conflict) {
        const char *path = remote_path(&remote, conflict);
        const struct manifest_entry *known =
            path ? manifest_get(index_manifest(s->index), path) : NULL;
        if (known && known->kind != TREE_DIR && path_beneath(folder, path))
            return true;
    }
    return false;
}

/* What is ours lies in folders that are, though the set that would have made them was refused: else
 * nobody would delete them. Of any mode, so that the next scan sets it. */
static int put_folders(struct sync *s, const char *path, struct buf *log)
{
    char folder[PATH_BYTES_MAX + 1];
    int r = 0;
    for (const char *p = strchr(path, '/'); r == 0 && p; p = strchr(p + 1, '/')) {
        size_t len = (size_t)(p - path);
        memcpy(folder, path, len);
        folder[len] = '\0';
        struct manifest_entry entry = {.path = folder, .kind = TREE_DIR};
        if (!manifest_get(index_manifest(s->index), folder))
            r = index_put(s->index, &entry, log);
    }
    return r;
}

static int repair_one(
    struct sync *s, const json_t *conflicts, const json_t *conflict, struct buf *log)
{
    CLEANUP(remote_release) struct remote remote;
    struct manifest_entry entry;
    struct tree_stat st;
    remote_init(&remote, NULL, NULL);
    const char *path = remote_path(&remote, conflict);
    if (!path)
        return 0;
    const struct manifest_entry *old = manifest_get(index_manifest(s->index), path);
    bool there =
        json_is_true(json_object_get(conflict, "exists")) && remote_entry(&remote, conflict, &entry);
    if (there && entry.kind == TREE_DIR && tree_stat(s->tree, path, &st, NULL) < 0) {
        /* Deleted here, but not empty there: because of what is deleted here too, and was changed
         * there, or because runs put something of theirs into it, which is left alone. */
        if (has_ours_beneath(s, conflicts, path))
            return 0;
        return index_remove(s->index, path, false, log);
    }
    /* What lay beneath a folder that is none there any more is not there either. */
    if (old && (!there || entry.kind != TREE_DIR)) {
        int r = index_remove(s->index, path, true, log);
        if (r < 0)
            return r;
    }
    int r = there ? put_folders(s, path, log) : 0;
    if (there && r == 0)
        r = index_put(s->index, &entry, log);
    return r < 0 ? r : index_contest(s->index, path, log);
}

int sync_repair(struct sync *s, struct err *e)
{
    CLEANUP(buf_release) struct buf log;
    json_t *conflicts = ptr_take(&s->conflicts), *conflict;
    size_t i;
    int r = 0;
    buf_init(&log, INDEX_LOG_MAX);
    json_array_foreach(conflicts, i, conflict) {
        if (r == 0)
            r = repair_one(s, conflicts, conflict, &log);
    }
    json_decref(conflicts);
    return r < 0 ? err_set(e, -r, "learn what the server has") : index_commit(s->index, &log, e);
}

/* ---- the writer lease */

int sync_steal(struct sync *s, struct err *e)
{
    if (!s->config.steal || s->stolen)
        return 0;
    CLEANUP(freep) char *path = NULL;
    json_t *body = json_pack(
        "{s:{s:s,s:s,s:b}}", "writer", "link", s->link.id, "machine", s->link.machine, "steal", 1);
    CLEANUP(freep) char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    json_decref(body);
    if (!text || asprintf(&path, "/v1/sandboxes/%s", s->link.sandbox) < 0) {
        path = NULL;
        return err_set(e, ENOMEM, "take the sandbox over");
    }
    struct client_response response;
    struct client_request request = {
        .method = "PATCH",
        .path = path,
        .content_type = "application/json",
        .body = text,
        .body_len = strlen(text),
        .timeout_ms = LEASE_TIMEOUT_MS,
    };
    int r = client_call(s->config.client, &request, &response, e);
    client_response_release(&response);
    s->stolen = r == 0;
    /* Another folder filled the sandbox until now: everything is compared. */
    if (s->stolen)
        index_state(s->index)->epoch[0] = '\0';
    return r;
}
