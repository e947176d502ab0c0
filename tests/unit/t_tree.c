/* SPDX-License-Identifier: MIT */
/*
 * shared/tree: looking, reading and changing single entries beneath a root whose content is
 * hostile. The places that entries are put to, removal, walks and identities have tests of their
 * own (t_tree_place.c, t_tree_remove.c, t_tree_walk.c, t_tree_identity.c).
 */
#include "tests/unit/tree_fixture.h"

#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

#include "shared/path.h"

#include "shared/banned.h"

static int try_readlink(struct fixture *f, const char *path)
{
    struct buf b;
    buf_init(&b, PATH_BYTES_MAX);
    int r = tree_readlink(f->t, path, &b, &f->e);
    buf_release(&b);
    return r;
}

/* One table for the plain answers: which code belongs to what is in the way. */
static void answers(void **state)
{
    struct fixture *f = *state;
    make_dir(f->root, "dir");
    put(f->root, "dir/file", "inside", 0600);
    assert_int_equal(symlinkat("../outside", f->root, "link"), 0);
    assert_int_equal(symlinkat("dir", f->root, "near"), 0);
    assert_int_equal(symlinkat("nowhere", f->root, "dangling"), 0);
    assert_int_equal(symlinkat("../outside/secret", f->root, "leaf"), 0);
    assert_int_equal(mkfifoat(f->root, "fifo", 0666), 0);

    static const struct {
        int (*op)(struct fixture *, const char *);
        const char *path;
        int want;
    } rows[] = {
        {try_open, "dir/file", 0},
        {try_open, "", -EISDIR}, /* the root itself */
        {try_open, "dir", -EISDIR},
        {try_open, "none", -ENOENT},
        {try_open, "none/file", -ENOENT},
        {try_open, "dir/file/x", -ENOTDIR}, /* a file as parent */
        {try_open, "leaf", -ELOOP},         /* symlink to a file outside */
        {try_open, "link/secret", -ELOOP},  /* symlink to a directory outside */
        {try_open, "near/file", -ELOOP},    /* symlinks inside are no better */
        {try_open, "dangling", -ELOOP},
        {try_open, "fifo", -TREE_NOT_REGULAR}, /* and does not block */
        {try_dir, "", 0},
        {try_dir, "dir", 0},
        {try_dir, "link", -ELOOP},
        {try_dir, "near", -ELOOP},
        {try_dir, "dir/file", -ENOTDIR},
        {try_dir, "fifo", -ENOTDIR},
        {try_dir, "none", -ENOENT},
        {try_stat, "", 0},
        {try_stat, "leaf", 0}, /* the symlink, not its target */
        {try_stat, "fifo", 0},
        {try_stat, "link/secret", -ELOOP},
        {try_stat, "none", -ENOENT},
        {try_chmod, "leaf", -ELOOP},
        {try_chmod, "link", -ELOOP},
        {try_chmod, "link/secret", -ELOOP},
        {try_chmod, "dangling", -ELOOP},
        {try_chmod, "fifo", -TREE_NOT_REGULAR},
        {try_chmod, "none", -ENOENT},
        {try_mkdir, "link/new", -ELOOP},
        {try_mkdir, "link", -EEXIST},
        {try_mkdir, "dangling", -EEXIST},
        {try_mkdir, "", -EEXIST},
        {try_mkdir, "none/new", -ENOENT},
        {try_parents, "link/new/x", -ELOOP},
        {try_parents, "near/new/x", -ELOOP},
        {try_parents, "dir/file/x/y", -ENOTDIR},
        {try_parents, "x", 0}, /* nothing to make */
        {try_parents, "", 0},
        {try_symlink, "link/new", -ELOOP},
        {try_symlink, "leaf", -EEXIST},
        {try_symlink, "", -EEXIST},
        {try_readlink, "leaf", 0},
        {try_readlink, "link/secret", -ELOOP},
        {try_readlink, "dir", -EINVAL},
        {try_readlink, "", -EINVAL},
        {try_unlink, "link/secret", -ELOOP},
        {try_unlink, "near/file", -ELOOP},
        {try_unlink, "dir", -EISDIR},
        {try_unlink, "none", -ENOENT},
        {try_unlink, "", -EINVAL},
        {try_rmdir, "link", -ENOTDIR},
        {try_rmdir, "near", -ENOTDIR}, /* never through a symlink */
        {try_rmdir, "dir", -ENOTEMPTY},
        {try_rmdir, "", -EINVAL},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int r = rows[i].op(f, rows[i].path);
        if (r != rows[i].want)
            fail_msg("row %zu ('%s'): %d, not %d", i, rows[i].path, r, rows[i].want);
    }
    assert_outside_untouched(f);
    assert_text(f->root, "dir/file", "inside");
}

