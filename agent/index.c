/* SPDX-License-Identifier: MIT */
/* The index as a whole: its file and its numbers. The format is in agent/index_log.c. */
#include "agent/index.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/index_internal.h"
#include "shared/io.h"
#include "shared/path.h"
#include "shared/text.h"

#include "shared/banned.h"

static const char magic[8] = {'S', 'I', 'L', 'T', 'I', 'D', 'X', 2};

#define RECORD_HEAD_BYTES 12
#define FILE_BYTES_MAX (UINT64_C(2) << 30)
#define REWRITE_RECORD_BYTES (256u * 1024)
#define SEQ_RESERVE 64
#define GARBAGE_MIN 1000 /* entries: below, a rewrite saves nothing */

/* Read the file into an empty manifest. *ret_damaged: something was left out. Returns 0 when at
 * least one whole record was there, -EBADMSG if not. */
static int read_all(struct index *ix, bool *ret_damaged)
{
    CLEANUP(buf_release) struct buf b;
    buf_init(&b, FILE_BYTES_MAX);
    struct manifest *fresh = manifest_new();
    if (!fresh)
        return -ENOMEM;
    manifest_free(ix->manifest);
    ix->manifest = fresh;
    ix->puts = 0;
    index_doubts_end(ix, UINT64_MAX);
    index_contest_end(ix, "", true);
    if (lseek(ix->fd, 0, SEEK_SET) < 0)
        return -errno;
    int r = io_read_rest(ix->fd, &b);
    if (r < 0)
        return r;
    if (b.len < sizeof(magic) || memcmp(b.data, magic, sizeof(magic)) != 0)
        return -EBADMSG;
    /* First only how far it is good and what was acknowledged in the end. */
    struct cursor c;
    cursor_init(&c, b.data + sizeof(magic), b.len - sizeof(magic));
    ix->file_bytes = sizeof(magic);
    while ((r = index_log_read(ix, &c, false)) > 0)
        ix->file_bytes = (uint64_t)(c.p - b.data);
    ix->settled_seq = ix->state.acked_seq;
    cursor_init(&c, b.data + sizeof(magic), (size_t)ix->file_bytes - sizeof(magic));
    while (r >= 0 && c.left)
        r = index_log_read(ix, &c, true);
    if (r < 0)
        return r;
    *ret_damaged = ix->file_bytes != b.len;
    return ix->file_bytes == sizeof(magic) ? -EBADMSG : 0;
}

/* ---- the file */

static int append_record(
    int fd, const struct index *ix, const struct buf *changes, uint64_t *ret_bytes)
{
    CLEANUP(buf_release) struct buf b;
    buf_init(&b, INDEX_LOG_MAX + 4096);
    static const uint8_t head[RECORD_HEAD_BYTES];
    int r = buf_add(&b, head, sizeof(head));
    if (r == 0)
        r = index_log_state(ix, &b);
    if (r == 0 && changes && changes->len)
        r = buf_add(&b, changes->data, changes->len);
    if (r < 0)
        return r;
    /* The head is known only now: written into a small buffer and put in place. */
    CLEANUP(buf_release) struct buf h;
    buf_init(&h, sizeof(head));
    size_t len = b.len - sizeof(head);
    r = buf_add_u32(&h, (uint32_t)len);
    if (r == 0)
        r = buf_add_u64(&h, hash_block64(b.data + sizeof(head), len));
    if (r < 0)
        return r;
    memcpy(b.data, h.data, sizeof(head));
    *ret_bytes = b.len;
    return io_write_all(fd, b.data, b.len);
}

int index_commit(struct index *ix, const struct buf *log, struct err *e)
{
    uint64_t bytes = 0;
    int r = append_record(ix->fd, ix, log, &bytes);
    if (r < 0) {
        /* Half a record would hide every later one. */
        (void)!ftruncate(ix->fd, (off_t)ix->file_bytes);
        return err_set(e, -r, "write '.silt/%s'", INDEX_FILE);
    }
    ix->file_bytes += bytes;
    ix->puts += log ? log->len / 64 : 0;
    if (ix->doubts)
        index_doubts_end(ix, ix->state.acked_seq);
    return 0;
}

static int write_contests(struct buf *log, const struct index *ix)
{
    int r = 0;
    for (const struct index_contest *c = ix->contests; r == 0 && c; c = c->hh.next)
        r = index_log_contest(log, c->path);
    return r;
}

static int write_entries(int fd, const struct index *ix, uint64_t *ret_bytes)
{
    CLEANUP(buf_release) struct buf log;
    size_t count = 0;
    buf_init(&log, INDEX_LOG_MAX);
    CLEANUP(freep) const struct manifest_entry **all = manifest_sorted(ix->manifest, &count);
    if (!all)
        return -ENOMEM;
    int r = io_write_all(fd, magic, sizeof(magic));
    *ret_bytes = sizeof(magic);
    for (size_t i = 0; r == 0 && i <= count; i++) {
        if (i < count)
            r = index_log_put(&log, all[i]);
        else
            r = write_contests(&log, ix);
        if (r == 0 && (i == count || log.len > REWRITE_RECORD_BYTES)) {
            uint64_t bytes = 0;
            r = append_record(fd, ix, &log, &bytes);
            *ret_bytes += bytes;
            buf_reset(&log);
        }
    }
    return r;
}

