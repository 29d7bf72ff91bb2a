/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operators' view of the queue: what matches which filter, in slices of any size, while mail
 * comes and goes; counts by group. qmgr_verify() follows every change.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "qmgr_fixture.h"

#define TEXT_MAX 4096u

static void insert(struct fixture *f, const struct message_options *options)
{
    assert_int_equal(ERR_OK, fixture_insert(f, options, NULL));
    assert_int_equal(0, qmgr_verify(f->qmgr));
}

/*
 * 1: from a@x.example to v and w, deferred at v, ready at w; an hour old
 * 2: from b@X.Example to v, pool `bulk`, class 3; ready
 * 3: null sender to w; under way
 */
static void world_make(struct fixture *f)
{
    struct qmgr_line *line;

    fixture_init(f, NULL);
    insert(f, &(struct message_options){
                  .id = 1, .recipients = "r1@v r2@w r3@v", .arrived = f->now.wall - 3600000000});
    struct qmgr_delivery *other = fixture_take_one(f); /* to w */
    struct qmgr_delivery *delivery = fixture_take(f, &line);
    qmgr_line_set_site(line, SPAN_LITERAL("Site.Example"));
    qmgr_line_return(f->qmgr, line, f->now);
    fixture_finish_all(f, delivery, RECIPIENT_DUE, "451 later");
    qmgr_finish(f->qmgr, other, &(struct qmgr_finish){0}, f->now);
    insert(f, &(struct message_options){.id = 3, .sender = "", .recipients = "r5@u", .class = 0});
    insert(f,
           &(struct message_options){
               .id = 2, .sender = "b@X.Example", .recipients = "R4@v", .pool = "bulk", .class = 3});
    do { /* the one to u */
        delivery = fixture_take(f, &line);
        qmgr_line_return(f->qmgr, line, f->now);
        if (qmgr_delivery_view(f->qmgr, delivery).envelope->id.low == 3)
            break;
        qmgr_finish(f->qmgr, delivery, &(struct qmgr_finish){0}, f->now);
    } while (true);
    assert_int_equal(0, qmgr_verify(f->qmgr));
}

static void match_print(const struct qmgr_match *match, char *text)
{
    const struct envelope *envelope = qmgr_message_envelope(match->message);
    struct span address = envelope->recipients[match->recipient_index].address;
    size_t used = strlen(text);

    snprintf(text + used, TEXT_MAX - used, "%.*s ", SPAN_PRINTF(address));
}

static uint64_t scan_begin(struct fixture *f, const char *terms)
{
    struct qmgr_filter filter;
    char why[QMGR_FILTER_WHY_SIZE] = "";

    if (qmgr_filter_parse(span_from_text(terms), &filter, why) != ERR_OK)
        fail_msg("%s: %s", terms, why);
    return qmgr_scan_begin(f->qmgr, &filter, f->now);
}

/* Everything that matches, by addresses, in slices of `max`. */
static const char *scan(struct fixture *f, const char *terms, uint32_t max)
{
    static char text[TEXT_MAX];
    struct qmgr_match matches[16];
    uint64_t handle = scan_begin(f, terms);
    bool is_done = false;
    uint32_t count;

    text[0] = '\0';
    for (uint32_t i = 0; i < 1000 && !is_done; i++) {
        assert_int_equal(ERR_OK,
                         qmgr_scan_step(f->qmgr, handle, matches, max, &count, &is_done, f->now));
        assert_true(count <= max);
        for (uint32_t m = 0; m < count; m++)
            match_print(&matches[m], text);
    }
    assert_true(is_done);
    return text;
}

