/* SPDX-License-Identifier: MIT */
#include "server/run_json.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "shared/path.h"
#include "shared/text.h"

#include "shared/banned.h"

#define DETAIL_BYTES 256

const char *run_status_name(enum run_status status)
{
    static const char *const names[] = {
        [RUN_QUEUED] = "queued",
        [RUN_RUNNING] = "running",
        [RUN_SUCCEEDED] = "succeeded",
        [RUN_FAILED] = "failed",
        [RUN_TIMED_OUT] = "timed_out",
        [RUN_CANCELLED] = "cancelled",
        [RUN_ERROR] = "error",
    };
    return names[status];
}

const char *run_signal_name(int sig, char out[16])
{
    const char *abbrev = sigabbrev_np(sig);
    if (abbrev)
        (void)snprintf(out, 16, "SIG%s", abbrev);
    else
        (void)snprintf(out, 16, "SIG%d", sig);
    return out;
}

/* json_object_set_new fails for a NULL value and frees nothing: one place remembers that something
 * could not be built, and the object is then not given out. */
static void put(json_t *object, const char *name, json_t *value, bool *ok)
{
    if (!value || json_object_set_new_nocheck(object, name, value) < 0)
        *ok = false;
}

static json_t *text_or_null(const char *text)
{
    return text && *text ? json_string(text) : json_null();
}

static json_t *number(uint64_t n)
{
    return json_integer(n > INT64_MAX ? INT64_MAX : (json_int_t)n);
}

/* Three decimals: the library prints the shortest form that reads back as the same number. */
static json_t *milliseconds(uint64_t us)
{
    return json_real((double)us / 1000.0);
}

static json_t *time_or_null(uint64_t ns)
{
    char text[TEXT_TIME_BYTES];
    return ns ? json_string(text_time(ns, text)) : json_null();
}

static json_t *limits_json(const struct run_facts *f)
{
    const struct config_limits *l = &f->limits;
    return json_pack("{s:o, s:o, s:o, s:s, s:o, s:o, s:o, s:o, s:s}", "wall_ms", number(l->wall_ms),
        "cpu_ms", l->cpu_ms ? number(l->cpu_ms) : json_null(), "memory_bytes",
        number(l->memory_bytes), "memory", f->memory_whole ? "container" : "process", "pids", number(l->pids), "output_bytes", number(l->output_bytes),
        "workspace_bytes", number(f->space_bytes), "workspace_files", number(f->space_files),
        "workspace", f->space_hard ? "hard" : "soft");
}

