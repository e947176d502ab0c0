/* SPDX-License-Identifier: MIT */
#include "shared/num.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "shared/banned.h"

/* 6 digits keep fraction × unit (at most 10^6 × 2^40) inside 64 bits. */
#define FRACTION_DIGITS_MAX 6

struct unit {
    const char *name;
    uint64_t scale;
};

static const struct unit byte_units[] = {
    {"", 1},
    {"B", 1},
    {"K", UINT64_C(1) << 10},
    {"KB", UINT64_C(1) << 10},
    {"KiB", UINT64_C(1) << 10},
    {"M", UINT64_C(1) << 20},
    {"MB", UINT64_C(1) << 20},
    {"MiB", UINT64_C(1) << 20},
    {"G", UINT64_C(1) << 30},
    {"GB", UINT64_C(1) << 30},
    {"GiB", UINT64_C(1) << 30},
    {"T", UINT64_C(1) << 40},
    {"TB", UINT64_C(1) << 40},
    {"TiB", UINT64_C(1) << 40},
    {NULL, 0},
};

static const struct unit time_units[] = {
    {"", 1000},
    {"ms", 1},
    {"s", 1000},
    {"m", UINT64_C(60) * 1000},
    {"h", UINT64_C(3600) * 1000},
    {NULL, 0},
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Digits at *text, which is moved past them. 0, -EINVAL if there are none, -ERANGE if too many: the
 * rest is passed over all the same, so that "99999999999999999999x" is a bad number, not a big one.
 */
static int take_digits(const char **text, uint64_t *ret)
{
    const char *p = *text;
    uint64_t value = 0;
    bool fits = true;
    if (!is_digit(*p))
        return -EINVAL;
    for (; is_digit(*p); p++)
        fits = fits && num_mul(value, 10, &value) && num_add(value, (uint64_t)(*p - '0'), &value);
    *text = p;
    *ret = value;
    return fits ? 0 : -ERANGE;
}

int num_u64(const char *text, uint64_t max, uint64_t *ret)
{
    uint64_t value;
    int r = take_digits(&text, &value);
    if (r == -EINVAL || *text != '\0')
        return -EINVAL;
    if (r < 0 || value > max)
        return -ERANGE;
    *ret = value;
    return 0;
}

/* ".25" at *text as 25 of 100; nothing there is 0 of 1. */
static int take_fraction(const char **text, uint64_t *ret_value, uint64_t *ret_of)
{
    *ret_value = 0;
    *ret_of = 1;
    if (**text != '.')
        return 0;
    const char *first = ++*text;
    int r = take_digits(text, ret_value);
    if (r < 0 || *text - first > FRACTION_DIGITS_MAX)
        return -EINVAL;
    for (const char *p = first; p < *text; p++)
        *ret_of *= 10;
    return 0;
}

static const struct unit *find_unit(const struct unit *units, const char *name, bool fold)
{
    for (const struct unit *u = units; u->name; u++)
        if ((fold ? strcasecmp(u->name, name) : strcmp(u->name, name)) == 0)
            return u;
    return NULL;
}

static int parse_scaled(
    const char *text, const struct unit *units, bool fold, uint64_t max, uint64_t *ret)
{
    uint64_t whole, fraction, of;
    int big = take_digits(&text, &whole);
    if (big == -EINVAL)
        return -EINVAL;
    const char *fraction_at = text;
    if (take_fraction(&text, &fraction, &of) < 0)
        return -EINVAL;
    const struct unit *unit = find_unit(units, text, fold);
    /* Nothing is smaller than the base unit, so a fraction of it can only be a mistake. */
    if (!unit || (unit->scale == 1 && text != fraction_at))
        return -EINVAL;
    uint64_t value;
    if (big < 0 || !num_mul(whole, unit->scale, &value) ||
        !num_add(value, fraction * unit->scale / of, &value) || value > max)
        return -ERANGE;
    *ret = value;
    return 0;
}

int num_bytes(const char *text, uint64_t max, uint64_t *ret_bytes)
{
    return parse_scaled(text, byte_units, true, max, ret_bytes);
}

int num_duration_ms(const char *text, uint64_t max_ms, uint64_t *ret_ms)
{
    return parse_scaled(text, time_units, false, max_ms, ret_ms);
}

const char *num_human_bytes(uint64_t bytes, char *out, size_t out_size)
{
    static const char *const names[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    if (bytes < 1024) {
        (void)snprintf(out, out_size, "%u B", (unsigned)bytes);
        return out;
    }
    size_t i = 0;
    uint64_t whole, tenths;
    for (;; i++) {
        uint64_t unit = UINT64_C(1) << (10 * (i + 1));
        whole = bytes / unit;
        tenths = ((bytes % unit) * 10 + unit / 2) / unit;
        whole += tenths / 10;
        tenths %= 10;
        /* Rounded up to 1024.0 it belongs to the next unit. */
        if (whole < 1024 || i + 1 == sizeof(names) / sizeof(names[0]))
            break;
    }
    (void)snprintf(out, out_size, "%u.%u %s", (unsigned)whole, (unsigned)tenths, names[i]);
    return out;
}
