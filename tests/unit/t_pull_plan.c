/* SPDX-License-Identifier: MIT */
/* agent/pull_plan, pull_place, pull_json: what a pull does for each way in which project, index and
 * server may differ; what it never writes; what was changed under its hands stays. */
#include "tree_fixture.h"

#include "agent/pull.h"
#include "shared/banned.h"

struct world {
    struct fixture f;
    struct ignore *rules;
    struct manifest *there;
    struct index *index;
    struct pull_plan plan;
    int dot, stage;
};

static int begin(void **state)
{
    void *inner = (void *)(uintptr_t)&fixture_modes[0];
    struct err e = ERR_INIT;
    struct world *w = calloc(1, sizeof(*w));
    assert_non_null(w);
    assert_int_equal(fixture_setup(&inner), 0);
    memcpy(&w->f, inner, sizeof(w->f));
    free(inner);
    assert_int_equal(mkdirat(w->f.root, ".silt", 0700), 0);
    w->dot = openat(w->f.root, ".silt", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    w->rules = ignore_new(true);
    w->there = manifest_new();
    assert_int_equal(index_open(w->dot, "lk_test", "sb_test", &w->index, &e), 0);
    assert_int_equal(pull_stage(w->dot, &w->stage, &e), 0);
    *state = w;
    return 0;
}

static int end(void **state)
{
    struct world *w = *state;
    struct fixture *inner = malloc(sizeof(*inner));
    pull_plan_release(&w->plan);
    index_close(w->index);
    manifest_free(w->there);
    ignore_free(w->rules);
    close(w->stage);
    close(w->dot);
    memcpy(inner, &w->f, sizeof(*inner));
    free(w);
    *state = inner;
    return fixture_teardown(state);
}

static struct manifest_entry file_entry(const char *path, const char *text)
{
    struct manifest_entry m = {
        .path = (char *)(uintptr_t)path, .kind = TREE_FILE, .mode = 0644, .size = strlen(text)};
    hash_buf(text, strlen(text), &m.hash);
    return m;
}

static void there(struct world *w, const char *path, const char *text)
{
    struct manifest_entry m = file_entry(path, text);
    assert_int_equal(manifest_put(w->there, &m), 0);
}

static void known(struct world *w, const char *path, const char *text)
{
    CLEANUP(buf_release) struct buf log;
    struct manifest_entry m = file_entry(path, text);
    struct err e = ERR_INIT;
    buf_init(&log, 65536);
    assert_int_equal(index_put(w->index, &m, &log), 0);
    assert_int_equal(index_commit(w->index, &log, &e), 0);
}

static void here(struct world *w, const char *path, const char *text)
{
    put(w->f.root, path, text, 0644);
}

static void make_plan(struct world *w, char **paths, size_t count, bool force)
{
    struct err e = ERR_INIT;
    const struct pull_config config = {.tree = w->f.t,
        .rules = w->rules,
        .known = index_manifest(w->index),
        .paths = paths,
        .path_count = count,
        .force = force};
    pull_plan_release(&w->plan);
    if (pull_plan_make(&config, w->there, &w->plan, &e) < 0)
        fail_msg("%s", e.msg);
}

static void place(struct world *w, bool allow_delete)
{
    struct err e = ERR_INIT;
    const struct pull_target target = {.tree = w->f.t,
        .rules = w->rules,
        .index = w->index,
        .stage_fd = w->stage,
        .allow_delete = allow_delete};
    if (pull_place(&target, &w->plan, &e) < 0)
        fail_msg("%s", e.msg);
}

static void expect(const struct world *w, const char *path, const char *text)
{
    char got[64] = "";
    int fd = openat(w->f.root, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (!text) {
        assert_int_equal(fd, -1);
        return;
    }
    assert_true(fd >= 0);
    assert_true(read(fd, got, sizeof(got) - 1) >= 0);
    assert_string_equal(got, text);
    close(fd);
}

/* Each way in which the three may differ; "-": not there. */
static const struct {
    const char *here, *known, *there;
    int action; /* -1: nothing to do */
    int named, force; /* the same when the path is named, with --force */
} ways[] = {
    {"-", "-", "s", PULL_FETCH, PULL_FETCH, PULL_FETCH},
    {"k", "k", "s", PULL_FETCH, PULL_FETCH, PULL_FETCH},
    {"s", "k", "s", PULL_ADOPT, PULL_ADOPT, PULL_ADOPT},
    {"s", "-", "s", PULL_ADOPT, PULL_ADOPT, PULL_ADOPT},
    {"h", "k", "s", PULL_CONFLICT, PULL_CONFLICT, PULL_FETCH},
    {"h", "-", "s", PULL_CONFLICT, PULL_CONFLICT, PULL_FETCH},
    {"-", "k", "s", PULL_CONFLICT, PULL_FETCH, PULL_FETCH},
    {"k", "k", "k", -1, -1, -1},
    {"h", "k", "k", -1, -1, PULL_FETCH}, /* an edit that was not sent yet */
    {"-", "k", "k", -1, PULL_FETCH, PULL_FETCH},
    {"k", "k", "-", PULL_DELETE, PULL_DELETE, PULL_DELETE},
    {"h", "k", "-", PULL_CONFLICT, PULL_CONFLICT, PULL_DELETE},
    {"h", "-", "-", -1, -1, -1},
    {"-", "k", "-", -1, -1, -1},
};

static void test_ways(void **state)
{
    struct world *w = *state;
    char name[] = "file", *paths[] = {name};
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        CLEANUP(buf_release) struct buf log;
        buf_init(&log, 65536);
        (void)unlinkat(w->f.root, name, 0);
        (void)manifest_remove(w->there, name);
        assert_int_equal(index_remove(w->index, name, false, &log), 0);
        if (ways[i].here[0] != '-')
            here(w, name, ways[i].here);
        if (ways[i].known[0] != '-')
            known(w, name, ways[i].known);
        if (ways[i].there[0] != '-')
            there(w, name, ways[i].there);
        for (int mode = 0; mode < 3; mode++) {
            int want = mode == 0 ? ways[i].action : mode == 1 ? ways[i].named : ways[i].force;
            make_plan(w, paths, mode == 1, mode == 2);
            int got = w->plan.count ? (int)w->plan.items[0].action : -1;
            if (got != want)
                fail_msg("row %zu, mode %d: %d and not %d", i, mode, got, want);
        }
    }
}

/* Names that a hostile server would like to have written. */
static const char *const never[] = {".git/hooks/pre-commit", ".GIT/config", "sub/.git/config",
    ".silt/link.json", ".Silt/x", ".env", "keys/server.pem", ".ssh/authorized_keys",
    "sub/.siltignore", ".gitignore"};

static void test_never(void **state)
{
    struct world *w = *state;
    for (size_t i = 0; i < sizeof(never) / sizeof(never[0]); i++)
        there(w, never[i], "x");
    make_plan(w, NULL, 0, true);
    for (size_t i = 0; i < w->plan.count; i++) {
        if (w->plan.items[i].action != PULL_REFUSED)
            fail_msg("%s would be written", w->plan.items[i].there.path);
    }
    place(w, true);
    for (size_t i = 0; i < sizeof(never) / sizeof(never[0]); i++)
        expect(w, never[i], NULL);
    /* A rule file that the user names is his decision. */
    char name[] = ".gitignore", *paths[] = {name};
    make_plan(w, paths, 1, false);
    assert_int_equal(w->plan.count, 1);
    assert_int_equal(w->plan.items[0].action, PULL_FETCH);
}

static const struct {
    const char *path, *target;
    enum pull_action action;
} links[] = {
    {"a", "b", PULL_LINK},
    {"d/a", "../b", PULL_LINK},
    {"a", "/etc/passwd", PULL_REFUSED},
    {"a", "../b", PULL_REFUSED},
    {"d/a", "../../b", PULL_REFUSED},
    {"a", "b/../../c", PULL_REFUSED},
    {"a", ".git/config", PULL_REFUSED},
    {"a", "d/../.silt/link.json", PULL_REFUSED},
    {"a", "./b/c", PULL_LINK},
    {"d/a", "../b/", PULL_LINK},
    /* where d leads elsewhere, this does, too */
    {"a", "d/../b", PULL_REFUSED},
    {"d/a", "../e/./..//b", PULL_REFUSED},
};

static void test_links(void **state)
{
    struct world *w = *state;
    for (size_t i = 0; i < sizeof(links) / sizeof(links[0]); i++) {
        struct manifest_entry m = file_entry(links[i].path, links[i].target);
        m.kind = TREE_SYMLINK;
        m.target = (char *)(uintptr_t)links[i].target;
        assert_int_equal(manifest_put(w->there, &m), 0);
        make_plan(w, NULL, 0, false);
        if (w->plan.count != 1 || w->plan.items[0].action != links[i].action)
            fail_msg("%s -> %s", links[i].path, links[i].target);
        (void)manifest_remove(w->there, links[i].path);
    }
}

static void staged(const struct world *w, size_t i, const char *text)
{
    char name[24];
    (void)snprintf(name, sizeof(name), "%zu", i);
    put(w->stage, name, text, 0644);
}

/* What changes between the plan and the placing stays. */
static void test_races(void **state)
{
    struct world *w = *state;
    here(w, "changed", "k");
    known(w, "changed", "k");
    there(w, "changed", "s");
    there(w, "made", "s");
    here(w, "deleted", "k");
    known(w, "deleted", "k");
    here(w, "sent", "k");
    known(w, "sent", "k");
    there(w, "sent", "s");
    there(w, "fine", "s");
    make_plan(w, NULL, 0, false);
    for (size_t i = 0; i < w->plan.count; i++)
        staged(w, i, "s");
    here(w, "changed", "edited");
    here(w, "made", "mine");
    here(w, "deleted", "edited");
    known(w, "sent", "newer"); /* a watcher sent something meanwhile */
    place(w, true);
    expect(w, "changed", "edited");
    expect(w, "made", "mine");
    expect(w, "deleted", "edited");
    expect(w, "sent", "k");
    expect(w, "fine", "s");
    assert_int_equal(pull_plan_count(&w->plan, PULL_CONFLICT), 4);
    /* The index knows what was put into place, and nothing else. */
    const struct manifest_entry *m = manifest_get(index_manifest(w->index), "fine");
    assert_non_null(m);
    assert_true(m->ino != 0);
    assert_null(manifest_get(index_manifest(w->index), "made"));
}

static void test_symlinked_folder(void **state)
{
    struct world *w = *state;
    there(w, "d/f", "s");
    make_plan(w, NULL, 0, true);
    staged(w, 0, "s");
    assert_int_equal(symlinkat("../outside", w->f.root, "d"), 0);
    place(w, true);
    assert_int_equal(faccessat(w->f.outside, "f", F_OK, 0), -1);
    assert_int_equal(w->plan.items[0].action, PULL_CONFLICT);
}

/* Through the file that a watcher reads. */
static void test_saved(void **state)
{
    struct world *w = *state;
    struct pull_plan back = {.items = NULL};
    struct err e = ERR_INIT;
    bool allow_delete = false;
    there(w, "odd\n\377name", "s");
    here(w, "x", "h");
    there(w, "x", "s");
    make_plan(w, NULL, 0, false);
    assert_int_equal(pull_plan_save(&w->plan, true, w->stage, &e), 0);
    assert_int_equal(pull_plan_load(w->stage, &back, &allow_delete, &e), 0);
    assert_true(allow_delete);
    assert_int_equal(back.count, w->plan.count);
    for (size_t i = 0; i < back.count; i++) {
        assert_string_equal(back.items[i].there.path, w->plan.items[i].there.path);
        assert_int_equal(back.items[i].action, w->plan.items[i].action);
        assert_int_equal(back.items[i].here.exists, w->plan.items[i].here.exists);
    }
    pull_plan_release(&back);
    static const char *const damaged[] = {"", "{", "[]x", "{\"items\":[1]}",
        "{\"items\":[{\"action\":0,\"path\":\"Li4vYQ==\",\"kind\":0,\"mode\":420,\"size\":1,"
        "\"hash\":\"xxh3-128:00000000000000000000000000000000\",\"here\":null,\"known\":null}]}"};
    for (size_t i = 0; i < sizeof(damaged) / sizeof(damaged[0]); i++) {
        put(w->stage, PULL_PLAN_FILE, damaged[i], 0600);
        assert_int_equal(pull_plan_load(w->stage, &back, &allow_delete, &e), -EBADMSG);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_ways, begin, end),
        cmocka_unit_test_setup_teardown(test_never, begin, end),
        cmocka_unit_test_setup_teardown(test_links, begin, end),
        cmocka_unit_test_setup_teardown(test_races, begin, end),
        cmocka_unit_test_setup_teardown(test_symlinked_folder, begin, end),
        cmocka_unit_test_setup_teardown(test_saved, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