int index_rewrite(struct index *ix, struct err *e)
{
    static const char temporary[] = INDEX_FILE ".new";
    uint64_t bytes = 0;
    CLEANUP(fd_closep)
    int fd = openat(ix->dir_fd, temporary,
        O_RDWR | O_APPEND | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    int r = fd < 0 ? -errno : write_entries(fd, ix, &bytes);
    if (r == 0 && fdatasync(fd) < 0)
        r = -errno;
    if (r == 0 && renameat(ix->dir_fd, temporary, ix->dir_fd, INDEX_FILE) < 0)
        r = -errno;
    if (r < 0) {
        (void)unlinkat(ix->dir_fd, temporary, 0);
        return err_set(e, -r, "write '.silt/%s'", INDEX_FILE);
    }
    if (ix->fd >= 0)
        (void)close(ix->fd);
    ix->fd = fd_take(&fd);
    ix->file_bytes = bytes;
    ix->puts = manifest_count(ix->manifest);
    return 0;
}

int index_rollback(struct index *ix, struct err *e)
{
    bool damaged = false;
    uint64_t reserved = ix->reserved_seq;
    int r = read_all(ix, &damaged);
    if (r < 0)
        return err_set(e, -r, "read '.silt/%s'", INDEX_FILE);
    /* Numbers are used up, whatever became of their sets. */
    if (reserved > ix->reserved_seq)
        ix->reserved_seq = reserved;
    return 0;
}

int index_tidy(struct index *ix, struct err *e)
{
    if (ix->sigs_saved)
        index_sig_tidy(ix);
    if (ix->puts < 2 * (uint64_t)manifest_count(ix->manifest) + GARBAGE_MIN)
        return 0;
    return index_rewrite(ix, e);
}

void index_new_client(struct index *ix)
{
    char id[32];
    text_id("", id, sizeof(id));
    id[10] = '\0';
    (void)snprintf(ix->state.client, sizeof(ix->state.client), "%s.%s", ix->link_id, id);
    ix->state.acked_seq = 0;
    ix->next_seq = ix->reserved_seq = 1;
}

int index_next_seq(struct index *ix, uint64_t *ret, struct err *e)
{
    if (ix->next_seq >= ix->reserved_seq) {
        ix->reserved_seq = ix->next_seq + SEQ_RESERVE;
        int r = index_commit(ix, NULL, e);
        if (r < 0) {
            ix->reserved_seq = ix->next_seq;
            return r;
        }
    }
    *ret = ix->next_seq++;
    return 0;
}

const struct manifest *index_manifest(const struct index *ix)
{
    return ix->manifest;
}

struct index_state *index_state(struct index *ix)
{
    return &ix->state;
}

static int begin_anew(struct index *ix, struct err *e)
{
    struct manifest *fresh = manifest_new();
    if (!fresh)
        return err_set(e, ENOMEM, "begin the index");
    manifest_free(ix->manifest);
    ix->manifest = fresh;
    memset(&ix->state, 0, sizeof(ix->state));
    index_new_client(ix);
    return index_rewrite(ix, e);
}

static int load(struct index *ix, struct err *e)
{
    bool damaged = false;
    ix->fd = openat(ix->dir_fd, INDEX_FILE, O_RDWR | O_APPEND | O_NOFOLLOW | O_CLOEXEC);
    if (ix->fd < 0)
        return begin_anew(ix, e);
    int r = read_all(ix, &damaged);
    if (r == -ENOMEM)
        return err_set(e, ENOMEM, "read '.silt/%s'", INDEX_FILE);
    if (r < 0)
        return begin_anew(ix, e);
    ix->next_seq = ix->reserved_seq;
    if (ix->doubts || damaged)
        ix->state.epoch[0] = '\0';
    if (!damaged)
        return 0;
    /* The lost tail may have reserved numbers. What is left is true as far as it goes. */
    index_new_client(ix);
    return index_rewrite(ix, e);
}

static int peek(struct index *ix, struct err *e)
{
    bool damaged = false;
    ix->fd = openat(ix->dir_fd, INDEX_FILE, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    ix->manifest = manifest_new();
    int r = !ix->manifest ? -ENOMEM : ix->fd < 0 ? 0 : read_all(ix, &damaged);
    return r == -ENOMEM ? err_set(e, ENOMEM, "read '.silt/%s'", INDEX_FILE) : 0;
}

static int open_by(int (*load_it)(struct index *ix, struct err *e), int dir_fd,
    const char *link_id, const char *sandbox, struct index **ret, struct err *e)
{
    struct index *ix = calloc(1, sizeof(*ix));
    if (!ix)
        return err_set(e, ENOMEM, "open the index");
    ix->dir_fd = dir_fd;
    ix->fd = -1;
    int a = snprintf(ix->link_id, sizeof(ix->link_id), "%s", link_id);
    int b = snprintf(ix->sandbox, sizeof(ix->sandbox), "%s", sandbox);
    int r = 0;
    if (a >= (int)sizeof(ix->link_id) || b >= (int)sizeof(ix->sandbox))
        r = err_set(e, EINVAL, "link '%s'", link_id);
    if (r == 0)
        r = load_it(ix, e);
    if (r < 0) {
        index_close(ix);
        return r;
    }
    *ret = ix;
    return 0;
}

int index_open(
    int dir_fd, const char *link_id, const char *sandbox, struct index **ret, struct err *e)
{
    return open_by(load, dir_fd, link_id, sandbox, ret, e);
}

int index_peek(
    int dir_fd, const char *link_id, const char *sandbox, struct index **ret, struct err *e)
{
    return open_by(peek, dir_fd, link_id, sandbox, ret, e);
}

void index_close(struct index *ix)
{
    if (!ix)
        return;
    if (ix->fd >= 0)
        (void)close(ix->fd);
    index_doubts_end(ix, UINT64_MAX);
    index_contest_end(ix, "", true);
    manifest_free(ix->manifest);
    free(ix);
}
