/* SPDX-License-Identifier: MIT */
/*
 * The table of languages: how a file is run by name. Pure: looks at names and the first bytes of a
 * file, which the caller read. To add a language, add a row in runtimes.c (and to the README's
 * table, which a test compares).
 */
#ifndef SERVER_RUNTIMES_H
#define SERVER_RUNTIMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/cleanup.h"

struct runtime_language {
    const char *name;                /* "python" */
    const char *const *aliases;      /* NULL-terminated: "py", "python3" */
    const char *const *extensions;   /* ".py", NULL-terminated */
    const char *program;             /* "python3", looked up in the container's PATH */
    const char *code_file;           /* name that a piece of `code` gets: "main.py" */
    const char *const *version_argv; /* NULL-terminated; prints its version */
};

/* All rows, *ret_count of them. */
const struct runtime_language *runtimes_all(size_t *ret_count);
/* By name or alias, or NULL. */
const struct runtime_language *runtimes_by_name(const char *name);
/* By the program that runs its files, or NULL. */
const struct runtime_language *runtimes_by_program(const char *program);
/* By a file's extension, or NULL. */
const struct runtime_language *runtimes_by_extension(const char *path);

#define RUNTIMES_VERSION_BYTES 32
/* From what version_argv printed ("Python 3.11.2", "go version go1.19.8 linux/amd64", "v18.20.4"):
 * the first number with a dot. false: there is none, or it is too long. */
bool runtimes_version(const char *answer, char out[RUNTIMES_VERSION_BYTES]);

#define RUNTIMES_ARGV_MAX 16

/* What the planner may ask about the workspace. */
struct runtimes_look {
    bool (*exists)(void *ctx, const char *path); /* regular file in the workspace? */
    void *ctx;
};

struct runtimes_plan {
    const struct runtime_language *language; /* NULL: run directly (#! or ELF) */
    char *argv[RUNTIMES_ARGV_MAX + 1]; /* malloc'd strings; the caller appends the user's args */
    size_t argc;
    char *interpreter; /* program that must exist for this to work, malloc'd, or NULL */
};

/*
 * How to run `path` (path_check'd) from the working directory `cwd` ("" = workspace root) in the
 * project way: a known extension wins; a Go file runs its folder's package; C builds with make if
 * its folder has a Makefile, else compiles the folder's sources and runs the result; otherwise `#!`
 * or an ELF header in the head_len first bytes; otherwise the sandbox's own language (may be NULL).
 * A name with a leading dash can never become an option. 0, -ENOEXEC when nothing fits, -ENOMEM.
 */
int runtimes_plan_file(const char *path, const char *cwd, const void *head, size_t head_len,
    bool executable, const struct runtime_language *sandbox_language,
    const struct runtimes_look *look, struct runtimes_plan *ret) WARN_UNUSED;
void runtimes_plan_release(struct runtimes_plan *plan);

#endif
