/* SPDX-License-Identifier: MIT */
/*
 * What siltd asks and tells the kernel about a container's cgroup: which controllers there are, how
 * much was used, whether a limit struck, and the removal of leftovers. The runtime makes and
 * removes the cgroup itself; the figures must be read before it does. Knows both layouts: version 1
 * with one directory per controller, and version 2 with one for all. Any thread.
 */
#ifndef SERVER_CGROUP_H
#define SERVER_CGROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/cleanup.h"
#include "shared/err.h"

#define CGROUP_NAME_BYTES 1024 /* "/silt-1a2b3c4d/<id>", beneath an ordinary user's own cgroup */

enum cgroup_version { CGROUP_NONE, CGROUP_V1, CGROUP_V2 };

/* What this machine offers. */
struct cgroup_host {
    enum cgroup_version version;
    bool memory, pids, cpuset, cpu_usage;
    bool swap; /* the limit of memory and swap together can be set */
    bool cpu;  /* a share of the CPUs' time can be set (version 2) */
};

/* What root finds. An ordinary user's: cgroup_own.h. */
void cgroup_probe(struct cgroup_host *ret);
/* Is the controller among the words of a control file? */
bool cgroup_lists(const char *text, const char *word);
const char *cgroup_version_name(enum cgroup_version version); /* "v1", "v2", "none" */

struct cgroup_usage {
    bool known; /* false: the cgroup is gone or never was; all else is 0 */
    uint64_t cpu_us;
    uint64_t memory_peak_bytes;
    uint64_t oom_kills;
    uint64_t pids_refused;
};

/* One cgroup's figures, held open: looking them up is dearer than reading them. */
#define CGROUP_FIGURES 4
struct cgroup_meter {
    int fds[CGROUP_FIGURES]; /* -1: there is no such figure */
};
#define CGROUP_METER_NONE                                                                          \
    {                                                                                              \
        .fds = { -1, -1, -1, -1 }                                                                  \
    }

/* name: the cgroup's absolute path as the runtime got it; it must exist by now. */
void cgroup_open(const struct cgroup_host *host, const char *name, struct cgroup_meter *ret);
void cgroup_close(struct cgroup_meter *m);
void cgroup_read(
    const struct cgroup_host *host, const struct cgroup_meter *m, struct cgroup_usage *ret);
uint64_t cgroup_cpu_us(const struct cgroup_host *host, const struct cgroup_meter *m);
/* Let the peak of memory count from now on. Returns the peak so far where the kernel cannot do that
 * (version 2): a later one that is not above it is the old one. Otherwise 0. */
uint64_t cgroup_reset_peak(const struct cgroup_host *host, const struct cgroup_meter *m);

/* What a cgroup may hold; 0: not limited. */
struct cgroup_limits {
    uint64_t memory_bytes; /* no swap */
    uint64_t tasks;
};
#define CGROUP_JOIN_MAX 4
/* For a runtime that leaves cgroups alone: make a cgroup (and its parent) with these limits, and
 * open its cgroup.procs in each hierarchy. A process that writes "0" into all of them is in it.
 * Returns how many descriptors are in join, or -errno. */
int cgroup_make(const struct cgroup_host *host, const char *name,
    const struct cgroup_limits *limits, int join[CGROUP_JOIN_MAX], struct err *e) WARN_UNUSED;

/* Kill what lives in the cgroups beneath parent and remove them and parent itself. Returns how many
 * there were beneath it. */
unsigned cgroup_reap(const struct cgroup_host *host, const char *parent);
/* Remove one cgroup that the runtime left behind, killing what is in it. */
void cgroup_remove(const struct cgroup_host *host, const char *name);

#endif
