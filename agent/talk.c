/* SPDX-License-Identifier: MIT */
#include "agent/talk.h"

#include "shared/banned.h"

void talk_init(struct talk *t, const struct app *app)
{
    t->app = app;
    progress_init(&t->progress, app->opt.json);
}

static void on_skipped(void *ctx, const char *path, const char *why)
{
    struct talk *t = ctx;

    progress_clear(&t->progress);
    out_note(t->app, "%s: %s", out_path(path), why);
}

static void on_conflict(void *ctx, const char *path)
{
    struct talk *t = ctx;

    progress_clear(&t->progress);
    out_note(t->app, "%s was changed on both sides: the local version was sent, the other one is kept (silt pull "
        "--conflicts)", out_path(path));
}

static void on_progress(
    void *ctx, uint64_t files, uint64_t files_total, uint64_t bytes, uint64_t bytes_total)
{
    struct talk *t = ctx;

    progress_update(&t->progress, files, files_total, bytes, bytes_total);
}

struct sync_config talk_sync_config(struct talk *t, bool with_progress)
{
    return (struct sync_config){
        .link = &t->app->link,
        .client = t->app->client,
        .events = {.progress = with_progress ? on_progress : NULL,
            .skipped = on_skipped,
            .conflict = on_conflict,
            .ctx = t},
        .allow_empty = t->app->opt.allow_empty,
        .steal = t->app->opt.steal,
    };
}
