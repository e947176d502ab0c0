/* SPDX-License-Identifier: MIT */
#include "server/api_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "shared/text.h"

#include "server/body.h"
#include "server/image.h"
#include "server/runtimes.h"

#include "shared/banned.h"

#define NAME_MAX_BYTES 200
#define IDLE_TTL_MAX (UINT64_C(10) * 365 * 86400)

static json_t *parse_or_empty(const char *json)
{
    json_t *value = json_loads(json && *json ? json : "{}", JSON_REJECT_DUPLICATES, NULL);
    return value ? value : json_object();
}

static json_t *effective_limits(const struct api *api, const char *json)
{
    struct config_limits l = api->c.config->limits;
    json_t *own = parse_or_empty(json);
    err_ignore(body_limits(own, &api->c.config->limits_max, &l, NULL));
    json_decref(own);
    return json_pack("{s:I, s:o, s:I, s:I, s:I}", "wall_ms", (json_int_t)l.wall_ms, "cpu_ms",
        l.cpu_ms ? json_integer((json_int_t)l.cpu_ms) : json_null(), "memory_bytes",
        (json_int_t)l.memory_bytes, "pids", (json_int_t)l.pids, "output_bytes",
        (json_int_t)l.output_bytes);
}

static json_t *text_or_null(const char *text)
{
    return text && *text ? json_string(text) : json_null();
}

static json_t *sandbox_json(const struct api *api, const struct sandbox_info *info)
{
    char created[TEXT_TIME_BYTES], used[TEXT_TIME_BYTES];
    json_t *writer = info->writer_link && *info->writer_link
                         ? json_pack("{s:s, s:o}", "link", info->writer_link, "machine",
                               text_or_null(info->writer_machine))
                         : json_null();
    json_t *network = parse_or_empty(info->network_json);
    if (json_object_size(network) == 0)
        err_ignore(json_object_set_new(network, "mode", json_string("none")));
    return json_pack(
        "{s:s, s:o, s:o, s:s, s:s, s:I, s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:I, s:I, s:o}",
        "id", info->id, "name", text_or_null(info->name), "language", text_or_null(info->language),
        "image", info->image && *info->image ? info->image : "host", "status",
        info->deleting ? "deleting" : "ready", "generation", (json_int_t)info->generation, "epoch",
        info->epoch, "created_at", text_time(info->created_ns, created), "used_at",
        text_time(info->used_ns, used), "idle_ttl_s",
        info->idle_ttl_s ? json_integer((json_int_t)info->idle_ttl_s) : json_null(), "env",
        parse_or_empty(info->env_json), "limits", effective_limits(api, info->limits_json),
        "network", network, "labels", parse_or_empty(info->labels_json), "files",
        (json_int_t)info->files, "bytes", (json_int_t)info->bytes, "writer", writer);
}

/* ---- what a client says about a sandbox */

struct wish {
    char *name, *language, *image, *env, *limits, *network, *labels; /* malloc'd or NULL */
    uint64_t idle_ttl_s;
    bool has_ttl;
};

static void wish_release(struct wish *w)
{
    char *const texts[] = {
        w->name, w->language, w->image, w->env, w->limits, w->network, w->labels};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        free(texts[i]);
}

static json_t *known_languages(struct buf *sentence)
{
    size_t count;
    const struct runtime_language *all = runtimes_all(&count);
    json_t *list = json_array();
    for (size_t i = 0; list && i < count; i++) {
        err_ignore(json_array_append_new(list, json_string(all[i].name)));
        err_ignore(buf_addf(sentence, "%s%s",
            i == 0          ? ""
            : i + 1 < count ? ", "
                            : " and ",
            all[i].name));
    }
    return list;
}

static int read_language(json_t *body, struct wish *w, json_t **ret_details, struct err *e)
{
    CLEANUP(freep) char *given = NULL;
    int r = body_text(body, "language", 64, &given, e);
    if (r <= 0)
        return r;
    if (!*given) {
        w->language = ptr_take(&given); /* "" takes it away again */
        return 1;
    }
    const struct runtime_language *language = runtimes_by_name(given);
    if (!language) {
        CLEANUP(buf_release) struct buf names;
        buf_init(&names, 1024);
        *ret_details = json_pack("{s:o}", "known", known_languages(&names));
        return err_refuse(e, PROTO_UNKNOWN_LANGUAGE,
            "'%s' is no language that this server knows; it knows %s", given, buf_str(&names));
    }
    w->language = strdup(language->name);
    return w->language ? 1 : err_set(e, ENOMEM, "read the request");
}

