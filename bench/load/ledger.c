/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing a ledger. Lines gather in memory and reach the kernel in one write per turn, before the
 * replies of that turn: what was acknowledged is never missing from the file of a process that is
 * killed. Recipients are written without blanks and control characters, so that a line stays a
 * line.
 */
#include "bench/load/ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "bench/load/text.h"

#define LEDGER_BUFFER_SIZE (1u << 20)
#define LEDGER_LINE_MAX    1024u
#define RECIPIENT_SIZE_MAX 400u

struct ledger {
    int fd;
    const char *path;
    char *end;
    char buffer[LEDGER_BUFFER_SIZE];
};

struct ledger *ledger_open(const char *path)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0) {
        (void)fprintf(stderr, "angarium-load: cannot write the ledger %s: %s\n", path,
                      strerror(errno));
        return NULL;
    }
    struct ledger *ledger = malloc(sizeof(*ledger));
    CHECK(ledger != NULL);
    ledger->fd = fd;
    ledger->path = path;
    ledger->end = ledger->buffer;
    return ledger;
}

void ledger_flush(struct ledger *ledger)
{
    char *from = ledger->buffer;

    while (from < ledger->end) {
        ssize_t size = write(ledger->fd, from, (size_t)(ledger->end - from));
        if (size < 0 && errno == EINTR)
            continue;
        if (size < 0) {
            (void)fprintf(stderr, "angarium-load: cannot write the ledger %s: %s\n", ledger->path,
                          strerror(errno));
            exit(1);
        }
        from += size;
    }
    ledger->end = ledger->buffer;
}

void ledger_close(struct ledger *ledger)
{
    if (ledger == NULL)
        return;
    ledger_flush(ledger);
    (void)close(ledger->fd);
    free(ledger);
}

static char *line_begin(struct ledger *ledger, char kind)
{
    if (ledger->end + LEDGER_LINE_MAX > ledger->buffer + sizeof(ledger->buffer))
        ledger_flush(ledger);
    char *at = ledger->end;
    *at++ = kind;
    *at++ = ' ';
    return at;
}

void ledger_source(struct ledger *ledger, char kind, uint64_t run, uint64_t number, int first,
                   int second)
{
    char *at = text_put_id(line_begin(ledger, kind), run, number);

    for (uint32_t i = 0; i < 2; i++) {
        int value = i == 0 ? first : second;
        if (value < 0)
            continue;
        *at++ = ' ';
        at = text_put_number(at, (uint64_t)value);
    }
    *at++ = '\n';
    ledger->end = at;
}

void ledger_sink(struct ledger *ledger, const char *id, struct span recipient, bool is_whole)
{
    char *at = text_put(line_begin(ledger, 'R'), span_from_text(id));
    uint32_t size = recipient.size < RECIPIENT_SIZE_MAX ? recipient.size : RECIPIENT_SIZE_MAX;

    *at++ = ' ';
    for (uint32_t i = 0; i < size; i++) {
        uint8_t octet = recipient.data[i];
        *at++ = octet <= ' ' || octet == 0x7f ? '?' : (char)octet;
    }
    if (size == 0)
        *at++ = '?';
    ledger->end = text_put(at, is_whole ? SPAN_LITERAL(" ok\n") : SPAN_LITERAL(" bad\n"));
}
