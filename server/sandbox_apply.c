/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include "server/apply.h"
#include "server/cache.h"
#include "server/sandbox_internal.h"
#include "server/sandbox_views.h"
#include "server/set.h"
#include "shared/io.h"
#include "shared/log.h"

#include "shared/banned.h"

/* One rename needs no intent: it has happened or it has not. */
#define INTENT_DEEDS 2

/* One change set on its way. */
struct applying {
    struct sandbox *sb;
    const struct changes_begin *begin;
    const struct changes_feed *feed;
    struct sandbox_ticket ticket;
    struct stage stage;
    struct set set;
    struct steps steps;
    struct apply_edits edits;
    struct store_result result; /* of a numbered set */
    struct hash digest;
    struct sandbox_apply_result *ret;
    struct sandbox_upload *uploads; /* that the set names */
    const struct sandbox_origin *origin; /* NULL: a client */
    bool intent, applied;
    bool was_running; /* a program, when the first byte was read */
    uint64_t runs_begun;
};

void sandbox_apply_result_release(struct sandbox_apply_result *r)
{
    for (size_t i = 0; i < r->conflict_count; i++)
        free(r->conflicts[i].path);
    free(ptr_take(&r->conflicts));
    r->conflict_count = 0;
    late_release(&r->late);
}

static int wait_for_basis(void *ctx, struct err *e)
{
    struct applying *a = ctx;

    return sandbox_ticket_wait(a->sb, &a->ticket, e);
}

static int take_claimed(void *ctx, const struct change_op *op, struct staged **ret, struct err *e)
{
    struct applying *a = ctx;

    return a->origin->claim(a->origin->ctx, &a->stage, op, ret, e);
}

static int take_upload(void *ctx, const struct change_op *op, struct staged **ret, struct err *e)
{
    struct applying *a = ctx;

    return sandbox_upload_claim(a->sb, &a->stage, op, &a->uploads, ret, e);
}

/* Read and stage everything; other sets may be staged and applied meanwhile. */
static int read_set(struct applying *a, struct err *e)
{
    struct tree_identity previous;
    int r = tree_identity_enter(a->sb->identity, &previous, e);

    if (r < 0)
        return r;
    r = set_read(&a->set, a->feed, e);
    tree_identity_leave(previous);
    if (r == 0 && a->feed->digest)
        a->feed->digest(a->feed->ctx, &a->digest);
    return r;
}

/* sb->lock is not needed: generation and epoch change only under turn. */
static int check_conditions(const struct applying *a, struct err *e)
{
    struct sandbox *sb = a->sb;
    const struct changes_begin *begin = a->begin;

    (void)pthread_mutex_lock(&sb->lock);
    bool deleting = sb->deleting;
    (void)pthread_mutex_unlock(&sb->lock);
    if (deleting)
        return sandbox_refuse_deleted(sb, e);
    if (begin->epoch[0] && strcmp(begin->epoch, sb->epoch) != 0)
        return err_refuse(e, PROTO_EPOCH_MISMATCH,
            "the workspace was lost or restored since (its epoch is %s): compare the trees",
            sb->epoch);
    if (begin->if_generation != CHANGES_NO_GENERATION && begin->if_generation != sb->generation)
        return err_refuse(e, PROTO_GENERATION_MISMATCH,
            "the sandbox is at generation %llu, not %llu", (unsigned long long)sb->generation,
            (unsigned long long)begin->if_generation);
    return 0;
}

static int check_limits(const struct applying *a, struct err *e)
{
    const struct sandboxes_config *config = &a->sb->all->config;
    struct workspace *ws = a->sb->ws;
    const struct steps *steps = &a->steps;

    (void)pthread_mutex_lock(&ws->lock);
    uint64_t bytes = manifest_bytes(ws->manifest) + ws->kept_bytes,
             entries = manifest_count(ws->manifest);
    (void)pthread_mutex_unlock(&ws->lock);
    uint64_t left = bytes > steps->bytes_removed ? bytes - steps->bytes_removed : 0;
    bool grows = steps->bytes_added > steps->bytes_removed;
    if (grows && (left > config->max_workspace_bytes ||
                     steps->bytes_added > config->max_workspace_bytes - left))
        return err_refuse(e, PROTO_NO_SPACE,
            "the workspace may hold %llu bytes: delete something first",
            (unsigned long long)config->max_workspace_bytes);
    if (steps->entries_added && (entries > config->max_workspace_files ||
                                    steps->entries_added > config->max_workspace_files - entries))
        return err_refuse(e, PROTO_NO_SPACE,
            "the workspace may hold %llu files: delete something first",
            (unsigned long long)config->max_workspace_files);
    return 0;
}

