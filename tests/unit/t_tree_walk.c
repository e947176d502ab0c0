/* SPDX-License-Identifier: MIT */
/* shared/tree_walk: order, faults, depth, and trees that change under the walk. */
#include "tests/unit/tree_fixture.h"

#include <sys/resource.h>

#include "shared/path.h"

#include "shared/banned.h"

#define SEEN_BYTES_MAX (1u << 20)

/* What a walk saw, one "path" or "path!fault" a line, and what to do at which path. */
struct seen {
    struct fixture *f;
    struct buf text;
    size_t entries;
    size_t faults;
    int last_fault;
    const char *at; /* the path to act upon */
    enum tree_visit then;
    void (*act)(struct fixture *f);
};

static enum tree_visit see(const struct tree_entry *entry, void *ctx)
{
    struct seen *s = ctx;
    s->entries++;
    s->faults += entry->fault != 0;
    if (entry->fault != 0)
        s->last_fault = entry->fault;
    if (s->text.max > 0) {
        assert_int_equal(buf_adds(&s->text, entry->path), 0);
        assert_int_equal(
            entry->fault ? buf_addf(&s->text, "!%d ", entry->fault) : buf_addc(&s->text, ' '), 0);
    }
    assert_string_equal(entry->name, path_base(entry->path));
    if (s->at && strcmp(s->at, entry->path) == 0) {
        if (s->act)
            s->act(s->f);
        return s->then;
    }
    return TREE_VISIT_GO;
}

static void seen_init(struct seen *s, struct fixture *f)
{
    *s = (struct seen){.f = f};
    buf_init(&s->text, SEEN_BYTES_MAX);
}

static void assert_walk(struct fixture *f, struct seen *s, const char *path, const char *want)
{
    assert_int_equal(tree_walk(f->t, path, see, s, &f->e), 0);
    assert_string_equal(buf_str(&s->text), want);
    buf_reset(&s->text);
}

static void a_small_tree(struct fixture *f)
{
    make_dir(f->root, "b");
    put(f->root, "b/2", "", 0600);
    put(f->root, "b/10", "", 0600);
    make_dir(f->root, "b/c");
    put(f->root, "b/c/x", "", 0600);
    make_dir(f->root, "a");
    put(f->root, "a.c", "12", 0640);
    put(f->root, "B", "", 0600);
    put(f->root, "\xff", "", 0600);
    put(f->root, "\x01", "", 0600);
    assert_int_equal(symlinkat("../outside", f->root, "link"), 0);
    assert_int_equal(symlinkat(".", f->root, "loop"), 0);
    assert_int_equal(mkfifoat(f->root, "pipe", 0600), 0);
}

static void order_skip_and_stop(void **state)
{
    static const struct {
        const char *path, *at;
        enum tree_visit then;
        const char *want;
    } rows[] = {
        /* bytes, not letters or numbers; a directory before what it holds; no symlink followed */
        {"", NULL, 0, "\x01 B a a.c b b/10 b/2 b/c b/c/x link loop pipe \xff "},
        {"b", NULL, 0, "b/10 b/2 b/c b/c/x "},
        {"a", NULL, 0, ""},
        {"", "b", TREE_VISIT_SKIP, "\x01 B a a.c b link loop pipe \xff "},
        {"", "a.c", TREE_VISIT_SKIP, "\x01 B a a.c b b/10 b/2 b/c b/c/x link loop pipe \xff "},
        {"", "b/2", TREE_VISIT_STOP, "\x01 B a a.c b b/10 b/2 "},
        {"", "b", TREE_VISIT_STOP, "\x01 B a a.c b "},
    };
    struct fixture *f = *state;
    struct seen s;
    a_small_tree(f);
    seen_init(&s, f);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        s.at = rows[i].at;
        s.then = rows[i].then;
        assert_walk(f, &s, rows[i].path, rows[i].want);
    }
    buf_release(&s.text);
}

static void walks_that_cannot_begin(void **state)
{
    static const struct {
        const char *path;
        int want;
    } rows[] = {{"link", -ELOOP}, {"link/x", -ELOOP}, {"a.c", -ENOTDIR}, {"none", -ENOENT},
        {"pipe", -ENOTDIR}};
    struct fixture *f = *state;
    struct seen s = {.f = f};
    a_small_tree(f);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        assert_int_equal(tree_walk(f->t, rows[i].path, see, &s, &f->e), rows[i].want);
    assert_int_equal(s.entries, 0);
}

