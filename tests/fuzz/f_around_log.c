/* SPDX-License-Identifier: MIT */
/*
 * The log of a runtime in which names of programs stand. A failure's name is the fuzzer's: whatever
 * it is, the program has not ended, since the runtime's own last line follows.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "server/around_log.h"

#include "shared/banned.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void shown(const char *text, size_t most)
{
    if (strnlen(text, most) == most)
        abort();
    for (const char *p = text; *p; p++) {
        if ((unsigned char)*p < ' ' || (unsigned char)*p >= 0x7f)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char head[] = "W] FATAL ERROR: starting sandbox: failed to load ",
                      tail[] = ": no such file or directory\nW] Failure to execute command, err: 1\n";
    struct around_log got;
    char *text = malloc(sizeof head + size + sizeof tail);
    if (!text || memchr(data, '\0', size)) {
        free(text);
        return 0;
    }
    memcpy(text, data, size);
    text[size] = '\0';
    around_log_read(text, &got);
    shown(got.failure, sizeof got.failure);
    if (got.ended && (got.exec_errno || *got.failure || got.status < 0 || got.status > 0xffff))
        abort();
    memcpy(text, head, sizeof head - 1);
    memcpy(text + sizeof head - 1, data, size);
    memcpy(text + sizeof head - 1 + size, tail, sizeof tail);
    around_log_read(text, &got);
    shown(got.failure, sizeof got.failure);
    if (got.ended || got.exec_errno == 0)
        abort();
    free(text);
    return 0;
}
