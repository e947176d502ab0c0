/* SPDX-License-Identifier: MIT */
#include "server/multipart.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

#include "shared/banned.h"

/* White space between a boundary and its line's end ("transport padding"). */
#define PADDING_MAX 64U

enum state { STATE_CONTENT, STATE_AT_BOUNDARY, STATE_END };

struct multipart {
    multipart_source source;
    void *ctx;
    char delimiter[4 + MULTIPART_BOUNDARY_MAX + 1]; /* CR LF - - boundary */
    size_t delimiter_len;
    enum state state;
    bool eof, in_part;
    unsigned parts;
    size_t pos, len;       /* of what is in the window and not consumed */
    size_t ready;          /* bytes from pos on that are known to be content */
    size_t boundary_len;   /* STATE_AT_BOUNDARY: the whole line, at pos */
    bool boundary_is_last; /* … and it ends the body */
    char head[MULTIPART_HEAD_BYTES + 1];
    uint8_t window[MULTIPART_WINDOW_BYTES];
};

/* ---- parameters of a header: ; name=value; name="value" */

static char *skip_space(char *p)
{
    return p + strspn(p, " \t");
}

static bool form_escape(const char *p, char *ret)
{
    static const struct {
        const char *text;
        char c;
    } escapes[] = {{"%22", '"'}, {"%0D", '\r'}, {"%0A", '\n'}};
    for (size_t i = 0; i < sizeof(escapes) / sizeof(escapes[0]); i++)
        if (strncasecmp(p, escapes[i].text, 3) == 0) {
            *ret = escapes[i].c;
            return true;
        }
    return false;
}

/* After an opening quote: decode in place up to the closing one, return what follows it. A
 * backslash that escapes neither quote nor backslash is one: old browsers send whole Windows paths.
 */
static char *unquote(char *in, bool form)
{
    for (char *out = in; *in; out++) {
        if (*in == '"') {
            *out = '\0';
            return in + 1;
        }
        if (*in == '\\' && (in[1] == '"' || in[1] == '\\')) {
            *out = in[1];
            in += 2;
        } else if (form && form_escape(in, out)) {
            in += 3;
        } else {
            *out = *in++;
        }
    }
    return NULL;
}

/* Where the parameters begin, after a header's main value: "" if there are none, NULL if malformed.
 */
static char *first_param(char *p)
{
    p = skip_space(p);
    if (!*p)
        return p;
    return *p == ';' ? p + 1 : NULL;
}

/* The parameter at *cursor, in place. 1, 0 at the end, -1 if malformed. */
static int next_param(char **cursor, bool form, char **ret_name, char **ret_value)
{
    char *name = skip_space(*cursor), *p = name + strcspn(name, "=; \t\"");
    if (!*name)
        return 0;
    if (*p != '=' || p == name)
        return -1;
    *p++ = '\0';
    char *value = p, *end;
    if (*p == '"') {
        value = p + 1;
        end = unquote(value, form);
        if (!end)
            return -1;
    } else {
        end = p + strcspn(p, "; \t\"");
        if (end == p)
            return -1;
    }
    char *next = skip_space(end);
    if (*next && *next != ';')
        return -1;
    *cursor = *next ? next + 1 : next;
    if (*p != '"')
        *end = '\0';
    *ret_name = name;
    *ret_value = value;
    return 1;
}

/* ---- set-up */

static int set_boundary(struct multipart *m, const char *boundary)
{
    size_t len = strlen(boundary);
    if (len == 0 || len > MULTIPART_BOUNDARY_MAX || boundary[len - 1] == ' ')
        return -EINVAL;
    for (size_t i = 0; i < len; i++)
        if (boundary[i] < ' ' || boundary[i] > '~')
            return -EINVAL;
    memcpy(m->delimiter, "\r\n--", 4);
    memcpy(m->delimiter + 4, boundary, len + 1);
    m->delimiter_len = len + 4;
    /* The first boundary may open the body: pretend that a line ended before it. */
    memcpy(m->window, "\r\n", 2);
    m->len = 2;
    return 0;
}

