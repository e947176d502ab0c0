/* SPDX-License-Identifier: MIT */
/* The engine that the settings chose, and every call handed on to it. */
#include "server/container_driver.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "shared/io.h"

#include "shared/banned.h"

int container_engine_new(
    const struct container_config *config, struct container_engine **ret, struct err *e)
{
    return container_oci_new(config, ret, e);
}

const struct container_abilities *container_engine_abilities(const struct container_engine *g)
{
    return &g->abilities;
}

int container_engine_reap(struct container_engine *g, struct err *e)
{
    return g->driver->reap(g, e);
}

void container_engine_free(struct container_engine *g)
{
    if (g)
        g->driver->free_engine(g);
}

bool container_engine_has_program(
    const struct container_engine *g, const char *image, const char *name)
{
    return name && *name && g->driver->has_program(g, image, name);
}

bool container_engine_has_image(const struct container_engine *g, const char *image)
{
    return g->driver->has_image(g, image);
}

int container_new(struct container_engine *g, const struct container_spec *spec,
    struct container **ret, struct err *e)
{
    return g->driver->make(g, spec, ret, e);
}

int container_prepare(struct container *c, const struct container_process *process, struct err *e)
{
    return c->engine->driver->prepare(c, process, e);
}

int container_start(struct container *c, const struct container_process *process, struct err *e)
{
    return c->engine->driver->start(c, process, e);
}

int container_fd(const struct container *c)
{
    return c->engine->driver->fd(c);
}

int container_wait(struct container *c, struct container_exit *ret, struct err *e)
{
    return c->engine->driver->wait(c, ret, e);
}

int container_kill(struct container *c, int sig, struct err *e)
{
    return c->engine->driver->kill(c, sig, e);
}

uint64_t container_cpu_us(const struct container *c)
{
    return c->engine->driver->cpu_us(c);
}

void container_free(struct container *c)
{
    if (c)
        c->engine->driver->free(c);
}

/* ---- for the drivers */

/* One engine per state directory: another one would reap this one's containers. */
int container_lock_state(struct container_engine *g, const char *state_dir, struct err *e)
{
    char path[PATH_MAX], *real;
    int r = io_mkdirs(state_dir, 0700, e);
    if (r < 0)
        return r;
    if (snprintf(path, sizeof path, "%s/lock", state_dir) >= (int)sizeof path)
        return err_set(e, ENAMETOOLONG, "lock '%s'", state_dir);
    g->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (g->lock_fd < 0)
        return err_set(e, errno, "open '%s'", path);
    if (flock(g->lock_fd, LOCK_EX | LOCK_NB) < 0)
        return errno == EWOULDBLOCK
                   ? err_say(e, EBUSY,
                         "another siltd uses '%s': stop it or choose another state "
                         "directory",
                         state_dir)
                   : err_set(e, errno, "lock '%s'", path);
    /* What different servers make on one machine must not meet: FNV-1a of the directory's name. */
    uint32_t hash = 2166136261u;
    real = realpath(state_dir, NULL);
    for (const char *p = real ? real : state_dir; *p; p++)
        hash = (hash ^ (uint8_t)*p) * 16777619u;
    free(real);
    (void)snprintf(g->mark, sizeof g->mark, "silt-%08x", hash);
    return 0;
}

bool container_name_is_plain(const char *name, const char *more)
{
    size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_");
    while (name[n] && strchr(more, name[n]))
        n += 1 + strspn(name + n + 1, "abcdefghijklmnopqrstuvwxyz0123456789_");
    return n > 0 && n <= CONTAINER_ID_MAX && !name[n] && name[0] != '.' && name[0] != '-';
}