/* A checked member as text for the store. */
static int read_object(json_t *body, const char *name, int (*check)(json_t *value, struct err *e),
    char **ret, struct err *e)
{
    json_t *value = json_object_get(body, name);
    if (!value || json_is_null(value))
        return 0;
    int r = check(value, e);
    if (r < 0)
        return r;
    *ret = json_dumps(value, JSON_COMPACT);
    return *ret ? 0 : err_set(e, ENOMEM, "read the request");
}

static int read_limits(const struct api *api, json_t *body, struct wish *w, struct err *e)
{
    struct config_limits l = api->c.config->limits;
    json_t *value = json_object_get(body, "limits");
    if (!value || json_is_null(value))
        return 0;
    int r = body_limits(value, &api->c.config->limits_max, &l, e);
    if (r < 0)
        return r;
    w->limits = json_dumps(value, JSON_COMPACT);
    return w->limits ? 0 : err_set(e, ENOMEM, "read the request");
}

static int read_wish(
    struct call *call, json_t *body, struct wish *w, json_t **ret_details, struct err *e)
{
    int r = body_text(body, "name", NAME_MAX_BYTES, &w->name, e);
    if (r >= 0)
        r = read_language(body, w, ret_details, e);
    if (r >= 0)
        r = body_text(body, "image", 200, &w->image, e);
    if (r >= 0 && w->image && !container_engine_has_image(call->api->c.engine, w->image))
        r = image_unknown(config_image_dir(call->api->c.config), w->image, e);
    if (r >= 0)
        r = read_object(body, "env", body_env, &w->env, e);
    if (r >= 0)
        r = read_object(body, "network", body_network, &w->network, e);
    if (r >= 0)
        r = read_object(body, "labels", body_labels, &w->labels, e);
    if (r >= 0)
        r = read_limits(call->api, body, w, e);
    if (r >= 0) {
        r = body_number(body, "idle_ttl_s", 0, IDLE_TTL_MAX, &w->idle_ttl_s, e);
        w->has_ttl = r == 1;
    }
    return r < 0 ? r : 0;
}

static void reply_sandbox(struct call *call, struct sandbox *sb, int status)
{
    struct sandbox_info info;
    struct err e = ERR_INIT;
    if (sandbox_info(sb, &info, &e) < 0) {
        api_fail(call->req, &e, NULL);
        return;
    }
    api_reply(call, status, sandbox_json(call->api, &info));
    sandbox_info_release(&info);
}

/* ---- handlers */

void api_sandbox_create(struct call *call)
{
    static const char *const known[] = {
        "language", "name", "image", "env", "limits", "network", "labels", "idle_ttl_s", NULL};
    struct wish w = {.name = NULL};
    struct err e = ERR_INIT;
    struct sandbox *sb = NULL;
    json_t *body = NULL, *details = NULL;
    int r = api_read_json(call, &body, &e);
    if (r == 0)
        r = body_known(body, "the request", known, &e);
    if (r == 0)
        r = read_wish(call, body, &w, &details, &e);
    if (r == 0) {
        const struct sandbox_spec spec = {
            .language = w.language ? w.language : "",
            .name = w.name ? w.name : "",
            .image = w.image ? w.image : "host",
            .env_json = w.env ? w.env : "{}",
            .limits_json = w.limits ? w.limits : "{}",
            .network_json = w.network ? w.network : "{}",
            .labels_json = w.labels ? w.labels : "{}",
            .idle_ttl_s = w.idle_ttl_s,
        };
        r = sandbox_create(call->api->c.sandboxes, &spec, &sb, &e);
    }
    if (r < 0) {
        api_fail(call->req, &e, details);
    } else {
        char location[64];
        (void)snprintf(location, sizeof(location), "/v1/sandboxes/%s", sandbox_id(sb));
        http_add_header(call->req, "Location", location);
        reply_sandbox(call, sb, 201);
        sandbox_unref(sb);
    }
    wish_release(&w);
    json_decref(body);
}

struct listing {
    const struct api *api;
    json_t *items;
    uint64_t limit;
    char last[SANDBOX_ID_BYTES];
    bool more;
};

static int visit_sandbox(const struct sandbox_info *info, void *ctx)
{
    struct listing *l = ctx;
    if (json_array_size(l->items) >= l->limit) {
        l->more = true;
        return 1;
    }
    err_ignore(json_array_append_new(l->items, sandbox_json(l->api, info)));
    (void)snprintf(l->last, sizeof(l->last), "%s", info->id);
    return 0;
}

