/* SPDX-License-Identifier: MIT */
/* The real thing: an engine of our own beside the server's, images vetted by it, and containers
 * that ask each language for its version. */
#include "server/doctor_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "shared/io.h"

#include "server/container.h"
#include "server/runtimes.h"

#include "shared/banned.h"

#define ANSWER_MS 30000
#define NOBODY 65534

struct trial {
    struct container_engine *engine;
    const struct config *config;
    char empty[PATH_MAX];
    int null_fd;
    unsigned count;
};

/* Up to the first line's end: no version stands later. */
static void read_line(int fd, char *out, size_t size)
{
    ssize_t n = read(fd, out, size - 1);
    out[n > 0 ? n : 0] = '\0';
    out[strcspn(out, "\n")] = '\0';
}

static int run(struct trial *t, const char *const *argv, char *out, size_t size, struct err *e)
{
    static const char *const env[] = {
        "PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/cache", "LANG=C.UTF-8", "GOCACHE=/tmp", NULL};
    const struct config_limits *l = &t->config->limits;
    bool root = geteuid() == 0;
    uid_t uid = root ? NOBODY : geteuid();
    gid_t gid = root ? NOBODY : getegid();
    struct stat st;
    char id[32];
    CLEANUP(fd_closep) int in = -1;
    CLEANUP(fd_closep) int to = -1;
    if (stat(t->empty, &st) < 0)
        return err_set(e, errno, "look at '%s'", t->empty);
    (void)snprintf(id, sizeof id, "doctor_%u", t->count++);
    const struct container_spec spec = {.id = id,
        .workspace = t->empty,
        .workspace_dev = st.st_dev,
        .workspace_ino = st.st_ino,
        .cache = t->empty,
        .image = "host",
        .uid = uid,
        .gid = gid,
        .limits = {.memory_bytes = l->memory_bytes,
            .pids = (uint32_t)l->pids,
            .open_files = (uint32_t)l->open_files,
            .file_bytes = l->file_bytes,
            .tmp_bytes = l->tmp_bytes}};
    int r = container_pipe(uid, gid, &in, &to, e);
    if (r < 0)
        return r;
    struct container *c = NULL;
    struct container_exit end = {.lost = true};
    const struct container_process process = {.argv = argv,
        .env = env,
        .cwd = "/",
        .stdin_fd = t->null_fd,
        .stdout_fd = to,
        .stderr_fd = to};
    r = container_new(t->engine, &spec, &c, e);
    if (r == 0)
        r = container_start(c, &process, e);
    if (r == 0) {
        struct pollfd p = {.fd = container_fd(c), .events = POLLIN};
        r = poll(&p, 1, ANSWER_MS) == 1 ? container_wait(c, &end, e)
                                        : err_say(e, ETIMEDOUT, "'%s' did not end", argv[0]);
    }
    container_free(c);
    if (r == 0 && (!end.started || end.lost || end.signal || end.exit_code))
        return err_say(e, EIO, "'%s' in a container failed: exit code %d, signal %d", argv[0],
            end.exit_code, end.signal);
    read_line(in, out, size);
    return r;
}

static void ask_languages(struct trial *t, struct doctor_facts *f)
{
    static const char *const nothing[] = {"true", NULL};
    char line[256];
    struct err e = ERR_INIT;
    size_t count;
    const struct runtime_language *all = runtimes_all(&count);
    f->tried = f->init_static;
    bool works = f->tried && run(t, nothing, line, sizeof line, &e) == 0;
    if (f->tried && !works)
        (void)snprintf(f->trial_error, sizeof f->trial_error, "%s", e.msg);
    for (size_t i = 0; i < count && i < DOCTOR_LANGUAGES_MAX; i++) {
        f->languages[i].name = all[i].name;
        f->languages[i].program = all[i].program;
        f->languages[i].there = container_engine_has_program(t->engine, "host", all[i].program);
        f->language_count = i + 1;
        /* A version that is not told is none that is missing. */
        if (works && f->languages[i].there && all[i].version_argv &&
            run(t, all[i].version_argv, line, sizeof line, NULL) == 0)
            (void)runtimes_version(line, f->languages[i].version);
    }
}

static void vet_images(struct trial *t, struct doctor_facts *f)
{
    CLEANUP(dir_closep) DIR *images = *f->images ? opendir(f->images) : NULL;
    for (struct dirent *d; images && (d = readdir(images));) {
        if (d->d_name[0] == '.')
            continue;
        if (container_engine_has_image(t->engine, d->d_name))
            f->images_good++;
        else
            doctor_list(f->images_bad, sizeof f->images_bad, d->d_name);
    }
}

/* Its state is one lock and folders; what was mounted lies in a mount namespace that is gone. */
static void remove_state(const char *base, const char *state, const char *empty)
{
    char lock[PATH_MAX + 8];
    (void)snprintf(lock, sizeof lock, "%s/lock", state);
    (void)unlink(lock);
    (void)rmdir(state);
    (void)rmdir(empty);
    (void)rmdir(base);
}

void doctor_trial_probe(const struct config *c, struct doctor_facts *f)
{
    char base[300], state[PATH_MAX];
    struct trial t = {.config = c};
    struct err e = ERR_INIT;
    (void)snprintf(f->images, sizeof f->images, "%.255s", c->images);
    if (access(f->images, F_OK) < 0 && errno == ENOENT)
        f->images[0] = '\0'; /* the first start makes it */
    if (*f->images && access(f->images, R_OK | X_OK) < 0)
        f->images_error = errno;
    (void)snprintf(base, sizeof base, "%s/.silt-doctor.XXXXXX", f->data.path);
    if (*f->data.error || !mkdtemp(base))
        (void)snprintf(base, sizeof base, "/tmp/silt-doctor.XXXXXX");
    if (access(base, F_OK) < 0 && !mkdtemp(base)) {
        (void)snprintf(f->runtime_error, sizeof f->runtime_error,
            "no folder can be made for it: %s", strerror(errno));
        return;
    }
    (void)snprintf(state, sizeof state, "%s/containers", base);
    (void)snprintf(t.empty, sizeof t.empty, "%s/empty", base);
    const struct container_config config = {.state_dir = state,
        .engine = c->engine,
        .docker_socket = c->docker_socket,
        .docker_image = c->docker_image,
        .runtime = c->runtime,
        /* Without silt-init nothing is started: what is said of the runtime is about the runtime.
         */
        .init_path = f->init_static ? c->init : "/bin/true",
        .image_dir = *f->images && !f->images_error ? f->images : NULL};
    CLEANUP(fd_closep) int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    t.null_fd = null_fd;
    if (chmod(base, 0711) < 0 || io_mkdirs(t.empty, 0755, &e) < 0 ||
        container_engine_new(&config, &t.engine, &e) < 0) {
        f->runtime_errno = e.code;
        (void)snprintf(f->runtime_error, sizeof f->runtime_error, "%s", e.msg);
    } else {
        (void)snprintf(
            f->engine, sizeof f->engine, "%s", container_engine_abilities(t.engine)->engine);
        f->engine_cold = !container_engine_abilities(t.engine)->warm;
        vet_images(&t, f);
        ask_languages(&t, f);
        container_engine_free(t.engine);
    }
    remove_state(base, state, t.empty);
}