static void stats_say_what_is_there(void **state)
{
    struct fixture *f = *state;
    struct tree_stat st;
    struct stat plain;
    struct timespec times[2] = {{.tv_sec = 5}, {.tv_sec = 1700000000, .tv_nsec = 123456789}};
    put(f->root, "file", "12345", 04751);
    assert_int_equal(utimensat(f->root, "file", times, 0), 0);
    assert_int_equal(linkat(f->root, "file", f->root, "again", 0), 0);
    assert_int_equal(fstatat(f->root, "file", &plain, 0), 0);
    assert_int_equal(tree_stat(f->t, "file", &st, &f->e), 0);
    assert_int_equal(st.kind, TREE_FILE);
    assert_int_equal(st.mode, 04751);
    assert_int_equal(st.size, 5);
    assert_int_equal(st.blocks_bytes, (uint64_t)plain.st_blocks * 512);
    assert_int_equal(st.mtime_ns, INT64_C(1700000000123456789));
    assert_int_equal(st.ctime_ns, plain.st_ctim.tv_sec * 1000000000 + plain.st_ctim.tv_nsec);
    assert_int_equal(st.ino, plain.st_ino);
    assert_int_equal(st.dev, plain.st_dev);
    assert_int_equal(st.nlink, 2);
    assert_int_equal(st.uid, getuid());

    assert_int_equal(symlinkat("abc", f->root, "link"), 0);
    assert_int_equal(tree_stat(f->t, "link", &st, &f->e), 0);
    assert_int_equal(st.kind, TREE_SYMLINK);
    assert_int_equal(st.size, 3);
    assert_int_equal(mkfifoat(f->root, "fifo", 0600), 0);
    assert_int_equal(tree_stat(f->t, "fifo", &st, &f->e), 0);
    assert_int_equal(st.kind, TREE_OTHER);
    assert_int_equal(tree_stat(f->t, "", &st, &f->e), 0);
    assert_int_equal(st.kind, TREE_DIR);

    /* Times that a program made up do not overflow. */
    plain.st_mtim.tv_sec = INT64_MAX;
    plain.st_ctim.tv_sec = INT64_MIN;
    tree_stat_of(&plain, &st);
    assert_true(st.mtime_ns == INT64_MAX);
    assert_true(st.ctime_ns == INT64_MIN);
}

static void files_and_links_are_read(void **state)
{
    struct fixture *f = *state;
    char text[16];
    struct tree_stat st;
    struct buf b;
    CLEANUP(fd_closep) int fd = -1;
    make_dir(f->root, "a");
    put(f->root, "a/f", "inside", 0400);
    assert_int_equal(tree_open_file(f->t, "a/f", &fd, &st, &f->e), 0);
    assert_int_equal(st.size, 6);
    assert_int_equal(io_read_full(fd, text, sizeof(text)), 6);
    assert_memory_equal(text, "inside", 6);
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
    assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);

    assert_int_equal(tree_symlink(f->t, "/etc/passwd", "a/l", &f->e), 0);
    buf_init(&b, PATH_BYTES_MAX);
    assert_int_equal(tree_readlink(f->t, "a/l", &b, &f->e), 0);
    assert_string_equal(buf_str(&b), "/etc/passwd");
    buf_release(&b);
    buf_init(&b, 4); /* the caller's maximum counts */
    assert_int_equal(tree_readlink(f->t, "a/l", &b, &f->e), -ENOBUFS);
    buf_release(&b);
    assert_int_equal(tree_unlink(f->t, "a/l", &f->e), 0);
    assert_missing(f->root, "a/l");
}

