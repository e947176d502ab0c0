/* SPDX-License-Identifier: MIT */
#include "shared/changes.h"
#include "shared/changes_wire.h"

#include <string.h>

#include "shared/banned.h"

static const struct wire_kind kinds[CHANGE_KIND_END] = {
    [CHANGE_PUT] = {"put", WIRE_HAS_MODE | WIRE_HAS_RESULT, WIRE_FLAG_KEEP | WIRE_FLAG_STAGED},
    [CHANGE_PATCH] = {"patch", WIRE_HAS_MODE | WIRE_HAS_RESULT | WIRE_HAS_DELTA,
        WIRE_FLAG_OPEN | WIRE_FLAG_KEEP},
    [CHANGE_EDIT] = {"edit", WIRE_HAS_TEXTS, 0},
    [CHANGE_MOVE] = {"move", WIRE_HAS_TO, 0},
    [CHANGE_COPY] = {"copy", WIRE_HAS_RESULT | WIRE_HAS_TO, 0},
    [CHANGE_MKDIR] = {"mkdir", WIRE_HAS_MODE, 0},
    [CHANGE_SYMLINK] = {"symlink", WIRE_HAS_TARGET, WIRE_FLAG_KEEP},
    [CHANGE_CHMOD] = {"chmod", WIRE_HAS_MODE, 0},
    [CHANGE_DELETE] = {"delete", 0, WIRE_FLAG_RECURSIVE | WIRE_FLAG_KEEP},
};

const struct wire_kind *wire_kind(unsigned kind)
{
    return kind < CHANGE_KIND_END && kinds[kind].name ? &kinds[kind] : NULL;
}

const char *change_kind_name(enum change_kind kind)
{
    const struct wire_kind *k = wire_kind((unsigned)kind);

    return k ? k->name : "unknown";
}

uint64_t wire_content_len(const struct change_op *op)
{
    return op->kind == CHANGE_EDIT ? (uint64_t)op->old_len + op->new_len : op->content_len;
}

/* Visible ASCII only: these names go into logs, JSON and database rows. The array is bounded, and
 * a value without its NUL is a fault. */
static bool is_name(const char *text, size_t max)
{
    size_t len = strnlen(text, max + 1);

    if (len > max)
        return false;
    for (size_t i = 0; i < len; i++)
        if (text[i] < 0x21 || text[i] > 0x7e)
            return false;
    return true;
}

/* The faults of a kind with a resulting file. */
static const char *result_fault(const struct change_op *op, enum proto_error *ret_code)
{
    if (op->size > CHANGES_FILE_MAX || (!op->open && op->content_len > CHANGES_FILE_MAX)) {
        *ret_code = PROTO_TOO_LARGE;
        return "has a file above the limit of 16 GiB";
    }
    if (op->has_hash == op->open)
        return op->open ? "names the hash and the length that follow its content"
                        : "lacks the hash of its result";
    if (op->kind == CHANGE_PUT && op->content_len != (op->stage ? 0 : op->size))
        return "has content of another length than its size";
    if (op->kind == CHANGE_PATCH && op->base_kind != CHANGE_BASE_HASH)
        return "is a delta and does not name the hash of its base";
    return NULL;
}

const char *wire_op_fault(const struct change_op *op, enum proto_error *ret_code)
{
    const struct wire_kind *k = wire_kind((unsigned)op->kind);

    *ret_code = PROTO_BAD_CHANGES;
    if (!k)
        return "is of an unknown kind";
    if ((unsigned)op->base_kind >= CHANGE_BASE_END)
        return "has an unknown kind of base";
    if ((op->recursive && !(k->flags & WIRE_FLAG_RECURSIVE)) ||
        (op->open && !(k->flags & WIRE_FLAG_OPEN)) || (op->stage && !(k->flags & WIRE_FLAG_STAGED)))
        return "has a flag that its kind does not have";
    if (op->stage && (!op->stage[0] || !is_name(op->stage, CHANGES_STAGE_MAX)))
        return "names a stage by what is no id";
    if (op->keep && (!(k->flags & WIRE_FLAG_KEEP) || op->base_kind != CHANGE_BASE_HASH))
        return "keeps what it displaces and does not name its hash";
    if ((k->fields & WIRE_HAS_MODE) ? op->mode > 0777 : op->mode != 0)
        return "has a mode beyond the permission bits 0777";
    if ((k->fields & WIRE_HAS_TEXTS) &&
        (op->old_len == 0 || op->old_len > CHANGES_EDIT_MAX || op->new_len > CHANGES_EDIT_MAX))
        return "has an old text that is empty, or a text above 1 MiB";
    if (k->fields & WIRE_HAS_RESULT)
        return result_fault(op, ret_code);
    return NULL;
}

const char *wire_begin_fault(const struct changes_begin *begin)
{
    if (!is_name(begin->client, CHANGES_CLIENT_MAX))
        return "the client's name must be visible ASCII";
    if (!is_name(begin->epoch, WIRE_EPOCH_MAX))
        return "the epoch must be visible ASCII";
    if (!begin->client[0] && (begin->seq || begin->parent))
        return "seq and parent need a client";
    if (begin->client[0] && begin->seq == 0)
        return "seq starts at 1";
    if (begin->client[0] && begin->parent >= begin->seq)
        return "parent must be below seq";
    return NULL;
}

static int feed_next(void *ctx, struct change_op *ret, struct err *e)
{
    return changes_read_op(ctx, ret, e);
}

static ssize_t feed_read(void *ctx, void *data, size_t len, struct err *e)
{
    return changes_read_data(ctx, data, len, e);
}

static void feed_digest(void *ctx, struct hash *ret)
{
    changes_reader_digest(ctx, ret);
}

struct changes_feed changes_reader_feed(struct changes_reader *r)
{
    return (struct changes_feed){
        .next = feed_next, .read = feed_read, .digest = feed_digest, .ctx = r};
}
