/* SPDX-License-Identifier: MIT */
#include "agent/settle.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <uthash.h>

#include "shared/banned.h"

struct waiting {
    char *path;
    enum settle_hint hint;
    uint32_t cookie;
    uint64_t ino;
    uint64_t first_us, due_us;
    uint64_t order;               /* of the first event */
    UT_hash_handle hh, by_cookie; /* by_cookie: those that left, as long as it is known */
};

struct settle {
    struct waiting *paths, *left;
    uint64_t next_us; /* no path is due before */
    uint64_t taken_us;
    uint64_t next_order;
};

static const uint64_t wait_us[] = {
    [SETTLE_WRITTEN] = 0,
    [SETTLE_NEW] = SETTLE_NEW_US,
    [SETTLE_PASSING] = SETTLE_PASSING_US,
    [SETTLE_ARRIVED] = 0,
    [SETTLE_MODIFIED] = SETTLE_QUIET_US,
    [SETTLE_GONE] = SETTLE_GONE_US,
    [SETTLE_LEFT] = SETTLE_PAIR_US,
};

/* The six random characters of mkstemp, at the end. */
static bool ends_randomly(const char *name, size_t len)
{
    unsigned upper = 0, lower = 0, digits = 0;
    for (size_t i = len - 6; i < len; i++) {
        upper += name[i] >= 'A' && name[i] <= 'Z';
        lower += name[i] >= 'a' && name[i] <= 'z';
        digits += name[i] >= '0' && name[i] <= '9';
    }
    return upper + lower + digits == 6 && (upper > 0) + (lower > 0) + (digits > 0) > 1;
}

bool settle_is_passing(const char *name)
{
    static const char *const ends[] = {".tmp", ".temp", ".part", ".new", ".bak", "~"};
    size_t len = strlen(name);
    if (strstr(name, ".tmp.") || strstr(name, ".tmp-") || strncmp(name, ".tmp", 4) == 0 ||
        strncmp(name, "tmp", 3) == 0 || strncmp(name, ".!", 2) == 0)
        return true;
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        size_t n = strlen(ends[i]);
        if (len > n && strcmp(name + len - n, ends[i]) == 0)
            return true;
    }
    if (len == 9 && strncmp(name, "sed", 3) == 0)
        return ends_randomly(name, len);
    return len > 8 && (name[0] == '.' || name[len - 7] == '.') && ends_randomly(name, len);
}

struct settle *settle_new(void)
{
    struct settle *s = calloc(1, sizeof(*s));
    if (s)
        s->next_us = SETTLE_NEVER;
    return s;
}

/* The halves of renamings are found by their cookie: there may be thousands. */
static void set_hint(struct settle *s, struct waiting *w, const struct settle_event *event)
{
    struct waiting *other = NULL;
    if (w->by_cookie.tbl)
        HASH_DELETE(by_cookie, s->left, w);
    w->by_cookie.tbl = NULL;
    w->hint = event->hint;
    w->cookie = event->cookie;
    w->ino = event->ino;
    if (w->hint != SETTLE_LEFT || !w->cookie)
        return;
    HASH_FIND(by_cookie, s->left, &w->cookie, sizeof(w->cookie), other);
    if (!other)
        HASH_ADD(by_cookie, s->left, cookie, sizeof(w->cookie), w);
}

static void unlink_waiting(struct settle *s, struct waiting *w)
{
    if (w->by_cookie.tbl)
        HASH_DELETE(by_cookie, s->left, w);
    HASH_DEL(s->paths, w);
}

static void drop(struct settle *s, struct waiting *w)
{
    unlink_waiting(s, w);
    free(w->path);
    free(w);
}

void settle_free(struct settle *s)
{
    struct waiting *w, *next;
    if (!s)
        return;
    HASH_ITER(hh, s->paths, w, next)
        drop(s, w);
    free(s);
}