static const struct {
    const char *terms, *found;
} match_rows[] = {
    {"domain=v", "R4@v r1@v r3@v "},
    {"domain=V.", "R4@v r1@v r3@v "},
    {"domain=w", "r2@w "},
    {"domain=x", ""},
    {"domain=v source=bulk", "R4@v "},
    {"domain=v source=default", "r1@v r3@v "},
    {"domain=v state=ready", "R4@v "},
    {"state=waiting", "r1@v r3@v "},
    {"state=active", "r5@u "},
    {"state=failed", ""},
    {"source=bulk", "R4@v "},
    {"class=3", "R4@v "},
    {"class=1", ""},
    {"site=site.example", "r1@v r3@v "},
    {"site=other", ""},
    {"site=w", "r2@w "}, /* not resolved: the domain stands for it */
    {"site=V", "R4@v "}, /* the other pool has resolved it */
    {"older=30m", "r1@v r3@v r2@w "},
    {"older=2h", ""},
    {"older=30m state=ready", "r2@w "},
    {"sender=<>", "r5@u "},
    {"sender_domain=<>", "r5@u "},
    {"sender_domain=x.example domain=w", "r2@w "},
    {"sender=A@X.EXAMPLE", "r1@v r2@w r3@v "},
    {"sender=b@x.example", "R4@v "},
    {"sender_domain=x.example", "r1@v r2@w r3@v R4@v "},
    {"sender_domain=y.example", ""},
    {"recipient=r4@V", "R4@v "},
    {"recipient=r3@v", "r3@v "},
    {"recipient=r3@v state=ready", ""},
    {"recipient=postmaster", ""},
};

static void filters_find_what_they_say(void **state)
{
    struct fixture f;

    (void)state;
    world_make(&f);
    for (uint32_t i = 0; i < COUNT_OF(match_rows); i++) {
        for (uint32_t max = 1; max <= 16; max += 5) { /* the size of a slice changes nothing */
            print_message("# %s\n", match_rows[i].terms);
            assert_string_equal(match_rows[i].found, scan(&f, match_rows[i].terms, max));
        }
    }
    assert_int_equal(strlen("r5@u R4@v "), strlen(scan(&f, "younger=30m", 3)));
    assert_int_equal(strlen("r1@v r2@w r3@v r5@u R4@v "), strlen(scan(&f, "", 2)));
    fixture_fini(&f);
}

static void id_finds_one_message(void **state)
{
    struct fixture f;
    char terms[64] = "id=", text[MESSAGE_ID_TEXT_SIZE];

    (void)state;
    world_make(&f);
    struct message_id id = {(uint64_t)(f.now.wall - 3600000000), 1};
    strncat(terms, message_id_format(id, text), sizeof(terms) - 4);
    assert_string_equal("r1@v r2@w r3@v ", scan(&f, terms, 2));
    fixture_fini(&f);
}

static void failed_recipients_are_seen_until_told(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f, NULL);
    insert(&f, &(struct message_options){.id = 1, .recipients = "r1@v r2@w"});
    fixture_finish_all(&f, fixture_take_one(&f), RECIPIENT_FAILED, "550 no");
    const char *found = scan(&f, "state=failed", 1);
    assert_true(strcmp(found, "r1@v ") == 0 || strcmp(found, "r2@w ") == 0);
    assert_string_equal("r1@v r2@w ", scan(&f, "", 1));
    assert_string_equal("", scan(&f, "state=failed site=x", 1));
    fixture_fini(&f);
}

/* Mail leaves wherever a scan stands, and comes: the scan ends, and sees what stayed. */
static void mail_may_leave_under_a_scan(void **state)
{
    static const char *const filters[] = {"domain=v", "sender_domain=x.example", "state=waiting",
                                          ""};
    struct qmgr_match matches[1];

    (void)state;
    for (uint32_t row = 0; row < COUNT_OF(filters); row++) {
        struct fixture f;
        uint32_t seen = 0, count;
        bool is_done = false;
        fixture_init(&f, NULL);
        for (uint32_t i = 1; i <= 8; i++)
            insert(&f, &(struct message_options){
                           .id = i, .recipients = "r@v s@w", .lifetime = TICK_S(i)});
        for (uint32_t i = 0; i < 16; i++)
            fixture_finish_all(&f, fixture_take_one(&f), RECIPIENT_DUE, "451 later");
        uint64_t handle = scan_begin(&f, filters[row]);
        for (uint32_t i = 0; i < 100 && !is_done; i++) {
            assert_int_equal(ERR_OK,
                             qmgr_scan_step(f.qmgr, handle, matches, 1, &count, &is_done, f.now));
            seen += count;
            if (i % 2 == 0)
                fixture_pass(&f, TICK_S(1)); /* one expires, mostly the one looked at next */
            if (i % 4 == 1)
                insert(&f, &(struct message_options){.id = 100 + i, .recipients = "t@v"});
        }
        print_message("# %s: %u seen\n", filters[row], seen);
        assert_true(is_done && seen >= 2);
        fixture_fini(&f);
    }
}

