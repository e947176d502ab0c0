/* SPDX-License-Identifier: MIT */
/*
 * Signatures of somebody else's making, and stored ones of our own that were damaged. Input: one
 * byte that chooses, then the bytes. Whatever they are, no crash; what is let through obeys the
 * bounds that the header promises; what loads is written back the same.
 */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "shared/delta.h"

#include "shared/banned.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint32_t number(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* The length is what a client declares: take it from the input, too. */
static void check_foreign(const uint8_t *data, size_t size)
{
    struct err e = ERR_INIT;
    uint64_t len = size >= 4 ? number(data) : size;
    const uint8_t *head = size >= 4 ? data + 4 : data;
    size_t head_len = size >= 4 ? size - 4 : size;
    int r = delta_signature_check(head, head_len < 12 ? head_len : 12, len, &e);
    if (r < 0 && e.refusal == PROTO_OK)
        abort(); /* a refusal has its code */
    if (r == 0 && (len > DELTA_SIGNATURE_MAX || head_len < 12 || number(head + 4) < 1024 ||
                      number(head + 4) > 65536))
        abort();
}

static void load_stored(const uint8_t *data, size_t size)
{
    CLEANUP(delta_sig_freep) struct delta_sig *sig = NULL;
    CLEANUP(buf_release) struct buf again;
    struct err e = ERR_INIT;
    buf_init(&again, 1 << 20);
    if (delta_sig_load(data, size, &sig, &e) < 0)
        return;
    if (delta_sig_save(sig, &again) == 0 && (again.len != size || memcmp(again.data, data, size)))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if (data[0] & 1)
        load_stored(data + 1, size - 1);
    else
        check_foreign(data + 1, size - 1);
    return 0;
}
