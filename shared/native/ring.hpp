// ring.hpp - what both byte rings share: positions, the bounds of a record, the writer's state.
//
// A position counts bytes since ever; the byte lies at position & (capacity-1). Records are contiguous:
// one that does not fit before the end of the ring is preceded by a pad record. A position never wraps
// (2^63 bytes), so "how much is unread" is a subtraction.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "fail_point.hpp"
#include "segment.hpp"
#include "wait.hpp"

namespace lob {

// A ring whose bytes contradict each other: a broken peer or a foreign hand. Nobody reads on from there.
struct CorruptRing : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// The first 8 bytes of a record as one word: size_bytes, type, flags.
struct RecordWord {
    std::uint32_t size_bytes;
    RecordType type;

    static RecordWord of(std::uint64_t word) {
        return {static_cast<std::uint32_t>(word), static_cast<RecordType>((word >> 32) & 0xFFFF)};
    }
    static std::uint64_t pad(std::uint64_t size_bytes) { return size_bytes; }

    // A length that a reader may trust: whole words, inside what is committed, inside the ring.
    bool plausible(std::uint64_t committed_bytes, std::uint64_t bytes_to_end) const {
        const std::uint64_t least = type == RecordType::pad ? 8 : sizeof(RecordHeader);
        return size_bytes >= least && size_bytes % 8 == 0 && size_bytes <= committed_bytes && size_bytes <= bytes_to_end;
    }
};

// The writer's private state and what it publishes of it. Base of both writers.
template <class A = DefaultAtomics>
class RingWriter {
public:
    explicit RingWriter(Segment& segment)
        : segment_(segment),
          header_(reinterpret_cast<SegmentHeader<A>&>(segment.header())),
          data_(segment.data()),
          capacity_(segment.capacity_bytes()),
          record_max_(std::min<std::uint64_t>(capacity_ / 4, 0xFFFFFFF8u)),
          may_lap_(segment.kind() == Kind::broadcast) {
        if (!segment.writable()) throw std::invalid_argument("the segment is mapped read-only");
        // Go on where the last owner's last commit left off; what it had not committed never existed.
        committed_ = position_ = header_.tail.load(std::memory_order_acquire);
        check_position(committed_);
        for (auto& checkpoint : header_.checkpoint) {
            const std::uint64_t turn = checkpoint.turn.load(std::memory_order_acquire);
            if (turn > turn_ && checkpoint.tail.load(std::memory_order_relaxed) == committed_) {
                turn_ = turn;
                next_seq_ = checkpoint.next_seq.load(std::memory_order_relaxed);
                raw_seq_ = checkpoint.raw_seq.load(std::memory_order_relaxed);
            }
        }
        next_seq_committed_ = next_seq_;
    }

    // Become the owner: a new epoch, the ring open. The caller holds the writer's lock.
    void take_over(std::uint32_t pid) {
        LOB_FAIL_POINT(60);
        epoch_ = static_cast<std::uint32_t>(header_.epoch.fetch_add(1, std::memory_order_acq_rel) + 1);
        LOB_FAIL_POINT(61);
        header_.writer_pid.store(pid, std::memory_order_relaxed);
        beat();
        LOB_FAIL_POINT(62);
        header_.state.store(static_cast<std::uint32_t>(RingState::open), std::memory_order_release);
        LOB_FAIL_POINT(63);
    }
    void beat() { header_.heartbeat_ns.store(mono_ns(), std::memory_order_relaxed); }
    void set_state(RingState state) {
        header_.state.store(static_cast<std::uint32_t>(state), std::memory_order_release);
        wake_if_asleep<A>(header_.reader_sleep);
    }

    const Segment& segment() const { return segment_; }
    bool fits(std::uint64_t size_bytes) const { return size_bytes <= record_max_; }
    std::uint64_t record_max_bytes() const { return record_max_; }
    std::uint64_t capacity_bytes() const { return capacity_; }

    // A record that nobody will see: its number is gone, the hole tells the reader.
    void drop() {
        ++next_seq_;
        ++next_seq_committed_;
        ++dropped_;
        add(header_.drops, 1);
    }
    // Records dropped since the last call.
    std::uint64_t take_dropped() {
        const std::uint64_t dropped = dropped_;
        dropped_ = 0;
        return dropped;
    }

    std::uint64_t next_seq() const { return next_seq_; }
    std::uint64_t raw_seq() const { return raw_seq_; }
    std::uint32_t epoch() const { return epoch_; }
    std::uint64_t position() const { return position_; }

    // Bytes free right now, seen from the slowest registered reader.
    std::uint64_t free_bytes() {
        return capacity_ - (position_ - slowest_reader());
    }

