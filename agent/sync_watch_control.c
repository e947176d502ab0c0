/* SPDX-License-Identifier: MIT */
/* What a watcher answers on its control socket. */
#include "agent/sync_watch_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/pull.h"
#include "shared/io.h"
#include "shared/path.h"
#include "shared/text.h"

#include "shared/banned.h"

#define NS_PER_MS UINT64_C(1000000)
#define FLUSH_DEFAULT_MS 10000
#define SYNC_DEFAULT_MS 600000
#define WAIT_MAX_MS 86400000
#define PENDING_LISTED 20

/* ---- waiting commands */

static void drop(struct sync_waiter *w)
{
    json_decref(w->run);
    w->run = NULL;
    w->peer = 0;
}

void sync_loop_drop_waiters(struct sync_loop *l)
{
    for (size_t i = 0; i < SYNC_WAITERS_MAX; i++)
        drop(&l->waiters[i]);
}

static void answer_error(struct sync_loop *l, struct sync_waiter *w, int code, const char *message)
{
    control_answer_error(l->control, w->peer, code, message);
    drop(w);
}

static bool arm_cookie(struct sync_loop *l, struct sync_waiter *w)
{
    struct err e = ERR_INIT;
    if (watch_cookie(l->watch, &w->cookie, &e) == 0)
        return true;
    answer_error(l, w, e.code, e.msg);
    return false;
}

static struct sync_waiter *begin_wait(
    struct sync_loop *l, uint64_t peer, const json_t *request, bool wants_ack)
{
    struct sync_waiter *w = NULL;
    json_int_t timeout = json_integer_value(json_object_get(request, "timeout_ms"));
    for (size_t i = 0; i < SYNC_WAITERS_MAX && !w; i++)
        w = l->waiters[i].peer ? NULL : &l->waiters[i];
    if (!w) {
        control_answer_error(l->control, peer, EBUSY, "too many commands wait for this watcher");
        return NULL;
    }
    if (timeout <= 0 || timeout > WAIT_MAX_MS)
        timeout = wants_ack ? SYNC_DEFAULT_MS : FLUSH_DEFAULT_MS;
    *w = (struct sync_waiter){.peer = peer,
        .wants_ack = wants_ack,
        .asked_ns = io_now_ns(),
        .deadline_ns = io_now_ns() + (uint64_t)timeout * NS_PER_MS};
    sync_totals(l->s, &w->before);
    /* Folders without a watch tell nothing by themselves. */
    size_t polled = 0;
    (void)watch_polled(l->watch, &polled);
    l->look_around = l->look_around || polled;
    /* What could not be sent then may be possible now. */
    l->rescan = l->rescan || l->problem[0];
    if (wants_ack && json_is_true(json_object_get(request, "verify"))) {
        w->verify = true;
        sync_doubt(l->s);
        sync_loop_audit_begin(l);
    }
    if (!arm_cookie(l, w))
        return NULL;
    /* Somebody waits: a server that was away is tried at once. Zero would mean "not told yet". */
    l->retry_at_ns = l->retry_at_ns ? 1 : 0;
    return w;
}

void sync_loop_cookie(struct sync_loop *l, uint64_t number)
{
    for (size_t i = 0; i < SYNC_WAITERS_MAX; i++) {
        struct sync_waiter *w = &l->waiters[i];
        if (!w->peer || !w->cookie || w->cookie > number)
            continue;
        w->cookie = 0;
        settle_hurry(l->settle, io_now_ns() / 1000);
    }
}

void sync_loop_renew_cookies(struct sync_loop *l)
{
    for (size_t i = 0; i < SYNC_WAITERS_MAX; i++) {
        if (l->waiters[i].peer && l->waiters[i].cookie)
            (void)arm_cookie(l, &l->waiters[i]);
    }
}

