/* SPDX-License-Identifier: MIT */
/* Change sets as they meet a workspace: net effects, conflicts, hostile programs. */
#include "tests/unit/sandbox_fixture.h"

#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mount.h>

#include "shared/delta.h"
#include "shared/log.h"

#include "shared/banned.h"

static uint64_t generation(const struct fixture *f)
{
    struct sandbox_info info;

    assert_int_equal(sandbox_info(f->sb, &info, NULL), 0);
    sandbox_info_release(&info);
    return info.generation;
}

static int count_row(const struct manifest_entry *entry, void *ctx)
{
    (void)entry;
    ++*(unsigned *)ctx;
    return 0;
}

static unsigned manifest_rows(const struct fixture *f, struct hash *digest)
{
    unsigned count = 0;
    struct sandbox_digests digests;

    assert_int_equal(
        sandbox_manifest(f->sb, "", NULL, SIZE_MAX, count_row, &count, NULL, &digests, NULL), 0);
    if (digest)
        *digest = digests.all;
    return count;
}

/* The manifest in memory, the rows in the database and the disk agree: a scan finds nothing, and
 * what is loaded after a restart has the same digest. */
static void assert_sound(struct fixture *f)
{
    struct sandbox_mounts mounts;
    struct sandbox_run_changes changes;
    struct hash before, after;
    struct err e = ERR_INIT;
    char id[SANDBOX_ID_BYTES];
    uint64_t was = generation(f);

    assert_int_equal(sandbox_run_enter(f->sb, &mounts, &e), 0);
    sandbox_mounts_release(&mounts);
    assert_int_equal(sandbox_run_leave(f->sb, &changes, &e), 0);
    for (size_t i = 0; i < changes.count; i++)
        print_error("unexpected change: %s\n", changes.files[i].path);
    assert_int_equal(changes.total, 0);
    assert_false(changes.incomplete);
    assert_int_equal(changes.generation, was);
    sandbox_run_changes_release(&changes);
    unsigned rows = manifest_rows(f, &before);
    assert_int_equal(staging_entries(f), 0);
    (void)snprintf(id, sizeof id, "%s", sandbox_id(f->sb));
    fixture_close(f);
    fixture_open(f);
    assert_int_equal(sandbox_get(f->all, id, &f->sb, &e), 0);
    assert_int_equal(manifest_rows(f, &after), rows);
    assert_memory_equal(&before, &after, sizeof before);
    assert_int_equal(generation(f), was);
}

