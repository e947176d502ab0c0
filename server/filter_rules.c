/* SPDX-License-Identifier: MIT */
#include "server/filter_rules.h"

#include <errno.h>
#include <linux/ioprio.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "shared/banned.h"

#define NAMESPACE_FLAGS                                                                            \
    (CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS |     \
        CLONE_NEWCGROUP | 0x80 /* CLONE_NEWTIME */)

#define DENY(name)                                                                                 \
    {                                                                                              \
#name, SYS_##name, EPERM,                                                                  \
        {                                                                                          \
            {                                                                                      \
                0                                                                                  \
            }                                                                                      \
        }                                                                                          \
    }
#define CALL(name) #name, SYS_##name
#define IS(arg, value)                                                                             \
    {                                                                                              \
        FILTER_IS, arg, value, NULL, 0                                                             \
    }
#define IS_NOT(arg, value)                                                                         \
    {                                                                                              \
        FILTER_IS_NOT, arg, value, NULL, 0                                                         \
    }
#define HAS(arg, bits)                                                                             \
    {                                                                                              \
        FILTER_HAS, arg, bits, NULL, 0                                                             \
    }

/* Local, internet, and netlink's routes (getifaddrs). */
static const uint32_t families[] = {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK};

static const struct filter_rule rules[] = {
    DENY(acct),
    DENY(add_key),
    DENY(bpf),
    DENY(delete_module),
    DENY(fanotify_init),
    DENY(finit_module),
    DENY(fsconfig),
    DENY(fsmount),
    DENY(fsopen),
    DENY(fspick),
    DENY(init_module),
    DENY(io_uring_enter),
    DENY(io_uring_register),
    DENY(io_uring_setup),
    DENY(kexec_load),
    DENY(keyctl),
    DENY(mount),
    DENY(mount_setattr),
    DENY(move_mount),
    DENY(nfsservctl),
    DENY(open_by_handle_at),
    DENY(open_tree),
    DENY(perf_event_open),
    DENY(pivot_root),
    DENY(quotactl),
    DENY(quotactl_fd),
    DENY(reboot),
    DENY(request_key),
    DENY(setns),
    DENY(swapoff),
    DENY(swapon),
    DENY(syslog),
    DENY(umount2),
    DENY(userfaultfd),
    DENY(vhangup),
#ifdef SYS_kexec_file_load
    DENY(kexec_file_load),
#endif
#ifdef SYS_ioperm
    DENY(ioperm),
    DENY(iopl),
    DENY(uselib),
    DENY(_sysctl),
#endif
    /* clone3 hides its flags in memory: the C library falls back to clone */
    {CALL(clone3), ENOSYS, {{0}}},
    {CALL(clone), EPERM, {HAS(0, NAMESPACE_FLAGS)}},
    {CALL(unshare), EPERM, {HAS(0, NAMESPACE_FLAGS)}},
    /* prlimit on another process would let the program starve process 1 */
    {CALL(prlimit64), EPERM, {IS_NOT(0, 0)}},
    /* nor may it slow process 1 down, bind it to a processor or make it wait for one */
    {CALL(sched_setscheduler), EPERM, {IS(0, 1)}},
    {CALL(sched_setparam), EPERM, {IS(0, 1)}},
    {CALL(sched_setattr), EPERM, {IS(0, 1)}},
    {CALL(sched_setaffinity), EPERM, {IS(0, 1)}},
    /* the same by priority; a whole group or user may include process 1 */
    {CALL(setpriority), EPERM, {IS_NOT(0, PRIO_PROCESS)}},
    {CALL(setpriority), EPERM, {IS(1, 1)}},
    {CALL(ioprio_set), EPERM, {IS_NOT(0, IOPRIO_WHO_PROCESS)}},
    {CALL(ioprio_set), EPERM, {IS(1, 1)}},
    /* typing into a terminal that others read */
    {CALL(ioctl), EPERM, {IS(1, TIOCSTI)}},
    {CALL(ioctl), EPERM, {IS(1, TIOCLINUX)}},
    {CALL(socket), EAFNOSUPPORT,
        {{FILTER_NONE_OF, 0, 0, families, sizeof families / sizeof families[0]}}},
    {CALL(socket), EAFNOSUPPORT, {IS(0, AF_NETLINK), IS_NOT(2, 0)}},
};

const struct filter_rule *filter_rules(size_t *ret_count)
{
    *ret_count = sizeof rules / sizeof rules[0];
    return rules;
}
