/* SPDX-License-Identifier: MIT */
#include "server/config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "shared/io.h"
#include "shared/num.h"
#include "shared/path.h"

#include "server/config_table.h"

#include "shared/banned.h"

#define NEAR (4 * 2048)  /* of path_distance: at most three edits are a likeness */
#define VALUE_MAX 4096   /* bytes of one value */
#define ORIGIN_BYTES 128 /* "/etc/silt/siltd.conf:12" */

/* While loading: which rows have a value already, from whoever came first. */
struct loading {
    const struct config_world *world;
    struct config *c;
    const char *config_path; /* --config, or NULL */
    bool *set;               /* per row */
};

static const struct config_setting *find_key(const char *key, size_t *ret_row)
{
    for (size_t i = 0; i < config_setting_count; i++) {
        if (strcmp(config_settings[i].key, key) == 0) {
            *ret_row = i;
            return &config_settings[i];
        }
    }
    return NULL;
}

static const char *nearest_key(const char *key)
{
    const char *best = NULL;
    unsigned best_distance = NEAR;
    for (size_t i = 0; i < config_setting_count; i++) {
        unsigned d = path_distance(key, config_settings[i].key);
        if (d < best_distance) {
            best_distance = d;
            best = config_settings[i].key;
        }
    }
    return best;
}

static int parse_list(const char *text, char ***slot)
{
    char **list = calloc(CONFIG_LIST_MAX + 1, sizeof(*list));
    if (!list)
        return -ENOMEM;
    size_t count = 0;
    int r = 0;
    for (const char *p = text; r == 0 && *p;) {
        size_t skip = strspn(p, ", \t");
        p += skip;
        size_t len = strcspn(p, ", \t");
        if (len == 0)
            break;
        if (count == CONFIG_LIST_MAX)
            r = -E2BIG;
        else if (!(list[count++] = strndup(p, len)))
            r = -ENOMEM;
        p += len;
    }
    if (r < 0) {
        for (size_t i = 0; i < CONFIG_LIST_MAX; i++)
            free(list[i]);
        free(list);
        return r;
    }
    *slot = list;
    return 0;
}

static int parse_level(const char *text, uint64_t *ret)
{
    static const char *const levels[] = {"error", "warn", "info", "debug"};
    for (uint64_t i = 0; i < 4; i++) {
        if (strcmp(text, levels[i]) == 0) {
            *ret = i;
            return 0;
        }
    }
    return -EINVAL;
}

static int parse_value(const struct config_setting *s, const char *text, void *at)
{
    uint64_t *number = at;
    int r = -EINVAL;
    switch (s->kind) {
    case CONFIG_TEXT:
        free(*(char **)at);
        *(char **)at = strdup(text);
        return *(char **)at ? 0 : -ENOMEM;
    case CONFIG_LIST:
        return parse_list(text, at);
    case CONFIG_NUMBER:
        r = num_u64(text, s->max, number);
        break;
    case CONFIG_BYTES:
        r = num_bytes(text, s->max, number);
        break;
    case CONFIG_DURATION:
        r = num_duration_ms(text, s->max, number);
        break;
    case CONFIG_LEVEL:
        r = parse_level(text, number);
        break;
    }
    if (r == 0 && *number < s->min)
        r = -ERANGE;
    return r;
}

static const char *expected(const struct config_setting *s)
{
    static const char *const texts[] = {
        [CONFIG_TEXT] = "a text",
        [CONFIG_LIST] = "at most 32 names separated by commas",
        [CONFIG_NUMBER] = "a whole number",
        [CONFIG_BYTES] = "a size such as 64M or 1.5G",
        [CONFIG_DURATION] = "a time such as 250ms, 60s or 2h",
        [CONFIG_LEVEL] = "error, warn, info or debug",
    };
    return texts[s->kind];
}

/* The first one to set a row wins: the callers come in order of precedence. */
static int set_row(
    struct loading *l, size_t row, const char *text, const char *origin, struct err *e)
{
    const struct config_setting *s = &config_settings[row];
    if (l->set[row])
        return 0;
    int r = strlen(text) > VALUE_MAX ? -ERANGE : parse_value(s, text, (char *)l->c + s->offset);
    if (r == -ENOMEM)
        return err_set(e, ENOMEM, "read the settings");
    if (r == -ERANGE)
        return err_say(e, EINVAL,
            "%s: '%.64s' is out of range for %s: give %s within its bounds (see siltd --help)",
            origin, text, s->key, expected(s));
    if (r < 0)
        return err_say(e, EINVAL, "%s: '%.64s' is no value for %s: give %s", origin, text, s->key,
            expected(s));
    l->set[row] = true;
    return 0;
}

