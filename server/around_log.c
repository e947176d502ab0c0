/* SPDX-License-Identifier: MIT */
#include "server/around_log.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "shared/num.h"

#include "shared/banned.h"

#define ENDED "] Exiting with status: "
#define FAILED "] FATAL ERROR: "
#define AFTERWARDS "] Failure to execute command" /* the line behind a failure */
#define STATUS_DIGITS 5

/* The last line, without its end: where, and how long. */
static const char *last_line(const char *text, size_t *ret_len)
{
    size_t len = strlen(text);
    len -= len > 0 && text[len - 1] == '\n';
    const char *before = memrchr(text, '\n', len), *line = before ? before + 1 : text;
    *ret_len = len - (size_t)(line - text);
    return line;
}

static bool read_status(const char *line, size_t len, int *ret)
{
    static const char key[] = ENDED;
    char digits[STATUS_DIGITS + 1];
    uint64_t status;
    const char *at = memmem(line, len, key, sizeof key - 1);
    if (!at)
        return false;
    at += sizeof key - 1;
    size_t count = len - (size_t)(at - line);
    if (count > STATUS_DIGITS)
        return false;
    memcpy(digits, at, count);
    digits[count] = '\0';
    if (num_u64(digits, UINT16_MAX, &status) < 0)
        return false;
    *ret = (int)status;
    return true;
}

/* How the sentence ends says why a program could not be started; what is before may be its name. */
static int start_error(const char *sentence, size_t len)
{
    static const struct {
        const char *words;
        int code;
    } rows[] = {{": no such file or directory", ENOENT}, {": not a directory", ENOTDIR},
        {": permission denied", EACCES}, {": exec format error", ENOEXEC}};
    if (!memmem(sentence, len, "starting sandbox: ", strlen("starting sandbox: ")))
        return 0;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        size_t words = strlen(rows[i].words);
        if (len >= words && memcmp(sentence + len - words, rows[i].words, words) == 0)
            return rows[i].code;
    }
    return 0;
}

static void read_failure(const char *text, struct around_log *ret)
{
    size_t last_len;
    const char *sentence = strstr(text, FAILED), *last = last_line(text, &last_len);
    if (!sentence)
        return;
    sentence += strlen(FAILED);
    bool told = last > sentence && memmem(last, last_len, AFTERWARDS, strlen(AFTERWARDS));
    size_t len = told ? (size_t)(last - sentence) : strlen(sentence);
    len -= len > 0 && sentence[len - 1] == '\n';
    ret->exec_errno = start_error(sentence, len);
    (void)snprintf(ret->failure, sizeof ret->failure, "%.*s",
        (int)(len < sizeof ret->failure ? len : sizeof ret->failure), sentence);
    for (char *p = ret->failure; *p; p++) {
        if ((unsigned char)*p < ' ' || (unsigned char)*p >= 0x7f)
            *p = '?';
    }
}

void around_log_read(const char *text, struct around_log *ret)
{
    size_t len;
    const char *last = last_line(text, &len);
    *ret = (struct around_log){.ended = false};
    ret->ended = read_status(last, len, &ret->status);
    if (!ret->ended)
        read_failure(text, ret);
}
