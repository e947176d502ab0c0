/* SPDX-License-Identifier: MIT */
#include "agent/watch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include <inotifytools/inotify.h>
#include <inotifytools/inotifytools.h>

#include "agent/watch_table.h"
#include "shared/io.h"
#include "shared/num.h"
#include "shared/path.h"

#include "shared/banned.h"

#define MASK                                                                                       \
    (IN_CLOSE_WRITE | IN_MODIFY | IN_ATTRIB | IN_CREATE | IN_DELETE | IN_MOVED_FROM |              \
        IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR | IN_EXCL_UNLINK)
#define EVENTS_AT_ONCE 4096
#define FD_MAX 1024        /* select() inside the library */
#define DEAD_MAX 20000     /* entries that the library cannot forget: then it is started anew */
#define WATCHES_PERCENT 80 /* of what the user may have; others want some too */
#define NAME_BYTES 160

struct watch {
    const struct tree *tree;
    int silt_fd, fd;
    struct watch_table folders;
    int cookie_wd;
    uint64_t serial; /* for names that the library has not seen */
    uint64_t cookie_number;
    uint32_t sweep;
    size_t dead_in_library;
    uint64_t max_watches;
    char **polled;
    size_t polled_count, polled_cap;
    char problem[256];
    bool lost_cookies; /* their folder is gone */
};

/* ---- the library */

/* The inotify descriptor that the library just opened: it does not tell. */
static int find_descriptor(void)
{
    CLEANUP(dir_closep) DIR *dir = opendir("/proc/self/fd");
    struct dirent *d;
    int found = -1;
    while (dir && (d = readdir(dir)) != NULL) {
        char target[64];
        uint64_t fd = 0;
        ssize_t n = readlinkat(dirfd(dir), d->d_name, target, sizeof(target) - 1);
        if (n < 0 || num_u64(d->d_name, INT32_MAX, &fd) < 0)
            continue;
        target[n] = '\0';
        /* The highest is the latest only if none was closed: one without close-on-exec is the
         * library's, ours all have it. */
        if (strstr(target, "inotify") && (fcntl((int)fd, F_GETFD) & FD_CLOEXEC) == 0)
            found = (int)fd;
    }
    return found;
}

static int start_library(struct watch *w, struct err *e)
{
    if (!inotifytools_initialize())
        return err_set(e, inotifytools_error() > 0 ? inotifytools_error() : EMFILE,
            "start watching (fs.inotify.max_user_instances may be too small)");
    w->fd = find_descriptor();
    if (w->fd < 0 || w->fd >= FD_MAX || fcntl(w->fd, F_SETFD, FD_CLOEXEC) < 0) {
        inotifytools_cleanup();
        return err_say(e, EMFILE, "start watching: too many files are open");
    }
    return 0;
}

/*
 * Watch what dir_fd is; the watch's number or -errno. The library finds a watch by its name only,
 * and keeps the old number when a name comes again. So no name comes twice: the folder's /proc name
 * followed by a number in binary, in which "/." is 0 and "//." is 1.
 */
static int library_add(struct watch *w, int dir_fd)
{
    char name[NAME_BYTES];
    int len = snprintf(name, sizeof(name), "/proc/self/fd/%d", dir_fd);
    size_t at = (size_t)len;
    for (uint64_t n = ++w->serial; n && at + 5 < sizeof(name); n >>= 1) {
        if (n & 1)
            name[at++] = '/';
        name[at++] = '/';
        name[at++] = '.';
    }
    name[at++] = '/';
    name[at] = '\0';
    if (!inotifytools_watch_file(name, MASK)) {
        int code = inotifytools_error();
        return code > 0 ? -code : -EIO;
    }
    int wd = inotifytools_wd_from_filename(name);
    return wd >= 0 ? wd : -EIO;
}

/* ---- folders with a watch */

