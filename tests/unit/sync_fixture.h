/* SPDX-License-Identifier: MIT */
/*
 * A server as small as can be that takes change sets as the protocol says: bases, parents, epoch.
 * It keeps its tree in memory, so that a test can look at it, change it behind the agent's back,
 * and count what arrived. One thread per connection.
 */
#ifndef TESTS_UNIT_SYNC_FIXTURE_H
#define TESTS_UNIT_SYNC_FIXTURE_H

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include <cmocka.h>

#include "shared/changes.h"
#include "shared/delta.h"
#include "shared/io.h"
#include "shared/path.h"
#include "shared/tree.h"

#define FAKE_ENTRIES_MAX 8192
#define FAKE_BODY_MAX (256u * 1024 * 1024)

struct fake_entry {
    char *path;
    enum tree_kind kind;
    uint32_t mode;
    char *data; /* content or target */
    size_t len;
    struct hash hash;
};

struct fake {
    pthread_mutex_t lock;
    pthread_cond_t applied;
    int listen_fd;
    uint16_t port;
    pthread_t thread;
    struct fake_entry entries[FAKE_ENTRIES_MAX];
    size_t count;
    uint64_t generation, last_seq;
    struct hash last_digest;
    char epoch[40], client[128];
    /* What arrived. */
    unsigned sets, refused, requests, keeps, ops[CHANGE_KIND_END]; /* keeps: of sets that were applied */
    uint64_t content_bytes;
    /* What to do next. */
    unsigned break_answers; /* apply, then close the connection without an answer */
    /* Of two sets under way, close the second's connection, then answer the first. */
    enum { FAKE_NO_CUT, FAKE_CUT_SECOND, FAKE_WAS_CUT } cut_second;
    /* Of two sets under way, answer the second first. */
    enum { FAKE_IN_ORDER, FAKE_SWAP, FAKE_SWAPPED } swap;
    bool refuse_lease;
};

static void fake_die(const char *what)
{
    /* Not cmocka's fail: that belongs to the test's thread. */
    (void)dprintf(2, "fake server: %s\n", what);
    abort();
}

/* ---- the tree; lock is held */

static struct fake_entry *fake_find(struct fake *f, const char *path)
{
    for (size_t i = 0; i < f->count; i++) {
        if (strcmp(f->entries[i].path, path) == 0)
            return &f->entries[i];
    }
    return NULL;
}

static void fake_drop(struct fake *f, struct fake_entry *entry)
{
    free(entry->path);
    free(entry->data);
    *entry = f->entries[--f->count];
}

static void fake_drop_tree(struct fake *f, const char *path)
{
    for (size_t i = f->count; i-- > 0;) {
        if (path_beneath(path, f->entries[i].path))
            fake_drop(f, &f->entries[i]);
    }
}

static void fake_put(struct fake *f, const char *path, enum tree_kind kind, uint32_t mode,
    const void *data, size_t len)
{
    struct fake_entry *entry = fake_find(f, path);
    if (entry)
        fake_drop(f, entry);
    if (f->count == FAKE_ENTRIES_MAX)
        fake_die("too many entries");
    entry = &f->entries[f->count++];
    *entry = (struct fake_entry){
        .path = strdup(path), .kind = kind, .mode = mode, .data = malloc(len + 1), .len = len};
    if (len)
        memcpy(entry->data, data, len);
    entry->data[len] = '\0';
    if (kind != TREE_DIR)
        hash_buf(entry->data, len, &entry->hash);
}

/* ---- change sets */

struct fake_work {
    struct fake *f; /* a copy that is thrown away if the set is refused */
    json_t *conflicts;
    bool path_conflict;
};

