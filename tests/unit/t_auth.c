/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "server/auth.h"
#include "server/auth_peer.h"
#include "shared/io.h"

#include "shared/banned.h"

#define TOKEN "0123456789abcdef-XYZ"
#define NOBODY 65534
#define STRANGER 54321 /* a uid that nobody listed */

static char dir[] = "/tmp/t_auth.XXXXXX";
static char token_path[64];

static void write_token(const char *text, mode_t mode)
{
    struct err e = ERR_INIT;
    assert_int_equal(io_write_file(token_path, text, strlen(text), 0600, &e), 0);
    assert_int_equal(chmod(token_path, mode), 0);
}

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(dir))
        return -1;
    (void)snprintf(token_path, sizeof(token_path), "%s/token", dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    (void)unlink(token_path);
    return rmdir(dir);
}

static struct sockaddr_storage address(const char *text, uint16_t port)
{
    struct sockaddr_storage a;
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    memset(&a, 0, sizeof(a));
    if (inet_pton(AF_INET, text, &in.sin_addr) == 1) {
        memcpy(&a, &in, sizeof(in));
    } else {
        assert_int_equal(inet_pton(AF_INET6, text, &in6.sin6_addr), 1);
        memcpy(&a, &in6, sizeof(in6));
    }
    return a;
}

static struct auth *make(const struct auth_config *config)
{
    struct auth *a = NULL;
    struct err e = ERR_INIT;
    if (auth_new(config, &a, &e) < 0)
        fail_msg("%s", e.msg);
    return a;
}

/* ---- Host, Origin, Sec-Fetch-Site */

static const struct row {
    const char *host, *origin, *site;
    enum proto_error want;
} ROWS[] = {
    /* the server's names */
    {"localhost", NULL, NULL, PROTO_OK},
    {"LOCALHOST:7458", NULL, NULL, PROTO_OK},   /* case does not matter, nor the port */
    {"localhost.", NULL, NULL, PROTO_OK},       /* the root's dot */
    {"127.0.0.1:1", NULL, NULL, PROTO_OK},      /* any port */
    {"127.9.9.9", NULL, NULL, PROTO_OK},        /* all of 127/8 is ours */
    {"[::1]:7458", NULL, NULL, PROTO_OK},       /* IPv6 in brackets */
    {"10.1.2.3:7458", NULL, NULL, PROTO_OK},    /* the connection's own end */
    {"silt.example:443", NULL, NULL, PROTO_OK}, /* listed */
    {"Silt.Example", NULL, NULL, PROTO_OK},     /* listed, other case */
    /* rebinding and nonsense */
    {"evil.example:7458", NULL, NULL, PROTO_FORBIDDEN_ORIGIN},
    {"localhost.evil.example", NULL, NULL, PROTO_FORBIDDEN_ORIGIN},
    {"127.0.0.1.evil.example", NULL, NULL, PROTO_FORBIDDEN_ORIGIN},
    {"10.1.2.4", NULL, NULL, PROTO_FORBIDDEN_ORIGIN}, /* an address, but not ours */
    {"xsilt.example", NULL, NULL, PROTO_FORBIDDEN_ORIGIN},
    {NULL, NULL, NULL, PROTO_FORBIDDEN_ORIGIN}, /* HTTP/1.0 without Host */
    {"", NULL, NULL, PROTO_FORBIDDEN_ORIGIN},
    {"localhost:", NULL, NULL, PROTO_FORBIDDEN_ORIGIN},      /* no port after the colon */
    {"localhost:99999", NULL, NULL, PROTO_FORBIDDEN_ORIGIN}, /* no such port */
    {"localhost:80:80", NULL, NULL, PROTO_FORBIDDEN_ORIGIN},
    {"[::1", NULL, NULL, PROTO_FORBIDDEN_ORIGIN},
    {"[::1]x", NULL, NULL, PROTO_FORBIDDEN_ORIGIN},
    {"user@localhost", NULL, NULL, PROTO_FORBIDDEN_ORIGIN},
    /* pages */
    {"localhost:7458", "http://localhost:7458", "same-origin", PROTO_OK},
    {"localhost:7458", "http://LOCALHOST:7458", NULL, PROTO_OK},
    {"localhost", "http://localhost:80", NULL, PROTO_OK}, /* the scheme's own port */
    {"localhost:443", "https://localhost", NULL, PROTO_OK},
    {"[::1]:7458", "http://[::1]:7458", NULL, PROTO_OK},
    {"localhost:7458", "http://localhost:3000", NULL,
        PROTO_FORBIDDEN_ORIGIN}, /* another server here */
    {"localhost:7458", "http://127.0.0.1:7458", NULL,
        PROTO_FORBIDDEN_ORIGIN}, /* another name of it */
    {"localhost:7458", "https://evil.example", NULL, PROTO_FORBIDDEN_ORIGIN},
    {"localhost:7458", "null", NULL, PROTO_FORBIDDEN_ORIGIN}, /* sandboxed frames, data: URLs */
    {"localhost:7458", "", NULL, PROTO_FORBIDDEN_ORIGIN},
    {"localhost:7458", "file://", NULL, PROTO_FORBIDDEN_ORIGIN},
    {"localhost:7458", "http://localhost:7458/", NULL, PROTO_FORBIDDEN_ORIGIN}, /* no origin */
    {"localhost:7458", "https://silt.example", "cross-site", PROTO_OK},         /* listed */
    {"localhost:7458", "https://silt.example:8443", NULL, PROTO_OK}, /* listed, any port */
    {"localhost:7458", NULL, "none", PROTO_OK},                     /* typed into the address bar */
    {"localhost:7458", NULL, "cross-site", PROTO_FORBIDDEN_ORIGIN}, /* <img src=…>: no Origin */
    {"localhost:7458", NULL, "same-site", PROTO_FORBIDDEN_ORIGIN},
    {"localhost:7458", NULL, "", PROTO_FORBIDDEN_ORIGIN},
    {"localhost:7458", "http://localhost:7458", "cross-site", PROTO_FORBIDDEN_ORIGIN},
    /* the first rule that fails names the reason */
    {"evil.example", "http://evil.example", "same-origin", PROTO_FORBIDDEN_ORIGIN},
};

