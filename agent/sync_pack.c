/* SPDX-License-Identifier: MIT */
/*
 * The compression of a set's body, piece by piece while the set is built, by a thread of the
 * library's own: the next files are read meanwhile. One compressor serves all sets, for they are
 * built one after the other; memory that is used again costs no page faults.
 */
#include "agent/sync_internal.h"

#include <errno.h>
#include <string.h>

#include "shared/io.h"

#include "shared/banned.h"

#define PACK_MIN 1024 /* bytes: below, compression does not pay */
#define LEVEL_AWAY 1
#define LEVEL_HERE (-5) /* of a whole tree to the same machine: there bytes cost less than time */
#define OUT_PIECE (128u * 1024)
#define SAMPLE_BYTES (128 * 1024)

void sync_pack_init(struct sync *s)
{
    buf_init(&s->spare_raw, SYNC_RAW_MAX);
    buf_init(&s->spare_packed, ZSTD_COMPRESSBOUND(SYNC_RAW_MAX));
}

int sync_pack_level(const struct sync *s)
{
    static const char *const here[] = {
        "http://127.", "http://localhost:", "http://[::1]", "http://localhost/"};
    for (size_t i = 0; s->whole && i < sizeof here / sizeof here[0]; i++) {
        if (strncmp(s->link.server, here[i], strlen(here[i])) == 0)
            return LEVEL_HERE;
    }
    return LEVEL_AWAY;
}

void sync_pack_drop(struct sync *s)
{
    buf_release(&s->spare_raw);
    buf_release(&s->spare_packed);
    (void)ZSTD_freeCCtx(s->zstd);
    s->zstd = NULL;
    sync_pack_init(s);
}

static int begin(struct sync_set *set)
{
    struct sync *s = set->sync;
    if (!s->zstd && !(s->zstd = ZSTD_createCCtx()))
        return -ENOMEM;
    (void)ZSTD_CCtx_reset(s->zstd, ZSTD_reset_session_and_parameters);
    if (ZSTD_isError(ZSTD_CCtx_setParameter(s->zstd, ZSTD_c_compressionLevel, sync_pack_level(s))))
        return -EIO;
    /* A library without threads refuses, and compresses here. */
    (void)ZSTD_CCtx_setParameter(s->zstd, ZSTD_c_nbWorkers, 1);
    set->packing = true;
    if (!set->packed.data)
        sync_pack_swap(&set->packed, &s->spare_packed);
    return 0;
}

void sync_pack_swap(struct buf *a, struct buf *b)
{
    struct buf other = *a;
    *a = *b;
    *b = other;
    buf_reset(a);
    buf_reset(b);
}

static int squeeze(struct sync_set *set, ZSTD_EndDirective mode)
{
    ZSTD_inBuffer in = {.src = set->raw.data, .size = set->raw.len};
    struct buf *to = &set->packed;
    for (;;) {
        int r = buf_reserve(to, OUT_PIECE);
        if (r < 0)
            return r;
        ZSTD_outBuffer out = {.dst = to->data + to->len, .size = OUT_PIECE};
        size_t left = ZSTD_compressStream2(set->sync->zstd, &out, &in, mode);
        if (ZSTD_isError(left))
            return -EIO;
        to->len += out.pos;
        if (mode == ZSTD_e_end ? left == 0 : in.pos == in.size)
            break;
    }
    buf_reset(&set->raw);
    return 0;
}

int sync_pack_more(struct sync_set *set)
{
    if (set->raw.len < SYNC_PACK_PIECE)
        return 0;
    int r = set->packing ? 0 : begin(set);
    return r < 0 ? r : squeeze(set, ZSTD_e_continue);
}

static void take_packed(struct sync_set *set)
{
    set->request.body = set->packed.data;
    set->request.body_len = set->packed.len;
    set->request.content_encoding = "zstd";
}

/* A set that is small enough to be compressed at once is sent as it is if that does not pay. */
static int pack_small(struct sync_set *set)
{
    set->request.body = set->raw.data;
    set->request.body_len = set->raw.len;
    if (set->raw.len < PACK_MIN)
        return 0;
    int r = buf_reserve(&set->packed, ZSTD_compressBound(set->raw.len));
    if (r < 0)
        return r;
    size_t size = ZSTD_compress(set->packed.data, ZSTD_compressBound(set->raw.len), set->raw.data,
        set->raw.len, LEVEL_AWAY);
    if (ZSTD_isError(size) || size >= set->raw.len / 20 * 19) {
        buf_release(&set->packed);
        return 0;
    }
    set->packed.len = size;
    take_packed(set);
    return 0;
}

int sync_pack_end(struct sync_set *set)
{
    if (!set->packing)
        return pack_small(set);
    int r = squeeze(set, ZSTD_e_end);
    if (r == 0)
        take_packed(set);
    return r;
}

bool sync_pack_shrinks(int fd, int level)
{
    CLEANUP(freep) uint8_t *data = malloc(SAMPLE_BYTES);
    CLEANUP(freep) uint8_t *packed = malloc(ZSTD_COMPRESSBOUND(SAMPLE_BYTES));
    if (!data || !packed)
        return false;
    ssize_t n = io_pread_full(fd, data, SAMPLE_BYTES, 0);
    if (n <= 0)
        return false;
    size_t size = ZSTD_compress(packed, ZSTD_COMPRESSBOUND(SAMPLE_BYTES), data, (size_t)n, level);
    return !ZSTD_isError(size) && size < (size_t)n / 10 * 9;
}
