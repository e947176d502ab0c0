/* SPDX-License-Identifier: MIT */
#include "shared/delta.h"
#include "shared/delta_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "shared/io.h"

#include "shared/banned.h"

/* The stored form: magic with version, u64 size, u32 block, u32 bytes of sums, the block hashes as
 * u64, their marks as u32, the sums, XXH3-128 of all before. Big-endian. */
#define STORED_MAGIC "SILTSIG\002"
#define STORED_MAGIC_BYTES 8
#define STORED_HEADER (STORED_MAGIC_BYTES + 8 + 4 + 4)

/* librsync's sums are 12 bytes and at most 36 for each block. */
#define SUMS_MAX (12 + 36 * (size_t)DELTA_BLOCKS_MAX)

int delta_read(int fd, void *data, size_t len, uint64_t offset, struct err *e)
{
    ssize_t n = io_pread_full(fd, data, len, offset);

    if (n < 0)
        return err_set(e, (int)-n, "read a file at %" PRIu64, offset);
    if ((size_t)n < len)
        return err_say(e, ESTALE, "the file became shorter while it was read");
    return 0;
}

int delta_check_size(int fd, uint64_t size, int64_t *ret_mtime_ns, struct err *e)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return err_set(e, errno, "examine a file");
    if (!S_ISREG(st.st_mode))
        return err_say(e, EINVAL, "only regular files have deltas");
    if ((uint64_t)st.st_size != size)
        return err_say(e, ESTALE, "the file has %" PRIu64 " bytes and no longer %" PRIu64,
            (uint64_t)st.st_size, size);
    if (ret_mtime_ns)
        *ret_mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    return 0;
}

static uint32_t block_for(uint64_t size)
{
    uint32_t block = DELTA_BLOCK_MIN;

    while (block < DELTA_BLOCK_MAX && (uint64_t)block * DELTA_BLOCKS_MAX < size)
        block *= 2;
    return block;
}

/* An object with room for its block hashes. */
static int sig_new(uint64_t size, struct delta_sig **ret, struct err *e)
{
    if (size > DELTA_FILE_MAX)
        return err_say(e, EFBIG, "files above 16 GiB have no signature");
    CLEANUP(delta_sig_freep) struct delta_sig *sig = calloc(1, sizeof(*sig));
    if (!sig)
        return err_set(e, ENOMEM, "make a signature");
    sig->size = size;
    sig->block = block_for(size);
    sig->count = (uint32_t)((size + sig->block - 1) / sig->block);
    buf_init(&sig->sums, SUMS_MAX);
    if (sig->count) {
        sig->blocks = malloc(sizeof(*sig->blocks) * sig->count);
        sig->marks = calloc(sig->count, sizeof(*sig->marks));
        if (!sig->blocks || !sig->marks)
            return err_set(e, ENOMEM, "make a signature");
    }
    *ret = ptr_take(&sig);
    return 0;
}

int delta_sig_blank(uint64_t size, uint32_t block, struct delta_sig **ret, struct err *e)
{
    *ret = NULL;
    return block == block_for(size) ? sig_new(size, ret, e) : 0;
}

void delta_sig_free(struct delta_sig *sig)
{
    if (!sig)
        return;
    free(sig->blocks);
    free(sig->marks);
    buf_release(&sig->sums);
    free(sig);
}

void delta_sig_freep(struct delta_sig **sig)
{
    delta_sig_free(*sig);
    *sig = NULL;
}

uint64_t delta_sig_size(const struct delta_sig *sig)
{
    return sig->size;
}

bool delta_sig_is_complete(const struct delta_sig *sig)
{
    return sig->sums.len > 0;
}

static int sink_buf(void *ctx, const void *data, size_t len)
{
    return buf_add(ctx, data, len);
}

