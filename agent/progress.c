/* SPDX-License-Identifier: MIT */
#include "agent/progress.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "shared/io.h"
#include "shared/num.h"

#include "shared/banned.h"

#define SHOW_AFTER_NS UINT64_C(500000000)
#define BAR_EVERY_NS UINT64_C(50000000)
#define LINE_EVERY_NS UINT64_C(3000000000)
#define BAR_CELLS 24

void progress_init(struct progress *p, bool quiet)
{
    *p = (struct progress){.terminal = isatty(2) == 1, .quiet = quiet, .started_ns = io_now_ns()};
}

static unsigned columns(void)
{
    struct winsize size;

    return ioctl(2, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

/* "1,234/5,764 files  12.0 MiB/25.1 MiB  30.2 MiB/s  1 s left" */
static void describe(char *out, size_t out_size, double seconds, uint64_t files_done,
    uint64_t files_total, uint64_t bytes_done, uint64_t bytes_total)
{
    char done[16], total[16], rate[16];
    double per_second = seconds > 0 ? (double)bytes_done / seconds : 0;
    double left = per_second > 0 ? (double)(bytes_total - bytes_done) / per_second : 0;

    (void)snprintf(out, out_size, "%llu/%llu files  %s/%s  %s/s  %.0f s left",
        (unsigned long long)files_done, (unsigned long long)files_total,
        num_human_bytes(bytes_done, done, sizeof(done)),
        num_human_bytes(bytes_total, total, sizeof(total)),
        num_human_bytes((uint64_t)per_second, rate, sizeof(rate)), left);
}

static void draw_bar(double part, const char *text)
{
    char bar[BAR_CELLS * 3 + 1];
    size_t at = 0;
    unsigned filled = (unsigned)(part * BAR_CELLS + 0.5), width = columns();

    for (unsigned i = 0; i < BAR_CELLS; i++) {
        const char *cell = i < filled ? "█" : "░";
        memcpy(bar + at, cell, 3);
        at += 3;
    }
    bar[at] = '\0';
    int room = width > BAR_CELLS + 10 ? (int)(width - BAR_CELLS - 10) : 0;
    fprintf(stderr, "\r\x1b[K%s %3.0f %%  %.*s", bar, part * 100, room, text);
    (void)fflush(stderr);
}

void progress_update(
    void *ctx, uint64_t files_done, uint64_t files_total, uint64_t bytes_done, uint64_t bytes_total)
{
    struct progress *p = ctx;
    uint64_t now = io_now_ns();
    uint64_t every = p->terminal ? BAR_EVERY_NS : LINE_EVERY_NS;
    char text[160];

    if (p->quiet || now - p->started_ns < SHOW_AFTER_NS ||
        (p->drawn_ns && now - p->drawn_ns < every))
        return;
    if (bytes_done > bytes_total)
        bytes_done = bytes_total;
    p->drawn_ns = now;
    p->shown = true;
    describe(text, sizeof(text), (double)(now - p->started_ns) / 1e9, files_done, files_total,
        bytes_done, bytes_total);
    double part = bytes_total   ? (double)bytes_done / (double)bytes_total
                  : files_total ? (double)files_done / (double)files_total
                                : 0;
    if (p->terminal)
        draw_bar(part, text);
    else
        fprintf(stderr, "silt: %s\n", text);
}

void progress_clear(struct progress *p)
{
    if (p->shown && p->terminal)
        fprintf(stderr, "\r\x1b[K");
    p->shown = false;
}
