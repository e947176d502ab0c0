/* SPDX-License-Identifier: MIT */
/* One container's life, whichever engine made it: everything that silt-init does for a program. */
#include "server/container_driver.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shared/io.h"
#include "shared/weaken.h"

#include "shared/banned.h"

#define SEND_TIMEOUT_S 10

int container_engine_new(
    const struct container_config *config, struct container_engine **ret, struct err *e)
{
    static const struct {
        const char *name;
        int (*open)(
            const struct container_config *config, struct container_engine **ret, struct err *e);
    } engines[] = {{"oci", container_oci_new}, {"docker", container_docker_new}};
    const char *wanted = config->engine ? config->engine : "oci";
    for (size_t i = 0; i < sizeof engines / sizeof engines[0]; i++) {
        if (strcmp(engines[i].name, wanted) == 0)
            return engines[i].open(config, ret, e);
    }
    return err_say(e, EINVAL, "there is no engine '%s': use oci or docker", wanted);
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

bool container_engine_finds(
    const struct container_engine *g, const char *image, const char *path, const char *name)
{
    char full[PATH_MAX];
    if (!path || !name || !*name || strchr(name, '/'))
        return container_engine_has_program(g, image, name);
    for (const char *dir = path; *dir;) {
        size_t len = strcspn(dir, ":");
        if (len > 0 && len < sizeof full &&
            snprintf(full, sizeof full, "%.*s/%s", (int)len, dir, name) < (int)sizeof full &&
            container_engine_has_program(g, image, full))
            return true;
        dir += len + (dir[len] == ':');
    }
    return false;
}

bool container_engine_has_image(const struct container_engine *g, const char *image)
{
    return g->driver->has_image(g, image);
}

/* ---- making */

static int make_half(struct container_engine *g, const struct container_spec *spec,
    struct container **ret, struct err *e)
{
    struct container *c = calloc(1, g->driver->container_bytes);
    if (!c)
        return err_set(e, ENOMEM, "make a container");
    c->engine = g;
    c->sock = c->init_pidfd = c->ended = -1;
    (void)pthread_mutex_init(&c->lock, NULL);
    c->workspace = strdup(spec->workspace);
    c->workspace_dev = spec->workspace_dev;
    c->workspace_ino = spec->workspace_ino;
    c->view = spec->view;
    (void)snprintf(c->id, sizeof c->id, "%s", spec->id);
    c->meter = (struct cgroup_meter)CGROUP_METER_NONE;
    if (!c->workspace) {
        (void)pthread_mutex_destroy(&c->lock);
        free(c);
        return err_set(e, ENOMEM, "make a container");
    }
    *ret = c;
    return 0;
}

int container_ready_socket(struct container *c, struct err *e)
{
    int on = 1;
    struct timeval timeout = {.tv_sec = SEND_TIMEOUT_S};
    /* The kernel tells who sent "ready": silt-init's pid as we see it. */
    if (setsockopt(c->sock, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) < 0 ||
        setsockopt(c->sock, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout) < 0)
        return err_set(e, errno, "prepare the socket");
    return 0;
}

bool container_await_ready(struct container *c, int other, int timeout_ms)
{
    struct pollfd fds[] = {{c->sock, POLLIN, 0}, {other, POLLIN, 0}};
    uint64_t deadline = io_now_ns() + (uint64_t)timeout_ms * 1000000u;
    struct init_report report;
    for (;;) {
        uint64_t now = io_now_ns();
        if (now >= deadline)
            return false;
        if (poll(fds, 2, (int)((deadline - now) / 1000000u) + 1) > 0)
            break;
    }
    if (!(fds[0].revents & POLLIN) || order_read_report(c->sock, &report, &c->init) < 0 ||
        report.kind != INIT_READY || c->init <= 1)
        return false;
    c->init_pidfd = (int)syscall(SYS_pidfd_open, c->init, 0);
    struct pollfd alive = {.fd = c->sock, .events = 0};
    /* Still alive after the look-up: so the pid was not somebody else's by then. */
    return c->init_pidfd >= 0 && poll(&alive, 1, 0) == 0;
}

static int watch_end(struct container *c, struct err *e)
{
    c->ended = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event ev = {.events = EPOLLIN};
    if (c->ended < 0 || epoll_ctl(c->ended, EPOLL_CTL_ADD, c->sock, &ev) < 0 ||
        epoll_ctl(c->ended, EPOLL_CTL_ADD, c->init_pidfd, &ev) < 0)
        return err_set(e, errno, "watch a container");
    return 0;
}

int container_check_workspace(const struct container *c, const char *path, struct err *e)
{
    struct stat st;
    if (c->view && path == c->workspace) /* nobody else knows of it */
        return 0;
    if (stat(path, &st) < 0 || st.st_dev != c->workspace_dev || st.st_ino != c->workspace_ino)
        return err_say(e, ESTALE, "the workspace '%s' is not the directory it was", c->workspace);
    return 0;
}

int container_check_mounted(const struct container *c, struct err *e)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/%d/root/workspace", (int)c->init);
    return container_check_workspace(c, path, e);
}

