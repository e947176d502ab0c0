/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "server/sandbox_uploads_internal.h"
#include "server/stage.h"
#include "shared/io.h"
#include "shared/log.h"
#include "shared/num.h"
#include "shared/text.h"
#include "shared/weaken.h"

#include "shared/banned.h"

#define PIECE_BYTES (64 * 1024)
#define SPACE_EVERY_BYTES (UINT64_C(64) << 20)

void sandbox_upload_free(struct sandbox_upload *u)
{
    hash_state_free(u->content);
    free(u);
}

static struct sandbox_upload **find(struct sandbox *sb, const char *id)
{
    struct sandbox_upload **link = &sb->uploads;
    while (*link && strcmp((*link)->state.id, id) != 0)
        link = &(*link)->next;
    return link;
}

/* Out of the table; sb->lock is held. */
static void forget(struct sandbox *sb, struct sandbox_upload *u)
{
    struct sandbox_upload **link = find(sb, u->state.id);
    *link = u->next;
    sb->upload_count--;
}

static int refuse_unknown(const char *id, struct err *e)
{
    return err_refuse(e, PROTO_STAGE_NOT_FOUND,
        "there is no stage %s in this sandbox: it was used, deleted or got nothing for a day; "
        "create another",
        text_is_id(SANDBOX_UPLOAD_PREFIX, id) ? id : "with this id");
}

/* Make it this thread's own: with `over` also from one that waits for its client, and without it
 * from one that has nothing more to wait for. */
static int seize(struct sandbox *sb, const char *id, bool over, struct sandbox_upload **ret,
    struct err *e)
{
    (void)pthread_mutex_lock(&sb->lock);
    struct sandbox_upload *u = *find(sb, id);
    bool busy = u && u->busy && !(u->waits && (over || u->state.offset == u->state.size));
    if (u && !busy) {
        u->busy = true;
        u->waits = false;
        u->holder++;
    }
    (void)pthread_mutex_unlock(&sb->lock);
    if (!u)
        return refuse_unknown(id, e);
    if (busy)
        return err_refuse(e, PROTO_BUSY, "another request is using stage %s: wait for it", id);
    *ret = u;
    return 0;
}

static void let_go(struct sandbox *sb, struct sandbox_upload *u, struct sandbox_upload_state *ret)
{
    (void)pthread_mutex_lock(&sb->lock);
    u->busy = false;
    if (ret)
        *ret = u->state;
    (void)pthread_mutex_unlock(&sb->lock);
}

/* ---- creating */

static int check_space(struct sandbox *sb, uint64_t more, struct err *e)
{
    uint64_t available;
    int r = workspace_free_bytes(sb->ws, &available, e);
    if (r < 0)
        return r;
    uint64_t keep = sb->all->config.min_free_bytes;
    if (available < keep || available - keep < more)
        return err_refuse(
            e, PROTO_NO_SPACE, "the server has too little free disk space for this file");
    return 0;
}

/* Into the table, if number and sum allow. */
int sandbox_upload_enter(struct sandbox *sb, struct sandbox_upload *u, struct err *e)
{
    uint64_t total = u->state.size, most = sb->all->config.max_workspace_bytes;
    bool fits = total <= most;
    (void)pthread_mutex_lock(&sb->lock);
    for (const struct sandbox_upload *other = sb->uploads; other && fits; other = other->next)
        fits = num_add(total, other->state.size, &total) && total <= most;
    fits = fits || WEAK("stages");
    bool many = sb->upload_count >= SANDBOX_UPLOADS_MAX;
    if (fits && !many) {
        u->next = sb->uploads;
        sb->uploads = u;
        sb->upload_count++;
        sb->used_ns = u->state.used_ns;
    }
    (void)pthread_mutex_unlock(&sb->lock);
    if (many)
        return err_refuse(e, PROTO_BUSY,
            "a sandbox may have %d stages at a time: use or delete one first", SANDBOX_UPLOADS_MAX);
    if (!fits)
        return err_refuse(e, PROTO_NO_SPACE,
            "the stages of a sandbox may be %" PRIu64 " bytes together: use or delete one first",
            most);
    return 0;
}

