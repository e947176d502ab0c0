/* SPDX-License-Identifier: MIT */
/*
 * HTTP/1.1 for the API: the only user of libmicrohttpd.
 *
 * Threads. libmicrohttpd's threads do nothing but move bytes; handlers run on a pool of worker
 * threads and may block on disk, SQLite or a request's body. A handler either answers before it
 * returns, or keeps the request (http_ref) and lets another thread answer later: a run's thread
 * writes its output into the response as it comes.
 *
 * Body. Up to 256 KiB are collected before the handler starts; a longer or chunked body is handed
 * over while it arrives, with back-pressure on the socket, so that memory stays bounded and
 * http_body_read may block. One deadline covers the whole body (http_config.body_deadline_ms since
 * the last progress of at least 64 KiB).
 *
 * Every request ends in exactly one of http_reply, http_reply_fd, or http_stream_begin … _end. A
 * request that a handler forgot is answered 500 and logged.
 *
 * An answer that is given while the body still comes: the rest is discarded and the connection kept
 * where at most 256 KiB are left, else the answer is sent at once and the connection closed.
 *
 * Every answer carries Silt-Protocol: 1 and X-Content-Type-Options: nosniff.
 *
 * Refused before a handler runs: more than one Content-Length, Content-Length together with
 * Transfer-Encoding, a transfer coding other than chunked, continued header lines, bare line feeds,
 * white space around a header's name, a missing or second Host, a declared body beyond the gate's
 * limit, a content coding other than zstd, more than 100 headers, a request line or header block
 * beyond 32 KiB. When 1,024 requests wait for a worker, the next one is answered 503.
 */
#ifndef SERVER_HTTP_H
#define SERVER_HTTP_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "shared/buf.h"
#include "shared/err.h"

struct http_server;
struct http_request;

enum http_method {
    HTTP_GET,
    HTTP_HEAD,
    HTTP_POST,
    HTTP_PUT,
    HTTP_PATCH,
    HTTP_DELETE,
    HTTP_OPTIONS,
    HTTP_OTHER
};

struct http_config {
    const char *host;        /* numeric address */
    uint16_t port;           /* 0: any free one, see http_server_port */
    unsigned io_threads;     /* libmicrohttpd's pool */
    unsigned worker_threads; /* most handlers at once */
    unsigned max_connections;
    uint32_t body_deadline_ms;
    uint32_t idle_timeout_ms; /* of a connection between requests */

    /* On the I/O thread, once the headers are there and before any body is read: must not block.
     * Return true and set *ret_max_body (bytes) to let the request through; or answer it with
     * http_reply and return false. Authentication and routing errors belong here. */
    bool (*gate)(struct http_request *req, uint64_t *ret_max_body, void *ctx);
    /* On a worker thread. */
    void (*handler)(struct http_request *req, void *ctx);
    void *ctx;
};

/* Bind, listen, start the threads. */
int http_server_start(
    const struct http_config *config, struct http_server **ret, struct err *e) WARN_UNUSED;
uint16_t http_server_port(const struct http_server *s);
/* Stop listening; wait until running handlers and kept requests have ended, at most grace_ms, then
 * cut the rest; stop the threads; free. */
void http_server_stop(struct http_server *s, uint32_t grace_ms);
/* For /metrics: requests answered so far, connections open now. */
void http_server_stats(
    const struct http_server *s, uint64_t *ret_requests, uint64_t *ret_connections);

/* ---- the request: valid while a reference is held; the handler holds one during its call */
void http_ref(struct http_request *req);
void http_unref(struct http_request *req);

enum http_method http_method(const struct http_request *req);
const char *http_path(
    const struct http_request *req); /* as sent, still percent-encoded, no query */
/* Decoded value ('+' is a space, as forms and most clients' libraries write it; a plus is %2B) of
 * the query's first parameter of that name, or NULL. */
const char *http_query(const struct http_request *req, const char *name);
const char *http_header(
    const struct http_request *req, const char *name); /* case-insensitive, or NULL */
