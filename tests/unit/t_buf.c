/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shared/buf.h"

#include "shared/banned.h"

static void empty_buffers_read_as_empty_strings(void **state)
{
    (void)state;
    CLEANUP(buf_release) struct buf b;
    buf_init(&b, 10);
    assert_null(b.data);
    assert_string_equal(buf_str(&b), "");
    buf_reset(&b);
    buf_consume(&b, 0);
    CLEANUP(freep) char *text = buf_steal(&b);
    assert_string_equal(text, "");
    assert_int_equal(buf_add(&b, NULL, 0), 0);
    assert_string_equal(buf_str(&b), "");
    buf_release(NULL);
}

static void appends_stand_behind_each_other(void **state)
{
    (void)state;
    CLEANUP(buf_release) struct buf b;
    buf_init(&b, 100);
    assert_int_equal(buf_add(&b, "ab\0c", 4), 0);
    assert_int_equal(buf_addc(&b, 'd'), 0);
    assert_int_equal(buf_adds(&b, "ef"), 0);
    assert_int_equal(buf_addf(&b, "%d-%s", 42, "x"), 0);
    assert_int_equal(b.len, 11);
    assert_memory_equal(b.data, "ab\0cdef42-x", 12); /* with the NUL */
}

static void the_maximum_is_exact(void **state)
{
    (void)state;
    CLEANUP(buf_release) struct buf b;
    buf_init(&b, 5);
    assert_int_equal(buf_adds(&b, "1234"), 0);
    /* Every kind of append that is one too long leaves the content and its NUL alone. */
    assert_int_equal(buf_adds(&b, "56"), -ENOBUFS);
    assert_int_equal(buf_addf(&b, "%d", 56), -ENOBUFS);
    assert_int_equal(buf_add_u16(&b, 1), -ENOBUFS);
    assert_int_equal(buf_reserve(&b, 2), -ENOBUFS);
    assert_int_equal(buf_reserve(&b, SIZE_MAX), -ENOBUFS);
    assert_int_equal(b.len, 4);
    assert_string_equal(buf_str(&b), "1234");
    assert_int_equal(buf_addf(&b, "%s", "5"), 0); /* exactly full */
    assert_string_equal(buf_str(&b), "12345");
    assert_int_equal(buf_addc(&b, '6'), -ENOBUFS);
    assert_int_equal(buf_addf(&b, "%s", ""), 0); /* nothing still fits */
}

static void a_maximum_of_nothing_holds_nothing(void **state)
{
    (void)state;
    CLEANUP(buf_release) struct buf b;
    buf_init(&b, 0);
    assert_int_equal(buf_addc(&b, 'x'), -ENOBUFS);
    assert_int_equal(buf_adds(&b, ""), 0);
    assert_string_equal(buf_str(&b), "");
}

static void no_maximum_does_not_overflow(void **state)
{
    (void)state;
    CLEANUP(buf_release) struct buf b;
    buf_init(&b, SIZE_MAX);
    assert_int_equal(buf_adds(&b, "x"), 0);
    int r = buf_reserve(&b, SIZE_MAX - 1); /* len + more would wrap */
    assert_int_equal(r, -ENOBUFS);
    assert_string_equal(buf_str(&b), "x");
}

static void long_formats_are_written_whole(void **state)
{
    (void)state;
    char long_text[1000];
    memset(long_text, 'y', sizeof(long_text) - 1);
    long_text[sizeof(long_text) - 1] = '\0';
    CLEANUP(buf_release) struct buf b;
    buf_init(&b, 10000);
    assert_int_equal(buf_adds(&b, "<"), 0);
    assert_int_equal(buf_addf(&b, "%s%d%s", long_text, 7, long_text), 0);
    assert_int_equal(b.len, 2 * 999 + 2);
    assert_int_equal(b.data[1000], '7');
    assert_int_equal(b.data[b.len], 0);
}

static void stolen_text_leaves_an_empty_buffer(void **state)
{
    (void)state;
    CLEANUP(buf_release) struct buf b;
    buf_init(&b, 10);
    assert_int_equal(buf_adds(&b, "abc"), 0);
    CLEANUP(freep) char *text = buf_steal(&b);
    assert_string_equal(text, "abc");
    assert_null(b.data);
    assert_int_equal(buf_adds(&b, "0123456789"), 0); /* the maximum is kept */
    assert_int_equal(buf_addc(&b, 'x'), -ENOBUFS);
    assert_string_equal(text, "abc");
}

