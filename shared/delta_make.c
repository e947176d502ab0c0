/* SPDX-License-Identifier: MIT */
/*
 * A delta in one pass over the new version: what delta_scan.c finds becomes commands while the file
 * is still read, so that whoever applies them can begin. A gap is read once more: searched
 * for blocks at any place (delta_search.c; through librsync when there are its sums) if it is worth
 * it, and sent as far as nothing was found.
 *
 * The hash is of the bytes of the pass. If a gap changes before it is read again, or two blocks
 * share an XXH3-64, the delta makes another file than the hash says: the receiver compares and
 * refuses, so a wrong hash is never recorded. A changed size or mtime is noticed here already.
 */
#include "shared/delta.h"
#include "shared/delta_internal.h"

#include <errno.h>
#include <string.h>

#include "shared/banned.h"

#define SMALL_GAP_BLOCKS 2 /* little would be found in it */
#define BLOCKS_PER_BYTE 16 /* tables of more blocks cost more than this many bytes of a gap */
#define OUTPUT_BUFFER (64 * 1024)
#define EAGER_COPY                                                                                 \
    (UINT64_C(8) * 1024 * 1024) /* a copy is told at this length, if it is waited for */

/* ---- commands */

struct composer {
    const struct delta_sig *sig;
    delta_sink *sink;
    void *ctx;
    uint64_t max_bytes, written;
    uint32_t commands;
    uint64_t copy_pos, copy_len; /* not written yet: the next copy may continue it */
    struct buf out;
    struct delta_sums *sums;     /* for librsync; loaded at the first gap that needs them */
    struct delta_parser *parser; /* of librsync's stream */
    struct delta_search *search; /* made at the first gap that needs it */
    int fd;                      /* the new version */
    uint64_t size;
    struct err *e;
};

static int compose_flush(struct composer *c)
{
    int r = c->out.len ? c->sink(c->ctx, c->out.data, c->out.len) : 0;

    buf_reset(&c->out);
    if (r < 0 && (!c->e || c->e->code == 0))
        return err_set(c->e, -r, "hand over a delta");
    return r;
}

static int compose_bytes(struct composer *c, const void *data, size_t len)
{
    if (len > c->max_bytes - c->written)
        return err_say(c->e, E2BIG, "the delta is larger than it may be");
    c->written += len;
    if (len >= OUTPUT_BUFFER - c->out.len) {
        int r = compose_flush(c);
        if (r < 0)
            return r;
    }
    if (len < OUTPUT_BUFFER)
        return buf_add(&c->out, data, len);
    int r = c->sink(c->ctx, data, len);
    if (r < 0 && (!c->e || c->e->code == 0))
        return err_set(c->e, -r, "hand over a delta");
    return r;
}

static int compose_command(struct composer *c, const uint8_t *head, size_t len)
{
    if (++c->commands > DELTA_COMMANDS_MAX)
        return err_say(c->e, E2BIG, "the delta has more commands than it may have");
    return compose_bytes(c, head, len);
}

static int compose_pending(struct composer *c)
{
    uint8_t head[DELTA_HEAD_MAX];

    if (c->copy_len == 0)
        return 0;
    size_t n = delta_encode_copy(c->copy_pos, c->copy_len, head);
    c->copy_len = 0;
    return compose_command(c, head, n);
}

/* Do the old bytes right behind the pending copy equal those at pos, as far as block hashes say?
 * librsync names the first of equal blocks each time: a run of zeros becomes one copy this way. */
static bool compose_continues(const struct composer *c, uint64_t pos, uint64_t len)
{
    const struct delta_sig *sig = c->sig;
    uint64_t end = c->copy_pos + c->copy_len;

    if (c->copy_len == 0)
        return false;
    if (end == pos)
        return true;
    if (end % sig->block || pos % sig->block || len % sig->block || len > sig->size - end)
        return false;
    for (uint64_t i = 0; i < len / sig->block; i++)
        if (sig->blocks[end / sig->block + i] != sig->blocks[pos / sig->block + i])
            return false;
    return true;
}

static int compose_copy(struct composer *c, uint64_t pos, uint64_t len)
{
    if (len == 0)
        return 0;
    if (compose_continues(c, pos, len)) {
        c->copy_len += len;
        return 0;
    }
    int r = compose_pending(c);
    c->copy_pos = pos;
    c->copy_len = len;
    return r;
}

static int compose_literal(struct composer *c, uint64_t len)
{
    uint8_t head[DELTA_HEAD_MAX];
    int r = compose_pending(c);

    return r < 0 ? r : compose_command(c, head, delta_encode_literal(len, head));
}

