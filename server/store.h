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
int store_run_put(struct store *s, const struct store_run *run, struct err *e) WARN_UNUSED; /* insert or replace */
/* -ENOENT (no message) if unknown. Appends the JSON. */
int store_run_get(struct store *s, const char *id, struct buf *json, struct err *e) WARN_UNUSED;
/* Newest first. sandbox, status, before_id may be NULL (no filter). Stops when visit returns non-zero. */
int store_run_list(struct store *s, const char *sandbox, const char *status, const char *before_id, unsigned limit,
    int (*visit)(const struct store_run *run, void *ctx), void *ctx, struct err *e) WARN_UNUSED;
int store_run_delete(struct store *s, const char *id, struct err *e) WARN_UNUSED;
int store_run_delete_of_sandbox(struct store *s, const char *sandbox, struct err *e) WARN_UNUSED;

/* ---- sandboxes, manifests, clients, intents: see below, used by sandbox.c and workspace.c only */

#endif
