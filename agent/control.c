/* SPDX-License-Identifier: MIT */
#include "agent/control.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "shared/buf.h"
#include "shared/cleanup.h"
#include "shared/io.h"

#include "shared/banned.h"

struct peer {
    int fd; /* -1: free */
    uint64_t number;
    bool busy; /* a request was handed out and is not answered yet */
    struct buf in, out;
};

struct control {
    int dir_fd; /* borrowed */
    int fd;
    uint64_t next_number;
    struct peer peers[CONTROL_PEERS_MAX];
};

/* The socket's address by way of the held folder: short whatever the project's path is. */
static socklen_t address_of(int dir_fd, struct sockaddr_un *sun)
{
    memset(sun, 0, sizeof(*sun));
    sun->sun_family = AF_UNIX;
    (void)snprintf(
        sun->sun_path, sizeof(sun->sun_path), "/proc/self/fd/%d/%s", dir_fd, CONTROL_SOCKET);
    return (socklen_t)sizeof(*sun);
}

int control_listen(int dir_fd, struct control **ret, struct err *e)
{
    struct control *c = calloc(1, sizeof(*c));
    if (!c)
        return err_set(e, ENOMEM, "listen for commands");
    c->dir_fd = dir_fd;
    for (size_t i = 0; i < CONTROL_PEERS_MAX; i++)
        c->peers[i].fd = -1;
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_un sun;
    socklen_t len = address_of(dir_fd, &sun);
    (void)unlinkat(dir_fd, CONTROL_SOCKET, 0);
    /* The mode is set before anybody can connect: between bind and listen connections are refused.
     */
    if (c->fd < 0 || bind(c->fd, (struct sockaddr *)&sun, len) < 0 ||
        fchmodat(dir_fd, CONTROL_SOCKET, 0600, 0) < 0 || listen(c->fd, 16) < 0) {
        int code = errno;
        control_close(c);
        return err_set(e, code, "listen on '.silt/%s'", CONTROL_SOCKET);
    }
    *ret = c;
    return 0;
}

static void peer_close(struct peer *p)
{
    if (p->fd < 0)
        return;
    (void)close(p->fd);
    p->fd = -1;
    buf_release(&p->in);
    buf_release(&p->out);
}

void control_close(struct control *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < CONTROL_PEERS_MAX; i++)
        peer_close(&c->peers[i]);
    if (c->fd >= 0) {
        (void)unlinkat(c->dir_fd, CONTROL_SOCKET, 0);
        (void)close(c->fd);
    }
    free(c);
}

static struct peer *free_peer(struct control *c)
{
    for (size_t i = 0; i < CONTROL_PEERS_MAX; i++) {
        if (c->peers[i].fd < 0)
            return &c->peers[i];
    }
    return NULL;
}

unsigned control_fds(struct control *c, struct pollfd *fds, unsigned max)
{
    unsigned n = 0;
    /* With no place free, connections wait in the backlog instead of waking us for nothing. */
    if (n < max && free_peer(c))
        fds[n++] = (struct pollfd){.fd = c->fd, .events = POLLIN};
    for (size_t i = 0; i < CONTROL_PEERS_MAX && n < max; i++) {
        struct peer *p = &c->peers[i];
        if (p->fd < 0)
            continue;
        /* One who waits for an answer is not listened to: what it sends waits in its socket. That it
         * has gone is told without being asked for. */
        short events = p->out.len ? POLLOUT : p->busy ? 0 : POLLIN;
        fds[n++] = (struct pollfd){.fd = p->fd, .events = events};
    }
    return n;
}

static void peer_accept(struct control *c)
{
    struct peer *p = free_peer(c);
    if (!p)
        return;
    CLEANUP(fd_closep) int fd = accept4(c->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    struct ucred cred = {.uid = (uid_t)-1};
    socklen_t len = sizeof(cred);
    if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0 ||
        (cred.uid != geteuid() && cred.uid != 0))
        return;
    p->fd = fd_take(&fd);
    p->number = ++c->next_number;
    p->busy = false;
    buf_init(&p->in, CONTROL_REQUEST_MAX);
    buf_init(&p->out, CONTROL_ANSWER_MAX + 1);
}

