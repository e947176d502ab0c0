/* SPDX-License-Identifier: MIT */
#include "shared/manifest.h"

#include <errno.h>
#include <string.h>

#include "shared/buf.h"

#include "shared/banned.h"

#define RACY_NS INT64_C(10000000)
#define RACY_COARSE_NS INT64_C(2000000000)
#define SECOND_NS INT64_C(1000000000)
#define PATH_ROOM_BYTES (64 * 1024) /* path_check'd paths are shorter by far */

bool manifest_unchanged(const struct manifest_entry *entry, const struct tree_stat *st)
{
    if (entry->kind != st->kind || entry->size != st->size || entry->mtime_ns != st->mtime_ns ||
        entry->ctime_ns != st->ctime_ns || entry->ino != st->ino)
        return false;
    /* Nobody can set a ctime: one without a fraction was made by a file system that keeps none. */
    int64_t settled_ns, racy_ns = entry->ctime_ns % SECOND_NS ? RACY_NS : RACY_COARSE_NS;
    if (__builtin_sub_overflow(entry->seen_ns, racy_ns, &settled_ns))
        return false;
    return entry->mtime_ns <= settled_ns && entry->ctime_ns <= settled_ns;
}

/* One entry in a form that no other entry shares: lengths before what varies, fixed widths else. */
static int encode(struct buf *b, const struct manifest_entry *entry)
{
    static const struct hash zeros;
    size_t len = strlen(entry->path);
    bool dir = entry->kind == TREE_DIR;
    uint32_t mode = entry->kind == TREE_SYMLINK ? 0 : entry->mode & 0777;
    if (buf_add_u32(b, (uint32_t)len) < 0 || buf_add(b, entry->path, len) < 0 ||
        buf_add_u8(b, (uint8_t)entry->kind) < 0 || buf_add_u32(b, mode) < 0 ||
        buf_add_u64(b, dir ? 0 : entry->size) < 0 ||
        buf_add(b, dir ? zeros.b : entry->hash.b, HASH_BYTES) < 0)
        return -ENOMEM;
    return 0;
}

static int digest(const struct manifest *m, bool with_runs, struct hash *ret)
{
    size_t count;
    CLEANUP(freep) const struct manifest_entry **all = manifest_sorted(m, &count);
    CLEANUP(hash_state_freep) struct hash_state *s = hash_state_new();
    CLEANUP(buf_release) struct buf record;
    buf_init(&record, PATH_ROOM_BYTES);
    if (!all || !s)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        if (all[i]->by_run && !with_runs)
            continue;
        buf_reset(&record);
        if (encode(&record, all[i]) < 0)
            return -ENOMEM;
        hash_state_add(s, record.data, record.len);
    }
    hash_state_get(s, ret);
    return 0;
}

int manifest_digest(const struct manifest *m, struct hash *ret)
{
    return digest(m, true, ret);
}

int manifest_digest_synced(const struct manifest *m, struct hash *ret)
{
    return digest(m, false, ret);
}
