/* SPDX-License-Identifier: MIT */
#include "shared/manifest.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

/* Out of memory leaves an element out of the table (its hh.tbl is NULL) instead of ending us. */
#define HASH_NONFATAL_OOM 1
#include <uthash.h>
#include <utlist.h>

#include "shared/io.h"
#include "shared/path.h"

#include "shared/banned.h"

/*
 * Three tables: entries by path; the directories that have something beneath them, whether or not
 * they are entries themselves, each with what lies directly in it; and contents, each with the
 * files that have it. A directory or content exists as long as it lists anything.
 */
struct dir {
    char *path;
    struct dir *up; /* NULL for the root, "" */
    struct node *entries;
    struct dir *subdirs;
    struct dir *prev, *next; /* in up->subdirs */
    UT_hash_handle hh;
};

struct content {
    struct hash hash;
    struct node *files;
    UT_hash_handle hh;
};

struct node {
    struct manifest_entry entry;
    struct dir *dir;
    struct node *prev, *next; /* in dir->entries */
    struct content *content;  /* files only */
    struct node *same_prev, *same_next;
    UT_hash_handle hh;
};

struct manifest {
    uint64_t seed; /* secret: names are foreign, see hash_seeded64 */
    uint64_t bytes;
    size_t count, files;
    struct node *nodes;
    struct dir *dirs;
    struct content *contents;
};

static unsigned key_hash(const struct manifest *m, const void *key, size_t len)
{
    return (unsigned)hash_seeded64(key, len, m->seed);
}

static struct node *find_node(const struct manifest *m, const char *path)
{
    struct node *n;
    size_t len = strlen(path);
    HASH_FIND_BYHASHVALUE(hh, m->nodes, path, len, key_hash(m, path, len), n);
    return n;
}

static struct dir *find_dir(const struct manifest *m, const char *path, size_t len)
{
    struct dir *d;
    HASH_FIND_BYHASHVALUE(hh, m->dirs, path, len, key_hash(m, path, len), d);
    return d;
}

static struct content *find_content(const struct manifest *m, const struct hash *hash)
{
    struct content *c;
    HASH_FIND_BYHASHVALUE(
        hh, m->contents, hash, sizeof(*hash), key_hash(m, hash, sizeof(*hash)), c);
    return c;
}

/* ---- directories */

static void dir_free(struct manifest *m, struct dir *d)
{
    HASH_DELETE(hh, m->dirs, d);
    if (d->up)
        DL_DELETE(d->up->subdirs, d);
    free(d->path);
    free(d);
}

/* Drop d and its ancestors as far as nothing lies beneath them. */
static void dir_prune(struct manifest *m, struct dir *d)
{
    while (d && !d->entries && !d->subdirs) {
        struct dir *up = d->up;
        dir_free(m, d);
        d = up;
    }
}

static struct dir *dir_new(struct manifest *m, const char *path, size_t len, struct dir *up)
{
    struct dir *d = calloc(1, sizeof(*d));
    if (!d)
        return NULL;
    d->path = strndup(path, len);
    if (d->path)
        HASH_ADD_KEYPTR_BYHASHVALUE(hh, m->dirs, d->path, len, key_hash(m, path, len), d);
    if (!d->path || !d->hh.tbl) {
        free(d->path);
        free(d);
        return NULL;
    }
    d->up = up;
    if (up)
        DL_APPEND(up->subdirs, d);
    return d;
}

/* The directory of the first len bytes of path, made with its ancestors where it is new. */
static struct dir *dir_ensure(struct manifest *m, const char *path, size_t len)
{
    struct dir *d = find_dir(m, path, len);
    if (d)
        return d;
    /* From the nearest known ancestor down; the root is made first if there is none. */
    size_t known = len;
    while (!d && known > 0) {
        const char *slash = memrchr(path, '/', known);
        known = slash ? (size_t)(slash - path) : 0;
        d = find_dir(m, path, known);
    }
    if (!d && !(d = dir_new(m, "", 0, NULL)))
        return NULL;
    while (known < len) {
        const char *slash = memchr(path + known + 1, '/', len - known - 1);
        known = slash ? (size_t)(slash - path) : len;
        struct dir *sub = dir_new(m, path, known, d);
        if (!sub) {
            dir_prune(m, d);
            return NULL;
        }
        d = sub;
    }
    return d;
}

/* ---- contents */

