/* SPDX-License-Identifier: MIT */
/* shared/changes: version 1 of the wire format, as the files in tests/golden/ fix it. Run from the
 * project's root. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "shared/changes.h"
#include "shared/io.h"
#include "shared/proto.h"

#include "tests/unit/t_changes_malformed.h"

#include "shared/banned.h"

#define BODY_MAX (8u << 20)

/* ---- values, bytes, listings */

struct sample {
    enum change_kind kind;
    const char *path, *to;
    enum change_base base;
    const char *base_of; /* text whose hash is the base */
    uint32_t mode;
    const char *result;
    const char *delta;
    size_t delta_len;
    const char *old_text, *new_text;
    bool recursive, keep;
    const char *stage;
};

static struct change_op op_of(const struct sample *s)
{
    struct change_op op = {.kind = s->kind,
        .path = s->path,
        .to = s->to,
        .base_kind = s->base,
        .mode = s->mode,
        .recursive = s->recursive,
        .keep = s->keep,
        .stage = s->stage};

    if (s->base_of)
        hash_buf(s->base_of, strlen(s->base_of), &op.base);
    if (s->result) {
        op.size = strlen(s->result);
        hash_buf(s->result, op.size, &op.hash);
        op.has_hash = true;
    }
    if (s->kind == CHANGE_PUT && !s->stage)
        op.content_len = op.size;
    if (s->delta)
        op.content_len = s->delta_len;
    if (s->old_text) {
        op.old_text = (const uint8_t *)s->old_text;
        op.old_len = strlen(s->old_text);
        op.new_text = (const uint8_t *)s->new_text;
        op.new_len = strlen(s->new_text);
    }
    return op;
}

static void encode(
    const struct changes_begin *begin, const struct sample *samples, size_t count, struct buf *b)
{
    struct changes_writer *w = changes_writer_new();

    assert_non_null(w);
    assert_int_equal(changes_write_begin(w, begin, b), 0);
    for (size_t i = 0; i < count; i++) {
        struct change_op op = op_of(&samples[i]);
        assert_int_equal(changes_write_op(w, &op, b), 0);
        const char *content = samples[i].delta ? samples[i].delta : samples[i].result;
        if (op.content_len)
            assert_int_equal(changes_write_data(w, content, op.content_len, b), 0);
    }
    assert_int_equal(changes_write_end(w, b), 0);
    changes_writer_free(w);
}

/* A source over memory, at most `step` bytes a call (0: as many as asked for). */
struct feeder {
    const uint8_t *p;
    size_t left, step;
    int fail; /* negative: returned at the end instead of 0 */
};

static ssize_t feeder_read(void *ctx, void *data, size_t len)
{
    struct feeder *f = ctx;
    size_t n = f->left < len ? f->left : len;

    if (f->step && n > f->step)
        n = f->step;
    if (n == 0 && f->fail)
        return f->fail;
    if (n)
        memcpy(data, f->p, n);
    f->p += n;
    f->left -= n;
    return (ssize_t)n;
}

static void add_hex(struct buf *b, const uint8_t *p, size_t len)
{
    if (len == 0)
        assert_int_equal(buf_addc(b, '-'), 0);
    for (size_t i = 0; i < len; i++)
        assert_int_equal(buf_addf(b, "%02x", p[i]), 0);
}

