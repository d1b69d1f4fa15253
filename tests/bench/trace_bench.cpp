// trace_bench.cpp - ns a trace point, switched on and off, and ns a record that a histogram counts, beside one reading of
// the time-stamp counter (most of a point that is on). Prints one JSON object a row. What was written is checked.
//
// Each figure is the median of 15 runs of a loop with and without the point, both of which do the same other work: the
// difference is the point. Not in it: that the rings' words leave the cache of who writes them.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "trace.hpp"

using namespace lob;

namespace {

constexpr int RUNS = 15;
constexpr std::uint64_t ROUNDS = 1'000'000;

// Work that the compiler can neither drop nor fold over rounds.
inline std::uint64_t work(std::uint64_t x) {
    asm volatile("" : "+r"(x));
    return x * 6364136223846793005ull + 1442695040888963407ull;
}

template <class Body>
double run_ns(Body&& body) {
    std::uint64_t x = 1;
    const std::int64_t begin_ns = mono_ns();
    for (std::uint64_t i = 1; i <= ROUNDS; ++i) {
        x = work(x);
        body(i, x);
    }
    const std::int64_t took_ns = mono_ns() - begin_ns;
    asm volatile("" ::"r"(x));
    return static_cast<double>(took_ns) / static_cast<double>(ROUNDS);
}

// Of pairs of runs, one after the other, the median difference to the empty loop.
template <class Body>
double cost_ns(Body&& body) {
    std::vector<double> differences;
    for (int i = 0; i < RUNS; ++i) {
        const double empty_ns = run_ns([](std::uint64_t, std::uint64_t) {});
        differences.push_back(run_ns(body) - empty_ns);
    }
    std::sort(differences.begin(), differences.end());
    return differences[RUNS / 2];
}

void row(const char* name, double value_ns, double yardstick_ns) {
    std::printf("{\"name\":\"%s\",\"value\":%.2f,\"unit\":\"ns\",\"ratio\":%.3f,\"over\":\"one reading of the counter\",\"checked\":true}\n",
                name, value_ns, value_ns / yardstick_ns);
}

[[noreturn]] void wrong(const char* what) {
    std::fprintf(stderr, "trace_bench: %s\n", what);
    std::_Exit(1);
}

}  // namespace

int main() {
    const int fd = memfd_create("trace-bench", 0);
    if (fd < 0 || ftruncate(fd, static_cast<off_t>(TRACE_BYTES)) != 0) std::abort();
    Trace::format(fd, Stage::parse, 0, 1, 1, false);
    Trace trace(fd, true);
    trace_to(&trace);
    const bool tsc = trace.header().ticks_are_tsc != 0;

    const double reading_ns = cost_ns([&](std::uint64_t, std::uint64_t) {
        std::uint64_t now = ticks(tsc);
        asm volatile("" ::"r"(now));
    });
    const double off_ns = cost_ns([](std::uint64_t i, std::uint64_t) { trace_point(Point::parse_start, i); });
    if (trace.header().head.load() != 0) wrong("switched off, and events were written");

    trace.header().on.store(1);
    const double on_ns = cost_ns([](std::uint64_t i, std::uint64_t) { trace_point(Point::parse_start, i); });
#ifdef LOB_LITE
    if (trace.header().head.load() != 0) wrong("a lite build wrote events");
#else
    if (trace.header().head.load() != RUNS * ROUNDS) wrong("events are missing");
    const Trace::Copy copy = trace.copy(0);
    std::uint64_t before = 0;
    for (std::size_t i = 0; i < copy.words.size(); i += 2) {
        const std::uint64_t seq = ROUNDS - (copy.words.size() - i) / 2 + 1;
        if (copy.words[i + 1] != (seq << 8 | 2) || copy.words[i] < before) wrong("an event is not what was written");
        before = copy.words[i];
    }
#endif

    const std::int64_t at_ns = mono_ns();
    const double past_ns = cost_ns([&](std::uint64_t i, std::uint64_t) { trace_point_at(Point::websocket_receive, i, at_ns); });
    trace.header().on.store(0);

    RecordHeader record{};
    record.origin_ns = 1;
    const std::uint64_t counted = trace.here().max.load();
    const double measure_ns = cost_ns([&](std::uint64_t, std::uint64_t x) {
        record.stage_ns[0] = static_cast<std::uint32_t>(x >> 48) + 1;
        record.stage_ns[1] = record.stage_ns[0] + (static_cast<std::uint32_t>(x >> 40) & 0xFFF) + 1;
        measure(Stage::parse, record);
    });
#ifndef LOB_LITE
    std::uint64_t sum = 0;
    for (const auto& count : trace.share().counts) sum += count.load();
    if (sum != RUNS * ROUNDS || trace.here().max.load() <= counted) wrong("the histograms do not hold all records");
#else
    (void)counted;
#endif

    row("trace point, off", off_ns, reading_ns);
    row("trace point, on", on_ns, reading_ns);
    row("trace point of a moment that has passed (WEBSOCKET_RECEIVE), on", past_ns, reading_ns);
    row("both histograms of a stage, a record (always on)", measure_ns, reading_ns);
    row(tsc ? "reading the time-stamp counter" : "reading CLOCK_MONOTONIC (no invariant counter here)", reading_ns, reading_ns);
    return 0;
}
