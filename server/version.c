/* SPDX-License-Identifier: MIT */
#include "server/version.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "shared/banned.h"

#define PARTS 4
#define CLAUSES_MAX 16

/* ---- numbers */

struct version {
    unsigned part[PARTS];
    unsigned count;
    bool open; /* "3.11.*", "18.x", "*" */
};

/* The version at *text, which is moved behind it. */
static bool parse(const char **text, struct version *ret)
{
    const char *p = *text;
    *ret = (struct version){.count = 0};
    p += *p == 'v' || *p == 'V';
    while (ret->count < PARTS) {
        if (*p == '*' || *p == 'x' || *p == 'X') {
            ret->open = true;
            p++;
            break;
        }
        if (!isdigit((unsigned char)*p))
            return false;
        unsigned n = 0;
        for (; isdigit((unsigned char)*p) && n < 100000000; p++)
            n = n * 10 + (unsigned)(*p - '0');
        ret->part[ret->count++] = n;
        if (*p != '.')
            break;
        p++;
    }
    *text = p;
    return true;
}

static bool parse_all(const char *text, struct version *ret)
{
    return parse(&text, ret) && *text == '\0' && !ret->open;
}

/* By the first `count` parts; what one does not have is 0. */
static int compare(const struct version *a, const struct version *b, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (a->part[i] != b->part[i])
            return a->part[i] < b->part[i] ? -1 : 1;
    }
    return 0;
}

static const char *skip(const char *p, const char *what)
{
    return p + strspn(p, what);
}

/* ---- comparisons */

enum op { OP_GE, OP_LE, OP_NE, OP_EQ, OP_COMPATIBLE, OP_CARET, OP_TILDE, OP_GT, OP_LT, OP_NONE };

/* Longer ones first. */
static const struct {
    const char *text;
    enum op op;
} ops[] = {{"===", OP_EQ}, {">=", OP_GE}, {"<=", OP_LE}, {"!=", OP_NE}, {"==", OP_EQ},
    {"~=", OP_COMPATIBLE}, {"^", OP_CARET}, {"~", OP_TILDE}, {">", OP_GT}, {"<", OP_LT},
    {"=", OP_NONE}};

static enum op take_op(const char **text)
{
    for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
        size_t len = strlen(ops[i].text);
        if (strncmp(*text, ops[i].text, len) == 0) {
            *text += len;
            return ops[i].op;
        }
    }
    return OP_NONE;
}

/* npm's words for "not leaving the leftmost number that is not 0". */
static unsigned caret_parts(const struct version *want)
{
    for (unsigned i = 0; i < want->count; i++) {
        if (want->part[i] != 0)
            return i + 1;
    }
    return want->count;
}

static bool holds(
    enum op op, const struct version *have, const struct version *want, unsigned precision)
{
    int order = compare(have, want, precision);
    switch (op) {
    case OP_GE:
        return order >= 0;
    case OP_LE:
        return order <= 0;
    case OP_GT:
        return order > 0;
    case OP_LT:
        return order < 0;
    case OP_NE:
        return order != 0;
    case OP_COMPATIBLE:
        return order >= 0 && compare(have, want, want->count - 1) == 0;
    case OP_CARET:
        return order >= 0 && compare(have, want, caret_parts(want)) == 0;
    case OP_TILDE:
        return order >= 0 && compare(have, want, want->count > 1 ? 2 : 1) == 0;
    case OP_EQ:
    case OP_NONE:
        return order == 0;
    }
    return false;
}

int version_fits_python(const char *spec, const char *have)
{
    struct version h, want;
    bool fits = true;
    int clauses = 0;
    if (!parse_all(have, &h))
        return -EINVAL;
    for (const char *p = skip(spec, " \t"); *p; clauses++) {
        enum op op = take_op(&p);
        p = skip(p, " \t");
        if (clauses == CLAUSES_MAX || op == OP_NONE || op == OP_CARET || op == OP_TILDE ||
            !parse(&p, &want) || (op == OP_COMPATIBLE && want.count < 2) ||
            (want.open && op != OP_EQ && op != OP_NE))
            return -EINVAL;
        fits = fits && holds(op, &h, &want, want.open ? want.count : PARTS);
        p = skip(p, " \t");
        if (*p && *p != ',')
            return -EINVAL;
        p = skip(p, ", \t");
    }
    return clauses ? fits : -EINVAL;
}

/* One comparator, or "A - B"; what is not given of a version does not count. */
static int fits_comparator(const char **text, const struct version *have)
{
    struct version want, last;
    enum op op = take_op(text);
    *text = skip(*text, " \t");
    if (!parse(text, &want))
        return -EINVAL;
    const char *p = skip(*text, " \t");
    if (op == OP_NONE && p > *text && p[0] == '-' && p[1] == ' ') {
        p = skip(p + 1, " \t");
        if (!parse(&p, &last))
            return -EINVAL;
        *text = p;
        return holds(OP_GE, have, &want, want.count) && holds(OP_LE, have, &last, last.count);
    }
    if (want.count == 0)
        return 1;
    return holds(op, have, &want, op == OP_CARET || op == OP_TILDE ? PARTS : want.count);
}

