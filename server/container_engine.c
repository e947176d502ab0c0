/* SPDX-License-Identifier: MIT */
#include "server/container_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "server/image.h"
#include "shared/io.h"
#include "shared/path.h"
#include "shared/weaken.h"

#include "shared/banned.h"

#define VERSION_TIMEOUT_MS 10000
#define RUNTIME_BYTES_MAX (128 * 1024 * 1024)
#define OOM_SCORE_ADJ                                                                              \
    500 /* when the whole machine is short, programs go before the server does                     \
         */

/* The runtimes whose command line silt speaks. */
static const struct runtime_kind kinds[] = {
    {"crun", .cgroup_on = "--cgroup-manager=cgroupfs", .cgroup_off = "--cgroup-manager=disabled",
        .takes_useful = true},
    {"runc", .maps_root = true},
    {"runsc", .maps_root = true, .around = true},
};
#define KIND_COUNT (sizeof kinds / sizeof kinds[0])

/* Docker's lists. Whatever only root may read or write is out of reach anyway, because no root is
 * mapped; a mount per path is only spent on the rest. */
static const char *const masked_paths[] = {"/proc/acpi", "/proc/asound", "/proc/interrupts",
    "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi",
    "/proc/timer_list", "/proc/timer_stats", NULL};
static const char *const readonly_paths[] = {
    "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", NULL};

static void choose_paths(struct oci_engine *g)
{
    size_t masked = 0, readonly = 0;
    struct stat st;
    for (const char *const *p = masked_paths; *p; p++) {
        if (stat(*p, &st) == 0 && (st.st_mode & S_IROTH))
            g->masked[masked++] = *p;
    }
    for (const char *const *p = readonly_paths; *p; p++) {
        if (stat(*p, &st) == 0 && (S_ISDIR(st.st_mode) || (st.st_mode & S_IWOTH)))
            g->readonly[readonly++] = *p;
    }
}

static int find_runtime(const char *name, char **ret, struct err *e)
{
    static const char *const dirs[] = {
        "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin", NULL};
    char path[PATH_MAX];
    for (const char *const *d = dirs; !strchr(name, '/') && *d; d++) {
        if (snprintf(path, sizeof path, "%s/%s", *d, name) < (int)sizeof path &&
            access(path, X_OK) == 0) {
            *ret = strdup(path);
            return *ret ? 0 : err_set(e, ENOMEM, "find '%s'", name);
        }
    }
    if (strchr(name, '/') && access(name, X_OK) == 0) {
        *ret = realpath(name, NULL);
        return *ret ? 0 : err_set(e, errno, "find '%s'", name);
    }
    return err_say(e, ENOENT,
        "no container runtime '%s' on this machine: install it (apt-get install crun) or set "
        "'runtime'",
        name);
}

/*
 * crun and runc protect their own binary from the container (CVE-2019-5736) by copying it and
 * executing the copy, at every start. Executed from a sealed copy they see that this is done: 1.5
 * ms less per container.
 */
static int seal_runtime(const char *path, int *ret, struct err *e)
{
    CLEANUP(buf_release) struct buf b;
    int r = io_read_file(path, RUNTIME_BYTES_MAX, &b, e);
    if (r < 0)
        return err_wrap(e, "read the container runtime");
    *ret = -1;
    if (b.len < 4 || memcmp(b.data, "\177ELF", 4) != 0)
        return 0; /* a script: by its path */
    CLEANUP(fd_closep) int fd = memfd_create(path_base(path), MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || io_write_all(fd, b.data, b.len) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0)
        return 0; /* only slower without */
    *ret = fd_take(&fd);
    return 0;
}

/* "crun version 1.8.1\n…" → kind and "crun 1.8.1". */
static int read_version(struct oci_engine *g, struct err *e)
{
    char text[512], word[32] = "", version[48] = "";
    int status = -1;
    int r = spawn_collect(g, (const char *const[]){"--version", NULL}, VERSION_TIMEOUT_MS, text,
        sizeof text, &status, e);
    if (r < 0)
        return r;
    text[strcspn(text, "\n")] = '\0';
    if (sscanf(text, "%31s version %47s", word, version) != 2)
        return err_say(e, EINVAL, "'%s --version' failed: %.200s", g->runtime_path, text);
    for (size_t i = 0; i < KIND_COUNT; i++) {
        if (!strcmp(kinds[i].name, word))
            g->kind = &kinds[i];
    }
    if (!g->kind)
        return err_say(
            e, EINVAL, "'%s' is no runtime that silt can drive: use crun, runc or runsc", word);
    if (g->kind->maps_root && !g->base.abilities.root)
        return err_say(e, EINVAL,
            "%s needs two user ids per container, which an ordinary user does not have: use crun, "
            "or run siltd as root",
            word);
    (void)snprintf(
        g->base.abilities.engine, sizeof g->base.abilities.engine, "%s %s", word, version);
    return 0;
}

