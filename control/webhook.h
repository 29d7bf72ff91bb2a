/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_WEBHOOK_H
#define CONTROL_WEBHOOK_H

#include "control/config.h"

/*
 * Webhooks: each has a thread that reads the file of records and posts batches of them, in order
 * and again until they were taken. How far it is stands in a file beside the spool, so that neither
 * a receiver that is down for hours nor a restart loses a record that the files still have.
 */
struct webhook_set;

struct webhook_stats {
    const char *name;
    uint64_t batches, events; /* taken */
    uint64_t failures;        /* posts that were not */
    uint64_t waiting;         /* octets of records behind the last batch that was taken */
    uint64_t gaps;            /* files of records that were gone before they were read */
    uint32_t answer;          /* HTTP status of the last post; 0: it had none */
    bool is_failing;          /* the last post was not taken */
    bool is_gone; /* the receiver wants no more (410): nothing is posted until a restart */
};

/** Start a thread for each. NULL in *ret_set when there are none. Errors: ERR_SYSTEM with errno. */
enum err webhook_set_new(const struct config *config, struct webhook_set **ret_set) MUST_CHECK;
/** Posts that are under way are given up, and posted again at the next start. NULL is nothing. */
void webhook_set_free(struct webhook_set *set);
uint32_t webhook_set_count(const struct webhook_set *set);
/** Any thread. */
struct webhook_stats webhook_get_stats(const struct webhook_set *set, uint32_t index);

/* ---- for tests ---- */

/** "t=SECONDS,v1=HEX": HMAC-SHA256 of "SECONDS." and the body. */
#define WEBHOOK_SIGNATURE_SIZE 96u
void webhook_sign(const char *secret, int64_t seconds, struct span body,
                  char ret_text[WEBHOOK_SIGNATURE_SIZE]);
/** The pause after so many failures in a row, 1 and more; `random` is any number. */
tick_us webhook_pause(const struct config_webhook *webhook, uint32_t failures, tick_us asked,
                      uint32_t random);
/** Is the line a whole record of one of these kinds? */
bool webhook_wants(uint32_t kinds, struct span line);

#endif
