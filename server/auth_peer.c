/* SPDX-License-Identifier: MIT */
#include "server/auth_peer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>

#include "shared/buf.h"
#include "shared/io.h"

#include "shared/banned.h"

#define PROC_LINES_MAX 1000000U

/* An end of a connection, in network order; v4-mapped addresses are IPv4. */
struct end {
    int family;
    uint32_t addr[4]; /* IPv4: the first */
    uint16_t port;
};

static bool end_of(const struct sockaddr_storage *a, struct end *ret)
{
    *ret = (struct end){.family = AF_UNSPEC};
    if (a->ss_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, a, sizeof(in));
        *ret = (struct end){.family = AF_INET, .addr = {in.sin_addr.s_addr}, .port = in.sin_port};
        return true;
    }
    if (a->ss_family != AF_INET6)
        return false;
    struct sockaddr_in6 in6;
    memcpy(&in6, a, sizeof(in6));
    ret->port = in6.sin6_port;
    if (IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr)) {
        ret->family = AF_INET;
        memcpy(ret->addr, &in6.sin6_addr.s6_addr[12], 4);
    } else {
        ret->family = AF_INET6;
        memcpy(ret->addr, &in6.sin6_addr, 16);
    }
    return true;
}

bool auth_peer_is_loopback(const struct sockaddr_storage *a)
{
    struct end e;
    if (!end_of(a, &e))
        return false;
    if (e.family == AF_INET)
        return ntohl(e.addr[0]) >> 24 == 127;
    return memcmp(e.addr, &in6addr_loopback, sizeof(e.addr)) == 0;
}

/* States in which the socket has both ends, and a process may hold it. */
static bool is_connected(unsigned state)
{
    return state == TCP_ESTABLISHED || state == TCP_FIN_WAIT1 || state == TCP_FIN_WAIT2 ||
           state == TCP_CLOSE_WAIT;
}

/* ---- sock_diag */

struct question {
    struct nlmsghdr header;
    struct inet_diag_req_v2 req;
};

static bool same_address(unsigned family, const uint32_t *theirs, const struct end *e)
{
    /* An AF_INET6 socket that talks IPv4 is found under IPv4 and reported as it sees itself. */
    if (family == AF_INET6 && e->family == AF_INET)
        return theirs[0] == 0 && theirs[1] == 0 && theirs[2] == htonl(0xffff) &&
               theirs[3] == e->addr[0];
    if (family != (unsigned)e->family)
        return false;
    return memcmp(theirs, e->addr, family == AF_INET ? 4 : 16) == 0;
}

static int judge(
    const struct inet_diag_msg *msg, const struct end *peer, const struct end *local, uid_t *ret)
{
    if (msg->id.idiag_sport != peer->port || msg->id.idiag_dport != local->port ||
        !same_address(msg->idiag_family, msg->id.idiag_src, peer) ||
        !same_address(msg->idiag_family, msg->id.idiag_dst, local) ||
        !is_connected(msg->idiag_state) || msg->idiag_inode == 0)
        return -ENOENT;
    *ret = msg->idiag_uid;
    return 0;
}

static int ask(const struct question *q, void *answer, size_t size, ssize_t *ret_len)
{
    const struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    CLEANUP(fd_closep) int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    if (fd < 0)
        return -errno;
    if (sendto(fd, q, sizeof(*q), 0, (const struct sockaddr *)&kernel, sizeof(kernel)) < 0)
        return -errno;
    /* The kernel answers within sendto: nothing to wait for. */
    *ret_len = recv(fd, answer, size, MSG_DONTWAIT);
    return *ret_len < 0 ? -errno : 0;
}

