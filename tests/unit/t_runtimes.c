/* SPDX-License-Identifier: MIT */
/* How a file is run by name: the command line for each kind of file, and names that try to be
 * options. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "server/runtimes.h"

#include "shared/banned.h"

static bool exists_in(void *ctx, const char *path)
{
    return ctx && !strcmp(ctx, path);
}

/* argv joined by '|'; a script of ours appears as its first words, so that rows stay readable. */
static void join(const struct runtimes_plan *plan, char out[512])
{
    size_t len = 0;
    out[0] = '\0';
    for (size_t i = 0; i < plan->argc; i++) {
        bool script = i == 2 && !strcmp(plan->argv[0], "sh") && !strcmp(plan->argv[1], "-c");
        const char *text = plan->argv[i];
        if (script)
            text = strstr(text, "go build") ? "GO" : strstr(text, "make -s") ? "MAKE" : "CC";
        int n = snprintf(out + len, 512 - len, "%s%s", i ? "|" : "", text);
        assert_true(n >= 0 && len + (size_t)n < 512);
        len += (size_t)n;
    }
}

static const struct {
    const char *path, *cwd, *head;
    bool executable;
    const char *language, *there;   /* sandbox language; a file that exists besides */
    const char *argv, *interpreter; /* NULL: -ENOEXEC */
} plan_rows[] = {
    /* by extension, from the root and from the file's folder */
    {"main.py", "", "", false, NULL, NULL, "python3|main.py", "python3"},
    {"a/main.py", "", "", false, NULL, NULL, "python3|a/main.py", "python3"},
    {"a/main.py", "a", "", false, NULL, NULL, "python3|main.py", "python3"},
    /* from a folder that does not hold it */
    {"a/main.py", "b", "", false, NULL, NULL, "python3|/workspace/a/main.py", "python3"},
    {"ab/main.py", "a", "", false, NULL, NULL, "python3|/workspace/ab/main.py", "python3"},
    /* a leading dash never becomes an option, whatever the way */
    {"-c.py", "", "", false, NULL, NULL, "python3|./-c.py", "python3"},
    {"a/-m.py", "a", "", false, NULL, NULL, "python3|./-m.py", "python3"},
    {"-x.go", "", "", false, NULL, NULL, "sh|-c|GO|silt|.|-x.go", "go"},
    {"-d/x.c", "", "", false, NULL, NULL, "sh|-c|CC|silt|./-d|x.c|cc|.c", "cc"},
    {"-run", "", "#!/bin/sh\n", true, NULL, NULL, "/bin/sh|./-run", "/bin/sh"},
    /* `node inspect` is a subcommand */
    {"inspect", "", "", false, "node", NULL, "node|./inspect", "node"},
    {"x.mjs", "", "", false, NULL, NULL, "node|x.mjs", "node"},
    {"t.rb", "", "", false, NULL, NULL, "ruby|t.rb", "ruby"},
    {"t.pl", "", "", false, NULL, NULL, "perl|t.pl", "perl"},
    {"t.sh", "", "echo hi", false, NULL, NULL, "sh|t.sh", "sh"},
    /* a shell script that says which shell */
    {"t.sh", "", "#!/bin/bash -e\n", false, NULL, NULL, "/bin/bash|-e|./t.sh", "/bin/bash"},
    /* the extension wins over #! elsewhere */
    {"t.py", "", "#!/usr/bin/env python2\n", true, NULL, NULL, "python3|t.py", "python3"},
    /* the project way */
    {"cmd/x/main.go", "", "", false, NULL, NULL, "sh|-c|GO|silt|./cmd/x|main.go", "go"},
    {"main.go", "sub", "", false, NULL, NULL, "sh|-c|GO|silt|/workspace/|main.go", "go"},
    {"p/x.c", "p", "", false, NULL, NULL, "sh|-c|CC|silt|.|x.c|cc|.c", "cc"},
    {"p/x.cc", "", "", false, NULL, NULL, "sh|-c|CC|silt|./p|x.cc|c++|.cc", "c++"},
    {"p/x.c", "", "", false, NULL, "p/Makefile", "sh|-c|MAKE|silt|./p|x.c", "make"},
    {"x.c", "", "", false, NULL, "GNUmakefile", "sh|-c|MAKE|silt|.|x.c", "make"},
    /* a Makefile elsewhere does not count */
    {"p/x.c", "", "", false, NULL, "Makefile", "sh|-c|CC|silt|./p|x.c|cc|.c", "cc"},
    /* #!: with and without the x bit, env, CR LF, blanks */
    {"run", "", "#!/usr/bin/env python3\nx", true, NULL, NULL, "/usr/bin/env|python3|./run",
        "python3"},
    {"run", "", "#! /usr/bin/env -S A=1 ruby -w\r\n", false, NULL, NULL,
        "/usr/bin/env|-S A=1 ruby -w|./run", "ruby"},
    {"run", "", "#!/bin/sh", false, NULL, NULL, "/bin/sh|./run", "/bin/sh"},
    {"run", "", "#!   \nx", true, NULL, NULL, NULL, NULL},
    {"run", "", "#!", true, NULL, NULL, NULL, NULL},
    /* ELF must be executable */
    {"a.out", "", "\177ELF\2", true, NULL, NULL, "./a.out", NULL},
    {"a.out", "", "\177ELF\2", false, NULL, NULL, NULL, NULL},
    /* nothing known: the sandbox's language, if it takes any name */
    {"script", "", "print(1)", false, "python", NULL, "python3|./script", "python3"},
    {"data.txt", "", "x", false, "python", NULL, "python3|data.txt", "python3"},
    {"script", "", "x", false, "go", NULL, NULL, NULL},
    {"script", "", "x", false, NULL, NULL, NULL, NULL},
    /* a dot file has no extension */
    {".py", "", "", false, NULL, NULL, NULL, NULL},
};

