/* SPDX-License-Identifier: MIT */
/* What was fetched → the project and its index, by whoever holds the project's lock. */
#include "agent/pull.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "shared/io.h"
#include "shared/path.h"

#include "shared/banned.h"

#define CONTESTED "it changed here meanwhile"

struct placing {
    const struct pull_target *to;
    struct pull_item *item;
    char slot[24];
    struct buf *log;
    struct err *e;
};

/* ---- is everything as it was when the plan was made? */

static bool same_known(const struct placing *p)
{
    const struct manifest_entry *now =
        manifest_get(index_manifest(p->to->index), p->item->there.path);
    const struct pull_seen *known = &p->item->known;
    if (!now || !known->exists)
        return !now == !known->exists;
    return now->kind == known->kind && (now->kind == TREE_DIR || hash_equal(&now->hash, &known->hash));
}

/* 1 yes, 0 no, <0. */
static int same_here(const struct placing *p, struct tree_stat *st)
{
    const struct pull_seen *here = &p->item->here;
    const char *path = p->item->there.path;
    const struct manifest_entry *entry = manifest_get(index_manifest(p->to->index), path);
    struct hash hash;
    bool exists = tree_stat(p->to->tree, path, st, NULL) == 0;
    if (!exists || !here->exists)
        return exists == here->exists;
    if (st->kind != here->kind)
        return 0;
    if (st->kind == TREE_DIR)
        return 1;
    if (entry && manifest_unchanged(entry, st))
        return hash_equal(&entry->hash, &here->hash);
    if (st->kind == TREE_FILE) {
        CLEANUP(fd_closep) int fd = -1;
        if (tree_open_file(p->to->tree, path, &fd, st, NULL) < 0)
            return 0;
        int r = hash_fd(fd, &hash, NULL, p->e);
        return r < 0 ? r : hash_equal(&hash, &here->hash);
    }
    CLEANUP(buf_release) struct buf target;
    buf_init(&target, PATH_BYTES_MAX);
    if (tree_readlink(p->to->tree, path, &target, NULL) < 0)
        return 0;
    hash_buf(buf_str(&target), target.len, &hash);
    return hash_equal(&hash, &here->hash);
}

static int contested(struct placing *p, const char *why)
{
    free(p->item->why);
    p->item->why = strdup(why);
    p->item->action = PULL_CONFLICT;
    return 0;
}

/* ---- the index */

/* The server has this, and so have we, as it looks now. */
static int note(struct placing *p)
{
    struct manifest_entry entry = p->item->there;
    struct tree_stat st;
    entry.seen_ns = (int64_t)io_wall_ns();
    if (tree_stat(p->to->tree, entry.path, &st, NULL) == 0 && st.kind == entry.kind) {
        entry.mtime_ns = st.mtime_ns;
        entry.ctime_ns = st.ctime_ns;
        entry.ino = st.ino;
    }
    p->item->done = true;
    /* A path that is ignored here is none of the index's. */
    if (ignore_find(p->to->rules, entry.path, entry.kind == TREE_DIR, NULL))
        return 0;
    const struct manifest_entry *old = manifest_get(index_manifest(p->to->index), entry.path);
    int r = 0;
    if (old && old->kind != entry.kind)
        r = index_remove(p->to->index, entry.path, true, p->log);
    if (r == 0)
        r = index_put(p->to->index, &entry, p->log);
    return r < 0 ? err_set(p->e, -r, "note '%s'", entry.path) : 0;
}

/* ---- each kind of item */

static bool is_displaced_expected(const struct placing *p, const struct tree_stat *expected)
{
    struct stat now;
    struct tree_stat st;
    if (fstatat(p->to->stage_fd, p->slot, &now, AT_SYMLINK_NOFOLLOW) < 0)
        return false;
    tree_stat_of(&now, &st);
    return p->item->here.exists && st.ino == expected->ino && st.kind == expected->kind &&
           st.size == expected->size && st.mtime_ns == expected->mtime_ns;
}