static void list_op(struct buf *b, const struct change_op *op)
{
    static const char *const bases[] = {"any", "absent", "", "dir"};
    char text[HASH_TEXT_BYTES];

    assert_int_equal(
        buf_addf(b, "%s path=%s base=%s", change_kind_name(op->kind), op->path,
            op->base_kind == CHANGE_BASE_HASH ? hash_text(&op->base, text) : bases[op->base_kind]),
        0);
    if (op->recursive)
        assert_int_equal(buf_adds(b, " recursive"), 0);
    if (op->kind == CHANGE_PUT || op->kind == CHANGE_PATCH || op->kind == CHANGE_MKDIR ||
        op->kind == CHANGE_CHMOD)
        assert_int_equal(buf_addf(b, " mode=%04o", op->mode), 0);
    if (op->has_hash)
        assert_int_equal(
            buf_addf(b, " size=%" PRIu64 " hash=%s", op->size, hash_text(&op->hash, text)), 0);
    if (op->kind == CHANGE_EDIT) {
        assert_int_equal(buf_adds(b, " old="), 0);
        add_hex(b, op->old_text, op->old_len);
        assert_int_equal(buf_adds(b, " new="), 0);
        add_hex(b, op->new_text, op->new_len);
    }
    if (op->to)
        assert_int_equal(buf_addf(b, " to=%s", op->to), 0);
    if (op->stage)
        assert_int_equal(buf_addf(b, " stage=%s", op->stage), 0);
}

/* Everything the reader says, as the listing of the golden files; content in reads of `piece`
 * bytes, 0: left unread. Returns the reader's last word. */
static int decode(struct feeder *feeder, size_t piece, struct buf *b, struct err *e)
{
    struct changes_reader *r = changes_reader_new(feeder_read, feeder);
    struct changes_begin begin;
    struct change_op op;

    assert_non_null(r);
    int n = changes_read_begin(r, &begin, e);
    if (n == 0) {
        char gen[24] = "none";
        if (begin.if_generation != CHANGES_NO_GENERATION)
            (void)snprintf(gen, sizeof(gen), "%" PRIu64, begin.if_generation);
        assert_int_equal(
            buf_addf(b,
                "begin client=%s seq=%" PRIu64 " parent=%" PRIu64 " if_generation=%s epoch=%s\n",
                begin.client[0] ? begin.client : "-", begin.seq, begin.parent, gen,
                begin.epoch[0] ? begin.epoch : "-"),
            0);
    }
    while (n >= 0 && (n = changes_read_op(r, &op, e)) > 0) {
        uint8_t data[4096];
        ssize_t got = 0;
        size_t total = 0;
        list_op(b, &op);
        bool has_content = op.kind == CHANGE_PUT || op.kind == CHANGE_PATCH;
        if (has_content && piece) {
            assert_int_equal(buf_adds(b, op.content_len ? " content=" : " content=-"), 0);
            while ((got = changes_read_data(r, data, piece, e)) > 0) {
                add_hex(b, data, (size_t)got);
                total += (size_t)got;
            }
            assert_true(got < 0 || total == op.content_len);
        }
        assert_int_equal(buf_addc(b, '\n'), 0);
        if (got < 0)
            n = (int)got;
    }
    if (n == 0)
        assert_int_equal(buf_adds(b, "end\n"), 0);
    else
        assert_int_equal(changes_read_op(r, &op, NULL), n); /* a failure stays */
    changes_reader_free(r);
    return n;
}

/* ---- golden files */

#define CLIENT "abcdef.k7"
#define DELTA "\x72\x73\x02\x36\x45\x00\x05\x05, you\x45\x05\x01\x00"

static const struct sample mkdir_ = {
    .kind = CHANGE_MKDIR, .path = "dir", .base = CHANGE_BASE_ABSENT, .mode = 0755};
static const struct sample put = {.kind = CHANGE_PUT,
    .path = "src/a.py",
    .base = CHANGE_BASE_ABSENT,
    .mode = 0644,
    .result = "print(1)\n"};
static const struct sample patch = {.kind = CHANGE_PATCH,
    .path = "greeting",
    .base = CHANGE_BASE_HASH,
    .base_of = "hello\n",
    .result = "hello, you\n",
    .delta = DELTA,
    .delta_len = sizeof(DELTA) - 1};
static const struct sample edit = {
    .kind = CHANGE_EDIT, .path = "b.py", .old_text = "x = 1", .new_text = "x = 2"};
static const struct sample move = {.kind = CHANGE_MOVE, .path = "old name", .to = "dir/new name"};
static const struct sample copy = {.kind = CHANGE_COPY,
    .path = "greeting",
    .to = "again",
    .base = CHANGE_BASE_ABSENT,
    .result = "hello, you\n"};