/* Does a program run, or did one since the set began to be staged? */
static bool has_run(const struct applying *a)
{
    (void)pthread_mutex_lock(&a->sb->lock);
    bool ran = a->was_running || a->sb->runs > 0 || a->sb->runs_begun != a->runs_begun;
    (void)pthread_mutex_unlock(&a->sb->lock);
    return ran;
}

/* The plan that counts: what the set means for the workspace as it is now. */
static int make_plan(struct applying *a, struct err *e)
{
    CLEANUP(plan_freep) struct plan *plan = NULL;
    int r = plan_new(&a->stage, &plan, e);

    a->stage.one_by_one = has_run(a);
    for (size_t i = 0; r == 0 && i < a->set.count; i++)
        r = plan_add(plan, &a->set.ops[i], e);
    if (r == 0 && plan_conflicts(plan))
        r = plan_refuse(plan, &a->ret->conflicts, &a->ret->conflict_count, e);
    if (r == 0)
        r = plan_finish(plan, &a->steps, e);
    return r;
}

/* A program interfered at the very moment: tell what is there now. */
static void list_failed(struct applying *a, const char *path)
{
    struct sandbox_conflict *c = calloc(1, sizeof *c);
    struct tree_stat st;

    if (!c || !(c->path = strdup(path))) {
        free(c);
        return;
    }
    if (workspace_hash(a->sb->ws, path, &c->hash, &st, NULL, NULL) == 0) {
        c->exists = true;
        c->kind = st.kind;
        c->size = st.kind == TREE_DIR ? 0 : st.size;
    }
    a->ret->conflicts = c;
    a->ret->conflict_count = 1;
}

static int as_owner(struct applying *a, int (*work)(struct applying *, struct err *), struct err *e)
{
    struct tree_identity previous;
    int r = tree_identity_enter(a->sb->identity, &previous, e);

    if (r < 0)
        return r;
    r = work(a, e);
    tree_identity_leave(previous);
    return r;
}

/* Names that something left, or that got something which keeps its old time stamp. */
static void forget_compiled(const struct applying *a)
{
    const struct workspace *ws = a->sb->ws;

    for (size_t i = 0; i < a->steps.count; i++) {
        const struct step *s = &a->steps.items[i];
        bool leaves = s->kind == STEP_TAKE || s->kind == STEP_MOVE || s->kind == STEP_DROP;
        if (leaves || (s->kind == STEP_PLACE && s->expected && (s->from_take || s->remove)))
            cache_forget(ws, s->path, s->expect.kind);
    }
}

static int place(struct applying *a, struct err *e)
{
    const char *failed = NULL;
    int r = apply_run(&a->stage, &a->steps, &failed, e);

    if (r < 0 && failed)
        list_failed(a, failed);
    if (r == 0) {
        forget_compiled(a);
        sandbox_keep(a->sb, &a->stage, &a->steps, &a->set);
    }
    return r;
}

static int undo(struct applying *a, struct err *e)
{
    (void)e;
    sandbox_unkeep(a->sb, &a->stage, &a->steps);
    apply_undo(&a->stage, &a->steps);
    return 0;
}

static void fill_result(struct applying *a, uint64_t generation)
{
    struct store_result *r = &a->result;

    if (a->ticket.client)
        sandbox_ticket_result(a->sb, &a->ticket, r);
    r->digest = a->digest;
    r->generation = generation;
    r->created = a->steps.created;
    r->updated = a->steps.updated;
    r->moved = a->steps.moved;
    r->deleted = a->steps.deleted;
}

static int write_intent(struct applying *a, struct err *e)
{
    CLEANUP(buf_release) struct buf steps;

    buf_init(&steps, APPLY_BLOB_MAX);
    int r = apply_encode(&a->steps, &steps, e);
    if (r < 0)
        return r;
    struct store_intent intent = {.num = a->sb->num,
        .steps = steps.data,
        .steps_len = steps.len,
        .result = a->ticket.client ? &a->result : NULL};
    r = store_intent_put(a->sb->all->config.store, &intent, e);
    a->intent = r == 0;
    return r;
}

