/* SPDX-License-Identifier: MIT */
/*
 * Runs: from a checked request to a record. One thread per accepted run (bounded by max_runs +
 * max_queued) carries it through its stages:
 *
 *     barrier → changes → slot (fair queue) → plan → container → output → what changed → record
 *
 *     exec_submit(x, sandbox, &request, &run, &e)   // refuses what can be known at once
 *     run_start(run, done, ctx, &e)                 // returns; `done` is called on the run's
 * thread run_wait(run, ms) · run_log(run) · run_json(run, …) run_unref(run)
 *
 * A finished run is written to the store and its output to a file by another thread, after whoever
 * waits was told. Functions may be called from any thread but one that carries a sandbox's
 * identity; only run_cancel, run_attach and run_leave may be called from an HTTP I/O thread.
 */
#ifndef SERVER_EXEC_H
#define SERVER_EXEC_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "server/config.h"
#include "server/container.h"
#include "server/exec_request.h"
#include "server/run_input.h"
#include "server/run_log.h"
#include "server/sandbox.h"
#include "server/store.h"

struct exec;
struct run;

struct exec_config {
    const struct config *config; /* borrowed, as the rest */
    struct sandboxes *sandboxes;
    struct store *store;
    struct container_engine *engine;
};

/* Starts the threads; records of runs that an earlier server left unfinished become `error`. */
int exec_new(const struct exec_config *config, struct exec **ret, struct err *e) WARN_UNUSED;
/* Refuse new runs, cancel the others, wait until all have ended and are recorded. */
void exec_stop(struct exec *x);
void exec_free(struct exec *x);

struct exec_stats {
    uint64_t running, waiting;                                         /* now */
    uint64_t started, succeeded, failed, timed_out, cancelled, errors; /* since the start */
};
void exec_stats(struct exec *x, struct exec_stats *ret);

/* Take a request (its content moves into the run; after an error it is still the caller's).
 * Refusals: PROTO_BUSY; without `after` and `changes` also PROTO_FILE_NOT_FOUND,
 * PROTO_INTERPRETER_MISSING, PROTO_NOT_RUNNABLE, PROTO_UNKNOWN_IMAGE, for then the workspace is
 * what it will be. */
int exec_submit(struct exec *x, struct sandbox *sb, struct exec_request *request, struct run **ret,
    struct err *e) WARN_UNUSED;

/* Called once, on the run's thread, when its result is complete. */
typedef void run_done(struct run *run, void *ctx);
/* Begin. After an error the run is gone but for the caller's reference. */
int run_start(struct run *run, run_done *done, void *ctx, struct err *e) WARN_UNUSED;
struct run *run_ref(struct run *run);
void run_unref(struct run *run);

const char *run_id(const struct run *run);
/* Ask for the end: TERM, then KILL. Does not block; any thread. */
void run_cancel(struct run *run);
/* How long it is kept when its clients have gone; 0: it is ended at once. */
uint64_t run_grace_ms(const struct run *run);
/* A client for whom the run goes on is there, or has gone, once for each time that it came. After
 * the last has gone the run is ended when its grace is over, unless one comes meanwhile. Neither
 * blocks; any thread. */
void run_attach(struct run *run);
void run_leave(struct run *run);
/* Wait at most timeout_ms. Has it ended? */
bool run_wait(struct run *run, uint32_t timeout_ms);
/* Its output; lives as long as the run. Ended before run_wait returns true. */
struct run_log *run_output(struct run *run);
/* Its input and its terminal's size while it runs; lives as long as the run. NULL: it has neither. */
struct run_input *run_input(struct run *run);
/* Whether the request asked for them. */
bool run_takes_input(const struct run *run);
bool run_has_terminal(const struct run *run);
/* The run object, with the members stdout, stderr, output and their kin if asked for. NULL: out of
 * memory. */
json_t *run_object(struct run *run, bool with_output);
/* The error that kept the program from starting, or NULL. Valid after its end. */
const struct err *run_error(const struct run *run);
/* What it waits or waited for: {"client","seq"}, or null. New reference. */
json_t *run_pending(const struct run *run);

/* ---- by id: whether it goes on or is a record. Refusal PROTO_RUN_NOT_FOUND. */

/* A run that is still in memory: a reference; -ENOENT without a message otherwise. */
int exec_find(struct exec *x, const char *id, struct run **ret) WARN_UNUSED;
/* The run object of any run. */
int exec_object(
    struct exec *x, const char *id, bool with_output, json_t **ret, struct err *e) WARN_UNUSED;
/* The output of a recorded run; the caller frees it. */
int exec_load_output(
    struct exec *x, const char *id, struct run_log **ret, struct err *e) WARN_UNUSED;
/* Newest first, objects without output into `items`. Filters may be NULL. */
int exec_list(struct exec *x, const char *sandbox, const char *status, const char *before_id,
    unsigned limit, json_t *items, struct err *e) WARN_UNUSED;
/* PROTO_RUN_ACTIVE if it goes on. */
int exec_delete_record(struct exec *x, const char *id, struct err *e) WARN_UNUSED;

/* Visit every run that has not ended: its sandbox and its image. The visitor must not call exec. */
void exec_each_image(struct exec *x,
    void (*visit)(const char *sandbox, const char *image, void *ctx), void *ctx);

/* A run in this sandbox is likely soon: its files were changed. Returns at once. */
void exec_expect(struct exec *x, struct sandbox *sb);

/* The version that a language's program tells about itself ("3.11.2"), or NULL when that is not
 * known (yet): found out in the background, for the host after the start, for an image when it is
 * first asked for. Lives as long as x. */
const char *exec_version(
    struct exec *x, const char *image, const struct runtime_language *language);

/* Delete a sandbox: ends its runs, removes its files and the records of its runs. */
int exec_delete_sandbox(struct exec *x, struct sandbox *sb, struct err *e) WARN_UNUSED;

#endif
