/* SPDX-License-Identifier: MIT */
/*
 * Runtimes with a kernel of their own (runsc). Such a runtime passes its standard streams on to the
 * program, but no other descriptor, so silt-init cannot wait inside; it stands around: in a pid
 * namespace on the host, as process 1 of it, with the runtime as its child. What it guarantees for
 * a program it then guarantees for the runtime's processes: none of them outlives the run or siltd.
 * The program itself is process 1 in its container and is known when the runtime is started.
 */
#include "server/container_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server/around_log.h"
#include "server/oci.h"
#include "shared/io.h"
#include "shared/log.h"

#include "shared/banned.h"

#define LOG_BYTES_MAX (256 * 1024)
/* What the runtime takes for itself. Measured with runsc of 2022: 24 to 30 MB and some 40 threads
 * in three processes. A program's process is one on the host, its threads are more, and the runtime
 * has one for each call that blocks. */
#define OWN_MEMORY_BYTES (UINT64_C(64) << 20)
#define OWN_TASKS 96
#define TASKS_PER_TASK 3
#define KERNEL_DIED 2

int around_make_cgroup(const struct oci_engine *g, const char *cgroup,
    const struct container_limits *limits, int join[CGROUP_JOIN_MAX], struct err *e)
{
    if (!*cgroup)
        return 0;
    const struct cgroup_limits all = {
        .memory_bytes = limits->memory_bytes > 0 ? limits->memory_bytes + OWN_MEMORY_BYTES : 0,
        .tasks = limits->pids > 0 ? (uint64_t)limits->pids * TASKS_PER_TASK + OWN_TASKS : 0,
    };
    return cgroup_make(&g->base.cgroups, cgroup, &all, join, e);
}

static int write_program(
    const struct oci_engine *g, const char *id, const struct oci_program *program, struct err *e)
{
    char path[128];
    (void)snprintf(path, sizeof path, "bundles/%s/config.json", id);
    CLEANUP(fd_closep) int fd = openat(g->place.dir, path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    CLEANUP(buf_release) struct buf old;
    CLEANUP(freep) char *text = NULL;
    buf_init(&old, OCI_TEXT_MAX);
    int r = fd < 0 ? -errno : io_read_rest(fd, &old);
    if (r < 0)
        return err_set(e, -r, "read the bundle of container '%s'", id);
    r = oci_set_program(buf_str(&old), program, &text);
    if (r == -EINVAL)
        return err_refuse(e, PROTO_INVALID_VALUE,
            "the program's arguments or environment are not UTF-8, which this server's runtime "
            "needs");
    if (r == 0 && (ftruncate(fd, 0) < 0 || lseek(fd, 0, SEEK_SET) < 0))
        r = -errno;
    if (r == 0)
        r = io_write_all(fd, text, strlen(text));
    return r < 0 ? err_set(e, -r, "write the bundle of container '%s'", id) : 0;
}

/* The program within the limits that silt-init sets under other runtimes. */
static int check_size(const struct container_process *process, struct err *e)
{
    size_t bytes = strlen(process->cwd) + 1, strings = 0;
    const char *const *const lists[] = {process->argv, process->env};
    for (size_t i = 0; i < 2; i++) {
        for (const char *const *s = lists[i]; *s; s++, strings++)
            bytes += strlen(*s) + 1;
    }
    if (!process->argv[0] || process->cwd[0] != '/')
        return err_say(e, EINVAL, "a program needs a name and an absolute working directory");
    return bytes > INIT_BODY_MAX || strings > INIT_STRINGS_MAX
               ? err_say(e, E2BIG, "arguments and environment are too large")
               : 0;
}

static const char *const no_env[] = {NULL};

int around_start(struct container *c, const struct container_process *process, struct err *e)
{
    const struct oci_engine *g = (const struct oci_engine *)c->engine;
    const char *id = c->id;
    char state[128], bundle[128], log[160];
    (void)snprintf(bundle, sizeof bundle, PLACE_BUNDLES "/%s", id);
    (void)snprintf(state, sizeof state, PLACE_BUNDLES "/%s/state", id);
    (void)snprintf(log, sizeof log, "--debug-log=" PLACE_BUNDLES "/%s/%%COMMAND%%.log", id);
    const struct oci_program program = {
        .argv = process->argv, .env = process->env, .cwd = process->cwd};
    int r = check_size(process, e);
    if (r == 0)
        r = write_program(g, id, &program, e);
    if (r < 0)
        return r;
    const char *const argv[] = {g->runtime_path, "--root", state, "--platform=ptrace",
        "--network=none", "--ignore-cgroups", log, "--debug-command=run", "run", "--bundle", bundle,
        id, NULL};
    const struct container_process runtime = {.argv = argv,
        .env = no_env,
        .cwd = "/",
        .stdin_fd = process->stdin_fd,
        .stdout_fd = process->stdout_fd,
        .stderr_fd = process->stderr_fd};
    return order_send_job(c->sock, INIT_RUN, &runtime, e);
}

int around_signal(struct container *c, int sig)
{
    const struct oci_engine *g = (const struct oci_engine *)c->engine;
    char state[128], number[16];
    CLEANUP(fd_closep) int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0)
        return -errno;
    (void)snprintf(state, sizeof state, PLACE_BUNDLES "/%s/state", c->id);
    (void)snprintf(number, sizeof number, "%d", sig);
    const char *const argv[] = {g->runtime_path, "--root", state, "kill", c->id, number, NULL};
    const struct container_process kill = {.argv = argv,
        .env = no_env,
        .cwd = "/",
        .stdin_fd = null,
        .stdout_fd = null,
        .stderr_fd = null};
    return order_send_job(c->sock, INIT_ASIDE, &kill, NULL);
}

void around_verdict(struct container *c, struct container_exit *ret)
{
    const struct oci_engine *g = (const struct oci_engine *)c->engine;
    char path[128];
    CLEANUP(buf_release) struct buf b;
    struct around_log log;
    ret->lost = true;
    buf_init(&b, LOG_BYTES_MAX);
    (void)snprintf(path, sizeof path, "bundles/%s/run.log", c->id);
    CLEANUP(fd_closep) int fd = openat(g->place.dir, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || io_read_rest(fd, &b) < 0)
        return;
    around_log_read(buf_str(&b), &log);
    if (log.ended) {
        ret->lost = false;
        /* Where it gets no more tasks the runtime's kernel ends as Go programs do, by code 2, and
         * the runtime reports that as the program's. */
        if (ret->pids_limit_hit && WIFEXITED(log.status) && WEXITSTATUS(log.status) == KERNEL_DIED)
            log.status = SIGKILL;
        ret->signal = WIFSIGNALED(log.status) ? WTERMSIG(log.status) : 0;
        ret->exit_code = ret->signal ? 0 : WEXITSTATUS(log.status);
    } else if (*log.failure) {
        ret->exec_errno = log.exec_errno;
        ret->lost = ret->exec_errno == 0;
        ret->started = ret->lost;
        if (ret->lost)
            log_warn("container %s: the runtime says: %s", c->id, log.failure);
    }
}
