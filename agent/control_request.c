/* SPDX-License-Identifier: MIT */
/* The commands' side of agent/control.h: one connection for one request, answered once or on and
 * on. */
#include "agent/control.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "agent/link.h"
#include "shared/buf.h"
#include "shared/cleanup.h"
#include "shared/io.h"

#include "shared/banned.h"

#define DEFAULT_TIMEOUT_MS 10000

static int say_nobody(struct err *e, int code)
{
    return err_say(
        e, code, "no watcher is running for this project: start one with 'silt watch -d'");
}

static int connect_to(const char *root, int *ret_fd, struct err *e)
{
    CLEANUP(freep) char *dir = NULL;
    if (asprintf(&dir, "%s/%s", root, LINK_DIR) < 0) {
        dir = NULL;
        return err_set(e, ENOMEM, "talk to the watcher");
    }
    CLEANUP(fd_closep) int dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0)
        return say_nobody(e, ENOENT);
    CLEANUP(fd_closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_set(e, errno, "talk to the watcher");
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    (void)snprintf(
        sun.sun_path, sizeof(sun.sun_path), "/proc/self/fd/%d/%s", dir_fd, CONTROL_SOCKET);
    if (connect(fd, (struct sockaddr *)&sun, sizeof(sun)) < 0) {
        int code = errno;
        if (code == ENOENT || code == ECONNREFUSED)
            return say_nobody(e, code);
        return err_set(e, code, "connect to '%s/%s'", dir, CONTROL_SOCKET);
    }
    *ret_fd = fd_take(&fd);
    return 0;
}

/* Wait for the descriptor, at most until the deadline. */
static int wait_for(int fd, short events, uint64_t deadline_ns, struct err *e)
{
    for (;;) {
        uint64_t now = io_now_ns();
        if (now >= deadline_ns)
            return err_say(e, ETIMEDOUT, "the watcher did not answer in time; see .silt/watch.log");
        uint64_t left_ms = (deadline_ns - now) / 1000000 + 1;
        struct pollfd p = {.fd = fd, .events = events};
        int r = poll(&p, 1, left_ms > INT_MAX ? INT_MAX : (int)left_ms);
        if (r > 0)
            return 0;
        if (r < 0 && errno != EINTR)
            return err_set(e, errno, "wait for the watcher");
    }
}

static int send_line(int fd, const char *text, uint64_t deadline_ns, struct err *e)
{
    size_t len = strlen(text), done = 0;
    while (done <= len) {
        /* The line's end stands where the text's NUL is. */
        ssize_t n = done < len ? send(fd, text + done, len - done, MSG_NOSIGNAL)
                               : send(fd, "\n", 1, MSG_NOSIGNAL);
        if (n > 0) {
            done += (size_t)n;
            continue;
        }
        if (errno != EAGAIN && errno != EINTR)
            return err_set(e, errno, "ask the watcher");
        int r = wait_for(fd, POLLOUT, deadline_ns, e);
        if (r < 0)
            return r;
    }
    return 0;
}

static int read_line(int fd, struct buf *b, uint64_t deadline_ns, struct err *e)
{
    for (;;) {
        uint8_t data[8192];
        ssize_t n = recv(fd, data, sizeof(data), 0);
        if (n == 0)
            return err_say(e, ECONNRESET, "the watcher ended before it answered");
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return err_set(e, errno, "hear the watcher");
        if (n < 0) {
            int r = wait_for(fd, POLLIN, deadline_ns, e);
            if (r < 0)
                return r;
            continue;
        }
        if (buf_add(b, data, (size_t)n) < 0)
            return err_say(e, EMSGSIZE, "the watcher's answer is too long");
        if (memchr(data, '\n', (size_t)n))
            return 0;
    }
}

/* An {"error":…} of the watcher as ours. */
static int take_error(const json_t *error, struct err *e)
{
    int code = (int)json_integer_value(json_object_get(error, "errno"));
    const char *message = json_string_value(json_object_get(error, "message"));
    CLEANUP(buf_release) struct buf list;
    json_t *path;
    size_t i;
    buf_init(&list, ERR_MSG_BYTES);
    /* As many of the paths that it waited for as a sentence holds. */
    json_array_foreach(json_object_get(error, "pending"), i, path)
    {
        const char *text = json_string_value(path);
        if (!text || buf_addf(&list, "%s%s", i ? ", " : "; pending: ", text) < 0)
            break;
    }
    return err_say(e, code > 0 && code < 4096 ? code : EIO, "%s%s",
        message ? message : "no reason given", list.len ? buf_str(&list) : "");
}

