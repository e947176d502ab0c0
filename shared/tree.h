/* SPDX-License-Identifier: MIT */
/*
 * Every access to files beneath a root whose content may be hostile: the server's workspaces, which
 * belong to whoever ran code in them last, and the user's project when something is pulled into it.
 * Nothing else in silt opens such paths.
 *
 * Guarantees
 * - A path is resolved beneath a held directory descriptor with openat2(RESOLVE_BENEATH |
 *   RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS); where the kernel lacks openat2 (ENOSYS, EPERM of
 * a filter) component by component with O_NOFOLLOW, which a test forces. A name swapped for a
 *   symlink while we work is refused, never followed.
 * - Files are opened O_NONBLOCK | O_NOFOLLOW | O_NOCTTY and must be regular, so that a FIFO or
 * device planted under a name neither blocks nor acts.
 * - Metadata is changed by descriptor only. Files are replaced by rename, never written in place.
 * - Paths are in the form of path_check(); "" means the root. Passing another form is a
 * programmer's mistake (assert).
 *
 * Returned codes that callers tell apart: -ENOENT, -ENOTDIR, -ELOOP (a symlink in the way),
 * -EEXIST, -EISDIR, -ENOTEMPTY, -EXDEV (left the root), -TREE_NOT_REGULAR (a name that is not a
 * regular file).
 *
 * A struct tree may be used by several threads at once.
 */
#ifndef SHARED_TREE_H
#define SHARED_TREE_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "shared/buf.h"
#include "shared/err.h"

#define TREE_NOT_REGULAR ENOSTR /* -ENOSTR: the name is not a regular file */

struct tree; /* a held root directory */

enum tree_kind { TREE_FILE, TREE_DIR, TREE_SYMLINK, TREE_OTHER /* FIFO, socket, device */ };

struct tree_stat {
    enum tree_kind kind;
    uint32_t mode;         /* permission bits, 07777 */
    uint64_t size;         /* bytes; of a symlink: length of its target */
    uint64_t blocks_bytes; /* bytes on disk */
    int64_t mtime_ns;      /* since 1970 */
    int64_t ctime_ns;
    uint64_t ino;
    uint64_t dev;
    uint32_t nlink;
    uint32_t uid;
    bool whiteout; /* TREE_OTHER: in an overlay's upper layer, "nothing is here" */
};

/* Hold the directory `path` (ours, absolute, else -EINVAL; it may lead over symlinks, the last time
 * that one is followed). The tree keeps its dev:ino for tree_same(). */
int tree_open(const char *path, struct tree **ret, struct err *e) WARN_UNUSED;
void tree_free(struct tree *t);
void tree_freep(struct tree **t);

/* The root's descriptor (O_PATH | O_DIRECTORY), borrowed; its device and inode. */
int tree_fd(const struct tree *t);
void tree_root_id(const struct tree *t, uint64_t *ret_dev, uint64_t *ret_ino);
/* Does `path` still name the directory that is held? A moved or replaced root returns false. */
bool tree_same(const struct tree *t, const char *path);

int tree_stat(
    const struct tree *t, const char *path, struct tree_stat *ret, struct err *e) WARN_UNUSED;
void tree_stat_of(const struct stat *st, struct tree_stat *ret);

/* Open a regular file for reading; its fstat in ret_stat (may be NULL). -EISDIR for a directory,
 * -ELOOP for a symlink, -TREE_NOT_REGULAR for anything else; also when it could not be opened. */
int tree_open_file(const struct tree *t, const char *path, int *ret_fd, struct tree_stat *ret_stat,
    struct err *e) WARN_UNUSED;

/* Open a directory for reading (an ordinary descriptor, not O_PATH). */
int tree_open_dir(const struct tree *t, const char *path, int *ret_fd, struct err *e) WARN_UNUSED;

/* A symlink's target, at most PATH_BYTES_MAX bytes, into b (initialised by the caller). -EINVAL if
 * path is no symlink. */
int tree_readlink(const struct tree *t, const char *path, struct buf *b, struct err *e) WARN_UNUSED;

/*
 * Modes, here and below: permission bits 0777 are taken, whatever umask says. Set-id and sticky
 * bits are never given; a directory keeps the setgid and sticky bits that it has or inherits.
 */

/* mkdir; -EEXIST if anything is there. The directory gets mode | u+rwx. */
int tree_mkdir(const struct tree *t, const char *path, uint32_t mode, struct err *e) WARN_UNUSED;
/* Make the parents of path (not path itself) as far as they are missing, mode 0755. */
int tree_make_parents(const struct tree *t, const char *path, struct err *e) WARN_UNUSED;

/* A symlink; -EEXIST if anything is there. The target is stored as it is and never followed here.
 */
int tree_symlink(
    const struct tree *t, const char *target, const char *path, struct err *e) WARN_UNUSED;

/* chmod a regular file or directory by descriptor; a directory keeps u+rwx, a file u+r. -ELOOP for
 * a symlink, -TREE_NOT_REGULAR for anything else. Works on what has mode 000. Needs /proc before
 * Linux 6.6 (-ENOSYS). */
int tree_chmod(const struct tree *t, const char *path, uint32_t mode, struct err *e) WARN_UNUSED;
/* Exactly this mode for the root itself, even while it gives its owner no right at all. */
int tree_chmod_root(const struct tree *t, uint32_t mode, struct err *e) WARN_UNUSED;

