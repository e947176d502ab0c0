/* SPDX-License-Identifier: MIT */
/* What siltd's settings name (runtime, folders, address), judged. Pure. */
#include "server/doctor_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "shared/num.h"

#include "shared/banned.h"

#define FEW_INODES 100000
#define FAILED_RUNS "every run fails"

/* Before these a program can get at the host by way of the runtime. Distributors mend older ones
 * ("1.1.5+ds1"), which a version cannot tell. */
static const struct {
    const char *name;
    unsigned major, minor, patch;
    const char *why;
} holes[] = {{"crun", 1, 4, 4, "CVE-2022-27650"}, {"runc", 1, 1, 12, "CVE-2024-21626"}};

static const char *hole_of(const char *engine)
{
    char name[32];
    unsigned v[3] = {0};
    if (strchr(engine, '+') || sscanf(engine, "%31s %u.%u.%u", name, &v[0], &v[1], &v[2]) < 3)
        return NULL;
    for (size_t i = 0; i < sizeof holes / sizeof holes[0]; i++) {
        unsigned w[3] = {holes[i].major, holes[i].minor, holes[i].patch};
        size_t k = 0;
        while (k < 2 && v[k] == w[k])
            k++;
        if (strcmp(holes[i].name, name) == 0 && v[k] < w[k])
            return holes[i].why;
    }
    return NULL;
}

bool doctor_setup_runtime(const struct doctor_facts *f, struct doctor_row *row)
{
    if (!*f->engine) {
        bool known = strcmp(f->runtime, "crun") == 0 || strcmp(f->runtime, "runc") == 0 ||
                     strcmp(f->runtime, "runsc") == 0;
        doctor_bad(row, DOCTOR_FAIL, "siltd does not start", "%s", f->runtime_error);
        if (f->docker)
            return doctor_mend(row,
                "apt-get install docker.io, siltd --docker-socket PATH --docker-image NAME; or: "
                "siltd --engine oci");
        if (f->runtime_errno != ENOENT && f->runtime_errno != EINVAL)
            return doctor_mend(row, "what is BAD or warn above; the runtime itself is there");
        return known && f->runtime_errno == ENOENT
                   ? doctor_mend(row, "apt-get install %s", f->runtime)
                   : doctor_mend(row, "apt-get install crun && siltd --runtime crun");
    }
    const char *hole = hole_of(f->engine);
    if (!hole && f->engine_cold)
        return doctor_ok(row,
            "%s: every container is made when it is wanted, without a terminal; the limits of "
            "memory "
            "and processes are loose",
            f->engine);
    if (!hole)
        return doctor_ok(row, "%s", f->engine);
    doctor_bad(
        row, DOCTOR_WARN, "a program may get out of its container", "%s has %s", f->engine, hole);
    return doctor_mend(
        row, "apt-get install --only-upgrade %.*s", (int)strcspn(f->engine, " "), f->engine);
}

bool doctor_setup_init(const struct doctor_facts *f, struct doctor_row *row)
{
    if (f->init_error)
        doctor_bad(
            row, DOCTOR_FAIL, "siltd does not start", "%s: %s", f->init, strerror(f->init_error));
    else if (!f->init_elf)
        doctor_bad(row, DOCTOR_FAIL, FAILED_RUNS, "%s is no program", f->init);
    else if (!f->init_static)
        doctor_bad(row, DOCTOR_FAIL, "runs in images without its libraries fail",
            "%s is not static", f->init);
    else if (!f->init_executable) {
        doctor_bad(row, DOCTOR_FAIL, FAILED_RUNS, "%s is not executable", f->init);
        return doctor_mend(row, "chmod 755 %s", f->init);
    } else
        return doctor_ok(row, "%s, static", f->init);
    return doctor_mend(row, "make install in silt's sources, or siltd --init PATH");
}

bool doctor_setup_container(const struct doctor_facts *f, struct doctor_row *row)
{
    if (f->tried && !*f->trial_error)
        return doctor_ok(row, "one was made, ran a program and is gone");
    if (!f->tried && !*f->trial_error)
        return false; /* runtime or silt-init has said why */
    doctor_bad(row, DOCTOR_FAIL, FAILED_RUNS, "%s", f->trial_error);
    return doctor_mend(row, "what is BAD or warn above; else siltd --log-level debug");
}

