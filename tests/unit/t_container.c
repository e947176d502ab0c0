/* SPDX-License-Identifier: MIT */
/* A container's life: what a program finds, how its end is told, and that nothing is left behind.
 */
#include "tests/unit/container_fixture.h"

#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "server/container_internal.h"

#include "shared/banned.h"

static void test_hello(void **state)
{
    static struct run r;
    RUN(*state, &r, "/bin/sh", "-c", "echo hello; echo oops >&2");
    assert_string_equal(r.out, "hello\noops\n");
    assert_true(r.exit.started);
    assert_int_equal(r.exit.exit_code, 0);
    assert_int_equal(r.exit.signal, 0);
    assert_false(r.exit.oom_killed || r.exit.pids_limit_hit || r.exit.lost);
}

static void test_environment_is_exact(void **state)
{
    static struct run r;
    RUN(*state, &r, "env"); /* found in PATH of the given environment */
    assert_string_equal(
        r.out, "PATH=/usr/local/bin:/usr/bin:/bin\nHOME=/cache/home\nLANG=C.UTF-8\n");
}

static void test_workspace(void **state)
{
    struct fixture *f = *state;
    static struct run r;
    struct stat st;
    char path[256];
    SH(f, &r, "pwd; echo kept >out.txt; mkdir -p d/e; echo c >/cache/c; stat -c %U:%G out.txt");
    assert_string_equal(r.out, "/workspace\nsilt:silt\n");
    (void)snprintf(path, sizeof path, "%s/out.txt", f->workspace);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_uid, f->uid);
    assert_int_equal(st.st_gid, f->uid);
    assert_int_equal(st.st_mode & 0777, 0644);
    /* the next container finds both, but nothing in /tmp */
    SH(f, &r, "echo t >/tmp/t; cat out.txt /cache/c");
    assert_string_equal(r.out, "kept\nc\n");
    SH(f, &r, "ls /tmp");
    assert_string_equal(r.out, "");
}

/* With an empty /etc these are "not found" although they are installed. */
static void test_etc_is_enough(void **state)
{
    static struct run r;
    SH(*state, &r,
        "awk 'BEGIN {print 1}'; echo 'int main(void){return 0;}' >/tmp/x.c && cc -o /tmp/x "
        "/tmp/x.c && /tmp/x && echo 2; python3 -c 'import getpass, socket; "
        "print(getpass.getuser(), socket.gethostbyname(\"localhost\"))'");
    assert_string_equal(r.out, "1\n2\nsilt 127.0.0.1\n");
}

static void test_ends(void **state)
{
    static const struct {
        const char *script;
        int exit_code, signal;
    } rows[] = {
        {"exit 0", 0, 0},
        {"exit 7", 7, 0},
        {"exit 255", 255, 0},
        {"kill -TERM $$", 0, SIGTERM},
        {"kill -SEGV $$", 0, SIGSEGV},
        {"kill -KILL $$", 0, SIGKILL},
        /* not the same as the signal */
        {"exit 143", 143, 0},
        /* what it leaves running ends with it and does not change its result */
        {"sleep 1000 & exit 3", 3, 0},
    };
    static struct run r;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        SH(*state, &r, rows[i].script);
        if (r.exit.exit_code != rows[i].exit_code || r.exit.signal != rows[i].signal ||
            !r.exit.started || r.exit.lost)
            fail_msg("'%s': exit %d signal %d", rows[i].script, r.exit.exit_code, r.exit.signal);
    }
}

static void test_what_cannot_be_executed(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *program, *cwd;
        int error;
    } rows[] = {
        {"/nowhere/program", "/workspace", ENOENT}, {"no-such-program", "/workspace", ENOENT},
        {"", "/workspace", ENOENT}, {"./plain", "/workspace", EACCES}, /* no x bit */
        {"/workspace", "/workspace", EACCES},                          /* a directory */
        {"./text", "/workspace", ENOEXEC},                             /* neither #! nor ELF */
        {"./orphan", "/workspace", ENOENT},                            /* its #! names nothing */
        {"./plain/x", "/workspace", ENOTDIR},
        {"true", "/workspace/gone", ENOENT}, /* no such working directory */
    };
    static struct run r;
    char id[32];
    fixture_write(f, "plain", "#!/bin/sh\n", 0644);
    fixture_write(f, "text", "echo hi\n", 0755);
    fixture_write(f, "orphan", "#!/nowhere/sh\n", 0755);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct container_spec spec = fixture_spec(f, id);
        fixture_run_spec(f, &spec, (const char *const[]){rows[i].program, NULL}, rows[i].cwd, &r);
        if (r.exit.started || r.exit.exec_errno != rows[i].error)
            fail_msg("'%s' in %s: %s", rows[i].program, rows[i].cwd, strerror(r.exit.exec_errno));
        assert_string_equal(r.out, "");
    }
}

