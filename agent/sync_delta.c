/* SPDX-License-Identifier: MIT */
#include "agent/sync_delta.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/io.h"

#include "shared/banned.h"

#define DELTA_MEMORY (4u * 1024 * 1024) /* larger deltas go to a temporary file */
#define DELTA_PERCENT 60                /* of the file: above, the whole file is sent */
#define OPEN_AFTER (8u * 1024 * 1024)   /* bytes that are looked at first */
#define LIKE_MAX 1000                   /* vanished files that are looked at */

void sync_delta_release(struct sync_delta *d)
{
    buf_release(&d->mem);
    fd_closep(&d->fd);
    delta_sig_free(ptr_take(&d->sig));
    delta_maker_freep(&d->maker);
    delta_sig_freep(&d->base);
}

static int spill(struct sync_delta *d)
{
    d->fd = openat(d->dir_fd, ".", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
    if (d->fd < 0)
        return -errno;
    return io_write_all(d->fd, d->mem.data, d->mem.len);
}

static int take_delta(void *ctx, const void *data, size_t len)
{
    struct sync_delta *d = ctx;
    int r = 0;
    if (d->fd < 0 && d->mem.len + len > DELTA_MEMORY)
        r = spill(d);
    if (r == 0)
        r = d->fd >= 0 ? io_write_all(d->fd, data, len) : buf_add(&d->mem, data, len);
    d->len += len;
    return r;
}

/* Where something of old may be in a file of this size. */
static bool may_gain(const struct manifest_entry *old, uint64_t size)
{
    return old && old->kind == TREE_FILE && size >= DELTA_MIN_FILE && old->size >= DELTA_MIN_FILE;
}

/* Worth being sent before all of it is known? */
static bool open_pays(const struct sync_delta *d)
{
    uint64_t at = delta_maker_at(d->maker);
    return at >= OPEN_AFTER && d->fd < 0 && delta_maker_differs(d->maker) &&
           delta_maker_copied(d->maker) >= at / 2;
}

int sync_delta_make(struct sync *s, const struct manifest_entry *old, int fd, uint64_t size,
    bool may_open, struct sync_delta *ret)
{
    *ret = (struct sync_delta){.dir_fd = s->dir_fd, .fd = -1};
    buf_init(&ret->mem, DELTA_MEMORY + 1024 * 1024);
    if (!may_gain(old, size) || index_sig_load(s->index, &old->hash, old->size, &ret->base) < 0)
        return 0;
    int r = delta_maker_new(ret->base, fd, size, UINT64_MAX, &ret->maker, NULL);
    if (r == 0)
        r = 1;
    while (r == 1 && ret->len <= size / 100 * DELTA_PERCENT) {
        r = delta_maker_step(ret->maker, false, take_delta, ret, NULL);
        if (r == 1 && may_open && open_pays(ret))
            return 1;
    }
    bool gains = r == 0 && ret->len <= size / 100 * DELTA_PERCENT;
    if (gains) {
        delta_maker_hash(ret->maker, &ret->hash);
        ret->sig = delta_maker_take_sig(ret->maker);
    }
    delta_maker_freep(&ret->maker);
    return r == -ENOMEM ? r : gains;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

struct sync_gone *sync_delta_origin(struct sync *s, const char *path, const struct tree_stat *st)
{
    struct sync_gone *best = NULL;
    if (st->size < DELTA_MIN_FILE || s->gone_count > LIKE_MAX)
        return NULL;
    for (size_t i = 0; i < s->gone_count; i++) {
        struct sync_gone *at = &s->gone[i];
        const struct manifest_entry *there = manifest_get(index_manifest(s->index), at->path);
        if (at->used || at->size < DELTA_MIN_FILE || !there || there->kind != TREE_FILE ||
            !hash_equal(&there->hash, &at->hash))
            continue;
        if (at->ino == st->ino)
            return at;
        if (!best && strcmp(base_name(at->path), base_name(path)) == 0)
            best = at;
    }
    return best;
}