static void test_pages(void **state)
{
    (void)state;
    const char *const hosts[] = {"silt.example", NULL};
    write_token(TOKEN "\n", 0600);
    struct auth *a = make(
        &(struct auth_config){.listen_host = "0.0.0.0", .token_file = token_path, .hosts = hosts});
    struct sockaddr_storage peer = address("10.9.9.9", 1000), local = address("10.1.2.3", 7458);
    for (size_t i = 0; i < sizeof(ROWS) / sizeof(ROWS[0]); i++) {
        struct err e = ERR_INIT;
        const struct row *row = &ROWS[i];
        int r = auth_check(a,
            &(struct auth_request){.path = "/v1/info",
                .host = row->host,
                .origin = row->origin,
                .sec_fetch_site = row->site,
                .authorization = "Bearer " TOKEN,
                .peer = &peer,
                .local = &local},
            &e);
        if (e.refusal != row->want || r != (row->want == PROTO_OK ? 0 : -EPROTO))
            fail_msg("row %zu: host '%s' origin '%s': got %s (%s)", i, row->host ? row->host : "-",
                row->origin ? row->origin : "-", proto_error_info(e.refusal)->name, e.msg);
    }
    auth_free(a);
}

/* ---- tokens */

static const struct {
    const char *path, *authorization;
    enum proto_error want;
} TOKENS[] = {
    {"/v1/info", "Bearer " TOKEN, PROTO_OK},
    {"/v1/info", "bearer   " TOKEN, PROTO_OK}, /* the scheme's case and spaces do not matter */
    {"/v1/info", NULL, PROTO_UNAUTHORIZED},
    {"/v1/info", "", PROTO_UNAUTHORIZED},
    {"/v1/info", "Bearer", PROTO_UNAUTHORIZED},
    {"/v1/info", "Bearer ", PROTO_UNAUTHORIZED},
    {"/v1/info", "Basic " TOKEN, PROTO_UNAUTHORIZED},
    {"/v1/info", "Bearer 0123456789abcdef-XY", PROTO_UNAUTHORIZED},  /* a prefix */
    {"/v1/info", "Bearer " TOKEN TOKEN, PROTO_UNAUTHORIZED},         /* twice */
    {"/v1/info", "Bearer 0123456789abcdef-XYz", PROTO_UNAUTHORIZED}, /* last character */
    {"/healthz", NULL, PROTO_OK},
    {"/healthz/x", NULL, PROTO_UNAUTHORIZED},
    {"/v1/healthz", NULL, PROTO_UNAUTHORIZED},
};

