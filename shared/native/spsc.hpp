// spsc.hpp - one writer, one reader, records of any length, written and read in place.
//
// Shape      bytes[capacity], capacity a power of two; see ring.hpp for positions and pads.
// Invariant  [reader position, tail) holds whole records; the writer touches only [tail, position + capacity).
// Ordering   W1 tail=end release           pairs with W2: the tail implies the bytes before it
//            R2 position=p release         pairs with R1 (ring.hpp): the position implies that the reader is done
//                                          with the bytes before it, so they may be overwritten
// Crash      a record exists from the store W1 on and not before; a new writer goes on from the tail, a new
//            reader from its slot's position. A record may be read twice (its reader died before release),
//            never partly.
// Full       claim() gives null; the caller waits (wait_free) or counts a drop (drop).
// Not for    two writers or two readers: the roles' locks keep them out (shared/lob/roles.py).
#pragma once

#include <cstring>

#include "ring.hpp"
#include "wait.hpp"

namespace lob {

template <class A = DefaultAtomics>
class SpscWriter : public RingWriter<A> {
    using Base = RingWriter<A>;

public:
    explicit SpscWriter(Segment& segment) : Base(segment) {
        if (segment.kind() != Kind::spsc) throw std::invalid_argument("no spsc ring");
    }

    // Room for one record, with size, ring_seq and epoch filled in; null if the ring is full.
    // Several claims may precede one commit. `size_bytes` must fit().
    RecordHeader* claim(std::uint32_t size_bytes) {
        if (!this->fits(size_bytes)) throw std::length_error("a record of " + std::to_string(size_bytes) + " bytes");
        const std::uint32_t size = align8(size_bytes);
        const auto [pad, total] = this->place(size);
        if (!this->has_room(total)) return nullptr;
        LOB_FAIL_POINT(1);
        std::byte* at = this->data_ + (this->position_ & (this->capacity_ - 1));
        if (pad != 0) {
            const std::uint64_t word = RecordWord::pad(pad);
            A::writes(at, sizeof word);
            std::memcpy(at, &word, sizeof word);
            LOB_FAIL_POINT(2);
            at = this->data_;
        }
        A::writes(at, size);
        this->position_ += total;
        auto* record = reinterpret_cast<RecordHeader*>(at);
        record->size_bytes = size;
        record->ring_seq = this->next_seq_++;
        record->epoch = this->epoch_;
        LOB_FAIL_POINT(3);
        return record;
    }

    // Publishes all claims since the last commit at once.
    void commit(std::uint64_t raw_seq = 0) {
        this->checkpoint(raw_seq);
        LOB_FAIL_POINT(20);
        this->header_.tail.store(this->position_, std::memory_order_release);  // W1
        LOB_FAIL_POINT(21);
        wake_if_asleep<A>(this->header_.reader_sleep);
    }

    // Forgets all claims since the last commit. Drops since then are kept.
    void abort() { this->roll_back(); }

    // Claims, lets `fill` write, commits. False if the ring is full.
    template <class Fill>
    bool write(std::uint32_t size_bytes, Fill&& fill) {
        RecordHeader* record = claim(size_bytes);
        if (record == nullptr) return false;
        fill(*record);
        commit();
        return true;
    }
};

template <class A = DefaultAtomics>
class SpscReader {
public:
    explicit SpscReader(Segment& segment)
        : header_(reinterpret_cast<SegmentHeader<A>&>(segment.header())),
          data_(segment.data()),
          capacity_(segment.capacity_bytes()) {
        if (segment.kind() != Kind::spsc) throw std::invalid_argument("no spsc ring");
        if (!segment.writable()) throw std::invalid_argument("the segment is mapped read-only");
        position_ = released_ = tail_ = header_.readers[0].position.load(std::memory_order_acquire);
        seq_ = header_.readers[0].seq.load(std::memory_order_relaxed);
        if (position_ % 8 != 0) throw CorruptRing("a position between two words: " + std::to_string(position_));
    }

    // The next record, or null if there is none yet. Valid until release().
    const RecordHeader* peek() {
        for (;;) {
            if (position_ == tail_) {
                tail_ = header_.tail.load(std::memory_order_acquire);  // W2
                if (position_ == tail_) return nullptr;
                if (tail_ - position_ > capacity_) throw CorruptRing("the tail is further than the ring is long");
            }
            const std::uint64_t offset = position_ & (capacity_ - 1);
            std::uint64_t word = 0;
            A::reads(data_ + offset, sizeof word);
            std::memcpy(&word, data_ + offset, sizeof word);
            const RecordWord record = RecordWord::of(word);
            if (!record.plausible(tail_ - position_, capacity_ - offset))
                throw CorruptRing("a record of impossible length " + std::to_string(record.size_bytes));
            if (record.type != RecordType::pad) {
                size_bytes_ = record.size_bytes;
                A::reads(data_ + offset, size_bytes_);
                return reinterpret_cast<const RecordHeader*>(data_ + offset);
            }
            position_ += record.size_bytes;
        }
    }

    // Done with the record that peek() gave. The writer learns of it at the next publish().
    void release(const RecordHeader& record) {
        A::reads(&record, size_bytes_);
        LOB_FAIL_POINT(30);
        position_ += size_bytes_;  // as it was when it was checked
        seq_ = record.ring_seq;
        if (position_ - released_ >= capacity_ / 8) publish();
    }

    // Tells the writer what is free. Called when the ring is drained and now and then in between.
    void publish() {
        if (position_ == released_) return;
        released_ = position_;
        LOB_FAIL_POINT(31);
        header_.readers[0].seq.store(seq_, std::memory_order_relaxed);
        LOB_FAIL_POINT(32);
        header_.readers[0].position.store(position_, std::memory_order_release);  // R2
        LOB_FAIL_POINT(33);
        wake_if_asleep<A>(header_.writer_sleep);
    }

    bool wait(WaitMode mode, std::int64_t timeout_ns) {
        publish();
        return wait_until<A>([&] { return header_.tail.load(std::memory_order_acquire) != position_; },
                             &header_.reader_sleep, mode, timeout_ns, &patience_);
    }

    bool drained() const { return header_.tail.load(std::memory_order_acquire) == position_; }
    RingState state() const { return static_cast<RingState>(header_.state.load(std::memory_order_acquire)); }
    std::uint64_t epoch() const { return header_.epoch.load(std::memory_order_acquire); }
    std::int64_t silent_ns() const { return mono_ns() - header_.heartbeat_ns.load(std::memory_order_relaxed); }

private:
    SegmentHeader<A>& header_;
    const std::byte* data_;
    const std::uint64_t capacity_;
    std::uint64_t position_ = 0;  // next byte to read
    std::uint64_t released_ = 0;  // == the slot's position
    std::uint64_t tail_ = 0;      // the writer's, as last seen
    std::uint64_t seq_ = 0;
    std::uint32_t size_bytes_ = 0;  // of the record that peek() gave
    Patience patience_;
};

}  // namespace lob
