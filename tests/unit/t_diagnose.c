/* SPDX-License-Identifier: MIT */
/* What is said about a program that failed, by what it left behind: the outputs of real tools in
 * tests/golden/diagnose.txt, limits and exits, and outputs that lie. Run from the project's root.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "server/diagnose.h"
#include "server/diagnose_internal.h"

#include "shared/path.h"
#include "shared/text.h"

#include "shared/banned.h"

#define GOLDEN "tests/golden/diagnose.txt"
#define CASES_MAX 200

/* ---- real outputs */

struct golden {
    char *file, *language, *end, *code, *subject, *place;
    const char *output;
    size_t output_len;
};

struct cases {
    char *text;
    struct golden rows[CASES_MAX];
    size_t count;
};

static char *field(char **rest)
{
    char *start = *rest, *bar = strstr(start, " | ");
    assert_non_null(start);
    if (bar)
        *bar = '\0';
    *rest = bar ? bar + 3 : NULL;
    return start;
}

static void read_cases(struct cases *c)
{
    FILE *f = fopen(GOLDEN, "r");
    size_t size = 1 << 20;
    assert_non_null(f);
    c->text = calloc(1, size);
    assert_non_null(c->text);
    assert_true(fread(c->text, 1, size - 1, f) > 0);
    (void)fclose(f);
    for (char *at = strstr(c->text, "\n=== "); at; c->count++) {
        char *line = at + 5, *end = strchr(line, '\n'), *next = strstr(end, "\n=== ");
        struct golden *g = &c->rows[c->count];
        assert_true(c->count < CASES_MAX);
        *end = '\0';
        g->file = field(&line), g->language = field(&line), g->end = field(&line);
        g->code = field(&line), g->subject = field(&line), g->place = field(&line);
        g->output = end + 1;
        g->output_len = next ? (size_t)(next + 1 - g->output) : strlen(g->output);
        at = next;
    }
}

static bool is_file(void *ctx, const char *path)
{
    const struct cases *c = ctx;
    bool makefile = strcmp(path_base(path), "Makefile") == 0;
    size_t folder = path_parent_len(path);
    for (size_t i = 0; i < c->count; i++) {
        if (strcmp(c->rows[i].file, path) == 0 ||
            (makefile && path_parent_len(c->rows[i].file) == folder &&
                memcmp(c->rows[i].file, path, folder) == 0))
            return true;
    }
    return false;
}

static void test_golden(void **state)
{
    static struct cases c;
    (void)state;
    read_cases(&c);
    assert_true(c.count > 90);
    for (size_t i = 0; i < c.count; i++) {
        const struct golden *g = &c.rows[i];
        char folder[64] = "", got[1024], wanted[1024], line[16];
        struct diagnosis d;
        memcpy(folder, g->file, path_parent_len(g->file));
        struct diagnose_facts facts = {.language = g->language,
            .tail = g->output,
            .tail_len = g->output_len,
            .folder = folder,
            .cwd = folder,
            .exists = is_file,
            .ctx = &c};
        if (sscanf(g->end, "exit %d", &facts.exit_code) != 1)
            assert_int_equal(sscanf(g->end, "signal %d", &facts.signal), 1);
        bool said = diagnose(&facts, &d);
        (void)snprintf(line, sizeof(line), ":%u", d.line);
        (void)snprintf(got, sizeof(got), "%s | %s | %s%s", said ? d.code : "-",
            d.subject[0] ? d.subject : "-", d.file[0] ? d.file : "-", d.file[0] ? line : "");
        (void)snprintf(wanted, sizeof(wanted), "%s | %s | %s", g->code, g->subject, g->place);
        if (strcmp(got, wanted) != 0)
            fail_msg("%s: said %s\n  instead of %s", g->file, got, wanted);
        assert_true(!said || (strlen(d.message) > 0 && text_is_utf8(d.message, strlen(d.message))));
    }
    free(c.text);
}

/* ---- the table */

