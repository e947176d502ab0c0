/* SPDX-License-Identifier: MIT */
#include "server/exec_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <termios.h>

#include "shared/io.h"
#include "shared/log.h"
#include "shared/weaken.h"

#include "shared/banned.h"

#define READ_BYTES (60u * 1024)
#define MS_NS UINT64_C(1000000)

/* The input lies in a memory file: no thread has to feed it, and the program may seek. It gets a
 * descriptor for reading only. */
static int open_stdin(struct run *run, int *ret, struct err *e)
{
    char path[64];
    if (!run->req.has_stdin) {
        *ret = run->exec->null_fd;
        return 0;
    }
    CLEANUP(fd_closep) int fd = memfd_create("stdin", MFD_CLOEXEC);
    if (fd < 0)
        return err_set(e, errno, "make the program's input");
    int r = io_write_all(fd, run->req.stdin_bytes.data, run->req.stdin_bytes.len);
    if (r < 0)
        return err_set(e, -r, "make the program's input");
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    *ret = open(path, O_RDONLY | O_CLOEXEC);
    return *ret < 0 ? err_set(e, errno, "make the program's input") : 0;
}

static int open_terminal(struct run *run, uid_t uid, gid_t gid, struct exec_io *io, struct err *e)
{
    char name[64];
    struct termios mode;
    const struct winsize size = {
        .ws_row = (unsigned short)run->req.rows, .ws_col = (unsigned short)run->req.cols};
    io->out_read = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    if (io->out_read < 0 || grantpt(io->out_read) < 0 || unlockpt(io->out_read) < 0 ||
        ptsname_r(io->out_read, name, sizeof(name)) != 0)
        return err_set(e, errno, "make a terminal");
    io->out_fd = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (io->out_fd < 0 || (io->err_fd = fcntl(io->out_fd, F_DUPFD_CLOEXEC, 0)) < 0)
        return err_set(e, errno, "open the terminal");
    /* It is a whole terminal if the client hands on what is typed, with its own one out of the way.
     * Otherwise nobody types, and the reader's own terminal turns \n into \r\n; twice would be once
     * too often. */
    if (!run->req.tty_input && tcgetattr(io->out_fd, &mode) == 0) {
        mode.c_oflag &= (tcflag_t)~ONLCR;
        mode.c_lflag &= (tcflag_t)~ECHO;
        (void)tcsetattr(io->out_fd, TCSANOW, &mode);
    }
    (void)ioctl(io->out_read, TIOCSWINSZ, &size);
    if (fchown(io->out_fd, uid, gid) < 0 && errno != EPERM)
        return err_set(e, errno, "give away the terminal");
    return 0;
}

bool exec_io_adopt(struct run *run, struct exec_io *io, const struct warm_got *got)
{
    io->out_read = got->out_read;
    io->err_read = got->err_read;
    io->in_write = got->in_write;
    /* What it may have seen of its input must be what this run's is. */
    bool same = run->req.stdin_stream == (got->in_write >= 0);
    if (got->out_read >= 0 && !run->req.tty && !run->req.has_stdin && same)
        return true;
    exec_io_close(run, io);
    return false;
}

int exec_io_open(struct run *run, uid_t uid, gid_t gid, struct exec_io *ret, struct err *e)
{
    *ret = EXEC_IO_NONE;
    int r = 0;
    if (run->req.stdin_stream && !run->req.tty_input)
        r = container_input(uid, gid, &ret->stdin_fd, &ret->in_write, e);
    else if (!run->req.stdin_stream)
        r = open_stdin(run, &ret->stdin_fd, e);
    if (r == 0 && run->req.tty)
        r = open_terminal(run, uid, gid, ret, e);
    if (r == 0 && run->req.tty_input &&
        (ret->stdin_fd = fcntl(ret->out_fd, F_DUPFD_CLOEXEC, 0)) < 0)
        r = err_set(e, errno, "open the terminal");
    if (run->req.tty)
        return r;
    if (r == 0)
        r = container_pipe(uid, gid, &ret->out_read, &ret->out_fd, e);
    if (r == 0)
        r = container_pipe(uid, gid, &ret->err_read, &ret->err_fd, e);
    return r;
}

void exec_io_handed_over(struct run *run, struct exec_io *io)
{
    if (io->stdin_fd != run->exec->null_fd)
        fd_closep(&io->stdin_fd);
    io->stdin_fd = -1;
    fd_closep(&io->out_fd);
    fd_closep(&io->err_fd);
}

void exec_io_close(struct run *run, struct exec_io *io)
{
    exec_io_handed_over(run, io);
    fd_closep(&io->out_read);
    fd_closep(&io->err_read);
    fd_closep(&io->in_write);
}

