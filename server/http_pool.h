/* SPDX-License-Identifier: MIT */
/*
 * Worker threads with a bounded queue. Threads are started when there is work and none is idle, up
 * to a maximum, and then wait for more. Any thread may push; jobs start in order, but for slow ones.
 *
 * A slow job is one that its client can draw out (its body is still to come) or that is heavy. Slow
 * jobs hold at most three quarters of the threads and of the queue, and those of one lane (a number
 * that the caller makes of whom the job is for) at most a quarter of either: so nobody keeps others
 * from being served by sending nothing. Lanes are told apart by their lowest bits only.
 */
#ifndef SERVER_HTTP_POOL_H
#define SERVER_HTTP_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/err.h"

#define HTTP_POOL_QUEUE_MAX 1024U
#define HTTP_POOL_LANES 4096U

struct http_pool;

/* Lives in the thing that is worked on; must stay until `run` or `drop` was called for it. */
struct http_job {
    struct http_job *next;
    bool slow;
    uint32_t lane; /* of a slow job; 0: none, only the bound for all of them holds */
};

struct http_pool_ops {
    void (*run)(struct http_job *job);  /* on a worker thread */
    void (*drop)(struct http_job *job); /* instead of run, when the pool stops first */
};

int http_pool_new(unsigned max_threads, const struct http_pool_ops *ops, struct http_pool **ret,
    struct err *e) WARN_UNUSED;

/* 0, or -EAGAIN when as many jobs wait as may (HTTP_POOL_QUEUE_MAX, fewer for slow ones) or no
 * thread could be started; -ESHUTDOWN once the pool stops. The job is untouched then. */
int http_pool_push(struct http_pool *p, struct http_job *job) WARN_UNUSED;

/* Drop what waits, let what runs end, join the threads. */
void http_pool_stop(struct http_pool *p);
void http_pool_free(struct http_pool *p);

#endif
