/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shared/manifest.h"
#include "shared/path.h"

#include "shared/banned.h"

#define COUNT(rows) (sizeof(rows) / sizeof((rows)[0]))

static struct hash content(uint8_t n)
{
    struct hash h;
    memset(h.b, n, sizeof(h.b));
    return h;
}

/* A file of `size` bytes whose content is number n. */
static void put_file(struct manifest *m, const char *path, uint8_t n, uint64_t size)
{
    char copy[PATH_BYTES_MAX + 1];
    (void)snprintf(copy, sizeof(copy), "%s", path);
    const struct manifest_entry entry = {
        .path = copy, .kind = TREE_FILE, .mode = 0644, .size = size, .hash = content(n)};
    assert_int_equal(manifest_put(m, &entry), 0);
    memset(copy, '!', sizeof(copy)); /* the table has its own copy */
}

static void put_dir(struct manifest *m, const char *path)
{
    char copy[64];
    (void)snprintf(copy, sizeof(copy), "%s", path);
    const struct manifest_entry entry = {.path = copy, .kind = TREE_DIR, .mode = 0755};
    assert_int_equal(manifest_put(m, &entry), 0);
}

static void put_link(struct manifest *m, const char *path, const char *target, uint8_t n)
{
    char copy[64], target_copy[64];
    (void)snprintf(copy, sizeof(copy), "%s", path);
    (void)snprintf(target_copy, sizeof(target_copy), "%s", target);
    const struct manifest_entry entry = {.path = copy,
        .kind = TREE_SYMLINK,
        .mode = 0777,
        .size = strlen(target),
        .hash = content(n),
        .target = target_copy};
    assert_int_equal(manifest_put(m, &entry), 0);
    memset(target_copy, '!', sizeof(target_copy));
}

/* The table's paths in its sorted order, joined by spaces. */
static const char *paths(const struct manifest *m)
{
    static char text[4096];
    size_t count, len = 0;
    CLEANUP(freep) const struct manifest_entry **all = manifest_sorted(m, &count);
    assert_non_null(all);
    assert_int_equal(count, manifest_count(m));
    text[0] = '\0';
    for (size_t i = 0; i < count; i++)
        len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%s", i ? " " : "", all[i]->path);
    return text;
}

static const char *with_content(const struct manifest *m, uint8_t n, uint64_t size)
{
    struct hash h = content(n);
    const struct manifest_entry *entry = manifest_by_hash(m, &h, size);
    return entry ? entry->path : "none";
}

static void an_empty_table_has_nothing(void **state)
{
    (void)state;
    CLEANUP(manifest_freep) struct manifest *m = manifest_new();
    assert_int_equal(manifest_count(m), 0);
    assert_true(manifest_bytes(m) == 0);
    assert_null(manifest_get(m, "a"));
    assert_false(manifest_has_children(m, ""));
    assert_false(manifest_has_children(m, "a"));
    assert_int_equal(manifest_remove(m, "a"), 0);
    assert_int_equal(manifest_remove_tree(m, "a"), 0);
    assert_int_equal(manifest_move(m, "a", "b"), -ENOENT);
    assert_int_equal(manifest_move(m, "a", "a"), -ENOENT);
    assert_string_equal(paths(m), "");
    assert_string_equal(with_content(m, 0, 0), "none");
    manifest_free(NULL);
}

static void entries_are_copies(void **state)
{
    (void)state;
    CLEANUP(manifest_freep) struct manifest *m = manifest_new();
    put_file(m, "a/b", 1, 10);
    put_link(m, "l", "a/b", 2);
    assert_string_equal(manifest_get(m, "a/b")->path, "a/b");
    assert_null(manifest_get(m, "a/b")->target);
    assert_string_equal(manifest_get(m, "l")->target, "a/b");
    /* An entry made of the table's own one, whose strings are about to be replaced. */
    struct manifest_entry entry = *manifest_get(m, "l");
    entry.mtime_ns = 77;
    assert_int_equal(manifest_put(m, &entry), 0);
    assert_string_equal(manifest_get(m, "l")->target, "a/b");
    assert_true(manifest_get(m, "l")->mtime_ns == 77);
    assert_int_equal(manifest_count(m), 2);
}

