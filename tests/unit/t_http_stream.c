/* SPDX-License-Identifier: MIT */
/* Answers whose end is not known: order, back-pressure, and clients that leave. */
#include "http_fixture.h"

#include "shared/banned.h"


static const struct http_config DEFAULTS = {.ctx = NULL};

/* ---- handlers */

static void on_gone(void *ctx)
{
    (void)ctx;
    (void)sem_post(&fixture.gone);
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

static void do_unended(struct http_request *req)
{
    if (http_stream_begin(req, 200, "text/plain") == 0 &&
        http_stream_write(req, "some", 4, 1000) == 0)
        return;
}

static const struct route ROUTES[] = {
    {"/stream", MIB, do_stream},
    {"/unended", MIB, do_unended},
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

/* ---- threads beside the test's own */

struct reading {
    struct client *client;
    struct reply *reply;
};

static void *read_one(void *arg)
{
    struct reading *r = arg;
    *r->reply = client_reply(r->client, false);
    return NULL;
}

static void *close_after_reading_some(void *arg)
{
    struct client *c = arg;
    for (int i = 0; i < 20; i++)
        (void)client_more(c);
    client_close(c);
    return NULL;
}

/* ---- streams */

static void test_stream(void **state)
{
    (void)state;
    static char data[3 * MIB];
    server_begin(ROUTES, DEFAULTS);
    struct client c = client_open();
    get(&c, "/stream");
    struct http_request *req = kept();
    assert_true(client_find(&c, "\r\n\r\n") > 0); /* the head is there before a byte was written */
    for (unsigned i = 0; i < 100; i++) {
        char line[16];
        int n = snprintf(line, sizeof(line), "line %u\n", i);
        assert_int_equal(http_stream_write(req, line, (size_t)n, 1000), 0);
        if (i % 10 == 0)
            assert_true(client_find(&c, line) > 0); /* and each line before the next one */
    }
    http_stream_end(req);
    assert_int_equal(http_stream_write(req, "x", 1, 1000), -EPIPE); /* after the end */
    http_unref(req);
    CLEANUP(reply_release) struct reply r = client_reply(&c, false);
    assert_false(r.cut);
    assert_true(strlen(buf_str(&r.body)) == 790);
    assert_non_null(strstr(r.head, "\r\nContent-Type: text/event-stream\r\n"));
    /* one write that is longer than the buffer, to a client that reads meanwhile */
    get(&c, "/stream");
    req = kept();
    pthread_t reader;
    struct reply long_one = {.cut = true};
    struct reading reading = {&c, &long_one};
    assert_int_equal(pthread_create(&reader, NULL, read_one, &reading), 0);
    memset(data, 'd', sizeof(data));
    assert_int_equal(http_stream_write(req, data, sizeof(data), PATIENCE_S * 1000), 0);
    http_stream_end(req);
    http_unref(req);
    assert_int_equal(pthread_join(reader, NULL), 0);
    assert_false(long_one.cut);
    assert_int_equal(long_one.body.len, sizeof(data));
    assert_memory_equal(long_one.body.data, data, sizeof(data));
    reply_release(&long_one);
    /* one that nobody ends does not look complete */
    get(&c, "/unended");
    CLEANUP(reply_release) struct reply unended = client_reply(&c, false);
    assert_int_equal(unended.status, 200);
    assert_true(unended.cut);
    client_close(&c);
    server_end();
}

/* HTTP/1.0 knows no chunks: the connection's end is the stream's. */
static void test_stream_1_0(void **state)
{
    (void)state;
    server_begin(ROUTES, DEFAULTS);
    struct client c = client_open();
    client_send(&c, "GET /stream HTTP/1.0\r\n\r\n");
    struct http_request *req = kept();
    assert_int_equal(http_stream_write(req, "old", 3, 1000), 0);
    http_stream_end(req);
    http_unref(req);
    while (client_more(&c))
        continue;
    assert_non_null(strstr(buf_str(&c.in), "\r\n\r\nold"));
    assert_null(strstr(buf_str(&c.in), "chunked"));
    client_close(&c);
    server_end();
}

/* A client that does not read: the writer waits, then is told, and what it wrote is not torn. */
static void test_slow_reader(void **state)
{
    (void)state;
    static char block[64 * 1024];
    uint64_t written = 0;
    int r;
    server_begin(ROUTES, DEFAULTS);
    struct client c = client_open();
    get(&c, "/stream");
    struct http_request *req = kept();
    while ((r = http_stream_write(req, block, sizeof(block), 300)) == 0 && written < 64 * MIB)
        written += sizeof(block);
    assert_int_equal(r, -ETIMEDOUT);
    assert_true(written >= MIB);     /* our buffer, … */
    assert_true(written < 32 * MIB); /* … the sockets', and no more */
    pthread_t reader;
    struct reply got = {.cut = true};
    struct reading reading = {&c, &got};
    assert_int_equal(pthread_create(&reader, NULL, read_one, &reading), 0);
    assert_int_equal(http_stream_write(req, "tail", 4, PATIENCE_S * 1000), 0);
    http_stream_end(req);
    http_unref(req);
    assert_int_equal(pthread_join(reader, NULL), 0);
    assert_false(got.cut);
    assert_int_equal(got.body.len, written + 4);
    assert_memory_equal(got.body.data + written, "tail", 4);
    reply_release(&got);
    client_close(&c);
    server_end();
}

/* ---- clients that leave */

static void test_stream_client_leaves(void **state)
{
    (void)state;
    server_begin(ROUTES, DEFAULTS);
    struct client c = client_open();
    get(&c, "/stream");
    struct http_request *req = kept();
    assert_int_equal(http_stream_write(req, "x", 1, 1000), 0);
    assert_true(client_find(&c, "x\r\n") > 0);
    client_close(&c); /* while the connection is suspended */
    (void)sem_wait(&fixture.gone);
    assert_int_equal(http_stream_write(req, "y", 1, PATIENCE_S * 1000), -EPIPE);
    http_stream_end(req);
    http_unref(req);
    server_end();
}

/* A writer that waits for room is woken when the client leaves. */
static void test_blocked_writer_client_leaves(void **state)
{
    (void)state;
    static char data[64 * MIB];
    server_begin(ROUTES, DEFAULTS);
    struct client c = client_open();
    get(&c, "/stream");
    struct http_request *req = kept();
    pthread_t closer;
    assert_true(client_find(&c, "\r\n\r\n") > 0);
    assert_int_equal(pthread_create(&closer, NULL, close_after_reading_some, &c), 0);
    assert_int_equal(http_stream_write(req, data, sizeof(data), PATIENCE_S * 1000), -EPIPE);
    assert_int_equal(pthread_join(closer, NULL), 0);
    (void)sem_wait(&fixture.gone);
    http_unref(req);
    server_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stream),
        cmocka_unit_test(test_stream_1_0),
        cmocka_unit_test(test_slow_reader),
        cmocka_unit_test(test_stream_client_leaves),
        cmocka_unit_test(test_blocked_writer_client_leaves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
