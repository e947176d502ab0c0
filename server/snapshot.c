/* SPDX-License-Identifier: MIT */
#include "server/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "shared/io.h"

#include "shared/banned.h"

#define NEW_NAME "new" /* in the overlay's root: a file until it is whole */
#define PIECE_BYTES (64 * 1024)
#define NS_PER_S INT64_C(1000000000)

/* ---- what differs */

struct wanted {
    struct manifest_entry row; /* path and target are ours */
    bool gone;
};

struct difference {
    const struct snapshot *s;
    struct wanted *items;
    size_t count, cap, met;
};

static void difference_release(struct difference *d)
{
    for (size_t i = 0; i < d->count; i++) {
        free(d->items[i].row.path);
        free(d->items[i].row.target);
    }
    free(d->items);
    *d = (struct difference){.count = 0};
}

static int want(struct difference *d, const struct manifest_entry *row, bool gone)
{
    if (d->count == d->cap) {
        size_t cap = d->cap ? 2 * d->cap : 64;
        struct wanted *more = realloc(d->items, cap * sizeof *more);
        if (!more)
            return -ENOMEM;
        d->items = more;
        d->cap = cap;
    }
    struct wanted *w = &d->items[d->count];
    *w = (struct wanted){.row = *row, .gone = gone};
    w->row.path = strdup(row->path);
    w->row.target = row->target ? strdup(row->target) : NULL;
    d->count++;
    return w->row.path && (w->row.target || !row->target) ? 0 : -ENOMEM;
}

static bool same_row(const struct manifest_entry *a, const struct manifest_entry *b)
{
    if (a->kind != b->kind)
        return false;
    if (a->kind == TREE_SYMLINK)
        return hash_equal(&a->hash, &b->hash);
    if ((a->mode & 0777) != (b->mode & 0777))
        return false;
    return a->kind == TREE_DIR ||
           (a->size == b->size && a->mtime_ns == b->mtime_ns && hash_equal(&a->hash, &b->hash));
}

static int compare_row(const struct manifest_entry *row, void *ctx)
{
    struct difference *d = ctx;
    const struct manifest_entry *have = manifest_get(d->s->manifest, row->path);

    d->met += have != NULL;
    return have && same_row(have, row) ? 0 : want(d, row, false);
}

static int find_gone(const struct manifest_entry *row, void *ctx)
{
    struct difference *d = ctx;

    return manifest_get(d->s->ws->manifest, row->path) ? 0 : want(d, row, true);
}

/* What goes first, from the bottom up; then what comes, from the top down. */
static int compare_wanted(const void *a, const void *b)
{
    const struct wanted *x = a, *y = b;

    if (x->gone != y->gone)
        return x->gone ? -1 : 1;
    int order = strcmp(x->row.path, y->row.path);
    return x->gone ? -order : order;
}

static int find_difference(struct snapshot *s, struct difference *d, struct err *e)
{
    struct workspace *ws = s->ws;
    int r = 0;

    *d = (struct difference){.s = s};
    (void)pthread_mutex_lock(&ws->lock);
    s->edition = ws->edition;
    r = manifest_each(ws->manifest, compare_row, d);
    if (r == 0 && d->met < manifest_count(s->manifest))
        r = manifest_each(s->manifest, find_gone, d);
    (void)pthread_mutex_unlock(&ws->lock);
    if (r < 0)
        return err_set(e, -r, "compare a snapshot");
    if (d->count)
        qsort(d->items, d->count, sizeof *d->items, compare_wanted);
    return 0;
}

bool snapshot_current(const struct snapshot *s)
{
    (void)pthread_mutex_lock(&s->ws->lock);
    bool current = s->edition == s->ws->edition;
    (void)pthread_mutex_unlock(&s->ws->lock);
    return current;
}

/* ---- copying */

static int copy_bytes(int from, int to, off_t at, off_t end)
{
    char piece[PIECE_BYTES];

    while (at < end) {
        size_t len = end - at < PIECE_BYTES ? (size_t)(end - at) : PIECE_BYTES;
        ssize_t n = io_pread_full(from, piece, len, (uint64_t)at);
        int r = n > 0 ? io_pwrite_all(to, piece, (size_t)n, (uint64_t)at) : (int)n;
        if (r < 0 || n == 0)
            return r;
        at += n;
    }
    return 0;
}

/* From `at` to `end`, in the kernel where it can. A file that became shorter ends sooner. */
static int copy_range(int from, int to, off_t at, off_t end)
{
    while (at < end) {
        off_t in = at, out = at;
        ssize_t n = copy_file_range(from, &in, to, &out, (size_t)(end - at), 0);
        if (n < 0 && (errno == ENOSPC || errno == EDQUOT || errno == EIO))
            return -errno;
        if (n < 0)
            return copy_bytes(from, to, at, end);
        if (n == 0)
            return 0;
        at += n;
    }
    return 0;
}

