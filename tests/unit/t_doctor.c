/* SPDX-License-Identifier: MIT */
/* siltd doctor's judgement, fed with machines that are not this one. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "server/doctor.h"

#include "shared/banned.h"

static struct doctor_facts good(void)
{
    const struct doctor_disk disk = {.path = "/var/lib",
        .fs = "ext4",
        .free_bytes = UINT64_C(1) << 33,
        .free_inodes = 1000000,
        .exchange = true,
        .tmpfile = true,
        .reflink = true,
        .quota = true,
        .nanoseconds = true};
    return (struct doctor_facts){.root = true,
        .kernel = "6.1.0-18-amd64",
        .userns_max = 15000,
        .cgroups = {CGROUP_V2, true, true, true, true, true},
        .cgroups_writable = true,
        .tick_ns = 4000000,
        .runtime = "crun",
        .runtime_error = "no container runtime", /* said only where there is no engine */
        .engine = "crun 1.8.1",
        .init = "/usr/libexec/silt/silt-init",
        .init_executable = true,
        .init_elf = true,
        .init_static = true,
        .tried = true,
        .language_count = 1,
        .languages = {{.name = "python", .program = "python3", .there = true}},
        .data = disk,
        .work = disk,
        .min_free_bytes = 1,
        .descriptors = 1 << 20,
        .descriptors_wanted = 5000,
        .listen = "127.0.0.1:7458",
        .prepares = true};
}

/* The row of one check; every other one must be fine (a later row may be left out). */
static struct doctor_row only(const struct doctor_facts *f, const char *check)
{
    static struct doctor_row rows[DOCTOR_ROWS_MAX];
    struct doctor_row found = {.check = NULL};
    size_t count = doctor_judge(f, rows);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(rows[i].check, check) == 0)
            found = rows[i];
        else if (rows[i].verdict != DOCTOR_OK)
            fail_msg("%s: %s, while %s was to be found", rows[i].check, rows[i].text, check);
        if (rows[i].verdict != DOCTOR_OK && (!*rows[i].cost || !*rows[i].mend))
            fail_msg("%s: no cost or nothing that mends it", rows[i].check);
        if (rows[i].verdict == DOCTOR_OK && (*rows[i].cost || *rows[i].mend))
            fail_msg("%s: fine, but with a cost", rows[i].check);
        assert_true(*rows[i].text);
    }
    return found;
}

static void test_good(void **state)
{
    (void)state;
    struct doctor_facts f = good();
    struct doctor_row row = only(&f, "kernel");
    assert_int_equal(row.verdict, DOCTOR_OK);
    assert_string_equal(row.text, "Linux 6.1.0-18-amd64");
}

#define FACT(member, ...)                                                                          \
    {                                                                                              \
        offsetof(struct doctor_facts, member), __VA_ARGS__                                         \
    }
enum kind { BOOL, INT, NUMBER, TEXT };

static void set(void *at, enum kind kind, uint64_t value, const char *text)
{
    if (kind == BOOL)
        *(bool *)at = value;
    else if (kind == INT)
        *(int *)at = (int)value;
    else if (kind == NUMBER)
        *(uint64_t *)at = value;
    else
        memcpy(at, text, strlen(text) + 1);
}

