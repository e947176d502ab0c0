/* SPDX-License-Identifier: MIT */
/*
 * The watcher's loop. One thread, one place where it waits (client_step); everything else is done
 * when something is due. Order in one turn: hear the kernel, learn from trouble, scan what is
 * dirty, send, answer commands, and, when there is nothing better to do, signatures and audits.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "agent/sync_watch_internal.h"
#include "shared/io.h"
#include "shared/path.h"

#include "shared/banned.h"

#define NS_PER_MS UINT64_C(1000000)
#define BACKOFF_FIRST_NS (100 * NS_PER_MS)
#define BACKOFF_MOST_NS (5000 * NS_PER_MS)
#define TURN_MS_MOST 1000
#define TELL_NS (1000 * NS_PER_MS) /* while it goes on without a pause */
#define FDS_MAX (CONTROL_PEERS_MAX + 2)
#define DRAINS_BESIDE 4 /* of the kernel's queue, while sets are built */
#define LAST_WORDS_NS (2000 * NS_PER_MS) /* at the end, for what is in flight */

static void say(
    struct sync_loop *l, enum sync_said what, const struct sync_totals *totals, const char *text)
{
    if (l->config->said)
        l->config->said(l->config->ctx, what, totals, text);
    sync_loop_tell(l, sync_said_json(what, totals, text));
}

void sync_loop_problem(struct sync_loop *l, const char *text)
{
    if (strcmp(l->problem, text) == 0)
        return;
    (void)snprintf(l->problem, sizeof(l->problem), "%s", text);
    if (*text)
        say(l, SYNC_SAID_PROBLEM, NULL, text);
}

void sync_loop_since(
    const struct sync_loop *l, const struct sync_totals *before, struct sync_totals *ret)
{
    struct sync_totals t;
    sync_totals(l->s, &t);
    *ret = t;
    ret->created -= before->created;
    ret->updated -= before->updated;
    ret->moved -= before->moved;
    ret->deleted -= before->deleted;
    ret->bytes_sent -= before->bytes_sent;
    ret->bytes_received -= before->bytes_received;
    ret->content_bytes -= before->content_bytes;
    ret->conflicts -= before->conflicts;
    ret->skipped -= before->skipped;
    ret->elapsed_ms -= before->elapsed_ms;
    ret->scan_ms -= before->scan_ms;
    ret->send_ms -= before->send_ms;
}

bool sync_loop_is_clean(const struct sync_loop *l)
{
    return !l->rescan && !l->look_around && settle_count(l->settle) == 0 && !l->s->fresh_count &&
           l->s->trouble == SYNC_FINE && !l->s->unsettled && !l->s->away && !l->s->emptying.due_ns;
}

/* ---- trouble */

bool sync_loop_is_passing(const struct err *e)
{
    static const int codes[] = {ECONNREFUSED, ECONNRESET, ECONNABORTED, ETIMEDOUT, EHOSTUNREACH,
        ENETUNREACH, ENETDOWN, EPIPE, EAGAIN};
    if (e->refusal != PROTO_OK)
        return proto_error_info(e->refusal)->retryable;
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        if (codes[i] == e->code)
            return true;
    }
    return false;
}

static void go_away(struct sync_loop *l, const char *why)
{
    l->s->away = true;
    l->backoff_ns = l->backoff_ns ? l->backoff_ns * 2 : BACKOFF_FIRST_NS;
    if (l->backoff_ns > BACKOFF_MOST_NS)
        l->backoff_ns = BACKOFF_MOST_NS;
    l->retry_at_ns = io_now_ns() + l->backoff_ns;
    if (l->said_away && strcmp(l->problem, why) == 0)
        return;
    l->said_away = true;
    (void)snprintf(l->problem, sizeof(l->problem), "%s", why);
    say(l, SYNC_SAID_AWAY, NULL, l->problem);
}

/* Nobody answered, or the server said "later" and why. */
static void go_away_for_now(struct sync_loop *l)
{
    char why[sizeof(l->s->why_away.msg) + 64];
    const char *said = l->s->why_away.msg;

    (void)snprintf(why, sizeof(why), "%s: changes are kept and sent when it %s",
        *said ? said : "the server is away", *said ? "can take them" : "is back");
    go_away(l, why);
}

void sync_loop_fail(struct sync_loop *l, const struct err *e)
{
    if (sync_loop_is_passing(e)) {
        l->rescan = true;
        go_away(l, e->msg);
    } else if (e->code == ENOTEMPTY || e->code == ENOSPC || e->refusal == PROTO_NO_SPACE ||
               e->refusal == PROTO_TOO_LARGE) {
        sync_loop_problem(l, e->msg);
    } else {
        l->stop = true;
        l->result = -e->code;
        *l->e = *e;
    }
}

