/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "server/multipart.h"
#include "shared/buf.h"

#include "shared/banned.h"

#define TYPE "multipart/form-data; boundary=XyZ"

/* A body in memory that is handed out in pieces: the first `split` bytes, then the rest, or `step`
 * bytes at a time. */
struct feed {
    const char *data;
    size_t len, pos, split, step;
    int fail; /* -errno at the end instead of 0 */
};

static ssize_t feed_read(void *ctx, void *data, size_t len)
{
    struct feed *f = ctx;
    size_t n = f->len - f->pos;
    if (n == 0 && f->fail)
        return f->fail;
    if (f->pos < f->split && n > f->split - f->pos)
        n = f->split - f->pos;
    if (f->step && n > f->step)
        n = f->step;
    if (n > len)
        n = len;
    memcpy(data, f->data + f->pos, n);
    f->pos += n;
    return (ssize_t)n;
}

/* The whole body as text: name|filename|type=content; for each part. */
static int flatten(const char *type, struct feed *f, size_t piece, struct buf *out)
{
    struct multipart *m = NULL;
    struct multipart_part part;
    struct err e = ERR_INIT;
    char data[4096];
    ssize_t n = 0;
    int r = multipart_new(type, feed_read, f, &m, &e);
    if (r < 0)
        return r;
    while (n >= 0 && (r = multipart_next(m, &part, &e)) > 0) {
        r = buf_addf(out, "%s|%s|%s=", part.name, part.filename ? part.filename : "-",
            part.content_type ? part.content_type : "-");
        assert_int_equal(r, 0);
        while ((n = multipart_read(m, data, piece, &e)) > 0)
            assert_int_equal(buf_add(out, data, (size_t)n), 0);
        assert_int_equal(buf_adds(out, ";"), 0);
    }
    if (n < 0)
        r = (int)n;
    if (r < 0)
        assert_int_equal(e.code, -r);
    multipart_free(m);
    return r;
}

#define PART(disposition, content)                                                                 \
    "--XyZ\r\nContent-Disposition: form-data; " disposition "\r\n\r\n" content "\r\n"
#define LAST "--XyZ--\r\n"

