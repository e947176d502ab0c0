/* SPDX-License-Identifier: MIT */
#include "agent/stats.h"

#include <stdlib.h>
#include <string.h>

#include "shared/banned.h"

void stats_add(struct stats *s, uint64_t duration_ns)
{
    uint64_t us = duration_ns / 1000;
    s->us[s->count++ % STATS_KEPT] = us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
}

size_t stats_kept(const struct stats *s)
{
    return s->count < STATS_KEPT ? (size_t)s->count : STATS_KEPT;
}

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

double stats_percentile_ms(const struct stats *s, unsigned percent)
{
    uint32_t sorted[STATS_KEPT];
    size_t kept = stats_kept(s);
    if (!kept)
        return 0;
    memcpy(sorted, s->us, kept * sizeof(sorted[0]));
    qsort(sorted, kept, sizeof(sorted[0]), by_size);
    size_t rank = (kept * percent + 99) / 100;
    return (double)sorted[rank ? rank - 1 : 0] / 1e3;
}
