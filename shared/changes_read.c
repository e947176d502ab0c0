/* SPDX-License-Identifier: MIT */
/*
 * The strict reader. Bytes go source → one buffer → frames; a frame's payload that is parsed
 * (BEGIN, OP, END) lies in that buffer as a whole, content passes through it in pieces.
 */
#include "shared/changes.h"
#include "shared/changes_wire.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "shared/weaken.h"

#include "shared/banned.h"

#define READER_BUFFER (64 * 1024) /* above WIRE_OP_MAX: a parsed payload always fits */

struct changes_reader {
    changes_source *source;
    void *ctx;
    enum { READER_NEW, READER_BEGUN, READER_ENDED, READER_FAILED } state;
    struct err failed;       /* what every call after a failure answers again */
    struct hash_state *hash; /* of the bytes before `pos`, as far as they were hashed */
    uint8_t *buf;
    size_t pos, len;       /* unread bytes are buf[pos..len) */
    size_t hashed;         /* bytes of buf[0..pos) that the hash has seen */
    uint64_t offset;       /* of buf[pos] in the body */
    uint32_t count;        /* operations so far */
    uint64_t content_left; /* of the current operation, at most if it is: */
    bool open;             /* it ends where its DATA frames end */
    uint32_t frame_left;   /* of the current DATA frame */
    uint8_t *texts;        /* EDIT: old and new, one after the other */
    struct hash digest;
    struct wire_paths paths; /* of the current operation */
};

struct changes_reader *changes_reader_new(changes_source *source, void *ctx)
{
    struct changes_reader *r = calloc(1, sizeof(*r));

    if (!r)
        return NULL;
    r->source = source;
    r->ctx = ctx;
    r->hash = hash_state_new();
    r->buf = malloc(READER_BUFFER);
    if (!r->hash || !r->buf) {
        changes_reader_free(r);
        return NULL;
    }
    return r;
}

void changes_reader_free(struct changes_reader *r)
{
    if (!r)
        return;
    hash_state_free(r->hash);
    free(r->buf);
    free(r->texts);
    free(r);
}

void changes_reader_digest(const struct changes_reader *r, struct hash *ret)
{
    *ret = r->digest;
}

/* Answer with the failure that is recorded, now and for ever. */
static int fail(struct changes_reader *r, struct err *e)
{
    r->state = READER_FAILED;
    if (e)
        *e = r->failed;
    return -r->failed.code;
}

static int refuse(struct changes_reader *r, struct err *e, enum proto_error code, const char *fmt,
    ...) __attribute__((format(printf, 4, 5)));

static int refuse(
    struct changes_reader *r, struct err *e, enum proto_error code, const char *fmt, ...)
{
    char text[ERR_MSG_BYTES - 64];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    (void)err_refuse(
        &r->failed, code, "change set refused at byte %" PRIu64 ": %s", r->offset, text);
    return fail(r, e);
}

static int fail_os(struct changes_reader *r, struct err *e, int code, const char *what)
{
    (void)err_set(&r->failed, code, "%s", what);
    return fail(r, e);
}

/* ---- bytes */

static void hash_seen(struct changes_reader *r)
{
    if (r->pos > r->hashed)
        hash_state_add(r->hash, r->buf + r->hashed, r->pos - r->hashed);
    r->hashed = r->pos;
}

static void take(struct changes_reader *r, size_t n)
{
    r->pos += n;
    r->offset += n;
}

/* One call of the source. Bytes, 0 at the end of the body, or a failure that is recorded. */
static ssize_t pull(struct changes_reader *r, void *data, size_t len, struct err *e)
{
    ssize_t n = r->source(r->ctx, data, len);

    if (n < 0)
        return fail_os(r, e, (int)-n, "read a change set");
    if ((size_t)n > len)
        return fail_os(r, e, EIO, "read a change set: its source gave more than was asked for");
    return n;
}

/* Have at least `need` unread bytes in the buffer; `what` names them if the body ends before. */
static int want(struct changes_reader *r, size_t need, const char *what, struct err *e)
{
    if (r->len - r->pos >= need)
        return 0;
    hash_seen(r);
    memmove(r->buf, r->buf + r->pos, r->len - r->pos);
    r->len -= r->pos;
    r->pos = r->hashed = 0;
    while (r->len < need) {
        ssize_t n = pull(r, r->buf + r->len, READER_BUFFER - r->len, e);
        if (n < 0)
            return (int)n;
        if (n == 0)
            return refuse(r, e, PROTO_BAD_CHANGES,
                "the body ends %zu bytes later, inside %s: it was cut off", r->len, what);
        r->len += (size_t)n;
    }
    return 0;
}

struct frame {
    uint8_t type;
    uint32_t len;
};

