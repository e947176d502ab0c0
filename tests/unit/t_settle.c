/* SPDX-License-Identifier: MIT */
/* agent/settle: fed with values and times; no clock is read. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/settle.h"

#include "shared/banned.h"

#define EVENTS_MAX 6

struct event_at {
    uint64_t at_us;
    struct settle_event event;
};

struct settle_case {
    const char *what;
    struct event_at events[EVENTS_MAX]; /* until path is NULL */
    const char *path;                   /* this one */
    uint64_t due_us;                    /* becomes due exactly then */
};

static const struct settle_case cases[] = {
    {"a save is due at once", {{100, {"a", SETTLE_WRITTEN, 0, 0}}}, "a", 100},
    {"a file of a new name has to stay for a moment", {{100, {"a", SETTLE_NEW, 0, 0}}}, "a", 5100},
    {"so is what was moved here", {{100, {"a", SETTLE_ARRIVED, 7, 9}}}, "a", 100},
    {"a write without close waits for quiet", {{100, {"a", SETTLE_MODIFIED, 0, 0}}}, "a", 30100},
    {"a further write waits again",
        {{0, {"a", SETTLE_MODIFIED, 0, 0}}, {20000, {"a", SETTLE_MODIFIED, 0, 0}}}, "a", 50000},
    {"the close ends the wait",
        {{0, {"a", SETTLE_MODIFIED, 0, 0}}, {20000, {"a", SETTLE_WRITTEN, 0, 0}}}, "a", 20000},
    {"but not past the cap",
        {{0, {"a", SETTLE_MODIFIED, 0, 0}}, {29000, {"a", SETTLE_MODIFIED, 0, 0}},
            {58000, {"a", SETTLE_MODIFIED, 0, 0}}, {87000, {"a", SETTLE_MODIFIED, 0, 0}},
            {116000, {"a", SETTLE_MODIFIED, 0, 0}}, {145000, {"a", SETTLE_MODIFIED, 0, 0}}},
        "a", 150000},
    {"a deletion waits for its successor", {{0, {"a", SETTLE_GONE, 0, 0}}}, "a", 10000},
    {"which is due when complete",
        {{0, {"a", SETTLE_GONE, 0, 0}}, {10, {"a", SETTLE_MODIFIED, 0, 0}},
            {3000, {"a", SETTLE_WRITTEN, 0, 0}}},
        "a", 3000},
    {"moved away: waits for the other half", {{0, {"a", SETTLE_LEFT, 5, 0}}}, "a", 50000},
    {"which ends the wait", {{0, {"a", SETTLE_LEFT, 5, 0}}, {4000, {"b", SETTLE_ARRIVED, 5, 0}}},
        "a", 4000},
    {"by its inode too", {{0, {"a", SETTLE_LEFT, 5, 77}}, {4000, {"b", SETTLE_ARRIVED, 6, 77}}},
        "a", 4000},
    {"a stranger does not", {{0, {"a", SETTLE_LEFT, 5, 77}}, {4000, {"b", SETTLE_ARRIVED, 6, 78}}},
        "a", 50000},
    {"no cookie, no inode: no pair",
        {{0, {"a", SETTLE_LEFT, 0, 0}}, {4000, {"b", SETTLE_ARRIVED, 0, 0}}}, "a", 50000},
    {"one that never stops delays nobody",
        {{0, {"a", SETTLE_MODIFIED, 0, 0}}, {5000, {"b", SETTLE_WRITTEN, 0, 0}},
            {10000, {"a", SETTLE_MODIFIED, 0, 0}}},
        "b", 5000},
};

/* Is path among what is taken at this time? Frees all. */
static int taken(struct settle *s, const char *path, uint64_t at_us)
{
    char *paths[16];
    int found = 0;
    size_t n = settle_take(s, at_us, paths, 16);
    for (size_t i = 0; i < n; i++) {
        found += strcmp(paths[i], path) == 0;
        free(paths[i]);
    }
    return found;
}

static void test_cases(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct settle_case *c = &cases[i];
        /* Twice, for taking changes what waits: just before its time and at its time. */
        for (int late = 0; late < 2; late++) {
            struct settle *s = settle_new();
            assert_non_null(s);
            for (size_t k = 0; k < EVENTS_MAX && c->events[k].event.path; k++)
                assert_int_equal(settle_feed(s, &c->events[k].event, c->events[k].at_us), 0);
            uint64_t at = late ? c->due_us : c->due_us - 1;
            if (taken(s, c->path, at) != late)
                fail_msg("%s: '%s' at %llu", c->what, c->path, (unsigned long long)at);
            settle_free(s);
        }
    }
}

static void test_order_and_next(void **state)
{
    (void)state;
    struct settle *s = settle_new();
    char *paths[2];
    assert_int_equal(settle_next_us(s), SETTLE_NEVER);
    assert_int_equal(
        settle_feed(s, &(struct settle_event){.path = "a", .hint = SETTLE_MODIFIED}, 0), 0);
    assert_int_equal(settle_next_us(s), SETTLE_QUIET_US);
    assert_int_equal(
        settle_feed(s, &(struct settle_event){.path = "b", .hint = SETTLE_WRITTEN}, 5), 0);
    assert_int_equal(
        settle_feed(s, &(struct settle_event){.path = "c", .hint = SETTLE_WRITTEN}, 5), 0);
    assert_int_equal(settle_next_us(s), 5);
    settle_hurry(s, 6);
    /* Oldest first, and no more than asked for. */
    assert_int_equal(settle_take(s, 6, paths, 2), 2);
    assert_string_equal(paths[0], "a");
    assert_string_equal(paths[1], "b");
    assert_int_equal(settle_taken_us(s), 0);
    free(paths[0]);
    free(paths[1]);
    assert_int_equal(settle_next_us(s), 6);
    assert_int_equal(settle_count(s), 1);
    assert_true(taken(s, "c", 6));
    assert_int_equal(settle_taken_us(s), 5);
    assert_int_equal(settle_next_us(s), SETTLE_NEVER);
    /* After the cap a writer starts anew. */
    assert_int_equal(
        settle_feed(s, &(struct settle_event){.path = "a", .hint = SETTLE_MODIFIED}, 7), 0);
    assert_int_equal(settle_next_us(s), 7 + SETTLE_QUIET_US);
    settle_free(s);
}

static void test_full(void **state)
{
    (void)state;
    struct settle *s = settle_new();
    char path[32];
    for (unsigned i = 0; i <= SETTLE_PATHS_MAX; i++) {
        (void)snprintf(path, sizeof(path), "f%u", i);
        struct settle_event event = {.path = path, .hint = SETTLE_WRITTEN};
        assert_int_equal(settle_feed(s, &event, i), i < SETTLE_PATHS_MAX ? 0 : -ENOBUFS);
    }
    /* A known path is still heard. */
    assert_int_equal(
        settle_feed(s, &(struct settle_event){.path = "f1", .hint = SETTLE_GONE}, 9), 0);
    settle_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_order_and_next),
        cmocka_unit_test(test_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
