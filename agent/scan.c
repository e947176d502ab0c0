/* SPDX-License-Identifier: MIT */
#include "agent/scan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/ignore_git.h"
#include "shared/io.h"
#include "shared/path.h"

#include "shared/banned.h"

struct scanner {
    const struct scan_config *config;
    struct scan *out;
    const struct manifest_entry **seen; /* known entries that were met */
    size_t seen_count, seen_cap;
    char **faults; /* paths of which nothing can be said */
    size_t fault_count, fault_cap;
    const struct manifest_entry **sorted; /* of all that is known; made when first needed */
    size_t sorted_count;
    int failed; /* -ENOMEM inside the visitor */
};

/* Room for one more element, by doubling. */
static bool grow(void *array, size_t *cap, size_t count, size_t size)
{
    void **at = array;
    if (count < *cap)
        return true;
    size_t more = *cap ? *cap * 2 : 64;
    void *v = realloc(*at, more * size);
    if (!v)
        return false;
    *at = v;
    *cap = more;
    return true;
}

static int add_item(
    struct scanner *s, enum scan_kind kind, const char *path, const struct tree_stat *st)
{
    struct scan *out = s->out;
    char *copy = strdup(path);
    if (!copy || !grow(&out->items, &out->cap, out->count, sizeof(*out->items))) {
        free(copy);
        return s->failed = -ENOMEM;
    }
    struct scan_item *item = &out->items[out->count++];
    *item = (struct scan_item){.kind = kind, .path = copy};
    if (st)
        item->st = *st;
    out->gone += kind == SCAN_GONE;
    return 0;
}

static void skip(const struct scanner *s, const char *path, const char *why)
{
    if (s->config->skipped)
        s->config->skipped(s->config->ctx, path, why);
}

/* ---- rules */

static int load_rules(
    const struct scanner *s, const char *dir, enum ignore_source source, const char *name)
{
    CLEANUP(freep) char *path = path_join(dir, name);
    CLEANUP(fd_closep) int fd = -1;
    CLEANUP(buf_release) struct buf b;
    buf_init(&b, IGNORE_FILE_MAX + 1);
    if (!path)
        return -ENOMEM;
    int r = tree_open_file(s->config->tree, path, &fd, NULL, NULL);
    if (r == 0)
        r = io_read_rest(fd, &b);
    if (r < 0 && r != -ENOENT)
        skip(s, path,
            r == -ENOBUFS ? "its rules are not used: it is larger than 1 MiB"
                          : "its rules are not used: it cannot be read");
    return ignore_load(s->config->rules, source, dir, r == 0 ? buf_str(&b) : NULL, b.len);
}

/* A rule file is not opened where the folder's listing (names, may be NULL) shows none. */
static int load_folder(const struct scanner *s, const char *dir, const struct tree_names *names)
{
    static const struct {
        enum ignore_source source;
        const char *name;
    } files[] = {{IGNORE_GIT, IGNORE_GITIGNORE}, {IGNORE_SILT, IGNORE_SILTIGNORE}};
    int r = 0;
    for (size_t i = 0; r == 0 && i < sizeof(files) / sizeof(files[0]); i++) {
        if (names && !tree_names_may_have(names, files[i].name))
            r = ignore_load(s->config->rules, files[i].source, dir, NULL, 0);
        else
            r = load_rules(s, dir, files[i].source, files[i].name);
    }
    return r;
}

/* Told first: whoever watches it hears of what is made after it was listed. */
static void enter(const struct scanner *s, const char *dir, int dir_fd)
{
    if (s->config->entered)
        s->config->entered(s->config->ctx, dir, dir_fd);
}

/* Rules are read behind the listing: what it holds is judged by rules that are no older. */
static void listed(const char *dir, const struct tree_names *names, void *ctx)
{
    struct scanner *s = ctx;
    if (s->failed == 0)
        s->failed = load_folder(s, dir, names);
}

/* The rules of the folders above path, where a scan does not start at the root. */
static int load_above(const struct scanner *s, const char *path)
{
    int r = load_folder(s, "", NULL);
    for (const char *at = strchr(path, '/'); r == 0 && at; at = strchr(at + 1, '/')) {
        CLEANUP(freep) char *dir = strndup(path, (size_t)(at - path));
        r = dir ? load_folder(s, dir, NULL) : -ENOMEM;
    }
    return r;
}

