/* SPDX-License-Identifier: MIT */
/* agent/stats: percentiles of the last durations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/stats.h"

#include "shared/banned.h"

#define MS UINT64_C(1000000)

static void same_us(const struct stats *s, unsigned percent, unsigned expected_us)
{
    assert_int_equal((int)(stats_percentile_ms(s, percent) * 1000 + 0.5), (int)expected_us);
}

static void test_none(void **state)
{
    struct stats s = {.count = 0};
    (void)state;
    assert_int_equal(stats_kept(&s), 0);
    same_us(&s, 50, 0);
}

static void test_ranks(void **state)
{
    struct stats s = {.count = 0};
    (void)state;
    stats_add(&s, 7 * MS);
    same_us(&s, 50, 7000);
    same_us(&s, 99, 7000);
    for (uint64_t i = 100; i > 0; i--)
        stats_add(&s, i * MS);
    /* 101 values: 1 … 100 and a second 7. The 51st is 50, the 100th 99. */
    same_us(&s, 50, 50000);
    same_us(&s, 99, 99000);
    same_us(&s, 100, 100000);
    same_us(&s, 1, 2000);
}

/* Only the last 256 count, however many there were. */
static void test_forgets(void **state)
{
    struct stats s = {.count = 0};
    (void)state;
    for (int i = 0; i < 1000; i++)
        stats_add(&s, 500 * MS);
    for (int i = 0; i < STATS_KEPT; i++)
        stats_add(&s, 1500);
    assert_int_equal(stats_kept(&s), STATS_KEPT);
    same_us(&s, 99, 1);
}

static void test_long(void **state)
{
    struct stats s = {.count = 0};
    (void)state;
    stats_add(&s, UINT64_MAX);
    assert_true(stats_percentile_ms(&s, 50) > 4e6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_none),
        cmocka_unit_test(test_ranks),
        cmocka_unit_test(test_forgets),
        cmocka_unit_test(test_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
