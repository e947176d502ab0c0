/* SPDX-License-Identifier: MIT */
/* The log of a run's output: order, characters cut between reads, limits, disk, damaged files. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/run_log.h"
#include "shared/io.h"

#include "shared/banned.h"

static char dir[] = "/tmp/t_run_log.XXXXXX";
static char path[64];

static int make_dir(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof(path), "%s/log", dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    (void)unlink(path);
    return rmdir(dir);
}

static struct run_log *new_log(uint64_t max)
{
    struct run_log *log = NULL;
    struct err e = ERR_INIT;
    (void)unlink(path);
    assert_int_equal(run_log_new(path, max, &log, &e), 0);
    return log;
}

static void expect_text(struct run_log *log, enum run_stream which, const char *want)
{
    struct buf b;
    buf_init(&b, 4 * 1024 * 1024);
    assert_int_equal(run_log_text(log, which, &b), 0);
    assert_string_equal(buf_str(&b), want);
    buf_release(&b);
}

static void test_order(void **state)
{
    (void)state;
    struct run_log *log = new_log(1000);
    run_log_add(log, RUN_STDOUT, 1, "a", 1);
    run_log_add(log, RUN_STDERR, 2, "b", 1);
    run_log_add(log, RUN_STDOUT, 3, "c", 1);
    run_log_end(log, 4);
    expect_text(log, RUN_STDOUT, "ac");
    expect_text(log, RUN_STDERR, "b");
    expect_text(log, RUN_STREAMS, "abc");
    run_log_free(log);
}

static void test_characters(void **state)
{
    /* what arrives read by read, and the frames that come of it */
    static const struct {
        const char *reads[5];
        const char *frames[5];
        bool text;
    } rows[] = {
        {{"gr\xc3", "\xbc\xc3", "\x9f"}, {"gr", "\xc3\xbc", "\xc3\x9f"},
            true},                                                      /* two bytes, cut twice */
        {{"\xf0", "\x9f", "\x98", "\x80"}, {"\xf0\x9f\x98\x80"}, true}, /* four bytes, one by one */
        {{"x\xe2\x82"}, {"x", "\xe2\x82"}, false},       /* never finished: told at the end */
        {{"\xff\xfe", "ok"}, {"\xff\xfe", "ok"}, false}, /* no UTF-8 at all does not wait */
        {{"\xc3", "(", "z"}, {"\xc3(", "z"}, false},     /* a beginning that goes on wrongly */
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct run_log *log = new_log(1000);
        struct run_log_stats stats;
        struct run_frame frame;
        struct buf scratch;
        uint64_t offset = 0;
        buf_init(&scratch, RUN_LOG_FRAME_MAX + 64);
        for (size_t k = 0; k < 5 && rows[i].reads[k]; k++)
            run_log_add(log, RUN_STDOUT, k, rows[i].reads[k], strlen(rows[i].reads[k]));
        run_log_end(log, 9);
        for (size_t k = 0; k < 5 && rows[i].frames[k]; k++) {
            assert_int_equal(run_log_next(log, &offset, &frame, &scratch, 0), 1);
            assert_int_equal(frame.len, strlen(rows[i].frames[k]));
            assert_memory_equal(frame.data, rows[i].frames[k], frame.len);
            assert_int_equal(frame.seq, k + 1);
        }
        assert_int_equal(run_log_next(log, &offset, &frame, &scratch, 0), -EPIPE);
        run_log_stats(log, &stats);
        assert_int_equal(stats.text[RUN_STDOUT], rows[i].text);
        buf_release(&scratch);
        run_log_free(log);
    }
}

