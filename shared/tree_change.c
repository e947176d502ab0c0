/* SPDX-License-Identifier: MIT */
#include "shared/tree_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shared/path.h"

#include "shared/banned.h"

/* Linux 6.6; the same number on every architecture that came after the unification of 2019.
 * Debian 12's headers do not know it yet. */
#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif

#define MODE_MASK 0777u                 /* set-id and sticky bits come from nobody */
#define MODE_DIR_MIN 0700u              /* or we could not get in again */
#define MODE_FILE_MIN 0400u             /* or it could not be read again */
#define MODE_DIR_KEPT (02000u | 01000u) /* a directory's own setgid and sticky bits stay */
#define STEP_TRIES 16 /* against a program that makes and removes a name in turn */

int tree_set_mode(int fd, uint32_t mode)
{
    char link[32];
    if (!tree_lacks(TREE_LACKS_FCHMODAT2)) {
        if (syscall(SYS_fchmodat2, fd, "", (mode_t)mode, AT_EMPTY_PATH) == 0)
            return 0;
        if (errno != ENOSYS && errno != EPERM)
            return -errno;
    }
    /* fchmod refuses O_PATH descriptors. The link in /proc leads to what the descriptor holds,
     * whatever became of the name. */
    int n = snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    if (n < 0 || (size_t)n >= sizeof(link))
        return -EINVAL;
    if (chmod(link, (mode_t)mode) == 0)
        return 0;
    return errno == ENOENT ? -ENOSYS : -errno; /* /proc is not mounted */
}

int tree_grant(int dir_fd, const char *name)
{
    struct stat st;
    CLEANUP(fd_closep) int fd = tree_child_dir(dir_fd, name, O_PATH);
    if (fd < 0)
        return fd;
    if (fstat(fd, &st) < 0)
        return -errno;
    if ((st.st_mode & MODE_DIR_MIN) == MODE_DIR_MIN)
        return -EACCES;
    return tree_set_mode(fd, (st.st_mode & 07777u) | MODE_DIR_MIN);
}

/* fd is a directory; what umask took away or the parent added is put right. */
static int set_dir_mode(int fd, uint32_t mode)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    uint32_t want = (mode & MODE_MASK) | MODE_DIR_MIN | (st.st_mode & MODE_DIR_KEPT);
    return want == (st.st_mode & 07777u) ? 0 : tree_set_mode(fd, want);
}

/* mkdir, and hold what was made. -EEXIST if something is there. */
static int make_dir_at(int dir_fd, const char *name, uint32_t mode, int *ret_fd)
{
    if (mkdirat(dir_fd, name, (mode_t)((mode & MODE_MASK) | MODE_DIR_MIN)) < 0)
        return -errno;
    CLEANUP(fd_closep) int fd = tree_step(dir_fd, name);
    if (fd < 0)
        return fd;
    int r = set_dir_mode(fd, mode);
    if (r < 0)
        return r;
    *ret_fd = fd_take(&fd);
    return 0;
}

int tree_mkdir(const struct tree *t, const char *path, uint32_t mode, struct err *e)
{
    CLEANUP(tree_parent_closep) struct tree_parent p = TREE_PARENT_INIT;
    CLEANUP(fd_closep) int fd = -1;
    int r = path[0] ? tree_parent(t, path, &p) : -EEXIST;
    if (r == 0)
        r = make_dir_at(p.fd, p.name, mode, &fd);
    return r < 0 ? err_set(e, -r, "make the directory '%s'", tree_shown(path)) : 0;
}

/* The directory `name`, made if it is missing. The descriptor, or -errno. */
static int step_or_make(int dir_fd, const char *name)
{
    int r = -EBUSY;
    for (int i = 0; i < STEP_TRIES; i++) {
        int fd = tree_step(dir_fd, name);
        if (fd != -ENOENT)
            return fd;
        r = make_dir_at(dir_fd, name, 0755, &fd);
        if (r == 0)
            return fd;
        if (r != -EEXIST)
            return r;
    }
    return r;
}

