/* SPDX-License-Identifier: MIT */
/*
 * Validation of JSON bodies: each function takes one member of an object, checks its type and
 * bounds and refuses with PROTO_INVALID_VALUE and a sentence that names the member. A member that
 * nobody knows is refused with its nearest neighbour named: a misspelt `timout_ms` that is silently
 * ignored costs its user an afternoon. Pure, any thread.
 */
#ifndef SERVER_BODY_H
#define SERVER_BODY_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/config.h"
#include "shared/buf.h"
#include "shared/err.h"

/* How every reply and record is written: 1.234 ms stays 1.234. */
#define BODY_DUMP (JSON_COMPACT | JSON_REAL_PRECISION(12))
#define BODY_ENV_MAX 1000               /* variables */
#define BODY_STRINGS_BYTES (512 * 1024) /* of all arguments, of all variables */

/* Every member of object must be one of `known` (NULL-terminated). `where` names the object in
 * messages: "the request", "limits". Refuses what is no object, too. */
int body_known(
    json_t *object, const char *where, const char *const *known, struct err *e) WARN_UNUSED;

/* A text of at most max bytes without NUL into *ret (malloc'd; untouched when absent or null).
 * Returns 1 when it was there, 0 when not. */
int body_text(json_t *object, const char *name, size_t max, char **ret, struct err *e) WARN_UNUSED;
/* A whole number within min … max. 1, 0 when absent or null. */
int body_number(json_t *object, const char *name, uint64_t min, uint64_t max, uint64_t *ret,
    struct err *e) WARN_UNUSED;
/* 1 when it was there, 0 when absent or null. */
int body_bool(json_t *object, const char *name, bool *ret, struct err *e) WARN_UNUSED;
/* An array of texts: malloc'd, NULL-terminated. 1, 0 when absent or null. */
int body_texts(
    json_t *object, const char *name, size_t max, char ***ret, struct err *e) WARN_UNUSED;
/* The bytes of `name` (text) or of `name_base64`, whichever is there; refuses both. 1 or 0. */
int body_bytes(
    json_t *object, const char *name, size_t max, struct buf *ret, struct err *e) WARN_UNUSED;
/* Names of variables to texts (also numbers and booleans, as people write them). Checked only. */
int body_env(json_t *env, struct err *e) WARN_UNUSED;
/* `limits`: every member that is there replaces the one in *limits; above `most` it is refused. */
int body_limits(json_t *limits, const struct config_limits *most, struct config_limits *ret,
    struct err *e) WARN_UNUSED;
/* `network`: nothing but {"mode":"none"} can be had. */
int body_network(json_t *network, struct err *e) WARN_UNUSED;
/* `labels`: at most 64 texts by name. */
int body_labels(json_t *labels, struct err *e) WARN_UNUSED;

/* Append "NAME=VALUE" of every variable of a checked env object to a NULL-terminated list that
 * grows; a later one of the same name replaces the earlier. -ENOMEM, -E2BIG. */
int body_env_add(json_t *env, char ***list) WARN_UNUSED;
int body_env_set(char ***list, const char *name, const char *value) WARN_UNUSED;
void body_texts_free(char **list);

#endif
