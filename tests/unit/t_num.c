/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <string.h>

#include <cmocka.h>

#include "shared/num.h"

#include "shared/banned.h"

#define KI UINT64_C(1024)
#define UNTOUCHED UINT64_C(0xdead)

struct row {
    const char *text;
    uint64_t max;
    int result;
    uint64_t value; /* with result 0 */
};

typedef int parser(const char *text, uint64_t max, uint64_t *ret);

static void check(parser *parse, const struct row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t value = UNTOUCHED;
        int r = parse(rows[i].text, rows[i].max, &value);
        uint64_t expected = rows[i].result == 0 ? rows[i].value : UNTOUCHED;
        if (r != rows[i].result || value != expected)
            fail_msg("'%s': result %d, value %llu", rows[i].text, r, (unsigned long long)value);
    }
}

static void decimal(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"0", 0, 0, 0}, {"7", 7, 0, 7},                            /* exactly the maximum */
        {"8", 7, -ERANGE, 0},                                      /* one above */
        {"007", 7, 0, 7},                                          /* leading zeros are digits */
        {"18446744073709551615", UINT64_MAX, 0, UINT64_MAX},       /* the largest there is */
        {"18446744073709551616", UINT64_MAX, -ERANGE, 0},          /* overflow in the addition */
        {"99999999999999999999", UINT64_MAX, -ERANGE, 0},          /* and in the multiplication */
        {"99999999999999999999999999999", UINT64_MAX, -ERANGE, 0}, /* long after */
        {"184467440737095516160", UINT64_MAX, -ERANGE,
            0}, /* 10 × 2^64: fits again once it has wrapped */
        {"99999999999999999999x", UINT64_MAX, -EINVAL, 0}, /* no number at all */
        {"", 9, -EINVAL, 0}, {" 1", 9, -EINVAL, 0}, {"1 ", 9, -EINVAL, 0}, {"+1", 9, -EINVAL, 0},
        {"-1", 9, -EINVAL, 0}, {"0x1", 9, -EINVAL, 0}, {"1e3", 9999, -EINVAL, 0},
        {"1.0", 9, -EINVAL, 0}, {"\xd9\xa1", 9, -EINVAL, 0}, /* a digit of another script */
    };
    check(num_u64, rows, sizeof(rows) / sizeof(rows[0]));
}

static void bytes(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"512", UINT64_MAX, 0, 512},
        {"512B", UINT64_MAX, 0, 512},
        {"64K", UINT64_MAX, 0, 64 * KI},
        {"64kb", UINT64_MAX, 0, 64 * KI},
        {"64KiB", UINT64_MAX, 0, 64 * KI},
        {"64kib", UINT64_MAX, 0, 64 * KI},
        {"1M", UINT64_MAX, 0, KI * KI},
        {"1.5G", UINT64_MAX, 0, 3 * KI * KI * KI / 2},
        {"0.5K", UINT64_MAX, 0, 512},
        {"1.000001T", UINT64_MAX, 0, KI * KI * KI * KI + 1099511}, /* rounded down */
        {"2T", UINT64_MAX, 0, 2 * KI * KI * KI * KI},
        {"1K", 1024, 0, 1024},
        {"1K", 1023, -ERANGE, 0},                               /* the maximum is of the result */
        {"1.1K", 1024, -ERANGE, 0},                             /* fraction included */
        {"16777215T", UINT64_MAX, 0, UINT64_C(16777215) << 40}, /* the largest that fits */
        {"16777215.999999T", UINT64_MAX, 0, (UINT64_C(16777215) << 40) + UINT64_C(1099510528264)},
        {"16777216T", UINT64_MAX, -ERANGE, 0}, /* 2^64 */
        {"18446744073709551616", UINT64_MAX, -ERANGE, 0},
        {"18446744073709551616Q", UINT64_MAX, -EINVAL,
            0},                          /* the unit is wrong whatever it counts */
        {"1.5", UINT64_MAX, -EINVAL, 0}, /* half a byte */
        {"1.5B", UINT64_MAX, -EINVAL, 0},
        {"1.0000001K", UINT64_MAX, -EINVAL, 0}, /* seven digits */
        {"1.K", UINT64_MAX, -EINVAL, 0},
        {".5K", UINT64_MAX, -EINVAL, 0},
        {"1..5K", UINT64_MAX, -EINVAL, 0},
        {"1.5.5K", UINT64_MAX, -EINVAL, 0},
        {"K", UINT64_MAX, -EINVAL, 0},
        {"", UINT64_MAX, -EINVAL, 0},
        {"1 K", UINT64_MAX, -EINVAL, 0},
        {"1KK", UINT64_MAX, -EINVAL, 0},
        {"1iB", UINT64_MAX, -EINVAL, 0},
        {"-1K", UINT64_MAX, -EINVAL, 0},
        {"1E", UINT64_MAX, -EINVAL, 0},
    };
    check(num_bytes, rows, sizeof(rows) / sizeof(rows[0]));
}

