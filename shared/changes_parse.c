/* SPDX-License-Identifier: MIT */
/*
 * The payloads of BEGIN and OP frames, from bytes in memory to values.
 */
#include "shared/changes.h"
#include "shared/changes_wire.h"

#include <string.h>

#include "shared/text.h"

#include "shared/banned.h"

#define SHOWN_PATH_MAX 300 /* bytes of a path in a message */

/* A name with its length before it, into out with a NUL. */
static void get_name(struct cursor *c, char *out, size_t max)
{
    size_t len = cursor_u8(c);
    const uint8_t *p = len <= max ? cursor_bytes(c, len) : NULL;

    if (p && !memchr(p, 0, len)) {
        memcpy(out, p, len);
        out[len] = '\0';
    } else {
        c->bad = 1;
    }
}

int wire_parse_begin(const uint8_t *payload, size_t len, struct changes_begin *ret, struct err *e)
{
    struct cursor c;

    cursor_init(&c, payload, len);
    memset(ret, 0, sizeof(*ret));
    get_name(&c, ret->client, CHANGES_CLIENT_MAX);
    ret->seq = cursor_u64(&c);
    ret->parent = cursor_u64(&c);
    ret->if_generation = cursor_u64(&c);
    get_name(&c, ret->epoch, WIRE_EPOCH_MAX);
    if (c.bad || c.left > 0)
        return err_refuse(e, PROTO_BAD_CHANGES,
            "BEGIN is not one client name of at most %d bytes, three numbers and an epoch of at "
            "most %zu bytes",
            CHANGES_CLIENT_MAX, WIRE_EPOCH_MAX);
    const char *fault = wire_begin_fault(ret);
    if (fault)
        return err_refuse(e, PROTO_BAD_CHANGES, "%s", fault);
    return 0;
}

static int refuse_path(const uint8_t *p, size_t len, enum path_fault fault, struct err *e)
{
    CLEANUP(buf_release) struct buf shown;
    char cut[SHOWN_PATH_MAX / 4 + 1];
    size_t n = len < sizeof(cut) - 1 ? len : sizeof(cut) - 1;

    memcpy(cut, p, n);
    cut[n] = '\0';
    buf_init(&shown, SHOWN_PATH_MAX);
    (void)!text_add_escaped(&shown, cut);
    return err_refuse(e, PROTO_INVALID_PATH, "has a path that %s: '%s'%s", path_fault_text(fault),
        buf_str(&shown), n < len ? "…" : "");
}

/* A length and that many bytes, into out with a NUL. Paths are checked, targets only for NUL. */
static int get_path(struct cursor *c, bool is_target, char *out, struct err *e)
{
    size_t len = cursor_u16(c);
    const uint8_t *p = cursor_bytes(c, len);
    enum path_fault fault;

    if (!p) {
        c->bad = 1;
        return 0; /* the whole payload is refused at its end */
    }
    if (!is_target)
        fault = path_check((const char *)p, len);
    else if (len == 0)
        fault = PATH_EMPTY;
    else if (len > PATH_BYTES_MAX)
        fault = PATH_LONG;
    else
        fault = memchr(p, 0, len) ? PATH_NUL : PATH_FINE;
    if (fault != PATH_FINE)
        return refuse_path(p, len, fault, e);
    memcpy(out, p, len);
    out[len] = '\0';
    return 0;
}

static void get_hash(struct cursor *c, struct hash *ret)
{
    const uint8_t *p = cursor_bytes(c, HASH_BYTES);

    if (p)
        memcpy(ret->b, p, HASH_BYTES);
}

/* Everything behind the path, as the kind's row says. */
static int parse_fields(
    struct cursor *c, unsigned fields, struct wire_paths *paths, struct change_op *op, struct err *e)
{
    if (fields & WIRE_HAS_MODE)
        op->mode = cursor_u16(c);
    if (fields & WIRE_HAS_RESULT) {
        op->size = cursor_u64(c);
        get_hash(c, &op->hash);
        op->has_hash = true;
    }
    if (op->stage)
        get_name(c, paths->stage, CHANGES_STAGE_MAX);
    if (fields & WIRE_HAS_DELTA)
        op->content_len = cursor_u64(c);
    else if (op->kind == CHANGE_PUT && !op->stage)
        op->content_len = op->size;
    if (fields & WIRE_HAS_TEXTS) {
        op->old_len = cursor_u32(c);
        op->new_len = cursor_u32(c);
    }
    if (!(fields & (WIRE_HAS_TO | WIRE_HAS_TARGET)))
        return 0;
    op->to = paths->to;
    return get_path(c, fields & WIRE_HAS_TARGET, paths->to, e);
}

int wire_parse_op(const uint8_t *payload, size_t len, struct wire_paths *paths,
    struct change_op *ret, struct err *e)
{
    struct cursor c;
    enum proto_error code;

    cursor_init(&c, payload, len);
    uint8_t kind = cursor_u8(&c), flags = cursor_u8(&c), base_kind = cursor_u8(&c);
    const struct wire_kind *k = wire_kind(kind);

    memset(ret, 0, sizeof(*ret));
    if (!k || (flags & ~k->flags) || base_kind >= CHANGE_BASE_END)
        return err_refuse(e, PROTO_BAD_CHANGES,
            "has kind %d, flags 0x%02x and base kind %d, which version 1 does not have", kind,
            flags, base_kind);
    ret->kind = (enum change_kind)kind;
    ret->recursive = flags & WIRE_FLAG_RECURSIVE;
    ret->open = flags & WIRE_FLAG_OPEN;
    ret->keep = flags & WIRE_FLAG_KEEP;
    paths->stage[0] = '\0';
    ret->stage = flags & WIRE_FLAG_STAGED ? paths->stage : NULL;
    ret->base_kind = (enum change_base)base_kind;
    if (base_kind == CHANGE_BASE_HASH)
        get_hash(&c, &ret->base);
    ret->path = paths->path;
    int n = get_path(&c, false, paths->path, e);
    if (n == 0)
        n = parse_fields(&c, k->fields, paths, ret, e);
    if (n < 0)
        return n;
    if (c.bad || c.left > 0)
        return err_refuse(e, PROTO_BAD_CHANGES, "(%s) is %s than its fields", k->name,
            c.bad ? "shorter" : "longer");
    /* What is not known yet stands there as zeros. */
    static const struct hash none;
    if (ret->open && hash_equal(&ret->hash, &none) && ret->content_len == 0) {
        ret->has_hash = false;
        ret->content_len = CHANGE_LEN_UNKNOWN;
    }
    const char *fault = wire_op_fault(ret, &code);
    return fault ? err_refuse(e, code, "(%s) %s", k->name, fault) : 0;
}
