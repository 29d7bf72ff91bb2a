/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plays packet scripts against the engine: run_packet [--trace] FILE...
 *
 * Prints TAP, one line per file; after a failure: file, line, why, and the last of what was sent.
 * Each file is played in a process of its own, so that a failed CHECK in the engine is one failed
 * script. The language is described in tests/scenario/tcp/README.md; a statement is a row of
 * `statements` here, or begins with an arrow or the name of a peer.
 *
 * At the end of every script all flows are aborted, time passes, and the stack must hold nothing
 * any more.
 *
 * Limits: LINE_COUNT_MAX lines, REPEAT_DEPTH nested repeats.
 */
#include <ctype.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "tests/wire/script.h"

#define LINE_COUNT_MAX 2000u
#define REPEAT_DEPTH   2u
#define AFTERMATH      TICK_S(900)
#define DIALOGUE_SHOWN 8000u
#define EXIT_TOLD      2 /* it failed, and its line is written; sanitizers end with 1 */

static bool is_tracing;

/* ---- time ---- */

bool script_begin(struct script *script)
{
    if (script->world != NULL)
        return true;
    script->world = world_new(&script->options);
    script->world->on_event = script_on_event;
    script->world->context = script;
    script->clock = script->world->now;
    script->until += script->clock; /* this statement's time counted from 0 so far */
    script->from += script->clock;
    return true;
}

bool script_wait(struct script *script)
{
    if (!script_begin(script))
        return false;
    if (script->from > script->world->now)
        world_run(script->world, script->from);
    else
        world_settle(script->world);
    script->clock = script->from;
    return script_collect(script);
}

/* "+T" or "+T~U" in front of a statement. */
static bool take_time(struct script *script, const char **at)
{
    tick_us first = 0, last = SCRIPT_TOLERANCE;
    char word[SCRIPT_LINE_MAX];

    if (**at == '+') {
        if (!script_word(at, word))
            return false;
        char *tilde = strchr(word, '~');
        if (tilde != NULL)
            *tilde = '\0';
        if (!script_parse_time(word + 1, &first) ||
            (tilde != NULL && !script_parse_time(tilde + 1, &last)))
            return script_fail(script, "+TIME or +TIME~TIME");
        if (tilde == NULL)
            last = first + SCRIPT_TOLERANCE;
        while (**at == ' ')
            (*at)++;
    }
    script->from = script->clock + first;
    script->until = script->clock + last;
    return true;
}

/* ---- statements ---- */

static bool on_goal(struct script *script, const char *argument)
{
    snprintf(script->goal, sizeof(script->goal), "%s", argument);
    return true;
}

static bool on_wait(struct script *script, const char *argument)
{
    tick_us time;

    if (!script_parse_time(argument, &time))
        return script_fail(script, "wait TIME");
    if (!script_wait(script))
        return false;
    script_note(script, "-- wait %s", argument);
    world_run(script->world, script->clock + time);
    script->clock += time;
    return script_collect(script);
}

static void frames_free(struct world_frame **first, struct world_frame **last)
{
    while (*first != NULL) {
        struct world_frame *frame = *first;
        *first = frame->next;
        free(frame);
    }
    *last = NULL;
}

static bool on_forget(struct script *script, const char *argument)
{
    (void)argument;
    if (!script_wait(script))
        return false;
    for (uint32_t i = 0; i < script->peer_count; i++)
        frames_free(&script->peers[i].first, &script->peers[i].last);
    frames_free(&script->others_first, &script->others_last);
    return true;
}

static bool on_unplug(struct script *script, const char *argument)
{
    (void)argument;
    if (!script_wait(script))
        return false;
    link_sim_set_connected(script->world->link, 1, false);
    return true;
}

static bool on_plug(struct script *script, const char *argument)
{
    (void)argument;
    if (!script_wait(script))
        return false;
    link_sim_set_connected(script->world->link, 1, true);
    return true;
}

static const struct {
    const char *word;
    bool (*on_statement)(struct script *script, const char *argument);
} statements[] = {
    {"goal", on_goal},           {"policy", script_policy},         {"option", script_option},
    {"nic", script_nic},         {"address", script_world_address}, {"gateway", script_gateway},
    {"peer", script_peer},       {"listen", script_listen},         {"wait", on_wait},
    {"quiet", script_quiet},     {"others", script_others},         {"forget", on_forget},
    {"counter", script_counter}, {"usage", script_usage},           {"unplug", on_unplug},
    {"plug", on_plug},
};

/* ---- lines ---- */

static bool is_host_word(const char *text)
{
    static const char *const words[] = {"arp", "ns", "na", "echo", "icmp", "raw", "times"};
    char word[SCRIPT_LINE_MAX];

    if (!script_word(&text, word))
        return false;
    for (uint32_t i = 0; i < COUNT_OF(words); i++) {
        if (strcmp(words[i], word) == 0)
            return true;
    }
    return false;
}

