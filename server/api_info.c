/* SPDX-License-Identifier: MIT */
#include "server/api_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "shared/io.h"
#include "shared/proto.h"

#include "server/image.h"
#include "server/runtimes.h"

#include "shared/banned.h"

#define METRICS_BYTES_MAX (64 * 1024)

static json_t *texts(const char *const *list)
{
    json_t *array = json_array();
    for (; array && list && *list; list++)
        err_ignore(json_array_append_new(array, json_string(*list)));
    return array;
}

static json_t *languages(struct api *api)
{
    size_t count;
    const struct runtime_language *all = runtimes_all(&count);
    json_t *list = json_array();
    for (size_t i = 0; list && i < count; i++) {
        const char *version = exec_version(api->c.exec, IMAGE_HOST, &all[i]);
        err_ignore(json_array_append_new(
            list, json_pack("{s:s, s:o, s:o, s:s, s:b, s:o}", "name", all[i].name, "aliases",
                      texts(all[i].aliases), "extensions", texts(all[i].extensions), "program",
                      all[i].program, "installed",
                      container_engine_has_program(api->c.engine, "host", all[i].program),
                      "version", version ? json_string(version) : json_null())));
    }
    return list;
}

static json_t *limits(const struct config_limits *l)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I}", "wall_ms", (json_int_t)l->wall_ms, "cpu_ms",
        (json_int_t)l->cpu_ms, "memory_bytes", (json_int_t)l->memory_bytes, "pids",
        (json_int_t)l->pids, "output_bytes", (json_int_t)l->output_bytes);
}

void api_info_get(struct call *call)
{
    struct api *api = call->api;
    const struct config *c = api->c.config;
    const struct container_abilities *a = container_engine_abilities(api->c.engine);
    json_t *engine = json_pack("{s:s, s:s, s:b, s:b, s:b, s:b, s:b, s:b, s:o}", "name", a->engine,
        "cgroups", a->cgroups, "root", a->root, "limits_memory", a->limit_memory, "limits_pids",
        a->limit_pids, "limits_cpus", a->limit_cpu, "warm", a->warm, "terminal", a->terminal,
        "note", a->note[0] ? json_string(a->note) : json_null());
    json_t *sizes = json_pack("{s:I, s:I, s:I, s:I}", "json_bytes", (json_int_t)c->json_bytes,
        "upload_bytes", (json_int_t)c->upload_bytes, "workspace_bytes",
        (json_int_t)c->workspace_bytes, "workspace_files", (json_int_t)c->workspace_files);
    api_reply(call, 200,
        json_pack("{s:s, s:s, s:i, s:o, s:o, s:o, s:o, s:o, s:I, s:I}", "name", "siltd", "version",
            SILT_VERSION, "protocol", PROTO_VERSION, "languages", languages(api), "limits",
            limits(&c->limits), "limits_max", limits(&c->limits_max), "sizes", sizes, "engine",
            engine, "max_runs", (json_int_t)c->max_runs, "max_queued", (json_int_t)c->max_queued));
}

void api_healthz(struct call *call)
{
    const struct container_abilities *a = container_engine_abilities(call->api->c.engine);
    api_reply(call, 200,
        json_pack("{s:s, s:s, s:o}", "status", "ok", "version", SILT_VERSION, "note",
            a->note[0] ? json_string(a->note) : json_null()));
}

struct metric {
    const char *name, *type, *help, *label; /* label: "{status=\"failed\"}" or "" */
    uint64_t value;
};

static int add_metric(struct buf *b, const struct metric *m, const char *previous)
{
    int r = 0;
    if (strcmp(m->name, previous) != 0)
        r = buf_addf(b, "# HELP %s %s\n# TYPE %s %s\n", m->name, m->help, m->name, m->type);
    return r < 0 ? r : buf_addf(b, "%s%s %" PRIu64 "\n", m->name, m->label, m->value);
}

static int count_sandbox(const struct sandbox_info *info, void *ctx)
{
    uint64_t *totals = ctx;
    totals[0]++;
    totals[1] += info->bytes;
    return 0;
}

