/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QUEUE_SPOOL_INTERNAL_H
#define QUEUE_SPOOL_INTERNAL_H

#include "queue/slab.h"
#include "queue/spool.h"
#include "queue/spool_record.h"

/*
 * What the files of the spool share. spool.c is the way in and tells the whole story; spool_entry.c
 * keeps what is resident of a message, spool_item.c makes records, spool_batch.c writes them,
 * spool_segment.c keeps the segments, spool_supply.c their number, spool_space.c the room in them
 * and spool_place.c what needs them, spool_read.c reads back, spool_copy.c copies survivors
 * forward, out of what spool_victim.c chooses, spool_scrub.c looks for damage, spool_adopt.c takes
 * recovered segments over.
 */
#define SPOOL_SEGMENT_COUNT_MAX 8192u        /* of one spool: adopted and own */
#define SPOOL_TRANSACTION_MAX   16384u       /* open at a time */
#define SPOOL_PART_SIZE_MAX     (256u << 10) /* payload of one BODY record */
#define SPOOL_PART_SIZE_MIN     4096u        /* of one that is not a message's last */
#define SPOOL_PART_SLICES_MAX   512u         /* pieces of memory in one BODY record */
#define SPOOL_EXTENT_COUNT_MAX  65535u       /* BODY records of one message */
#define SPOOL_ENTRY_SIZE        64u          /* octets resident of each message */
#define SPOOL_SPOTS_INLINE      2u
#define SPOOL_RETRY_MAX         2047u /* deliveries of a message whose PROGRESS is replaced */
#define SPOOL_RETRY_SIZE_MAX    2047u /* of such a PROGRESS */
#define SPOOL_DONE_OCTETS       128u  /* on the disk: record and row */
#define SPOOL_ROW_OCTETS        192u  /* of a record in the index: its row, and most details */
#define SPOOL_BATCH_SIZE_MAX    (4u << 20)
#define SPOOL_AHEAD_MIN         (256u << 10) /* pending octets that go ahead (spool_batch.c), or */
#define SPOOL_AHEAD_PART        256u         /* this part of a segment, if that is less */
#define SPOOL_READS_MAX         64u          /* disk reads outstanding; more wait their turn */
#define SPOOL_COPIES_MAX        64u          /* messages that are being copied forward */
#define SPOOL_COPY_OCTETS_MAX   (1u << 20)   /* of them, on their way from the disk to the disk */
#define SPOOL_RETRY_TIME        TICK_S(1)    /* between attempts while the disk fails */

/* ---- where records are ---- */

enum spool_place_kind {
    SPOOL_PLACE_MESSAGE,
    SPOOL_PLACE_BODY,
    SPOOL_PLACE_PROGRESS,
    SPOOL_PLACE_OLD
};

/* A record on the disk. OLD: another copy of the MESSAGE record, which a DONE must outlive. */
struct spool_place {
    uint32_t serial; /* of the segment's generation; another one there: the record is gone */
    uint16_t segment;
    uint8_t kind;
    uint8_t is_held; /* counted in the segment's holds */
    uint16_t retry;  /* PROGRESS: 0, or delivery + 1 if the next one of the delivery replaces it */
    uint32_t offset;
    uint32_t payload_size;
};

enum spool_entry_state {
    SPOOL_ENTRY_BUILDING,   /* spool_begin() */
    SPOOL_ENTRY_COMMITTING, /* spool_commit(): MESSAGE queued or in flight */
    SPOOL_ENTRY_LIVE,       /* MESSAGE durable */
    SPOOL_ENTRY_FINISHING,  /* DONE queued or in flight */
    SPOOL_ENTRY_GONE,       /* aborted, failed or finished: freed with the last reference */
};

struct spool_spot { /* a place in one word: spool_entry.c */
    uint64_t word;
};

struct spool_entry {
    struct message_id id;
    struct spool_spot message;
    union { /* body_count BODY places in the order of parts, then the others */
        struct spool_spot inlined[SPOOL_SPOTS_INLINE]; /* when there are no more */
        struct spool_spot *spots;
    };
    union {
        struct { /* in the list of its home segment, from LIVE on: slab_ref() */
            uint32_t next, prev;
        };
        uint64_t unwritten; /* octets in BODY records that are still pending, before */
    };
    uint32_t place_count;
    uint32_t references; /* items, reads and the copier */
    uint16_t body_count;
    uint16_t part_count; /* BODY records made, of which body_count have a place */
    uint16_t home;
    uint8_t state : 6;
    uint8_t is_copied : 1;       /* just now, by the copier */
    uint8_t is_copy_refused : 1; /* could not be read for a copy: left where it is */
    uint8_t err;                 /* a BODY part was lost: the commit must fail */
};