/*
 * Put the staged entry stage_fd/stage_name (a file, symlink or whole directory tree on the same
 * file system, -EXDEV if not; ours; one component) under `path`, whose parent must exist. If
 * something is at path it is exchanged (RENAME_EXCHANGE), and afterwards lies at
 * stage_fd/stage_name for the caller to examine and remove: *ret_displaced says whether. Without
 * anything there: RENAME_NOREPLACE, retried as an exchange when somebody was quicker.
 *
 * On a file system without RENAME_EXCHANGE the name is missing for a moment; a crash then leaves
 * the staged entry in its stage, and placing it again finishes the work. When somebody takes the
 * name in that moment theirs stays: -EBUSY, the entry is still staged, and what was there before
 * lies beside it as "aside-" + 16 hexadecimal digits. -EBUSY too for a name that never holds still.
 * After any other failure everything is where it was.
 */
int tree_place(const struct tree *t, int stage_fd, const char *stage_name, const char *path,
    bool *ret_displaced, struct err *e) WARN_UNUSED;
/* The same where nothing is: -EEXIST otherwise, and nothing was touched. */
int tree_place_new(const struct tree *t, int stage_fd, const char *stage_name, const char *path,
    struct err *e) WARN_UNUSED;

/* Take the entry at path out of the tree to stage_fd/stage_name (one component, which must not
 * exist: -EEXIST). */
int tree_take(const struct tree *t, const char *path, int stage_fd, const char *stage_name,
    struct err *e) WARN_UNUSED;

/* Rename within the tree. -EEXIST when `to` exists and !replace. The parent of `to` must exist.
 * When both are hard links of one file, `from` goes. */
int tree_move(const struct tree *t, const char *from, const char *to, bool replace,
    struct err *e) WARN_UNUSED;

/* Another name, in `to`, for the file at `path` of `from`; -EEXIST if anything is there, -EMLINK if it
 * has too many. Both trees are on one file system. */
int tree_link(const struct tree *from, const struct tree *to, const char *path,
    struct err *e) WARN_UNUSED;

/* Unlink a file or symlink (not a directory), or remove an empty directory. */
int tree_unlink(const struct tree *t, const char *path, struct err *e) WARN_UNUSED;
int tree_rmdir(const struct tree *t, const char *path, struct err *e) WARN_UNUSED;

/*
 * Remove everything at dir_fd/name, whatever it is: iterative (no recursion, a bounded number of
 * descriptors at any depth), never follows a symlink, gives itself u+rwx on directories that lost
 * it. name is one component. Missing is success. Works for our own staging trees too. Mount points
 * are not entered (-EXDEV). On failure everything else is removed all the same; while a program
 * keeps adding names the end is -ENOTEMPTY or -EBUSY.
 */
int tree_remove_at(int dir_fd, const char *name, struct err *e) WARN_UNUSED;
int tree_remove(const struct tree *t, const char *path, struct err *e) WARN_UNUSED;

/*
 * Visit everything beneath `path` ("" = all) without following symlinks: a directory is visited
 * before what it holds, entries of one directory in byte order of their names. Iterative; entries
 * that vanish meanwhile are skipped; entries that cannot be read are told with `fault` (a positive
 * errno) and the walk goes on. Paths longer or deeper than path_check allows: fault ENAMETOOLONG
 * (`path` is then not in the checked form).
 *
 * A directory is opened before its visit and listed after it: a visitor that starts to watch it
 * misses nothing. Each path is visited once, but if the listing itself then fails (EIO; ENOBUFS above
 * 256 MiB of names held at one time) the directory is visited once more, with that fault, and counts
 * as empty. Swapped for something else halfway, the rest of a directory counts as vanished. At most
 * 66 descriptors.
 */
enum tree_visit { TREE_VISIT_GO, TREE_VISIT_SKIP /* do not descend */, TREE_VISIT_STOP };
struct tree_entry {
    const char *path; /* relative to the tree's root; valid during the call */
    const char *name;
    struct tree_stat stat; /* as of the visit; zeroed if fault is ENAMETOOLONG or the stat failed */
    int fault;             /* 0, or why this entry (or this directory's listing) cannot be read */
    int dir_fd; /* of a directory that will be listed if the visitor lets it; lent; else -1 */
};
typedef enum tree_visit tree_visitor(const struct tree_entry *entry, void *ctx);
/* 0 when finished or stopped by the visitor, -errno if `path` itself cannot be opened. */
int tree_walk(const struct tree *t, const char *path, tree_visitor *visit, void *ctx,
    struct err *e) WARN_UNUSED;

/* The same; `listed` is told of each directory that was listed, `path` itself included, before any
 * of its entries is visited. names: NULL when the listing failed; valid during the call. */
struct tree_names;
typedef void tree_lister(const char *path, const struct tree_names *names, void *ctx);
int tree_walk_listed(const struct tree *t, const char *path, tree_visitor *visit,
    tree_lister *listed, void *ctx, struct err *e) WARN_UNUSED;
/* Is a name among them that may open as this one? In any case of ASCII letters, since there are
 * directories that know no difference. */
bool tree_names_may_have(const struct tree_names *names, const char *name);

/*
 * The calling thread's identity for file access: fsgid first, then fsuid (and back in the other
 * order). Affects this thread only. A server without root has nothing to switch: uid equal to the
 * process's own is a no-op. Threads that use SQLite or serve HTTP never carry one.
 * tree_identity_enter verifies that the switch took place (-EPERM, and the thread is as before).
 * Root's supplementary groups stay: the program drops them when it starts. tree_identity_leave
 * aborts if the kernel refuses, which it never does to the thread that entered.
 */
struct tree_identity {
    uid_t uid;
    gid_t gid;
};
int tree_identity_enter(
    struct tree_identity id, struct tree_identity *ret_previous, struct err *e) WARN_UNUSED;
void tree_identity_leave(struct tree_identity previous);

/* For tests: pretend the kernel has no openat2. */
void tree_test_no_openat2(bool on);

#endif
