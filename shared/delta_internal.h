/* SPDX-License-Identifier: MIT */
/*
 * What the files of the delta module share; only delta*.c include this.
 *
 *     delta.c        the only caller of librsync: its jobs behind one push interface
 *     delta_cmd.c    commands of a delta stream: strict parser, encoder; pure
 *     delta_sig.c    signatures: make, complete, save, load
 *     delta_scan.c   which blocks of the old version are in the new one
 *     delta_search.c old blocks anywhere in a gap
 *     delta_make.c   compose the stream
 *     delta_foreign.c  deltas against foreign signatures
 *     delta_patch.c  apply a foreign stream
 */
#ifndef SHARED_DELTA_INTERNAL_H
#define SHARED_DELTA_INTERNAL_H

#include "shared/delta.h"

#define DELTA_MAGIC_BYTES 4
#define DELTA_HEAD_MAX 17 /* a command's byte and two 64-bit parameters */
/* How much of a file is read or written at once; a multiple of every block. */
#define DELTA_CHUNK (256 * 1024)
#define DELTA_BLOCK_MIN 1024
#define DELTA_BLOCK_MAX (64 * 1024)
#define DELTA_BLOCKS_MAX (1u << 18)

struct delta_sig {
    uint64_t size;
    uint32_t block;   /* bytes per block, a power of two; the last one may be shorter */
    uint32_t count;   /* of blocks */
    uint64_t *blocks; /* XXH3-64 of each; NULL if there is none */
    uint32_t *marks;  /* delta_mark of each; of one that is shorter: 0 */
    struct buf sums;  /* librsync's signature file; empty until completed */
};

/* Bytes in block i (< count). */
static inline uint32_t delta_sig_block_len(const struct delta_sig *sig, uint32_t i)
{
    uint64_t rest = sig->size - (uint64_t)i * sig->block;

    return rest < sig->block ? (uint32_t)rest : sig->block;
}

/* A signature of a file of this size whose block hashes are not filled in yet; NULL where its
 * blocks would not be of this length. */
int delta_sig_blank(
    uint64_t size, uint32_t block, struct delta_sig **ret, struct err *e) WARN_UNUSED;
/* pread of exactly len bytes: -ESTALE when the file ends before, for it was longer a moment ago. */
int delta_read(int fd, void *data, size_t len, uint64_t offset, struct err *e) WARN_UNUSED;
/* fstat: -ESTALE unless fd has `size` bytes now; its mtime goes to *ret_mtime_ns (may be NULL). */
int delta_check_size(int fd, uint64_t size, int64_t *ret_mtime_ns, struct err *e) WARN_UNUSED;

/* ---- delta.c: librsync's jobs. Bytes go in by delta_job_feed; what comes out goes to the sink. */
struct delta_job;

/* In: a file of `size` bytes. Out: its signature. -ENOMEM, -EINVAL. */
int delta_job_sums(uint64_t size, uint32_t block, struct delta_job **ret) WARN_UNUSED;
/* A signature's sums, which must have delta_job_sums_valid form and at least one block, ready to be
 * looked up. */
struct delta_sums;
int delta_sums_load(const struct buf *sums, struct delta_sums **ret) WARN_UNUSED;
void delta_sums_free(struct delta_sums *sums);
void delta_sums_freep(struct delta_sums **sums);
/* In: a file. Out: its delta against these sums, which must outlive the job. */
int delta_job_match(const struct delta_sums *sums, struct delta_job **ret) WARN_UNUSED;
/* Push len (at most DELTA_CHUNK) bytes through. With `last`: finish. 0, the sink's error, -ENOMEM,
 * -EIO for anything else librsync says. */
int delta_job_feed(struct delta_job *job, const void *data, size_t len, bool last, delta_sink *sink,
    void *ctx) WARN_UNUSED;
void delta_job_free(struct delta_job *job);
void delta_job_freep(struct delta_job **job);
/* Is this a signature that delta_job_sums may have made of a file of size bytes with these blocks?
 */
bool delta_job_sums_header_valid(
    const uint8_t *head, size_t head_len, uint64_t len, uint32_t block, uint32_t count);
bool delta_job_sums_valid(const uint8_t *data, size_t len, uint32_t block, uint32_t count);

/* ---- delta_scan.c */

