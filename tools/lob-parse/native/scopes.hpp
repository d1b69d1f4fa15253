// scopes.hpp - what the objects of one message hold: fields as views of the text or exact numbers.
//
// The walk (decode.hpp) opens a scope for each object that the shape marks, and gives it what stands behind its keys.
// A field that cannot be read is marked, no more: whether that matters is known when a message needs it (message.hpp).
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "decimal.hpp"
#include "layout.hpp"
#include "plan.hpp"
#include "time.hpp"

namespace lob::parse {

// Why a frame gives no event. The names are the keys of Parser.counts().
enum class Bad : std::uint8_t { none, json, number, time, field, symbol, range, oversize };

inline constexpr std::uint32_t NO_INDEX = 0xFFFFFFFFu;

inline bool is_decimal(Field field) { return field >= Field::bid_price && field <= Field::qty; }
inline unsigned decimal_index(Field field) {
    return static_cast<unsigned>(field) - static_cast<unsigned>(Field::bid_price);
}

struct FieldScope {
    std::uint32_t parent;
    std::uint32_t has;  // bit(Field)
    std::uint32_t bad;
    Bad levels_bad;
    TakerSide taker_side;
    bool buyer_is_maker;
    std::uint32_t checksum;
    std::uint32_t first_segment, last_segment;
    std::uint64_t first_seq, last_seq, prev_seq, trade_id;
    std::int64_t exch_ns;
    std::string_view symbol;
    Decimal decimals[DECIMALS];
    std::string_view tags[TAGS_MAX];

    bool knows(Field field) const { return (has & bit(field)) != 0; }

    void mark(Field field, bool good) {
        has |= bit(field);
        if (!good) bad |= bit(field);
    }

    void take_text(const Scalar& scalar, std::string_view text) {
        const char* const at = text.data();
        const char* const end = at + text.size();
        const Field field = scalar.field;
        std::uint64_t value = 0;
        if (is_decimal(field)) {
            mark(field, decimal_of(at, end, decimals[decimal_index(field)]) == Number::ok);
            return;
        }
        switch (field) {
            case Field::symbol:
                symbol = text;
                mark(field, true);
                break;
            case Field::tag:
                tags[scalar.tag] = text;
                has |= bit(Field::tag, scalar.tag);
                break;
            case Field::taker_side:
                taker_side = text == scalar.buy ? TakerSide::buy : TakerSide::sell;
                mark(field, text == scalar.buy || text == scalar.sell);
                break;
            case Field::exch_time:
                mark(field,
                     scalar.unit == TimeUnit::rfc3339 ? rfc3339_ns(at, end, exch_ns)
                                                      : unsigned_of(at, end, value) && unix_time_ns(value, scalar.unit, exch_ns));
                break;
            default: {
                const bool good = unsigned_of(at, end, value);
                take_unsigned(scalar, value, good);
            }
        }
    }

    void take_number(const Scalar& scalar, std::string_view text, const Decimal& number, Number result) {
        const Field field = scalar.field;
        if (is_decimal(field)) {
            decimals[decimal_index(field)] = number;
            mark(field, result == Number::ok);
            return;
        }
        std::uint64_t value = 0;
        const bool good = unsigned_of(text.data(), text.data() + text.size(), value);
        take_unsigned(scalar, value, good);
    }

    // An integer, or (not `good`) something that should have been one.
    void take_unsigned(const Scalar& scalar, std::uint64_t value, bool good) {
        switch (scalar.field) {
            case Field::exch_time:
                if (scalar.unit != TimeUnit::rfc3339)
                    mark(Field::exch_time, good && unix_time_ns(value, scalar.unit, exch_ns));
                return;
            case Field::first_seq: first_seq = value; break;
            case Field::last_seq: last_seq = value; break;
            case Field::prev_seq: prev_seq = value; break;
            case Field::trade_id: trade_id = value; break;
            case Field::checksum:
                checksum = static_cast<std::uint32_t>(value);
                mark(Field::checksum, good && value <= 0xFFFFFFFFu);
                return;
            default: return;  // a number where a text should be: not there
        }
        mark(scalar.field, good);
    }
};

// The scopes of a message in the order in which they began; their memory is kept from message to message.
class Scopes {
public:
    void clear() { count_ = 0; }
    std::uint32_t open(std::uint32_t parent) {
        if (count_ == scopes_.size()) scopes_.emplace_back();  // a used one is not cleared, only its marks
        FieldScope& scope = scopes_[count_];
        scope.parent = parent;
        scope.has = scope.bad = 0;
        scope.levels_bad = Bad::none;
        scope.first_segment = scope.last_segment = NO_INDEX;
        return count_++;
    }

    std::uint32_t count() const { return count_; }
    FieldScope& operator[](std::uint32_t index) { return scopes_[index]; }
    const FieldScope& operator[](std::uint32_t index) const { return scopes_[index]; }

    // The nearest scope, from inside out, that has the field; null: none.
    const FieldScope* holder(std::uint32_t index, Field field, unsigned offset = 0) const {
        for (; index != NO_INDEX; index = scopes_[index].parent)
            if (scopes_[index].has & bit(field, offset)) return &scopes_[index];
        return nullptr;
    }

    // Symbols that were read before the trouble: none, one, or several different ones.
    enum class Symbols { none, one, several };
    Symbols symbols_seen(std::string_view& symbol) const {
        symbol = {};
        for (std::uint32_t i = 0; i < count_; ++i)
            if (scopes_[i].knows(Field::symbol)) {
                if (!symbol.empty() && symbol != scopes_[i].symbol) return Symbols::several;
                symbol = scopes_[i].symbol;
            }
        return symbol.empty() ? Symbols::none : Symbols::one;
    }

private:
    std::vector<FieldScope> scopes_;
    std::uint32_t count_ = 0;
};

}  // namespace lob::parse
