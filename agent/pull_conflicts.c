/* SPDX-License-Identifier: MIT */
/* pull --conflicts: versions that runs wrote and that gave way to an edit made here, beside the files
 * they are versions of, under names that are never synced. */
#include "agent/pull_conflicts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/remote.h"
#include "shared/hash.h"
#include "shared/io.h"
#include "shared/path.h"
#include "shared/text.h"

#include "shared/banned.h"

#define SLOT "version"
#define TIMEOUT_MS 3600000
#define KEPT_MAX 10000 /* items of a list that are looked at */

struct getting {
    struct app *app;
    const struct ignore *rules;
    const struct tree *to;
    int stage_fd, fd;
    struct hash_state *hash;
    uint64_t left;
    struct remote remote; /* for reading items */
    char *const *paths;
    size_t path_count;
};

char *pull_conflict_name(const char *path, const char *tag)
{
    const char *base = path_base(path), *dot = strrchr(base, '.');
    char *name = NULL;
    if (!dot || dot == base)
        dot = base + strlen(base);
    if (asprintf(&name, "%.*s.conflict-%s%s", (int)(dot - path), path, tag, dot) < 0)
        return NULL;
    return name;
}

/* A name that is free: by the run, else by the version's own id; of one that is too long without the
 * file's name. */
static int free_name(const struct getting *g, const char *path, const char *run, const char *id,
    char **ret, struct err *e)
{
    const char *tags[] = {run, id};
    struct tree_stat st;
    for (size_t i = 0; i < 2; i++) {
        CLEANUP(freep) char *name = NULL;
        if (!tags[i] || !tags[i][0])
            continue;
        name = pull_conflict_name(path, tags[i]);
        if (!name)
            return err_set(e, ENOMEM, "name a version");
        if (path_check(name, strlen(name)) == PATH_FINE && tree_stat(g->to, name, &st, NULL) < 0) {
            *ret = ptr_take(&name);
            return 0;
        }
    }
    return err_say(e, EEXIST, "'%s' has no free name for this version: name a folder with --to", path);
}

static int take(void *ctx, const void *data, size_t len)
{
    struct getting *g = ctx;
    if (len > g->left)
        return -EFBIG;
    g->left -= len;
    hash_state_add(g->hash, data, len);
    return io_write_all(g->fd, data, len);
}

static int fetch(struct getting *g, const char *id, const struct manifest_entry *m, struct err *e)
{
    CLEANUP(freep) char *url = NULL;
    struct client_response response;
    struct hash hash;
    if (asprintf(&url, "/v1/sandboxes/%s/conflicts/%s", g->app->link.sandbox, id) < 0)
        return err_set(e, ENOMEM, "fetch a version");
    hash_state_reset(g->hash);
    g->left = m->size;
    int r = client_call(g->app->client,
        &(struct client_request){
            .method = "GET", .path = url, .timeout_ms = TIMEOUT_MS, .on_data = take, .ctx = g},
        &response, e);
    client_response_release(&response);
    hash_state_get(g->hash, &hash);
    if (r == 0 && !hash_equal(&hash, &m->hash))
        r = err_say(e, EIO, "what arrived of '%s' is not what the server promised: try again", m->path);
    if (r == 0 && fchmod(g->fd, (m->mode & 0777) | 0400) < 0)
        r = err_set(e, errno, "set the mode of '%s'", m->path);
    return r;
}

static int put(struct getting *g, const struct manifest_entry *m, const char *run, const char *id,
    char **ret, struct err *e)
{
    bool displaced = false;
    int r = free_name(g, m->path, run, id, ret, e);
    if (r == 0)
        r = tree_make_parents(g->to, *ret, e);
    if (r == 0)
        r = tree_place(g->to, g->stage_fd, SLOT, *ret, &displaced, e);
    /* Somebody took the name this very moment: theirs goes back. */
    if (r == 0 && displaced) {
        r = tree_place(g->to, g->stage_fd, SLOT, *ret, &displaced, e);
        r = r < 0 ? r : err_say(e, EEXIST, "'%s' appeared meanwhile: try again", *ret);
    }
    return r;
}

