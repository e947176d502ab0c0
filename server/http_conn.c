/* SPDX-License-Identifier: MIT */
/*
 * libmicrohttpd sees nothing of a suspended connection, so one thread of our own watches all of
 * them for the peer's end (EPOLLRDHUP, edge-triggered: one event in a connection's life) and looks
 * at the deadlines every HTTP_TICK_MS. An event names slot and generation, never a pointer: a slot
 * that was given to another connection since is recognised. A descriptor is used under conns.lock
 * only, which the slot's release takes before libmicrohttpd closes it.
 */
#include "server/http_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "shared/io.h"

#include "shared/banned.h"

#define EVENTS_AT_ONCE 64
#define WAKE_EVENT UINT64_MAX

/* ---- slots */

static void slot_open(struct http_server *s, struct MHD_Connection *mhd, void **ret_slot)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
    if (!info)
        return;
    int fd = info->connect_fd;
    pthread_mutex_lock(&s->conns.lock);
    struct http_conn *c = s->conns.free;
    if (c) {
        s->conns.free = c->next_free;
        s->conns.open++;
        if (c->index >= s->conns.high)
            s->conns.high = c->index + 1;
        c->fd = fd;
        c->gone = false;
        c->mark = -1;
        c->idle_since_ns = io_now_ns();
        memset(&c->peer, 0, sizeof(c->peer));
        memset(&c->local, 0, sizeof(c->local));
        socklen_t len = sizeof(c->peer);
        (void)getpeername(fd, (struct sockaddr *)&c->peer, &len);
        len = sizeof(c->local);
        (void)getsockname(fd, (struct sockaddr *)&c->local, &len);
        struct epoll_event ev = {
            .events = EPOLLRDHUP | EPOLLET, .data.u64 = (uint64_t)c->generation << 32 | c->index};
        (void)epoll_ctl(s->conns.epoll_fd, EPOLL_CTL_ADD, fd, &ev);
        *ret_slot = c;
    }
    pthread_mutex_unlock(&s->conns.lock);
}

static void slot_close(struct http_server *s, struct http_conn *c)
{
    pthread_mutex_lock(&s->conns.lock);
    (void)epoll_ctl(s->conns.epoll_fd, EPOLL_CTL_DEL, c->fd, NULL);
    c->fd = -1;
    c->generation++;
    c->next_free = s->conns.free;
    s->conns.free = c;
    if (--s->conns.open == 0)
        s->conns.high = 0;
    pthread_mutex_unlock(&s->conns.lock);
}

void http_conns_notify(
    void *server, struct MHD_Connection *mhd, void **slot, enum MHD_ConnectionNotificationCode code)
{
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        *slot = NULL;
        slot_open(server, mhd, slot);
    } else if (*slot) {
        slot_close(server, *slot);
        *slot = NULL;
    }
}

void http_conn_attach(struct http_conn *conn, struct http_request *req)
{
    struct http_conns *conns = &conn->server->conns;
    pthread_mutex_lock(&conns->lock);
    req->gone = conn->gone; /* nobody else knows the request yet */
    conn->req = req;
    conns->active++;
    pthread_mutex_unlock(&conns->lock);
}

void http_conn_detach(struct http_conn *conn)
{
    struct http_conns *conns = &conn->server->conns;
    pthread_mutex_lock(&conns->lock);
    conn->req = NULL;
    conn->idle_since_ns = io_now_ns();
    if (--conns->active == 0)
        pthread_cond_broadcast(&conns->quiet);
    pthread_mutex_unlock(&conns->lock);
}

/* ---- the watcher */

static void client_gone(struct http_request *req)
{
    pthread_mutex_lock(&req->lock);
    /* Once all is said, leaving is what a client does: whether it left too early is known when
     * libmicrohttpd has sent everything, or could not. */
    bool early = !http_answer_given(req) && !req->completed;
    if (early) {
        req->gone = true;
        pthread_cond_broadcast(&req->cond);
        if (req->kind == ANSWER_STREAM)
            http_wake_io(req);
    }
    pthread_mutex_unlock(&req->lock);
    if (early)
        http_request_fire_close(req);
}

