/* SPDX-License-Identifier: MIT */
/* The contents of a pull: several requests at a time, deltas where a version of the file lies here,
 * resumed where a connection broke, hashed while they arrive. */
#include "agent/pull.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "shared/delta.h"
#include "shared/io.h"
#include "shared/path.h"
#include "shared/text.h"

#include "shared/banned.h"

#define JOBS 8
#define TRIES_MAX 6
#define BACKOFF_MS 100 /* doubled with each further try */
#define TIMEOUT_MS 60000
#define SLOWEST_BYTES_PER_MS 128 /* 1 Mbit/s */
#define SIG_MAX (16u * 1024 * 1024)
#define DELTA_SLACK (1024u * 1024) /* commands around literals */
#define NS_PER_MS UINT64_C(1000000)

struct fetcher;

struct job {
    struct fetcher *f;
    struct pull_item *item; /* NULL: free */
    unsigned tries;
    uint64_t due_ns; /* 0: under way */
    bool whole;      /* no delta, or not any more */
    int fd;          /* the staged file */
    uint64_t have;   /* bytes of it */
    struct hash_state *hash;
    struct buf sig;      /* of what lies here, for a delta */
    int basis_fd, delta_fd;
    uint64_t delta_len;
    char *path, range[64];
    const char *headers[2];
    struct client_request request;
};

struct fetcher {
    struct pull_fetch *fetch;
    struct pull_plan *plan;
    size_t next;
    struct job jobs[JOBS];
    unsigned busy;
    uint64_t files_done, files_total, bytes_done, bytes_total;
    int result;
    struct err *e;
};

static void drop_job(struct job *j)
{
    hash_state_free(j->hash);
    buf_release(&j->sig);
    fd_closep(&j->fd);
    fd_closep(&j->basis_fd);
    fd_closep(&j->delta_fd);
    free(j->path);
    j->f->busy -= j->item != NULL;
    *j = (struct job){.f = j->f, .fd = -1, .basis_fd = -1, .delta_fd = -1};
}

static void fail(struct job *j, int code, const struct err *e)
{
    struct fetcher *f = j->f;
    if (f->result == 0) {
        f->result = code;
        if (e && f->e)
            *f->e = *e;
    }
    drop_job(j);
}

/* This item cannot be had; the others can. */
static void give_up(struct job *j, const char *why)
{
    free(j->item->why);
    j->item->why = strdup(why);
    j->item->action = PULL_REFUSED;
    drop_job(j);
}

static void retry(struct job *j)
{
    j->due_ns = io_now_ns() + (BACKOFF_MS * NS_PER_MS << (j->tries > 1 ? j->tries - 1 : 0));
}

/* ---- bytes that arrive */

static int take_whole(void *ctx, const void *data, size_t len)
{
    struct job *j = ctx;
    if (len > j->item->there.size - j->have)
        return -EFBIG;
    int r = io_write_all(j->fd, data, len);
    if (r < 0)
        return r;
    hash_state_add(j->hash, data, len);
    j->have += len;
    return 0;
}

static int take_delta(void *ctx, const void *data, size_t len)
{
    struct job *j = ctx;
    j->delta_len += len;
    if (j->delta_len > j->item->there.size + DELTA_SLACK)
        return -EFBIG;
    return io_write_all(j->delta_fd, data, len);
}

/* ---- requests */

static int make_path(struct job *j, const char *form)
{
    CLEANUP(buf_release) struct buf coded;
    buf_init(&coded, 4 * (size_t)PATH_BYTES_MAX);
    int r = text_add_percent(&coded, j->item->there.path);
    free(ptr_take(&j->path));
    if (r == 0 && asprintf(&j->path, "/v1/sandboxes/%s/%s%s", j->f->fetch->sandbox, form,
                      buf_str(&coded)) < 0)
        j->path = NULL;
    return j->path ? 0 : -ENOMEM;
}

static int sink_buf(void *ctx, const void *data, size_t len)
{
    return buf_add(ctx, data, len);
}

