/* SPDX-License-Identifier: MIT */
#include "tests/unit/container_fixture.h"

#include <poll.h>
#include <signal.h>

#include "server/warm.h"
#include "shared/io.h"

#include "shared/banned.h"

struct world {
    struct fixture *f;
    struct store *store;
    struct sandboxes *all;
    struct sandbox *sb, *other;
    struct warm *warm;
};

static const struct container_limits usual = {.memory_bytes = 128u << 20,
    .pids = 32,
    .open_files = 256,
    .file_bytes = 64u << 20,
    .tmp_bytes = 8u << 20};

static struct sandbox *new_sandbox(struct world *w)
{
    const struct sandbox_spec spec = {.image = "host"};
    struct sandbox *sb = NULL;
    struct err e = ERR_INIT;
    if (sandbox_create(w->all, &spec, &sb, &e) < 0)
        fail_msg("%s", e.msg);
    return sb;
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    struct err e = ERR_INIT;
    char db[96], data[96], work[96];
    void *fixture = NULL;
    assert_non_null(w);
    assert_int_equal(fixture_setup(&fixture), 0);
    w->f = fixture;
    (void)snprintf(db, sizeof db, "%s/db", w->f->base);
    (void)snprintf(data, sizeof data, "%s/data", w->f->base);
    (void)snprintf(work, sizeof work, "%s/data/workspaces", w->f->base);
    const struct sandboxes_config config = {.data_dir = data,
        .workspace_root = work,
        .root = geteuid() == 0,
        .uid_first = FIXTURE_UID,
        .uid_count = 100,
        .max_workspace_bytes = 1u << 20,
        .max_workspace_files = 100};
    struct sandboxes_config with_store = config;
    if (io_mkdirs(work, 0711, &e) < 0 || store_open(db, &w->store, &e) < 0)
        fail_msg("%s", e.msg);
    with_store.store = w->store;
    if (chmod(data, 0711) < 0 || sandboxes_open(&with_store, &w->all, &e) < 0)
        fail_msg("%s", e.msg);
    w->sb = new_sandbox(w);
    w->other = new_sandbox(w);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    void *fixture = w->f;
    warm_free(w->warm);
    sandbox_unref(w->sb);
    sandbox_unref(w->other);
    sandboxes_close(w->all);
    store_close(w->store);
    free(w);
    return fixture_teardown(&fixture);
}

static void begin(struct world *w, uint64_t max, uint64_t protected_ms)
{
    const struct warm_config config = {
        .engine = w->f->engine, .max = max, .age_ms = 600000, .protected_ms = protected_ms};
    struct err e = ERR_INIT;
    assert_int_equal(warm_new(&config, &w->warm, &e), 0);
}

static struct warm_stats stats(struct world *w)
{
    struct warm_stats s;
    warm_stats(w->warm, &s);
    return s;
}

/* Until `made` containers were made in all; what hangs fails. */
static void await_made(struct world *w, uint64_t made)
{
    for (int i = 0; i < 6000 && stats(w).made < made; i++)
        (void)poll(NULL, 0, 10);
    assert_int_equal(stats(w).made, made);
}

static struct container *take(
    struct world *w, struct sandbox *sb, const struct container_limits *limits)
{
    struct warm_got got;
    struct err e = ERR_INIT;
    assert_int_equal(warm_take(w->warm, sb, limits, "host", &got, &e), 0);
    assert_int_equal(got.out_read, -1);
    return got.container;
}

static void give_back(struct world *w, struct sandbox *sb, struct container *c)
{
    container_free(c);
    warm_done(w->warm, sb);
}

static void want(struct world *w, struct sandbox *sb)
{
    warm_want(w->warm, sb, &usual, "host");
}

static void test_is_handed_out_once(void **state)
{
    struct world *w = *state;
    struct container_exit ended;
    struct err e = ERR_INIT;
    char text[64];
    begin(w, 4, 1000);
    want(w, w->sb);
    want(w, w->sb);
    await_made(w, 1);
    struct container *c = take(w, w->sb, &usual);
    assert_non_null(c);
    assert_null(take(w, w->sb, &usual));    /* there was one */
    assert_null(take(w, w->other, &usual)); /* and it was not this one's */
    int out = fixture_start(c, (const char *const[]){"pwd", NULL}, "/workspace");
    fixture_read_all(out, text, sizeof text);
    assert_string_equal(text, "/workspace\n");
    assert_int_equal(container_wait(c, &ended, &e), 0);
    assert_int_equal(ended.exit_code, 0);
    (void)close(out);
    assert_true(warm_again(w->warm, w->sb));
    await_made(w, 2);
    give_back(w, w->sb, c);
    give_back(w, w->sb, NULL);
    give_back(w, w->other, NULL);
    assert_int_equal(stats(w).taken, 1);
    assert_int_equal(stats(w).waiting, 1);
}

