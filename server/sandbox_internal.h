/* SPDX-License-Identifier: MIT */
/*
 * What the files of the sandbox module share.
 *
 * Locks, in the order in which they are taken:
 *   sandboxes.lock  the table of sandboxes
 *   sandbox.turn    held while a change set is placed or a scan is adopted: the generation and the
 *                   manifest change only under it, one after the other
 *   sandbox.lock    everything else in the sandbox; short. `moved` is signalled when clients'
 * progress, counts of runs and users, or `deleting` change workspace.lock  the manifest in memory
 */
#ifndef SERVER_SANDBOX_INTERNAL_H
#define SERVER_SANDBOX_INTERNAL_H

#include <pthread.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "server/events.h"
#include "server/sandbox.h"
#include "server/sandbox_uploads.h"
#include "server/set.h"
#include "server/view.h"
#include "server/workspace.h"

#define SANDBOX_RESULTS 64      /* remembered per client */
#define SANDBOX_CLIENTS_MAX 32  /* remembered per sandbox */
#define SANDBOX_INFLIGHT_MAX 64 /* numbered sets of one client under way */
#define SANDBOX_PARENT_WAIT_NS UINT64_C(10000000000)
#define SANDBOX_DELETED_MAX 4096 /* ids of deleted sandboxes that are remembered */
#define SANDBOX_REASON_BYTES 256

/* What runs with a snapshot see. The lock is taken before the turn. */
struct sandbox_views {
    pthread_mutex_t lock;
    int fd; /* staging/views, or -1: not made yet */
    struct snapshot *snapshots; /* newest first */
    uint64_t made;              /* for names */
};

struct client_result {
    uint64_t seq; /* 0 = empty */
    struct hash digest;
    enum proto_error refusal;
    bool passing; /* a refusal that a repeat may escape; in memory only */
    char reason[SANDBOX_REASON_BYTES];
    uint64_t generation;
    uint32_t created, updated, moved, deleted;
};

/* A numbered set under way. While it is read the same number over another connection takes its place. */
struct client_inflight {
    uint64_t seq, holder; /* seq 0: free */
    bool arrived;
};

struct sandbox_client {
    char name[CHANGES_CLIENT_MAX + 1];
    uint64_t last; /* the last set that was applied */
    uint64_t used_ns;
    unsigned next_slot;
    struct client_result results[SANDBOX_RESULTS];
    struct client_inflight inflight[SANDBOX_INFLIGHT_MAX];
    unsigned inflight_count; /* with those that lost their place */
    uint64_t holders;
    UT_hash_handle hh;
};

struct sandbox {
    struct sandboxes *all;
    int64_t num;
    char id[SANDBOX_ID_BYTES];
    struct tree_identity identity;
    atomic_uint refs;

    pthread_mutex_t turn;
    struct workspace *ws; /* opened once, under turn; stays until the sandbox is freed */
    bool scan_needed, cache_made;
    struct sandbox_views views;
    atomic_bool ready;

    pthread_mutex_t lock;
    pthread_cond_t moved;
    char *language, *name, *image, *env_json, *limits_json, *network_json, *labels_json;
    char *writer_link, *writer_machine;
    uint64_t idle_ttl_s, created_ns, used_ns, generation, files, bytes;
    char epoch[40];
    bool deleting, gone, removing;
    unsigned runs, users;
    uint64_t runs_begun;
    struct sandbox_client *clients;
    struct sandbox_running *running; /* programs that run now: sandbox_events.c */
    struct sandbox_upload *uploads;  /* sandbox_uploads.c */
    unsigned upload_count;
    bool uploads_loaded; /* under turn: those from before the start are in the table */
    bool uploads_sought; /* under all->lock */
    struct events events; /* has a lock of its own, taken last */
    UT_hash_handle hh;
};

struct sandboxes {
    struct sandboxes_config config;
    struct workspaces *workspaces;
    pthread_mutex_t lock;
    struct sandbox *table; /* in order of creation */
    char (*deleted)[SANDBOX_ID_BYTES];
    size_t deleted_count;
    bool events_ended;
};

/* Count a user in, who keeps the sandbox from being removed. Refuses when it is being deleted. With
 * `ready` the workspace is open, its manifest loaded and, after an unclean stop, compared with the
 * disk. */