/* The peer of that name; A needs no introduction. */
static struct script_peer *peer_of_name(struct script *script, const char *name)
{
    struct flow_address usual = world_peer4;
    struct script_peer *peer = script_peer_find(script, name);

    usual.port = 40000;
    if (peer == NULL && strcmp(name, "A") == 0)
        peer = script_peer_new(script, name, &usual);
    return peer;
}

static bool on_arrow(struct script *script, struct script_peer *peer, bool is_sent,
                     const char *text)
{
    if (!script_begin(script))
        return false;
    if (script_take(&text, "udp"))
        return is_sent ? script_udp_expect(script, peer, text)
                       : script_udp_inject(script, peer, text);
    if (is_sent && script_take(&text, "data"))
        return script_expect_data(script, peer, text);
    return is_sent ? script_expect(script, peer, text) : script_inject(script, peer, text);
}

static bool statement_run(struct script *script, const char *line)
{
    const char *at = line;
    char word[SCRIPT_LINE_MAX];

    if (!take_time(script, &at) || !script_word(&at, word))
        return script_fail(script, "`%s` is no statement", line);
    while (*at == ' ')
        at++;
    for (uint32_t i = 0; i < COUNT_OF(statements); i++) {
        if (strcmp(statements[i].word, word) == 0)
            return statements[i].on_statement(script, at);
    }
    bool is_arrow = strcmp(word, "<") == 0 || strcmp(word, ">") == 0;
    if (is_arrow && is_host_word(at)) {
        if (!script_begin(script))
            return false;
        return word[0] == '>' ? script_host_expect(script, at) : script_host_inject(script, at);
    }
    struct script_peer *peer = peer_of_name(script, is_arrow ? "A" : word);
    if (peer == NULL)
        return script_fail(script, "`%s` is no statement and no peer", word);
    if (is_arrow)
        return on_arrow(script, peer, word[0] == '>', at);
    if (script_take(&at, "<"))
        return on_arrow(script, peer, false, at);
    if (script_take(&at, ">"))
        return on_arrow(script, peer, true, at);
    if (script_take(&at, "open"))
        return script_open(script, peer, at);
    return script_flow_statement(script, peer, at);
}

/* ---- files ---- */

struct lines {
    char *lines[LINE_COUNT_MAX];
    uint32_t count;
};

static bool lines_read(struct lines *lines, const char *path)
{
    static char line[SCRIPT_LINE_MAX];
    FILE *file = fopen(path, "re");

    if (file == NULL)
        return false;
    while (fgets(line, sizeof(line), file) != NULL && lines->count < LINE_COUNT_MAX) {
        line[strcspn(line, "\r\n")] = '\0';
        lines->lines[lines->count++] = strdup(line);
    }
    fclose(file);
    return true;
}

static void lines_free(struct lines *lines)
{
    for (uint32_t i = 0; i < lines->count; i++)
        free(lines->lines[i]);
}

/* Where the `end` of the `repeat` on line `at` is; 0: nowhere. */
static uint32_t end_of_repeat(const struct lines *lines, uint32_t at)
{
    uint32_t depth = 0;

    for (uint32_t i = at; i < lines->count; i++) {
        depth += strncmp(lines->lines[i], "repeat ", 7) == 0;
        if (strcmp(lines->lines[i], "end") == 0 && --depth == 0)
            return i;
    }
    return 0;
}

static bool lines_play(struct script *script, const struct lines *lines, uint32_t from, uint32_t to,
                       uint32_t depth);

static bool repeat_play(struct script *script, const struct lines *lines, uint32_t at,
                        uint32_t depth, uint32_t *ret_end)
{
    const char *argument = lines->lines[at] + 7;
    int64_t count;

    *ret_end = end_of_repeat(lines, at);
    if (depth == REPEAT_DEPTH || *ret_end == 0 || !script_number(&argument, &count))
        return script_fail(script, "repeat N ... end, at most %u deep", REPEAT_DEPTH);
    for (int64_t i = 0; i < count; i++) {
        script->variables[depth] = i;
        if (!lines_play(script, lines, at + 1, *ret_end, depth + 1))
            return false;
    }
    return true;
}

static bool lines_play(struct script *script, const struct lines *lines, uint32_t from, uint32_t to,
                       uint32_t depth)
{
    char line[SCRIPT_LINE_MAX];

    for (uint32_t i = from; i < to; i++) {
        script->line = i + 1;
        if (lines->lines[i][0] == '#' || lines->lines[i][0] == '\0')
            continue;
        if (script->goal[0] == '\0' && strncmp(lines->lines[i], "goal ", 5) != 0)
            return script_fail(script, "the first statement is: goal TEXT");
        if (strncmp(lines->lines[i], "repeat ", 7) == 0) {
            if (!repeat_play(script, lines, i, depth, &i))
                return false;
            continue;
        }
        if (!script_substitute(script, lines->lines[i], line) || !statement_run(script, line) ||
            script->has_failed)
            return false;
    }
    return true;
}

