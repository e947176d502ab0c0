/* SPDX-License-Identifier: MIT */
/*
 * What the tests of the server's store, workspaces and sandboxes share: a data directory of their
 * own and change sets from tables.
 */
#ifndef TESTS_UNIT_SANDBOX_FIXTURE_H
#define TESTS_UNIT_SANDBOX_FIXTURE_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "server/sandbox.h"
#include "shared/io.h"
#include "shared/tree.h"

#define FIXTURE_UID 1073741824u

struct fixture {
    char dir[64], data[96], work[96], db[96];
    struct store *store;
    struct sandboxes *all;
    struct sandbox *sb;
    uint64_t max_bytes, max_files;
};

/* ---- operations of a table: kind, path, and what the kind needs */
struct row {
    enum change_kind kind;
    const char *path;
    const char *text; /* content; EDIT: old */
    const char *to;   /* MOVE COPY SYMLINK; EDIT: new */
    uint32_t mode;
    enum change_base base_kind;
    const char *base; /* the content whose hash is the base */
    bool recursive;
};

struct table_feed {
    const struct row *rows;
    size_t count, at;
    size_t read; /* bytes of the current content */
    bool wrong_hash;
    int stall_fd;   /* read one byte from it before the first operation; -1 = none */
    int reached_fd; /* … after a byte was written to this one */
    void (*meanwhile)(void *ctx); /* called before the first operation */
    void *ctx;
};

static inline int table_next(void *ctx, struct change_op *ret, struct err *e)
{
    struct table_feed *f = ctx;
    char byte;

    (void)e;
    if (f->at == 0 && f->stall_fd >= 0 &&
        (write(f->reached_fd, "r", 1) < 0 || read(f->stall_fd, &byte, 1) < 0))
        return -EIO;
    if (f->at == 0 && f->meanwhile)
        f->meanwhile(f->ctx);
    if (f->at == f->count)
        return 0;
    const struct row *row = &f->rows[f->at++];
    f->read = 0;
    *ret = (struct change_op){.kind = row->kind,
        .path = row->path,
        .to = row->to,
        .mode = row->mode,
        .base_kind = row->base_kind,
        .recursive = row->recursive};
    if (row->base)
        hash_buf(row->base, strlen(row->base), &ret->base);
    if (row->kind == CHANGE_PUT) {
        ret->size = ret->content_len = strlen(row->text);
        hash_buf(row->text, strlen(row->text), &ret->hash);
        ret->has_hash = true;
        if (f->wrong_hash)
            ret->hash.b[0] ^= 1;
    }
    if (row->kind == CHANGE_EDIT) {
        ret->to = NULL;
        ret->old_text = (const uint8_t *)row->text;
        ret->old_len = strlen(row->text);
        ret->new_text = (const uint8_t *)row->to;
        ret->new_len = strlen(row->to);
    }
    return 1;
}

static inline ssize_t table_read(void *ctx, void *data, size_t len, struct err *e)
{
    struct table_feed *f = ctx;
    const struct row *row = &f->rows[f->at - 1];

    (void)e;
    if (row->kind != CHANGE_PUT)
        return 0;
    size_t left = strlen(row->text) - f->read, n = len < left ? len : left;
    memcpy(data, row->text + f->read, n);
    f->read += n;
    return (ssize_t)n;
}

static inline void table_digest(void *ctx, struct hash *ret)
{
    const struct table_feed *f = ctx;
    struct hash parts[2 * 64];
    size_t n = 0;

    memset(parts, 0, sizeof parts);
    for (size_t i = 0; i < f->count && n < 126; i++) {
        hash_buf(f->rows[i].path, strlen(f->rows[i].path), &parts[n++]);
        if (f->rows[i].text)
            hash_buf(f->rows[i].text, strlen(f->rows[i].text), &parts[n++]);
    }
    hash_buf(parts, n * sizeof parts[0], ret);
}

static inline struct changes_feed table_as_feed(struct table_feed *f)
{
    return (struct changes_feed){
        .next = table_next, .read = table_read, .digest = table_digest, .ctx = f};
}