static void hash_blocks(struct delta_sig *sig, uint64_t at, const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len; i += sig->block) {
        size_t n = len - i < sig->block ? len - i : sig->block;
        sig->blocks[(at + i) / sig->block] = hash_block64(data + i, n);
        if (n == sig->block)
            sig->marks[(at + i) / sig->block] = delta_mark(data + i, n);
    }
}

/* Where librsync's sums go; sink NULL: they are not asked for. */
struct sums_to {
    delta_sink *sink;
    void *ctx;
};

/* One pass over the file: the whole hash, and what is asked for of block hashes (into blocks_of, if
 * not NULL) and sums. */
static int read_through(int fd, const struct delta_sig *sig, struct delta_sig *blocks_of,
    struct sums_to sums, struct hash *ret_hash, struct err *e)
{
    CLEANUP(freep) uint8_t *data = malloc(DELTA_CHUNK);
    CLEANUP(hash_state_freep) struct hash_state *whole = hash_state_new();
    CLEANUP(delta_job_freep) struct delta_job *job = NULL;

    if (!data || !whole)
        return err_set(e, ENOMEM, "make a signature");
    int r = sums.sink ? delta_job_sums(sig->size, sig->block, &job) : 0;
    if (r < 0)
        return err_set(e, -r, "begin a signature");
    for (uint64_t at = 0; at < sig->size || job; at += DELTA_CHUNK) {
        uint64_t left = sig->size > at ? sig->size - at : 0;
        size_t n = left < DELTA_CHUNK ? (size_t)left : DELTA_CHUNK;
        r = delta_read(fd, data, n, at, e);
        if (r < 0)
            return r;
        hash_state_add(whole, data, n);
        if (blocks_of)
            hash_blocks(blocks_of, at, data, n);
        r = job ? delta_job_feed(job, data, n, n == left, sums.sink, sums.ctx) : 0;
        if (r < 0)
            return err_set(e, -r, "make a signature");
        if (n == left)
            break;
    }
    hash_state_get(whole, ret_hash);
    return delta_check_size(fd, sig->size, NULL, e);
}

int delta_sig_make(int fd, uint64_t size, bool complete, struct delta_sig **ret,
    struct hash *ret_hash, struct err *e)
{
    CLEANUP(delta_sig_freep) struct delta_sig *sig = NULL;
    struct hash hash;
    int r = sig_new(size, &sig, e);

    if (r == 0)
        r = delta_check_size(fd, size, NULL, e);
    if (r == 0)
        r = read_through(fd, sig, sig,
            (struct sums_to){.sink = complete ? sink_buf : NULL, .ctx = &sig->sums}, &hash, e);
    if (r < 0)
        return r;
    *ret_hash = hash;
    *ret = ptr_take(&sig);
    return 0;
}

int delta_sig_complete(struct delta_sig *sig, int fd, const struct hash *expected, struct err *e)
{
    CLEANUP(buf_release) struct buf sums;
    struct hash hash;

    buf_init(&sums, SUMS_MAX);
    if (delta_sig_is_complete(sig))
        return 0;
    int r = delta_check_size(fd, sig->size, NULL, e);
    if (r == 0)
        r = read_through(fd, sig, NULL, (struct sums_to){.sink = sink_buf, .ctx = &sums}, &hash, e);
    if (r < 0)
        return r;
    if (!hash_equal(&hash, expected))
        return err_say(e, ESTALE, "the file changed since it was sent");
    buf_release(&sig->sums);
    sig->sums = sums;
    buf_init(&sums, 0); /* moved out */
    return 0;
}

static int write_sums(int fd, const struct delta_sig *shape, struct sums_to sums,
    struct hash *ret_hash, struct err *e)
{
    struct hash hash;

    if (shape->size > DELTA_FILE_MAX)
        return err_say(e, EFBIG, "files above 16 GiB have no signature");
    int r = delta_check_size(fd, shape->size, NULL, e);
    if (r == 0)
        r = read_through(fd, shape, NULL, sums, &hash, e);
    if (r == 0)
        *ret_hash = hash;
    return r;
}

