/* SPDX-License-Identifier: MIT */
/*
 * The pieces of `silt run`: what is asked of the server (run_request.c), what comes back live
 * (run_stream.c), also again after a break (run_follow.c), what the program reads (run_feed.h), the
 * flow that syncs first and runs behind the barrier (run.c, run_internal.h), and the same by way of a
 * watcher that is there already (run_watcher.c).
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

/* How long the server keeps a run whose line is cut: tunnels, another network, a short sleep. It is also
 * how long a program may outlive a `silt run` that was killed. */
#define RUN_GRACE_MS 30000

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
    uint64_t heard_ns; /* run_now_ns of the last word of the server; 0: none yet */
    int broken; /* -errno: standard output is closed, or the stream is no stream of ours */
};
/* guarded: the program has no terminal, so what it prints is filtered on its way to ours. */
void run_stream_init(struct run_stream *s, bool quiet, bool guarded);
void run_stream_release(struct run_stream *s);
/* A client_request.on_data function; ctx is a struct run_stream. */
int run_stream_data(void *ctx, const void *data, size_t len);
/* A clock that goes on while the machine sleeps. */
uint64_t run_now_ns(void);
/* A server that lives says something every 10 s: was there nothing for too long since the first word? */
bool run_stream_silent(const struct run_stream *s);

/* ---- run_follow.c */

#define RUN_SILENT_NS UINT64_C(35000000000)

/* Following a run over as many connections as it takes, each event once and in order: where one breaks
 * the next goes on behind the last event. To be driven by a loop:
 *     run_follow_begin → { client_step(…, run_follow_wait_ms(…)) → run_follow_step } → run_follow_release */
struct run_follow {
    struct client *client;     /* borrowed */
    struct run_stream *stream; /* borrowed */
    bool attach;
    char id[40], path[128];
    struct client_call *call;
    uint64_t asked_ns; /* begin of the call */
    uint64_t cut_ns;   /* since when nobody is heard; 0: somebody is */
    uint64_t since_ns; /* of the last word, or of the beginning */
    uint64_t again_ns, pause_ns;
    uint64_t last;
    bool broke, retryable;
    struct err error;
};
/* attach: the run goes on for us (exec's grace_ms). */
void run_follow_begin(struct run_follow *f, struct client *client, const char *id,
    struct run_stream *stream, bool attach);
void run_follow_release(struct run_follow *f);
int run_follow_wait_ms(const struct run_follow *f, int usual_ms);
/* 0 it goes on, 1 the run has ended (or stream->replay stops here), or <0: the server refused, said
 * nothing for 90 s, or never knew this run. */
int run_follow_step(struct run_follow *f, struct err *e) WARN_UNUSED;
/* Is what ended this request, or what it was answered, a reason to ask for the rest of the stream? */
bool run_may_come_back(const struct client_response *response);

/* The same, waiting and not attached. */
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
/* After an end with -errno: has only the line from the watcher to the server, or the watcher, gone? Then
 * the run goes on for run_follow. */
bool run_watcher_was_cut(const struct run_watcher *w, int r);
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
