/* SPDX-License-Identifier: MIT */
/*
 * The last durations of one kind, for `silt status`: a ring of a fixed size. Pure; the memory is the
 * caller's, zeroed to begin with.
 */
#ifndef AGENT_STATS_H
#define AGENT_STATS_H

#include <stddef.h>
#include <stdint.h>

#define STATS_KEPT 256

struct stats {
    uint32_t us[STATS_KEPT];
    uint64_t count; /* of all that were ever added */
};

/* Above 71 minutes they count as 71 minutes. */
void stats_add(struct stats *s, uint64_t duration_ns);
/* How many are kept: at most STATS_KEPT. */
size_t stats_kept(const struct stats *s);
/* The smallest kept duration, in ms, that at least `percent` of the kept ones do not exceed; 0 when
 * there is none. percent is 1 to 100. */
double stats_percentile_ms(const struct stats *s, unsigned percent);

#endif
