/* SPDX-License-Identifier: MIT */
#include "shared/text.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "shared/io.h"
#include "shared/weaken.h"

#include "shared/banned.h"

/* What may follow a lead byte: the second byte's range keeps overlong forms, surrogates and what
 * lies above U+10FFFF out (Unicode 15, table 3-7); later bytes are always 80..BF. */
struct lead {
    uint8_t first, last;
    uint8_t len;
    uint8_t second_min, second_max;
};

static const struct lead leads[] = {
    {0x01, 0x7f, 1, 0, 0},
    {0xc2, 0xdf, 2, 0x80, 0xbf},
    {0xe0, 0xe0, 3, 0xa0, 0xbf},
    {0xe1, 0xec, 3, 0x80, 0xbf},
    {0xed, 0xed, 3, 0x80, 0x9f},
    {0xee, 0xef, 3, 0x80, 0xbf},
    {0xf0, 0xf0, 4, 0x90, 0xbf},
    {0xf1, 0xf3, 4, 0x80, 0xbf},
    {0xf4, 0xf4, 4, 0x80, 0x8f},
};

static const struct lead *find_lead(uint8_t byte)
{
    for (size_t i = 0; i < sizeof(leads) / sizeof(leads[0]); i++)
        if (byte >= leads[i].first && byte <= leads[i].last)
            return &leads[i];
    return NULL;
}

/* Length of the character at p, 0 if there is none. *cut_off (may be NULL) says that what is there
 * is the beginning of one. */
static size_t utf8_char(const uint8_t *p, size_t len, bool *cut_off)
{
    if (cut_off)
        *cut_off = false;
    if (*p >= 0x01 && *p < 0x80)
        return 1;
    const struct lead *lead = find_lead(*p);
    if (!lead)
        return 0;
    for (size_t i = 1; i < lead->len; i++) {
        if (i == len) {
            if (cut_off)
                *cut_off = true;
            return 0;
        }
        uint8_t min = i == 1 ? lead->second_min : 0x80;
        uint8_t max = i == 1 ? lead->second_max : 0xbf;
        if (p[i] < min || p[i] > max)
            return 0;
    }
    return lead->len;
}

bool text_is_utf8(const void *data, size_t len)
{
    const uint8_t *p = data;
    for (size_t i = 0; i < len;) {
        size_t n = utf8_char(p + i, len - i, NULL);
        if (n == 0)
            return false;
        i += n;
    }
    return true;
}

size_t text_utf8_whole(const void *data, size_t len)
{
    const uint8_t *p = data;
    for (size_t back = 1; back <= 3 && back <= len; back++) {
        if ((p[len - back] & 0xc0) == 0x80)
            continue;
        bool cut_off;
        (void)utf8_char(p + len - back, back, &cut_off);
        return cut_off ? len - back : len;
    }
    return len;
}

/* How one byte that cannot be shown is written instead. */
typedef int add_bad(struct buf *b, uint8_t byte);

static int add_replacement(struct buf *b, uint8_t byte)
{
    (void)byte;
    return buf_adds(b, "\xef\xbf\xbd");
}

static int add_hex(struct buf *b, uint8_t byte)
{
    return buf_addf(b, "\\x%02x", byte);
}

/* C0, DEL, and C1 as UTF-8: a terminal obeys U+009B like ESC [. */
static bool is_control(const uint8_t *p, size_t n)
{
    return (n == 1 && (*p < 0x20 || *p == 0x7f)) || (n == 2 && p[0] == 0xc2 && p[1] < 0xa0);
}

/* Append data with the bytes that are no UTF-8 (and control characters, if they are not wanted)
 * written by `bad`. All or nothing. */
