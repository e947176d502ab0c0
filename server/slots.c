/* SPDX-License-Identifier: MIT */
#include "server/slots.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <uthash.h>

#include "shared/banned.h"

struct slots_owner {
    char name[SLOTS_OWNER_BYTES];
    uint64_t tickets; /* that have not left */
    uint64_t active, running;
    struct slots_ticket *first, *last; /* that wait */
    struct slots_owner *next;          /* in the round; in it exactly while somebody waits */
    UT_hash_handle hh;
};

struct slots {
    struct slots_config config;
    void (*granted)(struct slots_ticket *t);
    uint64_t active, running, waiting;
    struct slots_owner *owners;
    struct slots_owner *round_first, *round_last;
};

struct slots *slots_new(const struct slots_config *config, void (*granted)(struct slots_ticket *t))
{
    struct slots *s = calloc(1, sizeof *s);
    if (s) {
        s->config = *config;
        s->granted = granted;
    }
    return s;
}

void slots_free(struct slots *s)
{
    free(s);
}

int slots_enter(struct slots *s, const char *name, struct slots_ticket *t)
{
    struct slots_owner *owner = NULL;
    HASH_FIND_STR(s->owners, name, owner);
    if (s->active >= s->config.running + s->config.waiting)
        return -EBUSY;
    if (owner && owner->active >= s->config.running_each + s->config.waiting_each)
        return -EDQUOT;
    if (!owner) {
        owner = calloc(1, sizeof *owner);
        if (!owner)
            return -ENOMEM;
        (void)snprintf(owner->name, sizeof owner->name, "%s", name);
        HASH_ADD_STR(s->owners, name, owner);
    }
    owner->tickets++;
    owner->active++;
    s->active++;
    *t = (struct slots_ticket){.owner = owner, .state = SLOTS_ENTERED};
    return 0;
}

/* ---- the round of owners for whom somebody waits */

static void round_append(struct slots *s, struct slots_owner *owner)
{
    owner->next = NULL;
    if (s->round_last)
        s->round_last->next = owner;
    else
        s->round_first = owner;
    s->round_last = owner;
}

static void round_remove(struct slots *s, const struct slots_owner *owner)
{
    struct slots_owner **link = &s->round_first, *previous = NULL;
    while (*link != owner) {
        previous = *link;
        link = &previous->next;
    }
    *link = owner->next;
    if (s->round_last == owner)
        s->round_last = previous;
}

static void queue_remove(struct slots *s, struct slots_ticket *t)
{
    struct slots_owner *owner = t->owner;
    struct slots_ticket **link = &owner->first, *previous = NULL;
    while (*link != t) {
        previous = *link;
        link = &previous->next;
    }
    *link = t->next;
    if (owner->last == t)
        owner->last = previous;
    s->waiting--;
    if (!owner->first)
        round_remove(s, owner);
}

/* Give free places away: to the first owner of the round that may have one more, which then goes to
 * the round's end. */
static void deal(struct slots *s)
{
    struct slots_owner *owner = s->round_first;
    while (owner && s->running < s->config.running) {
        if (owner->running >= s->config.running_each) {
            owner = owner->next;
            continue;
        }
        struct slots_ticket *t = owner->first;
        queue_remove(s, t);
        if (owner->first) {
            round_remove(s, owner);
            round_append(s, owner);
        }
        t->state = SLOTS_RUNNING;
        owner->running++;
        s->running++;
        s->granted(t);
        owner = s->round_first;
    }
}

void slots_want(struct slots *s, struct slots_ticket *t)
{
    struct slots_owner *owner = t->owner;
    t->state = SLOTS_WAITING;
    t->next = NULL;
    if (owner->last)
        owner->last->next = t;
    else
        owner->first = t;
    owner->last = t;
    if (owner->first == t)
        round_append(s, owner);
    s->waiting++;
    deal(s);
}

void slots_answered(struct slots *s, struct slots_ticket *t)
{
    t->answered = true;
    t->owner->active--;
    s->active--;
}

void slots_leave(struct slots *s, struct slots_ticket *t)
{
    struct slots_owner *owner = t->owner;
    if (!owner)
        return;
    if (t->state == SLOTS_WAITING)
        queue_remove(s, t);
    if (t->state == SLOTS_RUNNING) {
        owner->running--;
        s->running--;
    }
    if (!t->answered)
        slots_answered(s, t);
    t->owner = NULL;
    if (--owner->tickets == 0) {
        HASH_DEL(s->owners, owner);
        free(owner);
    }
    deal(s);
}

uint64_t slots_active(const struct slots *s)
{
    return s->active;
}

uint64_t slots_running(const struct slots *s)
{
    return s->running;
}

uint64_t slots_waiting(const struct slots *s)
{
    return s->waiting;
}
