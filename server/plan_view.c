/* SPDX-License-Identifier: MIT */
#include "server/plan_internal.h"

#include <errno.h>
#include <string.h>

#include "shared/path.h"

#include "shared/banned.h"

struct plan_entry *plan_entry_new(struct plan *p, enum tree_kind kind)
{
    struct plan_entry *entry = calloc(1, sizeof *entry);

    if (!entry)
        return NULL;
    entry->kind = kind;
    entry->all_next = p->all;
    p->all = entry;
    return entry;
}

int plan_new(struct stage *stage, struct plan **ret, struct err *e)
{
    struct plan *p = calloc(1, sizeof *p);

    if (p) {
        p->stage = stage;
        p->ws = stage->ws;
        p->root = plan_entry_new(p, TREE_DIR);
    }
    if (!p || !p->root || !(p->root->origin = strdup(""))) {
        plan_free(p);
        return err_set(e, ENOMEM, "plan a change set");
    }
    p->root->known = true;
    *ret = p;
    return 0;
}

void plan_free(struct plan *p)
{
    struct plan_slot *slot, *next_slot;

    if (!p)
        return;
    HASH_ITER(hh, p->index, slot, next_slot) {
        HASH_DEL(p->index, slot);
        free(slot->key);
        free(slot);
    }
    while (p->all) {
        struct plan_entry *entry = p->all;
        p->all = entry->all_next;
        free(entry->origin);
        free(entry->target);
        free(entry);
    }
    for (size_t i = 0; i < p->conflict_count; i++)
        free(p->conflicts[i].path);
    free(p->conflicts);
    free(p);
}

void plan_freep(struct plan **p)
{
    plan_free(*p);
    *p = NULL;
}

int plan_add_conflict(
    struct plan *p, const char *path, struct plan_entry *there, bool base, struct err *e)
{
    p->base_conflict = p->base_conflict || base;
    if (p->conflict_count >= PLAN_CONFLICTS_MAX)
        return PLAN_CONFLICT;
    if ((p->conflict_count & (p->conflict_count - 1)) == 0) {
        size_t cap = p->conflict_count ? 2 * p->conflict_count : 1;
        struct sandbox_conflict *more = realloc(p->conflicts, cap * sizeof *more);
        if (!more)
            return err_set(e, ENOMEM, "collect conflicts");
        p->conflicts = more;
    }
    struct sandbox_conflict c = {.path = strdup(path), .exists = there != NULL};
    if (!c.path)
        return err_set(e, ENOMEM, "collect conflicts");
    /* What is there is told as well as it can be: a file that cannot be read has no hash. */
    if (there && plan_entry_hash(p, there, NULL) == 0) {
        c.kind = there->kind;
        c.size = there->staged ? there->staged->size : there->disk.size;
        c.hash = there->hash;
    } else if (there) {
        c.kind = there->kind;
    }
    p->conflicts[p->conflict_count++] = c;
    return PLAN_CONFLICT;
}

static char *child_path(const struct plan_entry *dir, const char *name)
{
    return path_join(dir->origin, name);
}

int plan_entry_stat(struct plan *p, struct plan_entry *entry, struct err *e)
{
    if (entry->on_disk || !entry->origin || entry == p->root)
        return 0;
    int r = workspace_stat(p->ws, entry->origin, &entry->disk, e);
    if (r == -ENOENT || r == -ENOTDIR || r == -ELOOP || (r == 0 && entry->disk.kind != entry->kind))
        return 1;
    if (r == 0)
        entry->on_disk = true;
    return r;
}

int plan_entry_hash(struct plan *p, struct plan_entry *entry, struct err *e)
{
    if (entry->hashed || entry->kind == TREE_DIR || entry->kind == TREE_OTHER)
        return 0;
    if (entry->staged) {
        entry->hash = entry->staged->hash;
        entry->hashed = true;
        return 0;
    }
    struct tree_stat st;
    free(ptr_take(&entry->target));
    int r = workspace_hash(p->ws, entry->origin, &entry->hash, &st, &entry->target, e);
    if (r < 0)
        return r;
    if (st.kind != entry->kind)
        return err_set(e, EAGAIN, "look at '%s', which a program is changing", entry->origin);
    entry->disk = st;
    entry->on_disk = entry->hashed = true;
    return 0;
}

/* Find out what lies on disk in a new slot. Directories that are passed through are taken from the
 * manifest; an entry that is meant (leaf) is looked at. */
