/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shared/path.h"

#include "shared/banned.h"

#define S(text) text, sizeof(text) - 1

static void faults(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        size_t len;
        enum path_fault fault;
    } rows[] = {
        {S("a"), PATH_FINE}, {S("a/b/c.py"), PATH_FINE},
        {S("..a/b../...c/.d"), PATH_FINE},                 /* dots in names are just names */
        {S("a b\nc\t\x01\xff"), PATH_FINE},                /* bytes, not characters */
        {S("-rf"), PATH_FINE}, {S("a\\..\\b"), PATH_FINE}, /* a backslash is no separator */
        {S(""), PATH_EMPTY}, {S("/"), PATH_ABSOLUTE}, {S("/a"), PATH_ABSOLUTE},
        {S("//a"), PATH_ABSOLUTE}, {S("."), PATH_DOT}, {S("./a"), PATH_DOT}, {S("a/./b"), PATH_DOT},
        {S("a/."), PATH_DOT}, {S(".."), PATH_DOTDOT}, {S("../a"), PATH_DOTDOT},
        {S("a/../b"), PATH_DOTDOT}, {S("a/.."), PATH_DOTDOT}, {S("a/"), PATH_SLASH},
        {S("a//b"), PATH_SLASH}, {S("a\0b"), PATH_NUL}, {S("\0"), PATH_NUL}, {S("a\0"), PATH_NUL},
        {S("a\0/../b"), PATH_NUL}, /* before anything behind it */
        {"a/bcd", 3, PATH_FINE},   /* the length counts, not a terminator: "a/b" */
        {"a/bcd", 2, PATH_SLASH},  /* "a/" */
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        enum path_fault fault = path_check(rows[i].path, rows[i].len);
        if (fault != rows[i].fault)
            fail_msg("row %zu '%s' %s", i, rows[i].path, path_fault_text(fault));
    }
}

/* n names of `each` bytes, joined. */
static char *make_path(size_t n, size_t each)
{
    char *path = malloc(n * (each + 1) + 1);
    assert_non_null(path);
    for (size_t i = 0; i < n; i++) {
        memset(path + i * (each + 1), 'x', each);
        path[i * (each + 1) + each] = '/';
    }
    path[n * (each + 1) - 1] = '\0';
    return path;
}

static void exact_limits(void **state)
{
    (void)state;
    static const struct {
        size_t names, each;
        enum path_fault fault;
    } rows[] = {
        {1, 255, PATH_FINE},
        {1, 256, PATH_NAME_LONG},
        {2, 255, PATH_FINE},
        {2, 256, PATH_NAME_LONG},
        {256, 1, PATH_FINE},
        {257, 1, PATH_DEEP},
        {16, 255, PATH_FINE}, /* 16 × 256 − 1 = 4095 bytes */
        {17, 240, PATH_LONG}, /* 4096 bytes */
        {256, 15, PATH_FINE}, /* deepest and longest at once */
        {256, 16, PATH_LONG},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        CLEANUP(freep) char *path = make_path(rows[i].names, rows[i].each);
        enum path_fault fault = path_check(path, strlen(path));
        if (fault != rows[i].fault)
            fail_msg("%zu × %zu: %s", rows[i].names, rows[i].each, path_fault_text(fault));
    }
}

static void every_fault_has_its_text(void **state)
{
    (void)state;
    for (int a = PATH_FINE; a <= PATH_DEEP; a++)
        for (int b = PATH_FINE; b < a; b++)
            assert_string_not_equal(
                path_fault_text((enum path_fault)a), path_fault_text((enum path_fault)b));
    assert_string_equal(path_fault_text(PATH_DOTDOT), "has a '..' component");
    assert_non_null(path_fault_text((enum path_fault)99));
}

static void resolving(void **state)
{
    (void)state;
    static const struct {
        const char *base, *text;
        const char *expected; /* NULL: refused */
    } rows[] = {
        {"", "a", "a"},
        {"", "./a", "a"},
        {"", "a//b///c/", "a/b/c"},
        {"", "a/./b/.", "a/b"},
        {"", "a/../b", "b"},
        {"", "a/..", ""},
        {"", ".", ""},
        {"", "./", ""},
        {"", "", ""},
        {"src", "main.py", "src/main.py"},
        {"src", ".", "src"},
        {"src", "..", ""},
        {"src/app", "../lib/x", "src/lib/x"},
        {"src/app", "../../x", "x"},
        {"src", "../..", NULL}, /* leaves the root */
        {"", "..", NULL},
        {"", "a/../../a", NULL}, /* also when it comes back */
        {"", "/a", NULL},
        {"src", "/src/a", NULL},
        {"", "..a", "..a"},
        {"", "a/...", "a/..."},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        CLEANUP(freep) char *out = NULL;
        int r = path_resolve(rows[i].base, rows[i].text, &out);
        assert_int_equal(r, rows[i].expected ? 0 : -EINVAL);
        if (rows[i].expected)
            assert_string_equal(out, rows[i].expected);
        else
            assert_null(out);
    }
}

