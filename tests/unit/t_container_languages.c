/* SPDX-License-Identifier: MIT */
/*
 * The languages' plans, executed: multi-file projects of every language that is installed here, run
 * by file name the way exec does it. No network, caches under /cache.
 */
#include "tests/unit/container_fixture.h"

#include "server/runtimes.h"

#include "shared/banned.h"

static bool exists_in_workspace(void *ctx, const char *path)
{
    const struct fixture *f = ctx;
    char full[512];
    (void)snprintf(full, sizeof full, "%s/%s", f->workspace, path);
    return access(full, F_OK) == 0;
}

static const char *const env[] = {"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/cache/home",
    "GOCACHE=/cache/go-build", "GOPATH=/cache/go", "GOFLAGS=-mod=mod", "GOPROXY=off",
    "LANG=C.UTF-8", NULL};

/* Run path from cwd with two arguments, one of which would betray a shell. */
static void run_file(struct fixture *f, const char *path, const char *cwd, struct run *ret)
{
    struct runtimes_look look = {exists_in_workspace, f};
    struct runtimes_plan plan;
    struct err e = ERR_INIT;
    char head[256], full[512], id[32], inside[256];
    const char *argv[RUNTIMES_ARGV_MAX + 3] = {NULL};
    (void)snprintf(full, sizeof full, "%s/%s", f->workspace, path);
    int fd = open(full, O_RDONLY | O_CLOEXEC);
    ssize_t n = read(fd, head, sizeof head);
    (void)close(fd);
    assert_true(n >= 0);
    assert_int_equal(runtimes_plan_file(path, cwd, head, (size_t)n, false, NULL, &look, &plan), 0);
    memcpy(argv, plan.argv, plan.argc * sizeof *argv);
    argv[plan.argc] = "a b";
    argv[plan.argc + 1] = "$(id);*";
    (void)snprintf(inside, sizeof inside, "/workspace/%s", cwd);
    struct container_spec spec = fixture_spec(f, id);
    spec.limits.memory_bytes = 2ull << 30;
    spec.limits.pids = 256;
    spec.limits.tmp_bytes = 512u << 20;
    struct container *c = fixture_new(f, &spec);
    int pipes[2];
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    const struct container_process process = {.argv = argv,
        .env = env,
        .cwd = inside,
        .stdin_fd = pipes[0],
        .stdout_fd = pipes[1],
        .stderr_fd = pipes[1]};
    assert_int_equal(container_start(c, &process, &e), 0);
    (void)close(pipes[1]);
    fixture_read_all(pipes[0], ret->out, sizeof ret->out);
    assert_int_equal(container_wait(c, &ret->exit, &e), 0);
    container_free(c);
    (void)close(pipes[0]);
    runtimes_plan_release(&plan);
}

/* Files are written once; rows run some of them. A program prints its arguments and directory, and
 * ends with 3, which must arrive as 3. */