static void test_puts_and_deletes(void **state)
{
    struct fixture *f = *state;
    char name[512];
    struct stat st;

    assert_int_equal(apply_ok(f->sb, PUT("a.py", "one"), PUT("deep/er/b.py", "two")), 1);
    assert_true(is_file(f, "a.py", "one"));
    assert_true(is_file(f, "deep/er/b.py", "two"));
    assert_int_equal(stat(at(f, "a.py", name), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0644);
    assert_int_equal(st.st_uid, geteuid() == 0 ? FIXTURE_UID : geteuid());
    assert_int_equal(stat(at(f, "deep", name), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0755);
    assert_int_equal(manifest_rows(f, NULL), 4);
    assert_sound(f);

    assert_int_equal(apply_ok(f->sb, DELETE("a.py"), PUT("deep/er/b.py", "three")), 2);
    assert_false(exists(f, "a.py"));
    assert_true(is_file(f, "deep/er/b.py", "three"));
    assert_int_equal(apply_ok(f->sb, DELETE_TREE("deep")), 3);
    assert_false(exists(f, "deep"));
    assert_int_equal(manifest_rows(f, NULL), 0);
    /* Nothing to do: the same generation. */
    assert_int_equal(apply_ok(f->sb, DELETE("deep")), 3);
    assert_sound(f);
}

/* Later operations refer to what earlier ones of the same set made. */
static void test_operations_in_order(void **state)
{
    struct fixture *f = *state;

    (void)apply_ok(
        f->sb, MKDIR("a"), PUT("a/b", "B"), PUT("a/d", "D"), MOVE("a", "c"), DELETE("c/d"));
    assert_true(is_file(f, "c/b", "B"));
    assert_false(exists(f, "a"));
    assert_false(exists(f, "c/d"));
    assert_int_equal(manifest_rows(f, NULL), 2);
    assert_sound(f);
    /* Content that was staged by this very set is copied and edited. */
    (void)apply_ok(f->sb, PUT("x", "hello world"), COPY("x", "y"), EDIT("y", "world", "there"),
        COPY("y", "z"), DELETE("y"));
    assert_true(is_file(f, "x", "hello world"));
    assert_true(is_file(f, "z", "hello there"));
    assert_false(exists(f, "y"));
    assert_sound(f);
}

/* Each row: a tree is made, a set of moves is applied, some files must be where they belong. */
static void test_moves(void **state)
{
    struct fixture *f = *state;

    /* A directory keeps everything in it, known or not. */
    (void)apply_ok(f->sb, PUT("d/one", "1"), PUT("d/sub/two", "2"), PUT("e/three", "3"));
    program_writes(f, "d/unknown", "u");
    (void)apply_ok(f->sb, MOVE("d", "moved/d"));
    assert_true(is_file(f, "moved/d/one", "1"));
    assert_true(is_file(f, "moved/d/sub/two", "2"));
    assert_true(is_file(f, "moved/d/unknown", "u"));
    (void)apply_ok(f->sb, DELETE_TREE("moved/d/unknown"));
    assert_sound(f);
    /* Two names are swapped. */
    (void)apply_ok(f->sb, MOVE("moved", "tmp"), MOVE("e", "moved"), MOVE("tmp", "e"));
    assert_true(is_file(f, "moved/three", "3"));
    assert_true(is_file(f, "e/d/sub/two", "2"));
    assert_false(exists(f, "tmp"));
    assert_sound(f);
    /* A child leaves a directory that is deleted after. */
    (void)apply_ok(f->sb, MOVE("e/d/one", "kept"), DELETE_TREE("e"));
    assert_true(is_file(f, "kept", "1"));
    assert_false(exists(f, "e"));
    assert_sound(f);
    /* Into a directory that is deleted after: gone with it. */
    (void)apply_ok(f->sb, MOVE("kept", "moved/kept"), DELETE_TREE("moved"));
    assert_false(exists(f, "kept"));
    assert_int_equal(manifest_rows(f, NULL), 0);
    assert_sound(f);
    /* Over a file, and a new file under the old name (how editors save with a backup). */
    (void)apply_ok(f->sb, PUT("t", "old"), PUT("t~", "older"));
    (void)apply_ok(f->sb, MOVE("t", "t~"), PUT("t", "new"));
    assert_true(is_file(f, "t", "new"));
    assert_true(is_file(f, "t~", "old"));
    /* A child takes the place of its parent. */
    (void)apply_ok(f->sb, PUT("p/q", "Q"));
    (void)apply_ok(f->sb, MOVE("p/q", "q2"), DELETE("p"), MOVE("q2", "p"));
    assert_true(is_file(f, "p", "Q"));
    assert_sound(f);
    /* Parent and child move apart, whichever is named first. */
    (void)apply_ok(f->sb, PUT("u/v/w", "W"), PUT("u/x", "X"));
    (void)apply_ok(f->sb, MOVE("u/v", "v2"), MOVE("u", "u2"));
    assert_true(is_file(f, "v2/w", "W"));
    assert_true(is_file(f, "u2/x", "X"));
    (void)apply_ok(f->sb, MOVE("v2", "u2/v"));
    (void)apply_ok(f->sb, MOVE("u2", "u3"), MOVE("u3/v", "v3"), MOVE("u3/x", "x3"));
    assert_true(is_file(f, "v3/w", "W"));
    assert_true(is_file(f, "x3", "X"));
    assert_false(exists(f, "u3/v"));
    assert_sound(f);
    apply_refused(f->sb, PROTO_PATH_CONFLICT, MKDIR("m"), MOVE("m", "m/n"));
    assert_false(exists(f, "m"));
}

static void test_kinds_in_the_way(void **state)
{
    struct fixture *f = *state;

    (void)apply_ok(f->sb, PUT("file", "f"), PUT("dir/in", "i"), MKDIR("empty"));
    uint64_t was = generation(f);
    /* Files and directories never replace each other by accident. */
    apply_refused(f->sb, PROTO_PATH_CONFLICT, PUT("dir", "x"));
    apply_refused(f->sb, PROTO_PATH_CONFLICT, PUT("empty", "x"));
    apply_refused(f->sb, PROTO_PATH_CONFLICT, PUT("file/in", "x"));
    apply_refused(f->sb, PROTO_PATH_CONFLICT, MKDIR("file"));
    apply_refused(f->sb, PROTO_PATH_CONFLICT, DELETE("dir"));
    apply_refused(f->sb, PROTO_PATH_CONFLICT, MOVE("file", "dir"));
    apply_refused(f->sb, PROTO_FILE_NOT_FOUND, MOVE("nothing", "dir/x"));
    apply_refused(f->sb, PROTO_FILE_NOT_FOUND, CHMOD("nothing", 0600));
    /* The whole set is refused, and nothing of it is left. */
    apply_refused(
        f->sb, PROTO_PATH_CONFLICT, PUT("good", "g"), PUT("file", "changed"), PUT("dir", "x"));
    assert_false(exists(f, "good"));
    assert_true(is_file(f, "file", "f"));
    assert_int_equal(generation(f), was);
    assert_sound(f);
    /* Deleted first they do. */
    (void)apply_ok(f->sb, DELETE_TREE("dir"), PUT("dir", "now a file"), DELETE("file"),
        PUT("file/in", "now a directory"));
    assert_true(is_file(f, "dir", "now a file"));
    assert_true(is_file(f, "file/in", "now a directory"));
    assert_sound(f);
}

static void test_modes_and_links(void **state)
{
    struct fixture *f = *state;
    char name[512], target[64] = "";
    struct stat st;

    (void)apply_ok(f->sb, {.kind = CHANGE_PUT, .path = "run", .text = "#!", .mode = 0755},
        {.kind = CHANGE_PUT, .path = "secret", .text = "s", .mode = 0007},
        LINK("link", "/etc/passwd"));
    assert_int_equal(stat(at(f, "run", name), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0755);
    assert_int_equal(stat(at(f, "secret", name), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0407);
    assert_true(readlink(at(f, "link", name), target, sizeof target - 1) > 0);
    assert_string_equal(target, "/etc/passwd");
    /* 0 keeps the mode; an edit does too. */
    (void)apply_ok(f->sb, PUT("run", "#!/bin/sh"));
    (void)apply_ok(f->sb, EDIT("run", "sh", "bash"));
    assert_true(is_file(f, "run", "#!/bin/bash"));
    assert_int_equal(stat(at(f, "run", name), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0755);
    (void)apply_ok(f->sb, CHMOD("run", 0600), MKDIR("d"), CHMOD("d", 0));
    assert_int_equal(stat(at(f, "run", name), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(stat(at(f, "d", name), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    /* A symlink is replaced by a file, never followed. */
    (void)apply_ok(f->sb, PUT("link", "mine"));
    assert_int_equal(lstat(at(f, "link", name), &st), 0);
    assert_true(S_ISREG(st.st_mode));
    assert_sound(f);
}

static void test_edits(void **state)
{
    struct fixture *f = *state;

    (void)apply_ok(f->sb, PUT("t", "aaa b c c"));
    apply_refused(f->sb, PROTO_EDIT_NO_MATCH, EDIT("t", "zebra", "x"));
    apply_refused(f->sb, PROTO_EDIT_AMBIGUOUS, EDIT("t", "c", "x"));
    /* Overlapping occurrences are two. */
    apply_refused(f->sb, PROTO_EDIT_AMBIGUOUS, EDIT("t", "aa", "x"));
    apply_refused(f->sb, PROTO_FILE_NOT_FOUND, EDIT("none", "a", "b"));
    apply_refused(f->sb, PROTO_INVALID_VALUE, EDIT("t", "", "b"));
    (void)apply_ok(f->sb, EDIT("t", "b", ""), EDIT("t", "aaa", "A"));
    assert_true(is_file(f, "t", "A  c c"));
    assert_sound(f);
}

static void test_bases(void **state)
{
    struct fixture *f = *state;
    struct sandbox_apply_result res;
    struct err e = ERR_INIT;

    (void)apply_ok(f->sb, PUT("a", "1"), PUT("b", "2"), PUT("d/c", "3"));
    /* Every path that differs is named, and nothing is applied. */
    const struct row rows[] = {
        {.kind = CHANGE_PUT,
            .path = "a",
            .text = "new",
            .base_kind = CHANGE_BASE_HASH,
            .base = "1"},
        {.kind = CHANGE_PUT,
            .path = "b",
            .text = "new",
            .base_kind = CHANGE_BASE_HASH,
            .base = "x"},
        {.kind = CHANGE_PUT, .path = "d/c", .text = "new", .base_kind = CHANGE_BASE_ABSENT},
        {.kind = CHANGE_DELETE, .path = "gone", .base_kind = CHANGE_BASE_HASH, .base = "x"},
        {.kind = CHANGE_MKDIR, .path = "nodir", .base_kind = CHANGE_BASE_DIR},
    };
    assert_int_equal(apply_rows(f->sb, NULL, rows, 5, &res, &e), -EPROTO);
    assert_int_equal(e.refusal, PROTO_BASE_MISMATCH);
    assert_int_equal(res.conflict_count, 4);
    assert_string_equal(res.conflicts[0].path, "b");
    assert_true(res.conflicts[0].exists);
    assert_int_equal(res.conflicts[0].size, 1);
    struct hash two;
    hash_buf("2", 1, &two);
    assert_memory_equal(&res.conflicts[0].hash, &two, sizeof two);
    assert_string_equal(res.conflicts[2].path, "gone");
    assert_false(res.conflicts[2].exists);
    sandbox_apply_result_release(&res);
    assert_true(is_file(f, "a", "1"));
    /* What a program wrote counts, although the manifest does not know it yet. */
    program_writes(f, "a", "P");
    program_writes(f, "fresh", "P");
    apply_refused(f->sb, PROTO_BASE_MISMATCH,
        {.kind = CHANGE_PUT, .path = "a", .text = "n", .base_kind = CHANGE_BASE_HASH, .base = "1"});
    apply_refused(f->sb, PROTO_BASE_MISMATCH,
        {.kind = CHANGE_PUT, .path = "fresh", .text = "n", .base_kind = CHANGE_BASE_ABSENT});
    assert_int_equal(
        apply_ok(f->sb,
            {.kind = CHANGE_PUT,
                .path = "a",
                .text = "n",
                .base_kind = CHANGE_BASE_HASH,
                .base = "P"},
            {.kind = CHANGE_DELETE, .path = "fresh", .base_kind = CHANGE_BASE_HASH, .base = "P"}),
        2);
    assert_true(is_file(f, "a", "n"));
    assert_false(exists(f, "fresh"));
    assert_sound(f);
}

static void test_hash_and_space(void **state)
{
    struct fixture *f = *state;
    const struct row rows[] = {PUT("a", "content")};
    struct table_feed feed = {.rows = rows, .count = 1, .wrong_hash = true, .stall_fd = -1};
    struct changes_feed as_feed = table_as_feed(&feed);
    struct changes_begin begin = {.client = "", .if_generation = CHANGES_NO_GENERATION};
    struct sandbox_apply_result res;
    struct err e = ERR_INIT;
    char big[2001];

    assert_int_equal(sandbox_apply(f->sb, &begin, &as_feed, &res, &e), -EPROTO);
    assert_int_equal(e.refusal, PROTO_HASH_MISMATCH);
    assert_false(exists(f, "a"));
    assert_int_equal(staging_entries(f), 0);
    /* Limits of the workspace. */
    char id[SANDBOX_ID_BYTES];
    (void)snprintf(id, sizeof id, "%s", sandbox_id(f->sb));
    fixture_close(f);
    f->max_bytes = 3000;
    f->max_files = 3;
    fixture_open(f);
    assert_int_equal(sandbox_get(f->all, id, &f->sb, &e), 0);
    memset(big, 'x', 2000);
    big[2000] = '\0';
    (void)apply_ok(f->sb, PUT("a", big));
    apply_refused(f->sb, PROTO_NO_SPACE, PUT("b", big));
    (void)apply_ok(f->sb, PUT("a", big)); /* replacing needs no more room */
    apply_refused(f->sb, PROTO_NO_SPACE, PUT("b", "1"), PUT("c", "2"), PUT("d", "3"));
    assert_int_equal(staging_entries(f), 0);
    (void)apply_ok(f->sb, DELETE("a"), PUT("b", big));
    assert_sound(f);
}

/* Every component of a path is in turn a symlink that a program planted: nothing outside changes.
 */
static void test_planted_symlinks(void **state)
{
    struct fixture *f = *state;
    char outside[128], name[512], path[160];

    (void)snprintf(outside, sizeof outside, "%s/outside", f->dir);
    assert_int_equal(mkdir(outside, 0777), 0);
    assert_int_equal(chmod(outside, 0777), 0);
    (void)snprintf(path, sizeof path, "%s/sentinel", outside);
    assert_int_equal(io_write_file(path, "safe", 4, 0666, NULL), 0);
    static const char *const victims[] = {"one", "one/two", "one/two/three"};
    for (size_t i = 0; i < 3; i++) {
        (void)apply_ok(f->sb, PUT("one/two/three/sentinel", "v"));
        (void)apply_ok(f->sb, DELETE_TREE(victims[i]));
        assert_int_equal(symlink(outside, at(f, victims[i], name)), 0);
        apply_refused(f->sb, PROTO_PATH_CONFLICT, PUT("one/two/three/sentinel", "evil"));
        apply_refused(f->sb, PROTO_PATH_CONFLICT, PUT("x", "1"), PUT("one/two/three/new", "evil"));
        (void)apply_ok(f->sb, DELETE("one/two/three/sentinel"));
        assert_false(exists(f, "x"));
        assert_int_equal(unlink(at(f, victims[i], name)), 0);
    }
    /* The manifest says directory, the disk says symlink: found out while placing. */
    (void)apply_ok(f->sb, PUT("dir/in", "v"));
    assert_int_equal(rename(at(f, "dir", name), path), -1);
    char away[512];
    assert_int_equal(rename(at(f, "dir", name), at(f, "dir2", away)), 0);
    assert_int_equal(symlink(outside, at(f, "dir", name)), 0);
    apply_refused(f->sb, PROTO_PATH_CONFLICT, PUT("y", "1"), PUT("dir/sentinel", "evil"));
    apply_refused(f->sb, PROTO_PATH_CONFLICT, MKDIR("dir/made"));
    assert_false(exists(f, "y"));
    /* A symlink at the very path is replaced; deleting it deletes the link. */
    assert_int_equal(symlink(path, at(f, "leaf", name)), 0);
    (void)apply_ok(f->sb, PUT("leaf", "mine"));
    (void)apply_ok(f->sb, DELETE("dir"));
    struct buf b;
    assert_int_equal(io_read_file(path, 100, &b, NULL), 0);
    assert_string_equal(buf_str(&b), "safe");
    buf_release(&b);
    struct stat st;
    (void)snprintf(path, sizeof path, "%s/new", outside);
    assert_int_equal(lstat(path, &st), -1);
    (void)snprintf(path, sizeof path, "%s/made", outside);
    assert_int_equal(lstat(path, &st), -1);
}

struct racer {
    const struct fixture *f;
    const char *outside;
    atomic_bool stop;
};

/* A program that swaps a directory for a symlink to the outside and back, as fast as it can. */
static void *swap_for_ever(void *arg)
{
    struct racer *r = arg;
    char dir[512], away[512];

    (void)at(r->f, "dir", dir);
    (void)at(r->f, "away", away);
    while (!atomic_load(&r->stop)) {
        if (rename(dir, away) == 0 && symlink(r->outside, dir) == 0)
            (void)unlink(dir);
        (void)rename(away, dir);
    }
    return NULL;
}

static void test_swapped_while_applying(void **state)
{
    struct fixture *f = *state;
    char outside[128], path[160];
    struct racer racer = {.f = f, .outside = outside};
    pthread_t thread;
    struct buf b;
    unsigned applied = 0;

    (void)snprintf(outside, sizeof outside, "%s/outside", f->dir);
    assert_int_equal(mkdir(outside, 0777), 0);
    assert_int_equal(chmod(outside, 0777), 0);
    (void)snprintf(path, sizeof path, "%s/sentinel", outside);
    assert_int_equal(io_write_file(path, "safe", 4, 0666, NULL), 0);
    (void)apply_ok(f->sb, PUT("dir/sentinel", "first"));
    atomic_init(&racer.stop, false);
    assert_int_equal(pthread_create(&thread, NULL, swap_for_ever, &racer), 0);
    for (int i = 0; i < 300; i++) {
        const struct row rows[] = {PUT("dir/sentinel", i % 2 ? "evil" : "worse"),
            PUT("dir/made", "evil"),
            i % 3 ? (struct row)DELETE("dir/made") : (struct row)CHMOD("dir/sentinel", 0600),
            EDIT("dir/sentinel", i % 2 ? "evil" : "worse", "edited")};
        struct sandbox_apply_result res;
        applied += apply_rows(f->sb, NULL, rows, 4, &res, NULL) == 0;
        sandbox_apply_result_release(&res);
    }
    atomic_store(&racer.stop, true);
    (void)pthread_join(thread, NULL);
    print_message("%u of 300 sets were applied\n", applied);
    assert_int_equal(io_read_file(path, 100, &b, NULL), 0);
    assert_string_equal(buf_str(&b), "safe");
    buf_release(&b);
    (void)snprintf(path, sizeof path, "%s/made", outside);
    struct stat st;
    assert_int_equal(lstat(path, &st), -1);
    assert_int_equal(stat(outside, &st), 0);
    assert_int_equal(st.st_nlink, 2);
    assert_int_equal(staging_entries(f), 0);
    /* Whatever is left is found and adopted, and then all agree again. */
    struct sandbox_mounts mounts;
    struct sandbox_run_changes changes;
    assert_int_equal(sandbox_run_enter(f->sb, &mounts, NULL), 0);
    sandbox_mounts_release(&mounts);
    assert_int_equal(sandbox_run_leave(f->sb, &changes, NULL), 0);
    sandbox_run_changes_release(&changes);
    assert_sound(f);
}

/* Things a program can leave under a name. */
static void test_odd_entries(void **state)
{
    struct fixture *f = *state;
    char name[512], other[512];
    struct stat st;

    /* A FIFO neither blocks nor stays. */
    assert_int_equal(mkfifo(at(f, "fifo", name), 0666), 0);
    (void)apply_ok(f->sb, PUT("fifo", "file"));
    assert_true(is_file(f, "fifo", "file"));
    assert_int_equal(mkfifo(at(f, "fifo2", name), 0666), 0);
    apply_refused(f->sb, PROTO_BASE_MISMATCH,
        {.kind = CHANGE_PUT, .path = "fifo2", .text = "x", .base_kind = CHANGE_BASE_ABSENT});
    /* A hard link to another file is replaced, not written through. */
    (void)apply_ok(f->sb, PUT("linked", "precious"));
    assert_int_equal(link(at(f, "linked", name), at(f, "alias", other)), 0);
    (void)apply_ok(f->sb, PUT("alias", "changed"));
    assert_true(is_file(f, "linked", "precious"));
    assert_true(is_file(f, "alias", "changed"));
    /* Without rights for their owner. */
    program_mkdir(f, "locked");
    program_writes(f, "locked/in", "secret");
    program_writes(f, "blind", "b");
    assert_int_equal(chmod(at(f, "locked/in", name), 0), 0);
    assert_int_equal(chmod(at(f, "locked", name), 0), 0);
    assert_int_equal(chmod(at(f, "blind", name), 0), 0);
    apply_refused(f->sb, PROTO_BASE_MISMATCH,
        {.kind = CHANGE_PUT,
            .path = "locked/in",
            .text = "x",
            .base_kind = CHANGE_BASE_HASH,
            .base = "y"});
    assert_int_equal(chmod(at(f, "locked", name), 0), 0);
    (void)apply_ok(f->sb, PUT("locked/new", "n"), PUT("blind", "seen"));
    assert_true(is_file(f, "locked/new", "n"));
    assert_true(is_file(f, "blind", "seen"));
    /* A whole tree of them goes. */
    assert_int_equal(chmod(at(f, "locked", name), 0), 0);
    (void)apply_ok(f->sb, DELETE_TREE("locked"), DELETE("fifo2"));
    assert_int_equal(lstat(at(f, "locked", name), &st), -1);
}

/* A directory that a program removed is made again, one that it made is adopted. */
static void test_stale_manifest(void **state)
{
    struct fixture *f = *state;
    char name[512];

    (void)apply_ok(f->sb, PUT("pkg/a", "1"));
    assert_int_equal(unlink(at(f, "pkg/a", name)), 0);
    assert_int_equal(rmdir(at(f, "pkg", name)), 0);
    (void)apply_ok(f->sb, PUT("pkg/b", "2"));
    assert_true(is_file(f, "pkg/b", "2"));
    program_mkdir(f, "made");
    (void)apply_ok(f->sb, PUT("made/in", "3"));
    (void)apply_ok(f->sb, DELETE("pkg/a"), MKDIR("made"));
    program_writes(f, "unseen", "u");
    (void)apply_ok(f->sb, MOVE("unseen", "seen"));
    (void)apply_ok(f->sb, CHMOD("pkg/b", 0640));
    /* Only the removal of pkg/a is news to a scan. */
    struct sandbox_mounts mounts;
    struct sandbox_run_changes changes;
    assert_int_equal(sandbox_run_enter(f->sb, &mounts, NULL), 0);
    sandbox_mounts_release(&mounts);
    assert_int_equal(sandbox_run_leave(f->sb, &changes, NULL), 0);
    assert_int_equal(changes.total, 1);
    assert_string_equal(changes.files[0].path, "pkg/a");
    assert_int_equal(changes.files[0].change, SANDBOX_DELETED);
    sandbox_run_changes_release(&changes);
    assert_sound(f);
}

static const char *in_cache(const struct fixture *f, const char *path, char out[512])
{
    (void)snprintf(out, 512, "%s/cache/%s/%s", f->data, sandbox_id(f->sb), path);
    return out;
}

/* Bytecode of what left its name goes, that of its neighbours stays. Each row: a set, and which of
 * the two compiled files of a.py, and of ab.py beside it, is left. */
static void test_bytecode_forgotten(void **state)
{
    static const struct {
        struct row row;
        bool a_left, ab_left;
    } cases[] = {
        {PUT("p/a.py", "changed"), true, true}, /* its time tells */
        {DELETE("p/a.py"), false, true},
        {MOVE("p/a.py", "p/c.py"), false, true},
        {MOVE("p/ab.py", "p/a.py"), false, false},
        {DELETE_TREE("p"), false, false},
        {MOVE("p", "q"), false, false},
    };
    static const char *const dirs[] = {"pyc", "pyc/workspace", "pyc/workspace/p"};
    struct fixture *f = *state;
    struct sandbox_mounts mounts;
    char name[512];
    struct stat st;

    assert_int_equal(sandbox_run_enter(f->sb, &mounts, NULL), 0);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        (void)apply_ok(f->sb, DELETE_TREE("q"), PUT("p/a.py", "a"), PUT("p/ab.py", "ab"));
        for (size_t d = 0; d < 3; d++) {
            (void)mkdir(in_cache(f, dirs[d], name), 0755);
            assert_int_equal(chown(name, mounts.uid, mounts.gid), 0);
        }
        assert_int_equal(io_write_file(in_cache(f, "pyc/workspace/p/a.cpython-311.pyc", name), "x",
                             1, 0644, NULL),
            0);
        assert_int_equal(io_write_file(in_cache(f, "pyc/workspace/p/ab.cpython-311.pyc", name), "x",
                             1, 0644, NULL),
            0);
        struct sandbox_apply_result res;
        assert_int_equal(apply_rows(f->sb, NULL, &cases[i].row, 1, &res, NULL), 0);
        sandbox_apply_result_release(&res);
        assert_int_equal(stat(in_cache(f, "pyc/workspace/p/a.cpython-311.pyc", name), &st) == 0,
            cases[i].a_left);
        assert_int_equal(stat(in_cache(f, "pyc/workspace/p/ab.cpython-311.pyc", name), &st) == 0,
            cases[i].ab_left);
    }
    sandbox_mounts_release(&mounts);
    sandbox_run_abandon(f->sb);
}

/* ---- the framed wire, with deltas */

struct wire {
    struct buf b;
    size_t at;
};

static ssize_t read_wire(void *ctx, void *data, size_t len)
{
    struct wire *w = ctx;
    size_t left = w->b.len - w->at, n = len < left ? len : left;

    memcpy(data, w->b.data + w->at, n);
    w->at += n;
    return (ssize_t)n;
}

static int to_buf(void *ctx, const void *data, size_t len)
{
    return buf_add(ctx, data, len);
}

static int temporary(const void *data, size_t len)
{
    int fd = open("/tmp", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(io_write_all(fd, data, len), 0);
    return fd;
}

enum { AND_COPY = 1, OPEN = 2 };

/* Send a delta from `from` to `to` for big.bin; `base` is what it claims to be made for. */
static enum proto_error send_patch(
    struct fixture *f, const char *from, const char *to, size_t len, const char *base, unsigned how)
{
    struct changes_begin begin = {.client = "", .if_generation = CHANGES_NO_GENERATION};
    struct change_op op = {.kind = CHANGE_PATCH,
        .path = "big.bin",
        .base_kind = CHANGE_BASE_HASH,
        .size = len,
        .has_hash = true};
    struct wire wire = {.at = 0};
    struct delta_sig *sig = NULL;
    struct delta_result made;
    struct hash unused;
    struct buf delta;
    struct sandbox_apply_result res;
    struct err e = ERR_INIT;
    int from_fd = temporary(from, len), to_fd = temporary(to, len);
    struct changes_writer *w = changes_writer_new();

    buf_init(&wire.b, 1 << 20);
    buf_init(&delta, 1 << 20);
    assert_int_equal(delta_sig_make(from_fd, len, true, &sig, &unused, &e), 0);
    assert_int_equal(delta_make(sig, to_fd, len, 1 << 20, to_buf, &delta, &made, &e), 0);
    delta_sig_free(made.sig);
    hash_buf(base, len, &op.base);
    hash_buf(to, len, &op.hash);
    op.content_len = how & OPEN ? CHANGE_LEN_UNKNOWN : delta.len;
    op.open = how & OPEN;
    op.has_hash = !op.open;
    assert_int_equal(changes_write_begin(w, &begin, &wire.b), 0);
    assert_int_equal(changes_write_op(w, &op, &wire.b), 0);
    assert_int_equal(changes_write_data(w, delta.data, delta.len, &wire.b), 0);
    if (how & OPEN)
        assert_int_equal(changes_write_data(w, op.hash.b, HASH_BYTES, &wire.b), 0);
    if (how & AND_COPY) {
        op = (struct change_op){.kind = CHANGE_COPY,
            .path = "big.bin",
            .to = "copy.bin",
            .size = len,
            .hash = op.hash,
            .has_hash = true};
        assert_int_equal(changes_write_op(w, &op, &wire.b), 0);
    }
    assert_int_equal(changes_write_end(w, &wire.b), 0);
    struct changes_reader *reader = changes_reader_new(read_wire, &wire);
    assert_int_equal(changes_read_begin(reader, &begin, &e), 0);
    struct changes_feed feed = changes_reader_feed(reader);
    int r = sandbox_apply(f->sb, &begin, &feed, &res, &e);
    sandbox_apply_result_release(&res);
    changes_reader_free(reader);
    changes_writer_free(w);
    delta_sig_free(sig);
    buf_release(&delta);
    buf_release(&wire.b);
    (void)close(from_fd);
    (void)close(to_fd);
    return r == 0 ? PROTO_OK : e.refusal ? e.refusal : PROTO_INTERNAL;
}

static void test_patches(void **state)
{
    struct fixture *f = *state;
    enum { LEN = 100000 };
    char *one = malloc(LEN + 1), *two = malloc(LEN + 1), *three = malloc(LEN + 1);
    char name[512];
    struct stat st;

    assert_true(one && two && three);
    for (size_t i = 0; i < LEN; i++)
        one[i] = (char)('a' + (i * 2654435761u >> 13) % 26);
    one[LEN] = '\0';
    memcpy(two, one, LEN + 1);
    memcpy(two + 50000, "INSERTED", 8);
    memcpy(three, two, LEN + 1);
    three[7] = '#';
    (void)apply_ok(f->sb, {.kind = CHANGE_PUT, .path = "big.bin", .text = one, .mode = 0755});
    /* The patched content can be copied in the same set. */
    assert_int_equal(send_patch(f, one, two, LEN, one, AND_COPY), PROTO_OK);
    assert_true(is_file(f, "big.bin", two));
    assert_true(is_file(f, "copy.bin", two));
    assert_int_equal(stat(at(f, "copy.bin", name), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0755);
    assert_sound(f);
    /* Against what is not there any more. */
    assert_int_equal(send_patch(f, one, three, LEN, one, 0), PROTO_BASE_MISMATCH);
    /* Against what a program wrote behind the manifest. */
    program_writes(f, "big.bin", one);
    assert_int_equal(send_patch(f, two, three, LEN, two, 0), PROTO_BASE_MISMATCH);
    assert_int_equal(send_patch(f, one, three, LEN, one, 0), PROTO_OK);
    assert_true(is_file(f, "big.bin", three));
    /* A delta made for something else than it says. */
    assert_int_equal(send_patch(f, one, two, LEN, three, 0), PROTO_HASH_MISMATCH);
    assert_int_equal(send_patch(f, one, two, LEN, three, OPEN), PROTO_HASH_MISMATCH);
    assert_true(is_file(f, "big.bin", three));
    /* One whose hash comes behind it. */
    (void)apply_ok(f->sb, DELETE("copy.bin"));
    assert_int_equal(send_patch(f, three, two, LEN, three, OPEN | AND_COPY), PROTO_OK);
    assert_true(is_file(f, "big.bin", two));
    assert_true(is_file(f, "copy.bin", two));
    assert_int_equal(send_patch(f, two, three, LEN, one, OPEN), PROTO_BASE_MISMATCH);
    assert_int_equal(send_patch(f, two, three, LEN, two, OPEN), PROTO_OK);
    assert_true(is_file(f, "big.bin", three));
    assert_sound(f);
    free(one);
    free(two);
    free(three);
}

/* The workspaces' file system is not that of the data: staging lies beside them. */
static void test_other_file_system(void **state)
{
    struct fixture f;
    char path[256], shm[64] = "/dev/shm/silt-test-XXXXXX";
    struct sandbox_spec spec = {.image = "host"};
    struct stat st;

    (void)state;
    fixture_init(&f);
    fixture_close(&f);
    if (stat("/dev/shm", &st) < 0 || !mkdtemp(shm)) {
        fixture_release(&f);
        skip();
    }
    (void)snprintf(f.work, sizeof f.work, "%s", shm);
    f.data[strlen(f.data) - 1] = '2';
    f.db[strlen(f.db) - 1] = '2';
    fixture_open(&f);
    assert_int_equal(sandbox_create(f.all, &spec, &f.sb, NULL), 0);
    (void)apply_ok(f.sb, PUT("a", "1"), PUT("d/b", "2"));
    (void)apply_ok(f.sb, MOVE("d", "e"), PUT("a", "3"), DELETE("e/b"));
    assert_true(is_file(&f, "a", "3"));
    (void)snprintf(path, sizeof path, "%s/.silt/staging/%s", shm, sandbox_id(f.sb));
    struct stat data, shared;
    if (stat(f.data, &data) == 0 && stat(shm, &shared) == 0 && data.st_dev != shared.st_dev)
        assert_int_equal(stat(path, &st), 0);
    assert_int_equal(sandbox_delete(f.sb, NULL), 0);
    assert_int_equal(stat(path, &st), -1);
    fixture_close(&f);
    int dir = open("/dev/shm", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(tree_remove_at(dir, strrchr(shm, '/') + 1, NULL), 0);
    (void)close(dir);
    fixture_release(&f);
}

/* The disk is really full: refused, nothing changed, nothing left; afterwards there is room again.
 */
static void test_disk_full(void **state)
{
    struct fixture f;
    struct sandbox_spec spec = {.image = "host"};
    enum { LEN = 900000 };
    char *big = malloc(LEN + 1);

    (void)state;
    assert_non_null(big);
    memset(big, 'x', LEN);
    big[LEN] = '\0';
    fixture_init(&f);
    fixture_close(&f);
    f.data[strlen(f.data) - 1] = '2';
    f.db[strlen(f.db) - 1] = '2';
    f.work[strlen(f.work) - 1] = '2';
    assert_int_equal(mkdir(f.work, 0755), 0);
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", f.work, "tmpfs", 0, "size=1m,nr_inodes=60") < 0) {
        free(big);
        fixture_release(&f);
        skip();
    }
    fixture_open(&f);
    assert_int_equal(sandbox_create(f.all, &spec, &f.sb, NULL), 0);
    (void)apply_ok(f.sb, PUT("big", big), PUT("d/small", "s"));
    apply_refused(f.sb, PROTO_NO_SPACE, DELETE("d/small"), PUT("more", big));
    assert_true(is_file(&f, "d/small", "s"));
    /* Inodes run out as well. */
    static char paths[100][16];
    static struct row rows[100];
    struct sandbox_apply_result res;
    struct err e = ERR_INIT;
    for (int i = 0; i < 100; i++) {
        (void)snprintf(paths[i], sizeof paths[i], "n%d", i);
        rows[i] = (struct row)PUT(paths[i], "");
    }
    assert_int_equal(apply_rows(f.sb, NULL, rows, 100, &res, &e), -EPROTO);
    assert_int_equal(e.refusal, PROTO_NO_SPACE);
    assert_int_equal(apply_rows(f.sb, NULL, rows, 20, &res, &e), 0);
    (void)apply_ok(f.sb, DELETE("big"));
    (void)apply_ok(f.sb, PUT("more", big));
    assert_int_equal(sandbox_delete(f.sb, NULL), 0);
    fixture_close(&f);
    assert_int_equal(umount(f.work), 0);
    fixture_release(&f);
    free(big);
}

/* Python takes bytecode for current when size and whole second are the same. */
static void test_mtime_seconds(void **state)
{
    struct fixture *f = *state;
    char name[512];
    struct stat st;
    time_t last = 0;

    for (int i = 0; i < 5; i++) {
        char text[2] = {(char)('a' + i), '\0'};
        (void)apply_ok(f->sb, PUT("same", text));
        assert_int_equal(stat(at(f, "same", name), &st), 0);
        assert_true(st.st_mtim.tv_sec > last);
        last = st.st_mtim.tv_sec;
    }
    /* Another size and no Python: the plain time of application. */
    (void)apply_ok(f->sb, PUT("same", "longer"));
    assert_int_equal(stat(at(f, "same", name), &st), 0);
    assert_true(st.st_mtim.tv_sec < last);
    /* Python: a, longer, a again must not share a second with the first. */
    (void)apply_ok(f->sb, PUT("m.py", "a"));
    assert_int_equal(stat(at(f, "m.py", name), &st), 0);
    last = st.st_mtim.tv_sec;
    (void)apply_ok(f->sb, PUT("m.py", "longer"));
    (void)apply_ok(f->sb, PUT("m.py", "b"));
    assert_int_equal(stat(at(f, "m.py", name), &st), 0);
    assert_true(st.st_mtim.tv_sec > last);
    assert_sound(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_puts_and_deletes, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_operations_in_order, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_moves, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_kinds_in_the_way, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_modes_and_links, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_edits, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_bases, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_hash_and_space, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_planted_symlinks, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_swapped_while_applying, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_odd_entries, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_stale_manifest, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_mtime_seconds, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_patches, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_bytecode_forgotten, fixture_setup, fixture_teardown),
        cmocka_unit_test(test_other_file_system),
        cmocka_unit_test(test_disk_full),
    };

    /* Warnings about programs that interfere are what these tests provoke. */
    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
