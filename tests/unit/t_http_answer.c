/* SPDX-License-Identifier: MIT */
/* Replies, clients that leave, many at once, and the server's end; t_http_stream.c has streams. */
#include "http_fixture.h"

#include <fcntl.h>

#include "shared/banned.h"

#define STREAMS 200

static const struct http_config DEFAULTS = {.ctx = NULL};
static struct http_request *streams[STREAMS];
static atomic_int stream_count;

/* ---- handlers */

static void on_gone(void *ctx)
{
    (void)ctx;
    (void)sem_post(&fixture.gone);
}

static void do_plain(struct http_request *req)
{
    http_add_header(req, "X-Good", "1");
    http_add_header(req, "X-Bad", "1\r\nX-Injected: 1");
    reply_text(req, "plain");
}

static void do_big(struct http_request *req)
{
    static char data[4 * MIB];
    memset(data, 'b', sizeof(data));
    http_reply(req, 200, "text/plain", data, sizeof(data));
}

static void do_nothing(struct http_request *req)
{
    (void)req;
}

static void do_empty(struct http_request *req)
{
    http_reply(req, 204, NULL, NULL, 0);
}

static void do_twice(struct http_request *req)
{
    reply_text(req, "first");
    reply_text(req, "second");
}

static void do_file(struct http_request *req)
{
    char path[] = "/tmp/t_http.XXXXXX";
    int fd = mkostemp(path, O_CLOEXEC);
    (void)unlink(path);
    if (fd < 0 || io_write_all(fd, "0123456789abcdef", 16) < 0)
        reply_text(req, "no file");
    else if (http_query(req, "empty"))
        http_reply_fd(req, 200, "text/plain", fd, 16, 0);
    else
        http_reply_fd(req, 206, "application/octet-stream", fd, 10, 4);
}

static void do_keep(struct http_request *req)
{
    http_ref(req);
    fixture.kept = req;
    http_on_close(req, on_gone, NULL);
    (void)sem_post(&fixture.arrived);
}

static void do_stream(struct http_request *req)
{
    if (http_stream_begin(req, 200, "text/event-stream") == 0)
        do_keep(req);
}

static void do_one_of_many(struct http_request *req)
{
    if (http_stream_begin(req, 200, "text/event-stream") < 0)
        return;
    http_ref(req);
    streams[atomic_fetch_add(&stream_count, 1)] = req;
    (void)sem_post(&fixture.arrived);
}

static void do_block(struct http_request *req)
{
    (void)sem_post(&fixture.arrived);
    (void)sem_wait(&fixture.go);
    reply_text(req, "unblocked");
}

static const struct route ROUTES[] = {
    {"/plain", MIB, do_plain},
    {"/big", MIB, do_big},
    {"/nothing", MIB, do_nothing},
    {"/empty", MIB, do_empty},
    {"/twice", MIB, do_twice},
    {"/file", MIB, do_file},
    {"/keep", MIB, do_keep},
    {"/stream", MIB, do_stream},
    {"/many", MIB, do_one_of_many},
    {"/block", MIB, do_block},
    {NULL, 0, NULL},
};

static void get(struct client *c, const char *path)
{
    client_sendf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path);
}

/* The request that a handler has kept for us; the caller unrefs it. */
static struct http_request *kept(void)
{
    (void)sem_wait(&fixture.arrived);
    struct http_request *req = fixture.kept;
    fixture.kept = NULL;
    return req;
}

static void *stop_server(void *arg)
{
    (void)arg;
    http_server_stop(fixture.server, PATIENCE_S * 1000);
    return NULL;
}

/* ---- whole replies */

static void test_replies(void **state)
{
    (void)state;
    server_begin(ROUTES, DEFAULTS);
    struct client c = client_open();
    get(&c, "/plain");
    CLEANUP(reply_release) struct reply r = client_reply(&c, false);
    assert_int_equal(r.status, 200);
    assert_non_null(strstr(r.head, "\r\nX-Good: 1\r\n"));
    assert_null(strstr(r.head, "X-Injected"));
    assert_null(strstr(r.head, "X-Bad"));
    get(&c, "/empty");
    CLEANUP(reply_release) struct reply empty = client_reply(&c, false);
    assert_int_equal(empty.status, 204);
    assert_null(strstr(empty.head, "Content-Length"));
    get(&c, "/twice");
    expect_reply(&c, 200, "first");
    get(&c, "/nothing");
    CLEANUP(reply_release) struct reply forgot = client_reply(&c, false);
    assert_int_equal(forgot.status, 500);
    assert_non_null(strstr(buf_str(&forgot.body), "\"code\":\"internal\""));
    get(&c, "/big");
    CLEANUP(reply_release) struct reply big = client_reply(&c, false);
    assert_false(big.cut);
    assert_int_equal(big.body.len, 4 * MIB);
    get(&c, "/file");
    expect_reply(&c, 206, "abcd");
    get(&c, "/file?empty");
    expect_reply(&c, 200, "");
    get(&c, "/plain");
    expect_reply(&c, 200, "plain"); /* still in step */
    client_close(&c);
    server_end();
}

