/* SPDX-License-Identifier: MIT */
/*
 * The run object of the API from the facts of a run. Pure, any thread; the caller keeps the facts
 * from changing meanwhile.
 */
#ifndef SERVER_RUN_JSON_H
#define SERVER_RUN_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "server/config.h"
#include "server/diagnose.h"
#include "server/run_log.h"
#include "server/sandbox_views.h"
#include "shared/err.h"

enum run_status {
    RUN_QUEUED,
    RUN_RUNNING,
    RUN_SUCCEEDED,
    RUN_FAILED,
    RUN_TIMED_OUT,
    RUN_CANCELLED,
    RUN_ERROR
};

#define RUN_INLINE_MAX                                                                             \
    (16u * 1024 * 1024) /* bytes of each output in the object; the rest by its link */

struct run_facts {
    char id[40], sandbox[SANDBOX_ID_BYTES];
    enum run_status status;
    char display[200]; /* what was run, readable, for lists: "main.py", "python3 -m pytest" */
    bool exited;       /* exit_code or signal is known */
    int exit_code;     /* valid if signal is 0 */
    int signal;
    char reason[ERR_MSG_BYTES]; /* "" = none */
    bool timed_out, cancelled, oom_killed, cpu_hit, pids_hit, output_hit, space_hit;
    bool memory_whole; /* the memory limit is the container's; else each process's */
    bool space_hard; /* the kernel keeps the workspace to its limit; else it is looked at */
    uint64_t space_bytes, space_files;
    bool started; /* there was a program: generations are known */
    uint64_t generation, generation_after;
    bool changed_during_run;
    uint64_t created_ns, started_ns, finished_ns; /* wall clock; 0 = not yet */
    uint64_t queue_us, barrier_us, view_us, start_us, wall_us, cpu_us, user_us;
    uint64_t memory_peak_bytes;
    struct sandbox_run_changes changes;
    const char *view, *keep; /* static: "live", "always" */
    struct sandbox_view_end view_end; /* of one that is not live */
    struct config_limits limits;
    const char *language; /* static, or NULL */
    const char *version;  /* of the language, or NULL */
    const char *image, *engine;
    bool warm;
    bool prepared;              /* its interpreter had been started before */
    struct diagnosis diagnosis; /* code NULL = none */
    json_t *labels;             /* or NULL */
    struct err error;           /* status RUN_ERROR: what kept it from starting */
};

const char *run_status_name(enum run_status status);
/* "SIGKILL"; into out for numbers without a name. */
const char *run_signal_name(int sig, char out[16]);
/* New reference, without output; NULL when out of memory. */
json_t *run_json(const struct run_facts *facts, const struct run_log_stats *stats);
/* Add stdout, stderr, output, encoding and, for what is not UTF-8, the members with _base64. */
int run_json_add_output(json_t *object, struct run_log *log) WARN_UNUSED;
/* The error object of a refusal or failure: code, message, retryable. */
json_t *run_json_error(const struct err *e);

#endif
