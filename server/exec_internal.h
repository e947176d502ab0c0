/* SPDX-License-Identifier: MIT */
/*
 * What the files of exec share: exec.c (table of runs, slots), exec_run.c (a run's thread through
 * its stages), exec_plan.c (argv and environment), exec_io.c (descriptors and output),
 * exec_ready.c (what may be prepared), exec_grace.c (clients that leave and come back), exec_diagnose.c (why it failed), exec_view.c (what a run sees
 * of the workspace), exec_record.c (records). For these only.
 */
#ifndef SERVER_EXEC_INTERNAL_H
#define SERVER_EXEC_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <uthash.h>

#include "server/exec.h"
#include "server/run_input.h"
#include "server/run_json.h"
#include "server/sandbox_views.h"
#include "server/slots.h"
#include "server/warm.h"

#define EXEC_GRACE_MS 500  /* between TERM and KILL */
#define EXEC_KILL_MS 10000 /* a container that does not report after KILL is given up */
#define EXEC_DRAIN_MS 100  /* for what is still in the pipes after the end */
#define EXEC_CPU_POLL_MS 50
#define EXEC_SPACE_MS 1000 /* looks at a workspace that the kernel does not limit … */
#define EXEC_SPACE_FACTOR 50 /* … and at most a fiftieth of the time */
#define EXEC_RECORD_MS 20 /* a program that ends sooner is recorded once, with its end */
#define EXEC_FLUSH_MS 1000 /* output of a run that goes on reaches the disk so often */
#define EXEC_HOLD_BACK_NS 2000000 /* what follows an answer waits for it to be read */
#define EXEC_STACK_BYTES (256u * 1024)
#define EXEC_BACKLOG_MAX 4096 /* finished runs that wait for the disk */

struct run {
    struct exec *exec;
    struct sandbox *sb;
    struct exec_request req;
    atomic_uint refs;
    atomic_bool cancel;
    atomic_bool at_barrier;
    atomic_uint_fast64_t end_ns; /* monotonic: end it then, as its clients have gone; 0: do not */
    atomic_bool abandoned;       /* that was done */
    int wake_fd;              /* eventfd: cancelled, or the slot was granted */
    struct slots_ticket ticket; /* under exec->lock */
    struct run_log *log;
    struct run_input *input; /* NULL: the request did not ask for a stream */
    uint64_t begin_ns; /* monotonic, of the submission */

    pthread_mutex_t lock; /* clients; facts and ended, which the run's thread alone writes */
    pthread_cond_t changed;
    unsigned clients; /* for whom it goes on */
    struct run_facts facts;
    atomic_bool ended;

    run_done *done;
    void *done_ctx;

    bool counted;  /* in at warm, by the run's thread alone */
    struct view *view; /* of a run that is not live; the run's thread's */
    int view_fd;       /* its overlay's root, or -1 */
    bool in_table; /* under exec->lock, as the rest */
    bool in_backlog;
    bool recorded; /* it is, or was, in the backlog */
    struct run *next_record;
    UT_hash_handle hh;
};

struct exec_versions;

struct exec {
    const struct config *config;
    struct sandboxes *sandboxes;
    struct store *store;
    struct container_engine *engine;
    char *log_dir;
    int null_fd; /* /dev/null for reading */

    pthread_mutex_t lock; /* all below */
    pthread_cond_t less;  /* a run has left the table */
    pthread_cond_t more;  /* a record waits; or the end */
    pthread_cond_t tick;  /* for the housekeeper: the end */
    struct run *runs;     /* by id */
    struct slots *slots;  /* runs that have not ended, and whose turn it is */
    struct run *record_first, *record_last;
    uint64_t backlog;
    uint64_t run_threads; /* of runs, including what they do after their end */
    bool recording;       /* the recorder is writing one */
    bool stopping;        /* no new runs */
    bool ending;          /* threads shall end */
    struct exec_stats stats;

    int kick_fd; /* eventfd: somebody was cancelled at a barrier */
    pthread_t recorder, kicker, housekeeper;
    unsigned threads; /* how many of these run */

    struct exec_versions *versions;
    struct warm *warm;
};

/* exec.c */
int exec_slot_take(
    struct run *run, struct err *e) WARN_UNUSED; /* PROTO_BUSY after queue_ms, -ECANCELED */
