/* SPDX-License-Identifier: MIT */
/* What the kernel offers and allows, judged. Pure. */
#include "server/doctor_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "shared/banned.h"

#define NEWER_KERNEL "apt-get install linux-image-amd64 && reboot"
#define UNIFIED                                                                                    \
    "add cgroup_enable=memory systemd.unified_cgroup_hierarchy=1 to GRUB_CMDLINE_LINUX in "        \
    "/etc/default/grub, then update-grub && reboot"
#define OWN_CGROUP CGROUP_OWN_COMMAND " siltd, or Delegate=yes in its systemd service"
#define STAMP_DOUBT_NS UINT64_C(10000000) /* younger time stamps are not believed (scan.c) */

bool doctor_host_user(const struct doctor_facts *f, struct doctor_row *row)
{
    if (!f->root) {
        doctor_bad(row, DOCTOR_WARN,
            "all sandboxes are the same host user, the disk's limit is soft", "an ordinary user");
        return doctor_mend(row, "run siltd as root: sudo siltd");
    }
    if (*f->capabilities_missing) {
        doctor_bad(row, DOCTOR_FAIL, "containers and files of sandboxes cannot be made",
            "root without %s", f->capabilities_missing);
        return doctor_mend(row,
            "take CapabilityBoundingSet= out of the service, or start the surrounding container "
            "with --privileged");
    }
    return doctor_ok(row, "root: a user id per sandbox, limits per container");
}

bool doctor_host_kernel(const struct doctor_facts *f, struct doctor_row *row)
{
    unsigned major = 0, minor = 0;
    (void)sscanf(f->kernel, "%u.%u", &major, &minor);
    if (major < 5 || (major == 5 && minor < 12)) {
        doctor_bad(row, DOCTOR_FAIL, "no container can be made",
            "Linux %s: 5.12 is the oldest that has mount_setattr", f->kernel);
        return doctor_mend(row, NEWER_KERNEL);
    }
    if (major == 5 && minor < 14) {
        doctor_bad(row, DOCTOR_WARN, "the limit of a sandbox's disk space is soft",
            "Linux %s: quotactl_fd came with 5.14", f->kernel);
        return doctor_mend(row, NEWER_KERNEL);
    }
    return doctor_ok(row, "Linux %s", f->kernel);
}

bool doctor_host_calls(const struct doctor_facts *f, struct doctor_row *row)
{
    const struct {
        const char *name;
        int error;
    } calls[] = {{"openat2", f->openat2}, {"pidfd_open", f->pidfd}, {"open_tree", f->mounts}};
    char missing[DOCTOR_NAMES_BYTES] = "";
    bool refused = false;
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        if (calls[i].error)
            doctor_list(missing, sizeof missing, calls[i].name);
        refused |= calls[i].error == EPERM;
    }
    if (!*missing)
        return doctor_ok(row, "openat2, pidfd_open, open_tree");
    /* Files have a way without openat2 (shared/tree_resolve.c); containers have none without the
     * others. */
    bool containers = !f->pidfd && !f->mounts;
    doctor_bad(row, containers ? DOCTOR_WARN : DOCTOR_FAIL,
        containers ? "paths are walked name by name, which is slower; programs of images are not "
                     "found"
                   : "no container can be made",
        "%s: %s", missing, refused ? "refused by a system call filter" : "missing");
    return doctor_mend(row, "%s",
        refused ? "start the container around siltd with --security-opt seccomp=unconfined"
                : NEWER_KERNEL);
}

bool doctor_host_namespaces(const struct doctor_facts *f, struct doctor_row *row)
{
    if (!*f->namespaces_missing)
        return doctor_ok(row, "user, mnt, pid, net, ipc, uts, cgroup");
    doctor_bad(row, DOCTOR_FAIL, "no container can be made", "this kernel was built without: %s",
        f->namespaces_missing);
    return doctor_mend(row, NEWER_KERNEL);
}

bool doctor_host_userns(const struct doctor_facts *f, struct doctor_row *row)
{
    if (!f->userns)
        return doctor_ok(row, "may be made by this user");
    doctor_bad(
        row, DOCTOR_FAIL, "no container can be made", "cannot be made: %s", strerror(f->userns));
    if (f->userns_max == 0)
        return doctor_mend(row, "sysctl -w user.max_user_namespaces=15000");
    if (!f->root && f->userns_clone_off)
        return doctor_mend(row, "sysctl -w kernel.unprivileged_userns_clone=1");
    if (!f->root && f->userns_apparmor)
        return doctor_mend(row, "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0");
    return doctor_mend(
        row, "start the container around siltd with --privileged, or run siltd outside of it");
}

bool doctor_host_seccomp(const struct doctor_facts *f, struct doctor_row *row)
{
    if (!f->seccomp)
        return doctor_ok(row, "filters work");
    doctor_bad(row, DOCTOR_FAIL, "silt-init loads a filter before each program and gives up",
        "no filters: %s", strerror(f->seccomp));
    return doctor_mend(row, NEWER_KERNEL);
}

bool doctor_host_ptrace(const struct doctor_facts *f, struct doctor_row *row)
{
    if (!f->prepares)
        return doctor_ok(row, "not used: no language is prepared");
    if (!f->ptrace_info)
        return doctor_ok(
            row, "PTRACE_GET_SYSCALL_INFO works: interpreters start ahead of their run");
    doctor_bad(row, DOCTOR_WARN, "interpreters are not started ahead of their run",
        "PTRACE_GET_SYSCALL_INFO: %s", strerror(f->ptrace_info));
    return doctor_mend(row, "sysctl -w kernel.yama.ptrace_scope=1");
}

