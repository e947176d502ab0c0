/* SPDX-License-Identifier: MIT */
/*
 * Blocks of the old version at any place of a gap, where neither their own place nor the shifted
 * one holds: the lands between several insertions. A mark of a block is made of 24 of its bytes
 * (first, middle, last), so that it costs nothing when blocks are hashed and the same at each
 * place, and needs no rolling. Where a mark is found the block's hash decides.
 *
 * What begins at a found block goes on block by block without any search, so only the bytes around
 * changes are searched. Content that is alike everywhere has marks that promise too much: few
 * blocks of one mark are kept, and hashing in vain has an end.
 */
#include "shared/delta.h"
#include "shared/delta_internal.h"

#include <errno.h>
#include <string.h>

#include "shared/banned.h"

#define SAME_MARK_MAX 8    /* blocks of one mark; further ones are not looked for */
#define PLACES_PER_BLOCK 4 /* in the table; and of bits, 8 times as many: */
#define BITS_PER_PLACE 8
/* So far from the last found block every place is looked at, then one block's length at a stride: a
 * file that has nothing in common must not cost much. */
#define DENSE_BYTES (1024u * 1024)
#define STRIDE_BLOCKS 16
#define IN_VAIN_PER_BYTE 64 /* bytes hashed without a match, for each byte of a gap */

struct delta_search {
    const struct delta_sig *sig;
    uint32_t mask;     /* places - 1 */
    uint32_t *places;  /* block + 1; 0: empty */
    uint64_t *bits;    /* is any block's mark like this? */
    uint64_t until;    /* in the new version: a found block ends here */
    uint32_t next;     /* the old block that may go on there */
    uint64_t dry_from; /* nothing was found from here on */
    uint64_t gap_end;  /* of the gap before */
    uint64_t data_at;  /* where data stands in the new version */
    size_t data_len;
    uint8_t data[DELTA_CHUNK + DELTA_BLOCK_MAX];
};

/* One gap. */
struct gap {
    struct delta_search *s;
    const struct delta_found *found;
    struct err *e;
    int fd;
    uint64_t size; /* of the new version */
    uint64_t told, end;
    uint64_t in_vain; /* bytes that may still be hashed without a match */
};

static inline uint64_t load64(const uint8_t *p)
{
    uint64_t value;

    memcpy(&value, p, sizeof(value));
    return value;
}

uint32_t delta_mark(const uint8_t *data, size_t block)
{
    uint64_t b = load64(data + block / 2), c = load64(data + block - 8);
    uint64_t x = load64(data) + (b << 21 | b >> 43) + (c << 42 | c >> 22);

    return (uint32_t)((x * UINT64_C(0x9e3779b97f4a7c15)) >> 32);
}

static inline bool marked(const struct delta_search *s, uint32_t mark)
{
    uint32_t bit = mark & (BITS_PER_PLACE * s->mask + BITS_PER_PLACE - 1);

    return s->bits[bit / 64] >> (bit % 64) & 1;
}

static void enter(struct delta_search *s, uint32_t block)
{
    const struct delta_sig *sig = s->sig;
    uint32_t mark = sig->marks[block], at = mark & s->mask;
    uint32_t bit = mark & (BITS_PER_PLACE * s->mask + BITS_PER_PLACE - 1);

    for (uint32_t same = 0; s->places[at]; at = (at + 1) & s->mask) {
        uint32_t other = s->places[at] - 1;
        if (sig->marks[other] == mark &&
            (sig->blocks[other] == sig->blocks[block] || ++same == SAME_MARK_MAX))
            return;
    }
    s->places[at] = block + 1;
    s->bits[bit / 64] |= UINT64_C(1) << (bit % 64);
}

void delta_search_free(struct delta_search *s)
{
    if (!s)
        return;
    free(s->places);
    free(s->bits);
    free(s);
}

int delta_search_new(const struct delta_sig *sig, struct delta_search **ret)
{
    struct delta_search *s = malloc(sizeof(*s));
    uint64_t places = 64;

    *ret = NULL;
    if (!s)
        return -ENOMEM;
    while (places < (uint64_t)sig->count * PLACES_PER_BLOCK)
        places *= 2;
    s->sig = sig;
    s->mask = (uint32_t)(places - 1);
    s->places = calloc(places, sizeof(*s->places));
    s->bits = calloc(places * BITS_PER_PLACE / 64, sizeof(*s->bits));
    s->until = s->data_at = s->dry_from = s->gap_end = 0;
    s->next = sig->count;
    s->data_len = 0;
    if (!s->places || !s->bits) {
        delta_search_free(s);
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < sig->count && delta_sig_block_len(sig, i) == sig->block; i++)
        enter(s, i);
    *ret = s;
    return 0;
}

/* The old block that is at p, or count. */
static uint32_t look_up(const struct delta_search *s, uint32_t mark, const uint8_t *p, bool *hashed)
{
    const struct delta_sig *sig = s->sig;
    uint64_t hash = 0;

    *hashed = false;
    for (uint32_t at = mark & s->mask; s->places[at]; at = (at + 1) & s->mask) {
        uint32_t block = s->places[at] - 1;
        if (sig->marks[block] != mark)
            continue;
        if (!*hashed)
            hash = hash_block64(p, sig->block);
        *hashed = true;
        if (sig->blocks[block] == hash)
            return block;
    }
    return sig->count;
}

