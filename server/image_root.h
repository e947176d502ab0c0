/* SPDX-License-Identifier: MIT */
/*
 * A root file system while it is made of an archive's entries, which somebody else wrote. Whatever
 * the entries say, nothing outside of the root is touched: names are checked (shared/path.h), the
 * folder of a name is resolved by the kernel as if the root were "/" (RESOLVE_IN_ROOT; a symlink
 * of an earlier layer leads where it would lead inside), and its last component is never followed.
 *
 *     image_root_init(&root, dir_fd, min_free_bytes)
 *     image_root_hide(&root, path, &e)          // what a layer takes away from those below it, first
 *     image_root_add(&root, archive, &entry, &e)   // then what it adds
 *     image_root_finish(&root, &e)              // places to mount on, users
 *     image_root_release(&root)
 *
 * What is kept of an entry: name, content, times of files, and a mode of at most 0755. The set-id
 * and sticky bits are dropped: inside they mean nothing (no_new_privs, nosuid), but on the host the
 * files are root's. The program's user is 1000, which owns nothing here, so what the archive gives
 * to user 1000 is given to everybody. Owners, extended attributes and capabilities are dropped;
 * devices, FIFOs and sockets are left out and counted.
 *
 * The folder is the caller's alone while it is filled. One thread. Needs openat2 (-ENOSYS).
 */
#ifndef SERVER_IMAGE_ROOT_H
#define SERVER_IMAGE_ROOT_H

#include "server/image_archive.h"
#include "shared/path.h"

#define IMAGE_BYTES_MAX (UINT64_C(64) << 30) /* of all content, holes counted */
#define IMAGE_ENTRIES_MAX UINT64_C(2000000)

struct image_root {
    int dir; /* borrowed */
    uint64_t min_free_bytes, unchecked_bytes;
    uint64_t bytes, entries, left_out;
    int parent; /* of the last entry, or -1 */
    char parent_path[PATH_BYTES_MAX + 1];
};

void image_root_init(struct image_root *root, int dir, uint64_t min_free_bytes);
void image_root_release(struct image_root *root);

/* Is there room for so many bytes more on the file system? PROTO_NO_SPACE. */
int image_root_room(struct image_root *root, uint64_t bytes, struct err *e) WARN_UNUSED;

/* A name as archives write it ("./usr/", "usr") in the checked form; "" is the root itself.
 * -EINVAL with a sentence. */
int image_root_path(const char *path, char out[PATH_BYTES_MAX + 1], struct err *e) WARN_UNUSED;

/* Does the name mean that something below is to be hidden (".wh.NAME", ".wh..wh..opq")? */
bool image_root_hides(const char *path);
/* Hide it. Anything else: nothing happens. */
int image_root_hide(struct image_root *root, const char *path, struct err *e) WARN_UNUSED;

/* Put the archive's current entry in place, over what is there. */
int image_root_add(struct image_root *root, struct image_archive *archive,
    const struct image_entry *entry, struct err *e) WARN_UNUSED;

/* The folders that every container mounts on (-EINVAL if the image has something else there), a
 * user 1000, a name for the loopback address. */
int image_root_finish(struct image_root *root, struct err *e) WARN_UNUSED;

/* A folder of the root, symlinks followed inside of it: O_PATH descriptor or -errno. */
int image_root_open(int dir, const char *path) WARN_UNUSED;

#endif
