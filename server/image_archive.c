/* SPDX-License-Identifier: MIT */
#include "server/image_archive.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "shared/banned.h"

#define READ_BYTES (256 * 1024)

struct image_archive {
    struct archive *archive;
    image_read *read;
    void *ctx;
    int fault; /* of `read`, -errno */
    uint8_t buffer[READ_BYTES];
};

static la_ssize_t pull(struct archive *archive, void *ctx, const void **ret)
{
    struct image_archive *a = ctx;
    ssize_t n = a->read(a->ctx, a->buffer, sizeof a->buffer);
    *ret = a->buffer;
    if (n < 0) {
        a->fault = (int)n;
        archive_set_error(archive, (int)-n, "reading failed");
        return ARCHIVE_FATAL;
    }
    return n;
}

static int failed(struct image_archive *a, struct err *e)
{
    const char *why = archive_error_string(a->archive);
    if (a->fault)
        return err_set(e, -a->fault, "read the archive");
    return err_say(e, EINVAL,
        "this is no archive that can be read (%.200s): give a tar file, plain or packed with gzip, "
        "zstd or xz",
        why ? why : "unknown format");
}

int image_archive_open(image_read *read, void *ctx, struct image_archive **ret, struct err *e)
{
    CLEANUP(image_archive_freep) struct image_archive *a = calloc(1, sizeof *a);
    *ret = NULL;
    if (!a || !(a->archive = archive_read_new()))
        return err_set(e, ENOMEM, "open the archive");
    a->read = read;
    a->ctx = ctx;
    /* ARCHIVE_WARN: would start a program; a packed archive is then refused as unknown. */
    if (archive_read_support_format_tar(a->archive) != ARCHIVE_OK ||
        archive_read_support_filter_gzip(a->archive) != ARCHIVE_OK ||
        archive_read_support_filter_zstd(a->archive) != ARCHIVE_OK ||
        archive_read_support_filter_xz(a->archive) != ARCHIVE_OK)
        return err_say(e, ENOTSUP, "libarchive was built without tar, gzip, zstd or xz");
    if (archive_read_open(a->archive, a, NULL, pull, NULL) != ARCHIVE_OK)
        return failed(a, e);
    *ret = ptr_take(&a);
    return 0;
}

static enum image_kind kind_of(struct archive_entry *entry)
{
    if (archive_entry_hardlink(entry))
        return IMAGE_LINK;
    switch (archive_entry_filetype(entry)) {
    case S_IFREG:
        return IMAGE_FILE;
    case S_IFDIR:
        return IMAGE_DIR;
    case S_IFLNK:
        return IMAGE_SYMLINK;
    default:
        return IMAGE_OTHER;
    }
}

int image_archive_next(struct image_archive *a, struct image_entry *ret, struct err *e)
{
    struct archive_entry *entry = NULL;
    int r = archive_read_next_header(a->archive, &entry);
    if (r == ARCHIVE_EOF)
        return 0;
    if (r < ARCHIVE_WARN || !entry)
        return failed(a, e);
    enum image_kind kind = kind_of(entry);
    int64_t size = archive_entry_size(entry);
    int64_t uid = archive_entry_uid(entry), gid = archive_entry_gid(entry);
    *ret = (struct image_entry){.path = archive_entry_pathname(entry),
        .target = kind == IMAGE_LINK      ? archive_entry_hardlink(entry)
                  : kind == IMAGE_SYMLINK ? archive_entry_symlink(entry)
                                          : NULL,
        .kind = kind,
        .mode = archive_entry_perm(entry) & 07777,
        .uid = uid < 0 ? UINT64_MAX : (uint64_t)uid,
        .gid = gid < 0 ? UINT64_MAX : (uint64_t)gid,
        .size = size < 0 ? 0 : (uint64_t)size,
        .mtime_s = archive_entry_mtime(entry),
        .mtime_ns = archive_entry_mtime_nsec(entry)};
    if (!ret->path || (!ret->target && (kind == IMAGE_LINK || kind == IMAGE_SYMLINK)))
        return err_say(e, EINVAL, "an entry of the archive has no readable name");
    return 1;
}

int image_archive_data(struct image_archive *a, struct image_piece *ret, struct err *e)
{
    la_int64_t offset = 0;
    int r = archive_read_data_block(a->archive, &ret->data, &ret->len, &offset);
    if (r == ARCHIVE_EOF)
        return 0;
    if (r < ARCHIVE_OK || offset < 0)
        return failed(a, e);
    ret->offset = (uint64_t)offset;
    return 1;
}

void image_archive_free(struct image_archive *a)
{
    if (a && a->archive)
        (void)archive_read_free(a->archive);
    free(a);
}

void image_archive_freep(struct image_archive **a)
{
    image_archive_free(*a);
    *a = NULL;
}
