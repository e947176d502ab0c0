/* SPDX-License-Identifier: MIT */
#include "agent/client.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include "agent/client_call.h"
#include "shared/io.h"
#include "shared/proto.h"

#include "shared/banned.h"

#define CONNECT_TIMEOUT_MS 5000
#define UPLOAD_BUFFER_BYTES (256L * 1024)
#define EXTRA_FDS_MAX 96

struct client {
    struct client_curl curl;
    CURLM *multi; /* NULL until the first request */
    char *server;
    char *token_header; /* "Authorization: Bearer …" or NULL */
    struct client_call *under_way;
    unsigned count;
    uint64_t deadline_ns; /* 0 = none */
    void (*on_silence)(void *ctx);
    void *silence_ctx;
    uint64_t quiet_since_ns, moved; /* nothing moved since then; the sum by which that is known */
    bool said_silence;
};

/* "host:port", "http://host:port/" → "http://host:port". */
static char *normalise(const char *server)
{
    const char *scheme = strstr(server, "://") ? "" : "http://";
    size_t len = strlen(server);
    char *text = NULL;

    while (len > 0 && server[len - 1] == '/')
        len--;
    if (asprintf(&text, "%s%.*s", scheme, (int)len, server) < 0)
        return NULL;
    return text;
}

int client_new(const struct client_config *config, struct client **ret, struct err *e)
{
    struct client *c = calloc(1, sizeof(*c));

    if (!c)
        return err_set(e, ENOMEM, "start the HTTP client");
    if (strlen(config->server) == 0 || strlen(config->server) > 1024 ||
        strpbrk(config->server, " \r\n\t")) {
        free(c);
        return err_say(e, EINVAL, "'%s' is no server address: use HOST:PORT or http://HOST:PORT",
            config->server);
    }
    if (config->token && strpbrk(config->token, "\r\n")) {
        free(c);
        return err_say(e, EINVAL, "the token in SILT_TOKEN holds a line break");
    }
    c->server = normalise(config->server);
    if (config->token && asprintf(&c->token_header, "Authorization: Bearer %s", config->token) < 0)
        c->token_header = NULL;
    if (!c->server || (config->token && !c->token_header)) {
        client_free(c);
        return err_set(e, ENOMEM, "start the HTTP client");
    }
    *ret = c;
    return 0;
}

void client_free(struct client *c)
{
    if (!c)
        return;
    while (c->under_way)
        client_abort(c, c->under_way);
    if (c->multi) {
        (void)c->curl.multi_cleanup(c->multi);
        c->curl.global_cleanup();
    }
    free(c->server);
    free(c->token_header);
    free(c);
}

/* Most commands that a watcher serves never come here. */
static int load(struct client *c, struct err *e)
{
    bool tls = strncasecmp(c->server, "http://", 7) != 0;
    int r = c->multi ? 0 : client_curl_load(&c->curl, tls, e);

    if (r == 0 && !c->multi && !(c->multi = c->curl.multi_init()))
        r = err_set(e, ENOMEM, "start the HTTP client");
    return r;
}

const char *client_server(const struct client *c)
{
    return c->server;
}

static bool add_header(struct client_call *call, const char *line)
{
    struct curl_slist *longer = call->curl->slist_append(call->headers, line);

    if (longer)
        call->headers = longer;
    return longer != NULL;
}

static bool add_named(struct client_call *call, const char *name, const char *value)
{
    char line[256];

    if (!value)
        return true;
    return snprintf(line, sizeof(line), "%s: %s", name, value) < (int)sizeof(line) &&
           add_header(call, line);
}

static bool build_headers(const struct client *c, struct client_call *call)
{
    const struct client_request *req = &call->req;
    bool ok = add_header(call, "Expect:") &&
              add_header(call, "Silt-Protocol: " PROTO_VERSION_TEXT) &&
              add_named(call, "Content-Encoding", req->content_encoding) &&
              add_header(call, "Accept-Encoding:");

    if (req->content_type)
        ok = ok && add_named(call, "Content-Type", req->content_type);
    else
        ok = ok && add_header(call, "Content-Type:");
    if (c->token_header)
        ok = ok && add_header(call, c->token_header);
    if (req->read_body && req->stream_len == UINT64_MAX)
        ok = ok && add_header(call, "Transfer-Encoding: chunked");
    for (size_t i = 0; ok && req->headers && req->headers[i]; i++)
        ok = add_header(call, req->headers[i]);
    return ok;
}

