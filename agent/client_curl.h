/* SPDX-License-Identifier: MIT */
/*
 * libcurl, loaded when the first request is made: it brings some thirty libraries with it, which
 * cost more time to load than most commands take, and a command that goes through the watcher
 * needs none of them. Used by client.c and client_call.c only.
 *
 * Each member is libcurl's function of the same name without its `curl_`.
 */
#ifndef AGENT_CLIENT_CURL_H
#define AGENT_CLIENT_CURL_H

#include <curl/curl.h>
#include <stdbool.h>

#include "shared/err.h"

struct client_curl {
    CURLcode (*global_init)(long flags);
    void (*global_cleanup)(void);
    CURL *(*easy_init)(void);
    void (*easy_cleanup)(CURL *easy);
    CURLcode (*easy_setopt)(CURL *easy, CURLoption option, ...);
    CURLcode (*easy_getinfo)(CURL *easy, CURLINFO info, ...);
    CURLcode (*easy_pause)(CURL *easy, int bits);
    const char *(*easy_strerror)(CURLcode code);
    struct curl_slist *(*slist_append)(struct curl_slist *list, const char *text);
    void (*slist_free_all)(struct curl_slist *list);
    CURLM *(*multi_init)(void);
    CURLMcode (*multi_cleanup)(CURLM *multi);
    CURLMcode (*multi_add_handle)(CURLM *multi, CURL *easy);
    CURLMcode (*multi_remove_handle)(CURLM *multi, CURL *easy);
    CURLMcode (*multi_perform)(CURLM *multi, int *running);
    CURLMcode (*multi_poll)(
        CURLM *multi, struct curl_waitfd *fds, unsigned count, int timeout_ms, int *ready);
    CURLMsg *(*multi_info_read)(CURLM *multi, int *left);
    const char *(*multi_strerror)(CURLMcode code);
};

/* Load the library and initialise it. Without tls GnuTLS, whose self-tests are most of the cost,
 * stays as it is: only http:// may be asked for then. -ENOENT with a sentence when the library or
 * one of its functions is missing. It stays loaded until the process ends. */
int client_curl_load(struct client_curl *curl, bool tls, struct err *e) WARN_UNUSED;

#endif
