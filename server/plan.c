/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <string.h>

#include "server/plan_internal.h"

#include "shared/path.h"

#include "shared/banned.h"

/* Is what lies in the slot what the sender believes? PLAN_FOUND or PLAN_CONFLICT. */
static int check_base(struct plan *p, const struct plan_op *op, const char *path,
    struct plan_slot *slot, struct err *e)
{
    struct plan_entry *there = slot ? slot->now : NULL;
    bool fits = true;

    if (op->base_kind == CHANGE_BASE_ANY)
        return PLAN_FOUND;
    if (slot && slot->now == slot->orig)
        slot->strict = true;
    if (there && plan_entry_stat(p, there, NULL) == 1)
        there = NULL;
    if (op->base_kind == CHANGE_BASE_ABSENT) {
        fits = !there;
    } else if (op->base_kind == CHANGE_BASE_DIR) {
        fits = there && there->kind == TREE_DIR;
    } else if (!there || there->kind == TREE_DIR || there->kind == TREE_OTHER) {
        fits = false;
    } else {
        int r = plan_entry_hash(p, there, e);
        if (r < 0)
            return r;
        fits = hash_equal(&there->hash, &op->base);
    }
    return fits ? PLAN_FOUND : plan_add_conflict(p, path, there, true, e);
}

/* The slot of an operation that needs something at `path`. PLAN_ABSENT is answered here. */
static int find_existing(struct plan *p, const struct plan_op *op, const char *path, bool check,
    struct plan_slot **ret, struct err *e)
{
    *ret = NULL;
    int r = plan_find(p, path, false, ret, e);

    if (r < 0)
        return r;
    if (check && (r = check_base(p, op, path, *ret, e)) != PLAN_FOUND)
        return r;
    if (*ret && (*ret)->now)
        return PLAN_FOUND;
    if (check && op->base_kind != CHANGE_BASE_ANY)
        return plan_add_conflict(p, path, NULL, true, e);
    return err_refuse(
        e, PROTO_FILE_NOT_FOUND, "there is no '%s' to %s", path, change_kind_name(op->kind));
}

/* Let the staged content lie in the slot. */
static int put_leaf(struct plan *p, const char *path, struct plan_slot *slot, struct staged *staged,
    uint32_t mode, struct err *e)
{
    struct plan_entry *old = slot->now;

    if (old && old->kind == TREE_DIR)
        return plan_add_conflict(p, path, old, false, e);
    struct plan_entry *entry = plan_entry_new(p, staged->kind);
    if (!entry)
        return err_set(e, ENOMEM, "plan a change set");
    entry->staged = staged;
    if (staged->kind == TREE_FILE) {
        bool keep = !mode && old && old->kind == TREE_FILE;
        uint32_t wanted =
            keep ? (old->origin && !old->new_mode ? old->disk.mode : old->mode) : mode;
        entry->mode = ((wanted ? wanted : 0644) & 0777) | 0400;
    }
    if (old)
        old->at = NULL;
    entry->at = slot;
    slot->now = entry;
    return PLAN_FOUND;
}

static int add_put(struct plan *p, struct plan_op *op, struct err *e)
{
    struct plan_slot *slot = NULL;
    int r = plan_find(p, op->path, true, &slot, e);

    if (r == PLAN_FOUND)
        r = check_base(p, op, op->path, slot, e);
    if (r == PLAN_FOUND)
        r = put_leaf(p, op->path, slot, op->staged, op->mode, e);
    return r;
}

static int open_entry(struct plan *p, struct plan_entry *entry, int *ret_fd, struct err *e)
{
    if (entry->kind != TREE_FILE)
        return -ENOENT;
    if (entry->staged)
        return stage_open(p->stage, entry->staged, ret_fd, e);
    return workspace_open_file(p->ws, entry->origin, ret_fd, NULL, e);
}

/* Without the content that its delta was made for there is nothing to place. */
static int add_patch(struct plan *p, struct plan_op *op, struct err *e)
{
    struct plan_slot *slot;
    int r = find_existing(p, op, op->path, true, &slot, e);

    if (r != PLAN_FOUND)
        return r;
    if (slot->now->kind != TREE_FILE || !op->staged)
        return plan_add_conflict(p, op->path, slot->now, true, e);
    return put_leaf(p, op->path, slot, op->staged, op->mode, e);
}

/* Stage the result of an EDIT or COPY, unless it was staged from this very content already. */
static int stage_result(
    struct plan *p, struct plan_op *op, struct plan_entry *source, struct err *e)
{
    CLEANUP(fd_closep) int fd = -1;
    struct staged *staged = NULL;
    int r = plan_entry_hash(p, source, e);

