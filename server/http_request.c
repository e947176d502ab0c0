/* SPDX-License-Identifier: MIT */
#include "server/http_internal.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include "shared/hash.h"
#include "shared/io.h"
#include "shared/log.h"
#include "shared/num.h"
#include "shared/text.h"
#include "shared/weaken.h"

#include "shared/banned.h"

/* ---- life */

struct http_request *http_request_new(struct http_server *s, const char *target)
{
    struct http_request *req = calloc(1, sizeof(*req));
    char *copy = strdup(target);
    if (!req || !copy) {
        free(req);
        free(copy);
        return NULL;
    }
    req->server = s;
    atomic_fetch_add(&s->refs, 1);
    atomic_init(&req->refs, 2);
    atomic_init(&req->users, 1);
    req->target = copy;
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_mutex_init(&req->lock, NULL);
    (void)pthread_cond_init(&req->cond, &attr);
    (void)pthread_condattr_destroy(&attr);
    http_ring_init(&req->in, HTTP_COLLECT_BYTES);
    http_ring_init(&req->out, HTTP_STREAM_BYTES);
    return req;
}

static void request_free(struct http_request *req)
{
    if (req->note_drop)
        req->note_drop(req->note);
    http_body_release(req);
    http_answer_release(req);
    pthread_cond_destroy(&req->cond);
    pthread_mutex_destroy(&req->lock);
    http_server_unref(req->server);
    free(req->headers);
    free(req->head_text);
    free(req->query);
    free(req->query_text);
    free(req->target);
    free(req);
}

void http_request_drop(struct http_request *req)
{
    if (atomic_fetch_sub(&req->refs, 1) == 1)
        request_free(req);
}

void http_ref(struct http_request *req)
{
    atomic_fetch_add(&req->users, 1);
}

/* The last one who could have answered is leaving. */
static void last_user(struct http_request *req)
{
    pthread_mutex_lock(&req->lock);
    bool open = req->begun && !req->completed;
    bool forgotten = open && req->kind == ANSWER_NONE && !req->gone;
    bool unended = open && req->kind == ANSWER_STREAM && !req->ended;
    /* Nobody is there to be answered: only the connection is still to be closed. */
    bool moot = open && req->kind == ANSWER_NONE && req->gone;
    if (unended || moot) {
        req->aborted = req->ended = true;
        http_wake_io(req);
    }
    unended = unended && !req->gone;
    pthread_mutex_unlock(&req->lock);
    if (unended)
        log_error("%s: the answer was begun and never ended", req->id);
    if (forgotten) {
        log_error("%s: nobody answered", req->id);
        http_reply_error(req, PROTO_INTERNAL, "The server forgot to answer; this is a defect.");
    }
}

void http_unref(struct http_request *req)
{
    if (atomic_fetch_sub(&req->users, 1) != 1)
        return;
    last_user(req);
    http_request_drop(req);
}

/* ---- the head */

struct walk {
    const char *next; /* where the next header line must begin */
    struct http_field fields[HTTP_HEADERS_MAX];
    size_t count, bytes;
    const char *why;
};

static bool is_token(const char *s)
{
    static const char token[] = "!#$%&'*+-.^_`|~0123456789"
                                "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    return *s && s[strspn(s, token)] == '\0';
}

static bool is_field_value(const char *s)
{
    for (; *s; s++)
        if (((unsigned char)*s < 0x20 && *s != '\t') || *s == 0x7f)
            return false;
    return true;
}

/* libmicrohttpd parses in place: ':' and line ends become NULs. So the strict grammar can be
 * checked afterwards, by where the pieces lie: a name must begin where the last line ended, and its
 * value must follow it. That refuses continuation lines (which 0.9.75 glues to the *name*), bare
 * line feeds, NULs, and white space around the name, whatever its own parser let through. */
static enum MHD_Result walk_header(
    void *cls, enum MHD_ValueKind kind, const char *name, const char *value)
{
    struct walk *w = cls;
    (void)kind;
    if (!value)
        value = "";
    const char *p = name + strlen(name) + 1;
    if (name != w->next || !is_token(name))
        w->why = "A header line is malformed (or continued on a second line).";
    else if (w->count == HTTP_HEADERS_MAX)
        w->why = "The request has too many headers.";
    else if (value < p || value > p + HTTP_HEAD_BYTES || !is_field_value(value))
        w->why = "A header's value is malformed.";
    else
        for (; p < value; p++)
            if (*p != ' ' && *p != '\t')
                w->why = "A header's value is malformed.";
    if (w->why)
        return MHD_NO;
    w->fields[w->count++] = (struct http_field){name, value};
    w->bytes += strlen(name) + strlen(value) + 2;
    w->next = value + strlen(value) + 2;
    return MHD_YES;
}

