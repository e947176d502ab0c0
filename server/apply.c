/* SPDX-License-Identifier: MIT */
#include "server/apply.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "shared/io.h"
#include "shared/log.h"
#include "shared/path.h"

#include "shared/banned.h"

#define NS_PER_S INT64_C(1000000000)
#define FUTURE_S 3600
#define DISPLACED_MAX 64u /* kept per sandbox */

static bool is_python(const char *path)
{
    size_t len = strlen(path);

    return len > 3 && memcmp(path + len - 3, ".py", 3) == 0;
}

/*
 * The time of application, read from the precise clock: the kernel stamps writes with that of its
 * last tick, so a later write by a program never gets the very same value. Python takes bytecode
 * for current when size and whole second of its source are the same: a replacement that could be
 * mistaken gets the next second.
 */
static int64_t pick_mtime(const struct step *s, int64_t now)
{
    int64_t now_s = now / NS_PER_S, old_s = s->expect.mtime_ns / NS_PER_S;

    if (!s->expected || s->expect.kind != TREE_FILE || old_s < now_s || old_s > now_s + FUTURE_S)
        return now;
    if (s->expect.size != s->row.size && !is_python(s->path))
        return now;
    return (old_s + 1) * NS_PER_S;
}

/* Mode and time of a staged file just before it is placed; the slot is ours, no program reaches it.
 */
static int finish_slot(struct stage *stage, struct step *s, struct err *e)
{
    int64_t mtime = pick_mtime(s, (int64_t)io_wall_ns());
    struct timespec times[2] = {
        {.tv_sec = mtime / NS_PER_S, .tv_nsec = mtime % NS_PER_S},
        {.tv_sec = mtime / NS_PER_S, .tv_nsec = mtime % NS_PER_S},
    };
    int fd = stage->ws->stage_fd;

    if (s->row.mode != s->mode && fchmodat(fd, s->slot.name, s->mode, 0) < 0)
        return err_set(e, errno, "change the mode of a staged file");
    if (utimensat(fd, s->slot.name, times, AT_SYMLINK_NOFOLLOW) < 0)
        return err_set(e, errno, "set the time of a staged file");
    s->row.mtime_ns = mtime;
    return 0;
}

/* Is what lies in the slot what was looked at before? Renaming changes ctime, so that is left out.
 */
