/* SPDX-License-Identifier: MIT */
#include "server/api_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "shared/io.h"
#include "shared/log.h"
#include "shared/path.h"
#include "shared/proto.h"

#include "server/body.h"
#include "server/run_json.h"

#include "shared/banned.h"

#define NEAR (3 * 2048) /* of path_distance: at most two edits are a likeness */
#define S "/v1/sandboxes"
#define R "/v1/runs"

const struct api_route api_routes[] = {
    {HTTP_POST, S, api_sandbox_create, API_BODY_JSON, 201, "Create a sandbox"},
    {HTTP_GET, S, api_sandbox_list, API_BODY_NONE, 200, "List the sandboxes"},
    {HTTP_GET, S "/{id}", api_sandbox_get, API_BODY_NONE, 200, "Describe a sandbox"},
    {HTTP_PATCH, S "/{id}", api_sandbox_patch, API_BODY_JSON, 200,
        "Change a sandbox's properties, or take its writer lease"},
    {HTTP_DELETE, S "/{id}", api_sandbox_delete, API_BODY_NONE, 204,
        "Delete a sandbox with its files and runs"},
    {HTTP_GET, S "/{id}/files", api_file_list, API_BODY_NONE, 200, "List the files: the manifest"},
    {HTTP_POST, S "/{id}/files", api_file_upload, API_BODY_UPLOAD, 201,
        "Upload files (multipart/form-data) as one change set"},
    {HTTP_GET, S "/{id}/files/{path...}", api_file_get, API_BODY_NONE, 200, "Read a file"},
    {HTTP_HEAD, S "/{id}/files/{path...}", api_file_get, API_BODY_NONE, 200,
        "Size and hash of a file"},
    {HTTP_PUT, S "/{id}/files/{path...}", api_file_put, API_BODY_UPLOAD, 201, "Write a file"},
    {HTTP_DELETE, S "/{id}/files/{path...}", api_file_delete, API_BODY_NONE, 204,
        "Delete a file or (recursive=true) a folder"},
    {HTTP_GET, S "/{id}/signature", api_signature_get, API_BODY_NONE, 200,
        "The librsync signature of a file (path=…), against which deltas are made"},
    {HTTP_POST, S "/{id}/delta", api_delta_post, API_BODY_UPLOAD, 200,
        "The delta that makes the file (path=…) of what the signature in the body describes"},
    {HTTP_GET, S "/{id}/conflicts", api_conflict_list, API_BODY_NONE, 200,
        "List the versions that runs wrote and change sets displaced"},
    {HTTP_GET, S "/{id}/conflicts/{conflict}", api_conflict_get, API_BODY_NONE, 200,
        "Read such a version"},
    {HTTP_DELETE, S "/{id}/conflicts/{conflict}", api_conflict_delete, API_BODY_NONE, 204,
        "Drop such a version"},
    {HTTP_POST, S "/{id}/changes", api_changes_post, API_BODY_UPLOAD, 200,
        "Apply a change set, whole or not at all"},
    {HTTP_POST, S "/{id}/stages", api_stage_create, API_BODY_JSON, 201,
        "Begin an upload that can be resumed, to be named by a change set"},
    {HTTP_GET, S "/{id}/stages/{stage}", api_stage_get, API_BODY_NONE, 200,
        "How much of an upload is there"},
    {HTTP_HEAD, S "/{id}/stages/{stage}", api_stage_get, API_BODY_NONE, 200,
        "The same, in the headers"},
    {HTTP_PATCH, S "/{id}/stages/{stage}", api_stage_patch, API_BODY_UPLOAD, 200,
        "Send the next bytes of an upload, from Upload-Offset on"},
    {HTTP_DELETE, S "/{id}/stages/{stage}", api_stage_delete, API_BODY_NONE, 204,
        "Give an upload up"},
    {HTTP_GET, S "/{id}/events", api_sandbox_events, API_BODY_NONE, 200,
        "Follow what happens in a sandbox"},
    {HTTP_POST, S "/{id}/exec", api_exec_post, API_BODY_JSON, 200,
        "Run a file, a command or a piece of code"},
    {HTTP_GET, R, api_run_list, API_BODY_NONE, 200, "List the runs, newest first"},
    {HTTP_GET, R "/{run}", api_run_get, API_BODY_NONE, 200, "Describe a run"},
    {HTTP_DELETE, R "/{run}", api_run_delete, API_BODY_NONE, 204,
        "Delete the record of a finished run"},
    {HTTP_POST, R "/{run}/cancel", api_run_cancel, API_BODY_NONE, 200, "End a run"},
    {HTTP_POST, R "/{run}/stdin", api_run_stdin, API_BODY_UPLOAD, 200,
        "Write to a run's standard input (eof=true: and end it)"},
    {HTTP_POST, R "/{run}/resize", api_run_resize, API_BODY_JSON, 200,
        "Tell a run's terminal its size"},
    {HTTP_GET, R "/{run}/stdout", api_run_output, API_BODY_NONE, 200,
        "Standard output, as it was written"},
    {HTTP_GET, R "/{run}/stderr", api_run_output, API_BODY_NONE, 200,
        "Standard error, as it was written"},
    {HTTP_GET, R "/{run}/output", api_run_output, API_BODY_NONE, 200, "Both, in order of arrival"},
    {HTTP_GET, R "/{run}/events", api_run_events, API_BODY_NONE, 200,
        "Replay and follow a run's events"},
    {HTTP_GET, "/v1/images", api_image_list, API_BODY_NONE, 200,
        "List the images that sandboxes can name, and who uses them"},
    {HTTP_GET, "/v1/info", api_info_get, API_BODY_NONE, 200, "Versions, languages and limits"},
    {HTTP_GET, "/healthz", api_healthz, API_BODY_NONE, 200, "Is the server up?"},
    {HTTP_GET, "/metrics", api_metrics, API_BODY_NONE, 200,
        "Counters in the text format of Prometheus"},
    {HTTP_GET, "/openapi.json", api_openapi, API_BODY_NONE, 200, "This interface as OpenAPI 3.0"},
};
const size_t api_route_count = sizeof(api_routes) / sizeof(api_routes[0]);