    if (r < 0)
        return r;
    if (op->staged && hash_equal(&op->basis, &source->hash))
        return 0;
    r = open_entry(p, source, &fd, e);
    if (r == 0)
        r = op->kind == CHANGE_EDIT ? stage_edit(p->stage, op->text, fd, &staged, e)
                                    : stage_copy(p->stage, op->path, fd, &staged, e);
    if (r < 0)
        return r;
    staged_free(op->staged);
    op->staged = staged;
    op->basis = source->hash;
    return 0;
}

static int add_edit(struct plan *p, struct plan_op *op, struct err *e)
{
    struct plan_slot *slot;
    int r = find_existing(p, op, op->path, true, &slot, e);

    if (r != PLAN_FOUND)
        return r;
    if (slot->now->kind != TREE_FILE)
        return plan_add_conflict(p, op->path, slot->now, false, e);
    r = stage_result(p, op, slot->now, e);
    return r < 0 ? r : put_leaf(p, op->path, slot, op->staged, 0, e);
}

static int add_copy(struct plan *p, struct plan_op *op, struct err *e)
{
    struct plan_slot *source, *slot = NULL;
    int r = find_existing(p, op, op->path, false, &source, e);

    if (r != PLAN_FOUND)
        return r;
    if (source->now->kind != TREE_FILE)
        return plan_add_conflict(p, op->path, source->now, false, e);
    struct plan_entry *from = source->now;
    if ((r = plan_entry_hash(p, from, e)) < 0)
        return r;
    /* A source with other content than promised is the sender's wrong belief about it. */
    if (op->has_hash && !hash_equal(&from->hash, &op->hash))
        return plan_add_conflict(p, op->path, from, true, e);
    r = stage_result(p, op, from, e);
    if (r == 0)
        r = plan_find(p, op->to, true, &slot, e);
    if (r == PLAN_FOUND)
        r = check_base(p, op, op->to, slot, e);
    uint32_t mode = from->staged || from->new_mode ? from->mode : from->disk.mode;
    return r == PLAN_FOUND ? put_leaf(p, op->to, slot, op->staged, mode, e) : r;
}

/* Would `entry` come to lie beneath itself in `slot`? */
static bool beneath(const struct plan_entry *entry, const struct plan_slot *slot)
{
    for (; slot; slot = slot->parent->at) {
        if (slot->parent == entry)
            return true;
    }
    return false;
}

static int add_move(struct plan *p, struct plan_op *op, struct err *e)
{
    struct plan_slot *from, *to = NULL;
    int r = find_existing(p, op, op->path, true, &from, e);

    if (r != PLAN_FOUND)
        return r;
    struct plan_entry *entry = from->now;
    r = plan_entry_stat(p, entry, e);
    if (r < 0)
        return r;
    if (r > 0 || entry->kind == TREE_OTHER)
        return plan_add_conflict(p, op->path, NULL, true, e);
    if (path_beneath(op->path, op->to) && strcmp(op->path, op->to) != 0)
        return plan_add_conflict(p, op->to, NULL, false, e);
    r = plan_find(p, op->to, true, &to, e);
    if (r != PLAN_FOUND || to == from)
        return r;
    bool dir = entry->kind == TREE_DIR || (to->now && to->now->kind == TREE_DIR);
    if ((to->now && dir) || beneath(entry, to))
        return plan_add_conflict(p, op->to, to->now, false, e);
    if (to->now)
        to->now->at = NULL;
    from->now = NULL;
    to->now = entry;
    entry->at = to;
    return PLAN_FOUND;
}

static int add_mkdir(struct plan *p, struct plan_op *op, struct err *e)
{
    struct plan_slot *slot = NULL;
    int r = plan_find(p, op->path, true, &slot, e);

    if (r == PLAN_FOUND)
        r = check_base(p, op, op->path, slot, e);
    if (r != PLAN_FOUND)
        return r;
    if (slot->now && slot->now->kind != TREE_DIR)
        return plan_add_conflict(p, op->path, slot->now, false, e);
    if (!slot->now) {
        slot->now = plan_entry_new(p, TREE_DIR);
        if (!slot->now)
            return err_set(e, ENOMEM, "plan a change set");
        slot->now->mode = 0755;
        slot->now->at = slot;
    }
    if (op->mode) {
        slot->now->mode = (op->mode & 0777) | 0700;
        slot->now->new_mode = true;
    }
    return PLAN_FOUND;
}

