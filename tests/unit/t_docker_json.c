/* SPDX-License-Identifier: MIT */
/* What Docker Engine is told about a container, and what is believed of its answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/docker_json.h"

#include "shared/banned.h"

#define ID "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static const struct container_spec spec = {.id = "run_a",
    .workspace = "/w",
    .cache = "/c",
    .image = "host",
    .uid = 1073741825,
    .gid = 1073741826,
    .limits = {.memory_bytes = 1 << 28,
        .pids = 10,
        .cpus = 2,
        .open_files = 64,
        .file_bytes = 1000,
        .tmp_bytes = 1 << 26}};

static json_t *create(const struct docker_container *what)
{
    char *text = NULL;
    assert_int_equal(docker_json_create(what, &text), 0);
    json_t *j = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    free(text);
    assert_non_null(j);
    return j;
}

/* The compact text of a member, compared. */
static void same(const json_t *o, const char *member, const char *expected)
{
    char *text = json_dumps(json_object_get(o, member), JSON_COMPACT | JSON_ENCODE_ANY);
    if (!text || strcmp(text, expected) != 0)
        fail_msg("%s is %s, not %s", member, text ? text : "missing", expected);
    free(text);
}

static void test_create(void **state)
{
    (void)state;
    const struct docker_container what = {.owner = "silt-1",
        .image = "sha256:" ID,
        .folder = "/f",
        .spec = &spec,
        .oom_score_adj = 5};
    json_t *j = create(&what);
    same(j, "User", "\"1073741825:1073741826\"");
    same(j, "Entrypoint", "[\"/dev/.silt/init\"]"); /* the image's own is not run */
    same(j, "Labels", "{\"silt.engine\":\"silt-1\"}");
    same(j, "NetworkDisabled", "true");
    const json_t *host = json_object_get(j, "HostConfig");
    same(host, "NetworkMode", "\"none\"");
    same(host, "ReadonlyRootfs", "true");
    same(host, "Privileged", "false");
    same(host, "CapDrop", "[\"ALL\"]");
    same(host, "SecurityOpt", "[\"no-new-privileges\"]");
    same(host, "IpcMode", "\"private\"");
    same(host, "Memory", "268435456");
    same(host, "MemorySwap", "268435456");
    same(host, "PidsLimit", "11");
    same(host, "NanoCpus", "2000000000");
    same(host, "ShmSize", "33554432");
    same(host, "Tmpfs", "{\"/tmp\":\"rw,exec,nosuid,nodev,mode=1777,size=67108864\"}");
    same(host, "Ulimits",
        "[{\"Name\":\"core\",\"Soft\":0,\"Hard\":0},{\"Name\":\"nofile\",\"Soft\":64,\"Hard\":64},"
        "{\"Name\":\"fsize\",\"Soft\":1000,\"Hard\":1000},{\"Name\":\"nproc\",\"Soft\":30000,"
        "\"Hard\":"
        "30000}]");
    same(host, "LogConfig", "{\"Type\":\"none\"}");
    const json_t *mounts = json_object_get(host, "Mounts");
    assert_int_equal(json_array_size(mounts), 3); /* and no other */
    static const char *const expected[3][3] = {{"\"/f\"", "\"/dev/.silt\"", "true"},
        {"\"/w\"", "\"/workspace\"", "false"}, {"\"/c\"", "\"/cache\"", "false"}};
    for (size_t i = 0; i < 3; i++) {
        const json_t *mount = json_array_get(mounts, i);
        same(mount, "Type", "\"bind\"");
        same(mount, "Source", expected[i][0]);
        same(mount, "Target", expected[i][1]);
        same(mount, "ReadOnly", expected[i][2]);
    }
    json_decref(j);

    const struct docker_container probe = {.owner = "silt-1", .image = "sha256:" ID};
    j = create(&probe);
    assert_null(json_object_get(json_object_get(j, "HostConfig"), "Mounts"));
    json_decref(j);
}

