/* SPDX-License-Identifier: MIT */
#include "server/exec_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "shared/io.h"
#include "shared/path.h"

#include "server/body.h"
#include "server/image.h"

#include "shared/weaken.h"

#include "shared/banned.h"

#define HEAD_BYTES 256
#define CODE_PIECE (100u * 1024) /* one argument of execve may have 128 KiB */
#define CODE_DIR "/tmp/code"

/* What every program finds (see "How to" in server/DESIGN.md); a sandbox or a request may replace
 * each. */
static const struct {
    const char *name, *value;
    const char *frozen; /* name of what is set instead, to 1, with a snapshot */
} base_env[] = {
    {"PATH", "/usr/local/bin:/usr/bin:/bin", NULL},
    {"HOME", "/cache/home", NULL},
    {"LANG", "C.UTF-8", NULL},
    {"TZ", "UTC", NULL},
    {"PYTHONUNBUFFERED", "1", NULL},
    /* Bytecode of what is only tried must not lie where another run could take it for its own: Python
     * tells versions apart by size and second. That of installed packages lies beside them. */
    {"PYTHONPYCACHEPREFIX", "/cache/pyc", "PYTHONDONTWRITEBYTECODE"},
    {"PIP_CACHE_DIR", "/cache/pip", NULL},
    {"GOPATH", "/cache/go", NULL},
    {"GOCACHE", "/cache/go/build", NULL},
    {"npm_config_cache", "/cache/npm", NULL},
};

/* Languages that take a piece of code as an argument: it then runs in the working directory,
 * imports what lies there, and leaves no file behind. */
static const struct {
    const char *language, *option;
} inline_code[] = {
    {"python", "-c"},
    {"node", "-e"},
    {"ruby", "-e"},
    {"perl", "-e"},
    {"shell", "-c"},
};

static int list_add(char ***list, const char *text, size_t len)
{
    size_t count = 0;
    while (*list && (*list)[count])
        count++;
    char **bigger = realloc(*list, (count + 2) * sizeof(**list));
    if (!bigger)
        return -ENOMEM;
    *list = bigger;
    bigger[count] = strndup(text, len);
    bigger[count + 1] = NULL;
    return bigger[count] ? 0 : -ENOMEM;
}

static int list_adds(char ***list, const char *text)
{
    return list_add(list, text, strlen(text));
}

static int list_add_all(char ***list, char *const *items)
{
    int r = 0;
    for (; r == 0 && items && *items; items++)
        r = list_adds(list, *items);
    return r;
}

static int set_entry(char ***env, const char *entry)
{
    const char *equals = strchr(entry, '=');
    CLEANUP(freep) char *name = strndup(entry, (size_t)(equals - entry));
    return name ? body_env_set(env, name, equals + 1) : -ENOMEM;
}

/* Of what every program finds, what an image may know better: where its programs lie, its language.
 * The rest names places that are writable, or what silt promises. */
static bool image_may_set(const char *entry)
{
    static const char *const allowed[] = {"PATH", "LANG", "TZ"};
    size_t len = strcspn(entry, "=");
    for (size_t i = 0; i < sizeof(allowed) / sizeof(allowed[0]); i++) {
        if (strlen(allowed[i]) == len && strncmp(allowed[i], entry, len) == 0)
            return true;
    }
    for (size_t i = 0; i < sizeof(base_env) / sizeof(base_env[0]); i++) {
        if (strlen(base_env[i].name) == len && strncmp(base_env[i].name, entry, len) == 0)
            return false;
    }
    return true;
}

static int add_image_env(struct run *run, struct exec_plan *ret, struct err *e)
{
    struct image image;
    if (image_is_host(run->req.image))
        return 0;
    int r = image_load(run->exec->config->images, run->req.image, &image, e);
    if (r == -ENOENT)
        r = image_unknown(config_image_dir(run->exec->config), run->req.image, e);
    for (char **entry = image.env; r == 0 && *entry; entry++)
        r = image_may_set(*entry) ? set_entry(&ret->env, *entry) : 0;
    const char *path = r == 0 ? image_env(&image, "PATH") : NULL;
    if (path && !(ret->path = strdup(path)))
        r = -ENOMEM;
    image_release(&image);
    return r;
}

