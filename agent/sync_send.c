/* SPDX-License-Identifier: MIT */
/*
 * Sets in flight. At most two at a time; each names the one before as its parent, so the server
 * keeps their order whatever connection is quicker. What is in `flying` is either under way (call
 * set) or waits for a server that is away.
 */
#include "agent/sync_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared/io.h"

#include "shared/banned.h"

#define TRIES_MAX 3              /* at a broken connection, without patience */
#define RETRY_NS UINT64_C(100000000) /* of a stage, without patience; twice as long each time */
#define PROBE_BYTES (64u * 1024) /* that wait: as many are not sent again without asking first */
#define PROBE_MS 5000
#define TIMEOUT_MS 60000         /* of a request, plus its size at: */
#define CONFLICTS_LISTED 1000    /* by the server, at most */
#define SLOWEST_BYTES_PER_MS 128 /* 1 Mbit/s */

static bool has_waiting(const struct sync *s)
{
    const struct sync_set *set = s->flying;
    while (set && set->call)
        set = set->next;
    return set != NULL;
}

static void set_done(void *ctx, int result, struct client_response *response, const struct err *e);

static void unlist(struct sync *s, struct sync_set *set)
{
    for (struct sync_set **at = &s->flying; *at; at = &(*at)->next) {
        if (*at != set)
            continue;
        *at = set->next;
        set->next = NULL;
        s->flying_count--;
        return;
    }
}

void sync_drop_sets(struct sync *s)
{
    if (s->probe)
        client_abort(s->config.client, ptr_take(&s->probe));
    while (s->flying) {
        struct sync_set *set = s->flying;
        if (set->call)
            client_abort(s->config.client, set->call);
        unlist(s, set);
        sync_set_free(set);
    }
    sync_drop_plan(s);
}

static void fail(struct sync *s, enum sync_trouble trouble, const struct err *e)
{
    /* The first one that says what is wrong decides; what followed was refused because of it. */
    if (trouble > s->trouble || s->trouble == SYNC_FINE) {
        s->trouble = trouble;
        s->error = *e;
    }
}

static int start(struct sync *s, struct sync_set *set, struct err *e)
{
    int r = set->stage ? sync_stage_prepare(set, e) : 0;
    if (r < 0)
        return r;
    uint64_t bytes = set->stage            ? set->items[set->item_count - 1].size
                     : set->stream_fd >= 0 ? set->stream_len
                                           : set->request.body_len;
    uint64_t timeout = TIMEOUT_MS + bytes / SLOWEST_BYTES_PER_MS;
    set->request.timeout_ms = timeout > UINT32_MAX ? UINT32_MAX : (uint32_t)timeout;
    set->tries++;
    if (!s->send_begin_ns)
        s->send_begin_ns = io_now_ns();
    return client_start(s->config.client, &set->request, set_done, set, &set->call, e);
}

/* ---- answers */

static uint64_t number_of(const json_t *object, const char *name)
{
    json_int_t n = json_integer_value(json_object_get(object, name));
    return n > 0 ? (uint64_t)n : 0;
}

static void take_totals(struct sync *s, const struct sync_set *set, const json_t *answer)
{
    struct sync_totals *t = &s->totals;
    t->created += (uint32_t)number_of(answer, "created");
    t->updated += (uint32_t)number_of(answer, "updated");
    t->moved += (uint32_t)number_of(answer, "moved");
    t->deleted += (uint32_t)number_of(answer, "deleted");
    t->content_bytes += set->content_bytes;
    s->files_done += set->item_count;
    s->bytes_done += set->content_bytes;
    if (s->config.events.progress)
        s->config.events.progress(s->config.events.ctx, s->files_done, s->files_total,
            s->bytes_done, s->bytes_total > s->bytes_done ? s->bytes_total : s->bytes_done);
}

/* The index's file learns of sets in their order, or it would end with what an earlier one put at a
 * path that they share. Two answers come over two connections, and not always in order. */
