/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the engine for OCI runtimes share; nobody else includes it.
 *
 *     container_oci.c     making and removing one container
 *     container_engine.c  what all containers have in common, what this machine can enforce, images
 *     container_place.c   the private mount namespace in which the runtime starts, the made-up root
 *     container_spawn.c   starting the runtime's program there
 *     container_spec.c    from a container_spec to a bundle
 *     container_view.c    an overlay for one container
 *     container_around.c  what is different with a runtime that silt-init stands around, not in
 */
#ifndef SERVER_CONTAINER_INTERNAL_H
#define SERVER_CONTAINER_INTERNAL_H

#include <sched.h>
#include <time.h>

#include "server/cgroup_own.h"
#include "server/container_driver.h"

/*
 * Where our tmpfs lies in the private mount namespace. It must be a directory that exists on every
 * Linux, that holds nothing the runtime needs, beneath which no workspace lies, and whose parents
 * everybody may search: the runtime looks up the root after it gave up its privileges. Nothing of
 * it is seen outside that namespace, and it vanishes with the last process in it.
 */
#define PLACE "/sys/kernel"
#define PLACE_BYTES "size=64m"
#define PLACE_RUN PLACE "/run"         /* the runtime's own --root */
#define PLACE_BUNDLES PLACE "/bundles" /* config.json of each container */
#define PLACE_ROOT PLACE "/root"       /* the made-up root */
#define PLACE_IMAGES PLACE "/images"   /* the image directory */
#define PLACE_VIEWS CONTAINER_VIEWS /* overlays of containers that have one */
#define PLACE_INIT PLACE "/silt-init"
#define PLACE_CPUS PLACE "/cpus" /* files that say "0-N" for /sys/devices/system/cpu/online */

#define CONTAINER_CPUS_MAX 64 /* at most that many files in PLACE_CPUS */

struct runtime_kind {
    const char *name;       /* as the first word of `NAME --version` */
    const char *cgroup_on;  /* global option, or NULL */
    const char *cgroup_off; /* global option for rootless, or NULL */
    bool maps_root;         /* refuses a user namespace without a uid 0 */
    bool takes_useful;      /* does without hierarchies of cgroups that are not mounted */
    bool around; /* has a kernel of its own and passes no descriptors: see container_around.c */
};

/* What uid and gid 0 are outside then: an id that nobody has and no file belongs to. */
#define NOBODYS_ID UINT32_C(4294967293)

/* The private namespaces and the tmpfs in them, held by descriptors. */
struct place {
    int user_ns; /* -1 as root */
    int mount_ns;
    int dir; /* PLACE */
};

/* A file of the host's /etc that is copied into the made-up root when it changed. */
#define PLACE_COPIES 8
struct place_copy {
    struct timespec mtime;
    uint64_t ino;
};

struct oci_engine {
    struct container_engine base;
    const struct runtime_kind *kind;
    char *runtime_path;
    int runtime_fd; /* a sealed copy of the runtime, or -1: execute runtime_path */
    char *image_dir;
    struct place place;
    struct cgroup_own own; /* as an ordinary user */
    char cgroup_parent[CGROUP_OWN_BYTES + CONTAINER_MARK_BYTES + 1]; /* own.path/silt-1a2b3c4d */
    uint64_t files_hard; /* hard limit of descriptors */
    int oom_score_adj;
    const char *masked[16], *readonly[8];
    pthread_mutex_t lock; /* guards what follows */
    struct place_copy copies[PLACE_COPIES];
    cpu_set_t allowed; /* CPUs of this process */
    unsigned next_cpu; /* containers with fewer CPUs take turns on them */
};

/* The tables in container_oci.c (silt-init in the container; around the runtime), and what of it
 * container_engine.c does. */
extern const struct container_driver container_oci_driver, container_around_driver;
int oci_engine_reap(struct container_engine *engine, struct err *e) WARN_UNUSED;
void oci_engine_free(struct container_engine *engine);
bool oci_engine_has_program(
    const struct container_engine *engine, const char *image, const char *name);
bool oci_engine_has_image(const struct container_engine *engine, const char *image);

/* ---- container_place.c */

