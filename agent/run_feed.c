/* SPDX-License-Identifier: MIT */
#include "agent/run_feed.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "shared/io.h"
#include "shared/proto.h"

#include "shared/banned.h"

#define AGAIN_NS UINT64_C(200000000)
#define DEAF_NS UINT64_C(2000000000) /* a server that is silent for so long gets no Ctrl-C */
#define BACKGROUND_MS 200
#define INTERRUPT 0x03 /* Ctrl-C as a byte */

/* Reading a terminal that another job has would stop us. */
static bool in_background(void)
{
    return isatty(0) == 1 && tcgetpgrp(0) != getpgrp();
}

/* An empty file, or a pipe that nobody writes to any more: then the program needs no stream, and
 * may have been started before. */
static bool has_ended(mode_t mode, off_t size)
{
    struct pollfd p = {.fd = 0, .events = POLLIN};
    int waiting = 0;
    if (S_ISREG(mode))
        return lseek(0, 0, SEEK_CUR) >= size;
    return S_ISFIFO(mode) && poll(&p, 1, 0) == 1 && (p.revents & POLLHUP) &&
           ioctl(0, FIONREAD, &waiting) == 0 && waiting == 0;
}

enum run_feed_kind run_feed_look(bool terminal)
{
    struct stat st;
    if (fstat(0, &st) < 0 || (S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3)) ||
        S_ISDIR(st.st_mode) || has_ended(st.st_mode, st.st_size))
        return RUN_FEED_NONE;
    if (isatty(0) == 1 && terminal)
        return in_background() ? RUN_FEED_NONE : RUN_FEED_TERMINAL;
    return RUN_FEED_BYTES;
}

void run_feed_init(struct run_feed *f, struct client *client, enum run_feed_kind kind)
{
    *f = (struct run_feed){.client = client, .kind = kind};
    f->headers[0] = f->offset_line;
}

void run_feed_release(struct run_feed *f)
{
    if (f->call)
        client_abort(f->client, f->call);
    f->call = NULL;
    free(f->data);
    f->data = NULL;
}

int run_feed_restart(struct run_feed *f, const char *id, struct err *e)
{
    if (f->kind == RUN_FEED_NONE || strcmp(f->id, id) == 0)
        return 0;
    if (f->call)
        client_abort(f->client, f->call);
    f->call = NULL;
    if (f->base > 0)
        return err_say(e, ESPIPE, "the run was asked for anew, but a part of its input is gone");
    f->taken = 0;
    f->end_told = f->closed = false;
    (void)snprintf(f->id, sizeof(f->id), "%s", id);
    return 0;
}

void run_feed_again(struct run_feed *f)
{
    if (f->call)
        client_abort(f->client, f->call);
    f->call = NULL;
    f->again_ns = 0;
}

static bool reads(const struct run_feed *f)
{
    return f->kind != RUN_FEED_NONE && f->id[0] && !f->at_end && !f->closed &&
           f->len < RUN_FEED_MAX;
}

int run_feed_fd(const struct run_feed *f)
{
    return reads(f) && !in_background() ? 0 : -1;
}

static bool is_due(const struct run_feed *f)
{
    bool any = f->base + f->len > f->taken || (f->at_end && !f->end_told);
    return f->id[0] && any && !f->closed && !f->call;
}

int run_feed_wait_ms(const struct run_feed *f, int usual_ms)
{
    uint64_t now = io_now_ns();
    if (is_due(f))
        return f->again_ns > now ? (int)((f->again_ns - now) / 1000000) + 1 : 0;
    return reads(f) && in_background() && usual_ms > BACKGROUND_MS ? BACKGROUND_MS : usual_ms;
}

/* What the server has is kept only as long as a run that has not started may be asked for anew. */
static void drop_taken(struct run_feed *f)
{
    if (f->taken <= RUN_FEED_KEEP || f->taken <= f->base)
        return;
    size_t n = (size_t)(f->taken - f->base);
    f->len -= n;
    memmove(f->data, f->data + n, f->len);
    f->base = f->taken;
}

/* How far the server has got, by its answer; false: it does not say. */
static bool learn_offset(struct run_feed *f, const json_t *object)
{
    json_t *offset = json_object_get(object, "offset");
    uint64_t value = (uint64_t)json_integer_value(offset);
    if (!json_is_integer(offset) || value < f->base || value > f->base + f->len)
        return false;
    f->taken = value;
    return true;
}

