/* SPDX-License-Identifier: MIT */
#include "shared/tree.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shared/weaken.h"

#include "shared/banned.h"

/*
 * Raw calls, because these two are meant for one thread, and because they have no error: both
 * return the identity before the call, and an identity nobody can have only asks. (On 32-bit x86
 * and ARM the names without "32" take 16 bits.)
 */
#ifdef SYS_setfsuid32
#define CALL_SETFSUID SYS_setfsuid32
#define CALL_SETFSGID SYS_setfsgid32
#else
#define CALL_SETFSUID SYS_setfsuid
#define CALL_SETFSGID SYS_setfsgid
#endif

static uid_t swap_uid(uid_t uid)
{
    return (uid_t)syscall(CALL_SETFSUID, uid);
}

static gid_t swap_gid(gid_t gid)
{
    return (gid_t)syscall(CALL_SETFSGID, gid);
}

/* The user first: back to root it brings the capabilities that the group may need. */
static bool restore(struct tree_identity id)
{
    (void)swap_uid(id.uid);
    (void)swap_gid(id.gid);
    return swap_uid((uid_t)-1) == id.uid && swap_gid((gid_t)-1) == id.gid;
}

int tree_identity_enter(struct tree_identity id, struct tree_identity *ret_previous, struct err *e)
{
    if (id.uid == (uid_t)-1 || id.gid == (gid_t)-1)
        return err_say(e, EINVAL, "take a file identity: %d is none", -1);
    if (WEAK("identity")) {
        *ret_previous = (struct tree_identity){swap_uid((uid_t)-1), swap_gid((gid_t)-1)};
        return 0;
    }
    /* Without root there is one user, and that user's groups are not ours to choose. */
    uid_t self = geteuid();
    if (self != 0 && id.uid == self && swap_uid((uid_t)-1) == self) {
        *ret_previous = (struct tree_identity){.uid = self, .gid = swap_gid((gid_t)-1)};
        return 0;
    }
    struct tree_identity previous = {.gid = swap_gid(id.gid)};
    previous.uid = swap_uid(id.uid);
    *ret_previous = previous;
    if (swap_gid((gid_t)-1) == id.gid && swap_uid((uid_t)-1) == id.uid)
        return 0;
    if (!restore(previous))
        abort();
    return err_say(e, EPERM, "take the file identity %u:%u: the kernel refused", id.uid, id.gid);
}

void tree_identity_leave(struct tree_identity previous)
{
    /* A thread that cannot shed a stranger's identity must not touch another file. */
    if (!restore(previous))
        abort();
}
