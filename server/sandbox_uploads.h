/* SPDX-License-Identifier: MIT */
/*
 * Uploads that go on where they were cut off: one file's content, sent in as many pieces as it
 * takes, which a later change set names as the content of a PUT. The API calls them stages.
 *
 *     sandbox_upload_create(sb, size, hash, &state)
 *     sandbox_upload_append(sb, id, offset, source, ctx, &state)    … until offset == size
 *     sandbox_apply(…)       an operation with op.stage == id takes it: gone when the set was
 * applied, there again when it was not
 *
 * The bytes lie in the sandbox's staging directory, which no program can reach, and are hashed
 * while they are written. At most 16 per sandbox, together at most what a workspace may hold; one
 * that got nothing for 24 h is removed. A stop of the server, orderly or not, leaves what came.
 *
 * Thread-safe. One request at a time writes to an upload; another is refused with PROTO_BUSY.
 */
#ifndef SERVER_SANDBOX_UPLOADS_H
#define SERVER_SANDBOX_UPLOADS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "shared/changes.h"
#include "shared/err.h"
#include "shared/hash.h"

#define SANDBOX_UPLOADS_MAX 16
#define SANDBOX_UPLOAD_AGE_NS (UINT64_C(24) * 3600 * 1000000000)
#define SANDBOX_UPLOAD_ID_BYTES 32
#define SANDBOX_UPLOAD_PREFIX "st_"

struct sandbox;
struct sandboxes;
struct sandbox_upload;
struct stage;
struct staged;

struct sandbox_upload_state {
    char id[SANDBOX_UPLOAD_ID_BYTES];
    uint64_t size, offset;
    bool has_hash;
    struct hash hash;
    uint64_t used_ns; /* wall clock, of the last byte */
};

/* hash may be NULL. Refusals: PROTO_BUSY (too many), PROTO_TOO_LARGE, PROTO_NO_SPACE. */
int sandbox_upload_create(struct sandbox *sb, uint64_t size, const struct hash *hash,
    struct sandbox_upload_state *ret, struct err *e) WARN_UNUSED;
/* Every other function refuses an id that is none here with PROTO_STAGE_NOT_FOUND. */
int sandbox_upload_get(struct sandbox *sb, const char *id, struct sandbox_upload_state *ret,
    struct err *e) WARN_UNUSED;
/* Write what source gives behind the first `offset` bytes. Whatever happens, *ret is what the
 * upload is afterwards (id "" if there is none), and bytes that came stay. PROTO_OFFSET_MISMATCH
 * when it has another number of bytes; PROTO_TOO_LARGE for bytes beyond the size;
 * PROTO_HASH_MISMATCH when all are there and are not what was announced: it is empty then. Blocks
 * in source, without counting as a user of the sandbox: one that is deleted meanwhile ends it. */
int sandbox_upload_append(struct sandbox *sb, const char *id, uint64_t offset,
    changes_source *source, void *ctx, struct sandbox_upload_state *ret, struct err *e) WARN_UNUSED;
int sandbox_upload_delete(struct sandbox *sb, const char *id, struct err *e) WARN_UNUSED;
/* Remove those that got nothing since now_ns - SANDBOX_UPLOAD_AGE_NS, also of sandboxes that nobody
 * used since the start. How many. */
unsigned sandbox_uploads_expire(struct sandboxes *all, uint64_t now_ns);

/* ---- for sandbox_apply.c, sandbox_life.c and sandbox.c */

/* Under turn, with the workspace open: find those from before the start. */
int sandbox_uploads_load(struct sandbox *sb, struct err *e) WARN_UNUSED;
/* Is this name in a staging directory one of an upload? */
bool sandbox_upload_is_file(const char *name);

/* Move the upload that op names into a slot, as the content of op, and put it onto *claims. The
 * caller carries the sandbox's identity. Refusals: PROTO_OFFSET_MISMATCH while bytes are missing,
 * PROTO_HASH_MISMATCH, PROTO_BUSY. */
int sandbox_upload_claim(struct sandbox *sb, struct stage *s, const struct change_op *op,
    struct sandbox_upload **claims, struct staged **ret, struct err *e) WARN_UNUSED;
/* The set is done; `applied`: they are gone, else they are put back. With the identity, before
 * stage_release. */
void sandbox_uploads_settle(
    struct sandbox *sb, struct stage *s, struct sandbox_upload *claims, bool applied);
/* The table; their files stay. */
void sandbox_uploads_free(struct sandbox *sb);

#endif