/* Holes stay holes. */
static int copy_content(int from, int to, off_t size)
{
    if (size == 0 || ioctl(to, FICLONE, from) == 0)
        return 0;
    for (off_t at = 0; at < size;) {
        off_t data = lseek(from, at, SEEK_DATA);
        if (data < 0 && errno == ENXIO)
            break;
        if (data < 0)
            data = at;
        off_t end = lseek(from, data, SEEK_HOLE);
        if (end < 0 || end > size)
            end = size;
        int r = copy_range(from, to, data, end);
        if (r < 0)
            return r;
        at = end;
    }
    return ftruncate(to, size) < 0 ? -errno : 0;
}

/* The hash of what was copied: the row's, if the file was what the row says before and after. */
static int settle(
    struct manifest_entry *row, const struct tree_stat *before, int from, int to, struct err *e)
{
    struct stat st, copied;
    struct tree_stat after;

    if (fstat(from, &st) < 0 || fstat(to, &copied) < 0)
        return err_set(e, errno, "copy '%s'", row->path);
    tree_stat_of(&st, &after);
    bool same = manifest_unchanged(row, before) && manifest_unchanged(row, &after);
    row->size = (uint64_t)copied.st_size;
    row->mode = before->mode & 0777;
    row->mtime_ns = before->mtime_ns;
    return same ? 0 : hash_fd(to, &row->hash, NULL, e);
}

