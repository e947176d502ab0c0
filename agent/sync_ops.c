/* SPDX-License-Identifier: MIT */
/*
 * One difference → operations. The truth is read anew here, for between the scan and this moment
 * the tree may have changed again: what an item means is decided by what is there now and by what
 * the server will have when the earlier operations were applied (the index in memory).
 */
#include "agent/sync_delta.h"
#include "agent/sync_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "shared/io.h"
#include "shared/path.h"

#include "shared/banned.h"

#define COPY_MIN_BYTES 1024 /* below, sending the content is as cheap and never refused */

/* Where one item's operations go. */
struct emit {
    struct sync *s;
    struct sync_set *set;
    const char *path;
    const struct manifest_entry *old; /* what the server has at path, or NULL */
    struct tree_stat st;              /* what is here */
    int64_t seen_ns;
    uint32_t mode; /* as the server will keep it */
    bool last;     /* nothing follows in this set */
    struct err *e;
};

static void base_of(const struct manifest_entry *old, struct change_op *op)
{
    if (!old) {
        op->base_kind = CHANGE_BASE_ABSENT;
    } else if (old->kind == TREE_DIR) {
        op->base_kind = CHANGE_BASE_DIR;
    } else {
        op->base_kind = CHANGE_BASE_HASH;
        op->base = old->hash;
    }
}

static int no_memory(struct err *e)
{
    return err_set(e, ENOMEM, "build a change set");
}

/* Both sides changed it: ours wins, and that is told once, however often it has to be sent. */
static void contest(struct emit *m, struct change_op *op)
{
    struct sync *s = m->s;
    if (!index_contested(s->index, m->path))
        return;
    op->keep = op->base_kind == CHANGE_BASE_HASH &&
               (op->kind == CHANGE_PUT || op->kind == CHANGE_PATCH || op->kind == CHANGE_SYMLINK ||
                   op->kind == CHANGE_DELETE);
    if (!sync_names_add(&s->told_conflicts, m->path))
        return;
    s->totals.conflicts++;
    if (s->config.events.conflict)
        s->config.events.conflict(s->config.events.ctx, m->path);
}

static int emit_op(struct emit *m, struct change_op *op, const void *data)
{
    contest(m, op);
    return sync_set_op(m->set, op, data, m->e);
}

static struct manifest_entry entry_of(const struct emit *m, uint64_t size)
{
    return (struct manifest_entry){.path = (char *)m->path,
        .kind = m->st.kind,
        .mode = m->mode,
        .size = size,
        .mtime_ns = m->st.mtime_ns,
        .ctime_ns = m->st.ctime_ns,
        .ino = m->st.ino,
        .seen_ns = m->seen_ns};
}

/* Note in the index what lies at path from now on. */
static int note(struct emit *m, const struct hash *hash, uint64_t size, char *target)
{
    struct manifest_entry entry = entry_of(m, size);
    entry.target = target;
    if (hash)
        entry.hash = *hash;
    /* The old entry ends here: nothing may look at it any more. */
    m->old = NULL;
    int r = index_put(m->s->index, &entry, &m->set->log);
    return r < 0 ? err_set(m->e, -r, "note '%s'", m->path) : 0;
}

static int forget(struct emit *m, const char *path, bool with_content)
{
    int r = index_remove(m->s->index, path, with_content, &m->set->log);
    return r < 0 ? err_set(m->e, -r, "note '%s'", path) : 0;
}

/* ---- deletions */

static int emit_delete(struct emit *m, bool recursive)
{
    struct change_op op = {.kind = CHANGE_DELETE, .path = m->path, .recursive = recursive};
    base_of(m->old, &op);
    int r = emit_op(m, &op, NULL);
    if (r == 0)
        r = forget(m, m->path, recursive);
    m->old = NULL;
    return r;
}

/* What lies in the way of another kind goes first. */
static int make_way(struct emit *m)
{
    if (!m->old || (m->old->kind != TREE_DIR && m->st.kind != TREE_DIR) ||
        m->old->kind == m->st.kind)
        return 0;
    return emit_delete(m, m->old->kind == TREE_DIR);
}

/* ---- folders and symlinks */

static int add_dir(struct emit *m)
{
    int r = sync_left_out(m->s, m->path, true, m->e);
    if (r == 0)
        r = make_way(m);
    if (r != 0)
        return r < 0 ? r : 0;
    /* Without a base: a folder that a run made meanwhile, or removed, is no conflict. */
    struct change_op op = {.kind = CHANGE_MKDIR, .path = m->path, .mode = m->mode};
    bool same = m->old && m->old->mode == m->mode;
    if (!same && (r = sync_set_op(m->set, &op, NULL, m->e)) < 0)
        return r;
    return note(m, NULL, 0, NULL);
}

