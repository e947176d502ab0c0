/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include "server/scan.h"

#include "shared/io.h"

#include "shared/banned.h"

void scan_result_release(struct scan_result *r)
{
    apply_edits_release(&r->edits);
    for (size_t i = 0; i < r->count; i++)
        free(r->files[i].path);
    free(r->files);
    *r = (struct scan_result){.count = 0};
}

struct confirm {
    struct workspace *ws;
    struct scan_result *ret;
    size_t max;
    struct err *e;
};

static struct store_edit *push_edit(struct confirm *in, enum store_edit_kind kind, char **path)
{
    struct store_edit *d = &in->ret->edits.items[in->ret->edits.count++];

    *d = (struct store_edit){.kind = kind, .path = ptr_take(path)};
    return d;
}

static int list_file(struct confirm *in, const char *path, enum sandbox_change_kind change,
    const struct manifest_entry *row)
{
    if (row->kind == TREE_DIR)
        return 0;
    in->ret->total++;
    if (in->ret->count >= in->max)
        return 0;
    struct sandbox_changed_file *file = &in->ret->files[in->ret->count];
    *file = (struct sandbox_changed_file){.path = strdup(path),
        .change = change,
        .kind = row->kind,
        .size = change == SANDBOX_DELETED ? 0 : row->size,
        .hash = row->hash};
    if (!file->path)
        return err_set(in->e, ENOMEM, "list what changed");
    in->ret->count++;
    return 0;
}

static int confirm_gone(
    struct confirm *in, struct scan_find *f, const struct manifest_entry *row, bool known)
{
    if (!known)
        return 0;
    in->ret->changed = true;
    int r = list_file(in, f->path, SANDBOX_DELETED, row);
    struct store_edit *d = push_edit(in, STORE_REMOVE, &f->path);
    d->leaf = row->kind != TREE_DIR;
    return r;
}

/* Content as of the look if nothing happened since, else read again. false: it cannot be known. */
static bool refresh(struct confirm *in, struct scan_find *f, const struct tree_stat *now)
{
    bool same = f->hashed && f->stat.ino == now->ino && f->stat.size == now->size &&
                f->stat.mtime_ns == now->mtime_ns && f->stat.ctime_ns == now->ctime_ns &&
                f->stat.kind == now->kind;

    /* Within one tick of the clock a second write leaves the stamps as they are. */
    struct manifest_entry stamped = {.kind = now->kind,
        .size = now->size,
        .mtime_ns = now->mtime_ns,
        .ctime_ns = now->ctime_ns,
        .ino = now->ino,
        .seen_ns = f->seen_ns};
    if (same && (now->kind != TREE_FILE || manifest_unchanged(&stamped, now))) {
        f->stat = *now;
        return true;
    }
    free(ptr_take(&f->target));
    f->seen_ns = (int64_t)io_wall_ns();
    f->hashed = workspace_hash(in->ws, f->path, &f->hash, &f->stat, &f->target, NULL) == 0;
    return f->hashed;
}

static int adopt(
    struct confirm *in, struct scan_find *f, const struct manifest_entry *row, bool known)
{
    const struct tree_stat *st = &f->stat;
    struct manifest_entry fresh = {.kind = st->kind,
        .mode = st->mode,
        .size = st->kind == TREE_DIR ? 0 : st->size,
        .hash = f->hash,
        .mtime_ns = st->mtime_ns,
        .ctime_ns = st->ctime_ns,
        .ino = st->ino,
        .seen_ns = f->seen_ns};
    bool same = known && row->kind == fresh.kind && hash_equal(&row->hash, &fresh.hash) &&
                row->size == fresh.size && (row->mode & 0777) == (fresh.mode & 0777);
    int r = 0;

    fresh.by_run = !same || row->by_run;
    if (!same) {
        bool modified = known && row->kind != TREE_DIR;
        in->ret->changed = true;
        r = list_file(in, f->path, modified ? SANDBOX_MODIFIED : SANDBOX_CREATED, &fresh);
    }
    if (known && row->kind == TREE_DIR && fresh.kind != TREE_DIR) {
        char *path = strdup(f->path);
        if (!path)
            return err_set(in->e, ENOMEM, "note what changed");
        (void)push_edit(in, STORE_REMOVE, &path);
    }
    struct store_edit *d = push_edit(in, STORE_PUT, &f->path);
    d->entry = fresh;
    d->run = same ? NULL : "";
    d->entry.path = d->path;
    d->entry.target = ptr_take(&f->target);
    return r;
}

static int confirm(struct confirm *in, struct scan *s, struct scan_find *f)
{
    struct manifest_entry row = {.kind = TREE_FILE};
    struct tree_stat now;
    bool known = workspace_known(in->ws, f->path, &row);
    int r = workspace_stat(in->ws, f->path, &now, NULL);

    if (r == -ENOENT || r == -ENOTDIR || r == -ELOOP || (r == 0 && now.kind == TREE_OTHER))
        return confirm_gone(in, f, &row, known);
    if (r < 0) {
        s->incomplete = true;
        return 0;
    }
    if (f->gone && known)
        return 0; /* it is back; if it differs the next look will tell */
    /* A change set may have replaced it since the look, and knows what it put there. */
    if (known && now.kind == row.kind && (now.mode & 0777) == (row.mode & 0777) &&
        (now.kind == TREE_DIR || manifest_unchanged(&row, &now)))
        return 0;
    /* What the look could not afford is not read now either. */
    if (!f->hashed || !refresh(in, f, &now)) {
        s->incomplete = true;
        return 0;
    }
    return adopt(in, f, &row, known);
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const struct sandbox_changed_file *)a)->path,
        ((const struct sandbox_changed_file *)b)->path);
}

static int find_by_path(const void *a, const void *b)
{
    return strcmp(((const struct scan_find *)a)->path, ((const struct scan_find *)b)->path);
}

int scan_confirm(
    struct workspace *ws, struct scan *s, size_t max, struct scan_result *ret, struct err *e)
{
    struct confirm in = {.ws = ws, .ret = ret, .max = max, .e = e};

    *ret = (struct scan_result){.count = 0};
    if (s->count == 0)
        return 0;
    ret->edits.items = malloc(2 * s->count * sizeof *ret->edits.items);
    ret->files = malloc((s->count < max ? s->count : max) * sizeof *ret->files + 1);
    if (!ret->edits.items || !ret->files)
        return err_set(e, ENOMEM, "note what changed");
    qsort(s->items, s->count, sizeof *s->items, find_by_path);
    for (size_t i = 0; i < s->count; i++) {
        int r = confirm(&in, s, &s->items[i]);
        if (r < 0)
            return r;
    }
    if (ret->count > 1)
        qsort(ret->files, ret->count, sizeof *ret->files, by_path);
    return 0;
}