static void test_head(void **state)
{
    (void)state;
    static const struct {
        const char *path, *length;
    } rows[] = {{"/plain", "5"}, {"/big", "4194304"}, {"/file", "4"}};
    server_begin(ROUTES, DEFAULTS);
    struct client c = client_open();
    for (size_t i = 0; i < 3; i++) {
        char want[64];
        client_sendf(&c, "HEAD %s HTTP/1.1\r\nHost: x\r\n\r\n", rows[i].path);
        CLEANUP(reply_release) struct reply r = client_reply(&c, true);
        (void)snprintf(want, sizeof(want), "\r\nContent-Length: %s\r\n", rows[i].length);
        assert_non_null(strstr(r.head, want));
    }
    client_send(&c, "HEAD /stream HTTP/1.1\r\nHost: x\r\n\r\n");
    CLEANUP(reply_release) struct reply r = client_reply(&c, true);
    assert_int_equal(r.status, 200);
    struct http_request *req = kept();
    assert_int_equal(http_stream_write(req, "into the void", 13, 1000), 0);
    http_stream_end(req);
    http_unref(req);
    assert_true(client_at_end(&c)); /* not a byte of a body */
    client_close(&c);
    server_end();
}

/* The handler returns; another thread answers, or forgets to. */
static void test_kept(void **state)
{
    (void)state;
    server_begin(ROUTES, DEFAULTS);
    struct client c = client_open();
    get(&c, "/keep");
    struct http_request *req = kept();
    assert_string_equal(http_path(req), "/keep");
    assert_string_equal(http_header(req, "host"), "x");
    reply_text(req, "late");
    http_unref(req);
    expect_reply(&c, 200, "late");
    get(&c, "/keep");
    http_unref(kept());
    expect_reply(&c, 500, NULL);
    client_close(&c);
    server_end();
}

/* ---- clients that leave */

static void test_on_close(void **state)
{
    (void)state;
    int count;
    server_begin(ROUTES, DEFAULTS);
    /* before any answer */
    struct client c = client_open();
    get(&c, "/keep");
    struct http_request *req = kept();
    client_close(&c);
    (void)sem_wait(&fixture.gone);
    http_on_close(req, on_gone, NULL); /* it has already: at once, and only once */
    (void)sem_getvalue(&fixture.gone, &count);
    assert_int_equal(count, 1);
    (void)sem_wait(&fixture.gone);
    reply_text(req, "to nobody");
    http_unref(req);
    /* cleared */
    c = client_open();
    get(&c, "/keep");
    req = kept();
    http_on_close(req, NULL, NULL);
    client_close(&c);
    /* the next client's end is seen after this one's */
    struct client d = client_open();
    get(&d, "/keep");
    struct http_request *other = kept();
    client_close(&d);
    (void)sem_wait(&fixture.gone);
    (void)sem_getvalue(&fixture.gone, &count);
    assert_int_equal(count, 0);
    http_unref(other);
    http_unref(req);
    /* a complete answer is no leaving */
    c = client_open();
    get(&c, "/keep");
    req = kept();
    reply_text(req, "all");
    expect_reply(&c, 200, "all");
    client_close(&c);
    http_server_stop(fixture.server, PATIENCE_S * 1000);
    http_unref(req);
    (void)sem_getvalue(&fixture.gone, &count);
    assert_int_equal(count, 0);
    fixture_release();
}

/* ---- many at once */

static void test_streams_and_short_requests(void **state)
{
    (void)state;
    static struct client waiting[STREAMS];
    server_begin(ROUTES, DEFAULTS);
    atomic_store(&stream_count, 0);
    for (int i = 0; i < STREAMS; i++) {
        waiting[i] = client_open();
        get(&waiting[i], "/many");
    }
    for (int i = 0; i < STREAMS; i++)
        (void)sem_wait(&fixture.arrived);
    struct client c[20];
    for (int i = 0; i < 20; i++)
        c[i] = client_open();
    for (int round = 0; round < 100; round++) {
        for (int i = 0; i < 20; i++)
            get(&c[i], "/plain");
        for (int i = 0; i < 20; i++)
            expect_reply(&c[i], 200, "plain");
    }
    for (int i = 0; i < 20; i++)
        client_close(&c[i]);
    for (int i = 0; i < STREAMS; i++) {
        assert_int_equal(http_stream_write(streams[i], "end", 3, 1000), 0);
        http_stream_end(streams[i]);
        http_unref(streams[i]);
    }
    for (int i = 0; i < STREAMS; i++) {
        expect_reply(&waiting[i], 200, "end");
        client_close(&waiting[i]);
    }
    server_end();
}

