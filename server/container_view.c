/* SPDX-License-Identifier: MIT */
/* An overlay for one container, mounted where the runtime starts and nowhere else. */
#include "server/container_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "shared/banned.h"

#define STACK_BYTES (64 * 1024)
#define LAYERS 3

/* A directory that the overlay is made of. The kernel wants it from a mount of the namespace in
 * which the overlay is mounted, so it is opened there again, by the path that it has here. */
struct layer {
    const char *key; /* of the mount option */
    int fd;          /* kept until the overlay is made: Linux before 6.5 looks it up only then */
    struct stat st;
    char path[PATH_MAX];
};

/* Everything the child needs, prepared before: it shares our memory and our descriptors, and may
 * only make system calls. */
struct mounting {
    const struct oci_engine *engine;
    const char *path; /* of the mount point */
    struct layer layers[LAYERS];
    bool root;
    int fd;                  /* the mount's root */
    const char *inside, *ns; /* move_child: a folder of it, and the container's mount namespace */
    const char *step;        /* where it failed */
    int error;
};

static int fail(struct mounting *m, const char *step)
{
    m->error = errno;
    m->step = step;
    return 1;
}

/* By descriptor: nothing in a path needs escaping, and what is mounted is what was looked at. */
static int add_layer(struct mounting *m, int fs, struct layer *l)
{
    char value[32] = "/proc/self/fd/";
    struct stat st;
    int fd = l->fd = open(l->path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return fail(m, "open a layer");
    int r = 0;
    if (st.st_dev != l->st.st_dev || st.st_ino != l->st.st_ino) {
        errno = ESTALE;
        r = fail(m, "a layer was moved");
    }
    char digits[12];
    size_t n = 0, len = strlen(value);
    for (int rest = fd; rest > 0 || n == 0; rest /= 10)
        digits[n++] = (char)('0' + rest % 10);
    while (n > 0)
        value[len++] = digits[--n];
    if (r == 0 && fsconfig(fs, FSCONFIG_SET_STRING, l->key, value, 0) < 0)
        r = fail(m, l->key);
    return r;
}

static int set_options(struct mounting *m, int fs)
{
    for (size_t i = 0; i < LAYERS; i++) {
        if (add_layer(m, fs, &m->layers[i]))
            return 1;
    }
    if (fsconfig(fs, FSCONFIG_SET_STRING, "metacopy", "off", 0) < 0 ||
        fsconfig(fs, FSCONFIG_SET_STRING, "index", "off", 0) < 0)
        return fail(m, "metacopy and index");
    /* With userxattr there are no redirects, and the option is refused. */
    if (m->root ? fsconfig(fs, FSCONFIG_SET_STRING, "redirect_dir", "nofollow", 0) < 0
                : fsconfig(fs, FSCONFIG_SET_FLAG, "userxattr", NULL, 0) < 0)
        return fail(m, "redirects");
    /* Or the overlay's end would write all that the file system has in memory to the disk. */
    if (fsconfig(fs, FSCONFIG_SET_FLAG, "volatile", NULL, 0) < 0)
        return fail(m, "volatile");
    return fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0 ? fail(m, "make an overlay") : 0;
}

static int configure(struct mounting *m, int fs)
{
    int r = set_options(m, fs), error = errno;
    for (size_t i = 0; i < LAYERS; i++) {
        if (m->layers[i].fd >= 0)
            (void)close(m->layers[i].fd);
    }
    errno = error;
    return r;
}

static int enter_place(struct mounting *m)
{
    const struct place *p = &m->engine->place;
    if (p->user_ns >= 0 && setns(p->user_ns, CLONE_NEWUSER) < 0)
        return fail(m, "enter the user namespace");
    if (setns(p->mount_ns, CLONE_NEWNS) < 0)
        return fail(m, "enter the mount namespace");
    return 0;
}

/* The sanitizer's instrumentation would not understand the borrowed memory. */
__attribute__((no_sanitize("address", "undefined", "thread"))) static int mount_child(void *arg)
{
    struct mounting *m = arg;
    if (enter_place(m))
        return 1;
    if ((mkdir(PLACE_VIEWS, 0711) < 0 && errno != EEXIST) || mkdir(m->path, 0711) < 0)
        return fail(m, "make a mount point");
    int fs = fsopen("overlay", FSOPEN_CLOEXEC);
    if (fs < 0)
        return fail(m, "the kernel offers no overlay");
    int r = configure(m, fs);
    int fd = r ? -1 : fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    if (r == 0 && (fd < 0 || move_mount(fd, "", AT_FDCWD, m->path, MOVE_MOUNT_F_EMPTY_PATH) < 0))
        r = fail(m, "mount an overlay");
    (void)close(fs);
    if (r == 0)
        m->fd = fd;
    else if (fd >= 0)
        (void)close(fd);
    return r;
}

__attribute__((no_sanitize("address", "undefined", "thread"))) static int hide_child(void *arg)
{
    struct mounting *m = arg;
    if (enter_place(m))
        return 1;
    (void)umount2(m->path, MNT_DETACH | UMOUNT_NOFOLLOW);
    if (rmdir(m->path) < 0)
        return fail(m, "remove a mount point");
    return 0;
}

/* A mount of its own for the container, over the one that it has. */
__attribute__((no_sanitize("address", "undefined", "thread"))) static int move_child(void *arg)
{
    struct mounting *m = arg;
    if (enter_place(m))
        return 1;
    int ns = open(m->ns, O_RDONLY | O_CLOEXEC);
    int tree = (int)open_tree(AT_FDCWD, m->inside, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    int r = ns < 0 || tree < 0 ? fail(m, "take the view") : 0;
    if (r == 0 && (setns(ns, CLONE_NEWNS) < 0 ||
                      move_mount(tree, "", AT_FDCWD, "/workspace", MOVE_MOUNT_F_EMPTY_PATH) < 0))
        r = fail(m, "mount the view in the container");
    if (ns >= 0)
        (void)close(ns);
    if (tree >= 0)
        (void)close(tree);
    return r;
}

/* In a process of its own, since namespaces belong to one. */
static int in_child(int (*work)(void *), struct mounting *m, struct err *e)
{
    char *stack = mmap(
        NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    sigset_t all, before;
    if (stack == MAP_FAILED)
        return err_set(e, ENOMEM, "mount a view");
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t pid = clone(work, stack + STACK_BYTES, CLONE_VM | CLONE_VFORK | CLONE_FILES | SIGCHLD, m);
    int error = errno;
    if (pid > 0) {
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    (void)munmap(stack, STACK_BYTES);
    if (pid < 0)
        return err_set(e, error, "mount a view");
    return m->error ? err_set(e, m->error, "mount a view: %s", m->step) : 0;
}

static void view_path(const char *id, char out[128])
{
    (void)snprintf(out, 128, PLACE_VIEWS "/%s", id);
}

static int name_layer(struct layer *l, const char *key, int fd, struct err *e)
{
    char link[40];
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, l->path, sizeof l->path - 1);
    if (n < 0 || fstat(fd, &l->st) < 0)
        return err_set(e, errno, "mount a view");
    l->path[n] = '\0';
    l->key = key;
    l->fd = -1;
    return 0;
}

int oci_view_mount(struct container_engine *engine, const char *id,
    const struct container_view *dirs, int *ret_fd, struct err *e)
{
    CLEANUP(freep) struct mounting *m = calloc(1, sizeof *m);
    char path[128];
    if (!m)
        return err_set(e, ENOMEM, "mount a view");
    if (!container_name_is_plain(id, ""))
        return err_say(e, EINVAL, "'%.64s' is no container id", id);
    view_path(id, path);
    m->engine = (const struct oci_engine *)engine;
    m->path = path;
    m->root = engine->abilities.root;
    m->fd = -1;
    int r = name_layer(&m->layers[0], "lowerdir", dirs->lower_fd, e);
    if (r == 0)
        r = name_layer(&m->layers[1], "upperdir", dirs->upper_fd, e);
    if (r == 0)
        r = name_layer(&m->layers[2], "workdir", dirs->work_fd, e);
    if (r == 0)
        r = in_child(mount_child, m, e);
    if (r == 0)
        *ret_fd = m->fd;
    else
        oci_view_hide(engine, id);
    return r;
}

void oci_view_hide(struct container_engine *engine, const char *id)
{
    char path[128];
    view_path(id, path);
    struct mounting m = {.engine = (const struct oci_engine *)engine, .path = path, .fd = -1};
    (void)!in_child(hide_child, &m, NULL);
}

int oci_view_enter(struct container *c, const char *id, const char *folder, struct err *e)
{
    char path[128], inside[400], ns[40];
    view_path(id, path);
    (void)snprintf(inside, sizeof inside, "%s/%s", path, folder);
    (void)snprintf(ns, sizeof ns, "/proc/%d/ns/mnt", (int)c->init);
    struct mounting m = {.engine = (const struct oci_engine *)c->engine,
        .path = path,
        .inside = inside,
        .ns = ns,
        .fd = -1};
    return in_child(move_child, &m, e);
}
