/* SPDX-License-Identifier: MIT */
/* New directories that are staged as trees: whatever a set goes on to do with them, and whatever a
 * program does meanwhile, the workspace holds what the operations say, and the manifest knows it.
 */
#include "tests/unit/sandbox_fixture.h"

#include <dirent.h>
#include <time.h>

#include "shared/banned.h"

#define ROWS_MAX 8
#define OWN                                                                                        \
    "d/own=p" /* where this is wanted, a program has made it, and the manifest does not know */

static unsigned entries_of(const char *path)
{
    unsigned count = 0;
    DIR *dir = opendir(path);

    assert_non_null(dir);
    for (struct dirent *d; (d = readdir(dir)) != NULL;)
        count += d->d_name[0] != '.';
    (void)closedir(dir);
    return count;
}

static unsigned staged(const struct fixture *f)
{
    char path[256];

    (void)snprintf(path, sizeof path, "%s/staging/%s", f->data, sandbox_id(f->sb));
    return entries_of(path);
}

static uint32_t mode_of(const struct fixture *f, const char *path)
{
    char name[512];
    struct stat st;

    assert_int_equal(stat(at(f, path, name), &st), 0);
    return st.st_mode & 07777;
}

/* What a run would be told that it changed: nothing, if the manifest knows what is there. */
static uint64_t differs(struct fixture *f)
{
    struct sandbox_mounts mounts;
    struct sandbox_run_changes changes;

    assert_int_equal(sandbox_run_enter(f->sb, &mounts, NULL), 0);
    sandbox_mounts_release(&mounts);
    assert_int_equal(sandbox_run_leave(f->sb, &changes, NULL), 0);
    uint64_t total = changes.total;
    sandbox_run_changes_release(&changes);
    return total;
}

/* Each row: a set, what is there afterwards ("path=text", "path/" for a directory, "!path" for
 * nothing). All begin with a workspace that has old/file. */
static const struct {
    const char *what;
    struct row rows[ROWS_MAX];
    const char *wanted[ROWS_MAX];
} cases[] = {
    {"plain", {PUT("d/x", "1"), PUT("d/s/y", "2"), PUT("d/s/t/z", "3")},
        {"d/x=1", "d/s/y=2", "d/s/t/z=3"}},
    {"empty directories", {MKDIR("d"), MKDIR("d/s"), MKDIR("e")}, {"d/s/", "e/"}},
    {"twice", {PUT("d/x", "1"), PUT("d/x", "2")}, {"d/x=2"}},
    {"edited", {PUT("d/x", "one"), EDIT("d/x", "one", "two")}, {"d/x=two"}},
    {"copied", {PUT("d/x", "1"), COPY("d/x", "d/y"), COPY("d/x", "z")}, {"d/x=1", "d/y=1", "z=1"}},
    {"deleted", {PUT("d/x", "1"), PUT("d/y", "2"), DELETE("d/x")}, {"!d/x", "d/y=2"}},
    {"deleted subtree", {PUT("d/s/x", "1"), PUT("d/y", "2"), DELETE_TREE("d/s")},
        {"!d/s", "d/y=2"}},
    {"all deleted", {PUT("d/s/x", "1"), DELETE_TREE("d")}, {"!d"}},
    {"moved out", {PUT("d/x", "1"), PUT("d/y", "2"), MOVE("d/x", "z")}, {"!d/x", "d/y=2", "z=1"}},
    {"moved within", {PUT("d/x", "1"), PUT("d/s/y", "2"), MOVE("d/x", "d/s/z")},
        {"!d/x", "d/s/y=2", "d/s/z=1"}},
    {"moved up", {PUT("d/s/x", "1"), MOVE("d/s", "e")}, {"d/", "!d/s", "e/x=1"}},
    {"another in its place",
        {PUT("d/x", "1"), PUT("d/w", "4"), MOVE("d", "e"), PUT("d/x", "2"), PUT("d/y", "3")},
        {"e/x=1", "e/w=4", "d/x=2", "d/y=3", "!d/w"}},
    {"a file in its place", {PUT("d/x", "1"), DELETE_TREE("d"), PUT("d", "2")}, {"d=2"}},
    {"in place of a file", {DELETE("old/file"), PUT("old/file/x", "1")}, {"old/file/x=1"}},
    {"moved in", {PUT("d/x", "1"), MOVE("old/file", "d/file")}, {"d/x=1", "d/file=o", "!old/file"}},
    {"symlinks", {PUT("d/x", "1"), LINK("d/l", "x")}, {"d/x=1", "d/l=1"}},
    {"a program was first", {PUT("d/x", "1"), PUT("d/s/y", "2")}, {"d/x=1", "d/s/y=2", OWN}},
};

