/* SPDX-License-Identifier: MIT */
#include "server/sandbox_views.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "server/sandbox_internal.h"
#include "shared/io.h"

#include "shared/banned.h"

#define FOLDER WORKSPACE_VIEWS
#define LISTED_MAX 1000
/* So often a snapshot follows while change sets may land; what is left then is followed in turn. */
#define PASSES_MAX 3
#define FEW 32

/* ---- snapshots; the lock of the views is held */

/* What an earlier server left goes first. */
static int ensure_folder(struct sandbox *sb, struct err *e)
{
    int parent = sb->ws->stage_fd;
    if (sb->views.fd >= 0)
        return 0;
    int r = tree_remove_at(parent, FOLDER, e);
    if (r < 0)
        return r;
    if (mkdirat(parent, FOLDER, 0711) < 0)
        return err_set(e, errno, "make a folder for views");
    sb->views.fd = openat(parent, FOLDER, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    /* The sandbox's own, so that its share of the disk can be looked at with its identity. */
    if (sb->views.fd < 0 || fchown(sb->views.fd, sb->identity.uid, sb->identity.gid) < 0)
        return err_set(e, errno, "make a folder for views");
    return 0;
}

static void drop(struct sandbox *sb, struct snapshot *s)
{
    struct snapshot **link = &sb->views.snapshots;
    while (*link != s)
        link = &(*link)->next;
    *link = s->next;
    snapshot_free(s, true);
}

static size_t count_snapshots(const struct sandbox *sb, uint64_t *ret_bytes)
{
    size_t count = 0;
    *ret_bytes = 0;
    for (const struct snapshot *s = sb->views.snapshots; s; s = s->next) {
        count++;
        *ret_bytes += manifest_bytes(s->manifest);
    }
    return count;
}

/* How much a snapshot may hold beside the workspace. */
static uint64_t room(struct sandbox *sb)
{
    uint64_t most = sb->all->config.max_workspace_bytes;
    (void)pthread_mutex_lock(&sb->ws->lock);
    uint64_t used = manifest_bytes(sb->ws->manifest);
    (void)pthread_mutex_unlock(&sb->ws->lock);
    return used < most ? most - used : 0;
}

/* Passes while others may change the workspace, then one while nobody may. */
static int follow(struct sandbox *sb, struct snapshot *s, struct err *e)
{
    uint64_t most = room(sb);
    size_t count = FEW;
    int r = 0;
    for (int pass = 0; r == 0 && pass < PASSES_MAX && count >= FEW; pass++)
        r = snapshot_follow(s, most, &count, e);
    if (r < 0)
        return r;
    (void)pthread_mutex_lock(&sb->turn);
    r = snapshot_follow(s, most, &count, e);
    s->generation = sb->generation;
    (void)pthread_mutex_unlock(&sb->turn);
    return r;
}

/* The generation without a change is another one too: an epoch, a folder's time. */
static uint64_t generation_now(struct sandbox *sb)
{
    (void)pthread_mutex_lock(&sb->lock);
    uint64_t generation = sb->generation;
    (void)pthread_mutex_unlock(&sb->lock);
    return generation;
}

static int make_another(struct sandbox *sb, struct err *e)
{
    struct snapshot *newest = sb->views.snapshots, *s = NULL;
    char name[SNAPSHOT_NAME_BYTES];
    uint64_t bytes;
    for (s = newest; s; s = s->next) {
        if (s != newest && s->users == 0) {
            drop(sb, s);
            break;
        }
    }
    if (count_snapshots(sb, &bytes) >= SANDBOX_SNAPSHOTS_MAX)
        return err_refuse(e, PROTO_BUSY,
            "runs with 'view': 'snapshot' hold %d generations of this sandbox: try again when some "
            "have ended",
            SANDBOX_SNAPSHOTS_MAX);
    (void)snprintf(name, sizeof name, "s%llu", (unsigned long long)++sb->views.made);
    int r = snapshot_new(sb->ws, sb->views.fd, name, newest, &s, e);
    if (r < 0)
        return r;
    s->next = newest;
    sb->views.snapshots = s;
    return 0;
}

/* The newest, up to date; counted in. */
static int take_snapshot(struct sandbox *sb, struct snapshot **ret, struct err *e)
{
    struct snapshot *s = sb->views.snapshots;
    int r = ensure_folder(sb, e);
    if (r == 0 && s && snapshot_current(s) && s->generation == generation_now(sb)) {
        s->users++;
        *ret = s;
        return 0;
    }
    if (r == 0 && (!s || s->users > 0))
        r = make_another(sb, e);
    if (r < 0)
        return r;
    s = sb->views.snapshots;
    r = follow(sb, s, e);
    if (r < 0) {
        drop(sb, s);
        return r;
    }
    s->users = 1;
    *ret = s;
    return 0;
}

static void give_snapshot(struct sandbox *sb, struct snapshot *s)
{
    uint64_t most = sb->all->config.max_workspace_bytes, left = room(sb), used;
    (void)pthread_mutex_lock(&sb->views.lock);
    s->users--;
    s->used_ns = io_now_ns();
    (void)count_snapshots(sb, &used);
    bool large = left < most / 2 || used > left - most / 2;
    if (s->users == 0 && (s != sb->views.snapshots || large))
        drop(sb, s);
    (void)pthread_mutex_unlock(&sb->views.lock);
}

unsigned sandbox_views_trim(struct sandbox *sb)
{
    unsigned count = 0;
    (void)pthread_mutex_lock(&sb->views.lock);
    for (struct snapshot *s = sb->views.snapshots, *next; s; s = next) {
        next = s->next;
        if (s->users > 0)
            continue;
        drop(sb, s);
        count++;
    }
    (void)pthread_mutex_unlock(&sb->views.lock);
    return count;
}

void sandbox_views_free(struct sandbox *sb)
{
    while (sb->views.snapshots)
        drop(sb, sb->views.snapshots);
    fd_closep(&sb->views.fd);
    if (sb->ws)
        (void)unlinkat(sb->ws->stage_fd, FOLDER, AT_REMOVEDIR);
}

/* A sandbox with one that is idle for too long; a reference. */
static struct sandbox *find_idle(struct sandboxes *all, uint64_t now_ns)
{
    struct sandbox *found = NULL;
    (void)pthread_mutex_lock(&all->lock);
    for (struct sandbox *sb = all->table; sb && !found; sb = sb->hh.next) {
        /* Whoever holds it makes or removes a snapshot, which takes time. */
        if (pthread_mutex_trylock(&sb->views.lock) != 0)
            continue;
        for (const struct snapshot *s = sb->views.snapshots; s && !found; s = s->next) {
            if (s->users == 0 && s->used_ns + SANDBOX_SNAPSHOT_IDLE_NS <= now_ns)
                found = sandbox_ref(sb);
        }
        (void)pthread_mutex_unlock(&sb->views.lock);
    }
    (void)pthread_mutex_unlock(&all->lock);
    return found;
}

unsigned sandbox_views_expire(struct sandboxes *all, uint64_t now_ns)
{
    unsigned count = 0;
    for (struct sandbox *sb; (sb = find_idle(all, now_ns)) != NULL;) {
        count += sandbox_views_trim(sb);
        sandbox_unref(sb);
    }
    return count;
}

/* ---- a run's */

int sandbox_view_open(
    struct sandbox *sb, const char *run, struct view **ret, uint64_t *ret_generation, struct err *e)
{
    struct snapshot *s = NULL;
    (void)pthread_mutex_lock(&sb->views.lock);
    int r = take_snapshot(sb, &s, e);
    (void)pthread_mutex_unlock(&sb->views.lock);
    if (r < 0)
        return r;
    *ret_generation = s->generation;
    r = view_new(sb->ws, sb->views.fd, s, run, ret, e);
    if (r < 0)
        give_snapshot(sb, s);
    return r;
}

void sandbox_view_close(struct sandbox *sb, struct view *v)
{
    struct snapshot *s = v->snapshot;
    view_free(v);
    if (s)
        give_snapshot(sb, s);
}

int sandbox_view_attach(
    struct sandbox *sb, struct view *v, int fd, struct sandbox_mounts *mounts, struct err *e)
{
    (void)sb;
    int r = view_attach(v, fd, e);
    if (r < 0)
        return r;
    tree_root_id(v->merged.tree, &mounts->workspace_dev, &mounts->workspace_ino);
    mounts->generation = v->snapshot->generation;
    return 0;
}

int sandbox_view_try(
    struct sandbox *sb, struct view *v, const struct changes_feed *feed, struct err *e)
{
    const struct sandboxes_config *config = &sb->all->config;
    return view_apply(v, feed, config->max_workspace_bytes, config->min_free_bytes, e);
}

/* ---- the end */

void sandbox_view_end_release(struct sandbox_view_end *end)
{
    for (size_t i = 0; i < end->conflict_count; i++)
        free(end->conflicts[i]);
    end->conflict_count = 0;
}

/* Folders are not listed: of what became of a name only its files are. */
static bool describe(const struct view_change *c, struct sandbox_changed_file *ret)
{
    bool had = c->had && c->base_kind != TREE_DIR, have = c->have && c->kind != TREE_DIR;
    *ret = (struct sandbox_changed_file){.change = !have ? SANDBOX_DELETED
                                                   : had ? SANDBOX_MODIFIED
                                                         : SANDBOX_CREATED,
        .kind = have ? c->kind : c->base_kind,
        .size = have ? c->size : 0,
        .hash = have ? c->hash : c->base};
    return had || have;
}

static int list_changes(const struct view *v, struct sandbox_run_changes *ret, struct err *e)
{
    size_t most = v->count < LISTED_MAX ? v->count : LISTED_MAX;
    ret->files = calloc(most + 1, sizeof *ret->files);
    if (!ret->files)
        return err_set(e, ENOMEM, "list what changed");
    for (size_t i = 0; i < v->count; i++) {
        struct sandbox_changed_file file;
        if (!describe(&v->changes[i], &file) || ret->total++ >= most)
            continue;
        file.path = strdup(v->changes[i].path);
        if (!file.path)
            return err_set(e, ENOMEM, "list what changed");
        ret->files[ret->count++] = file;
    }
    return 0;
}

static void take_conflicts(struct sandbox_apply_result *result, struct sandbox_view_end *end)
{
    for (size_t i = 0;
         i < result->conflict_count && end->conflict_count < SANDBOX_VIEW_CONFLICTS_MAX; i++)
        end->conflicts[end->conflict_count++] = ptr_take(&result->conflicts[i].path);
}

/* The workspace is not what the snapshot was: another generation, or what is in no manifest. */
static void tell_conflicts(const struct sandbox_apply_result *result, const struct view *v,
    struct sandbox_view_end *end)
{
    size_t count = result->conflict_count;
    const char *first = end->conflicts[0] ? end->conflicts[0] : "";
    uint64_t generation = v->snapshot->generation;
    bool hidden = result->conflicts[0].kind == TREE_OTHER || result->generation == generation;

    if (hidden)
        (void)snprintf(end->reason, sizeof end->reason,
            "%zu path%s that it changed %s taken in the workspace by what no snapshot shows (a "
            "socket, a FIFO, a device, or what another run is writing there), the first is '%.200s': "
            "remove that there",
            count, count == 1 ? "" : "s", count == 1 ? "is" : "are", first);
    else
        (void)snprintf(end->reason, sizeof end->reason,
            "%zu path%s that it changed %s changed in the workspace since generation %llu as well, "
            "the first is '%.200s': run it again",
            count, count == 1 ? "" : "s", count == 1 ? "was" : "were",
            (unsigned long long)generation, first);
}

/* One change set, whole or not at all. */
static void commit(struct sandbox *sb, struct view *v, const char *run,
    struct sandbox_run_changes *changes, struct sandbox_view_end *end)
{
    const struct changes_begin begin = {.if_generation = CHANGES_NO_GENERATION};
    const struct sandbox_origin origin = {.run = run, .claim = view_claim, .ctx = v};
    struct changes_feed feed = view_feed(v);
    struct sandbox_apply_result result = {.generation = 0};
    struct err e = ERR_INIT;
    int r = sandbox_apply_from(sb, &begin, &feed, &origin, &result, &e);
    end->kept = r == 0;
    if (r == 0) {
        changes->generation = result.generation;
    } else if (result.conflict_count > 0) {
        take_conflicts(&result, end);
        tell_conflicts(&result, v, end);
    } else {
        (void)snprintf(end->reason, sizeof end->reason, "%s", e.msg);
    }
    sandbox_apply_result_release(&result);
}

int sandbox_view_leave(struct sandbox *sb, struct view *v, bool keep, const char *run,
    struct sandbox_run_changes *ret, struct sandbox_view_end *end, struct err *e)
{
    const struct scan_budget budget = {.entries = sb->all->config.max_workspace_files,
        .hash_bytes = sb->all->config.max_workspace_bytes};
    *ret = (struct sandbox_run_changes){.generation = 0};
    *end = (struct sandbox_view_end){.kept = false};
    int r = view_look(v, &budget, e);
    ret->generation = generation_now(sb);
    ret->full = workspace_full(sb->ws);
    ret->incomplete = v->incomplete;
    if (r == 0)
        r = list_changes(v, ret, e);
    if (r == 0 && keep && v->incomplete)
        (void)snprintf(end->reason, sizeof end->reason,
            "what it wrote cannot be read in full: too many or too large files, or names too long");
    else if (r == 0 && keep && v->count > 0)
        commit(sb, v, run, ret, end);
    else if (r == 0)
        end->kept = keep;
    /* The overlay may be there a while longer, until the container is removed; but nobody looks. */
    give_snapshot(sb, ptr_take(&v->snapshot));
    sandbox_run_abandon(sb);
    return r;
}
