// work.hpp - records of the book ring in batches for worker processes; each batch is done by exactly one, whoever is killed.
//
// The parent (Desk) reads the ring and puts batches, ranges of it, into a queue; a worker takes one, reads the records by
// position, formats them and writes them to its part of each text sink. The records stay unreleased until their batch is done.
// All lies in one anonymous segment that the parent makes and its workers inherit; it goes with the last of them.
//
// Claim      claims[number % IN_FLIGHT] = number << 8 | who: 0 nobody yet, a worker's number, or DONE.
//            K1 CAS nobody -> worker, release, while the batch is still in the queue (the queue's `note`)
//            K2 store DONE release            pairs with K3: who sees it done may let the records go
//            K3 load acquire, the Desk's
// Journal    a worker's place holds the batch it claims (before K1), and for each of its parts how far that is (Progress: file
//            offset and number of the last record), in two halves in turn: a death leaves the one or the other, whole.
// Death      before K1: the queue gives the batch to another. After it, before K2: the successor, who has the same
//            number, place and files, cuts each file at the offset and goes on behind that record. After K2: nothing to do.
//            An entry that comes out of the queue a second time is not claimable any more, and is passed over.
// stdout     cannot be cut. Whole lines go out in writes of at most PIPE_BUF bytes, which a pipe takes whole or not at all: a
//            worker killed between such a write and its journal leaves up to that many bytes twice. A longer line may be torn;
//            who writes next ends it. A lock, freed by any death, keeps the lines of two workers apart.
// Lapped     (only if the ring does not wait) a worker that finds its records overwritten says how many, in their place.
// Names      instruments are announced in a log that only grows, before the batch that needs them.
#pragma once

#include <fcntl.h>
#include <limits.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include <cerrno>
#include <csignal>
#include <deque>
#include <map>
#include <optional>

#include "broadcast.hpp"
#include "fixed_queue.hpp"
#include "ndjson.hpp"

namespace lob::publish {

inline constexpr std::uint32_t WORKERS_MAX = 32;
inline constexpr std::uint32_t PARTS_MAX = 8;  // text sinks
inline constexpr std::uint64_t IN_FLIGHT = 64;
inline constexpr std::uint64_t ANNOUNCEMENTS_MAX = 1 << 18;
inline constexpr std::uint32_t DESK_OWNER = OWNER_MAX;

struct Batch {
    std::uint64_t number;  // from 1 on
    std::uint32_t epoch;
    std::uint32_t is_record;  // a record of our own instead of a range
    union {
        struct {
            std::uint64_t begin, end;  // positions
            std::uint64_t first_seq, last_seq;
            std::uint64_t nonce;  // of the ring's segment
        } range;
        std::uint64_t record[12];
    };
};
static_assert(sizeof(Batch) == 112, "a slot of the queue is one line pair");

struct Work {
    using Queue = FixedQueue<Batch, IN_FLIGHT + WORKERS_MAX, LockedPeers>;
    static constexpr std::uint64_t DONE = 255;
    static constexpr off_t STDOUT_BYTE = 1024;  // of the file, as a lock: who writes to stdout
    using Counter = std::atomic<std::uint64_t>;

    struct Progress {
        Counter offset;  // of the file, behind the last whole line
        Counter seq;     // of that line's record
        Counter lines, bytes;  // since ever
    };
    struct Part {
        Progress halves[2];
        Counter turn;  // its parity says which half holds
        Counter dropped;
        std::atomic<std::uint32_t> error;  // errno of the write that failed
        const Progress& now() const { return halves[turn.load(std::memory_order_acquire) & 1]; }
        void advance(std::uint64_t offset, std::uint64_t seq, std::uint64_t lines, std::uint64_t bytes) {
            const std::uint64_t next = turn.load(std::memory_order_relaxed) + 1;
            const Progress& last = now();
            Progress& half = halves[next & 1];
            half.offset.store(offset, std::memory_order_relaxed);
            LOB_FAIL_POINT(70);
            half.seq.store(seq, std::memory_order_relaxed);
            half.lines.store(last.lines.load(std::memory_order_relaxed) + lines, std::memory_order_relaxed);
            half.bytes.store(last.bytes.load(std::memory_order_relaxed) + bytes, std::memory_order_relaxed);
            LOB_FAIL_POINT(70);
            turn.store(next, std::memory_order_release);
            LOB_FAIL_POINT(71);
        }
    };
    struct alignas(128) Place {
        Batch batch;
        Counter batches, lost;
        Part parts[PARTS_MAX];
    };

