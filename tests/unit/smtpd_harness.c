/* SPDX-License-Identifier: Apache-2.0 */
/* A driver of the session engine without network and disk: see smtpd_harness.h. */
#include "tests/unit/smtpd_harness.h"

#include <stdlib.h>
#include <strings.h>

static const struct settings_pool pool = {.name = "default"};

static void on_record(void *opaque, const struct record *record)
{
    struct harness *harness = opaque;

    if (harness->record_count < HARNESS_MESSAGE_MAX)
        harness->records[harness->record_count] = *record;
    harness->record_count += 1;
}

void harness_init(struct harness *harness)
{
    memset(harness, 0, offsetof(struct harness, input));
    harness->routes[0] = (struct settings_route){
        .pattern = "served.example", .kind = SETTINGS_ROUTE_MX, .is_served = true};
    harness->routes[1] = (struct settings_route){
        .pattern = "*.sub.example", .kind = SETTINGS_ROUTE_MX, .is_served = true};
    harness->routes[2] = (struct settings_route){
        .pattern = "refused.example", .kind = SETTINGS_ROUTE_REFUSE, .refuse_text = "we know why"};
    harness->routes[3] = (struct settings_route){.pattern = "*", .kind = SETTINGS_ROUTE_MX};
    CHECK(flow_prefix_parse(SPAN_LITERAL("10.0.0.0/8"), &harness->relay_from) == ERR_OK);
    harness->listener =
        (struct settings_listener){.limits = {.command_line_size_max = 2048,
                                              .recipient_max = 100,
                                              .message_size_max = HARNESS_BODY_MAX / 2,
                                              .text_line_size_max = 1000,
                                              .received_max = 100,
                                              .error_max = 20,
                                              .junk_max = 100,
                                              .session_max = 10,
                                              .transactions_ahead_max = 2,
                                              .command_timeout = TICK_S(300),
                                              .data_timeout = TICK_S(180),
                                              .session_timeout = TICK_S(3600),
                                              .transaction_timeout = TICK_S(1800)}};
    harness->settings = (struct settings){.hostname = "relay.example",
                                          .listeners = &harness->listener,
                                          .listener_count = 1,
                                          .relay_from = &harness->relay_from,
                                          .relay_from_count = 1,
                                          .pools = &pool,
                                          .pool_count = 1,
                                          .header.fields[HEADER_POOL] = {"x-pool", true, true},
                                          .routes = harness->routes,
                                          .route_count = 4,
                                          .auth = {.failure_max = 3, .timeout = TICK_S(30)},
                                          .message_lifetime = TICK_S(432000)};
    harness->now = (struct tick_now){.tick = TICK_S(1000), .wall = 1700000000000000};
    harness->output[0] = '\0';
    smtpd_context_init(&harness->context, 0,
                       (struct record_sink){.emit = on_record, .context = harness});
}

static void keep_message(struct harness *harness, struct envelope *envelope, uint16_t sequence)
{
    CHECK(harness->message_count < HARNESS_MESSAGE_MAX);
    struct harness_message *message = &harness->messages[harness->message_count++];
    *message = (struct harness_message){
        .size = harness->open_size, .envelope = *envelope, .sequence = sequence};
    message->body = malloc(harness->open_size + 1);
    CHECK(message->body != NULL);
    memcpy(message->body, harness->open_body, harness->open_size);
    message->body[message->size] = '\0';
    record_text(message->sender, sizeof(message->sender), envelope->sender);
    record_text(message->domain, sizeof(message->domain), envelope->recipients[0].domain);
    for (uint32_t i = 0; i < envelope->recipient_count && i < 4; i++)
        record_text(message->recipients[i], sizeof(message->recipients[i]),
                    envelope->recipients[i].address);
    harness->is_open = false;
}

static void store(struct harness *harness, const uint8_t *octets, uint32_t size)
{
    CHECK(harness->is_open && harness->open_size + size <= HARNESS_BODY_MAX);
    if (size > 0)
        memcpy(harness->open_body + harness->open_size, octets, size);
    harness->open_size += size;
}

static void take_output(struct harness *harness)
{
    memcpy(harness->output + harness->output_size, harness->context.output,
           harness->context.output_size);
    harness->output_size += harness->context.output_size;
    harness->output[harness->output_size] = '\0';
    harness->context.output_size = 0;
}