static void test_tokens(void **state)
{
    (void)state;
    write_token(TOKEN "\r\nsecond line is not looked at\n", 0600);
    struct auth *a = make(&(struct auth_config){.listen_host = "::", .token_file = token_path});
    assert_true(auth_has_tokens(a));
    struct sockaddr_storage peer = address("10.9.9.9", 1000), local = address("10.1.2.3", 7458);
    for (size_t i = 0; i < sizeof(TOKENS) / sizeof(TOKENS[0]); i++) {
        struct err e = ERR_INIT;
        (void)!auth_check(a,
            &(struct auth_request){.path = TOKENS[i].path,
                .host = "localhost",
                .authorization = TOKENS[i].authorization,
                .peer = &peer,
                .local = &local},
            &e);
        if (e.refusal != TOKENS[i].want)
            fail_msg("row %zu: got %s", i, proto_error_info(e.refusal)->name);
    }
    auth_free(a);
}

/* ---- configuration */

static void refused(const struct auth_config *config, const char *part)
{
    struct auth *a = NULL;
    struct err e = ERR_INIT;
    assert_int_equal(auth_new(config, &a, &e), -EINVAL);
    assert_null(a);
    if (!strstr(e.msg, part))
        fail_msg("'%s' does not say '%s'", e.msg, part);
}

static void test_config(void **state)
{
    (void)state;
    const char *const nobody_here[] = {"no-such-user-here", NULL};
    struct auth_config with_token = {.listen_host = "0.0.0.0", .token_file = token_path};
    static const char *const open_hosts[] = {"0.0.0.0", "::", "192.168.1.1", "example.org"};
    static const char *const closed_hosts[] = {
        "127.0.0.1", "127.0.0.2", "::1", "localhost", "[::1]"};
    for (size_t i = 0; i < 4; i++)
        refused(&(struct auth_config){.listen_host = open_hosts[i]}, "needs a token file");
    for (size_t i = 0; i < 5; i++)
        auth_free(make(&(struct auth_config){.listen_host = closed_hosts[i]}));
    refused(&(struct auth_config){.listen_host = "::1", .users = nobody_here}, "no-such-user-here");
    refused(&(struct auth_config){.listen_host = "::1", .token_file = "/nonexistent"},
        "open the token");
    refused(&(struct auth_config){.listen_host = "::1", .token_file = dir}, "regular");
    write_token("0123456789abcde\n", 0600); /* 15 characters */
    refused(&with_token, "15 characters");
    write_token("", 0600);
    refused(&with_token, "0 characters");
    write_token("0123456789 abcdef\n", 0600);
    refused(&with_token, "space");
    write_token(TOKEN, 0640);
    refused(&with_token, "chmod 600");
    write_token(TOKEN, 0604);
    refused(&with_token, "chmod 600");
    write_token(TOKEN, 0400); /* without a line's end, read-only: fine */
    auth_free(make(&with_token));
}

/* ---- peers */

struct pair {
    int listener, client, served;
    struct sockaddr_storage peer, local;
};

