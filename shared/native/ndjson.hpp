// ndjson.hpp - a record as one line of JSON.
//
// Keys stand in one order a type, and nothing of this machine is among them (no origin, no stage stamps, no epoch,
// no request id): two replays of one recording give the same bytes. A field that was not given (0 in the record)
// is left out. Prices and quantities are exact decimal text in quotes, without trailing zeros.
//
// `Ndjson` learns names and scales from instrument records. A record of an instrument or version that it has not
// seen is refused: it becomes an `unknown_version` line, without numbers, and is counted.
// Instrument ids hold in one epoch of one ring: with another epoch all is forgotten.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "layout.hpp"

namespace lob {

// Text that is written once and handed over whole, in memory of its own, which stays for the next round, or in memory lent
// to it for one round, as long as it fits there.
class TextBuffer {
public:
    // At least `bytes` of room at the end; write there, then advance().
    char* room(std::size_t bytes) {
        if (memory_.size() - size_ < bytes) move_home(size_ + bytes);
        return memory_.data() + size_;
    }
    void advance(const char* end) { size_ = static_cast<std::size_t>(end - memory_.data()); }
    void clear() { begin(own_); }
    // Empty, and the next text may be written there.
    void begin(std::span<char> memory) {
        memory_ = memory;
        size_ = 0;
    }
    std::size_t size() const { return size_; }
    std::string_view view() const { return {memory_.data(), size_}; }

private:
    void move_home(std::size_t bytes) {
        const bool lent = memory_.data() != own_.data();
        if (own_.size() < bytes) own_.resize(std::max(2 * own_.size(), bytes));
        if (lent) std::memcpy(own_.data(), memory_.data(), size_);
        memory_ = own_;
    }

