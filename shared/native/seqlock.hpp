// seqlock.hpp - the board: the newest top of every instrument, one slot each; the writer never waits.
//
// Invariant  an even stamp, the same before and after the copy  <=>  the copy is one state of the slot.
// Ordering   W1 stamp=odd relaxed, release fence   pairs with R2: a new word implies the odd stamp
//            W2 stamp=even release                 pairs with R1: the stamp implies the words
// Crash      a writer that died inside leaves an odd stamp; the next one repairs it by writing (begin() from an odd
//            stamp goes on to the next odd one, so no reader that saw the old one is fooled).
// Reader     bounded retries, then `busy`; whether the writer is alive is told by the segment's heartbeat.
// Not for    two writers.
#pragma once

#include <cstring>

#include "segment.hpp"

namespace lob {

// Head of a slot, then `depth` bids and `depth` asks, best first. Copied word by word.
struct BoardEntry {
    std::uint64_t updates;     // times this slot was written; 0: never used
    std::uint64_t last_seq;    // the venue's number of the book
    std::uint64_t ring_seq;    // the book-ring record that this state reflects
    std::int64_t exch_ns;
    std::int64_t recv_ns;
    std::int64_t origin_ns;
    std::int64_t updated_ns;   // CLOCK_MONOTONIC of this write
    std::uint32_t instrument;
    std::uint16_t version;
    std::uint8_t state;        // BookState
    std::uint8_t reason;       // Reason
    std::uint32_t session;
    std::uint16_t connection;
    std::uint8_t price_scale;
    std::uint8_t qty_scale;
    std::uint32_t bid_count;   // levels in this slot; the book may have more
    std::uint32_t ask_count;
    char symbol[64];
};
static_assert(sizeof(BoardEntry) == 144 && sizeof(BoardEntry) + 8 <= BOARD_SLOT_HEADER_BYTES);

template <class A = DefaultAtomics>
class Board {
public:
    explicit Board(Segment& segment) : segment_(segment), base_(segment.data()), slots_(segment.board_slots()), depth_(segment.board_depth()) {
        if (segment.kind() != Kind::board) throw std::invalid_argument("no board");
        stride_ = board_slot_bytes(depth_);
    }

    const Segment& segment() const { return segment_; }
    std::uint32_t slots() const { return slots_; }
    std::uint32_t depth() const { return depth_; }

    // Writes a whole slot. `bids` and `asks` hold entry.bid_count and entry.ask_count levels, at most depth().
    void write(std::uint32_t slot, const BoardEntry& entry, const Level* bids, const Level* asks) {
        auto& stamp = stamp_of(slot);
        const std::uint64_t before = stamp.load(std::memory_order_relaxed);
        stamp.store(before + 1 + (before & 1), std::memory_order_relaxed);  // W1
        A::fence(std::memory_order_release);                                // W1
        store(words_of(slot), &entry, sizeof entry);
        store(levels_of(slot, 0), bids, entry.bid_count * sizeof(Level));
        store(levels_of(slot, 1), asks, entry.ask_count * sizeof(Level));
        stamp.store(before + 2 + (before & 1), std::memory_order_release);  // W2
    }

    // Copies a slot; false if the writer was in it at every try. `levels` takes 2 * depth() of them.
    bool read(std::uint32_t slot, BoardEntry& entry, Level* levels) const {
        for (int attempt = 0; attempt < 1000; ++attempt) {
            const std::uint64_t before = stamp_of(slot).load(std::memory_order_acquire);  // R1
            if ((before & 1) != 0) continue;
            load(&entry, words_of(slot), sizeof entry);
            const std::uint32_t bids = entry.bid_count <= depth_ ? entry.bid_count : 0;
            const std::uint32_t asks = entry.ask_count <= depth_ ? entry.ask_count : 0;
            load(levels, levels_of(slot, 0), bids * sizeof(Level));
            load(levels + depth_, levels_of(slot, 1), asks * sizeof(Level));
            A::fence(std::memory_order_acquire);                                   // R2
            if (stamp_of(slot).load(std::memory_order_relaxed) == before) {        // R2
                entry.bid_count = bids;
                entry.ask_count = asks;
                return true;
            }
        }
        return false;
    }

private:
    typename A::template atomic<std::uint64_t>& stamp_of(std::uint32_t slot) const {
        return *reinterpret_cast<typename A::template atomic<std::uint64_t>*>(base_ + slot * stride_);
    }
    Word* words_of(std::uint32_t slot) const { return reinterpret_cast<Word*>(base_ + slot * stride_ + 8); }
    Word* levels_of(std::uint32_t slot, int side) const {
        return reinterpret_cast<Word*>(base_ + slot * stride_ + BOARD_SLOT_HEADER_BYTES + side * depth_ * sizeof(Level));
    }
    static void store(Word* to, const void* from, std::size_t size) {
        const auto* words = static_cast<const Word*>(from);
        for (std::size_t i = 0; i < size / 8; ++i) A::store_word(to + i, words[i]);
    }
    static void load(void* to, const Word* from, std::size_t size) {
        auto* words = static_cast<Word*>(to);
        for (std::size_t i = 0; i < size / 8; ++i) words[i] = A::load_word(from + i);
    }

    const Segment& segment_;
    std::byte* base_;
    std::uint32_t slots_;
    std::uint32_t depth_;
    std::uint64_t stride_;
};

}  // namespace lob
