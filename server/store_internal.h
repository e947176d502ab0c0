/* SPDX-License-Identifier: MIT */
/*
 * What the files of the store share: the connection, its lock, and how a statement is bound and
 * run. Included by server/store*.c only. Statements are prepared at first use and kept.
 */
#ifndef SERVER_STORE_INTERNAL_H
#define SERVER_STORE_INTERNAL_H

#include <pthread.h>
#include <sqlite3.h>

#include "server/store.h"

enum store_stmt {
    STMT_BEGIN,
    STMT_COMMIT,
    STMT_ROLLBACK,
    STMT_META_GET,
    STMT_META_PUT,
    STMT_RUN_PUT,
    STMT_RUN_GET,
    STMT_RUN_LIST,
    STMT_RUN_LIST_SANDBOX,
    STMT_RUN_DELETE,
    STMT_RUN_DELETE_SANDBOX,
    STMT_SANDBOX_ADD,
    STMT_SANDBOX_SAVE,
    STMT_SANDBOX_EACH,
    STMT_SANDBOX_DELETE,
    STMT_SANDBOX_STEP,
    STMT_RESULT_EACH,
    STMT_RESULT_PUT,
    STMT_RESULT_FORGET,
    STMT_RESULT_DELETE,
    STMT_FILES_EACH,
    STMT_FILE_PUT,
    STMT_FILE_RUN,
    STMT_FILE_REMOVE,
    STMT_FILE_REMOVE_BENEATH,
    STMT_FILE_MOVE,
    STMT_FILE_MOVE_BENEATH,
    STMT_FILES_DELETE,
    STMT_INTENT_PUT,
    STMT_INTENT_GET,
    STMT_INTENT_FINISH,
    STMT_INTENT_DROP,
    STMT_COUNT
};

struct store {
    sqlite3 *db;
    pthread_mutex_t lock;
    sqlite3_stmt *stmt[STMT_COUNT];
    bool was_clean;
};

/* All of these want s->lock held. */

/* The statement, reset and bound: types is one letter per parameter: i = int64_t, t = const char *
 * (NULL = SQL NULL), b = const void *, size_t. Text and blobs must live until it was stepped. NULL
 * on failure, with *e filled. */
sqlite3_stmt *store_bind(
    struct store *s, enum store_stmt which, struct err *e, const char *types, ...);
/* Step a statement that returns no rows, and reset it. st == NULL passes the failure on. */
int store_do(struct store *s, sqlite3_stmt *st, struct err *e) WARN_UNUSED;
/* 1 with a row, 0 when there is no more (reset), <0 (reset). */
int store_row(struct store *s, sqlite3_stmt *st, struct err *e) WARN_UNUSED;
/* The connection's last failure as an error. */
int store_fail(struct store *s, struct err *e);
/* Called once when the log exists, after the first commit: blocks for what must be written on a
 * full disk. A file system that cannot do that is told of in the log. */
void store_reserve(struct store *s, const char *path);
/* BEGIN; then COMMIT if r == 0, else ROLLBACK; returns r or the failure of COMMIT. */
int store_begin(struct store *s, struct err *e) WARN_UNUSED;
int store_end(struct store *s, int r, struct err *e) WARN_UNUSED;
/* A column as text, never NULL; valid until the next step. */
const char *store_text(sqlite3_stmt *st, int column);

#endif
