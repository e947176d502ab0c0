/* SPDX-License-Identifier: MIT */
/* Uploads that can be resumed: server/sandbox_uploads.h over HTTP. */
#include "server/api_stages.h"
#include "server/api_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "shared/num.h"
#include "shared/text.h"

#include "server/body.h"
#include "server/sandbox_uploads.h"

#include "shared/banned.h"

int api_stage_parse(json_t *body, struct api_stage_wish *ret, struct err *e)
{
    static const char *const known[] = {"size", "hash", NULL};
    CLEANUP(freep) char *hash = NULL;
    *ret = (struct api_stage_wish){.size = 0};
    int r = body_known(body, "the request", known, e);
    if (r >= 0)
        r = body_number(body, "size", 0, CHANGES_FILE_MAX, &ret->size, e);
    if (r == 0)
        return err_refuse(
            e, PROTO_INVALID_VALUE, "'size' is missing: how many bytes will the file have?");
    if (r >= 0)
        r = body_text(body, "hash", HASH_TEXT_BYTES, &hash, e);
    if (r < 0)
        return r;
    ret->has_hash = r == 1;
    if (r == 1 && hash_parse(hash, &ret->hash) < 0)
        return err_refuse(
            e, PROTO_INVALID_VALUE, "'hash' must be a hash such as \"xxh3-128:0123…\"");
    return 0;
}

int api_stage_offset(const char *header, uint64_t *ret, struct err *e)
{
    if (header && num_u64(header, INT64_MAX, ret) == 0)
        return 0;
    return err_refuse(e, PROTO_INVALID_VALUE,
        "the header Upload-Offset must say how many bytes the stage has already: GET it to know");
}

static json_t *stage_json(const struct sandbox_upload_state *s)
{
    char hash[HASH_TEXT_BYTES], expires[TEXT_TIME_BYTES];
    return json_pack("{s:s, s:I, s:I, s:o, s:s, s:b}", "id", s->id, "offset", (json_int_t)s->offset,
        "size", (json_int_t)s->size, "hash",
        s->has_hash ? json_string(hash_text(&s->hash, hash)) : json_null(), "expires_at",
        text_time(s->used_ns + SANDBOX_UPLOAD_AGE_NS, expires), "framed", 1);
}

static void add_headers(struct call *call, const struct sandbox_upload_state *s)
{
    char text[24];
    (void)snprintf(text, sizeof(text), "%" PRIu64, s->offset);
    http_add_header(call->req, "Upload-Offset", text);
    (void)snprintf(text, sizeof(text), "%" PRIu64, s->size);
    http_add_header(call->req, "Upload-Length", text);
    http_add_header(call->req, "Cache-Control", "no-store");
}

static void reply_stage(struct call *call, int status, const struct sandbox_upload_state *s)
{
    add_headers(call, s);
    api_reply(call, status, stage_json(s));
}

void api_stage_create(struct call *call)
{
    struct sandbox *sb = NULL;
    struct sandbox_upload_state state;
    struct api_stage_wish wish;
    struct err e = ERR_INIT;
    json_t *body = NULL;
    int r = api_sandbox(call, &sb, &e);
    if (r == 0)
        r = api_read_json(call, &body, &e);
    if (r == 0)
        r = api_stage_parse(body, &wish, &e);
    if (r == 0)
        r = sandbox_upload_create(sb, wish.size, wish.has_hash ? &wish.hash : NULL, &state, &e);
    if (r < 0) {
        api_fail(call->req, &e, NULL);
    } else {
        char location[96];
        (void)snprintf(
            location, sizeof(location), "/v1/sandboxes/%s/stages/%s", sandbox_id(sb), state.id);
        http_add_header(call->req, "Location", location);
        reply_stage(call, 201, &state);
    }
    json_decref(body);
    if (sb)
        sandbox_unref(sb);
}

void api_stage_get(struct call *call)
{
    struct sandbox *sb = NULL;
    struct sandbox_upload_state state;
    struct err e = ERR_INIT;
    int r = api_sandbox(call, &sb, &e);
    if (r == 0)
        r = sandbox_upload_get(sb, call->match.param[1], &state, &e);
    if (sb)
        sandbox_unref(sb);
    if (r < 0)
        api_fail(call->req, &e, NULL);
    else
        reply_stage(call, 200, &state);
}

static ssize_t body_source(void *ctx, void *data, size_t len)
{
    return http_body_read(ctx, data, len);
}

void api_stage_patch(struct call *call)
{
    struct sandbox *sb = NULL;
    struct sandbox_upload_state state = {.id = ""};
    struct err e = ERR_INIT;
    uint64_t offset = 0;
    int r = api_sandbox(call, &sb, &e);
    if (r == 0)
        r = api_stage_offset(http_header(call->req, "Upload-Offset"), &offset, &e);
    if (r == 0)
        r = sandbox_upload_append(
            sb, call->match.param[1], offset, body_source, call->req, &state, &e);
    if (sb)
        sandbox_unref(sb);
    if (r == 0) {
        reply_stage(call, 200, &state);
        return;
    }
    /* Where to go on, whatever went wrong. */
    if (state.id[0])
        add_headers(call, &state);
    api_fail(call->req, &e,
        state.id[0] ? json_pack("{s:I, s:I}", "offset", (json_int_t)state.offset, "size",
                          (json_int_t)state.size)
                    : NULL);
}

void api_stage_delete(struct call *call)
{
    api_delete_part(call, sandbox_upload_delete);
}
