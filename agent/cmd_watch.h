/* SPDX-License-Identifier: MIT */
/* What `silt watch` (cmd_watch.c) and `silt watch --run` (cmd_watch_run.c) share. */
#ifndef AGENT_CMD_WATCH_H
#define AGENT_CMD_WATCH_H

#include <sys/types.h>

#include "agent/app.h"

/* Start a watcher of the project in a process of its own, with its words in .silt/watch.log, and wait
 * until it answers. tied: it ends when this process does. *ret_child: its id. -EBUSY when somebody
 * else syncs the project; every other error names what the watcher said. */
int watch_start(struct app *app, bool tied, pid_t *ret_child, struct err *e) WARN_UNUSED;
/* The last line of .silt/watch.log as an error: why a watcher ended. */
int watch_last_words(const struct app *app, int code, struct err *e) WARN_UNUSED;

/* `silt watch --run FILE | -- CMD`: follow the project's watcher, or one of our own if there is none,
 * and run after each change. Returns the exit code. */
int watch_run(struct app *app);

#endif
