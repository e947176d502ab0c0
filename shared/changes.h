/* SPDX-License-Identifier: MIT */
/*
 * The wire format of change sets, `application/vnd.silt.changes.v1`: both ends of it. The layout is
 * documented byte by byte in shared/PROTOCOL.md and fixed by the golden files in tests/golden/.
 *
 * A change set is a list of operations that are simulated in order, reduced to their net effect and
 * applied whole or not at all. On the wire: a magic, one BEGIN frame, for each operation one OP
 * frame followed by DATA frames with its content, one END frame with the count of operations and
 * the XXH3-128 of every byte before it. All integers are big-endian. A whole body may be one zstd
 * frame (Content-Encoding: zstd); that is the transport's business, not this module's.
 *
 * No I/O here: the writer appends to a buffer, the reader is fed by a callback. Nothing that
 * arrives is trusted: every length has a maximum, every path is checked, bytes after END are
 * refused.
 */
#ifndef SHARED_CHANGES_H
#define SHARED_CHANGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/buf.h"
#include "shared/err.h"
#include "shared/hash.h"
#include "shared/path.h"

#define CHANGES_CLIENT_MAX 96          /* bytes of a client's name */
#define CHANGES_OPS_MAX 200000         /* operations in one set */
#define CHANGES_STAGE_MAX 63           /* bytes of a stage's id */
#define CHANGES_DATA_MAX (256 * 1024)  /* bytes in one DATA frame */
#define CHANGES_EDIT_MAX (1024 * 1024) /* bytes of `old` and of `new` in an EDIT */
#define CHANGES_FILE_MAX (UINT64_C(16) << 30)
#define CHANGES_NO_GENERATION UINT64_MAX

enum change_kind {
    CHANGE_PUT = 1, /* the whole content follows */
    CHANGE_PATCH,   /* a librsync delta against `base` follows */
    CHANGE_EDIT,    /* replace the one occurrence of `old` by `new` */
    CHANGE_MOVE,    /* path → to, a file or a directory with all it holds */
    CHANGE_COPY,    /* the file at path also at `to`; its content must have `hash` */
    CHANGE_MKDIR,   /* existing directory: only its mode changes */
    CHANGE_SYMLINK, /* path becomes a symlink to `to` */
    CHANGE_CHMOD,
    CHANGE_DELETE, /* a file, symlink or empty directory; `recursive`: whatever it holds */
    CHANGE_KIND_END
};

/* What the sender believes is at `path` (of COPY: at `to`) before this operation. The server
 * refuses the set with base_mismatch where it is otherwise. For a file or symlink the hash; a
 * directory is BASE_DIR. */
enum change_base {
    CHANGE_BASE_ANY,
    CHANGE_BASE_ABSENT,
    CHANGE_BASE_HASH,
    CHANGE_BASE_DIR,
    CHANGE_BASE_END
};

struct change_op {
    enum change_kind kind;
    const char *path; /* path_check'd, NUL-terminated */
    const char *to;   /* MOVE, COPY: path_check'd; SYMLINK: target, any bytes but NUL; else NULL */
    enum change_base base_kind;
    struct hash base;
    uint32_t mode; /* PUT PATCH MKDIR CHMOD: permission bits 0777; PUT, PATCH, MKDIR: 0 = keep what
                      is there, else 0644 / 0755 */
    uint64_t size; /* PUT PATCH COPY: bytes of the resulting file */
    struct hash hash; /* PUT PATCH COPY: of the resulting file; has_hash says whether it is set */
    bool has_hash;    /* always true on the framed wire; JSON and uploads may leave it out */
    bool recursive;   /* DELETE */
    bool open;        /* PATCH: hash and length are not known yet. No hash; content_len is
                         CHANGE_LEN_UNKNOWN; the last HASH_BYTES of the content are the result's hash */
    bool keep; /* PUT PATCH SYMLINK DELETE: what was there is kept: the sender never had it. Base kind
                  HASH only */
    uint64_t content_len; /* bytes that follow: PUT: size, 0 with a stage; PATCH: of the delta; else 0.
                             CHANGE_LEN_UNKNOWN for a PUT whose source ends by itself (uploads) */
    const uint8_t *old_text, *new_text; /* EDIT */
    size_t old_len, new_len;
    const char *stage; /* PUT: the upload that is its content; else NULL */
};
#define CHANGE_LEN_UNKNOWN UINT64_MAX

