/* SPDX-License-Identifier: MIT */
/*
 * What the files of the API share. A handler gets a struct call, which lives until the request's
 * last reference goes, and ends with one of api_reply, api_fail, an answer of http.h, or keeps the
 * request.
 */
#ifndef SERVER_API_INTERNAL_H
#define SERVER_API_INTERNAL_H

#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>

#include "server/api.h"
#include "server/route.h"
#include "shared/manifest.h"

#define API_LIST_MAX 1000
#define API_LIST_USUAL 100
#define API_MANIFEST_MAX 10000
#define API_THREADS_MAX 2048 /* streams and waits at the same time */
#define API_NEAR_MAX 5
#define API_DELTAS_MAX 8 /* processes that make deltas, at the same time */

struct api {
    struct api_config c;
    struct http_server *_Atomic server;
    uint64_t started_ns;
    atomic_bool stopping;
    pthread_mutex_t lock; /* threads */
    pthread_cond_t less;
    unsigned threads;
    pthread_mutex_t big; /* held while an answer with much output is built */
    atomic_uint deltas;  /* processes under way */
};

enum api_body { API_BODY_NONE, API_BODY_JSON, API_BODY_UPLOAD };

struct call;

struct api_route {
    enum http_method method;
    const char *pattern;
    void (*handle)(struct call *call);
    enum api_body body;
    int status; /* of success, for the documentation */
    const char *summary;
};

struct call {
    struct api *api;
    struct http_request *req;
    const struct api_route *route;
    struct route_match match;
};

extern const struct api_route api_routes[];
extern const size_t api_route_count;

/* ---- answers (api.c) */

/* Takes the object; NULL is answered as out of memory. */
void api_reply(struct call *call, int status, json_t *object);
void api_reply_to(struct http_request *req, int status, json_t *object);
/* Answer with the row of the refusal, or with what the errno means to a client. Takes details,
 * which may be NULL. */
void api_fail(struct http_request *req, const struct err *e, json_t *details);

/* ---- requests (api_request.c) */

/* The body as a JSON value, whatever its type says; an empty one is {}. */
int api_read_json(struct call *call, json_t **ret, struct err *e) WARN_UNUSED;
/* The sandbox that the path names: a reference. */
int api_sandbox(struct call *call, struct sandbox **ret, struct err *e) WARN_UNUSED;
/* DELETE of something that the sandbox has, named by the path's second parameter: 204, or why not.
 */
void api_delete_part(
    struct call *call, int (*remove)(struct sandbox *sb, const char *id, struct err *e));
/* ?limit= and friends: *ret stays as it is when the parameter is absent. */
int api_query_number(
    struct call *call, const char *name, uint64_t max, uint64_t *ret, struct err *e) WARN_UNUSED;
int api_query_bool(struct call *call, const char *name, bool *ret, struct err *e) WARN_UNUSED;
/* A file's path from the URL or the query, checked. "" is allowed where `root` says so. */
int api_check_path(const char *path, size_t len, bool root, struct err *e) WARN_UNUSED;
/* Does the comma-separated header hold this word (an ETag, a type)? */
bool api_header_has(const char *value, const char *word);
/* One range of bytes. 0: the whole; 1: *ret_start, *ret_len are set; -ERANGE: refuse. */
int api_range(
    const char *header, uint64_t size, uint64_t *ret_start, uint64_t *ret_len) WARN_UNUSED;
/* Run `main(ctx)` on a thread of its own; PROTO_BUSY when there are too many. The thread calls
 * api_thread_ended at its end. */
int api_thread(struct api *api, void *(*main)(void *), void *ctx, struct err *e) WARN_UNUSED;
void api_thread_ended(struct api *api);
/* "dir", "file", … as in every answer. */
const char *api_kind_name(enum tree_kind kind);
/* A hash as an ETag, quoted. */
void api_etag(const struct hash *hash, char out[HASH_TEXT_BYTES + 2]);
/* Answer with len bytes of fd, honouring Range; takes fd. */
void api_reply_file(struct call *call, int fd, uint64_t size, const char *type);
/* {"near":[…]} for a path that does not exist, or NULL. */
json_t *api_near(struct sandbox *sb, const char *path);
/* A name as text, and as name_base64 beside it if it is not UTF-8. */
int api_put_path(json_t *object, const char *name, const char *path) WARN_UNUSED;