/* Bytes of the new version from `at` on, at least `need` unless it ends before. */
static int have_data(struct gap *g, uint64_t at, size_t need)
{
    struct delta_search *s = g->s;
    uint64_t left = g->size - at, most = g->end - at + s->sig->block;

    if (at >= s->data_at && at + need <= s->data_at + s->data_len)
        return 0;
    if (left > most)
        left = most;
    s->data_at = at;
    s->data_len = left < sizeof(s->data) ? (size_t)left : sizeof(s->data);
    return delta_read(g->fd, s->data, s->data_len, at, g->e);
}

/* Old bytes come next, as far as the gap goes. */
static int tell_copy(struct gap *g, uint64_t old_pos, uint64_t from, uint64_t to)
{
    int r = from > g->told ? g->found->gap(g->found->ctx, g->told, from - g->told) : 0;

    to = to < g->end ? to : g->end;
    if (r == 0)
        r = g->found->copy(g->found->ctx, old_pos, to - from);
    g->told = to;
    return r;
}

static int tell_block(struct gap *g, uint32_t block, uint64_t from)
{
    struct delta_search *s = g->s;

    s->until = s->dry_from = from + delta_sig_block_len(s->sig, block);
    s->next = block + 1;
    return tell_copy(g, (uint64_t)block * s->sig->block, from, s->until);
}

/* The found block that ended at g->told goes on. 1, 0, <0. */
static int follow(struct gap *g)
{
    struct delta_search *s = g->s;

    if (s->until != g->told || s->next >= s->sig->count)
        return 0;
    uint32_t len = delta_sig_block_len(s->sig, s->next);
    if (len > g->size - g->told)
        return 0;
    int r = have_data(g, g->told, len);
    if (r < 0)
        return r;
    if (hash_block64(s->data + (g->told - s->data_at), len) != s->sig->blocks[s->next])
        return 0;
    r = tell_block(g, s->next, g->told);
    return r < 0 ? r : 1;
}

/* The next block that is anywhere from `at` on in what is in memory. *ret_at: searched up to there.
 */
static uint32_t find(struct gap *g, uint64_t at, uint64_t to, uint64_t *ret_at)
{
    const struct delta_search *s = g->s;
    const size_t block = s->sig->block;
    const uint8_t *p = s->data + (at - s->data_at), *stop = p + (to - at);
    uint32_t found = s->sig->count;
    bool hashed;

    for (; p < stop; p++) {
        uint32_t mark = delta_mark(p, block);
        if (!marked(s, mark))
            continue;
        found = look_up(s, mark, p, &hashed);
        if (found < s->sig->count)
            break;
        if (hashed && (g->in_vain = g->in_vain > block ? g->in_vain - block : 0) == 0)
            break;
    }
    *ret_at = s->data_at + (uint64_t)(p - s->data);
    return found;
}

/* The first block that begins in [*at, to); *at is where, or how far was searched. 1, 0, <0. */
static int search(struct gap *g, uint64_t *at, uint64_t to, uint32_t *ret_block)
{
    const struct delta_search *s = g->s;
    const uint64_t block = s->sig->block;
    const uint64_t last = g->size < block ? 0 : g->size - block + 1;

    to = to < last ? to : last;
    to = to < g->end ? to : g->end;
    while (*at < to && g->in_vain) {
        int r = have_data(g, *at, block);
        if (r < 0)
            return r;
        uint64_t known = s->data_at + s->data_len - block + 1;
        *ret_block = find(g, *at, to < known ? to : known, at);
        if (*ret_block < s->sig->count)
            return 1;
    }
    return 0;
}

/* As search, but only a look at each stride until one finds something; it may have begun before. */
static int look(struct gap *g, uint64_t *at, uint32_t *ret_block)
{
    const uint64_t block = g->s->sig->block;
    uint64_t before = *at;
    uint32_t earlier;

    for (uint64_t next = *at; next < g->end && g->in_vain; next += STRIDE_BLOCKS * block) {
        *at = next;
        int r = search(g, at, next + block, ret_block);
        if (r == 1) {
            r = search(g, &before, *at, &earlier);
            *at = r == 1 ? before : *at;
            *ret_block = r == 1 ? earlier : *ret_block;
            return r < 0 ? r : 1;
        }
        if (r < 0)
            return r;
        before = next;
    }
    return 0;
}

/* From g->told on. 1: a block was found and told; 0: there is none; <0. */
static int seek(struct gap *g)
{
    uint64_t at = g->told;
    uint32_t block;
    int r = search(g, &at, g->s->dry_from + DENSE_BYTES, &block);

    if (r == 0)
        r = look(g, &at, &block);
    if (r != 1)
        return r;
    r = tell_block(g, block, at);
    return r < 0 ? r : 1;
}

int delta_search_gap(struct delta_search *s, int fd, uint64_t size, uint64_t from, uint64_t len,
    const struct delta_found *found, struct err *e)
{
    struct gap g = {.s = s,
        .found = found,
        .e = e,
        .fd = fd,
        .size = size,
        .told = from,
        .end = from + len,
        .in_vain = len * IN_VAIN_PER_BYTE};
    int r = 0;

    if (from != s->gap_end)
        s->dry_from = from;
    s->gap_end = g.end;
    s->data_len = 0; /* the file may have changed since, and is read anew */
    /* A block that was found in the part before reaches into this one. */
    if (s->until > from && s->next) {
        uint64_t old_end =
            (uint64_t)(s->next - 1) * s->sig->block + delta_sig_block_len(s->sig, s->next - 1);
        r = tell_copy(&g, old_end - (s->until - from), from, s->until);
    }
    while (r >= 0 && g.told < g.end) {
        r = follow(&g);
        if (r == 0)
            r = seek(&g);
        if (r == 0)
            break;
    }
    if (r >= 0 && g.told < g.end)
        r = found->gap(found->ctx, g.told, g.end - g.told);
    return r < 0 ? r : 0;
}
