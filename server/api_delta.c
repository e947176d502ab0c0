/* SPDX-License-Identifier: MIT */
/* A signature in, a delta out: for clients that fetch a file of which they have an earlier version. */
#include "server/api_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "server/delta_worker.h"
#include "shared/delta.h"
#include "shared/io.h"

#include "shared/banned.h"

#define HEAD_BYTES 12
#define PIECE (64 * 1024)

static int temporary(const struct call *call, int *ret, struct err *e)
{
    *ret = open(call->api->c.config->data_dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    return *ret < 0 ? err_set(e, errno, "make a temporary file") : 0;
}

/* The body into a file without a name; what its header says is checked. */
static int take_signature(struct call *call, int fd, struct err *e)
{
    CLEANUP(freep) uint8_t *piece = malloc(PIECE);
    uint8_t head[HEAD_BYTES];
    uint64_t len = 0;
    ssize_t n = 0;
    if (!piece)
        return err_set(e, ENOMEM, "read a signature");
    while ((n = http_body_read(call->req, piece, PIECE)) > 0) {
        len += (uint64_t)n;
        if (len > DELTA_SIGNATURE_MAX)
            break;
        int r = io_write_all(fd, piece, (size_t)n);
        if (r < 0)
            return err_set(e, -r, "keep a signature");
    }
    if (n < 0)
        return err_set(e, (int)-n, "read the body");
    ssize_t have = io_pread_full(fd, head, sizeof(head), 0);
    return have < 0 ? err_set(e, (int)-have, "read a signature")
                    : delta_signature_check(head, (size_t)have, len, e);
}

/* Processes under way at a time are bounded. */
static int work(struct call *call, int sig, int fd, uint64_t size, int out, struct err *e)
{
    atomic_uint *count = &call->api->deltas;
    int r = 0;
    if (atomic_fetch_add(count, 1) >= API_DELTAS_MAX)
        r = err_refuse(e, PROTO_BUSY, "%d deltas are under way: try again", API_DELTAS_MAX);
    else
        r = delta_worker_run(sig, fd, size, out, e);
    (void)atomic_fetch_sub(count, 1);
    return r;
}

static int make(struct call *call, struct sandbox *sb, const char *path, struct sandbox_file *file,
    int *ret, uint64_t *ret_size, struct err *e)
{
    CLEANUP(fd_closep) int fd = -1;
    CLEANUP(fd_closep) int sig = -1;
    CLEANUP(fd_closep) int out = -1;
    int r = temporary(call, &sig, e);
    if (r == 0)
        r = take_signature(call, sig, e);
    if (r == 0)
        r = sandbox_file_open(sb, path, &fd, file, e);
    if (r == 0 && fd < 0)
        r = err_refuse(e, PROTO_PATH_CONFLICT, "'%.200s' is a %s, not a file", path,
            api_kind_name(file->kind));
    if (r == 0 && file->size > DELTA_FILE_MAX)
        r = err_refuse(e, PROTO_TOO_LARGE, "there are no deltas of files above 16 GiB");
    if (r == 0)
        r = temporary(call, &out, e);
    if (r == 0)
        r = work(call, sig, fd, file->size, out, e);
    off_t end = r == 0 ? lseek(out, 0, SEEK_END) : 0;
    if (r < 0 || end < 0)
        return r < 0 ? r : err_set(e, errno, "measure a delta");
    *ret_size = (uint64_t)end;
    *ret = fd_take(&out);
    return 0;
}

void api_delta_post(struct call *call)
{
    struct sandbox *sb = NULL;
    struct sandbox_file file = {.target = NULL};
    struct err e = ERR_INIT;
    char etag[HASH_TEXT_BYTES + 2], text[24];
    const char *path = http_query(call->req, "path");
    uint64_t size = 0;
    int out = -1;
    path = path ? path : "";
    int r = api_check_path(path, strlen(path), false, &e);
    if (r == 0)
        r = api_sandbox(call, &sb, &e);
    if (r == 0)
        r = make(call, sb, path, &file, &out, &size, &e);
    if (r < 0) {
        api_fail(call->req, &e, e.refusal == PROTO_FILE_NOT_FOUND ? api_near(sb, path) : NULL);
    } else {
        api_etag(&file.hash, etag);
        (void)snprintf(text, sizeof(text), "%llu", (unsigned long long)file.size);
        http_add_header(call->req, "ETag", etag);
        http_add_header(call->req, "Silt-Size", text);
        api_reply_file(call, out, size, "application/octet-stream");
    }
    sandbox_file_release(&file);
    if (sb)
        sandbox_unref(sb);
}
