/* SPDX-License-Identifier: MIT */
/*
 * Room for the database on a full disk. Whoever deletes something to make room, and whoever runs a
 * program that needs none, still needs a commit; and what fills a disk (a program, a neighbour)
 * asks nobody. So the log that every commit is appended to owns its blocks ahead: SQLite uses the
 * file from its beginning again after each checkpoint and never shortens it while it is open.
 *
 * The main file grows at checkpoints only. One that fails for want of space is tried again with
 * later commits, which meanwhile make the log longer, so the reserve is what commits can use up
 * until space is freed.
 */
#include <errno.h>
#include <fcntl.h>

#include "server/store_internal.h"

#include "shared/io.h"
#include "shared/log.h"

#include "shared/banned.h"

#define RESERVE_BYTES (16 * 1024 * 1024)
#define CHUNK_BYTES (1024 * 1024) /* the main file grows by */

/* SQLite holds its locks on the main file, not on this one: it may be opened and closed here. */
static int reserve_log(const char *path, struct err *e)
{
    CLEANUP(freep) char *log = NULL;

    if (asprintf(&log, "%s-wal", path) < 0) {
        log = NULL;
        return err_set(e, ENOMEM, "keep room for the database");
    }
    CLEANUP(fd_closep) int fd = open(log, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, RESERVE_BYTES) < 0)
        return err_set(e, errno, "keep room for the database in '%s'", log);
    return 0;
}

void store_reserve(struct store *s, const char *path)
{
    struct err e = ERR_INIT;
    int chunk = CHUNK_BYTES;

    (void)sqlite3_file_control(s->db, NULL, SQLITE_FCNTL_CHUNK_SIZE, &chunk);
    if (reserve_log(path, &e) < 0)
        log_warn("%s: on a full disk nothing can be deleted or run", e.msg);
}
