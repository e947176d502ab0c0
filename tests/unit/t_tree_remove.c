/* SPDX-License-Identifier: MIT */
/*
 * shared/tree_remove: trees that were made not to be removed: too deep, closed, strangely named,
 * mounted over, changing meanwhile.
 */
#include "tests/unit/tree_fixture.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "shared/path.h"

#include "shared/banned.h"

#define DEEP 10000
#define WIDE 300
#define ADDED 10000

static void simple_entries(void **state)
{
    static const char *const names[] = {"file", "link", "dangling", "fifo", "empty", "dir", "none"};
    struct fixture *f = *state;
    put(f->root, "file", "", 0);
    assert_int_equal(symlinkat("../outside", f->root, "link"), 0);
    assert_int_equal(symlinkat("nowhere", f->root, "dangling"), 0);
    assert_int_equal(mkfifoat(f->root, "fifo", 0), 0);
    make_dir(f->root, "empty");
    make_dir(f->root, "dir");
    put(f->root, "dir/f", "", 0);
    make_dir(f->root, "dir/d");
    assert_int_equal(symlinkat("../../../outside", f->root, "dir/d/link"), 0);
    assert_int_equal(linkat(f->outside, "secret", f->root, "dir/d/second", 0), 0);
    put(f->root, "stays", "", 0600);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        assert_int_equal(tree_remove(f->t, names[i], &f->e), 0);
    assert_int_equal(count_entries(f->root), 1);
    assert_outside_untouched(f);
}

static void beneath_parents(void **state)
{
    struct fixture *f = *state;
    make_dir(f->root, "a");
    make_dir(f->root, "a/b");
    put(f->root, "a/b/c", "", 0600);
    assert_int_equal(symlinkat("../outside", f->root, "link"), 0);
    assert_int_equal(tree_remove(f->t, "link/secret", &f->e), -ELOOP);
    assert_int_equal(tree_remove(f->t, "a/b/c/d", &f->e), -ENOTDIR);
    assert_int_equal(tree_remove(f->t, "none/c/d", &f->e), 0); /* missing is success */
    assert_int_equal(tree_remove(f->t, "", &f->e), -EINVAL);   /* the root is not ours to remove */
    assert_int_equal(tree_remove(f->t, "a/b", &f->e), 0);
    assert_missing(f->root, "a/b");
    assert_int_equal(count_entries(f->root), 2);
    assert_outside_untouched(f);
}

