/* SPDX-License-Identifier: MIT */
/*
 * Bringing here what runs made there: `silt pull`. Three steps, so that the network is never used
 * under the eyes of a half-changed tree, and a watcher may do the last one:
 *
 *     pull_plan_make(&config, there, &plan, e)    what the server has, against what it acknowledged
 *                                                 and what lies here; nothing is changed
 *     pull_fetch(&fetch, &plan, e)                contents into `.silt/pull/<number>`, verified
 *     pull_place(&target, &plan, e)               renamed into place and noted in the index, by
 *                                                 whoever holds the project's lock
 *
 * The server is not trusted with anything beyond the contents of files: paths are checked, resolved
 * beneath the project's root without following symlinks, and what this machine never syncs by a
 * built-in rule (`.git`, `.silt`, secrets) is never written; nor are rule files unless they are
 * named, for they decide what is sent. A file that differs from what the server acknowledged was
 * changed here: it stays as it is and is told as a conflict.
 *
 * One thread. Texts of a plan belong to it.
 */
#ifndef AGENT_PULL_H
#define AGENT_PULL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/client.h"
#include "agent/ignore.h"
#include "agent/index.h"
#include "shared/err.h"
#include "shared/manifest.h"
#include "shared/tree.h"

#define PULL_DIR "pull" /* in LINK_DIR; emptied before and after */
#define PULL_PLAN_FILE "plan.json"
#define PULL_ITEMS_MAX 200000u
#define PULL_PLAN_MAX (256u * 1024 * 1024) /* bytes of PULL_PLAN_FILE */

enum pull_action {
    PULL_FETCH,    /* a file whose content is wanted */
    PULL_LINK,     /* a symlink that leads to something inside */
    PULL_MKDIR,
    PULL_CHMOD,    /* the same content with another mode */
    PULL_ADOPT,    /* the same here as there: only the index learns of it */
    PULL_DELETE,   /* gone there, untouched here: `there` is what the index says */
    PULL_CONFLICT, /* changed on both sides */
    PULL_REFUSED,  /* must not be written: `why` */
    PULL_ACTIONS
};

/* What a path held when it was looked at. */
struct pull_seen {
    bool exists;
    enum tree_kind kind;
    struct hash hash; /* files and symlinks */
};

struct pull_item {
    enum pull_action action;
    struct manifest_entry there; /* path and target are owned */
    struct pull_seen here, known; /* in the project, in the index */
    char *why;                   /* of a conflict or refusal; malloc'd or NULL */
    bool done;
};

struct pull_plan {
    struct pull_item *items; /* in byte order of path; deletions last, deepest first */
    size_t count, cap;
    size_t left_out; /* ignored, and not named */
};
void pull_plan_release(struct pull_plan *plan);
size_t pull_plan_count(const struct pull_plan *plan, enum pull_action action);

struct pull_config {
    const struct tree *tree;
    const struct ignore *rules; /* loaded */
    const struct manifest *known; /* what the server acknowledged */
    char *const *paths;           /* checked form; "" = everything */
    size_t path_count;            /* 0: everything that is not ignored */
    bool force; /* what is here gives way, changed or not */
};
/* `there` is the server's manifest. */
int pull_plan_make(const struct pull_config *config, const struct manifest *there,
    struct pull_plan *ret, struct err *e) WARN_UNUSED;
/* Why this path must never be written by a pull, or NULL. */
const char *pull_forbidden(const struct ignore *rules, const char *path, bool is_dir, bool named);

/* ---- contents */
struct pull_fetch {
    struct client *client;
    const char *sandbox;
    const struct tree *tree; /* for what deltas are made against */
    int stage_fd;            /* `.silt/pull` */
    void (*progress)(void *ctx, uint64_t files_done, uint64_t files_total, uint64_t bytes_done,
        uint64_t bytes_total);
    void *ctx;
    uint64_t bytes_sent, bytes_received; /* counted here */
    uint32_t deltas;
};
/* The content of each PULL_FETCH item into the stage, under its index as name. An item whose file
 * is not there any more, or another by now, becomes PULL_REFUSED. */
int pull_fetch(struct pull_fetch *fetch, struct pull_plan *plan, struct err *e) WARN_UNUSED;
/* Open (and empty) the stage in `.silt`. */
int pull_stage(int dir_fd, int *ret_fd, struct err *e) WARN_UNUSED;
/* Remove it with what is in it. */
void pull_unstage(int dir_fd);

/* ---- into place */
struct sync;
struct pull_target {
    const struct tree *tree;
    const struct ignore *rules;
    struct index *index;
    int stage_fd;
    bool allow_delete;
};
/* Carry the plan out. Each item is looked at anew: one that is not as it was when the plan was made
 * becomes PULL_CONFLICT; `done` says which were carried out. A failure stops it, what was done is
 * noted in the index. */
int pull_place(const struct pull_target *target, struct pull_plan *plan, struct err *e) WARN_UNUSED;

/* The plan for another process, and back. Every path is checked again. */
int pull_plan_save(
    const struct pull_plan *plan, bool allow_delete, int stage_fd, struct err *e) WARN_UNUSED;
int pull_plan_load(
    int stage_fd, struct pull_plan *ret, bool *ret_delete, struct err *e) WARN_UNUSED;

#endif
