// books.hpp - all books of one event ring: records in, records and requests out (sans-I/O).
//
//   building --snapshot--> live --gap, checksum, crossed, lost, link down--> stale --asked--> resyncing
//      ^                    ^                                                  |                  |
//      +--- new session     +--------------------- snapshot ------------------+------------------+
//
// Who calls: pump.hpp with the records of the ring, tests with bytes. Time comes from outside and never runs back.
// Order of what one record makes: states that end first (nobody acts on a book that is no longer true), then the
// record's own effect. A snapshot stands before the status that calls the book live.
// Bounds: a backlog of diffs an instrument. When snapshots are asked for: asker.hpp; what records go out: records_out.hpp.
#pragma once

#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <vector>

#include "asker.hpp"
#include "book.hpp"
#include "records_out.hpp"

namespace lob {

struct Settings {
    std::uint32_t depth = 65536;  // levels kept a side
    std::uint32_t board_depth = 20;
    std::int64_t refresh_ns = 10'000'000'000;  // 0: never
    Asking asking;
    std::uint32_t backlog_records = 10'000;
    std::uint32_t backlog_bytes = 4 << 20;
    std::uint64_t record_max_bytes = ~0ull;  // of the ring that is written
};

class Books {
public:
    static constexpr std::uint32_t INSTRUMENTS_MAX = 1u << 20;

    explicit Books(const Settings& settings)
        : settings_(settings), asker_(settings.asking), out_(settings.record_max_bytes) {}
    Books(const Books&) = delete;
    Books& operator=(const Books&) = delete;

    Outbox& out() { return out_.box(); }
    std::deque<Request>& requests() { return asker_.requests(); }
    const std::vector<std::unique_ptr<Book>>& books() const { return books_; }
    Book* find(std::uint32_t id) const { return id < books_.size() ? books_[id].get() : nullptr; }
    const Settings& settings() const { return settings_; }
    std::uint64_t holes() const { return holes_; }
    std::uint64_t records_of_unknown() const { return unknown_; }
    std::int64_t now_ns() const { return now_ns_; }

    // Calls with each book whose board entry is out of date.
    template <class Call>
    void take_board_due(Call&& call) {
        for (const std::uint32_t id : board_due_) {
            Book& book = *books_[id];
            if (!book.board_due) continue;
            book.copy_tops();
            book.board_due = false;
            call(book);
        }
        board_due_.clear();
    }

    // There is no board: nor are the best levels collected.
    void forget_board_due() {
        for (const std::uint32_t id : board_due_) books_[id]->board_due = false;
        board_due_.clear();
    }

    void feed(const RecordHeader& record, std::int64_t now_ns) {
        begin(now_ns);
        check_ring(record);
        switch (static_cast<RecordType>(record.type)) {
            case RecordType::diff: on_diff(record); break;
            case RecordType::trade: on_trade(record); break;
            case RecordType::bbo: on_venue_bbo(record); break;
            case RecordType::sequence: on_sequence(record); break;
            case RecordType::snapshot: on_snapshot(record); break;
            case RecordType::instrument: on_instrument(record); break;
            case RecordType::status: on_status(record); break;
            case RecordType::link: on_link(record); break;
            case RecordType::lost: on_lost(record); break;
            case RecordType::answer: on_answer(record); break;
            default: ++unknown_; break;
        }
        ask_due();
    }

    // Does one thing whose time has come; false if there is none.
    bool tick(std::int64_t now_ns) {
        begin(now_ns);
        const std::uint64_t before_bytes = out().size_bytes();
        ask_due();
        return out().size_bytes() != before_bytes || refresh_due();
    }
    // When tick() has something to do next.
    std::int64_t due_ns() const { return std::min(asker_.due_ns(), next_refresh_ns_); }

    // The writer upstream gives no sign of life, or gives one again.
    void upstream_silent(bool silent, std::int64_t now_ns) {
        begin(now_ns);
        for (auto& book : books_)
            if (book) silent ? silence(*book, nullptr) : wake(*book, nullptr);
    }
    // Another owner of the ring: what we hold is suspect.
    void lose(std::int64_t now_ns) {
        begin(now_ns);
        lose_all();
        ask_due();
    }
    // Another ring: its numbers, sessions and epochs have nothing to do with those of before.
    void upstream_changed(std::int64_t now_ns) {
        begin(now_ns);
        lose_all();
        connections_.clear();
        ring_seq_ = 0;
        epoch_ = 0;
        ask_due();
    }

