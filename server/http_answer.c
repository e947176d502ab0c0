/* SPDX-License-Identifier: MIT */
#include "server/http_internal.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "shared/io.h"
#include "shared/log.h"
#include "shared/text.h"

#include "shared/banned.h"

#define STREAM_BLOCK_BYTES (32U * 1024U)
#define ERROR_JSON_BYTES (4U * 1024U)

/* ---- headers */

void http_add_header(struct http_request *req, const char *name, const char *value)
{
    size_t bytes = strlen(name) + strlen(value) + 2;
    struct http_field *extra = req->extra;
    if (value[strcspn(value, "\r\n")] != '\0' || req->extra_count == HTTP_ANSWER_HEADERS_MAX ||
        req->extra_bytes + bytes > HTTP_ANSWER_HEADER_BYTES) {
        log_error("%s: header '%s' of the answer dropped", req->id, name);
        return;
    }
    if (!extra)
        extra = req->extra = calloc(HTTP_ANSWER_HEADERS_MAX, sizeof(*extra));
    char *copy = malloc(bytes);
    if (!extra || !copy) {
        free(copy);
        log_error("%s: out of memory for header '%s'", req->id, name);
        return;
    }
    memcpy(copy, name, strlen(name) + 1);
    memcpy(copy + strlen(name) + 1, value, strlen(value) + 1);
    extra[req->extra_count++] = (struct http_field){copy, copy + strlen(name) + 1};
    req->extra_bytes += bytes;
}

static const struct http_field ALWAYS[] = {
    {"Silt-Protocol", PROTO_VERSION_TEXT},
    {"X-Content-Type-Options", "nosniff"},
};
#define ALWAYS_COUNT (sizeof(ALWAYS) / sizeof(ALWAYS[0]))

static void add_headers(struct http_request *req, struct MHD_Response *r, const char *content_type)
{
    if (content_type)
        (void)MHD_add_response_header(r, "Content-Type", content_type);
    for (size_t i = 0; i < ALWAYS_COUNT; i++)
        (void)MHD_add_response_header(r, ALWAYS[i].name, ALWAYS[i].value);
    for (size_t i = 0; i < req->extra_count; i++)
        (void)MHD_add_response_header(r, req->extra[i].name, req->extra[i].value);
}

/* ---- an answer before the body's end, which libmicrohttpd cannot give */

static int add_date(struct buf *b)
{
    char text[64];
    struct tm tm;
    time_t now = (time_t)(io_wall_ns() / 1000000000U);
    if (!gmtime_r(&now, &tm) || strftime(text, sizeof(text), "%a, %d %b %Y %T GMT", &tm) == 0)
        return -EINVAL;
    return buf_addf(b, "Date: %s\r\n", text);
}

/* An answer that is ready; neither response nor text: out of memory. */
struct made {
    int status;
    struct MHD_Response *response;
    char *text; /* instead: the whole answer as it goes over the wire */
    size_t text_len;
};

static void make_text(
    struct http_request *req, struct made *made, const char *type, const void *body, size_t len)
{
    CLEANUP(buf_release) struct buf b;
    buf_init(&b, HTTP_EARLY_BYTES + HTTP_ANSWER_HEADER_BYTES + 1024);
    int r = buf_addf(&b, "HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Length: %zu\r\n",
        made->status, MHD_get_reason_phrase_for((unsigned)made->status), len);
    if (r == 0)
        r = add_date(&b);
    if (r == 0 && type)
        r = buf_addf(&b, "Content-Type: %s\r\n", type);
    for (size_t i = 0; i < ALWAYS_COUNT && r == 0; i++)
        r = buf_addf(&b, "%s: %s\r\n", ALWAYS[i].name, ALWAYS[i].value);
    for (size_t i = 0; i < req->extra_count && r == 0; i++)
        r = buf_addf(&b, "%s: %s\r\n", req->extra[i].name, req->extra[i].value);
    if (r == 0)
        r = buf_adds(&b, "\r\n");
    if (r == 0 && req->method != HTTP_HEAD && len > 0)
        r = buf_add(&b, body, len);
    if (r < 0)
        return;
    made->text_len = b.len;
    made->text = buf_steal(&b);
}

void http_answer_send_early(struct http_request *req, int fd)
{
    /* Nothing else was sent for this request, so the socket's buffer takes it whole. Closing now
     * would reset the connection while the client still sends, and it might never see the answer:
     * what comes is discarded for a while. */
    ssize_t n = send(fd, req->early, req->early_len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n != (ssize_t)req->early_len)
        log_debug("%s: the early answer did not go out", req->id);
    (void)shutdown(fd, SHUT_WR);
    req->early_sent = true;
    req->linger_ns = io_now_ns() + HTTP_LINGER_MS * UINT64_C(1000000);
}

