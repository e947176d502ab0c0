/* SPDX-License-Identifier: MIT */
/*
 * What an image consists of, from the JSON documents of `docker save` (manifest.json) and of OCI
 * layouts (index.json, manifests, configurations). Pure: texts in, values out; who reads the texts
 * has bounded them (IMAGE_JSON_MAX) and compared their digests. Any thread.
 */
#ifndef SERVER_IMAGE_MANIFEST_H
#define SERVER_IMAGE_MANIFEST_H

#include "server/image.h"
#include "server/image_digest.h"

#define IMAGE_JSON_MAX (4 * 1024 * 1024)
#define IMAGE_LAYERS_MAX 512
#define IMAGE_INDEX_DEPTH 3

struct image_blob {
    char name[160];                  /* in the archive or layout */
    char digest[IMAGE_DIGEST_BYTES]; /* what it must be; "" = nothing is said */
    uint64_t size;                   /* what it must be; UINT64_MAX = nothing is said */
};

struct image_parts {
    struct image_blob config;
    struct image_blob *layers; /* lowest first */
    size_t count;
};
void image_parts_release(struct image_parts *parts);

/* This machine's name in images ("amd64"). */
const char *image_architecture(void);

/* All return 0 or -EINVAL with a sentence; -ENOMEM. `text` is NUL-terminated. */
int image_manifest_docker(
    const char *text, size_t len, struct image_parts *ret, struct err *e) WARN_UNUSED;
/* The one manifest for this architecture; *ret_index: it is an index itself. */
int image_manifest_index(const char *text, size_t len, const char *architecture,
    struct image_blob *ret, bool *ret_index, struct err *e) WARN_UNUSED;
int image_manifest_oci(
    const char *text, size_t len, struct image_parts *ret, struct err *e) WARN_UNUSED;
/* The configuration: fills architecture and env of *ret, and the digests of layers that have none
 * yet. Another architecture than the one given is refused. */
int image_manifest_config(const char *text, size_t len, const char *architecture,
    struct image_parts *parts, struct image *ret, struct err *e) WARN_UNUSED;

#endif
