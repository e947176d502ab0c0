/* SPDX-License-Identifier: MIT */
/* What a run changed in its view, as a change set for the workspace. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "server/view.h"

#include "shared/banned.h"

#define NS_PER_S INT64_C(1000000000)

/* Must what is there go before something else is put there? A file in place of a file need not. */
static bool goes_first(const struct view_change *c)
{
    return c->had && (!c->have || ((c->base_kind == TREE_DIR) != (c->kind == TREE_DIR)));
}

static void set_base(const struct view_change *c, struct change_op *op)
{
    bool there = c->had && (op->kind == CHANGE_DELETE || !goes_first(c));
    op->base_kind = !there                     ? CHANGE_BASE_ABSENT
                    : c->base_kind == TREE_DIR ? CHANGE_BASE_DIR
                                               : CHANGE_BASE_HASH;
    op->base = c->base;
}

static void fill(const struct view_change *c, struct change_op *op)
{
    *op = (struct change_op){.path = c->path, .mode = c->mode};
    if (c->same_content) {
        op->kind = CHANGE_CHMOD;
    } else if (c->kind == TREE_DIR) {
        op->kind = CHANGE_MKDIR;
        op->mode |= 0700;
    } else if (c->kind == TREE_SYMLINK) {
        op->kind = CHANGE_SYMLINK;
        op->to = c->target;
        op->mode = 0;
    } else {
        op->kind = CHANGE_PUT;
        op->mode |= 0400;
        op->size = op->content_len = c->size;
        op->hash = c->hash;
        op->has_hash = true;
        op->stage = c->path;
    }
    set_base(c, op);
}

/* First what goes, from the bottom up, then what comes, from the top down. */
static int next(void *ctx, struct change_op *ret, struct err *e)
{
    struct view *v = ctx;
    (void)e;
    while (v->deleting && v->at > 0) {
        const struct view_change *c = &v->changes[--v->at];
        if (!goes_first(c))
            continue;
        *ret = (struct change_op){.kind = CHANGE_DELETE, .path = c->path};
        set_base(c, ret);
        return 1;
    }
    v->deleting = false;
    while (v->at < v->count) {
        const struct view_change *c = &v->changes[v->at++];
        if (!c->have)
            continue;
        fill(c, ret);
        return 1;
    }
    return 0;
}

/* Content is claimed. */
static ssize_t read_nothing(void *ctx, void *data, size_t len, struct err *e)
{
    (void)ctx;
    (void)data;
    (void)len;
    (void)e;
    return 0;
}

struct changes_feed view_feed(struct view *v)
{
    v->at = v->count;
    v->deleting = true;
    return (struct changes_feed){.next = next, .read = read_nothing, .ctx = v};
}

static bool is_python(const char *path)
{
    size_t len = strlen(path);
    return len > 3 && memcmp(path + len - 3, ".py", 3) == 0;
}

/*
 * The time that the program left, so that `make` finds its outputs newer than their sources. One
 * nanosecond is added: a stamp of the kernel's clock could be given again to a write that follows
 * within the same tick. And as in apply.c: what Python could take for the old file by size and
 * whole second gets the next second.
 */
static int64_t pick_mtime(const struct view_change *c)
{
    int64_t second = c->base_mtime_ns / NS_PER_S;
    bool alike = c->had && c->base_kind == TREE_FILE && c->mtime_ns / NS_PER_S == second &&
                 (c->base_size == c->size || is_python(c->path));
    if (alike)
        return (second + 1) * NS_PER_S;
    return c->mtime_ns < INT64_MAX ? c->mtime_ns + 1 : c->mtime_ns;
}

static int take_over(struct view *v, struct stage *stage, const char *name,
    const struct view_change *c, struct staged **ret, struct err *e)
{
    int64_t mtime = pick_mtime(c);
    const struct timespec times[2] = {
        {.tv_nsec = UTIME_NOW}, {.tv_sec = mtime / NS_PER_S, .tv_nsec = mtime % NS_PER_S}};
    if (mtime >= 0 && utimensat(v->ws->stage_fd, name, times, AT_SYMLINK_NOFOLLOW) < 0)
        return err_set(e, errno, "keep '%s'", c->path);
    int r = stage_adopt(stage, name, c->mode | 0400, &c->hash, ret, e);
    if (r == 0)
        (*ret)->keep_time = true;
    return r;
}

int view_claim(
    void *ctx, struct stage *stage, const struct change_op *op, struct staged **ret, struct err *e)
{
    struct view *v = ctx;
    const struct view_change *c = &v->changes[v->at - 1];
    char name[STAGE_SLOT_BYTES];
    (void)snprintf(
        name, sizeof name, "view-%llx", (unsigned long long)atomic_fetch_add(&v->ws->sets, 1));
    int r = tree_take(v->upper, op->path, v->ws->stage_fd, name, e);
    if (r < 0)
        return r;
    r = take_over(v, stage, name, c, ret, e);
    if (r < 0)
        (void)unlinkat(v->ws->stage_fd, name, 0);
    return r;
}
