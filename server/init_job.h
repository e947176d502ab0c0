/* SPDX-License-Identifier: MIT */
/*
 * A program for silt-init: how the order for one is read, and how a process becomes it. Part of
 * silt-init.
 */
#ifndef SERVER_INIT_JOB_H
#define SERVER_INIT_JOB_H

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

#include "server/init.h"

struct job {
    char *cwd;
    char **argv, **env; /* argv NULL: there is none */
    bool tty;
    int fds[3]; /* -1: none came with it */
};

/* An order's fixed part and the descriptors that came with it. False: there is none, or an end. */
bool job_read_order(struct init_order *order, int fds[3]);
/* Its strings. The memory is never given back: there is one program per container. */
bool job_read(const struct init_order *order, struct job *job);

enum job_how {
    JOB_FILTERED,
    JOB_HELD,   /* … and it offers itself to be traced first (init_hold.h) */
    JOB_AROUND, /* a runtime's command line (INIT_AROUND): without the filter */
};

/* Start it. Returns its pid or -1. What is
 * wrong with it is known only after it tried to execute: *ret_error then gives an int, the errno,
 * or ends. */
pid_t job_launch(const struct job *job, enum job_how how, int *ret_error);
/* What process 1 knows of a process that stands by; the program that it becomes has no access. */
struct standby {
    atomic_bool taken; /* it has its order */
};

/* A process that has everything a program needs but the program, so that a fork and the loading of
 * the filter are over when one comes. From now on the next order on INIT_FD, which must be INIT_RUN,
 * is read by it and by nobody else until *ret_error ends or gives the errno: no other process has to
 * be woken for it. Returns its pid or -1. */
pid_t job_stand_by(struct standby **ret, int *ret_error);

#endif
