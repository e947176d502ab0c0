/* SPDX-License-Identifier: MIT */
#include "server/stage.h"
#include "server/stage_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "server/stage_tree.h"
#include "shared/io.h"
#include "shared/num.h"
#include "shared/path.h"
#include "shared/weaken.h"

#include "shared/banned.h"

#define SPACE_EVERY_BYTES (UINT64_C(64) << 20)
#define SLOTS_MAX (4u * CHANGES_OPS_MAX)

void staged_free(struct staged *s)
{
    if (s) {
        free(s->target);
        free(s->name);
    }
    free(s);
}

void staged_freep(struct staged **s)
{
    staged_free(*s);
    *s = NULL;
}

int stage_fail(struct err *e, int code, const char *what)
{
    if (code == ENOSPC || code == EDQUOT)
        return err_refuse(e, PROTO_NO_SPACE, "the server's disk is full: free space there");
    return err_set(e, code, "%s", what);
}

int stage_init(struct stage *s, struct workspace *ws, uint64_t max_bytes, uint64_t min_free_bytes,
    struct err *e)
{
    *s = (struct stage){.ws = ws,
        .set = atomic_fetch_add(&ws->sets, 1),
        .max_bytes = max_bytes,
        .min_free_bytes = min_free_bytes,
        .checked_at = UINT64_MAX,
        .entered_fd = -1};
    s->buffer = malloc(STAGE_BUFFER_BYTES);
    return s->buffer ? 0 : err_set(e, ENOMEM, "stage a change set");
}

static void slot_name(const struct stage *s, unsigned index, char *out, size_t size)
{
    (void)snprintf(out, size, "%llx-%x", (unsigned long long)s->set, index);
}

void stage_release(struct stage *s)
{
    char name[STAGE_SLOT_BYTES];

    for (unsigned i = 0; i < s->count; i++) {
        if (!s->held[i])
            continue;
        slot_name(s, i, name, sizeof name);
        late_hold(s->late, s->ws->stage_fd, name);
        if (unlinkat(s->ws->stage_fd, name, 0) < 0 && errno != ENOENT)
            (void)!tree_remove_at(s->ws->stage_fd, name, NULL);
    }
    stage_tree_release(s);
    free(s->held);
    free(s->buffer);
    hash_state_free(s->hash);
    *s = (struct stage){.entered_fd = -1};
}

int stage_slot(struct stage *s, struct stage_slot *ret, struct err *e)
{
    if (s->count >= SLOTS_MAX)
        return err_refuse(e, PROTO_TOO_LARGE, "the change set is too large: split it");
    if ((s->count & (s->count - 1)) == 0) {
        uint8_t *more = realloc(s->held, s->count ? 2 * (size_t)s->count : 1);
        if (!more)
            return err_set(e, ENOMEM, "stage a change set");
        s->held = more;
    }
    ret->index = s->count++;
    s->held[ret->index] = 0;
    slot_name(s, ret->index, ret->name, sizeof ret->name);
    return 0;
}

void stage_hold(struct stage *s, unsigned index, bool holds)
{
    s->held[index] = holds;
}

/* Account for `more` bytes that are about to be written. */
int stage_room(struct stage *s, uint64_t more, struct err *e)
{
    uint64_t total, available;

    if (!num_add(s->bytes, more, &total) || total > s->max_bytes)
        return err_refuse(e, PROTO_NO_SPACE,
            "the change set would exceed the workspace's limit of %llu bytes",
            (unsigned long long)s->max_bytes);
    if (s->checked_at == UINT64_MAX || total - s->checked_at >= SPACE_EVERY_BYTES) {
        int r = workspace_free_bytes(s->ws, &available, e);
        if (r < 0)
            return r;
        if (available < s->min_free_bytes || available - s->min_free_bytes < more)
            return err_refuse(
                e, PROTO_NO_SPACE, "the server has too little free disk space for this change set");
        s->checked_at = total;
    }
    s->bytes = total;
    return 0;
}

