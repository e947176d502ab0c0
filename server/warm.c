/* SPDX-License-Identifier: MIT */
#include "server/warm_internal.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "shared/io.h"
#include "shared/log.h"

#include "shared/banned.h"

#define MAKER_STACK_BYTES (256u * 1024)
#define MS UINT64_C(1000000)

enum spot_state { SPOT_EMPTY, SPOT_QUEUED, SPOT_MAKING, SPOT_WAITING };

/* One per sandbox. What waits in it is always what the wish says. */
struct spot {
    char id[SANDBOX_ID_BYTES];
    enum spot_state state;
    struct warm_wish wish;
    struct sandbox *sandbox;      /* with SPOT_QUEUED: a reference */
    struct warm_got got;          /* with SPOT_WAITING */
    struct warm_program *program; /* for the next one, or NULL */
    uint64_t used_ns;             /* somebody took or wanted one */
    uint64_t since_ns;            /* in this state */
    unsigned users;               /* containers handed out, made in its stead, or not removed yet */
    unsigned droppers;            /* in warm_drop */
    bool awaited;                 /* somebody waits for the maker */
    UT_hash_handle hh;
};

/* One to be removed by the maker, since that takes its time. Counted as a user of its spot. */
struct waste {
    struct container *container;
    struct spot *spot;
    struct waste *next;
};

struct warm {
    struct warm_config config;
    pthread_t maker;
    bool running; /* there is a maker */

    pthread_mutex_t lock; /* all below */
    pthread_cond_t work;  /* for the maker */
    pthread_cond_t moved; /* a spot left SPOT_MAKING, a user left */
    struct spot *spots;
    uint64_t taken_places; /* spots that are not empty */
    struct waste *waste;
    bool stopping;
    struct warm_stats stats;
};

/* As pthread_cond_timedwait(3). */
static int wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t ns)
{
    struct timespec deadline = {.tv_sec = (time_t)(ns / UINT64_C(1000000000)),
        .tv_nsec = (long)(ns % UINT64_C(1000000000))};
    return pthread_cond_timedwait(cond, lock, &deadline);
}

static bool make_wish(
    const struct container_limits *limits, const char *image, struct warm_wish *ret)
{
    *ret = (struct warm_wish){.limits = *limits};
    int n = snprintf(ret->image, sizeof ret->image, "%s", *image ? image : "host");
    return n > 0 && n < (int)sizeof ret->image;
}

static bool same_wish(const struct warm_wish *a, const struct warm_wish *b)
{
    const struct container_limits *l = &a->limits, *m = &b->limits;
    return strcmp(a->image, b->image) == 0 && l->memory_bytes == m->memory_bytes &&
           l->pids == m->pids && l->cpus == m->cpus && l->open_files == m->open_files &&
           l->file_bytes == m->file_bytes && l->tmp_bytes == m->tmp_bytes;
}

/* ---- spots; the lock is held */

static struct spot *find_spot(struct warm *w, const struct sandbox *sb)
{
    struct spot *s = NULL;
    HASH_FIND_STR(w->spots, sandbox_id(sb), s);
    return s;
}

static struct spot *get_spot(struct warm *w, const struct sandbox *sb)
{
    struct spot *s = find_spot(w, sb);
    if (s)
        return s;
    s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    (void)snprintf(s->id, sizeof s->id, "%s", sandbox_id(sb));
    s->got = WARM_GOT_NOTHING;
    HASH_ADD_STR(w->spots, id, s);
    if (s->hh.tbl)
        return s;
    free(s);
    return NULL;
}

static void remove_spot(struct warm *w, struct spot *s)
{
    HASH_DEL(w->spots, s);
    free(s->program);
    free(s);
}

static void set_state(struct warm *w, struct spot *s, enum spot_state state)
{
    if (s->state != SPOT_EMPTY)
        w->taken_places--;
    if (s->state == SPOT_WAITING)
        w->stats.waiting--;
    s->state = state;
    s->since_ns = io_now_ns();
    if (state != SPOT_EMPTY)
        w->taken_places++;
    if (state == SPOT_WAITING)
        w->stats.waiting++;
}

