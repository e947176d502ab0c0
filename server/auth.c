/* SPDX-License-Identifier: MIT */
#include "server/auth.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pwd.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "server/auth_peer.h"
#include "shared/io.h"
#include "shared/num.h"
#include "shared/weaken.h"

#include "shared/banned.h"

#define TOKEN_MIN 16U
#define TOKEN_MAX 512U
#define TOKEN_FILE_BYTES 4096U
#define HOSTS_MAX 64U
#define USERS_MAX 64U
#define NAME_BYTES 256U

struct auth {
    char listen_host[NAME_BYTES];
    char token[TOKEN_MAX + 1]; /* "": none */
    char *hosts[HOSTS_MAX];
    size_t host_count;
    uid_t users[USERS_MAX + 2];
    size_t user_count;
    bool has_overflow;
    uid_t overflow_uid;
};

/* ---- names and addresses in text */

/* host[:port] or [v6][:port], as Host has it: the name in lower case, without brackets and a final
 * dot; the port as text, "" if none. */
static bool split_host(const char *text, size_t len, char name[NAME_BYTES], char port[6])
{
    const char *end = text + len, *stop;
    bool bracket = len > 0 && *text == '[';
    if (bracket) {
        text++;
        stop = memchr(text, ']', (size_t)(end - text));
        if (!stop)
            return false;
    } else {
        stop = memchr(text, ':', len);
        if (!stop)
            stop = end;
    }
    size_t n = (size_t)(stop - text);
    const char *rest = bracket ? stop + 1 : stop;
    if (!bracket && n > 1 && text[n - 1] == '.')
        n--;
    if (n == 0 || n >= NAME_BYTES)
        return false;
    for (size_t i = 0; i < n; i++)
        name[i] = (char)tolower((unsigned char)text[i]);
    name[n] = '\0';
    port[0] = '\0';
    if (rest == end)
        return true;
    size_t digits = (size_t)(end - rest) - 1;
    if (*rest != ':' || digits == 0 || digits > 5)
        return false;
    memcpy(port, rest + 1, digits);
    port[digits] = '\0';
    uint64_t number;
    return num_u64(port, 65535, &number) == 0;
}

/* A numeric address as text? */
static bool parse_address(const char *name, struct sockaddr_storage *ret)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    memset(ret, 0, sizeof(*ret));
    if (inet_pton(AF_INET, name, &in.sin_addr) == 1)
        memcpy(ret, &in, sizeof(in));
    else if (inet_pton(AF_INET6, name, &in6.sin6_addr) == 1)
        memcpy(ret, &in6, sizeof(in6));
    else
        return false;
    return true;
}

/* The same address, whatever the port; an IPv4 address and its mapped form are the same. */
static bool same_address(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
    uint8_t bytes[2][16];
    const struct sockaddr_storage *both[2] = {a, b};
    for (int i = 0; i < 2; i++) {
        if (both[i]->ss_family == AF_INET) {
            struct sockaddr_in in;
            memcpy(&in, both[i], sizeof(in));
            memset(bytes[i], 0, 10);
            memset(bytes[i] + 10, 0xff, 2);
            memcpy(bytes[i] + 12, &in.sin_addr, 4);
        } else if (both[i]->ss_family == AF_INET6) {
            struct sockaddr_in6 in6;
            memcpy(&in6, both[i], sizeof(in6));
            memcpy(bytes[i], &in6.sin6_addr, 16);
        } else {
            return false;
        }
    }
    return memcmp(bytes[0], bytes[1], 16) == 0;
}

static bool is_loopback_name(const char *name)
{
    struct sockaddr_storage a;
    return strcmp(name, "localhost") == 0 || (parse_address(name, &a) && auth_peer_is_loopback(&a));
}

static bool is_listed(const struct auth *a, const char *name)
{
    for (size_t i = 0; i < a->host_count; i++)
        if (strcasecmp(a->hosts[i], name) == 0)
            return true;
    return false;
}

/* ---- configuration */

