/* SPDX-License-Identifier: MIT */
/*
 * What a program printed, made fit for a terminal that was not given to it: text, line ends, tabs
 * and colours (CSI … m) pass; every other control character, C1 in UTF-8 and as bare bytes
 * included, is shown as what it is: \x1b. So output cannot set a clipboard, move the cursor over
 * what stands there, or answer in the reader's name. Pure; one filter per stream, since pieces may
 * end anywhere.
 */
#ifndef AGENT_TERM_FILTER_H
#define AGENT_TERM_FILTER_H

#include <stddef.h>
#include <stdint.h>

#include "shared/buf.h"

#define TERM_FILTER_HELD 32 /* bytes of a colour that are waited for */

struct term_filter {
    uint8_t held[TERM_FILTER_HELD]; /* ESC [ … that may become a colour; or the first byte of C1 */
    size_t held_len;
    unsigned more; /* bytes that a character of UTF-8 still has */
};

/* Append to out. A zeroed filter is a new one. -ENOMEM, -E2BIG as buf_add. */
int term_filter_add(
    struct term_filter *f, const void *data, size_t len, struct buf *out) WARN_UNUSED;
/* What was held back at the end of the stream. */
int term_filter_end(struct term_filter *f, struct buf *out) WARN_UNUSED;

#endif
