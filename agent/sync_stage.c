/* SPDX-License-Identifier: MIT */
/*
 * A large content goes to the server's stage before the set that names it: what arrived before a
 * connection broke, or either side was killed, is not sent again. `.silt/upload` remembers the
 * stage, with the hash of the content it was made for: another content gets another stage, and the
 * old one is dropped. One at a time, since no further set is built until this one is sent.
 */
#include "agent/sync_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "shared/io.h"
#include "shared/proto.h"
#include "shared/text.h"

#include "shared/banned.h"

#define NOTE_FILE "upload"
#define NOTE_MAX 4096
#define PIECE_BYTES (256u * 1024)
#define ID_BYTES 40

enum step { STEP_ASK, STEP_DROP, STEP_CREATE, STEP_SEND };

struct sync_stage {
    struct sync_set *set;
    struct change_op op; /* borrows its path from the set's item */
    int fd;
    struct stat stat; /* of the file whose hash is op.hash */
    enum step step;
    char id[ID_BYTES]; /* "": there is none yet */
    uint64_t offset;   /* that the server has */
    char path[128], offset_header[48], text[160];
    const char *headers[2];
    /* While it is sent: */
    uint64_t at; /* read so far */
    uint8_t *piece;
    size_t piece_len, piece_at;
    ZSTD_CCtx *zstd; /* NULL: it goes as it is */
    bool ended;
};

void sync_stage_free(struct sync_stage *st)
{
    if (!st)
        return;
    fd_closep(&st->fd);
    free(st->piece);
    (void)ZSTD_freeCCtx(st->zstd);
    free(st);
}

/* ---- the note */

static char *note_path(const struct sync *s)
{
    char *path = NULL;
    return asprintf(&path, "%s/" LINK_DIR "/" NOTE_FILE, s->link.root) < 0 ? NULL : path;
}

/* A stage of this sandbox from before, and whether it is for this content. */
static void read_note(const struct sync *s, struct sync_stage *st)
{
    CLEANUP(freep) char *path = note_path(s);
    CLEANUP(buf_release) struct buf b;
    struct hash hash;
    buf_init(&b, NOTE_MAX);
    st->step = STEP_CREATE;
    if (!path || io_read_file(path, NOTE_MAX, &b, NULL) < 0)
        return;
    json_t *note = json_loadb(buf_str(&b), b.len, JSON_REJECT_DUPLICATES, NULL);
    const char *sandbox = json_string_value(json_object_get(note, "sandbox")),
               *id = json_string_value(json_object_get(note, "stage")),
               *text = json_string_value(json_object_get(note, "hash"));
    json_int_t size = json_integer_value(json_object_get(note, "size"));
    if (sandbox && strcmp(sandbox, s->link.sandbox) == 0 && id && text_is_id("st_", id) &&
        strlen(id) < sizeof(st->id) && text && hash_parse(text, &hash) == 0) {
        memcpy(st->id, id, strlen(id) + 1);
        bool same = hash_equal(&hash, &st->op.hash) && size >= 0 && (uint64_t)size == st->op.size;
        st->step = same ? STEP_ASK : STEP_DROP;
    }
    json_decref(note);
}

/* Without it the next one begins anew: no reason to fail. */
static void write_note(const struct sync *s, const struct sync_stage *st)
{
    char hash[HASH_TEXT_BYTES];
    CLEANUP(freep) char *path = note_path(s);
    json_t *note = json_pack("{s:s,s:s,s:s,s:I}", "sandbox", s->link.sandbox, "stage", st->id,
        "hash", hash_text(&st->op.hash, hash), "size", (json_int_t)st->op.size);
    CLEANUP(freep) char *text = note ? json_dumps(note, JSON_COMPACT) : NULL;
    json_decref(note);
    if (path && text)
        (void)!io_write_file(path, text, strlen(text), 0600, NULL);
}

void sync_stage_forget(const struct sync *s)
{
    (void)unlinkat(s->dir_fd, NOTE_FILE, 0);
}

/* ---- the content, as it is sent */

