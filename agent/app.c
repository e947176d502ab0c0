/* SPDX-License-Identifier: MIT */
#include "agent/app.h"

#include <errno.h>
#include <string.h>

#include "agent/config.h"
#include "shared/hash.h"
#include "shared/num.h"
#include "shared/path.h"
#include "shared/text.h"

#include "shared/banned.h"

#define REST_TIMEOUT_MS 30000
/* Above these a first sync is asked about: it is rather a home folder than a project. */
#define ASK_FILES 10000
#define ASK_BYTES (UINT64_C(500) << 20)

int app_init(struct app *app, struct err *e)
{
    app->cwd = realpath(app->opt.dir, NULL);
    if (!app->cwd)
        return err_set(e, errno, "go to the folder '%s'", app->opt.dir);
    return 0;
}

void app_release(struct app *app)
{
    client_free(app->client);
    link_release(&app->link);
    free(app->cwd);
    free(app->root);
}

/* The cursor may stand behind a bar. */
static void on_silence(void *ctx)
{
    struct app *app = ctx;

    fprintf(stderr, "\r\x1b[K");
    out_note(app, "%s has not answered for %d s: still waiting for it (Ctrl-C ends that)",
        client_server(app->client), CLIENT_SILENCE_MS / 1000);
}

int app_connect(struct app *app, struct err *e)
{
    CLEANUP(config_release) struct config config = {.server = NULL};
    int r = config_load(&config, e);

    if (r < 0)
        return r;
    const char *server = app->opt.server          ? app->opt.server
                         : config.server_from_env ? config.server
                         : app->linked            ? app->link.server
                         : config.server          ? config.server
                                                  : "127.0.0.1:7458";
    r = client_new(
        &(struct client_config){.server = server, .token = config.token}, &app->client, e);
    if (r == 0 && isatty(2) == 1 && !app->opt.json)
        client_on_silence(app->client, on_silence, app);
    return r;
}

int app_project_path(const struct app *app, const char *text, char **ret, struct err *e)
{
    size_t len = strlen(app->root);
    const char *base = app->cwd[len] == '/' ? app->cwd + len + 1 : "";
    int r;

    if (text[0] == '/')
        r = strncmp(text, app->root, len) == 0 && text[len] == '/'
                ? path_resolve("", text + len + 1, ret)
                : -EINVAL;
    else
        r = path_resolve(base, text, ret);
    return r < 0 ? err_say(
                       e, EINVAL, "'%s' does not lie in the project %s", out_path(text), app->root)
                 : 0;
}

static int copied_folder(const struct app *app, struct err *e)
{
    return err_say(e, EEXIST,
        "%s is a copy of a linked folder, or was moved to another disk; two folders must not fill "
        "one sandbox. "
        "For a new sandbox: rm -r %s/.silt && silt init. To go on with the old one: silt init "
        "--sandbox %s",
        app->root, app->root, app->link.sandbox);
}

/* Find the root and load its link if there is one. */
static int find_link(struct app *app, struct err *e)
{
    bool linked = false, moved = false;
    int r = link_find_root(app->cwd, &app->root, &linked, e);

    if (r < 0 || !linked)
        return r;
    r = link_load(app->root, &app->link, &moved, e);
    if (r < 0)
        return r;
    app->linked = true;
    return moved ? copied_folder(app, e) : 0;
}

/* A link names one server; another one named for this call would mean another sandbox. */
static int check_server(const struct app *app, struct err *e)
{
    if (!app->linked || strcmp(client_server(app->client), app->link.server) == 0)
        return 0;
    return err_say(e, EINVAL,
        "%s is linked to %s, not to %s: leave out --server and SILT_SERVER, or remove %s/.silt to "
        "link anew",
        app->root, app->link.server, client_server(app->client), app->root);
}

