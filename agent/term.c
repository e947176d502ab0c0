/* SPDX-License-Identifier: MIT */
#include "agent/term.h"

#include "shared/banned.h"

void term_raw(struct term *t)
{
    struct termios mode;
    if (t->raw || tcgetattr(0, &t->before) < 0)
        return;
    mode = t->before;
    cfmakeraw(&mode);
    /* What was typed ahead is the program's. */
    t->raw = tcsetattr(0, TCSADRAIN, &mode) == 0;
}

void term_restore(struct term *t)
{
    if (t->raw)
        (void)tcsetattr(0, TCSADRAIN, &t->before);
    t->raw = false;
}
