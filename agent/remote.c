/* SPDX-License-Identifier: MIT */
#include "agent/remote.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared/path.h"
#include "shared/text.h"

#include "shared/banned.h"

#define PAGE_TIMEOUT_MS 60000
#define STEP_MS 1000

void remote_init(struct remote *r, struct client *client, const char *sandbox)
{
    *r = (struct remote){.client = client, .sandbox = sandbox};
    buf_init(&r->path, PATH_BYTES_MAX);
    buf_init(&r->target, PATH_BYTES_MAX);
}

void remote_release(struct remote *r)
{
    if (r->call)
        client_abort(r->client, r->call);
    free(r->url);
    json_decref(r->page);
    free(r->cursor);
    buf_release(&r->path);
    buf_release(&r->target);
}

/* ---- an item → an entry */

static bool kind_of(const json_t *item, enum tree_kind *ret)
{
    static const struct {
        const char *name;
        enum tree_kind kind;
    } names[] = {{"file", TREE_FILE}, {"dir", TREE_DIR}, {"symlink", TREE_SYMLINK}};
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

/* The bytes of a name: `coded` where it is not UTF-8, else `plain`. */
static int bytes_of(const json_t *item, const char *plain, const char *coded, struct buf *b)
{
    const char *text = json_string_value(json_object_get(item, coded));
    buf_reset(b);
    if (text)
        return text_decode_base64(text, strlen(text), b);
    text = json_string_value(json_object_get(item, plain));
    return text ? buf_adds(b, text) : -EINVAL;
}

const char *remote_path(struct remote *r, const json_t *item)
{
    int code = bytes_of(item, "path", "path_base64", &r->path);
    bool good = code == 0 && path_check(buf_str(&r->path), r->path.len) == PATH_FINE;
    return good ? buf_str(&r->path) : NULL;
}

bool remote_entry(struct remote *r, const json_t *item, struct manifest_entry *ret)
{
    const char *hash = json_string_value(json_object_get(item, "hash"));
    const char *path = remote_path(r, item);
    *ret = (struct manifest_entry){.path = (char *)path};
    if (!path || !kind_of(item, &ret->kind))
        return false;
    ret->mode = mode_of(json_object_get(item, "mode"));
    if (ret->kind == TREE_SYMLINK) {
        bool told = bytes_of(item, "target", "target_base64", &r->target) == 0 && r->target.len &&
                    !memchr(r->target.data, '\0', r->target.len);
        ret->target = told ? (char *)r->target.data : REMOTE_TARGET_UNKNOWN;
    }
    if (ret->kind == TREE_DIR)
        return true;
    json_int_t size = json_integer_value(json_object_get(item, "size"));
    ret->size = size > 0 ? (uint64_t)size : 0;
    return hash && hash_parse(hash, &ret->hash) == 0;
}

/* ---- pages */

static int take_cursor(struct remote *r, struct err *e)
{
    const char *next = json_string_value(json_object_get(r->page, "next_cursor"));
    CLEANUP(buf_release) struct buf coded;
    buf_init(&coded, 4 * (size_t)PATH_BYTES_MAX);
    free(ptr_take(&r->cursor));
    if (!next)
        return 0;
    if (text_add_percent(&coded, next) < 0 || !(r->cursor = buf_steal(&coded)))
        return err_set(e, ENOMEM, "ask the server what it has");
    return 0;
}

static void on_answer(
    void *ctx, int result, struct client_response *response, const struct err *e)
{
    struct remote *r = ctx;
    r->call = NULL;
    r->result = result;
    r->error = *e;
    json_decref(r->page);
    r->page = result < 0 ? NULL : client_json(response, &r->error);
    r->bytes_sent += response->bytes_sent;
    r->bytes_received += response->bytes_received;
    if (result == 0 && !r->page)
        r->result = -EPROTO;
}

int remote_ask(struct remote *r, unsigned limit, struct err *e)
{
    free(ptr_take(&r->url));
    if (asprintf(&r->url, "/v1/sandboxes/%s/files?limit=%u%s%s", r->sandbox, limit,
            r->cursor ? "&cursor=" : "", r->cursor ? r->cursor : "") < 0) {
        r->url = NULL;
        return err_set(e, ENOMEM, "ask the server what it has");
    }
    struct client_request request = {
        .method = "GET", .path = r->url, .timeout_ms = PAGE_TIMEOUT_MS};
    return client_start(r->client, &request, on_answer, r, &r->call, e);
}

int remote_take(struct remote *r, struct err *e)
{
    if (r->call)
        return 1;
    if (r->result < 0) {
        if (e)
            *e = r->error;
        return r->result;
    }
    return take_cursor(r, e);
}

int remote_page(struct remote *r, unsigned limit, struct err *e)
{
    int code = remote_ask(r, limit, e);
    while (code >= 0 && r->call)
        code = client_step(r->client, NULL, 0, STEP_MS, e);
    return code < 0 ? code : remote_take(r, e);
}

int remote_state(const struct remote *r, struct index_state *state, struct err *e)
{
    const char *epoch = json_string_value(json_object_get(r->page, "epoch"));
    json_int_t generation = json_integer_value(json_object_get(r->page, "generation"));
    if (!epoch || !*epoch || strlen(epoch) >= sizeof(state->epoch))
        return err_say(
            e, EPROTO, "the server's manifest names no epoch: is it of another version?");
    memcpy(state->epoch, epoch, strlen(epoch) + 1);
    state->generation = generation > 0 ? (uint64_t)generation : 0;
    return 0;
}
