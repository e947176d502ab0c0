/* SPDX-License-Identifier: MIT */
#include "server/http_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <string.h>
#include <strings.h>

#include "shared/io.h"
#include "shared/log.h"
#include "shared/text.h"

#include "shared/banned.h"

/* ---- waking and suspending */

void http_wake_io(struct http_request *req)
{
    if (!req->suspended || !req->mhd)
        return;
    req->suspended = false;
    MHD_resume_connection(req->mhd);
}

bool http_suspend(struct http_request *req)
{
    if (atomic_load(&req->server->cutting))
        return false;
    req->suspended = true;
    MHD_suspend_connection(req->mhd);
    return true;
}

/* ---- handlers on worker threads */

static struct http_request *request_of(struct http_job *job)
{
    return (struct http_request *)(void *)((char *)job - offsetof(struct http_request, job));
}

static void run_handler(struct http_job *job)
{
    struct http_request *req = request_of(job);
    req->server->config.handler(req, req->server->config.ctx);
    http_unref(req);
}

static void drop_handler(struct http_job *job)
{
    http_unref(request_of(job));
}

/* On the I/O thread, without the lock. The gate's reference becomes the handler's. */
static void dispatch(struct http_request *req)
{
    pthread_mutex_lock(&req->lock);
    req->dispatched = true;
    req->job.slow = req->job.slow || !req->body_complete;
    pthread_mutex_unlock(&req->lock);
    if (http_pool_push(req->server->pool, &req->job) == 0)
        return;
    pthread_mutex_lock(&req->lock);
    req->dispatched = false;
    pthread_mutex_unlock(&req->lock);
    http_reply_error(req, PROTO_UNAVAILABLE, "The server is too busy; try again in a moment.");
}

/* ---- libmicrohttpd's callbacks, all on the connection's own I/O thread */

static void *on_request_line(void *cls, const char *target, struct MHD_Connection *mhd)
{
    (void)mhd;
    return http_request_new(cls, target);
}

/* Paths are handed on as they were sent. */
static size_t keep_escapes(void *cls, struct MHD_Connection *mhd, char *text)
{
    (void)cls;
    (void)mhd;
    return strlen(text);
}

/* With req->lock held: take the answer out, to be queued or destroyed without the lock. */
static struct MHD_Response *take_response(struct http_request *req)
{
    struct MHD_Response *response = req->response;
    req->response = NULL;
    return response;
}

static enum MHD_Result queue(struct http_request *req, struct MHD_Response *response)
{
    enum MHD_Result r = MHD_queue_response(req->mhd, (unsigned)req->status, response);
    MHD_destroy_response(response); /* our reference */
    return r;
}

/* Everything that is known before the body; answers, or lets the body come. */
static void admit(struct http_request *req, const char *why)
{
    const struct http_config *config = &req->server->config;
    uint64_t max_body = 0;
    if (why) {
        http_reply_error(req, PROTO_BAD_REQUEST, why);
        return;
    }
    if (atomic_load(&req->server->stopping)) {
        http_reply_error(req, PROTO_UNAVAILABLE, "The server is stopping.");
        return;
    }
    if (!config->gate(req, &max_body, config->ctx)) {
        if (req->kind == ANSWER_NONE)
            http_reply_error(req, PROTO_INTERNAL, "The server refused without saying why.");
        return;
    }
    const char *coding = http_header(req, "Content-Encoding");
    if (!req->chunked && req->body_length > max_body) {
        http_reply_error(req, PROTO_TOO_LARGE, "The request's body is too large.");
    } else if (coding && strcasecmp(coding, "zstd") != 0 && strcasecmp(coding, "identity") != 0) {
        http_reply_error(
            req, PROTO_UNSUPPORTED_TYPE, "The only content coding understood is zstd.");
    } else {
        pthread_mutex_lock(&req->lock);
        req->body_limit = max_body;
        pthread_mutex_unlock(&req->lock);
        /* Who does not say how much will come may be making it meanwhile: begin with what is there. */
        if (req->chunked || req->body_length > HTTP_COLLECT_BYTES)
            dispatch(req);
    }
}

/* The first call: the head is there, nothing of the body was looked at. */
static enum MHD_Result begin(
    struct http_request *req, struct MHD_Connection *mhd, const char *method, const char *version)
{
    const union MHD_ConnectionInfo *slot =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    if (!slot || !slot->socket_context || atomic_load(&req->server->cutting))
        return MHD_NO;
    const char *why = NULL;
    req->begun = true;
    req->mhd = mhd;
    req->conn = slot->socket_context;
    req->peer = req->conn->peer;
    req->local = req->conn->local;
    req->progress_ns = io_now_ns();
    text_id("req_", req->id, sizeof(req->id));
    (void)!http_request_read_head(req, mhd, method, version, &why);
    req->body_complete = req->body_length == 0 && !req->unframed;
    http_conn_attach(req->conn, req);
    admit(req, why);

