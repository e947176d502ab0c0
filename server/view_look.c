/* SPDX-License-Identifier: MIT */
/* What a run's upper layer says: compared with the snapshot beneath it, at the cost of the changes.
 */
#include <errno.h>
#include <string.h>
#include <sys/xattr.h>

#include "server/view.h"

#include "shared/path.h"

#include "shared/banned.h"

#define PASSES_MAX 8 /* walks of directories whose rights had to be given back first */
#define HOLES_BYTES_MAX (UINT64_C(1) << 30) /* hashed for nothing: as in scan.c */

struct look {
    struct view *v;
    const struct scan_budget *budget;
    uint64_t visited, bytes, hole_bytes;
    const struct manifest_entry **rows; /* of the snapshot, sorted; NULL: not needed yet */
    size_t row_count;
    bool locked; /* a directory was given its rights back: walk again */
    int failed;
};

static const struct manifest_entry *row_of(const struct look *in, const char *path)
{
    return manifest_get(in->v->snapshot->manifest, path);
}

static struct view_change *push(struct look *in, const char *path, const struct manifest_entry *row)
{
    struct view *v = in->v;
    if (v->count == v->cap) {
        size_t cap = v->cap ? 2 * v->cap : 64;
        struct view_change *more = realloc(v->changes, cap * sizeof *more);
        if (!more)
            return NULL;
        v->changes = more;
        v->cap = cap;
    }
    struct view_change *c = &v->changes[v->count];
    *c = (struct view_change){.path = strdup(path), .had = row != NULL};
    if (!c->path)
        return NULL;
    if (row) {
        c->base_kind = row->kind;
        c->base = row->hash;
        c->base_size = row->size;
        c->base_mtime_ns = row->mtime_ns;
    }
    v->count++;
    return c;
}

static enum tree_visit stop(struct look *in, int code)
{
    in->failed = code;
    return TREE_VISIT_STOP;
}

/* ---- what is gone */

