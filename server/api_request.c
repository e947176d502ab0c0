/* SPDX-License-Identifier: MIT */
#include "server/api_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "shared/log.h"
#include "shared/num.h"
#include "shared/path.h"
#include "shared/text.h"

#include "shared/banned.h"

int api_read_json(struct call *call, json_t **ret, struct err *e)
{
    CLEANUP(buf_release) struct buf body;
    json_error_t where;
    buf_init(&body, call->api->c.config->json_bytes);
    int r = http_body_all(call->req, &body);
    if (r == -EFBIG)
        return err_refuse(e, PROTO_TOO_LARGE, "the body has more than %" PRIu64 " bytes",
            call->api->c.config->json_bytes);
    if (r < 0)
        return err_set(e, -r, "read the body");
    if (body.len == 0) {
        *ret = json_object();
        return *ret ? 0 : err_set(e, ENOMEM, "read the body");
    }
    *ret = json_loadb(buf_str(&body), body.len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &where);
    if (*ret)
        return 0;
    return err_refuse(e, PROTO_BAD_JSON, "the body is not JSON: %s (line %d, column %d)",
        where.text, where.line, where.column);
}

int api_sandbox(struct call *call, struct sandbox **ret, struct err *e)
{
    return sandbox_get(call->api->c.sandboxes, call->match.param[0], ret, e);
}

void api_delete_part(
    struct call *call, int (*remove)(struct sandbox *sb, const char *id, struct err *e))
{
    struct sandbox *sb = NULL;
    struct err e = ERR_INIT;
    int r = api_sandbox(call, &sb, &e);
    if (r == 0)
        r = remove(sb, call->match.param[1], &e);
    if (sb)
        sandbox_unref(sb);
    if (r < 0)
        api_fail(call->req, &e, NULL);
    else
        http_reply(call->req, 204, NULL, NULL, 0);
}

int api_query_number(
    struct call *call, const char *name, uint64_t max, uint64_t *ret, struct err *e)
{
    const char *text = http_query(call->req, name);
    if (text && num_u64(text, max, ret) < 0)
        return err_refuse(
            e, PROTO_INVALID_VALUE, "'%s' must be a whole number of at most %" PRIu64, name, max);
    return 0;
}

int api_query_bool(struct call *call, const char *name, bool *ret, struct err *e)
{
    const char *text = http_query(call->req, name);
    if (!text)
        return 0;
    if (strcmp(text, "true") != 0 && strcmp(text, "1") != 0 && strcmp(text, "false") != 0 &&
        strcmp(text, "0") != 0)
        return err_refuse(e, PROTO_INVALID_VALUE, "'%s' must be true or false", name);
    *ret = *text == 't' || *text == '1';
    return 0;
}

int api_check_path(const char *path, size_t len, bool root, struct err *e)
{
    if (root && len == 0)
        return 0;
    enum path_fault fault = path_check(path, len);
    if (fault == PATH_FINE)
        return 0;
    return err_refuse(e, PROTO_INVALID_PATH, "the path '%.200s' %s", path, path_fault_text(fault));
}

bool api_header_has(const char *value, const char *word)
{
    size_t len = strlen(word);
    for (const char *p = value; p && *p;) {
        p += strspn(p, ", \t");
        size_t item = strcspn(p, ",");
        size_t trimmed = item;
        const char *semicolon = memchr(p, ';', item);
        if (semicolon)
            trimmed = (size_t)(semicolon - p);
        while (trimmed > 0 && (p[trimmed - 1] == ' ' || p[trimmed - 1] == '\t'))
            trimmed--;
        if (trimmed == len && strncasecmp(p, word, len) == 0)
            return true;
        p += item;
    }
    return false;
}

static bool digits(const char *p, size_t len, uint64_t *ret)
{
    char text[24];
    if (len == 0 || len >= sizeof(text))
        return false;
    memcpy(text, p, len);
    text[len] = '\0';
    return num_u64(text, INT64_MAX, ret) == 0;
}

int api_range(const char *header, uint64_t size, uint64_t *ret_start, uint64_t *ret_len)
{
    uint64_t first = 0, last = 0;
    if (!header || strncmp(header, "bytes=", 6) != 0)
        return 0;
    const char *spec = header + 6, *dash = strchr(spec, '-');
    /* Several ranges, or none that can be read: the whole is a right answer, too (RFC 9110). */
    if (!dash || strchr(spec, ','))
        return 0;
    bool has_first = digits(spec, (size_t)(dash - spec), &first),
         has_last = digits(dash + 1, strlen(dash + 1), &last);
    if ((!has_first && dash != spec) || (!has_last && dash[1] != '\0') || (!has_first && !has_last))
        return 0;
    if (!has_first) {
        if (last == 0 || size == 0)
            return -ERANGE;
        first = last < size ? size - last : 0;
        last = size - 1;
    } else if (!has_last || last >= size) {
        last = size ? size - 1 : 0;
    }
    if (first >= size)
        return -ERANGE;
    if (first > last)
        return 0;
    *ret_start = first;
    *ret_len = last - first + 1;
    return 1;
}

