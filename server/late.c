/* SPDX-License-Identifier: MIT */
#include "server/late.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/banned.h"

#define LARGE_BYTES (1024 * 1024)

void late_hold(struct late *late, int dir_fd, const char *name)
{
    struct stat st;

    if (!late || late->count == LATE_MAX || fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
        !S_ISREG(st.st_mode) || st.st_size < LARGE_BYTES)
        return;
    int fd = openat(dir_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0)
        late->fds[late->count++] = fd;
}

void late_release(struct late *late)
{
    while (late->count)
        (void)close(late->fds[--late->count]);
}
