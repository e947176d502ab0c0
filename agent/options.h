/* SPDX-License-Identifier: MIT */
/*
 * The command line: two tables, commands and options, from which parsing and every help text are
 * made. To add a command, add a row to the table in main.c and write its function in a cmd_*.c; to
 * add an option, add a row to the table in options.c and a member here.
 *
 * Global options stand before or after the command, but before the FILE of `run` and `watch --run`:
 * after FILE or `--` nothing is ours.
 */
#ifndef AGENT_OPTIONS_H
#define AGENT_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/err.h"

#define OPTIONS_ENV_MAX 512
#define OPTIONS_ON_MAX 64

struct options {
    /* global */
    const char *dir;    /* -C; "." by default */
    const char *server; /* NULL = not given */
    bool json, help;
    /* run */
    const char *env[OPTIONS_ENV_MAX + 1]; /* "K=V" */
    size_t env_count;
    const char *env_file;
    uint64_t timeout_ms, memory_bytes, max_output; /* 0 = the server's default */
    bool tty, no_tty, no_stdin, detach, no_sync;
    const char *view, *keep; /* NULL = not given */
    /* linking and syncing */
    const char *sandbox, *language, *image;
    bool yes, steal, allow_empty, verify;
    const char *run_file; /* watch --run FILE */
    const char *on[OPTIONS_ON_MAX]; /* watch --on GLOB */
    size_t on_count;
    uint64_t wait_ms;     /* flush and sync --timeout */
    /* pull */
    bool force, allow_delete, dry_run, conflicts;
    const char *to;
    /* logs, ps */
    bool follow, all;
    /* what is left: FILE and ARGS, a run's id, paths */
    char **args;
    size_t arg_count;
    bool after_dashes; /* the args stood behind `--`: a command, not a file */
};

enum { /* bits of option_spec.commands */
    CMD_RUN = 1 << 0,
    CMD_INIT = 1 << 1,
    CMD_SYNC = 1 << 2,
    CMD_WATCH = 1 << 3,
    CMD_STATUS = 1 << 4,
    CMD_FLUSH = 1 << 5,
    CMD_LS = 1 << 6,
    CMD_PS = 1 << 7,
    CMD_LOGS = 1 << 8,
    CMD_KILL = 1 << 9,
    CMD_STOP = 1 << 10,
    CMD_SANDBOX = 1 << 11,
    CMD_RM = 1 << 12,
    CMD_IGNORED = 1 << 13,
    CMD_DOCTOR = 1 << 14,
    CMD_HELP = 1 << 15,
    CMD_PULL = 1 << 16,
};

struct app;

struct command {
    const char *name;
    unsigned bit;
    const char *synopsis; /* "[OPTIONS] FILE [ARGS…]" */
    const char *summary;
    int (*run)(struct app *app); /* returns the exit code */
};

/* Parse argv. *ret_command is NULL when only global options were given (help is set, or nothing).
 * -EINVAL with a sentence that names the nearest command or option. */
int options_parse(int argc, char **argv, const struct command *commands, size_t command_count,
    struct options *ret, const struct command **ret_command, struct err *e) WARN_UNUSED;

/* Help for one command, or for all of them with command == NULL, onto standard output. */
void options_help(
    const struct command *commands, size_t command_count, const struct command *command);

#endif
