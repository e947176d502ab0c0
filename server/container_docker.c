/* SPDX-License-Identifier: MIT */
/*
 * Containers that Docker Engine makes (engine = docker). siltd asks the daemon over its socket for
 * a container whose process 1 is silt-init, which connects back to a socket in a folder of this one
 * container; from there on it is a container like any other. The image's own entry point is never
 * run.
 *
 * Whoever can speak to the daemon is root on its host. So only siltd does: neither the daemon's
 * socket nor a folder that holds another container's is ever mounted. Only containers that carry
 * this server's label are removed.
 */
#include "server/container_driver.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "server/docker_http.h"
#include "server/docker_json.h"
#include "shared/io.h"
#include "shared/log.h"
#include "shared/text.h"
#include "shared/tree.h"
#include "shared/weaken.h"

#include "shared/banned.h"

#define ASK_TIMEOUT_MS 10000
#define WORK_TIMEOUT_MS 60000 /* to create, start or remove one */
#define READY_TIMEOUT_MS 20000
#define REMOVE_PAUSE_MS 50
#define REMOVE_PAUSE_MAX_MS 3200
#define PROGRAMS_MAX 64 /* whose presence is remembered */
#define PROGRAM_BYTES 128
#define INIT_BYTES_MAX (16 * 1024 * 1024)
#define OOM_SCORE_ADJ 500
#define CGROUP_TEXT_MAX (16 * 1024)

struct docker_engine {
    struct container_engine base;
    struct docker_http *http;
    char owner[DOCKER_OWNER_BYTES];
    char image[80]; /* its id: a name could mean another one later */
    char *folder;   /* one folder per container in it, and silt-init */
    int folder_fd;
    pthread_mutex_t lock;        /* guards what follows */
    char probe[DOCKER_ID_BYTES]; /* a container that is looked into for programs; "" = none yet */
    struct {
        char name[PROGRAM_BYTES];
        bool there;
    } programs[PROGRAMS_MAX];
    size_t program_count;
};

struct docker_made {
    struct container base;
    char docker_id[DOCKER_ID_BYTES]; /* "" = not created */
    bool folder;
};

static struct docker_engine *engine_of(const struct docker_made *c)
{
    return (struct docker_engine *)c->base.engine;
}

/* ---- requests */

static int failed(const char *what, int status, const struct buf *answer, struct err *e)
{
    char message[300];
    if (status < 0)
        return err_wrap(e, "%s", what);
    docker_json_message(buf_str(answer), message, sizeof message);
    return err_refuse(e, PROTO_ENGINE_FAILED, "docker cannot %s: %s (status %d)", what,
        *message ? message : "it does not say why", status);
}

/* A request whose answer is wanted with this status. */
static int ask(const struct docker_engine *g, const char *method, const char *path, int wanted,
    struct buf *answer, const char *what, struct err *e)
{
    int status = docker_http_call(g->http, method, path, NULL, ASK_TIMEOUT_MS, answer, e);
    return status == wanted ? 0 : failed(what, status, answer, e);
}

static int create(const struct docker_engine *g, const struct docker_container *what,
    char ret[DOCKER_ID_BYTES], struct err *e)
{
    CLEANUP(freep) char *json = NULL;
    CLEANUP(buf_release) struct buf answer;
    buf_init(&answer, DOCKER_ANSWER_MAX);
    int r = docker_json_create(what, &json);
    if (r < 0)
        return err_set(e, -r, "describe a container");
    int status =
        docker_http_call(g->http, "POST", "/containers/create", json, WORK_TIMEOUT_MS, &answer, e);
    if (status != 201)
        return failed("create a container", status, &answer, e);
    return docker_json_id(buf_str(&answer), "Id", ret, DOCKER_ID_BYTES) < 0
               ? err_refuse(e, PROTO_ENGINE_FAILED, "docker names no container that it created")
               : 0;
}

static int start(const struct docker_engine *g, const char *id, struct err *e)
{
    char path[128];
    CLEANUP(buf_release) struct buf answer;
    buf_init(&answer, DOCKER_ANSWER_MAX);
    (void)snprintf(path, sizeof path, "/containers/%s/start", id);
    int status = docker_http_call(g->http, "POST", path, NULL, WORK_TIMEOUT_MS, &answer, e);
    return status == 204 ? 0 : failed("start a container", status, &answer, e);
}