static void set_body(struct client_call *call)
{
    const struct client_request *req = &call->req;
    const struct client_curl *curl = call->curl;
    CURL *easy = call->easy;
    bool post = req->body_len > 0 || strcmp(req->method, "POST") == 0;

    if (req->read_body) {
        bool known = req->stream_len != UINT64_MAX;
        (void)curl->easy_setopt(easy, CURLOPT_POST, 1L);
        (void)curl->easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE,
            known ? (curl_off_t)req->stream_len : (curl_off_t)-1);
        (void)curl->easy_setopt(easy, CURLOPT_READFUNCTION, client_call_read);
        (void)curl->easy_setopt(easy, CURLOPT_READDATA, call);
        (void)curl->easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, UPLOAD_BUFFER_BYTES);
    } else if (strcmp(req->method, "HEAD") == 0) {
        (void)curl->easy_setopt(easy, CURLOPT_NOBODY, 1L);
    } else if (post) {
        /* libcurl sends what is in memory, up to 64 KiB, together with the head: one packet and one
         * awakening of the server less; and it sends it again by itself where a kept connection
         * turns out to be dead. */
        (void)curl->easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)req->body_len);
        (void)curl->easy_setopt(easy, CURLOPT_POSTFIELDS, req->body_len ? req->body : "");
        (void)curl->easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, UPLOAD_BUFFER_BYTES);
    }
}

static void set_options(struct client_call *call)
{
    const struct client_curl *curl = call->curl;
    CURL *easy = call->easy;

    (void)curl->easy_setopt(easy, CURLOPT_URL, call->url);
    (void)curl->easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    (void)curl->easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    (void)curl->easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    (void)curl->easy_setopt(easy, CURLOPT_TCP_NODELAY, 1L);
    (void)curl->easy_setopt(
        easy, CURLOPT_PROXY, ""); /* the workspace goes where it was told, nowhere else */
    (void)curl->easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_TIMEOUT_MS);
    (void)curl->easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)call->req.timeout_ms);
    (void)curl->easy_setopt(easy, CURLOPT_ERRORBUFFER, call->message);
    (void)curl->easy_setopt(easy, CURLOPT_USERAGENT, "silt/" SILT_VERSION);
    (void)curl->easy_setopt(easy, CURLOPT_HTTPHEADER, call->headers);
    (void)curl->easy_setopt(easy, CURLOPT_WRITEFUNCTION, client_call_write);
    (void)curl->easy_setopt(easy, CURLOPT_WRITEDATA, call);
    (void)curl->easy_setopt(easy, CURLOPT_HEADERFUNCTION, client_call_header);
    (void)curl->easy_setopt(easy, CURLOPT_HEADERDATA, call);
    (void)curl->easy_setopt(easy, CURLOPT_PRIVATE, call);
    set_body(call);
    (void)curl->easy_setopt(easy, CURLOPT_CUSTOMREQUEST,
        strcmp(call->req.method, "HEAD") == 0 ? NULL : call->req.method);
}

int client_start(struct client *c, const struct client_request *req, client_done *done,
    void *done_ctx, struct client_call **ret, struct err *e)
{
    int r = load(c, e);
    struct client_call *call = r == 0 ? client_call_new(&c->curl, c->server, req) : NULL;

    if (r < 0)
        return r;
    if (!call || !build_headers(c, call)) {
        client_call_free(call);
        return err_set(e, ENOMEM, "prepare a request");
    }
    call->done = done;
    call->done_ctx = done_ctx;
    set_options(call);
    if (c->curl.multi_add_handle(c->multi, call->easy) != CURLM_OK) {
        client_call_free(call);
        return err_say(e, EIO, "libcurl refused a request");
    }
    call->next = c->under_way;
    c->under_way = call;
    c->count++;
    /* Put it on the wire now rather than at the next step: the caller may go on computing. */
    int running = 0;
    (void)c->curl.multi_perform(c->multi, &running);
    if (ret)
        *ret = call;
    return 0;
}

static void unlist(struct client *c, struct client_call *call)
{
    for (struct client_call **at = &c->under_way; *at; at = &(*at)->next) {
        if (*at == call) {
            *at = call->next;
            c->count--;
            break;
        }
    }
    (void)c->curl.multi_remove_handle(c->multi, call->easy);
}

void client_abort(struct client *c, struct client_call *call)
{
    unlist(c, call);
    client_call_free(call);
}

const char *client_run_id(const struct client_call *call)
{
    return call->response.run_id;
}

void client_resume(struct client_call *call)
{
    (void)call->curl->easy_pause(call->easy, CURLPAUSE_CONT);
}

/* Tell the ends that libcurl has noticed; were there any? A `done` may start or abort other
 * requests. */
static bool finish_ended(struct client *c)
{
    bool any = false;
    int left = 0;
    CURLMsg *msg;

    while (c->multi && (msg = c->curl.multi_info_read(c->multi, &left)) != NULL) {
        struct client_call *call = NULL;
        CURLcode code = msg->data.result;

        if (msg->msg != CURLMSG_DONE)
            continue;
        (void)c->curl.easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **)&call);
        struct err e = ERR_INIT;
        int r = client_call_result(call, code, &e);
        unlist(c, call);
        call->done(call->done_ctx, r, &call->response, &e);
        client_call_free(call);
        any = true;
    }
    return any;
}

