/* SPDX-License-Identifier: MIT */
#include "agent/sync_internal.h"

#include <errno.h>
#include <unistd.h>

#include "shared/io.h"

#include "shared/banned.h"

static bool same_file(const struct tree_stat *a, const struct tree_stat *b)
{
    return a->size == b->size && a->mtime_ns == b->mtime_ns && a->ctime_ns == b->ctime_ns;
}

/* The file from its beginning, at most size + 1 bytes of it: one more than it should have tells
 * that it grew. One call does for a file that holds still. */
static int read_once(int fd, uint64_t size, struct buf *b)
{
    buf_reset(b);
    int r = buf_reserve(b, (size_t)size + 1);
    if (r < 0)
        return r;
    ssize_t n = pread(fd, b->data, (size_t)size + 1, 0);
    if (n < 0 || (uint64_t)n != size)
        n = io_pread_full(fd, b->data, (size_t)size + 1, 0);
    if (n < 0)
        return (int)n;
    b->len = (size_t)n;
    return 0;
}

int sync_read_small(
    struct sync *s, const char *path, int fd, struct tree_stat *stat, int64_t *seen_ns)
{
    struct buf *b = &s->scratch;
    for (int i = 0;; i++) {
        struct stat st;
        struct tree_stat after;
        int r = stat->size > SYNC_MEMORY_FILE ? -ENOBUFS : read_once(fd, stat->size, b);
        if (r < 0)
            return r;
        if (fstat(fd, &st) < 0)
            return -errno;
        tree_stat_of(&st, &after);
        if (same_file(stat, &after) && b->len == after.size)
            return 0;
        if (i + 1 == SYNC_READ_TRIES) {
            (void)sync_names_add(&s->unsettled, path);
            return 0;
        }
        *seen_ns = (int64_t)io_wall_ns();
        *stat = after;
    }
}

int sync_left_out(struct sync *s, const char *path, bool is_dir, struct err *e)
{
    if (!s->new_rules || !s->new_rules(s->new_rules_ctx))
        return 0;
    const struct scan_config config = {.tree = s->tree, .rules = s->rules};
    int r = scan_ignored(&config, path, is_dir);
    return r < 0 ? err_set(e, -r, "read the rules above '%s'", path) : r;
}

/* Only its stamps are too young to be believed, or others by now: the server has this content. */
static bool is_there(const struct sync *s, const struct sync_item *item)
{
    const struct manifest_entry *known = manifest_get(index_manifest(s->index), item->path);
    CLEANUP(fd_closep) int fd = -1;
    struct tree_stat st;
    struct hash hash;
    uint64_t size = 0;
    return item->kind == SCAN_CHANGED && item->was == TREE_FILE && known &&
           known->kind == TREE_FILE && known->size == item->size &&
           tree_open_file(s->tree, item->path, &fd, &st, NULL) == 0 &&
           ((st.mode & 0777) | 0400) == known->mode && hash_fd(fd, &hash, &size, NULL) == 0 &&
           hash_equal(&hash, &known->hash);
}

int64_t sync_changes(struct sync *s, struct err *e)
{
    int64_t count = sync_scan(s, e);
    for (size_t i = 0; count > 0 && i < s->fresh_count; i++)
        count -= is_there(s, &s->fresh[i]);
    return count;
}
