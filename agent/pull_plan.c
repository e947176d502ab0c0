/* SPDX-License-Identifier: MIT */
/* What the server has, what it acknowledged, what lies here → what a pull would do. */
#include "agent/pull.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared/path.h"
#include "shared/weaken.h"

#include "shared/banned.h"

void pull_plan_release(struct pull_plan *plan)
{
    for (size_t i = 0; i < plan->count; i++) {
        free(plan->items[i].there.path);
        free(plan->items[i].there.target);
        free(plan->items[i].why);
    }
    free(plan->items);
    *plan = (struct pull_plan){.items = NULL};
}

size_t pull_plan_count(const struct pull_plan *plan, enum pull_action action)
{
    size_t n = 0;
    for (size_t i = 0; i < plan->count; i++)
        n += plan->items[i].action == action;
    return n;
}

/* ---- what must not be written */

static bool is_component(const char *path, const char *name)
{
    size_t len = strlen(name);
    for (const char *p = path; p; p = strchr(p, '/')) {
        p += *p == '/';
        if (strncasecmp(p, name, len) == 0 && (p[len] == '/' || p[len] == '\0'))
            return true;
    }
    return false;
}

const char *pull_forbidden(const struct ignore *rules, const char *path, bool is_dir, bool named)
{
    struct ignore_verdict verdict;
    const char *base = path_base(path);
    if (WEAK("pull-names"))
        return NULL;
    /* On a file system that folds case `.GIT` is `.git`. */
    if (is_component(path, ".git") || is_component(path, ".silt"))
        return "programs of this machine would obey it";
    if (ignore_find(rules, path, is_dir, &verdict) && verdict.source == IGNORE_BUILTIN)
        return "such names are never synced";
    if (!named && (strcmp(base, IGNORE_GITIGNORE) == 0 || strcmp(base, IGNORE_SILTIGNORE) == 0))
        return "it decides what is sent from here: name it to fetch it";
    return NULL;
}

/* A '..' behind a name is taken where that name leads, if it is a symlink: p/d/.. with d → ../top is
 * the root's parent and not p. So it may stand before names only. */
static bool turns_back(const char *target)
{
    bool named = false;
    for (const char *p = target; *p; p += strspn(p, "/")) {
        size_t len = strcspn(p, "/");
        bool up = len == 2 && memcmp(p, "..", 2) == 0;
        if (up && named)
            return true;
        named = named || (len > 0 && !up && !(len == 1 && *p == '.'));
        p += len;
    }
    return false;
}

/* Leads this symlink to something inside of the project that may be written? */
static bool leads_inside(const struct manifest_entry *link)
{
    CLEANUP(freep) char *dir = strndup(link->path, path_parent_len(link->path));
    CLEANUP(freep) char *to = NULL;
    if (WEAK("pull-links"))
        return true;
    if (!dir || !link->target || link->target[0] == '/' || turns_back(link->target) ||
        path_resolve(dir, link->target, &to) < 0)
        return false;
    return !is_component(to, ".git") && !is_component(to, ".silt");
}

/* ---- which paths are meant */

enum meant { MEANT_NOT, MEANT_ABOVE /* a folder that leads to one */, MEANT_ALL, MEANT_NAMED };

static enum meant meant(const struct pull_config *c, const char *path)
{
    enum meant best = c->path_count ? MEANT_NOT : MEANT_ALL;
    for (size_t i = 0; i < c->path_count; i++) {
        const char *name = c->paths[i];
        if (name[0] == '\0')
            best = best > MEANT_ALL ? best : MEANT_ALL;
        else if (path_beneath(name, path))
            return MEANT_NAMED;
        else if (path_beneath(path, name) && best < MEANT_ABOVE)
            best = MEANT_ABOVE;
    }
    return best;
}

/* Named itself, not only a folder above it. */
static bool is_named(const struct pull_config *c, const char *path)
{
    for (size_t i = 0; i < c->path_count; i++) {
        if (strcmp(c->paths[i], path) == 0)
            return true;
    }
    return false;
}

/* ---- looking */

