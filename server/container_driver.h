/* SPDX-License-Identifier: MIT */
/*
 * What every engine's containers have in common: silt-init is in each (or around it), and all that
 * happens to a program goes over its socket. container.c does that part. An engine makes containers
 * up to the point where silt-init waits, and removes them; what it needs for that stands behind the
 * table of functions below. For container*.c only.
 *
 * An engine's own struct begins with a struct container_engine, a container's with a struct
 * container, so that either can be had from the other.
 */
#ifndef SERVER_CONTAINER_DRIVER_H
#define SERVER_CONTAINER_DRIVER_H

#include <pthread.h>

#include "server/cgroup.h"
#include "server/container.h"
#include "server/init.h"

#define CONTAINER_ID_MAX 64
#define CONTAINER_MARK_BYTES 16 /* "silt-1a2b3c4d" */

struct container_driver {
    size_t container_bytes; /* of its struct that begins with a struct container */
    int (*reap)(struct container_engine *g, struct err *e);
    void (*free_engine)(struct container_engine *g);
    bool (*has_program)(const struct container_engine *g, const char *image, const char *name);
    bool (*has_image)(const struct container_engine *g, const char *image);
    /* Make it, until silt-init has said on c->sock that it waits (container_await_ready). c->cgroup
     * is filled, or "". What is half made is removed by end. */
    int (*make)(struct container *c, const struct container_spec *spec, struct err *e);
    /* silt-init is dead without a report, and nobody killed it: was it the memory limit? Asked when
     * the cgroup does not say so. */
    bool (*memory_struck)(struct container *c);
    /* Remove all that is left of it. silt-init was killed, its socket is closed. */
    void (*end)(struct container *c);

    /* For runtimes that silt-init stands around, else NULL: how a program is handed over (under the
     * container's lock), a signal sent (same), and what became of it. */
    int (*hand_over)(struct container *c, const struct container_process *process, struct err *e);
    int (*signal)(struct container *c, int sig);
    void (*verdict)(struct container *c, struct container_exit *ret);

    /* Or NULL, all three: it has no views. view_enter alone: no container waits. */
    int (*view_mount)(struct container_engine *g, const char *id, const struct container_view *dirs,
        int *ret_fd, struct err *e);
    void (*view_hide)(struct container_engine *g, const char *id);
    int (*view_enter)(struct container *c, const char *id, const char *folder, struct err *e);
};

struct container_engine {
    const struct container_driver *driver;
    struct container_abilities abilities;
    struct cgroup_host cgroups;
    int lock_fd;                     /* held: one engine per state directory */
    char mark[CONTAINER_MARK_BYTES]; /* by which it knows its own things on this machine */
};

struct container {
    struct container_engine *engine;
    char id[CONTAINER_ID_MAX + 1];
    char cgroup[CGROUP_NAME_BYTES]; /* "" = none, or not known */
    char *workspace;
    uint64_t workspace_dev, workspace_ino;
    bool view; /* workspace is not seen from outside */
    int sock;
    int init_pidfd;
    pid_t init;
    int ended;  /* epoll of sock and init_pidfd */
    bool begun; /* the engine has something to remove */
    bool prepared, started, finished;
    struct cgroup_meter meter;
    uint64_t cpu_base_us, peak_base_bytes; /* as of the hand-over */
    pthread_mutex_t
        lock; /* guards what container_kill touches: the socket's writing end and these */
    bool killed;
    struct cgroup_usage last; /* read right before a kill: the cgroup may be gone after */
};

/* An engine made by an OCI runtime's command line (container_engine.c). */
int container_oci_new(const struct container_config *config, struct container_engine **ret,
    struct err *e) WARN_UNUSED;

/* One whose containers Docker Engine makes (container_docker.c). */
int container_docker_new(const struct container_config *config, struct container_engine **ret,
    struct err *e) WARN_UNUSED;

/* ---- container_order.c; the container's lock is held by those who send */

/* Read one report; with ret_pid also who sent it. 0, or -EPIPE when there will be none. */
int order_read_report(int sock, struct init_report *ret, pid_t *ret_pid) WARN_UNUSED;
/* An order, with three descriptors if fds is not NULL. */
int order_send(int sock, const struct init_order *order, const int *fds) WARN_UNUSED;
/* One that names a program; descriptors below 0 are not sent. -EINVAL and -E2BIG: nothing was sent.
 */
int order_send_job(int sock, enum init_order_kind kind, const struct container_process *process,
    struct err *e) WARN_UNUSED;

/* ---- container_cpu.c */

/* CPU time of process 1 of a container and of all that descends from it, by /proc, for where no
 * cgroup counts. That of children for whom nobody waited is lost. */
uint64_t container_cpu_of(pid_t init);
/* What the text of /proc/PID/stat says, in clock ticks. false: it is no such text. */
bool container_cpu_ticks(const char *text, uint64_t *ret);

/* ---- container.c, for the drivers */

/* Take the state directory, and the mark of its name. lock_fd is the caller's to close. */
int container_lock_state(
    struct container_engine *g, const char *state_dir, struct err *e) WARN_UNUSED;
/* Prepare c->sock, silt-init's other end of which is on its way. */
int container_ready_socket(struct container *c, struct err *e) WARN_UNUSED;
/* Wait until silt-init says on c->sock that it waits, or `other` (a descriptor, or -1) can be read.
 * false: it does not come. */
bool container_await_ready(struct container *c, int other, int timeout_ms);
/* -ESTALE unless path is the directory that the container's workspace was. */
int container_check_workspace(
    const struct container *c, const char *path, struct err *e) WARN_UNUSED;
/* … what is really mounted in there, seen through silt-init's own root. */
int container_check_mounted(const struct container *c, struct err *e) WARN_UNUSED;
/* Lower-case letters, digits and underscore, 1 to 64, and any of `more` but not first. */
bool container_name_is_plain(const char *name, const char *more);

#endif
