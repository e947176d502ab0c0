/* SPDX-License-Identifier: MIT */
/*
 * siltd's settings. Each is one row of a table in config.c: its flag, its environment variable, its
 * key in the file, its default and its sentence of help are that row's, and so are --help and the
 * README's table. The command line wins over the environment, that over the file, that over the
 * default. A key or option that nobody knows is an error that names its neighbours, never ignored.
 *
 *     config_load(&world, argc, argv, &config, &action, &e)   // once, before threads start
 *     ...
 *     config_free(config)
 *
 * The result is read-only and may be shared by threads. Nothing here prints: texts are appended to
 * buffers. The file is `key = value` lines; '#' begins a comment line.
 */
#ifndef SERVER_CONFIG_H
#define SERVER_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "shared/buf.h"
#include "shared/err.h"

#define CONFIG_FILE_MAX (64 * 1024) /* bytes of the file */
#define CONFIG_LIST_MAX 32          /* values of a list */
#define CONFIG_WORDS_MAX 4          /* after `image` */

struct config_limits {
    uint64_t wall_ms, cpu_ms; /* cpu_ms 0: none */
    uint64_t memory_bytes, pids, output_bytes, tmp_bytes, open_files, file_bytes;
    uint64_t cpus; /* 0: all of the host's */
};

struct config {
    char *listen; /* as given; split into: */
    char host[64];
    uint16_t port;
    char *data_dir, *workspace_root, *token_file, *engine, *docker_socket, *docker_image, *runtime,
        *images, *init;                           /* token_file: or "" */
    char **allow_hosts, **allow_users, **prepare; /* NULL-terminated, never NULL */
    char *port_file;                              /* "" = none */
    uint64_t max_runs, max_queued;
    uint64_t sandbox_runs, sandbox_queued; /* of one sandbox, at most the former */
    uint64_t max_warm, warm_ms, max_connections;
    struct config_limits limits, limits_max;
    uint64_t json_bytes, upload_bytes, body_deadline_ms;
    uint64_t workspace_bytes, workspace_files, free_bytes;
    uint64_t keep_runs, keep_ms;
    uint64_t stop_ms;
    uint64_t log_level; /* enum log_level */
    const char *words[CONFIG_WORDS_MAX]; /* after `image`: of argv */
    size_t word_count;
};

/* What the settings depend on, so that a test can say it. */
struct config_world {
    bool root; /* effective user is root */
    unsigned cpus;
    const char *exe_dir;                             /* folder of siltd's own binary */
    const char *(*env)(void *ctx, const char *name); /* getenv */
    void *ctx;
};

enum config_action {
    CONFIG_RUN,
    CONFIG_HELP,
    CONFIG_VERSION,
    CONFIG_PRINT,
    CONFIG_SECCOMP,
    CONFIG_DOCTOR,
    CONFIG_DOCTOR_JSON,
    CONFIG_IMAGE,
    CONFIG_IMAGE_JSON
};

/* argv[0] is skipped. -EINVAL with a sentence that names flag, variable or file and line. With
 * another action than CONFIG_RUN *ret may be NULL (HELP, VERSION). */
int config_load(const struct config_world *world, int argc, char *const *argv, struct config **ret,
    enum config_action *ret_action, struct err *e) WARN_UNUSED;
void config_free(struct config *c);
/* The folder of images that sandboxes can name, or NULL: the engine makes containers of one only. */
const char *config_image_dir(const struct config *c);

/* What --help prints; the Markdown table of the README. -ENOBUFS, -ENOMEM. */
int config_help(struct buf *b) WARN_UNUSED;
int config_markdown(struct buf *b) WARN_UNUSED;
/* One "key = value" line per setting as it is now. */
int config_dump(const struct config *c, struct buf *b) WARN_UNUSED;

#endif
