/* SPDX-License-Identifier: MIT */
/* init, sync, flush, ignored: what has to do with sending the project. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent/app.h"
#include "agent/control.h"
#include "agent/run.h"
#include "agent/talk.h"
#include "agent/why.h"
#include "shared/io.h"
#include "shared/num.h"
#include "shared/path.h"

#include "shared/banned.h"

#define WAIT_DEFAULT_MS 10000
#define SYNC_WAIT_DEFAULT_MS 600000

static int open_sync(struct app *app, struct talk *talk, struct sync **ret, struct err *e)
{
    talk_init(talk, app);
    struct sync_config config = talk_sync_config(talk, true);
    return sync_open(&config, ret, e);
}

struct looked {
    uint64_t sent, received;
    char epoch[40];
};

/* Nothing to send is not "in sync" when another folder fills the sandbox. */
static int check_writer(const struct app *app, const json_t *sandbox, struct err *e)
{
    const json_t *writer = json_object_get(sandbox, "writer");
    const char *link = json_string_value(json_object_get(writer, "link")),
               *machine = json_string_value(json_object_get(writer, "machine"));

    if (!link || !*link || strcmp(link, app->link.id) == 0)
        return 0;
    return err_refuse(e, PROTO_LINKED_ELSEWHERE,
        "another folder%s%s fills the sandbox %s now; to make this one the folder that does: silt "
        "sync --steal",
        machine && *machine ? " on machine " : "", machine ? out_path(machine) : "",
        app->link.sandbox);
}

/* Ask the server about the sandbox of the link; its refusal if it has none. */
static int look_at_sandbox(struct app *app, struct looked *ret, struct err *e)
{
    CLEANUP(freep) char *path = NULL;
    struct client_response response;
    json_t *answer = NULL;

    *ret = (struct looked){.sent = 0};
    if (asprintf(&path, "/v1/sandboxes/%s", app->link.sandbox) < 0)
        return err_set(e, ENOMEM, "look at the sandbox");
    int r = client_call(app->client,
        &(struct client_request){.method = "GET", .path = path, .timeout_ms = WAIT_DEFAULT_MS},
        &response, e);
    ret->sent = response.bytes_sent;
    ret->received = response.bytes_received;
    if (r == 0 && (answer = client_json(&response, e)) != NULL) {
        const char *epoch = json_string_value(json_object_get(answer, "epoch"));
        (void)snprintf(ret->epoch, sizeof(ret->epoch), "%s", epoch ? epoch : "");
        r = check_writer(app, answer, e);
        json_decref(answer);
    }
    client_response_release(&response);
    return r;
}

/* ---- init */

/* A link to a sandbox that was deleted holds nobody to it. */
static bool sandbox_is_gone(struct app *app)
{
    struct err e = ERR_INIT;
    struct looked looked;

    return app_connect(app, &e) == 0 && strcmp(client_server(app->client), app->link.server) == 0 &&
           look_at_sandbox(app, &looked, &e) < 0 &&
           (e.refusal == PROTO_SANDBOX_NOT_FOUND || e.refusal == PROTO_SANDBOX_DELETED);
}

/* The image of a sandbox that is there already. */
static int choose_image(struct app *app, const char *sandbox, struct err *e)
{
    CLEANUP(freep) char *path = NULL;
    if (asprintf(&path, "/v1/sandboxes/%s", sandbox) < 0)
        return err_set(e, ENOMEM, "choose the image");
    json_t *body = json_pack("{s:s}", "image", app->opt.image);
    int r = app_rest(app, "PATCH", path, body, NULL, e);
    json_decref(body);
    return r;
}

static int say_link(const struct app *app)
{
    if (app->opt.json)
        out_json(json_pack("{s:s, s:s, s:s, s:s*}", "root", app->root, "server", app->link.server,
            "sandbox", app->link.sandbox, "image", app->opt.image));
    else
        printf("%s is linked to %s on %s%s%s\n", out_path(app->root), app->link.sandbox,
            app->link.server, app->opt.image ? ", image " : "",
            app->opt.image ? app->opt.image : "");
    return EXIT_FINE;
}