static int note_acknowledged(struct sync *s, struct sync_set *set, struct err *e)
{
    struct index_state *state = index_state(s->index);
    struct sync_set *earlier = set->next;
    uint64_t seq = set->later_seq > set->seq ? set->later_seq : set->seq;
    if (earlier) {
        earlier->later_seq = seq;
        int r = buf_add(&earlier->log, buf_str(&set->log), set->log.len);
        return r < 0 ? err_set(e, -r, "note what was acknowledged") : 0;
    }
    if (seq > state->acked_seq)
        state->acked_seq = seq;
    return index_commit(s->index, &set->log, e);
}

static int acknowledged(
    struct sync *s, struct sync_set *set, const struct client_response *response, struct err *e)
{
    struct index_state *state = index_state(s->index);
    json_t *answer = client_json(response, e);
    if (!answer)
        return -EPROTO;
    uint64_t generation = number_of(answer, "generation");
    if (generation > state->generation)
        state->generation = generation;
    s->cuts = 0;
    const char *epoch = json_string_value(json_object_get(answer, "epoch"));
    if (epoch && strlen(epoch) < sizeof(state->epoch))
        memcpy(state->epoch, epoch, strlen(epoch) + 1);
    take_totals(s, set, answer);
    json_decref(answer);
    if (set->was_staged)
        sync_stage_forget(s);
    return note_acknowledged(s, set, e);
}

struct refusal_row {
    enum proto_error code;
    enum sync_trouble trouble;
};

static const struct refusal_row refusal_rows[] = {
    {PROTO_BASE_MISMATCH, SYNC_REPAIR}, {PROTO_PATH_CONFLICT, SYNC_REPAIR},
    {PROTO_EPOCH_MISMATCH, SYNC_REBASE}, {PROTO_SEQ_CONFLICT, SYNC_REBASE},
    {PROTO_FILE_NOT_FOUND, SYNC_REBASE}, /* the source of a copy or move is gone there */
    {PROTO_PREDECESSOR_REFUSED, SYNC_AGAIN}, {PROTO_SEQ_GAP, SYNC_AGAIN},
    {PROTO_STAGE_NOT_FOUND, SYNC_AGAIN}, {PROTO_OFFSET_MISMATCH, SYNC_AGAIN},
    {PROTO_HASH_MISMATCH, SYNC_AGAIN}, /* the file changed between hashing and sending */
};

static void refused(struct sync *s, const struct client_response *response, const struct err *e)
{
    enum sync_trouble trouble = SYNC_FATAL;
    for (size_t i = 0; i < sizeof(refusal_rows) / sizeof(refusal_rows[0]); i++) {
        if (refusal_rows[i].code == e->refusal)
            trouble = refusal_rows[i].trouble;
    }
    if (e->refusal == PROTO_SEQ_CONFLICT)
        s->renumber = true;
    json_t *conflicts = json_object_get(response->error_details, "conflicts");
    /* A list that was cut short teaches less than asking for everything once. */
    if (trouble == SYNC_REPAIR &&
        (!json_is_array(conflicts) || json_array_size(conflicts) >= CONFLICTS_LISTED))
        trouble = SYNC_REBASE;
    if (trouble == SYNC_REPAIR) {
        if (!s->conflicts)
            s->conflicts = json_array();
        (void)json_array_extend(s->conflicts, conflicts);
    }
    struct err told = *e;
    if (e->refusal == PROTO_LINKED_ELSEWHERE && !strstr(e->msg, "--steal"))
        (void)err_refuse(&told, e->refusal,
            "%s; to make this folder the one that fills the sandbox: silt sync --steal", e->msg);
    fail(s, trouble, &told);
}

/* Nobody answered, or the answer was "later". A set in memory can be sent again as it is: the
 * server knows its number. A streamed one is read again under a new number. True: it stays. */