/* Each pattern is within bounds, begins with text, and has as many names as its sentences. */
static void test_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < diagnose_rule_count; i++) {
        const struct diagnose_rule *r = &diagnose_rules[i];
        char whole[512], name[200];
        const char *sign = strstr(r->find, "%s");
        /* What the pattern describes is found by it. */
        (void)snprintf(whole, sizeof(whole), "x: %.*s%s%s", sign ? (int)(sign - r->find) : 512,
            r->find, sign ? "NAME" : "", sign ? sign + 2 : "");
        for (char *p = whole; (p = strchr(p, '~'));)
            *p = 'y';
        if (!diagnose_match(r->find, whole, strlen(whole), name, sizeof(name)) ||
            strcmp(name, sign ? "NAME" : "") != 0)
            fail_msg("'%s' does not find '%s' (%s)", r->find, whole, name);
        if (!sign && (strstr(r->message, "%s") || strstr(r->hint, "%s")))
            fail_msg("'%s' cuts out no name, but tells one", r->find);
    }
}

/* ---- limits, exits, and outputs that lie */

static const struct {
    const char *language, *tail;
    int exit_code, signal;
    bool timed_out, oom, space;
    const char *code; /* NULL: nothing is said */
    const char *subject, *place;
} rows[] = {
    /* a success is not explained, whatever it printed */
    {"python", "ModuleNotFoundError: No module named 'x'", 0, 0, false, false, false, NULL, "", ""},
    /* a rule of another language does not apply; a shell's programs may be of any */
    {"ruby", "Error: Cannot find module 'express'\n", 1, 0, false, false, false, NULL, "", ""},
    {"shell", "Error: Cannot find module 'express'\n", 1, 0, false, false, false, "missing_module",
        "express", ""},
    {NULL, "Error: Cannot find module 'express'\n", 1, 0, false, false, false, "missing_module",
        "express", ""},
    /* limits are certain, whatever was printed */
    {"python", "MemoryError\n", 0, 9, false, true, false, "out_of_memory", "", ""},
    {"python", "Traceback (most recent call last)\n", 0, 15, true, false, false, "timed_out", "",
        ""},
    {"python", "", 0, 15, false, false, true, "disk_quota", "", ""},
    {NULL, "", 0, 11, false, false, false, "crashed", "", ""},
    {NULL, "", 0, 8, false, false, false, "crashed", "", ""},
    {NULL, "", 0, 31, false, false, false, "crashed", "", ""},
    {NULL, "", 0, 6, false, false, false, "aborted", "", ""},
    {NULL, "", 0, 2, false, false, false, NULL, "", ""},
    {NULL, "", 139, 0, false, false, false, "crashed", "", ""},
    {NULL, "", 127, 0, false, false, false, "command_not_found", "", ""},
    {NULL, "", 126, 0, false, false, false, "not_executable", "", ""},
    /* a plain failure has said all itself */
    {"python", "usage: main.py FILE\n", 2, 0, false, false, false, NULL, "", ""},
    /* "is not set" is about a variable only if what is not set looks like one */
    {"node", "the table is not set\n", 1, 0, false, false, false, NULL, "", ""},
    /* a name with control characters is not repeated */
    {"python", "ModuleNotFoundError: No module named '\x1b[31mx'\n", 1, 0, false, false, false,
        NULL, "", ""},
    {"python", "ModuleNotFoundError: No module named '", 1, 0, false, false, false, NULL, "", ""},
    {"shell", "x: \xff\xfe: command not found\n", 127, 0, false, false, false, "command_not_found",
        "", ""},
    /* places that are no files of the workspace are not told: outside, above, absolute, made up */
    {"python", "  File \"/usr/lib/python3.11/x.py\", line 3, in f\nMemoryError\n", 1, 0, false,
        false, false, "out_of_memory", "", ""},
    {"python", "  File \"/workspace/../etc/passwd\", line 3, in f\nMemoryError\n", 1, 0, false,
        false, false, "out_of_memory", "", ""},
    {"python", "  File \"/workspace/nosuch.py\", line 3, in f\nMemoryError\n", 1, 0, false, false,
        false, "out_of_memory", "", ""},
    {"c", "../../etc/passwd:1: error: no\n/etc/passwd:2: error: no\n", 1, 0, false, false, false,
        "compile_error", "", ""},
    {"node", "Error: connect ECONNREFUSED 127.0.0.1:5432\n", 1, 0, false, false, false,
        "connection_refused", "", ""},
    /* … the next that is one is */
    {"python",
        "  File \"/workspace/dir/main.py\", line 7, in g\n  File \"/workspace/nosuch.py\", line 3, "
        "in f\nMemoryError\n",
        1, 0, false, false, false, "out_of_memory", "", "dir/main.py:7"},
    {"c", "dir/../../../x.c:1: error: no\nmain.py:3: error: no\n", 1, 0, false, false, false,
        "compile_error", "", "dir/main.py:3"},
    {"c", "error: :::::1:99999999999999999999:", 1, 0, false, false, false, "compile_error", "",
        ""},
    {"python", "Traceback (most recent call last)\nFile \"/workspace/", 1, 0, false, false, false,
        "exception", "", ""},
};

