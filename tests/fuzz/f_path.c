/* SPDX-License-Identifier: MIT */
/*
 * shared/path against a second, naive reading of its rules: what path_check lets through can be
 * opened beneath a root and nowhere else, and path_resolve never leaves the root.
 *
 * Input: a base, a NUL, a text; without a NUL the text alone. The raw bytes are checked as they
 * are.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "shared/path.h"

#include "shared/banned.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(x)                                                                                 \
    do {                                                                                           \
        if (!(x))                                                                                  \
            abort();                                                                               \
    } while (0)

static bool name_is(const char *p, size_t n, const char *name)
{
    return n == strlen(name) && memcmp(p, name, n) == 0;
}

/* The rule in one loop over the bytes: every component is a plain name. */
static bool naive_fine(const char *path, size_t len)
{
    size_t start = 0;
    size_t depth = 0;
    if (len == 0 || len > PATH_BYTES_MAX)
        return false;
    for (size_t i = 0; i <= len; i++) {
        if (i < len && path[i] == '\0')
            return false;
        if (i < len && path[i] != '/')
            continue;
        size_t n = i - start;
        if (n == 0 || n > PATH_NAME_MAX || name_is(path + start, n, ".") ||
            name_is(path + start, n, ".."))
            return false;
        start = i + 1;
        depth++;
    }
    return depth <= PATH_DEPTH_MAX;
}

static void check_bytes(const char *bytes, size_t len)
{
    enum path_fault fault = path_check(bytes, len);
    REQUIRE((fault == PATH_FINE) == naive_fine(bytes, len));
    REQUIRE(path_fault_text(fault)[0] != '\0');
    if (len > 0 && bytes[0] == '/')
        REQUIRE(fault == PATH_ABSOLUTE);
}

/* A checked path comes apart and together again, and resolves to itself. */
static void check_fine(const char *path)
{
    CLEANUP(freep) char *parent = strndup(path, path_parent_len(path));
    REQUIRE(parent != NULL);
    CLEANUP(freep) char *joined = path_join(parent, path_base(path));
    REQUIRE(joined && strcmp(joined, path) == 0);
    REQUIRE(path_beneath(parent, path) && path_beneath("", path) && path_beneath(path, path));
    REQUIRE(!path_beneath(path, parent) || parent[0] == '\0' || strcmp(path, parent) == 0);
    REQUIRE(!strchr(path_base(path), '/'));
    CLEANUP(freep) char *same = NULL;
    REQUIRE(path_resolve("", path, &same) == 0 && strcmp(same, path) == 0);
    REQUIRE(path_distance(path, path) == 0);
}

/* How many components deep `text` ends when read from `depth`; -1 if it leaves the root on the way.
 */
static long naive_depth(long depth, const char *text)
{
    for (const char *p = text; *p && depth >= 0;) {
        size_t n = strcspn(p, "/");
        if (name_is(p, n, ".."))
            depth--;
        else if (n > 0 && !name_is(p, n, "."))
            depth++;
        p += n + (p[n] == '/');
    }
    return depth;
}

static void check_resolve(const char *base, const char *text)
{
    CLEANUP(freep) char *out = NULL;
    CLEANUP(freep) char *again = NULL;
    long depth = naive_depth(naive_depth(0, base), text);
    int r = path_resolve(base, text, &out);
    if (r < 0) {
        REQUIRE(out == NULL);
        return;
    }
    REQUIRE(text[0] != '/' && depth >= 0);
    REQUIRE(out[0] == '\0' || naive_fine(out, strlen(out)));
    REQUIRE(naive_depth(0, out) == depth);
    REQUIRE(path_resolve("", out, &again) == 0 && strcmp(again, out) == 0);
    /* A "." in front changes nothing. */
    CLEANUP(freep) char *dotted = path_join(".", text);
    CLEANUP(freep) char *same = NULL;
    REQUIRE(dotted && path_resolve(base, dotted, &same) == 0 && strcmp(same, out) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *bytes = (const char *)data;
    check_bytes(bytes, size);
    size_t base_len = strnlen(bytes, size);
    bool two = base_len < size;
    CLEANUP(freep) char *base = strndup(bytes, two ? base_len : 0);
    CLEANUP(freep)
    char *text = two ? strndup(bytes + base_len + 1, size - base_len - 1) : strndup(bytes, size);
    REQUIRE(base && text);
    if (path_check(text, strlen(text)) == PATH_FINE)
        check_fine(text);
    if (base[0] == '\0' || path_check(base, strlen(base)) == PATH_FINE)
        check_resolve(base, text);
    if (path_check(base, strlen(base)) == PATH_FINE && path_check(text, strlen(text)) == PATH_FINE)
        REQUIRE((path_distance(base, text) == 0) == (strcmp(base, text) == 0));
    return 0;
}
