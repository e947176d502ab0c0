/* SPDX-License-Identifier: MIT */
/* The store: runs, rows of manifests and how they move, results, intents, versions, clean stops. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "server/store.h"
#include "shared/tree.h"

#include "shared/banned.h"

struct fixture {
    char dir[64], db[96];
    struct store *s;
};

static void reopen(struct fixture *f)
{
    struct err e = ERR_INIT;

    store_close(f->s);
    f->s = NULL;
    if (store_open(f->db, &f->s, &e) < 0)
        fail_msg("%s", e.msg);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    (void)snprintf(f->dir, sizeof f->dir, "/tmp/silt-store-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    (void)snprintf(f->db, sizeof f->db, "%s/siltd.db", f->dir);
    reopen(f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    int tmp = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    store_close(f->s);
    assert_int_equal(tree_remove_at(tmp, strrchr(f->dir, '/') + 1, NULL), 0);
    (void)close(tmp);
    free(f);
    return 0;
}

static int note_id(const struct store_run *run, void *ctx)
{
    return buf_addf(ctx, "%s ", run->id) < 0;
}

static int note_first(const struct store_run *run, void *ctx)
{
    (void)note_id(run, ctx);
    return 1;
}

static void test_runs(void **state)
{
    struct fixture *f = *state;
    static const struct store_run runs[] = {
        {.id = "run_a",
            .sandbox = "sb_1",
            .status = "failed",
            .created_ns = 1,
            .json = "{\"a\":1}"},
        {.id = "run_b", .sandbox = "sb_2", .status = "succeeded", .created_ns = 2, .json = "{}"},
        {.id = "run_c", .sandbox = "sb_1", .status = "succeeded", .created_ns = 3, .json = "{}"},
        /* replaces the first */
        {.id = "run_a",
            .sandbox = "sb_1",
            .status = "succeeded",
            .created_ns = 1,
            .json = "{\"a\":2}"},
    };
    static const struct {
        const char *sandbox, *status, *before, *expected;
        unsigned limit;
    } lists[] = {
        {NULL, NULL, NULL, "run_c run_b run_a ", 10}, /* newest first */
        {NULL, NULL, NULL, "run_c run_b ", 2},
        {NULL, NULL, "run_c", "run_b run_a ", 10}, /* the next page */
        {"sb_1", NULL, NULL, "run_c run_a ", 10},
        {"sb_1", NULL, "run_c", "run_a ", 10},
        {NULL, "succeeded", NULL, "run_c run_b run_a ", 10},
        {"sb_1", "failed", NULL, "", 10},
        {"sb_3", NULL, NULL, "", 10},
    };
    struct buf b;
    struct err e = ERR_INIT;

    buf_init(&b, 1000);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(store_run_put(f->s, &runs[i], &e), 0);
    reopen(f);
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        buf_reset(&b);
        assert_int_equal(store_run_list(f->s, lists[i].sandbox, lists[i].status, lists[i].before,
                             lists[i].limit, note_id, &b, &e),
            0);
        assert_string_equal(buf_str(&b), lists[i].expected);
    }
    buf_reset(&b);
    assert_int_equal(store_run_list(f->s, NULL, NULL, NULL, 10, note_first, &b, &e), 0);
    assert_string_equal(buf_str(&b), "run_c ");
    buf_reset(&b);
    assert_int_equal(store_run_get(f->s, "run_a", &b, &e), 0);
    assert_string_equal(buf_str(&b), "{\"a\":2}");
    assert_int_equal(store_run_get(f->s, "run_x", &b, &e), -ENOENT);
    assert_int_equal(store_run_delete(f->s, "run_b", &e), 0);
    assert_int_equal(store_run_delete(f->s, "run_b", &e), -ENOENT);
    assert_int_equal(store_run_delete_of_sandbox(f->s, "sb_1", &e), 0);
    assert_int_equal(store_run_delete_of_sandbox(f->s, "sb_1", &e), 0);
    buf_reset(&b);
    assert_int_equal(store_run_list(f->s, NULL, NULL, NULL, 10, note_id, &b, &e), 0);
    assert_string_equal(buf_str(&b), "");
    buf_release(&b);
}

