/* SPDX-License-Identifier: MIT */
/*
 * Malformed change sets for t_changes.c, frame by frame: what is wrong is the comment or the message
 * that is expected. Kept apart because the table is best read in long lines.
 */
#ifndef TESTS_UNIT_T_CHANGES_MALFORMED_H
#define TESTS_UNIT_T_CHANGES_MALFORMED_H

#include <stddef.h>
#include <stdint.h>

#include "shared/proto.h"

struct frame {
    uint8_t type;
    const char *payload;
    size_t len;
};

/* How the body ends. */
enum ending { END_GOOD, END_COUNT, END_DIGEST, END_SHORT, END_NONE, END_MORE };

struct malformed {
    const char *says; /* part of the message */
    enum proto_error code;
    enum ending ending;
    struct frame frames[4];
};

/* clang-format off */
#define FRAME(type, payload) {type, payload, sizeof(payload) - 1}
#define U64_0 "\0\0\0\0\0\0\0\0"
#define U64_1 "\0\0\0\0\0\0\0\1"
#define U64_NONE "\xff\xff\xff\xff\xff\xff\xff\xff"
#define H "0123456789abcdef" /* some hash */
#define NOTHING "\0" U64_0 U64_0 U64_NONE "\0"
#define BEGIN FRAME(1, NOTHING)
#define OP(payload) FRAME(2, payload)
#define DATA(payload) FRAME(3, payload)
#define A "\0\1" "a" /* the path "a" */
#define DELETE_A OP("\x09\0\0" A)
#define PUT_A3 OP("\1\0\0" A "\0\0" "\0\0\0\0\0\0\0\3" H)
#define BAD(says) says, PROTO_BAD_CHANGES, END_GOOD
#define PATH(says) says, PROTO_INVALID_PATH, END_GOOD
#define LARGE(says) says, PROTO_TOO_LARGE, END_GOOD
#define X40 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
#define X97 X40 X40 "xxxxxxxxxxxxxxxxx"

