/* SPDX-License-Identifier: MIT */
/*
 * The parts of an image, by name: files of an OCI layout on disk, or of an archive, from which they
 * are laid aside first (an archive may name its layers before it says in which order they lie).
 * Everything in them is foreign: a layout's files are opened without following a link, those of an
 * archive get names of our own.
 *
 *     image_blobs_new(dir, &b, &e)  or  image_blobs_open_layout(path, &b, &e)
 *     image_blobs_take(b, archive, &entry, &e)   // of an archive, entry by entry
 *     image_blobs_text(b, &blob, &text, &e)      // a document, its digest compared
 *     image_blobs_open(b, &blob, &fd, &e)        // a layer, whose digest the reader compares
 *     image_blobs_free(b)
 *
 * One thread.
 */
#ifndef SERVER_IMAGE_BLOBS_H
#define SERVER_IMAGE_BLOBS_H

#include "server/image_archive.h"
#include "server/image_manifest.h"
#include "server/image_root.h"

#define IMAGE_BLOBS_MAX 4096

struct image_blobs;

/* For an archive: laid aside in this folder (borrowed), as far as the root's disk has room. */
int image_blobs_new(
    int dir, struct image_root *room, struct image_blobs **ret, struct err *e) WARN_UNUSED;
int image_blobs_open_layout(const char *path, struct image_blobs **ret, struct err *e) WARN_UNUSED;
void image_blobs_free(struct image_blobs *b);
void image_blobs_freep(struct image_blobs **b);

/* Is this what an archive of an image holds? 1: taken; 0: no, and nothing was read. */
int image_blobs_take(struct image_blobs *b, struct image_archive *archive,
    const struct image_entry *entry, struct err *e) WARN_UNUSED;
/* Was any file taken? */
bool image_blobs_any(const struct image_blobs *b);
bool image_blobs_has(const struct image_blobs *b, const char *name);

/* For reading, from its beginning. -EINVAL with a sentence if it is not there or has another size. */
int image_blobs_open(
    const struct image_blobs *b, const struct image_blob *blob, int *ret_fd, struct err *e) WARN_UNUSED;
/* At most IMAGE_JSON_MAX bytes, into ret, which is initialised here. */
int image_blobs_text(const struct image_blobs *b, const struct image_blob *blob, struct buf *ret,
    struct err *e) WARN_UNUSED;
/* -EINVAL unless the digests are the same. */
int image_blobs_compare(
    const struct image_blob *blob, const char *digest, struct err *e) WARN_UNUSED;

#endif