static const struct sample symlink_ = {
    .kind = CHANGE_SYMLINK, .path = "link", .to = "../elsewhere"};
static const struct sample chmod_ = {.kind = CHANGE_CHMOD, .path = "run.sh", .mode = 0755};
static const struct sample delete = {
    .kind = CHANGE_DELETE, .path = "build", .base = CHANGE_BASE_DIR, .recursive = true};
static const struct sample staged = {.kind = CHANGE_PUT,
    .path = "model.bin",
    .base = CHANGE_BASE_ABSENT,
    .mode = 0644,
    .result = "weights\n",
    .stage = "st_n7ig4r72obuybe5khe5xihwggg"};
static const struct sample put_empty = {.kind = CHANGE_PUT,
    .path = "empty",
    .base = CHANGE_BASE_HASH,
    .base_of = "was here",
    .result = ""};
static const struct sample edit_away = {.kind = CHANGE_EDIT,
    .path = "b.py",
    .base = CHANGE_BASE_HASH,
    .base_of = "x = 1\n",
    .old_text = "x",
    .new_text = ""};

static const struct golden {
    const char *name;
    struct changes_begin begin;
    const struct sample *const *ops;
    size_t count;
} goldens[] = {
#define ONE(name, op)                                                                              \
    {                                                                                              \
        name, {CLIENT, 7, 6, CHANGES_NO_GENERATION, ""}, (const struct sample *const[]){&(op)}, 1  \
    }
    {"empty", {"", 0, 0, CHANGES_NO_GENERATION, ""}, NULL, 0},
    ONE("put", put),
    ONE("patch", patch),
    ONE("edit", edit),
    ONE("move", move),
    ONE("copy", copy),
    ONE("mkdir", mkdir_),
    ONE("symlink", symlink_),
    ONE("chmod", chmod_),
    ONE("delete", delete),
    ONE("staged", staged),
    {"combined", {CLIENT, 300, 258, 41, "ep_2x"},
        (const struct sample *const[]){&mkdir_, &put, &patch, &edit, &move, &copy, &symlink_,
            &chmod_, &delete, &put_empty, &edit_away},
        11},
};
#define GOLDENS (sizeof(goldens) / sizeof(goldens[0]))

static void encode_golden(const struct golden *g, struct buf *b)
{
    struct sample samples[16];

    for (size_t i = 0; i < g->count; i++)
        samples[i] = *g->ops[i];
    encode(&g->begin, samples, g->count, b);
}

static void add_hex_line(struct buf *bytes, const char *line)
{
    unsigned value;
    int used;

    while (sscanf(line, " %2x%n", &value, &used) == 1) {
        assert_int_equal(buf_add_u8(bytes, (uint8_t)value), 0);
        line += used;
    }
    assert_true(line[strspn(line, " ")] == '\0'); /* nothing but hexadecimal */
}

static void load_golden(const char *name, struct buf *bytes, struct buf *listing)
{
    char path[64];
    struct err e = ERR_INIT;
    struct buf text;

    (void)snprintf(path, sizeof(path), "tests/golden/changes-%s.txt", name);
    if (io_read_file(path, 1 << 20, &text, &e) < 0)
        fail_msg("%s (run from the project's root)", e.msg);
    for (char *line = (char *)text.data, *end; line && *line; line = end) {
        end = strchr(line, '\n');
        if (end)
            *end++ = '\0';
        if (line[0] == '=') {
            assert_int_equal(buf_addf(listing, "%s\n", line + 2), 0);
            continue;
        }
        char *comment = strchr(line, '#');
        if (comment)
            *comment = '\0';
        add_hex_line(bytes, line);
    }
    buf_release(&text);
}

