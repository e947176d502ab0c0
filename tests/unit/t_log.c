/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "shared/io.h"
#include "shared/log.h"
#include "shared/text.h"

#include "shared/banned.h"

static int ends[2];

static int open_pipe(void **state)
{
    (void)state;
    if (pipe(ends) < 0 || io_nonblock(ends[0], 1) < 0 || setenv("JOURNAL_STREAM", "1:2", 1) < 0)
        return -1;
    log_set_fd(ends[1]);
    log_set_level(LOG_LEVEL_INFO);
    return 0;
}

static int close_pipe(void **state)
{
    (void)state;
    log_set_fd(2);
    (void)close(ends[0]);
    (void)close(ends[1]);
    return unsetenv("JOURNAL_STREAM");
}

/* What has been logged since the last call. */
static const char *logged(void)
{
    static char text[8 * PIPE_BUF];
    ssize_t n = read(ends[0], text, sizeof(text) - 1);
    text[n > 0 ? n : 0] = '\0';
    return text;
}

static void a_line_has_level_and_message(void **state)
{
    (void)state;
    log_error("no %s", "space");
    assert_string_equal(logged(), "error no space\n");
    log_warn("w");
    assert_string_equal(logged(), "warn w\n");
    log_info("listening on %d", 7458);
    assert_string_equal(logged(), "info listening on 7458\n");
}

static void lines_above_the_level_are_dropped(void **state)
{
    (void)state;
    static const struct {
        enum log_level level;
        const char *lines;
    } rows[] = {
        {LOG_LEVEL_ERROR, "error e\n"},
        {LOG_LEVEL_WARN, "error e\nwarn w\n"},
        {LOG_LEVEL_INFO, "error e\nwarn w\ninfo i\n"},
        {LOG_LEVEL_DEBUG, "error e\nwarn w\ninfo i\ndebug d\n"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        log_set_level(rows[i].level);
        log_error("e");
        log_warn("w");
        log_info("i");
        log_debug("d");
        assert_string_equal(logged(), rows[i].lines);
    }
}

static void names_cannot_forge_a_line(void **state)
{
    (void)state;
    log_info("file '%s'", "a\nerror all is lost\x1b[2J\xff");
    assert_string_equal(logged(), "info file 'a\\x0aerror all is lost\\x1b[2J\\xff'\n");
}

static void a_stamp_comes_first_when_nobody_else_adds_one(void **state)
{
    (void)state;
    assert_int_equal(unsetenv("JOURNAL_STREAM"), 0);
    log_info("hello");
    const char *line = logged();
    static const char form[] = "0000-00-00T00:00:00.000000Z info hello\n";
    assert_int_equal(strlen(line), sizeof(form) - 1);
    for (size_t i = 0; form[i]; i++) {
        if (form[i] == '0')
            assert_true(isdigit((unsigned char)line[i]));
        else
            assert_int_equal(line[i], form[i]);
    }
}

static void a_line_is_one_piece_of_a_pipe(void **state)
{
    (void)state;
    assert_int_equal(unsetenv("JOURNAL_STREAM"), 0);
    /* The longest line there can be: every byte is written as four. */
    char name[5000];
    memset(name, '\x01', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    log_warn("%s", name);
    const char *line = logged();
    size_t len = strlen(line);
    assert_true(len <= PIPE_BUF);
    assert_true(len > 4000);
    assert_int_equal(line[len - 1], '\n');
    assert_int_equal(strcspn(line, "\n"), len - 1);
}

static void a_cut_message_ends_in_a_whole_character(void **state)
{
    (void)state;
    char name[3 * 500 + 2];
    for (size_t shift = 0; shift < 3; shift++) {
        memset(name, 'x', sizeof(name));
        for (size_t i = 0; i < 490; i++)
            memcpy(name + shift + 3 * i, "\xe2\x82\xac", 3);
        name[sizeof(name) - 1] = '\0';
        log_info("%s", name);
        assert_null(strstr(logged(), "\\x")); /* half of one would have been escaped */
    }
}

static void logging_keeps_errno_and_survives_a_dead_end(void **state)
{
    (void)state;
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    assert_true(full >= 0);
    log_set_fd(full);
    errno = E2BIG;
    log_error("nobody reads this");
    assert_int_equal(errno, E2BIG);
    log_set_fd(ends[1]);
    (void)close(full);
    log_error("back");
    assert_string_equal(logged(), "error back\n");
}

#define LOG_TEST(f) cmocka_unit_test_setup_teardown(f, open_pipe, close_pipe)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOG_TEST(a_line_has_level_and_message),
        LOG_TEST(lines_above_the_level_are_dropped),
        LOG_TEST(names_cannot_forge_a_line),
        LOG_TEST(a_stamp_comes_first_when_nobody_else_adds_one),
        LOG_TEST(a_line_is_one_piece_of_a_pipe),
        LOG_TEST(a_cut_message_ends_in_a_whole_character),
        LOG_TEST(logging_keeps_errno_and_survives_a_dead_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
