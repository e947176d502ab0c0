/* SPDX-License-Identifier: MIT */
#include "agent/link.h"

#include <errno.h>
#include <jansson.h>
#include <pwd.h>
#include <string.h>
#include <sys/stat.h>

#include "shared/hash.h"
#include "shared/io.h"
#include "shared/path.h"
#include "shared/text.h"

#include "shared/banned.h"

#define LINK_SCHEMA 1
#define LINK_FILE_MAX (64u * 1024)

void link_release(struct link *l)
{
    free(l->root);
    free(l->server);
    free(l->sandbox);
    *l = (struct link){.root = NULL};
}

/* ---- link.json */

static bool copy_text(json_t *root, const char *key, char *out, size_t out_size)
{
    const char *value = json_string_value(json_object_get(root, key));

    return value && *value && snprintf(out, out_size, "%s", value) < (int)out_size;
}

static bool take_text(json_t *root, const char *key, char **ret)
{
    const char *value = json_string_value(json_object_get(root, key));

    *ret = value && *value ? strdup(value) : NULL;
    return *ret != NULL;
}

static int parse_link(const struct buf *text, const char *root_dir, struct link *ret, struct err *e)
{
    json_t *root = json_loadb((const char *)text->data, text->len, JSON_REJECT_DUPLICATES, NULL);
    json_int_t schema = json_integer_value(json_object_get(root, "schema"));
    int r = 0;

    if (schema > LINK_SCHEMA) {
        json_decref(root);
        return err_say(e, EBADMSG,
            "%s/.silt was written by a newer silt: use that version, or remove .silt and link "
            "again",
            root_dir);
    }
    ret->root = strdup(root_dir);
    ret->dev = (uint64_t)json_integer_value(json_object_get(root, "dev"));
    ret->ino = (uint64_t)json_integer_value(json_object_get(root, "ino"));
    if (schema != LINK_SCHEMA || !ret->root || !take_text(root, "server", &ret->server) ||
        !take_text(root, "sandbox", &ret->sandbox) ||
        !copy_text(root, "link", ret->id, sizeof(ret->id)) ||
        !copy_text(root, "machine", ret->machine, sizeof(ret->machine)) ||
        !text_is_id("sb_", ret->sandbox) || !text_is_id("lk_", ret->id)) {
        link_release(ret);
        r = err_say(e, EBADMSG,
            "%s/.silt/link.json is damaged: remove the folder .silt and link again with `silt "
            "init`",
            root_dir);
    }
    json_decref(root);
    return r;
}

int link_load(const char *root, struct link *ret, bool *ret_moved, struct err *e)
{
    CLEANUP(freep) char *path = NULL;
    CLEANUP(buf_release) struct buf text;
    struct stat st;

    *ret = (struct link){.root = NULL};
    buf_init(&text, LINK_FILE_MAX);
    if (asprintf(&path, "%s/" LINK_DIR "/link.json", root) < 0)
        return err_set(e, ENOMEM, "read the link");
    int r = io_read_file(path, LINK_FILE_MAX, &text, e);
    if (r < 0)
        return r;
    r = parse_link(&text, root, ret, e);
    if (r < 0)
        return r;
    if (stat(root, &st) < 0) {
        link_release(ret);
        return err_set(e, errno, "look at '%s'", root);
    }
    *ret_moved = (uint64_t)st.st_dev != ret->dev || (uint64_t)st.st_ino != ret->ino;
    return 0;
}

static char *link_text(const struct link *l)
{
    json_t *root = json_pack("{s:i, s:s, s:s, s:s, s:s, s:s, s:I, s:I}", "schema", LINK_SCHEMA,
        "server", l->server, "sandbox", l->sandbox, "link", l->id, "machine", l->machine, "root",
        l->root, "dev", (json_int_t)l->dev, "ino", (json_int_t)l->ino);
    char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;

    json_decref(root);
    return text;
}