/* Debian's package of a language's program. */
static const char *package_of(const char *program)
{
    static const struct {
        const char *program, *package;
    } packages[] = {{"node", "nodejs"}, {"go", "golang-go"}, {"sh", "dash"},
        {"cc", "gcc libc6-dev"}, {"c++", "g++"}};
    for (size_t i = 0; i < sizeof packages / sizeof packages[0]; i++) {
        if (strcmp(packages[i].program, program) == 0)
            return packages[i].package;
    }
    return program;
}

bool doctor_setup_languages(const struct doctor_facts *f, struct doctor_row *row)
{
    char have[512] = "", lack[DOCTOR_NAMES_BYTES] = "", packages[DOCTOR_NAMES_BYTES] = "";
    for (size_t i = 0; i < f->language_count; i++) {
        char text[96];
        (void)snprintf(text, sizeof text, "%s%s%s", f->languages[i].name,
            *f->languages[i].version ? " " : "", f->languages[i].version);
        if (f->languages[i].there) {
            doctor_list(have, sizeof have, text);
            continue;
        }
        size_t len = strlen(packages);
        (void)snprintf(
            packages + len, sizeof packages - len, " %s", package_of(f->languages[i].program));
        doctor_list(lack, sizeof lack, f->languages[i].name);
    }
    if (!f->language_count)
        return false; /* without a runtime nobody was asked */
    if (!*lack)
        return doctor_ok(row, "%s", have);
    doctor_bad(row, DOCTOR_WARN, "their files are refused with interpreter_missing",
        "%s; not there: %s", *have ? have : "none", lack);
    if (f->docker)
        return doctor_mend(row, "siltd --docker-image with an image that has them");
    return doctor_mend(row, "apt-get install%s", packages);
}

bool doctor_setup_images(const struct doctor_facts *f, struct doctor_row *row)
{
    if (f->docker)
        return doctor_ok(row, "not used: programs are those of docker's image");
    if (!*f->images)
        return doctor_ok(row, "none: programs are the host's (siltd image import NAME FILE adds one)");
    if (f->images_error) {
        doctor_bad(row, DOCTOR_FAIL, "siltd does not start", "%s: %s", f->images,
            strerror(f->images_error));
        return doctor_mend(row, "mkdir -p %s", f->images);
    }
    if (*f->images_bad) {
        doctor_bad(row, DOCTOR_WARN, "runs that name them are refused", "%u in %s; not usable: %s",
            f->images_good, f->images, f->images_bad);
        return doctor_mend(
            row, "siltd image import NAME FILE makes one that is; by hand, in each: mkdir -p dev proc sys tmp "
                 "workspace cache (none may be a symlink)");
    }
    return doctor_ok(row, "%u in %s", f->images_good, f->images);
}

bool doctor_setup_data(const struct doctor_facts *f, struct doctor_row *row)
{
    const struct doctor_disk *both[] = {&f->data, &f->work};
    for (size_t i = 0; i < 2; i++) {
        const struct doctor_disk *d = both[i];
        char bytes[16];
        if (*d->error) {
            doctor_bad(row, DOCTOR_FAIL, "siltd does not start", "%s", d->error);
            return doctor_mend(row, "siltd --data-dir FOLDER, or: chown %s %s",
                f->root ? "root" : "$(id -u)", d->path);
        }
        if (d->remote) {
            doctor_bad(row, DOCTOR_WARN, "locks and renames of a network can lose the database",
                "%s is %s", d->path, d->fs);
            return doctor_mend(row, "siltd --data-dir FOLDER on a local disk");
        }
        if (d->free_bytes < f->min_free_bytes || d->free_inodes < FEW_INODES) {
            doctor_bad(row, DOCTOR_WARN, "change sets will be refused as no_space",
                "%s has %s free, for %" PRIu64 " files", d->path,
                num_human_bytes(d->free_bytes, bytes, sizeof bytes), d->free_inodes);
            return doctor_mend(
                row, "siltd --data-dir FOLDER on another disk, or free some: du -x %s", d->path);
        }
    }
    char bytes[16];
    return doctor_ok(row, "%s, %s, %s free", f->data.path, f->data.fs,
        num_human_bytes(f->data.free_bytes, bytes, sizeof bytes));
}

