/* SPDX-License-Identifier: MIT */
/*
 * A hostile place to try shared/tree in, made anew for every test and removed after it:
 *
 *     top/              0700, beneath /dev/shm: ext4 needs seconds for the deep and wide trees
 *       root/           the tree's root
 *       stage/          where entries are staged
 *       outside/        what nobody may reach: secret (0600, "outside")
 *
 * Every group of tests runs once for each row of fixture_modes: with the kernel's help and without.
 */
#ifndef TESTS_UNIT_TREE_FIXTURE_H
#define TESTS_UNIT_TREE_FIXTURE_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "shared/io.h"
#include "shared/tree_internal.h"

struct fixture {
    char top[64];
    char root_path[80];
    int top_fd;
    int root; /* ordinary descriptors, for the hostile side */
    int stage;
    int outside;
    struct tree *t;
    struct err e;
};

static const unsigned fixture_modes[] = {
    0,                                            /* what the kernel has */
    TREE_LACKS_OPENAT2 | TREE_LACKS_FCHMODAT2,    /* an old kernel, or a filter */
    TREE_LACKS_OPENAT2 | TREE_LACKS_RENAME_FLAGS, /* and a file system without the flags */
    TREE_LACKS_RENAME_FLAGS | TREE_LACKS_LINKS,   /* nor hard links */
};