static json_t *fake_describe(const struct fake_entry *entry, const char *path)
{
    static const char *const kinds[] = {
        [TREE_FILE] = "file", [TREE_DIR] = "dir", [TREE_SYMLINK] = "symlink"};
    char text[HASH_TEXT_BYTES];
    if (!entry)
        return json_pack("{s:s,s:b}", "path", path, "exists", 0);
    json_t *o = json_pack("{s:s,s:b,s:s}", "path", path, "exists", 1, "kind", kinds[entry->kind]);
    if (entry->kind != TREE_DIR)
        (void)json_object_update_new(o, json_pack("{s:I,s:s}", "size", (json_int_t)entry->len,
                                            "hash", hash_text(&entry->hash, text)));
    return o;
}

static void fake_conflict(struct fake_work *w, const char *path, bool of_path)
{
    w->path_conflict = w->path_conflict || of_path;
    (void)json_array_append_new(w->conflicts, fake_describe(fake_find(w->f, path), path));
}

static bool fake_base_fits(struct fake_work *w, const struct change_op *op, const char *path)
{
    const struct fake_entry *entry = fake_find(w->f, path);
    bool fits = true;
    if (op->base_kind == CHANGE_BASE_ABSENT)
        fits = !entry;
    else if (op->base_kind == CHANGE_BASE_DIR)
        fits = entry && entry->kind == TREE_DIR;
    else if (op->base_kind == CHANGE_BASE_HASH)
        fits = entry && entry->kind != TREE_DIR && hash_equal(&entry->hash, &op->base);
    if (!fits)
        fake_conflict(w, path, false);
    return fits;
}

static ssize_t fake_delta_source(void *ctx, void *data, size_t len)
{
    struct buf *b = ctx;
    size_t n = b->len < len ? b->len : len;
    memcpy(data, b->data, n);
    buf_consume(b, n);
    return (ssize_t)n;
}

/* Replace the delta in b by what it makes of the entry. */
static void fake_patch(const struct fake_entry *entry, const struct change_op *op, struct buf *b)
{
    int basis = memfd_create("basis", MFD_CLOEXEC), out = memfd_create("out", MFD_CLOEXEC);
    struct hash hash;
    struct err e = ERR_INIT;
    if (basis < 0 || out < 0 || io_write_all(basis, entry->data, entry->len) < 0)
        fake_die("memfd");
    if (delta_patch(basis, fake_delta_source, b, b->len, out, op->size, &hash, &e) < 0)
        fake_die(e.msg);
    buf_reset(b);
    (void)lseek(out, 0, SEEK_SET);
    if (io_read_rest(out, b) < 0)
        fake_die("read back");
    (void)close(basis);
    (void)close(out);
}

static void fake_check_content(const struct change_op *op, const struct buf *b)
{
    struct hash hash;
    hash_buf(b->data ? (const void *)b->data : "", b->len, &hash);
    if (b->len != op->size || !hash_equal(&hash, &op->hash))
        fake_die("content does not match its hash");
}

static void fake_move(struct fake *f, const char *from, const char *to)
{
    size_t from_len = strlen(from);
    for (size_t i = 0; i < f->count; i++) {
        char *path = NULL;
        if (!path_beneath(from, f->entries[i].path))
            continue;
        if (asprintf(&path, "%s%s", to, f->entries[i].path + from_len) < 0)
            fake_die("memory");
        free(f->entries[i].path);
        f->entries[i].path = path;
    }
}