static void drop(struct watch *w, struct watch_folder *f)
{
    watch_table_make_dead(&w->folders, f);
    /* Not through the library, which prints where the kernel was quicker. Its entry stays behind.
     */
    (void)inotify_rm_watch(w->fd, f->wd);
    w->dead_in_library++;
}

static void drop_tree(struct watch *w, const char *path)
{
    struct watch_folder *f, *next;
    if (!watch_table_by_path(&w->folders, path))
        return; /* nothing beneath a folder is watched without it */
    for (f = watch_table_first(&w->folders); f; f = next) {
        next = watch_table_next(f);
        if (path_beneath(path, f->path))
            drop(w, f);
    }
}

static void forget_all(struct watch *w)
{
    watch_table_clear(&w->folders);
    for (size_t i = 0; i < w->polled_count; i++)
        free(w->polled[i]);
    w->polled_count = 0;
}

/* ---- folders without a watch */

static void poll_instead(struct watch *w, const char *path)
{
    for (size_t i = 0; i < w->polled_count; i++) {
        if (path_beneath(w->polled[i], path))
            return;
    }
    if (w->polled_count == w->polled_cap) {
        size_t cap = w->polled_cap ? w->polled_cap * 2 : 16;
        char **more = realloc(w->polled, cap * sizeof(*more));
        if (!more)
            return;
        w->polled = more;
        w->polled_cap = cap;
    }
    char *copy = strdup(path);
    if (copy)
        w->polled[w->polled_count++] = copy;
    (void)snprintf(w->problem, sizeof(w->problem),
        "no inotify watches are left: %zu folders are looked at every 2 s instead; to watch them: "
        "sudo "
        "sysctl fs.inotify.max_user_watches=%" PRIu64,
        w->polled_count, w->max_watches * 4 > 524288 ? w->max_watches * 4 : (uint64_t)524288);
}

static void stop_polling(struct watch *w, const char *path)
{
    for (size_t i = 0; i < w->polled_count; i++) {
        if (strcmp(w->polled[i], path) == 0) {
            free(w->polled[i]);
            w->polled[i] = w->polled[--w->polled_count];
            return;
        }
    }
}

void watch_add(struct watch *w, const char *path, int dir_fd)
{
    struct watch_folder *f = watch_table_by_path(&w->folders, path);
    CLEANUP(fd_closep) int fd = -1;
    if (f) {
        f->sweep = w->sweep;
        return;
    }
    if (dir_fd < 0 && tree_open_dir(w->tree, path, &fd, NULL) < 0)
        return;
    int wd = w->folders.live * 100 >= w->max_watches * WATCHES_PERCENT
                 ? -ENOSPC
                 : library_add(w, dir_fd < 0 ? fd : dir_fd);
    if (wd < 0) {
        poll_instead(w, path);
    } else if (watch_table_put(&w->folders, wd, path, w->sweep) == 0) {
        stop_polling(w, path);
    }
}

void watch_sweep_begin(struct watch *w)
{
    w->sweep++;
}

void watch_sweep_end(struct watch *w)
{
    struct watch_folder *f, *next;
    for (f = watch_table_first(&w->folders); f; f = next) {
        next = watch_table_next(f);
        if (f->sweep != w->sweep)
            drop(w, f);
    }
}

/* ---- open and close */

static uint64_t read_limit(const char *path)
{
    CLEANUP(buf_release) struct buf b;
    uint64_t n = 0;
    if (io_read_file(path, 64, &b, NULL) < 0)
        return 8192;
    while (b.len && (b.data[b.len - 1] == '\n' || b.data[b.len - 1] == ' '))
        b.data[--b.len] = '\0';
    return num_u64(buf_str(&b), UINT32_MAX, &n) == 0 ? n : 8192;
}

