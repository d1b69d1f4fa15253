// chain_bench.cpp - four processes joined by spsc rings that do no work: the floor under every pipeline on this host.
//
// A sends 144-byte records on schedule, B and C pass them on, D takes the time from the moment when each was due. The
// waiting is that of the stages (wait.hpp); A naps and then yields, as the source of latency_bench.py does.
//
// Usage: chain_bench WAIT PER_S COUNT CORES CORES CORES CORES     (CORES: "0", or "0,1": where A, B, C, D may run)
// Prints one JSON object: p50, p90, p99, p99.9 and max in us, and the CPU seconds a second of each process.
#include <sched.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "spsc.hpp"

using namespace lob;

namespace {

constexpr std::uint32_t RECORD_BYTES = 144;
constexpr std::int64_t DUE_SOON_NS = 300'000;
constexpr std::int64_t TURN_NS = 20'000'000;

[[noreturn]] void wrong(const char* what) {
    std::fprintf(stderr, "chain_bench: %s\n", what);
    std::_Exit(1);
}

void place(const char* cores) {
    cpu_set_t set;
    CPU_ZERO(&set);
    for (const char* at = cores; *at != 0; at += *at == ',') {
        char* end = nullptr;
        CPU_SET(std::strtol(at, &end, 10), &set);
        if (end == at) wrong("CORES are numbers, e.g. 0,1");
        at = end;
    }
    if (sched_setaffinity(0, sizeof set, &set) != 0) wrong("a core that is not ours");
}

double cpu_s() {
    rusage used{};
    getrusage(RUSAGE_SELF, &used);
    return static_cast<double>(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           static_cast<double>(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

void put(SpscWriter<>& writer, std::uint64_t number, std::int64_t due_ns) {
    RecordHeader* record = writer.claim(RECORD_BYTES);
    while (record == nullptr) {  // the next stage does not get the core: its delay is counted from when this was due
        writer.wait_free(RECORD_BYTES, WaitMode::yield, TURN_NS);
        record = writer.claim(RECORD_BYTES);
    }
    record->type = static_cast<std::uint16_t>(RecordType::trade);
    record->origin_ns = due_ns;
    record->raw_seq = number;
    writer.commit();
}

// Calls with each of `count` records; waits as a stage does.
template <class Call>
void take(Segment& segment, WaitMode mode, std::uint64_t count, Call&& call) {
    SpscReader<> reader(segment);
    for (std::uint64_t number = 1; number <= count;) {
        const RecordHeader* record = reader.peek();
        if (record == nullptr) {
            reader.wait(mode, TURN_NS);
            continue;
        }
        if (record->raw_seq != number) wrong("a record that was not sent");
        call(*record);
        reader.release(*record);
        ++number;
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 8) wrong("usage: chain_bench WAIT PER_S COUNT CORES CORES CORES CORES");
    const WaitMode mode = wait_mode(argv[1]);
    const double per_s = std::atof(argv[2]);
    const auto count = static_cast<std::uint64_t>(std::atoll(argv[3]));
    if (per_s <= 0 || count == 0) wrong("a rate and a count");

    std::array<int, 3> files{};
    for (int& fd : files) {
        fd = memfd_create("chain-bench", 0);
        if (fd < 0 || ftruncate(fd, static_cast<off_t>(Segment::size_for(1 << 20))) != 0) wrong("no memory");
        Segment::format(fd, Kind::spsc, Policy::wait, 1 << 20, 1, 0, 0, 0);
    }
    auto* cpu = static_cast<double*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    std::vector<std::int64_t> delays;
    delays.reserve(count);
    std::array<pid_t, 2> passing{};
    const pid_t source = fork();
    if (source == 0) {
        place(argv[4]);
        Segment segment(files[0], true);
        SpscWriter<> writer(segment);
        writer.take_over(1);
        usleep(50'000);
        const std::int64_t start_ns = mono_ns();
        for (std::uint64_t number = 0; number < count; ++number) {
            const auto due_ns = start_ns + static_cast<std::int64_t>(static_cast<double>(number) * 1e9 / per_s);
            for (std::int64_t left_ns = due_ns - mono_ns(); left_ns > 0; left_ns = due_ns - mono_ns()) {
                if (left_ns > DUE_SOON_NS) {
                    const timespec nap{0, std::min<std::int64_t>(left_ns - DUE_SOON_NS * 3 / 4, 999'999'999)};
                    nanosleep(&nap, nullptr);
                } else {
                    sched_yield();
                }
            }
            put(writer, number + 1, due_ns);
        }
        std::_Exit(0);
    }
    for (std::size_t i = 0; i < passing.size(); ++i) {
        passing[i] = fork();
        if (passing[i] != 0) continue;
        place(argv[5 + i]);
        Segment in(files[i], true), out(files[i + 1], true);
        SpscWriter<> writer(out);
        writer.take_over(1);
        take(in, mode, count, [&](const RecordHeader& record) { put(writer, record.raw_seq, record.origin_ns); });
        cpu[i] = cpu_s();
        std::_Exit(0);
    }
    place(argv[7]);
    Segment last(files[2], true);
    const std::int64_t start_ns = mono_ns();
    take(last, mode, count, [&](const RecordHeader& record) { delays.push_back(mono_ns() - record.origin_ns); });
    const double seconds = static_cast<double>(mono_ns() - start_ns) / 1e9;
    for (const pid_t pid : {source, passing[0], passing[1]}) {
        int status = 0;
        if (waitpid(pid, &status, 0) != pid || status != 0) wrong("a process of the chain failed");
    }
    std::sort(delays.begin(), delays.end());
    const auto at = [&](double share) {
        return static_cast<double>(delays[std::min<std::size_t>(delays.size() - 1, static_cast<std::size_t>(share * static_cast<double>(delays.size())))]) / 1e3;
    };
    std::printf("{\"p50\":%.2f,\"p90\":%.2f,\"p99\":%.2f,\"p99.9\":%.2f,\"max\":%.2f,\"cpu\":[%.3f,%.3f,%.3f]}\n", at(0.5), at(0.9), at(0.99),
                at(0.999), static_cast<double>(delays.back()) / 1e3, cpu[0] / seconds, cpu[1] / seconds, cpu_s() / seconds);
}
