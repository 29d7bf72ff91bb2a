/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_UPGRADE_LINK_H
#define CONTROL_UPGRADE_LINK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

/*
 * What two relays tell each other while one takes the other's place, over a pair of connected Unix
 * sockets that keep messages apart (SOCK_SEQPACKET). A message has one size; descriptors travel
 * with it. See upgrade_link.c for the octets, daemon_upgrade.c for who says what when.
 */
#define UPGRADE_SOCKETS_MAX 32u  /* of one message */
#define UPGRADE_TEXT_SIZE   256u /* with its NUL */

enum upgrade_kind {
    UPGRADE_OFFER = 1, /* old: descriptors, as many messages as it takes */
    UPGRADE_OFFERED,   /* old: these were all; text: the service manager's socket, if it has one */
    UPGRADE_READY,     /* new: everything is made and runs */
    UPGRADE_GO,        /* old: what users and client networks did is on the disk; number: us to its
                          end at most */
    UPGRADE_TAKEN,     /* new: from here on the place is mine */
    UPGRADE_LEFT,      /* old: who watches us knows it */
    UPGRADE_KIND_END
};

enum upgrade_role { /* of a descriptor */
                    UPGRADE_ROLE_MAIL = 1,
                    UPGRADE_ROLE_CONTROL,
                    UPGRADE_ROLE_HTTP,
                    UPGRADE_ROLE_HTTP_LOCAL,
                    UPGRADE_ROLE_OUTPUT,
                    UPGRADE_ROLE_ERRORS,
                    UPGRADE_ROLE_SPOOL, /* its directory, to be compared */
                    UPGRADE_ROLE_END
};

struct upgrade_socket {
    int fd;
    enum upgrade_role role;
};

struct upgrade_message {
    enum upgrade_kind kind;
    uint32_t socket_count;
    struct upgrade_socket sockets[UPGRADE_SOCKETS_MAX];
    uint64_t number; /* OFFERED: the service manager's watchdog, in us; 0: none; or as told above */
    char text[UPGRADE_TEXT_SIZE]; /* a line */
};

/** A pair of ends, closed on exec. Errors: ERR_SYSTEM. */
enum err upgrade_link_new(int ret_fds[2]) MUST_CHECK;
/**
 * One message, and its descriptors, whose duplicates the other end gets.
 *
 * Bounds:    CHECKs those of the message. Blocks as long as the socket does.
 * Ownership: descriptors stay the caller's.
 * Errors:    ERR_PEER_CLOSED: nobody is there any more, or it does not listen.
 */
enum err upgrade_link_send(int fd, const struct upgrade_message *message) MUST_CHECK;
/**
 * The next message.
 *
 * Ownership: with ERR_OK its descriptors are the caller's, closed on exec; otherwise those that
 * came were closed. Errors:    ERR_AGAIN: none is there (a descriptor that does not block).
 * ERR_PEER_CLOSED. ERR_PEER_SYNTAX: it is no such message, or of another version.
 */
enum err upgrade_link_receive(int fd, struct upgrade_message *ret_message) MUST_CHECK;
/** Close what came with it. */
void upgrade_message_close(struct upgrade_message *message);

#endif
