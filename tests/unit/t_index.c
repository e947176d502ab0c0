/* SPDX-License-Identifier: MIT */
/* agent/index: what survives a kill at any byte, and that no number of a set is ever used twice. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/index.h"
#include "shared/io.h"
#include "shared/tree.h"

#include "shared/banned.h"

struct fixture {
    char dir[64];
    int fd;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    (void)snprintf(f->dir, sizeof(f->dir), "/tmp/t_index.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    f->fd = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(f->fd >= 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    struct err e = ERR_INIT;
    (void)close(f->fd);
    int tmp = open("/tmp", O_PATH | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(tree_remove_at(tmp, strrchr(f->dir, '/') + 1, &e), 0);
    (void)close(tmp);
    free(f);
    return 0;
}

static struct index *open_index(const struct fixture *f)
{
    struct index *ix = NULL;
    struct err e = ERR_INIT;
    if (index_open(f->fd, "lk_test", "sb_test", &ix, &e) < 0)
        fail_msg("%s", e.msg);
    return ix;
}

static struct manifest_entry file_entry(char *path, unsigned content)
{
    struct manifest_entry entry = {.path = path,
        .kind = TREE_FILE,
        .mode = 0644,
        .size = content,
        .mtime_ns = 5,
        .ctime_ns = 6,
        .ino = 7,
        .seen_ns = 8};
    hash_buf(&content, sizeof(content), &entry.hash);
    return entry;
}

/* One set: put `path` with this content, acknowledged. */
static void commit_put(struct index *ix, char *path, unsigned content)
{
    struct buf log;
    struct err e = ERR_INIT;
    struct manifest_entry entry = file_entry(path, content);
    buf_init(&log, INDEX_LOG_MAX);
    assert_int_equal(index_put(ix, &entry, &log), 0);
    index_state(ix)->generation++;
    (void)snprintf(index_state(ix)->epoch, sizeof(index_state(ix)->epoch), "ep");
    assert_int_equal(index_commit(ix, &log, &e), 0);
    buf_release(&log);
}

static void test_round_trip(void **state)
{
    const struct fixture *f = *state;
    struct err e = ERR_INIT;
    struct buf log;
    buf_init(&log, INDEX_LOG_MAX);
    struct index *ix = open_index(f);
    char client[CHANGES_CLIENT_MAX + 1];
    (void)snprintf(client, sizeof(client), "%s", index_state(ix)->client);
    assert_memory_equal(client, "lk_test.", 8);
    assert_int_equal(strlen(client), 18);
    assert_string_equal(index_state(ix)->epoch, "");
    struct manifest_entry dir = {.path = "d", .kind = TREE_DIR, .mode = 0755};
    struct manifest_entry link = {.path = "d/l", .kind = TREE_SYMLINK, .target = "x", .size = 1};
    assert_int_equal(index_put(ix, &dir, &log), 0);
    assert_int_equal(index_put(ix, &link, &log), 0);
    (void)snprintf(index_state(ix)->epoch, 40, "ep");
    assert_int_equal(index_commit(ix, &log, &e), 0);
    commit_put(ix, "d/a", 1);
    commit_put(ix, "b", 2);
    buf_reset(&log);
    assert_int_equal(index_move(ix, "d", "n", &log), 0);
    assert_int_equal(index_remove(ix, "b", false, &log), 0);
    assert_int_equal(index_commit(ix, &log, &e), 0);
    index_close(ix);

    ix = open_index(f);
    assert_string_equal(index_state(ix)->client, client);
    assert_string_equal(index_state(ix)->epoch, "ep");
    assert_int_equal(index_state(ix)->generation, 2);
    assert_int_equal(manifest_count(index_manifest(ix)), 3);
    assert_string_equal(manifest_get(index_manifest(ix), "n/l")->target, "x");
    const struct manifest_entry *a = manifest_get(index_manifest(ix), "n/a");
    struct manifest_entry expected = file_entry("n/a", 1);
    assert_true(a && hash_equal(&a->hash, &expected.hash) && a->size == 1 && a->mtime_ns == 5 &&
                a->ctime_ns == 6 && a->ino == 7 && a->seen_ns == 8 && a->mode == 0644);
    index_close(ix);
    buf_release(&log);
}

