/* SPDX-License-Identifier: MIT */
/* The beginning and the end of exec, and the end of a sandbox. */
#include "server/exec_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>

#include "shared/io.h"
#include "shared/log.h"
#include "shared/path.h"

#include "server/body.h"

#include "shared/banned.h"

#define KICK_MAX 64

/* References to the runs for which `want` holds, at most max; the caller gives them back. */
static size_t collect(
    struct exec *x, const char *sandbox, bool at_barrier, struct run **ret, size_t max)
{
    size_t count = 0;
    (void)pthread_mutex_lock(&x->lock);
    for (struct run *run = x->runs; run && count < max; run = run->hh.next) {
        bool ours = !sandbox || strcmp(run->facts.sandbox, sandbox) == 0;
        bool stuck = atomic_load(&run->at_barrier) && atomic_load(&run->cancel);
        if (ours && (!at_barrier || stuck))
            ret[count++] = run_ref(run);
    }
    (void)pthread_mutex_unlock(&x->lock);
    return count;
}

/* Ends what was abandoned, and wakes those who wait at a barrier and were cancelled. Looks again every second while any is
 * there: one may have been cancelled just before it began to wait. */
static void *kicker_main(void *ctx)
{
    struct exec *x = ctx;
    for (;;) {
        struct pollfd p = {.fd = x->kick_fd, .events = POLLIN};
        struct run *runs[KICK_MAX];
        eventfd_t drained;
        (void)poll(&p, 1, exec_grace_look(x));
        (void)eventfd_read(x->kick_fd, &drained);
        size_t count = collect(x, NULL, true, runs, KICK_MAX);
        for (size_t i = 0; i < count; i++) {
            sandbox_kick(runs[i]->sb);
            run_unref(runs[i]);
        }
        (void)pthread_mutex_lock(&x->lock);
        bool ending = x->ending;
        (void)pthread_mutex_unlock(&x->lock);
        if (ending)
            return NULL;
    }
}

static int start_threads(struct exec *x, struct err *e)
{
    const struct {
        pthread_t *thread;
        void *(*main)(void *);
    } rows[] = {{&x->recorder, exec_recorder_main}, {&x->kicker, kicker_main},
        {&x->housekeeper, exec_housekeeper_main}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int r = pthread_create(rows[i].thread, NULL, rows[i].main, x);
        if (r != 0)
            return err_set(e, r, "start a thread");
        x->threads++;
    }
    return 0;
}

static int check_prepare(const struct config *config, struct err *e)
{
    for (char *const *name = config->prepare; name && *name; name++) {
        const struct runtime_language *language = runtimes_by_name(*name);
        if (strcmp(*name, "none") != 0 && (!language || strcmp(language->name, *name) != 0))
            return err_say(e, EINVAL,
                "prepare: '%s' is no language: name python, node or others of /v1/info, or none",
                *name);
    }
    return 0;
}

static int start_warm_containers(struct exec *x, struct err *e)
{
    const struct warm_config config = {.engine = x->engine,
        .max = container_engine_abilities(x->engine)->warm ? x->config->max_warm : 0,
        .age_ms = x->config->warm_ms,
        .protected_ms = WARM_PROTECTED_MS};
    return warm_new(&config, &x->warm, e);
}

int exec_new(const struct exec_config *config, struct exec **ret, struct err *e)
{
    struct exec *x = calloc(1, sizeof(*x));
    pthread_condattr_t attr;
    if (!x)
        return err_set(e, ENOMEM, "start exec");
    x->config = config->config;
    x->sandboxes = config->sandboxes;
    x->store = config->store;
    x->engine = config->engine;
    const struct slots_config slots = {.running = x->config->max_runs,
        .waiting = x->config->max_queued,
        .running_each = x->config->sandbox_runs,
        .waiting_each = x->config->sandbox_queued};
    x->slots = slots_new(&slots, exec_slot_granted);
    if (!x->slots) {
        free(x);
        return err_set(e, ENOMEM, "start exec");
    }
    (void)pthread_mutex_init(&x->lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&x->less, &attr);
    (void)pthread_cond_init(&x->more, &attr);
    (void)pthread_cond_init(&x->tick, &attr);
    (void)pthread_condattr_destroy(&attr);
    x->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    x->null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    x->log_dir = path_join(x->config->data_dir, "runs");
    int r = x->kick_fd < 0 || x->null_fd < 0 || !x->log_dir ? err_set(e, errno, "start exec") : 0;
    if (r == 0)
        r = io_mkdirs(x->log_dir, 0700, e);
    if (r == 0)
        r = check_prepare(x->config, e);
    if (r == 0)
        r = exec_record_recover(x, e);
    if (r == 0)
        r = start_warm_containers(x, e);
    if (r == 0)
        r = exec_versions_new(x, e);
    if (r == 0)
        r = start_threads(x, e);
    if (r < 0) {
        exec_stop(x);
        exec_free(x);
        return r;
    }
    *ret = x;
    return 0;
}

