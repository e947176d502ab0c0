/* SPDX-License-Identifier: MIT */
/*
 * What every command of `silt` shares: its options, the way it talks to the user, its project and
 * the connection. The commands' functions stand here too; each lives in the cmd_*.c named beside
 * it.
 *
 * Printing happens only in main.c, out.c, progress.c and the commands.
 */
#ifndef AGENT_APP_H
#define AGENT_APP_H

#include <jansson.h>

#include "agent/client.h"
#include "agent/link.h"
#include "agent/options.h"
#include "agent/sync.h"

/* Exit codes of silt itself; a run's own code passes through. */
enum {
    EXIT_FINE = 0,
    EXIT_TROUBLE = 1,
    EXIT_USAGE = 2,
    EXIT_TIMED_OUT = 124,
    EXIT_SILT = 125,
    EXIT_CANNOT_RUN = 126,
    EXIT_NOT_FOUND = 127
};

struct app {
    struct options opt;
    char *cwd;  /* absolute, symlinks resolved: the shell's directory, or -C */
    char *root; /* the project's root, once app_link has found it */
    struct link link;
    bool linked;
    struct client *client;
    int trouble_code; /* what app_fail returns: 125 for run, else 1 */
};

/* ---- app.c */

/* Resolve cwd. */
int app_init(struct app *app, struct err *e) WARN_UNUSED;
void app_release(struct app *app);
/* Connect to the server that was named: --server, SILT_SERVER, the link's, the default. */
int app_connect(struct app *app, struct err *e) WARN_UNUSED;
/* The linked project of cwd, and a client for it. -ENOENT with a sentence when it is not linked; a
 * copied folder is refused with the two ways on. */
int app_need_link(struct app *app, struct err *e) WARN_UNUSED;
/* As app_need_link, but links an unlinked project (asking where agent/DESIGN.md says so) and tells about it.
 */
int app_auto_link(struct app *app, struct err *e) WARN_UNUSED;
/* What a user typed in cwd, as a path of the project at app->root, malloc'd; "" is the root. */
int app_project_path(const struct app *app, const char *text, char **ret, struct err *e) WARN_UNUSED;
/* Become the sandbox's writer (with --steal in place of another folder); else PROTO_LINKED_ELSEWHERE,
 * which names that one. */
int app_take_lease(struct app *app, struct err *e) WARN_UNUSED;
/* Make a new link to `sandbox` (NULL: a new sandbox is created). */
int app_make_link(struct app *app, const char *sandbox, struct err *e) WARN_UNUSED;
/* Print an error the way the user asked for (text or JSON) and return the exit code for it. */
int app_fail(const struct app *app, const struct err *e);
/* GET/POST/… a path with an optional JSON body; the parsed answer (new reference; NULL for 204). */
int app_rest(struct app *app, const char *method, const char *path, json_t *body, json_t **ret,
    struct err *e) WARN_UNUSED;

/* ---- out.c: words for people. All go to standard error but out_line. */
bool out_is_terminal(int fd);
/* Dimmed "silt: …" line; nothing in JSON mode. */
void out_note(const struct app *app, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A yes-or-no question on the terminal. Without a terminal: `unasked`. --yes answers yes. */
bool out_ask(const struct app *app, bool unasked, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* One JSON object on a line of standard output. Takes the reference. */
void out_json(json_t *object);
void out_error(const struct app *app, const struct err *e);
/* An escaped path, for lines on a terminal; valid until the fourth next call. Main thread only. */
const char *out_path(const char *path);

/* ---- commands */
int cmd_run(struct app *app);     /* run.c */
int cmd_init(struct app *app);    /* cmd_sync.c */
int cmd_sync(struct app *app);    /* cmd_sync.c */
int cmd_flush(struct app *app);   /* cmd_sync.c */
int cmd_ignored(struct app *app); /* cmd_sync.c */
int cmd_watch(struct app *app);   /* cmd_watch.c */
int cmd_stop(struct app *app);    /* cmd_watch.c */
int cmd_status(struct app *app);  /* cmd_status.c */
int cmd_doctor(struct app *app);  /* cmd_status.c */
int cmd_pull(struct app *app);    /* cmd_pull.c */
int cmd_ls(struct app *app);      /* cmd_rest.c */
int cmd_ps(struct app *app);      /* cmd_rest.c */
int cmd_kill(struct app *app);    /* cmd_rest.c */
int cmd_logs(struct app *app);    /* cmd_rest.c */
int cmd_sandbox(struct app *app); /* cmd_rest.c */
int cmd_rm(struct app *app);      /* cmd_rest.c */
int cmd_version(struct app *app); /* main.c */
int cmd_help(struct app *app);    /* main.c */

#endif
