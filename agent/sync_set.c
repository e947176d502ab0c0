/* SPDX-License-Identifier: MIT */
#include "agent/sync_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared/io.h"
#include "shared/proto.h"

#include "shared/banned.h"

#define STREAM_PIECE CHANGES_DATA_MAX

struct sync_set *sync_set_new(struct sync *s)
{
    struct sync_set *set = calloc(1, sizeof(*set));
    if (!set)
        return NULL;
    set->sync = s;
    set->stream_fd = -1;
    buf_init(&set->log, INDEX_LOG_MAX);
    buf_init(&set->intents, INDEX_LOG_MAX);
    buf_init(&set->raw, SYNC_RAW_MAX);
    buf_init(&set->packed, ZSTD_COMPRESSBOUND(SYNC_RAW_MAX));
    buf_init(&set->out, 1024 * 1024);
    return set;
}

void sync_set_free(struct sync_set *set)
{
    if (!set)
        return;
    for (size_t i = 0; i < set->item_count; i++)
        free(set->items[i].path);
    free(set->items);
    buf_release(&set->log);
    buf_release(&set->intents);
    if (set->raw.cap > set->sync->spare_raw.cap)
        sync_pack_swap(&set->raw, &set->sync->spare_raw);
    if (set->packed.cap > set->sync->spare_packed.cap)
        sync_pack_swap(&set->packed, &set->sync->spare_packed);
    buf_release(&set->raw);
    buf_release(&set->packed);
    buf_release(&set->out);
    changes_writer_free(set->writer);
    fd_closep(&set->stream_fd);
    sync_stage_free(set->stage);
    (void)ZSTD_freeCCtx(set->zstd);
    delta_maker_free(set->maker);
    delta_sig_free(set->maker_base);
    if (set->sync->reading == set)
        set->sync->reading = NULL;
    free(set);
}

int sync_set_begin(struct sync *s, struct sync_set *set, struct err *e)
{
    const struct index_state *state = index_state(s->index);
    struct changes_begin begin = {
        .seq = set->seq,
        .parent = s->sent_seq,
        .if_generation = CHANGES_NO_GENERATION,
    };
    memcpy(begin.client, state->client, sizeof(begin.client));
    memcpy(begin.epoch, state->epoch, sizeof(begin.epoch));
    sync_pack_swap(&set->raw, &s->spare_raw);
    set->writer = changes_writer_new();
    int r = set->writer ? changes_write_begin(set->writer, &begin, &set->raw) : -ENOMEM;
    return r < 0 ? err_set(e, -r, "begin a change set") : 0;
}

int sync_set_op(struct sync_set *set, const struct change_op *op, const void *data, struct err *e)
{
    int r = changes_write_op(set->writer, op, &set->raw);
    if (r == 0 && op->content_len)
        r = changes_write_data(set->writer, data, (size_t)op->content_len, &set->raw);
    if (r == 0)
        r = sync_pack_more(set);
    if (r < 0)
        return err_set(e, -r, "add '%s' to a change set", op->path);
    set->ops++;
    return 0;
}

int sync_set_stream(struct sync_set *set, const struct change_op *op, int fd, struct err *e)
{
    int r = changes_write_op(set->writer, op, &set->raw);
    if (r < 0) {
        (void)close(fd);
        return err_set(e, -r, "add '%s' to a change set", op->path);
    }
    set->ops++;
    set->stream_fd = fd;
    set->stream_len = op->content_len;
    return 0;
}

int sync_set_open(
    struct sync_set *set, const struct change_op *op, const struct sync_open *open, struct err *e)
{
    set->maker = open->maker;
    set->maker_base = open->base;
    set->made = open->made;
    int r = sync_set_stream(set, op, open->fd, e);
    if (r == 0 && open->begun->len &&
        (r = changes_write_data(set->writer, open->begun->data, open->begun->len, &set->raw)) < 0)
        r = err_set(e, -r, "add '%s' to a change set", op->path);
    set->stream_len = op->size;
    set->sync->reading = set;
    return r;
}

/* ---- streaming: raw is refilled with frames as it is drained */

static int take_made(void *ctx, const void *data, size_t len)
{
    struct sync_set *set = ctx;
    return changes_write_data(set->writer, data, len, &set->raw);
}

/* All of the file was read: its hash is the end of the content, and the index learns of it. */
static int end_made(struct sync_set *set)
{
    struct sync *s = set->sync;
    struct manifest_entry *made = &set->made;
    delta_maker_hash(set->maker, &made->hash);
    buf_reset(&set->intents);
    int r = index_intend(&set->intents, set->seq, made);
    if (r == 0)
        r = index_commit(s->index, &set->intents, NULL);
    if (r == 0)
        r = changes_write_data(set->writer, made->hash.b, HASH_BYTES, &set->raw);
    if (r == 0)
        r = changes_write_end(set->writer, &set->raw);
    if (r == 0)
        r = index_put(s->index, made, &set->log);
    if (r == 0)
        r = sync_sig_want(
            s, made->path, &made->hash, made->size, true, delta_maker_take_sig(set->maker));
    set->stream_ended = true;
    s->reading = NULL;
    return r;
}