    std::vector<char> own_;
    std::span<char> memory_;
    std::size_t size_ = 0;
};

namespace json {

inline constexpr auto DIGIT_PAIRS = [] {
    std::array<char, 200> pairs{};
    for (int i = 0; i < 100; ++i) {
        pairs[2 * i] = static_cast<char>('0' + i / 10);
        pairs[2 * i + 1] = static_cast<char>('0' + i % 10);
    }
    return pairs;
}();

inline constexpr std::size_t INTEGER_MAX_BYTES = 20;

// The digits of `value`, ending at `end`; where they begin.
inline char* digits_before(char* end, std::uint64_t value) {
    while (value >= 100) {
        end -= 2;
        std::memcpy(end, &DIGIT_PAIRS[2 * (value % 100)], 2);
        value /= 100;
    }
    if (value >= 10) {
        end -= 2;
        std::memcpy(end, &DIGIT_PAIRS[2 * value], 2);
    } else {
        *--end = static_cast<char>('0' + value);
    }
    return end;
}

inline char* put(char* to, std::string_view text) {
    std::memcpy(to, text.data(), text.size());
    return to + text.size();
}

inline char* put_unsigned(char* to, std::uint64_t value) {
    char digits[INTEGER_MAX_BYTES];
    const char* first = digits_before(digits + sizeof digits, value);
    return put(to, {first, static_cast<std::size_t>(digits + sizeof digits - first)});
}

inline char* put_signed(char* to, std::int64_t value) {
    if (value >= 0) return put_unsigned(to, static_cast<std::uint64_t>(value));
    *to++ = '-';
    return put_unsigned(to, 0 - static_cast<std::uint64_t>(value));
}

// mantissa / 10^scale, exact, without trailing zeros: (6160050, 2) -> 61600.5. At most scale + 22 bytes.
inline char* put_decimal(char* to, std::int64_t mantissa, unsigned scale) {
    if (scale == 0) return put_signed(to, mantissa);
    std::uint64_t value = static_cast<std::uint64_t>(mantissa);
    if (mantissa < 0) {
        *to++ = '-';
        value = 0 - value;
    }
    char digits[INTEGER_MAX_BYTES];
    const char* end = digits + sizeof digits;
    const char* first = digits_before(digits + sizeof digits, value);
    const auto count = static_cast<unsigned>(end - first);
    const char* point = count > scale ? end - scale : first;  // where the fraction begins
    unsigned zeros = count > scale ? 0 : scale - count;       // between the point and the first digit
    while (end > point && end[-1] == '0') --end;
    if (point == first) {
        *to++ = '0';
    } else {
        to = put(to, {first, static_cast<std::size_t>(point - first)});
    }
    if (end == point) return to;
    *to++ = '.';
    while (zeros-- > 0) *to++ = '0';
    return put(to, {point, static_cast<std::size_t>(end - point)});
}

inline constexpr std::size_t ESCAPED_MAX_BYTES = 6;  // a byte of text becomes at most \u001f

// Length of the well-formed UTF-8 sequence at `at`, or minus the length of the part that a decoder replaces
// by one U+FFFD (the longest prefix that could have begun one; the same rule as Python's "replace").
inline int utf8_length(const unsigned char* at, const unsigned char* end) {
    const unsigned lead = at[0];
    int length = 0;
    unsigned low = 0x80, high = 0xBF;
    if (lead < 0x80) return 1;
    if (lead >= 0xC2 && lead <= 0xDF) length = 2;
    else if (lead >= 0xE0 && lead <= 0xEF) {
        length = 3;
        if (lead == 0xE0) low = 0xA0;
        if (lead == 0xED) high = 0x9F;
    } else if (lead >= 0xF0 && lead <= 0xF4) {
        length = 4;
        if (lead == 0xF0) low = 0x90;
        if (lead == 0xF4) high = 0x8F;
    } else {
        return -1;
    }
    for (int i = 1; i < length; ++i) {
        if (at + i >= end || at[i] < low || at[i] > high) return -i;
        low = 0x80;
        high = 0xBF;
    }
    return length;
}

// `text` in quotes, escaped; what is no UTF-8 becomes U+FFFD. Needs 2 + ESCAPED_MAX_BYTES a byte of room.
inline char* put_string(char* to, std::string_view text) {
    static constexpr char HEX[] = "0123456789abcdef";
    const auto* at = reinterpret_cast<const unsigned char*>(text.data());
    const auto* end = at + text.size();
    *to++ = '"';
    while (at < end) {
        const unsigned char byte = *at;
        if (byte >= 0x80) {
            const int length = utf8_length(at, end);
            if (length < 0) {
                to = put(to, "\xEF\xBF\xBD");
                at -= length;
            } else {
                to = put(to, {reinterpret_cast<const char*>(at), static_cast<std::size_t>(length)});
                at += length;
            }
            continue;
        }
        ++at;
        switch (byte) {
            case '"': to = put(to, "\\\""); break;
            case '\\': to = put(to, "\\\\"); break;
            case '\n': to = put(to, "\\n"); break;
            case '\r': to = put(to, "\\r"); break;
            case '\t': to = put(to, "\\t"); break;
            case '\b': to = put(to, "\\b"); break;
            case '\f': to = put(to, "\\f"); break;
            default:
                if (byte < 0x20) {
                    to = put(to, "\\u00");
                    *to++ = HEX[byte >> 4];
                    *to++ = HEX[byte & 15];
                } else {
                    *to++ = static_cast<char>(byte);
                }
        }
    }
    *to++ = '"';
    return to;
}

}  // namespace json

inline constexpr std::string_view BOOK_STATE_WORDS[] = {"building", "live", "stale", "resyncing", "closed"};
inline constexpr std::string_view REASON_WORDS[] = {
    "none",         "restarted",  "gap",         "checksum",    "crossed",     "link_down",    "lost",          "upstream_silent",
    "bad_message",  "out_of_range", "oversize",  "buffer_full", "session",     "snapshot_old", "upstream_closed"};
inline constexpr std::string_view OUTCOME_WORDS[] = {"done", "refused", "failed"};
inline constexpr std::string_view REQUEST_WORDS[] = {"", "snapshot", "resync", "reconnect", "subscribe", "unsubscribe"};
inline constexpr std::string_view TAKER_WORDS[] = {"buy", "sell", "unknown"};
inline constexpr std::string_view RULE_WORDS[] = {"none", "range", "chain", "step"};
inline constexpr std::string_view SCOPE_WORDS[] = {"instrument", "connection", "all"};

template <std::size_t N>
constexpr std::string_view word_of(const std::string_view (&words)[N], std::size_t value) {
    return value < N ? words[value] : "unknown";
}

constexpr std::string_view type_word(std::uint16_t type) {
    switch (static_cast<RecordType>(type)) {
        case RecordType::pad: return "pad";
        case RecordType::raw_frame: return "raw_frame";
        case RecordType::raw_http: return "raw_http";
        case RecordType::raw_sent: return "raw_sent";
        case RecordType::link: return "link";
        case RecordType::lost: return "lost";
        case RecordType::answer: return "answer";
        case RecordType::snapshot: return "snapshot";
        case RecordType::diff: return "diff";
        case RecordType::trade: return "trade";
        case RecordType::bbo: return "bbo";
        case RecordType::sequence: return "sequence";
        case RecordType::instrument: return "instrument";
        case RecordType::status: return "status";
    }
    return "unknown";
}

// The body of a record after a look at its length. Throws std::invalid_argument.
template <class Body>
const Body& body_of(const RecordHeader& record, std::uint64_t array_bytes = 0) {
    if (record.size_bytes < sizeof(RecordHeader) + sizeof(Body) + array_bytes)
        throw std::invalid_argument("a " + std::string(type_word(record.type)) + " record of " +
                                    std::to_string(record.size_bytes) + " bytes is cut short");
    return *reinterpret_cast<const Body*>(&record + 1);
}

// The levels that follow a BookBody, counted against the record's size: bids, then asks.
inline const Level* levels_of(const RecordHeader& record, const BookBody& body) {
    body_of<BookBody>(record, (std::uint64_t{body.bid_count} + body.ask_count) * sizeof(Level));
    return reinterpret_cast<const Level*>(&body + 1);
}

inline std::string_view text_of(const char* field, std::size_t size) { return {field, strnlen(field, size)}; }

class Ndjson {
public:
    // Appends one line for `record`. Throws std::invalid_argument if its sizes or counts are impossible.
    void format(const RecordHeader& record, TextBuffer& out) {
        enter(record.epoch);
        switch (static_cast<RecordType>(record.type)) {
            case RecordType::snapshot:
            case RecordType::diff: return format_book(record, out);
            case RecordType::trade: return format_trade(record, out);
            case RecordType::bbo: return format_bbo(record, out);
            case RecordType::status: return format_status(record, out);
            case RecordType::instrument: return format_instrument(record, out);
            case RecordType::sequence: return format_sequence(record, out);
            case RecordType::raw_frame:
            case RecordType::raw_http:
            case RecordType::raw_sent: return format_raw(record, out);
            case RecordType::link: return format_link(record, out);
            case RecordType::lost: return format_lost(record, out);
            case RecordType::answer: return format_answer(record, out);
            case RecordType::pad: break;
        }
        throw std::invalid_argument("no record type " + std::to_string(record.type));
    }

