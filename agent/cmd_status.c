/* SPDX-License-Identifier: MIT */
/* status and doctor: how things stand, and whether everything that has to work does. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

#include "agent/app.h"
#include "agent/control.h"
#include "agent/ignore.h"
#include "agent/pull_status.h"
#include "agent/why.h"
#include "shared/io.h"
#include "shared/num.h"

#include "shared/banned.h"

#define WATCHES_MAX "/proc/sys/fs/inotify/max_user_watches"

/* ---- status */

static json_t *watcher_status(const struct app *app)
{
    struct err ignored = ERR_INIT;
    json_t *ask = json_pack("{s:s}", "op", "status"), *answer = NULL;

    if (control_request(app->root, ask, 2000, &answer, &ignored) < 0)
        answer = NULL;
    json_decref(ask);
    return answer;
}

static json_t *server_sandbox(struct app *app, struct err *e)
{
    CLEANUP(freep) char *path = NULL;
    json_t *sb = NULL;

    if (asprintf(&path, "/v1/sandboxes/%s", app->link.sandbox) < 0)
        return NULL;
    return app_rest(app, "GET", path, NULL, &sb, e) < 0 ? NULL : sb;
}

/* Without a watcher: what a sync would do now. Nothing is sent. */
static int64_t pending_operations(struct app *app)
{
    struct sync_config config = {.link = &app->link, .client = app->client};
    struct sync *sync = NULL;
    struct err ignored = ERR_INIT;
    int64_t pending = -1;

    if (sync_open(&config, &sync, &ignored) == 0)
        pending = sync_changes(sync, &ignored);
    sync_close(sync);
    return pending;
}

static uint64_t read_number(const char *path)
{
    CLEANUP(buf_release) struct buf text;
    uint64_t value = 0;

    buf_init(&text, 64);
    if (io_read_file(path, 63, &text, NULL) < 0 || text.len == 0)
        return 0;
    text.data[strcspn(buf_str(&text), "\n")] = '\0';
    return num_u64(buf_str(&text), UINT64_MAX, &value) < 0 ? 0 : value;
}

static json_t *ignored_paths(const struct app *app)
{
    struct err ignored = ERR_INIT;
    size_t counts[IGNORE_SOURCES];
    bool more = false;

    if (why_count(app->root, counts, &more, &ignored) < 0)
        return NULL;
    return json_pack("{s:I, s:I, s:I, s:b}", "built_in", (json_int_t)counts[IGNORE_BUILTIN],
        "gitignore", (json_int_t)(counts[IGNORE_GIT] + counts[IGNORE_EXCLUDE] + counts[IGNORE_GLOBAL]), "siltignore", (json_int_t)counts[IGNORE_SILT],
        "more", more);
}

static json_int_t number(const json_t *object, const char *name)
{
    return json_integer_value(json_object_get(object, name));
}

static void print_ignored(const json_t *ignored)
{
    json_int_t built_in = number(ignored, "built_in"), git = number(ignored, "gitignore"),
               own = number(ignored, "siltignore");

    if (ignored)
        printf("ignored    %lld path%s%s: %lld by git's rules, %lld by .siltignore, %lld built in "
               "(silt ignored PATH)\n",
            (long long)(built_in + git + own), built_in + git + own == 1 ? "" : "s",
            json_is_true(json_object_get(ignored, "more")) ? " or more" : "", (long long)git,
            (long long)own, (long long)built_in);
}

static double ms_of(const json_t *times, const char *name)
{
    return json_real_value(json_object_get(times, name));
}

static void print_times(const json_t *watcher)
{
    const json_t *times = json_object_get(watcher, "times"),
                 *saves = json_object_get(times, "saves"),
                 *first = json_object_get(times, "first_outputs"),
                 *results = json_object_get(times, "results");

    if (number(saves, "count"))
        printf("saves      last %lld: acknowledged p50 %.1f ms, p99 %.1f ms after they were seen\n",
            (long long)number(saves, "count"), ms_of(saves, "p50_ms"), ms_of(saves, "p99_ms"));
    if (number(results, "count"))
        printf("runs       last %lld: first output p50 %.1f ms, p99 %.1f ms; result p50 %.1f ms, "
               "p99 %.1f ms\n",
            (long long)number(results, "count"), ms_of(first, "p50_ms"), ms_of(first, "p99_ms"),
            ms_of(results, "p50_ms"), ms_of(results, "p99_ms"));
}

