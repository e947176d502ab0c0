/* SPDX-License-Identifier: MIT */
/* What was saved goes before the run: through a watcher that is there, or by a scan. */
#include "agent/run_internal.h"

#include <errno.h>
#include <unistd.h>

#include "agent/control.h"
#include "shared/io.h"

#include "shared/banned.h"

/* A change set of more operations than this is sent before the run is asked for, with a progress
 * bar, instead of at the same time: the run's barrier would only wait. */
#define BEHIND_BARRIER_OPS 200
#define FLUSH_TIMEOUT_MS 10000
/* So long after its start a run that has printed nothing may be waiting for a set that was refused.
 */
#define SILENCE_NS UINT64_C(300000000)

/* The watcher of this project, if there is one, flushes and names its last set. -ENOENT if none. */
static int barrier_of_watcher(struct run_session *s, struct err *e)
{
    json_t *ask = json_pack("{s:s, s:i}", "op", "flush", "timeout_ms", FLUSH_TIMEOUT_MS);
    json_t *answer = NULL;
    int r = control_request(s->app->root, ask, FLUSH_TIMEOUT_MS + 1000, &answer, e);

    json_decref(ask);
    if (r < 0)
        return r;
    const char *client = json_string_value(json_object_get(answer, "client"));
    json_int_t seq = json_integer_value(json_object_get(answer, "seq"));
    r = run_request_after(s->request, client ? client : "", (uint64_t)seq);
    json_decref(answer);
    return r < 0 ? err_set(e, -r, "build a request") : 0;
}

int run_sync_barrier(struct run_session *s, struct err *e)
{
    const char *client = "";
    uint64_t seq = 0;

    sync_barrier(s->sync, &client, &seq);
    int r = run_request_after(s->request, client, seq);
    return r < 0 ? err_set(e, -r, "build a request") : 0;
}

static int scan_and_send(struct run_session *s, struct err *e)
{
    struct sync_config config = talk_sync_config(&s->talk, true);
    int r = sync_open(&config, &s->sync, e);
    if (r < 0)
        return r;
    int64_t ops = sync_scan(s->sync, e);
    if (ops < 0)
        return (int)ops;
    r = ops > BEHIND_BARRIER_OPS ? sync_push(s->sync, e) : sync_start(s->sync, e);
    if (r == 0 && sync_uploads(s->sync))
        r = sync_push(s->sync, e);
    progress_clear(&s->talk.progress);
    return r < 0 ? r : run_sync_barrier(s, e);
}

int run_sync_first(struct run_session *s, struct err *e)
{
    if (s->app->opt.no_sync)
        return 0;
    for (int attempt = 0;; attempt++) {
        int r = barrier_of_watcher(s, e);
        if (r != -ENOENT && r != -ECONNREFUSED)
            return r;
        r = scan_and_send(s, e);
        /* Another command holds the project for a moment, or a watcher is just starting. */
        if (r != -EBUSY || attempt == 50)
            return r;
        (void)usleep(100000);
    }
}

int run_sync_look_after(struct run_session *s, struct err *e)
{
    if (!s->sync || !s->silent_since_ns || sync_busy(s->sync) || s->stream.printed_bytes > 0 ||
        io_now_ns() - s->silent_since_ns < SILENCE_NS)
        return 0;
    s->silent_since_ns = 0;
    return sync_push(s->sync, e);
}
