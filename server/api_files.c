/* SPDX-License-Identifier: MIT */
#include "server/api_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "shared/path.h"
#include "shared/text.h"

#include "shared/banned.h"

/* ---- the manifest */

struct listing {
    json_t *items;
    uint64_t limit;
    char *last;
    bool more, failed;
};

static int visit_entry(const struct manifest_entry *entry, void *ctx)
{
    struct listing *l = ctx;
    char mode[8], time[TEXT_TIME_BYTES], hash[HASH_TEXT_BYTES];
    if (json_array_size(l->items) >= l->limit) {
        l->more = true;
        return 1;
    }
    (void)snprintf(mode, sizeof(mode), "%04o", entry->mode & 0777);
    json_t *item = json_pack("{s:s, s:I, s:s, s:s, s:o}", "kind", api_kind_name(entry->kind),
        "size", (json_int_t)entry->size, "mode", mode, "mtime",
        text_time(entry->mtime_ns > 0 ? (uint64_t)entry->mtime_ns : 0, time), "hash",
        entry->kind == TREE_DIR ? json_null() : json_string(hash_text(&entry->hash, hash)));
    bool ok = item && api_put_path(item, "path", entry->path) == 0;
    if (ok && entry->by_run)
        ok = json_object_set_new(item, "by", json_string("run")) == 0;
    if (ok && entry->target)
        ok = api_put_path(item, "target", entry->target) == 0;
    free(l->last);
    l->last = ok ? strdup(entry->path) : NULL;
    if (!l->last || json_array_append(l->items, item) < 0)
        l->failed = true;
    json_decref(item);
    return l->failed;
}

/* The cursor is the last path, in base64: names need not be UTF-8. */
static int read_cursor(struct call *call, struct buf *after, struct err *e)
{
    const char *cursor = http_query(call->req, "cursor");
    if (!cursor)
        return 0;
    if (text_decode_base64(cursor, strlen(cursor), after) < 0 ||
        path_check(buf_str(after), after->len) != PATH_FINE)
        return err_refuse(
            e, PROTO_INVALID_VALUE, "'cursor' must come from an earlier answer's next_cursor");
    return 1;
}

static json_t *next_cursor(const struct listing *l)
{
    CLEANUP(buf_release) struct buf coded;
    buf_init(&coded, 2 * PATH_BYTES_MAX);
    if (!l->more)
        return json_null();
    return text_add_base64(&coded, l->last, strlen(l->last)) == 0 ? json_string(buf_str(&coded))
                                                                  : NULL;
}

static int list_files(struct call *call, struct sandbox *sb, json_t **ret, struct err *e)
{
    struct listing l = {.limit = API_MANIFEST_MAX};
    CLEANUP(buf_release) struct buf after;
    const char *prefix = http_query(call->req, "path");
    struct sandbox_digests digests;
    uint64_t generation;
    char hash[HASH_TEXT_BYTES], synced[HASH_TEXT_BYTES];
    struct sandbox_info info;
    buf_init(&after, PATH_BYTES_MAX);
    prefix = prefix ? prefix : "";
    int r = api_check_path(prefix, strlen(prefix), true, e);
    if (r == 0)
        r = api_query_number(call, "limit", API_MANIFEST_MAX, &l.limit, e);
    int has_cursor = r == 0 ? read_cursor(call, &after, e) : 0;
    if (r < 0 || has_cursor < 0)
        return r < 0 ? r : has_cursor;
    l.items = json_array();
    if (!l.items)
        return err_set(e, ENOMEM, "list the files");
    r = sandbox_manifest(sb, prefix, has_cursor ? buf_str(&after) : NULL, l.limit + 1, visit_entry,
        &l, &generation, &digests, e);
    if (r == 0 && l.failed)
        r = err_set(e, ENOMEM, "list the files");
    if (r == 0)
        r = sandbox_info(sb, &info, e);
    if (r < 0) {
        json_decref(l.items);
    } else {
        *ret = json_pack("{s:I, s:s, s:s, s:s, s:o, s:o}", "generation", (json_int_t)generation,
            "epoch", info.epoch, "tree_hash", hash_text(&digests.all, hash), "synced_hash",
            hash_text(&digests.synced, synced), "items", l.items, "next_cursor", next_cursor(&l));
        sandbox_info_release(&info);
    }
    free(l.last);
    return r;
}

