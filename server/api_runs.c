/* SPDX-License-Identifier: MIT */
#include "server/api_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "shared/text.h"

#include "shared/banned.h"

void api_run_list(struct call *call)
{
    static const char *const statuses[] = {
        "queued", "running", "succeeded", "failed", "timed_out", "cancelled", "error"};
    uint64_t limit = API_LIST_USUAL;
    struct err e = ERR_INIT;
    const char *cursor = http_query(call->req, "cursor"), *status = http_query(call->req, "status");
    json_t *items = json_array();
    bool known = !status;
    for (size_t i = 0; !known && i < sizeof(statuses) / sizeof(statuses[0]); i++)
        known = strcmp(status, statuses[i]) == 0;
    int r = items ? api_query_number(call, "limit", API_LIST_MAX, &limit, &e)
                  : err_set(&e, ENOMEM, "list runs");
    if (r == 0 && !known)
        r = err_refuse(&e, PROTO_INVALID_VALUE,
            "'status' must be one of queued, running, succeeded, failed, timed_out, cancelled and "
            "error");
    if (r == 0 && cursor && !text_is_id("run_", cursor))
        r = err_refuse(
            &e, PROTO_INVALID_VALUE, "'cursor' must come from an earlier answer's next_cursor");
    if (r == 0)
        r = exec_list(call->api->c.exec, http_query(call->req, "sandbox"), status, cursor,
            (unsigned)limit + 1, items, &e);
    if (r < 0) {
        json_decref(items);
        api_fail(call->req, &e, NULL);
        return;
    }
    json_t *next = NULL;
    if (json_array_size(items) > limit) {
        err_ignore(json_array_remove(items, limit));
        next = json_incref(json_object_get(json_array_get(items, limit ? limit - 1 : 0), "id"));
    }
    api_reply(call, 200,
        json_pack("{s:o, s:o}", "items", items, "next_cursor", next ? next : json_null()));
}

void api_run_get(struct call *call)
{
    uint64_t wait_ms = 0;
    struct err e = ERR_INIT;
    struct run *run = NULL;
    int r = api_query_number(call, "wait_ms", EXEC_WAIT_MS_MAX, &wait_ms, &e);
    if (r == 0 && wait_ms > 0 && exec_find(call->api->c.exec, call->match.param[0], &run) == 0) {
        api_wait(call, run, wait_ms, true);
        return;
    }
    if (r < 0)
        api_fail(call->req, &e, NULL);
    else
        api_reply_output_of(call->api, call->req, call->match.param[0]);
}

void api_run_cancel(struct call *call)
{
    struct err e = ERR_INIT;
    struct run *run = NULL;
    json_t *object = NULL;
    if (exec_find(call->api->c.exec, call->match.param[0], &run) == 0 && !run_wait(run, 0)) {
        run_cancel(run);
        api_reply(call, 202, run_object(run, false));
        run_unref(run);
        return;
    }
    if (run)
        run_unref(run);
    /* What has ended is not running any more: that is what was asked for. */
    if (exec_object(call->api->c.exec, call->match.param[0], false, &object, &e) < 0)
        api_fail(call->req, &e, NULL);
    else
        api_reply(call, 200, object);
}

void api_run_delete(struct call *call)
{
    struct err e = ERR_INIT;
    if (exec_delete_record(call->api->c.exec, call->match.param[0], &e) < 0)
        api_fail(call->req, &e, NULL);
    else
        http_reply(call->req, 204, NULL, NULL, 0);
}

/* A run that goes on, or the log of a recorded one. */
static int open_log(
    struct call *call, struct run **ret_run, struct run_log **ret_log, struct err *e)
{
    if (exec_find(call->api->c.exec, call->match.param[0], ret_run) == 0) {
        *ret_log = run_output(*ret_run);
        return 0;
    }
    return exec_load_output(call->api->c.exec, call->match.param[0], ret_log, e);
}

/* The frames of one stream put together in a file without a name, of which any range can be sent.
 */
static int collect(
    struct call *call, struct run_log *log, int *ret_fd, uint64_t *ret_size, struct err *e)
{
    const char *name = strrchr(call->route->pattern, '/') + 1;
    enum run_stream which = strcmp(name, "stdout") == 0   ? RUN_STDOUT
                            : strcmp(name, "stderr") == 0 ? RUN_STDERR
                                                          : RUN_STREAMS;
    CLEANUP(fd_closep)
    int fd = open(call->api->c.config->data_dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_set(e, errno, "make a temporary file");
    int r = run_log_copy(log, which, fd, ret_size);
    if (r < 0)
        return err_set(e, -r, "read the run's output");
    *ret_fd = fd_take(&fd);
    return 0;
}

void api_run_output(struct call *call)
{
    struct run *run = NULL;
    struct run_log *log = NULL;
    struct err e = ERR_INIT;
    uint64_t size = 0;
    int fd = -1;
    int r = open_log(call, &run, &log, &e);
    if (r == 0)
        r = collect(call, log, &fd, &size, &e);
    if (run)
        run_unref(run);
    else
        run_log_free(log);
    if (r < 0) {
        api_fail(call->req, &e, NULL);
        return;
    }
    http_add_header(call->req, "Content-Disposition", "attachment");
    api_reply_file(call, fd, size, "application/octet-stream");
}

void api_run_events(struct call *call)
{
    struct run *run = NULL;
    struct run_log *log = NULL;
    struct err e = ERR_INIT;
    json_t *object = NULL;
    uint64_t last = 0;
    bool attach = false;
    int r = api_last_event(call, UINT32_MAX, &last, &e);
    if (r >= 0)
        r = api_query_bool(call, "attach", &attach, &e);
    if (r >= 0)
        r = open_log(call, &run, &log, &e);
    if (r == 0 && !run)
        r = exec_object(call->api->c.exec, call->match.param[0], false, &object, &e);
    if (r < 0) {
        if (!run)
            run_log_free(log);
        api_fail(call->req, &e, NULL);
        return;
    }
    /* To a run that nobody has to be there for there is nothing to attach. */
    attach = attach && run && run_grace_ms(run) > 0;
    api_follow(call, run, log, object, api_format(call, true), last, attach);
}
