/* SPDX-License-Identifier: MIT */
/* Sandboxes: their table, the order of numbered change sets, barriers, runs, and all of it at once.
 */
#include "tests/unit/sandbox_fixture.h"

#include <pthread.h>
#include <time.h>

#include "shared/banned.h"

static void reopen(struct fixture *f)
{
    char id[SANDBOX_ID_BYTES];

    (void)snprintf(id, sizeof id, "%s", sandbox_id(f->sb));
    fixture_close(f);
    fixture_open(f);
    assert_int_equal(sandbox_get(f->all, id, &f->sb, NULL), 0);
}

/* A numbered set that puts `text` at "numbered"; its refusal, PROTO_OK if it was applied. */
static enum proto_error send_numbered(struct sandbox *sb, const char *client, uint64_t seq,
    uint64_t parent, const char *text, bool *repeated)
{
    struct changes_begin begin = {
        .seq = seq, .parent = parent, .if_generation = CHANGES_NO_GENERATION};
    const struct row rows[] = {PUT("numbered", text)};
    struct sandbox_apply_result res;
    struct err e = ERR_INIT;

    (void)snprintf(begin.client, sizeof begin.client, "%s", client);
    int r = apply_rows(sb, &begin, rows, 1, &res, &e);
    if (repeated)
        *repeated = res.repeated;
    sandbox_apply_result_release(&res);
    return r == 0 ? PROTO_OK : e.refusal ? e.refusal : PROTO_INTERNAL;
}

/* The same with an operation that cannot be applied. */
static enum proto_error send_bad(
    struct sandbox *sb, const char *client, uint64_t seq, uint64_t parent)
{
    struct changes_begin begin = {
        .seq = seq, .parent = parent, .if_generation = CHANGES_NO_GENERATION};
    const struct row rows[] = {PUT("x", "x"),
        {.kind = CHANGE_PUT, .path = "y", .text = "y", .base_kind = CHANGE_BASE_HASH, .base = "z"}};
    struct sandbox_apply_result res;
    struct err e = ERR_INIT;

    (void)snprintf(begin.client, sizeof begin.client, "%s", client);
    (void)!apply_rows(sb, &begin, rows, 2, &res, &e);
    sandbox_apply_result_release(&res);
    return e.refusal;
}

static int count_info(const struct sandbox_info *info, void *ctx)
{
    (void)info;
    ++*(unsigned *)ctx;
    return 0;
}

static void test_table(void **state)
{
    struct fixture *f = *state;
    struct sandbox_spec spec = {.language = "c", .name = "second", .idle_ttl_s = 5};
    struct sandbox_spec change = {.name = "renamed", .idle_ttl_s = UINT64_MAX};
    struct sandbox *second, *again;
    struct sandbox_info info;
    struct err e = ERR_INIT;
    char id[SANDBOX_ID_BYTES], path[512];
    struct stat st;
    unsigned count = 0;

    assert_int_equal(sandbox_create(f->all, &spec, &second, &e), 0);
    (void)snprintf(id, sizeof id, "%s", sandbox_id(second));
    assert_int_equal(sandbox_list(f->all, NULL, 10, count_info, &count, &e), 0);
    assert_int_equal(count, 2);
    assert_int_equal(sandbox_list(f->all, sandbox_id(f->sb), 10, count_info, &count, &e), 0);
    assert_int_equal(count, 3);
    assert_int_equal(sandbox_update(second, &change, &e), 0);
    assert_int_equal(sandbox_info(second, &info, &e), 0);
    assert_string_equal(info.name, "renamed");
    assert_string_equal(info.language, "c");
    assert_int_equal(info.idle_ttl_s, 5);
    sandbox_info_release(&info);
    (void)apply_ok(second, PUT("a/b", "x"));
    (void)snprintf(path, sizeof path, "%s/%s", f->work, id);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    if (geteuid() == 0)
        assert_int_equal(st.st_uid, FIXTURE_UID + 1);

    assert_int_equal(sandbox_delete(second, &e), 0);
    assert_int_equal(stat(path, &st), -1);
    sandbox_unref(second);
    assert_int_equal(sandbox_get(f->all, id, &again, &e), -EPROTO);
    assert_int_equal(e.refusal, PROTO_SANDBOX_DELETED);
    assert_int_equal(sandbox_get(f->all, "sb_aaaaaaaaaaaaaaaaaaaaaaaaaa", &again, &e), -EPROTO);
    assert_int_equal(e.refusal, PROTO_SANDBOX_NOT_FOUND);
    /* The lowest free uid is given out again once everything is gone. */
    assert_int_equal(sandbox_create(f->all, &spec, &second, &e), 0);
    (void)snprintf(path, sizeof path, "%s/%s", f->work, sandbox_id(second));
    assert_int_equal(stat(path, &st), 0);
    if (geteuid() == 0)
        assert_int_equal(st.st_uid, FIXTURE_UID + 1);
    sandbox_unref(second);
    reopen(f);
    count = 0;
    assert_int_equal(sandbox_list(f->all, NULL, 10, count_info, &count, &e), 0);
    assert_int_equal(count, 2);
}

