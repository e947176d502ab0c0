/* SPDX-License-Identifier: MIT */
/*
 * System calls as this project wants them: EINTR retried, short transfers continued, descriptors
 * O_CLOEXEC at birth. Plain functions, any thread.
 *
 * Paths opened here are our own (configuration, state, logs). Paths inside a workspace or a
 * project belong to shared/tree.h.
 */
#ifndef SHARED_IO_H
#define SHARED_IO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "shared/buf.h"
#include "shared/err.h"

/* Write all of it to a blocking descriptor. 0, or -errno. */
int io_write_all(int fd, const void *data, size_t len) WARN_UNUSED;
int io_pwrite_all(int fd, const void *data, size_t len, uint64_t offset) WARN_UNUSED;

/* Read until len bytes or end of file. Bytes read (less than len only at the end), or -errno. */
ssize_t io_read_full(int fd, void *data, size_t len) WARN_UNUSED;
ssize_t io_pread_full(int fd, void *data, size_t len, uint64_t offset) WARN_UNUSED;

/* Append the rest of fd to b. 0, -ENOBUFS if it does not fit under b->max, or -errno. */
int io_read_rest(int fd, struct buf *b) WARN_UNUSED;

/* A whole small file of ours (at most max bytes) into b, which is initialised here. */
int io_read_file(const char *path, size_t max, struct buf *b, struct err *e) WARN_UNUSED;

/* Replace a file of ours: a temporary beside it, fsync, rename. mode as in open(2). */
int io_write_file(const char *path, const void *data, size_t len, mode_t mode,
    struct err *e) WARN_UNUSED;

/* mkdir -p for a path of ours. Missing levels get `mode`. */
int io_mkdirs(const char *path, mode_t mode, struct err *e) WARN_UNUSED;

/* Cryptographically strong bytes from the kernel; cannot fail (aborts if the kernel has none). */
void io_random(void *data, size_t len);

/* CLOCK_MONOTONIC in nanoseconds; CLOCK_REALTIME in nanoseconds since 1970. */
uint64_t io_now_ns(void);
uint64_t io_wall_ns(void);

/* Set or clear O_NONBLOCK. 0 or -errno. */
int io_nonblock(int fd, int on) WARN_UNUSED;

#endif