static enum tree_visit compare(const struct tree_entry *entry, void *ctx)
{
    struct fixture *f = ctx;
    struct tree_stat st;
    assert_int_equal(entry->fault, 0);
    assert_int_equal(tree_stat(f->t, entry->path, &st, &f->e), 0);
    /* up to the last member: what fills the struct up behind it is nobody's */
    assert_memory_equal(
        &st, &entry->stat, offsetof(struct tree_stat, whiteout) + sizeof(st.whiteout));
    struct stat lent = {.st_ino = 0};
    assert_int_equal(entry->dir_fd >= 0, st.kind == TREE_DIR);
    assert_int_equal(fstat(entry->dir_fd, &lent), entry->dir_fd >= 0 ? 0 : -1);
    assert_int_equal(lent.st_ino, entry->dir_fd >= 0 ? st.ino : 0);
    return TREE_VISIT_GO;
}

static void visits_tell_the_stat(void **state)
{
    struct fixture *f = *state;
    a_small_tree(f);
    assert_int_equal(tree_walk(f->t, "", compare, f, &f->e), 0);
}

static void tell_listing(const char *path, const struct tree_names *names, void *ctx)
{
    struct seen *s = ctx;
    assert_int_equal(buf_addf(&s->text, "[%s", path), 0);
    static const char *const asked[] = {"a.c", "A.C", "b", "a.cc", "2", ""};
    for (size_t i = 0; names && i < sizeof(asked) / sizeof(asked[0]); i++) {
        if (tree_names_may_have(names, asked[i]))
            assert_int_equal(buf_addf(&s->text, ":%s", asked[i]), 0);
    }
    assert_int_equal(buf_adds(&s->text, "] "), 0);
}

/* Each directory once, an empty one too, before what it holds; one that is skipped is not. */
static void listings_are_told(void **state)
{
    struct fixture *f = *state;
    struct seen s;
    a_small_tree(f);
    make_dir(f->root, "skipped");
    seen_init(&s, f);
    s.at = "skipped";
    s.then = TREE_VISIT_SKIP;
    assert_int_equal(tree_walk_listed(f->t, "", see, tell_listing, &s, &f->e), 0);
    assert_string_equal(buf_str(&s.text), "[:a.c:A.C:b] \x01 B a [a] a.c b [b:2] b/10 b/2 b/c "
                                          "[b/c] b/c/x link loop pipe skipped \xff ");
    buf_reset(&s.text);
    assert_int_equal(tree_walk_listed(f->t, "b/c", see, tell_listing, &s, &f->e), 0);
    assert_string_equal(buf_str(&s.text), "[b/c] b/c/x ");
    buf_release(&s.text);
}

/* Needs an identity that modes apply to: root's own would read everything. */
static void what_cannot_be_read_is_told(void **state)
{
    struct fixture *f = *state;
    struct tree_identity before;
    const struct tree_identity id = {
        .uid = geteuid() ? geteuid() : 231072, .gid = geteuid() ? getegid() : 231072};
    struct seen s;
    make_dir(f->root, "closed");
    put(f->root, "closed/f", "", 0600);
    make_dir(f->root, "listed"); /* may be listed but not entered */
    put(f->root, "listed/f", "", 0600);
    put(f->root, "z", "", 0);
    static const char *const owned[] = {"closed", "listed", "z", "."};
    for (size_t i = 0; i < sizeof(owned) / sizeof(owned[0]); i++)
        assert_int_equal(fchownat(f->root, owned[i], id.uid, id.gid, 0), 0);
    assert_int_equal(fchmodat(f->root, "closed", 0, 0), 0);
    assert_int_equal(fchmodat(f->root, "listed", 0400, 0), 0);
    seen_init(&s, f);
    assert_int_equal(tree_identity_enter(id, &before, &f->e), 0);
    int r = tree_walk(f->t, "", see, &s, &f->e);
    tree_identity_leave(before);
    assert_int_equal(r, 0);
    assert_string_equal(buf_str(&s.text), "closed!13 listed listed/f!13 z ");
    buf_release(&s.text);
    assert_int_equal(fchmodat(f->root, "listed", 0700, 0), 0);
    assert_int_equal(fchmodat(f->root, "closed", 0700, 0), 0);
}

