/* SPDX-License-Identifier: MIT */
#include "shared/io.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "shared/banned.h"

#define READ_STEP_BYTES ((size_t)16 * 1024)
#define TEMP_SUFFIX_BYTES 24

int io_write_all(int fd, const void *data, size_t len)
{
    const uint8_t *p = data;
    while (len > 0) {
        ssize_t n = write(fd, p, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        p += n;
        len -= (size_t)n;
    }
    return 0;
}

/* Does the range fit into off_t? Foreign offsets must not turn negative. */
static bool range_fits(size_t len, uint64_t offset)
{
    return offset <= INT64_MAX && len <= INT64_MAX - offset;
}

int io_pwrite_all(int fd, const void *data, size_t len, uint64_t offset)
{
    const uint8_t *p = data;
    if (!range_fits(len, offset))
        return -EFBIG;
    while (len > 0) {
        ssize_t n = pwrite(fd, p, len, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        p += n;
        len -= (size_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

ssize_t io_read_full(int fd, void *data, size_t len)
{
    uint8_t *p = data;
    size_t done = 0;
    if (len > SSIZE_MAX)
        return -EINVAL;
    while (done < len) {
        ssize_t n = read(fd, p + done, len - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

ssize_t io_pread_full(int fd, void *data, size_t len, uint64_t offset)
{
    uint8_t *p = data;
    size_t done = 0;
    if (len > SSIZE_MAX)
        return -EINVAL;
    if (!range_fits(len, offset))
        return -EFBIG;
    while (done < len) {
        ssize_t n = pread(fd, p + done, len - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

int io_read_rest(int fd, struct buf *b)
{
    for (;;) {
        size_t room = b->max - b->len;
        size_t step = room < READ_STEP_BYTES ? room : READ_STEP_BYTES;
        if (step == 0) {
            /* Full: only the end of the file is still welcome. */
            uint8_t probe;
            ssize_t n = io_read_full(fd, &probe, 1);
            return n < 0 ? (int)n : n > 0 ? -ENOBUFS : 0;
        }
        int r = buf_reserve(b, step);
        if (r < 0)
            return r;
        ssize_t n = io_read_full(fd, b->data + b->len, step);
        if (n < 0) {
            b->data[b->len] = '\0';
            return (int)n;
        }
        b->len += (size_t)n;
        b->data[b->len] = '\0';
        if ((size_t)n < step)
            return 0;
    }
}

int io_read_file(const char *path, size_t max, struct buf *b, struct err *e)
{
    buf_init(b, max);
    CLEANUP(fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return err_set(e, errno, "open '%s'", path);
    int r = io_read_rest(fd, b);
    if (r == 0)
        return 0;
    buf_release(b);
    if (r == -ENOBUFS)
        return err_say(e, ENOBUFS, "'%s' is larger than the %zu bytes allowed", path, max);
    return err_set(e, -r, "read '%s'", path);
}

static int fill_and_rename(
    int fd, const char *temp, const char *path, const void *data, size_t len, struct err *e)
{
    int r = io_write_all(fd, data, len);
    if (r < 0)
        return err_set(e, -r, "write '%s'", temp);
    if (fsync(fd) < 0)
        return err_set(e, errno, "fsync '%s'", temp);
    if (rename(temp, path) < 0)
        return err_set(e, errno, "rename '%s' to '%s'", temp, path);
    return 0;
}

int io_write_file(const char *path, const void *data, size_t len, mode_t mode, struct err *e)
{
    /* A random name: a temporary left behind by a crash, or by somebody else, is never in the way.
     */
    uint64_t salt;
    io_random(&salt, sizeof(salt));
    size_t size = strlen(path) + TEMP_SUFFIX_BYTES;
    CLEANUP(freep) char *temp = malloc(size);
    if (!temp)
        return err_set(e, ENOMEM, "write '%s'", path);
    (void)snprintf(temp, size, "%s.%016llx.tmp", path, (unsigned long long)salt);
    CLEANUP(fd_closep) int fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0)
        return err_set(e, errno, "create '%s'", temp);
    int r = fill_and_rename(fd, temp, path, data, len, e);
    if (r < 0)
        (void)unlink(temp);
    return r;
}

int io_mkdirs(const char *path, mode_t mode, struct err *e)
{
    CLEANUP(freep) char *copy = strdup(path);
    if (!copy)
        return err_set(e, ENOMEM, "make '%s'", path);
    for (char *at = copy; *at;) {
        at += strspn(at, "/");
        at += strcspn(at, "/");
        char cut = *at;
        *at = '\0';
        if (mkdir(copy, mode) < 0 && errno != EEXIST)
            return err_set(e, errno, "make the directory '%s'", copy);
        *at = cut;
    }
    /* Something that is no directory is found here at its end; in the middle, mkdir found it. */
    struct stat st;
    if (stat(path, &st) < 0)
        return err_set(e, errno, "make the directory '%s'", path);
    if (!S_ISDIR(st.st_mode))
        return err_set(e, ENOTDIR, "make the directory '%s'", path);
    return 0;
}

void io_random(void *data, size_t len)
{
    uint8_t *p = data;
    while (len > 0) {
        ssize_t n = getrandom(p, len, 0);
        if (n < 0 && errno == EINTR)
            continue;
        /* Without strong bytes ids and numbers could repeat: there is no way to go on. */
        if (n <= 0)
            abort();
        p += n;
        len -= (size_t)n;
    }
}

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec ts;
    if (clock_gettime(clock, &ts) < 0)
        abort();
    return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

uint64_t io_now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

uint64_t io_wall_ns(void)
{
    return clock_ns(CLOCK_REALTIME);
}

int io_nonblock(int fd, int on)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0)
        return -errno;
    int wanted = on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
    if (wanted != flags && fcntl(fd, F_SETFL, wanted) < 0)
        return -errno;
    return 0;
}
