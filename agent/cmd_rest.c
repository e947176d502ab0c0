/* SPDX-License-Identifier: MIT */
/* ls, ps, logs, kill, sandbox, rm: what one or two REST calls answer. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent/app.h"
#include "agent/control.h"
#include "agent/run.h"
#include "shared/num.h"
#include "shared/path.h"
#include "shared/text.h"

#include "shared/banned.h"

#define PAGE 1000

/* Append the items of one page to `all`; *cursor becomes the next page's, or NULL. */
static int take_page(json_t *page, json_t *all, char **cursor)
{
    const char *next = json_string_value(json_object_get(page, "next_cursor"));
    int r =
        json_array_extend(all, json_object_get(page, "items")) < 0 && json_object_get(page, "items")
            ? -ENOMEM
            : 0;

    free(ptr_take(cursor));
    if (r == 0 && next) {
        CLEANUP(buf_release) struct buf coded;
        buf_init(&coded, 4 * PATH_BYTES_MAX);
        r = text_add_percent(&coded, next);
        if (r == 0 && !(*cursor = buf_steal(&coded)))
            r = -ENOMEM;
    }
    return r;
}

/* At most `most` items of a paged list, in a new array. `query` ends with '?' or '&'. */
static int list_items(struct app *app, const char *query, size_t most, json_t **ret, struct err *e)
{
    CLEANUP(freep) char *cursor = NULL;
    json_t *all = json_array();
    int r = all ? 0 : -ENOMEM;

    do {
        CLEANUP(freep) char *path = NULL;
        json_t *page = NULL;

        if (r == 0 && asprintf(&path, "%slimit=%zu%s%s", query, most < PAGE ? most : PAGE,
                          cursor ? "&cursor=" : "", cursor ? cursor : "") < 0)
            r = -ENOMEM;
        if (r == 0) {
            r = app_rest(app, "GET", path, NULL, &page, e);
            if (r < 0) {
                json_decref(all);
                return r;
            }
            r = take_page(page, all, &cursor);
            json_decref(page);
        }
    } while (r == 0 && cursor && json_array_size(all) < most);
    if (r < 0) {
        json_decref(all);
        return err_set(e, -r, "read a list");
    }
    *ret = all;
    return 0;
}

/* The whole list: one object in JSON mode, else a line for each item. */
static int show_list(struct app *app, const char *query, void (*show)(json_t *item), struct err *e)
{
    json_t *items = NULL, *item;
    size_t i;
    int r = list_items(app, query, SIZE_MAX, &items, e);

    if (r < 0)
        return r;
    if (app->opt.json) {
        out_json(json_pack("{s:o}", "items", items));
        return 0;
    }
    json_array_foreach(items, i, item)
        show(item);
    json_decref(items);
    return 0;
}

static const char *text_of(json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : "";
}

/* "2026-11-22T17:04:25.123456Z" → "2026-11-22 17:04:25" */
static const char *short_time(const char *stamp, char out[20])
{
    (void)snprintf(out, 20, "%.10s %.8s", stamp, strlen(stamp) > 19 ? stamp + 11 : "");
    return out;
}

/* ---- ls */

static void show_file(json_t *item)
{
    char size[16], when[20];
    const char *kind = text_of(item, "kind"), *target = text_of(item, "target");

    if (strcmp(kind, "file") == 0)
        (void)num_human_bytes(
            (uint64_t)json_integer_value(json_object_get(item, "size")), size, sizeof(size));
    else
        (void)snprintf(size, sizeof(size), "%s", kind);
    printf("%s  %10s  %s  %s%s%s%s\n", text_of(item, "mode"), size,
        short_time(text_of(item, "mtime"), when), out_path(text_of(item, "path")),
        strcmp(kind, "dir") == 0 ? "/" : "", *target ? " -> " : "", out_path(target));
}

