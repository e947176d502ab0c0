/* SPDX-License-Identifier: MIT */
/*
 * Bringing an image into the image directory, and taking it out again. Both happen whole or not at
 * all: an image is made aside and renamed to its name, and renamed away before it is removed. One at
 * a time per directory (a lock); what an interrupted one left is removed by the next. The server may
 * run meanwhile and sees an image from the moment of the renaming.
 *
 * The file is read by a child process. As root that has no capability left and a root directory
 * that holds nothing but what it makes; its only descriptors are the file and two folders.
 *
 * For a command's process: it forks, and signals that would end the process wait until it is clean.
 */
#ifndef SERVER_IMAGE_IMPORT_H
#define SERVER_IMAGE_IMPORT_H

#include "server/image.h"

/* file: a path (an archive, or the folder of an OCI layout), or "-" for standard input. *ret may be
 * released also after an error. PROTO_NO_SPACE, -EEXIST, -EINVAL for files that are refused. */
int image_import(const char *dir, const char *name, const char *file, uint64_t min_free_bytes,
    struct image *ret, struct err *e) WARN_UNUSED;

/* Who uses this image? 0: nobody; otherwise an error that says who. */
typedef int image_users(void *ctx, const char *name, struct err *e);
/* Asks before and after the name is gone, and gives it back if somebody began in between. -ENOENT. */
int image_remove(const char *dir, const char *name, image_users *users, void *ctx,
    struct err *e) WARN_UNUSED;

#endif
