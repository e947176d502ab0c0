/* SPDX-License-Identifier: MIT */
/* What is left out and why: for `silt ignored`, for hints, for the survey before a first sync. */
#include "agent/sync_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared/path.h"

#include "shared/banned.h"

/* Fresh rules for path: a scan of just this path reads the rule files above it. */
static int load_rules(struct sync *s, const char *path)
{
    struct scan found;
    struct scan_config config = {
        .tree = s->tree, .rules = s->rules, .known = index_manifest(s->index)};
    CLEANUP(freep) char *dir = strndup(path, path_parent_len(path));
    /* A name that is not there costs nothing to scan, but the rules of its folder are read. */
    CLEANUP(freep) char *nothing = dir ? path_join(dir, LINK_DIR) : NULL;
    const char *paths[] = {nothing};
    if (!nothing)
        return -ENOMEM;
    int r = scan_paths(&config, paths, 1, &found, NULL);
    scan_release(&found);
    return r;
}

bool sync_ignored(struct sync *s, const char *path, struct buf *b)
{
    struct tree_stat st;
    struct ignore_verdict verdict;
    if (load_rules(s, path) < 0)
        return false;
    bool is_dir = tree_stat(s->tree, path, &st, NULL) == 0 && st.kind == TREE_DIR;
    if (!ignore_find(s->rules, path, is_dir, &verdict))
        return false;
    /* A sentence that does not fit is no reason to say that the path is synced. */
    if (ignore_explain(&verdict, path, b) < 0)
        buf_reset(b);
    return true;
}

struct search {
    struct ignore *rules;
    const char *name;
    char **ret;
    size_t count, max;
    unsigned visited;
};

#define SEARCH_ENTRIES_MAX 200000

static bool is_named(const char *path, const char *name)
{
    const char *base = path_base(path);
    size_t len = strlen(name);
    if (strcmp(path, name) == 0)
        return true;
    return strncmp(base, name, len) == 0 && (base[len] == '\0' || base[len] == '.');
}

static enum tree_visit look(const struct tree_entry *entry, void *ctx)
{
    struct search *in = ctx;
    bool is_dir = entry->stat.kind == TREE_DIR;
    if (++in->visited > SEARCH_ENTRIES_MAX || in->count == in->max)
        return TREE_VISIT_STOP;
    if (strcmp(path_base(entry->path), LINK_DIR) == 0 ||
        strcmp(path_base(entry->path), ".git") == 0)
        return TREE_VISIT_SKIP;
    if (is_named(entry->path, in->name) && ignore_find(in->rules, entry->path, is_dir, NULL)) {
        char *copy = strdup(entry->path);
        if (copy)
            in->ret[in->count++] = copy;
        return TREE_VISIT_SKIP;
    }
    return is_dir ? TREE_VISIT_GO : TREE_VISIT_SKIP;
}

size_t sync_find_ignored(struct sync *s, const char *name, char *ret[], size_t max)
{
    struct search in = {.rules = s->rules, .name = name, .ret = ret, .max = max};
    struct scan found;
    struct scan_config config = {
        .tree = s->tree, .rules = s->rules, .known = index_manifest(s->index)};
    int r = *name ? scan_all(&config, &found, NULL) : -EINVAL;
    if (*name)
        scan_release(&found);
    if (r == 0)
        r = tree_walk(s->tree, "", look, &in, NULL);
    return r < 0 ? 0 : in.count;
}

/* ---- before anything is linked */

struct survey {
    struct ignore *rules;
    struct buf out;
};

/* What of the root's own entries is left out: names, in order, as far as there is room. */
static enum tree_visit note_left_out(const struct tree_entry *entry, void *ctx)
{
    struct survey *in = ctx;
    bool is_dir = entry->stat.kind == TREE_DIR;
    if (!ignore_check(in->rules, entry->path, is_dir, NULL) || strcmp(entry->name, LINK_DIR) == 0)
        return TREE_VISIT_SKIP;
    /* No room: the rest is not named. */
    if (buf_addf(&in->out, "%s%s%s", in->out.len ? ", " : "", entry->name, is_dir ? "/" : "") < 0)
        return TREE_VISIT_STOP;
    return TREE_VISIT_SKIP;
}

int sync_survey(const char *root, uint64_t *ret_files, uint64_t *ret_bytes, char *left_out,
    size_t left_out_size, struct err *e)
{
    CLEANUP(tree_freep) struct tree *tree = NULL;
    struct ignore *rules = ignore_new(true);
    struct manifest *nothing = manifest_new();
    struct scan_config config = {.rules = rules, .known = nothing};
    struct survey in = {.rules = rules};
    struct scan found = {.count = 0};
    int r = rules && nothing ? tree_open(root, &tree, e) : err_set(e, ENOMEM, "look at '%s'", root);
    buf_init(&in.out, left_out_size ? left_out_size - 1 : 0);
    config.tree = tree;
    if (r == 0)
        r = scan_all(&config, &found, e);
    if (r == 0)
        r = tree_walk(tree, "", note_left_out, &in, e);
    if (r == 0) {
        *ret_files = found.files;
        *ret_bytes = found.bytes;
        if (left_out_size)
            (void)snprintf(left_out, left_out_size, "%s", buf_str(&in.out));
    }
    buf_release(&in.out);
    scan_release(&found);
    manifest_free(nothing);
    ignore_free(rules);
    return r;
}
