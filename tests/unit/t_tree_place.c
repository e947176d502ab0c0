/* SPDX-License-Identifier: MIT */
/*
 * shared/tree_place: entries exchanged into a hostile tree, taken out of it and moved within, also
 * on file systems that lack what makes it easy, and against those who take the name meanwhile.
 */
#include "tests/unit/tree_fixture.h"

#include "shared/banned.h"

#define ROUNDS 3000

static void stage_file(struct fixture *f, const char *text)
{
    put(f->stage, "s", text, 0600);
}

/* Whatever is at the name afterwards lies in the stage. */
static void what_is_there_is_displaced(void **state)
{
    struct fixture *f = *state;
    bool displaced = true;
    struct stat st;
    make_dir(f->root, "d");

    stage_file(f, "one");
    assert_int_equal(tree_place(f->t, f->stage, "s", "d/x", &displaced, &f->e), 0);
    assert_false(displaced);
    assert_text(f->root, "d/x", "one");
    assert_missing(f->stage, "s");

    stage_file(f, "two");
    assert_int_equal(tree_place(f->t, f->stage, "s", "d/x", &displaced, &f->e), 0);
    assert_true(displaced);
    assert_text(f->root, "d/x", "two");
    assert_text(f->stage, "s", "one");

    /* A symlink is displaced itself; its target is not touched. */
    assert_int_equal(symlinkat("../outside/secret", f->root, "leaf"), 0);
    stage_file(f, "three");
    assert_int_equal(tree_place(f->t, f->stage, "s", "leaf", &displaced, &f->e), 0);
    assert_true(displaced);
    assert_text(f->root, "leaf", "three");
    assert_int_equal(fstatat(f->stage, "s", &st, AT_SYMLINK_NOFOLLOW), 0);
    assert_true(S_ISLNK(st.st_mode));
    assert_int_equal(unlinkat(f->stage, "s", 0), 0);

    /* A whole directory for a file, and a file for a whole directory. */
    make_dir(f->stage, "s");
    put(f->stage, "s/in", "deep", 0600);
    assert_int_equal(tree_place(f->t, f->stage, "s", "leaf", &displaced, &f->e), 0);
    assert_true(displaced);
    assert_text(f->root, "leaf/in", "deep");
    assert_text(f->stage, "s", "three");
    assert_int_equal(tree_place(f->t, f->stage, "s", "leaf", &displaced, &f->e), 0);
    assert_true(displaced);
    assert_text(f->root, "leaf", "three");
    assert_text(f->stage, "s/in", "deep");
    assert_int_equal(count_entries(f->stage), 1);
    assert_outside_untouched(f);
}

/* Replaced by rename, never in place: a second name of the old file keeps the old content. */
static void hard_links_keep_their_content(void **state)
{
    struct fixture *f = *state;
    bool displaced = false;
    assert_int_equal(linkat(f->outside, "secret", f->root, "second", 0), 0);
    stage_file(f, "new");
    assert_int_equal(tree_place(f->t, f->stage, "s", "second", &displaced, &f->e), 0);
    assert_true(displaced);
    assert_text(f->root, "second", "new");
    assert_outside_untouched(f);
}

static void what_cannot_be_placed_stays_staged(void **state)
{
    static const struct {
        const char *name, *path;
        int want;
    } rows[] = {
        {"s", "none/x", -ENOENT},  /* the parent must exist */
        {"s", "link/x", -ELOOP},   /* a symlink as parent */
        {"s", "file/x", -ENOTDIR}, /* a file as parent */
        {"s", "", -EINVAL},        /* the root is never replaced */
        {"gone", "file", -ENOENT}, /* nothing staged: what is there stays */
        {"gone", "free", -ENOENT},
    };
    struct fixture *f = *state;
    bool displaced = false;
    assert_int_equal(symlinkat("../outside", f->root, "link"), 0);
    put(f->root, "file", "old", 0600);
    stage_file(f, "new");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int r = tree_place(f->t, f->stage, rows[i].name, rows[i].path, &displaced, &f->e);
        if (r != rows[i].want)
            fail_msg("row %zu: %d, not %d", i, r, rows[i].want);
    }
    assert_text(f->stage, "s", "new");
    assert_text(f->root, "file", "old");
    assert_int_equal(count_entries(f->stage), 1);
    assert_int_equal(count_entries(f->root), 2);
    assert_outside_untouched(f);
}

