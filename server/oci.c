/* SPDX-License-Identifier: MIT */
#include "server/oci.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

#include "shared/weaken.h"

#include "shared/banned.h"

static void json_freep(json_t **j)
{
    json_decref(*j);
    *j = NULL;
}

static const char *const namespaces[] = {
    "user", "pid", "mount", "ipc", "uts", "network", "cgroup", NULL};

static const char *const capability_sets[] = {
    "bounding", "effective", "inheritable", "permitted", "ambient", NULL};

/* One row per mount. A NULL source is replaced by the caller's; options end with NULL. */
struct mount_row {
    const char *destination, *type, *source;
    const char *options[8];
};

/* Writable binds are given nosuid and nodev in their recursive form too: crun 1.8 drops the plain
 * ones without a word when it binds writably inside a user namespace, while it sets rnosuid and
 * rnodev by mount_setattr(2). Read-only binds are remounted with all flags; there the recursive
 * forms must be missing, since they make crun open the target as a directory. */
#define CPU_PERIOD_US 100000 /* the kernel's own */
#define BIND_RW                                                                                    \
    {                                                                                              \
        "bind", "rw", "nosuid", "nodev", "rnosuid", "rnodev", NULL                                 \
    }
#define BIND_RO                                                                                    \
    {                                                                                              \
        "bind", "ro", "nosuid", "nodev", NULL                                                      \
    }

static const struct mount_row proc_mount = {
    "/proc", "proc", "proc", {"nosuid", "noexec", "nodev", NULL}};
static const struct mount_row dev_mount = {
    "/dev", "tmpfs", "tmpfs", {"ro", "nosuid", "strictatime", "mode=0755", "size=64k", NULL}};
static const struct mount_row pts_mount = {"/dev/pts", "devpts", "devpts",
    {"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", NULL}};
static const struct mount_row shm_mount = {
    "/dev/shm", "tmpfs", "shm", {"nosuid", "nodev", "mode=1777", NULL}};
static const struct mount_row tmp_mount = {
    "/tmp", "tmpfs", "tmp", {"nosuid", "nodev", "mode=1777", NULL}};
static const struct mount_row init_mount = {OCI_INIT_PATH, "bind", NULL, BIND_RO};
static const struct mount_row workspace_mount = {"/workspace", "bind", NULL, BIND_RW};
static const struct mount_row cache_mount = {"/cache", "bind", NULL, BIND_RW};
/* Without the recursive forms, which a runtime with a kernel of its own does not know. */
static const struct mount_row workspace_plain_mount = {
    "/workspace", "bind", NULL, {"bind", "rw", "nosuid", "nodev", NULL}};
static const struct mount_row cache_plain_mount = {
    "/cache", "bind", NULL, {"bind", "rw", "nosuid", "nodev", NULL}};
static const struct mount_row sys_mount = {"/sys", "bind", NULL, BIND_RO};
static const struct mount_row online_mount = {
    "/sys/devices/system/cpu/online", "bind", NULL, BIND_RO};

/* Append one mount. size_bytes > 0 adds a size option. */
static int add_mount(
    json_t *mounts, const struct mount_row *row, const char *source, uint64_t size_bytes)
{
    json_t *options = json_array();
    for (const char *const *o = row->options; *o; o++) {
        if (WEAK(**o == 'r' ? *o + 1 : *o))
            continue;
        if (json_array_append_new(options, json_string(*o)) < 0)
            goto fail;
    }
    if (size_bytes > 0 && !WEAK("tmp-size") &&
        json_array_append_new(options, json_sprintf("size=%" PRIu64, size_bytes)) < 0)
        goto fail;
    return json_array_append_new(
        mounts, json_pack("{s:s, s:s, s:s, s:o}", "destination", row->destination, "type",
                    row->type, "source", source ? source : row->source, "options", options));
fail:
    json_decref(options);
    return -1;
}

static json_t *make_mounts(const struct oci_config *c)
{
    CLEANUP(json_freep) json_t *mounts = json_array();
    if (add_mount(mounts, &proc_mount, NULL, 0) < 0 || add_mount(mounts, &dev_mount, NULL, 0) < 0 ||
        (c->init && add_mount(mounts, &pts_mount, NULL, 0) < 0) ||
        add_mount(mounts, &shm_mount, NULL, c->tmp_bytes / 2) < 0 ||
        add_mount(mounts, &tmp_mount, NULL, c->tmp_bytes) < 0 ||
        (c->init && add_mount(mounts, &init_mount, c->init, 0) < 0) ||
        add_mount(mounts, c->init ? &workspace_mount : &workspace_plain_mount, c->workspace, 0) <
            0 ||
        add_mount(mounts, c->init ? &cache_mount : &cache_plain_mount, c->cache, 0) < 0 ||
        (c->sys && add_mount(mounts, &sys_mount, c->sys, 0) < 0) ||
        (c->cpu_online && add_mount(mounts, &online_mount, c->cpu_online, 0) < 0))
        return NULL;
    return ptr_take(&mounts);
}

