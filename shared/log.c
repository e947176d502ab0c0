/* SPDX-License-Identifier: MIT */
#include "shared/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "shared/buf.h"
#include "shared/io.h"
#include "shared/text.h"

#include "shared/banned.h"

/* A message of which every byte is written as \xNN still makes a line that a pipe takes in one
 * piece (PIPE_BUF, 4096 bytes), with its stamp and level. */
#define MESSAGE_BYTES_MAX 1000
#define LINE_BYTES_MAX 4095

/* The only mutable state of the module, set before threads start. */
static enum log_level highest = LOG_LEVEL_INFO;
static int out_fd = 2;

void log_set_level(enum log_level level)
{
    highest = level;
}

void log_set_fd(int fd)
{
    out_fd = fd;
}

static int add_head(struct buf *line, enum log_level level)
{
    static const char *const names[] = {
        [LOG_LEVEL_ERROR] = "error",
        [LOG_LEVEL_WARN] = "warn",
        [LOG_LEVEL_INFO] = "info",
        [LOG_LEVEL_DEBUG] = "debug",
    };
    char stamp[TEXT_TIME_BYTES];
    if (!getenv("JOURNAL_STREAM") && !isatty(out_fd)) {
        int r = buf_addf(line, "%s ", text_time(io_wall_ns(), stamp));
        if (r < 0)
            return r;
    }
    return buf_addf(line, "%s ", names[level]);
}

void log_line(enum log_level level, const char *fmt, ...)
{
    if (level > highest || level > LOG_LEVEL_DEBUG)
        return;
    int saved = errno;
    char message[MESSAGE_BYTES_MAX + 1];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(message, sizeof(message), fmt, ap);
    va_end(ap);
    if (n > MESSAGE_BYTES_MAX)
        message[text_utf8_whole(message, MESSAGE_BYTES_MAX)] = '\0';

    CLEANUP(buf_release) struct buf line;
    buf_init(&line, LINE_BYTES_MAX);
    bool written = n >= 0 && add_head(&line, level) == 0 && text_add_escaped(&line, message) == 0 &&
                   buf_addc(&line, '\n') == 0 && io_write_all(out_fd, line.data, line.len) == 0;
    (void)written; /* a log that cannot be written is nobody's reason to stop */
    errno = saved;
}
