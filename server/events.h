/* SPDX-License-Identifier: MIT */
/*
 * What happened in a sandbox lately: the last 256 events, numbered, for any number of readers.
 *
 *     events_init(&ev)
 *     events_add(&ev, &event)                      whoever changes something; never waits for a
 * reader events_next(&ev, &after, &event, wait_ms)    a reader, with a position of its own
 *     events_close(&ev)                            nothing follows; readers come to their end
 *     events_release(&ev)
 *
 * A reader that falls behind by more than the ring holds is told so once and goes on with the
 * oldest event that is left. Adding an event is a copy under a lock that is never held for long;
 * the text is made by those who read. Memory grows with use up to 256 events (some 60 KiB).
 *
 * Ids go up by one from event to event. The first one is the wall clock in microseconds, so that an
 * id from before a restart is recognised as one whose successors are not known.
 */
#ifndef SERVER_EVENTS_H
#define SERVER_EVENTS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/changes.h"
#include "shared/err.h"

#define EVENTS_KEPT 256
#define EVENTS_RUN_BYTES 40
#define EVENTS_READERS_MAX 256 /* of one sandbox */

enum event_kind {
    EVENT_GENERATION, /* the workspace changed */
    EVENT_RUN,        /* a run was accepted, started or ended */
    EVENT_DELETED     /* the sandbox is gone; the last one */
};

struct event {
    enum event_kind kind;
    uint64_t id; /* events_add chooses it */
    uint64_t at_ns;
    uint64_t generation;
    char epoch[40];
    const char *by;                      /* static: "changes", "run", "recovery" */
    char client[CHANGES_CLIENT_MAX + 1]; /* "" = none */
    uint64_t seq;
    char run[EVENTS_RUN_BYTES]; /* "" = none */
    const char *status;         /* static: of the run */
};

struct events {
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct event *ring; /* event `id` lies at id % cap */
    size_t cap, count;
    uint64_t first, next; /* the first id there ever was; the id of the next event */
    unsigned readers;
    bool closed;
};

void events_init(struct events *ev);
void events_release(struct events *ev);
/* Append. Out of memory: the event is lost, which readers are told as if they had fallen behind. */
void events_add(struct events *ev, const struct event *event);
void events_close(struct events *ev);
/* Wake the readers, to look whether their clients are still there. Does not block for long: any
 * thread. */
void events_kick(struct events *ev);

/* Count a reader in (until events_leave) and give the id of the last event as its position. -EBUSY
 * when there are too many. */
int events_enter(struct events *ev, uint64_t *ret_last) WARN_UNUSED;
void events_leave(struct events *ev);

enum events_found {
    EVENTS_NONE, /* nothing within wait_ms, or kicked */
    EVENTS_ONE,  /* *ret is the next event, *after its id */
    EVENTS_GAP,  /* some after *after are lost; *after is the id before the oldest that is kept */
    EVENTS_END   /* closed, and all was read */
};
/* The event after id *after; 0 stands for the beginning, where nothing is missing unless something
 * was dropped. */
enum events_found events_next(
    struct events *ev, uint64_t *after, struct event *ret, uint32_t wait_ms) WARN_UNUSED;

#endif