int scan_ignored(const struct scan_config *config, const char *path, bool is_dir)
{
    const struct scanner s = {.config = config};
    int r = load_above(&s, path);
    return r < 0 ? r : ignore_find(config->rules, path, is_dir, NULL);
}

/* ---- one entry */

static void add_fault(struct scanner *s, const char *path, int code)
{
    char why[128];
    char *copy = strdup(path);
    if (!copy || !grow(&s->faults, &s->fault_cap, s->fault_count, sizeof(*s->faults))) {
        free(copy);
        s->failed = -ENOMEM;
        return;
    }
    s->faults[s->fault_count++] = copy;
    (void)snprintf(why, sizeof(why), "it cannot be read: %s", strerror(code));
    skip(s, path, code == ENAMETOOLONG ? "its name is too long or too deep" : why);
}

/* A symlink is kept as it is when it stays inside the project; it need not lead to anything. */
static bool symlink_stays(const struct scanner *s, const char *path)
{
    CLEANUP(buf_release) struct buf target;
    CLEANUP(freep) char *dir = strndup(path, path_parent_len(path));
    CLEANUP(freep) char *end = NULL;
    buf_init(&target, PATH_BYTES_MAX);
    return dir && tree_readlink(s->config->tree, path, &target, NULL) == 0 &&
           path_resolve(dir, buf_str(&target), &end) == 0;
}

static bool looks_the_same(const struct manifest_entry *known, const struct tree_stat *st)
{
    if (known->kind == TREE_DIR || st->kind == TREE_DIR)
        return known->kind == st->kind && known->mode == ((st->mode & 0777) | 0700);
    return manifest_unchanged(known, st);
}

/* Compare an entry that is not ignored. */
static int compare(struct scanner *s, const char *path, const struct tree_stat *st)
{
    const struct manifest_entry *known = manifest_get(s->config->known, path);
    if (st->kind == TREE_OTHER) {
        skip(s, path, "it is neither file, folder nor symlink");
        return 0;
    }
    bool same = known && looks_the_same(known, st);
    if (st->kind == TREE_FILE && s->config->doubt)
        same = false;
    if (st->kind == TREE_SYMLINK && !same && !symlink_stays(s, path)) {
        skip(s, path, "it is a symlink that leads out of the project");
        return 0;
    }
    if (known) {
        if (!grow(&s->seen, &s->seen_cap, s->seen_count, sizeof(*s->seen)))
            return s->failed = -ENOMEM;
        s->seen[s->seen_count++] = known;
    }
    if (st->kind == TREE_FILE) {
        s->out->files++;
        s->out->bytes += st->size;
    }
    return same ? 0 : add_item(s, known ? SCAN_CHANGED : SCAN_NEW, path, st);
}

static enum tree_visit visit(const struct tree_entry *entry, void *ctx)
{
    struct scanner *s = ctx;
    bool is_dir = entry->stat.kind == TREE_DIR;
    if (s->failed)
        return TREE_VISIT_STOP;
    if (ignore_check(s->config->rules, entry->path, is_dir, NULL))
        return TREE_VISIT_SKIP;
    if (entry->fault)
        add_fault(s, entry->path, entry->fault);
    else if (compare(s, entry->path, &entry->stat) == 0 && is_dir)
        enter(s, entry->path, entry->dir_fd);
    if (s->failed)
        return TREE_VISIT_STOP;
    return is_dir ? TREE_VISIT_GO : TREE_VISIT_SKIP;
}

/* ---- what is gone */

static int by_address(const void *a, const void *b)
{
    uintptr_t x = (uintptr_t) * (const void *const *)a, y = (uintptr_t) * (const void *const *)b;
    return (x > y) - (x < y);
}

static bool was_seen(const struct scanner *s, const struct manifest_entry *entry)
{
    return s->seen_count && bsearch(&entry, s->seen, s->seen_count,
                                sizeof(const struct manifest_entry *), by_address);
}

static bool is_faulty(const struct scanner *s, const char *path)
{
    for (size_t i = 0; i < s->fault_count; i++) {
        if (path_beneath(s->faults[i], path))
            return true;
    }
    return false;
}