static void read_abilities(struct oci_engine *g)
{
    struct container_abilities *a = &g->base.abilities;
    a->cgroups = cgroup_version_name(g->base.cgroups.version);
    a->limit_memory = g->base.cgroups.memory;
    a->limit_pids = g->base.cgroups.pids;
    a->limit_cpu = true; /* by cpuset, else by affinity */
    a->warm = a->terminal = !g->kind->around;
    if (!a->root && a->limit_memory && a->limit_pids)
        (void)snprintf(a->note, sizeof a->note,
            "running without root: all sandboxes share one user, limits hold per container, in the "
            "cgroup %.200s%s",
            g->own.path, *g->own.path ? "" : "/");
    else if (!a->root && a->limit_pids)
        (void)snprintf(a->note, sizeof a->note,
            "running without root, and no controller for memory comes with the cgroup: memory is "
            "limited per process and not per container, and all sandboxes share one user");
    else if (!a->root)
        (void)snprintf(a->note, sizeof a->note,
            "running without root, and %s: memory is limited per process and not per container, "
            "and all sandboxes share one user; for limits per container start it with: %s siltd",
            cgroup_own_reason(g->own.state), CGROUP_OWN_COMMAND);
    else if (g->base.cgroups.version == CGROUP_NONE && cgroup_own_is_false_root(&g->own))
        (void)snprintf(a->note, sizeof a->note,
            "%s: limits hold per process and not per container; for limits per container let siltd "
            "be the only process of the container that it is in",
            cgroup_own_reason(g->own.state));
    else if (!a->limit_memory || !a->limit_pids)
        (void)snprintf(a->note, sizeof a->note,
            "no cgroup controller for %s here: the limit holds per process; enable it on the "
            "kernel's command line (cgroup_enable=memory)",
            a->limit_memory ? "pids" : "memory");
    else if (g->kind->around)
        (void)snprintf(a->note, sizeof a->note,
            "%.60s: no container waits for a run, there is no terminal, and the limits of memory "
            "and "
            "processes are loose, since they count its own kernel",
            a->engine);
}

static int read_oom_score_adj(void)
{
    CLEANUP(file_closep) FILE *f = fopen("/proc/self/oom_score_adj", "re");
    int now = 0;
    if (!f || fscanf(f, "%d", &now) != 1)
        now = 0;
    return now > OOM_SCORE_ADJ ? now : OOM_SCORE_ADJ; /* lowering it takes a privilege */
}

/* Who has none (an ordinary user without a cgroup of its own, root in a container beside others) has
 * softer limits, but a server. */
static enum place_cgroups find_cgroups(struct oci_engine *g)
{
    cgroup_own_look(&g->own);
    if (g->base.abilities.root && !cgroup_own_is_false_root(&g->own)) {
        cgroup_probe(&g->base.cgroups);
        (void)snprintf(g->cgroup_parent, sizeof g->cgroup_parent, "/%s", g->base.mark);
        return g->base.cgroups.version != CGROUP_V1 ? PLACE_CGROUPS_AS_IS
               : g->kind->takes_useful              ? PLACE_CGROUPS_V1_USEFUL
                                                    : PLACE_CGROUPS_V1;
    }
    if (cgroup_own_take(&g->own, g->base.mark, &g->base.cgroups, NULL) < 0)
        return PLACE_CGROUPS_NONE;
    (void)snprintf(g->cgroup_parent, sizeof g->cgroup_parent, "%s/%s", g->own.path, g->base.mark);
    return PLACE_CGROUPS_AS_IS;
}

