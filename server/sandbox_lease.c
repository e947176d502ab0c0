/* SPDX-License-Identifier: MIT */
/* The writer lease: one link between a project and a sandbox sends numbered sets at a time. */
#include <stdlib.h>
#include <string.h>

#include "server/sandbox_internal.h"

#include "shared/banned.h"

static size_t link_len(const char *client)
{
    return strcspn(client, ".");
}

int sandbox_lease_refuse(const struct sandbox *sb, struct err *e)
{
    return err_refuse(e, PROTO_LINKED_ELSEWHERE,
        "this sandbox is linked to %.100s%s%.100s: use --steal to take it over, or another sandbox",
        sb->writer_link, sb->writer_machine[0] ? " on machine " : "", sb->writer_machine);
}

/* Give the lease to link; sb->lock and turn are held. */
static int grant(
    struct sandbox *sb, const char *link, size_t len, const char *machine, struct err *e)
{
    struct store_sandbox row;
    char *new_link = strndup(link, len), *new_machine = strdup(machine);

    if (!new_link || !new_machine) {
        free(new_link);
        free(new_machine);
        return err_set(e, ENOMEM, "take the lease");
    }
    char *old_link = sb->writer_link, *old_machine = sb->writer_machine;
    sb->writer_link = new_link;
    sb->writer_machine = new_machine;
    sandbox_row(sb, &row);
    int r = store_sandbox_save(sb->all->config.store, &row, e);
    if (r < 0) {
        sb->writer_link = old_link;
        sb->writer_machine = old_machine;
        old_link = new_link;
        old_machine = new_machine;
    }
    free(old_link);
    free(old_machine);
    return r;
}

static bool has_lease(const struct sandbox *sb, const char *link, size_t len)
{
    return strlen(sb->writer_link) == len && memcmp(sb->writer_link, link, len) == 0;
}

static int lease_in_turn(struct sandbox *sb, const char *link, size_t len, const char *machine,
    bool steal, struct err *e)
{
    int r = 0;

    (void)pthread_mutex_lock(&sb->turn);
    (void)pthread_mutex_lock(&sb->lock);
    bool mine = has_lease(sb, link, len);
    if (!mine && sb->writer_link[0] && !steal)
        r = sandbox_lease_refuse(sb, e);
    else if (!mine || (machine[0] && strcmp(machine, sb->writer_machine) != 0))
        r = grant(sb, link, len, machine, e);
    (void)pthread_mutex_unlock(&sb->lock);
    (void)pthread_mutex_unlock(&sb->turn);
    return r;
}

int sandbox_lease(
    struct sandbox *sb, const char *link, const char *machine, bool steal, struct err *e)
{
    int r = sandbox_enter(sb, false, e);

    if (r < 0)
        return r;
    r = lease_in_turn(sb, link, link_len(link), machine, steal, e);
    sandbox_exit(sb);
    return r;
}

bool sandbox_lease_has(const struct sandbox *sb, const char *client)
{
    return has_lease(sb, client, link_len(client));
}

int sandbox_lease_check(struct sandbox *sb, const char *client, struct err *e)
{
    size_t len = link_len(client);

    (void)pthread_mutex_lock(&sb->lock);
    bool mine = has_lease(sb, client, len);
    (void)pthread_mutex_unlock(&sb->lock);
    return mine ? 0 : lease_in_turn(sb, client, len, "", false, e);
}
