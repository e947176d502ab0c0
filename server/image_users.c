/* SPDX-License-Identifier: MIT */
#include "server/image_users.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>

#include "server/image.h"
#include "server/store.h"
#include "shared/io.h"
#include "shared/num.h"
#include "shared/path.h"

#include "shared/banned.h"

#define ANSWER_BYTES_MAX (8 * 1024 * 1024)
#define ANSWER_S 30
#define SHOWN 5

struct users {
    const char *image;
    struct buf names; /* of the first few */
    uint64_t count;
};

static void add_user(struct users *u, const char *id)
{
    if (u->count++ < SHOWN)
        err_ignore(buf_addf(&u->names, "%s%s", u->names.len ? ", " : "", id));
}

static int judge(const struct users *u, struct err *e)
{
    if (u->count == 0)
        return 0;
    return err_say(e, EBUSY,
        "image '%s' is used by %s%s: delete these sandboxes, or give them another image (PATCH "
        "/v1/sandboxes/ID {\"image\":\"" IMAGE_HOST "\"})",
        u->image, buf_str(&u->names), u->count > SHOWN ? " and others" : "");
}

/* ---- nobody serves: the database */

static int visit_row(const struct store_sandbox *row, void *ctx)
{
    struct users *u = ctx;
    if (strcmp(row->image, u->image) == 0)
        add_user(u, row->id);
    return 0;
}

static int ask_database(const struct config *c, struct users *u, struct err *e)
{
    CLEANUP(freep) char *path = path_join(c->data_dir, "silt.db");
    if (!path)
        return err_set(e, ENOMEM, "open the database");
    return access(path, F_OK) < 0 ? 0 : store_peek_sandboxes(path, visit_row, u, e);
}

/* ---- a server serves: HTTP */

/* "127.0.0.1:7458", "[::1]:7458"; an address that stands for all is reached over loopback. */
static int parse_address(const char *text, struct sockaddr_storage *ret, socklen_t *ret_len)
{
    char host[64];
    uint64_t port;
    const char *colon = strrchr(text, ':');
    bool v6 = text[0] == '[' && colon && colon > text + 1 && colon[-1] == ']';
    size_t skip = v6 ? 1 : 0, len = colon ? (size_t)(colon - text) - 2 * skip : sizeof host;
    if (len >= sizeof host || num_u64(colon + 1, 65535, &port) < 0)
        return -EINVAL;
    memcpy(host, text + skip, len);
    host[len] = '\0';
    memset(ret, 0, sizeof *ret);
    if (v6) {
        struct sockaddr_in6 *to = (struct sockaddr_in6 *)ret;
        *to = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
        *ret_len = sizeof *to;
        return inet_pton(AF_INET6, strcmp(host, "::") == 0 ? "::1" : host, &to->sin6_addr) == 1
                   ? 0
                   : -EINVAL;
    }
    struct sockaddr_in *to = (struct sockaddr_in *)ret;
    *to = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    *ret_len = sizeof *to;
    return inet_pton(AF_INET, strcmp(host, "0.0.0.0") == 0 ? "127.0.0.1" : host, &to->sin_addr) == 1
               ? 0
               : -EINVAL;
}

/* The first line of a file of ours. */
static int read_line(const char *path, struct buf *ret, struct err *e)
{
    int r = io_read_file(path, 4096, ret, e);
    if (r == 0 && ret->len > 0)
        ret->data[strcspn((const char *)ret->data, "\r\n")] = '\0';
    return r;
}

static int exchange(const char *address, const char *token, struct buf *ret, struct err *e)
{
    const struct timeval patience = {.tv_sec = ANSWER_S};
    struct sockaddr_storage to;
    socklen_t len = 0;
    CLEANUP(buf_release) struct buf request;
    buf_init(&request, 16384);
    if (parse_address(address, &to, &len) < 0)
        return err_say(e, EINVAL, "'%.100s' is no address", address);
    CLEANUP(fd_closep) int fd = socket(to.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) < 0 ||
        connect(fd, (struct sockaddr *)&to, len) < 0)
        return err_set(e, errno, "connect to %s", address);
    int r = buf_addf(&request,
        "GET /v1/images HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%s%s%s\r\n",
        *token ? "Authorization: Bearer " : "", token, *token ? "\r\n" : "");
    if (r == 0)
        r = io_write_all(fd, request.data, request.len);
    if (r == 0)
        r = io_read_rest(fd, ret);
    return r < 0 ? err_set(e, -r, "ask the server at %s", address) : 0;
}

/* From {"items":[{"name","sandboxes":[ids],"sandbox_count"}]}. */
static int read_users(const char *answer, struct users *u, struct err *e)
{
    const char *body = strstr(answer, "\r\n\r\n");
    json_t *object = strncmp(answer, "HTTP/1.1 200", 12) == 0 && body
                         ? json_loads(body + 4, JSON_REJECT_DUPLICATES, NULL)
                         : NULL;
    json_t *items = json_object_get(object, "items"), *item, *id;
    size_t i, k;
    bool known = json_is_array(items);
    json_array_foreach(items, i, item)
    {
        const char *name = json_string_value(json_object_get(item, "name"));
        if (!name || strcmp(name, u->image) != 0)
            continue;
        json_array_foreach(json_object_get(item, "sandboxes"), k, id)
            if (json_is_string(id))
                add_user(u, json_string_value(id));
    }
    json_decref(object);
    return known ? 0
                 : err_say(e, EPROTO, "the server did not say who uses the image: %.60s", answer);
}

static int ask_server(const struct config *c, struct users *u, struct err *e)
{
    CLEANUP(freep) char *path = path_join(c->data_dir, "address");
    CLEANUP(buf_release) struct buf address;
    CLEANUP(buf_release) struct buf token;
    CLEANUP(buf_release) struct buf answer;
    buf_init(&address, 0);
    buf_init(&token, 0);
    buf_init(&answer, ANSWER_BYTES_MAX);
    int r = path ? read_line(path, &address, e) : err_set(e, ENOMEM, "ask the server");
    if (r == 0 && *c->token_file)
        r = read_line(c->token_file, &token, e);
    if (r == 0)
        r = exchange(buf_str(&address), buf_str(&token), &answer, e);
    if (r == 0)
        r = read_users(buf_str(&answer), u, e);
    return r < 0 ? err_wrap(e, "a server runs on %s, and who uses the image is not known", c->data_dir)
                 : 0;
}

int image_users_ask(void *config, const char *image, struct err *e)
{
    const struct config *c = config;
    struct users u = {.image = image};
    buf_init(&u.names, 1024);
    CLEANUP(freep) char *path = path_join(c->data_dir, "lock");
    if (!path)
        return err_set(e, ENOMEM, "ask who uses the image");
    CLEANUP(fd_closep) int lock = open(path, O_RDWR | O_CLOEXEC);
    bool served = lock >= 0 && flock(lock, LOCK_EX | LOCK_NB) < 0;
    int r = served ? ask_server(c, &u, e) : ask_database(c, &u, e);
    if (r == 0)
        r = judge(&u, e);
    buf_release(&u.names);
    return r;
}
