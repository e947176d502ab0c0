/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <string.h>

#include <cmocka.h>

#include "shared/text.h"

#include "shared/banned.h"

#define S(text) text, sizeof(text) - 1
#define COUNT(rows) (sizeof(rows) / sizeof((rows)[0]))
#define ROOM 4096
#define BAD "\xef\xbf\xbd" /* U+FFFD */

static void utf8(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t len;
        bool good;
        size_t whole; /* what text_utf8_whole says */
    } rows[] = {
        {S(""), true, 0}, {S("plain\n\t\x7f"), true, 8},
        {S("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"), true, 9}, /* 2, 3 and 4 bytes */
        {S("\xc2\x80"), true, 2},                             /* the first of 2 bytes */
        {S("\xe0\xa0\x80"), true, 3},                         /* the first of 3 */
        {S("\xf0\x90\x80\x80"), true, 4},                     /* the first of 4 */
        {S("\xf4\x8f\xbf\xbf"), true, 4},                     /* U+10FFFF, the last */
        {S("\xed\x9f\xbf"), true, 3},                         /* just below the surrogates */
        {S("\xee\x80\x80"), true, 3},                         /* just above */
        {S("a\0b"), false, 3},                                /* NUL */
        {S("\xc0\x80"), false, 2},                            /* overlong NUL */
        {S("\xc1\xbf"), false, 2},                            /* overlong 2 */
        {S("\xe0\x9f\xbf"), false, 3},                        /* overlong 3 */
        {S("\xf0\x8f\xbf\xbf"), false, 4},                    /* overlong 4 */
        {S("\xed\xa0\x80"), false, 3},                        /* a surrogate */
        {S("\xed\xbf\xbf"), false, 3},                        /* the last surrogate */
        {S("\xf4\x90\x80\x80"), false, 4},                    /* above U+10FFFF */
        {S("\xf5\x80\x80\x80"), false, 4}, {S("\xff"), false, 1},
        {S("\x80"), false, 1},              /* a continuation of nothing */
        {S("a\x80\x80\x80\x80"), false, 5}, /* more of them than any character has */
        {S("a\xc3"), false, 1},             /* cut off after 1 of 2 */
        {S("a\xe2"), false, 1},             /* 1 of 3 */
        {S("a\xe2\x82"), false, 1},         /* 2 of 3 */
        {S("a\xf0"), false, 1},             /* 1 of 4 */
        {S("a\xf0\x9f"), false, 1},         /* 2 of 4 */
        {S("a\xf0\x9f\x98"), false, 1},     /* 3 of 4 */
        {S("\xe2\x82"), false, 0},          /* nothing whole at all */
        {S("a\xe0\x80"), false, 3},         /* begins no character: not held back */
        {S("a\xed\xa0"), false, 3},         /* nor does half a surrogate */
        {S("a\xf4\x90"), false, 3},         /* nor what would lie above U+10FFFF */
        {S("\xe2\x82\xac\xe2"), false, 3},  /* only the last one is cut off */
        {S("\xe2"
           "A"),
            false, 2}, /* broken, and complete behind it */
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        bool good = text_is_utf8(rows[i].text, rows[i].len);
        size_t whole = text_utf8_whole(rows[i].text, rows[i].len);
        if (good != rows[i].good || whole != rows[i].whole)
            fail_msg("row %zu: good %d, whole %zu", i, good, whole);
    }
    assert_true(text_is_utf8(NULL, 0));
}

typedef int data_adder(struct buf *b, const void *data, size_t len);

struct text_row {
    const char *in;
    size_t len;
    const char *out;
};

