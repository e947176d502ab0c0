/* SPDX-License-Identifier: MIT */
#include "server/image_import.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "server/image_build.h"
#include "shared/io.h"
#include "shared/path.h"
#include "shared/tree.h"
#include "shared/weaken.h"

#include "shared/banned.h"

#define WORK "work"
#define NOTES "notes"
#define ANSWER_BYTES_MAX (1024 * 1024)

struct places {
    int images, ours, lock; /* the directory, its .silt, the lock that is held */
};

static void places_release(struct places *p)
{
    fd_closep(&p->images);
    fd_closep(&p->ours);
    fd_closep(&p->lock);
}

static int open_dir(int at, const char *name, int *ret, struct err *e)
{
    if (mkdirat(at, name, 0700) < 0 && errno != EEXIST)
        return err_set(e, errno, "make '%s' in the image directory", name);
    *ret = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return *ret < 0 ? err_set(e, errno, "open '%s' of the image directory", name) : 0;
}

/* Hold the directory and its lock, with nothing left of an earlier one that was interrupted. */
static int enter(const char *dir, struct places *ret, struct err *e)
{
    *ret = (struct places){-1, -1, -1};
    int r = io_mkdirs(dir, 0711, e);
    if (r < 0)
        return r;
    ret->images = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (ret->images < 0)
        return err_set(e, errno, "open the image directory '%s'", dir);
    r = open_dir(ret->images, IMAGE_OURS, &ret->ours, e);
    if (r < 0)
        return r;
    ret->lock = openat(ret->ours, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (ret->lock < 0 || flock(ret->lock, LOCK_EX | LOCK_NB) < 0)
        return errno == EWOULDBLOCK
                   ? err_say(e, EBUSY, "another import or removal is under way in '%s': wait for it", dir)
                   : err_set(e, errno, "lock the image directory '%s'", dir);
    return tree_remove_at(ret->ours, WORK, e);
}

/* ---- the child */

/* What a mistake in reading the archive could reach from here on: what it makes itself. */
static int confine(int dir, struct err *e)
{
    const struct rlimit none = {0, 0};
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    const struct __user_cap_data_struct nothing[2] = {{.effective = 0}, {.effective = 0}};
    (void)setrlimit(RLIMIT_CORE, &none);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return err_set(e, errno, "confine the import");
    if (geteuid() != 0 || WEAK("image-confine"))
        return 0;
    if (fchdir(dir) < 0 || chroot(".") < 0 || syscall(SYS_capset, &header, nothing) < 0)
        return err_set(e, errno, "confine the import");
    return 0;
}

struct answer {
    int r;
    struct err e;
};

static _Noreturn void child_main(int work, struct image_build *build, int to)
{
    struct answer answer = {.r = 0};
    struct image image = {.source = strdup("")};
    CLEANUP(buf_release) struct buf note;
    buf_init(&note, ANSWER_BYTES_MAX);
    (void)umask(022);
    (void)setlocale(LC_CTYPE, "C.UTF-8"); /* names in tars are UTF-8; libarchive converts else */
    answer.r = image.source ? confine(work, &answer.e) : err_set(&answer.e, ENOMEM, "import");
    if (answer.r == 0)
        answer.r = image_build(build, &image, &answer.e);
    if (answer.r == 0 && image_note_write(&image, &note) < 0)
        answer.r = err_say(&answer.e, EINVAL, "the image is broken: its variables are no text");
    int r = io_write_all(to, &answer, sizeof answer);
    if (r == 0 && answer.r == 0)
        r = io_write_all(to, note.data, note.len);
    _exit(r == 0 ? 0 : 1);
}

static int read_answer(int from, struct image *ret, struct err *e)
{
    struct answer answer;
    CLEANUP(buf_release) struct buf note;
    buf_init(&note, ANSWER_BYTES_MAX);
    if (io_read_full(from, &answer, sizeof answer) != (ssize_t)sizeof answer)
        return err_say(e, EINTR, "the import was ended before it was complete; nothing is left of it");
    answer.e.msg[sizeof answer.e.msg - 1] = '\0';
    if (answer.r < 0) {
        if (e)
            *e = answer.e;
        return answer.r;
    }
    if (io_read_rest(from, &note) < 0 || image_note_read(buf_str(&note), note.len, ret) < 0)
        return err_say(e, EINVAL, "the import gave no proper account of itself");
    return 0;
}

/* The child dies of signals as any process does; we are told and tidy up. */
static int run_child(int work, struct image_build *build, struct image *ret, struct err *e)
{
    int fds[2];
    sigset_t hold, before;
    if (pipe2(fds, O_CLOEXEC) < 0)
        return err_set(e, errno, "make a pipe");
    CLEANUP(fd_closep) int from = fds[0];
    CLEANUP(fd_closep) int to = fds[1];
    (void)sigemptyset(&hold);
    (void)sigaddset(&hold, SIGINT);
    (void)sigaddset(&hold, SIGTERM);
    (void)sigaddset(&hold, SIGHUP);
    (void)sigprocmask(SIG_BLOCK, &hold, &before);
    pid_t parent = getpid(), pid = fork();
    if (pid < 0)
        return err_set(e, errno, "fork");
    if (pid == 0) {
        (void)sigprocmask(SIG_SETMASK, &before, NULL);
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        fd_closep(&from);
        child_main(work, build, to);
    }
    fd_closep(&to);
    int r = read_answer(from, ret, e);
    if (r < 0)
        (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
    return r;
}

/* ---- importing */

static int open_source(const char *file, struct image_build *ret, struct err *e)
{
    struct stat st;
    if (strcmp(file, "-") == 0) {
        ret->file = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
        return ret->file < 0 ? err_set(e, errno, "read standard input") : 0;
    }
    ret->file = open(file, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (ret->file < 0 || fstat(ret->file, &st) < 0)
        return err_set(e, errno, "open '%s'", file);
    if (!S_ISDIR(st.st_mode))
        return 0;
    fd_closep(&ret->file);
    return image_blobs_open_layout(file, &ret->layout, e);
}

static int save_note(const struct places *p, const struct image *image, struct err *e)
{
    CLEANUP(buf_release) struct buf note;
    CLEANUP(fd_closep) int dir = -1;
    buf_init(&note, ANSWER_BYTES_MAX);
    int r = open_dir(p->ours, NOTES, &dir, e);
    if (r == 0 && image_note_write(image, &note) < 0)
        r = err_say(e, EINVAL, "the file's name is no text");
    if (r < 0)
        return r;
    (void)unlinkat(dir, image->name, 0); /* of an image that was removed by hand */
    CLEANUP(fd_closep)
    int fd = openat(dir, image->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    r = fd < 0 ? -errno : io_write_all(fd, note.data, note.len);
    return r < 0 ? err_set(e, -r, "write the image's note") : 0;
}

/* Everything is on the disk before the name is. */
static int publish(const struct places *p, int work, const struct image *image, struct err *e)
{
    int r = save_note(p, image, e);
    if (r < 0)
        return r;
    if (fchmodat(work, "root", 0755, 0) < 0 || syncfs(work) < 0)
        return err_set(e, errno, "write the image to the disk");
    if (renameat2(work, "root", p->images, image->name, RENAME_NOREPLACE) < 0)
        return err_set(e, errno, "give the image its name");
    (void)fsync(p->images);
    return 0;
}

static int set_source(struct image *image, const char *name, const char *file)
{
    (void)snprintf(image->name, sizeof image->name, "%s", name);
    free(image->source);
    image->source = strdup(strcmp(file, "-") == 0 ? "standard input" : path_base(file));
    image->imported_ns = io_wall_ns();
    return image->source ? 0 : -ENOMEM;
}

static int check_name(int images, const char *name, struct err *e)
{
    struct stat st;
    if (!image_name_valid(name) || image_is_host(name))
        return err_say(e, EINVAL,
            "'%.64s' cannot be an image's name: give letters, digits, '_', '.' and '-', at most %d, "
            "and not " IMAGE_HOST,
            name, IMAGE_NAME_MAX);
    if (fstatat(images, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
        return err_say(e, EEXIST,
            "there is an image '%s' already: choose another name, or remove it first (siltd image "
            "remove %s)",
            name, name);
    return 0;
}

static int import_into(const struct places *p, int work, const char *name, const char *file,
    struct image_build *build, struct image *ret, struct err *e)
{
    CLEANUP(fd_closep) int root = -1;
    CLEANUP(fd_closep) int parts = -1;
    int r = open_dir(work, "root", &root, e);
    if (r == 0)
        r = open_dir(work, "parts", &parts, e);
    build->root = root;
    build->parts = parts;
    if (r == 0)
        r = run_child(work, build, ret, e);
    if (r == 0 && set_source(ret, name, file) < 0)
        r = err_set(e, ENOMEM, "import an image");
    return r < 0 ? r : publish(p, work, ret, e);
}

int image_import(const char *dir, const char *name, const char *file, uint64_t min_free_bytes,
    struct image *ret, struct err *e)
{
    CLEANUP(places_release) struct places p = {-1, -1, -1};
    CLEANUP(fd_closep) int work = -1;
    struct image_build build = {.file = -1, .min_free_bytes = min_free_bytes};
    *ret = (struct image){.source = strdup("")};
    int r = ret->source ? enter(dir, &p, e) : err_set(e, ENOMEM, "import an image");
    if (r == 0)
        r = check_name(p.images, name, e);
    if (r == 0)
        r = open_source(file, &build, e);
    if (r == 0)
        r = open_dir(p.ours, WORK, &work, e);
    if (r == 0) {
        r = import_into(&p, work, name, file, &build, ret, e);
        err_ignore(tree_remove_at(p.ours, WORK, NULL));
    }
    fd_closep(&build.file);
    image_blobs_free(build.layout);
    return r;
}

/* ---- removing */

static int remove_name(const struct places *p, const char *name, image_users *users, void *ctx,
    struct err *e)
{
    CLEANUP(fd_closep) int work = -1;
    CLEANUP(fd_closep) int notes = -1;
    int r = open_dir(p->ours, WORK, &work, e);
    if (r == 0)
        r = open_dir(p->ours, NOTES, &notes, e);
    if (r == 0 && renameat2(p->images, name, work, "root", RENAME_NOREPLACE) < 0)
        r = err_set(e, errno, "take the image's name away");
    if (r < 0)
        return r;
    r = users(ctx, name, e);
    if (r < 0) {
        if (renameat2(work, "root", p->images, name, RENAME_NOREPLACE) < 0)
            return err_set(e, errno, "give the image its name back");
        return r;
    }
    (void)unlinkat(notes, name, 0);
    return tree_remove_at(p->ours, WORK, e);
}

int image_remove(
    const char *dir, const char *name, image_users *users, void *ctx, struct err *e)
{
    CLEANUP(places_release) struct places p = {-1, -1, -1};
    struct stat st;
    int r = enter(dir, &p, e);
    if (r < 0)
        return r;
    if (image_is_host(name))
        return err_say(e, EINVAL, "'%s' is the server's own programs, which stay", name);
    if (!image_name_valid(name) || fstatat(p.images, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return image_unknown(dir, name, e);
    r = users(ctx, name, e);
    return r < 0 ? r : remove_name(&p, name, users, ctx, e);
}