static int listen_at(const char *host, struct sockaddr_storage *ret)
{
    struct sockaddr_storage a = address(host, 0);
    socklen_t len = sizeof(a);
    int off = 0, fd = socket(a.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    if (a.ss_family == AF_INET6)
        assert_int_equal(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)), 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(fd, 8), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)ret, &len), 0);
    return fd;
}

static int connect_to(const char *host, const struct sockaddr_storage *listener)
{
    struct sockaddr_in in; /* the port is at the same place in both families */
    memcpy(&in, listener, sizeof(in));
    struct sockaddr_storage a = address(host, ntohs(in.sin_port));
    int fd = socket(a.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0)
        return fd;
    return -1;
}

static void ends(struct pair *p)
{
    socklen_t len = sizeof(p->peer);
    p->served = accept4(p->listener, (struct sockaddr *)&p->peer, &len, SOCK_CLOEXEC);
    assert_true(p->served >= 0);
    len = sizeof(p->local);
    assert_int_equal(getsockname(p->served, (struct sockaddr *)&p->local, &len), 0);
}

static void pair_close(struct pair *p)
{
    fd_closep(&p->client);
    fd_closep(&p->served);
    fd_closep(&p->listener);
}

static const struct {
    const char *listen, *connect;
} FAMILIES[] = {
    {"127.0.0.1", "127.0.0.1"},
    {"127.0.0.1", "::ffff:127.0.0.1"}, /* an IPv6 socket that talks IPv4 */
    {"::1", "::1"},
    {"::", "127.0.0.1"}, /* the server sees a v4-mapped peer */
    {"::", "::ffff:127.0.0.1"},
    {"::", "::1"},
};

/* Both ways of asking agree, for every mix of families; a closed client is nobody, not root. */
static void test_own_uid(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(FAMILIES) / sizeof(FAMILIES[0]); i++) {
        struct pair p = {-1, -1, -1, .peer = {0}};
        struct sockaddr_storage at;
        uid_t by_diag = STRANGER, by_proc = STRANGER, swapped;
        p.listener = listen_at(FAMILIES[i].listen, &at);
        p.client = connect_to(FAMILIES[i].connect, &at);
        assert_true(p.client >= 0);
        ends(&p);
        assert_true(auth_peer_is_loopback(&p.peer));
        if (auth_peer_uid_diag(&p.peer, &p.local, &by_diag) != 0 || by_diag != geteuid())
            fail_msg("row %zu: sock_diag did not find the socket", i);
        if (auth_peer_uid_proc(&p.peer, &p.local, &by_proc) != 0 || by_proc != geteuid())
            fail_msg("row %zu: /proc/net/tcp did not find the socket", i);
        /* half closed is still held */
        assert_int_equal(shutdown(p.client, SHUT_WR), 0);
        assert_int_equal(auth_peer_uid_diag(&p.peer, &p.local, &by_diag), 0);
        assert_int_equal(auth_peer_uid_proc(&p.peer, &p.local, &by_proc), 0);
        /* closed: the kernel still lists it, with uid 0 */
        fd_closep(&p.client);
        assert_int_not_equal(auth_peer_uid_diag(&p.peer, &p.local, &swapped), 0);
        assert_int_not_equal(auth_peer_uid_proc(&p.peer, &p.local, &swapped), 0);
        assert_int_not_equal(auth_peer_uid(&p.peer, &p.local, &swapped), 0);
        pair_close(&p);
    }
}

/* The client is gone, and a listener now has its address and port: that is not the client. */
static void test_listener_is_no_peer(void **state)
{
    (void)state;
    struct sockaddr_storage at, local = address("127.0.0.1", 1);
    uid_t uid;
    int fd = listen_at("127.0.0.1", &at);
    assert_int_not_equal(auth_peer_uid_diag(&at, &local, &uid), 0);
    assert_int_not_equal(auth_peer_uid_proc(&at, &local, &uid), 0);
    fd_closep(&fd);
}

