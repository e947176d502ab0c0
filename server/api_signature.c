/* SPDX-License-Identifier: MIT */
/* The librsync signature of a file, for clients that did not keep one. */
#include "server/api_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "shared/delta.h"
#include "shared/io.h"

#include "shared/banned.h"

static int write_to(void *ctx, const void *data, size_t len)
{
    return io_write_all(*(int *)ctx, data, len);
}

/* Into a file without a name, some 9 MiB for the largest files: whether it is the signature of what
 * the ETag says is known at the end only. */
static int make(struct call *call, int fd, const struct sandbox_file *file, int *ret_fd,
    uint64_t *ret_size, struct err *e)
{
    CLEANUP(fd_closep)
    int out = open(call->api->c.config->data_dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    struct hash hash;
    if (out < 0)
        return err_set(e, errno, "make a temporary file");
    int r = delta_sig_write(fd, file->size, write_to, &out, &hash, e);
    if (r == -ESTALE || (r == 0 && !hash_equal(&hash, &file->hash)))
        return err_refuse(e, PROTO_HASH_MISMATCH, "the file changed while it was read: try again");
    off_t end = r == 0 ? lseek(out, 0, SEEK_CUR) : 0;
    if (r < 0 || end < 0)
        return r < 0 ? r : err_set(e, errno, "measure a signature");
    *ret_size = (uint64_t)end;
    *ret_fd = fd_take(&out);
    return 0;
}

static void reply_signature(struct call *call, int fd, const struct sandbox_file *file)
{
    char etag[HASH_TEXT_BYTES + 2];
    struct err e = ERR_INIT;
    uint64_t size = 0;
    int out = -1;
    api_etag(&file->hash, etag);
    const char *known = http_header(call->req, "If-None-Match");
    bool same = api_header_has(known, etag) || api_header_has(known, "*");
    if (!same && make(call, fd, file, &out, &size, &e) < 0) {
        api_fail(call->req, &e, NULL);
        return;
    }
    http_add_header(call->req, "ETag", etag);
    if (same)
        http_reply(call->req, 304, NULL, NULL, 0);
    else
        api_reply_file(call, out, size, "application/octet-stream");
}

void api_signature_get(struct call *call)
{
    CLEANUP(fd_closep) int fd = -1;
    struct sandbox *sb = NULL;
    struct sandbox_file file = {.target = NULL};
    struct err e = ERR_INIT;
    const char *path = http_query(call->req, "path");
    path = path ? path : "";
    int r = api_check_path(path, strlen(path), false, &e);
    if (r == 0)
        r = api_sandbox(call, &sb, &e);
    if (r == 0)
        r = sandbox_file_open(sb, path, &fd, &file, &e);
    if (r == 0 && fd < 0)
        r = err_refuse(&e, PROTO_PATH_CONFLICT, "'%.200s' is a %s, not a file", path,
            api_kind_name(file.kind));
    if (r < 0)
        api_fail(call->req, &e, e.refusal == PROTO_FILE_NOT_FOUND ? api_near(sb, path) : NULL);
    else
        reply_signature(call, fd, &file);
    sandbox_file_release(&file);
    if (sb)
        sandbox_unref(sb);
}
