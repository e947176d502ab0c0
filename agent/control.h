/* SPDX-License-Identifier: MIT */
/*
 * The watcher's control socket `.silt/control`: one JSON object per line in, one out. While a
 * watcher holds the project's lock, the other commands talk to it instead of syncing themselves.
 *
 * For commands: control_request(). For the watcher (agent/sync_watch.c): control_listen, then
 * control_fds / control_ready in its poll loop, control_answer when an answer is known. The socket
 * is bound through the held folder's descriptor, so that a project's path may be longer than
 * sun_path; it has mode 0600 and only the same user (or root) is heard. One thread.
 *
 * Requests (member "op") and their answers. A failed one is answered
 *     {"error":{"errno":110,"message":"…"}}
 * {"op":"flush","timeout_ms":N}   everything written before now was seen and is on its way:
 *     {"client":"…","seq":N,"generation":N,"pending":["path",…]}   client "" and seq 0: the server
 * has had everything for ever; pending: not yet acknowledged, ≤ 20 paths
 * {"op":"sync","timeout_ms":N,"verify":B}    (and "epoch": the server's; where the watcher knows another it
 * compares everything) as flush, then acknowledged; all of `silt sync --json` since the
 * request:
 *     {"client","seq","generation","created","updated","moved","deleted","bytes_sent","bytes_received",
 *      "content_bytes","conflicts","skipped","elapsed_ms"}
 *     with verify every file is read again, the server asked, and "verified":{"entries","repaired",
 *      "by_runs"} added
 * {"op":"status"}
 *     {"pid","server","sandbox","generation","state":"idle"|"sending"|"away","problem":"…" or null,
 *      "watched_directories","polled_directories","pending","files","bytes","since"}
 * {"op":"pull"}                   carry out the plan in `.silt/pull` (agent/pull.h), which then says what
 *     became of each item:
 *     {"placed":true}
 * {"op":"stop"}                   {"stopping":true}, then the watcher ends
 * {"op":"run","request":{…},"stream":B,"settled":B}   flush, then the exec request {…} with `after`,
 *     beside the change sets it waits for, over the watcher's connections. `stream`: as NDJSON, else
 *     one object. `settled`: only when nothing is under way any more, after a refusal. What the server
 *     sends comes as {"bytes":N} and N bytes, again and again, then the end:
 *     {"end":{"errno":0}} or {"end":{"errno":N,"message":"…","refusal":"file_not_found" or null}}
 *     A peer that goes away ends its run.
 * {"op":"cancel","run":"run_…"}   {"cancelling":true}: the run is asked to stop
 * {"op":"follow"}                 what the watcher tells, a line each, as `silt watch --json` does, until
 *     the watcher ends; at once {"event":"ready"} if it is
 * An error that tells of a deadline lists what was not sent: {"error":{…,"pending":["path",…]}}
 */
#ifndef AGENT_CONTROL_H
#define AGENT_CONTROL_H

#include <jansson.h>
#include <poll.h>
#include <stdint.h>

#include "shared/buf.h"
#include "shared/err.h"

#define CONTROL_SOCKET "control"         /* in LINK_DIR */
#define CONTROL_REQUEST_MAX (256 * 1024) /* bytes of one request line */
#define CONTROL_ANSWER_MAX (1024 * 1024) /* bytes of one answer line */
#define CONTROL_PEERS_MAX 64 /* connections at a time; further ones wait in the backlog */

/*
 * Ask the watcher of the project at root (absolute) and wait for its answer: 0 and a new reference
 * in *ret. -ENOENT or -ECONNREFUSED: no watcher is there (a stale socket counts as none).
 * -ETIMEDOUT after timeout_ms (0 = 10 s). An answer with an error gives its errno and sentence.
 * `request` is borrowed.
 */
int control_request(const char *root, const json_t *request, uint32_t timeout_ms, json_t **ret,
    struct err *e) WARN_UNUSED;

/* ---- an answer of many parts: run, follow */
struct control_talk {
    int fd;
    struct buf in;     /* what came and is not told yet */
    uint64_t raw_left; /* bytes that belong to the last {"bytes":N} */
};
struct control_sink {
    int (*bytes)(void *ctx, const void *data, size_t len);
    int (*line)(void *ctx, json_t *object); /* borrowed; an {"error":…} is no line, but the end */
    void *ctx;
};
/* Ask; errors as of control_request, -EMSGSIZE when the request is too long for a watcher. */
int control_talk_open(
    const char *root, const json_t *request, struct control_talk *ret, struct err *e) WARN_UNUSED;
void control_talk_close(struct control_talk *t); /* also one that was never opened: fd -1 */
/* Tell what has come, without waiting: 0 there will be more, -ECONNRESET the watcher ended, an error
 * of the watcher, or what a function of the sink returned unless it was 0. */
int control_talk_read(
    struct control_talk *t, const struct control_sink *sink, struct err *e) WARN_UNUSED;

/* ---- the watcher's side */
struct control;

/* Listen in the folder dir_fd (`.silt`, held, borrowed until control_close). A stale socket is
 * replaced: the caller holds the project's lock, so nobody can be behind it. */
int control_listen(int dir_fd, struct control **ret, struct err *e) WARN_UNUSED;
/* Removes the socket. */
void control_close(struct control *c);

/* What to poll: fills at most max entries of fds, returns how many. */
unsigned control_fds(struct control *c, struct pollfd *fds, unsigned max);

/* A request that arrived whole. The handler answers by control_answer(c, peer, …) now or later;
 * `request` (an object) is borrowed. A peer that went away meanwhile makes the answer a no-op:
 * numbers of peers are not used twice. */
typedef void control_handler(void *ctx, uint64_t peer, const json_t *request);
/* Serve what poll reported for the fds of control_fds. */
void control_ready(struct control *c, const struct pollfd *fds, unsigned count,
    control_handler *handle, void *ctx);
/* Send the answer and expect the peer's next request. Steals the reference. */
void control_answer(struct control *c, uint64_t peer, json_t *answer);
void control_answer_error(struct control *c, uint64_t peer, int code, const char *message);
/* A part of an answer that goes on: bytes, or a line (steals the reference). A peer that is too slow
 * for lines is given up; who sends bytes looks at control_backlog first. */
void control_send_bytes(struct control *c, uint64_t peer, const void *data, size_t len);
void control_send_line(struct control *c, uint64_t peer, json_t *line);
/* Bytes that this peer has not taken yet; SIZE_MAX: it is gone. */
size_t control_backlog(const struct control *c, uint64_t peer);
/* Is this peer still connected? */
int control_has_peer(const struct control *c, uint64_t peer);

#endif