static inline void put(int dir_fd, const char *path, const char *text, mode_t mode)
{
    CLEANUP(fd_closep)
    int fd = openat(dir_fd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(io_write_all(fd, text, strlen(text)), 0);
    assert_int_equal(fchmod(fd, mode), 0);
}

/* The content of a small file, for the hostile side; follows symlinks. */
static inline const char *text_of(int dir_fd, const char *path, char buf[static 64])
{
    CLEANUP(fd_closep) int fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return "(cannot be opened)";
    ssize_t n = io_read_full(fd, buf, 63);
    buf[n < 0 ? 0 : n] = '\0';
    return buf;
}

static inline void assert_text(int dir_fd, const char *path, const char *text)
{
    char buf[64];
    assert_string_equal(text_of(dir_fd, path, buf), text);
}

static inline void make_dir(int dir_fd, const char *path)
{
    assert_int_equal(mkdirat(dir_fd, path, 0755), 0);
}

static inline void assert_missing(int dir_fd, const char *path)
{
    struct stat st;
    assert_int_equal(fstatat(dir_fd, path, &st, AT_SYMLINK_NOFOLLOW), -1);
    assert_int_equal(errno, ENOENT);
}

static inline mode_t mode_of(int dir_fd, const char *path)
{
    struct stat st;
    assert_int_equal(fstatat(dir_fd, path, &st, AT_SYMLINK_NOFOLLOW), 0);
    return st.st_mode & 07777;
}

static inline size_t count_entries(int dir_fd)
{
    size_t n = 0;
    int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    CLEANUP(dir_closep) DIR *d = fdopendir(fd);
    assert_non_null(d);
    while (readdir(d))
        n++;
    return n - 2;
}

/* Nobody reached what lies outside. */
static inline void assert_outside_untouched(const struct fixture *f)
{
    assert_int_equal(count_entries(f->outside), 1);
    assert_text(f->outside, "secret", "outside");
    assert_int_equal(mode_of(f->outside, "secret"), 0600);
    assert_int_equal(mode_of(f->top_fd, "outside"), 0700);
}

static inline int make_held(int dir_fd, const char *name)
{
    assert_int_equal(mkdirat(dir_fd, name, 0700), 0);
    int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

static inline int fixture_setup(void **state)
{
    const unsigned *lacks = *state;
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    (void)snprintf(f->top, sizeof(f->top), "/dev/shm/t_tree.XXXXXX");
    assert_non_null(mkdtemp(f->top));
    f->top_fd = open(f->top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(f->top_fd >= 0);
    f->root = make_held(f->top_fd, "root");
    f->stage = make_held(f->top_fd, "stage");
    f->outside = make_held(f->top_fd, "outside");
    put(f->outside, "secret", "outside", 0600);
    (void)snprintf(f->root_path, sizeof(f->root_path), "%s/root", f->top);
    tree_test_lacks(*lacks);
    assert_int_equal(tree_open(f->root_path, &f->t, &f->e), 0);
    *state = f;
    return 0;
}

static inline int fixture_teardown(void **state)
{
    struct fixture *f = *state;
    tree_free(f->t);
    fd_closep(&f->root);
    fd_closep(&f->stage);
    fd_closep(&f->outside);
    fd_closep(&f->top_fd);
    tree_test_lacks(0);
    CLEANUP(fd_closep) int tmp = open("/dev/shm", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int r = tree_remove_at(tmp, f->top + strlen("/dev/shm/"), &f->e);
    free(f);
    return r;
}

static inline int fixture_mode_0(void **state)
{
    *state = (void *)(uintptr_t)&fixture_modes[0];
    return 0;
}

static inline int fixture_mode_1(void **state)
{
    *state = (void *)(uintptr_t)&fixture_modes[1];
    return 0;
}

static inline int fixture_mode_2(void **state)
{
    *state = (void *)(uintptr_t)&fixture_modes[2];
    return 0;
}

static inline int fixture_mode_3(void **state)
{
    *state = (void *)(uintptr_t)&fixture_modes[3];
    return 0;
}

/* What one operation on `path` answers, whatever it is good for otherwise. */
static inline int try_open(struct fixture *f, const char *path)
{
    CLEANUP(fd_closep) int fd = -1;
    return tree_open_file(f->t, path, &fd, NULL, &f->e);
}

static inline int try_dir(struct fixture *f, const char *path)
{
    CLEANUP(fd_closep) int fd = -1;
    return tree_open_dir(f->t, path, &fd, &f->e);
}

static inline int try_stat(struct fixture *f, const char *path)
{
    struct tree_stat st;
    return tree_stat(f->t, path, &st, &f->e);
}

static inline int try_chmod(struct fixture *f, const char *path)
{
    return tree_chmod(f->t, path, 0755, &f->e);
}

static inline int try_mkdir(struct fixture *f, const char *path)
{
    return tree_mkdir(f->t, path, 0755, &f->e);
}

static inline int try_parents(struct fixture *f, const char *path)
{
    return tree_make_parents(f->t, path, &f->e);
}

static inline int try_symlink(struct fixture *f, const char *path)
{
    return tree_symlink(f->t, "x", path, &f->e);
}

static inline int try_unlink(struct fixture *f, const char *path)
{
    return tree_unlink(f->t, path, &f->e);
}

static inline int try_rmdir(struct fixture *f, const char *path)
{
    return tree_rmdir(f->t, path, &f->e);
}

/* Somebody who exchanges two names of one directory, over and over. */
struct swapper {
    int dir_fd;
    const char *a;
    const char *b;
    atomic_bool stop;
    pthread_t thread;
};

static inline void *swapper_main(void *arg)
{
    struct swapper *s = arg;
    while (!atomic_load(&s->stop))
        (void)renameat2(s->dir_fd, s->a, s->dir_fd, s->b, RENAME_EXCHANGE);
    return NULL;
}

static inline void swapper_start(struct swapper *s)
{
    assert_int_equal(pthread_create(&s->thread, NULL, swapper_main, s), 0);
}

static inline void swapper_stop(struct swapper *s)
{
    atomic_store(&s->stop, true);
    assert_int_equal(pthread_join(s->thread, NULL), 0);
}

#define FIXTURE_TEST(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)

/* Run a table of tests in every mode; the number of failures. */
#define FIXTURE_RUN(tests)                                                                         \
    (cmocka_run_group_tests_name("with everything", tests, fixture_mode_0, NULL) +                 \
        cmocka_run_group_tests_name("without openat2, fchmodat2", tests, fixture_mode_1, NULL) +   \
        cmocka_run_group_tests_name(                                                               \
            "without openat2, rename flags", tests, fixture_mode_2, NULL) +                        \
        cmocka_run_group_tests_name("without rename flags, links", tests, fixture_mode_3, NULL))

#endif
