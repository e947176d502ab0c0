/* SPDX-License-Identifier: MIT */
/* Change sets as JSON: each operation as the other feeds give it, and mistakes by their number. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "server/feed_json.h"

#include "shared/banned.h"

#define STAGE "st_abcdefghijklmnopqrstuvwxyz"
#define H "xxh3-128:000102030405060708090a0b0c0d0e0f"

static void test_operations(void **state)
{
    static const char text[] =
        "{\"client\":\"lk_a.1\",\"seq\":5,\"if_generation\":41,\"epoch\":\"ep\",\"ops\":["
        "{\"op\":\"put\",\"path\":\"a.py\",\"text\":\"h\\u00fc\",\"mode\":\"0755\",\"base\":"
        "\"absent\"},"
        "{\"op\":\"put\",\"path\":\"b\",\"base64\":\"AAEC\",\"hash\":\"" H "\",\"base\":\"" H "\"},"
        "{\"op\":\"edit\",\"path\":\"a.py\",\"old\":\"x\",\"new\":\"\"},"
        "{\"op\":\"move\",\"path\":\"a\",\"to_base64\":\"Yi9j\"},"
        "{\"op\":\"copy\",\"from\":\"a\",\"to\":\"d\"},"
        "{\"op\":\"mkdir\",\"path\":\"dir\"},"
        "{\"op\":\"symlink\",\"path\":\"l\",\"target\":\"../x\"},"
        "{\"op\":\"chmod\",\"path\":\"a.py\",\"mode\":\"644\"},"
        "{\"op\":\"delete\",\"path\":\"old\",\"recursive\":true},"
        "{\"op\":\"delete\",\"path\":\"readable\",\"path_base64\":null},"
        "{\"op\":\"put\",\"path\":\"s\",\"stage\":\"" STAGE "\",\"hash\":\"" H "\"}]}";
    struct feed_json *f = NULL;
    struct changes_begin begin;
    struct change_op op;
    struct err e = ERR_INIT;
    char data[16];
    (void)state;
    json_t *body = json_loads(text, 0, NULL);
    assert_non_null(body);
    assert_int_equal(feed_json_new(body, &f, &begin, &e), 0);
    assert_string_equal(begin.client, "lk_a.1");
    assert_int_equal(begin.seq, 5);
    assert_int_equal(begin.parent, 4);
    assert_int_equal(begin.if_generation, 41);
    assert_string_equal(begin.epoch, "ep");
    struct changes_feed feed = feed_json_feed(f);

    assert_int_equal(feed.next(feed.ctx, &op, &e), 1);
    assert_int_equal(op.kind, CHANGE_PUT);
    assert_int_equal(op.content_len, 3);
    assert_int_equal(op.mode, 0755);
    assert_int_equal(op.base_kind, CHANGE_BASE_ABSENT);
    assert_false(op.has_hash);
    assert_int_equal(feed.read(feed.ctx, data, 2, &e), 2);
    assert_int_equal(feed.read(feed.ctx, data + 2, 9, &e), 1);
    assert_memory_equal(data, "h\xc3\xbc", 3);
    assert_int_equal(feed.read(feed.ctx, data, 9, &e), 0);

    assert_int_equal(feed.next(feed.ctx, &op, &e), 1);
    assert_true(op.has_hash);
    assert_int_equal(op.hash.b[15], 15);
    assert_int_equal(op.base_kind, CHANGE_BASE_HASH);
    assert_int_equal(feed.read(feed.ctx, data, 9, &e), 3);
    assert_memory_equal(data, "\0\1\2", 3);

    assert_int_equal(feed.next(feed.ctx, &op, &e), 1);
    assert_int_equal(op.kind, CHANGE_EDIT);
    assert_int_equal(op.old_len, 1);
    assert_int_equal(op.new_len, 0);
    assert_int_equal(feed.next(feed.ctx, &op, &e), 1);
    assert_int_equal(op.kind, CHANGE_MOVE);
    assert_string_equal(op.to, "b/c");
    assert_int_equal(feed.next(feed.ctx, &op, &e), 1);
    assert_int_equal(op.kind, CHANGE_COPY);
    assert_string_equal(op.path, "a");
    assert_int_equal(feed.next(feed.ctx, &op, &e), 1);
    assert_int_equal(op.kind, CHANGE_MKDIR);
    assert_int_equal(op.mode, 0);
    assert_int_equal(feed.next(feed.ctx, &op, &e), 1);
    assert_string_equal(op.to, "../x");
    assert_int_equal(feed.next(feed.ctx, &op, &e), 1);
    assert_int_equal(op.mode, 0644);
    assert_int_equal(feed.next(feed.ctx, &op, &e), 1);
    assert_true(op.recursive);
    assert_int_equal(feed.next(feed.ctx, &op, &e), 1);
    assert_false(op.recursive);
    assert_null(op.stage);
    assert_int_equal(feed.next(feed.ctx, &op, &e), 1);
    assert_string_equal(op.stage, STAGE);
    assert_true(op.has_hash);
    assert_int_equal(feed.next(feed.ctx, &op, &e), 0);
    feed_json_free(f);
    json_decref(body);
}

static void test_refused(void **state)
{
    static const struct {
        const char *ops;
        enum proto_error code;
        const char *says;
    } rows[] = {
        {"{\"op\":\"mkdir\",\"path\":\"a\"},{\"op\":\"touch\",\"path\":\"a\"}", PROTO_INVALID_VALUE,
            "operation 2: "},
        {"{\"op\":\"put\",\"path\":\"a\"}", PROTO_INVALID_VALUE,
            "operation 1: 'put' needs the content"},
        {"{\"op\":\"put\",\"path\":\"a\",\"text\":\"\",\"base64\":\"\"}", PROTO_INVALID_VALUE,
            "needs the content"},
        {"{\"op\":\"put\",\"path\":\"a\",\"text\":\"\",\"stage\":\"" STAGE "\"}",
            PROTO_INVALID_VALUE, "needs the content"},
        {"{\"op\":\"put\",\"path\":\"a\",\"stage\":\"../a\"}", PROTO_INVALID_VALUE, "'stage'"},
        {"{\"op\":\"put\",\"path\":\"a\",\"stage\":7}", PROTO_INVALID_VALUE, "needs the content"},
        {"{\"op\":\"copy\",\"path\":\"a\",\"stage\":\"" STAGE "\"}", PROTO_INVALID_VALUE,
            "unknown member 'stage'"},
        {"{\"op\":\"put\",\"path\":\"a\",\"txt\":\"\"}", PROTO_INVALID_VALUE,
            "did you mean 'text'?"},
        {"{\"op\":\"put\",\"path\":\"../a\",\"text\":\"\"}", PROTO_INVALID_PATH, "'..'"},
        {"{\"op\":\"put\",\"path\":\"/a\",\"text\":\"\"}", PROTO_INVALID_PATH, "/a"},
        {"{\"op\":\"put\",\"path\":\"a\",\"text\":\"\",\"mode\":\"999\"}", PROTO_INVALID_VALUE,
            "octal"},
        {"{\"op\":\"put\",\"path\":\"a\",\"text\":\"\",\"mode\":644}", PROTO_INVALID_VALUE,
            "octal"},
        {"{\"op\":\"put\",\"path\":\"a\",\"text\":\"\",\"mode\":\"4755\"}", PROTO_INVALID_VALUE,
            "octal"},
        {"{\"op\":\"put\",\"path\":\"a\",\"text\":\"\",\"base\":\"none\"}", PROTO_INVALID_VALUE,
            "'base'"},
        {"{\"op\":\"put\",\"path\":\"a\",\"base64\":\"?\"}", PROTO_INVALID_VALUE, "not base64"},
        {"{\"op\":\"edit\",\"path\":\"a\",\"old\":\"\",\"new\":\"x\"}", PROTO_INVALID_VALUE,
            "must not be empty"},
        {"{\"op\":\"edit\",\"path\":\"a\",\"old\":\"x\"}", PROTO_INVALID_VALUE, "'new'"},
        {"{\"op\":\"move\",\"path\":\"a\"}", PROTO_INVALID_VALUE, "'to' is missing"},
        {"{\"op\":\"chmod\",\"path\":\"a\"}", PROTO_INVALID_VALUE, "octal"},
        {"{\"op\":\"symlink\",\"path\":\"a\"}", PROTO_INVALID_VALUE, "'target'"},
        {"{\"op\":\"delete\"}", PROTO_INVALID_VALUE, "'path' is missing"},
        {"{\"op\":\"delete\",\"path\":\"a\\u0000b\"}", PROTO_INVALID_PATH, "a"},
        {"7", PROTO_INVALID_VALUE, "must be an object"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct feed_json *f = NULL;
        struct changes_begin begin;
        struct err e = ERR_INIT;
        char text[512];
        (void)snprintf(text, sizeof(text), "{\"ops\":[%s]}", rows[i].ops);
        json_t *body = json_loads(text, JSON_ALLOW_NUL, NULL);
        assert_non_null(body);
        assert_int_equal(feed_json_new(body, &f, &begin, &e), -EPROTO);
        if (e.refusal != rows[i].code || !strstr(e.msg, rows[i].says))
            fail_msg("%s: %d '%s'", rows[i].ops, (int)e.refusal, e.msg);
        json_decref(body);
    }
}

static void test_digest(void **state)
{
    /* The same set is the same whatever the order of members and blanks; another content is not. */
    static const char *const texts[] = {
        "{\"ops\":[{\"op\":\"put\",\"path\":\"a\",\"text\":\"x\"}]}",
        "{ \"ops\" : [ {\"text\":\"x\",\"path\":\"a\",\"op\":\"put\"} ] }",
        "{\"ops\":[{\"op\":\"put\",\"path\":\"a\",\"text\":\"y\"}]}"};
    struct hash digests[3];
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct feed_json *f = NULL;
        struct changes_begin begin;
        struct err e = ERR_INIT;
        json_t *body = json_loads(texts[i], 0, NULL);
        assert_int_equal(feed_json_new(body, &f, &begin, &e), 0);
        struct changes_feed feed = feed_json_feed(f);
        feed.digest(feed.ctx, &digests[i]);
        feed_json_free(f);
        json_decref(body);
    }
    assert_true(hash_equal(&digests[0], &digests[1]));
    assert_false(hash_equal(&digests[0], &digests[2]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_operations),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_digest)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
