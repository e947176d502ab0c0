/* SPDX-License-Identifier: MIT */
/* Making one container with an OCI runtime's command line, and removing it. */
#include "server/container_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "shared/io.h"
#include "shared/log.h"

#include "shared/banned.h"

#define READY_TIMEOUT_MS 30000
#define END_TIMEOUT_MS 10000   /* for the runtime to clean up after silt-init has died */
#define FORCE_TIMEOUT_MS 10000 /* for `RUNTIME delete --force` */

struct oci_container {
    struct container base;
    bool bundle;   /* there is one to remove */
    pid_t runtime; /* 0: not started or reaped */
    int runtime_pidfd;
    int output; /* what the runtime prints */
};

static struct oci_engine *engine_of(const struct oci_container *c)
{
    return (struct oci_engine *)c->base.engine;
}

/* Start the runtime with one end of a socket and a pipe for what it prints. */
static int start_runtime(struct oci_container *c, const struct container_limits *limits,
    const cpu_set_t *cpus, struct err *e)
{
    const struct oci_engine *g = engine_of(c);
    int socks[2], pipes[2];
    char bundle[128];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks) < 0)
        return err_set(e, errno, "make a socket pair");
    c->base.sock = socks[0];
    CLEANUP(fd_closep) int theirs = socks[1];
    if (pipe2(pipes, O_CLOEXEC) < 0)
        return err_set(e, errno, "make a pipe");
    c->output = pipes[0];
    CLEANUP(fd_closep) int output = pipes[1];
    int r = container_ready_socket(&c->base, e);
    if (r < 0)
        return r;
    (void)snprintf(bundle, sizeof bundle, PLACE_BUNDLES "/%s", c->base.id);
    const char *argv[12];
    size_t n = 0;
    const char *option = *c->base.cgroup ? g->kind->cgroup_on : g->kind->cgroup_off;
    argv[n++] = "--root";
    argv[n++] = PLACE_RUN;
    if (option)
        argv[n++] = option;
    argv[n++] = "run";
    argv[n++] = "--bundle";
    argv[n++] = bundle;
    argv[n++] = "--preserve-fds";
    argv[n++] = "1";
    argv[n++] = c->base.id;
    argv[n] = NULL;
    static const char *const around[] = {INIT_AROUND, NULL};
    struct spawn spawn = {.argv = g->kind->around ? around : argv,
        .socket = theirs,
        .output = output,
        .cpus = cpus,
        .around = g->kind->around};
    int join[CGROUP_JOIN_MAX];
    if (g->kind->around) {
        spawn.join = join;
        r = spawn.join_count = around_make_cgroup(g, c->base.cgroup, limits, join, e);
    }
    if (r >= 0)
        r = spawn_runtime(g, &spawn, &c->runtime, &c->runtime_pidfd, e);
    for (int i = 0; i < spawn.join_count; i++)
        (void)close(join[i]);
    return r;
}

/* The runtime's own words, one line: its last, for crun and runc print the cause last. */
static int runtime_failed(struct oci_container *c, const char *what, struct err *e)
{
    char text[4096], *line = text;
    ssize_t n = io_nonblock(c->output, 1) < 0 ? -1 : read(c->output, text, sizeof text - 1);
    text[n > 0 ? n : 0] = '\0';
    for (size_t len = strlen(text); len > 0 && text[len - 1] == '\n';)
        text[--len] = '\0';
    if (strrchr(text, '\n'))
        line = strrchr(text, '\n') + 1;
    for (char *p = line; *p; p++) {
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = '?';
    }
    return err_refuse(e, PROTO_ENGINE_FAILED, "%s %s: %.300s", engine_of(c)->base.abilities.engine,
        what, *line ? line : "it ended without a word");
}

