/* SPDX-License-Identifier: MIT */
/*
 * What sandbox_uploads.c and sandbox_uploads_old.c share. All that is to be known of a stage after a
 * stop or a crash stands in its file: its name says id, size and announced hash, its length how far
 * it is, its time when it was used. So nothing about it can be lost without the other.
 */
#ifndef SERVER_SANDBOX_UPLOADS_INTERNAL_H
#define SERVER_SANDBOX_UPLOADS_INTERNAL_H

#include "server/sandbox_internal.h"
#include "server/stage.h"

#define SANDBOX_UPLOAD_FILE_BYTES 128

/*
 * Under sb->lock. While it is busy, its file and its hash belong to the thread that made it so: but
 * not while that one waits for its client, who may have vanished without a word and be back over
 * another connection. Then another may seize it, and `holder` is not the old one's number any more.
 */
struct sandbox_upload {
    struct sandbox_upload *next, *next_claim;
    struct sandbox_upload_state state;
    struct hash_state *content; /* of the first state.offset bytes; NULL: they were not read since
                                   the start */
    char file[SANDBOX_UPLOAD_FILE_BYTES];
    bool busy, waits;
    uint64_t holder;
    struct stage_slot slot; /* claimed by a set: where it lies */
    uint64_t ino;
};

void sandbox_upload_free(struct sandbox_upload *u);
/* Into the table, if number and sum allow: PROTO_BUSY, PROTO_NO_SPACE. */
int sandbox_upload_enter(struct sandbox *sb, struct sandbox_upload *u, struct err *e) WARN_UNUSED;
void sandbox_upload_unlink(const struct sandbox *sb, const char *name);
/* The name of its file, "st_….SIZE.HASH" (without a hash nothing behind the second dot). */
void sandbox_upload_name(
    const struct sandbox_upload_state *state, char ret[SANDBOX_UPLOAD_FILE_BYTES]);
/* id, size and hash from exactly such a name. */
bool sandbox_upload_parse(const char *name, struct sandbox_upload_state *ret);

#endif
