/* SPDX-License-Identifier: Apache-2.0 */
/* What a packet script says of its world before anything happens in it: policy, limits, the card,
 * addresses. */
#include <stdio.h>

#include "tests/wire/script.h"

enum setting_kind { SETTING_BOOL, SETTING_U8, SETTING_U16, SETTING_U32, SETTING_TIME };

struct setting {
    const char *name;
    enum setting_kind kind;
    size_t offset;
};

#define TCP(field, kind)                                                                           \
    {                                                                                              \
#field, kind, offsetof(struct world_options, tcp.field)                                    \
    }
#define LIMIT(field, kind)                                                                         \
    {                                                                                              \
#field, kind, offsetof(struct world_options, stack.field)                                  \
    }
#define WORLD(field, kind)                                                                         \
    {                                                                                              \
#field, kind, offsetof(struct world_options, field)                                        \
    }
#define NIC(name, field, kind)                                                                     \
    {                                                                                              \
        name, kind, offsetof(struct world_options, nic.field)                                      \
    }

static const struct setting policies[] = {
    TCP(mss_min, SETTING_U16),
    TCP(window_scale_max, SETTING_U8),
    TCP(has_sack, SETTING_BOOL),
    TCP(has_timestamps, SETTING_BOOL),
    TCP(has_window_scale, SETTING_BOOL),
    TCP(has_ecn, SETTING_BOOL),
    TCP(receive_window_start, SETTING_U32),
    TCP(receive_window_max, SETTING_U32),
    TCP(send_window_max, SETTING_U32),
    TCP(initial_window, SETTING_U32),
    TCP(rto_initial, SETTING_TIME),
    TCP(rto_min, SETTING_TIME),
    TCP(rto_max, SETTING_TIME),
    TCP(delayed_ack_time, SETTING_TIME),
    TCP(quick_acks, SETTING_U32),
    TCP(syn_ack_time, SETTING_TIME),
    TCP(syn_ack_retries, SETTING_U32),
    TCP(time_wait_time, SETTING_TIME),
    TCP(fin_wait_2_time, SETTING_TIME),
    TCP(user_time, SETTING_TIME),
    TCP(is_newreno, SETTING_BOOL),
    TCP(out_of_order_segments_max, SETTING_U32),
    TCP(out_of_order_octets_max, SETTING_U32),
    TCP(challenge_acks_per_second, SETTING_U32),
};

static const struct setting limits[] = {
    LIMIT(flow_count_max, SETTING_U32),
    LIMIT(time_wait_max, SETTING_U32),
    LIMIT(syn_cache_max, SETTING_U32),
    LIMIT(neighbour_max, SETTING_U32),
    LIMIT(destination_max, SETTING_U32),
    LIMIT(connections_per_prefix_max, SETTING_U32),
    LIMIT(orphan_time, SETTING_TIME),
    LIMIT(receive_reserve, SETTING_U32),
    WORLD(mtu, SETTING_U16),
    WORLD(vlan, SETTING_U16),
    WORLD(buffer_size, SETTING_U32),
    WORLD(buffer_count, SETTING_U32),
    WORLD(receive_count, SETTING_U32),
    WORLD(header_count, SETTING_U32),
    WORLD(clone_count, SETTING_U32),
    WORLD(is_neighbour_manual, SETTING_BOOL),
    WORLD(is_verified, SETTING_BOOL),
};

static const struct setting nic_settings[] = {
    NIC("mtu_max", mtu_max, SETTING_U16),
    NIC("segments_max", segments_max, SETTING_U16),
    NIC("tso_size_max", tso_size_max, SETTING_U32),
    NIC("split", split, SETTING_U16),
    NIC("refuse", refuse, SETTING_U32),
    NIC("exception", has_exception, SETTING_BOOL),
};

static bool setting_write(void *field, enum setting_kind kind, int64_t value, tick_us time)
{
    switch (kind) {
    case SETTING_BOOL:
        *(bool *)field = value != 0;
        return value == 0 || value == 1;
    case SETTING_U8:
        *(uint8_t *)field = (uint8_t)value;
        return value >= 0 && value <= UINT8_MAX;
    case SETTING_U16:
        *(uint16_t *)field = (uint16_t)value;
        return value >= 0 && value <= UINT16_MAX;
    case SETTING_U32:
        *(uint32_t *)field = (uint32_t)value;
        return value >= 0 && value <= UINT32_MAX;
    default:
        *(tick_us *)field = time;
        return true;
    }
}