static struct content *content_ensure(struct manifest *m, const struct hash *hash)
{
    struct content *c = find_content(m, hash);
    if (c)
        return c;
    c = calloc(1, sizeof(*c));
    if (!c)
        return NULL;
    c->hash = *hash;
    unsigned value = key_hash(m, hash, sizeof(*hash));
    HASH_ADD_KEYPTR_BYHASHVALUE(hh, m->contents, &c->hash, sizeof(c->hash), value, c);
    if (!c->hh.tbl) {
        free(c);
        return NULL;
    }
    return c;
}

static void content_prune(struct manifest *m, struct content *c)
{
    if (!c || c->files)
        return;
    HASH_DELETE(hh, m->contents, c);
    free(c);
}

/* Let the node's content be c (NULL: none), and the sum of bytes with it. */
static void node_set_content(struct manifest *m, struct node *n, struct content *c)
{
    struct content *old = n->content;
    if (old) {
        DL_DELETE2(old->files, n, same_prev, same_next);
        m->bytes -= n->entry.size;
        m->files--;
    }
    n->content = c;
    if (c)
        DL_APPEND2(c->files, n, same_prev, same_next);
    content_prune(m, old);
}

/* ---- nodes */

static void node_free(struct node *n)
{
    if (!n)
        return;
    free(n->entry.path);
    free(n->entry.target);
    free(n);
}

static struct node *node_new(const char *path)
{
    struct node *n = calloc(1, sizeof(*n));
    if (!n)
        return NULL;
    n->entry.path = strdup(path);
    if (!n->entry.path) {
        free(n);
        return NULL;
    }
    return n;
}

/* Everything of *entry but its path into the node. -ENOMEM leaves node and table as they were. */
static int node_fill(struct manifest *m, struct node *n, const struct manifest_entry *entry)
{
    char *target = NULL;
    struct content *content = NULL;
    if (entry->target && !(target = strdup(entry->target)))
        return -ENOMEM;
    if (entry->kind == TREE_FILE && !(content = content_ensure(m, &entry->hash))) {
        free(target);
        return -ENOMEM;
    }
    node_set_content(m, n, content);
    char *path = n->entry.path, *old_target = n->entry.target;
    n->entry = *entry;
    n->entry.path = path;
    n->entry.target = target;
    if (content) {
        m->bytes += entry->size;
        m->files++;
    }
    free(old_target);
    return 0;
}

/* Put the node into the table of paths and its directory. -ENOMEM leaves the table as it was. */
static int node_link(struct manifest *m, struct node *n)
{
    const char *path = n->entry.path;
    size_t len = strlen(path);
    struct dir *dir = dir_ensure(m, path, path_parent_len(path));
    if (!dir)
        return -ENOMEM;
    HASH_ADD_KEYPTR_BYHASHVALUE(hh, m->nodes, path, len, key_hash(m, path, len), n);
    if (!n->hh.tbl) {
        dir_prune(m, dir);
        return -ENOMEM;
    }
    n->dir = dir;
    DL_APPEND(dir->entries, n);
    m->count++;
    return 0;
}

static void node_unlink(struct manifest *m, struct node *n)
{
    HASH_DELETE(hh, m->nodes, n);
    DL_DELETE(n->dir->entries, n);
    dir_prune(m, n->dir);
    n->dir = NULL;
    m->count--;
}

static void node_remove(struct manifest *m, struct node *n)
{
    node_set_content(m, n, NULL);
    node_unlink(m, n);
    node_free(n);
}

/* Any node beneath the directory, deepest first; NULL if there is none. */
static struct node *any_beneath(const struct manifest *m, const char *dir)
{
    struct dir *d = find_dir(m, dir, strlen(dir));
    while (d && d->subdirs)
        d = d->subdirs;
    return d ? d->entries : NULL;
}

/* ---- the table */

struct manifest *manifest_new(void)
{
    struct manifest *m = calloc(1, sizeof(*m));
    if (m)
        io_random(&m->seed, sizeof(m->seed));
    return m;
}

void manifest_free(struct manifest *m)
{
    if (!m)
        return;
    (void)manifest_remove_tree(m, "");
    free(m);
}

void manifest_freep(struct manifest **m)
{
    manifest_free(*m);
    *m = NULL;
}

size_t manifest_count(const struct manifest *m)
{
    return m->count;
}

size_t manifest_files(const struct manifest *m)
{
    return m->files;
}

uint64_t manifest_bytes(const struct manifest *m)
{
    return m->bytes;
}

const struct manifest_entry *manifest_get(const struct manifest *m, const char *path)
{
    const struct node *n = find_node(m, path);
    return n ? &n->entry : NULL;
}

