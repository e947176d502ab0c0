/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "shared/manifest.h"

#include "shared/banned.h"

#define COUNT(rows) (sizeof(rows) / sizeof((rows)[0]))
#define MS INT64_C(1000000)

static struct hash content(uint8_t n)
{
    struct hash h;
    memset(h.b, n, sizeof(h.b));
    return h;
}

static void put_file(struct manifest *m, char *path, uint8_t n, uint64_t size)
{
    const struct manifest_entry entry = {
        .path = path, .kind = TREE_FILE, .mode = 0644, .size = size, .hash = content(n)};
    assert_int_equal(manifest_put(m, &entry), 0);
}

static void put_dir(struct manifest *m, char *path)
{
    const struct manifest_entry entry = {.path = path, .kind = TREE_DIR, .mode = 0755};
    assert_int_equal(manifest_put(m, &entry), 0);
}

static struct hash digest(const struct manifest *m)
{
    struct hash h;
    assert_int_equal(manifest_digest(m, &h), 0);
    return h;
}

static void digest_does_not_see_order_or_times(void **state)
{
    (void)state;
    CLEANUP(manifest_freep) struct manifest *forwards = manifest_new();
    CLEANUP(manifest_freep) struct manifest *backwards = manifest_new();
    char path[32];
    for (unsigned i = 0; i < 300; i++) {
        (void)snprintf(path, sizeof(path), "d%u/f%u", i % 7, i);
        put_file(forwards, path, (uint8_t)i, i);
        (void)snprintf(path, sizeof(path), "d%u/f%u", (299 - i) % 7, 299 - i);
        put_file(backwards, path, (uint8_t)(299 - i), 299 - i);
    }
    struct hash a = digest(forwards), b = digest(backwards);
    assert_true(hash_equal(&a, &b));
    /* A detour leaves no trace. */
    (void)snprintf(path, sizeof(path), "x/y");
    put_file(backwards, path, 1, 1);
    assert_int_equal(manifest_move(backwards, "d3", "z"), 0);
    b = digest(backwards);
    assert_false(hash_equal(&a, &b));
    assert_int_equal(manifest_move(backwards, "z", "d3"), 0);
    assert_int_equal(manifest_remove_tree(backwards, "x"), 1);
    b = digest(backwards);
    assert_true(hash_equal(&a, &b));
}

static void digest_of_what_no_program_wrote(void **state)
{
    (void)state;
    CLEANUP(manifest_freep) struct manifest *index = manifest_new();
    CLEANUP(manifest_freep) struct manifest *there = manifest_new();
    char ours[] = "ours", made[] = "made";
    struct hash a, b;
    put_file(index, ours, 1, 1);
    put_file(there, ours, 1, 1);
    const struct manifest_entry by_run = {
        .path = made, .kind = TREE_FILE, .mode = 0644, .size = 2, .hash = content(2), .by_run = 1};
    assert_int_equal(manifest_put(there, &by_run), 0);
    assert_int_equal(manifest_digest_synced(there, &a), 0);
    b = digest(index);
    assert_true(hash_equal(&a, &b));
    b = digest(there);
    assert_false(hash_equal(&a, &b));
    /* Once a change set puts something there it counts. */
    put_file(there, made, 2, 2);
    assert_int_equal(manifest_digest_synced(there, &a), 0);
    assert_true(hash_equal(&a, &b));
}

enum field { PATH, KIND, MODE, SIZE, HASH, TARGET, MTIME, CTIME, INO, SEEN };

static void set_field(struct manifest_entry *entry, enum field field, uint32_t value)
{
    static char other_path[] = "b", other_target[] = "u";
    switch (field) {
    case PATH:
        entry->path = other_path;
        break;
    case KIND:
        entry->kind = (enum tree_kind)value;
        break;
    case MODE:
        entry->mode = value;
        break;
    case SIZE:
        entry->size = value;
        break;
    case HASH:
        entry->hash = content((uint8_t)value);
        break;
    case TARGET:
        entry->target = other_target;
        break;
    case MTIME:
        entry->mtime_ns = value;
        break;
    case CTIME:
        entry->ctime_ns = value;
        break;
    case INO:
        entry->ino = value;
        break;
    case SEEN:
        entry->seen_ns = value;
        break;
    }
}

static void digest_sees_each_field(void **state)
{
    (void)state;
    static char path[] = "a", target[] = "t";
    const struct manifest_entry bases[] = {
        [TREE_FILE] =
            {.path = path, .kind = TREE_FILE, .mode = 0644, .size = 5, .hash = content(1)},
        [TREE_DIR] = {.path = path, .kind = TREE_DIR, .mode = 0755},
        [TREE_SYMLINK] = {.path = path,
            .kind = TREE_SYMLINK,
            .mode = 0777,
            .size = 1,
            .hash = content(1),
            .target = target},
    };
    static const struct {
        enum tree_kind base;
        enum field field;
        uint32_t value;
        bool differs;
    } rows[] = {
        {TREE_FILE, PATH, 0, true}, {TREE_FILE, KIND, TREE_SYMLINK, true},
        {TREE_FILE, KIND, TREE_DIR, true}, {TREE_FILE, MODE, 0645, true},
        {TREE_FILE, MODE, 0444, true},
        {TREE_FILE, MODE, 04644, false}, /* above 0777: not compared */
        {TREE_FILE, SIZE, 6, true}, {TREE_FILE, HASH, 2, true}, {TREE_FILE, MTIME, 1, false},
        {TREE_FILE, CTIME, 1, false}, {TREE_FILE, INO, 1, false}, {TREE_FILE, SEEN, 1, false},
        {TREE_DIR, PATH, 0, true}, {TREE_DIR, KIND, TREE_FILE, true},
        /* everything else is equal */ {TREE_DIR, MODE, 0700, true},
        {TREE_DIR, SIZE, 4096, false},     /* of the file system, not of the tree */
        {TREE_SYMLINK, MODE, 0755, false}, /* a symlink has no permissions */
        {TREE_SYMLINK, HASH, 2, true}, {TREE_SYMLINK, SIZE, 2, true},
        {TREE_SYMLINK, TARGET, 0, false}, /* its hash says that */
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        CLEANUP(manifest_freep) struct manifest *one = manifest_new();
        CLEANUP(manifest_freep) struct manifest *two = manifest_new();
        struct manifest_entry changed = bases[rows[i].base];
        set_field(&changed, rows[i].field, rows[i].value);
        assert_int_equal(manifest_put(one, &bases[rows[i].base]), 0);
        assert_int_equal(manifest_put(two, &changed), 0);
        struct hash a = digest(one), b = digest(two);
        if (hash_equal(&a, &b) == rows[i].differs)
            fail_msg("row %zu", i);
    }
}

