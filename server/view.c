/* SPDX-License-Identifier: MIT */
#include "server/view.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "server/apply.h"
#include "server/set.h"

#include "shared/banned.h"

#define STAGE_FOLDER "s" /* beside SNAPSHOT_FOLDER in the overlay, so that placing is renaming */

static int make_folder(int dir_fd, const char *name, mode_t mode, int *ret, struct err *e)
{
    if (mkdirat(dir_fd, name, mode) < 0)
        return err_set(e, errno, "make a view");
    *ret = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return *ret < 0 ? err_set(e, errno, "make a view") : 0;
}

static int make_folders(struct view *v, struct err *e)
{
    struct tree_identity who = v->ws->identity;
    int r = make_folder(v->parent_fd, v->name, 0711, &v->fd, e);

    if (r == 0)
        r = make_folder(v->fd, "upper", 0711, &v->upper_fd, e);
    if (r == 0)
        r = make_folder(v->fd, "work", 0700, &v->work_fd, e);
    if (r == 0 && fchown(v->fd, who.uid, who.gid) < 0)
        r = err_set(e, errno, "make a view");
    if (r == 0 &&
        (mkdirat(v->upper_fd, STAGE_FOLDER, 0700) < 0 ||
            fchownat(v->upper_fd, STAGE_FOLDER, who.uid, who.gid, AT_SYMLINK_NOFOLLOW) < 0 ||
            fchown(v->upper_fd, who.uid, who.gid) < 0))
        r = err_set(e, errno, "make a view");
    return r;
}

int view_new(struct workspace *ws, int parent_fd, struct snapshot *snapshot, const char *run,
    struct view **ret, struct err *e)
{
    struct view *v = calloc(1, sizeof *v);

    if (!v)
        return err_set(e, ENOMEM, "make a view");
    *v = (struct view){.ws = ws,
        .snapshot = snapshot,
        .parent_fd = parent_fd,
        .fd = -1,
        .upper_fd = -1,
        .work_fd = -1,
        .merged = {.stage_fd = -1, .displaced_fd = -1}};
    (void)snprintf(v->name, sizeof v->name, "%s", run);
    (void)pthread_mutex_init(&v->merged.lock, NULL);
    int r = make_folders(v, e);
    if (r < 0) {
        view_free(v);
        return r;
    }
    *ret = v;
    return 0;
}

int view_attach(struct view *v, int fd, struct err *e)
{
    char path[64];

    v->merged.stage_fd = openat(fd, STAGE_FOLDER, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (v->merged.stage_fd < 0)
        return err_set(e, errno, "open a view");
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d/" SNAPSHOT_FOLDER, fd);
    int r = tree_open(path, &v->merged.tree, e);
    if (r < 0)
        return r;
    v->merged.cache = v->ws->cache;
    v->merged.identity = v->ws->identity;
    v->merged.layered = true;
    /* The snapshot does not change while it is used. */
    v->merged.manifest = v->snapshot->manifest;
    v->attached = true;
    return 0;
}

/* ---- changes that are tried */

static int no_basis(void *ctx, struct err *e)
{
    (void)ctx;
    (void)e;
    return 0;
}

static int make_plan(struct stage *stage, struct set *set, struct steps *steps, struct err *e)
{
    CLEANUP(plan_freep) struct plan *plan = NULL;
    struct sandbox_conflict *conflicts = NULL;
    size_t count = 0;
    int r = plan_new(stage, &plan, e);

    for (size_t i = 0; r == 0 && i < set->count; i++)
        r = plan_add(plan, &set->ops[i], e);
    if (r == 0 && plan_conflicts(plan))
        r = plan_refuse(plan, &conflicts, &count, e);
    for (size_t i = 0; i < count; i++)
        free(conflicts[i].path);
    free(conflicts);
    return r < 0 ? r : plan_finish(plan, steps, e);
}

/* An overlay cannot rename a folder that is in the layer beneath. */
static bool is_folder(const struct view *v, const char *path)
{
    const struct manifest_entry *row = path ? manifest_get(v->snapshot->manifest, path) : NULL;

    return row && row->kind == TREE_DIR;
}

static int carry_out(struct view *v, struct stage *stage, struct set *set, struct err *e)
{
    struct steps steps = {.count = 0};
    const char *failed = NULL;
    int r = make_plan(stage, set, &steps, e);

    if (r == 0)
        r = apply_run(stage, &steps, &failed, e);
    if (r < 0 && is_folder(v, failed))
        r = err_refuse(e, PROTO_PATH_CONFLICT,
            "the folder '%s' cannot be moved or replaced in the changes of a run with 'view': "
            "'snapshot': move what is in it, or make this change before",
            failed);
    steps_release(&steps);
    return r;
}

int view_apply(struct view *v, const struct changes_feed *feed, uint64_t max_bytes,
    uint64_t min_free_bytes, struct err *e)
{
    struct tree_identity previous;
    struct stage stage;
    struct set set;
    int r = tree_identity_enter(v->ws->identity, &previous, e);

    if (r < 0)
        return r;
    r = stage_init(&stage, &v->merged, max_bytes, min_free_bytes, e);
    set_init(&set, &stage, no_basis, NULL);
    stage.one_by_one = true;
    if (r == 0)
        r = set_read(&set, feed, e);
    if (r == 0)
        r = carry_out(v, &stage, &set, e);
    stage_release(&stage);
    set_release(&set);
    tree_identity_leave(previous);
    return r;
}

void view_free(struct view *v)
{
    if (!v)
        return;
    for (size_t i = 0; i < v->count; i++) {
        free(v->changes[i].path);
        free(v->changes[i].target);
    }
    free(v->changes);
    tree_free(v->upper);
    tree_free(v->merged.tree);
    fd_closep(&v->merged.stage_fd);
    fd_closep(&v->work_fd);
    fd_closep(&v->upper_fd);
    if (v->fd >= 0)
        (void)!tree_remove_at(v->parent_fd, v->name, NULL);
    fd_closep(&v->fd);
    (void)pthread_mutex_destroy(&v->merged.lock);
    free(v);
}
