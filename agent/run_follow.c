/* SPDX-License-Identifier: MIT */
/* The events of a run to their end, however often the connection breaks on the way. */
#include "agent/run.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "shared/banned.h"

#define GIVE_UP_NS UINT64_C(90000000000) /* without a word of the server */
#define ATTACHED_NS UINT64_C(5000000000) /* who attaches hears at once that it is there */
#define AGAIN_NS_FIRST UINT64_C(100000000)
#define AGAIN_NS_MOST UINT64_C(2000000000)

static int on_data(void *ctx, const void *data, size_t len)
{
    struct run_follow *f = ctx;
    f->cut_ns = 0;
    return run_stream_data(f->stream, data, len);
}

static void on_end(void *ctx, int result, struct client_response *response, const struct err *e)
{
    struct run_follow *f = ctx;
    f->call = NULL;
    f->broke = true;
    f->error = *e;
    if (result == 0)
        (void)err_say(&f->error, ECONNRESET, "the server ended the stream before the run ended");
    f->retryable = run_may_come_back(response);
}

bool run_may_come_back(const struct client_response *response)
{
    /* Without a status of the server there was a line that broke. */
    return response->status == 0 || response->retryable || response->status / 100 == 2;
}

void run_follow_begin(struct run_follow *f, struct client *client, const char *id,
    struct run_stream *stream, bool attach)
{
    uint64_t now = run_now_ns();
    *f = (struct run_follow){.client = client,
        .stream = stream,
        .attach = attach,
        .cut_ns = now,
        .since_ns = now,
        .pause_ns = AGAIN_NS_FIRST,
        .last = stream->last_id,
        .error = ERR_INIT};
    (void)snprintf(f->id, sizeof(f->id), "%s", id);
}

void run_follow_release(struct run_follow *f)
{
    if (f->call)
        client_abort(f->client, f->call);
    f->call = NULL;
}

/* One connection, from behind the last event that was told. */
static int ask(struct run_follow *f, struct err *e)
{
    static const char *const streamed[] = {"Accept: application/x-ndjson", NULL};
    (void)snprintf(f->path, sizeof(f->path), "/v1/runs/%s/events?after=%" PRIu64 "%s", f->id,
        f->stream->last_id, f->attach ? "&attach=true" : "");
    const struct client_request req = {
        .method = "GET", .path = f->path, .headers = streamed, .on_data = on_data, .ctx = f};
    buf_reset(&f->stream->line); /* what had come of a line comes again */
    f->asked_ns = run_now_ns();
    return client_start(f->client, &req, on_end, f, &f->call, e);
}

static bool has_gone_silent(const struct run_follow *f, uint64_t now)
{
    bool answered = f->stream->heard_ns >= f->asked_ns;
    uint64_t since = answered ? f->stream->heard_ns : f->asked_ns;
    return now > since && now - since > (f->attach && !answered ? ATTACHED_NS : RUN_SILENT_NS);
}

/* Whether, and when, to try again: 0 or why not. */
static int look_at_break(struct run_follow *f, uint64_t now, struct err *e)
{
    f->broke = false;
    if (!f->cut_ns)
        f->cut_ns = now;
    if (f->stream->heard_ns > f->since_ns)
        f->since_ns = f->stream->heard_ns;
    if (f->stream->last_id > f->last)
        f->pause_ns = AGAIN_NS_FIRST;
    f->last = f->stream->last_id;
    /* One that was never there is told at once. */
    if (!f->retryable || f->stream->broken || f->last == 0 || now - f->since_ns > GIVE_UP_NS) {
        if (e)
            *e = f->error;
        return f->error.code ? -f->error.code : -ECONNRESET;
    }
    f->again_ns = now + f->pause_ns;
    f->pause_ns = f->pause_ns * 2 < AGAIN_NS_MOST ? f->pause_ns * 2 : AGAIN_NS_MOST;
    return 0;
}

int run_follow_step(struct run_follow *f, struct err *e)
{
    uint64_t now = run_now_ns();
    if (f->stream->ended || f->stream->caught_up) {
        run_follow_release(f);
        return 1;
    }
    if (f->call && has_gone_silent(f, now)) {
        run_follow_release(f);
        (void)err_say(&f->error, ETIMEDOUT, "the server has gone silent");
        f->broke = f->retryable = true;
    }
    if (f->broke)
        return look_at_break(f, now, e);
    return f->call || now < f->again_ns ? 0 : ask(f, e);
}

int run_follow_wait_ms(const struct run_follow *f, int usual_ms)
{
    uint64_t now = run_now_ns();
    if (f->broke || (!f->call && f->again_ns <= now))
        return 0;
    int ms = f->call ? usual_ms : (int)((f->again_ns - now) / 1000000) + 1;
    return ms < usual_ms ? ms : usual_ms;
}

int run_follow(struct client *client, const char *id, struct run_stream *stream, struct err *e)
{
    struct run_follow f;
    run_follow_begin(&f, client, id, stream, false);
    int r = run_follow_step(&f, e);
    while (r == 0) {
        r = client_step(client, NULL, 0, run_follow_wait_ms(&f, 1000), e);
        if (r >= 0)
            r = run_follow_step(&f, e);
    }
    run_follow_release(&f);
    return r < 0 ? r : 0;
}