static int add_cleaned(struct buf *b, const uint8_t *p, size_t len, bool controls, add_bad *bad)
{
    size_t before = b->len, run = 0;
    int r = buf_reserve(b, 0);
    for (size_t i = 0; r == 0 && i < len;) {
        size_t n = utf8_char(p + i, len - i, NULL);
        if (n > 0 && (controls || WEAK("terminal") || !is_control(p + i, n))) {
            i += n;
            continue;
        }
        r = buf_add(b, p + run, i - run);
        for (size_t end = i + (n > 0 ? n : 1); r == 0 && i < end; i++)
            r = bad(b, p[i]);
        run = i;
    }
    if (r == 0)
        r = buf_add(b, p + run, len - run);
    if (r < 0 && b->data) {
        b->len = before;
        b->data[before] = '\0';
    }
    return r;
}

int text_add_readable(struct buf *b, const void *data, size_t len)
{
    static const uint8_t none[1];
    return add_cleaned(b, data ? data : none, len, true, add_replacement);
}

int text_add_escaped(struct buf *b, const char *name)
{
    return add_cleaned(b, (const uint8_t *)name, strlen(name), false, add_hex);
}

static const char base64_digits[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

int text_add_base64(struct buf *b, const void *data, size_t len)
{
    const uint8_t *p = data;
    if (len > SIZE_MAX / 4 * 3 - 3)
        return -ENOBUFS;
    size_t out_len = (len + 2) / 3 * 4;
    int r = buf_reserve(b, out_len);
    if (r < 0)
        return r;
    uint8_t *out = b->data + b->len;
    for (size_t i = 0; i < len; i += 3) {
        size_t n = len - i < 3 ? len - i : 3;
        uint32_t v = (uint32_t)p[i] << 16;
        v |= n > 1 ? (uint32_t)p[i + 1] << 8 : 0;
        v |= n > 2 ? (uint32_t)p[i + 2] : 0;
        *out++ = (uint8_t)base64_digits[v >> 18];
        *out++ = (uint8_t)base64_digits[v >> 12 & 63];
        *out++ = n > 1 ? (uint8_t)base64_digits[v >> 6 & 63] : '=';
        *out++ = n > 2 ? (uint8_t)base64_digits[v & 63] : '=';
    }
    b->len += out_len;
    b->data[b->len] = '\0';
    return 0;
}

static int base64_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* The bytes of a group of 4 digits of which the last `pad` are '='. 0 or -EINVAL. */
static int base64_group(const char *text, size_t pad, uint8_t out[3])
{
    uint32_t v = 0;
    for (size_t i = 0; i < 4; i++) {
        int digit = i < 4 - pad ? base64_value(text[i]) : 0;
        if (digit < 0)
            return -EINVAL;
        v = v << 6 | (uint32_t)digit;
    }
    /* Bits that no byte takes must be zero, else two texts would mean the same. */
    if ((pad == 1 && (v & 0xff)) || (pad == 2 && (v & 0xffff)))
        return -EINVAL;
    out[0] = (uint8_t)(v >> 16);
    out[1] = (uint8_t)(v >> 8);
    out[2] = (uint8_t)v;
    return 0;
}

int text_decode_base64(const char *text, size_t len, struct buf *b)
{
    if (len % 4 != 0)
        return -EINVAL;
    size_t pad = 0;
    while (len > 0 && pad < 2 && text[len - 1 - pad] == '=')
        pad++;
    int r = buf_reserve(b, len / 4 * 3 - pad);
    if (r < 0)
        return r;
    size_t at = b->len;
    for (size_t i = 0; i < len; i += 4) {
        size_t group_pad = i + 4 == len ? pad : 0;
        uint8_t bytes[3];
        if (base64_group(text + i, group_pad, bytes) < 0) {
            b->data[b->len] = '\0';
            return -EINVAL;
        }
        memcpy(b->data + at, bytes, 3 - group_pad);
        at += 3 - group_pad;
    }
    b->len = at;
    b->data[at] = '\0';
    return 0;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

int text_decode_percent(const char *text, size_t len, struct buf *b)
{
    int r = buf_reserve(b, 0);
    size_t before = b->len;
    for (size_t i = 0; r == 0 && i < len; i++) {
        int byte = (unsigned char)text[i];
        if (byte == '%') {
            int high = len - i > 2 ? hex_value(text[i + 1]) : -1;
            int low = len - i > 2 ? hex_value(text[i + 2]) : -1;
            byte = high < 0 || low < 0 ? 0 : high << 4 | low;
            i += 2;
        }
        /* A NUL, written plainly or encoded, would cut the name behind everybody's back. */
        r = byte == 0 ? -EINVAL : buf_add_u8(b, (uint8_t)byte);
    }
    if (r < 0 && b->data) {
        b->len = before;
        b->data[before] = '\0';
    }
    return r;
}

static bool is_unreserved(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_' || c == '~';
}

int text_add_percent(struct buf *b, const char *path)
{
    int r = buf_reserve(b, 0);
    size_t before = b->len;
    for (const char *p = path; r == 0 && *p; p++) {
        if (*p == '/' || is_unreserved(*p))
            r = buf_addc(b, *p);
        else
            r = buf_addf(b, "%%%02X", (unsigned char)*p);
    }
    if (r < 0 && b->data) {
        b->len = before;
        b->data[before] = '\0';
    }
    return r;
}

const char *text_time(uint64_t wall_ns, char out[TEXT_TIME_BYTES])
{
    time_t seconds = (time_t)(wall_ns / UINT64_C(1000000000));
    unsigned micros = (unsigned)(wall_ns % UINT64_C(1000000000) / 1000);
    struct tm tm = {0};
    (void)gmtime_r(&seconds, &tm); /* 2^64 ns end in the year 2554: cannot fail */
    size_t n = strftime(out, TEXT_TIME_BYTES, "%Y-%m-%dT%H:%M:%S", &tm);
    (void)snprintf(out + n, TEXT_TIME_BYTES - n, ".%06uZ", micros);
    return out;
}

/* Base32 whose digits stand in the order of their bytes, so that texts sort like numbers. */
static const char base32_digits[] = "234567abcdefghijklmnopqrstuvwxyz";

/* The first `chars` groups of 5 bits of data, high bits first; missing bits are zero. */
static void add_base32(char *out, size_t chars, const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < chars; i++) {
        unsigned v = 0;
        for (size_t bit = i * 5; bit < i * 5 + 5; bit++) {
            unsigned set = bit / 8 < len ? (unsigned)data[bit / 8] >> (7 - bit % 8) & 1u : 0;
            v = v << 1 | set;
        }
        out[i] = base32_digits[v];
    }
}

void text_id(const char *prefix, char *out, size_t out_size)
{
    size_t n = strlen(prefix);
    assert(out_size > n + TEXT_ID_CHARS);
    (void)out_size;
    uint8_t random[16];
    io_random(random, sizeof(random));
    if (WEAK("ids"))
        memset(random, 0, sizeof(random) - 1);
    memcpy(out, prefix, n);
    add_base32(out + n, TEXT_ID_CHARS, random, sizeof(random));
    out[n + TEXT_ID_CHARS] = '\0';
}

void text_id_sorted(const char *prefix, uint64_t wall_ms, char *out, size_t out_size)
{
    const size_t time_chars = 10;
    size_t n = strlen(prefix);
    assert(out_size > n + TEXT_ID_CHARS);
    (void)out_size;
    uint8_t random[10];
    io_random(random, sizeof(random));
    memcpy(out, prefix, n);
    for (size_t i = 0; i < time_chars; i++)
        out[n + i] = base32_digits[(wall_ms & UINT64_C(0xffffffffffff)) >> (45 - 5 * i) & 31];
    add_base32(out + n + time_chars, TEXT_ID_CHARS - time_chars, random, sizeof(random));
    out[n + TEXT_ID_CHARS] = '\0';
}

bool text_is_id(const char *prefix, const char *s)
{
    size_t n = strlen(prefix);
    if (strncmp(s, prefix, n) != 0)
        return false;
    s += n;
    return strlen(s) == TEXT_ID_CHARS && strspn(s, base32_digits) == TEXT_ID_CHARS;
}
