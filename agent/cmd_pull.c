/* SPDX-License-Identifier: MIT */
/* pull: files that runs made, here. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>

#include "agent/app.h"
#include "agent/control.h"
#include "agent/progress.h"
#include "agent/pull.h"
#include "agent/pull_conflicts.h"
#include "agent/pull_view.h"
#include "shared/io.h"
#include "shared/num.h"
#include "shared/path.h"
#include "shared/text.h"

#include "shared/banned.h"

#define WATCHER_WAIT_MS 600000
#define LISTED 20 /* paths of one kind, without --json */

struct pulling {
    struct app *app;
    struct pull_view view;
    struct pull_plan plan;
    struct pull_fetch fetch;
    char **paths;
    size_t path_count;
    int stage_fd, pull_lock;
    struct progress progress;
    uint64_t begun_ns;
};

static void release(struct pulling *p)
{
    progress_clear(&p->progress);
    for (size_t i = 0; i < p->path_count; i++)
        free(p->paths[i]);
    free(p->paths);
    pull_plan_release(&p->plan);
    if (p->stage_fd >= 0)
        pull_unstage(p->view.dir_fd);
    fd_closep(&p->stage_fd);
    fd_closep(&p->pull_lock);
    pull_view_close(&p->view);
}

static int take_paths(struct pulling *p, struct err *e)
{
    const struct options *o = &p->app->opt;
    p->paths = calloc(o->arg_count + 1, sizeof(*p->paths));
    if (!p->paths)
        return err_set(e, ENOMEM, "pull");
    for (size_t i = 0; i < o->arg_count; i++) {
        int r = app_project_path(p->app, o->args[i], &p->paths[i], e);
        if (r < 0)
            return r;
        p->path_count++;
    }
    return 0;
}