static void scans_are_bounded(void **state)
{
    struct qmgr_match matches[1];
    struct fixture f;
    uint64_t handles[QMGR_SCAN_MAX + 1];
    uint32_t count;
    bool is_done;

    (void)state;
    world_make(&f);
    for (uint32_t i = 0; i <= QMGR_SCAN_MAX; i++) {
        f.now.tick++;
        handles[i] = scan_begin(&f, "domain=v");
    }
    assert_int_equal(ERR_STALE,
                     qmgr_scan_step(f.qmgr, handles[0], matches, 1, &count, &is_done, f.now));
    for (uint32_t i = 1; i <= QMGR_SCAN_MAX; i++) {
        assert_int_equal(ERR_OK,
                         qmgr_scan_step(f.qmgr, handles[i], matches, 1, &count, &is_done, f.now));
        qmgr_scan_end(f.qmgr, handles[i]);
        qmgr_scan_end(f.qmgr, handles[i]);
        assert_int_equal(ERR_STALE,
                         qmgr_scan_step(f.qmgr, handles[i], matches, 1, &count, &is_done, f.now));
    }
    assert_string_equal("r2@w ", scan(&f, "domain=w", 1));
    fixture_fini(&f);
}

/* A step over mail that does not match is bounded as well. */
static void step_is_bounded(void **state)
{
    struct qmgr_match matches[8];
    struct fixture f;
    uint32_t count, steps = 0;
    bool is_done = false;

    (void)state;
    fixture_init(&f, NULL);
    for (uint32_t i = 1; i <= 900; i++) {
        char address[32];
        snprintf(address, sizeof(address), "r@d%u", i);
        struct message_options options = {.id = i, .recipients = address};
        assert_int_equal(ERR_OK, fixture_insert(&f, &options, NULL));
    }
    uint64_t handle = scan_begin(&f, "class=9");
    for (; !is_done; steps++) {
        assert_int_equal(ERR_OK,
                         qmgr_scan_step(f.qmgr, handle, matches, 8, &count, &is_done, f.now));
        assert_int_equal(0, count);
    }
    assert_in_range(steps, 3, 5);
    fixture_fini(&f);
}

static uint32_t group_total(struct fixture *f, enum qmgr_group_by by, const char *name,
                            uint32_t bucket)
{
    struct qmgr_group groups[2];
    uint64_t cursor = 0;
    uint32_t total = 0;

    while (cursor != UINT64_MAX) {
        uint32_t count = qmgr_groups(f->qmgr, by, &cursor, groups, 2, f->now);
        for (uint32_t i = 0; i < count; i++)
            total += strcmp(groups[i].name, name) == 0 ? groups[i].ages[bucket] : 0;
    }
    return total;
}

static void groups_are_counted(void **state)
{
    struct fixture f;

    (void)state;
    world_make(&f);
    assert_int_equal(1, group_total(&f, QMGR_BY_SITE, "Site.Example", 4)); /* 40 to 80 minutes */
    assert_int_equal(1, group_total(&f, QMGR_BY_SITE, "v", 0)); /* the other pool's: no site yet */
    assert_int_equal(1, group_total(&f, QMGR_BY_DOMAIN, "v", 4));
    assert_int_equal(1, group_total(&f, QMGR_BY_DOMAIN, "v", 0));
    assert_int_equal(1, group_total(&f, QMGR_BY_SOURCE, "bulk", 0));
    assert_int_equal(2, group_total(&f, QMGR_BY_SOURCE, "default", 4));
    assert_int_equal(1, group_total(&f, QMGR_BY_CLASS, "3", 0));
    assert_int_equal(2, group_total(&f, QMGR_BY_CLASS, "0", 4));
    assert_int_equal(1, group_total(&f, QMGR_BY_SENDER, "x.example", 4));
    assert_int_equal(1, group_total(&f, QMGR_BY_SENDER, "x.example", 0));
    assert_int_equal(1, group_total(&f, QMGR_BY_SENDER, "<>", 0));
    fixture_fini(&f);
}

