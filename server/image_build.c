/* SPDX-License-Identifier: MIT */
#include "server/image_build.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "server/image_archive.h"
#include "server/image_manifest.h"
#include "server/image_root.h"
#include "shared/io.h"

#include "shared/banned.h"

/* Bytes on their way into an archive, and their digest. */
struct source {
    int fd;
    struct image_digest *digest;
};

static ssize_t read_source(void *ctx, void *data, size_t len)
{
    struct source *s = ctx;
    ssize_t n = io_read_full(s->fd, data, len);
    if (n > 0)
        image_digest_add(s->digest, data, (size_t)n);
    return n;
}

/* What stands behind the archive's end belongs to the file, too. */
static int finish_source(struct source *s, char digest[IMAGE_DIGEST_BYTES], struct err *e)
{
    char data[16384];
    ssize_t n;
    while ((n = read_source(s, data, sizeof data)) > 0)
        ;
    image_digest_text(s->digest, digest);
    return n < 0 ? err_set(e, (int)-n, "read the archive") : 0;
}

/* ---- layers */

enum pass { PASS_HIDE, PASS_ADD };

/* One reading of a layer: first for what it hides of the layers below, as its own entries of the
 * same names must stay, then for what it adds. */
static int read_layer(struct image_root *root, const struct image_blobs *blobs,
    const struct image_blob *layer, enum pass pass, struct err *e)
{
    char digest[IMAGE_DIGEST_BYTES];
    struct image_entry entry;
    CLEANUP(fd_closep) int fd = -1;
    CLEANUP(image_digest_freep) struct image_digest *d = image_digest_new();
    CLEANUP(image_archive_freep) struct image_archive *archive = NULL;
    int r = d ? image_blobs_open(blobs, layer, &fd, e) : err_set(e, ENOMEM, "read a layer");
    struct source source = {fd, d};
    if (r == 0)
        r = image_archive_open(read_source, &source, &archive, e);
    while (r == 0 && (r = image_archive_next(archive, &entry, e)) > 0) {
        r = 0;
        if (pass == PASS_HIDE)
            r = image_root_hide(root, entry.path, e);
        else if (!image_root_hides(entry.path))
            r = image_root_add(root, archive, &entry, e);
    }
    if (r < 0)
        return r;
    r = finish_source(&source, digest, e);
    return r < 0 ? r : image_blobs_compare(layer, digest, e);
}

static int apply_layers(struct image_root *root, const struct image_blobs *blobs,
    const struct image_parts *parts, struct err *e)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < parts->count; i++) {
        if (i > 0)
            r = read_layer(root, blobs, &parts->layers[i], PASS_HIDE, e);
        if (r == 0)
            r = read_layer(root, blobs, &parts->layers[i], PASS_ADD, e);
        if (r < 0)
            return err_wrap(e, "layer %zu of %zu", i + 1, parts->count);
    }
    return r;
}

/* ---- documents */

static int read_index(const struct image_blobs *blobs, struct image_parts *parts, struct err *e)
{
    struct image_blob blob = {.name = "index.json", .size = UINT64_MAX};
    bool index = true;
    for (int depth = 0; index; depth++) {
        CLEANUP(buf_release) struct buf text;
        int r = image_blobs_text(blobs, &blob, &text, e);
        if (r == 0 && depth == IMAGE_INDEX_DEPTH)
            r = err_say(e, EINVAL, "the image is broken: its indexes name each other");
        if (r == 0)
            r = image_manifest_index(
                buf_str(&text), text.len, image_architecture(), &blob, &index, e);
        if (r < 0)
            return r;
    }
    CLEANUP(buf_release) struct buf text;
    int r = image_blobs_text(blobs, &blob, &text, e);
    return r < 0 ? r : image_manifest_oci(buf_str(&text), text.len, parts, e);
}

