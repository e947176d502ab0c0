/* SPDX-License-Identifier: MIT */
/* Names of images, what is noted of them, and what is said of those that are not there. */
#include "tests/unit/image_fixture.h"

#include "server/image.h"

#include "shared/banned.h"

static void test_names(void **state)
{
    static const struct {
        const char *name;
        bool valid;
    } rows[] = {{"a", true}, {"python-3.11", true}, {"A_b.c", true}, {"host", true}, {"", false},
        {".silt", false}, {"..", false}, {"-x", false}, {"a/b", false}, {"a b", false},
        {"a:b", false}, {"\xc3\xa9", false}, {"a\n", false},
        {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", true},
        {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (image_name_valid(rows[i].name) != rows[i].valid)
            fail_msg("'%s'", rows[i].name);
    }
    assert_true(image_is_host(NULL) && image_is_host("") && image_is_host("host"));
    assert_false(image_is_host("hos"));
}

static void test_note(void **state)
{
    char *env[] = {"PATH=/a:/b", "E=x=y", "EMPTY=", NULL};
    char source[] = "file \"of\"\ttar";
    struct image read = {.noted = false};
    struct image image = {.format = "docker", .digest = "sha256:ab", .architecture = "amd64",
        .source = source, .bytes = UINT64_C(1) << 40, .entries = 7, .layers = 2, .left_out = 1,
        .imported_ns = UINT64_C(1795858055334944593), .env = env};
    struct buf text;
    (void)state;
    buf_init(&text, 65536);
    assert_int_equal(image_note_write(&image, &text), 0);
    assert_int_equal(image_note_read(buf_str(&text), text.len, &read), 0);
    assert_true(read.noted);
    assert_string_equal(read.source, source);
    assert_true(read.bytes == image.bytes && read.imported_ns == image.imported_ns);
    assert_string_equal(image_env(&read, "PATH"), "/a:/b");
    assert_string_equal(image_env(&read, "E"), "x=y");
    assert_string_equal(image_env(&read, "EMPTY"), "");
    assert_null(image_env(&read, "EMPT"));
    image_release(&read);
    /* Cut anywhere, it is none. */
    for (size_t len = 0; len + 2 < text.len; len++) {
        struct image none = {.noted = false};
        assert_true(image_note_read(buf_str(&text), len, &none) < 0);
        image_release(&none);
    }
    buf_release(&text);
}

static void test_directory(void **state)
{
    struct image_place p;
    struct image image;
    struct err e = ERR_INIT;
    char **names = NULL, path[256];
    (void)state;
    place_new(&p);
    place_path(&p, "root", path);
    static const char *const dirs[] = {"b", "a", ".silt", ".silt/notes", "host", "not valid"};
    for (size_t i = 0; i < sizeof dirs / sizeof dirs[0]; i++)
        assert_int_equal(mkdirat(p.root, dirs[i], 0755), 0);
    assert_int_equal(symlinkat("a", p.root, "link"), 0);
    assert_int_equal(image_names(path, &names, &e), 0);
    assert_string_equal(names[0], "a");
    assert_string_equal(names[1], "b");
    assert_null(names[2]);
    image_names_free(names);
    assert_int_equal(image_load(path, "a", &image, &e), 0);
    assert_false(image.noted);
    assert_null(image_env(&image, "PATH"));
    image_release(&image);
    assert_int_equal(image_load(path, "link", &image, &e), -ENOENT);
    image_release(&image);
    CLEANUP(fd_closep) int fd = openat(p.root, ".silt/notes/a", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    assert_int_equal(io_write_all(fd, "{}", 2), 0);
    assert_int_equal(image_load(path, "a", &image, &e), -EINVAL);
    image_release(&image);
    assert_true(image_unknown(path, "c", &e) < 0);
    assert_int_equal(e.refusal, PROTO_UNKNOWN_IMAGE);
    assert_non_null(strstr(e.msg, "there is a, b and host"));
    assert_non_null(strstr(e.msg, "`siltd image import c FILE`"));
    assert_true(image_unknown(path, "b", &e) < 0);
    assert_non_null(strstr(e.msg, "siltd doctor"));
    assert_true(image_unknown(NULL, "c d", &e) < 0);
    assert_null(strstr(e.msg, "import"));
    assert_int_equal(image_names("/no/such/folder", &names, &e), 0);
    assert_null(names[0]);
    image_names_free(names);
    place_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_names), cmocka_unit_test(test_note),
        cmocka_unit_test(test_directory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
