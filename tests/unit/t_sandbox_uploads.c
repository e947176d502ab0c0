/* SPDX-License-Identifier: MIT */
/* Resumable uploads in a sandbox: cut off, too old, given back, there after a restart. */
#include "tests/unit/sandbox_fixture.h"

#include <stdlib.h>

#include "server/events.h"
#include "server/sandbox_uploads.h"

#include "shared/banned.h"

/* Gives a text in pieces of `step` bytes, then ends with `end`; may delete the sandbox before that.
 */
struct source {
    const char *text;
    size_t step, at;
    ssize_t end;
    struct sandbox *deletes;
    void (*meanwhile)(struct fixture *f, const char *id); /* while its second piece is waited for */
    struct fixture *f;
    const char *id;
};

static ssize_t give(void *ctx, void *data, size_t len)
{
    struct source *s = ctx;
    size_t left = strlen(s->text) - s->at, n = left < s->step ? left : s->step;
    n = n < len ? n : len;
    if (n == 0)
        return s->end;
    if (s->deletes && s->at > 0)
        assert_int_equal(sandbox_delete(s->deletes, NULL), 0);
    if (s->meanwhile && s->at > 0)
        s->meanwhile(s->f, s->id);
    memcpy(data, s->text + s->at, n);
    s->at += n;
    return (ssize_t)n;
}

static int send(struct fixture *f, const char *id, uint64_t offset, struct source source,
    struct sandbox_upload_state *ret, enum proto_error *ret_code)
{
    struct err e = ERR_INIT;
    int r = sandbox_upload_append(f->sb, id, offset, give, &source, ret, &e);
    *ret_code = e.refusal;
    return r;
}

static unsigned count_staged(const struct fixture *f)
{
    char name[256];
    unsigned count = 0;
    const struct dirent *d;
    (void)snprintf(name, sizeof(name), "%s/staging/%s", f->data, sandbox_id(f->sb));
    CLEANUP(dir_closep) DIR *dir = opendir(name);
    while (dir && (d = readdir(dir)) != NULL)
        count += d->d_name[0] != '.';
    return count;
}

static void test_cut_off(void **state)
{
    struct fixture *f = *state;
    struct sandbox_upload_state up, now;
    enum proto_error code;
    struct err e = ERR_INIT;
    assert_int_equal(sandbox_upload_create(f->sb, 9, NULL, &up, &e), 0);
    assert_int_equal(
        send(f, up.id, 0, (struct source){.text = "abcde", .step = 2, .end = -ECONNRESET}, &now,
            &code),
        -ECONNRESET);
    assert_int_equal(now.offset, 5); /* what came stays */
    assert_int_equal(
        send(f, up.id, 4, (struct source){.text = "efghi", .step = 9}, &now, &code), -EPROTO);
    assert_int_equal(code, PROTO_OFFSET_MISMATCH);
    assert_int_equal(send(f, up.id, 5, (struct source){.text = "fghi", .step = 1}, &now, &code), 0);
    assert_int_equal(now.offset, 9);
    assert_int_equal(
        send(f, up.id, 9, (struct source){.text = "j", .step = 1}, &now, &code), -EPROTO);
    assert_int_equal(code, PROTO_TOO_LARGE);
    assert_int_equal(now.offset, 9);
}

static void go_on(struct fixture *f, const char *id)
{
    struct sandbox_upload_state now;
    enum proto_error code;
    assert_int_equal(send(f, id, 2, (struct source){.text = "cd", .step = 2}, &now, &code), 0);
    assert_int_equal(now.offset, 4);
}

static void drop(struct fixture *f, const char *id)
{
    assert_int_equal(sandbox_upload_delete(f->sb, id, NULL), 0);
}

static void go_on_and_drop(struct fixture *f, const char *id)
{
    go_on(f, id);
    drop(f, id);
}

/* A client that vanished without a word is waited for; meanwhile it comes back. */
static void test_taken_over(void **state)
{
    static const struct {
        void (*meanwhile)(struct fixture *f, const char *id);
        uint64_t offset; /* of what is left; 0: nothing */
    } rows[] = {{go_on, 4}, {drop, 0}, {go_on_and_drop, 0}};
    struct fixture *f = *state;
    struct sandbox_upload_state up, now;
    enum proto_error code;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(sandbox_upload_create(f->sb, 6, NULL, &up, NULL), 0);
        struct source source = {
            .text = "abXY", .step = 2, .meanwhile = rows[i].meanwhile, .f = f, .id = up.id};
        assert_int_equal(send(f, up.id, 0, source, &now, &code), -EPROTO);
        assert_int_equal(code, PROTO_BUSY);
        int r = sandbox_upload_get(f->sb, up.id, &now, NULL);
        assert_int_equal(r == 0 ? now.offset : 0, rows[i].offset);
        assert_int_equal(count_staged(f), rows[i].offset > 0);
        if (r == 0)
            drop(f, up.id);
    }
    assert_int_equal(sandbox_upload_create(f->sb, 6, NULL, &up, NULL), 0);
    assert_int_equal(send(f, up.id, 0, (struct source){.text = "abcd", .step = 2}, &now, &code), 0);
    assert_int_equal(send(f, up.id, 4, (struct source){.text = "ef", .step = 2}, &now, &code), 0);
    assert_int_equal(now.offset, 6);
}

