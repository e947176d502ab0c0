/* SPDX-License-Identifier: MIT */
/*
 * A tar archive, plain or packed with gzip, zstd or xz, as a sequence of entries. The only user of
 * libarchive, of which it takes the tar reader and these three filters, and no program that would
 * unpack. What comes out is as foreign as what went in: names are checked by who takes them.
 *
 *     image_archive_open(read, ctx, &a, &e)
 *     while ((r = image_archive_next(a, &entry, &e)) > 0)
 *         while ((r = image_archive_data(a, &piece, &e)) > 0) …
 *     image_archive_free(a)
 *
 * Bytes are pulled by `read` on the caller's thread. One thread per archive.
 */
#ifndef SERVER_IMAGE_ARCHIVE_H
#define SERVER_IMAGE_ARCHIVE_H

#include <stdint.h>
#include <sys/types.h>

#include "shared/err.h"

enum image_kind {
    IMAGE_FILE,
    IMAGE_DIR,
    IMAGE_SYMLINK,
    IMAGE_LINK, /* another name of an earlier file */
    IMAGE_OTHER /* device, FIFO, socket */
};

struct image_entry {
    const char *path;   /* valid until the next call; as it stands in the archive */
    const char *target; /* of symlinks and links */
    enum image_kind kind;
    uint32_t mode; /* 07777 */
    uint64_t uid, gid;
    uint64_t size;
    int64_t mtime_s;
    long mtime_ns;
};

struct image_piece {
    const void *data;
    size_t len;
    uint64_t offset; /* in the file; what lies between pieces is a hole */
};

/* At most len bytes; 0 at the end, or -errno. */
typedef ssize_t image_read(void *ctx, void *data, size_t len);

struct image_archive;

int image_archive_open(
    image_read *read, void *ctx, struct image_archive **ret, struct err *e) WARN_UNUSED;
/* 1, 0 at the end, or -errno: -EINVAL when this is no archive or a broken one. */
int image_archive_next(
    struct image_archive *a, struct image_entry *ret, struct err *e) WARN_UNUSED;
/* The next piece of the entry's content: 1, 0 at its end, or -errno. */
int image_archive_data(
    struct image_archive *a, struct image_piece *ret, struct err *e) WARN_UNUSED;
void image_archive_free(struct image_archive *a);
void image_archive_freep(struct image_archive **a);

#endif
