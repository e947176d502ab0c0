/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "shared/hash.h"
#include "shared/io.h"

#include "shared/banned.h"

#define COUNT(rows) (sizeof(rows) / sizeof((rows)[0]))
#define BIG_BYTES ((size_t)300 * 1024)

static uint8_t *make_bytes(size_t len)
{
    uint8_t *data = malloc(len);
    assert_non_null(data);
    for (size_t i = 0; i < len; i++)
        data[i] = (uint8_t)(i * 131 + (i >> 8));
    return data;
}

/* What `xxhsum -H2` prints: the wire's form does not depend on this machine. */
static void known_values(void **state)
{
    (void)state;
    static const struct {
        const char *data, *text;
    } rows[] = {
        {"", "xxh3-128:99aa06d3014798d86001c324468d497f"},
        {"hello\n", "xxh3-128:6bba86c7e069f56d5a10b435f1c8e49c"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct hash h;
        char text[HASH_TEXT_BYTES];
        hash_buf(rows[i].data, strlen(rows[i].data), &h);
        assert_string_equal(hash_text(&h, text), rows[i].text);
    }
    /* Long enough for the vector code that is chosen at run time. */
    static const uint8_t zeros[1000];
    struct hash h, expected;
    hash_buf(zeros, sizeof(zeros), &h);
    assert_int_equal(hash_parse("xxh3-128:3fb94aea6d09b97224c1ea6074dd588c", &expected), 0);
    assert_true(hash_equal(&h, &expected));
}

static void pieces_make_the_same_hash(void **state)
{
    (void)state;
    /* Around the library's own borders: 240 bytes (short inputs), 256 (its buffer), 1024 (a stripe
     * block); and our block of a file. */
    static const size_t lengths[] = {0, 1, 16, 17, 128, 240, 241, 255, 256, 257, 1024, 1025, 65535,
        65536, 65537, 131072, BIG_BYTES};
    static const size_t steps[] = {1, 63, 256, 65536, BIG_BYTES};
    CLEANUP(freep) uint8_t *data = make_bytes(BIG_BYTES);
    CLEANUP(hash_state_freep) struct hash_state *s = hash_state_new();
    assert_non_null(s);
    for (size_t l = 0; l < COUNT(lengths); l++) {
        struct hash whole, pieces;
        hash_buf(data, lengths[l], &whole);
        for (size_t k = 0; k < COUNT(steps); k++) {
            hash_state_reset(s);
            hash_state_add(s, NULL, 0);
            for (size_t at = 0; at < lengths[l]; at += steps[k]) {
                size_t left = lengths[l] - at;
                hash_state_add(s, data + at, left < steps[k] ? left : steps[k]);
            }
            hash_state_get(s, &pieces);
            if (!hash_equal(&whole, &pieces))
                fail_msg("%zu bytes in steps of %zu", lengths[l], steps[k]);
        }
    }
}

static void getting_does_not_disturb(void **state)
{
    (void)state;
    CLEANUP(hash_state_freep) struct hash_state *s = hash_state_new();
    struct hash early, whole, expected;
    hash_state_add(s, "ab", 2);
    hash_state_get(s, &early);
    hash_state_add(s, "cd", 2);
    hash_state_get(s, &whole);
    hash_buf("abcd", 4, &expected);
    assert_true(hash_equal(&whole, &expected));
    assert_false(hash_equal(&early, &whole));
    hash_state_free(NULL);
}

static void files(void **state)
{
    (void)state;
    static const size_t lengths[] = {0, 1, 65535, 65536, 65537, 131072, BIG_BYTES};
    CLEANUP(freep) uint8_t *data = make_bytes(BIG_BYTES);
    for (size_t i = 0; i < COUNT(lengths); i++) {
        CLEANUP(fd_closep) int fd = memfd_create("t_hash", MFD_CLOEXEC);
        assert_true(fd >= 0);
        assert_int_equal(io_write_all(fd, data, lengths[i]), 0);
        assert_int_equal(lseek(fd, 1, SEEK_SET), 1);
        struct hash expected, h;
        uint64_t size = 99;
        hash_buf(data, lengths[i], &expected);
        assert_int_equal(hash_fd(fd, &h, &size, NULL), 0);
        assert_true(size == lengths[i]);
        assert_true(hash_equal(&h, &expected));
        assert_int_equal(lseek(fd, 0, SEEK_CUR), 1); /* the offset is untouched */
        assert_int_equal(hash_fd(fd, &h, NULL, NULL), 0);
    }
}

static void a_file_that_cannot_be_read_says_so(void **state)
{
    (void)state;
    struct hash h;
    struct err e = ERR_INIT;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(hash_fd(ends[0], &h, NULL, &e), -ESPIPE);
    assert_int_equal(e.code, ESPIPE);
    assert_non_null(strstr(e.msg, "Illegal seek"));
    (void)close(ends[0]);
    (void)close(ends[1]);
    assert_int_equal(hash_fd(-1, &h, NULL, &e), -EBADF);
}

static void text_is_exact(void **state)
{
    (void)state;
    struct hash h;
    assert_int_equal(hash_parse("xxh3-128:00112233445566778899aabbccddeeff", &h), 0);
    for (size_t i = 0; i < HASH_BYTES; i++)
        assert_int_equal(h.b[i], i * 0x11);
    char text[HASH_TEXT_BYTES];
    assert_string_equal(hash_text(&h, text), "xxh3-128:00112233445566778899aabbccddeeff");

    static const char *const bad[] = {
        "", "xxh3-128:", "00112233445566778899aabbccddeeff", /* no algorithm */
        "xxh3-128:00112233445566778899aabbccddeef",          /* 31 digits */
        "xxh3-128:00112233445566778899aabbccddeefff",        /* 33 */
        "xxh3-128:00112233445566778899AABBCCDDEEFF",         /* upper case */
        "XXH3-128:00112233445566778899aabbccddeeff", "xxh3-12x:00112233445566778899aabbccddeeff",
        "xxh3-128:00112233445566778899aabbccddeefg", /* not a digit, in the low place */
        "xxh3-128:g0112233445566778899aabbccddeeff", /* and in the high one */
        "xxh3-128: 0112233445566778899aabbccddeeff",
        "\"xxh3-128:00112233445566778899aabbccddeeff", /* an ETag's quotes are not ours */
    };
    struct hash before = h;
    for (size_t i = 0; i < COUNT(bad); i++) {
        if (hash_parse(bad[i], &h) != -EINVAL)
            fail_msg("'%s' was taken", bad[i]);
        assert_true(hash_equal(&h, &before));
    }
}

static void seeds_make_other_hashes(void **state)
{
    (void)state;
    assert_true(hash_block64("abc", 3) == hash_block64("abc", 3));
    assert_true(hash_block64("abc", 3) != hash_block64("abd", 3));
    assert_true(hash_seeded64("abc", 3, 1) != hash_seeded64("abc", 3, 2));
    assert_true(hash_seeded64("abc", 3, 0) == hash_block64("abc", 3));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_values),
        cmocka_unit_test(pieces_make_the_same_hash),
        cmocka_unit_test(getting_does_not_disturb),
        cmocka_unit_test(files),
        cmocka_unit_test(a_file_that_cannot_be_read_says_so),
        cmocka_unit_test(text_is_exact),
        cmocka_unit_test(seeds_make_other_hashes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
