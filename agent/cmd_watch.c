/* SPDX-License-Identifier: MIT */
/* watch and stop: the watcher of a project, in the foreground or behind. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "agent/app.h"
#include "agent/control.h"
#include "agent/talk.h"
#include "shared/io.h"
#include "shared/num.h"

#include "shared/banned.h"

#define START_WAIT_MS 20000
#define STOP_WAIT_MS 5000

static volatile sig_atomic_t stop_wanted;

static void on_stop(int sig)
{
    (void)sig;
    stop_wanted = 1;
}

struct watcher {
    struct app *app;
    pid_t child;       /* the `silt run` of --run that is going on, or 0 */
    char **child_argv; /* NULL: nothing is run */
};

/* ---- --run: a `silt run` of our own per change; it flushes through our control socket */

/* The server ends a run whose client goes away, so ending the client is enough. SIGKILL, because
 * the child may be waiting for an answer of our own control socket just now. */
static void end_child(struct watcher *w)
{
    int status;

    if (w->child <= 0)
        return;
    if (waitpid(w->child, &status, WNOHANG) == 0) {
        (void)kill(w->child, SIGKILL);
        while (waitpid(w->child, &status, 0) < 0 && errno == EINTR)
            ;
    }
    w->child = 0;
}

static void start_child(struct watcher *w)
{
    sigset_t none;

    if (!w->child_argv)
        return;
    end_child(w);
    if (out_is_terminal(1) && !w->app->opt.json)
        printf("\n");
    (void)fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        (void)signal(SIGINT, SIG_DFL);
        (void)signal(SIGTERM, SIG_DFL);
        (void)sigemptyset(&none);
        (void)sigprocmask(SIG_SETMASK, &none, NULL);
        (void)execv("/proc/self/exe", w->child_argv);
        _exit(EXIT_SILT);
    }
    w->child = pid > 0 ? pid : 0;
}

/* `silt run` with what the user gave to `silt watch`. */
static char **build_child_argv(struct app *app)
{
    const struct options *o = &app->opt;
    size_t at = 0, room = 16 + o->env_count * 2 + o->arg_count;
    char **argv = calloc(room, sizeof(*argv));
    static char timeout[48], memory[48], output[48];

    if (!argv || (!o->run_file && !o->after_dashes)) {
        free(argv);
        return NULL;
    }
    /* execv takes char *const[]: the strings themselves are not changed. */
#define ADD(text) (argv[at++] = (char *)(uintptr_t)(text))
    ADD("silt");
    ADD("-C");
    ADD(app->cwd);
    if (o->json)
        ADD("--json");
    ADD("run");
    for (size_t i = 0; i < o->env_count; i++) {
        ADD("-e");
        ADD(o->env[i]);
    }
    if (o->env_file) {
        ADD("--env-file");
        ADD(o->env_file);
    }
    /* A watched run has no wall limit of its own: it lives until the next change. */
    (void)snprintf(timeout, sizeof(timeout), "--timeout=%llums",
        (unsigned long long)(o->timeout_ms ? o->timeout_ms : UINT64_C(86400000)));
    ADD(timeout);
    if (o->memory_bytes) {
        (void)snprintf(
            memory, sizeof(memory), "--memory=%llu", (unsigned long long)o->memory_bytes);
        ADD(memory);
    }
    if (o->max_output) {
        (void)snprintf(
            output, sizeof(output), "--max-output=%llu", (unsigned long long)o->max_output);
        ADD(output);
    }
    ADD(o->run_file ? o->run_file : "--");
    for (size_t i = 0; i < o->arg_count; i++)
        ADD(o->args[i]);
#undef ADD
    argv[at] = NULL;
    return argv;
}

/* ---- what the loop tells */

