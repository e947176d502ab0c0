/* SPDX-License-Identifier: MIT */
/*
 * watch --run: follows the project's watcher and runs through it, so a second one beside an editor's
 * is as good as the first. One loop, three things to wait for: the watcher's words, the run's, Ctrl-C.
 * What silt says here goes to standard error, so that standard output is the program's alone.
 */
#include "agent/cmd_watch.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>

#include "agent/ignore.h"
#include "agent/run.h"
#include "shared/io.h"

#include "shared/banned.h"

#define ATTACH_TRIES 50
#define REFUSED_MOST 4 /* tries of one run whose changes were refused and repaired */
#define WHY_BYTES 256
#define IDLE_MS 60000
#define APART_MS 500
#define CANCEL_MS 1000
#define QUIET_NS UINT64_C(1000000000) /* a shorter cut is not worth a word */

struct runner {
    struct app *app;
    pid_t child; /* our own watcher, 0: it is somebody else's */
    int signal_fd;
    struct control_talk follow;
    bool stopping; /* the watcher was told to stop */
    json_t *request;
    struct run_stream stream;
    struct run_watcher run;
    struct run_follow back; /* the line to the server was cut: from there, past the watcher */
    bool apart, said_cut;   /* that is so, and was told */
    bool cancelling;        /* a request under way */
    bool active, headed, cancelled, ran;
    unsigned refused;
    bool wanted; /* something changed that is not run yet */
    bool missed; /* the latest run could not begin: it does when the server is back */
    bool leave;
    char why[WHY_BYTES]; /* what changed */
};

/* ---- words */

static bool coloured(void)
{
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");

    return out_is_terminal(2) && !(no && *no) && !(term && strcmp(term, "dumb") == 0);
}

