// book.hpp - one instrument: two ladders, the number they stand at, and what a message changed in them.
//
// Knows nothing of states, rings or requests (books.hpp does).
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "backlog.hpp"
#include "checksum.hpp"
#include "diff.hpp"
#include "ladder.hpp"
#include "layout.hpp"
#include "sync.hpp"

namespace lob {

struct Counters {
    std::uint64_t snapshots = 0;          // applied
    std::uint64_t snapshots_ignored = 0;  // asked for, but the book was live or does not join by number
    std::uint64_t snapshots_old = 0;      // older than the first diff kept
    std::uint64_t updates = 0;            // diffs applied
    std::uint64_t level_updates = 0;      // levels in them
    std::uint64_t stale_dropped = 0;      // diffs that the book already held
    std::uint64_t dropped = 0;            // diffs that no book could take: no snapshot yet, or an old session
    std::uint64_t buffer_dropped = 0;     // diffs that fell out of a full backlog
    std::uint64_t gaps = 0;
    std::uint64_t resyncs = 0;   // times it became live again
    std::uint64_t requests = 0;  // for a snapshot
    std::uint64_t refused = 0;   // of those, refused or failed
    std::uint64_t checksums_ok = 0;
    std::uint64_t checksums_failed = 0;
    std::uint64_t crossed = 0;
    std::uint64_t out_of_range = 0;
    std::uint64_t oversize = 0;
    std::uint64_t levels_fallen = 0;  // beyond the bound of levels kept; not the venue's truncation
    std::uint64_t trades = 0;
    std::uint64_t venue_bbos = 0;
    std::uint64_t bad_records = 0;
};

// The best levels of one side as the board has them.
struct Top {
    std::vector<Level> levels;  // room for the board's depth
    std::uint32_t count = 0;
    std::int64_t floor = Ladder::KEY_MIN;  // rank of the last one: what is below does not concern the board
    bool moved = true;                     // since they were copied
};

struct Book {
    Book(std::uint32_t board_depth, std::uint32_t backlog_records, std::uint32_t backlog_bytes)
        : bids(Side::bid), asks(Side::ask), backlog(backlog_records, backlog_bytes) {
        for (Top* top : {&bid_top, &ask_top}) top->levels.resize(board_depth);
    }

    InstrumentBody facts{};
    std::uint32_t id = 0;
    std::uint16_t version = 0;
    std::uint16_t connection = NO_CONNECTION;
    std::uint32_t session = 0;

    BookState state = BookState::closed;  // until it is announced
    Reason reason = Reason::none;
    bool silenced = false;   // live but for the silence upstream
    bool has_lived = false;
    Ladder bids;
    Ladder asks;
    Sync sync;
    Backlog backlog;
    Diff bid_diff;
    Diff ask_diff;

    RecordHeader last{};  // of the last message applied: times and numbers for records that no message caused
    BboBody bbo{};        // as published last
    bool bbo_published = false;
    Top bid_top;
    Top ask_top;
    bool board_due = false;
    std::uint64_t board_updates = 0;

    std::uint64_t request_id = 0;  // the last one asked; 0: none is open
    std::int64_t request_due_ns = INT64_MAX;
    std::int64_t backoff_ns = 0;
    std::int64_t live_since_ns = 0;
    std::int64_t refresh_due_ns = INT64_MAX;
    Counters counters;

    SequenceRule rule() const { return static_cast<SequenceRule>(facts.rule); }
    bool joins() const { return facts.joins != 0; }
    bool crossed() const { return !bids.empty() && !asks.empty() && bids.best().price >= asks.best().price; }
    std::uint32_t levels() const { return bids.size() + asks.size(); }

    // Levels kept a side: the venue's window if it truncates, at most the bound given to us.
    std::uint32_t depth(std::uint32_t bound) const {
        return facts.truncates != 0 && facts.depth != 0 && facts.depth < bound ? facts.depth : bound;
    }

    void clear() {
        bids.clear();
        asks.clear();
        touch();
    }

    void replace(const BookBody& snapshot, const Level* levels, std::uint32_t bound) {
        bids.assign(levels, snapshot.bid_count);
        asks.assign(levels + snapshot.bid_count, snapshot.ask_count);
        const std::uint32_t keep = depth(bound);
        for (Ladder* side : {&bids, &asks}) side->truncate(keep, [&](Level) { count_cut(bound); });
        touch();
    }

    // Applies a diff; bid_diff and ask_diff tell what changed.
    void apply(const BookBody& diff, const Level* levels, std::uint32_t bound) {
        apply_side(bids, bid_diff, bid_top, levels, diff.bid_count, bound);
        apply_side(asks, ask_diff, ask_top, levels + diff.bid_count, diff.ask_count, bound);
        sync.applied(diff.last_seq);
        ++counters.updates;
        counters.level_updates += diff.bid_count + diff.ask_count;
    }

    // Whether the venue's checksum, if this message has one, is ours.
    bool verify(const BookBody& message) {
        if (message.has_checksum == 0 || facts.checksum_rule != static_cast<std::uint8_t>(ChecksumRule::kraken_crc32)) return true;
        const bool right = kraken_checksum(bids, asks) == message.checksum;
        ++(right ? counters.checksums_ok : counters.checksums_failed);
        return right;
    }

    // The best prices now.
    BboBody best() const {
        const Level bid = bids.best();
        const Level ask = asks.best();
        return {sync.last(), bid.price, bid.qty, ask.price, ask.qty};
    }

    // The board's copy of the best levels, brought up to date.
    void copy_tops() {
        copy_top(bids, bid_top);
        copy_top(asks, ask_top);
    }

    bool rescale(int price_exponent, int qty_exponent) {
        touch();
        return bids.rescale(price_exponent, qty_exponent) && asks.rescale(price_exponent, qty_exponent) &&
               backlog.rescale(price_exponent, qty_exponent, version);
    }

private:
    void touch() { bid_top.moved = ask_top.moved = board_due = true; }
    void count_cut(std::uint32_t bound) {
        if (facts.truncates == 0 || facts.depth == 0 || bound < facts.depth) ++counters.levels_fallen;
    }

    void apply_side(Ladder& side, Diff& diff, Top& top, const Level* levels, std::uint32_t count, std::uint32_t bound) {
        diff.begin();
        side.set_all(levels, count, [&](std::int64_t price, std::int64_t before, std::int64_t after) { diff.add(price, before, after); });
        const std::uint32_t keep = depth(bound);
        if (side.size() > keep)
            side.truncate(keep, [&](Level cut) {
                diff.add(cut.price, cut.qty, 0);
                count_cut(bound);
            });
        diff.settle();
        if (top.moved) return;
        for (const Change& change : diff.changes())
            if (side.rank(change.price) >= top.floor) {
                top.moved = board_due = true;
                return;
            }
    }

    static void copy_top(const Ladder& side, Top& top) {
        if (!top.moved) return;
        const auto depth = static_cast<std::uint32_t>(top.levels.size());
        top.count = side.top(depth, top.levels.data());
        top.floor = top.count == depth && depth > 0 ? side.rank(top.levels[depth - 1].price) : Ladder::KEY_MIN;
        top.moved = false;
    }
};

}  // namespace lob