    // Waits until `size_bytes` more can be claimed, or the time-out; true if they can.
    // Throws length_error if that can never be: what is claimed and not committed holds no reader up, but fills the ring.
    bool wait_free(std::uint64_t size_bytes, WaitMode mode, std::int64_t timeout_ns) {
        const std::uint64_t total = place((size_bytes + 7) & ~7ull).total_bytes;
        if (position_ + total - committed_ > capacity_)
            throw std::length_error("more than a ring of " + std::to_string(capacity_) + " bytes in one commit");
        add(header_.full_waits, 1);
        return wait_until<A>([&] { return has_room(total); }, &header_.writer_sleep, mode, timeout_ns);
    }

protected:
    // Where a record of `size_bytes` goes: pad bytes first, if it would not fit before the end.
    struct Place {
        std::uint64_t pad_bytes;
        std::uint64_t total_bytes;
    };
    Place place(std::uint64_t size_bytes) const {
        const std::uint64_t to_end = capacity_ - (position_ & (capacity_ - 1));
        const std::uint64_t pad = to_end < size_bytes ? to_end : 0;
        return {pad, pad + size_bytes};
    }

    // Everything (pad and record) fits or nothing is written: never a pad without its record.
    bool has_room(std::uint64_t total_bytes) {
        if (position_ + total_bytes - gate_ <= capacity_) return true;
        gate_ = slowest_reader();
        return position_ + total_bytes - gate_ <= capacity_;
    }

    // From the tail backwards: who registers after this look begins at this tail or a later one (broadcast.hpp, J1).
    std::uint64_t slowest_reader() const {
        std::uint64_t slowest = committed_;
        for (const auto& reader : header_.readers)
            if (reader.state.load(std::memory_order_acquire) != 0) {
                const std::uint64_t at = reader.position.load(std::memory_order_acquire);  // R1 pairs with R2
                if (position_ - at > capacity_) {
                    if (!may_lap_ || static_cast<std::int64_t>(position_ - at) < 0)
                        throw CorruptRing("a reader's position is ahead of the writer's");
                    return position_ - capacity_;  // overtaken before it was registered: full, until it has moved on
                }
                if (position_ - at > position_ - slowest) slowest = at;
            }
        return slowest;
    }

    // `raw_seq`: all events of that raw record are now out. 0 keeps the last.
    void checkpoint(std::uint64_t raw_seq) {
        if (raw_seq != 0) raw_seq_ = raw_seq;
        auto& next = header_.checkpoint[++turn_ & 1];  // never the true one: we may die in the middle
        LOB_FAIL_POINT(12);
        next.turn.store(0, std::memory_order_relaxed);
        LOB_FAIL_POINT(13);
        std::atomic_signal_fence(std::memory_order_seq_cst);  // only a later writer looks: program order is enough
        next.tail.store(position_, std::memory_order_relaxed);
        LOB_FAIL_POINT(14);
        next.next_seq.store(next_seq_, std::memory_order_relaxed);
        LOB_FAIL_POINT(15);
        next.raw_seq.store(raw_seq_, std::memory_order_relaxed);
        LOB_FAIL_POINT(16);
        next.turn.store(turn_, std::memory_order_release);
        LOB_FAIL_POINT(17);
        add(header_.records, next_seq_ - next_seq_committed_);
        add(header_.bytes, position_ - committed_);
        next_seq_committed_ = next_seq_;
        committed_ = position_;
    }
    void roll_back() {
        position_ = committed_;
        next_seq_ = next_seq_committed_;
    }

    // Also of a foreign hand: a position between two words would reach over the end of the mapping.
    static void check_position(std::uint64_t position) {
        if (position % 8 != 0) throw CorruptRing("a position between two words: " + std::to_string(position));
    }

    // One writer: a plain add, no read-modify-write.
    static void add(typename A::template atomic<std::uint64_t>& counter, std::uint64_t n) {
        counter.store(counter.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
    }

    const Segment& segment_;
    SegmentHeader<A>& header_;
    std::byte* data_;
    const std::uint64_t capacity_;
    const std::uint64_t record_max_;
    const bool may_lap_;
    std::uint64_t position_ = 0;   // next byte to claim
    std::uint64_t committed_ = 0;  // == header.tail
    std::uint64_t gate_ = 0;       // slowest reader, as last seen
    std::uint64_t next_seq_ = 1;
    std::uint64_t next_seq_committed_ = 1;
    std::uint64_t raw_seq_ = 0;
    std::uint64_t dropped_ = 0;
    std::uint32_t epoch_ = 0;
    std::uint64_t turn_ = 0;  // of the checkpoint at the tail; its place is turn & 1
};

}  // namespace lob