    // Learns an instrument as its record would teach it; for a reader that begins in the middle.
    void learn(const RecordHeader& record) {
        const auto& body = body_of<InstrumentBody>(record);
        enter(record.epoch);
        const auto symbol = text_of(body.symbol, sizeof body.symbol);
        char quoted[2 + json::ESCAPED_MAX_BYTES * sizeof body.symbol];
        names_[record.instrument].assign(quoted, json::put_string(quoted, symbol));
        scales_[key_of(record)] = {body.price_scale, body.qty_scale};
    }

    bool knows(const RecordHeader& record) const { return scales_of(record) != nullptr; }

    // Records of an instrument or version never seen.
    std::uint64_t refused() const { return refused_; }

private:
    struct Scales {
        std::uint8_t price;
        std::uint8_t qty;
    };
    // Keys and fixed-size values of any line but its text and levels; the longest has under 500.
    static constexpr std::size_t LINE_BYTES = 1024;

    // What was learned with epoch 0 (of no ring) holds in the first epoch that comes.
    void enter(std::uint32_t epoch) {
        if (epoch == epoch_) return;
        if (epoch_ != 0) {
            names_.clear();
            scales_.clear();
        }
        epoch_ = epoch;
    }

    static std::uint64_t key_of(const RecordHeader& record) {
        return std::uint64_t{record.instrument} << 16 | record.version;
    }
    const Scales* scales_of(const RecordHeader& record) const {
        const auto found = scales_.find(key_of(record));
        return found == scales_.end() ? nullptr : &found->second;
    }
    const std::string* name_of(const RecordHeader& record) const {
        const auto found = names_.find(record.instrument);
        return found == names_.end() ? nullptr : &found->second;
    }

