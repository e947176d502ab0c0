/* SPDX-License-Identifier: MIT */
/* What a run sees of the workspace: itself, or a snapshot with a layer of its own above it. */
#include "server/exec_internal.h"

#include <stdio.h>
#include <string.h>

#include "server/feed_json.h"
#include "server/view.h"
#include "shared/io.h"
#include "shared/log.h"

#include "shared/banned.h"

/* Changes that came with the request are this run's, and in the workspace only if they are kept. */
static int try_changes(struct run *run, struct err *e)
{
    struct feed_json *feed = NULL;
    struct changes_begin begin;
    if (!run->req.changes)
        return 0;
    int r = feed_json_new(run->req.changes, &feed, &begin, e);
    if (r == 0 &&
        (begin.client[0] || begin.epoch[0] || begin.if_generation != CHANGES_NO_GENERATION))
        r = err_refuse(e, PROTO_INVALID_VALUE,
            "'changes' of a run with 'view': 'snapshot' are tried, not applied: they may have "
            "'ops' "
            "alone");
    if (r == 0) {
        struct changes_feed ops = feed_json_feed(feed);
        r = sandbox_view_try(run->sb, run->view, &ops, e);
    }
    feed_json_free(feed);
    return r;
}

static int mount_view(struct run *run, struct sandbox_mounts *mounts, struct err *e)
{
    const struct view *v = run->view;
    const struct container_view dirs = {
        .lower_fd = v->snapshot->fd, .upper_fd = v->upper_fd, .work_fd = v->work_fd};
    char path[128];
    int r = container_view_mount(run->exec->engine, run->facts.id, &dirs, &run->view_fd, e);
    if (r < 0)
        return r;
    (void)snprintf(path, sizeof(path), CONTAINER_VIEWS "/%s/" SNAPSHOT_FOLDER, run->facts.id);
    free(mounts->workspace);
    mounts->workspace = strdup(path);
    r = mounts->workspace ? 0 : err_set(e, ENOMEM, "make a view");
    return r < 0 ? r : sandbox_view_attach(run->sb, run->view, run->view_fd, mounts, e);
}

int exec_view_open(struct run *run, struct sandbox_mounts *mounts, struct err *e)
{
    uint64_t begin = io_now_ns();
    if (run->req.view == EXEC_LIVE)
        return 0;
    int r = sandbox_view_open(run->sb, run->facts.id, &run->view, &mounts->generation, e);
    if (r == 0)
        r = mount_view(run, mounts, e);
    if (r == 0)
        r = try_changes(run, e);
    (void)pthread_mutex_lock(&run->lock);
    run->facts.view_us = (io_now_ns() - begin) / 1000;
    (void)pthread_mutex_unlock(&run->lock);
    return r;
}

void exec_view_enter(const struct run *run, const struct container_spec *spec, struct warm_got *got)
{
    struct err e = ERR_INIT;
    /* A program that was prepared has the live workspace as its directory. */
    fd_closep(&got->out_read);
    fd_closep(&got->err_read);
    fd_closep(&got->in_write);
    if (!got->container || container_view_enter(got->container, run->facts.id, SNAPSHOT_FOLDER,
                               spec->workspace_dev, spec->workspace_ino, &e) == 0)
        return;
    log_warn("%s: the container that waited could not be used: %s", run->facts.id, e.msg);
    container_free(ptr_take(&got->container));
}

static bool wants_to_keep(const struct run *run)
{
    return run->req.keep == EXEC_KEEP_ALWAYS ||
           (run->req.keep == EXEC_KEEP_ON_SUCCESS && run->facts.status == RUN_SUCCEEDED);
}

int exec_view_leave(struct run *run, struct sandbox_run_changes *ret, struct err *e)
{
    struct sandbox_view_end end;
    if (!run->view)
        return sandbox_run_leave(run->sb, ret, e);
    bool keep = wants_to_keep(run);
    int r = sandbox_view_leave(run->sb, run->view, keep, run->facts.id, ret, &end, e);
    if (!keep)
        (void)snprintf(end.reason, sizeof(end.reason), "%s",
            run->req.keep == EXEC_KEEP_NEVER ? "'keep' is 'never'"
                                             : "'keep' is 'on_success' and it did not succeed");
    else if (r < 0)
        (void)snprintf(end.reason, sizeof(end.reason), "%s", e->msg);
    (void)pthread_mutex_lock(&run->lock);
    run->facts.view_end = end;
    (void)pthread_mutex_unlock(&run->lock);
    return r;
}

void exec_view_close(struct run *run)
{
    if (run->view_fd >= 0)
        container_view_hide(run->exec->engine, run->facts.id);
    fd_closep(&run->view_fd);
    if (run->view)
        sandbox_view_close(run->sb, ptr_take(&run->view));
}