    struct MHD_Response *response = NULL;
    pthread_mutex_lock(&req->lock);
    /* Only here can a response be queued before the body; but then the connection is closed, and
     * reset if the client has sent some of it: so only for a client that waits to be told. */
    if (req->early)
        http_answer_send_early(req, req->conn->fd);
    else if (req->expects_continue && !req->body_complete)
        response = take_response(req);
    pthread_mutex_unlock(&req->lock);
    return response ? queue(req, response) : MHD_YES;
}

/* A piece of the body. */
static enum MHD_Result body_piece(struct http_request *req, const char *data, size_t *size)
{
    enum MHD_Result r = MHD_YES;
    bool start = false, too_large = false;
    pthread_mutex_lock(&req->lock);
    if (req->early && !req->early_sent)
        http_answer_send_early(req, req->conn->fd);
    if (req->early_sent) {
        req->linger_bytes += *size;
        *size = 0;
    } else {
        *size -= http_body_put(req, data, *size);
        bool waiting = req->kind == ANSWER_NONE && !req->dispatched;
        too_large = waiting && req->body_error;
        start = waiting && !too_large && *size > 0;
        if (*size > 0 && !http_suspend(req))
            r = MHD_NO;
    }
    if (req->linger_bytes > HTTP_LINGER_BYTES)
        r = MHD_NO;
    pthread_mutex_unlock(&req->lock);
    if (r == MHD_YES && too_large)
        http_reply_error(req, PROTO_TOO_LARGE, "The request's body is too large.");
    else if (r == MHD_YES && start)
        dispatch(req);
    return r;
}

/* The body is complete, or somebody woke us because there is an answer. */
static enum MHD_Result whole(struct http_request *req)
{
    struct MHD_Response *response = NULL;
    bool start = false, close = false;
    pthread_mutex_lock(&req->lock);
    if (!req->body_complete) {
        req->body_complete = true;
        pthread_cond_broadcast(&req->cond);
    }
    if (req->early && !req->early_sent)
        http_answer_send_early(req, req->conn->fd);
    response = take_response(req);
    if (req->early_sent || (req->aborted && !response)) {
        close = true;
    } else if (!response) {
        start = req->kind == ANSWER_NONE && !req->dispatched;
        close = !http_suspend(req);
    }
    pthread_mutex_unlock(&req->lock);
    if (response)
        return queue(req, response);
    if (start && !close)
        dispatch(req);
    return close ? MHD_NO : MHD_YES;
}

static enum MHD_Result on_access(void *cls, struct MHD_Connection *mhd, const char *url,
    const char *method, const char *version, const char *data, size_t *size, void **context)
{
    struct http_request *req = *context;
    (void)cls;
    (void)url;
    if (!req)
        return MHD_NO; /* out of memory at the request line */
    if (!req->begun)
        return begin(req, mhd, method, version);
    return *size > 0 ? body_piece(req, data, size) : whole(req);
}

static void on_completed(
    void *cls, struct MHD_Connection *mhd, void **context, enum MHD_RequestTerminationCode code)
{
    struct http_request *req = *context;
    (void)cls;
    (void)mhd;
    if (!req)
        return;
    *context = NULL;
    if (req->begun) {
        http_conn_detach(req->conn);
        pthread_mutex_lock(&req->lock);
        bool left = code != MHD_REQUEST_TERMINATED_COMPLETED_OK && !req->early_sent;
        struct MHD_Response *response = take_response(req);
        req->completed = true;
        req->mhd = NULL;
        req->gone = req->gone || left;
        if (!req->body_complete && !req->body_error)
            req->body_error = -ECONNRESET;
        pthread_cond_broadcast(&req->cond);
        pthread_mutex_unlock(&req->lock);
        if (response)
            MHD_destroy_response(response);
        if (left)
            http_request_fire_close(req);
    }
    if (!req->dispatched)
        http_unref(req);
    http_request_drop(req);
}

static void on_log(void *cls, const char *fmt, va_list ap)
{
    CLEANUP(buf_release) struct buf b;
    (void)cls;
    buf_init(&b, 1024);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    if (buf_addv(&b, fmt, ap) < 0)
        return;
#pragma GCC diagnostic pop
    while (b.len > 0 && b.data[b.len - 1] == '\n')
        b.data[--b.len] = '\0';
    log_debug("http: %s", buf_str(&b));
}

/* ---- start and stop */