/* Two pulls would share one stage. */
static int lock_stage(struct pulling *p, struct err *e)
{
    p->pull_lock = openat(
        p->view.dir_fd, "pull.lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (p->pull_lock < 0)
        return err_set(e, errno, "open .silt/pull.lock");
    if (flock(p->pull_lock, LOCK_EX | LOCK_NB) < 0)
        return err_say(e, EBUSY, "another silt pull is under way in %s", p->app->root);
    return pull_stage(p->view.dir_fd, &p->stage_fd, e);
}

static int fetch(struct pulling *p, struct err *e)
{
    p->fetch = (struct pull_fetch){.client = p->app->client,
        .sandbox = p->app->link.sandbox,
        .tree = p->view.tree,
        .stage_fd = p->stage_fd,
        .progress = progress_update,
        .ctx = &p->progress};
    progress_init(&p->progress, p->app->opt.json);
    int r = pull_fetch(&p->fetch, &p->plan, e);
    progress_clear(&p->progress);
    return r;
}

/* The watcher holds the lock, the index and the descriptors that see every write: it renames. */
static int place_by_watcher(struct pulling *p, struct err *e)
{
    json_t *ask = json_pack("{s:s}", "op", "pull"), *answer = NULL;
    bool allow_delete = false;
    int r = pull_plan_save(&p->plan, p->app->opt.allow_delete, p->stage_fd, e);
    if (r == 0)
        r = control_request(p->app->root, ask, WATCHER_WAIT_MS, &answer, e);
    json_decref(ask);
    json_decref(answer);
    if (r < 0)
        return r;
    pull_plan_release(&p->plan);
    return pull_plan_load(p->stage_fd, &p->plan, &allow_delete, e);
}

static int place(struct pulling *p, struct err *e)
{
    if (p->view.by_watcher)
        return place_by_watcher(p, e);
    const struct pull_target target = {.tree = p->view.tree,
        .rules = p->view.rules,
        .index = p->view.index,
        .stage_fd = p->stage_fd,
        .allow_delete = p->app->opt.allow_delete};
    return pull_place(&target, &p->plan, e);
}

/* ---- what came of it */

static json_t *readable(const char *path)
{
    CLEANUP(buf_release) struct buf b;
    buf_init(&b, 8 * (size_t)PATH_BYTES_MAX);
    return text_add_readable(&b, path, strlen(path)) == 0 ? json_string(buf_str(&b)) : json_null();
}

static bool is_change(const struct pull_item *item)
{
    return item->action == PULL_FETCH || item->action == PULL_LINK || item->action == PULL_MKDIR ||
           item->action == PULL_CHMOD;
}

static void report_json(const struct pulling *p)
{
    bool dry = p->app->opt.dry_run;
    json_t *pulled = json_array(), *deleted = json_array(), *gone = json_array(),
           *conflicts = json_array(), *refused = json_array();
    uint64_t bytes = 0;
    for (size_t i = 0; i < p->plan.count; i++) {
        const struct pull_item *item = &p->plan.items[i];
        json_t *path = readable(item->there.path);
        if (is_change(item) && (dry || item->done)) {
            bytes += item->action == PULL_FETCH ? item->there.size : 0;
            err_ignore(json_array_append(pulled, path));
        } else if (item->action == PULL_DELETE) {
            err_ignore(json_array_append(item->done ? deleted : gone, path));
        } else if (item->action == PULL_CONFLICT || item->action == PULL_REFUSED) {
            err_ignore(json_array_append_new(
                item->action == PULL_CONFLICT ? conflicts : refused,
                json_pack("{s:O, s:s?}", "path", path, "why", item->why)));
        }
        json_decref(path);
    }
    out_json(json_pack("{s:b, s:o, s:I, s:o, s:o, s:o, s:o, s:I, s:i, s:I, s:I, s:f}", "dry_run",
        dry, "pulled", pulled, "content_bytes", (json_int_t)bytes, "deleted", deleted,
        "deleted_there", gone, "conflicts", conflicts, "refused", refused, "left_out",
        (json_int_t)p->plan.left_out, "deltas", (int)p->fetch.deltas, "bytes_sent",
        (json_int_t)(p->view.bytes_sent + p->fetch.bytes_sent), "bytes_received",
        (json_int_t)(p->view.bytes_received + p->fetch.bytes_received), "elapsed_ms",
        (double)((io_now_ns() - p->begun_ns) / 1000) / 1e3));
}

static void list(const struct pulling *p, enum pull_action action, const char *mark)
{
    size_t shown = 0, all = pull_plan_count(&p->plan, action);
    for (size_t i = 0; i < p->plan.count && shown < LISTED; i++) {
        const struct pull_item *item = &p->plan.items[i];
        if (item->action != action)
            continue;
        printf("%s %s%s%s\n", mark, out_path(item->there.path), item->why ? ": " : "",
            item->why ? item->why : "");
        shown++;
    }
    if (all > shown)
        printf("%s … and %zu more (--json lists all)\n", mark, all - shown);
}

static void report(const struct pulling *p)
{
    bool dry = p->app->opt.dry_run;
    size_t files = 0;
    uint64_t bytes = 0;
    char size[16];
    for (size_t i = 0; i < p->plan.count; i++) {
        const struct pull_item *item = &p->plan.items[i];
        files += is_change(item) && item->there.kind != TREE_DIR && (dry || item->done);
        bytes += item->action == PULL_FETCH && (dry || item->done) ? item->there.size : 0;
    }
    list(p, PULL_FETCH, "  ");
    list(p, PULL_LINK, "  ");
    list(p, PULL_CHMOD, "  mode of");
    list(p, PULL_DELETE, p->app->opt.allow_delete ? "- " : "  deleted there, kept here (--delete):");
    list(p, PULL_CONFLICT, "! kept as it is here:");
    list(p, PULL_REFUSED, "! not fetched:");
    printf("%s %zu file%s, %s", dry ? "would pull" : "pulled", files, files == 1 ? "" : "s",
        num_human_bytes(bytes, size, sizeof(size)));
    if (!dry && p->fetch.bytes_received)
        printf(" (%s on the wire)", num_human_bytes(p->fetch.bytes_received + p->fetch.bytes_sent,
                                        size, sizeof(size)));
    if (p->plan.left_out)
        printf("; %zu ignored ones left there (name them to fetch them)", p->plan.left_out);
    printf("\n");
}

static int pull(struct pulling *p, struct err *e)
{
    struct app *app = p->app;
    int r = app_need_link(app, e);
    if (r == 0)
        r = take_paths(p, e);
    if (r == 0)
        r = pull_view_open(app, true, &p->view, e);
    if (r == 0)
        r = pull_view_plan(&p->view, p->paths, p->path_count, app->opt.force, &p->plan, e);
    if (r < 0 || app->opt.dry_run)
        return r;
    size_t idle = pull_plan_count(&p->plan, PULL_CONFLICT) +
                  pull_plan_count(&p->plan, PULL_REFUSED) +
                  (app->opt.allow_delete ? 0 : pull_plan_count(&p->plan, PULL_DELETE));
    if (idle == p->plan.count)
        return 0;
    r = lock_stage(p, e);
    if (r == 0)
        r = fetch(p, e);
    return r < 0 ? r : place(p, e);
}

/* ---- --conflicts */

/* The folder of --to, made if it is missing. */
static int open_to(const struct app *app, struct tree **ret, struct err *e)
{
    CLEANUP(freep) char *path = NULL;
    CLEANUP(freep) char *whole = NULL;
    if (asprintf(&path, "%s%s%s", app->opt.to[0] == '/' ? "" : app->cwd,
            app->opt.to[0] == '/' ? "" : "/", app->opt.to) < 0) {
        path = NULL;
        return err_set(e, ENOMEM, "open '%s'", app->opt.to);
    }
    int r = io_mkdirs(path, 0755, e);
    if (r == 0 && !(whole = realpath(path, NULL)))
        r = err_set(e, errno, "open '%s'", path);
    return r < 0 ? r : tree_open(whole, ret, e);
}

static int fetch_conflicts(struct pulling *p, json_t **ret, struct err *e)
{
    CLEANUP(tree_freep) struct tree *to = NULL;
    int r = app_need_link(p->app, e);
    if (r == 0)
        r = take_paths(p, e);
    if (r == 0 && p->app->opt.dry_run)
        return pull_conflicts_list(p->app, ret, e);
    if (r == 0)
        r = pull_view_open(p->app, false, &p->view, e);
    if (r == 0)
        r = lock_stage(p, e);
    if (r == 0 && p->app->opt.to)
        r = open_to(p->app, &to, e);
    const struct pull_conflicts what = {.app = p->app,
        .rules = p->view.rules,
        .to = to ? to : p->view.tree,
        .stage_fd = p->stage_fd,
        .paths = p->paths,
        .path_count = p->path_count};
    return r < 0 ? r : pull_conflicts(&what, ret, e);
}

static int run_conflicts(struct pulling *p)
{
    struct err e = ERR_INIT;
    json_t *list = NULL, *item;
    size_t i;
    int r = fetch_conflicts(p, &list, &e);
    if (p->app->opt.json && r == 0) {
        out_json(json_pack("{s:b, s:O}", "dry_run", p->app->opt.dry_run, "conflicts", list));
    } else if (!p->app->opt.json) {
        json_array_foreach(list, i, item) {
            const char *file = json_string_value(json_object_get(item, "file"));
            printf("   %s", out_path(json_string_value(json_object_get(item, "path"))));
            printf("%s%s\n", file ? " -> " : "", file ? out_path(file) : "");
        }
        printf("%zu version%s\n", json_array_size(list), json_array_size(list) == 1 ? "" : "s");
    }
    json_decref(list);
    return r < 0 ? app_fail(p->app, &e) : EXIT_FINE;
}

int cmd_pull(struct app *app)
{
    CLEANUP(release) struct pulling p = {
        .app = app, .stage_fd = -1, .pull_lock = -1, .begun_ns = io_now_ns()};
    struct err e = ERR_INIT;
    pull_view_init(&p.view);
    progress_init(&p.progress, true);
    if (app->opt.conflicts)
        return run_conflicts(&p);
    int r = pull(&p, &e);
    if (r < 0)
        return app_fail(app, &e);
    if (app->opt.json)
        report_json(&p);
    else
        report(&p);
    bool whole = pull_plan_count(&p.plan, PULL_CONFLICT) + pull_plan_count(&p.plan, PULL_REFUSED) == 0;
    return whole ? EXIT_FINE : EXIT_TROUBLE;
}