/* Each row differs from the one before, which is what waits, in one point. */
/* The program of the last run is prepared in the next container, with pipes for its output. */
static void test_prepares_what_is_expected(void **state)
{
    struct world *w = *state;
    struct container_exit ended;
    struct warm_got got;
    struct err e = ERR_INIT;
    char text[64];
    const struct container_process process = {
        .argv = (const char *const[]){"python3", "-m", "platform", NULL},
        .env = (const char *const[]){"PATH=/usr/bin:/bin", "SILT_RUN=run_aaaaaaaaaaaaaaaa", NULL},
        .cwd = "/workspace",
        .stdin_fd = -1,
        .stdout_fd = -1,
        .stderr_fd = -1};
    const struct container_process nothing = {.argv = NULL};
    begin(w, 4, 1000);
    want(w, w->sb);
    await_made(w, 1);
    assert_int_equal(stats(w).prepared, 0); /* nobody knew */
    give_back(w, w->sb, take(w, w->sb, &usual));
    warm_expect(w->warm, w->sb, &process, false);
    want(w, w->sb);
    await_made(w, 2);
    assert_int_equal(stats(w).prepared, 1);
    assert_int_equal(warm_take(w->warm, w->sb, &usual, "host", &got, &e), 0);
    assert_true(got.container && got.out_read >= 0 && got.err_read >= 0);
    assert_int_equal(container_start(got.container, &process, &e), 0);
    struct pollfd p = {.fd = got.out_read, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 60000), 1);
    ssize_t n = read(got.out_read, text, sizeof text - 1);
    assert_true(n > 5 && memcmp(text, "Linux", 5) == 0);
    assert_int_equal(container_wait(got.container, &ended, &e), 0);
    assert_true(ended.prepared);
    (void)close(got.out_read);
    (void)close(got.err_read);
    give_back(w, w->sb, got.container);
    /* the last run was something else */
    warm_expect(w->warm, w->sb, &nothing, false);
    want(w, w->sb);
    await_made(w, 3);
    assert_int_equal(stats(w).prepared, 1);
}

static void test_other_limits_do_not_fit(void **state)
{
    struct world *w = *state;
    struct container_limits rows[6];
    const size_t count = sizeof rows / sizeof rows[0];
    for (size_t i = 0; i < count; i++) {
        rows[i] = usual;
        rows[i].memory_bytes++; /* memory */
        rows[i].pids += i >= 1; /* processes */
        rows[i].cpus += i >= 2; /* CPUs: 1 instead of all */
        rows[i].open_files += i >= 3;
        rows[i].file_bytes += i >= 4;
        rows[i].tmp_bytes += i >= 5;
    }
    begin(w, 4, 1000);
    want(w, w->sb);
    await_made(w, 1);
    for (size_t i = 0; i < count; i++) {
        assert_null(take(w, w->sb, &rows[i]));
        assert_int_equal(stats(w).discarded, i + 1);
        /* What is made then is like it. */
        assert_true(warm_again(w->warm, w->sb));
        await_made(w, i + 2);
        warm_done(w->warm, w->sb);
    }
    struct container *c = take(w, w->sb, &rows[count - 1]);
    assert_non_null(c);
    give_back(w, w->sb, c);
}

static void test_first_wish_is_needed(void **state)
{
    struct world *w = *state;
    begin(w, 4, 1000);
    assert_false(warm_again(w->warm, w->sb));
    assert_null(take(w, w->sb, &usual));
    warm_done(w->warm, w->sb);
    assert_true(warm_again(w->warm, w->sb));
    await_made(w, 1);
    /* A first idea does not replace what a run asked for. */
    struct container_limits more = usual;
    more.pids++;
    warm_want(w->warm, w->sb, &more, "host");
    struct container *c = take(w, w->sb, &usual);
    assert_non_null(c);
    give_back(w, w->sb, c);
}

