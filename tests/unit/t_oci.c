/* SPDX-License-Identifier: MIT */
/* The container's description: what must never be missing from it, and what the values turn into.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "server/oci.h"

#include "shared/banned.h"

static struct oci_config base_config(void)
{
    return (struct oci_config){.root = "/r",
        .hostname = "silt",
        .init = "/i",
        .workspace = "/w",
        .cache = "/c",
        .host_uid = 1073741825,
        .host_gid = 1073741826,
        .tmp_bytes = 64 << 20,
        .oom_score_adj = 500};
}

static json_t *make(const struct oci_config *config)
{
    char *text = NULL;
    json_error_t error;
    assert_int_equal(oci_config_text(config, &text), 0);
    json_t *j = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    assert_non_null(j);
    free(text);
    return j;
}

/* Walk "linux.uidMappings.0.hostID". */
static json_t *at(json_t *j, const char *path)
{
    while (j && *path) {
        char part[64];
        size_t n = strcspn(path, ".");
        assert_true(n < sizeof part);
        memcpy(part, path, n);
        part[n] = '\0';
        j = json_is_array(j) ? json_array_get(j, strtoul(part, NULL, 10))
                             : json_object_get(j, part);
        path += n + (path[n] == '.');
    }
    return j;
}

static void test_fixed_values(void **state)
{
    (void)state;
    static const struct {
        const char *path, *text; /* text: the value as JSON */
    } rows[] = {
        {"root.readonly", "true"},
        {"root.path", "\"/r\""},
        {"hostname", "\"silt\""},
        {"process.noNewPrivileges", "true"},
        {"process.user.uid", "1000"},
        {"process.user.gid", "1000"},
        {"process.args", "[\"/dev/.silt-init\"]"},
        {"process.oomScoreAdj", "500"},
        {"process.capabilities.bounding", "[]"},
        {"process.capabilities.effective", "[]"},
        {"process.capabilities.inheritable", "[]"},
        {"process.capabilities.permitted", "[]"},
        {"process.capabilities.ambient", "[]"},
        /* one uid and one gid, nothing else: no root inside */
        {"linux.uidMappings", "[{\"containerID\":1000,\"hostID\":1073741825,\"size\":1}]"},
        {"linux.gidMappings", "[{\"containerID\":1000,\"hostID\":1073741826,\"size\":1}]"},
    };
    struct oci_config config = base_config();
    json_t *j = make(&config);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char *text = json_dumps(at(j, rows[i].path), JSON_ENCODE_ANY | JSON_COMPACT);
        assert_non_null(text);
        assert_string_equal(text, rows[i].text);
        free(text);
    }
    json_decref(j);
}

/* runc insists on a uid 0: it becomes nobody's. */
static void test_root_of_runc(void **state)
{
    (void)state;
    struct oci_config config = base_config();
    config.root_id = 4294967293u;
    json_t *j = make(&config);
    assert_int_equal(json_array_size(at(j, "linux.uidMappings")), 2);
    assert_int_equal(json_integer_value(at(j, "linux.uidMappings.1.containerID")), 0);
    assert_true(json_integer_value(at(j, "linux.uidMappings.1.hostID")) == 4294967293);
    assert_true(json_integer_value(at(j, "linux.gidMappings.1.hostID")) == 4294967293);
    json_decref(j);
}

static void test_every_namespace_is_fresh(void **state)
{
    (void)state;
    static const char *const names[] = {
        "user", "pid", "mount", "ipc", "uts", "network", "cgroup", NULL};
    struct oci_config config = base_config();
    json_t *j = make(&config), *spaces = at(j, "linux.namespaces"), *space;
    size_t i, found = 0;
    for (const char *const *n = names; *n; n++) {
        json_array_foreach(spaces, i, space) {
            assert_null(json_object_get(space, "path")); /* never somebody else's */
            found += !strcmp(json_string_value(json_object_get(space, "type")), *n);
        }
    }
    assert_int_equal(found, 7);
    json_decref(j);
}

