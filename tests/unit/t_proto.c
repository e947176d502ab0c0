/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "shared/proto.h"

#include "shared/banned.h"

static void every_row_is_complete(void **state)
{
    (void)state;
    static const int statuses[] = {200, 400, 401, 403, 404, 405, 408, 409, 410, 411, 412, 413, 415,
        416, 422, 426, 429, 500, 503, 504, 507};
    for (int code = 0; code < PROTO_ERROR_COUNT; code++) {
        const struct proto_error_info *info = proto_error_info((enum proto_error)code);
        assert_non_null(info);
        assert_non_null(info->name);
        assert_true(strspn(info->name, "abcdefghijklmnopqrstuvwxyz_") == strlen(info->name));
        int known = 0;
        for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++)
            known += statuses[i] == info->http_status;
        assert_int_equal(known, 1);
    }
}

static void names_lead_back_to_their_codes(void **state)
{
    (void)state;
    /* A name that stood twice would lead to the first of the two. */
    for (int code = 0; code < PROTO_ERROR_COUNT; code++)
        assert_int_equal(proto_error_by_name(proto_error_info((enum proto_error)code)->name), code);
}

static void strangers_are_internal_errors(void **state)
{
    (void)state;
    static const char *const names[] = {
        "",                 /* nothing */
        "no_such_code",     /* of a newer server */
        "File_Not_Found",   /* names are exact */
        "file_not_found ",  /* to the last byte */
        "file_not_foun",    /* and no prefix counts */
        "PROTO_BAD_REQUEST" /* the enum's own name is not the wire's */
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        assert_int_equal(proto_error_by_name(names[i]), PROTO_INTERNAL);
    assert_string_equal(proto_error_info(PROTO_ERROR_COUNT)->name, "internal");
    assert_string_equal(proto_error_info((enum proto_error)9999)->name, "internal");
}

static void rows_say_what_clients_rely_on(void **state)
{
    (void)state;
    static const struct {
        enum proto_error code;
        const char *name;
        int status;
        bool retryable;
    } rows[] = {
        {PROTO_OK, "ok", 200, false},
        {PROTO_FILE_NOT_FOUND, "file_not_found", 404, false},
        {PROTO_BASE_MISMATCH, "base_mismatch", 409, false}, /* the same set fails again */
        {PROTO_SEQ_GAP, "seq_gap", 409, true},              /* the missing set may still come */
        {PROTO_BUSY, "busy", 429, true},
        {PROTO_NO_SPACE, "no_space", 507, true},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct proto_error_info *info = proto_error_info(rows[i].code);
        assert_string_equal(info->name, rows[i].name);
        assert_int_equal(info->http_status, rows[i].status);
        assert_int_equal(info->retryable, rows[i].retryable);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_is_complete),
        cmocka_unit_test(names_lead_back_to_their_codes),
        cmocka_unit_test(strangers_are_internal_errors),
        cmocka_unit_test(rows_say_what_clients_rely_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
