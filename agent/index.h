/* SPDX-License-Identifier: MIT */
/*
 * What the server acknowledged, as the agent remembers it in `.silt/index`, and the signatures of
 * large files in `.silt/sig/`.
 *
 * In memory the index is what the server will hold once everything that was sent is acknowledged;
 * the file is what it did acknowledge. So a change goes into memory and into a log buffer when it
 * is sent, the log goes to the file when the answer comes, and after a refusal index_rollback makes
 * memory equal to the file again:
 *
 *     index_put(ix, &entry, &log) …   while a change set is built; log belongs to the set
 *     index_commit(ix, &log, e)       when it was acknowledged: one record, all or nothing
 *     index_rollback(ix, e)           when it was refused
 *     index_tidy(ix, e)               when nothing is under way: rewrites a file that is mostly
 * garbage
 *
 * The file is a log of records with a checksum each; a torn tail (kill -9, power) is cut off at the
 * next open. Nothing is fsynced per record: an index that is too old is found out by the server's
 * answers (base_mismatch, seq_conflict) and repaired. Numbers of sets are reserved in the file
 * before they are used; after any damage the client gets a new name, so no number is used twice.
 *
 * One thread; the caller holds the project's lock.
 */
#ifndef AGENT_INDEX_H
#define AGENT_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/buf.h"
#include "shared/changes.h"
#include "shared/delta.h"
#include "shared/err.h"
#include "shared/manifest.h"

#define INDEX_FILE "index"
#define INDEX_SIG_DIR "sig"
#define INDEX_LOG_MAX (64u * 1024 * 1024) /* bytes of one set's log */
#define INDEX_SIGS_MAX_BYTES                                                                       \
    (UINT64_C(512) * 1024 * 1024) /* all signatures; the oldest go first                           \
                                   */

struct index;

struct index_state {
    char client[CHANGES_CLIENT_MAX + 1]; /* "<link id>.<10 random characters>" */
    char epoch[40];                      /* "" = the server was never asked */
    uint64_t generation;                 /* the server's, as of the last answer */
    uint64_t acked_seq;                  /* last set that was acknowledged; 0 = none */
};

/*
 * Open the index in the folder dir_fd (`.silt`, borrowed until index_close). One that is missing,
 * damaged at its beginning, of another version, link or sandbox is begun anew, empty, with a new
 * client and no epoch: the caller then asks the server what it has.
 */
int index_open(int dir_fd, const char *link_id, const char *sandbox, struct index **ret,
    struct err *e) WARN_UNUSED;
/* The index as it lies on the disk, while somebody else holds the lock: only to be looked at and
 * closed. One that cannot be read is empty. */
int index_peek(int dir_fd, const char *link_id, const char *sandbox, struct index **ret,
    struct err *e) WARN_UNUSED;
void index_close(struct index *ix);

const struct manifest *index_manifest(const struct index *ix);
/* To be changed by the caller; stored by the next commit. */
struct index_state *index_state(struct index *ix);
/* The next number for a change set; reserved in the file first. */
int index_next_seq(struct index *ix, uint64_t *ret, struct err *e) WARN_UNUSED;
/* A new client name that starts from number 1: the server knows another content under our number.
 */
void index_new_client(struct index *ix);

/* Changes of memory, noted in log. 0, -ENOMEM, -ENOBUFS. */
int index_put(struct index *ix, const struct manifest_entry *entry, struct buf *log) WARN_UNUSED;
int index_remove(
    struct index *ix, const char *path, bool with_content, struct buf *log) WARN_UNUSED;
int index_move(struct index *ix, const char *from, const char *to, struct buf *log) WARN_UNUSED;

int index_commit(struct index *ix, const struct buf *log, struct err *e) WARN_UNUSED;
int index_rollback(struct index *ix, struct err *e) WARN_UNUSED;
/* Write memory and state as a new file, which replaces the old one. */
int index_rewrite(struct index *ix, struct err *e) WARN_UNUSED;
/* index_rewrite if more than half of the file is garbage; drops signatures that nothing needs. */
int index_tidy(struct index *ix, struct err *e) WARN_UNUSED;

/*
 * Doubts: what a set may have put on the server without our knowing the answer. index_intend notes
 * one in log, to be committed before set `seq` is sent. They are read with the file (index_open,
 * index_rollback); whatever acknowledges seq or a later set ends them, and index_rewrite leaves
 * them out of the file. Where one is left when the index is opened (we were killed in between) the
 * epoch reads as "", so that the server is asked.
 */
int index_intend(
    struct buf *log, uint64_t seq, const struct manifest_entry *sent) WARN_UNUSED;
/* May a set have put something there? Then it is ours, though the index does not say so. */
bool index_in_doubt(const struct index *ix, const char *path);
/* Is this, which the server has, what such a set put there? */
bool index_was_sent(const struct index *ix, const struct manifest_entry *there);

/*
 * Contests: paths where the server has a version of somebody else's, which the index says like any
 * other, while the project held another. Whoever sends that asks the server to keep the one that it
 * replaces, also after a rollback or a restart. A contest ends with the next index_put, index_remove
 * or index_move about its path, in memory; in the file when that is committed.
 */
int index_contest(struct index *ix, const char *path, struct buf *log) WARN_UNUSED;
bool index_contested(const struct index *ix, const char *path);
bool index_has_contests(const struct index *ix);
/* Both sides have the same there after all; in the file from the next index_put on. */
void index_settle(struct index *ix, const char *path);
/* None is left. */
int index_end_contests(struct index *ix, struct buf *log) WARN_UNUSED;

/* ---- signatures, by content. Losing one costs bytes on the wire, never correctness. */
/* -ENOENT if there is none (a damaged one is removed and counts as none). */
int index_sig_load(
    struct index *ix, const struct hash *hash, uint64_t size, struct delta_sig **ret) WARN_UNUSED;
int index_sig_save(
    struct index *ix, const struct hash *hash, const struct delta_sig *sig) WARN_UNUSED;
/* Remove those that no entry of the manifest has, then the oldest beyond INDEX_SIGS_MAX_BYTES. */
void index_sig_tidy(struct index *ix);

#endif
