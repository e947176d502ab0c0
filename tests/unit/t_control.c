/* SPDX-License-Identifier: MIT */
/* agent/control: a watcher's side in this process, commands in children. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/control.h"
#include "shared/tree.h"

#include "shared/banned.h"

/* Longer than a socket's address may be. */
#define DEEP                                                                                       \
    "/a-folder-with-a-long-name-0123456789/a-folder-with-a-long-name-0123456789/"                  \
    "a-folder-with-a-long-name-0123456789"

struct fixture {
    char dir[64];
    char root[300];
    int silt_fd;
    struct control *control;
    uint64_t late; /* a peer whose answer is put off */
};

static void make_dirs(const struct fixture *f)
{
    char path[310];
    (void)snprintf(path, sizeof(path), "%s/.silt", f->root);
    for (char *at = path + strlen(f->dir) + 1; (at = strchr(at, '/')) != NULL; at++) {
        *at = '\0';
        assert_true(mkdir(path, 0755) == 0 || errno == EEXIST);
        *at = '/';
    }
    assert_int_equal(mkdir(path, 0755), 0);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct err e = ERR_INIT;
    char path[310];
    assert_non_null(f);
    (void)snprintf(f->dir, sizeof(f->dir), "/tmp/t_control.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    (void)snprintf(f->root, sizeof(f->root), "%s%s", f->dir, DEEP);
    make_dirs(f);
    (void)snprintf(path, sizeof(path), "%s/.silt", f->root);
    f->silt_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(control_listen(f->silt_fd, &f->control, &e), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    struct err e = ERR_INIT;
    int tmp = open("/tmp", O_PATH | O_DIRECTORY | O_CLOEXEC);
    control_close(f->control);
    (void)close(f->silt_fd);
    assert_int_equal(tree_remove_at(tmp, strrchr(f->dir, '/') + 1, &e), 0);
    (void)close(tmp);
    free(f);
    return 0;
}

/* Send text as a request in a child; it exits with 0 if control_request returned `expected`. */
static pid_t ask(const struct fixture *f, const char *op, int expected)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    struct err e = ERR_INIT;
    json_t *answer = NULL, *request = json_pack("{s:s}", "op", op);
    int r = control_request(f->root, request, 5000, &answer, &e);
    bool ok = r == expected &&
              (r < 0 || strcmp(json_string_value(json_object_get(answer, "echo")), op) == 0);
    _exit(ok ? 0 : 1);
}

static void handle(void *ctx, uint64_t peer, const json_t *request)
{
    struct fixture *f = ctx;
    const char *op = json_string_value(json_object_get(request, "op"));
    if (strcmp(op, "late") == 0)
        f->late = peer;
    else if (strcmp(op, "fail") == 0)
        control_answer_error(f->control, peer, ENOTEMPTY, "a sentence");
    else
        control_answer(f->control, peer, json_pack("{s:s}", "echo", op));
}

static void serve(struct fixture *f)
{
    struct pollfd fds[CONTROL_PEERS_MAX + 1];
    unsigned count = control_fds(f->control, fds, CONTROL_PEERS_MAX + 1);
    assert_true(poll(fds, count, 20) >= 0);
    control_ready(f->control, fds, count, handle, f);
}

static void serve_until_exit(struct fixture *f, pid_t pid)
{
    int status = 0;
    while (waitpid(pid, &status, WNOHANG) == 0)
        serve(f);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_answers(void **state)
{
    struct fixture *f = *state;
    struct stat st;
    assert_int_equal(fstatat(f->silt_fd, CONTROL_SOCKET, &st, 0), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    serve_until_exit(f, ask(f, "hello", 0));
    serve_until_exit(f, ask(f, "fail", -ENOTEMPTY));
    /* One that waits does not keep another one waiting. */
    pid_t waits = ask(f, "late", 0);
    while (!f->late)
        serve(f);
    serve_until_exit(f, ask(f, "quick", 0));
    assert_true(control_has_peer(f->control, f->late));
    control_answer(f->control, f->late, json_pack("{s:s}", "echo", "late"));
    serve_until_exit(f, waits);
    /* An answer for one that has gone is nothing. */
    while (control_has_peer(f->control, f->late))
        serve(f);
    control_answer(f->control, f->late, json_pack("{s:s}", "echo", "late"));
}

static void test_nobody(void **state)
{
    struct fixture *f = *state;
    struct err e = ERR_INIT;
    json_t *answer = NULL, *request = json_pack("{s:s}", "op", "status");
    control_close(f->control);
    f->control = NULL;
    assert_int_equal(control_request(f->root, request, 1000, &answer, &e), -ENOENT);
    assert_non_null(strstr(e.msg, "silt watch"));
    /* Left by one that was killed: the folder holds a socket nobody listens at. */
    pid_t pid = fork();
    if (pid == 0)
        _exit(control_listen(f->silt_fd, &f->control, &e) < 0);
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(control_request(f->root, request, 1000, &answer, &e), -ECONNREFUSED);
    /* The next watcher takes its place. */
    assert_int_equal(control_listen(f->silt_fd, &f->control, &e), 0);
    serve_until_exit(f, ask(f, "hello", 0));
    json_decref(request);
}

/* Between poll's list and its result a peer may be found dead and closed: who comes in that moment gets
 * its descriptor's number, and what is reported for the dead one does not concern him. */
static void test_number_again(void **state)
{
    struct fixture *f = *state;
    struct pollfd fds[CONTROL_PEERS_MAX + 1];
    pid_t dies = ask(f, "late", 0);
    while (!f->late)
        serve(f);
    unsigned count = control_fds(f->control, fds, CONTROL_PEERS_MAX + 1);
    assert_int_equal(kill(dies, SIGKILL), 0);
    assert_int_equal(waitpid(dies, NULL, 0), dies);
    control_send_bytes(f->control, f->late, "x", 1);
    assert_false(control_has_peer(f->control, f->late));
    pid_t comes = ask(f, "hello", 0);
    do
        assert_true(poll(fds, count, 20) >= 0);
    while (!(fds[0].revents & POLLIN));
    control_ready(f->control, fds, count, handle, f);
    serve_until_exit(f, comes);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_answers),
        TEST(test_nobody),
        TEST(test_number_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
