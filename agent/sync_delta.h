/* SPDX-License-Identifier: MIT */
/*
 * What a file became, as a delta against something that the server has. One thread; only sync_*.c
 * include this.
 */
#ifndef AGENT_SYNC_DELTA_H
#define AGENT_SYNC_DELTA_H

#include "agent/sync_internal.h"
#include "shared/delta.h"

struct sync_delta {
    struct hash hash;      /* of the file, as it was read */
    struct delta_sig *sig; /* its block hashes, or NULL */
    uint64_t len;          /* bytes of the delta: in mem, or if that was too little all of it in: */
    struct buf mem;
    int fd;
    int dir_fd;
    /* Only begun (it then has to be sent open): both go to sync_set_open. Else maker is NULL. */
    struct delta_maker *maker;
    struct delta_sig *base;
};

/* 1 made; 0 there is no signature of old, or no gain; -ENOMEM. old may be NULL. In each case *ret
 * is to be released. With `may_open`: 1 with ret->maker as soon as it is certain that the content
 * is another, and most of what was read is in the old one. */
int sync_delta_make(struct sync *s, const struct manifest_entry *old, int fd, uint64_t size,
    bool may_open, struct sync_delta *ret) WARN_UNUSED;
void sync_delta_release(struct sync_delta *d);

/* A vanished file that the one at path, which the server does not have, may have been: the same
 * inode, else the same name in another folder. NULL if there is none. */
struct sync_gone *sync_delta_origin(struct sync *s, const char *path, const struct tree_stat *st);

#endif