static void fake_op(struct fake_work *w, const struct change_op *op, struct buf *content)
{
    struct fake *f = w->f;
    struct fake_entry *entry = fake_find(f, op->path);
    char *parent = strndup(op->path, path_parent_len(op->path));
    const struct fake_entry *above = fake_find(f, parent);
    if (*parent && op->kind != CHANGE_DELETE && above && above->kind != TREE_DIR) {
        fake_conflict(w, parent, true);
        free(parent);
        return;
    }
    free(parent);
    if (!fake_base_fits(w, op, op->kind == CHANGE_COPY ? op->to : op->path))
        return;
    switch (op->kind) {
    case CHANGE_PATCH:
        fake_patch(entry, op, content);
        /* fall through */
    case CHANGE_PUT:
        fake_check_content(op, content);
        if (entry && entry->kind == TREE_DIR)
            fake_conflict(w, op->path, true);
        else
            fake_put(f, op->path, TREE_FILE, op->mode | 0400, content->data, content->len);
        break;
    case CHANGE_MOVE:
        if (!entry || fake_find(f, op->to))
            fake_conflict(w, entry ? op->to : op->path, true);
        else
            fake_move(f, op->path, op->to);
        break;
    case CHANGE_COPY:
        above = fake_find(f, op->to);
        if (!entry || (above && above->kind == TREE_DIR) || !hash_equal(&entry->hash, &op->hash)) {
            fake_conflict(w, op->path, false);
        } else {
            char *data = malloc(entry->len + 1);
            size_t len = entry->len;
            uint32_t mode = entry->mode;
            memcpy(data, entry->data, len);
            fake_put(f, op->to, TREE_FILE, mode, data, len);
            free(data);
        }
        break;
    case CHANGE_MKDIR:
        if (entry && entry->kind != TREE_DIR)
            fake_conflict(w, op->path, true);
        else
            fake_put(f, op->path, TREE_DIR, op->mode | 0700, "", 0);
        break;
    case CHANGE_SYMLINK:
        fake_put(f, op->path, TREE_SYMLINK, 0777, op->to, strlen(op->to));
        break;
    case CHANGE_CHMOD:
        if (entry)
            entry->mode = op->mode;
        break;
    case CHANGE_DELETE:
        for (size_t i = 0; entry && !op->recursive && i < f->count; i++) {
            if (strcmp(f->entries[i].path, op->path) != 0 &&
                path_beneath(op->path, f->entries[i].path)) {
                fake_conflict(w, op->path, true);
                return;
            }
        }
        fake_drop_tree(f, op->path);
        break;
    default:
        fake_die("unexpected operation");
    }
}

static void fake_copy_tree(const struct fake *from, struct fake *to)
{
    to->count = 0;
    for (size_t i = 0; i < from->count; i++) {
        const struct fake_entry *entry = &from->entries[i];
        fake_put(to, entry->path, entry->kind, entry->mode, entry->data, entry->len);
    }
}

static void fake_clear_tree(struct fake *f)
{
    while (f->count)
        fake_drop(f, &f->entries[0]);
}

static json_t *fake_error(const char *code, json_t *details)
{
    return json_pack("{s:{s:s,s:s,s:b,s:s,s:o*}}", "error", "code", code, "message", code,
        "retryable", 0, "request_id", "r", "details", details);
}

struct fake_body {
    const uint8_t *data;
    size_t len;
};

static ssize_t fake_read(void *ctx, void *data, size_t len)
{
    struct fake_body *b = ctx;
    size_t n = b->len < len ? b->len : len;
    memcpy(data, b->data, n);
    b->data += n;
    b->len -= n;
    return (ssize_t)n;
}

