/* SPDX-License-Identifier: MIT */
/*
 * One request of agent/client.h under way: its state, what libcurl calls for it, and how its end is
 * told. Used by client.c only. One thread.
 */
#ifndef AGENT_CLIENT_CALL_H
#define AGENT_CLIENT_CALL_H

#include "agent/client.h"
#include "agent/client_curl.h"

struct client_call {
    struct client_request req; /* the caller's, with its pointers */
    struct client_response response;
    const struct client_curl *curl;
    const char *server; /* the client's, for sentences */
    CURL *easy;
    struct curl_slist *headers;
    char *url;
    uint64_t moved;                /* pieces that went either way */
    bool answered;                 /* a byte of the answer came */
    int aborted;                   /* -errno of a callback that gave up */
    char message[CURL_ERROR_SIZE]; /* libcurl's own words */
    client_done *done;
    void *done_ctx;
    struct client_call *next; /* in the client's list of those under way */
};

/* NULL when out of memory. curl and server must outlive it. */
struct client_call *client_call_new(
    const struct client_curl *curl, const char *server, const struct client_request *req);
void client_call_free(struct client_call *call);

/* Callbacks for libcurl, ctx = the call. */
size_t client_call_read(char *data, size_t size, size_t count, void *ctx);
size_t client_call_write(char *data, size_t size, size_t count, void *ctx);
size_t client_call_header(char *data, size_t size, size_t count, void *ctx);

/* Fill the response from the finished transfer; the code and error that client_call promises. */
int client_call_result(struct client_call *call, CURLcode code, struct err *e);

#endif
