/* SPDX-License-Identifier: MIT */
/* agent/scan against real trees: what is new, changed, gone, forgotten, left out. */
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

#include "agent/scan.h"
#include "shared/io.h"
#include "shared/tree.h"

#include "shared/banned.h"

struct fixture {
    char dir[64];
    int fd;
    struct tree *tree;
    struct ignore *rules;
    struct manifest *known;
    char told[4096]; /* "path: why\n" of what was left out */
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct err e = ERR_INIT;
    assert_non_null(f);
    (void)snprintf(f->dir, sizeof(f->dir), "/tmp/t_scan.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    f->fd = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(tree_open(f->dir, &f->tree, &e), 0);
    f->rules = ignore_new(true);
    f->known = manifest_new();
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    struct err e = ERR_INIT;
    int tmp = open("/tmp", O_PATH | O_DIRECTORY | O_CLOEXEC);
    tree_free(f->tree);
    ignore_free(f->rules);
    manifest_free(f->known);
    (void)close(f->fd);
    assert_int_equal(tree_remove_at(tmp, strrchr(f->dir, '/') + 1, &e), 0);
    (void)close(tmp);
    free(f);
    return 0;
}

static void make_dir(const struct fixture *f, const char *path)
{
    assert_int_equal(mkdirat(f->fd, path, 0755), 0);
}

static void make_file(const struct fixture *f, const char *path, const char *text)
{
    int fd = openat(f->fd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(io_write_all(fd, text, strlen(text)), 0);
    (void)close(fd);
}

static void tell(void *ctx, const char *path, const char *why)
{
    struct fixture *f = ctx;
    size_t len = strlen(f->told);
    (void)snprintf(f->told + len, sizeof(f->told) - len, "%s: %s\n", path, why);
}

static struct scan_config config_of(struct fixture *f)
{
    return (struct scan_config){
        .tree = f->tree, .rules = f->rules, .known = f->known, .skipped = tell, .ctx = f};
}

/* Take what the scan found into what is known, as if it had been sent. */
static void adopt(struct fixture *f, const struct scan *s)
{
    for (size_t i = 0; i < s->count; i++) {
        const struct scan_item *item = &s->items[i];
        struct manifest_entry entry = {.path = item->path,
            .kind = item->st.kind,
            .mode = item->st.mode & 0777,
            .size = item->st.kind == TREE_DIR ? 0 : item->st.size,
            .mtime_ns = item->st.mtime_ns,
            .ctime_ns = item->st.ctime_ns,
            .ino = item->st.ino,
            .target = item->st.kind == TREE_SYMLINK ? "x" : NULL,
            /* Old enough not to be racy. */
            .seen_ns = item->st.ctime_ns + INT64_C(1000000000)};
        if (item->kind == SCAN_GONE || item->kind == SCAN_FORGET)
            (void)manifest_remove(f->known, item->path);
        else
            assert_int_equal(manifest_put(f->known, &entry), 0);
    }
}

/* "+new ~changed -gone !forgotten", in order. */
static void expect(const struct scan *s, const char *expected)
{
    char got[4096] = "";
    for (size_t i = 0; i < s->count; i++) {
        size_t len = strlen(got);
        (void)snprintf(got + len, sizeof(got) - len, "%s%c%s", i ? " " : "",
            "+~-!"[s->items[i].kind], s -> items[i].path);
    }
    assert_string_equal(got, expected);
}

static void scan_expect(struct fixture *f, const char *expected)
{
    struct scan s;
    struct err e = ERR_INIT;
    struct scan_config config = config_of(f);
    assert_int_equal(scan_all(&config, &s, &e), 0);
    expect(&s, expected);
    adopt(f, &s);
    scan_release(&s);
}

static void paths_expect(
    struct fixture *f, const char *const *paths, size_t count, const char *expected)
{
    struct scan s;
    struct err e = ERR_INIT;
    struct scan_config config = config_of(f);
    assert_int_equal(scan_paths(&config, paths, count, &s, &e), 0);
    expect(&s, expected);
    adopt(f, &s);
    scan_release(&s);
}

static void test_life_of_a_tree(void **state)
{
    struct fixture *f = *state;
    make_dir(f, "d");
    make_dir(f, "empty");
    make_dir(f, "node_modules");
    make_file(f, "node_modules/x.js", "1");
    make_file(f, "d/a", "1");
    make_file(f, "d-b", "1");
    scan_expect(f, "+d +d/a +d-b +empty");
    scan_expect(f, "");
    make_file(f, "d/a", "22");
    assert_int_equal(fchmodat(f->fd, "d-b", 0755, 0), 0);
    scan_expect(f, "~d/a ~d-b");
    assert_int_equal(unlinkat(f->fd, "d/a", 0), 0);
    assert_int_equal(unlinkat(f->fd, "d", AT_REMOVEDIR), 0);
    scan_expect(f, "-d/a -d");
    /* Another kind under the same name. */
    assert_int_equal(unlinkat(f->fd, "empty", AT_REMOVEDIR), 0);
    make_file(f, "empty", "");
    scan_expect(f, "~empty");
}

static void test_rules(void **state)
{
    struct fixture *f = *state;
    make_dir(f, "sub");
    make_file(f, "sub/a.log", "1");
    make_file(f, "sub/a.py", "1");
    scan_expect(f, "+sub +sub/a.log +sub/a.py");
    /* Ignored by now, but still there: forgotten, not deleted. */
    make_file(f, "sub/.gitignore", "*.log\n");
    scan_expect(f, "+sub/.gitignore !sub/a.log");
    assert_int_equal(unlinkat(f->fd, "sub/.gitignore", 0), 0);
    scan_expect(f, "+sub/a.log -sub/.gitignore");
    /* A watcher tells of the rule file only: its folder is meant. */
    make_file(f, ".siltignore", "*.py\n");
    const char *paths[] = {".siltignore"};
    paths_expect(f, paths, 1, "+.siltignore !sub/a.py");
}

/* The last moment before a folder is listed: a rule and what it leaves out appear, or another kind
 * of rule goes. */
static void change_rules(void *ctx, const char *path, int dir_fd)
{
    struct fixture *f = ctx;
    struct stat st, lent;
    assert_int_equal(dir_fd >= 0, *path != '\0');
    if (strcmp(path, "sub") != 0)
        return;
    assert_int_equal(fstatat(f->fd, path, &st, 0), 0);
    assert_int_equal(fstat(dir_fd, &lent), 0);
    assert_int_equal(lent.st_ino, st.st_ino);
    make_file(f, "sub/.siltignore", "secret\n");
    make_file(f, "sub/secret", "1");
    (void)unlinkat(f->fd, "sub/.gitignore", 0);
}

static void test_rules_of_a_listing(void **state)
{
    struct fixture *f = *state;
    make_dir(f, "sub");
    make_dir(f, "sub/deep");
    make_file(f, "sub/.gitignore", "*.log\n");
    make_file(f, "sub/a.log", "1");
    make_file(f, "sub/deep/b.log", "1");
    struct scan s;
    struct err e = ERR_INIT;
    struct scan_config config = config_of(f);
    config.entered = change_rules;
    assert_int_equal(scan_all(&config, &s, &e), 0);
    expect(&s, "+sub +sub/.siltignore +sub/a.log +sub/deep +sub/deep/b.log");
    adopt(f, &s);
    scan_release(&s);
    /* The rules go with their file, also where only its folder is looked at. */
    assert_int_equal(unlinkat(f->fd, "sub/.siltignore", 0), 0);
    const char *paths[] = {"sub"};
    paths_expect(f, paths, 1, "+sub/secret -sub/.siltignore");
}

static void test_left_out(void **state)
{
    struct fixture *f = *state;
    make_dir(f, "d");
    assert_int_equal(mkfifoat(f->fd, "fifo", 0600), 0);
    assert_int_equal(symlinkat("/etc/passwd", f->fd, "absolute"), 0);
    assert_int_equal(symlinkat("../../x", f->fd, "d/escapes"), 0);
    assert_int_equal(symlinkat("../missing", f->fd, "d/inside"), 0);
    scan_expect(f, "+d +d/inside");
    assert_string_equal(f->told, "absolute: it is a symlink that leads out of the project\n"
                                 "d/escapes: it is a symlink that leads out of the project\n"
                                 "fifo: it is neither file, folder nor symlink\n");
}

/* A folder that cannot be read keeps what is known of it. Root reads everything: as another user.
 */
static void test_unreadable(void **state)
{
    struct fixture *f = *state;
    make_dir(f, "d");
    make_file(f, "d/a", "1");
    make_file(f, "z", "1");
    scan_expect(f, "+d +d/a +z");
    assert_int_equal(fchmodat(f->fd, "d", 0000, 0), 0);
    assert_int_equal(fchmodat(f->fd, ".", 0777, 0), 0);
    struct tree_identity before = {0};
    struct err e = ERR_INIT;
    bool root = geteuid() == 0;
    if (root)
        assert_int_equal(
            tree_identity_enter((struct tree_identity){.uid = 65534, .gid = 65534}, &before, &e),
            0);
    assert_int_equal(unlinkat(f->fd, "z", 0), 0);
    struct scan s;
    struct scan_config config = config_of(f);
    assert_int_equal(scan_all(&config, &s, &e), 0);
    if (root)
        tree_identity_leave(before);
    expect(&s, "-z");
    scan_release(&s);
    assert_non_null(strstr(f->told, "d: it cannot be read"));
    assert_int_equal(fchmodat(f->fd, "d", 0755, 0), 0);
}

static void test_paths(void **state)
{
    struct fixture *f = *state;
    make_dir(f, "a");
    make_dir(f, "a/b");
    make_file(f, "a/b/c", "1");
    make_file(f, "a/b/d", "1");
    make_file(f, "other", "1");
    /* A new file brings the folders above it. */
    const char *file[] = {"a/b/c"};
    paths_expect(f, file, 1, "+a +a/b +a/b/c");
    /* Only what was named; overlapping scopes count once. */
    const char *dirs[] = {"a/b/d", "a", "a/b"};
    paths_expect(f, dirs, 3, "+a/b/d");
    assert_int_equal(unlinkat(f->fd, "a/b/c", 0), 0);
    paths_expect(f, file, 1, "-a/b/c");
    paths_expect(f, file, 1, "");
    /* A path beneath a folder that is gone: the whole folder is. */
    assert_int_equal(unlinkat(f->fd, "a/b/d", 0), 0);
    assert_int_equal(unlinkat(f->fd, "a/b", AT_REMOVEDIR), 0);
    const char *gone[] = {"a/b/d/e"};
    paths_expect(f, gone, 1, "-a/b/d -a/b");
    /* The folder became a symlink: nothing is read through it. */
    assert_int_equal(unlinkat(f->fd, "a", AT_REMOVEDIR), 0);
    assert_int_equal(symlinkat("/etc", f->fd, "a"), 0);
    const char *through[] = {"a/passwd"};
    paths_expect(f, through, 1, "");
    const char *link[] = {"a"};
    paths_expect(f, link, 1, "-a");
    const char *ignored[] = {".git/x", "node_modules"};
    make_dir(f, ".git");
    make_file(f, ".git/x", "1");
    make_dir(f, "node_modules");
    paths_expect(f, ignored, 2, "");
    const char *all[] = {""};
    paths_expect(f, all, 1, "+other");
    /* What vanished comes last, whatever its name: it may be what appeared elsewhere. */
    assert_int_equal(renameat(f->fd, "other", f->fd, "zother"), 0);
    const char *renamed[] = {"other", "zother"};
    paths_expect(f, renamed, 2, "+zother -other");
    assert_int_equal(renameat(f->fd, "zother", f->fd, "another"), 0);
    const char *back[] = {"another", "zother"};
    paths_expect(f, back, 2, "+another -zother");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_life_of_a_tree),
        TEST(test_rules),
        TEST(test_rules_of_a_listing),
        TEST(test_left_out),
        TEST(test_unreadable),
        TEST(test_paths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