bool doctor_setup_files(const struct doctor_facts *f, struct doctor_row *row)
{
    if (*f->data.error || *f->work.error)
        return false;
    if (f->work.exchange && f->data.tmpfile)
        return doctor_ok(row, "%s exchanges names and has files without one", f->work.fs);
    /* Without an exchange it is three renames (shared/tree_place.c). */
    if (f->data.tmpfile)
        doctor_bad(row, DOCTOR_WARN, "a file that is replaced is missing for a moment",
            "%s has no RENAME_EXCHANGE", f->work.fs);
    else
        doctor_bad(row, DOCTOR_FAIL, "deltas, signatures and long outputs cannot be answered",
            "%s has no O_TMPFILE", f->data.fs);
    return doctor_mend(row, "siltd --data-dir FOLDER on ext4, XFS, btrfs or tmpfs");
}

bool doctor_setup_copies(const struct doctor_facts *f, struct doctor_row *row)
{
    if (*f->work.error)
        return false;
    return doctor_ok(row,
        f->work.reflink ? "%s shares blocks between files (reflink)"
                        : "%s has no reflink: what a delta keeps is copied",
        f->work.fs);
}

bool doctor_setup_quota(const struct doctor_facts *f, struct doctor_row *row)
{
    if (!f->root)
        return doctor_ok(row, "not used as an ordinary user");
    if (*f->work.error)
        return false;
    if (f->work.quota)
        return doctor_ok(row, "%s limits each sandbox by project", f->work.fs);
    doctor_bad(row, DOCTOR_WARN,
        "a sandbox's disk space is looked at while it runs, not limited by the kernel",
        "%s at %s does not count by project", f->work.fs, f->work.path);
    if (strcmp(f->work.fs, "ext4") == 0)
        return doctor_mend(row,
            "unmounted: tune2fs -O project,quota -Q prjquota DEVICE; then mount "
            "-o prjquota DEVICE %s",
            f->work.path);
    if (strcmp(f->work.fs, "xfs") == 0)
        return doctor_mend(row, "umount and mount -o prjquota DEVICE %s", f->work.path);
    return doctor_mend(row, "siltd --data-dir FOLDER on ext4 or XFS mounted with prjquota");
}

bool doctor_setup_port(const struct doctor_facts *f, struct doctor_row *row)
{
    if (f->port_error == 0)
        return doctor_ok(row, "%s is free", f->listen);
    if (f->port_error == EADDRINUSE && f->served)
        return doctor_ok(row, "%s is in use, and a siltd serves this data directory", f->listen);
    doctor_bad(
        row, DOCTOR_FAIL, "siltd does not start", "%s: %s", f->listen, strerror(f->port_error));
    if (f->port_error == EADDRINUSE)
        return doctor_mend(row, "ss -ltnp shows who has it; or siltd --listen 127.0.0.1:0");
    if (f->port_error == EACCES)
        return doctor_mend(row,
            "sysctl -w net.ipv4.ip_unprivileged_port_start=%s, or a port from 1024 on",
            strrchr(f->listen, ':') ? strrchr(f->listen, ':') + 1 : "0");
    return doctor_mend(row, "ip address lists this machine's; siltd --listen ADDRESS:PORT");
}

bool doctor_setup_access(const struct doctor_facts *f, struct doctor_row *row)
{
    if (!*f->access_error)
        return doctor_ok(row, f->token ? "whoever sends the token"
                                       : "this user, root and allow_users, on this machine");
    doctor_bad(row, DOCTOR_FAIL, "siltd does not start", "%s", f->access_error);
    return doctor_mend(
        row, "(umask 077; head -c 32 /dev/urandom | base64 > FILE) && siltd --token-file FILE");
}
