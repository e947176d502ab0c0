/* SPDX-License-Identifier: MIT */
/* Clients of a run that come and go. A run whose last one went away is ended: at once, or when its
 * grace is over and nobody has come back. The kicker's thread looks after the latter. */
#include "server/exec_internal.h"

#include <sys/eventfd.h>

#include "shared/io.h"

#include "shared/banned.h"

#define LOOK_NS UINT64_C(1000000000)

uint64_t run_grace_ms(const struct run *run)
{
    return run->req.grace_ms;
}

void run_attach(struct run *run)
{
    (void)pthread_mutex_lock(&run->lock);
    run->clients++;
    atomic_store(&run->end_ns, 0);
    (void)pthread_mutex_unlock(&run->lock);
}

void run_leave(struct run *run)
{
    (void)pthread_mutex_lock(&run->lock);
    bool last = run->clients > 0 && --run->clients == 0 && !run->ended;
    if (last && run->req.grace_ms)
        atomic_store(&run->end_ns, io_now_ns() + run->req.grace_ms * 1000000);
    (void)pthread_mutex_unlock(&run->lock);
    if (last && run->req.grace_ms)
        (void)eventfd_write(run->exec->kick_fd, 1);
    else if (last)
        run_cancel(run);
}

int exec_grace_look(struct exec *x)
{
    uint64_t now = io_now_ns(), next = now + LOOK_NS;
    (void)pthread_mutex_lock(&x->lock);
    for (struct run *run = x->runs; run; run = run->hh.next) {
        uint64_t end = atomic_load(&run->end_ns);
        if (!end || atomic_load(&run->ended) || atomic_load(&run->abandoned))
            continue;
        if (end <= now) {
            atomic_store(&run->abandoned, true);
            run_cancel(run);
        } else if (end < next) {
            next = end;
        }
    }
    (void)pthread_mutex_unlock(&x->lock);
    return (int)((next - now) / 1000000) + 1;
}
