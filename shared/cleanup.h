/* SPDX-License-Identifier: MIT */
/*
 * Scope-bound ownership: a variable declared with CLEANUP(x) releases what it holds when its scope
 * ends, unless fd_take() or ptr_take() moved the value out. Always initialise at the declaration:
 *
 *     CLEANUP(fd_closep) int fd = -1;
 *     ...
 *     *ret_fd = fd_take(&fd);
 */
#ifndef SHARED_CLEANUP_H
#define SHARED_CLEANUP_H

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define CLEANUP(f) __attribute__((cleanup(f)))

#define WARN_UNUSED __attribute__((warn_unused_result))

static inline void fd_closep(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
}

/* The descriptor, which the caller owns from now on; the variable holds none. */
static inline int fd_take(int *fd)
{
    int taken = *fd;
    *fd = -1;
    return taken;
}

/* For any pointer to malloc'd memory: CLEANUP(freep) char *name = NULL; */
static inline void freep(void *p)
{
    free(*(void **)p);
    *(void **)p = NULL;
}

static inline void dir_closep(DIR **d)
{
    if (*d)
        (void)closedir(*d);
    *d = NULL;
}

static inline void file_closep(FILE **f)
{
    if (*f)
        (void)fclose(*f);
    *f = NULL;
}

/* The pointer's value, which the caller owns from now on; the variable holds NULL. */
#define ptr_take(p)                                                                                \
    __extension__({                                                                                \
        __typeof__(*(p)) taken_ = *(p);                                                            \
        *(p) = NULL;                                                                               \
        taken_;                                                                                    \
    })

#endif
