/* SPDX-License-Identifier: MIT */
/* What is written down about steps: the intent before, the manifest's edits after. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "server/apply.h"
#include "shared/log.h"
#include "shared/path.h"

#include "shared/banned.h"

#define ENCODING 1

static struct store_edit *push(
    struct apply_edits *edits, enum store_edit_kind kind, const char *path, struct err *e)
{
    struct store_edit *d = &edits->items[edits->count];

    *d = (struct store_edit){.kind = kind, .path = strdup(path)};
    if (!d->path) {
        (void)err_set(e, ENOMEM, "note a change set");
        return NULL;
    }
    edits->count++;
    return d;
}

static int push_move(struct apply_edits *edits, const char *from, const char *to, struct err *e)
{
    struct store_edit *d = push(edits, STORE_MOVE, from, e);

    if (!d)
        return -ENOMEM;
    d->to = strdup(to);
    return d->to ? 0 : err_set(e, ENOMEM, "note a change set");
}

static int push_row(
    struct apply_edits *edits, const struct step *s, const char *path, struct err *e)
{
    struct store_edit *d = push(edits, STORE_PUT, path, e);

    if (!d)
        return -ENOMEM;
    d->entry = s->row;
    d->entry.path = d->path;
    d->entry.target = NULL;
    d->entry.by_run = false;
    if (s->row.target && !(d->entry.target = strdup(s->row.target)))
        return err_set(e, ENOMEM, "note a change set");
    return 0;
}

/* Rows of what was taken wait under a name that no path can have. */
static void aside(const struct step *s, char *out, size_t size)
{
    (void)snprintf(out, size, "\001%s", s->slot.name);
}

static int push_step(struct apply_edits *edits, const struct step *s, struct err *e)
{
    char name[STAGE_SLOT_BYTES + 1];
    struct store_edit *d;
    int r = 0;

    aside(s, name, sizeof name);
    if (s->kind == STEP_TAKE)
        return push_move(edits, s->path, name, e);
    if (s->kind == STEP_MOVE)
        r = push_move(edits, s->path, s->to, e);
    if (s->kind == STEP_DROP || (s->kind == STEP_PLACE && s->remove)) {
        d = push(edits, STORE_REMOVE, s->path, e);
        if (!d)
            return -ENOMEM;
        d->leaf = s->expect.kind != TREE_DIR;
    }
    if (r == 0 && s->kind == STEP_PLACE && s->from_take)
        r = push_move(edits, name, s->path, e);
    if (r == 0 && s->put)
        r = push_row(edits, s, s->to ? s->to : s->path, e);
    return r;
}

int apply_edits(const struct steps *steps, struct apply_edits *ret, struct err *e)
{
    *ret = (struct apply_edits){.count = 0};
    if (steps->count == 0)
        return 0;
    ret->items = malloc(3 * steps->count * sizeof *ret->items);
    if (!ret->items)
        return err_set(e, ENOMEM, "note a change set");
    for (size_t i = 0; i < steps->count; i++) {
        int r = push_step(ret, &steps->items[i], e);
        if (r < 0)
            return r;
    }
    return 0;
}

void apply_edits_release(struct apply_edits *edits)
{
    for (size_t i = 0; i < edits->count; i++) {
        free(edits->items[i].path);
        free(edits->items[i].to);
        free(edits->items[i].entry.target);
    }
    free(edits->items);
    *edits = (struct apply_edits){.count = 0};
}

/* How many rows are no directories changes with one row; after a subtree went it is counted anew.
 */
static bool counts(const struct manifest_entry *row)
{
    return row && row->kind != TREE_DIR;
}

static int note_one(struct workspace *ws, const struct store_edit *d, bool *recount)
{
    struct manifest *m = ws->manifest;
    bool had = counts(manifest_get(m, d->path));
    int r;

    if (d->kind == STORE_PUT) {
        r = manifest_put(m, &d->entry);
        if (r == 0)
            ws->files += (uint64_t)counts(&d->entry) - (uint64_t)had;
        return r;
    }
    if (d->kind == STORE_REMOVE) {
        *recount = *recount || manifest_has_children(m, d->path);
        ws->files -= had;
        (void)manifest_remove_tree(m, d->path);
        return 0;
    }
    *recount = *recount || manifest_has_children(m, d->to);
    ws->files -= counts(manifest_get(m, d->to));
    (void)manifest_remove_tree(m, d->to);
    r = manifest_move(m, d->path, d->to);
    return r == -ENOENT ? 0 : r;
}

int apply_note(struct workspace *ws, const struct apply_edits *edits)
{
    bool recount = false;
    int r = 0;

    (void)pthread_mutex_lock(&ws->lock);
    ws->edition++;
    for (size_t i = 0; r == 0 && i < edits->count; i++)
        r = note_one(ws, &edits->items[i], &recount);
    if (r == 0 && recount)
        r = workspace_count_locked(ws);
    (void)pthread_mutex_unlock(&ws->lock);
    return r;
}

