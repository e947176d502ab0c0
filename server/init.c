/* SPDX-License-Identifier: MIT */
/*
 * silt-init: process 1 of a container. It waits on an inherited socket for one program, runs it,
 * reaps orphans, reports, and takes everything with it when it ends. Static and small, for many of
 * them wait at the same time; started by the OCI runtime, never by hand. See server/init.h.
 *
 * The program has the same uid and is hostile. Process 1 is out of its reach because it is not
 * dumpable (no ptrace, /proc/1/mem, /proc/1/fd, pidfd_getfd), has no signal handler (what comes
 * from inside its own pid namespace is dropped), and calls that would change another process's
 * limits, or process 1's priority, scheduling or processors, are filtered.
 */
#include "server/init.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server/init_hold.h"
#include "server/init_job.h"

#include "shared/weaken.h"

#include "shared/banned.h"

/* ---- process 1 */

struct state {
    pid_t program; /* 0: none yet */
    int error_fd;  /* the program's exec error, or end of file */
    bool ended;
    bool around;   /* INIT_AROUND */
    struct standby *standby; /* NULL: none was made; else `program` is it, and becomes it */
    bool handing; /* it reads the next order: nobody else may, until it is the program */
    struct job job;
    struct job ready; /* what was prepared; its descriptors are for whatever will run */
    struct hold hold;
    int hold_error_fd;
    bool prepared; /* the program is what was prepared */
};

static _Noreturn void end(void)
{
    (void)kill(-1, SIGKILL);
    _exit(0);
}

static void report(uint32_t kind, const struct init_report *values)
{
    struct init_report r = *values;
    r.kind = kind;
    if (send(INIT_FD, &r, sizeof r, MSG_NOSIGNAL) != (ssize_t)sizeof r)
        end();
}

static uint64_t micros(struct timeval t)
{
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_usec;
}

static void close_all(int fds[3])
{
    for (int i = 0; i < 3; i++) {
        if (fds[i] >= 0)
            (void)close(fds[i]);
        fds[i] = -1;
    }
}

static void start_aside(struct job *job)
{
    int error_fd = -1;
    if (job_launch(job, JOB_AROUND, &error_fd) > 0)
        (void)close(error_fd);
    close_all(job->fds);
}

static void start(struct state *s)
{
    s->program = job_launch(&s->job, s->around ? JOB_AROUND : JOB_FILTERED, &s->error_fd);
    if (s->program < 0) {
        report(INIT_ENDED, &(struct init_report){.exec_errno = errno});
        s->ended = true;
    }
    close_all(s->job.fds);
}

static void program_ended(struct state *s, int status, const struct rusage *usage)
{
    int error = 0;
    s->ended = true;
    if (read(s->error_fd, &error, sizeof error) != (ssize_t)sizeof error)
        error = 0;
    /* What the program left running ends with it, before anybody looks at its files. */
    if (!WEAK("end"))
        (void)kill(-1, SIGKILL);
    report(INIT_ENDED, &(struct init_report){.exec_errno = error,
                           .status = status,
                           .prepared = s->prepared,
                           .user_us = micros(usage->ru_utime),
                           .system_us = micros(usage->ru_stime),
                           .peak_bytes = (uint64_t)usage->ru_maxrss * 1024});
}

/* ---- the process that stands by */

static void stand_by(struct state *s)
{
    s->program = job_stand_by(&s->standby, &s->error_fd);
    if (s->program < 0)
        s->program = 0; /* it will be forked */
    s->handing = s->program > 0;
}

/* It ended before there was an order for it: nothing but the memory limit can have struck it. */
static bool ended_idle(const struct state *s)
{
    return s->standby && !atomic_load(&s->standby->taken);
}

/* ---- the program that was prepared */

static const char *mark_of(const struct job *job)
{
    for (char *const *e = job->env; *e; e++) {
        if (strncmp(*e, INIT_MARK, strlen(INIT_MARK)) == 0)
            return *e + strlen(INIT_MARK);
    }
    return "";
}

static bool same_strings(char *const *a, char *const *b)
{
    for (; *a && *b; a++, b++) {
        bool marked = strncmp(*a, INIT_MARK, strlen(INIT_MARK)) == 0 &&
                      strncmp(*b, INIT_MARK, strlen(INIT_MARK)) == 0;
        if (marked ? strlen(*a) != strlen(*b) : strcmp(*a, *b) != 0)
            return false;
    }
    return !*a && !*b;
}

static bool is_ready(const struct state *s)
{
    const struct job *a = &s->ready, *b = &s->job;
    return (s->hold.state == HOLD_STARTING || s->hold.state == HOLD_HELD) && !b->tty &&
           strcmp(a->cwd, b->cwd) == 0 && same_strings(a->argv, b->argv) &&
           same_strings(a->env, b->env);
}

static void prepare(struct state *s)
{
    pid_t pid = job_launch(&s->ready, JOB_HELD, &s->hold_error_fd);
    if (pid > 0)
        hold_begin(&s->hold, pid, mark_of(&s->ready));
}

