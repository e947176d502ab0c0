/* SPDX-License-Identifier: MIT */
/*
 * Standard input for a run that goes on: what is typed or piped here is sent to the program there,
 * a request at a time, beside the stream of its output.
 *
 *     run_feed_init(&f, client, kind) … run_feed_restart(&f, run_id) when a run's id is known …
 *     loop: poll run_feed_fd() → run_feed_step(); run_feed_wait_ms() bounds the waiting
 *     run_feed_release(&f)
 *
 * Each request says where in the input it begins, so one that broke is sent again. What the server
 * may hold for a program that has not started is kept here, so that a run that was refused before
 * that can be asked for anew with all its input. Never blocks but in read(2) of what poll
 * announced.
 */
#ifndef AGENT_RUN_FEED_H
#define AGENT_RUN_FEED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/client.h"

#define RUN_FEED_KEEP (256u * 1024) /* as the server buffers at most */
#define RUN_FEED_MAX (2 * RUN_FEED_KEEP)
#define RUN_FEED_BODY (128u * 1024)

enum run_feed_kind {
    RUN_FEED_NONE,  /* closed, at its end, /dev/null, not wanted, or a terminal in the background */
    RUN_FEED_BYTES, /* a pipe, a file, or a terminal whose lines are sent */
    RUN_FEED_TERMINAL, /* a terminal that becomes the program's */
};

struct run_feed {
    struct client *client; /* borrowed */
    enum run_feed_kind kind;
    char id[40]; /* of the run; "" = not known */
    char path[96], offset_line[64];
    const char *headers[2];
    uint8_t *data;    /* RUN_FEED_MAX bytes, NULL until the first */
    size_t len;       /* read and kept */
    uint64_t base;    /* where in the input data begins */
    uint64_t taken;   /* how much of the input the server has */
    size_t under_way; /* bytes of the request under way */
    bool at_end;      /* nothing more comes from here */
    bool end_under_way, end_told;
    bool closed; /* the program takes no more */
    struct client_call *call;
    uint64_t asked_ns; /* begin of the request under way */
    uint64_t lost_ns;  /* … of the first since none got through; 0: the last one did */
    uint64_t again_ns; /* not before this */
    bool resized, resizing;
    char resize_path[96], resize_body[48];
};

/* What this process has for its standard input; `terminal`: may it become the program's? */
enum run_feed_kind run_feed_look(bool terminal);
void run_feed_init(struct run_feed *f, struct client *client, enum run_feed_kind kind);
void run_feed_release(struct run_feed *f);
/* Input goes to this run from now on; another one than before gets it from the beginning.
 * -ESPIPE: that is gone. */
int run_feed_restart(struct run_feed *f, const char *id, struct err *e) WARN_UNUSED;

/* The line was cut: what is under way is sent anew. */
void run_feed_again(struct run_feed *f);

/* To be polled for POLLIN, or -1. */
int run_feed_fd(const struct run_feed *f);
int run_feed_wait_ms(const struct run_feed *f, int usual_ms);
/* Read if `readable`, send what is due. 0, or 1: Ctrl-C was typed at a terminal while the server
 * does not take what was typed before, or is away. */
int run_feed_step(struct run_feed *f, bool readable);
/* The terminal has another size: tell it. */
void run_feed_resize(struct run_feed *f);

#endif
