/* SPDX-License-Identifier: MIT */
/*
 * The one rule for relative paths inside a workspace or a project, checked once where a path enters
 * (network, command line, directory listing) and relied on everywhere after. A path is a sequence
 * of bytes, not of characters: names need not be UTF-8, and may hold newlines. Pure, any thread.
 */
#ifndef SHARED_PATH_H
#define SHARED_PATH_H

#include <stdbool.h>
#include <stddef.h>

#include "shared/cleanup.h"

#define PATH_BYTES_MAX 4095 /* without the NUL */
#define PATH_NAME_MAX 255
#define PATH_DEPTH_MAX 256

enum path_fault {
    PATH_FINE,
    PATH_EMPTY,
    PATH_ABSOLUTE,
    PATH_DOT,      /* a "." component */
    PATH_DOTDOT,   /* a ".." component */
    PATH_SLASH,    /* doubled or trailing slash */
    PATH_NUL,      /* a NUL byte inside */
    PATH_NAME_LONG /* a component above 255 bytes */,
    PATH_LONG,
    PATH_DEEP,
};

/* Check len bytes (no NUL needed after them). */
enum path_fault path_check(const char *path, size_t len) WARN_UNUSED;

/* What is wrong, as the end of a sentence: "has a '..' component". */
const char *path_fault_text(enum path_fault fault);

/*
 * Bring what a person typed into the checked form: collapse "//" and "./", resolve "a/../b"
 * lexically, drop a trailing slash. `base` is a checked path or "" that the text is relative to.
 * ret receives malloc'd text; "" means the root itself. -EINVAL if it leaves the root, is absolute
 * or fails path_check; -ENOMEM.
 */
int path_resolve(const char *base, const char *text, char **ret) WARN_UNUSED;

/* The last component; the path itself if it has one only. */
const char *path_base(const char *path);

/* Length of the parent: 0 for "a", 1 for "a/b". */
size_t path_parent_len(const char *path);

/* Is path equal to dir or beneath it? dir "" holds everything. */
bool path_beneath(const char *dir, const char *path);

/* dir + "/" + name (just name if dir is ""), malloc'd; NULL when out of memory. */
char *path_join(const char *dir, const char *name);

/* "Where did you mean": how alike two paths are, 0 (same) upwards; compares case-folded edit
 * distance of the last components first. For near names in errors. */
unsigned path_distance(const char *a, const char *b);

#endif
