// ring_stress.cpp - every ring under load, in threads of one process, checked word by word.
//
//   ring_stress [SECONDS] [SEED]     default: 3 seconds in all, a seed from the clock; prints the seed of a failure
//
// Writer and reader map one memfd each for itself, so that their addresses differ as between processes; under
// ThreadSanitizer they share one mapping, because it knows races by address only. Small rings, so that every kind of
// wrap and lap comes often. Positions begin at 0, just below 2^32 and just below 2^63.
// Killed processes are not tested here (tests/processes does).
#include <sys/mman.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "broadcast.hpp"
#include "fixed_queue.hpp"
#include "seqlock.hpp"
#include "spsc.hpp"

using namespace lob;

namespace {

std::uint64_t mix(std::uint64_t x) {  // splitmix64
    x += 0x9E3779B97F4A7C15ull;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    return x ^ (x >> 31);
}

struct Random {
    std::uint64_t state;
    std::uint64_t operator()() { return mix(state++); }
    std::uint64_t below(std::uint64_t n) { return (*this)() % n; }
    bool one_in(std::uint64_t n) { return below(n) == 0; }
};

// The first failure of a test; the others only end.
class Verdict {
public:
    template <class... Parts>
    void fail(const Parts&... parts) {
        const std::lock_guard lock(mutex_);
        if (!text_.empty()) return;
        std::ostringstream text;
        (text << ... << parts);
        text_ = text.str();
        failed_.store(true);
    }
    bool failed() const { return failed_.load(std::memory_order_relaxed); }
    const std::string& text() const { return text_; }

private:
    std::mutex mutex_;
    std::string text_;
    std::atomic<bool> failed_{false};
};

struct Run {
    std::int64_t deadline_ns;
    std::uint64_t seed;
    Verdict verdict;
    std::atomic<std::uint64_t> records{0};
    std::atomic<std::uint64_t> laps{0};
    bool over() const { return verdict.failed() || mono_ns() >= deadline_ns; }
};

// A thread's body; what it throws is a failure.
std::thread thread_of(Run& run, std::function<void()> body) {
    return std::thread([&run, body = std::move(body)] {
        try {
            body();
        } catch (const std::exception& error) {
            run.verdict.fail("exception: ", error.what());
        }
    });
}

class Shared {
public:
    Shared(Kind kind, Policy policy, std::uint64_t capacity_bytes, std::uint64_t first_position, std::uint32_t slots = 0,
           std::uint32_t depth = 0)
        : fd_(memfd_create("ring_stress", MFD_CLOEXEC)) {
        if (fd_ < 0 || ftruncate(fd_, static_cast<off_t>(Segment::size_for(capacity_bytes))) != 0) {
            std::perror("ring_stress: memfd");
            std::exit(1);
        }
        Segment::format(fd_, kind, policy, capacity_bytes, 1, slots, depth, first_position);
    }
    ~Shared() { close(fd_); }
    Shared(const Shared&) = delete;
    Shared& operator=(const Shared&) = delete;

