/* SPDX-License-Identifier: MIT */
#include "shared/hash.h"

#include <errno.h>
#include <stdlib.h>

#if defined(__x86_64__)
#include <xxh_x86dispatch.h> /* chooses AVX2 or AVX-512 at run time; the plain library is SSE2 */
#else
#include <xxhash.h>
#endif

#include "shared/io.h"

#include "shared/banned.h"

/* Large enough to make system calls rare, small enough for the second-level cache and a stack. */
#define BLOCK_BYTES ((size_t)64 * 1024)

struct hash_state {
    XXH3_state_t *xxh; /* must be 64-byte aligned: allocated by the library */
};

static void canonical(XXH128_hash_t h, struct hash *ret)
{
    XXH128_canonical_t c;
    _Static_assert(sizeof(c.digest) == HASH_BYTES, "XXH3-128 has 16 bytes");
    XXH128_canonicalFromHash(&c, h);
    memcpy(ret->b, c.digest, HASH_BYTES);
}

void hash_buf(const void *data, size_t len, struct hash *ret)
{
    canonical(XXH3_128bits(data, len), ret);
}

uint64_t hash_block64(const void *data, size_t len)
{
    return XXH3_64bits(data, len);
}

uint64_t hash_seeded64(const void *data, size_t len, uint64_t seed)
{
    return XXH3_64bits_withSeed(data, len, seed);
}

struct hash_state *hash_state_new(void)
{
    struct hash_state *s = malloc(sizeof(*s));
    if (!s)
        return NULL;
    s->xxh = XXH3_createState();
    if (!s->xxh) {
        free(s);
        return NULL;
    }
    hash_state_reset(s);
    return s;
}

void hash_state_free(struct hash_state *s)
{
    if (!s)
        return;
    (void)XXH3_freeState(s->xxh);
    free(s);
}

void hash_state_freep(struct hash_state **s)
{
    hash_state_free(*s);
    *s = NULL;
}

void hash_state_reset(struct hash_state *s)
{
    (void)XXH3_128bits_reset(s->xxh);
}

void hash_state_add(struct hash_state *s, const void *data, size_t len)
{
    /* The library fails for a NULL pointer only, which an empty piece may well be. */
    if (len > 0)
        (void)XXH3_128bits_update(s->xxh, data, len);
}

void hash_state_get(const struct hash_state *s, struct hash *ret)
{
    canonical(XXH3_128bits_digest(s->xxh), ret);
}

int hash_fd(int fd, struct hash *ret, uint64_t *ret_size, struct err *e)
{
    uint8_t block[BLOCK_BYTES];
    uint64_t size = 0;
    ssize_t n = io_pread_full(fd, block, sizeof(block), 0);
    if (n < 0)
        return err_set(e, (int)-n, "read a file to hash it");
    /* Most files end here: no state, no allocation. */
    if ((size_t)n < sizeof(block)) {
        hash_buf(block, (size_t)n, ret);
        if (ret_size)
            *ret_size = (uint64_t)n;
        return 0;
    }
    CLEANUP(hash_state_freep) struct hash_state *s = hash_state_new();
    if (!s)
        return err_set(e, ENOMEM, "hash a file");
    while (n > 0) {
        hash_state_add(s, block, (size_t)n);
        size += (uint64_t)n;
        if ((size_t)n < sizeof(block))
            break;
        n = io_pread_full(fd, block, sizeof(block), size);
    }
    if (n < 0)
        return err_set(e, (int)-n, "read a file to hash it");
    hash_state_get(s, ret);
    if (ret_size)
        *ret_size = size;
    return 0;
}

const char *hash_text(const struct hash *h, char out[HASH_TEXT_BYTES])
{
    static const char digits[] = "0123456789abcdef";
    char *p = out;
    memcpy(p, HASH_PREFIX, sizeof(HASH_PREFIX) - 1);
    p += sizeof(HASH_PREFIX) - 1;
    for (size_t i = 0; i < HASH_BYTES; i++) {
        *p++ = digits[h->b[i] >> 4];
        *p++ = digits[h->b[i] & 15];
    }
    *p = '\0';
    return out;
}

static int nibble(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

int hash_parse(const char *text, struct hash *ret)
{
    struct hash h;
    if (strnlen(text, HASH_TEXT_BYTES) != HASH_TEXT_BYTES - 1 ||
        strncmp(text, HASH_PREFIX, sizeof(HASH_PREFIX) - 1) != 0)
        return -EINVAL;
    const char *p = text + sizeof(HASH_PREFIX) - 1;
    for (size_t i = 0; i < HASH_BYTES; i++, p += 2) {
        int high = nibble(p[0]), low = nibble(p[1]);
        if (high < 0 || low < 0)
            return -EINVAL;
        h.b[i] = (uint8_t)(high << 4 | low);
    }
    *ret = h;
    return 0;
}
