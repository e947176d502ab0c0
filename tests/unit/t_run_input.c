/* SPDX-License-Identifier: MIT */
/* What waits for a program to read it: bounds, repeats, gaps, ends, and both kinds of readers. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/run_input.h"

#include "shared/banned.h"

static struct run_input *make(void)
{
    struct run_input *in = NULL;
    struct err e = ERR_INIT;
    assert_int_equal(run_input_new(&in, &e), 0);
    return in;
}

/* Expect the refusal; PROTO_OK: none. Returns where the writer is then. */
static uint64_t add(
    struct run_input *in, uint64_t offset, const char *text, enum proto_error refusal)
{
    struct err e = ERR_INIT;
    int r = run_input_add(in, &offset, text, strlen(text), 0, &e);
    assert_int_equal(e.refusal, refusal);
    assert_int_equal(r == 0, refusal == PROTO_OK);
    return offset;
}

static void end(struct run_input *in, uint64_t offset, enum proto_error refusal)
{
    struct err e = ERR_INIT;
    assert_int_equal(run_input_end(in, offset, &e) == 0, refusal == PROTO_OK);
    assert_int_equal(e.refusal, refusal);
}

static void expect(int fd, const char *text)
{
    char got[256] = "";
    ssize_t n = read(fd, got, sizeof(got) - 1);
    assert_int_equal(n, (ssize_t)strlen(text));
    assert_string_equal(got, text);
}

/* A repeat is passed over, also one that overlaps; a gap is refused and leaves nothing. */
static void test_offsets(void **state)
{
    struct run_input *in = make();
    int fds[2];
    (void)state;
    assert_int_equal(pipe2(fds, O_NONBLOCK | O_CLOEXEC), 0);
    assert_int_equal(add(in, 0, "abc", PROTO_OK), 3);
    assert_int_equal(add(in, 0, "abc", PROTO_OK), 3);
    assert_int_equal(add(in, 1, "bcde", PROTO_OK), 5);
    assert_int_equal(add(in, 7, "x", PROTO_OFFSET_MISMATCH), 7);
    assert_int_equal(run_input_offset(in), 5);
    assert_int_equal(run_input_flush(in, fds[1], false), 0);
    expect(fds[0], "abcde");
    /* … also when it was moved on already */
    assert_int_equal(add(in, 3, "de", PROTO_OK), 5);
    assert_int_equal(run_input_flush(in, fds[1], false), 0);
    assert_int_equal(read(fds[0], (char[1]){0}, 1), -1);
    end(in, 4, PROTO_OFFSET_MISMATCH);
    end(in, 6, PROTO_OFFSET_MISMATCH);
    end(in, 5, PROTO_OK);
    end(in, 5, PROTO_OK);
    assert_int_equal(add(in, 5, "x", PROTO_INPUT_CLOSED), 5);
    assert_int_equal(add(in, 3, "de", PROTO_OK), 5); /* a repeat is one after the end, too */
    assert_int_equal(run_input_flush(in, fds[1], false), -ESHUTDOWN);
    run_input_free(in);
    (void)close(fds[0]);
    (void)close(fds[1]);
}

/* A terminal is told of the end once, and stays open. */
static void test_terminal(void **state)
{
    struct run_input *in = make();
    int fds[2];
    unsigned rows, cols;
    (void)state;
    assert_int_equal(pipe2(fds, O_NONBLOCK | O_CLOEXEC), 0);
    assert_int_equal(add(in, 0, "x", PROTO_OK), 1);
    end(in, 1, PROTO_OK);
    assert_int_equal(run_input_flush(in, fds[1], true), 0);
    assert_int_equal(run_input_flush(in, fds[1], true), 0);
    expect(fds[0], "x\x04");
    assert_false(run_input_size(in, &rows, &cols));
    run_input_resize(in, 10, 20);
    run_input_resize(in, 30, 40);
    assert_true(run_input_size(in, &rows, &cols));
    assert_int_equal(rows * 1000 + cols, 30040);
    assert_false(run_input_size(in, &rows, &cols));
    run_input_free(in);
    (void)close(fds[0]);
    (void)close(fds[1]);
}

