/* SPDX-License-Identifier: MIT */
/*
 * The link between a project and its sandbox: the folder `.silt/` in the project's root, which
 * holds .gitignore   "*" link.json    server, sandbox, link id, machine id, dev:ino of the root,
 * schema version index        what the server acknowledged (agent/index.h) sig/         signatures
 * of large files (agent/index.h) cookies/     for the barrier (agent/watch.h) lock         held
 * (flock) by whoever syncs control      the watcher's socket (agent/control.h) upload       of which
 * stage a large content is on its way (agent/sync_stage.c) watch.log    what a background watcher
 * said Finding the root, refusing places that must not be synced, telling a
 * copied folder from the original. Asks nothing and prints nothing: questions are the caller's, by
 * what is returned.
 */
#ifndef AGENT_LINK_H
#define AGENT_LINK_H

#include <stdbool.h>
#include <stdint.h>

#include "shared/err.h"

#define LINK_DIR ".silt"

struct link {
    char *root;    /* absolute, symlinks resolved */
    char *server;  /* as client_server() writes it */
    char *sandbox; /* "sb_…" */
    char id[40];   /* "lk_…": lasting part of a client's name */
    char machine[64];
    uint64_t dev, ino; /* of the root when it was linked */
    char empty_epoch[40]; /* of a sandbox that was empty when it was linked, by this very process; "" else */
};
void link_release(struct link *l);

/* Load root/.silt/link.json. -ENOENT if the place is not linked; -EBADMSG with a sentence if it is
 * damaged. *ret_moved: the folder is not the one that was linked (copied, or moved across disks).
 */
int link_load(const char *root, struct link *ret, bool *ret_moved, struct err *e) WARN_UNUSED;
/* Write it (the folder and its .gitignore are made). */
int link_save(const struct link *l, struct err *e) WARN_UNUSED;
/* New id, this machine, this root's dev:ino; server and sandbox as given. */
int link_make(const char *root, const char *server, const char *sandbox, struct link *ret,
    struct err *e) WARN_UNUSED;

/* Forget what the server acknowledged (.silt/index): for a root that gets another sandbox. */
int link_forget(const char *root, struct err *e) WARN_UNUSED;

/* The nearest ancestor of dir with .silt (*ret_linked = true), else with a project marker, else dir
 * itself. malloc'd. Refuses (-EPERM with a sentence) $HOME, /, /etc, /usr, /var, /tmp and the like.
 */
int link_find_root(const char *dir, char **ret_root, bool *ret_linked, struct err *e) WARN_UNUSED;

/* Remember on this machine (in the XDG state directory) that root was linked to this sandbox, so
 * that a lost .silt can be offered it again; look it up. */
int link_remember(const struct link *l, struct err *e) WARN_UNUSED;
int link_recall(const char *root, struct link *ret, struct err *e) WARN_UNUSED;

#endif
