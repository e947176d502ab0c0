/* SPDX-License-Identifier: MIT */
/* shared/delta_foreign: a stranger's signature is refused before librsync sees it, and a good one
 * gives a delta that makes the file. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "shared/delta.h"
#include "shared/io.h"

#include "shared/banned.h"

#define RK_BLAKE2 0x72730147u
#define RK_MD4 0x72730146u

struct row {
    const char *what;
    uint32_t magic, block, strong;
    uint64_t len; /* of the whole signature */
    enum proto_error refusal;
};

static const struct row rows[] = {
    {"one block", RK_BLAKE2, 1024, 8, 12 + 12, 0},
    {"the largest blocks and sums", RK_BLAKE2, 65536, 32, 12 + 36, 0},
    {"MD4, which can be collided", RK_MD4, 1024, 8, 12 + 12, PROTO_BAD_CHANGES},
    {"no signature", 0x72730236, 1024, 8, 12 + 12, PROTO_BAD_CHANGES},
    {"blocks of no bytes", RK_BLAKE2, 0, 8, 12 + 12, PROTO_BAD_CHANGES},
    {"blocks of one byte", RK_BLAKE2, 1, 8, 12 + 12, PROTO_BAD_CHANGES},
    {"huge blocks", RK_BLAKE2, 0xffffffff, 8, 12 + 12, PROTO_BAD_CHANGES},
    {"no strong sums", RK_BLAKE2, 1024, 0, 12 + 4, PROTO_BAD_CHANGES},
    {"sums of three bytes", RK_BLAKE2, 1024, 3, 12 + 7, PROTO_BAD_CHANGES},
    {"sums of 33 bytes", RK_BLAKE2, 1024, 33, 12 + 37, PROTO_BAD_CHANGES},
    {"sums longer than memory", RK_BLAKE2, 1024, 0xfffffffc, 12 + 12, PROTO_BAD_CHANGES},
    {"no block", RK_BLAKE2, 1024, 8, 12, PROTO_BAD_CHANGES},
    {"half a block", RK_BLAKE2, 1024, 8, 12 + 13, PROTO_BAD_CHANGES},
    {"more blocks than a file has", RK_BLAKE2, 1024, 4, 12 + 8 * ((1u << 18) + 1), PROTO_BAD_CHANGES},
    {"too long", RK_BLAKE2, 1024, 32, 12 + 36 * ((1u << 18) + 1), PROTO_TOO_LARGE},
};

static void test_headers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        CLEANUP(buf_release) struct buf head;
        struct err e = ERR_INIT;
        buf_init(&head, 12);
        assert_int_equal(buf_add_u32(&head, rows[i].magic), 0);
        assert_int_equal(buf_add_u32(&head, rows[i].block), 0);
        assert_int_equal(buf_add_u32(&head, rows[i].strong), 0);
        int r = delta_signature_check(head.data, head.len, rows[i].len, &e);
        if ((r < 0) != (rows[i].refusal != 0) || e.refusal != rows[i].refusal)
            fail_msg("%s: %d %s", rows[i].what, r, e.msg);
        for (size_t cut = 0; cut < head.len; cut++)
            assert_int_equal(delta_signature_check(head.data, cut, cut, &e), -EPROTO);
    }
}

static int sink_buf(void *ctx, const void *data, size_t len)
{
    return buf_add(ctx, data, len);
}

static int file_of(const uint8_t *data, size_t len)
{
    int fd = memfd_create("t", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(io_write_all(fd, data, len), 0);
    return fd;
}

struct source {
    const struct buf *b;
    size_t at;
};

static ssize_t read_source(void *ctx, void *data, size_t len)
{
    struct source *s = ctx;
    size_t n = s->b->len - s->at < len ? s->b->len - s->at : len;
    memcpy(data, s->b->data + s->at, n);
    s->at += n;
    return (ssize_t)n;
}

/* old's signature → delta → new, for an insertion at `at`. */
static void round_trip(size_t size, size_t at, size_t inserted)
{
    CLEANUP(buf_release) struct buf sig, delta;
    CLEANUP(freep) uint8_t *old = malloc(size + 1), *now = malloc(size + inserted + 1);
    struct err e = ERR_INIT;
    struct hash hash, got, want;
    uint64_t seed = 88172645463325252u + size;
    for (size_t i = 0; i < size; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        old[i] = (uint8_t)(seed >> 56);
    }
    memcpy(now, old, at);
    memset(now + at, 'x', inserted);
    memcpy(now + at + inserted, old + at, size - at);
    int old_fd = file_of(old, size), new_fd = file_of(now, size + inserted), out = file_of(NULL, 0);
    buf_init(&sig, DELTA_SIGNATURE_MAX);
    buf_init(&delta, size + inserted + (1u << 20));
    assert_int_equal(delta_sig_write_short(old_fd, size, sink_buf, &sig, &hash, &e), 0);
    if (delta_against(sig.data, sig.len, new_fd, size + inserted, sink_buf, &delta, &e) < 0)
        fail_msg("%s", e.msg);
    struct source source = {.b = &delta};
    assert_int_equal(delta_patch(old_fd, read_source, &source, delta.len, out, size + inserted, &got, &e), 0);
    hash_buf(now, size + inserted, &want);
    assert_true(hash_equal(&got, &want));
    if (size > 1000000)
        assert_true(sig.len + delta.len < size / 50);
    close(old_fd);
    close(new_fd);
    close(out);
}

static void test_round_trips(void **state)
{
    (void)state;
    round_trip(20000, 777, 10);
    round_trip(1000, 1000, 0); /* one short block, nothing new */
    round_trip(3000000, 1234567, 4096);
    round_trip(1024, 0, 1);
}

/* Sums that lie: librsync makes some delta or says no; nothing else. */
static void test_lies(void **state)
{
    CLEANUP(buf_release) struct buf sig, delta;
    struct err e = ERR_INIT;
    struct hash hash;
    uint8_t data[40000];
    (void)state;
    memset(data, 'a', sizeof(data));
    int fd = file_of(data, sizeof(data));
    buf_init(&sig, DELTA_SIGNATURE_MAX);
    buf_init(&delta, 1u << 20);
    assert_int_equal(delta_sig_write(fd, sizeof(data), sink_buf, &sig, &hash, &e), 0);
    for (size_t i = 12; i < sig.len; i += 5)
        sig.data[i] ^= 0x5a;
    assert_int_equal(delta_against(sig.data, sig.len, fd, sizeof(data), sink_buf, &delta, &e), 0);
    assert_true(delta.len <= sizeof(data) + 1024);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_round_trips),
        cmocka_unit_test(test_lies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
