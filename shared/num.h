/* SPDX-License-Identifier: MIT */
/*
 * Numbers from text and arithmetic on foreign sizes. Pure. The whole text must be the number:
 * no sign, no space, no leftover, no overflow.
 */
#ifndef SHARED_NUM_H
#define SHARED_NUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/cleanup.h"

/* Decimal. 0, or -EINVAL, or -ERANGE if above max. */
int num_u64(const char *text, uint64_t max, uint64_t *ret) WARN_UNUSED;

/* Bytes: "512", "64K", "1M", "1.5G", "2T" (powers of 1024; also KiB, KB, kb). */
int num_bytes(const char *text, uint64_t max, uint64_t *ret_bytes) WARN_UNUSED;

/* Durations in milliseconds: "250ms", "60s", "1.5s", "2m", "1h"; a bare number means seconds. */
int num_duration_ms(const char *text, uint64_t max_ms, uint64_t *ret_ms) WARN_UNUSED;

/* "512 B", "1.5 KiB", "24.0 MiB": into out (at least 16 bytes), returned. */
const char *num_human_bytes(uint64_t bytes, char *out, size_t out_size);

static inline bool num_add(uint64_t a, uint64_t b, uint64_t *ret)
{
    return !__builtin_add_overflow(a, b, ret);
}

static inline bool num_mul(uint64_t a, uint64_t b, uint64_t *ret)
{
    return !__builtin_mul_overflow(a, b, ret);
}

#endif
