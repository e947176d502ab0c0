/* SPDX-License-Identifier: MIT */
/*
 * Deltas between two versions of a file, by librsync (only this module knows it). The sender keeps
 * a signature of what the receiver acknowledged, so no signature ever travels for an upload:
 *
 *     delta_sig_make(fd_of_what_was_sent, size, &sig)           when it was acknowledged
 *     delta_make(sig, fd_of_the_new_version, sink, …)           at the next change
 *     delta_patch(basis_fd, delta source, sink, new size, …)    on the receiver
 *
 * A signature holds the hash of each fixed block, which finds in one pass of XXH3 what stands where
 * it stood or was shifted by the difference in size, and a mark of each, which finds it anywhere in
 * what lies between. librsync's sums do the same there; they cost 10 x more and may be added
 * (delta_sig_complete). Block size: clamp(2^ceil(log2(size / 2^18)), 1 KiB, 64 KiB).
 *
 * Deltas are librsync streams (magic 0x72730236). They carry no size and no checksum: the caller
 * names base, size and hash around them and verifies the result. A foreign delta never reaches
 * librsync, and every command in it is checked before it acts: copies lie within the basis, the
 * output's total equals the declared size, nothing follows END, at most DELTA_COMMANDS_MAX
 * commands.
 *
 * Nothing here maps user files (a truncation would be a SIGBUS). Any thread, one object per thread.
 */
#ifndef SHARED_DELTA_H
#define SHARED_DELTA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "shared/buf.h"
#include "shared/err.h"
#include "shared/hash.h"

#define DELTA_COMMANDS_MAX (4u * 1024 * 1024)
#define DELTA_MIN_FILE (14 * 1024)          /* below: send whole, a delta saves nothing */
#define DELTA_FILE_MAX (UINT64_C(16) << 30) /* larger files: -EFBIG */

struct delta_sig;

/* Bytes out: 0 or -errno, which ends the operation with that error. A sink or source that fills the
 * operation's struct err itself keeps what it wrote there. */
typedef int delta_sink(void *ctx, const void *data, size_t len);
/* Bytes in: count, 0 at the end, -errno. */
typedef ssize_t delta_source(void *ctx, void *data, size_t len);

/* Read fd (pread) once from 0 to size: block hashes and the whole file's hash into *ret_hash.
 * -ESTALE if the file is shorter or longer by now. With `complete` librsync's sums too. */
int delta_sig_make(int fd, uint64_t size, bool complete, struct delta_sig **ret,
    struct hash *ret_hash, struct err *e) WARN_UNUSED;
/* Add librsync's sums from a descriptor with the same content. -ESTALE if the content's hash is not
 * `expected` any more (the signature stays as it was). No-op when they are there. */
int delta_sig_complete(
    struct delta_sig *sig, int fd, const struct hash *expected, struct err *e) WARN_UNUSED;
bool delta_sig_is_complete(const struct delta_sig *sig);
uint64_t delta_sig_size(const struct delta_sig *sig); /* bytes of the file it describes */
void delta_sig_free(struct delta_sig *sig);
void delta_sig_freep(struct delta_sig **sig);

/* librsync's own signature of a file, for foreign tools (rdiff delta) and clients: read fd (pread)
 * from 0 to size, give the signature to sink and the file's hash into *ret_hash. -ESTALE if the
 * file is shorter or longer by now; the caller compares the hash, for it may have changed
 * meanwhile. At most 36 bytes for each block. */
int delta_sig_write(int fd, uint64_t size, delta_sink *sink, void *ctx, struct hash *ret_hash,
    struct err *e) WARN_UNUSED;

/* The same for a signature that travels: fewer, larger blocks (near the square root of the size), so
 * that signature and delta together are short. */
int delta_sig_write_short(int fd, uint64_t size, delta_sink *sink, void *ctx, struct hash *ret_hash,
    struct err *e) WARN_UNUSED;

