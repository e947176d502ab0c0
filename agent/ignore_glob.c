/* SPDX-License-Identifier: MIT */
/*
 * The globs of gitignore(5). Iterative with two places to come back to, so that no pattern costs
 * more than about |glob| × |text|²: the latest `*`, which is void once its path component is
 * complete, and the latest `**`.
 */
#include "agent/ignore.h"

#include <ctype.h>
#include <string.h>

#include "shared/banned.h"

struct class_name {
    const char *name;
    int (*test)(int c);
};

static const struct class_name class_names[] = {
    {"alnum", isalnum},
    {"alpha", isalpha},
    {"blank", isblank},
    {"cntrl", iscntrl},
    {"digit", isdigit},
    {"graph", isgraph},
    {"lower", islower},
    {"print", isprint},
    {"punct", ispunct},
    {"space", isspace},
    {"upper", isupper},
    {"xdigit", isxdigit},
};

/* 1 or 0: c belongs to [:name:] or not; -1: there is no such class. */
static int in_named_class(const char *name, size_t len, unsigned char c)
{
    for (size_t i = 0; i < sizeof(class_names) / sizeof(class_names[0]); i++) {
        if (strlen(class_names[i].name) == len && memcmp(class_names[i].name, name, len) == 0)
            return c < 128 && class_names[i].test(c) != 0;
    }
    return -1;
}

enum class_result { CLASS_NO, CLASS_YES, CLASS_BROKEN };

/* One member of a bracket expression: how much of the glob it takes, and does c belong to it? */
struct member {
    const char *next;
    int low; /* what a following '-' starts from; 0: nothing */
    bool hit;
};

static bool read_escaped(const char **p, unsigned char *ret)
{
    if (**p == '\\')
        (*p)++;
    *ret = (unsigned char)**p;
    return *ret != '\0';
}

/* `[:name:]` at p; false: it is an ordinary '['. */
static bool is_named(const char *p, const char **ret_end)
{
    const char *end = p[1] == ':' ? strchr(p + 2, ']') : NULL;
    if (!end || end - p < 3 || end[-1] != ':')
        return false;
    *ret_end = end;
    return true;
}

static bool read_member(const char *p, unsigned char c, int low, struct member *ret)
{
    const char *end = NULL;
    unsigned char first;
    if (*p == '-' && low && p[1] && p[1] != ']') {
        unsigned char high;
        p++;
        if (!read_escaped(&p, &high))
            return false;
        *ret = (struct member){.next = p + 1, .low = 0, .hit = c >= low && c <= high};
        return true;
    }
    if (*p == '[' && p[1] == ':' && !strchr(p + 2, ']'))
        return false;
    if (*p == '[' && is_named(p, &end)) {
        int in = in_named_class(p + 2, (size_t)(end - p - 3), c);
        *ret = (struct member){.next = end + 1, .low = 0, .hit = in > 0};
        return in >= 0;
    }
    if (!read_escaped(&p, &first))
        return false;
    *ret = (struct member){.next = p + 1, .low = first, .hit = c == first};
    return true;
}

/* The bracket expression that begins after '[' at *p, which is moved behind its ']'. */
static enum class_result match_class(const char **p, unsigned char c)
{
    const char *at = *p;
    bool negated = *at == '!' || *at == '^';
    bool hit = false;
    int low = 0;
    if (negated)
        at++;
    /* A ']' that stands first is a member. */
    do {
        struct member m;
        if (!read_member(at, c, low, &m))
            return CLASS_BROKEN;
        hit = hit || m.hit;
        low = m.low;
        at = m.next;
    } while (*at != ']');
    *p = at + 1;
    return hit != negated && c != '/' ? CLASS_YES : CLASS_NO;
}

struct matcher {
    const char *start; /* of the glob */
    const char *p, *t;
    const char *star_p, *star_t; /* after a '*': try again one character further on */
    const char *deep_p, *deep_t; /* after a '**' */
    bool deep_steps; /* the '**' is not followed by a plain '/': try each position, not each folder
                      */
};

/* Stars at m->p. True: the rest of the text is matched whatever it is. */
static bool take_stars(struct matcher *m)
{
    const char *after = m->p + strspn(m->p, "*");
    bool whole = after - m->p >= 2 && (m->p == m->start || m->p[-1] == '/');
    if (whole && *after == '\0')
        return true;
    if (whole && (*after == '/' || (after[0] == '\\' && after[1] == '/'))) {
        /* Any number of folders, none included. */
        m->deep_steps = *after != '/';
        m->deep_p = m->p = m->deep_steps ? after : after + 1;
        m->deep_t = m->t;
        m->star_p = NULL;
        return false;
    }
    m->star_p = m->p = after;
    m->star_t = m->t;
    return false;
}

/* Go back to the latest choice that can be made otherwise. */
static bool retry(struct matcher *m)
{
    if (m->star_p && *m->star_t && *m->star_t != '/') {
        m->t = ++m->star_t;
        m->p = m->star_p;
        return true;
    }
    if (!m->deep_p)
        return false;
    if (m->deep_steps) {
        if (*m->deep_t == '\0')
            return false;
        m->deep_t++;
    } else {
        const char *slash = strchr(m->deep_t, '/');
        if (!slash)
            return false;
        m->deep_t = slash + 1;
    }
    m->t = m->deep_t;
    m->p = m->deep_p;
    m->star_p = NULL;
    return true;
}

/* One character of the text against one element of the glob. */
static enum class_result step(struct matcher *m)
{
    unsigned char c = (unsigned char)*m->t;
    if (*m->p == '[') {
        const char *after = m->p + 1;
        enum class_result in = match_class(&after, c);
        if (in == CLASS_YES)
            m->p = after;
        return in;
    }
    if (*m->p == '?') {
        m->p++;
        return c != '/' ? CLASS_YES : CLASS_NO;
    }
    if (*m->p == '\\')
        m->p++;
    if ((unsigned char)*m->p != c || c == '\0')
        return CLASS_NO;
    m->p++;
    if (c == '/')
        m->star_p = NULL;
    return CLASS_YES;
}

bool ignore_glob(const char *glob, const char *text)
{
    struct matcher m = {.start = glob, .p = glob, .t = text};
    for (;;) {
        if (*m.p == '*') {
            if (take_stars(&m))
                return true;
            continue;
        }
        if (*m.p == '\0' && *m.t == '\0')
            return true;
        enum class_result r = *m.p && *m.t ? step(&m) : CLASS_NO;
        if (r == CLASS_BROKEN)
            return false;
        if (r == CLASS_YES)
            m.t++;
        else if (!retry(&m))
            return false;
    }
}