/* Read what is there, once. False when the stream has ended. */
static bool read_some(
    struct run *run, int fd, enum run_stream stream, uint64_t start_ns, uint8_t *data)
{
    ssize_t n = read(fd, data, READ_BYTES);
    if (n > 0)
        run_log_add(run->log, stream, (io_now_ns() - start_ns) / 1000, data, (size_t)n);
    /* A terminal whose last user has gone says EIO. */
    return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

struct pump {
    struct run *run;
    struct exec_io *io;
    struct container *c;
    uint64_t start_ns;
    uint64_t kill_ns;    /* when KILL follows TERM; 0: nobody was asked to end */
    uint64_t give_up_ns; /* when KILL is taken to have failed; 0: not sent */
    uint64_t cpu_ns;     /* next look at the CPU time */
    uint64_t space_ns;   /* next look at the disk */
    uint64_t record_ns;  /* when the run is recorded as begun; 0: it was */
    uint64_t flush_ns;
    bool feeding; /* input waits for room */
    uint8_t *data;
};

static void ask_to_end(struct pump *p, uint64_t now)
{
    if (p->kill_ns)
        return;
    p->kill_ns = now + EXEC_GRACE_MS * MS_NS;
    err_ignore(container_kill(p->c, SIGTERM, NULL));
}

static void enforce(struct pump *p, uint64_t now)
{
    struct run_facts *f = &p->run->facts;
    const struct config_limits *l = &p->run->req.limits;
    if (atomic_load(&p->run->cancel) && !p->kill_ns) {
        f->cancelled = true;
        ask_to_end(p, now);
    }
    if (now >= p->start_ns + l->wall_ms * MS_NS && !p->kill_ns && !WEAK("wall")) {
        f->timed_out = true;
        ask_to_end(p, now);
    }
    if (l->cpu_ms && now >= p->cpu_ns && !p->kill_ns && !WEAK("cpu")) {
        p->cpu_ns = now + EXEC_CPU_POLL_MS * MS_NS;
        if (container_cpu_us(p->c) >= l->cpu_ms * 1000) {
            f->timed_out = f->cpu_hit = true;
            ask_to_end(p, now);
        }
    }
    if (now >= p->space_ns && !p->kill_ns && !WEAK("space")) {
        f->space_hit = sandbox_over(p->run->sb);
        uint64_t took = io_now_ns() - now;
        p->space_ns = now + EXEC_SPACE_MS * MS_NS + EXEC_SPACE_FACTOR * took;
        if (f->space_hit)
            ask_to_end(p, now);
    }
    if (p->kill_ns && now >= p->kill_ns && !p->give_up_ns) {
        p->give_up_ns = now + EXEC_KILL_MS * MS_NS;
        err_ignore(container_kill(p->c, SIGKILL, NULL));
    }
    if (p->record_ns && now >= p->record_ns) {
        p->record_ns = 0;
        exec_record_begun(p->run);
    }
    if (now >= p->flush_ns) {
        p->flush_ns = now + EXEC_FLUSH_MS * MS_NS;
        err_ignore(
            run_log_flush(p->run->log, NULL)); /* a full disk shows in the stream's own state */
    }
}

static int next_timeout(const struct pump *p, uint64_t now)
{
    const struct config_limits *l = &p->run->req.limits;
    uint64_t next = p->flush_ns;
    const uint64_t others[] = {p->kill_ns ? 0 : p->start_ns + l->wall_ms * MS_NS, p->record_ns,
        p->give_up_ns ? p->give_up_ns : p->kill_ns, l->cpu_ms && !p->kill_ns ? p->cpu_ns : 0};
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        if (others[i] && others[i] < next)
            next = others[i];
    }
    return next <= now ? 0 : (int)((next - now + MS_NS - 1) / MS_NS);
}

/* Into the pipe, or into the terminal. */
static int input_fd(const struct pump *p)
{
    return p->run->req.tty_input ? p->io->out_read : p->io->in_write;
}

static void close_input(struct pump *p, bool by_program)
{
    if (by_program)
        run_input_close(p->run->input, true);
    fd_closep(&p->io->in_write);
    p->feeding = false;
}

/* Something is new, or there is room: move on what was typed, and the size of where. */
static void feed(struct pump *p)
{
    bool terminal = p->run->req.tty_input;
    struct winsize size = {.ws_row = 0};
    unsigned rows, cols;
    if (run_input_size(p->run->input, &rows, &cols) && p->run->req.tty) {
        size.ws_row = (unsigned short)rows;
        size.ws_col = (unsigned short)cols;
        (void)ioctl(p->io->out_read, TIOCSWINSZ, &size);
    }
    /* What comes after the end is refused where it comes; here it is only not moved. */
    int r = run_input_flush(p->run->input, input_fd(p), terminal);
    p->feeding = r == 1;
    if (r < 0 && !terminal)
        close_input(p, r == -EPIPE);
}