/* How many columns a text takes: its characters, as ours are all one wide. */
static size_t columns(const char *text)
{
    size_t n = 0;

    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

static size_t width(void)
{
    struct winsize size;
    size_t w = ioctl(2, TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : 80;

    return w > 100 ? 100 : w;
}

/* "── bold  rest ─────────": a line between one run and the next. */
static void rule(struct runner *w, const char *colour, const char *bold, const char *rest)
{
    bool colours = coloured();
    size_t used = columns(bold) + columns(rest) + 4, wide = width();

    if (w->app->opt.json)
        return;
    if (w->stream.mid_line)
        fprintf(stderr, "\n");
    w->stream.mid_line = false;
    fprintf(stderr, "%s── %s%s%s%s%s ", colours ? "\x1b[2m" : "", colours ? "\x1b[0m" : "",
        colours ? colour : "", bold, colours ? "\x1b[0m\x1b[2m" : "", rest);
    for (; out_is_terminal(2) && used < wide; used++)
        fprintf(stderr, "─");
    fprintf(stderr, "%s\n", colours ? "\x1b[0m" : "");
}

/* Before the first thing that a run says. */
static void head(struct runner *w)
{
    const struct options *o = &w->app->opt;
    char now[16], rest[WHY_BYTES + 64], name[96];
    time_t seconds = time(NULL);
    struct tm local;

    if (w->headed)
        return;
    w->headed = true;
    if (w->ran && !o->json)
        fprintf(stderr, "\n");
    w->ran = true;
    (void)strftime(now, sizeof(now), "%H:%M:%S", localtime_r(&seconds, &local));
    (void)snprintf(
        name, sizeof(name), "%.90s", out_path(o->run_file ? o->run_file : o->args[0]));
    (void)snprintf(rest, sizeof(rest), "%s%s · %s", w->why[0] ? " · " : "", w->why, now);
    rule(w, "\x1b[1m", name, rest);
}

static void foot(struct runner *w)
{
    json_t *run = w->stream.run;
    const char *status = json_string_value(json_object_get(run, "status"));
    const char *sig = json_string_value(json_object_get(run, "signal"));
    double ms = json_number_value(json_object_get(run, "wall_ms"));
    bool fine = status && strcmp(status, "succeeded") == 0;
    char what[96], took[64];

    if (w->app->opt.json) {
        out_json(json_incref(run));
        return;
    }
    head(w);
    if (status && strcmp(status, "cancelled") == 0)
        (void)snprintf(what, sizeof(what), "stopped");
    else if (status && strcmp(status, "timed_out") == 0)
        (void)snprintf(what, sizeof(what), "timed out");
    else if (sig)
        (void)snprintf(what, sizeof(what), "killed by %s", sig);
    else
        (void)snprintf(what, sizeof(what), "exit %d", run_exit_code(run));
    if (ms < 1000)
        (void)snprintf(took, sizeof(took), " · %.0f ms", ms);
    else
        (void)snprintf(took, sizeof(took), " · %.1f s", ms / 1e3);
    if (w->stream.mid_line)
        fprintf(stderr, "\n");
    w->stream.mid_line = false;
    if (!w->cancelled)
        run_explain(w->app, run);
    else
        (void)snprintf(took + strlen(took), sizeof(took) - strlen(took), " · Ctrl-C leaves");
    rule(w, fine ? "\x1b[32m" : w->cancelled ? "\x1b[33m" : "\x1b[31m", what, took);
}

/* ---- the run */

static void on_cancelled(
    void *ctx, int result, struct client_response *response, const struct err *e)
{
    struct runner *w = ctx;
    (void)result;
    (void)response;
    (void)e; /* what is not cancelled ends when its grace is over */
    w->cancelling = false;
}

/* The watcher ends what is its: this one is ours. */
static void cancel_apart(struct runner *w)
{
    char path[96];
    struct err ignored = ERR_INIT;
    (void)snprintf(path, sizeof(path), "/v1/runs/%s/cancel", w->stream.id);
    const struct client_request req = {.method = "POST", .path = path, .timeout_ms = CANCEL_MS};
    if (client_start(w->app->client, &req, on_cancelled, w, NULL, &ignored) == 0)
        w->cancelling = true;
}

static void end_run(struct runner *w)
{
    if (w->apart && !w->stream.ended)
        cancel_apart(w);
    if (w->apart)
        run_follow_release(&w->back);
    else if (w->active)
        run_watcher_release(&w->run);
    w->apart = w->said_cut = false;
    w->active = w->cancelled = w->headed = false;
    run_stream_release(&w->stream);
    run_stream_init(&w->stream, w->app->opt.json, !run_request_tty(w->app));
}

static void start_run(struct runner *w)
{
    struct err e = ERR_INIT;

    if (w->active && w->headed)
        rule(w, "\x1b[33m", "stopped", " · there is a newer state");
    w->wanted = w->missed = false;
    end_run(w);
    run_watcher_init(&w->run, w->app->root, &w->stream);
    w->active = true;
    if (run_watcher_start(&w->run, w->request, w->refused > 0, &e) == 0)
        return;
    out_error(w->app, &e);
    end_run(w);
}

static void run_failed(struct runner *w, const struct err *e)
{
    bool again = e->refusal == PROTO_BARRIER_REFUSED && ++w->refused < REFUSED_MOST;

    if (!again && w->stream.broken == -EPIPE) {
        w->leave = true;
    } else if (!again) {
        head(w);
        out_error(w->app, e);
        w->missed = !w->stream.id[0];
    }
    end_run(w);
    if (again)
        w->wanted = true;
    else
        w->refused = 0;
}

/* 1 or -errno of what followed it. */
static void run_ended(struct runner *w, int r, const struct err *e)
{
    if (r > 0 && w->stream.run) {
        bool by_itself = w->cancelled && run_exit_code(w->stream.run) != 128 + SIGINT;
        foot(w);
        w->refused = 0;
        /* Ctrl-C came too late to stop it: then it is to leave. */
        w->leave = by_itself;
        end_run(w);
    } else {
        run_failed(w, r > 0 ? &w->stream.error : e);
    }
}

static void hear_run(struct runner *w)
{
    struct err e = ERR_INIT;

    /* The program's output is printed while it is read. */
    if (!w->app->opt.json)
        head(w);
    int r = run_watcher_read(&w->run, &e);
    if (r != 0 && run_watcher_was_cut(&w->run, r > 0 ? 0 : r)) {
        run_watcher_release(&w->run);
        w->apart = true;
        run_follow_begin(&w->back, w->app->client, w->stream.id, &w->stream, true);
    } else if (r != 0) {
        run_ended(w, r, &e);
    }
}

/* What goes on without the watcher. */
static void hear_apart(struct runner *w)
{
    struct err e = ERR_INIT;
    int r = run_follow_step(&w->back, &e);
    bool away = w->back.cut_ns && run_now_ns() - w->back.cut_ns > QUIET_NS;
    if (r == 0 && away != w->said_cut && w->stream.mid_line && out_is_terminal(2))
        fprintf(stderr, "\n");
    if (r == 0 && away != w->said_cut)
        out_note(w->app, away ? "the connection is cut; the program goes on for half a minute while "
                                "it is tried again"
                              : "connected again");
    w->said_cut = away;
    if (r != 0)
        run_ended(w, r, &e);
}

static void interrupt(struct runner *w, uint32_t signal_number)
{
    if (!w->active || w->cancelled || signal_number == SIGTERM) {
        w->leave = true;
    } else if (w->stream.id[0]) {
        w->cancelled = true;
        if (w->apart)
            cancel_apart(w);
        else
            run_watcher_cancel(&w->run);
    } else {
        /* It has not begun yet: letting go of it is enough. */
        end_run(w);
        rule(w, "\x1b[33m", "stopped", " · Ctrl-C leaves");
    }
}

/* ---- the watcher's words */

/* Does a glob of --on mean this path, a folder above it, or its name? */
static bool is_meant(const struct app *app, const char *path)
{
    for (size_t i = 0; i < app->opt.on_count; i++) {
        const char *glob = app->opt.on[i] + (app->opt.on[i][0] == '/');
        size_t len = strlen(glob);
        CLEANUP(freep) char *bare = strndup(glob, len && glob[len - 1] == '/' ? len - 1 : len);
        CLEANUP(freep) char *part = strdup(path);
        if (!part)
            return true;
        for (char *end = part + strlen(part); bare && end; end = strrchr(part, '/')) {
            *end = '\0';
            const char *slash = strrchr(part, '/');
            if (ignore_glob(bare, part) || ignore_glob(bare, slash ? slash + 1 : part))
                return true;
        }
    }
    return app->opt.on_count == 0;
}

static void on_changed(struct runner *w, json_t *event)
{
    json_t *paths = json_object_get(event, "paths"), *path;
    json_int_t count = json_integer_value(json_object_get(event, "count"));
    const char *first = NULL;
    size_t i;

    json_array_foreach(paths, i, path)
    {
        if (!first && is_meant(w->app, json_string_value(path)))
            first = json_string_value(path);
    }
    if (!first && count <= (json_int_t)json_array_size(paths))
        return;
    w->wanted = true;
    w->refused = 0;
    if (count > 1)
        (void)snprintf(w->why, sizeof(w->why), "%.150s and %lld more changed",
            out_path(first ? first : "?"), (long long)count - 1);
    else if (w->app->opt.run_file && strcmp(first, w->app->opt.run_file) == 0)
        (void)snprintf(w->why, sizeof(w->why), "changed");
    else
        (void)snprintf(w->why, sizeof(w->why), "%.150s changed", out_path(first));
}

static int on_line(void *ctx, json_t *event)
{
    struct runner *w = ctx;
    const char *name = json_string_value(json_object_get(event, "event"));
    const char *text = json_string_value(json_object_get(event, "text"));

    if (!name)
        return 0;
    if (w->app->opt.json)
        out_json(json_incref(event));
    if (strcmp(name, "ready") == 0)
        w->wanted = true;
    else if (strcmp(name, "changed") == 0)
        on_changed(w, event);
    else if (strcmp(name, "stopping") == 0)
        w->stopping = true;
    else if (text)
        out_note(w->app, "%s", text);
    /* Its change was told of before: no other word of it will come. */
    if (strcmp(name, "back") == 0)
        w->wanted = w->wanted || w->missed;
    return 0;
}

static int no_bytes(void *ctx, const void *data, size_t len)
{
    (void)ctx;
    (void)data;
    (void)len;
    return -EPROTO;
}

/* Follow the watcher that is there, or start one that ends with us. */
static int attach(struct runner *w, struct err *e)
{
    json_t *ask = json_pack("{s:s}", "op", "follow");
    int r = -ENOENT;

    for (int i = 0; i < ATTACH_TRIES; i++) {
        control_talk_close(&w->follow);
        r = control_talk_open(w->app->root, ask, &w->follow, e);
        if (r != -ENOENT && r != -ECONNREFUSED)
            break;
        w->child = 0;
        w->cancelling = false; /* it takes our connection */
        r = watch_start(w->app, true, &w->child, e);
        /* Somebody else starts one just now, or a command syncs. */
        if (r == -EBUSY)
            (void)usleep(100000);
        else if (r < 0)
            break;
    }
    json_decref(ask);
    return r == 0 && !w->app->client ? app_connect(w->app, e) : r;
}

/* The watcher is gone: 0 there is another one, 1 leave, or why it ended. */
static int on_gone(struct runner *w, struct err *e)
{
    int state;
    bool ours = w->child > 0 && waitpid(w->child, &state, 0) == w->child;

    end_run(w);
    w->child = 0;
    if (w->stopping) {
        out_note(w->app, "the watcher was stopped");
        return 1;
    }
    return ours ? watch_last_words(w->app, ECHILD, e) : attach(w, e);
}

/* ---- the loop */

static int step(struct runner *w, struct err *e)
{
    struct pollfd fds[3] = {{.fd = w->signal_fd, .events = POLLIN},
        {.fd = w->follow.fd, .events = POLLIN},
        {.fd = w->active && !w->apart ? w->run.talk.fd : -1, .events = POLLIN}};
    struct control_sink sink = {.bytes = no_bytes, .line = on_line, .ctx = w};
    struct signalfd_siginfo info;
    int r = 0;

    int wait_ms = w->apart ? run_follow_wait_ms(&w->back, APART_MS) : IDLE_MS;
    if (client_step(w->app->client, fds, 3, wait_ms, e) < 0)
        return -e->code;
    /* Whose writer has gone has an end to be read, of which libcurl does not tell. */
    if (poll(fds, 3, 0) < 0)
        return errno == EINTR ? 0 : err_set(e, errno, "wait for the watcher");
    if (fds[1].revents)
        r = control_talk_read(&w->follow, &sink, e);
    if (r == -ECONNRESET)
        return on_gone(w, e);
    if (r < 0)
        return r;
    /* What is obsolete says nothing any more. */
    if (fds[2].revents && !w->wanted)
        hear_run(w);
    if (w->apart && !w->wanted)
        hear_apart(w);
    if (fds[0].revents && read(w->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
        interrupt(w, info.ssi_signo);
    if (w->wanted && !w->leave)
        start_run(w);
    return 0;
}

static int open_runner(struct runner *w, struct err *e)
{
    sigset_t signals;

    run_stream_init(&w->stream, w->app->opt.json, !run_request_tty(w->app));
    int r = run_request_watched(w->app, &w->request, e);
    if (r == 0)
        r = attach(w, e);
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGINT);
    (void)sigaddset(&signals, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &signals, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    w->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    if (r == 0 && w->signal_fd < 0)
        r = err_set(e, errno, "watch for Ctrl-C");
    return r;
}

static void close_runner(struct runner *w)
{
    int state;
    uint64_t until = run_now_ns() + CANCEL_MS * UINT64_C(1000000);

    end_run(w);
    while (w->cancelling && run_now_ns() < until &&
           client_step(w->app->client, NULL, 0, 100, NULL) >= 0)
        ;
    run_stream_release(&w->stream);
    control_talk_close(&w->follow);
    json_decref(w->request);
    if (w->signal_fd >= 0)
        (void)close(w->signal_fd);
    if (w->child > 0 && kill(w->child, SIGTERM) == 0)
        (void)waitpid(w->child, &state, 0);
}

int watch_run(struct app *app)
{
    struct runner w = {.app = app, .signal_fd = -1, .follow.fd = -1};
    struct err e = ERR_INIT;
    int r = open_runner(&w, &e);

    if (r == 0)
        out_note(app, "watching %s%s · Ctrl-C stops the run, then leaves", app->root,
            w.child ? "" : " with the watcher that is there");
    while (r == 0 && !w.leave)
        r = step(&w, &e);
    close_runner(&w);
    return r < 0 ? app_fail(app, &e) : EXIT_FINE;
}