static void throw_away(struct warm *w, struct spot *s, struct warm_got got)
{
    struct container *c = got.container;
    struct waste *waste = malloc(sizeof *waste);
    warm_got_close(&got);
    if (!waste) {
        /* Out of memory is no reason to keep it: then here, although it takes long. */
        container_free(c);
        return;
    }
    *waste = (struct waste){.container = c, .spot = s, .next = w->waste};
    w->waste = waste;
    s->users++;
    (void)pthread_cond_signal(&w->work);
}

/* What waits there, now the caller's. */
static struct warm_got empty(struct warm *w, struct spot *s)
{
    struct warm_got got = s->got;
    s->got = WARM_GOT_NOTHING;
    set_state(w, s, SPOT_EMPTY);
    return got;
}

/* Something that died while it waited (the machine was short of memory) is of no use. */
static bool is_alive(const struct container *c)
{
    struct pollfd p = {.fd = container_fd(c), .events = POLLIN};
    return poll(&p, 1, 0) == 0;
}

static bool make_room(struct warm *w)
{
    struct spot *oldest = NULL;
    uint64_t now = io_now_ns(), protected_ns = w->config.protected_ms * MS;
    if (w->taken_places < w->config.max)
        return true;
    for (struct spot *s = w->spots; s; s = s->hh.next) {
        /* Added, not subtracted: the clock starts with the machine. */
        if (s->state == SPOT_WAITING && s->used_ns + protected_ns <= now &&
            (!oldest || s->used_ns < oldest->used_ns))
            oldest = s;
    }
    if (!oldest)
        return false;
    throw_away(w, oldest, empty(w, oldest));
    w->stats.removed++;
    return true;
}

static void unqueue(struct warm *w, struct spot *s)
{
    if (s->state != SPOT_QUEUED)
        return;
    sandbox_unref(ptr_take(&s->sandbox));
    set_state(w, s, SPOT_EMPTY);
}

static void queue(struct warm *w, struct spot *s, struct sandbox *sb)
{
    s->used_ns = io_now_ns();
    if (s->state != SPOT_EMPTY || w->stopping || !s->wish.image[0] || !make_room(w))
        return;
    s->sandbox = sandbox_ref(sb);
    set_state(w, s, SPOT_QUEUED);
    (void)pthread_cond_signal(&w->work);
}

/* ---- the maker; it runs warm_make_one without the lock: the spot stays since it is SPOT_MAKING */

static void make(struct warm *w, struct spot *s)
{
    const struct warm_wish wish = s->wish;
    struct sandbox *sb = ptr_take(&s->sandbox);
    CLEANUP(freep) struct warm_program *program = ptr_take(&s->program);
    set_state(w, s, SPOT_MAKING);
    (void)pthread_mutex_unlock(&w->lock);
    struct warm_got got = warm_make_one(w->config.engine, sb, &wish, program);
    sandbox_unref(sb);
    (void)pthread_mutex_lock(&w->lock);
    if (got.container && !w->stopping && same_wish(&wish, &s->wish)) {
        s->got = got;
        set_state(w, s, SPOT_WAITING);
        w->stats.made++;
        w->stats.prepared += got.out_read >= 0;
        if (!s->program)
            s->program = ptr_take(&program); /* for one after it, if this one is not used */
    } else {
        set_state(w, s, SPOT_EMPTY);
        if (got.container)
            throw_away(w, s, got);
        else
            s->wish.image[0] = '\0'; /* until a run tells what works */
    }
    (void)pthread_cond_broadcast(&w->moved);
}

static void clear_waste(struct warm *w)
{
    struct waste *waste = w->waste;
    w->waste = waste->next;
    (void)pthread_mutex_unlock(&w->lock);
    container_free(waste->container);
    (void)pthread_mutex_lock(&w->lock);
    waste->spot->users--;
    free(waste);
    (void)pthread_cond_broadcast(&w->moved);
}

static struct spot *next_queued(const struct warm *w)
{
    struct spot *first = NULL;
    for (struct spot *s = w->spots; s; s = s->hh.next) {
        if (s->state == SPOT_QUEUED && (!first || s->since_ns < first->since_ns))
            first = s;
    }
    return first;
}

