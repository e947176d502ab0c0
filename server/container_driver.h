/* SPDX-License-Identifier: MIT */
/*
 * What an engine has to be able to do: the functions of container.h, behind a table. container.c
 * hands every call to the table of the engine that the settings chose; container_oci.c fills it for
 * OCI runtimes. For container*.c only.
 *
 * An engine's own struct begins with a struct container_engine, a container's with a struct
 * container, so that either can be had from the other.
 */
#ifndef SERVER_CONTAINER_DRIVER_H
#define SERVER_CONTAINER_DRIVER_H

#include "server/container.h"

#define CONTAINER_ID_MAX 64
#define CONTAINER_MARK_BYTES 16 /* "silt-1a2b3c4d" */

struct container_driver {
    int (*reap)(struct container_engine *g, struct err *e);
    void (*free_engine)(struct container_engine *g);
    bool (*has_program)(const struct container_engine *g, const char *image, const char *name);
    bool (*has_image)(const struct container_engine *g, const char *image);
    int (*make)(struct container_engine *g, const struct container_spec *spec,
        struct container **ret, struct err *e);
    int (*prepare)(struct container *c, const struct container_process *process, struct err *e);
    int (*start)(struct container *c, const struct container_process *process, struct err *e);
    int (*fd)(const struct container *c);
    int (*wait)(struct container *c, struct container_exit *ret, struct err *e);
    int (*kill)(struct container *c, int sig, struct err *e);
    uint64_t (*cpu_us)(const struct container *c);
    void (*free)(struct container *c);
};

struct container_engine {
    const struct container_driver *driver;
    struct container_abilities abilities;
    int lock_fd;                     /* held: one engine per state directory */
    char mark[CONTAINER_MARK_BYTES]; /* by which it knows its own things on this machine */
};

struct container {
    struct container_engine *engine;
};

/* An engine made by an OCI runtime's command line (container_engine.c). */
int container_oci_new(const struct container_config *config, struct container_engine **ret,
    struct err *e) WARN_UNUSED;

/* ---- container.c, for the drivers */

/* Take the state directory, and the mark of its name. lock_fd is the caller's to close. */
int container_lock_state(
    struct container_engine *g, const char *state_dir, struct err *e) WARN_UNUSED;
/* Lower-case letters, digits and underscore, 1 to 64, and any of `more` but not first. */
bool container_name_is_plain(const char *name, const char *more);

#endif