/* One worker, which is busy, and a full queue: the next one is told so at once. */
static void test_queue_is_full(void **state)
{
    (void)state;
    enum { QUEUE = 1024 };
    static struct client waiting[QUEUE + 1];
    server_begin(ROUTES, (struct http_config){.worker_threads = 1, .io_threads = 1});
    waiting[0] = client_open();
    get(&waiting[0], "/block");
    (void)sem_wait(&fixture.arrived);
    for (int i = 1; i <= QUEUE; i++) {
        waiting[i] = client_open();
        get(&waiting[i], "/plain");
    }
    /* The last of them may not be queued yet when ours is seen: then one of the others is told. */
    struct client c = client_open();
    get(&c, "/plain");
    struct pollfd told[QUEUE + 2];
    for (int i = 0; i <= QUEUE; i++)
        told[i] = (struct pollfd){.fd = waiting[i].fd, .events = POLLIN};
    told[QUEUE + 1] = (struct pollfd){.fd = c.fd, .events = POLLIN};
    assert_true(poll(told, QUEUE + 2, PATIENCE_S * 1000) == 1);
    for (int i = 0; i < QUEUE + 2; i++) {
        if (!told[i].revents)
            continue;
        CLEANUP(reply_release) struct reply r = client_reply(i <= QUEUE ? &waiting[i] : &c, false);
        assert_int_equal(r.status, 503);
        assert_non_null(strstr(r.head, "\r\nRetry-After: 1\r\n"));
        assert_non_null(strstr(buf_str(&r.body), "\"code\":\"unavailable\""));
        assert_non_null(strstr(buf_str(&r.body), "\"retryable\":true"));
    }
    (void)sem_post(&fixture.go);
    for (int i = 0; i < QUEUE + 2; i++) {
        if (!told[i].revents)
            expect_reply(i <= QUEUE ? &waiting[i] : &c, 200, i == 0 ? "unblocked" : "plain");
    }
    for (int i = 0; i <= QUEUE; i++)
        client_close(&waiting[i]);
    client_close(&c);
    server_end();
}

/* ---- the end */

/* Open streams, a kept request, a handler in a body, a client within a body: stop returns. */
static void test_stop(void **state)
{
    (void)state;
    server_begin(ROUTES, DEFAULTS);
    atomic_store(&stream_count, 0);
    struct client c[5];
    for (int i = 0; i < 5; i++)
        c[i] = client_open();
    get(&c[0], "/many");
    get(&c[1], "/many");
    for (int i = 0; i < 2; i++)
        (void)sem_wait(&fixture.arrived);
    get(&c[2], "/keep");
    struct http_request *req = kept();
    client_send(&c[3], "POST /plain HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n123");
    http_server_stop(fixture.server, 100);
    (void)sem_wait(&fixture.gone); /* the kept request's owner was told */
    for (int i = 0; i < 2; i++) {
        assert_int_equal(http_stream_write(streams[i], "x", 1, 1000), -EPIPE);
        http_stream_end(streams[i]);
        http_unref(streams[i]);
    }
    reply_text(req, "too late");
    assert_string_equal(http_path(req), "/keep");
    http_unref(req);
    for (int i = 0; i < 5; i++) {
        CLEANUP(reply_release) struct reply r = client_reply(&c[i], false);
        assert_true(r.cut);
        client_close(&c[i]);
    }
    fixture_release();
}

/* Within the grace, what runs may end, and what comes is refused. */
static void test_graceful_stop(void **state)
{
    (void)state;
    server_begin(ROUTES, DEFAULTS);
    struct client c = client_open(), idle = client_open();
    pthread_t stopper;
    get(&c, "/block");
    (void)sem_wait(&fixture.arrived);
    get(&idle, "/plain"); /* so that it is accepted before the end begins */
    expect_reply(&idle, 200, "plain");
    assert_int_equal(pthread_create(&stopper, NULL, stop_server, NULL), 0);
    int status;
    do {
        get(&idle, "/plain");
        CLEANUP(reply_release) struct reply r = client_reply(&idle, false);
        status = r.status;
    } while (status == 200); /* until the other thread has come so far */
    assert_int_equal(status, 503);
    (void)sem_post(&fixture.go);
    expect_reply(&c, 200, "unblocked");
    assert_int_equal(pthread_join(stopper, NULL), 0);
    client_close(&c);
    client_close(&idle);
    fixture_release();
}

static void test_start_errors(void **state)
{
    (void)state;
    server_begin(ROUTES, DEFAULTS);
    struct http_server *s = NULL;
    struct err e = ERR_INIT;
    struct http_config config = {.host = "127.0.0.1",
        .port = http_server_port(fixture.server),
        .io_threads = 1,
        .worker_threads = 1,
        .max_connections = 10,
        .gate = fixture_gate,
        .handler = fixture_handler};
    assert_int_equal(http_server_start(&config, &s, &e), -EADDRINUSE);
    config.host = "no.address";
    assert_int_equal(http_server_start(&config, &s, &e), -EINVAL);
    assert_null(s);
    server_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replies),
        cmocka_unit_test(test_head),
        cmocka_unit_test(test_kept),
        cmocka_unit_test(test_on_close),
        cmocka_unit_test(test_streams_and_short_requests),
        cmocka_unit_test(test_queue_is_full),
        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_graceful_stop),
        cmocka_unit_test(test_start_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
