/* SPDX-License-Identifier: MIT */
/* A set of paths (agent/sync_internal.h). */
#include <stdlib.h>
#include <string.h>

#include <uthash.h>

#include "agent/sync_internal.h"

#include "shared/banned.h"

struct sync_names {
    UT_hash_handle hh;
    char path[];
};

bool sync_names_add(struct sync_names **names, const char *path)
{
    struct sync_names *n = NULL;
    size_t len = strlen(path);
    HASH_FIND(hh, *names, path, len, n);
    if (n)
        return false;
    n = malloc(sizeof(*n) + len + 1);
    /* Without memory it counts as new each time: told twice is better than not at all. */
    if (!n)
        return true;
    memcpy(n->path, path, len + 1);
    HASH_ADD_KEYPTR(hh, *names, n->path, len, n);
    return true;
}

size_t sync_names_count(const struct sync_names *names)
{
    return HASH_COUNT(names);
}

void sync_names_free(struct sync_names **names)
{
    struct sync_names *n, *next;
    HASH_ITER(hh, *names, n, next) {
        HASH_DEL(*names, n);
        free(n);
    }
}

const char **sync_names_list(const struct sync_names *names, size_t *ret_count)
{
    const char **list = calloc(HASH_COUNT(names) + 1, sizeof(*list));
    size_t count = 0;
    for (const struct sync_names *n = names; list && n; n = n->hh.next)
        list[count++] = n->path;
    *ret_count = count;
    return list;
}