static struct qmgr_name_use name_use(const struct fixture *f, const char *name)
{
    struct qmgr_name_use use = {0};
    uint64_t cursor = 0;

    while (cursor != UINT64_MAX)
        qmgr_name_use_add(f->qmgr, span_from_text(name), &cursor, &use, f->now.tick);
    return use;
}

static void what_goes_to_a_name_is_counted(void **state)
{
    struct fixture f;

    (void)state;
    world_make(&f);
    struct qmgr_name_use use = name_use(&f, "V");
    assert_int_equal(1, use.classes[0].waiting);
    assert_true(use.classes[0].next_try > f.now.tick);
    assert_int_equal(0, use.classes[0].ready + use.classes[0].held + use.classes[0].unseen);
    assert_int_equal(1, use.classes[3].ready);
    assert_int_equal(1, use.site_count);
    assert_string_equal("Site.Example", use.sites[0]);
    use = name_use(&f, "site.example"); /* the other pool has no site yet */
    assert_int_equal(1, use.classes[0].waiting);
    assert_int_equal(0, use.classes[3].ready + use.site_count);
    use = name_use(&f, "u");
    assert_int_equal(1, use.classes[0].active);
    assert_int_equal(0, use.classes[0].waiting + use.classes[0].unseen);
    use = name_use(&f, "x");
    assert_int_equal(0, use.classes[0].waiting + use.classes[0].ready + use.classes[0].active);
    fixture_fini(&f);
}

/* Goal: of a domain whose hosts cannot be found it is known why, and since when, until they are. */
static void what_cannot_be_resolved_is_known(void **state)
{
    struct qmgr_line *line;
    struct fixture f;

    (void)state;
    fixture_init(&f, NULL);
    insert(&f, &(struct message_options){.id = 1, .recipients = "r1@v"});
    struct qmgr_delivery *delivery = fixture_take(&f, &line);
    tick_us first = f.now.tick;
    assert_null(name_use(&f, "v").unresolved);
    assert_true(name_use(&f, "v").has_unasked);
    qmgr_line_set_unresolved(line, "one", first);
    assert_false(name_use(&f, "v").has_unasked);
    qmgr_line_set_unresolved(line, "another", first + TICK_S(5));
    assert_string_equal("another", name_use(&f, "V").unresolved);
    assert_int_equal(first, name_use(&f, "v").unresolved_since);
    assert_null(name_use(&f, "w").unresolved);
    qmgr_line_set_unresolved(line, NULL, first + TICK_S(6));
    assert_null(name_use(&f, "v").unresolved);
    qmgr_line_set_unresolved(line, "again", first + TICK_S(7));
    assert_int_equal(first + TICK_S(7), name_use(&f, "v").unresolved_since);
    qmgr_line_return(f.qmgr, line, f.now);
    qmgr_finish(f.qmgr, delivery, &(struct qmgr_finish){0}, f.now);
    fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(filters_find_what_they_say),
        cmocka_unit_test(id_finds_one_message),
        cmocka_unit_test(failed_recipients_are_seen_until_told),
        cmocka_unit_test(mail_may_leave_under_a_scan),
        cmocka_unit_test(scans_are_bounded),
        cmocka_unit_test(step_is_bounded),
        cmocka_unit_test(groups_are_counted),
        cmocka_unit_test(what_goes_to_a_name_is_counted),
        cmocka_unit_test(what_cannot_be_resolved_is_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