    Queue::Storage queue;
    Counter claims[IN_FLIGHT];
    std::atomic<std::uint32_t> stopping, torn;  // torn: a worker is inside a line that is longer than a pipe takes at once
    std::atomic<std::uint32_t> closed[PARTS_MAX];
    Place places[WORKERS_MAX + 1];
    Counter announced;
    std::uint64_t announcements[ANNOUNCEMENTS_MAX][(sizeof(RecordHeader) + sizeof(InstrumentBody)) / 8];

    Counter& claim_of(std::uint64_t number) { return claims[number % IN_FLIGHT]; }
};
static_assert((sizeof(RecordHeader) + sizeof(InstrumentBody)) % 8 == 0 && sizeof(RecordHeader) + sizeof(StatusBody) <= sizeof(Batch::record));

// The segment, mapped by an open file of its own, with an owner number locked in it.
class WorkMemory {
public:
    WorkMemory(int fd, std::uint32_t owner) : fd_(open(("/proc/self/fd/" + std::to_string(fd)).c_str(), O_RDWR | O_CLOEXEC)) {
        const bool makes = owner == DESK_OWNER;
        if (fd_ < 0 || (makes && ftruncate(fd_, sizeof(Work)) != 0) || !peers().take(owner)) fail("cannot be opened");
        void* memory = mmap(nullptr, sizeof(Work), PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
        if (memory == MAP_FAILED) fail("cannot be mapped");
        work_ = static_cast<Work*>(memory);
    }
    ~WorkMemory() {
        munmap(work_, sizeof(Work));
        close(fd_);
    }
    WorkMemory(const WorkMemory&) = delete;
    WorkMemory& operator=(const WorkMemory&) = delete;
    Work& operator*() const { return *work_; }
    Work* operator->() const { return work_; }
    LockedPeers peers() const { return LockedPeers(fd_); }
    int fd() const { return fd_; }

private:
    [[noreturn]] void fail(const char* what) {
        const std::string reason = std::strerror(errno);
        if (fd_ >= 0) close(fd_);
        throw std::runtime_error(std::string("the workers' segment ") + what + ": " + reason);
    }
    int fd_;
    Work* work_ = nullptr;
};

// The parent's side. Not thread-safe.
class Desk {
public:
    Desk(int fd, Segment& ring) : work_(fd, DESK_OWNER), queue_(work_->queue, work_.peers(), DESK_OWNER) { set_ring(ring); }

    // Batches of the ring before stay as they are.
    void set_ring(Segment& ring) {
        close_batch();
        ring_ = &ring;
        waits_ = ring.policy() == Policy::wait;
    }

    void announce(const RecordHeader& record) {
        const std::uint64_t count = work_->announced.load(std::memory_order_relaxed);
        if (count == ANNOUNCEMENTS_MAX)
            throw std::runtime_error("more than " + std::to_string(count) + " announcements of instruments; start lob-publish again");
        body_of<InstrumentBody>(record);
        std::memcpy(work_->announcements[count], &record, sizeof work_->announcements[count]);
        work_->announced.store(count + 1, std::memory_order_release);
    }

