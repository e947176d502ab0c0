/* SPDX-License-Identifier: MIT */
/*
 * Sandboxes: the table of them, their properties, generations and epochs, the order of change sets
 * per client, the barrier that runs wait at, and the writer lease. The folder with the files is
 * server/workspace.h, beneath this; what survives a restart is in server/store.h.
 *
 * Thread-safe. A struct sandbox is reference-counted: sandbox_get … sandbox_unref. Functions that
 * touch files switch the calling thread to the sandbox's identity and back; do not call them from a
 * thread that already carries one.
 */
#ifndef SERVER_SANDBOX_H
#define SERVER_SANDBOX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "shared/changes.h"
#include "shared/err.h"
#include "shared/manifest.h"

#include "server/late.h"
#include "server/store.h"

struct sandboxes;
struct sandbox;

struct sandboxes_config {
    const char *data_dir;       /* ours: staging, caches */
    const char *workspace_root; /* one folder per sandbox, named by its id */
    struct store *store;
    bool root;       /* give each sandbox its own uid from uid_first on */
    uid_t uid_first; /* e.g. 1073741824 */
    uint32_t uid_count;
    uint64_t max_workspace_bytes; /* a change set beyond it is refused with no_space */
    uint64_t max_workspace_files;
    uint64_t min_free_bytes; /* of the file system; refuse change sets below */
};

/* Open all: loads the table, rolls interrupted change sets forward, removes staging leftovers,
 * gives new epochs after an unclean stop. */
int sandboxes_open(
    const struct sandboxes_config *config, struct sandboxes **ret, struct err *e) WARN_UNUSED;
void sandboxes_close(struct sandboxes *all);

#define SANDBOX_ID_BYTES 32

/* What a client may say about a sandbox. JSON members are texts of objects, validated by the
 * caller. */
struct sandbox_spec {
    const char *language;                                            /* "" = none */
    const char *name;                                                /* "" = none */
    const char *image;                                               /* "host" */
    const char *env_json, *limits_json, *network_json, *labels_json; /* "{}" */
    uint64_t idle_ttl_s;                                             /* 0 = never */
};

/* A snapshot of one, malloc'd strings; release with sandbox_info_release. */
struct sandbox_info {
    char id[SANDBOX_ID_BYTES];
    char *language, *name, *image, *env_json, *limits_json, *network_json, *labels_json;
    uint64_t idle_ttl_s;
    uint64_t created_ns, used_ns; /* wall clock */
    uint64_t generation;
    char epoch[40];
    char *writer_link, *writer_machine; /* "" = nobody holds the lease */
    uint64_t files, bytes;
    bool deleting;
};
void sandbox_info_release(struct sandbox_info *info);

int sandbox_create(struct sandboxes *all, const struct sandbox_spec *spec, struct sandbox **ret,
    struct err *e) WARN_UNUSED;
/* A reference; refusals PROTO_SANDBOX_NOT_FOUND, PROTO_SANDBOX_DELETED (known to have existed in
 * this process's life). */
int sandbox_get(
    struct sandboxes *all, const char *id, struct sandbox **ret, struct err *e) WARN_UNUSED;
struct sandbox *sandbox_ref(struct sandbox *sb);
void sandbox_unref(struct sandbox *sb);
int sandbox_info(struct sandbox *sb, struct sandbox_info *ret, struct err *e) WARN_UNUSED;
const char *sandbox_id(const struct sandbox *sb);
/* Oldest first, after after_id (NULL = from the start). Stops when visit returns non-zero. */
int sandbox_list(struct sandboxes *all, const char *after_id, unsigned limit,
    int (*visit)(const struct sandbox_info *info, void *ctx), void *ctx, struct err *e) WARN_UNUSED;
/* Replace the properties of spec that are not NULL (idle_ttl_s: UINT64_MAX = keep). */
int sandbox_update(struct sandbox *sb, const struct sandbox_spec *spec, struct err *e) WARN_UNUSED;
/* Mark as deleting: from now on sandbox_get, apply and sandbox_run_enter refuse; barrier waiters
 * are woken and refused. The caller then ends the runs; sandbox_delete waits until the last
 * sandbox_run_leave, removes workspace, cache, staging and rows. Returning 0 means: gone from disk.
 */
int sandbox_delete_begin(struct sandbox *sb, struct err *e) WARN_UNUSED;
int sandbox_delete(struct sandbox *sb, struct err *e) WARN_UNUSED;

/* ---- the writer lease: one link at a time may send change sets with a client name. A client is
 * "<link>.<random>"; the part before the first dot is the link. The first set takes the lease; with
 * `steal` it is taken from another link; otherwise PROTO_LINKED_ELSEWHERE naming machine and link.
 */
