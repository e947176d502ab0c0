/* SPDX-License-Identifier: MIT */
/* agent/sync against a small server that follows the protocol: which operations a change becomes,
 * what is repaired, what is never deleted, what survives a lost answer or a lost index. */
#include "sync_fixture.h"

#include <fcntl.h>
#include <stdatomic.h>

#include "agent/sync_internal.h"
#include "shared/tree.h"

#include "shared/banned.h"

struct fixture {
    char dir[64];
    int fd;
    struct fake *fake;
    struct client *client;
    struct link link;
    char told[2048]; /* skipped and conflicts, one a line */
    bool allow_empty;
    struct sync_totals totals;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct err e = ERR_INIT;
    char server[64];
    assert_non_null(f);
    (void)snprintf(f->dir, sizeof(f->dir), "/tmp/t_sync.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    f->fd = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(mkdirat(f->fd, ".silt", 0700), 0);
    f->fake = fake_start();
    (void)snprintf(server, sizeof(server), "127.0.0.1:%u", f->fake->port);
    assert_int_equal(client_new(&(struct client_config){.server = server}, &f->client, &e), 0);
    f->link = (struct link){
        .root = f->dir, .server = "x", .sandbox = "sb_test", .id = "lk_test", .machine = "m"};
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    struct err e = ERR_INIT;
    int tmp = open("/tmp", O_PATH | O_DIRECTORY | O_CLOEXEC);
    client_free(f->client);
    fake_stop(f->fake);
    (void)close(f->fd);
    assert_int_equal(tree_remove_at(tmp, strrchr(f->dir, '/') + 1, &e), 0);
    (void)close(tmp);
    free(f);
    return 0;
}

static void note(struct fixture *f, const char *what, const char *path)
{
    size_t len = strlen(f->told);
    (void)snprintf(f->told + len, sizeof(f->told) - len, "%s %s\n", what, path);
}

static void on_skipped(void *ctx, const char *path, const char *why)
{
    (void)why;
    note(ctx, "skipped", path);
}

static void on_conflict(void *ctx, const char *path)
{
    note(ctx, "conflict", path);
}

static struct sync *open_sync(struct fixture *f)
{
    struct sync *s = NULL;
    struct err e = ERR_INIT;
    struct sync_config config = {.link = &f->link,
        .client = f->client,
        .events = {.skipped = on_skipped, .conflict = on_conflict, .ctx = f},
        .allow_empty = f->allow_empty};
    if (sync_open(&config, &s, &e) < 0)
        fail_msg("%s", e.msg);
    return s;
}

/* One `silt sync`: open, scan, push, close. Returns what it returned. */
static int try_sync(struct fixture *f, struct err *e)
{
    struct sync *s = open_sync(f);
    f->told[0] = '\0';
    int64_t n = sync_scan(s, e);
    int r = n < 0 ? (int)n : sync_push(s, e);
    sync_totals(s, &f->totals);
    sync_close(s);
    return r;
}

static void sync_now(struct fixture *f)
{
    struct err e = ERR_INIT;
    memset(f->fake->ops, 0, sizeof(f->fake->ops));
    f->fake->sets = f->fake->refused = f->fake->requests = f->fake->keeps = 0;
    f->fake->content_bytes = 0;
    if (try_sync(f, &e) < 0)
        fail_msg("%s", e.msg);
}

static void make_file(const struct fixture *f, const char *path, const void *data, size_t len)
{
    int fd = openat(f->fd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(io_write_all(fd, data, len), 0);
    (void)close(fd);
}

static void make_text(const struct fixture *f, const char *path, const char *text)
{
    make_file(f, path, text, strlen(text));
}

static void make_dir(const struct fixture *f, const char *path)
{
    assert_int_equal(mkdirat(f->fd, path, 0755), 0);
}

/* "put 1 delete 2": only what was sent, in the order of the enum. */
static void expect_ops(const struct fixture *f, const char *expected)
{
    char got[256] = "";
    for (int k = CHANGE_PUT; k < CHANGE_KIND_END; k++) {
        size_t len = strlen(got);
        if (f->fake->ops[k])
            (void)snprintf(got + len, sizeof(got) - len, "%s%s %u", len ? " " : "",
                change_kind_name((enum change_kind)k), f->fake->ops[k]);
    }
    assert_string_equal(got, expected);
}

static enum tree_visit check_entry(const struct tree_entry *entry, void *ctx)
{
    const struct fixture *f = ctx;
    CLEANUP(buf_release) struct buf b;
    buf_init(&b, 0);
    if (strcmp(entry->name, ".silt") == 0 || strcmp(entry->name, "node_modules") == 0 ||
        entry->stat.kind == TREE_OTHER)
        return TREE_VISIT_SKIP;
    const struct fake_entry *there = fake_find(f->fake, entry->path);
    if (!there || there->kind != entry->stat.kind)
        fail_msg("'%s' is not on the server", entry->path);
    if (there->kind == TREE_FILE) {
        char path[512];
        (void)snprintf(path, sizeof(path), "%s/%s", f->dir, entry->path);
        assert_int_equal(io_read_file(path, FAKE_BODY_MAX, &b, NULL), 0);
        if (b.len != there->len || (b.len && memcmp(b.data, there->data, b.len) != 0))
            fail_msg("'%s' differs on the server", entry->path);
    }
    if (there->kind != TREE_SYMLINK)
        assert_int_equal(there->mode, entry->stat.mode & 0777);
    return TREE_VISIT_GO;
}

/* The server has exactly what is here, plus `extra` entries of its own. */
static void expect_equal(struct fixture *f, size_t extra)
{
    struct tree *tree = NULL;
    struct err e = ERR_INIT;
    size_t here = 0;
    assert_int_equal(tree_open(f->dir, &tree, &e), 0);
    assert_int_equal(tree_walk(tree, "", check_entry, f, &e), 0);
    for (size_t i = 0; i < f->fake->count; i++) {
        struct tree_stat st;
        here += tree_stat(tree, f->fake->entries[i].path, &st, NULL) == 0;
    }
    assert_int_equal(f->fake->count - here, extra);
    tree_free(tree);
}

static void fill_random(uint8_t *data, size_t len, uint64_t seed)
{
    for (size_t i = 0; i < len; i++) {
        seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
        data[i] = (uint8_t)(seed >> 56);
    }
}

/* ---- tests */

static void test_first_and_nothing(void **state)
{
    struct fixture *f = *state;
    make_dir(f, "d");
    make_dir(f, "empty");
    make_dir(f, "node_modules");
    make_text(f, "node_modules/x", "no");
    make_text(f, "d/a", "1");
    make_text(f, "zero", "");
    assert_int_equal(symlinkat("d/a", f->fd, "l"), 0);
    sync_now(f);
    expect_ops(f, "put 2 mkdir 2 symlink 1");
    expect_equal(f, 0);
    assert_int_equal(f->totals.generation, 1);
    assert_true(f->totals.bytes_sent > 100);
    /* Nothing changed: nothing is asked and nothing is sent. */
    sync_now(f);
    assert_int_equal(f->fake->requests, 0);
    assert_int_equal(f->totals.bytes_sent, 0);
    assert_int_equal(f->totals.generation, 1);
    /* Touched only: read, found equal, not sent. */
    assert_int_equal(utimensat(f->fd, "d/a", NULL, 0), 0);
    sync_now(f);
    assert_int_equal(f->fake->requests, 0);
}

static void test_edits(void **state)
{
    struct fixture *f = *state;
    static uint8_t big[40000];
    fill_random(big, sizeof(big), 1);
    make_text(f, "a", "one");
    make_file(f, "big", big, sizeof(big));
    make_dir(f, "d");
    make_text(f, "d/x", "x");
    sync_now(f);
    expect_equal(f, 0);
    make_text(f, "a", "two");
    memcpy(big + 20000, "changed", 7);
    make_file(f, "big", big, sizeof(big));
    sync_now(f);
    expect_ops(f, "put 1 patch 1");
    assert_true(f->fake->content_bytes < 5000);
    expect_equal(f, 0);
    /* The delta's result has a signature too. */
    memcpy(big + 100, "again", 5);
    make_file(f, "big", big, sizeof(big));
    sync_now(f);
    expect_ops(f, "patch 1");
    assert_int_equal(fchmodat(f->fd, "a", 0755, 0), 0);
    assert_int_equal(fchmodat(f->fd, "d", 0700, 0), 0);
    sync_now(f);
    expect_ops(f, "mkdir 1 chmod 1");
    assert_int_equal(f->fake->content_bytes, 0);
    expect_equal(f, 0);
    assert_int_equal(unlinkat(f->fd, "d/x", 0), 0);
    assert_int_equal(unlinkat(f->fd, "d", AT_REMOVEDIR), 0);
    sync_now(f);
    expect_ops(f, "delete 2");
    expect_equal(f, 0);
}

static void test_moves_and_copies(void **state)
{
    struct fixture *f = *state;
    static uint8_t data[5000];
    fill_random(data, sizeof(data), 2);
    make_dir(f, "d");
    make_file(f, "d/a", data, sizeof(data));
    make_text(f, "d/small", "s");
    make_text(f, "e1", "");
    make_text(f, "e2", "");
    sync_now(f);
    /* A folder is renamed, and one of its files changes its mode. */
    assert_int_equal(renameat(f->fd, "d", f->fd, "n"), 0);
    assert_int_equal(fchmodat(f->fd, "n/a", 0755, 0), 0);
    sync_now(f);
    expect_ops(f, "move 2 mkdir 1 chmod 1 delete 1");
    assert_int_equal(f->fake->content_bytes, 0);
    expect_equal(f, 0);
    /* The same content elsewhere; empty files are not taken for renamed ones. */
    make_file(f, "copy", data, sizeof(data));
    make_text(f, "e3", ""); /* first: a freed inode's number may be used again */
    assert_int_equal(unlinkat(f->fd, "e1", 0), 0);
    sync_now(f);
    expect_ops(f, "put 1 copy 1 chmod 1 delete 1");
    assert_int_equal(f->fake->content_bytes, 0);
    expect_equal(f, 0);
    /* Over an existing one, and two that change places. */
    assert_int_equal(renameat(f->fd, "copy", f->fd, "n/small"), 0);
    sync_now(f);
    expect_equal(f, 0);
    /* A file gets the content of another one, as a copy and with no byte of it. */
    static uint8_t first[3000];
    fill_random(first, sizeof(first), 5);
    make_file(f, "first", first, sizeof(first));
    sync_now(f);
    make_file(f, "first", data, sizeof(data));
    sync_now(f);
    expect_ops(f, "copy 1 chmod 1");
    assert_int_equal(f->fake->content_bytes, 0);
    expect_equal(f, 0);
    make_text(f, "p", "pppppppppp");
    make_text(f, "q", "qqqqqqqqqq");
    sync_now(f);
    assert_int_equal(renameat2(f->fd, "p", f->fd, "q", RENAME_EXCHANGE), 0);
    sync_now(f);
    expect_equal(f, 0);
}

static void test_other_kinds(void **state)
{
    struct fixture *f = *state;
    make_dir(f, "x");
    make_text(f, "x/f", "1");
    make_text(f, "y", "2");
    sync_now(f);
    assert_int_equal(unlinkat(f->fd, "x/f", 0), 0);
    assert_int_equal(unlinkat(f->fd, "x", AT_REMOVEDIR), 0);
    assert_int_equal(unlinkat(f->fd, "y", 0), 0);
    make_text(f, "x", "a file now");
    make_dir(f, "y");
    make_text(f, "y/g", "3");
    sync_now(f);
    expect_equal(f, 0);
    assert_int_equal(unlinkat(f->fd, "x", 0), 0);
    assert_int_equal(symlinkat("y", f->fd, "x"), 0);
    sync_now(f);
    expect_equal(f, 0);
}

static void test_many_and_large(void **state)
{
    struct fixture *f = *state;
    size_t large_len = 3 * 1024 * 1024 + 17;
    uint8_t *large = malloc(large_len);
    char path[32];
    assert_non_null(large);
    fill_random(large, large_len, 3);
    for (int i = 0; i < 2500; i++) {
        (void)snprintf(path, sizeof(path), "f%04d", i);
        make_text(f, path, path);
    }
    make_file(f, "large", large, large_len);
    memset(large, 'x', large_len);
    make_file(f, "pale", large, large_len);
    sync_now(f);
    expect_ops(f, "put 2502");
    assert_true(f->fake->sets >= 4);
    expect_equal(f, 0);
    memcpy(large + 1000000, "an insertion", 12);
    make_file(f, "pale", large, large_len);
    sync_now(f);
    expect_ops(f, "patch 1");
    assert_true(f->totals.bytes_sent < 10000);
    expect_equal(f, 0);
    free(large);
}

/* Runs wrote on the server: what only they know stays, what both changed is ours in the end. */
static void test_both_sides(void **state)
{
    struct fixture *f = *state;
    make_dir(f, "d");
    make_text(f, "d/a", "1");
    make_text(f, "d/b", "1");
    make_text(f, "same", "1");
    make_text(f, "gone", "1");
    sync_now(f);
    fake_put(f->fake, "d/made-by-run", TREE_FILE, 0644, "r", 1);
    fake_put(f->fake, "d/a", TREE_FILE, 0644, "by a run", 8);
    fake_put(f->fake, "same", TREE_FILE, 0644, "both", 4);
    fake_drop_tree(f->fake, "gone");
    make_text(f, "d/a", "by hand");
    make_text(f, "same", "both");
    make_text(f, "gone", "again");
    sync_now(f);
    assert_string_equal(f->told, "conflict d/a\nconflict gone\n");
    assert_int_equal(f->totals.conflicts, 2);
    expect_equal(f, 1);
    /* The folder goes here; there it holds a file of the runs, so it stays with that alone. */
    assert_int_equal(unlinkat(f->fd, "d/a", 0), 0);
    assert_int_equal(unlinkat(f->fd, "d/b", 0), 0);
    assert_int_equal(unlinkat(f->fd, "d", AT_REMOVEDIR), 0);
    sync_now(f);
    assert_non_null(fake_find(f->fake, "d/made-by-run"));
    assert_null(fake_find(f->fake, "d/a"));
    sync_now(f);
    assert_int_equal(f->fake->requests, 0);
}

/* A folder is deleted here, and a file in it was changed there: all of it goes, not the file only. */
static void test_deleted_and_changed(void **state)
{
    struct fixture *f = *state;
    make_dir(f, "d");
    make_dir(f, "d/e");
    make_text(f, "d/e/a", "1");
    make_text(f, "stays", "1");
    sync_now(f);
    fake_put(f->fake, "d/e/a", TREE_FILE, 0644, "by a run", 8);
    assert_int_equal(unlinkat(f->fd, "d/e/a", 0), 0);
    assert_int_equal(unlinkat(f->fd, "d/e", AT_REMOVEDIR), 0);
    assert_int_equal(unlinkat(f->fd, "d", AT_REMOVEDIR), 0);
    sync_now(f);
    assert_null(fake_find(f->fake, "d/e"));
    assert_null(fake_find(f->fake, "d"));
    expect_equal(f, 0);
}

/* The server was restored, or the index lost: only what differs is sent, nothing foreign deleted.
 */
static void test_epoch_and_lost_index(void **state)
{
    struct fixture *f = *state;
    make_text(f, "a", "1");
    make_text(f, "b", "1");
    sync_now(f);
    fake_put(f->fake, "by-run", TREE_FILE, 0644, "r", 1);
    fake_put(f->fake, "b", TREE_FILE, 0644, "older", 5);
    (void)snprintf(f->fake->epoch, sizeof(f->fake->epoch), "epoch-2");
    make_text(f, "c", "3");
    sync_now(f);
    expect_ops(f, "put 2");
    expect_equal(f, 1);
    assert_int_equal(unlinkat(f->fd, ".silt/index", 0), 0);
    make_text(f, "a", "2");
    sync_now(f);
    expect_ops(f, "put 1");
    expect_equal(f, 1);
    /* A deletion while the epoch changed is still known. */
    (void)snprintf(f->fake->epoch, sizeof(f->fake->epoch), "epoch-3");
    assert_int_equal(unlinkat(f->fd, "a", 0), 0);
    sync_now(f);
    assert_null(fake_find(f->fake, "a"));
    expect_equal(f, 1);
}

static void test_lost_answer(void **state)
{
    struct fixture *f = *state;
    make_text(f, "a", "1");
    sync_now(f);
    make_text(f, "a", "22");
    f->fake->break_answers = 1;
    sync_now(f);
    assert_int_equal(f->fake->sets, 1);
    expect_equal(f, 0);
    sync_now(f);
    assert_int_equal(f->fake->requests, 0);
}

/* A watcher's second set loses its connection, then the first is acknowledged: the second is still due.
 */
static void test_second_set_cut(void **state)
{
    struct fixture *f = *state;
    struct err e = ERR_INIT;
    char name[8];
    size_t size = 900 * 1000;
    uint8_t *data = malloc(size);
    assert_non_null(data);
    for (unsigned i = 0; i < 6; i++) {
        fill_random(data, size, i + 1);
        (void)snprintf(name, sizeof(name), "f%u", i);
        make_file(f, name, data, size);
    }
    free(data);
    struct sync *s = open_sync(f);
    s->patient = true;
    f->fake->cut_second = FAKE_CUT_SECOND;
    assert_true(sync_scan(s, &e) > 0);
    assert_int_equal(sync_start(s, &e), 0);
    for (int i = 0; i < 1000 && sync_busy(s); i++) {
        assert_true(client_step(f->client, NULL, 0, 10, &e) >= 0);
        if (s->away && f->fake->cut_second == FAKE_WAS_CUT && s->flying_count == 1)
            assert_int_equal(sync_resend(s, &e), 0);
    }
    assert_false(sync_busy(s));
    sync_close(s);
    expect_equal(f, 0);
}

/* One path goes on its way in a set of its own. */
static void send_path(struct sync *s, const char *path)
{
    struct err e = ERR_INIT;
    assert_int_equal(sync_scan_paths(s, &path, 1, &e), 1);
    assert_int_equal(sync_start(s, &e), 0);
}

static void await_answers(struct fixture *f, struct sync *s)
{
    struct err e = ERR_INIT;
    for (int i = 0; i < 1000 && sync_busy(s); i++)
        assert_true(client_step(f->client, NULL, 0, 10, &e) >= 0);
    assert_false(sync_busy(s));
}

/* The index's file must say what the later set put there: what was there before is a change again. */
static void expect_that_old_content_is_sent(struct fixture *f, const char *path)
{
    make_text(f, path, "1");
    sync_now(f);
    assert_string_equal(f->told, "");
    expect_equal(f, 0);
}

/* Two sets about one file, the later one is answered first. */
static void test_answers_out_of_order(void **state)
{
    struct fixture *f = *state;
    struct err e = ERR_INIT;
    struct sync *s = open_sync(f);
    assert_int_equal(sync_scan(s, &e), 0);
    f->fake->swap = FAKE_SWAP;
    make_text(f, "a", "1");
    send_path(s, "a");
    make_text(f, "a", "22");
    send_path(s, "a");
    await_answers(f, s);
    assert_int_equal(f->fake->swap, FAKE_SWAPPED);
    sync_close(s);
    expect_that_old_content_is_sent(f, "a");
}

/* A file that was only touched needs no sending; the set behind that one edits it. */
static void test_touched_then_edited(void **state)
{
    struct fixture *f = *state;
    make_text(f, "a", "1");
    sync_now(f);
    struct sync *s = open_sync(f);
    make_text(f, "b", "1");
    send_path(s, "b");
    assert_int_equal(utimensat(f->fd, "a", (struct timespec[]){{.tv_sec = 9}, {.tv_sec = 9}}, 0), 0);
    send_path(s, "a");
    make_text(f, "a", "22");
    send_path(s, "a");
    await_answers(f, s);
    sync_close(s);
    expect_that_old_content_is_sent(f, "a");
}

/* Killed after the set was applied and before the index knew: nothing is lost or taken for a
 * conflict. */
static void test_killed_between(void **state)
{
    struct fixture *f = *state;
    struct err e = ERR_INIT;
    struct buf index;
    char path[128];
    make_text(f, "a", "1");
    sync_now(f);
    (void)snprintf(path, sizeof(path), "%s/.silt/index", f->dir);
    assert_int_equal(io_read_file(path, 1 << 20, &index, &e), 0);
    make_text(f, "a", "22");
    sync_now(f);
    assert_int_equal(io_write_file(path, index.data, index.len, 0600, &e), 0);
    buf_release(&index);
    make_text(f, "b", "1");
    sync_now(f);
    assert_string_equal(f->told, "");
    expect_equal(f, 0);
}

/* The same, and what had been created was deleted here before anybody could tell: not left behind.
 */
static void test_killed_and_deleted(void **state)
{
    struct fixture *f = *state;
    struct err e = ERR_INIT;
    struct sync *s;
    make_text(f, "stays", "1");
    sync_now(f);
    make_text(f, "short-lived", "1");
    s = open_sync(f);
    assert_true(sync_scan(s, &e) > 0);
    assert_int_equal(sync_start(s, &e), 0);
    /* The set is on the wire; its answer is never read. */
    while (true) {
        (void)pthread_mutex_lock(&f->fake->lock);
        bool there = fake_find(f->fake, "short-lived") != NULL;
        (void)pthread_mutex_unlock(&f->fake->lock);
        if (there)
            break;
        (void)usleep(1000);
    }
    sync_close(s);
    assert_int_equal(unlinkat(f->fd, "short-lived", 0), 0);
    sync_now(f);
    expect_equal(f, 0);
    /* And that is the end of the doubt. */
    sync_now(f);
    assert_int_equal(f->fake->requests, 0);
}

/* Send what differs, and be killed once the server applied it: its answer is never read. */
static void sync_unheard(struct fixture *f)
{
    struct err e = ERR_INIT;
    (void)pthread_mutex_lock(&f->fake->lock);
    uint64_t before = f->fake->generation, now = before;
    (void)pthread_mutex_unlock(&f->fake->lock);
    struct sync *s = open_sync(f);
    assert_true(sync_scan(s, &e) > 0);
    assert_int_equal(sync_start(s, &e), 0);
    while (now == before) {
        (void)usleep(1000);
        (void)pthread_mutex_lock(&f->fake->lock);
        now = f->fake->generation;
        (void)pthread_mutex_unlock(&f->fake->lock);
    }
    sync_close(s);
}

/* What we sent ourselves is no conflict, though we never heard that it arrived. */
static void test_own_version_is_no_conflict(void **state)
{
    struct fixture *f = *state;
    static uint8_t data[5000];
    make_text(f, "edited", "1");
    make_text(f, "deleted", "1");
    make_text(f, "gone-and-back", "1");
    fill_random(data, sizeof(data), 1);
    make_file(f, "moved", data, sizeof(data));
    make_text(f, "turned", "1");
    sync_now(f);
    make_text(f, "edited", "22");
    make_text(f, "deleted", "22");
    assert_int_equal(unlinkat(f->fd, "gone-and-back", 0), 0);
    assert_int_equal(renameat(f->fd, "moved", f->fd, "new-name"), 0);
    assert_int_equal(unlinkat(f->fd, "turned", 0), 0);
    assert_int_equal(symlinkat("edited", f->fd, "turned"), 0);
    sync_unheard(f);
    make_text(f, "edited", "333");
    assert_int_equal(unlinkat(f->fd, "deleted", 0), 0);
    make_text(f, "gone-and-back", "333");
    make_text(f, "moved", "333");
    make_text(f, "new-name", "333");
    assert_int_equal(unlinkat(f->fd, "turned", 0), 0);
    make_text(f, "turned", "333");
    sync_now(f);
    assert_string_equal(f->told, "");
    expect_equal(f, 0);
    /* A run's version in the same place is one. */
    make_text(f, "edited", "4444");
    sync_unheard(f);
    fake_put(f->fake, "edited", TREE_FILE, 0644, "a run's", 7);
    make_text(f, "edited", "55555");
    sync_now(f);
    assert_string_equal(f->told, "conflict edited\n");
    expect_equal(f, 0);
}

/* The same in the set of a large file, whose answer is lost while the agent lives. */
static void test_lost_answer_is_no_conflict(void **state)
{
    struct fixture *f = *state;
    struct err e = ERR_INIT;
    uint8_t *data = malloc(12u << 20);
    assert_non_null(data);
    for (unsigned open = 0; open < 2; open++) { /* as a whole, then as a delta made on its way */
        size_t size = (open ? 12u : 3u) << 20;
        fill_random(data, size, open ? 1 : 7);
        make_text(f, "a", "1");
        if (open)
            make_file(f, "z", data, size);
        sync_now(f);
        data[size / 2] ^= 1;
        make_text(f, "a", "22");
        make_file(f, "z", data, size);
        f->fake->break_answers = 9;
        struct sync *s = open_sync(f);
        s->patient = true;
        f->told[0] = '\0';
        assert_true(sync_scan(s, &e) > 0);
        assert_int_equal(sync_start(s, &e), 0);
        while (s->trouble == SYNC_FINE || s->flying_count)
            assert_true(client_step(f->client, NULL, 0, 10, &e) >= 0);
        assert_int_equal(s->trouble, SYNC_REBASE);
        f->fake->break_answers = 0;
        make_text(f, "a", "333");
        data[size / 3] ^= 1;
        make_file(f, "z", data, size);
        s->away = s->patient = false;
        assert_int_equal(sync_push(s, &e), 0);
        sync_close(s);
        assert_string_equal(f->told, "");
        expect_equal(f, 0);
    }
    free(data);
}

/* A conflict that came to nothing is not told of a file that is made under that name later. */
static void test_conflict_ends(void **state)
{
    struct fixture *f = *state;
    struct err e = ERR_INIT;
    make_text(f, "a", "1");
    make_text(f, "b", "1");
    sync_now(f);
    struct sync *s = open_sync(f);
    f->told[0] = '\0';
    fake_drop(f->fake, fake_find(f->fake, "a")); /* a run deleted it */
    assert_int_equal(unlinkat(f->fd, "a", 0), 0);
    assert_int_equal(utimensat(f->fd, "b", NULL, 0), 0); /* looked at, and nothing to send */
    assert_true(sync_scan(s, &e) > 0);
    assert_int_equal(sync_push(s, &e), 0);
    make_text(f, "a", "2");
    assert_true(sync_scan(s, &e) > 0);
    assert_int_equal(sync_push(s, &e), 0);
    assert_string_equal(f->told, "");
    sync_close(s);
    expect_equal(f, 0);
}

/* A conflict that one command learned of is told by the next, and the other version kept. */
static void test_conflict_outlives_a_command(void **state)
{
    struct fixture *f = *state;
    struct err e = ERR_INIT;
    make_text(f, "a", "1");
    sync_now(f);
    make_text(f, "a", "22");
    fake_put(f->fake, "a", TREE_FILE, 0644, "a run's", 7);
    (void)snprintf(f->fake->epoch, sizeof(f->fake->epoch), "epoch-2");
    struct sync *s = open_sync(f);
    index_state(s->index)->epoch[0] = '\0';
    assert_true(sync_scan(s, &e) > 0); /* `silt status` */
    sync_close(s);
    s = open_sync(f);
    assert_true(index_contested(s->index, "a"));
    index_state(s->index)->epoch[0] = '\0'; /* and once more */
    assert_true(sync_scan(s, &e) > 0);
    sync_close(s);
    sync_now(f);
    assert_string_equal(f->told, "conflict a\n");
    assert_int_equal(f->fake->keeps, 1);
    expect_equal(f, 0);
    make_text(f, "a", "333");
    sync_now(f);
    assert_string_equal(f->told, "");
    assert_int_equal(f->fake->keeps, 0);
}

/* It is told once, and kept, though the set that does so has to be sent again. */
static void test_conflict_outlives_a_refusal(void **state)
{
    struct fixture *f = *state;
    struct err e = ERR_INIT;
    make_text(f, "a", "1");
    make_text(f, "b", "1");
    sync_now(f);
    make_text(f, "a", "22");
    make_text(f, "b", "22");
    struct sync *s = open_sync(f);
    f->told[0] = '\0';
    index_state(s->index)->epoch[0] = '\0';
    fake_put(f->fake, "a", TREE_FILE, 0644, "a run's", 7);
    assert_true(sync_scan(s, &e) > 0);
    fake_put(f->fake, "b", TREE_FILE, 0644, "a run's", 7);
    assert_int_equal(sync_push(s, &e), 0);
    sync_close(s);
    assert_string_equal(f->told, "conflict a\nconflict b\n");
    assert_int_equal(f->fake->keeps, 2);
    expect_equal(f, 0);
}

/* Somebody else was quicker with the same new file, and ours was deleted before we heard of it: its
 * folders go with it, though no set of ours that made them was ever applied. */
static void test_folders_of_a_refused_set(void **state)
{
    struct fixture *f = *state;
    struct err e = ERR_INIT;
    make_text(f, "stays", "1");
    sync_now(f);
    make_dir(f, "d");
    make_dir(f, "d/e");
    make_text(f, "d/e/a", "1");
    struct sync *s = open_sync(f);
    assert_true(sync_scan(s, &e) > 0);
    fake_put(f->fake, "d", TREE_DIR, 0755, "", 0);
    fake_put(f->fake, "d/e", TREE_DIR, 0755, "", 0);
    fake_put(f->fake, "d/e/a", TREE_FILE, 0644, "theirs", 6);
    fake_put(f->fake, "d/of-a-run", TREE_FILE, 0644, "theirs", 6);
    assert_int_equal(sync_start(s, &e), 0);
    assert_int_equal(unlinkat(f->fd, "d/e/a", 0), 0);
    assert_int_equal(unlinkat(f->fd, "d/e", AT_REMOVEDIR), 0);
    assert_int_equal(unlinkat(f->fd, "d", AT_REMOVEDIR), 0);
    assert_int_equal(sync_push(s, &e), 0);
    sync_close(s);
    assert_null(fake_find(f->fake, "d/e"));
    expect_equal(f, 2); /* a file of theirs, and what it lies in */
}

static void test_emptied(void **state)
{
    struct fixture *f = *state;
    struct err e = ERR_INIT;
    make_text(f, "a", "1");
    sync_now(f);
    assert_int_equal(unlinkat(f->fd, "a", 0), 0);
    assert_int_equal(try_sync(f, &e), -ENOTEMPTY);
    assert_non_null(strstr(e.msg, "--allow-empty"));
    assert_non_null(fake_find(f->fake, "a"));
    f->allow_empty = true;
    sync_now(f);
    assert_int_equal(f->fake->count, 0);
}

static void test_refusals(void **state)
{
    struct fixture *f = *state;
    struct err e = ERR_INIT;
    make_text(f, "a", "1");
    f->fake->refuse_lease = true;
    assert_int_equal(try_sync(f, &e), -EPROTO);
    assert_int_equal(e.refusal, PROTO_LINKED_ELSEWHERE);
    assert_non_null(strstr(e.msg, "--steal"));
    f->fake->refuse_lease = false;
    sync_now(f);
    expect_equal(f, 0);
}

/* Nobody listens: said, and the change is sent the next time. */
static void test_server_away(void **state)
{
    struct fixture *f = *state;
    struct err e = ERR_INIT;
    struct client *real = f->client;
    make_text(f, "a", "1");
    sync_now(f);
    make_text(f, "a", "2");
    assert_int_equal(
        client_new(&(struct client_config){.server = "127.0.0.1:1"}, &f->client, &e), 0);
    assert_int_equal(try_sync(f, &e), -ECONNREFUSED);
    client_free(f->client);
    f->client = real;
    sync_now(f);
    expect_ops(f, "put 1");
    expect_equal(f, 0);
}

static void test_barrier(void **state)
{
    struct fixture *f = *state;
    struct err e = ERR_INIT;
    const char *client = NULL;
    uint64_t first = 0, second = 0;
    struct sync *s = open_sync(f), *other = NULL;
    assert_int_equal(sync_scan(s, &e), 0);
    sync_barrier(s, &client, &first);
    assert_string_equal(client, "");
    assert_int_equal(first, 0);
    make_text(f, "a", "1");
    assert_int_equal(sync_scan(s, &e), 1);
    assert_int_equal(sync_start(s, &e), 0);
    sync_barrier(s, &client, &first);
    assert_memory_equal(client, "lk_test.", 8);
    assert_true(first > 0);
    assert_true(sync_busy(s));
    assert_int_equal(sync_push(s, &e), 0);
    assert_int_equal(f->fake->last_seq, first);
    sync_barrier(s, &client, &second);
    assert_int_equal(second, first);
    /* One process at a time. */
    struct sync_config config = {.link = &f->link, .client = f->client};
    assert_int_equal(sync_open(&config, &other, &e), -EBUSY);
    const char *paths[] = {"b"};
    make_text(f, "b", "1");
    make_text(f, "not-asked-for", "1");
    assert_int_equal(sync_scan_paths(s, paths, 1, &e), 1);
    assert_int_equal(sync_push(s, &e), 0);
    assert_non_null(fake_find(f->fake, "b"));
    assert_null(fake_find(f->fake, "not-asked-for"));
    sync_close(s);
}

static void test_survey(void **state)
{
    struct fixture *f = *state;
    char left_out[100];
    uint64_t files = 0, bytes = 0;
    struct err e = ERR_INIT;
    make_dir(f, "lib");
    make_text(f, "lib/helper.py", "1");
    make_text(f, ".env", "SECRET");
    make_text(f, ".gitignore", "helper*\n");
    assert_int_equal(sync_survey(f->dir, &files, &bytes, left_out, sizeof(left_out), &e), 0);
    assert_int_equal(files, 1);
    assert_int_equal(bytes, 8);
    assert_string_equal(left_out, ".env");
}

static bool maybe_new(void *ctx)
{
    ++*(unsigned *)ctx;
    return true;
}

/* A rule that is written between the scan and the reading counts for what was written after it, of any
 * kind and size; also for a file that the server has. What no rule leaves out goes as ever. */
static void test_rule_after_scan(void **state)
{
    struct fixture *f = *state;
    struct err e = ERR_INIT;
    size_t size = 3u << 20;
    unsigned asked = 0;
    uint8_t *large = malloc(size);
    assert_non_null(large);
    fill_random(large, size, 7);
    make_dir(f, "sub");
    make_text(f, "sub/known.key", "no secret");
    sync_now(f);
    struct sync *s = open_sync(f);
    s->new_rules = maybe_new;
    s->new_rules_ctx = &asked;
    make_text(f, "sub/known.key", "edited");
    make_text(f, "sub/new.key", "new");
    make_file(f, "sub/large.key", large, size);
    assert_int_equal(symlinkat("x", f->fd, "sub/link.key"), 0);
    make_dir(f, "sub/dir.key");
    make_text(f, "sub/taken", "yes");
    assert_int_equal(sync_scan(s, &e), 6);
    make_text(f, "sub/.gitignore", "*.key\n");
    make_text(f, "sub/known.key", "SECRET");
    make_text(f, "sub/new.key", "SECRET");
    assert_int_equal(sync_push(s, &e), 0);
    assert_true(asked >= 6);
    assert_non_null(fake_find(f->fake, "sub/taken"));
    assert_string_equal(fake_find(f->fake, "sub/known.key")->data, "no secret");
    assert_null(fake_find(f->fake, "sub/new.key"));
    assert_null(fake_find(f->fake, "sub/large.key"));
    assert_null(fake_find(f->fake, "sub/link.key"));
    assert_null(fake_find(f->fake, "sub/dir.key"));
    sync_close(s);
    free(large);
}

/* A file of another size at each look. */
struct restless {
    int fd;
    atomic_bool stop;
};

static void *never_still(void *ctx)
{
    struct restless *r = ctx;
    for (off_t i = 0; !r->stop; i++)
        (void)!ftruncate(r->fd, 100 + i % 1000);
    return NULL;
}

/* A small file that was changed between its stat and its reading, and one that never holds still:
 * what is recorded is of the bytes that were read, and who knows that it is not is told. */
static void test_read_small(void **state)
{
    struct fixture *f = *state;
    struct sync s = {.dir_fd = -1};
    struct tree_stat stat;
    struct stat st;
    int64_t seen_ns = 1;
    buf_init(&s.scratch, SYNC_MEMORY_FILE + 1);
    make_file(f, "small", "as it was at first", 18);
    int fd = openat(f->fd, "small", O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    tree_stat_of(&st, &stat);
    assert_int_equal(pwrite(fd, "AS IT IS NOW, LONGER", 20, 0), 20);
    assert_int_equal(sync_read_small(&s, "small", fd, &stat, &seen_ns), 0);
    assert_int_equal(s.scratch.len, 20);
    assert_memory_equal(s.scratch.data, "AS IT IS NOW, LONGER", 20);
    assert_int_equal(stat.size, 20);
    assert_true(seen_ns > 1);
    assert_null(s.unsettled);
    struct restless r = {.fd = fd};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, never_still, &r), 0);
    uint64_t deadline = io_now_ns() + UINT64_C(20000000000);
    while (!s.unsettled && io_now_ns() < deadline)
        assert_int_equal(sync_read_small(&s, "small", fd, &stat, &seen_ns), 0);
    r.stop = true;
    (void)pthread_join(thread, NULL);
    assert_int_equal(sync_names_count(s.unsettled), 1);
    sync_names_free(&s.unsettled);
    (void)close(fd);
    buf_release(&s.scratch);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_first_and_nothing),
        TEST(test_edits),
        TEST(test_moves_and_copies),
        TEST(test_other_kinds),
        TEST(test_many_and_large),
        TEST(test_both_sides),
        TEST(test_second_set_cut),
        TEST(test_answers_out_of_order),
        TEST(test_touched_then_edited),
        TEST(test_deleted_and_changed),
        TEST(test_read_small),
        TEST(test_epoch_and_lost_index),
        TEST(test_lost_answer),
        TEST(test_killed_between),
        TEST(test_killed_and_deleted),
        TEST(test_own_version_is_no_conflict),
        TEST(test_lost_answer_is_no_conflict),
        TEST(test_conflict_ends),
        TEST(test_conflict_outlives_a_command),
        TEST(test_conflict_outlives_a_refusal),
        TEST(test_folders_of_a_refused_set),
        TEST(test_emptied),
        TEST(test_refusals),
        TEST(test_server_away),
        TEST(test_barrier),
        TEST(test_survey),
        TEST(test_rule_after_scan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
