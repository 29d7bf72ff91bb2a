/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_COPIES_H
#define RELAY_COPIES_H

#include <stdint.h>

/* Octets of messages that a shard copied, by reason. */
struct relay_copied {
#define X(name, meaning) uint64_t name;
#include "relay/copy.def"
#undef X
};

#endif