int tree_make_parents(const struct tree *t, const char *path, struct err *e)
{
    CLEANUP(tree_parent_closep) struct tree_parent p = TREE_PARENT_INIT;
    CLEANUP(fd_closep) int held = -1;
    const char *name = path;
    int r = path[0] ? tree_parent(t, path, &p) : 0;
    if (r != -ENOENT)
        return r < 0 ? err_set(e, -r, "open the directories above '%s'", path) : 0;
    for (const char *slash; (slash = strchr(name, '/')); name = slash + 1) {
        char component[PATH_NAME_MAX + 1];
        size_t len = (size_t)(slash - name);
        if (len > PATH_NAME_MAX)
            return err_set(e, ENAMETOOLONG, "make the directories above '%s'", path);
        memcpy(component, name, len);
        component[len] = '\0';
        int next = step_or_make(held < 0 ? t->fd : held, component);
        if (next < 0)
            return err_set(e, -next, "make the directories above '%s'", path);
        fd_closep(&held);
        held = next;
    }
    return 0;
}

int tree_symlink(const struct tree *t, const char *target, const char *path, struct err *e)
{
    CLEANUP(tree_parent_closep) struct tree_parent p = TREE_PARENT_INIT;
    int r = path[0] ? tree_parent(t, path, &p) : -EEXIST;
    if (r == 0 && symlinkat(target, p.fd, p.name) < 0)
        r = -errno;
    return r < 0 ? err_set(e, -r, "make the symlink '%s'", tree_shown(path)) : 0;
}

int tree_link(
    const struct tree *from, const struct tree *to, const char *path, struct err *e)
{
    CLEANUP(tree_parent_closep) struct tree_parent source = TREE_PARENT_INIT, p = TREE_PARENT_INIT;
    int r = tree_parent(from, path, &source);
    if (r == 0)
        r = tree_parent(to, path, &p);
    if (r == 0 && linkat(source.fd, source.name, p.fd, p.name, 0) < 0)
        r = -errno;
    return r < 0 ? err_set(e, -r, "link '%s'", tree_shown(path)) : 0;
}

int tree_chmod_root(const struct tree *t, uint32_t mode, struct err *e)
{
    int r = tree_set_mode(t->fd, mode);
    return r < 0 ? err_set(e, -r, "change the mode of the root") : 0;
}

int tree_chmod(const struct tree *t, const char *path, uint32_t mode, struct err *e)
{
    struct stat st;
    CLEANUP(fd_closep) int fd = tree_beneath(t, path, O_PATH | O_NOFOLLOW);
    if (fd < 0)
        return err_set(e, -fd, "change the mode of '%s'", tree_shown(path));
    if (fstat(fd, &st) < 0)
        return err_set(e, errno, "change the mode of '%s'", tree_shown(path));
    int r;
    if (S_ISDIR(st.st_mode))
        r = set_dir_mode(fd, mode);
    else if (S_ISREG(st.st_mode))
        r = tree_set_mode(fd, (mode & MODE_MASK) | MODE_FILE_MIN);
    else
        r = S_ISLNK(st.st_mode) ? -ELOOP : -TREE_NOT_REGULAR;
    return r < 0 ? err_set(e, -r, "change the mode of '%s'", tree_shown(path)) : 0;
}

static int unlink_at(const struct tree *t, const char *path, int flags)
{
    CLEANUP(tree_parent_closep) struct tree_parent p = TREE_PARENT_INIT;
    int r = tree_parent(t, path, &p);
    if (r < 0)
        return r;
    return unlinkat(p.fd, p.name, flags) < 0 ? -errno : 0;
}

int tree_unlink(const struct tree *t, const char *path, struct err *e)
{
    int r = unlink_at(t, path, 0);
    return r < 0 ? err_set(e, -r, "remove '%s'", tree_shown(path)) : 0;
}

int tree_rmdir(const struct tree *t, const char *path, struct err *e)
{
    int r = unlink_at(t, path, AT_REMOVEDIR);
    return r < 0 ? err_set(e, -r, "remove the directory '%s'", tree_shown(path)) : 0;
}