enum { AT_OUT, AT_ERR, AT_CONTAINER, AT_WAKE, AT_INPUT, AT_NEWS, POLLED };

/* A negative descriptor is passed over; a cancellation that was seen wakes nobody again. */
static void prepare_poll(
    const struct pump *p, const bool open[RUN_STREAMS], struct pollfd polled[POLLED])
{
    bool terminal = p->run->req.tty_input;
    const struct pollfd all[POLLED] = {
        [AT_OUT] = {.fd = open[RUN_STDOUT] ? p->io->out_read : -1,
            .events = (short)(POLLIN | (terminal && p->feeding ? POLLOUT : 0))},
        [AT_ERR] = {.fd = open[RUN_STDERR] ? p->io->err_read : -1, .events = POLLIN},
        [AT_CONTAINER] = {.fd = container_fd(p->c), .events = POLLIN},
        [AT_WAKE] = {.fd = p->kill_ns ? -1 : p->run->wake_fd, .events = POLLIN},
        [AT_INPUT] = {.fd = p->io->in_write, .events = p->feeding ? POLLOUT : 0},
        [AT_NEWS] = {.fd = p->run->input ? run_input_fd(p->run->input) : -1, .events = POLLIN}};
    memcpy(polled, all, sizeof(all));
}

static int pump_loop(struct pump *p)
{
    struct run *run = p->run;
    bool open[RUN_STREAMS] = {true, p->io->err_read >= 0};
    int fds[RUN_STREAMS] = {p->io->out_read, p->io->err_read};
    for (;;) {
        struct pollfd polled[POLLED];
        uint64_t now = io_now_ns();
        enforce(p, now);
        if (p->give_up_ns && now >= p->give_up_ns)
            return -ETIMEDOUT;
        prepare_poll(p, open, polled);
        int n = poll(polled, POLLED, next_timeout(p, now));
        if (n < 0 && errno != EINTR)
            return -errno;
        for (int s = 0; n > 0 && s < RUN_STREAMS; s++) {
            if (polled[s].revents & ~POLLOUT)
                open[s] = read_some(run, fds[s], (enum run_stream)s, p->start_ns, p->data);
        }
        if (n > 0 && polled[AT_CONTAINER].revents)
            return 0;
        if (n > 0 && (polled[AT_INPUT].revents & POLLERR))
            close_input(p, true);
        else if (n > 0 && (polled[AT_NEWS].revents ||
                              ((polled[AT_INPUT].revents | polled[AT_OUT].revents) & POLLOUT)))
            feed(p);
    }
}

int exec_io_pump(struct run *run, struct exec_io *io, struct container *c, uint64_t start_ns)
{
    CLEANUP(freep) uint8_t *data = malloc(READ_BYTES);
    struct pump p = {.run = run, .io = io, .c = c, .start_ns = start_ns, .data = data};
    if (!data)
        return -ENOMEM;
    p.record_ns = start_ns + EXEC_RECORD_MS * MS_NS;
    p.flush_ns = start_ns + EXEC_FLUSH_MS * MS_NS;
    p.space_ns = start_ns + EXEC_SPACE_MS * MS_NS;
    p.cpu_ns = start_ns + EXEC_CPU_POLL_MS * MS_NS;
    sandbox_note_run(run->sb, run->facts.id, run_status_name(RUN_RUNNING), true);
    return pump_loop(&p);
}

void exec_io_drain(struct run *run, struct exec_io *io, uint64_t start_ns)
{
    CLEANUP(freep) uint8_t *data = malloc(READ_BYTES);
    int fds[RUN_STREAMS] = {io->out_read, io->err_read};
    bool open[RUN_STREAMS] = {true, io->err_read >= 0};
    uint64_t deadline = io_now_ns() + EXEC_DRAIN_MS * MS_NS;
    while (data && (open[RUN_STDOUT] || open[RUN_STDERR])) {
        uint64_t now = io_now_ns();
        struct pollfd polled[] = {{.fd = open[RUN_STDOUT] ? fds[RUN_STDOUT] : -1, .events = POLLIN},
            {.fd = open[RUN_STDERR] ? fds[RUN_STDERR] : -1, .events = POLLIN}};
        if (now >= deadline || poll(polled, 2, (int)((deadline - now) / MS_NS) + 1) <= 0)
            return;
        for (int s = 0; s < RUN_STREAMS; s++) {
            if (polled[s].revents)
                open[s] = read_some(run, fds[s], (enum run_stream)s, start_ns, data);
        }
    }
}
