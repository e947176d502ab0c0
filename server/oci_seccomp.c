/* SPDX-License-Identifier: MIT */
#include "server/oci_seccomp.h"

#include <stdbool.h>
#include <sys/socket.h>

#include "server/filter_rules.h"

#include "shared/banned.h"

#if defined(__x86_64__)
#define NATIVE_ARCH "SCMP_ARCH_X86_64"
#elif defined(__aarch64__)
#define NATIVE_ARCH "SCMP_ARCH_AARCH64"
#elif defined(__riscv) && __riscv_xlen == 64
#define NATIVE_ARCH "SCMP_ARCH_RISCV64"
#else
#error "name this machine's architecture as libseccomp does"
#endif

#define LOW UINT32_MAX
/* A list of what is left out goes to here one by one, the rest by comparison. */
#define LISTED_MAX AF_MAX

static json_t *argument(unsigned index, const char *op, uint32_t value, uint32_t second)
{
    return json_pack("{s:i, s:I, s:I, s:s}", "index", (int)index, "value", (json_int_t)value,
        "valueTwo", (json_int_t)second, "op", op);
}

/* One entry per way in which a condition can hold: they are alternatives, its arguments are not. */
static unsigned ways(const struct filter_cond *c)
{
    unsigned n = 0;
    if (c->op == FILTER_NONE_OF)
        return LISTED_MAX - (unsigned)c->count + 1;
    if (c->op != FILTER_HAS)
        return 1;
    for (uint32_t bits = c->value; bits; bits &= bits - 1)
        n++;
    return n;
}

static bool is_listed(const struct filter_cond *c, uint32_t value)
{
    for (size_t i = 0; i < c->count; i++) {
        if (c->list[i] == value)
            return true;
    }
    return false;
}

static json_t *one_way(const struct filter_cond *c, unsigned way)
{
    uint32_t value = 0;
    switch (c->op) {
    case FILTER_IS:
        return argument(c->arg, "SCMP_CMP_MASKED_EQ", LOW, c->value);
    case FILTER_IS_NOT:
        return argument(c->arg, "SCMP_CMP_NE", c->value, 0);
    case FILTER_HAS:
        value = c->value;
        while (way-- > 0)
            value &= value - 1;
        value &= ~(value - 1);
        return argument(c->arg, "SCMP_CMP_MASKED_EQ", value, value);
    case FILTER_NONE_OF:
        for (; value < LISTED_MAX; value++) {
            if (!is_listed(c, value) && way-- == 0)
                return argument(c->arg, "SCMP_CMP_MASKED_EQ", LOW, value);
        }
        return argument(c->arg, "SCMP_CMP_GE", LISTED_MAX, 0);
    case FILTER_END:
        break;
    }
    return NULL;
}

static bool add_call(json_t *calls, json_t *names, unsigned error, json_t *args)
{
    json_t *call = json_pack(
        "{s:o, s:s, s:i}", "names", names, "action", "SCMP_ACT_ERRNO", "errnoRet", (int)error);
    if (!args)
        return json_array_append_new(calls, call) == 0;
    bool good = json_object_set_new(call, "args", args) == 0;
    return json_array_append_new(calls, call) == 0 && good;
}

static bool add_rule(json_t *calls, const struct filter_rule *rule)
{
    const struct filter_cond *first = &rule->conds[0], *second = &rule->conds[1];
    bool more = second->op != FILTER_END;
    for (unsigned i = 0; i < ways(first); i++) {
        for (unsigned k = 0; k < (more ? ways(second) : 1); k++) {
            json_t *args = json_pack("[o]", one_way(first, i));
            if (!args || (more && json_array_append_new(args, one_way(second, k)) < 0) ||
                !add_call(calls, json_pack("[s]", rule->name), rule->error, args))
                return false;
        }
    }
    return true;
}

json_t *oci_seccomp(void)
{
    size_t count;
    const struct filter_rule *rules = filter_rules(&count);
    json_t *calls = json_array(), *always = json_array();
    unsigned always_error = 0;
    bool good = calls && always;
    for (size_t i = 0; good && i < count; i++) {
        const struct filter_rule *rule = &rules[i];
        if (rule->conds[0].op != FILTER_END)
            good = add_rule(calls, rule);
        else if (!always_error || rule->error == always_error)
            good = json_array_append_new(always, json_string(rule->name)) == 0;
        else
            good = add_call(calls, json_pack("[s]", rule->name), rule->error, NULL);
        if (!always_error)
            always_error = rule->error;
    }
    good = good && add_call(calls, json_incref(always), always_error, NULL);
    json_decref(always);
    if (!good) {
        json_decref(calls);
        return NULL;
    }
    return json_pack("{s:s, s:[s], s:o}", "defaultAction", "SCMP_ACT_ALLOW", "architectures",
        NATIVE_ARCH, "syscalls", calls);
}
