/* SPDX-License-Identifier: MIT */
#include "server/workspace.h"
#include "server/workspace_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/statvfs.h>

#include "shared/io.h"
#include "shared/path.h"

#include "shared/banned.h"

#define MARKED_MAX 4
#define SETTLED_NS INT64_C(11000000)
#define LOOKS 3 /* at a name that a program changes meanwhile */

static char *dup_resolved(const char *path)
{
    return realpath(path, NULL);
}

/* Can an entry of `from` be renamed into `to`? The same device is not enough: bind mounts differ.
 */
static bool renames_into(const char *from, const char *to)
{
    CLEANUP(freep) char *a = path_join(from, ".probe");
    CLEANUP(freep) char *b = path_join(to, ".silt-probe");

    if (!a || !b || io_mkdirs(a, 0700, NULL) < 0)
        return false;
    bool yes = rename(a, b) == 0;
    (void)rmdir(yes ? b : a);
    return yes;
}

static int make_dir(const char *parent, const char *name, mode_t mode, char **ret, struct err *e)
{
    CLEANUP(freep) char *path = path_join(parent, name);

    if (!path)
        return err_set(e, ENOMEM, "make a directory");
    int r = io_mkdirs(path, mode, e);
    if (r < 0)
        return r;
    *ret = ptr_take(&path);
    return 0;
}

static int open_roots(
    struct workspaces *all, const char *data_dir, const char *workspace_root, struct err *e)
{
    CLEANUP(freep) char *data = NULL, *beside = NULL;
    int r = io_mkdirs(data_dir, 0711, e);

    if (r == 0)
        r = io_mkdirs(workspace_root, 0711, e);
    if (r < 0)
        return r;
    data = dup_resolved(data_dir);
    all->root = dup_resolved(workspace_root);
    if (!data || !all->root)
        return err_set(e, errno, "resolve '%s'", data_dir);
    r = make_dir(data, "cache", 0711, &all->cache, e);
    if (r == 0)
        r = make_dir(data, "staging", 0711, &all->staging, e);
    if (r == 0 && !renames_into(all->staging, all->root)) {
        free(ptr_take(&all->staging));
        r = make_dir(all->root, ".silt", 0711, &beside, e);
        if (r == 0)
            r = make_dir(beside, "staging", 0711, &all->staging, e);
    }
    if (r < 0)
        return r;
    return make_dir(beside ? beside : data, "displaced", 0711, &all->displaced, e);
}

int workspaces_open(
    const char *data_dir, const char *workspace_root, struct workspaces **ret, struct err *e)
{
    struct workspaces *all = calloc(1, sizeof *all);

    if (!all)
        return err_set(e, ENOMEM, "open the workspaces");
    int r = open_roots(all, data_dir, workspace_root, e);
    if (r < 0) {
        workspaces_free(all);
        return err_wrap(e, "open the workspaces");
    }
    *ret = all;
    return 0;
}

void workspaces_free(struct workspaces *all)
{
    if (!all)
        return;
    free(all->root);
    free(all->cache);
    free(all->staging);
    free(all->displaced);
    free(all);
}

void workspaces_limit(struct workspaces *all, const struct space *most)
{
    all->most = *most;
}

/* A folder of the sandbox's own. Its parent is ours alone, so that names in it are not hostile. */
static int make_owned(
    const char *parent, const char *id, struct tree_identity who, bool *ret_new, struct err *e)
{
    CLEANUP(freep) char *path = path_join(parent, id);
    CLEANUP(fd_closep) int fd = -1;

    if (!path)
        return err_set(e, ENOMEM, "make a folder");
    bool fresh = mkdir(path, 0700) == 0;
    if (!fresh && errno != EEXIST)
        return err_set(e, errno, "make '%s'", path);
    fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return err_set(e, errno, "open '%s'", path);
    if (fchown(fd, who.uid, who.gid) < 0 || fchmod(fd, 0700) < 0)
        return err_set(e, errno, "give '%s' to its sandbox", path);
    if (ret_new)
        *ret_new = fresh;
    return 0;
}

static int open_owned(const char *parent, const char *id, int *ret, struct err *e)
{
    CLEANUP(freep) char *path = path_join(parent, id);

    if (!path)
        return err_set(e, ENOMEM, "open a workspace");
    *ret = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return *ret < 0 ? err_set(e, errno, "open '%s'", path) : 0;
}