void api_metrics(struct call *call)
{
    static const char runs[] = "silt_runs_total", runs_help[] = "Runs that ended, by status";
    CLEANUP(buf_release) struct buf b;
    struct exec_stats s;
    struct err e = ERR_INIT;
    uint64_t requests = 0, connections = 0, totals[2] = {0, 0};
    struct http_server *server = atomic_load(&call->api->server);
    buf_init(&b, METRICS_BYTES_MAX);
    exec_stats(call->api->c.exec, &s);
    if (server)
        http_server_stats(server, &requests, &connections);
    if (sandbox_list(call->api->c.sandboxes, NULL, INT32_MAX, count_sandbox, totals, &e) < 0) {
        api_fail(call->req, &e, NULL);
        return;
    }
    const struct metric rows[] = {
        {"silt_uptime_seconds", "gauge", "Since the server started", "",
            (io_now_ns() - call->api->started_ns) / 1000000000},
        {"silt_http_requests_total", "counter", "Requests that were answered", "", requests},
        {"silt_http_connections", "gauge", "Connections that are open", "", connections},
        {"silt_sandboxes", "gauge", "Sandboxes that exist", "", totals[0]},
        {"silt_workspace_bytes", "gauge", "Bytes of files in all workspaces", "", totals[1]},
        {"silt_runs_running", "gauge", "Programs that run", "", s.running},
        {"silt_runs_waiting", "gauge", "Runs that wait for their turn", "", s.waiting},
        {"silt_runs_started_total", "counter", "Runs that were accepted", "", s.started},
        {runs, "counter", runs_help, "{status=\"succeeded\"}", s.succeeded},
        {runs, "counter", runs_help, "{status=\"failed\"}", s.failed},
        {runs, "counter", runs_help, "{status=\"timed_out\"}", s.timed_out},
        {runs, "counter", runs_help, "{status=\"cancelled\"}", s.cancelled},
        {runs, "counter", runs_help, "{status=\"error\"}", s.errors},
    };
    int r = 0;
    for (size_t i = 0; r == 0 && i < sizeof(rows) / sizeof(rows[0]); i++)
        r = add_metric(&b, &rows[i], i ? rows[i - 1].name : "");
    if (r < 0) {
        (void)err_set(&e, -r, "write the metrics");
        api_fail(call->req, &e, NULL);
        return;
    }
    http_reply(call->req, 200, "text/plain; version=0.0.4", b.data, b.len);
}

/* ---- openapi.json, from the route table */

/* "/v1/sandboxes/{id}/files/{path...}" without the dots. */
static json_t *open_path(const char *pattern, char out[128])
{
    json_t *parameters = json_array();
    size_t len = 0;
    for (const char *p = pattern; *p && len < 127; p++) {
        if (strncmp(p, "...}", 4) == 0)
            p += 3;
        out[len++] = *p;
    }
    out[len] = '\0';
    for (const char *p = strchr(out, '{'); p; p = strchr(p + 1, '{')) {
        err_ignore(json_array_append_new(
            parameters, json_pack("{s:s%, s:s, s:b, s:{s:s}}", "name", p + 1, strcspn(p + 1, "}"),
                            "in", "path", "required", 1, "schema", "type", "string")));
    }
    return parameters;
}

static json_t *open_body(enum api_body body)
{
    if (body == API_BODY_JSON)
        return json_pack(
            "{s:{s:{s:{s:s}}}}", "content", "application/json", "schema", "type", "object");
    return json_pack(
        "{s:{s:{s:{s:s, s:s}}}}", "content", "*/*", "schema", "type", "string", "format", "binary");
}

static json_t *open_operation(const struct api_route *route, json_t *parameters)
{
    char status[8];
    (void)snprintf(status, sizeof(status), "%d", route->status);
    json_t *operation = json_pack("{s:s, s:O, s:{s:{s:s}, s:{s:s, s:{s:{s:{s:s}}}}}}", "summary",
        route->summary, "parameters", parameters, "responses", status, "description", "Done",
        "default", "description", "Refused", "content", "application/json", "schema", "$ref",
        "#/components/schemas/Error");
    if (operation && route->body != API_BODY_NONE)
        err_ignore(json_object_set_new(operation, "requestBody", open_body(route->body)));
    return operation;
}

static json_t *open_error(void)
{
    json_t *codes = json_array();
    for (int i = PROTO_OK + 1; i < PROTO_ERROR_COUNT; i++)
        err_ignore(
            json_array_append_new(codes, json_string(proto_error_info((enum proto_error)i)->name)));
    return json_pack("{s:s, s:[s], s:{s:{s:s, s:[s,s,s,s], s:{s:{s:s, s:o}, s:{s:s}, s:{s:s}, "
                     "s:{s:s}, s:{s:s}}}}}",
        "type", "object", "required", "error", "properties", "error", "type", "object", "required",
        "code", "message", "retryable", "request_id", "properties", "code", "type", "string",
        "enum", codes, "message", "type", "string", "retryable", "type", "boolean", "request_id",
        "type", "string", "details", "type", "object");
}

void api_openapi(struct call *call)
{
    json_t *paths = json_object();
    for (size_t i = 0; paths && i < api_route_count; i++) {
        char path[128], method[16];
        json_t *parameters = open_path(api_routes[i].pattern, path);
        json_t *item = json_object_get(paths, path);
        if (!item) {
            item = json_object();
            err_ignore(json_object_set_new(paths, path, item));
        }
        (void)snprintf(method, sizeof(method), "%s", route_method_name(api_routes[i].method));
        for (char *p = method; *p; p++)
            *p = (char)(*p + ('a' - 'A'));
        err_ignore(json_object_set_new(item, method, open_operation(&api_routes[i], parameters)));
        json_decref(parameters);
    }
    api_reply(call, 200,
        json_pack("{s:s, s:{s:s, s:s, s:s}, s:o, s:{s:{s:o}}}", "openapi", "3.0.3", "info", "title",
            "silt", "version", SILT_VERSION, "description",
            "Sandboxes whose files outlive the runs on them", "paths", paths, "components",
            "schemas", "Error", open_error()));
}