static int parent_of(int pid, char comm[64])
{
    char path[64], text[512];
    int parent = -1;
    (void)snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    text[n > 0 ? n : 0] = '\0';
    if (fd >= 0)
        (void)close(fd);
    return sscanf(text, "%*d (%63[^)]) %*c %d", comm, &parent) == 2 ? parent : -1;
}

/* Process 1 of a container whose runtime is our child. */
static int find_init(void)
{
    char comm[64], ignored[64];
    DIR *d = opendir("/proc");
    int found = 0;
    for (struct dirent *e; d && (e = readdir(d));) {
        int pid = 0, parent;
        if (sscanf(e->d_name, "%d", &pid) == 1 && (parent = parent_of(pid, comm)) > 0 &&
            strcmp(comm, ".silt-init") == 0 && parent_of(parent, ignored) == (int)getpid())
            found = pid;
    }
    (void)closedir(d);
    return found;
}

static void test_dead_one_is_not_used(void **state)
{
    struct world *w = *state;
    begin(w, 4, 1000);
    want(w, w->sb);
    await_made(w, 1);
    int pid = find_init();
    assert_true(pid > 1);
    assert_int_equal(kill(pid, SIGKILL), 0);
    for (int i = 0; i < 6000 && find_init() == pid; i++)
        (void)poll(NULL, 0, 10);
    assert_null(take(w, w->sb, &usual));
    assert_int_equal(stats(w).discarded, 1);
    warm_done(w->warm, w->sb);
}

static void test_number_is_bounded(void **state)
{
    struct world *w = *state;
    begin(w, 1, 0);
    want(w, w->sb);
    await_made(w, 1);
    want(w, w->other); /* the other one gives way */
    await_made(w, 2);
    assert_int_equal(stats(w).waiting, 1);
    assert_int_equal(stats(w).removed, 1);
    assert_null(take(w, w->sb, &usual));
    warm_done(w->warm, w->sb);
}

static void test_recent_one_does_not_give_way(void **state)
{
    struct world *w = *state;
    begin(w, 1, UINT64_C(10) * 365 * 86400 * 1000); /* longer than any machine is up */
    want(w, w->sb);
    await_made(w, 1);
    want(w, w->other);
    assert_null(take(w, w->other, &usual));
    warm_done(w->warm, w->other);
    assert_int_equal(stats(w).removed, 0);
    struct container *c = take(w, w->sb, &usual);
    assert_non_null(c);
    give_back(w, w->sb, c);
}

static void test_switched_off(void **state)
{
    struct world *w = *state;
    begin(w, 0, 1000);
    want(w, w->sb);
    assert_true(warm_again(w->warm, w->sb)); /* nobody need work out a wish */
    assert_null(take(w, w->sb, &usual));
    warm_done(w->warm, w->sb);
    assert_int_equal(stats(w).made, 0);
}

static void test_nothing_is_left_of_a_deleted_one(void **state)
{
    struct world *w = *state;
    struct err e = ERR_INIT;
    begin(w, 4, 1000);
    want(w, w->sb);
    await_made(w, 1);
    assert_int_equal(sandbox_delete_begin(w->sb, &e), 0);
    warm_drop(w->warm, w->sb);
    assert_int_equal(stats(w).waiting, 0);
    assert_int_equal(find_init(), 0);
    /* Whoever asks too late gets nothing made. */
    want(w, w->sb);
    warm_drop(w->warm, w->sb);
    assert_int_equal(find_init(), 0);
    assert_int_equal(sandbox_delete(w->sb, &e), 0);
}

static void test_stop_removes_all(void **state)
{
    struct world *w = *state;
    begin(w, 4, 1000);
    want(w, w->sb);
    want(w, w->other);
    await_made(w, 2);
    warm_stop(w->warm);
    assert_int_equal(stats(w).waiting, 0);
    assert_int_equal(find_init(), 0);
    want(w, w->sb); /* refused without a word */
    assert_int_equal(stats(w).waiting, 0);
}

static int all_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_is_handed_out_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_prepares_what_is_expected, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_limits_do_not_fit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_first_wish_is_needed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dead_one_is_not_used, setup, teardown),
        cmocka_unit_test_setup_teardown(test_number_is_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_recent_one_does_not_give_way, setup, teardown),
        cmocka_unit_test_setup_teardown(test_switched_off, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nothing_is_left_of_a_deleted_one, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stop_removes_all, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void)
{
    return fixture_main(all_tests);
}