    // One record of the ring, at [begin, end).
    void add(std::uint64_t begin, std::uint64_t end, std::uint64_t seq, std::uint32_t epoch) {
        if (open_ && (open_->range.end != begin || open_->epoch != epoch || open_->range.last_seq + 1 != seq)) close_batch();
        if (!open_) {
            open_ = Batch{};
            open_->epoch = epoch;
            open_->range = {begin, begin, seq, seq, ring_->header().nonce};
        }
        open_->range.end = end;
        open_->range.last_seq = seq;
        if (end - open_->range.begin >= BATCH_BYTES) {
            close_batch();
            post();
        }
    }
    // A record that is in no ring.
    void add_record(const RecordHeader& record) {
        close_batch();
        Batch batch{};
        batch.epoch = record.epoch;
        batch.is_record = 1;
        std::memcpy(batch.record, &record, std::min<std::size_t>(record.size_bytes, sizeof batch.record));
        closed_.push_back(batch);
    }

    // What was added goes to the workers, as far as they have room; looks what they have done.
    void flush() {
        close_batch();
        collect();
        post();
    }
    // Whether the pump may read on: under `wait` not while a batch has no room.
    bool room() {
        if (!waits_ || closed_.empty()) return true;
        collect();
        post();
        return closed_.empty();
    }
    // Whether a batch is done that collect() has not seen.
    bool news() const {
        return oldest_ != next_ && work_->claims[oldest_ % IN_FLIGHT].load(std::memory_order_acquire) == (oldest_ << 8 | Work::DONE);
    }
    bool wait_news(WaitMode wait, std::int64_t timeout_ns) const {
        return wait_until<DefaultAtomics>([&] { return news(); }, &ring_->header().reader_sleep, wait, timeout_ns);
    }
    bool idle() const { return oldest_ == next_ && closed_.empty() && !open_; }
    std::uint64_t done() const { return oldest_ - 1; }

    // The oldest position that somebody still needs, and the number before it; none: ~0.
    std::pair<std::uint64_t, std::uint64_t> needed() const {
        const std::uint64_t nonce = ring_->header().nonce;
        const auto begins = [&](const Batch& batch) { return batch.is_record == 0 && batch.range.nonce == nonce; };
        for (std::uint64_t n = oldest_; n != next_; ++n)
            if (const Batch& batch = in_flight_[n % IN_FLIGHT]; begins(batch)) return {batch.range.begin, batch.range.first_seq - 1};
        for (const Batch& batch : closed_)
            if (begins(batch)) return {batch.range.begin, batch.range.first_seq - 1};
        if (open_) return {open_->range.begin, open_->range.first_seq - 1};
        return {~0ull, 0};
    }

    // Workers end when nothing is left.
    void stop() {
        work_->stopping.store(1);
        wake_if_asleep<DefaultAtomics>(work_->queue.consumer_sleep);
    }
    void close_part(std::uint32_t part) { work_->closed[part].store(1); }

    struct Counts {
        std::uint64_t lines = 0, bytes = 0, dropped = 0;
        std::uint32_t error = 0;
    };
    Counts counts(std::uint32_t part) const {
        Counts sum;
        for (const auto& place : work_->places) {
            const Work::Part& one = place.parts[part];
            sum.lines += one.now().lines.load(std::memory_order_relaxed);
            sum.bytes += one.now().bytes.load(std::memory_order_relaxed);
            sum.dropped += one.dropped.load(std::memory_order_relaxed);
            if (sum.error == 0) sum.error = one.error.load(std::memory_order_relaxed);
        }
        return sum;
    }
    std::uint64_t lost() const {
        std::uint64_t sum = 0;
        for (const auto& place : work_->places) sum += place.lost.load(std::memory_order_relaxed);
        return sum;
    }
    std::uint64_t batches(std::uint32_t worker) const { return work_->places[worker].batches.load(std::memory_order_relaxed); }

private:
    static constexpr std::uint64_t BATCH_BYTES = 64 << 10;

