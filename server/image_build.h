/* SPDX-License-Identifier: MIT */
/*
 * A file that somebody gave us → a root file system in a folder: `docker save` archives, OCI layouts
 * (as archives and as folders) and plain tars of a root. Layers are applied in order; digests are
 * compared; nothing outside of the two folders is written, and the caller confines the process that
 * does it, besides. One thread.
 */
#ifndef SERVER_IMAGE_BUILD_H
#define SERVER_IMAGE_BUILD_H

#include "server/image.h"
#include "server/image_blobs.h"

struct image_build {
    int file;                 /* an archive, from where it stands to its end; a pipe will do */
    struct image_blobs *layout; /* or this, and file is not looked at */
    int root, parts;          /* empty folders: for the root, for what must be laid aside */
    uint64_t min_free_bytes;  /* of their file system */
};

/* Fills format, digest, architecture, env and the numbers of *ret, which image_release may be
 * called on also after an error. After an error the folders hold what was made by then. */
int image_build(const struct image_build *build, struct image *ret, struct err *e) WARN_UNUSED;

#endif
