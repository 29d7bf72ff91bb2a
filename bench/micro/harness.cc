/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_micro [--json] [NAME...]: run the benchmarks whose names begin with a NAME, or all.
 *
 * The tables are C; this file hands their rows to Google Benchmark, which finds out how often to
 * run them, repeats that, and gives the median. With --json each result is one line
 *
 *   {"bench": name, "value": number, "unit": "ns" or "GB/s", "conditions": text}
 *
 * Numbers are real time: for the benchmarks with two threads the processor time of one says
 * nothing.
 */
#include "bench/micro/harness.h"

#include <cstdio>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

namespace
{

constexpr int kRepetitions = 5;
constexpr double kSecondsEach = 0.1;
constexpr int64_t kBatch = 256; /* iterations per call, so that the call costs nothing */

const struct micro_bench *const kTables[] = {micro_bench_base, micro_bench_ring,  micro_bench_spool,
                                             micro_bench_dns,  micro_bench_relay, micro_bench_wire,
                                             micro_bench_stack};

class LineReporter : public benchmark::BenchmarkReporter
{
  public:
    explicit LineReporter(bool is_json) : is_json_(is_json)
    {
    }

    void Add(const struct micro_bench *bench)
    {
        benches_[bench->name] = bench;
    }

    bool ReportContext(const Context &) override
    {
        return true;
    }

    void ReportRuns(const std::vector<Run> &runs) override
    {
        for (const Run &run : runs) {
            if (run.run_type == Run::RT_Aggregate && run.aggregate_name == "median")
                Report(*benches_.at(run.run_name.function_name), run.GetAdjustedRealTime());
        }
    }

  private:
    void Report(const struct micro_bench &bench, double nanoseconds)
    {
        double value = bench.octets > 0 ? static_cast<double>(bench.octets) / nanoseconds
                                        : nanoseconds / static_cast<double>(bench.items);
        const char *unit = bench.octets > 0 ? "GB/s" : "ns";

        if (is_json_) {
            std::printf("{\"bench\": \"%s\", \"value\": %.4g, \"unit\": \"%s\", "
                        "\"conditions\": \"%s\"}\n",
                        bench.name, value, unit, bench.conditions);
        } else {
            std::printf("%-28s %10.4g %-5s %s\n", bench.name, value, unit, bench.conditions);
        }
        std::fflush(stdout);
    }

    bool is_json_;
    std::map<std::string, const struct micro_bench *> benches_;
};

void Run(benchmark::State &state, const struct micro_bench *bench)
{
    void *context = bench->set_up();

    while (state.KeepRunningBatch(kBatch))
        bench->run(context, kBatch);
    bench->tear_down(context);
}

bool IsWanted(const char *name, const std::vector<const char *> &wanted)
{
    for (const char *prefix : wanted) {
        if (std::strncmp(name, prefix, std::strlen(prefix)) == 0)
            return true;
    }
    return wanted.empty();
}

} // namespace

int main(int argc, char **argv)
{
    std::vector<const char *> wanted;
    bool is_json = false;
    int registered = 0;

    for (int i = 1; i < argc; i++) {
        if (std::strcmp(argv[i], "--json") == 0)
            is_json = true;
        else
            wanted.push_back(argv[i]);
    }
    LineReporter reporter(is_json);
    for (const struct micro_bench *bench : kTables) {
        for (; bench->name != nullptr; bench++) {
            if (!IsWanted(bench->name, wanted))
                continue;
            reporter.Add(bench);
            benchmark::RegisterBenchmark(bench->name, Run, bench)
                ->Repetitions(kRepetitions)
                ->MinTime(kSecondsEach)
                ->ReportAggregatesOnly(true)
                ->UseRealTime();
            registered++;
        }
    }
    if (registered == 0) {
        std::fprintf(stderr, "bench_micro: no benchmark of that name\n");
        return 2;
    }
    benchmark::RunSpecifiedBenchmarks(&reporter);
    return 0;
}
