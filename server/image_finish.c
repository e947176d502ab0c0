/* SPDX-License-Identifier: MIT */
/* The end of making a root: what every container needs of it, whatever the image left out. */
#include "server/image_root.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "server/image.h"
#include "shared/io.h"
#include "shared/tree.h"
#include "shared/weaken.h"

#include "shared/banned.h"

#define USERS_BYTES_MAX (1024 * 1024)

/* Lists of users and groups: where nobody has the number 1000, programs that ask for their own name
 * fail. */
static const struct list {
    const char *name, *line, *whole; /* whole: when there is none */
} lists[] = {
    {"passwd", "silt:x:1000:1000:silt:/cache/home:/bin/sh\n",
        "root:x:0:0:root:/:/usr/sbin/nologin\n"
        "silt:x:1000:1000:silt:/cache/home:/bin/sh\n"
        "nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"},
    {"group", "silt:x:1000:\n", "root:x:0:\nsilt:x:1000:\nnogroup:x:65534:\n"},
    {"hosts", NULL, "127.0.0.1 localhost silt\n::1 localhost silt\n"},
};

static int make_mount_points(int dir, struct err *e)
{
    for (const char *const *point = image_mount_points; *point; point++) {
        struct stat st;
        if (fstatat(dir, *point, &st, AT_SYMLINK_NOFOLLOW) < 0) {
            if (mkdirat(dir, *point, 0755) < 0)
                return err_set(e, errno, "make /%s in the image", *point);
        } else if (!S_ISDIR(st.st_mode) && !WEAK("image-points")) {
            return err_say(e, EINVAL,
                "the image is refused: its /%s is no folder, and every container mounts something "
                "there",
                *point);
        }
    }
    return 0;
}

/* Does a line's third field say 1000? */
static bool has_user(const char *text)
{
    for (const char *line = text; line && *line;) {
        const char *end = strchr(line, '\n'), *field = line;
        for (int i = 0; i < 2 && field; i++)
            field = (field = strchr(field, ':')) && (!end || field < end) ? field + 1 : NULL;
        if (field && strncmp(field, "1000:", 5) == 0)
            return true;
        line = end ? end + 1 : NULL;
    }
    return false;
}

static int write_list(int etc, const char *name, const struct buf *text, struct err *e)
{
    int r = tree_remove_at(etc, name, e);
    if (r < 0)
        return r;
    CLEANUP(fd_closep)
    int fd = openat(etc, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    r = fd < 0 ? -errno : io_write_all(fd, text->data, text->len);
    if (r == 0 && fchmod(fd, 0644) < 0)
        r = -errno;
    return r < 0 ? err_set(e, -r, "write /etc/%s of the image", name) : 0;
}

/* What is no ordinary file, or too large for one of these, stays as it is. */
static int complete_list(int etc, const struct list *list, struct err *e)
{
    CLEANUP(buf_release) struct buf text;
    struct stat st;
    buf_init(&text, USERS_BYTES_MAX + 256);
    if (fstatat(etc, list->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return buf_adds(&text, list->whole) < 0 ? err_set(e, ENOMEM, "read the users")
                                                : write_list(etc, list->name, &text, e);
    if (!list->line || !S_ISREG(st.st_mode) || st.st_size > USERS_BYTES_MAX)
        return 0;
    CLEANUP(fd_closep) int fd = openat(etc, list->name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    int r = fd < 0 ? -errno : io_read_rest(fd, &text);
    if (r < 0)
        return err_set(e, -r, "read /etc/%s of the image", list->name);
    if (has_user(buf_str(&text)))
        return 0;
    if (text.len && text.data[text.len - 1] != '\n')
        r = buf_addc(&text, '\n');
    if (r == 0)
        r = buf_adds(&text, list->line);
    return r < 0 ? err_set(e, -r, "read the users") : write_list(etc, list->name, &text, e);
}

int image_root_finish(struct image_root *root, struct err *e)
{
    int r = make_mount_points(root->dir, e);
    if (r < 0)
        return r;
    CLEANUP(fd_closep) int etc = image_root_open(root->dir, "etc");
    if (etc == -ENOENT && mkdirat(root->dir, "etc", 0755) == 0)
        etc = image_root_open(root->dir, "etc");
    if (etc < 0)
        return err_say(e, EINVAL, "the image is refused: its /etc is no folder");
    for (size_t i = 0; r == 0 && i < sizeof lists / sizeof lists[0]; i++)
        r = complete_list(etc, &lists[i], e);
    return r;
}