/* What a run made is no client's: it was never sent, and may be pulled. */
static void note_origin(struct applying *a)
{
    for (size_t i = 0; a->origin && i < a->edits.count; i++) {
        a->edits.items[i].entry.by_run = a->edits.items[i].kind == STORE_PUT;
        a->edits.items[i].run = a->origin->run;
    }
}

/* With sb->lock. */
static void tell(struct applying *a)
{
    struct sandbox *sb = a->sb;

    if (a->origin)
        sandbox_tell_generation(sb, "run", NULL, a->origin->run);
    else
        sandbox_tell_generation(sb, "changes", a->begin, "");
}

/* Manifest, database, generation. If that fails the files go back to what the database says. */
static int commit(struct applying *a, uint64_t generation, struct err *e)
{
    struct sandbox *sb = a->sb;
    int r = apply_edits(&a->steps, &a->edits, e);

    note_origin(a);
    if (r == 0 && (r = apply_note(sb->ws, &a->edits)) < 0)
        r = err_set(e, -r, "note a change set");
    (void)pthread_mutex_lock(&sb->ws->lock);
    struct store_commit c = {.num = sb->num,
        .edits = a->edits.items,
        .edit_count = a->edits.count,
        .generation = generation,
        .files = sb->ws->files,
        .bytes = manifest_bytes(sb->ws->manifest),
        .used_ns = io_wall_ns(),
        .result = a->ticket.client ? &a->result : NULL,
        .drop_intent = a->intent};
    (void)pthread_mutex_unlock(&sb->ws->lock);
    if (r == 0)
        r = store_commit_edits(sb->all->config.store, &c, e);
    if (r < 0) {
        (void)!as_owner(a, undo, NULL);
        atomic_store(&sb->ready, false); /* the manifest is loaded anew */
        return r;
    }
    (void)pthread_mutex_lock(&sb->lock);
    sb->generation = generation;
    sb->files = c.files;
    sb->bytes = c.bytes;
    sb->used_ns = c.used_ns;
    if (a->steps.count)
        tell(a);
    (void)pthread_mutex_unlock(&sb->lock);
    return 0;
}

static int plan_in_turn(struct applying *a, struct err *e)
{
    int r = make_plan(a, e);

    if (r == 0)
        r = check_limits(a, e);
    /* Without an intent to be written first the identity need not be left in between. */
    if (r == 0 && a->steps.count && a->steps.deeds < INTENT_DEEDS)
        r = place(a, e);
    return r;
}

static int apply_in_turn(struct applying *a, struct err *e)
{
    struct sandbox *sb = a->sb;
    int r = check_conditions(a, e);

    /* Also those who are refused learn where the sandbox is. */
    a->ret->generation = sb->generation;
    memcpy(a->ret->epoch, sb->epoch, sizeof a->ret->epoch);
    if (r == 0)
        r = as_owner(a, plan_in_turn, e);
    if (r < 0)
        return r;
    uint64_t generation = sb->generation + (a->steps.count ? 1 : 0);
    fill_result(a, generation);
    if (a->steps.deeds >= INTENT_DEEDS) {
        r = write_intent(a, e);
        if (r == 0)
            r = as_owner(a, place, e);
    }
    if (r == 0)
        r = commit(a, generation, e);
    if (r < 0 && a->intent && store_intent_drop(sb->all->config.store, sb->num, NULL) < 0)
        log_error("the intent of a refused change set of %s could not be removed", sb->id);
    if (r == 0)
        a->ret->generation = generation;
    return r;
}

/* A set that was applied before: the same content, or a number used twice. */
static int answer_known(struct applying *a, struct err *e)
{
    struct sandbox *sb = a->sb;
    const struct client_result *known = a->ticket.known;

    if (!hash_equal(&a->digest, &known->digest))
        return err_refuse(e, PROTO_SEQ_CONFLICT, "number %llu was used for another change set",
            (unsigned long long)a->ticket.seq);
    *a->ret = (struct sandbox_apply_result){.generation = known->generation,
        .created = known->created,
        .updated = known->updated,
        .moved = known->moved,
        .deleted = known->deleted,
        .repeated = true};
    (void)pthread_mutex_lock(&sb->lock);
    memcpy(a->ret->epoch, sb->epoch, sizeof a->ret->epoch);
    (void)pthread_mutex_unlock(&sb->lock);
    return 0;
}