/* Must, or should, this answer be sent before the rest of the body was read? */
static bool wants_early(const struct http_request *req, size_t len)
{
    if (len > HTTP_EARLY_BYTES)
        return false;
    if (req->unframed)
        return true;
    if (req->body_complete)
        return false;
    if (req->body_error == -ETIMEDOUT)
        return true;
    /* The client waits for our go-ahead: the answer is queued in the first call instead. */
    if (req->expects_continue && !req->dispatched && req->body_received == 0)
        return false;
    return req->chunked || req->body_length - req->body_received > HTTP_COLLECT_BYTES;
}

/* ---- who answers, and handing it to the I/O thread */

bool http_answer_given(const struct http_request *req)
{
    return req->kind == ANSWER_WHOLE || req->ended;
}

static bool claim(struct http_request *req, enum http_answer_kind kind, size_t len, bool *ret_early)
{
    pthread_mutex_lock(&req->lock);
    bool first = req->kind == ANSWER_NONE;
    if (first) {
        *ret_early = kind == ANSWER_WHOLE && wants_early(req, len);
        req->kind = kind;
        if (!req->body_complete && !req->body_error) {
            req->body_error = -ECONNRESET;
            pthread_cond_broadcast(&req->cond);
        }
        atomic_fetch_add(&req->server->requests, 1);
    }
    pthread_mutex_unlock(&req->lock);
    if (!first)
        log_error("%s: a second answer was ignored", req->id);
    return first;
}

static void publish(struct http_request *req, const struct made *made)
{
    pthread_mutex_lock(&req->lock);
    bool late = req->completed;
    req->status = made->status;
    req->early = made->text;
    req->early_len = made->text_len;
    if (!late)
        req->response = made->response;
    if (!made->response && !made->text)
        req->aborted = true;
    http_wake_io(req);
    pthread_mutex_unlock(&req->lock);
    if (late && made->response)
        MHD_destroy_response(made->response);
}

void http_reply(
    struct http_request *req, int status, const char *content_type, const void *body, size_t len)
{
    bool early = false;
    struct made made = {.status = status};
    if (!claim(req, ANSWER_WHOLE, len, &early))
        return;
    if (early) {
        make_text(req, &made, content_type, body, len);
    } else {
        /* The library's prototype is not const; it copies. */
        made.response = MHD_create_response_from_buffer(len, len ? (void *)(uintptr_t)body : NULL,
            len ? MHD_RESPMEM_MUST_COPY : MHD_RESPMEM_PERSISTENT);
        if (made.response)
            add_headers(req, made.response, content_type);
    }
    publish(req, &made);
}

void http_reply_fd(struct http_request *req, int status, const char *content_type, int fd,
    uint64_t offset, uint64_t len)
{
    bool early;
    CLEANUP(fd_closep) int own = fd;
    if (!claim(req, ANSWER_WHOLE, SIZE_MAX, &early))
        return;
    struct MHD_Response *response =
        len == 0 ? MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT)
                 : MHD_create_response_from_fd_at_offset64(len, own, offset);
    if (response) {
        if (len > 0)
            (void)fd_take(&own);
        add_headers(req, response, content_type);
    }
    publish(req, &(struct made){.status = status, .response = response});
}

/* ---- error answers of our own */

static int add_json_text(struct buf *b, const char *text)
{
    bool utf8 = text_is_utf8(text, strlen(text));
    int r = buf_addc(b, '"');
    for (; *text && r == 0; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            r = buf_addf(b, "\\%c", c);
        else if (c < 0x20)
            r = buf_addf(b, "\\u%04x", c);
        else
            r = buf_addc(b, c >= 0x80 && !utf8 ? '?' : (char)c);
    }
    return r < 0 ? r : buf_addc(b, '"');
}

static void make_error(
    struct http_request *req, enum proto_error code, const char *message, struct buf *b)
{
    const struct proto_error_info *info = proto_error_info(code);
    int r = buf_addf(b, "{\"error\":{\"code\":\"%s\",\"message\":", info->name);
    if (r == 0)
        r = add_json_text(b, message);
    if (r == 0)
        r = buf_addf(b, ",\"retryable\":%s,\"request_id\":\"%s\"}}\n",
            info->retryable ? "true" : "false", req->id);
    if (r < 0)
        buf_reset(b);
}

void http_reply_error(struct http_request *req, enum proto_error code, const char *message)
{
    CLEANUP(buf_release) struct buf b;
    buf_init(&b, ERROR_JSON_BYTES);
    make_error(req, code, message, &b);
    if (code == PROTO_UNAVAILABLE || code == PROTO_BUSY)
        http_add_header(req, "Retry-After", "1");
    http_reply(req, proto_error_info(code)->http_status, "application/json", b.data, b.len);
}