/* ---- the end ---- */

static bool nothing_unexpected(struct script *script)
{
    struct test_segment segment;
    struct script_text text = {0};

    for (uint32_t i = 0; i < script->peer_count; i++) {
        const struct script_peer *peer = &script->peers[i];
        if (peer->first == NULL)
            continue;
        if (test_segment_parse(span_of(peer->first->octets, peer->first->size), &segment) == NULL)
            script_format_segment(peer, &segment, true, &text);
        (void)script_fail(script, "sent, but not expected: %s", text.data);
        free(text.data);
        return false;
    }
    return true;
}

/* Everybody leaves; after a while the stack must hold nothing. */
static bool script_clear(struct script *script)
{
    struct world *world = script->world;

    for (uint32_t i = 0; i < script->peer_count; i++) {
        struct script_peer *peer = &script->peers[i];
        buf_queue_fini(&peer->taken);
        if (peer->has_flow)
            flow_abort(world->plane, peer->flow);
    }
    for (uint32_t i = 0; i < script->listener_count; i++)
        flow_close(world->plane, script->listeners[i].flow);
    world_run(world, world->now + AFTERMATH);
    struct stack_usage usage = stack_get_usage(world->stack);
    if (world->is_restless)
        return script_fail(script, "the stack does not come to rest");
    if (usage.connections + usage.half_open + usage.time_wait + usage.orphans +
            usage.datagram_flows + usage.out_of_order_buffers + usage.sent_segments +
            usage.frames_waiting >
        0)
        return script_fail(script,
                           "afterwards: %u connections, %u half open, %u TIME_WAIT, %u orphans, "
                           "%u datagram flows, %u buffers out of order, %u sent segments, "
                           "%u frames waiting",
                           usage.connections, usage.half_open, usage.time_wait, usage.orphans,
                           usage.datagram_flows, usage.out_of_order_buffers, usage.sent_segments,
                           usage.frames_waiting);
    uint32_t pinned = buf_pool_in_use(world->receive_pool) + buf_pool_in_use(world->clone_pool) +
                      buf_pool_in_use(world->header_pool);
    return pinned == 0 || script_fail(script, "afterwards: %u buffers are pinned", pinned);
}

static void script_explain(const struct script *script)
{
    char *rest = NULL, *dialogue = script->dialogue.data;

    if (script->has_failed)
        printf("# %s:%u: %s\n", script->file, script->line, script->why.data);
    if (dialogue == NULL)
        return;
    if (!is_tracing && script->dialogue.size > DIALOGUE_SHOWN)
        dialogue += script->dialogue.size - DIALOGUE_SHOWN;
    for (char *line = strtok_r(dialogue, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest))
        printf("#   %s\n", line);
}

static void script_fini(struct script *script)
{
    for (uint32_t i = 0; i < script->peer_count; i++) {
        frames_free(&script->peers[i].first, &script->peers[i].last);
        buf_queue_fini(&script->peers[i].taken);
    }
    frames_free(&script->others_first, &script->others_last);
    if (script->world != NULL)
        world_free(script->world);
    free(script->dialogue.data);
    free(script->why.data);
}

static int script_child(const char *path, uint32_t number)
{
    static struct script script;
    static struct lines lines;

    script.file = path;
    script.options = world_options_default();
    bool is_good = lines_read(&lines, path) ? lines_play(&script, &lines, 0, lines.count, 0)
                                            : script_fail(&script, "cannot be read");
    is_good =
        is_good && (script.world == NULL || (nothing_unexpected(&script) && script_clear(&script)));
    printf("%s %u - %s: %s\n", is_good ? "ok" : "not ok", number, path, script.goal);
    if (!is_good || is_tracing)
        script_explain(&script);
    fflush(stdout);
    script_fini(&script);
    lines_free(&lines);
    return is_good ? 0 : EXIT_TOLD;
}

static bool script_run_file(const char *path, uint32_t number)
{
    int status = 0;

    fflush(stdout);
    pid_t child = fork();
    if (child == 0)
        exit(script_child(path, number));
    if (child < 0 || waitpid(child, &status, 0) != child)
        return false;
    if (WIFSIGNALED(status))
        printf("not ok %u - %s: ended by signal %d\n", number, path, WTERMSIG(status));
    else if (WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != EXIT_TOLD)
        printf("not ok %u - %s: ended with code %d\n", number, path, WEXITSTATUS(status));
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

int main(int argc, char **argv)
{
    int first = argc > 1 && strcmp(argv[1], "--trace") == 0 ? 2 : 1;
    bool is_good = true;

    is_tracing = first == 2;
    log_set_threshold(LOG_ERROR);
    printf("1..%d\n", argc - first);
    for (int i = first; i < argc; i++)
        is_good = script_run_file(argv[i], (uint32_t)(i - first + 1)) && is_good;
    return is_good ? 0 : 1;
}
