/* SPDX-License-Identifier: MIT */
/*
 * What the parts of agent/sync share.
 *     sync.c        open, close, scan, plan, push: the life of a difference
 *     sync_ops.c    one difference → operations (pure but for reading the project's files)
 *     sync_delta.c  a file as a delta against what the server has
 *     sync_gone.c   vanished files, which may have been moved
 *     sync_names.c  sets of paths
 *     sync_set.c    operations → the body of one request, in memory or streamed
 *     sync_read.c   small files as they were at one time, under the rules of that time
 *     sync_pack.c   the body's compression while it is built
 *     sync_stage.c  a large content that goes before its set
 *     sync_send.c   sets in flight, their answers
 *     sync_base.c   first contact, another epoch, repair after a refusal
 *     sync_audit.c  do both sides hold the same?
 *     sync_sig.c    signatures of what was sent, made while there is time
 *     sync_survey.c before a first sync: what would be sent
 *     sync_watch.c  the watcher's loop
 */
#ifndef AGENT_SYNC_INTERNAL_H
#define AGENT_SYNC_INTERNAL_H

#include <zstd.h>

#include "agent/ignore.h"
#include "agent/index.h"
#include "agent/scan.h"
#include "agent/sync.h"
#include "shared/changes.h"
#include "shared/delta.h"
#include "shared/hash.h"
#include "shared/tree.h"

#define SYNC_SET_OPS 1000
#define SYNC_SET_BYTES (4u * 1024 * 1024)
#define SYNC_SETS_IN_FLIGHT 2
#define SYNC_ROUNDS 5
#define SYNC_MEMORY_FILE (1024u * 1024) /* larger files are streamed, never held */
#define SYNC_STAGE_MIN (8u * 1024 * 1024) /* from this on a content goes through a stage */
#define SYNC_STAGE_TRIES 6                /* that bring nothing, without patience */
#define SYNC_READ_TRIES 3               /* at a file that changes while it is read */

/* A set of paths, for telling things once. */
struct sync_names;
bool sync_names_add(struct sync_names **names, const char *path); /* false: it was there */
size_t sync_names_count(const struct sync_names *names);
void sync_names_free(struct sync_names **names);
/* All of them as malloc'd array of borrowed texts; NULL when out of memory. */
const char **sync_names_list(const struct sync_names *names, size_t *ret_count);

struct sync_item {
    enum scan_kind kind;
    enum tree_kind was; /* when it was scanned: where to begin to look */
    char *path;
    uint64_t size;
};

/* A file that vanished and whose content the server therefore has to spare. */
struct sync_gone {
    struct hash hash;
    uint64_t size, ino;
    char *path;
    bool used;
};

/* A signature to be made of what was sent. */
struct sync_sig_job {
    char *path;
    struct hash hash;
    uint64_t size;
    bool edited;           /* the server had another content there */
    struct delta_sig *sig; /* what is known already, or NULL */
    struct sync_sig_job *next;
};

/* One change set, from its plan to its answer. */
struct sync_set {
    struct sync *sync;
    uint64_t seq;
    struct sync_item *items; /* owned */
    size_t item_count;
    uint32_t ops;
    uint64_t seen_ns; /* when the first of its changes was seen; 0: not known */
    uint64_t content_bytes;
    struct buf log;     /* for the index, once it is acknowledged; behind its own those of later sets */
    uint64_t later_seq; /* the last of those that was acknowledged already, or 0 */
    struct buf intents; /* for the index, before it is sent: what it will put where */
    struct buf raw;    /* frames; those that were not compressed yet, once that has begun */
    struct buf packed; /* the same, compressed; empty if that does not pay */
    bool packing;      /* the compressor has the beginning: the sync's own is in use for it */
    struct changes_writer *writer;
    /* A large content that follows the frames in raw. */
    int stream_fd; /* -1: none */
    uint64_t stream_len, stream_done, stream_given; /* given: to the connection */
    bool stream_ended, stream_packed, stream_flushed;
    ZSTD_CCtx *zstd;
    struct buf out; /* of the compressor */
    /* The large content is a delta that is made while it is sent: */
    struct delta_maker *maker;
    struct delta_sig *maker_base;
    struct manifest_entry
        made; /* what the index learns at its end; made.path belongs to the item */
    /* A large content that goes to a stage first; the request is the stage's until then. */
    struct sync_stage *stage;
    bool was_staged;
    struct client_request request;
    struct client_call *call; /* NULL: not under way */
    uint32_t tries;
    struct sync_set *next;
};

