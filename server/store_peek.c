/* SPDX-License-Identifier: MIT */
/* A look at the database of a server that does not run: nothing of it is changed, least of all how
 * the last stop was. */
#include "server/store_internal.h"

#include <errno.h>

#include "shared/banned.h"

int store_peek_sandboxes(const char *path,
    int (*visit)(const struct store_sandbox *row, void *ctx), void *ctx, struct err *e)
{
    sqlite3 *db = NULL;
    sqlite3_stmt *st = NULL;
    int r = sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOFOLLOW, NULL);
    if (r == SQLITE_OK)
        r = sqlite3_prepare_v2(db, "SELECT id, image FROM sandboxes WHERE deleting = 0", -1, &st, NULL);
    bool more = r == SQLITE_OK;
    while (more && (r = sqlite3_step(st)) == SQLITE_ROW) {
        const struct store_sandbox row = {.id = store_text(st, 0), .image = store_text(st, 1)};
        more = visit(&row, ctx) == 0;
    }
    bool failed = r != SQLITE_OK && r != SQLITE_DONE && r != SQLITE_ROW;
    if (failed)
        (void)err_say(e, EIO, "the database '%s' cannot be read: %s", path, sqlite3_errmsg(db));
    (void)sqlite3_finalize(st);
    (void)sqlite3_close(db);
    return failed ? -EIO : 0;
}
