/* SPDX-License-Identifier: MIT */
#include "server/sandbox_internal.h"

#include <errno.h>
#include <string.h>

#include "shared/buf.h"
#include "shared/io.h"
#include "shared/text.h"

#include "server/apply.h"

#include "shared/weaken.h"

#include "shared/banned.h"

#define ID_PREFIX "sb_"

void sandbox_new_epoch(struct sandbox *sb)
{
    text_id("ep_", sb->epoch, sizeof sb->epoch);
}

int sandbox_refuse_deleted(const struct sandbox *sb, struct err *e)
{
    return err_refuse(
        e, PROTO_SANDBOX_DELETED, "the sandbox %s was deleted: create a new one", sb->id);
}

/* ---- properties */

static int copy_text(char **to, const char *text)
{
    char *copy;

    if (!text)
        return 0;
    copy = strdup(text);
    if (!copy)
        return -ENOMEM;
    free(*to);
    *to = copy;
    return 0;
}

struct sandbox *sandbox_from_row(
    struct sandboxes *all, const struct store_sandbox *row, struct err *e)
{
    struct sandbox *sb = calloc(1, sizeof *sb);
    pthread_condattr_t attr;

    if (!sb) {
        (void)err_set(e, ENOMEM, "load a sandbox");
        return NULL;
    }
    sb->all = all;
    sb->num = row->num;
    (void)snprintf(sb->id, sizeof sb->id, "%s", row->id);
    (void)snprintf(sb->epoch, sizeof sb->epoch, "%s", row->epoch);
    sb->identity =
        (struct tree_identity){.uid = row->uid, .gid = all->config.root ? row->uid : getegid()};
    atomic_init(&sb->refs, 1);
    atomic_init(&sb->ready, false);
    (void)pthread_mutex_init(&sb->turn, NULL);
    (void)pthread_mutex_init(&sb->views.lock, NULL);
    sb->views.fd = -1;
    (void)pthread_mutex_init(&sb->lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&sb->moved, &attr);
    (void)pthread_condattr_destroy(&attr);
    events_init(&sb->events);
    if (all->events_ended)
        events_close(&sb->events);
    sb->idle_ttl_s = row->idle_ttl_s;
    sb->created_ns = row->created_ns;
    sb->used_ns = row->used_ns;
    sb->generation = row->generation;
    sb->files = row->files;
    sb->bytes = row->bytes;
    sb->deleting = row->deleting;
    if (copy_text(&sb->language, row->language) < 0 || copy_text(&sb->name, row->name) < 0 ||
        copy_text(&sb->image, row->image) < 0 || copy_text(&sb->env_json, row->env_json) < 0 ||
        copy_text(&sb->limits_json, row->limits_json) < 0 ||
        copy_text(&sb->network_json, row->network_json) < 0 ||
        copy_text(&sb->labels_json, row->labels_json) < 0 ||
        copy_text(&sb->writer_link, row->writer_link) < 0 ||
        copy_text(&sb->writer_machine, row->writer_machine) < 0) {
        (void)err_set(e, ENOMEM, "load a sandbox");
        sandbox_free(sb);
        return NULL;
    }
    return sb;
}

void sandbox_free(struct sandbox *sb)
{
    sandbox_uploads_free(sb);
    sandbox_views_free(sb);
    workspace_free(sb->ws);
    sandbox_clients_free(sb);
    sandbox_running_free(sb);
    events_release(&sb->events);
    free(sb->language);
    free(sb->name);
    free(sb->image);
    free(sb->env_json);
    free(sb->limits_json);
    free(sb->network_json);
    free(sb->labels_json);
    free(sb->writer_link);
    free(sb->writer_machine);
    (void)pthread_cond_destroy(&sb->moved);
    (void)pthread_mutex_destroy(&sb->lock);
    (void)pthread_mutex_destroy(&sb->turn);
    (void)pthread_mutex_destroy(&sb->views.lock);
    free(sb);
}

void sandbox_row(const struct sandbox *sb, struct store_sandbox *ret)
{
    *ret = (struct store_sandbox){
        .num = sb->num,
        .id = sb->id,
        .language = sb->language,
        .name = sb->name,
        .image = sb->image,
        .env_json = sb->env_json,
        .limits_json = sb->limits_json,
        .network_json = sb->network_json,
        .labels_json = sb->labels_json,
        .idle_ttl_s = sb->idle_ttl_s,
        .created_ns = sb->created_ns,
        .used_ns = sb->used_ns,
        .generation = sb->generation,
        .files = sb->files,
        .bytes = sb->bytes,
        .epoch = sb->epoch,
        .writer_link = sb->writer_link,
        .writer_machine = sb->writer_machine,
        .uid = sb->identity.uid,
        .deleting = sb->deleting,
    };
}

struct sandbox *sandbox_ref(struct sandbox *sb)
{
    (void)atomic_fetch_add(&sb->refs, 1);
    return sb;
}

void sandbox_unref(struct sandbox *sb)
{
    if (sb && atomic_fetch_sub(&sb->refs, 1) == 1)
        sandbox_free(sb);
}

