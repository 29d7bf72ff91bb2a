/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The body scanner: one tokenizer for all listeners and all clients, with one rule for the end of
 * data. There is no mode that is guessed from the first line and no leniency for anybody, since two
 * servers that disagree about the end of a message are how mail is smuggled (CVE-2023-51764 and its
 * kin).
 *
 * Two loops share one state. The fast loop takes blocks of 64 octets, and what is left of a piece,
 * in which nothing happens, and the variant with AVX2 whole pieces of the kind; the careful loop
 * below takes the octets where something does, one by one:
 *
 *   START    at the beginning of a line: after CRLF, or at the very beginning
 *   TEXT     inside a line
 *   CR       after a CR that was passed on
 *   CR_HELD  after a CR that was not passed on yet (normalizing only: LF makes it a line end)
 *   DOT      DATA: after the first dot of a line, which is never content
 *   DOT_CR   DATA: after CR LF "." CR; LF ends the data, all else makes the CR a stray one
 *
 *   START -'.'-> DOT -CR-> DOT_CR -LF-> end          START, TEXT -CR-> CR -LF-> START
 *
 * Invariants
 *   1. is_end is set by exactly one edge: DOT_CR on LF, and DOT is entered only from START, which
 *      only CRLF (or the beginning) leads to. A bare LF never leads to START. Where all three
 *      octets are there, START goes this way in one step.
 *   2. The result does not depend on how the octets are split over calls.
 *   3. With normalizing off, content with a stray CR, a bare LF or NUL is flagged and is not to be
 *      stored; a stray CR after a line's first dot is then not passed on.
 *   4. With normalizing on, the stored form holds CR and LF only as CRLF.
 *
 * Lines are counted in octets of the stored form, with CRLF.
 * Not here: sizes, verdicts and replies (smtpd_body.c), dot-stuffing on the way out.
 */
#include "relay/smtp_body.h"

#include <endian.h>

#include "relay/smtp_body_block.h"

enum body_state { BODY_START, BODY_TEXT, BODY_CR, BODY_CR_HELD, BODY_DOT, BODY_DOT_CR };

#define FAST_MIN     8u  /* fewer octets are taken one by one sooner */
#define CAREFUL_SIZE 16u /* then the fast loop tries again */

#define ONES  0x0101010101010101ull
#define HIGHS 0x8080808080808080ull

/* The high bit of every octet of `word` that equals `octet`, exactly. */
static inline uint64_t word_equal(uint64_t word, uint8_t octet)
{
    uint64_t difference = word ^ (ONES * octet);

    return ~(((difference & ~HIGHS) + ~HIGHS) | difference) & HIGHS;
}

/* Gather the high bits of eight octets into the low eight bits, first octet first. */
static inline uint64_t word_bits(uint64_t highs)
{
    return (highs >> 7) * 0x0102040810204080ull >> 56;
}

/* Bit n: octet n. */
struct block_masks {
    uint64_t cr, lf, dot;
};

/*
 * Advance over a block of `size` octets in which every CR is before an LF and every LF behind a CR,
 * and, in DATA, no line begins with a dot. Returns `size`; with nothing changed the number of
 * octets in front of the first that is not like that.
 * 1 to SMTP_BODY_BLOCK octets; no bits at or above `size`.
 */
static uint32_t block_step(struct smtp_body_run *run, const struct block_masks *masks,
                           uint32_t size)
{
    uint64_t inside = UINT64_MAX >> (SMTP_BODY_BLOCK - size);
    uint64_t behind_cr = (masks->cr << 1 | (uint64_t)run->is_cr) & inside;
    uint64_t starts = masks->lf << 1 | (uint64_t)run->is_start;
    uint64_t dots = masks->dot & starts;
    uint64_t bad = (behind_cr ^ masks->lf) | (run->is_data ? dots : 0);

    if (__builtin_expect(bad != 0, 0))
        return (uint32_t)__builtin_ctzll(bad);
    if (__builtin_expect(dots != 0, 0))
        run->flags |= SMTP_BODY_DOT_LINES;
    run->is_cr = masks->cr >> (size - 1) & 1;
    run->is_start = masks->lf >> (size - 1) & 1;

    /* Only the block's first line can be the end of a long one: the others begin in the block. */
    uint64_t first = masks->lf != 0 ? (uint64_t)__builtin_ctzll(masks->lf) : size;
    if (__builtin_expect(run->line_size + first + (masks->lf != 0) > run->line_size_max, 0))
        run->flags |= SMTP_BODY_LONG_LINE;
    run->line_size = masks->lf != 0
                         ? (uint64_t)__builtin_clzll(masks->lf) - (SMTP_BODY_BLOCK - size)
                         : run->line_size + size;
    return size;
}

