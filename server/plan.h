/* SPDX-License-Identifier: MIT */
/*
 * What a change set means: its operations, simulated in order on a view that lies over the
 * workspace, and reduced to the steps of their net effect.
 *
 *     plan_new(stage, &plan)
 *     plan_add(plan, op) …          each operation; what does not fit is collected as a conflict
 *     plan_finish(plan, &steps)     the net effect, if there was no conflict
 *
 * The view is a tree of slots (a directory and a name) and entries (what lies in a slot now). It is
 * built as far as operations name it: an entry that no operation names costs nothing, and moving a
 * directory moves one entry, whatever it holds. Entries that an operation touches are looked up on
 * disk, those that are only passed through in the manifest: if that is wrong, placing fails and is
 * undone.
 *
 * Nothing here changes the workspace. EDIT and COPY stage their result when they are added (and
 * again, if a plan is made anew and their basis is another by then).
 *
 * The caller carries the sandbox's identity; while plan_finish's steps are carried out nobody else
 * may change the workspace's manifest.
 */
#ifndef SERVER_PLAN_H
#define SERVER_PLAN_H

#include "server/sandbox.h"
#include "server/stage.h"
#include "shared/changes.h"

#define PLAN_CONFLICTS_MAX 1000

/* An operation that was read; all texts belong to the set. */
struct plan_op {
    enum change_kind kind;
    enum change_base base_kind;
    uint32_t mode;
    bool recursive, has_hash, keep;
    struct hash base, hash;
    const char *path, *to;
    const struct stage_text *text; /* EDIT */
    struct staged *staged;         /* PUT PATCH SYMLINK; EDIT and COPY once they were simulated */
    struct hash basis;             /* EDIT, COPY: content that `staged` was made from */
};

struct plan;
int plan_new(struct stage *stage, struct plan **ret, struct err *e) WARN_UNUSED;
void plan_free(struct plan *p);
void plan_freep(struct plan **p);

/* Simulate. 0 also when the operation conflicts: see plan_conflicts. Refusals: PROTO_EDIT_*,
 * PROTO_FILE_NOT_FOUND for an operation without a base that needs a file, and those of stage.h. */
int plan_add(struct plan *p, struct plan_op *op, struct err *e) WARN_UNUSED;

/* The file that path means after the operations added so far, opened, and its hash. -ENOENT (no
 * message) if there is none. */
int plan_open(struct plan *p, const char *path, int *ret_fd, struct hash *ret_hash,
    struct err *e) WARN_UNUSED;

size_t plan_conflicts(const struct plan *p);
/* Hand the conflicts over (malloc'd) and refuse with the sentence that fits. Returns -EPROTO. */
int plan_refuse(struct plan *p, struct sandbox_conflict **ret, size_t *ret_count, struct err *e);

enum step_kind {
    STEP_TAKE = 1, /* path → slot: it will be placed elsewhere */
    STEP_MOVE,     /* path → to, where nothing is */
    STEP_MKDIR,    /* path */
    STEP_PLACE,    /* slot → path; what was there is displaced into the slot */
    STEP_CHMOD,    /* path */
    STEP_ADOPT,    /* path is a directory that only the disk knew: note it */
    STEP_DROP,     /* path → slot: it goes for good */
    STEP_WITHIN,   /* path came with the directory that an earlier PLACE brought: note it */
    STEP_KIND_END
};

struct step {
    enum step_kind kind;
    char *path, *to;
    struct stage_slot slot;
    uint64_t ino; /* of what the step moves */
    uint32_t mode;
    bool set_mtime; /* PLACE: content is new, so is its time */
    /* What lies at path (PLACE: what is displaced; TAKE MOVE DROP: what is moved), as it was when
     * it was checked. strict: refuse if it is something else by now. */
    bool strict, expected;
    struct tree_stat expect;
    /* What the manifest is told: */
    bool from_take;     /* PLACE: rows were set aside under the slot's name */
    bool remove;        /* PLACE: rows at path go first */
    bool put;           /* record `row`, times as of after the step */
    bool known_content; /* row.hash belongs to the content that is moved */
    struct manifest_entry row;
    /* How far it got: */
    bool done, displaced;
    char kept[32]; /* the displaced version was kept under this name; "" = not */
    uint32_t old_mode;
};

struct steps {
    struct step *items;
    size_t count;
    size_t deeds; /* that are more than a note: all but WITHIN */
    uint32_t created, updated, moved, deleted;
    uint64_t bytes_added;   /* of files that are placed */
    uint64_t bytes_removed; /* of known files that go, as far as that is cheap to know */
    uint64_t entries_added;
};
int plan_finish(struct plan *p, struct steps *ret, struct err *e) WARN_UNUSED;
void steps_release(struct steps *s);

#endif
