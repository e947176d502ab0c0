/* SPDX-License-Identifier: MIT */
#include "server/diagnose.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "shared/num.h"
#include "shared/text.h"

#include "shared/banned.h"

#define WORKSPACE "/workspace/"

/*
 * A rule matches when the tail holds `find` (and, with `language`, only for that language).
 * `name_open` and `name_close` cut a name out behind the match: a module, a file. `%s` in message
 * and hint is that name. Order matters: the first match wins, so that the special stands before the
 * general.
 */
struct rule {
    const char *code;
    const char *language; /* NULL = any */
    const char *find;
    const char
        *name_open; /* text right before the name, searched from the match on; NULL = no name */
    const char *name_close; /* characters that end the name */
    const char *message;
    const char *hint;
};

#define NO_NETWORK                                                                                 \
    "Runs have no network. Put what the program needs into the workspace or into /cache."
#define READ_ONLY "Only /workspace, /tmp, /dev/shm and /cache can be written to."
#define MODULE_HINT                                                                                \
    "If '%s' is a file of your project, check that it was synced (silt ignored PATH says why "     \
    "not); "                                                                                       \
    "if it is a package, put it into the workspace: runs have no network."

static const struct rule rules[] = {
    {"missing_module", "python", "ModuleNotFoundError: No module named", "'", "'",
        "Python found no module '%s'.", MODULE_HINT},
    {"missing_module", "python", "ImportError: cannot import name", "'", "'",
        "Python found no '%s' in the package it was asked of.", MODULE_HINT},
    {"missing_module", "node", "Cannot find module", "'", "'", "Node found no module '%s'.",
        MODULE_HINT},
    {"missing_module", "node", "Cannot find package", "'", "'",
        "Node found no package '%s'.", MODULE_HINT},
    {"missing_module", "ruby", "cannot load such file -- ", "-- ", " (\n",
        "Ruby found no file '%s' to load.", MODULE_HINT},
    {"missing_module", "perl", "Can't locate ", "locate ", " \n", "Perl found no module '%s'.",
        MODULE_HINT},
    {"missing_module", "go", "no required module provides package ", "package ", ";: \n",
        "Go found no package '%s'.",
        "Vendor it (go mod vendor) so that it is part of the workspace: runs have no network."},
    {"missing_module", "go", "is not in GOROOT", NULL, NULL, "Go found no such package.",
        "Check the import path; a package of your own needs a go.mod at the module's root."},
    {"no_network", NULL, "Temporary failure in name resolution", NULL, NULL,
        "The program asked for a host name, but there is no network.", NO_NETWORK},
    {"no_network", NULL, "Could not resolve host", NULL, NULL,
        "The program asked for a host name, but there is no network.", NO_NETWORK},
    {"no_network", NULL, "getaddrinfo EAI_AGAIN", NULL, NULL,
        "The program asked for a host name, but there is no network.", NO_NETWORK},
    {"no_network", NULL, "Network is unreachable", NULL, NULL,
        "The program opened a connection, but there is no network.", NO_NETWORK},
    {"read_only", NULL, "Read-only file system", NULL, NULL,
        "The program wrote to a place that is read-only.", READ_ONLY},
    {"no_space", NULL, "No space left on device", NULL, NULL, "A file system of the run was full.",
        "/tmp and /dev/shm are small and count as memory; large files belong into /workspace or "
        "/cache."},
    {"too_many_processes", NULL, "can't start new thread", NULL, NULL,
        "The program could not start another thread.",
        "Its limit of processes and threads is limits.pids."},
    {"too_many_processes", NULL, "Resource temporarily unavailable", NULL, NULL,
        "The program could not start another process.",
        "Its limit of processes and threads is limits.pids."},
    {"out_of_memory", NULL, "MemoryError", NULL, NULL, "The program ran out of memory.",
        "Raise limits.memory_bytes."},
    {"out_of_memory", NULL, "JavaScript heap out of memory", NULL, NULL,
        "The program ran out of memory.",
        "Raise limits.memory_bytes, or the heap's own limit (node --max-old-space-size)."},
    {"stdin_at_end", NULL, "EOFError: EOF when reading a line", NULL, NULL,
        "The program read from its standard input, which was at its end.",
        "Give it input: `stdin` in the request."},
    {"syntax_error", "python", "SyntaxError: ", NULL, NULL, "Python could not parse the file.", ""},
    {"syntax_error", "python", "IndentationError: ", NULL, NULL,
        "The indentation of the file is not consistent.", ""},
    {"syntax_error", "python", "TabError: ", NULL, NULL, "The file mixes tabs and blanks.", ""},
    {"syntax_error", "node", "SyntaxError: ", NULL, NULL, "Node could not parse the file.",
        ""},
    {"missing_file", "python", "FileNotFoundError: [Errno 2] No such file or directory: ", "'", "'",
        "The program opened '%s', which does not exist.",
        "Relative paths start at the working directory, /workspace unless `cwd` says otherwise."},
    {"permission_denied", NULL, "Permission denied", NULL, NULL,
        "The program was refused access to a file.",
        "A program that is run directly needs its executable bit; " READ_ONLY},
    {"compile_error", "c", "error: ", NULL, NULL, "The compiler refused the source.", ""},
    {"compile_error", "c++", "error: ", NULL, NULL, "The compiler refused the source.", ""},
    {"compile_error", "go", ".go:", NULL, NULL, "Go could not build or run the program.", ""},
    {"exception", "python", "Traceback (most recent call last)", NULL, NULL,
        "An exception ended the program.", ""},
    {"exception", "node", "    at ", NULL, NULL, "An exception ended the program.", ""},
};

