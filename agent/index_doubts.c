/* SPDX-License-Identifier: MIT */
/* What the index is not sure of, in memory: doubts and contests (agent/index.h). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agent/index_internal.h"
#include "shared/path.h"

#include "shared/banned.h"

/* ---- doubts */

static struct index_doubt *doubt_find(const struct index *ix, const char *path)
{
    struct index_doubt *d = NULL;
    HASH_FIND_STR(ix->doubts, path, d);
    return d;
}

bool index_in_doubt(const struct index *ix, const char *path)
{
    return doubt_find(ix, path) != NULL;
}

bool index_was_sent(const struct index *ix, const struct manifest_entry *there)
{
    const struct index_doubt *d = doubt_find(ix, there->path);
    while (d && !(d->kind == there->kind && hash_equal(&d->hash, &there->hash)))
        d = d->older;
    return d != NULL;
}

/* Free those of one path that belong to sets up to seq; the rest. */
static struct index_doubt *doubt_prune(struct index_doubt *d, uint64_t seq)
{
    struct index_doubt *left = NULL, **end = &left;
    while (d) {
        struct index_doubt *older = d->older;
        if (d->seq > seq) {
            *end = d;
            end = &d->older;
        } else {
            free(d);
        }
        d = older;
    }
    *end = NULL;
    return left;
}

static void doubt_list(struct index_doubt **doubts, struct index_doubt *d)
{
    HASH_ADD_KEYPTR(hh, *doubts, d->path, strlen(d->path), d);
}

void index_doubts_end(struct index *ix, uint64_t seq)
{
    struct index_doubt *d, *next, *left = NULL;
    HASH_ITER(hh, ix->doubts, d, next) {
        HASH_DEL(ix->doubts, d);
        d = doubt_prune(d, seq);
        if (d)
            doubt_list(&left, d);
    }
    ix->doubts = left;
}

/* Of one path there are no more than there were sets under way at a time. */
int index_doubt_add(struct index *ix, uint64_t seq, const struct manifest_entry *sent)
{
    size_t len = strlen(sent->path);
    struct index_doubt *known = doubt_find(ix, sent->path), *d = calloc(1, sizeof(*d) + len + 1);
    if (!d)
        return -ENOMEM;
    d->seq = seq;
    d->kind = sent->kind;
    d->hash = sent->hash;
    memcpy(d->path, sent->path, len + 1);
    if (known)
        HASH_DEL(ix->doubts, known);
    d->older = doubt_prune(known, ix->state.acked_seq);
    doubt_list(&ix->doubts, d);
    return 0;
}

/* ---- contests */

static struct index_contest *contest_find(const struct index *ix, const char *path)
{
    struct index_contest *c = NULL;
    HASH_FIND_STR(ix->contests, path, c);
    return c;
}

bool index_contested(const struct index *ix, const char *path)
{
    return contest_find(ix, path) != NULL;
}

void index_settle(struct index *ix, const char *path)
{
    index_contest_end(ix, path, false);
}

bool index_has_contests(const struct index *ix)
{
    return ix->contests != NULL;
}

int index_contest_add(struct index *ix, const char *path)
{
    size_t len = strlen(path);
    if (contest_find(ix, path))
        return 0;
    struct index_contest *c = calloc(1, sizeof(*c) + len + 1);
    if (!c)
        return -ENOMEM;
    memcpy(c->path, path, len + 1);
    HASH_ADD_KEYPTR(hh, ix->contests, c->path, len, c);
    return 0;
}

static void contest_drop(struct index *ix, struct index_contest *c)
{
    HASH_DEL(ix->contests, c);
    free(c);
}

/* Of one path by its hash: where everything is contested each index_put asks for it. */
void index_contest_end(struct index *ix, const char *path, bool beneath)
{
    struct index_contest *c = contest_find(ix, path), *next;
    if (c)
        contest_drop(ix, c);
    if (!beneath)
        return;
    HASH_ITER(hh, ix->contests, c, next) {
        if (!*path || path_beneath(path, c->path))
            contest_drop(ix, c);
    }
}
