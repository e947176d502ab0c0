/* SPDX-License-Identifier: MIT */
#include "server/exec_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

#include "shared/io.h"
#include "shared/log.h"
#include "shared/path.h"
#include "shared/text.h"

#include "server/image.h"

#include "shared/banned.h"

/* ---- a run's life as an object */

struct run *run_ref(struct run *run)
{
    atomic_fetch_add(&run->refs, 1);
    return run;
}

static void run_free(struct run *run)
{
    exec_request_release(&run->req);
    sandbox_run_changes_release(&run->facts.changes);
    sandbox_view_end_release(&run->facts.view_end);
    json_decref(run->facts.labels);
    run_log_free(run->log);
    run_input_free(run->input);
    if (run->sb)
        sandbox_unref(run->sb);
    fd_closep(&run->wake_fd);
    (void)pthread_cond_destroy(&run->changed);
    (void)pthread_mutex_destroy(&run->lock);
    free(run);
}

void run_unref(struct run *run)
{
    if (run && atomic_fetch_sub(&run->refs, 1) == 1)
        run_free(run);
}

const char *run_id(const struct run *run)
{
    return run->facts.id;
}

struct run_log *run_output(struct run *run)
{
    return run->log;
}

struct run_input *run_input(struct run *run)
{
    return run->input;
}

bool run_takes_input(const struct run *run)
{
    return run->req.stdin_stream;
}

bool run_has_terminal(const struct run *run)
{
    return run->req.tty;
}

const struct err *run_error(const struct run *run)
{
    return run->facts.status == RUN_ERROR ? &run->facts.error : NULL;
}

json_t *run_pending(const struct run *run)
{
    if (run->req.seq == 0)
        return json_null();
    return json_pack("{s:s, s:I}", "client", run->req.client, "seq", (json_int_t)run->req.seq);
}

void run_cancel(struct run *run)
{
    atomic_store(&run->cancel, true);
    (void)eventfd_write(run->wake_fd, 1);
    /* A barrier is left by sandbox_kick, which takes a lock that may be held during disk work: the
     * kicker's thread does that. */
    if (atomic_load(&run->at_barrier))
        (void)eventfd_write(run->exec->kick_fd, 1);
}

bool run_wait(struct run *run, uint32_t timeout_ms)
{
    uint64_t ns = io_now_ns() + (uint64_t)timeout_ms * 1000000;
    struct timespec deadline = {
        .tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
    (void)pthread_mutex_lock(&run->lock);
    while (!run->ended && pthread_cond_timedwait(&run->changed, &run->lock, &deadline) != ETIMEDOUT)
        ;
    bool ended = run->ended;
    (void)pthread_mutex_unlock(&run->lock);
    return ended;
}

json_t *run_object(struct run *run, bool with_output)
{
    struct run_log_stats stats;
    run_log_stats(run->log, &stats);
    (void)pthread_mutex_lock(&run->lock);
    json_t *object = run_json(&run->facts, &stats);
    (void)pthread_mutex_unlock(&run->lock);
    if (object && with_output && run_json_add_output(object, run->log) < 0) {
        json_decref(object);
        return NULL;
    }
    return object;
}

static int run_make(struct exec *x, struct sandbox *sb, struct run **ret, struct err *e)
{
    struct run *run = calloc(1, sizeof(*run));
    if (!run)
        return err_set(e, ENOMEM, "make a run");
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&run->changed, &attr);
    (void)pthread_condattr_destroy(&attr);
    (void)pthread_mutex_init(&run->lock, NULL);
    atomic_store(&run->refs, 1);
    run->exec = x;
    run->sb = sandbox_ref(sb);
    run->begin_ns = io_now_ns();
    run->facts.created_ns = io_wall_ns();
    run->facts.engine = container_engine_abilities(x->engine)->engine;
    run->facts.memory_whole = container_engine_abilities(x->engine)->limit_memory;
    text_id_sorted("run_", run->facts.created_ns / 1000000, run->facts.id, sizeof(run->facts.id));
    (void)snprintf(run->facts.sandbox, sizeof(run->facts.sandbox), "%s", sandbox_id(sb));
    run->view_fd = -1;
    run->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    *ret = run;
    return run->wake_fd < 0 ? err_set(e, errno, "make a run") : 0;
}

/* ---- accepting */

/* What can be known before anything runs, as long as nothing is to change the workspace first. */
static int check_early(struct exec *x, struct run *run, struct err *e)
{
    if (!container_engine_has_image(x->engine, run->req.image))
        return image_unknown(config_image_dir(x->config), run->req.image, e);
    const struct container_abilities *a = container_engine_abilities(x->engine);
    if (run->req.tty && !a->terminal)
        return err_refuse(e, PROTO_INVALID_VALUE,
            "this server's engine, %s, gives programs no terminal: run without one", a->engine);
    if (run->req.seq > 0 || run->req.changes)
        return 0;
    struct exec_plan plan = {.argv = NULL};
    int r = exec_plan_make(run, &plan, e);
    exec_plan_release(&plan);
    return r;
}

