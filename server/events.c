/* SPDX-License-Identifier: MIT */
#include "server/events.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "shared/io.h"

#include "shared/banned.h"

#define FIRST_ROOM 16

void events_init(struct events *ev)
{
    pthread_condattr_t attr;
    *ev = (struct events){.ring = NULL};
    (void)pthread_mutex_init(&ev->lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&ev->more, &attr);
    (void)pthread_condattr_destroy(&attr);
    ev->first = ev->next = io_wall_ns() / 1000;
}

void events_release(struct events *ev)
{
    free(ev->ring);
    (void)pthread_cond_destroy(&ev->more);
    (void)pthread_mutex_destroy(&ev->lock);
}

/* More room, with the lock held. Places depend on the size, so events are moved. */
static int grow(struct events *ev)
{
    size_t cap = ev->cap ? 2 * ev->cap : FIRST_ROOM;
    struct event *ring = malloc(cap * sizeof(*ring));
    if (!ring)
        return -ENOMEM;
    for (uint64_t id = ev->next - ev->count; id < ev->next; id++)
        ring[id % cap] = ev->ring[id % ev->cap];
    free(ev->ring);
    ev->ring = ring;
    ev->cap = cap;
    return 0;
}

void events_add(struct events *ev, const struct event *event)
{
    (void)pthread_mutex_lock(&ev->lock);
    if (ev->count == ev->cap && ev->cap < EVENTS_KEPT && grow(ev) < 0 && ev->cap == 0) {
        ev->next++;
    } else {
        struct event *place = &ev->ring[ev->next % ev->cap];
        *place = *event;
        place->id = ev->next++;
        if (ev->count < ev->cap)
            ev->count++;
    }
    (void)pthread_cond_broadcast(&ev->more);
    (void)pthread_mutex_unlock(&ev->lock);
}

void events_close(struct events *ev)
{
    (void)pthread_mutex_lock(&ev->lock);
    ev->closed = true;
    (void)pthread_cond_broadcast(&ev->more);
    (void)pthread_mutex_unlock(&ev->lock);
}

void events_kick(struct events *ev)
{
    (void)pthread_mutex_lock(&ev->lock);
    (void)pthread_cond_broadcast(&ev->more);
    (void)pthread_mutex_unlock(&ev->lock);
}

int events_enter(struct events *ev, uint64_t *ret_last)
{
    (void)pthread_mutex_lock(&ev->lock);
    bool room = ev->readers < EVENTS_READERS_MAX;
    if (room)
        ev->readers++;
    *ret_last = ev->next - 1;
    (void)pthread_mutex_unlock(&ev->lock);
    return room ? 0 : -EBUSY;
}

void events_leave(struct events *ev)
{
    (void)pthread_mutex_lock(&ev->lock);
    ev->readers--;
    (void)pthread_mutex_unlock(&ev->lock);
}

/* With the lock held. */
static enum events_found look(const struct events *ev, uint64_t *after, struct event *ret)
{
    uint64_t oldest = ev->next - ev->count;
    if (*after == 0)
        *after = ev->first - 1;
    /* An id that was never given out belongs to another time. */
    if (*after + 1 < oldest || *after >= ev->next) {
        *after = oldest - 1;
        return EVENTS_GAP;
    }
    if (*after + 1 < ev->next) {
        *ret = ev->ring[(*after + 1) % ev->cap];
        *after = ret->id;
        return EVENTS_ONE;
    }
    return ev->closed ? EVENTS_END : EVENTS_NONE;
}

enum events_found events_next(
    struct events *ev, uint64_t *after, struct event *ret, uint32_t wait_ms)
{
    uint64_t ns = io_now_ns() + (uint64_t)wait_ms * 1000000;
    struct timespec deadline = {
        .tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};
    (void)pthread_mutex_lock(&ev->lock);
    enum events_found found = look(ev, after, ret);
    /* One wait: whoever is woken for nothing looks whether its client is still there. */
    if (found == EVENTS_NONE && wait_ms > 0) {
        (void)pthread_cond_timedwait(&ev->more, &ev->lock, &deadline);
        found = look(ev, after, ret);
    }
    (void)pthread_mutex_unlock(&ev->lock);
    return found;
}