/* The next piece into memory. -ESTALE when the file is not the one that was hashed any more. */
static int refill(struct sync_stage *st)
{
    struct sync *s = st->set->sync;
    uint64_t left = st->op.size - st->at;
    size_t want = left < PIECE_BYTES ? (size_t)left : PIECE_BYTES;
    struct stat now;
    if (fstat(st->fd, &now) < 0)
        return -errno;
    if (now.st_size != st->stat.st_size || now.st_mtim.tv_sec != st->stat.st_mtim.tv_sec ||
        now.st_mtim.tv_nsec != st->stat.st_mtim.tv_nsec)
        return -ESTALE;
    ssize_t n = io_pread_full(st->fd, st->piece, want, st->at);
    if (n < 0 || (size_t)n < want)
        return n < 0 ? (int)n : -ESTALE;
    st->piece_len = want;
    st->piece_at = 0;
    st->at += want;
    if (s->config.events.progress)
        s->config.events.progress(s->config.events.ctx, s->files_done, s->files_total,
            s->bytes_done + st->at, s->bytes_total);
    return 0;
}

static ssize_t compress(struct sync_stage *st, void *data, size_t len)
{
    ZSTD_outBuffer out = {.dst = data, .size = len};
    while (out.pos == 0 && !st->ended) {
        int r = st->piece_at == st->piece_len && st->at < st->op.size ? refill(st) : 0;
        if (r < 0)
            return r;
        ZSTD_inBuffer in = {.src = st->piece, .size = st->piece_len, .pos = st->piece_at};
        bool last = st->at == st->op.size;
        size_t left = ZSTD_compressStream2(st->zstd, &out, &in, last ? ZSTD_e_end : ZSTD_e_continue);
        if (ZSTD_isError(left))
            return -EIO;
        st->piece_at = in.pos;
        st->ended = last && left == 0;
    }
    return (ssize_t)out.pos;
}

static ssize_t read_content(void *ctx, void *data, size_t len)
{
    struct sync_stage *st = ctx;
    if (st->zstd)
        return compress(st, data, len);
    int r = st->piece_at == st->piece_len && st->at < st->op.size ? refill(st) : 0;
    if (r < 0)
        return r;
    size_t left = st->piece_len - st->piece_at, n = left < len ? left : len;
    memcpy(data, st->piece + st->piece_at, n);
    st->piece_at += n;
    return (ssize_t)n;
}

/* ---- requests */

static int prepare_content(struct sync_stage *st)
{
    struct client_request *req = &st->set->request;
    int level = sync_pack_level(st->set->sync);
    st->at = st->offset;
    st->piece_len = st->piece_at = 0;
    st->ended = false;
    if (!st->piece && !(st->piece = malloc(PIECE_BYTES)))
        return -ENOMEM;
    (void)ZSTD_freeCCtx(ptr_take(&st->zstd));
    if (sync_pack_shrinks(st->fd, level)) {
        st->zstd = ZSTD_createCCtx();
        if (!st->zstd ||
            ZSTD_isError(ZSTD_CCtx_setParameter(st->zstd, ZSTD_c_compressionLevel, level)))
            return -ENOMEM;
        req->content_encoding = "zstd";
    }
    req->method = "PATCH";
    req->content_type = "application/octet-stream";
    req->read_body = read_content;
    req->stream_len = st->zstd ? UINT64_MAX : st->op.size - st->offset;
    req->ctx = st;
    (void)snprintf(st->offset_header, sizeof(st->offset_header), "Upload-Offset: %" PRIu64,
        st->offset);
    st->headers[0] = st->offset_header;
    req->headers = st->headers;
    return 0;
}

int sync_stage_prepare(struct sync_set *set, struct err *e)
{
    struct sync_stage *st = set->stage;
    struct client_request *req = &set->request;
    char hash[HASH_TEXT_BYTES];
    int r = 0;
    *req = (struct client_request){.path = st->path};
    (void)snprintf(st->path, sizeof(st->path), "/v1/sandboxes/%s/stages%s%s",
        set->sync->link.sandbox, st->step == STEP_CREATE ? "" : "/",
        st->step == STEP_CREATE ? "" : st->id);
    switch (st->step) {
    case STEP_ASK:
        req->method = "GET";
        break;
    case STEP_DROP:
        req->method = "DELETE";
        break;
    case STEP_CREATE:
        (void)snprintf(st->text, sizeof(st->text), "{\"size\":%" PRIu64 ",\"hash\":\"%s\"}",
            st->op.size, hash_text(&st->op.hash, hash));
        req->method = "POST";
        req->content_type = "application/json";
        req->body = st->text;
        req->body_len = strlen(st->text);
        break;
    case STEP_SEND:
    default:
        r = prepare_content(st);
    }
    return r < 0 ? err_set(e, -r, "send '%s'", st->op.path) : 0;
}

