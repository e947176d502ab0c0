/* SPDX-License-Identifier: MIT */
/* What the watcher looks at, and when: all of it, folders without a watch, what settled. */
#include <stdlib.h>
#include <string.h>

#include "agent/sync_watch_internal.h"
#include "shared/io.h"

#include "shared/banned.h"

#define POLL_NS UINT64_C(2000000000) /* folders without a watch, at least */
#define POLL_REST 20                 /* times as long as looking at them takes */
#define PATHS_AT_ONCE 4096
#define SAME_STEPS 1000000 /* files of the same content that are looked at, else all are scanned */

void sync_loop_entered(void *ctx, const char *path, int dir_fd)
{
    struct sync_loop *l = ctx;
    watch_add(l->watch, path, dir_fd);
}

static void scan_everything(struct sync_loop *l)
{
    struct err e = ERR_INIT;
    l->rescan = l->look_around = false;
    watch_sweep_begin(l->watch);
    int64_t n = sync_scan(l->s, &e);
    l->s->emptying.decide = false;
    if (n < 0) {
        sync_loop_fail(l, &e);
        return;
    }
    watch_sweep_end(l->watch);
    if (!l->said_away && !l->s->emptying.due_ns)
        sync_loop_problem(l, "");
}

static void look_around(struct sync_loop *l)
{
    struct err e = ERR_INIT;
    size_t count = 0;
    const char *const *polled = watch_polled(l->watch, &count);
    l->look_around = false;
    uint64_t begin = io_now_ns();
    l->poll_at_ns = begin + POLL_NS;
    if (!count)
        return;
    /* The scan adds and drops polled folders: it gets a copy of the names. */
    struct sync_names *names = NULL;
    for (size_t i = 0; i < count; i++)
        (void)sync_names_add(&names, polled[i]);
    CLEANUP(freep) const char **paths = sync_names_list(names, &count);
    if (paths && sync_scan_paths(l->s, paths, count, &e) < 0)
        sync_loop_fail(l, &e);
    sync_names_free(&names);
    /* Many folders are looked at less often: looking must not become all that we do. */
    uint64_t now = io_now_ns(), rest = (now - begin) * POLL_REST;
    l->poll_at_ns = now + (rest > POLL_NS ? rest : POLL_NS);
}

static int by_ino(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* A name is gone, or is another file's now: what was written through it before is what its file's
 * other names hold. In the index they have the same content. Takes from *steps; false: too many. */
static bool add_left_names(
    struct sync_loop *l, const struct manifest_entry *left, size_t *steps)
{
    const struct manifest_entry *e =
        manifest_same_first(index_manifest(l->s->index), &left->hash);
    for (; e && *steps > 0; e = manifest_same_next(e), --*steps) {
        if (e != left && e->ino == left->ino)
            (void)sync_names_add(&l->s->unsettled, e->path);
    }
    return e == NULL;
}

/* A file with several names was changed under one of them: the others changed too, and inotify does
 * not say so. One pass over the index, however many there are. */
static void add_other_names(struct sync_loop *l, char *const *paths, size_t count)
{
    uint64_t inos[PATHS_AT_ONCE];
    size_t several = 0, known_count = 0, steps = SAME_STEPS;
    for (size_t i = 0; i < count; i++) {
        struct tree_stat st;
        const struct manifest_entry *known =
            manifest_get(index_manifest(l->s->index), paths[i]);
        bool file = tree_stat(l->s->tree, paths[i], &st, NULL) == 0 && st.kind == TREE_FILE;
        if (file && st.nlink > 1)
            inos[several++] = st.ino;
        if (known && known->kind == TREE_FILE && known->ino && !(file && st.ino == known->ino) &&
            !add_left_names(l, known, &steps))
            l->rescan = true;
    }
    if (several == 0)
        return;
    qsort(inos, several, sizeof(*inos), by_ino);
    CLEANUP(freep)
    const struct manifest_entry **all = manifest_sorted(index_manifest(l->s->index), &known_count);
    for (size_t i = 0; all && i < known_count; i++) {
        if (all[i]->kind == TREE_FILE &&
            bsearch(&all[i]->ino, inos, several, sizeof(*inos), by_ino))
            (void)sync_names_add(&l->s->unsettled, all[i]->path);
    }
}

static void scan_due(struct sync_loop *l)
{
    struct err e = ERR_INIT;
    char *paths[PATHS_AT_ONCE];
    size_t count = settle_take(l->settle, io_now_ns() / 1000, paths, PATHS_AT_ONCE);
    if (count == 0)
        return;
    l->s->seen_ns = settle_taken_us(l->settle) * 1000;
    add_other_names(l, paths, count);
    if (sync_scan_paths(l->s, (const char *const *)paths, count, &e) < 0) {
        /* Which paths these were is known no more. */
        l->rescan = sync_loop_is_passing(&e);
        sync_loop_fail(l, &e);
    }
    for (size_t i = 0; i < count; i++)
        free(paths[i]);
}

void sync_loop_scan(struct sync_loop *l)
{
    struct sync *s = l->s;
    struct err e = ERR_INIT;
    uint64_t now = io_now_ns();
    if (s->away && now < l->retry_at_ns)
        return;
    if (s->trouble != SYNC_FINE || s->queue || s->flying_count >= SYNC_SETS_IN_FLIGHT)
        return;
    s->seen_ns = 0;
    if (now >= l->poll_at_ns || l->look_around)
        look_around(l);
    bool all = settle_count(l->settle) == 0;
    if (all && !l->rescan)
        sync_emptied_heard(s, l->heard_ns);
    if (sync_emptied_decides(s, l->heard_ns, all) ||
        (s->emptying.due_ns && sync_loop_somebody_waits(l)))
        l->rescan = s->emptying.decide = true;
    if (sync_loop_audit_due(l))
        sync_loop_audit_begin(l);
    if (l->rescan)
        scan_everything(l);
    if (!l->stop && !l->rescan)
        scan_due(l);
    if (s->unsettled && !s->flying_count && sync_take_unsettled(s, &e) < 0)
        sync_loop_fail(l, &e);
    if (s->fresh_count)
        sync_audit_drop(&l->audit);
    if (s->fresh_count && !l->burst_ns)
        l->burst_ns = now;
    if (!l->stop && s->fresh_count && sync_start(s, &e) < 0)
        sync_loop_fail(l, &e);
    sync_loop_tell_changed(l);
}