/* What is found in the new version, in its order. A failure ends the scan with it. */
struct delta_found {
    int (*copy)(void *ctx, uint64_t old_pos, uint64_t len); /* these old bytes come next */
    int (*gap)(void *ctx, uint64_t from, uint64_t len);     /* these new bytes come next */
    void *ctx;
};

struct delta_scan {
    const struct delta_sig *sig;
    struct delta_sig *made; /* gets the block hashes of the new version; NULL: other blocks */
    uint64_t size;          /* of the new version */
    struct delta_found found;
    enum delta_align { DELTA_OWN, DELTA_MOVED, DELTA_GAP } align; /* where pos is equal, if it is */
    uint64_t pos;    /* in the new version; told up to here */
    uint64_t copied; /* bytes in copies */
    uint32_t own;    /* block at its own place to look at next */
    uint32_t moved;  /* old block to look for at its shifted place next */
};

void delta_scan_init(struct delta_scan *s, const struct delta_sig *sig, uint64_t size,
    struct delta_sig *made, const struct delta_found *found);
/* The next bytes: data stands at `at`, and begins with what the last call did not use. */
int delta_scan_feed(struct delta_scan *s, const uint8_t *data, size_t len, uint64_t at,
    size_t *ret_used) WARN_UNUSED;
/* After the last byte. */
int delta_scan_end(struct delta_scan *s) WARN_UNUSED;

/* ---- delta_search.c */

/* What a block is looked for by: the same content has the same mark. */
uint32_t delta_mark(const uint8_t *data, size_t block);

/* Tables of a signature's blocks, borrowed; made when they are needed: 52 bytes for each block. */
struct delta_search;
int delta_search_new(const struct delta_sig *sig, struct delta_search **ret) WARN_UNUSED;
void delta_search_free(struct delta_search *s);
/* Tell what the bytes [from, from + len) of the new version (fd, size) are made of. Gaps come in
 * rising order; a block that reaches over the end of one is continued in the next if that is
 * adjacent. */
int delta_search_gap(struct delta_search *s, int fd, uint64_t size, uint64_t from, uint64_t len,
    const struct delta_found *found, struct err *e) WARN_UNUSED;

/* ---- delta_cmd.c */

/* What a stream may do. */
struct delta_limits {
    uint64_t basis_size; /* copies lie within */
    uint64_t new_size;   /* what all commands produce together */
    uint64_t delta_len;  /* bytes of the whole stream; UINT64_MAX: not known */
};

/* Each is called for a command that was checked; a failure ends the parsing with it. */
struct delta_events {
    int (*literal)(void *ctx, uint64_t len);
    int (*bytes)(void *ctx, const uint8_t *data, size_t len); /* of the literal */
    int (*copy)(void *ctx, uint64_t pos, uint64_t len);
    int (*end)(void *ctx);
    void *ctx;
};

struct delta_parser {
    struct delta_limits limits;
    struct delta_events events;
    enum { DELTA_AT_MAGIC, DELTA_AT_COMMAND, DELTA_IN_LITERAL, DELTA_AT_END } state;
    uint8_t head[DELTA_HEAD_MAX];
    size_t head_have, head_need;
    uint64_t literal_left;
    uint64_t consumed; /* bytes of the stream */
    uint64_t produced; /* bytes of output that the commands so far stand for */
    uint32_t commands;
};

void delta_parser_init(
    struct delta_parser *p, const struct delta_limits *limits, const struct delta_events *events);
/* Any piece of the stream. Refusals: PROTO_BAD_CHANGES. */
int delta_parser_feed(
    struct delta_parser *p, const uint8_t *data, size_t len, struct err *e) WARN_UNUSED;
/* No byte follows: refused unless END was the last command. */
int delta_parser_finish(const struct delta_parser *p, struct err *e) WARN_UNUSED;

/* The shortest form of a command into out; returns its length. */
size_t delta_encode_magic(uint8_t out[DELTA_HEAD_MAX]);
size_t delta_encode_literal(uint64_t len, uint8_t out[DELTA_HEAD_MAX]);
size_t delta_encode_copy(uint64_t pos, uint64_t len, uint8_t out[DELTA_HEAD_MAX]);
size_t delta_encode_end(uint8_t out[DELTA_HEAD_MAX]);

#endif
