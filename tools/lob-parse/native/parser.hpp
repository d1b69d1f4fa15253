// parser.hpp - raw records -> events.
//
// One raw record is one transaction: its events become visible by one commit that carries its ring sequence, or
// nothing of it has happened. If the ring is full, the claims and the changes of instruments are taken back and the
// record, still unreleased, is done again later. What venues do differently comes in as a Plan and as Facts; what is
// rare and needs the venue's Python code goes through Hooks.
#pragma once

#include <array>
#include <bitset>
#include <optional>
#include <string>
#include <vector>

#include "clock.hpp"
#include "decode.hpp"
#include "instruments.hpp"
#include "spsc.hpp"
#include "stint.hpp"
#include "trace.hpp"

namespace lob::parse {

struct Facts {
    SequenceRule rule = SequenceRule::none;
    Scope scope = Scope::instrument;
    ChecksumRule checksum = ChecksumRule::none;
    bool truncates = false;
    bool joins = false;  // the snapshot comes by REST

    // The checksum is over the digits as shown, so the scale must be that of the wire, trailing zeros included.
    bool as_shown() const { return checksum != ChecksumRule::none; }
};

struct Subscribed {
    std::string symbol;
    std::uint32_t depth = 0;
};
struct SymbolSteps {
    std::string symbol;
    Steps steps;
};
struct HttpMeaning {
    enum class Kind { nothing, snapshot, metadata } kind = Kind::nothing;
    std::string symbol;
};

// The venue's Python code; each call takes the GIL.
struct Hooks {
    virtual ~Hooks() = default;
    virtual std::vector<Subscribed> sent(std::string_view text) = 0;
    virtual std::vector<Subscribed> opened(std::string_view url) = 0;
    // A frame that the shape does not know. False: the venue's code does not know it either.
    virtual bool control(std::string_view frame, std::vector<Subscribed>& books) = 0;
    virtual HttpMeaning http(std::string_view url) = 0;
    virtual std::vector<SymbolSteps> metadata(std::string_view body) = 0;
    // Instruments were added or changed; called before the commit that tells the reader so.
    virtual void instruments_changed(std::uint64_t raw_seq) = 0;
};

enum class Count : std::uint8_t {
    frames,
    messages,
    levels,
    events,
    bad_json,
    bad_number,
    bad_time,
    bad_field,
    bad_symbol,
    out_of_range,
    oversize,
    unknown_frame,
    unknown_symbol,
    unknown_record,
    holes,
    retries,
    kinds,
};
inline constexpr std::array<const char*, static_cast<std::size_t>(Count::kinds)> COUNT_NAMES = {
    "frames",       "messages", "levels",        "events",         "bad_json",       "bad_number", "bad_time", "bad_field", "bad_symbol",
    "out_of_range", "oversize", "unknown_frame", "unknown_symbol", "unknown_record", "holes",      "retries"};
using Counts = std::array<std::uint64_t, static_cast<std::size_t>(Count::kinds)>;

class Parser {
public:
    using Reader = SpscReader<>;
    using Writer = SpscWriter<>;

    Parser(Plan stream, std::optional<Plan> rest, Facts facts, Hooks& hooks)
        : stream_(std::move(stream)), rest_(std::move(rest)), facts_(facts), hooks_(hooks) {}

    // Records up to `raw_seq` are in the output already; 0: nothing is.
    void resume(std::uint64_t raw_seq) { seen_seq_ = raw_seq; }
    // The input is another ring now: nothing is known of what came between.
    void replaced() {
        seen_seq_ = 0;
        epoch_ = 0;
        announce_loss_ = true;
        instruments_.forget_raw_seqs();
    }