static int load_flag(struct loading *l, int argc, char *const *argv, int *i, struct err *e)
{
    const char *arg = argv[*i];
    const char *equals = strchr(arg, '=');
    size_t len = equals ? (size_t)(equals - arg) : strlen(arg);
    char key[CONFIG_NAME_BYTES] = "";
    if (len > 2 && len - 2 < sizeof(key))
        (void)snprintf(key, sizeof(key), "%.*s", (int)(len - 2), arg + 2);
    for (char *p = key; *p; p++) {
        if (*p == '-')
            *p = '_';
    }
    size_t row = 0;
    bool is_config = strcmp(key, "config") == 0;
    if (strncmp(arg, "--", 2) != 0 || (!is_config && !find_key(key, &row))) {
        const char *near = nearest_key(key);
        char flag[CONFIG_NAME_BYTES];
        if (near)
            return err_say(e, EINVAL, "unknown option '%.64s': did you mean %s?", arg,
                config_flag_name(near, flag));
        return err_say(e, EINVAL, "unknown option '%.64s': siltd --help lists them", arg);
    }
    if (!equals && *i + 1 >= argc)
        return err_say(e, EINVAL, "option %s needs a value", arg);
    const char *value = equals ? equals + 1 : argv[++*i];
    if (is_config) {
        l->config_path = value;
        return 0;
    }
    char flag[CONFIG_NAME_BYTES];
    return set_row(l, row, value, config_flag_name(key, flag), e);
}

/* What stands after `image` and is no option; "-" is standard input. */
static bool take_word(struct config *c, enum config_action action, const char *arg)
{
    if ((action != CONFIG_IMAGE && action != CONFIG_IMAGE_JSON) ||
        (arg[0] == '-' && arg[1] != '\0') || c->word_count == CONFIG_WORDS_MAX)
        return false;
    c->words[c->word_count++] = arg;
    return true;
}

static int load_flags(
    struct loading *l, int argc, char *const *argv, enum config_action *action, struct err *e)
{
    static const struct {
        const char *flag;
        enum config_action action, after; /* means something after that action only */
    } actions[] = {{"--help", CONFIG_HELP, CONFIG_RUN}, {"-h", CONFIG_HELP, CONFIG_RUN},
        {"--version", CONFIG_VERSION, CONFIG_RUN}, {"--print-config", CONFIG_PRINT, CONFIG_RUN},
        {"seccomp", CONFIG_SECCOMP, CONFIG_RUN}, {"doctor", CONFIG_DOCTOR, CONFIG_RUN},
        {"--json", CONFIG_DOCTOR_JSON, CONFIG_DOCTOR}, {"image", CONFIG_IMAGE, CONFIG_RUN},
        {"--json", CONFIG_IMAGE_JSON, CONFIG_IMAGE}};
    for (int i = 1; i < argc; i++) {
        bool done = take_word(l->c, *action, argv[i]);
        for (size_t k = 0; !done && k < sizeof(actions) / sizeof(actions[0]); k++) {
            if (strcmp(argv[i], actions[k].flag) == 0 &&
                (actions[k].after == CONFIG_RUN || actions[k].after == *action)) {
                *action = actions[k].action;
                done = true;
            }
        }
        int r = done ? 0 : load_flag(l, argc, argv, &i, e);
        if (r < 0)
            return r;
    }
    return 0;
}

static int load_environment(struct loading *l, struct err *e)
{
    for (size_t row = 0; row < config_setting_count; row++) {
        const struct config_setting *s = &config_settings[row];
        char name[CONFIG_NAME_BYTES];
        const char *names[] = {config_env_name(s->key, name), s->alias};
        for (size_t k = 0; k < 2 && names[k]; k++) {
            const char *value = l->world->env(l->world->ctx, names[k]);
            int r = value && *value ? set_row(l, row, value, names[k], e) : 0;
            if (r < 0)
                return r;
        }
    }
    return 0;
}

/* Cut blanks from both ends, in place. */
static char *trim(char *text)
{
    text += strspn(text, " \t\r");
    size_t len = strlen(text);
    while (len > 0 && strchr(" \t\r", text[len - 1]))
        text[--len] = '\0';
    return text;
}