/* Kept free for what is to come, so that nobody builds on their absence. '*': whatever follows. */
static const char *const reserved[] = {S "/{id}/fork", S "/{id}/tokens", R "/{run}/ports/{rest...}",
    "/mcp", "/sandboxes", "/v2/sandboxes", "/files", "/health", "/process.Process/{rest...}",
    "/filesystem.Filesystem/{rest...}", "/execute", "/contexts"};

/* ---- answers */

void api_reply_to(struct http_request *req, int status, json_t *object)
{
    CLEANUP(freep) char *text = object ? json_dumps(object, BODY_DUMP) : NULL;
    json_decref(object);
    if (!text) {
        http_reply_error(
            req, PROTO_INTERNAL, "out of memory while the answer was built: try again");
        return;
    }
    /* In place of the NUL: a terminal's prompt then stands on a line of its own. */
    size_t len = strlen(text);
    text[len] = '\n';
    http_reply(req, status, "application/json", text, len + 1);
}

void api_reply(struct call *call, int status, json_t *object)
{
    api_reply_to(call->req, status, object);
}

struct meaning {
    int code;
    enum proto_error error;
};

static enum proto_error look_up(const struct meaning *rows, size_t count, int code)
{
    for (size_t i = 0; i < count; i++) {
        if (rows[i].code == code)
            return rows[i].error;
    }
    return PROTO_INTERNAL;
}

/* Is the request about what lies in a workspace, where programs may swap names at any time? */
static bool meets_programs(const struct http_request *req)
{
    static const char *const places[] = {
        S "/{id}/files", S "/{id}/files/{path...}", S "/{id}/signature", S "/{id}/delta",
        S "/{id}/changes"};
    const struct call *call = http_note(req);
    const char *pattern = call && call->route ? call->route->pattern : "";
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        if (strcmp(places[i], pattern) == 0)
            return true;
    }
    return false;
}

