/* SPDX-License-Identifier: MIT */
/* A run's thread: from stage to stage, and what each leaves in the facts. */
#include "server/exec_internal.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "shared/io.h"
#include "shared/log.h"

#include "server/feed_json.h"

#include "shared/banned.h"

static uint64_t us_since(uint64_t ns)
{
    return (io_now_ns() - ns) / 1000;
}

/* The facts are read by others under the lock; this thread alone writes them. */
static void lock_facts(struct run *run)
{
    (void)pthread_mutex_lock(&run->lock);
}

static void unlock_facts(struct run *run)
{
    (void)pthread_cond_broadcast(&run->changed);
    (void)pthread_mutex_unlock(&run->lock);
}

/* ---- before the container */

static int stage_barrier(struct run *run, struct err *e)
{
    if (run->req.seq == 0)
        return 0;
    uint64_t begin = io_now_ns();
    atomic_store(&run->at_barrier, true);
    int r =
        sandbox_barrier(run->sb, run->req.client, run->req.seq, EXEC_BARRIER_MS, &run->cancel, e);
    atomic_store(&run->at_barrier, false);
    lock_facts(run);
    run->facts.barrier_us = us_since(begin);
    unlock_facts(run);
    return r;
}

static int stage_changes(struct run *run, struct err *e)
{
    if (!run->req.changes || run->req.view != EXEC_LIVE)
        return 0;
    struct feed_json *feed = NULL;
    struct changes_begin begin;
    struct sandbox_apply_result result = {.generation = 0};
    int r = feed_json_new(run->req.changes, &feed, &begin, e);
    if (r == 0) {
        struct changes_feed ops = feed_json_feed(feed);
        r = sandbox_apply(run->sb, &begin, &ops, &result, e);
    }
    sandbox_apply_result_release(&result);
    feed_json_free(feed);
    return r;
}

static int stage_slot(struct run *run, struct err *e)
{
    uint64_t begin = io_now_ns();
    int r = exec_slot_take(run, e);
    lock_facts(run);
    run->facts.queue_us = us_since(begin);
    unlock_facts(run);
    return r;
}

/* ---- the container */

struct container_limits exec_container_limits(const struct config_limits *l)
{
    return (struct container_limits){.memory_bytes = l->memory_bytes,
        .pids = (uint32_t)l->pids,
        .cpus = (uint32_t)l->cpus,
        .open_files = (uint32_t)l->open_files,
        .file_bytes = l->file_bytes,
        .tmp_bytes = l->tmp_bytes};
}

static struct container_spec make_spec(const struct run *run, const struct sandbox_mounts *mounts)
{
    return (struct container_spec){
        .id = run->facts.id,
        .workspace = mounts->workspace,
        .workspace_dev = mounts->workspace_dev,
        .workspace_ino = mounts->workspace_ino,
        .view = run->view != NULL,
        .cache = mounts->cache,
        .image = run->req.image,
        .uid = mounts->uid,
        .gid = mounts->gid,
        .limits = exec_container_limits(&run->req.limits),
    };
}

static struct container_process make_process(
    const struct run *run, const struct exec_plan *plan, const struct exec_io *io)
{
    return (struct container_process){
        .argv = (const char *const *)plan->argv,
        .env = (const char *const *)plan->env,
        .cwd = plan->cwd,
        .stdin_fd = io->stdin_fd,
        .stdout_fd = io->out_fd,
        .stderr_fd = io->err_fd,
        .tty = run->req.tty,
    };
}

static int open_io(
    struct run *run, const struct container_spec *spec, struct exec_io *io, struct err *e)
{
    exec_io_close(run, io);
    return exec_io_open(run, spec->uid, spec->gid, io, e);
}