/* seen: per row, whether an earlier line of this file set it. Of two, which one should count? */
static int load_line(struct loading *l, char *line, bool *seen, const char *origin, struct err *e)
{
    line = trim(line);
    if (*line == '\0' || *line == '#')
        return 0;
    char *equals = strchr(line, '=');
    if (!equals)
        return err_say(e, EINVAL, "%s: expected 'key = value', found '%.64s'", origin, line);
    *equals = '\0';
    const char *key = trim(line);
    size_t row;
    if (find_key(key, &row)) {
        if (seen[row])
            return err_say(
                e, EINVAL, "%s: %s was set above already: keep one of the lines", origin, key);
        seen[row] = true;
        return set_row(l, row, trim(equals + 1), origin, e);
    }
    const char *near = nearest_key(key);
    return err_say(e, EINVAL, "%s: unknown key '%.64s'%s%s%s", origin, key,
        near ? ": did you mean '" : "", near ? near : "", near ? "'?" : "");
}

static int load_file(struct loading *l, const char *path, bool must_exist, struct err *e)
{
    CLEANUP(buf_release) struct buf text;
    buf_init(&text, CONFIG_FILE_MAX);
    int r = io_read_file(path, CONFIG_FILE_MAX, &text, e);
    if (r == -ENOENT && !must_exist)
        return 0;
    if (r < 0)
        return err_wrap(e, "read the settings");
    if (text.len != strlen(buf_str(&text)))
        return err_say(e, EINVAL, "%s: this file is not text", path);
    CLEANUP(freep) bool *seen = calloc(config_setting_count, sizeof(*seen));
    if (!seen)
        return err_set(e, ENOMEM, "read the settings");
    unsigned number = 0;
    char *rest = (char *)text.data;
    while (r == 0 && rest) {
        char *line = strsep(&rest, "\n");
        char origin[PATH_BYTES_MAX + 32];
        (void)snprintf(origin, sizeof(origin), "%.200s:%u", path, ++number);
        r = load_line(l, line, seen, origin, e);
    }
    return r;
}

/* dir/name into a setting that has no value yet. */
static int set_path(char **slot, const char *dir, const char *name)
{
    if (!*slot)
        *slot = path_join(dir, name);
    return *slot ? 0 : -ENOMEM;
}

/* $NAME, else $HOME/fallback, appended to b with a slash and `rest` after it. */
static int xdg_path(const struct config_world *w, const char *name, const char *fallback,
    const char *rest, struct buf *b, struct err *e)
{
    const char *base = w->env(w->ctx, name);
    if (base && *base == '/')
        return buf_addf(b, "%s/%s", base, rest);
    const char *home = w->env(w->ctx, "HOME");
    if (!home || *home != '/')
        return err_say(e, EINVAL, "neither %s nor HOME is set: give --data-dir and --config", name);
    return buf_addf(b, "%s/%s/%s", home, fallback, rest);
}

static int fill_paths(struct config *c, const struct config_world *w, struct err *e)
{
    if (!c->data_dir) {
        CLEANUP(buf_release) struct buf b;
        buf_init(&b, PATH_BYTES_MAX);
        int made = w->root ? buf_adds(&b, "/var/lib/silt")
                           : xdg_path(w, "XDG_STATE_HOME", ".local/state", "silt", &b, e);
        if (made == -EINVAL)
            return made;
        if (made < 0 || !(c->data_dir = buf_steal(&b)))
            return err_set(e, ENOMEM, "name the data directory");
    }
    int r = set_path(&c->workspace_root, c->data_dir, "workspaces");
    if (c->images && !*c->images)
        free(ptr_take(&c->images));
    if (r == 0)
        r = set_path(&c->images, c->data_dir, "images");
    if (r == 0 && !c->init) {
        CLEANUP(freep) char *beside = path_join(w->exe_dir, "silt-init");
        bool there = beside && access(beside, X_OK) == 0;
        r = set_path(&c->init, w->exe_dir, there ? "silt-init" : "../libexec/silt/silt-init");
    }
    if (r < 0)
        return err_set(e, -r, "name the folders");
    if (c->data_dir[0] != '/' || c->workspace_root[0] != '/')
        return err_say(e, EINVAL, "data_dir and workspace_root must be absolute paths");
    return 0;
}

static int split_listen(struct config *c, struct err *e)
{
    const char *colon = strrchr(c->listen, ':');
    uint64_t port = 0;
    size_t len = colon ? (size_t)(colon - c->listen) : 0;
    const char *host = c->listen;
    if (len >= 2 && host[0] == '[' && host[len - 1] == ']') {
        host++;
        len -= 2;
    }
    struct in6_addr address;
    if (colon && len > 0 && len < sizeof(c->host))
        (void)snprintf(c->host, sizeof(c->host), "%.*s", (int)len, host);
    if (strcmp(c->host, "localhost") == 0)
        (void)snprintf(c->host, sizeof(c->host), "127.0.0.1");
    if (!colon || num_u64(colon + 1, 65535, &port) < 0 ||
        (inet_pton(AF_INET, c->host, &address) != 1 && inet_pton(AF_INET6, c->host, &address) != 1))
        return err_say(e, EINVAL,
            "listen: '%.64s' is no address: give a numeric address and a port, such as "
            "127.0.0.1:7458 or [::1]:7458",
            c->listen);
    c->port = (uint16_t)port;
    return 0;
}

