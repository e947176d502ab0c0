/* SPDX-License-Identifier: MIT */
/*
 * From the simulated view to steps, in three phases: what moves is taken out under the names it has
 * now, deepest first; then everything is put where it belongs, parents first; then what is gone
 * goes. So no step depends on a name that an earlier one of its phase changed.
 */
#include <errno.h>
#include <string.h>

#include "server/plan_internal.h"

#include "server/stage_tree.h"
#include "shared/path.h"

#include "shared/banned.h"

struct list {
    struct step *items;
    size_t count;
};

struct reduction {
    struct plan *p;
    struct steps *totals;
    struct list takes, puts, drops;
    struct stage_dir *within; /* the directory being looked at, if it is placed as it was staged */
    char path[PATH_BYTES_MAX + 1]; /* of the slot being looked at, in the final tree */
    struct err *e;
};

static void step_release(struct step *s)
{
    free(s->path);
    free(s->to);
    free(s->row.target);
}

static void list_release(struct list *l)
{
    for (size_t i = 0; i < l->count; i++)
        step_release(&l->items[i]);
    free(l->items);
}

void steps_release(struct steps *s)
{
    for (size_t i = 0; i < s->count; i++)
        step_release(&s->items[i]);
    free(s->items);
    *s = (struct steps){.count = 0};
}

/* A new step at the end; NULL when out of memory, which is reported. */
static struct step *push(
    struct reduction *in, struct list *l, enum step_kind kind, const char *path)
{
    if ((l->count & (l->count - 1)) == 0) {
        size_t cap = l->count ? 2 * l->count : 1;
        struct step *more = realloc(l->items, cap * sizeof *more);
        if (!more) {
            (void)err_set(in->e, ENOMEM, "plan a change set");
            return NULL;
        }
        l->items = more;
    }
    struct step *s = &l->items[l->count];
    *s = (struct step){.kind = kind, .path = strdup(path)};
    if (!s->path) {
        (void)err_set(in->e, ENOMEM, "plan a change set");
        return NULL;
    }
    l->count++;
    in->totals->deeds += kind != STEP_WITHIN;
    return s;
}

/* Does the entry exist when the set has been applied? */
static bool is_live(const struct plan *p, const struct plan_entry *entry)
{
    while (entry != p->root) {
        if (!entry->at)
            return false;
        entry = entry->at->parent;
    }
    return true;
}

/* Fill what the manifest is told about a file or symlink that exists already. */
static int describe(struct reduction *in, struct step *s, struct plan_entry *entry)
{
    s->put = true;
    s->row.kind = entry->kind;
    if (entry->kind == TREE_DIR)
        return 0;
    int r = plan_entry_hash(in->p, entry, in->e);
    if (r < 0)
        return r;
    s->row.hash = entry->hash;
    s->row.size = entry->staged ? entry->staged->size : entry->disk.size;
    s->known_content = true;
    const char *target = entry->staged ? entry->staged->target : entry->target;
    if (target && !(s->row.target = strdup(target)))
        return err_set(in->e, ENOMEM, "plan a change set");
    return 0;
}

/* What was in the slot before and does not live elsewhere makes room. */
static void expect_displaced(
    struct reduction *in, struct step *s, const struct plan_slot *slot, bool gone)
{
    s->strict = slot->strict;
    if (!gone)
        return;
    s->expected = true;
    s->expect = slot->orig->disk;
    s->remove = slot->orig->kind == TREE_DIR;
    if (slot->orig->kind == TREE_FILE && slot->orig->known)
        in->totals->bytes_removed += slot->orig->disk.size;
}

static int emit_chmod(struct reduction *in, struct plan_entry *entry)
{
    struct step *s = push(in, &in->puts, STEP_CHMOD, in->path);

    if (!s)
        return -ENOMEM;
    s->mode = entry->mode;
    return describe(in, s, entry);
}