/* It stopped on its way, or it could not be held after all. */
static void follow(struct state *s, int status)
{
    bool wanted = s->program == s->hold.pid;
    bool going = hold_step(&s->hold, status);
    if (wanted && !going) {
        s->prepared = false;
        start(s);
    } else if (wanted && s->hold.state == HOLD_NONE) {
        close_all(s->job.fds);
    }
}

static void run(struct state *s)
{
    bool given = s->job.fds[0] >= 0;
    if (!given) {
        memcpy(s->job.fds, s->ready.fds, sizeof s->job.fds);
        memset(s->ready.fds, -1, sizeof s->ready.fds);
    }
    if (s->job.fds[0] < 0)
        end();
    pid_t pid = s->hold.pid;
    if (!given && is_ready(s) && hold_release(&s->hold, mark_of(&s->job))) {
        s->program = pid;
        s->error_fd = s->hold_error_fd;
        s->prepared = true;
        if (s->hold.state == HOLD_NONE)
            close_all(s->job.fds);
        return;
    }
    hold_end(&s->hold);
    close_all(s->ready.fds);
    start(s);
}

/* ---- the loop */

static void reap(struct state *s)
{
    int status;
    struct rusage usage;
    for (pid_t pid; (pid = wait4(-1, &status, WNOHANG, &usage)) > 0;) {
        if (WIFSTOPPED(status)) {
            if (pid == s->hold.pid)
                follow(s, status);
            continue;
        }
        if (pid == s->hold.pid)
            hold_forget(&s->hold);
        if (pid == s->program && !s->ended) {
            if (ended_idle(s))
                end();
            s->handing = false;
            program_ended(s, status, &usage);
        }
    }
}

static void obey(struct state *s)
{
    struct init_order order;
    struct job job = {.fds = {-1, -1, -1}};
    if (!job_read_order(&order, job.fds)) {
        while (WEAK("orphan"))
            (void)pause();
        end();
    }
    switch (order.kind) {
    case INIT_PREPARE:
        if (s->program || s->ready.argv || s->around || job.fds[0] < 0 || !job_read(&order, &job))
            end();
        s->ready = job;
        prepare(s);
        break;
    case INIT_STAND_BY:
        if (s->program || s->ready.argv || s->around)
            end();
        stand_by(s);
        break;
    case INIT_RUN:
        if (s->program || !job_read(&order, &job))
            end();
        s->job = job;
        run(s);
        break;
    case INIT_SIGNAL:
        if (s->program > 0 && !s->ended && kill(-s->program, (int)order.signal) < 0)
            (void)kill(s->program, (int)order.signal); /* it has no group of its own yet */
        break;
    case INIT_ASIDE:
        if (!s->around || job.fds[0] < 0 || !job_read(&order, &job))
            end();
        start_aside(&job);
        break;
    default:
        end();
    }
}

static void turn(struct state *s, int signals)
{
    struct signalfd_siginfo ignored;
    struct pollfd fds[] = {{INIT_FD, s->handing ? 0 : POLLIN, 0}, {signals, POLLIN, 0},
        {s->handing ? s->error_fd : -1, POLLIN, 0}};
    if (poll(fds, 3, -1) < 0)
        return;
    if (fds[1].revents) {
        (void)!read(signals, &ignored, sizeof ignored);
        reap(s);
    }
    if (fds[2].revents)
        s->handing = false;
    if (fds[0].revents && s->handing)
        end(); /* closed */
    if (fds[0].revents)
        obey(s);
}

static bool connect_out(void)
{
    static const struct sockaddr_un to = {.sun_family = AF_UNIX, .sun_path = INIT_SOCKET};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&to, sizeof to) < 0)
        return false;
    return fd == INIT_FD || dup3(fd, INIT_FD, O_CLOEXEC) >= 0;
}

int main(int argc, char **argv)
{
    struct state s = {.error_fd = -1,
        .job.fds = {-1, -1, -1},
        .ready.fds = {-1, -1, -1},
        .around = argc > 1 && strcmp(argv[1], INIT_AROUND) == 0};
    sigset_t child;
    if (getpid() != 1) /* it kills all that it can reach */
        return 1;
    if (argc > 1 && strcmp(argv[1], INIT_CONNECT) == 0 && !connect_out())
        return 1;
    if (prctl(PR_SET_DUMPABLE, WEAK("dumpable")) < 0 ||
        (!s.around && !WEAK("privileges") && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) ||
        fcntl(INIT_FD, F_SETFD, WEAK("descriptors") ? 0 : FD_CLOEXEC) < 0)
        return 1;
    (void)syscall(SYS_close_range, INIT_FD + 1, ~0U, 0);
    for (int sig = 1; sig < NSIG; sig++) /* what the runtime ignored must not stay ignored */
        (void)signal(sig, SIG_DFL);
    (void)sigemptyset(&child);
    (void)sigaddset(&child, SIGCHLD);
    int signals = -1;
    if (sigprocmask(SIG_SETMASK, &child, NULL) == 0)
        signals = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals < 0)
        return 1;
    report(INIT_READY, &(struct init_report){.kind = INIT_READY});
    for (;;)
        turn(&s, signals);
}
