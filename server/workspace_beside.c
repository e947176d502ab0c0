/* SPDX-License-Identifier: MIT */
/* What lies beside a workspace, for housekeeping: a look that does not open it. */
#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "server/workspace_internal.h"
#include "shared/path.h"

#include "shared/banned.h"

bool workspace_has_staged(const struct workspaces *all, const char *id)
{
    CLEANUP(freep) char *path = path_join(all->staging, id);
    CLEANUP(dir_closep) DIR *dir = path ? opendir(path) : NULL;
    const struct dirent *d = dir ? readdir(dir) : NULL;
    while (d && d->d_name[0] == '.')
        d = readdir(dir);
    return d != NULL;
}

bool workspace_has_kept(const struct workspaces *all, const char *id, uint64_t before_ns)
{
    CLEANUP(freep) char *path = path_join(all->displaced, id);
    CLEANUP(dir_closep) DIR *dir = path ? opendir(path) : NULL;
    const struct dirent *d;

    while (dir && (d = readdir(dir)) != NULL) {
        struct stat st;
        if (strncmp(d->d_name, WORKSPACE_KEPT_PREFIX, strlen(WORKSPACE_KEPT_PREFIX)) == 0 &&
            strstr(d->d_name, WORKSPACE_KEPT_NOTE) &&
            fstatat(dirfd(dir), d->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            (uint64_t)st.st_mtim.tv_sec < before_ns / 1000000000)
            return true;
    }
    return false;
}