bool sync_loop_somebody_waits(const struct sync_loop *l)
{
    for (size_t i = 0; i < SYNC_WAITERS_MAX; i++) {
        if (l->waiters[i].peer && !l->waiters[i].cookie && !l->waiters[i].started)
            return true;
    }
    return false;
}

uint64_t sync_loop_deadline(const struct sync_loop *l)
{
    uint64_t next = UINT64_MAX;
    for (size_t i = 0; i < SYNC_WAITERS_MAX; i++) {
        if (l->waiters[i].peer && l->waiters[i].deadline_ns < next)
            next = l->waiters[i].deadline_ns;
    }
    return next;
}

/* ---- answers */

static void list_path(json_t *list, const char *path)
{
    CLEANUP(buf_release) struct buf b;
    buf_init(&b, 8 * (size_t)PATH_BYTES_MAX);
    if (json_array_size(list) < PENDING_LISTED && text_add_readable(&b, path, strlen(path)) == 0)
        (void)json_array_append_new(list, json_string(buf_str(&b)));
}

json_t *sync_pending(const struct sync *s)
{
    json_t *list = json_array();
    for (const struct sync_set *set = s->flying; set; set = set->next) {
        for (size_t i = 0; i < set->item_count; i++)
            list_path(list, set->items[i].path);
    }
    for (const struct sync_set *set = s->queue; set; set = set->next) {
        for (size_t i = 0; i < set->item_count; i++)
            list_path(list, set->items[i].path);
    }
    for (size_t i = 0; i < s->fresh_count; i++)
        list_path(list, s->fresh[i].path);
    return list;
}

/* What changed while the server is away was not scanned: it is still among the events. */
static json_t *pending_of(struct sync_loop *l)
{
    json_t *list = sync_pending(l->s);
    const char *paths[PENDING_LISTED];
    size_t count = settle_some(l->settle, paths, PENDING_LISTED);
    for (size_t i = 0; i < count; i++)
        list_path(list, paths[i]);
    return list;
}

static void answer_late(struct sync_loop *l, struct sync_waiter *w)
{
    const char *why =
        l->problem[0] ? l->problem : "not everything could be sent in time; the watcher goes on";
    control_answer(l->control, w->peer,
        json_pack("{s:{s:i,s:s,s:o}}", "error", "errno", ETIMEDOUT, "message", why, "pending",
            pending_of(l)));
    drop(w);
}

static void answer_flush(struct sync_loop *l, struct sync_waiter *w)
{
    const char *client = NULL;
    uint64_t seq = 0;
    sync_barrier(l->s, &client, &seq);
    control_answer(l->control, w->peer,
        json_pack("{s:s,s:I,s:I,s:o}", "client", client, "seq", (json_int_t)seq, "generation",
            (json_int_t)index_state(l->s->index)->generation, "pending", sync_pending(l->s)));
    drop(w);
}

static void answer_sync(struct sync_loop *l, struct sync_waiter *w)
{
    const char *client = NULL;
    uint64_t seq = 0;
    struct sync_totals t;
    sync_loop_since(l, &w->before, &t);
    sync_barrier(l->s, &client, &seq);
    json_t *answer = json_pack("{s:s,s:I,s:I,s:i,s:i,s:i,s:i}", "client", client, "seq",
        (json_int_t)seq, "generation", (json_int_t)t.generation, "created", (int)t.created,
        "updated", (int)t.updated, "moved", (int)t.moved, "deleted", (int)t.deleted);
    (void)json_object_update_new(answer,
        json_pack("{s:s,s:I,s:I,s:I,s:i,s:i,s:f,s:f,s:f}", "epoch",
            index_state(l->s->index)->epoch, "bytes_sent", (json_int_t)t.bytes_sent,
            "bytes_received", (json_int_t)t.bytes_received, "content_bytes",
            (json_int_t)t.content_bytes, "conflicts", (int)t.conflicts, "skipped", (int)t.skipped,
            "scan_ms", t.scan_ms, "send_ms", t.send_ms, "elapsed_ms", t.elapsed_ms));
    if (w->verify)
        (void)json_object_set_new(answer, "verified",
            json_pack("{s:I,s:I,s:I}", "entries", (json_int_t)l->audited.entries, "repaired",
                (json_int_t)l->audited.repaired, "by_runs", (json_int_t)l->audited.by_runs));
    control_answer(l->control, w->peer, answer);
    drop(w);
}