/* Podman refuses while it has not noticed yet that the container died: then again, in a moment. */
static void remove_container(const struct docker_engine *g, const char *id)
{
    char path[128];
    struct err e = ERR_INIT;
    (void)snprintf(path, sizeof path, "/containers/%s?force=1&v=1", id);
    for (long pause_ms = REMOVE_PAUSE_MS; pause_ms <= REMOVE_PAUSE_MAX_MS; pause_ms *= 2) {
        CLEANUP(buf_release) struct buf answer;
        buf_init(&answer, DOCKER_ANSWER_MAX);
        int status = docker_http_call(g->http, "DELETE", path, NULL, WORK_TIMEOUT_MS, &answer, &e);
        if (status == 204 || status == 200 || status == 404)
            return;
        err_ignore(failed("remove a container", status, &answer, &e));
        if (status < 0)
            break;
        (void)nanosleep(
            &(struct timespec){.tv_sec = pause_ms / 1000, .tv_nsec = pause_ms % 1000 * 1000000},
            NULL);
    }
    log_warn("container %.12s: %s", id, e.msg);
}

/* Remove all with our label. How many, or -errno. */
static int remove_all(const struct docker_engine *g, struct err *e)
{
    CLEANUP(buf_release) struct buf answer;
    CLEANUP(buf_release) struct buf path;
    CLEANUP(freep) char(*ids)[DOCKER_ID_BYTES] = calloc(DOCKER_LIST_MAX, sizeof *ids);
    char filter[160];
    buf_init(&answer, DOCKER_ANSWER_MAX);
    buf_init(&path, 1024);
    (void)snprintf(filter, sizeof filter, "{\"label\":[\"" DOCKER_LABEL "=%s\"]}", g->owner);
    if (!ids || buf_adds(&path, "/containers/json?all=1&filters=") < 0 ||
        text_add_percent(&path, filter) < 0)
        return err_set(e, ENOMEM, "look for containers");
    int r = ask(g, "GET", buf_str(&path), 200, &answer, "list its containers", e);
    if (r < 0)
        return r;
    int count = docker_json_list(buf_str(&answer), g->owner, ids);
    for (int i = 0; i < count; i++)
        remove_container(g, ids[i]);
    return count < 0 ? err_refuse(e, PROTO_ENGINE_FAILED, "docker's list of containers is none")
                     : count;
}

/* ---- the folder in which silt-init finds its socket */

