/* SPDX-License-Identifier: MIT */
#include "server/config_table.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "shared/banned.h"

#define KIB UINT64_C(1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define TIB (1024 * GIB)
#define MINUTE_MS UINT64_C(60000)
#define DAY_MS (24 * 60 * MINUTE_MS)

#define AT(member) offsetof(struct config, member)

const struct config_setting config_settings[] = {
    {"listen", NULL, CONFIG_TEXT, AT(listen), 0, 0, "127.0.0.1:7458", NULL, "HOST:PORT",
        "numeric address and port to listen on; port 0 takes a free one; beyond loopback a token "
        "is required"},
    {"data_dir", NULL, CONFIG_TEXT, AT(data_dir), 0, 0, NULL,
        "/var/lib/silt as root, else $XDG_STATE_HOME/silt", "PATH",
        "where siltd keeps its database, caches and records"},
    {"workspace_root", "PETRI_WORKSPACE_ROOT", CONFIG_TEXT, AT(workspace_root), 0, 0, NULL,
        "data_dir/workspaces", "PATH", "where the sandboxes' files live, one folder each"},
    {"token_file", NULL, CONFIG_TEXT, AT(token_file), 0, 0, "", "none", "PATH",
        "file whose first line is the token that clients must send"},
    {"allow_hosts", NULL, CONFIG_LIST, AT(allow_hosts), 0, 0, "", "none", "NAMES",
        "further host names under which clients may address this server"},
    {"allow_users", NULL, CONFIG_LIST, AT(allow_users), 0, 0, "", "none", "USERS",
        "further users of this machine who need no token on loopback"},
    {"engine", NULL, CONFIG_TEXT, AT(engine), 0, 0, "oci", NULL, "NAME",
        "what makes containers: oci (the runtime below) or docker (a Docker Engine or Podman that "
        "is "
        "there already)"},
    {"docker_socket", NULL, CONFIG_TEXT, AT(docker_socket), 0, 0, "/var/run/docker.sock", NULL,
        "PATH", "with engine docker: the socket it listens on"},
    {"docker_image", NULL, CONFIG_TEXT, AT(docker_image), 0, 0, "", "none", "NAME",
        "with engine docker: the image in which programs run"},
    {"runtime", NULL, CONFIG_TEXT, AT(runtime), 0, 0, "crun", NULL, "PROGRAM",
        "OCI runtime that starts containers: crun, runc, runsc or a path"},
    {"images", NULL, CONFIG_TEXT, AT(images), 0, 0, NULL, "data_dir/images", "PATH",
        "folder of the images that were imported, one folder each"},
    {"init", NULL, CONFIG_TEXT, AT(init), 0, 0, NULL,
        "beside siltd, else ../libexec/silt/silt-init", "PATH", "the silt-init program"},
    {"max_runs", NULL, CONFIG_NUMBER, AT(max_runs), 1, 10000, NULL, "2 x CPUs, at least 4", "N",
        "programs that run at the same time; more wait in a queue"},
    {"max_queued", NULL, CONFIG_NUMBER, AT(max_queued), 0, 10000, "256", NULL, "N",
        "runs that may wait for their turn; beyond it requests are refused as busy"},
    {"sandbox_runs", NULL, CONFIG_NUMBER, AT(sandbox_runs), 1, 10000, NULL,
        "three quarters of max_runs", "N", "programs of one sandbox that run at the same time"},
    {"sandbox_queued", NULL, CONFIG_NUMBER, AT(sandbox_queued), 1, 10000, NULL,
        "half of max_queued", "N", "runs of one sandbox that may wait for their turn"},
    {"max_warm", NULL, CONFIG_NUMBER, AT(max_warm), 0, 1000, "16", NULL, "N",
        "containers that are kept ready for sandboxes in use; 0: each run makes its own"},
    {"warm_time", NULL, CONFIG_DURATION, AT(warm_ms), 1000, DAY_MS, "5m", NULL, "TIME",
        "how long a container is kept ready for a sandbox that nobody uses"},
    {"prepare", NULL, CONFIG_LIST, AT(prepare), 0, 0, "python", NULL, "LANGUAGES",
        "languages whose interpreter is started before a run like the last one and held before it "
        "reads its file; none switches it off"},
    {"max_connections", NULL, CONFIG_NUMBER, AT(max_connections), 16, 100000, "4096", NULL, "N",
        "connections open at the same time"},
    {"wall_time", NULL, CONFIG_DURATION, AT(limits.wall_ms), 1, 30 * DAY_MS, "60s", NULL, "TIME",
        "how long a program may run unless its request says otherwise"},
    {"max_wall_time", NULL, CONFIG_DURATION, AT(limits_max.wall_ms), 1, 30 * DAY_MS, "24h", NULL,
        "TIME", "the most that a request may ask for"},
    {"cpu_time", NULL, CONFIG_DURATION, AT(limits.cpu_ms), 0, 30 * DAY_MS, "0", "0: none", "TIME",
        "CPU time a program may use unless its request says otherwise"},
    {"max_cpu_time", NULL, CONFIG_DURATION, AT(limits_max.cpu_ms), 1, 300 * DAY_MS, "240h", NULL,
        "TIME", "the most that a request may ask for"},
    {"memory", NULL, CONFIG_BYTES, AT(limits.memory_bytes), 8 * MIB, 16 * TIB, "1G", NULL, "SIZE",
        "memory of all processes of a run together unless its request says otherwise"},
    {"max_memory", NULL, CONFIG_BYTES, AT(limits_max.memory_bytes), 8 * MIB, 16 * TIB, "64G", NULL,
        "SIZE", "the most that a request may ask for"},
    {"pids", NULL, CONFIG_NUMBER, AT(limits.pids), 4, 1000000, "256", NULL, "N",
        "processes and threads of a run unless its request says otherwise"},
    {"max_pids", NULL, CONFIG_NUMBER, AT(limits_max.pids), 4, 1000000, "4096", NULL, "N",
        "the most that a request may ask for"},
    {"output", NULL, CONFIG_BYTES, AT(limits.output_bytes), 0, 1 * GIB, "8M", NULL, "SIZE",
        "bytes kept of each output stream unless the request says otherwise; the rest is counted "
        "only"},
    {"max_output", NULL, CONFIG_BYTES, AT(limits_max.output_bytes), 1, 1 * GIB, "64M", NULL, "SIZE",
        "the most that a request may ask for"},
    {"tmp_size", NULL, CONFIG_BYTES, AT(limits.tmp_bytes), 1 * MIB, 1 * TIB, "256M", NULL, "SIZE",
        "size of /tmp in a run; it counts as memory"},
    {"open_files", NULL, CONFIG_NUMBER, AT(limits.open_files), 16, 1000000, "1024", NULL, "N",
        "file descriptors a process of a run may hold"},
    {"file_size", NULL, CONFIG_BYTES, AT(limits.file_bytes), 1 * MIB, 16 * TIB, "16G", NULL, "SIZE",
        "largest file that a program may write"},
    {"cpus", NULL, CONFIG_NUMBER, AT(limits.cpus), 0, 4096, "0", "0: all", "N",
        "CPUs that a run may use and see"},
    {"json_size", NULL, CONFIG_BYTES, AT(json_bytes), 64 * KIB, 1 * GIB, "32M", NULL, "SIZE",
        "largest JSON body of a request"},
    {"upload_size", NULL, CONFIG_BYTES, AT(upload_bytes), 64 * KIB, 16 * TIB, "16G", NULL, "SIZE",
        "largest upload of a request: files and change sets"},
    {"body_deadline", NULL, CONFIG_DURATION, AT(body_deadline_ms), 1000, 60 * MINUTE_MS, "30s",
        NULL, "TIME", "how long a request's body may make no progress"},
    {"workspace_size", NULL, CONFIG_BYTES, AT(workspace_bytes), 1 * MIB, 1024 * TIB, "64G", NULL,
        "SIZE", "most bytes that one sandbox may hold on disk, with its cache"},
    {"workspace_files", NULL, CONFIG_NUMBER, AT(workspace_files), 1, 100000000, "2000000", NULL,
        "N", "most files that one sandbox may hold, with its cache"},
    {"min_free", NULL, CONFIG_BYTES, AT(free_bytes), 0, 1024 * TIB, "64M", NULL, "SIZE",
        "space of the disk that change sets must leave free"},
    {"keep_runs", NULL, CONFIG_NUMBER, AT(keep_runs), 1, 10000000, "10000", NULL, "N",
        "finished runs that are remembered"},
    {"keep_time", NULL, CONFIG_DURATION, AT(keep_ms), MINUTE_MS, 3650 * DAY_MS, "168h", NULL,
        "TIME", "how long finished runs are remembered"},
    {"stop_time", NULL, CONFIG_DURATION, AT(stop_ms), 100, 10 * MINUTE_MS, "5s", NULL, "TIME",
        "how long a stop waits for requests that are under way"},
    {"port_file", NULL, CONFIG_TEXT, AT(port_file), 0, 0, "", "none", "PATH",
        "file that receives the address listened on, beside data_dir/address"},
    {"log_level", NULL, CONFIG_LEVEL, AT(log_level), 0, 3, "info", NULL, "LEVEL",
        "error, warn, info or debug"},
};
const size_t config_setting_count = sizeof(config_settings) / sizeof(config_settings[0]);