static void durations(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"250ms", UINT64_MAX, 0, 250},
        {"60s", UINT64_MAX, 0, 60000},
        {"60", UINT64_MAX, 0, 60000}, /* bare: seconds */
        {"1.5s", UINT64_MAX, 0, 1500},
        {"0.25", UINT64_MAX, 0, 250},
        {"2m", UINT64_MAX, 0, 120000},
        {"1h", UINT64_MAX, 0, 3600000},
        {"0", UINT64_MAX, 0, 0},
        {"1s", 1000, 0, 1000},
        {"1.001s", 1000, -ERANGE, 0},
        {"1.5ms", UINT64_MAX, -EINVAL, 0}, /* nothing below a millisecond */
        {"1M", UINT64_MAX, -EINVAL, 0},    /* upper case could mean months */
        {"1S", UINT64_MAX, -EINVAL, 0},
        {"1d", UINT64_MAX, -EINVAL, 0},
        {"1h30m", UINT64_MAX, -EINVAL, 0},
        {"18446744073709551615h", UINT64_MAX, -ERANGE, 0},
        {"s", UINT64_MAX, -EINVAL, 0},
        {"", UINT64_MAX, -EINVAL, 0},
    };
    check(num_duration_ms, rows, sizeof(rows) / sizeof(rows[0]));
}

static void human(void **state)
{
    (void)state;
    static const struct {
        uint64_t bytes;
        const char *text;
    } rows[] = {
        {0, "0 B"}, {1023, "1023 B"}, {1024, "1.0 KiB"}, {1536, "1.5 KiB"},
        {24 * KI * KI, "24.0 MiB"}, {KI * KI - 1, "1.0 MiB"},        /* not 1024.0 KiB */
        {KI * KI - 52, "1023.9 KiB"},                                /* the last that rounds down */
        {KI * KI * KI * 5 / 2, "2.5 GiB"}, {UINT64_MAX, "16.0 EiB"}, /* no overflow at the top */
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char out[16];
        assert_string_equal(num_human_bytes(rows[i].bytes, out, sizeof(out)), rows[i].text);
    }
}

static void checked_arithmetic(void **state)
{
    (void)state;
    uint64_t v;
    assert_true(num_add(UINT64_MAX - 1, 1, &v));
    assert_true(v == UINT64_MAX);
    assert_false(num_add(UINT64_MAX, 1, &v));
    assert_true(num_mul(UINT64_C(1) << 32, (UINT64_C(1) << 32) - 1, &v));
    assert_false(num_mul(UINT64_C(1) << 32, UINT64_C(1) << 32, &v));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decimal),
        cmocka_unit_test(bytes),
        cmocka_unit_test(durations),
        cmocka_unit_test(human),
        cmocka_unit_test(checked_arithmetic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
