/* SPDX-License-Identifier: MIT */
/* An image appears whole or not at all, and goes only when nobody uses it. */
#include "tests/unit/image_fixture.h"

#include <dirent.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/wait.h>

#include "server/image_import.h"

#include "shared/banned.h"

static void write_archive(const struct image_place *p, const char *name, const struct tar_entry *entries)
{
    char path[256];
    struct buf tar;
    tar_make(&tar, entries);
    place_path(p, name, path);
    assert_int_equal(io_write_file(path, tar.data, tar.len, 0644, NULL), 0);
    buf_release(&tar);
}

static const struct tar_entry good[] = {{'0', "bin/a", "x", 0755, 0, 0}, {'0', NULL, NULL, 0, 0, 0}};

/* The names in a folder of the test, sorted, one after another. */
static void assert_names(const struct image_place *p, const char *dir, const char *expected)
{
    char path[256];
    struct dirent **list = NULL;
    struct buf names;
    buf_init(&names, 4096);
    place_path(p, dir, path);
    int n = scandir(path, &list, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        if (strcmp(list[i]->d_name, ".") != 0 && strcmp(list[i]->d_name, "..") != 0)
            assert_int_equal(buf_addf(&names, "%s ", list[i]->d_name), 0);
        free(list[i]);
    }
    free(list);
    assert_string_equal(buf_str(&names), expected);
    buf_release(&names);
}

static int import(const struct image_place *p, const char *name, const char *file, struct err *e)
{
    struct image image;
    char dir[256], path[256];
    place_path(p, "root", dir);
    place_path(p, file, path);
    int r = image_import(dir, name, path, 0, &image, e);
    if (r == 0) {
        assert_string_equal(image.name, name);
        assert_string_equal(image.source, file);
        assert_true(image.noted && image.imported_ns > 0);
    }
    image_release(&image);
    return r;
}

