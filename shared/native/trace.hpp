// trace.hpp - where a message is, and when: trace points and histograms of one thread of one stage, in shared memory.
//
//   0        TraceHeader (one page)
//   4096     Histogram   the stage's share: from the commit of the stage before to its own
//   30848    Histogram   from the receipt of the message to the stage's commit
//   61440    events      65,536 of 16 bytes: ticks; number of the raw record << 8 | point
//
// Who        one thread writes. Any number of processes read, with a mapping that may not be written, and stop nobody.
//            `on` alone is written from outside, by `lob-trace on|off`.
// Invariant  event n lies in slot n % 65536; it is whole  <=>  n < head <= n + 65535 at the end of the reading.
// Points     an END stands just before the commit that shows the result, so that no START of the next stage, in another
//            process, is earlier than it.
// Ordering   T1 head=n relaxed load, release fence before the words   pairs with T4: new words imply head >= n
//            T2 head=n+1 release, after the words                     pairs with T3: head implies the words before it
// Full       the oldest events are overwritten; a reader counts what it lost.
// Cost       off: one word read and one branch that is never taken. On: the counter (some 20 ns on a virtual machine),
//            three stores. Histograms are always kept: two counts a record. With LOB_LITE nothing of this is compiled.
// Not for    two threads: each makes a segment of its own.
#pragma once

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "histogram.hpp"
#include "layout.hpp"
#include "segment.hpp"

