/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bodies for operators: a piece of a message's body, read from the spool as it is stored.
 *
 *   FREE -> READING   qmgr_piece_begin()
 *   READING -> READ   the spool has answered, well or not      qmgr_piece_on_read()
 *   READ -> FREE      its asker takes it                       qmgr_piece_end()
 *
 * A piece knows no message: one may end while a piece of it is read. The spool then still gives
 * what was asked for, or says that it is gone; the next piece is refused.
 *
 * Limits: QMGR_PIECE_MAX pieces of QMGR_PIECE_SIZE_MAX octets.
 * Not here: the envelope, with what stands ahead of the stored body (qmgr_envelope.c).
 */
#include "queue/qmgr_state.h"

#define PIECE_TOKEN_BIT 2ull

_Static_assert(_Alignof(struct qmgr_piece) > (QMGR_TOKEN_BIT | PIECE_TOKEN_BIT),
               "the bits are free");

enum err qmgr_piece_begin(struct qmgr *qmgr, struct message_id id, uint64_t offset, uint32_t size,
                          uint32_t *ret_piece)
{
    struct qmgr_message *message = qmgr_find(qmgr, id);
    uint32_t index = 0;

    CHECK(size > 0 && size <= QMGR_PIECE_SIZE_MAX);
    if (message == NULL || message->storage != QMGR_STORED)
        return ERR_STALE;
    uint64_t body_size = spool_entry_body_size(message->entry);
    if (offset > body_size || size > body_size - offset)
        return ERR_DISK_CORRUPT; /* the envelope speaks of more */
    while (index < QMGR_PIECE_MAX && qmgr->pieces[index].state != QMGR_PIECE_FREE)
        index++;
    if (index == QMGR_PIECE_MAX)
        return ERR_LIMIT;
    struct qmgr_piece *piece = &qmgr->pieces[index];
    piece->state = QMGR_PIECE_READING;
    piece->size = size;
    buf_queue_init(&piece->octets);
    *ret_piece = index;
    spool_read_body(qmgr->spool, message->entry, offset, size,
                    (uint64_t)(uintptr_t)piece | QMGR_TOKEN_BIT | PIECE_TOKEN_BIT);
    return ERR_OK;
}

bool qmgr_piece_is_reading(const struct qmgr *qmgr, uint32_t piece)
{
    CHECK(piece < QMGR_PIECE_MAX && qmgr->pieces[piece].state != QMGR_PIECE_FREE);
    return qmgr->pieces[piece].state == QMGR_PIECE_READING;
}

enum err qmgr_piece_end(struct qmgr *qmgr, uint32_t index, uint8_t *ret_octets)
{
    CHECK(index < QMGR_PIECE_MAX);
    struct qmgr_piece *piece = &qmgr->pieces[index];

    CHECK(piece->state == QMGR_PIECE_READ);
    if (piece->err == ERR_OK)
        buf_queue_copy_out(&piece->octets, 0, ret_octets, piece->size);
    buf_queue_fini(&piece->octets);
    piece->state = QMGR_PIECE_FREE;
    return piece->err;
}

bool qmgr_piece_on_read(struct spool_event *event)
{
    if (!(event->token & PIECE_TOKEN_BIT))
        return false;
    struct qmgr_piece *piece =
        (struct qmgr_piece *)(uintptr_t)(event->token & ~(QMGR_TOKEN_BIT | PIECE_TOKEN_BIT));
    CHECK(piece->state == QMGR_PIECE_READING && event->kind == SPOOL_EVENT_READ);
    piece->state = QMGR_PIECE_READ;
    piece->err = event->err;
    if (event->err == ERR_OK && event->octets.size != piece->size)
        piece->err = ERR_DISK_CORRUPT;
    buf_queue_move(&piece->octets, &event->octets);
    return true;
}

void qmgr_pieces_free(struct qmgr *qmgr)
{
    for (uint32_t i = 0; i < QMGR_PIECE_MAX; i++) {
        if (qmgr->pieces[i].state != QMGR_PIECE_FREE)
            buf_queue_fini(&qmgr->pieces[i].octets);
    }
}