int cmd_ls(struct app *app)
{
    struct err e = ERR_INIT;
    CLEANUP(freep) char *query = NULL;
    CLEANUP(freep) char *below = NULL;
    CLEANUP(buf_release) struct buf coded;
    int r = app_need_link(app, &e);

    buf_init(&coded, 4 * PATH_BYTES_MAX);
    if (r == 0 && app->opt.arg_count > 0 && path_resolve("", app->opt.args[0], &below) < 0)
        r = err_say(&e, EINVAL,
            "'%s' is no path of the workspace: give it relative to the project's root",
            out_path(app->opt.args[0]));
    if (r == 0 && below && text_add_percent(&coded, below) < 0)
        r = err_set(&e, ENOMEM, "build a request");
    if (r == 0 && asprintf(&query, "/v1/sandboxes/%s/files?%s%s%s", app->link.sandbox,
                      coded.len ? "path=" : "", buf_str(&coded), coded.len ? "&" : "") < 0)
        r = err_set(&e, ENOMEM, "build a request");
    if (r == 0)
        r = show_list(app, query, show_file, &e);
    return r < 0 ? app_fail(app, &e) : EXIT_FINE;
}

/* ---- ps, kill */

static void show_run(json_t *run)
{
    char when[20], code[24] = "";
    json_t *exit_code = json_object_get(run, "exit_code");
    const char *sig = text_of(run, "signal");

    if (*sig)
        (void)snprintf(code, sizeof(code), "%s", sig);
    else if (json_is_integer(exit_code))
        (void)snprintf(code, sizeof(code), "%lld", (long long)json_integer_value(exit_code));
    const char *what = text_of(run, "display");
    printf("%s  %-10s %-8s %9.1f ms  %s  %s\n", text_of(run, "id"), text_of(run, "status"), code,
        json_number_value(json_object_get(run, "wall_ms")),
        short_time(text_of(run, "created_at"), when), out_path(what));
}

int cmd_ps(struct app *app)
{
    struct err e = ERR_INIT;
    CLEANUP(freep) char *query = NULL;
    int r = app_need_link(app, &e);

    if (r == 0 && asprintf(&query, "/v1/runs?%s%s%s", app->opt.all ? "" : "sandbox=",
                      app->opt.all ? "" : app->link.sandbox, app->opt.all ? "" : "&") < 0)
        r = err_set(&e, ENOMEM, "build a request");
    if (r == 0)
        r = show_list(app, query, show_run, &e);
    return r < 0 ? app_fail(app, &e) : EXIT_FINE;
}

int cmd_kill(struct app *app)
{
    struct err e = ERR_INIT;
    CLEANUP(freep) char *path = NULL;
    json_t *run = NULL;

    if (app->opt.arg_count != 1 || !text_is_id("run_", app->opt.args[0])) {
        (void)err_say(&e, EINVAL, "name one run: silt kill RUN (silt ps lists them)");
        return app_fail(app, &e);
    }
    int r = app_need_link(app, &e);
    if (r == 0 && asprintf(&path, "/v1/runs/%s/cancel", app->opt.args[0]) < 0)
        r = err_set(&e, ENOMEM, "build a request");
    if (r == 0)
        r = app_rest(app, "POST", path, NULL, &run, &e);
    if (r < 0)
        return app_fail(app, &e);
    if (app->opt.json)
        out_json(run);
    else {
        printf("ending %s\n", app->opt.args[0]);
        json_decref(run);
    }
    return EXIT_FINE;
}

/* ---- logs */

static int latest_run(struct app *app, char **ret, struct err *e)
{
    CLEANUP(freep) char *query = NULL;
    json_t *runs = NULL;

    if (asprintf(&query, "/v1/runs?sandbox=%s&", app->link.sandbox) < 0)
        return err_set(e, ENOMEM, "build a request");
    int r = list_items(app, query, 1, &runs, e);
    if (r < 0)
        return r;
    if (json_array_size(runs) == 0)
        r = err_refuse(e, PROTO_RUN_NOT_FOUND, "this project has no runs yet: silt run FILE");
    else if (!(*ret = strdup(text_of(json_array_get(runs, 0), "id"))))
        r = err_set(e, ENOMEM, "read a list");
    json_decref(runs);
    return r;
}

