/* SPDX-License-Identifier: MIT */
/*
 * Which blocks of the old version are in the new one, found in one pass over the new version by
 * block hashes alone. Two places are tried for a block i: its own, i * block, where everything
 * before the first change of length lies, and the shifted one, i * block + (new size - old size),
 * where everything behind the last lies. The hashes at the own places are the new version's
 * signature, so they cost nothing more; those at the shifted places are computed only from the
 * first difference on, and taken over where both coincide.
 *
 * What is known is told at once and in order: equal blocks as copies, what lies between as gaps. A
 * gap that becomes long is told in parts.
 */
#include "shared/delta.h"
#include "shared/delta_internal.h"

#include "shared/banned.h"

#define GAP_MAX (UINT64_C(8) * 1024 * 1024)

void delta_scan_init(struct delta_scan *s, const struct delta_sig *sig, uint64_t size,
    struct delta_sig *made, const struct delta_found *found)
{
    *s = (struct delta_scan){
        .sig = sig, .made = made, .size = size, .found = *found, .align = DELTA_OWN};
}

static uint64_t own_from(const struct delta_scan *s)
{
    return (uint64_t)s->own * s->sig->block;
}

static uint64_t own_end(const struct delta_scan *s)
{
    uint64_t end = own_from(s) + s->sig->block;

    return end < s->size ? end : s->size;
}

/* Unsigned wrap-around is undone by the addition. */
static uint64_t moved_from(const struct delta_scan *s)
{
    return (uint64_t)s->moved * s->sig->block + s->size - s->sig->size;
}

static bool tries_moved(const struct delta_scan *s)
{
    return s->size != s->sig->size && s->align != DELTA_OWN && s->moved < s->sig->count;
}

/* From here on nothing is known to be equal. */
static void enter_gap(struct delta_scan *s)
{
    const uint64_t block = s->sig->block;

    if (s->align == DELTA_OWN) {
        /* The first block whose shifted place is here or further. */
        uint64_t from = s->pos + s->sig->size;
        from = from > s->size ? from - s->size : 0;
        s->moved = (uint32_t)((from + block - 1) / block);
    }
    s->align = DELTA_GAP;
}

/* Old block `block`, which stands at `from`, goes on where the last copy ended or ends a gap. */
static int take(struct delta_scan *s, enum delta_align align, uint32_t block, uint64_t from)
{
    uint32_t len = delta_sig_block_len(s->sig, block);
    int r = from > s->pos ? s->found.gap(s->found.ctx, s->pos, from - s->pos) : 0;

    if (r == 0)
        r = s->found.copy(s->found.ctx, (uint64_t)block * s->sig->block, len);
    s->align = align;
    s->pos = from + len;
    s->copied += len;
    return r;
}

/* The old version's last block is short, and the new version may go on behind it. */
static int take_grown_end(struct delta_scan *s, const uint8_t *data, uint64_t from)
{
    uint32_t len = delta_sig_block_len(s->sig, s->own);

    if (s->own + 1 != s->sig->count || len >= own_end(s) - from ||
        hash_block64(data, len) != s->sig->blocks[s->own])
        return 0;
    return take(s, DELTA_OWN, s->own, from);
}

static int scan_own(struct delta_scan *s, const uint8_t *data)
{
    const uint64_t from = own_from(s);
    const size_t len = (size_t)(own_end(s) - from);
    const uint64_t hash = hash_block64(data, len);
    int r = 0;

    if (s->made)
        s->made->blocks[s->own] = hash;
    if (s->made && len == s->sig->block)
        s->made->marks[s->own] = delta_mark(data, len);
    bool open = s->align != DELTA_MOVED && from >= s->pos;
    bool equal = s->own < s->sig->count && len == delta_sig_block_len(s->sig, s->own) &&
                 hash == s->sig->blocks[s->own];
    if (open && equal)
        r = take(s, DELTA_OWN, s->own, from);
    else if (s->align == DELTA_OWN) {
        r = s->own < s->sig->count ? take_grown_end(s, data, from) : 0;
        enter_gap(s);
    }
    s->own++;
    return r;
}

static int scan_moved(struct delta_scan *s, const uint8_t *data)
{
    const uint64_t from = moved_from(s);
    const uint32_t len = delta_sig_block_len(s->sig, s->moved);
    const uint64_t block = s->sig->block;
    int r = 0;

    if (from >= s->pos) {
        /* Where the shift is a multiple of the block it is an own block, which was looked at. */
        bool known = s->made && from % block == 0 && from / block < s->own &&
                     (len == block || from + len == s->size);
        uint64_t hash = known ? s->made->blocks[from / block] : hash_block64(data, len);
        if (hash == s->sig->blocks[s->moved])
            r = take(s, DELTA_MOVED, s->moved, from);
        else if (s->align == DELTA_MOVED)
            enter_gap(s);
    }
    s->moved++;
    return r;
}

int delta_scan_feed(
    struct delta_scan *s, const uint8_t *data, size_t len, uint64_t at, size_t *ret_used)
{
    const uint64_t end = at + len;
    int r = 0;

    for (;;) {
        bool own = own_from(s) < s->size && own_end(s) <= end;
        bool moved = tries_moved(s);
        uint64_t moved_end = moved ? moved_from(s) + delta_sig_block_len(s->sig, s->moved) : 0;
        if (moved && moved_end <= end && !(own && own_end(s) <= moved_end))
            r = scan_moved(s, data + (moved_from(s) - at));
        else if (own)
            r = scan_own(s, data + (own_from(s) - at));
        else
            break;
        if (r < 0)
            return r;
    }
    uint64_t keep = own_from(s) < end ? own_from(s) : end;
    if (tries_moved(s) && moved_from(s) < keep)
        keep = moved_from(s);
    *ret_used = (size_t)(keep - at);
    if (s->align == DELTA_GAP && keep > s->pos && keep - s->pos >= GAP_MAX) {
        r = s->found.gap(s->found.ctx, s->pos, keep - s->pos);
        s->pos = keep;
    }
    return r;
}

int delta_scan_end(struct delta_scan *s)
{
    uint64_t left = s->size - s->pos;
    int r = left ? s->found.gap(s->found.ctx, s->pos, left) : 0;

    s->pos = s->size;
    return r;
}
