/* SPDX-License-Identifier: MIT */
/* siltd's settings: where each comes from, who wins, and what is said about mistakes. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/config.h"
#include "shared/io.h"
#include "shared/log.h"

#include "shared/banned.h"

static char dir[] = "/tmp/t_server_config.XXXXXX";
static char path[64];

static int make_dir(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof(path), "%s/siltd.conf", dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    (void)unlink(path);
    return rmdir(dir);
}

/* An environment of "NAME=VALUE" texts. */
static const char *fake_env(void *ctx, const char *name)
{
    for (const char *const *entry = ctx; entry && *entry; entry++) {
        size_t len = strlen(name);
        if (strncmp(*entry, name, len) == 0 && (*entry)[len] == '=')
            return *entry + len + 1;
    }
    return NULL;
}

static int load(
    const char *const *args, const char *const *env, bool root, struct config **ret, struct err *e)
{
    char *argv[16] = {(char *)(uintptr_t) "siltd"};
    int argc = 1;
    enum config_action action;
    const struct config_world world = {.root = root,
        .cpus = 8,
        .exe_dir = "/opt/silt/bin",
        .env = fake_env,
        .ctx = (void *)(uintptr_t)env};
    for (; args && *args; args++)
        argv[argc++] = (char *)(uintptr_t)*args;
    return config_load(&world, argc, argv, ret, &action, e);
}

#define LIST(...) ((const char *const[]){__VA_ARGS__, NULL})

static void test_defaults(void **state)
{
    struct config *c = NULL;
    struct err e = ERR_INIT;
    (void)state;
    assert_int_equal(
        load(NULL, LIST("HOME=/home/u", "XDG_CONFIG_HOME=/nowhere"), false, &c, &e), 0);
    assert_string_equal(c->host, "127.0.0.1");
    assert_int_equal(c->port, 7458);
    assert_string_equal(c->data_dir, "/home/u/.local/state/silt");
    assert_string_equal(c->workspace_root, "/home/u/.local/state/silt/workspaces");
    assert_string_equal(c->images, "/home/u/.local/state/silt/images");
    assert_int_equal(c->word_count, 0);
    assert_string_equal(c->init, "/opt/silt/bin/../libexec/silt/silt-init");
    assert_int_equal(c->max_runs, 16);
    assert_int_equal(c->max_queued, 256);
    assert_int_equal(c->limits.wall_ms, 60000);
    assert_int_equal(c->limits_max.wall_ms, 24 * 3600 * 1000);
    assert_int_equal(c->limits.memory_bytes, 1 << 30);
    assert_int_equal(c->limits.pids, 256);
    assert_int_equal(c->limits.output_bytes, 8 << 20);
    assert_int_equal(c->log_level, LOG_LEVEL_INFO);
    assert_null(c->allow_hosts[0]);
    config_free(c);
}

static void test_data_dirs(void **state)
{
    static const struct {
        bool root;
        const char *env[4];
        const char *data, *workspaces; /* data NULL: an error */
    } rows[] = {
        {false, {"XDG_STATE_HOME=/s", "HOME=/h"}, "/s/silt",
            "/s/silt/workspaces"}, /* as the standard says */
        {false, {"XDG_STATE_HOME=relative", "HOME=/h"}, "/h/.local/state/silt",
            "/h/.local/state/silt/workspaces"},
        {false, {NULL}, NULL, NULL}, /* nowhere to put it */
        {true, {"HOME=/root"}, "/var/lib/silt",
            "/var/lib/silt/workspaces"},                            /* a service has no home */
        {true, {"PETRI_WORKSPACE_ROOT=/p"}, "/var/lib/silt", "/p"}, /* the alias */
        {true, {"PETRI_WORKSPACE_ROOT=/p", "SILT_WORKSPACE_ROOT=/w"}, "/var/lib/silt",
            "/w"},                                      /* ours wins */
        {true, {"SILT_DATA_DIR=relative"}, NULL, NULL}, /* would depend on where it was started */
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct config *c = NULL;
        struct err e = ERR_INIT;
        /* No row may read this machine's own settings file. */
        assert_int_equal(io_write_file(path, "", 0, 0600, &e), 0);
        int r = load(LIST("--config", path), rows[i].env, rows[i].root, &c, &e);
        if (!rows[i].data) {
            assert_int_equal(r, -EINVAL);
            continue;
        }
        assert_int_equal(r, 0);
        assert_string_equal(c->data_dir, rows[i].data);
        assert_string_equal(c->workspace_root, rows[i].workspaces);
        config_free(c);
    }
}

