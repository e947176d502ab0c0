/* SPDX-License-Identifier: MIT */
#include "agent/options.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "shared/num.h"
#include "shared/path.h"

#include "shared/banned.h"

#define ANY (~0u)
#define DAY_MS (UINT64_C(24) * 3600 * 1000)
#define NEAR_ENOUGH 3

struct option_spec {
    char letter; /* 0 = none */
    const char *name;
    const char *value; /* what the value is called in help; NULL = a switch */
    unsigned commands;
    const char *help;
    int (*set)(struct options *o, const char *value, struct err *e);
};

/* ---- one small setter per option */

#define SWITCH(member)                                                                             \
    static int set_##member(struct options *o, const char *value, struct err *e)                   \
    {                                                                                              \
        (void)value;                                                                               \
        (void)e;                                                                                   \
        o->member = true;                                                                          \
        return 0;                                                                                  \
    }
#define TEXT(member)                                                                               \
    static int set_##member(struct options *o, const char *value, struct err *e)                   \
    {                                                                                              \
        (void)e;                                                                                   \
        o->member = value;                                                                         \
        return 0;                                                                                  \
    }

SWITCH(json)
SWITCH(help)
SWITCH(tty)
SWITCH(no_tty)
SWITCH(no_stdin)
SWITCH(detach)
SWITCH(no_sync)
SWITCH(yes)
SWITCH(steal)
SWITCH(allow_empty)
SWITCH(verify)
SWITCH(follow)
SWITCH(all)
SWITCH(force)
SWITCH(allow_delete)
SWITCH(dry_run)
SWITCH(conflicts)
TEXT(to)
TEXT(dir)
TEXT(server)
TEXT(env_file)
TEXT(sandbox)
TEXT(language)
TEXT(image)
TEXT(run_file)

static int set_env(struct options *o, const char *value, struct err *e)
{
    if (!strchr(value, '=') || value[0] == '=')
        return err_say(e, EINVAL, "-e %s: give it as NAME=VALUE", value);
    if (o->env_count == OPTIONS_ENV_MAX)
        return err_say(e, EINVAL, "more than %d -e options: put them into a file for --env-file",
            OPTIONS_ENV_MAX);
    o->env[o->env_count++] = value;
    return 0;
}

static int set_on(struct options *o, const char *value, struct err *e)
{
    if (!*value || o->on_count == OPTIONS_ON_MAX)
        return err_say(e, EINVAL, "--on: give a glob such as '*.py' or 'src', at most %d times",
            OPTIONS_ON_MAX);
    o->on[o->on_count++] = value;
    return 0;
}

static int set_timeout(struct options *o, const char *value, struct err *e)
{
    if (num_duration_ms(value, 30 * DAY_MS, &o->timeout_ms) < 0 || o->timeout_ms == 0)
        return err_say(
            e, EINVAL, "--timeout %s: give a duration such as 500ms, 60s, 5m or 1h", value);
    return 0;
}

static int set_memory(struct options *o, const char *value, struct err *e)
{
    if (num_bytes(value, UINT64_C(1) << 50, &o->memory_bytes) < 0 || o->memory_bytes == 0)
        return err_say(e, EINVAL, "--memory %s: give a size such as 512M or 1G", value);
    return 0;
}

static int set_max_output(struct options *o, const char *value, struct err *e)
{
    if (num_bytes(value, UINT64_C(1) << 40, &o->max_output) < 0 || o->max_output == 0)
        return err_say(e, EINVAL, "--max-output %s: give a size such as 64K or 10M", value);
    return 0;
}

static int set_wait(struct options *o, const char *value, struct err *e)
{
    if (num_duration_ms(value, DAY_MS, &o->wait_ms) < 0)
        return err_say(e, EINVAL, "--timeout %s: give a duration such as 500ms or 10s", value);
    return 0;
}

static int set_view(struct options *o, const char *value, struct err *e)
{
    if (strcmp(value, "live") != 0 && strcmp(value, "snapshot") != 0)
        return err_say(e, EINVAL, "--view %s: give live or snapshot", value);
    o->view = value;
    return 0;
}

static int set_keep(struct options *o, const char *value, struct err *e)
{
    bool known = strcmp(value, "always") == 0 || strcmp(value, "never") == 0 ||
                 strcmp(value, "on-success") == 0 || strcmp(value, "on_success") == 0;
    if (!known)
        return err_say(e, EINVAL, "--keep %s: give always, on-success or never", value);
    o->keep = strcmp(value, "on-success") == 0 ? "on_success" : value;
    return 0;
}

#define LINKING (CMD_RUN | CMD_INIT | CMD_SYNC | CMD_WATCH)

