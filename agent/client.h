/* SPDX-License-Identifier: MIT */
/*
 * The agent's HTTP client: the only user of libcurl, which is loaded by the first request
 * (client_curl.c). Connections are kept; HTTP/1.1 is forced (7.88
 * busy-loops on HTTP/2 uploads), `Expect:` is empty. One thread.
 *
 * Two ways of use. A command that waits: client_call(). An event loop or two requests at once:
 * client_start() several, then client_step() until each has called its `done`.
 */
#ifndef AGENT_CLIENT_H
#define AGENT_CLIENT_H

#include <jansson.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "shared/buf.h"
#include "shared/err.h"

struct client;
struct client_call;

struct client_config {
    const char *server; /* "127.0.0.1:7458", "http://host:port", "https://…" */
    const char *token;  /* NULL = none */
};

int client_new(const struct client_config *config, struct client **ret, struct err *e) WARN_UNUSED;
void client_free(struct client *c);
const char *client_server(const struct client *c); /* normalised, "http://127.0.0.1:7458" */

#define CLIENT_PAUSE 1

struct client_request {
    const char *method; /* "GET", "POST", … */
    const char *path; /* "/v1/sandboxes/sb_…/exec"; percent-encoded by the caller where needed */
    const char *content_type;     /* of the body, or NULL */
    const char *content_encoding; /* "zstd" or NULL */
    const void *body;             /* borrowed until done; or: */
    size_t body_len;
    /* Streamed body: count, 0 at its end, -errno aborts. body_len UINT64_MAX-like unknown →
     * chunked. */
    ssize_t (*read_body)(void *ctx, void *data, size_t len);
    uint64_t stream_len;        /* with read_body: its length, UINT64_MAX if unknown */
    const char *const *headers; /* further "Name: value" lines, NULL-terminated, or NULL */
    uint32_t timeout_ms;        /* whole request; 0 = none (streams); connecting always has 5 s */
    /* Pieces of a 2xx response as they come; NULL: collected into client_response.body. Non-zero
     * aborts, but CLIENT_PAUSE: the piece was not taken, it comes again after client_resume. */
    int (*on_data)(void *ctx, const void *data, size_t len);
    void *ctx; /* for read_body and on_data */
};

struct client_response {
    int status;                          /* 0 if there was none: see the error */
    struct buf body;                     /* at most 64 MiB; everything unless on_data took it */
    char etag[96], run_id[40];           /* headers ETag and Silt-Run-Id, or "" */
    uint64_t bytes_sent, bytes_received; /* on the wire: headers and bodies */
    uint64_t elapsed_us;
    bool retryable;        /* from the error object, or a broken connection */
    char error_code[48];   /* "base_mismatch", …; "" if the answer was no error object */
    json_t *error_details; /* owned by the response, or NULL */
};
void client_response_release(struct client_response *r);

/*
 * Send and wait. 0 for a 2xx answer. Otherwise -errno and a sentence for the user: -ECONNREFUSED
 * when nobody listens (the sentence names the server and the command that starts one), -ETIMEDOUT,
 * -ECONNRESET; -EPROTO with e->refusal for an error object of the server, its message in e->msg.
 */
int client_call(struct client *c, const struct client_request *req, struct client_response *ret,
    struct err *e) WARN_UNUSED;

/* Begin without waiting. `done` is called from client_step, with the same code and error that
 * client_call would return; the response is released after it returns. The request's strings and
 * callbacks must live until then. */
typedef void client_done(
    void *ctx, int result, struct client_response *response, const struct err *e);
int client_start(struct client *c, const struct client_request *req, client_done *done,
    void *done_ctx, struct client_call **ret, struct err *e) WARN_UNUSED;
/* Drop a request that is under way; its done is not called. */
void client_abort(struct client *c, struct client_call *call);
/* The run that the head of its answer names, or "" (yet). */
const char *client_run_id(const struct client_call *call);
/* Go on with a request whose on_data returned CLIENT_PAUSE; may call it at once. */
void client_resume(struct client_call *call);
/* Wait at most timeout_ms for progress or for one of the caller's descriptors (POLLIN and POLLOUT are
 * asked for and told; a closed one ends the waiting);
 * run what is due. Returns how many of our requests are under way, or -errno. */
int client_step(struct client *c, struct pollfd *extra, unsigned extra_count, int timeout_ms,
    struct err *e) WARN_UNUSED;

/* Tell, once each time, of a server that has not answered for CLIENT_SILENCE_MS while a request is under
 * way and nothing of it moves; called from client_step. NULL: nobody. */
#define CLIENT_SILENCE_MS 3000
void client_on_silence(struct client *c, void (*tell)(void *ctx), void *ctx);

/* From at_ns on (io_now_ns; 0: never) client_step and client_call fail with -ETIMEDOUT. */
void client_deadline(struct client *c, uint64_t at_ns);

/* Parse a response body as a JSON object (new reference), duplicates rejected. */
json_t *client_json(const struct client_response *r, struct err *e);

#endif
