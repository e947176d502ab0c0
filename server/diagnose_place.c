/* SPDX-License-Identifier: MIT */
/* Where in the user's own files did it happen? Tools write places in a few forms; what looks like
 * one is taken only if it names a file of the workspace. */
#include "server/diagnose_internal.h"

#include <string.h>

#include "shared/path.h"
#include "shared/text.h"

#include "shared/banned.h"

#define WORKSPACE "/workspace/"

struct search {
    const struct diagnose_facts *f;
    struct diagnosis *ret;
    unsigned asked;
};

static unsigned read_line_number(const char *p, const char *end)
{
    unsigned n = 0;
    while (p < end && *p >= '0' && *p <= '9' && n < 100000000)
        n = n * 10 + (unsigned)(*p++ - '0');
    return n;
}

/* A name relative to a folder, if it is a file there. */
static bool place_in(struct search *s, const char *folder, const char *name, unsigned line)
{
    CLEANUP(freep) char *path = NULL;
    if (!folder || s->asked >= DIAGNOSE_EXISTS_MAX || path_resolve(folder, name, &path) < 0 ||
        !*path || strlen(path) >= sizeof(s->ret->file))
        return false;
    s->asked++;
    if (!s->f->exists || !s->f->exists(s->f->ctx, path))
        return false;
    memcpy(s->ret->file, path, strlen(path) + 1);
    s->ret->line = line;
    return true;
}

static bool place(struct search *s, const char *name, size_t len, unsigned line)
{
    static const char url[] = "file://";
    char text[512];
    if (len > sizeof(url) && memcmp(name, url, sizeof(url) - 1) == 0) {
        name += sizeof(url) - 1;
        len -= sizeof(url) - 1;
    }
    if (!diagnose_copy(name, len, text, sizeof(text)))
        return false;
    if (text[0] == '/')
        return strncmp(text, WORKSPACE, sizeof(WORKSPACE) - 1) == 0 &&
               place_in(s, "", text + sizeof(WORKSPACE) - 1, line);
    return place_in(s, s->f->folder, text, line) || place_in(s, s->f->cwd, text, line);
}

/* Python: File "/workspace/a.py", line 3. The last one lies deepest in the user's own files. */
static bool find_python(struct search *s)
{
    static const char open[] = "File \"" WORKSPACE, middle[] = "\", line ";
    const char *end = s->f->tail + s->f->tail_len;
    size_t len = s->f->tail_len;
    for (int i = 0; i < DIAGNOSE_ATTEMPTS; i++) {
        const char *at = diagnose_last(s->f->tail, len, open);
        if (!at)
            return false;
        const char *name = at + sizeof("File \"") - 1;
        const char *stop = memchr(name, '\n', (size_t)(end - name));
        const char *close =
            memmem(name, (size_t)((stop ? stop : end) - name), middle, sizeof(middle) - 1);
        if (close && place(s, name, (size_t)(close - name),
                         read_line_number(close + sizeof(middle) - 1, end)))
            return true;
        len = (size_t)(at - s->f->tail);
    }
    return false;
}

/* Compilers and stacks: [/workspace/]dir/name.ext:12. The first one: the others follow from it. */
static bool find_colon(struct search *s)
{
    const char *tail = s->f->tail, *end = tail + s->f->tail_len;
    for (const char *p = tail; p < end; p++) {
        const char *colon = memchr(p, ':', (size_t)(end - p));
        if (!colon)
            return false;
        p = colon;
        unsigned line = read_line_number(colon + 1, end);
        const char *start = colon;
        while (line > 0 && start > tail && colon - start < 512 && start[-1] != '\0' &&
               !strchr(" \t\n\"'()[]", start[-1]))
            start--;
        if (line > 0 && place(s, start, (size_t)(colon - start), line))
            return true;
    }
    return false;
}

/* "main.sh: 4: lib.sh: Syntax error: …": dash means line 4 of the file that main.sh reads. */
static bool find_sourced(struct search *s, const char *digits, const char *end, unsigned line)
{
    static const char error[] = ": Syntax error: ";
    const char *name = memmem(digits, (size_t)(end - digits), ": ", 2);
    const char *close = name ? memmem(name, (size_t)(end - name), error, sizeof(error) - 1) : NULL;
    return close && close > name + 2 && place(s, name + 2, (size_t)(close - name - 2), line);
}

/* Shells, at a line's beginning: "main.sh: 3: …" (dash), "./main.sh: line 3: …" (bash). The last
 * one: what came before did not end it. */
static bool find_shell(struct search *s)
{
    const char *tail = s->f->tail, *end = tail + s->f->tail_len;
    for (const char *p = end; p > tail;) {
        const char *newline = memrchr(tail, '\n', (size_t)(p - tail));
        const char *start = newline ? newline + 1 : tail;
        const char *colon = memmem(start, (size_t)(p - start), ": ", 2);
        const char *digits = colon ? colon + 2 : p;
        if (p - digits > 5 && memcmp(digits, "line ", 5) == 0)
            digits += 5;
        unsigned line = read_line_number(digits, p);
        if (line > 0 &&
            (find_sourced(s, digits, p, line) || place(s, start, (size_t)(colon - start), line)))
            return true;
        p = newline ? newline : tail;
    }
    return false;
}

/* Node's import names who asked, without a line. */
static bool find_importer(struct search *s)
{
    char name[256];
    return diagnose_match("imported from %s", s->f->tail, s->f->tail_len, name, sizeof(name)) &&
           place(s, name, strlen(name), 0);
}

void diagnose_place(const struct diagnose_facts *f, struct diagnosis *ret)
{
    typedef bool finder(struct search * s);
    static finder *const usual[] = {find_python, find_colon, find_shell, NULL};
    static const struct {
        const char *language;
        finder *finders[4];
    } rows[] = {
        {"python", {find_python}},
        {"shell", {find_shell, find_python, find_colon}},
        {"node", {find_colon, find_importer}},
        {"go", {find_colon}},
        {"c", {find_colon}},
        {"c++", {find_colon}},
    };
    finder *const *finders = usual;
    for (size_t i = 0; f->language && i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (strcmp(rows[i].language, f->language) == 0)
            finders = rows[i].finders;
    }
    for (size_t i = 0; i < 4 && finders[i]; i++) {
        struct search s = {.f = f, .ret = ret};
        if (finders[i](&s))
            return;
    }
}