const char *http_id(const struct http_request *req);   /* "req_…" unique, for logs and errors */
/* Address of the peer and the local end of the connection. */
const struct sockaddr_storage *http_peer(const struct http_request *req);
const struct sockaddr_storage *http_local(const struct http_request *req);
/* A number that lives as long as the connection and is -1 at its start, for the gate's own use:
 * what it found out about the peer need not be looked up for each request. Valid inside the gate
 * only. */
int64_t *http_connection_mark(struct http_request *req);
/* The gate's own note for the handler (an authenticated identity, a route), freed with `drop`. */
void http_set_note(struct http_request *req, void *note, void (*drop)(void *));
void *http_note(const struct http_request *req);
/* In the gate: whom the request is for (a sandbox, a run, a peer), so that requests for one keep
 * only a quarter of the worker threads while their bodies are still to come; see http_pool.h. Of
 * heavy ones that holds whatever their body is. */
void http_set_lane(struct http_request *req, const void *key, size_t len, bool heavy);

/* Declared length, or UINT64_MAX when chunked; 0 when there is none. */
uint64_t http_body_length(const struct http_request *req);
/* Blocks. Bytes, 0 at the end, -ECONNRESET when the client left or somebody answered before the
 * body's end (which gives up the rest of it), -ETIMEDOUT past the deadline,
 * -EFBIG when a chunked body passes the gate's limit. Content-Encoding: zstd is undone here (window
 * at most 8 MiB; the gate's limit counts the decoded bytes too); -EBADMSG for a bad zstd stream. */
ssize_t http_body_read(struct http_request *req, void *data, size_t len) WARN_UNUSED;
/* The whole body as text in b, which the caller initialised with its maximum. -EFBIG beyond it. */
int http_body_all(struct http_request *req, struct buf *b) WARN_UNUSED;

/* ---- the answer: any thread that holds a reference */

/* Add a header to the answer; before http_reply and friends. Values must hold no CR or LF (such a
 * header is dropped and logged). */
void http_add_header(struct http_request *req, const char *name, const char *value);

/* Answer with a body that is copied. content_type NULL: no body (204, 304). For HEAD the length is
 * sent without the body. A second answer is ignored and logged. */
void http_reply(
    struct http_request *req, int status, const char *content_type, const void *body, size_t len);

/* Answer with the row of shared/proto.h: its status and {"error":{"code","message","retryable",
 * "request_id"}}. The message is a sentence. "unavailable" and "busy" carry Retry-After: 1. */
void http_reply_error(struct http_request *req, enum proto_error code, const char *message);

/* Answer with len bytes of fd from offset (sendfile); takes fd, a regular file. A file that becomes
 * shorter meanwhile leaves the client with an incomplete answer, cut off after the idle time. */
void http_reply_fd(struct http_request *req, int status, const char *content_type, int fd,
    uint64_t offset, uint64_t len);

/* A response whose end is not known: headers go out at once, then what is written, chunked. */
int http_stream_begin(struct http_request *req, int status, const char *content_type) WARN_UNUSED;
/* Blocks while more than 1 MiB waits for a slow client, at most timeout_ms. 0, -EPIPE when the
 * client has gone, -ETIMEDOUT, -ENOMEM. A piece of at most 1 MiB is taken whole or, on an error,
 * not at all. For HEAD the bytes go nowhere. */
int http_stream_write(
    struct http_request *req, const void *data, size_t len, uint32_t timeout_ms) WARN_UNUSED;
void http_stream_end(struct http_request *req);

/* Call `gone` (from an I/O thread: must not block) when the client closes the connection, or its
 * sending half of it, before the answer is complete; at once, in the caller's thread, if it already
 * has. Called at most once. At most one per request; NULL to clear, after which it is not running
 * any more (from within `gone` itself that does not wait). */
void http_on_close(struct http_request *req, void (*gone)(void *ctx), void *ctx);

#endif