/* What an error of the system means to a client. */
static enum proto_error code_of(const struct http_request *req, const struct err *e)
{
    static const struct meaning always[] = {{ENOSPC, PROTO_NO_SPACE}, {EDQUOT, PROTO_NO_SPACE},
        {EFBIG, PROTO_TOO_LARGE}, {ETIMEDOUT, PROTO_TIMEOUT}, {EBADMSG, PROTO_BAD_REQUEST},
        {ECONNRESET, PROTO_BAD_REQUEST}};
    /* A name was there when it was looked up, and then something else was. */
    static const struct meaning swapped[] = {{ENOENT, PROTO_FILE_NOT_FOUND},
        {EISDIR, PROTO_PATH_CONFLICT}, {ENOTDIR, PROTO_PATH_CONFLICT}, {ELOOP, PROTO_PATH_CONFLICT},
        {EAGAIN, PROTO_BUSY}, {EBUSY, PROTO_BUSY}};
    if (e->refusal != PROTO_OK)
        return e->refusal;
    enum proto_error found = look_up(always, sizeof(always) / sizeof(always[0]), e->code);
    if (found == PROTO_INTERNAL && meets_programs(req))
        found = look_up(swapped, sizeof(swapped) / sizeof(swapped[0]), e->code);
    return found;
}

void api_fail(struct http_request *req, const struct err *e, json_t *details)
{
    struct err told = *e;
    told.refusal = code_of(req, e);
    if (told.refusal == PROTO_INTERNAL || told.refusal == PROTO_NO_SPACE)
        log_error("%s: %s", http_id(req), e->msg);
    json_t *error = run_json_error(&told);
    if (error) {
        err_ignore(json_object_set_new(error, "request_id", json_string(http_id(req))));
        if (json_object_size(details) > 0)
            err_ignore(json_object_set(error, "details", details));
    }
    json_decref(details);
    if (told.refusal == PROTO_BUSY || told.refusal == PROTO_UNAVAILABLE)
        http_add_header(req, "Retry-After", "1");
    api_reply_to(req, proto_error_info(told.refusal)->http_status,
        error ? json_pack("{s:o}", "error", error) : NULL);
}

/* ---- the gate */

static void drop_call(void *note)
{
    struct call *call = note;
    route_match_release(&call->match);
    free(call);
}

static bool refuse(struct http_request *req, const struct err *e)
{
    http_reply_error(req, e->refusal != PROTO_OK ? e->refusal : PROTO_INTERNAL, e->msg);
    return false;
}

static int check_protocol(struct http_request *req, struct err *e)
{
    const char *version = http_header(req, "Silt-Protocol");
    if (!version || strcmp(version, PROTO_VERSION_TEXT) == 0)
        return 0;
    bool newer =
        strlen(version) > strlen(PROTO_VERSION_TEXT) || strcmp(version, PROTO_VERSION_TEXT) > 0;
    return err_refuse(e, PROTO_UPGRADE_REQUIRED,
        "this server speaks version " PROTO_VERSION_TEXT
        " of the protocol, the client version %.20s: upgrade the %s",
        version, newer ? "server" : "client");
}

static int check_auth(struct api *api, struct http_request *req, struct err *e)
{
    const struct auth_request request = {
        .path = http_path(req),
        .host = http_header(req, "Host"),
        .origin = http_header(req, "Origin"),
        .sec_fetch_site = http_header(req, "Sec-Fetch-Site"),
        .authorization = http_header(req, "Authorization"),
        .peer = http_peer(req),
        .local = http_local(req),
        .peer_uid = http_connection_mark(req),
    };
    return auth_check(api->c.auth, &request, e);
}

/* The route nearest to a path that nobody serves. */
static int refuse_path(const char *path, struct err *e)
{
    const char *near = NULL;
    unsigned best = NEAR;
    for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++) {
        struct route_match match;
        int r = route_match(reserved[i], path, &match);
        if (r == 1)
            route_match_release(&match);
        if (r == 1)
            return err_refuse(e, PROTO_NOT_FOUND,
                "%.100s is reserved for a later version and does nothing yet", path);
    }
    for (size_t i = 0; i < api_route_count; i++) {
        unsigned d = path_distance(path, api_routes[i].pattern);
        if (d < best) {
            best = d;
            near = api_routes[i].pattern;
        }
    }
    return err_refuse(e, PROTO_NOT_FOUND,
        "there is nothing at %.100s%s%s%s; GET /openapi.json lists what there is", path,
        near ? ": did you mean " : "", near ? near : "", near ? "?" : "");
}