/* A chain of `depth` directories named `name`, each with an empty file "f" where `files`. */
static void make_chain(int dir_fd, const char *name, size_t depth, bool files)
{
    int fd = fcntl(dir_fd, F_DUPFD_CLOEXEC, 0);
    for (size_t i = 0; i < depth; i++) {
        make_dir(fd, name);
        if (files)
            put(fd, "f", "", 0600);
        int next = openat(fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_true(next >= 0);
        (void)close(fd);
        fd = next;
    }
    (void)close(fd);
}

/* As deep as paths may be, and far deeper. */
static void depth_has_an_end(void **state)
{
    struct fixture *f = *state;
    struct seen s = {.f = f};
    make_chain(f->root, "d", PATH_DEPTH_MAX, false);
    assert_int_equal(tree_walk(f->t, "", see, &s, &f->e), 0);
    assert_int_equal(s.entries, PATH_DEPTH_MAX);
    assert_int_equal(s.faults, 0);
    s.entries = 0;
    assert_int_equal(tree_walk(f->t, "d/d/d", see, &s, &f->e), 0);
    assert_int_equal(s.entries, PATH_DEPTH_MAX - 3);

    make_chain(f->root, "e", 1000, false);
    s.entries = 0;
    assert_int_equal(tree_walk(f->t, "e/e", see, &s, &f->e), 0);
    assert_int_equal(s.entries, PATH_DEPTH_MAX - 2 + 1);
    assert_int_equal(s.faults, 1);
    assert_int_equal(s.last_fault, ENAMETOOLONG);
}

/* Names so long that the bytes run out before the depth. */
static void length_has_an_end(void **state)
{
    struct fixture *f = *state;
    struct seen s = {.f = f};
    char name[PATH_NAME_MAX + 1];
    memset(name, 'n', PATH_NAME_MAX);
    name[PATH_NAME_MAX] = '\0';
    make_chain(f->root, name, 20, false);
    assert_int_equal(tree_walk(f->t, "", see, &s, &f->e), 0);
    /* 16 names and their slashes are 4095 bytes. */
    assert_int_equal(s.entries, 17);
    assert_int_equal(s.faults, 1);
    assert_int_equal(s.last_fault, ENAMETOOLONG);
}

/* Deeper than the descriptors that a walk holds, with something left to visit on the way up, and
 * hardly any descriptors left in the process. */
static void descriptors_are_bounded(void **state)
{
    struct fixture *f = *state;
    struct seen s = {.f = f};
    struct rlimit old;
    make_chain(f->root, "d", 200, true);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    CLEANUP(fd_closep) int next = fcntl(f->root, F_DUPFD_CLOEXEC, 0);
    const struct rlimit few = {.rlim_cur = (rlim_t)next + 68, .rlim_max = old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    int r = tree_walk(f->t, "", see, &s, &f->e);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_int_equal(r, 0);
    assert_int_equal(s.entries, 400);
    assert_int_equal(s.faults, 0);
}

static void replace_it_by_a_symlink(struct fixture *f)
{
    assert_int_equal(renameat(f->root, "d/d", f->top_fd, "gone"), 0);
    assert_int_equal(symlinkat("../../outside", f->root, "d/d"), 0);
}

static void replace_it_by_another(struct fixture *f)
{
    assert_int_equal(renameat(f->root, "d/d", f->top_fd, "gone"), 0);
    make_dir(f->root, "d/d");
    make_dir(f->root, "d/d/x");
}

/* A directory whose descriptor was given up is opened again by its path: if that is another one by
 * then, the rest of it counts as vanished, and the walk goes on above it. */
static void swapped_while_deep_below(struct fixture *f, void (*act)(struct fixture *f))
{
    struct seen s;
    char deep[2 * 120];
    for (size_t i = 0; i < sizeof(deep); i++)
        deep[i] = i % 2 == 0 ? 'd' : '/';
    deep[sizeof(deep) - 1] = '\0';
    make_chain(f->root, "d", 120, true);
    put(f->root, "z", "", 0600);
    make_dir(f->root, "d/d/x");
    seen_init(&s, f);
    s.at = deep;
    s.act = act;
    s.then = TREE_VISIT_GO;
    assert_int_equal(tree_walk(f->t, "", see, &s, &f->e), 0);
    assert_int_equal(s.faults, 0);
    assert_null(strstr(buf_str(&s.text), "secret"));
    assert_null(strstr(buf_str(&s.text), " d/d/x "));
    assert_non_null(strstr(buf_str(&s.text), " d/f "));
    assert_non_null(strstr(buf_str(&s.text), " z "));
    buf_release(&s.text);
}

static void swapped_for_a_symlink_meanwhile(void **state)
{
    swapped_while_deep_below(*state, replace_it_by_a_symlink);
}

static void swapped_for_a_directory_meanwhile(void **state)
{
    swapped_while_deep_below(*state, replace_it_by_another);
}

static void remove_the_rest(struct fixture *f)
{
    assert_int_equal(unlinkat(f->root, "b", 0), 0);
    assert_int_equal(unlinkat(f->root, "c/x", 0), 0);
    assert_int_equal(unlinkat(f->root, "c", AT_REMOVEDIR), 0);
    make_dir(f->root, "b");
    put(f->root, "b/new", "", 0600);
}

static void empty_the_visited(struct fixture *f)
{
    assert_int_equal(unlinkat(f->root, "e/x", 0), 0);
    assert_int_equal(unlinkat(f->root, "e", AT_REMOVEDIR), 0);
}

static void what_vanishes_is_skipped(void **state)
{
    struct fixture *f = *state;
    struct seen s;
    put(f->root, "a", "", 0600);
    put(f->root, "b", "", 0600);
    make_dir(f->root, "c");
    put(f->root, "c/x", "", 0600);
    make_dir(f->root, "e");
    put(f->root, "e/x", "", 0600);
    put(f->root, "z", "", 0600);
    seen_init(&s, f);
    s.at = "a";
    s.act = remove_the_rest;
    assert_walk(f, &s, "", "a b b/new e e/x z "); /* b is a directory by the time of its visit */
    s.at = "e";
    s.act = empty_the_visited;
    assert_walk(f, &s, "", "a b b/new e z ");
    buf_release(&s.text);
}

/* Against somebody who swaps a directory and a symlink all the time. */
static enum tree_visit look_out(const struct tree_entry *entry, void *ctx)
{
    size_t *strange = ctx;
    *strange += strstr(entry->path, "secret") != NULL;
    *strange += entry->fault != 0 && entry->fault != EBUSY;
    *strange += strchr(entry->path, '/') && strcmp(entry->name, "inside") != 0;
    return TREE_VISIT_GO;
}

static void swapped_directories_are_not_followed(void **state)
{
    struct fixture *f = *state;
    size_t strange = 0;
    make_dir(f->root, "d");
    put(f->root, "d/inside", "", 0600);
    assert_int_equal(symlinkat("../outside", f->root, "evil"), 0);
    struct swapper swapper = {.dir_fd = f->root, .a = "d", .b = "evil"};
    swapper_start(&swapper);
    for (int i = 0; i < 5000; i++)
        assert_int_equal(tree_walk(f->t, "", look_out, &strange, &f->e), 0);
    swapper_stop(&swapper);
    assert_int_equal(strange, 0);
}

/* More names in one directory than one reading of it returns. */
static void wide_directories_are_sorted(void **state)
{
    struct fixture *f = *state;
    struct seen s;
    char last[16] = "";
    seen_init(&s, f);
    for (unsigned i = 0; i < 3000; i++) {
        char name[16];
        (void)snprintf(name, sizeof(name), "%x", (i * 2654435761u) >> 8);
        make_dir(f->root, name);
    }
    assert_int_equal(tree_walk(f->t, "", see, &s, &f->e), 0);
    assert_int_equal(s.entries, 3000);
    char *rest = (char *)s.text.data;
    for (size_t n = 0; n < 3000; n++) {
        char *end = strchr(rest, ' ');
        assert_non_null(end);
        *end = '\0';
        assert_true(strcmp(last, rest) < 0);
        (void)snprintf(last, sizeof(last), "%s", rest);
        rest = end + 1;
    }
    buf_release(&s.text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(order_skip_and_stop),
        FIXTURE_TEST(walks_that_cannot_begin),
        FIXTURE_TEST(visits_tell_the_stat),
        FIXTURE_TEST(listings_are_told),
        FIXTURE_TEST(what_cannot_be_read_is_told),
        FIXTURE_TEST(depth_has_an_end),
        FIXTURE_TEST(length_has_an_end),
        FIXTURE_TEST(descriptors_are_bounded),
        FIXTURE_TEST(swapped_for_a_symlink_meanwhile),
        FIXTURE_TEST(swapped_for_a_directory_meanwhile),
        FIXTURE_TEST(what_vanishes_is_skipped),
        FIXTURE_TEST(swapped_directories_are_not_followed),
        FIXTURE_TEST(wide_directories_are_sorted),
    };
    return FIXTURE_RUN(tests);
}
