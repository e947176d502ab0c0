/* SPDX-License-Identifier: MIT */
/*
 * Images: root file systems by name, one folder each in the image directory. An image that was
 * imported has a note beside it (what it was made of, its environment); one that an administrator
 * laid there by hand has none, and works all the same.
 *
 *     IMAGES/NAME/                the root, read-only for containers
 *     IMAGES/.silt/notes/NAME     the note, JSON
 *     IMAGES/.silt/work/          an import or a removal under way; .silt/lock: one at a time
 *
 * An image never changes: what it was when it appeared it is until it is removed. Any thread.
 */
#ifndef SERVER_IMAGE_H
#define SERVER_IMAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "shared/buf.h"
#include "shared/err.h"

#define IMAGE_HOST "host" /* the name that stands for the host's own programs */
#define IMAGE_NAME_MAX 64
#define IMAGE_OURS ".silt"
#define IMAGE_COUNT_MAX 1000 /* that are listed */
#define IMAGE_ENV_MAX 256
#define IMAGE_PATH_USUAL "/usr/local/bin:/usr/bin:/bin"

/* Where something is mounted in every root, NULL-terminated. None may be a symlink, which would
 * lead the mounts elsewhere (crun before 1.28 follows dev out of the root: CVE-2026-47766). */
extern const char *const image_mount_points[];

struct image {
    char name[IMAGE_NAME_MAX + 1];
    bool noted; /* false: laid there by hand, and all below is empty */
    char format[16];       /* "docker", "oci", "tar" */
    char digest[80];       /* of the configuration, of a plain tar's file; "sha256:…" */
    char architecture[32]; /* "amd64"; "" = not told */
    char *source;          /* the file's name; malloc'd, never NULL */
    uint64_t bytes, entries, layers, left_out, imported_ns;
    char **env; /* "NAME=VALUE", NULL-terminated, never NULL after image_load */
};

/* Letters, digits, '_', '.', '-', at most IMAGE_NAME_MAX, and no '.' or '-' first. "host" is one, too.
 */
bool image_name_valid(const char *name);
bool image_is_host(const char *name); /* also NULL and "" */

/* PROTO_UNKNOWN_IMAGE, with the names there are and how to import one. `dir` NULL: the engine
 * has one only. */
int image_unknown(const char *dir, const char *name, struct err *e);
/* Sorted, at most IMAGE_COUNT_MAX; release with image_names_free. An absent directory has none. */
int image_names(const char *dir, char ***ret, struct err *e) WARN_UNUSED;
void image_names_free(char **names);

/* What is known of an image; *ret is to be released also after an error. -ENOENT: no such folder. */
int image_load(const char *dir, const char *name, struct image *ret, struct err *e) WARN_UNUSED;
void image_release(struct image *image);
/* The value of a variable, or NULL. */
const char *image_env(const struct image *image, const char *name);

/* The note's text. */
int image_note_write(const struct image *image, struct buf *ret) WARN_UNUSED;
/* -EINVAL for anything but what image_note_write writes. */
int image_note_read(const char *text, size_t len, struct image *ret) WARN_UNUSED;

#endif
