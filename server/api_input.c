/* SPDX-License-Identifier: MIT */
/* What a run's program reads while it runs, and its terminal's size. A body is moved on by a thread
 * of its own, piece by piece, since the program may take its time. */
#include "server/api_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "shared/num.h"

#include "server/body.h"

#include "shared/banned.h"

#define PIECE_BYTES (32u * 1024)
#define ROOM_MS 10000 /* a program that takes nothing for so long keeps nobody waiting */
#define SLICE_MS 250

struct feeder {
    struct api *api;
    struct http_request *req;
    struct run *run;
    uint64_t offset; /* of the next byte */
    bool eof;
    atomic_bool gone;
    uint8_t piece[PIECE_BYTES];
};

/* The run, while it can be spoken to. */
static int find_run(struct call *call, struct run **ret, struct err *e)
{
    json_t *object = NULL;
    if (exec_find(call->api->c.exec, call->match.param[0], ret) == 0)
        return 0;
    int r = exec_object(call->api->c.exec, call->match.param[0], false, &object, e);
    json_decref(object);
    return r < 0 ? r : err_refuse(e, PROTO_INPUT_CLOSED, "the run has ended");
}

static json_t *offset_json(struct run *run)
{
    return json_pack("{s:I}", "offset", (json_int_t)run_input_offset(run_input(run)));
}

/* One piece, whole. The program's pace is ours. */
static int add_piece(struct feeder *f, size_t len, struct err *e)
{
    uint64_t end = f->offset + len;
    uint32_t waited = 0;
    while (f->offset < end) {
        int r = run_input_add(run_input(f->run), &f->offset,
            f->piece + (len - (size_t)(end - f->offset)), (size_t)(end - f->offset), SLICE_MS, e);
        waited = r == -EAGAIN ? waited + SLICE_MS : 0;
        if (r == -EAGAIN && (atomic_load(&f->gone) || atomic_load(&f->api->stopping)))
            return err_refuse(e, PROTO_UNAVAILABLE, "the server is stopping");
        if (waited >= ROOM_MS)
            return err_refuse(e, PROTO_BUSY,
                "the program does not read what is there: go on at details.offset in a moment");
        if (r < 0 && r != -EAGAIN)
            return r;
    }
    return 0;
}

static int feed_all(struct feeder *f, struct err *e)
{
    ssize_t n;
    while ((n = http_body_read(f->req, f->piece, PIECE_BYTES)) > 0) {
        int r = add_piece(f, (size_t)n, e);
        if (r < 0)
            return r;
    }
    if (n < 0)
        return err_set(e, (int)-n, "read the body");
    return f->eof ? run_input_end(run_input(f->run), f->offset, e) : 0;
}

static void note_gone(void *ctx)
{
    struct feeder *f = ctx;
    atomic_store(&f->gone, true);
}

static void *feed_main(void *ctx)
{
    struct feeder *f = ctx;
    struct api *api = f->api;
    struct err e = ERR_INIT;
    int r = feed_all(f, &e);
    run_input_unclaim(run_input(f->run));
    http_on_close(f->req, NULL, NULL);
    if (r < 0)
        api_fail(f->req, &e, offset_json(f->run));
    else
        api_reply_to(f->req, 200, offset_json(f->run));
    http_unref(f->req);
    run_unref(f->run);
    free(f);
    api_thread_ended(api);
    return NULL;
}

static int parse(
    struct call *call, struct run *run, uint64_t *ret_offset, bool *ret_eof, struct err *e)
{
    const char *offset = http_header(call->req, "Upload-Offset");
    if (!run_takes_input(run))
        return err_refuse(e, PROTO_INPUT_CLOSED,
            "this run takes no input: it was started without 'stdin_stream'");
    *ret_offset = run_input_offset(run_input(run));
    if (offset && num_u64(offset, INT64_MAX, ret_offset) < 0)
        return err_refuse(e, PROTO_INVALID_VALUE,
            "the header Upload-Offset must say how many bytes of the input come before the body");
    return api_query_bool(call, "eof", ret_eof, e);
}

/* Takes the run. */
static int start_feeding(
    struct call *call, struct run *run, uint64_t offset, bool eof, struct err *e)
{
    struct feeder *f = malloc(sizeof(*f));
    if (!f) {
        run_unref(run);
        return err_set(e, ENOMEM, "take the input");
    }
    f->api = call->api;
    f->req = call->req;
    f->run = run;
    f->offset = offset;
    f->eof = eof;
    atomic_init(&f->gone, false);
    http_ref(call->req);
    http_on_close(call->req, note_gone, f);
    int r = api_thread(call->api, feed_main, f, e);
    if (r == 0)
        return 0;
    http_on_close(call->req, NULL, NULL);
    run_input_unclaim(run_input(run));
    http_unref(call->req);
    run_unref(run);
    free(f);
    return r;
}

void api_run_stdin(struct call *call)
{
    struct run *run = NULL;
    struct err e = ERR_INIT;
    uint64_t offset = 0;
    bool eof = false;
    int r = find_run(call, &run, &e);
    if (r == 0)
        r = parse(call, run, &offset, &eof, &e);
    if (r >= 0 && !run_input_claim(run_input(run)))
        r = err_refuse(&e, PROTO_BUSY, "another request is writing to this run's input");
    if (r >= 0)
        r = start_feeding(call, run, offset, eof, &e);
    else if (run)
        run_unref(run);
    if (r < 0)
        api_fail(call->req, &e, NULL);
}

void api_run_resize(struct call *call)
{
    static const char *const known[] = {"rows", "cols", NULL};
    struct run *run = NULL;
    struct err e = ERR_INIT;
    json_t *body = NULL;
    uint64_t rows = 0, cols = 0;
    int r = find_run(call, &run, &e);
    if (r == 0)
        r = api_read_json(call, &body, &e);
    if (r == 0)
        r = body_known(body, "the request", known, &e);
    if (r >= 0)
        r = body_number(body, "rows", 1, 10000, &rows, &e);
    if (r >= 0)
        r = body_number(body, "cols", 1, 10000, &cols, &e);
    if (r >= 0 && (rows == 0 || cols == 0))
        r = err_refuse(&e, PROTO_INVALID_VALUE, "give both 'rows' and 'cols'");
    if (r >= 0 && !run_has_terminal(run))
        r = err_refuse(&e, PROTO_INPUT_CLOSED, "this run has no terminal");
    if (r >= 0) {
        run_input_resize(run_input(run), (unsigned)rows, (unsigned)cols);
        api_reply(
            call, 200, json_pack("{s:I, s:I}", "rows", (json_int_t)rows, "cols", (json_int_t)cols));
    } else {
        api_fail(call->req, &e, NULL);
    }
    if (run)
        run_unref(run);
    json_decref(body);
}
