/* SPDX-License-Identifier: MIT */
/* Deltas against signatures that somebody else made. */
#include "shared/delta.h"
#include "shared/delta_internal.h"

#include <errno.h>
#include <string.h>

#include "shared/weaken.h"

#include "shared/banned.h"

#define HEADER_BYTES 12 /* magic, block length, length of a strong sum */
#define WEAK_BYTES 4

int delta_signature_check(const void *head, size_t head_len, uint64_t len, struct err *e)
{
    struct cursor c;
    cursor_init(&c, head, head_len);
    (void)cursor_u32(&c);
    uint32_t block = cursor_u32(&c), strong = cursor_u32(&c);
    uint64_t sum = WEAK_BYTES + (uint64_t)strong;
    if (c.bad || len > DELTA_SIGNATURE_MAX)
        return err_refuse(e, c.bad ? PROTO_BAD_CHANGES : PROTO_TOO_LARGE,
            c.bad ? "the body is no signature: it is shorter than its header"
                  : "a signature has at most %u bytes: use larger blocks",
            DELTA_SIGNATURE_MAX);
    if ((block < DELTA_BLOCK_MIN || block > DELTA_BLOCK_MAX) && !WEAK("signature"))
        return err_refuse(e, PROTO_BAD_CHANGES,
            "a signature's blocks have %u to %u bytes, not %u", DELTA_BLOCK_MIN, DELTA_BLOCK_MAX,
            block);
    if (strong == 0 || strong > UINT8_MAX || len <= HEADER_BYTES ||
        (len - HEADER_BYTES) % sum != 0)
        return err_refuse(e, PROTO_BAD_CHANGES,
            "the signature is damaged: it holds no whole number of blocks");
    uint64_t count = (len - HEADER_BYTES) / sum;
    if (count > DELTA_BLOCKS_MAX ||
        !delta_job_sums_header_valid(head, head_len, len, block, (uint32_t)count))
        return err_refuse(e, PROTO_BAD_CHANGES,
            "only signatures with BLAKE2 and rolling (RK) sums are read here, of at most %u blocks",
            DELTA_BLOCKS_MAX);
    return 0;
}

int delta_against(const void *sig, size_t len, int fd, uint64_t size, delta_sink *sink, void *ctx,
    struct err *e)
{
    CLEANUP(delta_sums_freep) struct delta_sums *loaded = NULL; /* outlives the job */
    CLEANUP(delta_job_freep) struct delta_job *job = NULL;
    CLEANUP(freep) uint8_t *data = malloc(DELTA_CHUNK);
    struct buf sums = {.data = (uint8_t *)(uintptr_t)sig, .len = len};
    int r = delta_signature_check(sig, len < HEADER_BYTES ? len : HEADER_BYTES, len, e);
    if (r < 0)
        return r;
    if (!data)
        return err_set(e, ENOMEM, "make a delta");
    r = delta_sums_load(&sums, &loaded);
    if (r == 0)
        r = delta_job_match(loaded, &job);
    for (uint64_t at = 0; r == 0; at += DELTA_CHUNK) {
        uint64_t left = size > at ? size - at : 0;
        size_t n = left < DELTA_CHUNK ? (size_t)left : DELTA_CHUNK;
        if ((r = delta_read(fd, data, n, at, e)) < 0)
            return r;
        r = delta_job_feed(job, data, n, n == left, sink, ctx);
        if (n == left)
            break;
    }
    return r < 0 ? err_set(e, -r, "make a delta") : 0;
}
