/* SPDX-License-Identifier: MIT */
/*
 * shared/tree_identity: one thread works as another user, and is itself again. Most of it needs
 * root; without root only the refusals are tried, in the parts that say so.
 */
#include "tests/unit/tree_fixture.h"

#include <grp.h>
#include <sys/wait.h>

#include "shared/banned.h"

#define SANDBOX_UID 231072
#define SANDBOX_GID 231073
#define OTHER_UID 231074

static const struct tree_identity sandbox = {.uid = SANDBOX_UID, .gid = SANDBOX_GID};

static void need_root(void)
{
    if (geteuid() != 0)
        skip();
}

/* The root belongs to the sandbox; what stands beside it in names belongs to others. */
static void hand_over(struct fixture *f)
{
    assert_int_equal(fchown(f->root, SANDBOX_UID, SANDBOX_GID), 0);
    assert_int_equal(fchmod(f->root, 0755), 0);
    put(f->root, "roots", "root's", 0600);
    put(f->root, "theirs", "theirs", 0600);
    assert_int_equal(fchownat(f->root, "theirs", OTHER_UID, OTHER_UID, 0), 0);
    put(f->root, "own", "own", 0);
    assert_int_equal(fchownat(f->root, "own", SANDBOX_UID, SANDBOX_GID, 0), 0);
}

static void files_are_accessed_as_the_sandbox(void **state)
{
    struct fixture *f = *state;
    struct tree_identity before;
    struct stat st;
    need_root();
    hand_over(f);
    assert_int_equal(tree_identity_enter(sandbox, &before, &f->e), 0);
    int made = tree_mkdir(f->t, "made", 0755, &f->e);
    int linked = tree_symlink(f->t, "x", "made/link", &f->e);
    int roots = try_open(f, "roots");
    int theirs = try_open(f, "theirs");
    int roots_mode = tree_chmod(f->t, "roots", 0666, &f->e);
    int theirs_mode = tree_chmod(f->t, "theirs", 0666, &f->e);
    int own_dark = try_open(f, "own");
    int own_mode = tree_chmod(f->t, "own", 0600, &f->e);
    int own = try_open(f, "own");
    tree_identity_leave(before);

    assert_int_equal(made, 0);
    assert_int_equal(linked, 0);
    assert_int_equal(roots, -EACCES);
    assert_int_equal(theirs, -EACCES);
    assert_int_equal(roots_mode, -EPERM);
    assert_int_equal(theirs_mode, -EPERM);
    assert_int_equal(own_dark, -EACCES); /* mode 000 */
    assert_int_equal(own_mode, 0);
    assert_int_equal(own, 0);
    assert_int_equal(fstatat(f->root, "made/link", &st, AT_SYMLINK_NOFOLLOW), 0);
    assert_int_equal(st.st_uid, SANDBOX_UID);
    assert_int_equal(st.st_gid, SANDBOX_GID);
    assert_int_equal(mode_of(f->root, "roots"), 0600);
    /* And back again everything works as before. */
    assert_int_equal(before.uid, 0);
    assert_int_equal(try_open(f, "roots"), 0);
    assert_int_equal(try_open(f, "theirs"), 0);
    assert_int_equal(tree_mkdir(f->t, "roots-dir", 0700, &f->e), 0);
    assert_int_equal(fstatat(f->root, "roots-dir", &st, 0), 0);
    assert_int_equal(st.st_uid, 0);
    assert_int_equal(st.st_gid, getegid());
}

/* A second name of somebody else's file: protected_hardlinks aside, the mode is not ours to set. */
static void hard_links_to_others_files_keep_their_mode(void **state)
{
    struct fixture *f = *state;
    struct tree_identity before;
    need_root();
    hand_over(f);
    assert_int_equal(linkat(f->outside, "secret", f->root, "second", 0), 0);
    assert_int_equal(tree_identity_enter(sandbox, &before, &f->e), 0);
    int mode = tree_chmod(f->t, "second", 0666, &f->e);
    int opened = try_open(f, "second");
    tree_identity_leave(before);
    assert_int_equal(mode, -EPERM);
    assert_int_equal(opened, -EACCES);
    assert_outside_untouched(f);
}

