/* SPDX-License-Identifier: MIT */
#include "shared/proto.h"

#include <stddef.h>
#include <string.h>

#include "shared/banned.h"

static const struct proto_error_info table[PROTO_ERROR_COUNT] = {
#define PROTO_ROW(code, wire_name, status, retry)                                                  \
    [code] = {.name = wire_name, .http_status = status, .retryable = retry},
    PROTO_ERRORS(PROTO_ROW)
#undef PROTO_ROW
};

const struct proto_error_info *proto_error_info(enum proto_error code)
{
    /* A number that is none of ours can only come from a bug on this side: say so to the peer. */
    if ((unsigned)code >= PROTO_ERROR_COUNT)
        return &table[PROTO_INTERNAL];
    return &table[code];
}

enum proto_error proto_error_by_name(const char *name)
{
    for (size_t i = 0; i < PROTO_ERROR_COUNT; i++)
        if (strcmp(table[i].name, name) == 0)
            return (enum proto_error)i;
    return PROTO_INTERNAL;
}