static const struct {
    const char *body, *want; /* want NULL: -EBADMSG */
} BODIES[] = {
    /* what curl and browsers send */
    {PART("name=\"file\"; filename=\"main.py\"", "print(1)\n") LAST, "file|main.py|-=print(1)\n;"},
    {PART("name=\"a\"", "1") PART("name=\"b\"", "2") LAST, "a|-|-=1;b|-|-=2;"},
    {"--XyZ\r\nContent-Disposition: form-data; name=\"f\"; filename=\"x\"\r\n"
     "Content-Type: text/plain; charset=utf-8\r\n\r\nhi\r\n" LAST,
        "f|x|text/plain; charset=utf-8=hi;"},
    {PART("name=\"empty\"", "") LAST, "empty|-|-=;"},
    {PART("name=\"f\"; filename=\"\"", "") LAST, "f||-=;"}, /* no file chosen */
    {PART("name=\"f\"; filename=\"src/a b.py\"", "x") LAST, "f|src/a b.py|-=x;"},
    {PART("name=a; filename=b.txt", "x") LAST, "a|b.txt|-=x;"},    /* without quotes */
    {PART("filename=\"b\" ; name=\"a\" ;", "x") LAST, "a|b|-=x;"}, /* order, a last semicolon */
    {LAST, ""},                                                    /* no part at all */
    {"--XyZ\r\ncontent-DISPOSITION:form-data;name=\"a\"\r\n\r\nx\r\n" LAST, "a|-|-=x;"},
    {"--XyZ\r\nX-Other: y\r\nContent-Disposition: form-data; name=\"a\"\r\n"
     "Content-Transfer-Encoding: binary\r\n\r\nx\r\n" LAST,
        "a|-|-=x;"},
    /* quoting */
    {PART("name=\"f\"; filename=\"a\\\"b\"", "x") LAST, "f|a\"b|-=x;"}, /* curl before 7.81 */
    {PART("name=\"f\"; filename=\"a\\\\b\"", "x") LAST, "f|a\\b|-=x;"},
    {PART("name=\"f\"; filename=\"a%22b\"", "x") LAST, "f|a\"b|-=x;"}, /* curl, WHATWG */
    {PART("name=\"f\"; filename=\"a%0D%0Ab\"", "x") LAST, "f|a\r\nb|-=x;"},
    {PART("name=\"f\"; filename=\"100%25\"", "x") LAST, "f|100%25|-=x;"}, /* no other escapes */
    {PART("name=\"f\"; filename=\"C:\\dir\\n\"", "x") LAST,
        "f|C:\\dir\\n|-=x;"}, /* no escape either */
    {PART("name=\"f\"; filename=\"a;b=c\"", "x") LAST, "f|a;b=c|-=x;"},
    {PART("name=\"f\"; filename=\"\xc3\xa4\"; filename*=UTF-8''b", "x") LAST, "f|\xc3\xa4|-=x;"},
    /* where content ends */
    {PART("name=\"a\"", "line\r\n\r\n") LAST, "a|-|-=line\r\n\r\n;"},
    {PART("name=\"a\"", "\r\n--Xy") LAST, "a|-|-=\r\n--Xy;"},             /* a beginning */
    {PART("name=\"a\"", "\r\n--XyZZ\r\n") LAST, "a|-|-=\r\n--XyZZ\r\n;"}, /* a longer word */
    {PART("name=\"a\"", "\r\n--XyZ-") LAST, "a|-|-=\r\n--XyZ-;"},
    {PART("name=\"a\"", "\r\r\n\n--XyZ--") LAST, "a|-|-=\r\r\n\n--XyZ--;"}, /* after a bare LF */
    {PART("name=\"a\"", "--XyZ") LAST, "a|-|-=--XyZ;"},
    {"--XyZ  \t\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nx\r\n" LAST,
        "a|-|-=x;"}, /* padding */
    /* preamble and epilogue */
    {"This is a multipart message.\r\n" PART("name=\"a\"", "x") LAST, "a|-|-=x;"},
    {"\r\n" PART("name=\"a\"", "x") LAST, "a|-|-=x;"},
    {PART("name=\"a\"", "x") LAST "epilogue\r\n--XyZ\r\n", "a|-|-=x;"},
    {PART("name=\"a\"", "x") "--XyZ--", "a|-|-=x;"}, /* no last line end */
    /* malformed */
    {"", NULL},
    {"nothing of the kind", NULL},
    {"--XyZ", NULL},
    {"--XyZ\r\n", NULL},
    {PART("name=\"a\"", "x"), NULL}, /* truncated */
    {PART("name=\"a\"", "x") "--XyZ-", NULL},
    {"--XyZ\r\nContent-Disposition: form-data; name=\"a\"\r\n", NULL},
    {"--XyZ\r\n\r\nx\r\n" LAST, NULL},                             /* no headers */
    {"--XyZ\r\nContent-Type: text/plain\r\n\r\nx\r\n" LAST, NULL}, /* no disposition */
    {PART("filename=\"a\"", "x") LAST, NULL},                      /* no name */
    {PART("name=\"a", "x") LAST, NULL},                            /* open quote */
    {PART("name=\"a\"b", "x") LAST, NULL},
    {PART("name=", "x") LAST, NULL},
    {PART("name=\"a\"; name=\"b\"", "x") LAST, NULL},
    {PART("name=\"a\"; filename=\"b\"; filename=\"c\"", "x") LAST, NULL},
    {PART("name=\"a\tb\x01\"", "x") LAST, NULL}, /* control character */
    {PART("name=\"a\"\r\nContent-Disposition: form-data; name=\"b\"", "x") LAST, NULL},
    {PART("name=\"a\"\r\n folded: x", "x") LAST, NULL},
    {PART("name=\"a\"\nX: y", "x") LAST, NULL}, /* bare LF */
    {PART("name=\"a\"\r\nno colon", "x") LAST, NULL},
    {PART("name=\"a\"\r\nX : y", "x") LAST, NULL}, /* space before colon */
    {PART("name=\"a\"\r\nContent-Transfer-Encoding: base64", "eA==") LAST, NULL},
    {"--XyZ\r\nContent-Disposition: attachment; name=\"a\"\r\n\r\nx\r\n" LAST, NULL},
    {"--XyZ\r\nContent-Disposition: form-dataX; name=\"a\"\r\n\r\nx\r\n" LAST, NULL},
};

