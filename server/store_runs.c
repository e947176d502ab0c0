/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "server/store_internal.h"

#include "shared/banned.h"

int store_run_put(struct store *s, const struct store_run *run, struct err *e)
{
    (void)pthread_mutex_lock(&s->lock);
    int r = store_do(s,
        store_bind(s, STMT_RUN_PUT, e, "tttit", run->id, run->sandbox, run->status,
            (int64_t)run->created_ns, run->json),
        e);
    (void)pthread_mutex_unlock(&s->lock);
    return r;
}

int store_run_get(struct store *s, const char *id, struct buf *json, struct err *e)
{
    (void)pthread_mutex_lock(&s->lock);
    sqlite3_stmt *st = store_bind(s, STMT_RUN_GET, e, "t", id);
    int r = store_row(s, st, e);

    if (r > 0) {
        r = buf_adds(json, store_text(st, 0));
        (void)sqlite3_reset(st);
        if (r < 0)
            (void)err_set(e, -r, "read the record of run %s", id);
    } else if (r == 0) {
        r = -ENOENT;
    }
    (void)pthread_mutex_unlock(&s->lock);
    return r;
}

int store_run_list(struct store *s, const char *sandbox, const char *status, const char *before_id,
    unsigned limit, int (*visit)(const struct store_run *run, void *ctx), void *ctx, struct err *e)
{
    /* Ids are ASCII, so this sorts after each of them. */
    const char *before = before_id ? before_id : "\x7f";
    int r;

    (void)pthread_mutex_lock(&s->lock);
    sqlite3_stmt *st = sandbox
                           ? store_bind(s, STMT_RUN_LIST_SANDBOX, e, "ttit", before, status,
                                 (int64_t)limit, sandbox)
                           : store_bind(s, STMT_RUN_LIST, e, "tti", before, status, (int64_t)limit);
    while ((r = store_row(s, st, e)) > 0) {
        struct store_run run = {
            .id = store_text(st, 0),
            .sandbox = store_text(st, 1),
            .status = store_text(st, 2),
            .created_ns = (uint64_t)sqlite3_column_int64(st, 3),
            .json = store_text(st, 4),
        };
        if (visit(&run, ctx) != 0) {
            (void)sqlite3_reset(st);
            r = 0;
            break;
        }
    }
    (void)pthread_mutex_unlock(&s->lock);
    return r;
}

static int delete_where(struct store *s, enum store_stmt which, const char *key, struct err *e)
{
    (void)pthread_mutex_lock(&s->lock);
    int r = store_do(s, store_bind(s, which, e, "t", key), e);
    if (r == 0 && sqlite3_changes(s->db) == 0)
        r = -ENOENT;
    (void)pthread_mutex_unlock(&s->lock);
    return r;
}

int store_run_delete(struct store *s, const char *id, struct err *e)
{
    return delete_where(s, STMT_RUN_DELETE, id, e);
}

int store_run_delete_of_sandbox(struct store *s, const char *sandbox, struct err *e)
{
    int r = delete_where(s, STMT_RUN_DELETE_SANDBOX, sandbox, e);

    return r == -ENOENT ? 0 : r;
}