static int add_symlink(struct emit *m)
{
    CLEANUP(buf_release) struct buf target;
    struct hash hash;
    buf_init(&target, PATH_BYTES_MAX);
    int r = tree_readlink(m->s->tree, m->path, &target, m->e);
    if (r < 0)
        return r == -ENOMEM ? r : 0; /* changed since: the next event or scan tells */
    r = sync_left_out(m->s, m->path, false, m->e);
    if (r != 0)
        return r < 0 ? r : 0;
    hash_buf(buf_str(&target), target.len, &hash);
    m->mode = 0777;
    bool same = m->old && m->old->kind == TREE_SYMLINK && hash_equal(&m->old->hash, &hash);
    if (!same) {
        r = make_way(m);
        struct change_op op = {.kind = CHANGE_SYMLINK, .path = m->path, .to = buf_str(&target)};
        base_of(m->old, &op);
        if (r == 0)
            r = emit_op(m, &op, NULL);
        if (r < 0)
            return r;
    }
    return note(m, &hash, target.len, (char *)buf_str(&target));
}

/* ---- files: what need not be sent */

static int add_mode(struct emit *m, uint32_t there, const struct hash *hash)
{
    struct change_op op = {.kind = CHANGE_CHMOD,
        .path = m->path,
        .mode = m->mode,
        .base_kind = CHANGE_BASE_HASH,
        .base = *hash};
    return there == m->mode ? 0 : emit_op(m, &op, NULL);
}

static int add_move(struct emit *m, struct sync_gone *from, const struct hash *hash)
{
    const struct manifest_entry *source = manifest_get(index_manifest(m->s->index), from->path);
    uint32_t there = source->mode;
    int r = m->old ? emit_delete(m, false) : 0;
    if (r < 0)
        return r;
    struct change_op op = {.kind = CHANGE_MOVE,
        .path = from->path,
        .to = m->path,
        .base_kind = CHANGE_BASE_HASH,
        .base = *hash};
    r = emit_op(m, &op, NULL);
    if (r < 0)
        return r;
    from->used = true;
    r = index_move(m->s->index, from->path, m->path, &m->set->log);
    if (r < 0)
        return err_set(m->e, -r, "note '%s'", m->path);
    return add_mode(m, there, hash);
}

static int add_copy(struct emit *m, const struct manifest_entry *from, const struct hash *hash)
{
    /* A deletion can say `keep`, a copy cannot. */
    int r = m->old && index_contested(m->s->index, m->path) ? emit_delete(m, false) : 0;
    if (r < 0)
        return r;
    struct change_op op = {.kind = CHANGE_COPY,
        .path = from->path,
        .to = m->path,
        .size = from->size,
        .hash = *hash,
        .has_hash = true};
    base_of(m->old, &op);
    r = emit_op(m, &op, NULL);
    return r < 0 ? r : add_mode(m, from->mode, hash);
}

/* The content is known to the server: 1 done, 0 it must be sent, <0. */
static int add_known(struct emit *m, const struct hash *hash, uint64_t size)
{
    const struct manifest *known = index_manifest(m->s->index);
    const struct manifest_entry *old = m->old;
    int r = 0;
    if (old && old->kind == TREE_FILE && hash_equal(&old->hash, hash) && old->size == size) {
        index_settle(m->s->index, m->path); /* both sides made the same change */
        r = add_mode(m, old->mode, hash);
        return r < 0 ? r : 1;
    }
    r = make_way(m);
    if (r < 0)
        return r;
    struct sync_gone *gone = sync_gone_find(m->s, hash, size, m->st.ino);
    if (gone) {
        r = add_move(m, gone, hash);
        return r < 0 ? r : 1;
    }
    const struct manifest_entry *same = manifest_by_hash(known, hash, size);
    /* Onto a file, too: its base says what the copy replaces. */
    if (same && size >= COPY_MIN_BYTES) {
        r = add_copy(m, same, hash);
        return r < 0 ? r : 1;
    }
    return 0;
}

/* The file as it is now is on its way: its entry, its totals, its signature. */
static int sent(struct emit *m, const struct hash *hash, uint64_t size, struct delta_sig *sig)
{
    bool edited = m->old && m->old->kind == TREE_FILE;
    m->set->content_bytes += size;
    int r = note(m, hash, size, NULL);
    if (r == 0 && size >= DELTA_MIN_FILE)
        return sync_sig_want(m->s, m->path, hash, size, edited, sig);
    delta_sig_free(sig);
    return r;
}

/* ---- files: deltas */

