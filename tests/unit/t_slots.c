/* SPDX-License-Identifier: MIT */
/* server/slots: places shared by owners in turns. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "server/slots.h"

#include "shared/banned.h"

#define MAX 64

static struct slots_ticket tickets[MAX];
static char order[MAX * 4 + 1]; /* numbers of the tickets that were granted, as text */

static void granted(struct slots_ticket *t)
{
    size_t len = strlen(order);
    (void)snprintf(order + len, sizeof order - len, "%d ", (int)(t - tickets));
}

static struct slots *make(uint64_t running, uint64_t waiting, uint64_t each, uint64_t waiting_each)
{
    const struct slots_config config = {running, waiting, each, waiting_each};
    struct slots *s = slots_new(&config, granted);
    assert_non_null(s);
    order[0] = '\0';
    return s;
}

static void want(struct slots *s, const char *owner, int number)
{
    assert_int_equal(slots_enter(s, owner, &tickets[number]), 0);
    slots_want(s, &tickets[number]);
}

static void leave(struct slots *s, int number)
{
    slots_leave(s, &tickets[number]);
}

/* One owner came first with much; the others come when each of them has its turn. */
static void test_turns(void **state)
{
    (void)state;
    struct slots *s = make(1, 100, 1, 100);
    for (int i = 0; i < 4; i++)
        want(s, "greedy", i);
    want(s, "a", 4);
    want(s, "b", 5);
    want(s, "a", 6);
    assert_string_equal(order, "0 ");
    assert_int_equal(slots_waiting(s), 6);
    leave(s, 0);
    leave(s, 1);
    leave(s, 4);
    leave(s, 5);
    leave(s, 2);
    leave(s, 6);
    assert_string_equal(order, "0 1 4 5 2 6 3 ");
    leave(s, 3);
    assert_int_equal(slots_active(s), 0);
    slots_free(s);
}

/* Places stay free rather than go to one that has its part. */
static void test_part(void **state)
{
    (void)state;
    struct slots *s = make(4, 100, 3, 100);
    for (int i = 0; i < 6; i++)
        want(s, "greedy", i);
    assert_string_equal(order, "0 1 2 ");
    want(s, "late", 6);
    assert_string_equal(order, "0 1 2 6 ");
    leave(s, 6);
    assert_string_equal(order, "0 1 2 6 ");
    leave(s, 1);
    assert_string_equal(order, "0 1 2 6 3 ");
    for (int i = 0; i < 6; i++)
        leave(s, i);
    assert_int_equal(slots_running(s), 0);
    assert_int_equal(slots_waiting(s), 0);
    slots_free(s);
}

/* The queue is bounded, for all and for each. */
static void test_refusals(void **state)
{
    (void)state;
    struct slots *s = make(2, 2, 1, 1);
    want(s, "a", 0);
    want(s, "a", 1);
    assert_int_equal(slots_enter(s, "a", &tickets[2]), -EDQUOT);
    want(s, "b", 3);
    want(s, "c", 4);
    assert_int_equal(slots_enter(s, "d", &tickets[5]), -EBUSY);
    /* An answered one counts no more, but keeps its place. */
    slots_answered(s, &tickets[0]);
    assert_int_equal(slots_enter(s, "a", &tickets[2]), 0);
    assert_string_equal(order, "0 3 ");
    leave(s, 0);
    assert_string_equal(order, "0 3 1 ");
    leave(s, 2); /* entered, never wanted */
    leave(s, 2); /* nothing any more */
    leave(s, 1);
    leave(s, 4);
    leave(s, 3);
    assert_int_equal(slots_active(s), 0);
    slots_free(s);
}

/* Whoever gives up leaves the queue in the middle, at its end and alone. */
static void test_giving_up(void **state)
{
    (void)state;
    struct slots *s = make(1, 100, 1, 100);
    want(s, "x", 0);
    for (int i = 1; i < 5; i++)
        want(s, "a", i);
    want(s, "b", 5);
    want(s, "c", 6);
    leave(s, 2);
    leave(s, 4);
    leave(s, 5);
    want(s, "a", 7);
    leave(s, 0);
    leave(s, 1);
    leave(s, 6);
    leave(s, 3);
    assert_string_equal(order, "0 1 6 3 7 ");
    leave(s, 7);
    assert_int_equal(slots_waiting(s), 0);
    slots_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_turns),
        cmocka_unit_test(test_part),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_giving_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