static bool keep_for_later(struct sync *s, struct sync_set *set, int result,
    const struct client_response *response, const struct err *e)
{
    bool later = result != -EPROTO ||
                 (response->retryable && response->status >= 429 && response->status != 409);
    if (!later || result == -ENOMEM || result == -ESTALE || set->stream_fd >= 0)
        return false;
    if (s->patient) {
        s->away = true;
        s->why_away = result == -EPROTO ? *e : (struct err)ERR_INIT;
        return true;
    }
    /* The server may not have seen yet that the connection broke: it gets a moment. */
    bool passes = result == -EPROTO ? e->refusal == PROTO_BUSY : result != -ECONNREFUSED;
    if (set->stage && passes && set->tries < SYNC_STAGE_TRIES) {
        s->retry_at_ns = io_now_ns() + (RETRY_NS << set->tries);
        return true;
    }
    /* A kept connection may have been closed by a server that was restarted. */
    struct err ignored = ERR_INIT;
    return result != -ECONNREFUSED && response->retryable && set->tries < TRIES_MAX &&
           start(s, set, &ignored) == 0;
}

/* A command, too, goes on after a connection that broke in the middle of a content. */
static bool broke_off(
    const struct sync_set *set, int result, const struct client_response *response)
{
    return set->stream_fd >= 0 && result != -EPROTO && result != -ECONNREFUSED &&
           response->retryable;
}

static void note_cut(struct sync *s, const struct sync_set *set)
{
    if (set->stream_given < SYNC_STAGE_MIN)
        return;
    s->cuts++;
    s->cut_bytes = set->stream_given;
}

/* The next set goes out from here, whoever drives the client: a run may wait for it. One in which
 * nothing is left to send goes nowhere, so the one behind it is due as well. */
static void pump(struct sync *s)
{
    struct err e = ERR_INIT;
    int r;
    do
        r = sync_pump(s, &e);
    while (r == 0 && s->flying_count == 0 && sync_can_send(s));
    if (r < 0)
        fail(s, SYNC_FATAL, &e);
}

/* The next request of a set whose content goes to a stage: true, or it did not begin. */
static bool goes_on(struct sync *s, struct sync_set *set, enum sync_stage_next next, struct err *e)
{
    int r = next == SYNC_STAGE_GO_ON ? 0 : sync_stage_end(set, next == SYNC_STAGE_THERE, e);
    return r == 0 && start(s, set, e) == 0;
}

static void set_done(void *ctx, int result, struct client_response *response, const struct err *e)
{
    struct sync_set *set = ctx;
    struct sync *s = set->sync;
    struct err late = ERR_INIT;
    set->call = NULL;
    s->totals.bytes_sent += response->bytes_sent;
    s->totals.bytes_received += response->bytes_received;
    enum sync_stage_next next =
        set->stage ? sync_stage_heard(set, result, response, e, &late) : SYNC_STAGE_FAILED;
    if (next != SYNC_STAGE_FAILED && goes_on(s, set, next, &late)) {
        s->away = s->away && has_waiting(s);
        pump(s);
        return;
    }
    if (next != SYNC_STAGE_FAILED) {
        fail(s, SYNC_FATAL, &late);
        unlist(s, set);
        sync_set_free(set);
        return;
    }
    if (result < 0 && keep_for_later(s, set, result, response, e))
        return;
    if (result == 0 && (result = acknowledged(s, set, response, &late)) < 0)
        fail(s, SYNC_FATAL, &late);
    else if (result == 0 && set->seen_ns && s->arrived)
        s->arrived(s->arrived_ctx, set->seen_ns);
    else if (result == -EPROTO)
        refused(s, response, e);
    else if (result == -ESTALE) /* the file changed while it was sent */
        fail(s, SYNC_AGAIN, e);
    else if (result < 0 && (s->patient || broke_off(set, result, response))) {
        /* Whether it was applied is not known. */
        s->away = s->patient;
        note_cut(s, set);
        fail(s, SYNC_REBASE, e);
    } else if (result < 0)
        fail(s, SYNC_FATAL, e);
    unlist(s, set);
    /* Another set may have lost its connection meanwhile: it waits to be sent again. */
    if (result == 0)
        s->away = has_waiting(s);
    sync_set_free(set);
    if (s->flying_count == 0 && s->send_begin_ns) {
        s->send_ns += io_now_ns() - s->send_begin_ns;
        s->send_begin_ns = 0;
    }
    if (s->flying_count == 0 && !s->queue)
        sync_pack_drop(s);
    sync_end_contests(s);
    pump(s);
}

/* ---- sending */