static int emit_in_place(struct reduction *in, struct plan_entry *entry)
{
    bool differs = entry->new_mode && (!entry->on_disk || entry->mode != (entry->disk.mode & 0777));

    if (differs) {
        in->totals->updated++;
        return emit_chmod(in, entry);
    }
    if (entry->kind != TREE_DIR || entry->known || entry == in->p->root)
        return 0;
    struct step *s = push(in, &in->puts, STEP_ADOPT, in->path);
    if (!s)
        return -ENOMEM;
    return describe(in, s, entry);
}

/* A directory that was staged as a tree is placed with all that it holds; in one that is placed
 * like that already it needs no step of its own. *ret NULL: it was not staged as one. */
static int claim_dir(
    struct reduction *in, const struct plan_slot *slot, struct stage_dir **ret, bool *ret_inside)
{
    struct stage_dir *dir = stage_tree_find(in->p->stage, in->path);

    *ret = NULL;
    *ret_inside = dir && in->within && stage_tree_holds(in->within, dir);
    if (!dir || in->p->stage->one_by_one)
        return 0;
    *ret = dir;
    return stage_tree_claim(
        in->p->stage, dir, *ret_inside ? in->within : NULL, slot->now->mode, in->e);
}

static int emit_new_dir(
    struct reduction *in, const struct plan_slot *slot, bool gone, struct stage_dir **ret_tree)
{
    struct staged *dir = NULL;
    bool inside;
    int r = claim_dir(in, slot, ret_tree, &inside);

    if (r < 0)
        return r;
    struct stage_dir *tree = *ret_tree;
    enum step_kind kind = inside && tree ? STEP_WITHIN : gone || tree ? STEP_PLACE : STEP_MKDIR;
    struct step *s = push(in, &in->puts, kind, in->path);
    if (!s)
        return -ENOMEM;
    in->totals->created++;
    in->totals->entries_added++;
    s->mode = s->row.mode = slot->now->mode;
    s->put = true;
    s->row.kind = TREE_DIR;
    expect_displaced(in, s, slot, gone);
    if (tree) {
        s->slot = *stage_dir_slot(tree);
        s->ino = s->row.ino = stage_dir_ino(tree);
        return 0;
    }
    if (!gone)
        return 0;
    r = stage_dir(in->p->stage, s->mode, &dir, in->e);
    if (r < 0)
        return r;
    s->slot = dir->slot;
    s->ino = dir->ino;
    staged_free(dir);
    return 0;
}

/* Does the content lie where it shall be, in a directory that is placed as a whole? */
static bool lies_within(const struct reduction *in, const struct plan_slot *slot)
{
    const struct staged *staged = slot->now->staged;

    return in->within && staged->dir == in->within && strcmp(staged->name, slot->name) == 0 &&
           staged->mode == slot->now->mode;
}

static int emit_new_leaf(struct reduction *in, struct plan_slot *slot, bool gone)
{
    struct plan_entry *entry = slot->now;
    bool within = !gone && lies_within(in, slot);
    struct step *s = push(in, &in->puts, within ? STEP_WITHIN : STEP_PLACE, in->path);

    if (!s)
        return -ENOMEM;
    if (gone)
        in->totals->updated++;
    else
        in->totals->created++;
    in->totals->entries_added += gone ? 0 : 1;
    entry->staged->claimed = within;
    int r = within ? 0 : stage_tree_flatten(in->p->stage, entry->staged, in->e);
    if (r < 0)
        return r;
    s->slot = entry->staged->slot;
    s->ino = entry->staged->ino;
    s->mode = entry->mode;
    s->set_mtime = entry->kind == TREE_FILE && !within && !entry->staged->keep_time;
    if (entry->kind == TREE_FILE)
        in->totals->bytes_added += entry->staged->size;
    expect_displaced(in, s, slot, gone);
    s->row.mode = entry->staged->mode;
    s->row.ino = entry->staged->ino;
    s->row.mtime_ns = entry->staged->stat.mtime_ns;
    s->row.ctime_ns = entry->staged->stat.ctime_ns;
    return describe(in, s, entry);
}

