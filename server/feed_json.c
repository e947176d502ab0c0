/* SPDX-License-Identifier: MIT */
#include "server/feed_json.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "shared/path.h"
#include "shared/text.h"

#include "server/body.h"
#include "server/sandbox_uploads.h"

#include "shared/banned.h"

#define CONTENT_MAX (1024u * 1024 * 1024) /* the body's own maximum is far below */

struct feed_json {
    json_t *body, *ops;
    size_t next; /* index of the next operation */
    /* The current operation; its texts live here. */
    char *path, *to;
    struct buf content;
    size_t given; /* bytes of content */
};

/* Members of each kind beside op, path and base. */
static const struct {
    enum change_kind kind;
    const char *members[8];
} kinds[] = {
    {CHANGE_PUT, {"text", "base64", "stage", "mode", "hash", "keep", NULL}},
    {CHANGE_EDIT, {"old", "new", NULL}},
    {CHANGE_MOVE, {"to", "to_base64", "from", NULL}},
    {CHANGE_COPY, {"to", "to_base64", "from", "hash", NULL}},
    {CHANGE_MKDIR, {"mode", NULL}},
    {CHANGE_SYMLINK, {"target", "keep", NULL}},
    {CHANGE_CHMOD, {"mode", NULL}},
    {CHANGE_DELETE, {"recursive", "keep", NULL}},
};

static void forget_current(struct feed_json *f)
{
    free(f->path);
    free(f->to);
    buf_release(&f->content);
    f->path = f->to = NULL;
    f->given = 0;
    buf_init(&f->content, CONTENT_MAX);
}

static int find_kind(json_t *op, size_t *ret_row, struct err *e)
{
    const char *name = json_string_value(json_object_get(op, "op"));
    for (size_t i = 0; name && i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(change_kind_name(kinds[i].kind), name) == 0) {
            *ret_row = i;
            return 0;
        }
    }
    return err_refuse(e, PROTO_INVALID_VALUE,
        "'op' must be one of put, edit, move, copy, mkdir, symlink, chmod and delete");
}

static int check_members(json_t *op, size_t row, struct err *e)
{
    const char *known[12] = {"op", "path", "path_base64", "base"};
    size_t count = 4;
    for (size_t i = 0; kinds[row].members[i]; i++)
        known[count++] = kinds[row].members[i];
    char where[32];
    (void)snprintf(where, sizeof(where), "'%s'", change_kind_name(kinds[row].kind));
    return body_known(op, where, known, e);
}

static int read_path(json_t *op, const char *name, char **ret, struct err *e)
{
    CLEANUP(buf_release) struct buf bytes;
    buf_init(&bytes, PATH_BYTES_MAX);
    int r = body_bytes(op, name, PATH_BYTES_MAX, &bytes, e);
    if (r < 0)
        return r;
    if (r == 0)
        return err_refuse(e, PROTO_INVALID_VALUE, "'%s' is missing", name);
    enum path_fault fault = path_check(buf_str(&bytes), bytes.len);
    if (fault != PATH_FINE)
        return err_refuse(
            e, PROTO_INVALID_PATH, "the path '%.200s' %s", buf_str(&bytes), path_fault_text(fault));
    *ret = buf_steal(&bytes);
    if (!*ret)
        return err_set(e, ENOMEM, "read an operation");
    return 0;
}

static int read_mode(json_t *op, bool needed, uint32_t *ret, struct err *e)
{
    json_t *value = json_object_get(op, "mode");
    const char *text = json_string_value(value);
    if (!value && !needed)
        return 0;
    uint32_t mode = 0;
    size_t len = text ? strlen(text) : 0;
    for (size_t i = 0; i < len && text[i] >= '0' && text[i] <= '7'; i++)
        mode = mode * 8 + (uint32_t)(text[i] - '0');
    if (len < 3 || len > 4 || strspn(text, "01234567") != len || mode > 0777)
        return err_refuse(
            e, PROTO_INVALID_VALUE, "'mode' must be a text of octal digits such as \"0644\"");
    *ret = mode;
    return 0;
}

static int read_hash(json_t *op, const char *name, struct hash *ret, bool *ret_has, struct err *e)
{
    json_t *value = json_object_get(op, name);
    if (!value || json_is_null(value))
        return 0;
    if (!json_is_string(value) || hash_parse(json_string_value(value), ret) < 0)
        return err_refuse(
            e, PROTO_INVALID_VALUE, "'%s' must be a hash such as \"xxh3-128:0123…\"", name);
    *ret_has = true;
    return 0;
}

static int read_base(json_t *op, struct change_op *ret, struct err *e)
{
    static const struct {
        const char *name;
        enum change_base base;
    } words[] = {
        {"any", CHANGE_BASE_ANY}, {"absent", CHANGE_BASE_ABSENT}, {"dir", CHANGE_BASE_DIR}};
    json_t *value = json_object_get(op, "base");
    const char *text = json_string_value(value);
    bool is_hash = false;
    ret->base_kind = CHANGE_BASE_ANY;
    for (size_t i = 0; text && i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcmp(words[i].name, text) == 0) {
            ret->base_kind = words[i].base;
            return 0;
        }
    }
    int r = read_hash(op, "base", &ret->base, &is_hash, e);
    if (is_hash)
        ret->base_kind = CHANGE_BASE_HASH;
    return r;
}

