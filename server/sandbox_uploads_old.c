/* SPDX-License-Identifier: MIT */
/* Stages from before a start of the server, and those that are too old. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "server/sandbox_uploads_internal.h"
#include "shared/io.h"
#include "shared/num.h"
#include "shared/text.h"

#include "shared/banned.h"

/* ---- after a start */

void sandbox_upload_name(
    const struct sandbox_upload_state *state, char ret[SANDBOX_UPLOAD_FILE_BYTES])
{
    char hash[HASH_TEXT_BYTES] = "";
    if (state->has_hash)
        (void)hash_text(&state->hash, hash);
    (void)snprintf(ret, SANDBOX_UPLOAD_FILE_BYTES, "%s.%" PRIu64 ".%s", state->id, state->size, hash);
}

bool sandbox_upload_parse(const char *name, struct sandbox_upload_state *ret)
{
    char again[SANDBOX_UPLOAD_FILE_BYTES], size[24];
    const char *dot = strchr(name, '.'), *second = dot ? strchr(dot + 1, '.') : NULL;
    *ret = (struct sandbox_upload_state){.id = ""};
    if (!second || (size_t)(dot - name) >= sizeof(ret->id) ||
        (size_t)(second - dot - 1) >= sizeof(size))
        return false;
    memcpy(ret->id, name, (size_t)(dot - name));
    memcpy(size, dot + 1, (size_t)(second - dot - 1));
    size[second - dot - 1] = '\0';
    ret->has_hash = second[1] != '\0';
    if (!text_is_id(SANDBOX_UPLOAD_PREFIX, ret->id) ||
        num_u64(size, CHANGES_FILE_MAX, &ret->size) < 0 ||
        (ret->has_hash && hash_parse(second + 1, &ret->hash) < 0))
        return false;
    sandbox_upload_name(ret, again);
    return strcmp(again, name) == 0;
}

bool sandbox_upload_is_file(const char *name)
{
    struct sandbox_upload_state state;
    return sandbox_upload_parse(name, &state);
}

static int load(struct sandbox *sb, const char *name, struct err *e)
{
    struct sandbox_upload_state state;
    struct stat st;
    if (!sandbox_upload_parse(name, &state))
        return 0;
    bool fits = fstatat(sb->ws->stage_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
                S_ISREG(st.st_mode) && (uint64_t)st.st_size <= state.size;
    struct sandbox_upload *u = calloc(1, sizeof(*u));
    if (!u)
        return err_set(e, ENOMEM, "find the stages");
    u->state = state;
    u->state.offset = fits ? (uint64_t)st.st_size : 0;
    u->state.used_ns =
        fits ? (uint64_t)st.st_mtim.tv_sec * UINT64_C(1000000000) + (uint64_t)st.st_mtim.tv_nsec : 0;
    sandbox_upload_name(&state, u->file);
    struct err ignored = ERR_INIT;
    if (fits && sandbox_upload_enter(sb, u, &ignored) == 0)
        return 0;
    sandbox_upload_unlink(sb, name);
    sandbox_upload_free(u);
    return 0;
}

int sandbox_uploads_load(struct sandbox *sb, struct err *e)
{
    uint64_t used_ns = sb->used_ns;
    int r = 0;
    if (sb->uploads_loaded)
        return 0;
    CLEANUP(fd_closep)
    int fd = openat(sb->ws->stage_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CLEANUP(dir_closep) DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir)
        return err_set(e, errno, "find the stages");
    (void)fd_take(&fd);
    for (const struct dirent *d; r == 0 && (d = readdir(dir)) != NULL;)
        r = load(sb, d->d_name, e);
    sb->uploads_loaded = r == 0;
    sb->used_ns = used_ns; /* looking at it is no use of it */
    return r;
}

/* Every sandbox, with a reference, that this was not asked of before. */
static struct sandbox **take_unsought(struct sandboxes *all, size_t *ret_count)
{
    (void)pthread_mutex_lock(&all->lock);
    struct sandbox **list = calloc(HASH_COUNT(all->table) + 1, sizeof(struct sandbox *));
    size_t count = 0;
    for (struct sandbox *sb = all->table; list && sb; sb = sb->hh.next) {
        if (!sb->uploads_sought)
            list[count++] = sandbox_ref(sb);
        sb->uploads_sought = true;
    }
    (void)pthread_mutex_unlock(&all->lock);
    *ret_count = count;
    return list;
}

/* Those with a stage from before the start are made ready, which puts it into the table. */
static void seek(struct sandboxes *all)
{
    size_t count = 0;
    CLEANUP(freep) struct sandbox **list = take_unsought(all, &count);
    for (size_t i = 0; i < count; i++) {
        if (!atomic_load(&list[i]->ready) && workspace_has_staged(all->workspaces, list[i]->id) &&
            sandbox_enter(list[i], true, NULL) == 0)
            sandbox_exit(list[i]);
        sandbox_unref(list[i]);
    }
}

/* ---- too old */

/* A sandbox with one that is too old, and its id; a reference. */
static struct sandbox *find_old(struct sandboxes *all, uint64_t now_ns, char *ret_id, size_t size)
{
    struct sandbox *found = NULL;
    (void)pthread_mutex_lock(&all->lock);
    for (struct sandbox *sb = all->table; sb && !found; sb = sb->hh.next) {
        (void)pthread_mutex_lock(&sb->lock);
        for (const struct sandbox_upload *u = sb->uploads; u && !found; u = u->next) {
            if (u->busy || sb->deleting || u->state.used_ns > now_ns ||
                now_ns - u->state.used_ns < SANDBOX_UPLOAD_AGE_NS)
                continue;
            found = sandbox_ref(sb);
            (void)snprintf(ret_id, size, "%s", u->state.id);
        }
        (void)pthread_mutex_unlock(&sb->lock);
    }
    (void)pthread_mutex_unlock(&all->lock);
    return found;
}

unsigned sandbox_uploads_expire(struct sandboxes *all, uint64_t now_ns)
{
    char id[SANDBOX_UPLOAD_ID_BYTES];
    unsigned count = 0;
    int r = 0;
    seek(all);
    for (struct sandbox *sb; r == 0 && (sb = find_old(all, now_ns, id, sizeof(id))) != NULL;) {
        r = sandbox_upload_delete(sb, id, NULL);
        count += r == 0;
        sandbox_unref(sb);
    }
    return count;
}
