/* SPDX-License-Identifier: MIT */
#include "agent/ignore.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <uthash.h>

#include "agent/link.h"
#include "shared/path.h"
#include "shared/text.h"

#include "shared/banned.h"

/*
 * What is left out without being asked. Keys are named one by one, not as "id_*", so that a source
 * file id_generator.py is synced.
 */
static const char *const defaults[] = {
    LINK_DIR,
    ".git",
    "node_modules",
    "__pycache__",
    ".venv",
    /* editors: vim's swap files and its probe, backups, emacs' locks and autosaves, gedit, kate,
       JetBrains */
    ".*.sw?",
    "4913",
    "*~",
    /* what `silt pull --conflicts` writes */
    "*.conflict-run_*",
    "*.conflict-cf_*",
    ".#*",
    "\\#*#",
    ".goutputstream-*",
    "*.kate-swp",
    "*___jb_tmp___",
    "*___jb_old___",
    /* secrets */
    ".env*",
    "!.env.example",
    "*.pem",
    "id_rsa*",
    "id_dsa*",
    "id_ecdsa*",
    "id_ed25519*",
    ".aws",
    ".ssh",
    ".gnupg",
    ".netrc",
    ".npmrc",
    ".pypirc",
};

#define DEFAULT_COUNT (sizeof(defaults) / sizeof(defaults[0]))

struct rule {
    char *text;     /* as it stands in the file, without trailing spaces; owned */
    char *glob;     /* without '!', leading and trailing slash; owned */
    size_t literal; /* length of the glob's beginning that holds no wildcard */
    size_t glob_len;
    unsigned line;
    bool negative, dir_only;
    bool base_only;   /* no slash: matched against the last component */
    bool suffix_only; /* base_only and "*literal" */
    bool takes_back;  /* negative, and meant for what it names: may undo a built-in rule */
};

struct rules {
    char *key; /* of its source a letter (keys), before dir; owned */
    const char *dir;
    enum ignore_source source;
    struct rule *v;
    size_t count;
    UT_hash_handle hh;
};

struct ignore {
    struct rules *files;
    struct rules *builtin; /* not in the hash */
    struct rules *weak[2]; /* EXCLUDE, GLOBAL; of files; NULL: none */
    /* The rule files that count for entries of the folder asked last, deepest first; per source. */
    char *chain_dir;
    struct rules **chain[2];
    size_t chain_len[2], chain_cap;
};

static void rules_free(struct rules *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < r->count; i++) {
        free(r->v[i].text);
        free(r->v[i].glob);
    }
    free(r->v);
    free(r->key);
    free(r);
}

/* Length without trailing spaces, of which one behind a backslash stays. */
static size_t trimmed_len(const char *line, size_t len)
{
    size_t keep = 0;
    for (size_t i = 0; i < len; i++) {
        if (line[i] == '\\' && i + 1 < len)
            keep = ++i + 1;
        else if (line[i] != ' ')
            keep = i + 1;
    }
    return keep;
}

static bool means_it(const struct rule *r, enum ignore_source source)
{
    const char *last = path_base(r->glob);
    if (source == IGNORE_GLOBAL || source == IGNORE_EXCLUDE)
        return false;
    if (source == IGNORE_GIT)
        return last[strcspn(last, "*?[\\")] == '\0';
    return last[strspn(last, "*?")] != '\0';
}

/* Takes the line apart. 0 or -ENOMEM (nothing is held then). */
static int parse_rule(
    const char *line, size_t len, unsigned number, enum ignore_source source, struct rule *ret)
{
    struct rule r = {.line = number, .text = strndup(line, len)};
    size_t start = 0;
    if (!r.text)
        return -ENOMEM;
    if (len && line[0] == '!') {
        r.negative = true;
        start = 1;
    }
    if (len > start && line[len - 1] == '/') {
        r.dir_only = true;
        len--;
    }
    r.base_only = !memchr(line + start, '/', len - start);
    if (len > start && line[start] == '/')
        start++;
    r.glob = strndup(line + start, len - start);
    if (!r.glob) {
        free(r.text);
        return -ENOMEM;
    }
    r.glob_len = strlen(r.glob);
    r.literal = strcspn(r.glob, "*?[\\");
    r.suffix_only =
        r.base_only && r.glob[0] == '*' && r.glob[1 + strcspn(r.glob + 1, "*?[\\")] == '\0';
    r.takes_back = r.negative && means_it(&r, source);
    *ret = r;
    return 0;
}

