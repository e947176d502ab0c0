/* SPDX-License-Identifier: MIT */
#include "server/docker_json.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "server/init.h"
#include "server/oci.h"
#include "shared/weaken.h"

#include "shared/banned.h"

#define TMP_BYTES_MIN (1024 * 1024)
/* Of all runs of a sandbox together, since the kernel counts by user; what holds for one is
 * PidsLimit. Podman asks for four million unless told, more than root itself may have in some
 * machines. */
#define USER_PROCESSES 30000

static void json_freep(json_t **j)
{
    json_decref(*j);
    *j = NULL;
}

/* ---- what is told */

static json_int_t integer(uint64_t value)
{
    return value > INT64_MAX ? INT64_MAX : (json_int_t)value;
}

static json_t *make_mount(const char *source, const char *target, bool read_only)
{
    return json_pack("{s:s, s:s, s:s, s:b, s:{s:s}}", "Type", "bind", "Source", source, "Target",
        target, "ReadOnly", read_only, "BindOptions", "Propagation", "rprivate");
}

static json_t *make_ulimit(const char *name, uint64_t value)
{
    return json_pack(
        "{s:s, s:I, s:I}", "Name", name, "Soft", integer(value), "Hard", integer(value));
}

/* /tmp is a tmpfs of its own; Docker would mount it noexec. */
static json_t *make_tmpfs(uint64_t bytes)
{
    char options[96];
    (void)snprintf(options, sizeof options, "rw,exec,nosuid,nodev,mode=1777,size=%" PRIu64, bytes);
    return json_pack("{s:s}", "/tmp", options);
}

static int set(json_t *o, const char *member, json_t *value)
{
    return value ? json_object_set_new(o, member, value) : -1;
}

static int add_limits(json_t *host, const struct container_limits *l)
{
    uint64_t tmp = l->tmp_bytes > TMP_BYTES_MIN ? l->tmp_bytes : TMP_BYTES_MIN;
    CLEANUP(json_freep) json_t *ulimits = json_array();
    int r = json_array_append_new(ulimits, make_ulimit("core", 0));
    if (r == 0 && l->open_files > 0)
        r = json_array_append_new(ulimits, make_ulimit("nofile", l->open_files));
    if (r == 0 && l->file_bytes > 0)
        r = json_array_append_new(ulimits, make_ulimit("fsize", l->file_bytes));
    if (r == 0)
        r = json_array_append_new(ulimits, make_ulimit("nproc", USER_PROCESSES));
    if (r == 0)
        r = json_object_set(host, "Ulimits", ulimits);
    if (r == 0)
        r = set(host, "Tmpfs", make_tmpfs(tmp));
    if (r == 0)
        r = set(host, "ShmSize", json_integer(integer(tmp / 2)));
    if (r == 0 && l->memory_bytes > 0) {
        r = set(host, "Memory", json_integer(integer(l->memory_bytes)));
        if (r == 0) /* memory and swap together */
            r = set(host, "MemorySwap", json_integer(integer(l->memory_bytes)));
    }
    if (r == 0 && l->pids > 0) /* one for silt-init */
        r = set(host, "PidsLimit", json_integer((json_int_t)l->pids + 1));
    if (r == 0 && l->cpus > 0)
        r = set(host, "NanoCpus", json_integer((json_int_t)l->cpus * 1000000000));
    return r;
}

/* What holds for all of them; the limits of one come on top. */
static json_t *make_host(const struct docker_container *c)
{
    json_t *host =
        json_pack("{s:s, s:b, s:b, s:s, s:s, s:[s], s:[s], s:[], s:{s:s}, s:{s:s}, s:b, s:i}",
            "NetworkMode", "none", "ReadonlyRootfs", 1, "Privileged", 0, "IpcMode", "private",
            "CgroupnsMode", "private", "CapDrop", "ALL", "SecurityOpt", "no-new-privileges",
            "Devices", "LogConfig", "Type", "none", "RestartPolicy", "Name", "no", "AutoRemove", 0,
            "OomScoreAdj", c->oom_score_adj);
    if (!host || !c->folder)
        return host;
    const struct container_spec *s = c->spec;
    json_t *mounts = json_array();
    if (json_array_append_new(mounts, make_mount(c->folder, DOCKER_INIT_DIR, true)) < 0 ||
        json_array_append_new(mounts, make_mount(s->workspace, "/workspace", false)) < 0 ||
        json_array_append_new(mounts, make_mount(s->cache, "/cache", false)) < 0 ||
        json_object_set(host, "Mounts", mounts) < 0 || add_limits(host, &s->limits) < 0)
        json_freep(&host);
    json_decref(mounts);
    return host;
}

