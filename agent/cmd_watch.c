/* SPDX-License-Identifier: MIT */
/* watch and stop: the watcher of a project, in the foreground or behind. */
#include "agent/cmd_watch.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "agent/control.h"
#include "agent/talk.h"
#include "agent/why.h"
#include "shared/io.h"
#include "shared/num.h"
#include "shared/path.h"

#include "shared/banned.h"

#define START_WAIT_MS 20000
#define STOP_WAIT_MS 5000
#define EBUSY_CODE 75 /* of a watcher that found another one: EX_TEMPFAIL */

static volatile sig_atomic_t stop_wanted;

static void on_stop(int sig)
{
    (void)sig;
    stop_wanted = 1;
}

/* ---- what the loop tells */

static void print_sent(const struct sync_totals *t, const char *text)
{
    char now[16], sent[16];
    time_t seconds = time(NULL);
    struct tm local;

    (void)strftime(now, sizeof(now), "%H:%M:%S", localtime_r(&seconds, &local));
    printf("%s  %s%s+%u ~%u -%u  %s in %.1f ms\n", now, text ? text : "", text ? "  " : "",
        t->created, t->updated + t->moved, t->deleted,
        num_human_bytes(t->bytes_sent, sent, sizeof(sent)), t->elapsed_ms);
    (void)fflush(stdout);
}

static void on_said(
    void *ctx, enum sync_said what, const struct sync_totals *totals, const char *text)
{
    const struct app *app = ctx;

    if (app->opt.json)
        out_json(sync_said_json(what, totals, text));
    else if (what == SYNC_SAID_SENT && totals)
        print_sent(totals, text);
    else if (what == SYNC_SAID_READY)
        printf("watching %s → %s (Ctrl-C stops)\n", out_path(app->root), app->link.sandbox);
    else if (text)
        out_note(app, "%s", text);
    (void)fflush(stdout);
}

static bool watcher_answers(const struct app *app, json_t **ret)
{
    struct err ignored = ERR_INIT;
    json_t *ask = json_pack("{s:s}", "op", "status");
    int r = control_request(app->root, ask, 2000, ret, &ignored);

    json_decref(ask);
    return r == 0;
}

/* The project's lock may be another watcher's, which keeps it, or a command's that syncs. */
static int open_for_watching(
    struct app *app, const struct sync_config *config, struct sync **ret, struct err *e)
{
    uint64_t until = io_now_ns() + START_WAIT_MS * UINT64_C(1000000);

    for (;;) {
        json_t *status = NULL;
        int r = sync_open(config, ret, e);
        if (r != -EBUSY || stop_wanted || io_now_ns() >= until)
            return r;
        if (watcher_answers(app, &status)) {
            json_decref(status);
            return err_say(e, EBUSY,
                "%s is watched already (silt status tells by whom, silt stop ends it)", app->root);
        }
        (void)usleep(50000);
    }
}

static int watch_here(struct app *app, struct err *e)
{
    struct talk talk;
    struct sync *sync = NULL;
    struct sigaction action = {.sa_handler = on_stop};

    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    talk_init(&talk, app);
    struct sync_config config = talk_sync_config(&talk, false);
    int r = open_for_watching(app, &config, &sync, e);
    if (r == 0)
        r = sync_watch(
            sync, &(struct sync_watch_config){.stop = &stop_wanted, .said = on_said, .ctx = app}, e);
    sync_close(sync);
    return r;
}

/* ---- -d */