static void peer_write(struct peer *p)
{
    while (p->out.len) {
        ssize_t n = send(p->fd, p->out.data, p->out.len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0) {
            peer_close(p);
            return;
        }
        buf_consume(&p->out, (size_t)n);
    }
}

/* Hand out the first whole line, if there is one and the peer is not waiting for an answer. */
static void peer_serve(struct control *c, struct peer *p, control_handler *handle, void *ctx)
{
    uint8_t *end = p->in.len ? memchr(p->in.data, '\n', p->in.len) : NULL;
    if (!end || p->busy)
        return;
    size_t len = (size_t)(end - p->in.data);
    json_t *request = json_loadb((const char *)p->in.data, len, JSON_REJECT_DUPLICATES, NULL);
    buf_consume(&p->in, len + 1);
    p->busy = true;
    if (json_is_object(request))
        handle(ctx, p->number, request);
    else
        control_answer_error(c, p->number, EINVAL, "the request is not a JSON object on one line");
    json_decref(request);
}

static void peer_read(struct control *c, struct peer *p, control_handler *handle, void *ctx)
{
    uint8_t data[65536];
    ssize_t n = recv(p->fd, data, sizeof(data), 0);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    /* A line that is too long ends the connection: nobody of ours sends one. */
    if (n <= 0 || buf_add(&p->in, data, (size_t)n) < 0) {
        peer_close(p);
        return;
    }
    peer_serve(c, p, handle, ctx);
}

void control_ready(
    struct control *c, const struct pollfd *fds, unsigned count, control_handler *handle, void *ctx)
{
    bool knocks = false;
    for (unsigned i = 0; i < count; i++) {
        if (!fds[i].revents)
            continue;
        if (fds[i].fd == c->fd) {
            knocks = true;
            continue;
        }
        for (size_t k = 0; k < CONTROL_PEERS_MAX; k++) {
            struct peer *p = &c->peers[k];
            if (p->fd < 0 || p->fd != fds[i].fd)
                continue;
            if (fds[i].revents & POLLOUT)
                peer_write(p);
            else if (fds[i].revents & POLLIN)
                peer_read(c, p, handle, ctx);
            else
                peer_close(p);
            break;
        }
    }
    /* Last: a new one may get the number of a descriptor that was closed since it was put into the
     * list, and what poll said of that one would be taken for his. */
    if (knocks)
        peer_accept(c);
}

static struct peer *peer_by_number(const struct control *c, uint64_t number)
{
    for (size_t i = 0; i < CONTROL_PEERS_MAX; i++) {
        if (c->peers[i].fd >= 0 && c->peers[i].number == number)
            return (struct peer *)&c->peers[i];
    }
    return NULL;
}

int control_has_peer(const struct control *c, uint64_t peer)
{
    return peer_by_number(c, peer) != NULL;
}

size_t control_backlog(const struct control *c, uint64_t number)
{
    const struct peer *p = peer_by_number(c, number);
    return p ? p->out.len : SIZE_MAX;
}

void control_send_bytes(struct control *c, uint64_t number, const void *data, size_t len)
{
    struct peer *p = peer_by_number(c, number);
    if (!p)
        return;
    if (buf_addf(&p->out, "{\"bytes\":%zu}\n", len) < 0 || buf_add(&p->out, data, len) < 0)
        peer_close(p);
    else
        peer_write(p);
}

static struct peer *send_line(struct control *c, uint64_t number, json_t *line)
{
    struct peer *p = peer_by_number(c, number);
    CLEANUP(freep) char *text = p && line ? json_dumps(line, JSON_COMPACT) : NULL;
    json_decref(line);
    if (!p)
        return NULL;
    if (!text || buf_addf(&p->out, "%s\n", text) < 0) {
        peer_close(p);
        return NULL;
    }
    return p;
}

void control_send_line(struct control *c, uint64_t number, json_t *line)
{
    struct peer *p = send_line(c, number, line);
    if (p)
        peer_write(p);
}

void control_answer(struct control *c, uint64_t number, json_t *answer)
{
    struct peer *p = send_line(c, number, answer);
    if (!p)
        return;
    p->busy = false;
    peer_write(p);
}

void control_answer_error(struct control *c, uint64_t number, int code, const char *message)
{
    control_answer(
        c, number, json_pack("{s:{s:i,s:s}}", "error", "errno", code, "message", message));
}