static int encode_text(struct buf *b, const char *text)
{
    size_t len = text ? strlen(text) : 0;
    int r = buf_add_u16(b, (uint16_t)len);

    return r == 0 && len ? buf_add(b, text, len) : r;
}

int apply_encode(const struct steps *steps, struct buf *ret, struct err *e)
{
    int r = buf_add_u8(ret, ENCODING);

    for (size_t i = 0; r == 0 && i < steps->count; i++) {
        const struct step *s = &steps->items[i];
        if (s->kind == STEP_WITHIN)
            continue;
        r = buf_add_u8(ret, (uint8_t)s->kind);
        if (r == 0)
            r = buf_add_u32(ret, s->mode);
        if (r == 0)
            r = buf_add_u64(ret, s->ino);
        if (r == 0)
            r = encode_text(ret, s->slot.name);
        if (r == 0)
            r = encode_text(ret, s->path);
        if (r == 0)
            r = encode_text(ret, s->to);
    }
    return r < 0 ? err_set(e, -r, "write down a change set") : 0;
}

struct saved_step {
    enum step_kind kind;
    uint32_t mode;
    uint64_t ino;
    char slot[STAGE_SLOT_BYTES];
    char path[PATH_BYTES_MAX + 1], to[PATH_BYTES_MAX + 1];
};

static void decode_text(struct cursor *c, char *out, size_t size)
{
    size_t len = cursor_u16(c);
    const uint8_t *text = len < size ? cursor_bytes(c, len) : NULL;

    if (!text && len)
        c->bad = 1;
    if (text && len)
        memcpy(out, text, len);
    out[text ? len : 0] = '\0';
}

/* Does the slot (still) hold this inode? */
static bool slot_holds(const struct workspace *ws, const struct saved_step *s)
{
    struct stat st;

    return fstatat(ws->stage_fd, s->slot, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_ino == s->ino;
}

static int redo_place(struct workspace *ws, const struct saved_step *s, struct err *e)
{
    struct stat st;
    bool displaced;

    if (!slot_holds(ws, s))
        return 0;
    int r = tree_make_parents(ws->tree, s->path, e);
    if (r < 0)
        return r;
    if (s->mode && fstatat(ws->stage_fd, s->slot, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
        S_ISREG(st.st_mode) && fchmodat(ws->stage_fd, s->slot, s->mode, 0) < 0)
        return err_set(e, errno, "change the mode of a staged file");
    return tree_place(ws->tree, ws->stage_fd, s->slot, s->path, &displaced, e);
}

static int redo(struct workspace *ws, const struct saved_step *s, struct err *e)
{
    struct tree_stat st;
    bool there = tree_stat(ws->tree, s->path, &st, NULL) == 0;

    switch (s->kind) {
    case STEP_TAKE:
    case STEP_DROP:
        if (slot_holds(ws, s) || !there || st.ino != s->ino)
            return 0;
        (void)!tree_remove_at(ws->stage_fd, s->slot, NULL);
        return tree_take(ws->tree, s->path, ws->stage_fd, s->slot, e);
    case STEP_MOVE:
        return there && st.ino == s->ino ? tree_move(ws->tree, s->path, s->to, false, e) : 0;
    case STEP_MKDIR: {
        int r = there ? 0 : tree_make_parents(ws->tree, s->path, e);
        return r == 0 && !there ? tree_mkdir(ws->tree, s->path, s->mode, e) : r;
    }
    case STEP_PLACE:
        return redo_place(ws, s, e);
    case STEP_CHMOD:
        return there ? tree_chmod(ws->tree, s->path, s->mode, e) : 0;
    case STEP_ADOPT:
    case STEP_WITHIN:
    case STEP_KIND_END:
    default:
        return 0;
    }
}

int apply_roll_forward(struct workspace *ws, const void *blob, size_t len, struct err *e)
{
    struct cursor c;
    CLEANUP(freep) struct saved_step *s = malloc(sizeof *s);

    if (!s)
        return err_set(e, ENOMEM, "finish a change set");
    cursor_init(&c, blob, len);
    if (cursor_u8(&c) != ENCODING)
        return err_say(e, EBADMSG, "the intent of a change set is of another version");
    while (c.left && !c.bad) {
        struct err failed = ERR_INIT;
        s->kind = (enum step_kind)cursor_u8(&c);
        s->mode = cursor_u32(&c);
        s->ino = cursor_u64(&c);
        decode_text(&c, s->slot, sizeof s->slot);
        decode_text(&c, s->path, sizeof s->path);
        decode_text(&c, s->to, sizeof s->to);
        if (c.bad || path_check(s->path, strlen(s->path)) != PATH_FINE)
            return err_say(e, EBADMSG, "the intent of a change set is damaged");
        /* A step that a program made impossible must not stop the others. */
        if (redo(ws, s, &failed) < 0)
            log_warn("finish an interrupted change set: %s", failed.msg);
    }
    return 0;
}
