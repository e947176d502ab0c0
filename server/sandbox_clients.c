/* SPDX-License-Identifier: MIT */
/*
 * The order of change sets. A client numbers its sets, each names the one it builds on, and they
 * may arrive in any order, twice, or not at all. A set is applied when its parent is the last one
 * that was. What became of the last 64 numbers of each client is remembered, in the database too.
 */
#include <errno.h>
#include <string.h>

#include "server/sandbox_internal.h"
#include "shared/io.h"
#include "shared/log.h"

#include "shared/banned.h"

#define NS_PER_S UINT64_C(1000000000)

void sandbox_clients_free(struct sandbox *sb)
{
    struct sandbox_client *c, *next;

    HASH_ITER(hh, sb->clients, c, next) {
        HASH_DEL(sb->clients, c);
        free(c);
    }
}

static struct sandbox_client *find_client(struct sandbox *sb, const char *name)
{
    struct sandbox_client *c;

    HASH_FIND_STR(sb->clients, name, c);
    return c;
}

static struct sandbox_client *new_client(struct sandbox *sb, const char *name)
{
    struct sandbox_client *c = calloc(1, sizeof *c);

    if (!c)
        return NULL;
    (void)snprintf(c->name, sizeof c->name, "%s", name);
    HASH_ADD_STR(sb->clients, name, c);
    if (c->hh.tbl)
        return c;
    free(c);
    return NULL;
}

static struct client_result *find_result(struct sandbox_client *c, uint64_t seq)
{
    for (size_t i = 0; i < SANDBOX_RESULTS; i++) {
        if (c->results[i].seq == seq)
            return &c->results[i];
    }
    return NULL;
}

static int load_result(const struct store_result *row, void *ctx)
{
    struct sandbox *sb = ctx;
    struct sandbox_client *c = find_client(sb, row->client);

    if (row->slot >= SANDBOX_RESULTS || (!c && !(c = new_client(sb, row->client))))
        return 0;
    struct client_result *res = &c->results[row->slot];
    *res = (struct client_result){.seq = row->seq,
        .digest = row->digest,
        .refusal = row->refusal >= 0 && row->refusal < PROTO_ERROR_COUNT
                       ? (enum proto_error)row->refusal
                       : PROTO_INTERNAL,
        .generation = row->generation,
        .created = row->created,
        .updated = row->updated,
        .moved = row->moved,
        .deleted = row->deleted};
    (void)snprintf(res->reason, sizeof res->reason, "%s", row->reason);
    if (res->refusal == PROTO_OK && res->seq > c->last)
        c->last = res->seq;
    /* Rows come in the order in which they were written. */
    c->used_ns = row->used_ns;
    c->next_slot = (row->slot + 1) % SANDBOX_RESULTS;
    return 0;
}

int sandbox_clients_load(struct sandbox *sb, struct err *e)
{
    return store_result_each(sb->all->config.store, sb->num, load_result, sb, e);
}

/* ---- tickets */

/* 0 finds a free place. NULL: there is none. */
static struct client_inflight *find_inflight(struct sandbox_client *c, uint64_t seq)
{
    for (size_t i = 0; i < SANDBOX_INFLIGHT_MAX; i++) {
        if (c->inflight[i].seq == seq)
            return &c->inflight[i];
    }
    return NULL;
}

/* Wait for a signal until the deadline (monotonic). false: it has passed. sb->lock is held. */
static bool wait_until(struct sandbox *sb, uint64_t deadline_ns)
{
    struct timespec at = {
        .tv_sec = (time_t)(deadline_ns / NS_PER_S), .tv_nsec = (long)(deadline_ns % NS_PER_S)};

    return pthread_cond_timedwait(&sb->moved, &sb->lock, &at) != ETIMEDOUT;
}

/* The client used longest ago that has nothing under way; NULL if there is room. */
static struct sandbox_client *oldest_to_forget(struct sandbox *sb)
{
    struct sandbox_client *c, *next, *oldest = NULL;