/* A daemon that left the session and holds the output open: end of file comes all the same. */
static void test_daemons_die(void **state)
{
    static struct run r;
    SH(*state, &r, "setsid sh -c 'trap \"\" HUP TERM; sleep 1000' & echo started");
    assert_string_equal(r.out, "started\n");
}

static void test_tty(void **state)
{
    struct fixture *f = *state;
    struct err e = ERR_INIT;
    struct container_exit ended;
    char id[32], text[64];
    struct container_spec spec = fixture_spec(f, id);
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    assert_true(master >= 0);
    assert_int_equal(grantpt(master) | unlockpt(master), 0);
    int slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
    struct container *c = fixture_new(f, &spec);
    const struct container_process process = {
        .argv = (const char *const[]){"sh", "-c", "test -t 1 && echo yes >/dev/tty", NULL},
        .env = fixture_env,
        .cwd = "/",
        .stdin_fd = slave,
        .stdout_fd = slave,
        .stderr_fd = slave,
        .tty = true};
    assert_int_equal(container_start(c, &process, &e), 0);
    assert_int_equal(container_wait(c, &ended, &e), 0);
    assert_int_equal(ended.exit_code, 0);
    ssize_t n = read(master, text, sizeof text - 1);
    assert_true(n > 0);
    text[n] = '\0';
    assert_string_equal(text, "yes\r\n");
    container_free(c);
    (void)close(slave);
    (void)close(master);
}

/* Start a script and wait for its first byte of output. */
static struct container *start_and_hear(struct fixture *f, const char *script, int *ret_out)
{
    char id[32], byte;
    struct container_spec spec = fixture_spec(f, id);
    struct container *c = fixture_new(f, &spec);
    *ret_out = fixture_start(c, (const char *const[]){"sh", "-c", script, NULL}, "/");
    assert_int_equal(read(*ret_out, &byte, 1), 1);
    return c;
}

static void test_kill(void **state)
{
    static const struct {
        const char *script;
        int send, exit_code, signal;
    } rows[] = {
        {"echo x; sleep 1000", SIGKILL, 0, SIGKILL},
        /* ignoring does not help, and grandchildren go too */
        {"trap '' TERM INT HUP; sleep 1000 & sleep 1000 & echo x; wait", SIGKILL, 0, SIGKILL},
        /* other signals reach the group and may be handled */
        {"trap 'exit 5' TERM; echo x; while :; do sleep 0.01; done", SIGTERM, 5, 0},
        {"echo x; exec sleep 1000", SIGINT, 0, SIGINT},
    };
    struct err e = ERR_INIT;
    struct container_exit ended;
    char rest[64];
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        int out;
        struct container *c = start_and_hear(*state, rows[i].script, &out);
        struct pollfd p = {.fd = container_fd(c), .events = POLLIN};
        assert_int_equal(poll(&p, 1, 0), 0); /* not ended yet */
        assert_int_equal(container_kill(c, rows[i].send, &e), 0);
        assert_int_equal(poll(&p, 1, -1), 1);
        assert_int_equal(container_wait(c, &ended, &e), 0);
        if (ended.signal != rows[i].signal || ended.exit_code != rows[i].exit_code || ended.lost ||
            ended.oom_killed || !ended.started)
            fail_msg("row %zu: exit %d signal %d", i, ended.exit_code, ended.signal);
        assert_int_equal(container_kill(c, SIGKILL, &e), 0); /* late, harmless */
        assert_int_equal(container_kill(c, SIGTERM, &e), -ESRCH);
        fixture_read_all(out, rest, sizeof rest); /* nobody holds the output */
        container_free(c);
        (void)close(out);
    }
}

static void test_unused_containers(void **state)
{
    struct fixture *f = *state;
    struct err e = ERR_INIT;
    char id[32];
    struct container_spec spec = fixture_spec(f, id);
    struct container *c = fixture_new(f, &spec);
    assert_int_equal(container_kill(c, SIGTERM, &e), -ESRCH); /* no program yet */
    container_free(c);
    container_free(NULL);
    c = fixture_new(f, &spec); /* the id is free again */
    assert_int_equal(container_kill(c, SIGKILL, &e), 0);
    container_free(c);
    c = fixture_new(f, &spec);
    int out = fixture_start(c, (const char *const[]){"true", NULL}, "/");
    const struct container_process again = {
        .argv = (const char *const[]){"true", NULL}, .env = fixture_env, .cwd = "/"};
    assert_int_equal(container_start(c, &again, &e), -EALREADY); /* one program per container */
    container_free(c);                                           /* not waited for */
    (void)close(out);
}

