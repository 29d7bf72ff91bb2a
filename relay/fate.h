/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_FATE_H
#define RELAY_FATE_H

#include "base/span.h"
#include "queue/envelope.h"
#include "queue/way.h"

/* What became of a message whose end of data was read: what its client is told. */
struct message_fate {
    struct message_id id;
    uint16_t code;       /* 250, 451, 452; 5xx: the next hop's, with all that follows */
    uint8_t enhanced[3]; /* 0.0.0: it gave none */
    enum way way;
    uint64_t heard; /* a stamp: when the next hop's final reply was received; 0: there was none */
    struct span reply; /* printable; it may begin with code and enhanced code; good for the call */
};

#endif