static json_t *said_json(enum sync_said what, const struct sync_totals *t, const char *text)
{
    static const char *const names[] = {[SYNC_SAID_READY] = "ready",
        [SYNC_SAID_SENT] = "sent",
        [SYNC_SAID_AWAY] = "away",
        [SYNC_SAID_BACK] = "back",
        [SYNC_SAID_PROBLEM] = "problem",
        [SYNC_SAID_RUN_WANTED] = "run"};
    json_t *o = json_pack("{s:s}", "event", names[what]);

    if (text)
        err_ignore(json_object_set_new(o, "text", json_string(text)));
    if (t)
        err_ignore(json_object_update_new(
            o, json_pack("{s:I, s:i, s:i, s:i, s:i, s:I, s:f}", "generation",
                   (json_int_t)t->generation, "created", (int)t->created, "updated",
                   (int)t->updated, "moved", (int)t->moved, "deleted", (int)t->deleted,
                   "bytes_sent", (json_int_t)t->bytes_sent, "elapsed_ms", t->elapsed_ms)));
    return o;
}

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
    struct watcher *w = ctx;
    bool running = w->child_argv != NULL;

    if (w->app->opt.json)
        out_json(said_json(what, totals, text));
    else if (what == SYNC_SAID_SENT && totals && !running)
        print_sent(totals, text);
    else if (what == SYNC_SAID_READY && !running)
        printf("watching %s → %s (Ctrl-C stops)\n", out_path(w->app->root), w->app->link.sandbox);
    else if (what != SYNC_SAID_SENT && what != SYNC_SAID_READY && text)
        out_note(w->app, "%s", text);
    (void)fflush(stdout);
    if (what == SYNC_SAID_READY || what == SYNC_SAID_SENT)
        start_child(w);
}

static int watch_here(struct app *app, struct err *e)
{
    struct watcher w = {.app = app};
    struct talk talk;
    struct sync *sync = NULL;
    struct sigaction action = {.sa_handler = on_stop};

    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    w.child_argv = build_child_argv(app);
    talk_init(&talk, app);
    struct sync_config config = talk_sync_config(&talk, false);
    int r = sync_open(&config, &sync, e);
    if (r == -EBUSY)
        r = err_say(e, EBUSY,
            "%s is watched already (silt status tells by whom, silt stop ends it)", app->root);
    if (r == 0)
        r = sync_watch(
            sync, &(struct sync_watch_config){.stop = &stop_wanted, .said = on_said, .ctx = &w}, e);
    end_child(&w);
    sync_close(sync);
    free(w.child_argv);
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

static bool watcher_answers(const struct app *app, json_t **ret)
{
    struct err ignored = ERR_INIT;
    json_t *ask = json_pack("{s:s}", "op", "status");
    int r = control_request(app->root, ask, 2000, ret, &ignored);

    json_decref(ask);
    return r == 0;
}

/* The foreground half of `watch -d`: until the watcher answers, or has died with its reason in the
 * log. */
static int wait_for_watcher(struct app *app, pid_t child, struct err *e)
{
    uint64_t until = io_now_ns() + START_WAIT_MS * UINT64_C(1000000);
    json_t *status = NULL;
    int state;

    while (io_now_ns() < until) {
        if (watcher_answers(app, &status)) {
            json_decref(status);
            if (app->opt.json)
                out_json(json_pack("{s:i, s:s, s:s}", "pid", (int)child, "root", app->root,
                    "sandbox", app->link.sandbox));
            else
                printf("watching %s in the background (silt status, silt stop)\n",
                    out_path(app->root));
            return 0;
        }
        if (waitpid(child, &state, WNOHANG) == child) {
            CLEANUP(freep) char *path = NULL;
            CLEANUP(buf_release) struct buf text;
            buf_init(&text, 65536);
            if (asprintf(&path, "%s/" LINK_DIR "/watch.log", app->root) >= 0)
                err_ignore(io_read_file(path, 65536, &text, NULL));
            return err_say(e, ECHILD, "the watcher ended at once: %.*s",
                (int)strcspn(buf_str(&text), "\n"),
                text.len ? buf_str(&text) : "it left no word in .silt/watch.log");
        }
        (void)usleep(20000);
    }
    return err_say(e, ETIMEDOUT,
        "the watcher does not answer yet; it may still be sending the project: silt status");
}

int cmd_watch(struct app *app)
{
    struct err e = ERR_INIT;
    int r = app_auto_link(app, &e);

    if (r < 0)
        return app_fail(app, &e);
    if (!app->opt.detach) {
        r = watch_here(app, &e);
        return r < 0 ? app_fail(app, &e) : EXIT_FINE;
    }
    json_t *status = NULL;
    if (watcher_answers(app, &status)) {
        json_decref(status);
        if (!app->opt.json)
            printf("%s is watched already\n", out_path(app->root));
        return EXIT_FINE;
    }
    /* The parent needs no connection any more, and the child could not share it. */
    client_free(ptr_take(&app->client));
    (void)fflush(NULL);
    pid_t child = fork();
    if (child < 0) {
        (void)err_set(&e, errno, "start a watcher");
        return app_fail(app, &e);
    }
    if (child == 0) {
        r = detach(app, &e);
        if (r == 0)
            r = app_connect(app, &e);
        if (r == 0)
            r = watch_here(app, &e);
        return r < 0 ? app_fail(app, &e) : EXIT_FINE;
    }
    r = wait_for_watcher(app, child, &e);
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
