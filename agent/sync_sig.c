/* SPDX-License-Identifier: MIT */
#include "agent/sync_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shared/banned.h"

/* librsync's sums cost ten times the block hashes: only for small files, and there at once for
 * those that have proved to be edited, for all where there is time (a watcher that idles). */
#define COMPLETE_MAX (UINT64_C(8) * 1024 * 1024)
#define JOBS_MAX 100000

int sync_sig_want(struct sync *s, const char *path, const struct hash *hash, uint64_t size,
    bool edited, struct delta_sig *sig)
{
    struct sync_sig_job *job = s->job_count < JOBS_MAX ? calloc(1, sizeof(*job)) : NULL;
    if (!job || !(job->path = strdup(path))) {
        int r = job || s->job_count < JOBS_MAX ? -ENOMEM : 0;
        free(job);
        delta_sig_free(sig);
        return r;
    }
    job->sig = sig;
    job->hash = *hash;
    job->size = size;
    job->edited = edited;
    job->next = s->jobs;
    s->jobs = job;
    s->job_count++;
    return 0;
}

static void job_free(struct sync_sig_job *job)
{
    delta_sig_free(job->sig);
    free(job->path);
    free(job);
}

/* Only what was sent is worth a signature: the file may have changed since. */
static void make(struct sync *s, const struct sync_sig_job *job)
{
    CLEANUP(fd_closep) int fd = -1;
    CLEANUP(delta_sig_freep) struct delta_sig *sig = NULL;
    struct tree_stat st;
    struct hash hash;
    bool complete = job->size <= COMPLETE_MAX && (s->patient || job->edited);
    /* Without it the next change of this file costs more bytes, that is all. */
    if (job->sig && !complete) {
        (void)!index_sig_save(s->index, &job->hash, job->sig);
        return;
    }
    if (tree_open_file(s->tree, job->path, &fd, &st, NULL) < 0 || st.size != job->size)
        return;
    if (delta_sig_make(fd, job->size, complete, &sig, &hash, NULL) < 0 ||
        !hash_equal(&hash, &job->hash))
        return;
    (void)!index_sig_save(s->index, &hash, sig);
}

bool sync_sig_step(struct sync *s)
{
    struct sync_sig_job *job = s->jobs;
    if (!job)
        return false;
    s->jobs = job->next;
    s->job_count--;
    make(s, job);
    job_free(job);
    return s->jobs != NULL;
}

void sync_sig_drop_all(struct sync *s)
{
    while (s->jobs) {
        struct sync_sig_job *job = s->jobs;
        s->jobs = job->next;
        job_free(job);
    }
    s->job_count = 0;
}
