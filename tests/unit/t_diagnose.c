/* SPDX-License-Identifier: MIT */
/* What is said about a program that failed, by what it left behind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "server/diagnose.h"

#include "shared/banned.h"

static const struct {
    const char *language, *tail;
    int exit_code, signal;
    bool timed_out, oom;
    const char *code; /* NULL: nothing is said */
    const char *subject, *file;
    unsigned line;
} rows[] = {
    /* a success is not explained, whatever it printed */
    {"python", "ModuleNotFoundError: No module named 'x'", 0, 0, false, false, NULL, "", "", 0},
    /* a missing module, by name and place */
    {"python",
        "Traceback (most recent call last):\n  File \"/workspace/src/a.py\", line 3, in <module>\n "
        "   import numpy\n"
        "ModuleNotFoundError: No module named 'numpy'\n",
        1, 0, false, false, "missing_module", "numpy", "src/a.py", 3},
    /* … also where its package was found */
    {"python", "ImportError: cannot import name 'made' from 'src' (unknown location)\n", 1, 0,
        false, false, "missing_module", "made", "", 0},
    /* a place outside the workspace is not the user's */
    {"python", "  File \"/usr/lib/python3.11/x.py\", line 3, in f\nMemoryError\n", 1, 0, false,
        false, "out_of_memory", "", "", 0},
    /* the deepest of the user's own frames */
    {"python",
        "Traceback (most recent call last):\n  File \"/workspace/a.py\", line 1, in <module>\n"
        "  File \"/workspace/b.py\", line 7, in f\nValueError: no\n",
        1, 0, false, false, "exception", "", "b.py", 7},
    {"python", "  File \"/workspace/a.py\", line 2\n    x = = 3\nSyntaxError: invalid syntax\n", 1,
        0, false, false, "syntax_error", "", "a.py", 2},
    {"python", "FileNotFoundError: [Errno 2] No such file or directory: 'data.csv'\n", 1, 0, false,
        false, "missing_file", "data.csv", "", 0},
    {"python", "EOFError: EOF when reading a line\n", 1, 0, false, false, "stdin_at_end", "", "",
        0},
    {"python", "socket.gaierror: [Errno -3] Temporary failure in name resolution\n", 1, 0, false,
        false, "no_network", "", "", 0},
    {"python", "OSError: [Errno 30] Read-only file system: '/x'\n", 1, 0, false, false, "read_only",
        "", "", 0},
    {"node", "Error: Cannot find module 'express'\nRequire stack:\n- /workspace/main.js\n", 1, 0,
        false, false, "missing_module", "express", "", 0},
    {"node", "/workspace/main.js:4\nfoo(\n\nSyntaxError: missing )\n", 1, 0, false, false,
        "syntax_error", "", "main.js", 4},
    /* a rule of another language does not apply */
    {"ruby", "Cannot find module 'express'\n", 1, 0, false, false, NULL, "", "", 0},
    {"go", "./main.go:5:2: undefined: x\n", 2, 0, false, false, "compile_error", "", "main.go", 5},
    {"c", "main.c:3:5: error: expected ';'\n", 1, 0, false, false, "compile_error", "", "main.c",
        3},
    /* limits are certain, whatever was printed */
    {"python", "MemoryError\n", 0, 9, false, true, "out_of_memory", "", "", 0},
    {"python", "Traceback (most recent call last)\n", 0, 15, true, false, "timed_out", "", "", 0},
    {NULL, "", 0, 11, false, false, "crashed", "", "", 0},
    {NULL, "", 0, 6, false, false, "aborted", "", "", 0},
    {NULL, "sh: 1: foo: not found\n", 127, 0, false, false, "command_not_found", "", "", 0},
    {NULL, "", 126, 0, false, false, "not_executable", "", "", 0},
    /* a plain failure has said all itself */
    {"python", "usage: main.py FILE\n", 2, 0, false, false, NULL, "", "", 0},
    /* hostile: a name with control characters is not repeated */
    {"python", "ModuleNotFoundError: No module named '\x1b[31mx'\n", 1, 0, false, false, NULL, "",
        "", 0},
    {"python", "ModuleNotFoundError: No module named '", 1, 0, false, false, NULL, "", "", 0},
    {"python", "Traceback (most recent call last)\nFile \"/workspace/", 1, 0, false, false,
        "exception", "", "", 0},
    {"c", "error: :::::1:99999999999999999999:", 1, 0, false, false, "compile_error", "", "", 0},
};

static void test_rows(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct diagnosis d;
        const struct diagnose_facts facts = {.language = rows[i].language,
            .program = "x",
            .exit_code = rows[i].exit_code,
            .signal = rows[i].signal,
            .timed_out = rows[i].timed_out,
            .oom_killed = rows[i].oom,
            .memory_bytes = 1 << 30,
            .wall_ms = 60000,
            .tail = rows[i].tail,
            .tail_len = strlen(rows[i].tail)};
        bool said = diagnose(&facts, &d);
        if (said != (rows[i].code != NULL) || (said && strcmp(d.code, rows[i].code) != 0))
            fail_msg("row %zu: said '%s', not '%s'", i, said ? d.code : "nothing",
                rows[i].code ? rows[i].code : "nothing");
        if (!said)
            continue;
        assert_true(strlen(d.message) > 0);
        assert_string_equal(d.subject, rows[i].subject);
        if (strcmp(d.file, rows[i].file) != 0 || d.line != rows[i].line)
            fail_msg("row %zu: at %s:%u, not %s:%u", i, d.file, d.line, rows[i].file, rows[i].line);
    }
}

static void test_bytes(void **state)
{
    /* Output is bytes: a NUL or bad UTF-8 in the middle hides nothing and breaks nothing. */
    static const char tail[] =
        "\xff\0\xfe\nModuleNotFoundError: No module named 'a\xff'\nMemoryError\n";
    struct diagnosis d;
    const struct diagnose_facts facts = {.language = "python",
        .program = "x",
        .exit_code = 1,
        .tail = tail,
        .tail_len = sizeof(tail) - 1};
    (void)state;
    assert_true(diagnose(&facts, &d));
    assert_string_equal(d.code, "out_of_memory");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows), cmocka_unit_test(test_bytes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
