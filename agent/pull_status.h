/* SPDX-License-Identifier: MIT */
/*
 * What `silt status` tells about runs' files: those that are not here yet, and versions that gave way
 * to edits made here. Asks the server; changes nothing. One thread.
 */
#ifndef AGENT_PULL_STATUS_H
#define AGENT_PULL_STATUS_H

#include "agent/app.h"

/* {"from_runs":[path…], "deleted_by_runs":[path…], "changed_on_both_sides":[path…],
 * "conflicts":[{id, path, run, …}]}; NULL where it cannot be known now. */
json_t *pull_status(struct app *app);
/* Its lines on standard output; nothing where there is nothing to tell. */
void pull_status_print(const json_t *status);

#endif
