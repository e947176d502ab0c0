/* SPDX-License-Identifier: MIT */
#include "server/http_pool.h"

#include <errno.h>
#include <pthread.h>

#include "shared/banned.h"

struct http_pool {
    struct http_pool_ops ops;
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct http_job *first, **last;
    unsigned queued, idle, threads, max_threads;
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

static struct http_job *take(struct http_pool *p)
{
    struct http_job *job = p->first;
    p->first = job->next;
    if (!p->first)
        p->last = &p->first;
    p->queued--;
    return job;
}

static void *worker(void *arg)
{
    struct http_pool *p = arg;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (!p->first && !p->stopping) {
            p->idle++;
            pthread_cond_wait(&p->work, &p->lock);
            p->idle--;
        }
        if (p->stopping)
            break;
        struct http_job *job = take(p);
        pthread_mutex_unlock(&p->lock);
        p->ops.run(job);
        pthread_mutex_lock(&p->lock);
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
    } else if (p->queued >= HTTP_POOL_QUEUE_MAX) {
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
