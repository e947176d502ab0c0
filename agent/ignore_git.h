/* SPDX-License-Identifier: MIT */
/*
 * git's rules that do not lie in the tree: `.git/info/exclude` of the project, and the user's own
 * file, which core.excludesFile names in ~/.gitconfig or $XDG_CONFIG_HOME/git/config, else
 * $XDG_CONFIG_HOME/git/ignore (~/.config/git/ignore). They are weaker than any .gitignore, as in
 * git. git itself is not started; of its configuration only this one line is understood (no
 * includes, and not that of the repository, which comes with a project and must not name files here).
 */
#ifndef AGENT_IGNORE_GIT_H
#define AGENT_IGNORE_GIT_H

#include <stddef.h>

#include "agent/ignore.h"
#include "shared/tree.h"

#define IGNORE_GIT_CONFIG_MAX (256 * 1024) /* bytes of a configuration; a larger one says nothing */

/* Replace both sources in `rules` by what the files say now; without a `.git` in the project there
 * are none. What cannot be read, is no regular file or larger than IGNORE_FILE_MAX excludes nothing;
 * *ret_unused then names it, for the user to be told, else NULL. -ENOMEM. */
int ignore_git_load(
    struct ignore *rules, const struct tree *project, const char **ret_unused) WARN_UNUSED;

/* What the last core.excludesFile of this text says, `~/` being `home` (may be NULL); NULL: nothing,
 * or no absolute path. malloc'd. Pure. */
char *ignore_git_excludes(const char *text, size_t len, const char *home);

#endif