static bool copy_name(const char *from, const char *end, const char *close, char *out, size_t size)
{
    size_t len = 0;
    while (from + len < end && !strchr(close, from[len]) && from[len] != '\n')
        len++;
    if (len == 0 || len >= size || !text_is_utf8(from, len))
        return false;
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)from[i] < 0x20 || from[i] == 0x7f)
            return false;
    }
    memcpy(out, from, len);
    out[len] = '\0';
    return true;
}

/* Replace the one %s of a template: they are our own, but never a format for printf. */
static void expand(const char *template, const char *name, char *out, size_t size)
{
    const char *mark = strstr(template, "%s");
    if (!mark)
        (void)snprintf(out, size, "%s", template);
    else
        (void)snprintf(out, size, "%.*s%s%s", (int)(mark - template), template, name, mark + 2);
}

/* The last occurrence: an output that went on for long ends with what ended it. */
static const char *find_last(const char *tail, size_t len, const char *what)
{
    const char *found = NULL;
    size_t what_len = strlen(what);
    const char *p = tail, *end = tail + len;
    while (p < end && (p = memmem(p, (size_t)(end - p), what, what_len)) != NULL)
        found = p++;
    return found;
}

static bool match_rule(
    const struct rule *rule, const struct diagnose_facts *f, struct diagnosis *ret)
{
    if (rule->language && (!f->language || strcmp(rule->language, f->language) != 0))
        return false;
    const char *at = find_last(f->tail, f->tail_len, rule->find);
    if (!at)
        return false;
    char name[200] = "";
    if (rule->name_open) {
        const char *end = f->tail + f->tail_len;
        size_t open_len = strlen(rule->name_open);
        const char *open = memmem(at, (size_t)(end - at), rule->name_open, open_len);
        if (!open || !copy_name(open + open_len, end, rule->name_close, name, sizeof(name)))
            return false;
    }
    ret->code = rule->code;
    (void)snprintf(ret->subject, sizeof(ret->subject), "%s", name);
    expand(rule->message, name, ret->message, sizeof(ret->message));
    expand(rule->hint, name, ret->hint, sizeof(ret->hint));
    return true;
}

/* Digits right at p. */
static unsigned read_line_number(const char *p, const char *end)
{
    unsigned n = 0;
    while (p < end && *p >= '0' && *p <= '9' && n < 100000000)
        n = n * 10 + (unsigned)(*p++ - '0');
    return n;
}

static bool place_at(const char *path, size_t len, unsigned line, struct diagnosis *ret)
{
    if (len == 0 || len >= sizeof(ret->file) || line == 0 || !text_is_utf8(path, len))
        return false;
    memcpy(ret->file, path, len);
    ret->file[len] = '\0';
    ret->line = line;
    return true;
}

/* Python: File "/workspace/a.py", line 3. The last one lies deepest in the user's own files. */
static bool find_python_place(const struct diagnose_facts *f, struct diagnosis *ret)
{
    static const char open[] = "File \"" WORKSPACE;
    static const char middle[] = "\", line ";
    const char *end = f->tail + f->tail_len;
    const char *at = find_last(f->tail, f->tail_len, open);
    if (!at)
        return false;
    at += sizeof(open) - 1;
    const char *close = memmem(at, (size_t)(end - at), middle, sizeof(middle) - 1);
    if (!close || memchr(at, '\n', (size_t)(close - at)))
        return false;
    return place_at(
        at, (size_t)(close - at), read_line_number(close + sizeof(middle) - 1, end), ret);
}