int version_fits_node(const char *spec, const char *have)
{
    struct version h;
    bool any = false, all = true;
    const char *p = skip(spec, " \t");
    if (!parse_all(have, &h) || !*p)
        return -EINVAL;
    for (int i = 0; *p; i++) {
        if (strncmp(p, "||", 2) == 0) {
            any |= all;
            all = true;
            p = skip(p + 2, " \t");
            continue;
        }
        int fits = i < CLAUSES_MAX ? fits_comparator(&p, &h) : -EINVAL;
        if (fits < 0 || (*p && !strchr(" \t|", *p)))
            return -EINVAL;
        all &= fits == 1;
        p = skip(p, " \t");
    }
    return any || all;
}

int version_fits_go(const char *spec, const char *have)
{
    struct version h, want;
    if (!parse_all(have, &h) || !parse_all(spec, &want))
        return -EINVAL;
    return holds(OP_GE, &h, &want, PARTS);
}

int version_fits_prefix(const char *spec, const char *have)
{
    struct version h, want;
    if (!parse_all(have, &h) || !parse_all(spec, &want))
        return -EINVAL;
    return holds(OP_EQ, &h, &want, want.count);
}

/* ---- manifests */

/* The next line, without its end; false when there is none. */
static bool next_line(
    const char **text, size_t *left, const char **line, size_t *len, unsigned *number)
{
    if (*left == 0)
        return false;
    const char *end = memchr(*text, '\n', *left);
    size_t taken = end ? (size_t)(end - *text) + 1 : *left;
    *line = *text;
    *len = end ? taken - 1 : taken;
    if (*len > 0 && (*line)[*len - 1] == '\r')
        --*len;
    *text += taken;
    *left -= taken;
    ++*number;
    return true;
}

static bool take_spec(const char *from, size_t len, char spec[VERSION_SPEC_BYTES])
{
    if (len == 0 || len >= VERSION_SPEC_BYTES)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (from[i] < 0x20 || from[i] > 0x7e)
            return false;
    }
    memcpy(spec, from, len);
    spec[len] = '\0';
    return true;
}

/* requires-python = "…" in [project]. A reader of this one line; whatever else TOML allows there
 * (a multi-line string, a dotted key) is not found. */
static bool find_pyproject(
    const char *text, size_t len, char spec[VERSION_SPEC_BYTES], unsigned *ret_line)
{
    static const char key[] = "requires-python", table[] = "[project]";
    const char *line;
    size_t n;
    bool inside = false;
    *ret_line = 0;
    while (next_line(&text, &len, &line, &n, ret_line)) {
        while (n > 0 && (*line == ' ' || *line == '\t'))
            line++, n--;
        if (n > 0 && *line == '[')
            inside = n >= sizeof(table) - 1 && memcmp(line, table, sizeof(table) - 1) == 0;
        if (!inside || n < sizeof(key) || memcmp(line, key, sizeof(key) - 1) != 0)
            continue;
        const char *p = line + sizeof(key) - 1, *end = line + n;
        while (p < end && (*p == ' ' || *p == '\t' || *p == '='))
            p++;
        if (p == end || (*p != '"' && *p != '\''))
            return false;
        const char *close = memchr(p + 1, *p, (size_t)(end - p - 1));
        return close && take_spec(p + 1, (size_t)(close - p - 1), spec);
    }
    return false;
}

/* The first line that is no comment, if it is a number. */
static bool find_python_version(
    const char *text, size_t len, char spec[VERSION_SPEC_BYTES], unsigned *ret_line)
{
    const char *line;
    size_t n;
    *ret_line = 0;
    while (next_line(&text, &len, &line, &n, ret_line)) {
        while (n > 0 && isspace((unsigned char)line[n - 1]))
            n--;
        if (n > 0 && *line != '#')
            return isdigit((unsigned char)*line) && take_spec(line, n, spec);
    }
    return false;
}

static unsigned line_of(const char *text, size_t len, const char *first, const char *then)
{
    const char *at = memmem(text, len, first, strlen(first));
    unsigned line = 1;
    at = at ? memmem(at, (size_t)(text + len - at), then, strlen(then)) : NULL;
    for (const char *p = text; at && p < at; p++)
        line += *p == '\n';
    return at ? line : 0;
}

static bool find_engines(
    const char *text, size_t len, char spec[VERSION_SPEC_BYTES], unsigned *ret_line)
{
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    json_t *node = json_object_get(json_object_get(root, "engines"), "node");
    const char *value = json_string_value(node);
    bool found = value && take_spec(value, strlen(value), spec);
    json_decref(root);
    *ret_line = found ? line_of(text, len, "\"engines\"", "\"node\"") : 0;
    return found;
}

static bool find_go(const char *text, size_t len, char spec[VERSION_SPEC_BYTES], unsigned *ret_line)
{
    const char *line;
    size_t n;
    *ret_line = 0;
    while (next_line(&text, &len, &line, &n, ret_line)) {
        if (n < 4 || memcmp(line, "go ", 3) != 0)
            continue;
        size_t end = 3;
        while (end < n && !strchr(" \t/", line[end]))
            end++;
        return take_spec(line + 3, end - 3, spec);
    }
    return false;
}

const struct version_source version_sources[] = {
    {"python", "pyproject.toml", find_pyproject, version_fits_python, "requires-python"},
    {"python", ".python-version", find_python_version, version_fits_prefix, "Python"},
    {"node", "package.json", find_engines, version_fits_node, "engines.node"},
    {"go", "go.mod", find_go, version_fits_go, "go"},
};
const size_t version_source_count = sizeof(version_sources) / sizeof(version_sources[0]);
