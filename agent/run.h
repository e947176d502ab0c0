/* SPDX-License-Identifier: MIT */
/*
 * The pieces of `silt run`: what is asked of the server (run_request.c), what comes back live
 * (run_stream.c), also again after a break (run_follow.c), what the program reads (run_feed.h), the
 * flow that syncs first and runs behind the barrier (run.c), and the same by way of a watcher that is
 * there already (run_watcher.c).
 */
#ifndef AGENT_RUN_H
#define AGENT_RUN_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "agent/app.h"
#include "agent/control.h"
#include "agent/run_feed.h"
#include "agent/term_filter.h"
#include "shared/buf.h"

/* ---- run_request.c */

/* `watch --run FILE ARGS…` as `run FILE ARGS…` has its options. */
int run_request_watched(struct app *app, json_t **ret, struct err *e) WARN_UNUSED;
/* The exec request for the command line: filename or command, args, cwd, env, limits, tty, and
 * whether input follows. New reference in *ret. The barrier is added by run_request_after. */
int run_request_new(
    const struct app *app, enum run_feed_kind input, json_t **ret, struct err *e) WARN_UNUSED;
/* Does the program of this command line get a terminal? */
bool run_request_tty(const struct app *app);
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
    bool mid_line;                       /* what was printed last was no end of a line */
    bool guarded;
    struct term_filter filters[2]; /* of standard output and error */
    uint64_t last_id; /* of the events that were told */
    int broken; /* -errno: standard output is closed, or the stream is no stream of ours */
};
/* guarded: the program has no terminal, so what it prints is filtered on its way to ours. */
void run_stream_init(struct run_stream *s, bool quiet, bool guarded);
void run_stream_release(struct run_stream *s);
/* A client_request.on_data function; ctx is a struct run_stream. */
int run_stream_data(void *ctx, const void *data, size_t len);

/* ---- run_follow.c */

/* Replay and follow a run to its end (or to where stream->replay stops), each event once and in order:
 * where the connection breaks it goes on behind the last one. An error once there was nothing new for
 * 90 s, or at once if there never was. */
int run_follow(
    struct client *client, const char *id, struct run_stream *stream, struct err *e) WARN_UNUSED;

/* ---- run_watcher.c: through the watcher's control socket */

struct run_watcher {
    const char *root;          /* borrowed */
    struct run_stream *stream; /* borrowed: its `quiet` says whether an object is asked for */
    struct control_talk talk;  /* to be polled: talk.fd, -1 when there is none */
    struct buf object;
    bool heard; /* something came from the server */
    bool ended;
    int result;
    struct err error;
};
void run_watcher_init(struct run_watcher *w, const char *root, struct run_stream *stream);
/* A run that has not ended yet is ended by this: its client goes away. */
void run_watcher_release(struct run_watcher *w);
/* Ask the watcher to flush and run. `settled`: the last try was refused, so wait until everything is
 * acknowledged. -ENOENT, -ECONNREFUSED: there is no watcher; -EMSGSIZE: it cannot take that much. */
int run_watcher_start(
    struct run_watcher *w, json_t *request, bool settled, struct err *e) WARN_UNUSED;
/* Take what has come, without waiting: 0 it goes on, 1 it has ended and stream tells how, or <0; that
 * is -ENOSYS or -EBUSY when this watcher does not run anything, before anything was heard. */
int run_watcher_read(struct run_watcher *w, struct err *e) WARN_UNUSED;
/* Ask for the end of the program; its id must be known (stream->id). */
void run_watcher_cancel(const struct run_watcher *w);

/* ---- run_stream.c: what the end means */

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