static void test_golden(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < GOLDENS; i++) {
        struct buf stored, listing, encoded, decoded;
        struct err e = ERR_INIT;
        buf_init(&stored, BODY_MAX);
        buf_init(&listing, BODY_MAX);
        buf_init(&encoded, BODY_MAX);
        buf_init(&decoded, BODY_MAX);
        load_golden(goldens[i].name, &stored, &listing);
        encode_golden(&goldens[i], &encoded);
        if (encoded.len != stored.len || memcmp(encoded.data, stored.data, stored.len) != 0)
            fail_msg("%s: the values are written in other bytes now", goldens[i].name);
        struct feeder feeder = {.p = stored.data, .left = stored.len};
        if (decode(&feeder, 100, &decoded, &e) != 0)
            fail_msg("%s: %s", goldens[i].name, e.msg);
        assert_string_equal(buf_str(&decoded), buf_str(&listing));
        buf_release(&stored);
        buf_release(&listing);
        buf_release(&encoded);
        buf_release(&decoded);
    }
}

/* ---- every way of reading gives the same, and what is cut off is refused */

static void test_pieces(void **unused)
{
    static const size_t steps[] = {0, 1, 2, 7, 64};
    static const size_t pieces[] = {1, 5, 4096};
    const struct golden *g = &goldens[GOLDENS - 1];
    struct buf body, expected, decoded;
    struct err e = ERR_INIT;

    (void)unused;
    buf_init(&body, BODY_MAX);
    buf_init(&expected, BODY_MAX);
    buf_init(&decoded, BODY_MAX);
    encode_golden(g, &body);
    struct feeder whole = {.p = body.data, .left = body.len};
    assert_int_equal(decode(&whole, 100, &expected, &e), 0);
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
        for (size_t j = 0; j < sizeof(pieces) / sizeof(pieces[0]); j++) {
            struct feeder feeder = {.p = body.data, .left = body.len, .step = steps[i]};
            buf_reset(&decoded);
            assert_int_equal(decode(&feeder, pieces[j], &decoded, &e), 0);
            assert_string_equal(buf_str(&decoded), buf_str(&expected));
        }
    /* Content that nobody reads is skipped and still counts for the digest. */
    struct feeder feeder = {.p = body.data, .left = body.len, .step = 3};
    buf_reset(&decoded);
    assert_int_equal(decode(&feeder, 0, &decoded, &e), 0);
    buf_release(&body);
    buf_release(&expected);
    buf_release(&decoded);
}

