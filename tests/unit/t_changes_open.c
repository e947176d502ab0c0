/* SPDX-License-Identifier: MIT */
/* shared/changes: a PATCH whose delta is made while it is sent. Its content ends where its frames
 * end, and the hash of the result is the last of it. Run from the project's root. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shared/changes.h"
#include "shared/io.h"

#include "shared/banned.h"

#define BODY_MAX (1u << 20)
#define CONTENT "rs\002\066 a delta, and 16 bytes"

static const struct change_op open_op = {.kind = CHANGE_PATCH,
    .path = "a",
    .base_kind = CHANGE_BASE_HASH,
    .base = {.b = {7}},
    .size = 11,
    .open = true,
    .content_len = CHANGE_LEN_UNKNOWN};
static const struct change_op chmod_op = {.kind = CHANGE_CHMOD, .path = "b", .mode = 0755};

struct body {
    struct buf b;
    size_t at, most;
};

static ssize_t read_body(void *ctx, void *data, size_t len)
{
    struct body *body = ctx;
    size_t left = body->b.len - body->at, n = len < left ? len : left;

    n = n < body->most ? n : body->most;
    memcpy(data, body->b.data + body->at, n);
    body->at += n;
    return (ssize_t)n;
}

/* An open operation with its content in three pieces, and another behind it. */
static void write_body(struct buf *b)
{
    struct changes_begin begin = {.if_generation = CHANGES_NO_GENERATION};
    struct changes_writer *w = changes_writer_new();

    assert_non_null(w);
    buf_init(b, BODY_MAX);
    assert_int_equal(changes_write_begin(w, &begin, b), 0);
    assert_int_equal(changes_write_op(w, &open_op, b), 0);
    assert_int_equal(changes_write_data(w, CONTENT, 4, b), 0);
    assert_int_equal(changes_write_data(w, CONTENT + 4, 1, b), 0);
    assert_int_equal(changes_write_data(w, CONTENT + 5, sizeof(CONTENT) - 6, b), 0);
    assert_int_equal(changes_write_op(w, &chmod_op, b), 0);
    assert_int_equal(changes_write_end(w, b), 0);
    changes_writer_free(w);
}

/* What changes_read_op says last; the content is read if `read`, else skipped. */
static int read_all(struct body *body, bool read, struct err *e)
{
    struct changes_begin begin;
    struct change_op op;
    char content[sizeof(CONTENT) + 8];
    size_t have = 0;
    ssize_t n = 0;
    struct changes_reader *r = changes_reader_new(read_body, body);

    assert_non_null(r);
    int result = changes_read_begin(r, &begin, e);
    if (result == 0)
        result = changes_read_op(r, &op, e);
    if (result == 1) {
        assert_int_equal(op.kind, CHANGE_PATCH);
        assert_true(op.open && !op.has_hash && op.content_len == CHANGE_LEN_UNKNOWN);
        while (read && (n = changes_read_data(r, content + have, sizeof(content) - have, e)) > 0)
            have += (size_t)n;
        result = n < 0 ? (int)n : changes_read_op(r, &op, e);
    }
    if (result == 1) {
        assert_int_equal(op.kind, CHANGE_CHMOD);
        assert_false(op.open);
        if (read) {
            assert_int_equal(have, sizeof(CONTENT) - 1);
            assert_memory_equal(content, CONTENT, have);
        }
        assert_int_equal(changes_read_data(r, content, 1, e), 0);
        result = changes_read_op(r, &op, e);
    }
    changes_reader_free(r);
    return result;
}

static void test_round_trip(void **unused)
{
    struct err e = ERR_INIT;
    struct body body = {.at = 0};

    (void)unused;
    write_body(&body.b);
    for (body.most = 1; body.most < body.b.len + 1; body.most++)
        for (int read = 0; read < 2; read++) {
            body.at = 0;
            assert_int_equal(read_all(&body, read, &e), 0);
        }
    buf_release(&body.b);
}

static void test_every_cut(void **unused)
{
    struct body body = {.most = SIZE_MAX};

    (void)unused;
    write_body(&body.b);
    size_t whole = body.b.len;
    for (body.b.len = 0; body.b.len < whole; body.b.len++) {
        struct err e = ERR_INIT;
        body.at = 0;
        assert_true(read_all(&body, true, &e) < 0);
        assert_int_equal(e.refusal, PROTO_BAD_CHANGES);
    }
    body.b.len = whole;
    buf_release(&body.b);
}

