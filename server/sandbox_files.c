/* SPDX-License-Identifier: MIT */
/* Reading a sandbox's files and its manifest. */
#include <errno.h>
#include <string.h>

#include "server/sandbox_internal.h"
#include "server/sandbox_views.h"
#include "shared/io.h"
#include "shared/path.h"

#include "shared/banned.h"

/* Farther names resemble nothing: one edit in each three letters of the name. Weights as in
 * path_distance. */
#define NEAR_EDIT 2048u
#define NEAR_LOOKED_AT 50000u
#define NEAR_IN_MESSAGE 3

void sandbox_file_release(struct sandbox_file *f)
{
    free(ptr_take(&f->target));
}

static int refuse_missing(struct sandbox *sb, const char *path, struct err *e)
{
    char *names[NEAR_IN_MESSAGE];
    char list[200] = "";
    size_t used = 0, count = sandbox_near_names(sb, path, names, NEAR_IN_MESSAGE);

    for (size_t i = 0; i < count; i++) {
        int n = snprintf(
            list + used, sizeof list - used, "%s'%s'", i ? ", " : ": did you mean ", names[i]);
        if (n > 0 && (size_t)n < sizeof list - used)
            used += (size_t)n;
        else
            list[used] = '\0';
        free(names[i]);
    }
    return err_refuse(
        e, PROTO_FILE_NOT_FOUND, "there is no file '%.200s' in this sandbox%s", path, list);
}

/* With the identity. -ENOENT and its like mean: no such file. */
static int open_file(
    struct workspace *ws, const char *path, int *ret_fd, struct sandbox_file *ret, struct err *e)
{
    CLEANUP(fd_closep) int fd = -1;
    struct tree_stat st, opened;
    struct manifest_entry row;
    int r = workspace_hash(ws, path, &ret->hash, &st, &ret->target, e);

    if (r < 0)
        return r;
    if (st.kind == TREE_OTHER)
        return -TREE_NOT_REGULAR;
    if (ret_fd && st.kind == TREE_FILE) {
        r = workspace_open_file(ws, path, &fd, &opened, e);
        /* What is read must be what was hashed, or be hashed itself. */
        if (r == 0 && (opened.ino != st.ino || opened.ctime_ns != st.ctime_ns ||
                          opened.mtime_ns != st.mtime_ns || opened.size != st.size)) {
            st = opened;
            if (!workspace_known(ws, path, &row) || !manifest_unchanged(&row, &st))
                r = hash_fd(fd, &ret->hash, NULL, e);
            else
                ret->hash = row.hash;
        }
        if (r < 0)
            return r;
        *ret_fd = fd_take(&fd);
    }
    ret->kind = st.kind;
    ret->size = st.kind == TREE_DIR ? 0 : st.size;
    ret->mode = st.mode;
    ret->mtime_ns = st.mtime_ns;
    return 0;
}

/* In the workspace, or what a view makes of it. */
static int file_open(struct sandbox *sb, struct view *v, const char *path, int *ret_fd,
    struct sandbox_file *ret, struct err *e)
{
    struct tree_identity previous;

    *ret = (struct sandbox_file){.kind = TREE_FILE};
    if (ret_fd)
        *ret_fd = -1;
    enum path_fault fault = path_check(path, strlen(path));
    if (fault != PATH_FINE)
        return err_refuse(e, PROTO_INVALID_PATH, "the path %s", path_fault_text(fault));
    int r = sandbox_enter(sb, true, e);
    if (r < 0)
        return r;
    r = tree_identity_enter(sb->identity, &previous, e);
    if (r == 0) {
        r = open_file(v ? &v->merged : sb->ws, path, ret_fd, ret, e);
        tree_identity_leave(previous);
    }
    if (r == -ENOENT || r == -ENOTDIR || r == -ELOOP || r == -TREE_NOT_REGULAR || r == -EXDEV)
        r = refuse_missing(sb, path, e);
    if (r < 0)
        sandbox_file_release(ret);
    sandbox_exit(sb);
    return r;
}

int sandbox_file_open(
    struct sandbox *sb, const char *path, int *ret_fd, struct sandbox_file *ret, struct err *e)
{
    return file_open(sb, NULL, path, ret_fd, ret, e);
}

int sandbox_view_file_open(struct sandbox *sb, struct view *v, const char *path, int *ret_fd,
    struct sandbox_file *ret, struct err *e)
{
    return file_open(sb, v, path, ret_fd, ret, e);
}

bool sandbox_view_has_file(struct sandbox *sb, struct view *v, const char *path)
{
    struct tree_identity previous;
    struct tree_stat st;
    bool has = false;

    if (path_check(path, strlen(path)) != PATH_FINE || sandbox_enter(sb, true, NULL) < 0)
        return false;
    if (tree_identity_enter(sb->identity, &previous, NULL) == 0) {
        has = workspace_stat(v ? &v->merged : sb->ws, path, &st, NULL) == 0 && st.kind == TREE_FILE;
        tree_identity_leave(previous);
    }
    sandbox_exit(sb);
    return has;
}

int sandbox_view_read_small(
    struct sandbox *sb, struct view *v, const char *path, size_t max, struct buf *ret)
{
    CLEANUP(fd_closep) int fd = -1;
    struct tree_identity previous;
    struct tree_stat st;