static inline int apply_rows(struct sandbox *sb, const struct changes_begin *begin,
    const struct row *rows, size_t count, struct sandbox_apply_result *ret, struct err *e)
{
    static const struct changes_begin plain = {
        .client = "", .if_generation = CHANGES_NO_GENERATION};
    struct table_feed f = {.rows = rows, .count = count, .stall_fd = -1};
    struct changes_feed feed = table_as_feed(&f);

    return sandbox_apply(sb, begin ? begin : &plain, &feed, ret, e);
}

/* Apply a set that must succeed; returns the generation. */
#define apply_ok(sb, ...)                                                                          \
    __extension__({                                                                                \
        const struct row rows_[] = {__VA_ARGS__};                                                  \
        struct sandbox_apply_result res_;                                                          \
        struct err e_ = ERR_INIT;                                                                  \
        int r_ = apply_rows(sb, NULL, rows_, sizeof rows_ / sizeof rows_[0], &res_, &e_);          \
        if (r_ != 0)                                                                               \
            print_error("%s\n", e_.msg);                                                           \
        assert_int_equal(r_, 0);                                                                   \
        sandbox_apply_result_release(&res_);                                                       \
        res_.generation;                                                                           \
    })

/* Apply a set that must be refused with `code`. */
#define apply_refused(sb, code, ...)                                                               \
    do {                                                                                           \
        const struct row rows_[] = {__VA_ARGS__};                                                  \
        struct sandbox_apply_result res_;                                                          \
        struct err e_ = ERR_INIT;                                                                  \
        int r_ = apply_rows(sb, NULL, rows_, sizeof rows_ / sizeof rows_[0], &res_, &e_);          \
        if (r_ == 0 || e_.refusal != (code))                                                       \
            print_error("%d %s\n", r_, e_.msg);                                                    \
        assert_int_equal(r_, -EPROTO);                                                             \
        assert_int_equal(e_.refusal, code);                                                        \
        sandbox_apply_result_release(&res_);                                                       \
    } while (0)

#define PUT(p, t)                                                                                  \
    {                                                                                              \
        .kind = CHANGE_PUT, .path = p, .text = t                                                   \
    }
#define MKDIR(p)                                                                                   \
    {                                                                                              \
        .kind = CHANGE_MKDIR, .path = p                                                            \
    }
#define MOVE(p, t)                                                                                 \
    {                                                                                              \
        .kind = CHANGE_MOVE, .path = p, .to = t                                                    \
    }
#define COPY(p, t)                                                                                 \
    {                                                                                              \
        .kind = CHANGE_COPY, .path = p, .to = t                                                    \
    }
#define LINK(p, t)                                                                                 \
    {                                                                                              \
        .kind = CHANGE_SYMLINK, .path = p, .to = t                                                 \
    }
#define DELETE(p)                                                                                  \
    {                                                                                              \
        .kind = CHANGE_DELETE, .path = p                                                           \
    }
#define DELETE_TREE(p)                                                                             \
    {                                                                                              \
        .kind = CHANGE_DELETE, .path = p, .recursive = true                                        \
    }
#define CHMOD(p, m)                                                                                \
    {                                                                                              \
        .kind = CHANGE_CHMOD, .path = p, .mode = m                                                 \
    }
#define EDIT(p, o, n)                                                                              \
    {                                                                                              \
        .kind = CHANGE_EDIT, .path = p, .text = o, .to = n                                         \
    }

/* ---- a data directory */
static inline void fixture_open(struct fixture *f)
{
    struct err e = ERR_INIT;
    struct sandboxes_config config = {.data_dir = f->data,
        .workspace_root = f->work,
        .root = geteuid() == 0,
        .uid_first = FIXTURE_UID,
        .uid_count = 100,
        .max_workspace_bytes = f->max_bytes,
        .max_workspace_files = f->max_files};

    if (store_open(f->db, &f->store, &e) < 0)
        fail_msg("%s", e.msg);
    config.store = f->store;
    if (sandboxes_open(&config, &f->all, &e) < 0)
        fail_msg("%s", e.msg);
}

