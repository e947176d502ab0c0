/* SPDX-License-Identifier: MIT */
#include "server/exec_request.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "shared/path.h"
#include "shared/text.h"

#include "server/body.h"

#include "shared/banned.h"

#define COMMAND_MAX (120u * 1024) /* one argument of execve may have 128 KiB */

static int parse_file(json_t *body, struct exec_request *ret, struct err *e)
{
    CLEANUP(freep) char *name = NULL;
    int r = body_text(body, "filename", PATH_BYTES_MAX, &name, e);
    if (r < 0)
        return r;
    const char *relative = strncmp(name, "/workspace/", 11) == 0 ? name + 11 : name;
    r = path_resolve("", relative, &ret->text);
    if (r == -ENOMEM)
        return err_set(e, ENOMEM, "read 'filename'");
    if (r < 0 || !*ret->text)
        return err_refuse(e, PROTO_INVALID_PATH,
            "'filename' must name a file of the workspace, such as main.py or src/main.py");
    ret->what = EXEC_FILE;
    return 0;
}

static int parse_command(json_t *command, json_t *body, struct exec_request *ret, struct err *e)
{
    int r;
    if (json_is_array(command)) {
        r = body_texts(body, "command", EXEC_ARGS_MAX, &ret->argv, e);
        if (r == 1 && (!ret->argv[0] || !*ret->argv[0]))
            return err_refuse(e, PROTO_INVALID_VALUE, "'command' must name a program first");
        ret->what = EXEC_ARGV;
    } else {
        r = body_text(body, "command", COMMAND_MAX, &ret->text, e);
        ret->what = EXEC_SHELL;
    }
    return r < 0 ? r : 0;
}

static int parse_what(json_t *body, struct exec_request *ret, struct err *e)
{
    static const char *const ways[] = {"filename", "command", "code"};
    const char *way = NULL;
    size_t given = 0;
    for (size_t i = 0; i < 3; i++) {
        json_t *value = json_object_get(body, ways[i]);
        if (value && !json_is_null(value)) {
            way = ways[i];
            given++;
        }
    }
    if (given != 1)
        return err_refuse(e, PROTO_INVALID_VALUE,
            "give exactly one of 'filename', 'command' and 'code', for example "
            "{\"filename\":\"main.py\"}");
    if (strcmp(way, "filename") == 0)
        return parse_file(body, ret, e);
    if (strcmp(way, "command") == 0)
        return parse_command(json_object_get(body, way), body, ret, e);
    ret->what = EXEC_CODE;
    int r = body_text(body, "code", EXEC_CODE_MAX, &ret->text, e);
    if (r >= 0 && !ret->language)
        return err_refuse(e, PROTO_UNKNOWN_LANGUAGE,
            "'code' needs a language: give the sandbox one, PATCH it with "
            "{\"language\":\"python\"}");
    return r < 0 ? r : 0;
}

static int parse_cwd(json_t *body, struct exec_request *ret, struct err *e)
{
    CLEANUP(freep) char *cwd = NULL;
    int r = body_text(body, "cwd", PATH_BYTES_MAX, &cwd, e);
    if (r < 0)
        return r;
    const char *relative = cwd ? cwd : "";
    if (strncmp(relative, "/workspace", 10) == 0 && (relative[10] == '/' || relative[10] == '\0'))
        relative += relative[10] == '/' ? 11 : 10;
    r = *relative ? path_resolve("", relative, &ret->cwd) : (ret->cwd = strdup("")) ? 0 : -ENOMEM;
    if (r == -ENOMEM)
        return err_set(e, ENOMEM, "read 'cwd'");
    if (r < 0)
        return err_refuse(e, PROTO_INVALID_PATH, "'cwd' must be a folder of the workspace");
    return 0;
}

static int parse_after(json_t *body, struct exec_request *ret, struct err *e)
{
    static const char *const known[] = {"client", "seq", NULL};
    json_t *after = json_object_get(body, "after");
    if (!after || json_is_null(after))
        return 0;
    CLEANUP(freep) char *client = NULL;
    int r = body_known(after, "'after'", known, e);
    if (r == 0)
        r = body_text(after, "client", CHANGES_CLIENT_MAX, &client, e);
    if (r == 0 || (r == 1 && !*client))
        return err_refuse(e, PROTO_INVALID_VALUE, "'after' needs the change set's 'client'");
    if (r == 1)
        r = body_number(after, "seq", 1, INT64_MAX, &ret->seq, e);
    if (r == 0)
        return err_refuse(e, PROTO_INVALID_VALUE, "'after' needs the change set's 'seq'");
    if (r < 0)
        return r;
    (void)snprintf(ret->client, sizeof(ret->client), "%s", client);
    return 0;
}

static const char *const view_names[] = {
    [EXEC_LIVE] = "live", [EXEC_SNAPSHOT] = "snapshot", NULL};
