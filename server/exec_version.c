/* SPDX-License-Identifier: MIT */
/* Which versions of the languages are there: each is asked once, in a container like any run's, by
 * one thread after the start. */
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

#include "shared/banned.h"

#define ANSWER_BYTES 4096
#define ANSWER_MS 10000
#define NOBODY 65534

struct exec_versions {
    pthread_t thread;
    bool started;
    atomic_bool stop;
    size_t count;
    struct {
        char text[RUNTIMES_VERSION_BYTES];
        atomic_bool known;
    } rows[];
};

const char *exec_version(struct exec *x, const struct runtime_language *language)
{
    size_t count;
    const struct runtime_language *all = runtimes_all(&count);
    size_t row = (size_t)(language - all);
    if (!x->versions || row >= count || !atomic_load(&x->versions->rows[row].known))
        return NULL;
    return x->versions->rows[row].text;
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

static int ask(struct exec *x, const struct runtime_language *language, const char *dir,
    const struct stat *st, struct buf *answer, struct err *e)
{
    static const char *const env[] = {
        "PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/cache", "LANG=C.UTF-8", "GOCACHE=/tmp", NULL};
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
        .image = "host",
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
    const struct container_process process = {.argv = language->version_argv,
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

static void *versions_main(void *ctx)
{
    struct exec *x = ctx;
    struct exec_versions *v = x->versions;
    struct err e = ERR_INIT;
    struct stat st;
    const struct runtime_language *all = runtimes_all(&v->count);
    CLEANUP(freep) char *dir = path_join(x->config->data_dir, "empty");
    if (!dir || io_mkdirs(dir, 0755, &e) < 0 || stat(dir, &st) < 0)
        return NULL;
    for (size_t i = 0; i < v->count && !atomic_load(&v->stop); i++) {
        CLEANUP(buf_release) struct buf answer;
        buf_init(&answer, ANSWER_BYTES);
        if (!all[i].version_argv ||
            !container_engine_has_program(x->engine, "host", all[i].program))
            continue;
        if (ask(x, &all[i], dir, &st, &answer, &e) < 0)
            log_warn("the version of %s could not be found out: %s", all[i].name, e.msg);
        else if (runtimes_version(buf_str(&answer), v->rows[i].text))
            atomic_store(&v->rows[i].known, true);
    }
    return NULL;
}

int exec_versions_new(struct exec *x, struct err *e)
{
    size_t count;
    (void)runtimes_all(&count);
    x->versions = calloc(1, sizeof(*x->versions) + count * sizeof(x->versions->rows[0]));
    if (!x->versions)
        return err_set(e, ENOMEM, "start exec");
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
    atomic_store(&x->versions->stop, true);
    (void)pthread_join(x->versions->thread, NULL);
    x->versions->started = false;
}

void exec_versions_free(struct exec *x)
{
    free(x->versions);
    x->versions = NULL;
}