/* Remove what waited or was not used for too long; returns when to look again, 0 = never. */
static uint64_t expire(struct warm *w)
{
    uint64_t age_ns = w->config.age_ms * MS, now = io_now_ns(), next_ns = 0;
    struct spot *s, *next;
    HASH_ITER(hh, w->spots, s, next) {
        bool idle = s->state == SPOT_EMPTY && s->users + s->droppers == 0;
        if (s->state != SPOT_WAITING && !idle)
            continue;
        uint64_t at_ns = s->used_ns + age_ns;
        if (now < at_ns) {
            next_ns = next_ns == 0 || at_ns < next_ns ? at_ns : next_ns;
        } else if (idle) {
            remove_spot(w, s);
        } else {
            throw_away(w, s, empty(w, s));
            w->stats.removed++;
        }
    }
    return next_ns;
}

static void *maker_main(void *ctx)
{
    struct warm *w = ctx;
    (void)pthread_mutex_lock(&w->lock);
    for (;;) {
        uint64_t until_ns = expire(w);
        struct spot *s = w->stopping ? NULL : next_queued(w);
        if (w->waste)
            clear_waste(w);
        else if (s)
            make(w, s);
        else if (w->stopping)
            break;
        else if (until_ns > 0)
            (void)wait_until(&w->work, &w->lock, until_ns);
        else
            (void)pthread_cond_wait(&w->work, &w->lock);
    }
    (void)pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* ---- beginning and end */

int warm_new(const struct warm_config *config, struct warm **ret, struct err *e)
{
    struct warm *w = calloc(1, sizeof *w);
    pthread_condattr_t clock;
    pthread_attr_t attr;
    if (!w)
        return err_set(e, ENOMEM, "prepare containers");
    w->config = *config;
    (void)pthread_mutex_init(&w->lock, NULL);
    (void)pthread_condattr_init(&clock);
    (void)pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&w->work, &clock);
    (void)pthread_cond_init(&w->moved, &clock);
    (void)pthread_condattr_destroy(&clock);
    (void)pthread_attr_init(&attr);
    (void)pthread_attr_setstacksize(&attr, MAKER_STACK_BYTES);
    int r = pthread_create(&w->maker, &attr, maker_main, w);
    (void)pthread_attr_destroy(&attr);
    w->running = r == 0;
    if (r != 0) {
        warm_free(w);
        return err_set(e, r, "start a thread");
    }
    *ret = w;
    return 0;
}

void warm_stop(struct warm *w)
{
    struct spot *s, *next;
    if (!w || !w->running)
        return;
    (void)pthread_mutex_lock(&w->lock);
    w->stopping = true;
    HASH_ITER(hh, w->spots, s, next) {
        unqueue(w, s);
        if (s->state != SPOT_WAITING)
            continue;
        /* All at once now, so that removing one after the other does not take long. */
        err_ignore(container_kill(s->got.container, SIGKILL, NULL));
        throw_away(w, s, empty(w, s));
    }
    (void)pthread_cond_signal(&w->work);
    (void)pthread_mutex_unlock(&w->lock);
    (void)pthread_join(w->maker, NULL);
    w->running = false;
}

void warm_free(struct warm *w)
{
    struct spot *s, *next;
    if (!w)
        return;
    warm_stop(w);
    HASH_ITER(hh, w->spots, s, next)
        remove_spot(w, s);
    (void)pthread_cond_destroy(&w->work);
    (void)pthread_cond_destroy(&w->moved);
    (void)pthread_mutex_destroy(&w->lock);
    free(w);
}

/* ---- for runs */

/* One that is being made is ahead of one that would be begun now, for one waiter. */
static void await_maker(struct warm *w, struct spot *s)
{
    uint64_t until_ns = io_now_ns() + WARM_WAIT_MS * MS;
    s->awaited = true;
    while (s->state == SPOT_MAKING && wait_until(&w->moved, &w->lock, until_ns) != ETIMEDOUT)
        ;
    s->awaited = false;
}