/* librsync's commands, without its magic and its END. */
static int on_literal(void *ctx, uint64_t len)
{
    return compose_literal(ctx, len);
}

static int on_bytes(void *ctx, const uint8_t *data, size_t len)
{
    return compose_bytes(ctx, data, len);
}

static int on_copy(void *ctx, uint64_t pos, uint64_t len)
{
    return compose_copy(ctx, pos, len);
}

static int on_end(void *ctx)
{
    (void)ctx;
    return 0;
}

static int sink_parser(void *ctx, const void *data, size_t len)
{
    struct composer *c = ctx;

    return delta_parser_feed(c->parser, data, len, c->e);
}

/* The bytes [from, from + len) of fd in chunks: into `job`, or as they are if that is NULL. */
static int compose_range(
    struct composer *c, struct delta_job *job, int fd, uint64_t from, uint64_t len)
{
    CLEANUP(freep) uint8_t *data = malloc(DELTA_CHUNK);

    if (!data)
        return err_set(c->e, ENOMEM, "make a delta");
    while (len > 0) {
        size_t n = len < DELTA_CHUNK ? (size_t)len : DELTA_CHUNK;
        int r = delta_read(fd, data, n, from, c->e);
        if (r < 0)
            return r;
        r = job ? delta_job_feed(job, data, n, n == len, sink_parser, c)
                : compose_bytes(c, data, n);
        if (r < 0 && c->e && c->e->code == 0)
            return err_set(c->e, -r, "make a delta");
        if (r < 0)
            return r;
        from += n;
        len -= n;
    }
    return 0;
}

/* Through librsync. */
static int compose_matched(struct composer *c, uint64_t from, uint64_t len)
{
    CLEANUP(delta_job_freep) struct delta_job *job = NULL;
    struct delta_limits limits = {c->sig->size, len, UINT64_MAX};
    struct delta_events events = {on_literal, on_bytes, on_copy, on_end, c};
    struct delta_parser parser;
    int r = c->sums ? 0 : delta_sums_load(&c->sig->sums, &c->sums);

    if (r == 0)
        r = delta_job_match(c->sums, &job);
    if (r < 0)
        return err_set(c->e, -r, "load a signature's sums");
    delta_parser_init(&parser, &limits, &events);
    c->parser = &parser;
    r = compose_range(c, job, c->fd, from, len);
    return r < 0 ? r : delta_parser_finish(&parser, c->e);
}

/* ---- what the scan finds */

static int found_copy(void *ctx, uint64_t pos, uint64_t len)
{
    return compose_copy(ctx, pos, len);
}

static int literal_gap(void *ctx, uint64_t from, uint64_t len)
{
    struct composer *c = ctx;

    if (len > c->max_bytes - c->written)
        return err_say(c->e, E2BIG, "the delta is larger than it may be");
    int r = compose_literal(c, len);
    return r < 0 ? r : compose_range(c, NULL, c->fd, from, len);
}

static int found_gap(void *ctx, uint64_t from, uint64_t len)
{
    struct composer *c = ctx;
    const struct delta_sig *sig = c->sig;

    if (len <= (uint64_t)SMALL_GAP_BLOCKS * sig->block || sig->count == 0 ||
        sig->count / BLOCKS_PER_BYTE > len)
        return literal_gap(c, from, len);
    if (delta_sig_is_complete(sig))
        return compose_matched(c, from, len);
    if (!c->search && delta_search_new(sig, &c->search) < 0)
        return err_set(c->e, ENOMEM, "make a delta");
    struct delta_found found = {found_copy, literal_gap, c};
    return delta_search_gap(c->search, c->fd, c->size, from, len, &found, c->e);
}

/* ---- the maker */

struct delta_maker {
    struct composer c;
    struct delta_scan scan;
    struct hash_state *whole;
    struct delta_sig *made;
    uint64_t size, at; /* of the new version; read so far */
    int64_t mtime_ns;
    uint8_t *data; /* a block that was cut, then a chunk */
    size_t have;
    bool begun, ended;
    struct err ignored;
};

void delta_maker_free(struct delta_maker *m)
{
    if (!m)
        return;
    buf_release(&m->c.out);
    delta_sums_free(m->c.sums);
    delta_search_free(m->c.search);
    delta_sig_free(m->made);
    hash_state_free(m->whole);
    free(m->data);
    free(m);
}

void delta_maker_freep(struct delta_maker **m)
{
    delta_maker_free(*m);
    *m = NULL;
}

