// pump.hpp - the books between their rings: reads events, writes book records, the board and requests.
//
// One input record at a time: fed once, its output copied into the ring, committed, then the record is released and
// the board written. If the ring is full the output waits in the outbox and the record stays unreleased; nothing is
// applied twice.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>

#include "books.hpp"
#include "broadcast.hpp"
#include "fixed_queue.hpp"
#include "seqlock.hpp"
#include "spsc.hpp"
#include "stint.hpp"
#include "trace.hpp"

namespace lob {

// Where "now" comes from: of the records (a replay, the same at each run) or of the host.
enum class Clock : std::uint8_t { records, host };

struct PumpResult {
    std::uint64_t records = 0;
    bool idle = false;     // nothing to read, in spite of waiting
    bool blocked = false;  // a reader has not made room
};

class Pump {
public:
    Pump(Books& books, SpscReader<>& reader, BroadcastWriter<>& writer, Board<>* board, RequestQueue<>* requests, Clock clock,
         WaitMode wait)
        : wait(wait), books_(books), reader_(reader), writer_(writer), board_(board), requests_(requests), clock_(clock) {
        epoch_ = reader_.epoch();
    }

    // Works for at most `stint_ms`, less when nothing comes for `idle_ms`, the ring is full, or a reader has asked for something.
    PumpResult run(int stint_ms, int idle_ms) {
        PumpResult result;
        Stint stint(stint_ms * MS);
        const auto beat = [&](std::int64_t now_ns) {
            if (board_ != nullptr) Stint::beat(*board_, now_ns);
            return Stint::beat(writer_, now_ns);
        };
        std::int64_t now_ns = host_now_ns();
        check_epoch(now_ns);
        bool waited = false;
        for (std::uint32_t turn = 1;; ++turn) {
            if (waited || stint.due(turn)) {
                if (stint.over(beat)) return result;
                now_ns = host_now_ns();
                waited = false;
            }
            stint.did(books_.out().size_bytes());  // of a refresh too
            if (!flush()) {
                reader_.publish();
                writer_.wait_free(books_.out().next()->size_bytes, wait, std::min(stint.left_ns(), BLOCKED_NS));
                if (flush()) continue;
                result.blocked = true;
                return result;
            }
            if (clock_ == Clock::host && books_.due_ns() <= now_ns && books_.tick(now_ns)) continue;
            const RecordHeader* record = reader_.peek();
            if (record == nullptr) {
                if (drain_requests(); idle(stint, idle_ms * MS, result)) return result;
                waited = true;
                continue;
            }
            if (clock_ == Clock::records) {
                now_ns = record->recv_ns;
                if (books_.due_ns() <= now_ns && books_.tick(now_ns)) continue;
            }
            trace_point(Point::book_update_start, record->raw_seq);
            books_.feed(*record, now_ns);
            fed_ = record;
            stint.did(record->size_bytes);
            ++result.records;
        }
    }

    void upstream_silent(bool silent) {
        const std::int64_t now_ns = host_now_ns();
        check_epoch(now_ns);
        if (silent == silent_ || !flush()) return;
        silent_ = silent;
        books_.upstream_silent(silent, now_ns);
        flush();
    }

    // Copies what is in the outbox into the ring; false if it is full.
    bool flush() {
        Outbox& out = books_.out();
        if (!out.empty()) {
            while (RecordHeader* record = out.next()) {
                if (!writer_.write(*record)) {
                    // More than the ring surely holds at once (pads count too): readers must see the first part to
                    // make room for the rest.
                    if (out.size_bytes() > writer_.capacity_bytes() / 2) writer_.commit();
                    return false;
                }
                measure(Stage::book, *record);
                out.sent();
            }
            trace_end();
            writer_.commit(fed_ != nullptr ? fed_->raw_seq : 0);
            out.clear();
        } else {
            trace_end();
        }
        if (fed_ != nullptr) {
            reader_.release(*fed_);
            fed_ = nullptr;
        }
        write_board();
        if (!books_.requests().empty()) drain_requests();
        return true;
    }