/* Counted in already, so the spot stays. */
static struct warm_got take(struct warm *w, struct spot *s, const struct warm_wish *wish)
{
    struct warm_got got = WARM_GOT_NOTHING;
    if (s->state == SPOT_MAKING && !s->awaited && same_wish(wish, &s->wish))
        await_maker(w, s);
    unqueue(w, s); /* not begun: the caller is quicker */
    if (s->state == SPOT_WAITING)
        got = empty(w, s);
    if (got.container && (!same_wish(wish, &s->wish) || !is_alive(got.container))) {
        throw_away(w, s, got);
        got = WARM_GOT_NOTHING;
        w->stats.discarded++;
    }
    s->wish = *wish;
    w->stats.taken += got.container != NULL;
    return got;
}

int warm_take(struct warm *w, struct sandbox *sb, const struct container_limits *limits,
    const char *image, struct warm_got *ret, struct err *e)
{
    struct warm_wish wish;
    bool valid = make_wish(limits, image, &wish);
    *ret = WARM_GOT_NOTHING;
    (void)pthread_mutex_lock(&w->lock);
    struct spot *s = get_spot(w, sb);
    if (s) {
        s->users++;
        s->used_ns = io_now_ns();
        if (valid)
            *ret = take(w, s, &wish);
    }
    (void)pthread_mutex_unlock(&w->lock);
    return s ? 0 : err_set(e, ENOMEM, "prepare a container");
}

void warm_expect(
    struct warm *w, struct sandbox *sb, const struct container_process *process, bool input)
{
    struct warm_program *program = process->argv ? warm_program_new(process, input) : NULL;
    (void)pthread_mutex_lock(&w->lock);
    struct spot *s = find_spot(w, sb);
    if (s) {
        struct warm_program *old = s->program;
        s->program = program;
        program = old;
    }
    (void)pthread_mutex_unlock(&w->lock);
    free(program);
}

void warm_done(struct warm *w, struct sandbox *sb)
{
    (void)pthread_mutex_lock(&w->lock);
    struct spot *s = find_spot(w, sb);
    if (s && s->users > 0)
        s->users--;
    (void)pthread_cond_broadcast(&w->moved);
    (void)pthread_mutex_unlock(&w->lock);
}

bool warm_again(struct warm *w, struct sandbox *sb)
{
    (void)pthread_mutex_lock(&w->lock);
    struct spot *s = find_spot(w, sb);
    bool known = w->config.max == 0 || w->stopping || (s && s->wish.image[0]);
    if (known && s)
        queue(w, s, sb);
    (void)pthread_mutex_unlock(&w->lock);
    return known;
}

void warm_want(
    struct warm *w, struct sandbox *sb, const struct container_limits *limits, const char *image)
{
    struct warm_wish wish;
    if (!make_wish(limits, image, &wish))
        return;
    (void)pthread_mutex_lock(&w->lock);
    struct spot *s = get_spot(w, sb);
    if (s && !s->wish.image[0])
        s->wish = wish;
    if (s)
        queue(w, s, sb);
    (void)pthread_mutex_unlock(&w->lock);
}

/* ---- the end of a sandbox */

void warm_drop(struct warm *w, struct sandbox *sb)
{
    struct warm_got got = WARM_GOT_NOTHING;
    (void)pthread_mutex_lock(&w->lock);
    struct spot *s = find_spot(w, sb);
    if (s) {
        unqueue(w, s);
        s->droppers++; /* the spot stays */
        while (s->state == SPOT_MAKING || s->users > 0)
            (void)pthread_cond_wait(&w->moved, &w->lock);
        unqueue(w, s);
        if (s->state == SPOT_WAITING)
            got = empty(w, s);
        if (--s->droppers == 0 && s->users == 0)
            remove_spot(w, s);
    }
    (void)pthread_mutex_unlock(&w->lock);
    warm_got_close(&got);
    container_free(got.container);
}

void warm_stats(struct warm *w, struct warm_stats *ret)
{
    (void)pthread_mutex_lock(&w->lock);
    *ret = w->stats;
    (void)pthread_mutex_unlock(&w->lock);
}