    void close_batch() {
        if (!open_) return;
        Batch* last = closed_.empty() ? nullptr : &closed_.back();
        // The workers are behind: one that waits grows, so that nothing is kept but a range.
        if (last != nullptr && last->is_record == 0 && last->epoch == open_->epoch && last->range.nonce == open_->range.nonce &&
            last->range.end == open_->range.begin && last->range.last_seq + 1 == open_->range.first_seq) {
            last->range.end = open_->range.end;
            last->range.last_seq = open_->range.last_seq;
        } else {
            closed_.push_back(*open_);
        }
        open_.reset();
    }
    void post() {
        for (; !closed_.empty() && next_ - oldest_ < IN_FLIGHT; ++next_) {
            Batch& batch = closed_.front();
            batch.number = next_;
            work_->claim_of(next_).store(next_ << 8, std::memory_order_relaxed);  // before the queue's P2
            if (!queue_.try_enqueue(batch)) return;
            in_flight_[next_ % IN_FLIGHT] = batch;
            closed_.pop_front();
        }
    }
    void collect() {
        while (news()) ++oldest_;  // K3
    }

    WorkMemory work_;
    Work::Queue queue_;
    Segment* ring_ = nullptr;
    bool waits_ = false;
    std::optional<Batch> open_;
    std::deque<Batch> closed_;      // without room
    Batch in_flight_[IN_FLIGHT]{};
    std::uint64_t oldest_ = 1;      // not done
    std::uint64_t next_ = 1;
};

enum class WorkTurn : std::uint8_t { time = 0, ring = 1, stop = 2 };

// A worker's side.
class Worker {
public:
    // `fds`: our part of each text sink; `stdout_part`: which of them is shared by all, or -1.
    Worker(int fd, std::uint32_t number, Segment& ring, std::vector<int> fds, int stdout_part)
        : work_(fd, number), number_(number), queue_(work_->queue, work_.peers(), number), place_(work_->places[number]),
          fds_(std::move(fds)), stdout_part_(stdout_part) {
        if (number == 0 || number > WORKERS_MAX || fds_.size() > PARTS_MAX) throw std::invalid_argument("no such worker");
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        set_ring(ring);
        queue_.adopt();
        for (std::size_t i = 0; i < fds_.size(); ++i) {
            if (is_stdout(i)) continue;
            struct stat info {};
            if (fstat(fds_[i], &info) != 0) throw std::runtime_error(std::string("fstat: ") + std::strerror(errno));
            if (place_.parts[i].turn.load() == 0) place_.parts[i].advance(static_cast<std::uint64_t>(info.st_size), 0, 0, 0);
            cut(i);
        }
        const Batch& left = place_.batch;
        if (left.number != 0 && work_->claim_of(left.number).load(std::memory_order_acquire) == (left.number << 8 | number_))
            current_ = left;
        prctl(PR_SET_NAME, ("lob-worker-" + std::to_string(number_)).c_str());  // for ps and top: it is at work
    }

    void set_ring(Segment& ring) {
        ring_ = &ring;
        reader_.emplace(ring, BroadcastReader<>::From::newest, READER_SLOTS);
    }

    // For at most `max_ms`; `ring`: the current batch is of another segment (set_ring, then again: else it is lost).
    WorkTurn run(WaitMode wait, int max_ms) {
        const std::int64_t deadline_ns = mono_ns() + max_ms * std::int64_t{1'000'000};
        for (;;) {
            if (current_) {
                if (current_->is_record == 0 && current_->range.nonce != ring_->header().nonce && !std::exchange(asked_, true))
                    return WorkTurn::ring;
                asked_ = false;
                do_batch(*current_);
                LOB_FAIL_POINT(74);
                work_->claim_of(current_->number).store(current_->number << 8 | Work::DONE, std::memory_order_release);  // K2
                LOB_FAIL_POINT(75);
                place_.batches.fetch_add(1, std::memory_order_relaxed);
                current_.reset();
                wake_if_asleep<DefaultAtomics>(ring_->header().reader_sleep);  // where the parent waits
            }
            const std::int64_t left_ns = deadline_ns - mono_ns();
            if (left_ns <= 0) return WorkTurn::time;
            const bool stopping = work_->stopping.load() != 0;
            Batch batch;
            const auto take = [&] { return queue_.try_dequeue(batch, [&](const Batch& one) { claim(one); }); };
            if (!wait_until<DefaultAtomics>(take, &work_->queue.consumer_sleep, wait, std::min(left_ns, SLEEP_NS), &patience_) && stopping)
                return WorkTurn::stop;
        }
    }

private:
    static constexpr std::size_t PIECE_BYTES = 256 << 10;
    static constexpr std::size_t EPOCHS_KEPT = 4;
#if defined(LOB_FAIL_POINTS)
    static constexpr std::size_t WRITE_MAX_BYTES = 1000;  // a death between two of them leaves half a line
#else
    static constexpr std::size_t WRITE_MAX_BYTES = 1 << 30;
#endif

