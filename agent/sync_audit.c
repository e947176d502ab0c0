/* SPDX-License-Identifier: MIT */
/*
 * Do both sides hold the same? The index is held against the server's digests, which costs one
 * short answer. Where they differ the manifest is listed and compared entry by entry: what a run
 * wrote is the run's business, anything else was lost and is planned to be sent again. What runs
 * explain is remembered by its digests, so that it is listed once and not at every audit.
 */
#include "agent/sync_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/remote.h"

#include "shared/banned.h"

#define AUDIT_PAGE 2000 /* reading one page is what a watcher is kept from its work for */
#define STEP_MS 1000

struct sync_audit {
    struct remote remote;
    struct sync_audit_result result;
    struct hash mine, synced;
    uint64_t generation;
    bool asking; /* a request is under way */
    bool listing;
    const struct manifest_entry **known; /* the index, in the server's order */
    size_t known_count, at;
    struct manifest *there;    /* what the server has of the paths that differ */
    struct sync_names *differ; /* paths to be set right */
};

void sync_audit_drop(struct sync_audit **audit)
{
    struct sync_audit *a = *audit;
    if (!a)
        return;
    remote_release(&a->remote);
    manifest_free(a->there);
    sync_names_free(&a->differ);
    free(a->known);
    free(a);
    *audit = NULL;
}

static int begin(struct sync *s, struct sync_audit **ret, struct err *e)
{
    struct sync_audit *a = calloc(1, sizeof(*a));
    if (!a)
        return err_set(e, ENOMEM, "compare with what the server has");
    remote_init(&a->remote, s->config.client, s->link.sandbox);
    *ret = a;
    a->there = manifest_new();
    if (!a->there || manifest_digest(index_manifest(s->index), &a->mine) < 0)
        return err_set(e, ENOMEM, "compare with what the server has");
    a->result.entries = manifest_count(index_manifest(s->index));
    return 0;
}

static bool page_hash(const struct sync_audit *a, const char *name, struct hash *ret)
{
    const char *text = json_string_value(json_object_get(a->remote.page, name));
    return text && hash_parse(text, ret) == 0;
}

/* Is the page of the workspace that we know, and all pages of one moment? */
static int check_page(struct sync *s, struct sync_audit *a, struct err *e)
{
    struct index_state now;
    int r = remote_state(&a->remote, &now, e);
    if (r < 0)
        return r;
    if (strcmp(now.epoch, index_state(s->index)->epoch) != 0) {
        /* The next scan asks for everything, as at first contact. */
        index_state(s->index)->epoch[0] = '\0';
        return err_say(e, ESTALE, "the server lost the workspace or restored it");
    }
    if (a->listing && now.generation != a->generation)
        return err_say(e, EAGAIN, "the workspace changed while it was compared");
    a->generation = now.generation;
    return 0;
}

/* 1 known to agree, 0 not, <0. */
static int hear_digests(struct sync *s, struct sync_audit *a, struct err *e)
{
    struct hash all;
    free(ptr_take(&a->remote.cursor)); /* a listing begins at the beginning */
    if (!page_hash(a, "synced_hash", &a->synced) || !page_hash(a, "tree_hash", &all))
        return err_say(e, EPROTO, "the server tells no tree hashes: is it of another version?");
    bool explained = hash_equal(&a->mine, &s->audited_mine) &&
                     hash_equal(&a->synced, &s->audited_there) && s->audited;
    a->result.by_runs = explained ? s->audited_by_runs : 0;
    return explained || hash_equal(&a->mine, &a->synced) || hash_equal(&a->mine, &all);
}

static bool is_same(const struct manifest_entry *a, const struct manifest_entry *b)
{
    if (a->kind != b->kind)
        return false;
    if (a->kind == TREE_SYMLINK)
        return hash_equal(&a->hash, &b->hash);
    return (a->mode & 0777) == (b->mode & 0777) &&
           (a->kind == TREE_DIR || (a->size == b->size && hash_equal(&a->hash, &b->hash)));
}

/* Known entries before `path` (NULL: all) are not there. */
static void take_missing(struct sync_audit *a, const char *path)
{
    for (; a->at < a->known_count; a->at++) {
        if (path && strcmp(a->known[a->at]->path, path) >= 0)
            return;
        (void)sync_names_add(&a->differ, a->known[a->at]->path);
    }
}

static int take_item(struct sync_audit *a, const json_t *item)
{
    struct manifest_entry entry;
    if (!remote_entry(&a->remote, item, &entry))
        return 0;
    take_missing(a, entry.path);
    if (a->at == a->known_count || strcmp(a->known[a->at]->path, entry.path) != 0)
        return 0; /* none of ours */
    const struct manifest_entry *known = a->known[a->at++];
    if (is_same(known, &entry))
        return 0;
    if (json_object_get(item, "by")) {
        a->result.by_runs++;
        return 0;
    }
    (void)sync_names_add(&a->differ, entry.path);
    return manifest_put(a->there, &entry);
}