/*
 * A signature that somebody else made. delta_signature_check tells from its first 12 bytes (or what
 * there is of them) and its length whether librsync may see it: magic, blocks of 1 KiB to 64 KiB,
 * strong sums, a whole number of blocks; refusals PROTO_BAD_CHANGES, PROTO_TOO_LARGE. delta_against
 * checks the same, then gives the delta that makes fd's content (pread, size bytes) of what was
 * signed to sink. Sums of somebody else's making may make librsync slow or end the process: call it
 * in one that has limits.
 */
#define DELTA_SIGNATURE_MAX (12u + 36u * (1u << 18))
int delta_signature_check(
    const void *head, size_t head_len, uint64_t len, struct err *e) WARN_UNUSED;
int delta_against(const void *sig, size_t len, int fd, uint64_t size, delta_sink *sink, void *ctx,
    struct err *e) WARN_UNUSED;

/* Storage on our own disk (versioned, with a checksum; a damaged one gives -EBADMSG). */
int delta_sig_save(const struct delta_sig *sig, struct buf *b) WARN_UNUSED;
int delta_sig_load(const void *data, size_t len, struct delta_sig **ret, struct err *e) WARN_UNUSED;

struct delta_result {
    struct hash hash;      /* of the new version, as read while making the delta */
    uint64_t copied_bytes; /* found by block hashes */
    uint64_t delta_bytes;  /* size of the stream given to sink */
    struct delta_sig *sig; /* of the new version, without librsync's sums; the caller's. NULL if its
                              blocks have another length: make it with delta_sig_make */
};

/*
 * The delta that turns what sig describes into the content of fd (size bytes, pread). Gives up with
 * -E2BIG as soon as it has produced more than max_bytes: the whole file is cheaper then. -ESTALE if
 * the file's size or mtime changed meanwhile. After an error what sink received is worthless.
 *
 * ret->hash is of all bytes of the new version as they were read first; what is not found by block
 * hashes is read a second time. A change between the two that leaves no trace in size and mtime
 * makes a delta whose result has another hash: the receiver compares and refuses it.
 */
int delta_make(const struct delta_sig *sig, int fd, uint64_t size, uint64_t max_bytes,
    delta_sink *sink, void *ctx, struct delta_result *ret, struct err *e) WARN_UNUSED;

/*
 * The same in steps, so that the stream is on its way while the file is still read. `eager` gives
 * to the sink what is known after each step, at most 8 MiB of the result later; else it is
 * collected. sig and fd are borrowed. Order: new, step while it returns 1, hash, take_sig, free.
 */
struct delta_maker;
int delta_maker_new(const struct delta_sig *sig, int fd, uint64_t size, uint64_t max_bytes,
    struct delta_maker **ret, struct err *e) WARN_UNUSED;
void delta_maker_free(struct delta_maker *m);
void delta_maker_freep(struct delta_maker **m);
/* 1 and there is more, 0 at the end, or an error as from delta_make. */
int delta_maker_step(
    struct delta_maker *m, bool eager, delta_sink *sink, void *ctx, struct err *e) WARN_UNUSED;
/* So far: bytes read, bytes of them found in the old version, and is any difference certain? */
uint64_t delta_maker_at(const struct delta_maker *m);
uint64_t delta_maker_copied(const struct delta_maker *m);
bool delta_maker_differs(const struct delta_maker *m);
/* At the end. */
void delta_maker_hash(const struct delta_maker *m, struct hash *ret);
struct delta_sig *delta_maker_take_sig(struct delta_maker *m); /* as delta_result.sig */

/*
 * Apply a foreign delta of exactly delta_len bytes (UINT64_MAX: all that there are) from source to
 * the basis (pread; its size is taken by fstat) and write the result to out_fd from its offset 0,
 * new_size bytes, hashing it as it goes. A malformed delta: err_refuse(PROTO_BAD_CHANGES). -ESTALE
 * if the basis became shorter meanwhile. The hash is of what was written, whatever happens to the
 * basis meanwhile; the caller compares it with what was promised before the result is used. After
 * an error out_fd holds a part.
 */
int delta_patch(int basis_fd, delta_source *source, void *ctx, uint64_t delta_len, int out_fd,
    uint64_t new_size, struct hash *ret_hash, struct err *e) WARN_UNUSED;

#endif
