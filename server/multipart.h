/* SPDX-License-Identifier: MIT */
/*
 * A pull parser for multipart/form-data (RFC 7578) over a body that arrives in pieces: holds at
 * most MULTIPART_WINDOW_BYTES of it, whatever its size.
 *
 *     struct multipart *m;
 *     r = multipart_new(http_header(req, "Content-Type"), source, req, &m, e);
 *     while ((r = multipart_next(m, &part, e)) > 0)
 *         while ((n = multipart_read(m, data, sizeof(data), e)) > 0)
 *             ...
 *     multipart_free(m);
 *
 * Names and file names come as curl and browsers send them: in quotes, a quote or backslash escaped
 * by a backslash (curl before 7.81, old browsers), or a quote, CR and LF as %22, %0D and %0A (curl,
 * WHATWG; no other percent sequence is touched, so that a file named "100%25" keeps its name);
 * bytes otherwise as they are. filename* (RFC 5987) is ignored, as RFC 7578 says. What is not a
 * form's part by that grammar is an error, not a guess: hostile bodies end with -EBADMSG.
 *
 * One thread at a time. After an error only multipart_free may follow.
 */
#ifndef SERVER_MULTIPART_H
#define SERVER_MULTIPART_H

#include <stddef.h>
#include <sys/types.h>

#include "shared/err.h"

#define MULTIPART_BOUNDARY_MAX 70U /* characters, RFC 2046 */
#define MULTIPART_HEAD_BYTES 8192U /* all headers of a part */
#define MULTIPART_PARTS_MAX 10000U /* of one body */
#define MULTIPART_WINDOW_BYTES (64U * 1024U)

struct multipart;

/* As http_body_read: bytes, 0 at the end, -errno. May return fewer than asked for. */
typedef ssize_t (*multipart_source)(void *ctx, void *data, size_t len);

/* Valid until the next multipart_next. */
struct multipart_part {
    const char *name;         /* never NULL */
    const char *filename;     /* NULL: a field, not a file; may be "" and may hold any path */
    const char *content_type; /* NULL if the part has none */
};

/* -EINVAL if content_type is NULL, no multipart/form-data, or without a usable boundary; -ENOMEM.
 */
int multipart_new(const char *content_type, multipart_source source, void *ctx,
    struct multipart **ret, struct err *e) WARN_UNUSED;
void multipart_free(struct multipart *m);

/* Skip what is left of the current part and read the next one's headers. 1 and *ret, 0 after the
 * last part, -EBADMSG for a malformed or truncated body, or what the source returned. */
int multipart_next(struct multipart *m, struct multipart_part *ret, struct err *e) WARN_UNUSED;

/* Content of the current part: bytes, 0 at its end, errors as multipart_next. */
ssize_t multipart_read(struct multipart *m, void *data, size_t len, struct err *e) WARN_UNUSED;

#endif
