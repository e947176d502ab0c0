/* SPDX-License-Identifier: MIT */
#include "agent/run_internal.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>

#include "agent/control.h"
#include "shared/io.h"

#include "shared/banned.h"

#define ATTEMPTS 4

/* ---- the run */

static void on_answer(void *ctx, int result, struct client_response *response, const struct err *e)
{
    struct run_session *s = ctx;

    s->answered = true;
    s->call = NULL;
    s->result = result;
    s->retryable = run_may_come_back(response);
    s->error = *e;
    /* With --json or --detach the answer is one object instead of a stream. */
    if (result == 0 && s->stream.quiet) {
        s->stream.run = client_json(response, &s->error);
        s->result = s->stream.run ? 0 : -EPROTO;
        s->stream.ended = s->stream.run != NULL;
    }
}

static int start_run(struct run_session *s, char **ret_body, struct err *e)
{
    static const char *const streamed[] = {"Accept: application/x-ndjson", NULL};
    struct client_request req = {
        .method = "POST",
        .path = s->path,
        .content_type = "application/json",
        .headers = s->stream.quiet ? NULL : streamed,
        .on_data = s->stream.quiet ? NULL : run_stream_data,
        .ctx = &s->stream,
    };

    *ret_body = json_dumps(s->request, JSON_COMPACT);
    if (!*ret_body)
        return err_set(e, ENOMEM, "build a request");
    req.body = *ret_body;
    req.body_len = strlen(*ret_body);
    s->answered = false;
    s->silent_since_ns = io_now_ns();
    return client_start(s->app->client, &req, on_answer, s, &s->call, e);
}

/* Stopped by a signal from elsewhere: the shell gets its terminal back meanwhile. */
static void pause_here(struct run_session *s)
{
    bool raw = s->term.raw;
    term_restore(&s->term);
    (void)raise(SIGSTOP);
    if (raw)
        term_raw(&s->term);
    run_feed_resize(&s->feed);
}

