/* SPDX-License-Identifier: MIT */
/*
 * The file: 8 bytes of magic and version, then records
 *     u32 length of the payload · u64 XXH3-64 of the payload · payload
 * A payload is the state followed by changes; all integers big-endian, texts as u16 length + bytes:
 *     link id, sandbox, client, epoch, u64 generation, u64 acked seq, u64 reserved seq
 *     'P' path, u8 kind, u32 mode, u64 size, 16 hash, u64 mtime, ctime, inode, seen, target
 *     'R' path, u8 with content      'M' from, to      'W' path, u64 seq, u8 kind, 16 hash: a doubt
 *     'C' path: a contest            'E' "": none is left
 */
#include "agent/index.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/index_internal.h"
#include "shared/path.h"

#include "shared/banned.h"

/* ---- encoding */

static int add_text(struct buf *b, const char *text)
{
    size_t len = strlen(text);
    int r = len > UINT16_MAX ? -EINVAL : buf_add_u16(b, (uint16_t)len);
    return r < 0 ? r : buf_add(b, text, len);
}

int index_log_state(const struct index *ix, struct buf *b)
{
    const char *texts[] = {ix->link_id, ix->sandbox, ix->state.client, ix->state.epoch};
    const uint64_t numbers[] = {ix->state.generation, ix->state.acked_seq, ix->reserved_seq};
    int r = 0;
    for (size_t i = 0; r == 0 && i < 4; i++)
        r = add_text(b, texts[i]);
    for (size_t i = 0; r == 0 && i < 3; i++)
        r = buf_add_u64(b, numbers[i]);
    return r;
}

int index_log_put(struct buf *b, const struct manifest_entry *entry)
{
    const uint64_t times[] = {
        (uint64_t)entry->mtime_ns, (uint64_t)entry->ctime_ns, entry->ino, (uint64_t)entry->seen_ns};
    int r = buf_addc(b, 'P');
    if (r == 0)
        r = add_text(b, entry->path);
    if (r == 0)
        r = buf_add_u8(b, (uint8_t)entry->kind);
    if (r == 0)
        r = buf_add_u32(b, entry->mode);
    if (r == 0)
        r = buf_add_u64(b, entry->size);
    if (r == 0)
        r = buf_add(b, entry->hash.b, HASH_BYTES);
    for (size_t i = 0; r == 0 && i < 4; i++)
        r = buf_add_u64(b, times[i]);
    return r < 0 ? r : add_text(b, entry->target ? entry->target : "");
}

/* An append that took place in part only is undone, so that the log stays readable. */
#define LOGGED(log, call)                                                                          \
    __extension__({                                                                                \
        size_t before_ = (log)->len;                                                               \
        int r_ = (call);                                                                           \
        if (r_ < 0)                                                                                \
            (log)->len = before_;                                                                  \
        r_;                                                                                        \
    })

static int add_path(struct buf *b, char what, const char *path)
{
    int r = buf_addc(b, what);
    return r < 0 ? r : add_text(b, path);
}

static int add_remove(struct buf *b, const char *path, bool with_content)
{
    int r = add_path(b, 'R', path);
    return r < 0 ? r : buf_add_u8(b, with_content);
}

static int add_move(struct buf *b, const char *from, const char *to)
{
    int r = add_path(b, 'M', from);
    return r < 0 ? r : add_text(b, to);
}

int index_put(struct index *ix, const struct manifest_entry *entry, struct buf *log)
{
    int r = LOGGED(log, index_log_put(log, entry));
    index_contest_end(ix, entry->path, false);
    return r < 0 ? r : manifest_put(ix->manifest, entry);
}

int index_remove(struct index *ix, const char *path, bool with_content, struct buf *log)
{
    int r = LOGGED(log, add_remove(log, path, with_content));
    if (r < 0)
        return r;
    index_contest_end(ix, path, with_content);
    if (with_content)
        (void)manifest_remove_tree(ix->manifest, path);
    else
        (void)manifest_remove(ix->manifest, path);
    return 0;
}

int index_move(struct index *ix, const char *from, const char *to, struct buf *log)
{
    int r = LOGGED(log, add_move(log, from, to));
    index_contest_end(ix, from, true);
    index_contest_end(ix, to, true);
    return r < 0 ? r : manifest_move(ix->manifest, from, to);
}

/* ---- doubts and contests */

int index_intend(struct buf *log, uint64_t seq, const struct manifest_entry *sent)
{
    size_t before = log->len;
    int r = buf_addc(log, 'W');
    if (r == 0)
        r = add_text(log, sent->path);
    if (r == 0)
        r = buf_add_u64(log, seq);
    if (r == 0)
        r = buf_add_u8(log, (uint8_t)sent->kind);
    if (r == 0)
        r = buf_add(log, sent->hash.b, HASH_BYTES);
    if (r < 0)
        log->len = before;
    return r;
}

int index_log_contest(struct buf *b, const char *path)
{
    return add_path(b, 'C', path);
}

int index_contest(struct index *ix, const char *path, struct buf *log)
{
    int r = LOGGED(log, index_log_contest(log, path));
    return r < 0 ? r : index_contest_add(ix, path);
}

