/* SPDX-License-Identifier: MIT */
#include "server/body.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "shared/path.h"
#include "shared/text.h"
#include "shared/weaken.h"

#include "shared/banned.h"

#define NEAR (4 * 2048) /* of path_distance: at most three edits are a likeness */
#define LABELS_MAX 64
#define LABEL_BYTES 1024

static const char *type_name(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a text";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    case JSON_NULL:
        return "null";
    default:
        return "true or false";
    }
}

static int wrong_type(struct err *e, const char *name, const char *want, const json_t *value)
{
    return err_refuse(
        e, PROTO_INVALID_VALUE, "'%s' must be %s, not %s", name, want, type_name(value));
}

int body_known(json_t *object, const char *where, const char *const *known, struct err *e)
{
    const char *key;
    json_t *value;
    if (!json_is_object(object))
        return err_refuse(e, PROTO_INVALID_VALUE, "%s must be a JSON object", where);
    json_object_foreach(object, key, value) {
        const char *near = NULL;
        unsigned nearest = NEAR;
        bool found = false;
        for (size_t i = 0; known[i] && !found; i++) {
            unsigned d = path_distance(key, known[i]);
            found = strcmp(key, known[i]) == 0;
            if (d < nearest) {
                nearest = d;
                near = known[i];
            }
        }
        if (!found)
            return err_refuse(e, PROTO_INVALID_VALUE, "%s has an unknown member '%.80s'%s%s%s",
                where, key, near ? ": did you mean '" : "", near ? near : "", near ? "'?" : "");
    }
    return 0;
}

static json_t *member(json_t *object, const char *name)
{
    json_t *value = json_object_get(object, name);
    return json_is_null(value) ? NULL : value;
}

static int check_text(json_t *value, const char *name, size_t max, struct err *e)
{
    if (!json_is_string(value))
        return wrong_type(e, name, "a text", value);
    size_t len = json_string_length(value);
    if (len > max)
        return err_refuse(e, PROTO_INVALID_VALUE, "'%s' may have at most %zu bytes, this has %zu",
            name, max, len);
    if (memchr(json_string_value(value), '\0', len))
        return err_refuse(e, PROTO_INVALID_VALUE, "'%s' must not hold a NUL character", name);
    return 0;
}

int body_text(json_t *object, const char *name, size_t max, char **ret, struct err *e)
{
    json_t *value = member(object, name);
    if (!value)
        return 0;
    int r = check_text(value, name, max, e);
    if (r < 0)
        return r;
    char *copy = strdup(json_string_value(value));
    if (!copy)
        return err_set(e, ENOMEM, "read '%s'", name);
    *ret = copy;
    return 1;
}

int body_number(
    json_t *object, const char *name, uint64_t min, uint64_t max, uint64_t *ret, struct err *e)
{
    json_t *value = member(object, name);
    if (!value)
        return 0;
    if (!json_is_integer(value))
        return wrong_type(e, name, "a whole number", value);
    json_int_t n = json_integer_value(value);
    if (n < 0 || (uint64_t)n < min || (uint64_t)n > max)
        return err_refuse(e, PROTO_INVALID_VALUE,
            "'%s' is %" JSON_INTEGER_FORMAT ": it must lie between %" PRIu64 " and %" PRIu64, name,
            n, min, max);
    *ret = (uint64_t)n;
    return 1;
}

int body_bool(json_t *object, const char *name, bool *ret, struct err *e)
{
    json_t *value = member(object, name);
    if (!value)
        return 0;
    if (!json_is_boolean(value))
        return wrong_type(e, name, "true or false", value);
    *ret = json_is_true(value);
    return 1;
}

void body_texts_free(char **list)
{
    for (char **item = list; item && *item; item++)
        free(*item);
    free(list);
}

int body_texts(json_t *object, const char *name, size_t max, char ***ret, struct err *e)
{
    json_t *value = member(object, name), *item;
    size_t i, bytes = 0;
    if (!value)
        return 0;
    if (!json_is_array(value))
        return wrong_type(e, name, "an array of texts", value);
    if (json_array_size(value) > max)
        return err_refuse(e, PROTO_INVALID_VALUE, "'%s' may have at most %zu items", name, max);
    char **list = calloc(json_array_size(value) + 1, sizeof(*list));
    int r = list ? 0 : err_set(e, ENOMEM, "read '%s'", name);
    json_array_foreach(value, i, item) {
        if (r == 0)
            r = check_text(item, name, BODY_STRINGS_BYTES, e);
        if (r < 0)
            break;
        bytes += json_string_length(item) + 1;
        if (bytes > BODY_STRINGS_BYTES)
            r = err_refuse(e, PROTO_INVALID_VALUE, "'%s' may have at most %d bytes together", name,
                BODY_STRINGS_BYTES);
        else if (!(list[i] = strdup(json_string_value(item))))
            r = err_set(e, ENOMEM, "read '%s'", name);
    }
    if (r < 0) {
        body_texts_free(list);
        return r;
    }
    *ret = list;
    return 1;
}

int body_bytes(json_t *object, const char *name, size_t max, struct buf *ret, struct err *e)
{
    char coded_name[64];
    (void)snprintf(coded_name, sizeof(coded_name), "%s_base64", name);
    json_t *text = member(object, name), *coded = member(object, coded_name);
    if (text && coded)
        return err_refuse(e, PROTO_INVALID_VALUE, "give '%s' or '%s', not both", name, coded_name);
    if (!text && !coded)
        return 0;
    json_t *value = text ? text : coded;
    if (!json_is_string(value))
        return wrong_type(e, text ? name : coded_name, "a text", value);
    size_t len = json_string_length(value);
    buf_init(ret, max);
    int r = text ? buf_add(ret, json_string_value(value), len)
                 : text_decode_base64(json_string_value(value), len, ret);
    if (r == -EINVAL)
        r = err_refuse(e, PROTO_INVALID_VALUE, "'%s' is not base64", coded_name);
    else if (r == -ENOBUFS)
        r = err_refuse(e, PROTO_INVALID_VALUE, "'%s' may have at most %zu bytes", name, max);
    else if (r < 0)
        r = err_set(e, -r, "read '%s'", name);
    if (r < 0) {
        buf_release(ret);
        return r;
    }
    return 1;
}