static void drop_input(struct harness *harness, uint32_t size)
{
    CHECK(size <= harness->input_size);
    harness->input_size -= size;
    memmove(harness->input, harness->input + size, harness->input_size);
}

static bool drive_command(struct harness *harness)
{
    uint32_t size = harness->input_size < 4096 ? harness->input_size : 4096, used = 0;

    if (smtpd_feed_command(&harness->context, &harness->session, span_of(harness->input, size),
                           harness->now, &used) != ERR_OK)
        return false;
    drop_input(harness, used);
    return true;
}

static bool body_step(struct harness *harness)
{
    struct smtpd_body_step step =
        smtpd_feed_body(&harness->context, &harness->session,
                        span_of(harness->input, harness->input_size), harness->now);

    if (step.is_stored) {
        store(harness, harness->input, step.pass);
        store(harness, step.insert.data, step.insert.size);
    }
    drop_input(harness, step.pass + step.skip);
    return step.pass + step.skip + step.insert.size > 0 ||
           smtpd_need(&harness->session) != SMTPD_NEED_BODY;
}

/* A step may do nothing but hold content back: the next one then moves on. */
static bool drive_body(struct harness *harness)
{
    return body_step(harness) || (harness->input_size > 0 && body_step(harness));
}

static void drive_begin(struct harness *harness)
{
    struct message_id id = {.high = 1, .low = harness->message_count};
    enum err err = harness->begin_err;

    harness->is_open = err == ERR_OK;
    harness->open_size = 0;
    struct span header = smtpd_begun(&harness->context, &harness->session, err, id, harness->now);
    if (header.size > 0)
        store(harness, header.data, header.size);
}

static void drive_end(struct harness *harness)
{
    uint16_t sequence;

    if (harness->body_err != ERR_OK) {
        smtpd_fail(&harness->context, &harness->session, harness->body_err, harness->now);
        return;
    }
    struct envelope *envelope =
        smtpd_end(&harness->context, &harness->session, harness->now, &sequence);
    CHECK(envelope_stored_size(envelope) == harness->open_size);
    CHECK(envelope_is_valid(envelope));
    keep_message(harness, envelope, sequence);
    if (!harness->holds_commits)
        harness_commit(harness, sequence, 250);
}

/* An exchange as SCRAM's, without its mathematics: "first", then "last", which is to be answered by
 * nothing; "final" is the right answer to the first. */
static void drive_scram(struct harness *harness, const struct auth_request *request)
{
    bool is_final = span_is_equal(request->message, SPAN_LITERAL("final"));
    enum auth_verdict verdict = request->message.size == 0 ? AUTH_ACCEPTED : AUTH_REJECTED;

    record_text(harness->login_name, sizeof(harness->login_name), request->name);
    harness->login_count += 1;
    harness->login_verdict = verdict;
    if (!request->goes_on || is_final)
        smtpd_auth_challenge(&harness->context, &harness->session, harness->login_number,
                             request->goes_on ? SPAN_LITERAL("bGFzdA==") : SPAN_LITERAL("Zmlyc3Q="),
                             harness->now);
    else
        smtpd_auth_verdict(&harness->context, &harness->session, harness->login_number, verdict,
                           harness->now);
}

static void drive_auth(struct harness *harness)
{
    struct auth_request request =
        smtpd_auth_take(&harness->session, harness->now, &harness->login_number);

    if (request.is_scram) {
        drive_scram(harness, &request);
        return;
    }
    CHECK(request.name.size > 0 && request.name.size <= AUTH_NAME_MAX);
    CHECK(request.password.size > 0 && request.password.size <= AUTH_PASSWORD_MAX);
    record_text(harness->login_name, sizeof(harness->login_name), request.name);
    record_text(harness->login_password, sizeof(harness->login_password), request.password);
    harness->login_verdict = AUTH_REJECTED;
    if ((strcasecmp(harness->login_name, "alice") == 0 &&
         strcmp(harness->login_password, "secret") == 0) ||
        (strcasecmp(harness->login_name, "bob@served.example") == 0 &&
         strcmp(harness->login_password, "pass word") == 0))
        harness->login_verdict = AUTH_ACCEPTED;
    if (strcmp(harness->login_name, "nobody") == 0)
        harness->login_verdict = AUTH_UNAVAILABLE;
    harness->login_count += 1;
    if (!harness->holds_verdicts)
        smtpd_auth_verdict(&harness->context, &harness->session, harness->login_number,
                           harness->login_verdict, harness->now);
}