/* One that waited, if it takes the program; whatever is wrong with it, a new one will tell. */
static int start_warm(struct run *run, const struct container_spec *spec,
    const struct exec_plan *plan, struct exec_io *io, struct container **ret, struct err *e)
{
    struct err why = ERR_INIT;
    struct warm_got got;
    int r = warm_take(run->exec->warm, run->sb, &spec->limits, spec->image, &got, e);
    run->counted = r == 0;
    if (run->view)
        exec_view_enter(run, spec, &got);
    *ret = got.container;
    /* A program that was prepared has its descriptors; whatever is started instead gets the same.
     */
    bool adopted = exec_io_adopt(run, io, &got);
    if (r == 0 && !adopted)
        r = open_io(run, spec, io, e);
    const struct container_process process = make_process(run, plan, io);
    if (r == 0 && *ret && container_start(*ret, &process, &why) < 0) {
        log_warn("%s: the container that waited could not be used: %s", run->facts.id, why.msg);
        container_free(ptr_take(ret));
        r = adopted ? open_io(run, spec, io, e) : 0;
    }
    if (run->counted && !run->view)
        exec_expect_again(run, plan);
    lock_facts(run);
    run->facts.warm = *ret != NULL;
    unlock_facts(run);
    return r;
}

static int start_container(struct run *run, const struct sandbox_mounts *mounts,
    const struct exec_plan *plan, struct exec_io *io, struct container **ret, struct err *e)
{
    const struct container_spec spec = make_spec(run, mounts);
    int r = start_warm(run, &spec, plan, io, ret, e);
    if (r == 0 && *ret)
        return 0;
    const struct container_process process = make_process(run, plan, io);
    if (r == 0) {
        exec_record_begun(run);
        r = container_new(run->exec->engine, &spec, ret, e);
    }
    if (r == 0)
        r = container_start(*ret, &process, e);
    if (r == -E2BIG)
        return err_refuse(e, PROTO_INVALID_VALUE,
            "the program's arguments and environment have more than 1 MiB together");
    if (r < 0 && e->refusal == PROTO_OK) {
        log_error("%s: %s", run->facts.id, e->msg);
        r = err_refuse(e, PROTO_ENGINE_FAILED, "the container could not be started: %s", e->msg);
    }
    return r;
}

static void note_start(struct run *run, const struct sandbox_mounts *mounts,
    const struct exec_plan *plan, uint64_t begin)
{
    lock_facts(run);
    run->facts.start_us = us_since(begin);
    run->facts.started = true;
    run->facts.started_ns = io_wall_ns();
    run->facts.generation = mounts->generation;
    run->facts.status = RUN_RUNNING;
    run->facts.space_hard = sandbox_space_hard(run->sb);
    run->facts.language = plan->language ? plan->language->name : NULL;
    run->facts.version = plan->language ? exec_version(run->exec, run->req.image, plan->language) : NULL;
    unlock_facts(run);
}

static void note_exit(struct run *run, const struct container_exit *exit, uint64_t start_ns)
{
    struct run_facts *f = &run->facts;
    struct run_log_stats stats;
    run_log_stats(run->log, &stats);
    lock_facts(run);
    f->wall_us = us_since(start_ns);
    f->exited = exit->started && !exit->lost;
    f->exit_code = exit->exit_code;
    f->signal = exit->signal;
    f->prepared = exit->prepared;
    f->oom_killed = exit->oom_killed;
    f->pids_hit = exit->pids_limit_hit;
    f->output_hit = stats.truncated[RUN_STDOUT] || stats.truncated[RUN_STDERR];
    f->cpu_us = exit->user_us + exit->system_us;
    f->user_us = exit->user_us;
    f->memory_peak_bytes = exit->memory_peak_bytes;
    unlock_facts(run);
}

/* ---- what it came to */

static void say_exec_failure(struct run *run, const struct exec_plan *plan, int code)
{
    struct run_facts *f = &run->facts;
    bool missing = code == ENOENT || code == ENOTDIR;
    /* As a shell tells it: 127 not found, 126 found but not runnable. */
    f->exited = true;
    f->exit_code = missing ? 127 : 126;
    if (missing)
        (void)snprintf(f->reason, sizeof(f->reason),
            "there is no program '%.200s' (working directory %.200s)", plan->argv[0], plan->cwd);
    else
        (void)snprintf(f->reason, sizeof(f->reason), "'%.200s' cannot be executed: %s",
            plan->argv[0], strerror(code));
}