/* Without --follow: how far the run has got, for that is where its replay stops. */
static int stop_where_it_is(
    struct app *app, const char *id, struct run_stream *stream, struct err *e)
{
    CLEANUP(freep) char *path = NULL;
    json_t *run = NULL;

    if (asprintf(&path, "/v1/runs/%s", id) < 0)
        return err_set(e, ENOMEM, "build a request");
    int r = app_rest(app, "GET", path, NULL, &run, e);
    if (r < 0)
        return r;
    json_int_t bytes = json_integer_value(json_object_get(run, "stdout_bytes")) +
                       json_integer_value(json_object_get(run, "stderr_bytes"));
    const char *status = text_of(run, "status");
    stream->replay = strcmp(status, "running") == 0 || strcmp(status, "queued") == 0;
    stream->until_bytes = bytes > 0 ? (uint64_t)bytes : 0;
    json_decref(run);
    return 0;
}

static int stream_logs(struct app *app, const char *id, struct run_stream *stream, struct err *e)
{
    int r = app->opt.follow ? 0 : stop_where_it_is(app, id, stream, e);

    return r < 0 ? r : run_follow(app->client, id, stream, e);
}

int cmd_logs(struct app *app)
{
    struct err e = ERR_INIT;
    CLEANUP(freep) char *id = NULL;
    struct run_stream stream;
    int r = app_need_link(app, &e);

    run_stream_init(&stream, false, true);
    stream.raw = app->opt.json;
    if (r == 0 && app->opt.arg_count > 0) {
        id = strdup(app->opt.args[0]);
        if (!id || !text_is_id("run_", id))
            r = err_say(
                &e, EINVAL, "'%s' is no run id: silt ps lists them", out_path(app->opt.args[0]));
    } else if (r == 0) {
        r = latest_run(app, &id, &e);
    }
    if (r == 0)
        r = stream_logs(app, id, &stream, &e);
    if (r == 0 && stream.run)
        run_explain(app, stream.run);
    int broken = stream.broken;
    run_stream_release(&stream);
    if (r < 0 && broken != -EPIPE)
        return app_fail(app, &e);
    return EXIT_FINE;
}

/* ---- sandboxes */

static void show_sandbox(json_t *sb)
{
    char when[20], size[16];

    printf("%s  %-8s %6lld files %10s  %s  %s\n", text_of(sb, "id"), text_of(sb, "language"),
        (long long)json_integer_value(json_object_get(sb, "files")),
        num_human_bytes(
            (uint64_t)json_integer_value(json_object_get(sb, "bytes")), size, sizeof(size)),
        short_time(text_of(sb, "used_at"), when), out_path(text_of(sb, "name")));
}

/* The sandbox that was named, or this project's. */
static int which_sandbox(struct app *app, const char *named, char **ret_path, struct err *e)
{
    int r = 0;

    if (!named) {
        r = app_need_link(app, e);
    } else {
        if (!text_is_id("sb_", named))
            return err_say(
                e, EINVAL, "'%s' is no sandbox id: silt sandbox ls lists them", out_path(named));
        r = app_connect(app, e);
    }
    if (r == 0 && asprintf(ret_path, "/v1/sandboxes/%s", named ? named : app->link.sandbox) < 0)
        r = err_set(e, ENOMEM, "build a request");
    return r;
}

