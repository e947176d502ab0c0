/* SPDX-License-Identifier: MIT */
/* A runtime's log is read for what the runtime says, whatever a program's name says in it. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "server/around_log.h"

#include "shared/banned.h"

#define HEAD "I1128 13:06:06.367612    7457 main.go:216] ****\n"
#define END(n) "I1128 13:06:08.881806    7457 main.go:266] Exiting with status: " n "\n"
#define FATAL "W1128 13:06:24.343956    8643 util.go:64] FATAL ERROR: running container: "
#define START "starting container: starting root container: starting sandbox: creating process: "
#define AFTER "W1128 13:06:24.344443    8643 main.go:275] Failure to execute command, err: 1\n"

static const struct {
    const char *what, *text;
    bool ended;
    int status, exec_errno;
    const char *failure; /* a piece of it; NULL: none */
} rows[] = {
    {"a code", HEAD END("1792"), true, 1792, 0, NULL},
    {"a signal", HEAD END("9"), true, 9, 0, NULL},
    {"without a newline at the end", HEAD "x] Exiting with status: 3", true, 3, 0, NULL},
    {"nothing", "", false, 0, 0, NULL},
    {"a newline", "\n", false, 0, 0, NULL},
    {"cut off", HEAD, false, 0, 0, NULL},
    {"more than a status", HEAD END("65536"), false, 0, 0, NULL},
    {"no number", HEAD END("7x"), false, 0, 0, NULL},
    {"an empty number", HEAD END(""), false, 0, 0, NULL},
    {"many digits", HEAD END("00000000000000000007"), false, 0, 0, NULL},
    {"not the last line", HEAD END("0") "I] Destroy container\n", false, 0, 0, NULL},
    {"no such program", HEAD FATAL START "failed to load /x: no such file or directory\n" AFTER,
        false, 0, ENOENT, "failed to load /x"},
    {"not executable", HEAD FATAL START "/x: permission denied\n" AFTER, false, 0, EACCES, "/x"},
    {"without the last line", HEAD FATAL START "/x: exec format error\n", false, 0, ENOEXEC, "/x"},
    {"its own failure", HEAD FATAL "no memory: permission denied\n" AFTER, false, 0, 0, "no memory"},
    /* names */
    {"a name that looks like an end",
        HEAD FATAL START "failed to load /x\n" END("0") ": no such file or directory\n" AFTER, false,
        0, ENOENT, "failed to load /x?"},
    {"a name that looks like an end, cut off behind it", HEAD FATAL START "/x\n" END("0") "y", false,
        0, 0, "/x?"},
    {"a name that looks like another failure",
        HEAD FATAL START "/x\n" FATAL "y: permission denied\n: not a directory\n" AFTER, false, 0,
        ENOTDIR, "/x?"},
    {"a name that writes to a terminal", HEAD FATAL "\x1b[2J\xc2\x9b\n" AFTER, false, 0, 0, "?[2J??"},
};

static void test_rows(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct around_log got;
        around_log_read(rows[i].text, &got);
        if (got.ended != rows[i].ended || got.status != rows[i].status ||
            got.exec_errno != rows[i].exec_errno ||
            (rows[i].failure ? !strstr(got.failure, rows[i].failure) : *got.failure != '\0'))
            fail_msg("%s: ended %d, status %d, errno %d, '%s'", rows[i].what, got.ended, got.status,
                got.exec_errno, got.failure);
    }
}

static void test_long(void **state)
{
    char text[2000] = "] FATAL ERROR: ";
    struct around_log got;
    (void)state;
    memset(text + strlen(text), 'x', 1500);
    around_log_read(text, &got);
    assert_int_equal(strlen(got.failure), sizeof got.failure - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows), cmocka_unit_test(test_long)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