/* The folders between which content is renamed belong to one project, or to none. */
static void mark_owned(
    const char *const parents[], const bool fresh[], size_t count, const char *id, uint32_t project)
{
    int fds[MARKED_MAX] = {-1, -1, -1, -1};
    bool open = true;

    for (size_t i = 0; i < count; i++)
        open = open && open_owned(parents[i], id, &fds[i], NULL) == 0;
    if (open)
        space_mark_all(fds, fresh, count, project);
    for (size_t i = 0; i < count; i++)
        fd_closep(&fds[i]);
}

int workspace_make(const struct workspaces *all, const char *id, struct tree_identity identity,
    bool *ret_new, struct err *e)
{
    const char *const parents[] = {all->root, all->staging, all->displaced, all->cache};
    bool fresh[] = {false, false, false, false};
    int r = 0;

    for (size_t i = 0; r == 0 && i < 4; i++)
        r = make_owned(parents[i], id, identity, &fresh[i], e);
    if (r == 0 && all->most.bytes > 0 && identity.uid != geteuid()) {
        mark_owned(parents, fresh, 3, id, identity.uid);
        mark_owned(parents + 3, fresh + 3, 1, id, identity.uid);
    }
    if (r == 0 && ret_new)
        *ret_new = fresh[0];
    return r;
}