/* All operations on a copy; it becomes the tree if nothing was in the way. */
static json_t *fake_apply(struct fake *f, struct changes_reader *reader)
{
    struct fake_work w = {.f = calloc(1, sizeof(*f)), .conflicts = json_array()};
    struct change_op op;
    struct err e = ERR_INIT;
    unsigned ops[CHANGE_KIND_END] = {0}, keeps = 0;
    uint64_t content_bytes = 0;
    bool changed = false;
    int r;
    fake_copy_tree(f, w.f);
    while ((r = changes_read_op(reader, &op, &e)) == 1) {
        struct buf content;
        uint8_t piece[8192];
        ssize_t n;
        buf_init(&content, FAKE_BODY_MAX);
        while ((n = changes_read_data(reader, piece, sizeof(piece), &e)) > 0) {
            if (buf_add(&content, piece, (size_t)n) < 0)
                fake_die("content");
        }
        ops[op.kind]++;
        keeps += op.keep;
        content_bytes += content.len;
        if (op.open) { /* its hash is known at its end, and follows it */
            content.len -= HASH_BYTES;
            memcpy(op.hash.b, content.data + content.len, HASH_BYTES);
        }
        fake_op(&w, &op, &content);
        changed = true;
        buf_release(&content);
    }
    if (r < 0)
        fake_die(e.msg);
    json_t *answer;
    if (json_array_size(w.conflicts)) {
        f->refused++;
        answer = fake_error(w.path_conflict ? "path_conflict" : "base_mismatch",
            json_pack("{s:O}", "conflicts", w.conflicts));
    } else {
        fake_clear_tree(f);
        fake_copy_tree(w.f, f);
        f->generation += changed;
        f->sets++;
        f->content_bytes += content_bytes;
        f->keeps += keeps;
        for (size_t i = 0; i < CHANGE_KIND_END; i++)
            f->ops[i] += ops[i];
        answer = json_pack("{s:I,s:s,s:i,s:i,s:i,s:i,s:b}", "generation", (json_int_t)f->generation,
            "epoch", f->epoch, "created", (int)ops[CHANGE_PUT], "updated", (int)ops[CHANGE_PATCH],
            "moved", (int)ops[CHANGE_MOVE], "deleted", (int)ops[CHANGE_DELETE], "repeated", 0);
    }
    json_decref(w.conflicts);
    fake_clear_tree(w.f);
    free(w.f);
    return answer;
}

static bool fake_is_repeat(const struct fake *f, struct changes_reader *reader)
{
    struct change_op op;
    struct hash digest;
    struct err e = ERR_INIT;
    while (changes_read_op(reader, &op, &e) == 1)
        ;
    changes_reader_digest(reader, &digest);
    return hash_equal(&digest, &f->last_digest);
}

static json_t *fake_changes(struct fake *f, const uint8_t *data, size_t len)
{
    struct fake_body body = {.data = data, .len = len};
    struct changes_reader *reader = changes_reader_new(fake_read, &body);
    struct changes_begin begin;
    struct err e = ERR_INIT;
    json_t *answer = NULL;
    if (changes_read_begin(reader, &begin, &e) < 0)
        fake_die(e.msg);
    if (f->refuse_lease)
        answer = fake_error("linked_elsewhere", NULL);
    else if (strcmp(begin.epoch, f->epoch) != 0)
        answer = fake_error("epoch_mismatch", NULL);
    if (!answer && strcmp(begin.client, f->client) != 0) {
        (void)snprintf(f->client, sizeof(f->client), "%s", begin.client);
        f->last_seq = 0;
    }
    /* Only a repeat of the latest is known: enough for one lost answer. */
    if (!answer && begin.seq == f->last_seq && fake_is_repeat(f, reader))
        answer = json_pack("{s:I,s:s,s:b}", "generation", (json_int_t)f->generation, "epoch",
            f->epoch, "repeated", 1);
    else if (!answer && (begin.seq <= f->last_seq || begin.parent < f->last_seq))
        answer = fake_error("seq_conflict", NULL);
    if (!answer && begin.parent != f->last_seq) {
        struct timespec until;
        (void)clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += 2;
        while (begin.parent != f->last_seq &&
               pthread_cond_timedwait(&f->applied, &f->lock, &until) == 0)
            ;
        if (begin.parent != f->last_seq)
            answer = fake_error("predecessor_refused", NULL);
    }
    if (!answer) {
        answer = fake_apply(f, reader);
        if (!json_object_get(answer, "error")) {
            f->last_seq = begin.seq;
            changes_reader_digest(reader, &f->last_digest);
        }
        (void)pthread_cond_broadcast(&f->applied);
    }
    changes_reader_free(reader);
    return answer;
}

