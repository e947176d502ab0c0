/* SPDX-License-Identifier: MIT */
#include "shared/tree_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "shared/path.h"

#include "shared/banned.h"

/*
 * One frame per directory on the way down, each with the sorted names of its directory. Only the
 * FDS_MAX deepest frames keep their descriptor; on the way back up one that was given up is opened
 * again from the root and must be the directory it was.
 *
 * A directory is opened before it is visited (so that the visit can tell whether it can be read)
 * and listed after (so that a visitor that starts to watch it misses nothing).
 */
#define FDS_MAX 64
#define FRAMES_MAX (PATH_DEPTH_MAX + 1)
#define NAMES_BYTES_MAX (256u << 20) /* all names held at one time */
#define NAMES_BYTES_FIRST 4096u
#define LISTING_BYTES 32768u
#define LOOK_TRIES 4 /* at a name that changes its kind */
/* A name that is too long for a path is kept one byte too long, which is enough to be told. */
#define NAME_KEPT (PATH_NAME_MAX + 1)

#define OPEN_DIR (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)

struct frame {
    int fd; /* -1: given up */
    uint64_t dev;
    uint64_t ino;
    size_t path_len;
    char *names; /* records: one byte of d_type, the name, NUL */
    size_t names_len;
    size_t names_cap;
    uint32_t *order; /* where each record's name starts, sorted by name */
    size_t count;
    size_t order_cap;
    size_t next;
};

struct tree_names {
    const struct frame *frame;
};

struct walk {
    const struct tree *tree;
    tree_visitor *visit;
    tree_lister *listed; /* or NULL */
    void *ctx;
    bool stop;
    size_t base;          /* components of the path that the walk began with */
    size_t depth;         /* frames in use */
    size_t held_bytes;    /* capacity of all frames */
    struct frame *frames; /* FRAMES_MAX; buffers stay for the next directory at this depth */
    char path[PATH_BYTES_MAX + 1 + NAME_KEPT + 1];
    _Alignas(struct dirent64) char listing[LISTING_BYTES];
};

static void walk_freep(struct walk **w)
{
    if (*w && (*w)->frames) {
        for (size_t i = 0; i < FRAMES_MAX; i++) {
            fd_closep(&(*w)->frames[i].fd);
            free((*w)->frames[i].names);
            free((*w)->frames[i].order);
        }
        free((*w)->frames);
    }
    free(*w);
    *w = NULL;
}

/* Room for `need` items of `size` bytes in *mem. 0, -ENOBUFS past what a walk may hold, -ENOMEM. */
static int grow(struct walk *w, void **mem, size_t *cap, size_t need, size_t size)
{
    size_t more = *cap ? *cap : NAMES_BYTES_FIRST / size;
    if (need <= *cap)
        return 0;
    while (*cap + more < need)
        more *= 2;
    if (more * size > NAMES_BYTES_MAX - w->held_bytes)
        return -ENOBUFS;
    void *p = realloc(*mem, (*cap + more) * size);
    if (!p)
        return -ENOMEM;
    *mem = p;
    *cap += more;
    w->held_bytes += more * size;
    return 0;
}

static int add_name(struct walk *w, struct frame *f, const struct dirent64 *d)
{
    size_t len = strnlen(d->d_name, NAME_KEPT);
    if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
        return 0;
    /* No sound file system has such names; a hostile one must not lead us out. */
    if (len == 0 || memchr(d->d_name, '/', len))
        return 0;
    int r = grow(w, (void **)&f->names, &f->names_cap, f->names_len + len + 2, 1);
    if (r == 0)
        r = grow(w, (void **)&f->order, &f->order_cap, f->count + 1, sizeof(*f->order));
    if (r < 0)
        return r;
    char *record = f->names + f->names_len;
    record[0] = (char)d->d_type;
    memcpy(record + 1, d->d_name, len);
    record[1 + len] = '\0';
    f->order[f->count++] = (uint32_t)(f->names_len + 1);
    f->names_len += len + 2;
    return 0;
}

static int by_name(const void *a, const void *b, void *names)
{
    const char *base = names;
    return strcmp(base + *(const uint32_t *)a, base + *(const uint32_t *)b);
}