/* ---- answers */

/* How far the server is; set->tries counts those that brought nothing. */
static void note_offset(struct sync_stage *st, const json_t *said)
{
    json_int_t offset = json_integer_value(json_object_get(said, "offset"));
    uint64_t now = offset > 0 ? (uint64_t)offset : 0;
    if (now > st->op.size)
        now = 0;
    if (now > st->offset)
        st->set->tries = 0;
    st->offset = now;
}

/* The server says what the stage is. */
static enum sync_stage_next take_answer(
    struct sync_stage *st, const struct client_response *response, struct err *e)
{
    json_t *answer = client_json(response, e);
    const char *id = json_string_value(json_object_get(answer, "id"));
    bool framed = json_is_true(json_object_get(answer, "framed")), fits = false;
    if (framed && id && text_is_id("st_", id) && strlen(id) < sizeof(st->id)) {
        fits = json_integer_value(json_object_get(answer, "size")) == (json_int_t)st->op.size;
        bool fresh = strcmp(st->id, id) != 0;
        memcpy(st->id, id, strlen(id) + 1);
        note_offset(st, answer);
        if (fits && fresh)
            write_note(st->set->sync, st);
    }
    json_decref(answer);
    if (!fits)
        return SYNC_STAGE_NONE;
    st->step = STEP_SEND;
    return st->offset == st->op.size ? SYNC_STAGE_THERE : SYNC_STAGE_GO_ON;
}

/* A refusal that is about the stage. */
static enum sync_stage_next take_refusal(
    struct sync_stage *st, const struct client_response *response, const struct err *e)
{
    if (st->step == STEP_DROP || e->refusal == PROTO_STAGE_NOT_FOUND) {
        st->step = STEP_CREATE;
        st->id[0] = '\0';
        st->offset = 0;
        return SYNC_STAGE_GO_ON;
    }
    /* Too many stages, or a server that has none: in one piece, as it was before there were any. */
    if (st->step == STEP_CREATE &&
        (e->refusal == PROTO_BUSY || e->refusal == PROTO_NO_SPACE || e->refusal == PROTO_NOT_FOUND))
        return SYNC_STAGE_NONE;
    if (st->step == STEP_SEND)
        st->step = STEP_ASK;
    if (e->refusal == PROTO_OFFSET_MISMATCH && st->set->tries < SYNC_STAGE_TRIES) {
        note_offset(st, response->error_details);
        st->step = STEP_SEND;
        return SYNC_STAGE_GO_ON;
    }
    return SYNC_STAGE_FAILED;
}

enum sync_stage_next sync_stage_heard(struct sync_set *set, int result,
    const struct client_response *response, const struct err *why, struct err *e)
{
    struct sync_stage *st = set->stage;
    if (result == -EPROTO)
        return take_refusal(st, response, why);
    if (result < 0) {
        st->step = st->step == STEP_SEND ? STEP_ASK : st->step;
        return SYNC_STAGE_FAILED;
    }
    if (st->step != STEP_DROP)
        return take_answer(st, response, e);
    st->step = STEP_CREATE;
    st->id[0] = '\0';
    return SYNC_STAGE_GO_ON;
}

/* ---- the set */

int sync_stage_begin(struct sync_set *set, const struct change_op *op, int fd, struct err *e)
{
    struct sync_stage *st = calloc(1, sizeof(*st));
    if (!st || fstat(fd, &st->stat) < 0) {
        int code = st ? errno : ENOMEM;
        (void)close(fd);
        free(st);
        return err_set(e, code, "send '%s'", op->path);
    }
    st->set = set;
    st->op = *op;
    st->fd = fd;
    read_note(set->sync, st);
    set->stage = st;
    set->ops++;
    set->sync->reading = set;
    return 0;
}

int sync_stage_end(struct sync_set *set, bool there, struct err *e)
{
    struct sync *s = set->sync;
    struct sync_stage *st = ptr_take(&set->stage);
    struct change_op op = st->op;
    int r;
    set->request = (struct client_request){.method = NULL};
    set->tries = 0;
    set->ops--;
    s->reading = NULL;
    if (there) {
        op.stage = st->id;
        op.content_len = 0;
        set->was_staged = true;
        r = sync_set_op(set, &op, NULL, e);
    } else {
        r = sync_set_stream(set, &op, fd_take(&st->fd), e);
    }
    sync_stage_free(st);
    return r < 0 ? r : sync_set_finish(s, set, e);
}