static bool is_main(void *ctx, const char *path)
{
    unsigned *asked = ctx;
    ++*asked;
    return strcmp(path, "dir/main.py") == 0;
}

static void test_rows(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct diagnosis d;
        unsigned asked = 0;
        char place[300] = "";
        const struct diagnose_facts facts = {.language = rows[i].language,
            .exit_code = rows[i].exit_code,
            .signal = rows[i].signal,
            .timed_out = rows[i].timed_out,
            .oom_killed = rows[i].oom,
            .space_hit = rows[i].space,
            .memory_bytes = 1 << 30,
            .wall_ms = 60000,
            .tail = rows[i].tail,
            .tail_len = strlen(rows[i].tail),
            .folder = "dir",
            .cwd = "",
            .exists = is_main,
            .ctx = &asked};
        bool said = diagnose(&facts, &d);
        if (said != (rows[i].code != NULL) || (said && strcmp(d.code, rows[i].code) != 0))
            fail_msg("row %zu: said '%s', not '%s'", i, said ? d.code : "nothing",
                rows[i].code ? rows[i].code : "nothing");
        if (!said)
            continue;
        assert_true(strlen(d.message) > 0);
        assert_string_equal(d.subject, rows[i].subject);
        if (d.file[0])
            (void)snprintf(place, sizeof(place), "%s:%u", d.file, d.line);
        if (strcmp(place, rows[i].place) != 0)
            fail_msg("row %zu: at '%s', not '%s'", i, place, rows[i].place);
    }
}

/* Output is bytes: a NUL or bad UTF-8 in the middle hides nothing and breaks nothing. */
static void test_bytes(void **state)
{
    static const char tail[] =
        "\xff\0\xfe\nModuleNotFoundError: No module named 'a\xff'\nMemoryError\n";
    struct diagnosis d;
    const struct diagnose_facts facts = {
        .language = "python", .exit_code = 1, .tail = tail, .tail_len = sizeof(tail) - 1};
    (void)state;
    assert_true(diagnose(&facts, &d));
    assert_string_equal(d.code, "out_of_memory");
}

/* However much there is of what could be a place or a match, the work is bounded. */
static void test_floods(void **state)
{
    static const char *const pieces[] = {"a:1", "File \"/workspace/a.py\", line 1\n", "x: 1: y\n",
        "ENOENT: no such file or directory,", ": No such file or directory", "%s~", ":", "\n",
        "imported from a\n"};
    static const char *const languages[] = {"python", "node", "shell", "c", NULL};
    char *tail = malloc(DIAGNOSE_TAIL_BYTES);
    (void)state;
    assert_non_null(tail);
    for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
        size_t len = 0, piece = strlen(pieces[i]);
        for (; len + piece <= DIAGNOSE_TAIL_BYTES; len += piece)
            memcpy(tail + len, pieces[i], piece);
        for (size_t l = 0; l < sizeof(languages) / sizeof(languages[0]); l++) {
            struct diagnosis d;
            unsigned asked = 0;
            const struct diagnose_facts facts = {.language = languages[l],
                .exit_code = 127,
                .tail = tail,
                .tail_len = len,
                .folder = "",
                .cwd = "x",
                .exists = is_main,
                .ctx = &asked};
            (void)diagnose(&facts, &d);
            assert_true(asked <= 4 * DIAGNOSE_EXISTS_MAX);
        }
    }
    free(tail);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_golden), cmocka_unit_test(test_table),
        cmocka_unit_test(test_rows), cmocka_unit_test(test_bytes), cmocka_unit_test(test_floods)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
