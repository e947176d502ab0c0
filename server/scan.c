/* SPDX-License-Identifier: MIT */
#include "server/scan.h"

#include <errno.h>
#include <string.h>

#include "shared/io.h"

#include "shared/banned.h"

#define PASSES_MAX 8 /* walks of directories whose rights had to be given back first */
#define BUDGET_FACTOR 2
/* Holes cost nothing to make and as much as data to read: without a bound of their own, a few calls
 * of ftruncate would keep the run's place for minutes. Hashed at some GB/s, this is well below a
 * second.
 */
#define HOLES_BYTES_MAX (UINT64_C(1) << 30)

struct look {
    struct workspace *ws;
    const struct scan_budget *budget;
    struct scan *scan;
    char **locked; /* directories that could not be read, to be tried again */
    size_t locked_count;
    int failed;
    uint64_t edition; /* of the manifest when the walk began */
    bool again;       /* a part was walked a second time */
};

static void find_release(struct scan_find *f)
{
    free(f->path);
    free(f->target);
}

void scan_release(struct scan *s)
{
    for (size_t i = 0; i < s->count; i++)
        find_release(&s->items[i]);
    free(s->items);
    free(s->seen);
    *s = (struct scan){.count = 0};
}

static struct scan_find *push_find(struct scan *s, const char *path)
{
    if (s->count == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 64;
        struct scan_find *more = realloc(s->items, cap * sizeof *more);
        if (!more)
            return NULL;
        s->items = more;
        s->cap = cap;
    }
    struct scan_find *f = &s->items[s->count];
    *f = (struct scan_find){.path = strdup(path)};
    if (!f->path)
        return NULL;
    s->count++;
    return f;
}

static int push_seen(struct scan *s, const char *path)
{
    if (s->seen_count == s->seen_cap) {
        size_t cap = s->seen_cap ? 2 * s->seen_cap : 256;
        uint64_t *more = realloc(s->seen, cap * sizeof *more);
        if (!more)
            return -ENOMEM;
        s->seen = more;
        s->seen_cap = cap;
    }
    s->seen[s->seen_count++] = hash_block64(path, strlen(path));
    return 0;
}

/* Does the manifest's row still describe this? Times of directories change with what they hold. */
static bool row_fits(const struct manifest_entry *row, const struct tree_stat *st)
{
    if (row->kind != st->kind || (row->mode & 0777) != (st->mode & 0777))
        return false;
    return st->kind == TREE_DIR || manifest_unchanged(row, st);
}

static uint64_t hole_bytes(const struct tree_stat *st)
{
    return st->size > st->blocks_bytes ? st->size - st->blocks_bytes : 0;
}

static bool affordable(const struct look *in, const struct tree_stat *st)
{
    uint64_t most = in->budget->hash_bytes, holes = hole_bytes(st);

    return st->size <= most && in->scan->bytes <= most - st->size && holes <= HOLES_BYTES_MAX &&
           in->scan->hole_bytes <= HOLES_BYTES_MAX - holes;
}

/* Hash what is new or changed, as far as the budget goes. */
static void hash_find(struct look *in, struct scan_find *f)
{
    struct tree_stat st = f->stat;

    if (st.kind == TREE_FILE && !affordable(in, &st)) {
        in->scan->incomplete = true;
        return;
    }
    f->seen_ns = (int64_t)io_wall_ns();
    if (workspace_hash(in->ws, f->path, &f->hash, &st, &f->target, NULL) < 0) {
        in->scan->incomplete = true;
        return;
    }
    f->stat = st;
    f->hashed = true;
    if (st.kind == TREE_FILE) {
        in->scan->bytes += st.size;
        in->scan->hole_bytes += hole_bytes(&st);
    }
}

static int remember_locked(struct look *in, const char *path)
{
    char **more = realloc(in->locked, (in->locked_count + 1) * sizeof *more);

    if (!more)
        return -ENOMEM;
    in->locked = more;
    more[in->locked_count] = strdup(path);
    if (!more[in->locked_count])
        return -ENOMEM;
    in->locked_count++;
    return 0;
}

static enum tree_visit stop(struct look *in, int code)
{
    in->failed = code;
    return TREE_VISIT_STOP;
}

static enum tree_visit visit(const struct tree_entry *entry, void *ctx)
{
    struct look *in = ctx;
    struct manifest_entry row;