static int rules_add(struct rules *r, const char *line, size_t len, unsigned number)
{
    if (len && line[len - 1] == '\r')
        len--;
    len = trimmed_len(line, len);
    if (len == 0 || line[0] == '#' || memchr(line, '\0', len))
        return 0;
    /* Grown by doubling: room is there unless the count is a power of two. */
    if ((r->count & (r->count - 1)) == 0) {
        size_t cap = r->count ? r->count * 2 : 1;
        struct rule *v = realloc(r->v, cap * sizeof(*v));
        if (!v)
            return -ENOMEM;
        r->v = v;
    }
    int e = parse_rule(line, len, number, r->source, &r->v[r->count]);
    if (e == 0)
        r->count++;
    return e;
}

static const char keys[IGNORE_SOURCES] = {[IGNORE_BUILTIN] = 'b',
    [IGNORE_GLOBAL] = 'x',
    [IGNORE_EXCLUDE] = 'e',
    [IGNORE_GIT] = 'g',
    [IGNORE_SILT] = 's'};

static struct rules *rules_new(enum ignore_source source, const char *dir)
{
    struct rules *r = calloc(1, sizeof(*r));
    if (r && asprintf(&r->key, "%c%s", keys[source], dir) < 0) {
        free(r);
        return NULL;
    }
    if (r) {
        r->dir = r->key + 1;
        r->source = source;
    }
    return r;
}

static void drop_cache(struct ignore *ig)
{
    free(ig->chain_dir);
    ig->chain_dir = NULL;
}

struct ignore *ignore_new(bool with_defaults)
{
    struct ignore *ig = calloc(1, sizeof(*ig));
    if (ig)
        ig->builtin = rules_new(IGNORE_BUILTIN, "");
    bool ok = ig && ig->builtin;
    for (size_t i = 0; ok && i < (with_defaults ? DEFAULT_COUNT : 1); i++)
        ok = rules_add(ig->builtin, defaults[i], strlen(defaults[i]), 0) == 0;
    if (ok)
        return ig;
    ignore_free(ig);
    return NULL;
}

void ignore_free(struct ignore *ig)
{
    if (!ig)
        return;
    struct rules *r, *next;
    HASH_ITER(hh, ig->files, r, next) {
        HASH_DEL(ig->files, r);
        rules_free(r);
    }
    rules_free(ig->builtin);
    drop_cache(ig);
    free(ig->chain[0]);
    free(ig->chain[1]);
    free(ig);
}

static int rules_parse(struct rules *r, const char *text, size_t len)
{
    unsigned number = 0;
    if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
        text += 3;
        len -= 3;
    }
    while (len && r->count < IGNORE_RULES_MAX) {
        const char *end = memchr(text, '\n', len);
        size_t line = end ? (size_t)(end - text) : len;
        int e = rules_add(r, text, line, ++number);
        if (e < 0)
            return e;
        size_t used = end ? line + 1 : line;
        text += used;
        len -= used;
    }
    return 0;
}

static struct rules *find_file(
    const struct ignore *ig, enum ignore_source source, const char *dir, size_t len)
{
    char key[PATH_BYTES_MAX + 2];
    struct rules *r = NULL;
    if (len > PATH_BYTES_MAX)
        return NULL;
    key[0] = keys[source];
    memcpy(key + 1, dir, len);
    HASH_FIND(hh, ig->files, key, len + 1, r);
    return r;
}

