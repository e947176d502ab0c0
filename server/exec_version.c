/* SPDX-License-Identifier: MIT */
/* Which versions of the languages are there: each is asked once, in a container like any run's, by
 * one thread: those of the host after the start, those of an image when a run is expected in it. */
#include "server/exec_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "shared/io.h"
#include "shared/log.h"
#include "shared/path.h"
#include "shared/text.h"

#include "server/image.h"

#include "shared/banned.h"

#define ANSWER_BYTES 4096
#define ANSWER_MS 10000
#define NOBODY 65534
#define VERSIONS_MAX 256 /* questions since the start; later ones stay without an answer */

/* One question: a language in a root. The inode tells an image from a later one of its name. */
struct version {
    char image[IMAGE_NAME_MAX + 1];
    uint64_t ino;
    const struct runtime_language *language;
    bool asked, known;
    char text[RUNTIMES_VERSION_BYTES]; /* never changes once it is known */
};

struct exec_versions {
    pthread_t thread;
    bool started;
    atomic_bool stop;
    pthread_mutex_t lock; /* all below */
    pthread_cond_t more;
    size_t count;
    struct version rows[VERSIONS_MAX];
};

static uint64_t root_ino(const struct exec *x, const char *image)
{
    char path[PATH_BYTES_MAX];
    struct stat st;
    if (image_is_host(image) || snprintf(path, sizeof(path), "%s/%s", x->config->images, image) >=
                                    (int)sizeof(path))
        return 0;
    return stat(path, &st) < 0 ? 0 : st.st_ino;
}

const char *exec_version(
    struct exec *x, const char *image, const struct runtime_language *language)
{
    struct exec_versions *v = x->versions;
    const char *text = NULL;
    if (!v || !language->version_argv)
        return NULL;
    uint64_t ino = root_ino(x, image);
    (void)pthread_mutex_lock(&v->lock);
    size_t at = 0;
    while (at < v->count && (v->rows[at].language != language || v->rows[at].ino != ino ||
                                strcmp(v->rows[at].image, image) != 0))
        at++;
    if (at < v->count && v->rows[at].known) {
        text = v->rows[at].text;
    } else if (at == v->count && at < VERSIONS_MAX && strlen(image) <= IMAGE_NAME_MAX) {
        struct version *row = &v->rows[v->count++];
        *row = (struct version){.ino = ino, .language = language};
        (void)snprintf(row->image, sizeof(row->image), "%s", image);
        (void)pthread_cond_signal(&v->more);
    }
    (void)pthread_mutex_unlock(&v->lock);
    return text;
}

static void read_answer(struct exec_versions *v, struct container *c, int fd, struct buf *b)
{
    uint64_t deadline = io_now_ns() + UINT64_C(1000000) * ANSWER_MS;
    bool open = true, ended = false;
    while (!ended && io_now_ns() < deadline && !atomic_load(&v->stop)) {
        struct pollfd polled[] = {
            {.fd = open ? fd : -1, .events = POLLIN}, {.fd = container_fd(c), .events = POLLIN}};
        char data[512];
        if (poll(polled, 2, 200) <= 0)
            continue;
        ssize_t n = polled[0].revents ? read(fd, data, sizeof(data)) : -1;
        if (n == 0)
            open = false;
        if (n > 0 && buf_add(b, data, (size_t)n) < 0)
            return;
        ended = polled[1].revents && !polled[0].revents;
    }
}

static int ask(struct exec *x, const struct version *of, const char *path, const char *dir,
    const struct stat *st, struct buf *answer, struct err *e)
{
    const char *const env[] = {path, "HOME=/cache", "LANG=C.UTF-8", "GOCACHE=/tmp", NULL};
    const struct config_limits *l = &x->config->limits;
    uid_t uid = geteuid() == 0 ? NOBODY : geteuid();
    gid_t gid = geteuid() == 0 ? NOBODY : getegid();
    char id[40];
    CLEANUP(fd_closep) int out = -1;
    CLEANUP(fd_closep) int in = -1;
    int fds[2];
    text_id("version_", id, sizeof(id));
    const struct container_spec spec = {.id = id,
        .workspace = dir,
        .workspace_dev = st->st_dev,
        .workspace_ino = st->st_ino,
        .cache = dir,
        .image = of->image,
        .uid = uid,
        .gid = gid,
        .limits = {.memory_bytes = l->memory_bytes,
            .pids = (uint32_t)l->pids,
            .open_files = (uint32_t)l->open_files,
            .file_bytes = l->file_bytes,
            .tmp_bytes = l->tmp_bytes}};
    struct container *c = NULL;
    if (pipe2(fds, O_CLOEXEC) < 0)
        return err_set(e, errno, "make a pipe");
    in = fds[0];
    out = fds[1];
    const struct container_process process = {.argv = of->language->version_argv,
        .env = env,
        .cwd = "/",
        .stdin_fd = x->null_fd,
        .stdout_fd = out,
        .stderr_fd = out};
    int r = container_new(x->engine, &spec, &c, e);
    if (r == 0)
        r = container_start(c, &process, e);
    fd_closep(&out);
    if (r == 0)
        read_answer(x->versions, c, in, answer);
    container_free(c);
    return r;
}