/* One step of a chain: a directory `name` in *fd, which is *fd from then on. */
static void deeper(int *fd, const char *name)
{
    make_dir(*fd, name);
    int next = openat(*fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(next >= 0);
    (void)close(*fd);
    *fd = next;
}

/* 10,000 levels, some with files, side branches and names as long as they get; few descriptors. */
static void deep_trees(void **state)
{
    struct fixture *f = *state;
    char longest[PATH_NAME_MAX + 1];
    struct rlimit old;
    memset(longest, 'n', PATH_NAME_MAX);
    longest[PATH_NAME_MAX] = '\0';
    CLEANUP(fd_closep) int fd = fcntl(f->root, F_DUPFD_CLOEXEC, 0);
    deeper(&fd, "top");
    for (int i = 0; i < DEEP; i++) {
        if (i % 100 == 0) {
            put(fd, "f", "", 0);
            make_dir(fd, "side");
            put(fd, "side/f", "", 0);
        }
        deeper(&fd, i % 50 == 0 ? longest : "d");
    }
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    const struct rlimit few = {.rlim_cur = (rlim_t)fd + 40, .rlim_max = old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    int r = tree_remove(f->t, "top", &f->e);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_int_equal(r, 0);
    assert_int_equal(count_entries(f->root), 0);
}

/* Every directory of mode 000 or without one of its bits; as another user where we are root, since
 * modes mean nothing to root. Two chains, so that one is lifted while the other stands. */
static void closed_directories(void **state)
{
    static const mode_t modes[] = {0, 0100, 0200, 0400, 0300, 0500, 0600};
    struct fixture *f = *state;
    struct tree_identity before;
    const struct tree_identity id = {
        .uid = geteuid() ? geteuid() : 231072, .gid = geteuid() ? getegid() : 231072};
    assert_int_equal(fchown(f->root, id.uid, id.gid), 0);
    assert_int_equal(tree_identity_enter(id, &before, &f->e), 0);
    int made = mkdirat(f->root, "top", 0700);
    int top = openat(f->root, "top", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int chain = 0; chain < 2 && made == 0; chain++) {
        int fd = fcntl(top, F_DUPFD_CLOEXEC, 0);
        const char *name = chain ? "b" : "a";
        made |= mkdirat(fd, name, 0700);
        int first = openat(fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        (void)close(fd);
        fd = first;
        for (size_t i = 0; i < 100 && made == 0; i++) {
            made |= mkdirat(fd, name, 0700) | mkdirat(fd, "side", 0700);
            made |= mkdirat(fd, "side/sub", 0) | fchmodat(fd, "side", 0, 0);
            int next = openat(fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
            made |= fchmod(fd, modes[i % (sizeof(modes) / sizeof(modes[0]))]);
            (void)close(fd);
            fd = next;
        }
        (void)close(fd);
    }
    (void)close(top);
    made |= fchmodat(f->root, "top", 0, 0);
    int r = tree_remove(f->t, "top", &f->e);
    tree_identity_leave(before);
    assert_int_equal(made, 0);
    assert_int_equal(r, 0);
    assert_int_equal(count_entries(f->root), 0);
}

static void strange_names(void **state)
{
    static const char *const names[] = {"new\nline", "\xff", "...", "-rf", "*", " ", ".l-0-0"};
    struct fixture *f = *state;
    CLEANUP(fd_closep) int fd = fcntl(f->root, F_DUPFD_CLOEXEC, 0);
    deeper(&fd, "top");
    for (size_t i = 0; i < 10 * sizeof(names) / sizeof(names[0]); i++)
        deeper(&fd, names[i % (sizeof(names) / sizeof(names[0]))]);
    assert_int_equal(tree_remove(f->t, "top", &f->e), 0);
    assert_int_equal(count_entries(f->root), 0);
}

static void wide_trees(void **state)
{
    struct fixture *f = *state;
    make_dir(f->root, "top");
    for (int i = 0; i < WIDE; i++) {
        char name[32];
        (void)snprintf(name, sizeof(name), "top/%d", i);
        make_dir(f->root, name);
        (void)snprintf(name, sizeof(name), "top/%d/f", i);
        put(f->root, name, "", 0600);
        (void)snprintf(name, sizeof(name), "top/f%d", i);
        put(f->root, name, "", 0600);
    }
    assert_int_equal(tree_remove(f->t, "top", &f->e), 0);
    assert_int_equal(count_entries(f->root), 0);
}

/* What is mounted inside is not entered, and everything beside it goes. In a mount namespace of its
 * own; nothing to try where that is not allowed. Exit codes tell which check failed. */
static int mounted(struct fixture *f)
{
    char path[128];
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return 77;
    /* A descriptor from before shows what was mounted before. */
    tree_free(f->t);
    if (tree_open(f->root_path, &f->t, &f->e) < 0)
        return 2;
    (void)snprintf(path, sizeof(path), "%s/outside", f->top);
    char over[128];
    (void)snprintf(over, sizeof(over), "%s/root/top/bound", f->top);
    /* The same file system, so that the device number does not give it away ... */
    if (mount(path, over, NULL, MS_BIND, NULL) < 0)
        return 77;
    if (!tree_lacks(TREE_LACKS_OPENAT2) && tree_remove(f->t, "top", &f->e) != -EXDEV)
        return 3;
    if (umount2(over, MNT_DETACH) < 0)
        return 4;
    /* ... and another one. */
    if (mount("none", over, "tmpfs", 0, NULL) < 0)
        return 5;
    CLEANUP(fd_closep) int inner = open(over, O_PATH | O_DIRECTORY | O_CLOEXEC);
    put(inner, "kept", "", 0600);
    if (tree_remove(f->t, "top", &f->e) != -EXDEV)
        return 6;
    struct stat st;
    if (fstatat(inner, "kept", &st, 0) < 0)
        return 7;
    return fstatat(f->root, "top/z", &st, 0) == 0 ? 8 : 0;
}

static void mounts_are_not_entered(void **state)
{
    struct fixture *f = *state;
    int status = 0;
    make_dir(f->root, "top");
    make_dir(f->root, "top/bound");
    make_dir(f->root, "top/z");
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(mounted(f));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_outside_untouched(f);
    if (WEXITSTATUS(status) == 77)
        skip();
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* A symlink, unless the name is taken. */
static void set_link(const char *target, int dir_fd, const char *name)
{
    if (symlinkat(target, dir_fd, name) < 0)
        assert_int_equal(errno, EEXIST);
}

/* A directory in the tree is swapped for a symlink to outside/ while we remove. */
static void swapped_directories_are_never_followed(void **state)
{
    struct fixture *f = *state;
    struct swapper swapper = {.dir_fd = f->root, .a = "top/d", .b = "top/evil"};
    size_t strange = 0;
    swapper_start(&swapper);
    for (int i = 0; i < WIDE; i++) {
        make_dir(f->root, "top");
        make_dir(f->root, "top/d");
        set_link("../../outside", f->root, "top/evil");
        for (int k = 0; k < 8; k++) {
            char name[32];
            (void)snprintf(name, sizeof(name), "top/s%d", k);
            make_dir(f->root, name);
            (void)snprintf(name, sizeof(name), "top/s%d/secret", k);
            put(f->root, name, "", 0600);
        }
        int r = tree_remove(f->t, "top", &f->e);
        struct stat st;
        strange += r != 0 || fstatat(f->root, "top", &st, AT_SYMLINK_NOFOLLOW) == 0;
    }
    swapper_stop(&swapper);
    assert_int_equal(strange, 0);
    assert_outside_untouched(f);
}

/* The name itself is a directory one moment and a symlink the next. */
static void a_swapped_name_is_never_followed(void **state)
{
    struct fixture *f = *state;
    struct swapper swapper = {.dir_fd = f->root, .a = "d", .b = "evil"};
    size_t strange = 0;
    swapper_start(&swapper);
    for (int i = 0; i < WIDE; i++) {
        (void)mkdirat(f->root, "d", 0700);
        CLEANUP(fd_closep)
        int d = openat(f->root, "d", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        (void)mkdirat(d, "in", 0700);
        set_link("../outside", f->root, "evil");
        for (int k = 0; k < 2; k++) {
            int r = tree_remove(f->t, k ? "evil" : "d", &f->e);
            /* The swap may go on for longer than we try; it may not lead us out. */
            strange += r != 0 && r != -ENOTDIR && r != -ELOOP && r != -ENOTEMPTY && r != -EBUSY;
        }
    }
    swapper_stop(&swapper);
    assert_int_equal(strange, 0);
    assert_int_equal(tree_remove(f->t, "d", &f->e), 0);
    assert_int_equal(tree_remove(f->t, "evil", &f->e), 0);
    assert_int_equal(count_entries(f->root), 0);
    assert_outside_untouched(f);
}

/* Somebody who adds names meanwhile: removed too, or told, and gone when he is done. */
struct adder {
    int dir_fd;
    pthread_t thread;
};

static void *adder_main(void *arg)
{
    struct adder *a = arg;
    for (unsigned i = 0; i < ADDED; i++) {
        char name[32];
        (void)mkdirat(a->dir_fd, "top", 0700);
        (void)mkdirat(a->dir_fd, "top/d", 0700);
        (void)snprintf(name, sizeof(name), "top/d/%u", i);
        (void)mkdirat(a->dir_fd, name, 0700);
    }
    return NULL;
}

static void names_that_are_added_meanwhile(void **state)
{
    struct fixture *f = *state;
    struct adder a = {.dir_fd = f->root};
    size_t strange = 0;
    assert_int_equal(pthread_create(&a.thread, NULL, adder_main, &a), 0);
    for (int i = 0; i < 50; i++) {
        int r = tree_remove(f->t, "top", &f->e);
        strange += r != 0 && r != -ENOTEMPTY;
    }
    assert_int_equal(pthread_join(a.thread, NULL), 0);
    assert_int_equal(strange, 0);
    assert_int_equal(tree_remove(f->t, "top", &f->e), 0);
    assert_int_equal(count_entries(f->root), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(simple_entries),
        FIXTURE_TEST(beneath_parents),
        FIXTURE_TEST(deep_trees),
        FIXTURE_TEST(closed_directories),
        FIXTURE_TEST(strange_names),
        FIXTURE_TEST(wide_trees),
        FIXTURE_TEST(mounts_are_not_entered),
        FIXTURE_TEST(swapped_directories_are_never_followed),
        FIXTURE_TEST(a_swapped_name_is_never_followed),
        FIXTURE_TEST(names_that_are_added_meanwhile),
    };
    return FIXTURE_RUN(tests);
}