    struct Line {
        std::size_t end;  // in text_
        std::uint64_t seq;
    };

    bool is_stdout(std::size_t part) const { return static_cast<int>(part) == stdout_part_; }
    void cut(std::size_t part) {
        const std::uint64_t offset = place_.parts[part].now().offset.load(std::memory_order_relaxed);
        if (ftruncate(fds_[part], static_cast<off_t>(offset)) != 0) set_error(part);
    }
    void set_error(std::size_t part) { place_.parts[part].error.store(static_cast<std::uint32_t>(errno)); }

    // While it is still in the queue: the journal first, so a claim without one does not exist.
    void claim(const Batch& batch) {
        std::uint64_t nobody = batch.number << 8;
        auto& word = work_->claim_of(batch.number);
        if (word.load(std::memory_order_relaxed) != nobody) return;
        place_.batch = batch;
        LOB_FAIL_POINT(72);
        for (std::size_t i = 0; i < fds_.size(); ++i) {
            auto& part = place_.parts[i];
            part.advance(part.now().offset.load(std::memory_order_relaxed), batch.is_record != 0 ? 0 : batch.range.first_seq - 1, 0, 0);
        }
        if (word.compare_exchange_strong(nobody, batch.number << 8 | number_, std::memory_order_release)) current_ = batch;  // K1
        LOB_FAIL_POINT(73);
    }

    void do_batch(const Batch& batch) {
        learn();
        text_.clear();
        lines_.clear();
        if (batch.is_record != 0) {
            format(*reinterpret_cast<const RecordHeader*>(batch.record), 1);
            return put_piece();
        }
        const auto& range = batch.range;
        std::uint64_t last = range.first_seq - 1;
        if (range.nonce == ring_->header().nonce) {
            reader_->seek(range.begin, last);
            while (last != range.last_seq && reader_->read(words_) == Read::ok) {
                const auto& record = *reinterpret_cast<const RecordHeader*>(words_.data());
                if (record.ring_seq != last + 1) break;  // of another lap
                format(record, ++last);
                if (text_.size() >= PIECE_BYTES) put_piece();
            }
        }
        put_piece();
        std::uint64_t most = 0;
        for (std::size_t i = 0; i < fds_.size() && last != range.last_seq; ++i) {
            const std::uint64_t has = std::max(last, place_.parts[i].now().seq.load(std::memory_order_relaxed));
            most = std::max(most, range.last_seq - has);
            if (has == range.last_seq) continue;
            text_.clear();
            format_lost(lost_ndjson_, range.last_seq - has, text_);
            lines_.assign(1, {text_.size(), range.last_seq});
            put(i);
        }
        place_.lost.fetch_add(most, std::memory_order_relaxed);
    }

    void format(const RecordHeader& record, std::uint64_t seq) {
        ndjson_of(record.epoch).format(record, text_);
        lines_.push_back({text_.size(), seq});
    }
    void put_piece() {
        for (std::size_t i = 0; i < fds_.size(); ++i) put(i);
        text_.clear();
        lines_.clear();
    }