/* What the runtime sees at /sys/fs/cgroup. */
enum place_cgroups {
    PLACE_CGROUPS_AS_IS,
    PLACE_CGROUPS_V1,        /* all of version 1, without the empty version 2 beside it */
    PLACE_CGROUPS_V1_USEFUL, /* those hierarchies of it that limit or measure */
    PLACE_CGROUPS_NONE,
};
/* Make the namespaces. init_path is copied to PLACE_INIT. */
int place_make(const struct container_config *config, bool root, enum place_cgroups cgroups,
    unsigned cpu_count, struct place *ret, struct err *e) WARN_UNUSED;
void place_release(struct place *p);
/* Copy those files of /etc that changed since. Under the engine's lock. */
int place_refresh(
    const struct place *p, struct place_copy copies[PLACE_COPIES], struct err *e) WARN_UNUSED;

/* ---- container_spawn.c */

struct spawn {
    const char *const *argv; /* arguments after the program's name, NULL-terminated */
    int socket;              /* becomes INIT_FD, or -1 */
    int output;              /* becomes stdout and stderr */
    const cpu_set_t *cpus;   /* affinity, or NULL */
    bool around;             /* not the runtime but silt-init, process 1 of a pid namespace */
    const int *join;         /* cgroup.procs to write "0" into */
    int join_count;
};
/* Start the runtime in the private namespaces with an empty environment. Never blocks on it. The
 * end of silt-init (`around`) is the end of all that was started in its namespace. */
int spawn_runtime(const struct oci_engine *g, const struct spawn *spawn, pid_t *ret_pid,
    int *ret_pidfd, struct err *e) WARN_UNUSED;
/* Wait until it ends: its status as from wait(2), or -ETIMEDOUT. Reaps it, so only once. */
int spawn_wait(pid_t pid, int pidfd, int timeout_ms, int *ret_status) WARN_UNUSED;
/* Start it, collect at most out_size - 1 bytes of output, wait at most timeout_ms (then kill it).
 * 0 and its status. */
int spawn_collect(const struct oci_engine *g, const char *const *argv, int timeout_ms, char *out,
    size_t out_size, int *ret_status, struct err *e) WARN_UNUSED;

/* ---- container_spec.c */

/* Check the spec and write its bundle. cpus_ret: the CPUs to pin the runtime to where no cpuset
 * does; *ret_pin says whether. cgroup "" = none. */
int spec_write_bundle(struct oci_engine *g, const struct container_spec *spec, const char *cgroup,
    cpu_set_t *ret_cpus, bool *ret_pin, struct err *e) WARN_UNUSED;
void spec_remove_bundle(const struct oci_engine *g, const char *id);
/* Can this image be a root? Refusal PROTO_UNKNOWN_IMAGE or PROTO_ENGINE_FAILED with a sentence. */
int spec_check_image(const struct oci_engine *g, const char *image, struct err *e) WARN_UNUSED;

/* ---- container_around.c: silt-init is process 1 of a pid namespace on the host (INIT_AROUND), and
 * the program that it runs is the runtime's command line. Each container has its own folder of the
 * runtime's state, in its bundle. */

/* The container's cgroup, since these runtimes are told to leave cgroups alone. How many
 * descriptors are in join. */
int around_make_cgroup(const struct oci_engine *g, const char *cgroup,
    const struct container_limits *limits, int join[CGROUP_JOIN_MAX], struct err *e) WARN_UNUSED;
/* Name the program in the bundle, and have the runtime started. */
int around_start(
    struct container *c, const struct container_process *process, struct err *e) WARN_UNUSED;
/* Have the runtime send a signal to the program. */
int around_signal(struct container *c, int sig) WARN_UNUSED;
/* What became of the program, by the runtime's own log: its exit status alone cannot tell a signal
 * from a code. ret->lost where the log does not say. */
void around_verdict(struct container *c, struct container_exit *ret);

/* ---- container_view.c */

int oci_view_mount(struct container_engine *engine, const char *id,
    const struct container_view *dirs, int *ret_fd, struct err *e) WARN_UNUSED;
void oci_view_hide(struct container_engine *engine, const char *id);
int oci_view_enter(
    struct container *c, const char *id, const char *folder, struct err *e) WARN_UNUSED;

#endif
