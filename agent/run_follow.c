/* SPDX-License-Identifier: MIT */
/* The events of a run to their end, however often the connection breaks on the way. */
#include "agent/run.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "shared/io.h"

#include "shared/banned.h"

#define SILENT_NS UINT64_C(35000000000)  /* a server that lives says something every 10 s */
#define GIVE_UP_NS UINT64_C(90000000000) /* without one more event */
#define AGAIN_US_FIRST 100000u
#define AGAIN_US_MOST 2000000u

struct follow {
    struct run_stream *stream;
    uint64_t heard_ns;
    bool ended;
    int result;
    bool retryable;
    struct err error;
};

static int on_data(void *ctx, const void *data, size_t len)
{
    struct follow *f = ctx;
    f->heard_ns = io_now_ns();
    return run_stream_data(f->stream, data, len);
}

static void on_end(void *ctx, int result, struct client_response *response, const struct err *e)
{
    struct follow *f = ctx;
    f->ended = true;
    f->result = result;
    f->error = *e;
    /* Without a status of the server there was a line that broke. */
    f->retryable = response->status == 0 || response->retryable || response->status / 100 == 2;
}

/* One connection, from behind the last event that was told. */
static int follow_once(struct client *client, const char *id, struct follow *f, struct err *e)
{
    static const char *const streamed[] = {"Accept: application/x-ndjson", NULL};
    struct client_call *call = NULL;
    char path[128];
    (void)snprintf(path, sizeof(path), "/v1/runs/%s/events?after=%" PRIu64, id, f->stream->last_id);
    const struct client_request req = {
        .method = "GET", .path = path, .headers = streamed, .on_data = on_data, .ctx = f};
    buf_reset(&f->stream->line); /* what had come of a line comes again */
    f->ended = false;
    f->heard_ns = io_now_ns();
    int r = client_start(client, &req, on_end, f, &call, e);
    while (r >= 0 && !f->ended && io_now_ns() - f->heard_ns < SILENT_NS)
        r = client_step(client, NULL, 0, 1000, e);
    if (!f->ended) {
        if (call)
            client_abort(client, call);
        f->retryable = true;
        return r < 0 ? r : err_say(e, ETIMEDOUT, "the server has gone silent");
    }
    if (f->result < 0 && e)
        *e = f->error;
    return f->result;
}

int run_follow(struct client *client, const char *id, struct run_stream *stream, struct err *e)
{
    struct follow f = {.stream = stream, .error = ERR_INIT};
    uint64_t since_ns = io_now_ns(), last = stream->last_id;
    unsigned again_us = AGAIN_US_FIRST;
    for (;;) {
        int r = follow_once(client, id, &f, e);
        if (stream->ended || stream->caught_up)
            return 0;
        if (r == 0)
            r = err_say(e, ECONNRESET, "the server ended the stream before the run ended");
        if (stream->last_id > last) {
            last = stream->last_id;
            since_ns = io_now_ns();
            again_us = AGAIN_US_FIRST;
        }
        /* One that was never there is told at once. */
        if (!f.retryable || stream->broken || last == 0 || io_now_ns() - since_ns > GIVE_UP_NS)
            return r;
        (void)usleep(again_us);
        again_us = again_us * 2 < AGAIN_US_MOST ? again_us * 2 : AGAIN_US_MOST;
    }
}
