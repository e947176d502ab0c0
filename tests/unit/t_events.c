/* SPDX-License-Identifier: MIT */
/* The ring of events: order, positions, what readers that fall behind are told, the end. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "server/events.h"

#include "shared/banned.h"

static void add(struct events *ev, uint64_t generation)
{
    const struct event event = {
        .kind = EVENT_GENERATION, .generation = generation, .by = "changes", .client = "lk.1"};
    events_add(ev, &event);
}

/* Read all there is from `after` on; the generations must be first … last. */
static uint64_t read_all(struct events *ev, uint64_t after, uint64_t first, uint64_t last)
{
    struct event got;
    for (uint64_t g = first; g <= last; g++) {
        uint64_t before = after;
        assert_int_equal(events_next(ev, &after, &got, 0), EVENTS_ONE);
        assert_int_equal(got.generation, g);
        assert_int_equal(got.id, after);
        if (before != 0)
            assert_int_equal(after, before + 1);
        assert_string_equal(got.client, "lk.1");
    }
    assert_int_equal(events_next(ev, &after, &got, 0), EVENTS_NONE);
    return after;
}

static void test_order(void **state)
{
    struct events ev;
    uint64_t last = 0;
    (void)state;
    events_init(&ev);
    assert_int_equal(events_enter(&ev, &last), 0);
    assert_int_equal(read_all(&ev, 0, 1, 0), last); /* nothing yet, nothing missing */
    for (uint64_t g = 1; g <= 40; g++) {            /* the ring grows twice meanwhile */
        add(&ev, g);
        last = read_all(&ev, last, g, g); /* one who keeps up */
    }
    assert_int_equal(read_all(&ev, 0, 1, 40), last);          /* from the beginning */
    assert_int_equal(read_all(&ev, last - 10, 31, 40), last); /* from a place between */
    events_leave(&ev);
    events_release(&ev);
}

static void test_gaps(void **state)
{
    static const struct {
        uint64_t back; /* position, counted back from the last event */
        bool gap;
        const char *why;
    } rows[] = {
        {0, false, "has read everything"},
        {EVENTS_KEPT, false, "the oldest that is kept comes next"},
        {EVENTS_KEPT + 1, true, "one was dropped"},
        {100000, true, "from before the start"},
        {UINT64_MAX, true, "never given out: one after the last"},
    };
    struct events ev;
    struct event got;
    uint64_t last = 0;
    (void)state;
    events_init(&ev);
    assert_int_equal(events_enter(&ev, &last), 0);
    for (uint64_t g = 1; g <= EVENTS_KEPT + 44; g++)
        add(&ev, g);
    last += EVENTS_KEPT + 44;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint64_t after = last - rows[i].back;
        enum events_found found = events_next(&ev, &after, &got, 0);
        if ((found == EVENTS_GAP) != rows[i].gap)
            fail_msg("%s: %d", rows[i].why, (int)found);
        if (found == EVENTS_GAP)
            assert_int_equal(read_all(&ev, after, 45, EVENTS_KEPT + 44), last);
    }
    /* "From the beginning" is a gap once something was dropped. */
    uint64_t after = 0;
    assert_int_equal(events_next(&ev, &after, &got, 0), EVENTS_GAP);
    events_release(&ev);
}

static void test_end(void **state)
{
    struct events ev;
    struct event got;
    uint64_t after = 0;
    (void)state;
    events_init(&ev);
    add(&ev, 1);
    events_close(&ev);
    assert_int_equal(events_next(&ev, &after, &got, 0), EVENTS_ONE); /* what was there is told */
    assert_int_equal(events_next(&ev, &after, &got, 60000), EVENTS_END);
    for (unsigned i = 0; i < EVENTS_READERS_MAX; i++)
        assert_int_equal(events_enter(&ev, &after), 0);
    assert_int_equal(events_enter(&ev, &after), -EBUSY);
    events_leave(&ev);
    assert_int_equal(events_enter(&ev, &after), 0);
    events_release(&ev);
}

struct reader {
    struct events *ev;
    uint64_t after, seen;
};

static void *reader_main(void *ctx)
{
    struct reader *r = ctx;
    struct event got;
    for (;;) {
        enum events_found found = events_next(r->ev, &r->after, &got, 60000);
        if (found == EVENTS_END)
            return NULL;
        r->seen += found == EVENTS_ONE;
    }
}

/* A reader that waits is woken by each event, and by the end. */
static void test_waiting(void **state)
{
    struct events ev;
    struct reader readers[4];
    pthread_t threads[4];
    (void)state;
    events_init(&ev);
    for (size_t i = 0; i < 4; i++) {
        readers[i] = (struct reader){.ev = &ev};
        assert_int_equal(pthread_create(&threads[i], NULL, reader_main, &readers[i]), 0);
    }
    for (uint64_t g = 1; g <= EVENTS_KEPT; g++)
        add(&ev, g);
    events_kick(&ev);
    events_close(&ev);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(readers[i].seen, EVENTS_KEPT);
    }
    events_release(&ev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_gaps),
        cmocka_unit_test(test_end),
        cmocka_unit_test(test_waiting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