static void check(const struct fixture *f, const char *what, const char *wanted)
{
    char path[64];
    size_t len = strcspn(wanted, "=");
    bool fits;

    (void)snprintf(path, sizeof path, "%.*s", (int)len, wanted);
    if (wanted[0] == '!')
        fits = !exists(f, wanted + 1);
    else if (wanted[len] == '=')
        fits = is_file(f, path, wanted + len + 1);
    else
        fits = mode_of(f, path) == 0755;
    if (!fits)
        fail_msg("%s: %s", what, wanted);
}

static void test_cases(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fixture f;
        struct sandbox_apply_result res;
        struct err e = ERR_INIT;
        size_t count = 0;
        bool program = cases[i].wanted[2] && strcmp(cases[i].wanted[2], OWN) == 0;

        fixture_init(&f);
        (void)apply_ok(f.sb, PUT("old/file", "o"));
        if (program) {
            program_mkdir(&f, "d");
            program_writes(&f, "d/own", "p");
        }
        while (count < ROWS_MAX && cases[i].rows[count].path)
            count++;
        if (apply_rows(f.sb, NULL, cases[i].rows, count, &res, &e) < 0)
            fail_msg("%s: %s", cases[i].what, e.msg);
        sandbox_apply_result_release(&res);
        for (size_t k = 0; k < ROWS_MAX && cases[i].wanted[k]; k++)
            check(&f, cases[i].what, cases[i].wanted[k]);
        if (staged(&f) != 0)
            fail_msg("%s: something is left in staging", cases[i].what);
        if (differs(&f) != (program ? 1 : 0))
            fail_msg("%s: the manifest says something else", cases[i].what);
        fixture_release(&f);
    }
}

static void test_modes(void **state)
{
    struct fixture *f = *state;

    (void)apply_ok(f->sb, {.kind = CHANGE_MKDIR, .path = "d", .mode = 0775},
        {.kind = CHANGE_PUT, .path = "d/w", .text = "1", .mode = 0666},
        {.kind = CHANGE_PUT, .path = "d/r", .text = "2", .mode = 0200},
        {.kind = CHANGE_PUT, .path = "d/s/x", .text = "3", .mode = 0755}, CHMOD("d/w", 0600),
        CHMOD("d/s", 0500));
    assert_int_equal(mode_of(f, "d"), 0775);
    assert_int_equal(mode_of(f, "d/w"), 0600);
    assert_int_equal(mode_of(f, "d/r"), 0600); /* readable for its owner, whatever is asked for */
    assert_int_equal(mode_of(f, "d/s/x"), 0755);
    assert_int_equal(mode_of(f, "d/s"), 0700);
    assert_int_equal(differs(f), 0);
}

/* What is refused leaves nothing behind, neither here nor in staging. */
static void test_refused(void **state)
{
    struct fixture *f = *state;
    const struct row rows[] = {PUT("d/x", "1"), PUT("d/s/y", "2")};
    struct table_feed table = {.rows = rows, .count = 2, .stall_fd = -1, .wrong_hash = true};
    struct changes_feed feed = table_as_feed(&table);
    const struct changes_begin begin = {.client = "", .if_generation = CHANGES_NO_GENERATION};
    struct sandbox_apply_result res;
    struct err e = ERR_INIT;

    assert_int_equal(sandbox_apply(f->sb, &begin, &feed, &res, &e), -EPROTO);
    assert_int_equal(e.refusal, PROTO_HASH_MISMATCH);
    sandbox_apply_result_release(&res);
    (void)apply_ok(f->sb, PUT("old", "o"));
    apply_refused(
        f->sb, PROTO_PATH_CONFLICT, PUT("d/x", "1"), PUT("d/s/y", "2"), PUT("old/x", "3"));
    assert_false(exists(f, "d"));
    assert_int_equal(staged(f), 0);
}