static void test_each(void **state)
{
    (void)state;
    /* One fact that differs from the good machine, and what is said about it. */
    static const struct {
        size_t at;
        enum kind kind;
        uint64_t value;
        const char *text;
        const char *check;
        enum doctor_verdict verdict;
        const char *says, *mends;
    } rows[] = {
        FACT(kernel, TEXT, 0, "5.10.0-28", "kernel", DOCTOR_FAIL, "5.10", "linux-image"),
        FACT(kernel, TEXT, 0, "5.12.0", "kernel", DOCTOR_WARN, "quotactl_fd", "linux-image"),
        FACT(kernel, TEXT, 0, "nonsense", "kernel", DOCTOR_FAIL, "nonsense", "linux-image"),
        FACT(openat2, INT, ENOSYS, NULL, "calls", DOCTOR_WARN, "openat2: missing", "linux-image"),
        FACT(pidfd, INT, ENOSYS, NULL, "calls", DOCTOR_FAIL, "pidfd_open: missing", "linux-image"),
        FACT(mounts, INT, EPERM, NULL, "calls", DOCTOR_FAIL, "refused", "seccomp=unconfined"),
        FACT(seccomp, INT, EINVAL, NULL, "seccomp", DOCTOR_FAIL, "Invalid", "linux-image"),
        FACT(ptrace_info, INT, EPERM, NULL, "ptrace", DOCTOR_WARN, "not permitted", "ptrace_scope"),
        FACT(namespaces_missing, TEXT, 0, "net", "namespaces", DOCTOR_FAIL, "net", "linux-image"),
        FACT(userns, INT, EPERM, NULL, "user ns", DOCTOR_FAIL, "not permitted", "--privileged"),
        FACT(capabilities_missing, TEXT, 0, "CAP_SYS_ADMIN", "user", DOCTOR_FAIL, "CAP_SYS_ADMIN",
            "CapabilityBoundingSet"),
        FACT(cgroups.version, INT, CGROUP_NONE, NULL, "cgroups", DOCTOR_WARN, "none",
            "mount -t cgroup2"),
        FACT(cgroups.memory, BOOL, false, NULL, "cgroups", DOCTOR_WARN, "without memory",
            "cgroup_enable=memory"),
        FACT(cgroups_writable, BOOL, false, NULL, "cgroups", DOCTOR_FAIL, "v2", "remount,rw"),
        FACT(engine, TEXT, 0, "", "runtime", DOCTOR_FAIL, "no container", "apt-get install crun"),
        FACT(engine, TEXT, 0, "crun 1.4.3", "runtime", DOCTOR_WARN, "CVE-2022-27650", "crun"),
        FACT(engine, TEXT, 0, "runc 1.1.11", "runtime", DOCTOR_WARN, "CVE-2024-21626", "runc"),
        FACT(engine, TEXT, 0, "runc 1.1.12", "runtime", DOCTOR_OK, "runc 1.1.12", ""),
        FACT(engine, TEXT, 0, "runc 1.2.0", "runtime", DOCTOR_OK, "runc 1.2.0", ""),
        /* mended by the distributor, which the number does not tell */
        FACT(engine, TEXT, 0, "runc 1.1.5+ds1", "runtime", DOCTOR_OK, "runc", ""),
        FACT(init_error, INT, ENOENT, NULL, "silt-init", DOCTOR_FAIL, "No such", "make install"),
        FACT(
            init_static, BOOL, false, NULL, "silt-init", DOCTOR_FAIL, "not static", "make install"),
        FACT(init_elf, BOOL, false, NULL, "silt-init", DOCTOR_FAIL, "no program", "make install"),
        FACT(init_executable, BOOL, false, NULL, "silt-init", DOCTOR_FAIL, "executable",
            "chmod 755"),
        FACT(trial_error, TEXT, 0, "it broke", "container", DOCTOR_FAIL, "it broke", "above"),
        FACT(languages[0].there, BOOL, false, NULL, "languages", DOCTOR_WARN, "not there: python",
            "apt-get install python3"),
        FACT(languages[0].version, TEXT, 0, "3.11.2", "languages", DOCTOR_OK, "python 3.11.2", ""),
        FACT(data.error, TEXT, 0, "no room", "data", DOCTOR_FAIL, "no room", "--data-dir"),
        FACT(work.free_bytes, NUMBER, 0, NULL, "data", DOCTOR_WARN, "0 B free", "--data-dir"),
        FACT(data.free_inodes, NUMBER, 10, NULL, "data", DOCTOR_WARN, "for 10 files", "--data-dir"),
        FACT(data.remote, BOOL, true, NULL, "data", DOCTOR_WARN, "/var/lib is", "local disk"),
        FACT(work.exchange, BOOL, false, NULL, "files", DOCTOR_WARN, "RENAME_EXCHANGE", "ext4"),
        FACT(data.tmpfile, BOOL, false, NULL, "files", DOCTOR_FAIL, "O_TMPFILE", "ext4"),
        FACT(work.reflink, BOOL, false, NULL, "copies", DOCTOR_OK, "no reflink", ""),
        FACT(work.quota, BOOL, false, NULL, "quota", DOCTOR_WARN, "by project", "tune2fs"),
        FACT(work.nanoseconds, BOOL, false, NULL, "clock", DOCTOR_WARN, "whole seconds", "ext4"),
        FACT(tick_ns, NUMBER, 20000000, NULL, "clock", DOCTOR_WARN, "20 ms", "linux-image"),
        FACT(
            descriptors, NUMBER, 1024, NULL, "open files", DOCTOR_WARN, "1024", "LimitNOFILE=5000"),
        FACT(port_error, INT, EADDRINUSE, NULL, "address", DOCTOR_FAIL, "in use", "ss -ltnp"),
        FACT(port_error, INT, EACCES, NULL, "address", DOCTOR_FAIL, "denied", "port_start=7458,"),
        FACT(access_error, TEXT, 0, "needs a token", "access", DOCTOR_FAIL, "needs a token",
            "--token-file"),
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct doctor_facts f = good();
        void *at = (char *)&f + rows[i].at;
        set(at, rows[i].kind, rows[i].value, rows[i].text);
        if (strcmp(rows[i].check, "runtime") == 0 && !*rows[i].text)
            f.runtime_errno = ENOENT;
        struct doctor_row row = only(&f, rows[i].check);
        if (row.verdict != rows[i].verdict || !strstr(row.text, rows[i].says) ||
            !strstr(row.mend, rows[i].mends))
            fail_msg("row %zu: verdict %d, '%s', mend '%s'", i, row.verdict, row.text, row.mend);
        assert_int_equal(doctor_failed(&row, 1), rows[i].verdict == DOCTOR_FAIL);
    }
}