int link_save(const struct link *l, struct err *e)
{
    CLEANUP(freep) char *dir = NULL;
    CLEANUP(freep) char *path = NULL;
    CLEANUP(freep) char *ignore = NULL;
    CLEANUP(freep) char *text = link_text(l);

    if (!text || asprintf(&dir, "%s/" LINK_DIR, l->root) < 0 ||
        asprintf(&path, "%s/link.json", dir) < 0 || asprintf(&ignore, "%s/.gitignore", dir) < 0)
        return err_set(e, ENOMEM, "write the link");
    if (mkdir(dir, 0700) < 0 && errno != EEXIST)
        return err_set(e, errno, "make the folder '%s'", dir);
    /* A symlink that came with the project must not lead our files elsewhere. */
    struct stat st;
    if (lstat(dir, &st) < 0)
        return err_set(e, errno, "look at '%s'", dir);
    if (!S_ISDIR(st.st_mode))
        return err_say(
            e, ENOTDIR, "%s is not a folder: remove it, silt keeps its own things there", dir);
    int r = io_write_file(ignore, "*\n", 2, 0644, e);
    if (r == 0)
        r = io_write_file(path, text, strlen(text), 0600, e);
    return r;
}

int link_forget(const char *root, struct err *e)
{
    CLEANUP(freep) char *path = NULL;

    if (asprintf(&path, "%s/" LINK_DIR "/index", root) < 0)
        return err_set(e, ENOMEM, "forget the old index");
    if (unlink(path) < 0 && errno != ENOENT)
        return err_set(e, errno, "remove '%s'", path);
    return 0;
}

static int machine_id(char *out, size_t out_size)
{
    CLEANUP(buf_release) struct buf text;
    struct err ignored = ERR_INIT;

    buf_init(&text, 256);
    if (io_read_file("/etc/machine-id", 128, &text, &ignored) < 0 || text.len < 8) {
        /* Without one, the host name tells machines apart well enough for a question to a person.
         */
        return gethostname(out, out_size) < 0 ? -errno : 0;
    }
    char host[40] = "";
    (void)gethostname(host, sizeof(host) - 1);
    (void)snprintf(out, out_size, "%s/%.8s", host, buf_str(&text));
    return 0;
}

int link_make(
    const char *root, const char *server, const char *sandbox, struct link *ret, struct err *e)
{
    struct stat st;

    *ret = (struct link){.root = NULL};
    if (stat(root, &st) < 0)
        return err_set(e, errno, "look at '%s'", root);
    ret->dev = (uint64_t)st.st_dev;
    ret->ino = (uint64_t)st.st_ino;
    ret->root = strdup(root);
    ret->server = strdup(server);
    ret->sandbox = strdup(sandbox);
    text_id("lk_", ret->id, sizeof(ret->id));
    if (!ret->root || !ret->server || !ret->sandbox ||
        machine_id(ret->machine, sizeof(ret->machine)) < 0) {
        link_release(ret);
        return err_set(e, ENOMEM, "make a link");
    }
    return 0;
}

/* ---- finding the root */

static const char *const markers[] = {
    ".git", "pyproject.toml", "package.json", "go.mod", "Makefile", NULL};

/* Places that hold much more than a project. */
static const char *const refused[] = {"/", "/etc", "/usr", "/var", "/tmp", "/home", "/root", "/opt",
    "/srv", "/bin", "/boot", "/dev", "/lib", "/proc", "/run", "/sbin", "/sys", "/mnt", "/media",
    "/var/tmp", NULL};

static bool has_entry(const char *dir, const char *name)
{
    CLEANUP(freep) char *path = NULL;
    struct stat st;

    return asprintf(&path, "%s/%s", strcmp(dir, "/") == 0 ? "" : dir, name) >= 0 &&
           lstat(path, &st) == 0;
}

