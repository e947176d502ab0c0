/* SPDX-License-Identifier: MIT */
/* The simulated view, shared by plan.c (operations), plan_view.c (looking up) and plan_steps.c
 * (net effect). */
#ifndef SERVER_PLAN_INTERNAL_H
#define SERVER_PLAN_INTERNAL_H

#include "server/plan.h"

/* Names are foreign. The key begins with a pointer that the sender cannot know, which makes the
 * hash one with a secret. */
#define HASH_FUNCTION(key, len, value) ((value) = (unsigned)hash_block64((key), (len)))
#define HASH_NONFATAL_OOM 1
#include <uthash.h>

struct plan_slot;

struct plan_entry {
    enum tree_kind kind;
    char *origin;            /* where it lies on disk; NULL: it is new */
    struct plan_slot *at;    /* where it is now; NULL: deleted */
    struct plan_slot *slots; /* directories: names in it that were looked at */
    struct plan_entry *all_next;
    bool known;    /* the manifest has it, and as the same kind */
    bool on_disk;  /* `disk` is filled */
    bool hashed;   /* `hash` is filled */
    bool new_mode; /* `mode` was asked for */
    struct tree_stat disk;
    struct hash hash;
    char *target;
    struct staged *staged; /* new files and symlinks */
    uint32_t mode;
};

/* What a slot is found by. The bytes of the name follow. */
struct plan_key {
    struct plan_entry *parent;
    char name[PATH_NAME_MAX + 1];
};

struct plan_slot {
    struct plan_entry *parent;
    char *name;
    struct plan_entry *orig, *now;
    bool strict; /* an operation had a condition on what was here before */
    struct plan_slot *next;
    void *key;
    UT_hash_handle hh;
};

struct plan {
    struct stage *stage;
    struct workspace *ws;
    struct plan_entry *root, *all; /* all: every entry, for freeing */
    struct plan_slot *index;
    struct sandbox_conflict *conflicts;
    size_t conflict_count;
    bool base_conflict; /* one of them is of that kind */
};

enum plan_found { PLAN_FOUND, PLAN_ABSENT, PLAN_CONFLICT };

/* The slot of path. Directories on the way are made when `make`. PLAN_ABSENT: a directory on the
 * way does not exist. PLAN_CONFLICT was recorded: something on the way is no directory. <0:
 * failure. */
int plan_find(struct plan *p, const char *path, bool make, struct plan_slot **ret, struct err *e);
/* The slot if an operation looked at it, else NULL. */
struct plan_slot *plan_peek(const struct plan *p, struct plan_entry *dir, const char *name);
struct plan_entry *plan_entry_new(struct plan *p, enum tree_kind kind);
/* Make sure that the entry's stat is known / its hash is known. 1: it is gone from the disk. */
int plan_entry_stat(struct plan *p, struct plan_entry *entry, struct err *e);
int plan_entry_hash(struct plan *p, struct plan_entry *entry, struct err *e);
int plan_add_conflict(
    struct plan *p, const char *path, struct plan_entry *there, bool base, struct err *e);

#endif