struct spool_transaction {
    struct spool_entry *entry;
    struct buf_queue tail; /* accepted, not yet a record */
    uint64_t promised;     /* octets still reserved for it */
    bool with_reserve;     /* a notification's */
    struct spool_transaction *next, *prev;
};

/* ---- I/O ---- */

enum spool_io_kind {
    SPOOL_IO_BATCH,
    SPOOL_IO_SEGMENT,
    SPOOL_IO_READ,
    SPOOL_IO_COPY,
    SPOOL_IO_SCRUB,
};

struct spool_io { /* its address is the token of the submission */
    enum spool_io_kind kind;
    void *owner;
};

/* ---- segments ---- */

enum spool_segment_state {
    SPOOL_SEGMENT_NONE,     /* slot without a file */
    SPOOL_SEGMENT_CREATING, /* file under way */
    SPOOL_SEGMENT_STAMPING, /* header with a new salt under way */
    SPOOL_SEGMENT_ZEROING,  /* being written with zeros */
    SPOOL_SEGMENT_READY,    /* to be written next */
    SPOOL_SEGMENT_ACTIVE,   /* the one that batches go to */
    SPOOL_SEGMENT_SEALING,  /* index under way */
    SPOOL_SEGMENT_SEALED,   /* never written again in this generation */
    SPOOL_SEGMENT_RETIRED,  /* a write or sync failed: never written, synced or reused */
    SPOOL_SEGMENT_REMOVING, /* unlink under way */
    SPOOL_SEGMENT_STATE_COUNT
};

struct spool_segment {
    struct spool *spool;
    struct spool_io io; /* of the background operation: at most one at a time */
    enum spool_segment_state state;
    uint16_t index;
    bool is_zeroed;    /* no unwritten extents left: a sync commits no journal */
    bool is_dirty;     /* written since the last sync */
    bool is_zero_sync; /* the zeroing operation under way is a sync */
    bool is_drained;   /* nothing more can be copied out of it */
    bool is_foreign;   /* created by an earlier process: may be removed when there are too many */
    bool has_index;    /* SEALED: index and trailer are there */
    bool is_end_known; /* SEALED: records end at `used`; if not, no later */
    uint32_t serial;   /* generation: unique in this spool, rising with age of content */
    uint32_t size;
    uint32_t used;        /* append offset */
    uint32_t zeroed;      /* octets zeroed so far */
    uint32_t holds;       /* records here that a live or unfinished message needs */
    uint32_t reads;       /* under way: the file must stay open */
    uint32_t ranges_told; /* damaged ones of this generation */
    uint64_t live_octets;
    uint64_t salt;
    struct disk_file *file;
    char name[DISK_NAME_SIZE_MAX];
    struct spool_row *rows; /* of the index to come; ACTIVE only */
    uint32_t row_count, row_capacity;
    uint8_t *details;
    uint32_t details_size, details_capacity;
    uint8_t *block;              /* header or index under way */
    struct spool_entry *entries; /* LIVE entries whose oldest record is here */
    /* Bit i: a DONE or VOID record here speaks of a MESSAGE in the present generation of segment i.
     */
    uint64_t refers[SPOOL_SEGMENT_COUNT_MAX / 64];
};

/* ---- records on their way ---- */

struct spool_failure { /* a commit that failed: its sender hears of it when the VOID is durable */
    struct spool_failure *next;
    uint64_t token;
    enum err err;
    tick_us deadline;
    uint32_t voids_left;
    bool is_reported;
};