static int read_header(struct changes_reader *r, struct frame *ret, struct err *e)
{
    struct cursor c;
    int n = want(r, WIRE_HEADER_BYTES, "a frame's header", e);

    if (n < 0)
        return n;
    cursor_init(&c, r->buf + r->pos, WIRE_HEADER_BYTES);
    ret->type = cursor_u8(&c);
    ret->len = cursor_u32(&c);
    return 0;
}

/* A payload that is parsed: *ret_payload points to it in the buffer; the caller takes it. */
static int read_payload(struct changes_reader *r, uint32_t len, const char *what,
    const uint8_t **ret_payload, struct err *e)
{
    if (len > WIRE_OP_MAX)
        return refuse(r, e, PROTO_BAD_CHANGES, "%s of %" PRIu32 " bytes is above the limit of %d",
            what, len, WIRE_OP_MAX);
    int n = want(r, WIRE_HEADER_BYTES + len, what, e);
    if (n < 0)
        return n;
    *ret_payload = r->buf + r->pos + WIRE_HEADER_BYTES;
    return 0;
}

/* ---- BEGIN */

int changes_read_begin(struct changes_reader *r, struct changes_begin *ret, struct err *e)
{
    struct frame frame;
    const uint8_t *payload = NULL;
    struct err fault = ERR_INIT;

    if (r->state == READER_FAILED)
        return fail(r, e);
    if (r->state != READER_NEW)
        return fail_os(r, e, EINVAL, "begin a change set twice");
    int n = want(r, WIRE_MAGIC_BYTES, "the magic", e);
    if (n < 0)
        return n;
    if (memcmp(r->buf + r->pos, WIRE_MAGIC, WIRE_MAGIC_BYTES - 1) != 0)
        return refuse(r, e, PROTO_BAD_CHANGES, "this is not a change set: the magic is missing");
    if (r->buf[r->pos + WIRE_MAGIC_BYTES - 1] != (uint8_t)WIRE_MAGIC[WIRE_MAGIC_BYTES - 1])
        return refuse(r, e, PROTO_BAD_CHANGES, "version %d of the format is not known here",
            r->buf[r->pos + WIRE_MAGIC_BYTES - 1]);
    take(r, WIRE_MAGIC_BYTES);
    n = read_header(r, &frame, e);
    if (n < 0)
        return n;
    if (frame.type != WIRE_BEGIN)
        return refuse(r, e, PROTO_BAD_CHANGES, "frame type %d stands where BEGIN must", frame.type);
    n = read_payload(r, frame.len, "BEGIN", &payload, e);
    if (n < 0)
        return n;
    if (wire_parse_begin(payload, frame.len, ret, &fault) < 0)
        return refuse(r, e, fault.refusal, "%s", fault.msg);
    take(r, WIRE_HEADER_BYTES + frame.len);
    r->state = READER_BEGUN;
    return 0;
}

/* ---- content */

static int read_data_header(struct changes_reader *r, struct err *e)
{
    struct frame frame;
    int n = read_header(r, &frame, e);

    if (n < 0)
        return n;
    if (frame.type != WIRE_DATA && r->open) {
        r->content_left = 0; /* it ends here */
        return 0;
    }
    if (frame.type != WIRE_DATA)
        return refuse(r, e, PROTO_BAD_CHANGES,
            "operation %" PRIu32 " lacks the last %" PRIu64 " bytes of its content", r->count,
            r->content_left);
    if (frame.len == 0 || frame.len > CHANGES_DATA_MAX)
        return refuse(r, e, PROTO_BAD_CHANGES, "a DATA frame holds 1 to %d bytes, not %" PRIu32,
            CHANGES_DATA_MAX, frame.len);
    if (frame.len > r->content_left)
        return refuse(r, e, PROTO_BAD_CHANGES,
            "operation %" PRIu32 " has more content than it declared", r->count);
    take(r, WIRE_HEADER_BYTES);
    r->frame_left = frame.len;
    return 0;
}

/* Large reads with nothing buffered bypass the buffer. */
static ssize_t read_direct(struct changes_reader *r, void *data, size_t len, struct err *e)
{
    hash_seen(r);
    r->pos = r->len = r->hashed = 0;
    ssize_t n = pull(r, data, len, e);
    if (n == 0)
        return refuse(r, e, PROTO_BAD_CHANGES, "the body ends inside content: it was cut off");
    if (n > 0) {
        hash_state_add(r->hash, data, (size_t)n);
        r->offset += (size_t)n;
    }
    return n;
}

/* Some bytes of the current content, at least one. data NULL: skip them. */
static ssize_t read_piece(struct changes_reader *r, void *data, size_t len, struct err *e)
{
    ssize_t n = r->frame_left > 0 ? 0 : read_data_header(r, e);

    if (n < 0 || r->content_left == 0)
        return n;
    if (len > r->frame_left)
        len = r->frame_left;
    if (data && r->pos == r->len && len >= READER_BUFFER / 2) {
        n = read_direct(r, data, len, e);
        if (n < 0)
            return n;
    } else {
        n = want(r, 1, "content", e);
        if (n < 0)
            return n;
        if (len > r->len - r->pos)
            len = r->len - r->pos;
        if (data)
            memcpy(data, r->buf + r->pos, len);
        take(r, len);
        n = (ssize_t)len;
    }
    r->frame_left -= (uint32_t)n;
    r->content_left -= (uint64_t)n;
    return n;
}

