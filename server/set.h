/* SPDX-License-Identifier: MIT */
/*
 * A change set while it is read: its operations, their texts, their staged content.
 *
 * Content is staged as it arrives. A PATCH needs what it was made from, so as soon as an operation
 * with a basis appears, `basis` is called (it waits until the set's parent was applied) and a draft
 * of the plan is kept. The plan that counts is made when it is the set's turn; see sandbox_apply.
 *
 * The caller carries the sandbox's identity.
 */
#ifndef SERVER_SET_H
#define SERVER_SET_H

#include "server/plan.h"
#include "server/stage.h"

#define SET_TEXT_MAX (UINT64_C(64) << 20) /* bytes of all paths, targets and edits of one set */

struct set {
    struct stage *stage;
    struct plan_op *ops;
    size_t count, cap;
    struct set_chunk *chunks;
    uint64_t text_bytes;
    struct plan *draft;
    size_t drafted; /* how many operations the draft has seen */
    int (*basis)(void *ctx, struct err *e);
    /* The content of an operation that names an upload; NULL: there are none. */
    int (*upload)(void *ctx, const struct change_op *op, struct staged **ret, struct err *e);
    void *ctx;
};

void set_init(
    struct set *s, struct stage *stage, int (*basis)(void *ctx, struct err *e), void *ctx);
void set_release(struct set *s);
/* Read everything. Refusals: those of the feed and of stage.h. */
int set_read(struct set *s, const struct changes_feed *feed, struct err *e) WARN_UNUSED;

#endif
