/* SPDX-License-Identifier: MIT */
/*
 * The progress of a first sync: a bar on a terminal once it has taken half a second, otherwise
 * plain lines every few seconds. One thread.
 */
#ifndef AGENT_PROGRESS_H
#define AGENT_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    bool terminal, quiet, shown;
    uint64_t started_ns, drawn_ns;
};

/* quiet: draw nothing ever (JSON mode). */
void progress_init(struct progress *p, bool quiet);
/* A sync_events.progress function; ctx is a struct progress. */
void progress_update(void *ctx, uint64_t files_done, uint64_t files_total, uint64_t bytes_done,
    uint64_t bytes_total);
/* Wipe the bar; call before anything else is printed. */
void progress_clear(struct progress *p);

#endif