static void test_numbers(void **state)
{
    struct fixture *f = *state;
    bool repeated;

    assert_int_equal(send_numbered(f->sb, "l.1", 5, 0, "five", NULL), PROTO_OK);
    assert_int_equal(send_numbered(f->sb, "l.1", 6, 5, "six", NULL), PROTO_OK);
    /* A repeat is answered from memory, another content under the number is not. */
    assert_int_equal(send_numbered(f->sb, "l.1", 6, 5, "six", &repeated), PROTO_OK);
    assert_true(repeated);
    assert_int_equal(send_numbered(f->sb, "l.1", 5, 0, "five", &repeated), PROTO_OK);
    assert_true(repeated);
    assert_true(is_file(f, "numbered", "six"));
    assert_int_equal(send_numbered(f->sb, "l.1", 6, 5, "other", NULL), PROTO_SEQ_CONFLICT);
    assert_int_equal(send_numbered(f->sb, "l.1", 3, 2, "old", NULL), PROTO_SEQ_CONFLICT);
    assert_int_equal(send_numbered(f->sb, "l.1", 8, 5, "not last", NULL), PROTO_SEQ_CONFLICT);
    assert_int_equal(send_numbered(f->sb, "l.1", 9, 9, "own parent", NULL), PROTO_INVALID_VALUE);
    /* A refused number stays refused and takes the next with it; the one after builds on the last
     * good. */
    assert_int_equal(send_bad(f->sb, "l.1", 10, 6), PROTO_BASE_MISMATCH);
    assert_int_equal(send_numbered(f->sb, "l.1", 10, 6, "again", NULL), PROTO_BASE_MISMATCH);
    assert_int_equal(send_numbered(f->sb, "l.1", 11, 10, "child", NULL), PROTO_PREDECESSOR_REFUSED);
    assert_int_equal(send_numbered(f->sb, "l.1", 12, 6, "twelve", NULL), PROTO_OK);
    /* Another client of the same link begins anew, another link is kept out. */
    assert_int_equal(send_numbered(f->sb, "l.2", 1, 0, "restart", NULL), PROTO_OK);
    assert_int_equal(send_numbered(f->sb, "m.1", 1, 0, "stranger", NULL), PROTO_LINKED_ELSEWHERE);
    /* All of that is remembered. */
    reopen(f);
    assert_int_equal(send_numbered(f->sb, "l.1", 12, 6, "twelve", &repeated), PROTO_OK);
    assert_true(repeated);
    assert_int_equal(send_numbered(f->sb, "l.1", 10, 6, "again", NULL), PROTO_BASE_MISMATCH);
    assert_int_equal(send_numbered(f->sb, "m.1", 1, 0, "stranger", NULL), PROTO_LINKED_ELSEWHERE);
    assert_int_equal(sandbox_lease(f->sb, "m", "laptop", false, NULL), -EPROTO);
    assert_int_equal(sandbox_lease(f->sb, "m", "laptop", true, NULL), 0);
    assert_int_equal(send_numbered(f->sb, "m.1", 1, 0, "mine now", NULL), PROTO_OK);
    assert_int_equal(send_numbered(f->sb, "l.1", 13, 12, "lost it", NULL), PROTO_LINKED_ELSEWHERE);
    /* The 33rd client pushes the oldest out; more than 64 results push the oldest out. */
    char name[16];
    for (int i = 0; i < 32; i++) {
        (void)snprintf(name, sizeof name, "m.x%d", i);
        assert_int_equal(send_numbered(f->sb, name, 1, 0, name, NULL), PROTO_OK);
    }
    for (uint64_t i = 2; i < 70; i++)
        assert_int_equal(send_numbered(f->sb, "m.x31", i, i - 1, "many", NULL), PROTO_OK);
    assert_int_equal(send_numbered(f->sb, "m.x31", 1, 0, "m.x31", NULL), PROTO_SEQ_CONFLICT);
    assert_int_equal(sandbox_barrier(f->sb, "m.x31", 1, 0, NULL, NULL), 0);
    reopen(f);
    assert_int_equal(send_numbered(f->sb, "m.x31", 69, 68, "many", &repeated), PROTO_OK);
    assert_true(repeated);
    assert_int_equal(send_numbered(f->sb, "m.x31", 70, 69, "more", NULL), PROTO_OK);
}