static int parse_line(const void *text, size_t len, json_t **ret, struct err *e)
{
    json_t *got = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(got)) {
        json_decref(got);
        return err_say(e, EPROTO, "the watcher's answer is not JSON: is it of another version?");
    }
    json_t *error = json_object_get(got, "error");
    if (error) {
        int r = take_error(error, e);
        json_decref(got);
        return r;
    }
    *ret = got;
    return 0;
}

static int ask(
    const char *root, const json_t *request, uint64_t deadline_ns, int *ret_fd, struct err *e)
{
    CLEANUP(freep) char *text = json_dumps(request, JSON_COMPACT);
    if (!text || strlen(text) >= CONTROL_REQUEST_MAX)
        return err_set(e, text ? EMSGSIZE : ENOMEM, "ask the watcher");
    CLEANUP(fd_closep) int fd = -1;
    int r = connect_to(root, &fd, e);
    if (r == 0)
        r = send_line(fd, text, deadline_ns, e);
    if (r == 0)
        *ret_fd = fd_take(&fd);
    return r;
}

int control_request(
    const char *root, const json_t *request, uint32_t timeout_ms, json_t **ret, struct err *e)
{
    uint64_t wait_ms = timeout_ms ? timeout_ms : DEFAULT_TIMEOUT_MS;
    uint64_t deadline_ns = io_now_ns() + wait_ms * 1000000;
    CLEANUP(fd_closep) int fd = -1;
    CLEANUP(buf_release) struct buf answer;
    buf_init(&answer, CONTROL_ANSWER_MAX + 1);
    int r = ask(root, request, deadline_ns, &fd, e);
    if (r == 0)
        r = read_line(fd, &answer, deadline_ns, e);
    return r < 0 ? r : parse_line(answer.data, answer.len, ret, e);
}

/* ---- answers of many parts */

int control_talk_open(
    const char *root, const json_t *request, struct control_talk *ret, struct err *e)
{
    *ret = (struct control_talk){.fd = -1};
    buf_init(&ret->in, CONTROL_ANSWER_MAX + 1);
    return ask(root, request, io_now_ns() + DEFAULT_TIMEOUT_MS * UINT64_C(1000000), &ret->fd, e);
}

void control_talk_close(struct control_talk *t)
{
    fd_closep(&t->fd);
    buf_release(&t->in);
    t->raw_left = 0;
}

/* What is in hand: 0 all of it was told, or <0. */
static int tell_parts(struct control_talk *t, const struct control_sink *sink, struct err *e)
{
    int r = 0;
    while (r == 0 && t->in.len) {
        uint8_t *end = memchr(t->in.data, '\n', t->in.len);
        json_t *line = NULL;
        size_t n = t->raw_left < t->in.len ? (size_t)t->raw_left : t->in.len;
        if (n) {
            r = sink->bytes(sink->ctx, t->in.data, n);
            t->raw_left -= n;
        } else if (!end) {
            return 0;
        } else {
            n = (size_t)(end - t->in.data) + 1;
            r = parse_line(t->in.data, n - 1, &line, e);
            json_t *bytes = json_object_get(line, "bytes");
            if (json_integer_value(bytes) > 0)
                t->raw_left = (uint64_t)json_integer_value(bytes);
            else if (r == 0)
                r = sink->line(sink->ctx, line);
            json_decref(line);
        }
        buf_consume(&t->in, n);
    }
    return r;
}

int control_talk_read(struct control_talk *t, const struct control_sink *sink, struct err *e)
{
    uint8_t data[65536];
    for (;;) {
        ssize_t n = recv(t->fd, data, sizeof(data), 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return 0;
        if (n < 0)
            return err_set(e, errno, "hear the watcher");
        if (n == 0)
            return err_say(e, ECONNRESET, "the watcher ended");
        if (buf_add(&t->in, data, (size_t)n) < 0)
            return err_say(e, EMSGSIZE, "the watcher's answer is too long");
        int r = tell_parts(t, sink, e);
        if (r != 0)
            return r;
    }
}
