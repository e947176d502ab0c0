/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the HTTP module share; nobody else includes this.
 *
 *   http.c          the daemon: start, stop, and the callbacks of libmicrohttpd's threads
 *   http_request.c  a request's life, its headers, its query; what is refused as ambiguous
 *   http_body.c     the body between the socket and the handler, zstd
 *   http_answer.c   replies and streams
 *   http_conn.c     the table of connections and the thread that watches them
 *   http_pool.c     the worker threads
 *   http_ring.c     a bounded byte queue
 *
 * Locks. `conns.lock` guards the table of connections, `http_request.lock` one request. Order:
 * conns.lock before a request's lock; libmicrohttpd's own locks come after both, except that a
 * response's mutex is held around stream_reader: so nothing of a MHD_Response is touched while a
 * request's lock is held.
 *
 * Suspending. A connection is suspended by its own I/O thread, with the request's lock held and
 * `suspended` set; whoever has something for it clears `suspended` and resumes it, under the same
 * lock. Thus it is resumed exactly once per suspension, and never after libmicrohttpd has let go of
 * it (`mhd` is NULL then). Once `cutting` is set nothing is suspended any more, since
 * MHD_stop_daemon must not meet a suspended connection.
 */
#ifndef SERVER_HTTP_INTERNAL_H
#define SERVER_HTTP_INTERNAL_H

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <zstd.h>

#include "server/http.h"
#include "server/http_pool.h"
#include "server/http_ring.h"

#define HTTP_COLLECT_BYTES (256U * 1024U) /* body collected before the handler; window beyond */
#define HTTP_STREAM_BYTES (1024U * 1024U) /* of a stream that wait for a slow client */
#define HTTP_POOL_BYTES (64U * 1024U)     /* libmicrohttpd's memory per connection */
#define HTTP_HEAD_BYTES (32U * 1024U)     /* request line and headers */
#define HTTP_HEADERS_MAX 100U             /* of a request */
#define HTTP_QUERY_MAX 32U                /* parameters */
#define HTTP_ANSWER_HEADERS_MAX 32U       /* added by a handler */
#define HTTP_ANSWER_HEADER_BYTES (16U * 1024U) /* all of them together */
#define HTTP_EARLY_BYTES (8U * 1024U)          /* an answer sent before the body's end */
#define HTTP_LINGER_BYTES                                                                          \
    (16U * 1024U * 1024U) /* discarded after such an answer, and for how long */
#define HTTP_LINGER_MS 2000U
#define HTTP_PROGRESS_BYTES (64U * 1024U) /* less than this is no progress of a body */
#define HTTP_TICK_MS 200U                 /* how often deadlines are looked at */
#define HTTP_ZSTD_WINDOW_LOG 23           /* 8 MiB */
#define HTTP_ID_BYTES 32U                 /* "req_" and 26 characters */

struct http_field {
    const char *name, *value;
};

/* A slot in the table of connections. */
struct http_conn {
    struct http_server *server;
    struct http_conn *next_free;
    struct http_request *req; /* begun and not completed; guarded by conns.lock */
    uint64_t idle_since_ns;   /* guarded by conns.lock */
    struct sockaddr_storage peer, local;
    int64_t mark; /* http_connection_mark: I/O thread only */
    uint32_t index, generation;
    int fd;    /* -1: free; libmicrohttpd owns it */
    bool gone; /* the peer has closed its end; guarded by conns.lock */
};

struct http_conns {
    pthread_mutex_t lock;
    pthread_cond_t quiet; /* active fell to 0 */
    struct http_conn *slots, *free;
    unsigned slot_count, active, open;
    unsigned high; /* no slot from here on is in use */
    int epoll_fd, wake_fd;
    pthread_t watcher;
    bool watching;
};

struct http_server {
    struct http_config config;
    struct MHD_Daemon *daemon;
    struct http_pool *pool;
    struct http_conns conns;
    atomic_uint refs; /* one, and one per request: a kept request may outlive http_server_stop */
    atomic_uint_fast64_t requests;
    atomic_bool stopping, cutting;
    uint16_t port;
    int listen_fd;
};

enum http_answer_kind { ANSWER_NONE, ANSWER_WHOLE, ANSWER_STREAM };

