/* SPDX-License-Identifier: MIT */
/*
 * A real server in this process and clients on raw sockets, for t_http*.c: a client sends bytes as
 * they are written in the test, and reads answers one by one, so that pipelining shows.
 */
#ifndef TESTS_UNIT_HTTP_FIXTURE_H
#define TESTS_UNIT_HTTP_FIXTURE_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "server/http.h"
#include "shared/io.h"
#include "shared/log.h"

/* Each test program uses its own part of this. */
#define FIXTURE static __attribute__((unused))

#define MIB (1024U * 1024U)
#define GIB (1024U * MIB)
#define PATIENCE_S 60 /* a guard against hanging for ever, not a measure */

/* ---- the server's side: what a handler does is chosen by the path */

struct route {
    const char *path;
    uint64_t max_body;
    void (*handle)(struct http_request *req);
};

/* What handlers and the test tell each other. */
static struct {
    struct http_server *server;
    const struct route *routes;
    struct http_request *kept; /* by the last handler that kept its request */
    sem_t arrived;             /* a handler has kept its request, or runs */
    sem_t go;                  /* a handler may go on */
    sem_t gone;                /* on_close was called */
    atomic_int seen;           /* a result of a handler */
} fixture;

FIXTURE const struct route *route_of(const struct http_request *req)
{
    for (const struct route *r = fixture.routes; r->path; r++)
        if (strcmp(r->path, http_path(req)) == 0)
            return r;
    return NULL;
}

FIXTURE bool fixture_gate(struct http_request *req, uint64_t *ret_max_body, void *ctx)
{
    const struct route *r = route_of(req);
    (void)ctx;
    if (!r) {
        http_reply_error(req, PROTO_NOT_FOUND, "There is no such \"route\".");
        return false;
    }
    *ret_max_body = r->max_body;
    return true;
}

FIXTURE void fixture_handler(struct http_request *req, void *ctx)
{
    (void)ctx;
    route_of(req)->handle(req);
}

FIXTURE void server_begin(const struct route *routes, struct http_config config)
{
    struct err e = ERR_INIT;
    memset(&fixture, 0, sizeof(fixture));
    log_set_fd(-1); /* the tests provoke what is logged */
    (void)sem_init(&fixture.arrived, 0, 0);
    (void)sem_init(&fixture.go, 0, 0);
    (void)sem_init(&fixture.gone, 0, 0);
    fixture.routes = routes;
    config.host = "127.0.0.1";
    config.gate = fixture_gate;
    config.handler = fixture_handler;
    if (!config.io_threads)
        config.io_threads = 2;
    if (!config.worker_threads)
        config.worker_threads = 4;
    if (!config.max_connections)
        config.max_connections = 3000;
    if (!config.body_deadline_ms)
        config.body_deadline_ms = PATIENCE_S * 1000;
    if (!config.idle_timeout_ms)
        config.idle_timeout_ms = PATIENCE_S * 1000;
    if (http_server_start(&config, &fixture.server, &e) < 0)
        fail_msg("%s", e.msg);
}

FIXTURE void fixture_release(void)
{
    (void)sem_destroy(&fixture.arrived);
    (void)sem_destroy(&fixture.go);
    (void)sem_destroy(&fixture.gone);
}

FIXTURE void server_end(void)
{
    http_server_stop(fixture.server, PATIENCE_S * 1000);
    fixture_release();
}

FIXTURE void reply_text(struct http_request *req, const char *text)
{
    http_reply(req, 200, "text/plain", text, strlen(text));
}

FIXTURE void do_echo(struct http_request *req)
{
    CLEANUP(buf_release) struct buf b;
    buf_init(&b, 16 * MIB);
    int r = http_body_all(req, &b);
    if (r < 0)
        http_reply_error(req, r == -EFBIG ? PROTO_TOO_LARGE : PROTO_BAD_REQUEST, "No.");
    else
        http_reply(req, 200, "text/plain", b.data, b.len);
}

/* "bytes result" of reading it all. */
FIXTURE void do_count(struct http_request *req)
{
    char data[8192], text[64];
    uint64_t total = 0;
    ssize_t n;
    while ((n = http_body_read(req, data, sizeof(data))) > 0)
        total += (uint64_t)n;
    (void)snprintf(text, sizeof(text), "%llu %zd", (unsigned long long)total, n);
    atomic_store(&fixture.seen, (int)n);
    (void)sem_post(&fixture.arrived);
    reply_text(req, text);
}

/* ---- the client's side */

struct client {
    int fd;
    struct buf in; /* read and not yet consumed */
};

struct reply {
    int status;
    char head[8192];
    struct buf body;
    bool cut; /* the connection ended before the answer did */
};