/* The options of the mount at a destination, joined by commas; "" if there is no such mount. */
static const char *options_at(json_t *j, const char *destination, char out[256])
{
    size_t i, k, len = 0;
    json_t *mount, *option;
    out[0] = '\0';
    json_array_foreach(json_object_get(j, "mounts"), i, mount) {
        if (strcmp(json_string_value(json_object_get(mount, "destination")), destination) != 0)
            continue;
        json_array_foreach(json_object_get(mount, "options"), k, option) {
            size_t n = json_string_length(option);
            assert_true(len + n + 2 < 256);
            if (len)
                out[len++] = ',';
            memcpy(out + len, json_string_value(option), n + 1);
            len += n;
        }
    }
    return out;
}

static void test_mount_options(void **state)
{
    (void)state;
    static const struct {
        const char *destination, *options;
    } rows[] = {
        /* the recursive forms are what crun 1.8 obeys on writable binds */
        {"/workspace", "bind,rw,nosuid,nodev,rnosuid,rnodev"},
        {"/cache", "bind,rw,nosuid,nodev,rnosuid,rnodev"},
        {"/proc", "nosuid,noexec,nodev"},
        {"/tmp", "nosuid,nodev,mode=1777,size=67108864"},
        /* half of /tmp */
        {"/dev/shm", "nosuid,nodev,mode=1777,size=33554432"},
        {"/dev", "ro,nosuid,strictatime,mode=0755,size=64k"},
        {"/dev/.silt-init", "bind,ro,nosuid,nodev"},
        /* only when asked for */
        {"/sys", ""},
        {"/sys/devices/system/cpu/online", ""},
    };
    struct oci_config config = base_config();
    json_t *j = make(&config);
    char out[256];
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_string_equal(options_at(j, rows[i].destination, out), rows[i].options);
    json_decref(j);
    config.sys = "/s";
    config.cpu_online = "/o";
    j = make(&config);
    assert_string_equal(options_at(j, "/sys", out), "bind,ro,nosuid,nodev");
    assert_string_equal(
        options_at(j, "/sys/devices/system/cpu/online", out), "bind,ro,nosuid,nodev");
    json_decref(j);
}

static void test_resources(void **state)
{
    (void)state;
    struct oci_config config = base_config();
    json_t *j = make(&config);
    assert_null(at(j, "linux.cgroupsPath")); /* no cgroup, no limits by it */
    assert_null(at(j, "linux.resources"));
    json_decref(j);

    config.cgroup = "/silt-1/x";
    config.memory_bytes = 1 << 30;
    config.swap = OCI_SWAP_LIMIT;
    config.pids = 65;
    config.cpus = "0,2";
    j = make(&config);
    assert_string_equal(json_string_value(at(j, "linux.cgroupsPath")), "/silt-1/x");
    assert_int_equal(json_integer_value(at(j, "linux.resources.memory.limit")), 1 << 30);
    assert_int_equal(json_integer_value(at(j, "linux.resources.memory.swap")), 1 << 30);
    assert_null(at(j, "linux.resources.memory.swappiness"));
    assert_int_equal(json_integer_value(at(j, "linux.resources.pids.limit")), 65);
    assert_string_equal(json_string_value(at(j, "linux.resources.cpu.cpus")), "0,2");
    json_decref(j);

    config.cpus = NULL; /* a share of the time where no CPUs can be set apart */
    config.cpu_time = 3;
    j = make(&config);
    assert_null(at(j, "linux.resources.cpu.cpus"));
    assert_int_equal(json_integer_value(at(j, "linux.resources.cpu.quota")), 300000);
    assert_int_equal(json_integer_value(at(j, "linux.resources.cpu.period")), 100000);
    json_decref(j);

    config.swap = OCI_SWAP_SWAPPINESS; /* a kernel that does not account swap */
    j = make(&config);
    assert_null(at(j, "linux.resources.memory.swap"));
    assert_true(json_is_integer(at(j, "linux.resources.memory.swappiness")));
    assert_int_equal(json_integer_value(at(j, "linux.resources.memory.swappiness")), 0);
    json_decref(j);
}

