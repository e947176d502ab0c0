/* SPDX-License-Identifier: MIT */
#include "shared/buf.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/banned.h"

#define FIRST_CAP 64

void buf_init(struct buf *b, size_t max)
{
    /* One byte of the address space stays free for the NUL. */
    *b = (struct buf){.max = max < SIZE_MAX ? max : SIZE_MAX - 1};
}

void buf_release(struct buf *b)
{
    if (!b)
        return;
    free(b->data);
    b->data = NULL;
    b->len = 0;
    b->cap = 0;
}

void buf_reset(struct buf *b)
{
    b->len = 0;
    if (b->data)
        b->data[0] = '\0';
}

const char *buf_str(const struct buf *b)
{
    return b->data ? (const char *)b->data : "";
}

char *buf_steal(struct buf *b)
{
    if (!b->data && buf_reserve(b, 0) < 0)
        return NULL;
    char *text = (char *)b->data;
    b->data = NULL;
    b->len = 0;
    b->cap = 0;
    return text;
}

int buf_reserve(struct buf *b, size_t more)
{
    if (more > b->max - b->len)
        return -ENOBUFS;
    size_t need = b->len + more + 1;
    if (b->data && need <= b->cap)
        return 0;
    size_t cap = b->cap < FIRST_CAP ? FIRST_CAP : b->cap;
    while (cap < need)
        cap = cap > SIZE_MAX / 2 ? need : cap * 2;
    if (cap > b->max + 1)
        cap = b->max + 1;
    uint8_t *data = realloc(b->data, cap);
    if (!data)
        return -ENOMEM;
    b->data = data;
    b->cap = cap;
    b->data[b->len] = '\0';
    return 0;
}

int buf_add(struct buf *b, const void *data, size_t len)
{
    int r = buf_reserve(b, len);
    if (r < 0)
        return r;
    if (len > 0)
        memcpy(b->data + b->len, data, len);
    b->len += len;
    b->data[b->len] = '\0';
    return 0;
}

int buf_addc(struct buf *b, char c)
{
    return buf_add(b, &c, 1);
}

int buf_adds(struct buf *b, const char *s)
{
    return buf_add(b, s, strlen(s));
}

int buf_addf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int r = buf_addv(b, fmt, ap);
    va_end(ap);
    return r;
}

int buf_addv(struct buf *b, const char *fmt, va_list ap)
{
    int r = buf_reserve(b, 0);
    if (r < 0)
        return r;
    /* Most texts fit in what is there; only the others are formatted twice. */
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf((char *)b->data + b->len, b->cap - b->len, fmt, ap);
    if (n < 0) {
        r = -EINVAL;
    } else if ((size_t)n >= b->cap - b->len) {
        r = buf_reserve(b, (size_t)n);
        if (r == 0)
            (void)vsnprintf((char *)b->data + b->len, b->cap - b->len, fmt, again);
    }
    va_end(again);
    if (r == 0)
        b->len += (size_t)n;
    b->data[b->len] = '\0';
    return r;
}

int buf_add_u8(struct buf *b, uint8_t v)
{
    return buf_add(b, &v, sizeof(v));
}

int buf_add_u16(struct buf *b, uint16_t v)
{
    const uint8_t bytes[] = {(uint8_t)(v >> 8), (uint8_t)v};
    return buf_add(b, bytes, sizeof(bytes));
}

int buf_add_u32(struct buf *b, uint32_t v)
{
    const uint8_t bytes[] = {(uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v};
    return buf_add(b, bytes, sizeof(bytes));
}

int buf_add_u64(struct buf *b, uint64_t v)
{
    uint8_t bytes[8];
    for (unsigned i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(v >> (56 - 8 * i));
    return buf_add(b, bytes, sizeof(bytes));
}

void buf_consume(struct buf *b, size_t n)
{
    assert(n <= b->len);
    if (n == 0)
        return;
    b->len -= n;
    memmove(b->data, b->data + n, b->len + 1);
}

void cursor_init(struct cursor *c, const void *data, size_t len)
{
    *c = (struct cursor){.p = data, .left = len};
}

const uint8_t *cursor_bytes(struct cursor *c, size_t n)
{
    static const uint8_t none[1];
    if (c->bad || n > c->left) {
        c->bad = 1;
        return NULL;
    }
    /* No bytes of an empty input are still "in place": NULL means a short input only. */
    if (n == 0)
        return c->p ? c->p : none;
    const uint8_t *at = c->p;
    c->p += n;
    c->left -= n;
    return at;
}

static uint64_t cursor_int(struct cursor *c, size_t bytes)
{
    const uint8_t *at = cursor_bytes(c, bytes);
    uint64_t v = 0;
    for (size_t i = 0; at && i < bytes; i++)
        v = v << 8 | at[i];
    return v;
}

uint8_t cursor_u8(struct cursor *c)
{
    return (uint8_t)cursor_int(c, 1);
}

uint16_t cursor_u16(struct cursor *c)
{
    return (uint16_t)cursor_int(c, 2);
}

uint32_t cursor_u32(struct cursor *c)
{
    return (uint32_t)cursor_int(c, 4);
}

uint64_t cursor_u64(struct cursor *c)
{
    return cursor_int(c, 8);
}