static const struct option_spec specs[] = {
    {'C', "directory", "DIR", ANY, "act as if started in DIR", set_dir},
    {0, "server", "URL", ANY, "the server; else SILT_SERVER, the link, 127.0.0.1:7458", set_server},
    {0, "json", NULL, ANY, "print JSON; errors as an object on standard error", set_json},
    {'h', "help", NULL, ANY, "this help", set_help},
    {'e', "env", "NAME=VALUE", CMD_RUN | CMD_WATCH, "set a variable for the program (repeatable)",
        set_env},
    {0, "env-file", "FILE", CMD_RUN | CMD_WATCH,
        "set the variables listed in FILE, one NAME=VALUE a line", set_env_file},
    {0, "timeout", "60s", CMD_RUN | CMD_WATCH, "end the program after this long (exit code 124)",
        set_timeout},
    {0, "memory", "1G", CMD_RUN | CMD_WATCH, "most memory for all its processes together",
        set_memory},
    {0, "max-output", "N", CMD_RUN | CMD_WATCH, "keep at most N bytes of each output",
        set_max_output},
    {0, "view", "WHICH", CMD_RUN | CMD_WATCH,
        "live: the workspace itself (usual); snapshot: as it is now, whatever is sent meanwhile",
        set_view},
    {0, "keep", "WHEN", CMD_RUN | CMD_WATCH,
        "what a run with a snapshot wrote: always (usual), on-success or never (both imply it)",
        set_keep},
    {'t', "tty", NULL, CMD_RUN,
        "give the program a terminal; by itself when standard output is one", set_tty},
    {'T', "no-tty", NULL, CMD_RUN, "give it none, also when standard output is one", set_no_tty},
    {'n', "no-stdin", NULL, CMD_RUN,
        "leave standard input alone: the program finds its at the end", set_no_stdin},
    {'d', "detach", NULL, CMD_RUN | CMD_WATCH,
        "go on in the background: a run prints its id, a watcher leaves", set_detach},
    {0, "no-sync", NULL, CMD_RUN, "run what the workspace holds, sending nothing", set_no_sync},
    {0, "run", "FILE", CMD_WATCH, "run FILE after every change (a command: after `--`)",
        set_run_file},
    {0, "on", "GLOB", CMD_WATCH,
        "run again only for changes of such paths: '*.py', 'src', 'src/**/*.c' (repeatable)", set_on},
    {0, "sandbox", "ID", CMD_INIT, "link to this existing sandbox", set_sandbox},
    {0, "language", "NAME", CMD_INIT, "the sandbox's language, for files whose name does not tell",
        set_language},
    {0, "image", "NAME", CMD_INIT,
        "the image that the sandbox's programs run in; also for a project that is linked already",
        set_image},
    {'y', "yes", NULL, LINKING | CMD_SANDBOX | CMD_RM, "answer every question with yes", set_yes},
    {0, "steal", NULL, LINKING, "take the sandbox over from another linked folder", set_steal},
    {0, "allow-empty", NULL, CMD_SYNC | CMD_WATCH | CMD_RUN,
        "let an emptied project empty the workspace", set_allow_empty},
    {0, "verify", NULL, CMD_SYNC,
        "read every file again and prove that both sides are the same", set_verify},
    {0, "timeout", "10s", CMD_FLUSH | CMD_SYNC, "give up after this long", set_wait},
    {0, "delete", NULL, CMD_PULL, "delete here what runs deleted there", set_allow_delete},
    {0, "force", NULL, CMD_PULL, "also over what was changed here", set_force},
    {0, "conflicts", NULL, CMD_PULL,
        "fetch the versions that gave way to edits made here, as NAME.conflict-RUN.EXT",
        set_conflicts},
    {0, "to", "DIR", CMD_PULL, "with --conflicts: into DIR and not beside the files", set_to},
    {'n', "dry-run", NULL, CMD_PULL, "tell what would be done, and do nothing", set_dry_run},
    {'f', "follow", NULL, CMD_LOGS, "go on while the run goes on", set_follow},
    {'a', "all", NULL, CMD_PS, "runs of every sandbox", set_all},
};
#define SPEC_COUNT (sizeof(specs) / sizeof(specs[0]))

static const struct option_spec *find_option(
    const char *name, size_t len, char letter, unsigned bit)
{
    for (size_t i = 0; i < SPEC_COUNT; i++) {
        const struct option_spec *s = &specs[i];
        bool same = name ? strlen(s->name) == len && memcmp(s->name, name, len) == 0
                         : letter != 0 && s->letter == letter;
        if (same && (s->commands & bit))
            return s;
    }
    return NULL;
}

static int unknown_option(const char *text, const struct command *command, struct err *e)
{
    const char *best = NULL;
    unsigned best_distance = NEAR_ENOUGH;

    for (size_t i = 0; i < SPEC_COUNT; i++) {
        unsigned distance = path_distance(specs[i].name, text);
        if ((!command || (specs[i].commands & command->bit)) && distance < best_distance) {
            best = specs[i].name;
            best_distance = distance;
        }
    }
    const char *name = command ? command->name : "";
    if (best)
        return err_say(
            e, EINVAL, "unknown option '%s': did you mean --%s? (silt help %s)", text, best, name);
    return err_say(e, EINVAL, "unknown option '%s': `silt help %s` lists them", text, name);
}

