/* SPDX-License-Identifier: MIT */
#include "server/init_filter.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/ioprio.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "shared/banned.h"

/* Everything is allowed but what only serves to reach the kernel's
 * less trodden parts or another namespace; the list follows the spirit of Docker's default. */

#if defined(__x86_64__)
#define NATIVE_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define NATIVE_ARCH AUDIT_ARCH_AARCH64
#elif defined(__riscv) && __riscv_xlen == 64
#define NATIVE_ARCH AUDIT_ARCH_RISCV64
#else
#error "silt-init's filter knows x86-64, arm64 and riscv64: add this machine's AUDIT_ARCH"
#endif

#define NAMESPACE_FLAGS                                                                            \
    (CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS |     \
        CLONE_NEWCGROUP | 0x80 /* CLONE_NEWTIME */)

static const int denied[] = {
    SYS_acct,
    SYS_add_key,
    SYS_bpf,
    SYS_delete_module,
    SYS_fanotify_init,
    SYS_finit_module,
    SYS_fsconfig,
    SYS_fsmount,
    SYS_fsopen,
    SYS_fspick,
    SYS_init_module,
    SYS_io_uring_enter,
    SYS_io_uring_register,
    SYS_io_uring_setup,
    SYS_kexec_load,
    SYS_keyctl,
    SYS_mount,
    SYS_mount_setattr,
    SYS_move_mount,
    SYS_nfsservctl,
    SYS_open_by_handle_at,
    SYS_open_tree,
    SYS_perf_event_open,
    SYS_pivot_root,
    SYS_quotactl,
    SYS_quotactl_fd,
    SYS_reboot,
    SYS_request_key,
    SYS_setns,
    SYS_swapoff,
    SYS_swapon,
    SYS_syslog,
    SYS_umount2,
    SYS_userfaultfd,
    SYS_vhangup,
#ifdef SYS_kexec_file_load
    SYS_kexec_file_load,
#endif
#ifdef SYS_ioperm
    SYS_ioperm,
    SYS_iopl,
    SYS_uselib,
    SYS__sysctl,
#endif
};
#define DENIED_COUNT (sizeof denied / sizeof denied[0])

#define FIELD(name) ((uint32_t)offsetof(struct seccomp_data, name))
/* The low half of an argument on the little-endian machines above. */
#define ARG(n) ((uint32_t)(offsetof(struct seccomp_data, args) + 8 * (n)))
#define LOAD(offset) (struct sock_filter) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offset)
#define IF_EQUAL(value, yes, no)                                                                   \
    (struct sock_filter) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(value), yes, no)
#define IF_SET(bits, yes, no)                                                                      \
    (struct sock_filter) BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, (uint32_t)(bits), yes, no)
#define ALLOW (struct sock_filter) BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
#define FAIL(error) (struct sock_filter) BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (error))

/* Rules that look at arguments; the system call's number is loaded before each block and each block
 * either returns or falls through to the next one with something else loaded. */
static const struct sock_filter argument_rules[] = {
    /* clone3 hides its flags in memory: the C library falls back to clone */
    LOAD(FIELD(nr)),
    IF_EQUAL(SYS_clone3, 0, 1),
    FAIL(ENOSYS),
    IF_EQUAL(SYS_clone, 1, 0),
    IF_EQUAL(SYS_unshare, 0, 4),
    LOAD(ARG(0)),
    IF_SET(NAMESPACE_FLAGS, 0, 1),
    FAIL(EPERM),
    ALLOW,
    /* prlimit on another process would let the program starve process 1 */
    IF_EQUAL(SYS_prlimit64, 0, 4),
    LOAD(ARG(0)),
    IF_EQUAL(0, 1, 0),
    FAIL(EPERM),
    ALLOW,
    /* nor may it slow process 1 down, bind it to a processor or make it wait for one */
    IF_EQUAL(SYS_sched_setscheduler, 3, 0),
    IF_EQUAL(SYS_sched_setparam, 2, 0),
    IF_EQUAL(SYS_sched_setattr, 1, 0),
    IF_EQUAL(SYS_sched_setaffinity, 0, 4),
    LOAD(ARG(0)),
    IF_EQUAL(1, 0, 1),
    FAIL(EPERM),
    ALLOW,
    /* the same by priority; a whole group or user may include process 1 */
    IF_EQUAL(SYS_setpriority, 0, 2),
    LOAD(ARG(0)),
    IF_EQUAL(PRIO_PROCESS, 3, 5),
    IF_EQUAL(SYS_ioprio_set, 0, 6),
    LOAD(ARG(0)),
    IF_EQUAL(IOPRIO_WHO_PROCESS, 0, 2),
    LOAD(ARG(1)),
    IF_EQUAL(1, 0, 1),
    FAIL(EPERM),
    ALLOW,
    /* typing into a terminal that others read */
    IF_EQUAL(SYS_ioctl, 0, 5),
    LOAD(ARG(1)),
    IF_EQUAL(TIOCSTI, 1, 0),
    IF_EQUAL(TIOCLINUX, 0, 1),
    FAIL(EPERM),
    ALLOW,
    /* socket families: local, internet, and netlink's routes (getifaddrs) */
    IF_EQUAL(SYS_socket, 1, 0),
    ALLOW,
    LOAD(ARG(0)),
    IF_EQUAL(AF_UNIX, 5, 0),
    IF_EQUAL(AF_INET, 4, 0),
    IF_EQUAL(AF_INET6, 3, 0),
    IF_EQUAL(AF_NETLINK, 0, 3),
    LOAD(ARG(2)),
    IF_EQUAL(0, 0, 1),
    ALLOW,
    FAIL(EAFNOSUPPORT),
};
#define RULES_COUNT (sizeof argument_rules / sizeof argument_rules[0])

int filter_load(void)
{
    struct sock_filter code[8 + 2 * DENIED_COUNT + RULES_COUNT];
    unsigned short n = 0;
    code[n++] = LOAD(FIELD(arch));
    code[n++] = IF_EQUAL(NATIVE_ARCH, 1, 0);
    code[n++] = FAIL(ENOSYS);
    code[n++] = LOAD(FIELD(nr));
#if defined(__x86_64__)
    /* the x32 numbers would slip through the list below */
    code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1);
    code[n++] = FAIL(ENOSYS);
#endif
    for (size_t i = 0; i < DENIED_COUNT; i++) {
        code[n++] = IF_EQUAL(denied[i], 0, 1);
        code[n++] = FAIL(EPERM);
    }
    for (size_t i = 0; i < RULES_COUNT; i++)
        code[n++] = argument_rules[i];
    struct sock_fprog program = {.len = n, .filter = code};
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}