int cmd_init(struct app *app)
{
    struct err e = ERR_INIT;
    bool linked = false, moved = false;
    int r = link_find_root(app->cwd, &app->root, &linked, &e);

    /* `init` is about the folder it is typed in, unless that is already part of a linked project.
     */
    if (r == 0 && linked)
        r = link_load(app->root, &app->link, &moved, &e);
    if (r == 0)
        app->linked = linked && !moved;
    if (r == 0 && linked && !app->opt.sandbox && !moved && !sandbox_is_gone(app)) {
        if (app->opt.image)
            return choose_image(app, app->link.sandbox, &e) < 0 ? app_fail(app, &e)
                                                                : say_link(app);
        (void)err_say(&e, EEXIST,
            "%s is linked to %s on %s already; to link it anew, remove %s/.silt or name --sandbox "
            "ID",
            app->root, app->link.sandbox, app->link.server, app->root);
        return app_fail(app, &e);
    }
    if (r == 0 && moved && !app->opt.sandbox && !app->opt.yes) {
        (void)err_say(&e, EEXIST,
            "%s is a copy of a folder that is linked to %s: with --yes it gets a sandbox of its "
            "own, with --sandbox %s it takes that one over",
            app->root, app->link.sandbox, app->link.sandbox);
        return app_fail(app, &e);
    }
    app->linked = false;
    if (r == 0 && !app->client)
        r = app_connect(app, &e);
    /* What an index says about another sandbox would be wrong for this one. */
    if (r == 0 && linked)
        r = link_forget(app->root, &e);
    if (r == 0)
        r = app_make_link(app, app->opt.sandbox, &e);
    if (r == 0 && app->opt.sandbox && app->opt.image)
        r = choose_image(app, app->link.sandbox, &e);
    return r < 0 ? app_fail(app, &e) : say_link(app);
}

/* ---- sync */

static json_t *totals_json(const struct sync_totals *t)
{
    return json_pack("{s:I, s:i, s:i, s:i, s:i, s:I, s:I, s:I, s:i, s:i, s:f, s:f, s:f}",
        "generation", (json_int_t)t->generation, "created", (int)t->created, "updated",
        (int)t->updated, "moved", (int)t->moved, "deleted", (int)t->deleted, "bytes_sent",
        (json_int_t)t->bytes_sent, "bytes_received", (json_int_t)t->bytes_received, "content_bytes",
        (json_int_t)t->content_bytes, "conflicts", (int)t->conflicts, "skipped", (int)t->skipped,
        "scan_ms", t->scan_ms, "send_ms", t->send_ms, "elapsed_ms", t->elapsed_ms);
}

static json_t *verified_json(const struct sync_audit_result *v)
{
    return json_pack("{s:I, s:I, s:I}", "entries", (json_int_t)v->entries, "repaired",
        (json_int_t)v->repaired, "by_runs", (json_int_t)v->by_runs);
}

static void print_verified(const json_t *v)
{
    json_int_t entries = json_integer_value(json_object_get(v, "entries")),
               repaired = json_integer_value(json_object_get(v, "repaired")),
               by_runs = json_integer_value(json_object_get(v, "by_runs"));

    if (repaired)
        printf("verified: %lld of %lld entries were not there as they are here, and were sent again\n",
            (long long)repaired, (long long)entries);
    else
        printf("verified: both sides hold the same %lld entries\n", (long long)entries - by_runs);
    if (by_runs)
        printf("%lld entries were changed by runs, and left alone\n", (long long)by_runs);
}

static void print_totals(json_t *t)
{
    char sent[16];
    json_int_t created = json_integer_value(json_object_get(t, "created")),
               updated = json_integer_value(json_object_get(t, "updated")),
               moved = json_integer_value(json_object_get(t, "moved")),
               deleted = json_integer_value(json_object_get(t, "deleted"));
    double ms = json_number_value(json_object_get(t, "elapsed_ms"));
    const json_t *verified = json_object_get(t, "verified");

    if (verified)
        print_verified(verified);

    if (created + updated + moved + deleted == 0) {
        printf("in sync, generation %lld (%.1f ms)\n",
            (long long)json_integer_value(json_object_get(t, "generation")), ms);
        return;
    }
    printf("generation %lld: %lld created, %lld updated, %lld moved, %lld deleted; %s sent in %.1f "
           "ms\n",
        (long long)json_integer_value(json_object_get(t, "generation")), (long long)created,
        (long long)updated, (long long)moved, (long long)deleted,
        num_human_bytes(
            (uint64_t)json_integer_value(json_object_get(t, "bytes_sent")), sent, sizeof(sent)),
        ms);
}