/* libmicrohttpd takes a short read for the end of what is there and waits for another edge: if the
 * peer's end had come with the data, there is none, and it would wait for its timeout. Shutting the
 * half that is closed already makes one; again at each tick, as it may have come before the read.
 */
static void nudge(struct http_conn *c)
{
    (void)shutdown(c->fd, SHUT_RD);
}

static void peer_closed(struct http_server *s, uint64_t event)
{
    uint32_t index = (uint32_t)event, generation = (uint32_t)(event >> 32);
    struct http_request *req = NULL;
    pthread_mutex_lock(&s->conns.lock);
    struct http_conn *c = index < s->conns.slot_count ? &s->conns.slots[index] : NULL;
    if (c && c->fd >= 0 && c->generation == generation && !c->gone) {
        c->gone = true; /* and nudged by the next tick, which makes another event here */
        req = c->req;
        if (req)
            atomic_fetch_add(&req->refs, 1);
    }
    pthread_mutex_unlock(&s->conns.lock);
    if (!req)
        return;
    client_gone(req);
    http_request_drop(req);
}

static bool past(uint64_t now_ns, uint64_t since_ns, uint64_t ms)
{
    return now_ns > since_ns && now_ns - since_ns > ms * 1000000U;
}

/* True: cut the connection. */
static bool request_overdue(struct http_conn *c, uint64_t now_ns)
{
    struct http_request *req = c->req;
    const struct http_config *config = &c->server->config;
    bool cut = false;
    pthread_mutex_lock(&req->lock);
    if (req->early_sent) {
        cut = now_ns > req->linger_ns;
    } else if (req->early && !req->suspended &&
               (req->body_received > 0 || !req->expects_continue)) {
        /* The client pauses within its body, so that nothing else sends the answer. */
        http_answer_send_early(req, c->fd);
    } else if (!req->body_complete && !req->suspended &&
               past(now_ns, req->progress_ns, config->body_deadline_ms)) {
        if (!req->body_error || req->body_error == -ECONNRESET)
            req->body_error = -ETIMEDOUT;
        pthread_cond_broadcast(&req->cond);
        if (req->kind == ANSWER_NONE && !req->dispatched)
            http_answer_make_early(
                req, PROTO_TIMEOUT, "The request's body came too slowly; send it again.");
        if (req->early)
            http_answer_send_early(req, c->fd);
        /* A handler gets as long again for its own answer. */
        else
            cut = past(now_ns, req->progress_ns, 2 * (uint64_t)config->body_deadline_ms);
    }
    pthread_mutex_unlock(&req->lock);
    return cut;
}

static void tick(struct http_server *s)
{
    uint64_t now_ns = io_now_ns();
    pthread_mutex_lock(&s->conns.lock);
    for (unsigned i = 0; i < s->conns.high; i++) {
        struct http_conn *c = &s->conns.slots[i];
        if (c->fd < 0)
            continue;
        /* Between requests, or dawdling over a request's head. */
        if (c->gone)
            nudge(c);
        bool cut = c->req ? request_overdue(c, now_ns)
                          : past(now_ns, c->idle_since_ns, s->config.idle_timeout_ms);
        if (cut)
            (void)shutdown(c->fd, SHUT_RDWR);
    }
    pthread_mutex_unlock(&s->conns.lock);
}

static void *watch(void *arg)
{
    struct http_server *s = arg;
    struct epoll_event events[EVENTS_AT_ONCE];
    uint64_t next_tick_ns = io_now_ns();
    for (;;) {
        int n = epoll_wait(s->conns.epoll_fd, events, EVENTS_AT_ONCE, HTTP_TICK_MS);
        for (int i = 0; i < n; i++) {
            if (events[i].data.u64 == WAKE_EVENT)
                return NULL;
            peer_closed(s, events[i].data.u64);
        }
        if (io_now_ns() >= next_tick_ns) {
            tick(s);
            next_tick_ns = io_now_ns() + HTTP_TICK_MS * UINT64_C(1000000);
        }
    }
}