static void test_conditions(void **state)
{
    struct fixture *f = *state;
    struct changes_begin begin = {.client = "", .if_generation = 7};
    const struct row rows[] = {PUT("a", "1")};
    struct sandbox_apply_result res;
    struct sandbox_info info;
    struct err e = ERR_INIT;

    assert_int_equal(apply_rows(f->sb, &begin, rows, 1, &res, &e), -EPROTO);
    assert_int_equal(e.refusal, PROTO_GENERATION_MISMATCH);
    begin.if_generation = 0;
    (void)snprintf(begin.epoch, sizeof begin.epoch, "ep_other");
    assert_int_equal(apply_rows(f->sb, &begin, rows, 1, &res, &e), -EPROTO);
    assert_int_equal(e.refusal, PROTO_EPOCH_MISMATCH);
    assert_int_equal(sandbox_info(f->sb, &info, &e), 0);
    memcpy(begin.epoch, info.epoch, sizeof begin.epoch);
    sandbox_info_release(&info);
    assert_int_equal(apply_rows(f->sb, &begin, rows, 1, &res, &e), 0);
    assert_int_equal(res.generation, 1);
    assert_int_equal(res.created, 1);
    /* An empty set is applied without a new generation. */
    begin.if_generation = 1;
    assert_int_equal(apply_rows(f->sb, &begin, rows, 0, &res, &e), 0);
    assert_int_equal(res.generation, 1);
}

/* ---- threads */

struct sender {
    struct sandbox *sb;
    const char *client, *text;
    uint64_t seq, parent;
    enum proto_error answer;
};

static void *send_in_thread(void *arg)
{
    struct sender *s = arg;

    s->answer = send_numbered(s->sb, s->client, s->seq, s->parent, s->text, NULL);
    return NULL;
}

/* Sets that arrive in the wrong order are applied in the right one. */
static void test_out_of_order(void **state)
{
    struct fixture *f = *state;
    enum { COUNT = 6 };
    static const char *const texts[COUNT] = {"1", "2", "3", "4", "5", "6"};
    struct sender senders[COUNT];
    pthread_t threads[COUNT];
    struct sandbox_info info;

    for (int i = COUNT - 1; i >= 0; i--) {
        senders[i] = (struct sender){.sb = f->sb,
            .client = "l.1",
            .text = texts[i],
            .seq = (uint64_t)i + 1,
            .parent = (uint64_t)i};
        assert_int_equal(pthread_create(&threads[i], NULL, send_in_thread, &senders[i]), 0);
    }
    for (int i = 0; i < COUNT; i++) {
        (void)pthread_join(threads[i], NULL);
        assert_int_equal(senders[i].answer, PROTO_OK);
    }
    assert_true(is_file(f, "numbered", "6"));
    assert_int_equal(sandbox_info(f->sb, &info, NULL), 0);
    assert_int_equal(info.generation, COUNT);
    sandbox_info_release(&info);
}