void exec_slot_give(struct run *run); /* or its place in the queue; nothing if it has none */
void exec_slot_granted(struct slots_ticket *t); /* exec->lock held */
/* Where this run is the only one: let its answer pass, since the processors are few. */
void exec_hold_back(struct exec *x);
void exec_run_ended(struct run *run); /* out of the active, into the backlog */
void exec_thread_ended(struct exec *x);

/* exec_grace.c */
/* End the runs that were abandoned for too long. How many ms until the next look, at most a second. */
int exec_grace_look(struct exec *x);

/* exec_run.c */
struct container_limits exec_container_limits(const struct config_limits *l);
void *exec_run_main(void *run);

/* exec_plan.c */
struct exec_plan {
    char **argv; /* NULL-terminated, malloc'd */
    char **env;
    char *cwd; /* absolute inside */
    char *path; /* where programs lie in the image, or NULL: as usual */
    const struct runtime_language *language;
};
/* What to execute for this request, by what the workspace holds now. */
int exec_plan_make(struct run *run, struct exec_plan *ret, struct err *e) WARN_UNUSED;
void exec_plan_release(struct exec_plan *plan);

/* exec_io.c */
struct exec_io {
    int stdin_fd;           /* of the program; borrowed when it is exec->null_fd */
    int out_fd, err_fd;     /* the program's ends */
    int out_read, err_read; /* ours; err_read -1 with a terminal */
    int in_write;           /* ours, of a streamed input; -1 where a terminal is it, or without */
};
#define EXEC_IO_NONE                                                                               \
    ((struct exec_io){.stdin_fd = -1, .out_fd = -1, .err_fd = -1, .out_read = -1, .err_read = -1, .in_write = -1})
/* Take over our ends of the pipes of a program that was prepared, if this run can use them; they are
 * closed if not. The program's ends stay -1. False: open others. */
bool exec_io_adopt(struct run *run, struct exec_io *io, const struct warm_got *got);
int exec_io_open(
    struct run *run, uid_t uid, gid_t gid, struct exec_io *ret, struct err *e) WARN_UNUSED;
/* Close the program's ends: it has its own by now. */
void exec_io_handed_over(struct run *run, struct exec_io *io);
void exec_io_close(struct run *run, struct exec_io *io);
/* Move output into the log until the container has ended or was given up (-ETIMEDOUT). Enforces
 * time, CPU and cancellation and notes in the facts which of them struck. */
int exec_io_pump(
    struct run *run, struct exec_io *io, struct container *c, uint64_t start_ns) WARN_UNUSED;
/* What is left in the pipes, at most EXEC_DRAIN_MS. */
void exec_io_drain(struct run *run, struct exec_io *io, uint64_t start_ns);

/* exec_view.c; nothing is done for a live run */
/* After sandbox_run_enter: a snapshot, an overlay over it, the request's changes in it. *mounts leads
 * there then. */
int exec_view_open(struct run *run, struct sandbox_mounts *mounts, struct err *e) WARN_UNUSED;
/* Put it into the container that waited; if that fails there is none. */
void exec_view_enter(
    const struct run *run, const struct container_spec *spec, struct warm_got *got);
/* Instead of sandbox_run_leave. */
int exec_view_leave(
    struct run *run, struct sandbox_run_changes *ret, struct err *e) WARN_UNUSED;
/* After container_free. */
void exec_view_close(struct run *run);

/* exec_ready.c */
/* Tell warm what the next run will probably be: this one again, if it is a program that may be
 * started before it is wanted. */
void exec_expect_again(struct run *run, const struct exec_plan *plan);

/* exec_diagnose.c */
/* Note in the facts why a run failed that has ended: when the workspace was looked through, but before
 * a view is. */
void exec_diagnose(struct run *run, const struct exec_plan *plan);

/* exec_version.c */
int exec_versions_new(struct exec *x, struct err *e) WARN_UNUSED;
void exec_versions_stop(struct exec *x);
void exec_versions_free(struct exec *x);

/* exec_record.c */
void *exec_recorder_main(void *exec);
void *exec_housekeeper_main(void *exec);
void exec_record_later(struct exec *x, struct run *run); /* exec->lock held */
/* Unless it was recorded before: for a run that nobody knows of yet and that will take its time. */
void exec_record_begun(struct run *run);
/* Records of runs that an earlier server left unfinished become status error. */
int exec_record_recover(struct exec *x, struct err *e) WARN_UNUSED;
int exec_log_path(const struct exec *x, const char *id, struct buf *b) WARN_UNUSED;

#endif