static int read_token(struct auth *a, const char *path, struct err *e)
{
    CLEANUP(fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    struct stat st;
    char text[TOKEN_FILE_BYTES];
    if (fd < 0 || fstat(fd, &st) < 0) {
        int code = errno;
        (void)err_set(e, code, "open the token file '%s'", path);
        return -EINVAL;
    }
    if (!S_ISREG(st.st_mode))
        return err_say(e, EINVAL, "the token file '%s' is not a regular file", path);
    if (st.st_mode & (S_IRWXG | S_IRWXO))
        return err_say(
            e, EINVAL, "the token file '%s' can be read or written by others: chmod 600 it", path);
    ssize_t n = io_read_full(fd, text, sizeof(text) - 1);
    if (n < 0) {
        (void)err_set(e, (int)-n, "read the token file '%s'", path);
        return -EINVAL;
    }
    text[n] = '\0';
    size_t len = strcspn(text, "\r\n");
    if (len < TOKEN_MIN || len > TOKEN_MAX)
        return err_say(e, EINVAL,
            "the first line of the token file '%s' has %zu characters: a token has %u to %u", path,
            len, TOKEN_MIN, TOKEN_MAX);
    for (size_t i = 0; i < len; i++)
        if (text[i] <= ' ' || text[i] > '~')
            return err_say(e, EINVAL,
                "the token in '%s' holds a space or a character that HTTP cannot carry", path);
    memcpy(a->token, text, len);
    a->token[len] = '\0';
    explicit_bzero(text, sizeof(text));
    return 0;
}

static int add_user(struct auth *a, const char *user, struct err *e)
{
    uint64_t number;
    if (a->user_count == USERS_MAX)
        return err_say(e, EINVAL, "more than %u users are listed", USERS_MAX);
    if (num_u64(user, UINT32_MAX - 1, &number) < 0) {
        char text[16384];
        struct passwd pw, *found = NULL;
        if (getpwnam_r(user, &pw, text, sizeof(text), &found) != 0 || !found)
            return err_say(e, EINVAL, "there is no user '%s' on this machine", user);
        number = found->pw_uid;
    }
    a->users[a->user_count++] = (uid_t)number;
    return 0;
}

static int add_host(struct auth *a, const char *host, struct err *e)
{
    if (a->host_count == HOSTS_MAX)
        return err_say(e, EINVAL, "more than %u hosts are listed", HOSTS_MAX);
    char *copy = strdup(host);
    if (!copy)
        return err_set(e, ENOMEM, "hosts");
    a->hosts[a->host_count++] = copy;
    return 0;
}

static int fill(struct auth *a, const struct auth_config *config, struct err *e)
{
    int r = 0;
    char port[6];
    const char *listen = config->listen_host;
    /* "::1" stands bare in a configuration. */
    if (listen[0] != '[' && strchr(listen, ':') && strlen(listen) < NAME_BYTES)
        memcpy(a->listen_host, listen, strlen(listen) + 1);
    else if (!split_host(listen, strlen(listen), a->listen_host, port))
        return err_say(e, EINVAL, "'%s' is no address to listen on", listen);
    if (config->token_file)
        r = read_token(a, config->token_file, e);
    for (size_t i = 0; r == 0 && config->hosts && config->hosts[i]; i++)
        r = add_host(a, config->hosts[i], e);
    for (size_t i = 0; r == 0 && config->users && config->users[i]; i++)
        r = add_user(a, config->users[i], e);
    if (r < 0)
        return r;
    a->users[a->user_count++] = geteuid();
    a->users[a->user_count++] = 0;
    a->has_overflow = auth_peer_overflow_uid(&a->overflow_uid);
    if (!a->token[0] && !is_loopback_name(a->listen_host) && !WEAK("listen"))
        return err_say(e, EINVAL,
            "listening on '%s', which other machines can reach, needs a token file", listen);
    return 0;
}

int auth_new(const struct auth_config *config, struct auth **ret, struct err *e)
{
    struct auth *a = calloc(1, sizeof(*a));
    if (!a)
        return err_set(e, ENOMEM, "auth");
    int r = fill(a, config, e);
    if (r < 0) {
        auth_free(a);
        return r;
    }
    *ret = a;
    return 0;
}

void auth_free(struct auth *a)
{
    if (!a)
        return;
    for (size_t i = 0; i < a->host_count; i++)
        free(a->hosts[i]);
    explicit_bzero(a->token, sizeof(a->token));
    free(a);
}

bool auth_has_tokens(const struct auth *a)
{
    return a->token[0] != '\0';
}

/* ---- the checks, in order */

static int check_host(const struct auth *a, const struct auth_request *req, struct err *e)
{
    char name[NAME_BYTES], port[6];
    struct sockaddr_storage address;
    if (!req->host || !split_host(req->host, strlen(req->host), name, port))
        return err_refuse(
            e, PROTO_FORBIDDEN_ORIGIN, "The request needs a Host header that names this server");
    /* A literal address cannot be rebound: that of our end of the connection is ours. */
    if (is_loopback_name(name) || strcmp(name, a->listen_host) == 0 || is_listed(a, name) ||
        (req->local && parse_address(name, &address) && same_address(&address, req->local)))
        return 0;
    return err_refuse(e, PROTO_FORBIDDEN_ORIGIN,
        "'%.100s' is not a name of this server; add it to the server's list of hosts if it should "
        "be",
        name);
}

/* scheme://host[:port], nothing after. */
static bool split_origin(
    const char *origin, char name[NAME_BYTES], char port[6], const char **ret_default)
{
    static const struct {
        const char *prefix, *port;
    } schemes[] = {{"http://", "80"}, {"https://", "443"}};
    for (size_t i = 0; i < 2; i++) {
        size_t n = strlen(schemes[i].prefix);
        if (strncasecmp(origin, schemes[i].prefix, n) == 0) {
            *ret_default = schemes[i].port;
            return split_host(origin + n, strlen(origin + n), name, port);
        }
    }
    return false;
}

static int check_origin(const struct auth *a, const struct auth_request *req, struct err *e)
{
    char name[NAME_BYTES], port[6], own[NAME_BYTES], own_port[6];
    const char *standard = "", *site = req->sec_fetch_site;
    if (req->origin) {
        if (!split_origin(req->origin, name, port, &standard))
            return err_refuse(
                e, PROTO_FORBIDDEN_ORIGIN, "Web pages of unknown origin may not use this server");
        if (is_listed(a, name))
            return 0;
        bool same = split_host(req->host, strlen(req->host), own, own_port) &&
                    strcmp(name, own) == 0 &&
                    strcmp(port[0] ? port : standard, own_port[0] ? own_port : standard) == 0;
        if (!same)
            return err_refuse(e, PROTO_FORBIDDEN_ORIGIN,
                "Web pages of %.100s may not use this server; add it to the server's list of hosts "
                "if "
                "they should",
                name);
    }
    if (site && strcasecmp(site, "same-origin") != 0 && strcasecmp(site, "none") != 0)
        return err_refuse(
            e, PROTO_FORBIDDEN_ORIGIN, "Web pages of another site may not use this server");
    return 0;
}

/* Takes as long for a wrong token as for the right one of the same length. */
static bool token_matches(const char *token, const char *given, size_t len)
{
    size_t n = strlen(token);
    volatile unsigned char differ = n != len;
    for (size_t i = 0; i < len; i++)
        differ = (unsigned char)(differ | (given[i] ^ token[i % n]));
    return differ == 0;
}

static int check_token(const struct auth *a, const struct auth_request *req, struct err *e)
{
    const char *given = req->authorization;
    if (req->path && strcmp(req->path, "/healthz") == 0)
        return 0;
    if (!given || strncasecmp(given, "Bearer ", 7) != 0)
        return err_refuse(e, PROTO_UNAUTHORIZED,
            "This server wants a token: send 'Authorization: Bearer TOKEN' (silt: set SILT_TOKEN)");
    given += 7 + strspn(given + 7, " ");
    if (!token_matches(a->token, given, strcspn(given, " ")))
        return err_refuse(e, PROTO_UNAUTHORIZED, "This is not the server's token");
    return 0;
}

static int find_peer(const struct auth_request *req, uid_t *ret)
{
    if (req->peer_uid && *req->peer_uid >= 0) {
        *ret = (uid_t)*req->peer_uid;
        return 0;
    }
    int r = auth_peer_uid(req->peer, req->local, ret);
    if (r == 0 && req->peer_uid)
        *req->peer_uid = *ret;
    return r;
}

static int check_peer(const struct auth *a, const struct auth_request *req, struct err *e)
{
    uid_t uid;
    if (!req->peer || !req->local || !auth_peer_is_loopback(req->peer))
        return err_refuse(
            e, PROTO_FORBIDDEN_PEER, "Without a token this server answers its own machine only");
    if (find_peer(req, &uid) < 0)
        return err_refuse(
            e, PROTO_FORBIDDEN_PEER, "The user at the other end of the connection cannot be told");
    if (a->has_overflow && uid == a->overflow_uid)
        return err_refuse(e, PROTO_FORBIDDEN_PEER,
            "A user from outside this user namespace (seen as uid %u) may not use this server",
            uid);
    for (size_t i = 0; i < a->user_count; i++)
        if (a->users[i] == uid)
            return 0;
    return err_refuse(e, PROTO_FORBIDDEN_PEER,
        "The user with uid %u may not use this server; start it with a token, or list that user",
        uid);
}

int auth_check(const struct auth *a, const struct auth_request *req, struct err *e)
{
    int r = WEAK("host") ? 0 : check_host(a, req, e);
    if (r == 0 && !WEAK("origin"))
        r = check_origin(a, req, e);
    if (r == 0 && !WEAK("peer"))
        r = auth_has_tokens(a) ? check_token(a, req, e) : check_peer(a, req, e);
    return r;
}