static void test_moved_workspace(void **state)
{
    struct fixture *f = *state;
    struct err e = ERR_INIT;
    char id[32], moved[128];
    struct container_spec spec = fixture_spec(f, id);
    struct container *c = fixture_new(f, &spec);
    (void)snprintf(moved, sizeof moved, "%s/moved", f->base);
    assert_int_equal(rename(f->workspace, moved), 0);
    assert_int_equal(mkdir(f->workspace, 0700), 0);
    const struct container_process process = {
        .argv = (const char *const[]){"true", NULL}, .env = fixture_env, .cwd = "/"};
    assert_int_equal(container_start(c, &process, &e), -ESTALE);
    container_free(c);
    assert_int_equal(container_new(f->engine, &spec, &c, &e), -ESTALE); /* the old numbers */
    assert_int_equal(rmdir(f->workspace), 0);
    assert_int_equal(rename(moved, f->workspace), 0);
}

static void test_refusals(void **state)
{
    struct fixture *f = *state;
    struct container *c = NULL;
    char id[32];
    static const struct {
        const char *id, *cache, *image;
        int result;
        enum proto_error refusal;
        const char *says;
    } rows[] = {
        {"Bad-Id", NULL, "host", -EINVAL, PROTO_OK, "Bad-Id"},
        {"../x", NULL, "host", -EINVAL, PROTO_OK, "../x"},
        {"", NULL, "host", -EINVAL, PROTO_OK, "id"},
        {NULL, "relative", "host", -EINVAL, PROTO_OK, "absolute"},
        {NULL, NULL, "nothing", -EPROTO, PROTO_UNKNOWN_IMAGE, "nothing"},
        {NULL, NULL, "../ws", -EPROTO, PROTO_UNKNOWN_IMAGE, "../ws"},
        {NULL, NULL, "..", -EPROTO, PROTO_UNKNOWN_IMAGE, ".."},
        /* the runtime's own words */
        {NULL, "/nowhere/cache", "host", -EPROTO, PROTO_ENGINE_FAILED, "/nowhere/cache"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct err e = ERR_INIT;
        struct container_spec spec = fixture_spec(f, id);
        spec.id = rows[i].id ? rows[i].id : id;
        spec.cache = rows[i].cache ? rows[i].cache : f->cache;
        spec.image = rows[i].image;
        assert_int_equal(container_new(f->engine, &spec, &c, &e), rows[i].result);
        assert_int_equal(e.refusal, rows[i].refusal);
        if (!strstr(e.msg, rows[i].says))
            fail_msg("row %zu: %s", i, e.msg);
    }
    struct err e = ERR_INIT;
    struct container_spec spec = fixture_spec(f, id);
    spec.uid = fixture_is_root(f) ? 0 : f->uid + 1; /* root, or somebody else */
    assert_int_equal(container_new(f->engine, &spec, &c, &e), -EINVAL);
}

static void test_engines_that_cannot_be(void **state)
{
    struct fixture *f = *state;
    struct container_engine *g = NULL;
    struct container_config config = fixture_config(f);
    struct err e = ERR_INIT;
    /* one engine per state directory */
    assert_int_equal(container_engine_new(&config, &g, &e), -EBUSY);
    char other[160];
    (void)snprintf(other, sizeof other, "%s/other", f->base);
    static const struct {
        const char *runtime;
        int result;
        const char *says;
    } rows[] = {
        {"no-such-runtime", -ENOENT, "apt-get install crun"}, {"/bin/false", -EINVAL, "/bin/false"},
        {"/bin/echo", -EINVAL, "--version"}, /* answers, but is no runtime */
    };
    config.state_dir = other;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        config.runtime = rows[i].runtime;
        assert_int_equal(container_engine_new(&config, &g, &e), rows[i].result);
        if (!strstr(e.msg, rows[i].says))
            fail_msg("%s", e.msg);
    }
    config.runtime = "crun";
    config.init_path = "/nowhere/silt-init";
    assert_int_equal(container_engine_new(&config, &g, &e), -ENOENT);
    assert_null(g);
}

