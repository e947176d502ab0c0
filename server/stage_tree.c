/* SPDX-License-Identifier: MIT */
#include "server/stage_tree.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

/* Paths are foreign. The key begins with a secret, which makes the hash one with a secret. */
#define HASH_FUNCTION(key, len, value) ((value) = (unsigned)hash_block64((key), (len)))
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "shared/io.h"
#include "shared/path.h"

#include "shared/banned.h"

/* Where something lies, relative to the staging directory, must be a path the kernel takes. */
#define LOCATION_MAX 4000
#define DIR_MODE_USUAL 0755

struct stage_dir {
    struct stage_dir *parent; /* in whose directory it lies; NULL: it lies in the slot */
    struct stage_slot slot;
    uint64_t ino;
    uint32_t mode;
    bool claimed;
    UT_hash_handle hh;
    size_t len; /* of the path */
    char key[]; /* the secret, then the path */
};

static const char *path_of(const struct stage_dir *dir)
{
    return dir->key + sizeof(uint64_t);
}

const struct stage_slot *stage_dir_slot(const struct stage_dir *dir)
{
    return &dir->slot;
}

uint64_t stage_dir_ino(const struct stage_dir *dir)
{
    return dir->ino;
}

bool stage_tree_holds(const struct stage_dir *parent, const struct stage_dir *dir)
{
    return dir->parent == parent;
}

static struct stage_dir *find(const struct stage *s, const char *path, size_t len)
{
    char key[sizeof(uint64_t) + PATH_BYTES_MAX];
    struct stage_dir *dir;

    if (!s->dirs || len > PATH_BYTES_MAX)
        return NULL;
    memcpy(key, &s->secret, sizeof s->secret);
    memcpy(key + sizeof s->secret, path, len);
    HASH_FIND(hh, s->dirs, key, sizeof s->secret + len, dir);
    return dir;
}

struct stage_dir *stage_tree_find(const struct stage *s, const char *path)
{
    return find(s, path, strlen(path));
}

