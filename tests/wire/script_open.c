/* SPDX-License-Identifier: Apache-2.0 */
/* `NAME open ...`: the handshake, passive or active, in one line of a packet script. */
#include <stdio.h>

#include "tests/wire/script.h"

struct opening {
    bool is_active, has_sack, has_timestamps, has_ecn;
    int64_t mss, window, scale, limit; /* scale < 0: not offered */
    tick_us rtt;
};

static bool opening_parse(struct script *script, const char *argument, struct opening *opening)
{
    char word[SCRIPT_LINE_MAX];
    bool is_good = true;

    *opening = (struct opening){.mss = 1460, .window = 65535, .scale = -1};
    while (is_good && script_word(&argument, word)) {
        if (strcmp(word, "active") == 0 || strcmp(word, "passive") == 0)
            opening->is_active = word[0] == 'a';
        else if (strcmp(word, "sack") == 0)
            opening->has_sack = true;
        else if (strcmp(word, "ts") == 0)
            opening->has_timestamps = true;
        else if (strcmp(word, "ecn") == 0)
            opening->has_ecn = true;
        else if (strcmp(word, "mss") == 0)
            is_good = script_number(&argument, &opening->mss);
        else if (strcmp(word, "win") == 0)
            is_good = script_number(&argument, &opening->window);
        else if (strcmp(word, "wscale") == 0)
            is_good = script_number(&argument, &opening->scale);
        else if (strcmp(word, "limit") == 0)
            is_good = script_number(&argument, &opening->limit);
        else if (strcmp(word, "rtt") == 0)
            is_good = script_word(&argument, word) && script_parse_time(word, &opening->rtt);
        else
            is_good = false;
    }
    return is_good || script_fail(script, "open: what is `%s`?", word);
}

static void opening_syn(const struct opening *opening, const char *flags, char *ret_text,
                        size_t size)
{
    char scale[32] = "";

    if (opening->scale >= 0)
        snprintf(scale, sizeof(scale), ",wscale %lld", (long long)opening->scale);
    snprintf(ret_text, size, "%s 0:0(0)%s win %lld <mss %lld%s%s%s>", flags,
             opening->is_active ? " ack 1" : "", (long long)opening->window,
             (long long)opening->mss, opening->has_sack ? ",sackOK" : "",
             opening->has_timestamps ? ",ts" : "", scale);
}

static void script_now(struct script *script, tick_us later)
{
    script->from = script->clock + later;
    script->until = script->from + SCRIPT_TOLERANCE;
}

static bool open_passive(struct script *script, struct script_peer *peer,
                         const struct opening *opening)
{
    char syn[256], ack[64];

    if (script_listener(script, &peer->local, (uint32_t)opening->limit) == NULL)
        return script_fail(script, "open: no listener");
    opening_syn(opening, opening->has_ecn ? "SEW" : "S", syn, sizeof(syn));
    snprintf(ack, sizeof(ack), ". 1:1(0) ack 1 win %lld", (long long)opening->window);
    if (!script_inject(script, peer, syn))
        return false;
    script_now(script, 0);
    if (!script_expect(script, peer, opening->has_ecn ? "SE. 0:0(0) ack 1" : "S. 0:0(0) ack 1"))
        return false;
    peer->next = 1;
    script_now(script, opening->rtt);
    if (!script_inject(script, peer, ack))
        return false;
    script_now(script, 0);
    return script_flow_statement(script, peer, "accept");
}

static bool open_active(struct script *script, struct script_peer *peer,
                        const struct opening *opening)
{
    char connect[64] = "connect", answer[256];

    if (opening->limit > 0)
        snprintf(connect, sizeof(connect), "connect limit %lld", (long long)opening->limit);
    if (!script_flow_statement(script, peer, connect))
        return false;
    script_now(script, 0);
    if (!script_expect(script, peer, opening->has_ecn ? "SEW 0:0(0)" : "S 0:0(0)"))
        return false;
    opening_syn(opening, opening->has_ecn ? "SE." : "S.", answer, sizeof(answer));
    script_now(script, opening->rtt);
    if (!script_inject(script, peer, answer))
        return false;
    script_now(script, 0);
    if (!script_expect(script, peer, ". 1:1(0) ack 1"))
        return false;
    script_now(script, 0);
    return script_flow_statement(script, peer, "connected");
}

/* NAME open [active] [mss N] [win N] [wscale N] [sack] [ts] [ecn] [limit N] [rtt TIME] */
bool script_open(struct script *script, struct script_peer *peer, const char *argument)
{
    struct opening opening;

    if (!opening_parse(script, argument, &opening) || !script_wait(script))
        return false;
    return opening.is_active ? open_active(script, peer, &opening)
                             : open_passive(script, peer, &opening);
}
