/* SPDX-License-Identifier: MIT */
#include "agent/term_filter.h"

#include <stdbool.h>
#include <string.h>

#include "shared/banned.h"

#define ESCAPE 0x1b
#define C1_LEAD                                                                                    \
    0xc2 /* of U+0080 to U+009F in UTF-8, which some terminals take for ESC + a letter */

static int show(uint8_t c, struct buf *out)
{
    return buf_addf(out, "\\x%02x", c);
}

/* Nothing is held. */
static int plain(struct term_filter *f, uint8_t c, struct buf *out)
{
    bool text = (c >= 0x20 && c < 0x7f) || c == '\n' || c == '\t' || c == '\r';
    if (f->more > 0 && c >= 0x80 && c < 0xc0) {
        f->more--;
        return buf_addc(out, (char)c);
    }
    f->more = c >= 0xf0 && c < 0xf5      ? 3
              : c >= 0xe0 && c < 0xf0    ? 2
              : c >= C1_LEAD && c < 0xe0 ? 1
                                         : 0;
    return text || f->more > 0 ? buf_addc(out, (char)c) : show(c, out);
}

/* It was no colour: its first byte is shown, the rest is looked at again. */
static int give_up(struct term_filter *f, struct buf *out)
{
    uint8_t held[TERM_FILTER_HELD];
    size_t len = f->held_len;
    memcpy(held, f->held, len);
    f->held_len = 0;
    int r = len > 0 ? show(held[0], out) : 0;
    for (size_t i = 1; r == 0 && i < len; i++)
        r = plain(f, held[i], out);
    return r;
}

static int after_lead(struct term_filter *f, uint8_t c, struct buf *out)
{
    f->held_len = 0;
    if (c >= 0xa0 && c < 0xc0) {
        int r = buf_addc(out, (char)C1_LEAD);
        return r < 0 ? r : buf_addc(out, (char)c);
    }
    int r = show(C1_LEAD, out);
    return r < 0 ? r : c >= 0x80 && c < 0xa0 ? show(c, out) : term_filter_add(f, &c, 1, out);
}

static int after_escape(struct term_filter *f, uint8_t c, struct buf *out)
{
    bool fits = f->held_len == 1 ? c == '[' : (c >= '0' && c <= ';') || c == 'm';
    if (!fits || f->held_len == TERM_FILTER_HELD) {
        int r = give_up(f, out);
        return r < 0 ? r : term_filter_add(f, &c, 1, out);
    }
    f->held[f->held_len++] = c;
    if (c != 'm')
        return 0;
    size_t len = f->held_len;
    f->held_len = 0;
    return buf_add(out, f->held, len);
}

int term_filter_add(struct term_filter *f, const void *data, size_t len, struct buf *out)
{
    const uint8_t *p = data, *end = p + len;
    int r = 0;
    for (; r == 0 && p < end; p++) {
        if (f->held_len > 0) {
            r = f->held[0] == ESCAPE ? after_escape(f, *p, out) : after_lead(f, *p, out);
        } else if (*p == ESCAPE || *p == C1_LEAD) {
            f->more = 0;
            f->held[f->held_len++] = *p;
        } else {
            r = plain(f, *p, out);
        }
    }
    return r;
}

int term_filter_end(struct term_filter *f, struct buf *out)
{
    return give_up(f, out);
}
