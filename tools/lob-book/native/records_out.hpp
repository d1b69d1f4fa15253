// records_out.hpp - what is said of a book: its records, built in the outbox.
//
// A record carries the numbers and times of the record that caused it; what nothing caused that just arrived (a refresh)
// carries those of the book's last message. Whether it is the moment to say it, books.hpp decides.
#pragma once

#include <cstdint>
#include <cstring>

#include "book.hpp"
#include "clock.hpp"
#include "outbox.hpp"

namespace lob {

class RecordsOut {
public:
    // `record_max_bytes`: of the ring that is written.
    explicit RecordsOut(std::uint64_t record_max_bytes) : record_max_bytes_(record_max_bytes) {}

    Outbox& box() { return box_; }
    // Rises with every instrument record.
    std::uint64_t announced() const { return announced_; }

    // Another record came in: what it makes is stamped anew.
    void begin() { stamp_mono_ns_ = 0; }

    void instrument(const Book& book, const RecordHeader* cause) {
        ++announced_;
        std::memcpy(static_cast<void*>(&add(RecordType::instrument, sizeof(InstrumentBody), book, cause) + 1), &book.facts,
                    sizeof book.facts);
    }
    void status(const Book& book, const RecordHeader* cause) {
        auto& body = *reinterpret_cast<StatusBody*>(&add(RecordType::status, sizeof(StatusBody), book, cause) + 1);
        body.last_seq = book.sync.last();
        body.state = static_cast<std::uint8_t>(book.state);
        body.reason = static_cast<std::uint8_t>(book.reason);
    }

    // False if the ring does not take so large a record.
    bool snapshot(const Book& book, const RecordHeader* cause, std::uint16_t flags) {
        const std::size_t body_bytes = sizeof(BookBody) + book.levels() * sizeof(Level);
        if (sizeof(RecordHeader) + body_bytes > record_max_bytes_) return false;
        RecordHeader& to = add(RecordType::snapshot, body_bytes, book, cause);
        to.flags = flags;
        auto& body = *reinterpret_cast<BookBody*>(&to + 1);
        body.first_seq = body.last_seq = book.sync.last();
        body.rule = book.facts.rule;
        body.scope = book.facts.scope;
        body.bid_count = book.bids.size();
        body.ask_count = book.asks.size();
        auto* levels = reinterpret_cast<Level*>(&body + 1);
        for (const Ladder* side : {&book.bids, &book.asks}) side->for_each([&](Level level) { *levels++ = level; });
        return true;
    }

    // What the diff `record` changed, and the best prices if they moved; nothing if nothing did. False as above.
    bool diff(Book& book, const RecordHeader& record, const BookBody& cause) {
        const auto& bids = book.bid_diff.changes();
        const auto& asks = book.ask_diff.changes();
        if (bids.empty() && asks.empty()) return true;
        const std::size_t body_bytes = sizeof(BookBody) + (bids.size() + asks.size()) * sizeof(Level);
        if (sizeof(RecordHeader) + body_bytes > record_max_bytes_) return false;
        RecordHeader& to = add(RecordType::diff, body_bytes, book, &record);
        to.flags = record.flags & FLAG_CONTINUED;
        auto& body = *reinterpret_cast<BookBody*>(&to + 1);
        body.first_seq = cause.first_seq;
        body.last_seq = cause.last_seq;
        body.prev_seq = cause.prev_seq;
        body.rule = cause.rule;
        body.scope = cause.scope;
        body.bid_count = static_cast<std::uint32_t>(bids.size());
        body.ask_count = static_cast<std::uint32_t>(asks.size());
        auto* levels = reinterpret_cast<Level*>(&body + 1);
        for (const auto* side : {&bids, &asks})
            for (const Change& change : *side) *levels++ = {change.price, change.after};
        bbo(book, &record);
        return true;
    }

    // If it moved.
    void bbo(Book& book, const RecordHeader* cause) {
        const BboBody best = book.best();
        if (book.bbo_published && best.bid_price == book.bbo.bid_price && best.bid_qty == book.bbo.bid_qty &&
            best.ask_price == book.bbo.ask_price && best.ask_qty == book.bbo.ask_qty)
            return;
        book.bbo = best;
        book.bbo_published = true;
        std::memcpy(static_cast<void*>(&add(RecordType::bbo, sizeof best, book, cause) + 1), &best, sizeof best);
    }

    // The record as it came, with our stamp.
    void pass_on(const RecordHeader& record) {
        RecordHeader& to = box_.add(record.size_bytes);
        const std::uint32_t size_bytes = to.size_bytes;
        std::memcpy(static_cast<void*>(&to), &record, record.size_bytes);
        to.size_bytes = size_bytes;
        to.stage_ns[2] = stamp(record.origin_ns);
    }

private:
    // `cause` null: nothing that just arrived made this record; its times are those of the book.
    RecordHeader& add(RecordType type, std::size_t body_bytes, const Book& book, const RecordHeader* cause) {
        RecordHeader& to = box_.add(static_cast<std::uint32_t>(sizeof(RecordHeader) + body_bytes));
        const RecordHeader& from = cause != nullptr ? *cause : book.last;
        to.type = static_cast<std::uint16_t>(type);
        to.raw_seq = from.raw_seq;
        to.exch_ns = from.exch_ns;
        to.recv_ns = from.recv_ns;
        to.origin_ns = from.origin_ns;
        to.instrument = book.id;
        to.version = book.version;
        to.connection = book.connection;
        to.session = book.session;
        if (cause != nullptr) {
            to.stage_ns[0] = from.stage_ns[0];
            to.stage_ns[1] = from.stage_ns[1];
            to.stage_ns[2] = stamp(from.origin_ns);
        }
        return to;
    }
    std::uint32_t stamp(std::int64_t origin_ns) {
        if (stamp_mono_ns_ == 0) stamp_mono_ns_ = mono_ns();
        return stage_stamp(origin_ns, stamp_mono_ns_);
    }

    const std::uint64_t record_max_bytes_;
    Outbox box_;
    std::uint64_t announced_ = 0;
    std::int64_t stamp_mono_ns_ = 0;
};

}  // namespace lob