static struct waiting *find_or_add(
    struct settle *s, const char *path, uint64_t now_us, int *ret_code)
{
    struct waiting *w = NULL;
    HASH_FIND_STR(s->paths, path, w);
    if (w)
        return w;
    *ret_code = -ENOBUFS;
    if (HASH_COUNT(s->paths) >= SETTLE_PATHS_MAX)
        return NULL;
    *ret_code = -ENOMEM;
    w = calloc(1, sizeof(*w));
    if (!w || !(w->path = strdup(path))) {
        free(w);
        return NULL;
    }
    w->first_us = now_us;
    w->order = s->next_order++;
    HASH_ADD_KEYPTR(hh, s->paths, w->path, strlen(w->path), w);
    return w;
}

static void set_due(struct settle *s, struct waiting *w, uint64_t due_us)
{
    uint64_t cap_us = w->first_us + SETTLE_CAP_US;
    w->due_us = due_us < cap_us ? due_us : cap_us;
    if (w->due_us < s->next_us)
        s->next_us = w->due_us;
}

/* What arrived was away at most 50 ms: whoever waits for it need not wait longer. */
static void pair(struct settle *s, const struct settle_event *event, uint64_t now_us)
{
    struct waiting *w = NULL, *next;
    if (event->cookie)
        HASH_FIND(by_cookie, s->left, &event->cookie, sizeof(event->cookie), w);
    if (w) {
        set_due(s, w, now_us);
        return;
    }
    /* Away and back in two steps, by way of a folder that is not ours. */
    if (!event->ino)
        return;
    for (w = s->left; w; w = next) {
        next = w->by_cookie.next;
        if (w->ino == event->ino)
            set_due(s, w, now_us);
    }
}

int settle_feed(struct settle *s, const struct settle_event *event, uint64_t now_us)
{
    int code = 0;
    struct waiting *w = find_or_add(s, event->path, now_us, &code);
    if (!w)
        return code;
    set_hint(s, w, event);
    set_due(s, w, now_us + wait_us[event->hint]);
    if (event->hint == SETTLE_ARRIVED)
        pair(s, event, now_us);
    return 0;
}

void settle_hurry(struct settle *s, uint64_t now_us)
{
    struct waiting *w, *next;
    HASH_ITER(hh, s->paths, w, next) {
        if (w->due_us > now_us)
            set_due(s, w, now_us);
    }
}

static int by_order(const void *a, const void *b)
{
    const struct waiting *const *x = a, *const *y = b;
    return ((*x)->order > (*y)->order) - ((*x)->order < (*y)->order);
}

size_t settle_take(struct settle *s, uint64_t now_us, char **ret, size_t max)
{
    struct waiting *w, *next;
    size_t count = 0;
    if (now_us < s->next_us || max == 0)
        return 0;
    struct waiting **due = malloc((HASH_COUNT(s->paths) + 1) * sizeof(struct waiting *));
    if (!due)
        return 0;
    s->next_us = SETTLE_NEVER;
    HASH_ITER(hh, s->paths, w, next) {
        if (w->due_us <= now_us)
            due[count++] = w;
        else if (w->due_us < s->next_us)
            s->next_us = w->due_us;
    }
    if (count)
        qsort(due, count, sizeof(struct waiting *), by_order);
    if (count > max) {
        s->next_us = now_us;
        count = max;
    }
    s->taken_us = SETTLE_NEVER;
    for (size_t i = 0; i < count; i++) {
        if (due[i]->first_us < s->taken_us)
            s->taken_us = due[i]->first_us;
        /* The table's key is the path: it goes first. */
        unlink_waiting(s, due[i]);
        ret[i] = ptr_take(&due[i]->path);
        free(due[i]);
    }
    free(due);
    return count;
}

uint64_t settle_taken_us(const struct settle *s)
{
    return s->taken_us;
}

uint64_t settle_next_us(const struct settle *s)
{
    return s->next_us;
}

size_t settle_count(const struct settle *s)
{
    return HASH_COUNT(s->paths);
}

size_t settle_some(const struct settle *s, const char **ret, size_t max)
{
    size_t n = 0;
    for (const struct waiting *w = s->paths; w && n < max; w = w->hh.next)
        ret[n++] = w->path;
    return n;
}
