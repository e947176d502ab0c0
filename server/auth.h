/* SPDX-License-Identifier: MIT */
/*
 * Who may talk to siltd. Decided from headers and socket addresses alone, before any body is read.
 * Does no disk access but one look-up of the peer's uid in the kernel's socket table
 * (sock_diag, else /proc/net/tcp*), cached per connection by the caller. Thread-safe after
 * auth_new.
 *
 * In order:
 * 1. Host must name this server: a loopback name or address, the address listened on, or a name
 *    listed in `hosts` (compared by name, any port): refuses DNS rebinding. PROTO_FORBIDDEN_ORIGIN.
 * 2. A browser's foreign page is refused: Origin present and neither same as Host (name and port)
 * nor listed (by name), Origin "null", or Sec-Fetch-Site other than same-origin or none, unless
 *    Origin is a listed one. PROTO_FORBIDDEN_ORIGIN.
 * 3. With tokens: "Authorization: Bearer …" must match one (constant time). PROTO_UNAUTHORIZED.
 *    /healthz needs none.
 * 4. Without tokens the peer must be on loopback and its socket must belong to the server's own
 *    user, root or a listed user. PROTO_FORBIDDEN_PEER says which uid knocked.
 */
#ifndef SERVER_AUTH_H
#define SERVER_AUTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "shared/err.h"

struct auth;

struct auth_config {
    const char *listen_host;
    const char *token_file; /* NULL = none; one token of ≥ 16 characters in its first line; refused
                               if others may read it */
    const char *const *hosts; /* further names for Host and Origin, NULL-terminated, or NULL */
    const char *const *users; /* further users (names or numbers) let in without a token, or NULL */
};

/* -EINVAL with a sentence: listening beyond loopback without a token, a bad or readable token file,
 * an unknown user. */
int auth_new(const struct auth_config *config, struct auth **ret, struct err *e) WARN_UNUSED;
void auth_free(struct auth *a);
bool auth_has_tokens(const struct auth *a);

struct auth_request {
    const char *path;                                           /* "/healthz" is free of tokens */
    const char *host, *origin, *sec_fetch_site, *authorization; /* header values or NULL */
    const struct sockaddr_storage *peer, *local;
    int64_t *peer_uid; /* NULL, or the connection's own memory of the look-up; -1 at its start */
};
/* 0: let in. -EPROTO with a refusal otherwise. */
int auth_check(const struct auth *a, const struct auth_request *req, struct err *e) WARN_UNUSED;

#endif