static int forget(struct getting *g, const char *id, struct err *e)
{
    CLEANUP(freep) char *url = NULL;
    if (asprintf(&url, "/v1/sandboxes/%s/conflicts/%s", g->app->link.sandbox, id) < 0)
        return err_set(e, ENOMEM, "fetch a version");
    return app_rest(g->app, "DELETE", url, NULL, NULL, e);
}

static bool is_meant(const struct getting *g, const char *path)
{
    for (size_t i = 0; i < g->path_count; i++) {
        if (g->paths[i][0] == '\0' || path_beneath(g->paths[i], path))
            return true;
    }
    return g->path_count == 0;
}

static json_t *told(const char *path, const char *file, const char *run)
{
    CLEANUP(buf_release) struct buf a, b;
    buf_init(&a, 8 * (size_t)PATH_BYTES_MAX);
    buf_init(&b, 8 * (size_t)PATH_BYTES_MAX);
    if (text_add_readable(&a, path, strlen(path)) < 0 || text_add_readable(&b, file, strlen(file)) < 0)
        return NULL;
    return json_pack("{s:s, s:s, s:s?}", "path", buf_str(&a), "file", buf_str(&b), "run", run);
}

static int get_one(struct getting *g, const json_t *item, json_t *list, struct err *e)
{
    CLEANUP(freep) char *name = NULL;
    const char *id = json_string_value(json_object_get(item, "id"));
    const char *run = json_string_value(json_object_get(item, "run"));
    struct manifest_entry m;
    if (!id || !text_is_id("cf_", id) || (run && !text_is_id("run_", run)) ||
        !remote_entry(&g->remote, item, &m))
        return err_say(e, EPROTO, "the server's list of versions is damaged");
    if (!is_meant(g, m.path))
        return 0;
    const char *why = pull_forbidden(g->rules, m.path, false, true);
    if (why)
        return json_array_append_new(list, told(m.path, why, run)) < 0
                   ? err_set(e, ENOMEM, "fetch versions") : 0;
    (void)unlinkat(g->stage_fd, SLOT, 0);
    fd_closep(&g->fd);
    g->fd = openat(
        g->stage_fd, SLOT, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (g->fd < 0)
        return err_set(e, errno, "make a file in .silt/%s", PULL_DIR);
    int r = fetch(g, id, &m, e);
    if (r == 0)
        r = put(g, &m, run, id, &name, e);
    if (r == 0 && json_array_append_new(list, told(m.path, name, run)) < 0)
        r = err_set(e, ENOMEM, "fetch versions");
    /* It is here now. */
    return r < 0 ? r : forget(g, id, e);
}

int pull_conflicts_list(struct app *app, json_t **ret, struct err *e)
{
    CLEANUP(freep) char *url = NULL;
    json_t *answer = NULL;
    if (asprintf(&url, "/v1/sandboxes/%s/conflicts", app->link.sandbox) < 0)
        return err_set(e, ENOMEM, "list versions");
    int r = app_rest(app, "GET", url, NULL, &answer, e);
    *ret = r < 0 ? NULL : json_incref(json_object_get(answer, "items"));
    json_decref(answer);
    if (r == 0 && (!json_is_array(*ret) || json_array_size(*ret) > KEPT_MAX)) {
        json_decref(*ret);
        return err_say(e, EPROTO, "the server's list of versions is damaged");
    }
    return r;
}

int pull_conflicts(const struct pull_conflicts *p, json_t **ret, struct err *e)
{
    struct getting g = {.app = p->app,
        .rules = p->rules,
        .to = p->to,
        .stage_fd = p->stage_fd,
        .fd = -1,
        .hash = hash_state_new(),
        .paths = p->paths,
        .path_count = p->path_count};
    json_t *items = NULL, *item;
    size_t i;
    *ret = json_array();
    remote_init(&g.remote, NULL, NULL);
    int r = g.hash && *ret ? pull_conflicts_list(p->app, &items, e)
                           : err_set(e, ENOMEM, "fetch versions");
    json_array_foreach(items, i, item) {
        if (r == 0)
            r = get_one(&g, item, *ret, e);
    }
    json_decref(items);
    hash_state_free(g.hash);
    fd_closep(&g.fd);
    remote_release(&g.remote);
    return r;
}