/* Sorted, and each name once: a directory that changes while it is read may tell one twice. */
static void sort_names(struct frame *f)
{
    size_t kept = 1;
    if (f->count < 2)
        return;
    qsort_r(f->order, f->count, sizeof(*f->order), by_name, f->names);
    for (size_t i = 1; i < f->count; i++) {
        if (strcmp(f->names + f->order[i], f->names + f->order[kept - 1]) != 0)
            f->order[kept++] = f->order[i];
    }
    f->count = kept;
}

/* Read and sort f's directory. On failure it counts as empty. */
static int list(struct walk *w, struct frame *f)
{
    int r = 0;
    f->names_len = 0;
    f->count = 0;
    f->next = 0;
    while (r == 0) {
        ssize_t n = getdents64(f->fd, w->listing, sizeof(w->listing));
        if (n == 0 || (n < 0 && errno == ENOENT)) /* removed meanwhile */
            break;
        if (n < 0)
            r = -errno;
        for (ssize_t at = 0; r == 0 && at < n;) {
            const struct dirent64 *d = (const struct dirent64 *)(const void *)(w->listing + at);
            r = add_name(w, f, d);
            at += d->d_reclen;
        }
    }
    if (r < 0)
        f->count = 0;
    sort_names(f);
    return r;
}

bool tree_names_may_have(const struct tree_names *names, const char *name)
{
    const struct frame *f = names->frame;
    for (size_t i = 0; i < f->count; i++) {
        if (strcasecmp(f->names + f->order[i], name) == 0)
            return true;
    }
    return false;
}

/* Enter the directory fd, whose path is w->path up to path_len. */
static int push(struct walk *w, int fd, const struct tree_stat *st, size_t path_len)
{
    struct frame *f = &w->frames[w->depth];
    f->fd = fd;
    f->dev = st->dev;
    f->ino = st->ino;
    f->path_len = path_len;
    if (w->depth >= FDS_MAX)
        fd_closep(&w->frames[w->depth - FDS_MAX].fd);
    w->depth++;
    int r = list(w, f);
    if (w->listed)
        w->listed(w->path, r < 0 ? NULL : &(struct tree_names){.frame = f}, w->ctx);
    return r;
}

static void pop(struct walk *w)
{
    fd_closep(&w->frames[--w->depth].fd);
}

static void visit(struct walk *w, const struct tree_entry *entry, bool *ret_descend)
{
    enum tree_visit v = w->visit(entry, w->ctx);
    w->stop = v == TREE_VISIT_STOP;
    *ret_descend = v == TREE_VISIT_GO;
}

/* Tell that the listing of w->path failed after all. */
static void visit_unlisted(struct walk *w, const struct tree_stat *st, int code)
{
    bool descend;
    const struct tree_entry entry = {
        .path = w->path, .name = path_base(w->path), .stat = *st, .fault = code, .dir_fd = -1};
    visit(w, &entry, &descend);
}

/*
 * Look at `name` in dir_fd: its stat and fault into entry, and for a directory that can be read its
 * descriptor. false: it vanished. A directory is opened first and asked by its descriptor, so that
 * what is listed is what was told.
 */
static bool look(
    int dir_fd, const char *name, bool likely_dir, struct tree_entry *entry, int *ret_fd)
{
    struct stat st;
    bool dir = likely_dir;
    for (int i = 0; i < LOOK_TRIES; i++) {
        int fd = dir ? openat(dir_fd, name, OPEN_DIR) : -1;
        int code = dir && fd < 0 ? errno : 0;
        if (code == ENOENT)
            return false;
        int r = fd >= 0 ? fstat(fd, &st)
                        : fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT);
        if (r < 0 && fd < 0 && errno == ENOENT)
            return false;
        if (r < 0)
            entry->fault = errno;
        else
            tree_stat_of(&st, &entry->stat);
        *ret_fd = fd;
        if (r < 0 || fd >= 0 || !S_ISDIR(st.st_mode))
            return true;
        if (code != 0 && code != ENOTDIR && code != ELOOP) {
            entry->fault = code;
            return true;
        }
        dir = true;
    }
    entry->fault = EBUSY;
    return true;
}

