/* SPDX-License-Identifier: MIT */
#include "agent/client_call.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include "shared/banned.h"

#define RESPONSE_MAX (64u * 1024 * 1024)

/* ---- what libcurl calls */

size_t client_call_read(char *data, size_t size, size_t count, void *ctx)
{
    struct client_call *call = ctx;
    call->moved++;
    ssize_t n = call->req.read_body(call->req.ctx, data, size * count);

    if (n < 0) {
        call->aborted = (int)n;
        return CURL_READFUNC_ABORT;
    }
    return (size_t)n;
}

size_t client_call_write(char *data, size_t size, size_t count, void *ctx)
{
    struct client_call *call = ctx;
    size_t len = size * count;
    long status = 0;

    (void)call->curl->easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
    if (call->req.on_data && status >= 200 && status < 300) {
        int r = call->req.on_data(call->req.ctx, data, len);
        if (r == CLIENT_PAUSE)
            return CURL_WRITEFUNC_PAUSE;
        if (r) {
            call->aborted = r < 0 ? r : -ECANCELED;
            return 0;
        }
        return len;
    }
    if (buf_add(&call->response.body, data, len) < 0) {
        call->aborted = -EFBIG;
        return 0;
    }
    return len;
}

static void keep_header(const char *line, size_t len, const char *name, char *out, size_t out_size)
{
    size_t name_len = strlen(name);

    if (len <= name_len || strncasecmp(line, name, name_len) != 0 || line[name_len] != ':')
        return;
    const char *p = line + name_len + 1, *end = line + len;
    while (p < end && (*p == ' ' || *p == '\t'))
        p++;
    while (end > p && (end[-1] == '\r' || end[-1] == '\n' || end[-1] == ' '))
        end--;
    size_t n = (size_t)(end - p);
    if (n < out_size) {
        memcpy(out, p, n);
        out[n] = '\0';
    }
}

size_t client_call_header(char *data, size_t size, size_t count, void *ctx)
{
    struct client_call *call = ctx;
    size_t len = size * count;

    call->answered = true;
    call->moved++;
    keep_header(data, len, "ETag", call->response.etag, sizeof(call->response.etag));
    keep_header(data, len, "Silt-Run-Id", call->response.run_id, sizeof(call->response.run_id));
    return len;
}

/* ---- the result */

/* -EPROTO for a refusal of the server; -ECONNREFUSED where somebody in front of it says that it
 * does not answer. */
static int read_error_object(struct client_call *call, struct err *e)
{
    struct client_response *r = &call->response;
    json_t *root =
        json_loadb((const char *)r->body.data, r->body.len, JSON_REJECT_DUPLICATES, NULL);
    json_t *error = root ? json_object_get(root, "error") : NULL;
    const char *code = error ? json_string_value(json_object_get(error, "code")) : NULL;
    const char *message = error ? json_string_value(json_object_get(error, "message")) : NULL;

    if (!code || !message) {
        json_decref(root);
        r->retryable = r->status >= 502 && r->status <= 504;
        if (r->retryable)
            return err_say(e, ECONNREFUSED,
                "what stands in front of the server at %s answered %d: the server does not answer",
                call->server, r->status);
        return err_refuse(e, PROTO_INTERNAL,
            "the server answered %d, which is not an answer of siltd: is there another service at "
            "this address?",
            r->status);
    }
    enum proto_error refusal = proto_error_by_name(code);
    (void)err_refuse(e, refusal == PROTO_OK ? PROTO_INTERNAL : refusal, "%s", message);
    (void)snprintf(r->error_code, sizeof(r->error_code), "%s", code);
    r->retryable = json_is_true(json_object_get(error, "retryable"));
    r->error_details = json_incref(json_object_get(error, "details"));
    json_decref(root);
    return -EPROTO;
}

static int transport_error(struct client_call *call, CURLcode code, struct err *e)
{
    const char *server = call->server;

    call->response.retryable = true;
    switch (code) {
    case CURLE_COULDNT_CONNECT:
        return err_say(e, ECONNREFUSED,
            "no server answers at %s: start one with `siltd`, or name another with --server or "
            "SILT_SERVER",
            server);
    case CURLE_COULDNT_RESOLVE_HOST:
        return err_say(e, EHOSTUNREACH,
            "the name in %s cannot be resolved: check --server or SILT_SERVER", server);
    case CURLE_OPERATION_TIMEDOUT:
        return err_say(e, ETIMEDOUT, "the server at %s did not answer in time", server);
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL:
        return err_say(
            e, EINVAL, "'%s' is no server address: use HOST:PORT or http://HOST:PORT", server);
    default:
        return err_say(e, ECONNRESET, "the connection to %s broke: %s", server,
            call->message[0] ? call->message : call->curl->easy_strerror(code));
    }
}

int client_call_result(struct client_call *call, CURLcode code, struct err *e)
{
    struct client_response *r = &call->response;
    long status = 0, request_bytes = 0, header_bytes = 0;
    curl_off_t up = 0, down = 0, us = 0;

    (void)call->curl->easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
    (void)call->curl->easy_getinfo(call->easy, CURLINFO_REQUEST_SIZE, &request_bytes);
    (void)call->curl->easy_getinfo(call->easy, CURLINFO_HEADER_SIZE, &header_bytes);
    (void)call->curl->easy_getinfo(call->easy, CURLINFO_SIZE_UPLOAD_T, &up);
    (void)call->curl->easy_getinfo(call->easy, CURLINFO_SIZE_DOWNLOAD_T, &down);
    (void)call->curl->easy_getinfo(call->easy, CURLINFO_TOTAL_TIME_T, &us);
    r->status = (int)status;
    r->bytes_sent = (uint64_t)request_bytes + (uint64_t)up;
    r->bytes_received = (uint64_t)header_bytes + (uint64_t)down;
    r->elapsed_us = (uint64_t)us;

    /* A server may answer before it has read the whole body and then close; its answer is worth
     * more than the broken pipe. */
    if (status >= 400 && !call->aborted && r->body.len > 0)
        return read_error_object(call, e);
    if (call->aborted)
        return err_set(e, -call->aborted, "the request was given up");
    if (code != CURLE_OK)
        return transport_error(call, code, e);
    if (status < 200 || status >= 300)
        return read_error_object(call, e);
    return 0;
}

void client_call_free(struct client_call *call)
{
    if (!call)
        return;
    if (call->easy)
        call->curl->easy_cleanup(call->easy);
    call->curl->slist_free_all(call->headers);
    client_response_release(&call->response);
    free(call->url);
    free(call);
}

struct client_call *client_call_new(
    const struct client_curl *curl, const char *server, const struct client_request *req)
{
    struct client_call *call = calloc(1, sizeof(*call));

    if (!call)
        return NULL;
    call->req = *req;
    call->curl = curl;
    call->server = server;
    buf_init(&call->response.body, RESPONSE_MAX);
    call->easy = curl->easy_init();
    if (!call->easy || asprintf(&call->url, "%s%s", server, req->path) < 0) {
        client_call_free(call);
        return NULL;
    }
    return call;
}

void client_response_release(struct client_response *r)
{
    buf_release(&r->body);
    json_decref(r->error_details);
    r->error_details = NULL;
}
