/* SPDX-License-Identifier: MIT */
#include "server/http_ring.h"

#include <stdlib.h>
#include <string.h>

#include "shared/banned.h"

#define RING_FIRST_BYTES 4096U

void http_ring_init(struct http_ring *r, size_t max)
{
    *r = (struct http_ring){.max = max};
}

void http_ring_release(struct http_ring *r)
{
    free(r->data);
    *r = (struct http_ring){.max = r->max};
}

size_t http_ring_space(const struct http_ring *r)
{
    return r->max - r->len;
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Copy out without consuming; the content may wrap around the end of the allocation. */
static void peek(const struct http_ring *r, void *data, size_t len)
{
    size_t first = smaller(len, r->cap - r->head);
    if (len == 0)
        return;
    memcpy(data, r->data + r->head, first);
    memcpy((uint8_t *)data + first, r->data, len - first);
}

/* Room for `more` bytes behind the content, as far as max and memory allow. */
static void grow(struct http_ring *r, size_t more)
{
    size_t want = r->len + more; /* both at most max: cannot overflow */
    size_t cap = r->cap ? r->cap : smaller(RING_FIRST_BYTES, r->max);
    while (cap < want)
        cap = smaller(cap * 2, r->max);
    if (cap == r->cap)
        return;
    uint8_t *data = malloc(cap);
    if (!data)
        return;
    peek(r, data, r->len);
    free(r->data);
    r->data = data;
    r->cap = cap;
    r->head = 0;
}

size_t http_ring_put(struct http_ring *r, const void *data, size_t len)
{
    len = smaller(len, http_ring_space(r));
    if (len > r->cap - r->len)
        grow(r, len);
    len = smaller(len, r->cap - r->len);
    if (len == 0)
        return 0;
    size_t tail = (r->head + r->len) % r->cap;
    size_t first = smaller(len, r->cap - tail);
    memcpy(r->data + tail, data, first);
    memcpy(r->data, (const uint8_t *)data + first, len - first);
    r->len += len;
    return len;
}

size_t http_ring_get(struct http_ring *r, void *data, size_t len)
{
    len = smaller(len, r->len);
    if (len == 0)
        return 0;
    peek(r, data, len);
    r->head = (r->head + len) % r->cap;
    r->len -= len;
    if (r->len == 0)
        r->head = 0;
    return len;
}
