/* SPDX-License-Identifier: MIT */
/* shared/delta: what delta_make says, delta_patch makes; and nothing a stranger sends gets through.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "shared/delta.h"
#include "shared/delta_internal.h"
#include "shared/io.h"

#include "shared/banned.h"

/* ---- material */

static uint64_t next_random(uint64_t *state)
{
    uint64_t x = *state;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    *state = x;
    return x;
}

static uint64_t below(uint64_t *state, uint64_t limit)
{
    return limit ? next_random(state) % limit : 0;
}

struct bytes {
    uint8_t *p;
    size_t len;
};

static struct bytes bytes_random(uint64_t *state, size_t len)
{
    struct bytes b = {malloc(len + 1), len};

    assert_non_null(b.p);
    for (size_t i = 0; i < len; i++)
        b.p[i] = (uint8_t)(next_random(state) >> 32);
    return b;
}

/* Replace `cut` bytes at `at` by the text. */
static struct bytes bytes_splice(
    const struct bytes *old, size_t at, size_t cut, const void *text, size_t len)
{
    struct bytes b = {malloc(old->len - cut + len + 1), old->len - cut + len};

    assert_non_null(b.p);
    memcpy(b.p, old->p, at);
    if (len)
        memcpy(b.p + at, text, len);
    memcpy(b.p + at + len, old->p + at + cut, old->len - at - cut);
    return b;
}

