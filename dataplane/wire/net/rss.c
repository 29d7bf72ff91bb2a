/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Toeplitz, the hash by which nics choose a queue (receive side scaling): every bit of the input
 * that is 1 contributes the 32 bits of the key that begin at its place. The input is source and
 * destination address, then source and destination port, as they are in the packet.
 *
 * It is linear: H(a XOR b) = H(a) XOR H(b). So an octet contributes the same whatever the others
 * are, and struct rss_table holds the contribution of every value at every place. Hashing a tuple
 * then takes an XOR per octet, and choosing a port for a connection whose replies must reach our
 * queue takes one base per connection and two XORs per port that is tried.
 *
 * rss_hash() is the definition, bit by bit; it makes the tables and is what they are tested by.
 * The hash is no secret and no protection: whoever knows the key makes tuples for any queue.
 */
#include <stdlib.h>

#include "dataplane/wire/net/net.h"

_Static_assert(NIC_RSS_KEY_SIZE >= RSS_TUPLE_SIZE_MAX + 4, "the last bit has 32 bits of key");

/* The 32 bits of the key from `bit` on. */
static uint32_t key_window(const uint8_t *key, uint32_t bit)
{
    const uint8_t *octets = key + bit / 8;
    uint64_t window = (uint64_t)load_be32(octets) << 8 | octets[4];

    return (uint32_t)(window >> (8 - bit % 8));
}

static uint32_t octet_hash(const uint8_t *key, uint32_t place, uint8_t octet)
{
    uint32_t hash = 0;

    for (uint32_t bit = 0; bit < 8; bit++) {
        if ((octet & 0x80u >> bit) != 0)
            hash ^= key_window(key, 8 * place + bit);
    }
    return hash;
}

uint32_t rss_hash(const uint8_t key[NIC_RSS_KEY_SIZE], uint8_t family, const uint8_t source[16],
                  const uint8_t destination[16], uint16_t source_port, uint16_t destination_port)
{
    uint32_t ip_size = rss_ip_size(family), hash = 0;
    uint8_t tuple[RSS_TUPLE_SIZE_MAX];

    memcpy(tuple, source, ip_size);
    memcpy(tuple + ip_size, destination, ip_size);
    store_be16(tuple + 2 * ip_size, source_port);
    store_be16(tuple + 2 * ip_size + 2, destination_port);
    for (uint32_t i = 0; i < 2 * ip_size + 4; i++)
        hash ^= octet_hash(key, i, tuple[i]);
    return hash;
}

struct rss_table *rss_table_new(const uint8_t key[NIC_RSS_KEY_SIZE])
{
    struct rss_table *table = malloc(sizeof(*table));

    CHECK(table != NULL);
    for (uint32_t place = 0; place < RSS_TUPLE_SIZE_MAX; place++) {
        for (uint32_t octet = 0; octet < 256; octet++)
            table->octets[place][octet] = octet_hash(key, place, (uint8_t)octet);
    }
    return table;
}

void rss_table_free(struct rss_table *table)
{
    free(table);
}

uint32_t rss_base(const struct rss_table *table, uint8_t family, const uint8_t remote[16],
                  const uint8_t local[16], uint16_t remote_port)
{
    uint32_t ip_size = rss_ip_size(family), hash = 0;

    for (uint32_t i = 0; i < ip_size; i++)
        hash ^= table->octets[i][remote[i]] ^ table->octets[ip_size + i][local[i]];
    return hash ^ table->octets[2 * ip_size][remote_port >> 8] ^
           table->octets[2 * ip_size + 1][remote_port & 0xff];
}
