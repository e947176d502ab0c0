/* SPDX-License-Identifier: MIT */
/* siltd: reads the settings, puts the parts together, waits for a signal, takes them apart again.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "shared/io.h"
#include "shared/log.h"
#include "shared/path.h"
#include "shared/text.h"

#include "server/delta_worker.h"
#include "server/api.h"
#include "server/auth.h"
#include "server/config.h"
#include "server/container.h"
#include "server/doctor.h"
#include "server/exec.h"
#include "server/http.h"
#include "server/image_command.h"
#include "server/oci_seccomp.h"
#include "server/sandbox.h"
#include "server/store.h"

#include "shared/banned.h"

#define UID_FIRST 1073741824u
#define UID_COUNT 1000000u
#define TEXT_MAX (256 * 1024)

struct server {
    struct config *config;
    int lock_fd, signal_fd;
    struct store *store;
    struct sandboxes *sandboxes;
    struct container_engine *engine;
    struct auth *auth;
    struct exec *exec;
    struct api *api;
    struct http_server *http;
    char *address_file;
};

static const char *read_env(void *ctx, const char *name)
{
    (void)ctx;
    return getenv(name);
}

/* The folder of our own binary, without a trailing slash. */
static void find_exe_dir(char out[PATH_MAX])
{
    ssize_t n = readlink("/proc/self/exe", out, PATH_MAX - 1);
    out[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(out, '/');
    if (slash)
        *slash = '\0';
}

static int print_text(int (*make)(struct buf *b))
{
    CLEANUP(buf_release) struct buf text;
    buf_init(&text, TEXT_MAX);
    return make(&text) == 0 && fputs(buf_str(&text), stdout) >= 0 ? 0 : 1;
}

static int print_config(const struct config *c)
{
    CLEANUP(buf_release) struct buf text;
    buf_init(&text, TEXT_MAX);
    return config_dump(c, &text) == 0 && fputs(buf_str(&text), stdout) >= 0 ? 0 : 1;
}

static int print_seccomp(void)
{
    json_t *profile = oci_seccomp();
    bool good = profile && json_dumpf(profile, stdout, JSON_INDENT(2)) == 0 && puts("") >= 0;
    json_decref(profile);
    return good ? 0 : 1;
}

static int print_doctor(const struct config *c, bool json)
{
    CLEANUP(buf_release) struct buf text;
    CLEANUP(freep) struct doctor_facts *facts = calloc(1, sizeof(*facts));
    CLEANUP(freep) struct doctor_row *rows = calloc(DOCTOR_ROWS_MAX, sizeof(*rows));
    buf_init(&text, TEXT_MAX);
    if (!facts || !rows)
        return 1;
    doctor_probe(c, facts);
    size_t count = doctor_judge(facts, rows);
    if (doctor_print(rows, count, json, &text) < 0 || fputs(buf_str(&text), stdout) < 0)
        return 1;
    return doctor_failed(rows, count) ? 1 : 0;
}

/* 2 for a misuse, as for one of an option. */
static int print_image(const struct config *c, bool json)
{
    CLEANUP(buf_release) struct buf text;
    CLEANUP(buf_release) struct buf why;
    struct err e = ERR_INIT;
    buf_init(&text, TEXT_MAX);
    buf_init(&why, TEXT_MAX);
    int r = image_command(c, json, &text, &e);
    if (r < 0) {
        err_ignore(text_add_escaped(&why, e.msg));
        fprintf(stderr, "siltd: %s.\n", buf_str(&why));
        return strncmp(e.msg, "usage: ", 7) == 0 ? 2 : 1;
    }
    return fputs(buf_str(&text), stdout) >= 0 ? 0 : 1;
}

/* ---- the process */

static int prepare_process(struct server *s, struct err *e)
{
    struct rlimit files;
    sigset_t signals;
    (void)umask(022);
    (void)signal(SIGPIPE, SIG_IGN);
    /* A run takes eight descriptors; the usual soft limit of 1024 would be the first thing to end.
     */
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
    /* A thread that carries a sandbox's identity must not keep root's groups. */
    if (geteuid() == 0 && setgroups(0, NULL) < 0)
        return err_set(e, errno, "drop the supplementary groups");
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGTERM);
    (void)sigaddset(&signals, SIGINT);
    (void)sigaddset(&signals, SIGHUP);
    (void)pthread_sigmask(SIG_BLOCK, &signals, NULL);
    s->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC);
    return s->signal_fd < 0 ? err_set(e, errno, "wait for signals") : 0;
}

