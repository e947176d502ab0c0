/* SPDX-License-Identifier: MIT */
/* Archives → roots: what honest tools write, and what nobody honest writes. The process is not
 * confined here, so that what stands behind is the building itself. */
#include "tests/unit/image_fixture.h"

#include "server/image_build.h"

#include "shared/banned.h"

static int build(struct image_place *p, const struct buf *archive, struct image *image, struct err *e)
{
    CLEANUP(fd_closep) int file = memory_file(archive);
    const struct image_build b = {.file = file, .root = p->root, .parts = p->parts};
    *image = (struct image){.source = NULL};
    return image_build(&b, image, e);
}

/* "f:CONTENT", "d", "l:TARGET", with the mode in octal before it; "" when nothing is there. */
static void look(const struct image_place *p, const char *path, char out[512])
{
    struct stat st;
    char text[400] = "";
    out[0] = '\0';
    if (fstatat(p->root, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return;
    if (S_ISREG(st.st_mode)) {
        CLEANUP(fd_closep) int fd = openat(p->root, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
        ssize_t n = io_read_full(fd, text, sizeof text - 1);
        text[n > 0 ? n : 0] = '\0';
    } else if (S_ISLNK(st.st_mode)) {
        ssize_t n = readlinkat(p->root, path, text, sizeof text - 1);
        text[n > 0 ? n : 0] = '\0';
    }
    (void)snprintf(out, 512, "%o %c%s%s", st.st_mode & 07777,
        S_ISREG(st.st_mode)   ? 'f'
        : S_ISLNK(st.st_mode) ? 'l'
        : S_ISDIR(st.st_mode) ? 'd'
                              : '?',
        *text ? ":" : "", text);
}

struct expected {
    const char *path, *is;
};

static void check(const struct image_place *p, const struct expected *rows, const char *what)
{
    char got[512];
    for (; rows->path; rows++) {
        look(p, rows->path, got);
        if (strcmp(got, rows->is) != 0)
            fail_msg("%s: %s is '%s' and not '%s'", what, rows->path, got, rows->is);
    }
}

static void test_plain(void **state)
{
    struct image_place p;
    struct image image;
    struct err e = ERR_INIT;
    struct buf tar;
    char digest[IMAGE_DIGEST_BYTES], long_name[200];
    (void)state;
    memset(long_name, 'n', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
    const struct tar_entry entries[] = {{'5', "./", NULL, 0755, 0, 0},
        {'5', "./usr/bin/", NULL, 0755, 0, 0}, {'2', "bin", "usr/bin", 0777, 0, 0},
        {'0', "./bin/prog", "#!", 0755, 0, 0}, {'1', "bin/link", "usr/bin/prog", 0755, 0, 0},
        {'0', "usr/bin/su", "s", 04755, 0, 0}, {'5', "open", NULL, 01777, 0, 0},
        {'0', "open/w", "w", 0666, 0, 0}, {'0', "shadow", "x", 0600, 0, 0},
        {'0', "mine", "x", 0700, 1000, 0}, {'3', "null", NULL, 0666, 0, 0},
        {'6', "fifo", NULL, 0666, 0, 0}, {'0', "new\nline \xc3\xa9", "n", 0, 0, 0},
        {'0', long_name, "long", 0, 0, 0}, {'0', "deep/er/file", "d", 0, 0, 0},
        {'2', "etc-link", "/etc/passwd", 0777, 0, 0}, {'0', "twice", "first", 0, 0, 0},
        {'0', "twice", "second", 0, 0, 0}, {'0', NULL, NULL, 0, 0, 0}};
    const struct expected rows[] = {{"usr/bin/prog", "755 f:#!"}, {"usr/bin/link", "755 f:#!"},
        {"bin", "777 l:usr/bin"}, {"usr/bin/su", "755 f:s"}, {"open", "755 d"},
        {"open/w", "644 f:w"}, {"shadow", "600 f:x"}, {"mine", "705 f:x"}, {"null", ""},
        {"fifo", ""}, {"new\nline \xc3\xa9", "644 f:n"}, {long_name, "644 f:long"},
        {"deep", "755 d"}, {"deep/er/file", "644 f:d"}, {"etc-link", "777 l:/etc/passwd"},
        {"twice", "644 f:second"}, {"dev", "755 d"}, {"proc", "755 d"}, {"workspace", "755 d"},
        {"cache", "755 d"}, {"tmp", "755 d"}, {"sys", "755 d"},
        {"etc/hosts", "644 f:127.0.0.1 localhost silt\n::1 localhost silt\n"}, {NULL, NULL}};
    place_new(&p);
    tar_make(&tar, entries);
    digest_of(&tar, digest);
    if (build(&p, &tar, &image, &e) < 0)
        fail_msg("%s", e.msg);
    check(&p, rows, "a plain root");
    assert_string_equal(image.format, "tar");
    assert_string_equal(image.digest, digest);
    assert_int_equal(image.left_out, 2);
    struct stat st;
    assert_int_equal(fstatat(p.root, "twice", &st, 0), 0);
    assert_int_equal(st.st_mtim.tv_sec, 1000000000);
    place_untouched(&p, "a plain root");
    buf_release(&tar);
    image_release(&image);
    place_free(&p);
}

static void test_users(void **state)
{
    /* What the image has, and what it has then: /etc/passwd and /etc/group. */
    static const struct {
        const char *passwd, *group, *passwd_after;
    } rows[] = {
        {NULL, NULL, "644 f:root:x:0:0:root:/:/usr/sbin/nologin\n"
                     "silt:x:1000:1000:silt:/cache/home:/bin/sh\n"
                     "nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"},
        {"node:x:1000:1000::/home/node:/bin/sh\n", "node:x:1000:\n",
            "644 f:node:x:1000:1000::/home/node:/bin/sh\n"},
        {"root:x:0:0::/:\nx:1000:10001:1000::/:", "g:x:100:\n",
            "644 f:root:x:0:0::/:\nx:1000:10001:1000::/:\nsilt:x:1000:1000:silt:/cache/home:/bin/sh\n"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct image_place p;
        struct image image;
        struct err e = ERR_INIT;
        struct buf tar;
        const struct tar_entry entries[] = {{'5', "etc", NULL, 0755, 0, 0},
            {'0', rows[i].passwd ? "etc/passwd" : "a", rows[i].passwd, 0, 0, 0},
            {'0', rows[i].group ? "etc/group" : "b", rows[i].group, 0, 0, 0},
            {'0', NULL, NULL, 0, 0, 0}};
        const struct expected after[] = {{"etc/passwd", rows[i].passwd_after}, {NULL, NULL}};
        place_new(&p);
        tar_make(&tar, entries);
        if (build(&p, &tar, &image, &e) < 0)
            fail_msg("%s", e.msg);
        check(&p, after, rows[i].passwd ? rows[i].passwd : "none");
        buf_release(&tar);
        image_release(&image);
        place_free(&p);
    }
}

static void test_layers(void **state)
{
    struct image_place p;
    struct image image;
    struct err e = ERR_INIT;
    struct buf layers[3], tar;
    static const struct tar_entry low[] = {{'0', "a", "low", 0, 0, 0}, {'0', "gone", "x", 0, 0, 0},
        {'0', "dir/one", "1", 0, 0, 0}, {'0', "dir/two", "2", 0, 0, 0},
        {'0', "opaque/old", "o", 0, 0, 0}, {'0', "tree/deep/file", "t", 0, 0, 0},
        {'5', "was-dir", NULL, 0755, 0, 0}, {'0', "was-dir/x", "x", 0, 0, 0},
        {'2', "was-link", "dir", 0777, 0, 0}, {'2', "usr-lib", "dir", 0777, 0, 0},
        {'0', ".wh.bottom", "kept out", 0, 0, 0}, {'0', "hard", "h", 0, 0, 0},
        {'1', "hard2", "hard", 0, 0, 0}, {'0', NULL, NULL, 0, 0, 0}};
    static const struct tar_entry middle[] = {{'0', "a", "middle", 0, 0, 0},
        {'0', ".wh.gone", NULL, 0, 0, 0}, {'0', "opaque/new", "n", 0, 0, 0},
        {'0', "opaque/.wh..wh..opq", NULL, 0, 0, 0}, {'0', ".wh.tree", NULL, 0, 0, 0},
        {'0', "was-dir", "file now", 0, 0, 0}, {'5', "was-link", NULL, 0755, 0, 0},
        {'0', "was-link/own", "o", 0, 0, 0}, {'0', "usr-lib/three", "3", 0, 0, 0},
        {'0', "dir/.wh.two", NULL, 0, 0, 0}, {'0', "dir/two", "new two", 0, 0, 0},
        {'0', "hard2", "changed", 0, 0, 0}, {'0', ".wh.absent", NULL, 0, 0, 0},
        {'0', "no/such/.wh.file", NULL, 0, 0, 0}, {'0', NULL, NULL, 0, 0, 0}};
    static const struct tar_entry top[] = {{'0', "dir/.wh.one", NULL, 0, 0, 0},
        {'0', ".wh..wh.plnk", NULL, 0, 0, 0}, {'0', NULL, NULL, 0, 0, 0}};
    const struct expected rows[] = {{"a", "644 f:middle"}, {"gone", ""}, {"opaque/old", ""},
        {"opaque/new", "644 f:n"}, {"tree", ""}, {"was-dir", "644 f:file now"},
        {"was-link", "755 d"}, {"was-link/own", "644 f:o"}, {"usr-lib", "777 l:dir"},
        {"dir/three", "644 f:3"}, {"dir/one", ""}, {"dir/two", "644 f:new two"},
        {"hard", "644 f:h"}, {"hard2", "644 f:changed"}, {".wh.gone", ""}, {".wh.bottom", ""},
        {NULL, NULL}};
    (void)state;
    place_new(&p);
    tar_make(&layers[0], low);
    tar_make(&layers[1], middle);
    tar_make(&layers[2], top);
    docker_make(&tar, layers, 3, 9);
    if (build(&p, &tar, &image, &e) < 0)
        fail_msg("%s", e.msg);
    check(&p, rows, "three layers");
    assert_string_equal(image.format, "docker");
    assert_int_equal(image.layers, 3);
    assert_string_equal(image.architecture, image_architecture());
    assert_string_equal(image_env(&image, "PATH"), "/opt/bin:/bin");
    assert_null(image_env(&image, "PAT"));
    for (size_t i = 0; i < 3; i++)
        buf_release(&layers[i]);
    buf_release(&tar);
    image_release(&image);
    place_free(&p);
}

/* What is refused, and by which words. %s stands for the test's own folder. */
static const struct hostile {
    const char *what;
    struct tar_entry entries[4];
    const char *says; /* NULL: it is taken, harmlessly */
} hostiles[] = {
    {"a name that leads up", {{'0', "../outside/new", "x", 0, 0, 0}}, "'..'"},
    {"a name that leads up later", {{'0', "a/../../outside/new", "x", 0, 0, 0}}, "'..'"},
    {"an absolute name", {{'0', "%s/outside/new", "x", 0, 0, 0}}, "absolute"},
    {"a folder that leads up", {{'5', "..", NULL, 0777, 0, 0}}, "'..'"},
    {"a symlink that leads up, and a file in it",
        {{'2', "a", "../outside", 0777, 0, 0}, {'0', "a/new", "x", 0, 0, 0}}, "no folder"},
    {"an absolute symlink, and a file in it",
        {{'2', "a", "%s/outside", 0777, 0, 0}, {'0', "a/new", "x", 0, 0, 0}}, "no folder"},
    {"an absolute symlink, and a folder in it that is given a mode",
        {{'2', "a", "%s", 0777, 0, 0}, {'5', "a/outside", NULL, 0777, 0, 0}}, "no folder"},
    {"a file written through a symlink",
        {{'2', "a", "%s/outside/secret", 0777, 0, 0}, {'0', "a", "stolen", 0, 0, 0}}, NULL},
    {"a mode given through a symlink",
        {{'2', "a", "%s/outside", 0777, 0, 0}, {'5', "a", NULL, 0777, 0, 0}}, NULL},
    {"a link that leads up",
        {{'1', "a", "../outside/secret", 0, 0, 0}, {'0', "a", "stolen", 0, 0, 0}}, "'..'"},
    {"a link to an absolute name", {{'1', "a", "%s/outside/secret", 0, 0, 0}}, "absolute"},
    {"a link through a symlink",
        {{'2', "a", "%s/outside", 0777, 0, 0}, {'1', "b", "a/secret", 0, 0, 0},
            {'0', "b", "stolen", 0, 0, 0}},
        "no file of it"},
    {"a link to a symlink, and a file over it",
        {{'2', "a", "%s/outside/secret", 0777, 0, 0}, {'1', "b", "a", 0, 0, 0},
            {'0', "b", "stolen", 0, 0, 0}},
        NULL},
    {"a link to a folder", {{'5', "a", NULL, 0755, 0, 0}, {'1', "b", "a", 0, 0, 0}}, "no file of it"},
    {"a link to nothing", {{'1', "b", "a", 0, 0, 0}}, "no file of it"},
    {"a file in a file", {{'0', "a", "x", 0, 0, 0}, {'0', "a/b", "x", 0, 0, 0}}, "is none"},
    {"symlinks that name each other",
        {{'2', "a", "b", 0777, 0, 0}, {'2', "b", "a", 0777, 0, 0}, {'0', "a/x", "x", 0, 0, 0}},
        "place 'a/x'"},
    {"dev is a symlink", {{'2', "dev", "/tmp", 0777, 0, 0}}, "/dev is no folder"},
    {"proc is a file", {{'0', "proc", "x", 0, 0, 0}}, "/proc is no folder"},
    {"sys is a symlink", {{'2', "sys", "proc", 0777, 0, 0}}, "/sys is no folder"},
    {"workspace is a symlink", {{'2', "workspace", "%s/outside", 0777, 0, 0}}, "/workspace is no folder"},
    {"tmp is a symlink", {{'2', "tmp", "%s/outside", 0777, 0, 0}}, "/tmp is no folder"},
    {"etc is a symlink that leads out", {{'2', "etc", "%s/outside", 0777, 0, 0}}, "/etc is no folder"},
    {"the list of users is a symlink",
        {{'5', "etc", NULL, 0755, 0, 0}, {'2', "etc/passwd", "%s/outside/secret", 0777, 0, 0}}, NULL},
    {"a file of 100 GiB", {{'0', "a", "x", 0, 0, UINT64_C(100) << 30}}, "larger than"},
    {"a file that is shorter than it says", {{'0', "a", "x", 0, 0, 4096}}, "no archive"},
};

/* %s → the folder, in memory that lives as long as the test. */
static const char *filled(const char *text, const char *base, char out[300])
{
    const char *at = text ? strstr(text, "%s") : NULL;
    if (!at)
        return text;
    (void)snprintf(out, 300, "%.*s%s%s", (int)(at - text), text, base, at + 2);
    return out;
}

static void test_hostile(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof hostiles / sizeof hostiles[0]; i++) {
        const struct hostile *h = &hostiles[i];
        struct image_place p;
        struct image image;
        struct err e = ERR_INIT;
        struct buf tar;
        char names[4][300], texts[4][300];
        struct tar_entry entries[5] = {{.type = '0'}};
        place_new(&p);
        for (size_t k = 0; k < 4 && h->entries[k].name; k++) {
            entries[k] = h->entries[k];
            entries[k].name = filled(entries[k].name, p.base, names[k]);
            entries[k].text = filled(entries[k].text, p.base, texts[k]);
        }
        tar_make(&tar, entries);
        int r = build(&p, &tar, &image, &e);
        place_untouched(&p, h->what);
        if (!h->says && r < 0)
            fail_msg("%s is refused: %s", h->what, e.msg);
        if (h->says && r == 0)
            fail_msg("%s is taken", h->what);
        if (h->says && !strstr(e.msg, h->says))
            fail_msg("%s is refused because: %s", h->what, e.msg);
        buf_release(&tar);
        image_release(&image);
        place_free(&p);
    }
}

/* The same in a second layer, whose names may hide things. */
static void test_hostile_layers(void **state)
{
    static const struct {
        const char *what;
        struct tar_entry entries[2];
        const char *says;
    } rows[] = {
        {"hiding what lies above the root", {{'0', ".wh...", NULL, 0, 0, 0}}, "hides no file"},
        {"hiding the folder itself", {{'0', "d/.wh..", NULL, 0, 0, 0}}, "hides no file"},
        {"hiding nothing", {{'0', "d/.wh.", NULL, 0, 0, 0}}, "hides no file"},
        {"hiding above by a name", {{'0', "../outside/.wh.secret", NULL, 0, 0, 0}}, "'..'"},
        {"hiding through a symlink", {{'0', "out/.wh.secret", NULL, 0, 0, 0}}, NULL},
        {"emptying through a symlink", {{'0', "out/.wh..wh..opq", NULL, 0, 0, 0}}, NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct image_place p;
        struct image image;
        struct err e = ERR_INIT;
        struct buf layers[2], tar;
        char target[300];
        place_new(&p);
        (void)snprintf(target, sizeof target, "%s/outside", p.base);
        const struct tar_entry low[] = {{'5', "d", NULL, 0755, 0, 0},
            {'2', "out", target, 0777, 0, 0}, {'0', NULL, NULL, 0, 0, 0}};
        const struct tar_entry high[] = {rows[i].entries[0], {'0', NULL, NULL, 0, 0, 0}};
        tar_make(&layers[0], low);
        tar_make(&layers[1], high);
        docker_make(&tar, layers, 2, 9);
        int r = build(&p, &tar, &image, &e);
        place_untouched(&p, rows[i].what);
        if (rows[i].says ? r == 0 || !strstr(e.msg, rows[i].says) : r < 0)
            fail_msg("%s: %d, %s", rows[i].what, r, e.msg);
        buf_release(&layers[0]);
        buf_release(&layers[1]);
        buf_release(&tar);
        image_release(&image);
        place_free(&p);
    }
}

static void test_digests(void **state)
{
    static const struct tar_entry entries[] = {{'0', "a", "x", 0, 0, 0}, {'0', NULL, NULL, 0, 0, 0}};
    (void)state;
    for (size_t bad = 0; bad < 2; bad++) {
        struct image_place p;
        struct image image;
        struct err e = ERR_INIT;
        struct buf layers[2], tar;
        place_new(&p);
        tar_make(&layers[0], entries);
        tar_make(&layers[1], entries);
        err_ignore(buf_addc(&layers[1], '\0')); /* or both had one digest, and one name */
        docker_make(&tar, layers, 2, bad);
        assert_int_equal(build(&p, &tar, &image, &e), -EINVAL);
        if (!strstr(e.msg, "and not sha256:"))
            fail_msg("%s", e.msg);
        buf_release(&layers[0]);
        buf_release(&layers[1]);
        buf_release(&tar);
        image_release(&image);
        place_free(&p);
    }
}

/* Cut at any place, and with any byte changed, an archive is a root or an error, and nothing else. */
static void test_damaged(void **state)
{
    static const struct tar_entry entries[] = {{'0', "a", "low", 0, 0, 0},
        {'2', "l", "a", 0777, 0, 0}, {'5', "d", NULL, 0755, 0, 0}, {'0', NULL, NULL, 0, 0, 0}};
    struct buf layers[1], tar;
    struct image_place p;
    (void)state;
    tar_make(&layers[0], entries);
    docker_make(&tar, layers, 1, 9);
    place_new(&p);
    for (size_t len = 0; len < tar.len; len += 253) {
        for (int change = 0; change < 2; change++) {
            struct image image;
            struct buf damaged;
            buf_init(&damaged, TAR_BYTES_MAX);
            assert_int_equal(buf_add(&damaged, tar.data, change ? tar.len : len), 0);
            if (change)
                damaged.data[len] ^= 0x41;
            err_ignore(build(&p, &damaged, &image, NULL));
            image_release(&image);
            buf_release(&damaged);
            place_untouched(&p, "a damaged archive");
            CLEANUP(fd_closep) int base = open(p.base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
            assert_int_equal(tree_remove_at(base, "root", NULL), 0);
            assert_int_equal(tree_remove_at(base, "parts", NULL), 0);
            assert_int_equal(mkdirat(base, "root", 0755) | mkdirat(base, "parts", 0755), 0);
            (void)close(p.root);
            (void)close(p.parts);
            p.root = openat(base, "root", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
            p.parts = openat(base, "parts", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        }
    }
    place_free(&p);
    buf_release(&layers[0]);
    buf_release(&tar);
}

static void test_room(void **state)
{
    static const struct tar_entry entries[] = {{'0', "a", "x", 0, 0, 0}, {'0', NULL, NULL, 0, 0, 0}};
    struct image_place p;
    struct image image = {.source = NULL};
    struct err e = ERR_INIT;
    struct buf tar;
    (void)state;
    place_new(&p);
    tar_make(&tar, entries);
    CLEANUP(fd_closep) int file = memory_file(&tar);
    const struct image_build b = {
        .file = file, .root = p.root, .parts = p.parts, .min_free_bytes = UINT64_C(1) << 60};
    assert_true(image_build(&b, &image, &e) < 0);
    assert_int_equal(e.refusal, PROTO_NO_SPACE);
    buf_release(&tar);
    image_release(&image);
    place_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_plain), cmocka_unit_test(test_users),
        cmocka_unit_test(test_layers), cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_hostile_layers), cmocka_unit_test(test_digests),
        cmocka_unit_test(test_damaged), cmocka_unit_test(test_room)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
