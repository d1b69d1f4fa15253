// broadcast.hpp - one writer, any number of readers; under `drop` the writer never waits.
//
// Shape      as spsc; every word of a record is written and copied as a relaxed atomic, because a reader may be
//            copying what the writer is overwriting. Reads give copies; views only to those the writer waits for (peek).
// Invariant  bytes in [intent - capacity, tail) are whole and untouched; a record that begins before
//            intent - capacity may be torn.
// Ordering   W1 intent=end relaxed, release fence   pairs with R3/R4: a new word implies the new intent
//            W3 tail=end release                    pairs with R2: the tail implies the words
//            W4 latest=start release, after W3      pairs with R1: `latest` implies the tail behind it, so whoever
//                                                   resumes there never stands past a tail that it sees afterwards
//            S2 fence in commit(), then W1          pairs with R5: an intent implies the `latest` of the commits before
//                                                   it, so a lapped reader finds one ahead of itself
// Lapping    a reader that finds its bytes behind intent - capacity resumes at `latest` and is told how many
//            records it lost: the ring_seq of the next record less the last one it had.
//            Resuming looks at `latest` after the intent that told of the lap: an older one may lie behind us, and the
//            tail instead of it skips the newest record, for good if it was the last (found by the model). A
//            tail that is behind us counts as nothing new: taken for news, it hands out records of the lap before
//            (found by a stress with a ring of few records). And it must move on: where `latest` is no later than where
//            we stand (the writer is in the middle of more than a ring, or died there), it resumes at the tail, and
//            loads that one first: what is committed in between must not be skipped.
// Length     is validated against intent before it is used, and bounds-checked.
//            J1 state=1, fence seq_cst, load tail   pairs with W3 and the fence after it: either the writer's next look
//                                                   at the slots sees the newcomer, or the newcomer begins at a tail
//                                                   that bounds what the writer may overwrite before that look
//            What lies before that tail is not bounded: the writer goes on by its last look for up to a ring. Of it
//            peek() gives copies (found by reading, shown by ring_corners.cpp).
// Policy     `wait`: the writer also waits for the registered readers (slots in the header), which then are
//            never lapped by what comes after J1; `drop`: slots only tell where a reader is.
// Crash      a new writer goes on from the tail and never lowers intent: bytes up to it may be scribbled on. `latest`
//            never names a record that was not committed (W4 after W3): a new writer puts others in its place. It may
//            lag by a commit when its writer died between W3 and W4: the new one walks on to the newest.
// Not for    two writers, payloads with pointers.
#pragma once

#include <cstring>
#include <vector>

#include "ring.hpp"
#include "wait.hpp"

namespace lob {

template <class A = DefaultAtomics>
class BroadcastWriter : public RingWriter<A> {
    using Base = RingWriter<A>;

public:
    explicit BroadcastWriter(Segment& segment) : Base(segment), gated_(segment.policy() == Policy::wait) {
        if (segment.kind() != Kind::broadcast) throw std::invalid_argument("no broadcast ring");
        intent_ = this->header_.intent.load(std::memory_order_relaxed);
        latest_ = newest(this->header_.latest.load(std::memory_order_relaxed));
        this->header_.latest.store(latest_, std::memory_order_release);  // W4
        A::fence(std::memory_order_release);                             // as S2, for R5
    }

    // Copies one record in; size_bytes, ring_seq and epoch are filled in here (also in `record`).
    // False: `wait` and a registered reader has not made room. Visible from the next commit() on.
    bool write(RecordHeader& record) { return write(record, &record + 1); }