static void test_every_cut_and_every_bit(void **unused)
{
    const struct golden *g = &goldens[GOLDENS - 1];
    struct buf body, decoded;

    (void)unused;
    buf_init(&body, BODY_MAX);
    buf_init(&decoded, BODY_MAX);
    encode_golden(g, &body);
    for (size_t cut = 0; cut < body.len; cut++)
        for (size_t piece = 0; piece < 2; piece++) {
            struct err e = ERR_INIT;
            struct feeder feeder = {.p = body.data, .left = cut};
            buf_reset(&decoded);
            if (decode(&feeder, piece * 100, &decoded, &e) != -EPROTO)
                fail_msg("cut at %zu of %zu", cut, body.len);
            assert_int_equal(e.refusal, PROTO_BAD_CHANGES);
        }
    for (size_t bit = 0; bit < body.len * 8; bit++) {
        struct err e = ERR_INIT;
        struct feeder feeder = {.p = body.data, .left = body.len};
        body.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        buf_reset(&decoded);
        if (decode(&feeder, 100, &decoded, &e) != -EPROTO)
            fail_msg("bit %zu of byte %zu", bit % 8, bit / 8);
        body.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    buf_release(&body);
    buf_release(&decoded);
}

static void test_source_that_fails(void **unused)
{
    struct buf body, decoded;

    (void)unused;
    buf_init(&body, BODY_MAX);
    buf_init(&decoded, BODY_MAX);
    encode_golden(&goldens[1], &body);
    for (size_t cut = 0; cut <= body.len; cut++) {
        struct err e = ERR_INIT;
        struct feeder feeder = {.p = body.data, .left = cut, .fail = -ECONNRESET};
        assert_int_equal(decode(&feeder, 3, &decoded, &e), -ECONNRESET);
        assert_int_equal(e.code, ECONNRESET);
        assert_int_equal(e.refusal, PROTO_OK);
    }
    buf_release(&body);
    buf_release(&decoded);
}

/* A file of several DATA frames, read past the reader's buffer, with the digest of the body. */
static void test_large_content(void **unused)
{
    const size_t size = 3 * CHANGES_DATA_MAX + 12345;
    uint8_t *content = malloc(size), *got = malloc(size);
    struct changes_begin begin = {CLIENT, 1, 0, CHANGES_NO_GENERATION, ""};
    struct change_op op = {
        .kind = CHANGE_PUT, .path = "big", .size = size, .has_hash = true, .content_len = size};
    struct changes_writer *w = changes_writer_new();
    struct hash digest, expected;
    struct err e = ERR_INIT;
    struct buf body;

    (void)unused;
    for (size_t i = 0; i < size; i++)
        content[i] = (uint8_t)(i * 2654435761u >> 13);
    hash_buf(content, size, &op.hash);
    buf_init(&body, BODY_MAX);
    assert_int_equal(changes_write_begin(w, &begin, &body), 0);
    assert_int_equal(changes_write_op(w, &op, &body), 0);
    assert_int_equal(changes_write_data(w, content, 1000, &body), 0);
    assert_int_equal(changes_write_end(w, &body), -EINVAL); /* content is missing */
    assert_int_equal(changes_write_data(w, content + 1000, size - 1000, &body), 0);
    assert_int_equal(changes_write_data(w, content, 1, &body), -EINVAL);
    assert_int_equal(changes_write_end(w, &body), 0);
    hash_buf(body.data, body.len - HASH_BYTES, &expected);

    struct feeder feeder = {.p = body.data, .left = body.len, .step = 100000};
    struct changes_reader *r = changes_reader_new(feeder_read, &feeder);
    struct changes_feed feed = changes_reader_feed(r);
    assert_int_equal(changes_read_begin(r, &begin, &e), 0);
    assert_int_equal(feed.next(feed.ctx, &op, &e), 1);
    for (size_t at = 0; at < size;) {
        ssize_t n = feed.read(feed.ctx, got + at, size - at, &e);
        assert_true(n > 0);
        at += (size_t)n;
    }
    assert_int_equal(feed.read(feed.ctx, got, 1, &e), 0);
    assert_memory_equal(got, content, size);
    assert_int_equal(feed.next(feed.ctx, &op, &e), 0);
    feed.digest(feed.ctx, &digest);
    assert_true(hash_equal(&digest, &expected));
    changes_reader_free(r);
    changes_writer_free(w);
    buf_release(&body);
    free(content);
    free(got);
}

/* ---- malformed bodies, frame by frame */

static void add_frame(struct buf *b, uint8_t type, const void *payload, size_t len)
{
    assert_int_equal(buf_add_u8(b, type), 0);
    assert_int_equal(buf_add_u32(b, (uint32_t)len), 0);
    if (len)
        assert_int_equal(buf_add(b, payload, len), 0);
}

static void add_ending(struct buf *b, uint32_t count, enum ending ending)
{
    struct hash digest;

    if (ending == END_NONE)
        return;
    assert_int_equal(buf_add_u8(b, 4), 0);
    assert_int_equal(buf_add_u32(b, ending == END_SHORT ? 19 : 20), 0);
    assert_int_equal(buf_add_u32(b, count + (ending == END_COUNT)), 0);
    hash_buf(b->data, b->len, &digest);
    digest.b[15] ^= ending == END_DIGEST;
    assert_int_equal(buf_add(b, digest.b, ending == END_SHORT ? 15 : 16), 0);
    if (ending == END_MORE)
        assert_int_equal(buf_addc(b, 0), 0);
}

static void test_malformed(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < sizeof(malformed) / sizeof(malformed[0]); i++) {
        const struct malformed *m = &malformed[i];
        struct buf body, decoded;
        uint32_t ops = 0;
        buf_init(&body, BODY_MAX);
        assert_int_equal(buf_add(&body, "SILTCHG\001", 8), 0);
        for (size_t f = 0; f < 4 && m->frames[f].payload; f++) {
            add_frame(&body, m->frames[f].type, m->frames[f].payload, m->frames[f].len);
            ops += m->frames[f].type == 2;
        }
        add_ending(&body, ops, m->ending);
        for (size_t step = 0; step < 2; step++) {
            struct err e = ERR_INIT;
            struct feeder feeder = {.p = body.data, .left = body.len, .step = step};
            buf_init(&decoded, BODY_MAX);
            int r = decode(&feeder, 100, &decoded, &e);
            if (r != -EPROTO || e.refusal != m->code || !strstr(e.msg, m->says))
                fail_msg("row %zu, '%s': %d '%s'", i, m->says, r, e.msg);
            buf_release(&decoded);
        }
        buf_release(&body);
    }
}