static int open_file(const struct sandbox *sb, const char *name, int flags, int *ret, struct err *e)
{
    struct tree_identity previous;
    int r = tree_identity_enter(sb->identity, &previous, e);
    if (r < 0)
        return r;
    int fd = openat(sb->ws->stage_fd, name, flags | O_RDWR | O_NOFOLLOW | O_CLOEXEC, 0644);
    int code = errno;
    tree_identity_leave(previous);
    if (fd < 0)
        return err_set(e, code, "open a stage");
    *ret = fd;
    return 0;
}

static int create(struct sandbox *sb, struct sandbox_upload *u, struct err *e)
{
    CLEANUP(fd_closep) int fd = -1;
    int r = check_space(sb, u->state.size, e);
    /* Busy until its file is there. */
    u->busy = true;
    if (r == 0)
        r = sandbox_upload_enter(sb, u, e);
    if (r < 0)
        return r;
    r = open_file(sb, u->file, O_CREAT | O_EXCL, &fd, e);
    if (r < 0) {
        (void)pthread_mutex_lock(&sb->lock);
        forget(sb, u);
        (void)pthread_mutex_unlock(&sb->lock);
        return r;
    }
    let_go(sb, u, NULL);
    return 0;
}

int sandbox_upload_create(struct sandbox *sb, uint64_t size, const struct hash *hash,
    struct sandbox_upload_state *ret, struct err *e)
{
    if (size > CHANGES_FILE_MAX)
        return err_refuse(e, PROTO_TOO_LARGE, "a file may have at most %" PRIu64 " bytes",
            (uint64_t)CHANGES_FILE_MAX);
    int r = sandbox_enter(sb, true, e);
    if (r < 0)
        return r;
    struct sandbox_upload *u = calloc(1, sizeof(*u));
    if (u)
        u->content = hash_state_new();
    r = u && u->content ? 0 : err_set(e, ENOMEM, "make a stage");
    if (r == 0) {
        text_id(SANDBOX_UPLOAD_PREFIX, u->state.id, sizeof(u->state.id));
        u->state.size = size;
        u->state.has_hash = hash != NULL;
        if (hash)
            u->state.hash = *hash;
        u->state.used_ns = io_wall_ns();
        sandbox_upload_name(&u->state, u->file);
        *ret = u->state;
        r = create(sb, u, e);
    }
    if (r < 0 && u)
        sandbox_upload_free(u);
    sandbox_exit(sb);
    return r;
}

int sandbox_upload_get(
    struct sandbox *sb, const char *id, struct sandbox_upload_state *ret, struct err *e)
{
    int r = sandbox_enter(sb, true, e);
    if (r < 0)
        return r;
    (void)pthread_mutex_lock(&sb->lock);
    const struct sandbox_upload *u = *find(sb, id);
    if (u)
        *ret = u->state;
    (void)pthread_mutex_unlock(&sb->lock);
    sandbox_exit(sb);
    return u ? 0 : refuse_unknown(id, e);
}

/* ---- appending */

/* What was there before the server was started is hashed when it is needed. */
static int know_content(struct sandbox_upload *u, int fd, struct err *e)
{
    if (u->content)
        return 0;
    CLEANUP(freep) uint8_t *piece = malloc(PIECE_BYTES);
    u->content = hash_state_new();
    if (!u->content || !piece)
        return err_set(e, ENOMEM, "read a stage");
    for (uint64_t at = 0; at < u->state.offset;) {
        uint64_t left = u->state.offset - at;
        size_t want = left < PIECE_BYTES ? (size_t)left : PIECE_BYTES;
        ssize_t n = io_pread_full(fd, piece, want, at);
        if (n < 0 || (size_t)n < want) {
            hash_state_free(ptr_take(&u->content));
            return err_set(e, n < 0 ? (int)-n : EIO, "read a stage");
        }
        hash_state_add(u->content, piece, want);
        at += want;
    }
    return 0;
}

/* One piece is there. */
static int note_piece(struct sandbox *sb, struct sandbox_upload *u, size_t len, struct err *e)
{
    (void)pthread_mutex_lock(&sb->lock);
    u->state.offset += len;
    u->state.used_ns = sb->used_ns = io_wall_ns();
    bool deleting = sb->deleting;
    (void)pthread_mutex_unlock(&sb->lock);
    return deleting ? sandbox_refuse_deleted(sb, e) : 0;
}

