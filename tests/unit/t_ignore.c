/* SPDX-License-Identifier: MIT */
/* agent/ignore: git itself (`git check-ignore`) is the oracle for the rules of .gitignore. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/ignore.h"
#include "shared/io.h"
#include "shared/tree.h"

#include "shared/banned.h"

#define PATHS_MAX 512

/* ---- a repository on disk and what git says about it */

struct repo {
    char dir[64];
    char *paths[PATHS_MAX];
    bool is_dir[PATHS_MAX];
    size_t count;
};

static void write_text(const struct repo *r, const char *path, const char *text)
{
    char full[512];
    struct err e = ERR_INIT;
    assert_true(snprintf(full, sizeof(full), "%s/%s", r->dir, path) < (int)sizeof(full));
    assert_int_equal(io_write_file(full, text, strlen(text), 0644, &e), 0);
}

static void add_path(struct repo *r, const char *path, bool is_dir)
{
    char full[512];
    assert_true(r->count < PATHS_MAX);
    assert_true(snprintf(full, sizeof(full), "%s/%s", r->dir, path) < (int)sizeof(full));
    if (is_dir)
        assert_true(mkdir(full, 0755) == 0 || errno == EEXIST);
    else
        write_text(r, path, "");
    r->paths[r->count] = strdup(path);
    assert_non_null(r->paths[r->count]);
    r->is_dir[r->count++] = is_dir;
}

/* Run git in the repository; its standard input and output are files there. */
static void run_git(const struct repo *r, const char *const *args, size_t count)
{
    char in[128], out[128];
    char *argv[16] = {"git", "-C", (char *)r->dir, "-c", "core.excludesFile=/dev/null"};
    char *env[] = {"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/nonexistent", "LC_ALL=C", NULL};
    posix_spawn_file_actions_t actions;
    pid_t pid;
    int status = 0;
    for (size_t i = 0; i < count; i++)
        argv[5 + i] = (char *)args[i];
    (void)snprintf(in, sizeof(in), "%s/in", r->dir);
    (void)snprintf(out, sizeof(out), "%s/out", r->dir);
    assert_int_equal(posix_spawn_file_actions_init(&actions), 0);
    assert_int_equal(posix_spawn_file_actions_addopen(
                         &actions, 0, access(in, R_OK) == 0 ? in : "/dev/null", O_RDONLY, 0),
        0);
    assert_int_equal(
        posix_spawn_file_actions_addopen(&actions, 1, out, O_WRONLY | O_CREAT | O_TRUNC, 0600), 0);
    assert_int_equal(posix_spawnp(&pid, "git", &actions, NULL, argv, env), 0);
    posix_spawn_file_actions_destroy(&actions);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    /* check-ignore ends with 1 when nothing matched. */
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) <= 1);
}