static int emit_patch(struct emit *m, uint64_t size, struct sync_delta *d)
{
    struct change_op op = {.kind = CHANGE_PATCH,
        .path = m->path,
        .mode = m->mode,
        .size = size,
        .hash = d->hash,
        .has_hash = true,
        .content_len = d->len};
    base_of(m->old, &op);
    if (d->fd < 0)
        return emit_op(m, &op, d->mem.data);
    contest(m, &op);
    return sync_set_stream(m->set, &op, fd_take(&d->fd), m->e);
}

/* The delta goes out while the rest of the file is read; the index learns of it then. Takes fd. */
static int emit_open(struct emit *m, int fd, uint64_t size, struct sync_delta *d)
{
    struct change_op op = {.kind = CHANGE_PATCH,
        .path = m->path,
        .mode = m->mode,
        .size = size,
        .open = true,
        .content_len = CHANGE_LEN_UNKNOWN};
    base_of(m->old, &op);
    contest(m, &op);
    m->set->content_bytes += size;
    return sync_set_open(m->set, &op,
        &(struct sync_open){.fd = fd,
            .maker = ptr_take(&d->maker),
            .base = ptr_take(&d->base),
            .begun = &d->mem,
            .made = entry_of(m, size)},
        m->e);
}

/* 1 it is done as a delta, or without any content; 0 not (no signature, no gain), <0.
 * `expected`: only if the content has this hash; NULL: whatever it is. */
static int try_delta(struct emit *m, int *fd, const struct hash *expected)
{
    CLEANUP(sync_delta_release) struct sync_delta d = {.fd = -1};
    const struct manifest *known = index_manifest(m->s->index);
    uint64_t size = m->st.size;
    struct sync_gone *from = m->old ? NULL : sync_delta_origin(m->s, m->path, &m->st);
    const struct manifest_entry *base = from ? manifest_get(known, from->path) : m->old;
    /* A file that vanished may have had this very content, which is known at the end only. */
    bool may_open = !expected && !from && m->s->gone_count == 0;
    int r = sync_delta_make(m->s, base, *fd, size, may_open, &d);
    if (r < 0)
        return no_memory(m->e);
    if (r == 0 || (expected && !hash_equal(expected, &d.hash)))
        return 0;
    if (d.maker) {
        r = emit_open(m, fd_take(fd), size, &d);
        return r < 0 ? r : 1;
    }
    /* Content that is already there under another name costs even less. */
    r = expected ? 0 : add_known(m, &d.hash, size);
    if (r != 0)
        return r == 1 && (r = note(m, &d.hash, size, NULL)) == 0 ? 1 : r;
    if (from)
        r = add_move(m, from, &from->hash);
    m->old = manifest_get(known, m->path);
    if (r == 0)
        r = emit_patch(m, size, &d);
    if (r == 0)
        r = sent(m, &d.hash, size, ptr_take(&d.sig));
    return r < 0 ? r : 1;
}

/* ---- files: whole */

static int emit_put(
    struct emit *m, const struct hash *hash, uint64_t size, const void *data, int fd)
{
    struct change_op op = {.kind = CHANGE_PUT,
        .path = m->path,
        .mode = m->mode,
        .size = size,
        .hash = *hash,
        .has_hash = true,
        .content_len = size};
    base_of(m->old, &op);
    if (data || size == 0)
        return emit_op(m, &op, data);
    contest(m, &op);
    return size > SYNC_STAGE_MIN ? sync_stage_begin(m->set, &op, fd, m->e)
                                 : sync_set_stream(m->set, &op, fd, m->e);
}

static int add_small(struct emit *m, int fd)
{
    struct buf *b = &m->s->scratch; /* the same memory for each file */
    struct hash hash;
    int r = sync_read_small(m->s, m->path, fd, &m->st, &m->seen_ns);
    if (r == -ENOBUFS) { /* it grows too fast: next time it is a large one */
        (void)sync_names_add(&m->s->unsettled, m->path);
        return 0;
    }
    if (r < 0)
        return err_set(m->e, -r, "read '%s'", m->path);
    r = sync_left_out(m->s, m->path, false, m->e);
    if (r != 0)
        return r < 0 ? r : 0;
    hash_buf(buf_str(b), b->len, &hash);
    r = add_known(m, &hash, b->len);
    if (r != 0)
        return r < 0 ? r : note(m, &hash, b->len, NULL);
    r = b->len == m->st.size ? try_delta(m, &fd, &hash) : 0;
    if (r != 0)
        return r < 0 ? r : 0;
    r = emit_put(m, &hash, b->len, b->data, -1);
    return r < 0 ? r : sent(m, &hash, b->len, NULL);
}

/* A delta that is cut begins anew, a whole content in its stage goes on. For a delta of a quarter of
 * the file, or one that was cut twice, the stage is the way that comes to an end. */
static bool prefers_stage(const struct sync *s, uint64_t size)
{
    return s->cuts > 1 || (s->cuts == 1 && s->cut_bytes >= size / 4);
}

