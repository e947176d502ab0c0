/* SPDX-License-Identifier: MIT */
/*
 * What the agent is told outside the command line: environment SILT_SERVER and SILT_TOKEN over the
 * file $XDG_CONFIG_HOME/silt/silt.conf (`server = …`, `token = …`, `token_file = …`; # comments).
 */
#ifndef AGENT_CONFIG_H
#define AGENT_CONFIG_H

#include <stdbool.h>

#include "shared/err.h"

struct config {
    char *server; /* NULL = nowhere named */
    bool server_from_env;
    char *token; /* NULL = none */
};

int config_load(struct config *ret, struct err *e) WARN_UNUSED;
void config_release(struct config *config);

#endif
