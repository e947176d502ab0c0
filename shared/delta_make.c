/* SPDX-License-Identifier: MIT */
/*
 * A delta in two steps. The first reads the new version once: the hash of all of it, and by block
 * hashes the common beginning and the common end. Block i of an end that is common lies at
 * i * block + (new size - old size), so one pass finds both: it compares at the blocks' own places
 * until the first that differs, and from there at the shifted ones, where the run of equal blocks
 * that reaches the end of the file counts. The second step reads what lies between once more and
 * sends it as it is, or through librsync when there are sums and it is worth it.
 *
 * The hash is of the bytes of the first step. If what lies between changes before the second, or
 * two blocks share an XXH3-64, the delta makes another file than the hash says: the receiver
 * compares and refuses, so a wrong hash is never recorded. A changed size or mtime is noticed here
 * already.
 */
#include "shared/delta.h"
#include "shared/delta_internal.h"

#include <errno.h>
#include <string.h>

#include "shared/banned.h"

#define SMALL_MIDDLE_BLOCKS 8 /* loading librsync's sums costs more than it could save */
#define OUTPUT_BUFFER (64 * 1024)

/* ---- step one */

struct scan {
    const struct delta_sig *sig;
    uint64_t new_size;
    bool in_suffix;    /* past the common beginning */
    uint32_t next;     /* old block to compare next */
    uint64_t prefix;   /* bytes; final when in_suffix */
    uint64_t run_from; /* where the current run of equal blocks begins; new_size: there is none */
};

/* Where the next old block would lie in the new version. In the suffix that is shifted, and never
 * before the prefix' end; unsigned wrap-around is undone by the addition. */
static uint64_t scan_place(const struct scan *s)
{
    uint64_t at = (uint64_t)s->next * s->sig->block;

    return s->in_suffix ? at + s->new_size - s->sig->size : at;
}

static void scan_enter_suffix(struct scan *s)
{
    const uint64_t block = s->sig->block;
    uint64_t old_at = (uint64_t)s->next * block;

    s->prefix = old_at < s->sig->size ? old_at : s->sig->size;
    s->in_suffix = true;
    /* The first block whose shifted place is at or behind the prefix' end. */
    uint64_t from = s->prefix + s->sig->size;
    from = from > s->new_size ? from - s->new_size : 0;
    s->next = (uint32_t)((from + block - 1) / block);
}

/* Compare the blocks that lie in data, which stands at new offset `at`; returns how many of its
 * bytes are not needed again. */
static size_t scan_blocks(struct scan *s, const uint8_t *data, size_t len, uint64_t at)
{
    const struct delta_sig *sig = s->sig;

    for (;;) {
        if (!s->in_suffix && (s->next == sig->count ||
                                 scan_place(s) + delta_sig_block_len(sig, s->next) > s->new_size))
            scan_enter_suffix(s);
        if (s->in_suffix && s->next >= sig->count)
            return len;
        uint64_t place = scan_place(s) - at;
        uint32_t n = delta_sig_block_len(sig, s->next);
        if (place >= len)
            return len;
        if (n > len - place)
            return (size_t)place;
        bool equal = hash_block64(data + place, n) == sig->blocks[s->next];
        if (!s->in_suffix && !equal) {
            scan_enter_suffix(s);
            continue;
        }
        if (s->in_suffix && !equal)
            s->run_from = s->new_size;
        else if (s->in_suffix && s->run_from == s->new_size)
            s->run_from = at + place;
        s->next++;
    }
}

/* The whole file once. */
static int scan_file(struct scan *s, int fd, struct hash *ret_hash, struct err *e)
{
    CLEANUP(freep) uint8_t *data = malloc(DELTA_CHUNK + DELTA_BLOCK_MAX);
    CLEANUP(hash_state_freep) struct hash_state *whole = hash_state_new();
    size_t have = 0; /* bytes kept from the previous round: a block that was cut */

    if (!data || !whole)
        return err_set(e, ENOMEM, "make a delta");
    for (uint64_t at = 0; at < s->new_size;) {
        uint64_t left = s->new_size - at;
        size_t n = left < DELTA_CHUNK ? (size_t)left : DELTA_CHUNK;
        int r = delta_read(fd, data + have, n, at, e);
        if (r < 0)
            return r;
        hash_state_add(whole, data + have, n);
        size_t used = scan_blocks(s, data, have + n, at - have);
        at += n;
        have = have + n - used;
        memmove(data, data + used, have);
    }
    if (!s->in_suffix)
        scan_enter_suffix(s);
    hash_state_get(whole, ret_hash);
    return 0;
}

