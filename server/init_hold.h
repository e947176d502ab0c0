/* SPDX-License-Identifier: MIT */
/*
 * A program that is started before it is needed: silt-init follows it by ptrace(2) from its first
 * instruction and holds it right before the first system call that could see or do anything that is
 * not the same for every run. It is the real program with its real arguments and environment, so
 * nothing about it can differ from a normal start but when it began. Until it is held it has only
 * read files of the read-only root and mapped memory; the workspace, the cache, the clock's calls,
 * its descriptors 0 to 2 and other processes come after.
 *
 *     child:  hold_offer(); execve(…)
 *     parent: hold_begin(&h, pid, mark)
 *             hold_step(&h, status)          // each time wait4(2) says that it stopped
 *             hold_release(&h, text)         // it goes on by itself and is not traced any more
 *             hold_end(&h)                   // or it was not what is wanted
 *
 * The mark is a text in its environment that stands for one that is not known yet (the run's id).
 * It is replaced in the program's memory wherever it has been copied to meanwhile.
 */
#ifndef SERVER_INIT_HOLD_H
#define SERVER_INIT_HOLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define HOLD_MARKS_MAX 16                     /* copies of the mark; more means no hold */
#define HOLD_MEMORY_MAX (UINT64_C(128) << 20) /* bytes that are searched for them */

enum hold_state {
    HOLD_NONE,     /* there is no such program */
    HOLD_STARTING, /* it runs towards the place where it is held */
    HOLD_HELD,
    HOLD_RELEASED, /* wanted while it still started: let go at its next stop */
};

struct hold {
    enum hold_state state;
    pid_t pid;
    bool executed; /* execve has succeeded */
    const char *mark, *text;
    size_t mark_len;
    unsigned marks;
    uint64_t at[HOLD_MARKS_MAX]; /* addresses in the program, once it is held */
};

/* In the child, before the program's filter is loaded. 0, or -1 and errno. */
int hold_offer(void);
/* The child has called hold_offer or will. mark is borrowed for as long as h is used. */
void hold_begin(struct hold *h, pid_t pid, const char *mark);
/* The program stopped with this status of wait4(2). False: it is not a program that can be held,
 * and was killed and reaped. */
bool hold_step(struct hold *h, int status);
/* Let it go with text, as long as the mark, in the mark's place. False: it had to be killed. text
 * is borrowed while the state is HOLD_RELEASED. */
bool hold_release(struct hold *h, const char *text);
/* It has ended by itself and was reaped. */
void hold_forget(struct hold *h);
/* Kill and reap it, if there is one. */
void hold_end(struct hold *h);

#endif