static void say_time(struct run_facts *f, const struct config_limits *l)
{
    if (f->cpu_hit)
        (void)snprintf(f->reason, sizeof(f->reason),
            "used more than its %.3g s of CPU time and was ended", (double)l->cpu_ms / 1000.0);
    else
        (void)snprintf(f->reason, sizeof(f->reason), "still ran after %.3g s and was ended",
            (double)l->wall_ms / 1000.0);
}

static void say_cancelled(struct run *run)
{
    struct run_facts *f = &run->facts;
    if (atomic_load(&run->abandoned))
        (void)snprintf(f->reason, sizeof(f->reason),
            "was ended: its client went away and none came back within %.3g s ('grace_ms')",
            (double)run->req.grace_ms / 1000.0);
    else
        (void)snprintf(f->reason, sizeof(f->reason), "was cancelled%s",
            f->started ? "" : " before it started");
}

static void conclude(
    struct run *run, const struct container_exit *exit, const struct exec_plan *plan)
{
    struct run_facts *f = &run->facts;
    char name[16];
    lock_facts(run);
    f->status = f->timed_out ? RUN_TIMED_OUT : f->cancelled ? RUN_CANCELLED : RUN_FAILED;
    if (exit->lost) {
        f->status = f->cancelled ? RUN_CANCELLED : RUN_ERROR;
        (void)err_refuse(&f->error, PROTO_ENGINE_FAILED, "the container ended without a report");
        (void)snprintf(f->reason, sizeof(f->reason), "%s", f->error.msg);
    } else if (!exit->started) {
        say_exec_failure(run, plan, exit->exec_errno);
    } else if (f->timed_out) {
        say_time(f, &run->req.limits);
    } else if (f->space_hit) {
        (void)snprintf(f->reason, sizeof(f->reason),
            "its sandbox held more than its %llu MiB or %llu files on disk and it was ended",
            (unsigned long long)(f->space_bytes >> 20), (unsigned long long)f->space_files);
    } else if (f->cancelled) {
        say_cancelled(run);
    } else if (f->oom_killed) {
        (void)snprintf(f->reason, sizeof(f->reason),
            "used more memory than its limit of %llu MiB and was killed",
            (unsigned long long)(run->req.limits.memory_bytes >> 20));
    } else if (exit->signal) {
        (void)snprintf(f->reason, sizeof(f->reason), "was ended by %s (%s)",
            run_signal_name(exit->signal, name), strsignal(exit->signal));
    } else if (exit->exit_code != 0) {
        (void)snprintf(f->reason, sizeof(f->reason), "exited with code %d", exit->exit_code);
    } else {
        f->status = RUN_SUCCEEDED;
    }
    unlock_facts(run);
}

/* Everything in the container is dead: what did it do to the workspace? Change sets that landed
 * meanwhile took generations of their own. */
static void note_changes(struct run *run)
{
    struct sandbox_run_changes changes = {.generation = 0};
    struct err e = ERR_INIT;
    int r = exec_view_leave(run, &changes, &e);
    if (r < 0) {
        log_error("%s: what it changed could not be found out: %s", run->facts.id, e.msg);
        changes.incomplete = true;
        changes.generation = run->facts.generation;
    }
    uint64_t own = changes.total > 0 && (!run->view || run->facts.view_end.kept) ? 1 : 0;
    lock_facts(run);
    run->facts.changes = changes;
    run->facts.space_hit |= changes.full;
    run->facts.generation_after = changes.generation;
    run->facts.changed_during_run = changes.generation > run->facts.generation + own;
    unlock_facts(run);
}

static void wait_container(struct run *run, struct exec_io *io, struct container *c,
    uint64_t start_ns, struct container_exit *ret)
{
    struct err e = ERR_INIT;
    int r = exec_io_pump(run, io, c, start_ns);
    if (r == 0)
        r = container_wait(c, ret, &e);
    if (r < 0) {
        log_error(
            "%s: the container was given up: %s", run->facts.id, e.msg[0] ? e.msg : strerror(-r));
        *ret = (struct container_exit){.started = true, .lost = true};
        err_ignore(container_kill(c, SIGKILL, NULL));
    }
    exec_io_drain(run, io, start_ns);
}