static void check_adder(data_adder *add, const struct text_row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        CLEANUP(buf_release) struct buf b;
        buf_init(&b, ROOM);
        assert_int_equal(buf_adds(&b, ">"), 0);
        assert_int_equal(add(&b, rows[i].in, rows[i].len), 0);
        if (strcmp(buf_str(&b) + 1, rows[i].out) != 0 || strlen(rows[i].out) != b.len - 1)
            fail_msg("row %zu: '%s'", i, buf_str(&b) + 1);

        /* It fits exactly under its length, and one byte less changes nothing. */
        for (size_t short_by = 0; short_by < 2 && short_by <= b.len - 1; short_by++) {
            CLEANUP(buf_release) struct buf tight;
            buf_init(&tight, b.len - short_by);
            assert_int_equal(buf_adds(&tight, ">"), 0);
            assert_int_equal(add(&tight, rows[i].in, rows[i].len), short_by ? -ENOBUFS : 0);
            assert_string_equal(buf_str(&tight), short_by ? ">" : buf_str(&b));
            if (b.len == 1)
                break;
        }
    }
}

static void readable(void **state)
{
    (void)state;
    static const struct text_row rows[] = {
        {S(""), ""},
        {S("caf\xc3\xa9\n"), "caf\xc3\xa9\n"}, /* good text and its newlines stay */
        {S("\x1b[2J"), "\x1b[2J"},             /* JSON escapes those itself */
        {S("a\xff"
           "b"),
            "a" BAD "b"},
        {S("\xff\xfe"), BAD BAD}, /* each byte */
        {S("a\0b"), "a" BAD "b"},
        {S("\xe2\x82"), BAD BAD},
        {S("\xed\xa0\x80"), BAD BAD BAD},
        {S("\xe2\x82\xac\x80"), "\xe2\x82\xac" BAD},
    };
    check_adder(text_add_readable, rows, COUNT(rows));
    CLEANUP(buf_release) struct buf b;
    buf_init(&b, ROOM);
    assert_int_equal(text_add_readable(&b, NULL, 0), 0);
}

static int add_escaped(struct buf *b, const void *data, size_t len)
{
    assert_int_equal(strlen(data), len);
    return text_add_escaped(b, data);
}

static void escaped(void **state)
{
    (void)state;
    static const struct text_row rows[] = {
        {S(""), ""},
        {S("na\xc3\xafve.py"), "na\xc3\xafve.py"},
        {S("a\nb"), "a\\x0ab"},     /* no second line */
        {S("\x1b[2J"), "\\x1b[2J"}, /* no order to the terminal */
        {S("\x7f\t\x01"), "\\x7f\\x09\\x01"},
        {S("\xc2\x9b"
           "2J"),
            "\\xc2\\x9b2J"},         /* C1: CSI in one character */
        {S("\xc2\xa0"), "\xc2\xa0"}, /* the first behind C1 */
        {S("\xff"
           "a"),
            "\\xffa"},
        {S("\xe2\x82"), "\\xe2\\x82"},
    };
    check_adder(add_escaped, rows, COUNT(rows));
}

static const struct text_row base64_rows[] = {
    /* RFC 4648, section 10 */
    {S(""), ""},
    {S("f"), "Zg=="},
    {S("fo"), "Zm8="},
    {S("foo"), "Zm9v"},
    {S("foob"), "Zm9vYg=="},
    {S("fooba"), "Zm9vYmE="},
    {S("foobar"), "Zm9vYmFy"},
    /* every digit's edge */
    {S("\x00\x00\x00"), "AAAA"},
    {S("\xff\xff\xff"), "////"},
    {S("\xfb\xef\xbe"), "++++"},
    {S("\xff"), "/w=="},
};

static void base64(void **state)
{
    (void)state;
    check_adder(text_add_base64, base64_rows, COUNT(base64_rows));
    for (size_t i = 0; i < COUNT(base64_rows); i++) {
        const char *text = base64_rows[i].out;
        CLEANUP(buf_release) struct buf b;
        buf_init(&b, base64_rows[i].len); /* exactly enough */
        assert_int_equal(text_decode_base64(text, strlen(text), &b), 0);
        assert_int_equal(b.len, base64_rows[i].len);
        assert_memory_equal(buf_str(&b), base64_rows[i].in, b.len + 1);
    }
    CLEANUP(buf_release) struct buf b;
    buf_init(&b, SIZE_MAX);
    assert_int_equal(text_add_base64(&b, "", SIZE_MAX), -ENOBUFS); /* its text has no size_t */
}