static int new_entry(struct stage *s, enum tree_kind kind, struct staged **ret, struct err *e)
{
    CLEANUP(staged_freep) struct staged *staged = calloc(1, sizeof *staged);

    if (!staged)
        return err_set(e, ENOMEM, "stage a change set");
    int r = stage_slot(s, &staged->slot, e);
    if (r < 0)
        return r;
    staged->kind = kind;
    *ret = ptr_take(&staged);
    return 0;
}

/* A new file in a slot of its own, readable and writable through *ret_fd. */
int stage_new_file(struct stage *s, struct staged **ret, int *ret_fd, struct err *e)
{
    int r = new_entry(s, TREE_FILE, ret, e);

    if (r < 0)
        return r;
    *ret_fd = openat(s->ws->stage_fd, (*ret)->slot.name,
        O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (*ret_fd < 0)
        return stage_fail(e, errno, "make a staging file");
    stage_hold(s, (*ret)->slot.index, true);
    return 0;
}

/* The same for what shall lie at `path`: with its final name, if its directory is new as well. */
static int new_file_at(struct stage *s, const char *path, uint32_t mode, struct staged **ret,
    int *ret_fd, struct err *e)
{
    CLEANUP(staged_freep) struct staged *staged = NULL;
    struct stage_dir *dir = NULL;
    int dir_fd, r = stage_tree_at(s, path, &dir, &dir_fd, e);

    if (r < 0)
        return r;
    if (!dir)
        return stage_new_file(s, ret, ret_fd, e);
    staged = calloc(1, sizeof *staged);
    if (!staged || !(staged->name = strdup(path_base(path))))
        return err_set(e, ENOMEM, "stage a change set");
    *ret_fd = openat(dir_fd, staged->name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
        ((mode ? mode : 0644) & 0777) | 0600);
    if (*ret_fd < 0 && (errno == EEXIST || errno == ENAMETOOLONG))
        return stage_new_file(s, ret, ret_fd, e); /* an earlier operation of the set has the name */
    if (*ret_fd < 0)
        return stage_fail(e, errno, "make a staging file");
    staged->kind = TREE_FILE;
    staged->dir = dir;
    *ret = ptr_take(&staged);
    return 0;
}

/* Give the file its mode and remember what it is. A file is always readable by its owner. */
int stage_finish_file(struct staged *staged, int fd, uint32_t mode, struct err *e)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return err_set(e, errno, "stat a staging file");
    staged->mode = ((mode ? mode : 0644) & 0777) | 0400;
    if ((st.st_mode & 07777) != staged->mode &&
        (fchmod(fd, staged->mode) < 0 || (staged->dir && fstat(fd, &st) < 0)))
        return err_set(e, errno, "change the mode of a staging file");
    tree_stat_of(&st, &staged->stat);
    staged->size = (uint64_t)st.st_size;
    staged->ino = st.st_ino;
    return 0;
}

int stage_check_hash(const struct change_op *op, const struct staged *staged, struct err *e)
{
    if (op->has_hash && !hash_equal(&op->hash, &staged->hash) && !WEAK("hash"))
        return err_refuse(e, PROTO_HASH_MISMATCH,
            "the content that arrived for '%s' does not have the hash it was sent with", op->path);
    return 0;
}

/* Copy the feed's content to fd and hash it. A file that fits the buffer needs no hash state. */
static int pump(struct stage *s, const struct changes_feed *feed, int fd, struct hash *ret,
    uint64_t *ret_size, struct err *e)
{
    uint64_t total = 0;
    bool streaming = false;

    for (;;) {
        size_t have = 0;
        ssize_t n = 0;
        while (have < STAGE_BUFFER_BYTES &&
               (n = feed->read(feed->ctx, s->buffer + have, STAGE_BUFFER_BYTES - have, e)) > 0)
            have += (size_t)n;
        if (n < 0)
            return (int)n;
        int r = stage_room(s, have, e);
        if (r == 0 && have && (r = io_write_all(fd, s->buffer, have)) < 0)
            r = stage_fail(e, -r, "write a staging file");
        if (r < 0)
            return r;
        total += have;
        if (!streaming && have < STAGE_BUFFER_BYTES) {
            hash_buf(s->buffer, have, ret);
            break;
        }
        if (!s->hash && !(s->hash = hash_state_new()))
            return err_set(e, ENOMEM, "stage a change set");
        if (!streaming)
            hash_state_reset(s->hash);
        streaming = true;
        hash_state_add(s->hash, s->buffer, have);
        if (have < STAGE_BUFFER_BYTES) {
            hash_state_get(s->hash, ret);
            break;
        }
    }
    *ret_size = total;
    return 0;
}