void client_on_silence(struct client *c, void (*tell)(void *ctx), void *ctx)
{
    c->on_silence = tell;
    c->silence_ctx = ctx;
}

static void notice_silence(struct client *c)
{
    uint64_t now = io_now_ns(), moved = 0;
    bool waits = false;

    for (const struct client_call *call = c->under_way; call; call = call->next) {
        moved += call->moved + 1;
        waits = waits || !call->answered;
    }
    if (!waits || moved != c->moved) {
        c->moved = moved;
        c->quiet_since_ns = now;
        c->said_silence = false;
    } else if (!c->said_silence &&
               now - c->quiet_since_ns >= CLIENT_SILENCE_MS * UINT64_C(1000000)) {
        c->said_silence = true;
        c->on_silence(c->silence_ctx);
    }
}

void client_deadline(struct client *c, uint64_t at_ns)
{
    c->deadline_ns = at_ns;
}

int client_step(
    struct client *c, struct pollfd *extra, unsigned extra_count, int timeout_ms, struct err *e)
{
    struct curl_waitfd fds[EXTRA_FDS_MAX];
    int running = 0, ready = 0;

    if (extra_count > EXTRA_FDS_MAX)
        return err_say(e, EINVAL, "too many descriptors to wait for");
    if (c->on_silence)
        notice_silence(c);
    if (c->deadline_ns) {
        uint64_t now = io_now_ns();
        if (now >= c->deadline_ns)
            return err_say(e, ETIMEDOUT, "the server did not acknowledge everything in time");
        uint64_t left_ms = (c->deadline_ns - now) / 1000000 + 1;
        if (timeout_ms < 0 || left_ms < (uint64_t)timeout_ms)
            timeout_ms = (int)left_ms;
    }
    /* A server on this machine may have answered while the request was being started: the caller
     * then wants to know, not to wait for what comes next. */
    if (finish_ended(c))
        timeout_ms = 0;
    if (!c->multi)
        return poll(extra, extra_count, timeout_ms) < 0 && errno != EINTR
                   ? err_set(e, errno, "wait")
                   : 0;
    for (unsigned i = 0; i < extra_count; i++)
        fds[i] = (struct curl_waitfd){.fd = extra[i].fd,
            .events = (short)((extra[i].events & POLLIN ? CURL_WAIT_POLLIN : 0) |
                              (extra[i].events & POLLOUT ? CURL_WAIT_POLLOUT : 0))};
    CURLMcode code = c->curl.multi_poll(c->multi, fds, extra_count, timeout_ms, &ready);
    if (code == CURLM_OK)
        code = c->curl.multi_perform(c->multi, &running);
    for (unsigned i = 0; i < extra_count; i++)
        extra[i].revents = (short)((fds[i].revents & CURL_WAIT_POLLIN ? POLLIN : 0) |
                                   (fds[i].revents & CURL_WAIT_POLLOUT ? POLLOUT : 0));
    (void)finish_ended(c);
    if (code != CURLM_OK)
        return err_say(e, EIO, "libcurl: %s", c->curl.multi_strerror(code));
    return (int)c->count;
}

/* ---- waiting */

struct waiter {
    bool ended;
    int result;
    struct client_response *response;
    struct err error;
};

static void waiter_done(
    void *ctx, int result, struct client_response *response, const struct err *e)
{
    struct waiter *w = ctx;

    w->ended = true;
    w->result = result;
    w->error = *e;
    /* Move the response out: the call is freed after this. */
    *w->response = *response;
    buf_init(&response->body, 0);
    response->error_details = NULL;
}

int client_call(
    struct client *c, const struct client_request *req, struct client_response *ret, struct err *e)
{
    struct waiter w = {.response = ret, .error = ERR_INIT};

    *ret = (struct client_response){.status = 0};
    buf_init(&ret->body, 0);
    int r = client_start(c, req, waiter_done, &w, NULL, e);
    while (r >= 0 && !w.ended)
        r = client_step(c, NULL, 0, 1000, e);
    if (r < 0)
        return r;
    if (w.result < 0 && e)
        *e = w.error;
    return w.result;
}

json_t *client_json(const struct client_response *r, struct err *e)
{
    json_error_t where;
    json_t *root =
        json_loadb((const char *)r->body.data, r->body.len, JSON_REJECT_DUPLICATES, &where);

    if (!root || !json_is_object(root)) {
        json_decref(root);
        (void)err_say(e, EPROTO,
            "the server's answer is not JSON: is there another service at this address?");
        return NULL;
    }
    return root;
}