static uint32_t block_take(struct smtp_body_run *run, const uint8_t *block, uint32_t size)
{
    struct block_masks masks = {0};
    uint64_t any = 0, nul = 0;

    for (uint32_t i = 0; i < SMTP_BODY_BLOCK; i += 8) {
        uint64_t word;
        memcpy(&word, block + i, sizeof(word));
        word = le64toh(word);
        masks.cr |= word_bits(word_equal(word, '\r')) << i;
        masks.lf |= word_bits(word_equal(word, '\n')) << i;
        masks.dot |= word_bits(word_equal(word, '.')) << i;
        any |= word;
        nul |= word_equal(word, 0);
    }
    uint32_t fit = block_step(run, &masks, size);
    if (fit < size)
        return fit;
    run->flags |= (any & HIGHS) != 0 ? SMTP_BODY_EIGHT_BIT : 0;
    run->flags |= nul != 0 ? SMTP_BODY_NUL : 0;
    return size;
}

/* A block with fewer octets, as far as nothing happens in it; returns how far that is. */
static uint32_t part_take(struct smtp_body_run *run, const uint8_t *data, uint32_t size)
{
    uint8_t block[SMTP_BODY_BLOCK] UNINITIALIZED;
    uint32_t fit = size;

    while (size > 0) { /* twice at most: what fits once fits again */
        smtp_body_block_pad(block, data, size);
        fit = block_take(run, block, size);
        if (fit == size)
            break;
        size = fit;
    }
    return fit;
}

static uint32_t run_portable(struct smtp_body_run *run, const uint8_t *data, uint32_t size)
{
    uint32_t done = 0, fit = SMTP_BODY_BLOCK;

    while (size - done >= SMTP_BODY_BLOCK) {
        fit = block_take(run, data + done, SMTP_BODY_BLOCK);
        if (fit < SMTP_BODY_BLOCK)
            break;
        done += SMTP_BODY_BLOCK;
    }
    return done + part_take(run, data + done, fit < SMTP_BODY_BLOCK ? fit : size - done);
}

void smtp_body_init(struct smtp_body *body, bool is_data, bool is_normalizing,
                    uint32_t line_size_max, enum smtp_body_variant variant)
{
    CHECK(line_size_max >= SMTP_BODY_BLOCK);
    CHECK(variant != SMTP_BODY_AVX2 || smtp_body_has_avx2());
    bool use_avx2 = variant != SMTP_BODY_PORTABLE && smtp_body_has_avx2();
    *body = (struct smtp_body){
        .run = {.is_data = is_data, .is_start = true, .line_size_max = line_size_max},
        .run_fast = use_avx2 ? smtp_body_run_avx2 : run_portable,
        .state = BODY_START,
        .is_normalizing = is_normalizing,
    };
}

/* Blocks, in the states that the fast loop knows. */
static uint32_t scan_blocks(struct smtp_body *body, struct span octets)
{
    if (body->state > BODY_CR || octets.size < FAST_MIN || body->is_after_bare_lf)
        return 0;
    body->run.is_start = body->state == BODY_START;
    body->run.is_cr = body->state == BODY_CR;
    uint32_t done = body->run_fast(&body->run, octets.data, octets.size);
    if (done > 0) {
        body->state = body->run.is_start ? BODY_START : body->run.is_cr ? BODY_CR : BODY_TEXT;
        /* The CR was passed on before it was known to be half of a line end; in the stored form a
         * stray one would have to be a space, so normalizing takes it back. */
        if (body->state == BODY_CR && body->is_normalizing) {
            body->state = BODY_TEXT;
            body->run.line_size -= 1;
            done -= 1;
        }
    }
    return done;
}

