/* SPDX-License-Identifier: MIT */
/* Programs that interfere between the check and the placement: everything is put back. */
#include "tests/unit/sandbox_fixture.h"

#include <dirent.h>

#include "server/apply.h"
#include "server/plan.h"
#include "server/stage.h"
#include "server/workspace.h"

#include "shared/banned.h"

struct bench {
    struct fixture f; /* paths only */
    struct workspaces *all;
    struct workspace *ws;
    struct tree_identity identity, previous;
};

#define ID "sb_test"

static const char *in(const struct bench *b, const char *path, char out[512])
{
    (void)snprintf(out, 512, "%s/" ID "/%s", b->f.work, path);
    return out;
}

static void write_file(const struct bench *b, const char *path, const char *text)
{
    char name[512];
    int fd = open(in(b, path, name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    assert_true(fd >= 0);
    assert_int_equal(io_write_all(fd, text, strlen(text)), 0);
    (void)close(fd);
}

static bool has(const struct bench *b, const char *path, const char *text)
{
    char name[512];
    struct buf got;
    struct stat st;

    if (!text)
        return lstat(in(b, path, name), &st) == 0;
    bool same =
        io_read_file(in(b, path, name), 1000, &got, NULL) == 0 && strcmp(buf_str(&got), text) == 0;
    buf_release(&got);
    return same;
}

static int setup(void **state)
{
    struct bench *b = calloc(1, sizeof *b);
    struct err e = ERR_INIT;
    char name[512];

    (void)snprintf(b->f.dir, sizeof b->f.dir, "/tmp/silt-apply-XXXXXX");
    assert_non_null(mkdtemp(b->f.dir));
    (void)snprintf(b->f.data, sizeof b->f.data, "%s/data", b->f.dir);
    (void)snprintf(b->f.work, sizeof b->f.work, "%s/work", b->f.dir);
    b->identity = (struct tree_identity){.uid = geteuid(), .gid = getegid()};
    if (workspaces_open(b->f.data, b->f.work, &b->all, &e) < 0 ||
        workspace_make(b->all, ID, b->identity, NULL, &e) < 0 ||
        workspace_open(b->all, ID, b->identity, &b->ws, &e) < 0)
        fail_msg("%s", e.msg);
    /* The tree that every case begins with. */
    write_file(b, "a", "a");
    write_file(b, "b", "b");
    write_file(b, "c", "c");
    assert_int_equal(mkdir(in(b, "d", name), 0750), 0);
    write_file(b, "d/in", "in");
    assert_int_equal(mkdir(in(b, "last", name), 0755), 0);
    write_file(b, "last/file", "l");
    *state = b;
    return 0;
}

static int teardown(void **state)
{
    struct bench *b = *state;

    workspace_free(b->ws);
    assert_int_equal(workspace_destroy(b->all, ID, NULL), 0);
    workspaces_free(b->all);
    fixture_release(&b->f);
    free(b);
    return 0;
}

/* Operations of every kind of step; the one at "last/file" is where a program will interfere. */
static struct plan_op ops[] = {
    {.kind = CHANGE_PUT, .path = "a"},     /* replaces */
    {.kind = CHANGE_PUT, .path = "n/e/w"}, /* makes directories */
    {.kind = CHANGE_MOVE, .path = "b", .to = "moved"},
    {.kind = CHANGE_MOVE, .path = "d", .to = "n/d"},
    {.kind = CHANGE_CHMOD, .path = "c", .mode = 0600},
    {.kind = CHANGE_DELETE, .path = "last/file", .base_kind = CHANGE_BASE_HASH},
};
#define OPS (sizeof ops / sizeof ops[0])

static int text_next(void *ctx, struct change_op *op, struct err *e)
{
    (void)ctx;
    (void)op;
    (void)e;
    return 0;
}

static ssize_t text_read(void *ctx, void *data, size_t len, struct err *e)
{
    bool *told = ctx;

    (void)e;
    (void)len;
    if (*told)
        return 0;
    *told = true;
    memcpy(data, "new", 3);
    return 3;
}

/* Plan all operations, let `interfere` happen, place. */
static int plan_and_run(struct bench *b, struct stage *stage, struct steps *steps,
    void (*interfere)(struct bench *b), const char **failed, struct err *e)
{
    struct plan *plan;

    assert_int_equal(stage_init(stage, b->ws, 1 << 20, 0, e), 0);
    assert_int_equal(plan_new(stage, &plan, e), 0);
    for (size_t i = 0; i < OPS; i++) {
        bool told = false;
        struct changes_feed feed = {.next = text_next, .read = text_read, .ctx = &told};
        struct change_op op = {.kind = ops[i].kind, .path = ops[i].path, .content_len = 3};
        ops[i].staged = NULL;
        hash_buf("l", 1, &ops[i].base);
        if (ops[i].kind == CHANGE_PUT)
            assert_int_equal(stage_put(stage, &op, &feed, &ops[i].staged, e), 0);
        if (plan_add(plan, &ops[i], e) < 0)
            fail_msg("%s", e->msg);
    }
    assert_int_equal(plan_conflicts(plan), 0);
    assert_int_equal(plan_finish(plan, steps, e), 0);
    plan_free(plan);
    if (interfere)
        interfere(b);
    return apply_run(stage, steps, failed, e);
}

static void release(struct stage *stage, struct steps *steps)
{
    stage_release(stage);
    steps_release(steps);
    for (size_t i = 0; i < OPS; i++)
        staged_free(ops[i].staged);
}

static void test_all_done(void **state)
{
    struct bench *b = *state;
    struct stage stage;
    struct steps steps;
    struct err e = ERR_INIT;
    const char *failed = NULL;
    int64_t begun = (int64_t)io_wall_ns();

    assert_int_equal(plan_and_run(b, &stage, &steps, NULL, &failed, &e), 0);
    int64_t done = (int64_t)io_wall_ns();
    assert_true(has(b, "a", "new") && has(b, "n/e/w", "new") && has(b, "moved", "b"));
    assert_true(has(b, "n/d/in", "in") && !has(b, "last/file", NULL) && !has(b, "b", NULL));
    assert_int_equal(steps.created, 3);
    assert_int_equal(steps.updated, 2);
    assert_int_equal(steps.moved, 2);
    assert_int_equal(steps.deleted, 1);
    /* n, n/e and n/e/w came by one rename: nobody saw one without the other. */
    assert_int_equal(steps.count - steps.deeds, 2);
    /* A program could write to them since: stamps from just before are not to be believed. */
    for (size_t i = 0; i < steps.count; i++) {
        if (steps.items[i].kind == STEP_WITHIN)
            assert_in_range(steps.items[i].row.seen_ns, begun, done);
    }
    /* What was displaced is in staging until the stage is released, so it can still be undone. */
    apply_undo(&stage, &steps);
    assert_true(has(b, "a", "a") && has(b, "b", "b") && has(b, "d/in", "in"));
    assert_true(has(b, "last/file", "l") && !has(b, "n", NULL) && !has(b, "moved", NULL));
    release(&stage, &steps);
}

static unsigned displaced(const struct bench *b)
{
    char path[512];
    unsigned count = 0;

    (void)snprintf(path, sizeof path, "%s/displaced/" ID, b->f.data);
    DIR *dir = opendir(path);
    assert_non_null(dir);
    for (struct dirent *d; (d = readdir(dir)) != NULL;)
        count += d->d_name[0] != '.';
    (void)closedir(dir);
    return count;
}

/* A directory that is taken back with what a program left in it is kept, and only then. */
static void test_undo_keeps(void **state)
{
    (void)state;
    for (int round = 0; round < 3; round++) {
        struct bench *b;
        struct stage stage;
        struct steps steps;
        struct err e = ERR_INIT;
        const char *failed = NULL;

        assert_int_equal(setup((void **)&b), 0);
        assert_int_equal(plan_and_run(b, &stage, &steps, NULL, &failed, &e), 0);
        if (round == 1)
            write_file(b, "n/e/precious", "p");
        if (round == 2)
            write_file(b, "n/e/w", "written over");
        apply_undo(&stage, &steps);
        assert_false(has(b, "n", NULL));
        assert_true(has(b, "d/in", "in"));
        assert_int_equal(displaced(b), round > 0);
        release(&stage, &steps);
        assert_int_equal(displaced(b), round > 0);
        (void)teardown((void **)&b);
    }
}

static void rewrites(struct bench *b)
{
    write_file(b, "last/file", "program's");
}

static void becomes_file(struct bench *b)
{
    char name[512];

    assert_int_equal(unlink(in(b, "d/in", name)), 0);
    assert_int_equal(rmdir(in(b, "d", name)), 0);
    write_file(b, "d", "in the way");
}

static void fills_target(struct bench *b)
{
    char name[512];

    /* A directory of which nobody knew is not displaced. */
    assert_int_equal(mkdir(in(b, "moved", name), 0755), 0);
    write_file(b, "moved/precious", "p");
}

static void makes_the_same(struct bench *b)
{
    char name[512];

    assert_int_equal(mkdir(in(b, "n", name), 0755), 0);
    write_file(b, "n/own", "o");
}

static void plants_symlink(struct bench *b)
{
    char name[512];

    assert_int_equal(symlink("/tmp", in(b, "n", name)), 0);
}

/* Each row: what a program does in the instant, the path that is blamed, and a file of the
 * program's that must still be there. */
static void test_interference(void **state)
{
    static const struct {
        void (*interfere)(struct bench *b);
        enum proto_error refusal;
        const char *blamed, *path, *text;
    } cases[] = {
        {rewrites, PROTO_BASE_MISMATCH, "last/file", "last/file", "program's"},
        {fills_target, PROTO_BASE_MISMATCH, "moved", "moved/precious", "p"},
        {makes_the_same, PROTO_PATH_CONFLICT, "n", "n/own", "o"},
        {plants_symlink, PROTO_PATH_CONFLICT, "n", NULL, NULL},
        {becomes_file, PROTO_BASE_MISMATCH, "d", "d", "in the way"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct bench *b;
        struct stage stage;
        struct steps steps;
        struct err e = ERR_INIT;
        const char *failed = NULL;
        char name[512];
        struct stat st;

        assert_int_equal(setup((void **)&b), 0);
        assert_int_equal(plan_and_run(b, &stage, &steps, cases[i].interfere, &failed, &e), -EPROTO);
        assert_int_equal(e.refusal, cases[i].refusal);
        assert_string_equal(failed, cases[i].blamed);
        assert_true(has(b, "a", "a") && has(b, "b", "b") && has(b, "c", "c"));
        assert_int_equal(stat(in(b, "c", name), &st), 0);
        assert_int_equal(st.st_mode & 07777, 0644);
        assert_false(has(b, "n/e", NULL));
        if (cases[i].interfere != becomes_file)
            assert_true(has(b, "d/in", "in"));
        if (cases[i].path)
            assert_true(has(b, cases[i].path, cases[i].text));
        release(&stage, &steps);
        (void)teardown((void **)&b);
    }
    (void)state;
}

/* Placing what was placed in part, or wholly, or not at all ends the same. */
static void test_roll_forward(void **state)
{
    for (int repeat = 0; repeat < 2; repeat++) {
        struct bench *b;
        struct stage stage;
        struct steps steps;
        struct err e = ERR_INIT;
        const char *failed = NULL;
        struct buf blob;

        assert_int_equal(setup((void **)&b), 0);
        buf_init(&blob, APPLY_BLOB_MAX);
        assert_int_equal(plan_and_run(b, &stage, &steps, NULL, &failed, &e), 0);
        assert_int_equal(apply_encode(&steps, &blob, &e), 0);
        if (repeat == 0)
            apply_undo(&stage, &steps);
        assert_int_equal(apply_roll_forward(b->ws, blob.data, blob.len, &e), 0);
        assert_true(has(b, "a", "new") && has(b, "n/e/w", "new") && has(b, "moved", "b"));
        assert_true(has(b, "n/d/in", "in") && !has(b, "last/file", NULL) && !has(b, "b", NULL));
        /* A damaged intent is refused, not followed. */
        blob.data[0] ^= 1;
        assert_int_equal(apply_roll_forward(b->ws, blob.data, blob.len, &e), -EBADMSG);
        blob.data[0] ^= 1;
        assert_int_equal(apply_roll_forward(b->ws, blob.data, blob.len - 3, &e), -EBADMSG);
        buf_release(&blob);
        assert_int_equal(workspace_clear_staging(b->ws, NULL, &e), 0);
        release(&stage, &steps);
        (void)teardown((void **)&b);
    }
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_all_done, setup, teardown),
        cmocka_unit_test(test_undo_keeps),
        cmocka_unit_test(test_interference),
        cmocka_unit_test(test_roll_forward),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
