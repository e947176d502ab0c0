/* SPDX-License-Identifier: MIT */
#include "server/runtimes.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared/path.h"
#include "shared/weaken.h"

#include "shared/banned.h"

#define WORKSPACE "/workspace"
#define OUTPUT "/tmp/.silt-program" /* of a compiler: /tmp is fresh in every container */
#define SHEBANG_MAX 255             /* bytes of a #! line that are looked at, as the kernel does */

/*
 * The scripts are constant; names reach them as arguments, never as text. `go run` is not used: it
 * turns every failure into exit code 1. A folder in which several files define main is a collection
 * of programs, not one package, so only the named file is built. Compilers write to standard error,
 * so that standard output is the program's alone. $1 folder, $2 file in it, then the program's.
 */
#define GO_SCRIPT                                                                                  \
    "d=$1 f=$2; shift 2; here=$PWD; cd \"$d\" || exit 126; what=.; "                               \
    "[ \"$(grep -ls '^func main()' ./*.go | grep -vc '_test\\.go$')\" -gt 1 ] && what=./$f; "      \
    "m=$PWD; while [ -n \"$m\" ] && ! [ -f \"$m/go.mod\" ]; do m=${m%/*}; done; "                  \
    "[ -n \"$m\" ] || export GO111MODULE=off; "                                                    \
    "go build -buildvcs=false -o " OUTPUT " \"$what\" >&2 || exit; "                               \
    "cd \"$here\" && exec " OUTPUT " \"$@\""

/* $3 compiler, $4 extension. */
#define CC_SCRIPT                                                                                  \
    "d=$1 f=$2 cc=$3 e=$4; shift 4; here=$PWD; cd \"$d\" || exit 126; "                            \
    "if [ \"$(grep -lsE '^[a-z ]*main *\\(' ./*\"$e\" | grep -c .)\" -gt 1 ]; then "               \
    "\"$cc\" -O1 -g -o " OUTPUT " \"./$f\" -lm >&2 || exit; "                                      \
    "else \"$cc\" -O1 -g -o " OUTPUT " ./*\"$e\" -lm >&2 || exit; fi; "                            \
    "cd \"$here\" && exec " OUTPUT " \"$@\""

/* The program that make built: named after the file, the folder, or by custom. */
#define MAKE_SCRIPT                                                                                \
    "d=$1 f=$2; shift 2; here=$PWD; cd \"$d\" || exit 126; make -s >&2 || exit; "                  \
    "for p in \"${f%.*}\" \"${PWD##*/}\" main a.out; do if [ -f \"$p\" ] && [ -x \"$p\" ]; then "  \
    "p=$PWD/$p; cd \"$here\" && exec \"$p\" \"$@\"; fi; done; "                                    \
    "echo \"silt: make built no ${f%.*}, ${PWD##*/}, main or a.out in $PWD\" >&2; exit 126"

/* How a language runs a file. */
enum way { WAY_INTERPRETER, WAY_SHELL, WAY_GO, WAY_CC };

#define TEXTS(...) ((const char *const[]){__VA_ARGS__, NULL})

static const struct runtime_language languages[] = {
    {"python", TEXTS("py", "python3"), TEXTS(".py"), "python3", "main.py",
        TEXTS("python3", "--version")},
    {"node", TEXTS("javascript", "js", "nodejs"), TEXTS(".js", ".mjs", ".cjs"), "node", "main.js",
        TEXTS("node", "--version")},
    {"go", TEXTS("golang"), TEXTS(".go"), "go", "main.go", TEXTS("go", "version")},
    {"shell", TEXTS("sh", "bash"), TEXTS(".sh", ".bash"), "sh", "main.sh",
        TEXTS("sh", "-c", "echo sh")},
    {"ruby", TEXTS("rb"), TEXTS(".rb"), "ruby", "main.rb", TEXTS("ruby", "--version")},
    {"perl", TEXTS("pl"), TEXTS(".pl"), "perl", "main.pl",
        TEXTS("perl", "-e", "print \"perl $^V\\n\"")},
    {"c", TEXTS("gcc"), TEXTS(".c"), "cc", "main.c", TEXTS("cc", "--version")},
    {"c++", TEXTS("cpp", "cxx"), TEXTS(".cpp", ".cc", ".cxx"), "c++", "main.cpp",
        TEXTS("c++", "--version")},
};
#define COUNT (sizeof languages / sizeof languages[0])

/* In the same order. */
static const enum way ways[COUNT] = {WAY_INTERPRETER, WAY_INTERPRETER, WAY_GO, WAY_SHELL,
    WAY_INTERPRETER, WAY_INTERPRETER, WAY_CC, WAY_CC};

static enum way way_of(const struct runtime_language *language)
{
    return ways[language - languages];
}

const struct runtime_language *runtimes_all(size_t *ret_count)
{
    *ret_count = COUNT;
    return languages;
}

