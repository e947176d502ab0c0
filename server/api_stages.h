/* SPDX-License-Identifier: MIT */
/*
 * What clients say about resumable uploads, checked. Pure, any thread.
 */
#ifndef SERVER_API_STAGES_H
#define SERVER_API_STAGES_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "shared/err.h"
#include "shared/hash.h"

struct api_stage_wish {
    uint64_t size;
    bool has_hash;
    struct hash hash;
};

/* The body {"size":N,"hash":"xxh3-128:…"?} of a new one. Refusal PROTO_INVALID_VALUE. */
int api_stage_parse(json_t *body, struct api_stage_wish *ret, struct err *e) WARN_UNUSED;
/* The header Upload-Offset (NULL: it is missing). Refusal PROTO_INVALID_VALUE. */
int api_stage_offset(const char *header, uint64_t *ret, struct err *e) WARN_UNUSED;

#endif
