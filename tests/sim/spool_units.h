/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_SIM_SPOOL_UNITS_H
#define TESTS_SIM_SPOOL_UNITS_H

#include "tests/sim/disk_sim.h"

/*
 * The units that a power loss keeps or takes (disk_sim_lose()), put together into classes so that
 * every loss has the same outcome as one that keeps or breaks whole classes.
 */
#define UNITS_MAX    8192u
#define UNIT_CLASSES 64u
#define UNIT_SAME    UINT16_MAX       /* kept or lost, the octets are the same */
#define UNIT_UNTOLD  (UINT16_MAX - 1) /* no start looks at it */

struct spool_units {
    uint32_t count;              /* of units */
    uint32_t told;               /* of those that are neither SAME nor UNTOLD */
    uint32_t different;          /* of those that are not SAME */
    uint16_t classes[UNITS_MAX]; /* of each unit */
    uint32_t class_count;
    uint16_t sizes[UNIT_CLASSES];
};

/** Bounds: a medium that disk_sim_copy() made; at most UNITS_MAX units in UNIT_CLASSES classes. */
void spool_units_find(struct spool_units *units, const struct disk_sim *sim);

#endif
