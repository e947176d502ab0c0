/* SPDX-License-Identifier: MIT */
#include "shared/path.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "shared/weaken.h"

#include "shared/banned.h"

/* Weights of path_distance: one edit of the name outweighs any difference of the folders, which
 * (at most 2 × PATH_DEPTH_MAX steps) outweighs a difference of case. */
#define EDIT_WEIGHT 2048
#define STEP_WEIGHT 2

static enum path_fault check_name(const char *name, size_t len)
{
    if (len == 0)
        return PATH_SLASH;
    if (len == 1 && name[0] == '.')
        return PATH_DOT;
    if (len == 2 && name[0] == '.' && name[1] == '.')
        return PATH_DOTDOT;
    return len > PATH_NAME_MAX ? PATH_NAME_LONG : PATH_FINE;
}

enum path_fault path_check(const char *path, size_t len)
{
    if (len == 0)
        return PATH_EMPTY;
    if (WEAK("paths"))
        return PATH_FINE;
    if (path[0] == '/')
        return PATH_ABSOLUTE;
    if (len > PATH_BYTES_MAX)
        return PATH_LONG;
    if (memchr(path, '\0', len))
        return PATH_NUL;
    size_t depth = 0;
    for (size_t at = 0; at <= len;) {
        const char *slash = memchr(path + at, '/', len - at);
        size_t name_len = slash ? (size_t)(slash - path) - at : len - at;
        enum path_fault fault = check_name(path + at, name_len);
        if (fault != PATH_FINE)
            return fault;
        if (++depth > PATH_DEPTH_MAX)
            return PATH_DEEP;
        at += name_len + 1;
    }
    return PATH_FINE;
}

const char *path_fault_text(enum path_fault fault)
{
    static const char *const texts[] = {
        [PATH_FINE] = "is fine",
        [PATH_EMPTY] = "is empty",
        [PATH_ABSOLUTE] = "is absolute",
        [PATH_DOT] = "has a '.' component",
        [PATH_DOTDOT] = "has a '..' component",
        [PATH_SLASH] = "has a doubled or trailing slash",
        [PATH_NUL] = "has a NUL byte inside",
        [PATH_NAME_LONG] = "has a component above 255 bytes",
        [PATH_LONG] = "is longer than 4095 bytes",
        [PATH_DEEP] = "has more than 256 components",
    };
    if ((size_t)fault >= sizeof(texts) / sizeof(texts[0]))
        return "is not a valid path";
    return texts[fault];
}

int path_resolve(const char *base, const char *text, char **ret)
{
    if (text[0] == '/')
        return -EINVAL;
    size_t len = strlen(base);
    /* The result is never longer than both and a slash; the NUL besides. */
    CLEANUP(freep) char *out = malloc(len + strlen(text) + 2);
    if (!out)
        return -ENOMEM;
    memcpy(out, base, len + 1);
    for (const char *p = text; *p;) {
        size_t n = strcspn(p, "/");
        if (n == 2 && p[0] == '.' && p[1] == '.') {
            if (len == 0)
                return -EINVAL;
            len = path_parent_len(out);
        } else if (n > 0 && !(n == 1 && p[0] == '.')) {
            if (len > 0)
                out[len++] = '/';
            memcpy(out + len, p, n);
            len += n;
        }
        out[len] = '\0';
        p += n;
        p += strspn(p, "/");
    }
    if (len > 0 && path_check(out, len) != PATH_FINE)
        return -EINVAL;
    *ret = ptr_take(&out);
    return 0;
}

const char *path_base(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

size_t path_parent_len(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) : 0;
}

bool path_beneath(const char *dir, const char *path)
{
    size_t len = strlen(dir);
    if (len == 0)
        return true;
    return strncmp(dir, path, len) == 0 && (path[len] == '\0' || path[len] == '/');
}

char *path_join(const char *dir, const char *name)
{
    size_t dir_len = strlen(dir), name_len = strlen(name);
    size_t sep = dir_len > 0;
    char *out = malloc(dir_len + sep + name_len + 1);
    if (!out)
        return NULL;
    memcpy(out, dir, dir_len);
    if (sep)
        out[dir_len] = '/';
    memcpy(out + dir_len + sep, name, name_len + 1);
    return out;
}

static unsigned char fold(char c)
{
    return (unsigned char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
}

/* Levenshtein's distance, two rows at a time. Names longer than a file's can be are cut. */
static unsigned edit_distance(const char *a, const char *b)
{
    unsigned row[PATH_NAME_MAX + 1];
    size_t a_len = strnlen(a, PATH_NAME_MAX), b_len = strnlen(b, PATH_NAME_MAX);
    for (size_t j = 0; j <= b_len; j++)
        row[j] = (unsigned)j;
    for (size_t i = 1; i <= a_len; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= b_len; j++) {
            unsigned change = diagonal + (fold(a[i - 1]) != fold(b[j - 1]));
            unsigned drop = row[j] + 1, insert = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = change < drop ? change : drop;
            row[j] = row[j] < insert ? row[j] : insert;
        }
    }
    return row[b_len];
}

static unsigned count_names(const char *path, size_t len)
{
    unsigned names = len > 0;
    for (size_t i = 0; i < len; i++)
        names += path[i] == '/';
    return names < PATH_DEPTH_MAX ? names : PATH_DEPTH_MAX;
}

/* How many steps up and down lead from a's folder to b's. */
static unsigned folder_steps(const char *a, const char *b)
{
    size_t a_len = path_parent_len(a), b_len = path_parent_len(b);
    for (;;) {
        const char *a_end = memchr(a, '/', a_len), *b_end = memchr(b, '/', b_len);
        size_t a_n = a_end ? (size_t)(a_end - a) : a_len;
        size_t b_n = b_end ? (size_t)(b_end - b) : b_len;
        if (a_n != b_n || a_n == 0 || strncasecmp(a, b, a_n) != 0)
            break;
        size_t a_skip = a_n + (a_end != NULL), b_skip = b_n + (b_end != NULL);
        a += a_skip;
        a_len -= a_skip;
        b += b_skip;
        b_len -= b_skip;
    }
    return count_names(a, a_len) + count_names(b, b_len);
}

unsigned path_distance(const char *a, const char *b)
{
    unsigned differs = strcmp(a, b) != 0;
    return edit_distance(path_base(a), path_base(b)) * EDIT_WEIGHT +
           folder_steps(a, b) * STEP_WEIGHT + differs;
}
