/* SPDX-License-Identifier: MIT */
/*
 * Requests to Docker Engine, or to what speaks like it (Podman), over its UNIX socket. The only
 * file of the server that knows libcurl, which is loaded when this engine is asked for and not
 * before.
 *
 * Each call is one request on a connection of its own: any thread. What is answered has a maximum,
 * a time limit, and is text that nobody has checked: docker_json.h reads it.
 */
#ifndef SERVER_DOCKER_HTTP_H
#define SERVER_DOCKER_HTTP_H

#include "shared/buf.h"
#include "shared/err.h"

#define DOCKER_ANSWER_MAX (1024 * 1024) /* bytes */

struct docker_http;

/* Nothing is sent yet. -ENOENT: no libcurl. */
int docker_http_new(const char *socket, struct docker_http **ret, struct err *e) WARN_UNUSED;
void docker_http_free(struct docker_http *h);

/* "GET", "HEAD", "POST" or "DELETE"; path begins with '/' and is encoded; json may be NULL. The
 * body of the answer is appended to *answer, which the caller initialised and which may hold less
 * than DOCKER_ANSWER_MAX: -EMSGSIZE beyond. Returns the status of HTTP, whatever it is, or -errno:
 * -ECONNREFUSED when nobody listens, -ETIMEDOUT. */
int docker_http_call(const struct docker_http *h, const char *method, const char *path,
    const char *json, int timeout_ms, struct buf *answer, struct err *e) WARN_UNUSED;

#endif
