/* SPDX-License-Identifier: MIT */
/* What the watcher makes of an event: a path that waits until it settles, a scan, or its end. */
#include <errno.h>
#include <string.h>

#include "agent/sync_watch_internal.h"
#include "shared/io.h"
#include "shared/path.h"

#include "shared/banned.h"

static bool is_rule_file(const char *path)
{
    const char *name = path_base(path);
    return strcmp(name, IGNORE_GITIGNORE) == 0 || strcmp(name, IGNORE_SILTIGNORE) == 0;
}

static void on_path(struct sync_loop *l, const struct watch_event *event)
{
    static const enum settle_hint hints[] = {
        [WATCH_WRITTEN] = SETTLE_WRITTEN,
        [WATCH_MODIFIED] = SETTLE_MODIFIED,
        [WATCH_ARRIVED] = SETTLE_ARRIVED,
        [WATCH_GONE] = SETTLE_GONE,
        [WATCH_LEFT] = SETTLE_LEFT,
        [WATCH_DIR] = SETTLE_WRITTEN,
    };
    struct settle_event fed = {
        .path = event->path, .hint = hints[event->kind], .cookie = event->cookie};
    const struct manifest_entry *known = manifest_get(index_manifest(l->s->index), event->path);
    struct tree_stat st;
    /* Editors' temporaries and the like cost no scan. What is known is never dropped here. */
    if (!known && event->kind != WATCH_DIR && ignore_find(l->s->rules, event->path, false, NULL))
        return;
    /* After a problem (an emptied project) it is not known any more what is unsent. */
    if (is_rule_file(event->path) || l->problem[0])
        l->rescan = true;
    /* sed -i and its like write beside the file and rename: the other name is nobody's business. */
    bool is_written = event->kind == WATCH_WRITTEN || event->kind == WATCH_MODIFIED;
    if (!known && is_written && settle_is_passing(path_base(event->path)))
        fed.hint = SETTLE_PASSING;
    else if (!known && event->kind == WATCH_WRITTEN)
        fed.hint = SETTLE_NEW;
    if (event->kind == WATCH_LEFT && known)
        fed.ino = known->ino;
    if (event->kind == WATCH_ARRIVED && tree_stat(l->s->tree, event->path, &st, NULL) == 0)
        fed.ino = st.ino;
    if (settle_feed(l->settle, &fed, io_now_ns() / 1000) < 0)
        l->rescan = true;
}

void sync_loop_hear(void *ctx, const struct watch_event *event)
{
    struct sync_loop *l = ctx;
    if (event->kind == WATCH_COOKIE) {
        sync_loop_cookie(l, event->number);
    } else if (event->kind == WATCH_RESCAN) {
        l->rescan = true;
        sync_loop_renew_cookies(l);
    } else if (event->kind == WATCH_ROOT_GONE) {
        if (!tree_same(l->s->tree, l->s->link.root)) {
            l->stop = true;
            l->result = err_say(l->e, ENOENT,
                "the folder %s was moved or deleted: the watcher ends, nothing was deleted in the "
                "sandbox",
                l->s->link.root);
        }
    } else if (strcmp(event->path, LINK_DIR) == 0) {
        if (event->kind == WATCH_GONE || event->kind == WATCH_LEFT) {
            l->stop = true;
            l->result =
                err_say(l->e, ENOENT, "%s/.silt was removed: the watcher ends", l->s->link.root);
        }
    } else {
        on_path(l, event);
    }
}
