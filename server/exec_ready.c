/* SPDX-License-Identifier: MIT */
/*
 * Which programs may be prepared: started in the container that waits and held before they look at
 * anything (server/init_hold.h). Only those that cannot have done or seen anything by then that
 * would differ from a later start: an interpreter that is about to read its file from the
 * workspace. One with code on its command line might read the clock first.
 */
#include "server/exec_internal.h"

#include <string.h>

#include "shared/banned.h"

/* Languages whose interpreter reads no clock before it reads its file. Node does (process.uptime(),
 * performance.timeOrigin) and is prepared only where the operator asks for it. */
static bool is_wanted(const struct config *config, const char *language)
{
    for (char *const *name = config->prepare; name && *name; name++) {
        if (strcmp(*name, language) == 0)
            return true;
    }
    return false;
}

static bool has_variable(char *const *env, const char *name)
{
    size_t len = strlen(name);
    for (; *env; env++) {
        if (strncmp(*env, name, len) == 0 && (*env)[len] == '=')
            return true;
    }
    return false;
}

/* `python3 FILE …` or `python3 -m MODULE …`, whose search begins in the working directory. */
static bool reads_workspace_first(const struct exec_plan *plan)
{
    const char *first = plan->argv[1];
    if (!first)
        return false;
    if (strcmp(first, "-m") == 0)
        return strcmp(plan->argv[0], "python3") == 0 && !has_variable(plan->env, "PYTHONSAFEPATH");
    return first[0] != '-' && first[0] != '/';
}

static bool may_prepare(const struct run *run, const struct exec_plan *plan)
{
    const struct runtime_language *language = plan->language;
    if (!language && run->req.what == EXEC_ARGV)
        language = runtimes_by_program(plan->argv[0]);
    /* A folder beneath may be another one by the time of the run. */
    return language && is_wanted(run->exec->config, language->name) && !run->req.tty &&
           !run->req.has_stdin && (run->req.what == EXEC_FILE || run->req.what == EXEC_ARGV) &&
           strcmp(plan->argv[0], language->program) == 0 && strcmp(plan->cwd, "/workspace") == 0 &&
           reads_workspace_first(plan);
}

void exec_expect_again(struct run *run, const struct exec_plan *plan)
{
    struct container_process process = {.argv = NULL};
    if (may_prepare(run, plan))
        process = (struct container_process){.argv = (const char *const *)plan->argv,
            .env = (const char *const *)plan->env,
            .cwd = plan->cwd};
    warm_expect(run->exec->warm, run->sb, &process, run->req.stdin_stream);
}
