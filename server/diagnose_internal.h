/* SPDX-License-Identifier: MIT */
/* What the files of diagnose share: the table (diagnose_rules.c), patterns (diagnose_match.c),
 * places (diagnose_place.c). Pure, any thread. For these only. */
#ifndef SERVER_DIAGNOSE_INTERNAL_H
#define SERVER_DIAGNOSE_INTERNAL_H

#include "server/diagnose.h"

#define DIAGNOSE_TEXT_MAX 160 /* bytes of a pattern's first text, with a NUL */
#define DIAGNOSE_ATTEMPTS 32  /* places at which one pattern is tried, from the end */

/* What else must be so. */
enum diagnose_need {
    DIAGNOSE_ANY,
    DIAGNOSE_OWN,      /* the run is of the rule's language; else an unknown one and a shell, which
                          start programs of all languages, will do as well */
    DIAGNOSE_VARIABLE, /* the name is an environment variable's: the last word, upper case */
};

/*
 * A rule matches when the tail holds `find` (see diagnose_match); `%s` in message and hint is the
 * name that it cut out. The order matters: the first match wins, so the special stands before the
 * general.
 */
struct diagnose_rule {
    const char *code;
    const char *language; /* NULL = any */
    const char *find;
    const char *message, *hint;
    int exit_code; /* 0 = any */
    enum diagnose_need need;
    bool by_version;
};
extern const struct diagnose_rule diagnose_rules[];
extern const size_t diagnose_rule_count;

/*
 * Patterns: text stands for itself, `~` for anything within the line, `%s` (once) for a name within
 * the line, up to the text behind it or the line's end. A pattern that begins with `%s` takes what
 * lies between the previous ": " (or the line's beginning) and its text. The last place in the tail
 * that fits counts: an output that went on for long ends with what ended it. name is "" without a
 * `%s`; one that is empty, too long, no UTF-8 or has control characters does not fit.
 */
bool diagnose_match(
    const char *pattern, const char *tail, size_t len, char *name, size_t name_size);
/* The last place of a text, or NULL. */
const char *diagnose_last(const char *tail, size_t len, const char *what);
/* Copy what may be repeated; false if it may not. */
bool diagnose_copy(const char *from, size_t len, char *out, size_t out_size);

/* The place in the user's own files that the tail names: ret->file and ret->line, or neither. */
void diagnose_place(const struct diagnose_facts *f, struct diagnosis *ret);

#endif
