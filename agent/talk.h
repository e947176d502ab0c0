/* SPDX-License-Identifier: MIT */
/*
 * What a sync tells the user on its way: progress, paths left out, conflicts. One place for the
 * words, for every command that syncs. One thread.
 */
#ifndef AGENT_TALK_H
#define AGENT_TALK_H

#include "agent/app.h"
#include "agent/progress.h"

struct talk {
    const struct app *app;
    struct progress progress;
};

void talk_init(struct talk *t, const struct app *app);
/* What sync_open wants for this command line: link, client, options, and events that lead to t. */
struct sync_config talk_sync_config(struct talk *t, bool with_progress);

#endif