/* The content was sent before; its hash may be given here as well. */
static int read_stage(json_t *op, json_t *value, struct change_op *ret, struct err *e)
{
    ret->stage = json_string_value(value);
    ret->content_len = CHANGE_LEN_UNKNOWN;
    if (!text_is_id(SANDBOX_UPLOAD_PREFIX, ret->stage))
        return err_refuse(e, PROTO_INVALID_VALUE,
            "'stage' must be an id such as \"st_…\" that POST …/stages gave out");
    return read_hash(op, "hash", &ret->hash, &ret->has_hash, e);
}

static int read_content(struct feed_json *f, json_t *op, struct change_op *ret, struct err *e)
{
    json_t *text = json_object_get(op, "text"), *coded = json_object_get(op, "base64"),
           *stage = json_object_get(op, "stage");
    json_t *value = text ? text : coded ? coded : stage;
    if ((text != NULL) + (coded != NULL) + (stage != NULL) != 1 || !json_is_string(value))
        return err_refuse(e, PROTO_INVALID_VALUE,
            "'put' needs the content as 'text', as 'base64' or as a 'stage'");
    if (stage)
        return read_stage(op, stage, ret, e);
    size_t len = json_string_length(value);
    int r = text ? buf_add(&f->content, json_string_value(value), len)
                 : text_decode_base64(json_string_value(value), len, &f->content);
    if (r == -EINVAL)
        return err_refuse(e, PROTO_INVALID_VALUE, "'base64' is not base64");
    if (r < 0)
        return err_set(e, -r, "read an operation");
    ret->size = ret->content_len = f->content.len;
    return read_hash(op, "hash", &ret->hash, &ret->has_hash, e);
}

static int read_text(
    json_t *op, const char *name, const uint8_t **ret, size_t *ret_len, struct err *e)
{
    json_t *value = json_object_get(op, name);
    if (!json_is_string(value) || json_string_length(value) > CHANGES_EDIT_MAX)
        return err_refuse(e, PROTO_INVALID_VALUE, "'%s' must be a text of at most %d bytes", name,
            CHANGES_EDIT_MAX);
    *ret = (const uint8_t *)json_string_value(value);
    *ret_len = json_string_length(value);
    return 0;
}

static int read_edit(json_t *op, struct change_op *ret, struct err *e)
{
    int r = read_text(op, "old", &ret->old_text, &ret->old_len, e);
    if (r == 0)
        r = read_text(op, "new", &ret->new_text, &ret->new_len, e);
    if (r == 0 && ret->old_len == 0)
        r = err_refuse(e, PROTO_INVALID_VALUE, "'old' must not be empty: put a new file instead");
    return r;
}

static int read_target(struct feed_json *f, json_t *op, struct err *e)
{
    int r = body_text(op, "target", PATH_BYTES_MAX, &f->to, e);
    if (r < 0)
        return r;
    if (r == 0 || !*f->to)
        return err_refuse(e, PROTO_INVALID_VALUE, "'symlink' needs a 'target'");
    return 0;
}

static int read_details(struct feed_json *f, json_t *op, struct change_op *ret, struct err *e)
{
    int r = 0;
    switch (ret->kind) {
    case CHANGE_PUT:
        r = read_content(f, op, ret, e);
        return r < 0 ? r : read_mode(op, false, &ret->mode, e);
    case CHANGE_EDIT:
        return read_edit(op, ret, e);
    case CHANGE_COPY:
        r = read_hash(op, "hash", &ret->hash, &ret->has_hash, e);
        return r < 0 ? r : read_path(op, "to", &f->to, e);
    case CHANGE_MOVE:
        return read_path(op, "to", &f->to, e);
    case CHANGE_MKDIR:
        return read_mode(op, false, &ret->mode, e);
    case CHANGE_CHMOD:
        return read_mode(op, true, &ret->mode, e);
    case CHANGE_SYMLINK:
        return read_target(f, op, e);
    default:
        r = body_bool(op, "recursive", &ret->recursive, e);
        return r < 0 ? r : 0;
    }
}

