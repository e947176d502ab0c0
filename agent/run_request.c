/* SPDX-License-Identifier: MIT */
#include "agent/run.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "shared/io.h"
#include "shared/path.h"
#include "shared/text.h"

#include "shared/banned.h"

#define WATCHED_TIMEOUT_MS UINT64_C(86400000) /* the longest that a server grants */
#define ENV_FILE_MAX (1024u * 1024)

/* Where below the root the shell stands; "" for the root itself. */
static const char *below_root(const struct app *app, const char *path)
{
    size_t len = strlen(app->root);

    if (strncmp(path, app->root, len) != 0 || (path[len] != '/' && path[len] != '\0'))
        return NULL;
    return path[len] == '/' ? path + len + 1 : path + len;
}

/* FILE as the workspace knows it, relative to its root. */
static int workspace_path(const struct app *app, const char *file, char **ret, struct err *e)
{
    const char *base = below_root(app, app->cwd);
    int r;

    if (file[0] == '/') {
        const char *inside = below_root(app, file);
        r = inside && *inside ? path_resolve("", inside, ret) : -EINVAL;
    } else {
        r = path_resolve(base ? base : "", file, ret);
    }
    if (r == -ENOMEM)
        return err_set(e, ENOMEM, "build a request");
    if (r < 0 || !**ret) {
        if (r == 0)
            free(ptr_take(ret));
        return err_refuse(e, PROTO_FILE_NOT_FOUND,
            "'%s' is not a file of this project (%s): only what is synced can be run", file,
            app->root);
    }
    return 0;
}

static int add_text(json_t *array, const char *text, struct err *e)
{
    if (!text_is_utf8(text, strlen(text)))
        return err_say(e, EINVAL, "the argument '%s' is not UTF-8, which a request cannot carry",
            out_path(text));
    return json_array_append_new(array, json_string(text)) < 0
               ? err_set(e, ENOMEM, "build a request")
               : 0;
}

static int add_args(json_t *request, const char *key, char **args, size_t count, struct err *e)
{
    json_t *array = json_array();
    int r = 0;

    for (size_t i = 0; i < count && r == 0; i++)
        r = add_text(array, args[i], e);
    if (r == 0 && json_object_set(request, key, array) < 0)
        r = err_set(e, ENOMEM, "build a request");
    json_decref(array);
    return r;
}

static int add_variable(json_t *env, const char *assignment, struct err *e)
{
    const char *equals = strchr(assignment, '=');
    CLEANUP(freep) char *name = equals ? strndup(assignment, (size_t)(equals - assignment)) : NULL;

    if (!name || !*name)
        return err_say(e, EINVAL, "'%s' is not of the form NAME=VALUE", out_path(assignment));
    json_t *value = json_string(equals + 1);
    if (!value || json_object_set_new(env, name, value) < 0)
        return err_say(e, EINVAL, "the variable %s is not UTF-8, which a request cannot carry",
            out_path(name));
    return 0;
}

/* One NAME=VALUE a line; empty lines and # comments are skipped, `export ` and quotes around a
 * value are taken off, as people keep them in such files. */
static int add_env_line(json_t *env, char *line, struct err *e)
{
    line += strspn(line, " \t");
    size_t len = strcspn(line, "\r");
    line[len] = '\0';
    if (strncmp(line, "export ", 7) == 0)
        line += 7;
    if (!*line || *line == '#')
        return 0;
    char *equals = strchr(line, '=');
    size_t value_len = equals ? strlen(equals + 1) : 0;
    if (value_len >= 2 && (equals[1] == '"' || equals[1] == '\'') &&
        equals[value_len] == equals[1]) {
        equals[value_len] = '\0';
        memmove(equals + 1, equals + 2, value_len - 1);
    }
    return add_variable(env, line, e);
}

static int add_env_file(json_t *env, const char *path, struct err *e)
{
    CLEANUP(buf_release) struct buf text;

    buf_init(&text, ENV_FILE_MAX);
    int r = io_read_file(path, ENV_FILE_MAX, &text, e);
    CLEANUP(freep) char *all = r == 0 ? buf_steal(&text) : NULL;
    char *rest = all;
    while (r == 0 && rest && *rest) {
        char *line = strsep(&rest, "\n");
        r = add_env_line(env, line, e);
    }
    return r < 0 ? err_wrap(e, "--env-file %s", path) : 0;
}

static int add_environment(const struct app *app, json_t *request, bool tty, struct err *e)
{
    json_t *env = json_object();
    const char *term = getenv("TERM"), *no_color = getenv("NO_COLOR");
    int r = env ? 0 : err_set(e, ENOMEM, "build a request");

    /* What decides about colours travels with the terminal; nothing else of the shell's does. */
    if (r == 0 && tty && term && *term)
        err_ignore(json_object_set_new(env, "TERM", json_string(term)));
    if (r == 0 && tty && no_color && *no_color)
        err_ignore(json_object_set_new(env, "NO_COLOR", json_string(no_color)));
    if (r == 0 && app->opt.env_file)
        r = add_env_file(env, app->opt.env_file, e);
    for (size_t i = 0; r == 0 && i < app->opt.env_count; i++)
        r = add_variable(env, app->opt.env[i], e);
    if (r == 0 && json_object_size(env) > 0)
        r = json_object_set(request, "env", env) < 0 ? err_set(e, ENOMEM, "build a request") : 0;
    json_decref(env);
    return r;
}