/* No sandbox alone can take every place, as long as there are two. */
static void fill_shares(struct config *c, unsigned cpus)
{
    if (c->max_runs == 0)
        c->max_runs = cpus > 2 ? 2 * (uint64_t)cpus : 4;
    if (c->sandbox_runs == 0)
        c->sandbox_runs = c->max_runs > 1 ? c->max_runs * 3 / 4 : 1;
    if (c->sandbox_queued == 0)
        c->sandbox_queued = (c->max_queued + 1) / 2;
}

static int fill_defaults(struct loading *l, struct err *e)
{
    struct config *c = l->c;
    for (size_t row = 0; row < config_setting_count; row++) {
        const char *value = config_settings[row].value;
        int r = value ? set_row(l, row, value, "default", e) : 0;
        if (r < 0)
            return r;
    }
    fill_shares(c, l->world->cpus);
    c->limits_max.tmp_bytes = c->limits.tmp_bytes;
    c->limits_max.open_files = c->limits.open_files;
    c->limits_max.file_bytes = c->limits.file_bytes;
    c->limits_max.cpus = c->limits.cpus;
    const struct {
        const char *name;
        uint64_t usual, most;
    } pairs[] = {{"wall_time", c->limits.wall_ms, c->limits_max.wall_ms},
        {"cpu_time", c->limits.cpu_ms, c->limits_max.cpu_ms},
        {"memory", c->limits.memory_bytes, c->limits_max.memory_bytes},
        {"pids", c->limits.pids, c->limits_max.pids},
        {"output", c->limits.output_bytes, c->limits_max.output_bytes}};
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        if (pairs[i].usual > pairs[i].most)
            return err_say(e, EINVAL, "%s is above max_%s: lower the one or raise the other",
                pairs[i].name, pairs[i].name);
    }
    int r = fill_paths(c, l->world, e);
    return r < 0 ? r : split_listen(c, e);
}

static int load_sources(struct loading *l, struct err *e)
{
    int r = load_environment(l, e);
    if (r < 0)
        return r;
    if (l->config_path)
        return load_file(l, l->config_path, true, e);
    if (l->world->root)
        return load_file(l, "/etc/silt/siltd.conf", false, e);
    CLEANUP(buf_release) struct buf path;
    buf_init(&path, PATH_BYTES_MAX);
    /* Without a home there is no file; that is no reason to stop. */
    if (xdg_path(l->world, "XDG_CONFIG_HOME", ".config", "silt/siltd.conf", &path, NULL) < 0)
        return 0;
    return load_file(l, buf_str(&path), false, e);
}

static void config_freep(struct config **c)
{
    config_free(*c);
    *c = NULL;
}

int config_load(const struct config_world *world, int argc, char *const *argv, struct config **ret,
    enum config_action *ret_action, struct err *e)
{
    CLEANUP(config_freep) struct config *c = calloc(1, sizeof(*c));
    CLEANUP(freep) bool *set = calloc(config_setting_count, sizeof(*set));
    if (!c || !set)
        return err_set(e, ENOMEM, "read the settings");
    struct loading l = {.world = world, .c = c, .set = set};
    *ret = NULL;
    *ret_action = CONFIG_RUN;
    int r = load_flags(&l, argc, argv, ret_action, e);
    if (r < 0 || *ret_action == CONFIG_HELP || *ret_action == CONFIG_VERSION)
        return r;
    r = load_sources(&l, e);
    if (r == 0)
        r = fill_defaults(&l, e);
    if (r < 0)
        return r;
    *ret = ptr_take(&c);
    return 0;
}

static void free_list(char **list)
{
    for (char **item = list; item && *item; item++)
        free(*item);
    free(list);
}

const char *config_image_dir(const struct config *c)
{
    return strcmp(c->engine, "docker") == 0 ? NULL : c->images;
}

void config_free(struct config *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < config_setting_count; i++) {
        void *at = (char *)c + config_settings[i].offset;
        if (config_settings[i].kind == CONFIG_TEXT)
            free(*(char **)at);
        else if (config_settings[i].kind == CONFIG_LIST)
            free_list(*(char ***)at);
    }
    free(c);
}