static bool is_refused(const char *dir)
{
    struct passwd *pw = getpwuid(getuid());
    const char *home = getenv("HOME");

    for (size_t i = 0; refused[i]; i++)
        if (strcmp(dir, refused[i]) == 0)
            return true;
    return (home && strcmp(dir, home) == 0) || (pw && strcmp(dir, pw->pw_dir) == 0);
}

/* The nearest ancestor of dir (dir included) for which `wanted` holds and which may be a root. */
static char *nearest(const char *dir, bool (*wanted)(const char *dir))
{
    CLEANUP(freep) char *at = strdup(dir);

    while (at && *at) {
        if (!is_refused(at) && wanted(at))
            return ptr_take(&at);
        char *slash = strrchr(at, '/');
        if (!slash || slash == at)
            break;
        *slash = '\0';
    }
    return NULL;
}

static bool is_linked(const char *dir)
{
    return has_entry(dir, LINK_DIR "/link.json");
}

static bool is_marked(const char *dir)
{
    for (size_t i = 0; markers[i]; i++)
        if (has_entry(dir, markers[i]))
            return true;
    return false;
}

int link_find_root(const char *dir, char **ret_root, bool *ret_linked, struct err *e)
{
    CLEANUP(freep) char *real = realpath(dir, NULL);
    char *root;

    if (!real)
        return err_set(e, errno, "find the folder '%s'", dir);
    root = nearest(real, is_linked);
    *ret_linked = root != NULL;
    if (!root)
        root = nearest(real, is_marked);
    if (!root && !is_refused(real))
        root = ptr_take(&real);
    if (!root)
        return err_say(e, EPERM,
            "'%s' is not a project folder: it holds far more than a project. Go into the project's "
            "folder, or name it with -C DIR",
            real);
    *ret_root = root;
    return 0;
}

/* ---- the memory outside the project, for a .silt that was lost (git clean -fdx) */

static char *memory_path(const char *root)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    struct passwd *pw = getpwuid(getuid());
    char *path = NULL;
    int r;

    if (!home || *home != '/')
        home = pw ? pw->pw_dir : "/";
    /* One small file per root, named by a hash of its path. */
    struct hash name;
    char text[HASH_TEXT_BYTES];
    hash_buf(root, strlen(root), &name);
    (void)hash_text(&name, text);
    const char *digits = text + strlen(HASH_PREFIX);
    if (state && *state == '/')
        r = asprintf(&path, "%s/silt/links/%s.json", state, digits);
    else
        r = asprintf(&path, "%s/.local/state/silt/links/%s.json", home, digits);
    return r < 0 ? NULL : path;
}

int link_remember(const struct link *l, struct err *e)
{
    CLEANUP(freep) char *path = memory_path(l->root);
    CLEANUP(freep) char *text = link_text(l);
    CLEANUP(freep) char *dir = path ? strndup(path, path_parent_len(path)) : NULL;

    if (!path || !text || !dir)
        return err_set(e, ENOMEM, "remember the link");
    int r = io_mkdirs(dir, 0700, e);
    if (r == 0)
        r = io_write_file(path, text, strlen(text), 0600, e);
    return r;
}

int link_recall(const char *root, struct link *ret, struct err *e)
{
    CLEANUP(freep) char *path = memory_path(root);
    CLEANUP(buf_release) struct buf text;
    struct stat st;

    *ret = (struct link){.root = NULL};
    buf_init(&text, LINK_FILE_MAX);
    if (!path)
        return err_set(e, ENOMEM, "look for an earlier link");
    int r = io_read_file(path, LINK_FILE_MAX, &text, e);
    if (r == 0)
        r = parse_link(&text, root, ret, e);
    if (r == 0 && (stat(root, &st) < 0 || (uint64_t)st.st_ino != ret->ino ||
                      (uint64_t)st.st_dev != ret->dev)) {
        /* Another folder stands at that path by now. */
        link_release(ret);
        r = err_say(e, ENOENT, "no earlier link of '%s' is known", root);
    }
    return r;
}