    if (HASH_COUNT(sb->clients) < SANDBOX_CLIENTS_MAX)
        return NULL;
    HASH_ITER(hh, sb->clients, c, next) {
        if (c->inflight_count == 0 && (!oldest || c->used_ns < oldest->used_ns))
            oldest = c;
    }
    return oldest;
}

static int get_client(
    struct sandbox *sb, const char *name, struct sandbox_client **ret, struct err *e)
{
    struct sandbox_client *c = find_client(sb, name), *old;

    if (!c) {
        old = oldest_to_forget(sb);
        if (!old && HASH_COUNT(sb->clients) >= SANDBOX_CLIENTS_MAX)
            return err_refuse(e, PROTO_BUSY, "too many clients send to this sandbox at once");
        if (old) {
            int r = store_client_forget(sb->all->config.store, sb->num, old->name, e);
            if (r < 0)
                return r;
            HASH_DEL(sb->clients, old);
            free(old);
        }
        c = new_client(sb, name);
        if (!c)
            return err_set(e, ENOMEM, "remember a client");
    }
    c->used_ns = io_wall_ns();
    *ret = c;
    return 0;
}

/* What is known about this number. 1: it is free. sb->lock is held. */
static int look_up(struct sandbox_client *c, struct sandbox_ticket *t, struct err *e)
{
    struct client_result *known = find_result(c, t->seq);

    if (known && known->refusal == PROTO_OK) {
        t->copy = *known;
        t->known = &t->copy;
        return 0;
    }
    if (known && known->passing) {
        known->seq = 0;
        return 1;
    }
    if (known)
        return err_refuse(e, known->refusal, "%s", known->reason);
    if (t->seq <= c->last)
        return err_refuse(e, PROTO_SEQ_CONFLICT,
            "number %llu was used before, and what for is forgotten; the last applied is %llu",
            (unsigned long long)t->seq, (unsigned long long)c->last);
    return 1;
}

static int take_number(
    struct sandbox *sb, const char *name, struct sandbox_ticket *t, struct err *e)
{
    struct sandbox_client *c = NULL;
    struct client_inflight *place;

    for (;;) {
        int r = get_client(sb, name, &c, e);
        if (r < 0)
            return r;
        place = find_inflight(c, t->seq);
        if (place && place->arrived) {
            /* The same number is under way: its outcome answers this one. */
            if (!wait_until(sb, t->deadline_ns))
                return err_refuse(e, PROTO_BUSY, "change set %llu is still under way",
                    (unsigned long long)t->seq);
            continue;
        }
        r = place ? 1 : look_up(c, t, e);
        if (r <= 0)
            return r;
        break;
    }
    if (c->inflight_count >= SANDBOX_INFLIGHT_MAX)
        return err_refuse(e, PROTO_BUSY, "too many change sets of this client are under way");
    /* One that still arrives comes from a connection that was given up over there. */
    place = place ? place : find_inflight(c, 0);
    t->holder = ++c->holders;
    *place = (struct client_inflight){.seq = t->seq, .holder = t->holder};
    c->inflight_count++;
    t->client = c;
    return 0;
}

int sandbox_ticket_take(struct sandbox *sb, const struct changes_begin *begin,
    struct sandbox_ticket *ret, struct err *e)
{
    *ret = (struct sandbox_ticket){.seq = begin->seq,
        .parent = begin->parent,
        .deadline_ns = io_now_ns() + SANDBOX_PARENT_WAIT_NS};
    if (begin->client[0] == '\0')
        return 0;
    /* The database counts in 63 bits. */
    if (begin->seq == 0 || begin->parent >= begin->seq || begin->seq > INT64_MAX)
        return err_refuse(e, PROTO_INVALID_VALUE,
            "a set's number must be positive and greater than that of the set it builds on");
    int r = sandbox_lease_check(sb, begin->client, e);
    if (r < 0)
        return r;
    (void)pthread_mutex_lock(&sb->lock);
    r = take_number(sb, begin->client, ret, e);
    (void)pthread_mutex_unlock(&sb->lock);
    return r;
}