/* No path: all of them. */
int index_end_contests(struct index *ix, struct buf *log)
{
    int r = LOGGED(log, add_path(log, 'E', ""));
    if (r == 0)
        index_contest_end(ix, "", true);
    return r;
}

/* ---- decoding */

static bool get_text(struct cursor *c, char *out, size_t size)
{
    size_t len = cursor_u16(c);
    const uint8_t *data = cursor_bytes(c, len);
    if (!data || len >= size || memchr(data, '\0', len))
        return false;
    memcpy(out, data, len);
    out[len] = '\0';
    return true;
}

static bool get_path(struct cursor *c, char out[PATH_BYTES_MAX + 1])
{
    return get_text(c, out, PATH_BYTES_MAX + 1) && path_check(out, strlen(out)) == PATH_FINE;
}

static int read_put(struct index *ix, struct cursor *c)
{
    char path[PATH_BYTES_MAX + 1], target[PATH_BYTES_MAX + 1];
    if (!get_path(c, path))
        return -EBADMSG;
    struct manifest_entry entry = {.path = path};
    uint8_t kind = cursor_u8(c);
    entry.mode = cursor_u32(c);
    entry.size = cursor_u64(c);
    const uint8_t *hash = cursor_bytes(c, HASH_BYTES);
    if (hash)
        memcpy(entry.hash.b, hash, HASH_BYTES);
    entry.mtime_ns = (int64_t)cursor_u64(c);
    entry.ctime_ns = (int64_t)cursor_u64(c);
    entry.ino = cursor_u64(c);
    entry.seen_ns = (int64_t)cursor_u64(c);
    if (!get_text(c, target, sizeof(target)) || c->bad || kind > TREE_SYMLINK)
        return -EBADMSG;
    entry.kind = (enum tree_kind)kind;
    entry.target = entry.kind == TREE_SYMLINK ? target : NULL;
    ix->puts++;
    index_contest_end(ix, path, false);
    return manifest_put(ix->manifest, &entry);
}

static int read_doubt(struct index *ix, struct cursor *c, const char *path)
{
    uint64_t seq = cursor_u64(c);
    uint8_t kind = cursor_u8(c);
    const uint8_t *hash = cursor_bytes(c, HASH_BYTES);
    struct manifest_entry sent = {.path = (char *)path, .kind = (enum tree_kind)kind};
    if (c->bad || !hash || kind > TREE_SYMLINK)
        return -EBADMSG;
    memcpy(sent.hash.b, hash, HASH_BYTES);
    return seq <= ix->settled_seq ? 0 : index_doubt_add(ix, seq, &sent);
}

static int read_change(struct index *ix, struct cursor *c)
{
    char path[PATH_BYTES_MAX + 1], to[PATH_BYTES_MAX + 1];
    uint8_t what = cursor_u8(c);
    if (what == 'P')
        return read_put(ix, c);
    if (what == 'E') {
        index_contest_end(ix, "", true);
        return get_text(c, path, sizeof(path)) ? 0 : -EBADMSG;
    }
    if (!get_path(c, path))
        return -EBADMSG;
    if (what == 'M') {
        if (!get_path(c, to))
            return -EBADMSG;
        index_contest_end(ix, path, true);
        index_contest_end(ix, to, true);
        int r = manifest_move(ix->manifest, path, to);
        return r == -ENOENT ? 0 : r;
    }
    if (what == 'W')
        return read_doubt(ix, c, path);
    if (what == 'C')
        return index_contest_add(ix, path);
    if (what != 'R')
        return -EBADMSG;
    bool with_content = cursor_u8(c) != 0;
    index_contest_end(ix, path, with_content);
    if (with_content)
        (void)manifest_remove_tree(ix->manifest, path);
    else
        (void)manifest_remove(ix->manifest, path);
    return c->bad ? -EBADMSG : 0;
}

static int read_state(struct index *ix, struct cursor *c)
{
    char link_id[sizeof(ix->link_id)], sandbox[sizeof(ix->sandbox)];
    if (!get_text(c, link_id, sizeof(link_id)) || !get_text(c, sandbox, sizeof(sandbox)) ||
        !get_text(c, ix->state.client, sizeof(ix->state.client)) ||
        !get_text(c, ix->state.epoch, sizeof(ix->state.epoch)))
        return -EBADMSG;
    ix->state.generation = cursor_u64(c);
    ix->state.acked_seq = cursor_u64(c);
    ix->reserved_seq = cursor_u64(c);
    bool ours = strcmp(link_id, ix->link_id) == 0 && strcmp(sandbox, ix->sandbox) == 0;
    return c->bad || !ours ? -EBADMSG : 0;
}

int index_log_read(struct index *ix, struct cursor *c, bool play)
{
    uint32_t len = cursor_u32(c);
    uint64_t sum = cursor_u64(c);
    const uint8_t *payload = cursor_bytes(c, len);
    struct cursor p;
    if (!payload || len == 0 || hash_block64(payload, len) != sum)
        return 0;
    cursor_init(&p, payload, len);
    int r = read_state(ix, &p);
    while (r == 0 && play && p.left)
        r = read_change(ix, &p);
    return r < 0 ? r : 1;
}
