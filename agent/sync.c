/* SPDX-License-Identifier: MIT */
#include "agent/sync_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

#include "shared/io.h"

#include "shared/banned.h"

#define STEP_MS 1000
#define RETRY_STEP_MS 50
#define FRAME_BYTES 256u /* of an operation without its content, about */
#define FIRST_SETS 3u    /* that are smaller than the others, when there are many changes */

/* ---- open and close */

static int open_folder(struct sync *s, struct err *e)
{
    CLEANUP(freep) char *dir = NULL;
    if (asprintf(&dir, "%s/%s", s->link.root, LINK_DIR) < 0) {
        dir = NULL;
        return err_set(e, ENOMEM, "open the project");
    }
    s->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (s->dir_fd < 0)
        return err_set(e, errno, "open '%s'", dir);
    s->lock_fd = openat(s->dir_fd, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (s->lock_fd < 0)
        return err_set(e, errno, "open '%s/lock'", dir);
    if (flock(s->lock_fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    if (errno != EWOULDBLOCK)
        return err_set(e, errno, "lock '%s/lock'", dir);
    return err_say(e, EBUSY, "another silt is syncing %s", s->link.root);
}

int sync_open(const struct sync_config *config, struct sync **ret, struct err *e)
{
    struct sync *s = calloc(1, sizeof(*s));
    if (!s)
        return err_set(e, ENOMEM, "open the project");
    s->config = *config;
    s->link = *config->link;
    s->dir_fd = s->lock_fd = -1;
    s->queue_end = &s->queue;
    s->started_ns = io_now_ns();
    buf_init(&s->scratch, SYNC_MEMORY_FILE + 1);
    sync_pack_init(s);
    s->rules = ignore_new(true);
    int r = 0;
    if (!s->rules || asprintf(&s->changes_path, "/v1/sandboxes/%s/changes", s->link.sandbox) < 0) {
        s->changes_path = NULL;
        r = err_set(e, ENOMEM, "open the project");
    }
    if (r == 0)
        r = open_folder(s, e);
    if (r == 0)
        r = tree_open(s->link.root, &s->tree, e);
    if (r == 0)
        r = index_open(s->dir_fd, s->link.id, s->link.sandbox, &s->index, e);
    if (r < 0) {
        sync_close(s);
        return r;
    }
    s->sent_seq = index_state(s->index)->acked_seq;
    *ret = s;
    return 0;
}

static void drop_fresh(struct sync *s)
{
    for (size_t i = 0; i < s->fresh_count; i++)
        free(s->fresh[i].path);
    free(s->fresh);
    s->fresh = NULL;
    s->fresh_count = 0;
}

void sync_drop_plan(struct sync *s)
{
    while (s->queue) {
        struct sync_set *set = s->queue;
        s->queue = set->next;
        sync_set_free(set);
    }
    s->queue_end = &s->queue;
    drop_fresh(s);
    sync_gone_drop(s);
    sync_sig_drop_all(s);
}

void sync_end_contests(struct sync *s)
{
    CLEANUP(buf_release) struct buf log;
    buf_init(&log, INDEX_LOG_MAX);
    if (sync_busy(s) || s->trouble != SYNC_FINE || s->unsettled || s->unscanned)
        return;
    sync_names_free(&s->told_conflicts);
    /* If that cannot be written it is done the next time. */
    if (index_has_contests(s->index) && index_end_contests(s->index, &log) == 0)
        (void)!index_commit(s->index, &log, NULL);
}

void sync_close(struct sync *s)
{
    if (!s)
        return;
    bool idle = s->index && !sync_busy(s) && s->trouble == SYNC_FINE;
    sync_drop_sets(s);
    if (idle)
        (void)!index_tidy(s->index, NULL);
    index_close(s->index);
    tree_free(s->tree);
    ignore_free(s->rules);
    json_decref(s->conflicts);
    sync_names_free(&s->told_conflicts);
    sync_names_free(&s->told);
    sync_names_free(&s->unsettled);
    buf_release(&s->scratch);
    sync_pack_drop(s);
    fd_closep(&s->dir_fd);
    fd_closep(&s->lock_fd);
    free(s->changes_path);
    free(s);
}

/* ---- scan */

void sync_tell_skipped(struct sync *s, const char *path, const char *why)
{
    if (!sync_names_add(&s->told, path))
        return;
    s->totals.skipped++;
    if (s->config.events.skipped)
        s->config.events.skipped(s->config.events.ctx, path, why);
}

static void on_skipped(void *ctx, const char *path, const char *why)
{
    sync_tell_skipped(ctx, path, why);
}

static void on_entered(void *ctx, const char *path, int dir_fd)
{
    struct sync *s = ctx;
    if (s->entered)
        s->entered(s->entered_ctx, path, dir_fd);
}

static struct scan_config scan_config_of(struct sync *s)
{
    return (struct scan_config){
        .tree = s->tree,
        .rules = s->rules,
        .known = index_manifest(s->index),
        .skipped = on_skipped,
        .entered = on_entered,
        .doubt = s->doubt,
        .ctx = s,
    };
}

/* Take what the scan found over into the plan. */
static int take_found(struct sync *s, struct scan *found)
{
    if (!sync_busy(s))
        sync_gone_drop(s);
    if (found->count) {
        size_t cap = s->fresh_count + found->count;
        struct sync_item *more = realloc(s->fresh, cap * sizeof(*more));
        if (!more)
            return -ENOMEM;
        s->fresh = more;
    }
    for (size_t i = 0; i < found->count; i++) {
        struct scan_item *item = &found->items[i];
        const struct manifest_entry *entry = manifest_get(index_manifest(s->index), item->path);
        if (item->kind == SCAN_GONE && entry && sync_gone_add(s, entry) < 0)
            return -ENOMEM;
        uint64_t size = item->st.kind == TREE_FILE ? item->st.size : 0;
        s->files_total++;
        s->bytes_total += size;
        s->fresh[s->fresh_count++] = (struct sync_item){
            .kind = item->kind, .was = item->st.kind, .path = ptr_take(&item->path), .size = size};
    }
    sync_gone_sort(s);
    return 0;
}

static int64_t scan_into_plan(struct sync *s, const char *const *paths, size_t count, struct err *e)
{
    struct scan_config config = scan_config_of(s);
    struct scan found;
    uint64_t begin = io_now_ns();
    if (!tree_same(s->tree, s->link.root))
        return err_say(e, ENOENT,
            "the folder %s was moved or replaced: nothing was deleted in the sandbox",
            s->link.root);
    s->doubt = s->doubt && paths;
    if (!sync_busy(s))
        s->whole = manifest_count(index_manifest(s->index)) == 0;
    int r = paths ? scan_paths(&config, paths, count, &found, e) : scan_all(&config, &found, e);
    if (r == 0)
        r = sync_emptied(s, &found, e);
    if (r == 0 && take_found(s, &found) < 0)
        r = err_set(e, ENOMEM, "plan what to send");
    s->unscanned = s->unscanned && (paths || r < 0);
    scan_release(&found);
    s->scan_ns += io_now_ns() - begin;
    return r < 0 ? r : (int64_t)s->fresh_count;
}

/* At first contact the server says what it has; after trouble it is asked again. */
static int make_contact(struct sync *s, struct err *e)
{
    struct index_state *state = index_state(s->index);
    int r = sync_steal(s, e);
    if (r < 0 || state->epoch[0])
        return r;
    /* Who wrote there since the sandbox was linked, a moment ago, is met as a conflict. */
    if (!s->link.empty_epoch[0] || manifest_count(index_manifest(s->index)))
        return sync_rebase(s, e);
    memcpy(state->epoch, s->link.empty_epoch, sizeof(state->epoch));
    s->link.empty_epoch[0] = '\0';
    return index_rewrite(s->index, e);
}

int64_t sync_scan(struct sync *s, struct err *e)
{
    int r = make_contact(s, e);
    return r < 0 ? r : sync_rescan(s, e);
}

int64_t sync_rescan(struct sync *s, struct err *e)
{
    drop_fresh(s);
    return scan_into_plan(s, NULL, 0, e);
}

int64_t sync_scan_paths(struct sync *s, const char *const *paths, size_t count, struct err *e)
{
    int r = make_contact(s, e);
    return r < 0 ? r : scan_into_plan(s, paths, count, e);
}

void sync_doubt(struct sync *s)
{
    s->doubt = true;
}

/* ---- plan: items → sets with numbers */

static int add_set(struct sync *s, size_t from, size_t to, struct err *e)
{
    struct sync_set *set = sync_set_new(s);
    if (!set || !(set->items = calloc(to - from, sizeof(*set->items)))) {
        sync_set_free(set);
        return err_set(e, ENOMEM, "plan what to send");
    }
    int r = index_next_seq(s->index, &set->seq, e);
    if (r < 0) {
        sync_set_free(set);
        return r;
    }
    set->seen_ns = s->seen_ns;
    for (size_t i = from; i < to; i++) {
        set->items[set->item_count++] = s->fresh[i];
        s->fresh[i].path = NULL;
    }
    *s->queue_end = set;
    s->queue_end = &set->next;
    return 0;
}

/* How large a set may be. The first ones of many are small, so that the server has something to do
 * while the next ones are read. A large file ends its set, for it is streamed; much before it goes
 * into a set of its own, which is compressed. */
static bool is_full(const struct sync *s, size_t sets, size_t from, size_t i, uint64_t bytes)
{
    size_t shift = sets < FIRST_SETS ? FIRST_SETS - sets : 0, ops = i + 1 - from;
    bool much = bytes + ops * FRAME_BYTES >= SYNC_PACK_PIECE / 2;
    return ops >= ((size_t)SYNC_SET_OPS >> shift) || bytes >= (SYNC_SET_BYTES >> shift) ||
           s->fresh[i].size > SYNC_MEMORY_FILE ||
           (much && i + 1 < s->fresh_count && s->fresh[i + 1].size > SYNC_MEMORY_FILE);
}

static int plan(struct sync *s, struct err *e)
{
    size_t from = 0, sets = s->fresh_count > SYNC_SET_OPS ? 0 : FIRST_SETS;
    uint64_t bytes = 0;
    int r = 0;
    for (size_t i = 0; r == 0 && i < s->fresh_count; i++) {
        bytes += s->fresh[i].size;
        if (i + 1 < s->fresh_count && !is_full(s, sets, from, i, bytes))
            continue;
        r = add_set(s, from, i + 1, e);
        from = i + 1;
        bytes = 0;
        sets++;
    }
    drop_fresh(s);
    return r;
}

int sync_start(struct sync *s, struct err *e)
{
    int r = plan(s, e);
    while (r >= 0 && sync_can_send(s)) {
        r = sync_pump(s, e);
        /* What was built goes on the wire while the next one is built. */
        if (r == 0 && sync_can_send(s))
            r = client_step(s->config.client, NULL, 0, 0, e);
    }
    return r < 0 ? r : 0;
}

void sync_barrier(struct sync *s, const char **ret_client, uint64_t *ret_seq)
{
    const struct index_state *state = index_state(s->index);
    const struct sync_set *last = s->queue;
    uint64_t seq = s->flying_count ? s->sent_seq : state->acked_seq;
    while (last && last->next)
        last = last->next;
    if (last)
        seq = s->promised_seq = last->seq;
    *ret_client = seq ? state->client : "";
    *ret_seq = seq;
}

bool sync_uploads(const struct sync *s)
{
    bool found = s->reading && s->reading->stage;
    for (const struct sync_set *set = s->queue; set && !found; set = set->next)
        found = set->items[set->item_count - 1].size > SYNC_STAGE_MIN;
    return found;
}

bool sync_busy(const struct sync *s)
{
    return s->fresh_count || s->queue || s->flying_count;
}

/* ---- push */

int sync_result(struct sync *s, struct err *e)
{
    if (s->trouble == SYNC_FINE)
        return 0;
    if (e)
        *e = s->error;
    int code = s->error.code ? s->error.code : EIO;
    s->trouble = SYNC_FINE;
    s->error = (struct err)ERR_INIT;
    return -code;
}

/* What was refused is forgotten, what the server says is learned, and the rest is found again. */
int sync_recover(struct sync *s, struct err *e)
{
    enum sync_trouble trouble = s->trouble;
    sync_drop_sets(s);
    int r = index_rollback(s->index, e);
    if (s->renumber)
        index_new_client(s->index);
    s->renumber = false;
    if (r == 0 && trouble == SYNC_REPAIR)
        r = sync_repair(s, e);
    if (r == 0 && trouble == SYNC_REBASE)
        r = sync_rebase(s, e);
    s->sent_seq = index_state(s->index)->acked_seq;
    if (r < 0 || trouble == SYNC_FATAL)
        return r;
    s->trouble = SYNC_FINE;
    int64_t n = sync_rescan(s, e);
    if (n == 0)
        sync_end_contests(s);
    return n < 0 ? (int)n : 0;
}

/* Paths that changed while they were read, planned again. 1 if there were any. */
int sync_take_unsettled(struct sync *s, struct err *e)
{
    size_t count = 0;
    if (!s->unsettled)
        return 0;
    struct sync_names *names = ptr_take(&s->unsettled);
    CLEANUP(freep) const char **paths = sync_names_list(names, &count);
    int64_t n = paths ? sync_scan_paths(s, paths, count, e) : err_set(e, ENOMEM, "scan again");
    sync_names_free(&names);
    return n < 0 ? (int)n : 1;
}

static int wait_for_answers(struct sync *s, struct err *e)
{
    while (s->flying_count || (s->queue && s->trouble == SYNC_FINE)) {
        /* Sets are built and signatures made while the server works. */
        bool can = sync_can_send(s);
        int r = can ? sync_pump(s, e) : 0;
        if (r < 0)
            return r;
        bool more = can || sync_sig_step(s);
        if (s->retry_at_ns && io_now_ns() >= s->retry_at_ns && (r = sync_resend(s, e)) < 0)
            return r;
        r = client_step(
            s->config.client, NULL, 0, more ? 0 : s->retry_at_ns ? RETRY_STEP_MS : STEP_MS, e);
        if (r < 0)
            return r;
        if (s->trouble != SYNC_FINE && !s->flying_count)
            break;
    }
    return 0;
}

/* One pass: 0 done, 1 again, <0. */
static int push_once(struct sync *s, struct err *e)
{
    int r = s->trouble == SYNC_FINE ? sync_start(s, e) : 0;
    if (r == 0)
        r = wait_for_answers(s, e);
    if (r < 0)
        return r;
    if (s->trouble == SYNC_FINE)
        return sync_take_unsettled(s, e);
    if (s->trouble == SYNC_FATAL) {
        struct err ignored = ERR_INIT;
        (void)!sync_recover(s, &ignored);
        return sync_result(s, e);
    }
    r = sync_recover(s, e);
    return r < 0 ? r : 1;
}

int sync_push(struct sync *s, struct err *e)
{
    struct err own = ERR_INIT;
    int r = 1;
    e = e ? e : &own;
    for (int round = 0; r == 1; round++) {
        if (round == SYNC_ROUNDS && s->error.code)
            return err_say(e, EAGAIN, "gave up after %d rounds: %s", SYNC_ROUNDS, s->error.msg);
        if (round == SYNC_ROUNDS)
            return 0; /* a file that is written all the time: its latest reading was sent */
        r = push_once(s, e);
    }
    if (r < 0) {
        struct err ignored = ERR_INIT;
        sync_drop_sets(s);
        (void)!index_rollback(s->index, &ignored);
        s->sent_seq = index_state(s->index)->acked_seq;
        s->trouble = SYNC_FINE;
        return r;
    }
    s->error = (struct err)ERR_INIT;
    while (sync_sig_step(s))
        ;
    return 0;
}

/* ---- totals */

void sync_totals(const struct sync *s, struct sync_totals *ret)
{
    *ret = s->totals;
    ret->generation = index_state(s->index)->generation;
    ret->elapsed_ms = (double)((io_now_ns() - s->started_ns) / 1000) / 1e3;
    ret->scan_ms = (double)(s->scan_ns / 1000) / 1e3;
    ret->send_ms = (double)(s->send_ns / 1000) / 1e3;
}

void sync_totals_reset(struct sync *s)
{
    s->totals = (struct sync_totals){.generation = 0};
    s->started_ns = io_now_ns();
    s->scan_ns = s->send_ns = 0;
    s->files_total = s->files_done = s->bytes_total = s->bytes_done = 0;
}
