/* SPDX-License-Identifier: MIT */
/* A plan as a file in the stage, for the watcher that carries it out, and back with what became of
 * it. Every path is in base64: names need not be UTF-8. */
#include "agent/pull.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "shared/io.h"
#include "shared/path.h"
#include "shared/text.h"

#include "shared/banned.h"

/* ---- out */

static json_t *coded(const char *text)
{
    CLEANUP(buf_release) struct buf b;
    buf_init(&b, 2 * (size_t)PATH_BYTES_MAX);
    return text && text_add_base64(&b, text, strlen(text)) == 0 ? json_string(buf_str(&b))
                                                                : json_null();
}

static json_t *seen_out(const struct pull_seen *seen)
{
    char hash[HASH_TEXT_BYTES];
    return seen->exists ? json_pack("{s:i, s:s}", "kind", (int)seen->kind, "hash",
                              hash_text(&seen->hash, hash))
                        : json_null();
}

static json_t *item_out(const struct pull_item *item)
{
    const struct manifest_entry *m = &item->there;
    char hash[HASH_TEXT_BYTES];
    return json_pack("{s:i, s:o, s:i, s:i, s:I, s:s, s:o, s:o, s:o, s:s?, s:b}", "action",
        (int)item->action, "path", coded(m->path), "kind", (int)m->kind, "mode", (int)m->mode,
        "size", (json_int_t)m->size, "hash", hash_text(&m->hash, hash), "target",
        coded(m->target), "here", seen_out(&item->here), "known", seen_out(&item->known), "why",
        item->why, "done", item->done);
}

int pull_plan_save(
    const struct pull_plan *plan, bool allow_delete, int stage_fd, struct err *e)
{
    static const char fresh[] = PULL_PLAN_FILE ".new";
    json_t *items = json_array();
    int r = items ? 0 : -ENOMEM;
    for (size_t i = 0; r == 0 && i < plan->count; i++)
        r = json_array_append_new(items, item_out(&plan->items[i])) < 0 ? -ENOMEM : 0;
    json_t *all = json_pack("{s:b, s:o}", "delete", allow_delete, "items", items);
    CLEANUP(freep) char *text = r == 0 && all ? json_dumps(all, JSON_COMPACT) : NULL;
    json_decref(all);
    if (!text)
        return err_set(e, ENOMEM, "write a pull's plan");
    CLEANUP(fd_closep)
    int fd = openat(
        stage_fd, fresh, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    r = fd < 0 ? -errno : io_write_all(fd, text, strlen(text));
    if (r == 0 && renameat(stage_fd, fresh, stage_fd, PULL_PLAN_FILE) < 0)
        r = -errno;
    return r < 0 ? err_set(e, -r, "write a pull's plan") : 0;
}

/* ---- in */

/* malloc'd; NULL if it is no text. */
static char *decoded(const json_t *object, const char *name)
{
    CLEANUP(buf_release) struct buf b;
    const char *text = json_string_value(json_object_get(object, name));
    buf_init(&b, PATH_BYTES_MAX);
    if (!text || text_decode_base64(text, strlen(text), &b) < 0 || memchr(b.data, '\0', b.len))
        return NULL;
    return buf_steal(&b);
}

static bool number_in(const json_t *object, const char *name, json_int_t max, json_int_t *ret)
{
    const json_t *value = json_object_get(object, name);
    *ret = json_integer_value(value);
    return json_is_integer(value) && *ret >= 0 && *ret <= max;
}

static bool hash_in(const json_t *object, struct hash *ret)
{
    const char *text = json_string_value(json_object_get(object, "hash"));
    return text && hash_parse(text, ret) == 0;
}

static bool seen_in(const json_t *object, struct pull_seen *ret)
{
    json_int_t kind;
    if (json_is_null(object))
        return true;
    ret->exists = true;
    if (!number_in(object, "kind", TREE_OTHER, &kind) || !hash_in(object, &ret->hash))
        return false;
    ret->kind = (enum tree_kind)kind;
    return true;
}

static bool item_in(const json_t *object, struct pull_item *ret)
{
    json_int_t action, kind, mode, size;
    const char *why = json_string_value(json_object_get(object, "why"));
    *ret = (struct pull_item){.done = json_is_true(json_object_get(object, "done"))};
    ret->there.path = decoded(object, "path");
    ret->there.target = decoded(object, "target");
    ret->why = why ? strdup(why) : NULL;
    bool good = ret->there.path &&
                path_check(ret->there.path, strlen(ret->there.path)) == PATH_FINE &&
                number_in(object, "action", PULL_ACTIONS - 1, &action) &&
                number_in(object, "kind", TREE_SYMLINK, &kind) &&
                number_in(object, "mode", 0777, &mode) &&
                number_in(object, "size", INT64_MAX, &size) && hash_in(object, &ret->there.hash) &&
                seen_in(json_object_get(object, "here"), &ret->here) &&
                seen_in(json_object_get(object, "known"), &ret->known);
    if (!good || (kind == TREE_SYMLINK && !ret->there.target))
        return false;
    ret->action = (enum pull_action)action;
    ret->there.kind = (enum tree_kind)kind;
    ret->there.mode = (uint32_t)mode;
    ret->there.size = (uint64_t)size;
    return true;
}

static int read_plan(int stage_fd, json_t **ret, struct err *e)
{
    CLEANUP(buf_release) struct buf text;
    CLEANUP(fd_closep)
    int fd = openat(stage_fd, PULL_PLAN_FILE, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    buf_init(&text, PULL_PLAN_MAX);
    int r = fd < 0 ? -errno : io_read_rest(fd, &text);
    if (r < 0)
        return err_set(e, -r, "read a pull's plan");
    *ret = json_loadb((const char *)text.data, text.len, JSON_REJECT_DUPLICATES, NULL);
    return *ret ? 0 : err_say(e, EBADMSG, "a pull's plan is damaged: pull again");
}

int pull_plan_load(int stage_fd, struct pull_plan *ret, bool *ret_delete, struct err *e)
{
    json_t *all = NULL;
    *ret = (struct pull_plan){.items = NULL};
    int r = read_plan(stage_fd, &all, e);
    if (r < 0)
        return r;
    const json_t *items = json_object_get(all, "items");
    size_t count = json_array_size(items);
    *ret_delete = json_is_true(json_object_get(all, "delete"));
    if (count > PULL_ITEMS_MAX || !(ret->items = calloc(count + 1, sizeof(*ret->items))))
        r = err_set(e, ENOMEM, "read a pull's plan");
    for (size_t i = 0; r == 0 && i < count; i++) {
        ret->count++;
        if (!item_in(json_array_get(items, i), &ret->items[i]))
            r = err_say(e, EBADMSG, "a pull's plan is damaged: pull again");
    }
    json_decref(all);
    if (r < 0)
        pull_plan_release(ret);
    return r;
}