    // The same of a header and what follows it, which may lie anywhere and end between two words.
    bool write(RecordHeader& head, const void* rest) {
        if (head.size_bytes < sizeof head || !this->fits(head.size_bytes))
            throw std::length_error("a record of " + std::to_string(head.size_bytes) + " bytes");
        const std::uint32_t rest_bytes = head.size_bytes - sizeof(RecordHeader);
        const std::uint32_t size = align8(head.size_bytes);
        const auto [pad, total] = this->place(size);
        if (gated_ && !this->has_room(total)) return false;
        LOB_FAIL_POINT(1);
        if (this->position_ + total > intent_) {
            intent_ = this->position_ + total;
            this->header_.intent.store(intent_, std::memory_order_relaxed);  // W1
            LOB_FAIL_POINT(10);
        }
        A::fence(std::memory_order_release);  // W1
        std::byte* at = this->data_ + (this->position_ & (this->capacity_ - 1));
        if (pad != 0) {
            A::store_word(reinterpret_cast<Word*>(at), RecordWord::pad(pad));
            LOB_FAIL_POINT(2);
            at = this->data_;
        }
        latest_ = this->position_ + pad;
        head.size_bytes = size;
        head.ring_seq = this->next_seq_++;
        head.epoch = this->epoch_;
        auto* to = reinterpret_cast<Word*>(at);
        const auto* first = reinterpret_cast<const Word*>(&head);
        for (std::uint32_t i = 0; i < sizeof head / 8; ++i) {
            A::store_word(to + i, first[i]);  // W2
            LOB_FAIL_POINT(4);
        }
        to += sizeof head / 8;
        const auto* bytes = static_cast<const std::byte*>(rest);
        const std::size_t words = rest_bytes / 8;
        for (std::size_t i = 0; i < words; ++i) {
            std::uint64_t word;
            std::memcpy(&word, bytes + 8 * i, 8);
            A::store_word(to + i, word);  // W2
            LOB_FAIL_POINT(4);
        }
        if (rest_bytes % 8 != 0) {  // apart: in the loop it would be a call of memcpy a word
            std::uint64_t word = 0;
            std::memcpy(&word, bytes + 8 * words, rest_bytes % 8);
            A::store_word(to + words, word);  // W2
            LOB_FAIL_POINT(4);
        }
        this->position_ += total;
        return true;
    }

    // Publishes all records written since the last commit at once.
    void commit(std::uint64_t raw_seq = 0) {
        if (this->position_ == this->committed_) return;
        this->checkpoint(raw_seq);
        LOB_FAIL_POINT(20);
        this->header_.tail.store(this->position_, std::memory_order_release);  // W3
        LOB_FAIL_POINT(21);
        this->header_.latest.store(latest_, std::memory_order_release);        // W4
        LOB_FAIL_POINT(22);
        wake_if_asleep<A>(this->header_.reader_sleep);                         // begins with the fence that J1 needs
    }
    void abort() {
        this->roll_back();
        latest_ = this->header_.latest.load(std::memory_order_relaxed);
    }

private:
    // The start of the last record before the tail, on the way from an older one; the tail where that one is overwritten.
    std::uint64_t newest(std::uint64_t latest) const {
        const std::uint64_t capacity = this->capacity_, tail = this->committed_;
        if (intent_ > latest + capacity || latest % 8 != 0) return tail;
        for (std::uint64_t at = latest; at < tail;) {
            const std::uint64_t offset = at & (capacity - 1);
            const RecordWord record = RecordWord::of(A::load_word(reinterpret_cast<const Word*>(this->data_ + offset)));
            if (!record.plausible(tail - at, capacity - offset)) return tail;
            if (record.type != RecordType::pad) latest = at;
            at += record.size_bytes;
        }
        return latest;
    }

    const bool gated_;
    std::uint64_t intent_;
    std::uint64_t latest_;
};

enum class Read : std::uint8_t { ok, empty, lapped, kept };

template <class A = DefaultAtomics>
class BroadcastReader {
public:
    enum class From { oldest, newest, slot };

    // `slot` < READER_SLOTS: registered there (needs a writable mapping); its position is where From::slot begins.
    BroadcastReader(Segment& segment, From from, std::uint32_t slot)
        : header_(reinterpret_cast<SegmentHeader<A>&>(segment.header())),
          data_(segment.data()),
          capacity_(segment.capacity_bytes()),
          slot_(slot),
          writable_(segment.writable()),
          gated_(segment.policy() == Policy::wait) {
        if (segment.kind() != Kind::broadcast) throw std::invalid_argument("no broadcast ring");
        if (slot_ < READER_SLOTS && !writable_) throw std::invalid_argument("the segment is mapped read-only");
        if (slot_ >= READER_SLOTS && from == From::slot) throw std::invalid_argument("no slot to start from");
        bool known = false;  // the writer has waited for this slot all the time
        if (from == From::slot) {
            known = header_.readers[slot_].state.load(std::memory_order_acquire) != 0;
            position_ = header_.readers[slot_].position.load(std::memory_order_acquire);
            seq_ = header_.readers[slot_].seq.load(std::memory_order_relaxed);
        } else {
            position_ = start(from);
        }
        if (position_ % 8 != 0) throw CorruptRing("a position between two words: " + std::to_string(position_));
        if (slot_ >= READER_SLOTS) return;
        header_.readers[slot_].position.store(position_, std::memory_order_release);
        LOB_FAIL_POINT(34);
        header_.readers[slot_].state.store(1, std::memory_order_release);  // J1
        LOB_FAIL_POINT(35);
        A::fence(std::memory_order_seq_cst);                               // J1
        if (from != From::slot) position_ = start(from);                   // J1
        still_from_ = known ? position_ : start(From::newest);
        publish();
    }

