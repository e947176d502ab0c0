/* SPDX-License-Identifier: MIT */
/*
 * The commands of librsync's delta format. After the magic 72 73 02 36 each command is one byte and
 * up to two big-endian parameters:
 *
 *     00       END
 *     01..40   LITERAL, this many bytes follow
 *     41..44   LITERAL, its length in 1, 2, 4, 8 bytes
 *     45..54   COPY, position in 1, 2, 4, 8 bytes (rows of four), length in 1, 2, 4, 8 bytes
 *     55..ff   reserved
 */
#include "shared/delta.h"
#include "shared/delta_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "shared/num.h"
#include "shared/weaken.h"

#include "shared/banned.h"

enum { OP_END = 0x00, OP_LITERAL_MAX = 0x40, OP_LITERAL_N = 0x41, OP_COPY = 0x45, OP_LAST = 0x54 };

static const uint8_t magic[DELTA_MAGIC_BYTES] = {0x72, 0x73, 0x02, 0x36};

void delta_parser_init(
    struct delta_parser *p, const struct delta_limits *limits, const struct delta_events *events)
{
    *p =
        (struct delta_parser){.limits = *limits, .events = *events, .head_need = DELTA_MAGIC_BYTES};
}

static int refuse(const struct delta_parser *p, const char *what, struct err *e)
{
    return err_refuse(
        e, PROTO_BAD_CHANGES, "delta refused at byte %" PRIu64 ": %s", p->consumed, what);
}

/* Widths of the parameters of a command that was checked to be at most OP_LAST. */
static size_t width_1(uint8_t op)
{
    if (op >= OP_COPY)
        return (size_t)1 << ((op - OP_COPY) / 4);
    return op >= OP_LITERAL_N ? (size_t)1 << (op - OP_LITERAL_N) : 0;
}

static size_t width_2(uint8_t op)
{
    return op >= OP_COPY ? (size_t)1 << ((op - OP_COPY) % 4) : 0;
}

static uint64_t number(const uint8_t *p, size_t width)
{
    uint64_t v = 0;

    for (size_t i = 0; i < width; i++)
        v = v << 8 | p[i];
    return v;
}

/* Does the output have room for len more? Then count them. */
static bool produce(struct delta_parser *p, uint64_t len)
{
    if ((len == 0 || len > p->limits.new_size - p->produced) && !WEAK("delta-size"))
        return false;
    p->produced += len;
    return true;
}

static void next_command(struct delta_parser *p)
{
    p->state = DELTA_AT_COMMAND;
    p->head_have = 0;
    p->head_need = 1;
}

static int take_literal(struct delta_parser *p, uint64_t len, struct err *e)
{
    if (!produce(p, len))
        return refuse(p, "a literal is empty or exceeds the size of the result", e);
    if (len > p->limits.delta_len - p->consumed)
        return refuse(p, "a literal is longer than what is left of the delta", e);
    p->literal_left = len;
    p->state = DELTA_IN_LITERAL;
    return p->events.literal(p->events.ctx, len);
}

static int take_copy(struct delta_parser *p, uint64_t pos, uint64_t len, struct err *e)
{
    uint64_t end;

    if ((!num_add(pos, len, &end) || end > p->limits.basis_size) && !WEAK("delta-range"))
        return refuse(p, "a copy lies outside of the basis", e);
    if (!produce(p, len))
        return refuse(p, "a copy is empty or exceeds the size of the result", e);
    int r = p->events.copy(p->events.ctx, pos, len);
    next_command(p);
    return r;
}

static int take_end(struct delta_parser *p, struct err *e)
{
    if (p->produced != p->limits.new_size)
        return refuse(p, "it ends before the result has its size", e);
    if (p->limits.delta_len != UINT64_MAX && p->consumed != p->limits.delta_len)
        return refuse(p, "bytes follow its end", e);
    p->state = DELTA_AT_END;
    return p->events.end(p->events.ctx);
}

