/* SPDX-License-Identifier: MIT */
/* What the files of the module workspace share. */
#ifndef SERVER_WORKSPACE_INTERNAL_H
#define SERVER_WORKSPACE_INTERNAL_H

#include "server/workspace.h"

#define WORKSPACE_KEPT_PREFIX "cf_" /* among the displaced ones: sandbox_kept.c */
#define WORKSPACE_KEPT_NOTE ".json"

struct workspaces {
    char *root, *cache, *staging, *displaced;
    struct space most; /* bytes 0: none was told */
};

#endif
