/* SPDX-License-Identifier: MIT */
#include "server/container_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "server/image.h"
#include "server/oci.h"
#include "shared/io.h"
#include "shared/tree.h"
#include "shared/weaken.h"

#include "shared/banned.h"

#define TMP_BYTES_MIN (1024 * 1024)
#define RLIMITS_MAX 6

int spec_check_image(const struct oci_engine *g, const char *image, struct err *e)
{
    char path[4096];
    if (image_is_host(image))
        return 0;
    if (!g->image_dir || !image_name_valid(image) ||
        snprintf(path, sizeof path, "%s/%s", g->image_dir, image) >= (int)sizeof path)
        return image_unknown(g->image_dir, image, e);
    CLEANUP(fd_closep) int dir = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (dir < 0)
        return image_unknown(g->image_dir, image, e);
    for (const char *const *point = image_mount_points; *point; point++) {
        struct stat st;
        if (fstatat(dir, *point, &st, AT_SYMLINK_NOFOLLOW) < 0 && mkdirat(dir, *point, 0755) < 0)
            return err_refuse(e, PROTO_ENGINE_FAILED,
                "image '%s' has no directory /%s and it cannot be made: make it", image, *point);
        if (fstatat(dir, *point, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(st.st_mode))
            return err_refuse(e, PROTO_ENGINE_FAILED,
                "image '%s' cannot be used: its /%s is not a directory", image, *point);
    }
    return 0;
}

static int check_spec(const struct oci_engine *g, const struct container_spec *s, struct err *e)
{
    if (!container_name_is_plain(s->id, ""))
        return err_say(e, EINVAL, "'%.64s' is no container id", s->id);
    if (s->workspace[0] != '/' || s->cache[0] != '/')
        return err_say(e, EINVAL, "workspace and cache must be absolute paths");
    if (g->base.abilities.root && (s->uid == 0 || s->gid == 0) && !WEAK("uid"))
        return err_say(e, EINVAL, "a container may not run as the host's root");
    if (!g->base.abilities.root && (s->uid != geteuid() || s->gid != getegid()))
        return err_say(e, EINVAL, "without root a container can only run as the server's own user");
    return spec_check_image(g, s->image, e);
}

/* At most the hard limit: this process may not be allowed to raise it. */
static void add_rlimit(
    struct oci_rlimit *list, size_t *count, const char *name, int resource, uint64_t value)
{
    struct rlimit now;
    if (getrlimit((__rlimit_resource_t)resource, &now) == 0 && now.rlim_max != RLIM_INFINITY &&
        value > now.rlim_max)
        value = now.rlim_max;
    list[(*count)++] = (struct oci_rlimit){name, value};
}

static size_t make_rlimits(
    const struct oci_engine *g, const struct container_limits *l, struct oci_rlimit *list)
{
    size_t n = 0;
    add_rlimit(list, &n, "RLIMIT_CORE", RLIMIT_CORE, 0);
    if (l->open_files > 0 && !WEAK("open-files"))
        add_rlimit(list, &n, "RLIMIT_NOFILE", RLIMIT_NOFILE, l->open_files);
    if (l->file_bytes > 0 && !WEAK("file-size"))
        add_rlimit(list, &n, "RLIMIT_FSIZE", RLIMIT_FSIZE, l->file_bytes);
    if (!g->base.abilities.limit_memory && l->memory_bytes > 0)
        add_rlimit(list, &n, "RLIMIT_DATA", RLIMIT_DATA, l->memory_bytes);
    /* Counted per user namespace, so it is the container's own; one for silt-init. */
    if (!g->base.abilities.limit_pids && l->pids > 0)
        add_rlimit(list, &n, "RLIMIT_NPROC", RLIMIT_NPROC, (uint64_t)l->pids + 1);
    return n;
}

/* The next `count` of this process's CPUs, in turns. */
static void choose_cpus(struct oci_engine *g, unsigned count, cpu_set_t *ret)
{
    CPU_ZERO(ret);
    (void)pthread_mutex_lock(&g->lock);
    while (count > 0) {
        unsigned cpu = g->next_cpu++ % CPU_SETSIZE;
        if (!CPU_ISSET(cpu, &g->allowed))
            continue;
        CPU_SET(cpu, ret);
        count--;
    }
    (void)pthread_mutex_unlock(&g->lock);
}

static int cpus_text(const cpu_set_t *cpus, struct buf *b)
{
    for (unsigned cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, cpus) && buf_addf(b, "%s%u", b->len ? "," : "", cpu) < 0)
            return -ENOMEM;
    }
    return 0;
}