int sandbox_ticket_wait(struct sandbox *sb, struct sandbox_ticket *t, struct err *e)
{
    struct sandbox_client *c = t->client;
    int r = 0;

    if (!c)
        return 0;
    (void)pthread_mutex_lock(&sb->lock);
    while (c->last != t->parent) {
        const struct client_result *parent = t->parent ? find_result(c, t->parent) : NULL;
        if (sb->deleting)
            r = sandbox_refuse_deleted(sb, e);
        else if (parent && parent->refusal != PROTO_OK)
            r = err_refuse(e, PROTO_PREDECESSOR_REFUSED, "change set %llu was refused: %s",
                (unsigned long long)t->parent, parent->reason);
        else if (c->last > t->parent)
            r = err_refuse(e, PROTO_SEQ_CONFLICT,
                "the set builds on number %llu, but %llu was applied since",
                (unsigned long long)t->parent, (unsigned long long)c->last);
        else if (!wait_until(sb, t->deadline_ns) && c->last != t->parent)
            r = err_refuse(e, PROTO_SEQ_GAP,
                "change set %llu, which this one builds on, did not arrive",
                (unsigned long long)t->parent);
        if (r < 0)
            break;
    }
    (void)pthread_mutex_unlock(&sb->lock);
    return r;
}

static struct client_inflight *own_place(const struct sandbox_ticket *t)
{
    struct client_inflight *place = find_inflight(t->client, t->seq);

    return place && place->holder == t->holder ? place : NULL;
}

/* It came again over another connection, whose outcome answers both. sb->lock is held. */
static int await_twin(struct sandbox *sb, struct sandbox_ticket *t, struct err *e)
{
    while (find_inflight(t->client, t->seq) && wait_until(sb, t->deadline_ns))
        ;
    int r = find_inflight(t->client, t->seq) ? 1 : look_up(t->client, t, e);
    return r == 1 ? err_refuse(e, PROTO_BUSY, "change set %llu came again over another connection",
                        (unsigned long long)t->seq)
                  : r;
}

int sandbox_ticket_arrived(struct sandbox *sb, struct sandbox_ticket *t, struct err *e)
{
    int r = 0;

    if (!t->client)
        return 0;
    (void)pthread_mutex_lock(&sb->lock);
    struct client_inflight *place = own_place(t);
    if (place)
        place->arrived = true;
    else
        r = await_twin(sb, t, e);
    (void)pthread_mutex_unlock(&sb->lock);
    return r;
}

void sandbox_ticket_result(
    struct sandbox *sb, const struct sandbox_ticket *t, struct store_result *ret)
{
    (void)pthread_mutex_lock(&sb->lock);
    *ret = (struct store_result){.client = t->client->name,
        .slot = t->client->next_slot,
        .seq = t->seq,
        .reason = "",
        .used_ns = io_wall_ns()};
    (void)pthread_mutex_unlock(&sb->lock);
}

/* Is this refusal about the moment or about how the set arrived, rather than about what it says?
 * Then the same number may be tried again. */
static bool is_passing(enum proto_error refusal)
{
    return proto_error_info(refusal)->retryable || refusal == PROTO_PREDECESSOR_REFUSED ||
           refusal == PROTO_BAD_CHANGES || refusal == PROTO_SANDBOX_DELETED;
}

static void remember(struct sandbox_client *c, const struct store_result *row, bool passing)
{
    struct client_result *res = &c->results[c->next_slot];

    *res = (struct client_result){.seq = row->seq,
        .digest = row->digest,
        .refusal = (enum proto_error)row->refusal,
        .passing = passing,
        .generation = row->generation,
        .created = row->created,
        .updated = row->updated,
        .moved = row->moved,
        .deleted = row->deleted};
    (void)snprintf(res->reason, sizeof res->reason, "%s", row->reason);
    c->next_slot = (c->next_slot + 1) % SANDBOX_RESULTS;
    if (row->refusal == PROTO_OK)
        c->last = row->seq;
}