static void learn(struct sync_loop *l)
{
    struct sync *s = l->s;
    struct err e = ERR_INIT;
    if (s->trouble == SYNC_FINE || s->flying_count)
        return;
    sync_audit_drop(&l->audit);
    struct err why = s->error;
    bool fatal = s->trouble == SYNC_FATAL;
    int r = sync_recover(s, &e);
    s->trouble = SYNC_FINE;
    s->error = (struct err)ERR_INIT;
    if (fatal)
        sync_loop_fail(l, &why);
    else if (r < 0)
        sync_loop_fail(l, &e);
    else if (s->away)
        l->rescan = true;
}

/* The server was away: is it time to try again? */
static void retry(struct sync_loop *l)
{
    struct err e = ERR_INIT;
    struct sync *s = l->s;
    if (!s->away)
        return;
    if (!l->retry_at_ns || *l->s->why_away.msg)
        go_away_for_now(l);
    if (l->s->why_away.refusal == PROTO_NO_SPACE)
        l->no_space_ns = io_now_ns();
    l->s->why_away = (struct err)ERR_INIT;
    if (io_now_ns() < l->retry_at_ns)
        return;
    if (sync_resend(s, &e) < 0)
        sync_loop_fail(l, &e);
    /* Until an answer says otherwise the next try is later still. */
    l->backoff_ns = l->backoff_ns * 2 > BACKOFF_MOST_NS ? BACKOFF_MOST_NS : l->backoff_ns * 2;
    l->retry_at_ns = io_now_ns() + l->backoff_ns;
}

/* ---- telling */

static void tell_sent(struct sync_loop *l)
{
    struct sync_totals t;
    sync_loop_since(l, &l->said, &t);
    if (!t.created && !t.updated && !t.moved && !t.deleted)
        return;
    t.elapsed_ms = l->burst_ns ? (double)(io_now_ns() - l->burst_ns) / 1e6 : 0;
    sync_totals(l->s, &l->said);
    say(l, SYNC_SAID_SENT, &t, NULL);
}

static int hear(struct sync_loop *l, int most, struct err *e)
{
    int r = 1;
    for (int i = 0; r == 1 && !l->stop && i < most; i++)
        r = watch_drain(l->watch, sync_loop_hear, l, e);
    return r;
}

/* Whatever was written before now has its event in the queue: a rule's asks for a scan of everything.
 * Where that is due already, or the queue has no end, nobody knows. */
static bool may_have_rules(void *ctx)
{
    struct sync_loop *l = ctx;
    struct err e = ERR_INIT;
    struct pollfd fd = {.fd = watch_fd(l->watch), .events = POLLIN};
    bool more = !l->rescan && poll(&fd, 1, 0) != 0 && hear(l, DRAINS_BESIDE, &e) != 0;
    return l->rescan || more;
}

static void note_arrived(void *ctx, uint64_t seen_ns)
{
    struct sync_loop *l = ctx;
    stats_add(&l->saves, io_now_ns() - seen_ns);
}

static void tell(struct sync_loop *l)
{
    struct sync *s = l->s;
    struct sync_totals t;
    if (s->away || l->stop)
        return;
    if (l->said_away && !sync_busy(s) && !l->rescan) {
        l->said_away = false;
        l->backoff_ns = l->retry_at_ns = 0;
        l->problem[0] = '\0';
        say(l, SYNC_SAID_BACK, NULL, "the server is back");
    }
    bool busy = sync_busy(s) || l->rescan;
    /* Who never stops writing is told of, too. */
    if (busy && !(l->said_ready && l->burst_ns && io_now_ns() - l->burst_ns >= TELL_NS))
        return;
    tell_sent(l);
    l->burst_ns = busy ? io_now_ns() : 0;
    if (busy)
        return;
    if (!l->said_ready) {
        l->said_ready = true;
        sync_totals(s, &t);
        say(l, SYNC_SAID_READY, &t, NULL);
    }
    const char *polling = watch_problem(l->watch);
    if (polling && !l->said_polling)
        say(l, SYNC_SAID_PROBLEM, NULL, polling);
    l->said_polling = polling != NULL;
}

/* Nothing is dirty or under way: time for what makes the next change cheaper. True: there is more.
 */
static bool use_idle_time(struct sync_loop *l)
{
    struct err e = ERR_INIT;
    if (!sync_loop_is_clean(l) || sync_busy(l->s))
        return false;
    if (l->s->jobs)
        return sync_sig_step(l->s) || true;
    if (index_tidy(l->s->index, &e) < 0)
        sync_loop_problem(l, e.msg);
    sync_loop_audit_step(l);
    return false;
}

