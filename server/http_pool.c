/* SPDX-License-Identifier: MIT */
#include "server/http_pool.h"

#include <errno.h>
#include <pthread.h>

#include "shared/weaken.h"

#include "shared/banned.h"

struct http_pool {
    struct http_pool_ops ops;
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct http_job *first, **last;
    unsigned queued, idle, threads, max_threads;
    struct tally {
        unsigned running, waiting;
    } slow, lanes[HTTP_POOL_LANES]; /* of slow jobs: all, and by lane; [0] is not counted */
    bool stopping;
    pthread_t ids[];
};

int http_pool_new(
    unsigned max_threads, const struct http_pool_ops *ops, struct http_pool **ret, struct err *e)
{
    struct http_pool *p = calloc(1, sizeof(*p) + max_threads * sizeof(p->ids[0]));
    if (!p)
        return err_set(e, ENOMEM, "worker pool");
    p->ops = *ops;
    p->max_threads = max_threads;
    p->last = &p->first;
    (void)pthread_mutex_init(&p->lock, NULL);
    (void)pthread_cond_init(&p->work, NULL);
    *ret = p;
    return 0;
}

static unsigned quarters(unsigned all, unsigned n)
{
    unsigned part = (unsigned)((uint64_t)all * n / 4);
    return part ? part : 1;
}

/* NULL for a job that belongs to no lane. */
static struct tally *lane_of(struct http_pool *p, const struct http_job *job)
{
    return job->lane ? &p->lanes[job->lane % HTTP_POOL_LANES] : NULL;
}

static bool may_start(struct http_pool *p, const struct http_job *job)
{
    const struct tally *lane = lane_of(p, job);
    return !job->slow || WEAK("lanes") ||
           (p->slow.running < quarters(p->max_threads, 3) &&
               (!lane || lane->running < quarters(p->max_threads, 1)));
}

static bool may_wait(struct http_pool *p, const struct http_job *job)
{
    const struct tally *lane = lane_of(p, job);
    if (p->queued >= HTTP_POOL_QUEUE_MAX)
        return false;
    return !job->slow || (p->slow.waiting < quarters(HTTP_POOL_QUEUE_MAX, 3) &&
                             (!lane || lane->waiting < quarters(HTTP_POOL_QUEUE_MAX, 1)));
}

/* More or fewer slow jobs run and wait. */
static void count(struct http_pool *p, const struct http_job *job, int running, int waiting)
{
    struct tally *lane = lane_of(p, job);
    if (!job->slow)
        return;
    p->slow.running += (unsigned)running;
    p->slow.waiting += (unsigned)waiting;
    if (lane) {
        lane->running += (unsigned)running;
        lane->waiting += (unsigned)waiting;
    }
}

/* The first job that may start, or NULL. */
static struct http_job *take(struct http_pool *p)
{
    struct http_job **at = &p->first;
    while (*at && !may_start(p, *at))
        at = &(*at)->next;
    struct http_job *job = *at;
    if (!job)
        return NULL;
    *at = job->next;
    if (p->last == &job->next)
        p->last = at;
    p->queued--;
    count(p, job, 1, -1);
    return job;
}

static void *worker(void *arg)
{
    struct http_pool *p = arg;
    pthread_mutex_lock(&p->lock);
    while (!p->stopping) {
        struct http_job *job = take(p);
        if (!job) {
            p->idle++;
            pthread_cond_wait(&p->work, &p->lock);
            p->idle--;
            continue;
        }
        /* The job is gone when it has run. */
        struct http_job kind = *job;
        pthread_mutex_unlock(&p->lock);
        p->ops.run(job);
        pthread_mutex_lock(&p->lock);
        count(p, &kind, -1, 0);
        /* This thread takes the next job, which need not be the one that may start only now. */
        if (kind.slow && p->slow.waiting > 0 && p->idle > 0)
            pthread_cond_signal(&p->work);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

/* A thread that was woken still counts as idle until it runs, so the comparison is with all jobs
 * that wait, not with the mere presence of idle threads. */
static void more_threads(struct http_pool *p)
{
    if (p->idle >= p->queued || p->threads >= p->max_threads)
        return;
    if (pthread_create(&p->ids[p->threads], NULL, worker, p) == 0)
        p->threads++;
}

int http_pool_push(struct http_pool *p, struct http_job *job)
{
    int r = 0;
    pthread_mutex_lock(&p->lock);
    if (p->stopping) {
        r = -ESHUTDOWN;
    } else if (!may_wait(p, job)) {
        r = -EAGAIN;
    } else {
        p->queued++;
        more_threads(p);
        if (p->threads == 0) {
            p->queued--;
            r = -EAGAIN;
        } else {
            job->next = NULL;
            *p->last = job;
            p->last = &job->next;
            count(p, job, 0, 1);
            if (p->idle > 0)
                pthread_cond_signal(&p->work);
        }
    }
    pthread_mutex_unlock(&p->lock);
    return r;
}

void http_pool_stop(struct http_pool *p)
{
    pthread_mutex_lock(&p->lock);
    p->stopping = true;
    struct http_job *left = p->first;
    p->first = NULL;
    p->last = &p->first;
    p->queued = 0;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    while (left) {
        struct http_job *next = left->next;
        p->ops.drop(left);
        left = next;
    }
    /* Nobody adds threads once `stopping` is set. */
    for (unsigned i = 0; i < p->threads; i++)
        (void)pthread_join(p->ids[i], NULL);
    p->threads = 0;
}

void http_pool_free(struct http_pool *p)
{
    if (!p)
        return;
    http_pool_stop(p);
    pthread_cond_destroy(&p->work);
    pthread_mutex_destroy(&p->lock);
    free(p);
}
