/* SPDX-License-Identifier: MIT */
/*
 * The config.json of an OCI bundle, from values: pure, any thread. What every silt container has in
 * common stands here once: which namespaces are fresh, which file systems are mounted with which
 * flags, that exactly one uid and gid are mapped, and that no capability is left in any set.
 *
 * The seccomp filter is not part of it: silt-init loads it right before the program is executed, so
 * that it is the same under every runtime and costs nothing at start.
 */
#ifndef SERVER_OCI_H
#define SERVER_OCI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "shared/cleanup.h"

#define OCI_UID 1000 /* uid and gid inside; nothing else is mapped */
#define OCI_INIT_PATH                                                                              \
    "/dev/.silt-init" /* where the init program appears: /dev is a mount of ours in                \
                         every root, so nothing is created in an image */
#define OCI_TEXT_MAX (256 * 1024)

struct oci_rlimit {
    const char *name; /* "RLIMIT_NOFILE" */
    uint64_t value;   /* soft and hard */
};

struct oci_config {
    const char *root;  /* read-only root directory */
    bool root_mounted; /* it is a read-only mount already, and the runtime is to leave it at that */
    const char *hostname;
    const char *init; /* file bound to OCI_INIT_PATH and run as process 1. NULL: the program that
                         oci_set_program puts in is process 1 itself, under a runtime with a kernel
                         of its own, which makes what is in /dev */
    const char *workspace;  /* bound to /workspace, writable */
    const char *cache;      /* bound to /cache, writable */
    const char *sys;        /* directory bound read-only to /sys, or NULL */
    const char *cpu_online; /* file bound to /sys/devices/system/cpu/online, or NULL */
    uid_t host_uid;         /* what 1000 is outside (of the runtime's own user namespace) */
    gid_t host_gid;
    uint32_t root_id;      /* 0: root is not mapped. Otherwise what 0 is outside, for a runtime that
                              insists */
    const char *cgroup;    /* absolute cgroup path, or NULL: no limits by cgroup */
    uint64_t memory_bytes; /* 0: not limited by cgroup */
    enum oci_swap {
        OCI_SWAP_NONE,
        OCI_SWAP_LIMIT,
        OCI_SWAP_SWAPPINESS
    } swap;             /* how to forbid it */
    uint32_t pids;      /* 0: not limited by cgroup */
    const char *cpus;   /* cpuset list, or NULL */
    uint32_t cpu_time;  /* as much time as that many CPUs have, or 0: not limited by cgroup */
    uint64_t tmp_bytes; /* size of /tmp; /dev/shm gets half */
    int oom_score_adj;
    const struct oci_rlimit *rlimits;
    size_t rlimit_count;
    const char *const *masked;   /* NULL-terminated paths that must not be readable */
    const char *const *readonly; /* NULL-terminated */
};

/* malloc'd text. -EINVAL for a path or argument that JSON cannot hold (not UTF-8), -ENOMEM. */
int oci_config_text(const struct oci_config *c, char **ret) WARN_UNUSED;

/* A program for process 1 of a bundle that was written before it was known. */
struct oci_program {
    const char *const *argv, *const *env; /* NULL-terminated */
    const char *cwd;
};
/* The text of a bundle made by oci_config_text with this program in it; malloc'd. Errors as above.
 */
int oci_set_program(const char *text, const struct oci_program *program, char **ret) WARN_UNUSED;

#endif