static int64_t add_sandbox(struct fixture *f, const char *id)
{
    struct store_sandbox row = {.id = id,
        .language = "python",
        .name = "",
        .image = "host",
        .env_json = "{}",
        .limits_json = "{}",
        .network_json = "{}",
        .labels_json = "{}",
        .epoch = "ep",
        .writer_link = "",
        .writer_machine = "",
        .uid = 7};
    int64_t num = 0;

    assert_int_equal(store_sandbox_add(f->s, &row, &num, NULL), 0);
    return num;
}

/* "path kind size" of every row, in order, after "run" for one that a run wrote. */
static void assert_rows(struct fixture *f, int64_t num, const char *expected)
{
    struct manifest *m = manifest_new();
    struct buf b;
    size_t count;

    buf_init(&b, 4000);
    assert_int_equal(store_files_load(f->s, num, m, NULL), 0);
    const struct manifest_entry **rows = manifest_sorted(m, &count);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(
            buf_addf(&b, "%s%s:%d:%d ", rows[i]->by_run ? "run " : "", rows[i]->path, rows[i]->kind,
                (int)rows[i]->size),
            0);
    assert_string_equal(buf_str(&b), expected);
    free(rows);
    manifest_free(m);
    buf_release(&b);
}

static struct store_edit put(const char *path, enum tree_kind kind, uint64_t size, char *target)
{
    struct store_edit d = {.kind = STORE_PUT, .path = (char *)(uintptr_t)path};

    d.entry = (struct manifest_entry){.path = d.path, .kind = kind, .size = size, .target = target};
    return d;
}

static void test_manifest_rows(void **state)
{
    struct fixture *f = *state;
    int64_t one = add_sandbox(f, "sb_1"), two = add_sandbox(f, "sb_2");
    char target[] = "else\xff";
    struct err e = ERR_INIT;
    const struct store_edit first[] = {
        put("d", TREE_DIR, 0, NULL), put("d/a", TREE_FILE, 1, NULL),
        put("d/s/b", TREE_FILE, 2, NULL), put("d.x", TREE_FILE, 3, NULL),
        put("d0", TREE_FILE, 4, NULL), put("l", TREE_SYMLINK, 5, target),
        put("\xc3\x28\n", TREE_FILE, 6, NULL), /* names are bytes */
    };
    struct store_commit c = {.num = one, .edits = first, .edit_count = 7, .generation = 1};

    assert_int_equal(store_commit_edits(f->s, &c, &e), 0);
    c.num = two;
    c.edit_count = 2;
    assert_int_equal(store_commit_edits(f->s, &c, &e), 0);
    reopen(f);
    assert_rows(f, one, "d:1:0 d.x:0:3 d/a:0:1 d/s/b:0:2 d0:0:4 l:2:5 \xc3\x28\n:0:6 ");
    /* A move takes what lies beneath, not what only begins alike, and replaces what is there. */
    struct store_edit second[] = {
        {.kind = STORE_MOVE, .path = (char *)(uintptr_t) "d", .to = (char *)(uintptr_t) "d0"},
        {.kind = STORE_REMOVE, .path = (char *)(uintptr_t) "l", .leaf = true},
        put("\xc3\x28\n", TREE_FILE, 9, NULL),
    };
    second[2].entry.by_run = true;
    c = (struct store_commit){.num = one, .edits = second, .edit_count = 3, .generation = 2};
    assert_int_equal(store_commit_edits(f->s, &c, &e), 0);
    assert_rows(f, one, "d.x:0:3 d0:1:0 d0/a:0:1 d0/s/b:0:2 run \xc3\x28\n:0:9 ");
    assert_rows(f, two, "d:1:0 d/a:0:1 ");
    const struct store_edit third[] = {{.kind = STORE_REMOVE, .path = (char *)(uintptr_t) "d0"}};
    c = (struct store_commit){.num = one, .edits = third, .edit_count = 1, .generation = 3};
    assert_int_equal(store_commit_edits(f->s, &c, &e), 0);
    assert_rows(f, one, "d.x:0:3 run \xc3\x28\n:0:9 ");
    /* A deleted sandbox takes its own along. */
    assert_int_equal(store_sandbox_delete(f->s, one, &e), 0);
    assert_rows(f, one, "");
    assert_rows(f, two, "d:1:0 d/a:0:1 ");
    /* Its number is not given out again. */
    assert_true(add_sandbox(f, "sb_3") > two);
}