int delta_sig_write(
    int fd, uint64_t size, delta_sink *sink, void *ctx, struct hash *ret_hash, struct err *e)
{
    const struct delta_sig shape = {.size = size, .block = block_for(size)};

    return write_sums(fd, &shape, (struct sums_to){.sink = sink, .ctx = ctx}, ret_hash, e);
}

int delta_sig_write_short(
    int fd, uint64_t size, delta_sink *sink, void *ctx, struct hash *ret_hash, struct err *e)
{
    struct delta_sig shape = {.size = size, .block = block_for(size)};

    while (shape.block < DELTA_BLOCK_MAX && (uint64_t)shape.block * shape.block < size)
        shape.block *= 2;
    return write_sums(fd, &shape, (struct sums_to){.sink = sink, .ctx = ctx}, ret_hash, e);
}

int delta_sig_save(const struct delta_sig *sig, struct buf *b)
{
    const size_t start = b->len;
    struct hash digest;
    int r = buf_reserve(b, STORED_HEADER + (size_t)sig->count * 12 + sig->sums.len + HASH_BYTES);

    /* The room is there: none of these fails, and b stays as it was if the first did. */
    if (r == 0)
        r = buf_add(b, STORED_MAGIC, STORED_MAGIC_BYTES);
    if (r == 0)
        r = buf_add_u64(b, sig->size);
    if (r == 0)
        r = buf_add_u32(b, sig->block);
    if (r == 0)
        r = buf_add_u32(b, (uint32_t)sig->sums.len);
    for (uint32_t i = 0; r == 0 && i < sig->count; i++)
        r = buf_add_u64(b, sig->blocks[i]);
    for (uint32_t i = 0; r == 0 && i < sig->count; i++)
        r = buf_add_u32(b, sig->marks[i]);
    if (r == 0 && sig->sums.len)
        r = buf_add(b, sig->sums.data, sig->sums.len);
    if (r < 0)
        return r;
    hash_buf(b->data + start, b->len - start, &digest);
    return buf_add(b, digest.b, HASH_BYTES);
}

static int damaged(struct err *e)
{
    return err_say(e, EBADMSG, "the stored signature is damaged or of another version");
}

int delta_sig_load(const void *data, size_t len, struct delta_sig **ret, struct err *e)
{
    CLEANUP(delta_sig_freep) struct delta_sig *sig = NULL;
    struct hash digest;
    struct cursor c;

    if (len < STORED_HEADER + HASH_BYTES || memcmp(data, STORED_MAGIC, STORED_MAGIC_BYTES) != 0)
        return damaged(e);
    hash_buf(data, len - HASH_BYTES, &digest);
    if (memcmp((const uint8_t *)data + len - HASH_BYTES, digest.b, HASH_BYTES) != 0)
        return damaged(e);
    cursor_init(&c, (const uint8_t *)data + STORED_MAGIC_BYTES, len - STORED_MAGIC_BYTES);
    uint64_t size = cursor_u64(&c);
    uint32_t block = cursor_u32(&c), sums_len = cursor_u32(&c);
    if (size > DELTA_FILE_MAX || block != block_for(size))
        return damaged(e);
    int r = sig_new(size, &sig, e);
    if (r < 0)
        return r;
    if (c.left != (uint64_t)sig->count * 12 + sums_len + HASH_BYTES)
        return damaged(e);
    for (uint32_t i = 0; i < sig->count; i++)
        sig->blocks[i] = cursor_u64(&c);
    for (uint32_t i = 0; i < sig->count; i++)
        sig->marks[i] = cursor_u32(&c);
    const uint8_t *sums = cursor_bytes(&c, sums_len);
    if (sums_len && !delta_job_sums_valid(sums, sums_len, sig->block, sig->count))
        return damaged(e);
    if (sums_len && buf_add(&sig->sums, sums, sums_len) < 0)
        return err_set(e, ENOMEM, "load a signature");
    *ret = ptr_take(&sig);
    return 0;
}