static int add_chmod(struct plan *p, struct plan_op *op, struct err *e)
{
    struct plan_slot *slot;
    int r = find_existing(p, op, op->path, true, &slot, e);

    if (r != PLAN_FOUND)
        return r;
    struct plan_entry *entry = slot->now;
    if (entry->kind != TREE_DIR && entry->kind != TREE_FILE)
        return plan_add_conflict(p, op->path, entry, false, e);
    r = entry->kind == TREE_DIR ? plan_entry_stat(p, entry, e) : plan_entry_hash(p, entry, e);
    if (r < 0)
        return r;
    if (r > 0)
        return plan_add_conflict(p, op->path, NULL, true, e);
    entry->mode = (op->mode & 0777) | (entry->kind == TREE_DIR ? 0700 : 0400);
    entry->new_mode = true;
    return PLAN_FOUND;
}

struct emptiness {
    struct plan *p;
    struct plan_entry *dir;
    bool empty;
};

/* Something on disk counts unless an operation of this set took it away. */
static enum tree_visit look_for_any(const struct tree_entry *found, void *ctx)
{
    struct emptiness *in = ctx;
    const struct plan_slot *slot = plan_peek(in->p, in->dir, found->name);

    if (slot && slot->now != slot->orig)
        return TREE_VISIT_SKIP;
    in->empty = false;
    return TREE_VISIT_STOP;
}

static int is_empty(struct plan *p, struct plan_entry *dir, bool *ret, struct err *e)
{
    struct emptiness in = {.p = p, .dir = dir, .empty = true};

    *ret = false;
    for (const struct plan_slot *slot = dir->slots; slot; slot = slot->next) {
        if (slot->now)
            return 0;
    }
    if (dir->origin) {
        int r = tree_walk(p->ws->tree, dir->origin, look_for_any, &in, e);
        if (r < 0 && r != -ENOENT)
            return r;
    }
    *ret = in.empty;
    return 0;
}

static int add_delete(struct plan *p, struct plan_op *op, struct err *e)
{
    struct plan_slot *slot = NULL;
    int r = plan_find(p, op->path, false, &slot, e);

    if (r == PLAN_FOUND || r == PLAN_ABSENT) {
        int found = check_base(p, op, op->path, slot, e);
        r = found == PLAN_FOUND ? r : found;
    }
    /* What is gone already needs no deleting. */
    if (r == PLAN_ABSENT || (r == PLAN_FOUND && !slot->now))
        return PLAN_FOUND;
    if (r != PLAN_FOUND)
        return r;
    struct plan_entry *entry = slot->now;
    if ((r = plan_entry_stat(p, entry, e)) < 0)
        return r;
    if (entry->kind == TREE_DIR && !op->recursive) {
        bool empty;
        r = is_empty(p, entry, &empty, e);
        if (r < 0)
            return r;
        if (!empty)
            return plan_add_conflict(p, op->path, entry, false, e);
    }
    entry->at = NULL;
    slot->now = NULL;
    return PLAN_FOUND;
}

int plan_add(struct plan *p, struct plan_op *op, struct err *e)
{
    static int (*const adders[CHANGE_KIND_END])(struct plan *, struct plan_op *, struct err *) = {
        [CHANGE_PUT] = add_put,
        [CHANGE_PATCH] = add_patch,
        [CHANGE_EDIT] = add_edit,
        [CHANGE_MOVE] = add_move,
        [CHANGE_COPY] = add_copy,
        [CHANGE_MKDIR] = add_mkdir,
        [CHANGE_SYMLINK] = add_put,
        [CHANGE_CHMOD] = add_chmod,
        [CHANGE_DELETE] = add_delete,
    };
    if (op->kind < CHANGE_PUT || op->kind >= CHANGE_KIND_END)
        return err_refuse(e, PROTO_BAD_CHANGES, "unknown operation %d", (int)op->kind);
    int r = adders[op->kind](p, op, e);

    return r < 0 ? r : 0;
}

int plan_open(struct plan *p, const char *path, int *ret_fd, struct hash *ret_hash, struct err *e)
{
    struct plan_slot *slot = NULL;
    int r = plan_find(p, path, false, &slot, e);

    if (r < 0)
        return r;
    if (r != PLAN_FOUND || !slot->now || slot->now->kind != TREE_FILE)
        return -ENOENT;
    r = plan_entry_hash(p, slot->now, e);
    if (r == 0)
        r = open_entry(p, slot->now, ret_fd, e);
    if (r == 0)
        *ret_hash = slot->now->hash;
    return r;
}
