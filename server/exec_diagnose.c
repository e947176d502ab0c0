/* SPDX-License-Identifier: MIT */
/* Why a run failed: facts for diagnose.c, and what the project's manifests say about versions. */
#include "server/exec_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "shared/path.h"

#include "server/version.h"

#include "shared/banned.h"

#define MANIFEST_LEVELS 16 /* folders that are looked through, from the file's upwards */

/* Of what the run sees: the workspace, or its view. */
static bool is_file(void *ctx, const char *path)
{
    struct run *run = ctx;
    return sandbox_view_has_file(run->sb, run->view, path);
}

static void say_version(const struct version_source *source, const char *path, unsigned line,
    const char *spec, const char *have, struct diagnosis *ret)
{
    struct diagnosis was = *ret;
    char place[300] = "";
    if (was.file[0])
        (void)snprintf(place, sizeof(place), " (%.250s, line %u)", was.file, was.line);
    *ret = (struct diagnosis){.code = "version_mismatch", .line = line};
    (void)snprintf(ret->message, sizeof(ret->message),
        "The project asks for %s %s, but %s %s ran it.", source->what, spec, source->language,
        have);
    (void)snprintf(ret->hint, sizeof(ret->hint),
        "That may be why it failed: %.150s%.100s Install the version that %s names on the server, "
        "give "
        "the sandbox an image that has it, or ask for less.",
        was.message, place, source->file);
    (void)snprintf(ret->subject, sizeof(ret->subject), "%s", spec);
    (void)snprintf(ret->file, sizeof(ret->file), "%.*s", (int)sizeof(ret->file) - 1, path);
}

/* Does the manifest in this folder ask for another version? False: go on looking elsewhere. */
static bool check_manifest(struct run *run, const struct version_source *source, const char *folder,
    const char *have, struct diagnosis *ret)
{
    CLEANUP(freep) char *path = path_join(folder, source->file);
    CLEANUP(buf_release) struct buf text;
    char spec[VERSION_SPEC_BYTES];
    unsigned line = 0;
    buf_init(&text, VERSION_MANIFEST_MAX + 1);
    if (!path || sandbox_view_read_small(run->sb, run->view, path, VERSION_MANIFEST_MAX, &text) < 0 ||
        !source->find(buf_str(&text), text.len, spec, &line) || source->fits(spec, have) != 0)
        return false;
    say_version(source, path, line, spec, have, ret);
    return true;
}

/* The nearest manifest above decides. */
static void check_versions(struct run *run, const char *language, const char *folder,
    const char *have, struct diagnosis *ret)
{
    CLEANUP(freep) char *at = strdup(folder);
    for (int level = 0; at && level < MANIFEST_LEVELS; level++) {
        for (size_t i = 0; i < version_source_count; i++) {
            if (strcmp(version_sources[i].language, language) == 0 &&
                check_manifest(run, &version_sources[i], at, have, ret))
                return;
        }
        if (!*at)
            return;
        at[path_parent_len(at)] = '\0';
    }
}

void exec_diagnose(struct run *run, const struct exec_plan *plan)
{
    CLEANUP(buf_release) struct buf tail;
    struct run_facts *f = &run->facts;
    struct run_log_stats stats;
    struct diagnosis d;
    buf_init(&tail, DIAGNOSE_TAIL_BYTES);
    if (f->status != RUN_FAILED && f->status != RUN_TIMED_OUT)
        return;
    run_log_stats(run->log, &stats);
    /* With a terminal both streams are one. */
    enum run_stream which = stats.kept[RUN_STDERR] > 0 ? RUN_STDERR : RUN_STDOUT;
    CLEANUP(freep)
    char *folder =
        run->req.what == EXEC_FILE ? strndup(run->req.text, path_parent_len(run->req.text))
                                   : strdup(run->req.cwd);
    if (!folder || run_log_tail(run->log, which, DIAGNOSE_TAIL_BYTES, &tail) < 0)
        return;
    const struct runtime_language *language =
        plan->language ? plan->language : runtimes_by_program(path_base(plan->argv[0]));
    const struct diagnose_facts facts = {
        .language = language ? language->name : NULL,
        .exit_code = f->exit_code,
        .signal = f->signal,
        .timed_out = f->timed_out,
        .oom_killed = f->oom_killed,
        .pids_limit_hit = f->pids_hit,
        .cpu_limit_hit = f->cpu_hit,
        .space_hit = f->space_hit,
        .cancelled = f->cancelled,
        .memory_bytes = run->req.limits.memory_bytes,
        .wall_ms = run->req.limits.wall_ms,
        .pids = run->req.limits.pids,
        .tail = buf_str(&tail),
        .tail_len = tail.len,
        .folder = folder,
        .cwd = run->req.cwd,
        .exists = is_file,
        .ctx = run,
    };
    if (!diagnose(&facts, &d))
        return;
    const char *have = language ? exec_version(run->exec, run->req.image, language) : NULL;
    if (d.by_version && have)
        check_versions(run, language->name, folder, have, &d);
    (void)pthread_mutex_lock(&run->lock);
    f->diagnosis = d;
    (void)pthread_mutex_unlock(&run->lock);
}