static json_t *make_texts(const char *const *texts)
{
    json_t *list = json_array();
    for (; texts && *texts; texts++) {
        if (json_array_append_new(list, json_string(*texts)) < 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static json_t *make_process(const struct oci_config *c)
{
    CLEANUP(json_freep) json_t *capabilities = json_object();
    for (const char *const *set = capability_sets; *set; set++) {
        json_t *none = WEAK("capabilities") ? json_pack("[s, s]", "CAP_SYS_ADMIN", "CAP_NET_RAW")
                                            : json_array();
        if (json_object_set_new(capabilities, *set, none) < 0)
            return NULL;
    }
    CLEANUP(json_freep) json_t *rlimits = json_array();
    for (size_t i = 0; i < c->rlimit_count; i++) {
        json_int_t value =
            c->rlimits[i].value > INT64_MAX ? INT64_MAX : (json_int_t)c->rlimits[i].value;
        if (json_array_append_new(rlimits, json_pack("{s:s, s:I, s:I}", "type", c->rlimits[i].name,
                                               "hard", value, "soft", value)) < 0)
            return NULL;
    }
    return json_pack("{s:{s:i, s:i}, s:[s], s:[s, s*], s:s, s:b, s:i, s:O, s:O}", "user", "uid",
        OCI_UID, "gid", OCI_UID, "args", OCI_INIT_PATH, "env", "PATH=/usr/bin:/bin", WEAKEN_LIST,
        "cwd", "/", "noNewPrivileges", !WEAK("privileges"), "oomScoreAdj", c->oom_score_adj,
        "capabilities", capabilities, "rlimits", rlimits);
}

static json_t *make_resources(const struct oci_config *c)
{
    CLEANUP(json_freep) json_t *resources = json_object();
    if (c->memory_bytes > 0) {
        json_int_t limit = c->memory_bytes > INT64_MAX ? INT64_MAX : (json_int_t)c->memory_bytes;
        json_t *memory = json_pack("{s:I}", "limit", limit);
        if ((c->swap == OCI_SWAP_LIMIT &&
                json_object_set_new(memory, "swap", json_integer(limit)) < 0) ||
            (c->swap == OCI_SWAP_SWAPPINESS &&
                json_object_set_new(memory, "swappiness", json_integer(0)) < 0)) {
            json_decref(memory);
            return NULL;
        }
        if (json_object_set_new(resources, "memory", memory) < 0)
            return NULL;
    }
    if (c->pids > 0 && json_object_set_new(
                           resources, "pids", json_pack("{s:I}", "limit", (json_int_t)c->pids)) < 0)
        return NULL;
    if (c->cpus && json_object_set_new(resources, "cpu", json_pack("{s:s}", "cpus", c->cpus)) < 0)
        return NULL;
    if (c->cpu_time > 0 &&
        json_object_set_new(resources, "cpu",
            json_pack("{s:I, s:i}", "quota", (json_int_t)c->cpu_time * CPU_PERIOD_US, "period",
                CPU_PERIOD_US)) < 0)
        return NULL;
    return ptr_take(&resources);
}

static json_t *make_map(unsigned host, uint32_t root)
{
    json_t *map = json_pack(
        "[{s:i, s:I, s:i}]", "containerID", OCI_UID, "hostID", (json_int_t)host, "size", 1);
    if ((root > 0 || WEAK("root-map")) &&
        json_array_append_new(map, json_pack("{s:i, s:I, s:i}", "containerID", 0, "hostID",
                                       (json_int_t)root, "size", 1)) < 0) {
        json_decref(map);
        return NULL;
    }
    return map;
}

static json_t *make_linux(const struct oci_config *c)
{
    CLEANUP(json_freep) json_t *spaces = json_array();
    for (const char *const *n = namespaces; *n; n++) {
        if (WEAK(*n))
            continue;
        if (json_array_append_new(spaces, json_pack("{s:s}", "type", *n)) < 0)
            return NULL;
    }
    CLEANUP(json_freep) json_t *masked = make_texts(WEAK("masked") ? NULL : c->masked);
    CLEANUP(json_freep) json_t *readonly = make_texts(WEAK("readonly") ? NULL : c->readonly);
    CLEANUP(json_freep)
    json_t *out = json_pack("{s:O, s:o, s:o, s:O, s:O}", "namespaces", spaces, "uidMappings",
        make_map(c->host_uid, c->root_id), "gidMappings", make_map(c->host_gid, c->root_id),
        "maskedPaths", masked, "readonlyPaths", readonly);
    if (!out)
        return NULL;
    if (c->cgroup && (json_object_set_new(out, "cgroupsPath", json_string(c->cgroup)) < 0 ||
                         json_object_set_new(out, "resources", make_resources(c)) < 0))
        return NULL;
    return ptr_take(&out);
}

int oci_config_text(const struct oci_config *c, char **ret)
{
    CLEANUP(json_freep) json_t *mounts = make_mounts(c);
    CLEANUP(json_freep) json_t *process = make_process(c);
    CLEANUP(json_freep) json_t *os = make_linux(c);
    /* jansson does not say whether memory or a bad string was the cause; a bad string is the only
     * one that a caller can bring about. */
    if (!mounts || !process || !os)
        return -EINVAL;
    CLEANUP(json_freep)
    json_t *config = json_pack("{s:s, s:O, s:{s:s, s:b}, s:s, s:O, s:O}", "ociVersion", "1.0.0",
        "process", process, "root", "path", c->root, "readonly", !c->root_mounted, "hostname",
        c->hostname, "mounts", mounts, "linux", os);
    if (!config)
        return -EINVAL;
    char *text = json_dumps(config, JSON_COMPACT);
    if (!text)
        return -ENOMEM;
    *ret = text;
    return 0;
}

int oci_set_program(const char *text, const struct oci_program *program, char **ret)
{
    CLEANUP(json_freep) json_t *config = json_loads(text, 0, NULL);
    json_t *process = json_object_get(config, "process");
    CLEANUP(json_freep) json_t *args = make_texts(program->argv);
    CLEANUP(json_freep) json_t *env = make_texts(program->env);
    if (!process || !args || !env || json_object_set(process, "args", args) < 0 ||
        json_object_set(process, "env", env) < 0 ||
        json_object_set_new(process, "cwd", json_string(program->cwd)) < 0)
        return -EINVAL;
    *ret = json_dumps(config, JSON_COMPACT);
    return *ret ? 0 : -ENOMEM;
}
