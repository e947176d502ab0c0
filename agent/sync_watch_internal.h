/* SPDX-License-Identifier: MIT */
/*
 * What agent/sync_watch.c (the loop), sync_watch_hear.c (events), sync_watch_scan.c (what is looked
 * at), sync_watch_audit.c, sync_watch_control.c (its commands) and sync_watch_run.c (runs and
 * followers) share.
 */
#ifndef AGENT_SYNC_WATCH_INTERNAL_H
#define AGENT_SYNC_WATCH_INTERNAL_H

#include "agent/control.h"
#include "agent/settle.h"
#include "agent/stats.h"
#include "agent/sync_internal.h"
#include "agent/watch.h"

#define SYNC_WAITERS_MAX CONTROL_PEERS_MAX
#define SYNC_CHANGED_LISTED 1000 /* paths named in one `changed` */

struct sync_relay;

/* A command that waits for its answer. */
struct sync_waiter {
    uint64_t peer;  /* 0: free */
    bool wants_ack; /* `sync`: acknowledged, not only on its way */
    json_t *run;    /* `run`: the exec request that is sent then; owned */
    bool stream;    /* … is answered by a stream */
    uint64_t asked_ns;
    uint64_t cookie; /* what must be seen first; 0: seen */
    bool started;    /* everything dirty then is on its way: seq says until where */
    uint64_t seq;
    uint64_t deadline_ns;
    struct sync_totals before; /* as of the request */
    bool verify;               /* and answered after an audit */
};

struct sync_loop {
    struct sync *s;
    const struct sync_watch_config *config;
    struct watch *watch;
    struct settle *settle;
    struct control *control;
    struct sync_waiter waiters[SYNC_WAITERS_MAX];
    uint64_t begun_wall_ns;

    uint64_t heard_ns; /* what happened until then was heard */
    bool rescan;      /* everything must be scanned */
    bool look_around; /* the folders without watches must be scanned */
    uint64_t poll_at_ns, audit_at_ns;
    bool compare;             /* hold the index against the server's digests when there is time */
    struct sync_audit *audit; /* begun; ends where the index changes */
    unsigned audit_tries;
    struct sync_audit_result audited; /* the latest */
    char audit_error[ERR_MSG_BYTES];  /* "" = it was possible */
    uint64_t retry_at_ns, backoff_ns; /* while the server is away */
    uint64_t no_space_ns;             /* when the server last said that it has no room */
    bool said_away, said_ready, said_polling;
    uint64_t burst_ns; /* when the first change that was not told was taken up; 0: there is none */
    struct sync_totals said;     /* totals when SENT was said last */
    char problem[ERR_MSG_BYTES]; /* "" = none */

    struct sync_relay *relays;             /* runs under way */
    uint64_t followers[CONTROL_PEERS_MAX]; /* peers; 0: free */
    json_t *changed;                       /* what left since `changed` was told, or NULL */
    uint64_t changed_count;
    char cancel_path[96];
    struct stats saves, first_outputs, results;

    bool stop;
    struct err *e; /* why the loop ends by itself */
    int result;
};

/* Is everything that was dirty on its way? */
bool sync_loop_is_clean(const struct sync_loop *l);
/* What happened since `before`. */
void sync_loop_since(
    const struct sync_loop *l, const struct sync_totals *before, struct sync_totals *ret);

/* Said once until it changes; told by `silt status` as long as it lasts. "": it is over. */
void sync_loop_problem(struct sync_loop *l, const char *text);
/* Will this failure pass by itself? */
bool sync_loop_is_passing(const struct err *e);
/* A scan or a send failed. What passes is tried again; what a change of the tree can cure (an
 * emptied project) is told; the rest ends the loop. */
void sync_loop_fail(struct sync_loop *l, const struct err *e);

watch_sink sync_loop_hear; /* ctx: the loop */

/* A scan enters a folder (struct sync.entered; ctx: the loop): it is watched first. */
void sync_loop_entered(void *ctx, const char *path, int dir_fd);
/* Look at what is dirty and send it, unless enough is in flight: then more is collected meanwhile.
 */
void sync_loop_scan(struct sync_loop *l);

/* Scan everything and compare, as soon as there is time. */
void sync_loop_audit_begin(struct sync_loop *l);
bool sync_loop_audit_due(const struct sync_loop *l);
/* In idle time: a part of a comparison that is wanted. It waits for nothing. */
void sync_loop_audit_step(struct sync_loop *l);

control_handler sync_loop_request; /* ctx: the loop */
/* Answer the commands whose time has come. */
void sync_loop_answer(struct sync_loop *l);
void sync_loop_cookie(struct sync_loop *l, uint64_t number);
/* Cookies were lost with their watch: make new ones. */
void sync_loop_renew_cookies(struct sync_loop *l);
/* Forget those who wait. */
void sync_loop_drop_waiters(struct sync_loop *l);
/* Does a command wait for what was dirty when it asked? */
bool sync_loop_somebody_waits(const struct sync_loop *l);
/* The next deadline of a command, or UINT64_MAX. */
uint64_t sync_loop_deadline(const struct sync_loop *l);

/* ---- sync_watch_run.c */

/* What this waiter waited for is on its way: send its run beside it. */
void sync_loop_run(struct sync_loop *l, struct sync_waiter *w);
/* Once a turn: runs whose command has gone, or has read enough to go on. */
void sync_loop_tend_runs(struct sync_loop *l);
/* How long a turn may wait while runs are under way. */
int sync_loop_runs_ms(const struct sync_loop *l, int usual_ms);
/* The watcher ends. */
void sync_loop_end_runs(struct sync_loop *l);
void sync_loop_cancel(struct sync_loop *l, uint64_t peer, const json_t *request);
void sync_loop_follow(struct sync_loop *l, uint64_t peer, const json_t *request);
/* Tell those who follow. Takes the reference. */
void sync_loop_tell(struct sync_loop *l, json_t *event);
/* A path goes on its way (struct sync.changed; ctx: the loop) … */
void sync_loop_changed(void *ctx, const char *path);
/* … and those who follow hear of all of them at once. */
void sync_loop_tell_changed(struct sync_loop *l);

#endif