static void base64_is_strict(void **state)
{
    (void)state;
    static const char *const rows[] = {
        "Z", /* 1, 2, 3 digits are no group */
        "Zg",
        "Zg=",
        "Zg===",
        "=",
        "====",     /* padding of nothing */
        "Z===",     /* more than two */
        "Zg==Zg==", /* padding before the end */
        "Zm=v",     /* padding inside */
        "Zh==",     /* bits that no byte takes */
        "Zm9=",
        "Zm9v\n", /* white space */
        "Zm9 ",
        " Zm9",
        "Zm-_", /* the URL's alphabet */
        "Zm9\xc3",
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        CLEANUP(buf_release) struct buf b;
        buf_init(&b, ROOM);
        assert_int_equal(buf_adds(&b, ">"), 0);
        if (text_decode_base64(rows[i], strlen(rows[i]), &b) != -EINVAL)
            fail_msg("'%s' was taken", rows[i]);
        assert_int_equal(b.len, 1);
        assert_string_equal(buf_str(&b), ">");
    }
    CLEANUP(buf_release) struct buf b;
    buf_init(&b, ROOM);
    assert_int_equal(text_decode_base64("Zm9\0", 4, &b), -EINVAL);
    CLEANUP(buf_release) struct buf tight;
    buf_init(&tight, 2);
    assert_int_equal(text_decode_base64("Zm9v", 4, &tight), -ENOBUFS);
}

static void percent(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t len;
        const char *out; /* NULL: refused */
    } rows[] = {
        {S(""), ""}, {S("a/b.py"), "a/b.py"}, {S("a%2Fb%2fc"), "a/b/c"},
        {S("%e2%82%AC"), "\xe2\x82\xac"}, {S("a+b"), "a+b"},     /* a path is no form */
        {S("%252F"), "%2F"},                                     /* decoded once */
        {S("%00"), NULL}, {S("a%00b"), NULL}, {S("a\0b"), NULL}, /* a plain NUL neither */
        {S("%"), NULL}, {S("%4"), NULL}, {S("a%4"), NULL}, {S("%4g"), NULL}, {S("%g4"), NULL},
        {S("%+4"), NULL}, {S("% 4"), NULL}, {"%41", 2, NULL}, /* the length ends it, not the NUL */
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        CLEANUP(buf_release) struct buf b;
        buf_init(&b, ROOM);
        assert_int_equal(buf_adds(&b, ">"), 0);
        int r = text_decode_percent(rows[i].text, rows[i].len, &b);
        if (r != (rows[i].out ? 0 : -EINVAL))
            fail_msg("row %zu: %d", i, r);
        assert_string_equal(buf_str(&b) + 1, rows[i].out ? rows[i].out : "");
    }
}

static int add_percent(struct buf *b, const void *data, size_t len)
{
    (void)len;
    return text_add_percent(b, data);
}

static void percent_encoding(void **state)
{
    (void)state;
    static const struct text_row rows[] = {
        {S(""), ""},
        {S("src/a-b_c.d~e9"), "src/a-b_c.d~e9"},
        {S("a b?c#d%e&f+g"), "a%20b%3Fc%23d%25e%26f%2Bg"},
        {S("\xc3\xa9\n\xff"), "%C3%A9%0A%FF"},
    };
    check_adder(add_percent, rows, COUNT(rows));
}

static void times(void **state)
{
    (void)state;
    static const struct {
        uint64_t wall_ns;
        const char *text;
    } rows[] = {
        {0, "1970-01-01T00:00:00.000000Z"},
        {999, "1970-01-01T00:00:00.000000Z"}, /* cut, not rounded */
        {UINT64_C(1795367065123456789), "2026-11-22T17:04:25.123456Z"},
        {UINT64_C(951782399999999999), "2000-02-28T23:59:59.999999Z"},
        {UINT64_C(951782400000000000), "2000-02-29T00:00:00.000000Z"}, /* a leap day */
        {UINT64_MAX, "2554-07-21T23:34:33.709551Z"},                   /* the last */
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        char out[TEXT_TIME_BYTES];
        assert_string_equal(text_time(rows[i].wall_ns, out), rows[i].text);
    }
}