int stage_put(struct stage *s, const struct change_op *op, const struct changes_feed *feed,
    struct staged **ret, struct err *e)
{
    CLEANUP(staged_freep) struct staged *staged = NULL;
    CLEANUP(fd_closep) int fd = -1;
    uint64_t size = 0;
    int r = new_file_at(s, op->path, op->mode, &staged, &fd, e);

    if (r == 0)
        r = pump(s, feed, fd, &staged->hash, &size, e);
    if (r < 0)
        return r;
    if (op->content_len != CHANGE_LEN_UNKNOWN && size != op->content_len)
        return err_refuse(
            e, PROTO_BAD_CHANGES, "the content of '%s' is shorter than it said", op->path);
    r = stage_check_hash(op, staged, e);
    if (r == 0)
        r = stage_finish_file(staged, fd, op->mode, e);
    if (r < 0)
        return r;
    *ret = ptr_take(&staged);
    return 0;
}

/* The place of the one occurrence of old_text. */
static int find_once(
    const struct stage_text *t, const uint8_t *data, size_t len, size_t *ret_at, struct err *e)
{
    const uint8_t *first = memmem(data, len, t->old_text, t->old_len);

    if (!first)
        return err_refuse(e, PROTO_EDIT_NO_MATCH,
            "the text to replace does not occur in '%s': read the file again", t->path);
    size_t at = (size_t)(first - data);
    if (memmem(first + 1, len - at - 1, t->old_text, t->old_len))
        return err_refuse(e, PROTO_EDIT_AMBIGUOUS,
            "the text to replace occurs more than once in '%s': include more of its surroundings",
            t->path);
    *ret_at = at;
    return 0;
}

static int write_edit(
    int fd, const struct stage_text *t, const uint8_t *data, size_t len, size_t at, struct err *e)
{
    size_t rest = at + t->old_len;
    int r = io_write_all(fd, data, at);

    if (r == 0)
        r = io_write_all(fd, t->new_text, t->new_len);
    if (r == 0)
        r = io_write_all(fd, data + rest, len - rest);
    return r < 0 ? stage_fail(e, -r, "write a staging file") : 0;
}

int stage_edit(struct stage *s, const struct stage_text *text, int basis_fd, struct staged **ret,
    struct err *e)
{
    CLEANUP(staged_freep) struct staged *staged = NULL;
    CLEANUP(freep) uint8_t *data = NULL;
    CLEANUP(fd_closep) int fd = -1;
    struct stat st;
    size_t at = 0;

    if (text->old_len == 0)
        return err_refuse(
            e, PROTO_INVALID_VALUE, "the text to replace in '%s' is empty", text->path);
    if (fstat(basis_fd, &st) < 0)
        return err_set(e, errno, "stat '%s'", text->path);
    if ((uint64_t)st.st_size > STAGE_EDIT_FILE_MAX)
        return err_refuse(
            e, PROTO_TOO_LARGE, "'%s' is too large to edit: put it whole", text->path);
    data = malloc((size_t)st.st_size + 1);
    if (!data)
        return err_set(e, ENOMEM, "edit '%s'", text->path);
    ssize_t len = io_pread_full(basis_fd, data, (size_t)st.st_size, 0);
    if (len < 0)
        return err_set(e, (int)-len, "read '%s'", text->path);
    int r = find_once(text, data, (size_t)len, &at, e);
    if (r == 0)
        r = stage_room(s, (uint64_t)len + text->new_len, e);
    if (r == 0)
        r = stage_new_file(s, &staged, &fd, e);
    if (r == 0)
        r = write_edit(fd, text, data, (size_t)len, at, e);
    if (r == 0)
        r = hash_fd(fd, &staged->hash, NULL, e);
    if (r == 0)
        r = stage_finish_file(staged, fd, 0, e);
    if (r < 0)
        return r;
    *ret = ptr_take(&staged);
    return 0;
}

