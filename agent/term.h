/* SPDX-License-Identifier: MIT */
/*
 * This process's terminal, handed to a program that runs elsewhere: raw, so that every byte goes
 * there, and given back as it was. One thread; the terminal is standard input.
 */
#ifndef AGENT_TERM_H
#define AGENT_TERM_H

#include <stdbool.h>
#include <termios.h>

struct term {
    struct termios before;
    bool raw;
};

/* Nothing happens where standard input is no terminal, or is raw already. */
void term_raw(struct term *t);
/* As it was; also when it never was raw. */
void term_restore(struct term *t);

#endif