static void test_magic(void **unused)
{
    static const struct {
        const char *magic, *says;
    } rows[] = {
        {"SILTCHG\002", "version 2"},                             /* of the future */
        {"SILTCHX\001", "not a change set"},                      /* something else */
        {"{\"ops\":[", "not a change set"},                       /* JSON under the wrong type */
        {"\x28\xb5\x2f\xfd\x04\x58\x01\x01", "not a change set"}, /* zstd not undone */
    };

    (void)unused;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct err e = ERR_INIT;
        struct feeder feeder = {.p = (const uint8_t *)rows[i].magic, .left = 8};
        struct buf decoded;
        buf_init(&decoded, BODY_MAX);
        assert_int_equal(decode(&feeder, 100, &decoded, &e), -EPROTO);
        assert_non_null(strstr(e.msg, rows[i].says));
        buf_release(&decoded);
    }
}

/* Lengths that are beyond the limits are refused from the header, before anything is read. */
static void test_limits(void **unused)
{
    static const struct {
        uint8_t type;
        uint32_t len;
        const char *says;
    } rows[] = {
        {2, 16 * 1024 + 1, "above the limit"},
        {2, UINT32_MAX, "above the limit"},
        {4, UINT32_MAX, "END is 20 bytes"},
        {3, CHANGES_DATA_MAX + 1, "holds 1 to"}, /* behind a large PUT */
        {3, UINT32_MAX, "holds 1 to"},
    };

    (void)unused;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct err e = ERR_INIT;
        struct buf body, decoded;
        buf_init(&body, BODY_MAX);
        buf_init(&decoded, BODY_MAX);
        assert_int_equal(buf_add(&body, "SILTCHG\001", 8), 0);
        add_frame(&body, 1, "\0" U64_0 U64_0 U64_NONE "\0", 26);
        if (rows[i].type == 3)
            add_frame(&body, 2,
                "\1\0\0"
                "\0\1"
                "a"
                "\0\0"
                "\0\0\0\0\xff\0\0\0" H,
                32);
        assert_int_equal(buf_add_u8(&body, rows[i].type), 0);
        assert_int_equal(buf_add_u32(&body, rows[i].len), 0);
        struct feeder feeder = {.p = body.data, .left = body.len};
        assert_int_equal(decode(&feeder, 100, &decoded, &e), -EPROTO);
        if (!strstr(e.msg, rows[i].says))
            fail_msg("row %zu: %s", i, e.msg);
        buf_release(&body);
        buf_release(&decoded);
    }
}

