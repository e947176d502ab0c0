/* SPDX-License-Identifier: MIT */
/* Signatures of large files: `.silt/sig/<hash>-<size>`, each with a checksum of its own. */
#include "agent/index.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/index_internal.h"
#include "shared/io.h"
#include "shared/num.h"

#include "shared/banned.h"

#define SIG_BYTES_MAX (UINT64_C(128) * 1024 * 1024) /* of one */
#define NAME_BYTES 96

static void sig_name(const struct hash *hash, uint64_t size, char out[NAME_BYTES])
{
    char text[HASH_TEXT_BYTES];
    (void)snprintf(out, NAME_BYTES, INDEX_SIG_DIR "/%s-%" PRIu64,
        hash_text(hash, text) + strlen(HASH_PREFIX), size);
}

int index_sig_load(struct index *ix, const struct hash *hash, uint64_t size, struct delta_sig **ret)
{
    char name[NAME_BYTES];
    CLEANUP(buf_release) struct buf b;
    buf_init(&b, SIG_BYTES_MAX);
    sig_name(hash, size, name);
    CLEANUP(fd_closep) int fd = openat(ix->dir_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -ENOENT;
    int r = io_read_rest(fd, &b);
    if (r == 0)
        r = delta_sig_load(b.data, b.len, ret, NULL);
    if (r == 0 && delta_sig_size(*ret) != size) {
        delta_sig_freep(ret);
        r = -EBADMSG;
    }
    if (r == -ENOMEM)
        return r;
    if (r < 0) {
        (void)unlinkat(ix->dir_fd, name, 0);
        return -ENOENT;
    }
    /* Used now: the ones that go first are those not used for long. */
    (void)futimens(fd, NULL);
    return 0;
}

int index_sig_save(struct index *ix, const struct hash *hash, const struct delta_sig *sig)
{
    char name[NAME_BYTES];
    CLEANUP(buf_release) struct buf b;
    buf_init(&b, SIG_BYTES_MAX);
    sig_name(hash, delta_sig_size(sig), name);
    int r = delta_sig_save(sig, &b);
    if (r < 0)
        return r;
    /* A half-written one fails its checksum: no need of a temporary. */
    CLEANUP(fd_closep)
    int fd = openat(ix->dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0 && errno == ENOENT && mkdirat(ix->dir_fd, INDEX_SIG_DIR, 0700) == 0)
        fd = openat(ix->dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    ix->sigs_saved++;
    return io_write_all(fd, b.data, b.len);
}

struct stored {
    char name[NAME_BYTES];
    uint64_t bytes;
    int64_t used_ns;
};

/* Does the manifest hold a file that this name of a signature belongs to? */
static bool is_needed(const struct index *ix, const char *name)
{
    char text[HASH_TEXT_BYTES];
    struct hash hash;
    uint64_t size = 0;
    if (strlen(name) < 2 * HASH_BYTES + 2 || name[2 * HASH_BYTES] != '-')
        return false;
    (void)snprintf(text, sizeof(text), "%s%.*s", HASH_PREFIX, 2 * HASH_BYTES, name);
    return hash_parse(text, &hash) == 0 &&
           num_u64(name + 2 * HASH_BYTES + 1, UINT64_MAX, &size) == 0 &&
           manifest_by_hash(ix->manifest, &hash, size) != NULL;
}

static int by_use(const void *a, const void *b)
{
    const struct stored *x = a, *y = b;
    return (x->used_ns > y->used_ns) - (x->used_ns < y->used_ns);
}

/* Take what is stored into an array, dropping what nothing needs. */
static size_t list_needed(const struct index *ix, DIR *dir, struct stored **ret)
{
    size_t count = 0, cap = 0;
    struct dirent *d;
    while ((d = readdir(dir)) != NULL) {
        struct stat st;
        if (d->d_name[0] == '.' || strlen(d->d_name) >= NAME_BYTES)
            continue;
        if (!is_needed(ix, d->d_name) ||
            fstatat(dirfd(dir), d->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
            (void)unlinkat(dirfd(dir), d->d_name, 0);
            continue;
        }
        if (count == cap) {
            size_t more = cap ? cap * 2 : 64;
            struct stored *v = realloc(*ret, more * sizeof(*v));
            if (!v)
                break;
            *ret = v;
            cap = more;
        }
        struct stored *s = &(*ret)[count++];
        memcpy(s->name, d->d_name, strlen(d->d_name) + 1);
        s->bytes = (uint64_t)st.st_size;
        s->used_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    }
    return count;
}

void index_sig_tidy(struct index *ix)
{
    ix->sigs_saved = 0;
    int fd = openat(ix->dir_fd, INDEX_SIG_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    CLEANUP(dir_closep) DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (!dir) {
        if (fd >= 0)
            (void)close(fd);
        return;
    }
    CLEANUP(freep) struct stored *all = NULL;
    size_t count = list_needed(ix, dir, &all);
    uint64_t total = 0;
    for (size_t i = 0; i < count; i++)
        total += all[i].bytes;
    if (total <= INDEX_SIGS_MAX_BYTES)
        return;
    qsort(all, count, sizeof(*all), by_use);
    for (size_t i = 0; i < count && total > INDEX_SIGS_MAX_BYTES; i++) {
        (void)unlinkat(dirfd(dir), all[i].name, 0);
        total -= all[i].bytes;
    }
}