static int read_type(struct multipart *m, const char *content_type, struct err *e)
{
    static const char type[] = "multipart/form-data";
    char *cursor, *name, *value, *boundary = NULL;
    size_t len = content_type ? strlen(content_type) : 0;
    int r;
    if (len < sizeof(type) - 1 || len > MULTIPART_HEAD_BYTES ||
        strncasecmp(content_type, type, sizeof(type) - 1) != 0)
        return err_say(e, EINVAL, "the body is no multipart/form-data");
    memcpy(m->head, content_type, len + 1);
    cursor = first_param(m->head + sizeof(type) - 1);
    if (!cursor)
        return err_say(e, EINVAL, "the body is no multipart/form-data");
    while ((r = next_param(&cursor, false, &name, &value)) > 0)
        if (strcasecmp(name, "boundary") == 0) {
            if (boundary)
                return err_say(e, EINVAL, "the Content-Type names two boundaries");
            boundary = value;
        }
    if (r < 0 || !boundary || set_boundary(m, boundary) < 0)
        return err_say(e, EINVAL, "the Content-Type has no usable boundary");
    return 0;
}

int multipart_new(const char *content_type, multipart_source source, void *ctx,
    struct multipart **ret, struct err *e)
{
    struct multipart *m = calloc(1, sizeof(*m));
    if (!m)
        return err_set(e, ENOMEM, "multipart body");
    m->source = source;
    m->ctx = ctx;
    int r = read_type(m, content_type, e);
    if (r < 0) {
        free(m);
        return r;
    }
    *ret = m;
    return 0;
}

void multipart_free(struct multipart *m)
{
    free(m);
}

/* ---- the window */

static int bad(struct err *e, const char *what)
{
    return err_say(e, EBADMSG, "malformed multipart body: %s", what);
}

/* Fetch more. 0, also at the end of input, which sets eof. */
static int fill(struct multipart *m, struct err *e)
{
    if (m->pos > 0) {
        memmove(m->window, m->window + m->pos, m->len - m->pos);
        m->len -= m->pos;
        m->pos = 0;
    }
    if (m->len == sizeof(m->window))
        return bad(e, "a line is too long"); /* cannot be: every caller consumes or limits */
    ssize_t n = m->source(m->ctx, m->window + m->len, sizeof(m->window) - m->len);
    if (n < 0)
        return err_set(e, (int)-n, "read the multipart body");
    if ((size_t)n > sizeof(m->window) - m->len)
        return bad(e, "the source is broken");
    m->eof = n == 0;
    m->len += (size_t)n;
    return 0;
}

enum verdict { VERDICT_CONTENT, VERDICT_BOUNDARY, VERDICT_LAST, VERDICT_MORE };

/* The delimiter's bytes stand at p: is it a boundary's whole line? A longer word is content. */
static enum verdict judge(
    const struct multipart *m, const uint8_t *p, size_t avail, size_t *ret_len)
{
    size_t i = m->delimiter_len;
    if (avail < i + 2)
        return VERDICT_MORE;
    if (p[i] == '-' && p[i + 1] == '-') {
        *ret_len = i + 2;
        return VERDICT_LAST;
    }
    while (i < avail && i - m->delimiter_len < PADDING_MAX && (p[i] == ' ' || p[i] == '\t'))
        i++;
    if (avail < i + 2)
        return VERDICT_MORE;
    *ret_len = i + 2;
    return p[i] == '\r' && p[i + 1] == '\n' ? VERDICT_BOUNDARY : VERDICT_CONTENT;
}

/* Find out how much of the window is content (`ready`), or that a boundary is next. Fetches where
 * nothing can be told. */
static int scan(struct multipart *m, struct err *e)
{
    while (m->state == STATE_CONTENT && m->ready == 0) {
        const uint8_t *start = m->window + m->pos, *end = m->window + m->len, *p = start;
        enum verdict v = VERDICT_MORE;
        while ((p = memmem(p, (size_t)(end - p), m->delimiter, m->delimiter_len)) &&
               (v = judge(m, p, (size_t)(end - p), &m->boundary_len)) == VERDICT_CONTENT)
            p++;
        /* Without a hit, the window's end may be the beginning of one. */
        size_t avail = (size_t)(end - start);
        size_t keep = m->delimiter_len - 1;
        size_t clear = p ? (size_t)(p - start) : (avail > keep ? avail - keep : 0);
        if (clear > 0) {
            m->ready = clear;
        } else if (p && v != VERDICT_MORE) {
            m->state = STATE_AT_BOUNDARY;
            m->boundary_is_last = v == VERDICT_LAST;
        } else if (m->eof) {
            return bad(e, "it ends without its last boundary");
        } else {
            int r = fill(m, e);
            if (r < 0)
                return r;
        }
    }
    return 0;
}

static void consume(struct multipart *m, size_t n)
{
    m->pos += n;
    m->ready -= n;
}