void exec_stop(struct exec *x)
{
    if (!x)
        return;
    exec_versions_stop(x);
    (void)pthread_mutex_lock(&x->lock);
    x->stopping = true;
    (void)pthread_cond_broadcast(&x->tick);
    for (struct run *run = x->runs; run; run = run->hh.next)
        run_cancel(run);
    /* The threads of runs go on a little after their runs have ended: containers are removed then.
     */
    while (slots_active(x->slots) > 0 || x->run_threads > 0)
        (void)pthread_cond_wait(&x->less, &x->lock);
    x->ending = true;
    (void)pthread_cond_broadcast(&x->more);
    (void)pthread_mutex_unlock(&x->lock);
    warm_stop(x->warm);
    if (x->kick_fd >= 0)
        (void)eventfd_write(x->kick_fd, 1);
    const pthread_t threads[] = {x->recorder, x->kicker, x->housekeeper};
    for (unsigned i = 0; i < x->threads; i++)
        (void)pthread_join(threads[i], NULL);
    x->threads = 0;
}

void exec_free(struct exec *x)
{
    if (!x)
        return;
    fd_closep(&x->kick_fd);
    fd_closep(&x->null_fd);
    free(x->log_dir);
    exec_versions_free(x);
    slots_free(x->slots);
    warm_free(x->warm);
    (void)pthread_cond_destroy(&x->less);
    (void)pthread_cond_destroy(&x->more);
    (void)pthread_cond_destroy(&x->tick);
    (void)pthread_mutex_destroy(&x->lock);
    free(x);
}

void exec_each_image(struct exec *x,
    void (*visit)(const char *sandbox, const char *image, void *ctx), void *ctx)
{
    (void)pthread_mutex_lock(&x->lock);
    for (struct run *run = x->runs; run; run = run->hh.next) {
        if (!atomic_load(&run->ended))
            visit(run->facts.sandbox, run->req.image, ctx);
    }
    (void)pthread_mutex_unlock(&x->lock);
}

void exec_expect(struct exec *x, struct sandbox *sb)
{
    struct sandbox_info info;
    struct config_limits l = x->config->limits;
    if (warm_again(x->warm, sb) || sandbox_info(sb, &info, NULL) < 0)
        return;
    /* What the first run will probably ask for: what the sandbox says. */
    json_t *own = json_loads(info.limits_json, JSON_REJECT_DUPLICATES, NULL);
    if (own && body_limits(own, &x->config->limits_max, &l, NULL) == 0) {
        const struct container_limits limits = exec_container_limits(&l);
        warm_want(x->warm, sb, &limits, info.image);
        const struct runtime_language *language = runtimes_by_name(info.language);
        if (language)
            (void)exec_version(x, info.image, language); /* known by the time of the run */
    }
    json_decref(own);
    sandbox_info_release(&info);
}

/* ---- the end of a sandbox */

static void end_runs_of(struct exec *x, const char *sandbox)
{
    (void)pthread_mutex_lock(&x->lock);
    for (;;) {
        bool any = false;
        for (struct run *run = x->runs; run; run = run->hh.next) {
            if (strcmp(run->facts.sandbox, sandbox) != 0)
                continue;
            any = true; /* also those that ended, until their record is written: it is to be removed
                         */
            run_cancel(run);
        }
        if (!any)
            break;
        (void)pthread_cond_wait(&x->less, &x->lock);
    }
    (void)pthread_mutex_unlock(&x->lock);
}

struct outputs {
    struct exec *x;
    char last[40];
    unsigned seen;
};

static int visit_output(const struct store_run *row, void *ctx)
{
    struct outputs *o = ctx;
    CLEANUP(buf_release) struct buf path;
    buf_init(&path, PATH_BYTES_MAX);
    if (exec_log_path(o->x, row->id, &path) == 0)
        (void)unlink(buf_str(&path));
    (void)snprintf(o->last, sizeof(o->last), "%s", row->id);
    o->seen++;
    return 0;
}

int exec_delete_sandbox(struct exec *x, struct sandbox *sb, struct err *e)
{
    const unsigned page = 500;
    struct outputs o = {.x = x};
    int r = sandbox_delete_begin(sb, e);
    if (r < 0)
        return r;
    end_runs_of(x, sandbox_id(sb));
    warm_drop(x->warm, sb);
    do {
        o.seen = 0;
        r = store_run_list(
            x->store, sandbox_id(sb), NULL, o.last[0] ? o.last : NULL, page, visit_output, &o, e);
    } while (r == 0 && o.seen == page);
    if (r == 0)
        r = store_run_delete_of_sandbox(x->store, sandbox_id(sb), e);
    return r < 0 ? r : sandbox_delete(sb, e);
}