/* Children that nobody named move along: their paths must stay within what a path may be. */
static int check_moved_paths(struct reduction *in, const char *from, const char *to)
{
    struct workspace *ws = in->p->ws;
    size_t count = 0, from_len = strlen(from), to_len = strlen(to);
    CLEANUP(freep) const struct manifest_entry **rows = NULL;
    char path[2 * PATH_BYTES_MAX + 2];
    int r = 0;

    (void)pthread_mutex_lock(&ws->lock);
    if (manifest_has_children(ws->manifest, from)) {
        rows = manifest_sorted(ws->manifest, &count);
        if (!rows)
            r = err_set(in->e, ENOMEM, "plan a change set");
    }
    memcpy(path, to, to_len);
    for (size_t i = 0; r == 0 && i < count; i++) {
        if (!path_beneath(from, rows[i]->path))
            continue;
        size_t rest = strlen(rows[i]->path + from_len);
        memcpy(path + to_len, rows[i]->path + from_len, rest + 1);
        enum path_fault fault = path_check(path, to_len + rest);
        if (fault != PATH_FINE)
            r = err_refuse(in->e, PROTO_INVALID_PATH, "moving '%.200s' makes a path that %s", from,
                path_fault_text(fault));
    }
    (void)pthread_mutex_unlock(&ws->lock);
    return r;
}

static int emit_moved(struct reduction *in, struct plan_slot *slot, bool gone)
{
    struct plan_entry *entry = slot->now;
    struct step *take = push(in, &in->takes, STEP_TAKE, entry->origin);
    struct step *s = push(in, &in->puts, STEP_PLACE, in->path);

    if (!take || !s)
        return -ENOMEM;
    in->totals->moved++;
    int r = stage_slot(in->p->stage, &take->slot, in->e);
    if (r == 0)
        r = plan_entry_stat(in->p, entry, in->e);
    /* A directory that moves only because its parent does not exist any more was never looked at.
     */
    if (r > 0)
        r = err_refuse(
            in->e, PROTO_PATH_CONFLICT, "a program removed '%s' meanwhile", entry->origin);
    if (r == 0 && entry->kind == TREE_DIR)
        r = check_moved_paths(in, entry->origin, in->path);
    if (r < 0)
        return r;
    take->ino = s->ino = entry->disk.ino;
    take->strict = take->expected = true;
    take->expect = entry->disk;
    s->slot = take->slot;
    s->from_take = true;
    expect_displaced(in, s, slot, gone);
    r = describe(in, s, entry);
    if (r < 0)
        return r;
    return entry->new_mode && entry->kind != TREE_SYMLINK ? emit_chmod(in, entry) : 0;
}

static int emit_drop(struct reduction *in, const struct plan_slot *slot)
{
    struct step *s = push(in, &in->drops, STEP_DROP, in->path);

    if (!s)
        return -ENOMEM;
    in->totals->deleted++;
    expect_displaced(in, s, slot, true);
    s->ino = s->expect.ino;
    return stage_slot(in->p->stage, &s->slot, in->e);
}

/* *ret_tree: the new directory is placed as it was staged. */
static int emit(struct reduction *in, struct plan_slot *slot, struct stage_dir **ret_tree)
{
    struct plan_entry *entry = slot->now;
    bool gone = slot->orig && slot->orig != entry && !is_live(in->p, slot->orig);

    if (!entry)
        return gone ? emit_drop(in, slot) : 0;
    if (entry == slot->orig)
        return emit_in_place(in, entry);
    if (entry->origin)
        return emit_moved(in, slot, gone);
    return entry->kind == TREE_DIR ? emit_new_dir(in, slot, gone, ret_tree)
                                   : emit_new_leaf(in, slot, gone);
}