static void test_images(void **state)
{
    struct fixture *f = *state;
    static struct run r;
    char id[32], path[256], from[PATH_MAX];
    static const char *const dirs[] = {"", "/bin", "/etc", "/dev", "/proc", "/sys", "/tmp", NULL};
    for (const char *const *d = dirs; *d; d++) {
        (void)snprintf(path, sizeof path, "%s/tiny%s", f->images, *d);
        assert_int_equal(mkdir(path, 0755), 0);
    }
    /* Its only program is static: silt-init without its socket gives up with 1. */
    (void)snprintf(path, sizeof path, "%s/tiny/bin/prog", f->images);
    (void)snprintf(from, sizeof from, "%s", f->init);
    pid_t pid = fork();
    if (pid == 0) {
        (void)execl("/bin/cp", "cp", from, path, (char *)NULL);
        _exit(127);
    }
    (void)waitpid(pid, NULL, 0);
    assert_true(container_engine_has_image(f->engine, "tiny")); /* makes what is missing */
    assert_true(container_engine_has_image(f->engine, "host"));
    assert_false(container_engine_has_image(f->engine, "large"));
    assert_true(container_engine_has_program(f->engine, "tiny", "prog"));
    assert_true(container_engine_has_program(f->engine, "tiny", "/bin/prog"));
    assert_false(container_engine_has_program(f->engine, "tiny", "sh"));
    assert_true(container_engine_has_program(f->engine, "host", "sh"));
    assert_true(container_engine_has_program(f->engine, "host", "/usr/bin/env"));
    assert_false(container_engine_has_program(f->engine, "host", "no-such-program"));
    assert_false(container_engine_has_program(f->engine, "host", "/etc/passwd"));
    assert_false(container_engine_has_program(f->engine, "host", "/usr/../etc/init.d/procps"));
    struct container_spec spec = fixture_spec(f, id);
    spec.image = "tiny";
    fixture_run_spec(f, &spec, (const char *const[]){"prog", NULL}, "/", &r);
    assert_true(r.exit.started);
    assert_int_equal(r.exit.exit_code, 1);
    spec = fixture_spec(f, id);
    spec.image = "tiny";
    fixture_run_spec(f, &spec, (const char *const[]){"sh", NULL}, "/", &r); /* not the host's */
    assert_int_equal(r.exit.exec_errno, ENOENT);
    /* A symlink where something is to be mounted would lead the mounts out of the root. */
    (void)snprintf(path, sizeof path, "%s/tiny/dev", f->images);
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(symlink("/tmp", path), 0);
    assert_false(container_engine_has_image(f->engine, "tiny"));
}

static void test_cpus(void **state)
{
    struct fixture *f = *state;
    static struct run r;
    char id[32];
    struct container_spec spec = fixture_spec(f, id);
    spec.limits.cpus = 1;
    fixture_run_spec(f, &spec,
        (const char *const[]){"python3", "-c",
            "import os; print(os.cpu_count(), len(os.sched_getaffinity(0)))", NULL},
        "/", &r);
    assert_string_equal(r.out, "1 1\n");
}

static void test_usage(void **state)
{
    struct fixture *f = *state;
    static struct run r;
    PYTHON(f, &r,
        "x = b'x' * (40 << 20)\nimport time\n"
        "while time.process_time() < 0.2: pass");
    assert_true(r.exit.user_us + r.exit.system_us >= 200000);
    assert_true(r.exit.user_us + r.exit.system_us < 20000000);
    assert_true(r.exit.memory_peak_bytes > (40u << 20));
    assert_true(r.exit.memory_peak_bytes < (200u << 20));
    /* children that it waited for count */
    SH(f, &r, "python3 -c 'import time\nwhile time.process_time() < 0.2: pass'");
    assert_true(r.exit.user_us + r.exit.system_us >= 200000);
    /* and a program that does nothing is not charged for the making of its container */
    RUN(f, &r, "true");
    assert_true(r.exit.memory_peak_bytes < (8u << 20));
}

static void test_large_requests(void **state)
{
    struct fixture *f = *state;
    struct err e = ERR_INIT;
    static struct run r;
    char id[32];
    /* more than a socket buffer holds */
    char *big = calloc(1, 2 << 20);
    memset(big, 'x', 100000);
    fixture_run(f,
        (const char *const[]){
            "sh", "-c", "echo ${#1} ${#2} ${#3} ${#4}", "sh", big, big, big, big, NULL},
        &r);
    assert_string_equal(r.out, "100000 100000 100000 100000\n");
    memset(big, 'x', (2 << 20) - 1);
    struct container_spec spec = fixture_spec(f, id);
    struct container *c = fixture_new(f, &spec);
    const struct container_process process = {
        .argv = (const char *const[]){"true", big, NULL}, .env = fixture_env, .cwd = "/"};
    assert_int_equal(container_start(c, &process, &e), -E2BIG);
    container_free(c);
    free(big);
}