const char *sandbox_id(const struct sandbox *sb)
{
    return sb->id;
}

void sandbox_info_release(struct sandbox_info *info)
{
    char **texts[] = {&info->language, &info->name, &info->image, &info->env_json,
        &info->limits_json, &info->network_json, &info->labels_json, &info->writer_link,
        &info->writer_machine};

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        free(ptr_take(texts[i]));
}

int sandbox_info(struct sandbox *sb, struct sandbox_info *ret, struct err *e)
{
    *ret = (struct sandbox_info){.idle_ttl_s = 0};
    (void)pthread_mutex_lock(&sb->lock);
    memcpy(ret->id, sb->id, sizeof ret->id);
    memcpy(ret->epoch, sb->epoch, sizeof ret->epoch);
    ret->idle_ttl_s = sb->idle_ttl_s;
    ret->created_ns = sb->created_ns;
    ret->used_ns = sb->used_ns;
    ret->generation = sb->generation;
    ret->files = sb->files;
    ret->bytes = sb->bytes;
    ret->deleting = sb->deleting;
    int r = copy_text(&ret->language, sb->language) | copy_text(&ret->name, sb->name) |
            copy_text(&ret->image, sb->image) | copy_text(&ret->env_json, sb->env_json) |
            copy_text(&ret->limits_json, sb->limits_json) |
            copy_text(&ret->network_json, sb->network_json) |
            copy_text(&ret->labels_json, sb->labels_json) |
            copy_text(&ret->writer_link, sb->writer_link) |
            copy_text(&ret->writer_machine, sb->writer_machine);
    (void)pthread_mutex_unlock(&sb->lock);
    if (r == 0)
        return 0;
    sandbox_info_release(ret);
    return err_set(e, ENOMEM, "describe a sandbox");
}

/* Take the spec's texts; those that are NULL stay. */
static int take_spec(struct sandbox *sb, const struct sandbox_spec *spec)
{
    int r = copy_text(&sb->language, spec->language) | copy_text(&sb->name, spec->name) |
            copy_text(&sb->image, spec->image) | copy_text(&sb->env_json, spec->env_json) |
            copy_text(&sb->limits_json, spec->limits_json) |
            copy_text(&sb->network_json, spec->network_json) |
            copy_text(&sb->labels_json, spec->labels_json);

    if (spec->idle_ttl_s != UINT64_MAX)
        sb->idle_ttl_s = spec->idle_ttl_s;
    return r ? -ENOMEM : 0;
}

int sandbox_update(struct sandbox *sb, const struct sandbox_spec *spec, struct err *e)
{
    struct store_sandbox row;
    int r = sandbox_enter(sb, false, e);

    if (r < 0)
        return r;
    /* Under turn, so that the row's generation is not written over by an older one. */
    (void)pthread_mutex_lock(&sb->turn);
    (void)pthread_mutex_lock(&sb->lock);
    r = take_spec(sb, spec);
    sb->used_ns = io_wall_ns();
    sandbox_row(sb, &row);
    r = r < 0 ? err_set(e, -r, "change a sandbox")
              : store_sandbox_save(sb->all->config.store, &row, e);
    (void)pthread_mutex_unlock(&sb->lock);
    (void)pthread_mutex_unlock(&sb->turn);
    sandbox_exit(sb);
    return r;
}

/* ---- creating and finding */

/* The lowest uid that no sandbox has; all->lock is held. -EBUSY when all are taken. */
static int free_uid(struct sandboxes *all, uid_t *ret, struct err *e)
{
    struct sandbox *sb, *next;
    uint32_t count = all->config.uid_count, taken_bytes = count / 8 + 1;

    if (!all->config.root) {
        *ret = geteuid();
        return 0;
    }
    CLEANUP(freep) uint8_t *taken = calloc(1, taken_bytes);
    if (!taken)
        return err_set(e, ENOMEM, "find a free uid");
    HASH_ITER(hh, all->table, sb, next) {
        uint32_t at = sb->identity.uid - all->config.uid_first;
        if (at < count)
            taken[at / 8] |= (uint8_t)(1u << (at % 8));
    }
    for (uint32_t i = 0; i < count; i++) {
        if (taken[i / 8] & (1u << (i % 8)))
            continue;
        *ret = WEAK("uid") ? 0 : all->config.uid_first + i;
        return 0;
    }
    return err_refuse(
        e, PROTO_BUSY, "all %u sandboxes that this server can hold exist: delete one", count);
}

/* Insert into database and table; all->lock is held, so that the uid stays free until it is taken.
 */
