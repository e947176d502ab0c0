/* SPDX-License-Identifier: MIT */
/* multipart/form-data: every file of one request becomes one change set. */
#include "server/api_internal.h"

#include <errno.h>
#include <string.h>

#include "shared/path.h"

#include "server/multipart.h"

#include "shared/banned.h"

#define UPLOAD_FILES_MAX MULTIPART_PARTS_MAX
#define HOLD_MAX (1024u * 1024)

/*
 * A field `path` says where a file goes. It may stand before the file or, as people write it,
 * after: then the file's beginning is held in memory until the next part is known. That ends at
 * HOLD_MAX: the path of a larger file must come first, and is refused, not ignored, when it does
 * not.
 */
struct upload {
    struct multipart *parts;
    struct multipart_part part; /* read ahead; valid if `ahead` is 1 */
    int ahead;                  /* 1: `part` is next; 0: unknown; -1: there are no more */
    bool before;                /* paths stand before their files in this form */
    char *next_path;            /* from a field, for the file to come */
    char *path;                 /* of the current file */
    struct buf held;            /* beginning of the current file */
    size_t given;               /* bytes of it that were read */
    bool whole;                 /* held is all of it */
    char **paths;               /* of all so far */
    size_t count, room;
};

static ssize_t body_source(void *ctx, void *data, size_t len)
{
    return http_body_read(ctx, data, len);
}

/* A malformed form is the client's mistake. */
static int part_error(int r, struct err *e)
{
    if (r == -EBADMSG || r == -EINVAL) {
        struct err told = *e;
        return err_refuse(e, PROTO_BAD_REQUEST, "the form cannot be read: %s", told.msg);
    }
    return r;
}

static int read_field(struct upload *u, struct err *e)
{
    CLEANUP(buf_release) struct buf text;
    char data[1024];
    ssize_t n;
    buf_init(&text, PATH_BYTES_MAX);
    while ((n = multipart_read(u->parts, data, sizeof(data), e)) > 0) {
        if (buf_add(&text, data, (size_t)n) < 0)
            return err_refuse(e, PROTO_INVALID_PATH, "the field 'path' is too long");
    }
    if (n < 0)
        return part_error((int)n, e);
    if (u->next_path)
        return err_refuse(e, PROTO_INVALID_VALUE,
            "two fields 'path' follow one another: each belongs before its file");
    if (strlen(buf_str(&text)) != text.len)
        return err_refuse(e, PROTO_INVALID_PATH, "the field 'path' holds a NUL character");
    u->next_path = strdup(buf_str(&text));
    return u->next_path ? 0 : err_set(e, ENOMEM, "read the form");
}

static int remember(struct upload *u, struct err *e)
{
    if (u->count == u->room) {
        size_t room = u->room ? 2 * u->room : 16;
        char **bigger =
            room > 2 * UPLOAD_FILES_MAX ? NULL : realloc(u->paths, room * sizeof(*bigger));
        if (!bigger)
            return err_set(e, ENOMEM, "read the form");
        u->paths = bigger;
        u->room = room;
    }
    u->paths[u->count] = strdup(u->path);
    return u->paths[u->count++] ? 0 : err_set(e, ENOMEM, "read the form");
}

/* The next part into u->part, from the look ahead or from the body. 1, 0 after the last. */
static int take_part(struct upload *u, struct err *e)
{
    int r = u->ahead == -1 ? 0 : 1;
    if (u->ahead == 0)
        r = multipart_next(u->parts, &u->part, e);
    u->ahead = r == 0 ? -1 : 0;
    return r < 0 ? part_error(r, e) : r;
}

static bool is_path_field(const struct multipart_part *part)
{
    return !part->filename && strcmp(part->name, "path") == 0;
}

/* Hold the file's beginning; if that is all of it, see whether its path follows. */
static int look_ahead(struct upload *u, struct err *e)
{
    char data[16 * 1024];
    ssize_t n = 1;
    while (n > 0 && u->held.len + sizeof(data) <= HOLD_MAX) {
        n = multipart_read(u->parts, data, sizeof(data), e);
        if (n > 0 && buf_add(&u->held, data, (size_t)n) < 0)
            return err_set(e, ENOMEM, "read the form");
    }
    if (n < 0)
        return part_error((int)n, e);
    u->whole = n == 0;
    if (!u->whole)
        return 0;
    int r = take_part(u, e);
    if (r == 1 && is_path_field(&u->part))
        return read_field(u, e);
    if (r == 1)
        u->ahead = 1;
    return r < 0 ? r : 0;
}