/* The same number sent twice at once is applied once. */
static void test_twin_numbers(void **state)
{
    struct fixture *f = *state;
    struct sender senders[4];
    pthread_t threads[4];
    struct sandbox_info info;

    for (int i = 0; i < 4; i++) {
        senders[i] = (struct sender){.sb = f->sb, .client = "l.1", .text = "t", .seq = 1};
        assert_int_equal(pthread_create(&threads[i], NULL, send_in_thread, &senders[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        (void)pthread_join(threads[i], NULL);
        assert_int_equal(senders[i].answer, PROTO_OK);
    }
    assert_int_equal(sandbox_info(f->sb, &info, NULL), 0);
    assert_int_equal(info.generation, 1);
    sandbox_info_release(&info);
}

struct waiter {
    struct sandbox *sb;
    uint64_t seq;
    atomic_bool cancel;
    int r;
    struct err e;
};

static void *wait_in_thread(void *arg)
{
    struct waiter *w = arg;

    w->r = sandbox_barrier(w->sb, "l.1", w->seq, 20000, &w->cancel, &w->e);
    return NULL;
}

static void test_barriers(void **state)
{
    struct fixture *f = *state;
    struct waiter w[4];
    pthread_t threads[4];
    struct err e = ERR_INIT;

    for (int i = 0; i < 4; i++) {
        memset(&w[i], 0, sizeof w[i]);
        w[i].sb = f->sb;
        w[i].seq = (uint64_t)i + 1;
        atomic_init(&w[i].cancel, false);
        assert_int_equal(pthread_create(&threads[i], NULL, wait_in_thread, &w[i]), 0);
    }
    /* 1 is applied, 2 refused, 3 cancelled, 4 sees the sandbox go. */
    assert_int_equal(send_numbered(f->sb, "l.1", 1, 0, "x", NULL), PROTO_OK);
    (void)pthread_join(threads[0], NULL);
    assert_int_equal(w[0].r, 0);
    assert_int_equal(send_bad(f->sb, "l.1", 2, 1), PROTO_BASE_MISMATCH);
    (void)pthread_join(threads[1], NULL);
    assert_int_equal(w[1].e.refusal, PROTO_BARRIER_REFUSED);
    assert_non_null(strstr(w[1].e.msg, "base_mismatch"));
    atomic_store(&w[2].cancel, true);
    sandbox_kick(f->sb);
    (void)pthread_join(threads[2], NULL);
    assert_int_equal(w[2].r, -ECANCELED);
    assert_int_equal(sandbox_barrier(f->sb, "l.1", 9, 1, NULL, &e), -EPROTO);
    assert_int_equal(e.refusal, PROTO_BARRIER_TIMEOUT);
    assert_int_equal(sandbox_delete(f->sb, &e), 0);
    (void)pthread_join(threads[3], NULL);
    assert_int_equal(w[3].e.refusal, PROTO_SANDBOX_DELETED);
    assert_int_equal(sandbox_barrier(f->sb, "l.1", 1, 1, NULL, &e), -EPROTO);
    assert_int_equal(e.refusal, PROTO_SANDBOX_DELETED);
}

struct worker {
    const struct fixture *f;
    int number;
    unsigned applied;
};

static void *work_in_thread(void *arg)
{
    struct worker *w = arg;
    char path[32], text[32];

    for (int i = 0; i < 30; i++) {
        struct sandbox_apply_result res;
        (void)snprintf(path, sizeof path, "d%d/f%d", w->number, i % 3);
        (void)snprintf(text, sizeof text, "%d %d", w->number, i);
        /* Two files of its own, and one that all fight for. */
        const struct row rows[] = {PUT(path, text), PUT("shared", text)};
        if (apply_rows(w->f->sb, NULL, rows, 2, &res, NULL) == 0)
            w->applied++;
        sandbox_apply_result_release(&res);
    }
    return NULL;
}

/* Runs come and go, write, are scanned, and read while others apply. */
static void *run_in_thread(void *arg)
{
    struct worker *w = arg;

    for (int i = 0; i < 10; i++) {
        struct sandbox_mounts mounts;
        struct sandbox_run_changes changes;
        struct sandbox_file file;
        char path[32];
        int fd = -1;
        if (sandbox_run_enter(w->f->sb, &mounts, NULL) < 0)
            continue;
        sandbox_mounts_release(&mounts);
        (void)snprintf(path, sizeof path, "run%d", i);
        program_writes(w->f, path, path);
        if (sandbox_file_open(w->f->sb, "shared", &fd, &file, NULL) == 0)
            sandbox_file_release(&file);
        if (fd >= 0)
            (void)close(fd);
        if (sandbox_run_leave(w->f->sb, &changes, NULL) == 0) {
            w->applied++;
            sandbox_run_changes_release(&changes);
        }
    }
    return NULL;
}

static void test_all_at_once(void **state)
{
    struct fixture *f = *state;
    enum { COUNT = 4 };
    struct worker workers[COUNT];
    pthread_t threads[COUNT];
    struct sandbox_run_changes changes;
    struct sandbox_mounts mounts;
    struct sandbox_info info;

    for (int i = 0; i < COUNT; i++) {
        workers[i] = (struct worker){.f = f, .number = i};
        assert_int_equal(
            pthread_create(&threads[i], NULL, i == 0 ? run_in_thread : work_in_thread, &workers[i]),
            0);
    }
    for (int i = 0; i < COUNT; i++) {
        (void)pthread_join(threads[i], NULL);
        assert_int_equal(workers[i].applied, i == 0 ? 10 : 30);
    }
    /* Everything is known, and every set and every run that wrote took one generation. */
    assert_int_equal(sandbox_run_enter(f->sb, &mounts, NULL), 0);
    sandbox_mounts_release(&mounts);
    assert_int_equal(sandbox_run_leave(f->sb, &changes, NULL), 0);
    assert_int_equal(changes.total, 0);
    assert_int_equal(changes.generation, 3 * 30 + 10);
    sandbox_run_changes_release(&changes);
    assert_int_equal(sandbox_info(f->sb, &info, NULL), 0);
    assert_int_equal(info.files, 3 * 3 + 1 + 10);
    sandbox_info_release(&info);
}

static void send_again(void *ctx)
{
    struct fixture *f = ctx;
    assert_int_equal(send_numbered(f->sb, "l.1", 1, 0, "again", NULL), PROTO_OK);
    assert_int_equal(send_numbered(f->sb, "l.1", 2, 1, "next", NULL), PROTO_OK);
}

/* A set whose client vanished while it was sent: the client is back with it, over another connection. */
static void test_arrives_again(void **state)
{
    struct fixture *f = *state;
    const struct row rows[] = {PUT("numbered", "first")};
    struct table_feed feed = {
        .rows = rows, .count = 1, .stall_fd = -1, .meanwhile = send_again, .ctx = f};
    struct changes_feed as_feed = table_as_feed(&feed);
    struct changes_begin begin = {
        .client = "l.1", .seq = 1, .if_generation = CHANGES_NO_GENERATION};
    struct sandbox_apply_result res;
    struct err e = ERR_INIT;
    bool repeated;

    /* What arrives of it after all is another content here. */
    assert_int_equal(sandbox_apply(f->sb, &begin, &as_feed, &res, &e), -EPROTO);
    assert_int_equal(e.refusal, PROTO_SEQ_CONFLICT);
    assert_true(is_file(f, "numbered", "next"));
    assert_int_equal(send_numbered(f->sb, "l.1", 1, 0, "again", &repeated), PROTO_OK);
    assert_true(repeated);
    assert_int_equal(sandbox_barrier(f->sb, "l.1", 2, 0, NULL, NULL), 0);
}

struct stalled {
    struct fixture *f;
    int fd, reached_fd;
    enum proto_error answer;
};

static void *stalled_apply(void *arg)
{
    struct stalled *s = arg;
    const struct row rows[] = {PUT("late", "x")};
    struct table_feed feed = {
        .rows = rows, .count = 1, .stall_fd = s->fd, .reached_fd = s->reached_fd};
    struct changes_feed as_feed = table_as_feed(&feed);
    struct changes_begin begin = {.client = "", .if_generation = CHANGES_NO_GENERATION};
    struct sandbox_apply_result res;
    struct err e = ERR_INIT;

    (void)!sandbox_apply(s->f->sb, &begin, &as_feed, &res, &e);
    s->answer = e.refusal;
    return NULL;
}

static void *delete_in_thread(void *arg)
{
    struct stalled *s = arg;

    s->answer = sandbox_delete(s->f->sb, NULL) == 0 ? PROTO_OK : PROTO_INTERNAL;
    return NULL;
}

/* Deleting waits for the run and for the set that is still arriving; the set is refused then. */
static void test_delete_waits(void **state)
{
    struct fixture *f = *state;
    struct sandbox_mounts mounts;
    struct sandbox_run_changes changes;
    struct sandbox *again;
    struct err e = ERR_INIT;
    pthread_t apply, delete;
    int ends[2], reached[2];
    char name[512], byte;
    struct stat st;

    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    assert_int_equal(pipe2(reached, O_CLOEXEC), 0);
    struct stalled in_apply = {.f = f, .fd = ends[0], .reached_fd = reached[1]};
    struct stalled in_delete = {.f = f};
    assert_int_equal(sandbox_run_enter(f->sb, &mounts, &e), 0);
    sandbox_mounts_release(&mounts);
    assert_int_equal(sandbox_make_enter(f->sb, &mounts, &e), 0);
    sandbox_mounts_release(&mounts);
    assert_int_equal(pthread_create(&apply, NULL, stalled_apply, &in_apply), 0);
    assert_int_equal(read(reached[0], &byte, 1), 1);
    assert_int_equal(sandbox_delete_begin(f->sb, &e), 0);
    assert_int_equal(pthread_create(&delete, NULL, delete_in_thread, &in_delete), 0);
    assert_int_equal(sandbox_run_enter(f->sb, &mounts, &e), -EPROTO);
    assert_int_equal(e.refusal, PROTO_SANDBOX_DELETED);
    assert_int_equal(sandbox_make_enter(f->sb, &mounts, &e), -EPROTO);
    assert_int_equal(sandbox_get(f->all, sandbox_id(f->sb), &again, &e), -EPROTO);
    assert_int_equal(stat(at(f, "", name), &st), 0);
    assert_int_equal(write(ends[1], "g", 1), 1);
    (void)pthread_join(apply, NULL);
    assert_int_equal(in_apply.answer, PROTO_SANDBOX_DELETED);
    assert_int_equal(stat(at(f, "", name), &st), 0);
    assert_int_equal(sandbox_run_leave(f->sb, &changes, &e), 0);
    sandbox_run_changes_release(&changes);
    assert_int_equal(stat(at(f, "", name), &st), 0);
    sandbox_make_leave(f->sb);
    (void)pthread_join(delete, NULL);
    assert_int_equal(in_delete.answer, PROTO_OK);
    assert_int_equal(stat(at(f, "", name), &st), -1);
    (void)close(ends[0]);
    (void)close(ends[1]);
    (void)close(reached[0]);
    (void)close(reached[1]);
}

/* ---- runs and reading */

static void test_run_changes(void **state)
{
    struct fixture *f = *state;
    struct sandbox_mounts mounts;
    struct sandbox_run_changes c;
    struct err e = ERR_INIT;
    char name[512];
    struct stat st;

    (void)apply_ok(f->sb, PUT("keep", "k"), PUT("change", "1"), PUT("remove", "r"),
        PUT("d/in", "i"), PUT("swap/in", "s"));
    assert_int_equal(sandbox_run_enter(f->sb, &mounts, &e), 0);
    assert_int_equal(mounts.generation, 1);
    assert_int_equal(stat(mounts.workspace, &st), 0);
    assert_int_equal(st.st_ino, mounts.workspace_ino);
    (void)snprintf(name, sizeof name, "%s/home", mounts.cache);
    assert_int_equal(stat(name, &st), 0);
    assert_int_equal(st.st_uid, mounts.uid);
    sandbox_mounts_release(&mounts);
    program_writes(f, "change", "2");
    program_writes(f, "new", "n");
    program_mkdir(f, "locked");
    program_writes(f, "locked/in", "l");
    assert_int_equal(chmod(at(f, "locked", name), 0), 0);
    assert_int_equal(mkfifo(at(f, "fifo", name), 0600), 0);
    assert_int_equal(symlink("/nowhere", at(f, "link", name)), 0);
    assert_int_equal(unlink(at(f, "remove", name)), 0);
    assert_int_equal(unlink(at(f, "swap/in", name)), 0);
    assert_int_equal(rmdir(at(f, "swap", name)), 0);
    program_writes(f, "swap", "a file now");
    assert_int_equal(sandbox_run_leave(f->sb, &c, &e), 0);
    static const struct {
        const char *path;
        enum sandbox_change_kind change;
    } expected[] = {{"change", SANDBOX_MODIFIED}, {"link", SANDBOX_CREATED},
        {"locked/in", SANDBOX_CREATED}, {"new", SANDBOX_CREATED}, {"remove", SANDBOX_DELETED},
        {"swap", SANDBOX_CREATED}, {"swap/in", SANDBOX_DELETED}};
    assert_false(c.incomplete);
    assert_int_equal(c.count, 7);
    assert_int_equal(c.total, 7);
    for (size_t i = 0; i < 7; i++) {
        assert_string_equal(c.files[i].path, expected[i].path);
        assert_int_equal(c.files[i].change, expected[i].change);
    }
    assert_int_equal(c.generation, 2);
    sandbox_run_changes_release(&c);
    /* The next run changed nothing. */
    assert_int_equal(sandbox_run_enter(f->sb, &mounts, &e), 0);
    sandbox_mounts_release(&mounts);
    assert_int_equal(sandbox_run_leave(f->sb, &c, &e), 0);
    assert_int_equal(c.total, 0);
    assert_int_equal(c.generation, 2);
    sandbox_run_changes_release(&c);
}

static int note_path(const struct manifest_entry *entry, void *ctx)
{
    struct buf *b = ctx;

    return buf_addf(b, "%s ", entry->path);
}

static void test_reading(void **state)
{
    struct fixture *f = *state;
    struct sandbox_file file;
    struct err e = ERR_INIT;
    struct hash expected;
    struct sandbox_digests digests;
    uint64_t generation;
    struct buf b;
    int fd;

    (void)apply_ok(f->sb, PUT("main.py", "print(1)"), PUT("src/a", "1"), PUT("src/b", "2"),
        PUT("src.c", "3"), LINK("ln", "main.py"));
    assert_int_equal(sandbox_file_open(f->sb, "main.py", &fd, &file, &e), 0);
    assert_int_equal(file.size, 8);
    hash_buf("print(1)", 8, &expected);
    assert_memory_equal(&file.hash, &expected, sizeof expected);
    (void)close(fd);
    sandbox_file_release(&file);
    /* Behind the manifest's back, even with the same size. */
    program_writes(f, "main.py", "print(2)");
    assert_int_equal(sandbox_file_open(f->sb, "main.py", NULL, &file, &e), 0);
    hash_buf("print(2)", 8, &expected);
    assert_memory_equal(&file.hash, &expected, sizeof expected);
    sandbox_file_release(&file);
    assert_int_equal(sandbox_file_open(f->sb, "ln", &fd, &file, &e), 0);
    assert_string_equal(file.target, "main.py");
    assert_int_equal(fd, -1);
    sandbox_file_release(&file);
    assert_int_equal(sandbox_file_open(f->sb, "mian.py", &fd, &file, &e), -EPROTO);
    assert_int_equal(e.refusal, PROTO_FILE_NOT_FOUND);
    assert_non_null(strstr(e.msg, "main.py"));
    assert_int_equal(sandbox_file_open(f->sb, "../x", &fd, &file, &e), -EPROTO);
    assert_int_equal(e.refusal, PROTO_INVALID_PATH);
    assert_true(sandbox_has_file(f->sb, "src/a"));
    assert_false(sandbox_has_file(f->sb, "src"));
    assert_false(sandbox_has_file(f->sb, "ln"));
    /* Pages. */
    buf_init(&b, 1000);
    assert_int_equal(
        sandbox_manifest(f->sb, "src", NULL, 10, note_path, &b, &generation, &digests, &e), 0);
    assert_string_equal(buf_str(&b), "src src/a src/b ");
    buf_reset(&b);
    assert_int_equal(
        sandbox_manifest(f->sb, "", "main.py", 2, note_path, &b, &generation, &digests, &e), 0);
    assert_string_equal(buf_str(&b), "src src.c ");
    assert_int_equal(generation, 1);
    buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_table, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_numbers, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_conditions, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_out_of_order, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_twin_numbers, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_barriers, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_all_at_once, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_arrives_again, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_delete_waits, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_run_changes, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_reading, fixture_setup, fixture_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
