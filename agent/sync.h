/* SPDX-License-Identifier: MIT */
/*
 * The pipeline from a project's tree to the server: scan → hash → operations (put, patch, copy,
 * move, mkdir, symlink, chmod, delete) → change set → acknowledged → index. One object per project
 * and process, one thread; the project's lock (.silt/lock) is held while one exists.
 *
 *     sync_open(&config, &s)                 // lock, index, rules
 *     sync_scan(s)                           // nothing is sent; asks the server only at first
 * contact sync_start(s)                          // under way; sync_barrier names what a run must
 * wait for sync_push(s)                           // waits, repairs what was refused, keeps
 * signatures sync_close(s)                          // index is on disk
 *
 * What is recorded is the hash of the bytes that were sent. A file that changes while it is read is
 * sent again by the next round. A refused set (409 base_mismatch) is repaired from what the server
 * says it has and sent again under a new number, at most 5 times; the local version wins, and the
 * paths are reported as conflicts.
 */
#ifndef AGENT_SYNC_H
#define AGENT_SYNC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/client.h"
#include "agent/link.h"
#include "shared/buf.h"
#include "shared/err.h"

struct sync;

/* How a long transfer tells about itself; any member may be NULL. */
struct sync_events {
    /* Totals may grow while scanning. bytes are of content, not of the wire. */
    void (*progress)(void *ctx, uint64_t files_done, uint64_t files_total, uint64_t bytes_done,
        uint64_t bytes_total);
    /* A path that is left out or could not be read, once each, with a sentence. */
    void (*skipped)(void *ctx, const char *path, const char *why);
    /* A path that was changed on both sides; the local version was sent. */
    void (*conflict)(void *ctx, const char *path);
    void *ctx;
};

struct sync_config {
    const struct link *link;
    struct client *client; /* borrowed */
    struct sync_events events;
    bool allow_empty; /* an emptied project may delete everything */
    bool steal;       /* take the writer lease */
};

struct sync_totals {
    uint64_t generation;
    uint32_t created, updated, moved, deleted;
    uint64_t bytes_sent, bytes_received; /* on the wire, headers included */
    uint64_t content_bytes;              /* size of the files that changed */
    uint32_t conflicts, skipped;
    double elapsed_ms;
    double scan_ms, send_ms;
};

/* -EBUSY when another process holds the project's lock (a watcher: talk to its control socket). */
int sync_open(const struct sync_config *config, struct sync **ret, struct err *e) WARN_UNUSED;
void sync_close(struct sync *s);

/* Scan everything against the index and queue the differences. Returns how many operations are
 * queued, or -errno: -ENOTEMPTY with a sentence if the project was emptied and !allow_empty. */
int64_t sync_scan(struct sync *s, struct err *e) WARN_UNUSED;
/* As sync_scan, but for those that only look different: how many changes a person would see. They
 * are read for that. */
int64_t sync_changes(struct sync *s, struct err *e) WARN_UNUSED;
/* As sync_scan for these paths (files or directories, relative) only: what a watcher saw. */
int64_t sync_scan_paths(
    struct sync *s, const char *const *paths, size_t count, struct err *e) WARN_UNUSED;

/* Begin to send what is queued (several sets if it is much), without waiting: the requests are
 * under way in the client. After it sync_barrier names the last set. */
int sync_start(struct sync *s, struct err *e) WARN_UNUSED;
/* The set that a run must wait for to see everything queued so far: client "" and seq 0 if the
 * server has had everything for ever. The client's name is valid until sync_close. */
void sync_barrier(struct sync *s, const char **ret_client, uint64_t *ret_seq);
/* At most 20 paths that were not acknowledged yet, as readable texts: a new reference. */
json_t *sync_pending(const struct sync *s);
/* Is a content under way, or due, that goes before its set? A run that names the set would wait in
 * vain at the barrier. */
bool sync_uploads(const struct sync *s);
/* Is anything queued or under way? */
bool sync_busy(const struct sync *s);
/* The sets that ended badly after all retries: 0, or -errno with the error of the first. Clears it.
 */
int sync_result(struct sync *s, struct err *e) WARN_UNUSED;
/* sync_start and client_step until nothing is under way; 0 or the first error. */
int sync_push(struct sync *s, struct err *e) WARN_UNUSED;

/*
 * Hold the index against the server's manifest, when nothing is under way. Paths that the server has
 * otherwise, though no run wrote them, are planned: sync_push sends them again (the local version
 * wins, and is reported as a conflict where there is another). -EAGAIN: the workspace changed all
 * the while; -ESTALE: it is another one by now, sync_scan compares everything.
 */
struct sync_audit_result {
    size_t entries;  /* that were compared */
    size_t repaired; /* that the server had lost or changed */
    size_t by_runs;  /* that runs changed: left alone */
};
int sync_audit(struct sync *s, struct sync_audit_result *ret, struct err *e) WARN_UNUSED;
/* The next scan trusts no time stamp: every file is read again. */
void sync_doubt(struct sync *s);

/* The server says that its epoch is this. True: it was another one, so that what the index says is not
 * believed any more: the next scan asks what the server has. Not while sync_busy. */
bool sync_note_epoch(struct sync *s, const char *epoch);

void sync_totals(const struct sync *s, struct sync_totals *ret);
void sync_totals_reset(struct sync *s);

/* How many files and bytes a first sync would send (before anything is linked): uses the rules of
 * root only. */
int sync_survey(const char *root, uint64_t *ret_files, uint64_t *ret_bytes, char *left_out,
    size_t left_out_size, struct err *e) WARN_UNUSED;

/*
 * The loop of `silt watch`: watches the project with inotify, sends what changed, serves the
 * control socket, until *stop becomes non-zero (a signal handler's flag) or the watcher is told to
 * stop. `said` is called for each thing worth telling (a JSON object per line in --json mode is
 * made of it by the caller).
 */
enum sync_said {
    SYNC_SAID_READY,
    SYNC_SAID_SENT,
    SYNC_SAID_AWAY,
    SYNC_SAID_BACK,
    SYNC_SAID_PROBLEM
};
/* … as the object of `silt watch --json`; totals and text may be NULL. */
json_t *sync_said_json(enum sync_said what, const struct sync_totals *totals, const char *text);
struct sync_watch_config {
    volatile const int *stop; /* a sig_atomic_t in the caller */
    void (*said)(
        void *ctx, enum sync_said what, const struct sync_totals *totals, const char *text);
    void *ctx;
};
int sync_watch(struct sync *s, const struct sync_watch_config *config, struct err *e) WARN_UNUSED;

#endif