/* Two file systems: staging must lie beside the tree. */
static void other_file_systems_are_refused(void **state)
{
    struct fixture *f = *state;
    bool displaced = false;
    char top[] = "/tmp/t_tree.XXXXXX";
    struct stat here;
    struct stat there;
    assert_non_null(mkdtemp(top));
    CLEANUP(fd_closep) int far = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(fstat(far, &there), 0);
    assert_int_equal(fstat(f->root, &here), 0);
    int r[3] = {-EXDEV, -EXDEV, -EXDEV};
    put(far, "s", "far", 0600);
    put(f->root, "x", "near", 0600);
    if (here.st_dev != there.st_dev) {
        r[0] = tree_place(f->t, far, "s", "x", &displaced, &f->e);
        r[1] = tree_place(f->t, far, "s", "y", &displaced, &f->e);
        r[2] = tree_take(f->t, "x", far, "t", &f->e);
    }
    assert_text(far, "s", "far");
    assert_int_equal(unlinkat(far, "s", 0), 0);
    assert_int_equal(rmdir(top), 0);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(r[i], -EXDEV);
    assert_text(f->root, "x", "near");
    assert_missing(f->root, "y");
}

static void entries_are_taken_out(void **state)
{
    struct fixture *f = *state;
    struct stat st;
    make_dir(f->root, "d");
    put(f->root, "d/x", "inside", 0600);
    assert_int_equal(symlinkat("../outside", f->root, "link"), 0);
    put(f->stage, "taken", "", 0600);
    assert_int_equal(tree_take(f->t, "link/secret", f->stage, "s", &f->e), -ELOOP);
    assert_int_equal(tree_take(f->t, "none", f->stage, "s", &f->e), -ENOENT);
    assert_int_equal(tree_take(f->t, "", f->stage, "s", &f->e), -EINVAL);
    assert_int_equal(tree_take(f->t, "d/x", f->stage, "taken", &f->e), -EEXIST);
    assert_text(f->root, "d/x", "inside");
    assert_int_equal(tree_take(f->t, "link", f->stage, "l", &f->e), 0);
    assert_int_equal(fstatat(f->stage, "l", &st, AT_SYMLINK_NOFOLLOW), 0);
    assert_true(S_ISLNK(st.st_mode));
    assert_int_equal(tree_take(f->t, "d", f->stage, "d", &f->e), 0);
    assert_text(f->stage, "d/x", "inside");
    assert_int_equal(count_entries(f->root), 0);
    assert_outside_untouched(f);
}

static void entries_move(void **state)
{
    static const struct {
        const char *from, *to;
        bool replace;
        int want;
    } rows[] = {
        {"a", "new", false, 0},
        {"new", "a", false, 0},
        {"a", "b", false, -EEXIST},
        {"a", "dir", false, -EEXIST},
        {"a", "dir", true, -EISDIR},
        {"dir", "a", true, -ENOTDIR},
        {"dir", "full", true, -ENOTEMPTY},
        {"full", "full/in", true, -EINVAL}, /* a directory into itself */
        {"full", "full/in", false, -EINVAL},
        {"none", "x", true, -ENOENT},
        {"none", "none", true, -ENOENT},
        {"a", "a", true, 0},
        {"a", "a", false, -EEXIST},
        {"a", "none/x", true, -ENOENT},
        {"a", "link/x", true, -ELOOP},
        {"link/secret", "x", true, -ELOOP},
        {"", "x", true, -EINVAL},
        {"a", "", true, -EINVAL},
        {"dir", "full/sub", false, 0},
        {"full/sub", "dir", false, 0},
        {"a", "leaf", true, 0}, /* replaces the symlink, not its target */
        {"leaf", "b", true, 0},
    };
    struct fixture *f = *state;
    put(f->root, "a", "a", 0600);
    put(f->root, "b", "b", 0600);
    make_dir(f->root, "dir");
    make_dir(f->root, "full");
    put(f->root, "full/f", "", 0600);
    assert_int_equal(symlinkat("../outside", f->root, "link"), 0);
    assert_int_equal(symlinkat("../outside/secret", f->root, "leaf"), 0);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int r = tree_move(f->t, rows[i].from, rows[i].to, rows[i].replace, &f->e);
        if (r != rows[i].want)
            fail_msg("row %zu: %d, not %d", i, r, rows[i].want);
    }
    assert_text(f->root, "b", "a");
    assert_int_equal(count_entries(f->root), 4);
    assert_outside_untouched(f);
}