void api_sandbox_list(struct call *call)
{
    struct listing l = {.api = call->api, .limit = API_LIST_USUAL};
    struct err e = ERR_INIT;
    const char *cursor = http_query(call->req, "cursor");
    int r = api_query_number(call, "limit", API_LIST_MAX, &l.limit, &e);
    if (r == 0 && cursor && !text_is_id("sb_", cursor))
        r = err_refuse(
            &e, PROTO_INVALID_VALUE, "'cursor' must come from an earlier answer's next_cursor");
    if (r == 0 && !(l.items = json_array()))
        r = err_set(&e, ENOMEM, "list the sandboxes");
    if (r == 0)
        r = sandbox_list(
            call->api->c.sandboxes, cursor, (unsigned)l.limit + 1, visit_sandbox, &l, &e);
    if (r < 0) {
        json_decref(l.items);
        api_fail(call->req, &e, NULL);
        return;
    }
    api_reply(call, 200,
        json_pack("{s:o, s:o}", "items", l.items, "next_cursor",
            l.more ? json_string(l.last) : json_null()));
}

void api_sandbox_get(struct call *call)
{
    struct sandbox *sb = NULL;
    struct err e = ERR_INIT;
    if (api_sandbox(call, &sb, &e) < 0) {
        api_fail(call->req, &e, NULL);
        return;
    }
    reply_sandbox(call, sb, 200);
    sandbox_unref(sb);
}

/* {"link","machine","steal"} */
static int take_lease(struct sandbox *sb, json_t *body, struct err *e)
{
    static const char *const known[] = {"link", "machine", "steal", NULL};
    CLEANUP(freep) char *link = NULL;
    CLEANUP(freep) char *machine = NULL;
    json_t *writer = json_object_get(body, "writer");
    bool steal = false;
    if (!writer || json_is_null(writer))
        return 0;
    int r = body_known(writer, "'writer'", known, e);
    if (r >= 0)
        r = body_text(writer, "link", CHANGES_CLIENT_MAX, &link, e);
    if (r >= 0 && (!link || !*link || strchr(link, '.')))
        r = err_refuse(e, PROTO_INVALID_VALUE, "'writer' needs a 'link': a name without a dot");
    if (r >= 0)
        r = body_text(writer, "machine", 200, &machine, e);
    if (r >= 0)
        r = body_bool(writer, "steal", &steal, e);
    return r < 0 ? r : sandbox_lease(sb, link, machine ? machine : "", steal, e);
}

void api_sandbox_patch(struct call *call)
{
    static const char *const known[] = {"language", "name", "image", "env", "limits", "network",
        "labels", "idle_ttl_s", "writer", NULL};
    struct wish w = {.name = NULL};
    struct err e = ERR_INIT;
    struct sandbox *sb = NULL;
    json_t *body = NULL, *details = NULL;
    int r = api_sandbox(call, &sb, &e);
    if (r == 0)
        r = api_read_json(call, &body, &e);
    if (r == 0)
        r = body_known(body, "the request", known, &e);
    if (r == 0)
        r = read_wish(call, body, &w, &details, &e);
    if (r == 0)
        r = take_lease(sb, body, &e);
    if (r == 0) {
        const struct sandbox_spec spec = {.language = w.language,
            .name = w.name,
            .image = w.image,
            .env_json = w.env,
            .limits_json = w.limits,
            .network_json = w.network,
            .labels_json = w.labels,
            .idle_ttl_s = w.has_ttl ? w.idle_ttl_s : UINT64_MAX};
        r = sandbox_update(sb, &spec, &e);
    }
    if (r < 0)
        api_fail(call->req, &e, details);
    else
        reply_sandbox(call, sb, 200);
    wish_release(&w);
    json_decref(body);
    if (sb)
        sandbox_unref(sb);
}

void api_sandbox_delete(struct call *call)
{
    struct sandbox *sb = NULL;
    struct err e = ERR_INIT;
    int r = api_sandbox(call, &sb, &e);
    if (r == 0)
        r = exec_delete_sandbox(call->api->c.exec, sb, &e);
    if (sb)
        sandbox_unref(sb);
    if (r < 0)
        api_fail(call->req, &e, NULL);
    else
        http_reply(call->req, 204, NULL, NULL, 0);
}
