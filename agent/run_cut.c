/* SPDX-License-Identifier: MIT */
/* A run outlives the line to it, for a while; and who really leaves says so. */
#include "agent/run_internal.h"

#include <errno.h>
#include <stdio.h>

#include "shared/io.h"

#include "shared/banned.h"

#define CANCEL_TIMEOUT_MS 5000
#define CANCEL_AGAIN_NS UINT64_C(500000000)
#define LEAVE_MS 1000
#define QUIET_NS UINT64_C(1000000000) /* a shorter cut is not worth a word */

static void on_cancelled(
    void *ctx, int result, struct client_response *response, const struct err *e)
{
    struct run_session *s = ctx;
    (void)response;
    (void)e;
    if (result == 0 || result == -EPROTO)
        return;
    s->cancel_sent = false;
    s->cancel_again_ns = io_now_ns() + CANCEL_AGAIN_NS;
}

void run_cut_cancel(struct run_session *s)
{
    char path[96];
    struct err ignored = ERR_INIT;

    s->cancelled = true;
    if (s->cancel_sent || !s->stream.id[0] || io_now_ns() < s->cancel_again_ns)
        return;
    s->cancel_sent = true;
    (void)snprintf(path, sizeof(path), "/v1/runs/%s/cancel", s->stream.id);
    const struct client_request req = {
        .method = "POST", .path = path, .timeout_ms = CANCEL_TIMEOUT_MS};
    err_ignore(client_start(s->app->client, &req, on_cancelled, s, NULL, &ignored));
}

/* On a line of its own, which in a raw terminal does not begin at its beginning by itself. */
static void say(struct run_session *s, const char *text)
{
    if (s->stream.mid_line && out_is_terminal(2))
        (void)fputs("\r\n", stderr);
    out_note(s->app, "%s", text);
    if (s->term.raw)
        (void)fputc('\r', stderr);
}

int run_cut_come_back(struct run_session *s, struct err *e)
{
    struct run_follow f;
    bool said = false;
    int r;

    run_follow_begin(&f, s->app->client, s->stream.id, &s->stream, true);
    run_feed_again(&s->feed);
    while ((r = run_follow_step(&f, e)) == 0) {
        bool ready, away = f.cut_ns && run_now_ns() - f.cut_ns > QUIET_NS;
        if (away != said)
            say(s, away ? "the connection is cut; the program goes on for half a minute while it is "
                          "tried again (Ctrl-C ends it)"
                        : "connected again");
        said = away;
        r = run_wait_step(s, -1, run_follow_wait_ms(&f, 500), &ready, e);
        if (r == 1 || s->cancelled)
            run_cut_cancel(s);
        if (r >= 0 && !f.cut_ns)
            r = run_sync_look_after(s, e);
        if (r < 0)
            break;
    }
    run_follow_release(&f);
    return r < 0 ? r : 0;
}

void run_cut_leave(struct run_session *s)
{
    uint64_t until = io_now_ns() + LEAVE_MS * UINT64_C(1000000);
    struct client_response response;
    struct err ignored = ERR_INIT;
    char path[96];

    if (s->stream.quiet || s->stream.ended)
        return;
    while (s->call && !s->stream.id[0] && io_now_ns() < until &&
           client_step(s->app->client, NULL, 0, 100, &ignored) >= 0)
        ;
    if (!s->stream.id[0] || s->stream.ended)
        return;
    (void)snprintf(path, sizeof(path), "/v1/runs/%s/cancel", s->stream.id);
    const struct client_request req = {.method = "POST", .path = path, .timeout_ms = LEAVE_MS};
    err_ignore(client_call(s->app->client, &req, &response, &ignored));
    client_response_release(&response);
}
