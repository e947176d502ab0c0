/* SPDX-License-Identifier: MIT */
/*
 * Containers: the only place in siltd that starts processes. A container is made once, runs one
 * program and is thrown away. It is made in two steps, so that it can be made before it is needed:
 *
 *     container_new(engine, &spec, &c)   // namespaces, mounts, cgroup, silt-init waiting in it
 *     container_start(c, &process)       // argv, environment, cwd and three descriptors
 *     poll(container_fd(c))              // readable when the program has ended
 *     container_wait(c, &exit)
 *     container_free(c)                  // everything in it is dead, mounts and cgroup are gone
 *
 * Engine: an OCI runtime's command line (crun by default) with a bundle of our own, or a Docker Engine
 * that is there already (container_docker.c). silt-init is PID 1: it takes the request from its socket, forks, execs, reaps orphans, and reports
 * exit status and usage; it cannot be traced or dumped by the program, and when its socket closes
 * (siltd died) the container ends.
 *
 * As root each sandbox has its own host uid, mapped alone to 1000 inside. As an ordinary user the
 * runtime is started inside a user namespace made at start-up, and the only uid is the user's own;
 * if this process is alone in a cgroup of version 2 that it may write to, it moves into a leaf of it
 * and limits hold as for root (cgroup_own.h).
 * The runtime always starts in a private mount namespace in which an empty cgroup v2 mount that
 * would stop crun is gone.
 *
 * An engine is shared by threads; a container belongs to one thread at a time, except
 * container_kill.
 */
#ifndef SERVER_CONTAINER_H
#define SERVER_CONTAINER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "shared/err.h"

struct container_engine;
struct container;

struct container_config {
    const char
        *state_dir;      /* ours, absolute: bundles, the runtime's --root, the made-up host root */
    const char *runtime; /* "crun", "runc", "runsc", or a path */
    const char *init_path; /* the silt-init binary */
    const char *image_dir; /* a root directory that offers images by name, or NULL: host only */
    const char *engine;    /* "docker", else an OCI runtime; then what follows is not looked at */
    const char *docker_socket, *docker_image;
};

/* What this engine can enforce, for the start-up message and /healthz. */
struct container_abilities {
    bool root;           /* false: rootless */
    char engine[96];     /* "crun 1.8.1" */
    const char *cgroups; /* "v1", "v2", "none" */
    bool limit_memory;   /* by cgroup; otherwise RLIMIT_DATA per process */
    bool limit_pids;     /* by cgroup; otherwise RLIMIT_NPROC */
    bool limit_cpu;      /* number of CPUs by cpuset or affinity */
    bool warm;           /* containers can be made before they are needed, programs prepared */
    bool terminal;       /* a program can have one */
    char note[512];      /* a sentence on what is not enforced and how to enable it; "" if all is */
};

struct container_limits {
    uint64_t memory_bytes; /* all processes together; no swap */
    uint32_t pids;         /* processes and threads */
    uint32_t cpus;         /* as many visible; 0 = all of the host's */
    uint32_t open_files;
    uint64_t file_bytes; /* RLIMIT_FSIZE */
    uint64_t tmp_bytes;  /* size of /tmp; /dev/shm gets half */
};

struct container_spec {
    const char *id;        /* [a-z0-9_]{1,64}, unique */
    const char *workspace; /* absolute host path, mounted at /workspace */
    uint64_t workspace_dev,
        workspace_ino; /* compared at hand-over: -ESTALE if the root was moved */
    const char *cache; /* absolute host path, mounted at /cache */
    const char *image; /* "host" or a name in image_dir */
    uid_t uid;         /* host uid and gid that are 1000 inside */
    gid_t gid;
    struct container_limits limits;
    bool view; /* workspace is in a view: a path that is not seen from outside */
};

struct container_process {
    const char *const *argv; /* argv[0] is looked up in PATH of env when it has no slash */
    const char *const *env;  /* complete environment */
    const char *cwd;         /* absolute path inside */
    /* Borrowed; duplicated into the container. All -1: those that container_prepare gave it. */
    int stdin_fd, stdout_fd, stderr_fd;
    bool tty; /* stdout is a terminal: make it the controlling one */
};

struct container_exit {
    bool started; /* false: exec failed, exec_errno says why (ENOENT, EACCES, ENOEXEC) */
    int exec_errno;
    int exit_code;   /* valid if signal == 0 */
    int signal;      /* 0 or the signal that killed the program */
    bool oom_killed; /* the memory limit struck */
    bool pids_limit_hit;
    uint64_t user_us, system_us; /* of everything in the container where a cgroup counts it, else of
                                    the program and the children it waited for */
    uint64_t memory_peak_bytes;  /* since hand-over */
    bool lost;                   /* the container vanished without a report */
    bool prepared;               /* it was the program that container_prepare had started */
};