static void repo_make(struct repo *r)
{
    const char *const init[] = {"init", "-q"};
    memset(r, 0, sizeof(*r));
    (void)snprintf(r->dir, sizeof(r->dir), "/tmp/t_ignore.XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    run_git(r, init, 2);
}

static void repo_remove(struct repo *r)
{
    struct err e = ERR_INIT;
    int tmp = open("/tmp", O_PATH | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(tree_remove_at(tmp, strrchr(r->dir, '/') + 1, &e), 0);
    (void)close(tmp);
    for (size_t i = 0; i < r->count; i++)
        free(r->paths[i]);
}

static const char *take_field(const char **at, const char *end)
{
    const char *field = *at;
    const char *nul = memchr(field, '\0', (size_t)(end - field));
    assert_non_null(nul);
    *at = nul + 1;
    return field;
}

/* What the rules say must be git's verdict, and name the same line of the same file. */
static void compare_one(
    const struct repo *r, const struct ignore *ig, size_t i, const char *const field[4])
{
    struct ignore_verdict v;
    char file[300] = "", line[16] = "";
    bool ours = ignore_find(ig, r->paths[i], r->is_dir[i], &v);
    bool git = *field[2] != '\0' && field[2][0] != '!';
    assert_string_equal(field[3], r->paths[i]);
    if (v.pattern && v.source == IGNORE_GIT) {
        (void)snprintf(file, sizeof(file), "%s%s.gitignore", v.dir, *v.dir ? "/" : "");
        (void)snprintf(line, sizeof(line), "%u", v.line);
    }
    if (ours != git || strcmp(file, field[0]) != 0 || strcmp(line, field[1]) != 0)
        fail_msg("'%s': we say %d by %s:%s '%s', git says %d by %s:%s '%s'", r->paths[i], ours,
            file, line, v.pattern ? v.pattern : "", git, field[0], field[1], field[2]);
}

static void compare(const struct repo *r, const struct ignore *ig)
{
    const char *const check[] = {"check-ignore", "--no-index", "-v", "-n", "--stdin", "-z"};
    struct err e = ERR_INIT;
    struct buf in, out;
    char path[128];
    buf_init(&in, 1 << 20);
    for (size_t i = 0; i < r->count; i++)
        assert_int_equal(buf_add(&in, r->paths[i], strlen(r->paths[i]) + 1), 0);
    (void)snprintf(path, sizeof(path), "%s/in", r->dir);
    assert_int_equal(io_write_file(path, in.data, in.len, 0600, &e), 0);
    run_git(r, check, 6);
    (void)snprintf(path, sizeof(path), "%s/out", r->dir);
    assert_int_equal(io_read_file(path, 1 << 20, &out, &e), 0);
    const char *at = (const char *)out.data, *end = at + out.len;
    for (size_t i = 0; i < r->count; i++) {
        const char *field[4];
        for (int k = 0; k < 4; k++)
            field[k] = take_field(&at, end);
        compare_one(r, ig, i, field);
    }
    buf_release(&in);
    buf_release(&out);
}

static void load(const struct repo *r, struct ignore *ig, const char *dir, const char *text)
{
    char path[256];
    (void)snprintf(path, sizeof(path), "%s%s.gitignore", dir, *dir ? "/" : "");
    write_text(r, path, text);
    assert_int_equal(ignore_load(ig, IGNORE_GIT, dir, text, strlen(text)), 0);
}

/* ---- tests */

static const char *const table_root = "# a comment\n"
                                      "\n"
                                      "*.o\n"     /* suffix */
                                      "!keep.o\n" /* taken back */
                                      "build/\n"  /* folders only */
                                      "/top\n"    /* anchored */
                                      "mid/dle\n" /* a slash inside anchors too */
                                      "**/deep\n" /* any depth */
                                      "logs/**\n" /* everything inside */
                                      "a/**/z\n"  /* any folders between, or none */
                                      "lit**al\n" /* two stars inside a name are one */
                                      "pre**/x\n" /* two stars behind a literal */
                                      "\\#hash\n" /* escapes */
                                      "\\!bang\n"
                                      "sp\\ \n"    /* a space that stays */
                                      "trail   \n" /* spaces that go */
                                      "in ner\n"
                                      "[abc]1\n" /* classes */
                                      "[!abc]2\n"
                                      "[^abc]3\n"
                                      "[a-c]4\n"
                                      "[]-]5\n"
                                      "[[:digit:]]x\n"
                                      "[[:upper:]x]y\n"
                                      "[\\]]6\n"
                                      "[unclosed\n"
                                      "q?\n"
                                      "st*r\n"
                                      "/an*d\n"
                                      "end\\\n" /* a lone backslash */
                                      "cr\r\n"
                                      "//\n"
                                      "/\n"
                                      "!\n"
                                      "dd//\n"
                                      "no-newline";

static const char *const table_files[] = {"x.o", "keep.o", "sub/x.o", "sub/keep.o", "top",
    "sub/top", "mid/dle", "sub/mid/dle", "deep", "sub/deep", "logs/1", "logs/d/2", "a/z", "a/b/z",
    "a/b/c/z", "a/bz", "lital", "litXXal", "prex", "pre/x", "preY/x", "pre/Y/x", "#hash", "!bang",
    "sp ", "sp", "trail", "trail   ", "in ner", "a1", "d1", "a2", "d2", "a3", "d3", "b4", "e4",
    "]5", "-5", "a5", "7x", "ax", "Qy", "xy", "zy", "]6", "[unclosed", "q1", "q", "q12", "str",
    "staar", "s/tr", "and", "an/d", "sub/and", "end\\", "end", "cr", "cr\r", "dd/f", "no-newline",
    "build/f", "sub/build/g", "bld/build", "sub/n/keep.me", "sub/n/drop.me", "new\nline.o"};

static const char *const table_dirs[] = {"sub", "sub/mid", "mid", "logs", "logs/d", "a", "a/b",
    "a/b/c", "pre", "preY", "pre/Y", "s", "an", "dd", "build", "sub/build", "bld", "sub/n",
    "empty"};

static void test_oracle_table(void **state)
{
    (void)state;
    struct repo r;
    repo_make(&r);
    struct ignore *ig = ignore_new(false);
    assert_non_null(ig);
    for (size_t i = 0; i < sizeof(table_dirs) / sizeof(table_dirs[0]); i++)
        add_path(&r, table_dirs[i], true);
    for (size_t i = 0; i < sizeof(table_files) / sizeof(table_files[0]); i++)
        add_path(&r, table_files[i], false);
    load(&r, ig, "", table_root);
    load(&r, ig, "sub", "*.me\n!x.o\nbuild\n!n/\n");
    load(&r, ig, "sub/n", "!keep.me\n/drop.me\n");
    /* Not read: its folder is ignored. */
    load(&r, ig, "build", "!f\n");
    compare(&r, ig);
    ignore_free(ig);
    repo_remove(&r);
}

/* Lines put together at random (a fixed seed) from what globs are made of. */
static uint32_t next_random(uint64_t *seed)
{
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*seed >> 33);
}

static void random_rules(uint64_t *seed, char *text, size_t size)
{
    static const char *const parts[] = {"a", "b", "c", "ab", "/", "/", "*", "**", "**/", "/**", "?",
        "[ab]", "[!a]", "[a-b]", "[^b-", "\\a", "\\", "\\/", " ", "[[:alpha:]]", "]", "/**/", "*a",
        "-"};
    size_t len = 0, lines = 1 + next_random(seed) % 6;
    for (size_t l = 0; l < lines; l++) {
        size_t n = 1 + next_random(seed) % 5;
        if (next_random(seed) % 4 == 0 && len + 1 < size)
            text[len++] = '!';
        while (n--) {
            const char *part = parts[next_random(seed) % (sizeof(parts) / sizeof(parts[0]))];
            size_t part_len = strlen(part);
            if (len + part_len + 2 < size) {
                memcpy(text + len, part, part_len);
                len += part_len;
            }
        }
        text[len++] = '\n';
    }
    text[len] = '\0';
}

static void test_oracle_random(void **state)
{
    (void)state;
    static const char *const names[] = {"a", "b", "ab", "ba", "c", "a-b", "aa"};
    struct repo r;
    uint64_t seed = 20221122;
    char text[256], path[64];
    repo_make(&r);
    for (size_t i = 0; i < 3; i++) {
        add_path(&r, names[i], true);
        for (size_t k = 0; k < 4; k++) {
            (void)snprintf(path, sizeof(path), "%s/%s", names[i], names[k]);
            add_path(&r, path, true);
            for (size_t l = 0; l < 7; l++) {
                (void)snprintf(path, sizeof(path), "%s/%s/%s", names[i], names[k], names[l]);
                add_path(&r, path, false);
            }
        }
    }
    for (size_t l = 3; l < 7; l++)
        add_path(&r, names[l], false);
    for (int round = 0; round < 150; round++) {
        struct ignore *ig = ignore_new(false);
        assert_non_null(ig);
        random_rules(&seed, text, sizeof(text));
        load(&r, ig, "", text);
        random_rules(&seed, text, sizeof(text));
        load(&r, ig, "a", text);
        random_rules(&seed, text, sizeof(text));
        load(&r, ig, "a/b", text);
        compare(&r, ig);
        ignore_free(ig);
    }
    repo_remove(&r);
}

struct default_case {
    const char *path;
    bool is_dir, ignored;
};

static const struct default_case default_cases[] = {
    {".git", true, true},
    {"sub/.git", false, true},    /* a worktree's file */
    {".gitignore", false, false}, /* only the name itself */
    {".silt", true, true},
    {"x/node_modules/y/z.js", false, true}, /* beneath */
    {".env", false, true},
    {".env.local", false, true},
    {".envrc", false, true},
    {".env.example", false, false}, /* taken back by the defaults themselves */
    {"env.py", false, false},
    {"key.pem", false, true},
    {"id_rsa", false, true},
    {"id_ed25519.pub", false, true},
    {"id_generator.py", false, false}, /* a source file */
    {"a.py~", false, true},
    {".a.py.swp", false, true},
    {".a.py.swx", false, true},
    {"4913", false, true},
    {"49130", false, false},
    {".#a", false, true},
    {"#a#", false, true},
    {"#a", false, false},
    {"src/main.py", false, false},
};

static void test_defaults(void **state)
{
    (void)state;
    struct ignore *ig = ignore_new(true);
    for (size_t i = 0; i < sizeof(default_cases) / sizeof(default_cases[0]); i++) {
        const struct default_case *c = &default_cases[i];
        if (ignore_find(ig, c->path, c->is_dir, NULL) != c->ignored)
            fail_msg("'%s' should be %s", c->path, c->ignored ? "ignored" : "synced");
    }
    ignore_free(ig);
}

struct override_case {
    const char *git, *silt; /* the two files in the root, or NULL */
    const char *path;
    bool is_dir, ignored;
};

static const struct override_case override_cases[] = {
    {"!.env\n", NULL, ".env", false, false},       /* named: asked for */
    {"!*\n", NULL, ".env", false, true},           /* "everything again" does not mean secrets */
    {"*\n!*/\n!*.py\n", NULL, ".git", true, true}, /* the usual white list */
    {"*\n!*/\n!*.py\n", NULL, "src/a.py", false, false},
    {"*\n!*/\n!*.py\n", NULL, "src/a.c", false, true},
    {"!.*\n", NULL, ".git", true, true},    /* .gitignore: a wildcard does not take back */
    {NULL, "!.e*\n", ".env", false, false}, /* .siltignore: if it holds more than wildcards */
    {NULL, "!*\n!**\n!*/\n", ".git", true, true},
    {NULL, "!node_modules/\n", "node_modules/x", false, false},
    {NULL, "!.silt\n!/.silt/\n", ".silt", true, true}, /* never */
    {"*.log\n", "!a.log\n", "a.log", false, false},    /* .siltignore lies on top */
    {"!a.log\n", "*.log\n", "a.log", false, true},
    {"*.log\n", "!*\n", "a.log", false, false}, /* not a built-in rule: any '!' counts */
};

static void test_sources(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(override_cases) / sizeof(override_cases[0]); i++) {
        const struct override_case *c = &override_cases[i];
        struct ignore *ig = ignore_new(true);
        if (c->git)
            assert_int_equal(ignore_load(ig, IGNORE_GIT, "", c->git, strlen(c->git)), 0);
        if (c->silt)
            assert_int_equal(ignore_load(ig, IGNORE_SILT, "", c->silt, strlen(c->silt)), 0);
        if (ignore_find(ig, c->path, c->is_dir, NULL) != c->ignored)
            fail_msg("row %zu: '%s' should be %s", i, c->path, c->ignored ? "ignored" : "synced");
        ignore_free(ig);
    }
}