static void digest_is_unambiguous(void **state)
{
    (void)state;
    /* Two entries whose names together read like one, and the empty tree. */
    CLEANUP(manifest_freep) struct manifest *one = manifest_new();
    CLEANUP(manifest_freep) struct manifest *two = manifest_new();
    struct hash empty = digest(one), a, b;
    char ab[] = "ab", c[] = "c", just_a[] = "a", bc[] = "bc";
    put_dir(one, ab);
    put_dir(one, c);
    put_dir(two, just_a);
    put_dir(two, bc);
    a = digest(one);
    b = digest(two);
    assert_false(hash_equal(&a, &b));
    assert_false(hash_equal(&a, &empty));
    assert_int_equal(manifest_remove_tree(one, ""), 2);
    a = digest(one);
    assert_true(hash_equal(&a, &empty));
}

/* ---- what may be trusted without reading it again */

static void unchanged_needs_everything_equal_and_settled(void **state)
{
    (void)state;
    static char path[] = "a";
    const int64_t t = INT64_C(1795367065) * 1000 * MS + 500 * MS;
    static const struct {
        enum tree_kind kind;
        uint64_t size, ino;
        int64_t mtime_add, ctime_add; /* of the file now, against the record */
        int64_t mtime_age, ctime_age; /* of the record, before seen_ns */
        bool yes;
    } rows[] = {
        {TREE_FILE, 5, 7, 0, 0, 10 * MS, 10 * MS, true}, /* settled to the nanosecond */
        {TREE_FILE, 5, 7, 0, 0, 1000 * MS, 1000 * MS, true},
        {TREE_FILE, 5, 7, 0, 0, 10 * MS - 1, 10 * MS, false}, /* racy: mtime */
        {TREE_FILE, 5, 7, 0, 0, 10 * MS, 10 * MS - 1, false}, /* racy: ctime */
        {TREE_FILE, 5, 7, 0, 0, 0, 0, false},
        {TREE_FILE, 5, 7, 0, 0, -1000 * MS, 1000 * MS, false},   /* from the future */
        {TREE_SYMLINK, 5, 7, 0, 0, 1000 * MS, 1000 * MS, false}, /* another kind */
        {TREE_FILE, 6, 7, 0, 0, 1000 * MS, 1000 * MS, false},    /* another size */
        {TREE_FILE, 5, 8, 0, 0, 1000 * MS, 1000 * MS, false},    /* another inode */
        {TREE_FILE, 5, 7, 1, 0, 1000 * MS, 1000 * MS, false},    /* mtime by one nanosecond */
        {TREE_FILE, 5, 7, -1, 0, 1000 * MS, 1000 * MS, false},   /* backwards, too */
        {TREE_FILE, 5, 7, 0, 1, 1000 * MS, 1000 * MS, false},    /* ctime */
        {TREE_FILE, 5, 7, 0, 0, 500 * MS, 500 * MS, false},      /* a clock of whole seconds: 2 s */
        {TREE_FILE, 5, 7, 0, 0, 1500 * MS, 1500 * MS, false},
        {TREE_FILE, 5, 7, 0, 0, 2500 * MS, 2500 * MS, true},
        {TREE_FILE, 5, 7, 0, 0, 500 * MS, 501 * MS, true}, /* only the mtime: somebody set it */
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        const struct manifest_entry entry = {.path = path,
            .kind = TREE_FILE,
            .size = 5,
            .ino = 7,
            .mtime_ns = t - rows[i].mtime_age,
            .ctime_ns = t - rows[i].ctime_age,
            .seen_ns = t};
        const struct tree_stat st = {.kind = rows[i].kind,
            .size = rows[i].size,
            .ino = rows[i].ino,
            .mtime_ns = entry.mtime_ns + rows[i].mtime_add,
            .ctime_ns = entry.ctime_ns + rows[i].ctime_add};
        if (manifest_unchanged(&entry, &st) != rows[i].yes)
            fail_msg("row %zu", i);
    }
    /* A record that was never seen is never trusted, at the end of the numbers neither. */
    const struct manifest_entry odd = {.path = path, .kind = TREE_FILE, .seen_ns = INT64_MIN};
    const struct tree_stat st = {.kind = TREE_FILE};
    assert_false(manifest_unchanged(&odd, &st));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digest_does_not_see_order_or_times),
        cmocka_unit_test(digest_of_what_no_program_wrote),
        cmocka_unit_test(digest_sees_each_field),
        cmocka_unit_test(digest_is_unambiguous),
        cmocka_unit_test(unchanged_needs_everything_equal_and_settled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