/* Nothing in it needs to be sent: only the index learns of it, after the sets before it. */
static int settle_empty(struct sync *s, struct sync_set *set, struct err *e)
{
    int r = 0;
    if (set->log.len && s->flying)
        r = buf_add(&s->flying->log, set->log.data, set->log.len);
    if (r < 0)
        return err_set(e, -r, "note what did not change");
    if (set->log.len && !s->flying)
        r = index_commit(s->index, &set->log, e);
    s->files_done += set->item_count;
    return r;
}

static int build(struct sync *s, struct sync_set *set, struct err *e)
{
    int r = sync_set_begin(s, set, e);
    for (size_t i = 0; r == 0 && i < set->item_count; i++) {
        uint32_t before = set->ops;
        r = sync_ops_add(s, set, &set->items[i], e);
        if (r == 0 && set->ops != before && s->changed)
            s->changed(s->changed_ctx, set->items[i].path);
    }
    return r;
}

static int send_next(struct sync *s, struct err *e)
{
    struct sync_set *set = s->queue;
    s->queue = set->next;
    if (!s->queue)
        s->queue_end = &s->queue;
    set->next = NULL;
    int r = build(s, set, e);
    if (r == 0 && set->ops == 0 && s->promised_seq != set->seq) {
        r = settle_empty(s, set, e);
        sync_set_free(set);
        sync_end_contests(s);
        return r;
    }
    if (r == 0 && !set->stage)
        r = sync_set_finish(s, set, e);
    /* Before it is sent: were its answer lost, nobody would know what of the server's is ours. */
    if (r == 0 && set->intents.len)
        r = index_commit(s->index, &set->intents, e);
    if (r < 0) {
        sync_set_free(set);
        return r;
    }
    set->next = s->flying;
    s->flying = set;
    s->flying_count++;
    s->sent_seq = set->seq;
    r = start(s, set, e);
    if (r < 0) {
        unlist(s, set);
        sync_set_free(set);
    }
    return r;
}

bool sync_can_send(const struct sync *s)
{
    return s->queue && s->flying_count < SYNC_SETS_IN_FLIGHT && s->trouble == SYNC_FINE &&
           !s->away && !s->reading;
}

int sync_pump(struct sync *s, struct err *e)
{
    return sync_can_send(s) ? send_next(s, e) : 0;
}

static int resend(struct sync *s, struct err *e)
{
    int r = 0;
    s->away = false;
    s->retry_at_ns = 0;
    for (struct sync_set *set = s->flying; r == 0 && set; set = set->next) {
        if (!set->call)
            r = start(s, set, e);
    }
    while (r == 0 && sync_can_send(s))
        r = sync_pump(s, e);
    return r;
}

/* Whoever answers with one of our refusals is the server; a proxy that stands in front of it while
 * it is away says something else, or nothing. */
static void probe_done(void *ctx, int result, struct client_response *response, const struct err *e)
{
    struct sync *s = ctx;
    struct err late = ERR_INIT;
    s->probe = NULL;
    s->totals.bytes_sent += response->bytes_sent;
    s->totals.bytes_received += response->bytes_received;
    bool there = result == 0 ||
                 (result == -EPROTO && e->refusal != PROTO_OK && !response->retryable);
    if (there && resend(s, &late) < 0)
        fail(s, SYNC_FATAL, &late);
}

static size_t waiting_bytes(const struct sync *s)
{
    size_t bytes = 0;
    for (const struct sync_set *set = s->flying; set; set = set->next)
        bytes += set->call || set->stage ? 0 : set->request.body_len;
    return bytes;
}

int sync_resend(struct sync *s, struct err *e)
{
    if (s->probe)
        return 0;
    if (!s->patient || waiting_bytes(s) < PROBE_BYTES)
        return resend(s, e);
    (void)snprintf(s->probe_path, sizeof(s->probe_path), "/v1/sandboxes/%s", s->link.sandbox);
    struct client_request ask = {
        .method = "GET", .path = s->probe_path, .timeout_ms = PROBE_MS};
    return client_start(s->config.client, &ask, probe_done, s, &s->probe, e);
}
