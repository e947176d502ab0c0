/* SPDX-License-Identifier: MIT */
/* The body of an exec request: what is taken, what is refused, and with which words. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "server/exec_request.h"

#include "shared/banned.h"

static const struct config config = {
    .limits = {.wall_ms = 60000, .memory_bytes = 1 << 30, .pids = 256, .output_bytes = 8 << 20},
    .limits_max = {.wall_ms = 3600000,
        .cpu_ms = 3600000,
        .memory_bytes = (uint64_t)4 << 30,
        .pids = 1000,
        .output_bytes = 64 << 20},
    .json_bytes = 1 << 20,
};

static int parse(const char *text, const char *language, struct exec_request *ret, struct err *e)
{
    const struct exec_base base = {.language = language,
        .image = "",
        .env_json = "{\"A\":\"sandbox\",\"B\":\"sandbox\"}",
        .limits_json = "{\"pids\":50}",
        .config = &config};
    json_t *body = json_loads(text, 0, NULL);
    assert_non_null(body);
    int r = exec_request_parse(body, &base, ret, e);
    json_decref(body);
    return r;
}

static void test_display(void **state)
{
    static const struct {
        const char *body, *shown;
        size_t room;
    } rows[] = {
        {"{\"filename\":\"a/main.py\",\"args\":[\"-v\",\"x\"]}", "a/main.py -v x", 200},
        {"{\"command\":[\"python3\",\"-m\",\"pytest\"]}", "python3 -m pytest", 200},
        {"{\"command\":\"make | tail\"}", "make | tail", 200},
        {"{\"code\":\"print(1)\"}", "(code)", 200},
        /* what a terminal would act on */
        {"{\"command\":[\"a\\u001b[2Jb\"]}", "a\\x1B[2Jb", 200},
        /* no half character at the end */
        {"{\"command\":[\"abä\"]}", "ab", 4},
        {"{\"command\":[\"abä\"]}", "abä", 5},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct exec_request r;
        struct err e = ERR_INIT;
        char shown[200];
        assert_int_equal(parse(rows[i].body, "python", &r, &e), 0);
        exec_request_display(&r, shown, rows[i].room);
        if (strcasecmp(shown, rows[i].shown) != 0)
            fail_msg("row %zu: '%s'", i, shown);
        exec_request_release(&r);
    }
}

