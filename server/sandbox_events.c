/* SPDX-License-Identifier: MIT */
/* What happens in a sandbox, told to whoever follows it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "server/sandbox_internal.h"
#include "shared/io.h"

#include "shared/banned.h"

/* A program that runs now. Its thread looks for what it changed, and is told apart by that. */
struct sandbox_running {
    struct sandbox_running *next;
    pthread_t thread;
    char run[EVENTS_RUN_BYTES];
};

struct events *sandbox_events(struct sandbox *sb)
{
    return &sb->events;
}

static void tell(struct sandbox *sb, struct event *event)
{
    event->at_ns = io_wall_ns();
    event->generation = sb->generation;
    memcpy(event->epoch, sb->epoch, sizeof(event->epoch));
    events_add(&sb->events, event);
}

void sandbox_tell_generation(
    struct sandbox *sb, const char *by, const struct changes_begin *begin, const char *run)
{
    struct event event = {.kind = EVENT_GENERATION, .by = by};
    if (begin) {
        memcpy(event.client, begin->client, sizeof(event.client));
        event.seq = begin->seq;
    }
    (void)snprintf(event.run, sizeof(event.run), "%s", run);
    tell(sb, &event);
}

void sandbox_tell_deleted(struct sandbox *sb)
{
    struct event event = {.kind = EVENT_DELETED};
    tell(sb, &event);
    events_close(&sb->events);
}

const char *sandbox_running_here(const struct sandbox *sb)
{
    const struct sandbox_running *p = sb->running;
    while (p && !pthread_equal(p->thread, pthread_self()))
        p = p->next;
    return p ? p->run : "";
}

static void set_running(struct sandbox *sb, const char *run, bool running)
{
    struct sandbox_running **link = &sb->running;
    while (*link && strcmp((*link)->run, run) != 0)
        link = &(*link)->next;
    struct sandbox_running *p = *link;
    if (p && !running) {
        *link = p->next;
        free(p);
    } else if (!p && running && (p = calloc(1, sizeof(*p))) != NULL) {
        p->thread = pthread_self();
        (void)snprintf(p->run, sizeof(p->run), "%s", run);
        *link = p;
    }
}

void sandbox_running_free(struct sandbox *sb)
{
    while (sb->running)
        set_running(sb, sb->running->run, false);
}

void sandbox_note_run(struct sandbox *sb, const char *run, const char *status, bool running)
{
    struct event event = {.kind = EVENT_RUN, .status = status};
    (void)snprintf(event.run, sizeof(event.run), "%s", run);
    (void)pthread_mutex_lock(&sb->lock);
    set_running(sb, run, running);
    tell(sb, &event);
    (void)pthread_mutex_unlock(&sb->lock);
}

static void state_locked(const struct sandbox *sb, struct sandbox_state *ret)
{
    ret->generation = sb->generation;
    memcpy(ret->epoch, sb->epoch, sizeof(ret->epoch));
}

void sandbox_state(struct sandbox *sb, struct sandbox_state *ret)
{
    *ret = (struct sandbox_state){.generation = 0};
    (void)pthread_mutex_lock(&sb->lock);
    state_locked(sb, ret);
    (void)pthread_mutex_unlock(&sb->lock);
}

int sandbox_follow(struct sandbox *sb, struct sandbox_state *ret, struct err *e)
{
    *ret = (struct sandbox_state){.generation = 0};
    (void)pthread_mutex_lock(&sb->lock);
    state_locked(sb, ret);
    int r = events_enter(&sb->events, &ret->last_event);
    (void)pthread_mutex_unlock(&sb->lock);
    return r < 0 ? err_refuse(e, PROTO_BUSY,
                       "%d clients follow this sandbox already: end one of them, or try again",
                       EVENTS_READERS_MAX)
                 : 0;
}

void sandboxes_end_events(struct sandboxes *all)
{
    (void)pthread_mutex_lock(&all->lock);
    all->events_ended = true;
    for (struct sandbox *sb = all->table; sb; sb = sb->hh.next)
        events_close(&sb->events);
    (void)pthread_mutex_unlock(&all->lock);
}
