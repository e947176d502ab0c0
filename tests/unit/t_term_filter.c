/* SPDX-License-Identifier: MIT */
/* What reaches a terminal of output that is not for one; in any pieces. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/term_filter.h"

#include "shared/banned.h"

static const struct {
    const char *in, *out;
} rows[] = {
    {"plain\ttext\r\n", "plain\ttext\r\n"},
    {"gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80",
        "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80"},
    /* colours */
    {"\x1b[31mred\x1b[0m\x1b[m", "\x1b[31mred\x1b[0m\x1b[m"},
    {"\x1b[1;38:2:1:2:3mx", "\x1b[1;38:2:1:2:3mx"},
    /* titles, clipboards, questions, the cursor, another character set */
    {"\x1b]0;title\x07", "\\x1b]0;title\\x07"},
    {"\x1b]52;c;cm0=\x1b\\", "\\x1b]52;c;cm0=\\x1b\\"},
    {"\x1b[6n", "\\x1b[6n"},
    {"\x1b[2J\x1b[1;1H", "\\x1b[2J\\x1b[1;1H"},
    {"\x1b(0", "\\x1b(0"},
    {"\x1b[?25l", "\\x1b[?25l"},
    {"\x1b\x1b[31m", "\\x1b\x1b[31m"},
    {"a\x08\x7f\x01", "a\\x08\\x7f\\x01"},
    /* the same begun by one character: CSI and OSC of C1, in UTF-8 and bare */
    {"\xc2\x9b"
     "2J",
        "\\xc2\\x9b2J"},
    {"\x9b"
     "2J",
        "\\x9b2J"},
    {"\xc2\xa0|\xc2\xbf", "\xc2\xa0|\xc2\xbf"},
    {"\xc2\x1b[2J", "\\xc2\\x1b[2J"},
    {"\xc2\xc2\x9b", "\\xc2\\xc2\\x9b"},
    /* a character that is broken off hides nothing */
    {"\xe2\x1b[2J", "\xe2\\x1b[2J"},
    {"\xe2\xc2\x9b"
     "2J",
        "\xe2\\xc2\\x9b2J"},
    {"\xff\xfe\x80", "\\xff\\xfe\\x80"},
    /* what only begins like a colour, and one that is too long */
    {"\x1b[31", "\\x1b[31"},
    {"\x1b", "\\x1b"},
    {"\xc2", "\\xc2"},
    {"\x1b[111111111111111111111111111111111m", "\\x1b[111111111111111111111111111111111m"},
};

static void test_rows(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        for (size_t piece = 1; piece <= 40; piece++) {
            struct term_filter f = {.held_len = 0};
            CLEANUP(buf_release) struct buf out;
            size_t len = strlen(rows[i].in);
            buf_init(&out, 1000);
            for (size_t at = 0; at < len; at += piece)
                assert_int_equal(
                    term_filter_add(&f, rows[i].in + at, len - at < piece ? len - at : piece, &out),
                    0);
            assert_int_equal(term_filter_end(&f, &out), 0);
            if (strcmp(buf_str(&out), rows[i].out) != 0)
                fail_msg("row %zu in pieces of %zu: '%s'", i, piece, buf_str(&out));
        }
    }
}

/* Whatever comes in, what goes out has no control character but those that pass, and no ESC but of
 * a colour. */
static void test_any(void **state)
{
    unsigned seed = 1;
    (void)state;
    for (int round = 0; round < 2000; round++) {
        static const uint8_t often[] = {
            0x1b, '[', 'm', ']', '3', ';', 0xc2, 0x9b, 0xe2, 0x80, '\n', 0};
        struct term_filter f = {.held_len = 0};
        CLEANUP(buf_release) struct buf out;
        uint8_t in[64];
        buf_init(&out, 1000);
        for (size_t i = 0; i < sizeof(in); i++) {
            seed = seed * 1103515245 + 12345;
            in[i] = (seed >> 16) % 4 ? often[(seed >> 20) % sizeof(often)] : (uint8_t)(seed >> 18);
        }
        assert_int_equal(term_filter_add(&f, in, sizeof(in), &out), 0);
        assert_int_equal(term_filter_end(&f, &out), 0);
        for (size_t i = 0; i < out.len; i++) {
            uint8_t c = out.data[i];
            if (c == 0x1b) {
                size_t k = i + 1;
                assert_int_equal(out.data[k++], '[');
                while (out.data[k] >= '0' && out.data[k] <= ';')
                    k++;
                assert_int_equal(out.data[k], 'm');
            } else {
                assert_true(c >= 0x20 || c == '\n' || c == '\t' || c == '\r');
                assert_true(c != 0x7f);
            }
            if (c == 0xc2)
                assert_true(out.data[i + 1] >= 0xa0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows), cmocka_unit_test(test_any)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
