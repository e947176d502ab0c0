/* SPDX-License-Identifier: MIT */
/*
 * shared/tree_resolve: the way from a path to a descriptor against those who move things meanwhile,
 * in kernels that lack the calls or refuse them.
 */
#include "tests/unit/tree_fixture.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "shared/banned.h"

#define RACE_ROUNDS 2000        /* at least this many looks during a race ... */
#define RACE_SEEN 50            /* ... and this many of either outcome ... */
#define RACE_ROUNDS_MAX 5000000 /* ... or the race was none */

/* A root that was moved to where the kernel makes links that no path describes. */
static void magic_links_are_refused(void **state)
{
    static const char *const paths[] = {"exe", "cwd", "root", "root/etc", "fd/0", "ns/mnt"};
    struct fixture *f = *state;
    CLEANUP(tree_freep) struct tree *proc = NULL;
    int fd = -1;
    assert_int_equal(tree_open("/proc/self", &proc, &f->e), 0);
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        assert_int_equal(tree_open_file(proc, paths[i], &fd, NULL, &f->e), -ELOOP);
        assert_int_equal(tree_open_dir(proc, paths[i], &fd, &f->e), -ELOOP);
        assert_int_equal(tree_chmod(proc, paths[i], 0777, &f->e), -ELOOP);
    }
}

static int child_status(pid_t pid)
{
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

/* Names that path_check refuses never reach the kernel: "link/" would beat O_NOFOLLOW. */
static void unchecked_paths_abort(void **state)
{
    static const char *const paths[] = {
        "link/", "/etc/passwd", "..", "../outside/secret", "a/../../outside", ".", "a//b", "./a"};
    struct fixture *f = *state;
    assert_int_equal(symlinkat("../outside", f->root, "link"), 0);
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            const struct rlimit none = {0, 0};
            int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
            (void)dup2(null, STDERR_FILENO);
            (void)setrlimit(RLIMIT_CORE, &none);
            (void)signal(SIGABRT, SIG_DFL);
            _exit(try_dir(f, paths[i]) == 0);
        }
        int status = child_status(pid);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), SIGABRT);
    }
}

/* A real filter instead of the test switch: what a container manager's seccomp profile does. */
static void filtered_kernels_are_survived(void **state)
{
    static const unsigned codes[] = {ENOSYS, EPERM};
    struct fixture *f = *state;
    make_dir(f->root, "d");
    put(f->root, "d/f", "inside", 0);
    assert_int_equal(symlinkat("../outside", f->root, "link"), 0);
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            struct sock_filter code[] = {
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat2, 1, 0),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 452 /* fchmodat2 */, 0, 1),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | codes[i]),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
            };
            struct sock_fprog prog = {.len = sizeof(code) / sizeof(code[0]), .filter = code};
            if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
                prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) < 0)
                _exit(2);
            _exit(try_chmod(f, "d/f") != 0 || try_open(f, "d/f") != 0 ||
                  try_open(f, "link/secret") != -ELOOP || try_dir(f, "d") != 0);
        }
        assert_int_equal(child_status(pid), 0);
    }
    assert_int_equal(mode_of(f->root, "d/f"), 0755);
}

/*
 * The parent "d" is swapped for a symlink to outside/ all the time, and so is the leaf "leaf" by
 * another thread. Whatever we do must reach the inside or fail. The race counts only when both
 * outcomes were seen often.
 */
static void swapped_names_are_never_followed(void **state)
{
    static int (*const ops[])(struct fixture *, const char *) = {
        try_open, try_chmod, try_stat, try_mkdir, try_rmdir, try_symlink, try_unlink, try_parents};
    static const char *const paths[] = {
        "d/secret", "d/secret", "d/secret", "d/m", "d/m", "d/s", "d/s", "d/p/q"};
    struct fixture *f = *state;
    make_dir(f->root, "d");
    put(f->root, "d/secret", "inside", 0600);
    put(f->root, "leaf", "inside", 0600);
    assert_int_equal(symlinkat("../outside", f->root, "evil"), 0);
    assert_int_equal(symlinkat("../outside/secret", f->root, "evil-leaf"), 0);
    struct swapper parent = {.dir_fd = f->root, .a = "d", .b = "evil"};
    struct swapper leaf = {.dir_fd = f->root, .a = "leaf", .b = "evil-leaf"};
    swapper_start(&parent);
    swapper_start(&leaf);

    size_t fine = 0;
    size_t refused = 0;
    size_t strange = 0;
    for (size_t i = 0; i < RACE_ROUNDS_MAX; i++) {
        CLEANUP(fd_closep) int fd = -1;
        char text[8] = "";
        int r = tree_open_file(f->t, i % 2 ? "d/secret" : "leaf", &fd, NULL, &f->e);
        if (r == 0 && (io_read_full(fd, text, 6) != 6 || memcmp(text, "inside", 6) != 0))
            strange++;
        fine += r == 0;
        refused += r == -ELOOP;
        strange += r != 0 && r != -ELOOP;
        for (size_t k = 0; k < sizeof(ops) / sizeof(ops[0]); k++)
            (void)ops[k](f, paths[k]);
        (void)try_chmod(f, "leaf");
        if (i >= RACE_ROUNDS && fine >= RACE_SEEN && refused >= RACE_SEEN)
            break;
    }
    swapper_stop(&parent);
    swapper_stop(&leaf);
    assert_int_equal(strange, 0);
    assert_true(fine >= RACE_SEEN && refused >= RACE_SEEN);
    assert_outside_untouched(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(magic_links_are_refused),
        FIXTURE_TEST(unchecked_paths_abort),
        FIXTURE_TEST(filtered_kernels_are_survived),
        FIXTURE_TEST(swapped_names_are_never_followed),
    };
    return FIXTURE_RUN(tests);
}