static int make_folder(
    struct docker_made *c, const struct container_spec *spec, int *ret_listener, struct err *e)
{
    const struct docker_engine *g = engine_of(c);
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int on = 1;
    if (mkdirat(g->folder_fd, c->base.id, 0700) < 0)
        return err_set(e, errno, "make a folder for container '%s'", c->base.id);
    c->folder = true;
    CLEANUP(fd_closep)
    int dir = openat(g->folder_fd, c->base.id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    CLEANUP(fd_closep) int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    /* By descriptor: a data directory's path can be longer than a socket's may be. */
    (void)snprintf(at.sun_path, sizeof at.sun_path, "/proc/self/fd/%d/sock", dir);
    if (dir < 0 || listener < 0 || linkat(g->folder_fd, "init", dir, "init", 0) < 0 ||
        setsockopt(listener, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) < 0 ||
        bind(listener, (const struct sockaddr *)&at, sizeof at) < 0 || listen(listener, 1) < 0)
        return err_set(e, errno, "make a socket for container '%s'", c->base.id);
    /* Nobody else on the host gets at the socket. */
    if (g->base.abilities.root &&
        (fchownat(dir, "sock", spec->uid, spec->gid, AT_SYMLINK_NOFOLLOW) < 0 ||
            fchown(dir, spec->uid, spec->gid) < 0))
        return err_set(e, errno, "give a socket to container '%s'", c->base.id);
    *ret_listener = fd_take(&listener);
    return 0;
}

/* The first to connect is silt-init: there is nothing else in the container yet. */
static int accept_init(struct docker_made *c, int listener, struct err *e)
{
    struct pollfd p = {.fd = listener, .events = POLLIN};
    uint64_t deadline = io_now_ns() + (uint64_t)READY_TIMEOUT_MS * 1000000u;
    int n = 0;
    while (n <= 0) {
        uint64_t now = io_now_ns();
        if (now >= deadline)
            break;
        n = poll(&p, 1, (int)((deadline - now) / 1000000u) + 1);
    }
    c->base.sock = n > 0 ? accept4(listener, NULL, NULL, SOCK_CLOEXEC) : -1;
    if (c->base.sock < 0)
        return err_refuse(e, PROTO_ENGINE_FAILED,
            "docker started a container in which silt-init does not answer: docker must run on "
            "this machine and see its folders");
    int r = container_ready_socket(&c->base, e);
    if (r == 0 && !container_await_ready(&c->base, -1, READY_TIMEOUT_MS))
        r = err_refuse(e, PROTO_ENGINE_FAILED, "docker lost a container");
    return r;
}

static void find_cgroup(struct docker_made *c)
{
    char path[64];
    CLEANUP(buf_release) struct buf text;
    (void)snprintf(path, sizeof path, "/proc/%d/cgroup", (int)c->base.init);
    if (io_read_file(path, CGROUP_TEXT_MAX, &text, NULL) < 0)
        return;
    docker_cgroup_path(buf_str(&text), engine_of(c)->base.cgroups.version == CGROUP_V2,
        c->base.cgroup, sizeof c->base.cgroup);
}

/* ---- the driver */

static bool is_host(const char *image)
{
    return !image || !*image || !strcmp(image, "host");
}

static int check_spec(const struct docker_engine *g, const struct container_spec *s, struct err *e)
{
    if (!container_name_is_plain(s->id, ""))
        return err_say(e, EINVAL, "'%.64s' is no container id", s->id);
    if (s->workspace[0] != '/' || s->cache[0] != '/')
        return err_say(e, EINVAL, "workspace and cache must be absolute paths");
    if (!is_host(s->image))
        return err_refuse(e, PROTO_UNKNOWN_IMAGE,
            "there is no image '%.64s' on this server: its engine is docker, use \"host\" for the "
            "image that it is set to",
            s->image);
    if ((s->uid == 0 || s->gid == 0) && !WEAK("uid"))
        return err_say(e, EINVAL, "a container may not run as the host's root");
    if (!g->base.abilities.root && (s->uid != geteuid() || s->gid != getegid()))
        return err_say(e, EINVAL, "without root a container can only run as the server's own user");
    return 0;
}

static int docker_make(
    struct container *container, const struct container_spec *spec, struct err *e)
{
    struct docker_made *c = (struct docker_made *)container;
    const struct docker_engine *g = engine_of(c);
    CLEANUP(fd_closep) int listener = -1;
    char folder[PATH_MAX];
    int r = check_spec(g, spec, e);
    if (r < 0 || (r = make_folder(c, spec, &listener, e)) < 0)
        return r;
    if (snprintf(folder, sizeof folder, "%s/%s", g->folder, c->base.id) >= (int)sizeof folder)
        return err_set(e, ENAMETOOLONG, "make a container");
    const struct docker_container what = {.owner = g->owner,
        .image = g->image,
        .folder = folder,
        .spec = spec,
        .oom_score_adj = OOM_SCORE_ADJ};
    if ((r = create(g, &what, c->docker_id, e)) < 0 || (r = start(g, c->docker_id, e)) < 0 ||
        (r = accept_init(c, listener, e)) < 0)
        return r;
    find_cgroup(c);
    /* Only root may look through another process's root. */
    return g->base.abilities.root ? container_check_mounted(&c->base, e) : 0;
}

static bool docker_memory_struck(struct container *container)
{
    struct docker_made *c = (struct docker_made *)container;
    char path[128];
    CLEANUP(buf_release) struct buf answer;
    buf_init(&answer, DOCKER_ANSWER_MAX);
    (void)snprintf(path, sizeof path, "/containers/%s/json", c->docker_id);
    return ask(engine_of(c), "GET", path, 200, &answer, "tell of a container", NULL) == 0 &&
           docker_json_oom(buf_str(&answer));
}

static void docker_end(struct container *container)
{
    struct docker_made *c = (struct docker_made *)container;
    if (*c->docker_id)
        remove_container(engine_of(c), c->docker_id);
    if (c->folder)
        err_ignore(tree_remove_at(engine_of(c)->folder_fd, c->base.id, NULL));
}

static bool docker_has_image(const struct container_engine *g, const char *image)
{
    (void)g;
    return is_host(image);
}

/* Under the lock. A container that is never started lets one look into its image. */
static bool look_into(struct docker_engine *g, const char *program)
{
    CLEANUP(buf_release) struct buf path;
    CLEANUP(buf_release) struct buf answer;
    struct err e = ERR_INIT;
    const struct docker_container what = {.owner = g->owner, .image = g->image};
    buf_init(&path, 1024);
    buf_init(&answer, DOCKER_ANSWER_MAX);
    if (!*g->probe && create(g, &what, g->probe, &e) < 0) {
        log_warn("the image cannot be looked into: %s", e.msg);
        return true; /* the run will tell */
    }
    return buf_addf(&path, "/containers/%s/archive?path=", g->probe) == 0 &&
           text_add_percent(&path, program) == 0 &&
           docker_http_call(g->http, "HEAD", buf_str(&path), NULL, ASK_TIMEOUT_MS, &answer, NULL) ==
               200;
}

static bool search(struct docker_engine *g, const char *name)
{
    static const char *const dirs[] = {"/usr/local/bin", "/usr/bin", "/bin", NULL};
    char path[PROGRAM_BYTES + 32];
    if (*name == '/')
        return look_into(g, name);
    for (const char *const *d = dirs; *d; d++) {
        (void)snprintf(path, sizeof path, "%s/%s", *d, name);
        if (look_into(g, path))
            return true;
    }
    return false;
}

static bool docker_has_program(
    const struct container_engine *engine, const char *image, const char *name)
{
    struct docker_engine *g = (struct docker_engine *)engine;
    if (!is_host(image) || strlen(name) >= PROGRAM_BYTES || (strchr(name, '/') && *name != '/'))
        return false;
    (void)pthread_mutex_lock(&g->lock);
    size_t i = 0;
    while (i < g->program_count && strcmp(g->programs[i].name, name) != 0)
        i++;
    bool there = i < g->program_count ? g->programs[i].there : search(g, name);
    if (i == g->program_count && i < PROGRAMS_MAX) {
        (void)snprintf(g->programs[i].name, PROGRAM_BYTES, "%s", name);
        g->programs[i].there = there;
        g->program_count++;
    }
    (void)pthread_mutex_unlock(&g->lock);
    return there;
}

static int docker_reap(struct container_engine *engine, struct err *e)
{
    return remove_all((struct docker_engine *)engine, e);
}

static void docker_free_engine(struct container_engine *engine)
{
    struct docker_engine *g = (struct docker_engine *)engine;
    if (*g->probe)
        remove_container(g, g->probe);
    docker_http_free(g->http);
    fd_closep(&g->folder_fd);
    fd_closep(&g->base.lock_fd);
    free(g->folder);
    (void)pthread_mutex_destroy(&g->lock);
    free(g);
}

static const struct container_driver docker_driver = {
    .container_bytes = sizeof(struct docker_made),
    .reap = docker_reap,
    .free_engine = docker_free_engine,
    .has_program = docker_has_program,
    .has_image = docker_has_image,
    .make = docker_make,
    .memory_struck = docker_memory_struck,
    .end = docker_end,
};

/* ---- the engine */

/* What a killed server left in the folder goes with it. */
static int open_folder(
    struct docker_engine *g, const struct container_config *config, struct err *e)
{
    char path[PATH_MAX];
    struct stat st;
    CLEANUP(buf_release) struct buf init;
    CLEANUP(freep) char *state = realpath(config->state_dir, NULL);
    CLEANUP(fd_closep)
    int dir = state ? open(state, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (dir < 0 || fstat(dir, &st) < 0)
        return err_set(e, errno, "open '%s'", config->state_dir);
    /* Two servers may keep their data at the same path, each in a mount namespace of its own. */
    (void)snprintf(g->owner, sizeof g->owner, "%s-%llx-%llx", g->base.mark,
        (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
    int r = tree_remove_at(dir, "docker", e);
    if (r < 0)
        return r;
    if (snprintf(path, sizeof path, "%s/docker", state) >= (int)sizeof path)
        return err_set(e, ENAMETOOLONG, "make '%s/docker'", state);
    g->folder = strdup(path);
    if (!g->folder || mkdirat(dir, "docker", 0711) < 0)
        return err_set(e, g->folder ? errno : ENOMEM, "make '%s'", path);
    g->folder_fd = openat(dir, "docker", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (g->folder_fd < 0)
        return err_set(e, errno, "open '%s'", path);
    if ((r = io_read_file(config->init_path, INIT_BYTES_MAX, &init, e)) < 0)
        return err_wrap(e, "read silt-init");
    if (snprintf(path, sizeof path, "%s/init", g->folder) >= (int)sizeof path)
        return err_set(e, ENAMETOOLONG, "copy silt-init");
    return io_write_file(path, init.data, init.len, 0755, e);
}

static int ask_daemon(struct docker_engine *g, const char *image, struct err *e)
{
    CLEANUP(buf_release) struct buf answer;
    CLEANUP(buf_release) struct buf path;
    struct docker_info info = {.memory = false};
    struct docker_image found = {.volumes = false};
    struct container_abilities *a = &g->base.abilities;
    buf_init(&answer, DOCKER_ANSWER_MAX);
    buf_init(&path, 1024);
    int r = ask(g, "GET", "/info", 200, &answer, "tell what it can do", e);
    if (r < 0)
        return r;
    if (docker_json_info(buf_str(&answer), &info) < 0)
        return err_say(e, EPROTO, "what listens at docker's socket does not answer as docker does");
    buf_reset(&answer);
    if (buf_adds(&path, "/images/") < 0 || text_add_percent(&path, image) < 0 ||
        buf_adds(&path, "/json") < 0)
        return err_say(e, EINVAL, "'%s' is no name of an image", image);
    if ((r = ask(g, "GET", buf_str(&path), 200, &answer, "find the image", e)) < 0)
        return err_say(e, ENOENT,
            "docker has no image '%s': docker pull it, or name another with 'docker_image'", image);
    if (docker_json_image(buf_str(&answer), &found) < 0)
        return err_say(e, EPROTO, "docker's description of image '%s' has no id", image);
    if (found.volumes)
        return err_say(e, EINVAL,
            "image '%s' declares volumes, through which programs could fill the disk: use one "
            "without",
            image);
    (void)snprintf(g->image, sizeof g->image, "%s", found.id);
    (void)snprintf(a->engine, sizeof a->engine, "docker %.24s, %.60s", info.version, image);
    a->cgroups = info.cgroups;
    a->limit_memory = info.memory;
    a->limit_pids = info.pids;
    a->limit_cpu = info.cpu;
    if (!info.memory || !info.pids)
        (void)snprintf(a->note, sizeof a->note,
            "docker has no cgroup controller for %s here: that limit does not hold",
            info.memory ? "pids" : "memory");
    else if (!a->root)
        (void)snprintf(
            a->note, sizeof a->note, "running without root: all sandboxes share one user");
    return 0;
}

int container_docker_new(
    const struct container_config *config, struct container_engine **ret, struct err *e)
{
    struct docker_engine *g = calloc(1, sizeof *g);
    if (!g)
        return err_set(e, ENOMEM, "make the container engine");
    g->base.driver = &docker_driver;
    g->base.lock_fd = g->folder_fd = -1;
    (void)pthread_mutex_init(&g->lock, NULL);
    g->base.abilities = (struct container_abilities){
        .root = geteuid() == 0, .cgroups = "none", .warm = true, .terminal = true};
    cgroup_probe(&g->base.cgroups);
    int r = *config->docker_image
                ? 0
                : err_say(e, EINVAL,
                      "engine = docker needs an image for programs to run in: set 'docker_image'");
    if (r == 0)
        r = container_lock_state(&g->base, config->state_dir, e);
    if (r == 0)
        r = open_folder(g, config, e);
    if (r == 0)
        r = docker_http_new(config->docker_socket, &g->http, e);
    if (r == 0)
        r = ask_daemon(g, config->docker_image, e);
    if (r < 0) {
        docker_free_engine(&g->base);
        return r;
    }
    *ret = &g->base;
    return 0;
}
