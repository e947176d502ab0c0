/* SPDX-License-Identifier: MIT */
#include "server/diagnose_internal.h"

#include <string.h>

#include "shared/text.h"

#include "shared/banned.h"

const char *diagnose_last(const char *tail, size_t len, const char *what)
{
    size_t what_len = strlen(what);
    for (const char *p = tail + len; what_len > 0 && p > tail;) {
        p = memrchr(tail, what[0], (size_t)(p - tail));
        if (!p)
            return NULL;
        if ((size_t)(tail + len - p) >= what_len && memcmp(p, what, what_len) == 0)
            return p;
    }
    return NULL;
}

bool diagnose_copy(const char *from, size_t len, char *out, size_t out_size)
{
    if (len == 0 || len >= out_size || !text_is_utf8(from, len))
        return false;
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)from[i] < 0x20 || from[i] == 0x7f)
            return false;
    }
    memcpy(out, from, len);
    out[len] = '\0';
    return true;
}

/* Bytes of the pattern's text up to its next sign. */
static size_t literal_len(const char *pattern)
{
    size_t len = 0;
    while (pattern[len] && pattern[len] != '~' && strncmp(pattern + len, "%s", 2) != 0)
        len++;
    return len;
}

static const char *line_end(const char *p, const char *end)
{
    const char *newline = memchr(p, '\n', (size_t)(end - p));
    return newline ? newline : end;
}

/* The pattern from here on, right at p. */
static bool match_at(const char *pattern, const char *p, const char *end, char *name, size_t size)
{
    while (*pattern) {
        bool skip = *pattern == '~', cut = strncmp(pattern, "%s", 2) == 0;
        pattern += skip ? 1 : cut ? 2 : 0;
        size_t len = literal_len(pattern);
        const char *stop = line_end(p, end), *at = p;
        /* The text behind the sign may begin in this line and go on in the next. */
        size_t room = (size_t)(end - stop) < len ? (size_t)(end - stop) : len;
        if (skip || cut)
            at = len ? memmem(p, (size_t)(stop - p) + room, pattern, len) : stop;
        else if ((size_t)(end - p) < len || memcmp(p, pattern, len) != 0)
            at = NULL;
        if (!at)
            return false;
        size_t kept = (size_t)(at - p);
        if (cut && kept > 0 && p[kept - 1] == '\r')
            kept--;
        if (cut && !diagnose_copy(p, kept, name, size))
            return false;
        p = at + len;
        pattern += len;
    }
    return true;
}

/* A name that ends at p. */
static bool cut_before(const char *tail, const char *p, char *name, size_t size)
{
    const char *start = p;
    while (start > tail && start[-1] != '\n' &&
           !(start[-1] == ' ' && start - 1 > tail && start[-2] == ':'))
        start--;
    return diagnose_copy(start, (size_t)(p - start), name, size);
}

bool diagnose_match(const char *pattern, const char *tail, size_t len, char *name, size_t name_size)
{
    char first[DIAGNOSE_TEXT_MAX];
    bool before = strncmp(pattern, "%s", 2) == 0;
    const char *text = pattern + (before ? 2 : 0), *end = tail + len;
    size_t text_len = literal_len(text);

    name[0] = '\0';
    if (text_len == 0 || text_len >= sizeof(first))
        return false;
    memcpy(first, text, text_len);
    first[text_len] = '\0';
    for (int i = 0; i < DIAGNOSE_ATTEMPTS; i++) {
        const char *at = diagnose_last(tail, len, first);
        if (!at)
            return false;
        if (match_at(text + text_len, at + text_len, end, name, name_size) &&
            (!before || cut_before(tail, at, name, name_size)))
            return true;
        len = (size_t)(at - tail) + text_len - 1;
    }
    return false;
}