static int make_env(struct run *run, struct exec_plan *ret, struct err *e)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < sizeof(base_env) / sizeof(base_env[0]); i++)
        r = run->req.view != EXEC_LIVE && base_env[i].frozen
                ? body_env_set(&ret->env, base_env[i].frozen, "1")
                : body_env_set(&ret->env, base_env[i].name, base_env[i].value);
    if (r == 0)
        r = add_image_env(run, ret, e);
    if (r == 0 && run->req.tty)
        r = body_env_set(&ret->env, "TERM", "xterm-256color");
    for (char **entry = run->req.env; r == 0 && entry && *entry; entry++)
        r = set_entry(&ret->env, *entry);
    for (char **entry = environ; WEAK("environment") && r == 0 && *entry; entry++)
        r = set_entry(&ret->env, *entry);
    /* These two are facts, not wishes. */
    r = r < 0 ? r : body_env_set(&ret->env, "SILT_RUN", run->facts.id);
    return r < 0 ? r : body_env_set(&ret->env, "SILT_SANDBOX", run->facts.sandbox);
}

static bool exists_in_sandbox(void *ctx, const char *path)
{
    const struct run *run = ctx;
    return sandbox_view_has_file(run->sb, run->view, path);
}

static int check_interpreter(struct run *run, const struct exec_plan *whole,
    const struct runtimes_plan *plan, struct err *e)
{
    if (!plan->interpreter || container_engine_finds(run->exec->engine, run->req.image, whole->path,
                                  plan->interpreter))
        return 0;
    if (!image_is_host(run->req.image))
        return err_refuse(e, PROTO_INTERPRETER_MISSING,
            "'%s' is not in image '%s': give the sandbox an image that has it (GET /v1/images), or "
            "\"" IMAGE_HOST "\" for the server's own programs",
            plan->interpreter, run->req.image);
    return err_refuse(e, PROTO_INTERPRETER_MISSING,
        "'%s' is not installed on this server: install it there, or give the sandbox an image that "
        "has it",
        plan->interpreter);
}

static int take_plan(
    struct run *run, struct runtimes_plan *plan, struct exec_plan *ret, struct err *e)
{
    int r = check_interpreter(run, ret, plan, e);
    if (r < 0)
        return r;
    ret->language = plan->language;
    for (size_t i = 0; r == 0 && i < plan->argc; i++)
        r = list_adds(&ret->argv, plan->argv[i]);
    return r;
}

static int plan_file(struct run *run, struct exec_plan *ret, struct err *e)
{
    CLEANUP(fd_closep) int fd = -1;
    const struct runtimes_look look = {.exists = exists_in_sandbox, .ctx = run};
    struct sandbox_file file = {.target = NULL};
    struct runtimes_plan plan = {.language = NULL};
    char head[HEAD_BYTES];
    int r = sandbox_view_file_open(run->sb, run->view, run->req.text, &fd, &file, e);
    if (r < 0)
        return r;
    bool executable = (file.mode & 0111) != 0, is_file = file.kind == TREE_FILE;
    sandbox_file_release(&file);
    if (!is_file || fd < 0)
        return err_refuse(e, PROTO_NOT_RUNNABLE,
            "'%s' is no file: name the file inside it that shall run", run->req.text);
    ssize_t n = io_pread_full(fd, head, sizeof(head), 0);
    if (n < 0)
        return err_set(e, (int)-n, "read '%s'", run->req.text);
    r = runtimes_plan_file(
        run->req.text, run->req.cwd, head, (size_t)n, executable, run->req.language, &look, &plan);
    if (r == -ENOEXEC)
        return err_refuse(e, PROTO_NOT_RUNNABLE,
            "'%s' cannot be run: its extension is not known, it has no #! line, and the sandbox "
            "has no language; "
            "use 'command' instead",
            run->req.text);
    if (r == 0)
        r = take_plan(run, &plan, ret, e);
    runtimes_plan_release(&plan);
    return r;
}

static const char *inline_option(const struct runtime_language *language)
{
    for (size_t i = 0; i < sizeof(inline_code) / sizeof(inline_code[0]); i++) {
        if (strcmp(inline_code[i].language, language->name) == 0)
            return inline_code[i].option;
    }
    return NULL;
}

static bool exists_nowhere(void *ctx, const char *path)
{
    (void)ctx;
    (void)path;
    return false;
}

/*
 * Code for a language that wants a file: a shell inside the container writes it into its own /tmp,
 * which nobody else sees and which ends with the run, and becomes the program.
 */
