/* SPDX-License-Identifier: MIT */
/*
 * Text for the wire and for people: UTF-8, base64, ids, time stamps, terminal-safe names. Pure but
 * for text_id, any thread.
 */
#ifndef SHARED_TEXT_H
#define SHARED_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/buf.h"

/* Well-formed UTF-8 without NUL (no overlong forms, no surrogates, at most U+10FFFF)? */
bool text_is_utf8(const void *data, size_t len);

/* How many of the first len bytes form whole characters, when the last one may be cut off: the
 * rest (at most 3 bytes) belongs to the next piece of a stream. Equals len where the tail is not
 * the beginning of a character. */
size_t text_utf8_whole(const void *data, size_t len);

/* Append data as UTF-8, each bad byte replaced by U+FFFD: the readable form of foreign bytes. */
int text_add_readable(struct buf *b, const void *data, size_t len) WARN_UNUSED;

/* Append a name for a terminal or a log: control bytes and bad UTF-8 become \xNN. */
int text_add_escaped(struct buf *b, const char *name) WARN_UNUSED;

/* RFC 4648 base64 with padding. */
int text_add_base64(struct buf *b, const void *data, size_t len) WARN_UNUSED;
/* Strict decoding, no white space. 0 or -EINVAL, -ENOBUFS, -ENOMEM. */
int text_decode_base64(const char *text, size_t len, struct buf *b) WARN_UNUSED;

/* Percent-decoding of one URL component into b ('+' stays '+'). -EINVAL for %00 and bad hex. */
int text_decode_percent(const char *text, size_t len, struct buf *b) WARN_UNUSED;
/* Percent-encoding of a path: everything but unreserved characters and '/'. */
int text_add_percent(struct buf *b, const char *path) WARN_UNUSED;

#define TEXT_TIME_BYTES 32
/* "2026-11-22T17:04:25.123456Z" from nanoseconds since 1970. Returns out. */
const char *text_time(uint64_t wall_ns, char out[TEXT_TIME_BYTES]);

#define TEXT_ID_CHARS 26
/* prefix + 26 characters of lower-case base32 (a-z2-7) from 128 random bits. out holds
 * strlen(prefix) + 27 bytes. */
void text_id(const char *prefix, char *out, size_t out_size);
/* As text_id, but the first 10 characters encode wall_ms (48 bits, in an order-keeping alphabet
 * 2-7a-z), the rest 80 random bits: ids sort by creation. */
void text_id_sorted(const char *prefix, uint64_t wall_ms, char *out, size_t out_size);
/* Is s = prefix + 26 characters of a-z2-7, and nothing else? */
bool text_is_id(const char *prefix, const char *s);

#endif