static int write_bundle(const struct oci_engine *g, const char *id, const char *text, struct err *e)
{
    char dir[96], file[128];
    (void)snprintf(dir, sizeof dir, "bundles/%s", id);
    (void)snprintf(file, sizeof file, "bundles/%s/config.json", id);
    if (mkdirat(g->place.dir, dir, 0700) < 0)
        return err_set(e, errno, "make the bundle of container '%s'", id);
    CLEANUP(fd_closep)
    int fd = openat(g->place.dir, file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int r = fd < 0 ? -errno : io_write_all(fd, text, strlen(text));
    if (r < 0) {
        spec_remove_bundle(g, id);
        return err_set(e, -r, "write the bundle of container '%s'", id);
    }
    return 0;
}

void spec_remove_bundle(const struct oci_engine *g, const char *id)
{
    char path[128];
    if (g->kind->around) {
        /* Its log and its state, too. */
        CLEANUP(fd_closep)
        int dir = openat(g->place.dir, "bundles", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (dir >= 0)
            err_ignore(tree_remove_at(dir, id, NULL));
        return;
    }
    (void)snprintf(path, sizeof path, "bundles/%s/config.json", id);
    (void)unlinkat(g->place.dir, path, 0);
    (void)snprintf(path, sizeof path, "bundles/%s", id);
    (void)unlinkat(g->place.dir, path, AT_REMOVEDIR);
}

int spec_write_bundle(struct oci_engine *g, const struct container_spec *s, const char *cgroup,
    cpu_set_t *ret_cpus, bool *ret_pin, struct err *e)
{
    int r = check_spec(g, s, e);
    if (r < 0)
        return r;
    bool host = image_is_host(s->image);
    unsigned all_cpus = (unsigned)CPU_COUNT(&g->allowed);
    bool fewer = s->limits.cpus > 0 && s->limits.cpus < all_cpus;
    char root[128], online[64];
    struct oci_rlimit rlimits[RLIMITS_MAX];
    CLEANUP(buf_release) struct buf cpus;
    buf_init(&cpus, 4096);
    (void)snprintf(root, sizeof root, "%s%s%s", host ? PLACE_ROOT : PLACE_IMAGES, host ? "" : "/",
        host ? "" : s->image);
    (void)snprintf(online, sizeof online, PLACE_CPUS "/%u", s->limits.cpus);
    if (fewer) {
        choose_cpus(g, s->limits.cpus, ret_cpus);
        if (cpus_text(ret_cpus, &cpus) < 0)
            return err_set(e, ENOMEM, "choose CPUs");
    }
    *ret_pin = fewer && !(*cgroup && g->base.cgroups.cpuset);
    const struct oci_config config = {
        .root = root,
        /* Such a runtime would mount an image anew without nosuid and nodev, which its user
         * namespace may not take away. */
        .root_mounted = g->kind->around && !host,
        .hostname = "silt",
        .init = g->kind->around ? NULL : PLACE_INIT,
        .workspace = s->workspace,
        .cache = s->cache,
        .sys = WEAK("sys")                 ? "/sys"
               : host || g->kind->around ? NULL
                                         : PLACE_ROOT "/sys",
        .cpu_online =
            fewer && !g->kind->around && s->limits.cpus <= CONTAINER_CPUS_MAX ? online : NULL,
        .host_uid = g->base.abilities.root ? s->uid : 0,
        .host_gid = g->base.abilities.root ? s->gid : 0,
        .root_id = g->kind->maps_root ? NOBODYS_ID : 0,
        .cgroup = *cgroup ? cgroup : NULL,
        .memory_bytes =
            g->base.abilities.limit_memory && !WEAK("memory") ? s->limits.memory_bytes : 0,
        .swap = g->base.cgroups.swap ? OCI_SWAP_LIMIT : OCI_SWAP_SWAPPINESS,
        .pids = g->base.abilities.limit_pids && !WEAK("pids") && s->limits.pids > 0
                    ? s->limits.pids + 1
                    : 0,
        .cpus = fewer && !*ret_pin ? buf_str(&cpus) : NULL,
        /* A program can undo its pinning, but not this. */
        .cpu_time = *ret_pin && *cgroup && g->base.cgroups.cpu ? s->limits.cpus : 0,
        .tmp_bytes = s->limits.tmp_bytes > TMP_BYTES_MIN ? s->limits.tmp_bytes : TMP_BYTES_MIN,
        .oom_score_adj = g->oom_score_adj,
        .rlimits = rlimits,
        .rlimit_count = make_rlimits(g, &s->limits, rlimits),
        .masked = g->kind->around ? NULL : g->masked, /* its /proc is not the host's */
        .readonly = g->kind->around ? NULL : g->readonly,
    };
    CLEANUP(freep) char *text = NULL;
    r = oci_config_text(&config, &text);
    if (r < 0)
        return err_set(e, -r, "describe container '%s'", s->id);
    return write_bundle(g, s->id, text, e);
}
