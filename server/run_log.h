/* SPDX-License-Identifier: MIT */
/*
 * What a run printed, in order of arrival: a growing list of frames (stream, number, time, bytes).
 * The run's thread appends; any number of followers read at their own pace, each with an offset of
 * its own, so that a slow one never holds up the program. The newest frames are in memory, older
 * ones in a file of ours; nothing of the file is touched before RUN_LOG_MEMORY bytes have come
 * together or run_log_flush is called, so a short run is answered before anything was written.
 *
 * A frame never ends within a UTF-8 character that continues in the next read: the beginning of a
 * character waits for its rest. Bytes beyond a stream's limit are counted and dropped.
 *
 * One appending thread; readers from any thread; memory and descriptors are freed with the last
 * reference of the run that holds it.
 */
#ifndef SERVER_RUN_LOG_H
#define SERVER_RUN_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "shared/buf.h"
#include "shared/err.h"

#define RUN_LOG_MEMORY (256u * 1024)
#define RUN_LOG_FRAME_MAX (64u * 1024) /* bytes of one frame */

enum run_stream { RUN_STDOUT, RUN_STDERR, RUN_STREAMS };

struct run_log;

struct run_frame {
    enum run_stream stream;
    uint32_t seq;  /* 1, 2, 3 … over both streams */
    uint64_t t_us; /* since the program's start */
    const uint8_t *data;
    size_t len;
};

struct run_log_stats {
    uint64_t bytes[RUN_STREAMS]; /* what the program wrote */
    uint64_t kept[RUN_STREAMS];
    bool truncated[RUN_STREAMS];
    uint32_t last_seq;
    bool text[RUN_STREAMS]; /* every kept byte is UTF-8 */
};

/* A new log whose file would be `path` (ours; made when it is needed). stream_max: bytes kept of
 * each. */
int run_log_new(
    const char *path, uint64_t stream_max, struct run_log **ret, struct err *e) WARN_UNUSED;
/* The file of a finished run. A missing file is an empty log; a torn end is cut off. */
int run_log_load(const char *path, struct run_log **ret, struct err *e) WARN_UNUSED;
void run_log_free(struct run_log *log);
void run_log_freep(struct run_log **log);

/* Append what was read from a stream. A failing disk does not fail the run: the stream counts as
 * truncated from there on. */
void run_log_add(
    struct run_log *log, enum run_stream stream, uint64_t t_us, const void *data, size_t len);
/* No more comes: what waits for its rest is appended, readers see the end. */
void run_log_end(struct run_log *log, uint64_t t_us);
/* Move what is in memory to the file. Where that fails after the end, the streams count as truncated,
 * since whoever loads the file will find less. */
int run_log_flush(struct run_log *log, struct err *e) WARN_UNUSED;

void run_log_stats(struct run_log *log, struct run_log_stats *ret);

/*
 * The frame at *offset (0 = the first), which moves past it; its bytes are in `scratch`
 * (initialised by the caller with a maximum of at least RUN_LOG_FRAME_MAX + 64). Waits up to
 * timeout_ms for one to come. 1 with a frame, 0 after the time, -EPIPE past the end of an ended
 * log, other -errno.
 */
int run_log_next(struct run_log *log, uint64_t *offset, struct run_frame *ret, struct buf *scratch,
    uint32_t timeout_ms) WARN_UNUSED;
/* Append up to max bytes of one stream (of both, in order of arrival: RUN_STREAMS) to b. */
int run_log_text(struct run_log *log, enum run_stream which, struct buf *b) WARN_UNUSED;
/* Write the same to fd. *ret_bytes: how many. */
int run_log_copy(
    struct run_log *log, enum run_stream which, int fd, uint64_t *ret_bytes) WARN_UNUSED;
/* The last bytes of one stream, at most max, for a diagnosis. */
int run_log_tail(struct run_log *log, enum run_stream which, size_t max, struct buf *b) WARN_UNUSED;

#endif