static int check_variable(const char *name, json_t *value, struct err *e)
{
    if (!*name || strchr(name, '=') || strlen(name) > 255)
        return err_refuse(e, PROTO_INVALID_VALUE, "'%.80s' is no name of a variable", name);
    if (json_is_number(value) || json_is_boolean(value))
        return 0;
    if (!json_is_string(value))
        return err_refuse(e, PROTO_INVALID_VALUE, "the variable '%.80s' must be a text", name);
    if (memchr(json_string_value(value), '\0', json_string_length(value)))
        return err_refuse(
            e, PROTO_INVALID_VALUE, "the variable '%.80s' must not hold a NUL character", name);
    return 0;
}

int body_env(json_t *env, struct err *e)
{
    const char *key;
    json_t *value;
    size_t bytes = 0;
    if (!json_is_object(env))
        return wrong_type(e, "env", "an object", env);
    if (json_object_size(env) > BODY_ENV_MAX)
        return err_refuse(
            e, PROTO_INVALID_VALUE, "'env' may have at most %d variables", BODY_ENV_MAX);
    json_object_foreach(env, key, value) {
        int r = check_variable(key, value, e);
        if (r < 0)
            return r;
        bytes += strlen(key) + json_string_length(value) + 32;
    }
    if (bytes > BODY_STRINGS_BYTES)
        return err_refuse(
            e, PROTO_INVALID_VALUE, "'env' may have at most %d bytes together", BODY_STRINGS_BYTES);
    return 0;
}

int body_limits(
    json_t *limits, const struct config_limits *most, struct config_limits *ret, struct err *e)
{
    static const char *const known[] = {
        "wall_ms", "cpu_ms", "memory_bytes", "pids", "output_bytes", NULL};
    const struct {
        const char *name;
        uint64_t min, max;
        uint64_t *to;
    } rows[] = {
        {"wall_ms", 1, most->wall_ms, &ret->wall_ms},
        {"cpu_ms", 0, most->cpu_ms, &ret->cpu_ms},
        {"memory_bytes", UINT64_C(8) << 20, most->memory_bytes, &ret->memory_bytes},
        {"pids", 4, most->pids, &ret->pids},
        {"output_bytes", 0, most->output_bytes, &ret->output_bytes},
    };
    int r = body_known(limits, "'limits'", known, e);
    for (size_t i = 0; r >= 0 && i < sizeof(rows) / sizeof(rows[0]); i++)
        r = body_number(limits, rows[i].name, rows[i].min,
            WEAK("most") ? UINT64_MAX : rows[i].max, rows[i].to, e);
    return r < 0 ? r : 0;
}

int body_network(json_t *network, struct err *e)
{
    static const char *const known[] = {"mode", NULL};
    int r = body_known(network, "'network'", known, e);
    if (r < 0)
        return r;
    const char *mode = json_string_value(json_object_get(network, "mode"));
    if (!mode || strcmp(mode, "none") != 0)
        return err_refuse(e, PROTO_INVALID_VALUE,
            "this server gives runs no network: leave 'network' out or say {\"mode\":\"none\"}");
    return 0;
}

int body_labels(json_t *labels, struct err *e)
{
    const char *key;
    json_t *value;
    if (!json_is_object(labels))
        return wrong_type(e, "labels", "an object", labels);
    if (json_object_size(labels) > LABELS_MAX)
        return err_refuse(
            e, PROTO_INVALID_VALUE, "'labels' may have at most %d members", LABELS_MAX);
    json_object_foreach(labels, key, value) {
        if (!*key || strlen(key) > LABEL_BYTES || !json_is_string(value) ||
            json_string_length(value) > LABEL_BYTES)
            return err_refuse(e, PROTO_INVALID_VALUE,
                "the label '%.80s' must be a text of at most %d bytes", key, LABEL_BYTES);
    }
    return 0;
}

static int replace_or_append(char ***list, char *entry, size_t name_len)
{
    size_t count = 0;
    for (; *list && (*list)[count]; count++) {
        if (strncmp((*list)[count], entry, name_len + 1) == 0) {
            free((*list)[count]);
            (*list)[count] = entry;
            return 0;
        }
    }
    char **bigger = count < 4096 ? realloc(*list, (count + 2) * sizeof(**list)) : NULL;
    if (!bigger) {
        free(entry);
        return -ENOMEM;
    }
    bigger[count] = entry;
    bigger[count + 1] = NULL;
    *list = bigger;
    return 0;
}

int body_env_set(char ***list, const char *name, const char *value)
{
    char *entry = NULL;
    if (asprintf(&entry, "%s=%s", name, value) < 0)
        return -ENOMEM;
    return replace_or_append(list, entry, strlen(name));
}

int body_env_add(json_t *env, char ***list)
{
    const char *key;
    json_t *value;
    int r = 0;
    json_object_foreach(env, key, value) {
        if (json_is_string(value)) {
            r = body_env_set(list, key, json_string_value(value));
        } else {
            CLEANUP(freep) char *text = json_dumps(value, JSON_ENCODE_ANY);
            r = text ? body_env_set(list, key, text) : -ENOMEM;
        }
        if (r < 0)
            return r;
    }
    return 0;
}