static json_t *limits_hit(const struct run_facts *f)
{
    const struct {
        bool hit;
        const char *name;
    } rows[] = {{f->timed_out && !f->cpu_hit, "wall"}, {f->cpu_hit, "cpu"},
        {f->oom_killed, "memory"}, {f->pids_hit, "pids"}, {f->output_hit, "output"},
        {f->space_hit, "workspace"}};
    json_t *list = json_array();
    for (size_t i = 0; list && i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (rows[i].hit && json_array_append_new(list, json_string(rows[i].name)) < 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

/* A name as readable text, and exactly beside it where that is not the same. */
static void put_path(json_t *object, const char *name, const char *path, bool *ok)
{
    CLEANUP(buf_release) struct buf readable;
    CLEANUP(buf_release) struct buf coded;
    size_t len = strlen(path);
    char exact[64];
    buf_init(&readable, 4 * PATH_BYTES_MAX);
    buf_init(&coded, 4 * PATH_BYTES_MAX);
    if (text_is_utf8(path, len)) {
        put(object, name, json_stringn_nocheck(path, len), ok);
        return;
    }
    (void)snprintf(exact, sizeof(exact), "%s_base64", name);
    if (text_add_readable(&readable, path, len) < 0 || text_add_base64(&coded, path, len) < 0)
        *ok = false;
    put(object, name, json_string(buf_str(&readable)), ok);
    put(object, exact, json_string(buf_str(&coded)), ok);
}

static json_t *changed_file(const struct sandbox_changed_file *file)
{
    static const char *const names[] = {[SANDBOX_CREATED] = "created",
        [SANDBOX_MODIFIED] = "modified",
        [SANDBOX_DELETED] = "deleted"};
    char hash[HASH_TEXT_BYTES];
    bool ok = true, content = file->change != SANDBOX_DELETED && file->kind != TREE_DIR;
    json_t *item = json_object();
    if (!item)
        return NULL;
    put_path(item, "path", file->path, &ok);
    put(item, "change", json_string(names[file->change]), &ok);
    put(item, "bytes", content ? number(file->size) : json_null(), &ok);
    put(item, "hash", content ? json_string(hash_text(&file->hash, hash)) : json_null(), &ok);
    if (!ok) {
        json_decref(item);
        return NULL;
    }
    return item;
}

static json_t *files_changed(const struct sandbox_run_changes *changes)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < changes->count; i++) {
        if (json_array_append_new(list, changed_file(&changes->files[i])) < 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static json_t *diagnosis_json(const struct diagnosis *d)
{
    if (!d->code)
        return json_null();
    return json_pack("{s:s, s:s, s:o, s:o, s:o, s:o}", "code", d->code, "message", d->message,
        "hint", text_or_null(d->hint), "subject", text_or_null(d->subject), "file",
        text_or_null(d->file), "line", d->line ? number(d->line) : json_null());
}

static json_t *links_json(const struct run_facts *f)
{
    static const char *const names[] = {"stdout", "stderr", "output", "events"};
    char path[DETAIL_BYTES];
    bool ok = true;
    json_t *links = json_object();
    if (!links)
        return NULL;
    (void)snprintf(path, sizeof(path), "/v1/runs/%s", f->id);
    put(links, "self", json_string(path), &ok);
    for (size_t i = 0; i < 4; i++) {
        (void)snprintf(path, sizeof(path), "/v1/runs/%s/%s", f->id, names[i]);
        put(links, names[i], json_string(path), &ok);
    }
    if (!ok) {
        json_decref(links);
        return NULL;
    }
    return links;
}

static void put_outcome(json_t *o, const struct run_facts *f, bool *ok)
{
    char signal_name[16];
    put(o, "id", json_string(f->id), ok);
    put(o, "sandbox", json_string(f->sandbox), ok);
    put(o, "status", json_string(run_status_name(f->status)), ok);
    put(o, "exit_code", f->exited && f->signal == 0 ? json_integer(f->exit_code) : json_null(), ok);
    put(o, "signal",
        f->exited && f->signal ? json_string(run_signal_name(f->signal, signal_name)) : json_null(),
        ok);
    put(o, "reason", text_or_null(f->reason), ok);
    put(o, "timed_out", json_boolean(f->timed_out), ok);
    put(o, "oom_killed", json_boolean(f->oom_killed), ok);
    put(o, "limits_hit", limits_hit(f), ok);
    put(o, "error", f->status == RUN_ERROR ? run_json_error(&f->error) : json_null(), ok);
}

static void put_times(json_t *o, const struct run_facts *f, bool *ok)
{
    put(o, "created_at", time_or_null(f->created_ns), ok);
    put(o, "started_at", time_or_null(f->started_ns), ok);
    put(o, "finished_at", time_or_null(f->finished_ns), ok);
    put(o, "queue_ms", milliseconds(f->queue_us), ok);
    put(o, "barrier_ms", milliseconds(f->barrier_us), ok);
    put(o, "view_ms", milliseconds(f->view_us), ok);
    put(o, "start_ms", milliseconds(f->start_us), ok);
    put(o, "wall_ms", milliseconds(f->wall_us), ok);
    put(o, "cpu_ms", milliseconds(f->cpu_us), ok);
    put(o, "user_ms", milliseconds(f->user_us), ok);
    put(o, "system_ms", milliseconds(f->cpu_us - f->user_us), ok);
    put(o, "memory_peak_bytes", f->memory_peak_bytes ? number(f->memory_peak_bytes) : json_null(),
        ok);
}

static void put_workspace(json_t *o, const struct run_facts *f, bool *ok)
{
    bool ended = f->finished_ns != 0;
    put(o, "generation", f->started ? number(f->generation) : json_null(), ok);
    put(o, "generation_after", f->started && ended ? number(f->generation_after) : json_null(), ok);
    put(o, "changed_during_run", json_boolean(f->changed_during_run), ok);
    put(o, "files_changed", files_changed(&f->changes), ok);
    put(o, "files_changed_total", number(f->changes.total), ok);
    put(o, "files_changed_incomplete", json_boolean(f->changes.incomplete), ok);
}

/* Words of ours that may have a name of the workspace in them. */
static json_t *readable_or_null(const char *text)
{
    CLEANUP(buf_release) struct buf b;
    buf_init(&b, 4 * ERR_MSG_BYTES);
    return text_add_readable(&b, text, strlen(text)) < 0 ? NULL : text_or_null(buf_str(&b));
}

/* A live run's files are where it wrote them. */
static void put_view(json_t *o, const struct run_facts *f, bool *ok)
{
    bool live = strcmp(f->view, "live") == 0, known = f->started && f->finished_ns != 0;
    json_t *conflicts = json_array();
    put(o, "view", json_string(f->view), ok);
    put(o, "keep", json_string(f->keep), ok);
    put(o, "kept", known ? json_boolean(live || f->view_end.kept) : json_null(), ok);
    put(o, "kept_reason", readable_or_null(f->view_end.reason), ok);
    for (size_t i = 0; conflicts && i < f->view_end.conflict_count; i++) {
        json_t *item = json_object();
        if (item)
            put_path(item, "path", f->view_end.conflicts[i], ok);
        if (json_array_append_new(conflicts, item) < 0)
            *ok = false;
    }
    put(o, "kept_conflicts", conflicts, ok);
}

json_t *run_json(const struct run_facts *f, const struct run_log_stats *stats)
{
    bool ok = true;
    json_t *o = json_object();
    if (!o)
        return NULL;
    put_outcome(o, f, &ok);
    put(o, "display", json_string(f->display), &ok);
    put(o, "stdout_bytes", number(stats->bytes[RUN_STDOUT]), &ok);
    put(o, "stderr_bytes", number(stats->bytes[RUN_STDERR]), &ok);
    put(o, "stdout_truncated", json_boolean(stats->truncated[RUN_STDOUT]), &ok);
    put(o, "stderr_truncated", json_boolean(stats->truncated[RUN_STDERR]), &ok);
    put_workspace(o, f, &ok);
    put_view(o, f, &ok);
    put_times(o, f, &ok);
    put(o, "limits", limits_json(f), &ok);
    put(o, "network", json_pack("{s:s}", "mode", "none"), &ok);
    put(o, "runtime",
        json_pack("{s:o, s:o, s:o, s:o, s:b, s:b}", "language", text_or_null(f->language),
            "version", text_or_null(f->version), "image", text_or_null(f->image), "engine",
            text_or_null(f->engine), "warm", f->warm, "prepared", f->prepared),
        &ok);
    put(o, "labels", f->labels ? json_incref(f->labels) : json_object(), &ok);
    put(o, "diagnosis", diagnosis_json(&f->diagnosis), &ok);
    put(o, "links", links_json(f), &ok);
    if (!ok) {
        json_decref(o);
        return NULL;
    }
    return o;
}

static int add_one(
    json_t *o, struct run_log *log, enum run_stream which, const char *name, bool text)
{
    CLEANUP(buf_release) struct buf raw;
    CLEANUP(buf_release) struct buf other;
    char exact[32];
    bool ok = true;
    buf_init(&raw, which == RUN_STREAMS ? 2 * RUN_INLINE_MAX : RUN_INLINE_MAX);
    buf_init(&other, 8 * RUN_INLINE_MAX);
    int r = run_log_text(log, which, &raw);
    if (r < 0)
        return r;
    if (text) {
        /* The maximum may have cut a character. */
        put(o, name, json_stringn_nocheck(buf_str(&raw), text_utf8_whole(raw.data, raw.len)), &ok);
        return ok ? 0 : -ENOMEM;
    }
    (void)snprintf(exact, sizeof(exact), "%s_base64", name);
    r = text_add_readable(&other, raw.data, raw.len);
    if (r == 0)
        put(o, name, json_stringn(buf_str(&other), other.len), &ok);
    buf_reset(&other);
    if (r == 0)
        r = text_add_base64(&other, raw.data, raw.len);
    if (r == 0)
        put(o, exact, json_stringn(buf_str(&other), other.len), &ok);
    return r < 0 ? r : ok ? 0 : -ENOMEM;
}

int run_json_add_output(json_t *o, struct run_log *log)
{
    struct run_log_stats stats;
    bool ok = true;
    run_log_stats(log, &stats);
    bool all = stats.text[RUN_STDOUT] && stats.text[RUN_STDERR];
    int r = add_one(o, log, RUN_STDOUT, "stdout", stats.text[RUN_STDOUT]);
    if (r == 0)
        r = add_one(o, log, RUN_STDERR, "stderr", stats.text[RUN_STDERR]);
    if (r == 0)
        r = add_one(o, log, RUN_STREAMS, "output", all);
    if (r < 0)
        return r;
    put(o, "encoding", json_string(all ? "utf-8" : "base64"), &ok);
    if (stats.kept[RUN_STDOUT] > RUN_INLINE_MAX)
        put(o, "stdout_truncated", json_true(), &ok);
    if (stats.kept[RUN_STDERR] > RUN_INLINE_MAX)
        put(o, "stderr_truncated", json_true(), &ok);
    return ok ? 0 : -ENOMEM;
}

json_t *run_json_error(const struct err *e)
{
    enum proto_error code = e->refusal != PROTO_OK ? e->refusal : PROTO_INTERNAL;
    const struct proto_error_info *info = proto_error_info(code);
    CLEANUP(buf_release) struct buf message;
    buf_init(&message, 4 * ERR_MSG_BYTES);
    if (text_add_readable(&message, e->msg, strlen(e->msg)) < 0)
        return NULL;
    return json_pack("{s:s, s:s, s:b}", "code", info->name, "message", buf_str(&message),
        "retryable", info->retryable);
}
