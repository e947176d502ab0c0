/* SPDX-License-Identifier: MIT */
/*
 * Bytecode that Python keeps in a sandbox's cache (PYTHONPYCACHEPREFIX=/cache/pyc). Python takes it
 * for current when size and whole second of the source are those it was compiled from. A replaced
 * file gets another second (apply.c); what leaves its name is forgotten here, so that a later file
 * of the same name, size and second is never run as the earlier one, and the cache does not grow
 * for ever.
 *
 * The cache is writable by programs: everything goes through a held tree. The caller carries the
 * sandbox's identity. Failures are not told: without rights to its own cache a sandbox does
 * without.
 */
#ifndef SERVER_CACHE_H
#define SERVER_CACHE_H

#include "server/workspace.h"

/* Forget what was compiled from the file at path, or from everything beneath the directory there.
 */
void cache_forget(const struct workspace *ws, const char *path, enum tree_kind kind);

#endif