    // A book that an owner before us kept, as its instrument record: published as stale, then built anew.
    void restore(const RecordHeader& record, std::int64_t now_ns) {
        begin(now_ns);
        const auto* facts = body_of<InstrumentBody>(record);
        if (facts == nullptr || record.instrument >= INSTRUMENTS_MAX) return;
        Book& book = make(record.instrument);
        book.facts = *facts;
        book.version = record.version;
        book.connection = record.connection;
        out_.instrument(book, nullptr);
        set_state(book, BookState::stale, Reason::restarted);
        set_state(book, BookState::building, Reason::restarted);
        asker_.want(book, now_ns_);
    }

    // Somebody downstream wants to be whole: the full snapshot once more. False if there is no such live book.
    bool refresh(const char* symbol, std::int64_t now_ns) {
        begin(now_ns);
        bool found = false;
        for (auto& book : books_) {
            if (!book || book->state != BookState::live || std::strncmp(book->facts.symbol, symbol, sizeof book->facts.symbol) != 0)
                continue;
            found = out_.snapshot(*book, nullptr, FLAG_REFRESH);
        }
        return found;
    }

    // Rises with every instrument record that went out.
    std::uint64_t announced() const { return out_.announced(); }

private:
    struct Connection {
        bool known = false;
        bool down = false;
        std::uint32_t session = 0;
        ConnectionSync sync;
    };
    static constexpr std::int64_t NEVER = INT64_MAX;

    void begin(std::int64_t now_ns) {
        if (now_ns > now_ns_) now_ns_ = now_ns;
        out_.begin();
    }

    // -- records ------------------------------------------------------------------------------------------------

    void on_instrument(const RecordHeader& record) {
        const auto* body = body_of<InstrumentBody>(record);
        if (body == nullptr || record.instrument >= INSTRUMENTS_MAX) return bad(record);
        Book* book = find(record.instrument);
        if (book == nullptr || std::memcmp(book->facts.symbol, body->symbol, sizeof body->symbol) != 0) {
            book = &make(record.instrument);
            book->facts = *body;
            book->version = record.version;
            associate(*book, record);
            out_.instrument(*book, &record);
            set_state(*book, BookState::building, Reason::none, &record);
            if (book->joins()) asker_.want(*book, now_ns_);
            return;
        }
        const int price_exponent = body->price_scale - book->facts.price_scale;
        const int qty_exponent = body->qty_scale - book->facts.qty_scale;
        book->facts = *body;
        book->version = record.version;
        associate(*book, record);
        out_.instrument(*book, &record);
        mark_board(*book);
        if (book->state == BookState::closed) {
            book->clear();
            set_state(*book, BookState::building, Reason::none, &record);
            if (book->joins()) asker_.want(*book, now_ns_);
        }
        if (price_exponent == 0 && qty_exponent == 0) return;
        if (!book->rescale(price_exponent, qty_exponent)) {
            book->clear();
            book->backlog.clear();
            ++book->counters.out_of_range;
            make_stale(*book, Reason::out_of_range, &record);
            return;
        }
        if (book->bbo_published) {
            const std::uint64_t last_seq = book->bbo.last_seq;
            book->bbo = book->best();
            book->bbo.last_seq = last_seq;
        }
        // Readers that do not rescale for themselves are whole again at once.
        if (book->state == BookState::live && !out_.snapshot(*book, &record, FLAG_REFRESH))
            make_oversize(*book, &record);
    }

    void on_snapshot(const RecordHeader& record) {
        const auto* body = book_body(record);
        Book* book = known(record);
        if (book == nullptr) return;
        if (body == nullptr) return bad(record);
        if (!right_version(*book, record)) return;
        if ((record.flags & FLAG_ASKED) != 0) {
            wake(*book, &record);
            return join(*book, record, *body);
        }
        if (!of_current_session(record)) {
            ++book->counters.dropped;
            return;
        }
        check_connection(record, body->scope, body->last_seq);
        associate(*book, record);
        book->backlog.clear();
        if (replace(*book, record, *body, false)) go_live(*book, &record, 0);
    }