enum sync_trouble {
    SYNC_FINE,
    SYNC_AGAIN,  /* scan and send again under new numbers */
    SYNC_REPAIR, /* learn from the conflicts first */
    SYNC_REBASE, /* learn everything from the server first */
    SYNC_FATAL,  /* nothing helps: s->error */
};

/* A watcher sees a project that is emptied file by file (sync_emptied.c). */
struct sync_emptying {
    size_t before;    /* files that were known when deletions began */
    uint64_t gone_ns; /* when the latest was found */
    uint64_t held_ns; /* since when they are held; 0: they are not */
    uint64_t due_ns;  /* when all is looked at once more to decide; 0: decided, or not held */
    bool decide;      /* the next scan of everything decides */
};

struct sync {
    struct sync_config config;
    struct link link; /* texts borrowed from config.link */
    char *changes_path;
    int dir_fd, lock_fd;
    struct tree *tree;
    struct ignore *rules;
    struct index *index;

    struct sync_item *fresh; /* found, not yet planned */
    size_t fresh_count;
    struct sync_gone *gone; /* sorted by hash */
    size_t gone_count;
    struct sync_set *queue, **queue_end; /* planned, not built */
    struct sync_set *flying; /* sent, not answered; also those that wait for the server */
    unsigned flying_count;
    uint64_t sent_seq;        /* parent of the next set */
    struct sync_set *reading; /* its content is not known yet: the next set waits for that */
    uint64_t promised_seq; /* a run may wait for this number: it is sent even if nothing is in it */
    uint64_t retry_at_ns;  /* without patience: when what waits is tried again; 0: nothing waits */
    bool patient;          /* a watcher: keeps sets while the server is away */
    bool away;             /* it is */
    struct client_call *probe; /* is it back? Asked before much is sent again; NULL: not asked */
    char probe_path[64];
    struct err why_away;   /* the server's sentence if it answered "later", else none */
    bool renumber;         /* the server knows other content under our numbers */
    bool stolen;           /* the lease was taken, if that was asked for */
    /* Each folder that a scan enters: as in scan.h. */
    void (*entered)(void *ctx, const char *path, int dir_fd);
    void *entered_ctx;
    bool (*new_rules)(void *ctx); /* may rules have changed since the scan? NULL: nobody sees that */
    void *new_rules_ctx;
    void (*changed)(void *ctx, const char *path); /* each path that goes on its way */
    void *changed_ctx;
    void (*arrived)(void *ctx, uint64_t seen_ns); /* each set whose changes were seen by a watcher */
    void *arrived_ctx;
    unsigned cuts; /* connections that broke behind SYNC_STAGE_MIN bytes of a set, since the last answer */
    uint64_t cut_bytes; /* of the latest */
    uint64_t seen_ns; /* when the first of what is scanned now was seen; 0: not known */

    struct sync_emptying emptying;

    enum sync_trouble trouble;
    struct err error;             /* of the first trouble */
    json_t *conflicts;            /* from the server's refusal */
    bool unscanned; /* the server was asked for everything, and nothing was compared with it yet */
    struct sync_names *told_conflicts; /* since all was settled the last time */
    struct sync_names *told;      /* skipped paths that were reported */
    struct sync_names *unsettled; /* changed while they were read */
    bool whole;                   /* the server has nothing yet of what is sent */
    ZSTD_CCtx *zstd;              /* of sets in memory, one after the other; NULL until needed */
    struct buf scratch;           /* of whoever reads a small file */
    struct buf spare_raw, spare_packed; /* memory of sets that are done, for the next one */
    struct sync_sig_job *jobs;
    size_t job_count;

    bool doubt;   /* the next scan trusts no time stamp */
    bool audited; /* these two digests differ by what runs did: */
    struct hash audited_mine, audited_there;
    size_t audited_by_runs;

