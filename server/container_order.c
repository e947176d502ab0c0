/* SPDX-License-Identifier: MIT */
/* What goes over the socket to silt-init and back. */
#include "server/container_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/buf.h"
#include "shared/io.h"

#include "shared/banned.h"

int order_read_report(int sock, struct init_report *ret, pid_t *ret_pid)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(struct ucred))];
    } control;
    struct iovec io = {ret, sizeof *ret};
    struct msghdr message = {.msg_iov = &io,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = sizeof control.bytes};
    ssize_t n;
    do
        n = recvmsg(sock, &message, MSG_CMSG_CLOEXEC | MSG_WAITALL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n != (ssize_t)sizeof *ret)
        return -EPIPE;
    for (struct cmsghdr *m = CMSG_FIRSTHDR(&message); ret_pid && m; m = CMSG_NXTHDR(&message, m)) {
        struct ucred who;
        if (m->cmsg_level == SOL_SOCKET && m->cmsg_type == SCM_CREDENTIALS &&
            m->cmsg_len == CMSG_LEN(sizeof who)) {
            memcpy(&who, CMSG_DATA(m), sizeof who);
            *ret_pid = who.pid;
        }
    }
    return 0;
}

static int add_strings(struct buf *b, const char *const *strings, uint32_t *ret_count)
{
    for (; *strings; strings++) {
        if (buf_add(b, *strings, strlen(*strings) + 1) < 0)
            return -E2BIG;
        ++*ret_count;
    }
    return 0;
}

int order_send(int sock, const struct init_order *order, const int *fds)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(3 * sizeof(int))];
    } control = {.bytes = {0}};
    struct init_order copy = *order;
    struct iovec io = {&copy, sizeof copy};
    struct msghdr message = {.msg_iov = &io, .msg_iovlen = 1};
    if (fds) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
        struct cmsghdr *m = CMSG_FIRSTHDR(&message);
        m->cmsg_level = SOL_SOCKET;
        m->cmsg_type = SCM_RIGHTS;
        m->cmsg_len = CMSG_LEN(3 * sizeof(int));
        memcpy(CMSG_DATA(m), fds, 3 * sizeof(int));
    }
    ssize_t n;
    do
        n = sendmsg(sock, &message, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n == (ssize_t)sizeof copy ? 0 : n < 0 ? -errno : -EPIPE;
}

static int send_all(int sock, const uint8_t *data, size_t len)
{
    while (len > 0) {
        ssize_t n = send(sock, data, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EPIPE;
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

int order_send_job(
    int sock, enum init_order_kind kind, const struct container_process *process, struct err *e)
{
    struct init_order order = {.kind = kind, .tty = process->tty};
    CLEANUP(buf_release) struct buf body;
    buf_init(&body, INIT_BODY_MAX);
    if (!process->argv[0] || process->cwd[0] != '/')
        return err_say(e, EINVAL, "a program needs a name and an absolute working directory");
    if (buf_add(&body, process->cwd, strlen(process->cwd) + 1) < 0 ||
        add_strings(&body, process->argv, &order.argc) < 0 ||
        add_strings(&body, process->env, &order.envc) < 0 ||
        order.argc + order.envc > INIT_STRINGS_MAX)
        return err_say(e, E2BIG, "arguments and environment are too large");
    order.body_len = (uint32_t)body.len;
    const int fds[] = {process->stdin_fd, process->stdout_fd, process->stderr_fd};
    int r = order_send(sock, &order, fds[0] < 0 ? NULL : fds);
    if (r == 0)
        r = send_all(sock, body.data, body.len);
    return r < 0 ? err_set(e, -r, "hand a program to a container") : 0;
}

/* ---- the program's output */

/* The program may open /dev/stdout anew, which asks for its rights: the pipe must be its own. */
/* fds[theirs] is the program's, the other one ours. */
static int open_pipe(int fds[2], int theirs, uid_t uid, gid_t gid, struct err *e)
{
    if (pipe2(fds, O_CLOEXEC) < 0)
        return err_set(e, errno, "make a pipe");
    if (fchown(fds[theirs], uid, gid) < 0 && errno != EPERM)
        return err_set(e, errno, "give away a pipe");
    int r = io_nonblock(fds[1 - theirs], 1);
    return r < 0 ? err_set(e, -r, "make a pipe") : 0;
}

int container_pipe(uid_t uid, gid_t gid, int *ret_read, int *ret_write, struct err *e)
{
    int fds[2] = {-1, -1};
    int r = open_pipe(fds, 1, uid, gid, e);
    *ret_read = fds[0];
    *ret_write = fds[1];
    return r;
}

int container_input(uid_t uid, gid_t gid, int *ret_read, int *ret_write, struct err *e)
{
    int fds[2] = {-1, -1};
    int r = open_pipe(fds, 0, uid, gid, e);
    *ret_read = fds[0];
    *ret_write = fds[1];
    return r;
}
