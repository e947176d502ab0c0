/* SPDX-License-Identifier: MIT */
/* Following a run: its events as SSE or as lines of JSON, and waiting for its end. Each follower
 * has a thread of its own that reads the run's log, so that a slow client holds up nobody else. */
#include "server/api_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "shared/text.h"

#include "server/body.h"
#include "server/run_json.h"

#include "shared/weaken.h"

#include "shared/banned.h"

#define HEARTBEAT_MS 10000
#define WRITE_MS 10000
#define WAIT_SLICE_MS 500
#define EVENT_BYTES_MAX (2u * 1024 * 1024)

struct follower {
    struct api *api;
    struct http_request *req;
    struct run *run;     /* NULL for a recorded one, which has: */
    struct run_log *log; /* (of a live run: borrowed from it) */
    json_t *object;
    enum api_format format;
    uint64_t last_id;
    bool attached;    /* the run is counted on to go on for this one, until it has */
    atomic_bool left;
    struct buf text;
};

enum api_format api_format(struct call *call, bool stream)
{
    const char *accept = http_header(call->req, "Accept");
    if (api_header_has(accept, "application/x-ndjson"))
        return API_NDJSON;
    return stream || api_header_has(accept, "text/event-stream") ? API_SSE : API_OBJECT;
}

static void follower_free(struct follower *f)
{
    if (!f)
        return;
    http_unref(f->req);
    if (f->run)
        run_unref(f->run);
    else
        run_log_free(f->log);
    json_decref(f->object);
    buf_release(&f->text);
    free(f);
}

/* Its connection is watched, and its thread finds out as well: whoever comes first. */
static void leave_once(void *ctx)
{
    struct follower *f = ctx;
    if (f->attached && !atomic_exchange(&f->left, true))
        run_leave(f->run);
}

/* A client may read as slowly as it likes; the log is the buffer. It is dropped when it has gone or
 * when the server stops. */
static int send_text(struct follower *f, const char *text, size_t len)
{
    int r;
    do
        r = http_stream_write(f->req, text, len, WRITE_MS);
    while (r == -ETIMEDOUT && !atomic_load(&f->api->stopping));
    return r;
}

int api_event_text(json_t *event, enum api_format format, struct buf *b)
{
    const char *name = json_string_value(json_object_get(event, "event"));
    json_int_t id = json_integer_value(json_object_get(event, "id"));
    CLEANUP(freep) char *json = event ? json_dumps(event, BODY_DUMP) : NULL;
    int r = json ? 0 : -ENOMEM;
    for (char *at = json; WEAK("events") && at && (at = strstr(at, "\\n"));)
        memcpy(at, "\r\n", 2);
    buf_reset(b);
    if (r == 0 && format == API_SSE)
        r = buf_addf(b, "id: %" JSON_INTEGER_FORMAT "\nevent: %s\ndata: ", id, name);
    if (r == 0)
        r = buf_adds(b, json);
    if (r == 0)
        r = buf_adds(b, format == API_SSE ? "\n\n" : "\n");
    json_decref(event);
    return r;
}

const char *api_heartbeat(enum api_format format)
{
    return format == API_SSE ? ":\n\n" : "\n";
}

/* Takes the event. */
static int send_event(struct follower *f, json_t *event)
{
    int r = api_event_text(event, f->format, &f->text);
    return r < 0 ? r : send_text(f, buf_str(&f->text), f->text.len);
}

static int send_heartbeat(struct follower *f)
{
    const char *text = api_heartbeat(f->format);
    return send_text(f, text, strlen(text));
}

static int send_start(struct follower *f)
{
    json_t *object = f->run ? run_object(f->run, false) : json_incref(f->object);
    const char *const members[] = {"sandbox", "created_at", "limits"};
    json_t *event = json_pack(
        "{s:s, s:i, s:O}", "event", "start", "id", 1, "run", json_object_get(object, "id"));
    for (size_t i = 0; event && i < sizeof(members) / sizeof(members[0]); i++)
        err_ignore(json_object_set(event, members[i], json_object_get(object, members[i])));
    json_decref(object);
    return send_event(f, event);
}

static json_t *frame_event(const struct run_frame *frame)
{
    json_t *event = json_pack("{s:s, s:I, s:I, s:f}", "event",
        frame->stream == RUN_STDOUT ? "stdout" : "stderr", "id", (json_int_t)frame->seq + 1, "seq",
        (json_int_t)frame->seq, "t_ms", (double)frame->t_us / 1000.0);
    const char *data = (const char *)frame->data;
    if (!event)
        return NULL;
    if (text_is_utf8(data, frame->len)) {
        err_ignore(json_object_set_new(event, "text", json_stringn_nocheck(data, frame->len)));
        return event;
    }
    CLEANUP(buf_release) struct buf coded;
    buf_init(&coded, 2 * RUN_LOG_FRAME_MAX);
    if (text_add_base64(&coded, data, frame->len) == 0)
        err_ignore(
            json_object_set_new(event, "base64", json_stringn_nocheck(buf_str(&coded), coded.len)));
    return event;
}

static int send_frames(struct follower *f)
{
    CLEANUP(buf_release) struct buf scratch;
    struct run_frame frame;
    uint64_t offset = 0;
    buf_init(&scratch, RUN_LOG_FRAME_MAX + 64);
    for (;;) {
        int r = run_log_next(f->log, &offset, &frame, &scratch, HEARTBEAT_MS);
        if (r == -EPIPE)
            return 0;
        if (r == 0)
            r = send_heartbeat(f);
        else if (r == 1)
            r = (uint64_t)frame.seq + 1 > f->last_id ? send_event(f, frame_event(&frame)) : 0;
        if (r < 0)
            return r;
    }
}

