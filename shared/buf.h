/* SPDX-License-Identifier: MIT */
/*
 * A growable run of bytes with a hard maximum, always followed by a NUL that is not counted, so
 * that text in it can be read as a C string.
 *
 *     struct buf b;
 *     buf_init(&b, 64 * 1024);             // may never hold more than 64 KiB
 *     if (buf_addf(&b, "%s\n", name) < 0)  // -ENOBUFS past the maximum, -ENOMEM
 *         ...
 *     buf_release(&b);
 *
 * A failed append leaves the buffer as it was. CLEANUP(buf_release) works. Not shared by threads.
 */
#ifndef SHARED_BUF_H
#define SHARED_BUF_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "shared/cleanup.h"

struct buf {
    uint8_t *data; /* NULL until the first append */
    size_t len;
    size_t cap;
    size_t max; /* bytes, without the NUL */
};

void buf_init(struct buf *b, size_t max);
void buf_release(struct buf *b);

/* Forget the content, keep the memory. */
void buf_reset(struct buf *b);

/* The content as a C string; "" when empty. Valid until the next append. */
const char *buf_str(const struct buf *b);

/* The content as malloc'd memory of b->len bytes and a NUL; the buffer is empty after. NULL only
 * when out of memory. */
char *buf_steal(struct buf *b);

int buf_reserve(struct buf *b, size_t more) WARN_UNUSED;
int buf_add(struct buf *b, const void *data, size_t len) WARN_UNUSED;
int buf_addc(struct buf *b, char c) WARN_UNUSED;
int buf_adds(struct buf *b, const char *s) WARN_UNUSED;
int buf_addf(struct buf *b, const char *fmt, ...) WARN_UNUSED __attribute__((format(printf, 2, 3)));
int buf_addv(struct buf *b, const char *fmt, va_list ap) WARN_UNUSED
    __attribute__((format(printf, 2, 0)));

/* Big-endian integers of the wire. */
int buf_add_u8(struct buf *b, uint8_t v) WARN_UNUSED;
int buf_add_u16(struct buf *b, uint16_t v) WARN_UNUSED;
int buf_add_u32(struct buf *b, uint32_t v) WARN_UNUSED;
int buf_add_u64(struct buf *b, uint64_t v) WARN_UNUSED;

/* Drop the first n bytes (n <= len). */
void buf_consume(struct buf *b, size_t n);

/*
 * A reader over bytes that somebody else owns. Every get checks what is left: a short input sets
 * `bad`, returns zero (or NULL), and stays bad, so that a parser may read a whole record and check
 * once at its end.
 */
struct cursor {
    const uint8_t *p;
    size_t left;
    int bad;
};

void cursor_init(struct cursor *c, const void *data, size_t len);
uint8_t cursor_u8(struct cursor *c);
uint16_t cursor_u16(struct cursor *c);
uint32_t cursor_u32(struct cursor *c);
uint64_t cursor_u64(struct cursor *c);
/* n bytes in place, or NULL. */
const uint8_t *cursor_bytes(struct cursor *c, size_t n);

#endif