static int copy_to(struct snapshot *s, struct manifest_entry *row, int from,
    const struct tree_stat *st, struct err *e)
{
    CLEANUP(fd_closep)
    int to = openat(s->fd, NEW_NAME, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    const struct timespec times[2] = {{.tv_nsec = UTIME_NOW},
        {.tv_sec = st->mtime_ns / NS_PER_S, .tv_nsec = st->mtime_ns % NS_PER_S}};
    int r = to < 0 ? -errno : copy_content(from, to, (off_t)st->size);

    if (r == -ENOSPC || r == -EDQUOT)
        return err_refuse(e, PROTO_NO_SPACE,
            "there is no room for a snapshot of the workspace: delete something first, or run with "
            "'view': 'live'");
    if (r < 0)
        return err_set(e, -r, "copy '%s'", row->path);
    r = settle(row, st, from, to, e);
    if (r == 0 &&
        (fchmod(to, row->mode | 0400) < 0 || (times[1].tv_nsec >= 0 && futimens(to, times) < 0)))
        r = err_set(e, errno, "copy '%s'", row->path);
    return r;
}

/* Does the workspace not have it, or not as what the manifest says? A program was quicker, and no
 * generation has that yet. */
static bool is_elsewhere(int r)
{
    return r == -ENOENT || r == -ENOTDIR || r == -ELOOP || r == -EISDIR || r == -TREE_NOT_REGULAR ||
           r == -EXDEV;
}

static int remove_old(struct snapshot *s, const char *path, struct err *e)
{
    const struct manifest_entry *have = manifest_get(s->manifest, path);

    if (!have)
        return 0;
    int r = have->kind == TREE_DIR ? tree_remove(s->tree, path, e) : tree_unlink(s->tree, path, e);
    (void)manifest_remove_tree(s->manifest, path);
    return r;
}

/* 1: it is not there. */
static int put_file(struct snapshot *s, struct manifest_entry *row, struct err *e)
{
    CLEANUP(fd_closep) int from = -1;
    struct tree_stat st;
    int r = workspace_open_file(s->ws, row->path, &from, &st, e);

    if (is_elsewhere(r))
        return remove_old(s, row->path, e) < 0 ? r : 1;
    if (r == 0)
        r = copy_to(s, row, from, &st, e);
    if (r == 0)
        r = remove_old(s, row->path, e);
    return r < 0 ? r : tree_place_new(s->tree, s->fd, NEW_NAME, row->path, e);
}

static int put_dir(struct snapshot *s, const struct manifest_entry *row, struct err *e)
{
    const struct manifest_entry *have = manifest_get(s->manifest, row->path);

    if (have && have->kind == TREE_DIR)
        return tree_chmod(s->tree, row->path, row->mode, e);
    int r = remove_old(s, row->path, e);
    return r < 0 ? r : tree_mkdir(s->tree, row->path, row->mode, e);
}

static int put_link(struct snapshot *s, const struct manifest_entry *row, struct err *e)
{
    int r = remove_old(s, row->path, e);

    return r < 0 ? r : tree_symlink(s->tree, row->target ? row->target : "", row->path, e);
}

static int put_entry(struct snapshot *s, struct manifest_entry *row, struct err *e)
{
    return row->kind == TREE_FILE  ? put_file(s, row, e)
           : row->kind == TREE_DIR ? put_dir(s, row, e)
                                   : put_link(s, row, e);
}

static int put(struct snapshot *s, struct manifest_entry *row, struct err *e)
{
    int r = put_entry(s, row, e);

    /* A directory that the manifest does not have as a row of its own. */
    if (r == -ENOENT && (r = tree_make_parents(s->tree, row->path, e)) == 0)
        r = put_entry(s, row, e);
    if (r == 0 && manifest_put(s->manifest, row) < 0)
        r = err_set(e, ENOMEM, "make a snapshot");
    return r > 0 ? 0 : r;
}

static int carry_out(struct snapshot *s, struct difference *d, uint64_t max_bytes, struct err *e)
{
    struct tree_identity previous;
    int r = tree_identity_enter(s->ws->identity, &previous, e);

    if (r < 0)
        return r;
    for (size_t i = 0; r == 0 && i < d->count; i++) {
        struct wanted *w = &d->items[i];
        r = w->gone ? remove_old(s, w->row.path, e) : put(s, &w->row, e);
        if (r == 0 && manifest_bytes(s->manifest) > max_bytes)
            r = err_refuse(e, PROTO_NO_SPACE,
                "the sandbox has no room for a snapshot of its workspace beside it: delete "
                "something first, or run with 'view': 'live'");
    }
    tree_identity_leave(previous);
    return r;
}

int snapshot_follow(struct snapshot *s, uint64_t max_bytes, size_t *ret_count, struct err *e)
{
    struct difference d;
    int r = find_difference(s, &d, e);

    *ret_count = d.count;
    if (r == 0)
        r = carry_out(s, &d, max_bytes, e);
    difference_release(&d);
    return r;
}

/* ---- one and another */

static int make_folders(struct snapshot *s, struct err *e)
{
    struct tree_identity who = s->ws->identity;
    char path[64];

    if (mkdirat(s->parent_fd, s->name, 0711) < 0)
        return err_set(e, errno, "make a snapshot");
    s->fd = openat(s->parent_fd, s->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (s->fd < 0 || mkdirat(s->fd, SNAPSHOT_FOLDER, 0700) < 0 ||
        fchownat(s->fd, SNAPSHOT_FOLDER, who.uid, who.gid, 0) < 0 ||
        fchown(s->fd, who.uid, who.gid) < 0)
        return err_set(e, errno, "make a snapshot");
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d/" SNAPSHOT_FOLDER, s->fd);
    return tree_open(path, &s->tree, e);
}

static int link_row(struct snapshot *s, const struct snapshot *from,
    const struct manifest_entry *row, struct err *e)
{
    int r = tree_make_parents(s->tree, row->path, e);

    if (r == 0)
        r = row->kind == TREE_DIR    ? tree_mkdir(s->tree, row->path, row->mode, e)
            : row->kind == TREE_FILE ? tree_link(from->tree, s->tree, row->path, e)
                                     : put_link(s, row, e);
    if (r == 0 && manifest_put(s->manifest, row) < 0)
        r = err_set(e, ENOMEM, "make a snapshot");
    return r;
}

static int link_all(struct snapshot *s, const struct snapshot *from, struct err *e)
{
    struct tree_identity previous;
    size_t count = 0;
    CLEANUP(freep)
    const struct manifest_entry **rows = manifest_sorted(from->manifest, &count);
    int r = rows ? tree_identity_enter(s->ws->identity, &previous, e)
                 : err_set(e, ENOMEM, "make a snapshot");

    if (r < 0)
        return r;
    for (size_t i = 0; r == 0 && i < count; i++)
        r = link_row(s, from, rows[i], e);
    tree_identity_leave(previous);
    return r;
}

int snapshot_new(struct workspace *ws, int parent_fd, const char *name, const struct snapshot *from,
    struct snapshot **ret, struct err *e)
{
    struct snapshot *s = calloc(1, sizeof *s);

    if (!s)
        return err_set(e, ENOMEM, "make a snapshot");
    *s = (struct snapshot){.ws = ws, .parent_fd = parent_fd, .fd = -1, .manifest = manifest_new()};
    (void)snprintf(s->name, sizeof s->name, "%s", name);
    int r = s->manifest ? make_folders(s, e) : err_set(e, ENOMEM, "make a snapshot");
    if (r == 0 && from)
        r = link_all(s, from, e);
    if (r < 0) {
        snapshot_free(s, true);
        return r;
    }
    *ret = s;
    return 0;
}

void snapshot_free(struct snapshot *s, bool remove)
{
    if (!s)
        return;
    if (remove)
        (void)!tree_remove_at(s->parent_fd, s->name, NULL);
    tree_free(s->tree);
    fd_closep(&s->fd);
    manifest_free(s->manifest);
    free(s);
}