/* Only a PATCH is open, and one that is names neither hash nor length. */
static void test_what_is_no_open_patch(void **unused)
{
    struct changes_begin begin = {.if_generation = CHANGES_NO_GENERATION};
    struct changes_writer *w = changes_writer_new();
    struct change_op put = {.kind = CHANGE_PUT, .path = "a", .open = true};
    struct change_op named = open_op;
    struct body body = {.most = SIZE_MAX};
    struct err e = ERR_INIT;

    (void)unused;
    assert_non_null(w);
    buf_init(&body.b, BODY_MAX);
    assert_int_equal(changes_write_begin(w, &begin, &body.b), 0);
    assert_int_equal(changes_write_op(w, &put, &body.b), -EINVAL);
    named.has_hash = true;
    assert_int_equal(changes_write_op(w, &named, &body.b), -EINVAL);
    changes_writer_free(w);
    buf_release(&body.b);
    /* The same on the wire: the last byte of the OP is the last of the delta's length. */
    write_body(&body.b);
    size_t op_at = 8 + 5 + 26, len_at = op_at + 5 + body.b.data[op_at + 4] - 1;
    assert_int_equal(body.b.data[op_at], 2);
    assert_int_equal(body.b.data[len_at], 0);
    body.b.data[len_at] = 1;
    assert_int_equal(read_all(&body, true, &e), -EPROTO);
    assert_int_equal(e.refusal, PROTO_BAD_CHANGES);
    assert_non_null(strstr(e.msg, "names the hash and the length"));
    buf_release(&body.b);
}

/* The bytes of a golden file: hexadecimal, up to a "#" in each line. */
static void load_golden(const char *path, struct buf *bytes)
{
    struct err e = ERR_INIT;
    struct buf text;
    unsigned value;
    int used;

    if (io_read_file(path, BODY_MAX, &text, &e) < 0)
        fail_msg("%s (run from the project's root)", e.msg);
    buf_init(bytes, BODY_MAX);
    for (const char *line = buf_str(&text); line; line = strchr(line, '\n')) {
        line += *line == '\n';
        for (; sscanf(line, " %2x%n", &value, &used) == 1; line += used)
            assert_int_equal(buf_add_u8(bytes, (uint8_t)value), 0);
    }
    buf_release(&text);
}

static void test_golden(void **unused)
{
    static const char delta[] = "\x72\x73\x02\x36\x45\x00\x05\x05, you\x45\x05\x01";
    struct changes_begin begin = {
        .client = "abcdef.k7", .seq = 7, .parent = 6, .if_generation = CHANGES_NO_GENERATION};
    struct change_op op = open_op;
    struct changes_writer *w = changes_writer_new();
    struct changes_reader *reader;
    struct body stored = {.most = 5};
    struct err e = ERR_INIT;
    struct hash result;
    struct buf made;
    char content[64];
    size_t have = 0;
    ssize_t n;

    (void)unused;
    assert_non_null(w);
    buf_init(&made, BODY_MAX);
    op.path = "greeting";
    hash_buf("hello\n", 6, &op.base);
    hash_buf("hello, you\n", 11, &result);
    assert_int_equal(changes_write_begin(w, &begin, &made), 0);
    assert_int_equal(changes_write_op(w, &op, &made), 0);
    assert_int_equal(changes_write_data(w, delta, 7, &made), 0);
    memcpy(content, delta + 7, sizeof(delta) - 7); /* with its NUL, which is the delta's END */
    memcpy(content + sizeof(delta) - 7, result.b, HASH_BYTES);
    assert_int_equal(changes_write_data(w, content, sizeof(delta) - 7 + HASH_BYTES, &made), 0);
    assert_int_equal(changes_write_end(w, &made), 0);
    load_golden("tests/golden/changes-open.txt", &stored.b);
    assert_int_equal(stored.b.len, made.len);
    assert_memory_equal(stored.b.data, made.data, made.len);

    reader = changes_reader_new(read_body, &stored);
    assert_non_null(reader);
    assert_int_equal(changes_read_begin(reader, &begin, &e), 0);
    assert_int_equal(changes_read_op(reader, &op, &e), 1);
    assert_true(op.open && op.size == 11);
    while ((n = changes_read_data(reader, content + have, sizeof(content) - have, &e)) > 0)
        have += (size_t)n;
    assert_int_equal(n, 0);
    assert_int_equal(have, sizeof(delta) + HASH_BYTES);
    assert_memory_equal(content, delta, sizeof(delta));
    assert_memory_equal(content + sizeof(delta), result.b, HASH_BYTES);
    assert_int_equal(changes_read_op(reader, &op, &e), 0);
    changes_reader_free(reader);
    changes_writer_free(w);
    buf_release(&made);
    buf_release(&stored.b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_every_cut),
        cmocka_unit_test(test_what_is_no_open_patch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
