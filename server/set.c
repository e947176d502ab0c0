/* SPDX-License-Identifier: MIT */
#include "server/set.h"

#include <errno.h>
#include <string.h>

#include "server/stage_tree.h"
#include "shared/path.h"

#include "shared/banned.h"

#define CHUNK_BYTES (16 * 1024)

struct set_chunk {
    struct set_chunk *next;
    size_t used, size;
    char data[];
};

void set_init(struct set *s, struct stage *stage, int (*basis)(void *ctx, struct err *e), void *ctx)
{
    *s = (struct set){.stage = stage, .basis = basis, .ctx = ctx};
}

void set_release(struct set *s)
{
    plan_free(s->draft);
    for (size_t i = 0; i < s->count; i++)
        staged_free(s->ops[i].staged);
    free(s->ops);
    while (s->chunks) {
        struct set_chunk *next = s->chunks->next;
        free(s->chunks);
        s->chunks = next;
    }
    *s = (struct set){.count = 0};
}

/* Aligned memory that lives as long as the set. */
static void *keep(struct set *s, const void *data, size_t len, struct err *e)
{
    size_t need = (len + 1 + 15) & ~(size_t)15;

    s->text_bytes += need;
    if (s->text_bytes > SET_TEXT_MAX) {
        (void)err_refuse(e, PROTO_TOO_LARGE,
            "the paths and edits of this change set are too long together: split it");
        return NULL;
    }
    if (!s->chunks || s->chunks->size - s->chunks->used < need) {
        size_t size = need > CHUNK_BYTES ? need : CHUNK_BYTES;
        struct set_chunk *chunk = malloc(sizeof *chunk + size);
        if (!chunk) {
            (void)err_set(e, ENOMEM, "read a change set");
            return NULL;
        }
        chunk->next = s->chunks;
        chunk->used = 0;
        chunk->size = size;
        s->chunks = chunk;
    }
    char *copy = s->chunks->data + s->chunks->used;
    s->chunks->used += need;
    if (len)
        memcpy(copy, data, len);
    copy[len] = '\0';
    return copy;
}

static int keep_texts(struct set *s, const struct change_op *op, struct plan_op *ret, struct err *e)
{
    ret->path = keep(s, op->path, strlen(op->path), e);
    if (ret->path && op->to)
        ret->to = keep(s, op->to, strlen(op->to), e);
    if (!ret->path || (op->to && !ret->to))
        return -EPROTO;
    if (op->kind != CHANGE_EDIT)
        return 0;
    struct stage_text text = {.path = ret->path, .old_len = op->old_len, .new_len = op->new_len};
    text.old_text = keep(s, op->old_text, op->old_len, e);
    text.new_text = text.old_text ? keep(s, op->new_text, op->new_len, e) : NULL;
    ret->text = text.new_text ? keep(s, &text, sizeof text, e) : NULL;
    return ret->text ? 0 : -EPROTO;
}

/* Paths were checked where they entered; a feed that did not is a danger we do not take. */
static int check_op(const struct change_op *op, struct err *e)
{
    bool to_path = op->kind == CHANGE_MOVE || op->kind == CHANGE_COPY;
    enum path_fault fault = op->path ? path_check(op->path, strlen(op->path)) : PATH_EMPTY;
    const char *bad = op->path;

    if (fault == PATH_FINE && to_path) {
        fault = op->to ? path_check(op->to, strlen(op->to)) : PATH_EMPTY;
        bad = op->to;
    }
    if (fault != PATH_FINE)
        return err_refuse(
            e, PROTO_INVALID_PATH, "the path '%.200s' %s", bad ? bad : "", path_fault_text(fault));
    if (op->kind == CHANGE_SYMLINK && (!op->to || !op->to[0] || strlen(op->to) > PATH_BYTES_MAX))
        return err_refuse(e, PROTO_INVALID_VALUE,
            "the target of the symlink '%.200s' is empty or too long", op->path);
    return 0;
}

