/* SPDX-License-Identifier: MIT */
/*
 * Why did a program fail? A table of rules over what it left behind: its exit, its limits and the
 * end of its output. A diagnosis never replaces the output; it adds what somebody who does not know
 * the sandbox would need: a sentence, a hint that can be acted on, and the place in the user's
 * files. Nothing matches for most failures, and then nothing is said. Pure, any thread.
 */
#ifndef SERVER_DIAGNOSE_H
#define SERVER_DIAGNOSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DIAGNOSE_TEXT_BYTES 384
#define DIAGNOSE_TAIL_BYTES (16 * 1024) /* of the output's end that is looked at */

struct diagnose_facts {
    const char *language; /* "python", or NULL */
    const char *program;  /* argv[0] */
    int exit_code;        /* valid if signal is 0 */
    int signal;
    bool timed_out, oom_killed, pids_limit_hit, cpu_limit_hit, cancelled;
    uint64_t memory_bytes, wall_ms, pids; /* the limits */
    const char *tail;                     /* end of stderr (of stdout if that is empty); bytes */
    size_t tail_len;
};

struct diagnosis {
    const char *code; /* "missing_module"; static */
    char message[DIAGNOSE_TEXT_BYTES];
    char hint[DIAGNOSE_TEXT_BYTES]; /* "" = none */
    char subject[200];              /* the module or file that the code is about; "" = none */
    char file[256];                 /* relative to /workspace; "" = none */
    unsigned line;                  /* 0 = none */
};

/* Fill *ret and return true, or return false when there is nothing to say. */
bool diagnose(const struct diagnose_facts *facts, struct diagnosis *ret);

#endif