/* ---- start and stop */

int http_conns_start(struct http_server *s, struct err *e)
{
    struct http_conns *conns = &s->conns;
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_mutex_init(&conns->lock, NULL);
    (void)pthread_cond_init(&conns->quiet, &attr);
    (void)pthread_condattr_destroy(&attr);
    /* libmicrohttpd divides its limit among its threads, rounding up. */
    conns->slot_count = s->config.max_connections + s->config.io_threads + 1;
    conns->slots = calloc(conns->slot_count, sizeof(*conns->slots));
    conns->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    conns->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!conns->slots || conns->epoll_fd < 0 || conns->wake_fd < 0)
        return err_set(e, conns->slots ? errno : ENOMEM, "table of connections");
    for (unsigned i = conns->slot_count; i-- > 0;) {
        conns->slots[i] =
            (struct http_conn){.server = s, .index = i, .fd = -1, .next_free = conns->free};
        conns->free = &conns->slots[i];
    }
    struct epoll_event ev = {.events = EPOLLIN, .data.u64 = WAKE_EVENT};
    if (epoll_ctl(conns->epoll_fd, EPOLL_CTL_ADD, conns->wake_fd, &ev) < 0)
        return err_set(e, errno, "watch for the end");
    int r = pthread_create(&conns->watcher, NULL, watch, s);
    if (r != 0)
        return err_set(e, r, "start the connections' watcher");
    conns->watching = true;
    return 0;
}

void http_conns_stop(struct http_server *s)
{
    uint64_t one = 1;
    if (!s->conns.watching)
        return;
    (void)!write(s->conns.wake_fd, &one, sizeof(one));
    (void)pthread_join(s->conns.watcher, NULL);
    s->conns.watching = false;
}

void http_conns_release(struct http_server *s)
{
    struct http_conns *conns = &s->conns;
    if (conns->epoll_fd >= 0)
        (void)close(conns->epoll_fd);
    if (conns->wake_fd >= 0)
        (void)close(conns->wake_fd);
    conns->epoll_fd = conns->wake_fd = -1;
    free(conns->slots);
    conns->slots = conns->free = NULL;
    conns->slot_count = 0;
}

static void cut(struct http_request *req)
{
    pthread_mutex_lock(&req->lock);
    bool open = !req->completed;
    if (open) {
        req->gone = true;
        if (!req->body_complete && !req->body_error)
            req->body_error = -ECONNRESET;
        pthread_cond_broadcast(&req->cond);
        http_wake_io(req);
    }
    pthread_mutex_unlock(&req->lock);
    if (open)
        http_request_fire_close(req);
}

void http_conns_drain(struct http_server *s, uint32_t ms)
{
    struct http_conns *conns = &s->conns;
    uint64_t until_ns = io_now_ns() + ms * UINT64_C(1000000);
    struct timespec until = {(time_t)(until_ns / 1000000000U), (long)(until_ns % 1000000000U)};
    pthread_mutex_lock(&conns->lock);
    while (conns->active > 0)
        if (pthread_cond_timedwait(&conns->quiet, &conns->lock, &until) == ETIMEDOUT)
            break;
    atomic_store(&s->cutting, true);
    for (unsigned i = 0; i < conns->slot_count; i++) {
        struct http_request *req = conns->slots[i].req;
        if (!req)
            continue;
        atomic_fetch_add(&req->refs, 1);
        pthread_mutex_unlock(&conns->lock);
        cut(req);
        http_request_drop(req);
        pthread_mutex_lock(&conns->lock);
    }
    pthread_mutex_unlock(&conns->lock);
}
