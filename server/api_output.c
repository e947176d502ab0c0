/* SPDX-License-Identifier: MIT */
#include "server/api_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "server/body.h"
#include "shared/io.h"
#include "shared/weaken.h"

#include "shared/banned.h"

/* Output up to here is answered from memory, by as many threads as ask for it. */
#define SMALL_BYTES (256u * 1024)
#define PIECE_BYTES (16u * 1024)
#define STREAM_MS 30000u /* for a whole answer that no file holds */

struct source {
    struct api *api;
    struct run *run;
    bool goes_on; /* or, for any run: */
    const char *id;
};

static int build(const struct source *s, bool with_output, json_t **ret, struct err *e)
{
    if (!s->run)
        return exec_object(s->api->c.exec, s->id, with_output, ret, e);
    *ret = run_object(s->run, with_output);
    return *ret ? 0 : err_set(e, ENOMEM, "describe a run");
}

static uint64_t member(const json_t *object, const char *name)
{
    json_int_t n = json_integer_value(json_object_get(object, name));
    return n > 0 ? (uint64_t)n : 0;
}

/* Is it more than a little that will be answered? What goes on may grow until it is looked at. */
static int is_big(const struct source *s, bool *ret, struct err *e)
{
    json_t *object = NULL;
    if (s->run) {
        struct run_log_stats stats;
        run_log_stats(run_output(s->run), &stats);
        *ret = stats.kept[RUN_STDOUT] + stats.kept[RUN_STDERR] > SMALL_BYTES || s->goes_on;
        return 0;
    }
    int r = build(s, false, &object, e);
    *ret =
        r == 0 && (member(object, "stdout_bytes") + member(object, "stderr_bytes") > SMALL_BYTES ||
                      !json_is_string(json_object_get(object, "finished_at")));
    json_decref(object);
    return r;
}

struct piece {
    int fd;
    struct http_request *req; /* or, with fd -1, straight to its client until: */
    uint64_t until_ns;
    size_t len;
    uint64_t total;
    char data[PIECE_BYTES];
};

static int flush(struct piece *p)
{
    uint64_t now = io_now_ns();
    uint32_t left_ms = now < p->until_ns ? (uint32_t)((p->until_ns - now) / 1000000) : 0;
    int r = p->fd >= 0 ? io_write_all(p->fd, p->data, p->len)
                       : http_stream_write(p->req, p->data, p->len, left_ms);
    p->total += p->len;
    p->len = 0;
    return r;
}

static int write_piece(const char *text, size_t len, void *ctx)
{
    struct piece *p = ctx;
    while (len > 0) {
        size_t n = PIECE_BYTES - p->len < len ? PIECE_BYTES - p->len : len;
        memcpy(p->data + p->len, text, n);
        p->len += n;
        text += n;
        len -= n;
        if (p->len == PIECE_BYTES && flush(p) < 0)
            return -1;
    }
    return 0;
}

/* The text goes to a file without a name: no slow reader keeps it in memory. */
static int reply_from_file(struct api *api, struct http_request *req, json_t *object, struct err *e)
{
    CLEANUP(fd_closep)
    int fd = open(api->c.config->data_dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_set(e, errno, "make a temporary file");
    struct piece p = {.fd = fd};
    errno = 0;
    if (json_dump_callback(object, write_piece, &p, BODY_DUMP) < 0 ||
        write_piece("\n", 1, &p) < 0 || flush(&p) < 0)
        return err_set(e, errno ? errno : ENOMEM, "write a run's output");
    http_reply_fd(req, 200, "application/json", fd_take(&fd), 0, p.total);
    return 0;
}

/* On a full disk there is no such file: the text goes to the client as it is made. The lock that is
 * held meanwhile lets only one have this at a time, and the deadline passes it on. */
static int reply_as_stream(struct http_request *req, json_t *object, struct err *e)
{
    struct piece p = {
        .fd = -1, .req = req, .until_ns = io_now_ns() + STREAM_MS * UINT64_C(1000000)};
    int r = http_stream_begin(req, 200, "application/json");
    if (r < 0)
        return err_set(e, -r, "answer with a run's output");
    if (json_dump_callback(object, write_piece, &p, BODY_DUMP) == 0 &&
        write_piece("\n", 1, &p) == 0)
        err_ignore(flush(&p));
    http_stream_end(req);
    return 0;
}

static void reply(const struct source *s, struct http_request *req)
{
    struct err e = ERR_INIT;
    json_t *object = NULL;
    bool big = false;
    int r = is_big(s, &big, &e);
    big = big && !WEAK("big");
    if (big)
        (void)pthread_mutex_lock(&s->api->big);
    if (r == 0)
        r = build(s, true, &object, &e);
    if (r == 0 && big)
        r = reply_from_file(s->api, req, object, &e);
    if (r == -ENOSPC && object)
        r = reply_as_stream(req, object, &e);
    if (r == 0 && !big)
        api_reply_to(req, 200, json_incref(object));
    json_decref(object);
    if (big)
        (void)pthread_mutex_unlock(&s->api->big);
    if (r < 0)
        api_fail(req, &e, NULL);
}

void api_reply_output(struct api *api, struct http_request *req, struct run *run, bool ended)
{
    reply(&(struct source){.api = api, .run = run, .goes_on = !ended}, req);
}

void api_reply_output_of(struct api *api, struct http_request *req, const char *id)
{
    reply(&(struct source){.api = api, .id = id}, req);
}