static int look_here(const struct pull_config *c, const char *path, struct pull_seen *ret,
    struct tree_stat *st, struct err *e)
{
    const struct manifest_entry *entry = manifest_get(c->known, path);
    *ret = (struct pull_seen){.exists = false};
    int r = tree_stat(c->tree, path, st, NULL);
    if (r < 0)
        return 0; /* nothing, or something in the way, which placing it will meet */
    ret->exists = true;
    ret->kind = st->kind;
    if (entry && manifest_unchanged(entry, st)) {
        ret->hash = entry->hash;
    } else if (st->kind == TREE_FILE) {
        CLEANUP(fd_closep) int fd = -1;
        r = tree_open_file(c->tree, path, &fd, NULL, e);
        return r < 0 ? r : hash_fd(fd, &ret->hash, NULL, e);
    } else if (st->kind == TREE_SYMLINK) {
        CLEANUP(buf_release) struct buf target;
        buf_init(&target, PATH_BYTES_MAX);
        r = tree_readlink(c->tree, path, &target, e);
        hash_buf(buf_str(&target), target.len, &ret->hash);
        return r;
    }
    return 0;
}

static struct pull_seen seen_of(const struct manifest_entry *entry)
{
    struct pull_seen seen = {.exists = entry != NULL};
    if (entry) {
        seen.kind = entry->kind;
        seen.hash = entry->hash;
    }
    return seen;
}

static bool same_seen(const struct pull_seen *a, const struct pull_seen *b)
{
    if (a->exists != b->exists || !a->exists)
        return a->exists == b->exists;
    return a->kind == b->kind && (a->kind == TREE_DIR || hash_equal(&a->hash, &b->hash));
}

/* ---- deciding */

static int add_item(struct pull_plan *plan, enum pull_action action,
    const struct manifest_entry *there, const char *why, struct pull_item **ret)
{
    if (plan->count == PULL_ITEMS_MAX)
        return -EFBIG;
    if (plan->count == plan->cap) {
        size_t cap = plan->cap ? 2 * plan->cap : 64;
        struct pull_item *more = realloc(plan->items, cap * sizeof(*more));
        if (!more)
            return -ENOMEM;
        plan->items = more;
        plan->cap = cap;
    }
    struct pull_item *item = &plan->items[plan->count];
    *item = (struct pull_item){.action = action, .there = *there};
    item->there.path = strdup(there->path);
    item->there.target = there->target ? strdup(there->target) : NULL;
    item->why = why ? strdup(why) : NULL;
    plan->count++;
    *ret = item;
    bool bad = !item->there.path || (there->target && !item->there.target) || (why && !item->why);
    return bad ? -ENOMEM : 0;
}

/* Content or kind differ. */
static enum pull_action decide_content(const struct pull_config *c, const struct pull_seen *here,
    const struct pull_seen *known, const struct manifest_entry *there, const char **why)
{
    static const enum pull_action ways[] = {
        [TREE_FILE] = PULL_FETCH, [TREE_DIR] = PULL_MKDIR, [TREE_SYMLINK] = PULL_LINK};
    bool named = is_named(c, there->path);
    if (here->exists && (here->kind == TREE_DIR) != (there->kind == TREE_DIR))
        *why = "a folder on one side is something else on the other";
    else if (!here->exists && known->exists && !named && !c->force)
        *why = "deleted here and changed by a run";
    else if (here->exists && !same_seen(here, known) && !c->force)
        *why = known->exists ? "changed here and by a run" : "made here and by a run";
    return *why ? PULL_CONFLICT : ways[there->kind];
}