/* What was mode 000 and belongs to the sandbox can be removed as the sandbox; the rest stays. */
static void removal_as_the_sandbox(void **state)
{
    struct fixture *f = *state;
    struct tree_identity before;
    need_root();
    hand_over(f);
    make_dir(f->root, "d");
    make_dir(f->root, "d/dark");
    put(f->root, "d/dark/f", "", 0);
    make_dir(f->root, "d/dark/deep");
    put(f->root, "d/dark/deep/f", "", 0);
    static const char *const owned[] = {"d/dark/deep/f", "d/dark/deep", "d/dark/f", "d/dark", "d"};
    for (size_t i = 0; i < sizeof(owned) / sizeof(owned[0]); i++) {
        assert_int_equal(fchownat(f->root, owned[i], SANDBOX_UID, SANDBOX_GID, 0), 0);
        assert_int_equal(fchmodat(f->root, owned[i], 0, 0), 0);
    }
    make_dir(f->root, "mixed");
    assert_int_equal(fchownat(f->root, "mixed", SANDBOX_UID, SANDBOX_GID, 0), 0);
    put(f->root, "mixed/f", "", 0600);
    make_dir(f->root, "mixed/roots");
    put(f->root, "mixed/roots/f", "", 0600);
    assert_int_equal(tree_identity_enter(sandbox, &before, &f->e), 0);
    int dark = tree_remove(f->t, "d", &f->e);
    int mixed = tree_remove(f->t, "mixed", &f->e);
    tree_identity_leave(before);
    assert_int_equal(dark, 0);
    assert_missing(f->root, "d");
    assert_int_equal(mixed, -EACCES);
    assert_missing(f->root, "mixed/f"); /* in a directory of the sandbox's own */
    assert_text(f->root, "mixed/roots/f", "");
}

/* Placing over a directory that its owner closed: it changes its parent, so it must be writable. */
static void closed_directories_are_displaced_as_the_sandbox(void **state)
{
    struct fixture *f = *state;
    struct tree_identity before;
    bool displaced = false;
    need_root();
    hand_over(f);
    assert_int_equal(fchown(f->stage, SANDBOX_UID, SANDBOX_GID), 0);
    assert_int_equal(tree_identity_enter(sandbox, &before, &f->e), 0);
    int staged =
        mkdirat(f->stage, "s", 0755) | mkdirat(f->root, "closed", 0) | mkdirat(f->root, "shut", 0);
    int placed = tree_place(f->t, f->stage, "s", "closed", &displaced, &f->e);
    int taken = tree_take(f->t, "shut", f->stage, "shut", &f->e);
    tree_identity_leave(before);
    assert_int_equal(staged, 0);
    assert_int_equal(placed, 0);
    assert_true(displaced);
    assert_int_equal(taken, 0);
    assert_int_equal(mode_of(f->stage, "s"), 0700);
    assert_int_equal(mode_of(f->root, "closed"), 0755);
}

static void *long_lived(void *arg)
{
    struct fixture *f = ((void **)arg)[0];
    atomic_int *turn = ((void **)arg)[1];
    while (atomic_load(turn) != 1)
        (void)sched_yield();
    int r = try_open(f, "roots");
    atomic_store(turn, 2);
    return (void *)(intptr_t)r;
}

