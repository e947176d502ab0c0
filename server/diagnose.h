/* SPDX-License-Identifier: MIT */
/*
 * Why did a program fail? A table of rules over what it left behind: its exit, its limits and the
 * end of its output. A diagnosis never replaces the output; it adds what somebody who does not know
 * the sandbox would need: a sentence, a hint that can be acted on, and the place in the user's
 * files. Nothing matches for most failures, and then nothing is said.
 *
 * The output is hostile: names are repeated only if they are UTF-8 without control characters, and
 * a place is told only if it is a file of the workspace. No I/O but what `exists` does, any thread.
 */
#ifndef SERVER_DIAGNOSE_H
#define SERVER_DIAGNOSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DIAGNOSE_TEXT_BYTES 384
#define DIAGNOSE_TAIL_BYTES (16 * 1024) /* of the output's end that is looked at */
#define DIAGNOSE_EXISTS_MAX 64          /* files that are asked for, for one place */

struct diagnose_facts {
    const char *language; /* "python", or NULL */
    int exit_code;        /* valid if signal is 0 */
    int signal;
    bool timed_out, oom_killed, pids_limit_hit, cpu_limit_hit, space_hit, cancelled;
    uint64_t memory_bytes, wall_ms, pids; /* the limits */
    const char *tail;                     /* end of stderr (of stdout if that is empty); bytes */
    size_t tail_len;
    /* For places: the folders, relative to /workspace, in which relative names are looked up: of
     * the file that was run (compilers work there), and the program's working directory. */
    const char *folder, *cwd;
    bool (*exists)(void *ctx, const char *path); /* a regular file of the workspace? */
    void *ctx;
};

struct diagnosis {
    const char *code; /* "missing_module"; static */
    char message[DIAGNOSE_TEXT_BYTES];
    char hint[DIAGNOSE_TEXT_BYTES]; /* "" = none */
    char subject[200];              /* the module or file that the code is about; "" = none */
    char file[256];                 /* relative to /workspace; "" = none */
    unsigned line;                  /* 0 = none */
    bool by_version;                /* an interpreter of another version might not have failed so */
};

/* Fill *ret and return true, or return false when there is nothing to say. */
bool diagnose(const struct diagnose_facts *facts, struct diagnosis *ret);

#endif