    struct sync_totals totals;
    uint64_t started_ns, scan_ns, send_ns, send_begin_ns;
    uint64_t files_total, files_done, bytes_total, bytes_done;
};

/* ---- sync.c */
void sync_tell_skipped(struct sync *s, const char *path, const char *why);
/* Scan again all that may differ after sets were dropped. */
int64_t sync_rescan(struct sync *s, struct err *e) WARN_UNUSED;
/* After trouble, when nothing is in flight: forget what was refused, learn, scan again. */
int sync_recover(struct sync *s, struct err *e) WARN_UNUSED;
/* Plan the paths that changed while they were read. 1 if there were any, 0, <0. */
int sync_take_unsettled(struct sync *s, struct err *e) WARN_UNUSED;
/* Drop everything that is planned. */
void sync_drop_plan(struct sync *s);
/* Once nothing is planned or under way: conflicts that came to nothing are forgotten. */
void sync_end_contests(struct sync *s);

/* ---- sync_emptied.c */
/* Of what a scan found, take out deletions that look like the end of the project: see there.
 * -ENOTEMPTY with a sentence if it was emptied. */
int sync_emptied(struct sync *s, struct scan *found, struct err *e) WARN_UNUSED;
/* A watcher that stood still knows nothing of that time, so it says until when it has heard of
 * everything. All of that was looked at: were deletions long enough ago for others to be a new matter? */
void sync_emptied_heard(struct sync *s, uint64_t heard_ns);
/* Is it time to decide about what is held? `all`: all of what was heard was looked at. */
bool sync_emptied_decides(const struct sync *s, uint64_t heard_ns, bool all);

/* ---- sync_ops.c */
/* Append what the item means now to the set; nothing if it means nothing any more. */
int sync_ops_add(
    struct sync *s, struct sync_set *set, const struct sync_item *item, struct err *e) WARN_UNUSED;

/* ---- sync_gone.c */
int sync_gone_add(struct sync *s, const struct manifest_entry *entry) WARN_UNUSED;
/* After the last sync_gone_add. */
void sync_gone_sort(struct sync *s);
/* The vanished file with this content, the one with this inode if there are several; NULL if none.
 */
struct sync_gone *sync_gone_find(
    struct sync *s, const struct hash *hash, uint64_t size, uint64_t ino);
void sync_gone_drop(struct sync *s);

/* ---- sync_set.c */
int sync_set_begin(struct sync *s, struct sync_set *set, struct err *e) WARN_UNUSED;
/* One operation with its content (op->content_len bytes at data), or without any. */
int sync_set_op(
    struct sync_set *set, const struct change_op *op, const void *data, struct err *e) WARN_UNUSED;
/* One operation whose content is op->content_len bytes of fd (owned from here on). It is the last.
 */
int sync_set_stream(
    struct sync_set *set, const struct change_op *op, int fd, struct err *e) WARN_UNUSED;
/* The same for a PATCH that is open (op->size bytes of fd). maker and its signature are taken over,
 * `begun` are the delta's bytes so far. When the file was read, `made` with its hash is noted in
 * the index. */
struct sync_open {
    int fd;
    struct delta_maker *maker;
    struct delta_sig *base;
    const struct buf *begun;
    struct manifest_entry made;
};
int sync_set_open(struct sync_set *set, const struct change_op *op, const struct sync_open *open,
    struct err *e) WARN_UNUSED;
/* END, compression, the request. */
int sync_set_finish(struct sync *s, struct sync_set *set, struct err *e) WARN_UNUSED;
struct sync_set *sync_set_new(struct sync *s);
void sync_set_free(struct sync_set *set);

/* ---- sync_stage.c */
/* As sync_set_stream, by way of a stage: before anything else is asked of it, the set's request is
 * what sync_stage_prepare makes it; sync_stage_heard says what the answer means. */
int sync_stage_begin(
    struct sync_set *set, const struct change_op *op, int fd, struct err *e) WARN_UNUSED;
