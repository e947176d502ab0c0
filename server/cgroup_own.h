/* SPDX-License-Identifier: MIT */
/*
 * A cgroup of version 2 that was given to this process (delegated), as an ordinary user gets one by
 * `Delegate=yes` of systemd or by chown: where it is, whether it can be used, and the making of room
 * for containers in it. The kernel wants processes in the leaves only, so this process moves
 * into a leaf of its own, and containers get theirs beside it:
 *
 *     PATH/silt-server           this process
 *     PATH/silt-1a2b3c4d/RUN     containers
 *
 *     cgroup_own_look(&own)                  // changes nothing
 *     cgroup_own_take(&own, mark, &host)     // before any other thread makes processes
 *     cgroup_own_release(&own)               // when no container is left
 *
 * Started again inside the leaf (by hand after a kill: the kernel lets nothing else into PATH), it
 * finds PATH by the leaf's name, and with it what its predecessor left. One thread at a time.
 */
#ifndef SERVER_CGROUP_OWN_H
#define SERVER_CGROUP_OWN_H

#include <stdbool.h>
#include <stddef.h>

#include "server/cgroup.h"
#include "shared/err.h"

#define CGROUP_OWN_BYTES 768 /* of a path beneath the mount */
#define CGROUP_OWN_LEAF "silt-server"
/* How somebody gets one, where systemd is. */
#define CGROUP_OWN_COMMAND "systemd-run --user --scope -p Delegate=yes"

enum cgroup_own_state {
    CGROUP_OWN_USABLE,
    CGROUP_OWN_OTHER_VERSION, /* no version 2 at /sys/fs/cgroup */
    CGROUP_OWN_FOREIGN,       /* it belongs to somebody else, or is read-only */
    CGROUP_OWN_SHARED,        /* other processes live in it */
    CGROUP_OWN_BARE,          /* no controller for memory or processes comes with it */
    CGROUP_OWN_ODD,           /* the kernel says what this program does not understand */
};

struct cgroup_own {
    enum cgroup_own_state state;
    char path[CGROUP_OWN_BYTES]; /* beneath the mount, "" for its root; also where it is unusable */
    bool in_leaf;                /* this process lives in PATH/silt-server already */
    bool taken;                  /* by cgroup_own_take */
    bool memory, pids, cpuset, cpu; /* what can be limited there */
};

/* The path in the text of /proc/self/cgroup; "" for the root. -ENOENT: it names no cgroup of version
 * 2; -EINVAL: a path that leads elsewhere, was deleted, or is not UTF-8; -ENAMETOOLONG. */
int cgroup_own_parse(const char *text, char ret[CGROUP_OWN_BYTES]) WARN_UNUSED;

void cgroup_own_look(struct cgroup_own *ret);
/* Does this process live in what a cgroup namespace shows as the root, as the first process of a
 * container does? Then root needs room as well: the kernel's exception is for the real root. */
bool cgroup_own_is_false_root(const struct cgroup_own *own);
/* "other processes live in its cgroup …": why it is not usable, for a sentence; "" if it is. */
const char *cgroup_own_reason(enum cgroup_own_state state);
/* Move, enable what there is, make PATH/mark, and fill host as cgroup_probe does for root. An error
 * changes nothing, and the state becomes what stood in the way. */
int cgroup_own_take(struct cgroup_own *own, const char *mark, struct cgroup_host *host,
    struct err *e) WARN_UNUSED;
/* Make PATH/mark, where it is not. While it is there no other server's release disables anything. */
int cgroup_own_room(const struct cgroup_own *own, const char *mark) WARN_UNUSED;
/* Move back and disable all, unless another server's containers need it. */
void cgroup_own_release(struct cgroup_own *own);

#endif
