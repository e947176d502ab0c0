/* SPDX-License-Identifier: MIT */
#include "server/image_digest.h"

#include <nettle/sha2.h>
#include <stdio.h>
#include <string.h>

#include "shared/banned.h"

struct image_digest {
    struct sha256_ctx ctx;
};

struct image_digest *image_digest_new(void)
{
    struct image_digest *d = calloc(1, sizeof *d);
    if (d)
        sha256_init(&d->ctx);
    return d;
}

void image_digest_free(struct image_digest *d)
{
    free(d);
}

void image_digest_freep(struct image_digest **d)
{
    image_digest_free(*d);
    *d = NULL;
}

void image_digest_add(struct image_digest *d, const void *data, size_t len)
{
    sha256_update(&d->ctx, len, data);
}

void image_digest_text(struct image_digest *d, char out[IMAGE_DIGEST_BYTES])
{
    uint8_t bytes[SHA256_DIGEST_SIZE];
    sha256_digest(&d->ctx, sizeof bytes, bytes);
    size_t at = sizeof IMAGE_DIGEST_PREFIX - 1;
    memcpy(out, IMAGE_DIGEST_PREFIX, at);
    for (size_t i = 0; i < sizeof bytes; i++)
        (void)snprintf(out + at + 2 * i, 3, "%02x", bytes[i]);
}

bool image_digest_valid(const char *text)
{
    size_t at = sizeof IMAGE_DIGEST_PREFIX - 1;
    return strncmp(text, IMAGE_DIGEST_PREFIX, at) == 0 &&
           strspn(text + at, "0123456789abcdef") == 64 && text[at + 64] == '\0';
}