struct spool_item {
    struct spool_item *next;
    struct spool_entry *entry;  /* referenced; NULL for VOID */
    struct spool_entry *leader; /* referenced; the DSN whose commit this PROGRESS or DONE shares */
    struct spool_failure *failure;
    struct spool_copy *copy; /* made by the copier, for this one; NULL: by somebody else */
    bool is_lazy;
    uint16_t retry; /* PROGRESS: as in struct spool_place */
    uint64_t token; /* MESSAGE */
    tick_us queued_at;
    struct buf_queue body; /* BODY from a transaction */
    uint8_t *block;        /* every other payload */
    uint32_t block_size, envelope_size;
    uint8_t *detail; /* MESSAGE: for the index of its segment; NULL: none */
    uint32_t detail_size;
    uint32_t offset;                   /* in the segment, when in a batch */
    struct spool_place source, target; /* of a copied PROGRESS; source: of a voided record */
    uint8_t padding[8]; /* zeros behind the record before, written with this header */
    struct spool_record record;
};

/* `end` points into the list: never copied by value. */
struct spool_item_list {
    struct spool_item *first, **end;
    uint32_t count;
};

struct spool_batch {
    struct spool_io io;
    struct spool_batch *next; /* late ones */
    struct spool_item_list items;
    struct spool_segment *segment;
    tick_us submitted, deadline;
    bool is_synced;
    uint32_t messages;
    uint64_t octets;
};

/* ---- copying forward ---- */

/* A damaged message, and what memory has of it. */
struct spool_repair {
    struct spool_repair *next;
    struct spool_entry *entry; /* referenced */
    struct buf_queue body;     /* empty, or the whole body */
    uint32_t envelope_size;    /* 0, or of the envelope */
    uint8_t envelope[];
};

struct spool_copy { /* of one message, one record at a time */
    struct spool_io io;
    struct spool_entry *entry;    /* referenced; NULL: this one is free */
    struct spool_segment *victim; /* that it is copied out of, or */
    struct spool_repair *repair;  /* what else it is copied for */
    bool is_reading, is_failed;
    bool is_message_moved; /* BODY and MESSAGE are to be copied, not only PROGRESS */
    bool is_message_durable;
    uint32_t step;         /* BODY parts, MESSAGE, then places of PROGRESS */
    uint32_t items_queued; /* copies not yet durable */
    uint8_t *block;
    struct spool_place source;
    uint64_t salt;
    struct spool_place *bodies; /* of the copies, in the order of parts */
    uint32_t bodies_placed;
    struct spool_place message;
};

struct spool_copier {
    struct spool_copy copies[SPOOL_COPIES_MAX];
    uint32_t running, reading; /* of them: begun and not finished; those that wait for the disk */
    uint64_t octets;           /* of records that are being read, or are not durable yet */
    struct spool_segment *victim; /* NULL: none chosen */
    bool is_searching;            /* for messages of it that are in no list of it */
    uint64_t cursor;              /* over all entries */
    tick_us look_at;              /* for the next one */
    tick_us turn_begun;           /* over all segments, when room is tight: spool_victim.c */
    uint32_t turn_serial;
    uint64_t turn_room;
};

struct spool_read {
    struct spool_io io;
    struct spool_read *next;
    struct spool_entry *entry; /* referenced */
    uint64_t offset, end;      /* of the body, still to be read */
    uint64_t token;
    bool is_envelope;
    uint32_t part;        /* BODY record that has `offset`, and */
    uint64_t part_offset; /* where it begins in the body */
    struct spool_place place;
    uint64_t salt;
    uint8_t *block;
    struct buf_queue octets;
};

/* ---- scrubbing ---- */

#define SPOOL_SCRUB_RANGES_MAX 8u

struct spool_range { /* damaged octets of a segment */
    uint32_t start, end;
    bool is_certain;   /* whether a message needs them or not */
    uint32_t messages; /* that need them */
};

enum spool_scrub_phase {
    SPOOL_SCRUB_RECORDS,
    SPOOL_SCRUB_TRAILER,
    SPOOL_SCRUB_INDEX,
    SPOOL_SCRUB_END,
};

struct spool_scrub {
    struct spool_io io;
    tick_us due; /* for the next read */
    bool is_reading;
    bool is_begun;    /* `segment` with this `serial` is in hand */
    uint32_t segment; /* number */
    uint32_t serial;
    enum spool_scrub_phase phase;
    uint32_t offset;        /* of the next read, and */
    uint32_t wanted, asked; /* its size at least; the size of the last */
    uint8_t *block;
    uint32_t block_size;
    struct spool_trailer trailer;
    bool is_lost; /* from lost_from on there was no record */
    uint32_t lost_from;
    uint32_t ranges_seen; /* in this segment */
    struct spool_range ranges[SPOOL_SCRUB_RANGES_MAX];
    uint32_t range_count; /* whose messages are looked for */
    uint64_t cursor;      /* over the entries */
};

