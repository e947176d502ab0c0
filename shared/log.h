/* SPDX-License-Identifier: MIT */
/*
 * The server's and the watcher's log: one line per event to standard error, `level message`, with
 * a time stamp unless standard error is a terminal or the journal adds its own. Foreign names in
 * messages are escaped, so that nothing a program wrote can forge a line or drive a terminal.
 * Thread-safe: a line is one write(2). The programs' edges (main, http, exec) log; pure modules do
 * not.
 */
#ifndef SHARED_LOG_H
#define SHARED_LOG_H

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Lines above this level are dropped. Call once, before threads start. Default: info. */
void log_set_level(enum log_level level);

/* Send the lines to fd instead of 2. Call once, before threads start. */
void log_set_fd(int fd);

void log_line(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...) log_line(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...) log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
