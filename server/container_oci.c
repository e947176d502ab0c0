/* SPDX-License-Identifier: MIT */
#include "server/container_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "shared/io.h"
#include "shared/log.h"
#include "shared/weaken.h"

#include "shared/banned.h"

#define READY_TIMEOUT_MS 30000
#define SEND_TIMEOUT_S 10
#define END_TIMEOUT_MS 10000   /* for the runtime to clean up after silt-init has died */
#define FORCE_TIMEOUT_MS 10000 /* for `RUNTIME delete --force` */

struct oci_container {
    struct container base;
    char id[CONTAINER_ID_MAX + 1];
    char cgroup[CGROUP_NAME_BYTES]; /* "" = none */
    char *workspace;
    uint64_t workspace_dev, workspace_ino;
    bool bundle;   /* there is one to remove */
    pid_t runtime; /* 0: not started or reaped */
    int runtime_pidfd;
    int output; /* what the runtime prints */
    int sock;
    int init_pidfd;
    pid_t init;
    int ended; /* epoll of sock and init_pidfd */
    bool prepared, started, finished;
    uint64_t cpu_base_us, peak_base_bytes; /* as of the hand-over */
    pthread_mutex_t
        lock; /* guards what container_kill touches: the socket's writing end and these */
    bool killed;
    struct cgroup_usage last; /* read right before a kill: the cgroup may be gone after */
};

static struct oci_engine *engine_of(const struct oci_container *c)
{
    return (struct oci_engine *)c->base.engine;
}

static void oci_free(struct container *container);

/* ---- making */

static int make_half(struct oci_engine *g, const struct container_spec *spec,
    struct oci_container **ret, struct err *e)
{
    struct oci_container *c = calloc(1, sizeof *c);
    if (!c)
        return err_set(e, ENOMEM, "make a container");
    c->base.engine = &g->base;
    c->runtime_pidfd = c->output = c->sock = c->init_pidfd = c->ended = -1;
    (void)pthread_mutex_init(&c->lock, NULL);
    c->workspace = strdup(spec->workspace);
    c->workspace_dev = spec->workspace_dev;
    c->workspace_ino = spec->workspace_ino;
    (void)snprintf(c->id, sizeof c->id, "%s", spec->id);
    if (g->cgroups.version != CGROUP_NONE)
        (void)snprintf(c->cgroup, sizeof c->cgroup, "%s/%s", g->cgroup_parent, c->id);
    if (!c->workspace) {
        oci_free(&c->base);
        return err_set(e, ENOMEM, "make a container");
    }
    *ret = c;
    return 0;
}