    // Works until the input is empty for `idle_ns`, `stint_ns` have passed or the reader has asked for something;
    // returns records done.
    std::uint64_t run(Reader& reader, Writer& writer, WaitMode mode, std::int64_t stint_ns, std::int64_t idle_ns) {
        std::uint64_t done = 0;
        Stint stint(stint_ns);
        const auto beat = [&](std::int64_t now_ns) { return Stint::beat(writer, now_ns); };
        bool waited = false;
        for (std::uint32_t turn = 1;; ++turn) {
            if ((waited || stint.due(turn)) && stint.over(beat)) break;
            waited = false;
            const RecordHeader* raw = reader.peek();
            if (raw == nullptr) {
                const std::int64_t left_ns = std::min(idle_ns, stint.left_ns());
                if (left_ns <= 0 || !reader.wait(mode, left_ns)) break;
                waited = true;
                continue;
            }
            if (!record(*raw, writer)) {
                const std::int64_t left_ns = stint.left_ns();
                if (left_ns <= 0) break;
                // wait_free wants twice the room (pads); more than the whole ring can never be had.
                writer.wait_free(std::min(wanted_bytes_, writer.capacity_bytes() / 2), mode, std::min<std::int64_t>(left_ns, 5'000'000));
                waited = true;
                continue;
            }
            stint.did(raw->size_bytes);
            reader.release(*raw);
            ++done;
        }
        reader.publish();
        return done;
    }

    // Turns one raw record into events and commits them; false: the ring is full, nothing has happened.
    bool record(const RecordHeader& raw, Writer& writer) {
        if (seen_seq_ != 0 && raw.ring_seq <= seen_seq_) return true;
        trace_point(Point::parse_start, raw.ring_seq);
        raw_ = &raw;
        out_ = &writer;
        pending_ = {};
        claims_.clear();
        claimed_bytes_ = 0;
        events_ = 0;
        instruments_.begin();
        full_ = false;
        transaction();
        if (full_) {
            writer.abort();
            instruments_.roll_back();
            counts_[static_cast<std::size_t>(Count::retries)] += 1;
            if (writer.free_bytes() < writer.capacity_bytes()) return false;
            // The ring is empty and these events are more than it holds: their place is met by a loss.
            pending_ = {};
            claims_.clear();
            claimed_bytes_ = 0;
            events_ = 0;
            full_ = false;
            add(Count::oversize);
            lost(Scope::connection, NO_INSTRUMENT, Reason::oversize, 1);
            if (full_) {
                writer.abort();
                return false;
            }
        }
        if (instruments_.changed()) hooks_.instruments_changed(raw.ring_seq);
        const std::int64_t now_ns = mono_ns();
        for (RecordHeader* claim : claims_) claim->stage_ns[1] = stage_stamp(raw.origin_ns, now_ns);
        if (!claims_.empty()) measure(Stage::parse, *claims_.front());
        trace_point(Point::parse_end, raw.ring_seq);
        writer.commit(raw.ring_seq);
        seen_seq_ = raw.ring_seq;
        epoch_ = raw.epoch;
        announce_loss_ = false;
        unannounced_ = false;
        pending_[static_cast<std::size_t>(Count::events)] = claims_.size();
        for (std::size_t i = 0; i < pending_.size(); ++i) counts_[i] += pending_[i];
        return true;
    }

    // A word of our own about the input, as a status record without an instrument. False: the ring is full.
    bool status(Writer& writer, BookState state, Reason reason) {
        RecordHeader* head = writer.claim(sizeof(RecordHeader) + sizeof(StatusBody));
        if (head == nullptr) return false;
        const std::int64_t now_ns = mono_ns();
        fill(*head, RecordType::status);
        head->recv_ns = unix_ns();
        head->origin_ns = now_ns;
        head->stage_ns[1] = 1;
        auto* body = reinterpret_cast<StatusBody*>(head + 1);
        *body = StatusBody{};
        body->state = static_cast<std::uint8_t>(state);
        body->reason = static_cast<std::uint8_t>(reason);
        writer.commit();
        return true;
    }

    Instruments& instruments() { return instruments_; }
    const Counts& counts() const { return counts_; }
    const Facts& facts() const { return facts_; }
    std::uint64_t seen_seq() const { return seen_seq_; }

private:
    void add(Count kind, std::uint64_t n = 1) { pending_[static_cast<std::size_t>(kind)] += n; }

    // --- the transaction -----------------------------------------------------------------------------------------