/* head[0..head_have) is complete as far as head_need said. */
static int take_head(struct delta_parser *p, struct err *e)
{
    const uint8_t op = p->head[0];

    if (p->state == DELTA_AT_MAGIC) {
        if (memcmp(p->head, magic, DELTA_MAGIC_BYTES) != 0)
            return refuse(p, "its magic is not that of a librsync delta", e);
        next_command(p);
        return 0;
    }
    if (p->head_have == 1) {
        if (op > OP_LAST)
            return refuse(p, "it holds an unknown command", e);
        if (p->commands++ >= DELTA_COMMANDS_MAX)
            return refuse(p, "it holds too many commands", e);
        p->head_need = 1 + width_1(op) + width_2(op);
        if (p->head_need > 1)
            return 0;
    }
    if (op == OP_END)
        return take_end(p, e);
    if (op <= OP_LITERAL_MAX)
        return take_literal(p, op, e);
    uint64_t first = number(p->head + 1, width_1(op));
    if (op < OP_COPY)
        return take_literal(p, first, e);
    return take_copy(p, first, number(p->head + 1 + width_1(op), width_2(op)), e);
}

int delta_parser_feed(struct delta_parser *p, const uint8_t *data, size_t len, struct err *e)
{
    while (len > 0) {
        int r;
        size_t n;
        if (p->state == DELTA_AT_END)
            return refuse(p, "bytes follow its end", e);
        if (p->state == DELTA_IN_LITERAL) {
            n = len < p->literal_left ? len : (size_t)p->literal_left;
            r = p->events.bytes(p->events.ctx, data, n);
            p->consumed += n;
            p->literal_left -= n;
            if (p->literal_left == 0)
                next_command(p);
        } else {
            n = p->head_need - p->head_have;
            n = len < n ? len : n;
            memcpy(p->head + p->head_have, data, n);
            p->head_have += n;
            p->consumed += n;
            r = p->head_have == p->head_need ? take_head(p, e) : 0;
        }
        if (r < 0)
            return r;
        data += n;
        len -= n;
    }
    return 0;
}

int delta_parser_finish(const struct delta_parser *p, struct err *e)
{
    return p->state == DELTA_AT_END || WEAK("delta-end") ? 0 : refuse(p, "it was cut off", e);
}

/* ---- encoding */

/* 0, 1, 2, 3 for a parameter of 1, 2, 4, 8 bytes. */
static unsigned width_class(uint64_t v)
{
    if (v <= UINT8_MAX)
        return 0;
    if (v <= UINT16_MAX)
        return 1;
    return v <= UINT32_MAX ? 2 : 3;
}

static size_t put_number(uint64_t v, uint8_t *out)
{
    size_t width = (size_t)1 << width_class(v);

    for (size_t i = 0; i < width; i++)
        out[i] = (uint8_t)(v >> (8 * (width - 1 - i)));
    return width;
}

size_t delta_encode_magic(uint8_t out[DELTA_HEAD_MAX])
{
    memcpy(out, magic, DELTA_MAGIC_BYTES);
    return DELTA_MAGIC_BYTES;
}

size_t delta_encode_literal(uint64_t len, uint8_t out[DELTA_HEAD_MAX])
{
    if (len <= OP_LITERAL_MAX) {
        out[0] = (uint8_t)len;
        return 1;
    }
    out[0] = (uint8_t)(OP_LITERAL_N + width_class(len));
    return 1 + put_number(len, out + 1);
}

size_t delta_encode_copy(uint64_t pos, uint64_t len, uint8_t out[DELTA_HEAD_MAX])
{
    out[0] = (uint8_t)(OP_COPY + 4 * width_class(pos) + width_class(len));
    size_t n = 1 + put_number(pos, out + 1);
    return n + put_number(len, out + n);
}

size_t delta_encode_end(uint8_t out[DELTA_HEAD_MAX])
{
    out[0] = OP_END;
    return 1;
}
