/* SPDX-License-Identifier: MIT */
/*
 * Runs that go through the watcher: the exec request leaves beside the change sets it waits for,
 * over connections that are open already, and what the server sends is passed on as it comes. A
 * command that reads slowly slows its own run down and nobody else.
 */
#include "agent/sync_watch_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/io.h"
#include "shared/path.h"
#include "shared/proto.h"
#include "shared/text.h"

#include "shared/banned.h"

#define BACKLOG_HIGH (256u * 1024) /* bytes for one command before its run is held up */
#define BACKLOG_LOW (32u * 1024)
#define CANCEL_TIMEOUT_MS 5000
#define LOOK_MS 5000                    /* how long a silence may go unnoticed */
#define SILENT_NS UINT64_C(35000000000) /* a server that lives says something every 10 s */

struct sync_relay {
    struct sync_loop *loop;
    uint64_t peer;
    struct client_call *call;
    char *path, *body;
    uint64_t asked_ns;
    uint64_t heard_ns; /* of the last word, while it is not held up; 0: none yet */
    bool stream, paused;
    bool spoke; /* the program's first output was passed on */
    bool left;  /* its command has gone */
    struct sync_relay *next;
};

static void relay_free(struct sync_relay *relay)
{
    for (struct sync_relay **at = &relay->loop->relays; *at; at = &(*at)->next) {
        if (*at == relay) {
            *at = relay->next;
            break;
        }
    }
    free(relay->path);
    free(relay->body);
    free(relay);
}

static int relay_data(void *ctx, const void *data, size_t len)
{
    static const char output[] = "\"event\":\"std";
    struct sync_relay *relay = ctx;
    struct sync_loop *l = relay->loop;
    size_t backlog = control_backlog(l->control, relay->peer);
    relay->heard_ns = io_now_ns();
    if (backlog == SIZE_MAX) {
        relay->left = true;
        return -EPIPE;
    }
    if (backlog > BACKLOG_HIGH) {
        relay->paused = true;
        return CLIENT_PAUSE;
    }
    if (relay->stream && !relay->spoke && memmem(data, len, output, sizeof(output) - 1)) {
        relay->spoke = true;
        stats_add(&l->first_outputs, io_now_ns() - relay->asked_ns);
    }
    control_send_bytes(l->control, relay->peer, data, len);
    return 0;
}

static json_t *end_of(int result, const struct err *e)
{
    const char *refusal =
        result < 0 && e->refusal != PROTO_OK ? proto_error_info(e->refusal)->name : NULL;
    if (result == 0)
        return json_pack("{s:{s:i}}", "end", "errno", 0);
    return json_pack(
        "{s:{s:i,s:s,s:s?}}", "end", "errno", -result, "message", e->msg, "refusal", refusal);
}

static void cancel_done(
    void *ctx, int result, struct client_response *response, const struct err *e)
{
    (void)ctx;
    (void)result;
    (void)response;
    (void)e; /* whoever asked sees whether the run ends; else it does when its grace is over */
}

/* Whose command has gone is ended now: between the two no line can be cut. */
static void end_left(struct sync_loop *l, const char *run)
{
    struct err ignored = ERR_INIT;
    if (!text_is_id("run_", run))
        return;
    (void)snprintf(l->cancel_path, sizeof(l->cancel_path), "/v1/runs/%s/cancel", run);
    const struct client_request req = {
        .method = "POST", .path = l->cancel_path, .timeout_ms = CANCEL_TIMEOUT_MS};
    err_ignore(client_start(l->s->config.client, &req, cancel_done, NULL, NULL, &ignored));
}

static void relay_done(void *ctx, int result, struct client_response *response, const struct err *e)
{
    struct sync_relay *relay = ctx;
    struct sync_loop *l = relay->loop;
    if (relay->left && relay->stream)
        end_left(l, response->run_id);
    if (result == 0 && (relay->stream ? relay->spoke : !strstr(relay->body, "\"detach\":true")))
        stats_add(&l->results, io_now_ns() - relay->asked_ns);
    control_answer(l->control, relay->peer, end_of(result, e));
    relay_free(relay);
}

static int relay_start(struct sync_relay *relay, struct err *e)
{
    static const char *const streamed[] = {"Accept: application/x-ndjson", NULL};
    struct client_request req = {
        .method = "POST",
        .path = relay->path,
        .content_type = "application/json",
        .headers = relay->stream ? streamed : NULL,
        .body = relay->body,
        .body_len = strlen(relay->body),
        .on_data = relay_data,
        .ctx = relay,
    };
    return client_start(relay->loop->s->config.client, &req, relay_done, relay, &relay->call, e);
}

void sync_loop_run(struct sync_loop *l, struct sync_waiter *w)
{
    struct err e = ERR_INIT;
    const char *client = NULL;
    uint64_t seq = 0;
    struct sync_relay *relay = calloc(1, sizeof(*relay));
    json_t *request = ptr_take(&w->run);
    uint64_t peer = w->peer;
    w->peer = 0;
    sync_barrier(l->s, &client, &seq);
    if (seq)
        (void)json_object_set_new(
            request, "after", json_pack("{s:s,s:I}", "client", client, "seq", (json_int_t)seq));
    int r = relay ? 0 : err_set(&e, ENOMEM, "start the run");
    if (r == 0) {
        *relay = (struct sync_relay){.loop = l,
            .peer = peer,
            .stream = w->stream,
            .asked_ns = w->asked_ns,
            .body = json_dumps(request, JSON_COMPACT),
            .next = l->relays};
        l->relays = relay;
        if (!relay->body ||
            asprintf(&relay->path, "/v1/sandboxes/%s/exec", l->s->link.sandbox) < 0) {
            relay->path = NULL;
            r = err_set(&e, ENOMEM, "start the run");
        }
    }
    json_decref(request);
    if (r == 0)
        r = relay_start(relay, &e);
    if (r == 0)
        return;
    control_answer(l->control, peer, end_of(r, &e));
    if (relay)
        relay_free(relay);
}