/* What is missing among memory, pids and cpuset; the CPU time that a container used. */
static void list_controllers(const struct cgroup_host *c, bool there, char *list, size_t size)
{
    const struct {
        const char *name;
        bool there;
    } all[] = {
        {"memory", c->memory}, {"pids", c->pids}, {"cpuset", c->cpuset}, {"cpuacct", c->cpu_usage}};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (all[i].there == there)
            doctor_list(list, size, all[i].name);
    }
}

/* An ordinary user's: what stands in the way has a command that mends it. */
static bool judge_own_cgroup(const struct cgroup_own *own, struct doctor_row *row)
{
    static const char *const mends[] = {
        [CGROUP_OWN_OTHER_VERSION] = UNIFIED,
        [CGROUP_OWN_FOREIGN] = OWN_CGROUP,
        [CGROUP_OWN_SHARED] = OWN_CGROUP,
        [CGROUP_OWN_BARE] =
            "as root: mkdir -p /etc/systemd/system/user@.service.d; printf '[Service]\\nDelegate=cpu "
            "cpuset memory pids\\n' > /etc/systemd/system/user@.service.d/delegate.conf; systemctl "
            "daemon-reload; then log in again",
        [CGROUP_OWN_ODD] = OWN_CGROUP,
    };
    const struct {
        const char *name;
        bool there, needed;
    } all[] = {{"memory", own->memory, true}, {"pids", own->pids, true},
        {"cpuset", own->cpuset, false}, {"cpu", own->cpu, false}};
    char have[64] = "", lack[64] = "";
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (all[i].there)
            doctor_list(have, sizeof have, all[i].name);
        else if (all[i].needed)
            doctor_list(lack, sizeof lack, all[i].name);
    }
    if (own->state == CGROUP_OWN_USABLE && own->memory && own->pids)
        return doctor_ok(row, "v2, given to this user: %s", have);
    if (own->state == CGROUP_OWN_USABLE) {
        doctor_bad(row, DOCTOR_WARN, "a limit that has no controller holds per process only",
            "v2, given to this user: %s, without %s", have, lack);
        return doctor_mend(row, "%s", mends[CGROUP_OWN_BARE]);
    }
    doctor_bad(row, DOCTOR_WARN, "memory is limited per process, not per container",
        "not used: %s", cgroup_own_reason(own->state));
    return doctor_mend(row, "%s", mends[own->state]);
}

bool doctor_host_cgroups(const struct doctor_facts *f, struct doctor_row *row)
{
    const struct cgroup_host *c = &f->cgroups;
    char have[64] = "", lack[64] = "";
    if (!f->root)
        return judge_own_cgroup(&f->own, row);
    if (c->version == CGROUP_NONE) {
        doctor_bad(row, DOCTOR_WARN, "memory and processes are limited per process and user only",
            "none at /sys/fs/cgroup");
        return doctor_mend(row, "mount -t cgroup2 none /sys/fs/cgroup");
    }
    if (f->cgroups_false_root && f->own.state != CGROUP_OWN_USABLE) {
        doctor_bad(row, DOCTOR_WARN, "memory and processes are limited per process and user only",
            "not used: %s", cgroup_own_reason(f->own.state));
        return doctor_mend(row, "let siltd be the only process of the container that it is in");
    }
    list_controllers(c, true, have, sizeof have);
    list_controllers(c, false, lack, sizeof lack);
    const char *name = cgroup_version_name(c->version);
    if (!f->cgroups_writable) {
        doctor_bad(row, DOCTOR_FAIL, "the runtime cannot make a container's cgroup",
            "%s, and no cgroup can be made in it", name);
        return doctor_mend(row, "mount -o remount,rw /sys/fs/cgroup");
    }
    if (*lack) {
        doctor_bad(row, DOCTOR_WARN,
            c->memory && c->pids ? "CPUs are limited by affinity, CPU time is the program's own sum"
                                 : "a limit that has no controller holds per process only",
            "%s with %s, without %s", name, *have ? have : "nothing", lack);
        return doctor_mend(row, UNIFIED);
    }
    return doctor_ok(row, "%s%s with %s", name, f->cgroups_hybrid ? " (hybrid)" : "", have);
}

bool doctor_host_clock(const struct doctor_facts *f, struct doctor_row *row)
{
    double ms = (double)f->tick_ns / 1e6;
    if (*f->work.error == '\0' && !f->work.nanoseconds) {
        doctor_bad(row, DOCTOR_WARN,
            "a program's second write within a second can be missed by the look after a run",
            "%s keeps whole seconds of a file's time", f->work.fs);
        return doctor_mend(row, "put workspace_root on ext4, XFS or btrfs: siltd --workspace-root");
    }
    if (f->tick_ns > STAMP_DOUBT_NS) {
        doctor_bad(row, DOCTOR_WARN,
            "a program's second write within a tick can be missed by the look after a run",
            "files' times move in ticks of %.0f ms", ms);
        return doctor_mend(row, NEWER_KERNEL " (Debian's ticks are 4 ms)");
    }
    return doctor_ok(row, "files' times have nanoseconds and move in ticks of %.0f ms", ms);
}

bool doctor_host_descriptors(const struct doctor_facts *f, struct doctor_row *row)
{
    if (f->descriptors >= f->descriptors_wanted)
        return doctor_ok(
            row, "%" PRIu64 " allowed, %" PRIu64 " wanted", f->descriptors, f->descriptors_wanted);
    doctor_bad(row, DOCTOR_WARN, "connections and runs are refused before the settings' limits",
        "%" PRIu64 " allowed, these settings can need %" PRIu64, f->descriptors,
        f->descriptors_wanted);
    return doctor_mend(row,
        "ulimit -n %" PRIu64 " as root, or LimitNOFILE=%" PRIu64 " in the service",
        f->descriptors_wanted, f->descriptors_wanted);
}