static void test_operations_max(void **unused)
{
    struct feeder feeder = {.left = 0};
    struct changes_begin begin;
    struct change_op op;
    struct err e = ERR_INIT;
    struct buf body;
    int n = 1;
    uint32_t count = 0;

    (void)unused;
    buf_init(&body, BODY_MAX);
    assert_int_equal(buf_add(&body, "SILTCHG\001", 8), 0);
    add_frame(&body, 1, "\0" U64_0 U64_0 U64_NONE "\0", 26);
    for (uint32_t i = 0; i <= CHANGES_OPS_MAX; i++)
        add_frame(&body, 2,
            "\x09\0\0"
            "\0\1"
            "a",
            6);
    add_ending(&body, CHANGES_OPS_MAX + 1, END_GOOD);
    feeder.p = body.data;
    feeder.left = body.len;
    struct changes_reader *r = changes_reader_new(feeder_read, &feeder);
    assert_int_equal(changes_read_begin(r, &begin, &e), 0);
    while ((n = changes_read_op(r, &op, &e)) > 0)
        count++;
    assert_int_equal(n, -EPROTO);
    assert_int_equal(e.refusal, PROTO_TOO_LARGE);
    assert_int_equal(count, CHANGES_OPS_MAX);
    changes_reader_free(r);
    buf_release(&body);
}

/* ---- what the writer does not write */

static void test_writer_operations_max(void **unused)
{
    struct changes_begin begin = {"", 0, 0, CHANGES_NO_GENERATION, ""};
    struct change_op op = {.kind = CHANGE_DELETE, .path = "a"};
    struct changes_writer *w = changes_writer_new();
    struct buf b;

    (void)unused;
    buf_init(&b, 64 * 1024);
    assert_int_equal(changes_write_begin(w, &begin, &b), 0);
    for (uint32_t i = 0; i < CHANGES_OPS_MAX; i++) {
        buf_reset(&b);
        if (changes_write_op(w, &op, &b) != 0)
            fail_msg("operation %u was not written", i);
    }
    assert_int_equal(changes_write_op(w, &op, &b), -EINVAL);
    changes_writer_free(w);
    buf_release(&b);
}

static void test_writer_refuses(void **unused)
{
    static const struct sample rows[] = {
        {.kind = CHANGE_KIND_END, .path = "a"},                               /* unknown kind */
        {.kind = CHANGE_DELETE, .path = "../a"},                              /* path */
        {.kind = CHANGE_DELETE, .path = ""},                                  /* path */
        {.kind = CHANGE_DELETE, .path = "a", .to = "b"},                      /* needs no to */
        {.kind = CHANGE_DELETE, .path = "a", .base = CHANGE_BASE_END},        /* base */
        {.kind = CHANGE_DELETE, .path = "a", .mode = 0644},                   /* has no mode */
        {.kind = CHANGE_CHMOD, .path = "a", .mode = 01777},                   /* mode */
        {.kind = CHANGE_CHMOD, .path = "a", .mode = 0644, .recursive = true}, /* flag */
        {.kind = CHANGE_DELETE, .path = "a", .keep = true}, /* keeps it knows not what */
        {.kind = CHANGE_CHMOD, .path = "a", .mode = 0644, .keep = true}, /* displaces nothing */
        {.kind = CHANGE_MOVE, .path = "a"},                                   /* to */
        {.kind = CHANGE_MOVE, .path = "a", .to = "/b"},                       /* to */
        {.kind = CHANGE_SYMLINK, .path = "a", .to = ""},                      /* target */
        {.kind = CHANGE_PUT, .path = "a"},                                    /* hash */
        {.kind = CHANGE_PATCH,
            .path = "a",
            .result = "x",
            .delta = DELTA,
            .delta_len = 17},                                                /* base */
        {.kind = CHANGE_EDIT, .path = "a", .old_text = "", .new_text = "x"}, /* empty old */
    };
    struct changes_begin begin = {CLIENT, 1, 0, CHANGES_NO_GENERATION, ""};
    struct changes_begin bad = {"a\nb", 1, 0, CHANGES_NO_GENERATION, ""};
    struct changes_writer *w = changes_writer_new();
    struct buf b, small;

    (void)unused;
    buf_init(&b, BODY_MAX);
    assert_int_equal(changes_write_end(w, &b), -EINVAL);
    assert_int_equal(changes_write_begin(w, &bad, &b), -EINVAL);
    assert_int_equal(b.len, 0);
    assert_int_equal(changes_write_begin(w, &begin, &b), 0);
    assert_int_equal(changes_write_begin(w, &begin, &b), -EINVAL);
    size_t before = b.len;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct change_op op = op_of(&rows[i]);
        if (changes_write_op(w, &op, &b) != -EINVAL)
            fail_msg("row %zu was written", i);
        assert_int_equal(b.len, before);
    }
    /* A source of unknown length cannot be framed. */
    struct change_op op = op_of(&put);
    op.content_len = CHANGE_LEN_UNKNOWN;
    assert_int_equal(changes_write_op(w, &op, &b), -EINVAL);

    /* A full buffer stays as it was, and the set goes on in an emptied one. */
    buf_init(&small, 20);
    op = op_of(&put);
    assert_int_equal(changes_write_op(w, &op, &small), -ENOBUFS);
    assert_int_equal(small.len, 0);
    assert_int_equal(changes_write_op(w, &op, &b), 0);
    assert_int_equal(changes_write_data(w, "print(1)\n", 9, &small), 0);
    assert_int_equal(small.len, 14);
    assert_int_equal(changes_write_end(w, &small), -ENOBUFS);
    assert_int_equal(buf_add(&b, small.data, small.len), 0);
    assert_int_equal(changes_write_end(w, &b), 0);
    struct feeder feeder = {.p = b.data, .left = b.len};
    struct err e = ERR_INIT;
    struct buf decoded;
    buf_init(&decoded, BODY_MAX);
    assert_int_equal(decode(&feeder, 100, &decoded, &e), 0);
    changes_writer_free(w);
    buf_release(&b);
    buf_release(&small);
    buf_release(&decoded);
}