/* Without an answer the version stays unknown. */
static void find_out(struct exec *x, const struct version *of, const char *dir,
    const struct stat *st, char text[RUNTIMES_VERSION_BYTES])
{
    struct image image;
    struct err e = ERR_INIT;
    CLEANUP(freep) char *path = NULL;
    CLEANUP(buf_release) struct buf answer;
    buf_init(&answer, ANSWER_BYTES);
    int r = image_load(x->config->images, of->image, &image, &e);
    const char *own = image_is_host(of->image) || r < 0 ? NULL : image_env(&image, "PATH");
    if (asprintf(&path, "PATH=%s", own ? own : IMAGE_PATH_USUAL) >= 0 &&
        container_engine_finds(x->engine, of->image, own, of->language->program) &&
        ask(x, of, path, dir, st, &answer, &e) < 0)
        log_warn("the version of %s could not be found out: %s", of->language->name, e.msg);
    if (!runtimes_version(buf_str(&answer), text))
        text[0] = '\0';
    image_release(&image);
}

static void *versions_main(void *ctx)
{
    struct exec *x = ctx;
    struct exec_versions *v = x->versions;
    struct err e = ERR_INIT;
    struct stat st;
    CLEANUP(freep) char *dir = path_join(x->config->data_dir, "empty");
    if (!dir || io_mkdirs(dir, 0755, &e) < 0 || stat(dir, &st) < 0)
        return NULL;
    (void)pthread_mutex_lock(&v->lock);
    while (!atomic_load(&v->stop)) {
        size_t at = 0;
        while (at < v->count && v->rows[at].asked)
            at++;
        if (at == v->count) {
            (void)pthread_cond_wait(&v->more, &v->lock);
            continue;
        }
        char text[RUNTIMES_VERSION_BYTES] = "";
        struct version row = v->rows[at];
        v->rows[at].asked = true;
        (void)pthread_mutex_unlock(&v->lock);
        find_out(x, &row, dir, &st, text);
        (void)pthread_mutex_lock(&v->lock);
        memcpy(v->rows[at].text, text, sizeof(text));
        v->rows[at].known = text[0] != '\0';
    }
    (void)pthread_mutex_unlock(&v->lock);
    return NULL;
}

int exec_versions_new(struct exec *x, struct err *e)
{
    size_t count;
    const struct runtime_language *all = runtimes_all(&count);
    x->versions = calloc(1, sizeof(*x->versions));
    if (!x->versions)
        return err_set(e, ENOMEM, "start exec");
    (void)pthread_mutex_init(&x->versions->lock, NULL);
    (void)pthread_cond_init(&x->versions->more, NULL);
    for (size_t i = 0; i < count; i++)
        (void)exec_version(x, IMAGE_HOST, &all[i]); /* asks for it */
    int r = pthread_create(&x->versions->thread, NULL, versions_main, x);
    if (r != 0)
        return err_set(e, r, "start a thread");
    x->versions->started = true;
    return 0;
}

void exec_versions_stop(struct exec *x)
{
    if (!x->versions || !x->versions->started)
        return;
    (void)pthread_mutex_lock(&x->versions->lock);
    atomic_store(&x->versions->stop, true);
    (void)pthread_cond_signal(&x->versions->more);
    (void)pthread_mutex_unlock(&x->versions->lock);
    (void)pthread_join(x->versions->thread, NULL);
    x->versions->started = false;
}

void exec_versions_free(struct exec *x)
{
    if (x->versions) {
        (void)pthread_cond_destroy(&x->versions->more);
        (void)pthread_mutex_destroy(&x->versions->lock);
    }
    free(x->versions);
    x->versions = NULL;
}