/* ---- change sets (api_changes.c) */
void api_apply(struct call *call, struct sandbox *sb, const struct changes_begin *begin,
    const struct changes_feed *feed,
    void (*reply)(struct call *call, const struct sandbox_apply_result *result, void *ctx),
    void *ctx);

/* {"generation","epoch","conflicts":[…]} of a refused set, as far as they are known; or NULL. */
json_t *api_refusal_details(const struct sandbox_apply_result *result);

/* ---- runs (api_stream.c) */

enum api_format { API_OBJECT, API_SSE, API_NDJSON };
/* What the client wants to read: by its Accept header, or SSE if `stream`. */
enum api_format api_format(struct call *call, bool stream);
/* An event as it is sent, in place of what b holds. Takes it; NULL is -ENOMEM. */
int api_event_text(json_t *event, enum api_format format, struct buf *b) WARN_UNUSED;
/* A comment in SSE; an empty line between lines of JSON. */
const char *api_heartbeat(enum api_format format);
/* The id behind which a client wants to go on: Last-Event-ID or ?after=. 1: it said so. */
int api_last_event(struct call *call, uint64_t max, uint64_t *ret, struct err *e) WARN_UNUSED;
/* Answer with the events of a run, from after last_id on, to its end. The run or, for a recorded
 * one, its log and object are taken; `attached`: the run goes on for this client (run_attach). */
void api_follow(struct call *call, struct run *run, struct run_log *log, json_t *object,
    enum api_format format, uint64_t last_id, bool attached);
/* Answer with the run object once it has ended, or as it is after wait_ms; `asked`: also for a run
 * that never started, whose error is the answer otherwise. Takes the run. */
void api_wait(struct call *call, struct run *run, uint64_t wait_ms, bool asked);
/* Answer for an ended run: its object, or the error that kept it from starting. */
void api_reply_run(struct api *api, struct http_request *req, struct run *run);

/* ---- runs with their output (api_output.c) */

/* Answer with the run's object and what it printed. Above 256 KiB of output such answers are built
 * one at a time, since each may take several times RUN_INLINE_MAX, and wait for their readers in a
 * file. Blocks meanwhile. */
void api_reply_output(struct api *api, struct http_request *req, struct run *run, bool ended);
void api_reply_output_of(struct api *api, struct http_request *req, const char *id);

/* ---- handlers */
void api_sandbox_create(struct call *call);
void api_sandbox_list(struct call *call);
void api_sandbox_get(struct call *call);
void api_sandbox_patch(struct call *call);
void api_sandbox_delete(struct call *call);
void api_file_list(struct call *call);
void api_file_upload(struct call *call);
void api_file_get(struct call *call);
void api_file_put(struct call *call);
void api_file_delete(struct call *call);
void api_changes_post(struct call *call);
void api_signature_get(struct call *call);
void api_delta_post(struct call *call);
void api_conflict_list(struct call *call);
void api_conflict_get(struct call *call);
void api_conflict_delete(struct call *call);
void api_stage_create(struct call *call);
void api_stage_get(struct call *call);
void api_stage_patch(struct call *call);
void api_stage_delete(struct call *call);
void api_sandbox_events(struct call *call);
void api_exec_post(struct call *call);
void api_run_list(struct call *call);
void api_run_get(struct call *call);
void api_run_cancel(struct call *call);
void api_run_stdin(struct call *call);
void api_run_resize(struct call *call);
void api_run_delete(struct call *call);
void api_run_output(struct call *call);
void api_run_events(struct call *call);
void api_image_list(struct call *call);
void api_info_get(struct call *call);
void api_healthz(struct call *call);
void api_metrics(struct call *call);
void api_openapi(struct call *call);

#endif
