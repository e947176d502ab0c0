/* SPDX-License-Identifier: MIT */
/*
 * Content on its way into a workspace. What a change set brings is written to files in the staging
 * directory, which no program can reach, hashed while it is written and compared with what was
 * promised, before anything in the workspace is touched.
 *
 * A slot is a name in the staging directory. It holds something new, or what was taken or displaced
 * from the workspace. stage_release removes whatever slots still hold: after a success displaced
 * versions, after a refusal everything.
 *
 * The caller carries the sandbox's identity. One stage belongs to one thread.
 */
#ifndef SERVER_STAGE_H
#define SERVER_STAGE_H

#include "server/late.h"
#include "server/workspace.h"
#include "shared/changes.h"

#define STAGE_SLOT_BYTES 40
#define STAGE_EDIT_FILE_MAX (UINT64_C(16) << 20)

struct stage_slot {
    char name[STAGE_SLOT_BYTES];
    unsigned index;
};

/* Something that lies in a slot, ready to be placed. */
struct staged {
    struct stage_slot slot;
    enum tree_kind kind;
    uint32_t mode;
    uint64_t size;
    struct hash hash;
    char *target; /* symlinks */
    uint64_t ino;
    /* A file in a directory that is new as well (stage_tree.h) lies there and not in a slot: */
    struct stage_dir *dir;
    char *name;
    struct tree_stat stat;
    bool claimed;
    bool keep_time; /* it has the time that it shall have */
};
void staged_free(struct staged *s);

struct stage {
    struct workspace *ws;
    uint64_t set;
    unsigned count;
    uint8_t *held; /* per slot: does it (perhaps) hold something? */
    uint64_t bytes, max_bytes, min_free_bytes;
    uint64_t checked_at; /* value of bytes when free space was last asked for */
    uint8_t *buffer;
    struct hash_state *hash;
    struct late *late; /* borrowed; NULL: what is removed is freed at once */
    /* A program runs, or ran since this stage was begun: what it made must not look newer than what
     * is placed after it, so new directories are not placed as they were staged, times and all. */
    bool one_by_one;
    /* stage_tree.c */
    struct stage_dir *dirs, *entered;
    int entered_fd;
    unsigned dir_count;
    int64_t placed_ns; /* before the first step of all: apply.c */
    uint64_t dir_bytes, secret;
};

int stage_init(struct stage *s, struct workspace *ws, uint64_t max_bytes, uint64_t min_free_bytes,
    struct err *e) WARN_UNUSED;
/* Remove what the slots hold, and release the memory. */
void stage_release(struct stage *s);
/* A new, empty slot. */
int stage_slot(struct stage *s, struct stage_slot *ret, struct err *e) WARN_UNUSED;
void stage_hold(struct stage *s, unsigned index, bool holds);

/* Each makes one staged entry. Refusals: PROTO_HASH_MISMATCH, PROTO_NO_SPACE, PROTO_EDIT_*,
 * PROTO_TOO_LARGE, and what the feed or the delta's reader refuses. */
int stage_put(struct stage *s, const struct change_op *op, const struct changes_feed *feed,
    struct staged **ret, struct err *e) WARN_UNUSED;
int stage_patch(struct stage *s, const struct change_op *op, int basis_fd,
    const struct changes_feed *feed, struct staged **ret, struct err *e) WARN_UNUSED;
struct stage_text {
    const char *path; /* for messages */
    const uint8_t *old_text, *new_text;
    size_t old_len, new_len;
};
int stage_edit(struct stage *s, const struct stage_text *text, int basis_fd, struct staged **ret,
    struct err *e) WARN_UNUSED;
int stage_copy(struct stage *s, const char *path, int source_fd, struct staged **ret,
    struct err *e) WARN_UNUSED;
int stage_symlink(
    struct stage *s, const char *target, struct staged **ret, struct err *e) WARN_UNUSED;
int stage_dir(struct stage *s, uint32_t mode, struct staged **ret, struct err *e) WARN_UNUSED;
/* Take over a finished file that lies in the staging directory under a name of its own, with this
 * content. After a failure it is there still. */
int stage_adopt(struct stage *s, const char *name, uint32_t mode, const struct hash *hash,
    struct staged **ret, struct err *e) WARN_UNUSED;
/* Undo that, where the slot still holds this inode; -ESTALE where it does not. */
int stage_give_back(
    struct stage *s, const struct stage_slot *slot, uint64_t ino, const char *name) WARN_UNUSED;
/* Open what was staged, for reading. */
int stage_open(
    struct stage *s, const struct staged *staged, int *ret_fd, struct err *e) WARN_UNUSED;

#endif
