/* SPDX-License-Identifier: MIT */
#include "server/image_root.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>

#include "shared/io.h"
#include "shared/text.h"
#include "shared/tree.h"
#include "shared/weaken.h"

#include "shared/banned.h"

#define ROOM_STEP_BYTES (UINT64_C(64) << 20) /* written between two looks at the disk */
#define ROOM_INODES 4096
#define USER 1000 /* the program's, inside */
#define HIDE ".wh."
#define HIDE_ALL ".wh..wh..opq"
#define SHOWN_BYTES 256

void image_root_init(struct image_root *root, int dir, uint64_t min_free_bytes)
{
    *root = (struct image_root){.dir = dir, .parent = -1, .min_free_bytes = min_free_bytes};
}

void image_root_release(struct image_root *root)
{
    fd_closep(&root->parent);
}

/* A foreign name in a message. */
static const char *shown(const char *path, char out[SHOWN_BYTES])
{
    CLEANUP(buf_release) struct buf b;
    buf_init(&b, 4 * PATH_BYTES_MAX);
    if (text_add_escaped(&b, path) < 0)
        buf_reset(&b);
    (void)snprintf(out, SHOWN_BYTES, "%.200s", buf_str(&b));
    return out;
}

/* ---- bounds */

int image_root_room(struct image_root *root, uint64_t bytes, struct err *e)
{
    struct statvfs fs;
    if (fstatvfs(root->dir, &fs) < 0)
        return err_set(e, errno, "look at the disk");
    uint64_t have = (uint64_t)fs.f_bavail * fs.f_frsize;
    root->unchecked_bytes = 0;
    if (have < root->min_free_bytes || have - root->min_free_bytes < bytes ||
        (fs.f_files && fs.f_favail < ROOM_INODES))
        return err_refuse(e, PROTO_NO_SPACE,
            "the disk is too full for this image (%" PRIu64 " MiB are free, of which %" PRIu64
            " MiB must stay): make room",
            have >> 20, root->min_free_bytes >> 20);
    return 0;
}

static int charge(struct image_root *root, uint64_t bytes, struct err *e)
{
    if (++root->entries > IMAGE_ENTRIES_MAX && !WEAK("image-bounds"))
        return err_say(
            e, E2BIG, "the image has more than %" PRIu64 " files", IMAGE_ENTRIES_MAX);
    if (bytes > IMAGE_BYTES_MAX - root->bytes && !WEAK("image-bounds"))
        return err_say(e, E2BIG, "the image is larger than %" PRIu64 " GiB", IMAGE_BYTES_MAX >> 30);
    root->bytes += bytes;
    return 0;
}

static int spend(struct image_root *root, uint64_t bytes, struct err *e)
{
    root->unchecked_bytes += bytes;
    return root->unchecked_bytes < ROOM_STEP_BYTES ? 0 : image_root_room(root, 0, e);
}

/* ---- names */

int image_root_path(const char *path, char out[PATH_BYTES_MAX + 1], struct err *e)
{
    char name[SHOWN_BYTES];
    const char *p = path;
    while (p[0] == '.' && p[1] == '/') {
        p += 2;
        p += strspn(p, "/");
    }
    size_t len = strcmp(p, ".") == 0 ? 0 : strlen(p);
    while (len > 1 && p[len - 1] == '/')
        len--;
    out[0] = '\0';
    if (len == 0)
        return 0;
    enum path_fault fault = path_check(p, len);
    if (WEAK("image-path") && len <= PATH_BYTES_MAX)
        fault = PATH_FINE;
    if (fault != PATH_FINE)
        return err_say(e, EINVAL, "the archive is refused: its entry '%s' %s", shown(path, name),
            path_fault_text(fault));
    memcpy(out, p, len);
    out[len] = '\0';
    return 0;
}

int image_root_open(int dir, const char *path)
{
    struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
        .resolve = WEAK("image-root")
                       ? 0
                       : RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV};
    int fd = (int)syscall(SYS_openat2, dir, *path ? path : ".", &how, sizeof how);
    return fd < 0 ? -errno : fd;
}

static void forget_parent(struct image_root *root)
{
    fd_closep(&root->parent);
}

