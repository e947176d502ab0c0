/* SPDX-License-Identifier: MIT */
/* What a file system can do, tried in a folder of our own that is removed again. */
#include "server/doctor_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>

#include "server/space.h"

#include "shared/banned.h"

static const struct {
    unsigned long magic;
    const char *name;
    bool remote;
} kinds[] = {{EXT4_SUPER_MAGIC, "ext4", false}, {0x58465342, "xfs", false},
    {BTRFS_SUPER_MAGIC, "btrfs", false}, {TMPFS_MAGIC, "tmpfs", false},
    {OVERLAYFS_SUPER_MAGIC, "overlay", false}, {0x2fc12fc1, "zfs", false},
    {F2FS_SUPER_MAGIC, "f2fs", false}, {NFS_SUPER_MAGIC, "nfs", true}, {0xff534d42, "cifs", true},
    {0x65735546, "fuse", true}, {0x01021997, "9p", true}};

static void name_fs(int fd, struct doctor_disk *d)
{
    struct statfs st;
    if (fstatfs(fd, &st) < 0)
        return;
    (void)snprintf(d->fs, sizeof d->fs, "0x%lx", (unsigned long)st.f_type);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (kinds[i].magic == (unsigned long)st.f_type) {
            (void)snprintf(d->fs, sizeof d->fs, "%s", kinds[i].name);
            d->remote = kinds[i].remote;
        }
    }
    d->free_bytes = (uint64_t)st.f_bavail * (uint64_t)st.f_bsize;
    d->free_inodes = st.f_files ? st.f_ffree : UINT64_MAX; /* btrfs counts none */
}

static void try_files(int dir, struct doctor_disk *d)
{
    const struct timespec at[2] = {{1000000000, 123456789}, {1000000000, 123456789}};
    struct stat st;
    CLEANUP(fd_closep) int a = openat(dir, "a", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    CLEANUP(fd_closep) int b = openat(dir, "b", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    CLEANUP(fd_closep) int none = openat(dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (a < 0 || b < 0 || write(a, "silt", 4) != 4) {
        (void)snprintf(d->error, sizeof d->error, "files cannot be written in '%.128s': %.64s",
            d->path, strerror(errno));
        return;
    }
    d->tmpfile = none >= 0;
    d->reflink = ioctl(b, FICLONE, a) == 0;
    d->exchange = renameat2(dir, "a", dir, "b", RENAME_EXCHANGE) == 0;
    d->nanoseconds = futimens(a, at) == 0 && fstat(a, &st) == 0 && st.st_mtim.tv_nsec % 1000000;
    d->quota = space_countable(dir);
}

/* siltd makes what is missing of a path: the nearest folder that is there decides. */
static void nearest(const char *path, char out[256])
{
    (void)snprintf(out, 256, "%.255s", path);
    while (access(out, F_OK) < 0 && strrchr(out, '/') != out) {
        char *slash = strrchr(out, '/');
        if (!slash)
            break;
        *slash = '\0';
    }
    if (access(out, F_OK) < 0)
        (void)snprintf(out, 256, "/");
}

void doctor_disk_probe(const char *path, struct doctor_disk *d)
{
    char made[PATH_MAX];
    nearest(path, d->path);
    (void)snprintf(made, sizeof made, "%s/.silt-doctor.XXXXXX", d->path);
    if (!mkdtemp(made)) {
        (void)snprintf(d->error, sizeof d->error, "no folder can be made in '%.128s': %.64s",
            d->path, strerror(errno));
        return;
    }
    CLEANUP(fd_closep) int dir = open(made, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir >= 0) {
        name_fs(dir, d);
        try_files(dir, d);
        (void)unlinkat(dir, "a", 0);
        (void)unlinkat(dir, "b", 0);
    }
    (void)rmdir(made);
}
