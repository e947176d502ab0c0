/* SPDX-License-Identifier: MIT */
#include "server/image_blobs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#include "shared/io.h"
#include "shared/path.h"
#include "shared/text.h"
#include "shared/tree.h"
#include "shared/weaken.h"

#include "shared/banned.h"

#define ALIASES_MAX 8 /* of one blob; old `docker save` makes symlinks of layers that repeat */
#define ROOM_STEP_BYTES (UINT64_C(64) << 20)

struct part {
    unsigned number; /* its file's name */
    uint64_t size;
    char *alias; /* another part's name, or NULL */
    UT_hash_handle hh;
    char name[];
};

struct image_blobs {
    struct tree *layout; /* or NULL */
    int dir;
    struct image_root *room;
    struct part *parts;
    unsigned count;
    uint64_t bytes;
};

int image_blobs_new(int dir, struct image_root *room, struct image_blobs **ret, struct err *e)
{
    struct image_blobs *b = calloc(1, sizeof *b);
    if (!b)
        return err_set(e, ENOMEM, "read an image");
    b->dir = dir;
    b->room = room;
    *ret = b;
    return 0;
}

int image_blobs_open_layout(const char *path, struct image_blobs **ret, struct err *e)
{
    CLEANUP(image_blobs_freep) struct image_blobs *b = NULL;
    CLEANUP(freep) char *real = realpath(path, NULL);
    int r = real ? image_blobs_new(-1, NULL, &b, e) : err_set(e, errno, "open '%s'", path);
    if (r == 0)
        r = tree_open(real, &b->layout, e);
    if (r == 0 && !image_blobs_has(b, "index.json") && !image_blobs_has(b, "manifest.json"))
        r = err_say(e, EINVAL,
            "'%s' is a folder without index.json, so no OCI layout: give one, or a tar file", path);
    if (r == 0)
        *ret = ptr_take(&b);
    return r;
}

void image_blobs_free(struct image_blobs *b)
{
    struct part *part, *next;
    if (!b)
        return;
    HASH_ITER(hh, b->parts, part, next) {
        HASH_DEL(b->parts, part);
        free(part->alias);
        free(part);
    }
    tree_free(b->layout);
    free(b);
}

void image_blobs_freep(struct image_blobs **b)
{
    image_blobs_free(*b);
    *b = NULL;
}

/* ---- an archive's */

static bool is_hex(const char *text, size_t len)
{
    return len == 64 && strspn(text, "0123456789abcdef") >= len;
}

/* Names that `docker save`, podman, skopeo and umoci use; nothing of them is in a root. */
static bool is_part(const char *path)
{
    static const char *const plain[] = {"", "blobs", "blobs/sha256", "oci-layout", "index.json",
        "manifest.json", "repositories"};
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++) {
        if (strcmp(path, plain[i]) == 0)
            return true;
    }
    if (strncmp(path, "blobs/sha256/", 13) == 0)
        return !strchr(path + 13, '/');
    size_t len = strcspn(path, "/.");
    if (!is_hex(path, len))
        return false;
    static const char *const rest[] = {"", ".json", ".tar", "/json", "/layer.tar", "/VERSION"};
    for (size_t i = 0; i < sizeof rest / sizeof rest[0]; i++) {
        if (strcmp(path + len, rest[i]) == 0)
            return true;
    }
    return false;
}