static int write_piece(struct sandbox *sb, struct sandbox_upload *u, int fd, const void *data,
    size_t len, struct err *e)
{
    uint64_t at = u->state.offset;
    if (len > u->state.size - at)
        return err_refuse(e, PROTO_TOO_LARGE,
            "stage %s was announced with %" PRIu64 " bytes and more came", u->state.id,
            u->state.size);
    int r = at % SPACE_EVERY_BYTES < len ? check_space(sb, len, e) : 0;
    if (r < 0)
        return r;
    r = io_pwrite_all(fd, data, len, at);
    if (r == -ENOSPC || r == -EDQUOT)
        return err_refuse(e, PROTO_NO_SPACE, "the server's disk is full: free space there");
    if (r < 0)
        return err_set(e, -r, "write a stage");
    hash_state_add(u->content, data, len);
    return note_piece(sb, u, len, e);
}

/* All is there: is it what was announced? If not, nothing of it is of use. */
static int check_whole(struct sandbox *sb, struct sandbox_upload *u, int fd, struct err *e)
{
    struct hash hash;
    if (u->state.offset < u->state.size || !u->state.has_hash)
        return 0;
    hash_state_get(u->content, &hash);
    if (hash_equal(&hash, &u->state.hash))
        return 0;
    int r = ftruncate(fd, 0) < 0 ? err_set(e, errno, "empty a stage") : 0;
    hash_state_reset(u->content);
    (void)pthread_mutex_lock(&sb->lock);
    u->state.offset = 0;
    (void)pthread_mutex_unlock(&sb->lock);
    return r < 0 ? r
                 : err_refuse(e, PROTO_HASH_MISMATCH,
                       "what arrived in stage %s does not have the hash it was announced with: it "
                       "is empty again, send it from the beginning",
                       u->state.id);
}

struct appending {
    struct sandbox *sb;
    struct sandbox_upload *u; /* NULL: another seized it, and it may be gone */
    char id[SANDBOX_UPLOAD_ID_BYTES];
    uint64_t holder;
    int fd;
    changes_source *source;
    void *ctx;
};

/* From the client, for whom the stage is not held. -EBUSY when another has it since. */
static ssize_t await_piece(struct appending *a, void *data)
{
    struct sandbox *sb = a->sb;
    (void)pthread_mutex_lock(&sb->lock);
    a->u->waits = true;
    (void)pthread_mutex_unlock(&sb->lock);
    ssize_t n = a->source(a->ctx, data, PIECE_BYTES);
    (void)pthread_mutex_lock(&sb->lock);
    a->u = *find(sb, a->id);
    if (a->u && a->u->holder == a->holder)
        a->u->waits = false;
    else
        a->u = NULL;
    (void)pthread_mutex_unlock(&sb->lock);
    return a->u ? n : -EBUSY;
}

static int append(struct appending *a, struct err *e)
{
    CLEANUP(freep) uint8_t *piece = malloc(PIECE_BYTES);
    if (!piece)
        return err_set(e, ENOMEM, "fill a stage");
    for (;;) {
        ssize_t n = await_piece(a, piece);
        if (!a->u)
            return err_refuse(e, PROTO_BUSY, "another request took stage %s over", a->id);
        if (n < 0)
            return err_set(e, (int)-n, "read the body");
        int r = n > 0 ? write_piece(a->sb, a->u, a->fd, piece, (size_t)n, e)
                      : check_whole(a->sb, a->u, a->fd, e);
        if (r < 0 || n == 0)
            return r;
    }
}