static void test_ids(void **state)
{
    (void)state;
    char id[DOCKER_ID_BYTES];
    assert_int_equal(docker_json_id("{\"Id\":\"" ID "\"}", "Id", id, sizeof id), 0);
    assert_string_equal(id, ID);
    static const char *const bad[] = {"", "{}", "[]", "{\"Id\":5}", "{\"Id\":\"\"}",
        "{\"Id\":\"0123456789ab/../../x\"}", "{\"Id\":\"0123456789abc?force=1\"}",
        "{\"Id\":\"0123\"}", "{\"Id\":\"" ID "0\"}", "{\"Id\":\"0123456789ABCDEF\"}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(docker_json_id(bad[i], "Id", id, sizeof id), -EINVAL);
}

/* Only what carries our label is ever named for removal. */
static void test_list(void **state)
{
    (void)state;
    static char ids[DOCKER_LIST_MAX][DOCKER_ID_BYTES];
    const char *text = "[{\"Id\":\"" ID "\",\"Labels\":{\"silt.engine\":\"silt-2\"}},"
                       "{\"Id\":\"aaaaaaaaaaaa\",\"Labels\":{\"silt.engine\":\"silt-1\"}},"
                       "{\"Id\":\"bbbbbbbbbbbb\",\"Labels\":{}},{\"Id\":\"cccccccccccc\"},5,"
                       "{\"Id\":\"dddddddddddd\",\"Labels\":{\"silt.engine\":[\"silt-1\"]}},"
                       "{\"Id\":\"../x\",\"Labels\":{\"silt.engine\":\"silt-1\"}}]";
    assert_int_equal(docker_json_list(text, "silt-1", ids), 1);
    assert_string_equal(ids[0], "aaaaaaaaaaaa");
    assert_int_equal(docker_json_list("{\"message\":\"no\"}", "silt-1", ids), -EINVAL);
    assert_int_equal(docker_json_list("", "silt-1", ids), -EINVAL);
}

static void test_answers(void **state)
{
    (void)state;
    char text[24];
    struct docker_info info;
    struct docker_image image;
    docker_json_message("{\"message\":\"a\\u001b[31m\\nb and much more text\"}", text, sizeof text);
    assert_string_equal(text, "a [31m b and much more ");
    docker_json_message("<html>", text, sizeof text);
    assert_string_equal(text, "");
    assert_true(docker_json_oom("{\"State\":{\"OOMKilled\":true}}"));
    assert_false(docker_json_oom("{\"State\":{\"OOMKilled\":\"true\"}}"));
    assert_int_equal(docker_json_info("{\"ServerVersion\":\"20.1\\u001b\",\"CgroupVersion\":\"2\","
                                      "\"MemoryLimit\":true,\"PidsLimit\":false}",
                         &info),
        0);
    assert_string_equal(info.version, "20.1?");
    assert_string_equal(info.cgroups, "v2");
    assert_true(info.memory);
    assert_false(info.pids);
    assert_int_equal(docker_json_info("{}", &info), -EINVAL);
    assert_int_equal(docker_json_image(
                         "{\"Id\":\"sha256:" ID "\",\"Config\":{\"Volumes\":{\"/v\":{}}}}", &image),
        0);
    assert_true(image.volumes);
    assert_string_equal(image.id, "sha256:" ID);
    assert_int_equal(docker_json_image("{\"Id\":\"sha256:x\"}", &image), -EINVAL);
}

static void test_cgroup(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool v2;
        const char *path;
    } rows[] = {
        {"12:pids:/docker/x\n5:memory:/docker/y\n0::/z\n", false, "/docker/y"},
        {"12:pids:/docker/x\n5:memory:/docker/y\n0::/z\n", true, "/z"},
        {"0::/../../init.scope\n", true, ""}, /* outside of what is seen from here */
        {"0::relative\n", true, ""},
        {"5:memory\n", false, ""},
        {"", true, ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char path[32];
        docker_cgroup_path(rows[i].text, rows[i].v2, path, sizeof path);
        assert_string_equal(path, rows[i].path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_create),
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_cgroup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
