/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_CONFINE_H
#define CONTROL_CONFINE_H

#include <jansson.h>
#include <stdbool.h>

#include "base/err.h"

/*
 * What the process may do no more. In two steps, since ports, memory and threads come in between:
 * see confine.c. Control thread.
 */
#define CONFINE_WHY_SIZE 256u

struct confine_options {
    const char *user;      /* whom root becomes; NULL: nobody */
    bool has_low_ports;    /* a listener has a port below 1024: it is opened anew at a reload */
    bool has_ports;        /* network ports of its own (DPDK): packet sockets, interfaces, memory */
    bool has_calls_filter; /* system calls are filtered */
};

/** Another user, and only the capabilities that are needed. Before any thread runs and anything is
 * opened; limits that only root may raise are raised before. Errors: ERR_SYSTEM, ERR_NOT_FOUND (no
 * such user), with text in ret_why. */
enum err confine_user(const struct confine_options *options,
                      char ret_why[CONFINE_WHY_SIZE]) MUST_CHECK;
/** Only the system calls that are needed, for every thread that runs and will run. Errors:
 * ERR_SYSTEM, with text in ret_why. */
enum err confine_calls(const struct confine_options *options,
                       char ret_why[CONFINE_WHY_SIZE]) MUST_CHECK;
/** How this process is confined, as the kernel says: "user", "capabilities" (names),
 * "no_new_privileges", "system_calls_filtered", "dumpable". */
json_t *confine_posture(void);

#endif