static void bytes_follow_the_files(void **state)
{
    (void)state;
    CLEANUP(manifest_freep) struct manifest *m = manifest_new();
    put_file(m, "a", 1, 10);
    put_file(m, "d/b", 1, 10);
    put_dir(m, "d");
    put_link(m, "l", "target", 3);
    assert_true(manifest_bytes(m) == 20); /* only files count */
    assert_int_equal(manifest_files(m), 2);
    put_file(m, "a", 2, 5);               /* another content */
    assert_true(manifest_bytes(m) == 15);
    put_file(m, "a", 2, 7); /* the same hash under another size */
    assert_true(manifest_bytes(m) == 17);
    put_dir(m, "a"); /* a file becomes a directory */
    assert_true(manifest_bytes(m) == 10);
    assert_int_equal(manifest_files(m), 1);
    put_file(m, "l", 4, 100); /* a symlink becomes a file, and loses its target */
    assert_true(manifest_bytes(m) == 110);
    assert_null(manifest_get(m, "l")->target);
    assert_int_equal(manifest_move(m, "d", "e"), 0);
    assert_true(manifest_bytes(m) == 110);
    assert_int_equal(manifest_remove_tree(m, "e"), 2);
    assert_true(manifest_bytes(m) == 100);
    assert_int_equal(manifest_files(m), 1);
}

static void order_is_of_bytes(void **state)
{
    (void)state;
    CLEANUP(manifest_freep) struct manifest *m = manifest_new();
    static const char *const names[] = {
        "\xff", "b", "a/b", "a.b", "a", "a-b", "B", "a/b/c", "\xc3\xa9", "a b", "a0"};
    for (size_t i = 0; i < COUNT(names); i++)
        put_file(m, names[i], 1, 1);
    assert_string_equal(paths(m), "B a a b a-b a.b a/b a/b/c a0 b \xc3\xa9 \xff");
}

static void children_are_known_without_their_directories(void **state)
{
    (void)state;
    CLEANUP(manifest_freep) struct manifest *m = manifest_new();
    put_file(m, "a/b/c", 1, 1);
    static const struct {
        const char *dir;
        bool yes;
    } rows[] = {
        {"", true},
        {"a", true},
        {"a/b", true},
        {"a/b/c", false}, /* itself is not beneath itself */
        {"a/", false},
        {"b", false},
        {"a/bb", false},
    };
    for (size_t i = 0; i < COUNT(rows); i++)
        if (manifest_has_children(m, rows[i].dir) != rows[i].yes)
            fail_msg("'%s'", rows[i].dir);
    /* With the last one beneath them they are gone, level by level. */
    put_file(m, "a/x", 1, 1);
    assert_int_equal(manifest_remove(m, "a/b/c"), 1);
    assert_false(manifest_has_children(m, "a/b"));
    assert_true(manifest_has_children(m, "a"));
    assert_int_equal(manifest_remove(m, "a/x"), 1);
    assert_false(manifest_has_children(m, "a"));
    assert_false(manifest_has_children(m, ""));
}

static void trees_are_removed_whole_and_no_neighbour(void **state)
{
    (void)state;
    CLEANUP(manifest_freep) struct manifest *m = manifest_new();
    static const char *const names[] = {
        "a", "a-b", "a.b/x", "a/b", "a/b/c/d", "a/e", "ab/c", "b/a/x"};
    for (size_t i = 0; i < COUNT(names); i++)
        put_file(m, names[i], (uint8_t)i, 1);
    assert_int_equal(manifest_remove(m, "a"), 1); /* one path only */
    assert_string_equal(paths(m), "a-b a.b/x a/b a/b/c/d a/e ab/c b/a/x");
    put_dir(m, "a");
    assert_int_equal(manifest_remove_tree(m, "a"), 4);
    assert_string_equal(paths(m), "a-b a.b/x ab/c b/a/x");
    assert_int_equal(manifest_remove_tree(m, "a"), 0);
    assert_int_equal(manifest_remove_tree(m, "b/a"), 1); /* no entry itself */
    assert_int_equal(manifest_remove_tree(m, ""), 3);    /* everything */
    assert_int_equal(manifest_count(m), 0);
}

