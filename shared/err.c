/* SPDX-License-Identifier: MIT */
#include "shared/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "shared/text.h"
#include "shared/weaken.h"

#include "shared/banned.h"

#define SYSTEM_TEXT_BYTES 128

/* Success must never come out of an error path, whatever the caller passed as code. */
static int positive_code(int code)
{
    if (code == 0)
        return EIO;
    return code < 0 ? -code : code;
}

/* C0, DEL, or C1 as UTF-8: many terminals obey U+009B like ESC [. */
static bool is_control(const char *p)
{
    unsigned char c = (unsigned char)*p, next = (unsigned char)p[1];
    return c < 0x20 || c == 0x7f || (c == 0xc2 && next >= 0x80 && next < 0xa0);
}

/* The message is one line of text: a newline in a foreign name must not forge a second one, an
 * escape sequence in a foreign sentence must not drive a terminal, and a message that was cut must
 * not end in half a character. */
static void tidy(char *msg, size_t full_len)
{
    size_t len = strlen(msg);
    if (full_len > len) {
        len = text_utf8_whole(msg, len);
        msg[len] = '\0';
    }
    for (size_t i = 0; i < len && !WEAK("errors"); i++) {
        if (!is_control(msg + i))
            continue;
        if ((unsigned char)msg[i] == 0xc2)
            msg[i++] = '?';
        msg[i] = '?';
    }
}

/* Format into out. The arguments may point into the struct that is being filled (a message made of
 * an older one), so that nothing is written there before the text is complete. */
__attribute__((format(printf, 3, 0))) static void format(
    char *out, size_t size, const char *fmt, va_list ap)
{
    int n = vsnprintf(out, size, fmt, ap);
    if (n < 0) {
        out[0] = '\0';
        n = 0;
    }
    tidy(out, (size_t)n);
}

static int fill(struct err *e, int code, enum proto_error refusal, const char msg[ERR_MSG_BYTES])
{
    e->code = code;
    e->refusal = refusal;
    memcpy(e->msg, msg, ERR_MSG_BYTES);
    return -code;
}

/* Append as much of text as fits. */
static void append(char out[ERR_MSG_BYTES], const char *text)
{
    size_t len = strlen(out);
    int n = snprintf(out + len, ERR_MSG_BYTES - len, "%s", text);
    tidy(out, n < 0 ? len : len + (size_t)n);
}

int err_set(struct err *e, int code, const char *fmt, ...)
{
    code = positive_code(code);
    if (!e)
        return -code;
    char msg[ERR_MSG_BYTES] = "", scratch[SYSTEM_TEXT_BYTES];
    const char *text = strerror_r(code, scratch, sizeof(scratch));
    /* The reason is worth more than the end of a long name: leave room for it. */
    size_t reserve = strnlen(text, SYSTEM_TEXT_BYTES) + 2;
    va_list ap;
    va_start(ap, fmt);
    format(msg, sizeof(msg) - reserve, fmt, ap);
    va_end(ap);
    append(msg, ": ");
    append(msg, text);
    return fill(e, code, PROTO_OK, msg);
}

int err_say(struct err *e, int code, const char *fmt, ...)
{
    code = positive_code(code);
    if (!e)
        return -code;
    char msg[ERR_MSG_BYTES] = "";
    va_list ap;
    va_start(ap, fmt);
    format(msg, sizeof(msg), fmt, ap);
    va_end(ap);
    return fill(e, code, PROTO_OK, msg);
}

int err_refuse(struct err *e, enum proto_error refusal, const char *fmt, ...)
{
    if (!e)
        return -EPROTO;
    char msg[ERR_MSG_BYTES] = "";
    va_list ap;
    va_start(ap, fmt);
    format(msg, sizeof(msg), fmt, ap);
    va_end(ap);
    return fill(e, EPROTO, refusal, msg);
}

int err_wrap(struct err *e, const char *fmt, ...)
{
    if (!e || e->code == 0)
        return -EIO;
    char msg[ERR_MSG_BYTES] = "";
    /* A quarter at most for each context, so that the cause survives several of them. */
    va_list ap;
    va_start(ap, fmt);
    format(msg, sizeof(msg) / 4, fmt, ap);
    va_end(ap);
    append(msg, ": ");
    append(msg, e->msg);
    return fill(e, positive_code(e->code), e->refusal, msg);
}