struct spool_census { /* of the segments; taken anew when something changed */
    uint32_t ready, preparing, reusable;
    uint32_t foreign; /* ready or reusable, of earlier processes */
    uint32_t small;   /* ready or reusable, of less than segment_size */
    uint64_t octets;  /* sizes of all files */
    uint64_t total;   /* of those that can be used again, and that can be made within size_max */
    uint64_t total_urgent; /* and that can be made beyond */
    uint64_t lost;         /* of those that failed */
    uint64_t garbage;      /* records in SEALED ones that nobody needs */
    uint64_t room;         /* for records, in those ready, reusable or being prepared */
    uint32_t creatable;
    uint32_t creatable_urgent; /* when nothing else is left to write to, within */
    uint64_t creatable_octets;
    bool is_space_known;
};

struct spool {
    struct spool_options options;
    struct disk *disk;
    struct rng *rng;
    struct tick_now now;
    uint64_t sequence; /* of the last record */
    uint32_t part_size_max;
    uint32_t ahead_min;              /* pending octets from which on a batch goes ahead */
    uint32_t serial, serial_adopted; /* of the last generation, own and adopted */
    uint32_t name_number;

    struct spool_segment **segments;
    uint32_t segment_count;
    struct spool_segment *active;
    struct spool_census census;
    bool is_census_due;
    uint64_t live_octets, live_records; /* that are held, in all segments */
    tick_us create_not_before, space_checked;
    uint32_t create_size_max; /* what the file system has refused is not asked for at once again */
    bool is_create_refused;   /* the last time: there may be octets, and no inode, or a quota */
    bool is_stuck;            /* told: records wait, and no segment can be made for them */

    struct spool_item_list pending;
    uint32_t lazy_count, copy_count; /* of pending */
    uint64_t pending_octets;
    tick_us lazy_due;
    bool is_flushing;
    struct spool_batch *flight, *ahead; /* ahead: handed to the disk behind flight */
    struct spool_batch *late;
    struct spool_item *items_free;
    uint32_t items_outstanding;
    struct spool_failure *failures;

    struct spool_transaction *transactions;
    uint32_t transaction_count;
    uint64_t promised;
    struct slab entries;
    struct arena scratch; /* for the making of an index */

    uint32_t failures_in_row;
    tick_us retry_at;

    struct spool_copier copier;
    struct spool_repair *repairs, **repairs_end; /* that wait for the copier */
    struct spool_scrub scrub;
    struct spool_read *reads_waiting, **reads_end;
    struct spool_read *reads_active;
    uint32_t reads_running;
    uint32_t operations; /* background operations of segments */

    struct spool_event *events; /* ring */
    uint32_t event_head, event_count, event_capacity;
    struct spool_stats stats;
};

/* spool.c */
struct spool_event *spool_event_add(struct spool *spool, enum spool_event_kind kind, enum err err,
                                    uint64_t token);

/* spool_entry.c */
struct spool_entry *spool_entry_new(struct spool *spool, struct message_id id);
void spool_entry_reference(struct spool_entry *entry);
void spool_entry_release(struct spool *spool, struct spool_entry *entry);
/** The message is no more: let go of its records, and of it with the last reference. */
void spool_entry_end(struct spool *spool, struct spool_entry *entry);
/** Place number `index`, unpacked; changes to it need spool_entry_set_place(). */
struct spool_place spool_entry_place(const struct spool *spool, const struct spool_entry *entry,
                                     uint32_t index);
void spool_entry_set_place(struct spool_entry *entry, uint32_t index,
                           const struct spool_place *place);
void spool_entry_add_place(struct spool_entry *entry, const struct spool_place *place);
/** One that is no BODY place; the last one takes its number. */
void spool_entry_remove_place(struct spool_entry *entry, uint32_t index);
/** What struct spool_place says of a PROGRESS with this payload. */
uint16_t spool_progress_retry(struct span progress);
/** The PROGRESS at `newest`, which is durable, says all that older ones with its `retry` said. */
void spool_entry_supersede(struct spool *spool, struct spool_entry *entry,
                           const struct spool_place *newest);
