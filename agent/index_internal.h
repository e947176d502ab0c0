/* SPDX-License-Identifier: MIT */
/* What agent/index.c (the file), index_log.c (its format) and index_sig.c share. */
#ifndef AGENT_INDEX_INTERNAL_H
#define AGENT_INDEX_INTERNAL_H

#include <uthash.h>

#include "agent/index.h"

/* What set `seq` may have put at a path on the server. */
struct index_doubt {
    uint64_t seq;
    enum tree_kind kind;
    struct hash hash;          /* of a file or symlink */
    struct index_doubt *older; /* of an earlier set about the same path */
    UT_hash_handle hh;
    char path[];
};

/* A path where the server has somebody else's version, and the project had another. */
struct index_contest {
    UT_hash_handle hh;
    char path[];
};

struct index {
    int dir_fd; /* borrowed */
    int fd;     /* the file, O_APPEND */
    char link_id[40], sandbox[64];
    struct manifest *manifest;
    struct index_state state;
    uint64_t next_seq,
        reserved_seq;    /* the file promises that numbers below reserved_seq may be used up */
    uint64_t file_bytes; /* length of the file's good part */
    uint64_t puts;       /* entries written to the file, garbage included */
    uint32_t sigs_saved; /* since the last tidy */
    struct index_doubt *doubts;
    struct index_contest *contests;
    uint64_t settled_seq; /* while the file is read: what its end says was acknowledged */
};

/* ---- index_log.c */
int index_log_state(const struct index *ix, struct buf *b) WARN_UNUSED;
int index_log_put(struct buf *b, const struct manifest_entry *entry) WARN_UNUSED;
/* Read one record at the cursor: 1 read, 0 none (the end, or a torn one), <0. `play`: its changes,
 * too, but for doubts about sets up to ix->settled_seq. */
int index_log_read(struct index *ix, struct cursor *c, bool play) WARN_UNUSED;
int index_log_contest(struct buf *b, const char *path) WARN_UNUSED;

/* ---- index_doubts.c: memory alone */
int index_doubt_add(
    struct index *ix, uint64_t seq, const struct manifest_entry *sent) WARN_UNUSED;
/* Doubts about sets up to seq are settled. */
void index_doubts_end(struct index *ix, uint64_t seq);
int index_contest_add(struct index *ix, const char *path) WARN_UNUSED;
/* `beneath`: also those beneath path; "" is above all. */
void index_contest_end(struct index *ix, const char *path, bool beneath);

#endif