static void test_plans(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof plan_rows / sizeof plan_rows[0]; i++) {
        struct runtimes_look look = {exists_in, (void *)(uintptr_t)plan_rows[i].there};
        struct runtimes_plan plan;
        char text[512];
        int r = runtimes_plan_file(plan_rows[i].path, plan_rows[i].cwd, plan_rows[i].head,
            strlen(plan_rows[i].head), plan_rows[i].executable,
            plan_rows[i].language ? runtimes_by_name(plan_rows[i].language) : NULL, &look, &plan);
        if (!plan_rows[i].argv) {
            if (r != -ENOEXEC)
                fail_msg("row %zu '%s': %d", i, plan_rows[i].path, r);
            assert_int_equal(plan.argc, 0);
            continue;
        }
        assert_int_equal(r, 0);
        join(&plan, text);
        assert_string_equal(text, plan_rows[i].argv);
        assert_null(plan.argv[plan.argc]); /* ends like an argv */
        if (plan_rows[i].interpreter)
            assert_string_equal(plan.interpreter, plan_rows[i].interpreter);
        else
            assert_null(plan.interpreter);
        runtimes_plan_release(&plan);
    }
}

/* A #! line longer than what the kernel looks at is cut, not overrun. */
static void test_long_shebang(void **state)
{
    (void)state;
    char head[1024];
    struct runtimes_plan plan;
    memset(head, 'x', sizeof head);
    memcpy(head, "#!/", 3);
    assert_int_equal(runtimes_plan_file("f", "", head, sizeof head, true, NULL, NULL, &plan), 0);
    assert_int_equal(strlen(plan.argv[0]), 255);
    runtimes_plan_release(&plan);
}

static void test_names(void **state)
{
    (void)state;
    static const struct {
        const char *name, *language; /* NULL: unknown */
    } rows[] = {
        {"python", "python"},
        {"py", "python"},
        {"python3", "python"},
        {"javascript", "node"},
        {"node", "node"},
        {"golang", "go"},
        {"bash", "shell"},
        {"c", "c"},
        {"cpp", "c++"},
        /* exact, as in the documentation */
        {"Python", NULL},
        {"", NULL},
        {"cobol", NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct runtime_language *l = runtimes_by_name(rows[i].name);
        if (rows[i].language)
            assert_string_equal(l->name, rows[i].language);
        else
            assert_null(l);
    }
}

/* Every row is complete, and no two rows claim one name or extension. */
static void test_table(void **state)
{
    (void)state;
    size_t count;
    const struct runtime_language *all = runtimes_all(&count);
    assert_true(count >= 7);
    for (size_t i = 0; i < count; i++) {
        assert_ptr_equal(runtimes_by_name(all[i].name), &all[i]);
        assert_ptr_equal(runtimes_by_extension(all[i].code_file), &all[i]);
        assert_non_null(all[i].program);
        assert_non_null(all[i].version_argv[0]);
        for (const char *const *a = all[i].aliases; *a; a++)
            assert_ptr_equal(runtimes_by_name(*a), &all[i]);
        for (const char *const *x = all[i].extensions; *x; x++) {
            char file[32];
            (void)snprintf(file, sizeof file, "d.d/f%s", *x);
            assert_ptr_equal(runtimes_by_extension(file), &all[i]);
        }
    }
}

static void test_version(void **state)
{
    (void)state;
    static const struct {
        const char *answer, *version; /* NULL: none */
    } rows[] = {
        {"Python 3.11.2\n", "3.11.2"}, {"go version go1.19.8 linux/amd64", "1.19.8"},
        {"v18.20.4", "18.20.4"}, {"cc (Debian 12.2.0-14+deb12u1) 12.2.0", "12.2.0"},
        {"released 2022, 1.2.", "1.2"}, /* a number without a dot is none */
        {"sh", NULL}, {"", NULL}, {"1.2345678901234567890123456789012", NULL}, /* too long */
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char version[RUNTIMES_VERSION_BYTES] = "";
        assert_int_equal(runtimes_version(rows[i].answer, version), rows[i].version != NULL);
        assert_string_equal(version, rows[i].version ? rows[i].version : "");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plans),
        cmocka_unit_test(test_long_shebang),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_version),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
