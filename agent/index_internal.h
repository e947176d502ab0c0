/* SPDX-License-Identifier: MIT */
/* What agent/index.c and agent/index_sig.c share. */
#ifndef AGENT_INDEX_INTERNAL_H
#define AGENT_INDEX_INTERNAL_H

#include "agent/index.h"

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
};

#endif
