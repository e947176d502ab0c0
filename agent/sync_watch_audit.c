/* SPDX-License-Identifier: MIT */
/*
 * The watcher's audits: every 5 to 10 minutes everything is scanned by stat and the index held
 * against the server's digests, a page at a time and only while there is nothing else to do. The
 * spread keeps many watchers of one server apart.
 */
#include <errno.h>
#include <inttypes.h>

#include "agent/sync_watch_internal.h"
#include "shared/io.h"

#include "shared/banned.h"

#define NS_PER_S UINT64_C(1000000000)
#define AUDIT_NS (5 * 60 * NS_PER_S)
#define TRIES_MAX 5 /* at a workspace that changes all the while */

/* The next one; the clock's last digits are as good as dice here. */
static void schedule(struct sync_loop *l)
{
    uint64_t now = io_now_ns();
    l->audit_at_ns = now + AUDIT_NS + now % AUDIT_NS;
}

void sync_loop_audit_begin(struct sync_loop *l)
{
    l->compare = l->rescan = true;
    l->audit_tries = 0;
    l->audit_error[0] = '\0';
    schedule(l);
}

bool sync_loop_audit_due(const struct sync_loop *l)
{
    return io_now_ns() >= l->audit_at_ns;
}

static void tell_repaired(struct sync_loop *l)
{
    char text[160];
    if (!l->audited.repaired)
        return;
    (void)snprintf(text, sizeof(text),
        "an audit found %zu paths that the server did not have as they are here: they are sent "
        "again",
        l->audited.repaired);
    if (l->config->said)
        l->config->said(l->config->ctx, SYNC_SAID_PROBLEM, NULL, text);
}

void sync_loop_audit_step(struct sync_loop *l)
{
    struct err e = ERR_INIT;
    if (!l->compare)
        return;
    int r = sync_audit_step(l->s, &l->audit, &l->audited, &e);
    if (r == SYNC_AUDIT_WAITS)
        return;
    l->rescan = l->rescan || r == -ESTALE;
    if (r < 0 && (r == -ESTALE || r == -EAGAIN) && ++l->audit_tries < TRIES_MAX)
        return; /* in a later turn */
    l->compare = false;
    if (r < 0)
        (void)snprintf(l->audit_error, sizeof(l->audit_error), "%s", e.msg);
    else
        tell_repaired(l);
}