static void test_announced_hash(void **state)
{
    struct fixture *f = *state;
    struct sandbox_upload_state up, now;
    enum proto_error code;
    struct err e = ERR_INIT;
    struct hash hash;
    hash_buf("right", 5, &hash);
    assert_int_equal(sandbox_upload_create(f->sb, 5, &hash, &up, &e), 0);
    assert_int_equal(
        send(f, up.id, 0, (struct source){.text = "wrong", .step = 2}, &now, &code), -EPROTO);
    assert_int_equal(code, PROTO_HASH_MISMATCH);
    assert_int_equal(now.offset, 0);
    /* Nothing of the first attempt is left in the hash. */
    assert_int_equal(
        send(f, up.id, 0, (struct source){.text = "right", .step = 3}, &now, &code), 0);
    assert_int_equal(now.offset, 5);
}

static void test_age(void **state)
{
    struct fixture *f = *state;
    struct sandbox_upload_state up, other;
    struct err e = ERR_INIT;
    assert_int_equal(sandbox_upload_create(f->sb, 9, NULL, &up, &e), 0);
    assert_int_equal(sandbox_upload_create(f->sb, 9, NULL, &other, &e), 0);
    uint64_t last = up.used_ns > other.used_ns ? up.used_ns : other.used_ns;
    assert_int_equal(sandbox_uploads_expire(f->all, up.used_ns + SANDBOX_UPLOAD_AGE_NS - 1), 0);
    assert_int_equal(sandbox_uploads_expire(f->all, 1), 0); /* a clock that went back */
    assert_int_equal(count_staged(f), 2);
    assert_int_equal(sandbox_uploads_expire(f->all, last + SANDBOX_UPLOAD_AGE_NS), 2);
    assert_int_equal(count_staged(f), 0);
    assert_int_equal(sandbox_upload_get(f->sb, up.id, &up, &e), -EPROTO);
    assert_int_equal(e.refusal, PROTO_STAGE_NOT_FOUND);
}

static void test_bounds(void **state)
{
    struct fixture *f = *state;
    struct sandbox_upload_state up;
    struct err e = ERR_INIT;
    assert_int_equal(sandbox_upload_create(f->sb, CHANGES_FILE_MAX + 1, NULL, &up, &e), -EPROTO);
    assert_int_equal(e.refusal, PROTO_TOO_LARGE);
    assert_int_equal(sandbox_upload_create(f->sb, f->max_bytes + 1, NULL, &up, &e), -EPROTO);
    assert_int_equal(e.refusal, PROTO_NO_SPACE);
    /* Together. */
    assert_int_equal(sandbox_upload_create(f->sb, f->max_bytes - 1, NULL, &up, &e), 0);
    assert_int_equal(sandbox_upload_create(f->sb, 2, NULL, &up, &e), -EPROTO);
    assert_int_equal(e.refusal, PROTO_NO_SPACE);
    for (unsigned i = 1; i < SANDBOX_UPLOADS_MAX; i++)
        assert_int_equal(sandbox_upload_create(f->sb, 0, NULL, &up, &e), 0);
    assert_int_equal(sandbox_upload_create(f->sb, 0, NULL, &up, &e), -EPROTO);
    assert_int_equal(e.refusal, PROTO_BUSY);
    assert_int_equal(count_staged(f), SANDBOX_UPLOADS_MAX);
}

/* A sandbox is not held by an upload that goes on; its bytes come to nothing. */
static void test_deleted_meanwhile(void **state)
{
    struct fixture *f = *state;
    struct sandbox_upload_state up, now;
    enum proto_error code;
    struct err e = ERR_INIT;
    assert_int_equal(sandbox_upload_create(f->sb, 9, NULL, &up, &e), 0);
    assert_int_equal(
        send(f, up.id, 0, (struct source){.text = "abcdef", .step = 2, .deletes = f->sb}, &now,
            &code),
        -EPROTO);
    assert_int_equal(code, PROTO_SANDBOX_DELETED);
    assert_int_equal(sandbox_upload_create(f->sb, 9, NULL, &up, &e), -EPROTO);
    /* Whoever follows is told, last of all. */
    struct event event;
    uint64_t after = 0, count = 0;
    while (events_next(sandbox_events(f->sb), &after, &event, 0) == EVENTS_ONE)
        count++;
    assert_int_equal(count, 1);
    assert_int_equal(event.kind, EVENT_DELETED);
    assert_int_equal(events_next(sandbox_events(f->sb), &after, &event, 0), EVENTS_END);
}

/* Close the server's sandboxes and open them again. */
static void restart(struct fixture *f)
{
    struct err e = ERR_INIT;
    char id[SANDBOX_ID_BYTES];
    (void)snprintf(id, sizeof(id), "%s", sandbox_id(f->sb));
    fixture_close(f);
    fixture_open(f);
    assert_int_equal(sandbox_get(f->all, id, &f->sb, &e), 0);
}

