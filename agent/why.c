/* SPDX-License-Identifier: MIT */
#include "agent/why.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "agent/ignore.h"
#include "agent/ignore_git.h"
#include "shared/io.h"
#include "shared/path.h"
#include "shared/tree.h"

#include "shared/banned.h"

static void load_file(struct ignore *rules, const struct tree *project, const char *dir,
    enum ignore_source source, const char *name)
{
    CLEANUP(freep) char *path = path_join(dir, name);
    CLEANUP(fd_closep) int fd = -1;
    CLEANUP(buf_release) struct buf text;
    struct err ignored = ERR_INIT;

    /* A rule file that is not there, or cannot be read, excludes nothing. */
    buf_init(&text, IGNORE_FILE_MAX);
    if (path && tree_open_file(project, path, &fd, NULL, &ignored) == 0 &&
        io_read_rest(fd, &text) == 0)
        err_ignore(ignore_load(rules, source, dir, buf_str(&text), text.len));
}

static void load_dir(struct ignore *rules, const struct tree *project, const char *dir)
{
    const char *unused;
    if (*dir == '\0')
        (void)!ignore_git_load(rules, project, &unused);
    load_file(rules, project, dir, IGNORE_GIT, IGNORE_GITIGNORE);
    load_file(rules, project, dir, IGNORE_SILT, IGNORE_SILTIGNORE);
}

static int load_above(struct ignore *rules, const struct tree *project, const char *path)
{
    load_dir(rules, project, "");
    for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        CLEANUP(freep) char *dir = strndup(path, (size_t)(slash - path));
        if (!dir)
            return -ENOMEM;
        load_dir(rules, project, dir);
    }
    return 0;
}

int why_ignored(
    const char *root, const char *path, bool *ret_ignored, struct buf *why, struct err *e)
{
    CLEANUP(tree_freep) struct tree *project = NULL;
    struct ignore_verdict verdict;
    struct tree_stat st = {.kind = TREE_FILE};
    struct err ignored = ERR_INIT;
    struct ignore *rules;
    int r = tree_open(root, &project, e);

    if (r < 0)
        return r;
    rules = ignore_new(true);
    if (!rules || load_above(rules, project, path) < 0) {
        ignore_free(rules);
        return err_set(e, ENOMEM, "read the ignore rules");
    }
    /* A path that does not exist is judged as a file. */
    err_ignore(tree_stat(project, path, &st, &ignored));
    *ret_ignored = ignore_find(rules, path, st.kind == TREE_DIR, &verdict);
    if (*ret_ignored && ignore_explain(&verdict, path, why) < 0)
        r = err_set(e, ENOMEM, "explain a rule");
    ignore_free(rules);
    return r;
}

/* ---- finding */

struct search {
    struct ignore *rules;
    const struct tree *project;
    const char *name;
    char module[PATH_NAME_MAX * 4]; /* name with its dots as slashes */
    char **ret;
    size_t count, max;
    unsigned looked;
};

/* Folders in which nobody keeps what they meant to run. */
static bool is_hopeless(const char *name)
{
    static const char *const names[] = {
        ".git", ".silt", "node_modules", ".venv", "__pycache__", NULL};

    for (size_t i = 0; names[i]; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

/* Does the path end in `wanted`, whole components, extension left out or not? */
static bool is_called(const char *path, const char *wanted)
{
    size_t path_len = strlen(path), len = strlen(wanted);
    const char *dot = strrchr(path_base(path), '.');
    size_t stem_len = dot && dot != path_base(path) ? (size_t)(dot - path) : path_len;

    if (len == 0)
        return false;
    for (size_t end = path_len;; end = stem_len) {
        if (end >= len && memcmp(path + end - len, wanted, len) == 0 &&
            (end == len || path[end - len - 1] == '/'))
            return true;
        if (end == stem_len)
            return false;
    }
}

static enum tree_visit look(const struct tree_entry *entry, void *ctx)
{
    struct search *s = ctx;
    bool is_dir = entry->stat.kind == TREE_DIR;

    if (++s->looked > WHY_LOOK_MAX || s->count == s->max)
        return TREE_VISIT_STOP;
    if (entry->fault || is_hopeless(entry->name))
        return TREE_VISIT_SKIP;
    if (is_dir)
        load_dir(s->rules, s->project, entry->path);
    if (!is_called(entry->path, s->name) && !is_called(entry->path, s->module))
        return TREE_VISIT_GO;
    if (ignore_find(s->rules, entry->path, is_dir, NULL) &&
        (s->ret[s->count] = strdup(entry->path)) != NULL)
        s->count++;
    return TREE_VISIT_GO;
}

size_t why_find(const char *root, const char *name, char *ret[], size_t max)
{
    CLEANUP(tree_freep) struct tree *project = NULL;
    struct search s = {.name = name, .ret = ret, .max = max};
    struct err ignored = ERR_INIT;

    if (strncmp(name, "./", 2) == 0)
        s.name = name += 2;
    if (strncmp(name, "/workspace/", 11) == 0)
        s.name = name += 11;
    if (snprintf(s.module, sizeof(s.module), "%s", name) >= (int)sizeof(s.module) ||
        tree_open(root, &project, &ignored) < 0)
        return 0;
    for (char *p = s.module; *p; p++)
        if (*p == '.')
            *p = '/';
    s.project = project;
    s.rules = ignore_new(true);
    if (s.rules) {
        load_dir(s.rules, project, "");
        err_ignore(tree_walk(project, "", look, &s, &ignored));
    }
    ignore_free(s.rules);
    return s.count;
}

/* ---- counting */

struct tally {
    struct ignore *rules;
    const struct tree *project;
    size_t *counts;
    unsigned looked;
    bool more;
};

static enum tree_visit tally(const struct tree_entry *entry, void *ctx)
{
    struct tally *t = ctx;
    struct ignore_verdict verdict;
    bool is_dir = entry->stat.kind == TREE_DIR;

    if (++t->looked > WHY_LOOK_MAX) {
        t->more = true;
        return TREE_VISIT_STOP;
    }
    if (entry->fault || strcmp(entry->path, ".silt") == 0)
        return TREE_VISIT_SKIP;
    if (ignore_check(t->rules, entry->path, is_dir, &verdict)) {
        t->counts[verdict.source]++;
        return TREE_VISIT_SKIP;
    }
    if (is_dir)
        load_dir(t->rules, t->project, entry->path);
    return TREE_VISIT_GO;
}

int why_count(const char *root, size_t counts[IGNORE_SOURCES], bool *ret_more, struct err *e)
{
    CLEANUP(tree_freep) struct tree *project = NULL;
    struct tally t = {.counts = counts};
    int r = tree_open(root, &project, e);

    memset(counts, 0, IGNORE_SOURCES * sizeof(*counts));
    if (r < 0)
        return r;
    t.project = project;
    t.rules = ignore_new(true);
    if (!t.rules)
        return err_set(e, ENOMEM, "read the ignore rules");
    load_dir(t.rules, project, "");
    r = tree_walk(project, "", tally, &t, e);
    ignore_free(t.rules);
    *ret_more = t.more;
    return r;
}