static int set_up(struct oci_engine *g, const struct container_config *config, struct err *e)
{
    int r = container_lock_state(&g->base, config->state_dir, e);
    if (r < 0)
        return r;
    if (config->image_dir && !(g->image_dir = strdup(config->image_dir)))
        return err_set(e, ENOMEM, "make the container engine");
    if (sched_getaffinity(0, sizeof g->allowed, &g->allowed) < 0)
        return err_set(e, errno, "read the CPUs");
    g->base.abilities.root = geteuid() == 0;
    g->oom_score_adj = read_oom_score_adj();
    choose_paths(g);
    if ((r = find_runtime(config->runtime, &g->runtime_path, e)) < 0 ||
        (r = seal_runtime(g->runtime_path, &g->runtime_fd, e)) < 0 ||
        (r = read_version(g, e)) < 0 ||
        (r = place_make(config, g->base.abilities.root, find_cgroups(g),
             (unsigned)CPU_COUNT(&g->allowed), &g->place, e)) < 0 ||
        (r = place_refresh(&g->place, g->copies, e)) < 0)
        return r;
    if (g->kind->around)
        g->base.driver = &container_around_driver;
    read_abilities(g);
    return 0;
}

int container_oci_new(
    const struct container_config *config, struct container_engine **ret, struct err *e)
{
    struct oci_engine *g = calloc(1, sizeof *g);
    if (!g)
        return err_set(e, ENOMEM, "make the container engine");
    g->base.driver = &container_oci_driver;
    g->runtime_fd = g->base.lock_fd = -1;
    g->place = (struct place){.user_ns = -1, .mount_ns = -1, .dir = -1};
    (void)pthread_mutex_init(&g->lock, NULL);
    int r = set_up(g, config, e);
    if (r < 0) {
        oci_engine_free(&g->base);
        return r;
    }
    *ret = &g->base;
    return 0;
}

int oci_engine_reap(struct container_engine *engine, struct err *e)
{
    struct oci_engine *g = (struct oci_engine *)engine;
    (void)e;
    /* Bundles and the runtime's state lay in the dead server's own mount namespace and went with
     * it. Containers end by themselves when their socket closes; whatever did not is found by its
     * cgroup. */
    int count = WEAK("reap") ? 0 : (int)cgroup_reap(&g->base.cgroups, g->cgroup_parent);
    if (g->own.taken)
        (void)!cgroup_own_room(&g->own, g->base.mark); /* else the runtime makes it */
    return count;
}

void oci_engine_free(struct container_engine *engine)
{
    struct oci_engine *g = (struct oci_engine *)engine;
    if (g->cgroup_parent[0])
        (void)cgroup_reap(&g->base.cgroups, g->cgroup_parent);
    cgroup_own_release(&g->own);
    place_release(&g->place);
    fd_closep(&g->runtime_fd);
    fd_closep(&g->base.lock_fd);
    free(g->runtime_path);
    free(g->image_dir);
    (void)pthread_mutex_destroy(&g->lock);
    free(g);
}

bool oci_engine_has_image(const struct container_engine *engine, const char *image)
{
    return spec_check_image((const struct oci_engine *)engine, image, NULL) == 0;
}

static bool is_program(int fd)
{
    struct stat st;
    return fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & 0111);
}

/* Is the absolute path a program, as seen from inside the root? */
static bool root_has(const struct oci_engine *g, const char *image, const char *path)
{
    static const char *const visible[] = {"/usr/", "/bin/", "/sbin/", "/lib/", "/lib64/", NULL};
    if (image_is_host(image)) {
        for (const char *const *v = visible; *v; v++) {
            CLEANUP(fd_closep) int fd = -1;
            if (!strncmp(path, *v, strlen(*v)) && !strstr(path, "/../"))
                fd = open(path, O_PATH | O_CLOEXEC);
            if (is_program(fd))
                return true;
        }
        return false;
    }
    char dir_path[PATH_MAX];
    if (snprintf(dir_path, sizeof dir_path, "%s/%s", g->image_dir, image) >= (int)sizeof dir_path)
        return false;
    CLEANUP(fd_closep) int dir = open(dir_path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct open_how how = {
        .flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    CLEANUP(fd_closep)
    int fd = dir < 0 ? -1 : (int)syscall(SYS_openat2, dir, path, &how, sizeof how);
    return is_program(fd);
}

bool oci_engine_has_program(
    const struct container_engine *engine, const char *image, const char *name)
{
    const struct oci_engine *g = (const struct oci_engine *)engine;
    static const char *const dirs[] = {"/usr/local/bin", "/usr/bin", "/bin", NULL};
    char path[PATH_MAX];
    if (!oci_engine_has_image(engine, image))
        return false;
    if (strchr(name, '/'))
        return name[0] == '/' && root_has(g, image, name);
    for (const char *const *d = dirs; *d; d++) {
        if (snprintf(path, sizeof path, "%s/%s", *d, name) < (int)sizeof path &&
            root_has(g, image, path))
            return true;
    }
    return false;
}