static void step_waiter(struct sync_loop *l, struct sync_waiter *w, uint64_t now_ns)
{
    if (!w->started && !w->cookie && sync_loop_is_clean(l)) {
        const char *client = NULL;
        w->started = true;
        sync_barrier(l->s, &client, &w->seq);
    }
    bool acked = !sync_busy(l->s) || index_state(l->s->index)->acked_seq >= w->seq;
    /* A large content goes before its set, at whatever rate the line has: a run waits for it here. */
    bool uploads = w->run && sync_uploads(l->s);
    if (w->verify)
        acked = !sync_busy(l->s) && !l->compare;
    if (w->verify && acked && l->audit_error[0])
        answer_error(l, w, EIO, l->audit_error);
    else if (w->started && l->problem[0] && !l->s->flying_count)
        answer_error(l, w, EIO, l->problem);
    else if (w->run && l->s->away && l->no_space_ns > w->asked_ns)
        answer_error(l, w, ENOSPC, l->problem); /* no waiting makes room */
    else if (w->started && w->run && (w->wants_ack ? acked : !uploads))
        sync_loop_run(l, w);
    else if (w->started && !w->run && !w->wants_ack)
        answer_flush(l, w);
    else if (w->started && !w->run && acked)
        answer_sync(l, w);
    else if (now_ns >= w->deadline_ns && !(w->started && w->run && uploads && !l->s->away))
        answer_late(l, w);
    else if (!control_has_peer(l->control, w->peer))
        drop(w);
}

void sync_loop_answer(struct sync_loop *l)
{
    uint64_t now_ns = io_now_ns();
    for (size_t i = 0; i < SYNC_WAITERS_MAX; i++) {
        if (l->waiters[i].peer)
            step_waiter(l, &l->waiters[i], now_ns);
    }
}

/* ---- requests */

static void do_flush(struct sync_loop *l, uint64_t peer, const json_t *request)
{
    (void)begin_wait(l, peer, request, false);
}

static void do_sync(struct sync_loop *l, uint64_t peer, const json_t *request)
{
    /* A command has heard of another epoch. */
    const char *epoch = json_string_value(json_object_get(request, "epoch"));
    if (epoch && *epoch && sync_note_epoch(l->s, epoch))
        l->rescan = true;
    (void)begin_wait(l, peer, request, true);
}

static void do_run(struct sync_loop *l, uint64_t peer, const json_t *request)
{
    json_t *run = json_object_get(request, "request");
    if (!json_is_object(run)) {
        control_answer_error(l->control, peer, EINVAL, "what shall be run?");
        return;
    }
    struct sync_waiter *w =
        begin_wait(l, peer, request, json_is_true(json_object_get(request, "settled")));
    if (!w)
        return;
    w->run = json_incref(run);
    w->stream = json_is_true(json_object_get(request, "stream"));
}

static json_t *times_of(const struct stats *s)
{
    return json_pack("{s:I,s:f,s:f}", "count", (json_int_t)stats_kept(s), "p50_ms",
        stats_percentile_ms(s, 50), "p99_ms", stats_percentile_ms(s, 99));
}

