/* SPDX-License-Identifier: MIT */
#include "shared/tree.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

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

static uid_t set_uid(uid_t uid)
{
    (void)syscall(CALL_SETFSUID, uid);
    return (uid_t)syscall(CALL_SETFSUID, (uid_t)-1);
}

static gid_t set_gid(gid_t gid)
{
    (void)syscall(CALL_SETFSGID, gid);
    return (gid_t)syscall(CALL_SETFSGID, (gid_t)-1);
}

/* The user first: back to root it brings the capabilities that the group may need. */
static bool restore(struct tree_identity id)
{
    bool uid_back = set_uid(id.uid) == id.uid;
    return set_gid(id.gid) == id.gid && uid_back;
}

int tree_identity_enter(struct tree_identity id, struct tree_identity *ret_previous, struct err *e)
{
    const struct tree_identity previous = {.uid = set_uid((uid_t)-1), .gid = set_gid((gid_t)-1)};
    if (id.uid == (uid_t)-1 || id.gid == (gid_t)-1)
        return err_say(e, EINVAL, "take a file identity: %d is none", -1);
    *ret_previous = previous;
    /* Without root there is one user, and that user's groups are not ours to choose. */
    if (geteuid() != 0 && id.uid == geteuid() && id.uid == previous.uid)
        return 0;
    if (set_gid(id.gid) == id.gid && set_uid(id.uid) == id.uid)
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
