/* SPDX-License-Identifier: MIT */
/* The parts of the API that need no server: routes, ranges, lists in headers. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "server/api_internal.h"

#include "shared/banned.h"

static void test_match(void **state)
{
    static const struct {
        const char *pattern, *path;
        int result;
        const char *first, *second;
    } rows[] = {
        {"/v1/sandboxes", "/v1/sandboxes", 1, NULL, NULL},
        {"/v1/sandboxes", "/v1/sandboxes/", 0, NULL, NULL},
        {"/v1/sandboxes", "/v1/sandboxe", 0, NULL, NULL},
        {"/v1/sandboxes/{id}", "/v1/sandboxes/sb_a", 1, "sb_a", NULL},
        {"/v1/sandboxes/{id}", "/v1/sandboxes/", 0, NULL, NULL},       /* a name is not empty */
        {"/v1/sandboxes/{id}", "/v1/sandboxes/a/b", 0, NULL, NULL},    /* nor two */
        {"/v1/sandboxes/{id}", "/v1/sandboxes/a%2Fb", 1, "a/b", NULL}, /* unless it is said so */
        {"/s/{id}/files/{path...}", "/s/a/files/b/c%20d.py", 1, "a", "b/c d.py"},
        {"/s/{id}/files/{path...}", "/s/a/files/", 0, NULL, NULL},
        {"/s/{id}/files/{path...}", "/s/a/files", 0, NULL, NULL},
        {"/s/{id}", "/s/%00", -EINVAL, NULL, NULL}, {"/s/{id}", "/s/%zz", -EINVAL, NULL, NULL},
        {"/s/{id}", "/s/%ff", 1, "\xff", NULL}, /* names are bytes */
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct route_match m;
        if (route_match(rows[i].pattern, rows[i].path, &m) != rows[i].result)
            fail_msg("%s against %s", rows[i].path, rows[i].pattern);
        if (rows[i].first)
            assert_string_equal(m.param[0], rows[i].first);
        if (rows[i].second)
            assert_string_equal(m.param[1], rows[i].second);
        route_match_release(&m);
    }
}

static void test_routes_are_distinct(void **state)
{
    /* Two rows of one method that match the same path would hide the second for ever. */
    (void)state;
    for (size_t i = 0; i < api_route_count; i++) {
        for (size_t k = i + 1; k < api_route_count; k++) {
            struct route_match m;
            int r = route_match(api_routes[i].pattern, api_routes[k].pattern, &m);
            if (r == 1)
                route_match_release(&m);
            if (r == 1 && api_routes[i].method == api_routes[k].method)
                fail_msg("%s hides %s", api_routes[i].pattern, api_routes[k].pattern);
        }
    }
}

static void test_range(void **state)
{
    static const struct {
        const char *header;
        uint64_t size;
        int result;
        uint64_t start, len;
    } rows[] = {
        {NULL, 10, 0, 0, 0},
        {"bytes=0-0", 10, 1, 0, 1},
        {"bytes=2-5", 10, 1, 2, 4},
        {"bytes=2-", 10, 1, 2, 8},
        {"bytes=2-99", 10, 1, 2, 8}, /* cut to what is there */
        {"bytes=-3", 10, 1, 7, 3},   /* the last three */
        {"bytes=-30", 10, 1, 0, 10},
        {"bytes=10-", 10, -ERANGE, 0, 0}, /* begins past the end */
        {"bytes=-0", 10, -ERANGE, 0, 0},
        {"bytes=0-", 0, -ERANGE, 0, 0}, /* an empty file has no byte */
        {"bytes=5-2", 10, 0, 0, 0},     /* no range: the whole */
        {"bytes=0-1,4-5", 10, 0, 0, 0}, /* several: the whole */
        {"bytes=a-b", 10, 0, 0, 0},
        {"bytes=-", 10, 0, 0, 0},
        {"lines=0-1", 10, 0, 0, 0},
        {"bytes=99999999999999999999999-", 10, 0, 0, 0},
        {"bytes=1-18446744073709551616", 10, 0, 0, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint64_t start = 0, len = 0;
        if (api_range(rows[i].header, rows[i].size, &start, &len) != rows[i].result ||
            start != rows[i].start || len != rows[i].len)
            fail_msg("row %zu: %s", i, rows[i].header);
    }
}

static void test_header_lists(void **state)
{
    static const struct {
        const char *value, *word;
        bool has;
    } rows[] = {
        {NULL, "a", false},
        {"", "a", false},
        {"a", "a", true},
        {"text/html, application/x-ndjson;q=0.9", "application/x-ndjson", true},
        {"application/json; charset=utf-8", "application/json", true},
        {"application/jsonx", "application/json", false},
        {"Application/JSON", "application/json", true},
        {"\"xxh3-128:a\", \"xxh3-128:b\"", "\"xxh3-128:b\"", true},
        {" , ,a ", "a", true},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (api_header_has(rows[i].value, rows[i].word) != rows[i].has)
            fail_msg("row %zu: %s", i, rows[i].value);
    }
}

static void test_paths_on_the_wire(void **state)
{
    json_t *o = json_object();
    (void)state;
    assert_int_equal(api_put_path(o, "path", "gr\xc3\xbc\xc3\x9f"), 0);
    assert_null(json_object_get(o, "path_base64"));
    assert_int_equal(api_put_path(o, "path", "a\xff"), 0);
    assert_string_equal(json_string_value(json_object_get(o, "path_base64")), "Yf8=");
    assert_string_equal(json_string_value(json_object_get(o, "path")), "a\xef\xbf\xbd");
    json_decref(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_match),
        cmocka_unit_test(test_routes_are_distinct),
        cmocka_unit_test(test_range),
        cmocka_unit_test(test_header_lists),
        cmocka_unit_test(test_paths_on_the_wire),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