    // Slots of an owner before us: none is left in the middle of a write, none says that it is live.
    void repair_board() {
        if (board_ == nullptr) return;
        std::vector<Level> levels(2 * board_->depth());
        for (std::uint32_t slot = 0; slot < board_->slots(); ++slot) {
            BoardEntry entry{};
            if (!board_->read(slot, entry, levels.data())) {
                entry = {};
                entry.instrument = slot;
            } else if (entry.updates == 0) {
                continue;
            }
            ++entry.updates;
            entry.updated_ns = mono_ns();
            entry.state = static_cast<std::uint8_t>(BookState::stale);
            entry.reason = static_cast<std::uint8_t>(Reason::restarted);
            board_->write(slot, entry, levels.data(), levels.data() + board_->depth());
        }
    }

    std::uint64_t beyond_board() const { return beyond_board_; }

    WaitMode wait = WaitMode::automatic;

private:
    static constexpr std::int64_t MS = 1'000'000;
    static constexpr std::int64_t BLOCKED_NS = 20 * MS;

    void trace_end() const {
        if (fed_ != nullptr) trace_point(Point::book_update_end, fed_->raw_seq);
    }

    std::int64_t host_now_ns() const { return clock_ == Clock::host ? unix_ns() : books_.now_ns(); }

    void check_epoch(std::int64_t now_ns) {
        const std::uint64_t epoch = reader_.epoch();
        if (epoch == epoch_) return;
        epoch_ = epoch;
        // What the old owner left is still to be read; books that rest on it would be live for a moment without reason.
        if (flush()) books_.lose(now_ns);
    }

    // Waits for a record; true if none came and it is time to go back.
    bool idle(const Stint& stint, std::int64_t idle_ns, PumpResult& result) {
        std::int64_t wait_ns = std::min(stint.left_ns(), idle_ns);
        const bool until_due = clock_ == Clock::host && books_.due_ns() != INT64_MAX && books_.due_ns() - unix_ns() < wait_ns;
        if (until_due) wait_ns = books_.due_ns() - unix_ns();
        if (wait_ns > 0 && reader_.wait(wait, wait_ns)) return false;
        reader_.publish();
        if (until_due && stint.left_ns() > 0) return false;
        result.idle = true;
        return true;
    }

    void drain_requests() {
        auto& waiting = books_.requests();
        while (!waiting.empty()) {
            if (requests_ != nullptr && !requests_->try_enqueue(waiting.front())) return;  // full: at the next turn
            waiting.pop_front();
        }
    }

    void write_board() {
        if (board_ == nullptr) return books_.forget_board_due();
        books_.take_board_due([&](Book& book) {
            if (book.id >= board_->slots()) {
                beyond_board_ = std::max<std::uint64_t>(beyond_board_, book.id - board_->slots() + 1);
                return;
            }
            BoardEntry entry{};
            entry.updates = ++book.board_updates;
            entry.last_seq = book.sync.last();
            entry.ring_seq = writer_.next_seq() - 1;
            entry.exch_ns = book.last.exch_ns;
            entry.recv_ns = book.last.recv_ns;
            entry.origin_ns = book.last.origin_ns;
            entry.updated_ns = mono_ns();
            entry.instrument = book.id;
            entry.version = book.version;
            entry.state = static_cast<std::uint8_t>(book.state);
            entry.reason = static_cast<std::uint8_t>(book.reason);
            entry.session = book.session;
            entry.connection = book.connection;
            entry.price_scale = book.facts.price_scale;
            entry.qty_scale = book.facts.qty_scale;
            entry.bid_count = book.bid_top.count;
            entry.ask_count = book.ask_top.count;
            std::memcpy(entry.symbol, book.facts.symbol, sizeof entry.symbol);
            board_->write(book.id, entry, book.bid_top.levels.data(), book.ask_top.levels.data());
        });
    }

    Books& books_;
    SpscReader<>& reader_;
    BroadcastWriter<>& writer_;
    Board<>* board_;
    RequestQueue<>* requests_;
    const Clock clock_;
    const RecordHeader* fed_ = nullptr;  // applied, its output not yet in the ring
    std::uint64_t epoch_ = 0;
    std::uint64_t beyond_board_ = 0;
    bool silent_ = false;
};

}  // namespace lob