    // The lines that this part does not have yet.
    void put(std::size_t index) {
        auto& part = place_.parts[index];
        const std::uint64_t has = part.now().seq.load(std::memory_order_relaxed);
        std::size_t first = 0;
        while (first < lines_.size() && lines_[first].seq <= has) ++first;
        if (first == lines_.size()) return;
        const std::uint64_t offset = part.now().offset.load(std::memory_order_relaxed);
        if (part.error.load() != 0 || work_->closed[index].load(std::memory_order_relaxed) != 0) {
            part.dropped.fetch_add(lines_.size() - first, std::memory_order_relaxed);
            part.advance(offset, lines_.back().seq, 0, 0);
            return;
        }
        const std::size_t begin = first == 0 ? 0 : lines_[first - 1].end;
        if (is_stdout(index)) return put_stdout(index, first, begin);
        for (std::size_t at = begin; at < text_.size();) {
            const std::size_t most = std::min(text_.size() - at, WRITE_MAX_BYTES);
            const ssize_t count = pwrite(fds_[index], text_.view().data() + at, most, static_cast<off_t>(offset + at - begin));
            LOB_FAIL_POINT(76);
            if (count < 0) {
                set_error(index);
                cut(index);
                return put(index);  // what failed is counted there
            }
            at += static_cast<std::size_t>(count);
        }
        const std::size_t bytes = text_.size() - begin;
        part.advance(offset + bytes, lines_.back().seq, lines_.size() - first, bytes);
    }

    void put_stdout(std::size_t index, std::size_t first, std::size_t begin) {
        lock_stdout(F_WRLCK);
        bool written = work_->torn.load() == 0 || (write_all(index, "\n") && (work_->torn.store(0), true));
        while (written && first < lines_.size()) {
            std::size_t next = first + 1;
            while (next < lines_.size() && lines_[next].end - begin <= PIPE_BUF) ++next;
            const std::size_t bytes = lines_[next - 1].end - begin;
            if (bytes > PIPE_BUF) work_->torn.store(1);
            written = write_all(index, text_.view().substr(begin, bytes));
            LOB_FAIL_POINT(77);
            if (!written) break;
            work_->torn.store(0);
            place_.parts[index].advance(0, lines_[next - 1].seq, next - first, bytes);
            begin += bytes;
            first = next;
        }
        lock_stdout(F_UNLCK);
        if (!written) put(index);
    }
    bool write_all(std::size_t part, std::string_view text) {
        while (!text.empty()) {
            const ssize_t count = write(fds_[part], text.data(), text.size());
            if (count < 0) return set_error(part), false;
            text.remove_prefix(static_cast<std::size_t>(count));
        }
        return true;
    }
    void lock_stdout(short type) {
        struct flock lock {};
        lock.l_type = type;
        lock.l_whence = SEEK_SET;
        lock.l_start = Work::STDOUT_BYTE;
        lock.l_len = 1;
        while (fcntl(work_.fd(), F_OFD_SETLKW, &lock) != 0 && errno == EINTR) {
        }
    }

    void learn() {
        for (const std::uint64_t count = work_->announced.load(std::memory_order_acquire); learned_ != count; ++learned_) {
            const auto& record = *reinterpret_cast<const RecordHeader*>(work_->announcements[learned_]);
            ndjson_of(record.epoch).learn(record);
        }
    }
    // A batch of the epoch before may come after one of the next. What was announced before any epoch holds in the first.
    Ndjson& ndjson_of(std::uint32_t epoch) {
        const auto found = ndjsons_.find(epoch);
        if (found != ndjsons_.end()) return found->second;
        if (ndjsons_.size() == EPOCHS_KEPT) ndjsons_.erase(ndjsons_.begin());
        if (auto unborn = ndjsons_.extract(0)) return ndjsons_.emplace(epoch, std::move(unborn.mapped())).first->second;
        return ndjsons_[epoch];
    }

    WorkMemory work_;
    const std::uint32_t number_;
    Work::Queue queue_;
    Work::Place& place_;
    const std::vector<int> fds_;
    const int stdout_part_;
    Segment* ring_ = nullptr;
    std::optional<BroadcastReader<>> reader_;
    std::optional<Batch> current_;  // claimed, not done
    bool asked_ = false;
    std::uint64_t learned_ = 0;
    std::map<std::uint32_t, Ndjson> ndjsons_;  // by epoch
    Ndjson lost_ndjson_;
    std::vector<std::uint64_t> words_;
    TextBuffer text_;
    std::vector<Line> lines_;
    Patience patience_;
};

}  // namespace lob::publish