static int lock_data(struct server *s, struct err *e)
{
    CLEANUP(freep) char *path = path_join(s->config->data_dir, "lock");
    int r = io_mkdirs(s->config->data_dir, 0711, e);
    if (r < 0)
        return r;
    s->lock_fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (s->lock_fd < 0)
        return err_set(e, errno, "open '%s'", path ? path : "lock");
    if (flock(s->lock_fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno == EWOULDBLOCK)
            return err_say(e, EBUSY,
                "another siltd is running on %s: stop it, or give this one a folder of its own "
                "with --data-dir",
                s->config->data_dir);
        return err_set(e, errno, "lock '%s'", path);
    }
    return 0;
}

/* ---- the parts, in the order in which they need each other */

static int open_store(struct server *s, struct err *e)
{
    CLEANUP(freep) char *path = path_join(s->config->data_dir, "silt.db");
    return path ? store_open(path, &s->store, e) : err_set(e, ENOMEM, "open the database");
}

static int open_engine(struct server *s, struct err *e)
{
    CLEANUP(freep) char *state = path_join(s->config->data_dir, "containers");
    if (!state)
        return err_set(e, ENOMEM, "start the container engine");
    const struct container_config config = {
        .state_dir = state,
        .engine = s->config->engine,
        .docker_socket = s->config->docker_socket,
        .docker_image = s->config->docker_image,
        .runtime = s->config->runtime,
        .init_path = s->config->init,
        .image_dir = s->config->images,
    };
    int r = io_mkdirs(state, 0711, e);
    if (r == 0)
        r = io_mkdirs(s->config->images, 0711, e);
    if (r == 0)
        r = container_engine_new(&config, &s->engine, e);
    if (r < 0)
        return r;
    int reaped = container_engine_reap(s->engine, e);
    if (reaped > 0)
        log_warn("removed %d containers that an earlier server left behind", reaped);
    return reaped < 0 ? reaped : 0;
}

static int open_sandboxes(struct server *s, struct err *e)
{
    const struct sandboxes_config config = {
        .data_dir = s->config->data_dir,
        .workspace_root = s->config->workspace_root,
        .store = s->store,
        .root = geteuid() == 0,
        .uid_first = UID_FIRST,
        .uid_count = UID_COUNT,
        .max_workspace_bytes = s->config->workspace_bytes,
        .max_workspace_files = s->config->workspace_files,
        .min_free_bytes = s->config->free_bytes,
    };
    int r = io_mkdirs(s->config->workspace_root, 0711, e);
    return r < 0 ? r : sandboxes_open(&config, &s->sandboxes, e);
}

static int open_auth(struct server *s, struct err *e)
{
    const struct auth_config config = {
        .listen_host = s->config->host,
        .token_file = *s->config->token_file ? s->config->token_file : NULL,
        .hosts = (const char *const *)s->config->allow_hosts,
        .users = (const char *const *)s->config->allow_users,
    };
    return auth_new(&config, &s->auth, e);
}

static int open_exec(struct server *s, struct err *e)
{
    const struct exec_config config = {
        .config = s->config, .sandboxes = s->sandboxes, .store = s->store, .engine = s->engine};
    return exec_new(&config, &s->exec, e);
}

static int open_api(struct server *s, struct err *e)
{
    const struct api_config config = {.config = s->config,
        .auth = s->auth,
        .sandboxes = s->sandboxes,
        .engine = s->engine,
        .exec = s->exec};
    return api_new(&config, &s->api, e);
}

static int open_http(struct server *s, struct err *e)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    const struct http_config config = {
        .host = s->config->host,
        .port = s->config->port,
        .io_threads = cpus > 4   ? 4
                      : cpus > 1 ? (unsigned)cpus
                                 : 1,
        .worker_threads = 64,
        .max_connections = (unsigned)s->config->max_connections,
        .body_deadline_ms = (uint32_t)s->config->body_deadline_ms,
        .idle_timeout_ms = 120000,
        .gate = api_gate,
        .handler = api_handle,
        .ctx = s->api,
    };
    int r = http_server_start(&config, &s->http, e);
    if (r == -EADDRINUSE)
        return err_say(e, EADDRINUSE,
            "%s is in use already: stop the program that listens there, or choose another port "
            "with --listen %s:0",
            s->config->listen, s->config->host);
    if (r == 0)
        api_set_server(s->api, s->http);
    return r;
}