static enum proto_error knock(const struct auth *a, const struct pair *p, int64_t *memory)
{
    struct err e = ERR_INIT;
    (void)!auth_check(a,
        &(struct auth_request){.path = "/v1/info",
            .host = "localhost",
            .peer = &p->peer,
            .local = &p->local,
            .peer_uid = memory},
        &e);
    return e.refusal;
}

static void test_own_peer(void **state)
{
    (void)state;
    struct pair p = {-1, -1, -1, .peer = {0}};
    struct sockaddr_storage at;
    struct auth *a = make(&(struct auth_config){.listen_host = "127.0.0.1"});
    assert_false(auth_has_tokens(a));
    p.listener = listen_at("127.0.0.1", &at);
    p.client = connect_to("127.0.0.1", &at);
    ends(&p);
    int64_t memory = -1;
    assert_int_equal(knock(a, &p, NULL), PROTO_OK);
    assert_int_equal(knock(a, &p, &memory), PROTO_OK);
    assert_int_equal(memory, geteuid());
    memory = STRANGER; /* what was found out once is believed */
    assert_int_equal(knock(a, &p, &memory), PROTO_FORBIDDEN_PEER);
    struct pair far = p;
    far.peer = address("10.1.1.1", 5000);
    assert_int_equal(knock(a, &far, NULL), PROTO_FORBIDDEN_PEER);
    fd_closep(&p.client);
    memory = -1;
    assert_int_equal(knock(a, &p, &memory), PROTO_FORBIDDEN_PEER);
    assert_int_equal(memory, -1);
    auth_free(a);
    pair_close(&p);
}

/* A child that connects as another user and stays until told. */
static pid_t child_as(uid_t uid, const struct sockaddr_storage *at, int *ret_hold)
{
    int hold[2];
    assert_int_equal(pipe(hold), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        char c;
        (void)close(hold[1]);
        if (setgid(uid) != 0 || setuid(uid) != 0 || connect_to("127.0.0.1", at) < 0)
            _exit(1);
        (void)!read(hold[0], &c, 1);
        _exit(0);
    }
    (void)close(hold[0]);
    *ret_hold = hold[1];
    return pid;
}

static void test_other_users(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    const char *const listed[] = {"54321", NULL};
    struct auth *strict = make(&(struct auth_config){.listen_host = "127.0.0.1"});
    struct auth *open_to = make(&(struct auth_config){.listen_host = "127.0.0.1", .users = listed});
    const struct {
        uid_t uid;
        enum proto_error strict, open_to;
    } rows[] = {
        {NOBODY, PROTO_FORBIDDEN_PEER, PROTO_FORBIDDEN_PEER}, /* another user, or one not mapped */
        {STRANGER, PROTO_FORBIDDEN_PEER, PROTO_OK},           /* listed in the second */
        {0, PROTO_OK, PROTO_OK},                              /* root */
    };
    for (size_t i = 0; i < 3; i++) {
        struct pair p = {-1, -1, -1, .peer = {0}};
        struct sockaddr_storage at;
        int hold, status;
        p.listener = listen_at("127.0.0.1", &at);
        pid_t pid = child_as(rows[i].uid, &at, &hold);
        struct pollfd ready = {.fd = p.listener, .events = POLLIN};
        assert_int_equal(poll(&ready, 1, 10000), 1);
        ends(&p);
        if (knock(strict, &p, NULL) != rows[i].strict ||
            knock(open_to, &p, NULL) != rows[i].open_to)
            fail_msg("uid %u", rows[i].uid);
        (void)close(hold);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        pair_close(&p);
    }
    auth_free(strict);
    auth_free(open_to);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pages),
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_config),
        cmocka_unit_test(test_own_uid),
        cmocka_unit_test(test_listener_is_no_peer),
        cmocka_unit_test(test_own_peer),
        cmocka_unit_test(test_other_users),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
