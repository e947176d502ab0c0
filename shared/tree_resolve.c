/* SPDX-License-Identifier: MIT */
#include "shared/tree_internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shared/path.h"
#include "shared/weaken.h"

#include "shared/banned.h"

#define SWAPS_MAX 16 /* of one name, while it is opened */
#define RESOLVE_SAFE (RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS)

static _Atomic unsigned lacking;

void tree_test_lacks(unsigned what)
{
    atomic_store(&lacking, what);
}

void tree_test_no_openat2(bool on)
{
    if (on)
        (void)atomic_fetch_or(&lacking, TREE_LACKS_OPENAT2);
    else
        (void)atomic_fetch_and(&lacking, ~TREE_LACKS_OPENAT2);
}

bool tree_lacks(unsigned what)
{
    return (atomic_load_explicit(&lacking, memory_order_relaxed) & what) != 0;
}

void tree_assert_path(const char *path)
{
    assert(path[0] == '\0' || path_check(path, strlen(path)) == PATH_FINE);
    (void)path;
}

void tree_assert_name(const char *name)
{
    assert(path_check(name, strlen(name)) == PATH_FINE && !strchr(name, '/'));
    (void)name;
}

const char *tree_shown(const char *path)
{
    return path[0] ? path : ".";
}

/* -ENOSYS and -EPERM mean that nobody answered: no such call, or a filter that refuses it. The call
 * itself knows no EPERM for the flags used here. */
static int open_by_kernel(int dir_fd, const char *path, int flags, uint64_t resolve)
{
    struct open_how how = {.flags = (unsigned)(flags | O_CLOEXEC), .resolve = resolve};
    long fd;
    if (tree_lacks(TREE_LACKS_OPENAT2))
        return -ENOSYS;
    do {
        fd = syscall(SYS_openat2, dir_fd, path, &how, sizeof(how));
    } while (fd < 0 && errno == EINTR);
    return fd < 0 ? -errno : (int)fd;
}

static bool unanswered(int r)
{
    return r == -ENOSYS || r == -EPERM;
}

static int open_retried(int dir_fd, const char *name, int flags)
{
    int fd;
    do {
        fd = openat(dir_fd, name, flags | O_NOFOLLOW | O_CLOEXEC);
    } while (fd < 0 && errno == EINTR);
    return fd < 0 ? -errno : fd;
}

/* openat with O_NOFOLLOW. The kernel says ENOTDIR for a symlink where a directory was asked for:
 * tell the two apart, so that both ways of resolving answer alike. A directory by now means that
 * the name was swapped under our hands. */
static int open_here(int dir_fd, const char *name, int flags)
{
    for (int i = 0; i < SWAPS_MAX; i++) {
        struct stat st;
        int fd = open_retried(dir_fd, name, flags);
        if (fd != -ENOTDIR)
            return fd;
        if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0)
            return -errno;
        if (!S_ISDIR(st.st_mode))
            return S_ISLNK(st.st_mode) ? -ELOOP : -ENOTDIR;
    }
    return -ELOOP;
}

int tree_step(int dir_fd, const char *name)
{
    return open_here(dir_fd, name, O_PATH | O_DIRECTORY);
}

/* Each component is opened relative to the descriptor of the one before, which stays open until
 * then: no string is ever resolved twice, and without ".." and symlinks there is no way up. */
static int open_by_steps(int root, const char *path, int flags)
{
    CLEANUP(fd_closep) int held = -1;
    const char *name = path;
    for (const char *slash; (slash = strchr(name, '/')); name = slash + 1) {
        char component[PATH_NAME_MAX + 1];
        size_t len = (size_t)(slash - name);
        if (len > PATH_NAME_MAX)
            return -ENAMETOOLONG;
        memcpy(component, name, len);
        component[len] = '\0';
        int next = tree_step(held < 0 ? root : held, component);
        if (next < 0)
            return next;
        fd_closep(&held);
        held = next;
    }
    return open_here(held < 0 ? root : held, name, flags);
}

int tree_beneath(const struct tree *t, const char *path, int flags)
{
    tree_assert_path(path);
    int r = open_by_kernel(t->fd, tree_shown(path), flags, WEAK("symlinks") ? 0 : RESOLVE_SAFE);
    if (unanswered(r))
        r = open_by_steps(t->fd, tree_shown(path), flags);
    return r;
}

int tree_child_dir(int dir_fd, const char *name, int flags)
{
    struct stat above;
    struct stat below;
    int r = open_by_kernel(dir_fd, name, flags | O_DIRECTORY, RESOLVE_SAFE | RESOLVE_NO_XDEV);
    if (!unanswered(r))
        return r;
    CLEANUP(fd_closep) int fd = open_here(dir_fd, name, flags | O_DIRECTORY);
    if (fd < 0)
        return fd;
    if (fstat(dir_fd, &above) < 0 || fstat(fd, &below) < 0)
        return -errno;
    if (above.st_dev != below.st_dev)
        return -EXDEV;
    return fd_take(&fd);
}

int tree_parent(const struct tree *t, const char *path, struct tree_parent *ret)
{
    char dir[PATH_BYTES_MAX + 1];
    const char *slash = strrchr(path, '/');
    tree_assert_path(path);
    if (path[0] == '\0')
        return -EINVAL;
    if (!slash) {
        *ret = (struct tree_parent){.fd = t->fd, .held = -1, .name = path};
        return 0;
    }
    size_t len = (size_t)(slash - path);
    if (len >= sizeof(dir))
        return -ENAMETOOLONG;
    memcpy(dir, path, len);
    dir[len] = '\0';
    int fd = tree_beneath(t, dir, O_PATH | O_DIRECTORY);
    if (fd < 0)
        return fd;
    *ret = (struct tree_parent){.fd = fd, .held = fd, .name = slash + 1};
    return 0;
}

void tree_parent_closep(struct tree_parent *p)
{
    fd_closep(&p->held);
    p->fd = -1;
}