int docker_json_create(const struct docker_container *c, char **ret)
{
    char user[32];
    (void)snprintf(user, sizeof user, "%u:%u", c->spec ? (unsigned)c->spec->uid : OCI_UID,
        c->spec ? (unsigned)c->spec->gid : OCI_UID);
    CLEANUP(json_freep) json_t *host = make_host(c);
    CLEANUP(json_freep)
    json_t *all = json_pack(
        "{s:s, s:s, s:[s], s:[s], s:[s], s:s, s:s, s:b, s:{s:s}, s:{s:[s]}, s:O}", "Image",
        c->image, "User", user, "Entrypoint", DOCKER_INIT_DIR "/init", "Cmd", INIT_CONNECT, "Env",
        "PATH=/usr/bin:/bin", "WorkingDir", "/", "Hostname", "silt", "NetworkDisabled", 1, "Labels",
        DOCKER_LABEL, c->owner, "Healthcheck", "Test", "NONE", "HostConfig", host);
    if (!all)
        return -EINVAL;
    *ret = json_dumps(all, JSON_COMPACT);
    return *ret ? 0 : -ENOMEM;
}

/* ---- what is answered */

static int copy_id(const char *text, char *ret, size_t ret_size)
{
    size_t prefix = text && strncmp(text, "sha256:", 7) == 0 ? 7 : 0;
    size_t digits = text ? strspn(text + prefix, "0123456789abcdef") : 0;
    if (digits < 12 || text[prefix + digits] || prefix + digits >= ret_size)
        return -EINVAL;
    (void)snprintf(ret, ret_size, "%s", text);
    return 0;
}

int docker_json_id(const char *text, const char *member, char *ret, size_t ret_size)
{
    CLEANUP(json_freep) json_t *all = json_loads(text, 0, NULL);
    return copy_id(json_string_value(json_object_get(all, member)), ret, ret_size);
}

int docker_json_list(const char *text, const char *owner, char (*ret)[DOCKER_ID_BYTES])
{
    CLEANUP(json_freep) json_t *all = json_loads(text, 0, NULL);
    int count = 0;
    if (!json_is_array(all))
        return -EINVAL;
    for (size_t i = 0; i < json_array_size(all) && count < DOCKER_LIST_MAX; i++) {
        const json_t *one = json_array_get(all, i);
        const char *label =
            json_string_value(json_object_get(json_object_get(one, "Labels"), DOCKER_LABEL));
        /* The daemon was asked for these only; that it obeyed is checked. */
        if (!label || strcmp(label, owner) != 0)
            continue;
        if (copy_id(json_string_value(json_object_get(one, "Id")), ret[count], DOCKER_ID_BYTES) ==
            0)
            count++;
    }
    return count;
}

void docker_json_message(const char *text, char *ret, size_t ret_size)
{
    CLEANUP(json_freep) json_t *all = json_loads(text, 0, NULL);
    const char *message = json_string_value(json_object_get(all, "message"));
    (void)snprintf(ret, ret_size, "%s", message ? message : "");
    for (char *p = ret; *p; p++) {
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = ' ';
    }
}

bool docker_json_oom(const char *text)
{
    CLEANUP(json_freep) json_t *all = json_loads(text, 0, NULL);
    return json_is_true(json_object_get(json_object_get(all, "State"), "OOMKilled"));
}

int docker_json_info(const char *text, struct docker_info *ret)
{
    CLEANUP(json_freep) json_t *all = json_loads(text, 0, NULL);
    const char *version = json_string_value(json_object_get(all, "ServerVersion"));
    const char *cgroups = json_string_value(json_object_get(all, "CgroupVersion"));
    if (!version)
        return -EINVAL;
    (void)snprintf(ret->version, sizeof ret->version, "%.40s", version);
    for (char *p = ret->version; *p; p++) {
        if ((unsigned char)*p <= ' ' || (unsigned char)*p >= 0x7f)
            *p = '?';
    }
    ret->memory = json_is_true(json_object_get(all, "MemoryLimit"));
    ret->pids = json_is_true(json_object_get(all, "PidsLimit"));
    ret->cpu = json_is_true(json_object_get(all, "CpuCfsQuota"));
    ret->cgroups = !cgroups ? "none" : strcmp(cgroups, "2") == 0 ? "v2" : "v1";
    return 0;
}

int docker_json_image(const char *text, struct docker_image *ret)
{
    CLEANUP(json_freep) json_t *all = json_loads(text, 0, NULL);
    const json_t *volumes = json_object_get(json_object_get(all, "Config"), "Volumes");
    ret->volumes = json_object_size(volumes) > 0;
    return copy_id(json_string_value(json_object_get(all, "Id")), ret->id, sizeof ret->id);
}

void docker_cgroup_path(const char *text, bool v2, char *ret, size_t ret_size)
{
    *ret = '\0';
    for (const char *line = text; *line;) {
        size_t len = strcspn(line, "\n");
        const char *controllers = memchr(line, ':', len);
        const char *path =
            controllers ? memchr(controllers + 1, ':', len - (size_t)(controllers + 1 - line))
                        : NULL;
        if (path) {
            size_t names_len = (size_t)(path - controllers - 1);
            size_t path_len = len - (size_t)(path + 1 - line);
            bool mine =
                v2 ? names_len == 0 : names_len == 6 && memcmp(controllers + 1, "memory", 6) == 0;
            if (mine && path_len > 1 && path_len < ret_size && path[1] == '/' &&
                !memmem(path, path_len + 1, "/..", 3)) {
                memcpy(ret, path + 1, path_len);
                ret[path_len] = '\0';
                return;
            }
        }
        line += len;
        line += *line == '\n';
    }
}
