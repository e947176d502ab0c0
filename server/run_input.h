/* SPDX-License-Identifier: MIT */
/*
 * What a run's program gets to read while it runs, and the size of its terminal. Clients add bytes
 * (api_input.c), the run's thread moves them on (exec_io.c); between them is a buffer of
 * RUN_INPUT_MAX bytes, so a program that does not read holds up its writer and nobody else.
 *
 * Bytes are counted from the run's beginning: whoever lost an answer sends again from where he was,
 * and what is there already is passed over. Nothing is lost or doubled.
 *
 * Any thread, but run_input_flush and run_input_size: the run's alone.
 */
#ifndef SERVER_RUN_INPUT_H
#define SERVER_RUN_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/cleanup.h"
#include "shared/err.h"

#define RUN_INPUT_MAX (256u * 1024)

struct run_input;

int run_input_new(struct run_input **ret, struct err *e) WARN_UNUSED;
void run_input_free(struct run_input *in);

/* One writer at a time. False: there is one. */
bool run_input_claim(struct run_input *in) WARN_UNUSED;
void run_input_unclaim(struct run_input *in);

/* How many bytes were taken since the beginning. */
uint64_t run_input_offset(struct run_input *in);

/*
 * Add what lies at *offset of the input, as much as there is room for, and move *offset on by what
 * was taken or was there before. Waits at most wait_ms for room if there is none. 0 (and *offset
 * tells whether that was all), -EAGAIN: no room in that time; refusals PROTO_OFFSET_MISMATCH (bytes
 * before it are missing), PROTO_INPUT_CLOSED.
 */
int run_input_add(struct run_input *in, uint64_t *offset, const void *data, size_t len,
    uint32_t wait_ms, struct err *e) WARN_UNUSED;
/* There is nothing behind `offset`. The same refusals. */
int run_input_end(struct run_input *in, uint64_t offset, struct err *e) WARN_UNUSED;

/* The terminal has another size from now on. */
void run_input_resize(struct run_input *in, unsigned rows, unsigned cols);
/* True once after each run_input_resize. */
bool run_input_size(struct run_input *in, unsigned *ret_rows, unsigned *ret_cols);

/* Readable when there is something new for the run's thread; run_input_flush clears it. */
int run_input_fd(const struct run_input *in);
/* Move what fits into fd, which does not block; `terminal`: the end is told by Ctrl-D and fd stays
 * open. 1: more waits for fd; 0: nothing waits; -ESHUTDOWN: that was all, close fd; -EPIPE:
 * nobody reads it. */
int run_input_flush(struct run_input *in, int fd, bool terminal) WARN_UNUSED;
/* Nothing is taken any more: the program closed it (`by_program`), or the run has ended. */
void run_input_close(struct run_input *in, bool by_program);

#endif