int manifest_put(struct manifest *m, const struct manifest_entry *entry)
{
    assert(entry->kind != TREE_OTHER && entry->path[0] != '\0');
    struct node *n = find_node(m, entry->path);
    if (n)
        return node_fill(m, n, entry);
    n = node_new(entry->path);
    if (!n)
        return -ENOMEM;
    int r = node_fill(m, n, entry);
    if (r == 0) {
        r = node_link(m, n);
        if (r < 0)
            node_set_content(m, n, NULL);
    }
    if (r < 0)
        node_free(n);
    return r;
}

size_t manifest_remove(struct manifest *m, const char *path)
{
    struct node *n = find_node(m, path);
    if (!n)
        return 0;
    node_remove(m, n);
    return 1;
}

size_t manifest_remove_tree(struct manifest *m, const char *path)
{
    size_t removed = manifest_remove(m, path);
    struct node *n;
    for (; (n = any_beneath(m, path)) != NULL; removed++)
        node_remove(m, n);
    return removed;
}

/* The node leaves the table and waits, under its new path, in a list. */
static int take_for_move(
    struct manifest *m, struct node *n, size_t from_len, const char *to, struct node **list)
{
    size_t to_len = strlen(to), rest_len = strlen(n->entry.path + from_len);
    char *path = malloc(to_len + rest_len + 1);
    if (!path)
        return -ENOMEM;
    memcpy(path, to, to_len);
    memcpy(path + to_len, n->entry.path + from_len, rest_len + 1);
    node_unlink(m, n);
    free(n->entry.path);
    n->entry.path = path;
    DL_PREPEND(*list, n);
    return 0;
}

int manifest_move(struct manifest *m, const char *from, const char *to)
{
    if (strcmp(from, to) == 0)
        return find_node(m, from) || manifest_has_children(m, from) ? 0 : -ENOENT;
    if (path_beneath(from, to))
        return -EINVAL;
    struct node *moved = NULL, *n = find_node(m, from), *next;
    if (!n && !(n = any_beneath(m, from)))
        return -ENOENT;
    size_t from_len = strlen(from);
    int r = 0;
    for (; r == 0 && n; n = any_beneath(m, from))
        r = take_for_move(m, n, from_len, to, &moved);
    if (r == 0)
        (void)manifest_remove_tree(m, to);
    DL_FOREACH_SAFE(moved, n, next)
    {
        DL_DELETE(moved, n);
        if (r == 0)
            r = node_link(m, n);
        if (r < 0) {
            node_set_content(m, n, NULL);
            node_free(n);
        }
    }
    return r;
}

bool manifest_has_children(const struct manifest *m, const char *dir)
{
    return find_dir(m, dir, strlen(dir)) != NULL;
}

const struct manifest_entry *manifest_same_first(const struct manifest *m, const struct hash *hash)
{
    const struct content *c = find_content(m, hash);
    return c && c->files ? &c->files->entry : NULL;
}

const struct manifest_entry *manifest_same_next(const struct manifest_entry *entry)
{
    const struct node *n =
        (const struct node *)((const char *)entry - offsetof(struct node, entry));
    return n->same_next ? &n->same_next->entry : NULL;
}

const struct manifest_entry *manifest_by_hash(
    const struct manifest *m, const struct hash *hash, uint64_t size)
{
    const struct content *c = find_content(m, hash);
    for (const struct node *n = c ? c->files : NULL; n; n = n->same_next)
        if (n->entry.size == size)
            return &n->entry;
    return NULL;
}

static int compare_paths(const void *a, const void *b)
{
    const struct manifest_entry *const *left = a, *const *right = b;
    return strcmp((*left)->path, (*right)->path);
}

const struct manifest_entry **manifest_sorted(const struct manifest *m, size_t *ret_count)
{
    const struct manifest_entry **all = calloc(m->count + 1, sizeof(*all));
    if (!all)
        return NULL;
    size_t count = 0;
    for (const struct node *n = m->nodes; n; n = n->hh.next)
        all[count++] = &n->entry;
    qsort(all, count, sizeof(*all), compare_paths);
    *ret_count = count;
    return all;
}

int manifest_each(const struct manifest *m,
    int (*visit)(const struct manifest_entry *entry, void *ctx), void *ctx)
{
    int r = 0;
    for (const struct node *n = m->nodes; n && r == 0; n = n->hh.next)
        r = visit(&n->entry, ctx);
    return r;
}
