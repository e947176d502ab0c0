/* SPDX-License-Identifier: MIT */
/*
 * The three things that a pull compares: the project, what the server acknowledged, and what it has.
 * With the project's lock where it is free; while a watcher holds it, the watcher is asked to send
 * what is due, and its index is read as it lies on the disk.
 *
 *     pull_view_init(&v); pull_view_open(app, &v, e); pull_view_plan(&v, …, &plan, e);
 *     pull_view_close(&v)
 *
 * Nothing is changed. One thread.
 */
#ifndef AGENT_PULL_VIEW_H
#define AGENT_PULL_VIEW_H

#include "agent/app.h"
#include "agent/pull.h"

struct pull_view {
    struct app *app;
    bool by_watcher;
    int dir_fd, lock_fd;
    struct tree *tree;
    struct ignore *rules;
    struct index *index; /* by_watcher: only to be read */
    struct manifest *there;
    uint64_t bytes_sent, bytes_received;
};

void pull_view_init(struct pull_view *v);
/* `settle`: a watcher first sends what is due. -EBUSY if another command holds the lock and no watcher answers. */
int pull_view_open(
    struct app *app, bool settle, struct pull_view *ret, struct err *e) WARN_UNUSED;
void pull_view_close(struct pull_view *v);
/* Ask the server what it has and compare; paths as in struct pull_config. */
int pull_view_plan(struct pull_view *v, char *const *paths, size_t count, bool force,
    struct pull_plan *ret, struct err *e) WARN_UNUSED;

#endif