    if (entry->path[0] == '\0')
        return TREE_VISIT_GO;
    if (++in->scan->visited > in->budget->entries) {
        in->scan->incomplete = true;
        return TREE_VISIT_STOP;
    }
    if (entry->fault == EACCES && entry->stat.kind == TREE_DIR) {
        if (remember_locked(in, entry->path) < 0)
            return stop(in, -ENOMEM);
    } else if (entry->fault) {
        in->scan->incomplete = true;
        return TREE_VISIT_SKIP;
    }
    if (entry->stat.kind == TREE_OTHER)
        return TREE_VISIT_SKIP;
    bool known = workspace_known(in->ws, entry->path, &row);
    if (known && push_seen(in->scan, entry->path) < 0)
        return stop(in, -ENOMEM);
    if (known && row_fits(&row, &entry->stat))
        return TREE_VISIT_GO;
    struct scan_find *f = push_find(in->scan, entry->path);
    if (!f)
        return stop(in, -ENOMEM);
    f->stat = entry->stat;
    hash_find(in, f);
    return TREE_VISIT_GO;
}

/* Give directories without rights for their owner those rights, and walk what lies beneath. */
static int walk_locked(struct look *in, struct err *e)
{
    char **dirs = in->locked;
    size_t count = in->locked_count;
    int r = 0;

    in->locked = NULL;
    in->locked_count = 0;
    in->again = true;
    for (size_t i = 0; i < count; i++) {
        if (r == 0 && in->failed == 0 && !in->scan->incomplete) {
            if (tree_chmod(in->ws->tree, dirs[i], 0700, NULL) < 0)
                in->scan->incomplete = true;
            else
                r = tree_walk(in->ws->tree, dirs[i], visit, in, e);
            r = r == -ENOENT ? 0 : r;
        }
        free(dirs[i]);
    }
    free(dirs);
    return r;
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

/* A walk meets each path once: as many known ones as there are rows, of a manifest that did not
 * change meanwhile, are all of them. Called with the lock. */
static bool met_all(const struct look *in)
{
    return !in->again && in->edition == in->ws->edition &&
           in->scan->seen_count == manifest_count(in->ws->manifest);
}

/* Known paths that the walk did not meet. A collision of hashes could hide one until the next scan;
 * it can never delete one, for each is looked at again. */
static int find_gone(const struct look *in)
{
    struct workspace *ws = in->ws;
    struct scan *s = in->scan;
    size_t count = 0;
    int r = 0;

    (void)pthread_mutex_lock(&ws->lock);
    if (met_all(in)) {
        (void)pthread_mutex_unlock(&ws->lock);
        return 0;
    }
    const struct manifest_entry **rows = manifest_sorted(ws->manifest, &count);
    if (s->seen_count)
        qsort(s->seen, s->seen_count, sizeof *s->seen, compare_u64);
    for (size_t i = 0; rows && r == 0 && i < count; i++) {
        uint64_t key = hash_block64(rows[i]->path, strlen(rows[i]->path));
        if (s->seen_count && bsearch(&key, s->seen, s->seen_count, sizeof key, compare_u64))
            continue;
        struct scan_find *f = push_find(s, rows[i]->path);
        if (f)
            f->gone = true;
        else
            r = -ENOMEM;
    }
    (void)pthread_mutex_unlock(&ws->lock);
    free(rows);
    return rows ? r : -ENOMEM;
}

int scan_look(
    struct workspace *ws, const struct scan_budget *budget, struct scan *ret, struct err *e)
{
    struct scan_budget doubled = {.entries = budget->entries, .hash_bytes = budget->hash_bytes};
    struct look in = {.ws = ws, .budget = &doubled, .scan = ret};

    if (doubled.entries < UINT64_MAX / BUDGET_FACTOR)
        doubled.entries *= BUDGET_FACTOR;
    *ret = (struct scan){.count = 0};
    workspace_unlock(ws);
    (void)pthread_mutex_lock(&ws->lock);
    in.edition = ws->edition;
    (void)pthread_mutex_unlock(&ws->lock);
    int r = tree_walk(ws->tree, "", visit, &in, e);
    for (int pass = 0; r == 0 && in.locked_count && pass < PASSES_MAX; pass++)
        r = walk_locked(&in, e);
    for (size_t i = 0; i < in.locked_count; i++)
        free(in.locked[i]);
    free(in.locked);
    if (r == 0 && in.failed == 0 && !ret->incomplete)
        in.failed = find_gone(&in);
    if (r == 0 && in.failed)
        r = err_set(e, -in.failed, "look through the workspace");
    return r;
}