static int examine(const struct stage *stage, const struct step *s, struct err *e)
{
    struct stat st;
    struct tree_stat now;

    if (fstatat(stage->ws->stage_fd, s->slot.name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return err_set(e, errno, "examine what was displaced");
    tree_stat_of(&st, &now);
    /* Without a condition whatever was there may go, but not a directory nobody knew of. */
    if (!s->strict && (now.kind != TREE_DIR || (s->expected && s->expect.kind == TREE_DIR)))
        return 0;
    bool same = s->expected && now.ino == s->expect.ino && now.kind == s->expect.kind;
    if (same && now.kind != TREE_DIR)
        same = now.size == s->expect.size && now.mtime_ns == s->expect.mtime_ns;
    return same ? 0
                : err_refuse(
                      e, PROTO_BASE_MISMATCH, "a program changed '%s' at this moment", s->path);
}

/* Record what lies at path now as the step's row. A program may have been quicker: then times that
 * do not fit make the next look hash it again. */
static void note_stat(struct workspace *ws, struct step *s, const char *path, uint64_t ino)
{
    struct tree_stat st;

    if (!s->put)
        return;
    s->row.ino = 0;
    s->row.seen_ns = 0;
    if (tree_stat(ws->tree, path, &st, NULL) < 0 || st.kind != s->row.kind)
        return;
    s->row.mode = st.mode;
    if (ino && st.ino != ino)
        return;
    if (st.kind != TREE_DIR &&
        (st.size != s->row.size || (s->set_mtime && st.mtime_ns != s->row.mtime_ns)))
        return;
    workspace_settle(&s->row, &st);
}

static int do_take(struct stage *stage, struct step *s, struct err *e)
{
    struct workspace *ws = stage->ws;
    int r = tree_take(ws->tree, s->path, ws->stage_fd, s->slot.name, e);

    /* What a program deleted first needs no deleting. */
    if (r == -ENOENT && s->kind == STEP_DROP)
        return 0;
    /* A folder of the layer beneath; what is in it can be removed all the same. */
    if (r == -EXDEV && s->kind == STEP_DROP && ws->layered)
        return tree_remove(ws->tree, s->path, e);
    if (r < 0)
        return r;
    s->done = true;
    stage_hold(stage, s->slot.index, true);
    return examine(stage, s, e);
}

static int do_move(struct stage *stage, struct step *s, struct err *e)
{
    struct workspace *ws = stage->ws;
    struct tree_stat st;
    int r = tree_make_parents(ws->tree, s->to, e);

    if (r == 0)
        r = tree_move(ws->tree, s->path, s->to, false, e);
    if (r < 0)
        return r;
    s->done = true;
    r = tree_stat(ws->tree, s->to, &st, e);
    if (r < 0)
        return r;
    if (st.ino != s->expect.ino || st.kind != s->expect.kind ||
        (st.kind == TREE_FILE && st.mtime_ns != s->expect.mtime_ns))
        return err_refuse(e, PROTO_BASE_MISMATCH, "a program changed '%s' at this moment", s->path);
    note_stat(ws, s, s->to, s->expect.ino);
    return 0;
}

static int do_mkdir(struct stage *stage, struct step *s, struct err *e)
{
    struct workspace *ws = stage->ws;
    int r = tree_mkdir(ws->tree, s->path, s->mode, e);

    if (r == -ENOENT) {
        r = tree_make_parents(ws->tree, s->path, e);
        if (r == 0)
            r = tree_mkdir(ws->tree, s->path, s->mode, e);
    }
    if (r < 0)
        return r;
    s->done = true;
    note_stat(ws, s, s->path, 0);
    return 0;
}

/* A new directory goes where nothing is: what a program makes there meanwhile is not displaced. */
static bool is_new_dir(const struct step *s)
{
    return s->row.kind == TREE_DIR && !s->expected && !s->from_take;
}

static int put_in_place(struct stage *stage, struct step *s, struct err *e)
{
    struct workspace *ws = stage->ws;

    s->displaced = false;
    return is_new_dir(s)
               ? tree_place_new(ws->tree, ws->stage_fd, s->slot.name, s->path, e)
               : tree_place(ws->tree, ws->stage_fd, s->slot.name, s->path, &s->displaced, e);
}

static int do_place(struct stage *stage, struct step *s, struct err *e)
{
    struct workspace *ws = stage->ws;
    int r = s->set_mtime ? finish_slot(stage, s, e) : 0;

    if (r == 0)
        r = put_in_place(stage, s, e);
    if (r == -ENOENT) {
        r = tree_make_parents(ws->tree, s->path, e);
        if (r == 0)
            r = put_in_place(stage, s, e);
    }
    if (r < 0)
        return r;
    s->done = true;
    stage_hold(stage, s->slot.index, s->displaced);
    if (s->displaced && (r = examine(stage, s, e)) < 0)
        return r;
    note_stat(ws, s, s->path, s->ino);
    return 0;
}

static int do_chmod(struct stage *stage, struct step *s, struct err *e)
{
    struct workspace *ws = stage->ws;
    struct tree_stat st;
    int r = tree_stat(ws->tree, s->path, &st, e);

    if (r < 0)
        return r;
    s->old_mode = st.mode;
    if (st.kind != s->row.kind)
        return err_refuse(
            e, PROTO_PATH_CONFLICT, "a program replaced '%s' at this moment", s->path);
    r = tree_chmod(ws->tree, s->path, s->mode, e);
    if (r < 0)
        return r;
    s->done = true;
    note_stat(ws, s, s->path, 0);
    return 0;
}

static int do_adopt(struct stage *stage, struct step *s, struct err *e)
{
    (void)e;
    s->done = true;
    note_stat(stage->ws, s, s->path, 0);
    return 0;
}

/*
 * The row was filled when it was staged. A program can write to it since the directory was placed,
 * which is the time when it was last known to be what the row says: a stamp from just before that
 * is not believed at the next look.
 */
static int do_within(struct stage *stage, struct step *s, struct err *e)
{
    (void)e;
    s->done = true;
    s->row.seen_ns = stage->placed_ns;
    return 0;
}

typedef int step_doer(struct stage *, struct step *, struct err *);
static step_doer *const doers[STEP_KIND_END] = {
    [STEP_TAKE] = do_take,
    [STEP_MOVE] = do_move,
    [STEP_MKDIR] = do_mkdir,
    [STEP_PLACE] = do_place,
    [STEP_CHMOD] = do_chmod,
    [STEP_ADOPT] = do_adopt,
    [STEP_DROP] = do_take,
    [STEP_WITHIN] = do_within,
};

/* What the system says when a program interferes, as the sender should hear it. */
static int explain(const struct step *s, int r, struct err *e)
{
    switch (-r) {
    case ENOSPC:
    case EDQUOT:
        return err_refuse(e, PROTO_NO_SPACE, "the server's disk is full: free space there");
    case ENOENT:
    case ENOTDIR:
    case ELOOP:
    case EEXIST:
    case EISDIR:
    case ENOTEMPTY:
    case EXDEV:
    case EBUSY:
        return err_refuse(
            e, PROTO_PATH_CONFLICT, "a program is changing '%s' or a directory above it", s->path);
    default:
        return r;
    }
}

int apply_run(struct stage *stage, struct steps *steps, const char **ret_failed, struct err *e)
{
    stage->placed_ns = (int64_t)io_wall_ns();
    for (size_t i = 0; i < steps->count; i++) {
        struct step *s = &steps->items[i];
        int r = doers[s->kind](stage, s, e);
        if (r < 0) {
            apply_undo(stage, steps);
            *ret_failed = s->path;
            return r == -EPROTO ? r : explain(s, r, e);
        }
    }
    return 0;
}

/* Keep the content of a slot that cannot go back, or that holds what a program made. */
static void keep_displaced(struct stage *stage, const struct step *s)
{
    struct workspace *ws = stage->ws;
    char name[STAGE_SLOT_BYTES + 24];

    log_warn("a program changed '%s' while a change set was undone: %s", s->path,
        ws->displaced_fd >= 0 ? "what cannot stay there is kept among the displaced ones"
                              : "what cannot stay there is lost");
    if (ws->displaced_fd < 0 || ws->displaced_count >= DISPLACED_MAX)
        return;
    (void)snprintf(name, sizeof name, "%llu-%s", (unsigned long long)io_wall_ns(), s->slot.name);
    if (renameat(ws->stage_fd, s->slot.name, ws->displaced_fd, name) == 0) {
        ws->displaced_count++;
        stage_hold(stage, s->slot.index, false);
    }
}

/* What was staged within a directory, by inode. */
struct within {
    const struct step **steps;
    size_t count;
    bool foreign; /* something else is there, or something changed */
};

static int by_ino(const void *a, const void *b)
{
    const struct step *x = *(const struct step *const *)a, *y = *(const struct step *const *)b;

    return (x->row.ino > y->row.ino) - (x->row.ino < y->row.ino);
}

static enum tree_visit compare_within(const struct tree_entry *found, void *ctx)
{
    struct within *in = ctx;
    struct step wanted = {.row.ino = found->stat.ino};
    const struct step *key = &wanted;
    const struct step **at =
        in->count ? bsearch(&key, in->steps, in->count, sizeof(const struct step *), by_ino) : NULL;
    const struct manifest_entry *row = at ? &(*at)->row : NULL;

    in->foreign = found->fault || !row || row->kind != found->stat.kind ||
                  (row->kind == TREE_FILE &&
                      (row->size != found->stat.size || row->mtime_ns != found->stat.mtime_ns));
    return in->foreign ? TREE_VISIT_STOP : TREE_VISIT_GO;
}

/* Did a program leave something in the directory that was placed with all it holds? */
static bool has_foreign(const struct stage *stage, const struct steps *steps, const struct step *s)
{
    struct within in = {.count = 0};
    CLEANUP(freep) const struct step **sorted = malloc(steps->count * sizeof(const struct step *));

    if (!sorted)
        return true;
    in.steps = sorted;
    for (size_t i = 0; i < steps->count; i++) {
        if (steps->items[i].kind == STEP_WITHIN)
            sorted[in.count++] = &steps->items[i];
    }
    qsort(sorted, in.count, sizeof(const struct step *), by_ino);
    return tree_walk(stage->ws->tree, s->path, compare_within, &in, NULL) < 0 || in.foreign;
}

static void undo_place(struct stage *stage, const struct steps *steps, struct step *s)
{
    struct workspace *ws = stage->ws;
    bool displaced = false;
    bool foreign = s->row.kind == TREE_DIR && !s->from_take && has_foreign(stage, steps, s);

    if (s->displaced) {
        if (tree_place(ws->tree, ws->stage_fd, s->slot.name, s->path, &displaced, NULL) < 0) {
            keep_displaced(stage, s);
            return;
        }
        stage_hold(stage, s->slot.index, displaced);
    } else if (tree_take(ws->tree, s->path, ws->stage_fd, s->slot.name, NULL) == 0) {
        stage_hold(stage, s->slot.index, displaced = true);
    }
    if (foreign && displaced)
        keep_displaced(stage, s);
}

static void undo_take(struct stage *stage, struct step *s)
{
    struct workspace *ws = stage->ws;
    bool displaced = false;

    if (tree_place(ws->tree, ws->stage_fd, s->slot.name, s->path, &displaced, NULL) < 0)
        keep_displaced(stage, s);
    else if (displaced)
        keep_displaced(stage, s); /* something was made under the name meanwhile */
    else
        stage_hold(stage, s->slot.index, false);
}

void apply_undo(struct stage *stage, struct steps *steps)
{
    struct tree *tree = stage->ws->tree;

    for (size_t i = steps->count; i-- > 0;) {
        struct step *s = &steps->items[i];
        if (!s->done)
            continue;
        s->done = false;
        if (s->kind == STEP_TAKE || s->kind == STEP_DROP)
            undo_take(stage, s);
        else if (s->kind == STEP_PLACE)
            undo_place(stage, steps, s);
        else if (s->kind == STEP_MOVE)
            (void)!tree_move(tree, s->to, s->path, false, NULL);
        else if (s->kind == STEP_MKDIR)
            (void)!tree_rmdir(tree, s->path, NULL);
        else if (s->kind == STEP_CHMOD)
            (void)!tree_chmod(tree, s->path, s->old_mode, NULL);
    }
}
