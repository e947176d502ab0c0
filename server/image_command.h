/* SPDX-License-Identifier: MIT */
/*
 * `siltd image import NAME FILE`, `siltd image list`, `siltd image remove NAME`. Works beside a
 * server that runs with the same settings, and without one.
 */
#ifndef SERVER_IMAGE_COMMAND_H
#define SERVER_IMAGE_COMMAND_H

#include "server/config.h"

/* The words after `image` are in the configuration. 0 and what is to be printed in `out` (which the
 * caller initialised), or -errno with a sentence; -EINVAL without anything done for a misuse. */
int image_command(const struct config *c, bool json, struct buf *out, struct err *e) WARN_UNUSED;

#endif