/* Headers live in libmicrohttpd's memory only as long as the connection: keep our own. */
static int copy_headers(struct http_request *req, const struct walk *w)
{
    req->headers = calloc(w->count + 1, sizeof(*req->headers));
    req->head_text = malloc(w->bytes + 1);
    if (!req->headers || !req->head_text)
        return -ENOMEM;
    char *out = req->head_text;
    for (size_t i = 0; i < w->count; i++) {
        size_t name_len = strlen(w->fields[i].name), len = strlen(w->fields[i].value);
        req->headers[i].name = memcpy(out, w->fields[i].name, name_len + 1);
        out += name_len + 1;
        while (
            len > 0 && (w->fields[i].value[len - 1] == ' ' || w->fields[i].value[len - 1] == '\t'))
            len--;
        req->headers[i].value = memcpy(out, w->fields[i].value, len);
        out[len] = '\0';
        out += len + 1;
    }
    req->header_count = w->count;
    return 0;
}

static const char *only(const struct walk *w, const char *name, unsigned *ret_count)
{
    const char *value = NULL;
    *ret_count = 0;
    for (size_t i = 0; i < w->count; i++)
        if (strcasecmp(w->fields[i].name, name) == 0) {
            value = w->fields[i].value;
            ++*ret_count;
        }
    return value;
}

/* Where does the body end? Two parties that disagree about it can be made to see different
 * requests, so anything but one clear statement is refused. */
static const char *check_framing(struct http_request *req, const struct walk *w, bool http11)
{
    unsigned lengths, codings, hosts, expects;
    const char *length = only(w, "Content-Length", &lengths);
    const char *coding = only(w, "Transfer-Encoding", &codings);
    const char *expect = only(w, "Expect", &expects);
    (void)only(w, "Host", &hosts);
    if (lengths > 1)
        return "More than one Content-Length.";
    if (codings && lengths)
        return "Content-Length together with Transfer-Encoding.";
    if (codings > 1 || (codings && (!http11 || strcasecmp(coding, "chunked") != 0)))
        return "The only transfer coding understood is chunked, in HTTP/1.1.";
    if (lengths && num_u64(length, UINT64_MAX - 1, &req->body_length) < 0)
        return "Content-Length is not a number.";
    if (hosts > 1 || (hosts == 0 && http11))
        return "A request needs exactly one Host header.";
    req->chunked = codings == 1;
    if (req->chunked)
        req->body_length = UINT64_MAX;
    req->expects_continue = http11 && expects && strcasecmp(expect, "100-continue") == 0;
    return NULL;
}

static const struct {
    const char *name;
    enum http_method method;
} METHODS[] = {
    {"GET", HTTP_GET},
    {"HEAD", HTTP_HEAD},
    {"POST", HTTP_POST},
    {"PUT", HTTP_PUT},
    {"PATCH", HTTP_PATCH},
    {"DELETE", HTTP_DELETE},
    {"OPTIONS", HTTP_OPTIONS},
};

/* Headers that decide something and of which the first alone would be believed: a second one, which
 * a proxy before us may have believed instead, is refused. */
static const char *const singular[] = {"Origin", "Sec-Fetch-Site", "Authorization", "Silt-Protocol",
    "Content-Type", "Content-Encoding", "Upload-Offset", "Range"};

static bool repeats(const struct walk *w)
{
    unsigned n = 0;
    for (size_t i = 0; i < sizeof(singular) / sizeof(singular[0]) && n < 2; i++)
        (void)only(w, singular[i], &n);
    return n > 1;
}