/* ---- waiting */

static int turn_ms(const struct sync_loop *l)
{
    const struct sync *s = l->s;
    uint64_t now = io_now_ns(), next = now + TURN_MS_MOST * NS_PER_MS;
    uint64_t settle_us = settle_next_us(l->settle), deadline = sync_loop_deadline(l);
    bool can_send = !s->queue && s->flying_count < SYNC_SETS_IN_FLIGHT && s->trouble == SYNC_FINE;
    if (can_send && !s->away && settle_us != SETTLE_NEVER && settle_us * 1000 < next)
        next = settle_us * 1000;
    if (can_send && !s->away && (l->rescan || (s->unsettled && !s->flying_count)))
        next = now;
    /* What waits is looked at first, and wakes us. */
    bool held = s->emptying.due_ns && settle_us == SETTLE_NEVER;
    if (held && can_send && !s->away && s->emptying.due_ns < next)
        next = s->emptying.due_ns;
    if (s->away && l->retry_at_ns < next)
        next = l->retry_at_ns;
    if (deadline < next)
        next = deadline;
    return next <= now ? 0 : (int)((next - now + NS_PER_MS - 1) / NS_PER_MS);
}

static int wait_and_hear(struct sync_loop *l, int timeout_ms)
{
    struct pollfd fds[FDS_MAX];
    fds[0] = (struct pollfd){.fd = watch_fd(l->watch), .events = POLLIN};
    unsigned count = control_fds(l->control, fds + 1, FDS_MAX - 1);
    int r = client_step(l->s->config.client, fds, count + 1, timeout_ms, l->e);
    if (r < 0)
        return r;
    l->heard_ns = io_now_ns();
    r = hear(l, INT_MAX, l->e);
    if (r < 0)
        return r;
    if (poll(fds + 1, count, 0) > 0)
        control_ready(l->control, fds + 1, count, sync_loop_request, l);
    return 0;
}

/* ---- the loop */

static int turn(struct sync_loop *l)
{
    bool more = use_idle_time(l);
    int r = wait_and_hear(l, more ? 0 : sync_loop_runs_ms(l, turn_ms(l)));
    if (r < 0 || l->stop)
        return r;
    learn(l);
    retry(l);
    sync_loop_scan(l);
    tell(l);
    sync_loop_answer(l);
    sync_loop_tend_runs(l);
    return 0;
}

static void finish_flights(struct sync_loop *l)
{
    struct err e = ERR_INIT;
    uint64_t until = io_now_ns() + LAST_WORDS_NS;
    while (l->s->flying_count && !l->s->away && io_now_ns() < until) {
        if (client_step(l->s->config.client, NULL, 0, 100, &e) < 0)
            return;
    }
}

static int run(struct sync_loop *l, struct err *e)
{
    int r = watch_open(l->s->tree, l->s->dir_fd, &l->watch, e);
    if (r == 0)
        r = control_listen(l->s->dir_fd, &l->control, e);
    l->s->entered = sync_loop_entered;
    l->s->entered_ctx = l;
    l->s->new_rules = may_have_rules;
    l->s->new_rules_ctx = l;
    l->s->changed = sync_loop_changed;
    l->s->changed_ctx = l;
    l->s->arrived = note_arrived;
    l->s->arrived_ctx = l;
    l->s->patient = true;
    if (r == 0) {
        sync_loop_scan(l);
        tell(l);
    }
    while (r == 0 && !l->stop && !(l->config->stop && *l->config->stop))
        r = turn(l);
    if (r == 0)
        finish_flights(l);
    return r < 0 ? r : l->result;
}

int sync_watch(struct sync *s, const struct sync_watch_config *config, struct err *e)
{
    struct err own = ERR_INIT;
    struct sync_loop l = {
        .s = s, .config = config, .e = e ? e : &own, .begun_wall_ns = io_wall_ns()};
    sync_loop_audit_begin(&l);
    l.settle = settle_new();
    int r = l.settle ? run(&l, l.e) : err_set(e, ENOMEM, "watch the project");
    s->entered = NULL;
    s->new_rules = NULL;
    s->changed = NULL;
    s->arrived = NULL;
    s->patient = false;
    if (l.control)
        sync_loop_end_runs(&l);
    sync_loop_drop_waiters(&l);
    json_decref(l.changed);
    sync_audit_drop(&l.audit);
    control_close(l.control);
    watch_close(l.watch);
    settle_free(l.settle);
    return r;
}