    // A snapshot that came by REST: used if the diffs kept since go on from it without a hole.
    void join(Book& book, const RecordHeader& record, const BookBody& body) {
        const bool of_use = book.state != BookState::live && book.state != BookState::closed && book.joins();
        if (!of_use || connection_down(book.connection)) {
            ++book.counters.snapshots_ignored;
            return;
        }
        if (!bridges(book, body.last_seq)) {
            ++book.counters.snapshots_old;
            set_state(book, book.state, Reason::snapshot_old, &record);
            asker_.again(book, now_ns_);
            return;
        }
        if (!replace(book, record, body, true)) return;
        bool right = true;
        book.backlog.for_each([&](const RecordHeader& kept) {
            const auto& diff = *reinterpret_cast<const BookBody*>(&kept + 1);
            if (of_instrument(diff) && judge(book, diff) == Verdict::stale) {
                ++book.counters.stale_dropped;
                return true;
            }
            right = apply(book, kept, diff, &record);
            return right;
        });
        book.backlog.clear();
        if (right) go_live(book, &record, 0);
    }

    bool bridges(const Book& book, std::uint64_t snapshot_seq) const {
        Sync sync;
        sync.start(snapshot_seq, true);
        bool whole = true;
        book.backlog.for_each([&](const RecordHeader& kept) {
            const auto& diff = *reinterpret_cast<const BookBody*>(&kept + 1);
            if (!of_instrument(diff)) return true;
            const Verdict verdict =
                sync.judge(static_cast<SequenceRule>(diff.rule), diff.first_seq, diff.last_seq, diff.prev_seq);
            if (verdict == Verdict::apply) sync.applied(diff.last_seq);
            whole = verdict != Verdict::gap;
            return whole;
        });
        return whole;
    }

    // False if the venue's snapshot contradicts itself.
    bool replace(Book& book, const RecordHeader& record, const BookBody& body, bool joins) {
        book.replace(body, reinterpret_cast<const Level*>(&body + 1), settings_.depth);
        book.sync.start(body.last_seq, joins);
        book.last = record;
        ++book.counters.snapshots;
        mark_board(book);
        return consistent(book, body, &record);
    }

    void on_diff(const RecordHeader& record) {
        Book* book = known(record);
        if (book == nullptr) return;
        const auto* body = book_body(record);
        if (body == nullptr) return bad(record);
        if (!right_version(*book, record)) return;
        if (!of_current_session(record)) {
            ++book->counters.dropped;
            return;
        }
        check_connection(record, body->scope, body->last_seq);
        associate(*book, record);
        wake(*book, &record);
        if (book->state == BookState::live) {
            const Verdict verdict = of_instrument(*body) ? judge(*book, *body) : Verdict::apply;
            if (verdict == Verdict::stale) {
                ++book->counters.stale_dropped;
                return;
            }
            if (verdict == Verdict::apply) {
                if (apply(*book, record, *body, &record) && !out_.diff(*book, record, *body)) make_oversize(*book, &record);
                return;
            }
            ++book->counters.gaps;
            make_stale(*book, Reason::gap, &record);
        }
        if (book->joins() && book->state != BookState::closed)
            book->counters.buffer_dropped += book->backlog.push(record);
        else
            ++book->counters.dropped;
    }

    // False if the book is wrong after it; it is stale then. `cause`: the record whose effect this is.
    bool apply(Book& book, const RecordHeader& record, const BookBody& body, const RecordHeader* cause) {
        book.apply(body, reinterpret_cast<const Level*>(&body + 1), settings_.depth);
        book.last = record;
        if (book.board_due) mark_board(book);
        return consistent(book, body, cause);
    }

    bool consistent(Book& book, const BookBody& body, const RecordHeader* cause) {
        if (!book.verify(body)) {
            make_stale(book, Reason::checksum, cause);
            return false;
        }
        if (book.crossed()) {
            ++book.counters.crossed;
            make_stale(book, Reason::crossed, cause);
            return false;
        }
        return true;
    }