static void print_watcher(const json_t *watcher)
{
    const char *problem = json_string_value(json_object_get(watcher, "problem"));
    json_int_t polled = number(watcher, "polled_directories");

    printf("watcher    process %lld, %s\n", (long long)number(watcher, "pid"),
        json_string_value(json_object_get(watcher, "state")));
    printf("watches    %lld of %llu that a user may have\n",
        (long long)number(watcher, "watched_directories"),
        (unsigned long long)read_number(WATCHES_MAX));
    if (polled)
        printf("degraded   %lld folder%s looked at every 2 s for want of watches\n",
            (long long)polled, polled == 1 ? " is" : "s are");
    if (problem)
        printf("degraded   %s\n", problem);
    print_times(watcher);
}

static void print_pending(const json_t *watcher, int64_t pending)
{
    const json_t *paths = json_object_get(watcher, "pending_paths"), *path;
    size_t i;

    printf("pending    %s%lld change%s\n", pending ? "" : "nothing: ", (long long)pending,
        pending == 1 ? "" : "s");
    json_array_foreach(paths, i, path)
        printf("           %s\n", out_path(json_string_value(path)));
}

static void print_status(
    struct app *app, json_t *watcher, json_t *sb, const struct err *away, int64_t pending)
{
    char size[16];

    printf("project    %s\n", out_path(app->root));
    printf("server     %s%s\n", app->link.server, sb ? "" : "  (away)");
    if (sb) {
        json_t *writer = json_object_get(sb, "writer");
        const char *link = json_string_value(json_object_get(writer, "link"));
        printf("sandbox    %s, generation %lld, %lld files, %s\n", app->link.sandbox,
            (long long)json_integer_value(json_object_get(sb, "generation")),
            (long long)json_integer_value(json_object_get(sb, "files")),
            num_human_bytes(
                (uint64_t)json_integer_value(json_object_get(sb, "bytes")), size, sizeof(size)));
        if (link && strcmp(link, app->link.id) != 0)
            printf("writer     another folder fills this sandbox: %s (silt sync --steal takes it "
                   "over)\n",
                json_string_value(json_object_get(writer, "machine")));
    } else {
        printf("sandbox    %s: %s\n", app->link.sandbox, away->msg);
    }
    if (watcher)
        print_watcher(watcher);
    else
        printf("watcher    none (silt watch -d starts one)\n");
    if (pending >= 0)
        print_pending(watcher, pending);
}

int cmd_status(struct app *app)
{
    struct err e = ERR_INIT, away = ERR_INIT;
    int r = app_need_link(app, &e);

    if (r < 0)
        return app_fail(app, &e);
    json_t *watcher = watcher_status(app);
    json_t *sb = server_sandbox(app, &away);
    int64_t pending = watcher ? json_integer_value(json_object_get(watcher, "pending"))
                      : sb    ? pending_operations(app)
                              : -1;
    json_t *ignored = ignored_paths(app);
    json_t *runs = sb ? pull_status(app) : NULL;
    if (app->opt.json) {
        out_json(json_pack("{s:s, s:s, s:s, s:b, s:O?, s:O?, s:s?, s:I, s:O?, s:O?, s:I}", "root",
            app->root, "server", app->link.server, "sandbox", app->link.sandbox, "reachable",
            sb != NULL, "watcher", watcher, "remote", sb, "problem", sb ? NULL : away.msg,
            "pending", (json_int_t)pending, "ignored", ignored, "runs", runs, "watches_max",
            (json_int_t)read_number(WATCHES_MAX)));
    } else {
        print_status(app, watcher, sb, &away, pending);
        pull_status_print(runs);
        print_ignored(ignored);
    }
    json_decref(ignored);
    json_decref(runs);
    json_decref(watcher);
    json_decref(sb);
    return sb ? EXIT_FINE : EXIT_TROUBLE;
}

