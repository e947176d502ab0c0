/* SPDX-License-Identifier: MIT */
/* What clients say about resumable uploads: the body of a new one, the header of a piece. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "server/api_stages.h"

#include "shared/banned.h"

#define H "xxh3-128:000102030405060708090a0b0c0d0e0f"

static void test_bodies(void **state)
{
    static const struct {
        const char *body;
        uint64_t size;
        bool has_hash;
        const char *says; /* NULL: fine */
    } rows[] = {
        {"{\"size\":0}", 0, false, NULL},                               /* an empty file */
        {"{\"size\":17179869184}", UINT64_C(17179869184), false, NULL}, /* the largest */
        {"{\"size\":1,\"hash\":\"" H "\"}", 1, true, NULL},
        {"{\"size\":1,\"hash\":null}", 1, false, NULL}, /* as if it were not there */
        {"{}", 0, false, "'size' is missing"},
        {"{\"size\":17179869185}", 0, false, "'size' is 17179869185"},
        {"{\"size\":-1}", 0, false, "'size' is -1"},
        {"{\"size\":\"1\"}", 0, false, "'size' must be a whole number"},
        {"{\"size\":1.5}", 0, false, "'size' must be a whole number"},
        {"{\"size\":1,\"hash\":\"xxh3-128:00\"}", 0, false, "'hash' must be a hash"},
        {"{\"size\":1,\"hash\":\"" H "0\"}", 0, false, "'hash'"}, /* a digit too many */
        {"{\"size\":1,\"hash\":7}", 0, false, "'hash' must be a text"},
        {"{\"sise\":1}", 0, false, "did you mean 'size'?"},
        {"[]", 0, false, "must be a JSON object"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct api_stage_wish wish;
        struct err e = ERR_INIT;
        json_t *body = json_loads(rows[i].body, 0, NULL);
        assert_non_null(body);
        int r = api_stage_parse(body, &wish, &e);
        if ((r == 0) != !rows[i].says || (rows[i].says && !strstr(e.msg, rows[i].says)))
            fail_msg("%s: %d '%s'", rows[i].body, r, e.msg);
        if (r == 0) {
            assert_int_equal(wish.size, rows[i].size);
            assert_int_equal(wish.has_hash, rows[i].has_hash);
            assert_int_equal(wish.hash.b[15], rows[i].has_hash ? 15 : 0);
        } else {
            assert_int_equal(e.refusal, PROTO_INVALID_VALUE);
        }
        json_decref(body);
    }
}

static void test_offsets(void **state)
{
    static const struct {
        const char *header;
        int64_t offset; /* -1: refused */
    } rows[] = {
        {"0", 0},
        {"9223372036854775807", INT64_MAX},
        {"9223372036854775808", -1}, /* no offset of a file */
        {NULL, -1},                  /* it is missing */
        {"", -1},
        {"-1", -1},
        {"+1", -1},
        {" 1", -1},
        {"1,2", -1}, /* sent twice */
        {"0x10", -1},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint64_t offset = 7;
        struct err e = ERR_INIT;
        int r = api_stage_offset(rows[i].header, &offset, &e);
        if ((r == 0) != (rows[i].offset >= 0))
            fail_msg("'%s': %d", rows[i].header ? rows[i].header : "(none)", r);
        if (r == 0)
            assert_int_equal(offset, rows[i].offset);
        else
            assert_int_equal(e.refusal, PROTO_INVALID_VALUE);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bodies),
        cmocka_unit_test(test_offsets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