static void do_status(struct sync_loop *l, uint64_t peer, const json_t *request)
{
    (void)request;
    struct sync *s = l->s;
    size_t polled = 0;
    char since[TEXT_TIME_BYTES];
    const struct manifest *known = index_manifest(s->index);
    const char *problem = l->problem[0] ? l->problem : watch_problem(l->watch);
    (void)watch_polled(l->watch, &polled);
    uint64_t pending = settle_count(l->settle) + s->fresh_count;
    for (const struct sync_set *set = s->flying; set; set = set->next)
        pending += set->item_count;
    for (const struct sync_set *set = s->queue; set; set = set->next)
        pending += set->item_count;
    const char *state = s->away ? "away" : pending ? "sending" : "idle";
    json_t *answer = json_pack("{s:i,s:s,s:s,s:I,s:s,s:s?}", "pid", (int)getpid(), "server",
        s->link.server, "sandbox", s->link.sandbox, "generation",
        (json_int_t)index_state(s->index)->generation, "state", state, "problem", problem);
    (void)json_object_update_new(answer,
        json_pack("{s:I,s:I,s:I,s:I,s:I,s:s}", "watched_directories",
            (json_int_t)watch_count(l->watch), "polled_directories", (json_int_t)polled, "pending",
            (json_int_t)pending, "files", (json_int_t)manifest_count(known), "bytes",
            (json_int_t)manifest_bytes(known), "since", text_time(l->begun_wall_ns, since)));
    (void)json_object_update_new(
        answer, json_pack("{s:o,s:{s:o,s:o,s:o}}", "pending_paths", pending_of(l), "times", "saves",
                    times_of(&l->saves), "first_outputs", times_of(&l->first_outputs), "results",
                    times_of(&l->results)));
    control_answer(l->control, peer, answer);
}

/* A pull that another process prepared: to be renamed into place here, where the index is. */
static void do_pull(struct sync_loop *l, uint64_t peer, const json_t *request)
{
    struct sync *s = l->s;
    struct pull_plan plan = {.items = NULL};
    struct pull_target target = {.tree = s->tree, .rules = s->rules, .index = s->index};
    struct err e = ERR_INIT;
    (void)request;
    CLEANUP(fd_closep)
    int stage = openat(s->dir_fd, PULL_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int r = stage < 0 ? err_set(&e, errno, "open .silt/%s", PULL_DIR) : 0;
    target.stage_fd = stage;
    sync_audit_drop(&l->audit); /* the index changes */
    if (r == 0)
        r = pull_plan_load(stage, &plan, &target.allow_delete, &e);
    if (r == 0)
        r = pull_place(&target, &plan, &e);
    if (r == 0)
        r = pull_plan_save(&plan, target.allow_delete, stage, &e);
    pull_plan_release(&plan);
    if (r < 0)
        control_answer_error(l->control, peer, e.code, e.msg);
    else
        control_answer(l->control, peer, json_pack("{s:b}", "placed", 1));
}

static void do_stop(struct sync_loop *l, uint64_t peer, const json_t *request)
{
    (void)request;
    l->stop = true;
    sync_loop_tell(l, json_pack("{s:s}", "event", "stopping"));
    control_answer(l->control, peer, json_pack("{s:b}", "stopping", 1));
}

struct request_row {
    const char *op;
    void (*handle)(struct sync_loop *l, uint64_t peer, const json_t *request);
};

static const struct request_row request_rows[] = {
    {"flush", do_flush},
    {"sync", do_sync},
    {"status", do_status},
    {"pull", do_pull},
    {"stop", do_stop},
    {"run", do_run},
    {"cancel", sync_loop_cancel},
    {"follow", sync_loop_follow},
};

void sync_loop_request(void *ctx, uint64_t peer, const json_t *request)
{
    struct sync_loop *l = ctx;
    const char *op = json_string_value(json_object_get(request, "op"));
    for (size_t i = 0; op && i < sizeof(request_rows) / sizeof(request_rows[0]); i++) {
        if (strcmp(request_rows[i].op, op) == 0) {
            request_rows[i].handle(l, peer, request);
            return;
        }
    }
    control_answer_error(l->control, peer, ENOSYS,
        "this watcher does not know the request; is it of another version?");
}