    void on_trade(const RecordHeader& record) {
        Book* book = known(record);
        if (book == nullptr) return;
        if (body_of<TradeBody>(record) == nullptr) return bad(record);
        if (!of_current_session(record) || !right_version(*book, record)) return;
        ++book->counters.trades;
        out_.pass_on(record);
    }

    void on_venue_bbo(const RecordHeader& record) {
        if (Book* book = known(record); book != nullptr && of_current_session(record)) ++book->counters.venue_bbos;
    }

    void on_sequence(const RecordHeader& record) {
        const auto* body = body_of<SequenceBody>(record);
        if (body == nullptr) return bad(record);
        if (of_current_session(record)) check_connection(record, body->scope, body->seq);
    }

    // The parser's word: its own input is silent or no longer so (no instrument), an instrument is gone, or a message
    // that names it could not be read.
    void on_status(const RecordHeader& record) {
        const auto* body = body_of<StatusBody>(record);
        if (body == nullptr) return bad(record);
        const auto reason = static_cast<Reason>(body->reason);
        if (record.instrument == NO_INSTRUMENT) {
            const bool silent = body->state == static_cast<std::uint8_t>(BookState::stale);
            for (auto& book : books_)
                if (book) silent ? silence(*book, &record) : wake(*book, &record);
            return;
        }
        Book* book = known(record);
        if (book == nullptr) return;
        if (body->state == static_cast<std::uint8_t>(BookState::closed))
            set_state(*book, BookState::closed, reason, &record);
        else if (body->state == static_cast<std::uint8_t>(BookState::stale))
            make_stale(*book, reason, &record);
    }

    void on_link(const RecordHeader& record) {
        const auto* body = body_of<LinkBody>(record);
        if (body == nullptr) return bad(record);
        if (record.connection == NO_CONNECTION || !of_current_session(record)) return;
        connection(record.connection).down = body->up == 0;
        for (auto& book : books_) {
            if (!book || book->connection != record.connection) continue;
            if (body->up == 0)
                make_stale(*book, Reason::link_down, &record);
            else if (book->joins() && book->state != BookState::live && book->state != BookState::closed)
                asker_.want(*book, now_ns_);
        }
    }

    void on_lost(const RecordHeader& record) {
        const auto* body = body_of<LostBody>(record);
        if (body == nullptr) return bad(record);
        const auto scope = static_cast<Scope>(body->scope);
        const Reason reason = body->reason == 0 ? Reason::lost : static_cast<Reason>(body->reason);
        for (auto& book : books_) {
            if (!book) continue;
            if (scope == Scope::instrument && book->id != record.instrument) continue;
            if (scope == Scope::connection && book->connection != record.connection) continue;
            book->backlog.clear();
            make_stale(*book, reason, &record);
        }
        for (std::size_t id = 0; id < connections_.size(); ++id)
            if (scope == Scope::all || (scope == Scope::connection && id == record.connection)) connections_[id].sync.restart();
    }

    void on_answer(const RecordHeader& record) {
        const auto* body = body_of<AnswerBody>(record);
        if (body == nullptr) return bad(record);
        if (body->outcome == static_cast<std::uint8_t>(Outcome::done)) return;
        for (auto& book : books_) {
            if (!book || !asker_.refused(*book, body->request_id)) continue;
            if (book->state == BookState::resyncing) set_state(*book, BookState::stale, book->reason, &record);
        }
    }

    // -- what a record must pass --------------------------------------------------------------------------------

    // A hole in the ring's numbers or a new owner of it: all books are suspect before anything else happens.
    void check_ring(const RecordHeader& record) {
        if (record.ring_seq == 0) return;
        const bool other_owner = epoch_ != 0 && record.epoch != epoch_;
        const bool hole = ring_seq_ != 0 && record.ring_seq != ring_seq_ + 1;
        if (hole) ++holes_;
        if (hole || other_owner) lose_all();
        if (other_owner) connections_.clear();
        ring_seq_ = record.ring_seq;
        epoch_ = record.epoch;
    }
    void lose_all() {
        for (auto& book : books_) {
            if (!book) continue;
            book->backlog.clear();
            make_stale(*book, Reason::lost);
        }
        for (Connection& connection : connections_) connection.sync.restart();
    }