static void consume_drops_the_beginning(void **state)
{
    (void)state;
    CLEANUP(buf_release) struct buf b;
    buf_init(&b, 10);
    assert_int_equal(buf_adds(&b, "abcdef"), 0);
    buf_consume(&b, 0);
    buf_consume(&b, 2);
    assert_string_equal(buf_str(&b), "cdef");
    buf_consume(&b, 4);
    assert_int_equal(b.len, 0);
    assert_string_equal(buf_str(&b), "");
    assert_int_equal(buf_adds(&b, "0123456789"), 0); /* the room is there again */
    buf_reset(&b);
    assert_string_equal(buf_str(&b), "");
}

static void integers_are_big_endian_and_come_back(void **state)
{
    (void)state;
    static const uint8_t wire[] = {
        0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0xf8, 0xf9, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff};
    CLEANUP(buf_release) struct buf b;
    buf_init(&b, sizeof(wire));
    assert_int_equal(buf_add_u8(&b, 0x01), 0);
    assert_int_equal(buf_add_u16(&b, 0x0203), 0);
    assert_int_equal(buf_add_u32(&b, 0x04050607), 0);
    assert_int_equal(buf_add_u64(&b, UINT64_C(0xf8f9fafbfcfdfeff)), 0);
    assert_int_equal(b.len, sizeof(wire));
    assert_memory_equal(b.data, wire, sizeof(wire));

    struct cursor c;
    cursor_init(&c, b.data, b.len);
    assert_int_equal(cursor_u8(&c), 0x01);
    assert_int_equal(cursor_u16(&c), 0x0203);
    assert_int_equal(cursor_u32(&c), 0x04050607);
    assert_true(cursor_u64(&c) == UINT64_C(0xf8f9fafbfcfdfeff));
    assert_int_equal(c.left, 0);
    assert_false(c.bad);
}

static void short_input_stays_bad(void **state)
{
    (void)state;
    static const uint8_t wire[] = {1, 2, 3};
    struct cursor c;
    cursor_init(&c, wire, sizeof(wire));
    assert_int_equal(cursor_u32(&c), 0);
    assert_true(c.bad);
    assert_int_equal(cursor_u8(&c), 0); /* three bytes are left, and yet */
    assert_null(cursor_bytes(&c, 0));
    assert_true(c.bad);

    cursor_init(&c, wire, sizeof(wire));
    assert_null(cursor_bytes(&c, SIZE_MAX));
    assert_true(c.bad);
}

static void bytes_are_given_in_place(void **state)
{
    (void)state;
    static const uint8_t wire[] = {1, 2, 3};
    struct cursor c;
    cursor_init(&c, wire, sizeof(wire));
    assert_ptr_equal(cursor_bytes(&c, 2), wire);
    assert_ptr_equal(cursor_bytes(&c, 0), wire + 2);
    assert_ptr_equal(cursor_bytes(&c, 1), wire + 2);
    assert_non_null(cursor_bytes(&c, 0)); /* nothing at the very end is no short input */
    assert_false(c.bad);
    assert_null(cursor_bytes(&c, 1));
    assert_true(c.bad);

    cursor_init(&c, NULL, 0);
    assert_non_null(cursor_bytes(&c, 0));
    assert_int_equal(cursor_u8(&c), 0);
    assert_true(c.bad);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(empty_buffers_read_as_empty_strings),
        cmocka_unit_test(appends_stand_behind_each_other),
        cmocka_unit_test(the_maximum_is_exact),
        cmocka_unit_test(a_maximum_of_nothing_holds_nothing),
        cmocka_unit_test(no_maximum_does_not_overflow),
        cmocka_unit_test(long_formats_are_written_whole),
        cmocka_unit_test(stolen_text_leaves_an_empty_buffer),
        cmocka_unit_test(consume_drops_the_beginning),
        cmocka_unit_test(integers_are_big_endian_and_come_back),
        cmocka_unit_test(short_input_stays_bad),
        cmocka_unit_test(bytes_are_given_in_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
