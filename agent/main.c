/* SPDX-License-Identifier: MIT */
/* silt: keeps a project in sync with a sandbox and runs its files there. */
#include <stdio.h>
#include <string.h>

#include "agent/app.h"

#include "shared/banned.h"

static const struct command commands[] = {
    {"run", CMD_RUN, "[OPTIONS] FILE [ARGS…]  |  run [OPTIONS] -- CMD [ARGS…]",
        "Sync what changed, run a file or command in a fresh container", cmd_run},
    {"watch", CMD_WATCH, "[-d] | watch [--on GLOB…] --run FILE [ARGS…] | watch [--on GLOB…] -- CMD [ARGS…]",
        "Keep the workspace in sync while you edit; run after every change", cmd_watch},
    {"sync", CMD_SYNC, "", "Send what changed, once", cmd_sync},
    {"init", CMD_INIT, "[--sandbox ID] [--language NAME] [--image NAME]",
        "Link this project to a sandbox", cmd_init},
    {"pull", CMD_PULL, "[--conflicts [--to DIR]] [PATH…]",
        "Fetch what runs made or changed; what was changed here stays as it is", cmd_pull},
    {"status", CMD_STATUS, "", "Where the files go, what is pending, who watches", cmd_status},
    {"flush", CMD_FLUSH, "", "Wait until everything written so far is on its way; print its number",
        cmd_flush},
    {"stop", CMD_STOP, "", "End this project's watcher", cmd_stop},
    {"ignored", CMD_IGNORED, "PATH", "Tell why a path is not synced", cmd_ignored},
    {"ls", CMD_LS, "[PATH]", "List the files in the workspace", cmd_ls},
    {"ps", CMD_PS, "[-a]", "List this project's runs", cmd_ps},
    {"logs", CMD_LOGS, "[-f] [RUN]", "Print a run's output (the latest run's without RUN)",
        cmd_logs},
    {"kill", CMD_KILL, "RUN", "End a run", cmd_kill},
    {"sandbox", CMD_SANDBOX, "ls | info [ID] | rm [ID]", "List, show or delete sandboxes",
        cmd_sandbox},
    {"rm", CMD_RM, "", "Delete this project's sandbox and unlink the project", cmd_rm},
    {"doctor", CMD_DOCTOR, "", "Check everything that has to work, and say what does not",
        cmd_doctor},
    {"version", CMD_HELP, "", "Print the version", cmd_version},
    {"help", CMD_HELP, "[COMMAND]", "Explain a command", cmd_help},
};
#define COMMAND_COUNT (sizeof(commands) / sizeof(commands[0]))

int cmd_version(struct app *app)
{
    if (app->opt.json)
        out_json(json_pack("{s:s, s:i}", "version", SILT_VERSION, "protocol", PROTO_VERSION));
    else
        printf("silt %s (protocol %d)\n", SILT_VERSION, PROTO_VERSION);
    return EXIT_FINE;
}

int cmd_help(struct app *app)
{
    const struct command *asked = NULL;

    for (size_t i = 0; app->opt.arg_count > 0 && i < COMMAND_COUNT; i++)
        if (strcmp(commands[i].name, app->opt.args[0]) == 0)
            asked = &commands[i];
    if (app->opt.arg_count > 0 && !asked) {
        struct err e = ERR_INIT;
        (void)err_say(&e, 22, "there is no command '%s': `silt help` lists them", app->opt.args[0]);
        out_error(app, &e);
        return EXIT_USAGE;
    }
    options_help(commands, COMMAND_COUNT, asked);
    return EXIT_FINE;
}

int main(int argc, char **argv)
{
    struct app app = {.trouble_code = EXIT_TROUBLE};
    const struct command *command = NULL;
    struct err e = ERR_INIT;

    int r = options_parse(argc, argv, commands, COMMAND_COUNT, &app.opt, &command, &e);
    if (command && command->bit == CMD_RUN)
        app.trouble_code = EXIT_SILT;
    if (r < 0) {
        out_error(&app, &e);
        return app.trouble_code == EXIT_SILT ? EXIT_SILT : EXIT_USAGE;
    }
    if (!command || app.opt.help) {
        options_help(commands, COMMAND_COUNT, command);
        return command || app.opt.help ? EXIT_FINE : EXIT_USAGE;
    }
    if (app_init(&app, &e) < 0) {
        out_error(&app, &e);
        return app.trouble_code;
    }
    int code = command->run(&app);
    app_release(&app);
    return code;
}
