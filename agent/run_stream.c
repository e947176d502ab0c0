/* SPDX-License-Identifier: MIT */
#include "agent/run.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "shared/io.h"
#include "shared/text.h"

#include "shared/banned.h"

#define LINE_MAX_BYTES (8u * 1024 * 1024)

void run_stream_init(struct run_stream *s, bool quiet, bool guarded)
{
    *s = (struct run_stream){.quiet = quiet, .guarded = guarded, .error = ERR_INIT};
    buf_init(&s->line, LINE_MAX_BYTES);
}

void run_stream_release(struct run_stream *s)
{
    buf_release(&s->line);
    json_decref(s->run);
    s->run = NULL;
}

/* To a terminal goes only what is meant for any. */
static int print_guarded(struct run_stream *s, int fd, const char *text, size_t len)
{
    CLEANUP(buf_release) struct buf fit;
    buf_init(&fit, 4 * LINE_MAX_BYTES);
    int r = term_filter_add(&s->filters[fd - 1], text, len, &fit);
    return r < 0 ? r : io_write_all(fd, buf_str(&fit), fit.len);
}

/* What was held back, since it might have become a colour. */
static void print_rest(struct run_stream *s)
{
    for (int fd = 1; fd <= 2; fd++) {
        CLEANUP(buf_release) struct buf fit;
        buf_init(&fit, LINE_MAX_BYTES);
        if (s->filters[fd - 1].held_len > 0 && term_filter_end(&s->filters[fd - 1], &fit) == 0)
            err_ignore(io_write_all(fd, buf_str(&fit), fit.len));
    }
}

static int print_piece(struct run_stream *s, int fd, json_t *event)
{
    const char *text = json_string_value(json_object_get(event, "text"));
    const char *coded = json_string_value(json_object_get(event, "base64"));
    size_t len = json_string_length(json_object_get(event, "text"));
    CLEANUP(buf_release) struct buf raw;

    buf_init(&raw, LINE_MAX_BYTES);
    if (!text) {
        if (!coded || text_decode_base64(coded, strlen(coded), &raw) < 0)
            return -EPROTO;
        text = buf_str(&raw);
        len = raw.len;
    }
    s->printed_bytes += len;
    if (len)
        s->mid_line = text[len - 1] != '\n';
    if (s->quiet || s->raw)
        return 0;
    return s->guarded && out_is_terminal(fd) ? print_guarded(s, fd, text, len)
                                             : io_write_all(fd, text, len);
}

static int take_event(struct run_stream *s, json_t *event)
{
    const char *kind = json_string_value(json_object_get(event, "event"));
    const char *id = json_string_value(json_object_get(event, "run"));

    if (!kind)
        return -EPROTO;
    if (strcmp(kind, "stdout") == 0)
        return print_piece(s, 1, event);
    if (strcmp(kind, "stderr") == 0)
        return print_piece(s, 2, event);
    if (strcmp(kind, "start") == 0) {
        if (id)
            (void)snprintf(s->id, sizeof(s->id), "%s", id);
        return 0;
    }
    if (strcmp(kind, "exit") == 0) {
        print_rest(s);
        s->run = json_incref(json_object_get(event, "run"));
        s->ended = s->run != NULL;
        return s->ended ? 0 : -EPROTO;
    }
    if (strcmp(kind, "error") == 0) {
        json_t *error = json_object_get(event, "error");
        const char *code = json_string_value(json_object_get(error, "code"));
        const char *message = json_string_value(json_object_get(error, "message"));
        (void)err_refuse(&s->error, proto_error_by_name(code ? code : ""), "%s",
            message ? message : "the run failed");
        s->ended = true;
    }
    return 0; /* a kind that a later server adds does not concern us */
}

static int take_line(struct run_stream *s, const char *line, size_t len)
{
    /* A heartbeat: there is nothing to tell at the moment. */
    if (len == 0 || line[0] == ':') {
        s->caught_up = s->replay;
        return s->caught_up ? -ECANCELED : 0;
    }
    json_t *event = json_loadb(line, len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    uint64_t id = (uint64_t)json_integer_value(json_object_get(event, "id"));
    int r = event ? take_event(s, event) : -EPROTO;
    json_decref(event);
    if (r == 0)
        s->last_id = id;
    if (r == 0 && s->raw && (io_write_all(1, line, len) < 0 || io_write_all(1, "\n", 1) < 0))
        r = -EPIPE;
    if (r == 0 && s->replay && !s->ended && s->printed_bytes >= s->until_bytes) {
        s->caught_up = true;
        r = -ECANCELED;
    }
    return r;
}

uint64_t run_now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

bool run_stream_silent(const struct run_stream *s)
{
    return s->heard_ns && run_now_ns() - s->heard_ns > RUN_SILENT_NS;
}

int run_stream_data(void *ctx, const void *data, size_t len)
{
    struct run_stream *s = ctx;
    const char *p = data, *end = p + len;
    int r = 0;

    s->heard_ns = run_now_ns();
    while (p < end && r == 0) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        if (!newline) {
            r = buf_add(&s->line, p, (size_t)(end - p));
            break;
        }
        if (s->line.len == 0) {
            r = take_line(s, p, (size_t)(newline - p));
        } else {
            r = buf_add(&s->line, p, (size_t)(newline - p));
            if (r == 0)
                r = take_line(s, buf_str(&s->line), s->line.len);
            buf_reset(&s->line);
        }
        p = newline + 1;
    }
    s->broken = r;
    return r;
}

