/* SPDX-License-Identifier: MIT */
/*
 * For the tests of images: archives made by hand, byte by byte, so that they may hold what no tool
 * would write, and a folder with something outside of the root that must stay as it is.
 */
#ifndef TESTS_IMAGE_FIXTURE_H
#define TESTS_IMAGE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "server/image_digest.h"
#include "server/image_manifest.h"
#include "shared/buf.h"
#include "shared/io.h"
#include "shared/tree.h"

#define TAR_BYTES_MAX (8 * 1024 * 1024)

/* One entry; type as in tar: '0' file, '1' link, '2' symlink, '3' device, '5' folder, '6' FIFO. */
struct tar_entry {
    char type;
    const char *name, *text; /* content of a file, target of a link */
    unsigned mode;           /* 0: 0644 */
    unsigned uid;
    uint64_t size; /* claimed; 0: of the text */
};

static inline void tar_field(char *at, size_t width, uint64_t value)
{
    char text[24];
    (void)snprintf(text, sizeof text, "%0*llo", (int)width - 1, (unsigned long long)value);
    memcpy(at, text, width - 1);
}

static inline void tar_raw(struct buf *tar, const struct tar_entry *e, const char *name,
    const char *content, uint64_t size)
{
    char head[512] = {0};
    unsigned sum = 0;
    bool file = e->type == '0' || e->type == 'L';
    memcpy(head, name, strlen(name) > 100 ? 100 : strlen(name));
    tar_field(head + 100, 8, e->mode ? e->mode : 0644);
    tar_field(head + 108, 8, e->uid);
    tar_field(head + 116, 8, e->uid);
    if (size >> 33) { /* beyond eleven octal digits: base 256 */
        head[124] = (char)0x80;
        for (int i = 0; i < 8; i++)
            head[135 - i] = (char)(size >> (8 * i));
    } else {
        tar_field(head + 124, 12, file ? size : 0);
    }
    tar_field(head + 136, 12, 1000000000);
    memset(head + 148, ' ', 8);
    head[156] = e->type;
    if (!file && content)
        memcpy(head + 157, content, strlen(content));
    memcpy(head + 257, "ustar", 6);
    memcpy(head + 263, "00", 2);
    for (size_t i = 0; i < sizeof head; i++)
        sum += (unsigned char)head[i];
    tar_field(head + 148, 7, sum);
    assert_int_equal(buf_add(tar, head, sizeof head), 0);
    if (!file || !content)
        return;
    static const char zeros[512];
    size_t len = strlen(content);
    assert_int_equal(buf_add(tar, content, len), 0);
    assert_int_equal(buf_add(tar, zeros, (512 - len % 512) % 512), 0);
}

static inline void tar_add(struct buf *tar, const struct tar_entry *e)
{
    if (strlen(e->name) > 99) {
        const struct tar_entry name = {.type = 'L'};
        tar_raw(tar, &name, "././@LongLink", e->name, strlen(e->name));
    }
    tar_raw(tar, e, e->name, e->text, e->size ? e->size : e->text ? strlen(e->text) : 0);
}

static inline void tar_end(struct buf *tar)
{
    static const char zeros[1024];
    assert_int_equal(buf_add(tar, zeros, sizeof zeros), 0);
}

/* All entries up to one without a name. */
static inline void tar_make(struct buf *tar, const struct tar_entry *entries)
{
    buf_init(tar, TAR_BYTES_MAX);
    for (; entries->name; entries++)
        tar_add(tar, entries);
    tar_end(tar);
}

/* ---- what `docker save` makes of layers */

static inline void tar_blob(struct buf *tar, const char *name, const struct buf *content)
{
    static const char zeros[512];
    const struct tar_entry e = {.type = '0'};
    tar_raw(tar, &e, name, NULL, content->len);
    assert_int_equal(buf_add(tar, buf_str(content), content->len), 0);
    assert_int_equal(buf_add(tar, zeros, (512 - content->len % 512) % 512), 0);
}

static inline void digest_of(const struct buf *content, char out[IMAGE_DIGEST_BYTES])
{
    struct image_digest *d = image_digest_new();
    image_digest_add(d, buf_str(content), content->len);
    image_digest_text(d, out);
    image_digest_free(d);
}

#define DOCKER_LAYERS_MAX 4

