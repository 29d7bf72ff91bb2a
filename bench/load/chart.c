/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The chart of a run: one SVG file that needs nothing else, with colours for light and dark pages.
 * Above, messages a second over time; below, latency over time on a logarithmic axis.
 *
 * At most CHART_POINTS points a line: longer runs are drawn by groups of seconds, of which the rate
 * is the mean and the latency the highest.
 */
#include "bench/load/load.h"

#include <math.h>

#define CHART_WIDTH  960.0
#define CHART_HEIGHT 600.0
#define CHART_POINTS 900u
#define PLOT_LEFT    76.0
#define PLOT_RIGHT   (CHART_WIDTH - 24.0)

struct plot {
    double top, bottom; /* pixels */
    double low, high;   /* values; with is_log their logarithms to the base of 10 */
    bool is_log;
};

/* Plain colours first: not every viewer knows media queries. */
static const char style[] =
    "<style>\n"
    "svg{font:13px system-ui,sans-serif}\n"
    ".page{fill:#ffffff}text{fill:#1f2328}.soft{fill:#656d76}\n"
    ".title{font-size:16px;font-weight:600}\n"
    ".grid{stroke:#d8dee4;stroke-width:1}\n"
    ".line{fill:none;stroke-width:2;stroke-linejoin:round}\n"
    ".a{stroke:#0969da}.b{stroke:#1a7f37;stroke-dasharray:7 "
    "4}.c{stroke:#bf8700}.d{stroke:#cf222e}\n"
    "@media (prefers-color-scheme:dark){.page{fill:#0d1117}text{fill:#e6edf3}.soft{fill:#8b949e}\n"
    ".grid{stroke:#30363d}\n"
    ".a{stroke:#58a6ff}.b{stroke:#3fb950}.c{stroke:#d29922}.d{stroke:#f85149}}\n"
    "</style>\n"
    "<rect class=\"page\" width=\"100%\" height=\"100%\"/>\n";

static double plot_y(const struct plot *plot, double value)
{
    double at = plot->is_log ? log10(value < 1 ? 1 : value) : value;
    double part = (at - plot->low) / (plot->high - plot->low);

    part = part < 0 ? 0 : part > 1 ? 1 : part;
    return plot->bottom - part * (plot->bottom - plot->top);
}

static void write_escaped(FILE *file, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '&')
            (void)fputs("&amp;", file);
        else if (*text == '<')
            (void)fputs("&lt;", file);
        else if (*text == '>')
            (void)fputs("&gt;", file);
        else
            (void)fputc(*text >= ' ' && *text <= '~' ? *text : '?', file);
    }
}

/* 1, 2 or 5 times a power of ten, so that at most `count` of them make `span`. */
static double step_of(double span, double count)
{
    double step = pow(10, floor(log10(span / count)));

    while (span / step > count)
        step *= span / step > count * 2.5 ? 5 : span / step > count * 2 ? 2.5 : 2;
    return step;
}

static void write_rule(FILE *file, double y, const char *label)
{
    (void)fprintf(file,
                  "<line class=\"grid\" x1=\"%.0f\" x2=\"%.0f\" y1=\"%.1f\" y2=\"%.1f\"/>"
                  "<text class=\"soft\" x=\"%.0f\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n",
                  PLOT_LEFT, PLOT_RIGHT, y, y, PLOT_LEFT - 8, y + 4, label);
}

static void write_rules(FILE *file, const struct plot *plot)
{
    char label[METER_TIME_SIZE];

    if (plot->is_log) {
        for (double power = plot->low; power <= plot->high; power += 1) {
            uint64_t value = (uint64_t)llround(pow(10, power));
            (void)snprintf(label, sizeof(label), "%llu %s",
                           (unsigned long long)(value >= 1000000 ? value / 1000000
                                                : value >= 1000  ? value / 1000
                                                                 : value),
                           value >= 1000000 ? "s"
                           : value >= 1000  ? "ms"
                                            : "us");
            write_rule(file, plot_y(plot, (double)value), label);
        }
        return;
    }
    double step = step_of(plot->high, 5);
    for (double value = 0; value <= plot->high * 1.0001; value += step) {
        (void)snprintf(label, sizeof(label), "%.15g", value);
        write_rule(file, plot_y(plot, value), label);
    }
}

static void write_seconds(FILE *file, double y, double duration)
{
    double step = step_of(duration, 10);

    for (double at = 0; at <= duration * 1.0001; at += step)
        (void)fprintf(
            file,
            "<text class=\"soft\" x=\"%.1f\" y=\"%.0f\" text-anchor=\"middle\">%.15g s</text>\n",
            PLOT_LEFT + at / duration * (PLOT_RIGHT - PLOT_LEFT), y, at);
}

/* ---- lines ---- */

enum chart_value { CHART_RATE, CHART_P50, CHART_P99, CHART_P999 };

static double value_of(const struct meter_sample *sample, enum chart_value what)
{
    switch (what) {
    case CHART_P50:
        return (double)sample->p50;
    case CHART_P99:
        return (double)sample->p99;
    case CHART_P999:
        return (double)sample->p999;
    case CHART_RATE:
    default:
        return sample->seconds > 0 ? (double)sample->counts[METER_MESSAGES] / sample->seconds : 0;
    }
}

/* Of the samples [from, to): the mean rate, or the highest latency. */
static double group_value(const struct meter *meter, uint32_t from, uint32_t to,
                          enum chart_value what)
{
    double sum = 0, highest = 0;

    for (uint32_t i = from; i < to; i++) {
        double value = value_of(&meter->samples[i], what);
        sum += value;
        highest = value > highest ? value : highest;
    }
    return what == CHART_RATE ? sum / (to - from) : highest;
}

