/* SPDX-License-Identifier: MIT */
/* What runs wrote and change sets displaced: listed, read, dropped. */
#include "server/api_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "shared/text.h"

#include "shared/banned.h"

static int visit(const struct sandbox_kept *k, void *ctx)
{
    char mode[8], hash[HASH_TEXT_BYTES], at[TEXT_TIME_BYTES];
    (void)snprintf(mode, sizeof(mode), "%04o", k->mode & 07777);
    json_t *item = json_pack("{s:s, s:s, s:s?, s:I, s:s, s:s, s:s}", "id", k->id, "kind",
        api_kind_name(k->kind), "run", k->run[0] ? k->run : NULL, "size", (json_int_t)k->size,
        "mode", mode, "hash", hash_text(&k->hash, hash), "at", text_time(k->kept_ns, at));
    if (!item || api_put_path(item, "path", k->path) < 0) {
        json_decref(item);
        return -ENOMEM;
    }
    return json_array_append_new(ctx, item);
}

void api_conflict_list(struct call *call)
{
    struct sandbox *sb = NULL;
    struct err e = ERR_INIT;
    json_t *items = json_array();
    int r = items ? api_sandbox(call, &sb, &e) : err_set(&e, ENOMEM, "list kept versions");
    if (r == 0)
        r = sandbox_kept_list(sb, visit, items, &e);
    if (sb)
        sandbox_unref(sb);
    if (r == 0) {
        api_reply(call, 200, json_pack("{s:o, s:n}", "items", items, "next_cursor"));
        return;
    }
    json_decref(items);
    api_fail(call->req, &e, NULL);
}

void api_conflict_get(struct call *call)
{
    struct sandbox *sb = NULL;
    struct sandbox_kept k = {.kind = TREE_FILE};
    struct err e = ERR_INIT;
    char etag[HASH_TEXT_BYTES + 2];
    int fd = -1;
    int r = api_sandbox(call, &sb, &e);
    if (r == 0)
        r = sandbox_kept_open(sb, call->match.param[1], &fd, &k, &e);
    if (sb)
        sandbox_unref(sb);
    if (r < 0) {
        api_fail(call->req, &e, NULL);
        return;
    }
    api_etag(&k.hash, etag);
    http_add_header(call->req, "ETag", etag);
    http_add_header(call->req, "Content-Disposition", "attachment");
    if (fd >= 0)
        api_reply_file(call, fd, k.size, "application/octet-stream");
    else
        http_reply(call->req, 200, "application/octet-stream", k.target, strlen(k.target));
    sandbox_kept_release(&k);
}

void api_conflict_delete(struct call *call)
{
    api_delete_part(call, sandbox_kept_delete);
}