static json_t *fake_files(struct fake *f)
{
    json_t *items = json_array();
    for (size_t i = 0; i < f->count; i++) {
        char mode[8];
        json_t *item = fake_describe(&f->entries[i], f->entries[i].path);
        (void)snprintf(mode, sizeof(mode), "%04o", f->entries[i].mode);
        (void)json_object_set_new(item, "mode", json_string(mode));
        (void)json_array_append_new(items, item);
    }
    return json_pack("{s:I,s:s,s:o,s:n}", "generation", (json_int_t)f->generation, "epoch",
        f->epoch, "items", items, "next_cursor");
}

/* ---- HTTP */

struct fake_request {
    char line[512];
    struct buf body;
    bool close;
};

static bool fake_get_line(FILE *in, char *out, size_t size)
{
    if (!fgets(out, (int)size, in))
        return false;
    out[strcspn(out, "\r\n")] = '\0';
    return true;
}

static void fake_take(FILE *in, struct buf *b, size_t len)
{
    if (buf_reserve(b, len) < 0 || fread(b->data + b->len, 1, len, in) != len)
        fake_die("a body ended early");
    b->len += len;
}

static bool fake_get(FILE *in, struct fake_request *req)
{
    char header[512];
    size_t len = 0;
    bool chunked = false, zstd = false;
    buf_init(&req->body, FAKE_BODY_MAX);
    if (!fake_get_line(in, req->line, sizeof(req->line)))
        return false;
    while (fake_get_line(in, header, sizeof(header)) && *header) {
        if (strncasecmp(header, "content-length:", 15) == 0)
            len = strtoul(header + 15, NULL, 10);
        chunked = chunked || strcasecmp(header, "transfer-encoding: chunked") == 0;
        zstd = zstd || strcasecmp(header, "content-encoding: zstd") == 0;
    }
    if (len)
        fake_take(in, &req->body, len);
    while (chunked && fake_get_line(in, header, sizeof(header)) &&
           (len = strtoul(header, NULL, 16)) > 0) {
        fake_take(in, &req->body, len);
        (void)fake_get_line(in, header, sizeof(header));
    }
    if (chunked)
        (void)fake_get_line(in, header, sizeof(header));
    if (zstd) {
        struct buf plain;
        buf_init(&plain, FAKE_BODY_MAX);
        ZSTD_DStream *d = ZSTD_createDStream();
        ZSTD_inBuffer z = {.src = req->body.data, .size = req->body.len};
        uint8_t piece[65536];
        while (z.pos < z.size) {
            ZSTD_outBuffer out = {.dst = piece, .size = sizeof(piece)};
            size_t r = ZSTD_decompressStream(d, &out, &z);
            if (ZSTD_isError(r) || (out.pos && buf_add(&plain, piece, out.pos) < 0))
                fake_die("zstd");
        }
        (void)ZSTD_freeDStream(d);
        buf_release(&req->body);
        req->body = plain;
    }
    return true;
}

/* The parent tells which of the two first sets it is. */
static bool fake_is_second(const struct fake_request *req)
{
    const uint8_t *begin = (const uint8_t *)req->body.data + 13, *parent = begin + 1 + begin[0] + 8;
    bool second = false;
    for (int i = 0; i < 8; i++)
        second = second || parent[i] != 0;
    return second;
}

/* False: this one is cut. */
static bool fake_cut_second(struct fake *f, const struct fake_request *req)
{
    if (!strstr(req->line, "/changes"))
        return true;
    (void)pthread_mutex_lock(&f->lock);
    bool second = fake_is_second(req);
    bool cut = f->cut_second == FAKE_CUT_SECOND && second;
    if (cut)
        f->cut_second = FAKE_WAS_CUT;
    while (f->cut_second == FAKE_CUT_SECOND) {
        (void)pthread_mutex_unlock(&f->lock);
        (void)usleep(1000);
        (void)pthread_mutex_lock(&f->lock);
    }
    (void)pthread_mutex_unlock(&f->lock);
    if (!cut && !second)
        (void)usleep(50000); /* so that the client hears of the cut first */
    return !cut;
}