ssize_t multipart_read(struct multipart *m, void *data, size_t len, struct err *e)
{
    if (!m->in_part)
        return 0;
    int r = scan(m, e);
    if (r < 0)
        return r;
    size_t n = m->ready < len ? m->ready : len;
    memcpy(data, m->window + m->pos, n);
    consume(m, n);
    return (ssize_t)n;
}

/* ---- a part's headers */

/* The block up to and without its empty line, as text in m->head. */
static int read_head(struct multipart *m, struct err *e)
{
    for (;;) {
        const uint8_t *p = m->window + m->pos;
        size_t avail = m->len - m->pos;
        if (avail >= 2 && p[0] == '\r' && p[1] == '\n')
            return bad(e, "a part has no headers");
        const uint8_t *end = memmem(p, avail, "\r\n\r\n", 4);
        size_t n = end ? (size_t)(end - p) : avail;
        if (n > MULTIPART_HEAD_BYTES)
            return bad(e, "a part's headers are too long");
        if (end) {
            memcpy(m->head, p, n);
            m->head[n] = '\0';
            m->pos += n + 4;
            return memchr(m->head, '\0', n) ? bad(e, "a NUL in a part's headers") : 0;
        }
        if (m->eof)
            return bad(e, "it ends within a part's headers");
        int r = fill(m, e);
        if (r < 0)
            return r;
    }
}

static int disposition(char *value, struct multipart_part *part, struct err *e)
{
    static const char type[] = "form-data";
    char *name, *param, *cursor = NULL;
    int r;
    if (strncasecmp(value, type, sizeof(type) - 1) == 0)
        cursor = first_param(value + sizeof(type) - 1);
    if (!cursor)
        return bad(e, "a part is no form-data");
    if (part->name)
        return bad(e, "a part has two dispositions");
    while ((r = next_param(&cursor, true, &name, &param)) > 0) {
        const char **slot = strcasecmp(name, "name") == 0       ? &part->name
                            : strcasecmp(name, "filename") == 0 ? &part->filename
                                                                : NULL;
        if (slot && *slot)
            return bad(e, "a part has two names");
        if (slot)
            *slot = param;
    }
    if (r < 0)
        return bad(e, "a part's Content-Disposition cannot be read");
    return part->name ? 0 : bad(e, "a part has no name");
}

static int header(char *line, struct multipart_part *part, struct err *e)
{
    char *colon = line + strcspn(line, ": \t");
    if (colon == line || *colon != ':')
        return bad(e, "a part's header line cannot be read");
    for (const char *p = line; *p; p++)
        if (((unsigned char)*p < ' ' && *p != '\t') || *p == 0x7f)
            return bad(e, "a control character in a part's headers");
    *colon = '\0';
    char *value = skip_space(colon + 1);
    if (strcasecmp(line, "Content-Disposition") == 0)
        return disposition(value, part, e);
    if (strcasecmp(line, "Content-Type") == 0)
        part->content_type = value;
    if (strcasecmp(line, "Content-Transfer-Encoding") == 0 && strcasecmp(value, "binary") != 0 &&
        strcasecmp(value, "8bit") != 0 && strcasecmp(value, "7bit") != 0)
        return bad(e, "a part's Content-Transfer-Encoding is not understood");
    return 0;
}

static int parse_head(struct multipart *m, struct multipart_part *part, struct err *e)
{
    *part = (struct multipart_part){.name = NULL};
    for (char *line = m->head, *next; line; line = next) {
        next = strstr(line, "\r\n");
        if (next) {
            *next = '\0';
            next += 2;
        }
        int r = header(line, part, e);
        if (r < 0)
            return r;
    }
    return part->name ? 0 : bad(e, "a part has no Content-Disposition");
}

int multipart_next(struct multipart *m, struct multipart_part *ret, struct err *e)
{
    if (m->state == STATE_END)
        return 0;
    while (m->state == STATE_CONTENT) {
        int r = scan(m, e);
        if (r < 0)
            return r;
        consume(m, m->ready);
    }
    m->pos += m->boundary_len;
    m->in_part = false;
    if (m->boundary_is_last) {
        m->state = STATE_END; /* what follows is an epilogue, which says nothing */
        return 0;
    }
    if (++m->parts > MULTIPART_PARTS_MAX)
        return bad(e, "it has too many parts");
    int r = read_head(m, e);
    if (r == 0)
        r = parse_head(m, ret, e);
    if (r < 0)
        return r;
    m->in_part = true;
    m->state = STATE_CONTENT;
    return 1;
}