struct http_request {
    struct http_server *server;
    struct http_conn *conn; /* valid while mhd is set */
    atomic_uint refs;       /* memory: libmicrohttpd's, a response's, and one for all users */
    atomic_uint users;      /* the gate's or handler's, and http_ref's */
    struct http_job job;

    /* What was asked; fixed once the headers were read. */
    char id[HTTP_ID_BYTES];
    enum http_method method;
    bool begun, expects_continue, chunked;
    bool unframed; /* where the body ends is in doubt: never reuse the connection */
    char *target;  /* path, NUL, query */
    char *query_text;
    char *head_text;
    struct http_field *headers, *query;
    size_t header_count, query_count;
    struct sockaddr_storage peer, local;
    void *note;
    void (*note_drop)(void *);

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t cond;  /* any of it changed for a waiting reader, writer or http_on_close */
    struct MHD_Connection *mhd;
    bool suspended;
    bool gone;      /* nobody is there to read the answer */
    bool completed; /* libmicrohttpd is done with the request */

    uint64_t body_length; /* declared; UINT64_MAX: chunked */
    uint64_t body_limit, body_received;
    uint64_t progress_bytes, progress_ns;
    bool body_complete, dispatched;
    int body_error; /* 0 or -errno for http_body_read, once `in` is empty */
    struct http_ring in;
    /* Only http_body_read's thread touches these. */
    ZSTD_DStream *zstd;
    uint8_t *zstd_in;
    size_t zstd_in_len, zstd_in_pos;
    uint64_t decoded;
    bool zstd_mid_frame;

    enum http_answer_kind kind; /* who has taken on to answer */
    int status;
    struct MHD_Response *response; /* ready, not yet queued */
    char *early;                   /* or: bytes for the socket before the body's end */
    size_t early_len;
    bool early_sent;
    uint64_t linger_ns, linger_bytes;
    struct http_field *extra; /* headers added for the answer */
    size_t extra_count, extra_bytes;
    struct http_ring out;
    bool ended, aborted; /* the stream's writer is done; it must not look complete */

    void (*close_fn)(void *);
    void *close_ctx;
    pthread_t close_thread;
    bool close_running;
};

/* http.c */
void http_server_unref(struct http_server *s);
/* With req->lock held: let the I/O thread look at the request again. */
void http_wake_io(struct http_request *req);
/* On the connection's I/O thread, req->lock held. False: the server is being cut off. */
bool http_suspend(struct http_request *req);

/* http_request.c */
struct http_request *http_request_new(struct http_server *s, const char *target);
void http_request_drop(struct http_request *req);
/* Copy and check the head. 0, or -EBADMSG with a sentence in *ret_why (and req->unframed where the
 * body cannot be trusted to end where it seems to). */
int http_request_read_head(struct http_request *req, struct MHD_Connection *mhd, const char *method,
    const char *version, const char **ret_why) WARN_UNUSED;
/* Call on_close's function, if there is one and the answer is not complete. */
void http_request_fire_close(struct http_request *req);

/* http_body.c */
/* Bytes from the socket, on the I/O thread with req->lock held; returns how many were taken. All of
 * them, unless the window is full. */
size_t http_body_put(struct http_request *req, const void *data, size_t len);
void http_body_release(struct http_request *req);

/* http_answer.c */
/* With req->lock held: send `early` to fd and shut its sending side. */
void http_answer_send_early(struct http_request *req, int fd);
/* With req->lock held: has everything been said that will be said? */
bool http_answer_given(const struct http_request *req);
/* With req->lock held, nobody having answered: make a plain error answer that closes. */
void http_answer_make_early(struct http_request *req, enum proto_error code, const char *message);
void http_answer_release(struct http_request *req);

/* http_conn.c */
int http_conns_start(struct http_server *s, struct err *e) WARN_UNUSED;
void http_conns_stop(struct http_server *s);
void http_conns_release(struct http_server *s);
/* libmicrohttpd's MHD_NotifyConnectionCallback. */
void http_conns_notify(void *server, struct MHD_Connection *mhd, void **slot,
    enum MHD_ConnectionNotificationCode code);
/* The request begins on its connection; the client may already have gone. */
void http_conn_attach(struct http_conn *conn, struct http_request *req);
void http_conn_detach(struct http_conn *conn);
/* Wait until no request is active, at most ms; then cut those that are left. */
void http_conns_drain(struct http_server *s, uint32_t ms);

#endif
