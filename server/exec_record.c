/* SPDX-License-Identifier: MIT */
/* Records of runs: written after the answer, read for those that are not in memory any more. */
#include "server/exec_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "shared/io.h"
#include "shared/log.h"
#include "shared/path.h"
#include "shared/text.h"

#include "server/body.h"
#include "server/sandbox_uploads.h"

#include "shared/banned.h"

#define RECORD_BYTES_MAX (4u * 1024 * 1024)
#define SWEEP_PAGE 200
#define FLUSH_WAIT_MS 2000

int exec_log_path(const struct exec *x, const char *id, struct buf *b)
{
    return buf_addf(b, "%s/%s", x->log_dir, id);
}

void exec_record_later(struct exec *x, struct run *run)
{
    if (run->in_backlog)
        return;
    run->in_backlog = run->recorded = true;
    run->next_record = NULL;
    (void)run_ref(run);
    if (x->record_last)
        x->record_last->next_record = run;
    else
        x->record_first = run;
    x->record_last = run;
    x->backlog++;
    (void)pthread_cond_signal(&x->more);
}

void exec_record_begun(struct run *run)
{
    struct exec *x = run->exec;
    (void)pthread_mutex_lock(&x->lock);
    if (!run->recorded)
        exec_record_later(x, run);
    (void)pthread_mutex_unlock(&x->lock);
}

static int put_record(struct exec *x, json_t *object, const char *id, const char *sandbox,
    const char *status, uint64_t created_ns, struct err *e)
{
    CLEANUP(freep) char *json = json_dumps(object, BODY_DUMP);
    if (!json)
        return err_set(e, ENOMEM, "write a run's record");
    const struct store_run row = {
        .id = id, .sandbox = sandbox, .status = status, .created_ns = created_ns, .json = json};
    return store_run_put(x->store, &row, e);
}

static void drop_record(struct exec *x, const char *id)
{
    CLEANUP(buf_release) struct buf path;
    struct err e = ERR_INIT;
    buf_init(&path, PATH_BYTES_MAX);
    if (store_run_delete(x->store, id, &e) < 0)
        log_warn("the record of %s could not be removed: %s", id, e.msg);
    if (exec_log_path(x, id, &path) == 0)
        (void)unlink(buf_str(&path));
}

/* Returns whether the run has ended, so that its record is the last word. */
static bool write_record(struct exec *x, struct run *run)
{
    struct err e = ERR_INIT;
    (void)pthread_mutex_lock(&run->lock);
    bool ended = run->ended;
    (void)pthread_mutex_unlock(&run->lock);
    /* A record whose output found no room is still worth having; it says that it was cut. */
    if (ended && run_log_flush(run->log, &e) < 0)
        log_error("the output of %s could not be kept: %s", run->facts.id, e.msg);
    json_t *object = run_object(run, false);
    int r = object ? 0 : err_set(&e, ENOMEM, "write a run's record");
    if (r == 0)
        r = put_record(x, object, run->facts.id, run->facts.sandbox,
            json_string_value(json_object_get(object, "status")), run->facts.created_ns, &e);
    json_decref(object);
    if (r < 0)
        log_error("the record of %s could not be written: %s", run->facts.id, e.msg);
    return ended;
}

void *exec_recorder_main(void *ctx)
{
    struct exec *x = ctx;
    (void)pthread_mutex_lock(&x->lock);
    for (;;) {
        while (!x->record_first && !x->ending) {
            (void)pthread_cond_wait(&x->more, &x->lock);
            (void)pthread_mutex_unlock(&x->lock);
            exec_hold_back(x);
            (void)pthread_mutex_lock(&x->lock);
        }
        struct run *run = x->record_first;
        if (!run)
            break;
        x->record_first = run->next_record;
        if (!x->record_first)
            x->record_last = NULL;
        x->backlog--;
        run->in_backlog = false;
        x->recording = true;
        (void)pthread_mutex_unlock(&x->lock);
        bool ended = write_record(x, run);
        (void)pthread_mutex_lock(&x->lock);
        x->recording = false;
        bool leaves = ended && run->in_table;
        if (leaves) {
            HASH_DEL(x->runs, run);
            run->in_table = false;
        }
        (void)pthread_cond_broadcast(&x->less);
        (void)pthread_mutex_unlock(&x->lock);
        if (leaves)
            run_unref(run);
        run_unref(run);
        (void)sandbox_views_expire(x->sandboxes, io_now_ns());
        (void)pthread_mutex_lock(&x->lock);
    }
    (void)pthread_mutex_unlock(&x->lock);
    return NULL;
}

/* Until what has no record yet, and the records that are due now, have been written, so that a list
 * misses none. */
