/* SPDX-License-Identifier: MIT */
/*
 * What run.c (one `silt run`, from the request to its end), run_sync.c (what is saved goes first) and
 * run_cut.c (a line that is cut; leaving) share. For these only; one thread.
 */
#ifndef AGENT_RUN_INTERNAL_H
#define AGENT_RUN_INTERNAL_H

#include "agent/run.h"
#include "agent/talk.h"
#include "agent/term.h"

struct run_session {
    struct app *app;
    struct sync *sync; /* NULL: a watcher syncs, or --no-sync */
    struct talk talk;
    json_t *request;
    char *path; /* of the exec endpoint */
    struct run_stream stream;
    struct client_call *call; /* the exec request under way */
    bool answered;
    bool retryable;           /* what it was answered */
    uint64_t silent_since_ns; /* begin of the exec request; 0: its sets were looked after */
    int result;               /* of the exec request */
    struct err error;
    int signal_fd;
    struct run_feed feed;
    struct term term; /* raw while what is typed is the program's */
    bool by_watcher;
    bool cancelled; /* the first Ctrl-C was seen */
    bool cancel_sent;
    uint64_t cancel_again_ns; /* not before this */
};

/* ---- run.c */

/*
 * Wait for one of: the server, a signal, standard input, and `fd` if it is not -1. What is typed and
 * piped goes out. 0 go on, 1 end the program, -EINTR leave at once; *ret_ready: there is something at
 * fd.
 */
int run_wait_step(struct run_session *s, int fd, int timeout_ms, bool *ret_ready, struct err *e)
    WARN_UNUSED;

/* ---- run_sync.c */

/* Everything on disk now is on its way when this returns, and the request names what to wait for. */
int run_sync_first(struct run_session *s, struct err *e) WARN_UNUSED;
/* The request waits for what sync sent last. */
int run_sync_barrier(struct run_session *s, struct err *e) WARN_UNUSED;
/*
 * A set that is refused for good (another folder took the sandbox over) takes no number, so the
 * server lets the run wait for it until its barrier's deadline. Once per request, and not in the
 * way of a program that prints, the sets are therefore looked after: what can be repaired is sent
 * anew.
 */
int run_sync_look_after(struct run_session *s, struct err *e) WARN_UNUSED;

/* ---- run_cut.c */

/* The program shall end: ask for it now, or again where the last request was lost. Until the run has
 * an id nothing is asked. */
void run_cut_cancel(struct run_session *s);
/* The connection of a run that has an id has gone: attach again until the run has ended. 0, -EINTR to
 * leave, or why it was given up. */
int run_cut_come_back(struct run_session *s, struct err *e) WARN_UNUSED;
/* We leave before the end: tell the server, which would keep the run for its grace, if that can be
 * done in a second or two. */
void run_cut_leave(struct run_session *s);

#endif