static bool setting_take(struct script *script, const struct setting *settings, uint32_t count,
                         const char *argument)
{
    char name[SCRIPT_LINE_MAX], word[SCRIPT_LINE_MAX];
    int64_t value = 0;
    tick_us time = 0;

    if (script->world != NULL)
        return script_fail(script, "that comes before everything that happens");
    if (!script_word(&argument, name) || !script_word(&argument, word))
        return script_fail(script, "NAME VALUE");
    for (uint32_t i = 0; i < count; i++) {
        if (strcmp(settings[i].name, name) != 0)
            continue;
        bool is_read = settings[i].kind == SETTING_TIME ? script_parse_time(word, &time)
                                                        : script_is_number(word, &value);
        void *field = (char *)&script->options + settings[i].offset;
        if (!is_read || !setting_write(field, settings[i].kind, value, time))
            return script_fail(script, "%s cannot be `%s`", name, word);
        return true;
    }
    return script_fail(script, "there is no `%s`", name);
}

/* policy NAME VALUE; policy syn_times T T ... */
bool script_policy(struct script *script, const char *argument)
{
    tick_us *times = script->options.tcp.syn_times;
    char word[SCRIPT_LINE_MAX];

    if (!script_take(&argument, "syn_times"))
        return setting_take(script, policies, COUNT_OF(policies), argument);
    memset(times, 0, sizeof(script->options.tcp.syn_times));
    for (uint32_t i = 0; script_word(&argument, word); i++) {
        if (i == COUNT_OF(script->options.tcp.syn_times) || !script_parse_time(word, &times[i]))
            return script_fail(script, "policy syn_times TIME... (at most %zu)",
                               COUNT_OF(script->options.tcp.syn_times));
    }
    return true;
}

bool script_option(struct script *script, const char *argument)
{
    return setting_take(script, limits, COUNT_OF(limits), argument);
}

/* nic WORD...: offloads by name, or NAME VALUE */
bool script_nic(struct script *script, const char *argument)
{
    static const struct {
        const char *name;
        uint32_t offload;
    } offloads[] = {{"ip4", NIC_TX_IP4_CHECKSUM},    {"tcp", NIC_TX_TCP_CHECKSUM},
                    {"udp", NIC_TX_UDP_CHECKSUM},    {"tso", NIC_TX_TSO},
                    {"chain", NIC_TX_MULTI_SEGMENT}, {"rx", NIC_RX_CHECKSUM}};
    const char *rest = argument;
    char word[SCRIPT_LINE_MAX];

    while (script_word(&rest, word)) {
        uint32_t i = 0;
        while (i < COUNT_OF(offloads) && strcmp(offloads[i].name, word) != 0)
            i++;
        if (i == COUNT_OF(offloads))
            return setting_take(script, nic_settings, COUNT_OF(nic_settings), argument);
        script->options.nic.offloads |= offloads[i].offload;
    }
    return true;
}

/* address IP/BITS: one more of the stack's */
bool script_world_address(struct script *script, const char *argument)
{
    struct world_options *options = &script->options;
    char word[SCRIPT_LINE_MAX];
    int64_t bits;

    if (script->world != NULL || options->address_count == COUNT_OF(options->addresses) ||
        !script_word(&argument, word))
        return script_fail(script, "address IP/BITS, before everything that happens");
    char *slash = strchr(word, '/');
    if (slash == NULL || !script_is_number(slash + 1, &bits) || bits < 0 || bits > 128)
        return script_fail(script, "address IP/BITS");
    *slash = '\0';
    struct stack_address *address = &options->addresses[options->address_count++];
    address->prefix_bits = (uint8_t)bits;
    return script_address(word, &address->address) || script_fail(script, "address IP/BITS");
}

bool script_gateway(struct script *script, const char *argument)
{
    struct flow_address gateway;
    char word[SCRIPT_LINE_MAX];

    if (script->world != NULL || !script_word(&argument, word) || !script_address(word, &gateway))
        return script_fail(script, "gateway IP, before everything that happens");
    if (gateway.family == FLOW_FAMILY_IP4)
        script->options.gateway4 = gateway;
    else
        script->options.gateway6 = gateway;
    return true;
}