void sync_loop_tend_runs(struct sync_loop *l)
{
    struct sync_relay *next;
    for (struct sync_relay *relay = l->relays; relay; relay = next) {
        size_t backlog = control_backlog(l->control, relay->peer);
        next = relay->next;
        if (backlog == SIZE_MAX && relay->stream && !client_run_id(relay->call)[0]) {
            relay->left = true; /* it can be ended when it has a name */
        } else if (backlog == SIZE_MAX) {
            /* The server ends a run whose client has gone, in a while. */
            if (relay->stream)
                end_left(l, client_run_id(relay->call));
            client_abort(l->s->config.client, relay->call);
            relay_free(relay);
        } else if (relay->stream && relay->heard_ns && !relay->paused &&
                   io_now_ns() - relay->heard_ns > SILENT_NS) {
            struct err e = ERR_INIT;
            (void)err_say(&e, ETIMEDOUT, "the server has gone silent");
            client_abort(l->s->config.client, relay->call);
            control_answer(l->control, relay->peer, end_of(-ETIMEDOUT, &e));
            relay_free(relay);
        } else if (relay->paused && backlog < BACKLOG_LOW) {
            relay->paused = false;
            relay->heard_ns = io_now_ns();
            client_resume(relay->call);
        }
    }
}

int sync_loop_runs_ms(const struct sync_loop *l, int usual_ms)
{
    return l->relays && (usual_ms < 0 || usual_ms > LOOK_MS) ? LOOK_MS : usual_ms;
}

void sync_loop_end_runs(struct sync_loop *l)
{
    struct err e = ERR_INIT;
    (void)err_say(&e, ECANCELED, "the watcher was stopped, and with it what ran through it");
    while (l->relays) {
        struct sync_relay *relay = l->relays;
        client_abort(l->s->config.client, relay->call);
        control_answer(l->control, relay->peer, end_of(-ECANCELED, &e));
        relay_free(relay);
    }
}

/* ---- cancel */

void sync_loop_cancel(struct sync_loop *l, uint64_t peer, const json_t *request)
{
    const char *run = json_string_value(json_object_get(request, "run"));
    struct err e = ERR_INIT;
    if (!run || !text_is_id("run_", run)) {
        control_answer_error(l->control, peer, EINVAL, "which run shall be cancelled?");
        return;
    }
    (void)snprintf(l->cancel_path, sizeof(l->cancel_path), "/v1/runs/%s/cancel", run);
    struct client_request req = {
        .method = "POST", .path = l->cancel_path, .timeout_ms = CANCEL_TIMEOUT_MS};
    if (client_start(l->s->config.client, &req, cancel_done, NULL, NULL, &e) < 0)
        control_answer_error(l->control, peer, e.code, e.msg);
    else
        control_answer(l->control, peer, json_pack("{s:b}", "cancelling", 1));
}

/* ---- followers */

void sync_loop_follow(struct sync_loop *l, uint64_t peer, const json_t *request)
{
    (void)request;
    for (size_t i = 0; i < CONTROL_PEERS_MAX; i++) {
        if (l->followers[i] && control_has_peer(l->control, l->followers[i]))
            continue;
        l->followers[i] = peer;
        if (l->said_ready)
            control_send_line(l->control, peer, json_pack("{s:s}", "event", "ready"));
        return;
    }
}

void sync_loop_tell(struct sync_loop *l, json_t *event)
{
    for (size_t i = 0; i < CONTROL_PEERS_MAX; i++) {
        if (l->followers[i])
            control_send_line(l->control, l->followers[i], json_incref(event));
    }
    json_decref(event);
}

void sync_loop_changed(void *ctx, const char *path)
{
    struct sync_loop *l = ctx;
    CLEANUP(buf_release) struct buf b;
    if (!l->changed)
        l->changed = json_array();
    l->changed_count++;
    buf_init(&b, 8 * (size_t)PATH_BYTES_MAX);
    if (json_array_size(l->changed) < SYNC_CHANGED_LISTED &&
        text_add_readable(&b, path, strlen(path)) == 0)
        (void)json_array_append_new(l->changed, json_string(buf_str(&b)));
}

void sync_loop_tell_changed(struct sync_loop *l)
{
    if (!l->changed)
        return;
    sync_loop_tell(l, json_pack("{s:s,s:o,s:I}", "event", "changed", "paths", ptr_take(&l->changed),
                          "count", (json_int_t)l->changed_count));
    l->changed_count = 0;
}

json_t *sync_said_json(enum sync_said what, const struct sync_totals *t, const char *text)
{
    static const char *const names[] = {[SYNC_SAID_READY] = "ready",
        [SYNC_SAID_SENT] = "sent",
        [SYNC_SAID_AWAY] = "away",
        [SYNC_SAID_BACK] = "back",
        [SYNC_SAID_PROBLEM] = "problem"};
    json_t *o = json_pack("{s:s}", "event", names[what]);
    if (text)
        (void)json_object_set_new(o, "text", json_string(text));
    if (t)
        (void)json_object_update_new(
            o, json_pack("{s:I, s:i, s:i, s:i, s:i, s:I, s:f}", "generation",
                   (json_int_t)t->generation, "created", (int)t->created, "updated",
                   (int)t->updated, "moved", (int)t->moved, "deleted", (int)t->deleted,
                   "bytes_sent", (json_int_t)t->bytes_sent, "elapsed_ms", t->elapsed_ms));
    return o;
}