static int listen_on(struct http_server *s, struct err *e)
{
    char port[8];
    struct addrinfo *found = NULL;
    const struct addrinfo hints = {
        .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE, .ai_socktype = SOCK_STREAM};
    (void)snprintf(port, sizeof(port), "%u", (unsigned)s->config.port);
    if (getaddrinfo(s->config.host, port, &hints, &found) != 0)
        return err_say(e, EINVAL, "'%s' is not a numeric address", s->config.host);
    const int on = 1;
    struct sockaddr_storage bound;
    socklen_t len = sizeof(bound);
    int r = 0;
    s->listen_fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s->listen_fd < 0 ||
        setsockopt(s->listen_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
        setsockopt(s->listen_fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0 ||
        bind(s->listen_fd, found->ai_addr, found->ai_addrlen) < 0 ||
        listen(s->listen_fd, 1024) < 0 ||
        getsockname(s->listen_fd, (struct sockaddr *)&bound, &len) < 0)
        r = err_set(e, errno, "listen on %s port %s", s->config.host, port);
    else
        s->port =
            ntohs(bound.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)(void *)&bound)->sin6_port
                                              : ((struct sockaddr_in *)(void *)&bound)->sin_port);
    freeaddrinfo(found);
    return r;
}

static int start_daemon(struct http_server *s, struct err *e)
{
    const struct http_config *c = &s->config;
    /* libmicrohttpd's inactivity timeout covers a client that stops reading; the watcher ends idle
     * connections and slow bodies sooner, and says so where it can. */
    uint32_t longest_ms =
        c->idle_timeout_ms > c->body_deadline_ms ? c->idle_timeout_ms : c->body_deadline_ms;
    struct MHD_OptionItem pool[] = {
        {MHD_OPTION_THREAD_POOL_SIZE, (intptr_t)c->io_threads, NULL},
        {MHD_OPTION_END, 0, NULL},
    };
    if (c->io_threads < 2)
        pool[0] = pool[1];
    s->daemon = MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL,
        on_access, s, MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL, MHD_OPTION_LISTEN_SOCKET,
        s->listen_fd, MHD_OPTION_CONNECTION_LIMIT, c->max_connections,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HTTP_POOL_BYTES, MHD_OPTION_CONNECTION_TIMEOUT,
        longest_ms / 1000 + 2, MHD_OPTION_NOTIFY_CONNECTION, http_conns_notify, s,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, s, MHD_OPTION_URI_LOG_CALLBACK, on_request_line,
        s, MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL, MHD_OPTION_STRICT_FOR_CLIENT, 0,
        MHD_OPTION_ARRAY, pool, MHD_OPTION_END);
    if (s->daemon)
        return 0;
    s->listen_fd = -1; /* the library has closed it, or it may: a leak is the lesser evil */
    return err_say(e, EIO, "the HTTP library did not start");
}

/* The threads inherit the mask: signals are for the main thread. */
static int start_threads(struct http_server *s, struct err *e)
{
    static const struct http_pool_ops ops = {.run = run_handler, .drop = drop_handler};
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_BLOCK, &all, &before);
    int r = http_pool_new(s->config.worker_threads, &ops, &s->pool, e);
    if (r == 0)
        r = http_conns_start(s, e);
    if (r == 0)
        r = start_daemon(s, e);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return r;
}

int http_server_start(const struct http_config *config, struct http_server **ret, struct err *e)
{
    if (!config->gate || !config->handler || config->worker_threads == 0 ||
        config->io_threads == 0 || config->max_connections == 0)
        return err_say(
            e, EINVAL, "the HTTP server needs a gate, a handler, threads and connections");
    struct http_server *s = calloc(1, sizeof(*s));
    if (!s)
        return err_set(e, ENOMEM, "HTTP server");
    s->config = *config;
    s->listen_fd = s->conns.epoll_fd = s->conns.wake_fd = -1;
    atomic_init(&s->refs, 1);
    int r = listen_on(s, e);
    if (r == 0)
        r = start_threads(s, e);
    s->config.host = NULL; /* the caller's */
    if (r < 0) {
        http_server_stop(s, 0);
        return r;
    }
    *ret = s;
    return 0;
}

uint16_t http_server_port(const struct http_server *s)
{
    return s->port;
}

void http_server_stats(
    const struct http_server *s, uint64_t *ret_requests, uint64_t *ret_connections)
{
    struct http_server *m =
        (struct http_server *)(uintptr_t)s; /* the lock is not part of the value */
    *ret_requests = atomic_load(&m->requests);
    pthread_mutex_lock(&m->conns.lock);
    *ret_connections = m->conns.open;
    pthread_mutex_unlock(&m->conns.lock);
}

void http_server_stop(struct http_server *s, uint32_t grace_ms)
{
    if (!s)
        return;
    atomic_store(&s->stopping, true);
    if (s->daemon) {
        (void)MHD_quiesce_daemon(s->daemon);
        http_conns_drain(s, grace_ms);
    }
    if (s->pool)
        http_pool_stop(s->pool);
    http_conns_stop(s);
    if (s->daemon)
        MHD_stop_daemon(s->daemon);
    if (s->listen_fd >= 0)
        (void)close(s->listen_fd);
    http_conns_release(s);
    http_pool_free(s->pool);
    s->pool = NULL;
    http_server_unref(s);
}

/* Requests that are still kept hold the structure, not the threads. */
void http_server_unref(struct http_server *s)
{
    if (atomic_fetch_sub(&s->refs, 1) == 1)
        free(s);
}
