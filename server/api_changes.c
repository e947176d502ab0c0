/* SPDX-License-Identifier: MIT */
#include "server/api_internal.h"

#include <errno.h>
#include <string.h>

#include "shared/proto.h"

#include "server/feed_json.h"

#include "shared/banned.h"

#define CONFLICTS_MAX 1000 /* told in one answer */

/* What the server has at one path that is not as the sender believed. */
static json_t *conflict(const struct sandbox_conflict *c)
{
    char hash[HASH_TEXT_BYTES];
    json_t *item = json_pack("{s:b}", "exists", c->exists);
    bool ok = item && api_put_path(item, "path", c->path) == 0;
    if (ok && c->exists)
        ok = json_object_set_new(item, "kind", json_string(api_kind_name(c->kind))) == 0;
    if (ok && c->exists && (c->kind == TREE_FILE || c->kind == TREE_SYMLINK))
        ok = json_object_set_new(item, "size", json_integer((json_int_t)c->size)) == 0 &&
             json_object_set_new(item, "hash", json_string(hash_text(&c->hash, hash))) == 0;
    if (ok)
        return item;
    json_decref(item);
    return NULL;
}

json_t *api_refusal_details(const struct sandbox_apply_result *result)
{
    if (!result->epoch[0])
        return NULL;
    json_t *details = json_pack(
        "{s:I, s:s}", "generation", (json_int_t)result->generation, "epoch", result->epoch);
    json_t *list = result->conflict_count ? json_array() : NULL;
    for (size_t i = 0; list && i < result->conflict_count && i < CONFLICTS_MAX; i++)
        err_ignore(json_array_append_new(list, conflict(&result->conflicts[i])));
    if (details && list)
        err_ignore(json_object_set(details, "conflicts", list));
    json_decref(list);
    return details;
}

void api_apply(struct call *call, struct sandbox *sb, const struct changes_begin *begin,
    const struct changes_feed *feed,
    void (*reply)(struct call *call, const struct sandbox_apply_result *result, void *ctx),
    void *ctx)
{
    struct sandbox_apply_result result = {.generation = 0};
    struct err e = ERR_INIT;
    int r = sandbox_apply(sb, begin, feed, &result, &e);
    if (r < 0)
        api_fail(call->req, &e, api_refusal_details(&result));
    else
        reply(call, &result, ctx);
    if (r == 0)
        exec_expect(call->api->c.exec, sb);
    sandbox_apply_result_release(&result);
}

static void reply_applied(struct call *call, const struct sandbox_apply_result *result, void *ctx)
{
    const struct changes_begin *begin = ctx;
    bool named = begin->client[0] != '\0';
    api_reply(call, 200,
        json_pack("{s:I, s:s, s:o, s:o, s:i, s:i, s:i, s:i, s:b}", "generation",
            (json_int_t)result->generation, "epoch", result->epoch, "client",
            named ? json_string(begin->client) : json_null(), "seq",
            named ? json_integer((json_int_t)begin->seq) : json_null(), "created",
            (int)result->created, "updated", (int)result->updated, "moved", (int)result->moved,
            "deleted", (int)result->deleted, "repeated", result->repeated));
}

static ssize_t body_source(void *ctx, void *data, size_t len)
{
    return http_body_read(ctx, data, len);
}

static void apply_framed(struct call *call, struct sandbox *sb)
{
    struct changes_reader *reader = changes_reader_new(body_source, call->req);
    struct changes_begin begin;
    struct err e = ERR_INIT;
    int r =
        reader ? changes_read_begin(reader, &begin, &e) : err_set(&e, ENOMEM, "read a change set");
    if (r < 0) {
        api_fail(call->req, &e, NULL);
    } else {
        const struct changes_feed feed = changes_reader_feed(reader);
        api_apply(call, sb, &begin, &feed, reply_applied, &begin);
    }
    changes_reader_free(reader);
}

static void apply_json(struct call *call, struct sandbox *sb)
{
    struct feed_json *ops = NULL;
    struct changes_begin begin;
    struct err e = ERR_INIT;
    json_t *body = NULL;
    int r = api_read_json(call, &body, &e);
    if (r == 0)
        r = feed_json_new(body, &ops, &begin, &e);
    if (r < 0) {
        api_fail(call->req, &e, NULL);
    } else {
        const struct changes_feed feed = feed_json_feed(ops);
        api_apply(call, sb, &begin, &feed, reply_applied, &begin);
    }
    feed_json_free(ops);
    json_decref(body);
}

void api_changes_post(struct call *call)
{
    struct sandbox *sb = NULL;
    struct err e = ERR_INIT;
    const char *type = http_header(call->req, "Content-Type");
    if (api_sandbox(call, &sb, &e) < 0) {
        api_fail(call->req, &e, NULL);
        return;
    }
    if (api_header_has(type, PROTO_CHANGES_TYPE)) {
        apply_framed(call, sb);
    } else if (!type || api_header_has(type, "application/json") ||
               api_header_has(type, "application/x-www-form-urlencoded")) {
        /* curl -d says the latter whatever it sends. */
        apply_json(call, sb);
    } else {
        (void)err_refuse(&e, PROTO_UNSUPPORTED_TYPE,
            "a change set comes as %s or application/json, not as %.100s", PROTO_CHANGES_TYPE,
            type);
        api_fail(call->req, &e, NULL);
    }
    sandbox_unref(sb);
}