/** Payload of BODY record `part`. */
uint32_t spool_entry_payload_size(const struct spool_entry *entry, uint32_t part);
struct spool_place spool_entry_message(const struct spool *spool, const struct spool_entry *entry);
void spool_entry_set_message(struct spool_entry *entry, const struct spool_place *place);
/** Link into the list of the segment that has its oldest record. */
void spool_entry_settle(struct spool *spool, struct spool_entry *entry);
void spool_entry_unlink(struct spool *spool, struct spool_entry *entry);
/** The one behind it in that list; NULL: there is none. */
struct spool_entry *spool_entry_next(const struct spool *spool, const struct spool_entry *entry);

/* spool_item.c */
struct spool_item *spool_item_new(struct spool *spool, enum spool_record_type type,
                                  struct spool_entry *entry);
void spool_item_free(struct spool *spool, struct spool_item *item);
void spool_item_queue(struct spool *spool, struct spool_item *item);
/** Pieces of memory that spool_item_gather() will give. */
uint32_t spool_item_pieces(const struct spool_item *item);
/** A record that is not to be written any more: its message is gone, or its commit has failed. */
bool spool_item_is_moot(const struct spool_item *item);
void spool_item_drop(struct spool *spool, struct spool_item *item);
/** Make the detail of a MESSAGE, all but its extents. */
void spool_item_describe(struct spool *spool, struct spool_item *item, struct span envelope);
/** What the index of its segment keeps of it, once it has its place. */
struct span spool_item_detail(const struct spool_item *item);
/** Tell the message where its record is going to be. */
void spool_item_place(struct spool *spool, struct spool_segment *segment, struct spool_item *item);
/** Checksums; nothing changes after that. */
void spool_item_seal(struct spool_item *item);
/** Pieces of memory for the write; `padding` zeros stand before the header. */
uint32_t spool_item_gather(struct spool_item *item, uint32_t padding, struct iovec *ret_vector);
/** The same record once more: the lost one still belongs to the disk. */
struct spool_item *spool_item_again(struct spool *spool, const struct spool_item *lost);
/** VOID for a record lost in `segment`. */
struct spool_item *spool_item_void(struct spool *spool, const struct spool_segment *segment,
                                   const struct spool_item *lost, struct spool_failure *failure);
void spool_list_init(struct spool_item_list *list);
void spool_list_append(struct spool_item_list *list, struct spool_item *item);
/** NULL when empty. The item's `next` stays as it was. */
struct spool_item *spool_list_take(struct spool_item_list *list);
/** Move all of `front` before all of `list`. */
void spool_list_prepend(struct spool_item_list *list, struct spool_item_list *front);
void spool_list_free(struct spool *spool, struct spool_item_list *list);

/* spool_batch.c */
void spool_batch_start(struct spool *spool);
void spool_batch_expire(struct spool *spool);
void spool_batch_completed(struct spool *spool, struct spool_batch *batch, enum err err);
tick_us spool_batch_deadline(const struct spool *spool);
/** Everything on its way, at the end of the spool. */
void spool_batches_free(struct spool *spool);
/** The MESSAGE of this entry will not be written. */
void spool_commit_refuse(struct spool *spool, struct spool_item *item, enum err err);

/* spool_place.c */
void spool_hold(struct spool *spool, struct spool_place *place);
void spool_unhold(struct spool *spool, struct spool_place *place);
/** A DONE or VOID record in `segment` speaks of the MESSAGE at `place`. */
void spool_segment_refer(struct spool *spool, struct spool_segment *segment,
                         const struct spool_place *place);
bool spool_segment_refers_nothing(const struct spool_segment *segment);
bool spool_segment_is_reusable(const struct spool_segment *segment);
bool spool_place_is_current(const struct spool *spool, const struct spool_place *place);
/** Read the record at `place` whole, header and payload, with the token of `io`. The segment stays
 * as it is until spool_segment_read_end(). */
void spool_segment_read(struct spool *spool, const struct spool_place *place, uint8_t *ret_data,
                        struct spool_io *io);
void spool_segment_read_end(struct spool *spool, const struct spool_place *place);