/* What takes user namespaces from an ordinary user, each with its own line. */
static void test_userns(void **state)
{
    (void)state;
    static struct doctor_row rows[DOCTOR_ROWS_MAX];
    struct doctor_facts f = good();
    f.root = false;
    f.userns = EPERM;
    f.userns_clone_off = true;
    (void)doctor_judge(&f, rows);
    assert_string_equal(rows[0].check, "user");
    assert_int_equal(rows[0].verdict, DOCTOR_WARN); /* what being ordinary costs */
    assert_string_equal(rows[4].mend, "sysctl -w kernel.unprivileged_userns_clone=1");
    f.userns_clone_off = false;
    f.userns_apparmor = true;
    (void)doctor_judge(&f, rows);
    assert_string_equal(rows[4].mend, "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0");
    f.userns_max = 0;
    (void)doctor_judge(&f, rows);
    assert_string_equal(rows[4].mend, "sysctl -w user.max_user_namespaces=15000");
}

/* An ordinary user's cgroup: what is said of each state, and what mends it. */
static void test_own_cgroup(void **state)
{
    (void)state;
    static const struct {
        struct cgroup_own own;
        enum doctor_verdict verdict;
        const char *says, *mends;
    } states[] = {
        {{.memory = true, .pids = true, .cpuset = true}, DOCTOR_OK, "memory, pids, cpuset", ""},
        {{.memory = true, .pids = true, .cpu = true}, DOCTOR_OK, "this user: memory, pids, cpu", ""},
        {{.pids = true, .cpu = true}, DOCTOR_WARN, "without memory", "user@.service.d"},
        {{.state = CGROUP_OWN_OTHER_VERSION}, DOCTOR_WARN, "version 2", "unified_cgroup_hierarchy"},
        {{.state = CGROUP_OWN_FOREIGN}, DOCTOR_WARN, "not given", "-p Delegate=yes siltd"},
        {{.state = CGROUP_OWN_SHARED}, DOCTOR_WARN, "other processes", "systemd-run --user --scope"},
        {{.state = CGROUP_OWN_BARE}, DOCTOR_WARN, "no controller", "user@.service.d"},
        {{.state = CGROUP_OWN_ODD}, DOCTOR_WARN, "cannot be made out", "Delegate=yes"},
    };
    /* Root needs one where it lives in what looks like the root of all. */
    struct doctor_facts boxed = good();
    boxed.own.state = CGROUP_OWN_SHARED;
    assert_int_equal(only(&boxed, "cgroups").verdict, DOCTOR_OK);
    boxed.cgroups_false_root = true;
    assert_int_equal(only(&boxed, "cgroups").verdict, DOCTOR_WARN);
    assert_non_null(strstr(only(&boxed, "cgroups").mend, "only process of the container"));
    for (size_t i = 0; i < sizeof states / sizeof states[0]; i++) {
        static struct doctor_row rows[DOCTOR_ROWS_MAX];
        struct doctor_facts f = good();
        f.root = false;
        f.own = states[i].own;
        (void)doctor_judge(&f, rows);
        const struct doctor_row *row = &rows[7];
        assert_string_equal(row->check, "cgroups");
        if (row->verdict != states[i].verdict || !strstr(row->text, states[i].says) ||
            !strstr(row->mend, states[i].mends) || (*row->mend == '\0') != (*row->cost == '\0'))
            fail_msg("%zu: %s / %s", i, row->text, row->mend);
    }
}

