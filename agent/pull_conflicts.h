/* SPDX-License-Identifier: MIT */
/*
 * Versions that a run wrote while the same file was edited here: the edit won, the server kept the
 * other one. They are fetched beside the file, as `name.conflict-<run>.ext`, or into another folder;
 * then the server forgets them. Such names are never synced. A symlink comes as a file that holds its
 * target. One thread.
 */
#ifndef AGENT_PULL_CONFLICTS_H
#define AGENT_PULL_CONFLICTS_H

#include "agent/app.h"
#include "agent/pull.h"

struct pull_conflicts {
    struct app *app;
    const struct ignore *rules;
    const struct tree *to; /* the project, or the folder of --to; on the stage's file system */
    int stage_fd;
    char *const *paths; /* as in struct pull_config */
    size_t path_count;
};
/* *ret: an array of {path, file, run}; also what was fetched before a failure. */
int pull_conflicts(const struct pull_conflicts *p, json_t **ret, struct err *e) WARN_UNUSED;
/* What the server keeps: an array of {id, path, run, size, hash, at, …}. */
int pull_conflicts_list(struct app *app, json_t **ret, struct err *e) WARN_UNUSED;
/* Where the version of path with this tag goes, malloc'd; NULL when out of memory. */
char *pull_conflict_name(const char *path, const char *tag);

#endif