static int detach(const struct app *app, struct err *e)
{
    CLEANUP(freep) char *log_path = NULL;

    if (asprintf(&log_path, "%s/" LINK_DIR "/watch.log", app->root) < 0)
        return err_set(e, ENOMEM, "leave for the background");
    CLEANUP(fd_closep)
    int log = open(log_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    CLEANUP(fd_closep) int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (log < 0 || null < 0)
        return err_set(e, errno, "open '%s'", log_path);
    if (setsid() < 0 || dup2(null, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0)
        return err_set(e, errno, "leave for the background");
    return 0;
}

int watch_last_words(const struct app *app, int code, struct err *e)
{
    CLEANUP(freep) char *path = NULL;
    CLEANUP(buf_release) struct buf text;
    const char *last = "";

    buf_init(&text, 65536);
    if (asprintf(&path, "%s/" LINK_DIR "/watch.log", app->root) < 0)
        path = NULL;
    else
        err_ignore(io_read_file(path, 65535, &text, NULL));
    char *all = text.len ? (char *)text.data : NULL, *line;
    if (all)
        all[text.len - 1] = '\0';
    while ((line = strsep(&all, "\n")) != NULL)
        last = *line ? line : last;
    if (strncmp(last, "silt: ", 6) == 0)
        last += 6;
    return err_say(e, code, "the watcher ended: %s",
        *last ? last : "it left no word in .silt/watch.log");
}

static int watcher_process(struct app *app, bool tied, pid_t parent)
{
    struct err e = ERR_INIT;
    int r = detach(app, &e);

    if (tied && (prctl(PR_SET_PDEATHSIG, SIGTERM) < 0 || getppid() != parent))
        return EXIT_TROUBLE;
    app->opt.json = false;
    if (r == 0)
        r = app_connect(app, &e);
    if (r == 0)
        r = watch_here(app, &e);
    if (r < 0)
        (void)app_fail(app, &e);
    return r == -EBUSY ? EBUSY_CODE : r < 0 ? EXIT_TROUBLE : EXIT_FINE;
}

int watch_start(struct app *app, bool tied, pid_t *ret_child, struct err *e)
{
    uint64_t until = io_now_ns() + START_WAIT_MS * UINT64_C(1000000);
    pid_t parent = getpid();
    json_t *status = NULL;
    int state;

    /* The parent needs no connection any more, and the child could not share it. */
    client_free(ptr_take(&app->client));
    (void)fflush(NULL);
    pid_t child = fork();
    if (child < 0)
        return err_set(e, errno, "start a watcher");
    if (child == 0) {
        int code = watcher_process(app, tied, parent);
        app_release(app);
        exit(code);
    }
    *ret_child = child;
    while (io_now_ns() < until) {
        if (watcher_answers(app, &status)) {
            json_decref(status);
            return 0;
        }
        if (waitpid(child, &state, WNOHANG) == child)
            return watch_last_words(app,
                WIFEXITED(state) && WEXITSTATUS(state) == EBUSY_CODE ? EBUSY : ECHILD, e);
        (void)usleep(20000);
    }
    return err_say(e, ETIMEDOUT,
        "the watcher does not answer yet; it may still be sending the project: silt status");
}

static int watch_behind(struct app *app, struct err *e)
{
    json_t *status = NULL;
    pid_t child = 0;

    if (watcher_answers(app, &status)) {
        json_decref(status);
        if (!app->opt.json)
            printf("%s is watched already\n", out_path(app->root));
        return 0;
    }
    int r = watch_start(app, false, &child, e);
    if (r < 0)
        return r;
    if (app->opt.json)
        out_json(json_pack("{s:i, s:s, s:s}", "pid", (int)child, "root", app->root, "sandbox",
            app->link.sandbox));
    else
        printf("watching %s in the background (silt status, silt stop)\n", out_path(app->root));
    return 0;
}

/* What is printed must not go into a file that is watched: each line would be a change, and each
 * change another line, without an end. */
static int check_output(const struct app *app, int fd, struct err *e)
{
    char link[32], path[PATH_MAX];
    struct stat st;
    CLEANUP(buf_release) struct buf why;
    size_t root = strlen(app->root);
    bool ignored = false;

    buf_init(&why, 16384);
    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof(path) - 1);
    if (n <= 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return 0;
    path[n] = '\0';
    if (strncmp(path, app->root, root) != 0 || path[root] != '/')
        return 0;
    const char *inside = path + root + 1;
    if (path_check(inside, strlen(inside)) != PATH_FINE ||
        why_ignored(app->root, inside, &ignored, &why, NULL) < 0 || ignored)
        return 0;
    return err_say(e, EINVAL,
        "what is printed goes into '%s', which is watched: each line would be a change that makes "
        "another; let it go to a file outside of the project, or leave that out in .siltignore",
        out_path(inside));
}

int cmd_watch(struct app *app)
{
    struct err e = ERR_INIT;
    bool runs = app->opt.run_file || app->opt.after_dashes;
    int r = 0;

    if (runs && app->opt.detach)
        r = err_say(&e, EINVAL,
            "in the background nobody sees what is run: leave out -d (a watcher that is there "
            "already is used), or --run");
    else if (!runs && app->opt.on_count)
        r = err_say(&e, EINVAL, "--on says which changes run again: name what with --run FILE");
    else if (!runs && app->opt.arg_count)
        r = err_say(&e, EINVAL, "to run '%s' after every change: silt watch --run %s",
            app->opt.args[0], app->opt.args[0]);
    else
        r = app_auto_link(app, &e);
    for (int fd = 1; r == 0 && !app->opt.detach && !app->opt.on_count && fd <= (runs ? 2 : 1); fd++)
        r = check_output(app, fd, &e);
    if (r == 0 && runs)
        return watch_run(app);
    if (r == 0)
        r = app->opt.detach ? watch_behind(app, &e) : watch_here(app, &e);
    return r < 0 ? app_fail(app, &e) : EXIT_FINE;
}

int cmd_stop(struct app *app)
{
    struct err e = ERR_INIT;
    json_t *ask = json_pack("{s:s}", "op", "stop"), *answer = NULL;
    int r = app_need_link(app, &e);

    if (r == 0)
        r = control_request(app->root, ask, STOP_WAIT_MS, &answer, &e);
    json_decref(ask);
    json_decref(answer);
    bool none = app->linked && (r == -ENOENT || r == -ECONNREFUSED);
    if (r < 0 && !none)
        return app_fail(app, &e);
    if (app->opt.json)
        out_json(json_pack("{s:b}", "stopped", !none));
    else
        printf(none ? "%s was not watched\n" : "stopped watching %s\n", out_path(app->root));
    return EXIT_FINE;
}
