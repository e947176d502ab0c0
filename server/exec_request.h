/* SPDX-License-Identifier: MIT */
/*
 * What a client asks for when it runs something: the body of POST …/exec, checked and merged with
 * what the sandbox says about environment and limits. Pure, any thread.
 */
#ifndef SERVER_EXEC_REQUEST_H
#define SERVER_EXEC_REQUEST_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "server/config.h"
#include "server/runtimes.h"
#include "shared/buf.h"
#include "shared/changes.h"
#include "shared/err.h"

#define EXEC_CODE_MAX (400u * 1024) /* it travels in argv, see exec_plan.c */
#define EXEC_ARGS_MAX 4096
#define EXEC_QUEUE_MS 30000
#define EXEC_WAIT_MS_MAX (10u * 60 * 1000)
#define EXEC_BARRIER_MS 30000
#define EXEC_GRACE_MS_MAX (10u * 60 * 1000)

enum exec_view { EXEC_LIVE, EXEC_SNAPSHOT };
enum exec_keep { EXEC_KEEP_ALWAYS, EXEC_KEEP_ON_SUCCESS, EXEC_KEEP_NEVER };
const char *exec_view_name(enum exec_view view);
const char *exec_keep_name(enum exec_keep keep);

enum exec_what { EXEC_FILE, EXEC_ARGV, EXEC_SHELL, EXEC_CODE };

struct exec_request {
    enum exec_what what;
    char *text;  /* FILE: checked path; SHELL: the command; CODE: the code */
    char **argv; /* ARGV: at least one; NULL-terminated */
    char **args; /* the user's further arguments, or NULL */
    const struct runtime_language *language; /* the sandbox's; NULL = none */
    char *image;
    struct buf stdin_bytes;
    bool has_stdin;
    bool stdin_stream; /* bytes come while it runs: into a pipe, or into the terminal: */
    char *cwd;  /* checked path relative to /workspace, "" = itself */
    char **env; /* "NAME=VALUE" of sandbox and request; NULL = none */
    struct config_limits limits;
    char client[CHANGES_CLIENT_MAX + 1]; /* barrier; seq 0 = none */
    uint64_t seq;
    json_t *changes; /* {"ops":…} to be applied first, or NULL; owned */
    enum exec_view view;
    enum exec_keep keep; /* always with EXEC_LIVE */
    json_t *labels;  /* or NULL; owned */
    uint64_t queue_ms, wait_ms;
    uint64_t grace_ms; /* how long it goes on without a client; 0 with detach, when it needs none */
    bool has_wait, detach, stream;
    bool tty;
    bool tty_input; /* the terminal is standard input as well; stdin_stream is set, too */
    uint64_t rows, cols;
};

/* What the sandbox and the server add. */
struct exec_base {
    const char *language, *image; /* of the sandbox; "" = none */
    const char *env_json, *limits_json;
    const struct config *config;
};

/* Fills *ret, which exec_request_release frees, also after an error. Refusals: PROTO_INVALID_VALUE,
 * PROTO_INVALID_PATH, PROTO_UNKNOWN_LANGUAGE (code without a language). */
int exec_request_parse(json_t *body, const struct exec_base *base, struct exec_request *ret,
    struct err *e) WARN_UNUSED;
void exec_request_release(struct exec_request *r);

/* What is asked for, in one readable line for lists; cut where out ends. */
void exec_request_display(const struct exec_request *r, char *out, size_t out_size);

#endif