/* Is it ignored, or is it really not there? A path that is there and not ignored was not met for
 * another reason, such as having become a FIFO: gone as far as the server is concerned. */
static enum scan_kind why_unseen(const struct scanner *s, const struct manifest_entry *entry)
{
    struct tree_stat st;
    if (!ignore_find(s->config->rules, entry->path, entry->kind == TREE_DIR, NULL))
        return SCAN_GONE;
    return tree_stat(s->config->tree, entry->path, &st, NULL) == 0 ? SCAN_FORGET : SCAN_GONE;
}

/* Known entries at or beneath `top` that were not met, children before their folders. */
static int add_unseen(struct scanner *s, const char *top)
{
    if (!s->sorted)
        s->sorted = manifest_sorted(s->config->known, &s->sorted_count);
    if (!s->sorted)
        return s->failed = -ENOMEM;
    if (s->seen_count)
        qsort(s->seen, s->seen_count, sizeof(const struct manifest_entry *), by_address);
    for (size_t i = s->sorted_count; i-- > 0;) {
        const struct manifest_entry *entry = s->sorted[i];
        if (!entry || !path_beneath(top, entry->path) || was_seen(s, entry) ||
            is_faulty(s, entry->path))
            continue;
        /* Once: a folder that vanishes while its parts are scanned is met by each of them. */
        s->sorted[i] = NULL;
        if (add_item(s, why_unseen(s, entry), entry->path, NULL) < 0)
            return s->failed;
    }
    return 0;
}

/* ---- the whole and parts */

static void scanner_release(struct scanner *s)
{
    for (size_t i = 0; i < s->fault_count; i++)
        free(s->faults[i]);
    free(s->faults);
    free(s->seen);
    free(s->sorted);
}

int scan_all(const struct scan_config *config, struct scan *ret, struct err *e)
{
    CLEANUP(scanner_release) struct scanner s = {.config = config, .out = ret};
    memset(ret, 0, sizeof(*ret));
    /* Rules of folders that are gone or ignored by now must not linger. */
    ignore_drop_tree(config->rules, "");
    const char *unused = NULL;
    s.failed = ignore_git_load(config->rules, config->tree, &unused);
    if (unused)
        skip(&s, unused, "its rules are not used: it cannot be read or is larger than 1 MiB");
    if (s.failed == 0) {
        enter(&s, "", -1);
        int r = tree_walk_listed(config->tree, "", visit, listed, &s, e);
        if (r < 0)
            return err_wrap(e, "read the project's folder");
    }
    if (s.failed == 0 && s.seen_count < manifest_count(config->known))
        (void)add_unseen(&s, "");
    return s.failed < 0 ? err_set(e, -s.failed, "scan the project") : 0;
}

/* The topmost part of path that is missing, as a length; 0 when all of it is there. */
static size_t missing_len(const struct scanner *s, const char *path, struct tree_stat *ret_st)
{
    CLEANUP(freep) char *part = strdup(path);
    size_t len = strlen(path), missing = 0;
    while (part && len > 0) {
        part[len] = '\0';
        if (tree_stat(s->config->tree, part, ret_st, NULL) == 0)
            break;
        missing = len;
        len = path_parent_len(part);
    }
    return missing;
}

/* Folders above path that the server does not know yet. */
static int add_above(struct scanner *s, const char *path)
{
    for (const char *at = strchr(path, '/'); at; at = strchr(at + 1, '/')) {
        CLEANUP(freep) char *dir = strndup(path, (size_t)(at - path));
        struct tree_stat st;
        if (!dir)
            return s->failed = -ENOMEM;
        const struct manifest_entry *known = manifest_get(s->config->known, dir);
        if (known && known->kind == TREE_DIR)
            continue;
        if (tree_stat(s->config->tree, dir, &st, NULL) == 0 && compare(s, dir, &st) < 0)
            return s->failed;
    }
    return 0;
}

