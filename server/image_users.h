/* SPDX-License-Identifier: MIT */
/*
 * Which sandboxes use an image, for a command beside the server: asked of the server that serves
 * this data directory, or of the database if none does (then the directory is locked meanwhile).
 */
#ifndef SERVER_IMAGE_USERS_H
#define SERVER_IMAGE_USERS_H

#include "server/config.h"

/* An image_users function (server/image_import.h); ctx is the configuration. -EBUSY with the names
 * of those who use it. */
int image_users_ask(void *config, const char *image, struct err *e) WARN_UNUSED;

#endif