/* `bad` < count: the content of that layer is not what its name says. */
static inline void docker_make(struct buf *tar, struct buf *layers, size_t count, size_t bad)
{
    char digests[DOCKER_LAYERS_MAX][IMAGE_DIGEST_BYTES], config_digest[IMAGE_DIGEST_BYTES];
    char name[160];
    struct buf config, manifest;
    buf_init(tar, TAR_BYTES_MAX);
    buf_init(&config, 65536);
    buf_init(&manifest, 65536);
    assert_int_equal(buf_addf(&config, "{\"architecture\":\"%s\",\"os\":\"linux\",\"config\":{\"Env\":"
                                       "[\"PATH=/opt/bin:/bin\",\"A=b\"]},\"rootfs\":{\"type\":"
                                       "\"layers\",\"diff_ids\":[",
                         image_architecture()),
        0);
    for (size_t i = 0; i < count; i++) {
        digest_of(&layers[i], digests[i]);
        assert_int_equal(buf_addf(&config, "%s\"%s\"", i ? "," : "", digests[i]), 0);
    }
    assert_int_equal(buf_adds(&config, "]}}"), 0);
    digest_of(&config, config_digest);
    assert_int_equal(buf_addf(&manifest, "[{\"Config\":\"%s.json\",\"RepoTags\":[\"a:b\"],\"Layers\":[",
                         config_digest + 7),
        0);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(
            buf_addf(&manifest, "%s\"%s/layer.tar\"", i ? "," : "", digests[i] + 7), 0);
        if (i == bad)
            layers[i].data[layers[i].len - 1] ^= 1;
        (void)snprintf(name, sizeof name, "%s/layer.tar", digests[i] + 7);
        tar_blob(tar, name, &layers[i]);
    }
    assert_int_equal(buf_adds(&manifest, "]}]"), 0);
    (void)snprintf(name, sizeof name, "%s.json", config_digest + 7);
    tar_blob(tar, name, &config);
    tar_blob(tar, "manifest.json", &manifest);
    tar_end(tar);
    buf_release(&config);
    buf_release(&manifest);
}

/* ---- a place to build in */

struct image_place {
    char base[64];
    int root, parts;
};

static inline void place_path(const struct image_place *p, const char *name, char out[256])
{
    (void)snprintf(out, 256, "%s/%s", p->base, name);
}

static inline void place_new(struct image_place *p)
{
    char path[256];
    (void)snprintf(p->base, sizeof p->base, "/tmp/silt-image-XXXXXX");
    assert_non_null(mkdtemp(p->base));
    static const char *const dirs[] = {"root", "parts", "outside"};
    for (size_t i = 0; i < 3; i++) {
        place_path(p, dirs[i], path);
        assert_int_equal(mkdir(path, 0755), 0);
    }
    place_path(p, "outside/secret", path);
    assert_int_equal(io_write_file(path, "secret", 6, 0600, NULL), 0);
    place_path(p, "root", path);
    p->root = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    place_path(p, "parts", path);
    p->parts = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(p->root >= 0 && p->parts >= 0);
}

/* Outside there is one file with one name and six bytes, and beside the folders nothing new. */
static inline void place_untouched(const struct image_place *p, const char *after)
{
    char path[256];
    struct buf content;
    struct stat st;
    unsigned links = 0;
    place_path(p, "outside/secret", path);
    if (lstat(path, &st) < 0 || !S_ISREG(st.st_mode) || st.st_nlink != 1 ||
        (st.st_mode & 07777) != 0600 || io_read_file(path, 64, &content, NULL) < 0)
        fail_msg("after %s the file outside is not what it was", after);
    if (strcmp(buf_str(&content), "secret") != 0)
        fail_msg("after %s the file outside holds '%s'", after, buf_str(&content));
    buf_release(&content);
    static const char *const dirs[] = {"outside", ""};
    for (size_t i = 0; i < 2; i++) {
        place_path(p, dirs[i], path);
        DIR *d = opendir(path);
        for (struct dirent *e; (e = readdir(d));)
            links++;
        (void)closedir(d);
    }
    if (links != 2 + 1 + 2 + 3)
        fail_msg("after %s there are %u names outside of the root", after, links);
}

static inline void place_free(struct image_place *p)
{
    (void)close(p->root);
    (void)close(p->parts);
    CLEANUP(fd_closep) int tmp = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(tree_remove_at(tmp, p->base + 5, NULL), 0);
}

/* The archive as a file that was not written to any disk. */
static inline int memory_file(const struct buf *content)
{
    int fd = memfd_create("archive", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(io_write_all(fd, content->data, content->len), 0);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    return fd;
}

#endif
