/* SPDX-License-Identifier: MIT */
/*
 * Containers that are made before they are needed: at most one waits per sandbox, made by a thread
 * of this module's own and handed out once. Everything about it is an optimisation: without a
 * fitting one the caller makes its own, the cold way.
 *
 *     warm_take(w, sb, &limits, image, &got, &e)   // got.container NULL: none; make your own
 *     warm_expect(w, sb, &process, input)          // what the next run will probably be
 *     ...                                        // container_start, container_wait
 *     warm_again(w, sb)                          // it is over: have the next one made
 *     container_free(c)
 *     warm_done(w, sb)                           // nothing of it is left
 *
 * What is made is what the last run asked for; a request for other limits or another image gets
 * none, and the next one is made after its likeness. A container that waits holds the sandbox's
 * folders mounted and is charged to its limits; it has no program in it. Bounded in number; one
 * whose sandbox is not used is removed in time. Where all places are taken, the sandbox that was
 * used longest ago gives way, but not within WARM_PROTECTED_MS, or many sandboxes in turn would
 * only drive out each other's.
 *
 * If it is known which program the next run will probably be, that is prepared in the container
 * (container_prepare), with pipes for its output.
 *
 * Thread-safe; only warm_take (at most WARM_WAIT_MS), warm_drop and warm_stop wait. None may be
 * called by a thread that carries a sandbox's identity.
 */
#ifndef SERVER_WARM_H
#define SERVER_WARM_H

#include <stdint.h>

#include "server/container.h"
#include "server/sandbox.h"

#define WARM_IMAGE_BYTES 72
#define WARM_PROTECTED_MS 1000
#define WARM_WAIT_MS 100 /* for one that is being made: it is always ahead of another one */

struct warm;

struct warm_config {
    struct container_engine *engine; /* borrowed */
    uint64_t max;                    /* containers that wait; 0 = none */
    uint64_t age_ms;                 /* how long for a sandbox that nobody uses */
    uint64_t protected_ms;           /* usually WARM_PROTECTED_MS */
};

struct warm_stats {
    uint64_t waiting;            /* now */
    uint64_t made, taken;        /* since the start */
    uint64_t prepared;           /* of those made: with a program in it */
    uint64_t discarded, removed; /* did not fit or was dead; too old or gave way */
};

int warm_new(const struct warm_config *config, struct warm **ret, struct err *e) WARN_UNUSED;
/* Remove all that wait and make no more. Runs must be over. */
void warm_stop(struct warm *w);
void warm_free(struct warm *w);

/* One that waited; all of it is the taker's. */
struct warm_got {
    struct container *container;
    int out_read, err_read; /* of the output of a program that was prepared in it; -1: none was */
    int in_write;           /* of its input; -1: that is empty */
};
#define WARM_GOT_NOTHING ((struct warm_got){.out_read = -1, .err_read = -1, .in_write = -1})

/* Count a container of this sandbox in, and remember what is asked for. *ret is the one that waited
 * or WARM_GOT_NOTHING. After an error (-ENOMEM) it is not counted in. */
int warm_take(struct warm *w, struct sandbox *sb, const struct container_limits *limits,
    const char *image, struct warm_got *ret, struct err *e) WARN_UNUSED;
/* The program that will probably be wanted next, to be prepared in the next container that is made;
 * argv NULL: nobody knows. Texts are copied, descriptors not looked at. Its input is a pipe if `input`
 * says so, else empty: a program may look which it is before it is held. */
void warm_expect(
    struct warm *w, struct sandbox *sb, const struct container_process *process, bool input);
/* Count it out, after container_free. */
void warm_done(struct warm *w, struct sandbox *sb);

/* The sandbox is in use: have a container made like the last one, if none waits. False when it is
 * not known what that was: see warm_want. */
bool warm_again(struct warm *w, struct sandbox *sb);
/* The same with a first idea of what will be asked for. */
void warm_want(
    struct warm *w, struct sandbox *sb, const struct container_limits *limits, const char *image);

/* After sandbox_delete_begin: remove what waits, and wait until no container of the sandbox exists,
 * neither one that waits nor one that is in use. */
void warm_drop(struct warm *w, struct sandbox *sb);

void warm_stats(struct warm *w, struct warm_stats *ret);

#endif
