/* SPDX-License-Identifier: MIT */
/*
 * What the server has, as far as it concerns this project. Files that only the server knows (runs
 * made them) are none of ours: they never enter the index, so they are never deleted.
 */
#include "agent/sync_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared/io.h"
#include "shared/path.h"
#include "shared/text.h"

#include "shared/banned.h"

#define PAGE 10000
#define PAGE_TIMEOUT_MS 60000
#define TARGET_UNKNOWN "?" /* of a symlink of which the server told the hash only */

/* ---- an entry in JSON → an entry of the index */

static bool kind_of(const json_t *item, enum tree_kind *ret)
{
    static const struct {
        const char *name;
        enum tree_kind kind;
    } names[] = {
        {"file", TREE_FILE}, {"dir", TREE_DIR}, {"symlink", TREE_SYMLINK}};
    const char *name = json_string_value(json_object_get(item, "kind"));
    if (!name)
        name = json_string_value(json_object_get(item, "type"));
    for (size_t i = 0; name && i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(names[i].name, name) == 0) {
            *ret = names[i].kind;
            return true;
        }
    }
    return false;
}

/* Permission bits, as a number or as octal text. */
static uint32_t mode_of(const json_t *mode)
{
    if (json_is_string(mode))
        return (uint32_t)strtoul(json_string_value(mode), NULL, 8) & 0777;
    return (uint32_t)json_integer_value(mode) & 0777;
}

/* The path as it is: "path", or "path_base64" for one that is not UTF-8. Into b; NULL if it is not
 * a path that could be ours. */
static const char *path_of(const json_t *item, struct buf *b)
{
    const char *text = json_string_value(json_object_get(item, "path_base64"));
    int r = -EINVAL;
    buf_reset(b);
    if (text)
        r = text_decode_base64(text, strlen(text), b);
    else if ((text = json_string_value(json_object_get(item, "path"))) != NULL)
        r = buf_adds(b, text);
    return r == 0 && path_check(buf_str(b), b->len) == PATH_FINE ? buf_str(b) : NULL;
}

/* False: it is damaged, or of a kind that we do not know. Times stay zero: never taken as unchanged
 * without a look at the content. */
static bool entry_of(const json_t *item, const char *path, struct manifest_entry *ret)
{
    const char *hash = json_string_value(json_object_get(item, "hash"));
    *ret = (struct manifest_entry){.path = (char *)path};
    if (!kind_of(item, &ret->kind))
        return false;
    ret->mode = mode_of(json_object_get(item, "mode"));
    ret->target = ret->kind == TREE_SYMLINK ? TARGET_UNKNOWN : NULL;
    if (ret->kind == TREE_DIR)
        return true;
    json_int_t size = json_integer_value(json_object_get(item, "size"));
    ret->size = size > 0 ? (uint64_t)size : 0;
    return hash && hash_parse(hash, &ret->hash) == 0;
}

/* ---- everything */

struct rebase {
    struct sync *s;
    struct manifest *now; /* what the server has of ours */
    json_t *page;
    char *cursor;
};

static void rebase_release(struct rebase *b)
{
    manifest_free(b->now);
    json_decref(b->page);
    free(b->cursor);
}

static int get_page(struct rebase *b, unsigned limit, struct err *e)
{
    struct sync *s = b->s;
    CLEANUP(freep) char *path = NULL;
    struct client_response response;
    if (asprintf(&path, "/v1/sandboxes/%s/files?limit=%u%s%s", s->link.sandbox, limit,
            b->cursor ? "&cursor=" : "", b->cursor ? b->cursor : "") < 0) {
        path = NULL;
        return err_set(e, ENOMEM, "ask the server what it has");
    }
    struct client_request request = {.method = "GET", .path = path, .timeout_ms = PAGE_TIMEOUT_MS};
    int r = client_call(s->config.client, &request, &response, e);
    json_decref(b->page);
    b->page = r < 0 ? NULL : client_json(&response, e);
    client_response_release(&response);
    if (r == 0 && !b->page)
        r = -EPROTO;
    return r;
}

/* The next page's cursor, ready for a URL; none after the last page. */
static int take_cursor(struct rebase *b, struct err *e)
{
    const char *next = json_string_value(json_object_get(b->page, "next_cursor"));
    CLEANUP(buf_release) struct buf coded;
    buf_init(&coded, 4 * (size_t)PATH_BYTES_MAX);
    free(ptr_take(&b->cursor));
    if (!next)
        return 0;
    if (text_add_percent(&coded, next) < 0 || !(b->cursor = buf_steal(&coded)))
        return err_set(e, ENOMEM, "ask the server what it has");
    return 0;
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
    CLEANUP(buf_release) struct buf text;
    struct manifest_entry entry;
    buf_init(&text, PATH_BYTES_MAX);
    const char *path = path_of(item, &text);
    if (!path || !entry_of(item, path, &entry))
        return 0;
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
    }
    return manifest_put(b->now, &entry);
}

