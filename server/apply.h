/* SPDX-License-Identifier: MIT */
/*
 * Carrying out the steps of a change set in the workspace, all or none.
 *
 *     apply_encode(steps, &blob)     the intent, written to the store when there are several steps
 *     apply_run(stage, steps)        done, or undone again
 *     apply_edits(steps, &edits)     what the manifest is told
 *     apply_note(ws, edits)          … in memory, after the store has it
 *
 * Until the stage is released everything that was displaced still lies in its slot, so apply_undo
 * can put it back. Each step can be repeated: it is done when its slot no longer holds the inode it
 * is about. After a crash apply_roll_forward finishes what the intent says.
 *
 * The caller carries the sandbox's identity (not for apply_encode, apply_edits, apply_note).
 */
#ifndef SERVER_APPLY_H
#define SERVER_APPLY_H

#include "server/plan.h"
#include "server/store.h"
#include "shared/buf.h"

#define APPLY_BLOB_MAX (512u << 20)

/* -EPROTO with PROTO_BASE_MISMATCH or PROTO_PATH_CONFLICT when a program interfered; *ret_failed is
 * then the step's path (owned by steps). On failure every step was undone. */
int apply_run(
    struct stage *stage, struct steps *steps, const char **ret_failed, struct err *e) WARN_UNUSED;
/* Put everything back, newest first. What cannot go back (a program took the place) is kept in the
 * displaced directory. */
void apply_undo(struct stage *stage, struct steps *steps);

struct apply_edits {
    struct store_edit *items;
    size_t count;
};
int apply_edits(const struct steps *steps, struct apply_edits *ret, struct err *e) WARN_UNUSED;
void apply_edits_release(struct apply_edits *edits);
/* Play the edits on the manifest. -ENOMEM: it must be loaded anew. Takes ws->lock. */
int apply_note(struct workspace *ws, const struct apply_edits *edits) WARN_UNUSED;

int apply_encode(const struct steps *steps, struct buf *ret, struct err *e) WARN_UNUSED;
int apply_roll_forward(
    struct workspace *ws, const void *blob, size_t len, struct err *e) WARN_UNUSED;

#endif