/* The deadline passed: what the server has not acknowledged is found by comparing once more. */
static int name_pending(struct app *app, struct sync *sync, struct err *e)
{
    struct err why = *e, ignored = ERR_INIT;
    CLEANUP(buf_release) struct buf list;
    json_t *path;
    size_t i;

    client_deadline(app->client, 0);
    buf_init(&list, sizeof(why.msg));
    json_t *paths = sync_scan(sync, &ignored) > 0 ? sync_pending(sync) : NULL;
    json_array_foreach(paths, i, path)
    {
        if (buf_addf(&list, "%s%s", i ? ", " : "; pending: ", json_string_value(path)) < 0)
            break;
    }
    json_decref(paths);
    return err_say(e, ETIMEDOUT, "%s%s", why.msg, list.len ? buf_str(&list) : "");
}

static int scan_and_push(struct sync *sync, struct err *e)
{
    int64_t ops = sync_scan(sync, e);

    return ops < 0 ? (int)ops : sync_push(sync, e);
}

/* Compare, and send again what is missing there. */
static int verify(struct sync *sync, struct sync_audit_result *ret, struct err *e)
{
    int r = sync_audit(sync, ret, e);

    if (r == -ESTALE) {
        r = scan_and_push(sync, e);
        if (r == 0)
            r = sync_audit(sync, ret, e);
    }
    return r == 0 && ret->repaired ? sync_push(sync, e) : r;
}

static int sync_here(struct app *app, uint32_t wait, json_t **ret, struct err *e)
{
    struct talk talk;
    struct sync *sync = NULL;
    struct sync_totals totals;
    struct sync_audit_result verified;
    int r = open_sync(app, &talk, &sync, e);

    client_deadline(app->client, io_now_ns() + (uint64_t)wait * 1000000);
    if (r == 0 && app->opt.verify)
        sync_doubt(sync);
    if (r == 0)
        r = scan_and_push(sync, e);
    if (r == 0 && app->opt.verify)
        r = verify(sync, &verified, e);
    progress_clear(&talk.progress);
    if (r == -ETIMEDOUT && sync)
        r = name_pending(app, sync, e);
    struct looked looked = {.sent = 0};
    if (r == 0)
        sync_totals(sync, &totals);
    /* Nothing was sent, so nobody has said yet that the server and the sandbox are still there. */
    if (r == 0 && totals.bytes_sent == 0)
        r = look_at_sandbox(app, &looked, e);
    /* Its workspace may have been lost, or made anew, since. */
    if (r == 0 && looked.epoch[0] && sync_note_epoch(sync, looked.epoch)) {
        r = scan_and_push(sync, e);
        progress_clear(&talk.progress);
        sync_totals(sync, &totals);
    }
    if (r == 0) {
        totals.bytes_sent += looked.sent;
        totals.bytes_received += looked.received;
        *ret = totals_json(&totals);
    }
    if (r == 0 && app->opt.verify)
        (void)json_object_set_new(*ret, "verified", verified_json(&verified));
    sync_close(sync);
    return r;
}

static int ask_watcher(struct app *app, const char *op, uint32_t timeout_ms, const char *epoch,
    json_t **ret, struct err *e)
{
    json_t *ask = json_pack("{s:s, s:i, s:b, s:s*}", "op", op, "timeout_ms", (int)timeout_ms,
        "verify", app->opt.verify, "epoch", epoch);
    int r = control_request(app->root, ask, timeout_ms + 1000, ret, e);

    json_decref(ask);
    return r;
}

/* A watcher that had nothing to send has not heard of a workspace that was lost meanwhile. -ENOENT and
 * -ECONNREFUSED mean that there is no watcher, and nothing else. */
static int sync_by_watcher(struct app *app, uint32_t wait, json_t **ret, struct err *e)
{
    struct looked looked;
    /* A watcher does not steal: it compares everything once the sandbox is this folder's. */
    int r = app->opt.steal ? app_take_lease(app, e) : 0;

    if (r < 0)
        return -EHOSTUNREACH;
    r = ask_watcher(app, "sync", wait, app->opt.steal ? "stolen" : NULL, ret, e);

    if (r < 0 || json_integer_value(json_object_get(*ret, "bytes_sent")) > 0)
        return r;
    const char *epoch = json_string_value(json_object_get(*ret, "epoch"));
    r = look_at_sandbox(app, &looked, e);
    bool same = !epoch || !looked.epoch[0] || strcmp(epoch, looked.epoch) == 0;
    if (r == 0 && same)
        return 0;
    json_decref(*ret);
    *ret = NULL;
    return r < 0 ? -EHOSTUNREACH : ask_watcher(app, "sync", wait, looked.epoch, ret, e);
}

typedef int (*way_fn)(struct app *app, uint32_t wait, json_t **ret, struct err *e);