static void count_octet(struct smtp_body *body, uint8_t octet)
{
    body->run.line_size += 1;
    if (body->run.line_size > body->run.line_size_max)
        body->run.flags |= SMTP_BODY_LONG_LINE;
    if (octet >= 0x80)
        body->run.flags |= SMTP_BODY_EIGHT_BIT;
    else if (octet == 0)
        body->run.flags |= SMTP_BODY_NUL;
}

/* An octet other than CR and LF, or a CR or LF out of place, becomes content at the beginning of a
 * stored line or inside one. */
static void enter_text(struct smtp_body *body, uint8_t octet, bool is_line_start)
{
    if (octet == '.' && is_line_start)
        body->run.flags |= SMTP_BODY_DOT_LINES;
    body->is_after_bare_lf = false;
    count_octet(body, octet);
    body->state = BODY_TEXT;
}

static void end_line(struct smtp_body *body)
{
    count_octet(body, '\n');
    body->run.line_size = 0;
    body->is_after_bare_lf = false;
    body->state = BODY_START;
}

/* A CR where a line may end: passed on, or held until it is known what follows. */
static struct smtp_body_step take_cr(struct smtp_body *body, uint32_t at)
{
    body->is_after_bare_lf = false;
    count_octet(body, '\r');
    body->state = body->is_normalizing ? BODY_CR_HELD : BODY_CR;
    return (struct smtp_body_step){.pass = at, .skip = body->is_normalizing ? 1 : 0};
}

/* An LF without a CR. */
static struct smtp_body_step take_bare_lf(struct smtp_body *body, uint32_t at)
{
    body->run.flags |= SMTP_BODY_BARE_LF;
    count_octet(body, '\n');
    body->state = BODY_TEXT;
    if (!body->is_normalizing)
        return (struct smtp_body_step){.pass = at};
    body->is_after_bare_lf = true;
    body->run.line_size = 0;
    return (struct smtp_body_step){.pass = at, .skip = 1, .insert = SPAN_LITERAL("\r\n")};
}

/* The held CR turned out to be stray: a space in its place, and the octet is looked at again. */
static struct smtp_body_step give_stray_cr(struct smtp_body *body, uint32_t at)
{
    body->run.flags |= SMTP_BODY_BARE_CR;
    body->state = BODY_TEXT;
    return (struct smtp_body_step){.pass = at, .insert = SPAN_LITERAL(" ")};
}

/* DATA: a dot at the beginning of a line, and the end of data where all of it is here. */
static struct smtp_body_step take_dot(struct smtp_body *body, struct span octets, uint32_t at)
{
    bool is_end = octets.size - at >= 3 && memcmp(octets.data + at, ".\r\n", 3) == 0;

    body->state = is_end ? BODY_START : BODY_DOT;
    return (struct smtp_body_step){.pass = at, .skip = is_end ? 3 : 1, .is_end = is_end};
}

/* What one octet does. True: the scan stops here with *step, whose pass is set and whose skip says
 * how much was used; false: the octet passed. */
static bool scan_octet(struct smtp_body *body, struct span octets, uint32_t at,
                       struct smtp_body_step *step)
{
    uint8_t octet = octets.data[at];

    switch ((enum body_state)body->state) {
    case BODY_START:
        if (octet == '.' && body->run.is_data) {
            *step = take_dot(body, octets, at);
            return true;
        }
        break;
    case BODY_TEXT:
        break;
    case BODY_CR:
        if (octet == '\n') {
            end_line(body);
            return false;
        }
        body->run.flags |= SMTP_BODY_BARE_CR;
        body->state = BODY_TEXT;
        break;
    case BODY_CR_HELD:
        if (octet == '\n') {
            end_line(body);
            *step = (struct smtp_body_step){.pass = at, .skip = 1, .insert = SPAN_LITERAL("\r\n")};
        } else {
            *step = give_stray_cr(body, at);
        }
        return true;
    case BODY_DOT:
        if (octet == '\r') {
            body->state = BODY_DOT_CR;
            *step = (struct smtp_body_step){.pass = at, .skip = 1};
            return true;
        }
        break;
    case BODY_DOT_CR:
        if (octet == '\n') {
            body->state = BODY_START;
            *step = (struct smtp_body_step){.pass = at, .skip = 1, .is_end = true};
            return true;
        }
        count_octet(body, '\r');
        if (body->is_normalizing) {
            *step = give_stray_cr(body, at);
            return true;
        }
        body->run.flags |= SMTP_BODY_BARE_CR;
        body->state = BODY_TEXT;
        break;
    }
    if (octet == '\r') {
        *step = take_cr(body, at);
        return step->skip > 0;
    }
    if (octet == '\n') {
        *step = take_bare_lf(body, at);
        return step->skip > 0;
    }
    enter_text(body, octet,
               body->state == BODY_START || body->state == BODY_DOT || body->is_after_bare_lf);
    return false;
}