/* Nobody reads any more; the run has ended. */
static void test_closed(void **state)
{
    struct run_input *in = make();
    struct err e = ERR_INIT;
    uint64_t offset = 1;
    int fds[2];
    (void)state;
    assert_int_equal(pipe2(fds, O_NONBLOCK | O_CLOEXEC), 0);
    assert_int_equal(add(in, 0, "x", PROTO_OK), 1);
    (void)close(fds[0]);
    assert_int_equal(run_input_flush(in, fds[1], false), -EPIPE);
    run_input_close(in, true);
    run_input_close(in, false);
    assert_true(run_input_add(in, &offset, "y", 1, 0, &e) < 0);
    assert_int_equal(e.refusal, PROTO_INPUT_CLOSED);
    assert_non_null(strstr(e.msg, "program")); /* the first reason stays */
    end(in, 1, PROTO_INPUT_CLOSED);
    assert_true(run_input_claim(in));
    assert_false(run_input_claim(in));
    run_input_unclaim(in);
    assert_true(run_input_claim(in));
    run_input_free(in);
    (void)close(fds[1]);
}

struct drain {
    struct run_input *in;
    int fds[2];
    uint64_t got;
    bool fine;
};

static uint8_t byte_at(uint64_t i)
{
    return (uint8_t)(i * 7 + i / 251);
}

static void *drain_main(void *ctx)
{
    struct drain *d = ctx;
    uint8_t data[5000];
    int r = 0;
    d->fine = true;
    while (r != -ESHUTDOWN) {
        ssize_t n = read(d->fds[0], data, sizeof(data));
        for (ssize_t i = 0; i < n; i++)
            d->fine &= data[i] == byte_at(d->got++);
        r = run_input_flush(d->in, d->fds[1], false);
        if (r == 0)
            (void)usleep(200);
    }
    for (ssize_t n; (n = read(d->fds[0], data, sizeof(data))) > 0;) {
        for (ssize_t i = 0; i < n; i++)
            d->fine &= data[i] == byte_at(d->got++);
    }
    return NULL;
}

/* More than there is room for waits, and comes whole; with nobody to read it is told so. */
static void test_room(void **state)
{
    const size_t all = 5 * RUN_INPUT_MAX + 77;
    struct drain d = {.in = make()};
    struct err e = ERR_INIT;
    uint64_t offset = 0;
    pthread_t thread;
    uint8_t *data = malloc(all);
    (void)state;
    assert_non_null(data);
    for (size_t i = 0; i < all; i++)
        data[i] = byte_at(i);
    assert_int_equal(run_input_add(d.in, &offset, data, all, 10, &e), 0);
    assert_int_equal(offset, RUN_INPUT_MAX);
    assert_int_equal(run_input_add(d.in, &offset, data + offset, 1, 10, &e), -EAGAIN);
    assert_int_equal(pipe2(d.fds, O_NONBLOCK | O_CLOEXEC), 0);
    assert_int_equal(pthread_create(&thread, NULL, drain_main, &d), 0);
    while (offset < all)
        assert_int_equal(run_input_add(d.in, &offset, data + offset, all - offset, 60000, &e), 0);
    assert_int_equal(run_input_end(d.in, offset, &e), 0);
    (void)pthread_join(thread, NULL);
    assert_true(d.fine);
    assert_int_equal(d.got, all);
    run_input_free(d.in);
    (void)close(d.fds[0]);
    (void)close(d.fds[1]);
    free(data);
}

int main(void)
{
    (void)signal(SIGPIPE, SIG_IGN); /* as the server does */
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_offsets),
        cmocka_unit_test(test_terminal), cmocka_unit_test(test_closed), cmocka_unit_test(test_room)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
