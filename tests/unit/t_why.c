/* SPDX-License-Identifier: MIT */
/* Why a path is not synced, and which ignored path a name could mean. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <string.h>

#include "agent/why.h"
#include "shared/io.h"
#include "shared/tree.h"

#include "shared/banned.h"

struct fixture {
    char dir[64];
};

static void put(const struct fixture *f, const char *name, const char *text)
{
    char path[256];
    (void)snprintf(path, sizeof(path), "%s/%s", f->dir, name);
    assert_int_equal(io_write_file(path, text, strlen(text), 0644, NULL), 0);
}

static int setup(void **state)
{
    static struct fixture f;
    char path[256];
    (void)snprintf(f.dir, sizeof(f.dir), "/tmp/silt-why.XXXXXX");
    assert_non_null(mkdtemp(f.dir));
    (void)snprintf(path, sizeof(path), "%s/src/deep", f.dir);
    assert_int_equal(io_mkdirs(path, 0755, NULL), 0);
    (void)snprintf(path, sizeof(path), "%s/node_modules/made", f.dir);
    assert_int_equal(io_mkdirs(path, 0755, NULL), 0);
    put(&f, ".gitignore", "# first\nbuild/\n");
    put(&f, "src/.gitignore", "made*.py\n");
    put(&f, "src/.siltignore", "!made_but_kept.py\n");
    put(&f, "src/made.py", "1");
    put(&f, "src/deep/made.py", "2");
    put(&f, "src/made_but_kept.py", "3");
    put(&f, "src/plain.py", "4");
    put(&f, "node_modules/made/made.js", "5");
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    CLEANUP(fd_closep) int tmp = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return tree_remove_at(tmp, f->dir + strlen("/tmp/"), NULL);
}

static void test_ignored(void **state)
{
    static const struct {
        const char *path, *says; /* NULL: is synced */
    } rows[] = {
        /* a rule of a folder's own file, with its line */
        {"src/made.py", "line 1 of src/.gitignore"},
        /* … also for what lies deeper */
        {"src/deep/made.py", "line 1 of src/.gitignore"},
        /* taken back by .siltignore */
        {"src/made_but_kept.py", NULL},
        {"src/plain.py", NULL},
        /* a built-in rule, and what lies in an ignored folder */
        {"node_modules/made/made.js", "node_modules"},
        /* a path that does not exist is judged as a file: the rule means folders */
        {"build", NULL},
        {"build/x", "line 2 of .gitignore"},
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct buf why;
        bool ignored = !rows[i].says;
        buf_init(&why, 4096);
        assert_int_equal(why_ignored(f->dir, rows[i].path, &ignored, &why, NULL), 0);
        if (ignored != (rows[i].says != NULL))
            fail_msg("row %zu: %s", i, rows[i].path);
        if (rows[i].says && !strstr(buf_str(&why), rows[i].says))
            fail_msg("row %zu: '%s' does not say '%s'", i, buf_str(&why), rows[i].says);
        buf_release(&why);
    }
}

static void test_find(void **state)
{
    static const struct {
        const char *name;
        const char *first; /* NULL: nothing */
        size_t count;
    } rows[] = {
        /* a module, with and without its package, as a path, as the program sees it */
        {"made", "src/deep/made.py", 2},
        {"src.made", "src/made.py", 1},
        {"src/made.py", "src/made.py", 1},
        {"./src/made.py", "src/made.py", 1},
        {"/workspace/src/made.py", "src/made.py", 1},
        /* not ignored, not there, nothing, part of a name */
        {"plain", NULL, 0},
        {"absent", NULL, 0},
        {"", NULL, 0},
        {"ade", NULL, 0},
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char *found[3] = {NULL};
        size_t count = why_find(f->dir, rows[i].name, found, 3);
        if (count != rows[i].count || (count && strcmp(found[0], rows[i].first) != 0))
            fail_msg("row %zu: %s: %zu, %s", i, rows[i].name, count, count ? found[0] : "");
        for (size_t k = 0; k < count; k++)
            free(found[k]);
    }
    char *one[1];
    assert_int_equal(why_find(f->dir, "made", one, 1), 1); /* no more than asked for */
    free(one[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_ignored, setup, teardown),
        cmocka_unit_test_setup_teardown(test_find, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