void sandbox_ticket_done(struct sandbox *sb, struct sandbox_ticket *t,
    const struct store_result *applied, const struct err *e)
{
    struct sandbox_client *c = t->client;
    struct store_result refused;

    if (!c)
        return;
    (void)pthread_mutex_lock(&sb->lock);
    struct client_inflight *place = own_place(t);
    if (applied) {
        remember(c, applied, false);
    } else if (place && e->refusal != PROTO_OK) {
        bool passing = is_passing(e->refusal);
        refused = (struct store_result){.client = c->name,
            .slot = c->next_slot,
            .seq = t->seq,
            .refusal = (int)e->refusal,
            .reason = e->msg,
            .used_ns = io_wall_ns()};
        /* Unrecorded, a refusal is only decided anew when the number is repeated after a restart.
         */
        if (!passing && store_result_put(sb->all->config.store, sb->num, &refused, NULL) < 0)
            log_warn("the refusal of a change set could not be recorded");
        remember(c, &refused, passing);
    }
    if (place)
        place->seq = 0;
    c->inflight_count--;
    (void)pthread_cond_broadcast(&sb->moved);
    (void)pthread_mutex_unlock(&sb->lock);
}

/* ---- the barrier */

/* 0 applied, <0 refused, 1 not known yet. sb->lock is held. */
static int barrier_state(struct sandbox *sb, const char *client, uint64_t seq, struct err *e)
{
    struct sandbox_client *c = find_client(sb, client);
    const struct client_result *known = c && seq > 0 ? find_result(c, seq) : NULL;
    uint64_t oldest = UINT64_MAX;

    if (sb->deleting)
        return sandbox_refuse_deleted(sb, e);
    if (seq == 0)
        return 0; /* before the first set */
    /* The workspace is another folder's by now: a run would show that one's files. */
    if (sb->writer_link[0] && strchr(client, '.') && !sandbox_lease_has(sb, client))
        return sandbox_lease_refuse(sb, e);
    if (!c || find_inflight(c, seq))
        return 1;
    if (known && known->refusal != PROTO_OK)
        return err_refuse(e, PROTO_BARRIER_REFUSED, "change set %llu was refused (%s): %s",
            (unsigned long long)seq, proto_error_info(known->refusal)->name, known->reason);
    if (known)
        return 0;
    if (seq > c->last)
        return 1;
    for (size_t i = 0; i < SANDBOX_RESULTS; i++) {
        if (c->results[i].seq && c->results[i].seq < oldest)
            oldest = c->results[i].seq;
    }
    /* Numbers never go back: one that was passed over will not come any more. */
    return seq < oldest ? 0
                        : err_refuse(e, PROTO_BARRIER_REFUSED,
                              "change set %llu never arrived, and %llu was applied since",
                              (unsigned long long)seq, (unsigned long long)c->last);
}

int sandbox_barrier(struct sandbox *sb, const char *client, uint64_t seq, uint32_t timeout_ms,
    const atomic_bool *cancel, struct err *e)
{
    uint64_t deadline_ns = io_now_ns() + (uint64_t)timeout_ms * 1000000;
    int r = sandbox_enter(sb, false, e);

    if (r < 0)
        return r;
    (void)pthread_mutex_lock(&sb->lock);
    while ((r = barrier_state(sb, client, seq, e)) == 1) {
        if (cancel && atomic_load(cancel)) {
            r = err_say(
                e, ECANCELED, "waiting for change set %llu was cancelled", (unsigned long long)seq);
            break;
        }
        if (!wait_until(sb, deadline_ns) && barrier_state(sb, client, seq, NULL) == 1) {
            r = err_refuse(e, PROTO_BARRIER_TIMEOUT,
                "change set %llu did not arrive within %u ms: is the sender still connected?",
                (unsigned long long)seq, timeout_ms);
            break;
        }
    }
    (void)pthread_mutex_unlock(&sb->lock);
    sandbox_exit(sb);
    return r;
}
