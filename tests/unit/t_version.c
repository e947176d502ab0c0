/* SPDX-License-Identifier: MIT */
/* What projects ask of their runtime's version: the demands, and the manifests that hold them. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "server/version.h"

#include "shared/banned.h"

#define NO_ANSWER (-EINVAL)

static void test_fits(void **state)
{
    static const struct {
        int (*fits)(const char *spec, const char *have);
        const char *spec, *have;
        int wanted;
    } rows[] = {
        {version_fits_python, ">=3.9", "3.11.2", 1},
        {version_fits_python, ">=3.12", "3.11.2", 0},
        {version_fits_python, ">=3.9,<3.11", "3.11.2", 0},
        {version_fits_python, ">=3.12,<4", "3.11.2", 0},
        {version_fits_python, ">= 3.9 , < 4", "3.11.2", 1},
        {version_fits_python, "~=3.10", "3.11.2", 1},
        {version_fits_python, "~=3.10.1", "3.11.2", 0},
        {version_fits_python, "==3.11.*", "3.11.2", 1},
        {version_fits_python, "==3.12.*", "3.11.2", 0},
        {version_fits_python, "!=3.11.2", "3.11.2", 0},
        {version_fits_python, ">3.11", "3.11.2", 1}, /* 3.11 is 3.11.0 */
        {version_fits_python, "==3.11", "3.11.2", 0},
        {version_fits_python, "^3.9", "3.11.2", NO_ANSWER}, /* another tool's */
        {version_fits_python, "", "3.11.2", NO_ANSWER},
        {version_fits_python, ">=3.12rc1", "3.11.2", NO_ANSWER},
        {version_fits_python, ">=", "3.11.2", NO_ANSWER},
        {version_fits_python, ">=3.9; x", "3.11.2", NO_ANSWER},
        {version_fits_python, ">=3.9", "unknown", NO_ANSWER},
        {version_fits_node, ">=18", "20.20.2", 1},
        {version_fits_node, ">=22", "20.20.2", 0},
        {version_fits_node, ">=18 <20", "20.20.2", 0},
        {version_fits_node, "^18.2 || ^20.1", "20.20.2", 1},
        {version_fits_node, "^18.2 || ^22", "20.20.2", 0},
        {version_fits_node, "20", "20.20.2", 1},
        {version_fits_node, "20.x", "20.20.2", 1},
        {version_fits_node, "v22.*", "20.20.2", 0},
        {version_fits_node, "~20.19", "20.20.2", 0},
        {version_fits_node, "~20.20.1", "20.20.2", 1},
        {version_fits_node, "^0.2.3", "0.3.0", 0},
        {version_fits_node, ">20", "20.20.2", 0}, /* npm: above all of 20 */
        {version_fits_node, "<=20", "20.20.2", 1},
        {version_fits_node, "18 - 20", "20.20.2", 1},
        {version_fits_node, "16 - 18", "20.20.2", 0},
        {version_fits_node, "*", "20.20.2", 1},
        {version_fits_node, ">= 21", "20.20.2", 0},
        {version_fits_node, "lts/*", "20.20.2", NO_ANSWER},
        {version_fits_node, "", "20.20.2", NO_ANSWER},
        {version_fits_node, ">=18,<20", "20.20.2", NO_ANSWER},
        {version_fits_go, "1.18", "1.19.8", 1},
        {version_fits_go, "1.19.9", "1.19.8", 0},
        {version_fits_go, "1.21", "1.19.8", 0},
        {version_fits_go, "1.21rc1", "1.19.8", NO_ANSWER},
        {version_fits_prefix, "3.11", "3.11.2", 1},
        {version_fits_prefix, "3.11.4", "3.11.2", 0},
        {version_fits_prefix, "3.12", "3.11.2", 0},
        {version_fits_prefix, "3.99999999999999999999", "3.11.2", NO_ANSWER},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int got = rows[i].fits(rows[i].spec, rows[i].have);
        if (got != rows[i].wanted)
            fail_msg("row %zu: '%s' and %s: %d, not %d", i, rows[i].spec, rows[i].have, got,
                rows[i].wanted);
    }
}

static void test_find(void **state)
{
    static const struct {
        const char *file, *text, *spec; /* NULL: none */
        unsigned line;
    } rows[] = {
        {"pyproject.toml",
            "[build-system]\n\n[project]\nname = 'x'\nrequires-python = \">=3.9\" # c\n", ">=3.9",
            5},
        {"pyproject.toml", "  [project]\r\n  requires-python='~=3.9'\r\n", "~=3.9", 2},
        {"pyproject.toml", "requires-python = \">=3.9\"\n", NULL, 0}, /* not in [project] */
        {"pyproject.toml", "[project]\n[tool.x]\nrequires-python = \">=3.9\"\n", NULL, 0},
        {"pyproject.toml", "[project]\nrequires-python = 3\n", NULL, 0},
        {"pyproject.toml", "[project]\nrequires-python = \">=3.9\n", NULL, 0},
        {"pyproject.toml", "[project]\nrequires-python = \"\x1b[31m\"\n", NULL, 0},
        {"pyproject.toml", "[project]\nrequires-python", NULL, 0},
        {"pyproject.toml", "", NULL, 0},
        {".python-version", "# here\n\n3.12.1 \n", "3.12.1", 3},
        {".python-version", "pypy3.9\n", NULL, 0},
        {"package.json", "{\n\"node\": 1,\n\"engines\": {\n  \"node\": \"^20\"}}", "^20", 4},
        {"package.json", "{\"engines\": {\"node\": 20}}", NULL, 0},
        {"package.json", "{\"engines\": [\"node\"]}", NULL, 0},
        {"package.json", "{\"engines\": {\"node\": \"^20\"}", NULL, 0},
        {"package.json", "not json", NULL, 0},
        {"go.mod", "module example.com/m // go 1.2\n\ngo 1.21 // so\n", "1.21", 3},
        {"go.mod", "module example.com/m\n", NULL, 0},
        {"go.mod", "go \n", NULL, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char spec[VERSION_SPEC_BYTES] = "";
        unsigned line = 0;
        bool found = false;
        for (size_t k = 0; k < version_source_count; k++) {
            if (strcmp(version_sources[k].file, rows[i].file) == 0)
                found = version_sources[k].find(rows[i].text, strlen(rows[i].text), spec, &line);
        }
        if (found != (rows[i].spec != NULL))
            fail_msg("row %zu: found '%s'", i, found ? spec : "nothing");
        if (found && (strcmp(spec, rows[i].spec) != 0 || line != rows[i].line))
            fail_msg("row %zu: '%s' in line %u", i, spec, line);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_fits), cmocka_unit_test(test_find)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
