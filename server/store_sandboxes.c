/* SPDX-License-Identifier: MIT */
#include <errno.h>

#include "server/store_internal.h"

#include "shared/banned.h"

#define ROW_TYPES "ttttttttiiiiiitttii"

/* Bind the columns common to INSERT and UPDATE, and the number for the latter. */
static sqlite3_stmt *bind_row(
    struct store *s, enum store_stmt which, const struct store_sandbox *r, struct err *e)
{
    return store_bind(s, which, e, which == STMT_SANDBOX_SAVE ? ROW_TYPES "i" : ROW_TYPES, r->id,
        r->language, r->name, r->image, r->env_json, r->limits_json, r->network_json,
        r->labels_json, (int64_t)r->idle_ttl_s, (int64_t)r->created_ns, (int64_t)r->used_ns,
        (int64_t)r->generation, (int64_t)r->files, (int64_t)r->bytes, r->epoch, r->writer_link,
        r->writer_machine, (int64_t)r->uid, (int64_t)r->deleting, r->num);
}

int store_sandbox_add(
    struct store *s, const struct store_sandbox *row, int64_t *ret_num, struct err *e)
{
    (void)pthread_mutex_lock(&s->lock);
    int r = store_do(s, bind_row(s, STMT_SANDBOX_ADD, row, e), e);
    if (r == 0)
        *ret_num = sqlite3_last_insert_rowid(s->db);
    (void)pthread_mutex_unlock(&s->lock);
    return r;
}

int store_sandbox_save(struct store *s, const struct store_sandbox *row, struct err *e)
{
    (void)pthread_mutex_lock(&s->lock);
    int r = store_do(s, bind_row(s, STMT_SANDBOX_SAVE, row, e), e);
    (void)pthread_mutex_unlock(&s->lock);
    return r;
}

static struct store_sandbox read_row(sqlite3_stmt *st)
{
    return (struct store_sandbox){
        .num = sqlite3_column_int64(st, 0),
        .id = store_text(st, 1),
        .language = store_text(st, 2),
        .name = store_text(st, 3),
        .image = store_text(st, 4),
        .env_json = store_text(st, 5),
        .limits_json = store_text(st, 6),
        .network_json = store_text(st, 7),
        .labels_json = store_text(st, 8),
        .idle_ttl_s = (uint64_t)sqlite3_column_int64(st, 9),
        .created_ns = (uint64_t)sqlite3_column_int64(st, 10),
        .used_ns = (uint64_t)sqlite3_column_int64(st, 11),
        .generation = (uint64_t)sqlite3_column_int64(st, 12),
        .files = (uint64_t)sqlite3_column_int64(st, 13),
        .bytes = (uint64_t)sqlite3_column_int64(st, 14),
        .epoch = store_text(st, 15),
        .writer_link = store_text(st, 16),
        .writer_machine = store_text(st, 17),
        .uid = (uint32_t)sqlite3_column_int64(st, 18),
        .deleting = sqlite3_column_int(st, 19) != 0,
    };
}

int store_sandbox_each(struct store *s, int (*visit)(const struct store_sandbox *row, void *ctx),
    void *ctx, struct err *e)
{
    int r;

    (void)pthread_mutex_lock(&s->lock);
    sqlite3_stmt *st = store_bind(s, STMT_SANDBOX_EACH, e, "");
    while ((r = store_row(s, st, e)) > 0) {
        struct store_sandbox row = read_row(st);
        if (visit(&row, ctx) != 0) {
            (void)sqlite3_reset(st);
            r = 0;
            break;
        }
    }
    (void)pthread_mutex_unlock(&s->lock);
    return r;
}

int store_sandbox_delete(struct store *s, int64_t num, struct err *e)
{
    static const enum store_stmt all[] = {
        STMT_FILES_DELETE, STMT_RESULT_DELETE, STMT_INTENT_DROP, STMT_SANDBOX_DELETE};

    (void)pthread_mutex_lock(&s->lock);
    int r = store_begin(s, e);
    if (r == 0) {
        for (size_t i = 0; r == 0 && i < sizeof all / sizeof all[0]; i++)
            r = store_do(s, store_bind(s, all[i], e, "i", num), e);
        r = store_end(s, r, e);
    }
    (void)pthread_mutex_unlock(&s->lock);
    return r;
}

static struct store_result read_result(sqlite3_stmt *st)
{
    struct store_result row = {
        .client = store_text(st, 0),
        .slot = (unsigned)sqlite3_column_int(st, 1),
        .seq = (uint64_t)sqlite3_column_int64(st, 2),
        .refusal = sqlite3_column_int(st, 4),
        .reason = store_text(st, 5),
        .generation = (uint64_t)sqlite3_column_int64(st, 6),
        .created = (uint32_t)sqlite3_column_int64(st, 7),
        .updated = (uint32_t)sqlite3_column_int64(st, 8),
        .moved = (uint32_t)sqlite3_column_int64(st, 9),
        .deleted = (uint32_t)sqlite3_column_int64(st, 10),
        .used_ns = (uint64_t)sqlite3_column_int64(st, 11),
    };

    if (sqlite3_column_bytes(st, 3) == HASH_BYTES)
        memcpy(row.digest.b, sqlite3_column_blob(st, 3), HASH_BYTES);
    return row;
}

int store_result_each(struct store *s, int64_t num,
    int (*visit)(const struct store_result *row, void *ctx), void *ctx, struct err *e)
{
    int r;

    (void)pthread_mutex_lock(&s->lock);
    sqlite3_stmt *st = store_bind(s, STMT_RESULT_EACH, e, "i", num);
    while ((r = store_row(s, st, e)) > 0) {
        struct store_result row = read_result(st);
        if (visit(&row, ctx) != 0) {
            (void)sqlite3_reset(st);
            r = 0;
            break;
        }
    }
    (void)pthread_mutex_unlock(&s->lock);
    return r;
}

int store_client_forget(struct store *s, int64_t num, const char *client, struct err *e)
{
    (void)pthread_mutex_lock(&s->lock);
    int r = store_do(s, store_bind(s, STMT_RESULT_FORGET, e, "it", num, client), e);
    (void)pthread_mutex_unlock(&s->lock);
    return r;
}
