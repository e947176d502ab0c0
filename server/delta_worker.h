/* SPDX-License-Identifier: MIT */
/*
 * Deltas against signatures that clients sent. librsync asserts, aborts when out of memory and can
 * be made slow by sums chosen for it, so the work is done by a process of its own: this program
 * again, started here and nowhere else, with four descriptors (the signature, where the delta goes,
 * nothing for errors, the file), nobody's identity where siltd is root, and limits on memory, CPU
 * time and output. It is killed at a deadline.
 *
 * delta_worker_run: any thread that may block. delta_worker_main: first thing in main().
 */
#ifndef SERVER_DELTA_WORKER_H
#define SERVER_DELTA_WORKER_H

#include <stdint.h>

#include "shared/err.h"

#define DELTA_WORKER_ARG "--delta-worker"

/* The delta from what sig_fd (a signature that passed delta_signature_check) describes to the `size`
 * bytes of file_fd, into out_fd from its beginning. The descriptors are the caller's. Refusals:
 * PROTO_BAD_CHANGES (the process gave up on this signature), PROTO_TIMEOUT (the deadline). */
int delta_worker_run(
    int sig_fd, int file_fd, uint64_t size, int out_fd, struct err *e) WARN_UNUSED;

/* The process itself; returns its exit code. */
int delta_worker_main(const char *size);

#endif
