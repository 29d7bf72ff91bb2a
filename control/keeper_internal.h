/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_KEEPER_INTERNAL_H
#define CONTROL_KEEPER_INTERNAL_H

#include "control/keeper.h"
#include "control/keeper_kinds.h"
#include "control/keeper_source.h"

/* Shared by the files of the keeper: keeper.c (rounds, start and end), keeper_file.c. */
#define KEEPER_SLICE  4096u
#define KEEPER_ORDERS 64u
_Static_assert(KEEPER_SLICE >= SITE_KEPT_MAX, "a site fits");

/* What a shard is asked for, one after the other. */
enum keeper_stage { AT_ROWS, AT_ORDERS, AT_KINDS, STAGE_COUNT = AT_KINDS + KEEPER_KIND_COUNT };

struct keeper {
    struct keeper_options options;
    struct keeper_source *sources;
    struct keeper_rows *kinds[KEEPER_KIND_COUNT];
    bool has_kind[KEEPER_KIND_COUNT]; /* it is part of this round */
    struct shard_query query;
    bool is_under_way, was_empty;
    bool is_hastened; /* something has changed since the round began */
    uint32_t shard;
    tick_us next;
    uint32_t slice_count;
    struct site_kept slice[KEEPER_SLICE];
    uint32_t count, capacity;
    struct site_kept *rows;
    enum keeper_stage stage; /* of this shard */
    tick_us window_min;      /* of sites; 0: all are kept */
    uint32_t order_slice_count;
    struct site_order_kept order_slice[KEEPER_ORDERS];
    uint32_t order_count, order_capacity;
    struct site_order_kept *orders;
    uint32_t standing_count;
    struct qmgr_standing standing[QMGR_STANDING_MAX];
};

/** Replace the file, unless it has no row and is to have none. */
void keeper_file_save(struct keeper *keeper);
/** Its rows and orders. False: there are none; the log says if that is damage. */
bool keeper_file_load(struct keeper *keeper);

#endif