static void await_recorder(struct exec *x)
{
    uint64_t ns = io_now_ns() + (uint64_t)FLUSH_WAIT_MS * 1000000;
    struct timespec deadline = {
        .tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
    (void)pthread_mutex_lock(&x->lock);
    for (struct run *run = x->runs; run; run = run->hh.next) {
        if (!run->recorded)
            exec_record_later(x, run);
    }
    while ((x->record_first || x->recording) &&
           pthread_cond_timedwait(&x->less, &x->lock, &deadline) != ETIMEDOUT)
        ;
    (void)pthread_mutex_unlock(&x->lock);
}

/* ---- reading */

static int parse_record(const char *json, size_t len, json_t **ret, struct err *e)
{
    *ret = json_loadb(json, len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    return *ret ? 0 : err_say(e, EBADMSG, "a run's record cannot be read");
}

static int load_record(struct exec *x, const char *id, json_t **ret, struct err *e)
{
    CLEANUP(buf_release) struct buf json;
    buf_init(&json, RECORD_BYTES_MAX);
    int r = store_run_get(x->store, id, &json, e);
    if (r == -ENOENT)
        return err_refuse(e, PROTO_RUN_NOT_FOUND,
            "there is no run '%s': it may have been removed, or never was", id);
    return r < 0 ? r : parse_record(buf_str(&json), json.len, ret, e);
}

int exec_load_output(struct exec *x, const char *id, struct run_log **ret, struct err *e)
{
    CLEANUP(buf_release) struct buf path;
    json_t *record = NULL;
    buf_init(&path, PATH_BYTES_MAX);
    int r = text_is_id("run_", id)
                ? load_record(x, id, &record, e)
                : err_refuse(e, PROTO_RUN_NOT_FOUND, "'%s' is no id of a run", id);
    json_decref(record);
    if (r < 0)
        return r;
    if (exec_log_path(x, id, &path) < 0)
        return err_set(e, ENOMEM, "open a run's output");
    return run_log_load(buf_str(&path), ret, e);
}

int exec_object(struct exec *x, const char *id, bool with_output, json_t **ret, struct err *e)
{
    struct run *run = NULL;
    if (exec_find(x, id, &run) == 0) {
        *ret = run_object(run, with_output);
        run_unref(run);
        return *ret ? 0 : err_set(e, ENOMEM, "describe a run");
    }
    if (!text_is_id("run_", id))
        return err_refuse(e, PROTO_RUN_NOT_FOUND, "'%s' is no id of a run", id);
    json_t *object = NULL;
    int r = load_record(x, id, &object, e);
    if (r == 0 && with_output) {
        CLEANUP(run_log_freep) struct run_log *log = NULL;
        r = exec_load_output(x, id, &log, e);
        if (r == 0 && run_json_add_output(object, log) < 0)
            r = err_set(e, ENOMEM, "read a run's output");
    }
    if (r < 0) {
        json_decref(object);
        return r;
    }
    *ret = object;
    return 0;
}

struct listing {
    struct exec *x;
    json_t *items;
    struct err *e;
    int r;
};

static int visit_listed(const struct store_run *row, void *ctx)
{
    struct listing *l = ctx;
    struct run *run = NULL;
    json_t *object = NULL;
    /* What goes on has moved since its record was written. */
    if (exec_find(l->x, row->id, &run) == 0) {
        object = run_object(run, false);
        run_unref(run);
        if (!object)
            l->r = err_set(l->e, ENOMEM, "list runs");
    } else {
        l->r = parse_record(row->json, strlen(row->json), &object, l->e);
    }
    if (l->r == 0 && json_array_append_new(l->items, object) < 0)
        l->r = err_set(l->e, ENOMEM, "list runs");
    return l->r;
}

static int newer_first(const void *a, const void *b)
{
    return strcmp((*(struct run *const *)b)->facts.id, (*(struct run *const *)a)->facts.id);
}

/* What waits or runs is all in memory, and only there is it known which of the two it does. */
static int list_active(struct exec *x, const char *sandbox, const char *status,
    const char *before_id, unsigned limit, json_t *items, struct err *e)
{
    size_t count = 0;
    int r = 0;
    (void)pthread_mutex_lock(&x->lock);
    struct run **runs = calloc(HASH_COUNT(x->runs) + 1, sizeof(struct run *));
    for (struct run *run = runs ? x->runs : NULL; run; run = run->hh.next) {
        if (!run->ended && (!sandbox || strcmp(run->facts.sandbox, sandbox) == 0) &&
            (!before_id || strcmp(run->facts.id, before_id) < 0))
            runs[count++] = run_ref(run);
    }
    (void)pthread_mutex_unlock(&x->lock);
    if (!runs)
        return err_set(e, ENOMEM, "list runs");
    qsort(runs, count, sizeof(struct run *), newer_first);
    for (size_t i = 0; i < count; i++) {
        json_t *object =
            r == 0 && json_array_size(items) < limit ? run_object(runs[i], false) : NULL;
        const char *is = json_string_value(json_object_get(object, "status"));
        if (is && strcmp(is, status) == 0 && json_array_append(items, object) < 0)
            r = err_set(e, ENOMEM, "list runs");
        json_decref(object);
        run_unref(runs[i]);
    }
    free(runs);
    return r;
}

int exec_list(struct exec *x, const char *sandbox, const char *status, const char *before_id,
    unsigned limit, json_t *items, struct err *e)
{
    struct listing l = {.x = x, .items = items, .e = e};
    if (status && (strcmp(status, "queued") == 0 || strcmp(status, "running") == 0))
        return list_active(x, sandbox, status, before_id, limit, items, e);
    await_recorder(x);
    int r = store_run_list(x->store, sandbox, status, before_id, limit, visit_listed, &l, e);
    return r < 0 ? r : l.r;
}

/* A run's record, and what was kept beside it. */
static void forget(struct exec *x, const char *sandbox, const char *id)
{
    struct sandbox *sb = NULL;
    drop_record(x, id);
    if (sandbox_get(x->sandboxes, sandbox, &sb, NULL) == 0) {
        sandbox_kept_forget_run(sb, id);
        sandbox_unref(sb);
    }
}

int exec_delete_record(struct exec *x, const char *id, struct err *e)
{
    struct run *run = NULL;
    json_t *object = NULL;
    await_recorder(x);
    if (exec_find(x, id, &run) == 0) {
        run_unref(run);
        return err_refuse(e, PROTO_RUN_ACTIVE, "run %s has not ended: cancel it first", id);
    }
    int r = text_is_id("run_", id)
                ? load_record(x, id, &object, e)
                : err_refuse(e, PROTO_RUN_NOT_FOUND, "'%s' is no id of a run", id);
    if (r == 0)
        forget(x, json_string_value(json_object_get(object, "sandbox")) ?: "", id);
    json_decref(object);
    return r;
}

/* ---- after a crash, and what is too old */

struct collected {
    char ids[SWEEP_PAGE][40];
    char sandboxes[SWEEP_PAGE][SANDBOX_ID_BYTES];
    size_t count;
    size_t kept; /* rows that stay, over all pages */
    uint64_t keep_runs, oldest_ns;
    char last[40]; /* where the page ended */
    unsigned seen;
};

static int visit_old(const struct store_run *row, void *ctx)
{
    struct collected *c = ctx;
    bool done = strcmp(row->status, "queued") != 0 && strcmp(row->status, "running") != 0;
    c->seen++;
    (void)snprintf(c->last, sizeof(c->last), "%s", row->id);
    if (!done || (c->kept < c->keep_runs && row->created_ns >= c->oldest_ns)) {
        c->kept++;
        return 0;
    }
    (void)snprintf(c->sandboxes[c->count], sizeof(c->sandboxes[0]), "%s", row->sandbox);
    (void)snprintf(c->ids[c->count++], sizeof(c->ids[0]), "%s", row->id);
    return 0;
}

static void sweep(struct exec *x)
{
    struct collected *c = calloc(1, sizeof(*c));
    struct err e = ERR_INIT;
    uint64_t now = io_wall_ns(), keep_ns = x->config->keep_ms * 1000000;
    if (!c)
        return;
    c->keep_runs = x->config->keep_runs;
    c->oldest_ns = now > keep_ns ? now - keep_ns : 0;
    do {
        c->seen = 0;
        c->count = 0;
        int r = store_run_list(
            x->store, NULL, NULL, c->last[0] ? c->last : NULL, SWEEP_PAGE, visit_old, c, &e);
        if (r < 0) {
            log_warn("old runs could not be looked for: %s", e.msg);
            break;
        }
        for (size_t i = 0; i < c->count; i++)
            forget(x, c->sandboxes[i], c->ids[i]);
    } while (c->seen == SWEEP_PAGE);
    sandbox_kept_expire(x->sandboxes, c->oldest_ns);
    free(c);
}

static int visit_unfinished(const struct store_run *row, void *ctx)
{
    struct collected *c = ctx;
    (void)snprintf(c->ids[c->count++], sizeof(c->ids[0]), "%s", row->id);
    return 0;
}

static int recover_one(struct exec *x, const char *id, struct err *e)
{
    struct err lost = ERR_INIT;
    json_t *object = NULL;
    char now[TEXT_TIME_BYTES];
    int r = load_record(x, id, &object, e);
    if (r < 0)
        return r;
    (void)err_refuse(&lost, PROTO_INTERNAL, "the server stopped while this run was going on");
    (void)json_object_set_new(object, "status", json_string("error"));
    (void)json_object_set_new(object, "reason", json_string(lost.msg));
    (void)json_object_set_new(object, "error", run_json_error(&lost));
    (void)json_object_set_new(object, "finished_at", json_string(text_time(io_wall_ns(), now)));
    CLEANUP(freep)
    char *sandbox = strdup(json_string_value(json_object_get(object, "sandbox")) ?: "");
    /* created_ns is kept: the id begins with it, and lists go by the id. */
    r = sandbox ? put_record(x, object, id, sandbox, "error", io_wall_ns(), e)
                : err_set(e, ENOMEM, "recover a run");
    json_decref(object);
    return r;
}

int exec_record_recover(struct exec *x, struct err *e)
{
    static const char *const unfinished[] = {"queued", "running"};
    struct collected *c = calloc(1, sizeof(*c));
    int r = c ? 0 : err_set(e, ENOMEM, "recover runs");
    for (size_t k = 0; r == 0 && k < 2; k++) {
        do {
            c->count = 0;
            r = store_run_list(
                x->store, NULL, unfinished[k], NULL, SWEEP_PAGE, visit_unfinished, c, e);
            for (size_t i = 0; r == 0 && i < c->count; i++)
                r = recover_one(x, c->ids[i], e);
        } while (r == 0 && c->count == SWEEP_PAGE);
    }
    free(c);
    return r;
}

/* ---- the housekeeper: records that are too old, sandboxes that nobody uses */

struct idle {
    char ids[SWEEP_PAGE][SANDBOX_ID_BYTES];
    size_t count;
};

static int visit_idle(const struct sandbox_info *info, void *ctx)
{
    struct idle *idle = ctx;
    uint64_t now = io_wall_ns();
    if (info->idle_ttl_s > 0 && !info->deleting && info->used_ns < now &&
        (now - info->used_ns) / 1000000000 >= info->idle_ttl_s)
        (void)snprintf(idle->ids[idle->count++], sizeof(idle->ids[0]), "%s", info->id);
    return idle->count == SWEEP_PAGE;
}

static bool has_runs(struct exec *x, const char *sandbox)
{
    bool found = false;
    (void)pthread_mutex_lock(&x->lock);
    for (struct run *run = x->runs; run && !found; run = run->hh.next)
        found = !run->ended && strcmp(run->facts.sandbox, sandbox) == 0;
    (void)pthread_mutex_unlock(&x->lock);
    return found;
}

static void delete_idle(struct exec *x)
{
    struct idle *idle = calloc(1, sizeof(*idle));
    struct err e = ERR_INIT;
    if (!idle)
        return;
    if (sandbox_list(x->sandboxes, NULL, UINT32_MAX, visit_idle, idle, &e) < 0)
        log_warn("idle sandboxes could not be looked for: %s", e.msg);
    for (size_t i = 0; i < idle->count; i++) {
        struct sandbox *sb = NULL;
        if (has_runs(x, idle->ids[i]) || sandbox_get(x->sandboxes, idle->ids[i], &sb, &e) < 0)
            continue;
        log_info("%s was not used for its idle_ttl_s and is deleted", idle->ids[i]);
        if (exec_delete_sandbox(x, sb, &e) < 0)
            log_warn("%s could not be deleted: %s", idle->ids[i], e.msg);
        sandbox_unref(sb);
    }
    free(idle);
}

void *exec_housekeeper_main(void *ctx)
{
    struct exec *x = ctx;
    unsigned ticks = 0;
    (void)pthread_mutex_lock(&x->lock);
    while (!x->stopping) {
        uint64_t ns = io_now_ns() + UINT64_C(5) * 1000000000;
        struct timespec deadline = {
            .tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
        if (pthread_cond_timedwait(&x->tick, &x->lock, &deadline) != ETIMEDOUT)
            continue;
        (void)pthread_mutex_unlock(&x->lock);
        delete_idle(x);
        if (ticks++ % 60 == 0)
            sweep(x);
        unsigned expired = sandbox_uploads_expire(x->sandboxes, io_wall_ns());
        if (expired > 0)
            log_info("%u stages got nothing for a day and were removed", expired);
        (void)sandbox_views_expire(x->sandboxes, io_now_ns());
        (void)pthread_mutex_lock(&x->lock);
    }
    (void)pthread_mutex_unlock(&x->lock);
    return NULL;
}
