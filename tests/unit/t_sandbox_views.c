/* SPDX-License-Identifier: MIT */
/*
 * Snapshots and what becomes of upper layers, without containers: what an overlay would leave in
 * the upper layer is made by hand.
 */
#include "tests/unit/sandbox_fixture.h"

#include <dirent.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include "server/sandbox_views.h"
#include "server/view.h"

#include "shared/banned.h"

/* A file beneath a directory that is held: "" if there is none. */
static const char *text_of(int dir, const char *path, char out[256])
{
    CLEANUP(fd_closep) int fd = openat(dir, path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : io_read_full(fd, out, 255);

    out[n > 0 ? n : 0] = '\0';
    return out;
}
#define assert_text(dir, path, expected)                                                           \
    do {                                                                                           \
        char text_[256];                                                                           \
        assert_string_equal(text_of(dir, path, text_), expected);                                  \
    } while (0)

static void own(const struct view *v, const char *path)
{
    struct tree_identity who = v->ws->identity;

    assert_int_equal(fchownat(v->upper_fd, path, who.uid, who.gid, AT_SYMLINK_NOFOLLOW), 0);
}

/* What an overlay does when something is written in a folder. */
static void upper_dir(const struct view *v, const char *path, mode_t mode, bool opaque)
{
    char name[64];

    if (mkdirat(v->upper_fd, path, mode) < 0)
        assert_int_equal(errno, EEXIST);
    own(v, path);
    if (!opaque)
        return;
    (void)snprintf(name, sizeof name, "/proc/self/fd/%d/%s", v->upper_fd, path);
    assert_int_equal(
        setxattr(name, geteuid() ? "user.overlay.opaque" : "trusted.overlay.opaque", "y", 1, 0), 0);
}

static void upper_file(const struct view *v, const char *path, const char *text, mode_t mode)
{
    CLEANUP(fd_closep)
    int fd = openat(v->upper_fd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(io_write_all(fd, text, strlen(text)), 0);
    own(v, path);
    assert_int_equal(fchmod(fd, mode), 0);
}

static void upper_whiteout(const struct view *v, const char *path)
{
    assert_int_equal(mknodat(v->upper_fd, path, S_IFCHR, makedev(0, 0)), 0);
}

static struct view *open_view(struct fixture *f, const char *run, uint64_t *ret_generation)
{
    struct sandbox_mounts mounts;
    struct view *v = NULL;
    struct err e = ERR_INIT;

    if (sandbox_run_enter(f->sb, &mounts, &e) < 0 ||
        sandbox_view_open(f->sb, run, &v, ret_generation, &e) < 0)
        fail_msg("%s", e.msg);
    sandbox_mounts_release(&mounts);
    upper_dir(v, "w", 0700, false);
    return v;
}

struct outcome {
    bool kept;
    uint64_t generation;
    size_t total, conflicts;
    char first[64], reason[ERR_MSG_BYTES], changes[512];
};

static struct outcome leave(struct fixture *f, struct view *v, bool keep)
{
    static const char *const names[] = {"+", "~", "-"};
    struct sandbox_run_changes changes;
    struct sandbox_view_end end;
    struct outcome ret = {.kept = false};
    struct err e = ERR_INIT;
    size_t used = 0;

    if (sandbox_view_leave(f->sb, v, keep, "run_test", &changes, &end, &e) < 0)
        fail_msg("%s", e.msg);
    ret.kept = end.kept;
    ret.generation = changes.generation;
    ret.total = changes.total;
    ret.conflicts = end.conflict_count;
    (void)snprintf(ret.reason, sizeof ret.reason, "%s", end.reason);
    if (end.conflict_count)
        (void)snprintf(ret.first, sizeof ret.first, "%s", end.conflicts[0]);
    for (size_t i = 0; i < changes.count && used < sizeof ret.changes; i++)
        used += (size_t)snprintf(ret.changes + used, sizeof ret.changes - used, "%s%s%s",
            i ? " " : "", names[changes.files[i].change], changes.files[i].path);
    sandbox_run_changes_release(&changes);
    sandbox_view_end_release(&end);
    sandbox_view_close(f->sb, v);
    return ret;
}

static ino_t inode(const struct view *v, const char *path)
{
    struct stat st;

    assert_int_equal(fstatat(v->snapshot->fd, path, &st, AT_SYMLINK_NOFOLLOW), 0);
    return st.st_ino;
}

/* ---- snapshots */

static void test_never_changes(void **state)
{
    struct fixture f;
    uint64_t generation;
    char name[512];
    struct stat live;
    (void)state;

    fixture_init(&f);
    apply_ok(f.sb, PUT("a", "one"), PUT("d/b", "b"), LINK("l", "/etc/passwd"), CHMOD("d/b", 0755));
    struct view *v = open_view(&f, "run_1", &generation);
    int dir = v->snapshot->fd;
    assert_int_equal(generation, 1);
    assert_text(dir, "w/a", "one");
    assert_int_equal(stat(at(&f, "d/b", name), &live), 0);
    struct stat copy;
    assert_int_equal(fstatat(dir, "w/d/b", &copy, 0), 0);
    assert_int_equal(copy.st_mode, live.st_mode);
    assert_int_equal(copy.st_uid, live.st_uid);
    assert_int_equal(copy.st_mtim.tv_nsec, live.st_mtim.tv_nsec);
    /* in place, as a live run does; by a change set; by a chmod of a change set */
    program_writes(&f, "a", "two");
    apply_ok(f.sb, PUT("d/b", "new"), PUT("e", "e"), DELETE("l"));
    apply_ok(f.sb, CHMOD("a", 0700));
    assert_text(dir, "w/a", "one");
    assert_text(dir, "w/d/b", "b");
    assert_int_equal(faccessat(dir, "w/e", F_OK, 0), -1);
    assert_int_equal(fstatat(dir, "w/l", &copy, AT_SYMLINK_NOFOLLOW), 0);
    assert_int_equal(fstatat(dir, "w/a", &copy, 0), 0);
    assert_int_equal(copy.st_mode & 0777, 0644);
    /* another one for the next generation, which shares what is the same */
    struct view *next = open_view(&f, "run_2", &generation);
    assert_ptr_not_equal(next->snapshot, v->snapshot);
    assert_text(next->snapshot->fd, "w/d/b", "new");
    assert_text(next->snapshot->fd, "w/a", "two");
    assert_text(dir, "w/a", "one");
    assert_true(leave(&f, next, false).total == 0);
    assert_true(leave(&f, v, false).total == 0);
    fixture_release(&f);
}

static void test_shared_and_followed(void **state)
{
    struct fixture f;
    uint64_t generation;
    (void)state;

    fixture_init(&f);
    apply_ok(f.sb, PUT("a", "a"), PUT("same", "s"), PUT("d/gone", "g"), PUT("kind", "file"));
    struct view *v = open_view(&f, "run_1", &generation), *w = open_view(&f, "run_2", &generation);
    assert_ptr_equal(v->snapshot, w->snapshot);
    const struct snapshot *kept = v->snapshot;
    ino_t same = inode(v, "w/same"), a = inode(v, "w/a");
    (void)leave(&f, v, false);
    (void)leave(&f, w, false);
    apply_ok(f.sb, PUT("a", "b"), DELETE_TREE("d"), DELETE("kind"), PUT("kind/in", "dir"));
    v = open_view(&f, "run_3", &generation);
    assert_int_equal(generation, 2);
    assert_ptr_equal(v->snapshot, kept); /* idle: brought up to date where it is */
    assert_int_equal(inode(v, "w/same"), same);
    assert_int_not_equal(inode(v, "w/a"), a);
    assert_text(v->snapshot->fd, "w/a", "b");
    assert_text(v->snapshot->fd, "w/kind/in", "dir");
    assert_int_equal(faccessat(v->snapshot->fd, "w/d", F_OK, 0), -1);
    /* in use: another one of links, and what changes there does not change here */
    apply_ok(f.sb, PUT("a", "c"));
    w = open_view(&f, "run_4", &generation);
    assert_ptr_not_equal(w->snapshot, v->snapshot);
    assert_int_equal(inode(w, "w/same"), same);
    assert_text(v->snapshot->fd, "w/a", "b");
    assert_text(w->snapshot->fd, "w/a", "c");
    (void)leave(&f, v, false);
    (void)leave(&f, w, false);
    /* nobody uses one: they can go, and the next is made anew */
    assert_int_equal(sandbox_views_expire(f.all, io_now_ns()), 0);
    assert_int_equal(sandbox_views_expire(f.all, io_now_ns() + SANDBOX_SNAPSHOT_IDLE_NS), 1);
    v = open_view(&f, "run_5", &generation);
    assert_text(v->snapshot->fd, "w/a", "c");
    (void)leave(&f, v, false);
    fixture_release(&f);
}

static void test_bounds(void **state)
{
    struct fixture f;
    struct view *held[SANDBOX_SNAPSHOTS_MAX], *v = NULL;
    uint64_t generation;
    char text[32], run[32];
    struct err e = ERR_INIT;
    (void)state;

    fixture_init(&f);
    for (size_t i = 0; i < SANDBOX_SNAPSHOTS_MAX; i++) {
        (void)snprintf(text, sizeof text, "%zu", i);
        apply_ok(f.sb, PUT("a", text));
        (void)snprintf(run, sizeof run, "run_%zu", i);
        held[i] = open_view(&f, run, &generation);
    }
    apply_ok(f.sb, PUT("a", "more"));
    assert_int_equal(sandbox_view_open(f.sb, "run_x", &v, &generation, &e), -EPROTO);
    assert_int_equal(e.refusal, PROTO_BUSY);
    for (size_t i = 0; i < SANDBOX_SNAPSHOTS_MAX; i++) {
        (void)snprintf(text, sizeof text, "%zu", i);
        assert_text(held[i]->snapshot->fd, "w/a", text);
        (void)leave(&f, held[i], false);
    }
    fixture_close(&f);
    f.max_bytes = 1000;
    fixture_open(&f);
    struct sandbox_spec spec = {.language = "", .image = "host"};
    assert_int_equal(sandbox_create(f.all, &spec, &f.sb, &e), 0);
    char half[601];
    memset(half, 'x', sizeof half - 1);
    half[600] = '\0';
    apply_ok(f.sb, PUT("half", half));
    assert_int_equal(sandbox_view_open(f.sb, "run_y", &v, &generation, &e), -EPROTO);
    assert_int_equal(e.refusal, PROTO_NO_SPACE);
    fixture_release(&f);
}

/* ---- what becomes of an upper layer */

static void test_commit(void **state)
{
    struct fixture f;
    uint64_t generation;
    (void)state;

    fixture_init(&f);
    apply_ok(f.sb, PUT("a", "a"), PUT("d/x", "x"), PUT("d/y/z", "z"), PUT("o/1", "1"),
        PUT("o/2", "2"), PUT("touched", "t"), PUT("mode", "m"), PUT("tofile/in", "i"),
        PUT("todir", "f"), LINK("l", "a"));
    struct view *v = open_view(&f, "run_1", &generation);
    upper_file(v, "w/a", "changed", 0644);
    upper_whiteout(v, "w/d");
    upper_whiteout(v, "w/never-was");
    upper_dir(v, "w/o", 0755, true);
    upper_file(v, "w/o/2", "22", 0644);
    upper_file(v, "w/touched", "t", 0644);
    upper_file(v, "w/mode", "m", 0755);
    upper_file(v, "w/tofile", "now a file", 0644);
    upper_dir(v, "w/todir", 0755, true);
    upper_dir(v, "w/todir/deep", 0700, false);
    upper_file(v, "w/todir/deep/new", "n", 0640);
    assert_int_equal(symlinkat("/etc/shadow", v->upper_fd, "w/hostile"), 0);
    own(v, "w/hostile");
    upper_whiteout(v, "w/l");
    assert_int_equal(mknodat(v->upper_fd, "w/fifo", S_IFIFO | 0644, 0), 0);
    upper_file(v, "w/suid", "s", 06755);
    upper_file(v, "w/\xff\n", "bytes", 0644);
    struct outcome got = leave(&f, v, true);
    assert_string_equal(got.reason, "");
    assert_true(got.kept);
    assert_int_equal(got.generation, 2);
    assert_string_equal(got.changes,
        "~a -d/x -d/y/z +hostile -l ~mode -o/1 ~o/2 +suid -todir +todir/deep/new +tofile "
        "-tofile/in +\xff\n");
    assert_true(is_file(&f, "a", "changed"));
    assert_false(exists(&f, "d"));
    assert_false(exists(&f, "o/1"));
    assert_true(is_file(&f, "o/2", "22"));
    assert_true(is_file(&f, "tofile", "now a file"));
    assert_true(is_file(&f, "todir/deep/new", "n"));
    assert_true(is_file(&f, "\xff\n", "bytes"));
    assert_false(exists(&f, "fifo"));
    assert_false(exists(&f, "l"));
    char name[512];
    struct stat st;
    assert_int_equal(stat(at(&f, "suid", name), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0755);
    assert_int_equal(stat(at(&f, "mode", name), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0755);
    /* The manifest says what is there: nothing is found by looking. */
    struct sandbox_mounts mounts;
    struct sandbox_run_changes changes;
    assert_int_equal(sandbox_run_enter(f.sb, &mounts, NULL), 0);
    sandbox_mounts_release(&mounts);
    assert_int_equal(sandbox_run_leave(f.sb, &changes, NULL), 0);
    assert_int_equal(changes.total, 0);
    assert_int_equal(changes.generation, 2);
    sandbox_run_changes_release(&changes);
    fixture_release(&f);
}

static void test_conflicts(void **state)
{
    static const struct {
        const char *what;
        struct row meanwhile;
        const char *first; /* NULL: none */
    } rows[] = {
        {"the same file", PUT("a", "other"), "a"},
        {"a file that the run made", PUT("new", "other"), "new"},
        {"a file that the run deleted", PUT("d/x", "other"), "d/x"},
        {"one more in a folder that the run deleted", PUT("d/more", "other"), "d"},
        {"the same file is gone", DELETE("a"), "a"},
        {"another file", PUT("b", "other"), NULL},
        {"the file that the run deleted is gone", DELETE_TREE("d/x"), "d/x"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct fixture f;
        uint64_t generation;
        fixture_init(&f);
        apply_ok(f.sb, PUT("a", "a"), PUT("b", "b"), PUT("d/x", "x"));
        struct view *v = open_view(&f, "run_1", &generation);
        upper_file(v, "w/a", "mine", 0644);
        upper_file(v, "w/new", "mine", 0644);
        upper_file(v, "w/side", "mine", 0644);
        upper_whiteout(v, "w/d");
        struct sandbox_apply_result res;
        struct err e = ERR_INIT;
        assert_int_equal(apply_rows(f.sb, NULL, &rows[i].meanwhile, 1, &res, &e), 0);
        sandbox_apply_result_release(&res);
        struct outcome got = leave(&f, v, true);
        if (got.kept != !rows[i].first || (rows[i].first && strcmp(got.first, rows[i].first) != 0))
            fail_msg("%s: kept %d, first '%s': %s", rows[i].what, got.kept, got.first, got.reason);
        assert_int_equal(got.generation, rows[i].first ? 2 : 3);
        assert_int_equal(exists(&f, "side"), !rows[i].first);
        assert_int_equal(strstr(got.reason, "run it again") != NULL, rows[i].first != NULL);
        fixture_release(&f);
    }
}

/* What is in no manifest is in no snapshot: running again would not help. */
static void test_hidden(void **state)
{
    struct fixture f;
    uint64_t generation;
    char name[512];
    (void)state;

    fixture_init(&f);
    apply_ok(f.sb, PUT("a", "a"), PUT("d/x", "x"));
    assert_int_equal(mkfifo(at(&f, "fifo", name), 0600), 0);
    assert_int_equal(mkfifo(at(&f, "d/fifo", name), 0600), 0);
    struct view *v = open_view(&f, "run_1", &generation);
    upper_file(v, "w/fifo", "a file", 0644);
    struct outcome got = leave(&f, v, true);
    assert_false(got.kept);
    assert_string_equal(got.first, "fifo");
    assert_non_null(strstr(got.reason, "1 path that it changed is taken in the workspace by what no snapshot"));
    v = open_view(&f, "run_2", &generation);
    upper_whiteout(v, "w/d");
    got = leave(&f, v, true);
    assert_false(got.kept);
    assert_string_equal(got.first, "d");
    assert_non_null(strstr(got.reason, "remove that there"));
    assert_true(is_file(&f, "d/x", "x"));
    fixture_release(&f);
}

static void test_incomplete(void **state)
{
    struct fixture f;
    uint64_t generation;
    (void)state;

    fixture_init(&f);
    f.max_bytes = 10000;
    fixture_close(&f);
    fixture_open(&f);
    struct sandbox_spec spec = {.language = "", .image = "host"};
    assert_int_equal(sandbox_create(f.all, &spec, &f.sb, NULL), 0);
    apply_ok(f.sb, PUT("a", "a"));
    struct view *v = open_view(&f, "run_1", &generation);
    upper_file(v, "w/a", "b", 0644);
    upper_file(v, "w/sparse", "", 0644);
    CLEANUP(fd_closep) int fd = openat(v->upper_fd, "w/sparse", O_WRONLY | O_CLOEXEC);
    assert_int_equal(ftruncate(fd, (off_t)1 << 40), 0);
    struct outcome got = leave(&f, v, true);
    assert_false(got.kept);
    assert_true(got.reason[0] != '\0');
    assert_true(is_file(&f, "a", "a"));
    /* A folder without rights for its owner is read all the same. */
    v = open_view(&f, "run_2", &generation);
    upper_dir(v, "w/locked", 0755, false);
    upper_file(v, "w/locked/in", "in", 0);
    assert_int_equal(fchmodat(v->upper_fd, "w/locked", 0, 0), 0);
    assert_int_equal(fchmodat(v->upper_fd, "w", 0500, 0), 0);
    got = leave(&f, v, true);
    assert_true(got.kept);
    assert_true(is_file(&f, "locked/in", "in"));
    fixture_release(&f);
}

static void test_leftovers(void **state)
{
    struct fixture f;
    uint64_t generation;
    char views[256], id[SANDBOX_ID_BYTES];
    struct stat st;
    (void)state;

    fixture_init(&f);
    apply_ok(f.sb, PUT("a", "a"));
    (void)snprintf(id, sizeof id, "%s", sandbox_id(f.sb));
    (void)snprintf(views, sizeof views, "%s/staging/%s/views", f.data, id);
    /* A clean end leaves nothing. */
    (void)leave(&f, open_view(&f, "run_1", &generation), false);
    assert_int_equal(stat(views, &st), 0);
    fixture_close(&f);
    assert_int_equal(stat(views, &st), -1);
    /* What a crash leaves, also of an overlay's own, is gone with the next start. */
    pid_t pid = fork();
    if (pid == 0) {
        fixture_open(&f);
        if (sandbox_get(f.all, id, &f.sb, NULL) < 0)
            _exit(1);
        struct view *v = open_view(&f, "run_2", &generation);
        _exit(mkdirat(v->work_fd, "work", 0) < 0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(stat(views, &st), 0);
    fixture_open(&f);
    assert_int_equal(sandbox_get(f.all, id, &f.sb, NULL), 0);
    assert_int_equal(stat(views, &st), -1);
    fixture_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_never_changes),
        cmocka_unit_test(test_shared_and_followed),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_commit),
        cmocka_unit_test(test_conflicts),
        cmocka_unit_test(test_hidden),
        cmocka_unit_test(test_incomplete),
        cmocka_unit_test(test_leftovers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