/* The next name of the topmost frame: visit it, and enter it if it is a directory. */
static void step(struct walk *w)
{
    struct frame *f = &w->frames[w->depth - 1];
    const char *record = f->names + f->order[f->next++] - 1;
    const size_t len = strlen(record + 1);
    const size_t at = f->path_len + (f->path_len > 0);
    struct tree_entry entry = {.path = w->path, .name = w->path + at, .dir_fd = -1};
    CLEANUP(fd_closep) int fd = -1;
    bool descend;

    if (at > 0)
        w->path[at - 1] = '/';
    memcpy(w->path + at, record + 1, len + 1);
    if (len > PATH_NAME_MAX || at + len > PATH_BYTES_MAX || w->base + w->depth > PATH_DEPTH_MAX)
        entry.fault = ENAMETOOLONG;
    else if (!look(f->fd, w->path + at, record[0] == DT_DIR, &entry, &fd))
        return;
    entry.dir_fd = entry.fault ? -1 : fd;
    visit(w, &entry, &descend);
    if (!descend || fd < 0 || entry.fault != 0)
        return;
    int r = push(w, fd_take(&fd), &entry.stat, at + len);
    if (r < 0) {
        pop(w);
        visit_unlisted(w, &entry.stat, -r);
    }
}

/* Open the topmost frame's directory again. Gone or replaced: what is left of it vanished. */
static void reopen(struct walk *w)
{
    struct frame *f = &w->frames[w->depth - 1];
    struct stat st;
    struct tree_stat none = {.kind = TREE_DIR, .dev = f->dev, .ino = f->ino};
    w->path[f->path_len] = '\0';
    int fd = tree_beneath(w->tree, w->path, O_RDONLY | O_DIRECTORY | O_NONBLOCK | O_NOCTTY);
    if (fd >= 0 && fstat(fd, &st) == 0 && st.st_dev == f->dev && st.st_ino == f->ino) {
        f->fd = fd;
        return;
    }
    bool gone = fd >= 0 || fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP;
    pop(w);
    if (!gone)
        visit_unlisted(w, &none, -fd);
    fd_closep(&fd);
}

static struct walk *walk_new(const struct tree *t, const char *path)
{
    struct walk *w = calloc(1, sizeof(*w));
    if (!w)
        return NULL;
    w->tree = t;
    w->frames = calloc(FRAMES_MAX, sizeof(*w->frames));
    if (!w->frames) {
        free(w);
        return NULL;
    }
    for (size_t i = 0; i < FRAMES_MAX; i++)
        w->frames[i].fd = -1;
    memcpy(w->path, path, strlen(path) + 1);
    w->base = path[0] != '\0';
    for (const char *p = path; *p; p++)
        w->base += *p == '/';
    return w;
}

int tree_walk(
    const struct tree *t, const char *path, tree_visitor *visitor, void *ctx, struct err *e)
{
    return tree_walk_listed(t, path, visitor, NULL, ctx, e);
}

int tree_walk_listed(const struct tree *t, const char *path, tree_visitor *visitor,
    tree_lister *listed, void *ctx, struct err *e)
{
    struct stat st;
    struct tree_stat root;
    CLEANUP(fd_closep) int fd = -1;
    CLEANUP(walk_freep) struct walk *w = NULL;
    int r = tree_open_dir(t, path, &fd, e);
    if (r < 0)
        return r;
    if (fstat(fd, &st) < 0)
        return err_set(e, errno, "walk '%s'", tree_shown(path));
    tree_stat_of(&st, &root);
    w = walk_new(t, path);
    if (!w)
        return err_set(e, ENOMEM, "walk '%s'", tree_shown(path));
    w->visit = visitor;
    w->listed = listed;
    w->ctx = ctx;
    r = push(w, fd_take(&fd), &root, strlen(path));
    if (r < 0)
        return err_set(e, -r, "list '%s'", tree_shown(path));
    while (w->depth > 0 && !w->stop) {
        struct frame *f = &w->frames[w->depth - 1];
        if (f->next == f->count)
            pop(w);
        else if (f->fd < 0)
            reopen(w);
        else
            step(w);
    }
    return 0;
}
