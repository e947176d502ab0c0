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