static int make_parents(struct image_root *root, const char *path, size_t len, struct err *e)
{
    char prefix[PATH_BYTES_MAX + 1], name[SHOWN_BYTES];
    CLEANUP(fd_closep) int above = image_root_open(root->dir, "");
    for (size_t end = 1; above >= 0 && end <= len; end++) {
        if (end < len && path[end] != '/')
            continue;
        memcpy(prefix, path, end);
        prefix[end] = '\0';
        int fd = image_root_open(root->dir, prefix);
        if (fd == -ENOENT) {
            int r = charge(root, 0, e);
            if (r < 0)
                return r;
            if (mkdirat(above, path_base(prefix), 0755) == 0)
                fd = image_root_open(root->dir, prefix);
        }
        if (fd < 0)
            return err_say(e, EINVAL,
                "the archive is refused: '%s' is no folder that something can lie in (%s)",
                shown(prefix, name), strerror(-fd));
        fd_closep(&above);
        above = fd;
    }
    root->parent = fd_take(&above);
    return root->parent < 0 ? err_set(e, -root->parent, "open the root that is made") : 0;
}

/* The folder of path, made where `make`; borrowed. -ENOENT without a message. */
static int open_parent(struct image_root *root, const char *path, bool make, struct err *e)
{
    char name[SHOWN_BYTES];
    size_t len = path_parent_len(path);
    if (root->parent >= 0 && strlen(root->parent_path) == len &&
        memcmp(root->parent_path, path, len) == 0)
        return root->parent;
    forget_parent(root);
    memcpy(root->parent_path, path, len);
    root->parent_path[len] = '\0';
    root->parent = image_root_open(root->dir, root->parent_path);
    if (root->parent == -ENOENT && make) {
        int r = make_parents(root, path, len, e);
        if (r < 0)
            return r;
    }
    if (root->parent == -ENOENT || root->parent == -ENOTDIR)
        return make ? err_say(e, EINVAL, "the archive is refused: the folder of '%s' is none",
                          shown(path, name))
                    : -ENOENT;
    if (root->parent == -ENOSYS)
        return err_say(e, ENOSYS, "this kernel lacks openat2, which images need: use Linux 5.6 or later");
    return root->parent < 0 ? err_set(e, -root->parent, "place '%s'", shown(path, name))
                            : root->parent;
}

/* Make room for an entry: whatever has its name goes, but for a folder where one is wanted. */
static int clear_name(
    struct image_root *root, int parent, const char *name, bool dir, bool *ret_there, struct err *e)
{
    struct stat st;
    *ret_there = false;
    if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : err_set(e, errno, "look at what is there");
    if (dir && S_ISDIR(st.st_mode)) {
        *ret_there = true;
        return 0;
    }
    if (!S_ISREG(st.st_mode))
        forget_parent(root); /* the next one may be beneath what goes; `parent` stays this entry's */
    return tree_remove_at(parent, name, e);
}

/* ---- what a layer hides */

bool image_root_hides(const char *path)
{
    return strncmp(path_base(path), HIDE, sizeof HIDE - 1) == 0;
}

static int hide_all(int dir, struct err *e)
{
    CLEANUP(fd_closep) int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CLEANUP(dir_closep) DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d)
        return err_set(e, errno, "read a folder that a layer empties");
    (void)fd_take(&fd);
    bool more = true;
    while (more) {
        more = false;
        rewinddir(d);
        for (struct dirent *entry; (entry = readdir(d));) {
            if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
                continue;
            int r = tree_remove_at(dir, entry->d_name, e);
            if (r < 0)
                return r;
            more = true;
        }
    }
    return 0;
}

int image_root_hide(struct image_root *root, const char *path, struct err *e)
{
    char checked[PATH_BYTES_MAX + 1];
    if (!image_root_hides(path))
        return 0;
    int r = image_root_path(path, checked, e);
    int parent = r < 0 ? r : open_parent(root, checked, false, e);
    if (parent < 0)
        return parent == -ENOENT ? 0 : parent;
    const char *base = path_base(checked), *name = base + sizeof HIDE - 1;
    if (strcmp(base, HIDE_ALL) == 0)
        r = hide_all(parent, e);
    else if (strncmp(name, HIDE, sizeof HIDE - 1) == 0)
        r = 0; /* AUFS's own notes */
    else if ((!*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) && !WEAK("image-hide"))
        r = err_say(e, EINVAL, "the archive is refused: its entry '%.64s' hides no file", base);
    else
        r = tree_remove_at(parent, name, e);
    forget_parent(root);
    return r;
}

/* ---- what it adds */

static mode_t mode_of(const struct image_entry *entry)
{
    uint32_t rights = entry->mode & 0777;
    if (entry->uid == USER)
        rights |= (rights >> 6) & 05;
    if (entry->gid == USER)
        rights |= (rights >> 3) & 05;
    rights = (rights & 0755) | (entry->kind == IMAGE_DIR ? 0700 : 0600);
    return (mode_t)(WEAK("image-modes") ? entry->mode & 07777 : rights);
}

