/* SPDX-License-Identifier: MIT */
/*
 * A project that loses everything: a mistake, or a disk that is not mounted, more often than a
 * wish. A scan that finds nothing any more is refused. A watcher sees files go one after another,
 * and no scan of it finds everything gone: once less than half of what was known is left, deletions
 * are held until none was seen for half a second, and then a scan of everything decides, as it
 * would have at once. So does one that a command waits for. Held deletions are not noted anywhere:
 * that scan finds them again. After a refusal they stay held, for the files may come back one after
 * another, too.
 */
#include "agent/sync_internal.h"

#include <errno.h>
#include <stdlib.h>

#include "shared/io.h"

#include "shared/banned.h"

#define QUIET_NS UINT64_C(500000000)
#define HELD_MOST_NS UINT64_C(10000000000) /* where files come and go all the time */

/* Folders do not count: they may stay where all that was in them goes. */
static size_t files_gone(const struct sync *s, const struct scan *found)
{
    const struct manifest *known = index_manifest(s->index);
    size_t count = 0;
    for (size_t i = 0; i < found->count; i++) {
        const struct scan_item *item = &found->items[i];
        if (item->kind != SCAN_GONE)
            continue;
        const struct manifest_entry *entry = manifest_get(known, item->path);
        count += entry && entry->kind == TREE_FILE;
    }
    return count;
}

static int check_emptied(const struct sync *s, const struct scan *found, size_t gone, struct err *e)
{
    /* A scan of some paths sees only those: the rest decides whether anything is left. */
    if (gone == 0 || found->files > 0 || gone < manifest_files(index_manifest(s->index)))
        return 0;
    return err_say(e, ENOTEMPTY,
        "%s is empty, but the sandbox has %zu files from it: nothing was deleted there; if that is "
        "what you want: silt sync --allow-empty",
        s->link.root, gone);
}

/* Would less than half be left? What is renamed is not gone. */
static bool is_most(const struct sync *s, const struct scan *found, size_t gone)
{
    size_t left = manifest_files(index_manifest(s->index));
    for (size_t i = 0; i < found->count; i++)
        left += found->items[i].kind == SCAN_NEW && found->items[i].st.kind == TREE_FILE;
    return gone >= left || (left - gone) * 2 < s->emptying.before;
}

static void take_out(struct scan *found)
{
    size_t kept = 0;
    for (size_t i = 0; i < found->count; i++) {
        if (found->items[i].kind == SCAN_GONE)
            free(found->items[i].path);
        else
            found->items[kept++] = found->items[i];
    }
    found->count = kept;
    found->gone = 0;
}

static void hold(struct sync_emptying *m, struct scan *found, uint64_t now)
{
    if (!m->held_ns || !m->due_ns)
        m->held_ns = now;
    m->due_ns = now + QUIET_NS;
    if (m->due_ns > m->held_ns + HELD_MOST_NS)
        m->due_ns = m->held_ns + HELD_MOST_NS;
    take_out(found);
}

int sync_emptied(struct sync *s, struct scan *found, struct err *e)
{
    struct sync_emptying *m = &s->emptying;
    uint64_t now = io_now_ns();
    if (s->config.allow_empty)
        return 0;
    size_t gone = files_gone(s, found);
    size_t files = manifest_files(index_manifest(s->index));
    if (!m->held_ns && files > m->before)
        m->before = files;
    if (gone)
        m->gone_ns = now;
    if (!m->decide && s->patient && gone && (m->held_ns || is_most(s, found, gone))) {
        hold(m, found, now);
        return 0;
    }
    int r = check_emptied(s, found, gone, e);
    if (m->decide)
        *m = (struct sync_emptying){.held_ns = r < 0 ? now : 0,
            .before = r < 0 ? m->before : files - gone,
            .gone_ns = m->gone_ns};
    return r;
}

void sync_emptied_heard(struct sync *s, uint64_t heard_ns)
{
    struct sync_emptying *m = &s->emptying;
    if (!m->held_ns && heard_ns > m->gone_ns + QUIET_NS)
        m->before = manifest_files(index_manifest(s->index));
}

bool sync_emptied_decides(const struct sync *s, uint64_t heard_ns, bool all)
{
    const struct sync_emptying *m = &s->emptying;
    return m->due_ns && heard_ns >= m->due_ns && (all || heard_ns >= m->held_ns + HELD_MOST_NS);
}