static void test_limit(void **state)
{
    /* limit, what is written, what is kept, truncated? */
    static const struct {
        uint64_t max;
        const char *reads[3];
        const char *kept;
        bool truncated;
    } rows[] = {
        {5, {"12345"}, "12345", false},            /* exactly full */
        {5, {"123456"}, "12345", true},            /* one too many */
        {5, {"123", "456", "789"}, "12345", true}, /* over several reads; later ones add nothing */
        {0, {"1"}, "", true},                      /* nothing wanted */
        {2, {"\xc3", "\xbc!"}, "\xc3\xbc", true},  /* the carried byte counts */
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct run_log *log = new_log(rows[i].max);
        struct run_log_stats stats;
        uint64_t written = 0;
        for (size_t k = 0; k < 3 && rows[i].reads[k]; k++) {
            run_log_add(log, RUN_STDERR, k, rows[i].reads[k], strlen(rows[i].reads[k]));
            written += strlen(rows[i].reads[k]);
        }
        run_log_end(log, 9);
        expect_text(log, RUN_STDERR, rows[i].kept);
        run_log_stats(log, &stats);
        assert_int_equal(stats.truncated[RUN_STDERR], rows[i].truncated);
        assert_int_equal(stats.bytes[RUN_STDERR], written);
        assert_int_equal(stats.kept[RUN_STDERR], strlen(rows[i].kept));
        run_log_free(log);
    }
}

static void test_disk(void **state)
{
    /* More than fits in memory: part of it lies in the file, and readers notice nothing. */
    const size_t total = 3 * RUN_LOG_MEMORY;
    char *text = malloc(total + 1), *line = malloc(1000);
    struct err e = ERR_INIT;
    struct run_log_stats stats;
    (void)state;
    assert_non_null(text);
    assert_non_null(line);
    struct run_log *log = new_log(UINT64_MAX);
    for (size_t i = 0; i < total; i++)
        text[i] = (char)('a' + i % 23);
    text[total] = '\0';
    for (size_t i = 0; i < total; i += 1000)
        run_log_add(log, RUN_STDOUT, i, text + i, total - i < 1000 ? total - i : 1000);
    assert_int_equal(access(path, F_OK), 0);
    expect_text(log, RUN_STREAMS, text);
    run_log_end(log, 1);
    assert_int_equal(run_log_flush(log, &e), 0);
    run_log_free(log);

    assert_int_equal(run_log_load(path, &log, &e), 0);
    expect_text(log, RUN_STDOUT, text);
    run_log_stats(log, &stats);
    assert_int_equal(stats.kept[RUN_STDOUT], total);
    struct buf tail;
    buf_init(&tail, 100);
    assert_int_equal(run_log_tail(log, RUN_STDOUT, 50, &tail), 0);
    assert_string_equal(buf_str(&tail), text + total - 50);
    buf_release(&tail);
    run_log_free(log);
    free(text);
    free(line);
}

static void test_short_run_leaves_disk_alone(void **state)
{
    (void)state;
    struct run_log *log = new_log(1000);
    run_log_add(log, RUN_STDOUT, 1, "hello\n", 6);
    run_log_end(log, 2);
    assert_int_equal(access(path, F_OK), -1);
    run_log_free(log);
}

static void test_damaged(void **state)
{
    /* A crash may cut the file anywhere: what is whole is kept. */
    struct err e = ERR_INIT;
    struct buf whole;
    (void)state;
    struct run_log *log = new_log(1000);
    run_log_add(log, RUN_STDOUT, 1, "first", 5);
    run_log_add(log, RUN_STDOUT, 2, "second", 6);
    run_log_end(log, 3);
    assert_int_equal(run_log_flush(log, &e), 0);
    run_log_free(log);
    assert_int_equal(io_read_file(path, 4096, &whole, &e), 0);
    for (size_t len = 0; len <= whole.len; len++) {
        assert_int_equal(truncate(path, (off_t)len), 0);
        assert_int_equal(run_log_load(path, &log, &e), 0);
        expect_text(log, RUN_STDOUT,
            len == whole.len ? "firstsecond"
            : len >= 17 + 5  ? "first"
                             : "");
        run_log_free(log);
        assert_int_equal(io_write_file(path, whole.data, whole.len, 0600, &e), 0);
    }
    /* A length that cannot be true. */
    whole.data[13] = 0xff;
    assert_int_equal(io_write_file(path, whole.data, whole.len, 0600, &e), 0);
    assert_int_equal(run_log_load(path, &log, &e), 0);
    expect_text(log, RUN_STDOUT, "");
    run_log_free(log);
    buf_release(&whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_characters),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_disk),
        cmocka_unit_test(test_short_run_leaves_disk_alone),
        cmocka_unit_test(test_damaged),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