    void transaction() {
        const RecordHeader& raw = *raw_;
        if (announce_loss_ || (epoch_ != 0 && raw.epoch != epoch_)) {
            lost(Scope::all, NO_INSTRUMENT, Reason::lost, 0);
        } else if (seen_seq_ != 0 && raw.ring_seq != seen_seq_ + 1) {
            add(Count::holes);
            lost(Scope::all, NO_INSTRUMENT, Reason::lost, raw.ring_seq - seen_seq_ - 1);
        }
        // What a predecessor wrote into its manifest and did not live to announce.
        for (std::uint32_t id = 0; unannounced_ && id < instruments_.size(); ++id)
            if (!instruments_[id].announced) announce(id);
        switch (static_cast<RecordType>(raw.type)) {
            case RecordType::raw_frame: frame(payload()); break;
            case RecordType::raw_http: http(url(), payload()); break;
            case RecordType::raw_sent: subscribed(hooks_.sent(payload())); break;
            case RecordType::link: link(); break;
            case RecordType::lost:
            case RecordType::answer: pass_on(); break;
            default: add(Count::unknown_record);
        }
    }

    std::string_view part(std::size_t offset, std::size_t size) const {
        if (offset + size > raw_->size_bytes) throw CorruptRing("a raw record says that it is longer than it is");
        return {reinterpret_cast<const char*>(raw_) + offset, size};
    }
    const RawBody& raw_body() const {
        part(sizeof(RecordHeader), sizeof(RawBody));
        return *reinterpret_cast<const RawBody*>(raw_ + 1);
    }
    std::string_view url() const { return part(sizeof(RecordHeader) + sizeof(RawBody), raw_body().url_bytes); }
    std::string_view payload() const {
        const RawBody& body = raw_body();
        return part(sizeof(RecordHeader) + sizeof(RawBody) + body.url_bytes, body.payload_bytes);
    }

    void frame(std::string_view text) {
        add(Count::frames);
        messages_.clear();
        if (!decoder_.read(stream_, text.data(), text.size())) return bad(decoder_.error());
        bool known = false;
        bool book = false;
        for (std::uint32_t scope = 0; scope < decoder_.scopes().count(); ++scope) {
            const Kind kind = decoder_.kind_of(scope);
            if (kind == Kind::none) continue;
            known = true;
            if (kind == Kind::ignore) continue;
            Message& message = messages_.emplace_back();
            if (!decoder_.message(scope, kind, facts_.rule, {}, message)) return bad(decoder_.error());
            book = book || kind == Kind::snapshot || kind == Kind::diff;
        }
        if (facts_.scope == Scope::connection && !book && decoder_.scopes().count() != 0) {
            const FieldScope& root = decoder_.scopes()[0];
            if (root.knows(Field::last_seq) && !(root.bad & bit(Field::last_seq))) sequence(root);
        }
        for (const Message& message : messages_) event(message);
        if (!known) unknown(text);
    }

    void unknown(std::string_view text) {
        std::vector<Subscribed> books;
        if (!hooks_.control(text, books)) add(Count::unknown_frame);
        subscribed(books);
    }

    void http(std::string_view url, std::string_view body) {
        const HttpMeaning meaning = hooks_.http(url);
        if (meaning.kind == HttpMeaning::Kind::metadata) return metadata(hooks_.metadata(body));
        if (meaning.kind != HttpMeaning::Kind::snapshot || !rest_) return;
        add(Count::frames);
        messages_.clear();
        const bool read = decoder_.read(*rest_, body.data(), body.size());
        for (std::uint32_t scope = 0; read && scope < decoder_.scopes().count(); ++scope) {
            const Kind kind = decoder_.kind_of(scope);
            if (kind == Kind::none || kind == Kind::ignore) continue;
            Message& message = messages_.emplace_back();
            if (!decoder_.message(scope, kind, facts_.rule, meaning.symbol, message)) break;
        }
        if (decoder_.error() != Bad::none) {
            count_bad(decoder_.error());
            for (std::uint32_t id = instruments_.first(meaning.symbol); id != NO_INSTRUMENT; id = instruments_[id].next)
                lost(Scope::instrument, id, Reason::bad_message, 1);
            return;
        }
        if (messages_.empty()) add(Count::unknown_frame);
        for (const Message& message : messages_) {
            if (instruments_.first(message.symbol) == NO_INSTRUMENT) instruments_.add(NO_CONNECTION, message.symbol);
            for (std::uint32_t id = instruments_.first(message.symbol); id != NO_INSTRUMENT; id = instruments_[id].next)
                book(message, id, FLAG_ASKED);
        }
    }