/* A delta against what lies here: its signature is the body. False: take the whole file. */
static bool ask_delta(struct job *j)
{
    const struct pull_item *item = j->item;
    struct tree_stat st;
    struct hash hash;
    if (j->whole || !item->here.exists || item->here.kind != TREE_FILE ||
        item->there.size < DELTA_MIN_FILE)
        return false;
    if (tree_open_file(j->f->fetch->tree, item->there.path, &j->basis_fd, &st, NULL) < 0 ||
        st.size < DELTA_MIN_FILE)
        return false;
    buf_reset(&j->sig);
    if (delta_sig_write_short(j->basis_fd, st.size, sink_buf, &j->sig, &hash, NULL) < 0)
        return false;
    j->delta_fd = openat(j->f->fetch->stage_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (j->delta_fd < 0 || make_path(j, "delta?path=") < 0)
        return false;
    j->delta_len = 0;
    j->request = (struct client_request){.method = "POST",
        .path = j->path,
        .content_type = "application/octet-stream",
        .body = j->sig.data,
        .body_len = j->sig.len,
        .on_data = take_delta,
        .ctx = j};
    return true;
}

static int ask_whole(struct job *j)
{
    int r = make_path(j, "files/");
    j->whole = true;
    if (r < 0)
        return r;
    j->request = (struct client_request){
        .method = "GET", .path = j->path, .on_data = take_whole, .ctx = j};
    if (j->have) {
        (void)snprintf(
            j->range, sizeof(j->range), "Range: bytes=%llu-", (unsigned long long)j->have);
        j->headers[0] = j->range;
        j->request.headers = j->headers;
    }
    return 0;
}

static client_done job_done;

static void start(struct job *j)
{
    struct client_call *call = NULL;
    struct err e = ERR_INIT;
    int r = ask_delta(j) ? 0 : ask_whole(j);
    uint64_t timeout = TIMEOUT_MS + j->item->there.size / SLOWEST_BYTES_PER_MS;
    j->request.timeout_ms = timeout > UINT32_MAX ? UINT32_MAX : (uint32_t)timeout;
    j->due_ns = 0;
    j->tries++;
    if (r == 0)
        r = client_start(j->f->fetch->client, &j->request, job_done, j, &call, &e);
    else
        (void)err_set(&e, -r, "fetch '%s'", j->item->there.path);
    if (r < 0)
        fail(j, r, &e);
}

/* ---- answers */

static ssize_t read_delta(void *ctx, void *data, size_t len)
{
    struct job *j = ctx;
    ssize_t n = read(j->delta_fd, data, len);
    return n < 0 ? -errno : n;
}

/* The delta makes the file; false: it does not. */
static bool patch(struct job *j)
{
    struct hash hash;
    return lseek(j->delta_fd, 0, SEEK_SET) == 0 && ftruncate(j->fd, 0) == 0 &&
           delta_patch(j->basis_fd, read_delta, j, j->delta_len, j->fd, j->item->there.size, &hash,
               NULL) == 0 &&
           hash_equal(&hash, &j->item->there.hash);
}

static void finished(struct job *j)
{
    struct fetcher *f = j->f;
    if (fchmod(j->fd, (j->item->there.mode & 0777) | 0400) < 0) {
        struct err e = ERR_INIT;
        int r = err_set(&e, errno, "set the mode of a fetched file");
        fail(j, r, &e);
        return;
    }
    j->item->done = true; /* fetched; placing it begins anew */
    f->fetch->deltas += !j->whole;
    f->files_done++;
    f->bytes_done += j->item->there.size;
    if (f->fetch->progress)
        f->fetch->progress(
            f->fetch->ctx, f->files_done, f->files_total, f->bytes_done, f->bytes_total);
    drop_job(j);
}

static void arrived(struct job *j, const struct client_response *response)
{
    char expected[HASH_TEXT_BYTES];
    struct hash hash;
    (void)hash_text(&j->item->there.hash, expected);
    if (response->etag[0] && !strstr(response->etag, expected)) {
        give_up(j, "it changed there meanwhile: pull again");
    } else if (!j->whole) {
        if (patch(j)) {
            finished(j);
            return;
        }
        j->whole = true;
        (void)!ftruncate(j->fd, 0);
        (void)lseek(j->fd, 0, SEEK_SET);
        start(j);
    } else if (j->have < j->item->there.size) {
        retry(j); /* cut short: go on from there */
        if (j->tries >= TRIES_MAX)
            give_up(j, "the server sends less than it says");
    } else {
        hash_state_get(j->hash, &hash);
        if (hash_equal(&hash, &j->item->there.hash))
            finished(j);
        else
            give_up(j, "what arrived is not what the server promised: pull again");
    }
}

static bool may_retry(const struct job *j, int result, const struct client_response *response)
{
    bool later = result != -EPROTO || response->retryable;
    return later && result != -ENOMEM && result != -EFBIG && result != -ENOSPC &&
           j->tries < TRIES_MAX;
}

static void job_done(void *ctx, int result, struct client_response *response, const struct err *e)
{
    struct job *j = ctx;
    j->f->fetch->bytes_sent += response->bytes_sent;
    j->f->fetch->bytes_received += response->bytes_received;
    if (j->f->result < 0) {
        drop_job(j);
    } else if (result == 0) {
        /* Without a range what came is the file from its beginning. */
        arrived(j, response);
    } else if (!j->whole && result == -EPROTO && !response->retryable) {
        j->whole = true; /* no delta to be had, for whatever reason */
        start(j);
    } else if (e->refusal == PROTO_FILE_NOT_FOUND || e->refusal == PROTO_PATH_CONFLICT) {
        give_up(j, "it is not there any more");
    } else if (may_retry(j, result, response)) {
        retry(j);
    } else {
        fail(j, result, e);
    }
}

/* ---- all of them */

static bool take_next(struct job *j)
{
    struct fetcher *f = j->f;
    char name[24];
    struct err e = ERR_INIT;
    while (f->next < f->plan->count && f->plan->items[f->next].action != PULL_FETCH)
        f->next++;
    if (f->next == f->plan->count)
        return false;
    j->item = &f->plan->items[f->next];
    f->busy++;
    (void)snprintf(name, sizeof(name), "%zu", f->next++);
    buf_init(&j->sig, SIG_MAX);
    j->hash = hash_state_new();
    j->fd = openat(f->fetch->stage_fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
        0600);
    if (j->fd < 0 || !j->hash) {
        int r = err_set(&e, j->hash ? errno : ENOMEM, "make a file in .silt/%s", PULL_DIR);
        fail(j, r, &e);
        return true;
    }
    start(j);
    return true;
}

static int wait_ms(const struct fetcher *f, uint64_t now)
{
    uint64_t next = now + 1000 * NS_PER_MS;
    for (size_t i = 0; i < JOBS; i++) {
        if (f->jobs[i].item && f->jobs[i].due_ns && f->jobs[i].due_ns < next)
            next = f->jobs[i].due_ns;
    }
    return next > now ? (int)((next - now) / NS_PER_MS) + 1 : 0;
}

static int turn(struct fetcher *f, struct err *e)
{
    uint64_t now = io_now_ns();
    for (size_t i = 0; i < JOBS && f->result == 0; i++) {
        struct job *j = &f->jobs[i];
        if (!j->item)
            (void)take_next(j);
        else if (j->due_ns && j->due_ns <= now)
            start(j);
    }
    for (size_t i = 0; i < JOBS && f->result < 0; i++) {
        if (f->jobs[i].item && f->jobs[i].due_ns)
            drop_job(&f->jobs[i]);
    }
    int r = f->busy ? client_step(f->fetch->client, NULL, 0, wait_ms(f, now), e) : 0;
    return r < 0 ? r : 0;
}

int pull_fetch(struct pull_fetch *fetch, struct pull_plan *plan, struct err *e)
{
    struct fetcher f = {.fetch = fetch, .plan = plan, .e = e};
    int r = 0;
    for (size_t i = 0; i < plan->count; i++) {
        f.files_total += plan->items[i].action == PULL_FETCH;
        f.bytes_total += plan->items[i].action == PULL_FETCH ? plan->items[i].there.size : 0;
    }
    for (size_t i = 0; i < JOBS; i++)
        f.jobs[i] = (struct job){.f = &f, .fd = -1, .basis_fd = -1, .delta_fd = -1};
    do
        r = turn(&f, e);
    while (r == 0 && f.busy);
    return r < 0 ? r : f.result;
}

/* ---- the stage */

int pull_stage(int dir_fd, int *ret_fd, struct err *e)
{
    pull_unstage(dir_fd);
    if (mkdirat(dir_fd, PULL_DIR, 0700) < 0)
        return err_set(e, errno, "make .silt/%s", PULL_DIR);
    *ret_fd = openat(dir_fd, PULL_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return *ret_fd < 0 ? err_set(e, errno, "open .silt/%s", PULL_DIR) : 0;
}

void pull_unstage(int dir_fd)
{
    (void)!tree_remove_at(dir_fd, PULL_DIR, NULL);
}