int auth_peer_uid_diag(
    const struct sockaddr_storage *peer, const struct sockaddr_storage *local, uid_t *ret)
{
    struct end p, l;
    if (!end_of(peer, &p) || !end_of(local, &l) || p.family != l.family)
        return -EAFNOSUPPORT;
    struct question q = {
        .header = {.nlmsg_len = sizeof(q),
            .nlmsg_type = SOCK_DIAG_BY_FAMILY,
            .nlmsg_flags = NLM_F_REQUEST},
        .req = {.sdiag_family = (uint8_t)p.family,
            .sdiag_protocol = IPPROTO_TCP,
            .idiag_states = ~0U,
            .id = {.idiag_sport = p.port,
                .idiag_dport = l.port,
                .idiag_cookie = {INET_DIAG_NOCOOKIE, INET_DIAG_NOCOOKIE}}},
    };
    memcpy(q.req.id.idiag_src, p.addr, sizeof(p.addr));
    memcpy(q.req.id.idiag_dst, l.addr, sizeof(l.addr));
    union {
        struct nlmsghdr header;
        uint8_t bytes[4096];
    } answer;
    ssize_t len = 0;
    int r = ask(&q, &answer, sizeof(answer), &len);
    if (r < 0)
        return r;
    if ((size_t)len < sizeof(answer.header) || answer.header.nlmsg_len > (size_t)len)
        return -EBADMSG;
    if (answer.header.nlmsg_type == NLMSG_ERROR) {
        struct nlmsgerr error;
        if (answer.header.nlmsg_len < NLMSG_LENGTH(sizeof(error)))
            return -EBADMSG;
        memcpy(&error, NLMSG_DATA(&answer.header), sizeof(error));
        return error.error < 0 ? error.error : -ENOENT;
    }
    struct inet_diag_msg msg;
    if (answer.header.nlmsg_type != SOCK_DIAG_BY_FAMILY ||
        answer.header.nlmsg_len < NLMSG_LENGTH(sizeof(msg)))
        return -EBADMSG;
    memcpy(&msg, NLMSG_DATA(&answer.header), sizeof(msg));
    return judge(&msg, &p, &l, ret);
}

/* ---- /proc/net/tcp, tcp6 */

/* As the kernel prints an end: each 32-bit word as the machine reads it, then the port. */
static void print_end(const struct end *e, bool as_v6, char *out, size_t size)
{
    unsigned port = ntohs(e->port);
    if (!as_v6)
        (void)snprintf(out, size, "%08" PRIX32 ":%04X", e->addr[0], port);
    else if (e->family == AF_INET)
        (void)snprintf(out, size, "0000000000000000%08" PRIX32 "%08" PRIX32 ":%04X",
            (uint32_t)htonl(0xffff), e->addr[0], port);
    else
        (void)snprintf(out, size, "%08" PRIX32 "%08" PRIX32 "%08" PRIX32 "%08" PRIX32 ":%04X",
            e->addr[0], e->addr[1], e->addr[2], e->addr[3], port);
}

static int search(
    const char *path, bool as_v6, const struct end *peer, const struct end *local, uid_t *ret)
{
    char want_own[64], want_other[64], line[512];
    print_end(peer, as_v6, want_own, sizeof(want_own));
    print_end(local, as_v6, want_other, sizeof(want_other));
    CLEANUP(file_closep) FILE *f = fopen(path, "re");
    if (!f)
        return -errno;
    for (unsigned i = 0; i < PROC_LINES_MAX && fgets(line, sizeof(line), f); i++) {
        char own[64], other[64];
        unsigned state, uid;
        unsigned long inode;
        if (sscanf(line, " %*s %63s %63s %x %*s %*s %*s %u %*s %lu", own, other, &state, &uid,
                &inode) != 5)
            continue;
        if (strcmp(own, want_own) != 0 || strcmp(other, want_other) != 0)
            continue;
        if (!is_connected(state) || inode == 0)
            return -ENOENT;
        *ret = uid;
        return 0;
    }
    return -ENOENT;
}

int auth_peer_uid_proc(
    const struct sockaddr_storage *peer, const struct sockaddr_storage *local, uid_t *ret)
{
    struct end p, l;
    if (!end_of(peer, &p) || !end_of(local, &l) || p.family != l.family)
        return -EAFNOSUPPORT;
    int r = -ENOENT;
    if (p.family == AF_INET)
        r = search("/proc/net/tcp", false, &p, &l, ret);
    return r == 0 ? 0 : search("/proc/net/tcp6", true, &p, &l, ret);
}

int auth_peer_uid(
    const struct sockaddr_storage *peer, const struct sockaddr_storage *local, uid_t *ret)
{
    /* A kernel without the diagnostic module says ENOENT, too. */
    int r = auth_peer_uid_diag(peer, local, ret);
    return r == 0 ? 0 : auth_peer_uid_proc(peer, local, ret);
}

/* ---- user namespaces */

bool auth_peer_overflow_uid(uid_t *ret)
{
    CLEANUP(file_closep) FILE *map = fopen("/proc/self/uid_map", "re");
    CLEANUP(file_closep) FILE *overflow = fopen("/proc/sys/kernel/overflowuid", "re");
    unsigned inside, outside, count, uid = 65534;
    if (overflow && fscanf(overflow, "%u", &uid) != 1)
        uid = 65534;
    *ret = uid;
    /* Everybody is mapped: the initial namespace, or one as wide. */
    return !(map && fscanf(map, "%u %u %u", &inside, &outside, &count) == 3 && inside == 0 &&
             count == UINT32_MAX);
}
