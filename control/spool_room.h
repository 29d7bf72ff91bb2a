/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_SPOOL_ROOM_H
#define CONTROL_SPOOL_ROOM_H

#include <stdbool.h>

#include "control/config.h"

#define SPOOL_ROOM_WHY_SIZE 512u

/**
 * Can the file system of the spool's directory hold as much as the configuration lets it grow to?
 * What the spool uses already counts as room. False: it cannot, and why, for people. True as well
 * when there is no such directory yet.
 */
bool spool_room_suffices(const struct config_spool *spool, char ret_why[SPOOL_ROOM_WHY_SIZE]);

#endif