/* The next commands of a delta, as soon as any are known. */
static int refill_made(struct sync_set *set)
{
    int r;
    buf_reset(&set->raw);
    do
        r = delta_maker_step(set->maker, true, take_made, set, NULL);
    while (r == 1 && set->raw.len == 0);
    return r == 0 ? end_made(set) : r < 0 ? r : 0;
}

/* The next frames into raw. -ESTALE when the file got shorter. */
static int refill(struct sync_set *set)
{
    uint8_t *piece = NULL;
    uint64_t left = set->stream_len - set->stream_done;
    size_t want = left < STREAM_PIECE ? (size_t)left : STREAM_PIECE;
    buf_reset(&set->raw);
    if (left == 0) {
        set->stream_ended = true;
        return changes_write_end(set->writer, &set->raw);
    }
    piece = malloc(want);
    ssize_t n = piece ? io_pread_full(set->stream_fd, piece, want, set->stream_done) : -ENOMEM;
    int r = n < 0 ? (int)n : (size_t)n < want ? -ESTALE : 0;
    if (r == 0)
        r = changes_write_data(set->writer, piece, want, &set->raw);
    free(piece);
    set->stream_done += want;
    return r;
}

/* What is in raw into out, through the compressor; its end too, once the frames have ended. */
static int compress_raw(struct sync_set *set)
{
    uint8_t piece[64 * 1024];
    ZSTD_inBuffer in = {.src = set->raw.data, .size = set->raw.len};
    ZSTD_EndDirective mode = set->stream_ended ? ZSTD_e_end
                             : set->maker      ? ZSTD_e_flush /* the server waits for it */
                                               : ZSTD_e_continue;
    for (;;) {
        ZSTD_outBuffer out = {.dst = piece, .size = sizeof(piece)};
        size_t left = ZSTD_compressStream2(set->zstd, &out, &in, mode);
        if (ZSTD_isError(left))
            return -EIO;
        int r = out.pos ? buf_add(&set->out, piece, out.pos) : 0;
        if (r < 0)
            return r;
        if (mode == ZSTD_e_continue ? in.pos == in.size : left == 0)
            break;
    }
    buf_reset(&set->raw);
    set->stream_flushed = set->stream_ended;
    return 0;
}

static ssize_t read_body(void *ctx, void *data, size_t len)
{
    struct sync_set *set = ctx;
    struct buf *from = set->stream_packed ? &set->out : &set->raw;
    while (from->len == 0) {
        bool ended = set->stream_packed ? set->stream_flushed : set->stream_ended;
        if (ended)
            return 0;
        int r = set->raw.len ? 0 : set->maker ? refill_made(set) : refill(set);
        if (r == 0 && set->stream_packed)
            r = compress_raw(set);
        if (r < 0)
            return r;
    }
    size_t n = from->len < len ? from->len : len;
    memcpy(data, from->data, n);
    buf_consume(from, n);
    set->stream_given += n;
    return (ssize_t)n;
}

static int prepare_stream(struct sync_set *set)
{
    set->request.read_body = read_body;
    set->request.stream_len = UINT64_MAX;
    set->request.ctx = set;
    int level = sync_pack_level(set->sync);
    if (!set->packing && !sync_pack_shrinks(set->stream_fd, level))
        return 0;
    if (set->packing) { /* many small files before it: it goes on where they end */
        set->zstd = ptr_take(&set->sync->zstd);
        struct buf begun = set->packed;
        set->packed = set->out;
        set->out = begun;
    } else {
        set->zstd = ZSTD_createCCtx();
        if (!set->zstd ||
            ZSTD_isError(ZSTD_CCtx_setParameter(set->zstd, ZSTD_c_compressionLevel, level)))
            return -ENOMEM;
    }
    set->stream_packed = true;
    set->request.content_encoding = "zstd";
    return 0;
}

int sync_set_finish(struct sync *s, struct sync_set *set, struct err *e)
{
    set->request.method = "POST";
    set->request.path = s->changes_path;
    set->request.content_type = PROTO_CHANGES_TYPE;
    int r = set->stream_fd >= 0 ? prepare_stream(set) : changes_write_end(set->writer, &set->raw);
    if (r == 0 && set->stream_fd < 0)
        r = sync_pack_end(set);
    return r < 0 ? err_set(e, -r, "finish a change set") : 0;
}