/* rename(2) would leave both names. */
static void two_names_of_one_file_become_one(void **state)
{
    struct fixture *f = *state;
    struct stat st;
    put(f->root, "a", "both", 0600);
    assert_int_equal(linkat(f->root, "a", f->root, "b", 0), 0);
    assert_int_equal(tree_move(f->t, "a", "b", false, &f->e), -EEXIST);
    assert_int_equal(tree_move(f->t, "a", "b", true, &f->e), 0);
    assert_missing(f->root, "a");
    assert_text(f->root, "b", "both");
    assert_int_equal(fstatat(f->root, "b", &st, 0), 0);
    assert_int_equal(st.st_nlink, 1);
}

/*
 * A program that writes "x" anew and removes it all the time, counting what it wrote. Each version
 * of its own is in the tree or displaced into the stage at the end of a round, never overwritten:
 * what we displace is either ours of the round before or one of theirs, whole.
 */
struct writer {
    int dir_fd;
    atomic_bool stop;
    pthread_t thread;
};

static void *writer_main(void *arg)
{
    struct writer *w = arg;
    while (!atomic_load(&w->stop)) {
        int fd = openat(w->dir_fd, "x", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd >= 0)
            (void)close(fd);
        (void)unlinkat(w->dir_fd, "x", 0);
    }
    return NULL;
}

static void names_that_come_and_go(void **state)
{
    struct fixture *f = *state;
    struct writer w = {.dir_fd = f->root};
    size_t strange = 0;
    size_t placed = 0;
    size_t displacing = 0;
    assert_int_equal(pthread_create(&w.thread, NULL, writer_main, &w), 0);
    for (int i = 0; i < ROUNDS; i++) {
        bool displaced = false;
        struct stat st;
        stage_file(f, "ours");
        int r = tree_place(f->t, f->stage, "s", "x", &displaced, &f->e);
        bool staged = fstatat(f->stage, "s", &st, AT_SYMLINK_NOFOLLOW) == 0;
        strange += r != 0 && r != -EBUSY;
        strange += r == 0 && staged != displaced;
        strange += r == -EBUSY && (!staged || st.st_size != 4);
        placed += r == 0;
        displacing += r == 0 && displaced;
    }
    atomic_store(&w.stop, true);
    assert_int_equal(pthread_join(w.thread, NULL), 0);
    assert_int_equal(strange, 0);
    assert_true(placed > ROUNDS / 2);
    assert_true(displacing > 0);
}

/* The parent is swapped for a symlink to outside/ all the time. */
static void swapped_parents_are_never_followed(void **state)
{
    struct fixture *f = *state;
    size_t strange = 0;
    make_dir(f->root, "d");
    put(f->root, "d/secret", "inside", 0600);
    assert_int_equal(symlinkat("../outside", f->root, "evil"), 0);
    struct swapper swapper = {.dir_fd = f->root, .a = "d", .b = "evil"};
    swapper_start(&swapper);
    for (int i = 0; i < ROUNDS; i++) {
        bool displaced = false;
        stage_file(f, "inside");
        int r[4] = {
            tree_place(f->t, f->stage, "s", i % 2 ? "d/secret" : "d/new", &displaced, &f->e),
            tree_move(f->t, "d/new", "d/other", true, &f->e),
            tree_move(f->t, "d/secret", "d/third", false, &f->e),
            tree_take(f->t, "d/secret", f->stage, "t", &f->e),
        };
        for (size_t k = 0; k < 4; k++)
            strange += r[k] != 0 && r[k] != -ELOOP && r[k] != -ENOENT && r[k] != -EEXIST;
        (void)unlinkat(f->stage, "t", 0);
        (void)unlinkat(f->stage, "s", 0);
    }
    swapper_stop(&swapper);
    assert_int_equal(strange, 0);
    assert_outside_untouched(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(what_is_there_is_displaced),
        FIXTURE_TEST(hard_links_keep_their_content),
        FIXTURE_TEST(what_cannot_be_placed_stays_staged),
        FIXTURE_TEST(other_file_systems_are_refused),
        FIXTURE_TEST(entries_are_taken_out),
        FIXTURE_TEST(entries_move),
        FIXTURE_TEST(two_names_of_one_file_become_one),
        FIXTURE_TEST(names_that_come_and_go),
        FIXTURE_TEST(swapped_parents_are_never_followed),
    };
    return FIXTURE_RUN(tests);
}
