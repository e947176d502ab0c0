/* SPDX-License-Identifier: MIT */
/*
 * A server that applies change sets is killed at random moments. Whatever it had acknowledged must
 * be there afterwards, whole: that set's content or the next one's, never a mixture.
 */
#include "tests/unit/sandbox_fixture.h"

#include <dirent.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "shared/banned.h"

#define ROUNDS 24
#define FILES 40

/*
 * Set k gives every file the content "k <i>" and moves a directory to and fro, replaces another by
 * a file and back, and makes a new directory with what it holds: each kind of step takes part. A
 * set's content depends on k only, so that the parent can tell what must be there.
 */
struct set_k {
    struct row rows[FILES + 16];
    char paths[FILES][32], texts[FILES][32], moved[32];
    size_t count;
};

static void make_set(struct set_k *s, unsigned k)
{
    bool odd = k % 2;

    s->count = 0;
    for (size_t i = 0; i < FILES; i++) {
        (void)snprintf(s->paths[i], sizeof s->paths[i], i % 2 ? "f%zu" : "dir%zu/f", i);
        (void)snprintf(s->texts[i], sizeof s->texts[i], "%u %zu", k, i);
        s->rows[s->count++] = (struct row)PUT(s->paths[i], s->texts[i]);
    }
    if (k == 1) {
        s->rows[s->count++] = (struct row)PUT("even/in", "moves");
        s->rows[s->count++] = (struct row)PUT("swap/in", "a directory");
    }
    s->rows[s->count++] = odd ? (struct row)MOVE("even", "odd") : (struct row)MOVE("odd", "even");
    s->rows[s->count++] = odd ? (struct row)DELETE_TREE("swap") : (struct row)DELETE("swap");
    s->rows[s->count++] =
        odd ? (struct row)PUT("swap", "a file") : (struct row)PUT("swap/in", "a directory");
    s->rows[s->count++] = (struct row)PUT(odd ? "ta/x" : "tb/x", "new");
    s->rows[s->count++] = (struct row)PUT(odd ? "ta/s/y" : "tb/s/y", "new");
    s->rows[s->count++] = (struct row)DELETE_TREE(odd ? "tb" : "ta");
}

/* In the child: apply sets from `first` on, tell each that was acknowledged. */
static void serve(struct fixture *f, const char *id, unsigned first, int fd)
{
    static struct set_k set;

    fixture_open(f);
    if (sandbox_get(f->all, id, &f->sb, NULL) < 0)
        _exit(3);
    for (unsigned k = first;; k++) {
        struct changes_begin begin = {
            .client = "l.1", .seq = k, .parent = k - 1, .if_generation = CHANGES_NO_GENERATION};
        struct sandbox_apply_result res;
        struct err e = ERR_INIT;
        make_set(&set, k);
        if (apply_rows(f->sb, &begin, set.rows, set.count, &res, &e) < 0) {
            print_error("set %u: %s\n", k, e.msg);
            _exit(4);
        }
        sandbox_apply_result_release(&res);
        if (write(fd, &k, sizeof k) != sizeof k)
            _exit(5);
    }
}

/* Which set's content is there? Fails on a mixture. */
static unsigned read_state(const struct fixture *f)
{
    static struct set_k set;
    char name[512];
    struct buf b;
    unsigned k = 0;

    assert_int_equal(io_read_file(at(f, "f1", name), 100, &b, NULL), 0);
    assert_int_equal(sscanf(buf_str(&b), "%u", &k), 1);
    buf_release(&b);
    make_set(&set, k);
    for (size_t i = 0; i < FILES; i++) {
        if (!is_file(f, set.paths[i], set.texts[i]))
            fail_msg("set %u is there, but not its '%s'", k, set.paths[i]);
    }
    assert_true(is_file(f, k % 2 ? "odd/in" : "even/in", "moves"));
    assert_false(exists(f, k % 2 ? "even" : "odd"));
    assert_true(is_file(f, k % 2 ? "swap" : "swap/in", k % 2 ? "a file" : "a directory"));
    assert_true(is_file(f, k % 2 ? "ta/x" : "tb/x", "new"));
    assert_true(is_file(f, k % 2 ? "ta/s/y" : "tb/s/y", "new"));
    assert_false(exists(f, k % 2 ? "tb" : "ta"));
    return k;
}

