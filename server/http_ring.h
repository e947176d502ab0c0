/* SPDX-License-Identifier: MIT */
/*
 * A bounded queue of bytes in one circular allocation that grows as needed up to a maximum and is
 * given back when the ring is released. Not shared by threads without a lock.
 */
#ifndef SERVER_HTTP_RING_H
#define SERVER_HTTP_RING_H

#include <stddef.h>
#include <stdint.h>

struct http_ring {
    uint8_t *data;
    size_t cap, head, len;
    size_t max; /* bytes */
};

void http_ring_init(struct http_ring *r, size_t max);
void http_ring_release(struct http_ring *r);

/* How many more bytes fit. */
size_t http_ring_space(const struct http_ring *r);

/* Append up to len bytes; returns how many (fewer when full or out of memory). */
size_t http_ring_put(struct http_ring *r, const void *data, size_t len);

/* Take up to len bytes; returns how many (0 when empty). */
size_t http_ring_get(struct http_ring *r, void *data, size_t len);

#endif