    // Copies the next record into `out` (grown as needed). `lapped`: lost() tells how many once the next
    // record is read; position() has already moved on.
    Read read(std::vector<std::uint64_t>& out) {
        return read_by([&out](const Word* from, std::uint64_t word, RecordWord record, std::uint64_t) {
            copy({Read::ok, from, word, record}, out);
            return true;
        });
    }

    // Shows the next record to copy(words, first word, what that says, ring_seq), which copies what it wants of it by
    // load_word. What it got is whole if `ok` comes back; if it says false the record stays the next one (`kept`).
    template <class Copy>
    Read read_by(Copy&& copy) {
        const Next next = this->next();
        if (next.result != Read::ok) return next.result;
        const std::uint64_t seq = A::load_word(next.words + 1);
        const bool taken = copy(next.words, next.word, next.record, seq);
        if (!intact()) return resume();  // R4: after the copy
        if (!taken) return Read::kept;
        pass(next.record.size_bytes, seq);
        return Read::ok;
    }

    // Whether records may be read in place: the writer waits for us, so no lap can tear them.
    bool in_place() const { return gated_ && slot_ < READER_SLOTS; }

    // Where in_place(): the next record, or null if there is none. Valid until release(), and while the slot is ours.
    const RecordHeader* peek() {
        // Twice: overtaken before we were registered; then the next one is.
        for (int tries = 0; tries < 2; ++tries) {
            const Next next = this->next();
            if (next.result == Read::empty) break;
            if (next.result != Read::ok) continue;
            size_bytes_ = next.record.size_bytes;
            if (static_cast<std::int64_t>(position_ - still_from_) >= 0) return reinterpret_cast<const RecordHeader*>(next.words);
            copy(next, copy_);
            if (intact()) return reinterpret_cast<const RecordHeader*>(copy_.data());  // R4
            resume();
        }
        return nullptr;
    }
    // Whether `record`, of peek(), is a copy of ours, whole until the next peek(), and not the ring's own bytes.
    bool copied(const RecordHeader& record) const { return static_cast<const void*>(&record) == copy_.data(); }
    // Done with the record that peek() gave. The writer learns of it at the next publish().
    void release(const RecordHeader& record) {
        pass(size_bytes_, record.ring_seq);  // as it was when it was checked
        if (position_ - released_ >= capacity_ / 8) publish();
    }

    // Tells the writer (under `wait`) and lob-trace how far this reader is.
    void publish() {
        const std::uint64_t position = std::min(position_, held_);
        if (slot_ >= READER_SLOTS || position == released_) return;
        released_ = position;
        LOB_FAIL_POINT(31);
        header_.readers[slot_].seq.store(position == position_ ? seq_ : held_seq_, std::memory_order_relaxed);
        LOB_FAIL_POINT(32);
        header_.readers[slot_].lost.store(lost_, std::memory_order_relaxed);
        header_.readers[slot_].position.store(position, std::memory_order_release);
        LOB_FAIL_POINT(33);
        wake_if_asleep<A>(header_.writer_sleep);
    }
    // Records from `position` on are still needed by somebody who reads them by position: publish() goes no further.
    // `seq`: the number before them. ~0: nobody needs any.
    void hold(std::uint64_t position, std::uint64_t seq) {
        held_ = position;
        held_seq_ = seq;
    }
    // The next record read is the one at `position`, which must be where a record (or its pad) begins; `seq`: the number before.
    void seek(std::uint64_t position, std::uint64_t seq) {
        position_ = position;
        seq_ = seq;
    }
    // Gives the slot back: under `wait` the writer no longer waits for it.
    void unregister() {
        if (slot_ < READER_SLOTS) header_.readers[slot_].state.store(0, std::memory_order_release);
        if (writable_) wake_if_asleep<A>(header_.writer_sleep);
    }

    bool wait(WaitMode mode, std::int64_t timeout_ns) {
        return wait(mode, timeout_ns, [] { return false; });
    }
    // ... or until news(), of which somebody tells by the ring's word of sleeping readers.
    template <class News>
    bool wait(WaitMode mode, std::int64_t timeout_ns, News&& news) {
        publish();
        return wait_until<A>(
            [&] { return static_cast<std::int64_t>(header_.tail.load(std::memory_order_acquire) - position_) > 0 || news(); },
            writable_ ? &header_.reader_sleep : nullptr, mode, timeout_ns, &patience_);
    }