static int sandbox_info_command(struct app *app, const char *named, struct err *e)
{
    CLEANUP(freep) char *path = NULL;
    json_t *sb = NULL;
    int r = which_sandbox(app, named, &path, e);

    if (r == 0)
        r = app_rest(app, "GET", path, NULL, &sb, e);
    if (r < 0)
        return r;
    if (app->opt.json) {
        out_json(sb);
        return 0;
    }
    CLEANUP(freep) char *text = json_dumps(sb, JSON_INDENT(2));
    json_decref(sb);
    printf("%s\n", text ? text : "");
    return 0;
}

/* A watcher must not go on filling what is being deleted. */
static void stop_watcher(const struct app *app)
{
    struct err ignored = ERR_INIT;
    json_t *ask = json_pack("{s:s}", "op", "stop"), *answer = NULL;

    err_ignore(control_request(app->root, ask, 2000, &answer, &ignored));
    json_decref(ask);
    json_decref(answer);
}

static int unlink_project(const struct app *app, struct err *e)
{
    CLEANUP(freep) char *path = NULL;

    if (asprintf(&path, "%s/" LINK_DIR "/link.json", app->root) < 0)
        return err_set(e, ENOMEM, "unlink the project");
    if (unlink(path) < 0 && errno != ENOENT)
        return err_set(e, errno, "remove '%s'", path);
    return link_forget(app->root, e);
}

static int remove_sandbox(struct app *app, const char *named, struct err *e)
{
    CLEANUP(freep) char *path = NULL;
    json_t *sb = NULL;
    char size[16];
    int r = which_sandbox(app, named, &path, e);

    if (r == 0)
        r = app_rest(app, "GET", path, NULL, &sb, e);
    if (r < 0)
        return r;
    bool go = out_ask(app, false,
        "delete %s (%s): %lld files, %s on %s, with everything its runs produced? Local files "
        "stay.",
        text_of(sb, "id"), out_path(text_of(sb, "name")),
        (long long)json_integer_value(json_object_get(sb, "files")),
        num_human_bytes(
            (uint64_t)json_integer_value(json_object_get(sb, "bytes")), size, sizeof(size)),
        client_server(app->client));
    if (!go) {
        r = err_say(e, ECANCELED,
            "nothing was deleted; --yes answers the question about %s (%lld files)",
            text_of(sb, "id"), (long long)json_integer_value(json_object_get(sb, "files")));
        json_decref(sb);
        return r;
    }
    bool own = app->linked && strcmp(text_of(sb, "id"), app->link.sandbox) == 0;
    if (own)
        stop_watcher(app);
    r = app_rest(app, "DELETE", path, NULL, NULL, e);
    if (r == 0 && own)
        r = unlink_project(app, e);
    if (r == 0 && app->opt.json)
        out_json(json_pack("{s:O}", "deleted", json_object_get(sb, "id")));
    else if (r == 0)
        printf("deleted %s\n", text_of(sb, "id"));
    json_decref(sb);
    return r;
}

int cmd_sandbox(struct app *app)
{
    struct err e = ERR_INIT;
    const char *verb = app->opt.arg_count > 0 ? app->opt.args[0] : "";
    const char *named = app->opt.arg_count > 1 ? app->opt.args[1] : NULL;
    int r;

    if (strcmp(verb, "ls") == 0) {
        r = app_connect(app, &e);
        if (r == 0)
            r = show_list(app, "/v1/sandboxes?", show_sandbox, &e);
    } else if (strcmp(verb, "info") == 0) {
        r = sandbox_info_command(app, named, &e);
    } else if (strcmp(verb, "rm") == 0) {
        r = remove_sandbox(app, named, &e);
    } else {
        r = err_say(&e, EINVAL, "silt sandbox ls, silt sandbox info [ID] or silt sandbox rm [ID]");
    }
    return r < 0 ? app_fail(app, &e) : EXIT_FINE;
}

int cmd_rm(struct app *app)
{
    struct err e = ERR_INIT;

    return remove_sandbox(app, NULL, &e) < 0 ? app_fail(app, &e) : EXIT_FINE;
}