int container_new(struct container_engine *g, const struct container_spec *spec,
    struct container **ret, struct err *e)
{
    struct container *c = NULL;
    int r = make_half(g, spec, &c, e);
    if (r < 0)
        return r;
    r = container_check_workspace(c, c->workspace, e);
    c->begun = r == 0;
    if (r < 0 || (r = g->driver->make(c, spec, e)) < 0 || (r = watch_end(c, e)) < 0) {
        container_free(c);
        return r;
    }
    if (*c->cgroup)
        cgroup_open(&g->cgroups, c->cgroup, &c->meter);
    *ret = c;
    return 0;
}

/* ---- running */

int container_prepare(struct container *c, const struct container_process *process, struct err *e)
{
    if (c->engine->driver->hand_over)
        return err_say(e, ENOTSUP, "this runtime prepares no programs");
    if (c->started || c->prepared)
        return err_say(e, EALREADY, "container '%s' was used before", c->id);
    (void)pthread_mutex_lock(&c->lock);
    c->prepared = true;
    int r = order_send_job(c->sock, INIT_PREPARE, process, e);
    (void)pthread_mutex_unlock(&c->lock);
    return r;
}

int container_stand_by(struct container *c, struct err *e)
{
    if (c->engine->driver->hand_over)
        return 0;
    if (c->started || c->prepared)
        return err_say(e, EALREADY, "container '%s' was used before", c->id);
    (void)pthread_mutex_lock(&c->lock);
    int r = order_send(c->sock, &(struct init_order){.kind = INIT_STAND_BY}, NULL);
    (void)pthread_mutex_unlock(&c->lock);
    return r < 0 ? err_set(e, -r, "let container '%s' stand by", c->id) : 0;
}

static uint64_t cpu_so_far(const struct container *c)
{
    return c->engine->cgroups.version == CGROUP_NONE
               ? container_cpu_of(c->init)
               : cgroup_cpu_us(&c->engine->cgroups, &c->meter);
}

int container_start(struct container *c, const struct container_process *process, struct err *e)
{
    if (c->started)
        return err_say(e, EALREADY, "container '%s' was used before", c->id);
    if (process->stdin_fd < 0 && !c->prepared)
        return err_say(e, EINVAL, "a program needs descriptors");
    /* The mount holds the directory that was there when the container was made. */
    int r = container_check_workspace(c, c->workspace, e);
    if (r < 0)
        return r;
    c->cpu_base_us = cpu_so_far(c);
    c->peak_base_bytes = cgroup_reset_peak(&c->engine->cgroups, &c->meter);
    (void)pthread_mutex_lock(&c->lock);
    if (c->engine->driver->hand_over)
        r = c->engine->driver->hand_over(c, process, e);
    else
        r = order_send_job(c->sock, INIT_RUN, process, e);
    c->started = r != -EINVAL && r != -E2BIG;
    (void)pthread_mutex_unlock(&c->lock);
    return r;
}

