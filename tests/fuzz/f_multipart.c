/* SPDX-License-Identifier: MIT */
/* A hostile multipart body: the first byte says in what pieces it arrives and is read. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "server/multipart.h"

#include "shared/banned.h"

struct feed {
    const uint8_t *data;
    size_t left, step;
};

static ssize_t feed_read(void *ctx, void *data, size_t len)
{
    struct feed *f = ctx;
    size_t n = f->left < f->step ? f->left : f->step;
    if (n > len)
        n = len;
    memcpy(data, f->data, n);
    f->data += n;
    f->left -= n;
    return (ssize_t)n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct multipart *m;
    struct multipart_part part;
    uint8_t out[256];
    size_t total = 0;
    if (size == 0)
        return 0;
    struct feed f = {.data = data + 1, .left = size - 1, .step = (size_t)(data[0] & 0x3f) + 1};
    size_t piece = (size_t)(data[0] >> 6) * 60 + 1;
    if (multipart_new("multipart/form-data; boundary=b", feed_read, &f, &m, NULL) < 0)
        return 0;
    while (multipart_next(m, &part, NULL) > 0) {
        ssize_t n;
        if (!part.name)
            __builtin_trap();
        total += strlen(part.name) + (part.filename ? strlen(part.filename) : 0) +
                 (part.content_type ? strlen(part.content_type) : 0);
        while ((n = multipart_read(m, out, piece, NULL)) > 0)
            total += (size_t)n;
        if (n < 0)
            break;
    }
    multipart_free(m);
    /* Nothing can come out that did not go in. */
    if (total > size)
        __builtin_trap();
    return 0;
}