static void test_refused(void **state)
{
    static const struct {
        const char *body;
        enum proto_error code;
        const char *says;
    } rows[] = {
        {"{}", PROTO_INVALID_VALUE, "exactly one of"},
        {"{\"filename\":\"a.py\",\"command\":\"ls\"}", PROTO_INVALID_VALUE, "exactly one of"},
        {"[]", PROTO_INVALID_VALUE, "must be a JSON object"},
        {"{\"filename\":\"../etc/passwd\"}", PROTO_INVALID_PATH, "'filename'"},
        {"{\"filename\":\"/etc/passwd\"}", PROTO_INVALID_PATH, "'filename'"},
        {"{\"filename\":\"\"}", PROTO_INVALID_PATH, "'filename'"},
        {"{\"filename\":7}", PROTO_INVALID_VALUE, "'filename' must be a text, not a number"},
        {"{\"command\":[]}", PROTO_INVALID_VALUE, "must name a program"},
        {"{\"command\":[\"ls\",3]}", PROTO_INVALID_VALUE, "must be a text"},
        {"{\"command\":\"ls\",\"comand\":1}", PROTO_INVALID_VALUE, "did you mean 'command'?"},
        {"{\"command\":\"ls\",\"limits\":{\"wall\":1}}", PROTO_INVALID_VALUE,
            "unknown member 'wall'"},
        {"{\"command\":\"ls\",\"limits\":{\"wall_ms\":0}}", PROTO_INVALID_VALUE,
            "between 1 and 3600000"},
        {"{\"command\":\"ls\",\"limits\":{\"wall_ms\":3600001}}", PROTO_INVALID_VALUE,
            "between 1 and 3600000"},
        {"{\"command\":\"ls\",\"limits\":{\"wall_ms\":1.5}}", PROTO_INVALID_VALUE, "whole number"},
        {"{\"command\":\"ls\",\"limits\":{\"pids\":-1}}", PROTO_INVALID_VALUE, "'pids'"},
        {"{\"command\":\"ls\",\"env\":{\"A=B\":\"x\"}}", PROTO_INVALID_VALUE,
            "no name of a variable"},
        {"{\"command\":\"ls\",\"env\":{\"A\":[]}}", PROTO_INVALID_VALUE, "must be a text"},
        {"{\"command\":\"ls\",\"stdin\":\"a\",\"stdin_base64\":\"YQ==\"}", PROTO_INVALID_VALUE,
            "not both"},
        {"{\"command\":\"ls\",\"stdin_base64\":\"!\"}", PROTO_INVALID_VALUE, "not base64"},
        {"{\"command\":\"ls\",\"cwd\":\"../x\"}", PROTO_INVALID_PATH, "'cwd'"},
        {"{\"command\":\"ls\",\"after\":{\"client\":\"a\"}}", PROTO_INVALID_VALUE, "'seq'"},
        {"{\"command\":\"ls\",\"after\":{\"seq\":1}}", PROTO_INVALID_VALUE, "'client'"},
        {"{\"command\":\"ls\",\"network\":{\"mode\":\"host\"}}", PROTO_INVALID_VALUE, "no network"},
        {"{\"command\":\"ls\",\"grace_ms\":600001}", PROTO_INVALID_VALUE, "'grace_ms'"},
        {"{\"command\":\"ls\",\"detach\":1}", PROTO_INVALID_VALUE, "true or false"},
        {"{\"command\":\"ls\",\"tty\":{\"rows\":0}}", PROTO_INVALID_VALUE, "'rows'"},
        {"{\"command\":\"ls\",\"tty\":{\"input\":1}}", PROTO_INVALID_VALUE, "'input'"},
        {"{\"command\":\"ls\",\"stdin_stream\":\"yes\"}", PROTO_INVALID_VALUE, "'stdin_stream'"},
        {"{\"command\":\"ls\",\"stdin_stream\":true,\"stdin\":\"\"}", PROTO_INVALID_VALUE, "'stdin'"},
        {"{\"command\":\"ls\",\"tty\":{\"input\":true},\"stdin\":\"\"}", PROTO_INVALID_VALUE, "'stdin'"},
        {"{\"command\":\"ls\",\"changes\":[]}", PROTO_INVALID_VALUE, "'changes'"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct exec_request req = {.language = NULL};
        struct err e = ERR_INIT;
        assert_int_equal(parse(rows[i].body, "python", &req, &e), -EPROTO);
        if (e.refusal != rows[i].code || !strstr(e.msg, rows[i].says))
            fail_msg("%s: %d '%s'", rows[i].body, (int)e.refusal, e.msg);
        exec_request_release(&req);
    }
}

static void test_code_without_language(void **state)
{
    struct exec_request req = {.language = NULL};
    struct err e = ERR_INIT;
    (void)state;
    assert_int_equal(parse("{\"code\":\"1\"}", "", &req, &e), -EPROTO);
    assert_int_equal(e.refusal, PROTO_UNKNOWN_LANGUAGE);
    exec_request_release(&req);
}

static void test_paths(void **state)
{
    /* as written, and as the workspace knows it */
    static const struct {
        const char *given, *path;
    } rows[] = {{"main.py", "main.py"}, {"./main.py", "main.py"}, {"a//b/../c.py", "a/c.py"},
        {"/workspace/a/b.py", "a/b.py"}, {"-x.py", "-x.py"}};
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct exec_request req = {.language = NULL};
        struct err e = ERR_INIT;
        json_t *body = json_pack("{s:s, s:s}", "filename", rows[i].given, "cwd", "/workspace");
        char *text = json_dumps(body, 0);
        assert_int_equal(parse(text, "python", &req, &e), 0);
        assert_int_equal(req.what, EXEC_FILE);
        assert_string_equal(req.text, rows[i].path);
        assert_string_equal(req.cwd, "");
        free(text);
        json_decref(body);
        exec_request_release(&req);
    }
}

static const char *env_of(const struct exec_request *req, const char *name)
{
    size_t len = strlen(name);
    for (char **entry = req->env; entry && *entry; entry++) {
        if (strncmp(*entry, name, len) == 0 && (*entry)[len] == '=')
            return *entry + len + 1;
    }
    return NULL;
}

