/* SPDX-License-Identifier: MIT */
/*
 * What a runtime with a kernel of its own (runsc) wrote about its end: the log of its command "run",
 * which holds the program's wait status where its own exit code cannot be told from a program's.
 *
 * The runtime writes names of the program into its sentences as they are, newlines included, and
 * names belong to whoever wrote them. So a line counts by its place and not by its look: a status is
 * the log's last line or none, a failure is the first one. Pure; any thread.
 */
#ifndef SERVER_AROUND_LOG_H
#define SERVER_AROUND_LOG_H

#include <stdbool.h>

struct around_log {
    bool ended;    /* the program ended, with this */
    int status;    /* as wait(2) has it */
    int exec_errno; /* else: why it could not be started, 0: unknown */
    char failure[400]; /* else: the runtime's sentence, one line of plain ASCII, "": none */
};

/* `text` ends with a NUL, and at the first one. */
void around_log_read(const char *text, struct around_log *ret);

#endif
