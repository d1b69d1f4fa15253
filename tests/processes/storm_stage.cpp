// storm_stage.cpp - the stages of test_crash_storm.py: processes that are killed, stopped and started again while records flow.
//
//   storm_stage write OUT           records with running numbers until SIGTERM; then says how many on stdout
//   storm_stage copy IN OUT         each record of IN once into OUT, until IN has ended
//   storm_stage read IN STATE       checks each one; STATE is a file that outlives it
//
// A ring is a file with a segment in it; beside it FILE.lock holds the roles. Exit status: 0 the input ended, 1 a record was
// wrong (STATE says which), 3 somebody else has the role.
#include <fcntl.h>
#include <sys/mman.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <random>
#include <string>

#include "broadcast.hpp"
#include "spsc.hpp"

using namespace lob;

namespace {

constexpr std::int64_t LOOK_NS = 20'000'000;
volatile std::sig_atomic_t stopping = 0;

// What the reader knows, beyond its own death. Mirrored in test_crash_storm.py.
struct State {
    std::atomic<std::uint64_t> last;   // number of the newest record that was checked
    std::atomic<std::uint64_t> count;  // checked, each number once
    std::atomic<std::uint64_t> twice;  // seen again after a death before the release
    std::atomic<std::uint64_t> lost;   // told of by a ring that drops
    char wrong[224];
};
static_assert(sizeof(State) == 256);

struct Wrong : std::runtime_error {
    using std::runtime_error::runtime_error;
};

std::uint64_t content(std::uint64_t seq, std::size_t word) { return (seq + 1) * 0x9E3779B97F4A7C15ull ^ word * 0xBF58476D1CE4E5B9ull; }

void fill(RecordHeader& record, std::uint64_t seq, std::uint32_t size) {
    record.type = static_cast<std::uint16_t>(RecordType::raw_frame);
    record.flags = 0;
    record.raw_seq = seq;
    record.exch_ns = size;
    auto* words = reinterpret_cast<Word*>(&record + 1);
    for (std::size_t i = 0; i < (size - sizeof record) / 8; ++i) words[i] = content(seq, i);
}

void check(const RecordHeader& record) {
    const auto size = static_cast<std::uint64_t>(record.exch_ns);
    if (record.size_bytes != size) throw Wrong("record " + std::to_string(record.raw_seq) + " has another size than it says");
    const auto* words = reinterpret_cast<const Word*>(&record + 1);
    for (std::size_t i = 0; i < (size - sizeof record) / 8; ++i)
        if (words[i] != content(record.raw_seq, i))
            throw Wrong("record " + std::to_string(record.raw_seq) + " is torn at word " + std::to_string(i));
}

// A ring, mapped, with one role taken: byte 0 the writer's, 1 the first reader's, as in shared/lob/roles.py.
struct Ring {
    Ring(const std::string& path, int role) {
        const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
        if (fd < 0) throw std::runtime_error(path + ": " + std::strerror(errno));
        segment.emplace(fd, true);
        close(fd);
        lock_fd = open((path + ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        struct flock lock {};
        lock.l_type = F_WRLCK;
        lock.l_start = role;
        lock.l_len = 1;
        if (fcntl(lock_fd, F_OFD_SETLK, &lock) != 0) {
            std::fprintf(stderr, "storm_stage: %s: somebody has the role\n", path.c_str());
            std::_Exit(3);
        }
    }
    std::optional<Segment> segment;
    int lock_fd;
};

// One writer for both kinds.
class Out {
    template <class Body>
    auto with(Body&& body) {
        return spsc_ ? body(*spsc_) : body(*broadcast_);
    }

public:
    explicit Out(const std::string& path) : ring_(path, 0) {
        if (ring_.segment->kind() == Kind::spsc) spsc_.emplace(*ring_.segment);
        else broadcast_.emplace(*ring_.segment);
        with([](auto& writer) { writer.take_over(static_cast<std::uint32_t>(getpid())); });
    }
    std::uint64_t next_seq() { return with([](auto& writer) { return writer.next_seq(); }); }
    std::uint64_t raw_seq() { return with([](auto& writer) { return writer.raw_seq(); }); }
    std::uint64_t record_max_bytes() { return with([](auto& writer) { return writer.record_max_bytes(); }); }
    void commit(std::uint64_t raw_seq) {
        with([&](auto& writer) { writer.commit(raw_seq), writer.beat(); });
    }
    void end() {
        with([](auto& writer) { writer.set_state(RingState::closed); });
    }
    // Visible from the next commit on; waits for room, and commits what is written to get it.
    void put(std::uint64_t seq, std::uint32_t size) {
        if (spsc_) {
            RecordHeader* record;
            while ((record = spsc_->claim(size)) == nullptr) {
                spsc_->commit();
                spsc_->wait_free(size, WaitMode::automatic, LOOK_NS);
            }
            fill(*record, seq, size);
            return;
        }
        auto& record = *reinterpret_cast<RecordHeader*>(words_);
        record.size_bytes = size;
        fill(record, seq, size);
        while (!broadcast_->write(record)) {
            broadcast_->commit();
            broadcast_->wait_free(size, WaitMode::automatic, LOOK_NS);
        }
    }

private:
    Ring ring_;
    std::optional<SpscWriter<>> spsc_;
    std::optional<BroadcastWriter<>> broadcast_;
    std::uint64_t words_[4096];
};

int write_records(const char* path) {
    Out out(path);
    std::mt19937_64 random(std::random_device{}());
    const std::uint64_t most = std::min<std::uint64_t>(out.record_max_bytes(), 1024);
    while (!stopping) {
        for (std::uint64_t batch = 1 + random() % 4; batch > 0; --batch)
            out.put(out.next_seq(), static_cast<std::uint32_t>(sizeof(RecordHeader) + random() % ((most - sizeof(RecordHeader)) / 8 + 1) * 8));
        out.commit(out.next_seq() - 1);
    }
    out.end();
    std::printf("%llu\n", static_cast<unsigned long long>(out.next_seq() - 1));
    return 0;
}

int copy_records(const char* from, const char* to) {
    Ring in(from, 1);
    SpscReader<> reader(*in.segment);
    Out out(to);
    for (;;) {
        const RecordHeader* record = reader.peek();
        if (record == nullptr) {
            if (reader.state() == RingState::closed && reader.drained()) break;
            reader.wait(WaitMode::automatic, LOOK_NS);
            continue;
        }
        check(*record);
        if (record->ring_seq > out.raw_seq()) {  // else its copy was out when our predecessor died
            out.put(record->ring_seq, record->size_bytes);
            out.commit(record->ring_seq);
        }
        reader.release(*record);
    }
    reader.publish();
    out.end();
    return 0;
}

class Checker {
public:
    Checker(State& state, Policy policy) : state_(state), drops_(policy == Policy::drop) {}
    // `lost`: what the ring has told of since the reader started.
    void take(const RecordHeader& record, std::uint64_t lost) {
        check(record);
        const std::uint64_t seq = record.ring_seq, last = state_.last;
        const std::uint64_t told = lost - lost_;
        lost_ = lost;
        if (record.raw_seq != seq) throw Wrong("record " + std::to_string(seq) + " was made from " + std::to_string(record.raw_seq));
        if (before_ != 0 && seq != before_ + 1 + told)
            throw Wrong("record " + std::to_string(seq) + " after " + std::to_string(before_) + ", told of " + std::to_string(told));
        before_ = seq;
        if (seq <= last) {
            ++state_.twice;  // only after a death: within one life `before_` has caught it
            return;
        }
        // Under `drop` a new reader may find its place overwritten; what it has lost follows from the numbers.
        if (seq != last + 1 && !drops_) throw Wrong("record " + std::to_string(seq) + " after a death at " + std::to_string(last));
        state_.lost += seq - last - 1;
        ++state_.count;
        state_.last = seq;
        if (seq % 128 == 0) usleep(100);  // a moment in which a death makes the next one see it again
    }

private:
    State& state_;
    const bool drops_;
    std::uint64_t before_ = 0;
    std::uint64_t lost_ = 0;
};

int read_records(const char* path, const char* state_path) {
    const int fd = open(state_path, O_RDWR | O_CLOEXEC);
    void* memory = mmap(nullptr, sizeof(State), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) throw std::runtime_error(std::string(state_path) + ": " + std::strerror(errno));
    State& state = *static_cast<State*>(memory);
    Ring in(path, 1);
    Checker checker(state, in.segment->policy());
    try {
        if (in.segment->kind() == Kind::spsc) {
            SpscReader<> reader(*in.segment);
            for (;;) {
                if (const RecordHeader* record = reader.peek()) {
                    checker.take(*record, 0);
                    reader.release(*record);
                } else {
                    if (reader.state() == RingState::closed && reader.drained()) break;
                    reader.wait(WaitMode::automatic, LOOK_NS);
                }
            }
            reader.publish();
        } else {
            const bool registered = in.segment->header().readers[0].state.load() != 0;
            BroadcastReader<> reader(
                *in.segment, registered ? BroadcastReader<>::From::slot : BroadcastReader<>::From::oldest, 0);
            std::vector<std::uint64_t> words;
            for (;;) {
                const Read result = reader.read(words);
                if (result == Read::ok) {
                    checker.take(*reinterpret_cast<const RecordHeader*>(words.data()), reader.lost());
                } else if (result == Read::empty) {
                    if (reader.state() == RingState::closed && reader.drained()) break;
                    reader.wait(WaitMode::automatic, LOOK_NS);
                } else if (in.segment->policy() == Policy::wait) {
                    throw Wrong("lapped on a ring that waits");
                }
            }
        }
    } catch (const std::exception& error) {
        std::strncpy(state.wrong, error.what(), sizeof state.wrong - 1);
        return 1;
    }
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    std::signal(SIGTERM, [](int) { stopping = 1; });
    const std::string role = argc > 1 ? argv[1] : "";
    try {
        if (role == "write" && argc == 3) return write_records(argv[2]);
        if (role == "copy" && argc == 4) return copy_records(argv[2], argv[3]);
        if (role == "read" && argc == 4) return read_records(argv[2], argv[3]);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "storm_stage: %s: %s\n", role.c_str(), error.what());
        return 1;
    }
    std::fprintf(stderr, "storm_stage: write OUT | copy IN OUT | read IN STATE\n");
    return 2;
}