    bool drained() const {
        return static_cast<std::int64_t>(header_.tail.load(std::memory_order_acquire) - position_) <= 0;
    }
    std::uint64_t lost() const { return lost_; }
    std::uint64_t laps() const { return laps_; }
    std::uint64_t seq() const { return seq_; }
    std::uint64_t position() const { return position_; }  // of the next record, bytes
    RingState state() const { return static_cast<RingState>(header_.state.load(std::memory_order_acquire)); }
    std::uint64_t epoch() const { return header_.epoch.load(std::memory_order_acquire); }
    std::int64_t silent_ns() const { return mono_ns() - header_.heartbeat_ns.load(std::memory_order_relaxed); }

private:
    // A record's start is not known in the middle of the ring: only while nothing has been overwritten is the first
    // record where the ring began; else the oldest that can be had is the newest.
    std::uint64_t start(From from) const {
        const std::uint64_t latest = header_.latest.load(std::memory_order_acquire);  // R1
        const std::uint64_t tail = header_.tail.load(std::memory_order_acquire);      // R2
        if (from == From::newest) return tail;
        return tail - header_.first_position <= capacity_ ? header_.first_position : latest;
    }
    // The next record, up to where its length may be believed.
    struct Next {
        Read result;
        const Word* words = nullptr;
        std::uint64_t word = 0;
        RecordWord record{};
    };
    Next next() {
        for (;;) {
            const std::uint64_t tail = header_.tail.load(std::memory_order_acquire);  // R2
            if (static_cast<std::int64_t>(tail - position_) <= 0) return {Read::empty};
            const std::uint64_t offset = position_ & (capacity_ - 1);
            const auto* words = reinterpret_cast<const Word*>(data_ + offset);
            const std::uint64_t word = A::load_word(words);
            if (!intact()) return {resume()};  // R3: before the length is believed
            const RecordWord record = RecordWord::of(word);
            if (!record.plausible(tail - position_, capacity_ - offset))
                throw CorruptRing("a record of impossible length " + std::to_string(record.size_bytes));
            if (record.type != RecordType::pad) return {Read::ok, words, word, record};
            position_ += record.size_bytes;
        }
    }
    static void copy(const Next& next, std::vector<std::uint64_t>& out) {
        const std::uint32_t words = next.record.size_bytes / 8;
        if (out.size() < words) out.resize(words);
        auto* to = reinterpret_cast<Word*>(out.data());
        to[0] = next.word;
        for (std::uint32_t i = 1; i < words; ++i) to[i] = A::load_word(next.words + i);
    }
    void pass(std::uint32_t size_bytes, std::uint64_t seq) {
        position_ += size_bytes;
        if (seq_ != 0 && seq > seq_ + 1) lost_ += seq - seq_ - 1;
        seq_ = seq;
    }
    bool intact() const {
        A::fence(std::memory_order_acquire);  // R3, R4
        return header_.intent.load(std::memory_order_relaxed) <= position_ + capacity_;
    }
    Read resume() {
        A::fence(std::memory_order_acquire);                                          // R5
        const std::uint64_t tail = header_.tail.load(std::memory_order_acquire);      // R2
        const std::uint64_t latest = header_.latest.load(std::memory_order_acquire);  // R1
        if (latest % 8 != 0 || tail % 8 != 0) throw CorruptRing("a position between two words");
        ++laps_;
        position_ = static_cast<std::int64_t>(latest - position_) > 0 ? latest : tail;
        publish();  // a writer that waits for readers may go by this one again
        return Read::lapped;
    }

    SegmentHeader<A>& header_;
    const std::byte* data_;
    const std::uint64_t capacity_;
    const std::uint32_t slot_;
    const bool writable_;
    const bool gated_;
    std::uint64_t position_ = 0;
    std::uint64_t still_from_ = 0;  // what lies before may be overwritten: the writer last looked at the slots before it saw us
    std::uint64_t released_ = ~0ull;
    std::uint64_t held_ = ~0ull;
    std::uint64_t held_seq_ = 0;
    std::uint64_t seq_ = 0;
    std::uint64_t lost_ = 0;
    std::uint64_t laps_ = 0;
    std::uint32_t size_bytes_ = 0;  // of the record that peek() gave
    std::vector<std::uint64_t> copy_;  // of a record before still_from_
    Patience patience_;
};

}  // namespace lob