    if (path_check(path, strlen(path)) != PATH_FINE)
        return -EINVAL;
    int r = sandbox_enter(sb, true, NULL);
    if (r < 0)
        return r;
    r = tree_identity_enter(sb->identity, &previous, NULL);
    if (r == 0) {
        r = workspace_open_file(v ? &v->merged : sb->ws, path, &fd, &st, NULL);
        tree_identity_leave(previous);
    }
    sandbox_exit(sb);
    if (r == 0 && (st.kind != TREE_FILE || st.size > max))
        r = -EFBIG;
    if (r == 0)
        r = buf_reserve(ret, (size_t)st.size);
    if (r < 0)
        return r;
    /* It may grow or shrink meanwhile: what is read is what it was long. */
    ssize_t n = io_pread_full(fd, ret->data + ret->len, (size_t)st.size, 0);
    if (n < 0)
        return (int)n;
    ret->len += (size_t)n;
    return 0;
}

bool sandbox_has_file(struct sandbox *sb, const char *path)
{
    return sandbox_view_has_file(sb, NULL, path);
}

/* The first row after `after` in sorted order. */
static size_t first_after(const struct manifest_entry **rows, size_t count, const char *after)
{
    size_t low = 0, high = count;

    while (after && low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(rows[middle]->path, after) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static int visit_rows(struct workspace *ws, const char *prefix, const char *after, size_t limit,
    int (*visit)(const struct manifest_entry *entry, void *ctx), void *ctx)
{
    size_t count = 0, told = 0;
    CLEANUP(freep) const struct manifest_entry **rows = manifest_sorted(ws->manifest, &count);

    if (!rows)
        return -ENOMEM;
    /* A page within a folder begins no earlier than the folder itself. */
    if (prefix[0] && (!after || strcmp(after, prefix) < 0))
        after = NULL;
    for (size_t i = first_after(rows, count, after); i < count && told < limit; i++) {
        if (prefix[0] && !path_beneath(prefix, rows[i]->path))
            continue;
        told++;
        if (visit(rows[i], ctx) != 0)
            break;
    }
    return 0;
}

int sandbox_manifest(struct sandbox *sb, const char *prefix, const char *after, size_t limit,
    int (*visit)(const struct manifest_entry *entry, void *ctx), void *ctx,
    uint64_t *ret_generation, struct sandbox_digests *ret_digests, struct err *e)
{
    int r = sandbox_enter(sb, true, e);

    if (r < 0)
        return r;
    /* Generation and manifest change together under turn only. */
    (void)pthread_mutex_lock(&sb->turn);
    (void)pthread_mutex_lock(&sb->ws->lock);
    if (ret_generation)
        *ret_generation = sb->generation;
    if (ret_digests)
        r = manifest_digest(sb->ws->manifest, &ret_digests->all);
    if (ret_digests && r == 0)
        r = manifest_digest_synced(sb->ws->manifest, &ret_digests->synced);
    if (r == 0 && limit > 0)
        r = visit_rows(sb->ws, prefix, after, limit, visit, ctx);
    (void)pthread_mutex_unlock(&sb->ws->lock);
    (void)pthread_mutex_unlock(&sb->turn);
    sandbox_exit(sb);
    return r < 0 ? err_set(e, -r, "list the files") : 0;
}

struct near {
    char *path;
    unsigned distance;
};

/* Keep the best `max`, best first. */
static void keep_near(
    struct near *best, size_t *count, size_t max, const char *path, unsigned distance)
{
    size_t at = *count;

    while (at > 0 && best[at - 1].distance > distance)
        at--;
    if (at >= max)
        return;
    char *copy = strdup(path);
    if (!copy)
        return;
    if (*count == max)
        free(best[--*count].path);
    memmove(&best[at + 1], &best[at], (*count - at) * sizeof *best);
    best[at] = (struct near){.path = copy, .distance = distance};
    ++*count;
}

size_t sandbox_near_names(struct sandbox *sb, const char *path, char *ret[], size_t max)
{
    size_t count = 0, total = 0;
    unsigned farthest = NEAR_EDIT * (2 + (unsigned)strlen(path_base(path)) / 3) - 1;

    if (max == 0 || strlen(path) > PATH_BYTES_MAX || sandbox_enter(sb, true, NULL) < 0)
        return 0;
    struct near *best = calloc(max + 1, sizeof *best);
    (void)pthread_mutex_lock(&sb->ws->lock);
    CLEANUP(freep)
    const struct manifest_entry **rows = best ? manifest_sorted(sb->ws->manifest, &total) : NULL;
    for (size_t i = 0; rows && i < total && i < NEAR_LOOKED_AT; i++) {
        if (rows[i]->kind == TREE_DIR)
            continue;
        unsigned distance = path_distance(path, rows[i]->path);
        if (distance <= farthest)
            keep_near(best, &count, max, rows[i]->path, distance);
    }
    (void)pthread_mutex_unlock(&sb->ws->lock);
    for (size_t i = 0; i < count; i++)
        ret[i] = best[i].path;
    free(best);
    sandbox_exit(sb);
    return count;
}
