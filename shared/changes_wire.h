/* SPDX-License-Identifier: MIT */
/*
 * What the two ends of shared/changes.h share: the numbers of the byte layout (explained in
 * shared/PROTOCOL.md), which fields each kind of operation has, and which values are allowed. Only
 * changes*.c include this. Pure, any thread.
 */
#ifndef SHARED_CHANGES_WIRE_H
#define SHARED_CHANGES_WIRE_H

#include "shared/changes.h"

#define WIRE_MAGIC "SILTCHG\001" /* the last byte is the version */
#define WIRE_MAGIC_BYTES 8
#define WIRE_HEADER_BYTES 5     /* u8 type, u32 length of the payload */
#define WIRE_OP_MAX (16 * 1024) /* payload of BEGIN and OP: two paths and ~80 bytes */
#define WIRE_END_BYTES (4 + HASH_BYTES)
#define WIRE_FLAG_RECURSIVE 0x01u
#define WIRE_FLAG_OPEN 0x02u
#define WIRE_OPEN_MAX (CHANGES_FILE_MAX + HASH_BYTES) /* content of an open operation */
#define WIRE_FLAG_KEEP 0x04u
#define WIRE_FLAG_STAGED 0x08u /* u8 length and a stage's id after the fields; no content */
#define WIRE_EPOCH_MAX (sizeof(((struct changes_begin *)0)->epoch) - 1)

enum wire_frame { WIRE_BEGIN = 1, WIRE_OP, WIRE_DATA, WIRE_END };

/* Fields of an OP after kind, flags, base and path, in the order in which they stand there. */
enum wire_field {
    WIRE_HAS_MODE = 1,    /* u16 */
    WIRE_HAS_RESULT = 2,  /* u64 size, 16 bytes hash */
    WIRE_HAS_DELTA = 4,   /* u64 length of the delta */
    WIRE_HAS_TEXTS = 8,   /* u32 length of old, u32 length of new */
    WIRE_HAS_TO = 16,     /* u16 length, a path */
    WIRE_HAS_TARGET = 32, /* u16 length, bytes */
};

struct wire_kind {
    const char *name;
    unsigned fields;
    unsigned flags; /* that may be set */
};

/* NULL for a kind that version 1 does not know. */
const struct wire_kind *wire_kind(unsigned kind);

/* Bytes in the DATA frames behind this operation. */
uint64_t wire_content_len(const struct change_op *op);

/* What is wrong with these values, as a sentence's end ("is larger than …"), or NULL. The code that
 * names the fault goes to *ret_code. Paths are not looked at. */
const char *wire_op_fault(const struct change_op *op, enum proto_error *ret_code);
const char *wire_begin_fault(const struct changes_begin *begin);

/* Where the texts of a parsed operation lie. */
struct wire_paths {
    char path[PATH_BYTES_MAX + 1];
    char to[PATH_BYTES_MAX + 1];
    char stage[CHANGES_STAGE_MAX + 1];
};

/* One payload, as a whole, into values that were checked. Of an operation path, to and stage point
 * into *paths; the texts of an EDIT follow in DATA frames. A refusal's message is the end of a sentence
 * that the reader begins ("operation 3 "). */
int wire_parse_begin(
    const uint8_t *payload, size_t len, struct changes_begin *ret, struct err *e) WARN_UNUSED;
int wire_parse_op(const uint8_t *payload, size_t len, struct wire_paths *paths,
    struct change_op *ret, struct err *e) WARN_UNUSED;

#endif
