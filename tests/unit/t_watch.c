/* SPDX-License-Identifier: MIT */
/* agent/watch on a real inotify: with the scan that adds the watches, nothing that is written is
 * missed. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
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
#include "agent/watch.h"
#include "shared/io.h"
#include "shared/path.h"

#include "shared/banned.h"

#define PATHS_MAX 40000
#define DEADLINE_NS (UINT64_C(20) * 1000000000) /* a test that gets there has failed */

struct fixture {
    char dir[64];
    int fd, silt_fd;
    struct tree *tree;
    struct ignore *rules;
    struct manifest *known;
    struct watch *watch;
    /* What was told since the last look, in order: "kind:path". */
    char *told[PATHS_MAX];
    size_t count;
    uint64_t cookie;
    bool rescan, root_gone;
    int rescans;
    char *dirs[PATHS_MAX];
    size_t dir_count;
};

static void entered(void *ctx, const char *path, int dir_fd)
{
    struct fixture *f = ctx;
    watch_add(f->watch, path, dir_fd);
}

/* Scan these paths (none: everything), watching what is entered; note what was found. */
static void scan(struct fixture *f, const char *const *paths, size_t count)
{
    struct scan_config config = {
        .tree = f->tree, .rules = f->rules, .known = f->known, .entered = entered, .ctx = f};
    struct scan found;
    struct err e = ERR_INIT;
    int r = count ? scan_paths(&config, paths, count, &found, &e) : scan_all(&config, &found, &e);
    assert_int_equal(r, 0);
    for (size_t i = 0; i < found.count && f->count < PATHS_MAX; i++)
        assert_true(asprintf(&f->told[f->count++], "found:%s", found.items[i].path) > 0);
    scan_release(&found);
}

static void sink(void *ctx, const struct watch_event *event)
{
    static const char *const names[] = {[WATCH_WRITTEN] = "written",
        [WATCH_MODIFIED] = "modified",
        [WATCH_ARRIVED] = "arrived",
        [WATCH_GONE] = "gone",
        [WATCH_LEFT] = "left",
        [WATCH_DIR] = "dir"};
    struct fixture *f = ctx;
    if (event->kind == WATCH_RESCAN) {
        f->rescan = true;
        f->rescans++;
    } else if (event->kind == WATCH_ROOT_GONE)
        f->root_gone = true;
    else if (event->kind == WATCH_COOKIE)
        f->cookie = event->number;
    else if (f->count < PATHS_MAX)
        assert_true(asprintf(&f->told[f->count++], "%s:%s", names[event->kind], event->path) > 0);
    if (event->kind == WATCH_DIR)
        f->dirs[f->dir_count++] = strdup(event->path);
}

static void drain(struct fixture *f)
{
    struct err e = ERR_INIT;
    int r;
    do
        r = watch_drain(f->watch, sink, f, &e);
    while (r == 1);
    if (r < 0)
        fail_msg("%s", e.msg);
    /* As the agent does it: scan what appeared, which watches it. */
    while (f->dir_count) {
        char *path = f->dirs[--f->dir_count];
        scan(f, (const char *const *)&path, 1);
        free(path);
    }
}

/* Everything that was done before was told when this returns. */
static void flush(struct fixture *f)
{
    struct err e = ERR_INIT;
    uint64_t number = 0, deadline = io_now_ns() + DEADLINE_NS;
    bool asked = false;
    while (!asked || f->cookie < number) {
        if (!asked)
            assert_int_equal(watch_cookie(f->watch, &number, &e), 0);
        asked = true;
        struct pollfd p = {.fd = watch_fd(f->watch), .events = POLLIN};
        assert_true(poll(&p, 1, 1000) >= 0);
        drain(f);
        if (f->rescan) {
            /* Nothing is watched now, the cookie may be lost. */
            f->rescan = false;
            scan(f, NULL, 0);
            asked = false;
        }
        assert_true(io_now_ns() < deadline);
    }
}

