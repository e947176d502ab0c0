/* SPDX-License-Identifier: MIT */
/*
 * What one side knows about a tree: path → kind, mode, size, times, inode, hash. The server's
 * manifest of a workspace and the agent's index of what the server acknowledged are both this table;
 * each keeps it on disk in its own way (server/store.c, agent/index.c). In memory only, no I/O; the
 * caller locks.
 *
 * Times and inode are those of the side that holds the table: they say whether a file must be
 * hashed again (manifest_unchanged), never whether two sides agree; that is what hashes are for.
 */
#ifndef SHARED_MANIFEST_H
#define SHARED_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/hash.h"
#include "shared/tree.h"

struct manifest_entry {
    char *path; /* path_check'd; owned by the table */
    enum tree_kind kind; /* never TREE_OTHER */
    uint32_t mode;
    uint64_t size;     /* files: bytes; directories: 0; symlinks: length of target */
    struct hash hash;  /* files: of the content; symlinks: of the target; directories: zeros */
    char *target;      /* symlinks only; owned */
    int64_t mtime_ns;
    int64_t ctime_ns;
    uint64_t ino;
    int64_t seen_ns; /* wall clock just before the stat that is recorded here was taken */
    bool by_run;     /* the server's: found in the workspace, so a program wrote it, no change set */
};

struct manifest;

struct manifest *manifest_new(void); /* NULL when out of memory */
void manifest_free(struct manifest *m);
void manifest_freep(struct manifest **m);

size_t manifest_count(const struct manifest *m);
/* Of those, files. */
size_t manifest_files(const struct manifest *m);
/* Sum of the sizes of files, bytes. */
uint64_t manifest_bytes(const struct manifest *m);

/* The entry at path, or NULL. Valid until that path is put or removed. */
const struct manifest_entry *manifest_get(const struct manifest *m, const char *path);

/* Copy *entry (path and target included) into the table, replacing what was there. -ENOMEM. */
int manifest_put(struct manifest *m, const struct manifest_entry *entry) WARN_UNUSED;

/* Remove one path / a path and everything beneath it. Returns how many entries went. */
size_t manifest_remove(struct manifest *m, const char *path);
size_t manifest_remove_tree(struct manifest *m, const char *path);

/* Rename from → to, with everything beneath; entries at or beneath `to` go first. -ENOENT if
 * there is nothing, -EINVAL if `to` lies beneath `from`. After -ENOMEM entries are missing: forget the
 * table and make it anew. */
int manifest_move(struct manifest *m, const char *from, const char *to) WARN_UNUSED;

/* Does any entry lie beneath dir? */
bool manifest_has_children(const struct manifest *m, const char *dir);

/* The files with this content, one after the other, in no order; NULL: no further one. `entry` is one
 * that these gave, or manifest_get did, of a file. */
const struct manifest_entry *manifest_same_first(const struct manifest *m, const struct hash *hash);
const struct manifest_entry *manifest_same_next(const struct manifest_entry *entry);

/* Any file whose content has this hash and size, or NULL: a source for a copy on the same side. */
const struct manifest_entry *manifest_by_hash(const struct manifest *m, const struct hash *hash,
    uint64_t size);

/* All entries in byte order of path: malloc'd array of borrowed pointers, count in *ret_count.
 * NULL when out of memory. Parents come before children. */
const struct manifest_entry **manifest_sorted(const struct manifest *m, size_t *ret_count);

/* Visit all entries, in no order, until visit returns something else than 0, which is returned. */
int manifest_each(const struct manifest *m,
    int (*visit)(const struct manifest_entry *entry, void *ctx), void *ctx);

/*
 * May the recorded hash be trusted for a file that looks like st now? Same kind, size, mtime, ctime
 * and inode, and the recorded times lie at least 10 ms before seen_ns: a stamp younger than that may
 * hide a second write within one tick of the kernel's clock (the "racy" rule of git's index). Where
 * the file system keeps whole seconds (ext4 with inodes of 128 bytes, old ext3, FAT) it is 2 s.
 */
bool manifest_unchanged(const struct manifest_entry *entry, const struct tree_stat *st);

/* A digest of the whole tree: equal on both sides exactly when every path, kind, permission (the
 * 0777 bits of files and directories), size and hash is equal. Order of insertion and times do not
 * matter. 0 or -ENOMEM. */
int manifest_digest(const struct manifest *m, struct hash *ret) WARN_UNUSED;
/* The same of the entries that no program wrote (by_run): equal to the digest of the index of the
 * one who filled the workspace, unless a program changed or removed one of its files. */
int manifest_digest_synced(const struct manifest *m, struct hash *ret) WARN_UNUSED;

#endif