static void test_rlimits_and_paths(void **state)
{
    (void)state;
    const struct oci_rlimit rlimits[] = {{"RLIMIT_NOFILE", 1024}, {"RLIMIT_FSIZE", UINT64_MAX}};
    const char *const masked[] = {"/proc/keys", NULL};
    struct oci_config config = base_config();
    config.rlimits = rlimits;
    config.rlimit_count = 2;
    config.masked = masked;
    json_t *j = make(&config);
    assert_string_equal(json_string_value(at(j, "process.rlimits.0.type")), "RLIMIT_NOFILE");
    assert_int_equal(json_integer_value(at(j, "process.rlimits.0.hard")), 1024);
    assert_int_equal(json_integer_value(at(j, "process.rlimits.0.soft")), 1024);
    /* JSON integers are signed here: the largest that fits, never a negative one */
    assert_true(json_integer_value(at(j, "process.rlimits.1.hard")) == INT64_MAX);
    assert_string_equal(json_string_value(at(j, "linux.maskedPaths.0")), "/proc/keys");
    assert_int_equal(json_array_size(at(j, "linux.readonlyPaths")), 0);
    json_decref(j);
}

static void test_paths_that_json_cannot_hold(void **state)
{
    (void)state;
    char *text = NULL;
    struct oci_config config = base_config();
    config.workspace = "/w\xff";
    assert_int_equal(oci_config_text(&config, &text), -EINVAL);
    config = base_config();
    config.root = "/\xc3";
    assert_int_equal(oci_config_text(&config, &text), -EINVAL);
    config = base_config();
    config.cgroup = "/\xff";
    assert_int_equal(oci_config_text(&config, &text), -EINVAL);
    assert_null(text);
    config = base_config();
    config.workspace = "/w \"quoted\" \\ \n"; /* escaped, not refused */
    json_t *j = make(&config);
    assert_string_equal(json_string_value(at(j, "mounts.6.source")), config.workspace);
    json_decref(j);
}

/* A runtime with a kernel of its own: no silt-init, none of the options that it does not know, and
 * a program that is put in later. */
static void test_program(void **state)
{
    (void)state;
    struct oci_config config = base_config();
    config.init = NULL;
    CLEANUP(freep) char *text = NULL;
    CLEANUP(freep) char *with = NULL;
    assert_int_equal(oci_config_text(&config, &text), 0);
    assert_null(strstr(text, "rnosuid"));
    assert_non_null(strstr(text, "\"nosuid\""));
    const struct oci_program program = {.argv = (const char *const[]){"/bin/echo", "a \"b\"", NULL},
        .env = (const char *const[]){"A=1", NULL},
        .cwd = "/workspace"};
    assert_int_equal(oci_set_program(text, &program, &with), 0);
    assert_null(strstr(with, "silt-init"));
    json_t *j = json_loads(with, JSON_REJECT_DUPLICATES, NULL);
    assert_string_equal(json_string_value(at(j, "process.args.1")), "a \"b\"");
    assert_int_equal(json_array_size(at(j, "process.args")), 2);
    assert_string_equal(json_string_value(at(j, "process.env.0")), "A=1");
    assert_string_equal(json_string_value(at(j, "process.cwd")), "/workspace");
    assert_int_equal(json_array_size(at(j, "process.capabilities.bounding")), 0);
    assert_true(json_is_true(at(j, "process.noNewPrivileges")));
    json_decref(j);
    assert_non_null(strstr(text, "\"readonly\":true"));
    const struct oci_program foreign = {
        .argv = (const char *const[]){"\xff", NULL}, .env = program.env, .cwd = "/"};
    char *none = NULL;
    assert_int_equal(oci_set_program(text, &foreign, &none), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fixed_values),
        cmocka_unit_test(test_root_of_runc),
        cmocka_unit_test(test_every_namespace_is_fresh),
        cmocka_unit_test(test_mount_options),
        cmocka_unit_test(test_resources),
        cmocka_unit_test(test_rlimits_and_paths),
        cmocka_unit_test(test_paths_that_json_cannot_hold),
        cmocka_unit_test(test_program),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