struct changes_begin {
    char client[CHANGES_CLIENT_MAX + 1]; /* "" = none: not ordered, not idempotent */
    uint64_t seq;           /* ≥ 1 with a client; strictly increasing per client, never reused */
    uint64_t parent;        /* the sender's last set that this one builds on: normally seq - 1 */
    uint64_t if_generation; /* CHANGES_NO_GENERATION = no condition */
    char epoch[40];         /* "" = no condition */
};

/* ---- writing: append frames to b. -ENOBUFS when b is full (b unchanged), -EINVAL for values that
 * the format cannot hold. The caller flushes b to the wire and calls buf_reset as it likes. A frame
 * needs 16 KiB of room at most; DATA its content and 5 bytes per 256 KiB; an EDIT, whose texts are
 * written with it, 2 MiB and 50 bytes more. */
struct changes_writer;                           /* holds the running hash and the count */
struct changes_writer *changes_writer_new(void); /* NULL when out of memory */
void changes_writer_free(struct changes_writer *w);
int changes_write_begin(
    struct changes_writer *w, const struct changes_begin *begin, struct buf *b) WARN_UNUSED;
int changes_write_op(
    struct changes_writer *w, const struct change_op *op, struct buf *b) WARN_UNUSED;
/* Content of the latest op; split into DATA frames. The pieces must add up to op.content_len. */
int changes_write_data(
    struct changes_writer *w, const void *data, size_t len, struct buf *b) WARN_UNUSED;
int changes_write_end(struct changes_writer *w, struct buf *b) WARN_UNUSED;

/* ---- reading */

/* Fill data with up to len bytes; 0 at the end of the body, -errno on failure. */
typedef ssize_t changes_source(void *ctx, void *data, size_t len);

struct changes_reader;
struct changes_reader *changes_reader_new(changes_source *source, void *ctx);
void changes_reader_free(struct changes_reader *r);
/* First call. A malformed body is refused with PROTO_BAD_CHANGES, a path that fails path_check with
 * PROTO_INVALID_PATH, a file or a set above the limits with PROTO_TOO_LARGE; the message says what
 * and at which byte. After a failure every further call gives the same one. */
int changes_read_begin(
    struct changes_reader *r, struct changes_begin *ret, struct err *e) WARN_UNUSED;
/* The next operation: 1 with *ret filled (valid until the next changes_read_op), 0 after a valid
 * END and end of body, <0. Unread content of the previous operation is skipped (and still hashed).
 */
int changes_read_op(struct changes_reader *r, struct change_op *ret, struct err *e) WARN_UNUSED;
/* Content of the current operation: bytes read, 0 when all was read, <0. */
ssize_t changes_read_data(
    struct changes_reader *r, void *data, size_t len, struct err *e) WARN_UNUSED;
/* After changes_read_op returned 0: the hash of the whole body, which identifies a repeat. */
void changes_reader_digest(const struct changes_reader *r, struct hash *ret);

/*
 * Where operations come from, for the one who applies them: the framed reader above, a JSON body, a
 * multipart upload all look like this. Same contracts as changes_read_op and changes_read_data.
 */
struct changes_feed {
    int (*next)(void *ctx, struct change_op *ret, struct err *e);
    ssize_t (*read)(void *ctx, void *data, size_t len, struct err *e);
    /* After next returned 0: what identifies a repeat of this very set. NULL: a set without a
     * client. */
    void (*digest)(void *ctx, struct hash *ret);
    void *ctx;
};
/* The feed that a reader is. */
struct changes_feed changes_reader_feed(struct changes_reader *r);

const char *change_kind_name(enum change_kind kind); /* "put", "patch", … as in JSON */

#endif
