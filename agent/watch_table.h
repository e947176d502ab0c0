/* SPDX-License-Identifier: MIT */
/*
 * Which watch is which folder: by the kernel's number and by path. A folder that is no longer ours
 * is dead: its number stays known until the kernel says that it is unused, since events of it may
 * still come, and its path is free for another. As many entries as there are watches. No system
 * calls.
 */
#ifndef AGENT_WATCH_TABLE_H
#define AGENT_WATCH_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uthash.h>

#include "shared/cleanup.h"

struct watch_folder {
    int wd;
    char *path;
    bool dead;
    uint32_t sweep;                /* of the owner: when it was last wanted */
    UT_hash_handle by_wd, by_path; /* by_path: live ones only */
};

/* All zero: empty. */
struct watch_table {
    struct watch_folder *wds, *paths;
    size_t live;
};

/* NULL: none, or only a dead one. */
struct watch_folder *watch_table_by_path(const struct watch_table *t, const char *path);
/* Dead ones too. */
struct watch_folder *watch_table_by_wd(const struct watch_table *t, int wd);

/* The watch wd is this folder from now on, and no other. -ENOMEM. */
int watch_table_put(struct watch_table *t, int wd, const char *path, uint32_t sweep) WARN_UNUSED;
void watch_table_make_dead(struct watch_table *t, struct watch_folder *f);
void watch_table_forget(struct watch_table *t, struct watch_folder *f);
void watch_table_clear(struct watch_table *t);

/* The live ones, in no order. Ask for the next before the one at hand is made dead. */
struct watch_folder *watch_table_first(const struct watch_table *t);
struct watch_folder *watch_table_next(const struct watch_folder *f);

#endif