void api_file_list(struct call *call)
{
    struct sandbox *sb = NULL;
    struct err e = ERR_INIT;
    json_t *answer = NULL;
    int r = api_sandbox(call, &sb, &e);
    if (r == 0)
        r = list_files(call, sb, &answer, &e);
    if (sb)
        sandbox_unref(sb);
    if (r < 0)
        api_fail(call->req, &e, NULL);
    else
        api_reply(call, 200, answer);
}

/* ---- one file */

static int open_call(struct call *call, struct sandbox **ret, struct err *e)
{
    int r = api_check_path(call->match.param[1], call->match.len[1], false, e);
    return r < 0 ? r : api_sandbox(call, ret, e);
}

static void reply_file(struct call *call, int fd, const struct sandbox_file *file)
{
    char etag[HASH_TEXT_BYTES + 2], mode[8];
    api_etag(&file->hash, etag);
    (void)snprintf(mode, sizeof(mode), "%04o", file->mode & 0777);
    http_add_header(call->req, "ETag", etag);
    http_add_header(call->req, "Silt-Mode", mode);
    const char *known = http_header(call->req, "If-None-Match");
    if (api_header_has(known, etag) || api_header_has(known, "*")) {
        (void)close(fd);
        http_reply(call->req, 304, NULL, NULL, 0);
        return;
    }
    http_add_header(call->req, "Content-Disposition", "attachment");
    api_reply_file(call, fd, file->size, "application/octet-stream");
}

void api_file_get(struct call *call)
{
    struct sandbox *sb = NULL;
    struct sandbox_file file = {.target = NULL};
    struct err e = ERR_INIT;
    int fd = -1;
    int r = open_call(call, &sb, &e);
    if (r == 0)
        r = sandbox_file_open(sb, call->match.param[1], &fd, &file, &e);
    if (r == 0 && fd < 0)
        r = err_refuse(&e, PROTO_PATH_CONFLICT,
            "'%.200s' is a %s, not a file: ?path= of the list shows what it holds",
            call->match.param[1], api_kind_name(file.kind));
    if (r < 0)
        api_fail(call->req, &e,
            e.refusal == PROTO_FILE_NOT_FOUND ? api_near(sb, call->match.param[1]) : NULL);
    else
        reply_file(call, fd, &file);
    sandbox_file_release(&file);
    if (sb)
        sandbox_unref(sb);
}

/* A change set of one operation whose content is the request's body. */
struct one_op {
    struct call *call;
    struct change_op op;
    bool given;
};

static int next_one(void *ctx, struct change_op *ret, struct err *e)
{
    struct one_op *one = ctx;
    (void)e;
    if (one->given)
        return 0;
    one->given = true;
    *ret = one->op;
    return 1;
}

static ssize_t read_one(void *ctx, void *data, size_t len, struct err *e)
{
    struct one_op *one = ctx;
    ssize_t n = http_body_read(one->call->req, data, len);
    return n < 0 ? err_set(e, (int)-n, "read the body") : n;
}

/* If-Match and If-None-Match become what the change set says about its base, so that looking and
 * writing are one step. A hash that does not parse matches nothing. */
static int read_conditions(struct call *call, struct change_op *op, struct err *e)
{
    const char *match = http_header(call->req, "If-Match"),
               *none = http_header(call->req, "If-None-Match");
    char text[HASH_TEXT_BYTES + 2];
    if (none && strcmp(none, "*") == 0)
        op->base_kind = CHANGE_BASE_ABSENT;
    if (!match || strcmp(match, "*") == 0)
        return 0;
    size_t len = strlen(match);
    if (len < 2 || len - 2 >= sizeof(text) || match[0] != '"' || match[len - 1] != '"')
        return err_refuse(
            e, PROTO_PRECONDITION_FAILED, "If-Match must be one ETag as it was given out");
    (void)snprintf(text, sizeof(text), "%.*s", (int)(len - 2), match + 1);
    if (hash_parse(text, &op->base) < 0)
        return err_refuse(
            e, PROTO_PRECONDITION_FAILED, "If-Match must be one ETag as it was given out");
    op->base_kind = CHANGE_BASE_HASH;
    return 0;
}

