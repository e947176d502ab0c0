/* SPDX-License-Identifier: MIT */
/* Manifests' rows, and the transactions that change them together with everything that depends. */
#include <errno.h>

#include "server/store_internal.h"
#include "shared/path.h"

#include "shared/banned.h"

/* A column as malloc'd NUL-terminated bytes; NULL for SQL NULL, and when out of memory. */
static char *column_dup(sqlite3_stmt *st, int column)
{
    const void *data = sqlite3_column_blob(st, column);
    size_t len = (size_t)sqlite3_column_bytes(st, column);
    char *copy;

    if (sqlite3_column_type(st, column) == SQLITE_NULL || !(copy = malloc(len + 1)))
        return NULL;
    if (len)
        memcpy(copy, data, len);
    copy[len] = '\0';
    return copy;
}

static int load_row(sqlite3_stmt *st, struct manifest *m)
{
    CLEANUP(freep) char *path = column_dup(st, 0);
    CLEANUP(freep) char *target = column_dup(st, 5);
    struct manifest_entry entry = {
        .path = path,
        .kind = (enum tree_kind)sqlite3_column_int(st, 1),
        .mode = (uint32_t)sqlite3_column_int(st, 2),
        .size = (uint64_t)sqlite3_column_int64(st, 3),
        .target = target,
        .mtime_ns = sqlite3_column_int64(st, 6),
        .ctime_ns = sqlite3_column_int64(st, 7),
        .ino = (uint64_t)sqlite3_column_int64(st, 8),
        .seen_ns = sqlite3_column_int64(st, 9),
        .by_run = sqlite3_column_int(st, 10) != 0,
    };

    if (!path)
        return -ENOMEM;
    if (sqlite3_column_bytes(st, 4) == HASH_BYTES)
        memcpy(entry.hash.b, sqlite3_column_blob(st, 4), HASH_BYTES);
    return manifest_put(m, &entry);
}

int store_files_load(struct store *s, int64_t num, struct manifest *m, struct err *e)
{
    int r;

    (void)pthread_mutex_lock(&s->lock);
    sqlite3_stmt *st = store_bind(s, STMT_FILES_EACH, e, "i", num);
    while ((r = store_row(s, st, e)) > 0) {
        int failed = load_row(st, m);
        if (failed < 0) {
            (void)sqlite3_reset(st);
            r = err_set(e, -failed, "load a manifest");
            break;
        }
    }
    (void)pthread_mutex_unlock(&s->lock);
    return r;
}

static int put_file(struct store *s, int64_t num, const struct store_edit *d, struct err *e)
{
    const struct manifest_entry *f = &d->entry;
    sqlite3_stmt *st = store_bind(s, STMT_FILE_PUT, e, "ibiiib", num, d->path, strlen(d->path),
        (int64_t)f->kind, (int64_t)f->mode, (int64_t)f->size, f->hash.b, (size_t)HASH_BYTES);

    if (!st)
        return -EIO;
    if (f->target)
        (void)sqlite3_bind_blob64(st, 7, f->target, strlen(f->target), SQLITE_STATIC);
    (void)sqlite3_bind_int64(st, 8, f->mtime_ns);
    (void)sqlite3_bind_int64(st, 9, f->ctime_ns);
    (void)sqlite3_bind_int64(st, 10, (int64_t)f->ino);
    (void)sqlite3_bind_int64(st, 11, f->seen_ns);
    (void)sqlite3_bind_int64(st, 12, f->by_run);
    if (d->run)
        (void)sqlite3_bind_text(st, 13, d->run, -1, SQLITE_STATIC);
    return store_do(s, st, e);
}

int store_file_run(
    struct store *s, int64_t num, const char *path, char *ret, size_t size, struct err *e)
{
    ret[0] = '\0';
    (void)pthread_mutex_lock(&s->lock);
    sqlite3_stmt *st = store_bind(s, STMT_FILE_RUN, e, "ib", num, path, strlen(path));
    int r = store_row(s, st, e);

    if (r > 0) {
        const unsigned char *run = sqlite3_column_text(st, 0);
        (void)snprintf(ret, size, "%s", run ? (const char *)run : "");
        (void)sqlite3_reset(st);
    }
    (void)pthread_mutex_unlock(&s->lock);
    return r < 0 ? r : 0;
}

/* Everything beneath "dir" lies between "dir/" and "dir0", '0' being the byte after '/'. */
struct range {
    char low[PATH_BYTES_MAX + 64], high[PATH_BYTES_MAX + 64];
    size_t len;
};

static void range_of(const char *dir, struct range *ret)
{
    int n = snprintf(ret->low, sizeof ret->low, "%s/", dir);

    ret->len = (size_t)n < sizeof ret->low ? (size_t)n : sizeof ret->low - 1;
    memcpy(ret->high, ret->low, ret->len);
    ret->high[ret->len - 1] = '/' + 1;
}

static int remove_files(struct store *s, int64_t num, const char *path, bool leaf, struct err *e)
{
    struct range in;
    int r = store_do(s, store_bind(s, STMT_FILE_REMOVE, e, "ib", num, path, strlen(path)), e);

    if (r < 0 || leaf)
        return r;
    range_of(path, &in);
    return store_do(s,
        store_bind(s, STMT_FILE_REMOVE_BENEATH, e, "ibb", num, in.low, in.len, in.high, in.len), e);
}