/* A thread that runs meanwhile stays root, and so does the process. */
static void only_the_calling_thread_changes(void **state)
{
    struct fixture *f = *state;
    struct tree_identity before;
    pthread_t thread;
    void *theirs = NULL;
    atomic_int turn = 0;
    need_root();
    hand_over(f);
    void *arg[2] = {f, &turn};
    assert_int_equal(pthread_create(&thread, NULL, long_lived, arg), 0);
    assert_int_equal(tree_identity_enter(sandbox, &before, &f->e), 0);
    atomic_store(&turn, 1);
    while (atomic_load(&turn) != 2)
        (void)sched_yield();
    int ours = try_open(f, "roots");
    uid_t effective = geteuid();
    tree_identity_leave(before);
    assert_int_equal(ours, -EACCES);
    assert_int_equal(effective, 0);
    assert_int_equal(pthread_join(thread, &theirs), 0);
    assert_int_equal((intptr_t)theirs, 0);
}

/* Nested: an inner identity ends in the outer one. */
static void identities_nest(void **state)
{
    struct fixture *f = *state;
    const struct tree_identity other = {.uid = OTHER_UID, .gid = OTHER_UID};
    struct tree_identity outer;
    struct tree_identity inner;
    need_root();
    hand_over(f);
    assert_int_equal(tree_identity_enter(sandbox, &outer, &f->e), 0);
    int entered = tree_identity_enter(other, &inner, &f->e);
    int theirs = try_open(f, "theirs");
    tree_identity_leave(inner);
    int after = try_open(f, "theirs");
    tree_identity_leave(outer);
    assert_int_equal(entered, 0);
    assert_int_equal(inner.uid, SANDBOX_UID);
    assert_int_equal(inner.gid, SANDBOX_GID);
    assert_int_equal(theirs, 0);
    assert_int_equal(after, -EACCES);
}

static void nobody_is_no_identity(void **state)
{
    struct fixture *f = *state;
    struct tree_identity before = {.uid = 1, .gid = 2};
    assert_int_equal(
        tree_identity_enter((struct tree_identity){.uid = (uid_t)-1, .gid = 5}, &before, &f->e),
        -EINVAL);
    assert_int_equal(
        tree_identity_enter((struct tree_identity){.uid = 5, .gid = (gid_t)-1}, &before, &f->e),
        -EINVAL);
}

/* Without root: the own identity is nothing to switch; another is refused after its group was taken
 * (which the real group allows), and nothing has changed. Exit codes tell which check failed. */
static int unprivileged(struct fixture *f)
{
    struct tree_identity before;
    struct stat st;
    const struct tree_identity own = {.uid = SANDBOX_UID, .gid = OTHER_UID};
    const struct tree_identity other = {.uid = OTHER_UID, .gid = SANDBOX_GID + 1};
    if (setgroups(0, NULL) < 0 || setresgid(SANDBOX_GID + 1, SANDBOX_GID, SANDBOX_GID) < 0 ||
        setresuid(SANDBOX_UID, SANDBOX_UID, SANDBOX_UID) < 0)
        return 2;
    if (tree_identity_enter(own, &before, &f->e) != 0 || before.gid != SANDBOX_GID)
        return 3;
    tree_identity_leave(before);
    if (tree_identity_enter(other, &before, &f->e) != -EPERM)
        return 4;
    if (tree_mkdir(f->t, "still-ours", 0700, &f->e) != 0 ||
        fstatat(f->root, "still-ours", &st, 0) < 0)
        return 5;
    return st.st_uid == SANDBOX_UID && st.st_gid == SANDBOX_GID ? 0 : 6;
}

static void refused_without_root(void **state)
{
    struct fixture *f = *state;
    int status = 0;
    need_root();
    hand_over(f);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(unprivileged(f));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(files_are_accessed_as_the_sandbox),
        FIXTURE_TEST(hard_links_to_others_files_keep_their_mode),
        FIXTURE_TEST(removal_as_the_sandbox),
        FIXTURE_TEST(closed_directories_are_displaced_as_the_sandbox),
        FIXTURE_TEST(only_the_calling_thread_changes),
        FIXTURE_TEST(identities_nest),
        FIXTURE_TEST(nobody_is_no_identity),
        FIXTURE_TEST(refused_without_root),
    };
    return FIXTURE_RUN(tests);
}