int app_need_link(struct app *app, struct err *e)
{
    int r = find_link(app, e);

    if (r < 0)
        return r;
    if (!app->linked)
        return err_say(e, ENOENT,
            "%s is not linked to a sandbox yet: `silt init` links it, `silt run FILE` links and "
            "runs",
            app->root);
    r = app_connect(app, e);
    return r < 0 ? r : check_server(app, e);
}

int app_rest(struct app *app, const char *method, const char *path, json_t *body, json_t **ret,
    struct err *e)
{
    CLEANUP(freep) char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    struct client_response response;
    struct client_request req = {
        .method = method,
        .path = path,
        .content_type = text ? "application/json" : NULL,
        .body = text,
        .body_len = text ? strlen(text) : 0,
        .timeout_ms = REST_TIMEOUT_MS,
    };

    if (body && !text)
        return err_set(e, ENOMEM, "build a request");
    int r = client_call(app->client, &req, &response, e);
    if (r == 0 && ret) {
        *ret = response.body.len ? client_json(&response, e) : NULL;
        r = response.body.len && !*ret ? -EPROTO : 0;
    }
    client_response_release(&response);
    return r;
}

/* ---- linking */

static const struct {
    const char *marker, *language;
} languages[] = {{"pyproject.toml", "python"}, {"requirements.txt", "python"},
    {"setup.py", "python"}, {"package.json", "node"}, {"go.mod", "go"}, {"Gemfile", "ruby"}};

static const char *guess_language(const char *root)
{
    for (size_t i = 0; i < sizeof(languages) / sizeof(languages[0]); i++) {
        CLEANUP(freep) char *path = NULL;
        if (asprintf(&path, "%s/%s", root, languages[i].marker) >= 0 && access(path, F_OK) == 0)
            return languages[i].language;
    }
    return NULL;
}

static int create_sandbox(struct app *app, char **ret_id, struct err *e)
{
    const char *language = app->opt.language ? app->opt.language : guess_language(app->root);
    CLEANUP(buf_release) struct buf name;
    json_t *answer = NULL;

    buf_init(&name, PATH_NAME_MAX * 4);
    if (text_add_readable(&name, path_base(app->root), strlen(path_base(app->root))) < 0)
        return err_set(e, ENOMEM, "name the sandbox");
    json_t *body = json_pack("{s:s, s:s*, s:s*}", "name", buf_str(&name), "language", language,
        "image", app->opt.image);
    int r = app_rest(app, "POST", "/v1/sandboxes", body, &answer, e);
    json_decref(body);
    if (r < 0)
        return r;
    const char *id = json_string_value(json_object_get(answer, "id"));
    *ret_id = id && text_is_id("sb_", id) ? strdup(id) : NULL;
    json_decref(answer);
    return *ret_id ? 0 : err_say(e, EPROTO, "the server made a sandbox but did not tell its id");
}

static int check_sandbox(struct app *app, const char *sandbox, struct err *e)
{
    CLEANUP(freep) char *path = NULL;

    if (!text_is_id("sb_", sandbox))
        return err_say(e, EINVAL,
            "'%s' is no sandbox id: they look like sb_ and 26 letters and digits (silt sandbox ls)",
            sandbox);
    if (asprintf(&path, "/v1/sandboxes/%s", sandbox) < 0)
        return err_set(e, ENOMEM, "look the sandbox up");
    return app_rest(app, "GET", path, NULL, NULL, e);
}

int app_take_lease(struct app *app, struct err *e)
{
    CLEANUP(freep) char *path = NULL;

    if (asprintf(&path, "/v1/sandboxes/%s", app->link.sandbox) < 0)
        return err_set(e, ENOMEM, "take the writer lease");
    json_t *body = json_pack("{s:{s:s, s:s, s:b}}", "writer", "link", app->link.id, "machine",
        app->link.machine, "steal", app->opt.steal);
    json_t *answer = NULL;
    int r = app_rest(app, "PATCH", path, body, &answer, e);
    json_decref(body);
    /* Then nothing is there to be asked for. */
    const char *epoch = json_string_value(json_object_get(answer, "epoch"));
    if (r == 0 && epoch && json_is_integer(json_object_get(answer, "generation")) &&
        json_integer_value(json_object_get(answer, "generation")) == 0)
        (void)snprintf(app->link.empty_epoch, sizeof(app->link.empty_epoch), "%s", epoch);
    json_decref(answer);
    return r;
}