static int open_parts(struct server *s, struct err *e)
{
    int (*const steps[])(struct server * s, struct err * e) = {prepare_process, lock_data,
        open_auth, open_store, open_engine, open_sandboxes, open_exec, open_api, open_http};
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        int r = steps[i](s, e);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Runs end first, so that whoever waits for one gets an answer while there is somebody to give it.
 */
static void close_parts(struct server *s)
{
    exec_stop(s->exec);
    if (s->sandboxes)
        sandboxes_end_events(s->sandboxes);
    if (s->http)
        http_server_stop(s->http, (uint32_t)s->config->stop_ms);
    if (s->api)
        api_stop(s->api);
    api_free(s->api);
    exec_free(s->exec);
    if (s->sandboxes)
        sandboxes_close(s->sandboxes);
    if (s->engine)
        container_engine_free(s->engine);
    if (s->store)
        store_close(s->store);
    auth_free(s->auth);
    if (s->address_file)
        (void)unlink(s->address_file);
    free(s->address_file);
    fd_closep(&s->signal_fd);
    fd_closep(&s->lock_fd);
    config_free(s->config);
}

/* ---- telling that we are there */

/* To whoever started us as a service: sd_notify(3) without its library. */
static void notify(const char *text)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    const char *path = getenv("NOTIFY_SOCKET");
    size_t len = path ? strlen(path) : 0;
    if (len < 2 || len >= sizeof(to.sun_path) || (*path != '/' && *path != '@'))
        return;
    CLEANUP(fd_closep) int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    memcpy(to.sun_path, path, len);
    if (*path == '@')
        to.sun_path[0] = '\0';
    if (fd >= 0)
        (void)sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&to,
            (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
}

static int announce(struct server *s, struct err *e)
{
    bool v6 = strchr(s->config->host, ':') != NULL;
    char address[96];
    int len = snprintf(address, sizeof(address), "%s%s%s:%u\n", v6 ? "[" : "", s->config->host,
        v6 ? "]" : "", http_server_port(s->http));
    s->address_file = path_join(s->config->data_dir, "address");
    int r = s->address_file ? io_write_file(s->address_file, address, (size_t)len, 0644, e)
                            : err_set(e, ENOMEM, "write the address");
    if (r == 0 && *s->config->port_file)
        r = io_write_file(s->config->port_file, address, (size_t)len, 0644, e);
    if (r < 0)
        return r;
    const struct container_abilities *a = container_engine_abilities(s->engine);
    if (a->note[0])
        log_warn("%s", a->note);
    printf("siltd " SILT_VERSION " listening on http://%.*s, data in %s\n", len - 1, address,
        s->config->data_dir);
    (void)fflush(stdout);
    notify("READY=1");
    return 0;
}

static void wait_for_signal(struct server *s)
{
    struct signalfd_siginfo info;
    do {
        if (read(s->signal_fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
            return;
    } while (info.ssi_signo == SIGHUP);
    log_info("stopping");
    notify("STOPPING=1");
    /* From here on a second signal ends us as it would end anybody. */
    sigset_t signals;
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGTERM);
    (void)sigaddset(&signals, SIGINT);
    (void)pthread_sigmask(SIG_UNBLOCK, &signals, NULL);
}

static int serve(struct server *s)
{
    struct err e = ERR_INIT;
    int r = open_parts(s, &e);
    if (r == 0)
        r = announce(s, &e);
    if (r == 0)
        wait_for_signal(s);
    else
        fprintf(stderr, "siltd: %s.\n", e.msg);
    close_parts(s);
    return r < 0 ? 1 : 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], DELTA_WORKER_ARG) == 0)
        _exit(delta_worker_main(argv[2])); /* nothing of it is worth an orderly end */
    char exe_dir[PATH_MAX];
    struct server s = {.lock_fd = -1, .signal_fd = -1};
    enum config_action action;
    struct err e = ERR_INIT;
    find_exe_dir(exe_dir);
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    const struct config_world world = {
        .root = geteuid() == 0,
        .cpus = cpus > 0 ? (unsigned)cpus : 1,
        .exe_dir = exe_dir,
        .env = read_env,
    };
    if (config_load(&world, argc, argv, &s.config, &action, &e) < 0) {
        fprintf(stderr, "siltd: %s.\n", e.msg);
        return 2;
    }
    if (action == CONFIG_HELP)
        return print_text(config_help);
    if (action == CONFIG_VERSION)
        return printf("siltd " SILT_VERSION "\n") > 0 ? 0 : 1;
    if (action == CONFIG_SECCOMP) {
        config_free(s.config);
        return print_seccomp();
    }
    if (action == CONFIG_PRINT) {
        int r = print_config(s.config);
        config_free(s.config);
        return r;
    }
    log_set_level((enum log_level)s.config->log_level);
    if (action == CONFIG_DOCTOR || action == CONFIG_DOCTOR_JSON) {
        int r = print_doctor(s.config, action == CONFIG_DOCTOR_JSON);
        config_free(s.config);
        return r;
    }
    if (action == CONFIG_IMAGE || action == CONFIG_IMAGE_JSON) {
        int r = print_image(s.config, action == CONFIG_IMAGE_JSON);
        config_free(s.config);
        return r;
    }
    return serve(&s);
}