static const char *map_name(
    const char *prefix, const char *key, int upper, char out[CONFIG_NAME_BYTES])
{
    int used = snprintf(out, CONFIG_NAME_BYTES, "%s%s", prefix, key);
    for (char *p = out + strlen(prefix); used > 0 && *p; p++) {
        if (!upper && *p == '_')
            *p = '-';
        else if (upper && *p >= 'a' && *p <= 'z')
            *p = (char)(*p - 'a' + 'A');
    }
    return out;
}

const char *config_flag_name(const char *key, char out[CONFIG_NAME_BYTES])
{
    return map_name("--", key, 0, out);
}

const char *config_env_name(const char *key, char out[CONFIG_NAME_BYTES])
{
    return map_name("SILT_", key, 1, out);
}

static const char *default_of(const struct config_setting *s)
{
    return s->default_text ? s->default_text : s->value;
}

int config_help(struct buf *b)
{
    int r = buf_adds(b,
        "usage: siltd [OPTIONS]\n"
        "       siltd doctor [--json] [OPTIONS]\n"
        "       siltd image import NAME FILE [--json] [OPTIONS]\n"
        "       siltd image list [--json] [OPTIONS]\n"
        "       siltd image remove NAME [--json] [OPTIONS]\n"
        "       siltd seccomp\n\n"
        "Serves sandboxes: keeps their files, runs programs on them in containers.\n"
        "doctor checks whether this machine has what these options need, says what\n"
        "mends the rest, and exits; exit code 1 if something would not work.\n"
        "image import makes FILE (of `docker save`, an OCI layout as tar or folder, or a\n"
        "tar of a root file system; plain or packed with gzip, zstd, xz; - is standard\n"
        "input) a root that sandboxes can name; list shows them; remove takes away one\n"
        "that no sandbox uses. A server that runs need not be stopped.\n"
        "seccomp prints which system calls a program's filter refuses, as a profile that\n"
        "container runtimes read.\n\n"
        "  --config PATH        settings file (default: /etc/silt/siltd.conf as root,\n"
        "                       else $XDG_CONFIG_HOME/silt/siltd.conf)\n"
        "  --print-config       print every setting as it would be used, and exit\n"
        "  --version  --help\n\n"
        "Each option is also an environment variable (--data-dir: SILT_DATA_DIR) and a\n"
        "key of the settings file (data_dir = PATH); the command line wins.\n\n");
    for (size_t i = 0; r == 0 && i < config_setting_count; i++) {
        const struct config_setting *s = &config_settings[i];
        char flag[CONFIG_NAME_BYTES];
        r = buf_addf(b, "  %s %s\n        %s (default: %s)\n", config_flag_name(s->key, flag),
            s->value_name, s->help, default_of(s));
    }
    return r;
}