static const struct malformed malformed[] = {
    /* BEGIN */
    {BAD("where BEGIN must"), {DELETE_A}},
    {BAD("where OP or END must"), {BEGIN, BEGIN}},
    {BAD("BEGIN is not one client"), {FRAME(1, "")}},
    {BAD("BEGIN is not one client"), {FRAME(1, "\0" U64_0 U64_0 U64_NONE)}},                    /* no epoch */
    {BAD("BEGIN is not one client"), {FRAME(1, "\0" U64_0 U64_0 U64_NONE "\0more")}},           /* too long */
    {BAD("BEGIN is not one client"), {FRAME(1, "\x09" "ab" U64_1 U64_0 U64_NONE "\x0b")}},      /* lengths lie */
    {BAD("BEGIN is not one client"), {FRAME(1, "\x61" X97 U64_1 U64_0 U64_NONE "\0")}},         /* client of 97 */
    {BAD("BEGIN is not one client"), {FRAME(1, "\0" U64_0 U64_0 U64_NONE "\x28" X40)}},         /* epoch of 40 */
    {BAD("BEGIN is not one client"), {FRAME(1, "\3a\0b" U64_1 U64_0 U64_NONE "\0")}},           /* NUL */
    {BAD("client's name must be visible"), {FRAME(1, "\3a\nb" U64_1 U64_0 U64_NONE "\0")}},
    {BAD("client's name must be visible"), {FRAME(1, "\3a\x7f" "b" U64_1 U64_0 U64_NONE "\0")}},
    {BAD("client's name must be visible"), {FRAME(1, "\3a\x1b" "b" U64_1 U64_0 U64_NONE "\0")}},
    {BAD("client's name must be visible"), {FRAME(1, "\3a b" U64_1 U64_0 U64_NONE "\0")}},
    {BAD("client's name must be visible"), {FRAME(1, "\2\xc3\xa4" U64_1 U64_0 U64_NONE "\0")}}, /* not ASCII */
    {BAD("epoch must be visible"), {FRAME(1, "\1a" U64_1 U64_0 U64_NONE "\3a\rb")}},
    {BAD("seq starts at 1"), {FRAME(1, "\1a" U64_0 U64_0 U64_NONE "\0")}},
    {BAD("parent must be below seq"), {FRAME(1, "\1a" U64_1 U64_1 U64_NONE "\0")}},
    {BAD("need a client"), {FRAME(1, "\0" U64_1 U64_0 U64_NONE "\0")}},
    /* frames */
    {BAD("frame type 5"), {BEGIN, FRAME(5, "")}},
    {BAD("frame type 0"), {BEGIN, FRAME(0, "")}},
    {BAD("frame type 3"), {BEGIN, DATA("abc")}},           /* content of nothing */
    {BAD("frame type 3"), {BEGIN, DELETE_A, DATA("abc")}}, /* of a kind that has none */
    /* operations */
    {BAD("kind 0"), {BEGIN, OP("\0\0\0" A)}},
    {BAD("kind 10"), {BEGIN, OP("\x0a\0\0" A)}},
    {BAD("kind 255"), {BEGIN, OP("\xff\0\0" A)}},
    {BAD("flags 0x02"), {BEGIN, OP("\x09\2\0" A)}},
    {BAD("does not name its hash"), {BEGIN, OP("\x09\4\0" A)}}, /* keep, base any */
    {BAD("flags 0x04"), {BEGIN, OP("\6\4\0" A "\1\xff")}}, /* keep, of a kind that displaces nothing */
    {BAD("flags 0x08"), {BEGIN, OP("\x09\10\0" A)}},
    {BAD("flags 0x01"), {BEGIN, OP("\6\1\0" A "\1\xff")}}, /* the flag of another kind */
    {BAD("a stage by what is no id"), {BEGIN, OP("\1\10\0" A "\0\0" "\0\0\0\0\0\0\0\3" H "\0")}},
    {BAD("a stage by what is no id"), {BEGIN, OP("\1\10\0" A "\0\0" "\0\0\0\0\0\0\0\3" H "\2x\n")}},
    {BAD("is shorter"), {BEGIN, OP("\1\10\0" A "\0\0" "\0\0\0\0\0\0\0\3" H "\100" X40 "xxxxxxxxxxxxxxxxxxxxxxxx")}}, /* 64 bytes */
    {BAD("is shorter"), {BEGIN, OP("\1\10\0" A "\0\0" "\0\0\0\0\0\0\0\3" H)}},
    {BAD("is longer"), {BEGIN, OP("\1\0\0" A "\0\0" "\0\0\0\0\0\0\0\3" H "\4st_x"), DATA("abc")}},
    {BAD("where OP or END must"), {BEGIN, OP("\1\10\0" A "\0\0" "\0\0\0\0\0\0\0\3" H "\4st_x"), DATA("abc")}},
    {BAD("base kind 4"), {BEGIN, OP("\x09\0\4" A)}},
    {BAD("kind 0"), {BEGIN, OP("")}},
    {BAD("shorter than its fields"), {BEGIN, OP("\x09\0\0" "\0\2" "a")}},
    {BAD("shorter than its fields"), {BEGIN, OP("\x09\0\2" "0123456")}}, /* inside the base */
    {BAD("shorter than its fields"), {BEGIN, OP("\6\0\0" A "\1")}},
    {BAD("longer than its fields"), {BEGIN, OP("\x09\0\0" A "x")}},
    {BAD("mode beyond"), {BEGIN, OP("\6\0\0" A "\2\0")}},
    {BAD("mode beyond"), {BEGIN, OP("\x08\0\0" A "\x08\0")}},
    {BAD("does not name the hash"), {BEGIN, OP("\2\0\0" A "\0\0" U64_1 H U64_1), DATA("x")}},
    {BAD("old text that is empty"), {BEGIN, OP("\3\0\0" A "\0\0\0\0" "\0\0\0\1"), DATA("x")}},
    {BAD("a text above"), {BEGIN, OP("\3\0\0" A "\0\x10\0\1" "\0\0\0\1"), DATA("x")}},
    {BAD("a text above"), {BEGIN, OP("\3\0\0" A "\0\0\0\1" "\0\x10\0\1"), DATA("x")}},
    {LARGE("limit of 16 GiB"), {BEGIN, OP("\1\0\0" A "\0\0" "\0\0\0\4\0\0\0\1" H)}},
    {LARGE("limit of 16 GiB"), {BEGIN, OP("\1\0\0" A "\0\0" U64_NONE H)}},
    {LARGE("limit of 16 GiB"), {BEGIN, OP("\2\0\2" H A "\0\0" U64_1 H U64_NONE)}}, /* the delta */
    {LARGE("limit of 16 GiB"), {BEGIN, OP("\5\0\0" A U64_NONE H "\0\1" "b")}},     /* of a copy */
    /* paths: path_check has its own tests; here each is seen to be asked */
    {PATH("has a path that is empty"), {BEGIN, OP("\x09\0\0" "\0\0")}},
    {PATH("'/etc/passwd'"), {BEGIN, OP("\x09\0\0" "\0\x0b" "/etc/passwd")}},
    {PATH("'..'"), {BEGIN, OP("\x09\0\0" "\0\4" "a/..")}},
    {PATH("operation 2"), {BEGIN, DELETE_A, OP("\x09\0\0" "\0\2" "a/")}},
    {PATH("NUL"), {BEGIN, OP("\x09\0\0" "\0\3" "a\0b")}},
    {PATH("\\x0a"), {BEGIN, OP("\x09\0\0" "\0\4" "\n/..")}}, /* shown harmless */
    {PATH("'..'"), {BEGIN, OP("\4\0\0" A "\0\4" "../b")}},
    {PATH("'..'"), {BEGIN, OP("\5\0\0" A U64_1 H "\0\4" "../b")}},
    {PATH("is empty"), {BEGIN, OP("\7\0\0" A "\0\0")}},
    {PATH("NUL"), {BEGIN, OP("\7\0\0" A "\0\3" "x\0y")}},
    /* content */
    {BAD("holds 1 to"), {BEGIN, PUT_A3, DATA(""), DATA("abc")}},
    {BAD("more content than it declared"), {BEGIN, PUT_A3, DATA("abcd")}},
    {BAD("more content than it declared"), {BEGIN, PUT_A3, DATA("ab"), DATA("cd")}},
    {BAD("lacks the last 1 bytes"), {BEGIN, PUT_A3, DATA("ab")}},
    {BAD("lacks the last 3 bytes"), {BEGIN, PUT_A3, DELETE_A}},
    {BAD("frame type 3"), {BEGIN, PUT_A3, DATA("abc"), DATA("d")}},
    {BAD("lacks the last 2 bytes"), {BEGIN, OP("\3\0\0" A "\0\0\0\1" "\0\0\0\2"), DATA("x"), DELETE_A}},
    /* END */
    {"END counts 2 operations and 1 came", PROTO_BAD_CHANGES, END_COUNT, {BEGIN, DELETE_A}},
    {"digest does not match", PROTO_BAD_CHANGES, END_DIGEST, {BEGIN, DELETE_A}},
    {"END is 20 bytes, not 19", PROTO_BAD_CHANGES, END_SHORT, {BEGIN, DELETE_A}},
    {"cut off", PROTO_BAD_CHANGES, END_NONE, {BEGIN, DELETE_A}},
    {"bytes follow END", PROTO_BAD_CHANGES, END_MORE, {BEGIN, DELETE_A}},
};
/* clang-format on */

#endif
