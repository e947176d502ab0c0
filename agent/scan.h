/* SPDX-License-Identifier: MIT */
/*
 * Compare the project's tree with what is known of it, by stat only: which paths are new, changed
 * or gone. Contents are read by whoever sends them. Ignored folders are never entered; the rule
 * files of the folders that are entered are read on the way, so the rules are as fresh as the scan.
 *
 * Entries that vanish meanwhile are simply not there. What cannot be read is reported, and nothing
 * beneath it counts as gone. FIFOs, sockets, devices and symlinks that lead out of the project are
 * reported and left out.
 */
#ifndef AGENT_SCAN_H
#define AGENT_SCAN_H

#include <stddef.h>
#include <stdint.h>

#include "agent/ignore.h"
#include "shared/err.h"
#include "shared/manifest.h"
#include "shared/tree.h"

enum scan_kind {
    SCAN_NEW,
    SCAN_CHANGED, /* looks different; its content may still be the same */
    SCAN_GONE,
    SCAN_FORGET, /* still there, but ignored by now: no longer ours to send or to delete */
};

struct scan_item {
    enum scan_kind kind;
    char *path;          /* owned */
    struct tree_stat st; /* NEW, CHANGED */
};

struct scan {
    struct scan_item
        *items; /* NEW and CHANGED: folders before what they hold; then GONE and FORGET: after */
    size_t count, cap;
    size_t gone;           /* how many of the items are GONE */
    uint64_t files, bytes; /* files that are synced, as far as the scan went */
};

struct scan_config {
    const struct tree *tree;
    struct ignore *rules;
    const struct manifest *known;
    bool doubt; /* every file is CHANGED, whatever its time stamps say */
    /* A path that is left out or could not be read, and a sentence. May be NULL. */
    void (*skipped)(void *ctx, const char *path, const char *why);
    /* Each folder that is entered, before it is listed and its rules are read ("" = the root), and
     * its descriptor, lent, or -1. May be NULL. */
    void (*entered)(void *ctx, const char *path, int dir_fd);
    void *ctx;
};

/* The whole project. ret is filled here; release it also after a failure. */
int scan_all(const struct scan_config *config, struct scan *ret, struct err *e) WARN_UNUSED;

/* These paths (checked form, "" = all), folders with everything beneath, missing ones as gone with
 * everything beneath; the folders above a path where they are not known yet. A path that names a
 * rule file means its folder. */
int scan_paths(const struct scan_config *config, const char *const *paths, size_t count,
    struct scan *ret, struct err *e) WARN_UNUSED;

void scan_release(struct scan *s);

/* Is the path left out by the rule files as they are now? They are read anew, those above it from the
 * root. 1, 0 or -ENOMEM. */
int scan_ignored(const struct scan_config *config, const char *path, bool is_dir) WARN_UNUSED;

#endif