static const char *const keep_names[] = {[EXEC_KEEP_ALWAYS] = "always",
    [EXEC_KEEP_ON_SUCCESS] = "on_success",
    [EXEC_KEEP_NEVER] = "never",
    NULL};

const char *exec_view_name(enum exec_view view)
{
    return view_names[view];
}

const char *exec_keep_name(enum exec_keep keep)
{
    return keep_names[keep];
}

/* 1 and the index of the name, 0 if the member is missing. */
static int parse_choice(json_t *body, const char *name, const char *const *choices, unsigned *ret,
    struct err *e)
{
    CLEANUP(freep) char *text = NULL;
    int r = body_text(body, name, 32, &text, e);
    for (unsigned i = 0; r == 1 && choices[i]; i++) {
        if (strcmp(text, choices[i]) == 0) {
            *ret = i;
            return 1;
        }
    }
    if (r < 1)
        return r;
    return err_refuse(e, PROTO_INVALID_VALUE, "'%s' is \"%s\"%s%s%s%s\", not '%.32s'", name,
        choices[0], choices[2] ? ", \"" : " or \"", choices[1], choices[2] ? "\" or \"" : "",
        choices[2] ? choices[2] : "", text);
}

/* What is not kept in any case must not be made in the workspace. */
static int parse_view(json_t *body, struct exec_request *ret, struct err *e)
{
    unsigned view = EXEC_LIVE, keep = EXEC_KEEP_ALWAYS;
    int given = parse_choice(body, "view", view_names, &view, e);
    int r = given < 0 ? given : parse_choice(body, "keep", keep_names, &keep, e);
    if (r < 0)
        return r;
    if (keep != EXEC_KEEP_ALWAYS && given == 1 && view == EXEC_LIVE)
        return err_refuse(e, PROTO_INVALID_VALUE,
            "'keep': '%s' needs 'view': 'snapshot': a live run writes into the workspace itself",
            keep_names[keep]);
    ret->view = keep != EXEC_KEEP_ALWAYS ? EXEC_SNAPSHOT : (enum exec_view)view;
    ret->keep = (enum exec_keep)keep;
    return 0;
}

/* true, or the size of the terminal. */
static int parse_tty(json_t *body, struct exec_request *ret, struct err *e)
{
    static const char *const known[] = {"rows", "cols", "input", NULL};
    json_t *tty = json_object_get(body, "tty");
    ret->rows = 24;
    ret->cols = 80;
    if (!json_is_object(tty)) {
        int r = body_bool(body, "tty", &ret->tty, e);
        return r < 0 ? r : 0;
    }
    ret->tty = true;
    int r = body_known(tty, "'tty'", known, e);
    if (r >= 0)
        r = body_number(tty, "rows", 1, 10000, &ret->rows, e);
    if (r >= 0)
        r = body_number(tty, "cols", 1, 10000, &ret->cols, e);
    if (r >= 0)
        r = body_bool(tty, "input", &ret->tty_input, e);
    return r < 0 ? r : 0;
}

/* After the terminal. */
static int parse_stdin(
    json_t *body, const struct exec_base *base, struct exec_request *ret, struct err *e)
{
    int r = body_bytes(body, "stdin", base->config->json_bytes, &ret->stdin_bytes, e);
    ret->has_stdin = r == 1;
    if (r >= 0)
        r = body_bool(body, "stdin_stream", &ret->stdin_stream, e);
    ret->stdin_stream |= ret->tty_input;
    if (r >= 0 && ret->has_stdin && ret->stdin_stream)
        return err_refuse(e, PROTO_INVALID_VALUE,
            "'stdin' is the whole input and 'stdin_stream' says that it comes later: give one of them");
    return r < 0 ? r : 0;
}

static int parse_flow(json_t *body, struct exec_request *ret, struct err *e)
{
    ret->queue_ms = EXEC_QUEUE_MS;
    int r = body_bool(body, "detach", &ret->detach, e);
    if (r >= 0)
        r = body_bool(body, "stream", &ret->stream, e);
    if (r >= 0)
        r = body_number(body, "queue_ms", 0, 24u * 3600 * 1000, &ret->queue_ms, e);
    if (r >= 0) {
        r = body_number(body, "wait_ms", 0, EXEC_WAIT_MS_MAX, &ret->wait_ms, e);
        ret->has_wait = r == 1;
    }
    if (r >= 0)
        r = body_number(body, "grace_ms", 0, EXEC_GRACE_MS_MAX, &ret->grace_ms, e);
    if (r < 0)
        return r;
    if (ret->detach)
        ret->grace_ms = 0;
    json_t *changes = json_object_get(body, "changes");
    if (changes && !json_is_null(changes)) {
        if (!json_is_object(changes))
            return err_refuse(e, PROTO_INVALID_VALUE, "'changes' must be an object with 'ops'");
        ret->changes = json_incref(changes);
    }
    return 0;
}

