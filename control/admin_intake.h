/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_ADMIN_INTAKE_H
#define CONTROL_ADMIN_INTAKE_H

#include <jansson.h>

#include "control/json_text.h"
#include "control/shard.h"

/* `drain` and `drain end`: whether the relay takes mail. */
#define ADMIN_INTAKE_REASON_SIZE 256u

struct admin_intake { /* what was last asked for */
    bool is_closed;
    wall_us since;
    char reason[ADMIN_INTAKE_REASON_SIZE];
};

/** True: `verb` is one of the two, and `query` is ready; `found` NULL: no memory. */
bool admin_intake_prepare(const char *verb, const json_t *request, struct admin_intake *intake,
                          struct shard_query *query);
bool admin_intake_owns(const struct shard_query *query);
/** Why it was not done by all, or NULL. */
const char *admin_intake_finish(json_t *answer, const struct shard_query *query);
void admin_intake_end(struct shard_query *query);
/** Of a status. */
void admin_intake_status(const struct admin_intake *intake, struct json_text *text);

#endif
