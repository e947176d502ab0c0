/* SPDX-License-Identifier: MIT */
/* A run by way of the project's watcher: it syncs, asks and passes on; here is the terminal. */
#include "agent/run.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "agent/control.h"

#include "shared/banned.h"

#define RESULT_MAX (64u * 1024 * 1024) /* of one run object, as client.h has it */
#define CANCEL_WAIT_MS 2000

void run_watcher_init(struct run_watcher *w, const char *root, struct run_stream *stream)
{
    *w = (struct run_watcher){.root = root, .stream = stream, .talk.fd = -1, .error = ERR_INIT};
    buf_init(&w->object, RESULT_MAX);
}

void run_watcher_release(struct run_watcher *w)
{
    control_talk_close(&w->talk);
    buf_release(&w->object);
}

int run_watcher_start(struct run_watcher *w, json_t *request, bool settled, struct err *e)
{
    json_t *ask = json_pack("{s:s, s:O, s:b, s:b}", "op", "run", "request", request, "stream",
        !w->stream->quiet, "settled", settled);

    control_talk_close(&w->talk);
    buf_reset(&w->object);
    w->ended = false;
    int r = ask ? control_talk_open(w->root, ask, &w->talk, e)
                : err_set(e, ENOMEM, "build a request");
    json_decref(ask);
    return r;
}

static int on_bytes(void *ctx, const void *data, size_t len)
{
    struct run_watcher *w = ctx;

    w->heard = true;
    return w->stream->quiet ? buf_add(&w->object, data, len)
                            : run_stream_data(w->stream, data, len);
}

static int on_line(void *ctx, json_t *line)
{
    struct run_watcher *w = ctx;
    json_t *end = json_object_get(line, "end");
    const char *refusal = json_string_value(json_object_get(end, "refusal"));
    const char *message = json_string_value(json_object_get(end, "message"));
    int code = (int)json_integer_value(json_object_get(end, "errno"));

    if (!end)
        return 0; /* what a later watcher adds does not concern us */
    w->ended = true;
    w->result = code ? -code : 0;
    if (refusal)
        (void)err_refuse(
            &w->error, proto_error_by_name(refusal), "%s", message ? message : "refused");
    else if (code)
        (void)err_say(&w->error, code, "%s", message ? message : "the run failed");
    return 1;
}

/* With --json or --detach the answer is one object instead of a stream. */
static int take_object(struct run_watcher *w, struct err *e)
{
    struct run_stream *s = w->stream;

    if (!s->quiet)
        return 0;
    s->run = json_loadb(
        (const char *)w->object.data, w->object.len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    s->ended = json_is_object(s->run);
    return s->ended ? 0 : err_say(e, EPROTO, "the server's answer is no run");
}

int run_watcher_read(struct run_watcher *w, struct err *e)
{
    struct control_sink sink = {.bytes = on_bytes, .line = on_line, .ctx = w};
    int r = control_talk_read(&w->talk, &sink, e);

    if (r == -ECONNRESET)
        return w->heard ? err_say(e, ECONNRESET,
                              "the watcher ended while the program ran: `silt ps` tells what became "
                              "of it")
                        : r;
    if (r < 0)
        return w->stream->broken == -EPIPE ? err_say(e, EPIPE, "the output is closed") : r;
    if (!w->ended)
        return 0;
    if (w->result < 0 && e)
        *e = w->error;
    r = w->result < 0 ? w->result : take_object(w, e);
    return r < 0 ? r : 1;
}

bool run_watcher_was_cut(const struct run_watcher *w, int r)
{
    const struct run_stream *s = w->stream;

    return !s->quiet && s->id[0] && !s->ended && !s->broken &&
           (r == 0 || r == -ECONNRESET || r == -ETIMEDOUT || r == -ECONNREFUSED);
}

void run_watcher_cancel(const struct run_watcher *w)
{
    struct err ignored = ERR_INIT;
    json_t *ask = json_pack("{s:s, s:s}", "op", "cancel", "run", w->stream->id), *answer = NULL;

    /* If it could not be cancelled, the stream goes on and a second Ctrl-C leaves. */
    err_ignore(control_request(w->root, ask, CANCEL_WAIT_MS, &answer, &ignored));
    json_decref(ask);
    json_decref(answer);
}