/* Parents before children. The recursion is bounded by the depth that path_check allows. */
static int descend(struct reduction *in, struct plan_entry *dir, size_t len)
{
    for (struct plan_slot *slot = dir->slots; slot; slot = slot->next) {
        if (!slot->now && !slot->orig)
            continue;
        size_t name_len = strlen(slot->name), at = len;
        if (at + name_len + 2 > sizeof in->path)
            return err_refuse(in->e, PROTO_INVALID_PATH, "the set makes a path that is too long");
        if (at)
            in->path[at++] = '/';
        memcpy(in->path + at, slot->name, name_len + 1);
        at += name_len;
        enum path_fault fault = path_check(in->path, at);
        if (fault != PATH_FINE)
            return err_refuse(
                in->e, PROTO_INVALID_PATH, "the set makes a path that %s", path_fault_text(fault));
        struct stage_dir *tree = NULL, *above = in->within;
        int r = emit(in, slot, &tree);
        in->within = tree;
        if (r == 0 && slot->now && slot->now->kind == TREE_DIR)
            r = descend(in, slot->now, at);
        in->within = above;
        in->path[len] = '\0';
        if (r < 0)
            return r;
    }
    return 0;
}

/* What the set staged in a tree and then did otherwise leaves it. */
static int trim_trees(struct reduction *in)
{
    int r = stage_tree_trim(in->p->stage, in->e);

    for (struct plan_entry *entry = in->p->all; r == 0 && entry; entry = entry->all_next) {
        if (entry->staged && !entry->staged->claimed)
            r = stage_tree_flatten(in->p->stage, entry->staged, in->e);
    }
    return r;
}

static int deepest_first(const void *a, const void *b)
{
    return strcmp(((const struct step *)b)->path, ((const struct step *)a)->path);
}

/* One entry moves to where nothing is: a single rename, so that it is never absent. */
static bool is_plain_move(const struct reduction *in)
{
    return in->takes.count == 1 && in->puts.count == 1 && in->drops.count == 0 &&
           !in->puts.items[0].expected;
}

static int join_plain_move(struct reduction *in)
{
    struct step *take = &in->takes.items[0], *put = &in->puts.items[0];

    put->kind = STEP_MOVE;
    put->to = put->path;
    put->path = ptr_take(&take->path);
    put->strict = put->expected = true;
    put->expect = take->expect;
    put->from_take = false;
    free(take->row.target);
    in->takes.count = 0;
    return 0;
}

static int concat(struct reduction *in)
{
    struct list *const lists[] = {&in->takes, &in->puts, &in->drops};
    struct steps *all = in->totals;
    size_t total = in->takes.count + in->puts.count + in->drops.count;

    if (total == 0)
        return 0;
    all->items = malloc(total * sizeof *all->items);
    if (!all->items)
        return err_set(in->e, ENOMEM, "plan a change set");
    for (size_t i = 0; i < 3; i++) {
        if (lists[i]->count)
            memcpy(all->items + all->count, lists[i]->items, lists[i]->count * sizeof *all->items);
        all->count += lists[i]->count;
        lists[i]->count = 0;
    }
    return 0;
}

int plan_finish(struct plan *p, struct steps *ret, struct err *e)
{
    struct reduction in = {.p = p, .totals = ret, .e = e};

    *ret = (struct steps){.count = 0};
    int r = descend(&in, p->root, 0);
    if (r == 0 && in.p->stage->dirs)
        r = trim_trees(&in);
    if (r == 0 && is_plain_move(&in))
        r = join_plain_move(&in);
    if (r == 0 && in.takes.count > 1)
        qsort(in.takes.items, in.takes.count, sizeof *in.takes.items, deepest_first);
    if (r == 0)
        r = concat(&in);
    list_release(&in.takes);
    list_release(&in.puts);
    list_release(&in.drops);
    return r;
}