namespace lob {

enum class Point : std::uint8_t {
    websocket_receive = 1,
    parse_start = 2,
    parse_end = 3,
    book_update_start = 4,
    book_update_end = 5,
    publish_start = 6,
    publish_end = 7,
};

struct TraceEvent {
    std::atomic<std::uint64_t> ticks;
    std::atomic<std::uint64_t> seq_point;  // raw_seq << 8 | Point
};
static_assert(sizeof(TraceEvent) == 16);

inline constexpr char TRACE_MAGIC[8] = {'L', 'O', 'B', 'T', '\r', '\n', '\x1a', '\n'};
inline constexpr std::uint32_t TRACE_VERSION = 1;
inline constexpr std::uint64_t TRACE_EVENTS = 65536;
inline constexpr std::uint64_t TRACE_SHARE_OFFSET = 4096;
inline constexpr std::uint64_t TRACE_HERE_OFFSET = TRACE_SHARE_OFFSET + sizeof(Histogram);
inline constexpr std::uint64_t TRACE_EVENTS_OFFSET = 61440;
inline constexpr std::uint64_t TRACE_BYTES = TRACE_EVENTS_OFFSET + TRACE_EVENTS * sizeof(TraceEvent);
static_assert(TRACE_HERE_OFFSET + sizeof(Histogram) <= TRACE_EVENTS_OFFSET);

struct TraceHeader {
    // written once, before the segment has a name
    char magic[8];
    std::uint32_t version;
    std::uint32_t stage;  // Stage
    std::uint64_t segment_bytes;
    std::uint64_t nonce;  // tells this segment from another of the same name
    std::uint32_t pid;
    std::uint32_t thread;          // 0 for the first of a stage
    std::uint64_t ticks_are_tsc;   // 0: ns of CLOCK_MONOTONIC
    std::uint64_t began_ticks;     // the same moment by three clocks
    std::int64_t began_ns;         // CLOCK_MONOTONIC
    std::int64_t began_unix_ns;
    char pad0[56];
    // 128: switched from outside
    std::atomic<std::uint32_t> on;
    char pad1[124];
    // 256: the writer's
    std::atomic<std::uint64_t> head;  // events since ever
    char pad2[3832];
};
static_assert(sizeof(TraceHeader) == 4096 && offsetof(TraceHeader, on) == 128 && offsetof(TraceHeader, head) == 256);

class Trace {
public:
    static void format(int fd, Stage stage, std::uint32_t thread, std::uint32_t pid, std::uint64_t nonce, bool on) {
        void* base = mmap(nullptr, TRACE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (base == MAP_FAILED) throw std::runtime_error(std::string("mmap: ") + std::strerror(errno));
        auto* header = static_cast<TraceHeader*>(base);
        std::memcpy(header->magic, TRACE_MAGIC, sizeof TRACE_MAGIC);
        header->version = TRACE_VERSION;
        header->stage = static_cast<std::uint32_t>(stage);
        header->segment_bytes = TRACE_BYTES;
        header->nonce = nonce;
        header->pid = pid;
        header->thread = thread;
        const bool tsc = tsc_is_a_clock();
        header->ticks_are_tsc = tsc ? 1 : 0;
        const ClockPair now = clock_pair(tsc);
        header->began_ticks = now.ticks;
        header->began_ns = now.mono_ns;
        header->began_unix_ns = unix_ns();
        header->on.store(on ? 1 : 0);
        munmap(base, TRACE_BYTES);
    }

    // Maps and checks; throws LayoutError with the reason.
    Trace(int fd, bool writable) : writable_(writable) {
        struct stat info {};
        if (fstat(fd, &info) != 0) throw std::runtime_error(std::string("fstat: ") + std::strerror(errno));
        if (static_cast<std::uint64_t>(info.st_size) != TRACE_BYTES)
            throw LayoutError("is no trace of this build: " + std::to_string(info.st_size) + " bytes");
        // Populated: a page that is met for the first time costs more than all trace points on it.
        void* base = mmap(nullptr, TRACE_BYTES, writable ? PROT_READ | PROT_WRITE : PROT_READ,
                          MAP_SHARED | (writable ? MAP_POPULATE : 0), fd, 0);
        if (base == MAP_FAILED) throw std::runtime_error(std::string("mmap: ") + std::strerror(errno));
        base_ = static_cast<std::byte*>(base);
        const TraceHeader& h = header();
        const char* wrong = std::memcmp(h.magic, TRACE_MAGIC, sizeof TRACE_MAGIC) != 0 ? "is no trace of ours (wrong magic)"
                            : h.version != TRACE_VERSION || h.segment_bytes != TRACE_BYTES ? "is a trace of another layout"
                            : h.stage > 3                                                 ? "is a trace of no stage we know"
                                                                                          : nullptr;
        if (wrong != nullptr) {
            munmap(base_, TRACE_BYTES);
            throw LayoutError(wrong);
        }
    }
    ~Trace() { munmap(base_, TRACE_BYTES); }
    Trace(const Trace&) = delete;
    Trace& operator=(const Trace&) = delete;

    TraceHeader& header() const { return *reinterpret_cast<TraceHeader*>(base_); }
    Histogram& share() const { return *reinterpret_cast<Histogram*>(base_ + TRACE_SHARE_OFFSET); }
    Histogram& here() const { return *reinterpret_cast<Histogram*>(base_ + TRACE_HERE_OFFSET); }
    TraceEvent* events() const { return reinterpret_cast<TraceEvent*>(base_ + TRACE_EVENTS_OFFSET); }
    bool writable() const { return writable_; }

    void write(Point point, std::uint64_t raw_seq, std::uint64_t at_ticks) {
        std::atomic<std::uint64_t>& head = header().head;
        const std::uint64_t n = head.load(std::memory_order_relaxed);
        DefaultAtomics::fence(std::memory_order_release);  // T1
        TraceEvent& event = events()[n % TRACE_EVENTS];
        event.ticks.store(at_ticks, std::memory_order_relaxed);
        event.seq_point.store(raw_seq << 8 | static_cast<std::uint64_t>(point), std::memory_order_relaxed);
        head.store(n + 1, std::memory_order_release);  // T2
    }

    struct Copy {
        std::uint64_t next;                 // number of the first event not copied
        std::uint64_t lost;                 // events from `from` on that were overwritten before they were copied
        std::vector<std::uint64_t> words;   // ticks, seq_point; ticks, seq_point; ...
    };
    // The events from number `from` on.
    Copy copy(std::uint64_t from) const {
        const std::uint64_t end = header().head.load(std::memory_order_acquire);  // T3
        std::uint64_t first = from > end ? end : from;
        if (end - first > TRACE_EVENTS) first = end - TRACE_EVENTS;
        Copy copy{end, 0, {}};
        copy.words.reserve(2 * (end - first));
        for (std::uint64_t n = first; n != end; ++n) {
            const TraceEvent& event = events()[n % TRACE_EVENTS];
            copy.words.push_back(event.ticks.load(std::memory_order_relaxed));
            copy.words.push_back(event.seq_point.load(std::memory_order_relaxed));
        }
        DefaultAtomics::fence(std::memory_order_acquire);  // T4
        const std::uint64_t head = header().head.load(std::memory_order_relaxed);
        // The event under construction is number `head`: it lies where `head - 65536` was.
        const std::uint64_t whole = head >= TRACE_EVENTS ? head - TRACE_EVENTS + 1 : 0;
        const std::uint64_t torn = std::min(whole > first ? whole - first : 0, end - first);
        copy.words.erase(copy.words.begin(), copy.words.begin() + static_cast<std::ptrdiff_t>(2 * torn));
        copy.lost = first + torn - std::min(from, first);
        return copy;
    }

private:
    std::byte* base_ = nullptr;
    const bool writable_;
};

// --- what the stages call ---------------------------------------------------------------------------------------------

#ifdef LOB_LITE

inline void trace_to(Trace*) {}
inline bool tracing() { return false; }
inline void trace_point(Point, std::uint64_t) {}
inline void trace_point_at(Point, std::uint64_t, std::int64_t) {}
inline void measure(Stage, const RecordHeader&) {}

#else

// Where this module's trace points go: a process is one stage and does its native work in one thread. A variable, not a
// parameter: a trace point stands where it stands, and those who call through it know nothing of it.
struct Tracer {
    static inline std::atomic<std::uint32_t> never{0};

