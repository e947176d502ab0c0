/* SPDX-License-Identifier: MIT */
/*
 * Errors as values. A fallible function returns 0 or -errno and, where it meets the operating
 * system or a peer, takes a `struct err *` last, which it fills with a sentence. The one who
 * started the operation decides what to print; modules never do.
 *
 *     if (fd < 0)
 *         return err_set(e, errno, "open '%s'", path);      // "open 'a': No such file or directory"
 *     if (r < 0)
 *         return err_wrap(e, "read the index");             // "read the index: open 'a': No such…"
 *     return err_refuse(e, PROTO_FILE_NOT_FOUND, "no file '%s' in this sandbox", path);
 *
 * A refusal is an error with a name of the protocol (shared/proto.h), meant for the other side;
 * it carries code EPROTO. No function here allocates; any thread may call them on its own struct.
 * Every function accepts e == NULL, for callers that need only the code.
 */
#ifndef SHARED_ERR_H
#define SHARED_ERR_H

#include "shared/cleanup.h"
#include "shared/proto.h"

#define ERR_MSG_BYTES 512

struct err {
    int code;                 /* positive errno; 0: no error */
    enum proto_error refusal; /* PROTO_OK: not a refusal */
    char msg[ERR_MSG_BYTES];  /* one line, without a full stop */
};

#define ERR_INIT {.code = 0}

/* Format the message, append ": " and the system's text for `code`. Returns -code. */
int err_set(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* As err_set, without the system's text: for sentences that stand alone. Returns -code. */
int err_say(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* A refusal that the protocol names. Sets code EPROTO. Returns -EPROTO. */
int err_refuse(struct err *e, enum proto_error refusal, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Put "context: " before the message and keep code and refusal. Returns -e->code (-EIO if e is
 * NULL or holds no error, so that a caller's mistake never turns into success). */
int err_wrap(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* A failure that does not matter here, said in the code: err_ignore(unlink_old(…)). (A cast to void
 * does not silence gcc's warn_unused_result.) */
static inline void err_ignore(int result)
{
    (void)result;
}

#endif