int sandbox_upload_append(struct sandbox *sb, const char *id, uint64_t offset,
    changes_source *source, void *ctx, struct sandbox_upload_state *ret, struct err *e)
{
    CLEANUP(fd_closep) int fd = -1;
    struct sandbox_upload *u = NULL;
    *ret = (struct sandbox_upload_state){.id = ""};
    int r = sandbox_enter(sb, true, e);
    if (r < 0)
        return r;
    r = seize(sb, id, true, &u, e);
    if (r == 0 && u->state.offset != offset)
        r = err_refuse(e, PROTO_OFFSET_MISMATCH,
            "stage %s has %" PRIu64 " bytes, not %" PRIu64 ": go on there", u->state.id,
            u->state.offset, offset);
    if (r == 0)
        r = open_file(sb, u->file, 0, &fd, e);
    sandbox_exit(sb);
    if (r == 0)
        r = know_content(u, fd, e);
    if (r == 0) {
        struct appending a = {
            .sb = sb, .u = u, .holder = u->holder, .fd = fd, .source = source, .ctx = ctx};
        memcpy(a.id, u->state.id, sizeof(a.id));
        r = append(&a, e);
        u = a.u;
    }
    if (u)
        let_go(sb, u, ret);
    return r;
}

/* ---- the end */

void sandbox_upload_unlink(const struct sandbox *sb, const char *name)
{
    if (unlinkat(sb->ws->stage_fd, name, 0) < 0 && errno != ENOENT)
        log_warn("the stage %s of %s could not be removed: %s", name, sb->id, strerror(errno));
}

/* One that this thread has seized. */
static void drop(struct sandbox *sb, struct sandbox_upload *u)
{
    (void)pthread_mutex_lock(&sb->lock);
    forget(sb, u);
    (void)pthread_mutex_unlock(&sb->lock);
    sandbox_upload_free(u);
}

int sandbox_upload_delete(struct sandbox *sb, const char *id, struct err *e)
{
    struct sandbox_upload *u = NULL;
    int r = sandbox_enter(sb, true, e);
    if (r < 0)
        return r;
    r = seize(sb, id, true, &u, e);
    if (r == 0) {
        sandbox_upload_unlink(sb, u->file);
        drop(sb, u);
    }
    sandbox_exit(sb);
    return r;
}

void sandbox_uploads_free(struct sandbox *sb)
{
    while (sb->uploads) {
        struct sandbox_upload *u = sb->uploads;
        sb->uploads = u->next;
        sandbox_upload_free(u);
    }
    sb->upload_count = 0;
}

/* ---- as the content of a change set */

static int content_hash(
    const struct sandbox *sb, struct sandbox_upload *u, struct hash *ret, struct err *e)
{
    CLEANUP(fd_closep) int fd = -1;
    int r = 0;
    if (!u->content) {
        fd = openat(sb->ws->stage_fd, u->file, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
        r = fd < 0 ? err_set(e, errno, "open a stage") : know_content(u, fd, e);
    }
    if (r == 0)
        hash_state_get(u->content, ret);
    return r;
}

int sandbox_upload_claim(struct sandbox *sb, struct stage *s, const struct change_op *op,
    struct sandbox_upload **claims, struct staged **ret, struct err *e)
{
    struct sandbox_upload *u = NULL;
    struct hash hash;
    int r = seize(sb, op->stage, false, &u, e);
    if (r < 0)
        return r;
    if (u->state.offset < u->state.size)
        r = err_refuse(e, PROTO_OFFSET_MISMATCH,
            "stage %s has %" PRIu64 " of its %" PRIu64 " bytes: send the rest first", u->state.id,
            u->state.offset, u->state.size);
    else
        r = content_hash(sb, u, &hash, e);
    if (r == 0 && op->has_hash && !hash_equal(&hash, &op->hash))
        r = err_refuse(e, PROTO_HASH_MISMATCH,
            "the content of stage %s does not have the hash that was given for '%s'", u->state.id,
            op->path);
    if (r == 0)
        r = stage_adopt(s, u->file, op->mode, &hash, ret, e);
    if (r < 0) {
        let_go(sb, u, NULL);
        return r;
    }
    u->slot = (*ret)->slot;
    u->ino = (*ret)->ino;
    u->next_claim = *claims;
    *claims = u;
    return 0;
}

void sandbox_uploads_settle(
    struct sandbox *sb, struct stage *s, struct sandbox_upload *claims, bool applied)
{
    while (claims) {
        struct sandbox_upload *u = claims;
        claims = u->next_claim;
        if (!applied && stage_give_back(s, &u->slot, u->ino, u->file) == 0)
            let_go(sb, u, NULL);
        else
            drop(sb, u);
    }
}