static struct plan_op *push(struct set *s, const struct change_op *op, struct err *e)
{
    if (s->count >= CHANGES_OPS_MAX) {
        (void)err_refuse(e, PROTO_TOO_LARGE, "the change set has more than %d operations: split it",
            CHANGES_OPS_MAX);
        return NULL;
    }
    if (s->count == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 4;
        struct plan_op *more = realloc(s->ops, cap * sizeof *more);
        if (!more) {
            (void)err_set(e, ENOMEM, "read a change set");
            return NULL;
        }
        s->ops = more;
        s->cap = cap;
    }
    struct plan_op *ret = &s->ops[s->count];
    *ret = (struct plan_op){.kind = op->kind,
        .base_kind = op->base_kind,
        .mode = op->mode,
        .recursive = op->recursive,
        .keep = op->keep,
        .has_hash = op->has_hash,
        .base = op->base,
        .hash = op->hash};
    if (keep_texts(s, op, ret, e) < 0)
        return NULL;
    s->count++;
    return ret;
}

/* Bring the draft up to operation `count`. */
static int draft_upto(struct set *s, size_t count, struct err *e)
{
    int r = 0;

    if (!s->draft) {
        r = s->basis(s->ctx, e);
        if (r == 0)
            r = plan_new(s->stage, &s->draft, e);
    }
    for (; r == 0 && s->drafted < count; s->drafted++)
        r = plan_add(s->draft, &s->ops[s->drafted], e);
    return r;
}

static int read_upload(
    struct set *s, const struct change_op *op, struct staged **ret, struct err *e)
{
    if (!s->upload)
        return err_refuse(e, PROTO_INVALID_VALUE, "'%.200s' cannot name a stage here", op->path);
    return s->upload(s->ctx, op, ret, e);
}

/* Without the right basis nothing is staged; the plan will list it as a conflict. */
static int read_patch(struct set *s, const struct change_op *op, size_t at,
    const struct changes_feed *feed, struct err *e)
{
    CLEANUP(fd_closep) int fd = -1;
    struct hash hash;
    int r = draft_upto(s, at, e);

    if (r == 0)
        r = plan_open(s->draft, op->path, &fd, &hash, e);
    if (r == -ENOENT)
        return 0;
    if (r < 0 || (op->base_kind == CHANGE_BASE_HASH && !hash_equal(&hash, &op->base)))
        return r;
    return stage_patch(s->stage, op, fd, feed, &s->ops[at].staged, e);
}

static int read_content(struct set *s, const struct change_op *op, size_t at,
    const struct changes_feed *feed, struct err *e)
{
    switch (op->kind) {
    case CHANGE_PUT:
        if (op->stage)
            return read_upload(s, op, &s->ops[at].staged, e);
        return stage_put(s->stage, op, feed, &s->ops[at].staged, e);
    case CHANGE_SYMLINK:
        return stage_symlink(s->stage, op->to, &s->ops[at].staged, e);
    case CHANGE_PATCH:
        return read_patch(s, op, at, feed, e);
    case CHANGE_EDIT:
    case CHANGE_COPY:
        return draft_upto(s, at + 1, e);
    case CHANGE_MKDIR:
        return stage_tree_mkdir(s->stage, op->path, op->mode, e);
    case CHANGE_MOVE:
    case CHANGE_CHMOD:
    case CHANGE_DELETE:
    case CHANGE_KIND_END:
    default:
        return 0;
    }
}

int set_read(struct set *s, const struct changes_feed *feed, struct err *e)
{
    struct change_op op = {.kind = CHANGE_KIND_END};
    int r;

    while ((r = feed->next(feed->ctx, &op, e)) > 0) {
        r = check_op(&op, e);
        if (r < 0)
            return r;
        if (!push(s, &op, e))
            return e && e->code ? -e->code : -ENOMEM;
        r = read_content(s, &op, s->count - 1, feed, e);
        if (r < 0)
            return r;
    }
    return r;
}
