/* SPDX-License-Identifier: MIT */
/* A program that was prepared cannot be told apart from one that was just started: the same scripts
 * give the same output, exit code and signal; and it has seen nothing before it is wanted. */
#include "tests/unit/container_fixture.h"

#include <ctype.h>

#include "shared/banned.h"

#define RUN_MARK "run_aaaaaaaaaaaaaaaaaaaaaaaaaa"
#define RUN_ID "run_bcdefghijklmnopqrstuvwxyz2"

static const char *const env_then[] = {"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/cache/home",
    "LANG=C.UTF-8", "PYTHONUNBUFFERED=1", "PYTHONPYCACHEPREFIX=/cache/pyc", "SILT_RUN=" RUN_MARK,
    "A=b", NULL};
static const char *const env_now[] = {"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/cache/home",
    "LANG=C.UTF-8", "PYTHONUNBUFFERED=1", "PYTHONPYCACHEPREFIX=/cache/pyc", "SILT_RUN=" RUN_ID,
    "A=b", NULL};

/* Does a process that works in this directory stand still under a tracer? */
static bool stands(const char *pid, const struct stat *dir)
{
    char path[64], text[512];
    struct stat st;
    (void)snprintf(path, sizeof path, "/proc/%.20s/cwd", pid);
    if (stat(path, &st) < 0 || st.st_dev != dir->st_dev || st.st_ino != dir->st_ino)
        return false;
    (void)snprintf(path, sizeof path, "/proc/%.20s/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    (void)close(fd);
    text[n > 0 ? n : 0] = '\0';
    const char *state = strrchr(text, ')');
    return state && state[2] == 't';
}

static bool one_stands(const char *dir)
{
    DIR *d = opendir("/proc");
    struct stat st;
    bool found = false;
    assert_non_null(d);
    assert_int_equal(stat(dir, &st), 0);
    for (struct dirent *e; !found && (e = readdir(d));)
        found = isdigit((unsigned char)e->d_name[0]) && stands(e->d_name, &st);
    (void)closedir(d);
    return found;
}

/* It stops at every call on its way: only where it stays it is held. */
static void wait_held(const struct fixture *f)
{
    for (int still = 0, tries = 0; still < 20; still = one_stands(f->workspace) ? still + 1 : 0) {
        if (++tries > 20000)
            fail_msg("the program is not held");
        (void)usleep(1000);
    }
}

enum how { COLD, PREPARED, HASTY };

static void run_how(struct fixture *f, enum how how, const char *const *argv,
    const char *const *env, struct run *ret)
{
    char id[32];
    int pipes[2], null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    struct err e = ERR_INIT;
    struct container_spec spec = fixture_spec(f, id);
    struct container *c = fixture_new(f, &spec);
    struct container_process process = {.argv = argv, .env = env_then, .cwd = "/workspace"};
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    process.stdin_fd = null;
    process.stdout_fd = process.stderr_fd = pipes[1];
    if (how != COLD) {
        assert_int_equal(container_prepare(c, &process, &e), 0);
        process.stdin_fd = process.stdout_fd = process.stderr_fd = -1;
        if (how == PREPARED)
            wait_held(f);
    }
    process.env = env;
    if (container_start(c, &process, &e) < 0)
        fail_msg("container_start: %s", e.msg);
    (void)close(pipes[1]);
    (void)close(null);
    fixture_read_all(pipes[0], ret->out, sizeof ret->out);
    assert_int_equal(container_wait(c, &ret->exit, &e), 0);
    container_free(c);
    (void)close(pipes[0]);
}

static const struct {
    const char *name, *text;
} scripts[] = {
    {"hello", "print('hello')\n"},
    {"module",
        "import sys\n"
        "print(__name__, __file__, __spec__, __package__, __doc__, type(__loader__), "
        "sorted(globals()))\n"
        "print(sys.argv, sys.orig_argv, sys.path, sys.flags, sys.executable, sys.prefix)\n"
        "print(sorted(m for m in sys.modules), sys.modules['__main__'].__dict__ is globals())\n"},
    {"environment", "import os\n"
                    "print(dict(os.environ), os.getcwd(), os.getpid(), os.getppid(), "
                    "os.getpgid(0), os.getsid(0))\n"
                    "print(open('/proc/self/cmdline').read(), open('/proc/self/environ').read())\n"
                    "print(os.readlink('/proc/self/exe'), sorted(os.listdir('/proc/self/fd')))\n"
                    "os.system('env | sort')\n"},
    {"status",
        "print([l for l in open('/proc/self/status') if l.split(':')[0] in ('TracerPid', 'Threads',"
        "'NoNewPrivs', 'Seccomp', 'Seccomp_filters', 'SigQ', 'SigBlk', 'SigIgn', 'SigCgt', 'Uid',"
        "'Umask', 'CapEff', 'CapBnd')])\n"
        "import resource, stat, os\n"
        "print([resource.getrlimit(i) for i in range(16)], [stat.S_IFMT(os.fstat(i).st_mode) for i "
        "in range(3)])\n"},
    {"streams",
        "import sys\n"
        "print([(s.encoding, s.errors, s.line_buffering, s.write_through, s.isatty(), s.fileno()) "
        "for s in (sys.stdin, sys.stdout, sys.stderr)], repr(sys.stdin.read()))\n"
        "sys.stderr.write('err\\n'); sys.stdout.write('no newline')\n"},
    {"traceback", "def f(n):\n    return 1 / n\n\nf(0)\n"},
    {"chained", "try:\n    {}['a']\nexcept KeyError:\n    import nothing_like_it\n"},
    {"syntax", "print('never')\nx = (1,\n"},
    {"encoding", "# -*- coding: latin-1 -*-\nprint(len('\xe4'))\n"},
    {"nul", "print(1)\n\x01\n"},
    {"exit", "import sys, atexit\natexit.register(print, 'last')\nsys.exit(7)\n"},
    {"exit-text", "raise SystemExit('a reason')\n"},
    {"os-exit", "import os\nprint('x')\nos._exit(9)\n"},
    {"signal", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n"},
    {"interrupt", "raise KeyboardInterrupt\n"},
    {"handler", "import signal\nprint([signal.getsignal(s) for s in signal.valid_signals()])\n"},
    {"guard", "def main():\n    print('main')\n\nif __name__ == '__main__':\n    main()\n"},
    {"sibling", "import hello, sys\nprint(hello.__file__, hello.__cached__)\n"},
    {"processes",
        "import multiprocessing as m\n"
        "def f(n):\n    return n * n\n\n"
        "if __name__ == '__main__':\n"
        "    for how in ('fork', 'spawn'):\n"
        "        with m.get_context(how).Pool(2) as p:\n            print(p.map(f, [1, 2, 3]))\n"},
    {"threads",
        "import threading\nt = [threading.Thread(target=print, args=(i,)) for i in range(3)]\n"
        "for x in t:\n    x.start()\n    x.join()\nprint(threading.main_thread().name, "
        "threading.active_count())\n"},
    {"child", "import subprocess, sys\n"
              "print(subprocess.run([sys.executable, '-c', 'import os; "
              "print(os.environ[\"SILT_RUN\"])'], "
              "capture_output=True, text=True))\n"},
    {"trace",
        "import sys\nprint(sys.gettrace(), sys.getprofile(), sys.getrecursionlimit(), "
        "sys.excepthook)\n"
        "import inspect\nprint(len(inspect.stack()), [f.filename for f in inspect.stack()])\n"},
};
#define SCRIPTS (sizeof scripts / sizeof scripts[0])

/* The ids of objects differ from run to run anyhow, and so does what the kernel counts. */
static void drop_addresses(char *text)
{
    for (char *p = text; (p = strstr(p, " at 0x"));) {
        p += 6;
        while (isxdigit((unsigned char)*p))
            *p++ = '_';
    }
}

/* With everything run once before: the first to import a module writes its bytecode. */
static void write_scripts(struct fixture *f)
{
    static struct run r;
    char name[64];
    for (size_t i = 0; i < SCRIPTS; i++) {
        (void)snprintf(name, sizeof name, "%s.py", scripts[i].name);
        fixture_write(f, name, scripts[i].text, 0644);
    }
    run_how(f, COLD,
        (const char *const[]){"sh", "-c",
            "for i in *.py; do python3 $i >/dev/null 2>&1; done; python3 -m json.tool -h", NULL},
        env_now, &r);
}

static void compare(struct fixture *f, const char *const *argv, const char *what, enum how how)
{
    static struct run cold, got;
    run_how(f, COLD, argv, env_now, &cold);
    assert_false(cold.exit.prepared);
    drop_addresses(cold.out);
    run_how(f, how, argv, env_now, &got);
    drop_addresses(got.out);
    if (!got.exit.prepared || strcmp(got.out, cold.out) != 0 ||
        got.exit.exit_code != cold.exit.exit_code || got.exit.signal != cold.exit.signal ||
        strstr(got.out, RUN_MARK))
        fail_msg("%s (%s): prepared %d\n--- %d %d\n%s\n+++ %d %d\n%s", what,
            how == HASTY ? "hasty" : "held", got.exit.prepared, cold.exit.exit_code,
            cold.exit.signal, cold.out, got.exit.exit_code, got.exit.signal, got.out);
}

/* Each way to be let go meets each script as root, and some of them as an ordinary user. */
static void test_like_a_normal_start(void **state)
{
    size_t step = fixture_is_root(*state) ? 1 : 7;
    char name[64];
    write_scripts(*state);
    for (size_t i = 0; i < SCRIPTS; i += step) {
        (void)snprintf(name, sizeof name, "%s.py", scripts[i].name);
        compare(*state, (const char *const[]){"python3", name, "-x", "two words", NULL},
            scripts[i].name, i % 4 == 3 ? HASTY : PREPARED);
    }
}

static void test_options(void **state)
{
    static const char *const rows[][8] = {
        {"python3", "-O", "module.py", NULL},
        {"python3", "-I", "module.py", NULL},
        {"python3", "-X", "utf8=0", "-W", "error", "module.py", NULL},
        {"python3", "-v", "-u", "hello.py", NULL},
        {"python3", "-m", "hello", "arg", NULL},
        {"python3", "-m", "json.tool", "--help", NULL},
        {"python3", "missing.py", NULL},
        {"python3", ".", NULL},
    };
    size_t step = fixture_is_root(*state) ? 1 : 4;
    write_scripts(*state);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i += step)
        compare(*state, rows[i], rows[i][1], i % 2 ? HASTY : PREPARED);
}

/* What is saved after it was prepared is what it runs. */
static void test_sees_nothing_before(void **state)
{
    struct fixture *f = *state;
    char id[32], out[256];
    int pipes[2], null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    struct err e = ERR_INIT;
    struct container_exit exit;
    fixture_write(f, "late.py", "import other\n", 0644);
    fixture_write(f, "other.py", "print('old')\n", 0644);
    struct container_spec spec = fixture_spec(f, id);
    struct container *c = fixture_new(f, &spec);
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    struct container_process process = {.argv = (const char *const[]){"python3", "late.py", NULL},
        .env = env_then,
        .cwd = "/workspace",
        .stdin_fd = null,
        .stdout_fd = pipes[1],
        .stderr_fd = pipes[1]};
    assert_int_equal(container_prepare(c, &process, &e), 0);
    wait_held(f);
    fixture_write(f, "late.py", "import os, other\nprint(os.environ['SILT_RUN'])\n", 0644);
    fixture_write(f, "other.py", "print('new!')\n", 0644);
    process.stdin_fd = process.stdout_fd = process.stderr_fd = -1;
    process.env = env_now;
    assert_int_equal(container_start(c, &process, &e), 0);
    (void)close(pipes[1]);
    fixture_read_all(pipes[0], out, sizeof out);
    assert_int_equal(container_wait(c, &exit, &e), 0);
    assert_true(exit.prepared);
    assert_string_equal(out, "new!\n" RUN_ID "\n");
    container_free(c);
    (void)close(pipes[0]);
    (void)close(null);
}

/* Another program, argument, variable or length of the id: a new start, by the same descriptors. */
static void test_something_else_is_wanted(void **state)
{
    static const char *const other_env[] = {"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/cache/home",
        "LANG=C.UTF-8", "PYTHONUNBUFFERED=1", "PYTHONPYCACHEPREFIX=/cache/pyc", "SILT_RUN=" RUN_ID,
        "A=c", NULL};
    static const char *const long_id[] = {"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/cache/home",
        "LANG=C.UTF-8", "PYTHONUNBUFFERED=1", "PYTHONPYCACHEPREFIX=/cache/pyc",
        "SILT_RUN=" RUN_ID "x", "A=b", NULL};
    const struct {
        const char *const *argv, *const *env;
        const char *out;
    } rows[] = {
        {(const char *const[]){"python3", "e.py", "2", NULL}, env_now, "2 b " RUN_ID "\n"},
        {(const char *const[]){"python3", "e.py", NULL}, env_now, "e.py b " RUN_ID "\n"},
        {(const char *const[]){"python3", "e.py", "1", NULL}, other_env, "1 c " RUN_ID "\n"},
        {(const char *const[]){"python3", "e.py", "1", NULL}, long_id, "1 b " RUN_ID "x\n"},
        {(const char *const[]){"echo", "hello", NULL}, env_now, "hello\n"},
    };
    struct fixture *f = *state;
    fixture_write(f, "e.py",
        "import os, sys\nprint(sys.argv[-1], os.environ['A'], os.environ['SILT_RUN'])\n", 0644);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char id[32], out[4096];
        int pipes[2], null = open("/dev/null", O_RDONLY | O_CLOEXEC);
        struct err e = ERR_INIT;
        struct container_exit exit;
        struct container_spec spec = fixture_spec(f, id);
        struct container *c = fixture_new(f, &spec);
        assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
        struct container_process process = {
            .argv = (const char *const[]){"python3", "e.py", "1", NULL},
            .env = env_then,
            .cwd = "/workspace",
            .stdin_fd = null,
            .stdout_fd = pipes[1],
            .stderr_fd = pipes[1]};
        assert_int_equal(container_prepare(c, &process, &e), 0);
        assert_int_equal(container_prepare(c, &process, &e), -EALREADY);
        if (i % 2)
            wait_held(f);
        process.argv = rows[i].argv;
        process.env = rows[i].env;
        process.stdin_fd = process.stdout_fd = process.stderr_fd = -1;
        assert_int_equal(container_start(c, &process, &e), 0);
        (void)close(pipes[1]);
        fixture_read_all(pipes[0], out, sizeof out);
        assert_int_equal(container_wait(c, &exit, &e), 0);
        assert_string_equal(out, rows[i].out);
        assert_false(exit.prepared);
        container_free(c);
        (void)close(pipes[0]);
        (void)close(null);
    }
}

