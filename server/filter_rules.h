/* SPDX-License-Identifier: MIT */
/*
 * What a container's program may not ask of the kernel, as data: silt-init makes a filter of it
 * (init_filter.c), `siltd seccomp` a profile in the form that container runtimes read
 * (oci_seccomp.c). Everything is allowed but what only serves to reach the kernel's less trodden
 * parts, another namespace or process 1.
 */
#ifndef SERVER_FILTER_RULES_H
#define SERVER_FILTER_RULES_H

#include <stddef.h>
#include <stdint.h>

enum filter_op {
    FILTER_END,
    FILTER_IS,
    FILTER_IS_NOT,
    FILTER_HAS,     /* any of these bits */
    FILTER_NONE_OF, /* the list */
};

/* About the low 32 bits of an argument: more the kernel does not read of these. */
struct filter_cond {
    enum filter_op op;
    unsigned arg; /* 0 to 5 */
    uint32_t value;
    const uint32_t *list; /* NONE_OF */
    size_t count;
};

#define FILTER_CONDS_MAX 2

/* The call fails with `error` where all conditions hold. */
struct filter_rule {
    const char *name;
    uint32_t nr;
    uint16_t error;
    struct filter_cond conds[FILTER_CONDS_MAX]; /* until FILTER_END */
};

const struct filter_rule *filter_rules(size_t *ret_count);

#endif