    std::shared_ptr<Segment> map(bool writable = true) {
#if defined(LOB_UNDER_TSAN)
        (void)writable;
        if (!one_) one_ = std::make_shared<Segment>(fd_, true);
        return one_;
#else
        return std::make_shared<Segment>(fd_, writable);
#endif
    }

private:
    int fd_;
    std::shared_ptr<Segment> one_;
};

// What a record holds follows from its number and its size.
void fill(RecordHeader& record, std::uint64_t seq, std::uint32_t size_bytes) {
    record.type = static_cast<std::uint16_t>(RecordType::raw_frame);
    record.flags = 0;
    record.raw_seq = mix(seq);
    record.exch_ns = static_cast<std::int64_t>(mix(seq ^ (static_cast<std::uint64_t>(size_bytes) << 40)));
    auto* words = reinterpret_cast<Word*>(&record + 1);
    for (std::uint32_t i = 0; i < (size_bytes - sizeof record) / 8; ++i) words[i] = mix(seq * 8191 + i);
}

void check(Run& run, const RecordHeader& record, const char* ring) {
    const std::uint64_t seq = record.ring_seq;
    const std::uint32_t size = record.size_bytes;
    if (record.raw_seq != mix(seq) || record.type != static_cast<std::uint16_t>(RecordType::raw_frame) ||
        record.exch_ns != static_cast<std::int64_t>(mix(seq ^ (static_cast<std::uint64_t>(size) << 40))))
        return run.verdict.fail(ring, ": record ", seq, " has a torn header");
    const auto* words = reinterpret_cast<const Word*>(&record + 1);
    for (std::uint32_t i = 0; i < (size - sizeof record) / 8; ++i)
        if (words[i] != mix(seq * 8191 + i))
            return run.verdict.fail(ring, ": record ", seq, " is torn at word ", i, " of ", (size - sizeof record) / 8);
}

std::uint32_t random_size(Random& random, std::uint64_t max_bytes) {
    const std::uint64_t most = random.one_in(8) ? max_bytes : std::min<std::uint64_t>(max_bytes, 256);
    return static_cast<std::uint32_t>(sizeof(RecordHeader) + 8 * random.below((most - sizeof(RecordHeader)) / 8 + 1));
}

WaitMode random_mode(Random& random) {
    constexpr WaitMode modes[] = {WaitMode::yield, WaitMode::block, WaitMode::automatic};
    return modes[random.below(3)];
}

// ---- spsc: several claims a commit, some taken back; nothing lost, nothing torn --------------------------------------

void spsc(Run& run, std::uint64_t capacity_bytes, std::uint64_t first_position) {
    Shared shared(Kind::spsc, Policy::wait, capacity_bytes, first_position);
    std::atomic<std::uint64_t> written{0};
    auto writer_map = shared.map(), reader_map = shared.map();

    auto writer_thread = thread_of(run, [&] {
        Random random{run.seed};
        auto writer = std::make_unique<SpscWriter<>>(*writer_map);
        writer->take_over(1);
        while (!run.over()) {
            const std::uint64_t count = 1 + random.below(4);
            const std::uint64_t before = writer->next_seq();
            for (std::uint64_t i = 0; i < count && !run.over();) {
                const std::uint32_t size = random_size(random, writer->record_max_bytes());
                RecordHeader* record = writer->claim(size);
                if (record == nullptr) {
                    writer->commit();  // what waits for a commit holds the reader up
                    writer->wait_free(size, random_mode(random), 50'000'000);
                    continue;
                }
                fill(*record, record->ring_seq, record->size_bytes);
                ++i;
            }
            if (random.one_in(16)) {
                writer->abort();
            } else {
                writer->commit(before);
            }
            if (random.one_in(1024)) {  // a new owner goes on with the same numbers
                const std::uint64_t next = writer->next_seq(), raw = writer->raw_seq();
                writer = std::make_unique<SpscWriter<>>(*writer_map);
                writer->take_over(1);
                if (writer->next_seq() != next || writer->raw_seq() != raw)
                    run.verdict.fail("spsc: a new writer goes on at ", writer->next_seq(), ", not ", next);
            }
        }
        writer->abort();
        written.store(writer->next_seq() - 1);
        writer->set_state(RingState::closed);
    });

    auto reader_thread = thread_of(run, [&] {
        Random random{run.seed ^ 0xABCD};
        auto reader = std::make_unique<SpscReader<>>(*reader_map);
        std::uint64_t seq = 0;
        while (!run.verdict.failed()) {
            const RecordHeader* record = reader->peek();
            if (record == nullptr) {
                if (reader->state() == RingState::closed && reader->drained()) break;
                reader->wait(random_mode(random), 5'000'000);
                continue;
            }
            if (record->ring_seq != seq + 1)
                return run.verdict.fail("spsc: record ", record->ring_seq, " after ", seq);
            check(run, *record, "spsc");
            reader->release(*record);
            ++seq;
            if (random.one_in(4096)) {  // a new reader goes on where the slot stands
                reader->publish();
                reader = std::make_unique<SpscReader<>>(*reader_map);
            }
        }
        if (!run.verdict.failed() && seq != written.load())
            run.verdict.fail("spsc: ", written.load(), " written, ", seq, " read");
        run.records += seq;
    });
    writer_thread.join();
    reader_thread.join();
}

// ---- broadcast ---------------------------------------------------------------------------------------------------

void broadcast_write(Run& run, BroadcastWriter<>& writer, Random& random, std::vector<std::uint64_t>& words, bool gated) {
    const std::uint32_t size = random_size(random, writer.record_max_bytes());
    auto& record = *reinterpret_cast<RecordHeader*>(words.data());
    record.size_bytes = size;
    fill(record, writer.next_seq(), size);
    while (!writer.write(record)) {
        if (!gated) return run.verdict.fail("broadcast: a writer that drops had to wait");
        writer.commit();
        writer.wait_free(size, random_mode(random), 50'000'000);
        if (run.verdict.failed()) return;
    }
}

// `drop`: whole records only, in order; what is missing is counted; the last one is always had.
void broadcast_drop(Run& run, std::uint64_t capacity_bytes, std::uint64_t first_position) {
    Shared shared(Kind::broadcast, Policy::drop, capacity_bytes, first_position);
    std::atomic<std::uint64_t> written{0};
    auto writer_map = shared.map();

    std::vector<std::thread> threads;
    std::vector<std::shared_ptr<Segment>> maps;
    for (std::uint32_t who = 0; who < 2; ++who) maps.push_back(shared.map(who == 0));
    for (std::uint32_t who = 0; who < 2; ++who)
        threads.push_back(thread_of(run, [&run, &written, who, map = maps[who]] {
            Random random{run.seed + 77 * who};
            BroadcastReader<> reader(*map, BroadcastReader<>::From::oldest, who == 0 ? 0 : READER_SLOTS);
            std::vector<std::uint64_t> words;
            std::uint64_t seq = 0, first = 0, count = 0;
            while (!run.verdict.failed()) {
                const Read result = reader.read(words);
                if (result == Read::lapped) continue;
                if (result == Read::empty) {
                    if (reader.state() == RingState::closed && reader.drained()) break;
                    reader.wait(random_mode(random), 5'000'000);
                    continue;
                }
                const auto& record = *reinterpret_cast<const RecordHeader*>(words.data());
                if (record.ring_seq <= seq)
                    return run.verdict.fail("broadcast: record ", record.ring_seq, " after ", seq);
                check(run, record, "broadcast");
                seq = record.ring_seq;
                if (count++ == 0) first = seq;
                if (random.one_in(256)) std::this_thread::yield();
                if (random.one_in(8192)) std::this_thread::sleep_for(std::chrono::milliseconds(1));
            }
            if (run.verdict.failed()) return;
            if (seq != written.load())
                return run.verdict.fail("broadcast: the last record read is ", seq, ", written ", written.load());
            if (count + reader.lost() != seq - first + 1)
                run.verdict.fail("broadcast: ", count, " read and ", reader.lost(), " lost of ", seq - first + 1);
            run.records += count;
            run.laps += reader.laps();
        }));

    threads.push_back(thread_of(run, [&] {
        Random random{run.seed};
        BroadcastWriter<> writer(*writer_map);
        writer.take_over(1);
        std::vector<std::uint64_t> words(writer.record_max_bytes() / 8);
        while (!run.over()) {
            // now and then more than the ring holds in one commit
            const bool huge = random.one_in(512);
            const std::uint64_t count = huge ? capacity_bytes / 64 : 1 + random.below(4);
            for (std::uint64_t i = 0; i < count; ++i) broadcast_write(run, writer, random, words, false);
            if (!huge && random.one_in(16)) writer.abort();
            else writer.commit(writer.next_seq() - 1);
            if (random.one_in(64)) std::this_thread::yield();
        }
        // What was taken back may have been written over the newest records: go past it, so that the last one is whole.
        for (const std::uint64_t end = writer.position() + 2 * capacity_bytes; writer.position() < end;) {
            broadcast_write(run, writer, random, words, false);
            writer.commit();
        }
        written.store(writer.next_seq() - 1);
        writer.set_state(RingState::closed);
    }));
    for (auto& thread : threads) thread.join();
}

// `wait`: registered readers get everything, also one that comes while the writer is at work.
void broadcast_wait(Run& run, std::uint64_t capacity_bytes, std::uint64_t first_position) {
    Shared shared(Kind::broadcast, Policy::wait, capacity_bytes, first_position);
    std::atomic<std::uint64_t> written{0};
    auto writer_map = shared.map(), downstream_map = shared.map(), guest_map = shared.map();
    std::vector<std::thread> threads;

    const auto follow = [&run, &written](BroadcastReader<>& reader, Random& random, std::uint64_t seq, std::uint64_t most) {
        std::vector<std::uint64_t> words;
        for (std::uint64_t count = 0; count < most && !run.verdict.failed();) {
            const Read result = reader.read(words);
            if (result == Read::lapped) {
                if (seq != 0) run.verdict.fail("broadcast: a registered reader was lapped after ", seq);
                continue;
            }
            if (result == Read::empty) {
                if (reader.state() == RingState::closed && reader.drained()) {
                    if (seq != 0 && seq != written.load())
                        run.verdict.fail("broadcast: ", written.load(), " written, ", seq, " read");
                    return false;
                }
                reader.wait(random_mode(random), 5'000'000);
                continue;
            }
            const auto& record = *reinterpret_cast<const RecordHeader*>(words.data());
            if (seq != 0 && record.ring_seq != seq + 1)
                run.verdict.fail("broadcast: registered, and has record ", record.ring_seq, " after ", seq);
            check(run, record, "broadcast");
            seq = record.ring_seq;
            ++count;
            ++run.records;
        }
        return !run.verdict.failed();
    };
    threads.push_back(thread_of(run, [&] {
        Random random{run.seed + 1};
        BroadcastReader<> reader(*downstream_map, BroadcastReader<>::From::slot, 0);
        follow(reader, random, 0, ~0ull);
    }));
    threads.push_back(thread_of(run, [&] {
        Random random{run.seed + 2};
        for (;;) {
            BroadcastReader<> reader(*guest_map, BroadcastReader<>::From::newest, 3);
            const bool more = follow(reader, random, 0, random.below(200));
            reader.unregister();
            if (!more) return;
            if (reader.state() == RingState::closed) return;
        }
    }));
    threads.push_back(thread_of(run, [&] {
        Random random{run.seed};
        BroadcastWriter<> writer(*writer_map);
        writer.take_over(1);
        std::vector<std::uint64_t> words(writer.record_max_bytes() / 8);
        while (!run.over()) {
            const std::uint64_t count = 1 + random.below(3);
            for (std::uint64_t i = 0; i < count && !run.verdict.failed(); ++i) broadcast_write(run, writer, random, words, true);
            if (random.one_in(16)) writer.abort();
            else writer.commit(writer.next_seq() - 1);
        }
        writer.abort();
        written.store(writer.next_seq() - 1);
        writer.set_state(RingState::closed);
    }));
    for (auto& thread : threads) thread.join();
}

// ---- board: what is read is one state of the slot -----------------------------------------------------------------

void board(Run& run, std::uint64_t, std::uint64_t) {
    constexpr std::uint32_t slots = 2, depth = 20;
    Shared shared(Kind::board, Policy::drop, slots * board_slot_bytes(depth), 0, slots, depth);
    auto writer_map = shared.map(), reader_map = shared.map(false);
    std::atomic<bool> done{false};

    auto reader_thread = thread_of(run, [&] {
        const Board<> board(*reader_map);
        std::vector<Level> levels(2 * depth);
        std::uint64_t newest[slots] = {};
        while (!done.load() && !run.verdict.failed())
            for (std::uint32_t slot = 0; slot < slots; ++slot) {
                BoardEntry entry{};
                if (!board.read(slot, entry, levels.data()) || entry.updates == 0) continue;
                const std::uint64_t n = entry.updates;
                if (n < newest[slot]) return run.verdict.fail("board: went back");
                newest[slot] = n;
                if (entry.last_seq != mix(n) || entry.instrument != static_cast<std::uint32_t>(mix(n + 1)) ||
                    entry.bid_count != mix(n) % (depth + 1) || entry.ask_count != mix(n + 1) % (depth + 1) ||
                    entry.state != static_cast<std::uint8_t>(n % 5))
                    return run.verdict.fail("board: entry ", n, " is torn");
                for (std::uint32_t side = 0; side < 2; ++side)
                    for (std::uint32_t i = 0; i < (side == 0 ? entry.bid_count : entry.ask_count); ++i) {
                        const Level& level = levels[side * depth + i];
                        if (level.price != static_cast<std::int64_t>(mix(n * 64 + i)) || level.qty != level.price + side)
                            return run.verdict.fail("board: entry ", n, " has a torn level");
                    }
                ++run.records;
            }
    });
    auto writer_thread = thread_of(run, [&] {
        Board<> board(*writer_map);
        std::vector<Level> bids(depth), asks(depth);
        for (std::uint64_t n = 1; !run.over(); ++n) {
            BoardEntry entry{};
            entry.updates = n;
            entry.last_seq = mix(n);
            entry.instrument = static_cast<std::uint32_t>(mix(n + 1));
            entry.state = static_cast<std::uint8_t>(n % 5);
            entry.bid_count = static_cast<std::uint32_t>(mix(n) % (depth + 1));
            entry.ask_count = static_cast<std::uint32_t>(mix(n + 1) % (depth + 1));
            for (std::uint32_t i = 0; i < depth; ++i) {
                bids[i].price = bids[i].qty = asks[i].price = static_cast<std::int64_t>(mix(n * 64 + i));
                asks[i].qty = asks[i].price + 1;
            }
            board.write(n % slots, entry, bids.data(), asks.data());
            if (n % 64 == 0) std::this_thread::yield();
        }
        done.store(true);
    });
    writer_thread.join();
    reader_thread.join();
}

// ---- request queue: each request once, whole; one producer's in order when there is one consumer -------------------------

void requests(Run& run, std::uint64_t producers, std::uint64_t consumers) {
    Shared shared(Kind::spsc, Policy::wait, CAPACITY_MIN_BYTES, 0);
    constexpr std::uint64_t MOST = 1 << 16;  // of one producer
    std::vector<std::atomic<std::uint8_t>> seen(producers * MOST);
    std::atomic<std::uint64_t> posted{0}, taken{0}, producing{producers};
    std::vector<std::thread> threads;

    for (std::uint64_t who = 0; who < producers; ++who)
        threads.push_back(thread_of(run, [&, who, map = shared.map()] {
            RequestQueue<AllLive> queue(*map);
            for (std::uint64_t n = 0; n < MOST && !run.over();) {
                Request request{};
                request.id = who * MOST + n;
                for (std::size_t i = 0; i < sizeof request.symbol; ++i)
                    request.symbol[i] = static_cast<char>(mix(request.id) >> (i % 8 * 8));
                if (queue.try_enqueue(request)) {
                    ++n;
                    ++posted;
                } else {
                    std::this_thread::yield();
                }
            }
            --producing;
        }));
    for (std::uint64_t who = 0; who < consumers; ++who)
        threads.push_back(thread_of(run, [&, map = shared.map()] {
            RequestQueue<AllLive> queue(*map);
            std::vector<std::uint64_t> next(producers, 0);
            Request request{};
            while (!run.verdict.failed()) {
                const bool last = producing.load() == 0;
                if (!queue.try_dequeue(request)) {
                    if (last) break;
                    std::this_thread::yield();
                    continue;
                }
                ++taken;
                ++run.records;
                if (request.id >= seen.size() || seen[request.id]++ != 0)
                    return run.verdict.fail("requests: ", request.id, " was taken twice");
                for (std::size_t i = 0; i < sizeof request.symbol; ++i)
                    if (request.symbol[i] != static_cast<char>(mix(request.id) >> (i % 8 * 8)))
                        return run.verdict.fail("requests: ", request.id, " is torn");
                auto& expected = next[request.id / MOST];
                if (request.id % MOST < expected)
                    return run.verdict.fail("requests: ", request.id, " came late");
                expected = request.id % MOST + 1;
            }
            if (queue.damaged() != 0)
                run.verdict.fail("requests: ", queue.damaged(), " were damaged");
        }));
    for (auto& thread : threads) thread.join();
    if (!run.verdict.failed() && posted.load() != taken.load())
        run.verdict.fail("requests: ", posted.load(), " posted, ", taken.load(), " taken");
}

struct Test {
    const char* name;
    void (*body)(Run&, std::uint64_t, std::uint64_t);
    std::uint64_t first;
    std::uint64_t second;
};

constexpr std::uint64_t BELOW_2_32 = (1ull << 32) - 64;
constexpr std::uint64_t BELOW_2_63 = (1ull << 63) - 64;
constexpr Test TESTS[] = {
    {"spsc, 4 KiB", spsc, 4096, 0},
    {"spsc, 64 KiB across 2^32", spsc, 65536, BELOW_2_32},
    {"spsc, 4 KiB across 2^63", spsc, 4096, BELOW_2_63},
    {"broadcast drop, 4 KiB", broadcast_drop, 4096, 0},
    {"broadcast drop, 64 KiB across 2^32", broadcast_drop, 65536, BELOW_2_32},
    {"broadcast drop, 4 KiB across 2^63", broadcast_drop, 4096, BELOW_2_63},
    {"broadcast wait, 4 KiB", broadcast_wait, 4096, 0},
    {"broadcast wait, 64 KiB across 2^63", broadcast_wait, 65536, BELOW_2_63},
    {"board", board, 0, 0},
    {"requests, 1 producer, 1 consumer", requests, 1, 1},
    {"requests, 3 producers, 2 consumers", requests, 3, 2},
};

}  // namespace

int main(int argc, char** argv) {
    const double seconds = argc > 1 ? std::atof(argv[1]) : 3.0;
    const std::uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 0) : static_cast<std::uint64_t>(unix_ns());
    int failed = 0;
    for (const Test& test : TESTS) {
        Run run{mono_ns() + static_cast<std::int64_t>(seconds * 1e9 / std::size(TESTS)), mix(seed), {}, {}, {}};
        test.body(run, test.first, test.second);
        failed += run.verdict.failed();
        std::printf("%s %s: %llu records", run.verdict.failed() ? "FAILED" : "ok    ", test.name,
                    static_cast<unsigned long long>(run.records.load()));
        if (run.laps.load() != 0) std::printf(", %llu laps", static_cast<unsigned long long>(run.laps.load()));
        if (run.verdict.failed())
            std::printf("; %s (seed %llu)", run.verdict.text().c_str(), static_cast<unsigned long long>(seed));
        std::printf("\n");
        std::fflush(stdout);
    }
    std::printf("%d passed, %d failed\n", static_cast<int>(std::size(TESTS)) - failed, failed);
    return failed == 0 ? 0 : 1;
}