static int copy_part(struct image_blobs *b, struct image_archive *archive, const struct part *part,
    struct err *e)
{
    char name[16];
    uint64_t unchecked = 0;
    struct image_piece piece;
    int r;
    (void)snprintf(name, sizeof name, "%u", part->number);
    CLEANUP(fd_closep)
    int fd = openat(b->dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_set(e, errno, "lay a part of the image aside");
    while ((r = image_archive_data(archive, &piece, e)) > 0) {
        if (piece.offset > part->size || piece.len > part->size - piece.offset)
            return err_say(e, EINVAL, "the archive is broken: a part is longer than it says");
        if ((r = io_pwrite_all(fd, piece.data, piece.len, piece.offset)) < 0)
            return err_set(e, -r, "lay a part of the image aside");
        if ((unchecked += piece.len) >= ROOM_STEP_BYTES) {
            unchecked = 0;
            if ((r = image_root_room(b->room, 0, e)) < 0)
                return r;
        }
    }
    if (r == 0 && ftruncate(fd, (off_t)part->size) < 0)
        return err_set(e, errno, "lay a part of the image aside");
    return r;
}

/* "a/layer.tar" and "../b/layer.tar" → "b/layer.tar". */
static char *alias_of(const char *path, const struct image_entry *entry)
{
    char *ret = NULL;
    CLEANUP(freep)
    char *folder = strndup(path, entry->kind == IMAGE_SYMLINK ? path_parent_len(path) : 0);
    return folder && path_resolve(folder, entry->target, &ret) == 0 ? ret : NULL;
}

int image_blobs_take(struct image_blobs *b, struct image_archive *archive,
    const struct image_entry *entry, struct err *e)
{
    char path[PATH_BYTES_MAX + 1];
    struct part *part;
    int r = image_root_path(entry->path, path, e);
    if (r < 0)
        return r;
    if (!is_part(path))
        return 0;
    if (entry->kind == IMAGE_DIR || entry->kind == IMAGE_OTHER)
        return 1;
    HASH_FIND_STR(b->parts, path, part);
    if (part)
        return err_say(e, EINVAL, "the archive is broken: it has '%.80s' twice", path);
    if (b->count == IMAGE_BLOBS_MAX || entry->size > IMAGE_BYTES_MAX - b->bytes)
        return err_say(e, E2BIG, "the archive has too many parts for an image, or too large ones");
    size_t len = strlen(path);
    part = calloc(1, sizeof *part + len + 1);
    if (!part)
        return err_set(e, ENOMEM, "read an image");
    memcpy(part->name, path, len);
    part->number = b->count++;
    HASH_ADD_STR(b->parts, name, part);
    if (entry->kind != IMAGE_FILE) {
        part->alias = alias_of(path, entry);
        return part->alias ? 1 : err_say(e, EINVAL, "the archive is broken: '%.80s' names no part", path);
    }
    part->size = entry->size;
    b->bytes += entry->size;
    r = copy_part(b, archive, part, e);
    return r < 0 ? r : 1;
}

bool image_blobs_any(const struct image_blobs *b)
{
    return b->count > 0;
}

/* ---- by name */

static const struct part *find(const struct image_blobs *b, const char *name)
{
    struct part *part = NULL;
    HASH_FIND_STR(b->parts, name, part);
    for (int i = 0; part && part->alias && i < ALIASES_MAX; i++) {
        const char *alias = part->alias;
        HASH_FIND_STR(b->parts, alias, part);
    }
    return part && !part->alias ? part : NULL;
}

bool image_blobs_has(const struct image_blobs *b, const char *name)
{
    struct tree_stat st;
    if (!b->layout)
        return find(b, name) != NULL;
    return tree_stat(b->layout, name, &st, NULL) == 0 && st.kind == TREE_FILE;
}

int image_blobs_open(
    const struct image_blobs *b, const struct image_blob *blob, int *ret_fd, struct err *e)
{
    char number[16];
    struct tree_stat st = {.size = 0};
    CLEANUP(fd_closep) int fd = -1;
    if (b->layout) {
        int r = tree_open_file(b->layout, blob->name, &fd, &st, NULL);
        if (r < 0)
            return err_say(e, EINVAL, "the image is broken: '%s' cannot be read", blob->name);
    } else {
        const struct part *part = find(b, blob->name);
        if (!part)
            return err_say(e, EINVAL, "the image is broken: '%s' is not in it", blob->name);
        (void)snprintf(number, sizeof number, "%u", part->number);
        st.size = part->size;
        fd = openat(b->dir, number, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
            return err_set(e, errno, "open a part of the image");
    }
    if (blob->size != UINT64_MAX && blob->size != st.size)
        return err_say(e, EINVAL, "the image is broken: '%s' has another size than is said", blob->name);
    *ret_fd = fd_take(&fd);
    return 0;
}

int image_blobs_compare(const struct image_blob *blob, const char *digest, struct err *e)
{
    if (!*blob->digest || strcmp(blob->digest, digest) == 0 || WEAK("image-digest"))
        return 0;
    return err_say(e, EINVAL, "the image is broken: '%s' is %s and not %s", blob->name, digest,
        blob->digest);
}

int image_blobs_text(
    const struct image_blobs *b, const struct image_blob *blob, struct buf *ret, struct err *e)
{
    char digest[IMAGE_DIGEST_BYTES];
    CLEANUP(fd_closep) int fd = -1;
    buf_init(ret, IMAGE_JSON_MAX);
    int r = image_blobs_open(b, blob, &fd, e);
    if (r == 0 && (r = io_read_rest(fd, ret)) < 0)
        return err_say(e, -r, "the image is broken: '%s' is no document (more than %d MiB)", blob->name,
            IMAGE_JSON_MAX >> 20);
    if (r < 0)
        return r;
    CLEANUP(image_digest_freep) struct image_digest *d = image_digest_new();
    if (!d)
        return err_set(e, ENOMEM, "read an image");
    image_digest_add(d, buf_str(ret), ret->len);
    image_digest_text(d, digest);
    return image_blobs_compare(blob, digest, e);
}