    void metadata(const std::vector<SymbolSteps>& all) {
        if (facts_.as_shown()) return;
        for (const SymbolSteps& each : all) {
            instruments_.steps(each.symbol) = each.steps;
            for (std::uint32_t id = instruments_.first(each.symbol); id != NO_INSTRUMENT; id = instruments_[id].next)
                raise(id, each.steps.price_scale, each.steps.qty_scale);
        }
    }

    void subscribed(const std::vector<Subscribed>& books) {
        for (const Subscribed& book : books) {
            if (book.symbol.empty() || book.symbol.size() >= sizeof(InstrumentBody::symbol)) {
                add(Count::bad_symbol);
                continue;
            }
            const std::uint32_t id = instruments_.of_connection(raw_->connection, book.symbol);
            if (instruments_[id].depth != book.depth) instruments_.change(id).depth = book.depth;
            if (!instruments_[id].announced) announce(id);
        }
    }

    void link() {
        part(sizeof(RecordHeader), sizeof(LinkBody));
        const auto& body = *reinterpret_cast<const LinkBody*>(raw_ + 1);
        const std::string_view url = part(sizeof(RecordHeader) + sizeof(LinkBody), body.url_bytes);
        pass_on();
        if (body.up != 0) subscribed(hooks_.opened(url));
    }

    void pass_on() {
        RecordHeader* head = claim(raw_->size_bytes);
        if (head == nullptr) return;
        const std::uint64_t ring_seq = head->ring_seq;
        const std::uint32_t epoch = head->epoch;
        const std::uint32_t size_bytes = head->size_bytes;
        std::memcpy(static_cast<void*>(head), raw_, raw_->size_bytes);
        head->ring_seq = ring_seq;
        head->epoch = epoch;
        head->size_bytes = size_bytes;
        head->raw_seq = raw_->ring_seq;
    }

    // --- trouble -------------------------------------------------------------------------------------------------

    void count_bad(Bad why) {
        switch (why) {
            case Bad::number: return add(Count::bad_number);
            case Bad::time: return add(Count::bad_time);
            case Bad::field: return add(Count::bad_field);
            case Bad::symbol: return add(Count::bad_symbol);
            case Bad::range: return add(Count::out_of_range);
            case Bad::oversize: return add(Count::oversize);
            default: add(Count::bad_json);
        }
    }

    // A frame that gives no event: the book that it names, or the connection, cannot be right any more.
    void bad(Bad why) {
        count_bad(why);
        std::uint32_t id = NO_INSTRUMENT;
        if (facts_.scope == Scope::instrument) {
            std::string_view symbol;
            if (decoder_.scopes().symbols_seen(symbol) == Scopes::Symbols::one) id = instruments_.find(raw_->connection, symbol);
        }
        const Reason reason = why == Bad::range ? Reason::out_of_range : Reason::bad_message;
        lost(id == NO_INSTRUMENT ? Scope::connection : Scope::instrument, id, reason, 1);
    }

    void lost(Scope scope, std::uint32_t id, Reason reason, std::uint64_t count) {
        RecordHeader* head = claim(sizeof(RecordHeader) + sizeof(LostBody));
        if (head == nullptr) return;
        fill(*head, RecordType::lost);
        name(*head, id);
        if (scope == Scope::all) head->connection = NO_CONNECTION;
        auto* body = reinterpret_cast<LostBody*>(head + 1);
        *body = LostBody{};
        body->count = count;
        body->scope = static_cast<std::uint8_t>(scope);
        body->reason = static_cast<std::uint8_t>(reason);
    }

    // --- events --------------------------------------------------------------------------------------------------

    RecordHeader* claim(std::uint64_t size_bytes) {
        if (full_) return nullptr;
        claimed_bytes_ += size_bytes;
        RecordHeader* head = out_->fits(size_bytes) ? out_->claim(static_cast<std::uint32_t>(size_bytes)) : nullptr;
        if (head == nullptr) {
            full_ = true;
            wanted_bytes_ = claimed_bytes_;
            return nullptr;
        }
        claims_.push_back(head);
        return head;
    }