int sandbox_lease(struct sandbox *sb, const char *link, const char *machine, bool steal,
    struct err *e) WARN_UNUSED;

/* ---- change sets */
enum sandbox_conflict_kind { SANDBOX_CONFLICT_BASE, SANDBOX_CONFLICT_PATH };
struct sandbox_conflict {
    char *path;
    bool exists; /* what the server has there */
    enum tree_kind kind;
    uint64_t size;
    struct hash hash;
};
struct sandbox_apply_result {
    uint64_t generation; /* after it; after a refusal: now, if epoch is not "" */
    char epoch[40];
    uint32_t created, updated, moved, deleted;
    bool repeated;                      /* answered from memory: this very set was applied before */
    struct sandbox_conflict *conflicts; /* with refusal PROTO_BASE_MISMATCH / PROTO_PATH_CONFLICT */
    size_t conflict_count;
    struct late late; /* release the result when the answer is out: this may take a while */
};
void sandbox_apply_result_release(struct sandbox_apply_result *r);

/*
 * Apply a change set: whole or not at all. Stages while reading (outside the sandbox's lock), waits
 * for its parent set if that is under way (at most 10 s, then PROTO_SEQ_GAP), validates against the
 * manifest, writes the intent, places, commits; generation + 1 (not for an empty set). On refusal
 * or error nothing changed and nothing staged stays. Refusals: see PROTO_* 409, 422, 507 in
 * shared/PROTOCOL.md, and PROTO_FILE_NOT_FOUND for an operation without a base that needs an entry
 * which is not there (with a base that is PROTO_BASE_MISMATCH). The lease is checked when
 * begin->client is set.
 * The feed is called on this thread, which carries the sandbox's identity meanwhile: it may read
 * from descriptors and memory, but must not open files or use the store.
 */
int sandbox_apply(struct sandbox *sb, const struct changes_begin *begin,
    const struct changes_feed *feed, struct sandbox_apply_result *ret, struct err *e) WARN_UNUSED;

/* Wait until the set {client, seq} has been applied: 0; PROTO_BARRIER_REFUSED at once if it was
 * refused (message carries its reason), PROTO_BARRIER_TIMEOUT, PROTO_SANDBOX_DELETED, or -ECANCELED
 * when *cancel becomes true (after sandbox_kick). */
int sandbox_barrier(struct sandbox *sb, const char *client, uint64_t seq, uint32_t timeout_ms,
    const atomic_bool *cancel, struct err *e) WARN_UNUSED;
void sandbox_kick(struct sandbox *sb); /* wake everybody who waits in this sandbox, to look again */

/* ---- runs */
struct sandbox_mounts {
    char *workspace, *cache; /* absolute host paths, malloc'd */
    uint64_t workspace_dev, workspace_ino;
    uid_t uid;
    gid_t gid;
    uint64_t generation; /* now */
};
/* Does the sandbox hold more than it may, and more than a run before it left? False where the kernel sees to that (hard). Walks its
 * folders. Both between sandbox_run_enter and _leave. */
bool sandbox_over(struct sandbox *sb);
bool sandbox_space_hard(const struct sandbox *sb);
/* Count a run in; fills what its container needs. */
int sandbox_run_enter(struct sandbox *sb, struct sandbox_mounts *ret, struct err *e) WARN_UNUSED;
void sandbox_mounts_release(struct sandbox_mounts *m);
/* The same, without a generation, for a container that is made ahead: no program of it sees the
 * workspace before a run is counted in, so change sets are placed as if nothing ran. A deletion
 * waits until it has left. */
int sandbox_make_enter(struct sandbox *sb, struct sandbox_mounts *ret, struct err *e) WARN_UNUSED;
void sandbox_make_leave(struct sandbox *sb);

enum sandbox_change_kind { SANDBOX_CREATED, SANDBOX_MODIFIED, SANDBOX_DELETED };
struct sandbox_changed_file {
    char *path;
    enum sandbox_change_kind change;
    enum tree_kind kind;
    uint64_t size;
    struct hash hash; /* files and symlinks that exist */
};
struct sandbox_run_changes {
    bool full; /* the kernel lets it write no more: see sandbox_over */
    uint64_t generation;                /* after */
    struct sandbox_changed_file *files; /* sorted by path, at most 1000 listed */
    size_t count;
    size_t total;    /* how many there were */
    bool incomplete; /* some part could not be read */
};
void sandbox_run_changes_release(struct sandbox_run_changes *c);
/* After the container has ended: compare the folder with the manifest, adopt what programs changed
 * (generation + 1 if anything did), count the run out. Also drops caches of entries that vanished.
 */