int delta_maker_new(const struct delta_sig *sig, int fd, uint64_t size, uint64_t max_bytes,
    struct delta_maker **ret, struct err *e)
{
    if (size > DELTA_FILE_MAX)
        return err_say(e, EFBIG, "files above 16 GiB are not sent");
    CLEANUP(delta_maker_freep) struct delta_maker *m = calloc(1, sizeof(*m));
    if (!m)
        return err_set(e, ENOMEM, "make a delta");
    m->size = size;
    m->c = (struct composer){.sig = sig, .max_bytes = max_bytes, .fd = fd, .size = size};
    buf_init(&m->c.out, OUTPUT_BUFFER);
    m->whole = hash_state_new();
    m->data = malloc(DELTA_CHUNK + DELTA_BLOCK_MAX);
    if (!m->whole || !m->data)
        return err_set(e, ENOMEM, "make a delta");
    int r = delta_check_size(fd, size, &m->mtime_ns, e);
    if (r == 0)
        r = delta_sig_blank(size, sig->block, &m->made, e);
    if (r < 0)
        return r;
    struct delta_found found = {found_copy, found_gap, &m->c};
    delta_scan_init(&m->scan, sig, size, m->made, &found);
    *ret = ptr_take(&m);
    return 0;
}

static int maker_read(struct delta_maker *m)
{
    uint64_t left = m->size - m->at;
    size_t n = left < DELTA_CHUNK ? (size_t)left : DELTA_CHUNK, used = 0;
    int r = delta_read(m->c.fd, m->data + m->have, n, m->at, m->c.e);

    if (r < 0)
        return r;
    hash_state_add(m->whole, m->data + m->have, n);
    r = delta_scan_feed(&m->scan, m->data, m->have + n, m->at - m->have, &used);
    if (r < 0)
        return r;
    m->at += n;
    m->have = m->have + n - used;
    memmove(m->data, m->data + used, m->have);
    return 0;
}

static int maker_end(struct delta_maker *m)
{
    struct composer *c = &m->c;
    uint8_t head[DELTA_HEAD_MAX];
    int64_t mtime_ns;
    int r = delta_scan_end(&m->scan);

    if (r == 0)
        r = compose_pending(c);
    if (r == 0)
        r = compose_command(c, head, delta_encode_end(head));
    if (r == 0)
        r = compose_flush(c);
    if (r == 0)
        r = delta_check_size(c->fd, m->size, &mtime_ns, c->e);
    if (r == 0 && mtime_ns != m->mtime_ns)
        r = err_say(c->e, ESTALE, "the file was written to while it was read");
    m->ended = r == 0;
    return r;
}

int delta_maker_step(struct delta_maker *m, bool eager, delta_sink *sink, void *ctx, struct err *e)
{
    struct composer *c = &m->c;
    uint8_t head[DELTA_HEAD_MAX];
    int r = 0;

    if (m->ended)
        return 0;
    m->ignored = (struct err)ERR_INIT;
    c->e = e ? e : &m->ignored;
    c->sink = sink;
    c->ctx = ctx;
    if (!m->begun)
        r = compose_bytes(c, head, delta_encode_magic(head));
    m->begun = true;
    if (r == 0)
        r = m->at < m->size ? maker_read(m) : maker_end(m);
    if (r == 0 && eager && c->copy_len >= EAGER_COPY)
        r = compose_pending(c);
    if (r == 0 && eager && c->copy_len == 0)
        r = compose_flush(c);
    return r < 0 ? r : !m->ended;
}

uint64_t delta_maker_at(const struct delta_maker *m)
{
    return m->at;
}

uint64_t delta_maker_copied(const struct delta_maker *m)
{
    return m->scan.copied;
}

bool delta_maker_differs(const struct delta_maker *m)
{
    return m->size != m->scan.sig->size || m->scan.align != DELTA_OWN ||
           m->scan.copied != m->scan.pos;
}

void delta_maker_hash(const struct delta_maker *m, struct hash *ret)
{
    hash_state_get(m->whole, ret);
}

struct delta_sig *delta_maker_take_sig(struct delta_maker *m)
{
    return m->ended ? ptr_take(&m->made) : NULL;
}

int delta_make(const struct delta_sig *sig, int fd, uint64_t size, uint64_t max_bytes,
    delta_sink *sink, void *ctx, struct delta_result *ret, struct err *e)
{
    CLEANUP(delta_maker_freep) struct delta_maker *m = NULL;
    int r = delta_maker_new(sig, fd, size, max_bytes, &m, e);

    if (r == 0)
        while ((r = delta_maker_step(m, false, sink, ctx, e)) > 0)
            ;
    if (r < 0)
        return r;
    delta_maker_hash(m, &ret->hash);
    ret->copied_bytes = m->scan.copied;
    ret->delta_bytes = m->c.written;
    ret->sig = delta_maker_take_sig(m);
    return 0;
}
