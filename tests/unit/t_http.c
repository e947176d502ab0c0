/* SPDX-License-Identifier: MIT */
/* Requests and bodies; see t_http_answer.c, t_http_stream.c, t_http_zstd.c for the rest. */
#include "http_fixture.h"

#include "shared/banned.h"

/* ---- handlers */

static void do_wait_then_count(struct http_request *req)
{
    (void)sem_post(&fixture.arrived);
    (void)sem_wait(&fixture.go);
    do_count(req);
}

static void do_query(struct http_request *req)
{
    const char *a = http_query(req, "a"), *x = http_header(req, "X-Test");
    char text[256];
    (void)snprintf(text, sizeof(text), "%s|%s|%s", http_path(req), a ? a : "-", x ? x : "-");
    reply_text(req, text);
}

static void do_conflict(struct http_request *req)
{
    http_reply(req, 409, "text/plain", "no", 2);
}

static const struct route ROUTES[] = {
    {"/echo", GIB, do_echo},
    {"/small", 10, do_echo},
    {"/medium", MIB, do_count},
    {"/count", GIB, do_count},
    {"/wait", GIB, do_wait_then_count},
    {"/a%20b", GIB, do_query},
    {"/query", GIB, do_query},
    {"/conflict", GIB, do_conflict},
    {NULL, 0, NULL},
};

static const struct http_config DEFAULTS = {.ctx = NULL};

/* ---- plain requests */

