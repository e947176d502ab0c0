/* SPDX-License-Identifier: MIT */
/*
 * Versions that a change set displaced although its sender never had them: what a run wrote while the
 * file was edited on the other side. They lie among the displaced ones, `cf_…` and beside it
 * `cf_….json` with what is known of it, which is written first.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <string.h>
#include <sys/stat.h>

#include "server/sandbox_internal.h"
#include "shared/io.h"
#include "shared/log.h"
#include "shared/path.h"
#include "shared/text.h"

#include "shared/banned.h"

#define PREFIX SANDBOX_KEPT_PREFIX
#define NOTE ".json"
#define NOTE_MAX (64 * 1024)

/* ---- the note beside a version */

static int write_note(const struct sandbox *sb, const struct sandbox_kept *k, struct err *e)
{
    CLEANUP(buf_release) struct buf path;
    char name[SANDBOX_ID_BYTES + 8], hash[HASH_TEXT_BYTES];

    buf_init(&path, 2 * (size_t)PATH_BYTES_MAX);
    if (text_add_base64(&path, k->path, strlen(k->path)) < 0)
        return err_set(e, ENOMEM, "note a displaced version");
    json_t *note = json_pack("{s:s, s:i, s:i, s:I, s:s, s:s, s:I}", "path", buf_str(&path), "kind",
        (int)k->kind, "mode", (int)k->mode, "size", (json_int_t)k->size, "hash",
        hash_text(&k->hash, hash), "run", k->run, "kept_ns", (json_int_t)k->kept_ns);
    CLEANUP(freep) char *text = note ? json_dumps(note, JSON_COMPACT) : NULL;
    json_decref(note);
    if (!text)
        return err_set(e, ENOMEM, "note a displaced version");
    (void)snprintf(name, sizeof name, "%s" NOTE, k->id);
    CLEANUP(fd_closep)
    int fd = openat(sb->ws->displaced_fd, name,
        O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    int r = fd < 0 ? -errno : io_write_all(fd, text, strlen(text));
    return r < 0 ? err_set(e, -r, "note a displaced version") : 0;
}

static bool parse_note(const json_t *note, struct sandbox_kept *ret)
{
    CLEANUP(buf_release) struct buf path;
    const char *coded = json_string_value(json_object_get(note, "path")),
               *hash = json_string_value(json_object_get(note, "hash")),
               *run = json_string_value(json_object_get(note, "run"));

    buf_init(&path, PATH_BYTES_MAX);
    if (!coded || !hash || !run || text_decode_base64(coded, strlen(coded), &path) < 0 ||
        path_check(buf_str(&path), path.len) != PATH_FINE || hash_parse(hash, &ret->hash) < 0)
        return false;
    ret->kind = json_integer_value(json_object_get(note, "kind")) == TREE_SYMLINK ? TREE_SYMLINK
                                                                                  : TREE_FILE;
    ret->mode = (uint32_t)json_integer_value(json_object_get(note, "mode")) & 0777;
    ret->size = (uint64_t)json_integer_value(json_object_get(note, "size"));
    ret->kept_ns = (uint64_t)json_integer_value(json_object_get(note, "kept_ns"));
    (void)snprintf(ret->run, sizeof ret->run, "%s", run);
    ret->path = buf_steal(&path);
    return ret->path != NULL;
}

static bool read_note(const struct sandbox *sb, const char *id, struct sandbox_kept *ret)
{
    CLEANUP(buf_release) struct buf text;
    char name[SANDBOX_ID_BYTES + 8];
    struct stat st;

    *ret = (struct sandbox_kept){.kind = TREE_FILE};
    buf_init(&text, NOTE_MAX);
    (void)snprintf(ret->id, sizeof ret->id, "%s", id);
    (void)snprintf(name, sizeof name, "%s" NOTE, id);
    CLEANUP(fd_closep)
    int fd = openat(sb->ws->displaced_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || io_read_rest(fd, &text) < 0 ||
        fstatat(sb->ws->displaced_fd, id, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return false;
    json_t *note = json_loadb((const char *)text.data, text.len, JSON_REJECT_DUPLICATES, NULL);
    bool good = note && parse_note(note, ret);
    json_decref(note);
    return good;
}

void sandbox_kept_release(struct sandbox_kept *k)
{
    free(ptr_take(&k->path));
}

/* The version first: a note alone means nothing. */
static void drop(struct sandbox *sb, const struct sandbox_kept *k)
{
    char name[SANDBOX_ID_BYTES + 8];
    struct workspace *ws = sb->ws;

    (void)snprintf(name, sizeof name, "%s" NOTE, k->id);
    if (unlinkat(ws->displaced_fd, k->id, 0) == 0)
        ws->kept_bytes -= k->size < ws->kept_bytes ? k->size : ws->kept_bytes;
    (void)unlinkat(ws->displaced_fd, name, 0);
}

/* ---- all of them, oldest first; the turn is held, and the sandbox's identity carried */

struct kept_list {
    struct sandbox_kept items[SANDBOX_KEPT_MAX];
    size_t count;
};

static void list_release(struct kept_list *l)
{
    for (size_t i = 0; l && i < l->count; i++)
        sandbox_kept_release(&l->items[i]);
    free(l);
}

static int by_id(const void *a, const void *b)
{
    return strcmp(((const struct sandbox_kept *)a)->id, ((const struct sandbox_kept *)b)->id);
}

static struct kept_list *list_kept(struct sandbox *sb)
{
    struct kept_list *l = calloc(1, sizeof *l);
    CLEANUP(fd_closep)
    int fd = openat(sb->ws->displaced_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CLEANUP(dir_closep) DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *d;

    if (dir)
        (void)fd_take(&fd);
    while (l && dir && l->count < SANDBOX_KEPT_MAX && (d = readdir(dir)) != NULL) {
        if (!text_is_id(PREFIX, d->d_name))
            continue;
        if (read_note(sb, d->d_name, &l->items[l->count]))
            l->count++;
        else
            sandbox_kept_release(&l->items[l->count]);
    }
    if (l)
        qsort(l->items, l->count, sizeof l->items[0], by_id);
    return l;
}

/* Room for one more of `size` bytes: the oldest go. */
static void make_room(struct sandbox *sb, uint64_t size)
{
    struct kept_list *l = list_kept(sb);

    for (size_t i = 0; l && i < l->count; i++) {
        if (l->count - i >= SANDBOX_KEPT_MAX ||
            sb->ws->kept_bytes + size > SANDBOX_KEPT_BYTES_MAX)
            drop(sb, &l->items[i]);
    }
    list_release(l);
}

static void keep_one(struct sandbox *sb, struct stage *stage, struct step *s,
    const struct plan_op *op)
{
    struct sandbox_kept k = {.path = s->path,
        .kind = s->expect.kind,
        .mode = s->expect.mode & 0777,
        .size = s->expect.size,
        .hash = op->base,
        .kept_ns = io_wall_ns()};
    struct err e = ERR_INIT;

    if (sb->ws->displaced_fd < 0 || (k.kind != TREE_FILE && k.kind != TREE_SYMLINK))
        return;
    text_id_sorted(PREFIX, k.kept_ns / 1000000, k.id, sizeof k.id);
    make_room(sb, k.size);
    int r = store_file_run(sb->all->config.store, sb->num, s->path, k.run, sizeof k.run, &e);
    if (r == 0)
        r = write_note(sb, &k, &e);
    if (r == 0 && renameat(sb->ws->stage_fd, s->slot.name, sb->ws->displaced_fd, k.id) < 0)
        r = err_set(&e, errno, "keep a displaced version");
    if (r < 0) {
        log_warn("a version of '%s' that a change set displaced could not be kept: %s", s->path,
            e.msg);
        drop(sb, &k);
        return;
    }
    (void)snprintf(s->kept, sizeof s->kept, "%s", k.id);
    stage_hold(stage, s->slot.index, false);
    sb->ws->kept_bytes += k.size;
}

static int by_path(const void *a, const void *b)
{
    const struct plan_op *const *x = a, *const *y = b;
    return strcmp((*x)->path, (*y)->path);
}

void sandbox_keep(
    struct sandbox *sb, struct stage *stage, struct steps *steps, const struct set *set)
{
    size_t count = 0;

    for (size_t i = 0; i < set->count; i++)
        count += set->ops[i].keep;
    if (count == 0)
        return;
    CLEANUP(freep) const struct plan_op **ops = calloc(count, sizeof *ops);
    if (!ops)
        return;
    count = 0;
    for (size_t i = 0; i < set->count; i++) {
        if (set->ops[i].keep)
            ops[count++] = &set->ops[i];
    }
    qsort(ops, count, sizeof *ops, by_path);
    for (size_t i = 0; i < steps->count; i++) {
        struct step *s = &steps->items[i];
        const struct plan_op key = {.path = s->path}, *wanted = &key;
        bool holds = s->done && s->expected &&
                     ((s->kind == STEP_PLACE && s->displaced) || s->kind == STEP_DROP);
        const struct plan_op **op =
            holds ? bsearch(&wanted, ops, count, sizeof *ops, by_path) : NULL;
        if (op)
            keep_one(sb, stage, s, *op);
    }
}

/* The set failed after all: the versions go back into their slots, from where they are put back. */
void sandbox_unkeep(struct sandbox *sb, struct stage *stage, struct steps *steps)
{
    struct workspace *ws = sb->ws;

    for (size_t i = 0; i < steps->count; i++) {
        struct step *s = &steps->items[i];
        struct sandbox_kept k = {.size = s->expect.size};
        if (!s->kept[0])
            continue;
        if (renameat(ws->displaced_fd, s->kept, ws->stage_fd, s->slot.name) == 0) {
            stage_hold(stage, s->slot.index, true);
            ws->kept_bytes -= k.size < ws->kept_bytes ? k.size : ws->kept_bytes;
            (void)snprintf(k.id, sizeof k.id, "%s", s->kept);
            drop(sb, &k);
        }
        s->kept[0] = '\0';
    }
}

/* ---- for clients */

struct kept_call {
    struct sandbox *sb;
    const char *id, *run;
    uint64_t before_ns;
    int (*visit)(const struct sandbox_kept *k, void *ctx);
    void *ctx;
    int *ret_fd;
    struct sandbox_kept *ret;
    struct err *e;
};

static int in_turn(struct kept_call *c, int (*work)(struct kept_call *c))
{
    struct tree_identity previous;
    int r = sandbox_enter(c->sb, true, c->e);

    if (r < 0)
        return r;
    (void)pthread_mutex_lock(&c->sb->turn);
    r = tree_identity_enter(c->sb->identity, &previous, c->e);
    if (r == 0) {
        r = work(c);
        tree_identity_leave(previous);
    }
    (void)pthread_mutex_unlock(&c->sb->turn);
    sandbox_exit(c->sb);
    return r;
}

static int do_list(struct kept_call *c)
{
    struct kept_list *l = list_kept(c->sb);
    int r = l ? 0 : err_set(c->e, ENOMEM, "list kept versions");

    for (size_t i = 0; l && i < l->count && r == 0; i++)
        r = c->visit(&l->items[i], c->ctx) ? err_set(c->e, ENOMEM, "list kept versions") : 0;
    list_release(l);
    return r;
}

/* Those of a run, or those from before a time. */
static int do_drop(struct kept_call *c)
{
    struct kept_list *l = list_kept(c->sb);

    for (size_t i = 0; l && i < l->count; i++) {
        if (c->run ? strcmp(c->run, l->items[i].run) == 0 : l->items[i].kept_ns < c->before_ns)
            drop(c->sb, &l->items[i]);
    }
    list_release(l);
    return l ? 0 : err_set(c->e, ENOMEM, "list kept versions");
}

static int refuse(const struct kept_call *c)
{
    return err_refuse(c->e, PROTO_FILE_NOT_FOUND,
        "no kept version '%.40s' in this sandbox: GET …/conflicts lists them", c->id);
}

static int do_open(struct kept_call *c)
{
    if (!text_is_id(PREFIX, c->id) || !read_note(c->sb, c->id, c->ret))
        return refuse(c);
    if (c->ret->kind == TREE_SYMLINK) {
        ssize_t n = readlinkat(c->sb->ws->displaced_fd, c->id, c->ret->target,
            sizeof c->ret->target - 1);
        if (n < 0)
            return refuse(c);
        c->ret->target[n] = '\0';
        return 0;
    }
    *c->ret_fd = openat(c->sb->ws->displaced_fd, c->id, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    return *c->ret_fd < 0 ? refuse(c) : 0;
}

static int do_delete(struct kept_call *c)
{
    struct sandbox_kept k;

    if (!text_is_id(PREFIX, c->id) || !read_note(c->sb, c->id, &k))
        return refuse(c);
    drop(c->sb, &k);
    sandbox_kept_release(&k);
    return 0;
}

int sandbox_kept_list(struct sandbox *sb, int (*visit)(const struct sandbox_kept *k, void *ctx),
    void *ctx, struct err *e)
{
    return in_turn(&(struct kept_call){.sb = sb, .visit = visit, .ctx = ctx, .e = e}, do_list);
}

int sandbox_kept_open(
    struct sandbox *sb, const char *id, int *ret_fd, struct sandbox_kept *ret, struct err *e)
{
    *ret_fd = -1;
    *ret = (struct sandbox_kept){.kind = TREE_FILE};
    return in_turn(
        &(struct kept_call){.sb = sb, .id = id, .ret_fd = ret_fd, .ret = ret, .e = e}, do_open);
}

int sandbox_kept_delete(struct sandbox *sb, const char *id, struct err *e)
{
    return in_turn(&(struct kept_call){.sb = sb, .id = id, .e = e}, do_delete);
}

void sandbox_kept_forget_run(struct sandbox *sb, const char *run)
{
    struct err e = ERR_INIT;

    if (workspace_has_kept(sb->all->workspaces, sb->id, UINT64_MAX) &&
        in_turn(&(struct kept_call){.sb = sb, .run = run, .e = &e}, do_drop) < 0)
        log_warn("versions kept for %s could not be removed: %s", run, e.msg);
}

/* ---- too old */

static struct sandbox **take_all(struct sandboxes *all, size_t *ret_count)
{
    (void)pthread_mutex_lock(&all->lock);
    struct sandbox **list = calloc(HASH_COUNT(all->table) + 1, sizeof(struct sandbox *));
    size_t count = 0;
    for (struct sandbox *sb = all->table; list && sb; sb = sb->hh.next)
        list[count++] = sandbox_ref(sb);
    (void)pthread_mutex_unlock(&all->lock);
    *ret_count = count;
    return list;
}

/* A sandbox that has nothing so old is not opened for it. */
void sandbox_kept_expire(struct sandboxes *all, uint64_t before_ns)
{
    size_t count = 0;
    CLEANUP(freep) struct sandbox **list = take_all(all, &count);

    for (size_t i = 0; i < count; i++) {
        struct kept_call call = {.sb = list[i], .before_ns = before_ns, .e = NULL};
        if (workspace_has_kept(all->workspaces, list[i]->id, before_ns))
            (void)!in_turn(&call, do_drop);
        sandbox_unref(list[i]);
    }
}