static void find_weak(struct ignore *ig)
{
    ig->weak[0] = find_file(ig, IGNORE_EXCLUDE, "", 0);
    ig->weak[1] = find_file(ig, IGNORE_GLOBAL, "", 0);
}

int ignore_load(
    struct ignore *ig, enum ignore_source source, const char *dir, const char *text, size_t len)
{
    struct rules *old = find_file(ig, source, dir, strlen(dir));
    struct rules *r = NULL;
    if (!text && !old)
        return 0;
    if (text) {
        r = rules_new(source, dir);
        if (!r || rules_parse(r, text, len < IGNORE_FILE_MAX ? len : IGNORE_FILE_MAX) < 0) {
            rules_free(r);
            return -ENOMEM;
        }
    }
    drop_cache(ig);
    if (old) {
        HASH_DEL(ig->files, old);
        rules_free(old);
    }
    if (r)
        HASH_ADD_KEYPTR(hh, ig->files, r->key, strlen(r->key), r);
    find_weak(ig);
    return 0;
}

void ignore_drop_tree(struct ignore *ig, const char *dir)
{
    struct rules *r, *next;
    drop_cache(ig);
    HASH_ITER(hh, ig->files, r, next) {
        if (!path_beneath(dir, r->dir))
            continue;
        HASH_DEL(ig->files, r);
        rules_free(r);
    }
    find_weak(ig);
}

/* path: relative to the project; its rule's file lies in a folder above it. */
static bool rule_matches(const struct rule *r, const char *dir, const char *path, bool is_dir)
{
    if (r->dir_only && !is_dir)
        return false;
    if (r->base_only) {
        const char *name = path_base(path);
        size_t len = strlen(name);
        if (r->suffix_only)
            return len + 1 >= r->glob_len && strcmp(name + len + 1 - r->glob_len, r->glob + 1) == 0;
        if (r->literal == r->glob_len)
            return len == r->glob_len && memcmp(name, r->glob, len) == 0;
        return ignore_glob(r->glob, name);
    }
    const char *name = *dir ? path + strlen(dir) + 1 : path;
    if (strncmp(name, r->glob, r->literal) != 0)
        return false;
    /* The wildcards begin a glob of their own: git has "a**" before "/b" match "ab". */
    return ignore_glob(r->glob + r->literal, name + r->literal);
}

static const struct rule *last_match(const struct rules *rules, const char *path, bool is_dir)
{
    for (size_t i = rules->count; i-- > 0;) {
        if (rule_matches(&rules->v[i], rules->dir, path, is_dir))
            return &rules->v[i];
    }
    return NULL;
}

/* Collect the rule files of the folder (path, len) and those above it, deepest first. */
static bool fill_chain(struct ignore *ig, const char *path, size_t len)
{
    size_t depth = 1;
    if (ig->chain_dir && strlen(ig->chain_dir) == len && memcmp(ig->chain_dir, path, len) == 0)
        return true;
    drop_cache(ig);
    for (size_t i = 0; i < len; i++)
        depth += path[i] == '/';
    depth++;
    if (depth > ig->chain_cap) {
        struct rules **g = realloc(ig->chain[0], depth * sizeof(*g));
        ig->chain[0] = g ? g : ig->chain[0];
        struct rules **s = realloc(ig->chain[1], depth * sizeof(*s));
        ig->chain[1] = s ? s : ig->chain[1];
        if (!g || !s)
            return false;
        ig->chain_cap = depth;
    }
    ig->chain_len[0] = ig->chain_len[1] = 0;
    for (size_t at = len;;) {
        for (int k = 0; k < 2; k++) {
            struct rules *r = find_file(ig, k ? IGNORE_SILT : IGNORE_GIT, path, at);
            if (r)
                ig->chain[k][ig->chain_len[k]++] = r;
        }
        if (at == 0)
            break;
        while (at > 0 && path[at - 1] != '/')
            at--;
        at = at ? at - 1 : 0;
    }
    ig->chain_dir = strndup(path, len);
    return ig->chain_dir != NULL;
}

