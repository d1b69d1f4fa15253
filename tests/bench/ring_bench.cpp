// ring_bench.cpp - ns a record through spsc and broadcast rings, in one process and between two pinned ones, beside the
// cache-line ping-pong of the same minute (on a virtual machine it moves between 70 and 500 ns: quote ratios); and what
// readers of a broadcast ring cost its writer. Prints one JSON object a row. Every record's content is checked.
// Usage: ring_bench [round-trip]
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "broadcast.hpp"
#include "spsc.hpp"

using namespace lob;

namespace {

void pin(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    sched_setaffinity(0, sizeof set, &set);
}

int make_segment(Kind kind, Policy policy, std::uint64_t capacity) {
    const int fd = memfd_create("ring-bench", 0);
    if (fd < 0 || ftruncate(fd, static_cast<off_t>(Segment::size_for(capacity))) != 0) std::abort();
    Segment::format(fd, kind, policy, capacity, 1, 0, 0, 0);
    return fd;
}

[[noreturn]] void wrong(const char* what) {
    std::fprintf(stderr, "ring_bench: %s\n", what);
    std::_Exit(1);
}

double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

// `goal`: what the figure, or its ratio, should keep to; "" if nothing was set.
void row(const std::string& name, double value, const char* unit, double ratio, const char* over, const char* goal) {
    std::printf("{\"name\":\"%s\",\"value\":%.2f,\"unit\":\"%s\",\"ratio\":%.3f,\"over\":\"%s\",\"goal\":\"%s\",\"checked\":true}\n",
                name.c_str(), value, unit, ratio, over, goal);
    std::fflush(stdout);  // or a child that ends prints it again
}

// Runs `body` in a child pinned to core 1, on its own mapping.
pid_t child(const std::function<void()>& body) {
    const pid_t pid = fork();
    if (pid == 0) {
        pin(1);
        body();
        std::_Exit(0);
    }
    return pid;
}
void join(pid_t pid) {
    int status = 0;
    if (waitpid(pid, &status, 0) != pid || status != 0) wrong("the reader found a wrong record");
}

void fill(RecordHeader& record, std::uint64_t n, std::uint32_t bytes) {
    auto* words = reinterpret_cast<std::uint64_t*>(&record);
    record.type = static_cast<std::uint16_t>(RecordType::trade);
    for (std::uint32_t i = 3; i < bytes / 8; ++i) words[i] = n + i;
}
void check(const RecordHeader& record, std::uint64_t n, std::uint32_t bytes) {
    const auto* words = reinterpret_cast<const std::uint64_t*>(&record);
    if (record.ring_seq != n + 1 || words[bytes / 8 - 1] != n + bytes / 8 - 1) wrong("a record that was not written");
}

double spsc_one_process(std::uint32_t bytes, std::uint64_t count) {
    const int fd = make_segment(Kind::spsc, Policy::wait, 1 << 20);
    Segment a(fd, true), b(fd, true);
    SpscWriter<> writer(a);
    SpscReader<> reader(b);
    writer.take_over(1);
    const std::int64_t start = mono_ns();
    for (std::uint64_t n = 0; n < count; ++n) {
        RecordHeader* record = writer.claim(bytes);
        if (record == nullptr) wrong("full");
        const std::uint64_t seq = record->ring_seq;
        fill(*record, n, bytes);
        record->ring_seq = seq;
        writer.commit();
        const RecordHeader* read = reader.peek();
        if (read == nullptr) wrong("empty");
        check(*read, n, bytes);
        reader.release(*read);
    }
    const double ns = static_cast<double>(mono_ns() - start) / static_cast<double>(count);
    close(fd);
    return ns;
}

double spsc_two_processes(std::uint32_t bytes, std::uint64_t count) {
    const int fd = make_segment(Kind::spsc, Policy::wait, 1 << 20);
    Segment a(fd, true);
    SpscWriter<> writer(a);
    writer.take_over(1);
    const pid_t pid = child([&] {
        Segment b(fd, true);
        SpscReader<> reader(b);
        for (std::uint64_t n = 0; n < count;) {
            const RecordHeader* record = reader.peek();
            if (record == nullptr) {
                reader.wait(WaitMode::yield, 1'000'000);
                continue;
            }
            check(*record, n++, bytes);
            reader.release(*record);
        }
        reader.publish();
    });
    pin(0);
    usleep(20'000);
    const std::int64_t start = mono_ns();
    for (std::uint64_t n = 0; n < count; ++n) {
        RecordHeader* record = writer.claim(bytes);
        while (record == nullptr) {
            writer.wait_free(bytes, WaitMode::yield, 1'000'000);
            record = writer.claim(bytes);
        }
        const std::uint64_t seq = record->ring_seq;
        fill(*record, n, bytes);
        record->ring_seq = seq;
        writer.commit();
    }
    join(pid);
    const double ns = static_cast<double>(mono_ns() - start) / static_cast<double>(count);
    close(fd);
    return ns;
}

double broadcast_two_processes(std::uint32_t bytes, std::uint64_t count) {
    const int fd = make_segment(Kind::broadcast, Policy::wait, 1 << 20);
    Segment a(fd, true);
    BroadcastWriter<> writer(a);
    writer.take_over(1);
    const pid_t pid = child([&] {
        Segment b(fd, true);
        BroadcastReader<> reader(b, BroadcastReader<>::From::slot, 0);
        std::vector<std::uint64_t> words;
        std::uint64_t n = 0;
        while (n < count) {
            if (reader.read(words) != Read::ok) {
                reader.wait(WaitMode::yield, 1'000'000);
                continue;
            }
            check(*reinterpret_cast<const RecordHeader*>(words.data()), n++, bytes);
            if (n % 512 == 0) reader.publish();
        }
        reader.publish();
    });
    pin(0);
    usleep(20'000);
    std::vector<std::uint64_t> staged(bytes / 8);
    auto& record = *reinterpret_cast<RecordHeader*>(staged.data());
    const std::int64_t start = mono_ns();
    for (std::uint64_t n = 0; n < count; ++n) {
        record.size_bytes = bytes;
        fill(record, n, bytes);
        record.size_bytes = bytes;
        while (!writer.write(record)) writer.wait_free(bytes, WaitMode::yield, 1'000'000);
        writer.commit();
    }
    join(pid);
    const double ns = static_cast<double>(mono_ns() - start) / static_cast<double>(count);
    close(fd);
    return ns;
}

// A ring of the pipeline's size, whose laps leave the caches, in small pages or in huge ones.
struct Large {
    static constexpr std::uint64_t CAPACITY = 32 << 20;
    explicit Large(bool huge) : fd(make_segment(Kind::spsc, Policy::wait, CAPACITY)), segment(fd, true) {
        if (huge) error = segment.pages().make_huge();
    }
    ~Large() { close(fd); }
    int fd;
    int error = 0;
    Segment segment;
};

// Laps of it: half a ring written, then read.
double spsc_laps(Large& ring, std::uint32_t bytes, std::uint64_t laps) {
    Segment again(ring.fd, true);
    SpscWriter<> writer(ring.segment);
    SpscReader<> reader(again);
    writer.take_over(1);
    const std::uint64_t batch = Large::CAPACITY / 2 / bytes;
    std::uint64_t n = 0;
    const std::uint64_t before = writer.next_seq() - 1;
    const std::int64_t start = mono_ns();
    for (std::uint64_t half = 0; half < 2 * laps; ++half) {
        for (std::uint64_t i = 0; i < batch; ++i) {
            RecordHeader* record = writer.claim(bytes);
            if (record == nullptr) wrong("full");
            const std::uint64_t seq = record->ring_seq;
            fill(*record, before + n + i, bytes);
            record->ring_seq = seq;
            writer.commit();
        }
        for (std::uint64_t i = 0; i < batch; ++i) {
            const RecordHeader* read = reader.peek();
            if (read == nullptr) wrong("empty");
            check(*read, before + n + i, bytes);
            reader.release(*read);
        }
        reader.publish();
        n += batch;
    }
    return static_cast<double>(mono_ns() - start) / static_cast<double>(n);
}

// Loads in random order, each waiting for the one before: a walk through the page tables, and memory itself.
double page_walk(Large& ring, std::uint64_t count) {
    auto* words = reinterpret_cast<volatile std::uint64_t*>(ring.segment.data());
    std::uint64_t at = 0;
    const std::int64_t start = mono_ns();
    for (std::uint64_t n = 0; n < count; ++n)
        at = (at * 6364136223846793005ull + 1442695040888963407ull + (words[at] >> 63)) % (Large::CAPACITY / 8);
    return static_cast<double>(mono_ns() - start) / static_cast<double>(count);
}

// What mapping the whole ring costs a stage that attaches, in us.
double attach_us(Large& ring) {
    const std::int64_t start = mono_ns();
    Segment again(ring.fd, true);
    return static_cast<double>(mono_ns() - start) / 1e3;
}

// One cache line to the other core and back: what the hardware gives.
double ping_pong(std::uint64_t count) {
    void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    auto* ball = new (page) std::atomic<std::uint64_t>(0);
    const pid_t pid = child([&] {
        for (std::uint64_t n = 1; n < 2 * count; n += 2) {
            while (ball->load(std::memory_order_acquire) != n) cpu_relax();
            ball->store(n + 1, std::memory_order_release);
        }
    });
    pin(0);
    usleep(20'000);
    std::vector<double> rounds;
    for (std::uint64_t n = 0; n < 2 * count; n += 2) {
        const std::int64_t start = mono_ns();
        ball->store(n + 1, std::memory_order_release);
        while (ball->load(std::memory_order_acquire) != n + 2) cpu_relax();
        rounds.push_back(static_cast<double>(mono_ns() - start));
    }
    join(pid);
    munmap(page, 4096);
    return median(rounds);
}

double spsc_round_trip(std::uint32_t bytes, std::uint64_t count) {
    const int there = make_segment(Kind::spsc, Policy::wait, 1 << 20), back = make_segment(Kind::spsc, Policy::wait, 1 << 20);
    const pid_t pid = child([&] {
        Segment in(there, true), out(back, true);
        SpscReader<> reader(in);
        SpscWriter<> writer(out);
        writer.take_over(1);
        for (std::uint64_t n = 0; n < count; ++n) {
            while (reader.peek() == nullptr) cpu_relax();
            check(*reader.peek(), n, bytes);
            reader.release(*reader.peek());
            RecordHeader* record = writer.claim(bytes);
            const std::uint64_t seq = record->ring_seq;
            fill(*record, n, bytes);
            record->ring_seq = seq;
            writer.commit();
            reader.publish();
        }
    });
    pin(0);
    Segment out(there, true), in(back, true);
    SpscWriter<> writer(out);
    SpscReader<> reader(in);
    writer.take_over(1);
    usleep(20'000);
    std::vector<double> rounds;
    for (std::uint64_t n = 0; n < count; ++n) {
        const std::int64_t start = mono_ns();
        RecordHeader* record = writer.claim(bytes);
        const std::uint64_t seq = record->ring_seq;
        fill(*record, n, bytes);
        record->ring_seq = seq;
        writer.commit();
        while (reader.peek() == nullptr) cpu_relax();
        check(*reader.peek(), n, bytes);
        reader.release(*reader.peek());
        reader.publish();
        rounds.push_back(static_cast<double>(mono_ns() - start));
    }
    join(pid);
    close(there);
    close(back);
    return median(rounds);
}

// What the readers of a broadcast ring tell; zeros at first.
struct Told {
    std::atomic<std::uint64_t> ready, read, lost, laps;
};

// CPU time of the writer a record: it has core 0, all readers share core 1. So they do not take its time from it, and what
// is left is what they do to its cache lines. Not shown: readers on many cores at once, each of which would fetch the line;
// here one runs at a time. Readers of a ring of 4 KiB are lapped all the time; of 1 MiB, when they do not run.
double broadcast_writer_cost(std::uint64_t capacity, int readers, std::uint32_t bytes, std::uint64_t count) {
    const int fd = make_segment(Kind::broadcast, Policy::drop, capacity);
    void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    auto* told = new (page) Told{};
    Segment a(fd, true);
    BroadcastWriter<> writer(a);
    writer.take_over(1);
    std::vector<pid_t> pids;
    for (int i = 0; i < readers; ++i)
        pids.push_back(child([&] {
            Segment b(fd, false);
            BroadcastReader<> reader(b, BroadcastReader<>::From::oldest, READER_SLOTS);
            std::vector<std::uint64_t> words;
            std::uint64_t read = 0, first = 0;
            told->ready.fetch_add(1);
            for (;;) {
                const bool closed = reader.state() == RingState::closed;
                const Read result = reader.read(words);
                if (result == Read::ok) {
                    const auto& record = *reinterpret_cast<const RecordHeader*>(words.data());
                    if (first == 0) first = record.ring_seq;
                    check(record, record.ring_seq - 1, bytes);
                    ++read;
                } else if (result == Read::empty) {
                    if (closed) break;
                    reader.wait(WaitMode::yield, 100'000);
                }
            }
            if (read + reader.lost() + first - 1 != count) wrong("read and lost are not what was written");
            told->read.fetch_add(read);
            told->lost.fetch_add(reader.lost() + first - 1);
            told->laps.fetch_add(reader.laps());
        }));
    pin(0);
    while (told->ready.load() < static_cast<std::uint64_t>(readers)) usleep(1000);
    std::vector<std::uint64_t> staged(bytes / 8);
    auto& record = *reinterpret_cast<RecordHeader*>(staged.data());
    timespec begin{}, end{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begin);
    for (std::uint64_t n = 0; n < count; ++n) {
        fill(record, n, bytes);
        record.size_bytes = bytes;
        if (!writer.write(record)) wrong("full under drop");
        writer.commit();
    }
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
    writer.set_state(RingState::closed);
    for (const pid_t pid : pids) join(pid);
    if (told->read.load() + told->lost.load() != count * static_cast<std::uint64_t>(readers)) wrong("a reader has not told");
    if (capacity == CAPACITY_MIN_BYTES && told->laps.load() == 0) wrong("nobody was lapped");
    munmap(page, 4096);
    close(fd);
    return (static_cast<double>(end.tv_sec - begin.tv_sec) * 1e9 + static_cast<double>(end.tv_nsec - begin.tv_nsec)) /
           static_cast<double>(count);
}

double best_of(int runs, const std::function<double()>& run) {
    double best = run();
    for (int i = 1; i < runs; ++i) best = std::min(best, run());
    return best;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc > 1 && std::string(argv[1]) == "round-trip") {  // what a hop costs where each stage has a core
        std::vector<double> trips;
        for (int i = 0; i < 5; ++i) trips.push_back(spsc_round_trip(1104, 10'000));
        row("spsc round trip, 1104 B, p50", median(trips), "ns", 0, "", "");
        return 0;
    }
    // A record is never smaller than its 80-byte header; 144 bytes are the header and 64 bytes of payload, 1104 and 1 KiB.
    const double hardware = median({ping_pong(20'000), ping_pong(20'000), ping_pong(20'000)});
    row("ping-pong of one cache line, round trip", hardware, "ns", 1.0, "itself", "");
    for (std::uint32_t bytes : {88u, 144u, 1104u}) {
        const std::string size = std::to_string(bytes) + " B";
        const char* goal = bytes == 144 ? "at most 30" : bytes == 1104 ? "at most 180" : "";
        row("spsc write+read, one process, " + size, best_of(5, [&] { return spsc_one_process(bytes, 500'000); }), "ns/record", 0, "", "");
        row("spsc one way, two processes, " + size, best_of(5, [&] { return spsc_two_processes(bytes, 500'000); }), "ns/record", 0, "", goal);
        row("broadcast one way, two processes, " + size, best_of(5, [&] { return broadcast_two_processes(bytes, 500'000); }), "ns/record", 0, "", "");
    }
    // Each beside a ping-pong of its own: the host moves the cores between runs.
    std::vector<std::pair<double, double>> rounds;
    for (int i = 0; i < 5; ++i) {
        const double line = ping_pong(10'000), ring = spsc_round_trip(144, 10'000);
        rounds.push_back({ring / line, ring});
    }
    std::sort(rounds.begin(), rounds.end());
    row("spsc round trip, 144 B, p50", rounds[2].second, "ns", rounds[2].first, "ping-pong beside it", "ratio at most 2");

    for (const std::uint64_t capacity : {std::uint64_t{1} << 20, CAPACITY_MIN_BYTES}) {
        const std::string ring = capacity == CAPACITY_MIN_BYTES ? "4 KiB, lapped all the time" : "1 MiB";
        const int counts[] = {1, 4, 16};
        double best[] = {1e9, 1e9, 1e9};
        for (int i = 0; i < 5; ++i)  // in turn, so that all see the same host
            for (int n = 0; n < 3; ++n) best[n] = std::min(best[n], broadcast_writer_cost(capacity, counts[n], 144, 300'000));
        for (int n = 0; n < 3; ++n)
            row("broadcast writer, ring of " + ring + ", 144 B, " + std::to_string(counts[n]) + (n == 0 ? " reader" : " readers"), best[n],
                "ns CPU/record", best[n] / best[0], "1 reader", n == 0 ? "" : "ratio at most 1.2");
    }
    Large small(false), huge(true);
    if (huge.error != 0) std::fprintf(stderr, "ring_bench: no huge pages for shared memory here: %s\n", std::strerror(huge.error));
    const auto compare = [&](const char* what, const char* unit, const std::function<double(Large&)>& run) {
        double figures[2] = {run(small), huge.error == 0 ? run(huge) : 0};
        for (int i = 0; i < 8; ++i) {  // in turn: both have the same minute
            figures[0] = std::min(figures[0], run(small));
            if (huge.error == 0) figures[1] = std::min(figures[1], run(huge));
        }
        row(std::string(what) + ", small pages", figures[0], unit, 0, "", "");
        if (huge.error == 0) row(std::string(what) + ", huge pages", figures[1], unit, figures[1] / figures[0], "small pages", "");
    };
    pin(0);
    compare("spsc 32 MiB, half a ring written then read, 144 B", "ns/record", [](Large& ring) { return spsc_laps(ring, 144, 2); });
    compare("spsc 32 MiB, half a ring written then read, 1104 B", "ns/record", [](Large& ring) { return spsc_laps(ring, 1104, 2); });
    compare("spsc 32 MiB, loads in random order", "ns", [](Large& ring) { return page_walk(ring, 500'000); });
    compare("spsc 32 MiB, attaching", "us", [](Large& ring) { return attach_us(ring); });
}
