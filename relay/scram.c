/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client's first message of SCRAM (RFC 5802 section 7):
 *
 *     client-first-message = gs2-header client-first-message-bare
 *     gs2-header           = ("n" / "y" / "p=" cb-name) "," [ "a=" saslname ] ","
 *     client-first-message-bare = [ "m=" ... "," ] "n=" saslname "," "r=" ... [ "," extensions ]
 *
 * "p=" needs a mechanism with -PLUS, which is not offered; "a=" acts for somebody else, which is
 * nobody's right here; "m=" is for what no version of SCRAM has yet. All three are refused.
 */
#include "relay/scram.h"

#include <string.h>

static bool prefix_take(struct span *rest, struct span prefix)
{
    if (rest->size < prefix.size || memcmp(rest->data, prefix.data, prefix.size) != 0)
        return false;
    *rest = span_skip(*rest, prefix.size);
    return true;
}

/* "=2C" is a comma, "=3D" an equals sign; no other "=" may be in a name. 0: it is none. */
static uint8_t escaped_take(struct span *rest)
{
    if (prefix_take(rest, SPAN_LITERAL("=2C")))
        return ',';
    return prefix_take(rest, SPAN_LITERAL("=3D")) ? '=' : 0;
}

enum err scram_name(struct span message, char ret_name[AUTH_NAME_MAX + 1], uint32_t *ret_size)
{
    char name[AUTH_NAME_MAX + 1];
    uint32_t size = 0;

    if (!prefix_take(&message, SPAN_LITERAL("n,,n=")) &&
        !prefix_take(&message, SPAN_LITERAL("y,,n=")))
        return ERR_PEER_SYNTAX;
    while (message.size > 0 && message.data[0] != ',') {
        uint8_t octet = message.data[0];
        if (octet == '=')
            octet = escaped_take(&message);
        else
            message = span_skip(message, 1);
        if (octet < ' ' || octet == 127 || size == AUTH_NAME_MAX)
            return ERR_PEER_SYNTAX;
        name[size++] = (char)octet;
    }
    if (size == 0 || !prefix_take(&message, SPAN_LITERAL(",r=")) || message.size == 0)
        return ERR_PEER_SYNTAX;
    memcpy(ret_name, name, size);
    ret_name[size] = '\0';
    *ret_size = size;
    return ERR_OK;
}