/* The sandbox's word first, the request's last. What is stored was checked when it came. */
static int merge_env(
    json_t *body, const struct exec_base *base, struct exec_request *ret, struct err *e)
{
    json_t *own = json_object_get(body, "env");
    int r = own && !json_is_null(own) ? body_env(own, e) : 0;
    if (r < 0)
        return r;
    json_t *stored = json_loads(base->env_json, JSON_REJECT_DUPLICATES, NULL);
    r = stored ? body_env_add(stored, &ret->env) : 0;
    json_decref(stored);
    if (r == 0 && own && !json_is_null(own))
        r = body_env_add(own, &ret->env);
    return r < 0 ? err_set(e, -r, "read 'env'") : 0;
}

static int merge_limits(
    json_t *body, const struct exec_base *base, struct exec_request *ret, struct err *e)
{
    json_t *own = json_object_get(body, "limits");
    json_t *stored = json_loads(base->limits_json, JSON_REJECT_DUPLICATES, NULL);
    ret->limits = base->config->limits;
    /* A sandbox from before the maxima were lowered may hold more than is allowed by now. */
    int r = stored ? body_limits(stored, &base->config->limits_max, &ret->limits, e) : 0;
    json_decref(stored);
    if (r == 0 && own && !json_is_null(own))
        r = body_limits(own, &base->config->limits_max, &ret->limits, e);
    return r;
}

static int parse_rest(
    json_t *body, const struct exec_base *base, struct exec_request *ret, struct err *e)
{
    json_t *network = json_object_get(body, "network"), *labels = json_object_get(body, "labels");
    int r = parse_cwd(body, ret, e);
    if (r == 0)
        r = parse_after(body, ret, e);
    if (r == 0)
        r = parse_view(body, ret, e);
    if (r == 0)
        r = parse_tty(body, ret, e);
    if (r == 0)
        r = parse_flow(body, ret, e);
    if (r == 0)
        r = merge_env(body, base, ret, e);
    if (r == 0)
        r = merge_limits(body, base, ret, e);
    if (r == 0 && network && !json_is_null(network))
        r = body_network(network, e);
    if (r == 0 && labels && !json_is_null(labels)) {
        r = body_labels(labels, e);
        ret->labels = r == 0 ? json_incref(labels) : NULL;
    }
    return r;
}

int exec_request_parse(
    json_t *body, const struct exec_base *base, struct exec_request *ret, struct err *e)
{
    static const char *const known[] = {"filename", "command", "code", "args", "stdin",
        "stdin_base64", "stdin_stream", "env", "cwd", "limits", "network", "after", "wait_ms", "changes",
        "detach", "queue_ms", "tty", "labels", "stream", "view", "keep", "grace_ms", NULL};
    *ret = (struct exec_request){.language = runtimes_by_name(base->language)};
    int r = body_known(body, "the request", known, e);
    if (r == 0)
        r = parse_what(body, ret, e);
    if (r == 0)
        r = parse_rest(body, base, ret, e);
    if (r == 0)
        r = body_texts(body, "args", EXEC_ARGS_MAX, &ret->args, e);
    if (r < 0)
        return r;
    r = parse_stdin(body, base, ret, e);
    ret->image = strdup(base->image && *base->image ? base->image : "host");
    if (r >= 0 && !ret->image)
        r = err_set(e, ENOMEM, "read the request");
    return r < 0 ? r : 0;
}

void exec_request_release(struct exec_request *r)
{
    free(r->text);
    free(r->image);
    free(r->cwd);
    body_texts_free(r->argv);
    body_texts_free(r->args);
    body_texts_free(r->env);
    if (r->has_stdin)
        buf_release(&r->stdin_bytes);
    json_decref(r->changes);
    json_decref(r->labels);
    *r = (struct exec_request){.language = NULL};
}

static bool add_word(struct buf *b, const char *word)
{
    return (b->len == 0 || buf_addc(b, ' ') == 0) && text_add_escaped(b, word) == 0;
}

void exec_request_display(const struct exec_request *r, char *out, size_t out_size)
{
    struct buf b;
    bool room = true;

    buf_init(&b, 8 * 1024);
    if (r->what == EXEC_CODE)
        room = add_word(&b, "(code)");
    else if (r->what != EXEC_ARGV)
        room = add_word(&b, r->text);
    for (size_t i = 0; room && r->what == EXEC_ARGV && r->argv[i]; i++)
        room = add_word(&b, r->argv[i]);
    for (size_t i = 0; room && r->args && r->args[i]; i++)
        room = add_word(&b, r->args[i]);
    /* A character that the end cuts in two is left out: the text goes into JSON. */
    size_t len = b.len < out_size ? b.len : text_utf8_whole(b.data, out_size - 1);
    if (len)
        memcpy(out, b.data, len);
    out[len] = '\0';
    buf_release(&b);
}