/* ---- what the end means */

static int signal_number(const char *name)
{
    for (int i = 1; i < NSIG; i++) {
        const char *abbrev = sigabbrev_np(i);
        if (abbrev && strncmp(name, "SIG", 3) == 0 && strcmp(name + 3, abbrev) == 0)
            return i;
    }
    return SIGKILL;
}

int run_exit_code(json_t *run)
{
    const char *status = json_string_value(json_object_get(run, "status"));
    const char *sig = json_string_value(json_object_get(run, "signal"));
    json_t *code = json_object_get(run, "exit_code");

    if (status && strcmp(status, "timed_out") == 0)
        return EXIT_TIMED_OUT;
    if (status && strcmp(status, "cancelled") == 0)
        return 128 + SIGINT;
    if (sig)
        return 128 + signal_number(sig);
    if (json_is_integer(code))
        return (int)(json_integer_value(code) & 0xff);
    return EXIT_SILT;
}

int run_refusal_code(const struct err *e)
{
    switch (e->refusal) {
    case PROTO_FILE_NOT_FOUND:
        return EXIT_NOT_FOUND;
    case PROTO_INTERPRETER_MISSING:
    case PROTO_NOT_RUNNABLE:
    case PROTO_UNKNOWN_LANGUAGE:
        return EXIT_CANNOT_RUN;
    default:
        return EXIT_SILT;
    }
}

/* Work that is thrown away although nobody said so. */
static void explain_view(struct app *app, json_t *run)
{
    const char *keep = json_string_value(json_object_get(run, "keep"));
    const char *reason = json_string_value(json_object_get(run, "kept_reason"));
    bool wrote = json_integer_value(json_object_get(run, "files_changed_total")) > 0 ||
                 json_is_true(json_object_get(run, "files_changed_incomplete"));

    if (keep && strcmp(keep, "never") != 0 && reason && wrote &&
        json_is_false(json_object_get(run, "kept")))
        out_note(app, "nothing of what it wrote is kept: %s", reason);
}

void run_explain(struct app *app, json_t *run)
{
    json_t *diagnosis = json_object_get(run, "diagnosis");
    const char *status = json_string_value(json_object_get(run, "status"));
    const char *reason = json_string_value(json_object_get(run, "reason"));
    const char *code = json_string_value(json_object_get(diagnosis, "code"));
    const char *message = json_string_value(json_object_get(diagnosis, "message"));
    const char *hint = json_string_value(json_object_get(diagnosis, "hint"));
    const char *subject = json_string_value(json_object_get(diagnosis, "subject"));

    if (json_is_true(json_object_get(run, "stdout_truncated")) ||
        json_is_true(json_object_get(run, "stderr_truncated")))
        out_note(app, "the output was longer than kept; --max-output raises the limit");
    explain_view(app, run);
    if (!status || strcmp(status, "succeeded") == 0)
        return;
    /* A plain non-zero exit has said all there is to say itself, unless it said nothing at all. */
    bool silent = json_integer_value(json_object_get(run, "stderr_bytes")) == 0 &&
                  json_integer_value(json_object_get(run, "stdout_bytes")) == 0;
    json_int_t exit_code = json_integer_value(json_object_get(run, "exit_code"));
    bool not_run = silent && (exit_code == EXIT_CANNOT_RUN || exit_code == EXIT_NOT_FOUND);
    if (reason && (not_run || strcmp(status, "failed") != 0 ||
                      json_is_true(json_object_get(run, "oom_killed")) ||
                      json_is_string(json_object_get(run, "signal"))))
        out_note(app, "%s", reason);
    else if (message && (silent || (code && strcmp(code, "version_mismatch") == 0)))
        out_note(app, "%s", message);
    if (hint)
        out_note(app, "%s", hint);
    if (code && subject &&
        (strcmp(code, "missing_module") == 0 || strcmp(code, "missing_file") == 0 ||
            strcmp(code, "missing_name") == 0))
        run_explain_missing(app, subject);
}
