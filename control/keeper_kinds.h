/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_KEEPER_KINDS_H
#define CONTROL_KEEPER_KINDS_H

#include "control/keeper_rows.h"

/* What the keeper keeps in files of rows, all in the spool's directory. */
enum keeper_kind_number {
    KEEPER_QUOTAS,  /* `quotas`: what users have sent */
    KEEPER_BRAKES,  /* `brakes`: what client networks did, and wrong passwords of theirs */
    KEEPER_LEARNED, /* `learned`: what sites take, and their pauses */
    KEEPER_KIND_COUNT
};

extern const struct keeper_kind keeper_kinds[KEEPER_KIND_COUNT];

#endif