/* The first row that is not before `path`. */
static size_t first_row(const struct look *in, const char *path)
{
    size_t low = 0, high = in->row_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(in->rows[middle]->path, path) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* What the snapshot has beneath `path` and the upper layer, where it covers that, has not. */
static int push_beneath(struct look *in, const char *path)
{
    CLEANUP(freep) char *prefix = path_join(path, "");
    struct tree_stat st;
    if (!prefix)
        return -ENOMEM;
    if (!in->rows)
        in->rows = manifest_sorted(in->v->snapshot->manifest, &in->row_count);
    if (!in->rows)
        return -ENOMEM;
    size_t len = strlen(prefix);
    for (size_t i = first_row(in, prefix);
         i < in->row_count && strncmp(in->rows[i]->path, prefix, len) == 0; i++) {
        if (tree_stat(in->v->upper, in->rows[i]->path, &st, NULL) == 0)
            continue;
        if (!push(in, in->rows[i]->path, in->rows[i]))
            return -ENOMEM;
    }
    return 0;
}

static enum tree_visit note_gone(struct look *in, const char *path)
{
    const struct manifest_entry *row = row_of(in, path);
    if (!row)
        return TREE_VISIT_SKIP;
    if (!push(in, path, row) || (row->kind == TREE_DIR && push_beneath(in, path) < 0))
        return stop(in, -ENOMEM);
    return TREE_VISIT_SKIP;
}

/* ---- what is there */

static bool affordable(const struct look *in, const struct tree_stat *st)
{
    uint64_t most = in->budget->hash_bytes,
             holes = st->size > st->blocks_bytes ? st->size - st->blocks_bytes : 0;
    return st->size <= most && in->bytes <= most - st->size && holes <= HOLES_BYTES_MAX &&
           in->hole_bytes <= HOLES_BYTES_MAX - holes;
}

static int open_file(struct look *in, const char *path, const struct tree_stat *st, int *ret_fd)
{
    struct tree *upper = in->v->upper;
    int r = tree_open_file(upper, path, ret_fd, NULL, NULL);
    if (r == -EACCES && tree_chmod(upper, path, st->mode | 0400, NULL) == 0)
        r = tree_open_file(upper, path, ret_fd, NULL, NULL);
    return r;
}

/* false: it cannot be known. */
static bool hash_file(
    struct look *in, const char *path, const struct tree_stat *st, struct hash *ret)
{
    CLEANUP(fd_closep) int fd = -1;
    if (!affordable(in, st) || open_file(in, path, st, &fd) < 0 || hash_fd(fd, ret, NULL, NULL) < 0)
        return false;
    in->bytes += st->size;
    in->hole_bytes += st->size > st->blocks_bytes ? st->size - st->blocks_bytes : 0;
    return true;
}

static bool hash_link(struct look *in, const char *path, struct hash *ret, char **ret_target)
{
    CLEANUP(buf_release) struct buf target;
    buf_init(&target, PATH_BYTES_MAX);
    if (tree_readlink(in->v->upper, path, &target, NULL) < 0)
        return false;
    hash_buf(buf_str(&target), target.len, ret);
    *ret_target = strdup(buf_str(&target));
    return *ret_target != NULL;
}

/* A file or symlink, which hides whatever the snapshot has there. */
static enum tree_visit note_leaf(struct look *in, const struct tree_entry *entry)
{
    const struct manifest_entry *row = row_of(in, entry->path);
    const struct tree_stat *st = &entry->stat;
    CLEANUP(freep) char *target = NULL;
    struct hash hash;
    bool known = st->kind == TREE_SYMLINK ? hash_link(in, entry->path, &hash, &target)
                                          : hash_file(in, entry->path, st, &hash);
    if (!known) {
        in->v->incomplete = true;
        return TREE_VISIT_SKIP;
    }
    bool same = row && row->kind == st->kind && hash_equal(&row->hash, &hash);
    if (same && (st->kind == TREE_SYMLINK || ((row->mode ^ st->mode) & 0777) == 0))
        return TREE_VISIT_SKIP; /* touched, or written with what it had */
    struct view_change *c = push(in, entry->path, row);
    if (!c)
        return stop(in, -ENOMEM);
    c->have = true;
    c->same_content = same;
    c->kind = st->kind;
    c->mode = st->mode & 0777;
    c->size = st->size;
    c->mtime_ns = st->mtime_ns;
    c->hash = hash;
    c->target = ptr_take(&target);
    if (row && row->kind == TREE_DIR && push_beneath(in, entry->path) < 0)
        return stop(in, -ENOMEM);
    return TREE_VISIT_SKIP;
}

/* Does the folder hide all that the snapshot has in it? */
static bool is_opaque(const struct look *in, const char *path)
{
    static const char *const names[] = {"trusted.overlay.opaque", "user.overlay.opaque"};
    CLEANUP(fd_closep) int fd = -1;
    char value = 0;
    if (tree_open_dir(in->v->upper, path, &fd, NULL) < 0)
        return false;
    return fgetxattr(fd, names[geteuid() != 0], &value, 1) == 1 && value == 'y';
}

static enum tree_visit note_dir(struct look *in, const struct tree_entry *entry)
{
    const struct manifest_entry *row = row_of(in, entry->path);
    bool same = row && row->kind == TREE_DIR;
    bool mode = same && ((row->mode ^ entry->stat.mode) & 0777) != 0;
    if (!same || mode) {
        struct view_change *c = push(in, entry->path, row);
        if (!c)
            return stop(in, -ENOMEM);
        c->have = true;
        c->same_content = same;
        c->kind = TREE_DIR;
        c->mode = entry->stat.mode & 0777;
    }
    if (same && is_opaque(in, entry->path) && push_beneath(in, entry->path) < 0)
        return stop(in, -ENOMEM);
    return TREE_VISIT_GO;
}

/* Its owner must be able to read it, and to take out what is in it. */
static bool unlock(struct look *in, const struct tree_entry *entry)
{
    if ((entry->stat.mode & 0700) == 0700)
        return true;
    return tree_chmod(in->v->upper, entry->path, entry->stat.mode | 0700, NULL) == 0;
}

static enum tree_visit visit(const struct tree_entry *entry, void *ctx)
{
    struct look *in = ctx;
    if (entry->path[0] == '\0')
        return TREE_VISIT_GO;
    if (++in->visited > in->budget->entries) {
        in->v->incomplete = true;
        return TREE_VISIT_STOP;
    }
    if (entry->stat.kind == TREE_DIR && !unlock(in, entry))
        in->v->incomplete = true;
    if (entry->fault == EACCES && entry->stat.kind == TREE_DIR) {
        in->locked = true; /* it is not any more: walk again */
        return TREE_VISIT_STOP;
    }
    if (entry->fault) {
        in->v->incomplete = true;
        return TREE_VISIT_SKIP;
    }
    /* Of no tree; but what the snapshot has there is hidden by it, as by a whiteout. */
    if (entry->stat.kind == TREE_OTHER)
        return note_gone(in, entry->path);
    return entry->stat.kind == TREE_DIR ? note_dir(in, entry) : note_leaf(in, entry);
}

static int compare_paths(const void *a, const void *b)
{
    const struct view_change *x = a, *y = b;
    return strcmp(x->path, y->path);
}

static void change_release(struct view_change *c)
{
    free(c->path);
    free(c->target);
}

/* Sorted; where one path was met twice (a folder that is opaque in one that is), it is gone once.
 */
static void sort(struct view *v)
{
    size_t kept = 0;
    if (v->count)
        qsort(v->changes, v->count, sizeof *v->changes, compare_paths);
    for (size_t i = 0; i < v->count; i++) {
        if (kept && strcmp(v->changes[kept - 1].path, v->changes[i].path) == 0) {
            bool better = v->changes[i].have;
            change_release(&v->changes[better ? kept - 1 : i]);
            if (better)
                v->changes[kept - 1] = v->changes[i];
        } else {
            v->changes[kept++] = v->changes[i];
        }
    }
    v->count = kept;
}

static int walk(struct look *in, struct err *e)
{
    struct view *v = in->v;
    int r = 0;
    for (int pass = 0; pass == 0 || in->locked; pass++) {
        for (size_t i = 0; i < v->count; i++)
            change_release(&v->changes[i]);
        v->count = 0;
        v->incomplete = false;
        in->visited = in->bytes = in->hole_bytes = 0;
        in->locked = false;
        r = tree_walk(v->upper, "", visit, in, e);
        if (r < 0 || in->failed || v->incomplete)
            break;
        if (in->locked && pass >= PASSES_MAX) {
            v->incomplete = true;
            break;
        }
    }
    if (r == 0 && in->failed)
        r = err_set(e, -in->failed, "look at what a run wrote");
    return r;
}

int view_look(struct view *v, const struct scan_budget *budget, struct err *e)
{
    struct look in = {.v = v, .budget = budget};
    struct tree_identity previous;
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d/" SNAPSHOT_FOLDER, v->upper_fd);
    int r = tree_open(path, &v->upper, e);
    if (r == -ENOENT) /* nothing was written */
        return 0;
    if (r == 0)
        r = tree_identity_enter(v->ws->identity, &previous, e);
    if (r < 0)
        return r;
    r = tree_chmod_root(v->upper, 0700, e);
    if (r == 0)
        r = walk(&in, e);
    tree_identity_leave(previous);
    free(in.rows);
    sort(v);
    return r;
}
