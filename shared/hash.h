/* SPDX-License-Identifier: MIT */
/*
 * XXH3-128: the name of a file's content. It proves integrity against accidents, not against an
 * adversary: never share content between tenants by it, never authenticate with it. Written as
 * "xxh3-128:" and 32 hexadecimal digits of the canonical (big-endian) form. Any thread.
 * Source of the algorithm: libxxhash, through its run-time CPU dispatch.
 */
#ifndef SHARED_HASH_H
#define SHARED_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "shared/cleanup.h"
#include "shared/err.h"

#define HASH_BYTES 16
#define HASH_PREFIX "xxh3-128:"
#define HASH_TEXT_BYTES 42 /* prefix, 32 digits, NUL */

struct hash {
    uint8_t b[HASH_BYTES];
};

static inline bool hash_equal(const struct hash *a, const struct hash *b)
{
    return memcmp(a->b, b->b, HASH_BYTES) == 0;
}

void hash_buf(const void *data, size_t len, struct hash *ret);

/* XXH3-64 of a block, for the agent's block tables. */
uint64_t hash_block64(const void *data, size_t len);
/* The same with a seed, for hash tables whose keys are foreign: with a secret seed nobody can prepare
 * names that all fall into one bucket. */
uint64_t hash_seeded64(const void *data, size_t len, uint64_t seed);

/* Incremental hashing; hash_state_new returns NULL only when out of memory. */
struct hash_state;
struct hash_state *hash_state_new(void);
void hash_state_free(struct hash_state *s);
void hash_state_freep(struct hash_state **s);
void hash_state_reset(struct hash_state *s);
void hash_state_add(struct hash_state *s, const void *data, size_t len);
void hash_state_get(const struct hash_state *s, struct hash *ret);

/* Hash an open file from offset 0 to its end with pread; the file offset is untouched. ret_size
 * (may be NULL) is the number of bytes that were hashed. */
int hash_fd(int fd, struct hash *ret, uint64_t *ret_size, struct err *e) WARN_UNUSED;

/* Text form into out; returned. */
const char *hash_text(const struct hash *h, char out[HASH_TEXT_BYTES]);
/* 0 or -EINVAL. Accepts exactly the form hash_text writes. */
int hash_parse(const char *text, struct hash *ret) WARN_UNUSED;

#endif
