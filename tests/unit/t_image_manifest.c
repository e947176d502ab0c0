/* SPDX-License-Identifier: MIT */
/* The documents that say what an image consists of: read, chosen from, refused. */
#include "tests/unit/image_fixture.h"

#include "server/image_manifest.h"

#include "shared/banned.h"

#define D "sha256:0123456789012345678901234567890123456789012345678901234567890123"
#define HEX "0123456789012345678901234567890123456789012345678901234567890123"

static void test_docker(void **state)
{
    static const struct {
        const char *text, *says; /* says NULL: taken */
    } rows[] = {
        {"[{\"Config\":\"" HEX ".json\",\"Layers\":[\"" HEX "/layer.tar\"]}]", NULL},
        {"[{\"Config\":\"blobs/sha256/" HEX "\",\"Layers\":[\"blobs/sha256/" HEX "\"]}]", NULL},
        {"[{\"Config\":\"c.json\",\"Layers\":[]}]", NULL},
        {"", "no list"},
        {"[]", "no list"},
        {"{}", "no list"},
        {"[{\"Config\":\"c.json\",\"Layers\":[]},{\"Config\":\"d.json\",\"Layers\":[]}]", "2 images"},
        {"[{\"Layers\":[]}]", "no configuration"},
        {"[{\"Config\":\"../c.json\",\"Layers\":[]}]", "no configuration"},
        {"[{\"Config\":\"c.json\"}]", "no configuration"},
        {"[{\"Config\":\"c.json\",\"Layers\":[\"/etc/passwd\"]}]", "no file"},
        {"[{\"Config\":\"c.json\",\"Layers\":[\"a/../b\"]}]", "no file"},
        {"[{\"Config\":\"c.json\",\"Layers\":[7]}]", "no file"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct image_parts parts = {.layers = NULL};
        struct err e = ERR_INIT;
        int r = image_manifest_docker(rows[i].text, strlen(rows[i].text), &parts, &e);
        if (rows[i].says ? r == 0 || !strstr(e.msg, rows[i].says) : r < 0)
            fail_msg("%s: %d %s", rows[i].text, r, e.msg);
        if (i == 0) {
            assert_string_equal(parts.config.digest, D);
            assert_string_equal(parts.layers[0].digest, ""); /* the configuration will tell */
        }
        if (i == 1)
            assert_string_equal(parts.layers[0].digest, D);
        image_parts_release(&parts);
    }
}

static void test_index(void **state)
{
#define M(more) "{\"digest\":\"" D "\",\"size\":5" more "}"
    static const struct {
        const char *text, *says;
        bool index;
    } rows[] = {
        {"{\"manifests\":[" M("") "]}", NULL, false},
        {"{\"manifests\":[" M(",\"mediaType\":\"application/vnd.oci.image.index.v1+json\"") "]}",
            NULL, true},
        {"{\"manifests\":[" M(",\"platform\":{\"os\":\"linux\",\"architecture\":\"arm64\"}") ","
            M(",\"platform\":{\"os\":\"linux\",\"architecture\":\"amd64\"}") ","
            M(",\"platform\":{\"os\":\"unknown\",\"architecture\":\"unknown\"}") "]}",
            NULL, false},
        {"{\"manifests\":[" M("") "," M("") "]}", "2 images", false},
        {"{\"manifests\":[" M(",\"platform\":{\"os\":\"linux\",\"architecture\":\"arm64\"}") "]}",
            "linux/amd64", false},
        {"{\"manifests\":[]}", "no image", false},
        {"{\"manifests\":[{\"digest\":\"sha256:../../x\",\"size\":5}]}", "without a digest", false},
        {"{\"manifests\":[{\"digest\":\"md5:" HEX "\",\"size\":5}]}", "without a digest", false},
        {"{\"manifests\":[{\"digest\":\"" D "\"}]}", "without a digest", false},
        {"{\"manifests\":[{\"digest\":\"" D "\",\"size\":-1}]}", "without a digest", false},
        {"nonsense", "no image", false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct image_blob blob;
        struct err e = ERR_INIT;
        bool index = false;
        int r = image_manifest_index(
            rows[i].text, strlen(rows[i].text), "amd64", &blob, &index, &e);
        if (rows[i].says ? r == 0 || !strstr(e.msg, rows[i].says) : r < 0)
            fail_msg("%s: %d %s", rows[i].text, r, e.msg);
        if (r == 0) {
            assert_string_equal(blob.name, "blobs/sha256/" HEX);
            assert_int_equal(blob.size, 5);
            assert_int_equal(index, rows[i].index);
        }
    }
}

static void test_oci_layers(void **state)
{
    struct buf text;
    struct image_parts parts = {.layers = NULL};
    struct err e = ERR_INIT;
    (void)state;
    buf_init(&text, 1 << 20);
    assert_int_equal(buf_adds(&text, "{\"config\":" M("") ",\"layers\":["), 0);
    for (int i = 0; i < IMAGE_LAYERS_MAX; i++)
        assert_int_equal(buf_addf(&text, "%s" M(""), i ? "," : ""), 0);
    assert_int_equal(buf_adds(&text, "]}"), 0);
    assert_int_equal(image_manifest_oci(buf_str(&text), text.len, &parts, &e), 0);
    assert_int_equal(parts.count, IMAGE_LAYERS_MAX);
    image_parts_release(&parts);
    text.len -= 2;
    assert_int_equal(buf_adds(&text, "," M("") "]}"), 0);
    assert_int_equal(image_manifest_oci(buf_str(&text), text.len, &parts, &e), -EINVAL);
    assert_non_null(strstr(e.msg, "512 layers"));
    image_parts_release(&parts);
    buf_release(&text);
}

static void test_config(void **state)
{
#define R "\"rootfs\":{\"diff_ids\":[\"" D "\"]}"
    static const struct {
        const char *text, *says;
    } rows[] = {
        {"{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{\"Env\":[\"A=b\"]}," R "}", NULL},
        {"{" R "}", NULL},
        {"{\"architecture\":\"arm64\",\"os\":\"linux\"," R "}", "is for linux/arm64"},
        {"{\"architecture\":\"amd64\",\"os\":\"windows\"," R "}", "is for windows/amd64"},
        {"{\"rootfs\":{\"diff_ids\":[]}}", "same layers"},
        {"{}", "same layers"},
        {"{\"rootfs\":{\"diff_ids\":[\"x\"]}}", "without a digest"},
        {"{\"config\":{\"Env\":[\"=b\"]}," R "}", "variable"},
        {"{\"config\":{\"Env\":[\"b\"]}," R "}", "variable"},
        {"{\"config\":{\"Env\":[5]}," R "}", "variable"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct image_blob layer = {.digest = ""};
        struct image_parts parts = {.layers = &layer, .count = 1};
        struct image image = {.source = NULL};
        struct err e = ERR_INIT;
        int r = image_manifest_config(
            rows[i].text, strlen(rows[i].text), "amd64", &parts, &image, &e);
        if (rows[i].says ? r == 0 || !strstr(e.msg, rows[i].says) : r < 0)
            fail_msg("%s: %d %s", rows[i].text, r, e.msg);
        if (r == 0)
            assert_string_equal(layer.digest, D);
        image_release(&image);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_docker), cmocka_unit_test(test_index),
        cmocka_unit_test(test_oci_layers), cmocka_unit_test(test_config)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