int container_fd(const struct container *c)
{
    return c->ended;
}

uint64_t container_cpu_us(const struct container *c)
{
    uint64_t now = cpu_so_far(c);
    return now > c->cpu_base_us ? now - c->cpu_base_us : 0;
}

int container_kill(struct container *c, int sig, struct err *e)
{
    int r = 0;
    (void)pthread_mutex_lock(&c->lock);
    if (sig == SIGKILL) {
        if (!c->killed)
            cgroup_read(&c->engine->cgroups, &c->meter, &c->last);
        c->killed = true;
        if (syscall(SYS_pidfd_send_signal, c->init_pidfd, SIGKILL, NULL, 0) < 0 && errno != ESRCH)
            r = -errno;
    } else if (!c->started || c->finished) {
        r = -ESRCH;
    } else if (c->engine->driver->signal) {
        r = c->engine->driver->signal(c, sig);
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
    struct container *c, const struct init_report *report, struct container_exit *ret)
{
    struct cgroup_usage usage = {.known = false};
    uint64_t user = report->user_us, kernel = report->system_us, both = user + kernel;
    cgroup_read(&c->engine->cgroups, &c->meter, &usage);
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
static void explain_loss(struct container *c, struct container_exit *ret)
{
    (void)pthread_mutex_lock(&c->lock);
    bool killed = c->killed;
    (void)pthread_mutex_unlock(&c->lock);
    if (killed) {
        ret->signal = SIGKILL;
        return;
    }
    /* The program cannot kill process 1. When the memory limit is what struck it, the kernel's own
     * count usually says so; else the engine may know. */
    if (ret->oom_killed || c->engine->driver->memory_struck(c)) {
        ret->oom_killed = true;
        ret->signal = SIGKILL;
        return;
    }
    ret->lost = true;
}

int container_wait(struct container *c, struct container_exit *ret, struct err *e)
{
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
    if (c->engine->driver->verdict) {
        c->engine->driver->verdict(c, ret);
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

void container_free(struct container *c)
{
    if (!c || WEAK("end"))
        return;
    if (c->init_pidfd >= 0)
        (void)syscall(SYS_pidfd_send_signal, c->init_pidfd, SIGKILL, NULL, 0);
    fd_closep(&c->sock); /* ends a silt-init that we do not know yet */
    if (c->begun)
        c->engine->driver->end(c);
    cgroup_close(&c->meter);
    fd_closep(&c->ended);
    fd_closep(&c->init_pidfd);
    (void)pthread_mutex_destroy(&c->lock);
    free(c->workspace);
    free(c);
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

int container_view_mount(struct container_engine *g, const char *id,
    const struct container_view *dirs, int *ret_fd, struct err *e)
{
    if (!g->driver->view_mount)
        return err_refuse(e, PROTO_INVALID_VALUE,
            "this server's engine shows the live workspace only: leave out 'view' and 'keep'");
    return g->driver->view_mount(g, id, dirs, ret_fd, e);
}

int container_view_enter(struct container *c, const char *id, const char *folder, uint64_t dev,
    uint64_t ino, struct err *e)
{
    if (!c->engine->driver->view_enter || c->started)
        return err_say(e, EINVAL, "container '%s' cannot have a view", c->id);
    int r = c->engine->driver->view_enter(c, id, folder, e);
    if (r < 0)
        return r;
    c->view = true;
    c->workspace_dev = dev;
    c->workspace_ino = ino;
    return container_check_mounted(c, e);
}

void container_view_hide(struct container_engine *g, const char *id)
{
    if (g->driver->view_hide)
        g->driver->view_hide(g, id);
}