static void test_bodies(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(BODIES) / sizeof(BODIES[0]); i++) {
        size_t len = strlen(BODIES[i].body);
        /* split at every byte, and byte by byte on both sides */
        for (size_t split = 0; split <= len + 1; split++) {
            CLEANUP(buf_release) struct buf out;
            buf_init(&out, 4096);
            bool drip = split == len + 1;
            struct feed f = {
                .data = BODIES[i].body, .len = len, .split = split, .step = drip ? 1 : 0};
            int r = flatten(TYPE, &f, drip ? 1 : 4096, &out);
            if (r != (BODIES[i].want ? 0 : -EBADMSG))
                fail_msg("row %zu split %zu: returned %d", i, split, r);
            if (BODIES[i].want && strcmp(buf_str(&out), BODIES[i].want) != 0)
                fail_msg("row %zu split %zu: '%s'", i, split, buf_str(&out));
        }
    }
}

static const struct {
    const char *type;
    int want;
} TYPES[] = {
    {"multipart/form-data; boundary=XyZ", 0},
    {"Multipart/Form-Data;boundary=\"XyZ\"", 0},
    {"multipart/form-data; charset=utf-8; BOUNDARY=XyZ", 0},
    {NULL, -EINVAL},
    {"", -EINVAL},
    {"multipart/form-data", -EINVAL},
    {"multipart/form-data; boundary=", -EINVAL},
    {"multipart/form-data; boundary=\"\"", -EINVAL},
    {"multipart/form-data; boundary=\"XyZ", -EINVAL},
    {"multipart/form-data; boundary=XyZ; boundary=abc", -EINVAL},
    {"multipart/form-data boundary=XyZ", -EINVAL},
    {"multipart/form-datax; boundary=XyZ", -EINVAL},
    {"multipart/mixed; boundary=XyZ", -EINVAL},
    {"multipart/form-data; boundary=\"XyZ \"", -EINVAL}, /* may not end in a space */
    {"multipart/form-data; boundary=X\xc3\xa4Z", -EINVAL},
    /* 71 characters */
    {"multipart/form-data; boundary="
     "12345678901234567890123456789012345678901234567890123456789012345678901",
        -EINVAL},
};

static void test_types(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(TYPES) / sizeof(TYPES[0]); i++) {
        CLEANUP(buf_release) struct buf out;
        buf_init(&out, 4096);
        struct feed f = {
            .data = PART("name=\"a\"", "x") LAST, .len = sizeof(PART("name=\"a\"", "x") LAST) - 1};
        if (flatten(TYPES[i].type, &f, 100, &out) != TYPES[i].want)
            fail_msg("row %zu", i);
        if (TYPES[i].want == 0)
            assert_string_equal(buf_str(&out), "a|-|-=x;");
    }
}