static int slot_load(struct plan *p, struct plan_slot *slot, bool leaf, struct err *e)
{
    struct manifest_entry row;
    struct tree_stat st = {.kind = TREE_DIR};
    struct plan_entry *dir = slot->parent;

    if (!dir->origin)
        return 0;
    CLEANUP(freep) char *path = child_path(dir, slot->name);
    if (!path)
        return err_set(e, ENOMEM, "plan a change set");
    bool known = workspace_known(p->ws, path, &row);
    bool trusted = !leaf && known && row.kind == TREE_DIR;
    if (!trusted) {
        int r = workspace_stat(p->ws, path, &st, NULL);
        if (r == -ENOENT)
            return 0;
        if (r == -ENOTDIR || r == -ELOOP || r == -EXDEV)
            return plan_add_conflict(p, path, NULL, false, e);
        if (r < 0)
            return err_set(e, -r, "look at '%s'", path);
    }
    struct plan_entry *entry = plan_entry_new(p, st.kind);
    if (!entry)
        return err_set(e, ENOMEM, "plan a change set");
    entry->origin = ptr_take(&path);
    entry->known = known && row.kind == st.kind;
    entry->on_disk = !trusted;
    entry->disk = st;
    entry->at = slot;
    if (entry->known && st.kind == TREE_FILE && manifest_unchanged(&row, &st)) {
        entry->hash = row.hash;
        entry->hashed = true;
    }
    slot->orig = slot->now = entry;
    return 0;
}

static size_t make_key(struct plan_key *key, struct plan_entry *dir, const char *name, size_t len)
{
    memset(key, 0, offsetof(struct plan_key, name));
    key->parent = dir;
    memcpy(key->name, name, len);
    return offsetof(struct plan_key, name) + len;
}

struct plan_slot *plan_peek(const struct plan *p, struct plan_entry *dir, const char *name)
{
    struct plan_key key;
    struct plan_slot *slot;
    size_t len = strlen(name);

    if (len > PATH_NAME_MAX)
        return NULL;
    len = make_key(&key, dir, name, len);
    HASH_FIND(hh, p->index, &key, len, slot);
    return slot;
}

/* The slot of a name in a directory, known or new. */
static int slot_get(struct plan *p, struct plan_entry *dir, const char *name, size_t len, bool leaf,
    struct plan_slot **ret, struct err *e)
{
    struct plan_key key;
    struct plan_slot *slot = NULL;
    size_t key_len = make_key(&key, dir, name, len);

    HASH_FIND(hh, p->index, &key, key_len, slot);
    *ret = slot;
    if (slot)
        return 0;
    slot = calloc(1, sizeof *slot);
    if (slot && (slot->key = malloc(key_len + 1))) {
        memcpy(slot->key, &key, key_len);
        slot->name = (char *)slot->key + offsetof(struct plan_key, name);
        slot->name[len] = '\0';
        HASH_ADD_KEYPTR(hh, p->index, slot->key, key_len, slot);
    }
    if (!slot || !slot->key || !slot->hh.tbl) {
        if (slot)
            free(slot->key);
        free(slot);
        return err_set(e, ENOMEM, "plan a change set");
    }
    slot->parent = dir;
    slot->next = dir->slots;
    dir->slots = slot;
    *ret = slot;
    return slot_load(p, slot, leaf, e);
}

/* A directory on the way, made if that is wanted. */
static int enter(
    struct plan *p, struct plan_slot *slot, const char *path, size_t len, bool make, struct err *e)
{
    char prefix[PATH_BYTES_MAX + 1];

    if (!slot->now) {
        if (!make)
            return PLAN_ABSENT;
        slot->now = plan_entry_new(p, TREE_DIR);
        if (!slot->now)
            return err_set(e, ENOMEM, "plan a change set");
        slot->now->mode = 0755;
        slot->now->at = slot;
        return PLAN_FOUND;
    }
    if (slot->now->kind == TREE_DIR)
        return PLAN_FOUND;
    if (!make)
        return PLAN_ABSENT;
    memcpy(prefix, path, len);
    prefix[len] = '\0';
    return plan_add_conflict(p, prefix, slot->now, false, e);
}

int plan_find(struct plan *p, const char *path, bool make, struct plan_slot **ret, struct err *e)
{
    struct plan_entry *dir = p->root;
    const char *name = path;

    for (;;) {
        const char *slash = strchr(name, '/');
        size_t len = slash ? (size_t)(slash - name) : strlen(name);
        struct plan_slot *slot;
        int r = slot_get(p, dir, name, len, !slash, &slot, e);
        if (r != 0)
            return r == PLAN_CONFLICT && !make ? PLAN_ABSENT : r;
        if (!slash) {
            *ret = slot;
            return PLAN_FOUND;
        }
        r = enter(p, slot, path, (size_t)(slash - path), make, e);
        if (r != PLAN_FOUND)
            return r;
        dir = slot->now;
        name = slash + 1;
    }
}

size_t plan_conflicts(const struct plan *p)
{
    return p->conflict_count;
}

int plan_refuse(struct plan *p, struct sandbox_conflict **ret, size_t *ret_count, struct err *e)
{
    const char *path = p->conflicts[0].path;
    size_t count = p->conflict_count;

    *ret = ptr_take(&p->conflicts);
    *ret_count = count;
    p->conflict_count = 0;
    if (p->base_conflict)
        return err_refuse(e, PROTO_BASE_MISMATCH,
            "%zu path%s changed on the server since the sender last saw them, the first is '%s'",
            count, count == 1 ? "" : "s", path);
    return err_refuse(e, PROTO_PATH_CONFLICT,
        "%zu path%s cannot be changed like this, the first is '%s': a file is in the way of a "
        "directory, or a directory of a file",
        count, count == 1 ? "" : "s", path);
}
