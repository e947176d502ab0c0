/* SPDX-License-Identifier: MIT */
/*
 * Both ends of a watcher's control socket. The first byte picks the end that is spoken to: a watcher
 * that gets the rest as requests, cut where the second byte says, or a command that gets it as the
 * parts of an answer.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/control.h"
#include "shared/cleanup.h"

#include "shared/banned.h"

#define INPUT_MAX 60000 /* fits into a socket's buffer */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- a watcher */

static int dir_fd = -1;
static struct control *control;

static void handle(void *ctx, uint64_t peer, const json_t *request)
{
    const char *op = json_string_value(json_object_get(request, "op"));
    (void)ctx;
    if (!json_is_object(request) || !control_has_peer(control, peer))
        abort();
    switch (op ? op[0] : 'a') {
    case 'b':
        control_send_bytes(control, peer, op, strlen(op));
        control_send_line(control, peer, json_pack("{s:s}", "line", op));
        break;
    case 'e':
        control_answer_error(control, peer, 1, op);
        break;
    case 'n':
        break; /* it waits */
    default:
        control_answer(control, peer, json_deep_copy(request));
    }
    (void)control_backlog(control, peer);
}

static void turn(int peer)
{
    uint8_t answer[4096];
    for (int i = 0; i < 4; i++) {
        struct pollfd fds[CONTROL_PEERS_MAX + 1];
        unsigned count = control_fds(control, fds, CONTROL_PEERS_MAX + 1);
        if (poll(fds, count, 0) <= 0)
            return;
        control_ready(control, fds, count, handle, NULL);
        while (peer >= 0 && recv(peer, answer, sizeof answer, MSG_DONTWAIT) > 0)
            ;
    }
}

static void begin(void)
{
    char dir[] = "/tmp/silt-fuzz.XXXXXX";
    struct err e = ERR_INIT;
    if (!mkdtemp(dir) || (dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0 ||
        control_listen(dir_fd, &control, &e) < 0)
        abort();
}

static void ask_watcher(const uint8_t *data, size_t size, size_t cut)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    if (!control)
        begin();
    CLEANUP(fd_closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)snprintf(to.sun_path, sizeof to.sun_path, "/proc/self/fd/%d/%s", dir_fd, CONTROL_SOCKET);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) < 0)
        abort();
    turn(fd);
    for (size_t at = 0; at < size; at += cut) {
        size_t n = size - at < cut ? size - at : cut;
        if (send(fd, data + at, n, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
            break;
        turn(fd);
    }
    fd_closep(&fd);
    turn(-1);
}

/* ---- a command */

static int take_line(void *ctx, json_t *line)
{
    (void)ctx;
    if (!json_is_object(line) || json_object_get(line, "error"))
        abort();
    return 0;
}

static int take_bytes(void *ctx, const void *data, size_t len)
{
    volatile uint8_t sum = 0;
    (void)ctx;
    for (size_t i = 0; i < len; i++)
        sum = (uint8_t)(sum + ((const uint8_t *)data)[i]);
    return 0;
}

static void answer_command(const uint8_t *data, size_t size)
{
    const struct control_sink sink = {.line = take_line, .bytes = take_bytes};
    struct control_talk talk = {.fd = -1};
    struct err e = ERR_INIT;
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0)
        abort();
    CLEANUP(fd_closep) int from = fds[0];
    talk.fd = fds[1];
    buf_init(&talk.in, CONTROL_ANSWER_MAX + 1);
    if (send(from, data, size, MSG_NOSIGNAL) != (ssize_t)size && size)
        abort();
    fd_closep(&from);
    while (control_talk_read(&talk, &sink, &e) >= 0)
        ;
    control_talk_close(&talk);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || size > INPUT_MAX)
        return 0;
    if (data[0] & 1)
        ask_watcher(data + 2, size - 2, data[1] ? (size_t)data[1] * 16 : INPUT_MAX);
    else
        answer_command(data + 2, size - 2);
    return 0;
}