/* Size, inode and mode of what is no regular file. */
static int finish_other(struct stage *s, struct staged *staged, struct err *e)
{
    struct stat st;

    if (fstatat(s->ws->stage_fd, staged->slot.name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return err_set(e, errno, "stat a staged entry");
    staged->ino = st.st_ino;
    staged->mode = st.st_mode & 0777;
    return 0;
}

int stage_symlink(struct stage *s, const char *target, struct staged **ret, struct err *e)
{
    CLEANUP(staged_freep) struct staged *staged = NULL;
    int r = new_entry(s, TREE_SYMLINK, &staged, e);

    if (r < 0)
        return r;
    if (symlinkat(target, s->ws->stage_fd, staged->slot.name) < 0)
        return stage_fail(e, errno, "make a staged symlink");
    stage_hold(s, staged->slot.index, true);
    staged->size = strlen(target);
    hash_buf(target, (size_t)staged->size, &staged->hash);
    staged->target = strdup(target);
    if (!staged->target)
        return err_set(e, ENOMEM, "stage a symlink");
    r = finish_other(s, staged, e);
    if (r < 0)
        return r;
    *ret = ptr_take(&staged);
    return 0;
}

int stage_dir(struct stage *s, uint32_t mode, struct staged **ret, struct err *e)
{
    CLEANUP(staged_freep) struct staged *staged = NULL;
    CLEANUP(fd_closep) int fd = -1;
    int r = new_entry(s, TREE_DIR, &staged, e);

    if (r < 0)
        return r;
    if (mkdirat(s->ws->stage_fd, staged->slot.name, 0700) < 0)
        return stage_fail(e, errno, "make a staged directory");
    stage_hold(s, staged->slot.index, true);
    fd =
        openat(s->ws->stage_fd, staged->slot.name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fchmod(fd, (mode & 0777) | 0700) < 0)
        return err_set(e, errno, "give a staged directory its mode");
    r = finish_other(s, staged, e);
    if (r < 0)
        return r;
    *ret = ptr_take(&staged);
    return 0;
}

int stage_adopt(struct stage *s, const char *name, uint32_t mode, const struct hash *hash,
    struct staged **ret, struct err *e)
{
    CLEANUP(staged_freep) struct staged *staged = NULL;
    CLEANUP(fd_closep) int fd = -1;
    int dir = s->ws->stage_fd, r = new_entry(s, TREE_FILE, &staged, e);

    if (r < 0)
        return r;
    fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return err_set(e, errno, "open a staging file");
    r = stage_finish_file(staged, fd, mode, e);
    if (r == 0 && renameat(dir, name, dir, staged->slot.name) < 0)
        r = err_set(e, errno, "take over a staging file");
    if (r < 0)
        return r;
    stage_hold(s, staged->slot.index, true);
    staged->hash = *hash;
    *ret = ptr_take(&staged);
    return 0;
}

int stage_give_back(struct stage *s, const struct stage_slot *slot, uint64_t ino, const char *name)
{
    struct stat st;
    int dir = s->ws->stage_fd;

    if (fstatat(dir, slot->name, &st, AT_SYMLINK_NOFOLLOW) < 0 || st.st_ino != ino)
        return -ESTALE;
    if (renameat(dir, slot->name, dir, name) < 0)
        return -errno;
    stage_hold(s, slot->index, false);
    return 0;
}

int stage_open(struct stage *s, const struct staged *staged, int *ret_fd, struct err *e)
{
    int fd = staged->dir ? stage_tree_open(s, staged) : -ENOENT;

    if (!staged->dir) {
        fd = openat(s->ws->stage_fd, staged->slot.name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
        fd = fd < 0 ? -errno : fd;
    }
    if (fd < 0)
        return err_set(e, -fd, "open a staged file");
    *ret_fd = fd;
    return 0;
}
