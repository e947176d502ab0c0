/* SPDX-License-Identifier: MIT */
/* Bodies that arrive as zstd: whole, broken, and larger than they look. */
#include "http_fixture.h"

#include <zstd.h>

#include "shared/banned.h"

static const struct route ROUTES[] = {
    {"/echo", GIB, do_echo},
    {"/medium", MIB, do_count},
    {"/count", GIB, do_count},
    {NULL, 0, NULL},
};

static void send_zstd(
    struct client *c, const char *path, const void *data, size_t len, const char *coding)
{
    client_sendf(c,
        "POST %s HTTP/1.1\r\nHost: x\r\nContent-Encoding: %s\r\nContent-Length: %zu\r\n\r\n", path,
        coding, len);
    assert_int_equal(io_write_all(c->fd, data, len), 0);
}

/* `size` times one byte, compressed with this window. */
static size_t compress(size_t size, int window_log, void *out, size_t max)
{
    char *data = calloc(1, size ? size : 1);
    ZSTD_CCtx *ctx = ZSTD_createCCtx();
    assert_non_null(data);
    memset(data, 'x', size);
    if (window_log)
        assert_false(ZSTD_isError(ZSTD_CCtx_setParameter(ctx, ZSTD_c_windowLog, window_log)));
    /* Streaming, so that the frame states its window and no content size. */
    ZSTD_inBuffer in = {data, size, 0};
    ZSTD_outBuffer o = {out, max, 0};
    while (in.pos < in.size)
        assert_false(ZSTD_isError(ZSTD_compressStream2(ctx, &o, &in, ZSTD_e_continue)));
    while (ZSTD_compressStream2(ctx, &o, &in, ZSTD_e_end) != 0)
        continue;
    ZSTD_freeCCtx(ctx);
    free(data);
    return o.pos;
}

static void test_zstd(void **state)
{
    (void)state;
    static uint8_t frame[MIB];
    char want[32];
    server_begin(ROUTES, (struct http_config){.ctx = NULL});
    struct client c = client_open();
    size_t len = compress(10, 0, frame, sizeof(frame));
    send_zstd(&c, "/echo", frame, len, "zstd");
    expect_reply(&c, 200, "xxxxxxxxxx");
    memcpy(frame + len, frame, len); /* two frames are one body */
    send_zstd(&c, "/echo", frame, 2 * len, "ZSTD");
    expect_reply(&c, 200, "xxxxxxxxxxxxxxxxxxxx");
    send_zstd(&c, "/count", frame, 2 * len - 1, "zstd"); /* cut off */
    (void)snprintf(want, sizeof(want), "20 %d", -EBADMSG);
    CLEANUP(reply_release) struct reply r = client_reply(&c, false);
    assert_non_null(strstr(buf_str(&r.body), strchr(want, ' ')));
    send_zstd(&c, "/echo", "garbage, certainly", 18, "zstd");
    expect_reply(&c, 400, NULL);
    len = compress(5 * MIB, 0, frame, sizeof(frame));
    send_zstd(&c, "/count", frame, len, "zstd");
    expect_reply(&c, 200, "5242880 0");
    /* a bomb: 8 MiB from a few hundred bytes, where 1 MiB is allowed */
    len = compress(8 * MIB, 0, frame, sizeof(frame));
    assert_true(len < 4096);
    send_zstd(&c, "/medium", frame, len, "zstd");
    CLEANUP(reply_release) struct reply bomb = client_reply(&c, false);
    (void)snprintf(want, sizeof(want), " %d", -EFBIG);
    assert_non_null(strstr(buf_str(&bomb.body), want));
    len = compress(64 * MIB, 27, frame, sizeof(frame)); /* wants a window of 128 MiB */
    send_zstd(&c, "/count", frame, len, "zstd");
    (void)snprintf(want, sizeof(want), "0 %d", -EBADMSG);
    expect_reply(&c, 200, want);
    send_zstd(&c, "/echo", "plain", 5, "identity");
    expect_reply(&c, 200, "plain");
    send_zstd(&c, "/echo", "x", 1, "gzip");
    expect_reply(&c, 415, NULL);
    client_close(&c);
    server_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_zstd)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