static int decide(const struct pull_config *c, const struct manifest_entry *there,
    struct pull_plan *plan, struct err *e)
{
    const struct manifest_entry *entry = manifest_get(c->known, there->path);
    const struct pull_seen known = seen_of(entry), that = seen_of(there);
    bool in_step = same_seen(&known, &that) && entry && entry->mode == there->mode;
    bool named = is_named(c, there->path);
    struct pull_seen here;
    struct tree_stat st = {.mode = 0};
    const char *why = NULL;
    enum pull_action action;
    if (in_step && !named && !c->force)
        return 0;
    int r = look_here(c, there->path, &here, &st, e);
    if (r < 0)
        return r;
    /* A change made here is for the next sync to send. */
    if (in_step && here.exists && !c->force)
        return 0;
    if (!same_seen(&here, &that))
        action = decide_content(c, &here, &known, there, &why);
    else if (there->kind != TREE_SYMLINK && st.mode != there->mode &&
             (c->force || (entry && entry->mode == st.mode)))
        action = PULL_CHMOD;
    else if (in_step)
        return 0;
    else
        action = PULL_ADOPT;
    if (action == PULL_LINK && !leads_inside(there)) {
        action = PULL_REFUSED;
        why = "it is a symlink that leads out of the project";
    }
    struct pull_item *item = NULL;
    r = add_item(plan, action, there, why, &item);
    if (r < 0)
        return err_set(e, -r, "plan a pull");
    item->here = here;
    item->known = known;
    return 0;
}

/* One entry of the server. */
static int consider(const struct pull_config *c, const struct manifest_entry *there,
    struct pull_plan *plan, struct err *e)
{
    bool is_dir = there->kind == TREE_DIR;
    enum meant m = meant(c, there->path);
    struct pull_item *item;
    if (m == MEANT_NOT || (m == MEANT_ABOVE && !is_dir))
        return 0;
    const char *why = pull_forbidden(c->rules, there->path, is_dir, is_named(c, there->path));
    if (why && (is_named(c, there->path) || m == MEANT_ALL)) {
        const struct manifest_entry *entry = manifest_get(c->known, there->path);
        const struct pull_seen known = seen_of(entry), that = seen_of(there);
        if (same_seen(&known, &that))
            return 0;
        /* What is left out on both sides is no news. */
        if (!is_named(c, there->path) && ignore_find(c->rules, there->path, is_dir, NULL)) {
            plan->left_out += !is_dir;
            return 0;
        }
        int r = add_item(plan, PULL_REFUSED, there, why, &item);
        return r < 0 ? err_set(e, -r, "plan a pull") : 0;
    }
    if (why || (m == MEANT_ALL && ignore_find(c->rules, there->path, is_dir, NULL))) {
        plan->left_out += !is_dir;
        return 0;
    }
    return decide(c, there, plan, e);
}

/* What the server no longer has, deepest first. */
static int find_deleted(const struct pull_config *c, const struct manifest *there,
    struct pull_plan *plan, struct err *e)
{
    size_t count = 0;
    CLEANUP(freep) const struct manifest_entry **all = manifest_sorted(c->known, &count);
    if (!all)
        return err_set(e, ENOMEM, "plan a pull");
    for (size_t i = count; i-- > 0;) {
        const struct manifest_entry *entry = all[i];
        const struct pull_seen known = seen_of(entry);
        struct pull_seen here;
        struct tree_stat st;
        struct pull_item *item = NULL;
        if (manifest_get(there, entry->path) || meant(c, entry->path) < MEANT_ALL ||
            pull_forbidden(c->rules, entry->path, entry->kind == TREE_DIR, true))
            continue;
        int r = look_here(c, entry->path, &here, &st, e);
        if (r < 0)
            return r;
        if (!here.exists)
            continue;
        bool touched = !same_seen(&here, &known) && !c->force;
        r = add_item(plan, touched ? PULL_CONFLICT : PULL_DELETE, entry,
            touched ? "changed here and deleted by a run" : NULL, &item);
        if (r < 0)
            return err_set(e, -r, "plan a pull");
        item->here = here;
        item->known = known;
    }
    return 0;
}

int pull_plan_make(const struct pull_config *config, const struct manifest *there,
    struct pull_plan *ret, struct err *e)
{
    size_t count = 0;
    CLEANUP(freep) const struct manifest_entry **all = manifest_sorted(there, &count);
    int r = all ? 0 : err_set(e, ENOMEM, "plan a pull");
    *ret = (struct pull_plan){.items = NULL};
    for (size_t i = 0; r == 0 && i < count; i++)
        r = consider(config, all[i], ret, e);
    return r < 0 ? r : find_deleted(config, there, ret, e);
}