static void add_limits(const struct app *app, json_t *request)
{
    const struct options *o = &app->opt;
    json_t *limits = json_object();

    if (o->timeout_ms)
        err_ignore(json_object_set_new(limits, "wall_ms", json_integer((json_int_t)o->timeout_ms)));
    if (o->memory_bytes)
        err_ignore(
            json_object_set_new(limits, "memory_bytes", json_integer((json_int_t)o->memory_bytes)));
    if (o->max_output)
        err_ignore(
            json_object_set_new(limits, "output_bytes", json_integer((json_int_t)o->max_output)));
    if (json_object_size(limits) > 0)
        err_ignore(json_object_set(request, "limits", limits));
    json_decref(limits);
}

static void add_tty(json_t *request, bool input)
{
    struct winsize size;

    if (ioctl(1, TIOCGWINSZ, &size) < 0 || size.ws_row == 0 || size.ws_col == 0)
        size = (struct winsize){.ws_row = 24, .ws_col = 80};
    err_ignore(json_object_set_new(
        request, "tty", json_pack("{s:i, s:i, s:b}", "rows", size.ws_row, "cols", size.ws_col, "input", input)));
}

bool run_request_tty(const struct app *app)
{
    const struct options *o = &app->opt;
    return (o->tty || (out_is_terminal(1) && !o->no_tty)) && !o->json && !o->detach;
}

int run_request_new(
    const struct app *app, enum run_feed_kind input, json_t **ret, struct err *e)
{
    const struct options *o = &app->opt;
    const char *base = below_root(app, app->cwd);
    CLEANUP(freep) char *file = NULL;
    json_t *request = json_object();
    bool tty = run_request_tty(app);
    int r;

    if (!request)
        return err_set(e, ENOMEM, "build a request");
    if (o->after_dashes) {
        r = add_args(request, "command", o->args, o->arg_count, e);
    } else {
        r = workspace_path(app, o->args[0], &file, e);
        if (r == 0 && !text_is_utf8(file, strlen(file)))
            r = err_say(e, EINVAL,
                "the name '%s' is not UTF-8, which a request cannot carry: run it as a command "
                "with `silt run -- …`",
                out_path(file));
        if (r == 0)
            err_ignore(json_object_set_new(request, "filename", json_string(file)));
        if (r == 0 && o->arg_count > 1)
            r = add_args(request, "args", o->args + 1, o->arg_count - 1, e);
    }
    if (r == 0 && base && *base)
        err_ignore(json_object_set_new(request, "cwd", json_string(base)));
    if (r == 0)
        r = add_environment(app, request, tty, e);
    if (r < 0) {
        json_decref(request);
        return r;
    }
    add_limits(app, request);
    if (o->view)
        err_ignore(json_object_set_new(request, "view", json_string(o->view)));
    if (o->keep)
        err_ignore(json_object_set_new(request, "keep", json_string(o->keep)));
    if (tty)
        add_tty(request, input == RUN_FEED_TERMINAL);
    if (input == RUN_FEED_BYTES)
        err_ignore(json_object_set_new(request, "stdin_stream", json_true()));
    if (o->detach)
        err_ignore(json_object_set_new(request, "detach", json_true()));
    else if (!o->json) /* whose one answer does not come again */
        err_ignore(json_object_set_new(request, "grace_ms", json_integer(RUN_GRACE_MS)));
    *ret = request;
    return 0;
}

int run_request_watched(struct app *app, json_t **ret, struct err *e)
{
    struct options *o = &app->opt;
    const struct options given = *o;
    CLEANUP(freep) char **args = calloc(o->arg_count + 2, sizeof(*args));

    if (!args)
        return err_set(e, ENOMEM, "build a request");
    if (o->run_file) {
        /* The words themselves are not changed. */
        args[0] = (char *)(uintptr_t)o->run_file;
        memcpy(args + 1, o->args, o->arg_count * sizeof(*args));
        o->args = args;
        o->arg_count++;
        o->after_dashes = false;
    }
    /* It lives until the next change. */
    if (!o->timeout_ms)
        o->timeout_ms = WATCHED_TIMEOUT_MS;
    int r = run_request_new(app, RUN_FEED_NONE, ret, e);
    *o = given;
    return r;
}

int run_request_after(json_t *request, const char *client, uint64_t seq)
{
    if (seq == 0) {
        err_ignore(json_object_del(request, "after"));
        return 0;
    }
    return json_object_set_new(request, "after",
               json_pack("{s:s, s:I}", "client", client, "seq", (json_int_t)seq)) < 0
               ? -ENOMEM
               : 0;
}