/* Sockets and devices answer open() in ways of their own. */
static void special_files_are_not_regular(void **state)
{
    struct fixture *f = *state;
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    CLEANUP(fd_closep) int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/sock", f->root_path);
    assert_int_equal(bind(s, (const struct sockaddr *)&addr, sizeof(addr)), 0);
    assert_int_equal(try_open(f, "sock"), -TREE_NOT_REGULAR);
    assert_int_equal(try_chmod(f, "sock"), -TREE_NOT_REGULAR);
    assert_int_equal(try_unlink(f, "sock"), 0);
    /* Only root makes devices: one that works (zero), one without a driver. */
    if (mknodat(f->root, "zero", S_IFCHR | 0666, makedev(1, 5)) < 0)
        return;
    assert_int_equal(mknodat(f->root, "odd", S_IFBLK | 0666, makedev(4000, 7)), 0);
    assert_int_equal(try_open(f, "zero"), -TREE_NOT_REGULAR);
    assert_int_equal(try_open(f, "odd"), -TREE_NOT_REGULAR);
    assert_int_equal(try_chmod(f, "zero"), -TREE_NOT_REGULAR);
}

static void modes_are_set_by_descriptor(void **state)
{
    static const struct {
        const char *path;
        uint32_t mode;
        mode_t want;
    } rows[] = {
        {"file", 0640, 0640}, {"file", 0, 0400},    /* a file stays readable for its owner */
        {"file", 07755, 0755},                      /* set-id and sticky bits come from nobody */
        {"dark", 0644, 0644},                       /* mode 000 before */
        {"dir", 0, 0700},                           /* a directory stays usable for its owner */
        {"dir", 07711, 0711}, {"set", 0750, 03750}, /* its own setgid and sticky bits stay */
        {"", 0755, 0755},                           /* the root */
    };
    struct fixture *f = *state;
    put(f->root, "file", "", 0600);
    put(f->root, "dark", "", 0);
    make_dir(f->root, "dir");
    make_dir(f->root, "set");
    assert_int_equal(fchmodat(f->root, "set", 03700, 0), 0);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(tree_chmod(f->t, rows[i].path, rows[i].mode, &f->e), 0);
        assert_int_equal(mode_of(f->root, tree_shown(rows[i].path)), rows[i].want);
    }
}

static void directories_are_made(void **state)
{
    struct fixture *f = *state;
    mode_t mask = umask(0077);
    assert_int_equal(tree_mkdir(f->t, "d", 0755, &f->e), 0);
    assert_int_equal(tree_mkdir(f->t, "d/e", 0005, &f->e), 0);
    assert_int_equal(tree_make_parents(f->t, "d/x/y/z/file", &f->e), 0);
    (void)umask(mask);
    assert_int_equal(mode_of(f->root, "d"), 0755); /* umask does not show */
    assert_int_equal(mode_of(f->root, "d/e"), 0705);
    assert_int_equal(mode_of(f->root, "d/x/y/z"), 0755);
    assert_missing(f->root, "d/x/y/z/file");
    assert_int_equal(tree_mkdir(f->t, "d", 0755, &f->e), -EEXIST);
    assert_int_equal(tree_make_parents(f->t, "d/x/y/z/file", &f->e), 0);
    assert_int_equal(tree_rmdir(f->t, "d/x/y/z", &f->e), 0);
    assert_missing(f->root, "d/x/y/z");
    assert_int_equal(fchmodat(f->root, "d", 02755, 0), 0); /* a group's directory */
    assert_int_equal(tree_mkdir(f->t, "d/g", 0755, &f->e), 0);
    assert_int_equal(mode_of(f->root, "d/g"), 02755);
}