/* git's other files: below any .gitignore, the project's above the user's, and no way to a secret. */
static void test_weak_sources(void **state)
{
    static const struct {
        const char *global, *exclude, *git, *path;
        bool ignored;
        enum ignore_source source;
    } rows[] = {
        {"*.o\n", NULL, NULL, "a/b.o", true, IGNORE_GLOBAL},
        {"*.o\n", "!b.o\n", NULL, "a/b.o", false, IGNORE_EXCLUDE},
        {"!b.o\n", "*.o\n", NULL, "a/b.o", true, IGNORE_EXCLUDE},
        {"*.o\n", "*.o\n", "!b.o\n", "a/b.o", false, IGNORE_GIT},
        {"/a/*.o\n", NULL, "*.c\n", "a/b.o", true, IGNORE_GLOBAL},
        {"!.env\n", "!.env\n", NULL, ".env", true, IGNORE_BUILTIN},
        {"!.env\n", NULL, "!.env\n", ".env", false, IGNORE_GIT},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const char *const texts[] = {rows[i].global, rows[i].exclude, rows[i].git};
        static const enum ignore_source sources[] = {IGNORE_GLOBAL, IGNORE_EXCLUDE, IGNORE_GIT};
        struct ignore *ig = ignore_new(true);
        struct ignore_verdict v;
        for (size_t k = 0; k < 3; k++) {
            if (texts[k])
                assert_int_equal(ignore_load(ig, sources[k], "", texts[k], strlen(texts[k])), 0);
        }
        if (ignore_find(ig, rows[i].path, false, &v) != rows[i].ignored || v.source != rows[i].source)
            fail_msg("row %zu: '%s' by source %d", i, rows[i].path, (int)v.source);
        /* Nothing of them stays when they are dropped. */
        ignore_drop_tree(ig, "");
        assert_false(ignore_find(ig, "a/b.o", false, NULL));
        ignore_free(ig);
    }
}