void http_answer_make_early(struct http_request *req, enum proto_error code, const char *message)
{
    CLEANUP(buf_release) struct buf b;
    buf_init(&b, ERROR_JSON_BYTES);
    make_error(req, code, message, &b);
    struct made made = {.status = proto_error_info(code)->http_status};
    make_text(req, &made, "application/json", b.data, b.len);
    req->kind = ANSWER_WHOLE;
    req->early = made.text;
    req->early_len = made.text_len;
    req->aborted = !made.text;
    atomic_fetch_add(&req->server->requests, 1);
}

/* ---- streams */

/* libmicrohttpd wants bytes. It holds the response's mutex. */
static ssize_t stream_reader(void *cls, uint64_t pos, char *out, size_t max)
{
    struct http_request *req = cls;
    ssize_t r = MHD_CONTENT_READER_END_WITH_ERROR;
    (void)pos;
    pthread_mutex_lock(&req->lock);
    if (!req->aborted && !req->gone) {
        r = (ssize_t)http_ring_get(&req->out, out, max);
        if (r > 0)
            pthread_cond_broadcast(&req->cond);
        else if (req->ended)
            r = MHD_CONTENT_READER_END_OF_STREAM;
        else if (!http_suspend(req)) /* returning 0 without it would spin */
            r = MHD_CONTENT_READER_END_WITH_ERROR;
    }
    pthread_mutex_unlock(&req->lock);
    return r;
}

static void stream_free(void *cls)
{
    http_request_drop(cls);
}

int http_stream_begin(struct http_request *req, int status, const char *content_type)
{
    bool early;
    if (!claim(req, ANSWER_STREAM, 0, &early))
        return -EALREADY;
    atomic_fetch_add(&req->refs, 1);
    struct MHD_Response *response = MHD_create_response_from_callback(
        MHD_SIZE_UNKNOWN, STREAM_BLOCK_BYTES, stream_reader, req, stream_free);
    if (response)
        add_headers(req, response, content_type);
    else
        http_request_drop(req);
    /* For HEAD, 0.9.75 would send the last chunk, though no other; without chunks it sends nothing,
     * and closes. */
    if (response && req->method == HTTP_HEAD)
        (void)MHD_set_response_options(response, MHD_RF_HTTP_1_0_COMPATIBLE_STRICT, MHD_RO_END);
    publish(req, &(struct made){.status = status, .response = response});
    return response ? 0 : -ENOMEM;
}

static struct timespec deadline_after(uint32_t ms)
{
    uint64_t ns = io_now_ns() + ms * UINT64_C(1000000);
    return (struct timespec){(time_t)(ns / 1000000000U), (long)(ns % 1000000000U)};
}

/* Wait for room for `want` bytes. */
static int wait_for_room(struct http_request *req, size_t want, const struct timespec *deadline)
{
    while (!req->gone && !req->aborted && http_ring_space(&req->out) < want)
        if (pthread_cond_timedwait(&req->cond, &req->lock, deadline) == ETIMEDOUT &&
            http_ring_space(&req->out) < want)
            return req->gone ? -EPIPE : -ETIMEDOUT;
    return req->gone || req->aborted ? -EPIPE : 0;
}

int http_stream_write(struct http_request *req, const void *data, size_t len, uint32_t timeout_ms)
{
    const uint8_t *p = data;
    struct timespec deadline = deadline_after(timeout_ms);
    int r = 0;
    pthread_mutex_lock(&req->lock);
    if (req->kind != ANSWER_STREAM || req->ended)
        r = -EPIPE;
    while (len > 0 && r == 0) {
        size_t piece = len < HTTP_STREAM_BYTES ? len : HTTP_STREAM_BYTES;
        if (req->method == HTTP_HEAD) {
            r = req->gone ? -EPIPE : 0;
            break;
        }
        r = wait_for_room(req, piece, &deadline);
        if (r == 0 && http_ring_put(&req->out, p, piece) < piece) {
            /* Part of it may be in the ring: the stream cannot go on. */
            req->aborted = true;
            r = -ENOMEM;
        }
        p += piece;
        len -= piece;
        http_wake_io(req);
    }
    pthread_mutex_unlock(&req->lock);
    return r;
}

void http_stream_end(struct http_request *req)
{
    pthread_mutex_lock(&req->lock);
    if (req->kind == ANSWER_STREAM && !req->ended) {
        req->ended = true;
        http_wake_io(req);
    }
    pthread_mutex_unlock(&req->lock);
}

void http_answer_release(struct http_request *req)
{
    if (req->response)
        MHD_destroy_response(req->response);
    free(req->early);
    for (size_t i = 0; i < req->extra_count; i++)
        free((void *)(uintptr_t)req->extra[i].name);
    free(req->extra);
    http_ring_release(&req->out);
}