static int scan_one(struct scanner *s, const char *path, struct err *e)
{
    struct tree_stat st;
    size_t missing = missing_len(s, path, &st);
    if (missing) {
        CLEANUP(freep) char *top = strndup(path, missing);
        if (!top)
            return s->failed = -ENOMEM;
        if (manifest_get(s->config->known, top))
            return add_unseen(s, top);
        return 0;
    }
    bool is_dir = st.kind == TREE_DIR;
    const struct manifest_entry *known = manifest_get(s->config->known, path);
    bool ignored = ignore_find(s->config->rules, path, is_dir, NULL);
    if (!ignored && (add_above(s, path) < 0 || compare(s, path, &st) < 0))
        return s->failed;
    if (!ignored && is_dir) {
        enter(s, path, -1);
        int r = tree_walk_listed(s->config->tree, path, visit, listed, s, e);
        /* Gone since the stat: the next event tells. */
        if (r < 0 && r != -ENOENT && r != -ENOTDIR && r != -ELOOP)
            add_fault(s, path, -r);
    }
    if (s->failed == 0 && known && (ignored || is_dir || known->kind == TREE_DIR))
        return add_unseen(s, path);
    return s->failed;
}

/* The end, then '/', then bytes as they are. */
static int by_path_rank(unsigned char c)
{
    return c == '\0' ? 0 : c == '/' ? 1 : c + 1;
}

/* Byte order with '/' first: what lies beneath a scope follows it at once. */
static int by_path(const void *a, const void *b)
{
    const unsigned char *x = *(const unsigned char *const *)a,
                        *y = *(const unsigned char *const *)b;
    while (*x && *x == *y)
        x++, y++;
    return by_path_rank(*x) - by_path_rank(*y);
}

/* A rule file means its folder; what is gone with a folder means that folder, once. */
static char *scope_of(const struct scanner *s, const char *path)
{
    const char *name = path_base(path);
    struct tree_stat st;
    if (strcmp(name, IGNORE_GITIGNORE) == 0 || strcmp(name, IGNORE_SILTIGNORE) == 0)
        return strndup(path, path_parent_len(path));
    size_t missing = missing_len(s, path, &st);
    return missing ? strndup(path, missing) : strdup(path);
}

/* Deletions come last, as in a scan of everything: what appears may have been moved from there. */
static int put_gone_last(struct scan *found)
{
    struct scan_item *sorted = calloc(found->count + 1, sizeof(*sorted));
    size_t at = 0;
    if (!sorted)
        return -ENOMEM;
    for (int gone = 0; gone < 2; gone++) {
        for (size_t i = 0; i < found->count; i++) {
            if ((found->items[i].kind == SCAN_GONE) == gone)
                sorted[at++] = found->items[i];
        }
    }
    free(found->items);
    found->items = sorted;
    found->cap = found->count + 1;
    return 0;
}

static int scan_scopes(
    const struct scan_config *config, char **scopes, size_t count, struct scan *ret, struct err *e)
{
    CLEANUP(scanner_release) struct scanner s = {.config = config, .out = ret};
    const char *done = NULL;
    for (size_t i = 0; i < count; i++) {
        if (done && path_beneath(done, scopes[i]))
            continue;
        done = scopes[i];
        s.failed = load_above(&s, scopes[i]);
        if (s.failed == 0 && scan_one(&s, scopes[i], e) < 0)
            break;
    }
    if (s.failed == 0 && ret->gone && ret->gone < ret->count)
        s.failed = put_gone_last(ret);
    return s.failed < 0 ? err_set(e, -s.failed, "scan what changed") : 0;
}

int scan_paths(const struct scan_config *config, const char *const *paths, size_t count,
    struct scan *ret, struct err *e)
{
    memset(ret, 0, sizeof(*ret));
    char **scopes = calloc(count + 1, sizeof(*scopes));
    size_t n = 0;
    bool all = false;
    const struct scanner look = {.config = config};
    for (; scopes && n < count && (scopes[n] = scope_of(&look, paths[n])) != NULL; n++)
        all = all || *scopes[n] == '\0';
    int r = 0;
    if (n < count)
        r = err_set(e, ENOMEM, "scan what changed");
    else if (all)
        r = scan_all(config, ret, e);
    else {
        qsort(scopes, n, sizeof(*scopes), by_path);
        r = scan_scopes(config, scopes, n, ret, e);
    }
    for (size_t i = 0; i < n; i++)
        free(scopes[i]);
    free(scopes);
    return r;
}

void scan_release(struct scan *s)
{
    for (size_t i = 0; i < s->count; i++)
        free(s->items[i].path);
    free(s->items);
    *s = (struct scan){.items = NULL};
}
