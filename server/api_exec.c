/* SPDX-License-Identifier: MIT */
#include "server/api_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "server/exec_request.h"

#include "shared/banned.h"

/* A client that waits for its run: the answer is given on the run's thread. */
struct waiting {
    struct http_request *req;
    struct run *run;
};

static void note_gone(void *ctx)
{
    run_leave(ctx);
}

static void answer_waiting(struct run *run, void *ctx)
{
    struct waiting *w = ctx;
    const struct call *call = http_note(w->req);
    http_on_close(w->req, NULL, NULL);
    api_reply_run(call->api, w->req, run);
    http_unref(w->req);
    run_unref(w->run);
    free(w);
}

/* What a client can do about an error before the program started. */
static json_t *details_of(struct sandbox *sb, const struct exec_request *req, const struct err *e)
{
    if (e->refusal == PROTO_FILE_NOT_FOUND && req->text)
        return api_near(sb, req->text);
    return NULL;
}

static int parse_request(
    struct call *call, struct sandbox *sb, struct exec_request *ret, struct err *e)
{
    struct sandbox_info info;
    json_t *body = NULL;
    int r = sandbox_info(sb, &info, e);
    if (r < 0)
        return r;
    r = api_read_json(call, &body, e);
    if (r == 0) {
        const struct exec_base base = {
            .language = info.language,
            .image = info.image,
            .env_json = info.env_json,
            .limits_json = info.limits_json,
            .config = call->api->c.config,
        };
        r = exec_request_parse(body, &base, ret, e);
    }
    json_decref(body);
    sandbox_info_release(&info);
    return r;
}

/* Answer at once; the run goes on without anybody. */
static void start_detached(struct call *call, struct run *run)
{
    struct err e = ERR_INIT;
    char location[64];
    int r = run_start(run, NULL, NULL, &e);
    (void)snprintf(location, sizeof(location), "/v1/runs/%s", run_id(run));
    http_add_header(call->req, "Location", location);
    if (r < 0)
        api_fail(call->req, &e, NULL);
    else
        api_reply(call, 202, run_object(run, true));
    run_unref(run);
}

static void start_waiting(struct call *call, struct run *run)
{
    struct err e = ERR_INIT;
    struct waiting *w = malloc(sizeof(*w));
    int r = w ? 0 : err_set(&e, ENOMEM, "start the run");
    if (r == 0) {
        *w = (struct waiting){.req = call->req, .run = run};
        http_ref(call->req);
        run_attach(run);
        http_on_close(call->req, note_gone, run);
        r = run_start(run, answer_waiting, w, &e);
    }
    if (r == 0)
        return;
    if (w) {
        http_on_close(call->req, NULL, NULL);
        http_unref(call->req);
        free(w);
    }
    api_fail(call->req, &e, NULL);
    run_unref(run);
}

static void start_followed(struct call *call, struct run *run, enum api_format format, bool detach)
{
    struct err e = ERR_INIT;
    if (run_start(run, NULL, NULL, &e) < 0) {
        api_fail(call->req, &e, NULL);
        run_unref(run);
        return;
    }
    api_follow(call, run, NULL, NULL, format, 0, !detach);
}

static void start_polled(struct call *call, struct run *run, uint64_t wait_ms)
{
    struct err e = ERR_INIT;
    if (run_start(run, NULL, NULL, &e) < 0) {
        api_fail(call->req, &e, NULL);
        run_unref(run);
        return;
    }
    api_wait(call, run, wait_ms, false);
}

void api_exec_post(struct call *call)
{
    struct sandbox *sb = NULL;
    struct exec_request req = {.language = NULL};
    struct run *run = NULL;
    struct err e = ERR_INIT;
    int r = api_sandbox(call, &sb, &e);
    if (r == 0)
        r = parse_request(call, sb, &req, &e);
    enum api_format format = api_format(call, req.stream);
    bool detach = req.detach, wait = req.has_wait;
    uint64_t wait_ms = req.wait_ms;
    if (r == 0)
        r = exec_submit(call->api->c.exec, sb, &req, &run, &e);
    if (r < 0) {
        api_fail(call->req, &e, details_of(sb, &req, &e));
    } else {
        http_add_header(call->req, "Silt-Run-Id", run_id(run));
        if (format != API_OBJECT)
            start_followed(call, run, format, detach);
        else if (detach)
            start_detached(call, run);
        else if (wait)
            start_polled(call, run, wait_ms);
        else
            start_waiting(call, run);
    }
    exec_request_release(&req);
    if (sb)
        sandbox_unref(sb);
}
