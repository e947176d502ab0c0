/* SPDX-License-Identifier: MIT */
/*
 * Which paths of a project are never synced. Pure: rules are given as text, answers come from
 * memory. The rules are gitignore's (gitignore(5)), from these sources, each above the one before:
 *
 *     built-in    version control, our own folder, dependencies, editors' temporaries, secrets
 *     global      the file that git's core.excludesFile names (agent/ignore_git.h)
 *     exclude     .git/info/exclude
 *     .gitignore  of any folder that is not itself ignored
 *     .siltignore of any folder, on top: it may also take back (`!`) what the others leave out
 *
 * Within one source the last matching line wins, a deeper file before a shallower one. As in git
 * nothing beneath an ignored folder can be taken back.
 *
 * A built-in rule is taken back only by a line that means it, for "everything again" lines made of
 * wildcards stand in many a .gitignore, and git itself never adds `.git`: in .siltignore the line's
 * last component must hold more than wildcards, in .gitignore no wildcard; the two before cannot.
 * `.silt` is never synced.
 *
 * Not shared by threads (a cache of the last folder's rules).
 */
#ifndef AGENT_IGNORE_H
#define AGENT_IGNORE_H

#include <stdbool.h>
#include <stddef.h>

#include "shared/buf.h"
#include "shared/cleanup.h"

#define IGNORE_FILE_MAX (1024 * 1024) /* bytes of one rule file */
#define IGNORE_RULES_MAX 20000        /* rules of one file; lines after them are not read */

#define IGNORE_GITIGNORE ".gitignore"
#define IGNORE_SILTIGNORE ".siltignore"

enum ignore_source {
    IGNORE_BUILTIN,
    IGNORE_GLOBAL,
    IGNORE_EXCLUDE,
    IGNORE_GIT,
    IGNORE_SILT,
    IGNORE_SOURCES
};

struct ignore;

/* Without `defaults` only rule files count (and `.silt`). NULL when out of memory. */
struct ignore *ignore_new(bool defaults);
void ignore_free(struct ignore *ig);

/* Replace the rules of the file in folder dir ("" = root; always for GLOBAL, EXCLUDE) by this text; NULL drops them. What lies
 * beyond IGNORE_FILE_MAX is not read. -ENOMEM. */
int ignore_load(struct ignore *ig, enum ignore_source source, const char *dir, const char *text,
    size_t len) WARN_UNUSED;
/* Drop the rules of the files in dir and beneath it. */
void ignore_drop_tree(struct ignore *ig, const char *dir);

/* Which rule decided; its texts are valid until the next load or drop. */
struct ignore_verdict {
    bool ignored;
    enum ignore_source source;
    const char *dir;     /* folder of the rule's file, "" = root */
    unsigned line;       /* in the rule's file, from 1; 0: a built-in rule */
    const char *pattern; /* as it stands there; NULL: no rule matched */
    size_t path_len;     /* ignore_find: how much of the path it excluded */
};

/* Is this path ignored, given that the folders above it are not? ret may be NULL. */
bool ignore_check(
    const struct ignore *ig, const char *path, bool is_dir, struct ignore_verdict *ret);
/* As ignore_check, with the folders above it, from the top. */
bool ignore_find(
    const struct ignore *ig, const char *path, bool is_dir, struct ignore_verdict *ret);

/* A sentence that says why ("'build/x' is left out: line 3 of .gitignore says 'build/'; to sync it,
 * add the line '!/build/' to .siltignore"), appended to b. */
int ignore_explain(
    const struct ignore_verdict *verdict, const char *path, struct buf *b) WARN_UNUSED;

/* The built-in patterns, for help texts; NULL after the last. */
const char *ignore_default(size_t i);

/* Does the glob match the whole text, by the rules of gitignore(5) (`*` and `?` stop at '/')? */
bool ignore_glob(const char *glob, const char *text);

#endif