/* 1 there are more pages, 0 not, <0. */
static int hear_page(struct sync_audit *a, struct err *e)
{
    size_t i;
    json_t *item;
    json_array_foreach(json_object_get(a->remote.page, "items"), i, item) {
        if (take_item(a, item) < 0)
            return err_set(e, ENOMEM, "compare with what the server has");
    }
    if (a->remote.cursor)
        return 1;
    take_missing(a, NULL);
    return 0;
}

static int begin_listing(struct sync *s, struct sync_audit *a, struct err *e)
{
    a->known = manifest_sorted(index_manifest(s->index), &a->known_count);
    if (!a->known)
        return err_set(e, ENOMEM, "compare with what the server has");
    a->listing = true;
    return 0;
}

/* Make the index say what the server has at those paths, and plan what they then need. */
static int set_right(struct sync *s, struct sync_audit *a, struct err *e)
{
    CLEANUP(buf_release) struct buf log;
    size_t count = 0;
    CLEANUP(freep) const char **paths = sync_names_list(a->differ, &count);
    int r = paths ? 0 : -ENOMEM;
    buf_init(&log, INDEX_LOG_MAX);
    free(ptr_take(&a->known)); /* its entries end here */
    for (size_t i = 0; r == 0 && i < count; i++) {
        const struct manifest_entry *there = manifest_get(a->there, paths[i]);
        r = there ? index_put(s->index, there, &log)
                  : index_remove(s->index, paths[i], false, &log);
        if (there && r == 0)
            r = index_contest(s->index, paths[i], &log);
    }
    if (r < 0)
        return err_set(e, -r, "note what the server has");
    r = index_commit(s->index, &log, e);
    int64_t planned = r < 0 ? r : sync_scan_paths(s, paths, count, e);
    a->result.repaired = count;
    return planned < 0 ? (int)planned : 0;
}

/* Every path that differs is known. */
static int end(struct sync *s, struct sync_audit *a, struct err *e)
{
    if (sync_names_count(a->differ))
        return set_right(s, a, e);
    s->audited = true;
    s->audited_mine = a->mine;
    s->audited_there = a->synced;
    s->audited_by_runs = a->result.by_runs;
    return 0;
}

/* An answer came. 1 more to ask, 0 done, <0. */
static int hear(struct sync *s, struct sync_audit *a, struct err *e)
{
    a->asking = false;
    int r = check_page(s, a, e);
    if (r < 0)
        return r;
    if (a->listing) {
        r = hear_page(a, e);
        return r == 0 ? end(s, a, e) : r;
    }
    r = hear_digests(s, a, e);
    if (r != 0)
        return r < 0 ? r : 0;
    r = begin_listing(s, a, e);
    return r < 0 ? r : 1;
}

/* SYNC_AUDIT_WAITS, 0 done, <0. */
static int step(struct sync *s, struct sync_audit **audit, struct err *e)
{
    int r = *audit ? 0 : begin(s, audit, e);
    if (r < 0)
        return r;
    struct sync_audit *a = *audit;
    if (a->asking) {
        r = remote_take(&a->remote, e);
        if (r == 0)
            r = hear(s, a, e);
        else if (r == 1)
            return SYNC_AUDIT_WAITS;
        if (r <= 0)
            return r;
    }
    a->asking = true;
    r = remote_ask(&a->remote, a->listing ? AUDIT_PAGE : 1, e);
    return r < 0 ? r : SYNC_AUDIT_WAITS;
}

int sync_audit_step(
    struct sync *s, struct sync_audit **audit, struct sync_audit_result *ret, struct err *e)
{
    int r = step(s, audit, e);
    if (r == 0)
        *ret = (*audit)->result;
    if (r != SYNC_AUDIT_WAITS)
        sync_audit_drop(audit);
    return r;
}

int sync_audit(struct sync *s, struct sync_audit_result *ret, struct err *e)
{
    struct sync_audit *audit = NULL;
    int r = SYNC_AUDIT_WAITS;
    for (int tries = 0; r == SYNC_AUDIT_WAITS || (r == -EAGAIN && tries < SYNC_ROUNDS);) {
        tries += r < 0;
        r = sync_audit_step(s, &audit, ret, e);
        if (r == SYNC_AUDIT_WAITS && client_step(s->config.client, NULL, 0, STEP_MS, e) < 0) {
            sync_audit_drop(&audit);
            return e ? -e->code : -EIO;
        }
    }
    return r;
}