static int plan_code_file(struct run *run, struct exec_plan *ret, const char *option, struct err *e)
{
    static const char script[] =
        "d=" CODE_DIR "; mkdir -p $d && f=$d/$1 && n=$2 && shift 2 && : >$f || exit 125\n"
        "while [ $n -gt 0 ]; do printf %s \"$1\" >>$f || exit 125; shift; n=$((n-1)); done\n";
    const struct runtime_language *language = run->req.language;
    const struct runtimes_look look = {.exists = exists_nowhere};
    struct runtimes_plan plan = {.language = NULL};
    size_t len = strlen(run->req.text), pieces = (len + CODE_PIECE - 1) / CODE_PIECE;
    char count[24], whole[512], path[128];
    int r = runtimes_plan_file(language->code_file, "", run->req.text,
        len < HEAD_BYTES ? len : HEAD_BYTES, false, language, &look, &plan);
    if (r == 0)
        r = check_interpreter(run, ret, &plan, e);
    (void)snprintf(count, sizeof(count), "%zu", pieces);
    /* A language of the first kind, but with code too long for an argument, stays in its directory.
     */
    (void)snprintf(whole, sizeof(whole), "%s%sexec \"$@\"", script, option ? "" : "cd $d\n");
    const char *first[] = {"/bin/sh", "-c", whole, "sh", language->code_file, count};
    for (size_t i = 0; r == 0 && i < sizeof(first) / sizeof(first[0]); i++)
        r = list_adds(&ret->argv, first[i]);
    for (size_t i = 0; r == 0 && i < pieces; i++)
        r = list_add(&ret->argv, run->req.text + i * CODE_PIECE,
            len - i * CODE_PIECE < CODE_PIECE ? len - i * CODE_PIECE : CODE_PIECE);
    (void)snprintf(path, sizeof(path), CODE_DIR "/%s", language->code_file);
    if (r == 0 && option) {
        r = list_adds(&ret->argv, language->program);
        r = r < 0 ? r : list_adds(&ret->argv, path);
        r = r < 0 ? r : body_env_set(&ret->env, "PYTHONPATH", "/workspace");
    } else {
        for (size_t i = 0; r == 0 && i < plan.argc; i++)
            r = list_adds(&ret->argv, plan.argv[i]);
    }
    runtimes_plan_release(&plan);
    if (r == -ENOEXEC)
        return err_refuse(e, PROTO_NOT_RUNNABLE,
            "code in %s cannot be run by itself: put it into a file", language->name);
    return r;
}

static int plan_code(struct run *run, struct exec_plan *ret, struct err *e)
{
    const struct runtime_language *language = run->req.language;
    const char *option = inline_option(language);
    ret->language = language;
    if (!option || strlen(run->req.text) > CODE_PIECE)
        return plan_code_file(run, ret, option, e);
    struct runtimes_plan probe = {.interpreter = strdup(language->program)};
    int r = probe.interpreter ? check_interpreter(run, ret, &probe, e) : -ENOMEM;
    free(probe.interpreter);
    r = r < 0 ? r : list_adds(&ret->argv, language->program);
    r = r < 0 ? r : list_adds(&ret->argv, option);
    r = r < 0 ? r : list_adds(&ret->argv, run->req.text);
    /* For a shell the word after the code is its name, $0. */
    if (r == 0 && strcmp(language->name, "shell") == 0)
        r = list_adds(&ret->argv, language->program);
    return r;
}

static int plan_shell(struct run *run, struct exec_plan *ret)
{
    const char *const argv[] = {"/bin/sh", "-c", run->req.text, "sh"};
    int r = 0;
    for (size_t i = 0; r == 0 && i < sizeof(argv) / sizeof(argv[0]); i++)
        r = list_adds(&ret->argv, argv[i]);
    return r;
}

int exec_plan_make(struct run *run, struct exec_plan *ret, struct err *e)
{
    int r = make_env(run, ret, e);
    if (r == 0) {
        switch (run->req.what) {
        case EXEC_FILE:
            r = plan_file(run, ret, e);
            break;
        case EXEC_ARGV:
            r = list_add_all(&ret->argv, run->req.argv);
            break;
        case EXEC_SHELL:
            r = plan_shell(run, ret);
            break;
        case EXEC_CODE:
            r = plan_code(run, ret, e);
            break;
        }
    }
    if (r == 0)
        r = list_add_all(&ret->argv, run->req.args);
    if (r == 0 && asprintf(&ret->cwd, "/workspace%s%s", *run->req.cwd ? "/" : "", run->req.cwd) < 0)
        r = -ENOMEM;
    return r == -ENOMEM ? err_set(e, ENOMEM, "plan the run") : r;
}

void exec_plan_release(struct exec_plan *plan)
{
    body_texts_free(plan->argv);
    body_texts_free(plan->env);
    free(plan->cwd);
    free(plan->path);
    *plan = (struct exec_plan){.argv = NULL};
}