/* Everything that can be done with the input at hand. */
static void drive(struct harness *harness)
{
    bool has_progress = true;

    while (has_progress && !harness->is_closed) {
        switch (smtpd_need(&harness->session)) {
        case SMTPD_NEED_GREETING:
            smtpd_greet(&harness->context, &harness->session, harness->input_size > 0,
                        harness->now);
            break;
        case SMTPD_NEED_COMMAND:
            has_progress = drive_command(harness);
            break;
        case SMTPD_NEED_BODY:
            has_progress = drive_body(harness);
            break;
        case SMTPD_NEED_BEGIN:
            drive_begin(harness);
            break;
        case SMTPD_NEED_SIGN:
            CHECK(smtpd_sign_cost(&harness->session) > 0);
            smtpd_sign(&harness->context, &harness->session, harness->now);
            break;
        case SMTPD_NEED_END:
            drive_end(harness);
            break;
        case SMTPD_NEED_TLS:
            take_output(harness);
            smtpd_tls_started(&harness->context, &harness->session, "TLSv1.3", harness->now);
            break;
        case SMTPD_NEED_AUTH:
            drive_auth(harness);
            break;
        case SMTPD_NEED_VERDICT:
        case SMTPD_NEED_QUOTA:
        case SMTPD_NEED_COMMIT:
            has_progress = false;
            break;
        case SMTPD_NEED_CLOSE:
            harness->is_closed = true;
            break;
        }
        if (harness->is_open && !smtpd_is_storing(&harness->session)) {
            harness->is_open = false;
            harness->aborted_count += 1;
        }
        take_output(harness);
    }
}

void harness_go_on(struct harness *harness)
{
    drive(harness);
}

void harness_verdict(struct harness *harness)
{
    smtpd_auth_verdict(&harness->context, &harness->session, harness->login_number,
                       harness->login_verdict, harness->now);
    drive(harness);
}

void harness_connect(struct harness *harness, const char *ip)
{
    struct smtpd_session_options options = {
        .settings = &harness->settings, .listener = &harness->listener, .id = 7};

    CHECK(flow_address_parse_ip(span_from_text(ip), &options.peer) == ERR_OK);
    smtpd_init(&harness->session, &options, harness->now);
    drive(harness);
}

void harness_send(struct harness *harness, struct span octets, uint32_t piece)
{
    if (piece == 0)
        piece = octets.size;
    for (uint32_t at = 0; at < octets.size; at += piece) {
        uint32_t size = octets.size - at < piece ? octets.size - at : piece;
        memcpy(harness->input + harness->input_size, octets.data + at, size);
        harness->input_size += size;
        drive(harness);
    }
}

void harness_send_text(struct harness *harness, const char *text)
{
    harness_send(harness, span_from_text(text), 0);
}

void harness_commit(struct harness *harness, uint16_t sequence, uint16_t code)
{
    struct message_fate fate = {.id = {.high = 1, .low = sequence}, .code = code};

    harness_fate(harness, sequence, &fate);
}

void harness_fate(struct harness *harness, uint16_t sequence, const struct message_fate *fate)
{
    smtpd_committed(&harness->context, &harness->session, sequence, fate, harness->now);
    take_output(harness);
    if (harness->holds_commits)
        drive(harness);
}

const char *harness_codes(const struct harness *harness, char *ret_codes, uint32_t size)
{
    uint32_t used = 0;

    for (const char *line = harness->output; *line != '\0';) {
        const char *end = strstr(line, "\r\n");
        CHECK(end != NULL && end - line >= 4 && used + 5 < size);
        if (line[3] == ' ') {
            if (used > 0)
                ret_codes[used++] = ' ';
            memcpy(ret_codes + used, line, 3);
            used += 3;
        }
        line = end + 2;
    }
    ret_codes[used] = '\0';
    return ret_codes;
}

void harness_clear(struct harness *harness)
{
    harness->output_size = 0;
    harness->output[0] = '\0';
}

void harness_fini(struct harness *harness)
{
    struct smtpd_session *session = &harness->session;

    if (session->settings != NULL) {
        smtpd_hang_up(&harness->context, session);
        while (session->pending != NULL)
            harness_commit(harness, session->pending->sequence, 250);
        smtpd_fini(&harness->context, session);
    }
    smtpd_context_fini(&harness->context);
    for (uint32_t i = 0; i < harness->message_count; i++)
        free(harness->messages[i].body);
}
