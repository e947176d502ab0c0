/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "shared/io.h"

#include "shared/banned.h"

#define PIECE_BYTES ((size_t)300 * 1024) /* several times what a socket holds */

static char dir[PATH_MAX];

static int make_dir(void **state)
{
    (void)state;
    const char *base = getenv("TMPDIR");
    (void)snprintf(dir, sizeof(dir), "%s/t_io.XXXXXX", base ? base : "/tmp");
    return mkdtemp(dir) ? 0 : -1;
}

/* Two levels are all that the tests make. */
static void remove_beneath(const char *path, int levels)
{
    DIR *d = opendir(path);
    struct dirent *entry;
    while (d && (entry = readdir(d))) {
        char sub[PATH_MAX];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (snprintf(sub, sizeof(sub), "%s/%s", path, entry->d_name) >= (int)sizeof(sub))
            continue;
        if (unlink(sub) < 0 && levels > 0)
            remove_beneath(sub, levels - 1);
    }
    if (d)
        (void)closedir(d);
    (void)rmdir(path);
}

static int remove_dir(void **state)
{
    (void)state;
    remove_beneath(dir, 4);
    return access(dir, F_OK) < 0 ? 0 : -1;
}

static const char *in_dir(const char *name)
{
    static char path[PATH_MAX + 64];
    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

static size_t entries_in_dir(void)
{
    size_t count = 0;
    DIR *d = opendir(dir);
    assert_non_null(d);
    while (readdir(d))
        count++;
    (void)closedir(d);
    return count - 2;
}

/* A writer that has to be called many times, and a reader on the other side. */
static void short_transfers_are_continued(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    CLEANUP(freep) uint8_t *data = malloc(2 * PIECE_BYTES);
    assert_non_null(data);
    memset(data, 'd', PIECE_BYTES);
    data[PIECE_BYTES - 1] = 'z';
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)close(ends[0]);
        _exit(io_write_all(ends[1], data, PIECE_BYTES) == 0 ? 0 : 1);
    }
    (void)close(ends[1]);
    assert_int_equal(io_read_full(ends[0], data + PIECE_BYTES, PIECE_BYTES - 1), PIECE_BYTES - 1);
    assert_memory_equal(data, data + PIECE_BYTES, PIECE_BYTES - 1);
    uint8_t rest[10] = {0};
    assert_int_equal(io_read_full(ends[0], rest, sizeof(rest)), 1); /* less at the end only */
    assert_int_equal(rest[0], 'z');
    assert_int_equal(io_read_full(ends[0], rest, sizeof(rest)), 0);
    (void)close(ends[0]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void offsets(void **state)
{
    (void)state;
    CLEANUP(fd_closep) int fd = memfd_create("t_io", MFD_CLOEXEC);
    assert_true(fd >= 0);
    char back[8] = "";
    assert_int_equal(io_pwrite_all(fd, "world", 5, 6), 0);
    assert_int_equal(io_pwrite_all(fd, "hello,", 6, 0), 0);
    assert_int_equal(lseek(fd, 0, SEEK_CUR), 0);
    assert_int_equal(io_pread_full(fd, back, 5, 6), 5);
    assert_memory_equal(back, "world", 5);
    assert_int_equal(io_pread_full(fd, back, sizeof(back), 9), 2); /* beyond the end: less */
    assert_int_equal(io_pread_full(fd, back, sizeof(back), 11), 0);
    assert_int_equal(io_pread_full(fd, back, 1, INT64_MAX - 1), 0);
    /* Offsets that off_t cannot hold do not become negative ones. */
    assert_int_equal(io_pread_full(fd, back, 1, INT64_MAX), -EFBIG);
    assert_int_equal(io_pread_full(fd, back, 1, UINT64_MAX), -EFBIG);
    assert_int_equal(io_pwrite_all(fd, "x", 1, INT64_MAX), -EFBIG);
    assert_int_equal(io_pwrite_all(fd, "x", 1, UINT64_MAX), -EFBIG);
    assert_int_equal(lseek(fd, 0, SEEK_END), 11);
}

static void failures_are_codes(void **state)
{
    (void)state;
    char byte;
    assert_int_equal(io_write_all(-1, "x", 1), -EBADF);
    assert_int_equal(io_write_all(-1, NULL, 0), 0); /* nothing to do, nothing done */
    assert_int_equal(io_read_full(-1, &byte, 1), -EBADF);
    assert_int_equal(io_pread_full(-1, &byte, 1, 0), -EBADF);
    assert_int_equal(io_nonblock(-1, 1), -EBADF);
    CLEANUP(fd_closep) int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    assert_int_equal(io_write_all(full, "x", 1), -ENOSPC);
}

static void the_rest_fits_exactly_or_not(void **state)
{
    (void)state;
    static const struct {
        size_t size, max;
        int result;
    } rows[] = {
        {0, 0, 0},
        {0, 10, 0},
        {1, 0, -ENOBUFS},
        {10, 10, 0},        /* exactly full */
        {11, 10, -ENOBUFS}, /* one too many */
        {16384, 16384, 0},  /* the step of reading */
        {16384, 16385, 0},
        {16385, 16384, -ENOBUFS},
        {100000, 1 << 20, 0},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        CLEANUP(fd_closep) int fd = memfd_create("t_io", MFD_CLOEXEC);
        CLEANUP(freep) uint8_t *data = calloc(rows[i].size + 1, 1);
        assert_non_null(data);
        memset(data, 'r', rows[i].size);
        assert_int_equal(io_write_all(fd, data, rows[i].size), 0);
        assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
        CLEANUP(buf_release) struct buf b;
        buf_init(&b, rows[i].max);
        assert_int_equal(io_read_rest(fd, &b), rows[i].result);
        if (rows[i].result == 0) {
            assert_int_equal(b.len, rows[i].size);
            assert_memory_equal(buf_str(&b), data, b.len + 1); /* and the NUL */
        }
    }
}

static void files_are_read_whole(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    CLEANUP(buf_release) struct buf b;
    assert_int_equal(io_write_file(in_dir("f"), "content", 7, 0600, &e), 0);
    assert_int_equal(io_read_file(in_dir("f"), 7, &b, &e), 0);
    assert_string_equal(buf_str(&b), "content");
    buf_release(&b);
    assert_int_equal(io_read_file(in_dir("f"), 6, &b, &e), -ENOBUFS);
    assert_non_null(strstr(e.msg, "larger than the 6 bytes"));
    assert_null(b.data); /* released: nothing of it is kept */
    assert_int_equal(io_read_file(in_dir("none"), 6, &b, &e), -ENOENT);
    assert_int_equal(io_read_file(dir, 6, &b, &e), -EISDIR);
}

static void files_are_replaced(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct stat before, after;
    assert_int_equal(io_write_file(in_dir("f"), "old", 3, 0600, &e), 0);
    assert_int_equal(stat(in_dir("f"), &before), 0);
    assert_int_equal(before.st_mode & 07777, 0600);
    /* Who has the old file open keeps reading it: it is replaced, not written into. */
    CLEANUP(fd_closep) int fd = open(in_dir("f"), O_RDONLY | O_CLOEXEC);
    assert_int_equal(io_write_file(in_dir("f"), "newer", 5, 0640, &e), 0);
    assert_int_equal(stat(in_dir("f"), &after), 0);
    assert_int_equal(after.st_size, 5);
    char back[8];
    assert_int_equal(io_pread_full(fd, back, sizeof(back), 0), 3);
    assert_memory_equal(back, "old", 3);
}

static void failing_to_replace_leaves_nothing(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    assert_int_equal(mkdir(in_dir("taken"), 0700), 0);
    size_t before = entries_in_dir();
    /* The temporary is made, the rename onto a directory fails. */
    assert_int_equal(io_write_file(in_dir("taken"), "x", 1, 0600, &e), -EISDIR);
    assert_int_equal(entries_in_dir(), before);
    assert_int_equal(io_write_file(in_dir("none/f"), "x", 1, 0600, &e), -ENOENT);
    assert_int_equal(entries_in_dir(), before);
}

static void directories_are_made_to_the_end(void **state)
{
    (void)state;
    struct err e = ERR_INIT;
    struct stat st;
    assert_int_equal(io_mkdirs(in_dir("a/b//c"), 0700, &e), 0);
    assert_int_equal(stat(in_dir("a/b/c"), &st), 0);
    assert_true(S_ISDIR(st.st_mode));
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(io_mkdirs(in_dir("a/b/c/"), 0700, &e), 0); /* there already */
    assert_int_equal(io_mkdirs("/", 0700, &e), 0);
    assert_int_equal(io_write_file(in_dir("plain"), "", 0, 0600, &e), 0);
    assert_int_equal(io_mkdirs(in_dir("plain"), 0700, &e), -ENOTDIR);   /* a file at the end */
    assert_int_equal(io_mkdirs(in_dir("plain/x"), 0700, &e), -ENOTDIR); /* and on the way */
    assert_int_equal(io_mkdirs("", 0700, &e), -ENOENT);
}

static void random_bytes_differ(void **state)
{
    (void)state;
    uint8_t a[64] = {0}, b[64] = {0}, zeros[64] = {0};
    io_random(a, sizeof(a));
    io_random(b, sizeof(b));
    assert_memory_not_equal(a, b, sizeof(a));
    assert_memory_not_equal(a + 48, zeros, 16); /* filled to the end */
    io_random(NULL, 0);
}

static void clocks_have_their_epochs(void **state)
{
    (void)state;
    uint64_t first = io_now_ns();
    assert_true(io_now_ns() >= first);
    assert_true(io_wall_ns() > UINT64_C(1700000000) * 1000000000); /* after 2023 */
}

static void nonblocking_is_switched(void **state)
{
    (void)state;
    int ends[2];
    char byte;
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(io_nonblock(ends[0], 1), 0);
    assert_int_equal(io_read_full(ends[0], &byte, 1), -EAGAIN);
    assert_int_equal(io_nonblock(ends[0], 0), 0);
    assert_int_equal(fcntl(ends[0], F_GETFL) & O_NONBLOCK, 0);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_transfers_are_continued),
        cmocka_unit_test(offsets),
        cmocka_unit_test(failures_are_codes),
        cmocka_unit_test(the_rest_fits_exactly_or_not),
        cmocka_unit_test(files_are_read_whole),
        cmocka_unit_test(files_are_replaced),
        cmocka_unit_test(failing_to_replace_leaves_nothing),
        cmocka_unit_test(directories_are_made_to_the_end),
        cmocka_unit_test(random_bytes_differ),
        cmocka_unit_test(clocks_have_their_epochs),
        cmocka_unit_test(nonblocking_is_switched),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
