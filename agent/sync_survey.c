/* SPDX-License-Identifier: MIT */
/* Before anything is linked: what a first sync would send, and what it would leave out. */
#include "agent/sync_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared/path.h"

#include "shared/banned.h"

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