int container_engine_new(const struct container_config *config, struct container_engine **ret,
    struct err *e) WARN_UNUSED;
const struct container_abilities *container_engine_abilities(const struct container_engine *g);
/* Remove what an earlier, killed siltd left behind: containers, bundles, cgroups. Returns how many.
 */
int container_engine_reap(struct container_engine *g, struct err *e) WARN_UNUSED;
/* All containers must have been freed. */
void container_engine_free(struct container_engine *g);

/* Is there such a program for the container's root? Looks name up (in PATH directories of the root
 * if it has no slash). Used for interpreter_missing before anything starts. */
bool container_engine_has_program(
    const struct container_engine *g, const char *image, const char *name);
/* The same, in the folders of `path` (the variable PATH of an image; NULL: the usual ones). */
bool container_engine_finds(
    const struct container_engine *g, const char *image, const char *path, const char *name);
/* Does the image exist? */
bool container_engine_has_image(const struct container_engine *g, const char *image);

/* Blocks until silt-init reports that it waits (~10 ms). */
int container_new(struct container_engine *g, const struct container_spec *spec,
    struct container **ret, struct err *e) WARN_UNUSED;
/* Start a program that will probably be wanted, and hold it before it can see or do anything that
 * is not the same for every run (server/init_hold.h). At most once, before container_start, which
 * goes on with it if it names the same program without descriptors: same argv, environment (but for
 * the value of SILT_RUN, whose length must be the same) and cwd. Else it is ended, and a new one
 * started. Does not wait; whether it comes to anything is not known before the end (prepared). */
int container_prepare(
    struct container *c, const struct container_process *process, struct err *e) WARN_UNUSED;
/* Where nothing is prepared: make the process for the program, so that less is left to do. Nothing
 * happens under an engine that cannot. */
int container_stand_by(struct container *c, struct err *e) WARN_UNUSED;
int container_start(
    struct container *c, const struct container_process *process, struct err *e) WARN_UNUSED;
/* A pipe for a program's output: the container's user owns the writing end, or the program could
 * not open /dev/stdout anew. The reading end does not block. */
int container_pipe(uid_t uid, gid_t gid, int *ret_read, int *ret_write, struct err *e) WARN_UNUSED;
/* … and one for its input: the container's user owns the reading end, the writing end does not block. */
int container_input(uid_t uid, gid_t gid, int *ret_read, int *ret_write, struct err *e) WARN_UNUSED;
int container_fd(const struct container *c);
int container_wait(struct container *c, struct container_exit *ret, struct err *e) WARN_UNUSED;
/* Send a signal to the program's process group; SIGKILL kills everything in the container at once.
 * Any thread, between container_new and container_free. */
int container_kill(struct container *c, int sig, struct err *e) WARN_UNUSED;
/* CPU time used by the container so far, for the cpu limit. */
uint64_t container_cpu_us(const struct container *c);
void container_free(struct container *c);

/*
 * A view: an overlay over directories that are given by descriptor, mounted for one container and
 * seen by nobody else. Nothing of it is in the host's mount table, and it ends with the
 * server at the latest.
 *
 *     container_view_mount(g, id, &dirs, &fd, e)   fd: its root
 *     container_new(…)    container_spec.workspace: CONTAINER_VIEWS/ID/FOLDER
 *     … container_free(c)
 *     container_view_hide(g, id)
 *
 * Refused with PROTO_INVALID_VALUE where the engine has no views. Until it is hidden the id is taken. What programs write goes to upper_fd with the rights of this
 * process, but not beyond a quota. Whiteouts are character devices 0:0, opaque folders have the
 * attribute trusted.overlay.opaque (without root user.overlay.opaque).
 */
#define CONTAINER_VIEWS "/sys/kernel/views"
struct container_view {
    int lower_fd, upper_fd, work_fd; /* directories; upper and work on one file system */
};
int container_view_mount(struct container_engine *g, const char *id,
    const struct container_view *dirs, int *ret_fd, struct err *e) WARN_UNUSED;
void container_view_hide(struct container_engine *g, const char *id);
/* Let a container that waits have a folder of the view as its workspace, whose inode this is. No
 * program that was prepared in it is to be used: it has seen the other one. */
int container_view_enter(struct container *c, const char *id, const char *folder, uint64_t dev,
    uint64_t ino, struct err *e) WARN_UNUSED;
#endif
