/* SPDX-License-Identifier: MIT */
#include "agent/pull_view.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>

#include "agent/control.h"
#include "agent/remote.h"
#include "agent/scan.h"
#include "shared/io.h"

#include "shared/banned.h"

#define SETTLE_WAIT_MS 600000
#define LOCK_TRIES 50 /* of 100 ms: another command holds it for a moment */
#define LOCK_PAUSE_NS 100000000

void pull_view_init(struct pull_view *v)
{
    *v = (struct pull_view){.dir_fd = -1, .lock_fd = -1};
}

void pull_view_close(struct pull_view *v)
{
    index_close(v->index);
    ignore_free(v->rules);
    tree_free(v->tree);
    manifest_free(v->there);
    fd_closep(&v->lock_fd);
    fd_closep(&v->dir_fd);
}

static int open_folder(struct pull_view *v, struct err *e)
{
    CLEANUP(freep) char *dir = NULL;
    if (asprintf(&dir, "%s/%s", v->app->root, LINK_DIR) < 0) {
        dir = NULL;
        return err_set(e, ENOMEM, "open the project");
    }
    v->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    v->lock_fd = v->dir_fd < 0 ? -1
                               : openat(v->dir_fd, "lock",
                                     O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    return v->lock_fd < 0 ? err_set(e, errno, "open '%s/lock'", dir) : 0;
}

/* The lock, or a watcher that has nothing left to send. */
static int take_lock(struct pull_view *v, bool settle, struct err *e)
{
    for (int i = 0;; i++) {
        json_t *ask = NULL, *answer = NULL;
        if (flock(v->lock_fd, LOCK_EX | LOCK_NB) == 0)
            return 0;
        if (errno != EWOULDBLOCK)
            return err_set(e, errno, "lock .silt/lock");
        ask = json_pack("{s:s, s:i}", "op", settle ? "sync" : "status", "timeout_ms", SETTLE_WAIT_MS);
        int r = control_request(v->app->root, ask, SETTLE_WAIT_MS + 1000, &answer, e);
        json_decref(ask);
        json_decref(answer);
        v->by_watcher = r == 0;
        if (r == 0 || (r != -ENOENT && r != -ECONNREFUSED))
            return r;
        if (i == LOCK_TRIES)
            return err_say(e, EBUSY, "another silt is syncing %s: try again", v->app->root);
        (void)nanosleep(&(struct timespec){.tv_nsec = LOCK_PAUSE_NS}, NULL);
    }
}

/* A scan reads the rule files on its way; what it finds is for a sync to send. */
static int load_rules(struct pull_view *v, struct err *e)
{
    struct scan found;
    struct scan_config config = {
        .tree = v->tree, .rules = v->rules, .known = index_manifest(v->index)};
    int r = scan_all(&config, &found, e);
    scan_release(&found);
    return r;
}

int pull_view_open(struct app *app, bool settle, struct pull_view *ret, struct err *e)
{
    const struct link *link = &app->link;
    ret->app = app;
    int r = open_folder(ret, e);
    if (r == 0)
        r = take_lock(ret, settle, e);
    if (r == 0 && !(ret->rules = ignore_new(true)))
        r = err_set(e, ENOMEM, "open the project");
    if (r == 0)
        r = tree_open(app->root, &ret->tree, e);
    if (r == 0)
        r = ret->by_watcher
                ? index_peek(ret->dir_fd, link->id, link->sandbox, &ret->index, e)
                : index_open(ret->dir_fd, link->id, link->sandbox, &ret->index, e);
    return r < 0 ? r : load_rules(ret, e);
}

static int take_page(struct pull_view *v, struct remote *remote, struct err *e)
{
    const json_t *items = json_object_get(remote->page, "items");
    struct manifest_entry entry;
    json_t *item;
    size_t i;
    json_array_foreach(items, i, item) {
        if (remote_entry(remote, item, &entry) && manifest_put(v->there, &entry) < 0)
            return err_set(e, ENOMEM, "list what the server has");
    }
    return 0;
}

static int list_there(struct pull_view *v, struct err *e)
{
    CLEANUP(remote_release) struct remote remote;
    remote_init(&remote, v->app->client, v->app->link.sandbox);
    manifest_free(v->there);
    v->there = manifest_new();
    int r = v->there ? 0 : err_set(e, ENOMEM, "list what the server has");
    do {
        if (r == 0)
            r = remote_page(&remote, REMOTE_PAGE, e);
        if (r == 0)
            r = take_page(v, &remote, e);
    } while (r == 0 && remote.cursor);
    v->bytes_sent += remote.bytes_sent;
    v->bytes_received += remote.bytes_received;
    return r;
}

int pull_view_plan(struct pull_view *v, char *const *paths, size_t count, bool force,
    struct pull_plan *ret, struct err *e)
{
    int r = list_there(v, e);
    if (r < 0)
        return r;
    const struct pull_config config = {.tree = v->tree,
        .rules = v->rules,
        .known = index_manifest(v->index),
        .paths = paths,
        .path_count = count,
        .force = force};
    return pull_plan_make(&config, v->there, ret, e);
}
