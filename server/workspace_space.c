/* SPDX-License-Identifier: MIT */
/* A workspace's share of the disk: kept by the kernel where it counts, else looked at. */
#include <fcntl.h>

#include "server/workspace.h"

#include "shared/banned.h"

void workspace_limit(struct workspace *ws, const struct space *most)
{
    uint32_t project = ws->identity.uid;
    CLEANUP(fd_closep)
    int cache = openat(tree_fd(ws->cache), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    ws->most = *most;
    ws->quota = most->bytes > 0 && space_marked(ws->stage_fd, project) &&
                space_limit(ws->stage_fd, project, most) == 0;
    /* A cache on another file system has a count of its own there. */
    if (ws->quota && cache >= 0 && space_marked(cache, project))
        (void)!space_limit(cache, project, most);
}

bool workspace_full(const struct workspace *ws)
{
    struct space used;
    return ws->quota && space_used(ws->stage_fd, ws->identity.uid, &used) == 0 &&
           space_full(&used, &ws->most);
}

/* Snapshots and what runs wrote over them. */
static void walk_views(struct workspace *ws, const struct space *most, struct space *used)
{
    char path[64];
    struct tree *views = NULL;

    (void)snprintf(path, sizeof path, "/proc/self/fd/%d/" WORKSPACE_VIEWS, ws->stage_fd);
    if (tree_open(path, &views, NULL) == 0)
        space_walk(views, most, used);
    tree_free(views);
}

static bool walk(struct workspace *ws, const struct space *most, struct space *used)
{
    struct tree_identity previous;

    *used = (struct space){.bytes = 0};
    if (tree_identity_enter(ws->identity, &previous, NULL) < 0)
        return false;
    space_walk(ws->tree, most, used);
    if (!space_over(used, most))
        space_walk(ws->cache, most, used);
    if (!space_over(used, most))
        walk_views(ws, most, used);
    tree_identity_leave(previous);
    return true;
}

static uint64_t higher(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

bool workspace_over(struct workspace *ws)
{
    struct space used, bound = ws->most;

    if (ws->quota || ws->most.bytes == 0)
        return false;
    (void)pthread_mutex_lock(&ws->lock);
    bound.bytes = higher(bound.bytes, ws->held.bytes);
    bound.files = higher(bound.files, ws->held.files);
    (void)pthread_mutex_unlock(&ws->lock);
    bool over = walk(ws, &bound, &used) && space_over(&used, &bound);
    (void)pthread_mutex_lock(&ws->lock);
    ws->measure |= over;
    if (!space_over(&used, &ws->most))
        ws->held = (struct space){.bytes = 0};
    (void)pthread_mutex_unlock(&ws->lock);
    return over;
}

void workspace_measure(struct workspace *ws)
{
    const struct space all = {.bytes = UINT64_MAX, .files = UINT64_MAX};
    struct space used;

    (void)pthread_mutex_lock(&ws->lock);
    bool wanted = ws->measure;
    ws->measure = false;
    (void)pthread_mutex_unlock(&ws->lock);
    if (!wanted || !walk(ws, &all, &used))
        return;
    (void)pthread_mutex_lock(&ws->lock);
    ws->held = used;
    (void)pthread_mutex_unlock(&ws->lock);
}
