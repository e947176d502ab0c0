/* SPDX-License-Identifier: MIT */
#include "agent/ignore_git.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "shared/io.h"
#include "shared/path.h"

#include "shared/banned.h"

#define EXCLUDE_FILE ".git/info/exclude"

/* ---- the configuration, as far as it matters */

/* A value up to the end of its line: quotes, backslashes, comments. malloc'd; NULL when damaged. */
static char *take_value(const char *at, const char *end)
{
    char *out = malloc((size_t)(end - at) + 1);
    size_t len = 0, keep = 0;
    bool quoted = false;
    for (; out && at < end && *at != '\n' && (quoted || (*at != '#' && *at != ';')); at++) {
        if (*at == '"') {
            quoted = !quoted;
            continue;
        }
        if (*at == '\\' && (at + 1 == end || !strchr("\\\"", *++at))) {
            free(out);
            return NULL;
        }
        if (len == 0 && !quoted && isspace((unsigned char)*at))
            continue;
        out[len++] = *at;
        if (quoted || !isspace((unsigned char)*at))
            keep = len;
    }
    if (out)
        out[keep] = '\0';
    return out;
}

/* Behind a section's head, and whether it is [core]. */
static const char *take_section(const char *at, const char *end, bool *ret_core)
{
    const char *close = memchr(at, ']', (size_t)(end - at)),
               *line = memchr(at, '\n', (size_t)(end - at));
    *ret_core = close && close - at == 5 && strncasecmp(at, "[core", 5) == 0;
    if (close && (!line || close < line))
        return close + 1;
    return line ? line : end;
}

static char *absolute(char *value, const char *home)
{
    char *path = NULL;
    if (value && *value == '/')
        return value;
    if (value && strncmp(value, "~/", 2) == 0 && home && asprintf(&path, "%s/%s", home, value + 2) < 0)
        path = NULL;
    free(value);
    return path;
}

char *ignore_git_excludes(const char *text, size_t len, const char *home)
{
    static const char key[] = "excludesfile";
    const char *end = text + len;
    char *found = NULL;
    bool core = false;
    for (const char *at = text; at < end;) {
        const char *line = memchr(at, '\n', (size_t)(end - at));
        while (at < end && isspace((unsigned char)*at) && at != line)
            at++;
        if (at < end && *at == '[') {
            at = take_section(at, end, &core);
            continue; /* a key may follow on its line */
        }
        const char *equals = at;
        bool ours = core && (size_t)(end - at) > sizeof(key) - 1 &&
                    strncasecmp(at, key, sizeof(key) - 1) == 0;
        if (ours) {
            equals += sizeof(key) - 1;
            while (equals < end && (*equals == ' ' || *equals == '\t'))
                equals++;
        }
        if (ours && equals < end && *equals == '=') {
            free(found);
            found = absolute(take_value(equals + 1, line ? line : end), home);
        }
        at = line ? line + 1 : end;
    }
    return found;
}

/* ---- the files */

/* NULL when home is NULL or there is no memory, which is as good as no such file. */
static char *in_home(const char *home, const char *name)
{
    return home && *home == '/' ? path_join(home, name) : NULL;
}

/* Reading anything else, a FIFO or a device, might never end. */
static int read_own(const char *path, size_t max, struct buf *ret)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return -errno;
    return S_ISREG(st.st_mode) ? io_read_file(path, max, ret, NULL) : -EINVAL;
}

static char *named_by(const char *path, const char *home)
{
    CLEANUP(buf_release) struct buf text;
    buf_init(&text, IGNORE_GIT_CONFIG_MAX);
    if (!path || read_own(path, IGNORE_GIT_CONFIG_MAX, &text) < 0)
        return NULL;
    return ignore_git_excludes(buf_str(&text), text.len, home);
}

static char *excludes_file(void)
{
    const char *home = getenv("HOME"), *xdg = getenv("XDG_CONFIG_HOME");
    CLEANUP(freep)
    char *folder = xdg && *xdg == '/' ? strdup(xdg) : in_home(home, ".config");
    CLEANUP(freep) char *first = in_home(home, ".gitconfig");
    CLEANUP(freep) char *second = in_home(folder, "git/config");
    char *found = named_by(first, home);
    if (!found)
        found = named_by(second, home);
    return found ? found : in_home(folder, "git/ignore");
}

static int load_global(struct ignore *rules, const char **ret_unused)
{
    CLEANUP(freep) char *path = excludes_file();
    CLEANUP(buf_release) struct buf text;
    buf_init(&text, IGNORE_FILE_MAX);
    int r = path ? read_own(path, IGNORE_FILE_MAX, &text) : -ENOENT;
    if (r < 0 && r != -ENOENT && r != -ENOTDIR)
        *ret_unused = "core.excludesFile";
    return ignore_load(rules, IGNORE_GLOBAL, "", r == 0 ? buf_str(&text) : NULL, text.len);
}

static int load_exclude(struct ignore *rules, const struct tree *project, const char **ret_unused)
{
    CLEANUP(fd_closep) int fd = -1;
    CLEANUP(buf_release) struct buf text;
    buf_init(&text, IGNORE_FILE_MAX);
    int r = tree_open_file(project, EXCLUDE_FILE, &fd, NULL, NULL);
    if (r == 0)
        r = io_read_rest(fd, &text);
    if (r < 0 && r != -ENOENT && r != -ENOTDIR) /* in a linked work tree .git is a file */
        *ret_unused = EXCLUDE_FILE;
    return ignore_load(rules, IGNORE_EXCLUDE, "", r == 0 ? buf_str(&text) : NULL, text.len);
}

int ignore_git_load(struct ignore *rules, const struct tree *project, const char **ret_unused)
{
    struct tree_stat st;
    *ret_unused = NULL;
    if (tree_stat(project, ".git", &st, NULL) < 0) {
        int r = ignore_load(rules, IGNORE_GLOBAL, "", NULL, 0);
        return r < 0 ? r : ignore_load(rules, IGNORE_EXCLUDE, "", NULL, 0);
    }
    int r = load_global(rules, ret_unused);
    return r < 0 ? r : load_exclude(rules, project, ret_unused);
}