static void ids(void **state)
{
    (void)state;
    char a[3 + TEXT_ID_CHARS + 1], b[sizeof(a)];
    text_id("sb_", a, sizeof(a));
    text_id("sb_", b, sizeof(b));
    assert_int_equal(strlen(a), sizeof(a) - 1);
    assert_true(text_is_id("sb_", a));
    assert_true(text_is_id("sb_", b));
    assert_string_not_equal(a, b);
    char bare[TEXT_ID_CHARS + 1];
    text_id("", bare, sizeof(bare));
    assert_true(text_is_id("", bare));
}

static void ids_are_checked(void **state)
{
    (void)state;
    static const struct {
        const char *prefix, *id;
        bool yes;
    } rows[] = {
        {"sb_", "sb_abcdefghijklmnopqrstuvwxyz", true},
        {"sb_", "sb_234567abcdefghijklmnopqrst", true},
        {"sb_", "sb_abcdefghijklmnopqrstuvwxy", false},    /* 25 */
        {"sb_", "sb_abcdefghijklmnopqrstuvwxyza", false},  /* 27 */
        {"sb_", "sb_abcdefghijklmnopqrstuvwxyz\n", false}, /* nor anything behind */
        {"sb_", "sb_abcdefghijklmnopqrstuvwxyz/..", false},
        {"sb_", "sb_abcdefghijklmnopqrstuvwxy1", false}, /* no 0, 1, 8, 9 */
        {"sb_", "sb_abcdefghijklmnopqrstuvwxy8", false},
        {"sb_", "sb_ABCDEFGHIJKLMNOPQRSTUVWXYZ", false},
        {"sb_", "sb_abcdefghijklmnopqrstuvwx/.", false},
        {"sb_", "run_abcdefghijklmnopqrstuvwxyz", false},
        {"sb_", "sb_", false},
        {"sb_", "", false},
        {"sb_", "../", false},
    };
    for (size_t i = 0; i < COUNT(rows); i++)
        if (text_is_id(rows[i].prefix, rows[i].id) != rows[i].yes)
            fail_msg("'%s'", rows[i].id);
}

static void sorted_ids_sort_by_time(void **state)
{
    (void)state;
    /* Neighbours at each carry between digits, and where the alphabet goes from '7' to 'a'. */
    static const uint64_t times_ms[] = {0, 1, 5, 6, 31, 32, 1023, 1024, UINT64_C(1795367065122),
        UINT64_C(1795367065123), UINT64_C(1) << 45, (UINT64_C(1) << 47) - 1, UINT64_C(1) << 47,
        (UINT64_C(1) << 48) - 1};
    char last[4 + TEXT_ID_CHARS + 1] = "", id[sizeof(last)];
    for (size_t i = 0; i < COUNT(times_ms); i++) {
        text_id_sorted("run_", times_ms[i], id, sizeof(id));
        assert_true(text_is_id("run_", id));
        if (i > 0 && strncmp(last + 4, id + 4, 10) >= 0)
            fail_msg("%s does not sort before %s", last, id);
        memcpy(last, id, sizeof(id));
    }
    /* Known digits: 0 is "2222222222"; 2^48 − 1 is the highest with two zero bits before it. */
    text_id_sorted("", 0, id, sizeof(id));
    assert_memory_equal(id, "2222222222", 10);
    text_id_sorted("", (UINT64_C(1) << 48) - 1, id, sizeof(id));
    assert_memory_equal(id, "bzzzzzzzzz", 10);
    /* Same millisecond, other id; and a second one with the same time keeps its first part. */
    text_id_sorted("", 77, id, sizeof(id));
    text_id_sorted("", 77, last, sizeof(last));
    assert_memory_equal(id, last, 10);
    assert_string_not_equal(id, last);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(utf8),
        cmocka_unit_test(readable),
        cmocka_unit_test(escaped),
        cmocka_unit_test(base64),
        cmocka_unit_test(base64_is_strict),
        cmocka_unit_test(percent),
        cmocka_unit_test(percent_encoding),
        cmocka_unit_test(times),
        cmocka_unit_test(ids),
        cmocka_unit_test(ids_are_checked),
        cmocka_unit_test(sorted_ids_sort_by_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
