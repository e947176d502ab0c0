/* SPDX-License-Identifier: MIT */
#include "shared/changes.h"
#include "shared/changes_wire.h"

#include <errno.h>
#include <string.h>

#include "shared/banned.h"

struct changes_writer {
    struct hash_state *hash; /* of every byte written so far */
    enum { WRITER_NEW, WRITER_BEGUN, WRITER_ENDED } state;
    uint32_t count;
    uint64_t content_left; /* of the latest operation */
    bool open;             /* it ends where it ends */
};

struct changes_writer *changes_writer_new(void)
{
    struct changes_writer *w = calloc(1, sizeof(*w));

    if (!w)
        return NULL;
    w->hash = hash_state_new();
    if (!w->hash) {
        free(w);
        return NULL;
    }
    return w;
}

void changes_writer_free(struct changes_writer *w)
{
    if (!w)
        return;
    hash_state_free(w->hash);
    free(w);
}

/* Append bytes for which room was reserved, and hash them. */
static int put_bytes(struct changes_writer *w, const void *data, size_t len, struct buf *b)
{
    int r = len ? buf_add(b, data, len) : 0;

    if (r < 0)
        return r;
    if (len)
        hash_state_add(w->hash, data, len);
    return 0;
}

static int put_header(struct changes_writer *w, enum wire_frame type, size_t len, struct buf *b)
{
    uint8_t header[WIRE_HEADER_BYTES] = {(uint8_t)type, (uint8_t)(len >> 24), (uint8_t)(len >> 16),
        (uint8_t)(len >> 8), (uint8_t)len};

    return put_bytes(w, header, sizeof(header), b);
}

/* Content as DATA frames, for which room was reserved. */
static int put_content(struct changes_writer *w, const uint8_t *data, size_t len, struct buf *b)
{
    while (len > 0) {
        size_t piece = len < CHANGES_DATA_MAX ? len : CHANGES_DATA_MAX;
        int r = put_header(w, WIRE_DATA, piece, b);
        if (r == 0)
            r = put_bytes(w, data, piece, b);
        if (r < 0)
            return r;
        data += piece;
        len -= piece;
    }
    return 0;
}

/* What put_content will append for len bytes. */
static size_t content_room(size_t len)
{
    return len + WIRE_HEADER_BYTES * ((len + CHANGES_DATA_MAX - 1) / CHANGES_DATA_MAX);
}

static int add_text(struct buf *b, const char *text, bool wide)
{
    size_t len = strlen(text);
    int r = wide ? buf_add_u16(b, (uint16_t)len) : buf_add_u8(b, (uint8_t)len);

    return r < 0 || len == 0 ? r : buf_add(b, text, len);
}

/* The first failure of a row of appends; the later ones then do no harm. */
#define TRY(r, call)                                                                               \
    do {                                                                                           \
        if ((r) == 0)                                                                              \
            (r) = (call);                                                                          \
    } while (0)

static int encode_begin(const struct changes_begin *begin, struct buf *p)
{
    int r = 0;

    TRY(r, add_text(p, begin->client, false));
    TRY(r, buf_add_u64(p, begin->seq));
    TRY(r, buf_add_u64(p, begin->parent));
    TRY(r, buf_add_u64(p, begin->if_generation));
    TRY(r, add_text(p, begin->epoch, false));
    return r;
}

int changes_write_begin(struct changes_writer *w, const struct changes_begin *begin, struct buf *b)
{
    CLEANUP(buf_release) struct buf p;

    buf_init(&p, WIRE_OP_MAX);
    if (w->state != WRITER_NEW || wire_begin_fault(begin))
        return -EINVAL;
    int r = encode_begin(begin, &p);
    TRY(r, buf_reserve(b, WIRE_MAGIC_BYTES + WIRE_HEADER_BYTES + p.len));
    TRY(r, put_bytes(w, WIRE_MAGIC, WIRE_MAGIC_BYTES, b));
    TRY(r, put_header(w, WIRE_BEGIN, p.len, b));
    TRY(r, put_bytes(w, p.data, p.len, b));
    if (r == 0)
        w->state = WRITER_BEGUN;
    return r;
}