    template <class Body>
    static const Body* body_of(const RecordHeader& record) {
        if (record.size_bytes < sizeof(RecordHeader) + sizeof(Body)) return nullptr;
        return reinterpret_cast<const Body*>(&record + 1);
    }
    static const BookBody* book_body(const RecordHeader& record) {
        const auto* body = body_of<BookBody>(record);
        if (body == nullptr) return nullptr;
        const std::uint64_t levels = std::uint64_t{body->bid_count} + body->ask_count;
        return sizeof(RecordHeader) + sizeof(BookBody) + levels * sizeof(Level) <= record.size_bytes ? body : nullptr;
    }
    static bool of_instrument(const BookBody& body) { return body.scope == static_cast<std::uint8_t>(Scope::instrument); }
    static Verdict judge(const Book& book, const BookBody& body) {
        return book.sync.judge(static_cast<SequenceRule>(body.rule), body.first_seq, body.last_seq, body.prev_seq);
    }

    Book* known(const RecordHeader& record) {
        Book* book = find(record.instrument);
        if (book == nullptr) ++unknown_;
        return book;
    }
    void bad(const RecordHeader& record) {
        Book* book = find(record.instrument);
        if (book == nullptr) {
            ++unknown_;
            return;
        }
        ++book->counters.bad_records;
        make_stale(*book, Reason::bad_message, &record);
    }
    // A version that its instrument's record has not announced would be read with the wrong scale.
    bool right_version(Book& book, const RecordHeader& record) {
        if (record.version == book.version) return true;
        bad(record);
        return false;
    }

    // False: a record of a session that is over. A later session than the one known voids its books first.
    bool of_current_session(const RecordHeader& record) {
        if (record.connection == NO_CONNECTION) return true;
        Connection& known = connection(record.connection);
        if (!known.known) {
            known.known = true;
            known.session = record.session;
            return true;
        }
        if (record.session <= known.session) return record.session == known.session;
        known.session = record.session;
        known.down = false;
        known.sync.restart();
        for (auto& book : books_) {
            if (!book || book->connection != record.connection || book->state == BookState::closed) continue;
            book->clear();
            book->backlog.clear();
            book->sync.start(0, false);
            book->silenced = false;
            asker_.forget(*book);
            set_state(*book, BookState::building, Reason::session, &record);
            if (book->joins()) asker_.want(*book, now_ns_);
        }
        return true;
    }

    // The connection's own numbers: a gap in them makes all its books stale, before the record itself takes effect.
    void check_connection(const RecordHeader& record, std::uint8_t scope, std::uint64_t seq) {
        if (scope != static_cast<std::uint8_t>(Scope::connection) || record.connection == NO_CONNECTION) return;
        if (connection(record.connection).sync.judge(seq, record.raw_seq) == Verdict::apply) return;
        for (auto& book : books_) {
            if (!book || book->connection != record.connection) continue;
            book->backlog.clear();
            if (book->state == BookState::live || book->silenced) ++book->counters.gaps;
            make_stale(*book, Reason::gap, &record);
        }
    }

    Connection& connection(std::uint16_t id) {
        if (id >= connections_.size()) connections_.resize(id + 1u);
        return connections_[id];
    }
    bool connection_down(std::uint16_t id) const { return id < connections_.size() && connections_[id].down; }

    void associate(Book& book, const RecordHeader& record) {
        if (record.connection == NO_CONNECTION) return;
        book.connection = record.connection;
        book.session = record.session;
    }

    Book& make(std::uint32_t id) {
        if (id >= books_.size()) books_.resize(id + 1u);
        books_[id] = std::make_unique<Book>(settings_.board_depth, settings_.backlog_records, settings_.backlog_bytes);
        books_[id]->id = id;
        asker_.forget(*books_[id]);
        return *books_[id];
    }

    // -- states -------------------------------------------------------------------------------------------------

    void set_state(Book& book, BookState state, Reason reason, const RecordHeader* cause = nullptr) {
        if (book.state == state && book.reason == reason) return;
        book.state = state;
        book.reason = reason;
        if (state != BookState::live) book.refresh_due_ns = NEVER;
        if (state == BookState::closed) asker_.withdraw(book);
        out_.status(book, cause);
        mark_board(book);
    }

