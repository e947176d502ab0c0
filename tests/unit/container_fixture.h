/* SPDX-License-Identifier: MIT */
/*
 * For the tests of containers: an engine on a temporary directory, and "run this in a fresh
 * container and give me its output". As root every test runs twice: as root, and once more in a
 * child that became an ordinary user, where the engine is rootless.
 */
#ifndef TESTS_CONTAINER_FIXTURE_H
#define TESTS_CONTAINER_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server/container.h"

#define FIXTURE_UID 1073750000u /* root: what containers are outside */
#define FIXTURE_USER 54321u     /* the ordinary user */

struct fixture {
    char base[64], state[96], workspace[96], cache[96], images[96], init[PATH_MAX];
    struct container_engine *engine;
    uid_t uid;
    unsigned count; /* containers made, for ids */
    bool stand_by;  /* new ones have a process that waits for its program */
};

struct run {
    struct container_exit exit;
    char out[32768]; /* stdout and stderr */
};

static inline bool fixture_is_root(const struct fixture *f)
{
    return container_engine_abilities(f->engine)->root;
}

static inline struct container_config fixture_config(const struct fixture *f)
{
    return (struct container_config){.state_dir = f->state,
        .runtime = "crun",
        .init_path = f->init,
        .image_dir = f->images};
}

static inline void fixture_init_path(struct fixture *f)
{
    /* build/tests/t_x → build/silt-init */
    const char *given = getenv("SILT_INIT");
    ssize_t n = readlink("/proc/self/exe", f->init, sizeof f->init - 32);
    assert_true(n > 0);
    f->init[n] = '\0';
    for (int up = 0; up < 2; up++)
        *strrchr(f->init, '/') = '\0';
    memcpy(f->init + strlen(f->init), "/silt-init", sizeof "/silt-init");
    if (given)
        (void)snprintf(f->init, sizeof f->init, "%s", given);
}

static inline int fixture_setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct err e = ERR_INIT;
    assert_non_null(f);
    (void)umask(022);
    (void)snprintf(f->base, sizeof f->base, "/tmp/silt-test-XXXXXX");
    assert_non_null(mkdtemp(f->base));
    assert_int_equal(chmod(f->base, 0755), 0);
    (void)snprintf(f->state, sizeof f->state, "%s/state", f->base);
    (void)snprintf(f->workspace, sizeof f->workspace, "%s/ws", f->base);
    (void)snprintf(f->cache, sizeof f->cache, "%s/cache", f->base);
    (void)snprintf(f->images, sizeof f->images, "%s/images", f->base);
    f->uid = geteuid() == 0 ? FIXTURE_UID : geteuid();
    assert_int_equal(mkdir(f->workspace, 0700) | mkdir(f->cache, 0700) | mkdir(f->images, 0755), 0);
    assert_int_equal(chown(f->workspace, f->uid, f->uid) | chown(f->cache, f->uid, f->uid), 0);
    fixture_init_path(f);
    struct container_config config = fixture_config(f);
    if (container_engine_new(&config, &f->engine, &e) < 0)
        fail_msg("engine: %s", e.msg);
    *state = f;
    return 0;
}

static inline void fixture_remove(const char *dir)
{
    pid_t pid = fork();
    if (pid == 0) {
        (void)execl("/bin/rm", "rm", "-rf", "--", dir, (char *)NULL);
        _exit(127);
    }
    (void)waitpid(pid, NULL, 0);
}

static inline int fixture_teardown(void **state)
{
    struct fixture *f = *state;
    container_engine_free(f->engine);
    fixture_remove(f->base);
    free(f);
    return 0;
}

static inline struct container_spec fixture_spec(struct fixture *f, char id[32])
{
    struct stat st;
    assert_int_equal(stat(f->workspace, &st), 0);
    (void)snprintf(id, 32, "t%u", f->count++);
    return (struct container_spec){.id = id,
        .workspace = f->workspace,
        .workspace_dev = st.st_dev,
        .workspace_ino = st.st_ino,
        .cache = f->cache,
        .image = "host",
        .uid = f->uid,
        .gid = f->uid,
        .limits = {.memory_bytes = 512u << 20,
            .pids = 64,
            .open_files = 256,
            .file_bytes = 64u << 20,
            .tmp_bytes = 32u << 20}};
}

static const char *const fixture_env[] __attribute__((unused)) = {
    "PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/cache/home", "LANG=C.UTF-8", NULL};

/* Until end of file. What hangs fails. */
static inline void fixture_read_all(int fd, char *out, size_t size)
{
    size_t len = 0;
    for (ssize_t n = 1; len + 1 < size && n != 0;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, 60000) != 1)
            fail_msg("no end of output after a minute: %.*s", (int)len, out);
        n = read(fd, out + len, size - 1 - len);
        assert_true(n >= 0);
        len += (size_t)n;
    }
    out[len] = '\0';
}