static int encode_op(const struct change_op *op, struct buf *p)
{
    static const struct hash none;
    const unsigned fields = wire_kind((unsigned)op->kind)->fields;
    int r = 0;

    TRY(r, buf_add_u8(p, (uint8_t)op->kind));
    TRY(r, buf_add_u8(p, (uint8_t)((op->recursive ? WIRE_FLAG_RECURSIVE : 0) |
                                   (op->open ? WIRE_FLAG_OPEN : 0) |
                                   (op->keep ? WIRE_FLAG_KEEP : 0) |
                                   (op->stage ? WIRE_FLAG_STAGED : 0))));
    TRY(r, buf_add_u8(p, (uint8_t)op->base_kind));
    if (op->base_kind == CHANGE_BASE_HASH)
        TRY(r, buf_add(p, op->base.b, HASH_BYTES));
    TRY(r, add_text(p, op->path, true));
    if (fields & WIRE_HAS_MODE)
        TRY(r, buf_add_u16(p, (uint16_t)op->mode));
    if (fields & WIRE_HAS_RESULT) {
        TRY(r, buf_add_u64(p, op->size));
        TRY(r, buf_add(p, op->open ? none.b : op->hash.b, HASH_BYTES));
    }
    if (op->stage)
        TRY(r, add_text(p, op->stage, false));
    if (fields & WIRE_HAS_DELTA)
        TRY(r, buf_add_u64(p, op->open ? 0 : op->content_len));
    if (fields & WIRE_HAS_TEXTS) {
        TRY(r, buf_add_u32(p, (uint32_t)op->old_len));
        TRY(r, buf_add_u32(p, (uint32_t)op->new_len));
    }
    if (fields & (WIRE_HAS_TO | WIRE_HAS_TARGET))
        TRY(r, add_text(p, op->to, true));
    return r;
}

/* Can the format hold this operation? */
static bool is_writable(const struct change_op *op)
{
    enum proto_error code;

    if (wire_op_fault(op, &code) || path_check(op->path, strlen(op->path)) != PATH_FINE)
        return false;
    unsigned fields = wire_kind((unsigned)op->kind)->fields;
    if (!(fields & (WIRE_HAS_RESULT | WIRE_HAS_DELTA)) && op->content_len != 0)
        return false;
    if (op->kind == CHANGE_COPY && op->content_len != 0)
        return false;
    if (fields & WIRE_HAS_TO)
        return op->to && path_check(op->to, strlen(op->to)) == PATH_FINE;
    if (fields & WIRE_HAS_TARGET)
        return op->to && op->to[0] && strnlen(op->to, PATH_BYTES_MAX + 1) <= PATH_BYTES_MAX;
    return op->to == NULL;
}

/* Does the latest operation lack content? */
static bool unfinished(const struct changes_writer *w)
{
    return w->content_left > 0 && !w->open;
}

int changes_write_op(struct changes_writer *w, const struct change_op *op, struct buf *b)
{
    CLEANUP(buf_release) struct buf p;
    bool texts = op->kind == CHANGE_EDIT;

    buf_init(&p, WIRE_OP_MAX);
    if (w->state != WRITER_BEGUN || unfinished(w) || !is_writable(op))
        return -EINVAL;
    if (w->count >= CHANGES_OPS_MAX)
        return -EINVAL;
    int r = encode_op(op, &p);
    size_t room = WIRE_HEADER_BYTES + p.len;
    if (texts)
        room += content_room(op->old_len) + content_room(op->new_len);
    TRY(r, buf_reserve(b, room));
    TRY(r, put_header(w, WIRE_OP, p.len, b));
    TRY(r, put_bytes(w, p.data, p.len, b));
    if (texts) {
        TRY(r, put_content(w, op->old_text, op->old_len, b));
        TRY(r, put_content(w, op->new_text, op->new_len, b));
    }
    if (r < 0)
        return r;
    w->count++;
    w->open = op->open;
    w->content_left = op->open ? WIRE_OPEN_MAX : op->content_len;
    return 0;
}

int changes_write_data(struct changes_writer *w, const void *data, size_t len, struct buf *b)
{
    if (w->state != WRITER_BEGUN || len > w->content_left)
        return -EINVAL;
    int r = buf_reserve(b, content_room(len));
    TRY(r, put_content(w, data, len, b));
    if (r == 0)
        w->content_left -= len;
    return r;
}

int changes_write_end(struct changes_writer *w, struct buf *b)
{
    uint8_t count[4] = {(uint8_t)(w->count >> 24), (uint8_t)(w->count >> 16),
        (uint8_t)(w->count >> 8), (uint8_t)w->count};
    struct hash digest;

    if (w->state != WRITER_BEGUN || unfinished(w))
        return -EINVAL;
    int r = buf_reserve(b, WIRE_HEADER_BYTES + WIRE_END_BYTES);
    TRY(r, put_header(w, WIRE_END, WIRE_END_BYTES, b));
    TRY(r, put_bytes(w, count, sizeof(count), b));
    if (r < 0)
        return r;
    hash_state_get(w->hash, &digest);
    TRY(r, buf_add(b, digest.b, HASH_BYTES));
    if (r == 0)
        w->state = WRITER_ENDED;
    return r;
}
