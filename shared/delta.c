/* SPDX-License-Identifier: MIT */
/*
 * librsync 2.3 behind one push interface. Its asserts are compiled in and it aborts when out of
 * memory, so nothing foreign reaches it: own signatures carry a checksum, and foreign deltas are
 * applied by delta_patch.c without it.
 */
#include "shared/delta.h"
#include "shared/delta_internal.h"

#include <errno.h>
#include <librsync.h>
#include <pthread.h>
#include <string.h>

#include "shared/banned.h"

#define JOB_OUTPUT (64 * 1024) /* librsync wants room for a whole literal command */
#define SUMS_HEADER 12         /* magic, block length, length of a strong sum */
#define STRONG_MIN 4           /* rs_sig_args with -1 never gives less than 5 */

struct delta_job {
    rs_job_t *rs;
    bool done;
    struct buf rest; /* input that librsync left for the next call */
    uint8_t out[JOB_OUTPUT];
};

/* librsync's only global state: by default it writes to stderr. */
static void silence(void)
{
    rs_trace_set_level(RS_LOG_EMERG);
    rs_trace_to(NULL);
}

static struct delta_job *job_new(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct delta_job *job = calloc(1, sizeof(*job));

    (void)pthread_once(&once, silence);
    if (job)
        buf_init(&job->rest, 2 * DELTA_CHUNK);
    return job;
}

void delta_job_free(struct delta_job *job)
{
    if (!job)
        return;
    if (job->rs)
        (void)rs_job_free(job->rs);
    buf_release(&job->rest);
    free(job);
}

void delta_job_freep(struct delta_job **job)
{
    delta_job_free(*job);
    *job = NULL;
}

int delta_job_sums(uint64_t size, uint32_t block, struct delta_job **ret)
{
    CLEANUP(delta_job_freep) struct delta_job *job = job_new();
    rs_magic_number magic = RS_RK_BLAKE2_SIG_MAGIC;
    size_t block_len = block, strong_len = (size_t)-1; /* the shortest that is safe for this size */

    if (!job)
        return -ENOMEM;
    if (rs_sig_args((rs_long_t)size, &magic, &block_len, &strong_len) != RS_DONE)
        return -EINVAL;
    job->rs = rs_sig_begin(block_len, strong_len, magic);
    *ret = ptr_take(&job);
    return 0;
}

bool delta_job_sums_header_valid(
    const uint8_t *head, size_t head_len, uint64_t len, uint32_t block, uint32_t count)
{
    struct cursor c;

    cursor_init(&c, head, head_len);
    uint32_t magic = cursor_u32(&c), block_len = cursor_u32(&c), strong_len = cursor_u32(&c);
    return !c.bad && magic == RS_RK_BLAKE2_SIG_MAGIC && block_len == block &&
           strong_len >= STRONG_MIN && strong_len <= RS_MAX_STRONG_SUM_LENGTH &&
           len == SUMS_HEADER + (uint64_t)count * (4 + strong_len);
}

bool delta_job_sums_valid(const uint8_t *data, size_t len, uint32_t block, uint32_t count)
{
    return delta_job_sums_header_valid(data, len, len, block, count);
}

static int sink_nothing(void *ctx, const void *data, size_t len)
{
    (void)ctx;
    (void)data;
    return len ? -EIO : 0;
}

struct delta_sums {
    rs_signature_t *rs;
};

void delta_sums_free(struct delta_sums *sums)
{
    if (sums && sums->rs)
        rs_free_sumset(sums->rs);
    free(sums);
}

void delta_sums_freep(struct delta_sums **sums)
{
    delta_sums_free(*sums);
    *sums = NULL;
}

int delta_sums_load(const struct buf *sums, struct delta_sums **ret)
{
    CLEANUP(delta_sums_freep) struct delta_sums *loaded = calloc(1, sizeof(*loaded));
    CLEANUP(delta_job_freep) struct delta_job *load = job_new();

    if (!load || !loaded)
        return -ENOMEM;
    load->rs = rs_loadsig_begin(&loaded->rs);
    for (size_t at = 0; at < sums->len; at += DELTA_CHUNK) {
        size_t n = sums->len - at < DELTA_CHUNK ? sums->len - at : DELTA_CHUNK;
        int r = delta_job_feed(load, sums->data + at, n, at + n == sums->len, sink_nothing, NULL);
        if (r < 0)
            return r;
    }
    if (rs_build_hash_table(loaded->rs) != RS_DONE)
        return -ENOMEM;
    *ret = ptr_take(&loaded);
    return 0;
}

int delta_job_match(const struct delta_sums *sums, struct delta_job **ret)
{
    struct delta_job *job = job_new();

    if (!job)
        return -ENOMEM;
    job->rs = rs_delta_begin(sums->rs);
    *ret = job;
    return 0;
}

/* Run the job on b's input until it wants more than there is. */
static int job_run(struct delta_job *job, rs_buffers_t *b, delta_sink *sink, void *ctx)
{
    for (;;) {
        size_t before = b->avail_in;
        b->next_out = (char *)job->out;
        b->avail_out = JOB_OUTPUT;
        rs_result result = rs_job_iter(job->rs, b);
        size_t produced = JOB_OUTPUT - b->avail_out;
        if (result != RS_DONE && result != RS_BLOCKED)
            return result == RS_MEM_ERROR ? -ENOMEM : -EIO;
        int r = produced ? sink(ctx, job->out, produced) : 0;
        if (r < 0)
            return r;
        job->done = result == RS_DONE;
        if (job->done)
            return 0;
        /* Blocked on its output: there may be more. Blocked on input that has ended: a defect. */
        if (produced == 0 && before == b->avail_in)
            return b->eof_in ? -EIO : 0;
    }
}

int delta_job_feed(
    struct delta_job *job, const void *data, size_t len, bool last, delta_sink *sink, void *ctx)
{
    rs_buffers_t b = {.next_in = (char *)(uintptr_t)data, .avail_in = len, .eof_in = last};
    bool joined = job->rest.len > 0;

    if (job->done)
        return -EIO;
    if (joined) {
        int r = len ? buf_add(&job->rest, data, len) : 0;
        if (r < 0)
            return r;
        b.next_in = (char *)job->rest.data;
        b.avail_in = job->rest.len;
    }
    int r = job_run(job, &b, sink, ctx);
    if (r < 0)
        return r;
    if (last && !job->done)
        return -EIO;
    if (joined) {
        buf_consume(&job->rest, job->rest.len - b.avail_in);
        return 0;
    }
    return b.avail_in ? buf_add(&job->rest, b.next_in, b.avail_in) : 0;
}