static void test_precedence(void **state)
{
    static const char text[] = "# comment\n  max_runs = 3\n\nmax_queued=7\r\nmemory = "
                               "2G\nallow_hosts = a.example, b.example\n";
    struct config *c = NULL;
    struct err e = ERR_INIT;
    (void)state;
    assert_int_equal(io_write_file(path, text, sizeof(text) - 1, 0600, &e), 0);
    assert_int_equal(
        load(LIST("--config", path, "--max-queued=9", "--memory", "512M"),
            LIST("SILT_MAX_QUEUED=8", "SILT_MEMORY=1G", "SILT_WALL_TIME=5s"), true, &c, &e),
        0);
    assert_int_equal(c->max_runs, 3);                    /* only in the file */
    assert_int_equal(c->max_queued, 9);                  /* in all three */
    assert_int_equal(c->limits.memory_bytes, 512 << 20); /* in all three, as two words */
    assert_int_equal(c->limits.wall_ms, 5000);           /* only in the environment */
    assert_string_equal(c->allow_hosts[0], "a.example");
    assert_string_equal(c->allow_hosts[1], "b.example");
    assert_null(c->allow_hosts[2]);
    config_free(c);
}

static void test_mistakes(void **state)
{
    static const struct {
        const char *args[3];
        const char *file; /* content, or NULL for an empty one */
        const char *says; /* part of the sentence */
    } rows[] = {
        {{"--max-rums", "3"}, NULL, "did you mean --max-runs?"},
        {{"--zzzzzzzz", "3"}, NULL, "siltd --help"},
        {{"positional"}, NULL, "unknown option 'positional'"},
        {{"--max-runs"}, NULL, "--max-runs needs a value"},
        {{"--max-runs", "many"}, NULL, "--max-runs: 'many'"},
        {{"--max-runs", "0"}, NULL, "out of range"},
        {{"--max-runs", "99999999"}, NULL, "out of range"},
        {{"--listen", "example.com:80"}, NULL, "numeric address"},
        {{"--listen", "127.0.0.1"}, NULL, "numeric address"},
        {{"--listen", "127.0.0.1:70000"}, NULL, "numeric address"},
        {{"--memory", "100G"}, NULL, "memory is above max_memory"},
        {{"--log-level", "loud"}, NULL, "error, warn, info or debug"},
        {{NULL}, "max_runs = 3\nmax_rums = 4\n",
            "siltd.conf:2: unknown key 'max_rums': did you mean 'max_runs'?"},
        {{NULL}, "max_runs = 3\nmax_runs = 4\n", "siltd.conf:2: max_runs was set above"},
        {{NULL}, "\n\nno equals sign\n", "siltd.conf:3: expected 'key = value'"},
        {{NULL}, "wall_time = soon\n", "siltd.conf:1: 'soon' is no value for wall_time"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const char *args[6] = {"--config", path, rows[i].args[0], rows[i].args[1], rows[i].args[2]};
        struct config *c = NULL;
        struct err e = ERR_INIT;
        const char *text = rows[i].file ? rows[i].file : "";
        assert_int_equal(io_write_file(path, text, strlen(text), 0600, &e), 0);
        assert_int_equal(load(args, NULL, true, &c, &e), -EINVAL);
        if (!strstr(e.msg, rows[i].says))
            fail_msg("row %zu says '%s', not '%s'", i, e.msg, rows[i].says);
        assert_null(c);
    }
}

static void test_missing_file_that_was_named(void **state)
{
    struct config *c = NULL;
    struct err e = ERR_INIT;
    (void)state;
    assert_int_equal(
        load(LIST("--config", "/nonexistent/siltd.conf"), NULL, true, &c, &e), -ENOENT);
    assert_null(c);
}

static void test_texts(void **state)
{
    struct buf help, table;
    (void)state;
    buf_init(&help, 256 * 1024);
    buf_init(&table, 256 * 1024);
    assert_int_equal(config_help(&help), 0);
    assert_int_equal(config_markdown(&table), 0);
    assert_non_null(strstr(buf_str(&help), "--workspace-root PATH"));
    assert_non_null(strstr(buf_str(&table), "| `--workspace-root` | `SILT_WORKSPACE_ROOT`, "
                                            "`PETRI_WORKSPACE_ROOT` | `workspace_root` |"));
    buf_release(&help);
    buf_release(&table);
}

/* After `image` what is no option is a word, wherever it stands; before it, a mistake. */
static void test_words(void **state)
{
    struct config *c = NULL;
    struct err e = ERR_INIT;
    const char *const *env = LIST("HOME=/home/u", "XDG_CONFIG_HOME=/nowhere");
    (void)state;
    assert_int_equal(load(LIST("--images", "/i", "image", "import", "--json", "a", "--data-dir", "/d",
                              "-"),
                         env, false, &c, &e),
        0);
    assert_int_equal(c->word_count, 3);
    assert_string_equal(c->words[0], "import");
    assert_string_equal(c->words[1], "a");
    assert_string_equal(c->words[2], "-");
    assert_string_equal(c->images, "/i");
    assert_string_equal(c->data_dir, "/d");
    config_free(c);
    assert_int_equal(load(LIST("import", "a", "image"), env, false, &c, &e), -EINVAL);
    assert_int_equal(load(LIST("image", "list", "--jsno"), env, false, &c, &e), -EINVAL);
    assert_int_equal(load(LIST("image", "1", "2", "3", "4", "5"), env, false, &c, &e), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_data_dirs),
        cmocka_unit_test(test_precedence),
        cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_missing_file_that_was_named),
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_words),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