/* The longest path and the deepest one that path_check allows. */
static void the_largest_paths_work(void **state)
{
    struct fixture *f = *state;
    char deep[2 * PATH_DEPTH_MAX + 1];
    char wide[PATH_BYTES_MAX + 1];
    for (size_t i = 0; i < sizeof(deep) - 1; i++)
        deep[i] = i % 2 == 0 ? 'd' : '/';
    deep[sizeof(deep) - 2] = '\0';
    memset(wide, 'w', sizeof(wide) - 1);
    for (size_t i = PATH_NAME_MAX; i < sizeof(wide); i += PATH_NAME_MAX + 1)
        wide[i] = '/';
    wide[sizeof(wide) - 1] = '\0';
    for (int i = 0; i < 2; i++) {
        const char *path = i == 0 ? deep : wide;
        assert_int_equal(path_check(path, strlen(path)), PATH_FINE);
        assert_int_equal(tree_make_parents(f->t, path, &f->e), 0);
        assert_int_equal(tree_symlink(f->t, "x", path, &f->e), 0);
        assert_int_equal(try_readlink(f, path), 0);
        assert_int_equal(try_open(f, path), -ELOOP);
    }
}

/* A root that is moved stays the root; what stands at its old path is nothing to us. */
static void a_moved_root_is_held(void **state)
{
    struct fixture *f = *state;
    char moved[96];
    uint64_t dev;
    uint64_t ino;
    struct stat st;
    put(f->root, "f", "inside", 0600);
    assert_true(tree_same(f->t, f->root_path));
    assert_int_equal(fstat(f->root, &st), 0);
    tree_root_id(f->t, &dev, &ino);
    assert_int_equal(dev, st.st_dev);
    assert_int_equal(ino, st.st_ino);
    assert_int_equal(renameat(f->top_fd, "root", f->top_fd, "moved"), 0);
    assert_false(tree_same(f->t, f->root_path));
    assert_int_equal(symlinkat("outside", f->top_fd, "root"), 0);
    assert_false(tree_same(f->t, f->root_path));
    assert_int_equal(try_open(f, "f"), 0);
    assert_int_equal(try_open(f, "secret"), -ENOENT);
    (void)snprintf(moved, sizeof(moved), "%s/moved", f->top);
    assert_true(tree_same(f->t, moved));
    assert_int_equal(fcntl(tree_fd(f->t), F_GETFL) & O_PATH, O_PATH);
}

static void roots_that_are_none(void **state)
{
    static const struct {
        const char *path;
        int want;
    } rows[] = {
        {"relative", -EINVAL}, {"", -EINVAL}, {"/none/such", -ENOENT}, {"/dev/null", -ENOTDIR}};
    struct fixture *f = *state;
    struct tree *t = NULL;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        assert_int_equal(tree_open(rows[i].path, &t, &f->e), rows[i].want);
    assert_null(t);
    tree_free(NULL);
}

/* Bytes that a shell, a terminal or an option parser would trip over are names like others. */
static void names_of_any_bytes(void **state)
{
    static const char *const names[] = {
        "new\nline", "\x01\x1b[31m", "\xff\xfe", "-rf", "a b", "*", "..."};
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        put(f->root, names[i], "inside", 0600);
        assert_int_equal(try_open(f, names[i]), 0);
        assert_int_equal(try_chmod(f, names[i]), 0);
        assert_int_equal(try_unlink(f, names[i]), 0);
        assert_missing(f->root, names[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(answers),
        FIXTURE_TEST(stats_say_what_is_there),
        FIXTURE_TEST(files_and_links_are_read),
        FIXTURE_TEST(special_files_are_not_regular),
        FIXTURE_TEST(modes_are_set_by_descriptor),
        FIXTURE_TEST(directories_are_made),
        FIXTURE_TEST(the_largest_paths_work),
        FIXTURE_TEST(a_moved_root_is_held),
        FIXTURE_TEST(roots_that_are_none),
        FIXTURE_TEST(names_of_any_bytes),
    };
    return FIXTURE_RUN(tests);
}