static inline struct container *fixture_new(struct fixture *f, const struct container_spec *spec)
{
    struct container *c = NULL;
    struct err e = ERR_INIT;
    if (container_new(f->engine, spec, &c, &e) < 0)
        fail_msg("container_new: %s", e.msg);
    if (f->stand_by && container_stand_by(c, &e) < 0)
        fail_msg("container_stand_by: %s", e.msg);
    return c;
}

/* Start argv with stdin from /dev/null and both outputs in a pipe, whose other end is returned. */
static inline int fixture_start(struct container *c, const char *const *argv, const char *cwd)
{
    int pipes[2], null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    struct err e = ERR_INIT;
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    const struct container_process process = {.argv = argv,
        .env = fixture_env,
        .cwd = cwd,
        .stdin_fd = null,
        .stdout_fd = pipes[1],
        .stderr_fd = pipes[1]};
    if (container_start(c, &process, &e) < 0)
        fail_msg("container_start: %s", e.msg);
    (void)close(pipes[1]);
    (void)close(null);
    return pipes[0];
}

static inline void fixture_run_spec(struct fixture *f, const struct container_spec *spec,
    const char *const *argv, const char *cwd, struct run *ret)
{
    struct err e = ERR_INIT;
    struct container *c = fixture_new(f, spec);
    int out = fixture_start(c, argv, cwd);
    fixture_read_all(out, ret->out, sizeof ret->out);
    if (container_wait(c, &ret->exit, &e) < 0)
        fail_msg("container_wait: %s", e.msg);
    container_free(c);
    (void)close(out);
}

static inline void fixture_run(struct fixture *f, const char *const *argv, struct run *ret)
{
    char id[32];
    struct container_spec spec = fixture_spec(f, id);
    fixture_run_spec(f, &spec, argv, "/workspace", ret);
}

#define RUN(f, ret, ...) fixture_run(f, (const char *const[]){__VA_ARGS__, NULL}, ret)
#define SH(f, ret, script) RUN(f, ret, "/bin/sh", "-c", script)
#define PYTHON(f, ret, script) RUN(f, ret, "/usr/bin/python3", "-c", script)

static inline void fixture_write(
    const struct fixture *f, const char *path, const char *text, mode_t mode)
{
    char full[256];
    (void)snprintf(full, sizeof full, "%s/%s", f->workspace, path);
    for (char *p = full + strlen(f->workspace) + 1; (p = strchr(p, '/')); p++) {
        *p = '\0';
        (void)mkdir(full, 0755);
        (void)!chown(full, f->uid, f->uid);
        *p = '/';
    }
    int fd = open(full, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(fchown(fd, f->uid, f->uid) | fchmod(fd, mode), 0);
    (void)close(fd);
}

/* How many entries a directory has; -1 if there is none. */
static inline int fixture_entries(const char *path)
{
    DIR *d = opendir(path);
    int n = 0;
    if (!d)
        return -1;
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    (void)closedir(d);
    return n;
}

/* The ordinary user may not be able to reach the build directory. */
static inline void fixture_share_init(struct fixture *f, char out[PATH_MAX])
{
    fixture_init_path(f);
    (void)snprintf(out, PATH_MAX, "/tmp/silt-test-init-%d", (int)getpid());
    pid_t pid = fork();
    if (pid == 0) {
        (void)execl("/usr/bin/install", "install", "-m", "755", f->init, out, (char *)NULL);
        _exit(127);
    }
    (void)waitpid(pid, NULL, 0);
}

/* Run the tests here and, as root, once more as an ordinary user. */
static inline int fixture_main(int (*tests)(void))
{
    struct fixture f = {.count = 0};
    char init[PATH_MAX];
    int failed = tests(), status = -1;
    if (geteuid() != 0)
        return failed;
    fixture_share_init(&f, init);
    (void)fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        /* A process that changed its user cannot write its own maps until it is dumpable again, as
         * it would be after execve. */
        if (setgroups(0, NULL) < 0 || setgid(FIXTURE_USER) < 0 || setuid(FIXTURE_USER) < 0 ||
            prctl(PR_SET_DUMPABLE, 1) < 0 || setenv("SILT_INIT", init, 1) < 0)
            _exit(126);
        int code = tests();
        (void)fflush(NULL);
        exit(code ? 1 : 0);
    }
    (void)waitpid(pid, &status, 0);
    (void)unlink(init);
    return failed || status != 0;
}

#endif
