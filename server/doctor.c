/* SPDX-License-Identifier: MIT */
#include "server/doctor_internal.h"

#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "shared/banned.h"

static const struct {
    const char *name;
    doctor_judge_fn *judge;
} checks[] = {
    {"user", doctor_host_user},
    {"kernel", doctor_host_kernel},
    {"calls", doctor_host_calls},
    {"namespaces", doctor_host_namespaces},
    {"user ns", doctor_host_userns},
    {"seccomp", doctor_host_seccomp},
    {"ptrace", doctor_host_ptrace},
    {"cgroups", doctor_host_cgroups},
    {"runtime", doctor_setup_runtime},
    {"silt-init", doctor_setup_init},
    {"container", doctor_setup_container},
    {"languages", doctor_setup_languages},
    {"images", doctor_setup_images},
    {"data", doctor_setup_data},
    {"files", doctor_setup_files},
    {"copies", doctor_setup_copies},
    {"quota", doctor_setup_quota},
    {"clock", doctor_host_clock},
    {"open files", doctor_host_descriptors},
    {"address", doctor_setup_port},
    {"access", doctor_setup_access},
};
_Static_assert(sizeof checks / sizeof checks[0] <= DOCTOR_ROWS_MAX, "a row for each check");

static const char *const verdicts[] = {"ok", "warn", "fail"};

size_t doctor_judge(const struct doctor_facts *f, struct doctor_row rows[DOCTOR_ROWS_MAX])
{
    size_t count = 0;
    for (size_t i = 0; i < sizeof checks / sizeof checks[0]; i++) {
        rows[count] = (struct doctor_row){.check = checks[i].name};
        count += checks[i].judge(f, &rows[count]);
    }
    return count;
}

bool doctor_failed(const struct doctor_row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (rows[i].verdict == DOCTOR_FAIL)
            return true;
    }
    return false;
}

static int print_json(const struct doctor_row *rows, size_t count, struct buf *b)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        const struct doctor_row *r = &rows[i];
        if (json_array_append_new(
                list, json_pack("{s:s, s:b, s:s, s:s, s:s, s:s}", "check", r->check, "good",
                          r->verdict != DOCTOR_FAIL, "verdict", verdicts[r->verdict], "text",
                          r->text, "cost", r->cost, "mend", r->mend)) < 0)
            break;
    }
    bool whole = json_array_size(list) == count;
    json_t *all = json_pack("{s:b, s:o}", "good", !doctor_failed(rows, count), "checks", list);
    CLEANUP(freep) char *text = whole && all ? json_dumps(all, JSON_COMPACT) : NULL;
    json_decref(all);
    return text ? buf_addf(b, "%s\n", text) : -ENOMEM;
}

int doctor_print(const struct doctor_row *rows, size_t count, bool json, struct buf *b)
{
    static const char *const words[] = {"ok", "warn", "BAD"}; /* as `silt doctor` has them */
    int r = json ? print_json(rows, count, b) : 0;
    for (size_t i = 0; !json && r == 0 && i < count; i++) {
        const struct doctor_row *row = &rows[i];
        r = buf_addf(b, "%-4s  %-10s  %s\n", words[row->verdict], row->check, row->text);
        if (r == 0 && *row->cost)
            r = buf_addf(b, "%18scost: %s\n", "", row->cost);
        if (r == 0 && *row->mend)
            r = buf_addf(b, "%18smend: %s\n", "", row->mend);
    }
    return r;
}

/* ---- for the judges */

bool doctor_ok(struct doctor_row *row, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(row->text, sizeof row->text, fmt, ap);
    va_end(ap);
    return true;
}

bool doctor_bad(
    struct doctor_row *row, enum doctor_verdict verdict, const char *cost, const char *fmt, ...)
{
    va_list ap;
    row->verdict = verdict;
    (void)snprintf(row->cost, sizeof row->cost, "%s", cost);
    va_start(ap, fmt);
    (void)vsnprintf(row->text, sizeof row->text, fmt, ap);
    va_end(ap);
    return true;
}

bool doctor_mend(struct doctor_row *row, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(row->mend, sizeof row->mend, fmt, ap);
    va_end(ap);
    return true;
}

void doctor_list(char *list, size_t size, const char *name)
{
    size_t len = strlen(list);
    if (len + strlen(name) + 3 <= size)
        (void)snprintf(list + len, size - len, "%s%s", len ? ", " : "", name);
}
