/* SPDX-License-Identifier: MIT */
/* The CPU time of a container that no cgroup counts: what /proc says of its processes. */
#include "server/container_driver.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/io.h"
#include "shared/num.h"

#include "shared/banned.h"

#define PROCESSES_MAX 4096 /* what is beyond is not counted */
#define STAT_MAX 1024
#define CHILDREN_MAX (64 * 1024)
#define TIMES_FIRST 14 /* utime, stime, cutime, cstime: the last two of children that were waited for */
#define TIMES_COUNT 4

struct tree {
    int pids[PROCESSES_MAX];
    size_t count;
    uint64_t ticks;
};

bool container_cpu_ticks(const char *text, uint64_t *ret)
{
    /* The name of the program is its author's: it may hold blanks and brackets. */
    const char *at = strrchr(text, ')');
    uint64_t sum = 0;
    if (!at)
        return false;
    for (int field = 2; field < TIMES_FIRST + TIMES_COUNT; field++) {
        char digits[24];
        size_t n = strcspn(at, " \n");
        uint64_t value;
        if (field >= TIMES_FIRST) {
            if (n == 0 || n >= sizeof digits)
                return false;
            memcpy(digits, at, n);
            digits[n] = '\0';
            if (num_u64(digits, UINT32_MAX, &value) < 0)
                return false;
            sum += value;
        }
        at += n;
        at += *at == ' ';
    }
    *ret = sum;
    return true;
}

static void add_children(struct tree *t, int pid, const char *task)
{
    char path[64];
    CLEANUP(buf_release) struct buf b;
    (void)snprintf(path, sizeof path, "/proc/%d/task/%.16s/children", pid, task);
    if (io_read_file(path, CHILDREN_MAX, &b, NULL) < 0)
        return;
    char *end;
    for (const char *at = buf_str(&b); t->count < PROCESSES_MAX; at = end) {
        long child = strtol(at, &end, 10);
        if (end == at || child <= 0 || child > INT32_MAX)
            return;
        t->pids[t->count++] = (int)child;
    }
}

static void add_process(struct tree *t, int pid)
{
    char path[32];
    uint64_t ticks = 0;
    CLEANUP(buf_release) struct buf b;
    (void)snprintf(path, sizeof path, "/proc/%d/stat", pid);
    if (io_read_file(path, STAT_MAX, &b, NULL) == 0 && container_cpu_ticks(buf_str(&b), &ticks))
        t->ticks += ticks;
    (void)snprintf(path, sizeof path, "/proc/%d/task", pid);
    CLEANUP(dir_closep) DIR *tasks = opendir(path);
    for (struct dirent *d; tasks && (d = readdir(tasks));) {
        if (d->d_name[0] != '.')
            add_children(t, pid, d->d_name);
    }
}

uint64_t container_cpu_of(pid_t init)
{
    CLEANUP(freep) struct tree *t = calloc(1, sizeof *t);
    long hz = sysconf(_SC_CLK_TCK);
    if (!t || init <= 1 || hz <= 0)
        return 0;
    t->pids[t->count++] = init;
    /* However quickly a program makes new ones. */
    for (size_t seen = 0; t->count > 0 && seen < PROCESSES_MAX; seen++)
        add_process(t, t->pids[--t->count]);
    return t->ticks * (1000000u / (uint64_t)hz);
}