static void test_import(void **state)
{
    static const struct tar_entry bad[] = {{'0', "bin/a", "x", 0755, 0, 0},
        {'0', "../b", "x", 0, 0, 0}, {'0', NULL, NULL, 0, 0, 0}};
    struct image_place p;
    struct image image;
    struct err e = ERR_INIT;
    struct stat st;
    char path[256];
    (void)state;
    place_new(&p);
    write_archive(&p, "good.tar", good);
    write_archive(&p, "bad.tar", bad);
    assert_int_equal(import(&p, "bad", "bad.tar", &e), -EINVAL);
    assert_names(&p, "root", ".silt ");
    assert_names(&p, "root/.silt", "lock ");
    assert_int_equal(import(&p, "one", "good.tar", &e), 0);
    assert_names(&p, "root", ".silt one ");
    assert_names(&p, "root/.silt", "lock notes ");
    assert_int_equal(fstatat(p.root, "one", &st, 0), 0);
    assert_int_equal(st.st_mode & 07777, 0755);
    assert_int_equal(fstatat(p.root, ".silt", &st, 0), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(import(&p, "one", "good.tar", &e), -EEXIST);
    assert_non_null(strstr(e.msg, "siltd image remove one"));
    assert_int_equal(import(&p, "host", "good.tar", &e), -EINVAL);
    assert_int_equal(import(&p, "../x", "good.tar", &e), -EINVAL);
    assert_int_equal(import(&p, "two", "none.tar", &e), -ENOENT);
    assert_int_equal(import(&p, "two", "parts", &e), -EINVAL); /* a folder, but no layout */
    assert_non_null(strstr(e.msg, "no OCI layout"));
    place_path(&p, "root", path);
    assert_int_equal(image_load(path, "one", &image, &e), 0);
    assert_string_equal(image.source, "good.tar");
    image_release(&image);
    /* What an interrupted one left is gone with the next, and no image until then. */
    assert_int_equal(mkdirat(p.root, ".silt/work", 0700) | mkdirat(p.root, ".silt/work/root", 0700), 0);
    assert_int_equal(import(&p, "two", "good.tar", &e), 0);
    assert_names(&p, "root/.silt", "lock notes ");
    assert_names(&p, "root/.silt/notes", "one two ");
    CLEANUP(fd_closep) int lock = openat(p.root, ".silt/lock", O_RDWR | O_CLOEXEC);
    assert_int_equal(flock(lock, LOCK_EX), 0);
    assert_int_equal(import(&p, "three", "good.tar", &e), -EBUSY);
    place_free(&p);
}

/* Somebody kills the import in its middle: the archive is a pipe that never ends. */
static void test_killed(void **state)
{
    struct image_place p;
    struct err e = ERR_INIT;
    char fifo[256];
    (void)state;
    place_new(&p);
    place_path(&p, "fifo", fifo);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    pid_t pid = fork();
    if (pid == 0)
        _exit(import(&p, "one", "fifo", NULL) == 0 ? 0 : 1);
    CLEANUP(fd_closep) int to = open(fifo, O_WRONLY | O_CLOEXEC);
    struct buf tar;
    tar_make(&tar, good);
    assert_int_equal(io_write_all(to, tar.data, 512), 0);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    fd_closep(&to);
    char **names = NULL, dir[256];
    place_path(&p, "root", dir);
    assert_int_equal(image_names(dir, &names, &e), 0);
    assert_null(names[0]);
    image_names_free(names);
    write_archive(&p, "good.tar", good);
    assert_int_equal(unlink(fifo), 0);
    /* Its child dies by itself, and the lock is held until then. */
    int r;
    for (int tries = 0; (r = import(&p, "one", "good.tar", &e)) == -EBUSY && tries < 6000; tries++)
        (void)usleep(10000);
    assert_int_equal(r, 0);
    buf_release(&tar);
    place_free(&p);
}

struct asked {
    unsigned times, used_at; /* from which question on somebody uses it */
    bool there[2];
    char dir[256];
};

static int ask(void *ctx, const char *name, struct err *e)
{
    struct asked *a = ctx;
    struct image image;
    a->there[a->times & 1] = image_load(a->dir, name, &image, NULL) == 0;
    image_release(&image);
    return ++a->times >= a->used_at ? err_say(e, EBUSY, "used") : 0;
}

static void test_remove(void **state)
{
    struct image_place p;
    struct err e = ERR_INIT;
    (void)state;
    place_new(&p);
    write_archive(&p, "good.tar", good);
    assert_int_equal(import(&p, "one", "good.tar", &e), 0);
    for (unsigned used_at = 1; used_at <= 2; used_at++) {
        struct asked a = {.used_at = used_at};
        place_path(&p, "root", a.dir);
        assert_int_equal(image_remove(a.dir, "one", ask, &a, &e), -EBUSY);
        assert_int_equal(a.times, used_at);
        assert_true(a.there[0] && !a.there[1]);
        assert_names(&p, "root", ".silt one ");
        assert_names(&p, "root/one/bin", "a ");
        assert_names(&p, "root/.silt/notes", "one ");
    }
    struct asked a = {.used_at = 9};
    place_path(&p, "root", a.dir);
    assert_int_equal(image_remove(a.dir, "one", ask, &a, &e), 0);
    assert_names(&p, "root", ".silt ");
    assert_names(&p, "root/.silt/notes", "");
    assert_true(image_remove(a.dir, "one", ask, &a, &e) < 0);
    assert_int_equal(e.refusal, PROTO_UNKNOWN_IMAGE);
    assert_int_equal(image_remove(a.dir, "host", ask, &a, &e), -EINVAL);
    assert_true(image_remove(a.dir, ".silt", ask, &a, &e) < 0);
    assert_true(image_remove(a.dir, "..", ask, &a, &e) < 0);
    assert_names(&p, "root", ".silt ");
    place_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_import), cmocka_unit_test(test_killed),
        cmocka_unit_test(test_remove)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
