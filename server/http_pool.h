/* SPDX-License-Identifier: MIT */
/*
 * Worker threads with a bounded queue. Threads are started when there is work and none is idle, up
 * to a maximum, and then wait for more. Any thread may push; jobs start in order.
 */
#ifndef SERVER_HTTP_POOL_H
#define SERVER_HTTP_POOL_H

#include <stdbool.h>
#include <stddef.h>

#include "shared/err.h"

#define HTTP_POOL_QUEUE_MAX 1024U

struct http_pool;

/* Lives in the thing that is worked on; must stay until `run` or `drop` was called for it. */
struct http_job {
    struct http_job *next;
};

struct http_pool_ops {
    void (*run)(struct http_job *job);  /* on a worker thread */
    void (*drop)(struct http_job *job); /* instead of run, when the pool stops first */
};

int http_pool_new(unsigned max_threads, const struct http_pool_ops *ops, struct http_pool **ret,
    struct err *e) WARN_UNUSED;

/* 0, or -EAGAIN when HTTP_POOL_QUEUE_MAX jobs wait or no thread could be started; -ESHUTDOWN once
 * the pool stops. The job is untouched then. */
int http_pool_push(struct http_pool *p, struct http_job *job) WARN_UNUSED;

/* Drop what waits, let what runs end, join the threads. */
void http_pool_stop(struct http_pool *p);
void http_pool_free(struct http_pool *p);

#endif