static void test_keep_alive(void **state)
{
    (void)state;
    server_begin(ROUTES, DEFAULTS);
    struct client c = client_open();
    char body[512];
    for (unsigned i = 0; i < 100; i++) {
        memset(body, 'a' + (int)(i % 26), sizeof(body));
        body[i * 5] = '\0';
        client_sendf(
            &c, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %u\r\n\r\n%s", i * 5, body);
        expect_reply(&c, 200, body);
    }
    client_send(
        &c, "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"); /* refused by the gate: still usable */
    CLEANUP(reply_release) struct reply r = client_reply(&c, false);
    assert_int_equal(r.status, 404);
    assert_non_null(strstr(r.head, "\r\nSilt-Protocol: 1\r\n"));
    assert_non_null(strstr(r.head, "\r\nX-Content-Type-Options: nosniff\r\n"));
    assert_non_null(strstr(buf_str(&r.body),
        "{\"error\":{\"code\":\"not_found\",\"message\":\"There is no such \\\"route\\\".\","
        "\"retryable\":false,\"request_id\":\"req_"));
    client_send(&c, "POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12345");
    expect_reply(&c, 404, NULL); /* its small body was read over */
    client_send(&c, "GET /query HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    expect_reply(&c, 200, "/query|-|-");
    assert_true(client_at_end(&c));
    uint64_t requests, connections;
    http_server_stats(fixture.server, &requests, &connections);
    assert_int_equal(requests, 103);
    client_close(&c);
    server_end();
}

static void test_pipelined(void **state)
{
    (void)state;
    server_begin(ROUTES, DEFAULTS);
    struct client c = client_open();
    CLEANUP(buf_release) struct buf b;
    buf_init(&b, MIB);
    for (unsigned i = 0; i < 50; i++) {
        int r = i % 2 ? buf_addf(&b, "GET /query?a=%u HTTP/1.1\r\nHost: x\r\n\r\n", i)
                      : buf_addf(&b,
                            "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nno%04u", i);
        assert_int_equal(r, 0);
    }
    client_send(&c, buf_str(&b));
    for (unsigned i = 0; i < 50; i++) {
        char want[32];
        (void)snprintf(want, sizeof(want), i % 2 ? "/query|%u|-" : "no%04u", i);
        expect_reply(&c, 200, want);
    }
    client_close(&c);
    server_end();
}

static const struct {
    const char *request, *want; /* NULL: 400 */
} QUERIES[] = {
    {"GET /query?a=1&a=2 HTTP/1.1\r\nHost: x\r\n\r\n", "/query|1|-"}, /* the first one */
    {"GET /query?b=1 HTTP/1.1\r\nHost: x\r\nX-TEST:  y z \t\r\n\r\n", "/query|-|y z"},
    {"GET /query?a=x%20y+z%2B%C3%A4 HTTP/1.1\r\nHost: x\r\n\r\n", "/query|x y z+\xc3\xa4|-"},
    {"GET /query?&a&b=c=d& HTTP/1.1\r\nHost: x\r\n\r\n", "/query||-"},
    {"GET /a%20b HTTP/1.1\r\nHost: x\r\n\r\n", "/a%20b|-|-"}, /* paths as sent */
    {"GET /query? HTTP/1.0\r\n\r\n", "/query|-|-"},           /* 1.0 needs no Host */
    {"GET /query?a=%0 HTTP/1.1\r\nHost: x\r\n\r\n", NULL},
    {"GET /query?a=%00 HTTP/1.1\r\nHost: x\r\n\r\n", NULL},
    {"GET /query?a=%zz HTTP/1.1\r\nHost: x\r\n\r\n", NULL},
    {"GET /query?a=\xc3\xa4 HTTP/1.1\r\nHost: x\r\n\r\n", NULL},
    {"GET http://x/query HTTP/1.1\r\nHost: x\r\n\r\n", NULL},
};

static void test_query(void **state)
{
    (void)state;
    server_begin(ROUTES, DEFAULTS);
    for (size_t i = 0; i < sizeof(QUERIES) / sizeof(QUERIES[0]); i++) {
        struct client c = client_open();
        client_send(&c, QUERIES[i].request);
        CLEANUP(reply_release) struct reply r = client_reply(&c, false);
        if (r.status != (QUERIES[i].want ? 200 : 400) ||
            (QUERIES[i].want && strcmp(buf_str(&r.body), QUERIES[i].want) != 0))
            fail_msg("row %zu: %d %s", i, r.status, buf_str(&r.body));
        client_close(&c);
    }
    server_end();
}

/* ---- requests that two parsers could read differently */

#define SMUGGLED "GET /query?a=smuggled HTTP/1.1\r\nHost: x\r\n\r\n"

static const struct {
    const char *head; /* after the request line */
    bool own;         /* refused by us, as JSON; else by the library, in its own words */
} SMUGGLING[] = {
    {"Host: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n12345", true},
    {"Host: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n12345", true},
    {"Host: x\r\nContent-Length: 0\r\nContent-Length: 40\r\n\r\n", true},
    {"Host: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", true},
    {"Host: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", true},
    {"Host: x\r\nTransfer-Encoding: gzip\r\n\r\n", true},
    {"Host: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", true},
    {"Host: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", true},
    {"Host: x\r\nTransfer-Encoding: identity\r\n\r\n", true},
    {"Host: x\r\nTransfer-Encoding: chunked \r\n\r\n0\r\n\r\n", true}, /* space behind it */
    {"Host: x\r\nTransfer-Encoding: \x0b"
     "chunked\r\n\r\n0\r\n\r\n",
        true},                                                         /* vertical tab */
    {"Host: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", true}, /* space before colon */
    {"Host: x\r\nContent-Length : 5\r\n\r\n12345", true},
    {"Host: x\r\n Content-Length: 5\r\n\r\n12345", true}, /* continued Host */
    {" Host: x\r\n\r\n", true},                           /* continued request line */
    {"Host: x\r\nTransfer-Encodin: chunked\r\n g\r\n\r\n0\r\n\r\n", true}, /* continued value … */
    {"Host: x\r\nX: a\r\n\tb\r\n\r\n", true},                              /* … with a tab */
    {"Host: x\nContent-Length: 5\r\n\r\n12345", true},                     /* bare line feeds */
    {"Host: x\r\n\n", true},
    {"Host: x\r\nX: a\rb\r\n\r\n", true}, /* bare CR */
    {"Host: x\r\nHost: y\r\n\r\n", true},
    {"X: no host\r\n\r\n", true},
    {"Host: x\r\n: nameless\r\n\r\n", true},
    {"Host: x\r\nX\x01: y\r\n\r\n", true},
    {"Host: x\r\nContent-Length: -1\r\n\r\n", false},
    {"Host: x\r\nContent-Length: +5\r\n\r\n12345", false},
    {"Host: x\r\nContent-Length: 5, 5\r\n\r\n12345", false},
    {"Host: x\r\nContent-Length: 0x5\r\n\r\n12345", false},
    {"Host: x\r\nContent-Length: \r\n\r\n", false},
    {"Host: x\r\nno colon\r\n\r\n", false},
};

static void test_smuggling(void **state)
{
    (void)state;
    server_begin(ROUTES, DEFAULTS);
    for (size_t i = 0; i < sizeof(SMUGGLING) / sizeof(SMUGGLING[0]); i++) {
        struct client c = client_open();
        client_sendf(&c, "POST /echo HTTP/1.1\r\n%s" SMUGGLED, SMUGGLING[i].head);
        size_t end = client_find(&c, "\r\n\r\n");
        if (!end || strncmp(buf_str(&c.in), "HTTP/1.1 400 ", 13) != 0)
            fail_msg("row %zu: %s", i, buf_str(&c.in));
        while (client_more(&c)) /* and the connection is closed, … */
            continue;
        if (SMUGGLING[i].own && !strstr(buf_str(&c.in), "\"code\":\"bad_request\""))
            fail_msg("row %zu: %s", i, buf_str(&c.in));
        if (strstr(buf_str(&c.in), "smuggled")) /* … whatever was behind it */
            fail_msg("row %zu: smuggled", i);
        client_close(&c);
    }
    server_end();
}

static void test_long_heads(void **state)
{
    (void)state;
    server_begin(ROUTES, DEFAULTS);
    const struct {
        unsigned pad, count;
        int status; /* 0: anything from 400 to 499 */
    } rows[] = {
        {30000, 1, 200},             /* below 32 KiB */
        {34000, 1, 400},             /* above: ours */
        {200000, 1, 0},              /* beyond the library's memory: its own words */
        {1, 90, 200}, {1, 101, 400}, /* too many */
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct client c = client_open();
        CLEANUP(buf_release) struct buf b;
        buf_init(&b, MIB);
        assert_int_equal(buf_adds(&b, "GET /query HTTP/1.1\r\nHost: x\r\n"), 0);
        for (unsigned n = 0; n < rows[i].count; n++)
            assert_int_equal(buf_addf(&b, "X-%u: %0*d\r\n", n, (int)rows[i].pad, 0), 0);
        assert_int_equal(buf_adds(&b, "\r\n"), 0);
        (void)!io_write_all(c.fd, b.data, b.len); /* it may hang up on us */
        CLEANUP(reply_release) struct reply r = client_reply(&c, false);
        if (rows[i].status ? r.status != rows[i].status : r.status / 100 != 4)
            fail_msg("row %zu: %d", i, r.status);
        client_close(&c);
    }
    server_end();
}

/* ---- bodies */

static void test_chunked(void **state)
{
    (void)state;
    server_begin(ROUTES, DEFAULTS);
    struct client c = client_open();
    client_send(&c, "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
                    "5\r\nhello\r\n1;ext=\"x\"\r\n \r\n0005\r\nworld\r\n0\r\nTrailer: x\r\n\r\n");
    expect_reply(&c, 200, "hello world");
    client_send(
        &c, "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n");
    expect_reply(&c, 200, "");
    client_send(&c, "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n");
    expect_reply(&c, 400, NULL); /* malformed */
    assert_true(client_at_end(&c));
    client_close(&c);
    server_end();
}

/* Push zeros as chunks of 4 KiB, `len` bytes at most, until the socket has taken none for a while.
 * Returns how many were sent; *at says how much of a chunk is left over from the last call. */
static uint64_t push_chunks(struct client *c, uint64_t len, size_t *at, int patience_ms)
{
    static char chunk[6 + 4096 + 2] = "1000\r\n";
    uint64_t sent = 0;
    struct pollfd p = {.fd = c->fd, .events = POLLOUT};
    memcpy(chunk + 6 + 4096, "\r\n", 2);
    while (sent < len && poll(&p, 1, patience_ms) > 0) {
        ssize_t n = send(c->fd, chunk + *at, sizeof(chunk) - *at, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN)
            fail_msg("the server hung up: %s", strerror(errno));
        *at += n > 0 ? (size_t)n : 0;
        if (*at == sizeof(chunk)) {
            *at = 0;
            sent += 4096;
        }
    }
    return sent;
}

/* While the handler does not read, the sender cannot push more than sockets and window hold. */
static void test_back_pressure(void **state)
{
    (void)state;
    const uint64_t total = 50 * MIB;
    size_t at = 0;
    server_begin(ROUTES, DEFAULTS);
    struct client c = client_open();
    client_send(&c, "POST /wait HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    uint64_t sent = push_chunks(&c, total, &at, 500);
    assert_true(sent > 256 * 1024); /* the window was filled */
    assert_true(sent < 24 * MIB);   /* and the rest is held back */
    (void)sem_wait(&fixture.arrived);
    (void)sem_post(&fixture.go);
    assert_int_equal(push_chunks(&c, total - sent, &at, PATIENCE_S * 1000), total - sent);
    client_send(&c, "0\r\n\r\n");
    expect_reply(&c, 200, "52428800 0");
    client_send(&c, "GET /query HTTP/1.1\r\nHost: x\r\n\r\n"); /* the connection is in order */
    expect_reply(&c, 200, "/query|-|-");
    client_close(&c);
    server_end();
}

static void test_limits(void **state)
{
    (void)state;
    server_begin(ROUTES, DEFAULTS);
    struct client c = client_open();
    client_send(&c, "POST /small HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n0123456789");
    expect_reply(&c, 200, "0123456789");
    client_send(&c, "POST /small HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n0123456789a");
    expect_reply(&c, 413, NULL);
    /* before a byte of the body, and then the connection ends */
    client_send(&c, "POST /small HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999\r\n\r\n");
    expect_reply(&c, 413, NULL);
    assert_true(client_at_end(&c));
    client_close(&c);
    /* a client that waits for leave is not given it */
    c = client_open();
    client_send(&c,
        "POST /small HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n");
    expect_reply(&c, 413, NULL);
    assert_true(client_at_end(&c));
    client_close(&c);
    /* chunked: as soon as it is too much */
    c = client_open();
    client_send(&c, "POST /small HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "
                    "chunked\r\n\r\nb\r\n0123456789a\r\n");
    expect_reply(&c, 413, NULL);
    client_close(&c);
    /* a handler that already reads is told */
    c = client_open();
    client_send(&c, "POST /medium HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    size_t at = 0;
    assert_int_equal(push_chunks(&c, MIB + 4096, &at, PATIENCE_S * 1000), MIB + 4096);
    char want[32];
    (void)snprintf(want, sizeof(want), "1048576 %d", -EFBIG);
    expect_reply(&c, 200, want);
    client_close(&c);
    server_end();
}

static void test_continue(void **state)
{
    (void)state;
    server_begin(ROUTES, DEFAULTS);
    struct client c = client_open();
    for (int i = 0; i < 2; i++) {
        client_send(&c,
            "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
        expect_reply(&c, 100, NULL);
        client_send(&c, "12345");
        expect_reply(&c, 200, "12345");
    }
    client_close(&c);
    server_end();
}

/* An answer before the body's end reaches a client that is still sending. */
static void test_early_answer(void **state)
{
    (void)state;
    static char block[64 * 1024];
    server_begin(ROUTES, DEFAULTS);
    for (int chunked = 0; chunked < 2; chunked++) {
        struct client c = client_open();
        if (chunked)
            client_send(&c, "PUT /conflict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "
                            "chunked\r\n\r\n3000000\r\n");
        else
            client_send(
                &c, "PUT /conflict HTTP/1.1\r\nHost: x\r\nContent-Length: 50331648\r\n\r\n");
        for (unsigned sent = 0; sent < 8 * MIB; sent += sizeof(block))
            assert_int_equal(io_write_all(c.fd, block, sizeof(block)), 0);
        CLEANUP(reply_release) struct reply r = client_reply(&c, false);
        assert_int_equal(r.status, 409);
        assert_string_equal(buf_str(&r.body), "no");
        assert_non_null(strstr(r.head, "\r\nConnection: close\r\n"));
        assert_non_null(strstr(r.head, "\r\nSilt-Protocol: 1\r\n"));
        assert_true(client_at_end(&c));
        client_close(&c);
    }
    server_end();
}

static void test_client_leaves_in_body(void **state)
{
    (void)state;
    server_begin(ROUTES, DEFAULTS);
    struct client c = client_open();
    client_send(&c, "POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nabc");
    client_close(&c);
    (void)sem_wait(&fixture.arrived);
    assert_int_equal(atomic_load(&fixture.seen), -ECONNRESET);
    server_end();
}

/* A body that stops coming: 408, by the server itself or told to the handler; and a head that does.
 */
static void test_deadlines(void **state)
{
    (void)state;
    struct http_config config = {.body_deadline_ms = 300, .idle_timeout_ms = 300};
    server_begin(ROUTES, config);
    struct client c = client_open();
    client_send(&c, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n123");
    expect_reply(&c, 408, NULL);
    assert_true(client_at_end(&c));
    client_close(&c);
    c = client_open();
    client_send(&c, "POST /count HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n123");
    char want[32];
    (void)snprintf(want, sizeof(want), "3 %d", -ETIMEDOUT);
    expect_reply(&c, 200, want);
    assert_true(client_at_end(&c));
    client_close(&c);
    c = client_open();
    client_send(&c, "POST /echo HTTP/1.1\r\nHost:");
    assert_true(client_at_end(&c));
    client_close(&c);
    server_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keep_alive),
        cmocka_unit_test(test_pipelined),
        cmocka_unit_test(test_query),
        cmocka_unit_test(test_smuggling),
        cmocka_unit_test(test_long_heads),
        cmocka_unit_test(test_chunked),
        cmocka_unit_test(test_back_pressure),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_continue),
        cmocka_unit_test(test_early_answer),
        cmocka_unit_test(test_client_leaves_in_body),
        cmocka_unit_test(test_deadlines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
