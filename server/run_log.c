/* SPDX-License-Identifier: MIT */
#include "server/run_log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "shared/io.h"
#include "shared/text.h"
#include "shared/weaken.h"

#include "shared/banned.h"

/* On disk and in memory a frame is stream u8, seq u32, t_us u64, len u32, bytes. */
#define HEAD_BYTES 17
#define CARRY_MAX 4

struct run_log {
    pthread_mutex_t lock; /* all below */
    pthread_cond_t grown;
    char *path;
    int fd;            /* the file, or -1 while nothing was written */
    uint64_t on_disk;  /* bytes of whole frames in the file */
    struct buf memory; /* the frames after those */
    bool ended;
    uint64_t stream_max;
    struct run_log_stats stats;
    uint8_t carry[RUN_STREAMS][CARRY_MAX];
    size_t carry_len[RUN_STREAMS];
    uint8_t *joint; /* RUN_LOG_FRAME_MAX bytes, made when first needed: what was carried and what
                       follows */
};

static int make_log(const char *path, uint64_t stream_max, struct run_log **ret, struct err *e)
{
    struct run_log *log = calloc(1, sizeof(*log));
    if (!log || !(log->path = strdup(path))) {
        free(log);
        return err_set(e, ENOMEM, "make a run's log");
    }
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&log->grown, &attr);
    (void)pthread_condattr_destroy(&attr);
    (void)pthread_mutex_init(&log->lock, NULL);
    log->fd = -1;
    log->stream_max = WEAK("output") ? UINT64_MAX : stream_max;
    log->stats.text[RUN_STDOUT] = log->stats.text[RUN_STDERR] = true;
    buf_init(&log->memory, RUN_LOG_MEMORY + 2 * (RUN_LOG_FRAME_MAX + HEAD_BYTES + CARRY_MAX));
    *ret = log;
    return 0;
}

int run_log_new(const char *path, uint64_t stream_max, struct run_log **ret, struct err *e)
{
    return make_log(path, stream_max, ret, e);
}

void run_log_free(struct run_log *log)
{
    if (!log)
        return;
    fd_closep(&log->fd);
    buf_release(&log->memory);
    free(log->joint);
    (void)pthread_cond_destroy(&log->grown);
    (void)pthread_mutex_destroy(&log->lock);
    free(log->path);
    free(log);
}

void run_log_freep(struct run_log **log)
{
    run_log_free(*log);
    *log = NULL;
}