static bool was_told(const struct fixture *f, const char *what)
{
    for (size_t i = 0; i < f->count; i++) {
        if (strcmp(f->told[i], what) == 0)
            return true;
    }
    return false;
}

/* Was this path told or found in any way? */
static bool was_seen(const struct fixture *f, const char *path)
{
    for (size_t i = 0; i < f->count; i++) {
        if (strcmp(strchr(f->told[i], ':') + 1, path) == 0)
            return true;
    }
    return false;
}

static void clear(struct fixture *f)
{
    while (f->count)
        free(f->told[--f->count]);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct err e = ERR_INIT;
    assert_non_null(f);
    (void)snprintf(f->dir, sizeof(f->dir), "/tmp/t_watch.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    f->fd = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(mkdirat(f->fd, ".silt", 0755), 0);
    f->silt_fd = openat(f->fd, ".silt", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(tree_open(f->dir, &f->tree, &e), 0);
    f->rules = ignore_new(true);
    f->known = manifest_new();
    if (watch_open(f->tree, f->silt_fd, &f->watch, &e) < 0)
        fail_msg("%s", e.msg);
    scan(f, NULL, 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    struct err e = ERR_INIT;
    int tmp = open("/tmp", O_PATH | O_DIRECTORY | O_CLOEXEC);
    clear(f);
    watch_close(f->watch);
    tree_free(f->tree);
    ignore_free(f->rules);
    manifest_free(f->known);
    (void)close(f->fd);
    (void)close(f->silt_fd);
    assert_int_equal(tree_remove_at(tmp, strrchr(f->dir, '/') + 1, &e), 0);
    (void)close(tmp);
    free(f);
    return 0;
}

static void write_file(const struct fixture *f, const char *path, const char *text)
{
    int fd = openat(f->fd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(io_write_all(fd, text, strlen(text)), 0);
    (void)close(fd);
}

static void test_descriptor(void **state)
{
    struct fixture *f = *state;
    /* No child of the agent inherits it. */
    assert_true(fcntl(watch_fd(f->watch), F_GETFD) & FD_CLOEXEC);
    assert_int_equal(watch_count(f->watch), 1);
    assert_null(watch_problem(f->watch));
}

static void test_files(void **state)
{
    struct fixture *f = *state;
    write_file(f, "a", "1");
    flush(f);
    assert_true(was_told(f, "modified:a"));
    assert_true(was_told(f, "written:a"));
    clear(f);
    int fd = openat(f->fd, "a", O_WRONLY | O_APPEND | O_CLOEXEC);
    assert_int_equal(io_write_all(fd, "2", 1), 0);
    flush(f);
    assert_true(was_told(f, "modified:a") && !was_told(f, "written:a"));
    (void)close(fd);
    assert_int_equal(renameat(f->fd, "a", f->fd, "b"), 0);
    assert_int_equal(symlinkat("b", f->fd, "l"), 0);
    assert_int_equal(linkat(f->fd, "b", f->fd, "hard", 0), 0);
    assert_int_equal(fchmodat(f->fd, "b", 0755, 0), 0);
    flush(f);
    assert_true(was_told(f, "left:a") && was_told(f, "arrived:b"));
    /* Made at once: no close will follow. */
    assert_true(
        was_told(f, "written:l") && was_told(f, "written:hard") && was_told(f, "written:b"));
    clear(f);
    assert_int_equal(unlinkat(f->fd, "b", 0), 0);
    flush(f);
    assert_true(was_told(f, "gone:b"));
}

/* mkdir -p a/b/c and a file in it, at once: the race every watcher has. */
static void test_chains(void **state)
{
    struct fixture *f = *state;
    char path[64];
    for (int i = 0; i < 200; i++) {
        (void)snprintf(path, sizeof(path), "r%d", i);
        assert_int_equal(mkdirat(f->fd, path, 0755), 0);
        (void)snprintf(path, sizeof(path), "r%d/b", i);
        assert_int_equal(mkdirat(f->fd, path, 0755), 0);
        (void)snprintf(path, sizeof(path), "r%d/b/c", i);
        assert_int_equal(mkdirat(f->fd, path, 0755), 0);
        (void)snprintf(path, sizeof(path), "r%d/b/c/f", i);
        write_file(f, path, "1");
        /* At times in between, so that each interleaving is met. */
        if (i % 3 == 0)
            drain(f);
    }
    flush(f);
    for (int i = 0; i < 200; i++) {
        (void)snprintf(path, sizeof(path), "r%d/b/c/f", i);
        if (!was_seen(f, path))
            fail_msg("'%s' was missed", path);
    }
    assert_int_equal(watch_count(f->watch), 1 + 3 * 200);
    clear(f);
    /* And they are watched. */
    write_file(f, "r7/b/c/g", "1");
    flush(f);
    assert_true(was_told(f, "written:r7/b/c/g"));
}

static void test_renamed_folders(void **state)
{
    struct fixture *f = *state;
    char out[80];
    assert_int_equal(mkdirat(f->fd, "d", 0755), 0);
    assert_int_equal(mkdirat(f->fd, "d/e", 0755), 0);
    assert_int_equal(mkdirat(f->fd, "dd", 0755), 0);
    flush(f);
    assert_int_equal(watch_count(f->watch), 4);
    /* Renamed within: events carry the new name, and its neighbour "dd" keeps its own. */
    assert_int_equal(renameat(f->fd, "d", f->fd, "n"), 0);
    flush(f);
    clear(f);
    write_file(f, "n/e/x", "1");
    write_file(f, "dd/y", "1");
    flush(f);
    assert_true(was_told(f, "written:n/e/x") && was_told(f, "written:dd/y"));
    assert_int_equal(watch_count(f->watch), 4);
    /* Over an empty one. */
    assert_int_equal(mkdirat(f->fd, "over", 0755), 0);
    flush(f);
    assert_int_equal(renameat(f->fd, "n", f->fd, "over"), 0);
    flush(f);
    clear(f);
    write_file(f, "over/e/z", "1");
    flush(f);
    assert_true(was_told(f, "written:over/e/z"));
    /* Out: no longer ours. */
    (void)snprintf(out, sizeof(out), "%s.out", f->dir);
    assert_int_equal(renameat(f->fd, "over", AT_FDCWD, out), 0);
    flush(f);
    assert_true(was_told(f, "left:over"));
    assert_int_equal(watch_count(f->watch), 2);
    clear(f);
    /* And in again, with what was written there meanwhile. */
    assert_int_equal(renameat(AT_FDCWD, out, f->fd, "in"), 0);
    flush(f);
    assert_true(was_told(f, "dir:in") && was_told(f, "found:in/e/z"));
    assert_int_equal(watch_count(f->watch), 4);
}

static void test_delete_and_recreate(void **state)
{
    struct fixture *f = *state;
    size_t before = watch_count(f->watch);
    for (int i = 0; i < 200; i++) {
        assert_int_equal(mkdirat(f->fd, "again", 0755), 0);
        if (i % 2)
            flush(f);
        write_file(f, "again/f", "1");
        if (i % 3)
            flush(f);
        assert_int_equal(unlinkat(f->fd, "again/f", 0), 0);
        assert_int_equal(unlinkat(f->fd, "again", AT_REMOVEDIR), 0);
    }
    flush(f);
    assert_int_equal(watch_count(f->watch), before);
    clear(f);
    assert_int_equal(mkdirat(f->fd, "again", 0755), 0);
    flush(f);
    write_file(f, "again/last", "1");
    flush(f);
    assert_true(was_told(f, "written:again/last"));
}

static void test_ignored_folders(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(mkdirat(f->fd, "node_modules", 0755), 0);
    assert_int_equal(mkdirat(f->fd, "node_modules/x", 0755), 0);
    flush(f);
    assert_int_equal(watch_count(f->watch), 1);
    /* A rule that comes later: the next full scan drops the watches. */
    assert_int_equal(mkdirat(f->fd, "build", 0755), 0);
    flush(f);
    assert_int_equal(watch_count(f->watch), 2);
    write_file(f, ".gitignore", "build/\n");
    watch_sweep_begin(f->watch);
    scan(f, NULL, 0);
    watch_sweep_end(f->watch);
    assert_int_equal(watch_count(f->watch), 1);
    flush(f);
}

static bool set_sysctl(const char *path, const char *value)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && io_write_all(fd, value, strlen(value)) == 0;
    if (fd >= 0)
        (void)close(fd);
    return ok;
}

/* More events than the kernel keeps: told as a rescan, after which all is watched again. */
static void test_overflow(void **state)
{
    struct fixture *f = *state;
    struct buf limit;
    struct err e = ERR_INIT;
    uint64_t queue = 0;
    char path[64];
    assert_int_equal(io_read_file("/proc/sys/fs/inotify/max_queued_events", 64, &limit, &e), 0);
    queue = strtoull(buf_str(&limit), NULL, 10);
    buf_release(&limit);
    assert_int_equal(mkdirat(f->fd, "d", 0755), 0);
    flush(f);
    if (queue > 100000)
        queue = 100000;
    for (uint64_t i = 0; i <= queue; i++) {
        /* Two different events each, so that none is merged with the one before. */
        (void)snprintf(path, sizeof(path), "d/%d", (int)(i % 2));
        assert_int_equal(mknodat(f->fd, path, S_IFREG | 0644, 0), 0);
        assert_int_equal(unlinkat(f->fd, path, 0), 0);
    }
    write_file(f, "d/late", "1");
    flush(f);
    assert_true(f->rescans > 0);
    assert_true(was_seen(f, "d/late"));
    assert_int_equal(watch_count(f->watch), 2);
    clear(f);
    write_file(f, "d/after", "1");
    flush(f);
    assert_true(was_told(f, "written:d/after"));
}

/* Out of watches: the rest is listed for polling, with the line that helps. Needs root. */
static void test_no_watches_left(void **state)
{
    static const char limit_path[] = "/proc/sys/fs/inotify/max_user_watches";
    struct fixture *f = *state;
    struct buf limit;
    struct err e = ERR_INIT;
    size_t count = 0;
    char path[64];
    if (geteuid() != 0)
        skip();
    assert_int_equal(io_read_file(limit_path, 64, &limit, &e), 0);
    if (!set_sysctl(limit_path, "20")) {
        buf_release(&limit);
        skip();
    }
    for (int i = 0; i < 30; i++) {
        (void)snprintf(path, sizeof(path), "d%02d", i);
        assert_int_equal(mkdirat(f->fd, path, 0755), 0);
    }
    drain(f);
    bool restored = set_sysctl(limit_path, buf_str(&limit));
    buf_release(&limit);
    assert_true(restored);
    const char *const *polled = watch_polled(f->watch, &count);
    assert_int_equal(count + watch_count(f->watch), 31);
    assert_true(count > 0 && polled[0][0] == 'd');
    assert_non_null(strstr(watch_problem(f->watch), "sysctl fs.inotify.max_user_watches="));
    /* With watches again a scan takes them up. */
    scan(f, NULL, 0);
    (void)watch_polled(f->watch, &count);
    assert_int_equal(count, 0);
    assert_null(watch_problem(f->watch));
    flush(f);
}

static void test_root_gone(void **state)
{
    struct fixture *f = *state;
    char out[80];
    struct err e = ERR_INIT;
    uint64_t number = 0;
    (void)snprintf(out, sizeof(out), "%s.out", f->dir);
    assert_int_equal(rename(f->dir, out), 0);
    assert_int_equal(watch_cookie(f->watch, &number, &e), 0);
    while (f->cookie < number)
        drain(f);
    assert_true(f->root_gone);
    assert_int_equal(rename(out, f->dir), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_descriptor),
        TEST(test_files),
        TEST(test_chains),
        TEST(test_renamed_folders),
        TEST(test_delete_and_recreate),
        TEST(test_ignored_folders),
        TEST(test_overflow),
        TEST(test_no_watches_left),
        TEST(test_root_gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