static void test_kind_names(void **unused)
{
    static const char *const names[] = {
        "put", "patch", "edit", "move", "copy", "mkdir", "symlink", "chmod", "delete"};

    (void)unused;
    for (int i = 0; i < 9; i++)
        assert_string_equal(change_kind_name((enum change_kind)(i + 1)), names[i]);
    assert_string_equal(change_kind_name((enum change_kind)0), "unknown");
    assert_string_equal(change_kind_name(CHANGE_KIND_END), "unknown");
}

/* ---- the page that explains it */

static void test_protocol_page(void **unused)
{
    static const struct {
        const char *name;
        int status;
        bool retryable;
    } errors[] = {
#define ROW(code, name, status, retryable) {name, status, retryable},
        PROTO_ERRORS(ROW)
#undef ROW
    };
    struct err e = ERR_INIT;
    struct buf page;
    size_t documented = 0;

    (void)unused;
    if (io_read_file("shared/PROTOCOL.md", 1 << 20, &page, &e) < 0)
        fail_msg("%s (run from the project's root)", e.msg);
    for (size_t i = 1; i < PROTO_ERROR_COUNT; i++) { /* 0 is no error */
        char row[96];
        (void)snprintf(row, sizeof(row), "\n| `%s` | %d | %s |", errors[i].name, errors[i].status,
            errors[i].retryable ? "yes" : "no");
        if (!strstr(buf_str(&page), row))
            fail_msg("shared/PROTOCOL.md has no row '%s'", row + 1);
    }
    /* And no row of a code that is not in the table. */
    for (const char *at = buf_str(&page); (at = strstr(at, "\n| `")) != NULL; at++) {
        const char *status = strstr(at + 4, "` | ");
        if (status && status[4] >= '2' && status[4] <= '5' && status[7] == ' ')
            documented++;
    }
    assert_int_equal(documented, PROTO_ERROR_COUNT - 1);
    buf_release(&page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_every_cut_and_every_bit),
        cmocka_unit_test(test_source_that_fails),
        cmocka_unit_test(test_large_content),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_magic),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_operations_max),
        cmocka_unit_test(test_writer_operations_max),
        cmocka_unit_test(test_writer_refuses),
        cmocka_unit_test(test_kind_names),
        cmocka_unit_test(test_protocol_page),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
