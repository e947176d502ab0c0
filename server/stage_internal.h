/* SPDX-License-Identifier: MIT */
/*
 * What the files of the stage module share; only stage*.c include this.
 *
 *     stage.c         slots; whole files, edits, symlinks, directories, adopted files
 *     stage_patch.c   files that are made of what the workspace has: deltas and copies
 */
#ifndef SERVER_STAGE_INTERNAL_H
#define SERVER_STAGE_INTERNAL_H

#include "server/stage.h"

#define STAGE_BUFFER_BYTES (64 * 1024) /* of stage.buffer; below malloc's threshold for mmap */

void staged_freep(struct staged **s);
/* Account for `more` bytes that are about to be written. */
int stage_room(struct stage *s, uint64_t more, struct err *e) WARN_UNUSED;
/* A new file in a slot of its own, readable and writable through *ret_fd. */
int stage_new_file(struct stage *s, struct staged **ret, int *ret_fd, struct err *e) WARN_UNUSED;
/* Give the file its mode and remember what it is. A file is always readable by its owner. */
int stage_finish_file(struct staged *staged, int fd, uint32_t mode, struct err *e) WARN_UNUSED;
/* PROTO_HASH_MISMATCH unless it is what was promised. */
int stage_check_hash(
    const struct change_op *op, const struct staged *staged, struct err *e) WARN_UNUSED;
/* A failure of the system: a full disk is a refusal. */
int stage_fail(struct err *e, int code, const char *what);

#endif
