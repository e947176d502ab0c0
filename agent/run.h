/* SPDX-License-Identifier: MIT */
/*
 * The pieces of `silt run`: what is asked of the server (run_request.c), what comes back live
 * (run_stream.c), and the flow that syncs first and runs behind the barrier (run.c).
 */
#ifndef AGENT_RUN_H
#define AGENT_RUN_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "agent/app.h"
#include "shared/buf.h"

/* ---- run_request.c */

/* The exec request for the command line: filename or command, args, cwd, env, limits, tty. New
 * reference in *ret. The barrier is added by run_request_after. */
int run_request_new(const struct app *app, json_t **ret, struct err *e) WARN_UNUSED;
/* Let the run wait for this change set; seq 0 takes the condition away. */
int run_request_after(json_t *request, const char *client, uint64_t seq) WARN_UNUSED;

/* ---- run_stream.c: NDJSON events to the terminal */

struct run_stream {
    struct buf line;  /* a line that has not ended yet */
    char id[40];      /* the run's id, "" before the start event */
    json_t *run;      /* the run object of the exit event, or NULL; owned */
    struct err error; /* of an error event */
    bool ended;       /* exit or error was seen */
    bool quiet;       /* --json: do not print the output */
    bool raw;         /* print each event as the line it came in */
    bool replay;    /* stop where a running program has got to: after until_bytes, or when silent */
    bool caught_up; /* … and that was reached: run_stream_data ended the request */
    uint64_t until_bytes, printed_bytes; /* of both outputs */
    int broken; /* -errno: standard output is closed, or the stream is no stream of ours */
};
void run_stream_init(struct run_stream *s, bool quiet);
void run_stream_release(struct run_stream *s);
/* A client_request.on_data function; ctx is a struct run_stream. */
int run_stream_data(void *ctx, const void *data, size_t len);

/* The exit code of `silt run` for a finished run object. */
int run_exit_code(json_t *run);
/* … and for a request that the server refused. */
int run_refusal_code(const struct err *e);
/* Tell what a developer wants to know after a run that went wrong: time-out, memory, truncated
 * output, the diagnosis, a module that exists here but is ignored. */
void run_explain(struct app *app, json_t *run);
/* "No such file" for a path that is there, but ignored: the rule and the line that includes it. */
void run_explain_missing(struct app *app, const char *name);

#endif
