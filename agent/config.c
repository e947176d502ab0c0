/* SPDX-License-Identifier: MIT */
#include "agent/config.h"

#include <errno.h>
#include <string.h>

#include "shared/io.h"

#include "shared/banned.h"

#define CONFIG_MAX (64u * 1024)

void config_release(struct config *config)
{
    free(config->server);
    free(config->token);
    *config = (struct config){.server = NULL};
}

static int set(char **slot, const char *value)
{
    char *copy = strdup(value);

    if (!copy)
        return -ENOMEM;
    free(*slot);
    *slot = copy;
    return 0;
}

static int read_token(const char *path, char **slot, struct err *e)
{
    CLEANUP(buf_release) struct buf text;

    buf_init(&text, CONFIG_MAX);
    int r = io_read_file(path, CONFIG_MAX, &text, e);
    if (r < 0)
        return err_wrap(e, "read the token");
    CLEANUP(freep) char *line = strndup(buf_str(&text), strcspn(buf_str(&text), "\r\n"));
    return line && set(slot, line) == 0 ? 0 : err_set(e, ENOMEM, "read the token");
}

static char *trim(char *text)
{
    char *end = text + strlen(text);

    while (*text == ' ' || *text == '\t')
        text++;
    while (end > text && (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\r'))
        end--;
    *end = '\0';
    return text;
}

static int take_line(struct config *c, char *line, const char *path, unsigned number, struct err *e)
{
    char *text = trim(line);
    char *equals = strchr(text, '=');

    if (*text == '\0' || *text == '#')
        return 0;
    if (!equals)
        return err_say(e, EINVAL, "%s:%u: expected `name = value`", path, number);
    *equals = '\0';
    char *name = trim(text), *value = trim(equals + 1);
    int r;
    if (strcmp(name, "server") == 0)
        r = set(&c->server, value);
    else if (strcmp(name, "token") == 0)
        r = set(&c->token, value);
    else if (strcmp(name, "token_file") == 0)
        return read_token(value, &c->token, e);
    else
        return err_say(e, EINVAL,
            "%s:%u: unknown setting '%s': it knows server, token and token_file", path, number,
            name);
    return r < 0 ? err_set(e, -r, "read %s", path) : 0;
}

static int read_config(struct config *c, const char *path, struct err *e)
{
    CLEANUP(buf_release) struct buf text;
    unsigned number = 0;

    buf_init(&text, CONFIG_MAX);
    int r = io_read_file(path, CONFIG_MAX, &text, e);
    if (r == -ENOENT || r == -ENOTDIR)
        return 0;
    if (r < 0)
        return r;
    CLEANUP(freep) char *all = buf_steal(&text);
    char *rest = all;
    while (r == 0 && rest && *rest) {
        char *line = strsep(&rest, "\n");
        r = take_line(c, line, path, ++number, e);
    }
    return r;
}

int config_load(struct config *ret, struct err *e)
{
    const char *home = getenv("HOME"), *xdg = getenv("XDG_CONFIG_HOME");
    const char *server = getenv("SILT_SERVER"), *token = getenv("SILT_TOKEN");
    CLEANUP(freep) char *path = NULL;
    int r = 0;

    *ret = (struct config){.server = NULL};
    if (xdg && *xdg == '/')
        r = asprintf(&path, "%s/silt/silt.conf", xdg);
    else if (home && *home == '/')
        r = asprintf(&path, "%s/.config/silt/silt.conf", home);
    if (r < 0)
        return err_set(e, ENOMEM, "read the configuration");
    r = path ? read_config(ret, path, e) : 0;
    if (r == 0 && server && *server) {
        r = set(&ret->server, server);
        ret->server_from_env = true;
    }
    if (r == 0 && token && *token)
        r = set(&ret->token, token);
    if (r < 0)
        config_release(ret);
    return r == -ENOMEM ? err_set(e, ENOMEM, "read the configuration") : r;
}