int app_make_link(struct app *app, const char *sandbox, struct err *e)
{
    CLEANUP(freep) char *created = NULL;
    struct err ignored = ERR_INIT;
    int r = sandbox ? check_sandbox(app, sandbox, e) : create_sandbox(app, &created, e);

    if (r < 0)
        return r;
    link_release(&app->link);
    r = link_make(
        app->root, client_server(app->client), sandbox ? sandbox : created, &app->link, e);
    if (r == 0)
        r = app_take_lease(app, e);
    if (r == 0)
        r = link_save(&app->link, e);
    if (r < 0)
        return r;
    /* The memory outside the project is a convenience: a read-only home must not prevent a link. */
    err_ignore(link_remember(&app->link, &ignored));
    app->linked = true;
    return 0;
}

/* The old sandbox of a project whose .silt was lost: keep it, unless the user or the server says
 * no. */
static bool relink(struct app *app, struct err *e)
{
    struct link old;
    struct err ignored = ERR_INIT;
    bool taken = false;

    if (link_recall(app->root, &old, &ignored) < 0)
        return false;
    if (strcmp(old.server, client_server(app->client)) == 0 &&
        check_sandbox(app, old.sandbox, &ignored) == 0 &&
        out_ask(app, true, "%s was linked to the sandbox %s before; go on with it?",
            out_path(app->root), old.sandbox)) {
        /* The same link id again: the server knows it as the writer, nothing has to be stolen. */
        app->link = old;
        app->linked = true;
        if (link_save(&app->link, e) < 0)
            app->linked = false;
        else
            out_note(
                app, "linked %s to its earlier sandbox %s again", out_path(app->root), old.sandbox);
        return app->linked;
    }
    link_release(&old);
    return taken;
}

static int survey_and_ask(const struct app *app, struct err *e)
{
    uint64_t files = 0, bytes = 0;
    char left_out[512], size[16];
    int r = sync_survey(app->root, &files, &bytes, left_out, sizeof(left_out), e);

    if (r < 0)
        return r;
    out_note(app, "%s (%llu file%s, %s) goes to %s", out_path(app->root), (unsigned long long)files,
        files == 1 ? "" : "s", num_human_bytes(bytes, size, sizeof(size)),
        client_server(app->client));
    if (left_out[0])
        out_note(app,
            "left out: %s (`silt ignored PATH` tells why; a `!` line in .siltignore includes)",
            left_out);
    if ((files > ASK_FILES || bytes > ASK_BYTES) &&
        !out_ask(app, false, "that is much for a project: send it?"))
        return err_say(e, ECANCELED,
            "%s holds %llu files, %s: list in .siltignore what is not needed, or answer yes with "
            "--yes",
            app->root, (unsigned long long)files, size);
    return 0;
}

int app_auto_link(struct app *app, struct err *e)
{
    int r = find_link(app, e);

    if (r < 0)
        return r;
    if (!app->client) {
        r = app_connect(app, e);
        if (r < 0)
            return r;
    }
    if (app->linked)
        return check_server(app, e);
    struct err trouble = ERR_INIT;
    if (relink(app, &trouble))
        return 0;
    r = survey_and_ask(app, e);
    if (r == 0)
        r = app_make_link(app, NULL, e);
    if (r == 0)
        out_note(app, "linked %s to the new sandbox %s", out_path(app->root), app->link.sandbox);
    return r;
}

int app_fail(const struct app *app, const struct err *e)
{
    out_error(app, e);
    return app->trouble_code;
}