static void test_merged(void **state)
{
    static const char body[] = "{\"command\":[\"ls\",\"-l\"],\"args\":[\"x\"],\"env\":{\"B\":"
                               "\"request\",\"N\":3,\"T\":true},"
                               "\"limits\":{\"wall_ms\":500},\"stdin_base64\":\"AAE=\",\"after\":{"
                               "\"client\":\"lk.1\",\"seq\":4},"
                               "\"tty\":{\"rows\":50,\"cols\":132},\"wait_ms\":0,\"queue_ms\":7,"
                               "\"labels\":{\"k\":\"v\"},\"stream\":null}";
    struct exec_request req = {.language = NULL};
    struct err e = ERR_INIT;
    (void)state;
    assert_int_equal(parse(body, "py", &req, &e), 0);
    assert_int_equal(req.what, EXEC_ARGV);
    assert_string_equal(req.argv[1], "-l");
    assert_null(req.argv[2]);
    assert_string_equal(req.args[0], "x");
    assert_string_equal(req.language->name, "python");
    assert_string_equal(req.image, "host");
    assert_string_equal(env_of(&req, "A"), "sandbox");
    assert_string_equal(env_of(&req, "B"), "request");
    assert_string_equal(env_of(&req, "N"), "3");
    assert_string_equal(env_of(&req, "T"), "true");
    assert_int_equal(req.limits.wall_ms, 500);          /* the request's */
    assert_int_equal(req.limits.pids, 50);              /* the sandbox's */
    assert_int_equal(req.limits.memory_bytes, 1 << 30); /* the server's */
    assert_true(req.has_stdin);
    assert_int_equal(req.stdin_bytes.len, 2);
    assert_memory_equal(req.stdin_bytes.data, "\0\1", 2);
    assert_string_equal(req.client, "lk.1");
    assert_int_equal(req.seq, 4);
    assert_true(req.tty);
    assert_int_equal(req.cols, 132);
    assert_true(req.has_wait);
    assert_int_equal(req.queue_ms, 7);
    assert_false(req.stream);
    assert_non_null(req.labels);
    exec_request_release(&req);
}

/* What is not always kept must not be written into the workspace. */
static void test_view(void **state)
{
    static const struct {
        const char *more;
        enum exec_view view;
        enum exec_keep keep;
        const char *refused; /* words of the message; NULL: it is taken */
    } rows[] = {
        {"", EXEC_LIVE, EXEC_KEEP_ALWAYS, NULL},
        {",\"view\":null,\"keep\":null", EXEC_LIVE, EXEC_KEEP_ALWAYS, NULL},
        {",\"view\":\"live\",\"keep\":\"always\"", EXEC_LIVE, EXEC_KEEP_ALWAYS, NULL},
        {",\"view\":\"snapshot\"", EXEC_SNAPSHOT, EXEC_KEEP_ALWAYS, NULL},
        {",\"keep\":\"never\"", EXEC_SNAPSHOT, EXEC_KEEP_NEVER, NULL},
        {",\"view\":\"snapshot\",\"keep\":\"on_success\"", EXEC_SNAPSHOT, EXEC_KEEP_ON_SUCCESS,
            NULL},
        {",\"view\":\"live\",\"keep\":\"never\"", EXEC_LIVE, EXEC_KEEP_ALWAYS, "needs 'view'"},
        {",\"view\":\"Snapshot\"", EXEC_LIVE, EXEC_KEEP_ALWAYS, "\"live\" or \"snapshot\""},
        {",\"keep\":\"sometimes\"", EXEC_LIVE, EXEC_KEEP_ALWAYS,
            "\"always\", \"on_success\" or \"never\", not 'sometimes'"},
        {",\"keep\":true", EXEC_LIVE, EXEC_KEEP_ALWAYS, "keep"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct exec_request r;
        struct err e = ERR_INIT;
        char body[200];
        (void)snprintf(body, sizeof(body), "{\"command\":\"true\"%s}", rows[i].more);
        int code = parse(body, "", &r, &e);
        if ((code == 0) == (rows[i].refused != NULL) ||
            (rows[i].refused && !strstr(e.msg, rows[i].refused)))
            fail_msg("%s: %d %s", body, code, e.msg);
        if (code == 0) {
            assert_int_equal(r.view, rows[i].view);
            assert_int_equal(r.keep, rows[i].keep);
            assert_string_equal(exec_view_name(r.view), r.view ? "snapshot" : "live");
        }
        exec_request_release(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_display),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_code_without_language),
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_merged),
        cmocka_unit_test(test_view),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