static void apply_one(struct call *call, struct sandbox *sb, struct one_op *one,
    void (*reply)(
        struct call *call, const struct sandbox_apply_result *result, const struct change_op *op))
{
    const struct changes_begin begin = {.if_generation = CHANGES_NO_GENERATION};
    const struct changes_feed feed = {.next = next_one, .read = read_one, .ctx = one};
    struct sandbox_apply_result result = {.generation = 0};
    struct err e = ERR_INIT;
    int r = sandbox_apply(sb, &begin, &feed, &result, &e);
    if (r < 0 && e.refusal == PROTO_BASE_MISMATCH && one->op.base_kind != CHANGE_BASE_ANY) {
        char etag[HASH_TEXT_BYTES + 2];
        (void)err_refuse(&e, PROTO_PRECONDITION_FAILED,
            "'%.200s' is not as the request's condition says", one->op.path);
        if (result.conflict_count == 1 && result.conflicts[0].exists) {
            api_etag(&result.conflicts[0].hash, etag);
            http_add_header(call->req, "ETag", etag);
        }
    }
    if (r < 0)
        api_fail(call->req, &e, api_refusal_details(&result));
    else
        reply(call, &result, &one->op);
    if (r == 0)
        exec_expect(call->api->c.exec, sb);
    sandbox_apply_result_release(&result);
}

static void reply_put(
    struct call *call, const struct sandbox_apply_result *result, const struct change_op *op)
{
    struct sandbox *sb = NULL;
    struct sandbox_file file = {.target = NULL};
    struct err e = ERR_INIT;
    char etag[HASH_TEXT_BYTES + 2], hash[HASH_TEXT_BYTES];
    int r = api_sandbox(call, &sb, &e);
    if (r == 0)
        r = sandbox_file_open(sb, op->path, NULL, &file, &e);
    if (sb)
        sandbox_unref(sb);
    if (r < 0) {
        api_fail(call->req, &e, NULL);
        return;
    }
    api_etag(&file.hash, etag);
    http_add_header(call->req, "ETag", etag);
    json_t *answer = json_pack("{s:I, s:s, s:I, s:s}", "generation", (json_int_t)result->generation,
        "epoch", result->epoch, "size", (json_int_t)file.size, "hash", hash_text(&file.hash, hash));
    if (answer && api_put_path(answer, "path", op->path) < 0) {
        json_decref(answer);
        answer = NULL;
    }
    sandbox_file_release(&file);
    api_reply(call, result->created ? 201 : 200, answer);
}

static void reply_deleted(
    struct call *call, const struct sandbox_apply_result *result, const struct change_op *op)
{
    char generation[24];
    (void)op;
    (void)snprintf(generation, sizeof(generation), "%" PRIu64, result->generation);
    http_add_header(call->req, "Silt-Generation", generation);
    http_reply(call->req, 204, NULL, NULL, 0);
}

void api_file_put(struct call *call)
{
    struct sandbox *sb = NULL;
    struct err e = ERR_INIT;
    struct one_op one = {.call = call,
        .op = {
            .kind = CHANGE_PUT, .path = call->match.param[1], .content_len = CHANGE_LEN_UNKNOWN}};
    int r = open_call(call, &sb, &e);
    if (r == 0)
        r = read_conditions(call, &one.op, &e);
    if (r < 0)
        api_fail(call->req, &e, NULL);
    else
        apply_one(call, sb, &one, reply_put);
    if (sb)
        sandbox_unref(sb);
}

void api_file_delete(struct call *call)
{
    struct sandbox *sb = NULL;
    struct sandbox_file file = {.target = NULL};
    struct err e = ERR_INIT;
    struct one_op one = {.call = call, .op = {.kind = CHANGE_DELETE, .path = call->match.param[1]}};
    int r = open_call(call, &sb, &e);
    if (r == 0)
        r = read_conditions(call, &one.op, &e);
    if (r == 0)
        r = api_query_bool(call, "recursive", &one.op.recursive, &e);
    /* A change set deletes what is there or not; a person who names a file that is not there erred.
     */
    if (r == 0 && one.op.base_kind == CHANGE_BASE_ANY)
        r = sandbox_file_open(sb, one.op.path, NULL, &file, &e);
    sandbox_file_release(&file);
    if (r < 0)
        api_fail(
            call->req, &e, e.refusal == PROTO_FILE_NOT_FOUND ? api_near(sb, one.op.path) : NULL);
    else
        apply_one(call, sb, &one, reply_deleted);
    if (sb)
        sandbox_unref(sb);
}
