/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The counters of a stack by name. Each is a row of wire_counter.def, which makes the enum, these
 * names and the operator's documentation.
 */
#include "dataplane/wire/net/net.h"

#define NAME_SIZE 40u
/* Character `i` of a symbol in lower case, NUL behind its end: so the names are constants, written
 * once. */
#define AT(text, i) ((text)[(i) < sizeof(text) ? (i) : sizeof(text) - 1])
#define LOWER(text, i)                                                                             \
    ((char)(AT(text, i) >= 'A' && AT(text, i) <= 'Z' ? AT(text, i) + 32 : AT(text, i)))
#define LOWER4(text, i)                                                                            \
    LOWER(text, i), LOWER(text, (i) + 1), LOWER(text, (i) + 2), LOWER(text, (i) + 3)
#define LOWER20(text, i)                                                                           \
    LOWER4(text, i), LOWER4(text, (i) + 4), LOWER4(text, (i) + 8), LOWER4(text, (i) + 12),         \
        LOWER4(text, (i) + 16)

static const struct counter_row {
    char name[NAME_SIZE];
    const char *severity, *text, *meaning;
} counter_rows[STACK_COUNTER_COUNT] = {
#define X(symbol, severity, text, meaning)                                                         \
    {{LOWER20(#symbol, 0), LOWER20(#symbol, 20)}, #severity, text, meaning},
#include "dataplane/wire/wire_counter.def"
#undef X
};
#define X(symbol, severity, text, meaning)                                                         \
    _Static_assert(sizeof(#symbol) <= NAME_SIZE, "a name ends with NUL");
#include "dataplane/wire/wire_counter.def"
#undef X

const char *stack_counter_name(enum stack_counter counter)
{
    CHECK(counter < STACK_COUNTER_COUNT);
    return counter_rows[counter].name;
}

const char *stack_counter_text(enum stack_counter counter)
{
    CHECK(counter < STACK_COUNTER_COUNT);
    return counter_rows[counter].text;
}

const char *stack_counter_severity(enum stack_counter counter)
{
    CHECK(counter < STACK_COUNTER_COUNT);
    return counter_rows[counter].severity;
}

const char *stack_counter_meaning(enum stack_counter counter)
{
    CHECK(counter < STACK_COUNTER_COUNT);
    return counter_rows[counter].meaning;
}

uint64_t stack_counter(const struct stack *stack, enum stack_counter counter)
{
    CHECK(counter < STACK_COUNTER_COUNT);
    return stack->counters[counter];
}

bool stack_stage_cycles(const struct stack *stack, uint32_t index, const char **ret_name,
                        const char **ret_text, uint64_t *ret_cycles)
{
#ifdef STACK_STAGES
    static const char *const rows[][2] = {
#define X(name, text) {"stage_" #name, text},
        STACK_STAGES_X(X)
#undef X
    };

    if (index >= STACK_STAGE_COUNT)
        return false;
    *ret_name = rows[index][0];
    *ret_text = rows[index][1];
    *ret_cycles = stack->stages.cycles[index];
    return true;
#else
    (void)stack, (void)index, (void)ret_name, (void)ret_text, (void)ret_cycles;
    return false;
#endif
}