static void test_projects(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *path, *text;
    } files[] = {
        {"py/main.py",
            "import sys, os, lib\nprint(lib.N, sys.argv[1:], os.getcwd())\nsys.exit(3)\n"},
        {"py/lib.py", "N = 1\n"},
        {"js/main.js", "const l = require('./lib'); console.log(l.n, process.argv.slice(2), "
                       "process.cwd()); process.exit(3)\n"},
        {"js/lib.js", "exports.n = 1\n"},
        {"sh/main.sh", "#!/bin/bash\na=(\"$@\")\necho ${#a[@]} \"${a[1]}\" $PWD\nexit 3\n"},
        {"pl/main.pl", "use Cwd; print \"@ARGV \", getcwd(), \"\\n\"; exit 3;\n"},
        {"rb/main.rb", "puts ARGV.inspect + Dir.pwd; exit 3\n"},
        {"c/main.c", "#include <stdio.h>\nint n(void);\nint main(int c, char **v)\n"
                     "{ printf(\"%d %d %s %s\\n\", n(), c, v[1], v[2]); return 3; }\n"},
        {"c/lib.c", "int n(void) { return 1; }\n"},
        {"cs/one.c", "int main(void) { return 3; }\n"},
        {"cs/two.c", "int main(void) { return 4; }\n"},
        {"mk/Makefile", "tool: x.c\n\t@echo building\n\tcc -o tool x.c\n"},
        {"mk/x.c", "#include <stdio.h>\nint main(int c, char **v) { puts(v[2]); return c; }\n"},
        {"mk/tool.c", "/* found by name: the program is tool */\n"},
        {"broken/x.c", "int main(void) { return y; }\n"},
        {"go1/main.go", "package main\nimport (\"fmt\"; \"os\")\nfunc main() { d, _ := os.Getwd(); "
                        "fmt.Println(n, os.Args[1:], d); os.Exit(3) }\n"},
        {"go1/lib.go", "package main\nvar n = 1\n"},
        {"go2/go.mod", "module example.com/m\n\ngo 1.18\n"},
        {"go2/lib/lib.go", "package lib\nvar N = 1\n"},
        {"go2/cmd/t/main.go", "package main\nimport (\"os\"; \"example.com/m/lib\")\n"
                              "func main() { println(lib.N, os.Args[2]); os.Exit(3) }\n"},
        {"go3/a.go", "package main\nfunc main() { println(\"a\") }\n"},
        {"go3/b.go", "package main\nfunc main() { println(\"b\") }\n"},
        {"go3/a_test.go", "package main\n"},
    };
    static const struct {
        const char *program; /* skipped where it is not installed */
        const char *path, *cwd;
        int exit_code;
        const char *out; /* contained in the output */
    } rows[] = {
        {"python3", "py/main.py", "", 3, "1 ['a b', '$(id);*'] /workspace\n"},
        {"python3", "py/main.py", "py", 3, "1 ['a b', '$(id);*'] /workspace/py\n"},
        {"node", "js/main.js", "", 3, "1 [ 'a b', '$(id);*' ] /workspace\n"},
        {"bash", "sh/main.sh", "sh", 3, "2 $(id);* /workspace/sh\n"},
        {"perl", "pl/main.pl", "", 3, "a b $(id);* /workspace\n"},
        {"ruby", "rb/main.rb", "", 3, "[\"a b\", \"$(id);*\"]/workspace\n"},
        /* the folder's sources together */
        {"cc", "c/main.c", "", 3, "1 3 a b $(id);*\n"},
        {"cc", "c/main.c", "c", 3, "1 3 a b $(id);*\n"},
        /* two programs in one folder */
        {"cc", "cs/one.c", "", 3, ""},
        {"cc", "cs/two.c", "py", 4, ""},
        {"make", "mk/tool.c", "", 3, "$(id);*\n"},
        /* a compiler's own code, and its words */
        {"cc", "broken/x.c", "", 1, "undeclared"},
        {"go", "go1/main.go", "", 3, "1 [a b $(id);*] /workspace\n"},
        {"go", "go2/cmd/t/main.go", "", 3, "1 $(id);*\n"},
        {"go", "go3/a.go", "go3", 0, "a\n"},
        {"go", "go3/b.go", "", 0, "b\n"},
    };
    static struct run r;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        fixture_write(f, files[i].path, files[i].text, 0644);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (!container_engine_has_program(f->engine, "host", rows[i].program)) {
            print_message("%s is not installed: row %zu skipped\n", rows[i].program, i);
            continue;
        }
        run_file(f, rows[i].path, rows[i].cwd, &r);
        if (!r.exit.started || r.exit.exit_code != rows[i].exit_code || !strstr(r.out, rows[i].out))
            fail_msg("%s from '%s': started %d (%s) exit %d signal %d: %s", rows[i].path,
                rows[i].cwd, r.exit.started, strerror(r.exit.exec_errno), r.exit.exit_code,
                r.exit.signal, r.out);
    }
}

/* Every installed language can tell its version. */
static void test_versions(void **state)
{
    struct fixture *f = *state;
    size_t count;
    static struct run r;
    const struct runtime_language *all = runtimes_all(&count);
    for (size_t i = 0; i < count; i++) {
        if (!container_engine_has_program(f->engine, "host", all[i].program))
            continue;
        fixture_run(f, all[i].version_argv, &r);
        assert_int_equal(r.exit.exit_code, 0);
        assert_true(strlen(r.out) > 2);
    }
}

static int tests(void)
{
    const struct CMUnitTest all[] = {
        cmocka_unit_test(test_projects),
        cmocka_unit_test(test_versions),
    };
    return cmocka_run_group_tests(all, fixture_setup, fixture_teardown);
}

int main(void)
{
    return fixture_main(tests);
}