static void test_rollback(void **state)
{
    const struct fixture *f = *state;
    struct err e = ERR_INIT;
    struct buf log;
    buf_init(&log, INDEX_LOG_MAX);
    struct index *ix = open_index(f);
    uint64_t before = 0, after = 0;
    commit_put(ix, "a", 1);
    assert_int_equal(index_next_seq(ix, &before, &e), 0);
    struct manifest_entry entry = file_entry("a", 2);
    assert_int_equal(index_put(ix, &entry, &log), 0);
    assert_int_equal(manifest_get(index_manifest(ix), "a")->size, 2);
    assert_int_equal(index_rollback(ix, &e), 0);
    assert_int_equal(manifest_get(index_manifest(ix), "a")->size, 1);
    /* The refused set's number is not given out again. */
    assert_int_equal(index_next_seq(ix, &after, &e), 0);
    assert_true(after > before);
    index_close(ix);
    buf_release(&log);
}

/* Numbers stay unique for one client name across opens, also when nothing was committed between. */
/* What sets in flight may have made of a path is known until they, or later ones, are answered. */
static void test_doubts(void **state)
{
    const struct fixture *f = *state;
    struct err e = ERR_INIT;
    struct buf log;
    struct manifest_entry one = file_entry("p", 1), two = file_entry("p", 2),
                          nine = file_entry("p", 9), other = file_entry("q", 1), link = one;
    link.kind = TREE_SYMLINK;
    buf_init(&log, INDEX_LOG_MAX);
    struct index *ix = open_index(f);
    commit_put(ix, "p", 9);
    assert_int_equal(index_intend(&log, 5, &one), 0);
    assert_int_equal(index_intend(&log, 7, &two), 0);
    assert_int_equal(index_intend(&log, 5, &other), 0);
    assert_int_equal(index_commit(ix, &log, &e), 0);
    assert_int_equal(index_rollback(ix, &e), 0);
    assert_true(index_was_sent(ix, &one) && index_was_sent(ix, &two));
    assert_false(index_was_sent(ix, &nine) || index_was_sent(ix, &link));
    assert_true(index_in_doubt(ix, "p") && index_in_doubt(ix, "q"));
    assert_false(index_in_doubt(ix, "r"));
    /* An answer ends them up to its number, in memory and in the file. */
    index_state(ix)->acked_seq = 6;
    assert_int_equal(index_commit(ix, NULL, &e), 0);
    for (int again = 0; again < 2; again++) {
        assert_false(index_was_sent(ix, &one) || index_in_doubt(ix, "q"));
        assert_true(index_was_sent(ix, &two));
        index_close(ix);
        ix = open_index(f);
    }
    assert_string_equal(index_state(ix)->epoch, ""); /* so the server is asked */
    assert_int_equal(index_rewrite(ix, &e), 0);
    assert_true(index_in_doubt(ix, "p")); /* until it has answered something */
    index_close(ix);
    ix = open_index(f);
    assert_false(index_in_doubt(ix, "p"));
    index_close(ix);
    buf_release(&log);
}

/* A contest outlives refusals, restarts and rewriting, and ends with what is committed about its path. */
static void test_contests(void **state)
{
    const struct fixture *f = *state;
    struct err e = ERR_INIT;
    struct buf log;
    struct manifest_entry entry = file_entry("d/a", 2);
    buf_init(&log, INDEX_LOG_MAX);
    struct index *ix = open_index(f);
    commit_put(ix, "d/a", 1);
    assert_int_equal(index_contest(ix, "d/a", &log), 0);
    assert_int_equal(index_contest(ix, "d/gone", &log), 0);
    assert_int_equal(index_commit(ix, &log, &e), 0);
    for (int i = 0; i < 3; i++) {
        assert_true(index_contested(ix, "d/a") && index_contested(ix, "d/gone"));
        assert_false(index_contested(ix, "d"));
        buf_reset(&log);
        assert_int_equal(index_put(ix, &entry, &log), 0);
        assert_false(index_contested(ix, "d/a")); /* sent, and refused: */
        assert_int_equal(index_rollback(ix, &e), 0);
        assert_true(index_contested(ix, "d/a"));
        if (i == 1)
            assert_int_equal(index_rewrite(ix, &e), 0);
        index_close(ix);
        ix = open_index(f);
    }
    assert_int_equal(index_commit(ix, &log, &e), 0);
    index_close(ix);
    ix = open_index(f);
    assert_false(index_contested(ix, "d/a"));
    assert_true(index_has_contests(ix));
    buf_reset(&log);
    assert_int_equal(index_remove(ix, "d", true, &log), 0);
    assert_int_equal(index_commit(ix, &log, &e), 0);
    assert_false(index_has_contests(ix));
    buf_reset(&log);
    assert_int_equal(index_contest(ix, "x", &log), 0);
    assert_int_equal(index_end_contests(ix, &log), 0);
    assert_int_equal(index_commit(ix, &log, &e), 0);
    index_close(ix);
    ix = open_index(f);
    assert_false(index_has_contests(ix));
    index_close(ix);
    buf_release(&log);
}