/* A boundary of the greatest length, and a body much longer than the window. */
static void test_long(void **state)
{
    (void)state;
    const char *b = "1234567890123456789012345678901234567890123456789012345678901234567890";
    size_t size = 1024 * 1024;
    CLEANUP(buf_release) struct buf body, want, out;
    buf_init(&body, 4 * size);
    buf_init(&want, 4 * size);
    buf_init(&out, 4 * size);
    assert_int_equal(
        buf_addf(&body, "--%s\r\nContent-Disposition: form-data; name=\"f\"\r\n\r\n", b), 0);
    assert_int_equal(buf_adds(&want, "f|-|-="), 0);
    size_t from = body.len;
    /* full of beginnings of the delimiter */
    while (body.len < from + size)
        assert_int_equal(buf_addf(&body, "\r\n--%.*s\r\r\n-", (int)(body.len % 70), b), 0);
    assert_int_equal(buf_add(&want, body.data + from, body.len - from), 0);
    assert_int_equal(buf_adds(&want, ";"), 0);
    assert_int_equal(buf_addf(&body, "\r\n--%s--\r\n", b), 0);
    char type[128];
    (void)snprintf(type, sizeof(type), "multipart/form-data; boundary=%s", b);
    struct feed f = {.data = buf_str(&body), .len = body.len, .step = 1000};
    assert_int_equal(flatten(type, &f, 700, &out), 0);
    assert_int_equal(out.len, want.len);
    assert_memory_equal(out.data, want.data, want.len);
}

static void test_limits(void **state)
{
    (void)state;
    struct {
        size_t pad;
        int want;
    } rows[] = {{8100, 0}, {8300, -EBADMSG}, {200000, -EBADMSG}};
    for (size_t i = 0; i < 3; i++) {
        CLEANUP(buf_release) struct buf body, out;
        buf_init(&body, 1 << 20);
        buf_init(&out, 1 << 20);
        assert_int_equal(
            buf_adds(&body, "--XyZ\r\nContent-Disposition: form-data; name=\"a\"\r\nX: "), 0);
        for (size_t n = 0; n < rows[i].pad; n++)
            assert_int_equal(buf_addc(&body, 'x'), 0);
        assert_int_equal(buf_adds(&body, "\r\n\r\nx\r\n" LAST), 0);
        struct feed f = {.data = buf_str(&body), .len = body.len};
        assert_int_equal(flatten(TYPE, &f, 100, &out), rows[i].want);
    }
    CLEANUP(buf_release) struct buf many, sink;
    buf_init(&many, 4 << 20);
    buf_init(&sink, 4 << 20);
    for (unsigned i = 0; i <= MULTIPART_PARTS_MAX; i++)
        assert_int_equal(buf_adds(&many, PART("name=\"a\"", "x")), 0);
    assert_int_equal(buf_adds(&many, LAST), 0);
    struct feed f = {.data = buf_str(&many), .len = many.len};
    assert_int_equal(flatten(TYPE, &f, 100, &sink), -EBADMSG);
}

/* What the source says is handed on; and a part may be skipped unread. */
static void test_source_and_skip(void **state)
{
    (void)state;
    static const char body[] = PART("name=\"a\"", "unread") PART("name=\"b\"", "2") LAST;
    struct multipart *m;
    struct multipart_part part;
    struct err e = ERR_INIT;
    char data[16];
    struct feed f = {.data = body, .len = sizeof(body) - 1};
    assert_int_equal(multipart_new(TYPE, feed_read, &f, &m, &e), 0);
    assert_int_equal(multipart_read(m, data, sizeof(data), &e), 0); /* before the first part */
    assert_int_equal(multipart_next(m, &part, &e), 1);
    assert_int_equal(multipart_next(m, &part, &e), 1);
    assert_string_equal(part.name, "b");
    assert_int_equal(multipart_read(m, data, sizeof(data), &e), 1);
    assert_int_equal(multipart_read(m, data, sizeof(data), &e), 0);
    assert_int_equal(multipart_read(m, data, sizeof(data), &e), 0);
    assert_int_equal(multipart_next(m, &part, &e), 0);
    assert_int_equal(multipart_next(m, &part, &e), 0);
    multipart_free(m);

    CLEANUP(buf_release) struct buf out;
    buf_init(&out, 4096);
    struct feed broken = {.data = body, .len = 70, .fail = -ETIMEDOUT};
    assert_int_equal(flatten(TYPE, &broken, 10, &out), -ETIMEDOUT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bodies),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_long),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_source_and_skip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
