/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "server/cgroup_own.h"

#include "shared/banned.h"

static void test_parse(void **state)
{
    static const struct {
        const char *text;
        int result;
        const char *path;
    } rows[] = {
        /* what systemd, a container with cgroups of its own and a bare kernel have */
        {"0::/user.slice/user-1000.slice/user@1000.service/app.slice/run-r1.scope\n", 0,
            "/user.slice/user-1000.slice/user@1000.service/app.slice/run-r1.scope"},
        {"0::/\n", 0, ""},
        {"0::/a\n", 0, "/a"},
        /* escaped names, colons, blanks */
        {"0::/app-gnome\\x2dterminal.scope/a:b c\n", 0, "/app-gnome\\x2dterminal.scope/a:b c"},
        {"0::/0::/x\n", 0, "/0::/x"},
        /* version 1 beside it, in any order; a name like version 2's */
        {"12:pids:/user.slice\n1:name=systemd:/x\n0::/u\n", 0, "/u"},
        {"0::/u\n12:pids:/user.slice\n", 0, "/u"},
        {"10::/no\n0::/u\n", 0, "/u"},
        {"5:memory:/a\n4:cpu,cpuacct:/a\n", -ENOENT, ""},
        {"0:name=x:/a\n", -ENOENT, ""},
        {"", -ENOENT, ""},
        {"\n\n", -ENOENT, ""},
        /* outside of this cgroup namespace; upwards by any spelling */
        {"0::/../other\n", -EINVAL, ""},
        {"0::/..\n", -EINVAL, ""},
        {"0::/a/../../b\n", -EINVAL, ""},
        {"0::/a/./b\n", -EINVAL, ""},
        {"0::/a/..\n", -EINVAL, ""},
        {"0::/a/...\n", 0, "/a/..."},
        {"0::/..a/b..\n", 0, "/..a/b.."},
        /* removed under this process's feet */
        {"0::/a/b (deleted)\n", -EINVAL, ""},
        {"0::/a (deleted)/b\n", 0, "/a (deleted)/b"},
        /* what no kernel writes */
        {"0::\n", -EINVAL, ""},
        {"0::", -EINVAL, ""},
        {"0::a\n", -EINVAL, ""},
        {"0::/a//b\n", -EINVAL, ""},
        {"0::/a/\n", -EINVAL, ""},
        {"0:://\n", -EINVAL, ""},
        {"0::/cut", -EINVAL, ""},
        {"0::/\xff\xfe\n", -EINVAL, ""},
        /* the first counts */
        {"0::/..\n0::/a\n", -EINVAL, ""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char path[CGROUP_OWN_BYTES];
        memset(path, 'x', sizeof path);
        int r = cgroup_own_parse(rows[i].text, path);
        if (r != rows[i].result || strcmp(path, rows[i].path) != 0)
            fail_msg("%zu: %d '%s' for: %s", i, r, path, rows[i].text);
    }
}

/* A path that fits to the byte, and one that does not. */
static void test_length(void **state)
{
    char text[CGROUP_OWN_BYTES + 16], path[CGROUP_OWN_BYTES];
    (void)state;
    for (int over = 0; over < 2; over++) {
        size_t len = CGROUP_OWN_BYTES - 1 + (size_t)over;
        (void)snprintf(text, sizeof text, "0::/");
        memset(text + 4, 'a', len - 1);
        (void)snprintf(text + 3 + len, sizeof text - 3 - len, "\n");
        assert_int_equal(cgroup_own_parse(text, path), over ? -ENAMETOOLONG : 0);
        assert_int_equal(strlen(path), over ? 0 : len);
    }
}

/* Wherever the tests run: what is found is within its bounds, and a sentence says why not. */
static void test_look(void **state)
{
    struct cgroup_own own;
    struct cgroup_host host;
    struct err e = ERR_INIT;
    (void)state;
    cgroup_own_look(&own);
    assert_in_range(own.state, CGROUP_OWN_USABLE, CGROUP_OWN_ODD);
    assert_false(own.taken);
    assert_int_equal(own.state == CGROUP_OWN_USABLE, *cgroup_own_reason(own.state) == '\0');
    own.state = CGROUP_OWN_SHARED;
    assert_int_equal(cgroup_own_take(&own, "silt-00000000", &host, &e), -ENOTSUP);
    assert_int_equal(host.version, CGROUP_NONE);
    assert_non_null(strstr(e.msg, "other processes"));
    cgroup_own_release(&own); /* nothing to do */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),
        cmocka_unit_test(test_length),
        cmocka_unit_test(test_look),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
