/* SPDX-License-Identifier: MIT */
/*
 * The names that both sides of the wire share: the protocol's version, media types, header names
 * and the table of error codes. shared/PROTOCOL.md explains each. Pure data, any thread.
 *
 * To add an error code: add a row to PROTO_ERRORS (and to the table in PROTOCOL.md, which a test
 * compares), then return it with err_refuse().
 */
#ifndef SHARED_PROTO_H
#define SHARED_PROTO_H

#include <stdbool.h>

#define PROTO_VERSION 1
#define PROTO_VERSION_TEXT "1"
#define PROTO_DEFAULT_HOST "127.0.0.1"
#define PROTO_DEFAULT_PORT 7458
#define PROTO_CHANGES_TYPE "application/vnd.silt.changes.v1"

/*          enum name            wire name            HTTP  retryable */
#define PROTO_ERRORS(X)                                                                            \
    X(PROTO_OK, "ok", 200, false)                                                                  \
    X(PROTO_BAD_REQUEST, "bad_request", 400, false)                                                \
    X(PROTO_BAD_JSON, "bad_json", 400, false)                                                      \
    X(PROTO_BAD_CHANGES, "bad_changes", 400, false)                                                \
    X(PROTO_UNAUTHORIZED, "unauthorized", 401, false)                                              \
    X(PROTO_FORBIDDEN, "forbidden", 403, false)                                                    \
    X(PROTO_FORBIDDEN_ORIGIN, "forbidden_origin", 403, false)                                      \
    X(PROTO_FORBIDDEN_PEER, "forbidden_peer", 403, false)                                          \
    X(PROTO_NOT_FOUND, "not_found", 404, false)                                                    \
    X(PROTO_SANDBOX_NOT_FOUND, "sandbox_not_found", 404, false)                                    \
    X(PROTO_RUN_NOT_FOUND, "run_not_found", 404, false)                                            \
    X(PROTO_FILE_NOT_FOUND, "file_not_found", 404, false)                                          \
    X(PROTO_STAGE_NOT_FOUND, "stage_not_found", 404, false)                                        \
    X(PROTO_METHOD_NOT_ALLOWED, "method_not_allowed", 405, false)                                  \
    X(PROTO_TIMEOUT, "request_timeout", 408, true)                                                 \
    X(PROTO_BASE_MISMATCH, "base_mismatch", 409, false)                                            \
    X(PROTO_GENERATION_MISMATCH, "generation_mismatch", 409, false)                                \
    X(PROTO_EPOCH_MISMATCH, "epoch_mismatch", 409, false)                                          \
    X(PROTO_SEQ_CONFLICT, "seq_conflict", 409, false)                                              \
    X(PROTO_SEQ_GAP, "seq_gap", 409, true)                                                         \
    X(PROTO_PREDECESSOR_REFUSED, "predecessor_refused", 409, false)                                \
    X(PROTO_BARRIER_REFUSED, "barrier_refused", 409, false)                                        \
    X(PROTO_LINKED_ELSEWHERE, "linked_elsewhere", 409, false)                                      \
    X(PROTO_EDIT_NO_MATCH, "edit_no_match", 409, false)                                            \
    X(PROTO_EDIT_AMBIGUOUS, "edit_ambiguous", 409, false)                                          \
    X(PROTO_HASH_MISMATCH, "hash_mismatch", 409, true)                                             \
    X(PROTO_OFFSET_MISMATCH, "offset_mismatch", 409, false)                                        \
    X(PROTO_PATH_CONFLICT, "path_conflict", 409, false)                                            \
    X(PROTO_RUN_ACTIVE, "run_active", 409, true)                                                   \
    X(PROTO_INPUT_CLOSED, "input_closed", 409, false)                                              \
    X(PROTO_SANDBOX_DELETED, "sandbox_deleted", 410, false)                                        \
    X(PROTO_LENGTH_REQUIRED, "length_required", 411, false)                                        \
    X(PROTO_PRECONDITION_FAILED, "precondition_failed", 412, false)                                \
    X(PROTO_TOO_LARGE, "too_large", 413, false)                                                    \
    X(PROTO_UNSUPPORTED_TYPE, "unsupported_media_type", 415, false)                                \
    X(PROTO_BAD_RANGE, "range_not_satisfiable", 416, false)                                        \
    X(PROTO_INVALID_VALUE, "invalid_value", 422, false)                                            \
    X(PROTO_INVALID_PATH, "invalid_path", 422, false)                                              \
    X(PROTO_UNKNOWN_LANGUAGE, "unknown_language", 422, false)                                      \
    X(PROTO_UNKNOWN_IMAGE, "unknown_image", 422, false)                                            \
    X(PROTO_INTERPRETER_MISSING, "interpreter_missing", 422, false)                                \
    X(PROTO_NOT_RUNNABLE, "not_runnable", 422, false)                                              \
    X(PROTO_UPGRADE_REQUIRED, "upgrade_required", 426, false)                                      \
    X(PROTO_BUSY, "busy", 429, true)                                                               \
    X(PROTO_INTERNAL, "internal", 500, true)                                                       \
    X(PROTO_ENGINE_FAILED, "engine_failed", 500, true)                                             \
    X(PROTO_UNAVAILABLE, "unavailable", 503, true)                                                 \
    X(PROTO_BARRIER_TIMEOUT, "barrier_timeout", 504, true)                                         \
    X(PROTO_NO_SPACE, "no_space", 507, true)

enum proto_error {
#define PROTO_ENUM(name, text, status, retryable) name,
    PROTO_ERRORS(PROTO_ENUM)
#undef PROTO_ENUM
        PROTO_ERROR_COUNT
};

struct proto_error_info {
    const char *name; /* as on the wire, "file_not_found" */
    int http_status;
    bool retryable; /* the same request may succeed later */
};

/* The row of a code. Never NULL for a value of the enum. */
const struct proto_error_info *proto_error_info(enum proto_error code);

/* The code with this wire name; PROTO_INTERNAL for a name that this version does not know. */
enum proto_error proto_error_by_name(const char *name);

#endif