int sandbox_enter(struct sandbox *sb, bool ready, struct err *e) WARN_UNUSED;
void sandbox_exit(struct sandbox *sb);
int sandbox_refuse_deleted(const struct sandbox *sb, struct err *e);
/* The row as it is now; sb->lock is held, texts are borrowed. */
void sandbox_row(const struct sandbox *sb, struct store_sandbox *ret);
void sandbox_new_epoch(struct sandbox *sb);
struct sandbox *sandbox_from_row(
    struct sandboxes *all, const struct store_sandbox *row, struct err *e);
void sandbox_free(struct sandbox *sb);

/* A change set that no client sent: what a run made. */
struct sandbox_origin {
    const char *run;
    /* The content of a PUT that names a stage; with the sandbox's identity. */
    int (*claim)(void *ctx, struct stage *stage, const struct change_op *op, struct staged **ret,
        struct err *e);
    void *ctx;
};
int sandbox_apply_from(struct sandbox *sb, const struct changes_begin *begin,
    const struct changes_feed *feed, const struct sandbox_origin *origin,
    struct sandbox_apply_result *ret, struct err *e) WARN_UNUSED;

/* sandbox_views.c: on the file system as it is, after every user is gone. */
void sandbox_views_free(struct sandbox *sb);

/* Compare the workspace with its manifest and adopt what differs. `ret` may be NULL. Takes turn. */
int sandbox_scan(struct sandbox *sb, struct sandbox_run_changes *ret, struct err *e) WARN_UNUSED;
/* The same with the turn held, for the first use. */
int sandbox_scan_in_turn(struct sandbox *sb, struct err *e) WARN_UNUSED;

/* ---- sandbox_events.c. sb->lock is held, so that events have the order of what they tell. */

/* The generation or the epoch is new. `begin` (may be NULL): the change set that did it. */
void sandbox_tell_generation(
    struct sandbox *sb, const char *by, const struct changes_begin *begin, const char *run);
void sandbox_tell_deleted(struct sandbox *sb);
/* The run whose program this thread carries, or "". */
const char *sandbox_running_here(const struct sandbox *sb);
void sandbox_running_free(struct sandbox *sb);

/* ---- sandbox_kept.c; the turn is held and the identity carried */
/* The steps were carried out: move what operations with `keep` displaced out of its slots. */
void sandbox_keep(
    struct sandbox *sb, struct stage *stage, struct steps *steps, const struct set *set);
void sandbox_unkeep(struct sandbox *sb, struct stage *stage, struct steps *steps);

/* ---- sandbox_lease.c; a client's name begins with its link's */
/* Does its link hold the lease? sb->lock is held, as for the sentence that it does not. */
bool sandbox_lease_has(const struct sandbox *sb, const char *client);
int sandbox_lease_refuse(const struct sandbox *sb, struct err *e);
/* Takes the lease if nobody has it; PROTO_LINKED_ELSEWHERE. */
int sandbox_lease_check(struct sandbox *sb, const char *client, struct err *e) WARN_UNUSED;

/* ---- sandbox_clients.c */
struct sandbox_ticket {
    struct sandbox_client *client; /* NULL: a set without number */
    uint64_t seq, parent, holder, deadline_ns;
    const struct client_result *known; /* applied before: a repeat, if the digest is the same */
    struct client_result copy;
};
int sandbox_clients_load(struct sandbox *sb, struct err *e) WARN_UNUSED;
void sandbox_clients_free(struct sandbox *sb);
/* Register a numbered set. Refuses what can be told before its content was read. */
int sandbox_ticket_take(struct sandbox *sb, const struct changes_begin *begin,
    struct sandbox_ticket *ret, struct err *e) WARN_UNUSED;
/* Wait until the parent was applied. */
int sandbox_ticket_wait(struct sandbox *sb, struct sandbox_ticket *t, struct err *e) WARN_UNUSED;
/* All of the set is here. If it came again over another connection meanwhile, waits for what became
 * of that one: then `known` is set. Refuses (busy) when that takes too long. */
int sandbox_ticket_arrived(struct sandbox *sb, struct sandbox_ticket *t, struct err *e) WARN_UNUSED;
/* The slot that the result of this ticket will have. sb->lock is not held. */
void sandbox_ticket_result(
    struct sandbox *sb, const struct sandbox_ticket *t, struct store_result *ret);
/* Done: remember the outcome, wake who waits. applied == NULL: it was refused or failed as *e says.
 */
void sandbox_ticket_done(struct sandbox *sb, struct sandbox_ticket *t,
    const struct store_result *applied, const struct err *e);

#endif
