/* SPDX-License-Identifier: MIT */
#include "server/run_input.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "shared/io.h"

#include "shared/banned.h"

#define END_OF_INPUT 0x04 /* what a terminal takes for it: Ctrl-D */

struct run_input {
    pthread_mutex_t lock; /* all below */
    pthread_cond_t room;
    int fd; /* eventfd */
    bool claimed;
    bool ended, told;        /* no more is to come; a terminal was told so */
    bool closed, by_program; /* no more is taken */
    bool resized;
    unsigned rows, cols;
    uint64_t offset; /* bytes taken */
    size_t start, len;
    uint8_t data[RUN_INPUT_MAX];
};

int run_input_new(struct run_input **ret, struct err *e)
{
    struct run_input *in = calloc(1, sizeof(*in));
    pthread_condattr_t attr;
    if (!in)
        return err_set(e, ENOMEM, "make the program's input");
    in->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (in->fd < 0) {
        int code = errno;
        free(in);
        return err_set(e, code, "make the program's input");
    }
    (void)pthread_mutex_init(&in->lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&in->room, &attr);
    (void)pthread_condattr_destroy(&attr);
    *ret = in;
    return 0;
}

void run_input_free(struct run_input *in)
{
    if (!in)
        return;
    (void)pthread_cond_destroy(&in->room);
    (void)pthread_mutex_destroy(&in->lock);
    fd_closep(&in->fd);
    free(in);
}

static void lock(struct run_input *in)
{
    (void)pthread_mutex_lock(&in->lock);
}

static void unlock(struct run_input *in)
{
    (void)pthread_mutex_unlock(&in->lock);
}

bool run_input_claim(struct run_input *in)
{
    lock(in);
    bool free_before = !in->claimed;
    in->claimed = true;
    unlock(in);
    return free_before;
}

void run_input_unclaim(struct run_input *in)
{
    lock(in);
    in->claimed = false;
    unlock(in);
}

uint64_t run_input_offset(struct run_input *in)
{
    lock(in);
    uint64_t offset = in->offset;
    unlock(in);
    return offset;
}

/* With the lock. */
static int check(const struct run_input *in, uint64_t offset, struct err *e)
{
    if (in->closed)
        return err_refuse(e, PROTO_INPUT_CLOSED,
            in->by_program ? "the program has closed its standard input" : "the run has ended");
    if (offset > in->offset)
        return err_refuse(e, PROTO_OFFSET_MISMATCH,
            "%" PRIu64 " bytes of the input are there: go on behind them", in->offset);
    return 0;
}

/* With the lock: what is new of it, as far as it fits. */
static size_t take(struct run_input *in, const uint8_t *data, size_t len)
{
    size_t room = RUN_INPUT_MAX - in->len, n = len < room ? len : room;
    if (n > 0 && in->start + in->len + n > RUN_INPUT_MAX) {
        memmove(in->data, in->data + in->start, in->len);
        in->start = 0;
    }
    memcpy(in->data + in->start + in->len, data, n);
    in->len += n;
    in->offset += n;
    return n;
}

int run_input_add(struct run_input *in, uint64_t *offset, const void *data, size_t len,
    uint32_t wait_ms, struct err *e)
{
    uint64_t ns = io_now_ns() + (uint64_t)wait_ms * 1000000;
    struct timespec deadline = {
        .tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
    lock(in);
    int r = check(in, *offset, e);
    size_t known = r == 0 && in->offset - *offset < len ? (size_t)(in->offset - *offset) : len;
    if (r == 0 && known < len && in->ended)
        r = err_refuse(e, PROTO_INPUT_CLOSED, "the input was ended at byte %" PRIu64, in->offset);
    while (r == 0 && known < len && in->len == RUN_INPUT_MAX) {
        if (pthread_cond_timedwait(&in->room, &in->lock, &deadline) == ETIMEDOUT)
            r = -EAGAIN;
        else
            r = check(in, *offset, e);
    }
    if (r == 0)
        *offset += known + take(in, (const uint8_t *)data + known, len - known);
    unlock(in);
    if (r == 0)
        (void)eventfd_write(in->fd, 1);
    return r;
}

int run_input_end(struct run_input *in, uint64_t offset, struct err *e)
{
    lock(in);
    int r = check(in, offset, e);
    if (r == 0 && offset < in->offset)
        r = err_refuse(e, PROTO_OFFSET_MISMATCH,
            "%" PRIu64 " bytes of the input are there: it cannot end before", in->offset);
    if (r == 0)
        in->ended = true;
    unlock(in);
    (void)eventfd_write(in->fd, 1);
    return r;
}

void run_input_resize(struct run_input *in, unsigned rows, unsigned cols)
{
    lock(in);
    in->rows = rows;
    in->cols = cols;
    in->resized = true;
    unlock(in);
    (void)eventfd_write(in->fd, 1);
}

bool run_input_size(struct run_input *in, unsigned *ret_rows, unsigned *ret_cols)
{
    lock(in);
    bool resized = in->resized;
    *ret_rows = in->rows;
    *ret_cols = in->cols;
    in->resized = false;
    unlock(in);
    return resized;
}

int run_input_fd(const struct run_input *in)
{
    return in->fd;
}

int run_input_flush(struct run_input *in, int fd, bool terminal)
{
    static const uint8_t end = END_OF_INPUT;
    eventfd_t drained;
    int r = 0;
    (void)eventfd_read(in->fd, &drained);
    lock(in);
    while (r == 0 && in->len > 0) {
        ssize_t n = write(fd, in->data + in->start, in->len);
        if (n > 0) {
            in->start += (size_t)n;
            in->len -= (size_t)n;
        } else if (n < 0 && errno == EAGAIN) {
            r = 1;
        } else if (n < 0 && errno != EINTR) {
            r = -EPIPE;
        }
    }
    if (in->len == 0)
        in->start = 0;
    if (r == 0 && in->ended && !terminal)
        r = -ESHUTDOWN;
    if (r == 0 && in->ended && !in->told) {
        in->told = write(fd, &end, 1) == 1;
        r = in->told ? 0 : errno == EAGAIN ? 1 : -EPIPE;
    }
    if (in->len < RUN_INPUT_MAX)
        (void)pthread_cond_broadcast(&in->room);
    unlock(in);
    return r;
}

void run_input_close(struct run_input *in, bool by_program)
{
    lock(in);
    if (!in->closed) {
        in->closed = true;
        in->by_program = by_program;
    }
    in->len = 0;
    (void)pthread_cond_broadcast(&in->room);
    unlock(in);
}