static int read_op(struct feed_json *f, json_t *op, struct change_op *ret, struct err *e)
{
    size_t row = 0;
    forget_current(f);
    *ret = (struct change_op){.kind = CHANGE_PUT};
    if (!json_is_object(op))
        return err_refuse(e, PROTO_INVALID_VALUE, "an operation must be an object");
    int r = find_kind(op, &row, e);
    if (r == 0)
        r = check_members(op, row, e);
    if (r < 0)
        return r;
    ret->kind = kinds[row].kind;
    /* "from … to" is how people say it; "path … to" how every other operation says it. */
    bool from = json_object_get(op, "from") != NULL;
    r = read_path(op, from ? "from" : "path", &f->path, e);
    if (r == 0)
        r = read_base(op, ret, e);
    if (r == 0 && (r = body_bool(op, "keep", &ret->keep, e)) > 0)
        r = 0;
    if (r == 0 && ret->keep && ret->base_kind != CHANGE_BASE_HASH)
        r = err_refuse(e, PROTO_INVALID_VALUE,
            "'keep' needs 'base', the hash of the version that is to be kept");
    if (r == 0)
        r = read_details(f, op, ret, e);
    ret->path = f->path;
    ret->to = f->to;
    return r;
}

static int read_begin(json_t *body, struct changes_begin *ret, struct err *e)
{
    static const char *const known[] = {
        "ops", "if_generation", "epoch", "client", "seq", "parent", NULL};
    CLEANUP(freep) char *client = NULL;
    CLEANUP(freep) char *epoch = NULL;
    *ret = (struct changes_begin){.if_generation = CHANGES_NO_GENERATION};
    int r = body_known(body, "the change set", known, e);
    if (r >= 0)
        r = body_number(body, "if_generation", 0, INT64_MAX, &ret->if_generation, e);
    if (r >= 0)
        r = body_text(body, "client", CHANGES_CLIENT_MAX, &client, e);
    if (r >= 0)
        r = body_text(body, "epoch", sizeof(ret->epoch) - 1, &epoch, e);
    if (r >= 0)
        r = body_number(body, "seq", 1, INT64_MAX, &ret->seq, e);
    if (r >= 0 && (client && *client) != (r == 1))
        return err_refuse(
            e, PROTO_INVALID_VALUE, "'client' and 'seq' belong together: give both or none");
    ret->parent = ret->seq ? ret->seq - 1 : 0;
    if (r >= 0)
        r = body_number(body, "parent", 0, INT64_MAX, &ret->parent, e);
    if (r < 0)
        return r;
    (void)snprintf(ret->client, sizeof(ret->client), "%s", client ? client : "");
    (void)snprintf(ret->epoch, sizeof(ret->epoch), "%s", epoch ? epoch : "");
    return 0;
}

/* A refusal says which operation it is about; people count from 1. */
static int blame(struct err *e, size_t index, int r)
{
    return r == -EPROTO && e ? err_wrap(e, "operation %zu", index + 1) : r;
}

int feed_json_new(
    json_t *body, struct feed_json **ret, struct changes_begin *ret_begin, struct err *e)
{
    struct change_op op;
    int r = read_begin(body, ret_begin, e);
    if (r < 0)
        return r;
    json_t *ops = json_object_get(body, "ops");
    if (!json_is_array(ops) || json_array_size(ops) > CHANGES_OPS_MAX)
        return err_refuse(e, PROTO_INVALID_VALUE, "'ops' must be an array of at most %d operations",
            CHANGES_OPS_MAX);
    struct feed_json *f = calloc(1, sizeof(*f));
    if (!f)
        return err_set(e, ENOMEM, "read a change set");
    f->body = body;
    f->ops = ops;
    for (size_t i = 0; r == 0 && i < json_array_size(ops); i++)
        r = blame(e, i, read_op(f, json_array_get(ops, i), &op, e));
    forget_current(f);
    if (r < 0) {
        feed_json_free(f);
        return r;
    }
    *ret = f;
    return 0;
}

void feed_json_free(struct feed_json *f)
{
    if (!f)
        return;
    forget_current(f);
    free(f);
}

static int next_op(void *ctx, struct change_op *ret, struct err *e)
{
    struct feed_json *f = ctx;
    if (f->next >= json_array_size(f->ops))
        return 0;
    int r = blame(e, f->next, read_op(f, json_array_get(f->ops, f->next), ret, e));
    f->next++;
    return r < 0 ? r : 1;
}

static ssize_t read_data(void *ctx, void *data, size_t len, struct err *e)
{
    struct feed_json *f = ctx;
    size_t left = f->content.len - f->given;
    (void)e;
    if (len > left)
        len = left;
    if (len > 0)
        memcpy(data, f->content.data + f->given, len);
    f->given += len;
    return (ssize_t)len;
}

static int add_to_hash(const char *data, size_t len, void *ctx)
{
    hash_state_add(ctx, data, len);
    return 0;
}

static void digest(void *ctx, struct hash *ret)
{
    const struct feed_json *f = ctx;
    CLEANUP(hash_state_freep) struct hash_state *state = hash_state_new();
    *ret = (struct hash){.b = {0}};
    if (!state ||
        json_dump_callback(f->body, add_to_hash, state, JSON_COMPACT | JSON_SORT_KEYS) < 0)
        return;
    hash_state_get(state, ret);
}

struct changes_feed feed_json_feed(struct feed_json *f)
{
    return (struct changes_feed){.next = next_op, .read = read_data, .digest = digest, .ctx = f};
}