/* With a slot and counted in at the sandbox; both are given back here or by the caller. */
static int run_program(
    struct run *run, const struct sandbox_mounts *mounts, struct container **ret_c, struct err *e)
{
    struct exec_plan plan = {.argv = NULL};
    struct exec_io io = EXEC_IO_NONE;
    struct container_exit exit = {.started = false};
    uint64_t begin = io_now_ns();
    int r = exec_plan_make(run, &plan, e);
    if (r == 0)
        r = start_container(run, mounts, &plan, &io, ret_c, e);
    exec_io_handed_over(run, &io);
    if (r == 0) {
        uint64_t start_ns = io_now_ns();
        note_start(run, mounts, &plan, begin);
        wait_container(run, &io, *ret_c, start_ns, &exit);
        run_log_end(run->log, us_since(start_ns));
        note_exit(run, &exit, start_ns);
        conclude(run, &exit, &plan);
        /* A container that was given up may still have processes: only its end makes the look at
         * the workspace true. */
        if (exit.lost)
            container_free(ptr_take(ret_c));
        /* A view is there until it is looked through; what is learned of the workspace is, after. */
        if (run->view)
            exec_diagnose(run, &plan);
        note_changes(run);
        if (!run->view)
            exec_diagnose(run, &plan);
    }
    exec_io_close(run, &io);
    exec_plan_release(&plan);
    return r;
}

static int stage_program(struct run *run, struct container **ret_c, struct err *e)
{
    struct sandbox_mounts mounts = {.workspace = NULL};
    int r = sandbox_run_enter(run->sb, &mounts, e);
    if (r < 0)
        return r;
    r = exec_view_open(run, &mounts, e);
    if (r == 0)
        r = run_program(run, &mounts, ret_c, e);
    if (r < 0) {
        container_free(ptr_take(ret_c));
        sandbox_run_abandon(run->sb);
    }
    sandbox_mounts_release(&mounts);
    return r;
}

static int cancelled_early(struct run *run)
{
    return atomic_load(&run->cancel) ? -ECANCELED : 0;
}

/* What kept the program from starting. */
static void note_failure(struct run *run, int code, const struct err *e)
{
    struct run_facts *f = &run->facts;
    lock_facts(run);
    if (code == -ECANCELED) {
        f->cancelled = true;
        f->status = RUN_CANCELLED;
        say_cancelled(run);
    } else {
        f->status = RUN_ERROR;
        f->error = *e;
        (void)snprintf(f->reason, sizeof(f->reason), "%s", e->msg);
    }
    unlock_facts(run);
    if (code != -ECANCELED && e->refusal == PROTO_OK)
        log_error("%s: %s", f->id, e->msg);
}

static void finish(struct run *run, int code, const struct err *e)
{
    if (run->input)
        run_input_close(run->input, false);
    if (code < 0) {
        run_log_end(run->log, 0);
        note_failure(run, code, e);
    }
    lock_facts(run);
    run->facts.finished_ns = io_wall_ns();
    unlock_facts(run);
    if (run->done)
        run->done(run, run->done_ctx);
    exec_run_ended(run);
}

void *exec_run_main(void *ctx)
{
    struct run *run = ctx;
    struct exec *x = run->exec;
    struct container *c = NULL;
    struct err e = ERR_INIT;
    int r = stage_barrier(run, &e);
    if (r == 0)
        r = stage_changes(run, &e);
    if (r == 0)
        r = stage_slot(run, &e);
    if (r == 0)
        r = cancelled_early(run);
    if (r == 0)
        r = stage_program(run, &c, &e);
    finish(run, r, &e);
    /* The answer is on its way; what costs time follows, and does not compete with it. */
    exec_hold_back(x);
    if (run->counted && r == 0)
        (void)warm_again(x->warm, run->sb);
    container_free(c);
    exec_view_close(run);
    if (run->counted)
        warm_done(x->warm, run->sb);
    exec_slot_give(run);
    run_unref(run);
    exec_thread_ended(x);
    return NULL;
}