/* The last event: `error` when the program never started, else `exit` with the whole object. */
static int send_end(struct follower *f)
{
    struct run_log_stats stats;
    while (f->run && !run_wait(f->run, HEARTBEAT_MS)) {
        int r = send_heartbeat(f);
        if (r < 0)
            return r;
    }
    run_log_stats(f->log, &stats);
    json_int_t id = (json_int_t)stats.last_seq + 2;
    json_t *object = f->run ? run_object(f->run, false) : json_incref(f->object);
    json_t *error = json_object_get(object, "error");
    json_t *event = json_is_object(error)
                        ? json_pack("{s:s, s:I, s:O, s:O}", "event", "error", "id", id, "run",
                              json_object_get(object, "id"), "error", error)
                        : json_pack("{s:s, s:I, s:O}", "event", "exit", "id", id, "run", object);
    json_decref(object);
    return send_event(f, event);
}

static void *follow_main(void *ctx)
{
    struct follower *f = ctx;
    struct api *api = f->api;
    /* Who comes back is told at once that it is there. */
    int r = f->last_id == 0 ? send_start(f) : f->attached ? send_heartbeat(f) : 0;
    if (r == 0)
        r = send_frames(f);
    if (r == 0)
        r = send_end(f);
    if (f->attached)
        http_on_close(f->req, NULL, NULL);
    leave_once(f);
    http_stream_end(f->req);
    follower_free(f);
    api_thread_ended(api);
    return NULL;
}

void api_follow(struct call *call, struct run *run, struct run_log *log, json_t *object,
    enum api_format format, uint64_t last_id, bool attached)
{
    struct err e = ERR_INIT;
    struct follower *f = calloc(1, sizeof(*f));
    if (!f) {
        run_unref(run);
        run_log_free(log);
        json_decref(object);
        (void)err_set(&e, ENOMEM, "follow the run");
        api_fail(call->req, &e, NULL);
        return;
    }
    *f = (struct follower){.api = call->api,
        .req = call->req,
        .run = run,
        .log = run ? run_output(run) : log,
        .object = object,
        .format = format,
        .last_id = last_id,
        .attached = attached && run};
    buf_init(&f->text, EVENT_BYTES_MAX);
    if (f->attached)
        run_attach(run);
    http_ref(call->req);
    http_add_header(call->req, "Cache-Control", "no-store");
    if (http_stream_begin(
            call->req, 200, format == API_SSE ? "text/event-stream" : "application/x-ndjson") < 0) {
        leave_once(f);
        follower_free(f);
        return;
    }
    if (f->attached)
        http_on_close(call->req, leave_once, f);
    if (api_thread(call->api, follow_main, f, &e) == 0)
        return;
    /* The headers are out: what is left is to end the stream, and with it the run it was for. */
    if (f->attached)
        http_on_close(call->req, NULL, NULL);
    leave_once(f);
    err_ignore(send_event(
        f, json_pack("{s:s, s:i, s:o}", "event", "error", "id", 1, "error", run_json_error(&e))));
    http_stream_end(call->req);
    follower_free(f);
}

/* ---- waiting for the end */

struct waiter {
    struct api *api;
    struct http_request *req;
    struct run *run;
    uint64_t wait_ms;
    bool asked; /* for the object, which exists whatever became of the run */
    atomic_bool gone;
};

void api_reply_run(struct api *api, struct http_request *req, struct run *run)
{
    const struct err *error = run_error(run);
    if (!error) {
        api_reply_output(api, req, run, true);
        return;
    }
    json_t *details = json_pack("{s:s}", "run", run_id(run));
    if (error->refusal == PROTO_BARRIER_TIMEOUT || error->refusal == PROTO_BARRIER_REFUSED)
        err_ignore(json_object_set_new(details, "pending", run_pending(run)));
    api_fail(req, error, details);
}

static void note_gone(void *ctx)
{
    struct waiter *w = ctx;
    atomic_store(&w->gone, true);
}

static void *wait_main(void *ctx)
{
    struct waiter *w = ctx;
    struct api *api = w->api;
    uint64_t left = w->wait_ms;
    bool ended = run_wait(w->run, 0);
    while (!ended && left > 0 && !atomic_load(&w->gone) && !atomic_load(&api->stopping)) {
        uint64_t slice = left < WAIT_SLICE_MS ? left : WAIT_SLICE_MS;
        ended = run_wait(w->run, (uint32_t)slice);
        left -= slice;
    }
    http_on_close(w->req, NULL, NULL);
    if (ended && !w->asked)
        api_reply_run(api, w->req, w->run);
    else
        api_reply_output(api, w->req, w->run, ended);
    http_unref(w->req);
    run_unref(w->run);
    free(w);
    api_thread_ended(api);
    return NULL;
}

void api_wait(struct call *call, struct run *run, uint64_t wait_ms, bool asked)
{
    struct err e = ERR_INIT;
    struct waiter *w = calloc(1, sizeof(*w));
    if (!w) {
        (void)err_set(&e, ENOMEM, "wait for the run");
        api_fail(call->req, &e, NULL);
        run_unref(run);
        return;
    }
    w->api = call->api;
    w->req = call->req;
    w->run = run;
    w->wait_ms = wait_ms;
    w->asked = asked;
    http_ref(call->req);
    http_on_close(call->req, note_gone, w);
    if (api_thread(call->api, wait_main, w, &e) == 0)
        return;
    http_on_close(call->req, NULL, NULL);
    api_fail(call->req, &e, NULL);
    http_unref(call->req);
    run_unref(run);
    free(w);
}