static int move_files(struct store *s, int64_t num, const struct store_edit *d, struct err *e)
{
    struct range from, to;
    int r = remove_files(s, num, d->to, false, e);

    if (r < 0)
        return r;
    range_of(d->path, &from);
    range_of(d->to, &to);
    r = store_do(s,
        store_bind(
            s, STMT_FILE_MOVE, e, "ibb", num, d->path, strlen(d->path), d->to, strlen(d->to)),
        e);
    if (r < 0)
        return r;
    return store_do(s,
        store_bind(s, STMT_FILE_MOVE_BENEATH, e, "ibbbi", num, from.low, from.len, from.high,
            from.len, to.low, to.len, (int64_t)from.len + 1),
        e);
}

static int play(struct store *s, int64_t num, const struct store_edit *d, struct err *e)
{
    if (d->kind == STORE_PUT)
        return put_file(s, num, d, e);
    if (d->kind == STORE_REMOVE)
        return remove_files(s, num, d->path, d->leaf, e);
    return move_files(s, num, d, e);
}

static int put_result(struct store *s, int64_t num, const struct store_result *r, struct err *e)
{
    return store_do(s,
        store_bind(s, STMT_RESULT_PUT, e, "itiibitiiiiii", num, r->client, (int64_t)r->slot,
            (int64_t)r->seq, r->digest.b, (size_t)HASH_BYTES, (int64_t)r->refusal, r->reason,
            (int64_t)r->generation, (int64_t)r->created, (int64_t)r->updated, (int64_t)r->moved,
            (int64_t)r->deleted, (int64_t)r->used_ns),
        e);
}

static int commit_inside(struct store *s, const struct store_commit *c, struct err *e)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < c->edit_count; i++)
        r = play(s, c->num, &c->edits[i], e);
    if (r == 0)
        r = store_do(s,
            store_bind(s, STMT_SANDBOX_STEP, e, "iiiii", c->num, (int64_t)c->generation,
                (int64_t)c->files, (int64_t)c->bytes, (int64_t)c->used_ns),
            e);
    if (r == 0 && c->result)
        r = put_result(s, c->num, c->result, e);
    if (r == 0 && c->drop_intent)
        r = store_do(s, store_bind(s, STMT_INTENT_DROP, e, "i", c->num), e);
    return r;
}

int store_commit_edits(struct store *s, const struct store_commit *c, struct err *e)
{
    (void)pthread_mutex_lock(&s->lock);
    int r = store_begin(s, e);
    if (r == 0)
        r = store_end(s, commit_inside(s, c, e), e);
    (void)pthread_mutex_unlock(&s->lock);
    return r;
}

int store_result_put(struct store *s, int64_t num, const struct store_result *row, struct err *e)
{
    (void)pthread_mutex_lock(&s->lock);
    int r = put_result(s, num, row, e);
    (void)pthread_mutex_unlock(&s->lock);
    return r;
}

int store_intent_put(struct store *s, const struct store_intent *in, struct err *e)
{
    static const struct store_result none = {.client = ""};
    const struct store_result *r = in->result ? in->result : &none;

    (void)pthread_mutex_lock(&s->lock);
    int failed = store_do(s,
        store_bind(s, STMT_INTENT_PUT, e, "ibtiibiiiiii", in->num, in->steps, in->steps_len,
            r->client, (int64_t)r->slot, (int64_t)r->seq, r->digest.b, (size_t)HASH_BYTES,
            (int64_t)r->generation, (int64_t)r->created, (int64_t)r->updated, (int64_t)r->moved,
            (int64_t)r->deleted, (int64_t)r->used_ns),
        e);
    (void)pthread_mutex_unlock(&s->lock);
    return failed;
}

int store_intent_drop(struct store *s, int64_t num, struct err *e)
{
    (void)pthread_mutex_lock(&s->lock);
    int r = store_do(s, store_bind(s, STMT_INTENT_DROP, e, "i", num), e);
    (void)pthread_mutex_unlock(&s->lock);
    return r;
}

int store_intent_get(struct store *s, int64_t num, struct buf *steps, struct err *e)
{
    (void)pthread_mutex_lock(&s->lock);
    sqlite3_stmt *st = store_bind(s, STMT_INTENT_GET, e, "i", num);
    int r = store_row(s, st, e);

    if (r > 0) {
        r = buf_add(steps, sqlite3_column_blob(st, 0), (size_t)sqlite3_column_bytes(st, 0));
        if (r < 0)
            (void)err_set(e, -r, "read the intent of a change set");
        (void)sqlite3_reset(st);
    } else if (r == 0) {
        r = -ENOENT;
    }
    (void)pthread_mutex_unlock(&s->lock);
    return r;
}

int store_intent_finish(struct store *s, int64_t num, struct err *e)
{
    (void)pthread_mutex_lock(&s->lock);
    int r = store_begin(s, e);
    if (r == 0) {
        r = store_do(s, store_bind(s, STMT_INTENT_FINISH, e, "i", num), e);
        if (r == 0)
            r = store_do(s, store_bind(s, STMT_INTENT_DROP, e, "i", num), e);
        r = store_end(s, r, e);
    }
    (void)pthread_mutex_unlock(&s->lock);
    return r;
}
