/* SPDX-License-Identifier: MIT */
#include "server/http_internal.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include "shared/io.h"
#include "shared/weaken.h"

#include "shared/banned.h"

#define BODY_PIECE_BYTES (64U * 1024U)

static void note_progress(struct http_request *req)
{
    if (req->body_received - req->progress_bytes < HTTP_PROGRESS_BYTES)
        return;
    req->progress_bytes = req->body_received;
    req->progress_ns = io_now_ns();
}

size_t http_body_put(struct http_request *req, const void *data, size_t len)
{
    /* Answered: nobody will read the rest. */
    if (req->kind != ANSWER_NONE) {
        req->body_received += len;
        req->linger_bytes += len;
        note_progress(req);
        return len;
    }
    /* Failed, and the handler has yet to notice: hold the rest back until it answers. */
    if (req->body_error)
        return 0;
    uint64_t allowed = req->body_limit - req->body_received;
    size_t fits = len > allowed ? (size_t)allowed : len;
    size_t taken = http_ring_put(&req->in, data, fits);
    req->body_received += taken;
    if (taken == fits && fits < len)
        req->body_error = -EFBIG;
    else if (taken < fits && http_ring_space(&req->in) > 0)
        req->body_error = -ENOMEM;
    note_progress(req);
    pthread_cond_broadcast(&req->cond);
    return taken;
}

static ssize_t read_raw(struct http_request *req, void *data, size_t len)
{
    pthread_mutex_lock(&req->lock);
    while (req->in.len == 0 && !req->body_complete && !req->body_error)
        (void)pthread_cond_wait(&req->cond, &req->lock);
    ssize_t n = (ssize_t)http_ring_get(&req->in, data, len);
    if (n == 0)
        n = req->body_error;
    /* Half a window of hysteresis: not one wake-up per read. The client did not dawdle while we
     * held it back, so its deadline starts anew. */
    if (req->suspended && !req->body_complete && !req->body_error &&
        req->in.len <= HTTP_COLLECT_BYTES / 2) {
        req->progress_ns = io_now_ns();
        http_wake_io(req);
    }
    pthread_mutex_unlock(&req->lock);
    return n;
}

static int zstd_begin(struct http_request *req)
{
    req->zstd_in = malloc(BODY_PIECE_BYTES);
    req->zstd = ZSTD_createDStream();
    if (!req->zstd_in || !req->zstd)
        return -ENOMEM;
    if (ZSTD_isError(ZSTD_DCtx_setParameter(
            req->zstd, ZSTD_d_windowLogMax, WEAK("zstd-window") ? 31 : HTTP_ZSTD_WINDOW_LOG)))
        return -EINVAL;
    return 0;
}

static ssize_t read_zstd(struct http_request *req, void *data, size_t len)
{
    if (!req->zstd) {
        int r = zstd_begin(req);
        if (r < 0)
            return r;
    }
    ZSTD_outBuffer out = {.dst = data, .size = len};
    for (;;) {
        /* The decoder may still hold output of input that it has swallowed; at the end of a frame
         * it holds nothing, and asking would start another frame. */
        if (req->zstd_in_pos == req->zstd_in_len && !req->zstd_mid_frame) {
            ssize_t n = read_raw(req, req->zstd_in, BODY_PIECE_BYTES);
            if (n <= 0)
                return n;
            req->zstd_in_len = (size_t)n;
            req->zstd_in_pos = 0;
        }
        ZSTD_inBuffer in = {.src = req->zstd_in, .size = req->zstd_in_len, .pos = req->zstd_in_pos};
        size_t left = ZSTD_decompressStream(req->zstd, &out, &in);
        if (ZSTD_isError(left))
            return -EBADMSG;
        req->zstd_in_pos = in.pos;
        req->zstd_mid_frame = left != 0;
        if (out.pos > 0)
            break;
        if (req->zstd_mid_frame && in.pos == in.size) {
            ssize_t n = read_raw(req, req->zstd_in, BODY_PIECE_BYTES);
            if (n <= 0)
                return n < 0 ? n : -EBADMSG;
            req->zstd_in_len = (size_t)n;
            req->zstd_in_pos = 0;
        }
    }
    req->decoded += out.pos;
    return req->decoded > req->body_limit && !WEAK("zstd-size") ? -EFBIG : (ssize_t)out.pos;
}

ssize_t http_body_read(struct http_request *req, void *data, size_t len)
{
    const char *coding = http_header(req, "Content-Encoding");
    if (len == 0)
        return 0;
    if (coding && strcasecmp(coding, "zstd") == 0)
        return read_zstd(req, data, len);
    return read_raw(req, data, len);
}

int http_body_all(struct http_request *req, struct buf *b)
{
    uint8_t piece[16 * 1024];
    for (;;) {
        ssize_t n = http_body_read(req, piece, sizeof(piece));
        if (n <= 0)
            return (int)n;
        int r = buf_add(b, piece, (size_t)n);
        if (r < 0)
            return r == -ENOBUFS ? -EFBIG : r;
    }
}

uint64_t http_body_length(const struct http_request *req)
{
    return req->body_length;
}

void http_body_release(struct http_request *req)
{
    (void)ZSTD_freeDStream(req->zstd);
    free(req->zstd_in);
    http_ring_release(&req->in);
}