    void fill(RecordHeader& head, RecordType type) {
        head.type = static_cast<std::uint16_t>(type);
        head.flags = 0;
        head.raw_seq = raw_ != nullptr ? raw_->ring_seq : 0;
        head.exch_ns = 0;
        head.recv_ns = raw_ != nullptr ? raw_->recv_ns : 0;
        head.origin_ns = raw_ != nullptr ? raw_->origin_ns : 0;
        head.instrument = NO_INSTRUMENT;
        head.version = 0;
        head.connection = raw_ != nullptr ? raw_->connection : NO_CONNECTION;
        head.session = raw_ != nullptr ? raw_->session : 0;
        head.stage_ns[0] = raw_ != nullptr ? raw_->stage_ns[0] : 0;
        head.stage_ns[1] = head.stage_ns[2] = head.stage_ns[3] = 0;
    }
    void name(RecordHeader& head, std::uint32_t id) {
        if (id == NO_INSTRUMENT) return;
        head.instrument = id;
        head.version = instruments_[id].version;
    }

    // An event of the stream: all but the first of a raw record are marked. Instrument records do not count.
    template <class Body>
    Body* event_record(RecordType type, std::uint32_t id, std::int64_t exch_ns, std::uint64_t extra_bytes, std::uint16_t flags) {
        RecordHeader* head = claim(sizeof(RecordHeader) + sizeof(Body) + extra_bytes);
        if (head == nullptr) return nullptr;
        fill(*head, type);
        name(*head, id);
        head->exch_ns = exch_ns;
        head->flags = static_cast<std::uint16_t>(flags | (events_++ == 0 ? 0 : FLAG_CONTINUED));
        auto* body = reinterpret_cast<Body*>(head + 1);
        std::memset(static_cast<void*>(body), 0, sizeof(Body));
        return body;
    }

    void sequence(const FieldScope& root) {
        const std::int64_t exch_ns = root.knows(Field::exch_time) && !(root.bad & bit(Field::exch_time)) ? root.exch_ns : 0;
        auto* body = event_record<SequenceBody>(RecordType::sequence, NO_INSTRUMENT, exch_ns, 0, 0);
        if (body == nullptr) return;
        body->seq = root.last_seq;
        body->rule = static_cast<std::uint8_t>(facts_.rule);
        body->scope = static_cast<std::uint8_t>(facts_.scope);
    }

    void event(const Message& message) {
        add(Count::messages);
        if (message.kind == Kind::snapshot || message.kind == Kind::diff)
            return book(message, instruments_.of_connection(raw_->connection, message.symbol), 0);
        const std::uint32_t id = instruments_.find_any(raw_->connection, message.symbol);
        if (id == NO_INSTRUMENT) return add(Count::unknown_symbol);
        if (message.kind == Kind::trade) trade(message, id);
        else bbo(message, id);
    }

    void announce(std::uint32_t id) {
        RecordHeader* head = claim(sizeof(RecordHeader) + sizeof(InstrumentBody));
        if (head == nullptr) return;
        instruments_.announce(id, raw_->ring_seq);
        const Instrument& instrument = instruments_[id];
        fill(*head, RecordType::instrument);
        name(*head, id);
        head->connection = instrument.connection;
        auto* body = reinterpret_cast<InstrumentBody*>(head + 1);
        std::memset(static_cast<void*>(body), 0, sizeof *body);
        std::memcpy(body->symbol, instrument.symbol.data(), instrument.symbol.size());
        body->depth = instrument.depth;
        body->price_scale = instrument.price_scale;
        body->qty_scale = instrument.qty_scale;
        body->rule = static_cast<std::uint8_t>(facts_.rule);
        body->scope = static_cast<std::uint8_t>(facts_.scope);
        body->checksum_rule = static_cast<std::uint8_t>(facts_.checksum);
        body->truncates = facts_.truncates;
        body->joins = facts_.joins;
    }