int sync_stage_prepare(struct sync_set *set, struct err *e) WARN_UNUSED;
enum sync_stage_next {
    SYNC_STAGE_GO_ON,  /* prepare and send the next request */
    SYNC_STAGE_THERE,  /* all of the content is: sync_stage_end */
    SYNC_STAGE_NONE,   /* there will be no stage: sync_stage_end */
    SYNC_STAGE_FAILED, /* it is as the result says; after it the stage is asked how far it is */
};
enum sync_stage_next sync_stage_heard(struct sync_set *set, int result,
    const struct client_response *response, const struct err *why, struct err *e) WARN_UNUSED;
/* The set as it is sent: it names the stage, or streams the content. */
int sync_stage_end(struct sync_set *set, bool there, struct err *e) WARN_UNUSED;
void sync_stage_free(struct sync_stage *st);
/* The set that named it was applied. */
void sync_stage_forget(const struct sync *s);

/* ---- sync_read.c */
/* All of a small file into s->scratch, as it was at one time if it ever holds still; else the path
 * is one of those that are unsettled. *stat and *seen_ns: from before, then those that it was read
 * with. -ENOBUFS when it is no small file any more. */
int sync_read_small(
    struct sync *s, const char *path, int fd, struct tree_stat *stat, int64_t *seen_ns) WARN_UNUSED;

/* Does a rule leave out what a scan found? Asked when its content was read: nothing leaves that was
 * written after the rule, however the two crossed the scan. 1 (the scan that is due for the rule sees
 * to the index), 0, <0. */
int sync_left_out(struct sync *s, const char *path, bool is_dir, struct err *e) WARN_UNUSED;

/* ---- sync_pack.c */
/* Frames of one set: the planned 4 MiB, what files grew by since, paths of 1000 operations. */
#define SYNC_RAW_MAX (64u * 1024 * 1024)
#define SYNC_PACK_PIECE (256u * 1024) /* frames are compressed once there are so many */
void sync_pack_init(struct sync *s);
/* Compress what is in raw, if there is enough of it to begin with. */
int sync_pack_more(struct sync_set *set) WARN_UNUSED;
/* The end, for a set in memory: the request's body and encoding. */
int sync_pack_end(struct sync_set *set) WARN_UNUSED;
int sync_pack_level(const struct sync *s);
/* Does the beginning of the content shrink? */
bool sync_pack_shrinks(int fd, int level);
/* Exchange two buffers of the same maximum; both are empty then. */
void sync_pack_swap(struct buf *a, struct buf *b);
/* The compressor and the spare memory are not needed for now. */
void sync_pack_drop(struct sync *s);

/* ---- sync_send.c */
/* May another set be built and sent now? */
bool sync_can_send(const struct sync *s);
/* Build and send the next set if it may be. */
int sync_pump(struct sync *s, struct err *e) WARN_UNUSED;
/* Send again what waits for a server that was away. */
int sync_resend(struct sync *s, struct err *e) WARN_UNUSED;
/* Forget every set; requests under way are dropped. */
void sync_drop_sets(struct sync *s);

/* ---- sync_base.c */
/* Ask the server what it has, and make the index say that. */
int sync_rebase(struct sync *s, struct err *e) WARN_UNUSED;
/* Make the index say what the conflicts say. */
int sync_repair(struct sync *s, struct err *e) WARN_UNUSED;
/* Take the writer lease if that was asked for and is not done yet. */
int sync_steal(struct sync *s, struct err *e) WARN_UNUSED;

/* ---- sync_audit.c */
struct sync_audit;
/* A part of sync_audit that waits for nothing: SYNC_AUDIT_WAITS until client_step has heard an answer,
 * 0 done, <0 ended. Between the first call and the last the index must not change: drop it where it
 * does. */
#define SYNC_AUDIT_WAITS 1
int sync_audit_step(struct sync *s, struct sync_audit **audit, struct sync_audit_result *ret,
    struct err *e) WARN_UNUSED;
void sync_audit_drop(struct sync_audit **audit); /* NULL is fine */

/* ---- sync_sig.c */
/* `sig` is taken: block hashes of this content, which were made with a delta, or NULL. */
int sync_sig_want(struct sync *s, const char *path, const struct hash *hash, uint64_t size,
    bool edited, struct delta_sig *sig) WARN_UNUSED;
/* Make one signature; false: there is none to make. */
bool sync_sig_step(struct sync *s);
void sync_sig_drop_all(struct sync *s);

#endif