static enum http_method method_by_name(const char *name)
{
    for (size_t i = 0; i < sizeof(METHODS) / sizeof(METHODS[0]); i++)
        if (strcmp(METHODS[i].name, name) == 0)
            return METHODS[i].method;
    return HTTP_OTHER;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* One name or value of the query, in place; '+' is a space here, unlike in the path. */
static bool decode_query_part(char *s)
{
    char *out = s;
    for (; *s; s++, out++) {
        if (*s == '+') {
            *out = ' ';
        } else if (*s != '%') {
            *out = *s;
        } else {
            int high = hex_digit(s[1]), low = high < 0 ? -1 : hex_digit(s[2]);
            if (low < 0 || (high | low) == 0)
                return false;
            *out = (char)(high * 16 + low);
            s += 2;
        }
    }
    *out = '\0';
    return true;
}

static const char *parse_query(struct http_request *req, const char *query)
{
    req->query_text = strdup(query);
    req->query = calloc(HTTP_QUERY_MAX, sizeof(*req->query));
    if (!req->query_text || !req->query)
        return "Out of memory.";
    for (char *part = req->query_text, *next; part; part = next) {
        next = strchr(part, '&');
        if (next)
            *next++ = '\0';
        if (!*part)
            continue;
        if (req->query_count == HTTP_QUERY_MAX)
            return "The query has too many parameters.";
        char *value = strchr(part, '=');
        if (value)
            *value++ = '\0';
        if (!decode_query_part(part) || (value && !decode_query_part(value)))
            return "The query holds a bad percent sequence.";
        req->query[req->query_count++] = (struct http_field){part, value ? value : ""};
    }
    return NULL;
}

static const char *parse_target(struct http_request *req)
{
    for (const char *p = req->target; *p; p++)
        if (*p <= 0x20 || *p >= 0x7f)
            return "The request's target holds a character that must be percent-encoded.";
    if (req->target[0] != '/' && strcmp(req->target, "*") != 0)
        return "The request's target must be a path.";
    char *query = strchr(req->target, '?');
    if (!query)
        return NULL;
    *query++ = '\0';
    return parse_query(req, query);
}

int http_request_read_head(struct http_request *req, struct MHD_Connection *mhd, const char *method,
    const char *version, const char **ret_why)
{
    struct walk w = {.next = version + strlen(version) + 2};
    const union MHD_ConnectionInfo *size =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    (void)MHD_get_connection_values(mhd, MHD_HEADER_KIND, walk_header, &w);
    req->method = method_by_name(method);
    if (!w.why && (!size || size->header_size > HTTP_HEAD_BYTES))
        w.why = "The request's headers are too long.";
    if (!w.why && w.next + 2 != method + size->header_size)
        w.why = "A header line is malformed.";
    if (!w.why && !is_token(method))
        w.why = "The method is malformed.";
    /* What we know of the target ends at a NUL, a proxy's view of it may not. */
    if (!w.why && method + strlen(method) + 1 + strlen(req->target) + 1 != version &&
        !WEAK("target"))
        w.why = "The request line is malformed.";
    if (!w.why && repeats(&w) && !WEAK("repeats"))
        w.why = "A header that decides something stands there twice.";
    if (!w.why)
        w.why = check_framing(req, &w, strcmp(version, "HTTP/1.1") == 0);
    if (WEAK("framing"))
        w.why = NULL;
    req->unframed = w.why != NULL;
    if (!w.why && copy_headers(req, &w) < 0)
        w.why = "Out of memory.";
    if (!w.why)
        w.why = parse_target(req);
    *ret_why = w.why;
    return w.why ? -EBADMSG : 0;
}

/* ---- accessors */

enum http_method http_method(const struct http_request *req)
{
    return req->method;
}

const char *http_path(const struct http_request *req)
{
    return req->target;
}

const char *http_query(const struct http_request *req, const char *name)
{
    for (size_t i = 0; i < req->query_count; i++)
        if (strcmp(req->query[i].name, name) == 0)
            return req->query[i].value;
    return NULL;
}

const char *http_header(const struct http_request *req, const char *name)
{
    for (size_t i = 0; i < req->header_count; i++)
        if (strcasecmp(req->headers[i].name, name) == 0)
            return req->headers[i].value;
    return NULL;
}

const char *http_id(const struct http_request *req)
{
    return req->id;
}

const struct sockaddr_storage *http_peer(const struct http_request *req)
{
    return &req->peer;
}

const struct sockaddr_storage *http_local(const struct http_request *req)
{
    return &req->local;
}

int64_t *http_connection_mark(struct http_request *req)
{
    return &req->conn->mark;
}

void http_set_note(struct http_request *req, void *note, void (*drop)(void *))
{
    if (req->note_drop)
        req->note_drop(req->note);
    req->note = note;
    req->note_drop = drop;
}

void *http_note(const struct http_request *req)
{
    return req->note;
}

void http_set_lane(struct http_request *req, const void *key, size_t len, bool heavy)
{
    struct hash h;
    hash_buf(key, len, &h);
    memcpy(&req->job.lane, h.b, sizeof(req->job.lane));
    req->job.slow = heavy;
}

/* ---- the client leaves */

void http_request_fire_close(struct http_request *req)
{
    pthread_mutex_lock(&req->lock);
    void (*fn)(void *) = req->close_fn;
    if (fn) {
        /* Called at most once, without the lock; who clears it meanwhile waits for its return. */
        req->close_fn = NULL;
        req->close_running = true;
        req->close_thread = pthread_self();
        void *ctx = req->close_ctx;
        pthread_mutex_unlock(&req->lock);
        fn(ctx);
        pthread_mutex_lock(&req->lock);
        req->close_running = false;
        pthread_cond_broadcast(&req->cond);
    }
    pthread_mutex_unlock(&req->lock);
}

void http_on_close(struct http_request *req, void (*gone)(void *), void *ctx)
{
    pthread_mutex_lock(&req->lock);
    /* The function itself may clear or replace its entry: it must not wait for its own end. */
    while (req->close_running && !pthread_equal(req->close_thread, pthread_self()))
        (void)pthread_cond_wait(&req->cond, &req->lock);
    req->close_fn = gone;
    req->close_ctx = ctx;
    bool now = gone && req->gone;
    pthread_mutex_unlock(&req->lock);
    if (now)
        http_request_fire_close(req);
}