    // Scales never fall.
    void raise(std::uint32_t id, std::uint8_t price_scale, std::uint8_t qty_scale) {
        if (price_scale > instruments_[id].price_scale || qty_scale > instruments_[id].qty_scale) {
            Instrument& instrument = instruments_.change(id);
            instrument.price_scale = std::max(instrument.price_scale, price_scale);
            instrument.qty_scale = std::max(instrument.qty_scale, qty_scale);
        }
        if (!instruments_[id].announced) announce(id);
    }

    std::uint8_t scale_of(std::uint64_t mantissa, std::uint8_t decimals) const {
        return facts_.as_shown() ? decimals : needed_decimals(mantissa, decimals);
    }

    // The levels of a message at the instrument's scale, in place. `finer`: it needs a higher one.
    Fit rescale(std::uint32_t scope, std::uint8_t price_scale, std::uint8_t qty_scale) {
        const bool shown = facts_.as_shown();
        Fit worst = Fit::ok;
        for (unsigned side = 0; side < 2 && worst == Fit::ok; ++side)
            decoder_.each_part(scope, side, [&](RawLevel* levels, std::uint32_t count) {
                for (RawLevel* level = levels; level != levels + count; ++level) {
                    if (shown && (level->price_decimals > price_scale || level->qty_decimals > qty_scale)) [[unlikely]] {
                        worst = Fit::finer;
                        return false;
                    }
                    const Fit price = to_scale(level->price, level->price_decimals, price_scale);
                    if (price != Fit::ok) [[unlikely]] {
                        worst = price;
                        return false;
                    }
                    const Fit qty = to_scale(level->qty, level->qty_decimals, qty_scale);
                    if (qty != Fit::ok) [[unlikely]] {
                        worst = qty;
                        return false;
                    }
                }
                return true;
            });
        return worst;
    }

    // Brings a book message and its instrument to one scale; false: the numbers do not fit.
    bool fit_levels(std::uint32_t scope, std::uint32_t id) {
        const Instrument& instrument = instruments_[id];
        Fit fit = rescale(scope, instrument.price_scale, instrument.qty_scale);
        if (fit == Fit::ok) {
            if (!instrument.announced) announce(id);
            return true;
        }
        std::uint8_t price_scale = instrument.price_scale;
        std::uint8_t qty_scale = instrument.qty_scale;
        for (unsigned side = 0; side < 2; ++side)
            decoder_.each_part(scope, side, [&](const RawLevel* levels, std::uint32_t count) {
                for (const RawLevel* level = levels; level != levels + count; ++level) {
                    price_scale = std::max(price_scale, scale_of(level->price, level->price_decimals));
                    qty_scale = std::max(qty_scale, scale_of(level->qty, level->qty_decimals));
                }
                return true;
            });
        if (price_scale > SCALE_MAX || qty_scale > SCALE_MAX || rescale(scope, price_scale, qty_scale) != Fit::ok) return false;
        raise(id, price_scale, qty_scale);
        return true;
    }

    void book(const Message& message, std::uint32_t id, std::uint16_t flags) {
        if (!fit_levels(message.scope, id)) {
            add(Count::out_of_range);
            if (!instruments_[id].announced) announce(id);
            return lost(Scope::instrument, id, Reason::out_of_range, 1);
        }
        const std::uint32_t bid_count = decoder_.level_count(message.scope, 0);
        const std::uint32_t ask_count = decoder_.level_count(message.scope, 1);
        const std::uint64_t levels_bytes = (static_cast<std::uint64_t>(bid_count) + ask_count) * sizeof(Level);
        if (!out_->fits(sizeof(RecordHeader) + sizeof(BookBody) + levels_bytes)) {
            add(Count::oversize);
            return lost(Scope::instrument, id, Reason::oversize, 1);
        }
        add(Count::levels, bid_count + ask_count);
        const auto type = message.kind == Kind::snapshot ? RecordType::snapshot : RecordType::diff;
        auto* body = event_record<BookBody>(type, id, message.exch_ns, levels_bytes, flags);
        if (body == nullptr) return;
        body->first_seq = message.first_seq;
        body->last_seq = message.last_seq;
        body->prev_seq = message.prev_seq;
        body->checksum = message.checksum;
        body->rule = static_cast<std::uint8_t>(facts_.rule);
        body->scope = static_cast<std::uint8_t>(facts_.scope);
        body->has_checksum = message.has_checksum;
        body->bid_count = bid_count;
        body->ask_count = ask_count;
        auto* to = reinterpret_cast<Level*>(body + 1);
        for (unsigned side = 0; side < 2; ++side)
            decoder_.each_part(message.scope, side, [&](const RawLevel* levels, std::uint32_t count) {
                for (const RawLevel* level = levels; level != levels + count; ++level, ++to) {
                    const auto price = static_cast<std::int64_t>(level->price);
                    to->price = level->price_negative ? -price : price;
                    to->qty = static_cast<std::int64_t>(level->qty);
                }
                return true;
            });
    }