static int refuse_busy(const struct exec *x, int code, struct err *e)
{
    if (code == -EBUSY)
        return err_refuse(e, PROTO_BUSY,
            "%llu runs are under way or waiting already: try again in a moment",
            (unsigned long long)slots_active(x->slots));
    if (code == -EDQUOT)
        return err_refuse(e, PROTO_BUSY,
            "%llu runs of this sandbox are under way or waiting already: try again when some have "
            "ended",
            (unsigned long long)(x->config->sandbox_runs + x->config->sandbox_queued));
    return code < 0 ? err_set(e, -code, "make a run") : 0;
}

static int enter_table(struct exec *x, struct run *run, struct err *e)
{
    int r = 0;
    (void)pthread_mutex_lock(&x->lock);
    if (x->stopping)
        r = err_refuse(e, PROTO_UNAVAILABLE, "the server is stopping: try again when it is back");
    else if (x->backlog >= EXEC_BACKLOG_MAX)
        r = err_refuse(e, PROTO_BUSY, "the disk is behind with %llu runs: try again in a moment",
            (unsigned long long)x->backlog);
    if (r == 0)
        r = refuse_busy(x, slots_enter(x->slots, run->facts.sandbox, &run->ticket), e);
    if (r == 0) {
        x->stats.started++;
        run->in_table = true;
        (void)run_ref(run); /* the table's */
        HASH_ADD_STR(x->runs, facts.id, run);
    }
    (void)pthread_mutex_unlock(&x->lock);
    return r;
}

int exec_submit(struct exec *x, struct sandbox *sb, struct exec_request *request, struct run **ret,
    struct err *e)
{
    struct run *run = NULL;
    CLEANUP(buf_release) struct buf path;
    buf_init(&path, PATH_BYTES_MAX);
    int r = run_make(x, sb, &run, e);
    if (r == 0 && exec_log_path(x, run->facts.id, &path) < 0)
        r = err_set(e, ENOMEM, "make a run");
    if (r == 0)
        r = run_log_new(buf_str(&path), request->limits.output_bytes, &run->log, e);
    if (r == 0 && (request->stdin_stream || request->tty))
        r = run_input_new(&run->input, e);
    if (r < 0) {
        run_unref(run);
        return r;
    }
    run->req = *request;
    exec_request_display(request, run->facts.display, sizeof(run->facts.display));
    run->facts.image = run->req.image;
    run->facts.view = exec_view_name(run->req.view);
    run->facts.keep = exec_keep_name(run->req.keep);
    run->facts.limits = run->req.limits;
    run->facts.space_bytes = x->config->workspace_bytes;
    run->facts.space_files = x->config->workspace_files;
    run->facts.labels = run->req.labels ? json_incref(run->req.labels) : NULL;
    r = check_early(x, run, e);
    if (r == 0)
        r = enter_table(x, run, e);
    if (r < 0) {
        run->req = (struct exec_request){.language = NULL}; /* still the caller's */
        run_unref(run);
        return r;
    }
    *request = (struct exec_request){.language = NULL};
    *ret = run;
    return 0;
}

