/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/late.h"

#include "shared/banned.h"

#define MI (1024 * 1024)

static void make(int dir, const char *name, off_t size)
{
    int fd = openat(dir, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, size), 0);
    assert_int_equal(close(fd), 0);
}

/* A removed file is there until it is let go; what is small, no file, or not there is not held. */
static void test_late(void **state)
{
    char path[] = "/tmp/silt-late.XXXXXX";
    struct late late = {.count = 0};
    struct stat st;
    (void)state;

    assert_non_null(mkdtemp(path));
    int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(dir >= 0);
    make(dir, "large", 2 * MI);
    make(dir, "small", MI - 1);
    assert_int_equal(symlinkat("large", dir, "link"), 0);
    late_hold(NULL, dir, "large");
    late_hold(&late, dir, "small");
    late_hold(&late, dir, "link");
    late_hold(&late, dir, "absent");
    late_hold(&late, dir, ".");
    assert_int_equal(late.count, 0);
    late_hold(&late, dir, "large");
    assert_int_equal(late.count, 1);
    assert_int_equal(unlinkat(dir, "large", 0), 0);
    assert_int_equal(fstat(late.fds[0], &st), 0);
    assert_int_equal(st.st_nlink, 0);
    assert_int_equal(st.st_size, 2 * MI);
    int fd = late.fds[0];
    late_release(&late);
    assert_int_equal(late.count, 0);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
    assert_int_equal(errno, EBADF);
    (void)unlinkat(dir, "small", 0);
    (void)unlinkat(dir, "link", 0);
    close(dir);
    (void)rmdir(path);
}

static void test_late_is_bounded(void **state)
{
    char path[] = "/tmp/silt-late.XXXXXX";
    struct late late = {.count = 0};
    (void)state;

    assert_non_null(mkdtemp(path));
    int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(dir >= 0);
    make(dir, "large", MI);
    for (unsigned i = 0; i < LATE_MAX + 2; i++)
        late_hold(&late, dir, "large");
    assert_int_equal(late.count, LATE_MAX);
    late_release(&late);
    (void)unlinkat(dir, "large", 0);
    close(dir);
    (void)rmdir(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_late),
        cmocka_unit_test(test_late_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