static int add_sandbox(
    struct sandboxes *all, const struct sandbox_spec *spec, struct sandbox **ret, struct err *e)
{
    struct store_sandbox row = {.language = spec->language ? spec->language : "",
        .name = spec->name ? spec->name : "",
        .image = spec->image ? spec->image : "host",
        .env_json = spec->env_json ? spec->env_json : "{}",
        .limits_json = spec->limits_json ? spec->limits_json : "{}",
        .network_json = spec->network_json ? spec->network_json : "{}",
        .labels_json = spec->labels_json ? spec->labels_json : "{}",
        .idle_ttl_s = spec->idle_ttl_s == UINT64_MAX ? 0 : spec->idle_ttl_s,
        .created_ns = io_wall_ns(),
        .epoch = "",
        .writer_link = "",
        .writer_machine = ""};
    char id[SANDBOX_ID_BYTES];
    uid_t uid = 0;
    int r = free_uid(all, &uid, e);

    if (r < 0)
        return r;
    text_id(ID_PREFIX, id, sizeof id);
    row.id = id;
    row.uid = uid;
    row.used_ns = row.created_ns;
    struct sandbox *sb = sandbox_from_row(all, &row, e);
    if (!sb)
        return -ENOMEM;
    sandbox_new_epoch(sb);
    row.epoch = sb->epoch;
    r = store_sandbox_add(all->config.store, &row, &sb->num, e);
    if (r == 0) {
        HASH_ADD_STR(all->table, id, sb);
        if (!sb->hh.tbl) {
            (void)!store_sandbox_delete(all->config.store, sb->num, NULL);
            r = err_set(e, ENOMEM, "create a sandbox");
        }
    }
    if (r < 0) {
        sandbox_free(sb);
        return r;
    }
    *ret = sandbox_ref(sb);
    return 0;
}

int sandbox_create(
    struct sandboxes *all, const struct sandbox_spec *spec, struct sandbox **ret, struct err *e)
{
    struct sandbox *sb = NULL;

    (void)pthread_mutex_lock(&all->lock);
    int r = add_sandbox(all, spec, &sb, e);
    (void)pthread_mutex_unlock(&all->lock);
    if (r < 0)
        return r;
    /* The row is first: a folder without a row would be nobody's. */
    r = sandbox_enter(sb, true, e);
    if (r < 0) {
        (void)!sandbox_delete(sb, NULL);
        sandbox_unref(sb);
        return r;
    }
    sandbox_exit(sb);
    *ret = sb;
    return 0;
}

static bool was_deleted(const struct sandboxes *all, const char *id)
{
    size_t count =
        all->deleted_count < SANDBOX_DELETED_MAX ? all->deleted_count : SANDBOX_DELETED_MAX;

    for (size_t i = 0; i < count; i++) {
        if (strcmp(all->deleted[i], id) == 0)
            return true;
    }
    return false;
}

int sandbox_get(struct sandboxes *all, const char *id, struct sandbox **ret, struct err *e)
{
    struct sandbox *sb;
    bool deleting = false;

    (void)pthread_mutex_lock(&all->lock);
    HASH_FIND_STR(all->table, id, sb);
    if (sb) {
        (void)pthread_mutex_lock(&sb->lock);
        deleting = sb->deleting;
        (void)pthread_mutex_unlock(&sb->lock);
        if (!deleting)
            (void)sandbox_ref(sb);
    } else {
        deleting = was_deleted(all, id);
    }
    (void)pthread_mutex_unlock(&all->lock);
    if (deleting)
        return err_refuse(e, PROTO_SANDBOX_DELETED, "the sandbox %s was deleted: create a new one",
            text_is_id(ID_PREFIX, id) ? id : "");
    if (!sb)
        return err_refuse(e, PROTO_SANDBOX_NOT_FOUND, "there is no sandbox %s on this server",
            text_is_id(ID_PREFIX, id) ? id : "with this id");
    *ret = sb;
    return 0;
}

/* References to up to `limit` sandboxes after `after_id`, in order of creation. */
static size_t collect(
    struct sandboxes *all, const char *after_id, size_t limit, struct sandbox **out)
{
    struct sandbox *sb = all->table;
    size_t count = 0;

    if (after_id) {
        HASH_FIND_STR(all->table, after_id, sb);
        sb = sb ? sb->hh.next : NULL;
    }
    for (; sb && count < limit; sb = sb->hh.next)
        out[count++] = sandbox_ref(sb);
    return count;
}

int sandbox_list(struct sandboxes *all, const char *after_id, unsigned limit,
    int (*visit)(const struct sandbox_info *info, void *ctx), void *ctx, struct err *e)
{
    int r = 0;
    bool stop = false;

    (void)pthread_mutex_lock(&all->lock);
    size_t total = HASH_COUNT(all->table), max = limit < total ? limit : total, count = 0;
    CLEANUP(freep) struct sandbox **found = calloc(max + 1, sizeof *found);
    if (found)
        count = collect(all, after_id, max, found);
    (void)pthread_mutex_unlock(&all->lock);
    if (!found)
        return err_set(e, ENOMEM, "list sandboxes");
    for (size_t i = 0; i < count; i++) {
        struct sandbox_info info;
        if (!stop && r == 0 && (r = sandbox_info(found[i], &info, e)) == 0) {
            stop = visit(&info, ctx) != 0;
            sandbox_info_release(&info);
        }
        sandbox_unref(found[i]);
    }
    return r;
}
