/* SPDX-License-Identifier: MIT */
/*
 * Changes in the project as the kernel tells them: the only user of libinotifytools, of which just
 * its descriptor, its reading and its adding and removing of single watches are used; which watch
 * is which folder is known here.
 *
 * Open it first thing in a process (the library uses select: its descriptor must be below 1024),
 * and once only (its state is global). Not for threads.
 *
 * Nothing is walked here. Whoever scans the tree calls watch_add for each folder before listing it,
 * so nothing that happens between is missed. Events are hints: what a path means is found out by
 * looking at it. A folder that appears is told as WATCH_DIR; it is watched when it is scanned.
 * Where events were lost everything must be scanned again (WATCH_RESCAN), and all watches are gone
 * until that scan adds them.
 *
 * Folders for which no watch is left are listed by watch_polled: the caller looks at them itself.
 */
#ifndef AGENT_WATCH_H
#define AGENT_WATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/err.h"
#include "shared/tree.h"

#define WATCH_COOKIE_DIR "cookies" /* in .silt */

enum watch_kind {
    WATCH_WRITTEN,  /* complete: closed after writing, changed attributes, a symlink, a further name
                     */
    WATCH_MODIFIED, /* written to, or just made, and still open */
    WATCH_ARRIVED,  /* moved here */
    WATCH_GONE,     /* deleted */
    WATCH_LEFT,     /* moved away */
    WATCH_DIR,      /* a folder that is not watched yet */
    WATCH_RESCAN,   /* events were lost, or a watch is unknown */
    WATCH_COOKIE,   /* `number` of watch_cookie was seen: so was everything before it */
    WATCH_ROOT_GONE /* the project's folder was deleted, moved or unmounted */
};

struct watch_event {
    enum watch_kind kind;
    const char *path; /* valid during the call; "" for RESCAN, COOKIE, ROOT_GONE */
    uint32_t cookie;  /* ARRIVED, LEFT: pairs them */
    uint64_t number;  /* COOKIE */
};
typedef void watch_sink(void *ctx, const struct watch_event *event);

struct watch;

/* tree and silt_fd (`.silt`, for its cookies) are borrowed until watch_close. */
int watch_open(const struct tree *tree, int silt_fd, struct watch **ret, struct err *e) WARN_UNUSED;
void watch_close(struct watch *w);

/* To be polled for POLLIN; ask again after each drain, for it may be another one then. */
int watch_fd(const struct watch *w);
/* Hand out the events that are there (some thousands at most: call again while it returns 1). */
int watch_drain(struct watch *w, watch_sink *sink, void *ctx, struct err *e) WARN_UNUSED;

/* Watch the folder ("" = root), which dir_fd is (lent; -1: it is opened), unless it is watched.
 * Without a free watch it goes to the polled ones; a folder that is gone is no error. */
void watch_add(struct watch *w, const char *path, int dir_fd);
/* Around a scan of everything: folders that it did not add are no longer watched. */
void watch_sweep_begin(struct watch *w);
void watch_sweep_end(struct watch *w);

/* Ask to be told (WATCH_COOKIE with this number) when everything before now was seen. */
int watch_cookie(struct watch *w, uint64_t *ret_number, struct err *e) WARN_UNUSED;

size_t watch_count(const struct watch *w);
/* Folders that must be looked at by hand, with what lies beneath; borrowed until the next call. */
const char *const *watch_polled(const struct watch *w, size_t *ret_count);
/* Why there are such folders and what helps, or NULL. */
const char *watch_problem(const struct watch *w);

#endif