    // Pairs of (price, quantity) at these scales.
    Fit pairs_at(const std::uint8_t (&scales)[2], const Decimal* pairs, unsigned count, std::int64_t* out) const {
        for (unsigned i = 0; i < 2 * count; ++i) {
            Decimal value = pairs[i];
            if (facts_.as_shown() && value.decimals > scales[i & 1]) return Fit::finer;
            const Fit fit = to_scale(value.mantissa, value.decimals, scales[i & 1]);
            if (fit != Fit::ok) return fit;
            const auto mantissa = static_cast<std::int64_t>(value.mantissa);
            out[i] = value.negative ? -mantissa : mantissa;
        }
        return Fit::ok;
    }

    // The same at the instrument's scales, raised if need be; false: they do not fit.
    bool fit_pairs(std::uint32_t id, const Decimal* pairs, unsigned count, std::int64_t* out) {
        std::uint8_t scales[2] = {instruments_[id].price_scale, instruments_[id].qty_scale};
        if (pairs_at(scales, pairs, count, out) != Fit::ok) {
            for (unsigned i = 0; i < 2 * count; ++i)
                scales[i & 1] = std::max(scales[i & 1], scale_of(pairs[i].mantissa, pairs[i].decimals));
            if (scales[0] > SCALE_MAX || scales[1] > SCALE_MAX || pairs_at(scales, pairs, count, out) != Fit::ok) return false;
        }
        raise(id, scales[0], scales[1]);
        return true;
    }

    void trade(const Message& message, std::uint32_t id) {
        std::int64_t numbers[2];
        if (!fit_pairs(id, message.decimals + 4, 1, numbers)) {
            add(Count::out_of_range);
            return lost(Scope::instrument, id, Reason::out_of_range, 1);
        }
        auto* body = event_record<TradeBody>(RecordType::trade, id, message.exch_ns, 0, 0);
        if (body == nullptr) return;
        body->trade_id = message.trade_id;
        body->price = numbers[0];
        body->qty = numbers[1];
        body->taker_side = static_cast<std::uint8_t>(message.taker_side);
    }

    void bbo(const Message& message, std::uint32_t id) {
        std::int64_t numbers[4];
        if (!fit_pairs(id, message.decimals, 2, numbers)) {
            add(Count::out_of_range);
            return lost(Scope::instrument, id, Reason::out_of_range, 1);
        }
        auto* body = event_record<BboBody>(RecordType::bbo, id, message.exch_ns, 0, 0);
        if (body == nullptr) return;
        body->last_seq = message.last_seq;
        body->bid_price = numbers[0];
        body->bid_qty = numbers[1];
        body->ask_price = numbers[2];
        body->ask_qty = numbers[3];
    }

    const Plan stream_;
    const std::optional<Plan> rest_;
    const Facts facts_;
    Hooks& hooks_;
    Decoder decoder_;
    Instruments instruments_;
    Counts counts_{};
    std::uint64_t seen_seq_ = 0;  // the last raw record that is done
    std::uint32_t epoch_ = 0;     // of the raw ring, at that record
    bool announce_loss_ = false;
    bool unannounced_ = true;

    // of the raw record at hand
    const RecordHeader* raw_ = nullptr;
    Writer* out_ = nullptr;
    std::vector<RecordHeader*> claims_;
    std::vector<Message> messages_;
    Counts pending_{};
    std::uint64_t claimed_bytes_ = 0;
    std::uint64_t wanted_bytes_ = 0;
    unsigned events_ = 0;
    bool full_ = false;
};

}  // namespace lob::parse