/* ---- doctor */

struct checkup {
    struct app *app;
    json_t *items;
    unsigned bad;
};

static void tell(struct checkup *c, bool good, const char *name, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static void tell(struct checkup *c, bool good, const char *name, const char *fmt, ...)
{
    char text[1024];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    c->bad += !good;
    if (c->app->opt.json)
        err_ignore(json_array_append_new(
            c->items, json_pack("{s:s, s:b, s:s}", "check", name, "good", good, "text", text)));
    else
        printf("%-4s  %-10s  %s\n", good ? "ok" : "BAD", name, text);
}

static void check_server(struct checkup *c)
{
    struct err e = ERR_INIT;
    json_t *health = NULL, *info = NULL;

    if (app_rest(c->app, "GET", "/healthz", NULL, &health, &e) < 0) {
        tell(c, false, "server", "%s", e.msg);
        return;
    }
    if (app_rest(c->app, "GET", "/v1/info", NULL, &info, &e) < 0)
        tell(c, false, "server", "%s", e.msg);
    else
        tell(c, true, "server", "%s answers, siltd %s", client_server(c->app->client),
            json_string_value(json_object_get(info, "version")));
    const char *note = json_string_value(json_object_get(health, "note"));
    if (note && *note)
        tell(c, true, "isolation", "%s", note);
    json_decref(health);
    json_decref(info);
}

static void check_inotify(struct checkup *c)
{
    uint64_t watches = read_number(WATCHES_MAX);
    uint64_t queue = read_number("/proc/sys/fs/inotify/max_queued_events");

    tell(c, watches >= 8192, "inotify", "%llu watches for one user, a queue of %llu events%s",
        (unsigned long long)watches, (unsigned long long)queue,
        watches >= 8192 ? ""
                        : ": raise it with `sysctl fs.inotify.max_user_watches=524288`, or big "
                          "projects are polled");
}

static void check_project(struct checkup *c)
{
    struct app *app = c->app;
    struct statvfs space;
    char size[16];

    if (!app->linked) {
        tell(c, true, "project", "%s is not linked yet: `silt run FILE` links it",
            app->root ? app->root : app->cwd);
        return;
    }
    tell(c, true, "project", "%s is linked to %s", app->root, app->link.sandbox);
    if (statvfs(app->root, &space) == 0) {
        uint64_t free_bytes = (uint64_t)space.f_bavail * space.f_frsize;
        tell(c, free_bytes > (UINT64_C(16) << 20), "disk", "%s free for .silt",
            num_human_bytes(free_bytes, size, sizeof(size)));
    }
    struct err e = ERR_INIT;
    json_t *sb = server_sandbox(app, &e);
    tell(c, sb != NULL, "sandbox", "%s", sb ? "is there" : e.msg);
    json_decref(sb);
    json_t *watcher = watcher_status(app);
    const char *problem = json_string_value(json_object_get(watcher, "problem"));
    tell(c, problem == NULL, "watcher", "%s",
        problem   ? problem
        : watcher ? "is running"
                  : "none is running");
    json_decref(watcher);
}

int cmd_doctor(struct app *app)
{
    struct checkup c = {.app = app, .items = json_array()};
    struct err e = ERR_INIT;

    int r = app_need_link(app, &e);
    if (r < 0 && r != -ENOENT)
        tell(&c, false, "link", "%s", e.msg);
    if (!app->client && app_connect(app, &e) < 0)
        tell(&c, false, "address", "%s", e.msg);
    if (app->client)
        check_server(&c);
    check_inotify(&c);
    check_project(&c);
    if (app->opt.json)
        out_json(json_pack("{s:b, s:o}", "good", c.bad == 0, "checks", c.items));
    else
        json_decref(c.items);
    return c.bad ? EXIT_TROUBLE : EXIT_FINE;
}