int run_start(struct run *run, run_done *done, void *ctx, struct err *e)
{
    struct exec *x = run->exec;
    pthread_t thread;
    pthread_attr_t attr;
    run->done = done;
    run->done_ctx = ctx;
    sandbox_note_run(run->sb, run->facts.id, run_status_name(RUN_QUEUED), false);
    (void)pthread_mutex_lock(&x->lock);
    /* Who waits for the end learns the run's name with it; anybody else may ask for it from now on,
     * after a crash as well. */
    if (!done || run->req.seq || run->req.changes)
        exec_record_later(x, run);
    x->run_threads++;
    (void)pthread_mutex_unlock(&x->lock);
    (void)pthread_attr_init(&attr);
    (void)pthread_attr_setstacksize(&attr, EXEC_STACK_BYTES);
    (void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    (void)run_ref(run); /* the thread's */
    int r = pthread_create(&thread, &attr, exec_run_main, run);
    (void)pthread_attr_destroy(&attr);
    if (r == 0)
        return 0;
    run->done = NULL;
    run->facts.status = RUN_ERROR;
    run->facts.finished_ns = io_wall_ns();
    (void)err_set(&run->facts.error, r, "start a thread for the run");
    (void)snprintf(run->facts.reason, sizeof(run->facts.reason), "%s", run->facts.error.msg);
    exec_run_ended(run);
    exec_slot_give(run);
    exec_thread_ended(x);
    run_unref(run);
    return err_set(e, r, "start a thread for the run");
}

/* ---- slots: the sandboxes that wait take turns */

void exec_slot_granted(struct slots_ticket *t)
{
    struct run *run = (struct run *)(void *)((char *)t - offsetof(struct run, ticket));
    (void)eventfd_write(run->wake_fd, 1);
}

/* Wait without the lock until granted, cancelled, or the time is over. */
static void await_grant(struct run *run, uint64_t deadline_ns)
{
    struct exec *x = run->exec;
    for (;;) {
        struct pollfd p = {.fd = run->wake_fd, .events = POLLIN};
        uint64_t now = io_now_ns(),
                 left_ms = now < deadline_ns ? (deadline_ns - now + 999999) / 1000000 : 0;
        (void)poll(&p, 1, left_ms > 60000 ? 60000 : (int)left_ms);
        (void)pthread_mutex_lock(&x->lock);
        bool granted = run->ticket.state == SLOTS_RUNNING;
        (void)pthread_mutex_unlock(&x->lock);
        if (granted || atomic_load(&run->cancel) || io_now_ns() >= deadline_ns)
            return;
    }
}

int exec_slot_take(struct run *run, struct err *e)
{
    struct exec *x = run->exec;
    (void)pthread_mutex_lock(&x->lock);
    slots_want(x->slots, &run->ticket);
    bool granted = run->ticket.state == SLOTS_RUNNING;
    (void)pthread_mutex_unlock(&x->lock);
    if (!granted) {
        exec_record_begun(run);
        await_grant(run, io_now_ns() + run->req.queue_ms * 1000000);
        (void)pthread_mutex_lock(&x->lock);
        granted = run->ticket.state == SLOTS_RUNNING;
        if (!granted) /* out of the queue, before somebody thinks of it */
            slots_leave(x->slots, &run->ticket);
        (void)pthread_mutex_unlock(&x->lock);
    }
    if (granted) {
        /* The wake-up was the grant's; a cancellation sets its flag as well. */
        eventfd_t drained;
        (void)eventfd_read(run->wake_fd, &drained);
        if (atomic_load(&run->cancel))
            (void)eventfd_write(run->wake_fd, 1);
        return 0;
    }
    if (atomic_load(&run->cancel))
        return -ECANCELED;
    return err_refuse(e, PROTO_BUSY,
        "no place came free within %llu ms ('queue_ms'): %llu programs run at a time, %llu of one "
        "sandbox: try again in a moment",
        (unsigned long long)run->req.queue_ms, (unsigned long long)x->config->max_runs,
        (unsigned long long)x->config->sandbox_runs);
}

void exec_slot_give(struct run *run)
{
    struct exec *x = run->exec;
    (void)pthread_mutex_lock(&x->lock);
    slots_leave(x->slots, &run->ticket);
    (void)pthread_mutex_unlock(&x->lock);
}

void exec_hold_back(struct exec *x)
{
    (void)pthread_mutex_lock(&x->lock);
    bool alone = slots_active(x->slots) <= 1 && !x->ending;
    (void)pthread_mutex_unlock(&x->lock);
    if (alone)
        (void)nanosleep(&(struct timespec){.tv_nsec = EXEC_HOLD_BACK_NS}, NULL);
}

static void count_end(struct exec_stats *stats, enum run_status status)
{
    uint64_t *counters[] = {[RUN_SUCCEEDED] = &stats->succeeded,
        [RUN_FAILED] = &stats->failed,
        [RUN_TIMED_OUT] = &stats->timed_out,
        [RUN_CANCELLED] = &stats->cancelled,
        [RUN_ERROR] = &stats->errors};
    if (counters[status])
        ++*counters[status];
}

void exec_run_ended(struct run *run)
{
    struct exec *x = run->exec;
    sandbox_note_run(run->sb, run->facts.id, run_status_name(run->facts.status), false);
    (void)pthread_mutex_lock(&run->lock);
    run->ended = true;
    (void)pthread_cond_broadcast(&run->changed);
    (void)pthread_mutex_unlock(&run->lock);
    (void)pthread_mutex_lock(&x->lock);
    count_end(&x->stats, run->facts.status);
    if (run->ticket.owner)
        slots_answered(x->slots, &run->ticket);
    exec_record_later(x, run);
    (void)pthread_cond_broadcast(&x->less);
    (void)pthread_mutex_unlock(&x->lock);
}

void exec_thread_ended(struct exec *x)
{
    (void)pthread_mutex_lock(&x->lock);
    x->run_threads--;
    (void)pthread_cond_broadcast(&x->less);
    (void)pthread_mutex_unlock(&x->lock);
}

void exec_stats(struct exec *x, struct exec_stats *ret)
{
    (void)pthread_mutex_lock(&x->lock);
    *ret = x->stats;
    ret->running = slots_running(x->slots);
    ret->waiting = slots_waiting(x->slots);
    (void)pthread_mutex_unlock(&x->lock);
}

int exec_find(struct exec *x, const char *id, struct run **ret)
{
    struct run *run = NULL;
    (void)pthread_mutex_lock(&x->lock);
    HASH_FIND_STR(x->runs, id, run);
    if (run)
        *ret = run_ref(run);
    (void)pthread_mutex_unlock(&x->lock);
    return run ? 0 : -ENOENT;
}
