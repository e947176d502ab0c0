/* SPDX-License-Identifier: MIT */
#include "server/init_filter.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>

#include "server/filter_rules.h"

#include "shared/banned.h"

#define CODE_MAX 256

#if defined(__x86_64__)
#define NATIVE_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define NATIVE_ARCH AUDIT_ARCH_AARCH64
#elif defined(__riscv) && __riscv_xlen == 64
#define NATIVE_ARCH AUDIT_ARCH_RISCV64
#else
#error "silt-init's filter knows x86-64, arm64 and riscv64: add this machine's AUDIT_ARCH"
#endif

#define FIELD(name) ((uint32_t)offsetof(struct seccomp_data, name))
/* The low half of an argument on the little-endian machines above. */
#define ARG(n) ((uint32_t)(offsetof(struct seccomp_data, args) + 8 * (n)))
#define LOAD(offset) (struct sock_filter) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offset)
#define IF_EQUAL(value, yes, no)                                                                   \
    (struct sock_filter) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(value), yes, no)
#define IF_SET(bits, yes, no)                                                                      \
    (struct sock_filter) BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, (uint32_t)(bits), yes, no)
#define FAIL(error) (struct sock_filter) BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (error))

struct code {
    struct sock_filter at[CODE_MAX];
    unsigned short len;
};

static void emit(struct code *c, struct sock_filter one)
{
    if (c->len < CODE_MAX)
        c->at[c->len] = one;
    c->len++;
}

static size_t cond_len(const struct filter_cond *cond)
{
    return cond->op == FILTER_END ? 0 : 1 + (cond->op == FILTER_NONE_OF ? cond->count : 1);
}

/* Fall through if it holds, else jump over the `rest` instructions that follow it. */
static void emit_cond(struct code *c, const struct filter_cond *cond, uint8_t rest)
{
    emit(c, LOAD(ARG(cond->arg)));
    switch (cond->op) {
    case FILTER_IS:
        emit(c, IF_EQUAL(cond->value, 0, rest));
        break;
    case FILTER_IS_NOT:
        emit(c, IF_EQUAL(cond->value, rest, 0));
        break;
    case FILTER_HAS:
        emit(c, IF_SET(cond->value, 0, rest));
        break;
    case FILTER_NONE_OF:
        for (size_t i = 0; i < cond->count; i++)
            emit(c, IF_EQUAL(cond->list[i], (uint8_t)(rest + cond->count - 1 - i), 0));
        break;
    case FILTER_END:
        break;
    }
}

/* The call's number is loaded. */
static void emit_rule(struct code *c, const struct filter_rule *rule)
{
    size_t rest = 1; /* FAIL */
    for (size_t i = 0; i < FILTER_CONDS_MAX; i++)
        rest += cond_len(&rule->conds[i]);
    emit(c, IF_EQUAL(rule->nr, 0, (uint8_t)rest));
    for (size_t i = 0; i < FILTER_CONDS_MAX && rule->conds[i].op != FILTER_END; i++) {
        rest -= cond_len(&rule->conds[i]);
        emit_cond(c, &rule->conds[i], (uint8_t)rest);
    }
    emit(c, FAIL(rule->error));
    if (rule->conds[0].op != FILTER_END)
        emit(c, LOAD(FIELD(nr)));
}

int filter_load(void)
{
    struct code c = {.len = 0};
    size_t count;
    const struct filter_rule *rules = filter_rules(&count);
    emit(&c, LOAD(FIELD(arch)));
    emit(&c, IF_EQUAL(NATIVE_ARCH, 1, 0));
    emit(&c, FAIL(ENOSYS));
    emit(&c, LOAD(FIELD(nr)));
#if defined(__x86_64__)
    /* the x32 numbers would slip through the list below */
    emit(&c, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1));
    emit(&c, FAIL(ENOSYS));
#endif
    for (size_t i = 0; i < count; i++)
        emit_rule(&c, &rules[i]);
    emit(&c, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    if (c.len > CODE_MAX) {
        errno = E2BIG;
        return -1;
    }
    struct sock_fprog program = {.len = c.len, .filter = c.at};
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}
