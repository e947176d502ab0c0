/* SPDX-License-Identifier: MIT */
/*
 * Why a path of the project is not synced, and which ignored paths a name could mean: for `silt
 * ignored` and for the hint after a run that missed something. Reads the project's ignore files
 * itself, so that it works beside a watcher that holds the project's lock. One thread.
 */
#ifndef AGENT_WHY_H
#define AGENT_WHY_H

#include <stdbool.h>
#include <stddef.h>

#include "agent/ignore.h"
#include "shared/buf.h"
#include "shared/err.h"

/* *ret_ignored, and if so the sentence of ignore_explain() appended to why. path is relative to
 * root and checked. */
int why_ignored(const char *root, const char *path, bool *ret_ignored, struct buf *why,
    struct err *e) WARN_UNUSED;

/* Paths that exist but are ignored, and are called `name`: the whole path, the last component, or
 * that without its extension; a module's dots count as slashes. malloc'd, at most max. Looks at
 * most WHY_LOOK_MAX entries, folders such as .git and node_modules not included. */
#define WHY_LOOK_MAX 50000
size_t why_find(const char *root, const char *name, char *ret[], size_t max);

/* How many paths are left out, a folder as one, by what leaves them out: counts is indexed by enum
 * ignore_source. Looks at most WHY_LOOK_MAX entries; *ret_more tells that there were more. */
int why_count(const char *root, size_t counts[IGNORE_SOURCES], bool *ret_more, struct err *e) WARN_UNUSED;

#endif
