/* SPDX-License-Identifier: MIT */
/*
 * Who may run next: places for programs, shared fairly by their owners (sandboxes). An owner that
 * sends many requests waits for itself alone: the owners that wait are served in turns, one program
 * each, and no owner has more than its part of the places, nor more than its part of the queue.
 *
 *     slots_enter(s, owner, &ticket)   // counted; or refused, because too much is under way
 *     slots_want(s, &ticket)           // granted at once, or in the queue: `granted` is called
 *     slots_answered(s, &ticket)       // does not count any more, but keeps its place
 *     slots_leave(s, &ticket)          // from any state; what comes free goes to the next
 *
 * No I/O, no lock: the caller holds one over each call, and over a ticket's state.
 */
#ifndef SERVER_SLOTS_H
#define SERVER_SLOTS_H

#include <stdbool.h>
#include <stdint.h>

#include "shared/cleanup.h"

#define SLOTS_OWNER_BYTES 64

struct slots_config {
    uint64_t running, waiting;           /* of all owners; running ≥ 1 */
    uint64_t running_each, waiting_each; /* of one owner; running_each ≥ 1 */
};

struct slots_owner;
struct slots_ticket {
    struct slots_owner *owner; /* NULL: not entered */
    struct slots_ticket *next; /* in its owner's queue */
    enum { SLOTS_ENTERED, SLOTS_WAITING, SLOTS_RUNNING } state;
    bool answered;
};

struct slots;
/* granted: a ticket that waited has a place now. NULL when out of memory. */
struct slots *slots_new(const struct slots_config *config, void (*granted)(struct slots_ticket *t));
void slots_free(struct slots *s); /* every ticket has left */

/* t is zeroed. -EBUSY: too much is under way; -EDQUOT: too much of this owner's; -ENOMEM. */
int slots_enter(struct slots *s, const char *owner, struct slots_ticket *t) WARN_UNUSED;
/* Once per ticket. `granted` may be called before it returns. */
void slots_want(struct slots *s, struct slots_ticket *t);
/* At most once, before slots_leave. */
void slots_answered(struct slots *s, struct slots_ticket *t);
/* A ticket that has not entered, or has left, is none of its business. */
void slots_leave(struct slots *s, struct slots_ticket *t);

uint64_t slots_active(const struct slots *s); /* entered and not answered, in any state */
uint64_t slots_running(const struct slots *s);
uint64_t slots_waiting(const struct slots *s);

#endif