static void test_numbers(void **state)
{
    const struct fixture *f = *state;
    struct err e = ERR_INIT;
    uint64_t last = 0, seq = 0;
    for (int i = 0; i < 300; i++) {
        struct index *ix = open_index(f);
        for (int k = 0; k < i % 4; k++) {
            assert_int_equal(index_next_seq(ix, &seq, &e), 0);
            assert_true(seq > last);
            last = seq;
        }
        index_close(ix);
    }
}

static void write_prefix(const struct fixture *f, const struct buf *whole, size_t len)
{
    int fd = openat(f->fd, INDEX_FILE, O_WRONLY | O_TRUNC | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(io_write_all(fd, whole->data, len), 0);
    (void)close(fd);
}

/* Cut the file at every byte: what is read is the state after some whole number of commits, never
 * more, never a mixture; a cut inside a record gives the client a new name. */
static void test_torn_tails(void **state)
{
    const struct fixture *f = *state;
    struct err e = ERR_INIT;
    struct buf whole;
    char path[128], client[CHANGES_CLIENT_MAX + 1];
    size_t ends[8], count = 0;
    struct stat st;
    struct index *ix = open_index(f);
    (void)snprintf(client, sizeof(client), "%s", index_state(ix)->client);
    (void)snprintf(path, sizeof(path), "%s/" INDEX_FILE, f->dir);
    for (unsigned i = 0; i < 6; i++) {
        assert_int_equal(stat(path, &st), 0);
        ends[count++] = (size_t)st.st_size;
        char name[2] = {(char)('a' + i), '\0'};
        commit_put(ix, name, i);
    }
    index_close(ix);
    assert_int_equal(io_read_file(path, 1 << 20, &whole, &e), 0);
    for (size_t len = 0; len < whole.len; len++) {
        size_t commits = 0;
        while (commits < count && ends[commits] <= len)
            commits++;
        write_prefix(f, &whole, len);
        ix = open_index(f);
        size_t expected = commits ? commits - 1 : 0;
        if (manifest_count(index_manifest(ix)) != expected ||
            index_state(ix)->generation != expected)
            fail_msg("cut at %zu: %zu entries instead of %zu", len,
                manifest_count(index_manifest(ix)), expected);
        bool clean = commits && ends[commits - 1] == len;
        assert_int_equal(strcmp(index_state(ix)->client, client) == 0, clean);
        /* It can be appended to. */
        commit_put(ix, "z", 9);
        index_close(ix);
        ix = open_index(f);
        assert_int_equal(manifest_count(index_manifest(ix)), expected + 1);
        index_close(ix);
    }
    buf_release(&whole);
}

/* What follows the last record, whatever it is, costs nothing of what was committed before it. */
static void test_garbage_behind(void **state)
{
    const struct fixture *f = *state;
    struct err e = ERR_INIT;
    struct buf whole;
    char path[128], client[CHANGES_CLIENT_MAX + 1];
    uint8_t garbage[300];
    (void)snprintf(path, sizeof(path), "%s/" INDEX_FILE, f->dir);
    for (unsigned kind = 0; kind < 4; kind++) {
        struct index *ix = open_index(f);
        (void)snprintf(client, sizeof(client), "%s", index_state(ix)->client);
        commit_put(ix, "a", kind);
        index_close(ix);
        /* Zeros (of a file system after a power cut), ones, noise, a record's length and no more. */
        memset(garbage, kind == 1 ? 0xff : 0, sizeof(garbage));
        for (size_t i = 0; kind == 2 && i < sizeof(garbage); i++)
            garbage[i] = (uint8_t)(i * 151 + 7);
        garbage[3] = kind == 3 ? 200 : garbage[3];
        assert_int_equal(io_read_file(path, 1 << 20, &whole, &e), 0);
        assert_int_equal(buf_add(&whole, garbage, sizeof(garbage)), 0);
        write_prefix(f, &whole, whole.len);
        buf_release(&whole);
        for (unsigned again = 0; again < 2; again++) {
            ix = open_index(f);
            assert_int_equal(manifest_count(index_manifest(ix)), 1);
            assert_int_equal(manifest_get(index_manifest(ix), "a")->size, kind);
            assert_int_equal(index_state(ix)->generation, kind + 1);
            /* What was cut off may have reserved numbers; the server is asked what it has. */
            assert_string_not_equal(index_state(ix)->client, client);
            assert_string_equal(index_state(ix)->epoch, "");
            index_close(ix);
        }
    }
}

/* Killed while it was written anew: the half is thrown away, whatever the name holds by then. */
static void test_killed_rewriting(void **state)
{
    const struct fixture *f = *state;
    struct err e = ERR_INIT;
    struct buf whole;
    char path[128], client[CHANGES_CLIENT_MAX + 1];
    (void)snprintf(path, sizeof(path), "%s/" INDEX_FILE, f->dir);
    struct index *ix = open_index(f);
    (void)snprintf(client, sizeof(client), "%s", index_state(ix)->client);
    for (unsigned i = 0; i < 1500; i++)
        commit_put(ix, "same", i);
    index_close(ix);
    assert_int_equal(io_read_file(path, 1 << 20, &whole, &e), 0);
    for (size_t len = 0; len < 400; len += 57) {
        int fd = openat(f->fd, INDEX_FILE ".new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
        assert_int_equal(io_write_all(fd, whole.data, len), 0);
        (void)close(fd);
        ix = open_index(f);
        assert_string_equal(index_state(ix)->client, client);
        assert_int_equal(manifest_get(index_manifest(ix), "same")->size, 1499);
        index_close(ix);
    }
    ix = open_index(f);
    assert_int_equal(index_tidy(ix, &e), 0);
    assert_int_equal(faccessat(f->fd, INDEX_FILE ".new", F_OK, 0), -1);
    index_close(ix);
    ix = open_index(f);
    assert_string_equal(index_state(ix)->client, client);
    assert_int_equal(manifest_get(index_manifest(ix), "same")->size, 1499);
    index_close(ix);
    buf_release(&whole);
}

/* Another version's file is none of ours: everything is compared with the server, under a new name. */
static void test_other_version(void **state)
{
    const struct fixture *f = *state;
    struct err e = ERR_INIT;
    struct buf whole;
    char path[128], client[CHANGES_CLIENT_MAX + 1];
    (void)snprintf(path, sizeof(path), "%s/" INDEX_FILE, f->dir);
    for (unsigned i = 0; i < 2; i++) {
        struct index *ix = open_index(f);
        (void)snprintf(client, sizeof(client), "%s", index_state(ix)->client);
        commit_put(ix, "a", 1);
        index_close(ix);
        assert_int_equal(io_read_file(path, 1 << 20, &whole, &e), 0);
        whole.data[7] = (uint8_t)(i ? whole.data[7] + 1 : 0);
        write_prefix(f, &whole, whole.len);
        buf_release(&whole);
        ix = open_index(f);
        assert_int_equal(manifest_count(index_manifest(ix)), 0);
        assert_string_equal(index_state(ix)->epoch, "");
        assert_string_not_equal(index_state(ix)->client, client);
        commit_put(ix, "b", 2);
        index_close(ix);
        ix = open_index(f);
        assert_int_equal(manifest_count(index_manifest(ix)), 1);
        index_close(ix);
        assert_int_equal(unlinkat(f->fd, INDEX_FILE, 0), 0);
    }
}

/* One wrong bit anywhere never gets through, and what was committed before it stays. */
static void test_flipped_bits(void **state)
{
    const struct fixture *f = *state;
    struct err e = ERR_INIT;
    struct buf whole;
    char path[128];
    struct stat st;
    (void)snprintf(path, sizeof(path), "%s/" INDEX_FILE, f->dir);
    struct index *ix = open_index(f);
    commit_put(ix, "a", 1);
    assert_int_equal(stat(path, &st), 0);
    size_t first = (size_t)st.st_size;
    commit_put(ix, "b", 2);
    index_close(ix);
    assert_int_equal(io_read_file(path, 1 << 20, &whole, &e), 0);
    for (size_t i = 0; i < whole.len; i++) {
        whole.data[i] ^= 0x10;
        write_prefix(f, &whole, whole.len);
        whole.data[i] ^= 0x10;
        ix = open_index(f);
        assert_true(manifest_count(index_manifest(ix)) < 2);
        assert_int_equal(manifest_get(index_manifest(ix), "a") != NULL, i >= first);
        assert_string_equal(index_state(ix)->epoch, "");
        index_close(ix);
    }
    buf_release(&whole);
}

static void test_other_sandbox(void **state)
{
    const struct fixture *f = *state;
    struct err e = ERR_INIT;
    struct index *ix = open_index(f);
    commit_put(ix, "a", 1);
    index_close(ix);
    assert_int_equal(index_open(f->fd, "lk_test", "sb_other", &ix, &e), 0);
    assert_int_equal(manifest_count(index_manifest(ix)), 0);
    index_close(ix);
}

static void test_tidy(void **state)
{
    const struct fixture *f = *state;
    struct err e = ERR_INIT;
    struct stat before, after;
    char path[128];
    struct index *ix = open_index(f);
    (void)snprintf(path, sizeof(path), "%s/" INDEX_FILE, f->dir);
    for (unsigned i = 0; i < 1500; i++)
        commit_put(ix, "same", i);
    assert_int_equal(stat(path, &before), 0);
    assert_int_equal(index_tidy(ix, &e), 0);
    assert_int_equal(stat(path, &after), 0);
    assert_true(after.st_size * 100 < before.st_size);
    commit_put(ix, "more", 1);
    index_close(ix);
    ix = open_index(f);
    assert_int_equal(manifest_count(index_manifest(ix)), 2);
    assert_int_equal(manifest_get(index_manifest(ix), "same")->size, 1499);
    index_close(ix);
}

static void test_signatures(void **state)
{
    const struct fixture *f = *state;
    struct err e = ERR_INIT;
    struct index *ix = open_index(f);
    struct delta_sig *sig = NULL, *got = NULL;
    struct hash hash;
    uint8_t data[20000];
    memset(data, 7, sizeof(data));
    int fd = openat(f->fd, "big", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(io_write_all(fd, data, sizeof(data)), 0);
    assert_int_equal(delta_sig_make(fd, sizeof(data), true, &sig, &hash, &e), 0);
    (void)close(fd);
    assert_int_equal(index_sig_load(ix, &hash, sizeof(data), &got), -ENOENT);
    assert_int_equal(index_sig_save(ix, &hash, sig), 0);
    assert_int_equal(index_sig_load(ix, &hash, sizeof(data), &got), 0);
    assert_true(delta_sig_is_complete(got));
    delta_sig_freep(&got);
    /* No entry has this content: it goes. */
    index_sig_tidy(ix);
    assert_int_equal(index_sig_load(ix, &hash, sizeof(data), &got), -ENOENT);
    struct buf log;
    buf_init(&log, INDEX_LOG_MAX);
    struct manifest_entry entry = {
        .path = "big", .kind = TREE_FILE, .mode = 0644, .size = sizeof(data), .hash = hash};
    assert_int_equal(index_put(ix, &entry, &log), 0);
    assert_int_equal(index_sig_save(ix, &hash, sig), 0);
    index_sig_tidy(ix);
    assert_int_equal(index_sig_load(ix, &hash, sizeof(data), &got), 0);
    delta_sig_freep(&got);
    delta_sig_free(sig);
    buf_release(&log);
    index_close(ix);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_round_trip),
        TEST(test_rollback),
        TEST(test_doubts),
        TEST(test_contests),
        TEST(test_numbers),
        TEST(test_torn_tails),
        TEST(test_garbage_behind),
        TEST(test_killed_rewriting),
        TEST(test_other_version),
        TEST(test_flipped_bits),
        TEST(test_other_sandbox),
        TEST(test_tidy),
        TEST(test_signatures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