static void moves(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to;
        int result;
        const char *after;
    } rows[] = {
        {"d", "n", 0, "d-x f n n/1 n/s/2 o o/1 o/9"},         /* a directory with all it holds */
        {"f", "d/f", 0, "d d-x d/1 d/f d/s/2 o o/1 o/9"},     /* a file into it */
        {"f", "x/y/z", 0, "d d-x d/1 d/s/2 o o/1 o/9 x/y/z"}, /* to where nothing was */
        {"d", "o", 0, "d-x f o o/1 o/s/2"},           /* onto another: that goes, all of it */
        {"f", "o", 0, "d d-x d/1 d/s/2 o"},           /* a file onto a directory */
        {"d", "f", 0, "d-x f f/1 f/s/2 o o/1 o/9"},   /* a directory onto a file */
        {"d/s", "t", 0, "d d-x d/1 f o o/1 o/9 t/2"}, /* no entry itself */
        {"d/s", "d", 0, "d-x d/2 f o o/1 o/9"},       /* onto its own parent */
        {"d", "d", 0, "d d-x d/1 d/s/2 f o o/1 o/9"}, /* nowhere */
        {"d", "d/s", -EINVAL, "d d-x d/1 d/s/2 f o o/1 o/9"}, /* into itself */
        {"d", "d/new", -EINVAL, "d d-x d/1 d/s/2 f o o/1 o/9"},
        {"d", "dd", 0, "d-x dd dd/1 dd/s/2 f o o/1 o/9"}, /* a name that begins like it */
        {"none", "x", -ENOENT, "d d-x d/1 d/s/2 f o o/1 o/9"},
        {"none", "o", -ENOENT, "d d-x d/1 d/s/2 f o o/1 o/9"}, /* and the target stays */
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        CLEANUP(manifest_freep) struct manifest *m = manifest_new();
        put_dir(m, "d");
        put_file(m, "d-x", 1, 1);
        put_file(m, "d/1", 2, 2);
        put_file(m, "d/s/2", 3, 3);
        put_file(m, "f", 4, 4);
        put_dir(m, "o");
        put_file(m, "o/1", 5, 5);
        put_file(m, "o/9", 6, 6);
        int r = manifest_move(m, rows[i].from, rows[i].to);
        if (r != rows[i].result || strcmp(paths(m), rows[i].after) != 0)
            fail_msg("%s → %s: %d, %s", rows[i].from, rows[i].to, r, paths(m));
    }
}

static void moved_entries_keep_what_they_are(void **state)
{
    (void)state;
    CLEANUP(manifest_freep) struct manifest *m = manifest_new();
    put_file(m, "d/f", 9, 42);
    put_link(m, "d/l", "f", 8);
    assert_int_equal(manifest_move(m, "d", "e/g"), 0);
    const struct manifest_entry *file = manifest_get(m, "e/g/f");
    struct hash expected = content(9);
    assert_non_null(file);
    assert_string_equal(file->path, "e/g/f");
    assert_true(file->size == 42 && file->mode == 0644 && hash_equal(&file->hash, &expected));
    assert_string_equal(manifest_get(m, "e/g/l")->target, "f");
    assert_null(manifest_get(m, "d/f"));
    assert_false(manifest_has_children(m, "d"));
    assert_true(manifest_has_children(m, "e"));
}

static void contents_are_found_wherever_they_are_now(void **state)
{
    (void)state;
    CLEANUP(manifest_freep) struct manifest *m = manifest_new();
    put_file(m, "a", 1, 10);
    put_file(m, "b", 1, 10);
    put_link(m, "l", "x", 2);
    put_dir(m, "d");
    assert_string_not_equal(with_content(m, 1, 10), "none");
    assert_string_equal(with_content(m, 1, 11), "none"); /* the size must be right as well */
    assert_string_equal(with_content(m, 2, 1), "none");  /* a symlink is no source */
    assert_string_equal(with_content(m, 0, 0), "none");  /* nor is a directory */
    assert_int_equal(manifest_remove(m, "a"), 1);
    assert_string_equal(with_content(m, 1, 10), "b"); /* the other one is still there */
    assert_int_equal(manifest_move(m, "b", "d/c"), 0);
    assert_string_equal(with_content(m, 1, 10), "d/c");
    put_file(m, "d/c", 3, 10); /* replaced */
    assert_string_equal(with_content(m, 1, 10), "none");
    assert_string_equal(with_content(m, 3, 10), "d/c");
    assert_int_equal(manifest_move(m, "l", "d"), 0); /* what it is moved onto goes */
    assert_string_equal(with_content(m, 3, 10), "none");
    put_file(m, "l", 4, 1);
    put_dir(m, "l"); /* no file any more */
    assert_string_equal(with_content(m, 4, 1), "none");
}

/* ---- random operations against a model that is too simple to be wrong */

#define MODEL_MAX 512

struct model {
    struct {
        char path[64];
        uint8_t n;
    } files[MODEL_MAX];
    size_t count;
};