static int watch_cookies(struct watch *w, struct err *e)
{
    if (mkdirat(w->silt_fd, WATCH_COOKIE_DIR, 0700) < 0 && errno != EEXIST)
        return err_set(e, errno, "make '.silt/%s'", WATCH_COOKIE_DIR);
    CLEANUP(fd_closep)
    int fd = openat(w->silt_fd, WATCH_COOKIE_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return err_set(e, errno, "open '.silt/%s'", WATCH_COOKIE_DIR);
    w->cookie_wd = library_add(w, fd);
    if (w->cookie_wd < 0)
        return err_set(e, -w->cookie_wd,
            "watch '.silt/%s' (fs.inotify.max_user_watches may be too small)", WATCH_COOKIE_DIR);
    return 0;
}

int watch_open(const struct tree *tree, int silt_fd, struct watch **ret, struct err *e)
{
    struct watch *w = calloc(1, sizeof(*w));
    if (!w)
        return err_set(e, ENOMEM, "start watching");
    w->tree = tree;
    w->silt_fd = silt_fd;
    w->max_watches = read_limit("/proc/sys/fs/inotify/max_user_watches");
    int r = start_library(w, e);
    if (r < 0) {
        free(w);
        return r;
    }
    r = watch_cookies(w, e);
    if (r < 0) {
        watch_close(w);
        return r;
    }
    *ret = w;
    return 0;
}

void watch_close(struct watch *w)
{
    if (!w)
        return;
    forget_all(w);
    free(w->polled);
    inotifytools_cleanup();
    free(w);
}

int watch_fd(const struct watch *w)
{
    return w->fd;
}

size_t watch_count(const struct watch *w)
{
    return w->folders.live;
}

const char *const *watch_polled(const struct watch *w, size_t *ret_count)
{
    *ret_count = w->polled_count;
    return (const char *const *)w->polled;
}

const char *watch_problem(const struct watch *w)
{
    return w->polled_count ? w->problem : NULL;
}

/* ---- cookies */

int watch_cookie(struct watch *w, uint64_t *ret_number, struct err *e)
{
    char name[64];
    (void)snprintf(name, sizeof(name), WATCH_COOKIE_DIR "/%" PRIu64, ++w->cookie_number);
    CLEANUP(fd_closep)
    int fd = openat(w->silt_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_set(e, errno, "make '.silt/%s' (was .silt removed?)", name);
    /* Its making is the event; the file itself is of no use. */
    (void)unlinkat(w->silt_fd, name, 0);
    *ret_number = w->cookie_number;
    return 0;
}

/* ---- events */

struct told {
    struct watch *w;
    watch_sink *sink;
    void *ctx;
};

static void tell(const struct told *t, enum watch_kind kind, const char *path, uint32_t cookie)
{
    t->sink(t->ctx, &(struct watch_event){.kind = kind, .path = path, .cookie = cookie});
}

/* All watches are void: the library is started anew, which is also how its dead entries go. */
static int start_anew(const struct told *t, struct err *e)
{
    struct watch *w = t->w;
    forget_all(w);
    inotifytools_cleanup();
    w->dead_in_library = 0;
    w->lost_cookies = false;
    int r = start_library(w, e);
    if (r == 0)
        r = watch_cookies(w, e);
    if (r == 0)
        tell(t, WATCH_RESCAN, "", 0);
    return r;
}

/* Whoever waits for a cookie is told to make another. */
static int renew_cookies(const struct told *t, struct err *e)
{
    t->w->lost_cookies = false;
    int r = watch_cookies(t->w, e);
    /* Without `.silt` there is nothing to watch for; the event of its own end says so. */
    if (r == -ENOENT)
        return 0;
    if (r == 0)
        tell(t, WATCH_RESCAN, "", 0);
    return r;
}

struct meaning {
    uint32_t mask;
    enum watch_kind file, dir;
};

static const struct meaning meanings[] = {
    {IN_MOVED_TO, WATCH_ARRIVED, WATCH_DIR},
    {IN_MOVED_FROM, WATCH_LEFT, WATCH_LEFT},
    {IN_DELETE, WATCH_GONE, WATCH_GONE},
    {IN_CREATE, WATCH_MODIFIED, WATCH_DIR},
    {IN_CLOSE_WRITE, WATCH_WRITTEN, WATCH_WRITTEN},
    {IN_ATTRIB, WATCH_WRITTEN, WATCH_WRITTEN},
    {IN_MODIFY, WATCH_MODIFIED, WATCH_MODIFIED},
};

/* A symlink or a further name of a file is made in one go: no close will follow. */
static bool is_made_at_once(const struct watch *w, const char *path)
{
    struct tree_stat st;
    return tree_stat(w->tree, path, &st, NULL) == 0 && (st.kind != TREE_FILE || st.nlink > 1);
}

static void tell_named(const struct told *t, const struct inotify_event *event, const char *path)
{
    bool is_dir = event->mask & IN_ISDIR;
    struct watch_folder *old;
    for (size_t i = 0; i < sizeof(meanings) / sizeof(meanings[0]); i++) {
        if (!(event->mask & meanings[i].mask))
            continue;
        enum watch_kind kind = is_dir ? meanings[i].dir : meanings[i].file;
        /* Whatever was watched under this name is another folder by now. */
        if (is_dir && (event->mask & (IN_MOVED_FROM | IN_MOVED_TO)))
            drop_tree(t->w, path);
        else if (is_dir && (event->mask & (IN_DELETE | IN_CREATE)) &&
                 (old = watch_table_by_path(&t->w->folders, path)))
            drop(t->w, old); /* an empty one */
        if (!is_dir && (event->mask & IN_CREATE) && is_made_at_once(t->w, path))
            kind = WATCH_WRITTEN;
        tell(t, kind, path, event->cookie);
        if (kind == WATCH_DIR && event->cookie)
            /* The half that left waits for this one. */
            tell(t, WATCH_ARRIVED, path, event->cookie);
        return;
    }
}

static void hear_cookie(const struct told *t, const struct inotify_event *event)
{
    uint64_t number = 0;
    if (!(event->mask & IN_CREATE) || event->len == 0 ||
        num_u64(event->name, UINT64_MAX, &number) < 0)
        return;
    t->sink(t->ctx, &(struct watch_event){.kind = WATCH_COOKIE, .path = "", .number = number});
}

static void hear(const struct told *t, const struct inotify_event *event)
{
    struct watch *w = t->w;
    struct watch_folder *f = watch_table_by_wd(&w->folders, event->wd);
    if (event->wd == w->cookie_wd) {
        hear_cookie(t, event);
        w->lost_cookies = w->lost_cookies || (event->mask & IN_IGNORED);
        return;
    }
    if (event->mask & IN_IGNORED) {
        w->dead_in_library += f && !f->dead;
        if (f)
            watch_table_forget(&w->folders, f);
        return;
    }
    if (!f) {
        tell(t, WATCH_RESCAN, "", 0);
        return;
    }
    bool is_root = *f->path == '\0';
    if (f->dead)
        return;
    if (event->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT)) {
        if (is_root)
            tell(t, WATCH_ROOT_GONE, "", 0);
        return;
    }
    if (event->len == 0) {
        if ((event->mask & IN_ATTRIB) && !is_root)
            tell(t, WATCH_WRITTEN, f->path, 0);
        return;
    }
    CLEANUP(freep) char *path = path_join(f->path, event->name);
    if (!path || path_check(path, strlen(path)) != PATH_FINE)
        return;
    tell_named(t, event, path);
}

int watch_drain(struct watch *w, watch_sink *sink, void *ctx, struct err *e)
{
    const struct told t = {.w = w, .sink = sink, .ctx = ctx};
    for (int i = 0; i < EVENTS_AT_ONCE; i++) {
        struct inotify_event *event = inotifytools_next_events(0, 1);
        if (!event) {
            if (w->dead_in_library > DEAD_MAX)
                return start_anew(&t, e);
            return w->lost_cookies ? renew_cookies(&t, e) : 0;
        }
        if (event->mask & IN_Q_OVERFLOW)
            return start_anew(&t, e);
        hear(&t, event);
    }
    return 1;
}
