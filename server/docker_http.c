/* SPDX-License-Identifier: MIT */
#include "server/docker_http.h"

#include <curl/curl.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/banned.h"

#define CONNECT_TIMEOUT_MS 5000L
#define HEAD_MAX (16 * 1024L)

/* Debian's, then that of others; either is compatible with the header. */
static const char *const libraries[] = {"libcurl-gnutls.so.4", "libcurl.so.4"};

struct docker_http {
    char *socket;
    /* curl_NAME */
    CURLcode (*global_init)(long flags);
    CURL *(*easy_init)(void);
    CURLcode (*easy_setopt)(CURL *curl, CURLoption option, ...);
    CURLcode (*easy_perform)(CURL *curl);
    CURLcode (*easy_getinfo)(CURL *curl, CURLINFO info, ...);
    void (*easy_cleanup)(CURL *curl);
    const char *(*easy_strerror)(CURLcode code);
    struct curl_slist *(*slist_append)(struct curl_slist *list, const char *text);
    void (*slist_free_all)(struct curl_slist *list);
};

static const struct {
    const char *name;
    size_t at;
} functions[] = {
#define FUNCTION(name)                                                                             \
    {                                                                                              \
        "curl_" #name, offsetof(struct docker_http, name)                                          \
    }
    FUNCTION(global_init),
    FUNCTION(easy_init),
    FUNCTION(easy_setopt),
    FUNCTION(easy_perform),
    FUNCTION(easy_getinfo),
    FUNCTION(easy_cleanup),
    FUNCTION(easy_strerror),
    FUNCTION(slist_append),
    FUNCTION(slist_free_all),
#undef FUNCTION
};

static int load(struct docker_http *h, struct err *e)
{
    void *library = NULL;
    for (size_t i = 0; !library && i < sizeof libraries / sizeof libraries[0]; i++)
        library = dlopen(libraries[i], RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!library)
        return err_say(
            e, ENOENT, "engine = docker needs libcurl: install the package libcurl3-gnutls");
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        void *function = dlsym(library, functions[i].name);
        if (!function)
            return err_say(e, ENOENT, "this libcurl has no function %s", functions[i].name);
        memcpy((char *)h + functions[i].at, &function, sizeof function);
    }
    return h->global_init(CURL_GLOBAL_NOTHING) == CURLE_OK
               ? 0
               : err_say(e, EIO, "libcurl cannot be initialised");
}

int docker_http_new(const char *socket, struct docker_http **ret, struct err *e)
{
    struct docker_http *h = calloc(1, sizeof *h);
    if (!h || !(h->socket = strdup(socket))) {
        free(h);
        return err_set(e, ENOMEM, "speak to docker");
    }
    int r = load(h, e);
    if (r < 0) {
        docker_http_free(h);
        return r;
    }
    *ret = h;
    return 0;
}

void docker_http_free(struct docker_http *h)
{
    if (!h)
        return;
    free(h->socket);
    free(h);
}

struct sink {
    struct buf *buf;
    bool full;
};

static size_t take_body(char *data, size_t size, size_t count, void *ctx)
{
    struct sink *sink = ctx;
    size_t len = size * count;
    if (sink->buf->len + len > DOCKER_ANSWER_MAX || buf_add(sink->buf, data, len) < 0) {
        sink->full = true;
        return 0;
    }
    return len;
}

static int explain(const struct docker_http *h, CURLcode code, bool full, struct err *e)
{
    if (full)
        return err_say(e, EMSGSIZE, "docker at '%s' answers with more than it should", h->socket);
    if (code == CURLE_COULDNT_CONNECT)
        return err_say(e, ECONNREFUSED,
            "no docker listens at '%s', or this user may not speak to it: start it, or set "
            "'docker_socket'",
            h->socket);
    return err_say(e, code == CURLE_OPERATION_TIMEDOUT ? ETIMEDOUT : EIO, "docker at '%s': %s",
        h->socket, h->easy_strerror(code));
}

int docker_http_call(const struct docker_http *h, const char *method, const char *path,
    const char *json, int timeout_ms, struct buf *answer, struct err *e)
{
    struct sink sink = {.buf = answer};
    char url[1024];
    long status = 0;
    if (snprintf(url, sizeof url, "http://docker%s", path) >= (int)sizeof url)
        return err_set(e, ENAMETOOLONG, "speak to docker");
    CURL *curl = h->easy_init();
    struct curl_slist *headers = h->slist_append(NULL, "Content-Type: application/json");
    CURLcode code = curl && headers ? CURLE_OK : CURLE_OUT_OF_MEMORY;
#define SET(option, value)                                                                         \
    if (code == CURLE_OK)                                                                          \
    code = h->easy_setopt(curl, option, value)
    SET(CURLOPT_UNIX_SOCKET_PATH, h->socket);
    SET(CURLOPT_URL, url);
    SET(CURLOPT_PROXY, "");
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_CUSTOMREQUEST, method);
    SET(CURLOPT_HTTPHEADER, headers);
    SET(CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS);
    SET(CURLOPT_TIMEOUT_MS, (long)timeout_ms);
    SET(CURLOPT_BUFFERSIZE, HEAD_MAX);
    SET(CURLOPT_WRITEFUNCTION, take_body);
    SET(CURLOPT_WRITEDATA, &sink);
    if (strcmp(method, "HEAD") == 0) {
        SET(CURLOPT_NOBODY, 1L);
    } else if (strcmp(method, "POST") == 0) {
        SET(CURLOPT_POSTFIELDS, json ? json : "");
    }
    if (code == CURLE_OK)
        code = h->easy_perform(curl);
    if (code == CURLE_OK)
        code = h->easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
#undef SET
    h->slist_free_all(headers);
    if (curl)
        h->easy_cleanup(curl);
    return code != CURLE_OK ? explain(h, code, sink.full, e) : (int)status;
}
