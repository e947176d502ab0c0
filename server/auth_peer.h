/* SPDX-License-Identifier: MIT */
/*
 * Which user owns the other end of a TCP connection on this machine? Asked of the kernel's socket
 * table: by an exact look-up over NETLINK_SOCK_DIAG, else in /proc/net/tcp and tcp6. Any thread.
 *
 * A socket that nobody holds any more (closed, TIME_WAIT) is listed with uid 0 and inode 0: that is
 * "unknown", never root. Nor is a listener that happens to have the client's port an answer.
 */
#ifndef SERVER_AUTH_PEER_H
#define SERVER_AUTH_PEER_H

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "shared/cleanup.h"

/* 127.0.0.0/8, ::1, or the former as a v4-mapped address? */
bool auth_peer_is_loopback(const struct sockaddr_storage *a);

/* The uid that owns the socket whose own address is `peer` and whose other end is `local`, our end
 * of the same connection. 0, or -ENOENT if there is no such socket or nobody holds it; -errno. */
int auth_peer_uid(const struct sockaddr_storage *peer, const struct sockaddr_storage *local,
    uid_t *ret) WARN_UNUSED;

/* The two ways, for tests. */
int auth_peer_uid_diag(const struct sockaddr_storage *peer, const struct sockaddr_storage *local,
    uid_t *ret) WARN_UNUSED;
int auth_peer_uid_proc(const struct sockaddr_storage *peer, const struct sockaddr_storage *local,
    uid_t *ret) WARN_UNUSED;

/* The uid that stands for users who have no number in this user namespace; false if there are none
 * such here, so that the number is an ordinary user's. */
bool auth_peer_overflow_uid(uid_t *ret);

#endif