static void write_point(FILE *file, const struct plot *plot, double part, double value)
{
    (void)fprintf(file, "%.1f,%.1f ", PLOT_LEFT + part * (PLOT_RIGHT - PLOT_LEFT),
                  plot_y(plot, value));
}

static void write_line(FILE *file, const struct plot *plot, const struct meter *meter,
                       double duration, enum chart_value what, char class)
{
    uint32_t group = (meter->sample_count + CHART_POINTS - 1) / CHART_POINTS;

    (void)fprintf(file, "<polyline class=\"line %c\" points=\"", class);
    for (uint32_t i = 0; i < meter->sample_count; i += group) {
        uint32_t end = i + group < meter->sample_count ? i + group : meter->sample_count;
        bool is_short = meter->samples[end - 1].seconds < 0.5 && meter->sample_count > 1;
        double value = group_value(meter, i, end, what);
        double from = meter->samples[i].at - meter->samples[i].seconds;
        if (is_short || (what != CHART_RATE && value <= 0))
            continue; /* the last split second says little; no messages, no latency */
        if (i == 0)   /* a line begins where its first second does */
            write_point(file, plot, from / duration, value);
        write_point(file, plot, meter->samples[end - 1].at / duration, value);
    }
    (void)fputs("\"/>\n", file);
}

static void write_key(FILE *file, double x, double y, char class, const char *label)
{
    (void)fprintf(file,
                  "<line class=\"line %c\" x1=\"%.0f\" x2=\"%.0f\" y1=\"%.0f\" y2=\"%.0f\"/>"
                  "<text x=\"%.0f\" y=\"%.0f\">",
                  class, x, x + 20, y - 4, y - 4, x + 26, y);
    write_escaped(file, label);
    (void)fputs("</text>\n", file);
}

static double highest_of(const struct meter *meter, enum chart_value what, double highest)
{
    for (uint32_t i = 0; meter != NULL && i < meter->sample_count; i++) {
        double value = value_of(&meter->samples[i], what);
        highest = value > highest && meter->samples[i].seconds >= 0.5 ? value : highest;
    }
    return highest;
}

static double lowest_latency(const struct meter *meter, double lowest)
{
    for (uint32_t i = 0; i < meter->sample_count; i++) {
        double value = (double)meter->samples[i].p50;
        lowest = value > 0 && value < lowest ? value : lowest;
    }
    return lowest;
}

static double duration_of(const struct meter *meter, double longest)
{
    if (meter == NULL || meter->sample_count == 0)
        return longest;
    double end = meter->samples[meter->sample_count - 1].at;
    return end > longest ? end : longest;
}

static void write_rates(FILE *file, const struct meter *source, const struct meter *sink,
                        double duration)
{
    double highest = highest_of(source, CHART_RATE, highest_of(sink, CHART_RATE, 1));
    double step = step_of(highest, 5);
    struct plot plot = {.top = 92, .bottom = 300, .high = ceil(highest / step) * step};

    (void)fprintf(file, "<text class=\"soft\" x=\"%.0f\" y=\"74\">messages per second</text>\n",
                  PLOT_LEFT);
    write_rules(file, &plot);
    if (source != NULL) {
        write_line(file, &plot, source, duration, CHART_RATE, 'a');
        write_key(file, PLOT_RIGHT - 320, 74, 'a', "acknowledged to the source");
    }
    if (sink != NULL) {
        write_line(file, &plot, sink, duration, CHART_RATE, 'b');
        write_key(file, PLOT_RIGHT - 90, 74, 'b', "at the sink");
    }
}

static void write_latencies(FILE *file, const struct meter *meter, double duration)
{
    double highest = highest_of(meter, CHART_P999, 10), lowest = lowest_latency(meter, highest);
    struct plot plot = {.top = 360,
                        .bottom = 560,
                        .low = floor(log10(lowest)),
                        .high = ceil(log10(highest)),
                        .is_log = true};

    if (plot.high <= plot.low)
        plot.high = plot.low + 1;
    (void)fprintf(
        file, "<text class=\"soft\" x=\"%.0f\" y=\"342\">%s: latency of each second</text>\n",
        PLOT_LEFT,
        meter->what[1] == 'o' ? "message, sent to acknowledged" : "end to end, sent to arrived");
    write_rules(file, &plot);
    write_seconds(file, 582, duration);
    write_line(file, &plot, meter, duration, CHART_P50, 'a');
    write_line(file, &plot, meter, duration, CHART_P99, 'c');
    write_line(file, &plot, meter, duration, CHART_P999, 'd');
    write_key(file, PLOT_RIGHT - 260, 342, 'a', "median");
    write_key(file, PLOT_RIGHT - 170, 342, 'c', "99 %");
    write_key(file, PLOT_RIGHT - 90, 342, 'd', "99.9 %");
}

void load_chart(FILE *file, const char *title, const struct meter *source, const struct meter *sink)
{
    double duration = duration_of(source, duration_of(sink, 0.001));
    const struct meter *charted = source != NULL ? source : sink;

    CHECK(charted != NULL);
    (void)fprintf(file,
                  "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" "
                  "width=\"%.0f\" height=\"%.0f\" role=\"img\">\n<title>",
                  CHART_WIDTH, CHART_HEIGHT, CHART_WIDTH, CHART_HEIGHT);
    write_escaped(file, title);
    (void)fprintf(file, "</title>\n%s<text class=\"title\" x=\"24\" y=\"34\">", style);
    write_escaped(file, title);
    (void)fputs("</text>\n", file);
    write_rates(file, source, sink, duration);
    write_latencies(file, charted, duration);
    (void)fputs("</svg>\n", file);
}