static int take_page(struct rebase *b, struct err *e)
{
    const json_t *items = json_object_get(b->page, "items");
    size_t i;
    json_t *item;
    json_array_foreach(items, i, item) {
        int r = take_item(b, item);
        if (r < 0)
            return err_set(e, -r, "compare with what the server has");
    }
    return take_cursor(b, e);
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

/* Make the index say what `now` says. */
static int replace_index(struct sync *s, const struct manifest *now, struct err *e)
{
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
    if (r < 0 || !old || !all)
        return err_set(e, ENOMEM, "compare with what the server has");
    /* As a whole: the log of every entry would be as long as the file. */
    index_end_doubts(s->index);
    return index_rewrite(s->index, e);
}

static int take_state(struct rebase *b, struct err *e)
{
    struct index_state *state = index_state(b->s->index);
    const char *epoch = json_string_value(json_object_get(b->page, "epoch"));
    json_int_t generation = json_integer_value(json_object_get(b->page, "generation"));
    if (!epoch || !*epoch || strlen(epoch) >= sizeof(state->epoch))
        return err_say(
            e, EPROTO, "the server's manifest names no epoch: is it of another version?");
    memcpy(state->epoch, epoch, strlen(epoch) + 1);
    state->generation = generation > 0 ? (uint64_t)generation : 0;
    return 0;
}

/* Does the index say exactly what the server has? Then one short answer is enough. 1, 0, <0. */
static int is_same_tree(struct rebase *b, struct err *e)
{
    const struct manifest *known = index_manifest(b->s->index);
    struct hash digest;
    char text[HASH_TEXT_BYTES];
    if (manifest_count(known) == 0 || manifest_digest(known, &digest) < 0)
        return 0;
    int r = get_page(b, 1, e);
    if (r < 0)
        return r;
    const char *there = json_string_value(json_object_get(b->page, "tree_hash"));
    if (!there || strcmp(there, hash_text(&digest, text)) != 0)
        return 0;
    r = take_state(b, e);
    return r < 0 ? r : 1;
}

int sync_rebase(struct sync *s, struct err *e)
{
    CLEANUP(rebase_release) struct rebase b = {.s = s, .now = manifest_new()};
    if (!b.now)
        return err_set(e, ENOMEM, "compare with what the server has");
    bool has_rules = false;
    int r = is_same_tree(&b, e);
    if (r < 0)
        return r;
    if (r == 1) {
        index_end_doubts(s->index);
        return index_rewrite(s->index, e);
    }
    do {
        r = get_page(&b, PAGE, e);
        if (r == 0 && !has_rules && json_array_size(json_object_get(b.page, "items"))) {
            has_rules = true;
            r = load_rules(s, e);
        }
        if (r == 0)
            r = take_page(&b, e);
    } while (r == 0 && b.cursor);
    if (r < 0)
        return r;
    r = take_state(&b, e);
    return r < 0 ? r : replace_index(s, b.now, e);
}

/* ---- parts */

static int repair_one(struct sync *s, const json_t *conflict, struct buf *log)
{
    CLEANUP(buf_release) struct buf text;
    struct manifest_entry entry;
    struct tree_stat st;
    buf_init(&text, PATH_BYTES_MAX);
    const char *path = path_of(conflict, &text);
    if (!path)
        return 0;
    const struct manifest_entry *old = manifest_get(index_manifest(s->index), path);
    bool there =
        json_is_true(json_object_get(conflict, "exists")) && entry_of(conflict, path, &entry);
    if (there && entry.kind == TREE_DIR && tree_stat(s->tree, path, &st, NULL) < 0)
        /* Deleted here, but runs put something into it there: left alone. */
        return index_remove(s->index, path, false, log);
    (void)sync_names_add(&s->contested, path);
    /* What lay beneath a folder that is none there any more is not there either. */
    if (old && (!there || entry.kind != TREE_DIR)) {
        int r = index_remove(s->index, path, true, log);
        if (r < 0)
            return r;
    }
    return there ? index_put(s->index, &entry, log) : 0;
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
            r = repair_one(s, conflict, &log);
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
        .timeout_ms = PAGE_TIMEOUT_MS,
    };
    int r = client_call(s->config.client, &request, &response, e);
    client_response_release(&response);
    s->stolen = r == 0;
    return r;
}
