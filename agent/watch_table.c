/* SPDX-License-Identifier: MIT */
#include "agent/watch_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared/banned.h"

struct watch_folder *watch_table_by_path(const struct watch_table *t, const char *path)
{
    struct watch_folder *f = NULL;
    HASH_FIND(by_path, t->paths, path, strlen(path), f);
    return f;
}

struct watch_folder *watch_table_by_wd(const struct watch_table *t, int wd)
{
    struct watch_folder *f = NULL;
    HASH_FIND(by_wd, t->wds, &wd, sizeof(wd), f);
    return f;
}

void watch_table_make_dead(struct watch_table *t, struct watch_folder *f)
{
    if (f->dead)
        return;
    f->dead = true;
    HASH_DELETE(by_path, t->paths, f);
    t->live--;
}

void watch_table_forget(struct watch_table *t, struct watch_folder *f)
{
    watch_table_make_dead(t, f);
    HASH_DELETE(by_wd, t->wds, f);
    free(f->path);
    free(f);
}

void watch_table_clear(struct watch_table *t)
{
    struct watch_folder *f, *next;
    HASH_ITER(by_wd, t->wds, f, next)
        watch_table_forget(t, f);
}

int watch_table_put(struct watch_table *t, int wd, const char *path, uint32_t sweep)
{
    struct watch_folder *f = watch_table_by_wd(t, wd);
    if (f)
        watch_table_forget(t, f); /* the same folder under another name: this one is newer */
    f = calloc(1, sizeof(*f));
    if (!f || !(f->path = strdup(path))) {
        free(f);
        return -ENOMEM;
    }
    f->wd = wd;
    f->sweep = sweep;
    HASH_ADD(by_wd, t->wds, wd, sizeof(f->wd), f);
    HASH_ADD_KEYPTR(by_path, t->paths, f->path, strlen(f->path), f);
    t->live++;
    return 0;
}

struct watch_folder *watch_table_first(const struct watch_table *t)
{
    return t->paths;
}

struct watch_folder *watch_table_next(const struct watch_folder *f)
{
    return f->by_path.next;
}