static void put_by(
    struct fixture *f, int64_t num, uint64_t size, bool by_run, const char *run)
{
    struct store_edit d = put("w/f", TREE_FILE, size, NULL);
    struct store_commit c = {.num = num, .edits = &d, .edit_count = 1};

    d.entry.by_run = by_run;
    d.run = run;
    assert_int_equal(store_commit_edits(f->s, &c, NULL), 0);
}

static void assert_writer(struct fixture *f, int64_t num, const char *path, const char *expected)
{
    char run[40];

    assert_int_equal(store_file_run(f->s, num, path, run, sizeof run, NULL), 0);
    assert_string_equal(run, expected);
}

static void test_writers(void **state)
{
    struct fixture *f = *state;
    int64_t one = add_sandbox(f, "sb_1"), two = add_sandbox(f, "sb_2");
    struct store_edit move = {.kind = STORE_MOVE,
        .path = (char *)(uintptr_t) "w",
        .to = (char *)(uintptr_t) "x"};
    struct store_commit c = {.num = one, .edits = &move, .edit_count = 1};

    assert_writer(f, one, "w/f", "");
    put_by(f, one, 1, true, "run_a");
    put_by(f, two, 1, true, "run_b");
    reopen(f);
    assert_writer(f, one, "w/f", "run_a");
    put_by(f, one, 1, true, NULL); /* only its stamps are others */
    assert_writer(f, one, "w/f", "run_a");
    assert_int_equal(store_commit_edits(f->s, &c, NULL), 0);
    assert_writer(f, one, "x/f", "run_a");
    assert_writer(f, one, "w/f", "");
    assert_writer(f, two, "w/f", "run_b");
    put_by(f, two, 2, true, ""); /* by whom is not known */
    assert_writer(f, two, "w/f", "");
    put_by(f, two, 3, true, "run_b");
    put_by(f, two, 4, false, "run_b"); /* a change set */
    assert_writer(f, two, "w/f", "");
}

static int note_sandbox(const struct store_sandbox *row, void *ctx)
{
    return buf_addf(ctx, "%s/%s/%u/%llu/%d ", row->id, row->writer_link, row->uid,
               (unsigned long long)row->generation, row->deleting) < 0;
}

static void test_sandbox_rows(void **state)
{
    struct fixture *f = *state;
    int64_t num = add_sandbox(f, "sb_1");
    struct buf b;

    (void)add_sandbox(f, "sb_2");
    struct store_sandbox row = {.num = num,
        .id = "sb_1",
        .language = "",
        .name = "n",
        .image = "i",
        .env_json = "{}",
        .limits_json = "{}",
        .network_json = "{}",
        .labels_json = "{}",
        .epoch = "ep2",
        .writer_link = "link",
        .writer_machine = "m",
        .uid = 8,
        .generation = UINT64_C(1) << 40,
        .deleting = true};
    assert_int_equal(store_sandbox_save(f->s, &row, NULL), 0);
    reopen(f);
    buf_init(&b, 1000);
    assert_int_equal(store_sandbox_each(f->s, note_sandbox, &b, NULL), 0);
    assert_string_equal(buf_str(&b), "sb_1/link/8/1099511627776/1 sb_2//7/0/0 ");
    buf_release(&b);
}

static int note_result(const struct store_result *row, void *ctx)
{
    return buf_addf(ctx, "%s#%llu@%u=%d(%s) ", row->client, (unsigned long long)row->seq, row->slot,
               row->refusal, row->reason) < 0;
}

static void assert_results(struct fixture *f, int64_t num, const char *expected)
{
    struct buf b;

    buf_init(&b, 1000);
    assert_int_equal(store_result_each(f->s, num, note_result, &b, NULL), 0);
    assert_string_equal(buf_str(&b), expected);
    buf_release(&b);
}

