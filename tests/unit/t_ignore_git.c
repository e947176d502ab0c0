/* SPDX-License-Identifier: MIT */
/* agent/ignore_git: core.excludesFile in a configuration of git, as far as it is understood. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/ignore_git.h"

#include "shared/banned.h"

static const struct {
    const char *text, *path;
} cases[] = {
    {"", NULL},
    {"[core]\n\texcludesFile = /etc/ignore\n", "/etc/ignore"},
    {"[core]\nexcludesfile=~/.ignore", "/home/u/.ignore"},
    {"[CORE] EXCLUDESFILE = /a", "/a"},                          /* on the section's line */
    {"[core]\nexcludesFile = /a\n[core]\nexcludesFile = /b\n", "/b"}, /* the last wins */
    {"[user]\nexcludesFile = /a\n", NULL},
    {"[core \"x\"]\nexcludesFile = /a\n", NULL}, /* a subsection is another */
    {"[corex]\nexcludesFile = /a\n[core", NULL},
    {"[core]\n[alias]\nexcludesFile = /a\n", NULL},
    {"[core]\nexcludesFile = \"/a b/c\" # said so\n", "/a b/c"},
    {"[core]\nexcludesFile = /a b ; said so\n", "/a b"},
    {"[core]\nexcludesFile = \"/a#b\"\n", "/a#b"},
    {"[core]\nexcludesFile = /a\\\\b\\\"c\n", "/a\\b\"c"},
    {"[core]\nexcludesFile = /a\\q\n", NULL},      /* no escape that git knows */
    {"[core]\nexcludesFile = /a\\", NULL},         /* cut off */
    {"[core]\nexcludesFile = relative/a\n", NULL}, /* relative to what? */
    {"[core]\nexcludesFile = ~other/a\n", NULL},
    {"[core]\nexcludesFile\n", NULL},
    {"[core]\nexcludesFileX = /a\n", NULL},
    {"[core]\n# excludesFile = /a\n; excludesFile = /b\n", NULL},
    {"[core]\r\n\texcludesFile = /a\r\n", "/a"},
    {"excludesFile = /a\n[core]\nx = [core]\n", NULL},
};

static void test_cases(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        /* In memory of its own size, so that reading past its end is seen. */
        size_t len = strlen(cases[i].text);
        char *text = malloc(len + 1);
        assert_non_null(text);
        memcpy(text, cases[i].text, len);
        text = realloc(text, len ? len : 1);
        char *path = ignore_git_excludes(text, len, "/home/u");
        if ((path == NULL) != (cases[i].path == NULL) || (path && strcmp(path, cases[i].path) != 0))
            fail_msg("case %zu: '%s' gives %s", i, cases[i].text, path ? path : "nothing");
        free(path);
        free(text);
    }
}

/* Whatever a file holds: it ends, and within its bytes. */
static void test_any_bytes(void **state)
{
    static const char alphabet[] = "[]core\nexcludesFile = /~\\\"#;\t\0]";
    uint32_t seed = 7;
    (void)state;
    for (size_t i = 0; i < 20000; i++) {
        size_t len = i % 61;
        char *text = malloc(len ? len : 1);
        assert_non_null(text);
        for (size_t k = 0; k < len; k++) {
            seed = seed * 1664525u + 1013904223u;
            text[k] = alphabet[(seed >> 16) % (sizeof(alphabet) - 1)];
        }
        free(ignore_git_excludes(text, len, NULL));
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_any_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