/* The name of what lies in dir (name NULL: of dir itself) as seen from the staging directory. */
static int locate(const struct stage_dir *dir, const char *name, char *out, size_t size)
{
    const struct stage_dir *top = dir;

    while (top->parent)
        top = top->parent;
    int n = snprintf(out, size, "%s%s%s%s", top->slot.name, path_of(dir) + top->len,
        name ? "/" : "", name ? name : "");
    return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

/* Hold the directory that is worked in: files come folder by folder. */
static int enter(struct stage *s, struct stage_dir *dir)
{
    char at[PATH_MAX];

    if (s->entered == dir)
        return 0;
    int r = locate(dir, NULL, at, sizeof at);
    if (r < 0)
        return r;
    s->entered = NULL;
    fd_closep(&s->entered_fd);
    s->entered_fd = openat(s->ws->stage_fd, at, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (s->entered_fd < 0)
        return -errno;
    s->entered = dir;
    return 0;
}

static struct stage_dir *add(struct stage *s, const char *path, size_t len)
{
    size_t key_len = sizeof s->secret + len;
    struct stage_dir *dir = calloc(1, sizeof *dir + key_len + 1);

    if (!dir)
        return NULL;
    if (!s->secret)
        io_random(&s->secret, sizeof s->secret);
    memcpy(dir->key, &s->secret, sizeof s->secret);
    memcpy(dir->key + sizeof s->secret, path, len);
    dir->len = len;
    HASH_ADD_KEYPTR(hh, s->dirs, dir->key, key_len, dir);
    if (!dir->hh.tbl) {
        free(dir);
        return NULL;
    }
    s->dir_count++;
    s->dir_bytes += len;
    return dir;
}

static void forget(struct stage *s, struct stage_dir *dir)
{
    HASH_DEL(s->dirs, dir);
    free(dir);
}

/* Make the directory on disk: in its parent, or in a slot. 1: it cannot be, stage one by one. */
static int make(struct stage *s, struct stage_dir *dir, uint32_t mode, struct err *e)
{
    int fd = s->ws->stage_fd, r = 0;
    const char *name = dir->slot.name;
    struct stat st;

    if (dir->parent) {
        name = path_base(path_of(dir));
        r = enter(s, dir->parent);
        fd = s->entered_fd;
    } else {
        r = stage_slot(s, &dir->slot, e);
        if (r < 0)
            return r;
    }
    if (r < 0)
        return 1;
    if (mkdirat(fd, name, ((mode ? mode : DIR_MODE_USUAL) & 0777) | 0700) < 0)
        return errno == ENOSPC || errno == EDQUOT
                   ? err_refuse(e, PROTO_NO_SPACE, "the server's disk is full: free space there")
                   : 1;
    if (!dir->parent)
        stage_hold(s, dir->slot.index, true);
    if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return err_set(e, errno, "stat a staged directory");
    dir->ino = st.st_ino;
    dir->mode = st.st_mode & 07777;
    return 0;
}

static bool is_known(struct stage *s, const char *path, size_t len)
{
    char dir[PATH_BYTES_MAX + 1];
    struct manifest_entry row;

    memcpy(dir, path, len);
    dir[len] = '\0';
    return workspace_known(s->ws, dir, &row) && row.kind == TREE_DIR;
}

static size_t parent_len(const char *path, size_t len)
{
    while (len > 0 && path[len - 1] != '/')
        len--;
    return len ? len - 1 : 0;
}

/* The directory path[0..len), made with those above it as needed. *ret NULL: it is no new one. */
static int get(struct stage *s, const char *path, size_t len, uint32_t mode, struct stage_dir **ret,
    struct err *e)
{
    size_t top = len;
    struct stage_dir *dir = NULL;

    *ret = NULL;
    /* Upwards to what is staged already, or to what the workspace has. */
    while (top && !(dir = find(s, path, top)) && !is_known(s, path, top))
        top = parent_len(path, top);
    if (dir && top == len) {
        *ret = dir;
        return 0;
    }
    while (top < len) {
        size_t next = top ? top + 1 : 0;
        while (next < len && path[next] != '/')
            next++;
        if (s->dir_count >= STAGE_TREE_DIRS || s->dir_bytes + next > STAGE_TREE_BYTES)
            return 0;
        struct stage_dir *child = add(s, path, next);
        if (!child)
            return err_set(e, ENOMEM, "stage a change set");
        child->parent = dir;
        int r = make(s, child, next == len ? mode : 0, e);
        if (r != 0) {
            forget(s, child);
            return r < 0 ? r : 0;
        }
        dir = child;
        top = next;
    }
    *ret = dir;
    return 0;
}

int stage_tree_at(
    struct stage *s, const char *path, struct stage_dir **ret, int *ret_fd, struct err *e)
{
    size_t len = path_parent_len(path);
    struct stage_dir *dir = NULL;
    int r = 0;

    *ret = NULL;
    *ret_fd = -1;
    if (len == 0 || strlen(path) > LOCATION_MAX)
        return 0;
    /* Most files lie in the folder of the one before. */
    if (s->entered && s->entered->len == len && memcmp(path_of(s->entered), path, len) == 0)
        dir = s->entered;
    else
        r = get(s, path, len, 0, &dir, e);
    if (r < 0 || !dir)
        return r;
    r = enter(s, dir);
    if (r < 0)
        return err_set(e, -r, "open a staged directory");
    *ret = dir;
    *ret_fd = s->entered_fd;
    return 0;
}

int stage_tree_mkdir(struct stage *s, const char *path, uint32_t mode, struct err *e)
{
    size_t len = strlen(path);
    struct stage_dir *dir;

    if (len > LOCATION_MAX || is_known(s, path, len))
        return 0;
    return get(s, path, len, mode, &dir, e);
}

/* Rename what lies at `from` into a new slot. */
static int lift(struct stage *s, const char *from, struct stage_slot *ret, struct err *e)
{
    int fd = s->ws->stage_fd;
    int r = stage_slot(s, ret, e);

    if (r < 0)
        return r;
    if (renameat(fd, from, fd, ret->name) < 0)
        return err_set(e, errno, "rename a staged entry");
    stage_hold(s, ret->index, true);
    return 0;
}

static int lift_dir(struct stage *s, struct stage_dir *dir, struct err *e)
{
    char at[PATH_MAX];
    int r = locate(dir, NULL, at, sizeof at);

    if (r < 0)
        return err_set(e, -r, "rename a staged directory");
    r = lift(s, at, &dir->slot, e);
    if (r == 0)
        dir->parent = NULL;
    return r;
}

int stage_tree_claim(struct stage *s, struct stage_dir *dir, const struct stage_dir *parent,
    uint32_t mode, struct err *e)
{
    char at[PATH_MAX];
    int r = dir->parent != parent ? lift_dir(s, dir, e) : 0;

    if (r == 0 && mode != (dir->mode & 0777)) {
        r = locate(dir, NULL, at, sizeof at);
        if (r < 0 || fchmodat(s->ws->stage_fd, at, mode | (dir->mode & 07000), 0) < 0)
            return err_set(e, r < 0 ? -r : errno, "give a staged directory its mode");
        dir->mode = mode;
    }
    dir->claimed = r == 0;
    return r;
}

int stage_tree_flatten(struct stage *s, struct staged *staged, struct err *e)
{
    char at[PATH_MAX];

    if (!staged->dir)
        return 0;
    int r = locate(staged->dir, staged->name, at, sizeof at);
    if (r < 0)
        return err_set(e, -r, "rename a staged file");
    r = lift(s, at, &staged->slot, e);
    if (r == 0)
        staged->dir = NULL;
    return r;
}

int stage_tree_trim(struct stage *s, struct err *e)
{
    int r = 0;

    s->entered = NULL;
    fd_closep(&s->entered_fd);
    for (struct stage_dir *dir = s->dirs; r == 0 && dir; dir = dir->hh.next) {
        if (!dir->claimed && dir->parent && dir->parent->claimed)
            r = lift_dir(s, dir, e);
    }
    return r;
}

int stage_tree_open(struct stage *s, const struct staged *staged)
{
    char at[PATH_MAX];
    int r = locate(staged->dir, staged->name, at, sizeof at);

    if (r < 0)
        return r;
    int fd = openat(s->ws->stage_fd, at, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

void stage_tree_release(struct stage *s)
{
    struct stage_dir *dir, *next;

    HASH_ITER(hh, s->dirs, dir, next)
        forget(s, dir);
    s->entered = NULL;
    fd_closep(&s->entered_fd);
}