/* What a signal asks for: 0 go on, 1 end the program, -EINTR leave at once. */
static int take_signal(struct run_session *s, struct err *e)
{
    struct signalfd_siginfo info;

    if (read(s->signal_fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
        return 0;
    switch (info.ssi_signo) {
    case SIGWINCH:
        run_feed_resize(&s->feed);
        return 0;
    case SIGTSTP:
        pause_here(s);
        return 0;
    case SIGINT:
        if (!s->cancelled && s->stream.id[0])
            return 1;
    }
    return err_say(e, EINTR, "interrupted");
}

/* Once the run has a name, what is typed and piped is its. */
static int feed_begin(struct run_session *s, struct err *e)
{
    if (!s->stream.id[0] || s->stream.ended)
        return 0;
    int r = run_feed_restart(&s->feed, s->stream.id, e);
    if (r == 0 && s->feed.kind == RUN_FEED_TERMINAL)
        term_raw(&s->term);
    return r;
}

int run_wait_step(struct run_session *s, int fd, int timeout_ms, bool *ret_ready, struct err *e)
{
    int r = feed_begin(s, e);
    struct pollfd fds[3] = {{.fd = s->signal_fd, .events = POLLIN}, {.fd = fd, .events = POLLIN},
        {.fd = run_feed_fd(&s->feed), .events = POLLIN}};
    if (r == 0)
        r = client_step(s->app->client, fds, 3, run_feed_wait_ms(&s->feed, timeout_ms), e);

    if (r < 0)
        return r;
    /* Whose writer has gone has an end to be read, of which libcurl does not tell. */
    if (poll(fds, 3, 0) < 0 && errno != EINTR)
        return err_set(e, errno, "wait");
    *ret_ready = fds[1].revents != 0;
    if (run_feed_step(&s->feed, fds[2].revents != 0) > 0)
        return err_say(e, EINTR, "interrupted");
    return fds[0].revents ? take_signal(s, e) : 0;
}

/* Of a request that ended before its run, which has a name: the rest can be asked for. */
static bool is_cut(const struct run_session *s)
{
    const struct run_stream *stream = &s->stream;
    return !stream->quiet && stream->id[0] && !stream->ended && !stream->broken && s->retryable;
}

static void drop_silent(struct run_session *s)
{
    if (!run_stream_silent(&s->stream))
        return;
    client_abort(s->app->client, s->call);
    s->call = NULL;
    s->answered = s->retryable = true;
}

/* Until the run has ended: 0, -EINTR to leave at once, or what the request ended with. */
static int follow_run(struct run_session *s, struct err *e)
{
    while (!s->answered) {
        bool ready;
        int r = run_wait_step(s, -1, s->silent_since_ns && s->sync ? 100 : 1000, &ready, e);

        if (r == 1 || s->cancelled)
            run_cut_cancel(s);
        if (r >= 0)
            r = run_sync_look_after(s, e);
        if (r < 0)
            return r;
        if (!s->answered)
            drop_silent(s);
    }
    if (is_cut(s))
        return run_cut_come_back(s, e);
    if (s->result < 0 && e)
        *e = s->error;
    return s->result;
}

/* What a request that went well says about the run: 0 it was run, or why not. */
static int look_at_end(struct run_session *s, int r, struct err *e)
{
    if (r == 0 && s->stream.ended && !s->stream.run) {
        *e = s->stream.error;
        r = -e->code;
    }
    if (r == 0 && !s->stream.ended)
        r = err_say(e, ECONNRESET,
            "the server ended the stream before the run ended: `silt ps` tells what became of it");
    return r;
}

/* One attempt; *ret_again when the set it waited for was refused and will be sent anew. */
static int attempt_run(struct run_session *s, bool *ret_again, struct err *e)
{
    CLEANUP(freep) char *body = NULL;
    int r = start_run(s, &body, e);

    if (r == 0)
        r = follow_run(s, e);
    if (r < 0)
        run_cut_leave(s);
    if (r < 0 && s->call) {
        client_abort(s->app->client, s->call);
        s->call = NULL;
    }
    r = look_at_end(s, r, e);
    *ret_again = r == -EPROTO && s->sync && e->refusal == PROTO_BARRIER_REFUSED;
    return r;
}

static int run_and_repair(struct run_session *s, struct err *e)
{
    bool again = true;
    int r = 0;

    for (int attempt = 0; again && attempt < ATTEMPTS; attempt++) {
        if (attempt > 0) {
            /* The change set was refused; sync repairs it against what the server has. */
            run_stream_release(&s->stream);
            run_stream_init(&s->stream, s->app->opt.json || s->app->opt.detach,
                !run_request_tty(s->app));
            r = sync_push(s->sync, e);
            if (r == 0)
                r = run_sync_barrier(s, e);
            if (r < 0)
                return r;
        }
        r = attempt_run(s, &again, e);
    }
    return r;
}

/* ---- by the watcher, if there is one */

static int follow_watcher(struct run_session *s, struct run_watcher *w, struct err *e)
{
    for (;;) {
        bool ready = false;
        int r = run_wait_step(s, w->talk.fd, 60000, &ready, e);

        if (r == 1) {
            s->cancelled = true;
            run_watcher_cancel(w);
        }
        if (r >= 0 && ready)
            r = run_watcher_read(w, e);
        else if (r > 0)
            r = 0;
        if (r != 0)
            return r < 0 ? r : 0;
    }
}

static bool watcher_cannot(const struct run_session *s, const struct run_watcher *w, int r)
{
    return r == -ENOENT || r == -EMSGSIZE ||
           ((r == -ECONNREFUSED || r == -ENOSYS || r == -EBUSY || r == -ECONNRESET) && !w->heard &&
               !s->stream.ended);
}

/* Through the watcher, which repairs what was refused. s->by_watcher is false if it did not run
 * anything: then it is up to us. */
static int run_by_watcher(struct run_session *s, struct err *e)
{
    struct run_watcher w;
    int r = -EPROTO;

    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        if (attempt > 0) {
            run_stream_release(&s->stream);
            run_stream_init(&s->stream, s->app->opt.json || s->app->opt.detach,
                !run_request_tty(s->app));
        }
        run_watcher_init(&w, s->app->root, &s->stream);
        r = run_watcher_start(&w, s->request, attempt > 0, e);
        if (r == 0)
            r = follow_watcher(s, &w, e);
        s->by_watcher = !watcher_cannot(s, &w, r);
        bool cut = run_watcher_was_cut(&w, r);
        run_watcher_release(&w);
        if (cut)
            r = run_cut_come_back(s, e);
        if (r < 0 && w.heard)
            run_cut_leave(s);
        r = look_at_end(s, r, e);
        if (r != -EPROTO || e->refusal != PROTO_BARRIER_REFUSED || s->cancelled)
            break;
    }
    return r;
}

static int run_anyhow(struct run_session *s, struct err *e)
{
    int r = s->app->opt.no_sync ? 0 : run_by_watcher(s, e);

    if (s->by_watcher)
        return r;
    r = run_sync_first(s, e);
    return r < 0 ? r : run_and_repair(s, e);
}

static int report(struct run_session *s)
{
    struct app *app = s->app;
    int code = run_exit_code(s->stream.run);

    if (app->opt.detach) {
        const char *id = json_string_value(json_object_get(s->stream.run, "id"));
        if (app->opt.json)
            out_json(json_incref(s->stream.run));
        else
            printf("%s\n", id ? id : "");
        return EXIT_FINE;
    }
    if (app->opt.json) {
        out_json(json_incref(s->stream.run));
        return code;
    }
    run_explain(app, s->stream.run);
    return code;
}

static int open_session(struct run_session *s, struct err *e)
{
    sigset_t signals;

    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGINT);
    (void)sigaddset(&signals, SIGTERM);
    (void)sigaddset(&signals, SIGHUP);
    (void)sigaddset(&signals, SIGQUIT);
    (void)sigaddset(&signals, SIGTSTP);
    (void)sigaddset(&signals, SIGWINCH);
    (void)sigprocmask(SIG_BLOCK, &signals, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    s->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    if (s->signal_fd < 0)
        return err_set(e, errno, "watch for Ctrl-C");
    int r = app_auto_link(s->app, e);
    enum run_feed_kind input = s->app->opt.json || s->app->opt.detach || s->app->opt.no_stdin
                                   ? RUN_FEED_NONE
                                   : run_feed_look(run_request_tty(s->app));
    if (r == 0)
        r = run_request_new(s->app, input, &s->request, e);
    if (r == 0)
        run_feed_init(&s->feed, s->app->client, input);
    if (r == 0 && asprintf(&s->path, "/v1/sandboxes/%s/exec", s->app->link.sandbox) < 0)
        r = err_set(e, ENOMEM, "build a request");
    return r;
}

/* The sets that the run waited for are acknowledged by now; what is left is the index on disk. */
static int close_session(struct run_session *s, bool finish, struct err *e)
{
    int r = 0;

    if (s->sync && finish)
        r = sync_push(s->sync, e);
    sync_close(s->sync);
    run_stream_release(&s->stream);
    json_decref(s->request);
    free(s->path);
    if (s->signal_fd >= 0)
        (void)close(s->signal_fd);
    return r;
}

int cmd_run(struct app *app)
{
    struct run_session s = {.app = app, .error = ERR_INIT, .signal_fd = -1};
    struct err e = ERR_INIT, late = ERR_INIT;
    int code;

    if (app->opt.arg_count == 0) {
        (void)err_say(
            &e, EINVAL, "what shall be run? silt run FILE [ARGS…], or silt run -- CMD [ARGS…]");
        out_error(app, &e);
        return EXIT_SILT;
    }
    talk_init(&s.talk, app);
    run_stream_init(&s.stream, app->opt.json || app->opt.detach, !run_request_tty(app));
    int r = open_session(&s, &e);
    if (r == 0)
        r = run_anyhow(&s, &e);
    run_feed_release(&s.feed);
    term_restore(&s.term);
    progress_clear(&s.talk.progress);
    if (r == 0) {
        code = report(&s);
    } else if (r == -EINTR) {
        code = 128 + SIGINT;
    } else if (s.stream.broken == -EPIPE) {
        code = 128 + SIGPIPE; /* as a program in a pipe whose reader has gone */
    } else {
        out_error(app, &e);
        code = run_refusal_code(&e);
        if (e.refusal == PROTO_FILE_NOT_FOUND && !app->opt.after_dashes)
            run_explain_missing(app, app->opt.args[0]);
    }
    if (close_session(&s, r == 0, &late) < 0)
        out_note(app, "the run is done, but not everything was synced: %s", late.msg);
    return code;
}