static void resolving_keeps_the_limits(void **state)
{
    (void)state;
    CLEANUP(freep) char *deep = make_path(256, 1);
    CLEANUP(freep) char *out = NULL;
    assert_int_equal(path_resolve(deep, "y", &out), -EINVAL);
    assert_null(out);
    assert_int_equal(path_resolve(deep, "../y", &out), 0);
    assert_int_equal(strlen(out), strlen(deep));
    /* Text far above every limit is fine when what it means is short. */
    CLEANUP(freep) char *dots = make_path(5000, 1);
    memset(dots, '.', 1);
    for (size_t i = 0; i < 5000; i++)
        dots[2 * i] = '.';
    CLEANUP(freep) char *same = NULL;
    assert_int_equal(path_resolve("a", dots, &same), 0);
    assert_string_equal(same, "a");
}

static void parts(void **state)
{
    (void)state;
    static const struct {
        const char *path, *base;
        size_t parent_len;
    } rows[] = {{"a", "a", 0}, {"a/b", "b", 1}, {"ab/cd/ef", "ef", 5}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_string_equal(path_base(rows[i].path), rows[i].base);
        assert_int_equal(path_parent_len(rows[i].path), rows[i].parent_len);
    }
    CLEANUP(freep) char *joined = path_join("a/b", "c");
    assert_string_equal(joined, "a/b/c");
    CLEANUP(freep) char *root = path_join("", "c");
    assert_string_equal(root, "c");
}

static void beneath(void **state)
{
    (void)state;
    static const struct {
        const char *dir, *path;
        bool yes;
    } rows[] = {
        {"", "a", true},
        {"", "", true},
        {"a", "a", true},
        {"a", "a/b", true},
        {"a", "ab", false}, /* a common beginning is no directory */
        {"a/b", "a", false},
        {"a", "b/a", false},
        {"a/b", "a/b/c/d", true},
        {"a/b", "a/bc", false},
        {"a", "", false},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (path_beneath(rows[i].dir, rows[i].path) != rows[i].yes)
            fail_msg("'%s' beneath '%s'", rows[i].path, rows[i].dir);
}

static void distances_order_the_candidates(void **state)
{
    (void)state;
    static const struct {
        const char *wanted, *nearer, *farther;
    } rows[] = {
        {"main.py", "main.py", "Main.py"},             /* the same before another case */
        {"main.py", "Main.py", "src/main.py"},         /* case before folder */
        {"main.py", "src/main.py", "a/src/main.py"},   /* one folder before two */
        {"main.py", "a/b/c/d/main.py", "man.py"},      /* any folder before a typing error */
        {"src/mian.py", "src/main.py", "src/menu.py"}, /* two edits before four */
        {"src/a.c", "src/b.c", "lib/b.c"},             /* at one edit the same folder wins */
        {"src/main.py", "SRC/main.py", "lib/main.py"}, /* a folder's case hardly counts */
        {"main.py", "test_main.py", "readme.md"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        unsigned near = path_distance(rows[i].wanted, rows[i].nearer);
        unsigned far = path_distance(rows[i].wanted, rows[i].farther);
        if (near >= far)
            fail_msg("'%s': '%s' %u, '%s' %u", rows[i].wanted, rows[i].nearer, near,
                rows[i].farther, far);
        assert_int_equal(near, path_distance(rows[i].nearer, rows[i].wanted));
    }
    assert_int_equal(path_distance("a/b", "a/b"), 0);
    /* What a person typed may be longer than any name. */
    CLEANUP(freep) char *name = make_path(1, 5000);
    CLEANUP(freep) char *deep = make_path(3000, 1);
    assert_true(path_distance(name, deep) > 0);
    assert_true(path_distance(deep, "x") > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(faults),
        cmocka_unit_test(exact_limits),
        cmocka_unit_test(every_fault_has_its_text),
        cmocka_unit_test(resolving),
        cmocka_unit_test(resolving_keeps_the_limits),
        cmocka_unit_test(parts),
        cmocka_unit_test(beneath),
        cmocka_unit_test(distances_order_the_candidates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