/* The staged entry takes the place of what was looked at, of nothing else. */
static int put_in_place(struct placing *p, const struct tree_stat *expected)
{
    bool displaced = false;
    const char *path = p->item->there.path;
    int r = tree_make_parents(p->to->tree, path, p->e);
    if (r == -ENOTDIR || r == -ELOOP || r == -EEXIST)
        return contested(p, "something that is no folder is in its way");
    if (r == 0)
        r = tree_place(p->to->tree, p->to->stage_fd, p->slot, path, &displaced, p->e);
    if (r == -EBUSY || r == -ENOTDIR || r == -ELOOP)
        return contested(p, CONTESTED);
    if (r < 0)
        return r;
    if (displaced && !is_displaced_expected(p, expected)) {
        r = tree_place(p->to->tree, p->to->stage_fd, p->slot, path, &displaced, p->e);
        return r < 0 ? r : contested(p, CONTESTED);
    }
    if (displaced)
        (void)unlinkat(p->to->stage_fd, p->slot, 0);
    return note(p);
}

static int do_fetch(struct placing *p, const struct tree_stat *st)
{
    return put_in_place(p, st);
}

static int do_link(struct placing *p, const struct tree_stat *st)
{
    if (symlinkat(p->item->there.target, p->to->stage_fd, p->slot) < 0)
        return err_set(p->e, errno, "make a symlink");
    return put_in_place(p, st);
}

static int do_mkdir(struct placing *p, const struct tree_stat *st)
{
    const char *path = p->item->there.path;
    (void)st;
    int r = tree_make_parents(p->to->tree, path, p->e);
    if (r == 0)
        r = tree_mkdir(p->to->tree, path, p->item->there.mode, p->e);
    if (r == -EEXIST || r == -ENOTDIR || r == -ELOOP)
        return contested(p, "something else is in its way");
    return r < 0 ? r : note(p);
}

static int do_chmod(struct placing *p, const struct tree_stat *st)
{
    (void)st;
    int r = tree_chmod(p->to->tree, p->item->there.path, p->item->there.mode, p->e);
    return r < 0 ? r : note(p);
}

static int do_adopt(struct placing *p, const struct tree_stat *st)
{
    (void)st;
    return note(p);
}

static int do_delete(struct placing *p, const struct tree_stat *st)
{
    const char *path = p->item->there.path;
    int r;
    if (!p->to->allow_delete)
        return 0;
    if (st->kind == TREE_DIR) {
        r = tree_rmdir(p->to->tree, path, p->e);
        if (r == -ENOTEMPTY || r == -EEXIST)
            return contested(p, "the folder is not empty here");
    } else {
        r = tree_take(p->to->tree, path, p->to->stage_fd, p->slot, p->e);
        if (r == 0 && !is_displaced_expected(p, st)) {
            bool displaced = false;
            r = tree_place(p->to->tree, p->to->stage_fd, p->slot, path, &displaced, p->e);
            return r < 0 ? r : contested(p, CONTESTED);
        }
        if (r == 0)
            (void)unlinkat(p->to->stage_fd, p->slot, 0);
    }
    if (r < 0)
        return r;
    p->item->done = true;
    r = index_remove(p->to->index, path, true, p->log);
    return r < 0 ? err_set(p->e, -r, "note '%s'", path) : 0;
}

static int (*const doers[PULL_ACTIONS])(struct placing *p, const struct tree_stat *st) = {
    [PULL_FETCH] = do_fetch,
    [PULL_LINK] = do_link,
    [PULL_MKDIR] = do_mkdir,
    [PULL_CHMOD] = do_chmod,
    [PULL_ADOPT] = do_adopt,
    [PULL_DELETE] = do_delete,
};

static int place_one(struct placing *p)
{
    struct tree_stat st = {.ino = 0};
    if (!doers[p->item->action])
        return 0;
    if (!same_known(p))
        return contested(p, CONTESTED);
    int r = same_here(p, &st);
    if (r <= 0)
        return r < 0 ? r : contested(p, CONTESTED);
    return doers[p->item->action](p, &st);
}

int pull_place(const struct pull_target *target, struct pull_plan *plan, struct err *e)
{
    CLEANUP(buf_release) struct buf log;
    struct err late = ERR_INIT;
    int r = 0;
    buf_init(&log, INDEX_LOG_MAX);
    for (size_t i = 0; r == 0 && i < plan->count; i++) {
        struct placing p = {.to = target, .item = &plan->items[i], .log = &log, .e = e};
        (void)snprintf(p.slot, sizeof(p.slot), "%zu", i);
        p.item->done = false;
        r = place_one(&p);
        if (r < 0)
            err_wrap(e, "put '%s' into place", p.item->there.path);
    }
    int code = log.len ? index_commit(target->index, &log, r < 0 ? &late : e) : 0;
    return r < 0 ? r : code;
}