/* ---- step two */

struct composer {
    const struct delta_sig *sig;
    delta_sink *sink;
    void *ctx;
    uint64_t max_bytes, written;
    uint32_t commands;
    uint64_t copy_pos, copy_len; /* not written yet: the next copy may continue it */
    struct buf out;
    struct delta_parser *parser; /* of librsync's stream */
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

static int compose_middle(struct composer *c, int fd, uint64_t from, uint64_t len)
{
    const struct delta_sig *sig = c->sig;
    CLEANUP(delta_job_freep) struct delta_job *job = NULL;
    struct delta_limits limits = {sig->size, len, UINT64_MAX};
    struct delta_events events = {on_literal, on_bytes, on_copy, on_end, c};
    struct delta_parser parser;

    if (len == 0)
        return 0;
    if (sig->count == 0 || !delta_sig_is_complete(sig) ||
        len <= (uint64_t)SMALL_MIDDLE_BLOCKS * sig->block) {
        if (len > c->max_bytes)
            return err_say(c->e, E2BIG, "the delta is larger than it may be");
        int r = compose_literal(c, len);
        return r < 0 ? r : compose_range(c, NULL, fd, from, len);
    }
    int r = delta_job_match(&sig->sums, &job);
    if (r < 0)
        return err_set(c->e, -r, "load a signature's sums");
    delta_parser_init(&parser, &limits, &events);
    c->parser = &parser;
    r = compose_range(c, job, fd, from, len);
    return r < 0 ? r : delta_parser_finish(&parser, c->e);
}

static int compose(struct composer *c, const struct scan *s, int fd)
{
    const uint64_t suffix = s->new_size - s->run_from;
    uint8_t head[DELTA_HEAD_MAX];
    int r = compose_bytes(c, head, delta_encode_magic(head));

    if (r == 0)
        r = compose_copy(c, 0, s->prefix);
    if (r == 0)
        r = compose_middle(c, fd, s->prefix, s->run_from - s->prefix);
    if (r == 0)
        r = compose_copy(c, c->sig->size - suffix, suffix);
    if (r == 0)
        r = compose_pending(c);
    if (r == 0)
        r = compose_command(c, head, delta_encode_end(head));
    return r == 0 ? compose_flush(c) : r;
}

int delta_make(const struct delta_sig *sig, int fd, uint64_t size, uint64_t max_bytes,
    delta_sink *sink, void *ctx, struct delta_result *ret, struct err *e)
{
    struct scan s = {.sig = sig, .new_size = size, .run_from = size};
    struct err ignored = ERR_INIT;
    struct composer c = {
        .sig = sig, .sink = sink, .ctx = ctx, .max_bytes = max_bytes, .e = e ? e : &ignored};
    struct hash hash;
    int64_t before_ns, after_ns;

    if (size > DELTA_FILE_MAX)
        return err_say(e, EFBIG, "files above 16 GiB are not sent");
    int r = delta_check_size(fd, size, &before_ns, e);
    if (r == 0)
        r = scan_file(&s, fd, &hash, e);
    if (r < 0)
        return r;
    buf_init(&c.out, OUTPUT_BUFFER);
    r = compose(&c, &s, fd);
    buf_release(&c.out);
    if (r == 0)
        r = delta_check_size(fd, size, &after_ns, e);
    if (r < 0)
        return r;
    if (before_ns != after_ns)
        return err_say(e, ESTALE, "the file was written to while it was read");
    *ret = (struct delta_result){.hash = hash,
        .prefix_bytes = s.prefix,
        .suffix_bytes = size - s.run_from,
        .delta_bytes = c.written};
    return 0;
}