static int answer_repeat(struct applying *a, struct err *e)
{
    struct change_op op;
    int r;

    while ((r = a->feed->next(a->feed->ctx, &op, e)) > 0)
        ;
    if (r < 0)
        return r;
    if (a->feed->digest)
        a->feed->digest(a->feed->ctx, &a->digest);
    return answer_known(a, e);
}

/* All of it is here. */
static int apply_arrived(struct applying *a, struct err *e)
{
    struct sandbox *sb = a->sb;
    int r = sandbox_ticket_arrived(sb, &a->ticket, e);

    if (r == 0 && a->ticket.known)
        return answer_known(a, e);
    if (r == 0)
        r = sandbox_ticket_wait(sb, &a->ticket, e);
    if (r < 0)
        return r;
    (void)pthread_mutex_lock(&sb->turn);
    r = apply_in_turn(a, e);
    (void)pthread_mutex_unlock(&sb->turn);
    if (r < 0)
        return r;
    a->ret->created = a->steps.created;
    a->ret->updated = a->steps.updated;
    a->ret->moved = a->steps.moved;
    a->ret->deleted = a->steps.deleted;
    a->applied = true;
    return 0;
}

static int discard(struct applying *a, struct err *e)
{
    (void)e;
    sandbox_uploads_settle(a->sb, &a->stage, ptr_take(&a->uploads), a->applied);
    stage_release(&a->stage);
    return 0;
}

static int apply_fresh(struct applying *a, struct err *e)
{
    struct sandbox *sb = a->sb;
    const struct sandboxes_config *config = &sb->all->config;
    int r = stage_init(&a->stage, sb->ws, config->max_workspace_bytes, config->min_free_bytes, e);

    a->stage.late = &a->ret->late;
    set_init(&a->set, &a->stage, wait_for_basis, a);
    a->set.upload = a->origin ? take_claimed : take_upload;
    (void)pthread_mutex_lock(&sb->lock);
    a->was_running = sb->runs > 0;
    a->runs_begun = sb->runs_begun;
    (void)pthread_mutex_unlock(&sb->lock);
    if (r == 0)
        r = read_set(a, e);
    if (r == 0)
        r = apply_arrived(a, e);
    sandbox_ticket_done(sb, &a->ticket, a->applied ? &a->result : NULL, e);
    if (a->stage.count)
        (void)!as_owner(a, discard, NULL);
    sandbox_uploads_settle(sb, &a->stage, ptr_take(&a->uploads), a->applied);
    stage_release(&a->stage);
    set_release(&a->set);
    steps_release(&a->steps);
    apply_edits_release(&a->edits);
    return r;
}

int sandbox_apply(struct sandbox *sb, const struct changes_begin *begin,
    const struct changes_feed *feed, struct sandbox_apply_result *ret, struct err *e)
{
    return sandbox_apply_from(sb, begin, feed, NULL, ret, e);
}

int sandbox_apply_from(struct sandbox *sb, const struct changes_begin *begin,
    const struct changes_feed *feed, const struct sandbox_origin *origin,
    struct sandbox_apply_result *ret, struct err *e)
{
    struct err own = ERR_INIT;
    struct applying a = {.sb = sb, .begin = begin, .feed = feed, .ret = ret, .origin = origin};

    /* Whether a failure was a refusal must be known here, even to a caller who does not ask. */
    e = e ? e : &own;
    *ret = (struct sandbox_apply_result){.generation = 0};
    int r = sandbox_enter(sb, true, e);
    if (r < 0)
        return r;
    r = sandbox_ticket_take(sb, begin, &a.ticket, e);
    if (r == 0)
        r = a.ticket.known ? answer_repeat(&a, e) : apply_fresh(&a, e);
    /* Room for the repeat. */
    if (r < 0 && e->refusal == PROTO_NO_SPACE)
        (void)sandbox_views_trim(sb);
    sandbox_exit(sb);
    return r;
}