static inline void fixture_close(struct fixture *f)
{
    sandbox_unref(f->sb);
    f->sb = NULL;
    sandboxes_close(f->all);
    store_close(f->store);
    f->all = NULL;
    f->store = NULL;
}

static inline void fixture_init(struct fixture *f)
{
    struct sandbox_spec spec = {.language = "python", .image = "host"};
    struct err e = ERR_INIT;

    *f = (struct fixture){.max_bytes = UINT64_C(1) << 30, .max_files = 100000};
    const char *tmp = getenv("TMPDIR");
    (void)snprintf(f->dir, sizeof f->dir, "%.40s/silt-test-XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(f->dir));
    (void)snprintf(f->data, sizeof f->data, "%s/data", f->dir);
    (void)snprintf(f->work, sizeof f->work, "%s/work", f->dir);
    (void)snprintf(f->db, sizeof f->db, "%s/siltd.db", f->dir);
    fixture_open(f);
    if (sandbox_create(f->all, &spec, &f->sb, &e) < 0)
        fail_msg("%s", e.msg);
}

static inline void fixture_release(struct fixture *f)
{
    if (f->all)
        fixture_close(f);
    char *slash = strrchr(f->dir, '/');
    *slash = '\0';
    int tmp = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(tree_remove_at(tmp, slash + 1, NULL), 0);
    (void)close(tmp);
}

/* cmocka's setup and teardown of a test that needs nothing else. */
static inline int fixture_setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    assert_non_null(f);
    fixture_init(f);
    *state = f;
    return 0;
}

static inline int fixture_teardown(void **state)
{
    fixture_release(*state);
    free(*state);
    return 0;
}

/* The host path of a file in the workspace of f->sb. */
static inline const char *at(const struct fixture *f, const char *path, char out[512])
{
    (void)snprintf(out, 512, "%s/%s/%s", f->work, sandbox_id(f->sb), path);
    return out;
}

static inline bool is_file(const struct fixture *f, const char *path, const char *text)
{
    char name[512];
    struct buf b;
    bool same = io_read_file(at(f, path, name), 1 << 20, &b, NULL) == 0 && b.len == strlen(text) &&
                memcmp(buf_str(&b), text, b.len) == 0;

    buf_release(&b);
    return same;
}

static inline bool exists(const struct fixture *f, const char *path)
{
    char name[512];
    struct stat st;

    return lstat(at(f, path, name), &st) == 0;
}

/* As a program in the container would: a file written in the workspace, owned by the sandbox. */
static inline void program_writes(const struct fixture *f, const char *path, const char *text)
{
    char name[512];
    struct stat st;
    int fd = open(at(f, path, name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    assert_true(fd >= 0);
    assert_int_equal(io_write_all(fd, text, strlen(text)), 0);
    assert_int_equal(stat(at(f, "", name), &st), 0);
    assert_int_equal(fchown(fd, st.st_uid, st.st_gid), 0);
    (void)close(fd);
}

static inline void program_mkdir(const struct fixture *f, const char *path)
{
    char name[512];
    struct stat st;

    assert_int_equal(mkdir(at(f, path, name), 0755), 0);
    assert_int_equal(stat(at(f, "", name), &st), 0);
    assert_int_equal(lchown(at(f, path, name), st.st_uid, st.st_gid), 0);
}

/* What lies in the sandbox's staging directory. */
static inline unsigned staging_entries(const struct fixture *f)
{
    char path[256];
    unsigned count = 0;

    (void)snprintf(path, sizeof path, "%s/staging/%s", f->data, sandbox_id(f->sb));
    DIR *dir = opendir(path);
    assert_non_null(dir);
    for (struct dirent *d; (d = readdir(dir)) != NULL;)
        count += d->d_name[0] != '.';
    (void)closedir(dir);
    return count;
}

#endif