    std::atomic<std::uint32_t>* on = &never;
    Trace* trace = nullptr;
    bool tsc = false;
    // To place a moment of CLOCK_MONOTONIC among the ticks: a pair of the same moment, and the rate.
    ClockPair anchor{};
    double ticks_per_ns = 0.0;
};
inline Tracer tracer;

// From now on into `trace`, which the caller keeps; null: nowhere.
inline void trace_to(Trace* trace) {
    tracer = Tracer{};
    if (trace == nullptr) return;
    if (!trace->writable()) throw std::invalid_argument("the trace is mapped read-only");
    tracer.trace = trace;
    tracer.tsc = trace->header().ticks_are_tsc != 0;
    tracer.on = &trace->header().on;
}

inline bool tracing() { return tracer.on->load(std::memory_order_relaxed) != 0; }

// `raw_seq`: of the raw record that all this comes from; 0: of none, and nothing is written.
inline void trace_point(Point point, std::uint64_t raw_seq) {
    if (tracing()) [[unlikely]] {
        if (raw_seq != 0) tracer.trace->write(point, raw_seq, ticks(tracer.tsc));
    }
}

// A moment that has passed: `at_ns` by CLOCK_MONOTONIC, at most seconds ago.
inline void trace_point_at(Point point, std::uint64_t raw_seq, std::int64_t at_ns) {
    if (tracing()) [[unlikely]] {
        std::uint64_t at = static_cast<std::uint64_t>(at_ns);
        if (tracer.tsc) {
            const ClockPair began{tracer.trace->header().began_ticks, tracer.trace->header().began_ns};
            // The anchor is at most 1 ms away, so the rate, from all the time since the segment was made, need not be exact.
            if (tracer.ticks_per_ns == 0.0 || at_ns - tracer.anchor.mono_ns > 1'000'000) {
                tracer.anchor = clock_pair(true, 3);
                tracer.ticks_per_ns = static_cast<double>(tracer.anchor.ticks - began.ticks) /
                                      static_cast<double>(tracer.anchor.mono_ns - began.mono_ns);
            }
            at = tracer.anchor.ticks +
                 static_cast<std::uint64_t>(std::llround(static_cast<double>(at_ns - tracer.anchor.mono_ns) * tracer.ticks_per_ns));
        }
        tracer.trace->write(point, raw_seq, at);
    }
}

// Counts what a record that carries this stage's stamp says of it. Left out, as they say nothing of the way: records of
// no message, and snapshots repeated for late readers, whose message is long past.
inline void measure(Stage stage, const RecordHeader& record) {
    Trace* trace = tracer.trace;
    if (trace == nullptr || record.origin_ns == 0 || (record.flags & FLAG_REFRESH) != 0) return;
    const auto at = static_cast<std::uint32_t>(stage);
    const std::uint32_t here_ns = record.stage_ns[at];
    const std::uint32_t before_ns = at == 0 ? 0 : record.stage_ns[at - 1];
    if (here_ns == 0) return;
    trace->here().record(here_ns);
    if (at == 0 || before_ns != 0) trace->share().record(here_ns > before_ns ? here_ns - before_ns : 0);
}

#endif

}  // namespace lob