static int begin_file(struct upload *u, struct change_op *ret, struct err *e)
{
    CLEANUP(freep) char *name = strdup(u->part.filename);
    buf_reset(&u->held);
    u->given = 0;
    u->whole = false;
    free(ptr_take(&u->path));
    int r = name ? 0 : err_set(e, ENOMEM, "read the form");
    if (r == 0 && !u->before)
        r = look_ahead(u, e);
    if (r < 0)
        return r;
    CLEANUP(freep) char *given = ptr_take(&u->next_path);
    const char *wanted = given ? given : name;
    r = path_resolve("", wanted, &u->path);
    if (r == -ENOMEM)
        return err_set(e, ENOMEM, "read the form");
    if (r < 0 || !*u->path)
        return err_refuse(e, PROTO_INVALID_PATH,
            "'%.200s' is no path within the workspace: give a relative one, such as src/main.py",
            wanted);
    r = remember(u, e);
    if (r < 0)
        return r;
    *ret =
        (struct change_op){.kind = CHANGE_PUT, .path = u->path, .content_len = CHANGE_LEN_UNKNOWN};
    return 1;
}

static int next_file(void *ctx, struct change_op *ret, struct err *e)
{
    struct upload *u = ctx;
    int r;
    while ((r = take_part(u, e)) == 1) {
        if (u->part.filename && (*u->part.filename || u->next_path || !u->before))
            return begin_file(u, ret, e);
        if (is_path_field(&u->part) && u->count > 0 && !u->before)
            return err_refuse(e, PROTO_INVALID_VALUE,
                "the 'path' of a file above 1 MiB must stand before it in the form");
        if (is_path_field(&u->part)) {
            u->before = true;
            r = read_field(u, e);
        } else if (!u->part.filename) {
            r = err_refuse(e, PROTO_INVALID_VALUE,
                "the form has a field '%.80s' that means nothing here: files are sent as "
                "file=@name, their place as path=",
                u->part.name);
        }
        if (r < 0)
            return r;
    }
    if (r < 0)
        return r;
    if (u->next_path)
        return err_refuse(e, PROTO_INVALID_VALUE, "the last field 'path' belongs to no file");
    if (u->count == 0)
        return err_refuse(
            e, PROTO_INVALID_VALUE, "the form has no file: send one with -F file=@main.py");
    return 0;
}

static ssize_t read_file(void *ctx, void *data, size_t len, struct err *e)
{
    struct upload *u = ctx;
    size_t left = u->held.len - u->given;
    if (left > 0) {
        len = len < left ? len : left;
        memcpy(data, u->held.data + u->given, len);
        u->given += len;
        return (ssize_t)len;
    }
    if (u->whole)
        return 0;
    ssize_t n = multipart_read(u->parts, data, len, e);
    return n < 0 ? part_error((int)n, e) : n;
}

static json_t *describe_file(struct sandbox *sb, const char *path)
{
    struct sandbox_file file = {.target = NULL};
    struct err e = ERR_INIT;
    char hash[HASH_TEXT_BYTES];
    if (sandbox_file_open(sb, path, NULL, &file, &e) < 0)
        return NULL; /* a program removed it meanwhile */
    json_t *item =
        json_pack("{s:I, s:s}", "size", (json_int_t)file.size, "hash", hash_text(&file.hash, hash));
    sandbox_file_release(&file);
    if (item && api_put_path(item, "path", path) < 0) {
        json_decref(item);
        return NULL;
    }
    return item;
}

struct uploaded {
    struct sandbox *sb;
    const struct upload *u;
};

static void reply_upload(struct call *call, const struct sandbox_apply_result *result, void *ctx)
{
    const struct uploaded *done = ctx;
    json_t *files = json_array();
    for (size_t i = 0; files && i < done->u->count; i++) {
        json_t *item = describe_file(done->sb, done->u->paths[i]);
        if (item)
            err_ignore(json_array_append_new(files, item));
    }
    api_reply(call, 201,
        json_pack("{s:I, s:s, s:o}", "generation", (json_int_t)result->generation, "epoch",
            result->epoch, "files", files));
}

static void upload_release(struct upload *u)
{
    multipart_free(u->parts);
    buf_release(&u->held);
    free(u->path);
    free(u->next_path);
    for (size_t i = 0; i < u->count; i++)
        free(u->paths[i]);
    free(u->paths);
}

void api_file_upload(struct call *call)
{
    const struct changes_begin begin = {.if_generation = CHANGES_NO_GENERATION};
    struct upload u = {.parts = NULL};
    buf_init(&u.held, HOLD_MAX);
    const struct changes_feed feed = {.next = next_file, .read = read_file, .ctx = &u};
    struct sandbox *sb = NULL;
    struct err e = ERR_INIT;
    const char *type = http_header(call->req, "Content-Type");
    int r = api_sandbox(call, &sb, &e);
    if (r == 0)
        r = multipart_new(type, body_source, call->req, &u.parts, &e);
    if (r == -EINVAL)
        (void)err_refuse(&e, PROTO_UNSUPPORTED_TYPE,
            "files come as multipart/form-data: curl -F file=@main.py; a single one also by PUT to "
            "its path");
    if (r < 0) {
        api_fail(call->req, &e, NULL);
    } else {
        struct uploaded done = {.sb = sb, .u = &u};
        api_apply(call, sb, &begin, &feed, reply_upload, &done);
    }
    upload_release(&u);
    if (sb)
        sandbox_unref(sb);
}