struct smtp_body_step smtp_body_scan(struct smtp_body *body, struct span octets)
{
    struct smtp_body_step step = {0};
    uint32_t at = 0;

    while (at < octets.size) {
        at += scan_blocks(body, span_skip(octets, at));
        uint32_t stop = octets.size - at > CAREFUL_SIZE ? at + CAREFUL_SIZE : octets.size;
        for (; at < stop; at++) {
            if (scan_octet(body, octets, at, &step))
                return step;
        }
    }
    return (struct smtp_body_step){.pass = at};
}

struct span smtp_body_finish(struct smtp_body *body)
{
    bool was_held = body->state == BODY_CR_HELD;

    CHECK(!body->run.is_data);
    if (was_held || body->state == BODY_CR) {
        body->run.flags |= SMTP_BODY_BARE_CR;
        body->state = BODY_TEXT;
    }
    return was_held ? SPAN_LITERAL(" ") : SPAN_LITERAL("");
}

bool smtp_body_is_at_line_start(const struct smtp_body *body)
{
    return body->state == BODY_START || body->is_after_bare_lf;
}

/* ---- header ---- */

void smtp_header_init(struct smtp_header *header)
{
    *header = (struct smtp_header){.is_match = true};
}

/* The column in which the name has been matched whole and only its colon is missing. */
#define RECEIVED_SIZE 8u

/* One octet of a field's name. "Received", white space (obsolete, but seen), and a colon. */
static void match_received(struct smtp_header *header, uint8_t octet)
{
    static const char name[] = "received";

    if (header->column < RECEIVED_SIZE) {
        header->is_match = (octet | 0x20) == (uint8_t)name[header->column];
    } else if (octet == ':') {
        header->received_count += 1;
        header->is_match = false;
    } else {
        header->is_match = octet == ' ' || octet == '\t';
    }
}

static void end_header_line(struct smtp_header *header)
{
    header->is_done = header->column == 0 || (header->column == 1 && header->is_cr_first);
    header->column = 0;
    header->is_match = true;
}

static bool has_eight_bit(struct span octets)
{
    uint64_t any = 0, word;
    uint32_t at = 0;

    for (; octets.size - at >= sizeof(word); at += sizeof(word)) {
        memcpy(&word, octets.data + at, sizeof(word));
        any |= word;
    }
    for (; at < octets.size; at++)
        any |= octets.data[at];
    return (any & HIGHS) != 0;
}

void smtp_header_feed(struct smtp_header *header, struct span octets, bool may_be_eight_bit)
{
    uint32_t at = 0;

    while (at < octets.size && !header->is_done) {
        /* Nothing to see before the next line. */
        if (!header->is_match && (header->column > 1 || !header->is_cr_first)) {
            const uint8_t *lf = memchr(octets.data + at, '\n', octets.size - at);
            at = lf == NULL ? octets.size : (uint32_t)(lf - octets.data);
            if (lf == NULL)
                break;
        }
        uint8_t octet = octets.data[at++];
        if (octet == '\n') {
            end_header_line(header);
            continue;
        }
        if (header->column == 0)
            header->is_cr_first = octet == '\r';
        if (header->is_match)
            match_received(header, octet);
        if (header->column < UINT32_MAX)
            header->column += 1;
    }
    header->size += at;
    if (may_be_eight_bit)
        header->is_eight_bit |= has_eight_bit(span_head(octets, at));
}
