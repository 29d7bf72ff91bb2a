/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_ADMIN_EXPLAIN_INTERNAL_H
#define CONTROL_ADMIN_EXPLAIN_INTERNAL_H

#include "control/admin_explain.h"

/* What shards told of a name: admin_explain.c copies it, admin_explain_answer.c makes the answer.
 */
struct explain_source {
    bool is_suspended, is_broken;
    tick_us left, cold_left;
    uint32_t day, day_count, limit; /* of the warm-up; day_count 0: it is warm */
    char reason[SOURCE_REASON_SIZE];
    const char *family; /* one rests while the other is used; NULL: none does */
    tick_us family_left;
    char family_reason[SOURCE_REASON_SIZE];
};

struct explain_site { /* by one core */
    uint32_t core;
    struct site_view view;
    char label[SITE_LABEL_MAX + 1]; /* the view's is the shard's */
    char source[SITE_SOURCE_MAX + 1];
    struct site_order *orders; /* as are its orders; NULL: none */
    struct transfer_site_view transfer;
    struct explain_source from;
    tick_us now;
};

struct explain_core {
    struct client_stats client;
    struct transfer_view transfer;
};

struct explain_asked {
    char name[ENVELOPE_DOMAIN_SIZE_MAX + 1];
    uint32_t site_cursor;
    bool are_sites_done; /* of this core */
    uint64_t line_cursor;
    struct explain_site *sites;
    uint32_t site_count;
    struct explain_core *cores;
    uint32_t core_count;
    struct qmgr_name_use mail;
    tick_us now, retry_min, retry_max;
    char class_names[QMGR_ROUND_CLASS_COUNT][QMGR_CLASS_NAME_SIZE];
    uint8_t least[QMGR_ROUND_CLASS_COUNT];
};

#endif