static void test_reload_and_explain(void **state)
{
    (void)state;
    struct ignore *ig = ignore_new(true);
    struct ignore_verdict v;
    struct buf b;
    assert_int_equal(ignore_load(ig, IGNORE_GIT, "lib", "x\nout/\n", 7), 0);
    assert_true(ignore_find(ig, "lib/out/deep/f", false, &v));
    buf_init(&b, 1000);
    assert_int_equal(ignore_explain(&v, "lib/out/deep/f", &b), 0);
    assert_string_equal(buf_str(&b),
        "'lib/out' is left out: line 2 of lib/.gitignore says 'out/'; to "
        "sync it, add the line '!/lib/out' to .siltignore");
    /* The hint works. */
    assert_int_equal(ignore_load(ig, IGNORE_SILT, "", "!/lib/out\n", 10), 0);
    assert_false(ignore_find(ig, "lib/out/deep/f", false, NULL));
    assert_int_equal(ignore_load(ig, IGNORE_SILT, "", NULL, 0), 0);
    assert_true(ignore_find(ig, "lib/out/deep/f", false, NULL));
    assert_int_equal(ignore_load(ig, IGNORE_GIT, "lib", "y\n", 2), 0);
    assert_false(ignore_find(ig, "lib/out/deep/f", false, NULL));
    assert_true(ignore_find(ig, "lib/y", false, NULL));
    ignore_drop_tree(ig, "lib");
    assert_false(ignore_find(ig, "lib/y", false, NULL));
    buf_reset(&b);
    assert_true(ignore_find(ig, ".env", false, &v));
    assert_int_equal(ignore_explain(&v, ".env", &b), 0);
    assert_string_equal(buf_str(&b),
        "'.env' is left out: '.env*' is never synced unless asked for; to "
        "sync it, add the line '!/.env' to .siltignore");
    buf_release(&b);
    ignore_free(ig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_oracle_table),
        cmocka_unit_test(test_oracle_random),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_sources),
        cmocka_unit_test(test_weak_sources),
        cmocka_unit_test(test_reload_and_explain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