int sandbox_run_leave(
    struct sandbox *sb, struct sandbox_run_changes *ret, struct err *e) WARN_UNUSED;
/* Count a run out that never started. */
void sandbox_run_abandon(struct sandbox *sb);

/* ---- events */
struct events;
/* What happens here; as long as the sandbox is referenced. */
struct events *sandbox_events(struct sandbox *sb);
struct sandbox_state {
    uint64_t generation;
    char epoch[40];
    uint64_t last_event; /* the id of the event that led to it, or of a later one */
};
/* Count a follower in at sandbox_events, and tell from where on it follows; events_leave counts it
 * out. PROTO_BUSY when there are too many. */
int sandbox_follow(struct sandbox *sb, struct sandbox_state *ret, struct err *e) WARN_UNUSED;
void sandbox_state(struct sandbox *sb, struct sandbox_state *ret);
/* A run in this sandbox has come to another status (a static text: "queued", "running", …). Say
 * "running" on the thread that calls sandbox_run_leave for this run, before it does. */
void sandbox_note_run(struct sandbox *sb, const char *run, const char *status, bool running);
/* The server stops: whoever follows events comes to the end. */
void sandboxes_end_events(struct sandboxes *all);

/* ---- versions that a change set displaced although its sender never had them (`keep`) */
#define SANDBOX_KEPT_PREFIX "cf_"
#define SANDBOX_KEPT_MAX 200
#define SANDBOX_KEPT_BYTES_MAX (UINT64_C(1) << 30) /* or one version; the oldest go first */
struct sandbox_kept {
    char id[SANDBOX_ID_BYTES];
    char *path; /* malloc'd */
    enum tree_kind kind; /* TREE_FILE or TREE_SYMLINK */
    uint32_t mode;
    uint64_t size;
    struct hash hash;
    char run[SANDBOX_ID_BYTES + 8]; /* that wrote it; "" = not known */
    uint64_t kept_ns;
    char target[4096]; /* of a symlink that was opened */
};
void sandbox_kept_release(struct sandbox_kept *k);
/* Oldest first. visit returns non-zero when it is out of memory; the sandbox is locked meanwhile. */
int sandbox_kept_list(struct sandbox *sb, int (*visit)(const struct sandbox_kept *k, void *ctx),
    void *ctx, struct err *e) WARN_UNUSED;
/* *ret_fd is -1 for a symlink. PROTO_FILE_NOT_FOUND. */
int sandbox_kept_open(struct sandbox *sb, const char *id, int *ret_fd, struct sandbox_kept *ret,
    struct err *e) WARN_UNUSED;
int sandbox_kept_delete(struct sandbox *sb, const char *id, struct err *e) WARN_UNUSED;
/* The run's record is gone, and what was kept beside it goes too. */
void sandbox_kept_forget_run(struct sandbox *sb, const char *run);
/* What was kept before a time by the wall clock goes, in every sandbox. */
void sandbox_kept_expire(struct sandboxes *all, uint64_t before_ns);

/* ---- files, for reading */
struct sandbox_file {
    enum tree_kind kind;
    uint64_t size;
    uint32_t mode;
    int64_t mtime_ns;
    struct hash hash;
    char *target; /* symlinks; malloc'd */
};
void sandbox_file_release(struct sandbox_file *f);
/* What is at path now (the file is hashed again if it changed behind the manifest). With ret_fd
 * (may be NULL) a regular file is opened for reading. Refusal PROTO_FILE_NOT_FOUND with near names
 * in the message. */
int sandbox_file_open(struct sandbox *sb, const char *path, int *ret_fd, struct sandbox_file *ret,
    struct err *e) WARN_UNUSED;
struct sandbox_digests {
    struct hash all;    /* manifest_digest */
    struct hash synced; /* manifest_digest_synced */
};
/* The manifest in byte order of path, those beneath `prefix` ("" = all) after `after` (NULL = from
 * the start), and the tree's digests and generation as of the same moment. visit must not call back
 * into this module: the sandbox is locked meanwhile. ret_generation and ret_digests may be NULL. */
int sandbox_manifest(struct sandbox *sb, const char *prefix, const char *after, size_t limit,
    int (*visit)(const struct manifest_entry *entry, void *ctx), void *ctx,
    uint64_t *ret_generation, struct sandbox_digests *ret_digests, struct err *e) WARN_UNUSED;
/* Up to `max` paths of files that resemble `path`, malloc'd; *ret_count of them. For errors. */
size_t sandbox_near_names(struct sandbox *sb, const char *path, char *ret[], size_t max);
/* Does a regular file with this path exist in the workspace? */
bool sandbox_has_file(struct sandbox *sb, const char *path);

#endif
