/* SPDX-License-Identifier: MIT */
#include "server/api_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "server/image.h"
#include "server/image_json.h"

#include "shared/banned.h"

#define USERS_LISTED 100

struct row {
    const char *name;
    json_t *sandboxes; /* ids of the first ones */
    uint64_t count;
};

struct listing {
    struct row *rows; /* sorted by name, but for the first, which is the host */
    size_t count;
};

static int by_name(const void *key, const void *row)
{
    return strcmp(key, ((const struct row *)row)->name);
}

static struct row *find_row(const struct listing *l, const char *image)
{
    if (image_is_host(image))
        return l->rows;
    return bsearch(image, l->rows + 1, l->count - 1, sizeof *l->rows, by_name);
}

static int visit_sandbox(const struct sandbox_info *info, void *ctx)
{
    struct row *row = info->deleting ? NULL : find_row(ctx, info->image);
    if (row && row->count++ < USERS_LISTED)
        err_ignore(json_array_append_new(row->sandboxes, json_string(info->id)));
    return 0;
}

/* A run that goes on in an image that its sandbox no longer names holds it, too. */
static void visit_run(const char *sandbox, const char *image, void *ctx)
{
    struct row *row = find_row(ctx, image);
    json_t *id;
    size_t i;
    if (!row || row->count >= USERS_LISTED)
        return;
    json_array_foreach(row->sandboxes, i, id)
    {
        if (strcmp(json_string_value(id), sandbox) == 0)
            return;
    }
    row->count++;
    err_ignore(json_array_append_new(row->sandboxes, json_string(sandbox)));
}

static json_t *row_json(struct call *call, const struct row *row)
{
    struct image image;
    json_t *object = NULL;
    if (image_is_host(row->name)) {
        object = image_json_host();
    } else {
        if (image_load(call->api->c.config->images, row->name, &image, NULL) == 0)
            object = image_json(&image);
        image_release(&image);
    }
    if (object) {
        err_ignore(json_object_set(object, "sandboxes", row->sandboxes));
        err_ignore(
            json_object_set_new(object, "sandbox_count", json_integer((json_int_t)row->count)));
    }
    return object;
}

static int make_listing(char *const *names, struct listing *ret)
{
    while (names[ret->count])
        ret->count++;
    ret->count++;
    ret->rows = calloc(ret->count, sizeof *ret->rows);
    if (!ret->rows)
        return -ENOMEM;
    for (size_t i = 0; i < ret->count; i++) {
        ret->rows[i].name = i ? names[i - 1] : IMAGE_HOST;
        ret->rows[i].sandboxes = json_array();
    }
    return 0;
}

void api_image_list(struct call *call)
{
    struct listing l = {.rows = NULL};
    struct err e = ERR_INIT;
    char **names = NULL;
    json_t *items = json_array();
    int r = image_names(config_image_dir(call->api->c.config), &names, &e);
    if (r == 0 && (!items || make_listing(names, &l) < 0))
        r = err_set(&e, ENOMEM, "list the images");
    if (r == 0)
        r = sandbox_list(call->api->c.sandboxes, NULL, INT32_MAX, visit_sandbox, &l, &e);
    if (r == 0) {
        exec_each_image(call->api->c.exec, visit_run, &l);
        for (size_t i = 0; i < l.count; i++) {
            json_t *object = row_json(call, &l.rows[i]);
            if (object) /* else it was removed meanwhile */
                err_ignore(json_array_append_new(items, object));
        }
    }
    for (size_t i = 0; l.rows && i < l.count; i++)
        json_decref(l.rows[i].sandboxes);
    free(l.rows);
    image_names_free(names);
    if (r < 0) {
        json_decref(items);
        api_fail(call->req, &e, NULL);
        return;
    }
    api_reply(call, 200, json_pack("{s:o, s:n}", "items", items, "next_cursor"));
}
