/* SPDX-License-Identifier: MIT */
/*
 * What the server has: its manifest, page by page, each item checked before anybody believes it.
 *
 *     remote_init(&r, client, sandbox)
 *     do remote_page(&r, REMOTE_PAGE, e) … remote_entry(&r, item, &entry) for r.page's "items"
 *     while (r.cursor);
 *     remote_release(&r)
 *
 * or, in a loop that must not wait, remote_ask and, once client_step may have heard of it,
 * remote_take instead of remote_page.
 *
 * Whatever the server says, an entry's path has the form of path_check. One thread.
 */
#ifndef AGENT_REMOTE_H
#define AGENT_REMOTE_H

#include <jansson.h>

#include "agent/client.h"
#include "agent/index.h"
#include "shared/manifest.h"

#define REMOTE_PAGE 10000
#define REMOTE_TARGET_UNKNOWN "?" /* of a symlink of which the server told the hash only */

struct remote {
    struct client *client; /* borrowed */
    const char *sandbox;
    json_t *page;          /* the latest answer */
    char *cursor;          /* of the next page, ready for a URL; NULL after the last */
    struct buf path, target; /* of the latest entry */
    uint64_t bytes_sent, bytes_received;
    char *url;                /* of the request under way */
    struct client_call *call; /* it; NULL: none, or it ended: */
    int result;               /* so, */
    struct err error;         /* with this error if not 0 */
};

void remote_init(struct remote *r, struct client *client, const char *sandbox);
void remote_release(struct remote *r);
/* Ask for the next page of at most `limit` entries. */
int remote_page(struct remote *r, unsigned limit, struct err *e) WARN_UNUSED;
/* The same without waiting: the request is under way. One at a time. */
int remote_ask(struct remote *r, unsigned limit, struct err *e) WARN_UNUSED;
/* What became of it: 1 nothing yet, 0 its page is there, <0 as remote_page. */
int remote_take(struct remote *r, struct err *e) WARN_UNUSED;
/* Epoch and generation of the latest page. -EPROTO if it names no epoch. */
int remote_state(const struct remote *r, struct index_state *state, struct err *e) WARN_UNUSED;
/* The path of an item ("path", or "path_base64" if it is not UTF-8); NULL if it is not a path that
 * could be ours. Valid until the next call. */
const char *remote_path(struct remote *r, const json_t *item);
/* An item as an entry. False: it is damaged, or of a kind that we do not know. Times are zero: never
 * taken as unchanged without a look at the content. Texts are valid until the next call. */
bool remote_entry(struct remote *r, const json_t *item, struct manifest_entry *ret);

#endif