static int count_fds(void)
{
    return fixture_entries("/proc/self/fd");
}

static int count_cgroups(const struct fixture *f, const char *controller)
{
    char path[PATH_MAX];
    const struct oci_engine *g = (const struct oci_engine *)f->engine;
    if (g->base.cgroups.version == CGROUP_NONE)
        return 0;
    (void)snprintf(path, sizeof path, "/sys/fs/cgroup/%s%s",
        g->base.cgroups.version == CGROUP_V1 ? controller : "", g->cgroup_parent);
    DIR *d = opendir(path);
    int n = 0;
    for (struct dirent *x; d && (x = readdir(d));)
        n += x->d_type == DT_DIR && x->d_name[0] != '.';
    if (d)
        (void)closedir(d);
    return n;
}

static int count_place(const struct fixture *f, const char *dir)
{
    char path[64];
    (void)snprintf(
        path, sizeof path, "/proc/self/fd/%d/%s", ((struct oci_engine *)f->engine)->place.dir, dir);
    return fixture_entries(path);
}

static void *run_five(void *arg)
{
    struct fixture *f = arg;
    static _Atomic unsigned next;
    for (int i = 0; i < 5; i++) {
        struct err e = ERR_INIT;
        char id[32];
        struct stat st;
        struct container *c;
        struct container_exit ended;
        (void)snprintf(id, sizeof id, "p%u", next++);
        if (stat(f->workspace, &st) < 0)
            return "stat";
        const struct container_spec spec = {id, f->workspace, st.st_dev, st.st_ino, f->cache,
            "host", f->uid, f->uid, {.memory_bytes = 256u << 20, .pids = 16, .tmp_bytes = 1 << 20},
            false};
        if (container_new(f->engine, &spec, &c, &e) < 0)
            return "new";
        const struct container_process process = {
            .argv = (const char *const[]){"sh", "-c", "sleep 1000 & exit 9", NULL},
            .env = fixture_env,
            .cwd = "/"};
        if (container_start(c, &process, &e) < 0 || container_wait(c, &ended, &e) < 0 ||
            ended.exit_code != 9)
            return "run";
        container_free(c);
    }
    return NULL;
}

/* Twenty containers from four threads, and not a trace of them. */
static void test_nothing_is_left(void **state)
{
    struct fixture *f = *state;
    pthread_t threads[4];
    int before = count_fds();
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, run_five, f), 0);
    for (int i = 0; i < 4; i++) {
        void *problem = NULL;
        (void)pthread_join(threads[i], &problem);
        if (problem)
            fail_msg("%s", (const char *)problem);
    }
    assert_int_equal(count_fds(), before);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no child at all */
    assert_int_equal(errno, ECHILD);
    assert_int_equal(count_place(f, "bundles"), 0);
    assert_int_equal(count_place(f, "run"), 0);
    assert_int_equal(count_cgroups(f, "memory"), 0);
    assert_int_equal(count_cgroups(f, "pids"), 0);
    assert_int_equal(count_cgroups(f, "cpuset"), 0);
}

/* A server that is killed: its containers end, and the next one cleans up. */
static void test_killed_server(void **state)
{
    struct fixture *f = *state;
    char state_dir[160], id[32], byte;
    struct err e = ERR_INIT;
    int pipes[2];
    (void)snprintf(state_dir, sizeof state_dir, "%s/second", f->base);
    struct container_config config = fixture_config(f);
    struct container_spec spec = fixture_spec(f, id);
    config.state_dir = state_dir;
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct container_engine *g;
        struct container *waiting, *running;
        const struct container_process process = {
            .argv = (const char *const[]){"sh", "-c", "echo x; exec sleep 1000", NULL},
            .env = fixture_env,
            .cwd = "/",
            .stdin_fd = pipes[1],
            .stdout_fd = pipes[1],
            .stderr_fd = pipes[1]};
        if (container_engine_new(&config, &g, &e) < 0 ||
            container_new(g, &spec, &running, &e) < 0 || container_start(running, &process, &e) < 0)
            _exit(1);
        spec.id = "other";
        if (container_new(g, &spec, &waiting, &e) < 0)
            _exit(1);
        (void)pause();
        _exit(1);
    }
    (void)close(pipes[1]);
    assert_int_equal(read(pipes[0], &byte, 1), 1);
    assert_int_equal(kill(pid, SIGKILL), 0);
    (void)waitpid(pid, NULL, 0);
    fixture_read_all(pipes[0], (char[64]){0}, 64); /* ends: nobody holds the output any more */
    (void)close(pipes[0]);
    struct container_engine *g = NULL;
    assert_int_equal(container_engine_new(&config, &g, &e), 0);
    assert_true(container_engine_reap(g, &e) >= 0);
    struct fixture second = {.engine = g};
    assert_int_equal(count_cgroups(&second, "memory"), 0);
    assert_int_equal(count_cgroups(&second, "pids"), 0);
    container_engine_free(g);
}

