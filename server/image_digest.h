/* SPDX-License-Identifier: MIT */
/*
 * SHA-256, by which images name their parts ("sha256:" and 64 digits). The only user of Nettle,
 * which is in the process anyway: libmicrohttpd's TLS brings it. A digest is used by one thread at
 * a time.
 */
#ifndef SERVER_IMAGE_DIGEST_H
#define SERVER_IMAGE_DIGEST_H

#include <stdbool.h>
#include <stddef.h>

#include "shared/cleanup.h"

#define IMAGE_DIGEST_PREFIX "sha256:"
#define IMAGE_DIGEST_BYTES 72 /* prefix, 64 digits, NUL */

struct image_digest;

/* NULL: out of memory. */
struct image_digest *image_digest_new(void);
void image_digest_free(struct image_digest *d);
void image_digest_freep(struct image_digest **d);
void image_digest_add(struct image_digest *d, const void *data, size_t len);
/* Of all that was added; begins anew. */
void image_digest_text(struct image_digest *d, char out[IMAGE_DIGEST_BYTES]);
/* "sha256:" and 64 lower-case hexadecimal digits, nothing else? */
bool image_digest_valid(const char *text);

#endif