bool ignore_check(
    const struct ignore *ig, const char *path, bool is_dir, struct ignore_verdict *ret)
{
    struct ignore *cache = (struct ignore *)ig;
    const struct rules *from = ig->builtin;
    const struct rule *builtin = last_match(ig->builtin, path, is_dir);
    const struct rule *best = NULL;
    /* Out of memory for the chain: leaving a path out is the side that gives nothing away. */
    bool ok = fill_chain(cache, path, path_parent_len(path));
    for (int k = 1; ok && k >= 0 && !best; k--) {
        for (size_t i = 0; i < ig->chain_len[k] && !best; i++) {
            best = last_match(ig->chain[k][i], path, is_dir);
            from = ig->chain[k][i];
        }
    }
    for (int k = 0; ok && k < 2 && !best; k++) {
        best = ig->weak[k] ? last_match(ig->weak[k], path, is_dir) : NULL;
        from = ig->weak[k];
    }
    bool ours = strcmp(path_base(path), LINK_DIR) == 0;
    if (!best || ours || (best->negative && builtin && !builtin->negative && !best->takes_back)) {
        best = builtin;
        from = ig->builtin;
    }
    bool ignored = !ok || (best && !best->negative);
    if (ret)
        *ret = (struct ignore_verdict){
            .ignored = ignored,
            .source = from->source,
            .dir = from->dir,
            .line = best ? best->line : 0,
            .pattern = best ? best->text : NULL,
            .path_len = strlen(path),
        };
    return ignored;
}

bool ignore_find(const struct ignore *ig, const char *path, bool is_dir, struct ignore_verdict *ret)
{
    char above[PATH_BYTES_MAX + 1];
    size_t len = strlen(path);
    for (size_t i = 0; i < len && i < sizeof(above); i++) {
        if (path[i] == '/') {
            above[i] = '\0';
            if (ignore_check(ig, above, true, ret))
                return true;
        }
        above[i] = path[i];
    }
    return ignore_check(ig, path, is_dir, ret);
}

const char *ignore_default(size_t i)
{
    return i < DEFAULT_COUNT ? defaults[i] : NULL;
}

/* "line 3 of lib/.gitignore says 'x'", or "it is one of the names that …". */
static int explain_rule(const struct ignore_verdict *v, struct buf *b)
{
    static const char *const files[IGNORE_SOURCES] = {
        [IGNORE_GLOBAL] = "your own excludes file of git (core.excludesFile)",
        [IGNORE_EXCLUDE] = ".git/info/exclude",
        [IGNORE_GIT] = IGNORE_GITIGNORE,
        [IGNORE_SILT] = IGNORE_SILTIGNORE};
    if (v->source == IGNORE_BUILTIN)
        return buf_addf(b, "'%s' is never synced unless asked for", v->pattern ? v->pattern : "");
    int r = buf_addf(b, "line %u of ", v->line);
    if (r == 0)
        r = text_add_escaped(b, v->dir);
    if (r == 0)
        r = buf_addf(b, "%s%s says '", *v->dir ? "/" : "", files[v->source]);
    if (r == 0)
        r = text_add_escaped(b, v->pattern);
    return r < 0 ? r : buf_addc(b, '\'');
}

int ignore_explain(const struct ignore_verdict *v, const char *path, struct buf *b)
{
    CLEANUP(freep) char *what = strndup(path, v->path_len);
    if (!what)
        return -ENOMEM;
    int r = buf_addc(b, '\'');
    if (r == 0)
        r = text_add_escaped(b, what);
    if (r == 0)
        r = buf_adds(b, "' is left out: ");
    if (r == 0)
        r = explain_rule(v, b);
    if (r < 0 || strcmp(path_base(what), LINK_DIR) == 0)
        return r;
    r = buf_adds(b, "; to sync it, add the line '!/");
    if (r == 0)
        r = text_add_escaped(b, what);
    return r < 0 ? r : buf_adds(b, "' to " IGNORE_SILTIGNORE);
}