static int oci_make(struct container *container, const struct container_spec *spec, struct err *e)
{
    struct oci_container *c = (struct oci_container *)container;
    struct oci_engine *g = engine_of(c);
    cpu_set_t cpus;
    bool pin = false;
    c->runtime_pidfd = c->output = -1;
    if (g->base.cgroups.version != CGROUP_NONE)
        (void)snprintf(
            c->base.cgroup, sizeof c->base.cgroup, "%s/%s", g->cgroup_parent, c->base.id);
    (void)pthread_mutex_lock(&g->lock);
    int r = place_refresh(&g->place, g->copies, e);
    (void)pthread_mutex_unlock(&g->lock);
    if (r < 0 ||
        (r = spec_write_bundle(g, spec, g->kind->around ? "" : c->base.cgroup, &cpus, &pin, e)) < 0)
        return r;
    c->bundle = true;
    if ((r = start_runtime(c, &spec->limits, pin ? &cpus : NULL, e)) < 0)
        return r;
    if (!container_await_ready(&c->base, c->runtime_pidfd, READY_TIMEOUT_MS))
        return runtime_failed(c, "cannot start a container", e);
    /* With silt-init around the runtime nothing is mounted before the program is known. */
    return g->kind->around ? 0 : container_check_mounted(&c->base, e);
}

/* Where the runtime was quicker to remove the cgroup than we to look, nobody else than the kernel
 * can have sent SIGKILL. */
static bool oci_memory_struck(struct container *container)
{
    struct oci_container *c = (struct oci_container *)container;
    int status = 0;
    bool ended = spawn_wait(c->runtime, c->runtime_pidfd, END_TIMEOUT_MS, &status) == 0;
    if (ended)
        c->runtime = 0;
    bool by_kill = ended && ((WIFEXITED(status) && WEXITSTATUS(status) == 128 + SIGKILL) ||
                                (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
    return by_kill && c->base.started && c->base.engine->abilities.limit_memory;
}

static void end_runtime(struct oci_container *c)
{
    int status;
    if (c->runtime == 0)
        return;
    if (spawn_wait(c->runtime, c->runtime_pidfd, END_TIMEOUT_MS, &status) == 0) {
        c->runtime = 0;
        return;
    }
    /* It hangs: let a second one clean up, then it ends whatever it does. */
    char text[256];
    if (spawn_collect(engine_of(c),
            (const char *const[]){"--root", PLACE_RUN, "delete", "--force", c->base.id, NULL},
            FORCE_TIMEOUT_MS, text, sizeof text, &status, NULL) < 0)
        log_warn("container %s could not be deleted by force", c->base.id);
    (void)kill(c->runtime, SIGKILL);
    if (spawn_wait(c->runtime, c->runtime_pidfd, FORCE_TIMEOUT_MS, &status) < 0)
        log_warn(
            "container %s: the runtime's process %d does not end", c->base.id, (int)c->runtime);
    c->runtime = 0;
}

static void oci_end(struct container *container)
{
    struct oci_container *c = (struct oci_container *)container;
    end_runtime(c);
    if (*c->base.cgroup && c->runtime_pidfd >= 0)
        cgroup_remove(&c->base.engine->cgroups, c->base.cgroup);
    if (c->bundle)
        spec_remove_bundle(engine_of(c), c->base.id);
    fd_closep(&c->runtime_pidfd);
    fd_closep(&c->output);
}

const struct container_driver container_oci_driver = {
    .container_bytes = sizeof(struct oci_container),
    .reap = oci_engine_reap,
    .free_engine = oci_engine_free,
    .has_program = oci_engine_has_program,
    .has_image = oci_engine_has_image,
    .make = oci_make,
    .memory_struck = oci_memory_struck,
    .end = oci_end,
    .view_mount = oci_view_mount,
    .view_hide = oci_view_hide,
    .view_enter = oci_view_enter,
};

/* The loss of a kernel in user space is no proof: only what the cgroup counted is. */
static bool around_memory_struck(struct container *c)
{
    (void)c;
    return false;
}

const struct container_driver container_around_driver = {
    .container_bytes = sizeof(struct oci_container),
    .reap = oci_engine_reap,
    .free_engine = oci_engine_free,
    .has_program = oci_engine_has_program,
    .has_image = oci_engine_has_image,
    .make = oci_make,
    .memory_struck = around_memory_struck,
    .end = oci_end,
    .view_mount = oci_view_mount,
    .view_hide = oci_view_hide,
    .hand_over = around_start,
    .signal = around_signal,
    .verdict = around_verdict,
};