/* spool_segment.c */
enum err spool_segment_create_first(struct spool *spool);
/** NONE -> CREATING. */
void spool_segment_create(struct spool *spool, uint32_t size);
/** Write the header of a new generation. What was here before is forgotten by the next start. */
void spool_segment_stamp(struct spool_segment *segment);
/** READY -> REMOVING. */
void spool_segment_remove(struct spool_segment *segment);
void spool_segment_completed(struct spool *spool, struct spool_segment *segment, enum err err);
/** The segment to write to, or NULL when there is none at the moment. */
struct spool_segment *spool_segment_writable(struct spool *spool);
/** End the active segment: its index is written in the background. CHECKs that it is synced. */
void spool_segment_seal(struct spool *spool);
void spool_segment_retire(struct spool *spool, struct spool_segment *segment);
void spool_segment_row(struct spool_segment *segment, const struct spool_record *record,
                       uint32_t offset, struct span detail);
/** Octets that a batch may take which has `rows_more` records, with `details_more` octets of
 * details, for the index. */
uint32_t spool_segment_room(const struct spool_segment *segment, uint32_t rows_more,
                            uint32_t details_more);
void spool_segments_free(struct spool *spool);
/** Take a segment of an earlier process over: SEALED, its generation older than all own ones. */
struct spool_segment *spool_segment_adopt(struct spool *spool, struct disk_file *file,
                                          const char *name,
                                          const struct spool_segment_header *header);

/* spool_supply.c */
void spool_segments_maintain(struct spool *spool);
/** A READY segment that takes the next record, a zeroed one before others; NULL: none. */
struct spool_segment *spool_segment_find_ready(const struct spool *spool);
/** Nothing to write to: what waits does so for a segment. */
bool spool_segments_are_out(const struct spool *spool);
/** Of the segment that is made when there is no other. 0: not even the smallest that takes the next
 * record can be. */
uint32_t spool_segment_urgent_size(const struct spool *spool);

/* spool_space.c */
/** Octets that can still become records. */
uint64_t spool_room(const struct spool *spool);
/** As spool_room(), with the segments that may be made when there is no other. */
uint64_t spool_room_urgent(const struct spool *spool);
/** In the small segment that is there or can be made because there is no other, besides what DONE
 * records will need: for what frees whole ones. */
uint64_t spool_room_small(const struct spool *spool);
/** May `size` octets of body be taken, by a notification (`with_reserve`) or by mail? */
bool spool_has_room(const struct spool *spool, uint64_t size, bool with_reserve);
/** May that much be left unwritten, although copying alone gives it back? */
bool spool_may_waste(const struct spool *spool, uint64_t size);
/** Octets that a message with that much body may need. */
uint64_t spool_promise(uint64_t size);

/** As spool_is_tight(), by the room that there is at the moment. */
bool spool_room_is_tight(const struct spool *spool);

/* spool_share.c */
/** Octets that segments of this spool may have without taking what others may count on, as long as
 * the file system has `octets_free`. `octets_made`: of its files, `octets`: with those on their
 * way.
 */
uint64_t spool_share_max(struct spool *spool, uint64_t octets_made, uint64_t octets_free);

/* spool_victim.c */
/** The message to copy next; NULL: none at the moment. */
struct spool_entry *spool_victim_entry(struct spool *spool);
/** Looking for it goes on then. */
tick_us spool_victim_deadline(const struct spool *spool);

/* spool_copy.c */
void spool_copy_init(struct spool *spool);
void spool_copy_advance(struct spool *spool);
/** No message is in the copier's hands. */
bool spool_copies_are_none(const struct spool *spool);
void spool_copy_completed(struct spool *spool, struct spool_copy *copy, enum err err,
                          uint32_t size);
/** An item of the copier got its place / is durable / was lost. */
void spool_copy_placed(struct spool *spool, struct spool_item *item, struct spool_place place);
void spool_copy_durable(struct spool *spool, const struct spool_item *item);
void spool_copy_lost(struct spool *spool, struct spool_item *item);
/** What was written to this segment since its last sync is lost. */
void spool_copy_segment_lost(struct spool *spool, const struct spool_segment *segment);
void spool_copy_fini(struct spool *spool);

/* spool_scrub.c */
void spool_scrub_init(struct spool *spool);
void spool_scrub_advance(struct spool *spool);
void spool_scrub_completed(struct spool *spool, enum err err, uint32_t size);
tick_us spool_scrub_deadline(const struct spool *spool);

/* spool_read.c */
void spool_reads_start(struct spool *spool);
void spool_read_completed(struct spool *spool, struct spool_read *read, enum err err,
                          uint32_t size);
void spool_reads_free(struct spool *spool);

#endif