bool runtimes_version(const char *answer, char out[RUNTIMES_VERSION_BYTES])
{
    for (const char *p = answer; *p; p++) {
        size_t len = strspn(p, "0123456789.");
        if (!isdigit((unsigned char)*p) || !memchr(p, '.', len)) {
            p += len > 0 ? len - 1 : 0;
            continue;
        }
        while (len > 0 && p[len - 1] == '.')
            len--;
        if (len == 0 || len >= RUNTIMES_VERSION_BYTES)
            return false;
        memcpy(out, p, len);
        out[len] = '\0';
        return true;
    }
    return false;
}

static bool is_one_of(const char *const *list, const char *text)
{
    for (; *list; list++) {
        if (!strcmp(*list, text))
            return true;
    }
    return false;
}

const struct runtime_language *runtimes_by_name(const char *name)
{
    for (size_t i = 0; i < COUNT; i++) {
        if (!strcmp(languages[i].name, name) || is_one_of(languages[i].aliases, name))
            return &languages[i];
    }
    return NULL;
}

const struct runtime_language *runtimes_by_program(const char *program)
{
    for (size_t i = 0; i < COUNT; i++) {
        if (!strcmp(languages[i].program, program))
            return &languages[i];
    }
    return NULL;
}

const struct runtime_language *runtimes_by_extension(const char *path)
{
    const char *base = path_base(path), *dot = strrchr(base, '.');
    if (!dot || dot == base)
        return NULL;
    for (size_t i = 0; i < COUNT; i++) {
        if (is_one_of(languages[i].extensions, dot))
            return &languages[i];
    }
    return NULL;
}

void runtimes_plan_release(struct runtimes_plan *plan)
{
    for (size_t i = 0; i < plan->argc; i++)
        free(plan->argv[i]);
    free(plan->interpreter);
    *plan = (struct runtimes_plan){.argc = 0};
}

static int add(struct runtimes_plan *plan, const char *text, size_t len)
{
    if (plan->argc >= RUNTIMES_ARGV_MAX)
        return -E2BIG;
    char *copy = strndup(text, len);
    if (!copy)
        return -ENOMEM;
    plan->argv[plan->argc++] = copy;
    return 0;
}

static int add_text(struct runtimes_plan *plan, const char *text)
{
    return add(plan, text, strlen(text));
}

/*
 * A name as it looks from cwd, malloc'd: relative if it lies beneath, absolute otherwise. With
 * `slash` it holds one, so that it is neither an option, nor a subcommand, nor looked up in PATH.
 */
static char *seen_from(const char *cwd, const char *path, bool slash)
{
    bool beneath = path_beneath(cwd, path);
    const char *rest = path + (beneath && *cwd ? strlen(cwd) : 0);
    while (*rest == '/')
        rest++;
    if (!beneath)
        return path_join(WORKSPACE, path);
    if (!*rest)
        return strdup(".");
    return slash ? path_join(".", rest) : strdup(rest);
}

static int add_seen(struct runtimes_plan *plan, const char *cwd, const char *path, bool slash)
{
    CLEANUP(freep) char *name = seen_from(cwd, path, slash);
    return name ? add_text(plan, name) : -ENOMEM;
}

/* A plain "main.py" reads best in sys.argv and tracebacks; whatever could be taken for an option or
 * a subcommand gets "./". */
static int add_script(struct runtimes_plan *plan, const char *cwd, const char *path)
{
    CLEANUP(freep) char *name = seen_from(cwd, path, false);
    if (!name)
        return -ENOMEM;
    bool plain = WEAK("dash") || (name[0] != '-' && strpbrk(name, "./"));
    return plain ? add_text(plan, name) : add_seen(plan, cwd, path, true);
}

static int need(struct runtimes_plan *plan, const char *program)
{
    plan->interpreter = strdup(program);
    return plan->interpreter ? 0 : -ENOMEM;
}

/* The folder's name as a path of the workspace, malloc'd. */
static char *folder_of(const char *path)
{
    return strndup(path, path_parent_len(path));
}

/* sh -c SCRIPT silt FOLDER FILE */
static int add_build(
    struct runtimes_plan *plan, const char *script, const char *cwd, const char *path)
{
    CLEANUP(freep) char *folder = folder_of(path);
    if (!folder)
        return -ENOMEM;
    int r;
    if ((r = add_text(plan, "sh")) < 0 || (r = add_text(plan, "-c")) < 0 ||
        (r = add_text(plan, script)) < 0 || (r = add_text(plan, "silt")) < 0 ||
        (r = add_seen(plan, cwd, folder, true)) < 0)
        return r;
    return add_text(plan, path_base(path));
}

static bool has_makefile(const char *path, const struct runtimes_look *look)
{
    static const char *const names[] = {"GNUmakefile", "makefile", "Makefile", NULL};
    CLEANUP(freep) char *folder = folder_of(path);
    for (const char *const *n = names; folder && look && *n; n++) {
        CLEANUP(freep) char *file = path_join(folder, *n);
        if (file && look->exists(look->ctx, file))
            return true;
    }
    return false;
}

