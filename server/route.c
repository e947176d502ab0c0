/* SPDX-License-Identifier: MIT */
#include "server/route.h"

#include <errno.h>
#include <string.h>

#include "shared/path.h"
#include "shared/text.h"

#include "shared/banned.h"

static int take_param(const char *text, size_t len, struct route_match *ret, size_t *count)
{
    CLEANUP(buf_release) struct buf decoded;
    buf_init(&decoded, 4 * PATH_BYTES_MAX);
    if (*count == ROUTE_PARAMS)
        return -EINVAL;
    int r = text_decode_percent(text, len, &decoded);
    if (r < 0)
        return r == -ENOBUFS ? -EINVAL : r;
    ret->len[*count] = decoded.len;
    ret->param[*count] = decoded.data ? buf_steal(&decoded) : strdup("");
    return ret->param[(*count)++] ? 0 : -ENOMEM;
}

static int match_parts(const char *pattern, const char *path, struct route_match *ret)
{
    size_t count = 0;
    while (*pattern) {
        if (*pattern != '{') {
            if (*pattern++ != *path++)
                return 0;
            continue;
        }
        const char *end = strchr(pattern, '}');
        bool rest = end - pattern > 3 && strncmp(end - 3, "...", 3) == 0;
        size_t len = rest ? strlen(path) : strcspn(path, "/");
        if (len == 0)
            return 0;
        int r = take_param(path, len, ret, &count);
        if (r < 0)
            return r;
        path += len;
        pattern = end + 1;
    }
    return *path == '\0';
}

int route_match(const char *pattern, const char *path, struct route_match *ret)
{
    *ret = (struct route_match){.param = {NULL}};
    int r = match_parts(pattern, path, ret);
    if (r != 1)
        route_match_release(ret);
    return r;
}

void route_match_release(struct route_match *m)
{
    for (size_t i = 0; i < ROUTE_PARAMS; i++)
        free(m->param[i]);
    *m = (struct route_match){.param = {NULL}};
}

const char *route_method_name(enum http_method method)
{
    static const char *const names[] = {
        [HTTP_GET] = "GET",
        [HTTP_HEAD] = "HEAD",
        [HTTP_POST] = "POST",
        [HTTP_PUT] = "PUT",
        [HTTP_PATCH] = "PATCH",
        [HTTP_DELETE] = "DELETE",
        [HTTP_OPTIONS] = "OPTIONS",
        [HTTP_OTHER] = "OTHER",
    };
    return names[method];
}