static void on_answer(void *ctx, int result, struct client_response *response, const struct err *e)
{
    struct run_feed *f = ctx;
    uint64_t before = f->taken;
    bool lost = result < 0 && result != -EPROTO;
    f->call = NULL;
    f->lost_ns = !lost ? 0 : f->lost_ns ? f->lost_ns : f->asked_ns;
    if (result == 0) {
        json_t *answer = client_json(response, NULL);
        if (!learn_offset(f, answer))
            f->closed = true;
        json_decref(answer);
        f->end_told |= f->end_under_way;
    } else if (e->refusal == PROTO_BUSY || e->refusal == PROTO_OFFSET_MISMATCH ||
               e->refusal == PROTO_UNAVAILABLE) {
        (void)learn_offset(f, response->error_details);
    } else if (result == -EPROTO) {
        f->closed = true;
    }
    /* Whatever broke is tried again, in a moment unless something was taken. */
    f->again_ns = result < 0 && f->taken == before ? io_now_ns() + AGAIN_NS : 0;
    drop_taken(f);
}

static void send_due(struct run_feed *f)
{
    struct err ignored = ERR_INIT;
    size_t skip = (size_t)(f->taken - f->base), len = f->len - skip;
    if (!is_due(f) || io_now_ns() < f->again_ns)
        return;
    f->under_way = len < RUN_FEED_BODY ? len : RUN_FEED_BODY;
    f->end_under_way = f->at_end && f->under_way == len;
    (void)snprintf(f->path, sizeof(f->path), "/v1/runs/%s/stdin%s", f->id,
        f->end_under_way ? "?eof=true" : "");
    (void)snprintf(f->offset_line, sizeof(f->offset_line), "Upload-Offset: %" PRIu64, f->taken);
    const struct client_request req = {
        .method = "POST",
        .path = f->path,
        .content_type = "application/octet-stream",
        .headers = f->headers,
        .body = f->data ? f->data + skip : (const uint8_t *)"",
        .body_len = f->under_way,
    };
    f->asked_ns = io_now_ns();
    if (client_start(f->client, &req, on_answer, f, &f->call, &ignored) < 0)
        f->again_ns = io_now_ns() + AGAIN_NS;
}

/* Behind what is kept, which stays where it is: a request under way borrows it. */
static int read_some(struct run_feed *f)
{
    if (!f->data && !(f->data = malloc(RUN_FEED_MAX)))
        return 0;
    ssize_t n = read(0, f->data + f->len, RUN_FEED_MAX - f->len);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0) {
        f->at_end = true;
        return 0;
    }
    uint64_t since = f->lost_ns ? f->lost_ns : f->call ? f->asked_ns : UINT64_MAX;
    bool deaf = io_now_ns() > since && io_now_ns() - since > DEAF_NS;
    if (f->kind == RUN_FEED_TERMINAL && deaf && memchr(f->data + f->len, INTERRUPT, (size_t)n))
        return 1;
    f->len += (size_t)n;
    return 0;
}

static void on_resized(void *ctx, int result, struct client_response *response, const struct err *e)
{
    struct run_feed *f = ctx;
    (void)result;
    (void)response;
    (void)e; /* a program that does not learn of it draws as before */
    f->resizing = false;
}

static void send_size(struct run_feed *f)
{
    struct winsize size;
    struct err ignored = ERR_INIT;
    if (!f->resized || f->resizing || !f->id[0])
        return;
    f->resized = false;
    if (ioctl(1, TIOCGWINSZ, &size) < 0 || size.ws_row == 0 || size.ws_col == 0)
        return;
    (void)snprintf(f->resize_path, sizeof(f->resize_path), "/v1/runs/%s/resize", f->id);
    (void)snprintf(f->resize_body, sizeof(f->resize_body), "{\"rows\":%u,\"cols\":%u}", size.ws_row,
        size.ws_col);
    const struct client_request req = {.method = "POST",
        .path = f->resize_path,
        .content_type = "application/json",
        .body = f->resize_body,
        .body_len = strlen(f->resize_body),
        .timeout_ms = 5000};
    f->resizing = client_start(f->client, &req, on_resized, f, NULL, &ignored) == 0;
}

int run_feed_step(struct run_feed *f, bool readable)
{
    int r = readable && reads(f) ? read_some(f) : 0;
    if (!f->call)
        send_due(f);
    send_size(f);
    return r;
}

void run_feed_resize(struct run_feed *f)
{
    f->resized = true;
}
