/* SPDX-License-Identifier: MIT */
/*
 * Foreign deltas. Input: one byte for the size of the basis, two for the declared size of the
 * result, the rest is the delta (with the magic put before it if the first byte is odd, so that the
 * fuzzer need not find it). Whatever it is, no crash, and no more output than was declared.
 */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/delta.h"
#include "shared/io.h"

#include "shared/banned.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct feeder {
    const uint8_t *p;
    size_t left, step;
};

static ssize_t feeder_read(void *ctx, void *data, size_t len)
{
    struct feeder *f = ctx;
    size_t n = f->left < len ? f->left : len;

    if (n > f->step)
        n = f->step;
    memcpy(data, f->p, n);
    f->p += n;
    f->left -= n;
    return (ssize_t)n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t magic[4] = {0x72, 0x73, 0x02, 0x36};
    uint8_t basis[256], *delta;
    struct hash hash, expected;
    struct err e = ERR_INIT;
    struct stat st;

    if (size < 3)
        return 0;
    size_t basis_len = data[0], prefix = data[0] & 1 ? sizeof(magic) : 0;
    uint64_t new_size = (uint64_t)data[1] << 8 | data[2];
    size_t len = prefix + size - 3;
    delta = malloc(len + 1);
    if (!delta)
        abort();
    memcpy(delta, magic, prefix);
    memcpy(delta + prefix, data + 3, size - 3);
    for (size_t i = 0; i < sizeof(basis); i++)
        basis[i] = (uint8_t)i;

    int basis_fd = memfd_create("basis", MFD_CLOEXEC), out_fd = memfd_create("out", MFD_CLOEXEC);
    if (basis_fd < 0 || out_fd < 0 || io_pwrite_all(basis_fd, basis, basis_len, 0) < 0)
        abort();
    struct feeder feeder = {delta, len, 1 + (size_t)data[1] % 7};
    int r = delta_patch(basis_fd, feeder_read, &feeder, len, out_fd, new_size, &hash, &e);
    if (fstat(out_fd, &st) < 0 || (uint64_t)st.st_size > new_size)
        abort();
    if (r == 0) {
        if ((uint64_t)st.st_size != new_size || hash_fd(out_fd, &expected, NULL, &e) < 0 ||
            !hash_equal(&hash, &expected))
            abort();
    } else if (e.code == 0 || e.code == EIO) {
        abort(); /* a refusal has its reason, and librsync never saw a bad command */
    }
    close(basis_fd);
    close(out_fd);
    free(delta);
    return 0;
}
