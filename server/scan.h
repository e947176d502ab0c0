/* SPDX-License-Identifier: MIT */
/*
 * What programs did to a workspace: the folder compared with the manifest.
 *
 *     scan_look(ws, budget, &scan)    walk, stat, hash what differs; others may change the
 * workspace scan_confirm(ws, &scan, &edits) look again at what differed, while nobody applies a
 * change set
 *
 * An unchanged tree costs one stat for each entry. FIFOs, sockets and devices are not part of a
 * tree. What cannot be read, or what would exceed the budget (holes of sparse files have one of their
 * own, 1 GiB), is left as the manifest has it, and `incomplete` is set. The caller carries the sandbox's identity.
 */
#ifndef SERVER_SCAN_H
#define SERVER_SCAN_H

#include "server/apply.h"
#include "server/sandbox.h"

struct scan_budget {
    uint64_t entries;
    uint64_t hash_bytes;
};

struct scan_find {
    char *path;
    bool gone;
    bool hashed;           /* row.hash is of the file that had `stat` */
    struct tree_stat stat; /* as of the look */
    int64_t seen_ns;
    struct hash hash;
    char *target;
};

struct scan {
    struct scan_find *items;
    size_t count, cap;
    bool incomplete;
    size_t visited; /* entries */
    /* Which known paths were seen, as hashes: what is not among them may be gone. */
    uint64_t *seen;
    size_t seen_count, seen_cap;
    uint64_t bytes, hole_bytes; /* that were hashed; of them, holes */
};

int scan_look(struct workspace *ws, const struct scan_budget *budget, struct scan *ret,
    struct err *e) WARN_UNUSED;
void scan_release(struct scan *s);

/* *ret_changed: anything but times. The files and symlinks that changed are listed in *ret_files
 * (malloc'd, sorted, at most `max`), *ret_total counts all of them. */
struct scan_result {
    struct apply_edits edits;
    bool changed;
    struct sandbox_changed_file *files;
    size_t count, total;
};
int scan_confirm(struct workspace *ws, struct scan *s, size_t max, struct scan_result *ret,
    struct err *e) WARN_UNUSED;
void scan_result_release(struct scan_result *r);

#endif