    static char* put_count(char* to, std::string_view key, std::uint64_t value) {
        return json::put_unsigned(json::put(to, key), value);
    }
    static char* put_given(char* to, std::string_view key, std::uint64_t value) {
        return value == 0 ? to : put_count(to, key, value);
    }
    static char* put_word(char* to, std::string_view key, std::string_view word) {
        to = json::put(json::put(to, key), "\"");
        to = json::put(to, word);
        *to++ = '"';
        return to;
    }
    static char* begin(char* to, const RecordHeader& record) {
        return put_word(to, "{\"type\":", type_word(record.type));
    }
    static char* begin(char* to, const RecordHeader& record, const std::string& name) {
        to = json::put(json::put(begin(to, record), ",\"symbol\":"), name);
        return put_given(to, ",\"seq\":", record.ring_seq);
    }
    static char* put_times(char* to, const RecordHeader& record) {
        if (record.exch_ns != 0) to = json::put_signed(json::put(to, ",\"exch_ns\":"), record.exch_ns);
        if (record.recv_ns != 0) to = json::put_signed(json::put(to, ",\"recv_ns\":"), record.recv_ns);
        return to;
    }
    static char* put_connection(char* to, const RecordHeader& record) {
        if (record.connection == NO_CONNECTION) return to;
        return put_count(put_count(to, ",\"connection\":", record.connection), ",\"session\":", record.session);
    }
    static void end(char* to, TextBuffer& out) {
        to = json::put(to, "}\n");
        out.advance(to);
    }
    static char* put_level(char* to, std::int64_t price, std::int64_t qty, Scales scales) {
        to = json::put(to, "[\"");
        to = json::put_decimal(to, price, scales.price);
        to = json::put(to, "\",\"");
        to = json::put_decimal(to, qty, scales.qty);
        return json::put(to, "\"]");
    }
    static std::size_t level_bytes(Scales scales) { return 2 * 22 + 8 + std::size_t{scales.price} + scales.qty; }

    void refuse(const RecordHeader& record, TextBuffer& out) {
        ++refused_;
        char* to = json::put(out.room(LINE_BYTES), "{\"type\":\"unknown_version\"");
        to = put_given(to, ",\"seq\":", record.ring_seq);
        to = put_word(to, ",\"record\":", type_word(record.type));
        to = put_count(to, ",\"instrument\":", record.instrument);
        to = put_count(to, ",\"version\":", record.version);
        end(to, out);
    }

    void format_book(const RecordHeader& record, TextBuffer& out) {
        const auto& body = body_of<BookBody>(record);
        const Level* levels = levels_of(record, body);
        const auto* scales = scales_of(record);
        if (scales == nullptr) return refuse(record, out);
        const std::size_t count = std::size_t{body.bid_count} + body.ask_count;
        char* to = begin(out.room(LINE_BYTES + count * level_bytes(*scales)), record, *name_of(record));
        to = put_given(to, ",\"first_seq\":", body.first_seq);
        to = put_given(to, ",\"prev_seq\":", body.prev_seq);
        to = put_count(to, ",\"last_seq\":", body.last_seq);
        to = put_times(to, record);
        if ((record.flags & FLAG_ASKED) != 0) to = json::put(to, ",\"asked\":true");
        if ((record.flags & FLAG_REFRESH) != 0) to = json::put(to, ",\"refresh\":true");
        if (body.has_checksum != 0) to = put_count(to, ",\"checksum\":", body.checksum);
        to = json::put(to, ",\"bids\":");
        to = put_levels(to, levels, body.bid_count, *scales);
        to = json::put(to, ",\"asks\":");
        to = put_levels(to, levels + body.bid_count, body.ask_count, *scales);
        end(to, out);
    }
    static char* put_levels(char* to, const Level* levels, std::size_t count, Scales scales) {
        *to++ = '[';
        for (std::size_t i = 0; i < count; ++i) {
            if (i != 0) *to++ = ',';
            to = put_level(to, levels[i].price, levels[i].qty, scales);
        }
        *to++ = ']';
        return to;
    }