static int find_route(struct http_request *req, struct call *call, struct err *e)
{
    const char *path = http_path(req);
    CLEANUP(buf_release) struct buf allowed;
    buf_init(&allowed, 256);
    for (size_t i = 0; i < api_route_count; i++) {
        const struct api_route *route = &api_routes[i];
        int r = route_match(route->pattern, path, &call->match);
        if (r == -EINVAL)
            return err_refuse(e, PROTO_BAD_REQUEST, "the path's percent-encoding is not valid");
        if (r < 0)
            return err_set(e, -r, "find the route");
        if (r == 0)
            continue;
        bool same = route->method == http_method(req);
        /* What can be read can be asked for its headers. */
        if (same || (route->method == HTTP_GET && http_method(req) == HTTP_HEAD)) {
            call->route = route;
            return 0;
        }
        route_match_release(&call->match);
        err_ignore(
            buf_addf(&allowed, "%s%s", allowed.len ? ", " : "", route_method_name(route->method)));
    }
    if (allowed.len == 0)
        return refuse_path(path, e);
    http_add_header(req, "Allow", buf_str(&allowed));
    return err_refuse(e, PROTO_METHOD_NOT_ALLOWED, "%s is not possible at %.100s: use %s",
        route_method_name(http_method(req)), path, buf_str(&allowed));
}

bool api_gate(struct http_request *req, uint64_t *ret_max_body, void *ctx)
{
    struct api *api = ctx;
    struct err e = ERR_INIT;
    if (check_auth(api, req, &e) < 0 || check_protocol(req, &e) < 0)
        return refuse(req, &e);
    struct call *call = calloc(1, sizeof(*call));
    if (!call)
        return refuse(req, &e);
    call->api = api;
    call->req = req;
    http_set_note(req, call, drop_call);
    if (find_route(req, call, &e) < 0)
        return refuse(req, &e);
    const uint64_t most[] = {[API_BODY_NONE] = 64 * 1024,
        [API_BODY_JSON] = api->c.config->json_bytes,
        [API_BODY_UPLOAD] = api->c.config->upload_bytes};
    *ret_max_body = most[call->route->body];
    /* Whom it is for; where nobody is named, the route stands for all. A run's object may hold all
     * that it printed. */
    const char *lane = call->match.param[0] ? call->match.param[0] : call->route->pattern;
    http_set_lane(req, lane, strlen(lane), call->route->handle == api_run_get);
    return true;
}

void api_handle(struct http_request *req, void *ctx)
{
    (void)ctx;
    struct call *call = http_note(req);
    call->route->handle(call);
}

/* ---- life */

int api_new(const struct api_config *config, struct api **ret, struct err *e)
{
    struct api *api = calloc(1, sizeof(*api));
    if (!api)
        return err_set(e, ENOMEM, "start the API");
    api->c = *config;
    api->started_ns = io_now_ns();
    (void)pthread_mutex_init(&api->lock, NULL);
    (void)pthread_mutex_init(&api->big, NULL);
    (void)pthread_cond_init(&api->less, NULL);
    *ret = api;
    return 0;
}

void api_set_server(struct api *api, struct http_server *server)
{
    atomic_store(&api->server, server);
}

void api_stop(struct api *api)
{
    atomic_store(&api->stopping, true);
    (void)pthread_mutex_lock(&api->lock);
    while (api->threads > 0)
        (void)pthread_cond_wait(&api->less, &api->lock);
    (void)pthread_mutex_unlock(&api->lock);
}

void api_free(struct api *api)
{
    if (!api)
        return;
    (void)pthread_cond_destroy(&api->less);
    (void)pthread_mutex_destroy(&api->big);
    (void)pthread_mutex_destroy(&api->lock);
    free(api);
}