/* A file of which only pieces are in memory at a time. Takes over *fd if it is streamed. */
static int add_large(struct emit *m, int *fd)
{
    struct hash hash;
    uint64_t size = m->st.size;
    int r = sync_left_out(m->s, m->path, false, m->e);
    if (r == 0 && !prefers_stage(m->s, size))
        r = try_delta(m, fd, NULL);
    if (r != 0)
        return r < 0 ? r : 0;
    r = hash_fd(*fd, &hash, &size, m->e);
    if (r == 0)
        r = add_known(m, &hash, size);
    if (r != 0)
        return r < 0 ? r : note(m, &hash, size, NULL);
    r = emit_put(m, &hash, size, NULL, fd_take(fd));
    return r < 0 ? r : sent(m, &hash, size, NULL);
}

/* What is here may be no file any more: -ENOENT and such, and nothing was done. */
static int add_file(struct emit *m)
{
    CLEANUP(fd_closep) int fd = -1;
    struct err why = ERR_INIT;
    m->seen_ns = (int64_t)io_wall_ns();
    int r = tree_open_file(m->s->tree, m->path, &fd, &m->st, &why);
    if (r == -EACCES || r == -EPERM || r == -EIO) {
        sync_tell_skipped(m->s, m->path, why.msg);
        return 0;
    }
    if (r < 0)
        return r;
    m->mode = (m->st.mode & 0777) | 0400;
    if (m->st.size > CHANGES_FILE_MAX) {
        sync_tell_skipped(m->s, m->path, "it is larger than 16 GiB");
        return 0;
    }
    if (m->st.size <= SYNC_MEMORY_FILE)
        return add_small(m, fd);
    /* A streamed content ends its set. One that grew since it was planned gets a set of its own. */
    if (!m->last) {
        (void)sync_names_add(&m->s->unsettled, m->path);
        return 0;
    }
    return add_large(m, &fd);
}

static int add_gone(struct emit *m)
{
    struct tree_stat st;
    if (!m->old)
        return 0;
    /* It came back: look at it again instead of deleting what is there. */
    bool back = tree_stat(m->s->tree, m->path, &st, NULL) == 0 &&
                (st.kind == TREE_FILE || st.kind == TREE_DIR);
    if (back && !ignore_find(m->s->rules, m->path, st.kind == TREE_DIR, NULL)) {
        (void)sync_names_add(&m->s->unsettled, m->path);
        return 0;
    }
    return emit_delete(m, false);
}

static bool is_no_file(int r)
{
    return r == -ENOENT || r == -ENOTDIR || r == -ELOOP || r == -EISDIR || r == -TREE_NOT_REGULAR;
}

static int add_whatever(struct emit *m)
{
    int r = tree_stat(m->s->tree, m->path, &m->st, NULL);
    if (r < 0) {
        bool gone = m->old && (r == -ENOENT || r == -ENOTDIR) && m->old->kind != TREE_DIR;
        return gone ? emit_delete(m, false) : 0;
    }
    if (m->st.kind == TREE_DIR) {
        m->mode = (m->st.mode & 0777) | 0700;
        return add_dir(m);
    }
    if (m->st.kind == TREE_SYMLINK)
        return add_symlink(m);
    r = m->st.kind == TREE_FILE ? add_file(m) : 0;
    return is_no_file(r) ? 0 : r; /* changed under our hands: the next event or scan tells */
}

static int add_item(
    struct sync *s, struct sync_set *set, const struct sync_item *item, struct err *e)
{
    struct emit m = {.s = s,
        .set = set,
        .path = item->path,
        .old = manifest_get(index_manifest(s->index), item->path),
        .seen_ns = (int64_t)io_wall_ns(),
        .last = item == &set->items[set->item_count - 1],
        .e = e};
    if (item->kind == SCAN_FORGET)
        return m.old ? forget(&m, item->path, false) : 0;
    if (item->kind == SCAN_GONE)
        return add_gone(&m);
    /* Most are files, and opening one tells everything. */
    int r = item->was == TREE_FILE ? add_file(&m) : -ENOENT;
    return is_no_file(r) ? add_whatever(&m) : r;
}

/* What a content that is still read will be is noted when it is known (sync_set.c). */
int sync_ops_add(struct sync *s, struct sync_set *set, const struct sync_item *item, struct err *e)
{
    uint32_t before = set->ops;
    int r = add_item(s, set, item, e);
    if (r < 0 || set->ops == before || set->maker)
        return r;
    const struct manifest_entry *sent = manifest_get(index_manifest(s->index), item->path);
    r = sent ? index_intend(&set->intents, set->seq, sent) : 0;
    return r < 0 ? err_set(e, -r, "note '%s'", item->path) : 0;
}