    void format_trade(const RecordHeader& record, TextBuffer& out) {
        const auto& body = body_of<TradeBody>(record);
        const auto* scales = scales_of(record);
        if (scales == nullptr) return refuse(record, out);
        char* to = begin(out.room(LINE_BYTES + level_bytes(*scales)), record, *name_of(record));
        to = put_given(to, ",\"trade_id\":", body.trade_id);
        to = put_times(to, record);
        to = put_word(to, ",\"side\":", word_of(TAKER_WORDS, body.taker_side));
        to = json::put_decimal(json::put(to, ",\"price\":\""), body.price, scales->price);
        to = json::put_decimal(json::put(to, "\",\"qty\":\""), body.qty, scales->qty);
        *to++ = '"';
        end(to, out);
    }

    void format_bbo(const RecordHeader& record, TextBuffer& out) {
        const auto& body = body_of<BboBody>(record);
        const auto* scales = scales_of(record);
        if (scales == nullptr) return refuse(record, out);
        char* to = begin(out.room(LINE_BYTES + 2 * level_bytes(*scales)), record, *name_of(record));
        to = put_given(to, ",\"last_seq\":", body.last_seq);
        to = put_times(to, record);
        to = json::put(to, ",\"bid\":");
        to = body.bid_qty == 0 ? json::put(to, "null") : put_level(to, body.bid_price, body.bid_qty, *scales);
        to = json::put(to, ",\"ask\":");
        to = body.ask_qty == 0 ? json::put(to, "null") : put_level(to, body.ask_price, body.ask_qty, *scales);
        end(to, out);
    }

    void format_status(const RecordHeader& record, TextBuffer& out) {
        const auto& body = body_of<StatusBody>(record);
        const auto* name = name_of(record);
        if (name == nullptr) return refuse(record, out);
        char* to = begin(out.room(LINE_BYTES), record, *name);
        to = put_given(to, ",\"last_seq\":", body.last_seq);
        to = put_times(to, record);
        to = put_word(to, ",\"state\":", word_of(BOOK_STATE_WORDS, body.state));
        to = put_word(to, ",\"reason\":", word_of(REASON_WORDS, body.reason));
        end(to, out);
    }

    void format_instrument(const RecordHeader& record, TextBuffer& out) {
        const auto& body = body_of<InstrumentBody>(record);
        learn(record);
        char* to = begin(out.room(LINE_BYTES), record, *name_of(record));
        to = put_count(to, ",\"instrument\":", record.instrument);
        to = put_count(to, ",\"version\":", record.version);
        to = put_count(to, ",\"price_scale\":", body.price_scale);
        to = put_count(to, ",\"qty_scale\":", body.qty_scale);
        to = put_count(to, ",\"depth\":", body.depth);
        end(to, out);
    }

    void format_sequence(const RecordHeader& record, TextBuffer& out) {
        const auto& body = body_of<SequenceBody>(record);
        char* to = begin(out.room(LINE_BYTES), record);
        if (const auto* name = name_of(record)) to = json::put(json::put(to, ",\"symbol\":"), *name);
        to = put_given(to, ",\"seq\":", record.ring_seq);
        to = put_connection(to, record);
        to = put_times(to, record);
        to = put_count(to, ",\"last_seq\":", body.seq);
        to = put_word(to, ",\"rule\":", word_of(RULE_WORDS, body.rule));
        to = put_word(to, ",\"scope\":", word_of(SCOPE_WORDS, body.scope));
        end(to, out);
    }