    // The book is kept as it is: should nothing have been missed, it is good again without a snapshot. A message for
    // it is a sign of life too.
    void silence(Book& book, const RecordHeader* cause) {
        if (book.state != BookState::live) return;
        set_state(book, BookState::stale, Reason::upstream_silent, cause);
        book.silenced = true;
    }
    void wake(Book& book, const RecordHeader* cause) {
        if (book.silenced) go_live(book, cause, FLAG_REFRESH);
    }

    void make_stale(Book& book, Reason reason, const RecordHeader* cause = nullptr, bool asks = true) {
        if (book.state == BookState::closed) return;
        const bool was_live = book.state == BookState::live;
        book.silenced = false;
        set_state(book, BookState::stale, reason, cause);
        if (!asks || connection_down(book.connection)) return asker_.withdraw(book);
        if (was_live) asker_.want_after(book, reason, now_ns_);
        else asker_.want(book, now_ns_);
    }
    void make_oversize(Book& book, const RecordHeader* cause) {
        ++book.counters.oversize;
        make_stale(book, Reason::oversize, cause, false);
    }

    // The book is whole: say so, after everything that a reader needs to be whole too.
    void go_live(Book& book, const RecordHeader* cause, std::uint16_t flags) {
        if (!out_.snapshot(book, cause, flags)) return make_oversize(book, cause);
        book.silenced = false;
        if (book.state != BookState::live) {
            if (book.has_lived) ++book.counters.resyncs;
            book.has_lived = true;
            book.live_since_ns = now_ns_;
            set_state(book, BookState::live, Reason::none, cause);
            schedule_refresh(book);
        }
        asker_.settled(book);
        out_.bbo(book, cause);
    }

    void ask_due() {
        asker_.ask_due(books_, now_ns_, [&](Book& book) {
            if (book.state == BookState::stale) set_state(book, BookState::resyncing, book.reason);
        });
    }

    // -- refresh ------------------------------------------------------------------------------------------------

    // Spread over the interval by the id, so that a thousand books do not all speak at once.
    void schedule_refresh(Book& book) {
        if (settings_.refresh_ns == 0) return;
        const std::uint32_t phase = book.id * 0x9E3779B9u;
        const auto offset_ns = static_cast<std::int64_t>(
            static_cast<unsigned __int128>(settings_.refresh_ns) * phase >> 32);
        const std::int64_t turn_ns = now_ns_ - now_ns_ % settings_.refresh_ns + offset_ns;
        book.refresh_due_ns = turn_ns > now_ns_ ? turn_ns : turn_ns + settings_.refresh_ns;
        next_refresh_ns_ = std::min(next_refresh_ns_, book.refresh_due_ns);
    }

    bool refresh_due() {
        if (next_refresh_ns_ > now_ns_) return false;
        next_refresh_ns_ = NEVER;
        bool done = false;
        for (auto& book : books_) {
            if (!book || book->state != BookState::live || book->refresh_due_ns == NEVER) continue;
            if (!done && book->refresh_due_ns <= now_ns_) {
                done = true;
                book->refresh_due_ns = NEVER;
                if (!out_.snapshot(*book, nullptr, FLAG_REFRESH)) {
                    make_oversize(*book, nullptr);
                    continue;
                }
                schedule_refresh(*book);
            }
            next_refresh_ns_ = std::min(next_refresh_ns_, book->refresh_due_ns);
        }
        return done;
    }

    void mark_board(Book& book) {
        book.board_due = true;
        board_due_.push_back(book.id);
    }

    const Settings settings_;
    std::vector<std::unique_ptr<Book>> books_;
    std::vector<Connection> connections_;
    Asker asker_;
    RecordsOut out_;
    std::vector<std::uint32_t> board_due_;
    std::uint64_t ring_seq_ = 0;  // of the last record; 0: none yet
    std::uint32_t epoch_ = 0;
    std::uint64_t holes_ = 0;
    std::uint64_t unknown_ = 0;
    std::int64_t now_ns_ = 0;
    std::int64_t next_refresh_ns_ = NEVER;
};

}  // namespace lob
