// drain.hpp - the next records of a ring into arrays, one array for each type that is wanted.
//
// A row is what has a fixed size in a record: header and body; of a snapshot too, without its levels. A row of type 0 is
// the header of any record. Records of no wanted type are passed over.
//
// A batch holds nothing that its reader would have to cut up again: it ends before a hole in ring_seq and before another
// epoch, so whatever is missing is missing before its first row. It ends before a record that has no room, so nothing is
// passed over that was wanted.
#pragma once

#include <cstring>
#include <span>
#include <string>

#include "broadcast.hpp"
#include "spsc.hpp"

namespace lob {

inline constexpr std::uint16_t ANY_TYPE = 0;  // of rows; no record has it: it is the pad's
inline constexpr std::uint64_t DRAIN_MAX = 1 << 16;  // records a batch, wanted or not: some 0.5 ms

// Bytes of a row; 0: there are no rows of this type.
constexpr std::size_t row_bytes(std::uint16_t type) {
    switch (static_cast<RecordType>(type)) {
        case RecordType::pad: return sizeof(RecordHeader);
        case RecordType::lost: return sizeof(RecordHeader) + sizeof(LostBody);
        case RecordType::answer: return sizeof(RecordHeader) + sizeof(AnswerBody);
        case RecordType::snapshot: return sizeof(RecordHeader) + sizeof(BookBody);
        case RecordType::trade: return sizeof(RecordHeader) + sizeof(TradeBody);
        case RecordType::bbo: return sizeof(RecordHeader) + sizeof(BboBody);
        case RecordType::sequence: return sizeof(RecordHeader) + sizeof(SequenceBody);
        case RecordType::instrument: return sizeof(RecordHeader) + sizeof(InstrumentBody);
        case RecordType::status: return sizeof(RecordHeader) + sizeof(StatusBody);
        default: return 0;
    }
}

// An array of rows; `to` need not be aligned. Rows from `count` on hold nothing that means anything.
struct Rows {
    std::uint16_t type;
    std::byte* to;
    std::size_t row_bytes;
    std::size_t room;
    std::size_t count = 0;

    bool takes(std::uint16_t its_type) const { return type == its_type || type == ANY_TYPE; }
};

namespace detail {

template <class A>
Read visit(BroadcastReader<A>& reader, auto&& copy) {
    return reader.read_by(copy);
}
template <class A>
Read visit(SpscReader<A>& reader, auto&& copy) {
    const RecordHeader* record = reader.peek();
    if (record == nullptr) return Read::empty;
    const auto* words = reinterpret_cast<const Word*>(record);
    if (!copy(words, words[0], RecordWord::of(words[0]), record->ring_seq)) return Read::kept;
    reader.release(*record);
    return Read::ok;
}

}  // namespace detail

struct Batch {
    std::uint64_t passed = 0;  // records, wanted or not; 0: there is none, or no room for the next
    std::uint32_t epoch = 0;   // theirs
};

// One batch; the writer is told.
template <class Reader>
Batch drain(Reader& reader, std::span<Rows> wanted) {
    constexpr std::size_t EPOCH_WORD = 7;
    static_assert(offsetof(RecordHeader, epoch) == 8 * EPOCH_WORD + 4);
    Batch batch;
    std::uint64_t last_seq = 0, its_seq = 0;
    std::uint32_t its_epoch = 0;
    std::uint16_t its_type = 0;
    const auto copy = [&](const Word* from, std::uint64_t first, RecordWord record, std::uint64_t seq) {
        its_seq = seq;
        its_epoch = static_cast<std::uint32_t>(DefaultAtomics::load_word(from + EPOCH_WORD) >> 32);
        its_type = static_cast<std::uint16_t>(record.type);
        if (batch.passed != 0 && (its_seq != last_seq + 1 || its_epoch != batch.epoch)) return false;
        for (const Rows& rows : wanted) {
            if (!rows.takes(its_type)) continue;
            if (rows.count == rows.room) return false;
            if (record.size_bytes < rows.row_bytes)
                throw CorruptRing("a record of type " + std::to_string(its_type) + " of " + std::to_string(record.size_bytes) + " bytes");
            std::byte* to = rows.to + rows.count * rows.row_bytes;
            std::memcpy(to, &first, 8);
            for (std::size_t at = 8; at < rows.row_bytes; at += 8) {
                const std::uint64_t word = DefaultAtomics::load_word(from + at / 8);
                std::memcpy(to + at, &word, 8);
            }
        }
        return true;
    };
    for (int laps = 0; batch.passed < DRAIN_MAX && laps < 2;) {
        const Read result = detail::visit(reader, copy);
        if (result == Read::lapped) {
            ++laps;
            continue;
        }
        if (result != Read::ok) break;
        ++batch.passed;
        last_seq = its_seq;
        batch.epoch = its_epoch;
        for (Rows& rows : wanted)
            if (rows.takes(its_type)) ++rows.count;  // not before the copy is known to be whole
    }
    reader.publish();
    return batch;
}

}  // namespace lob