    void format_raw(const RecordHeader& record, TextBuffer& out) {
        const auto& body = body_of<RawBody>(record);
        const std::uint64_t bytes = std::uint64_t{body.url_bytes} + body.payload_bytes;
        const auto* text = reinterpret_cast<const char*>(&body_of<RawBody>(record, bytes) + 1);
        char* to = begin(out.room(LINE_BYTES + bytes * json::ESCAPED_MAX_BYTES), record);
        to = put_given(to, ",\"seq\":", record.ring_seq);
        to = put_connection(to, record);
        to = put_times(to, record);
        if (body.url_bytes != 0) to = json::put_string(json::put(to, ",\"url\":"), {text, body.url_bytes});
        to = json::put_string(json::put(to, ",\"text\":"), {text + body.url_bytes, body.payload_bytes});
        end(to, out);
    }

    void format_link(const RecordHeader& record, TextBuffer& out) {
        const auto& body = body_of<LinkBody>(record);
        const auto* url = reinterpret_cast<const char*>(&body_of<LinkBody>(record, body.url_bytes) + 1);
        char* to = begin(out.room(LINE_BYTES + std::size_t{body.url_bytes} * json::ESCAPED_MAX_BYTES), record);
        to = put_given(to, ",\"seq\":", record.ring_seq);
        to = put_connection(to, record);
        to = put_times(to, record);
        to = json::put(to, body.up != 0 ? ",\"up\":true" : ",\"up\":false");
        to = json::put_string(json::put(to, ",\"url\":"), {url, body.url_bytes});
        end(to, out);
    }

    void format_lost(const RecordHeader& record, TextBuffer& out) {
        const auto& body = body_of<LostBody>(record);
        char* to = begin(out.room(LINE_BYTES), record);
        if (const auto* name = name_of(record)) to = json::put(json::put(to, ",\"symbol\":"), *name);
        to = put_given(to, ",\"seq\":", record.ring_seq);
        to = put_connection(to, record);
        to = put_times(to, record);
        to = put_given(to, ",\"count\":", body.count);
        to = put_word(to, ",\"scope\":", word_of(SCOPE_WORDS, body.scope));
        to = put_word(to, ",\"reason\":", word_of(REASON_WORDS, body.reason));
        end(to, out);
    }

    void format_answer(const RecordHeader& record, TextBuffer& out) {
        const auto& body = body_of<AnswerBody>(record);
        const auto symbol = text_of(body.symbol, sizeof body.symbol);
        const auto detail = text_of(body.detail, sizeof body.detail);
        char* to = begin(out.room(LINE_BYTES + 128 * json::ESCAPED_MAX_BYTES), record);
        if (!symbol.empty()) to = json::put_string(json::put(to, ",\"symbol\":"), symbol);
        to = put_given(to, ",\"seq\":", record.ring_seq);
        to = put_connection(to, record);
        to = put_times(to, record);
        to = put_word(to, ",\"request\":", word_of(REQUEST_WORDS, body.kind));
        to = put_word(to, ",\"outcome\":", word_of(OUTCOME_WORDS, body.outcome));
        if (!detail.empty()) to = json::put_string(json::put(to, ",\"detail\":"), detail);
        end(to, out);
    }

    std::unordered_map<std::uint32_t, std::string> names_;   // in quotes, escaped
    std::unordered_map<std::uint64_t, Scales> scales_;       // every version seen
    std::uint32_t epoch_ = 0;
    std::uint64_t refused_ = 0;
};

// The line that stands where `count` lines are missing. `ndjson`: one that formats nothing else, as it belongs to no epoch.
inline void format_lost(Ndjson& ndjson, std::uint64_t count, TextBuffer& out) {
    struct {
        RecordHeader header;
        LostBody body;
    } lost{};
    lost.header.size_bytes = sizeof lost;
    lost.header.type = static_cast<std::uint16_t>(RecordType::lost);
    lost.header.instrument = NO_INSTRUMENT;
    lost.header.connection = NO_CONNECTION;
    lost.body.count = count;
    lost.body.scope = static_cast<std::uint8_t>(Scope::all);
    lost.body.reason = static_cast<std::uint8_t>(Reason::lost);
    ndjson.format(lost.header, out);
}

}  // namespace lob
