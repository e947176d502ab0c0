/* SPDX-License-Identifier: MIT */
#include "server/cache.h"

#include <errno.h>
#include <string.h>

#include "shared/path.h"

#include "shared/banned.h"

#define PYC_ROOT "pyc/workspace/" /* the source's absolute path inside the container */
#define NAMES_MAX 100000          /* looked at in one directory */

/* "dir/mod.py" → "pyc/workspace/dir"; false if it would be no path. */
static bool cached_path(const char *path, size_t len, char *out, size_t size)
{
    int n = snprintf(out, size, PYC_ROOT "%.*s", (int)len, path);

    if (n < 0 || (size_t)n >= size)
        return false;
    if (len == 0)
        out[n - 1] = '\0';
    return path_check(out, strlen(out)) == PATH_FINE;
}

/* Names are "mod.cpython-311.pyc", "mod.cpython-311.opt-1.pyc". */
static bool is_compiled_from(const char *name, const char *stem, size_t stem_len)
{
    size_t len = strlen(name);

    return len > stem_len + 5 && memcmp(name, stem, stem_len) == 0 && name[stem_len] == '.' &&
           strcmp(name + len - 4, ".pyc") == 0;
}

static void forget_file(
    const struct workspace *ws, const char *path, const char *stem, size_t stem_len)
{
    char dir[PATH_BYTES_MAX + 1];
    const struct dirent *d;

    if (!cached_path(path, path_parent_len(path), dir, sizeof dir))
        return;
    CLEANUP(fd_closep) int fd = -1;
    if (tree_open_dir(ws->cache, dir, &fd, NULL) < 0)
        return;
    CLEANUP(dir_closep) DIR *listing = fdopendir(fd);
    if (!listing)
        return;
    (void)fd_take(&fd);
    for (unsigned i = 0; i < NAMES_MAX && (d = readdir(listing)) != NULL; i++) {
        if (!is_compiled_from(d->d_name, stem, stem_len))
            continue;
        CLEANUP(freep) char *name = path_join(dir, d->d_name);
        if (name && path_check(name, strlen(name)) == PATH_FINE)
            (void)!tree_unlink(ws->cache, name, NULL);
    }
}

void cache_forget(const struct workspace *ws, const char *path, enum tree_kind kind)
{
    char dir[PATH_BYTES_MAX + 1];
    const char *name = path_base(path);
    size_t len = strlen(name);

    if (kind == TREE_DIR) {
        if (cached_path(path, strlen(path), dir, sizeof dir))
            (void)!tree_remove(ws->cache, dir, NULL);
    } else if (len > 3 && strcmp(name + len - 3, ".py") == 0) {
        forget_file(ws, path, name, len - 3);
    }
}
