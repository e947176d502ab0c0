/* SPDX-License-Identifier: MIT */
/*
 * When is a path that was seen to change worth reading? Pure: told what happened and what time it
 * is, it says which paths are due. Times are microseconds of any clock that does not go back.
 *
 *     closed after writing, moved here    at once: whoever saved is done (leading edge)
 *     … under a name that was not known   after 5 ms: it may be a temporary that is renamed at once
 *     … that looks like one           after 100 ms: the same, for writers that take their time
 *     written to and still open           after 30 ms without a further write
 *     deleted                             after 10 ms, for it is often written anew at once
 *     moved away                          when its other half arrives, or after 50 ms
 *     any of them                         at most 150 ms after the first: a writer that never stops
 *                                         is seen every 150 ms and delays nobody else
 */
#ifndef AGENT_SETTLE_H
#define AGENT_SETTLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/cleanup.h"

#define SETTLE_QUIET_US 30000
#define SETTLE_NEW_US 5000
#define SETTLE_PASSING_US 100000
#define SETTLE_GONE_US 10000
#define SETTLE_PAIR_US 50000
#define SETTLE_CAP_US 150000
#define SETTLE_PATHS_MAX 20000 /* waiting at a time */
#define SETTLE_NEVER UINT64_MAX

enum settle_hint {
    SETTLE_WRITTEN,  /* complete: closed after writing, a symlink, a changed mode */
    SETTLE_NEW,      /* complete, as WRITTEN, but its name was not known before */
    SETTLE_PASSING,  /* as NEW, and named like something that will be renamed at once */
    SETTLE_ARRIVED,  /* moved here */
    SETTLE_MODIFIED, /* changed, but maybe not for the last time */
    SETTLE_GONE,     /* deleted */
    SETTLE_LEFT,     /* moved away */
};

/* Is this a file's name as programs make it that write beside a file and rename: "x.py.tmp.4711.8f3a",
 * "x.tmp", "sedAb12Cd", ".x.py.AbC123", "x.part"? Such a file is synced if it stays. */
bool settle_is_passing(const char *name);

struct settle_event {
    const char *path;
    enum settle_hint hint;
    uint32_t cookie; /* ARRIVED, LEFT: what pairs them; 0: nothing */
    uint64_t ino;    /* of what arrived, or what is known of what left; 0: unknown */
};

struct settle;

struct settle *settle_new(void); /* NULL when out of memory */
void settle_free(struct settle *s);

/* -ENOBUFS when SETTLE_PATHS_MAX paths wait already (the caller scans everything instead), -ENOMEM.
 */
int settle_feed(struct settle *s, const struct settle_event *event, uint64_t now_us) WARN_UNUSED;

/* Make everything due now: somebody waits for it. */
void settle_hurry(struct settle *s, uint64_t now_us);

/* Take what is due, oldest first: up to max malloc'd paths into ret. Returns how many. */
size_t settle_take(struct settle *s, uint64_t now_us, char **ret, size_t max);
/* When the first event of what was taken last came. */
uint64_t settle_taken_us(const struct settle *s);

/* When the next path becomes due, or SETTLE_NEVER. */
uint64_t settle_next_us(const struct settle *s);
size_t settle_count(const struct settle *s);
/* Up to max of the paths that wait, borrowed until the next call; returns how many. */
size_t settle_some(const struct settle *s, const char **ret, size_t max);

#endif