static int count_displaced(int dir_fd, unsigned *ret, uint64_t *ret_kept_bytes, struct err *e)
{
    CLEANUP(fd_closep) int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CLEANUP(dir_closep) DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *d;

    if (!dir)
        return err_set(e, errno, "read a directory");
    (void)fd_take(&fd);
    while ((d = readdir(dir)) != NULL) {
        struct stat st;
        bool kept = strncmp(d->d_name, WORKSPACE_KEPT_PREFIX, strlen(WORKSPACE_KEPT_PREFIX)) == 0;
        *ret += d->d_name[0] != '.' && !kept;
        if (kept && fstatat(dirfd(dir), d->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0)
            *ret_kept_bytes += (uint64_t)st.st_size;
    }
    return 0;
}

static int open_all(
    struct workspace *ws, const struct workspaces *all, const char *id, struct err *e)
{
    ws->path = path_join(all->root, id);
    ws->cache_path = path_join(all->cache, id);
    ws->manifest = manifest_new();
    if (!ws->path || !ws->cache_path || !ws->manifest)
        return err_set(e, ENOMEM, "open a workspace");
    int r = open_owned(all->staging, id, &ws->stage_fd, e);
    if (r == 0)
        r = open_owned(all->displaced, id, &ws->displaced_fd, e);
    if (r == 0)
        r = count_displaced(ws->displaced_fd, &ws->displaced_count, &ws->kept_bytes, e);
    if (r == 0)
        r = tree_open(ws->cache_path, &ws->cache, e);
    if (r == 0)
        r = tree_open(ws->path, &ws->tree, e);
    if (r == 0)
        workspace_limit(ws, &all->most);
    return r;
}

int workspace_open(const struct workspaces *all, const char *id, struct tree_identity identity,
    struct workspace **ret, struct err *e)
{
    struct workspace *ws = calloc(1, sizeof *ws);

    if (!ws)
        return err_set(e, ENOMEM, "open a workspace");
    ws->stage_fd = ws->displaced_fd = -1;
    ws->identity = identity;
    (void)pthread_mutex_init(&ws->lock, NULL);
    int r = open_all(ws, all, id, e);
    if (r < 0) {
        workspace_free(ws);
        return r;
    }
    *ret = ws;
    return 0;
}

void workspace_free(struct workspace *ws)
{
    if (!ws)
        return;
    tree_free(ws->tree);
    tree_free(ws->cache);
    fd_closep(&ws->stage_fd);
    fd_closep(&ws->displaced_fd);
    manifest_free(ws->manifest);
    free(ws->path);
    free(ws->cache_path);
    (void)pthread_mutex_destroy(&ws->lock);
    free(ws);
}

int workspace_destroy(const struct workspaces *all, const char *id, struct err *e)
{
    const char *parents[] = {all->root, all->cache, all->staging, all->displaced};

    for (size_t i = 0; i < sizeof parents / sizeof parents[0]; i++) {
        CLEANUP(fd_closep) int fd = open(parents[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
            return err_set(e, errno, "open '%s'", parents[i]);
        int r = tree_remove_at(fd, id, e);
        if (r < 0)
            return err_wrap(e, "remove '%s/%s'", parents[i], id);
    }
    return 0;
}

int workspace_clear_staging(struct workspace *ws, bool (*keep)(const char *name), struct err *e)
{
    CLEANUP(fd_closep) int fd = openat(ws->stage_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CLEANUP(dir_closep) DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *d;
    if (!dir)
        return err_set(e, errno, "read the staging directory");
    (void)fd_take(&fd);
    while ((d = readdir(dir)) != NULL) {
        if (!strcmp(d->d_name, ".") || !strcmp(d->d_name, "..") || (keep && keep(d->d_name)))
            continue;
        int r = tree_remove_at(ws->stage_fd, d->d_name, e);
        if (r < 0)
            return err_wrap(e, "clear the staging directory");
    }
    return 0;
}

void workspace_unlock(struct workspace *ws)
{
    const struct tree *roots[] = {ws->tree, ws->cache};
    struct stat st;

    for (size_t i = 0; i < sizeof roots / sizeof roots[0]; i++) {
        if (fstat(tree_fd(roots[i]), &st) == 0 && (st.st_mode & 07777) != 0700)
            (void)!tree_chmod_root(roots[i], 0700, NULL);
    }
}

int workspace_make_cache(struct workspace *ws, struct err *e)
{
    static const char *const dirs[] = {"home", "pyc", "go", "npm", "pip"};
    struct tree_identity previous;
    int r = tree_identity_enter(ws->identity, &previous, e);

    if (r < 0)
        return r;
    workspace_unlock(ws);
    for (size_t i = 0; r == 0 && i < sizeof dirs / sizeof dirs[0]; i++) {
        r = tree_mkdir(ws->cache, dirs[i], 0755, e);
        if (r == -EEXIST)
            r = 0;
    }
    tree_identity_leave(previous);
    return r;
}

int workspace_free_bytes(const struct workspace *ws, uint64_t *ret, struct err *e)
{
    struct statvfs fs;
    /* In a folder of a project the kernel tells what is left of the project, not of the disk. */
    CLEANUP(fd_closep) int above = openat(ws->stage_fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (above < 0 || fstatvfs(above, &fs) < 0)
        return err_set(e, errno, "ask for free space");
    *ret = (uint64_t)fs.f_bavail * fs.f_frsize;
    return 0;
}

bool workspace_known(struct workspace *ws, const char *path, struct manifest_entry *ret)
{
    (void)pthread_mutex_lock(&ws->lock);
    const struct manifest_entry *row = manifest_get(ws->manifest, path);
    if (row) {
        *ret = *row;
        ret->path = ret->target = NULL;
    }
    (void)pthread_mutex_unlock(&ws->lock);
    return row != NULL;
}

bool workspace_known_children(struct workspace *ws, const char *dir)
{
    (void)pthread_mutex_lock(&ws->lock);
    bool has = manifest_has_children(ws->manifest, dir);
    (void)pthread_mutex_unlock(&ws->lock);
    return has;
}

int workspace_count_locked(struct workspace *ws)
{
    size_t count = 0;
    const struct manifest_entry **rows = manifest_sorted(ws->manifest, &count);

    if (!rows)
        return -ENOMEM;
    ws->files = 0;
    for (size_t i = 0; i < count; i++)
        ws->files += rows[i]->kind != TREE_DIR;
    free(rows);
    return 0;
}

/* Give the directories above path their owner's rights back, from the top down. */
static void unlock_parents(struct workspace *ws, const char *path)
{
    char dir[PATH_BYTES_MAX + 1];
    struct tree_stat st;

    workspace_unlock(ws);
    for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        size_t len = (size_t)(slash - path);
        if (len >= sizeof dir)
            return;
        memcpy(dir, path, len);
        dir[len] = '\0';
        if (tree_stat(ws->tree, dir, &st, NULL) == 0 && st.kind == TREE_DIR &&
            (st.mode & 0700) != 0700)
            (void)!tree_chmod(ws->tree, dir, st.mode | 0700, NULL);
    }
}

int workspace_stat(struct workspace *ws, const char *path, struct tree_stat *ret, struct err *e)
{
    int r = tree_stat(ws->tree, path, ret, e);

    if (r != -EACCES)
        return r;
    unlock_parents(ws, path);
    return tree_stat(ws->tree, path, ret, e);
}

int workspace_open_file(
    struct workspace *ws, const char *path, int *ret_fd, struct tree_stat *ret_stat, struct err *e)
{
    struct tree_stat st;
    int r = tree_open_file(ws->tree, path, ret_fd, ret_stat, e);

    if (r != -EACCES)
        return r;
    unlock_parents(ws, path);
    if (tree_stat(ws->tree, path, &st, NULL) == 0 && st.kind == TREE_FILE && !(st.mode & 0400))
        (void)!tree_chmod(ws->tree, path, st.mode | 0400, NULL);
    return tree_open_file(ws->tree, path, ret_fd, ret_stat, e);
}

static int hash_link(
    struct workspace *ws, const char *path, struct hash *ret, char **ret_target, struct err *e)
{
    CLEANUP(buf_release) struct buf target;

    buf_init(&target, PATH_BYTES_MAX);
    int r = tree_readlink(ws->tree, path, &target, e);
    if (r < 0)
        return r;
    hash_buf(buf_str(&target), target.len, ret);
    if (ret_target && !(*ret_target = strdup(buf_str(&target))))
        return err_set(e, ENOMEM, "read a symlink");
    return 0;
}

static bool same_stat(const struct tree_stat *a, const struct tree_stat *b)
{
    return a->ino == b->ino && a->size == b->size && a->mtime_ns == b->mtime_ns &&
           a->ctime_ns == b->ctime_ns;
}

static int hash_file(struct workspace *ws, const char *path, struct hash *ret,
    struct tree_stat *ret_stat, struct err *e)
{
    for (int attempt = 0; attempt < LOOKS; attempt++) {
        CLEANUP(fd_closep) int fd = -1;
        struct stat st;
        struct tree_stat after;
        int r = workspace_open_file(ws, path, &fd, ret_stat, e);
        if (r == 0)
            r = hash_fd(fd, ret, NULL, e);
        if (r < 0)
            return r;
        if (fstat(fd, &st) < 0)
            return err_set(e, errno, "stat '%s'", path);
        tree_stat_of(&st, &after);
        if (same_stat(ret_stat, &after))
            return 0;
    }
    return err_set(e, EAGAIN, "read '%s', which a program keeps changing", path);
}

static int hash_once(struct workspace *ws, const char *path, struct hash *ret,
    struct tree_stat *ret_stat, char **ret_target, struct err *e)
{
    struct manifest_entry row;
    int r = workspace_stat(ws, path, ret_stat, e);

    if (r < 0)
        return r;
    if (ret_stat->kind == TREE_SYMLINK)
        return hash_link(ws, path, ret, ret_target, e);
    if (ret_stat->kind != TREE_FILE) {
        memset(ret, 0, sizeof *ret);
        return 0;
    }
    if (workspace_known(ws, path, &row) && manifest_unchanged(&row, ret_stat)) {
        *ret = row.hash;
        return 0;
    }
    return hash_file(ws, path, ret, ret_stat, e);
}

int workspace_hash(struct workspace *ws, const char *path, struct hash *ret,
    struct tree_stat *ret_stat, char **ret_target, struct err *e)
{
    for (int attempt = 0; attempt < LOOKS; attempt++) {
        int r = hash_once(ws, path, ret, ret_stat, ret_target, e);
        if (r != -EINVAL) /* it was a symlink, and is none any more */
            return r;
    }
    return err_set(e, EAGAIN, "read '%s', which a program keeps changing", path);
}

void workspace_settle(struct manifest_entry *row, const struct tree_stat *st)
{
    int64_t latest = st->mtime_ns > st->ctime_ns ? st->mtime_ns : st->ctime_ns;

    row->mtime_ns = st->mtime_ns;
    row->ctime_ns = st->ctime_ns;
    row->ino = st->ino;
    row->seen_ns = latest + SETTLED_NS;
}
