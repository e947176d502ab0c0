/* SPDX-License-Identifier: MIT */
/*
 * What programs print, and the manifests of their projects. The first byte picks the language; the
 * rest is an output, and each manifest in turn. Whatever is said must be fit to be shown, and a
 * place a path that the workspace was asked for.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "server/diagnose.h"
#include "server/version.h"
#include "shared/path.h"
#include "shared/text.h"

#include "shared/banned.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool is_file(void *ctx, const char *path)
{
    (void)ctx;
    if (path_check(path, strlen(path)) != PATH_FINE)
        abort();
    return strlen(path) % 2 == 0;
}

static void shown(const char *text)
{
    if (!text_is_utf8(text, strlen(text)))
        abort();
    for (const char *p = text; *p; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const languages[] = {"python", "node", "go", "shell", "c", NULL};
    struct diagnosis d;
    if (size < 2 || size > DIAGNOSE_TAIL_BYTES)
        return 0;
    /* As the server has it: not followed by a NUL. */
    char *tail = malloc(size - 1);
    if (!tail)
        return 0;
    memcpy(tail, data + 1, size - 1);
    const struct diagnose_facts facts = {
        .language = languages[data[0] % (sizeof(languages) / sizeof(languages[0]))],
        .exit_code = data[0] & 0x80 ? 127 : 1,
        .tail = tail,
        .tail_len = size - 1,
        .folder = "a",
        .cwd = "",
        .exists = is_file,
    };
    if (diagnose(&facts, &d)) {
        shown(d.message);
        shown(d.subject);
        shown(d.file);
    }
    for (size_t i = 0; i < version_source_count; i++) {
        char spec[VERSION_SPEC_BYTES];
        unsigned line;
        if (version_sources[i].find(tail, size - 1, spec, &line)) {
            shown(spec);
            (void)version_sources[i].fits(spec, "3.11.2");
        }
    }
    free(tail);
    return 0;
}
