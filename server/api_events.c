/* SPDX-License-Identifier: MIT */
/* Following a sandbox: what happens in it as SSE or as lines of JSON. */
#include "server/api_internal.h"

#include <errno.h>
#include <string.h>

#include "shared/io.h"
#include "shared/text.h"

#include "server/events.h"

#include "shared/banned.h"

#define HEARTBEAT_MS 10000
#define WRITE_MS 10000 /* with 1 MiB waiting for the client: then it is too slow */
#define EVENT_BYTES_MAX (16u * 1024)

struct watcher {
    struct api *api;
    struct http_request *req;
    struct sandbox *sb;
    struct events *events;
    enum api_format format;
    uint64_t after;
    struct sandbox_state state; /* at the beginning */
    bool replay;                /* from an id that the client named */
    atomic_bool gone;
    struct buf text;
};

static void watcher_free(struct watcher *w)
{
    events_leave(w->events);
    sandbox_unref(w->sb);
    http_unref(w->req);
    buf_release(&w->text);
    free(w);
}

/* On an I/O thread. */
static void note_gone(void *ctx)
{
    struct watcher *w = ctx;
    atomic_store(&w->gone, true);
    events_kick(w->events);
}

/* Takes the event. */
static int send_event(struct watcher *w, json_t *event)
{
    int r = api_event_text(event, w->format, &w->text);
    return r < 0 ? r : http_stream_write(w->req, buf_str(&w->text), w->text.len, WRITE_MS);
}

/* `start` and `gap`: where the sandbox is, from where on events follow. */
static int send_state(struct watcher *w, const char *name, const struct sandbox_state *state)
{
    return send_event(w,
        json_pack("{s:s, s:I, s:s, s:I, s:s}", "event", name, "id", (json_int_t)w->after, "sandbox",
            sandbox_id(w->sb), "generation", (json_int_t)state->generation, "epoch", state->epoch));
}

static int send_gap(struct watcher *w)
{
    struct sandbox_state state;
    sandbox_state(w->sb, &state);
    return send_state(w, "gap", &state);
}

static json_t *text_or_null(const char *text)
{
    return text[0] ? json_string(text) : json_null();
}

static json_t *event_json(const struct event *event)
{
    static const char *const names[] = {
        [EVENT_GENERATION] = "generation", [EVENT_RUN] = "run", [EVENT_DELETED] = "deleted"};
    char at[TEXT_TIME_BYTES];
    json_t *object = json_pack("{s:s, s:I, s:s}", "event", names[event->kind], "id",
        (json_int_t)event->id, "at", text_time(event->at_ns, at));
    json_t *more = NULL;
    if (event->kind == EVENT_GENERATION)
        more =
            json_pack("{s:I, s:s, s:s, s:o, s:o, s:o}", "generation", (json_int_t)event->generation,
                "epoch", event->epoch, "by", event->by, "client", text_or_null(event->client),
                "seq", event->seq ? json_integer((json_int_t)event->seq) : json_null(), "run",
                text_or_null(event->run));
    else if (event->kind == EVENT_RUN)
        more = json_pack("{s:s, s:s}", "run", event->run, "status", event->status);
    if (object && more)
        err_ignore(json_object_update(object, more));
    json_decref(more);
    return object;
}

static void *watch_main(void *ctx)
{
    struct watcher *w = ctx;
    struct api *api = w->api;
    struct event event;
    int r = w->replay ? 0 : send_state(w, "start", &w->state);
    uint64_t beat_ns = io_now_ns();
    while (r == 0 && !atomic_load(&w->gone) && !atomic_load(&api->stopping)) {
        enum events_found found = events_next(w->events, &w->after, &event, HEARTBEAT_MS);
        if (found == EVENTS_END)
            break;
        const char *beat = api_heartbeat(w->format);
        if (found == EVENTS_ONE)
            r = send_event(w, event_json(&event));
        else if (found == EVENTS_GAP)
            r = send_gap(w);
        else if (io_now_ns() - beat_ns >= UINT64_C(1000000) * HEARTBEAT_MS)
            r = http_stream_write(w->req, beat, strlen(beat), WRITE_MS);
        else
            continue;
        beat_ns = io_now_ns();
    }
    http_on_close(w->req, NULL, NULL);
    http_stream_end(w->req);
    watcher_free(w);
    api_thread_ended(api);
    return NULL;
}

/* Takes the sandbox, whose followers we were counted into. */
static void follow(struct call *call, struct sandbox *sb, const struct watcher *asked)
{
    struct err e = ERR_INIT;
    struct watcher *w = calloc(1, sizeof(*w));
    if (!w) {
        (void)err_set(&e, ENOMEM, "follow the sandbox");
        api_fail(call->req, &e, NULL);
        events_leave(sandbox_events(sb));
        sandbox_unref(sb);
        return;
    }
    w->api = call->api;
    w->req = call->req;
    w->sb = sb;
    w->events = sandbox_events(sb);
    w->format = api_format(call, true);
    w->state = asked->state;
    w->replay = asked->replay;
    w->after = asked->after;
    buf_init(&w->text, EVENT_BYTES_MAX);
    http_ref(call->req);
    http_add_header(call->req, "Cache-Control", "no-store");
    if (http_stream_begin(call->req, 200,
            w->format == API_SSE ? "text/event-stream" : "application/x-ndjson") < 0) {
        watcher_free(w);
        return;
    }
    /* Its headers are all that HEAD asks for. */
    if (http_method(call->req) == HTTP_HEAD) {
        http_stream_end(call->req);
        watcher_free(w);
        return;
    }
    http_on_close(call->req, note_gone, w);
    if (api_thread(call->api, watch_main, w, &e) == 0)
        return;
    /* The headers are out: a stream without an event is one to be tried again. */
    http_on_close(call->req, NULL, NULL);
    http_stream_end(call->req);
    watcher_free(w);
}

void api_sandbox_events(struct call *call)
{
    struct sandbox *sb = NULL;
    struct watcher asked = {.after = 0};
    struct err e = ERR_INIT;
    int has = api_last_event(call, INT64_MAX, &asked.after, &e);
    int r = has < 0 ? has : api_sandbox(call, &sb, &e);
    if (r == 0)
        r = sandbox_follow(sb, &asked.state, &e);
    if (r < 0) {
        api_fail(call->req, &e, NULL);
        if (sb)
            sandbox_unref(sb);
        return;
    }
    asked.replay = has == 1;
    if (!asked.replay)
        asked.after = asked.state.last_event;
    follow(call, sb, &asked);
}