static int flush_locked(struct run_log *log)
{
    if (log->memory.len == 0)
        return 0;
    if (log->fd < 0)
        log->fd = open(log->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (log->fd < 0)
        return -errno;
    int r = io_pwrite_all(log->fd, log->memory.data, log->memory.len, log->on_disk);
    if (r < 0)
        return r;
    log->on_disk += log->memory.len;
    buf_reset(&log->memory);
    return 0;
}

int run_log_flush(struct run_log *log, struct err *e)
{
    (void)pthread_mutex_lock(&log->lock);
    int r = flush_locked(log);
    for (enum run_stream stream = RUN_STDOUT; r < 0 && log->ended && stream < RUN_STREAMS; stream++)
        log->stats.truncated[stream] = log->stats.truncated[stream] || log->stats.kept[stream] > 0;
    (void)pthread_mutex_unlock(&log->lock);
    return r < 0 ? err_set(e, -r, "write '%s'", log->path) : 0;
}

/* One frame of at most RUN_LOG_FRAME_MAX bytes. */
static int add_frame(
    struct run_log *log, enum run_stream stream, uint64_t t_us, const void *data, size_t len)
{
    int r = 0;
    if (log->memory.len > RUN_LOG_MEMORY)
        r = flush_locked(log);
    r = r < 0 ? r : buf_reserve(&log->memory, HEAD_BYTES + len);
    r = r < 0 ? r : buf_add_u8(&log->memory, (uint8_t)stream);
    r = r < 0 ? r : buf_add_u32(&log->memory, log->stats.last_seq + 1);
    r = r < 0 ? r : buf_add_u64(&log->memory, t_us);
    r = r < 0 ? r : buf_add_u32(&log->memory, (uint32_t)len);
    r = r < 0 ? r : buf_add(&log->memory, data, len);
    if (r < 0)
        return r;
    log->stats.last_seq++;
    log->stats.kept[stream] += len;
    log->stats.text[stream] = log->stats.text[stream] && text_is_utf8(data, len);
    return 0;
}

static void add_piece(
    struct run_log *log, enum run_stream stream, uint64_t t_us, const uint8_t *data, size_t len)
{
    size_t carried = log->carry_len[stream];
    log->stats.bytes[stream] += len;
    if (carried > 0 && !log->joint)
        log->joint = malloc(RUN_LOG_FRAME_MAX);
    if (carried > 0 && !log->joint)
        log->stats.truncated[stream] = true;
    if (log->stats.truncated[stream])
        return;
    uint64_t room = log->stream_max - log->stats.kept[stream] - carried;
    bool cut = len > room;
    if (cut)
        len = (size_t)room;
    if (carried > 0) {
        memcpy(log->joint, log->carry[stream], carried);
        memcpy(log->joint + carried, data, len);
        data = log->joint;
        len += carried;
    }
    /* The beginning of a character at the end waits for its rest, unless there will be none. */
    size_t whole = cut ? len : text_utf8_whole(data, len);
    if (whole > 0 && add_frame(log, stream, t_us, data, whole) < 0) {
        cut = true;
        whole = len;
    }
    log->carry_len[stream] = len - whole;
    memcpy(log->carry[stream], data + whole, len - whole);
    log->stats.truncated[stream] = cut;
}

void run_log_add(
    struct run_log *log, enum run_stream stream, uint64_t t_us, const void *data, size_t len)
{
    const size_t most = RUN_LOG_FRAME_MAX - CARRY_MAX;
    const uint8_t *p = data;
    (void)pthread_mutex_lock(&log->lock);
    while (len > 0) {
        size_t piece = len < most ? len : most;
        add_piece(log, stream, t_us, p, piece);
        p += piece;
        len -= piece;
    }
    (void)pthread_cond_broadcast(&log->grown);
    (void)pthread_mutex_unlock(&log->lock);
}

void run_log_end(struct run_log *log, uint64_t t_us)
{
    (void)pthread_mutex_lock(&log->lock);
    for (enum run_stream s = RUN_STDOUT; s < RUN_STREAMS; s++) {
        if (log->carry_len[s] > 0 && add_frame(log, s, t_us, log->carry[s], log->carry_len[s]) < 0)
            log->stats.truncated[s] = true;
        log->carry_len[s] = 0;
    }
    log->ended = true;
    (void)pthread_cond_broadcast(&log->grown);
    (void)pthread_mutex_unlock(&log->lock);
}

void run_log_stats(struct run_log *log, struct run_log_stats *ret)
{
    (void)pthread_mutex_lock(&log->lock);
    *ret = log->stats;
    (void)pthread_mutex_unlock(&log->lock);
}

/* The file is a record that a crash or a full disk may have cut: it ends where a head does not fit.
 */
static int load_stats(struct run_log *log)
{
    CLEANUP(buf_release) struct buf scratch;
    struct run_frame frame;
    uint64_t offset = 0, whole = 0;
    int r;
    buf_init(&scratch, RUN_LOG_FRAME_MAX + 64);
    while ((r = run_log_next(log, &offset, &frame, &scratch, 0)) == 1) {
        whole = offset;
        log->stats.bytes[frame.stream] += frame.len;
        log->stats.kept[frame.stream] += frame.len;
        log->stats.last_seq = frame.seq;
        log->stats.text[frame.stream] =
            log->stats.text[frame.stream] && text_is_utf8(frame.data, frame.len);
    }
    log->on_disk = whole;
    return r == -EPIPE || r == -EBADMSG ? 0 : r;
}

int run_log_load(const char *path, struct run_log **ret, struct err *e)
{
    CLEANUP(run_log_freep) struct run_log *log = NULL;
    int r = make_log(path, UINT64_MAX, &log, e);
    if (r < 0)
        return r;
    log->ended = true;
    log->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (log->fd < 0 && errno != ENOENT)
        return err_set(e, errno, "open '%s'", path);
    if (log->fd >= 0) {
        off_t size = lseek(log->fd, 0, SEEK_END);
        log->on_disk = size > 0 ? (uint64_t)size : 0;
        r = load_stats(log);
        if (r < 0)
            return err_set(e, -r, "read '%s'", path);
    }
    *ret = ptr_take(&log);
    return 0;
}

/* len bytes of the log's frames at offset, from the file or from memory. Never across both: a frame
 * lies in one of them. */
static int read_at(struct run_log *log, uint64_t offset, size_t len, void *data)
{
    if (offset >= log->on_disk) {
        size_t at = (size_t)(offset - log->on_disk);
        if (at > log->memory.len || len > log->memory.len - at)
            return -EBADMSG;
        memcpy(data, log->memory.data + at, len);
        return 0;
    }
    if (len > log->on_disk - offset)
        return -EBADMSG;
    ssize_t n = io_pread_full(log->fd, data, len, offset);
    return n < 0 ? (int)n : (size_t)n < len ? -EBADMSG : 0;
}

static int next_locked(
    struct run_log *log, uint64_t *offset, struct run_frame *ret, struct buf *scratch)
{
    uint8_t head[HEAD_BYTES];
    struct cursor c;
    int r = read_at(log, *offset, sizeof(head), head);
    if (r < 0)
        return r;
    cursor_init(&c, head, sizeof(head));
    ret->stream = (enum run_stream)cursor_u8(&c);
    ret->seq = cursor_u32(&c);
    ret->t_us = cursor_u64(&c);
    ret->len = cursor_u32(&c);
    if (ret->stream >= RUN_STREAMS || ret->len == 0 || ret->len > RUN_LOG_FRAME_MAX)
        return -EBADMSG;
    buf_reset(scratch);
    r = buf_reserve(scratch, ret->len);
    if (r == 0)
        r = read_at(log, *offset + HEAD_BYTES, ret->len, scratch->data);
    if (r < 0)
        return r;
    ret->data = scratch->data;
    *offset += HEAD_BYTES + ret->len;
    return 1;
}

static struct timespec deadline_in(uint32_t ms)
{
    uint64_t ns = io_now_ns() + (uint64_t)ms * 1000000;
    return (struct timespec){
        .tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
}

int run_log_next(struct run_log *log, uint64_t *offset, struct run_frame *ret, struct buf *scratch,
    uint32_t timeout_ms)
{
    struct timespec deadline = deadline_in(timeout_ms);
    int r = 0;
    (void)pthread_mutex_lock(&log->lock);
    while (*offset >= log->on_disk + log->memory.len) {
        if (log->ended)
            r = -EPIPE;
        else if (timeout_ms == 0 ||
                 pthread_cond_timedwait(&log->grown, &log->lock, &deadline) == ETIMEDOUT)
            r = *offset >= log->on_disk + log->memory.len && !log->ended ? -ETIMEDOUT : 0;
        if (r < 0)
            break;
    }
    if (r == 0)
        r = next_locked(log, offset, ret, scratch);
    (void)pthread_mutex_unlock(&log->lock);
    return r == -ETIMEDOUT ? 0 : r;
}

/* Every frame of `which` that is there now, in order. */
static int each_frame(struct run_log *log, enum run_stream which,
    int (*visit)(const struct run_frame *frame, void *ctx), void *ctx)
{
    CLEANUP(buf_release) struct buf scratch;
    struct run_frame frame;
    uint64_t offset = 0;
    int r;
    buf_init(&scratch, RUN_LOG_FRAME_MAX + 64);
    while ((r = run_log_next(log, &offset, &frame, &scratch, 0)) == 1) {
        if (which != RUN_STREAMS && frame.stream != which)
            continue;
        r = visit(&frame, ctx);
        if (r != 0)
            return r < 0 ? r : 0;
    }
    return r == -EPIPE ? 0 : r;
}

static int visit_text(const struct run_frame *frame, void *ctx)
{
    struct buf *b = ctx;
    size_t room = b->max - b->len;
    int r = buf_add(b, frame->data, frame->len < room ? frame->len : room);
    return r < 0 ? r : frame->len > room;
}

int run_log_text(struct run_log *log, enum run_stream which, struct buf *b)
{
    return each_frame(log, which, visit_text, b);
}

struct copying {
    int fd;
    uint64_t bytes;
};

static int visit_copy(const struct run_frame *frame, void *ctx)
{
    struct copying *c = ctx;
    c->bytes += frame->len;
    return io_write_all(c->fd, frame->data, frame->len);
}

int run_log_copy(struct run_log *log, enum run_stream which, int fd, uint64_t *ret_bytes)
{
    struct copying c = {.fd = fd};
    int r = each_frame(log, which, visit_copy, &c);
    *ret_bytes = c.bytes;
    return r;
}

struct tailing {
    struct buf *b;
    size_t max;
};

static int visit_tail(const struct run_frame *frame, void *ctx)
{
    struct tailing *t = ctx;
    size_t len = frame->len < t->max ? frame->len : t->max;
    if (t->b->len + len > t->max)
        buf_consume(t->b, t->b->len + len - t->max);
    return buf_add(t->b, frame->data + frame->len - len, len);
}

int run_log_tail(struct run_log *log, enum run_stream which, size_t max, struct buf *b)
{
    struct tailing t = {.b = b, .max = max};
    return each_frame(log, which, visit_tail, &t);
}
