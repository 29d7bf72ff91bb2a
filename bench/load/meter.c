/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counting and timing. Everything is added to totals; a second's figures are differences of them,
 * and one small histogram that is emptied every second. Samples are kept for the report, one a
 * second, METER_SAMPLE_MAX at most (a day): later seconds are printed and not kept.
 */
#include "bench/load/meter.h"

#include <stdlib.h>
#include <string.h>

#define METER_SAMPLE_MAX 86400u

struct meter *meter_new(const char *what, enum meter_latency charted, tick_us now)
{
    struct meter *meter = calloc(1, sizeof(*meter));

    CHECK(meter != NULL);
    meter->what = what;
    meter->charted = charted;
    meter->started = meter->last_at = now;
    meter->line_at = now + TICK_S(1);
    return meter;
}

void meter_free(struct meter *meter)
{
    free(meter->samples);
    free(meter);
}

static struct meter_sample *sample_room(struct meter *meter)
{
    if (meter->sample_count == meter->sample_capacity && meter->sample_count < METER_SAMPLE_MAX) {
        meter->sample_capacity = meter->sample_capacity == 0 ? 64 : meter->sample_capacity * 2;
        meter->samples = realloc(meter->samples, meter->sample_capacity * sizeof(*meter->samples));
        CHECK(meter->samples != NULL);
    }
    if (meter->sample_count == meter->sample_capacity)
        meter->sample_count--; /* a day is full: the last one is written over */
    return &meter->samples[meter->sample_count++];
}

static const struct meter_sample *sample_close(struct meter *meter, tick_us now)
{
    struct meter_sample *sample = sample_room(meter);

    *sample = (struct meter_sample){
        .at = (double)(now - meter->started) / 1e6,
        .seconds = (double)(now - meter->last_at) / 1e6,
        .open = meter->open,
        .latency_count = meter->second.count,
        .p50 = histogram_quantile(&meter->second, 500000),
        .p99 = histogram_quantile(&meter->second, 990000),
        .p999 = histogram_quantile(&meter->second, 999000),
        .max = meter->second.max,
    };
    for (uint32_t i = 0; i < METER_COUNT_COUNT; i++)
        sample->counts[i] = meter->counts[i] - meter->before[i];
    memcpy(meter->before, meter->counts, sizeof(meter->before));
    histogram_reset(&meter->second);
    meter->last_at = now;
    return sample;
}

const struct meter_sample *meter_tick(struct meter *meter, tick_us now)
{
    if (now < meter->line_at)
        return NULL;
    /* After a stall the next line is a second from now: no burst of empty ones. */
    meter->line_at += TICK_S(1);
    if (meter->line_at <= now)
        meter->line_at = now + TICK_S(1);
    return sample_close(meter, now);
}

void meter_end(struct meter *meter, tick_us now)
{
    if (now > meter->last_at)
        (void)sample_close(meter, now);
}