/* Compilers and stacks: [/workspace/]dir/name.ext:12. The first one: the others follow from it. */
static bool find_colon_place(const struct diagnose_facts *f, struct diagnosis *ret)
{
    const char *end = f->tail + f->tail_len;
    for (const char *p = f->tail; p < end; p++) {
        const char *colon = memchr(p, ':', (size_t)(end - p));
        if (!colon)
            return false;
        p = colon;
        unsigned line = read_line_number(colon + 1, end);
        const char *start = colon;
        while (start > f->tail && !strchr(" \t\n\"'()[]:", start[-1]) && start[-1] != '\0')
            start--;
        size_t len = (size_t)(colon - start);
        bool ours = len > sizeof(WORKSPACE) && memcmp(start, WORKSPACE, sizeof(WORKSPACE) - 1) == 0;
        if (ours) {
            start += sizeof(WORKSPACE) - 1;
            len -= sizeof(WORKSPACE) - 1;
        } else if (len > 2 && memcmp(start, "./", 2) == 0) {
            start += 2;
            len -= 2;
        }
        if (line > 0 && len > 2 && start[0] != '/' && memchr(start, '.', len) &&
            place_at(start, len, line, ret))
            return true;
    }
    return false;
}

static void find_place(const struct diagnose_facts *f, struct diagnosis *ret)
{
    if (f->language && strcmp(f->language, "python") == 0)
        (void)find_python_place(f, ret);
    else
        (void)find_colon_place(f, ret);
}

/* For an exception: its own last line says more than we could. */
static void add_last_line(const struct diagnose_facts *f, struct diagnosis *ret)
{
    const char *end = f->tail + f->tail_len;
    while (end > f->tail && (end[-1] == '\n' || end[-1] == '\r'))
        end--;
    const char *start = end;
    while (start > f->tail && start[-1] != '\n')
        start--;
    char line[200];
    if (copy_name(start, end, "", line, sizeof(line)))
        (void)snprintf(ret->message, sizeof(ret->message), "%s", line);
}

static bool say(struct diagnosis *ret, const char *code, const char *message, const char *hint)
{
    ret->code = code;
    (void)snprintf(ret->message, sizeof(ret->message), "%s", message);
    (void)snprintf(ret->hint, sizeof(ret->hint), "%s", hint);
    return true;
}

/* What the limits did is known for certain, whatever the output says. */
static bool diagnose_limits(const struct diagnose_facts *f, struct diagnosis *ret)
{
    char text[DIAGNOSE_TEXT_BYTES], size[32];
    if (f->oom_killed) {
        (void)snprintf(text, sizeof(text),
            "The program used more than its %s of memory and was killed.",
            num_human_bytes(f->memory_bytes, size, sizeof(size)));
        return say(
            ret, "out_of_memory", text, "Raise limits.memory_bytes; /tmp counts as memory too.");
    }
    if (f->cpu_limit_hit)
        return say(ret, "cpu_limit", "The program used up its CPU time and was killed.",
            "Raise limits.cpu_ms.");
    if (f->timed_out) {
        (void)snprintf(text, sizeof(text),
            "The program was still running after %.3g s and was killed.",
            (double)f->wall_ms / 1000.0);
        return say(ret, "timed_out", text,
            "Raise limits.wall_ms (silt run --timeout), or look for what it waited for.");
    }
    return false;
}

static bool diagnose_exit(const struct diagnose_facts *f, struct diagnosis *ret)
{
    char text[DIAGNOSE_TEXT_BYTES];
    if (f->signal == 11 || f->signal == 7)
        return say(ret, "crashed",
            "The program accessed memory that is not its own and was killed.",
            "Build it with -g -fsanitize=address to see where.");
    if (f->signal == 6)
        return say(ret, "aborted",
            "The program aborted itself (an assertion or a detected memory error).", "");
    if (f->pids_limit_hit) {
        (void)snprintf(text, sizeof(text),
            "The program reached its limit of %" PRIu64 " processes and threads.", f->pids);
        return say(ret, "too_many_processes", text, "Raise limits.pids.");
    }
    if (f->signal == 0 && f->exit_code == 127)
        return say(ret, "command_not_found",
            "A command of this run does not exist in the container.",
            "GET /v1/info lists the languages that are installed.");
    if (f->signal == 0 && f->exit_code == 126)
        return say(ret, "not_executable", "A command of this run exists but cannot be executed.",
            "Give the file its executable bit and a #! line.");
    return false;
}

bool diagnose(const struct diagnose_facts *f, struct diagnosis *ret)
{
    *ret = (struct diagnosis){.code = NULL};
    if (f->cancelled || (f->exit_code == 0 && f->signal == 0 && !f->timed_out && !f->oom_killed))
        return false;
    if (diagnose_limits(f, ret))
        return true;
    for (size_t i = 0; f->tail_len > 0 && i < sizeof(rules) / sizeof(rules[0]); i++) {
        if (!match_rule(&rules[i], f, ret))
            continue;
        find_place(f, ret);
        if (strcmp(ret->code, "exception") == 0 && f->language &&
            strcmp(f->language, "python") == 0)
            add_last_line(f, ret);
        return true;
    }
    return diagnose_exit(f, ret);
}