/* Programs that end, write or cannot be found before the workspace is touched are held as well. */
static void test_nothing_happens_before(void **state)
{
    static const char *const rows[][4] = {{"echo", "out", NULL}, {"true", NULL},
        {"no-such-program", NULL}, {"sh", "-c", "echo out; echo more", NULL},
        {"sleep", "1000", NULL}, {"date", NULL}};
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char id[32];
        int pipes[2], null = open("/dev/null", O_RDONLY | O_CLOEXEC);
        struct err e = ERR_INIT;
        struct container_spec spec = fixture_spec(f, id);
        struct container *c = fixture_new(f, &spec);
        assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
        const struct container_process process = {.argv = rows[i],
            .env = env_then,
            .cwd = "/workspace",
            .stdin_fd = null,
            .stdout_fd = pipes[1],
            .stderr_fd = pipes[1]};
        assert_int_equal(container_prepare(c, &process, &e), 0);
        if (strcmp(rows[i][0], "no-such-program") != 0)
            wait_held(f);
        (void)close(pipes[1]);
        struct pollfd quiet[] = {{pipes[0], POLLIN, 0}, {container_fd(c), POLLIN, 0}};
        assert_int_equal(poll(quiet, 2, 50), 0); /* nothing written, and the container waits */
        container_free(c);                       /* ends what waits */
        assert_false(one_stands(f->workspace));
        (void)close(pipes[0]);
        (void)close(null);
    }
}

static int all_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_like_a_normal_start, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_options, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_sees_nothing_before, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(
            test_something_else_is_wanted, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(
            test_nothing_happens_before, fixture_setup, fixture_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void)
{
    return fixture_main(all_tests);
}