static void test_results_and_intents(void **state)
{
    struct fixture *f = *state;
    int64_t num = add_sandbox(f, "sb_1");
    struct store_result r = {.client = "c", .seq = 1, .reason = "", .used_ns = 1};
    struct store_result refused = {.client = "b",
        .slot = 1,
        .seq = 2,
        .refusal = PROTO_BASE_MISMATCH,
        .reason = "why",
        .used_ns = 2};
    struct store_result later = {.client = "c", .slot = 1, .seq = 9, .reason = "", .used_ns = 3};
    struct store_intent intent = {.num = num, .steps = "steps", .steps_len = 5, .result = &later};
    struct store_commit c = {.num = num, .generation = 1, .result = &r, .drop_intent = true};
    struct buf b;
    char expected[200];

    buf_init(&b, 100);
    assert_int_equal(store_intent_get(f->s, num, &b, NULL), -ENOENT);
    assert_int_equal(store_intent_put(f->s, &intent, NULL), 0);
    assert_int_equal(store_commit_edits(f->s, &c, NULL), 0);
    assert_int_equal(store_intent_get(f->s, num, &b, NULL), -ENOENT);
    assert_int_equal(store_result_put(f->s, num, &refused, NULL), 0);
    (void)snprintf(expected, sizeof expected, "c#1@0=0() b#2@1=%d(why) ", PROTO_BASE_MISMATCH);
    reopen(f);
    assert_results(f, num, expected);
    /* A finished intent leaves the result that its set would have had. */
    assert_int_equal(store_intent_put(f->s, &intent, NULL), 0);
    reopen(f);
    assert_int_equal(store_intent_get(f->s, num, &b, NULL), 0);
    assert_string_equal(buf_str(&b), "steps");
    assert_int_equal(store_intent_finish(f->s, num, NULL), 0);
    assert_int_equal(store_intent_get(f->s, num, &b, NULL), -ENOENT);
    assert_int_equal(store_client_forget(f->s, num, "b", NULL), 0);
    assert_results(f, num, "c#1@0=0() c#9@1=0() ");
    /* One of a set without a number leaves none. */
    intent.result = NULL;
    assert_int_equal(store_intent_put(f->s, &intent, NULL), 0);
    assert_int_equal(store_intent_finish(f->s, num, NULL), 0);
    assert_results(f, num, "c#1@0=0() c#9@1=0() ");
    assert_int_equal(store_intent_put(f->s, &intent, NULL), 0);
    assert_int_equal(store_intent_drop(f->s, num, NULL), 0);
    assert_int_equal(store_intent_get(f->s, num, &b, NULL), -ENOENT);
    buf_release(&b);
}

static void test_clean_stop(void **state)
{
    struct fixture *f = *state;
    struct store *second = NULL;
    struct err e = ERR_INIT;
    int status;

    assert_true(store_was_clean(f->s)); /* new */
    /* A second server is kept out. */
    assert_int_equal(store_open(f->db, &second, &e), -EBUSY);
    reopen(f);
    assert_true(store_was_clean(f->s));
    store_close(f->s);
    f->s = NULL;
    pid_t pid = fork();
    if (pid == 0)
        _exit(store_open(f->db, &second, NULL) == 0 ? 0 : 1); /* as if killed */
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    reopen(f);
    assert_false(store_was_clean(f->s));
    reopen(f);
    assert_true(store_was_clean(f->s));
}

static void test_newer_schema(void **state)
{
    struct fixture *f = *state;
    struct err e = ERR_INIT;
    sqlite3 *db;

    store_close(f->s);
    f->s = NULL;
    assert_int_equal(sqlite3_open(f->db, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "PRAGMA user_version = 99", NULL, NULL, NULL), SQLITE_OK);
    (void)sqlite3_close(db);
    assert_true(store_open(f->db, &f->s, &e) < 0);
    assert_non_null(strstr(e.msg, "99"));
    assert_null(f->s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_runs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_manifest_rows, setup, teardown),
        cmocka_unit_test_setup_teardown(test_writers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sandbox_rows, setup, teardown),
        cmocka_unit_test_setup_teardown(test_results_and_intents, setup, teardown),
        cmocka_unit_test_setup_teardown(test_clean_stop, setup, teardown),
        cmocka_unit_test_setup_teardown(test_newer_schema, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