FIXTURE struct client client_open(void)
{
    struct client c = {.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    struct sockaddr_in in = {.sin_family = AF_INET,
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
        .sin_port = htons(http_server_port(fixture.server))};
    const struct timeval patience = {.tv_sec = PATIENCE_S};
    assert_true(c.fd >= 0);
    assert_int_equal(setsockopt(c.fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
    assert_int_equal(connect(c.fd, (struct sockaddr *)&in, sizeof(in)), 0);
    buf_init(&c.in, 64 << 20);
    return c;
}

FIXTURE void client_close(struct client *c)
{
    fd_closep(&c->fd);
    buf_release(&c->in);
}

FIXTURE void client_send(struct client *c, const char *text)
{
    assert_int_equal(io_write_all(c->fd, text, strlen(text)), 0);
}

FIXTURE void client_sendf(struct client *c, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
FIXTURE void client_sendf(struct client *c, const char *fmt, ...)
{
    CLEANUP(buf_release) struct buf b;
    va_list ap;
    buf_init(&b, 1 << 20);
    va_start(ap, fmt);
    assert_int_equal(buf_addv(&b, fmt, ap), 0);
    va_end(ap);
    assert_int_equal(io_write_all(c->fd, b.data, b.len), 0);
}

/* More bytes into c->in; false at the connection's end. */
FIXTURE bool client_more(struct client *c)
{
    char data[65536];
    ssize_t n = recv(c->fd, data, sizeof(data), 0);
    if (n < 0 && errno == EAGAIN)
        fail_msg("no answer");
    if (n <= 0)
        return false;
    assert_int_equal(buf_add(&c->in, data, (size_t)n), 0);
    return true;
}

/* Is the connection closed, with nothing unread? */
FIXTURE bool client_at_end(struct client *c)
{
    return c->in.len == 0 && !client_more(c);
}

FIXTURE bool client_need(struct client *c, size_t len)
{
    while (c->in.len < len)
        if (!client_more(c))
            return false;
    return true;
}

/* Up to and with `mark`, as an offset; 0: the connection ended first. */
FIXTURE size_t client_find(struct client *c, const char *mark)
{
    for (;;) {
        char *p = c->in.len ? memmem(c->in.data, c->in.len, mark, strlen(mark)) : NULL;
        if (p)
            return (size_t)(p - (char *)c->in.data) + strlen(mark);
        if (!client_more(c))
            return 0;
    }
}

FIXTURE bool read_chunk(struct client *c, struct reply *r)
{
    size_t end = client_find(c, "\r\n");
    if (!end)
        return false;
    size_t len = strtoul(buf_str(&c->in), NULL, 16);
    if (!client_need(c, end + len + 2))
        return false;
    assert_int_equal(buf_add(&r->body, c->in.data + end, len), 0);
    assert_memory_equal(c->in.data + end + len, "\r\n", 2);
    buf_consume(&c->in, end + len + 2);
    r->cut = len > 0; /* until the last one */
    return len > 0;
}

/* The next answer. reply_release it. */
FIXTURE struct reply client_reply(struct client *c, bool for_head)
{
    struct reply r = {.cut = true};
    buf_init(&r.body, 64 << 20);
    size_t end = client_find(c, "\r\n\r\n");
    if (!end)
        return r;
    assert_true(end < sizeof(r.head));
    memcpy(r.head, c->in.data, end);
    buf_consume(&c->in, end);
    r.status = (int)strtol(r.head + strlen("HTTP/1.1 "), NULL, 10);
    const char *length = strcasestr(r.head, "\r\nContent-Length: ");
    r.cut = false;
    if (for_head || r.status < 200 || r.status == 204)
        return r;
    if (length) {
        size_t len = strtoul(length + 18, NULL, 10);
        r.cut = !client_need(c, len);
        assert_int_equal(buf_add(&r.body, c->in.data, r.cut ? 0 : len), 0);
        buf_consume(&c->in, r.cut ? 0 : len);
    } else {
        assert_non_null(strcasestr(r.head, "\r\nTransfer-Encoding: chunked"));
        r.cut = true;
        while (read_chunk(c, &r))
            continue;
    }
    return r;
}

FIXTURE void reply_release(struct reply *r)
{
    buf_release(&r->body);
}

FIXTURE void expect_reply(struct client *c, int status, const char *body)
{
    CLEANUP(reply_release) struct reply r = client_reply(c, false);
    if (r.status != status || r.cut)
        fail_msg("got %d%s instead of %d: %s%s", r.status, r.cut ? " (cut)" : "", status, r.head,
            buf_str(&r.body));
    if (body)
        assert_string_equal(buf_str(&r.body), body);
}

#endif
