/* SPDX-License-Identifier: MIT */
/*
 * What siltd must remember across a restart, in SQLite: the only user of that library. One
 * connection, one lock, WAL; it alone checkpoints. Schema versions from the first day: an older
 * database is migrated in one transaction, a newer one is refused with a sentence.
 *
 * Thread-safe. Never call from a thread that carries a sandbox's identity (tree_identity_enter):
 * SQLite may open files of its own.
 */
#ifndef SERVER_STORE_H
#define SERVER_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/buf.h"
#include "shared/err.h"
#include "shared/manifest.h"

struct store;

int store_open(const char *path, struct store **ret, struct err *e) WARN_UNUSED;
/* Marks the stop as clean, checkpoints, closes. */
void store_close(struct store *s);
/* Was the database closed cleanly the last time? (False: every sandbox gets a new epoch.) */
bool store_was_clean(const struct store *s);

/* ---- runs: the finished record is the run object of the API as JSON, without its output */
struct store_run {
    const char *id, *sandbox, *status; /* status as in the API */
    uint64_t created_ns;
    const char *json;
};
int store_run_put(struct store *s, const struct store_run *run,
    struct err *e) WARN_UNUSED; /* insert or replace */
/* -ENOENT (no message) if unknown. Appends the JSON. */
int store_run_get(struct store *s, const char *id, struct buf *json, struct err *e) WARN_UNUSED;
/* Newest first. sandbox, status, before_id may be NULL (no filter). Stops when visit returns
 * non-zero. visit is called with the store locked: it must not call the store. */
int store_run_list(struct store *s, const char *sandbox, const char *status, const char *before_id,
    unsigned limit, int (*visit)(const struct store_run *run, void *ctx), void *ctx,
    struct err *e) WARN_UNUSED;
int store_run_delete(struct store *s, const char *id, struct err *e) WARN_UNUSED;
int store_run_delete_of_sandbox(struct store *s, const char *sandbox, struct err *e) WARN_UNUSED;

/* ---- sandboxes, manifests, clients, intents: used by sandbox*.c only. `num` is the row's number,
 * by which all that belongs to the sandbox is found. */
struct store_sandbox {
    int64_t num;
    const char *id, *language, *name, *image, *env_json, *limits_json, *network_json, *labels_json;
    uint64_t idle_ttl_s, created_ns, used_ns, generation, files, bytes;
    const char *epoch, *writer_link, *writer_machine;
    uint32_t uid;
    bool deleting;
};
/* Insert; *ret_num is its number. */
int store_sandbox_add(
    struct store *s, const struct store_sandbox *row, int64_t *ret_num, struct err *e) WARN_UNUSED;
/* Write every column of row->num. */
int store_sandbox_save(struct store *s, const struct store_sandbox *row, struct err *e) WARN_UNUSED;
/* Oldest first. Must not call the store from visit. Stops when visit returns non-zero. */
int store_sandbox_each(struct store *s, int (*visit)(const struct store_sandbox *row, void *ctx),
    void *ctx, struct err *e) WARN_UNUSED;
/* Id and image of each, of a database that no server has open, without opening it as one does: how
 * the last stop was stays as it is. */
int store_peek_sandboxes(const char *path,
    int (*visit)(const struct store_sandbox *row, void *ctx), void *ctx, struct err *e) WARN_UNUSED;
/* The row and its files, clients and intents; runs have a function of their own. */
int store_sandbox_delete(struct store *s, int64_t num, struct err *e) WARN_UNUSED;

/* The result of one numbered change set, for repeats and barriers. slot 0..63 is overwritten in
 * turn. */
struct store_result {
    const char *client;
    unsigned slot;
    uint64_t seq;
    struct hash digest; /* zeros for a refused one */
    int refusal;        /* PROTO_OK = applied */
    const char *reason;
    uint64_t generation;
    uint32_t created, updated, moved, deleted;
    uint64_t used_ns;
};
/* In the order in which they were written. Must not call the store from visit. */
int store_result_each(struct store *s, int64_t num,
    int (*visit)(const struct store_result *row, void *ctx), void *ctx, struct err *e) WARN_UNUSED;
int store_result_put(
    struct store *s, int64_t num, const struct store_result *row, struct err *e) WARN_UNUSED;
int store_client_forget(
    struct store *s, int64_t num, const char *client, struct err *e) WARN_UNUSED;

/* The rows of a manifest into m. */
int store_files_load(struct store *s, int64_t num, struct manifest *m, struct err *e) WARN_UNUSED;

/* What one change set or one scan does to a manifest, in order. The same list is played on the
 * rows and then on the table in memory, so that the two cannot differ. */
enum store_edit_kind {
    STORE_PUT,    /* insert or replace `entry` */
    STORE_REMOVE, /* path and everything beneath it */
    STORE_MOVE,   /* path and everything beneath it, to `to`; what is there goes first */
};
struct store_edit {
    enum store_edit_kind kind;
    bool leaf; /* STORE_REMOVE: nothing lies beneath it */
    char *path, *to;
    struct manifest_entry entry; /* STORE_PUT; its path is `path` above; target malloc'd or NULL */
    const char *run; /* STORE_PUT by_run: which, borrowed; "" unknown, NULL as it was */
};
struct store_commit {
    int64_t num;
    const struct store_edit *edits;
    size_t edit_count;
    uint64_t generation, files, bytes, used_ns; /* of the sandbox, after */
    const struct store_result *result;          /* NULL = none */
    bool drop_intent;
};
/* One transaction; on failure nothing of it happened. -ENOSPC when the disk is full. */
int store_commit_edits(struct store *s, const struct store_commit *c, struct err *e) WARN_UNUSED;

/* The run that wrote a path last; "" if it is not known or no run did. */
int store_file_run(struct store *s, int64_t num, const char *path, char *ret, size_t size,
    struct err *e) WARN_UNUSED;

/* A change set under way (at most one per sandbox): enough to finish it after a crash. */
struct store_intent {
    int64_t num;
    const void *steps;
    size_t steps_len;
    const struct store_result *result; /* NULL = none */
};
int store_intent_put(struct store *s, const struct store_intent *in, struct err *e) WARN_UNUSED;
int store_intent_drop(struct store *s, int64_t num, struct err *e) WARN_UNUSED;
/* -ENOENT (no message) if there is none; the steps into *steps (initialised by the caller). The
 * result the set will have, if it was numbered, is written by store_intent_finish. */
int store_intent_get(struct store *s, int64_t num, struct buf *steps, struct err *e) WARN_UNUSED;
/* The steps of the intent are done: record its result as applied, drop it. */
int store_intent_finish(struct store *s, int64_t num, struct err *e) WARN_UNUSED;

#endif