/* A write by a program right after the directory was placed, of the same size and within one tick
 * of the clock, is found. */
static void test_written_at_once(void **state)
{
    struct fixture *f = *state;
    char path[32];

    for (unsigned i = 0; i < 200; i++) {
        (void)snprintf(path, sizeof path, "d%u/x", i);
        (void)apply_ok(f->sb, PUT(path, "1"));
        program_writes(f, path, "2");
        assert_int_equal(differs(f), 1);
    }
}

struct output_feed {
    struct table_feed table; /* first: table_read and table_digest take it */
    int output_fd;
};

/* When all was staged and nothing is placed a program writes its output. */
static int output_next(void *ctx, struct change_op *ret, struct err *e)
{
    struct output_feed *in = ctx;
    const struct timespec more_than_a_tick = {.tv_nsec = 20000000};
    int r = table_next(&in->table, ret, e);

    if (r == 0) {
        (void)nanosleep(&more_than_a_tick, NULL);
        if (write(in->output_fd, "o", 1) != 1)
            return -EIO;
    }
    return r;
}

static bool is_newer(const struct stat *a, const struct stat *b)
{
    return a->st_mtim.tv_sec > b->st_mtim.tv_sec ||
           (a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec > b->st_mtim.tv_nsec);
}

/* Apply a new file in a new directory, and make an output between its staging and its placing. Is
 * the file newer than that? */
static bool newer_than_output(struct fixture *f)
{
    const struct row rows[] = {PUT("d/x", "1")};
    struct output_feed table = {.table = {.rows = rows, .count = 1, .stall_fd = -1}};
    const struct changes_begin begin = {.client = "", .if_generation = CHANGES_NO_GENERATION};
    struct changes_feed feed = {
        .next = output_next, .read = table_read, .digest = table_digest, .ctx = &table};
    struct sandbox_apply_result res;
    struct stat made, placed;
    char name[512];

    table.output_fd = open(at(f, "output", name), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    assert_true(table.output_fd >= 0);
    assert_int_equal(sandbox_apply(f->sb, &begin, &feed, &res, NULL), 0);
    (void)close(table.output_fd);
    sandbox_apply_result_release(&res);
    assert_int_equal(stat(at(f, "output", name), &made), 0);
    assert_int_equal(stat(at(f, "d/x", name), &placed), 0);
    return is_newer(&placed, &made);
}

/* While a program runs a new file is as new as the moment at which it appears: what the program
 * made before must not look newer to make. */
static void test_newer_than_output(void **state)
{
    struct fixture *f = *state;
    struct sandbox_mounts mounts;

    assert_int_equal(sandbox_run_enter(f->sb, &mounts, NULL), 0);
    sandbox_mounts_release(&mounts);
    assert_true(newer_than_output(f));
    sandbox_run_abandon(f->sb);
}

/* A container that is made ahead is no program that runs: the directory is placed as a whole, and
 * its file keeps the stamp of its staging. */
static void test_beside_a_making(void **state)
{
    struct fixture *f = *state;
    struct sandbox_mounts mounts;

    assert_int_equal(sandbox_make_enter(f->sb, &mounts, NULL), 0);
    sandbox_mounts_release(&mounts);
    assert_false(newer_than_output(f));
    sandbox_make_leave(f->sb);
}

/* The deepest path, the longest name, and more directories than one path may have names. */
static void test_deep(void **state)
{
    struct fixture *f = *state;
    char deep[4096], name[600];
    size_t len = 0;

    for (unsigned i = 0; i < 255; i++)
        len += (size_t)snprintf(deep + len, sizeof deep - len, "dir%u/", i % 10);
    (void)snprintf(deep + len, sizeof deep - len, "f");
    (void)snprintf(name, sizeof name, "%0255d/%0255d", 1, 2);
    (void)apply_ok(f->sb, PUT(deep, "deep"), PUT(name, "long"));
    assert_int_equal(differs(f), 0);
    assert_int_equal(staged(f), 0);
    (void)apply_ok(f->sb, DELETE_TREE("dir0"));
    assert_false(exists(f, "dir0"));
    assert_int_equal(differs(f), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test_setup_teardown(test_modes, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_refused, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_written_at_once, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_newer_than_output, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_beside_a_making, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_deep, fixture_setup, fixture_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