static int plan_cc(
    struct runtimes_plan *plan, const char *cwd, const char *path, const struct runtimes_look *look)
{
    int r;
    if (has_makefile(path, look)) {
        r = add_build(plan, MAKE_SCRIPT, cwd, path);
        return r < 0 ? r : need(plan, "make");
    }
    if ((r = add_build(plan, CC_SCRIPT, cwd, path)) < 0 ||
        (r = add_text(plan, plan->language->program)) < 0 ||
        (r = add_text(plan, strrchr(path_base(path), '.'))) < 0)
        return r;
    return need(plan, plan->language->program);
}

/* The next word of a line. */
static size_t word(const char **text)
{
    *text += strspn(*text, " \t");
    return strcspn(*text, " \t");
}

/* The program that a #! line needs: of "/usr/bin/env -S NAME=x python3 -u" it is python3. */
static int need_of_shebang(struct runtimes_plan *plan, const char *program, const char *argument)
{
    const char *w = argument;
    size_t len = 0;
    if (strcmp(path_base(program), "env") != 0)
        return need(plan, program);
    while ((len = word(&w)) > 0 && (w[0] == '-' || memchr(w, '=', len)))
        w += len;
    plan->interpreter = len > 0 ? strndup(w, len) : strdup(program);
    return plan->interpreter ? 0 : -ENOMEM;
}

static bool has_shebang(const void *head, size_t len)
{
    return len > 2 && !memcmp(head, "#!", 2);
}

/* What the kernel would do with "#! PROGRAM ARGUMENT", but for files without the x bit too, and for
 * lines that end in CR LF. -ENOEXEC for an empty one. */
static int plan_shebang(struct runtimes_plan *plan, const char *cwd, const char *path,
    const void *head, size_t head_len)
{
    char line[SHEBANG_MAX + 1];
    size_t len = head_len - 2 < SHEBANG_MAX ? head_len - 2 : SHEBANG_MAX;
    memcpy(line, (const char *)head + 2, len);
    line[len] = '\0';
    len = strcspn(line, "\r\n");
    while (len > 0 && (line[len - 1] == ' ' || line[len - 1] == '\t'))
        len--;
    line[len] = '\0';
    const char *program = line;
    size_t program_len = word(&program);
    if (program_len == 0)
        return -ENOEXEC;
    const char *argument = program + program_len;
    argument += strspn(argument, " \t");
    int r = add(plan, program, program_len);
    if (r == 0 && *argument)
        r = add_text(plan, argument);
    if (r == 0)
        r = add_seen(plan, cwd, path, true);
    return r < 0 ? r : need_of_shebang(plan, plan->argv[0], argument);
}

static int plan_language(struct runtimes_plan *plan, const struct runtime_language *language,
    const char *cwd, const char *path, const void *head, size_t head_len,
    const struct runtimes_look *look)
{
    int r;
    enum way way = way_of(language);
    plan->language = language;
    if (way == WAY_CC)
        return plan_cc(plan, cwd, path, look);
    if (way == WAY_GO) {
        r = add_build(plan, GO_SCRIPT, cwd, path);
        return r < 0 ? r : need(plan, language->program);
    }
    /* Many a script.sh is written for bash and says so. */
    if (way == WAY_SHELL && has_shebang(head, head_len))
        return plan_shebang(plan, cwd, path, head, head_len);
    if ((r = add_text(plan, language->program)) < 0 || (r = add_script(plan, cwd, path)) < 0)
        return r;
    return need(plan, language->program);
}

static int plan_any(const char *path, const char *cwd, const void *head, size_t head_len,
    bool executable, const struct runtime_language *sandbox_language,
    const struct runtimes_look *look, struct runtimes_plan *plan)
{
    const struct runtime_language *language = runtimes_by_extension(path);
    if (language)
        return plan_language(plan, language, cwd, path, head, head_len, look);
    if (has_shebang(head, head_len))
        return plan_shebang(plan, cwd, path, head, head_len);
    if (head_len >= 4 && !memcmp(head, "\177ELF", 4))
        return executable ? add_seen(plan, cwd, path, true) : -ENOEXEC;
    /* Compilers go by the extension, so only interpreters take a file without one. */
    if (sandbox_language &&
        (way_of(sandbox_language) == WAY_INTERPRETER || way_of(sandbox_language) == WAY_SHELL))
        return plan_language(plan, sandbox_language, cwd, path, head, head_len, look);
    return -ENOEXEC;
}

int runtimes_plan_file(const char *path, const char *cwd, const void *head, size_t head_len,
    bool executable, const struct runtime_language *sandbox_language,
    const struct runtimes_look *look, struct runtimes_plan *ret)
{
    *ret = (struct runtimes_plan){.argc = 0};
    int r = plan_any(path, cwd, head, head_len, executable, sandbox_language, look, ret);
    if (r < 0)
        runtimes_plan_release(ret);
    return r;
}
