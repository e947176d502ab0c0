/* SPDX-License-Identifier: MIT */
#include "server/space.h"

#include <errno.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/quota.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shared/banned.h"

#define PROJECTS 2                    /* PRJQUOTA, which the C library does not name */
#define BLOCK_BYTES UINT64_C(1024)    /* of the kernel's limits, whatever the file system's are */
#define NEARLY_BYTES UINT64_C(131072) /* a write may fail for blocks that describe others */

/* `command` is unsigned: QCMD shifts it into the highest bit. */
static int quota_call(int fd, unsigned command, uint32_t project, struct dqblk *q)
{
    return syscall(SYS_quotactl_fd, fd, QCMD(command, PROJECTS), project, q) < 0 ? -errno : 0;
}

bool space_countable(int dir_fd)
{
    struct dqblk q;
    return quota_call(dir_fd, Q_GETQUOTA, 0, &q) == 0;
}

int space_mark(int dir_fd, uint32_t project)
{
    struct fsxattr a;
    if (ioctl(dir_fd, FS_IOC_FSGETXATTR, &a) < 0)
        return -errno;
    a.fsx_projid = project;
    a.fsx_xflags |= FS_XFLAG_PROJINHERIT;
    return ioctl(dir_fd, FS_IOC_FSSETXATTR, &a) < 0 ? -errno : 0;
}

bool space_marked(int dir_fd, uint32_t project)
{
    struct fsxattr a;
    return ioctl(dir_fd, FS_IOC_FSGETXATTR, &a) == 0 && a.fsx_projid == project &&
           (a.fsx_xflags & FS_XFLAG_PROJINHERIT);
}

void space_mark_all(const int fds[], const bool fresh[], size_t count, uint32_t project)
{
    for (size_t i = 0; i < count; i++) {
        if (!space_marked(fds[i], project) && !(fresh[i] && space_countable(fds[i])))
            return;
    }
    for (size_t i = 0; i < count; i++) {
        if (!space_marked(fds[i], project) && space_mark(fds[i], project) < 0)
            return;
    }
}

int space_limit(int dir_fd, uint32_t project, const struct space *most)
{
    struct dqblk q = {.dqb_bhardlimit = most->bytes / BLOCK_BYTES,
        .dqb_ihardlimit = most->files,
        .dqb_valid = QIF_BLIMITS | QIF_ILIMITS};
    return quota_call(dir_fd, Q_SETQUOTA, project, &q);
}

int space_used(int dir_fd, uint32_t project, struct space *ret)
{
    struct dqblk q;
    int r = quota_call(dir_fd, Q_GETQUOTA, project, &q);
    if (r == 0)
        *ret = (struct space){.bytes = q.dqb_curspace, .files = q.dqb_curinodes};
    return r;
}

struct walk {
    const struct space *most;
    struct space *sum;
};

static enum tree_visit add(const struct tree_entry *entry, void *ctx)
{
    struct walk *w = ctx;
    w->sum->files++;
    w->sum->bytes += entry->stat.blocks_bytes;
    return space_over(w->sum, w->most) ? TREE_VISIT_STOP : TREE_VISIT_GO;
}

void space_walk(const struct tree *t, const struct space *most, struct space *sum)
{
    struct walk w = {most, sum};
    (void)!tree_walk(t, "", add, &w, NULL);
}

bool space_full(const struct space *used, const struct space *most)
{
    return used->bytes + NEARLY_BYTES >= most->bytes || used->files >= most->files;
}

bool space_over(const struct space *used, const struct space *most)
{
    return used->bytes > most->bytes || used->files > most->files;
}