/* Start the runtime with one end of a socket and a pipe for what it prints. */
static int start_runtime(struct oci_container *c, const struct container_limits *limits,
    const cpu_set_t *cpus, struct err *e)
{
    const struct oci_engine *g = engine_of(c);
    int socks[2], pipes[2], on = 1;
    char bundle[128];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks) < 0)
        return err_set(e, errno, "make a socket pair");
    c->sock = socks[0];
    CLEANUP(fd_closep) int theirs = socks[1];
    if (pipe2(pipes, O_CLOEXEC) < 0)
        return err_set(e, errno, "make a pipe");
    c->output = pipes[0];
    CLEANUP(fd_closep) int output = pipes[1];
    struct timeval timeout = {.tv_sec = SEND_TIMEOUT_S};
    /* The kernel tells who sent "ready": silt-init's pid as we see it. */
    if (setsockopt(c->sock, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) < 0 ||
        setsockopt(c->sock, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout) < 0)
        return err_set(e, errno, "prepare the socket");
    (void)snprintf(bundle, sizeof bundle, PLACE_BUNDLES "/%s", c->id);
    const char *argv[12];
    size_t n = 0;
    const char *option = *c->cgroup ? g->kind->cgroup_on : g->kind->cgroup_off;
    argv[n++] = "--root";
    argv[n++] = PLACE_RUN;
    if (option)
        argv[n++] = option;
    argv[n++] = "run";
    argv[n++] = "--bundle";
    argv[n++] = bundle;
    argv[n++] = "--preserve-fds";
    argv[n++] = "1";
    argv[n++] = c->id;
    argv[n] = NULL;
    static const char *const around[] = {INIT_AROUND, NULL};
    struct spawn spawn = {.argv = g->kind->around ? around : argv,
        .socket = theirs,
        .output = output,
        .cpus = cpus,
        .around = g->kind->around};
    int join[CGROUP_JOIN_MAX];
    int r = 0;
    if (g->kind->around) {
        spawn.join = join;
        r = spawn.join_count = around_make_cgroup(g, c->cgroup, limits, join, e);
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

static int wait_ready(struct oci_container *c, struct err *e)
{
    struct pollfd fds[] = {{c->sock, POLLIN, 0}, {c->runtime_pidfd, POLLIN, 0}};
    uint64_t deadline = io_now_ns() + (uint64_t)READY_TIMEOUT_MS * 1000000u;
    struct init_report report;
    for (;;) {
        uint64_t now = io_now_ns();
        if (now >= deadline)
            return runtime_failed(c, "does not get ready", e);
        int n = poll(fds, 2, (int)((deadline - now) / 1000000u) + 1);
        if (n > 0)
            break;
    }
    if (!(fds[0].revents & POLLIN) || order_read_report(c->sock, &report, &c->init) < 0 ||
        report.kind != INIT_READY || c->init <= 1)
        return runtime_failed(c, "cannot start a container", e);
    c->init_pidfd = (int)syscall(SYS_pidfd_open, c->init, 0);
    struct pollfd alive = {.fd = c->sock, .events = 0};
    /* Still alive after the look-up: so the pid was not somebody else's by then. */
    if (c->init_pidfd < 0 || poll(&alive, 1, 0) != 0)
        return runtime_failed(c, "lost a container", e);
    return 0;
}

static int watch_end(struct oci_container *c, struct err *e)
{
    c->ended = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event ev = {.events = EPOLLIN};
    if (c->ended < 0 || epoll_ctl(c->ended, EPOLL_CTL_ADD, c->sock, &ev) < 0 ||
        epoll_ctl(c->ended, EPOLL_CTL_ADD, c->init_pidfd, &ev) < 0)
        return err_set(e, errno, "watch a container");
    return 0;
}

static int check_workspace(const struct oci_container *c, const char *path, struct err *e)
{
    struct stat st;
    if (stat(path, &st) < 0 || st.st_dev != c->workspace_dev || st.st_ino != c->workspace_ino)
        return err_say(e, ESTALE, "the workspace '%s' is not the directory it was", c->workspace);
    return 0;
}

/* What is really mounted in there, seen through silt-init's own root. */
static int check_mounted(const struct oci_container *c, struct err *e)
{
    char path[64];
    if (engine_of(c)->kind->around)
        return 0; /* nothing is mounted before the program is known */
    (void)snprintf(path, sizeof path, "/proc/%d/root/workspace", (int)c->init);
    return check_workspace(c, path, e);
}

static int oci_make(struct container_engine *engine, const struct container_spec *spec,
    struct container **ret, struct err *e)
{
    struct oci_engine *g = (struct oci_engine *)engine;
    struct oci_container *c = NULL;
    cpu_set_t cpus;
    bool pin = false;
    int r = make_half(g, spec, &c, e);
    if (r < 0)
        return r;
    (void)pthread_mutex_lock(&g->lock);
    r = place_refresh(&g->place, g->copies, e);
    (void)pthread_mutex_unlock(&g->lock);
    if (r < 0 || (r = check_workspace(c, c->workspace, e)) < 0 ||
        (r = spec_write_bundle(g, spec, g->kind->around ? "" : c->cgroup, &cpus, &pin, e)) < 0)
        goto fail;
    c->bundle = true;
    if ((r = start_runtime(c, &spec->limits, pin ? &cpus : NULL, e)) < 0 ||
        (r = wait_ready(c, e)) < 0 || (r = check_mounted(c, e)) < 0 || (r = watch_end(c, e)) < 0)
        goto fail;
    *ret = &c->base;
    return 0;
fail:
    oci_free(&c->base);
    return r;
}

/* ---- running */

static int oci_prepare(
    struct container *container, const struct container_process *process, struct err *e)
{
    struct oci_container *c = (struct oci_container *)container;
    if (engine_of(c)->kind->around)
        return err_say(e, ENOTSUP, "this runtime prepares no programs");
    if (c->started || c->prepared)
        return err_say(e, EALREADY, "container '%s' was used before", c->id);
    (void)pthread_mutex_lock(&c->lock);
    c->prepared = true;
    int r = order_send_job(c->sock, INIT_PREPARE, process, e);
    (void)pthread_mutex_unlock(&c->lock);
    return r;
}

static int oci_start(
    struct container *container, const struct container_process *process, struct err *e)
{
    struct oci_container *c = (struct oci_container *)container;
    if (c->started)
        return err_say(e, EALREADY, "container '%s' was used before", c->id);
    if (process->stdin_fd < 0 && !c->prepared)
        return err_say(e, EINVAL, "a program needs descriptors");
    /* The mount holds the directory that was there when the container was made. */
    int r = check_workspace(c, c->workspace, e);
    if (r < 0)
        return r;
    if (*c->cgroup) {
        c->cpu_base_us = cgroup_cpu_us(&engine_of(c)->cgroups, c->cgroup);
        c->peak_base_bytes = cgroup_reset_peak(&engine_of(c)->cgroups, c->cgroup);
    }
    (void)pthread_mutex_lock(&c->lock);
    if (engine_of(c)->kind->around)
        r = around_start(engine_of(c), c->id, c->sock, process, e);
    else
        r = order_send_job(c->sock, INIT_RUN, process, e);
    c->started = r != -EINVAL && r != -E2BIG;
    (void)pthread_mutex_unlock(&c->lock);
    return r;
}

static int oci_fd(const struct container *container)
{
    const struct oci_container *c = (const struct oci_container *)container;
    return c->ended;
}

static uint64_t oci_cpu_us(const struct container *container)
{
    const struct oci_container *c = (const struct oci_container *)container;
    if (!*c->cgroup)
        return 0;
    uint64_t now = cgroup_cpu_us(&engine_of(c)->cgroups, c->cgroup);
    return now > c->cpu_base_us ? now - c->cpu_base_us : 0;
}

static int oci_kill(struct container *container, int sig, struct err *e)
{
    struct oci_container *c = (struct oci_container *)container;
    int r = 0;
    (void)pthread_mutex_lock(&c->lock);
    if (sig == SIGKILL) {
        if (!c->killed && *c->cgroup)
            cgroup_read(&engine_of(c)->cgroups, c->cgroup, &c->last);
        c->killed = true;
        if (syscall(SYS_pidfd_send_signal, c->init_pidfd, SIGKILL, NULL, 0) < 0 && errno != ESRCH)
            r = -errno;
    } else if (!c->started || c->finished) {
        r = -ESRCH;
    } else if (engine_of(c)->kind->around) {
        r = around_signal(engine_of(c), c->id, c->sock, sig);
    } else {
        r = order_send(
            c->sock, &(struct init_order){.kind = INIT_SIGNAL, .signal = (uint32_t)sig}, NULL);
    }
    (void)pthread_mutex_unlock(&c->lock);
    return r < 0 ? err_set(e, -r, "signal container '%s'", c->id) : 0;
}

/* The cgroup's figures since hand-over; what the kernel did not count there comes from the report.
 */
static void add_usage(
    struct oci_container *c, const struct init_report *report, struct container_exit *ret)
{
    struct cgroup_usage usage = {.known = false};
    uint64_t user = report->user_us, kernel = report->system_us, both = user + kernel;
    if (*c->cgroup)
        cgroup_read(&engine_of(c)->cgroups, c->cgroup, &usage);
    if (!usage.known)
        usage = c->last;
    ret->oom_killed = usage.oom_kills > 0;
    ret->pids_limit_hit = usage.pids_refused > 0;
    /* A peak that is still the one of the making says that the program took less. */
    ret->memory_peak_bytes =
        usage.memory_peak_bytes > c->peak_base_bytes ? usage.memory_peak_bytes : report->peak_bytes;
    if (usage.cpu_us > c->cpu_base_us) {
        /* The cgroup's sum is exact to the nanosecond, its halves only to the clock tick: divide
         * as the program's own usage does. */
        uint64_t all = usage.cpu_us - c->cpu_base_us;
        user = both > 0 ? (uint64_t)((double)all * ((double)user / (double)both)) : all;
        kernel = all - user;
    }
    ret->user_us = user;
    ret->system_us = kernel;
}

/* No report: silt-init itself is dead. */
static void explain_loss(struct oci_container *c, struct container_exit *ret)
{
    (void)pthread_mutex_lock(&c->lock);
    bool killed = c->killed;
    (void)pthread_mutex_unlock(&c->lock);
    if (killed) {
        ret->signal = SIGKILL;
        return;
    }
    /* The program cannot kill process 1. When the memory limit is what struck it, the kernel's own
     * count usually says so; where the runtime was quicker to remove the cgroup, nobody else than
     * the kernel can have sent SIGKILL. */
    if (engine_of(c)->kind->around) {
        /* A kernel in user space that the limit struck takes the program with it. */
        ret->lost = !ret->oom_killed;
        ret->signal = ret->oom_killed ? SIGKILL : 0;
        return;
    }
    int status = 0;
    bool ended = spawn_wait(c->runtime, c->runtime_pidfd, END_TIMEOUT_MS, &status) == 0;
    if (ended)
        c->runtime = 0;
    bool by_kill = ended && ((WIFEXITED(status) && WEXITSTATUS(status) == 128 + SIGKILL) ||
                                (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
    if (ret->oom_killed || (by_kill && c->started && engine_of(c)->base.abilities.limit_memory)) {
        ret->oom_killed = true;
        ret->signal = SIGKILL;
        return;
    }
    ret->lost = true;
}

static int oci_wait(struct container *container, struct container_exit *ret, struct err *e)
{
    struct oci_container *c = (struct oci_container *)container;
    struct pollfd p = {.fd = c->ended, .events = POLLIN};
    struct init_report report = {.kind = 0};
    if (c->finished)
        return err_say(e, EALREADY, "container '%s' was waited for before", c->id);
    while (poll(&p, 1, -1) < 0) {
        if (errno != EINTR)
            return err_set(e, errno, "wait for container '%s'", c->id);
    }
    *ret = (struct container_exit){.started = true};
    bool reported = order_read_report(c->sock, &report, NULL) == 0 && report.kind == INIT_ENDED;
    add_usage(c, &report, ret);
    (void)pthread_mutex_lock(&c->lock);
    c->finished = true;
    (void)pthread_mutex_unlock(&c->lock);
    if (!reported) {
        explain_loss(c, ret);
        return 0;
    }
    if (engine_of(c)->kind->around) {
        around_verdict(engine_of(c), c->id, ret);
        if (ret->lost)
            explain_loss(c, ret);
        return 0;
    }
    ret->started = report.exec_errno == 0;
    ret->exec_errno = report.exec_errno;
    ret->prepared = report.prepared != 0;
    if (WIFSIGNALED(report.status))
        ret->signal = WTERMSIG(report.status);
    else
        ret->exit_code = WEXITSTATUS(report.status);
    return 0;
}

/* ---- ending */

static void end_runtime(struct oci_container *c)
{
    int status;
    if (c->init_pidfd >= 0)
        (void)syscall(SYS_pidfd_send_signal, c->init_pidfd, SIGKILL, NULL, 0);
    fd_closep(&c->sock); /* ends a silt-init that we do not know yet */
    if (c->runtime == 0)
        return;
    if (spawn_wait(c->runtime, c->runtime_pidfd, END_TIMEOUT_MS, &status) == 0) {
        c->runtime = 0;
        return;
    }
    /* It hangs: let a second one clean up, then it ends whatever it does. */
    char text[256];
    if (spawn_collect(engine_of(c),
            (const char *const[]){"--root", PLACE_RUN, "delete", "--force", c->id, NULL},
            FORCE_TIMEOUT_MS, text, sizeof text, &status, NULL) < 0)
        log_warn("container %s could not be deleted by force", c->id);
    (void)kill(c->runtime, SIGKILL);
    if (spawn_wait(c->runtime, c->runtime_pidfd, FORCE_TIMEOUT_MS, &status) < 0)
        log_warn("container %s: the runtime's process %d does not end", c->id, (int)c->runtime);
    c->runtime = 0;
}

static void oci_free(struct container *container)
{
    struct oci_container *c = (struct oci_container *)container;
    if (WEAK("end"))
        return;
    end_runtime(c);
    if (*c->cgroup && c->runtime_pidfd >= 0)
        cgroup_remove(&engine_of(c)->cgroups, c->cgroup);
    if (c->bundle)
        spec_remove_bundle(engine_of(c), c->id);
    fd_closep(&c->ended);
    fd_closep(&c->init_pidfd);
    fd_closep(&c->runtime_pidfd);
    fd_closep(&c->output);
    fd_closep(&c->sock);
    (void)pthread_mutex_destroy(&c->lock);
    free(c->workspace);
    free(c);
}

const struct container_driver container_oci_driver = {
    .reap = oci_engine_reap,
    .free_engine = oci_engine_free,
    .has_program = oci_engine_has_program,
    .has_image = oci_engine_has_image,
    .make = oci_make,
    .prepare = oci_prepare,
    .start = oci_start,
    .fd = oci_fd,
    .wait = oci_wait,
    .kill = oci_kill,
    .cpu_us = oci_cpu_us,
    .free = oci_free,
};
