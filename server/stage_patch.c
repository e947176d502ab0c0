/* SPDX-License-Identifier: MIT */
/* Files that are made of what the workspace has: by a delta, or as a copy. */
#include "server/stage.h"
#include "server/stage_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/delta.h"
#include "shared/io.h"

#include "shared/banned.h"

struct delta_input {
    const struct changes_feed *feed;
    struct err *e; /* what the feed said, which the delta's reader does not know */
    bool open;     /* the result's hash stands behind the delta: */
    uint8_t tail[HASH_BYTES];
    size_t tail_len;
};

static ssize_t read_delta(void *ctx, void *data, size_t len)
{
    struct delta_input *in = ctx;
    uint8_t *bytes = data;

    if (!in->open)
        return in->feed->read(in->feed->ctx, data, len, in->e);
    /* What came last is held back: it is the hash if nothing more comes. */
    for (;;) {
        memcpy(bytes, in->tail, in->tail_len);
        ssize_t n = in->feed->read(in->feed->ctx, bytes + in->tail_len, len - in->tail_len, in->e);
        if (n <= 0)
            return n;
        size_t have = in->tail_len + (size_t)n;
        in->tail_len = have < HASH_BYTES ? have : HASH_BYTES;
        memcpy(in->tail, bytes + have - in->tail_len, in->tail_len);
        if (have > HASH_BYTES)
            return (ssize_t)(have - HASH_BYTES);
    }
}

/* What the result must be: named before the delta, or behind it. */
static int check_result(const struct change_op *op, const struct delta_input *in,
    const struct staged *staged, struct err *e)
{
    struct change_op ended = *op;

    if (!in->open)
        return stage_check_hash(op, staged, e);
    if (in->tail_len < HASH_BYTES)
        return err_refuse(e, PROTO_BAD_CHANGES, "the delta of '%s' lacks its hash", op->path);
    memcpy(ended.hash.b, in->tail, HASH_BYTES);
    ended.has_hash = true;
    return stage_check_hash(&ended, staged, e);
}

int stage_patch(struct stage *s, const struct change_op *op, int basis_fd,
    const struct changes_feed *feed, struct staged **ret, struct err *e)
{
    CLEANUP(staged_freep) struct staged *staged = NULL;
    CLEANUP(fd_closep) int fd = -1;
    struct err from_feed = ERR_INIT;
    struct delta_input in = {.feed = feed, .e = &from_feed, .open = op->open};
    int r = stage_room(s, op->size, e);

    if (r == 0)
        r = stage_new_file(s, &staged, &fd, e);
    if (r < 0)
        return r;
    r = delta_patch(basis_fd, read_delta, &in, op->content_len, fd, op->size, &staged->hash, e);
    if (r < 0 && from_feed.code && e)
        *e = from_feed;
    if (r < 0)
        return from_feed.code ? r : r == -ENOSPC || r == -EDQUOT ? stage_fail(e, -r, "") : r;
    r = check_result(op, &in, staged, e);
    if (r == 0)
        r = stage_finish_file(staged, fd, op->mode, e);
    if (r < 0)
        return r;
    *ret = ptr_take(&staged);
    return 0;
}

/* In the kernel where it can, which may share blocks; by hand where it cannot. */
static int copy_bytes(struct stage *s, int from, int to, uint64_t size, struct err *e)
{
    uint64_t done = 0;

    while (done < size) {
        off_t in = (off_t)done, out = (off_t)done;
        ssize_t n = copy_file_range(from, &in, to, &out, (size_t)(size - done), 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == ENOSPC || errno == EDQUOT))
            return stage_fail(e, errno, "");
        if (n <= 0) {
            n = io_pread_full(from, s->buffer, STAGE_BUFFER_BYTES, done);
            if (n > 0) {
                int r = io_pwrite_all(to, s->buffer, (size_t)n, done);
                if (r < 0)
                    return stage_fail(e, -r, "write a staging file");
            }
        }
        if (n < 0)
            return err_set(e, (int)-n, "read a file to copy");
        if (n == 0)
            break; /* it shrank: the hash will tell */
        done += (uint64_t)n;
    }
    return 0;
}

int stage_copy(struct stage *s, const char *path, int source_fd, struct staged **ret, struct err *e)
{
    CLEANUP(staged_freep) struct staged *staged = NULL;
    CLEANUP(fd_closep) int fd = -1;
    struct stat st;

    if (fstat(source_fd, &st) < 0)
        return err_set(e, errno, "stat '%s'", path);
    int r = stage_room(s, (uint64_t)st.st_size, e);
    if (r == 0)
        r = stage_new_file(s, &staged, &fd, e);
    if (r == 0)
        r = copy_bytes(s, source_fd, fd, (uint64_t)st.st_size, e);
    if (r == 0)
        r = hash_fd(fd, &staged->hash, NULL, e);
    if (r == 0)
        r = stage_finish_file(staged, fd, st.st_mode & 0777, e);
    if (r < 0)
        return r;
    *ret = ptr_take(&staged);
    return 0;
}
