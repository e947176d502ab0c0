/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "server/store_internal.h"

#include "shared/io.h"

#include "shared/banned.h"

#define SCHEMA_VERSION 3

/* Each entry leads from version i to i + 1. */
static const char *const migrations[SCHEMA_VERSION] = {
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE runs (id TEXT PRIMARY KEY, sandbox TEXT NOT NULL, status TEXT NOT NULL,"
    " created INTEGER NOT NULL, json TEXT NOT NULL) WITHOUT ROWID;"
    "CREATE INDEX runs_by_sandbox ON runs (sandbox, id);"
    "CREATE TABLE sandboxes (num INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,"
    " language TEXT NOT NULL, name TEXT NOT NULL, image TEXT NOT NULL, env TEXT NOT NULL,"
    " limits TEXT NOT NULL, network TEXT NOT NULL, labels TEXT NOT NULL, idle_ttl INTEGER NOT NULL,"
    " created INTEGER NOT NULL, used INTEGER NOT NULL, generation INTEGER NOT NULL,"
    " files INTEGER NOT NULL, bytes INTEGER NOT NULL, epoch TEXT NOT NULL, link TEXT NOT NULL,"
    " machine TEXT NOT NULL, uid INTEGER NOT NULL, deleting INTEGER NOT NULL);"
    "CREATE TABLE files (sandbox INTEGER NOT NULL, path BLOB NOT NULL, kind INTEGER NOT NULL,"
    " mode INTEGER NOT NULL, size INTEGER NOT NULL, hash BLOB NOT NULL, target BLOB,"
    " mtime INTEGER NOT NULL, ctime INTEGER NOT NULL, ino INTEGER NOT NULL, seen INTEGER NOT NULL,"
    " PRIMARY KEY (sandbox, path)) WITHOUT ROWID;"
    "CREATE TABLE results (sandbox INTEGER NOT NULL, client TEXT NOT NULL, slot INTEGER NOT NULL,"
    " seq INTEGER NOT NULL, digest BLOB NOT NULL, refusal INTEGER NOT NULL, reason TEXT NOT NULL,"
    " generation INTEGER NOT NULL, created INTEGER NOT NULL, updated INTEGER NOT NULL,"
    " moved INTEGER NOT NULL, deleted INTEGER NOT NULL, used INTEGER NOT NULL,"
    " PRIMARY KEY (sandbox, client, slot)) WITHOUT ROWID;"
    "CREATE TABLE intents (sandbox INTEGER PRIMARY KEY, steps BLOB NOT NULL, client TEXT NOT NULL,"
    " slot INTEGER NOT NULL, seq INTEGER NOT NULL, digest BLOB NOT NULL,"
    " generation INTEGER NOT NULL, created INTEGER NOT NULL, updated INTEGER NOT NULL,"
    " moved INTEGER NOT NULL, deleted INTEGER NOT NULL, used INTEGER NOT NULL);",
    "ALTER TABLE files ADD COLUMN by_run INTEGER NOT NULL DEFAULT 0;",
    "ALTER TABLE files ADD COLUMN run TEXT NOT NULL DEFAULT '';",
};

static const char *const statements[STMT_COUNT] = {
    [STMT_BEGIN] = "BEGIN IMMEDIATE",
    [STMT_COMMIT] = "COMMIT",
    [STMT_ROLLBACK] = "ROLLBACK",
    [STMT_META_GET] = "SELECT value FROM meta WHERE key = ?1",
    [STMT_META_PUT] = "INSERT OR REPLACE INTO meta VALUES (?1, ?2)",
    [STMT_RUN_PUT] = "INSERT OR REPLACE INTO runs VALUES (?1, ?2, ?3, ?4, ?5)",
    [STMT_RUN_GET] = "SELECT json FROM runs WHERE id = ?1",
    [STMT_RUN_LIST] = "SELECT id, sandbox, status, created, json FROM runs"
                      " WHERE id < ?1 AND (?2 IS NULL OR status = ?2) ORDER BY id DESC LIMIT ?3",
    [STMT_RUN_LIST_SANDBOX] =
        "SELECT id, sandbox, status, created, json FROM runs WHERE sandbox = ?4 AND id < ?1"
        " AND (?2 IS NULL OR status = ?2) ORDER BY id DESC LIMIT ?3",
    [STMT_RUN_DELETE] = "DELETE FROM runs WHERE id = ?1",
    [STMT_RUN_DELETE_SANDBOX] = "DELETE FROM runs WHERE sandbox = ?1",
    [STMT_SANDBOX_ADD] = "INSERT INTO sandboxes VALUES (NULL, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9,"
                         " ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)",
    [STMT_SANDBOX_SAVE] =
        "UPDATE sandboxes SET id = ?1, language = ?2, name = ?3, image = ?4, env = ?5,"
        " limits = ?6, network = ?7, labels = ?8, idle_ttl = ?9, created = ?10, used = ?11,"
        " generation = ?12, files = ?13, bytes = ?14, epoch = ?15, link = ?16, machine = ?17,"
        " uid = ?18, deleting = ?19 WHERE num = ?20",
    [STMT_SANDBOX_EACH] =
        "SELECT num, id, language, name, image, env, limits, network, labels, idle_ttl, created,"
        " used, generation, files, bytes, epoch, link, machine, uid, deleting FROM sandboxes"
        " ORDER BY num",
    [STMT_SANDBOX_DELETE] = "DELETE FROM sandboxes WHERE num = ?1",
    [STMT_SANDBOX_STEP] = "UPDATE sandboxes SET generation = ?2, files = ?3, bytes = ?4, used = ?5"
                          " WHERE num = ?1",
    [STMT_RESULT_EACH] =
        "SELECT client, slot, seq, digest, refusal, reason, generation, created, updated, moved,"
        " deleted, used FROM results WHERE sandbox = ?1 ORDER BY used, client, seq",
    [STMT_RESULT_PUT] = "INSERT OR REPLACE INTO results VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9,"
                        " ?10, ?11, ?12, ?13)",
    [STMT_RESULT_FORGET] = "DELETE FROM results WHERE sandbox = ?1 AND client = ?2",
    [STMT_RESULT_DELETE] = "DELETE FROM results WHERE sandbox = ?1",
    [STMT_FILES_EACH] = "SELECT path, kind, mode, size, hash, target, mtime, ctime, ino, seen,"
                        " by_run FROM files WHERE sandbox = ?1 ORDER BY path",
    [STMT_FILE_PUT] =
        "INSERT OR REPLACE INTO files VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12,"
        " CASE WHEN ?12 = 0 THEN '' ELSE coalesce(?13,"
        " (SELECT run FROM files WHERE sandbox = ?1 AND path = ?2), '') END)",
    [STMT_FILE_RUN] = "SELECT run FROM files WHERE sandbox = ?1 AND path = ?2",
    [STMT_FILE_REMOVE] = "DELETE FROM files WHERE sandbox = ?1 AND path = ?2",
    [STMT_FILE_REMOVE_BENEATH] = "DELETE FROM files WHERE sandbox = ?1 AND path > ?2 AND path < ?3",
    [STMT_FILE_MOVE] = "UPDATE files SET path = ?3 WHERE sandbox = ?1 AND path = ?2",
    /* substr of a blob counts bytes; || makes text of blobs, hence the cast back. */
    [STMT_FILE_MOVE_BENEATH] = "UPDATE files SET path = CAST(?4 || substr(path, ?5) AS BLOB)"
                               " WHERE sandbox = ?1 AND path > ?2 AND path < ?3",
    [STMT_FILES_DELETE] = "DELETE FROM files WHERE sandbox = ?1",
    [STMT_INTENT_PUT] = "INSERT OR REPLACE INTO intents VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9,"
                        " ?10, ?11, ?12)",
    [STMT_INTENT_GET] = "SELECT steps FROM intents WHERE sandbox = ?1",
    [STMT_INTENT_FINISH] =
        "INSERT OR REPLACE INTO results SELECT sandbox, client, slot, seq, digest, 0, '',"
        " generation, created, updated, moved, deleted, used FROM intents"
        " WHERE sandbox = ?1 AND client <> ''",
    [STMT_INTENT_DROP] = "DELETE FROM intents WHERE sandbox = ?1",
};

int store_fail(struct store *s, struct err *e)
{
    int code = sqlite3_errcode(s->db);

    if (code == SQLITE_FULL)
        return err_set(e, ENOSPC, "write the database");
    if (code == SQLITE_BUSY)
        return err_say(e, EBUSY, "the database is in use by another process");
    if (code == SQLITE_NOMEM)
        return err_set(e, ENOMEM, "use the database");
    return err_say(e, EIO, "the database failed: %s", sqlite3_errmsg(s->db));
}

static int bind_one(sqlite3_stmt *st, int at, char type, va_list *ap)
{
    if (type == 'i')
        return sqlite3_bind_int64(st, at, va_arg(*ap, int64_t));
    if (type == 't')
        return sqlite3_bind_text(st, at, va_arg(*ap, const char *), -1, SQLITE_STATIC);
    const void *data = va_arg(*ap, const void *);
    size_t len = va_arg(*ap, size_t);
    /* A NULL pointer would bind SQL NULL, where an empty blob is meant. */
    return sqlite3_bind_blob64(st, at, len ? data : "", len, SQLITE_STATIC);
}

sqlite3_stmt *store_bind(
    struct store *s, enum store_stmt which, struct err *e, const char *types, ...)
{
    sqlite3_stmt **st = &s->stmt[which];
    va_list ap;
    int r = SQLITE_OK;

    if (!*st && sqlite3_prepare_v3(s->db, statements[which], -1, SQLITE_PREPARE_PERSISTENT, st,
                    NULL) != SQLITE_OK) {
        (void)store_fail(s, e);
        return NULL;
    }
    (void)sqlite3_reset(*st);
    (void)sqlite3_clear_bindings(*st);
    va_start(ap, types);
    for (int i = 0; types[i] && r == SQLITE_OK; i++)
        r = bind_one(*st, i + 1, types[i], &ap);
    va_end(ap);
    if (r == SQLITE_OK)
        return *st;
    (void)store_fail(s, e);
    return NULL;
}

int store_row(struct store *s, sqlite3_stmt *st, struct err *e)
{
    if (!st)
        return e && e->code ? -e->code : -EIO;
    int r = sqlite3_step(st);

    if (r == SQLITE_ROW)
        return 1;
    r = r == SQLITE_DONE ? 0 : store_fail(s, e);
    (void)sqlite3_reset(st);
    return r;
}

int store_do(struct store *s, sqlite3_stmt *st, struct err *e)
{
    int r = store_row(s, st, e);

    if (r > 0)
        (void)sqlite3_reset(st);
    return r < 0 ? r : 0;
}

int store_begin(struct store *s, struct err *e)
{
    return store_do(s, store_bind(s, STMT_BEGIN, e, ""), e);
}

int store_end(struct store *s, int r, struct err *e)
{
    if (r == 0)
        r = store_do(s, store_bind(s, STMT_COMMIT, e, ""), e);
    /* A failed COMMIT may leave the transaction open; rolling back one that is gone fails,
     * harmlessly. */
    if (r < 0 && !sqlite3_get_autocommit(s->db))
        (void)sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    return r;
}

const char *store_text(sqlite3_stmt *st, int column)
{
    const unsigned char *text = sqlite3_column_text(st, column);

    return text ? (const char *)text : "";
}

static int exec(struct store *s, const char *sql, struct err *e)
{
    return sqlite3_exec(s->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : store_fail(s, e);
}

static int pragma_int(struct store *s, const char *sql, int *ret, struct err *e)
{
    sqlite3_stmt *st = NULL;
    int r = sqlite3_prepare_v2(s->db, sql, -1, &st, NULL);

    if (r == SQLITE_OK && sqlite3_step(st) == SQLITE_ROW)
        *ret = sqlite3_column_int(st, 0);
    else
        r = SQLITE_ERROR;
    int failed = r == SQLITE_OK ? 0 : store_fail(s, e);
    (void)sqlite3_finalize(st);
    return failed;
}

/* All migrations in one transaction: a crash leaves the old schema or the new one. */
static int migrate(struct store *s, struct err *e)
{
    int version = 0;
    char set[48];
    int r = pragma_int(s, "PRAGMA user_version", &version, e);

    if (r < 0 || version == SCHEMA_VERSION)
        return r;
    if (version < 0 || version > SCHEMA_VERSION)
        return err_say(e, EPROTO,
            "the database has schema version %d, this siltd knows %d: use a newer siltd", version,
            SCHEMA_VERSION);
    r = store_begin(s, e);
    for (int i = version; r == 0 && i < SCHEMA_VERSION; i++)
        r = exec(s, migrations[i], e);
    (void)snprintf(set, sizeof set, "PRAGMA user_version = %d", SCHEMA_VERSION);
    if (r == 0)
        r = exec(s, set, e);
    return store_end(s, r, e);
}

static int mark_clean(struct store *s, int64_t clean, struct err *e)
{
    return store_do(s, store_bind(s, STMT_META_PUT, e, "ti", "clean", clean), e);
}

/* A database that was just made counts as cleanly closed. */
static int read_clean(struct store *s, struct err *e)
{
    sqlite3_stmt *st = store_bind(s, STMT_META_GET, e, "t", "clean");
    int r = store_row(s, st, e);

    if (r < 0)
        return r;
    s->was_clean = r == 0 || sqlite3_column_int(st, 0) == 1;
    (void)sqlite3_reset(st);
    return mark_clean(s, 0, e);
}

/* Exclusive: no second server can open the same data, and no shared memory file is needed. NORMAL:
 * a killed process loses nothing; a power cut may lose the last commits, never consistency, and is
 * an unclean stop, after which every workspace is looked at anyway. */
static const char setup[] =
    "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"
    "PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY; PRAGMA wal_autocheckpoint = 1000;";

int store_open(const char *path, struct store **ret, struct err *e)
{
    struct store *s = calloc(1, sizeof *s);
    int r = 0;

    if (!s)
        return err_set(e, ENOMEM, "open the database");
    (void)pthread_mutex_init(&s->lock, NULL);
    /* What programs printed stands in it. The files beside it take their mode from it. */
    CLEANUP(fd_closep) int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0 || fchmod(fd, 0600) < 0)
        r = err_set(e, errno, "make it the server's own");
    fd_closep(&fd); /* SQLite's locks are the process's: closed later, it would drop them */
    if (r == 0 &&
        sqlite3_open_v2(path, &s->db,
            SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW,
            NULL) != SQLITE_OK)
        r = s->db ? store_fail(s, e) : err_set(e, ENOMEM, "open the database");
    if (r == 0)
        r = exec(s, setup, e);
    if (r == 0)
        r = migrate(s, e);
    if (r == 0)
        r = read_clean(s, e);
    if (r == 0)
        store_reserve(s, path);
    if (r < 0) {
        r = err_wrap(e, "open the database '%s'", path);
        for (int i = 0; i < STMT_COUNT; i++)
            (void)sqlite3_finalize(s->stmt[i]);
        (void)sqlite3_close(s->db);
        (void)pthread_mutex_destroy(&s->lock);
        free(s);
        return r;
    }
    *ret = s;
    return 0;
}

void store_close(struct store *s)
{
    if (!s)
        return;
    (void)mark_clean(s, 1, NULL);
    for (int i = 0; i < STMT_COUNT; i++)
        (void)sqlite3_finalize(s->stmt[i]);
    (void)sqlite3_wal_checkpoint_v2(s->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    (void)sqlite3_close(s->db);
    (void)pthread_mutex_destroy(&s->lock);
    free(s);
}

bool store_was_clean(const struct store *s)
{
    return s->was_clean;
}