/* One that is not there is installed; one that does not suit here is replaced. */
static void test_runtime(void **state)
{
    (void)state;
    struct doctor_facts f = good();
    f.engine[0] = '\0';
    memcpy(f.runtime, "runc", 5);
    f.runtime_errno = ENOENT;
    assert_string_equal(only(&f, "runtime").mend, "apt-get install runc");
    f.runtime_errno = EINVAL;
    assert_string_equal(only(&f, "runtime").mend, "apt-get install crun && siltd --runtime crun");
    memcpy(f.runtime, "runsc", 6);
    f.runtime_errno = ENOENT;
    assert_string_equal(only(&f, "runtime").mend, "apt-get install runsc");
    f.runtime_errno = EPERM; /* of the mounts beneath it: installing helps nobody */
    assert_null(strstr(only(&f, "runtime").mend, "apt-get"));
    (void)snprintf(f.engine, sizeof f.engine, "runsc 0.0");
    f.docker = true;
    assert_non_null(strstr(only(&f, "images").text, "docker's image"));
    f.engine[0] = '\0';
    f.runtime_errno = ECONNREFUSED;
    assert_non_null(strstr(only(&f, "runtime").mend, "--docker-socket"));
    f.docker = false;
    (void)snprintf(f.engine, sizeof f.engine, "runsc 0.0");
    f.engine_cold = true; /* what it cannot do is said */
    assert_int_equal(only(&f, "runtime").verdict, DOCTOR_OK);
    assert_non_null(strstr(only(&f, "runtime").text, "limits of memory and processes are loose"));
}

/* A port that this data directory's own server has is no fault; what cannot be tried says nothing.
 */
static void test_left_out(void **state)
{
    (void)state;
    struct doctor_facts f = good();
    f.port_error = EADDRINUSE;
    f.served = true;
    assert_int_equal(only(&f, "address").verdict, DOCTOR_OK);
    f.tried = false;
    f.language_count = 0;
    assert_null(only(&f, "container").check);
    assert_null(only(&f, "languages").check);
}

static void test_print(void **state)
{
    (void)state;
    const struct doctor_row rows[] = {{"kernel", DOCTOR_OK, "Linux \"6\"", "", ""},
        {"runtime", DOCTOR_FAIL, "none", "no runs", "apt-get install crun"}};
    CLEANUP(buf_release) struct buf b;
    buf_init(&b, 4096);
    assert_int_equal(doctor_print(rows, 2, false, &b), 0);
    assert_string_equal(buf_str(&b), "ok    kernel      Linux \"6\"\n"
                                     "BAD   runtime     none\n"
                                     "                  cost: no runs\n"
                                     "                  mend: apt-get install crun\n");
    buf_reset(&b);
    assert_int_equal(doctor_print(rows, 2, true, &b), 0);
    json_t *all = json_loads(buf_str(&b), 0, NULL);
    assert_false(json_is_true(json_object_get(all, "good")));
    json_t *second = json_array_get(json_object_get(all, "checks"), 1);
    assert_string_equal(json_string_value(json_object_get(second, "verdict")), "fail");
    assert_string_equal(json_string_value(json_object_get(second, "mend")), "apt-get install crun");
    json_decref(all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_each),
        cmocka_unit_test(test_userns),
        cmocka_unit_test(test_own_cgroup),
        cmocka_unit_test(test_runtime),
        cmocka_unit_test(test_left_out),
        cmocka_unit_test(test_print),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
