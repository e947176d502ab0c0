/* SPDX-License-Identifier: MIT */
#include "server/warm_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "shared/log.h"
#include "shared/text.h"

#include "shared/banned.h"

#define ID_BYTES 40

static size_t count_strings(const char *const *list, size_t *bytes)
{
    size_t n = 0;
    for (; list[n]; n++)
        *bytes += strlen(list[n]) + 1;
    return n;
}

struct warm_program *warm_program_new(const struct container_process *from, bool input)
{
    size_t bytes = strlen(from->cwd) + 1;
    size_t argc = count_strings(from->argv, &bytes), envc = count_strings(from->env, &bytes);
    size_t table = (argc + envc + 2) * sizeof(char *);
    struct warm_program *p = calloc(1, sizeof *p + table + bytes);
    if (!p)
        return NULL;
    p->input = input;
    const char **at = p->strings;
    char *text = (char *)p + sizeof *p + table;
    p->process.argv = at;
    p->process.env = at + argc + 1;
    for (size_t i = 0; i < argc + envc; i++) {
        const char *string = i < argc ? from->argv[i] : from->env[i - argc];
        size_t len = strlen(string) + 1;
        at[i < argc ? i : i + 1] = memcpy(text, string, len);
        text += len;
    }
    p->process.cwd = memcpy(text, from->cwd, strlen(from->cwd) + 1);
    return p;
}

void warm_got_close(struct warm_got *got)
{
    fd_closep(&got->out_read);
    fd_closep(&got->err_read);
    fd_closep(&got->in_write);
}

static int open_input(struct warm_got *got, const struct warm_program *program,
    const struct sandbox_mounts *mounts, int *ret, struct err *e)
{
    if (program->input)
        return container_input(mounts->uid, mounts->gid, ret, &got->in_write, e);
    *ret = open("/dev/null", O_RDONLY | O_CLOEXEC);
    return *ret < 0 ? err_set(e, errno, "open /dev/null") : 0;
}

/* Prepare a program in a container that was just made; without it the container is as good. */
static void prepare(struct warm_got *got, const struct warm_program *program,
    const struct sandbox_mounts *mounts, const char *sandbox)
{
    struct container_process process = program->process;
    struct err e = ERR_INIT;
    CLEANUP(fd_closep) int in = -1, out = -1, err = -1;
    int r = open_input(got, program, mounts, &in, &e);
    if (r == 0)
        r = container_pipe(mounts->uid, mounts->gid, &got->out_read, &out, &e);
    if (r == 0)
        r = container_pipe(mounts->uid, mounts->gid, &got->err_read, &err, &e);
    process.stdin_fd = in;
    process.stdout_fd = out;
    process.stderr_fd = err;
    if (r == 0)
        r = container_prepare(got->container, &process, &e);
    if (r < 0) {
        log_warn("no program is prepared for %s: %s", sandbox, e.msg);
        warm_got_close(got);
    }
}

struct warm_got warm_make_one(struct container_engine *engine, struct sandbox *sb,
    const struct warm_wish *wish, const struct warm_program *program)
{
    char id[ID_BYTES];
    struct warm_got got = WARM_GOT_NOTHING;
    struct sandbox_mounts mounts;
    struct err e = ERR_INIT;
    if (sandbox_make_enter(sb, &mounts, &e) < 0)
        return got;
    text_id("warm_", id, sizeof id);
    const struct container_spec spec = {.id = id,
        .workspace = mounts.workspace,
        .workspace_dev = mounts.workspace_dev,
        .workspace_ino = mounts.workspace_ino,
        .cache = mounts.cache,
        .image = wish->image,
        .uid = mounts.uid,
        .gid = mounts.gid,
        .limits = wish->limits};
    if (container_new(engine, &spec, &got.container, &e) < 0)
        log_warn("no container waits for %s: %s", sandbox_id(sb), e.msg);
    else if (program)
        prepare(&got, program, &mounts, sandbox_id(sb));
    else if (container_stand_by(got.container, &e) < 0)
        log_warn("for %s: %s", sandbox_id(sb), e.msg);
    sandbox_mounts_release(&mounts);
    sandbox_make_leave(sb);
    return got;
}