const char *api_kind_name(enum tree_kind kind)
{
    static const char *const names[] = {[TREE_FILE] = "file",
        [TREE_DIR] = "dir",
        [TREE_SYMLINK] = "symlink",
        [TREE_OTHER] = "other"};
    return names[kind];
}

void api_etag(const struct hash *hash, char out[HASH_TEXT_BYTES + 2])
{
    char text[HASH_TEXT_BYTES];
    (void)snprintf(out, HASH_TEXT_BYTES + 2, "\"%s\"", hash_text(hash, text));
}

int api_last_event(struct call *call, uint64_t max, uint64_t *ret, struct err *e)
{
    const char *text = http_header(call->req, "Last-Event-ID");
    if (!text || !*text)
        text = http_query(call->req, "after");
    if (!text || !*text)
        return 0;
    if (num_u64(text, max, ret) == 0)
        return 1;
    return err_refuse(e, PROTO_INVALID_VALUE,
        "Last-Event-ID (or 'after') must be the id of an event that was received");
}

void api_reply_file(struct call *call, int fd, uint64_t size, const char *type)
{
    uint64_t start = 0, len = size;
    char text[96];
    int r = api_range(http_header(call->req, "Range"), size, &start, &len);
    http_add_header(call->req, "Accept-Ranges", "bytes");
    /* Their authors are whoever ran code: nothing of it may act in a browser. */
    http_add_header(call->req, "Content-Security-Policy", "sandbox; default-src 'none'");
    if (r == -ERANGE) {
        struct err e = ERR_INIT;
        (void)close(fd);
        (void)snprintf(text, sizeof(text), "bytes */%" PRIu64, size);
        http_add_header(call->req, "Content-Range", text);
        (void)err_refuse(&e, PROTO_BAD_RANGE,
            "the range lies beyond the end: there are %" PRIu64 " bytes", size);
        api_fail(call->req, &e, NULL);
        return;
    }
    if (r == 1) {
        (void)snprintf(text, sizeof(text), "bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64, start,
            start + len - 1, size);
        http_add_header(call->req, "Content-Range", text);
    }
    http_reply_fd(call->req, r == 1 ? 206 : 200, type, fd, start, len);
}

json_t *api_near(struct sandbox *sb, const char *path)
{
    char *near[API_NEAR_MAX];
    size_t count = sandbox_near_names(sb, path, near, API_NEAR_MAX);
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        CLEANUP(buf_release) struct buf readable;
        buf_init(&readable, 4 * PATH_BYTES_MAX);
        if (list && text_add_readable(&readable, near[i], strlen(near[i])) == 0)
            err_ignore(json_array_append_new(list, json_string(buf_str(&readable))));
        free(near[i]);
    }
    return list ? json_pack("{s:o}", "near", list) : NULL;
}

int api_put_path(json_t *object, const char *name, const char *path)
{
    CLEANUP(buf_release) struct buf readable;
    CLEANUP(buf_release) struct buf coded;
    char exact[32];
    size_t len = strlen(path);
    buf_init(&readable, 4 * PATH_BYTES_MAX);
    buf_init(&coded, 4 * PATH_BYTES_MAX);
    if (text_is_utf8(path, len))
        return json_object_set_new_nocheck(object, name, json_stringn_nocheck(path, len)) < 0
                   ? -ENOMEM
                   : 0;
    (void)snprintf(exact, sizeof(exact), "%s_base64", name);
    if (text_add_readable(&readable, path, len) < 0 || text_add_base64(&coded, path, len) < 0 ||
        json_object_set_new(object, name, json_string(buf_str(&readable))) < 0 ||
        json_object_set_new(object, exact, json_string(buf_str(&coded))) < 0)
        return -ENOMEM;
    return 0;
}

int api_thread(struct api *api, void *(*main)(void *), void *ctx, struct err *e)
{
    pthread_t thread;
    pthread_attr_t attr;
    (void)pthread_mutex_lock(&api->lock);
    bool room = api->threads < API_THREADS_MAX && !atomic_load(&api->stopping);
    if (room)
        api->threads++;
    (void)pthread_mutex_unlock(&api->lock);
    if (!room)
        return err_refuse(
            e, PROTO_BUSY, "too many clients are following runs: try again in a moment");
    (void)pthread_attr_init(&attr);
    (void)pthread_attr_setstacksize(&attr, 256 * 1024);
    (void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    int r = pthread_create(&thread, &attr, main, ctx);
    (void)pthread_attr_destroy(&attr);
    if (r == 0)
        return 0;
    api_thread_ended(api);
    return err_set(e, r, "start a thread");
}

void api_thread_ended(struct api *api)
{
    (void)pthread_mutex_lock(&api->lock);
    api->threads--;
    (void)pthread_cond_broadcast(&api->less);
    (void)pthread_mutex_unlock(&api->lock);
}