/* One word that starts with a dash, at argv[*at]; may take its value from the next word. */
static int take_option(
    int argc, char **argv, int *at, const struct command *command, struct options *o, struct err *e)
{
    const char *word = argv[*at];
    const char *value = NULL;
    const struct option_spec *spec;
    unsigned bit = command ? command->bit : CMD_HELP;

    if (word[1] == '-') {
        const char *equals = strchr(word, '=');
        size_t len = equals ? (size_t)(equals - word) - 2 : strlen(word) - 2;
        spec = find_option(word + 2, len, 0, bit);
        value = equals ? equals + 1 : NULL;
    } else {
        spec = find_option(NULL, 0, word[1], bit);
        if (spec && word[2] != '\0') {
            if (!spec->value)
                return unknown_option(word, command, e);
            value = word + 2;
        }
    }
    if (!spec)
        return unknown_option(word, command, e);
    if (!spec->value && value)
        return err_say(e, EINVAL, "--%s takes no value", spec->name);
    if (spec->value && !value) {
        if (*at + 1 >= argc)
            return err_say(e, EINVAL, "%s needs a value: %s %s", word, word, spec->value);
        value = argv[++*at];
    }
    return spec->set(o, value, e);
}

static int find_command(const char *name, const struct command *commands, size_t count,
    const struct command **ret, struct err *e)
{
    const char *best = NULL;
    unsigned best_distance = NEAR_ENOUGH;

    for (size_t i = 0; i < count; i++) {
        if (strcmp(commands[i].name, name) == 0) {
            *ret = &commands[i];
            return 0;
        }
        unsigned distance = path_distance(commands[i].name, name);
        if (distance < best_distance) {
            best = commands[i].name;
            best_distance = distance;
        }
    }
    if (best)
        return err_say(e, EINVAL, "there is no command '%s': did you mean `silt %s`?", name, best);
    return err_say(e, EINVAL,
        "there is no command '%s': `silt help` lists them; to run a file: silt run %s", name, name);
}

int options_parse(int argc, char **argv, const struct command *commands, size_t command_count,
    struct options *ret, const struct command **ret_command, struct err *e)
{
    size_t kept = 0;
    int at = 1, r = 0;

    *ret = (struct options){.dir = "."};
    *ret_command = NULL;
    ret->args = argv;
    for (; at < argc && r == 0; at++) {
        const char *word = argv[at];
        bool option = word[0] == '-' && word[1] != '\0';

        if (option && strcmp(word, "--") == 0) {
            ret->after_dashes = true;
            at++;
            break;
        }
        if (option && !*ret_command && strcmp(word, "--version") == 0)
            return find_command("version", commands, command_count, ret_command, e);
        if (option)
            r = take_option(argc, argv, &at, *ret_command, ret, e);
        else if (!*ret_command)
            r = find_command(word, commands, command_count, ret_command, e);
        else {
            /* argv[0 … kept) is free to hold the words that are kept: at is always ahead of it. */
            argv[kept++] = argv[at];
            if ((*ret_command)->bit == CMD_RUN) {
                at++;
                break;
            }
        }
    }
    if (r < 0)
        return r;
    while (at < argc)
        argv[kept++] = argv[at++];
    ret->arg_count = kept;
    return 0;
}

/* ---- help */

static void print_options(unsigned bit, bool global)
{
    for (size_t i = 0; i < SPEC_COUNT; i++) {
        const struct option_spec *s = &specs[i];
        char left[64];
        char letter[8] = "    ";

        if ((s->commands == ANY) != global || !(s->commands & bit))
            continue;
        if (s->letter)
            (void)snprintf(letter, sizeof(letter), "-%c, ", s->letter);
        (void)snprintf(left, sizeof(left), "%s--%s%s%s", letter, s->name, s->value ? " " : "",
            s->value ? s->value : "");
        printf("  %-28s %s\n", left, s->help);
    }
}

void options_help(
    const struct command *commands, size_t command_count, const struct command *command)
{
    if (command && command->bit != CMD_HELP) {
        printf(
            "silt %s %s\n\n%s.\n\nOptions\n", command->name, command->synopsis, command->summary);
        print_options(command->bit, false);
        printf("\nGlobal options\n");
        print_options(command->bit, true);
        return;
    }
    printf("silt keeps a project in sync with a sandbox on a server and runs its files there,\n"
           "each run in a fresh container.\n\n"
           "    silt run main.py        sync what changed, run it, print its output\n"
           "    silt watch              keep syncing while you edit\n\nCommands\n");
    for (size_t i = 0; i < command_count; i++)
        printf("  %-10s %s\n", commands[i].name, commands[i].summary);
    printf("\nGlobal options\n");
    print_options(CMD_HELP, true);
    printf("\n`silt help COMMAND` tells more. A server is started with `siltd`.\n");
}
