/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <string.h>

#include <cmocka.h>

#include "shared/err.h"
#include "shared/text.h"

#include "shared/banned.h"

#define OLD_REFUSAL                                                                                \
    {                                                                                              \
        .code = EPROTO, .refusal = PROTO_BUSY, .msg = "old"                                        \
    }

static void set_adds_the_systems_text(void **state)
{
    (void)state;
    struct err e = OLD_REFUSAL;
    assert_int_equal(err_set(&e, ENOENT, "open '%s'", "a"), -ENOENT);
    assert_int_equal(e.code, ENOENT);
    assert_int_equal(e.refusal, PROTO_OK);
    assert_string_equal(e.msg, "open 'a': No such file or directory");
}

static void say_stands_alone(void **state)
{
    (void)state;
    struct err e = OLD_REFUSAL;
    assert_int_equal(err_say(&e, EINVAL, "give a number, not '%s'", "x"), -EINVAL);
    assert_int_equal(e.code, EINVAL);
    assert_int_equal(e.refusal, PROTO_OK);
    assert_string_equal(e.msg, "give a number, not 'x'");
}

static void refuse_names_the_protocol(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    assert_int_equal(err_refuse(&e, PROTO_FILE_NOT_FOUND, "no file '%s'", "m.py"), -EPROTO);
    assert_int_equal(e.code, EPROTO);
    assert_int_equal(e.refusal, PROTO_FILE_NOT_FOUND);
    assert_string_equal(e.msg, "no file 'm.py'");
}

static void wrap_keeps_code_and_refusal(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    (void)err_refuse(&e, PROTO_BUSY, "too many runs");
    assert_int_equal(err_wrap(&e, "start run %d", 7), -EPROTO);
    assert_int_equal(e.code, EPROTO);
    assert_int_equal(e.refusal, PROTO_BUSY);
    assert_string_equal(e.msg, "start run 7: too many runs");
}

static void nothing_turns_into_success(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    assert_int_equal(err_wrap(&e, "context"), -EIO); /* wraps no error */
    assert_int_equal(err_wrap(NULL, "context"), -EIO);
    assert_int_equal(err_set(&e, 0, "x"), -EIO);
    assert_int_equal(e.code, EIO);
    assert_int_equal(err_say(&e, 0, "x"), -EIO);
    assert_int_equal(err_set(&e, -EPERM, "x"), -EPERM); /* a negative code is taken as meant */
    assert_int_equal(e.code, EPERM);
}

static void no_struct_is_fine(void **state)
{
    (void)state;
    assert_int_equal(err_set(NULL, ENOENT, "x"), -ENOENT);
    assert_int_equal(err_say(NULL, EINVAL, "x"), -EINVAL);
    assert_int_equal(err_refuse(NULL, PROTO_BUSY, "x"), -EPROTO);
}

static void messages_may_quote_older_ones(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    (void)err_say(&e, EIO, "inner");
    (void)err_refuse(&e, PROTO_INTERNAL, "outer (%s)", e.msg);
    assert_string_equal(e.msg, "outer (inner)");
    (void)err_wrap(&e, "before %s", e.msg);
    assert_string_equal(e.msg, "before outer (inner): outer (inner)");
}

static void long_names_leave_the_reason(void **state)
{
    (void)state;
    char name[2000];
    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    struct err e = ERR_INIT;
    (void)err_set(&e, EACCES, "open '%s'", name);
    assert_int_equal(strlen(e.msg), ERR_MSG_BYTES - 1);
    assert_non_null(strstr(e.msg, ": Permission denied"));
    /* Context that is too long as well does not push the beginning of the cause out. */
    (void)err_say(&e, EIO, "the cause");
    (void)err_wrap(&e, "%s", name);
    (void)err_wrap(&e, "%s", name);
    assert_non_null(strstr(e.msg, ": the cause"));
}

static void a_message_is_one_line_of_whole_characters(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    (void)err_say(&e, EIO, "a\nb\tc\x1b[2Jd\x7f");
    assert_string_equal(e.msg, "a?b?c?[2Jd?");
    /* U+009B is ESC [ to a terminal; U+00A0 and U+00E4 are text. */
    (void)err_say(&e, EIO, "a\xc2\x9b" "2Jb\xc2\xa0\xc3\xa4\xc2");
    assert_string_equal(e.msg, "a??2Jb\xc2\xa0\xc3\xa4\xc2");
    /* U+20AC has three bytes: wherever the text is cut, no part of one stays. */
    char euros[3 * 300 + 1];
    for (size_t i = 0; i < 300; i++)
        memcpy(euros + 3 * i, "\xe2\x82\xac", 3);
    euros[sizeof(euros) - 1] = '\0';
    static const char *const heads[] = {"", "x", "xx"};
    for (size_t i = 0; i < 3; i++) {
        (void)err_say(&e, EIO, "%s%s", heads[i], euros);
        assert_true(text_is_utf8(e.msg, strlen(e.msg)));
        assert_true(strlen(e.msg) > ERR_MSG_BYTES - 4);
        (void)err_wrap(&e, "%s%s", heads[i], euros);
        assert_true(text_is_utf8(e.msg, strlen(e.msg)));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(set_adds_the_systems_text),
        cmocka_unit_test(say_stands_alone),
        cmocka_unit_test(refuse_names_the_protocol),
        cmocka_unit_test(wrap_keeps_code_and_refusal),
        cmocka_unit_test(nothing_turns_into_success),
        cmocka_unit_test(no_struct_is_fine),
        cmocka_unit_test(messages_may_quote_older_ones),
        cmocka_unit_test(long_names_leave_the_reason),
        cmocka_unit_test(a_message_is_one_line_of_whole_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