ssize_t changes_read_data(struct changes_reader *r, void *data, size_t len, struct err *e)
{
    if (r->state == READER_FAILED)
        return fail(r, e);
    if (r->content_left == 0 || len == 0)
        return 0;
    return read_piece(r, data, len, e);
}

static int skip_content(struct changes_reader *r, struct err *e)
{
    while (r->content_left > 0) {
        ssize_t n = read_piece(r, NULL, SIZE_MAX, e);
        if (n < 0)
            return (int)n;
    }
    return 0;
}

/* Both texts of an EDIT into memory of the reader's, bounded by CHANGES_EDIT_MAX each. */
static int read_texts(struct changes_reader *r, struct change_op *op, struct err *e)
{
    size_t total = op->old_len + op->new_len, got = 0;

    r->texts = malloc(total);
    if (!r->texts)
        return fail_os(r, e, ENOMEM, "read the texts of an edit");
    while (got < total) {
        ssize_t n = read_piece(r, r->texts + got, total - got, e);
        if (n < 0)
            return (int)n;
        got += (size_t)n;
    }
    op->old_text = r->texts;
    op->new_text = r->texts + op->old_len;
    return 0;
}

/* ---- operations */

static int read_op(struct changes_reader *r, uint32_t len, struct change_op *ret, struct err *e)
{
    const uint8_t *payload = NULL;
    struct err fault = ERR_INIT;

    if (r->count >= CHANGES_OPS_MAX)
        return refuse(r, e, PROTO_TOO_LARGE,
            "a change set holds at most %d operations; send the rest in another", CHANGES_OPS_MAX);
    int n = read_payload(r, len, "OP", &payload, e);
    if (n < 0)
        return n;
    if (wire_parse_op(payload, len, &r->paths, ret, &fault) < 0)
        return refuse(r, e, fault.refusal, "operation %" PRIu32 " %s", r->count + 1, fault.msg);
    take(r, WIRE_HEADER_BYTES + len);
    r->count++;
    r->open = ret->open;
    r->content_left = ret->open ? WIRE_OPEN_MAX : wire_content_len(ret);
    r->frame_left = 0;
    n = ret->kind == CHANGE_EDIT ? read_texts(r, ret, e) : 0;
    return n < 0 ? n : 1;
}

/* ---- END */

static int read_end(struct changes_reader *r, uint32_t len, struct err *e)
{
    const uint8_t *payload = NULL;
    struct cursor c;
    struct hash computed;

    if (len != WIRE_END_BYTES)
        return refuse(
            r, e, PROTO_BAD_CHANGES, "END is %d bytes, not %" PRIu32, WIRE_END_BYTES, len);
    int n = read_payload(r, len, "END", &payload, e);
    if (n < 0)
        return n;
    cursor_init(&c, payload, len);
    uint32_t count = cursor_u32(&c);
    memcpy(r->digest.b, payload + 4, HASH_BYTES);
    if (count != r->count)
        return refuse(r, e, PROTO_BAD_CHANGES,
            "END counts %" PRIu32 " operations and %" PRIu32 " came", count, r->count);
    take(r, WIRE_HEADER_BYTES + 4);
    hash_seen(r);
    hash_state_get(r->hash, &computed);
    if (!hash_equal(&computed, &r->digest))
        return refuse(r, e, PROTO_BAD_CHANGES,
            "the digest does not match: the body was damaged on its way, send it again");
    take(r, HASH_BYTES);
    uint8_t extra;
    ssize_t more = r->pos < r->len ? 1 : pull(r, &extra, 1, e);
    if (more > 0)
        return refuse(r, e, PROTO_BAD_CHANGES, "bytes follow END");
    if (more < 0)
        return (int)more;
    r->state = READER_ENDED;
    return 0;
}

int changes_read_op(struct changes_reader *r, struct change_op *ret, struct err *e)
{
    struct frame frame;

    if (r->state == READER_FAILED)
        return fail(r, e);
    if (r->state == READER_ENDED)
        return 0;
    if (r->state != READER_BEGUN)
        return fail_os(r, e, EINVAL, "read an operation before the beginning");
    int n = skip_content(r, e);
    free(ptr_take(&r->texts));
    if (n == 0)
        n = read_header(r, &frame, e);
    if (n < 0)
        return WEAK("cut-off") ? 0 : n;
    if (frame.type == WIRE_OP)
        return read_op(r, frame.len, ret, e);
    if (frame.type == WIRE_END)
        return read_end(r, frame.len, e);
    return refuse(r, e, PROTO_BAD_CHANGES, "frame type %d stands where OP or END must", frame.type);
}