/* Run a server until it dies; the last number that it acknowledged (0: none). */
static unsigned serve_and_kill(struct fixture *f, const char *id, unsigned first, unsigned delay_us)
{
    struct timespec delay = {.tv_nsec = (long)delay_us * 1000};
    int ends[2], status;
    unsigned k, last = 0;

    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        serve(f, id, first, ends[1]);
    (void)close(ends[1]);
    /* Let it begin, then strike. */
    if (read(ends[0], &k, sizeof k) == sizeof k)
        last = k;
    (void)nanosleep(&delay, NULL);
    (void)kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    while (read(ends[0], &k, sizeof k) == sizeof k)
        last = k;
    (void)close(ends[0]);
    return last;
}

static void test_kill(void **state)
{
    struct fixture f;
    struct sandbox_info info;
    char id[SANDBOX_ID_BYTES], epoch[40] = "";
    unsigned next = 1, killed_inside = 0;
    uint64_t generation = 0;
    struct err e = ERR_INIT;

    (void)state;
    fixture_init(&f);
    (void)snprintf(id, sizeof id, "%s", sandbox_id(f.sb));
    fixture_close(&f);
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned short random;
        io_random(&random, sizeof random);
        unsigned acked = serve_and_kill(&f, id, next, random % 20000);
        assert_true(acked >= next);
        fixture_open(&f);
        if (sandbox_get(f.all, id, &f.sb, &e) < 0)
            fail_msg("%s", e.msg);
        unsigned found = read_state(&f);
        assert_in_range(found, acked, acked + 1);
        killed_inside += found > acked;
        assert_int_equal(staging_entries(&f), 0);
        /* What the database knows is what is there: a scan at the first use has adopted it. */
        struct sandbox_mounts mounts;
        struct sandbox_run_changes changes;
        assert_int_equal(sandbox_run_enter(f.sb, &mounts, &e), 0);
        sandbox_mounts_release(&mounts);
        assert_int_equal(sandbox_run_leave(f.sb, &changes, &e), 0);
        assert_int_equal(changes.total, 0);
        sandbox_run_changes_release(&changes);
        assert_int_equal(sandbox_info(f.sb, &info, &e), 0);
        assert_true(info.generation > generation);
        assert_string_not_equal(info.epoch, epoch);
        generation = info.generation;
        memcpy(epoch, info.epoch, sizeof epoch);
        sandbox_info_release(&info);
        /* The numbers go on: an unacknowledged set that was finished counts as applied. */
        struct sandbox_apply_result res;
        static struct set_k set;
        struct changes_begin begin = {.client = "l.1",
            .seq = acked + 1,
            .parent = acked,
            .if_generation = CHANGES_NO_GENERATION};
        make_set(&set, acked + 1);
        assert_int_equal(apply_rows(f.sb, &begin, set.rows, set.count, &res, &e), 0);
        assert_int_equal(res.repeated, found > acked);
        sandbox_apply_result_release(&res);
        assert_int_equal(read_state(&f), acked + 1);
        next = acked + 2;
        fixture_close(&f);
    }
    print_message(
        "%u of %u kills fell between the intent and the acknowledgement\n", killed_inside, ROUNDS);
    f.all = NULL;
    fixture_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_kill)};

    /* Where files are made fast, more of a server's time goes into placing them. */
    if (!getenv("TMPDIR") && access("/dev/shm", W_OK) == 0)
        (void)setenv("TMPDIR", "/dev/shm", 1);

    return cmocka_run_group_tests(tests, NULL, NULL);
}