static int file_of(const void *data, size_t len)
{
    int fd = memfd_create("t_delta", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(io_pwrite_all(fd, data, len, 0), 0);
    return fd;
}

static int sink_add(void *ctx, const void *data, size_t len)
{
    return buf_add(ctx, data, len);
}

/* A source over memory that gives at most `step` bytes a call. */
struct feeder {
    const uint8_t *p;
    size_t left, step;
    int truncate_fd; /* > 0: made empty before the first byte is given */
    int fail;        /* negative: what it returns */
};

static ssize_t feeder_read(void *ctx, void *data, size_t len)
{
    struct feeder *f = ctx;
    size_t n = f->left < len ? f->left : len;

    if (f->fail)
        return f->fail;
    if (f->truncate_fd > 0)
        assert_int_equal(ftruncate(f->truncate_fd, 0), 0);
    if (f->step && n > f->step)
        n = f->step;
    memcpy(data, f->p, n);
    f->p += n;
    f->left -= n;
    return (ssize_t)n;
}

/* Apply, and check that the output never grew beyond what was declared. */
static int apply(int basis, const uint8_t *delta, size_t len, size_t step, uint64_t new_size,
    struct bytes *ret, struct hash *ret_hash, struct err *e)
{
    struct feeder feeder = {.p = delta, .left = len, .step = step};
    int out = file_of("", 0);
    struct stat st;
    int r = delta_patch(basis, feeder_read, &feeder, len, out, new_size, ret_hash, e);

    assert_int_equal(fstat(out, &st), 0);
    assert_true((uint64_t)st.st_size <= new_size);
    if (r == 0 && ret) {
        assert_int_equal(st.st_size, new_size);
        ret->len = (size_t)new_size;
        ret->p = malloc(ret->len + 1);
        assert_int_equal(io_pread_full(out, ret->p, ret->len, 0), ret->len);
    }
    close(out);
    return r;
}

/* What a delta says of the new version's blocks is what reading it again would say. Takes it. */
static void check_made(struct delta_sig *made, int fd, uint64_t size)
{
    struct err e = ERR_INIT;
    struct delta_sig *again = NULL;
    struct hash hash;
    struct buf a, b;

    if (!made)
        return;
    buf_init(&a, 64u << 20);
    buf_init(&b, 64u << 20);
    assert_int_equal(delta_sig_make(fd, size, false, &again, &hash, &e), 0);
    assert_int_equal(delta_sig_save(made, &a), 0);
    assert_int_equal(delta_sig_save(again, &b), 0);
    assert_int_equal(a.len, b.len);
    assert_memory_equal(a.data, b.data, a.len);
    buf_release(&a);
    buf_release(&b);
    delta_sig_free(again);
    delta_sig_free(made);
}

/* The same delta in steps, given away as soon as it is known. */
static void check_eager(
    const struct delta_sig *sig, int old_fd, int new_fd, uint64_t size, const struct hash *expected)
{
    struct err e = ERR_INIT;
    struct delta_maker *m = NULL;
    struct hash hash;
    struct bytes got;
    struct buf delta;
    uint64_t before = 0;
    int r;

    buf_init(&delta, 256u << 20);
    assert_int_equal(delta_maker_new(sig, new_fd, size, UINT64_MAX, &m, &e), 0);
    while ((r = delta_maker_step(m, true, sink_add, &delta, &e)) == 1) {
        assert_true(delta_maker_at(m) >= before);
        before = delta_maker_at(m);
    }
    assert_int_equal(r, 0);
    assert_int_equal(delta_maker_at(m), size);
    delta_maker_hash(m, &hash);
    assert_true(hash_equal(&hash, expected));
    assert_int_equal(apply(old_fd, delta.data, delta.len, 0, size, &got, &hash, &e), 0);
    assert_true(hash_equal(&hash, expected));
    free(got.p);
    delta_maker_free(m);
    buf_release(&delta);
}

/* old → delta → new, everything compared. Returns the length of the delta. */
static uint64_t round_trip(const struct bytes *old, const struct bytes *new, bool complete)
{
    struct err e = ERR_INIT;
    struct delta_sig *sig = NULL;
    struct delta_result result;
    struct hash old_hash, new_hash, expected, got_hash;
    struct bytes got;
    struct buf delta;
    int old_fd = file_of(old->p, old->len), new_fd = file_of(new->p, new->len);

    buf_init(&delta, 256u << 20);
    hash_buf(old->p, old->len, &expected);
    assert_int_equal(delta_sig_make(old_fd, old->len, complete, &sig, &old_hash, &e), 0);
    assert_true(hash_equal(&old_hash, &expected));
    assert_int_equal(delta_sig_is_complete(sig), complete);
    assert_int_equal(delta_sig_size(sig), old->len);

    int r = delta_make(sig, new_fd, new->len, UINT64_MAX, sink_add, &delta, &result, &e);
    if (r != 0)
        fail_msg("delta_make: %s", e.msg);
    hash_buf(new->p, new->len, &new_hash);
    assert_true(hash_equal(&result.hash, &new_hash));
    assert_int_equal(result.delta_bytes, delta.len);
    assert_true(result.copied_bytes <= new->len);
    check_made(result.sig, new_fd, new->len);
    check_eager(sig, old_fd, new_fd, new->len, &new_hash);

    r = apply(old_fd, delta.data, delta.len, 0, new->len, &got, &got_hash, &e);
    if (r != 0)
        fail_msg("delta_patch: %s", e.msg);
    assert_true(hash_equal(&got_hash, &new_hash));
    assert_memory_equal(got.p, new->p, new->len);
    free(got.p);
    delta_sig_free(sig);
    close(old_fd);
    close(new_fd);
    uint64_t len = delta.len;
    buf_release(&delta);
    return len;
}

/* ---- properties */

enum edit {
    EDIT_NONE,
    EDIT_INSERT,
    EDIT_DELETE,
    EDIT_REPLACE,
    EDIT_MOVE_BLOCK,
    EDIT_APPEND,
    EDIT_PREPEND,
    EDIT_TRUNCATE,
    EDIT_EMPTY,
    EDIT_SEVERAL,
    EDIT_ALL_NEW,
    EDIT_DOUBLE,
    EDIT_END
};

static struct bytes edited(uint64_t *state, const struct bytes *old, enum edit edit)
{
    uint8_t text[5000];
    size_t len = 1 + below(state, sizeof(text) - 1);
    size_t at = below(state, old->len + 1), cut = below(state, old->len - at + 1);

    for (size_t i = 0; i < len; i++)
        text[i] = (uint8_t)next_random(state);
    switch (edit) {
    case EDIT_INSERT:
        return bytes_splice(old, at, 0, text, len);
    case EDIT_DELETE:
        return bytes_splice(old, at, cut, NULL, 0);
    case EDIT_REPLACE:
        return bytes_splice(old, at, cut < len ? cut : len, text, cut < len ? cut : len);
    case EDIT_MOVE_BLOCK: {
        /* The bytes [at, at + cut) to the end. */
        struct bytes b = bytes_splice(old, at, cut, NULL, 0);
        struct bytes moved = bytes_splice(&b, b.len, 0, old->p + at, cut);
        free(b.p);
        return moved;
    }
    case EDIT_APPEND:
        return bytes_splice(old, old->len, 0, text, len);
    case EDIT_PREPEND:
        return bytes_splice(old, 0, 0, text, len);
    case EDIT_TRUNCATE:
        return bytes_splice(old, at, old->len - at, NULL, 0);
    case EDIT_EMPTY:
        return bytes_splice(old, 0, old->len, NULL, 0);
    case EDIT_SEVERAL: {
        struct bytes b = bytes_splice(old, 0, 0, NULL, 0);
        for (int i = 0; i < 6; i++) {
            struct bytes next = edited(state, &b, (enum edit)(EDIT_INSERT + (int)below(state, 3)));
            free(b.p);
            b = next;
        }
        return b;
    }
    case EDIT_ALL_NEW:
        return bytes_random(state, old->len);
    case EDIT_DOUBLE:
        return bytes_splice(old, old->len, 0, old->p, old->len);
    default:
        return bytes_splice(old, 0, 0, NULL, 0);
    }
}

static void test_property(void **unused)
{
    static const size_t sizes[] = {
        0,
        1,
        64,
        65,
        1023,
        1024,
        1025,
        2047,
        2048,
        2049, /* around one and two blocks */
        5 * 1024,
        16 * 1024 - 1,
        65536,
        65537, /* around librsync's literal size */
        DELTA_CHUNK - 1,
        DELTA_CHUNK,
        DELTA_CHUNK + 1, /* around one read */
        DELTA_CHUNK + DELTA_BLOCK_MIN + 7,
        3 * DELTA_CHUNK + 4321,
    };
    uint64_t state = 0x5117;

    (void)unused;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        for (int edit = 0; edit < EDIT_END; edit++)
            for (int complete = 0; complete < 2; complete++) {
                struct bytes old = bytes_random(&state, sizes[i]);
                struct bytes new = edited(&state, &old, (enum edit)edit);
                (void)round_trip(&old, &new, complete);
                free(old.p);
                free(new.p);
            }
}

/* Few different bytes: equal blocks everywhere, prefix and suffix that overlap in the old file. */
static void test_repetitive(void **unused)
{
    uint64_t state = 77;

    (void)unused;
    for (int round = 0; round < 60; round++) {
        struct bytes old = bytes_random(&state, 1000 + below(&state, 40000));
        for (size_t i = 0; i < old.len; i++)
            old.p[i] = (uint8_t)(round % 3 ? 0 : i / 1024 % 2);
        struct bytes new = edited(&state, &old, (enum edit)(round % EDIT_END));
        (void)round_trip(&old, &new, round & 1);
        free(old.p);
        free(new.p);
    }
}

/* ---- how small it is */

static void test_identical(void **unused)
{
    uint64_t state = 5;
    struct bytes old = bytes_random(&state, 3 * 1024 * 1024 + 17);

    (void)unused;
    /* magic, COPY with one and four bytes of parameters, END */
    assert_int_equal(round_trip(&old, &old, false), 4 + 1 + 1 + 4 + 1);
    free(old.p);
}

static void test_one_line_of_10_mib(void **unused)
{
    struct bytes old = {malloc(10 << 20), 10 << 20};

    (void)unused;
    for (size_t i = 0; i < old.len; i++)
        old.p[i] = i % 80 == 79 ? '\n' : (uint8_t)('a' + (i * 2654435761u >> 20) % 26);
    size_t line = old.len / 80 / 3 * 80;
    struct bytes new = bytes_splice(&old, line, 40, "another line that is shorter", 28);
    assert_true(round_trip(&old, &new, false) < 8192);
    assert_true(round_trip(&old, &new, true) < 8192);
    free(old.p);
    free(new.p);
}

static void test_insertion_into_8_mib(void **unused)
{
    uint64_t state = 42;
    struct bytes old = bytes_random(&state, 8 << 20);

    (void)unused;
    for (int i = 0; i < 4; i++) {
        struct bytes text = bytes_random(&state, 4096);
        struct bytes new = bytes_splice(&old, below(&state, old.len), 0, text.p, text.len);
        /* The text, the one block it fell into, commands. */
        assert_true(round_trip(&old, &new, i & 1) <= 4096 + 1024 + 40);
        free(text.p);
        free(new.p);
    }
    free(old.p);
}

/* Two distant insertions: what lies between is shifted by neither nothing nor all. */
static void test_two_insertions(void **unused)
{
    uint64_t state = 43;
    struct bytes old = bytes_random(&state, 2 << 20);
    struct bytes one = bytes_splice(&old, 100001, 0, "first insertion", 15);
    struct bytes two = bytes_splice(&one, 1900002, 0, "and a second one", 16);

    (void)unused;
    assert_true(round_trip(&old, &two, true) <= 31 + 4 * 1024);
    assert_true(round_trip(&old, &two, false) <= 31 + 2 * 1024 + 40);
    free(old.p);
    free(one.p);
    free(two.p);
}

/* Several changes of length, far apart: a gap that is told in parts costs no more than one. */
static void test_five_insertions(void **unused)
{
    enum { LEN = 24 << 20, TEXT = 100 };
    static const size_t at[] = {1000001, 9100000, 9200003, 17300000, 24000007};
    uint64_t state = 44;
    struct bytes old = bytes_random(&state, LEN), new = bytes_splice(&old, 0, 0, NULL, 0);

    (void)unused;
    for (int i = 0; i < 5; i++) {
        struct bytes text = bytes_random(&state, TEXT + (size_t)i);
        struct bytes next = bytes_splice(&new, at[i], 0, text.p, text.len);
        free(text.p);
        free(new.p);
        new = next;
    }
    /* For each the text, the one block it fell into, two commands. */
    assert_true(round_trip(&old, &new, false) <= 5 * (TEXT + 4 + 1024 + 24) + 30);
    free(old.p);
    free(new.p);
}

/* So much is new that not each place behind it is looked at any more. */
static void test_long_insertion(void **unused)
{
    enum { LEN = 8 << 20, TEXT = 3 << 20 };
    uint64_t state = 46;
    struct bytes old = bytes_random(&state, LEN), text = bytes_random(&state, TEXT);
    struct bytes one = bytes_splice(&old, 1000000, 0, "first", 5);
    struct bytes two = bytes_splice(&one, 3000000, 0, text.p, text.len);
    struct bytes three = bytes_splice(&two, 8000000, 0, "a third", 7);

    (void)unused;
    assert_true(round_trip(&old, &three, false) <= TEXT + 5 + 7 + 3 * (1024 + 24) + 30);
    free(old.p);
    free(text.p);
    free(one.p);
    free(two.p);
    free(three.p);
}

/* Every mark promises a block and none is there: what is made is right all the same. */
static void test_marks_that_lie(void **unused)
{
    enum { LEN = 1 << 20, BLOCK = 1024 };
    uint64_t state = 45;
    struct bytes old = {calloc(1, LEN), LEN}, new = {calloc(1, LEN + 1), LEN + 1};

    (void)unused;
    assert_true(old.p && new.p);
    for (size_t i = 0; i < LEN; i += BLOCK)
        old.p[i + 100] = (uint8_t)(1 + below(&state, 255));
    for (size_t i = 0; i < LEN; i += BLOCK / 8)
        new.p[i + 7 + below(&state, 90)] = (uint8_t)(1 + below(&state, 255));
    assert_true(round_trip(&old, &new, false) <= LEN + 40);
    free(old.p);
    free(new.p);
}

static void check_sparse_zeros(bool complete)
{
    const uint64_t size = 64u << 20;
    struct err e = ERR_INIT;
    struct delta_sig *sig = NULL;
    struct delta_result result;
    struct hash hash, got;
    struct buf delta;
    int old_fd = memfd_create("zeros", MFD_CLOEXEC), new_fd = memfd_create("more", MFD_CLOEXEC);

    buf_init(&delta, 1 << 20);
    assert_int_equal(ftruncate(old_fd, (off_t)size), 0);
    assert_int_equal(ftruncate(new_fd, (off_t)size + 12345678), 0);
    /* Three bytes in the zeros, so that neither end is the whole answer. */
    assert_int_equal(io_pwrite_all(new_fd, "x", 1, 1000000), 0);
    assert_int_equal(io_pwrite_all(new_fd, "y", 1, 33333333), 0);
    assert_int_equal(io_pwrite_all(new_fd, "z", 1, 66666666), 0);
    assert_int_equal(delta_sig_make(old_fd, size, complete, &sig, &hash, &e), 0);
    assert_int_equal(
        delta_make(sig, new_fd, size + 12345678, 1 << 20, sink_add, &delta, &result, &e), 0);
    delta_sig_free(result.sig);
    /* Runs of equal blocks became few copies: not 65,536 of them. */
    assert_true(delta.len < 8192);
    struct feeder feeder = {.p = delta.data, .left = delta.len};
    int out = file_of("", 0);
    assert_int_equal(
        delta_patch(old_fd, feeder_read, &feeder, delta.len, out, size + 12345678, &got, &e), 0);
    assert_true(hash_equal(&got, &result.hash));
    close(out);
    close(old_fd);
    close(new_fd);
    delta_sig_free(sig);
    buf_release(&delta);
}

static void test_sparse_zeros(void **unused)
{
    (void)unused;
    check_sparse_zeros(true);
    check_sparse_zeros(false);
}

static void test_max_bytes(void **unused)
{
    uint64_t state = 9;
    struct bytes old = bytes_random(&state, 100000), new = bytes_random(&state, 100000);
    int old_fd = file_of(old.p, old.len), new_fd = file_of(new.p, new.len);

    (void)unused;
    for (int complete = 0; complete < 2; complete++) {
        struct err e = ERR_INIT;
        struct delta_sig *sig = NULL;
        struct delta_result result;
        struct hash hash;
        struct buf delta;
        buf_init(&delta, 1 << 20);
        assert_int_equal(delta_sig_make(old_fd, old.len, complete, &sig, &hash, &e), 0);
        assert_int_equal(
            delta_make(sig, new_fd, new.len, 60000, sink_add, &delta, &result, &e), -E2BIG);
        assert_true(delta.len <= 60000);
        delta_sig_free(sig);
        buf_release(&delta);
    }
    close(old_fd);
    close(new_fd);
    free(old.p);
    free(new.p);
}

/* ---- files that change */

static void test_stale_sizes(void **unused)
{
    struct err e = ERR_INIT;
    struct delta_sig *sig = NULL;
    struct delta_result result;
    struct hash hash;
    struct buf delta;
    int fd = file_of("0123456789", 10);

    (void)unused;
    buf_init(&delta, 1024);
    assert_int_equal(delta_sig_make(fd, 11, true, &sig, &hash, &e), -ESTALE);
    assert_int_equal(delta_sig_make(fd, 9, true, &sig, &hash, &e), -ESTALE);
    assert_int_equal(delta_sig_make(fd, 10, false, &sig, &hash, &e), 0);
    assert_int_equal(delta_make(sig, fd, 9, 1000, sink_add, &delta, &result, &e), -ESTALE);
    assert_int_equal(delta_make(sig, fd, 11, 1000, sink_add, &delta, &result, &e), -ESTALE);
    assert_int_equal(delta_sig_make(fd, DELTA_FILE_MAX + 1, true, &sig, &hash, &e), -EFBIG);

    /* Completing from other content of the same size leaves the signature as it was. */
    assert_int_equal(io_pwrite_all(fd, "X", 1, 3), 0);
    assert_int_equal(delta_sig_complete(sig, fd, &hash, &e), -ESTALE);
    assert_false(delta_sig_is_complete(sig));
    assert_int_equal(io_pwrite_all(fd, "3", 1, 3), 0);
    assert_int_equal(delta_sig_complete(sig, fd, &hash, &e), 0);
    assert_true(delta_sig_is_complete(sig));
    assert_int_equal(delta_sig_complete(sig, -1, &hash, &e), 0);
    delta_sig_free(sig);
    buf_release(&delta);
    close(fd);
}

/* A sink that writes into the file while it is being read for the second time. */
struct racer {
    struct buf *delta;
    int fd;
    bool keep_mtime;
    bool done;
};

static int sink_race(void *ctx, const void *data, size_t len)
{
    struct racer *racer = ctx;
    struct stat st;

    if (!racer->done) {
        assert_int_equal(fstat(racer->fd, &st), 0);
        assert_int_equal(io_pwrite_all(racer->fd, "other", 5, 900000), 0);
        if (racer->keep_mtime) {
            struct timespec times[2] = {st.st_atim, st.st_mtim};
            assert_int_equal(futimens(racer->fd, times), 0);
        }
        racer->done = true;
    }
    return buf_add(racer->delta, data, len);
}

static void test_race(void **unused)
{
    uint64_t state = 10;
    struct bytes old = bytes_random(&state, 1000), new = bytes_random(&state, 1 << 20);
    int old_fd = file_of(old.p, old.len);

    (void)unused;
    for (int keep = 0; keep < 2; keep++) {
        struct err e = ERR_INIT;
        struct delta_sig *sig = NULL;
        struct delta_result result;
        struct hash hash, got;
        struct buf delta;
        int new_fd = file_of(new.p, new.len);
        buf_init(&delta, 4 << 20);
        /* A time in the past, so that a write is seen whatever the clock's resolution. */
        struct timespec past[2] = {{1000000000, 0}, {1000000000, 0}};
        assert_int_equal(futimens(new_fd, past), 0);
        struct racer racer = {&delta, new_fd, keep, false};
        assert_int_equal(delta_sig_make(old_fd, old.len, false, &sig, &hash, &e), 0);
        int r = delta_make(sig, new_fd, new.len, UINT64_MAX, sink_race, &racer, &result, &e);
        assert_true(racer.done);
        if (!keep) {
            assert_int_equal(r, -ESTALE);
        } else {
            /* Unnoticed here, and refused by who compares the hash. */
            assert_int_equal(r, 0);
            assert_int_equal(apply(old_fd, delta.data, delta.len, 0, new.len, NULL, &got, &e), 0);
            assert_false(hash_equal(&got, &result.hash));
            delta_sig_free(result.sig);
        }
        delta_sig_free(sig);
        buf_release(&delta);
        close(new_fd);
    }
    close(old_fd);
    free(old.p);
    free(new.p);
}

static int sink_fails(void *ctx, const void *data, size_t len)
{
    (void)ctx;
    (void)data;
    (void)len;
    return -ENOSPC;
}

static void test_callbacks_that_fail(void **unused)
{
    struct err e = ERR_INIT;
    struct delta_sig *sig = NULL;
    struct delta_result result;
    struct hash hash;
    int fd = file_of("0123456789", 10), out = file_of("", 0);
    struct feeder feeder = {.fail = -EPIPE};

    (void)unused;
    assert_int_equal(delta_sig_make(fd, 10, false, &sig, &hash, &e), 0);
    assert_int_equal(delta_make(sig, fd, 10, 1000, sink_fails, NULL, &result, &e), -ENOSPC);
    assert_int_equal(e.code, ENOSPC);
    e = (struct err)ERR_INIT;
    assert_int_equal(delta_patch(fd, feeder_read, &feeder, 100, out, 10, &hash, &e), -EPIPE);
    assert_int_equal(e.code, EPIPE);
    /* An error that a source wrote itself stays. */
    e = (struct err)ERR_INIT;
    (void)err_refuse(&e, PROTO_TOO_LARGE, "said by the source");
    assert_int_equal(delta_patch(fd, feeder_read, &feeder, 100, out, 10, &hash, &e), -EPIPE);
    assert_string_equal(e.msg, "said by the source");
    assert_int_equal(delta_patch(fd, feeder_read, &feeder, 100, out, 10, &hash, NULL), -EPIPE);
    delta_sig_free(sig);
    close(fd);
    close(out);
}

/* ---- storage */

static void test_storage(void **unused)
{
    static const size_t sizes[] = {0, 1, 1024, 5000};
    uint64_t state = 11;

    (void)unused;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        for (int complete = 0; complete < 2; complete++) {
            struct bytes old = bytes_random(&state, sizes[i]);
            struct delta_sig *sig = NULL, *loaded = NULL;
            struct err e = ERR_INIT;
            struct hash hash;
            struct buf one, two, small;
            int fd = file_of(old.p, old.len);
            buf_init(&one, 1 << 20);
            buf_init(&two, 1 << 20);
            buf_init(&small, 20);
            assert_int_equal(delta_sig_make(fd, old.len, complete, &sig, &hash, &e), 0);
            assert_int_equal(delta_sig_save(sig, &small), -ENOBUFS);
            assert_int_equal(small.len, 0);
            assert_int_equal(delta_sig_save(sig, &one), 0);
            assert_int_equal(delta_sig_load(one.data, one.len, &loaded, &e), 0);
            assert_int_equal(delta_sig_is_complete(loaded), complete);
            assert_int_equal(delta_sig_save(loaded, &two), 0);
            assert_int_equal(one.len, two.len);
            assert_memory_equal(one.data, two.data, one.len);
            delta_sig_free(loaded);
            /* Every damaged byte and every cut is noticed. */
            for (size_t at = 0; at < one.len; at++) {
                one.data[at] ^= 0x10;
                assert_int_equal(delta_sig_load(one.data, one.len, &loaded, &e), -EBADMSG);
                one.data[at] ^= 0x10;
                assert_int_equal(delta_sig_load(one.data, at, &loaded, &e), -EBADMSG);
            }
            delta_sig_free(sig);
            buf_release(&one);
            buf_release(&two);
            buf_release(&small);
            close(fd);
            free(old.p);
        }
}

/* ---- foreign streams */

#define M "\x72\x73\x02\x36"
#define BASIS "0123456789abcdef" /* 16 bytes */

struct foreign {
    const char *delta;
    size_t len;
    uint64_t new_size;
    const char *says; /* NULL: accepted, with this result */
    const char *result;
};
#define ROW(text, size, says, result)                                                              \
    {                                                                                              \
        text, sizeof(text) - 1, size, says, result                                                 \
    }

static const struct foreign foreign[] = {
    /* good ones, in every width */
    ROW(M "\x00", 0, NULL, ""), ROW(M "\x03xyz\x00", 3, NULL, "xyz"),
    ROW(M "\x41\x03xyz\x00", 3, NULL, "xyz"), ROW(M "\x42\x00\x03xyz\x00", 3, NULL, "xyz"),
    ROW(M "\x43\x00\x00\x00\x03xyz\x00", 3, NULL, "xyz"),
    ROW(M "\x44\x00\x00\x00\x00\x00\x00\x00\x03xyz\x00", 3, NULL, "xyz"),
    ROW(M "\x45\x01\x02\x00", 2, NULL, "12"), ROW(M "\x46\x01\x00\x02\x00", 2, NULL, "12"),
    ROW(M "\x4a\x00\x01\x00\x02\x00", 2, NULL, "12"),
    ROW(M "\x54\x00\x00\x00\x00\x00\x00\x00\x0e\x00\x00\x00\x00\x00\x00\x00\x02\x00", 2, NULL,
        "ef"),
    ROW(M "\x45\x0a\x06\x01-\x45\x00\x04\x00", 11, NULL, "abcdef-0123"),
    ROW(M "\x45\x00\x10\x45\x00\x10\x00", 32, NULL, BASIS BASIS),
    /* not a delta */
    ROW("", 0, "cut off", NULL), ROW("\x72\x73\x01\x36\x00", 0, "magic", NULL), /* a signature */
    ROW("hello\x00", 0, "magic", NULL),
    /* copies */
    ROW(M "\x45\x0f\x02\x00", 2, "outside of the basis", NULL),
    ROW(M "\x45\x10\x01\x00", 1, "outside of the basis", NULL),
    ROW(M "\x45\x03\x00\x00", 0, "a copy is empty", NULL),
    ROW(M "\x45\x00\x00\x00", 0, "a copy is empty", NULL),
    ROW(M "\x54\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x02\x00", 2,
        "outside of the basis", NULL), /* wraps around */
    ROW(M "\x54\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00", 2,
        "outside of the basis", NULL), /* negative for librsync */
    ROW(M "\x54\x00\x00\x00\x00\x00\x00\x00\x00\x80\x00\x00\x00\x00\x00\x00\x00\x00", 2,
        "outside of the basis", NULL),
    /* literals */
    ROW(M "\x41\x00\x00", 0, "a literal is empty", NULL),
    ROW(M "\x44\x40\x00\x00\x00\x00\x00\x00\x00xyz\x00", 3, "a literal is empty or exceeds", NULL),
    ROW(M "\x44\xff\xff\xff\xff\xff\xff\xff\xffxyz\x00", 3, "a literal is empty or exceeds", NULL),
    ROW(M "\x43\x3f\xff\xff\xffxyz\x00", 0x3fffffff, "longer than what is left", NULL),
    ROW(M "\x04xyz\x00", 4, "cut off", NULL), /* takes END as content, as it says */
    /* sizes */
    ROW(M "\x03xyz\x00", 2, "exceeds the size", NULL),
    ROW(M "\x03xyz\x00", 4, "before the result has its size", NULL),
    ROW(M "\x45\x00\x10\x45\x00\x10\x00", 31, "exceeds the size", NULL),
    ROW(M "\x00", 1, "before the result has its size", NULL),
    ROW(M "\x00", UINT64_C(17) << 30, "above 16 GiB", NULL),
    /* structure */
    ROW(M "\x55\x00", 0, "unknown command", NULL), ROW(M "\xff\x00", 0, "unknown command", NULL),
    ROW(M "\x03xyz", 3, "cut off", NULL), ROW(M "\x00\x00", 0, "bytes follow", NULL),
    ROW(M "\x03xyz\x00more", 3, "bytes follow", NULL), ROW(M, 0, "cut off", NULL),
    ROW(M "\x54\x00\x00\x00", 0, "cut off", NULL), /* inside a head */
};

static void test_foreign(void **unused)
{
    int basis = file_of(BASIS, 16);

    (void)unused;
    for (size_t i = 0; i < sizeof(foreign) / sizeof(foreign[0]); i++)
        for (size_t step = 0; step < 3; step++) { /* whole, and 1 and 2 bytes at a time */
            const struct foreign *f = &foreign[i];
            struct err e = ERR_INIT;
            struct bytes got = {NULL, 0};
            struct hash hash, expected;
            int r =
                apply(basis, (const uint8_t *)f->delta, f->len, step, f->new_size, &got, &hash, &e);
            if (!f->says) {
                if (r != 0)
                    fail_msg("row %zu: %s", i, e.msg);
                assert_memory_equal(got.p, f->result, got.len);
                hash_buf(f->result, got.len, &expected);
                assert_true(hash_equal(&hash, &expected));
            } else {
                if (r != -EPROTO || !strstr(e.msg, f->says))
                    fail_msg("row %zu: %d '%s', not '%s'", i, r, e.msg, f->says);
                assert_true(e.refusal == PROTO_BAD_CHANGES || e.refusal == PROTO_TOO_LARGE);
            }
            free(got.p);
        }
    close(basis);
}

/* A whole delta as delta_make writes it, cut after every byte, and one byte too many. */
static void test_every_cut(void **unused)
{
    uint64_t state = 12;
    struct bytes old = bytes_random(&state, 20000);
    struct bytes one = bytes_splice(&old, 3000, 5, "text", 4);
    struct bytes new = bytes_splice(&one, 15000, 500, "more", 4);
    int old_fd = file_of(old.p, old.len), new_fd = file_of(new.p, new.len);
    struct err e = ERR_INIT;
    struct delta_sig *sig = NULL;
    struct delta_result result;
    struct hash hash;
    struct buf delta;

    (void)unused;
    buf_init(&delta, 1 << 20);
    assert_int_equal(delta_sig_make(old_fd, old.len, true, &sig, &hash, &e), 0);
    assert_int_equal(delta_make(sig, new_fd, new.len, 1 << 20, sink_add, &delta, &result, &e), 0);
    delta_sig_free(result.sig);
    assert_true(delta.len < 4 * 1024);
    for (size_t cut = 0; cut < delta.len; cut++)
        assert_int_equal(apply(old_fd, delta.data, cut, 0, new.len, NULL, &hash, &e), -EPROTO);
    assert_int_equal(apply(old_fd, delta.data, delta.len, 1, new.len, NULL, &hash, &e), 0);
    assert_int_equal(buf_addc(&delta, 0), 0);
    assert_int_equal(apply(old_fd, delta.data, delta.len, 0, new.len, NULL, &hash, &e), -EPROTO);
    /* A source that ends before the length it was announced with. */
    struct feeder feeder = {.p = delta.data, .left = delta.len - 3};
    int out = file_of("", 0);
    assert_int_equal(
        delta_patch(old_fd, feeder_read, &feeder, delta.len - 1, out, new.len, &hash, &e), -EPROTO);
    close(out);
    delta_sig_free(sig);
    buf_release(&delta);
    close(old_fd);
    close(new_fd);
    free(old.p);
    free(one.p);
    free(new.p);
}

static void test_basis_that_shrinks(void **unused)
{
    int basis = file_of(BASIS, 16), out = file_of("", 0), directory = open("/", O_RDONLY);
    struct feeder feeder = {
        .p = (const uint8_t *)M "\x45\x00\x10\x00", .left = 8, .truncate_fd = basis};
    struct err e = ERR_INIT;
    struct hash hash;

    (void)unused;
    assert_int_equal(delta_patch(basis, feeder_read, &feeder, 8, out, 16, &hash, &e), -ESTALE);
    assert_int_equal(delta_patch(directory, feeder_read, &feeder, 8, out, 16, &hash, &e), -EINVAL);
    close(basis);
    close(out);
    close(directory);
}

static int count_copy(void *ctx, uint64_t pos, uint64_t copied)
{
    (void)pos;
    (void)copied;
    ++*(uint32_t *)ctx;
    return 0;
}

static void test_too_many_commands(void **unused)
{
    static const uint8_t copy[3] = {0x45, 0x00, 0x01};
    uint32_t count = 0;
    struct delta_limits limits = {1, UINT64_C(1) << 32, UINT64_MAX};
    struct delta_events events = {.copy = count_copy, .ctx = &count};
    struct delta_parser parser;
    struct err e = ERR_INIT;

    (void)unused;
    delta_parser_init(&parser, &limits, &events);
    assert_int_equal(delta_parser_feed(&parser, (const uint8_t *)M, 4, &e), 0);
    for (uint32_t i = 0; i < DELTA_COMMANDS_MAX; i++)
        if (delta_parser_feed(&parser, copy, sizeof(copy), &e) != 0)
            fail_msg("command %u: %s", i, e.msg);
    assert_int_equal(count, DELTA_COMMANDS_MAX);
    assert_int_equal(delta_parser_feed(&parser, copy, sizeof(copy), &e), -EPROTO);
    assert_non_null(strstr(e.msg, "too many commands"));
}

/* What others get is what we would keep: librsync's sums, whole, whatever the size. */
static void test_sig_write(void **unused)
{
    static const size_t sizes[] = {0, 1, 1024, 1025, 300000, DELTA_CHUNK, 2 * DELTA_CHUNK + 7};
    uint64_t seed = 11;

    (void)unused;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct bytes b = bytes_random(&seed, sizes[i]);
        CLEANUP(fd_closep) int fd = file_of(b.p, b.len);
        CLEANUP(delta_sig_freep) struct delta_sig *sig = NULL;
        CLEANUP(buf_release) struct buf out;
        struct hash kept, written;
        struct err e = ERR_INIT;

        buf_init(&out, 1 << 20);
        assert_int_equal(delta_sig_make(fd, b.len, true, &sig, &kept, &e), 0);
        assert_int_equal(delta_sig_write(fd, b.len, sink_add, &out, &written, &e), 0);
        assert_true(hash_equal(&kept, &written));
        assert_int_equal(out.len, sig->sums.len);
        assert_memory_equal(out.data, sig->sums.data, out.len);
        assert_int_equal(delta_sig_write(fd, b.len + 1, sink_add, &out, &written, &e), -ESTALE);
        free(b.p);
    }
    CLEANUP(fd_closep) int fd = file_of("x", 1);
    struct hash hash;
    struct err e = ERR_INIT;
    assert_int_equal(delta_sig_write(fd, DELTA_FILE_MAX + 1, sink_add, NULL, &hash, &e), -EFBIG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_property),
        cmocka_unit_test(test_repetitive),
        cmocka_unit_test(test_identical),
        cmocka_unit_test(test_one_line_of_10_mib),
        cmocka_unit_test(test_insertion_into_8_mib),
        cmocka_unit_test(test_two_insertions),
        cmocka_unit_test(test_five_insertions),
        cmocka_unit_test(test_long_insertion),
        cmocka_unit_test(test_marks_that_lie),
        cmocka_unit_test(test_sparse_zeros),
        cmocka_unit_test(test_max_bytes),
        cmocka_unit_test(test_stale_sizes),
        cmocka_unit_test(test_race),
        cmocka_unit_test(test_callbacks_that_fail),
        cmocka_unit_test(test_storage),
        cmocka_unit_test(test_foreign),
        cmocka_unit_test(test_every_cut),
        cmocka_unit_test(test_basis_that_shrinks),
        cmocka_unit_test(test_too_many_commands),
        cmocka_unit_test(test_sig_write),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