static int read_manifest(const struct image_blobs *blobs, struct image_parts *parts, struct err *e)
{
    const struct image_blob blob = {.name = "manifest.json", .size = UINT64_MAX};
    CLEANUP(buf_release) struct buf text;
    int r = image_blobs_text(blobs, &blob, &text, e);
    return r < 0 ? r : image_manifest_docker(buf_str(&text), text.len, parts, e);
}

static int build_parts(struct image_root *root, const struct image_blobs *blobs, struct image *ret,
    struct err *e)
{
    CLEANUP(image_parts_release) struct image_parts parts = {.layers = NULL};
    CLEANUP(buf_release) struct buf text;
    buf_init(&text, 0);
    bool docker = image_blobs_has(blobs, "manifest.json");
    if (!docker && !image_blobs_has(blobs, "index.json"))
        return err_say(e, EINVAL,
            "the archive holds neither a root file system nor an image (manifest.json, index.json)");
    int r = docker ? read_manifest(blobs, &parts, e) : read_index(blobs, &parts, e);
    if (r == 0)
        r = image_blobs_text(blobs, &parts.config, &text, e);
    if (r == 0)
        r = image_manifest_config(
            buf_str(&text), text.len, image_architecture(), &parts, ret, e);
    if (r < 0)
        return r;
    (void)snprintf(ret->format, sizeof ret->format, docker ? "docker" : "oci");
    (void)snprintf(ret->digest, sizeof ret->digest, "%s", parts.config.digest);
    ret->layers = parts.count;
    return apply_layers(root, blobs, &parts, e);
}

/* ---- an archive, whatever it holds */

/* The first entry that no image's archive has makes it a plain root. */
static int read_archive(struct image_root *root, struct image_blobs *blobs,
    struct image_archive *archive, bool *ret_plain, struct err *e)
{
    struct image_entry entry;
    bool plain = false;
    int r;
    while ((r = image_archive_next(archive, &entry, e)) > 0) {
        int taken = plain ? 0 : image_blobs_take(blobs, archive, &entry, e);
        if (taken < 0)
            return taken;
        plain = plain || (!taken && !image_blobs_any(blobs));
        if (plain && (r = image_root_add(root, archive, &entry, e)) < 0)
            return r;
    }
    *ret_plain = plain;
    return r;
}

static int build_archive(
    const struct image_build *build, struct image_root *root, struct image *ret, struct err *e)
{
    char digest[IMAGE_DIGEST_BYTES];
    bool plain = false;
    CLEANUP(image_blobs_freep) struct image_blobs *blobs = NULL;
    CLEANUP(image_digest_freep) struct image_digest *d = image_digest_new();
    CLEANUP(image_archive_freep) struct image_archive *archive = NULL;
    struct source source = {build->file, d};
    int r = d ? image_blobs_new(build->parts, root, &blobs, e) : err_set(e, ENOMEM, "read an image");
    if (r == 0)
        r = image_archive_open(read_source, &source, &archive, e);
    if (r == 0)
        r = read_archive(root, blobs, archive, &plain, e);
    if (r == 0)
        r = finish_source(&source, digest, e);
    if (r < 0 || !plain)
        return r < 0 ? r : build_parts(root, blobs, ret, e);
    (void)snprintf(ret->format, sizeof ret->format, "tar");
    (void)snprintf(ret->digest, sizeof ret->digest, "%s", digest);
    ret->layers = 1;
    return 0;
}

int image_build(const struct image_build *build, struct image *ret, struct err *e)
{
    CLEANUP(image_root_release) struct image_root root;
    image_root_init(&root, build->root, build->min_free_bytes);
    int r = image_root_room(&root, 0, e);
    if (r == 0)
        r = build->layout ? build_parts(&root, build->layout, ret, e)
                          : build_archive(build, &root, ret, e);
    if (r == 0)
        r = image_root_finish(&root, e);
    ret->bytes = root.bytes;
    ret->entries = root.entries;
    ret->left_out = root.left_out;
    return r;
}