/* By the watcher if there is one, else by ourselves; another command may hold the lock for a moment,
 * or a watcher that is just starting. */
static int do_anyhow(struct app *app, uint32_t wait, way_fn by_watcher, way_fn here, json_t **ret,
    struct err *e)
{
    if (app->opt.wait_ms)
        wait = (uint32_t)app->opt.wait_ms;
    for (int attempt = 0;; attempt++) {
        int r = by_watcher(app, wait, ret, e);
        if (r != -ENOENT && r != -ECONNREFUSED)
            return r;
        r = here(app, wait, ret, e);
        if (r != -EBUSY || attempt == 50)
            return r;
        (void)usleep(100000);
    }
}

int cmd_sync(struct app *app)
{
    struct err e = ERR_INIT;
    json_t *totals = NULL;
    int r = app_auto_link(app, &e);

    if (r == 0)
        r = do_anyhow(app, SYNC_WAIT_DEFAULT_MS, sync_by_watcher, sync_here, &totals, &e);
    if (r < 0)
        return app_fail(app, &e);
    if (app->opt.json) {
        out_json(totals);
        return EXIT_FINE;
    }
    print_totals(totals);
    json_decref(totals);
    return EXIT_FINE;
}

/* ---- flush */

static int flush_by_watcher(struct app *app, uint32_t wait, json_t **ret, struct err *e)
{
    return ask_watcher(app, "flush", wait, NULL, ret, e);
}

static int flush_here(struct app *app, uint32_t wait, json_t **ret, struct err *e)
{
    struct talk talk;
    struct sync *sync = NULL;
    struct sync_totals totals;
    const char *client = "";
    uint64_t seq = 0;
    int r = open_sync(app, &talk, &sync, e);

    client_deadline(app->client, io_now_ns() + (uint64_t)wait * 1000000);
    if (r == 0) {
        int64_t ops = sync_scan(sync, e);
        r = ops < 0 ? (int)ops : sync_push(sync, e);
        if (r == -ETIMEDOUT)
            r = name_pending(app, sync, e);
    }
    if (r == 0) {
        sync_barrier(sync, &client, &seq);
        sync_totals(sync, &totals);
        *ret = json_pack("{s:s, s:I, s:I, s:[]}", "client", client, "seq", (json_int_t)seq,
            "generation", (json_int_t)totals.generation, "pending");
    }
    sync_close(sync);
    return r;
}

int cmd_flush(struct app *app)
{
    struct err e = ERR_INIT;
    json_t *answer = NULL;
    int r = app_need_link(app, &e);

    if (r == 0)
        r = do_anyhow(app, WAIT_DEFAULT_MS, flush_by_watcher, flush_here, &answer, &e);
    if (r < 0)
        return app_fail(app, &e);
    out_json(answer);
    return EXIT_FINE;
}

/* ---- ignored */

int cmd_ignored(struct app *app)
{
    struct err e = ERR_INIT;
    CLEANUP(buf_release) struct buf why;
    CLEANUP(freep) char *path = NULL;
    bool linked = false, ignored = false;

    buf_init(&why, 16384);
    if (app->opt.arg_count != 1) {
        (void)err_say(&e, EINVAL, "name one path: silt ignored PATH");
        return app_fail(app, &e);
    }
    int r = link_find_root(app->cwd, &app->root, &linked, &e);
    if (r == 0)
        r = app_project_path(app, app->opt.args[0], &path, &e);
    if (r == 0)
        r = why_ignored(app->root, path, &ignored, &why, &e);
    if (r < 0)
        return app_fail(app, &e);
    if (app->opt.json)
        out_json(
            json_pack("{s:s, s:b, s:s}", "path", path, "ignored", ignored, "why", buf_str(&why)));
    else
        printf("%s%s\n", ignored ? "" : out_path(path), ignored ? buf_str(&why) : " is synced");
    return ignored ? EXIT_FINE : EXIT_TROUBLE;
}

/* "x is missing" after a run, while x is here and ignored. */
void run_explain_missing(struct app *app, const char *name)
{
    char *found[3];
    struct err ignored = ERR_INIT;
    bool is_ignored = false;
    size_t count = app->root ? why_find(app->root, name, found, 3) : 0;

    for (size_t i = 0; i < count; i++) {
        CLEANUP(buf_release) struct buf why;
        buf_init(&why, 16384);
        if (why_ignored(app->root, found[i], &is_ignored, &why, &ignored) == 0 && is_ignored)
            out_note(app, "%s exists here, but %s", out_path(found[i]), buf_str(&why));
        free(found[i]);
    }
}