static int add_content(struct image_root *root, struct image_archive *archive, int fd,
    const struct image_entry *entry, struct err *e)
{
    struct image_piece piece;
    int r;
    while ((r = image_archive_data(archive, &piece, e)) > 0) {
        if (piece.offset > entry->size || piece.len > entry->size - piece.offset)
            return err_say(e, EINVAL, "the archive is broken: a file is longer than it says");
        r = io_pwrite_all(fd, piece.data, piece.len, piece.offset);
        if (r < 0)
            return err_set(e, -r, "write a file of the image");
        r = spend(root, piece.len, e);
        if (r < 0)
            return r;
    }
    return r;
}

static int add_file(struct image_root *root, struct image_archive *archive, int parent,
    const char *name, const struct image_entry *entry, struct err *e)
{
    CLEANUP(fd_closep)
    int fd = openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_set(e, errno, "make a file of the image");
    int r = add_content(root, archive, fd, entry, e);
    if (r < 0)
        return r;
    const struct timespec times[2] = {
        {.tv_nsec = UTIME_OMIT}, {.tv_sec = entry->mtime_s, .tv_nsec = entry->mtime_ns}};
    if (ftruncate(fd, (off_t)entry->size) < 0 || fchmod(fd, mode_of(entry)) < 0)
        return err_set(e, errno, "make a file of the image");
    (void)futimens(fd, times); /* a time that this file system cannot hold: now is as good */
    return 0;
}

static int add_dir(
    int parent, const char *name, bool there, const struct image_entry *entry, struct err *e)
{
    if (!there && mkdirat(parent, name, 0700) < 0)
        return err_set(e, errno, "make a folder of the image");
    CLEANUP(fd_closep) int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fchmod(fd, mode_of(entry)) < 0)
        return err_set(e, errno, "make a folder of the image");
    return 0;
}

/* `parent` may be no longer held by the root: looking up the target moves that on. */
static int add_link(struct image_root *root, int parent, const char *name,
    const struct image_entry *entry, struct err *e)
{
    char target[PATH_BYTES_MAX + 1], text[SHOWN_BYTES];
    struct stat st;
    int r = image_root_path(entry->target, target, e);
    if (r < 0)
        return r;
    forget_parent(root);
    int dir = open_parent(root, target, false, e);
    if (dir < 0 && dir != -ENOENT)
        return dir;
    if (dir < 0 || fstatat(dir, path_base(target), &st, AT_SYMLINK_NOFOLLOW) < 0 ||
        (!S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode)))
        return err_say(e, EINVAL, "the archive is refused: a link names '%s', which is no file of it",
            shown(entry->target, text));
    if (linkat(dir, path_base(target), parent, name, 0) < 0)
        return err_set(e, errno, "link a file of the image");
    return 0;
}

int image_root_add(struct image_root *root, struct image_archive *archive,
    const struct image_entry *entry, struct err *e)
{
    char path[PATH_BYTES_MAX + 1];
    bool there = false;
    int r = image_root_path(entry->path, path, e);
    if (r < 0)
        return r;
    if (entry->kind == IMAGE_OTHER) {
        root->left_out++;
        return 0;
    }
    r = charge(root, entry->kind == IMAGE_FILE ? entry->size : 0, e);
    if (r < 0 || !*path)
        return r;
    int borrowed = open_parent(root, path, true, e);
    CLEANUP(fd_closep) int parent = borrowed < 0 ? -1 : fcntl(borrowed, F_DUPFD_CLOEXEC, 3);
    if (parent < 0)
        return borrowed < 0 ? borrowed : err_set(e, errno, "place a file of the image");
    const char *name = path_base(path);
    r = clear_name(root, parent, name, entry->kind == IMAGE_DIR, &there, e);
    if (r < 0)
        return r;
    switch (entry->kind) {
    case IMAGE_FILE:
        return add_file(root, archive, parent, name, entry, e);
    case IMAGE_DIR:
        return add_dir(parent, name, there, entry, e);
    case IMAGE_SYMLINK:
        return symlinkat(entry->target, parent, name) < 0
                   ? err_set(e, errno, "make a symlink of the image")
                   : 0;
    case IMAGE_LINK:
        return add_link(root, parent, name, entry, e);
    case IMAGE_OTHER:
        break;
    }
    return 0;
}