/* The first waits here until the second was answered, and a moment more. */
static void fake_await_second(struct fake *f, const struct fake_request *req)
{
    (void)pthread_mutex_lock(&f->lock);
    bool waits = f->swap == FAKE_SWAP && !fake_is_second(req);
    while (waits && f->swap == FAKE_SWAP) {
        (void)pthread_mutex_unlock(&f->lock);
        (void)usleep(1000);
        (void)pthread_mutex_lock(&f->lock);
    }
    (void)pthread_mutex_unlock(&f->lock);
    if (waits)
        (void)usleep(50000);
}

static bool fake_answer(struct fake *f, int fd, const struct fake_request *req)
{
    if (!fake_cut_second(f, req))
        return false;
    (void)pthread_mutex_lock(&f->lock);
    f->requests++;
    bool changes = strstr(req->line, "/changes") != NULL;
    json_t *answer = changes ? fake_changes(f, req->body.data, req->body.len) : fake_files(f);
    bool cut = changes && f->break_answers > 0;
    bool lets_go = changes && f->swap == FAKE_SWAP && fake_is_second(req);
    f->break_answers -= cut;
    (void)pthread_mutex_unlock(&f->lock);
    char *text = json_dumps(answer, JSON_COMPACT);
    if (changes)
        fake_await_second(f, req);
    if (!cut)
        (void)dprintf(fd,
            "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
            json_object_get(answer, "error") ? "409 Conflict" : "200 OK", strlen(text), text);
    if (lets_go) { /* else the test may be over by now */
        (void)pthread_mutex_lock(&f->lock);
        f->swap = FAKE_SWAPPED;
        (void)pthread_mutex_unlock(&f->lock);
    }
    free(text);
    json_decref(answer);
    return !cut;
}

struct fake_conn {
    struct fake *f;
    int fd;
};

static void *fake_serve(void *arg)
{
    struct fake_conn *conn = arg;
    FILE *in = fdopen(dup(conn->fd), "r");
    struct fake_request req;
    bool go_on = true;
    while (go_on && fake_get(in, &req)) {
        go_on = fake_answer(conn->f, conn->fd, &req);
        buf_release(&req.body);
    }
    (void)fclose(in);
    (void)close(conn->fd);
    free(conn);
    return NULL;
}

static void *fake_accept(void *arg)
{
    struct fake *f = arg;
    int fd;
    while ((fd = accept4(f->listen_fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
        struct fake_conn *conn = malloc(sizeof(*conn));
        pthread_t thread;
        *conn = (struct fake_conn){.f = f, .fd = fd};
        if (pthread_create(&thread, NULL, fake_serve, conn) != 0)
            fake_die("thread");
        (void)pthread_detach(thread);
    }
    return NULL;
}

static __attribute__((unused)) struct fake *fake_start(void)
{
    struct fake *f = calloc(1, sizeof(*f));
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(sin);
    assert_non_null(f);
    (void)pthread_mutex_init(&f->lock, NULL);
    (void)pthread_cond_init(&f->applied, NULL);
    (void)snprintf(f->epoch, sizeof(f->epoch), "epoch-1");
    f->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(f->listen_fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
    assert_int_equal(listen(f->listen_fd, 16), 0);
    assert_int_equal(getsockname(f->listen_fd, (struct sockaddr *)&sin, &len), 0);
    f->port = ntohs(sin.sin_port);
    assert_int_equal(pthread_create(&f->thread, NULL, fake_accept, f), 0);
    return f;
}

/* The client must be gone: its connections end their threads. */
static __attribute__((unused)) void fake_stop(struct fake *f)
{
    (void)shutdown(f->listen_fd, SHUT_RDWR);
    (void)pthread_join(f->thread, NULL);
    (void)close(f->listen_fd);
    (void)pthread_mutex_lock(&f->lock);
    fake_clear_tree(f);
    (void)pthread_mutex_unlock(&f->lock);
    free(f);
}

#endif