/* The process that stands by: silt-init's only child. 0 while there is none. */
static pid_t find_standby(const struct container *c)
{
    char wanted[64], path[300], text[512];
    pid_t found = 0;
    (void)snprintf(wanted, sizeof wanted, "(.silt-init) S %d ", (int)c->init);
    DIR *proc = opendir("/proc");
    assert_non_null(proc);
    for (struct dirent *d; !found && (d = readdir(proc));) {
        (void)snprintf(path, sizeof path, "/proc/%s/stat", d->d_name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
        if (fd >= 0)
            (void)close(fd);
        text[n > 0 ? n : 0] = '\0';
        if (strstr(text, wanted))
            found = (pid_t)strtol(d->d_name, NULL, 10);
    }
    (void)closedir(proc);
    return found;
}

/* As the memory limit would: there is no program yet, so nothing may look like the end of one. */
static void test_stand_by_that_died(void **state)
{
    struct fixture *f = *state;
    struct err e = ERR_INIT;
    char id[32];
    struct container_spec spec = fixture_spec(f, id);
    struct container *c = fixture_new(f, &spec);
    pid_t pid = 0;
    for (int i = 0; i < 6000 && (pid = find_standby(c)) == 0; i++)
        (void)usleep(10000);
    assert_true(pid > 1);
    assert_int_equal(kill(pid, SIGKILL), 0);
    struct pollfd ended = {.fd = container_fd(c), .events = POLLIN};
    assert_int_equal(poll(&ended, 1, 60000), 1);
    const struct container_process process = {.argv = (const char *const[]){"true", NULL},
        .env = fixture_env,
        .cwd = "/",
        .stdin_fd = 0,
        .stdout_fd = 1,
        .stderr_fd = 2};
    struct container_exit exit = {.lost = true};
    if (container_start(c, &process, &e) == 0) /* the runtime may still hold the other end */
        assert_int_equal(container_wait(c, &exit, &e), 0);
    assert_true(exit.lost);
    container_free(c);
}

static int setup_stand_by(void **state)
{
    int r = fixture_setup(state);
    ((struct fixture *)*state)->stand_by = true;
    return r;
}

static int tests(void)
{
    /* What a program finds and how it ends is the same where a process stood by for it. */
    const struct CMUnitTest life[] = {
        cmocka_unit_test(test_hello),
        cmocka_unit_test(test_environment_is_exact),
        cmocka_unit_test(test_workspace),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_what_cannot_be_executed),
        cmocka_unit_test(test_daemons_die),
        cmocka_unit_test(test_tty),
        cmocka_unit_test(test_kill),
        cmocka_unit_test(test_unused_containers),
        cmocka_unit_test(test_moved_workspace),
        cmocka_unit_test(test_usage),
        cmocka_unit_test(test_large_requests),
        cmocka_unit_test(test_nothing_is_left),
        cmocka_unit_test(test_killed_server),
    };
    const struct CMUnitTest waiting[] = {cmocka_unit_test(test_stand_by_that_died)};
    const struct CMUnitTest engine[] = {
        cmocka_unit_test(test_etc_is_enough),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_engines_that_cannot_be),
        cmocka_unit_test(test_images),
        cmocka_unit_test(test_cpus),
    };
    return cmocka_run_group_tests(engine, fixture_setup, fixture_teardown) +
           cmocka_run_group_tests(life, fixture_setup, fixture_teardown) +
           cmocka_run_group_tests_name("stand by", life, setup_stand_by, fixture_teardown) +
           cmocka_run_group_tests_name("waiting", waiting, setup_stand_by, fixture_teardown);
}

int main(void)
{
    return fixture_main(tests);
}
