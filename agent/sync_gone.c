/* SPDX-License-Identifier: MIT */
/* Files that vanished in this round: what appears elsewhere with their content was moved. */
#include "agent/sync_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared/banned.h"

void sync_gone_drop(struct sync *s)
{
    for (size_t i = 0; i < s->gone_count; i++)
        free(s->gone[i].path);
    free(s->gone);
    s->gone = NULL;
    s->gone_count = 0;
}

int sync_gone_add(struct sync *s, const struct manifest_entry *entry)
{
    if (entry->kind != TREE_FILE)
        return 0;
    if ((s->gone_count & (s->gone_count - 1)) == 0) {
        size_t cap = s->gone_count ? s->gone_count * 2 : 1;
        struct sync_gone *more = realloc(s->gone, cap * sizeof(*more));
        if (!more)
            return -ENOMEM;
        s->gone = more;
    }
    struct sync_gone *g = &s->gone[s->gone_count];
    *g = (struct sync_gone){
        .hash = entry->hash, .size = entry->size, .ino = entry->ino, .path = strdup(entry->path)};
    if (!g->path)
        return -ENOMEM;
    s->gone_count++;
    return 0;
}

static int by_hash(const void *a, const void *b)
{
    const struct sync_gone *x = a, *y = b;
    int c = memcmp(x->hash.b, y->hash.b, HASH_BYTES);
    return c ? c : (x->size > y->size) - (x->size < y->size);
}

void sync_gone_sort(struct sync *s)
{
    if (s->gone_count)
        qsort(s->gone, s->gone_count, sizeof(*s->gone), by_hash);
}

struct sync_gone *sync_gone_find(
    struct sync *s, const struct hash *hash, uint64_t size, uint64_t ino)
{
    struct sync_gone key = {.hash = *hash, .size = size}, *best = NULL;
    struct sync_gone *at =
        s->gone_count ? bsearch(&key, s->gone, s->gone_count, sizeof(key), by_hash) : NULL;
    if (!at)
        return NULL;
    while (at > s->gone && by_hash(at - 1, &key) == 0)
        at--;
    for (; at < s->gone + s->gone_count && by_hash(at, &key) == 0; at++) {
        const struct manifest_entry *there = manifest_get(index_manifest(s->index), at->path);
        /* Spared already, or no longer what it was. */
        if (at->used || !there || there->kind != TREE_FILE || !hash_equal(&there->hash, hash))
            continue;
        if (at->ino == ino)
            return at;
        /* Empty files are all alike: only the same one was moved. */
        if (!best && size > 0)
            best = at;
    }
    return best;
}
