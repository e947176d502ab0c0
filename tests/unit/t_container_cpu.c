/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/container_driver.h"

#include "shared/banned.h"

static void test_ticks(void **state)
{
    static const struct {
        const char *text;
        bool good;
        uint64_t ticks;
    } rows[] = {
        {"7 (sh) S 1 7 7 0 -1 4194304 90 0 0 0 3 20 100 4000 20 0 1 0 5 6\n", true, 4123},
        /* a name that looks like what follows it */
        {"7 (a) S 1 9 9) R 1 7 7 0 -1 4194304 90 0 0 0 1 2 3 4 20 0 1 0 5 6\n", true, 10},
        {"7 () S 1 7 7 0 -1 4194304 90 0 0 0 1 1 1 1", true, 4},
        {"7 (sh) S 1 7 7 0 -1 4194304 90 0 0 0 1 2 3\n", false, 0},
        {"7 (sh) S 1 7 7 0 -1 4194304 90 0 0 0 1 2 -3 4 20\n", false, 0},
        {"7 (sh) S 1 7 7 0 -1 4194304 90 0 0 0 1 2 3 99999999999 20\n", false, 0},
        {"7 (sh)", false, 0},
        {"", false, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint64_t ticks = 0;
        if (container_cpu_ticks(rows[i].text, &ticks) != rows[i].good || ticks != rows[i].ticks)
            fail_msg("row %zu: %llu", i, (unsigned long long)ticks);
    }
}

/* Uses 0.3 s of CPU time in a grandchild, says so, and waits to be killed. */
static void work(int done)
{
    struct timespec used;
    pid_t child = fork();
    if (child == 0) {
        do
            (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
        while (used.tv_sec == 0 && used.tv_nsec < 300000000);
        (void)!write(done, "", 1);
    }
    for (;;)
        (void)pause();
}

static void test_descendants(void **state)
{
    int pipes[2];
    char byte;
    (void)state;
    assert_int_equal(pipe(pipes), 0);
    pid_t pid = fork();
    if (pid == 0) {
        (void)setpgid(0, 0);
        work(pipes[1]);
    }
    assert_int_equal(read(pipes[0], &byte, 1), 1);
    assert_in_range(container_cpu_of(pid), 250000, 60000000);
    (void)kill(-pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
    assert_int_equal(container_cpu_of(pid), 0);
    assert_int_equal(container_cpu_of(0), 0);
    (void)close(pipes[0]);
    (void)close(pipes[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ticks), cmocka_unit_test(test_descendants)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
