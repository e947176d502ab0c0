/* SPDX-License-Identifier: MIT */
/*
 * Matching a request's path against patterns: "/v1/sandboxes/{id}/files/{path...}". A name in
 * braces stands for one component, with dots for the rest of the path, slashes included; what it
 * matched is percent-decoded. Pure, any thread.
 */
#ifndef SERVER_ROUTE_H
#define SERVER_ROUTE_H

#include <stdbool.h>
#include <stddef.h>

#include "server/http.h"

#define ROUTE_PARAMS 2

struct route_match {
    char *param[ROUTE_PARAMS]; /* malloc'd, in order of the pattern */
    size_t len[ROUTE_PARAMS];  /* a decoded part holds no NUL, but may be no UTF-8 */
};

/* 1 if path fits pattern, with *ret filled (release it); 0 if not; -EINVAL for bad
 * percent-encoding; -ENOMEM. */
int route_match(const char *pattern, const char *path, struct route_match *ret) WARN_UNUSED;
void route_match_release(struct route_match *m);
const char *route_method_name(enum http_method method);

#endif
