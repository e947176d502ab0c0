/* SPDX-License-Identifier: MIT */
/*
 * Single defences that can be switched off, so that scripts/attack can show of each attack that it
 * would succeed without the defence it is held by. WEAK("name") is the constant 0 in every build
 * but the one made with -DSILT_WEAKEN, where it asks whether the comma-separated variable
 * SILT_WEAKEN holds the name. Nothing of this is in a program that is meant for use: the attack
 * suite looks for the variable's name in it.
 *
 * A use stands where the defence stands, and changes nothing else. Any thread.
 */
#ifndef SHARED_WEAKEN_H
#define SHARED_WEAKEN_H

#ifdef SILT_WEAKEN

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define WEAK(name) weaken_has(name)
/* The variable as silt-init must find it, or NULL. */
#define WEAKEN_LIST (getenv("SILT_WEAKEN") ? getenv("SILT_WEAKEN") - sizeof("SILT_WEAKEN") : NULL)

static inline bool weaken_has(const char *name)
{
    const char *list = getenv("SILT_WEAKEN");
    size_t len = strlen(name);
    while (list && *list) {
        size_t item = strcspn(list, ",");
        if (item == len && memcmp(list, name, len) == 0)
            return true;
        list += item + (list[item] == ',');
    }
    return false;
}

#else
#define WEAK(name) 0
#define WEAKEN_LIST NULL
#endif

#endif