int config_markdown(struct buf *b)
{
    int r = buf_adds(
        b, "| option | variable | key | default | what it sets |\n|---|---|---|---|---|\n");
    for (size_t i = 0; r == 0 && i < config_setting_count; i++) {
        const struct config_setting *s = &config_settings[i];
        char flag[CONFIG_NAME_BYTES], env[CONFIG_NAME_BYTES];
        r = buf_addf(b, "| `%s` | `%s`%s%s%s | `%s` | %s | %s |\n", config_flag_name(s->key, flag),
            config_env_name(s->key, env), s->alias ? ", `" : "", s->alias ? s->alias : "",
            s->alias ? "`" : "", s->key, default_of(s), s->help);
    }
    return r;
}

static int dump_value(const struct config_setting *s, const void *at, struct buf *b)
{
    static const char *const levels[] = {"error", "warn", "info", "debug"};
    if (s->kind == CONFIG_TEXT)
        return buf_adds(b, *(char *const *)at);
    if (s->kind == CONFIG_LIST) {
        int r = 0;
        for (char **item = *(char **const *)at; r == 0 && *item; item++)
            r = buf_addf(b, "%s%s", item == *(char **const *)at ? "" : ", ", *item);
        return r;
    }
    uint64_t value = *(const uint64_t *)at;
    if (s->kind == CONFIG_LEVEL)
        return buf_adds(b, levels[value & 3]);
    return buf_addf(b, "%" PRIu64 "%s", value, s->kind == CONFIG_DURATION ? "ms" : "");
}

int config_dump(const struct config *c, struct buf *b)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < config_setting_count; i++) {
        const struct config_setting *s = &config_settings[i];
        r = buf_addf(b, "%s = ", s->key);
        if (r == 0)
            r = dump_value(s, (const char *)c + s->offset, b);
        if (r == 0)
            r = buf_addc(b, '\n');
    }
    return r;
}
