/* SPDX-License-Identifier: MIT */
/*
 * `siltd doctor`: does this machine have what siltd needs with these settings? Probing and judging
 * are apart: doctor_probe fills a struct of plain facts, doctor_judge turns facts into rows without
 * touching anything, so that a test can feed it a machine that it does not have.
 *
 *     doctor_probe(config, &facts)                  // starts containers; removes what it made
 *     doctor_judge(&facts, rows)                    // pure
 *     doctor_print(rows, count, json, &text)        // pure
 *
 * A server that serves from the same data directory is not disturbed. One thread.
 */
#ifndef SERVER_DOCTOR_H
#define SERVER_DOCTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/cgroup_own.h"
#include "server/config.h"
#include "server/runtimes.h"
#include "shared/buf.h"

#define DOCTOR_ROWS_MAX 24
#define DOCTOR_LANGUAGES_MAX 16
#define DOCTOR_NAMES_BYTES 256

/* A folder, or the nearest one above it that exists: siltd makes the rest. Where `error` is set the
 * other members say nothing. */
struct doctor_disk {
    char path[256];
    char error[256];                  /* a sentence; "": files can be made there */
    char fs[24];                      /* "ext4", "0x1234" when unknown */
    bool remote;                      /* NFS and the like */
    uint64_t free_bytes, free_inodes; /* free_inodes UINT64_MAX: not limited */
    bool exchange, tmpfile, reflink, quota, nanoseconds;
};

struct doctor_facts {
    bool root;
    char kernel[65]; /* "6.1.0-18-amd64" */
    /* Errors of harmless calls, 0: it works. */
    int openat2, pidfd, mounts, seccomp, ptrace_info, userns;
    char namespaces_missing[DOCTOR_NAMES_BYTES];   /* "net, cgroup" or "" */
    uint64_t userns_max;                           /* user.max_user_namespaces */
    bool userns_clone_off, userns_apparmor;        /* sysctls that take them from ordinary users */
    char capabilities_missing[DOCTOR_NAMES_BYTES]; /* of those that root's siltd uses */
    struct cgroup_host cgroups;                    /* as root */
    struct cgroup_own own;                         /* as an ordinary user, and where … */
    bool cgroups_false_root;                       /* root lives in a cgroup namespace's root */
    bool cgroups_hybrid, cgroups_writable;
    uint64_t tick_ns; /* of the kernel's coarse clock */

    char runtime[64], runtime_error[512], engine[96]; /* as set; engine "" unless usable */
    int runtime_errno;
    bool docker;      /* engine = docker: programs are its image's */
    bool engine_cold; /* no container can wait for a run */
    char init[256];
    int init_error; /* of opening it */
    bool init_executable, init_elf, init_static;
    char trial_error[512]; /* "" and tried: a container ran and ended well */
    bool tried;
    size_t language_count;
    struct {
        const char *name, *program;
        bool there;
        char version[RUNTIMES_VERSION_BYTES]; /* "" = not told */
    } languages[DOCTOR_LANGUAGES_MAX];

    char images[256]; /* "" = none */
    int images_error;
    unsigned images_good;
    char images_bad[DOCTOR_NAMES_BYTES];

    struct doctor_disk data, work;
    uint64_t min_free_bytes;
    uint64_t descriptors, descriptors_wanted; /* the hard limit; what these settings can need */
    char listen[128], access_error[512];
    int port_error;
    bool served, token, prepares; /* a siltd uses the data directory; settings */
};

enum doctor_verdict { DOCTOR_OK, DOCTOR_WARN, DOCTOR_FAIL };

struct doctor_row {
    const char *check;
    enum doctor_verdict verdict;
    char text[768], cost[256], mend[384]; /* cost and mend are "" when all is well */
};

void doctor_probe(const struct config *c, struct doctor_facts *ret);
/* How many rows were filled. */
size_t doctor_judge(const struct doctor_facts *f, struct doctor_row rows[DOCTOR_ROWS_MAX]);
bool doctor_failed(const struct doctor_row *rows, size_t count);
/* Appends lines for a terminal or one JSON object. -ENOBUFS, -ENOMEM. */
int doctor_print(const struct doctor_row *rows, size_t count, bool json, struct buf *b) WARN_UNUSED;

#endif