static size_t model_drop(struct model *model, const char *path, bool beneath)
{
    size_t kept = 0;
    for (size_t i = 0; i < model->count; i++) {
        bool drop = strcmp(model->files[i].path, path) == 0 ||
                    (beneath && path_beneath(path, model->files[i].path));
        if (!drop)
            model->files[kept++] = model->files[i];
    }
    size_t dropped = model->count - kept;
    model->count = kept;
    return dropped;
}

static void model_put(struct model *model, const char *path, uint8_t n)
{
    (void)model_drop(model, path, false);
    assert_true(model->count < MODEL_MAX);
    (void)snprintf(model->files[model->count].path, sizeof(model->files[0].path), "%s", path);
    model->files[model->count++].n = n;
}

static int model_move(struct model *model, const char *from, const char *to)
{
    struct model moved = {.count = 0};
    for (size_t i = 0; i < model->count; i++)
        if (path_beneath(from, model->files[i].path))
            moved.files[moved.count++] = model->files[i];
    if (strcmp(from, to) == 0)
        return moved.count > 0 ? 0 : -ENOENT;
    if (path_beneath(from, to))
        return -EINVAL;
    if (moved.count == 0)
        return -ENOENT;
    (void)model_drop(model, from, true);
    (void)model_drop(model, to, true);
    for (size_t i = 0; i < moved.count; i++) {
        char path[128];
        (void)snprintf(path, sizeof(path), "%s%s", to, moved.files[i].path + strlen(from));
        model_put(model, path, moved.files[i].n);
    }
    return 0;
}

static void compare(const struct manifest *m, const struct model *model)
{
    assert_int_equal(manifest_count(m), model->count);
    uint64_t bytes = 0;
    for (size_t i = 0; i < model->count; i++) {
        const struct manifest_entry *entry = manifest_get(m, model->files[i].path);
        assert_non_null(entry);
        assert_int_equal(entry->hash.b[0], model->files[i].n);
        assert_string_not_equal(with_content(m, model->files[i].n, model->files[i].n), "none");
        bytes += model->files[i].n;
    }
    assert_true(manifest_bytes(m) == bytes);
    for (uint8_t n = 1; n <= 8; n++) {
        bool there = false;
        for (size_t i = 0; i < model->count; i++)
            there = there || model->files[i].n == n;
        assert_int_equal(strcmp(with_content(m, n, n), "none") != 0, there);
    }
}

static uint32_t next(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 16;
}

/* One to three names out of three: collisions, nesting and replacement are the rule. */
static void random_path(uint32_t *seed, char out[8])
{
    size_t len = 0;
    for (uint32_t depth = next(seed) % 3 + 1; depth > 0; depth--) {
        out[len++] = "abc"[next(seed) % 3];
        out[len++] = depth > 1 ? '/' : '\0';
    }
}

static void random_operations_agree_with_a_model(void **state)
{
    (void)state;
    for (uint32_t run = 1; run <= 40; run++) {
        uint32_t seed = run;
        CLEANUP(manifest_freep) struct manifest *m = manifest_new();
        struct model model = {.count = 0};
        for (unsigned step = 0; step < 200; step++) {
            char a[8], b[8];
            random_path(&seed, a);
            random_path(&seed, b);
            uint8_t n = (uint8_t)(next(&seed) % 8 + 1);
            switch (next(&seed) % 6) {
            case 0:
                assert_int_equal(manifest_remove(m, a), model_drop(&model, a, false));
                break;
            case 1:
                assert_int_equal(manifest_remove_tree(m, a), model_drop(&model, a, true));
                break;
            case 2:
                assert_int_equal(manifest_move(m, a, b), model_move(&model, a, b));
                break;
            default:
                put_file(m, a, n, n);
                model_put(&model, a, n);
                break;
            }
            bool beneath = false;
            for (size_t i = 0; i < model.count; i++)
                beneath = beneath || (path_beneath(a, model.files[i].path) &&
                                         strcmp(a, model.files[i].path) != 0);
            assert_int_equal(manifest_has_children(m, a), beneath);
            compare(m, &model);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_table_has_nothing),
        cmocka_unit_test(entries_are_copies),
        cmocka_unit_test(bytes_follow_the_files),
        cmocka_unit_test(order_is_of_bytes),
        cmocka_unit_test(children_are_known_without_their_directories),
        cmocka_unit_test(trees_are_removed_whole_and_no_neighbour),
        cmocka_unit_test(moves),
        cmocka_unit_test(moved_entries_keep_what_they_are),
        cmocka_unit_test(contents_are_found_wherever_they_are_now),
        cmocka_unit_test(random_operations_agree_with_a_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
