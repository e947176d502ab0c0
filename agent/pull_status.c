/* SPDX-License-Identifier: MIT */
#include "agent/pull_status.h"

#include <stdio.h>
#include <string.h>

#include "agent/pull_conflicts.h"
#include "agent/pull_view.h"
#include "shared/path.h"
#include "shared/text.h"

#include "shared/banned.h"

#define LISTED 5

static json_t *paths_of(const struct pull_plan *plan, bool (*wanted)(const struct pull_item *item))
{
    json_t *list = json_array();
    for (size_t i = 0; i < plan->count; i++) {
        CLEANUP(buf_release) struct buf b;
        buf_init(&b, 8 * (size_t)PATH_BYTES_MAX);
        if (wanted(&plan->items[i]) &&
            text_add_readable(&b, plan->items[i].there.path, strlen(plan->items[i].there.path)) == 0)
            err_ignore(json_array_append_new(list, json_string(buf_str(&b))));
    }
    return list;
}

static bool is_fetched(const struct pull_item *item)
{
    return item->action == PULL_FETCH || item->action == PULL_LINK || item->action == PULL_CHMOD;
}

static bool is_deleted(const struct pull_item *item)
{
    return item->action == PULL_DELETE && item->there.kind != TREE_DIR;
}

static bool is_conflict(const struct pull_item *item)
{
    return item->action == PULL_CONFLICT;
}

json_t *pull_status(struct app *app)
{
    CLEANUP(pull_view_close) struct pull_view view;
    struct pull_plan plan = {.items = NULL};
    struct err e = ERR_INIT;
    json_t *conflicts = NULL, *status = NULL;
    pull_view_init(&view);
    if (pull_view_open(app, false, &view, &e) == 0 &&
        pull_view_plan(&view, NULL, 0, false, &plan, &e) == 0 &&
        pull_conflicts_list(app, &conflicts, &e) == 0)
        status = json_pack("{s:o, s:o, s:o, s:O}", "from_runs", paths_of(&plan, is_fetched),
            "deleted_by_runs", paths_of(&plan, is_deleted), "changed_on_both_sides",
            paths_of(&plan, is_conflict), "conflicts", conflicts);
    json_decref(conflicts);
    pull_plan_release(&plan);
    return status;
}

/* "a, b, c and 4 more" */
static void print_some(const json_t *list)
{
    size_t count = json_array_size(list);
    for (size_t i = 0; i < count && i < LISTED; i++) {
        const json_t *item = json_array_get(list, i);
        const char *path = json_string_value(
            json_is_object(item) ? json_object_get(item, "path") : item);
        printf("%s%s", i ? ", " : "", path ? out_path(path) : "?");
    }
    if (count > LISTED)
        printf(" and %zu more", count - LISTED);
    printf("\n");
}

void pull_status_print(const json_t *status)
{
    static const struct {
        const char *member, *one, *many;
    } rows[] = {
        {"from_runs", "file of runs is not here (silt pull): ", "files of runs are not here (silt pull): "},
        {"deleted_by_runs", "file was deleted by a run (silt pull --delete): ",
            "files were deleted by runs (silt pull --delete): "},
        {"changed_on_both_sides", "file differs here and there, the next sync sends it: ",
            "files differ here and there, the next sync sends them: "},
        {"conflicts", "version gave way to an edit made here (silt pull --conflicts): ",
            "versions gave way to edits made here (silt pull --conflicts): "},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const json_t *list = json_object_get(status, rows[i].member);
        size_t count = json_array_size(list);
        if (count == 0)
            continue;
        printf("runs       %zu %s", count, count == 1 ? rows[i].one : rows[i].many);
        print_some(list);
    }
}
