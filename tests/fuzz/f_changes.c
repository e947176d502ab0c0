/* SPDX-License-Identifier: MIT */
/*
 * Foreign change sets. A plain input goes in as it is; one whose first byte is 0 is a list of
 * frames (type, u16 length, payload) that is given the magic, real headers and a correct END, so
 * that the fuzzer gets past the digest. What the reader accepts, the writer must write, and the
 * result must read as the same.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "shared/changes.h"

#include "shared/banned.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define BODY_MAX (8u << 20)
#define CONTENT_MAX (1u << 20) /* of all the fuzzer's operations together */

struct feeder {
    const uint8_t *p;
    size_t left, step;
};

static ssize_t feeder_read(void *ctx, void *data, size_t len)
{
    struct feeder *f = ctx;
    size_t n = f->left < len ? f->left : len;

    if (n > f->step)
        n = f->step;
    if (n)
        memcpy(data, f->p, n);
    f->p += n;
    f->left -= n;
    return (ssize_t)n;
}

static void must(int r)
{
    if (r < 0)
        abort();
}

static void frames_to_body(const uint8_t *data, size_t size, struct buf *b)
{
    uint32_t ops = 0;
    struct cursor c;
    struct hash digest;

    must(buf_add(b, "SILTCHG\001", 8));
    cursor_init(&c, data, size);
    while (c.left > 3) {
        uint8_t type = cursor_u8(&c);
        size_t len = cursor_u16(&c);
        if (len > c.left)
            len = c.left;
        must(buf_add_u8(b, type));
        must(buf_add_u32(b, (uint32_t)len));
        if (len)
            must(buf_add(b, cursor_bytes(&c, len), len));
        ops += type == 2;
    }
    must(buf_add_u8(b, 4));
    must(buf_add_u32(b, 20));
    must(buf_add_u32(b, ops));
    hash_buf(b->data, b->len, &digest);
    must(buf_add(b, digest.b, HASH_BYTES));
}

/* Read a body and write it again. 0 when it was good. */
static int rewrite(const uint8_t *body, size_t len, size_t step, struct buf *out)
{
    struct feeder feeder = {body, len, step};
    struct changes_reader *r = changes_reader_new(feeder_read, &feeder);
    struct changes_writer *w = changes_writer_new();
    struct changes_begin begin;
    struct change_op op;
    struct err e = ERR_INIT;
    uint8_t data[512];

    if (!r || !w)
        abort();
    int n = changes_read_begin(r, &begin, &e);
    if (n == 0)
        must(changes_write_begin(w, &begin, out));
    while (n >= 0 && (n = changes_read_op(r, &op, &e)) > 0) {
        ssize_t got;
        must(changes_write_op(w, &op, out));
        while ((got = changes_read_data(r, data, sizeof(data), &e)) > 0)
            must(changes_write_data(w, data, (size_t)got, out));
        if (got < 0)
            n = (int)got;
    }
    if (n == 0)
        must(changes_write_end(w, out));
    if (n < 0 && (e.code == 0 || e.msg[0] == '\0'))
        abort(); /* a refusal says why */
    changes_reader_free(r);
    changes_writer_free(w);
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf body, one, two;

    if (size < 2 || size > CONTENT_MAX)
        return 0;
    buf_init(&body, BODY_MAX);
    buf_init(&one, BODY_MAX);
    buf_init(&two, BODY_MAX);
    if (data[0] == 0)
        frames_to_body(data + 2, size - 2, &body);
    else
        must(buf_add(&body, data, size));
    if (rewrite(body.data, body.len, 1 + data[1] % 64, &one) == 0) {
        if (rewrite(one.data, one.len, SIZE_MAX, &two) != 0 || one.len != two.len ||
            memcmp(one.data, two.data, one.len) != 0)
            abort();
    }
    buf_release(&body);
    buf_release(&one);
    buf_release(&two);
    return 0;
}
