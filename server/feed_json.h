/* SPDX-License-Identifier: MIT */
/*
 * A change set as JSON, for people and programs without silt's own framing:
 *
 *     {"ops":[{"op":"put","path":"a.py","text":"…"},
 *             {"op":"edit","path":"a.py","old":"…","new":"…"},
 *             {"op":"move","path":"a","to":"b"}, …],
 *      "if_generation":41, "epoch":"…", "client":"…", "seq":1, "parent":0}
 *
 * Everything is checked before the first operation is given out, so that a mistake in the last one
 * costs nothing. Pure; one thread.
 */
#ifndef SERVER_FEED_JSON_H
#define SERVER_FEED_JSON_H

#include <jansson.h>

#include "shared/changes.h"
#include "shared/err.h"

struct feed_json;

/* body is borrowed until feed_json_free. Refusals: PROTO_INVALID_VALUE, PROTO_INVALID_PATH, each
 * with the number of the operation. */
int feed_json_new(json_t *body, struct feed_json **ret, struct changes_begin *ret_begin,
    struct err *e) WARN_UNUSED;
void feed_json_free(struct feed_json *f);
/* Reads one operation after the other; its digest is that of the body in a canonical form. */
struct changes_feed feed_json_feed(struct feed_json *f);

#endif
