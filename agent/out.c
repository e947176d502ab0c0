/* SPDX-License-Identifier: MIT */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/app.h"
#include "shared/path.h"
#include "shared/text.h"

#include "shared/banned.h"

#define DIM "\x1b[2m"
#define RED "\x1b[31m"
#define PLAIN "\x1b[0m"

bool out_is_terminal(int fd)
{
    return isatty(fd) == 1;
}

static bool coloured(void)
{
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");

    return out_is_terminal(2) && !(no && *no) && !(term && strcmp(term, "dumb") == 0);
}

void out_note(const struct app *app, const char *fmt, ...)
{
    char text[2048];
    va_list ap;

    if (app->opt.json)
        return;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    fprintf(stderr, "%ssilt: %s%s\n", coloured() ? DIM : "", out_path(text), coloured() ? PLAIN : "");
}

bool out_ask(const struct app *app, bool unasked, const char *fmt, ...)
{
    char answer[16];
    va_list ap;

    if (app->opt.yes)
        return true;
    if (app->opt.json || !out_is_terminal(0) || !out_is_terminal(2))
        return unasked;
    va_start(ap, fmt);
    fprintf(stderr, "silt: ");
    (void)vfprintf(stderr, fmt, ap);
    fprintf(stderr, " %s ", unasked ? "[Y/n]" : "[y/N]");
    va_end(ap);
    if (!fgets(answer, sizeof(answer), stdin))
        return false;
    if (answer[0] == '\n')
        return unasked;
    return answer[0] == 'y' || answer[0] == 'Y';
}

void out_json(json_t *object)
{
    CLEANUP(freep) char *text = json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(12));

    json_decref(object);
    if (text)
        printf("%s\n", text);
    (void)fflush(stdout);
}

/* The server knows that the sandbox is gone, but not what to do about it here. */
static const char *way_on(const struct app *app, const struct err *e)
{
    bool gone = e->refusal == PROTO_SANDBOX_NOT_FOUND || e->refusal == PROTO_SANDBOX_DELETED;

    return app->linked && gone
               ? "; the files here are untouched: `silt init` links them to a new sandbox"
               : "";
}

void out_error(const struct app *app, const struct err *e)
{
    char message[sizeof(e->msg) + 128];

    (void)snprintf(message, sizeof(message), "%s%s", e->msg, way_on(app, e));
    if (!app->opt.json) {
        fprintf(stderr, "%ssilt: %s%s\n", coloured() ? RED : "", message, coloured() ? PLAIN : "");
        return;
    }
    const char *code = e->refusal != PROTO_OK   ? proto_error_info(e->refusal)->name
                       : e->code == ETIMEDOUT ? "timeout"
                                              : "local";
    json_t *object = json_pack(
        "{s:{s:s, s:s, s:i}}", "error", "code", code, "message", message, "errno", e->code);
    CLEANUP(freep) char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    fprintf(stderr, "%s\n",
        text ? text : "{\"error\":{\"code\":\"local\",\"message\":\"out of memory\"}}");
}

const char *out_path(const char *path)
{
    static char kept[4][4 * PATH_BYTES_MAX + 1];
    static unsigned at;
    char *out = kept[at++ % 4];
    struct buf b;

    buf_init(&b, sizeof(kept[0]) - 1);
    if (text_add_escaped(&b, path) < 0)
        buf_reset(&b);
    (void)snprintf(out, sizeof(kept[0]), "%s", buf_str(&b));
    buf_release(&b);
    return out;
}
