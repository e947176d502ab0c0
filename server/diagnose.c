/* SPDX-License-Identifier: MIT */
#include "server/diagnose_internal.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "shared/num.h"

#include "shared/banned.h"

/* Replace the one %s of a template: they are our own, but never a format for printf. */
static void expand(const char *template, const char *name, char *out, size_t size)
{
    const char *mark = strstr(template, "%s");
    if (!mark)
        (void)snprintf(out, size, "%s", template);
    else
        (void)snprintf(out, size, "%.*s%s%s", (int)(mark - template), template, name, mark + 2);
}

/* "KeyError: X is the API_KEY" → "API_KEY", in place; false if the last word is no such name. */
static bool cut_variable(char *name)
{
    size_t len = strlen(name);
    while (len > 0 && strchr("'\"`:;,.", name[len - 1]))
        name[--len] = '\0';
    size_t start = len;
    while (start > 0 && !strchr(" \t'\"`$({", name[start - 1]))
        start--;
    memmove(name, name + start, len - start + 1);
    bool fine = strlen(name) >= 2 && !(name[0] >= '0' && name[0] <= '9');
    for (const char *p = name; fine && *p; p++)
        fine = (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') || *p == '_';
    return fine;
}

/* A shell, or a command that is no language's, starts programs of any language. */
static bool concerns(const struct diagnose_rule *rule, const char *language)
{
    if (!rule->language || (language && strcmp(rule->language, language) == 0))
        return true;
    return rule->need != DIAGNOSE_OWN && (!language || strcmp(language, "shell") == 0);
}

static bool match_rule(
    const struct diagnose_rule *rule, const struct diagnose_facts *f, struct diagnosis *ret)
{
    char name[sizeof(ret->subject)];
    if (!concerns(rule, f->language) || (rule->exit_code && rule->exit_code != f->exit_code) ||
        !diagnose_match(rule->find, f->tail, f->tail_len, name, sizeof(name)) ||
        (rule->need == DIAGNOSE_VARIABLE && !cut_variable(name)))
        return false;
    ret->code = rule->code;
    ret->by_version = rule->by_version;
    /* What a parser or a compiler said is a sentence, not a thing. */
    bool thing = strcmp(rule->code, "syntax_error") != 0 && strcmp(rule->code, "exception") != 0 &&
                 strcmp(rule->find, "error: %s") != 0;
    (void)snprintf(ret->subject, sizeof(ret->subject), "%s", thing ? name : "");
    expand(rule->message, name, ret->message, sizeof(ret->message));
    expand(rule->hint, name, ret->hint, sizeof(ret->hint));
    return true;
}

/* For an exception of Python: its own last line says more than we could. */
static void add_last_line(const struct diagnose_facts *f, struct diagnosis *ret)
{
    const char *end = f->tail + f->tail_len;
    while (end > f->tail && (end[-1] == '\n' || end[-1] == '\r'))
        end--;
    const char *start = end;
    while (start > f->tail && start[-1] != '\n')
        start--;
    char line[200];
    if (diagnose_copy(start, (size_t)(end - start), line, sizeof(line)))
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
    if (f->space_hit)
        return say(ret, "disk_quota", "The sandbox held more on disk than it may.",
            "Delete something in /workspace or /cache; how much it may hold is the server's "
            "setting "
            "workspace_size.");
    return false;
}

#define SANITIZE "Build it with -g -fsanitize=address to see where."

static bool diagnose_signal(int sig, struct diagnosis *ret)
{
    static const struct {
        int sig;
        const char *code, *message, *hint;
    } rows[] = {
        {SIGSEGV, "crashed", "The program accessed memory that is not its own and was killed.",
            SANITIZE},
        {SIGBUS, "crashed", "The program accessed memory that is not there and was killed.",
            SANITIZE},
        {SIGFPE, "crashed", "The program divided by zero, or calculated what has no result.",
            "Build it with -g -fsanitize=undefined to see where."},
        {SIGILL, "crashed", "The program executed what is no instruction of this processor.",
            "Was it built for another machine, or did it reach __builtin_unreachable?"},
        {SIGTRAP, "crashed", "The program hit a trap of its own.", ""},
        {SIGSYS, "crashed", "The program made a system call that runs may not make.", ""},
        {SIGXFSZ, "crashed", "The program made a file larger than a run may.",
            "The limit is the server's setting file_size."},
        {SIGABRT, "aborted",
            "The program aborted itself (an assertion or a detected memory error).", ""},
        {SIGPIPE, "crashed", "The program wrote into a pipe that nobody reads any more.", ""},
        {SIGKILL, "killed", "Something in the run killed the program.", ""},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (rows[i].sig == sig)
            return say(ret, rows[i].code, rows[i].message, rows[i].hint);
    }
    return false;
}

static bool diagnose_exit(const struct diagnose_facts *f, struct diagnosis *ret)
{
    char text[DIAGNOSE_TEXT_BYTES];
    if (f->signal != 0 && f->signal != SIGKILL && diagnose_signal(f->signal, ret))
        return true;
    if (f->pids_limit_hit) {
        (void)snprintf(text, sizeof(text),
            "The program reached its limit of %" PRIu64 " processes and threads.", f->pids);
        return say(ret, "too_many_processes", text, "Raise limits.pids.");
    }
    if (f->signal != 0)
        return diagnose_signal(f->signal, ret);
    if (f->exit_code == 127)
        return say(ret, "command_not_found",
            "A command of this run does not exist in the container.",
            "GET /v1/info lists the languages that are installed.");
    if (f->exit_code == 126)
        return say(ret, "not_executable", "A command of this run exists but cannot be executed.",
            "Give the file its executable bit and a #! line.");
    /* So a shell tells of a child's signal. */
    if (f->exit_code > 128 && f->exit_code != 128 + SIGPIPE)
        return diagnose_signal(f->exit_code - 128, ret);
    return false;
}

bool diagnose(const struct diagnose_facts *f, struct diagnosis *ret)
{
    *ret = (struct diagnosis){.code = NULL};
    if (f->cancelled ||
        (f->exit_code == 0 && f->signal == 0 && !f->timed_out && !f->oom_killed && !f->space_hit))
        return false;
    if (diagnose_limits(f, ret))
        return true;
    for (size_t i = 0; f->tail_len > 0 && i < diagnose_rule_count; i++) {
        if (!match_rule(&diagnose_rules[i], f, ret))
            continue;
        diagnose_place(f, ret);
        if (strcmp(ret->code, "exception") == 0 && f->language &&
            strcmp(f->language, "python") == 0)
            add_last_line(f, ret);
        return true;
    }
    if (!diagnose_exit(f, ret))
        return false;
    diagnose_place(f, ret);
    return true;
}