static void make_staged(const struct fixture *f, const char *name, const char *text)
{
    char path[512];
    (void)snprintf(path, sizeof(path), "%s/staging/%s/%s", f->data, sandbox_id(f->sb), name);
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void test_restart(void **state)
{
    struct fixture *f = *state;
    struct sandbox_upload_state up, plain, now;
    enum proto_error code;
    struct err e = ERR_INIT;
    struct hash hash;
    hash_buf("abcde", 5, &hash);
    assert_int_equal(sandbox_upload_create(f->sb, 5, &hash, &up, &e), 0);
    assert_int_equal(sandbox_upload_create(f->sb, 9, NULL, &plain, &e), 0);
    assert_int_equal(
        send(f, up.id, 0, (struct source){.text = "abc", .step = 5, .end = -EPIPE}, &now, &code),
        -EPIPE);
    restart(f);
    assert_int_equal(sandbox_upload_get(f->sb, plain.id, &now, &e), 0);
    assert_true(now.size == 9 && now.offset == 0 && !now.has_hash);
    assert_int_equal(sandbox_upload_get(f->sb, up.id, &now, &e), 0);
    assert_true(now.size == 5 && now.offset == 3 && now.has_hash && hash_equal(&now.hash, &hash));
    /* What came before counts for the hash. */
    assert_int_equal(send(f, up.id, 3, (struct source){.text = "de", .step = 1}, &now, &code), 0);
    assert_int_equal(now.offset, 5);
    restart(f);
    assert_int_equal(sandbox_upload_delete(f->sb, up.id, &e), 0);
    assert_int_equal(count_staged(f), 1);
}

static void test_restart_wrong_content(void **state)
{
    struct fixture *f = *state;
    struct sandbox_upload_state up, now;
    enum proto_error code;
    struct err e = ERR_INIT;
    struct hash hash;
    hash_buf("abcde", 5, &hash);
    assert_int_equal(sandbox_upload_create(f->sb, 5, &hash, &up, &e), 0);
    assert_int_equal(
        send(f, up.id, 0, (struct source){.text = "xbc", .step = 5, .end = -EPIPE}, &now, &code),
        -EPIPE);
    restart(f);
    assert_int_equal(
        send(f, up.id, 3, (struct source){.text = "de", .step = 1}, &now, &code), -EPROTO);
    assert_int_equal(code, PROTO_HASH_MISMATCH);
    assert_int_equal(now.offset, 0);
}

/* A directory that a crash or somebody else left: only whole names are uploads, within the bounds. */
static void test_what_is_found(void **state)
{
    static const char id[] = "st_n7ig4r72obuybe5khe5xihwggg";
    struct fixture *f = *state;
    struct sandbox_upload_state now;
    struct err e = ERR_INIT;
    char name[64];
    assert_int_equal(sandbox_upload_create(f->sb, 1, NULL, &now, &e), 0);
    make_staged(f, "st_n7ig4r72obuybe5khe5xihwggg.3.", "more than three");
    for (int i = 0; i < SANDBOX_UPLOADS_MAX + 3; i++) {
        (void)snprintf(name, sizeof(name), "st_n7ig4r72obuybe5khe5xihwgg%c.3.", 'a' + i);
        if (name[28] != 'g')
            make_staged(f, name, "abc");
    }
    restart(f);
    assert_int_equal(sandbox_upload_get(f->sb, id, &now, &e), -EPROTO);
    assert_int_equal(count_staged(f), SANDBOX_UPLOADS_MAX);
    static const char *const none[] = {"st_x.3.", "st_n7ig4r72obuybe5khe5xihwggg.03.",
        "st_n7ig4r72obuybe5khe5xihwggg.3", "st_n7ig4r72obuybe5khe5xihwggg.-3.",
        "st_n7ig4r72obuybe5khe5xihwggg.3.xxh3-128:00", "1.2", "st_n7ig4r72obuybe5khe5xihwggg..",
        "st_n7ig4r72obuybe5khe5xihwggg.99999999999999999999."};
    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++)
        assert_false(sandbox_upload_is_file(none[i]));
    assert_true(sandbox_upload_is_file("st_n7ig4r72obuybe5khe5xihwggg.0."));
}

/* One that nobody asks for after a restart goes all the same. */
static void test_age_after_restart(void **state)
{
    struct fixture *f = *state;
    struct sandbox_upload_state up;
    struct err e = ERR_INIT;
    assert_int_equal(sandbox_upload_create(f->sb, 9, NULL, &up, &e), 0);
    restart(f);
    assert_int_equal(sandbox_uploads_expire(f->all, up.used_ns), 0);
    assert_int_equal(count_staged(f), 1);
    assert_int_equal(
        sandbox_uploads_expire(f->all, up.used_ns + SANDBOX_UPLOAD_AGE_NS + 1000000000), 1);
    assert_int_equal(count_staged(f), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_cut_off, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_taken_over, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_announced_hash, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_age, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_bounds, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_deleted_meanwhile, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_restart, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_restart_wrong_content, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_what_is_found, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_age_after_restart, fixture_setup, fixture_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
